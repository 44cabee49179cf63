/**
 * An EST-coaps client (RFC 9148): asks for the CA certificates, the CSR attributes, a certificate, and where wanted a
 * private key, in raw DER, over a CoAP client.
 *
 *     const est = new ESTClient({ coap: new CoAPClient({ socket: { io: DTLSSocket, … }, timer }) });
 *     const { certificates } = await est.simpleEnroll(csr);
 */

import type { CoAPClient, CoAPResponse, PayloadSource } from "../coap/client.js";
import { LINK_FORMAT } from "../coap/link-format.js";
import { Code, codeText, isSuccess } from "../coap/message.js";
import { readUTF8 } from "../coap/utf8.js";
import { FormatError, TorporError } from "../errors.js";
import { parseCertificate } from "../pki/certificate.js";
import { readCertsOnly } from "../pki/pkcs7.js";
import { type CsrAttribute, readCsrAttributes } from "./csrattrs.js";
import { type ESTFunction, type ESTResource, findResources } from "./discovery.js";
import { isConfused, type Leniency, shapeOf } from "./leniency.js";
import { MULTIPART_CORE, readMultipart } from "./multipart.js";

/** Content-Format numbers of RFC 9148 section 8.1. */
export const ContentFormat = {
  PKCS7_SERVER_KEY: 280,
  PKCS7_CERTS_ONLY: 281,
  PKCS8: 284,
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
  if (payload.length === 0) {
    return "";
  }
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
  /** What discovery has found (`discover`): its paths take the place of those under /.well-known/est. */
  readonly resources?: readonly ESTResource[] | undefined;
  /** Asks for a single certificate, 287, in place of certs-only PKCS #7, 281, as the answer to enrolment. */
  readonly certificateFormat?: 281 | 287 | undefined;
}

/** What a server answered. */
export interface ESTResponse {
  /** CoAP response code. */
  readonly code: number;
  /** The body as it came; of skg and skc the part with the certificate alone. */
  readonly body: Uint8Array;
  /** What the server did otherwise than the RFC says, and was accepted: leniency.ts. Undefined: nothing. */
  readonly leniencies?: readonly Leniency[] | undefined;
}

export interface CertificatesResponse extends ESTResponse {
  /** DER, at least one; for an enrolment the issued one comes first. Each is readable as X.509. */
  readonly certificates: readonly Uint8Array[];
}

export interface ServerKeyResponse extends CertificatesResponse {
  /** The private key in PKCS #8 (RFC 5958), DER: a view that its user wipes once the key is stored. */
  readonly privateKey: Uint8Array;
}

export interface CsrAttributesResponse extends ESTResponse {
  readonly attributes: readonly CsrAttribute[];
}

export interface DiscoveryResponse extends ESTResponse {
  readonly resources: readonly ESTResource[];
}

/** The server's answer to skg or skc holds no private key that this device can take. */
export class ServerKeyError extends TorporError {}

/**
 * Every method rejects with ESTError (the server refused), FormatError or LimitError (its answer is not what it should
 * be), or what the CoAP client rejects with. Nothing is stored here.
 */
export class ESTClient {
  readonly #coap: CoAPClient;
  readonly #path: string;
  readonly #resources: readonly ESTResource[] | undefined;
  readonly #certificateFormat: 281 | 287;

  constructor(options: ESTClientOptions) {
    this.#coap = options.coap;
    this.#path = options.label ? `/.well-known/est/${options.label}` : "/.well-known/est";
    this.#resources = options.resources;
    this.#certificateFormat = options.certificateFormat ?? ContentFormat.PKCS7_CERTS_ONLY;
  }

  /** GET /.well-known/core: where the server has its EST resources (RFC 9148 section 4.1). */
  discover(): Promise<DiscoveryResponse> {
    return this.#coap
      .request({ method: "GET", path: "/.well-known/core", query: ["rt=ace.est*"], accept: LINK_FORMAT })
      .then(readResources);
  }

  /** /crts: the CA certificates (RFC 7030 section 4.1). */
  caCertificates(): Promise<CertificatesResponse> {
    const path = this.pathOf("crts");
    return this.#coap.request({ method: "GET", path, accept: ContentFormat.PKCS7_CERTS_ONLY }).then(readCACertificates);
  }

