// Distinguished names: src/pki/name.ts.
import { strict as assert } from "node:assert";
import { FormatError } from "../../../src/errors.js";
import { Tag } from "../../../src/pki/der.js";
import { distinguishedName } from "../../../src/pki/name.js";
import { fromHex } from "../../vectors/rfc9148.js";
import { ascii, element } from "./element.js";

const CN = "550403";

function attribute(oid: string, value: Uint8Array): Uint8Array {
  return element(Tag.SEQUENCE, element(Tag.OBJECT_IDENTIFIER, fromHex(oid)), value);
}

function name(...rdns: Uint8Array[][]): Uint8Array {
  return element(Tag.SEQUENCE, ...rdns.map((attributes) => element(Tag.SET, ...attributes)));
}

/** The string of a name that has one CN. */
function stringOf(tag: number, hex: string): string {
  return distinguishedName(name([attribute(CN, element(tag, fromHex(hex)))]));
}

function escaped(text: string): string {
  return distinguishedName(name([attribute(CN, element(Tag.UTF8_STRING, ascii(text)))]));
}

describe("a distinguished name", () => {
  it("is empty where there are no RDNs", () => {
    assert.equal(distinguishedName(name()), "");
  });

  it("has its RDNs in reverse order and joins the attributes of one with a plus", () => {
    const der = name(
      [attribute("550406", element(Tag.PRINTABLE_STRING, ascii("US")))],
      [
        attribute("55040b", element(Tag.UTF8_STRING, ascii("Sales"))),
        attribute(CN, element(Tag.UTF8_STRING, ascii("J."))),
      ],
    );
    assert.equal(distinguishedName(der), "OU=Sales+CN=J.,C=US");
  });

  it("has the short names of RFC 4514, section 3", () => {
    const types = [
      [CN, "CN"],
      ["550407", "L"],
      ["550408", "ST"],
      ["55040a", "O"],
      ["55040b", "OU"],
      ["550406", "C"],
      ["550409", "STREET"],
      ["0992268993f22c640119", "DC"],
      ["0992268993f22c640101", "UID"],
    ];
    for (const [oid, type] of types) {
      assert.equal(distinguishedName(name([attribute(oid!, element(Tag.IA5_STRING, ascii("x")))])), `${type}=x`);
    }
  });

  it("has any other type in dotted form with the whole value in hexadecimal", () => {
    // The example of RFC 4514, section 4.
    const der = name([attribute("2b060104018b3a00", fromHex("04024869"))]);
    assert.equal(distinguishedName(der), "1.3.6.1.4.1.1466.0=#04024869");
    const serial = name([attribute("550405", element(Tag.PRINTABLE_STRING, ascii("Wt1234")))]);
    assert.equal(distinguishedName(serial), "2.5.4.5=#1306577431323334");
  });

  it("has the value of a known type in hexadecimal where it is no string", () => {
    assert.equal(distinguishedName(name([attribute(CN, fromHex("0500"))])), "CN=#0500");
    assert.equal(distinguishedName(name([attribute(CN, fromHex("30030c0161"))])), "CN=#30030c0161");
  });

  it("escapes what RFC 4514, section 2.4, demands and nothing else", () => {
    // The example of RFC 4514, section 4.
    assert.equal(escaped('James "Jim" Smith, III'), 'CN=James \\"Jim\\" Smith\\, III');
    assert.equal(escaped('"+,;<>\\'), 'CN=\\"\\+\\,\\;\\<\\>\\\\');
    assert.equal(escaped("#a#"), "CN=\\#a#");
    assert.equal(escaped(" a b "), "CN=\\ a b\\ ");
    assert.equal(escaped("  "), "CN=\\ \\ ");
    assert.equal(escaped(" "), "CN=\\ ");
    assert.equal(escaped(" # "), "CN=\\ #\\ ");
    assert.equal(escaped("a\u0000b"), "CN=a\\00b");
    assert.equal(escaped("a=b'()-./:?\r\n\t~\u007f"), "CN=a=b'()-./:?\r\n\t~\u007f");
    assert.equal(escaped(""), "CN=");
  });

  it("keeps long values whole", () => {
    const text = "0123456789,abcdef".repeat(40);
    assert.equal(escaped(text), `CN=${text.replaceAll(",", "\\,")}`);
    const octets = "5a".repeat(300);
    assert.equal(
      distinguishedName(name([attribute("550405", element(Tag.OCTET_STRING, fromHex(octets)))])),
      `2.5.4.5=#0482012c${octets}`,
    );
  });

  it("decodes every string type", () => {
    assert.equal(stringOf(Tag.UTF8_STRING, "c3a4e282acf09f90a6"), "CN=\u00e4\u20ac\u{1f426}");
    assert.equal(stringOf(Tag.PRINTABLE_STRING, "4142"), "CN=AB");
    assert.equal(stringOf(Tag.IA5_STRING, "4042"), "CN=@B");
    assert.equal(stringOf(Tag.TELETEX_STRING, "41e4ff"), "CN=A\u00e4\u00ff");
    assert.equal(stringOf(Tag.BMP_STRING, "004120ac002c"), "CN=A\u20ac\\,");
    assert.equal(stringOf(Tag.UNIVERSAL_STRING, "0001f42600000020"), "CN=\u{1f426}\\ ");
  });

  it("takes the bounds of each UTF-8 length and no bytes outside them", () => {
    const good = ["7f", "c280", "dfbf", "e0a080", "ed9fbf", "ee8080", "efbfbf", "f0908080", "f48fbfbf"];
    for (const hex of good) stringOf(Tag.UTF8_STRING, hex);
    const bad = [
      "80",
      "bf",
      "c0af",
      "c1bf",
      "c2",
      "c241",
      "e09fbf",
      "e282",
      "e28241",
      "eda080",
      "edbfbf",
      "f08fbfbf",
      "f09f90",
      "f4908080",
      "f5808080",
      "f888808080",
      "fe",
      "ff",
      "41c3",
    ];
    for (const hex of bad) assert.throws(() => stringOf(Tag.UTF8_STRING, hex), FormatError, hex);
  });

  it("refuses bytes that do not fit the string's type", () => {
    assert.throws(() => stringOf(Tag.PRINTABLE_STRING, "41e4"), FormatError);
    assert.throws(() => stringOf(Tag.IA5_STRING, "80"), FormatError);
    assert.throws(() => stringOf(Tag.BMP_STRING, "004100"), FormatError);
    assert.throws(() => stringOf(Tag.BMP_STRING, "d83d"), FormatError);
    assert.throws(() => stringOf(Tag.UNIVERSAL_STRING, "000041"), FormatError);
    assert.throws(() => stringOf(Tag.UNIVERSAL_STRING, "00110000"), FormatError);
    assert.throws(() => stringOf(Tag.UNIVERSAL_STRING, "0000d800"), FormatError);
    assert.throws(() => stringOf(Tag.UNIVERSAL_STRING, "ffffffff"), FormatError);
  });

  it("is refused where the structure is another", () => {
    const value = element(Tag.UTF8_STRING, ascii("x"));
    assert.throws(() => distinguishedName(new Uint8Array(0)), FormatError);
    assert.throws(() => distinguishedName(fromHex("3100")), FormatError);
    assert.throws(() => distinguishedName(fromHex("300000")), FormatError);
    assert.throws(() => distinguishedName(name([])), FormatError);
    assert.throws(() => distinguishedName(element(Tag.SEQUENCE, attribute(CN, value))), FormatError);
    assert.throws(() => distinguishedName(name([element(Tag.SEQUENCE, value, value)])), FormatError);
    assert.throws(() => distinguishedName(name([attribute(CN, new Uint8Array(0))])), FormatError);
    assert.throws(() => distinguishedName(name([attribute(CN, fromHex("0c01780c0178"))])), FormatError);
  });
});
