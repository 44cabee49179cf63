/**
 * An EST-coaps client (RFC 9148): asks for the CA certificates, the CSR attributes and a certificate, in raw DER, over
 * a CoAP client.
 *
 *     const est = new ESTClient({ coap: new CoAPClient({ socket: { io: DTLSSocket, … }, timer }) });
 *     const { certificates } = await est.simpleEnroll(csr);
 */

import type { CoAPClient, CoAPResponse } from "../coap/client.js";
import { codeText, isSuccess } from "../coap/message.js";
import { readUTF8 } from "../coap/utf8.js";
import { FormatError, TorporError } from "../errors.js";
import { parseCertificate } from "../pki/certificate.js";
import { readCertsOnly } from "../pki/pkcs7.js";
import { type CsrAttribute, readCsrAttributes } from "./csrattrs.js";

/** Content-Format numbers of RFC 9148 section 8.1. */
export const ContentFormat = {
  PKCS7_CERTS_ONLY: 281,
  CSRATTRS: 285,
  PKCS10: 286,
  PKIX_CERT: 287,
} as const;

/** The server answered with an error code (RFC 9148 section 4.5). */
export class ESTError extends TorporError {
  /** The CoAP response code, such as 0x83 for 4.03. */
  readonly code: number;
  /** The server's own words (RFC 7252 section 5.5.2), or an empty string. */
  readonly diagnostic: string;
  /** For 5.03: how many seconds to wait before the same request is made again. */
  readonly retryAfter: number | undefined;

  constructor(operation: string, response: CoAPResponse) {
    const diagnostic = diagnosticOf(response);
    const retryAfter = response.code === SERVICE_UNAVAILABLE ? (response.maxAge ?? DEFAULT_MAX_AGE) : undefined;
    const advice = retryAfter === undefined ? "" : `; try again in ${retryAfter} s`;
    super(
      `the server refused ${operation} with ${codeText(response.code)} ${MEANING[response.code] ?? ""}`.trimEnd() +
        (diagnostic === "" ? "" : `: "${diagnostic}"`) +
        advice,
    );
    this.code = response.code;
    this.diagnostic = diagnostic;
    this.retryAfter = retryAfter;
  }
}

const SERVICE_UNAVAILABLE = 0xa3;
/** Seconds, where there is no Max-Age option (RFC 7252 section 5.10.5). */
const DEFAULT_MAX_AGE = 60;
/** Characters of a diagnostic that are shown. */
const DIAGNOSTIC_MAX = 200;

const MEANING: Readonly<Record<number, string>> = {
  128: "Bad Request",
  129: "Unauthorized",
  130: "Bad Option",
  131: "Forbidden",
  132: "Not Found",
  133: "Method Not Allowed",
  134: "Not Acceptable",
  136: "Request Entity Incomplete",
  141: "Request Entity Too Large",
  143: "Unsupported Content-Format",
  160: "Internal Server Error",
  161: "Not Implemented",
  163: "Service Unavailable",
};

/** The diagnostic payload as one printable line; control characters could do harm in a log or a terminal. */
function diagnosticOf(response: CoAPResponse): string {
  if (response.contentFormat !== undefined && response.contentFormat !== 0) {
    return "";
  }
  const { payload } = response;
  let end = Math.min(payload.length, DIAGNOSTIC_MAX);
  // Not in the middle of a character: its further bytes are 10xxxxxx.
  while (end < payload.length && end > 0 && (payload[end]! & 0xc0) === 0x80) {
    end--;
  }
  try {
    const text = readUTF8(payload.subarray(0, end));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: it is these that must not get through
    return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim();
  } catch {
    return "";
  }
}

export interface ESTClientOptions {
  readonly coap: CoAPClient;
  /** The label of the path after /.well-known/est (RFC 9148 section 4.1), without slashes; none unless told. */
  readonly label?: string | undefined;
  /** Asks for a single certificate, 287, in place of certs-only PKCS #7, 281, as the answer to enrolment. */
  readonly certificateFormat?: 281 | 287 | undefined;
}

/** What a server answered. */
export interface ESTResponse {
  /** CoAP response code. */
  readonly code: number;
  /** The body as it came. */
  readonly body: Uint8Array;
}

export interface CertificatesResponse extends ESTResponse {
  /** DER, at least one; for an enrolment the issued one comes first. Each is readable as X.509. */
  readonly certificates: readonly Uint8Array[];
}