  /** /att: what the server wants to see in a CSR (RFC 7030 section 4.5). A server without (4.04) wants nothing. */
  csrAttributes(): Promise<CsrAttributesResponse> {
    const path = this.pathOf("att");
    return this.#coap.request({ method: "GET", path, accept: ContentFormat.CSRATTRS }).then(readAttributes);
  }

  /** /sen: a certificate for a device that has none from this CA yet (RFC 7030 section 4.2.1). */
  simpleEnroll(request: Uint8Array | PayloadSource): Promise<CertificatesResponse> {
    return this.enroll("sen", request, this.#certificateFormat).then(readEnrolled);
  }

  /** /sren: the renewal of the certificate that this connection is authenticated with (RFC 7030 section 4.2.2). */
  simpleReenroll(request: Uint8Array | PayloadSource): Promise<CertificatesResponse> {
    return this.enroll("sren", request, this.#certificateFormat).then(readReenrolled);
  }

  /**
   * /skg or /skc: a certificate and a private key that the server makes (RFC 9148 section 4.8); the key of the request
   * only signs it. With skc the certificate comes alone, not in PKCS #7. Rejects with ServerKeyError as well: the key is
   * wrapped in CMS (280), which takes a key that nobody has agreed on.
   */
  serverKeyGeneration(operation: "skg" | "skc", request: Uint8Array | PayloadSource): Promise<ServerKeyResponse> {
    const answer = this.enroll(operation, request, MULTIPART_CORE);
    return operation === "skg" ? answer.then(readServerKey) : answer.then(readServerKeySingle);
  }

  private enroll(
    operation: "sen" | "sren" | "skg" | "skc",
    request: Uint8Array | PayloadSource,
    accept: number,
  ): Promise<CoAPResponse> {
    return this.#coap.request({
      method: "POST",
      path: this.pathOf(operation),
      contentFormat: ContentFormat.PKCS10,
      accept,
      payload: request,
    });
  }

