/**
 * X.509 certificates: the parts of RFC 5280 section 4.1 that a client needs, as views into the DER. It reads and does
 * not verify: chains and signatures are the DTLS engine's.
 *
 *     const { notAfter, publicKey } = parseCertificate(der);
 */
import { sameBytes } from "../bytes.js";
import { FormatError } from "../errors.js";
import { DERReader, Tag, withoutSignOctet } from "./der.js";
import { distinguishedName } from "./name.js";

const VERSION = 0xa0;
const ISSUER_UNIQUE_ID = 0x81;
const SUBJECT_UNIQUE_ID = 0x82;
const EXTENSIONS = 0xa3;

/** One extension (RFC 5280 section 4.2): `value` is what is inside its OCTET STRING. */
export interface Extension {
  readonly critical: boolean;
  readonly value: Uint8Array;
}

/** Who a client certificate is about; what a session remembers of it. */
export interface ClientCertInfo {
  /** The subject's RFC 4514 string. */
  readonly subject: string;
  /** Unsigned, big-endian, without sign octet. */
  readonly serialNumber: Uint8Array;
  readonly der: Uint8Array;
}

/** A parsed certificate. All byte arrays are views into `der`. */
class Certificate {
  /** The whole certificate. */
  readonly der: Uint8Array;
  /** The TBSCertificate with tag and length: what is signed. */
  readonly tbs: Uint8Array;
  /**
   * Unsigned, big-endian, without sign octet. A negative one, which RFC 5280 section 4.1.2.2 forbids and asks to put up
   * with, is its content octets as they are.
   */
  readonly serialNumber: Uint8Array;
  /** The issuer's Name, DER. */
  readonly issuer: Uint8Array;
  /** The subject's Name, DER. */
  readonly subject: Uint8Array;
  /** Seconds since 1970-01-01T00:00:00Z. */
  readonly notBefore: number;
  /** Seconds since 1970-01-01T00:00:00Z; 253402300799 where RFC 5280 says "no well-defined expiration date". */
  readonly notAfter: number;
  /** The whole SubjectPublicKeyInfo, DER. */
  readonly publicKeyInfo: Uint8Array;
  /** Content octets of the key algorithm's OID. */
  readonly publicKeyAlgorithm: Uint8Array;
  /** Content octets of the curve's OID (RFC 5480 section 2.1.1); undefined where the parameters are no OID. */
  readonly curve: Uint8Array | undefined;
  /** The key itself: for P-256 the uncompressed point, 65 bytes. */
  readonly publicKey: Uint8Array;
  readonly #extensions: Uint8Array | undefined;

  constructor(der: Uint8Array) {
    const reader = new DERReader(der);
    const certificate = reader.enter(Tag.SEQUENCE);
    reader.finish();
    this.der = der;
    this.tbs = certificate.readElement(Tag.SEQUENCE);
    certificate.skip(Tag.SEQUENCE);
    certificate.readBitString();
    certificate.finish();

    const fields = new DERReader(this.tbs).enter(Tag.SEQUENCE);
    let version = 0;
    if (fields.tag === VERSION) {
      const wrapper = fields.enter(VERSION);
      const number = wrapper.readUnsignedInteger();
      wrapper.finish();
      version = number.length === 1 ? number[0]! : 255;
      if (version > 2) throw new FormatError("certificate: expected version 1 to 3, got a later one");
    }
    this.serialNumber = withoutSignOctet(fields.readInteger());
    fields.skip(Tag.SEQUENCE);
    this.issuer = fields.readElement(Tag.SEQUENCE);
    const validity = fields.enter(Tag.SEQUENCE);
    this.notBefore = validity.readTime();
    this.notAfter = validity.readTime();
    validity.finish();
    this.subject = fields.readElement(Tag.SEQUENCE);
    this.publicKeyInfo = fields.readElement(Tag.SEQUENCE);
    const keyInfo = new DERReader(this.publicKeyInfo).enter(Tag.SEQUENCE);
    const algorithm = keyInfo.enter(Tag.SEQUENCE);
    this.publicKeyAlgorithm = algorithm.readOID();
    if (algorithm.tag === Tag.OBJECT_IDENTIFIER) this.curve = algorithm.readOID();
    else if (!algorithm.done) algorithm.skip();
    algorithm.finish();
    this.publicKey = keyInfo.readBitString();
    keyInfo.finish();

    if (version >= 1 && fields.tag === ISSUER_UNIQUE_ID) fields.skip();
    if (version >= 1 && fields.tag === SUBJECT_UNIQUE_ID) fields.skip();
    if (version === 2 && fields.tag === EXTENSIONS) {
      const wrapper = fields.enter(EXTENSIONS);
      this.#extensions = wrapper.read(Tag.SEQUENCE);
      wrapper.finish();
      findExtension(this.#extensions, undefined);
    }
    fields.finish();
  }

  /**
   * The extension with this OID (content octets, such as 55 1d 25 for extended key usage); undefined where there is
   * none. Throws a FormatError where it is there twice, which RFC 5280 section 4.2 forbids.
   */
  extension(oid: Uint8Array): Extension | undefined {
    return this.#extensions && findExtension(this.#extensions, oid);
  }
}

export type { Certificate };

/**
 * Reads one DER certificate. Throws a FormatError where it is none or anything follows, a LimitError where it has an
 * OID of more than 128 octets.
 */
export function parseCertificate(der: Uint8Array): Certificate {
  return new Certificate(der);
}

/** Subject, serial number and DER of a client certificate. Throws as `parseCertificate` does. */
export function clientCertInfo(der: Uint8Array): ClientCertInfo {
  const { subject, serialNumber } = parseCertificate(der);
  return { subject: distinguishedName(subject), serialNumber, der };
}

/** Walks over all extensions, so that each is checked, and returns the one with this OID. */
function findExtension(extensions: Uint8Array, oid: Uint8Array | undefined): Extension | undefined {
  const reader = new DERReader(extensions);
  let found: Extension | undefined;
  do {
    const extension = reader.enter(Tag.SEQUENCE);
    const type = extension.readOID();
    const critical = extension.tag === Tag.BOOLEAN && extension.readBoolean();
    const value = extension.read(Tag.OCTET_STRING);
    extension.finish();
    if (oid && sameBytes(type, oid)) {
      if (found) throw new FormatError("certificate: expected an extension once, got it twice");
      found = { critical, value };
    }
  } while (!reader.done);
  return found;
}
