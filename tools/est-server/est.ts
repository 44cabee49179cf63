/**
 * The functions of an EST-coaps server (RFC 9148 section 4) over the development CA, as a handler of CoAP requests:
 * crts, att, sen, sren, skg, skc and discovery.
 *
 *     const server = new CoAPServer({ handler: estHandler({ ca, lifetime: 90 * 86400 }) });
 */

import { certsOnly, type DevelopmentCA, namesOf, RequestError, readRequest } from "./ca.js";
import { type CoAPRequest, type CoAPResponse, diagnostic } from "./coap-server.js";
import { element, SEQUENCE } from "./der.js";
import type { Misbehaviour } from "./misbehave.js";

/** What is known of the client that a request comes from. */
export interface ESTPeer {
  /** Undefined over plain CoAP: whoever ended DTLS before us has authenticated the client, and told us nothing. */
  readonly dtls:
    | {
        /** DER; undefined where a resumed session names one that is not known any more. */
        readonly certificate: Uint8Array | undefined;
        /** tls-unique (RFC 5929 section 3), or the exporter value of RFC 9266 in DTLS 1.3. */
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
  /** CsrAttrs in DER, in place of `attributes`. */
  wishes?: Uint8Array;
  /** Answers that many requests for certificates with 5.03 first, and this Max-Age in seconds (default 5). */
  busy?: number;
  busyFor?: number;
  /** Milliseconds that a request for a certificate takes: above 1,000 the answer comes separately. */
  delay?: number;
  /** The labels that there are (RFC 9148 section 4.1); default: any. */
  labels?: readonly string[];
  /** Where discovery says that the resources are: a path ("/est"), where they are then as well, or an absolute URI. */
  root?: string;
  misbehave?: Misbehaviour;
}

/** RFC 9148 section 8.1; RFC 7252 section 12.3 */
const Format = {
  LINK: 40,
  MULTIPART: 62,
  SERVER_KEY: 280,
  CERTS_ONLY: 281,
  PKCS8: 284,
  CSR_ATTRIBUTES: 285,
  PKCS10: 286,
  CERTIFICATE: 287,
} as const;

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
  return element(SEQUENCE, Buffer.from(elements.join(""), "hex"));
}

/** multipart-core (RFC 8710): a CBOR array of numbers and byte strings, whose lengths fit two bytes. */
function multipart(...parts: readonly (readonly [format: number, body: Uint8Array])[]): Buffer {
  const two = (value: number) => [value >> 8, value & 0xff];
  return Buffer.concat([
    Buffer.from([0x80 + 2 * parts.length]),
    ...parts.map(([format, body]) => Buffer.from([0x19, ...two(format), 0x59, ...two(body.length), ...body])),
  ]);
}

