// The readers of what comes from outside, with anything for input. fast-check prints the seed of a failure.
import { strict as assert } from "node:assert";
import { webcrypto, X509Certificate } from "node:crypto";
import "../../tools/est-server/reflect.js";
import * as x509 from "@peculiar/x509";
import fc from "fast-check";
import { FormatError, LimitError } from "../../src/errors.js";
import { readCsrAttributes } from "../../src/est/csrattrs.js";
import { findResources } from "../../src/est/discovery.js";
import { readMultipart } from "../../src/est/multipart.js";
import { planRequest, requestAttributes } from "../../src/est/request.js";
import { clientCertInfo, parseCertificate } from "../../src/pki/certificate.js";
import { DERReader, dottedOID, Tag } from "../../src/pki/der.js";
import { distinguishedName } from "../../src/pki/name.js";
import { readCertsOnly } from "../../src/pki/pkcs7.js";
import { element } from "../unit/pki/element.js";
import * as vectors from "../vectors/rfc9148.js";

x509.cryptoProvider.set(webcrypto);

const EXTENDED_KEY_USAGE = vectors.fromHex("551d25");

/** What the device has: of RFC 9148, A.2. */
const OWN = readCertsOnly(vectors.enrollResponse)[0]!;

const readers: Record<string, (bytes: Uint8Array) => unknown> = {
  certificate: (bytes) => {
    const certificate = parseCertificate(bytes);
    certificate.extension(EXTENDED_KEY_USAGE);
    distinguishedName(certificate.issuer);
    return clientCertInfo(bytes);
  },
  name: distinguishedName,
  "certs-only": (bytes) => {
    for (const der of readCertsOnly(bytes)) parseCertificate(der);
  },
  csrattrs: readCsrAttributes,
  "a request's plan": (bytes) => {
    for (const purpose of ["enrolment", "renewal"] as const) {
      requestAttributes(planRequest(readCsrAttributes(bytes), OWN, purpose), bytes.subarray(0, 12));
    }
  },
  multipart: readMultipart,
  links: findResources,
  OID: dottedOID,
  DER: (bytes) => {
    const reader = new DERReader(bytes);
    while (!reader.done) {
      switch (reader.tag) {
        case Tag.BOOLEAN:
          reader.readBoolean();
          break;
        case Tag.INTEGER:
          reader.readUnsignedInteger();
          break;
        case Tag.BIT_STRING:
          reader.readBitString();
          break;
        case Tag.OBJECT_IDENTIFIER:
          dottedOID(reader.readOID());
          break;
        case Tag.UTC_TIME:
        case Tag.GENERALIZED_TIME:
          reader.readTime();
          break;
        default:
          reader.readElement();
      }
    }
  },
};

/** A value, a FormatError or a LimitError: anything else fails the test. */
function read(reader: (bytes: Uint8Array) => unknown, bytes: Uint8Array): boolean {
  try {
    reader(bytes);
    return true;
  } catch (error) {
    if (error instanceof FormatError || error instanceof LimitError) return false;
    throw error;
  }
}

const certificates = [vectors.caCertificates, vectors.enrollResponse, vectors.serverKeyCertificate].map(
  (response) => readCertsOnly(response)[0]!,
);
const valid: Record<string, Uint8Array[]> = {
  certificate: certificates,
  name: certificates.map((der) => parseCertificate(der).subject),
  "certs-only": [vectors.caCertificates, vectors.enrollResponse, vectors.serverKeyCertificate],
  csrattrs: [vectors.csrAttributes],
  "a request's plan": [
    vectors.csrAttributes,
    // RFC 8951, section 4; a template of RFC 9908 with subject, key and extensions, some without a value.
    vectors.fromHex(
      "304106092a864886f70d010907301206072a8648ce3d0201310706052b81040022301606092a864886f70d01090e310906072b0601010101" +
        "1606082a8648ce3d040303",
    ),
    element(
      Tag.SEQUENCE,
      element(
        Tag.SEQUENCE,
        vectors.fromHex("060b2a864886f70d010910023d"),
        element(
          Tag.SET,
          element(
            Tag.SEQUENCE,
            vectors.fromHex("020100"),
            element(Tag.SEQUENCE, vectors.fromHex("310b300906035504030c026162"), vectors.fromHex("310730050603550405")),
            element(0xa0, vectors.fromHex("301006072a8648ce3d020106052b81040022")),
            element(
              0xa1,
              element(
                Tag.SEQUENCE,
                vectors.fromHex("060b2a864886f70d010910023e"),
                element(
                  Tag.SET,
                  element(Tag.SEQUENCE, vectors.fromHex("30050603551d0f"), vectors.fromHex("30090603551d2504023000")),
                ),
              ),
            ),
          ),
        ),
      ),
    ),
  ],
  multipart: [
    vectors.fromHex("8419011c480123456789abcdef19011948fedcba9876543210"),
    vectors.fromHex("82182af6"),
    vectors.fromHex("9802182a5801aa"),
  ],
  links: [
    Uint8Array.from(
      Buffer.from(
        '</est/crts>;rt="ace.est.crts";ct="281 287",<coaps://[2001:db8::1]:61617/e/sen>;rt="ace.est.sen";ct=281',
      ),
    ),
  ],
  OID: [vectors.fromHex("2a864886f70d010702"), vectors.fromHex("6983f09da7ebcfdee0c7a1a7b2c0948cc8f9d776")],
  DER: [
    element(Tag.BIT_STRING, vectors.fromHex("00aabb")),
    vectors.fromHex("170d3139303133313131323730335a180f32303530303130313030303030305a0101ff020200ff0603550403"),
  ],
};

