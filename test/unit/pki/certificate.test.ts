// Certificates: src/pki/certificate.ts. Expected values are what `openssl x509 -text` prints.
import { strict as assert } from "node:assert";
import { joinBytes } from "../../../src/bytes.js";
import { FormatError } from "../../../src/errors.js";
import { clientCertInfo, parseCertificate } from "../../../src/pki/certificate.js";
import { DERReader, dottedOID, Tag } from "../../../src/pki/der.js";
import { distinguishedName } from "../../../src/pki/name.js";
import { readCertsOnly } from "../../../src/pki/pkcs7.js";
import { caCertificates, enrollResponse, fromHex, serverKey, serverKeyCertificate } from "../../vectors/rfc9148.js";
import { element } from "./element.js";

const ca = readCertsOnly(caCertificates)[0]!;
const device = readCertsOnly(enrollResponse)[0]!;
const generated = readCertsOnly(serverKeyCertificate)[0]!;

const BASIC_CONSTRAINTS = fromHex("551d13");
const SUBJECT_KEY_IDENTIFIER = fromHex("551d0e");

/** The certificate with one of the TBSCertificate's elements replaced; the rest is that of RFC 9148, appendix A.3. */
function altered(index: number, ...replacement: Uint8Array[]): Uint8Array {
  const certificate = new DERReader(generated).enter(Tag.SEQUENCE);
  const fields = certificate.enter(Tag.SEQUENCE);
  const parts: Uint8Array[] = [];
  while (!fields.done) parts.push(fields.readElement());
  parts.splice(index, 1, ...replacement);
  return element(Tag.SEQUENCE, element(Tag.SEQUENCE, ...parts), certificate.readElement(), certificate.readElement());
}