const MEGABYTE = 1 << 20;
const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

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
  const { ca, attributes = "key-type", misbehave } = options;
  let busy = options.busy ?? 0;

  /** Why the request may not be granted to this client, or undefined. */
  const objection = async (
    request: CoAPRequest<ESTPeer>,
    renewal: boolean,
    how: "verified" | "unverified",
  ): Promise<string | undefined> => {
    const { dtls } = request.peer;
    const asked = await readRequest(request.payload, how);
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

  /** Refuses a request for a certificate, or grants it by `grant`. */
  const enroll = async (
    request: CoAPRequest<ESTPeer>,
    operation: "sen" | "sren" | "skg" | "skc",
    grant: () => Promise<CoAPResponse>,
  ): Promise<CoAPResponse> => {
    if (request.contentFormat !== Format.PKCS10) {
      return diagnostic("4.15", `expected Content-Format ${Format.PKCS10}, not ${request.contentFormat ?? "none"}`);
    }
    try {
      const how = operation === "sen" || operation === "sren" ? "verified" : "unverified";
      const reason = await objection(request, operation === "sren", how);
      if (reason !== undefined) {
        return diagnostic("4.03", reason);
      }
      if (busy > 0) {
        busy -= 1;
        return { ...diagnostic("5.03", "busy"), maxAge: options.busyFor ?? 5 };
      }
      if (options.delay !== undefined) {
        await sleep(options.delay);
      }
      return await grant();
    } catch (error) {
      if (error instanceof RequestError) {
        return diagnostic(error.reason === "malformed" ? "4.00" : "4.03", error.message);
      }
      throw error;
    }
  };

  const issue = async (request: CoAPRequest<ESTPeer>, format: number): Promise<CoAPResponse> => {
    const { lifetime } = options;
    const certificate = await ca.issueFromRequest(request.payload, {
      lifetime,
      ...(misbehave === "foreign-key" && { key: "another" as const }),
      ...(misbehave === "wrong-subject" && { subject: namesOf(ca.issuing).subject }),
    });
    const more = misbehave === "not-a-ca" ? [ca.factory.chain[0]!] : [];
    const many = misbehave === "many-certificates" ? Array<Uint8Array>(199).fill(ca.issuing) : [];
    return {
      code: misbehave === "kipuka" ? "2.01" : "2.04",
      contentFormat: format,
      payload:
        misbehave === "huge-body" || misbehave === "endless-blocks"
          ? Buffer.alloc(MEGABYTE)
          : format === Format.CERTIFICATE
            ? certificate
            : certsOnly([certificate, ...more, ...many]),
    };
  };

  const issueWithKey = async (request: CoAPRequest<ESTPeer>, format: number): Promise<CoAPResponse> => {
    const { lifetime } = options;
    const { certificate, privateKey } = await ca.issueWithKey(request.payload, { lifetime });
    const key =
      misbehave === "wrong-server-key" ? (await ca.issueWithKey(request.payload, { lifetime })).privateKey : privateKey;
    const body = format === Format.CERTIFICATE ? certificate : certsOnly([certificate]);
    const keyFormat =
      misbehave === "wrapped-key" ? Format.SERVER_KEY : misbehave === "kipuka" ? Format.PKCS10 : Format.PKCS8;
    let payload = multipart([keyFormat, key], [format, body]);
    if (misbehave === "multipart-nested") {
      payload = Buffer.concat([Buffer.from([0x82, 0x19, 0x01, 0x1c]), payload]);
    } else if (misbehave === "multipart-length") {
      payload[5] = 0xff;
    }
    return { code: misbehave === "kipuka" ? "2.01" : "2.04", contentFormat: Format.MULTIPART, payload };
  };

  /** What crts answers. */
  const caCertificates = (format: number): Uint8Array => {
    switch (misbehave) {
      case "not-a-ca":
        return certsOnly([ca.factory.chain[0]!]);
      case "other-ca":
        return certsOnly([ca.factoryCA]);
      case "many-certificates":
        return certsOnly(Array<Uint8Array>(200).fill(ca.root));
      case "huge-body":
      case "endless-blocks":
        return Buffer.alloc(MEGABYTE);
      default:
        return format === Format.CERTIFICATE ? ca.root : certsOnly(options.caCertificates ?? ca.certificates);
    }
  };

  const resources = new Map<string, Resource>();
  const certificates = [Format.CERTS_ONLY, Format.CERTIFICATE];
  resources.set("crts", {
    method: "GET",
    formats: certificates,
    answer: (_, format) => ({ code: "2.05", contentFormat: format, payload: caCertificates(format) }),
  });
  for (const operation of ["sen", "sren"] as const) {
    resources.set(operation, {
      method: "POST",
      formats: certificates,
      answer: (request, format) => enroll(request, operation, () => issue(request, format)),
    });
  }
  if (attributes !== "none") {
    const wanted = attributes === "key-type" ? [KEY_TYPE, SIGNATURE] : [KEY_TYPE, SIGNATURE, CHALLENGE_PASSWORD];
    const wishes =
      misbehave === "csrattrs-bomb"
        ? csrAttributes(...Array<string>(1000).fill(CHALLENGE_PASSWORD))
        : (options.wishes ?? csrAttributes(...wanted));
    resources.set("att", {
      method: "GET",
      formats: [Format.CSR_ATTRIBUTES],
      answer: (_, format) => ({
        code: "2.05",
        contentFormat: misbehave === "kipuka" ? Format.CERTIFICATE : format,
        payload: wishes,
      }),
    });
  }
  for (const [operation, format] of [
    ["skg", Format.CERTS_ONLY],
    ["skc", Format.CERTIFICATE],
  ] as const) {
    resources.set(operation, {
      method: "POST",
      formats: [Format.MULTIPART],
      answer: (request) => enroll(request, operation, () => issueWithKey(request, format)),
    });
  }
  if (misbehave === "kipuka") {
    resources.delete("skc");
  }
  const root = options.root ?? "/.well-known/est";
  const discovery: Resource = {
    method: "GET",
    formats: [Format.LINK],
    answer: ({ query }, format) => ({
      code: "2.05",
      contentFormat: format,
      payload: Buffer.from(linksOf(root, resources).filter(matching(query)).map(serialized).join(",")),
    }),
  };
  const roots = [".well-known/est", root.replace(/^coaps:\/\/[^/]+/, "").replace(/^\//, "")];

  /** The resource by that path; the one with a label, if that is one of the labels that there are. */
  const find = (path: string): Resource | undefined => {
    if (path === ".well-known/core") {
      return misbehave === "kipuka" ? undefined : discovery;
    }
    const base = roots.find((each) => each !== "" && path.startsWith(`${each}/`));
    const [first, second, ...more] = base === undefined ? [] : path.slice(base.length + 1).split("/");
    const label = second === undefined ? undefined : first;
    if (more.length > 0 || label === "" || (label !== undefined && options.labels?.includes(label) === false)) {
      return undefined;
    }
    return resources.get(second ?? first ?? "");
  };

  return (request) => {
    const resource = find(request.path.join("/"));
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

function linksOf(root: string, resources: ReadonlyMap<string, Resource>): Link[] {
  return [...resources].map(([name, { formats }]) => ({
    href: `${root}/${name}`,
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