type Mutation = { type: "flip" | "set" | "insert" | "delete" | "cut"; at: number; value: number };

const mutation: fc.Arbitrary<Mutation> = fc.record({
  type: fc.constantFrom("flip", "flip", "set", "set", "insert", "delete", "cut"),
  at: fc.nat(),
  // Lengths and tags more often than other octets.
  value: fc.oneof(
    fc.constantFrom(0x00, 0x01, 0x1f, 0x30, 0x7f, 0x80, 0x81, 0x82, 0x84, 0x88, 0xa0, 0xa3, 0xff),
    fc.nat({ max: 255 }),
  ),
});

function mutated(bytes: Uint8Array, mutations: Mutation[]): Uint8Array {
  const list = [...bytes];
  for (const { type, at, value } of mutations) {
    if (list.length === 0) break;
    const index = at % list.length;
    if (type === "flip") list[index]! ^= 1 << (value & 7);
    else if (type === "set") list[index] = value;
    else if (type === "insert") list.splice(index, 0, value);
    else if (type === "delete") list.splice(index, 1);
    else list.length = index;
  }
  return Uint8Array.from(list);
}

describe("readers of PKI formats, property", () => {
  for (const [name, reader] of Object.entries(readers)) {
    it(`end in a value or an error of ours for random bytes: ${name}`, () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void read(reader, bytes)),
        { numRuns: 3000 },
      );
      fc.assert(
        fc.property(
          fc.uint8Array({ maxLength: 120 }),
          fc.constantFrom<number>(...Object.values(Tag), 0xa0),
          (bytes, tag) => {
            read(reader, element(tag, bytes));
            read(reader, element(Tag.SEQUENCE, element(tag, bytes)));
          },
        ),
        { numRuns: 3000 },
      );
    });

    it(`end in a value or an error of ours for mutated inputs: ${name}`, () => {
      for (const bytes of valid[name]!) assert.ok(read(reader, bytes));
      fc.assert(
        fc.property(
          fc.constantFrom(...valid[name]!),
          fc.array(mutation, { minLength: 1, maxLength: 4 }),
          (bytes, mutations) => void read(reader, mutated(bytes, mutations)),
        ),
        { numRuns: 8000 },
      );
    });

    it(`end in a value or an error of ours for every flipped bit and every truncation: ${name}`, () => {
      for (const bytes of valid[name]!) {
        for (let at = 0; at < bytes.length; at++) {
          read(reader, bytes.subarray(0, at));
          for (let bit = 0; bit < 8; bit++) {
            const flipped = bytes.slice();
            flipped[at]! ^= 1 << bit;
            read(reader, flipped);
          }
        }
      }
    });

    it(`end in a value or an error of ours for deep nesting: ${name}`, () => {
      for (const tag of [Tag.SEQUENCE, Tag.SET, 0xa0]) {
        const bytes = new Uint8Array(60_000);
        for (let at = 0; at + 4 < bytes.length; at += 4) {
          const length = bytes.length - at - 4;
          bytes.set([tag, 0x82, length >> 8, length & 0xff], at);
        }
        read(reader, bytes);
      }
    });
  }
});

