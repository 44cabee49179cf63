/**
 * The functions of an EST-coaps server (RFC 9148 section 4) over the development CA, as a handler of CoAP requests:
 * crts, att, sen, sren and discovery. Server-side key generation (skg, skc) is not there: 4.04.
 *
 *     const server = new CoAPServer({ handler: estHandler({ ca, lifetime: 90 * 86400 }) });
 */

import { certsOnly, type DevelopmentCA, namesOf, RequestError, readRequest } from "./ca.js";
import { type CoAPRequest, type CoAPResponse, diagnostic } from "./coap-server.js";

/** What is known of the client that a request comes from. */
export interface ESTPeer {
  /** Undefined over plain CoAP: whoever ended DTLS before us has authenticated the client, and told us nothing. */
  readonly dtls:
    | {
        /** DER; undefined where a resumed session names one that is not known any more. */
        readonly certificate: Uint8Array | undefined;
        /** tls-unique (RFC 5929 section 3). */
        readonly unique: Uint8Array;
      }
    | undefined;
}

/**
 * What att answers: nothing (4.04), the kind of key and signature that is wanted, or also that the request must be
 * linked to the DTLS session by a challengePassword (RFC 7030 section 3.5), which is then demanded.
 */
export type CSRAttributes = "none" | "key-type" | "proof-of-possession";

export interface ESTOptions {
  ca: DevelopmentCA;
  /** Of the certificates that are issued, seconds. */
  lifetime: number;
  /** Answers every certificate request with 4.03 and this message. */
  refuse?: string;
  /** Default "key-type". */
  attributes?: CSRAttributes;
  /** What crts answers, DER; default: root and issuing certificate of the CA. */
  caCertificates?: readonly Uint8Array[];
}

/** RFC 9148 section 8.1; RFC 7252 section 12.3 */
const Format = { LINK: 40, CERTS_ONLY: 281, CSR_ATTRIBUTES: 285, PKCS10: 286, CERTIFICATE: 287 } as const;

/**
 * CsrAttrs (RFC 7030 section 4.5.2) in DER:
 *
 *     SEQUENCE {
 *       SEQUENCE { OID id-ecPublicKey, SET { OID secp256r1 } }
 *       OID ecdsa-with-SHA256
 *       OID challengePassword          where it is demanded
 *     }
 */
const KEY_TYPE = "301506072a8648ce3d0201310a06082a8648ce3d030107";
const SIGNATURE = "06082a8648ce3d040302";
const CHALLENGE_PASSWORD = "06092a864886f70d010907";

function csrAttributes(...elements: string[]): Uint8Array {
  const content = Buffer.from(elements.join(""), "hex");
  return Uint8Array.from([0x30, content.length, ...content]);
}

/** A resource: what it answers, and the formats that it can give. */
interface Resource {
  readonly method: "GET" | "POST";
  /** The default comes first. */
  readonly formats: readonly number[];
  answer(request: CoAPRequest<ESTPeer>, format: number): CoAPResponse | Promise<CoAPResponse>;
}

const same = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0;

