/**
 * Certificates out of a certs-only SignedData: RFC 5652 section 5, in the degenerate form that RFC 7030 section 4.1.3
 * and RFC 9148 section 4.3 use (content format 281).
 *
 *     for (const der of readCertsOnly(response)) trust.push(parseCertificate(der));
 */
import { sameBytes } from "../bytes.js";
import { FormatError, LimitError } from "../errors.js";
import { DERReader, Tag } from "./der.js";

/** 1.2.840.113549.1.7.2 */
const SIGNED_DATA = Uint8Array.of(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02);
/** 1.2.840.113549.1.7.1 */
const DATA = Uint8Array.of(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01);

const CONTENT = 0xa0;
const CERTIFICATES = 0xa0;
const REVOCATION_LISTS = 0xa1;
/** RFC 5652 section 5.1: 1, 3, 4 or 5, by what the lists hold. */
const VERSION_MAX = 5;

const MAX_CERTIFICATES = 16;

/**
 * The certificates of a certs-only SignedData in encoded order, each a view with tag and length; at least one. What is
 * inside a certificate is not looked at.
 *
 *     ContentInfo  SEQUENCE { OID signedData, [0] SignedData }
 *     SignedData   SEQUENCE { INTEGER version, SET digestAlgorithms, SEQUENCE { OID data },
 *                             [0] certificates, [1] crls OPTIONAL, SET {} signerInfos }
 *
 * Throws a FormatError for anything else: signed content, signers, certificates of other kinds, bytes after the end;
 * a LimitError for more than `maxCertificates` (16 unless told).
 */
export function readCertsOnly(
  bytes: Uint8Array,
  { maxCertificates = MAX_CERTIFICATES }: { readonly maxCertificates?: number } = {},
): Uint8Array[] {
  const reader = new DERReader(bytes);
  const contentInfo = reader.enter(Tag.SEQUENCE);
  reader.finish();
  expectOID(contentInfo, SIGNED_DATA, "signedData");
  const content = contentInfo.enter(CONTENT);
  contentInfo.finish();
  const signedData = content.enter(Tag.SEQUENCE);
  content.finish();

  const version = signedData.readUnsignedInteger();
  if (version.length > 1 || version[0]! > VERSION_MAX) {
    throw new FormatError(`certs-only: expected version ${VERSION_MAX} at most, got a later one`);
  }
  signedData.skip(Tag.SET);
  const encapsulated = signedData.enter(Tag.SEQUENCE);
  expectOID(encapsulated, DATA, "data");
  if (!encapsulated.done) throw new FormatError("certs-only: expected no signed content, got some");

  const certificates: Uint8Array[] = [];
  if (signedData.tag === CERTIFICATES) {
    const set = signedData.enter(CERTIFICATES);
    while (!set.done) {
      if (certificates.length >= maxCertificates) {
        throw new LimitError(`certs-only: expected at most ${maxCertificates} certificates, got more`);
      }
      certificates.push(set.readElement(Tag.SEQUENCE));
    }
  }
  if (signedData.tag === REVOCATION_LISTS) signedData.skip();
  const signers = signedData.enter(Tag.SET);
  if (!signers.done) throw new FormatError("certs-only: expected no signers, got some");
  signedData.finish();
  if (certificates.length === 0) throw new FormatError("certs-only: expected a certificate, got none");
  return certificates;
}

function expectOID(reader: DERReader, oid: Uint8Array, name: string): void {
  if (!sameBytes(reader.readOID(), oid))
    throw new FormatError(`certs-only: expected content type ${name}, got another`);
}