  private pathOf(operation: ESTFunction): string {
    const found = this.#resources?.find(({ name }) => name === operation);
    return found?.path ?? `${this.#path}/${operation}`;
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
  if (code === Code.NOT_FOUND) {
    return { code, body: new Uint8Array(), attributes: [] };
  }
  const leniencies = check("att", response, ATTRIBUTES);
  return { code, body, leniencies, attributes: readCsrAttributes(body) };
}

function readResources(response: CoAPResponse): DiscoveryResponse {
  const { code, payload: body } = response;
  const leniencies = check("core", response, LINKS);
  return { code, body, leniencies, resources: findResources(body) };
}

function readServerKey(response: CoAPResponse): ServerKeyResponse {
  return serverKeyOf("skg", response);
}

function readServerKeySingle(response: CoAPResponse): ServerKeyResponse {
  return serverKeyOf("skc", response);
}

const LINKS: readonly number[] = [LINK_FORMAT];
const MULTIPART: readonly number[] = [MULTIPART_CORE];
const ATTRIBUTES: readonly number[] = [ContentFormat.CSRATTRS];
const CERTIFICATES: readonly number[] = [ContentFormat.PKCS7_CERTS_ONLY, ContentFormat.PKIX_CERT];

/** What was put up with; undefined: nothing. Throws where the answer is none to `operation`. */
function check(
  operation: ESTFunction | "core",
  response: CoAPResponse,
  formats: readonly number[],
): readonly Leniency[] | undefined {
  const { code, contentFormat } = response;
  if (!isSuccess(code)) {
    throw new ESTError(operation, response);
  }
  let leniencies: Leniency[] | undefined;
  if (contentFormat === undefined) {
    leniencies = ["no-format"];
  } else if (!formats.includes(contentFormat)) {
    if (!isConfused(contentFormat) || !isConfusable(operation, response)) {
      throw new FormatError(
        `${operation}: expected Content-Format ${formats.join(" or ")} in the answer, got ${contentFormat}`,
      );
    }
    leniencies = ["other-format-number"];
  }
  const isGet = operation === "crts" || operation === "att" || operation === "core";
  if (code !== (isGet ? Code.CONTENT : Code.CHANGED)) {
    if (code !== Code.CREATED && code !== Code.CHANGED && code !== Code.CONTENT) {
      throw new FormatError(`${operation}: expected ${isGet ? "2.05" : "2.04"} with a body, got ${codeText(code)}`);
    }
    leniencies = [...(leniencies ?? []), "success-code"];
  }
  return leniencies;
}

/** Whether the body may be what was asked for, whatever number it has. What it is read as is as strict as ever. */
function isConfusable(operation: ESTFunction | "core", { payload }: CoAPResponse): boolean {
  switch (operation) {
    case "att":
      return true;
    case "crts":
    case "sen":
    case "sren":
      return shapeOf(payload) === "certs-only" || shapeOf(payload) === "certificate";
    default:
      return false;
  }
}

function certificatesOf(operation: ESTFunction, response: CoAPResponse): CertificatesResponse {
  const leniencies = check(operation, response, CERTIFICATES);
  const { code, contentFormat, payload: body } = response;
  const isOther = contentFormat !== undefined && !CERTIFICATES.includes(contentFormat);
  const isSingle = isOther ? shapeOf(body) === "certificate" : contentFormat === ContentFormat.PKIX_CERT;
  return {
    code,
    body,
    leniencies,
    certificates: readCertificates(operation, body, isSingle ? "single" : "certs-only"),
  };
}

function readCertificates(operation: string, body: Uint8Array, form: "single" | "certs-only"): readonly Uint8Array[] {
  if (body.length === 0) {
    throw new FormatError(`${operation}: expected certificates in the answer, got an empty body`);
  }
  const certificates = form === "single" ? [body] : readCertsOnly(body);
  for (let index = 0; index < certificates.length; index++) {
    parseCertificate(certificates[index]!);
  }
  return certificates;
}

/** RFC 9148 sections 4.3 and 4.8: a key, 284 or 280, and a certificate, 281 (or 287) of skg and 287 of skc. */
function serverKeyOf(operation: "skg" | "skc", response: CoAPResponse): ServerKeyResponse {
  let leniencies = check(operation, response, MULTIPART);
  let privateKey: Uint8Array | undefined;
  let body: Uint8Array | undefined;
  let isSingle = false;
  for (const part of readMultipart(response.payload)) {
    const shape = part.body === undefined ? "unknown" : shapeOf(part.body);
    let { format } = part;
    // The numbers that servers confuse: a key has the look of a key. 281 and 280 nobody confuses.
    const meant = shape === "key" ? ContentFormat.PKCS8 : shape === "certificate" ? ContentFormat.PKIX_CERT : format;
    if (meant !== format && isConfused(format)) {
      format = meant;
      leniencies = [...(leniencies ?? []), "other-format-number"];
    }
    switch (format) {
      case ContentFormat.PKCS7_SERVER_KEY:
        throw new ServerKeyError(
          `${operation}: expected the private key as PKCS #8 (284), got it wrapped in CMS (280): no key for that is ` +
            "agreed with this server (RFC 9148 section 4.8)",
        );
      case ContentFormat.PKCS8:
        privateKey = once(operation, "private key", privateKey, part.body);
        break;
      case ContentFormat.PKCS7_CERTS_ONLY:
      case ContentFormat.PKIX_CERT:
        isSingle = format === ContentFormat.PKIX_CERT;
        if (operation === "skc" && !isSingle) {
          throw new FormatError("skc: expected the certificate as Content-Format 287, got 281");
        }
        body = once(operation, "certificate", body, part.body);
        break;
      default:
        throw new FormatError(`${operation}: expected parts of Content-Format 284 and 281 or 287, got ${part.format}`);
    }
  }
  if (privateKey === undefined || body === undefined) {
    const missing = privateKey === undefined ? "private key (284)" : "certificate (281 or 287)";
    throw new ServerKeyError(`${operation}: expected a private key and a certificate, the ${missing} is missing`);
  }
  const certificates = readCertificates(operation, body, isSingle ? "single" : "certs-only");
  return { code: response.code, body, leniencies, certificates, privateKey };
}

function once(
  operation: string,
  what: string,
  before: Uint8Array | undefined,
  body: Uint8Array | undefined,
): Uint8Array {
  if (before !== undefined || body === undefined) {
    throw new FormatError(`${operation}: expected one ${what}, got ${body === undefined ? "null for it" : "two"}`);
  }
  return body;
}