describe("names made by @peculiar/x509, property", () => {
  // Where it follows RFC 4514: the types that both know, and no value of one space (escaped twice there) or with
  // control characters (which it escapes without need, and NUL not at all). Order and separator of RDNs are its own.
  const text = fc
    .array(
      fc.oneof(
        { weight: 3, arbitrary: fc.constantFrom(...' #"+,;<>\\=') },
        { weight: 5, arbitrary: fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 3 }) },
        { weight: 2, arbitrary: fc.constantFrom("\u00e4", "\u20ac", "\u5b57") },
      ),
      { minLength: 1, maxLength: 40 },
    )
    .map((parts) => parts.join(""))
    .filter((value) => value !== " ");
  const isAscii = (value: string) => [...value].every((character) => character < "\u0080");
  const value = fc
    .tuple(text, fc.constantFrom("utf8String", "printableString", "ia5String", "bmpString", "universalString"))
    .map(([characters, type]) =>
      isAscii(characters) || type === "bmpString" || type === "universalString"
        ? { [type]: characters }
        : { utf8String: characters },
    );
  const rdn = fc
    .uniqueArray(
      fc.tuple(fc.constantFrom("CN", "L", "ST", "O", "OU", "C", "DC"), fc.array(value, { minLength: 1, maxLength: 2 })),
      {
        minLength: 1,
        maxLength: 3,
        selector: ([type]) => type,
      },
    )
    .map((entries) => Object.fromEntries(entries));

  it("read the same here, last RDN first", () => {
    fc.assert(
      fc.property(fc.array(rdn, { maxLength: 5 }), (rdns) => {
        const name = new x509.Name(rdns);
        const expected = rdns.map((entry) => new x509.Name([entry]).toString());
        assert.equal(distinguishedName(new Uint8Array(name.toArrayBuffer())), expected.reverse().join(","));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("certificates made by @peculiar/x509", () => {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  let keys: webcrypto.CryptoKeyPair;

  before(async () => {
    keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  });

  async function make(name: string | Record<string, string[]>[], serialNumber: string): Promise<Uint8Array> {
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber,
      name,
      notBefore: new Date("2024-02-29T12:34:56Z"),
      notAfter: new Date("2055-01-01T00:00:00Z"),
      signingAlgorithm: algorithm,
      keys,
      extensions: [
        new x509.ExtendedKeyUsageExtension(["1.3.6.1.5.5.7.3.28"], true),
        new x509.BasicConstraintsExtension(true),
      ],
    });
    return new Uint8Array(certificate.rawData);
  }

  for (const serialNumber of [
    "01",
    "7f",
    "80",
    "ff01",
    "00ff",
    "0123456789abcdef0123456789abcdef01234567",
    "ff".repeat(19),
  ]) {
    it(`have serial number ${serialNumber} unsigned, and the fields that Node.js sees`, async () => {
      const der = await make("CN=sensor 7,O=Example", serialNumber);
      const certificate = parseCertificate(der);
      const other = new X509Certificate(der);
      const digits = serialNumber.replace(/^00/, "");
      assert.equal(Buffer.from(certificate.serialNumber).toString("hex"), digits);
      assert.equal(digits.toUpperCase(), other.serialNumber);
      assert.equal(certificate.notBefore, Date.parse(other.validFrom) / 1000);
      assert.equal(certificate.notAfter, Date.parse(other.validTo) / 1000);
      const keyInfo = other.publicKey.export({ type: "spki", format: "der" });
      assert.deepEqual(certificate.publicKeyInfo, new Uint8Array(keyInfo));
      assert.deepEqual(certificate.publicKey, new Uint8Array(keyInfo.subarray(-65)));
      assert.deepEqual(certificate.extension(EXTENDED_KEY_USAGE), {
        critical: true,
        value: vectors.fromHex("300a06082b0601050507031c"),
      });
      assert.deepEqual(clientCertInfo(der), {
        subject: "O=Example,CN=sensor 7",
        serialNumber: certificate.serialNumber,
        der,
      });
    });
  }

  it("have the names of RFC 4514 with multi-valued RDNs, escapes and unknown types", async () => {
    const subject = async (name: string | Record<string, string[]>[]) => clientCertInfo(await make(name, "01")).subject;
    assert.equal(await subject([{ C: ["DE"] }, { O: ["A", "B"] }, { CN: ["x"] }]), "CN=x,O=A+O=B,C=DE");
    assert.equal(await subject([{ CN: ['a"b+c,d;e<f>g\\\\h'] }]), 'CN=a\\"b\\+c\\,d\\;e\\<f\\>g\\\\h');
    assert.equal(await subject([{ O: [" x "] }, { CN: ["\\#y"] }]), "CN=\\#y,O=\\ x\\ ");
    assert.equal(await subject([{ CN: ["J\u00fcrgen \u{1f426}"] }]), "CN=J\u00fcrgen \u{1f426}");
    assert.equal(await subject([{ "1.2.3.4": ["ab"] }]), "1.2.3.4=#13026162");
    assert.equal(
      await subject([{ "1.2.3.4": ["#0500"] }, { E: ["a@b"] }]),
      "1.2.840.113549.1.9.1=#1603614062,1.2.3.4=#0500",
    );
    assert.equal(await subject([]), "");
  });
});
