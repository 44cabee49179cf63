/**
 * What goes into a certificate request: what the server wishes (RFC 7030 section 4.5.2 as RFC 8951 section 4 has it, the
 * templates of RFC 9908), as far as the device can give it. Wishes that are not known are ignored, as RFC 8951 demands.
 *
 *     const plan = planRequest(attributes, own, "enrolment");
 *     certificateRequest(key, plan.subject, requestAttributes(plan, unique));
 */

import { joinBytes, sameBytes } from "../bytes.js";
import { FormatError, LimitError } from "../errors.js";
import { parseCertificate } from "../pki/certificate.js";
import { DERReader, dottedOID, Tag } from "../pki/der.js";
import { element } from "../pki/der-writer.js";
import type { CsrAttribute } from "./csrattrs.js";

export interface RequestPlan {
  /** Of the key; undefined where the server leaves the choice. */
  readonly keyBits: 256 | 384 | undefined;
  /** A Name in DER. */
  readonly subject: Uint8Array;
  /** Extension values in DER (RFC 5280 section 4.2), each whole. */
  readonly extensions: readonly Uint8Array[];
  /** Whether the request must carry tls-unique: RFC 7030 section 3.5. */
  readonly proof: "tls-unique" | undefined;
  /** Wishes that are understood and cannot be fulfilled, in sentences. */
  readonly notes: readonly string[];
}

const EC_PUBLIC_KEY = "1.2.840.10045.2.1";
const RSA = "1.2.840.113549.1.1.1";
const ECDSA_SHA256 = "1.2.840.10045.4.3.2";
const ECDSA_SHA384 = "1.2.840.10045.4.3.3";
const CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7";
const EXTENSION_REQUEST = "1.2.840.113549.1.9.14";
/** RFC 9908 section 3: id-aa-certificationRequestInfoTemplate, id-aa-extensionReqTemplate */
const REQUEST_TEMPLATE = "1.2.840.113549.1.9.16.2.61";
const EXTENSION_TEMPLATE = "1.2.840.113549.1.9.16.2.62";

const CURVES: Readonly<Record<string, 256 | 384 | undefined>> = { "1.2.840.10045.3.1.7": 256, "1.3.132.0.34": 384 };

const SUBJECT_ALT_NAME = "2.5.29.17";
const KEY_USAGE = "2.5.29.15";
const EXTENDED_KEY_USAGE = "2.5.29.37";

const SUBJECT_ALT_NAME_OID = Uint8Array.of(0x55, 0x1d, 0x11);
const CHALLENGE_PASSWORD_OID = Uint8Array.of(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07);
const EXTENSION_REQUEST_OID = Uint8Array.of(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e);

/** keyUsage digitalSignature, and extendedKeyUsage id-kp-clientAuth: what a DTLS client needs, as Extensions. */
const DIGITAL_SIGNATURE = Uint8Array.of(0x30, 14, 6, 3, 0x55, 0x1d, 0x0f, 1, 1, 0xff, 4, 4, 3, 2, 7, 0x80);
const CLIENT_AUTH = Uint8Array.of(
  ...[0x30, 0x13, 6, 3, 0x55, 0x1d, 0x25, 4, 0x0c, 0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2],
);

/** Attribute types of names: those under 2.5.4, DC, UID and emailAddress. */
function isNaming(oid: string): boolean {
  return /^2\.5\.4\.\d+$/.test(oid) || /^0\.9\.2342\.19200300\.100\.1\.(1|25)$/.test(oid);
}

const TEMPLATE_KEY = 0xa0;
const TEMPLATE_ATTRIBUTES = 0xa1;

/** Bytes of subject and extensions together: a request has 1,024. */
const MAX_BYTES = 768;

/**
 * What to request for `own`, the certificate that the device has. A renewal keeps its subject and subjectAltName, byte
 * for byte, whatever the server wishes (RFC 7030 section 4.2.2). Where there is a template, nothing but it counts (RFC
 * 9908 section 3.4).
 * @throws FormatError where a wish that is understood is malformed; LimitError where it is too long.
 */