/** The handler of an EST server's requests. */
export function estHandler(
  options: ESTOptions,
): (request: CoAPRequest<ESTPeer>) => CoAPResponse | Promise<CoAPResponse> {
  const { ca, attributes = "key-type" } = options;

  /** Why the request may not be granted to this client, or undefined. */
  const objection = async (request: CoAPRequest<ESTPeer>, renewal: boolean): Promise<string | undefined> => {
    const { dtls } = request.peer;
    const asked = await readRequest(request.payload);
    if (options.refuse !== undefined) {
      return options.refuse;
    }
    if (dtls === undefined) {
      return undefined;
    }
    if (asked.challengePassword !== undefined) {
      if (asked.challengePassword !== Buffer.from(dtls.unique).toString("base64")) {
        return "the challengePassword is not the tls-unique of this DTLS session (RFC 7030 section 3.5)";
      }
    } else if (attributes === "proof-of-possession") {
      return "the request must carry the tls-unique of this DTLS session as challengePassword (RFC 7030 section 3.5)";
    }
    if (renewal) {
      if (dtls.certificate === undefined) {
        return "the client certificate of this resumed session is not known any more: make a full handshake";
      }
      const current = namesOf(dtls.certificate);
      if (!same(current.subject, asked.subject) || !same(current.subjectAltName, asked.subjectAltName)) {
        return "subject and subjectAltName must be, byte for byte, those of the client certificate (RFC 7030 section 4.2.2)";
      }
    }
    return undefined;
  };

  const enroll = async (request: CoAPRequest<ESTPeer>, format: number, renewal: boolean): Promise<CoAPResponse> => {
    if (request.contentFormat !== Format.PKCS10) {
      return diagnostic("4.15", `expected Content-Format ${Format.PKCS10}, not ${request.contentFormat ?? "none"}`);
    }
    try {
      const reason = await objection(request, renewal);
      if (reason !== undefined) {
        return diagnostic("4.03", reason);
      }
      const certificate = await ca.issueFromRequest(request.payload, { lifetime: options.lifetime });
      return {
        code: "2.04",
        contentFormat: format,
        payload: format === Format.CERTIFICATE ? certificate : certsOnly([certificate]),
      };
    } catch (error) {
      if (error instanceof RequestError) {
        return diagnostic(error.reason === "malformed" ? "4.00" : "4.03", error.message);
      }
      throw error;
    }
  };

  const resources = new Map<string, Resource>([
    [
      "crts",
      {
        method: "GET",
        formats: [Format.CERTS_ONLY, Format.CERTIFICATE],
        answer: (_, format) => ({
          code: "2.05",
          contentFormat: format,
          payload: format === Format.CERTIFICATE ? ca.root : certsOnly(options.caCertificates ?? [ca.root, ca.issuing]),
        }),
      },
    ],
    [
      "sen",
      {
        method: "POST",
        formats: [Format.CERTS_ONLY, Format.CERTIFICATE],
        answer: (request, format) => enroll(request, format, false),
      },
    ],
    [
      "sren",
      {
        method: "POST",
        formats: [Format.CERTS_ONLY, Format.CERTIFICATE],
        answer: (request, format) => enroll(request, format, true),
      },
    ],
  ]);
  if (attributes !== "none") {
    const wanted = attributes === "key-type" ? [KEY_TYPE, SIGNATURE] : [KEY_TYPE, SIGNATURE, CHALLENGE_PASSWORD];
    resources.set("att", {
      method: "GET",
      formats: [Format.CSR_ATTRIBUTES],
      answer: (_, format) => ({ code: "2.05", contentFormat: format, payload: csrAttributes(...wanted) }),
    });
  }
  const discovery: Resource = {
    method: "GET",
    formats: [Format.LINK],
    answer: ({ query }, format) => ({
      code: "2.05",
      contentFormat: format,
      payload: Buffer.from(linksOf(resources).filter(matching(query)).map(serialized).join(",")),
    }),
  };

  return (request) => {
    const path = request.path.join("/");
    const name = /^\.well-known\/est\/(?:[^/]+\/)?([^/]+)$/.exec(path)?.[1];
    const resource = path === ".well-known/core" ? discovery : resources.get(name ?? "");
    if (resource === undefined) {
      return diagnostic("4.04", `this server has ${[...resources.keys()].join(", ")} under /.well-known/est`);
    }
    if (request.method !== resource.method) {
      return diagnostic("4.05", `use ${resource.method}`);
    }
    const { accept = resource.formats[0]! } = request;
    if (!resource.formats.includes(accept)) {
      return diagnostic("4.06", `this has Content-Format ${resource.formats.join(" or ")}`);
    }
    return resource.answer(request, accept);
  };
}

// ---- discovery (RFC 9148 section 4.1, RFC 6690) ----

interface Link {
  readonly href: string;
  readonly rt: string;
  readonly ct: string;
}

function linksOf(resources: ReadonlyMap<string, Resource>): Link[] {
  return [...resources].map(([name, { formats }]) => ({
    href: `/.well-known/est/${name}`,
    rt: `ace.est.${name}`,
    ct: formats.join(" "),
  }));
}

const serialized = ({ href, rt, ct }: Link): string => `<${href}>;rt="${rt}";ct=${ct.includes(" ") ? `"${ct}"` : ct}`;

/** RFC 6690 section 4.1: each parameter names an attribute and one of its values, or how that begins (`*`). */
function matching(query: readonly string[]): (link: Link) => boolean {
  return (link) =>
    query.every((parameter) => {
      const [, name, value, star] = /^([^=]*)=(.*?)(\*?)$/.exec(parameter) ?? [];
      if (value === undefined || !(name === "href" || name === "rt" || name === "ct")) {
        return false;
      }
      const values = name === "href" ? [link.href] : link[name].split(" ");
      return values.some((candidate) => (star === "*" ? candidate.startsWith(value) : candidate === value));
    });
}
