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

/*
 * What `find` finds: the fields of
 *
 *     Certificate     SEQUENCE { tbsCertificate, signatureAlgorithm, signature }
 *     TBSCertificate  SEQUENCE { [0] version, serialNumber, signature, issuer, validity, subject,
 *                                subjectPublicKeyInfo, [1] issuerUniqueID, [2] subjectUniqueID, [3] extensions }
 */
const TBS = 0;
const SERIAL_NUMBER = 1;
const SIGNATURE = 2;
const ISSUER = 3;
const VALIDITY = 4;
const SUBJECT = 5;
const PUBLIC_KEY_INFO = 6;
const EXTENSION_LIST = 7;

/** Checks the whole certificate. */
function check(der: Uint8Array): void {
  const fields = new DERReader(readTBS(der)).enter(Tag.SEQUENCE);
  const version = readVersion(fields);
  fields.readInteger();
  fields.skip(Tag.SEQUENCE);
  fields.skip(Tag.SEQUENCE);
  readTimes(fields.readElement(Tag.SEQUENCE));
  fields.skip(Tag.SEQUENCE);
  readKeyInfo(fields.readElement(Tag.SEQUENCE));
  if (version >= 1 && fields.tag === ISSUER_UNIQUE_ID) fields.skip();
  if (version >= 1 && fields.tag === SUBJECT_UNIQUE_ID) fields.skip();
  if (version === 2 && fields.tag === EXTENSIONS) {
    const wrapper = fields.enter(EXTENSIONS);
    const extensions = wrapper.read(Tag.SEQUENCE);
    wrapper.finish();
    findExtension(extensions, undefined);
  }
  fields.finish();
}

/**
 * One field of a certificate that was checked: a view of the element with tag and length, but for the content of the
 * serial number and of the list of extensions; undefined for extensions that are not there.
 */
function find(der: Uint8Array, wanted: number): Uint8Array | undefined {
  const certificate = new DERReader(der).enter(Tag.SEQUENCE);
  if (wanted === TBS) return certificate.readElement(Tag.SEQUENCE);
  const fields = certificate.enter(Tag.SEQUENCE);
  if (fields.tag === VERSION) fields.skip();
  if (wanted === SERIAL_NUMBER) return withoutSignOctet(fields.readInteger());
  fields.skip(Tag.INTEGER);
  for (let field = SIGNATURE; field < wanted && field <= PUBLIC_KEY_INFO; field++) fields.skip(Tag.SEQUENCE);
  if (wanted !== EXTENSION_LIST) return fields.readElement(Tag.SEQUENCE);
  while (!fields.done && fields.tag !== EXTENSIONS) fields.skip();
  return fields.done ? undefined : fields.enter(EXTENSIONS).read(Tag.SEQUENCE);
}

function readTBS(der: Uint8Array): Uint8Array {
  const reader = new DERReader(der);
  const certificate = reader.enter(Tag.SEQUENCE);
  reader.finish();
  const tbs = certificate.readElement(Tag.SEQUENCE);
  certificate.skip(Tag.SEQUENCE);
  certificate.readBitString();
  certificate.finish();
  return tbs;
}

function readVersion(fields: DERReader): number {
  if (fields.tag !== VERSION) return 0;
  const wrapper = fields.enter(VERSION);
  const number = wrapper.readUnsignedInteger();
  wrapper.finish();
  const version = number.length === 1 ? number[0]! : 255;
  if (version > 2) throw new FormatError("certificate: expected version 1 to 3, got a later one");
  return version;
}

/** Not before and not after. */
function readTimes(validity: Uint8Array): readonly [number, number] {
  const times = new DERReader(validity).enter(Tag.SEQUENCE);
  const notBefore = times.readTime();
  const notAfter = times.readTime();
  times.finish();
  return [notBefore, notAfter];
}

interface KeyInfo {
  readonly algorithm: Uint8Array;
  readonly curve: Uint8Array | undefined;
  readonly key: Uint8Array;
}

function readKeyInfo(publicKeyInfo: Uint8Array): KeyInfo {
  const keyInfo = new DERReader(publicKeyInfo).enter(Tag.SEQUENCE);
  const identifier = keyInfo.enter(Tag.SEQUENCE);
  const algorithm = identifier.readOID();
  let curve: Uint8Array | undefined;
  if (identifier.tag === Tag.OBJECT_IDENTIFIER) curve = identifier.readOID();
  else if (!identifier.done) identifier.skip();
  identifier.finish();
  const key = keyInfo.readBitString();
  keyInfo.finish();
  return { algorithm, curve, key };
}

/**
 * A certificate that has been checked as a whole. Its fields are looked up in the DER each time that they
 * are asked for: kept, they would cost a device some 800 bytes for each certificate. All byte arrays are views into `der`.
 */
class Certificate {
  /** The whole certificate. */
  readonly der: Uint8Array;

  constructor(der: Uint8Array) {
    this.der = der;
  }

  /** The TBSCertificate with tag and length: what is signed. */
  get tbs(): Uint8Array {
    return find(this.der, TBS)!;
  }

  /**
   * Unsigned, big-endian, without sign octet. A negative one, which RFC 5280 section 4.1.2.2 forbids and asks to put up
   * with, is its content octets as they are.
   */
  get serialNumber(): Uint8Array {
    return find(this.der, SERIAL_NUMBER)!;
  }

  /** The issuer's Name, DER. */
  get issuer(): Uint8Array {
    return find(this.der, ISSUER)!;
  }

  /** The subject's Name, DER. */
  get subject(): Uint8Array {
    return find(this.der, SUBJECT)!;
  }

  /** Seconds since 1970-01-01T00:00:00Z. */
  get notBefore(): number {
    return readTimes(find(this.der, VALIDITY)!)[0];
  }

  /** Seconds since 1970-01-01T00:00:00Z; 253402300799 where RFC 5280 says "no well-defined expiration date". */
  get notAfter(): number {
    return readTimes(find(this.der, VALIDITY)!)[1];
  }

  /** The whole SubjectPublicKeyInfo, DER. */
  get publicKeyInfo(): Uint8Array {
    return find(this.der, PUBLIC_KEY_INFO)!;
  }

  /** Content octets of the key algorithm's OID. */
  get publicKeyAlgorithm(): Uint8Array {
    return readKeyInfo(this.publicKeyInfo).algorithm;
  }

  /** Content octets of the curve's OID (RFC 5480 section 2.1.1); undefined where the parameters are no OID. */
  get curve(): Uint8Array | undefined {
    return readKeyInfo(this.publicKeyInfo).curve;
  }

  /** The key itself: for P-256 the uncompressed point, 65 bytes. */
  get publicKey(): Uint8Array {
    return readKeyInfo(this.publicKeyInfo).key;
  }

  /**
   * The extension with this OID (content octets, such as 55 1d 25 for extended key usage); undefined where there is
   * none. Throws a FormatError where it is there twice, which RFC 5280 section 4.2 forbids.
   */
  extension(oid: Uint8Array): Extension | undefined {
    const extensions = find(this.der, EXTENSION_LIST);
    return extensions && findExtension(extensions, oid);
  }
}

export type { Certificate };

/**
 * Reads one DER certificate. Throws a FormatError where it is none or anything follows, a LimitError where it has an
 * OID of more than 128 octets.
 */
export function parseCertificate(der: Uint8Array): Certificate {
  check(der);
  return new Certificate(der);
}

/** The fields of a certificate that `parseCertificate` has read before: nothing is checked anew. */
export function checkedCertificate(der: Uint8Array): Certificate {
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