export function planRequest(
  attributes: readonly CsrAttribute[],
  own: Uint8Array,
  purpose: "enrolment" | "renewal",
): RequestPlan {
  const planner = new Planner(own, purpose);
  const template = attributes.find(({ oid }) => oid === REQUEST_TEMPLATE);
  if (template?.values !== undefined) {
    planner.takeTemplate(template.values);
  } else {
    for (const attribute of attributes) {
      planner.take(attribute);
    }
  }
  return planner.finish();
}

class Planner {
  readonly #own: ReturnType<typeof parseCertificate>;
  readonly #isRenewal: boolean;
  readonly #notes: string[] = [];
  readonly #extensions = new Map<string, Uint8Array>();
  #keyBits: 256 | 384 | undefined;
  #signatureBits: 256 | 384 | undefined;
  #proof: "tls-unique" | undefined;
  #names: Uint8Array[];

  constructor(own: Uint8Array, purpose: "enrolment" | "renewal") {
    this.#own = parseCertificate(own);
    this.#isRenewal = purpose === "renewal";
    this.#names = namesOf(this.#own.subject);
  }

  take({ oid, values = [] }: CsrAttribute): void {
    switch (oid) {
      case CHALLENGE_PASSWORD:
        this.#proof = "tls-unique";
        break;
      case EC_PUBLIC_KEY:
        if (values.length > 0) this.takeCurve(values);
        break;
      case RSA:
        this.noteOtherKey();
        break;
      case ECDSA_SHA256:
        this.#signatureBits = 256;
        break;
      case ECDSA_SHA384:
        this.#signatureBits ??= 384;
        break;
      case EXTENSION_REQUEST:
      case EXTENSION_TEMPLATE:
        for (const value of values) this.takeExtensions(value);
        break;
      default:
        if (isNaming(oid)) this.takeName(oid, values[0]);
    }
  }

  private noteOtherKey(): void {
    this.#notes.push("the server wishes a key that is not of elliptic curves, which this device does not make");
  }

  /** The first curve that the device has. */
  private takeCurve(values: readonly Uint8Array[]): void {
    for (const value of values) {
      const reader = new DERReader(value);
      const bits = reader.tag === Tag.OBJECT_IDENTIFIER ? CURVES[dottedOID(reader.readOID())] : undefined;
      this.#keyBits ??= bits;
    }
    if (this.#keyBits === undefined) {
      this.#notes.push("the server wishes a key on a curve that this device does not have: requested with P-256");
    }
  }

  /**
   * Extensions (RFC 5280), each with its value or, as templates have them, without; or one OID, as RFC 8951 shows it.
   */
  private takeExtensions(value: Uint8Array): void {
    const reader = new DERReader(value);
    if (reader.tag === Tag.OBJECT_IDENTIFIER) {
      this.fillExtension(dottedOID(reader.readOID()));
      reader.finish();
      return;
    }
    const list = reader.enter(Tag.SEQUENCE);
    reader.finish();
    while (!list.done) {
      const whole = list.readElement(Tag.SEQUENCE);
      const extension = new DERReader(whole).enter(Tag.SEQUENCE);
      const oid = dottedOID(extension.readOID());
      if (extension.tag === Tag.BOOLEAN) extension.readBoolean();
      if (extension.done) {
        this.fillExtension(oid);
      } else {
        extension.read(Tag.OCTET_STRING);
        extension.finish();
        this.addExtension(oid, whole);
      }
    }
  }