describe("a certificate", () => {
  it("of RFC 9148, appendix A.1, has the fields that openssl prints", () => {
    const certificate = parseCertificate(ca);
    const subject = "CN=Root CA,OU=certification,O=Example Inc,L=LA,ST=CA,C=US";
    assert.equal(distinguishedName(certificate.subject), subject);
    assert.equal(distinguishedName(certificate.issuer), subject);
    assert.deepEqual(certificate.serialNumber, fromHex("0b8bb0fe604f6a1e"));
    assert.equal(certificate.notBefore, Date.UTC(2019, 0, 31, 11, 27, 3) / 1000);
    assert.equal(certificate.notAfter, Date.UTC(2039, 0, 26, 11, 27, 3) / 1000);
    assert.equal(dottedOID(certificate.publicKeyAlgorithm), "1.2.840.10045.2.1");
    assert.equal(dottedOID(certificate.curve!), "1.2.840.10045.3.1.7");
    assert.deepEqual(
      certificate.publicKey,
      fromHex(
        "040c1b1e82ba8cc72680973f97edb8a0c72ab0d405f05d4fe29b997a14ccce89008313d09666b6ce375c595fcc8e37f8e435" +
          "4497011be90e56794bd91ad951ab45",
      ),
    );
    assert.deepEqual(certificate.extension(BASIC_CONSTRAINTS), { critical: true, value: fromHex("30030101ff") });
    assert.deepEqual(certificate.extension(SUBJECT_KEY_IDENTIFIER), {
      critical: false,
      value: fromHex("04141df1208944d77b5f1d9dcb51ee244a523f3ef5de"),
    });
    assert.equal(certificate.extension(fromHex("551d25")), undefined);
  });

  it("of RFC 9148, appendix A.2, has the fields that openssl prints", () => {
    const certificate = parseCertificate(device);
    assert.equal(
      distinguishedName(certificate.subject),
      "2.5.4.5=#1306577431323334,OU=IoT,O=example Inc,L=LA,ST=CA,C=US",
    );
    assert.equal(distinguishedName(certificate.issuer), "CN=802.1AR CA,OU=certification,O=Example Inc,ST=CA,C=US");
    assert.deepEqual(certificate.serialNumber, fromHex("7e7661d7b54e4632"));
    assert.equal(certificate.notBefore, Date.UTC(2019, 0, 31, 11, 29, 16) / 1000);
    assert.equal(certificate.notAfter, 253402300799);
  });

  it("of RFC 9148, appendix A.3, has the generated key, and a serial number without its sign octet", () => {
    const certificate = parseCertificate(generated);
    assert.equal(distinguishedName(certificate.subject), "O=skg example");
    assert.deepEqual(certificate.serialNumber, fromHex("b3313e8f3fc9538e"));
    assert.deepEqual(certificate.publicKey, serverKey.subarray(serverKey.length - 65));
  });

  it("is read as views into its DER", () => {
    const certificate = parseCertificate(ca);
    assert.ok(certificate.der === ca);
    for (const view of [certificate.tbs, certificate.serialNumber, certificate.subject, certificate.publicKey]) {
      assert.ok(view.buffer === ca.buffer);
    }
    assert.deepEqual(certificate.tbs, ca.subarray(4, 4 + certificate.tbs.length));
    assert.deepEqual(certificate.publicKeyInfo.subarray(26), certificate.publicKey);
  });

  it("gives the information on a client that sessions keep", () => {
    assert.deepEqual(clientCertInfo(generated), {
      subject: "O=skg example",
      serialNumber: fromHex("b3313e8f3fc9538e"),
      der: generated,
    });
  });

  it("is refused with bytes after its end or with its end missing", () => {
    assert.throws(() => parseCertificate(joinBytes(ca, fromHex("00"))), FormatError);
    for (let length = 0; length < ca.length; length++) {
      assert.throws(() => parseCertificate(ca.subarray(0, length)), FormatError);
    }
  });

  it("may have no extensions", () => {
    assert.equal(parseCertificate(altered(7)).extension(BASIC_CONSTRAINTS), undefined);
  });

  it("may be of version 1, which has neither extensions nor unique identifiers", () => {
    const certificate = new DERReader(generated).enter(Tag.SEQUENCE);
    const fields = certificate.enter(Tag.SEQUENCE);
    const signature = certificate.readElement();
    const signatureValue = certificate.readElement();
    fields.skip();
    const basic: Uint8Array[] = [];
    for (let count = 0; count < 6; count++) basic.push(fields.readElement());
    const versionOne = (...more: Uint8Array[]) =>
      element(Tag.SEQUENCE, element(Tag.SEQUENCE, ...basic, ...more), signature, signatureValue);
    assert.deepEqual(parseCertificate(versionOne()).serialNumber, fromHex("b3313e8f3fc9538e"));
    assert.throws(() => parseCertificate(versionOne(fields.readElement())), FormatError);
    assert.throws(() => parseCertificate(versionOne(fromHex("810200ff"))), FormatError);
  });

  it("is refused with a version after 3", () => {
    assert.throws(() => parseCertificate(altered(0, fromHex("a003020103"))), FormatError);
    assert.throws(() => parseCertificate(altered(0, fromHex("a00402020100"))), FormatError);
  });

  it("may have a negative serial number, as RFC 5280, section 4.1.2.2, asks", () => {
    assert.deepEqual(parseCertificate(altered(1, fromHex("020181"))).serialNumber, fromHex("81"));
    assert.deepEqual(parseCertificate(altered(1, fromHex("020100"))).serialNumber, fromHex("00"));
    assert.throws(() => parseCertificate(altered(1, fromHex("0200"))), FormatError);
  });

  it("may have unique identifiers and a key that is no elliptic curve's", () => {
    const key = fromHex("3014300d06092a864886f70d0101010500030300aabb");
    const certificate = parseCertificate(altered(6, key, fromHex("810200ff"), fromHex("82020000")));
    assert.equal(certificate.curve, undefined);
    assert.deepEqual(certificate.publicKey, fromHex("aabb"));
    assert.deepEqual(parseCertificate(altered(6, fromHex("300b300506032b6570030200aa"))).publicKey, fromHex("aa"));
  });

  it("is refused with an empty list of extensions, or anything behind them", () => {
    assert.throws(() => parseCertificate(altered(7, fromHex("a3023000"))), FormatError);
    assert.throws(
      () => parseCertificate(altered(7, fromHex("a30e300c300a0603551d0e0403040100"), fromHex("0500"))),
      FormatError,
    );
  });

  it("is refused with anything added at any level that is read", () => {
    const certificate = parseCertificate(generated);
    const more = fromHex("0500");
    const extension = fromHex("30080603551d0e040100");
    parseCertificate(altered(7, element(0xa3, element(Tag.SEQUENCE, extension))));
    const wrong = [
      altered(0, fromHex("a0050201020500")),
      altered(4, element(Tag.SEQUENCE, fromHex("170d3139303930343037343430335a170d3339303833303037343430335a"), more)),
      altered(6, element(Tag.SEQUENCE, certificate.publicKeyInfo.subarray(2), more)),
      altered(
        6,
        element(Tag.SEQUENCE, element(Tag.SEQUENCE, fromHex("06032b6570"), more, more), fromHex("0303000102")),
      ),
      altered(7, element(0xa3, element(Tag.SEQUENCE, extension), more)),
      altered(7, element(0xa3, element(Tag.SEQUENCE, element(Tag.SEQUENCE, fromHex("0603551d0e040100"), more)))),
      element(Tag.SEQUENCE, new DERReader(generated).read(Tag.SEQUENCE), more),
    ];
    for (const der of wrong) assert.throws(() => parseCertificate(der), FormatError);
  });

  it("has each extension once", () => {
    const twice = parseCertificate(altered(7, fromHex("a316301430080603551d0e04010030080603551d0e040100")));
    assert.throws(() => twice.extension(SUBJECT_KEY_IDENTIFIER), FormatError);
    assert.equal(twice.extension(BASIC_CONSTRAINTS), undefined);
  });
});
