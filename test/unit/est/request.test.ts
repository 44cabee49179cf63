// What goes into a request: src/est/request.ts. RFC 7030 sections 3.5, 4.2.2, 4.5.2; RFC 8951 section 4; RFC 9908.
import { strict as assert } from "node:assert";
import { FormatError, LimitError } from "../../../src/errors.js";
import { readCsrAttributes } from "../../../src/est/csrattrs.js";
import { planRequest, type RequestPlan, requestAttributes } from "../../../src/est/request.js";
import { parseCertificate } from "../../../src/pki/certificate.js";
import { element } from "../../../src/pki/der-writer.js";
import { distinguishedName } from "../../../src/pki/name.js";
import { readCertsOnly } from "../../../src/pki/pkcs7.js";
import { csrAttributes, enrollRequest, enrollResponse, fromHex, serverKeyCertificate } from "../../vectors/rfc9148.js";
import { hex } from "../coap/hex.js";

/** CN is missing in its subject; it has a subjectAltName: RFC 9148, A.2. */
const own = readCertsOnly(enrollResponse)[0]!;
/** O=skg example, and no subjectAltName: A.3. */
const plainOne = readCertsOnly(serverKeyCertificate)[0]!;

const list = (...entries: string[]) => readCsrAttributes(element(0x30, ...entries.map(fromHex)));
const seq = (...parts: string[]) => hex(element(0x30, ...parts.map(fromHex)));
const set = (...parts: string[]) => hex(element(0x31, ...parts.map(fromHex)));

const EC = "06072a8648ce3d0201";
const P256 = "06082a8648ce3d030107";
const P384 = "06052b81040022";
const P521 = "06052b81040023";
const SHA256 = "06082a8648ce3d040302";
const SHA384 = "06082a8648ce3d040303";
const PASSWORD = "06092a864886f70d010907";
const EXTENSIONS = "06092a864886f70d01090e";
const TEMPLATE = "060b2a864886f70d010910023d";
const EXTENSION_TEMPLATE = "060b2a864886f70d010910023e";
const SAN = "0603551d11";
const KEY_USAGE = "0603551d0f";
const EKU = "0603551d25";
const ORGANIZATION = "060355040a";
const COMMON_NAME = "0603550403";
const SERIAL = "0603550405";

const keyType = (...curves: string[]) => seq(EC, set(...curves));
const plan = (...entries: string[]): RequestPlan => planRequest(list(...entries), plainOne, "enrolment");