  private addExtension(oid: string, extension: Uint8Array): void {
    if (this.#extensions.has(oid)) throw new FormatError(`csrattrs: expected extension ${oid} once, got it twice`);
    this.#extensions.set(oid, extension);
  }

  /** An extension that the server wishes without saying its value. */
  private fillExtension(oid: string): void {
    switch (oid) {
      case SUBJECT_ALT_NAME: {
        const extension = this.ownNames();
        if (extension !== undefined) this.addExtension(oid, extension);
        else this.#notes.push("the server wishes a subjectAltName, and this device's certificate has none");
        break;
      }
      case KEY_USAGE:
        this.addExtension(oid, DIGITAL_SIGNATURE);
        break;
      case EXTENDED_KEY_USAGE:
        this.addExtension(oid, CLIENT_AUTH);
        break;
    }
  }

  /** The subjectAltName of the device's certificate, as an Extension. */
  private ownNames(): Uint8Array | undefined {
    const own = this.#own.extension(SUBJECT_ALT_NAME_OID);
    return (
      own &&
      element(
        Tag.SEQUENCE,
        element(Tag.OBJECT_IDENTIFIER, SUBJECT_ALT_NAME_OID),
        ...(own.critical ? [Uint8Array.of(Tag.BOOLEAN, 1, 0xff)] : []),
        element(Tag.OCTET_STRING, own.value),
      )
    );
  }

  /** An attribute of the subject, with its value or, where the device is to say it, without. */
  private takeName(oid: string, value: Uint8Array | undefined): void {
    const at = this.#names.findIndex((name) => typeOf(name) === oid);
    if (value !== undefined) {
      if (at >= 0) this.#names[at] = nameOf(this.#names[at]!, value);
      else this.#names.unshift(rdnOf(oid, value));
    } else if (at < 0) {
      this.#notes.push(`the server wishes ${oid} in the subject, and this device's certificate has no such attribute`);
    }
  }

  // CertificationRequestInfoTemplate  SEQUENCE { INTEGER v1, SEQUENCE subject OPTIONAL,
  //                                              [0] { algorithm, BIT STRING OPTIONAL } OPTIONAL, [1] attributes }

  takeTemplate(values: readonly Uint8Array[]): void {
    if (values.length !== 1) throw new FormatError(`csrattrs: expected one template, got ${values.length}`);
    const reader = new DERReader(values[0]!);
    const template = reader.enter(Tag.SEQUENCE);
    reader.finish();
    const version = template.readUnsignedInteger();
    if (version.length !== 1 || version[0] !== 0) throw new FormatError("csrattrs: expected a template of version 1");
    if (template.tag === Tag.SEQUENCE) this.takeSubject(template.enter(Tag.SEQUENCE));
    if (template.tag === TEMPLATE_KEY) this.takeKey(template.enter(TEMPLATE_KEY));
    if (template.tag === TEMPLATE_ATTRIBUTES) {
      const set = template.enter(TEMPLATE_ATTRIBUTES);
      while (!set.done) {
        const attribute = set.enter(Tag.SEQUENCE);
        const oid = dottedOID(attribute.readOID());
        const inside = attribute.enter(Tag.SET);
        attribute.finish();
        const attributeValues: Uint8Array[] = [];
        while (!inside.done) attributeValues.push(inside.readElement());
        this.take({ oid, values: attributeValues });
      }
    }
    template.finish();
  }

  /** The subject with these attributes and no others; a value that is left out is the device's own. */
  private takeSubject(list: DERReader): void {
    const names: Uint8Array[] = [];
    while (!list.done) {
      const set = list.enter(Tag.SET);
      const parts: Uint8Array[] = [];
      while (!set.done) {
        const whole = set.readElement(Tag.SEQUENCE);
        const attribute = new DERReader(whole).enter(Tag.SEQUENCE);
        const oid = dottedOID(attribute.readOID());
        const own = attribute.done ? this.#names.find((name) => typeOf(name) === oid) : undefined;
        if (!attribute.done) {
          attribute.skip();
          attribute.finish();
          parts.push(whole);
        } else if (own !== undefined) {
          parts.push(new DERReader(own).read(Tag.SET));
        } else {
          this.#notes.push(
            `the server wishes ${oid} in the subject, and this device's certificate has no such attribute`,
          );
        }
      }
      if (parts.length > 0) names.push(element(Tag.SET, ...parts));
    }
    this.#names = names;
  }

  private takeKey(info: DERReader): void {
    const algorithm = info.enter(Tag.SEQUENCE);
    const oid = dottedOID(algorithm.readOID());
    const values = algorithm.done ? [] : [algorithm.readElement()];
    if (oid === EC_PUBLIC_KEY) this.take({ oid, values });
    else this.noteOtherKey();
  }