export interface CsrAttributesResponse extends ESTResponse {
  readonly attributes: readonly CsrAttribute[];
}

/**
 * Every method rejects with ESTError (the server refused), FormatError or LimitError (its answer is not what it should
 * be), or what the CoAP client rejects with. Nothing is stored here.
 */
export class ESTClient {
  readonly #coap: CoAPClient;
  readonly #path: string;
  readonly #certificateFormat: 281 | 287;

  constructor(options: ESTClientOptions) {
    this.#coap = options.coap;
    this.#path = options.label ? `/.well-known/est/${options.label}` : "/.well-known/est";
    this.#certificateFormat = options.certificateFormat ?? ContentFormat.PKCS7_CERTS_ONLY;
  }

  /** /crts: the CA certificates (RFC 7030 section 4.1). */
  caCertificates(): Promise<CertificatesResponse> {
    const path = `${this.#path}/crts`;
    return this.#coap.request({ method: "GET", path, accept: ContentFormat.PKCS7_CERTS_ONLY }).then(readCACertificates);
  }

  /** /att: what the server wants to see in a CSR (RFC 7030 section 4.5). A server without (4.04) wants nothing. */
  csrAttributes(): Promise<CsrAttributesResponse> {
    const path = `${this.#path}/att`;
    return this.#coap.request({ method: "GET", path, accept: ContentFormat.CSRATTRS }).then(readAttributes);
  }

  /** /sen: a certificate for a device that has none from this CA yet (RFC 7030 section 4.2.1). */
  simpleEnroll(request: Uint8Array): Promise<CertificatesResponse> {
    return this.enroll("sen", request).then(readEnrolled);
  }

  /** /sren: the renewal of the certificate that this connection is authenticated with (RFC 7030 section 4.2.2). */
  simpleReenroll(request: Uint8Array): Promise<CertificatesResponse> {
    return this.enroll("sren", request).then(readReenrolled);
  }

  private enroll(operation: "sen" | "sren", request: Uint8Array): Promise<CoAPResponse> {
    return this.#coap.request({
      method: "POST",
      path: `${this.#path}/${operation}`,
      contentFormat: ContentFormat.PKCS10,
      accept: this.#certificateFormat,
      payload: request,
    });
  }
}

// What becomes of an answer: one function for each operation, not closures or functions that wait, which keep their
// stack in the heap for as long as the server takes.

function readCACertificates(response: CoAPResponse): CertificatesResponse {
  return certificatesOf("crts", response);
}

function readEnrolled(response: CoAPResponse): CertificatesResponse {
  return certificatesOf("sen", response);
}

function readReenrolled(response: CoAPResponse): CertificatesResponse {
  return certificatesOf("sren", response);
}

function readAttributes(response: CoAPResponse): CsrAttributesResponse {
  const { code, payload: body } = response;
  if (code === NOT_FOUND) {
    return { code, body: new Uint8Array(), attributes: [] };
  }
  check("att", response, ATTRIBUTES);
  return { code, body, attributes: readCsrAttributes(body) };
}

const NOT_FOUND = 0x84;
const ATTRIBUTES: readonly number[] = [ContentFormat.CSRATTRS];
const CERTIFICATES: readonly number[] = [ContentFormat.PKCS7_CERTS_ONLY, ContentFormat.PKIX_CERT];

function check(operation: string, response: CoAPResponse, formats: readonly number[]): void {
  if (!isSuccess(response.code)) {
    throw new ESTError(operation, response);
  }
  const { contentFormat } = response;
  if (contentFormat !== undefined && !formats.includes(contentFormat)) {
    throw new FormatError(
      `${operation}: expected Content-Format ${formats.join(" or ")} in the answer, got ${contentFormat}`,
    );
  }
}

function certificatesOf(operation: string, response: CoAPResponse): CertificatesResponse {
  check(operation, response, CERTIFICATES);
  const body = response.payload;
  if (body.length === 0) {
    throw new FormatError(`${operation}: expected certificates in the answer, got an empty body`);
  }
  const certificates = response.contentFormat === ContentFormat.PKIX_CERT ? [body] : readCertsOnly(body);
  for (let index = 0; index < certificates.length; index++) {
    parseCertificate(certificates[index]!);
  }
  return { code: response.code, body, certificates };
}