describe("a certificate request", () => {
  it("has the subject of the device's certificate and no attributes where the server wishes nothing", () => {
    const { keyBits, subject, extensions, proof, notes } = plan();
    assert.deepEqual([keyBits, extensions, proof, notes], [undefined, [], undefined, []]);
    assert.deepEqual(subject, parseCertificate(plainOne).subject);
    assert.equal(requestAttributes(plan(), fromHex("00")).length, 0);
  });

  it("has a key on the curve that the server wishes, by the key type or by the signature alone", () => {
    assert.equal(plan(keyType(P256)).keyBits, 256);
    assert.equal(plan(keyType(P384)).keyBits, 384);
    assert.equal(plan(keyType(P521, P384, P256)).keyBits, 384);
    assert.equal(plan(EC).keyBits, undefined);
    assert.equal(plan(SHA384).keyBits, 384);
    assert.equal(plan(SHA384, SHA256).keyBits, 256);
    assert.equal(plan(SHA384, keyType(P256)).keyBits, 256);
  });

  it("goes on with its own kind of key where the server wishes another, and says so", () => {
    const other = plan(keyType(P521));
    assert.equal(other.keyBits, undefined);
    assert.match(other.notes[0]!, /curve that this device does not have/);
    assert.match(plan(seq("06092a864886f70d010101", set("02020800"))).notes[0]!, /not of elliptic curves/);
  });

  it("of RFC 8951, section 4, is planned: P-384, proof of possession, an unknown extension ignored", () => {
    const wishes = readCsrAttributes(
      fromHex(
        "304106092a864886f70d010907301206072a8648ce3d0201310706052b81040022301606092a864886f70d01090e310906072b06" +
          "010101011606082a8648ce3d040303",
      ),
    );
    const { keyBits, proof, extensions, notes } = planRequest(wishes, plainOne, "enrolment");
    assert.deepEqual([keyBits, proof, extensions, notes], [384, "tls-unique", [], []]);
  });

  it("ignores what it does not know: of RFC 9148, A.4, all but the challengePassword", () => {
    const { keyBits, proof, extensions, subject } = planRequest(
      readCsrAttributes(csrAttributes),
      plainOne,
      "enrolment",
    );
    assert.deepEqual([keyBits, proof, extensions], [undefined, "tls-unique", []]);
    assert.deepEqual(subject, parseCertificate(plainOne).subject);
  });

  it("carries tls-unique in Base64 as challengePassword, as the text of RFC 9148, A.2, has it", () => {
    const attributes = requestAttributes(plan(PASSWORD), fromHex("000102030405060708090a0b"));
    assert.equal(hex(attributes), seq(PASSWORD, set(`0c10${hex(ascii("AAECAwQFBgcICQoL"))}`)));
    assert.equal(
      hex(requestAttributes(plan(PASSWORD), fromHex("fb"))),
      seq(PASSWORD, set(`0c04${hex(ascii("+w=="))}`)),
    );
    assert.equal(requestAttributes(plan(PASSWORD), undefined).length, 0);
    assert.equal(requestAttributes(plan(), fromHex("000102030405060708090a0b")).length, 0);
  });

  it("has the extensions that the server names, with its value or with the device's own", () => {
    const given = seq(EKU, "040c300a06082b06010505070302");
    const wished = seq(EXTENSIONS, set(seq(given)));
    assert.deepEqual(plan(wished).extensions.map(hex), [given]);
    assert.equal(hex(requestAttributes(plan(wished), undefined)), seq(EXTENSIONS, set(seq(given))));
    const own1 = plan(seq(EXTENSIONS, set(KEY_USAGE)), seq(EXTENSION_TEMPLATE, set(seq(seq(EKU)))));
    assert.deepEqual(own1.extensions.map(hex), [seq(KEY_USAGE, "0101ff", "040403020780"), given]);
    assert.match(plan(seq(EXTENSIONS, set(SAN))).notes[0]!, /subjectAltName/);
    const names = planRequest(list(seq(EXTENSIONS, set(SAN))), own, "enrolment").extensions;
    assert.ok(names.length === 1 && hex(enrollRequest).includes(hex(names[0]!)), "as in the request of A.2");
  });

  it("puts its attributes into the order of DER", () => {
    const order = (extensions: string) => {
      const attributes = hex(requestAttributes(plan(PASSWORD, seq(EXTENSIONS, set(extensions))), new Uint8Array(12)));
      return attributes.indexOf(PASSWORD) < attributes.indexOf(EXTENSIONS) ? "password first" : "extensions first";
    };
    // Of the same length: by their types. Otherwise the shorter one first.
    assert.equal(order(KEY_USAGE), "password first");
    assert.equal(order(seq(seq(KEY_USAGE, "0400"))), "extensions first");
  });

  it("has the subject attributes that the server names, its values before the device's", () => {
    assert.equal(distinguishedName(plan(ORGANIZATION).subject), "O=skg example");
    assert.equal(distinguishedName(plan(seq(ORGANIZATION, set("0c03416365"))).subject), "O=Ace");
    assert.equal(distinguishedName(plan(seq(COMMON_NAME, set("0c0162"))).subject), "O=skg example,CN=b");
    assert.match(plan(SERIAL).notes[0]!, /2\.5\.4\.5 in the subject/);
    assert.deepEqual(planRequest(list(SERIAL), own, "enrolment").notes, []);
  });

  it("keeps subject and subjectAltName in a renewal, whatever the server wishes", () => {
    const { subject, extensions } = planRequest(
      list(seq(ORGANIZATION, set("0c03416365")), seq(EXTENSIONS, set(seq(seq(SAN, "04023000"), seq(EKU, "0400"))))),
      own,
      "renewal",
    );
    assert.deepEqual(subject, parseCertificate(own).subject);
    assert.equal(extensions.length, 2);
    const names = extensions.map(hex).filter((extension) => extension.includes(SAN));
    assert.ok(names.length === 1 && hex(own).includes(names[0]!));
    const without = planRequest(list(seq(EXTENSIONS, set(seq(seq(SAN, "04023000"))))), plainOne, "renewal");
    assert.deepEqual(without.extensions, []);
  });

  describe("by a template of RFC 9908", () => {
    const template = (...parts: string[]) => seq(TEMPLATE, set(seq("020100", ...parts)));
    const rdn = (...parts: string[]) => set(seq(...parts));
    const tagged = (tag: number, content: string) => hex(element(tag, fromHex(content)));

    it("has the subject, the key and the extensions of it", () => {
      const { keyBits, subject, extensions, proof } = plan(
        template(
          seq(rdn(COMMON_NAME, "0c0162"), rdn(ORGANIZATION)),
          tagged(0xa0, seq(EC, P384)),
          tagged(
            0xa1,
            seq(PASSWORD, set()) +
              seq(EXTENSION_TEMPLATE, set(seq(seq(KEY_USAGE), seq(EKU, "0101ff", "0402 3000".replace(" ", ""))))),
          ),
        ),
      );
      assert.equal(keyBits, 384);
      assert.equal(distinguishedName(subject), "O=skg example,CN=b");
      assert.deepEqual(extensions.map(hex), [seq(KEY_USAGE, "0101ff", "040403020780"), seq(EKU, "0101ff", "04023000")]);
      assert.equal(proof, "tls-unique");
    });

    it("ignores everything beside it", () => {
      const { keyBits, proof } = plan(keyType(P384), PASSWORD, template(tagged(0xa1, "")));
      assert.deepEqual([keyBits, proof], [undefined, undefined]);
    });

    it("leaves out a subject attribute that the device cannot say, and says so", () => {
      const { subject, notes } = plan(template(seq(rdn(SERIAL), rdn(ORGANIZATION))));
      assert.equal(distinguishedName(subject), "O=skg example");
      assert.match(notes[0]!, /2\.5\.4\.5/);
    });

    it("is refused where it is malformed or of another version", () => {
      for (const wrong of [
        seq(TEMPLATE, set("020100")),
        seq(TEMPLATE, set(seq("020101"))),
        seq(TEMPLATE, set(seq("020100"), seq("020100"))),
        template(seq("020100")),
        template(tagged(0xa0, "3000")),
        template(tagged(0xa1, "3000")),
        template("0500"),
      ]) {
        assert.throws(() => plan(wrong), FormatError, wrong);
      }
    });
  });

  it("is refused with a wish that is malformed, an extension twice, and more than 768 bytes", () => {
    assert.throws(() => plan(seq(EXTENSIONS, set("0500"))), FormatError);
    assert.throws(() => plan(seq(EXTENSIONS, set(seq(seq(EKU, "0500"))))), FormatError);
    assert.throws(() => plan(seq(EXTENSIONS, set(seq(seq(EKU), seq(EKU))))), FormatError);
    const long = hex(element(0x04, new Uint8Array(800)));
    assert.throws(() => plan(seq(EXTENSIONS, set(seq(seq(EKU, long))))), LimitError);
  });
});

function ascii(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length }, (_, at) => text.charCodeAt(at));
}