  finish(): RequestPlan {
    let subject = element(Tag.SEQUENCE, ...this.#names);
    const isNameless = this.#names.length === 0;
    if (this.#isRenewal) subject = this.#own.subject;
    if (this.#isRenewal || isNameless) {
      const names = this.ownNames();
      if (names !== undefined) this.#extensions.set(SUBJECT_ALT_NAME, names);
      else if (this.#isRenewal) this.#extensions.delete(SUBJECT_ALT_NAME);
    }
    const extensions = [...this.#extensions.values()];
    let length = subject.length;
    for (const extension of extensions) length += extension.length;
    if (length > MAX_BYTES) {
      throw new LimitError(`csrattrs: expected at most ${MAX_BYTES} bytes of subject and extensions, got ${length}`);
    }
    return {
      keyBits: this.#keyBits ?? this.#signatureBits,
      subject: sameBytes(subject, this.#own.subject) ? this.#own.subject : subject,
      extensions,
      proof: this.#proof,
      notes: this.#notes,
    };
  }
}

/** The relative distinguished names of a Name, each a view with tag and length. */
function namesOf(name: Uint8Array): Uint8Array[] {
  const list = new DERReader(name).enter(Tag.SEQUENCE);
  const names: Uint8Array[] = [];
  while (!list.done) names.push(list.readElement(Tag.SET));
  return names;
}

/** The type of the first attribute of a relative distinguished name. */
function typeOf(rdn: Uint8Array): string {
  return dottedOID(new DERReader(rdn).enter(Tag.SET).enter(Tag.SEQUENCE).readOID());
}

function nameOf(rdn: Uint8Array, value: Uint8Array): Uint8Array {
  const oid = new DERReader(rdn).enter(Tag.SET).enter(Tag.SEQUENCE).readElement(Tag.OBJECT_IDENTIFIER);
  return element(Tag.SET, element(Tag.SEQUENCE, oid, value));
}

function rdnOf(oid: string, value: Uint8Array): Uint8Array {
  return element(Tag.SET, element(Tag.SEQUENCE, element(Tag.OBJECT_IDENTIFIER, encodeOID(oid)), value));
}

/** The content octets of an OID in dotted form, whose arcs are below 2³¹. */
function encodeOID(dotted: string): Uint8Array {
  const arcs = dotted.split(".").map(Number);
  const octets: number[] = [];
  for (const arc of [arcs[0]! * 40 + arcs[1]!, ...arcs.slice(2)]) {
    const septets = [arc & 0x7f];
    for (let rest = arc >>> 7; rest > 0; rest >>>= 7) septets.unshift((rest & 0x7f) | 0x80);
    octets.push(...septets);
  }
  return Uint8Array.from(octets);
}

/**
 * The attributes of a request, DER, in DER's order, for `certificateRequest`.
 * @param unique tls-unique of the connection that the request goes out by; taken where `plan` has a proof
 */
export function requestAttributes(plan: RequestPlan, unique: Uint8Array | undefined): Uint8Array {
  const attributes: Uint8Array[] = [];
  if (plan.proof !== undefined && unique !== undefined) {
    attributes.push(attributeOf(CHALLENGE_PASSWORD_OID, element(Tag.UTF8_STRING, base64(unique))));
  }
  if (plan.extensions.length > 0) {
    attributes.push(attributeOf(EXTENSION_REQUEST_OID, element(Tag.SEQUENCE, ...plan.extensions)));
  }
  return joinBytes(...attributes.sort(inOrder));
}

function attributeOf(oid: Uint8Array, value: Uint8Array): Uint8Array {
  return element(Tag.SEQUENCE, element(Tag.OBJECT_IDENTIFIER, oid), element(Tag.SET, value));
}

/** X.690 section 11.6: as octet strings, the shorter one as if zeros followed. */
function inOrder(one: Uint8Array, other: Uint8Array): number {
  for (let at = 0; at < one.length || at < other.length; at++) {
    const difference = (one[at] ?? 0) - (other[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** RFC 4648 section 4, as ASCII. */
function base64(bytes: Uint8Array): Uint8Array {
  const text = new Uint8Array(Math.ceil(bytes.length / 3) * 4).fill(0x3d);
  for (let at = 0, out = 0; at < bytes.length; at += 3) {
    const left = Math.min(3, bytes.length - at);
    const group = (bytes[at]! << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    for (let digit = 0; digit <= left; digit++) {
      text[out + digit] = ALPHABET.charCodeAt((group >> (18 - 6 * digit)) & 63);
    }
    out += 4;
  }
  return text;
}
