// Certs-only SignedData: src/pki/pkcs7.ts.
import { strict as assert } from "node:assert";
import { joinBytes } from "../../../src/bytes.js";
import { FormatError, LimitError } from "../../../src/errors.js";
import { Tag } from "../../../src/pki/der.js";
import { readCertsOnly } from "../../../src/pki/pkcs7.js";
import { caCertificates, enrollRequest, enrollResponse, fromHex, serverKeyCertificate } from "../../vectors/rfc9148.js";
import { element } from "./element.js";

const SIGNED_DATA = fromHex("06092a864886f70d010702");
const DATA = fromHex("06092a864886f70d010701");
const VERSION = fromHex("020101");
const EMPTY_SET = fromHex("3100");
const CERTIFICATE = fromHex("3003020101");

interface Parts {
  readonly version?: Uint8Array;
  readonly digests?: Uint8Array;
  readonly content?: Uint8Array;
  readonly lists?: Uint8Array;
  readonly signers?: Uint8Array;
  readonly type?: Uint8Array;
}

function signedData({
  version = VERSION,
  digests = EMPTY_SET,
  content = DATA,
  lists,
  signers = EMPTY_SET,
  type = SIGNED_DATA,
}: Parts) {
  const certificates = lists ?? element(0xa0, CERTIFICATE);
  const inner = element(Tag.SEQUENCE, version, digests, element(Tag.SEQUENCE, content), certificates, signers);
  return element(Tag.SEQUENCE, type, element(0xa0, inner));
}

describe("a certs-only response", () => {
  it("of RFC 9148, appendix A, holds its certificate", () => {
    assert.deepEqual(readCertsOnly(caCertificates), [caCertificates.subarray(45, 45 + 589)]);
    for (const response of [caCertificates, enrollResponse, serverKeyCertificate]) {
      const certificates = readCertsOnly(response);
      assert.equal(certificates.length, 1);
      assert.ok(certificates[0]!.buffer === response.buffer);
    }
  });

  it("holds its certificates in order", () => {
    const other = fromHex("3003020102");
    assert.deepEqual(readCertsOnly(signedData({ lists: element(0xa0, CERTIFICATE, other, CERTIFICATE) })), [
      CERTIFICATE,
      other,
      CERTIFICATE,
    ]);
  });

  it("may have revocation lists and digest algorithms, which are not looked at", () => {
    const lists = joinBytes(element(0xa0, CERTIFICATE), element(0xa1, fromHex("3000")));
    assert.deepEqual(readCertsOnly(signedData({ lists, digests: fromHex("31023000") })), [CERTIFICATE]);
  });

  it("is refused with signed content, signers or another content type", () => {
    assert.throws(() => readCertsOnly(signedData({ content: joinBytes(DATA, fromHex("a003040161")) })), FormatError);
    assert.throws(() => readCertsOnly(signedData({ content: SIGNED_DATA })), FormatError);
    assert.throws(() => readCertsOnly(signedData({ signers: fromHex("31023000") })), FormatError);
    assert.throws(() => readCertsOnly(signedData({ type: DATA })), FormatError);
    assert.throws(() => readCertsOnly(signedData({ version: fromHex("020106") })), FormatError);
    assert.throws(() => readCertsOnly(enrollRequest), FormatError);
  });

  it("is refused with another choice than a plain certificate", () => {
    for (const tag of [0xa0, 0xa1, 0xa2, 0xa3]) {
      assert.throws(
        () => readCertsOnly(signedData({ lists: element(0xa0, CERTIFICATE, element(tag, CERTIFICATE)) })),
        FormatError,
      );
    }
  });

  it("is refused without a certificate", () => {
    assert.throws(() => readCertsOnly(signedData({ lists: new Uint8Array(0) })), FormatError);
    assert.throws(() => readCertsOnly(signedData({ lists: fromHex("a000") })), FormatError);
    assert.throws(() => readCertsOnly(new Uint8Array(0)), FormatError);
  });

  it("is refused with more certificates than allowed: 16, or what the caller says", () => {
    const list = (count: number) =>
      signedData({ lists: element(0xa0, ...new Array<Uint8Array>(count).fill(CERTIFICATE)) });
    assert.equal(readCertsOnly(list(16)).length, 16);
    assert.throws(() => readCertsOnly(list(17)), LimitError);
    assert.equal(readCertsOnly(list(2), { maxCertificates: 2 }).length, 2);
    assert.throws(() => readCertsOnly(list(3), { maxCertificates: 2 }), LimitError);
  });

  it("is refused with bytes after its end or with its end missing", () => {
    assert.throws(() => readCertsOnly(joinBytes(caCertificates, fromHex("00"))), FormatError);
    for (let length = 0; length < caCertificates.length; length++) {
      assert.throws(() => readCertsOnly(caCertificates.subarray(0, length)), FormatError);
    }
  });
});
