// The DER reader: src/pki/der.ts.
import { strict as assert } from "node:assert";
import { FormatError, LimitError } from "../../../src/errors.js";
import { DERReader, dottedOID, Tag } from "../../../src/pki/der.js";
import { fromHex } from "../../vectors/rfc9148.js";
import { ascii, element } from "./element.js";

const reader = (hex: string) => new DERReader(fromHex(hex));

describe("the DER reader", () => {
  it("walks over elements and into constructed ones", () => {
    const outer = reader("30060201050401aa0500");
    assert.equal(outer.tag, Tag.SEQUENCE);
    const inner = outer.enter(Tag.SEQUENCE);
    assert.deepEqual(inner.read(Tag.INTEGER), fromHex("05"));
    assert.equal(inner.done, false);
    assert.deepEqual(inner.readElement(), fromHex("0401aa"));
    assert.equal(inner.done, true);
    assert.equal(inner.tag, undefined);
    inner.finish();
    assert.throws(() => outer.finish(), FormatError);
    outer.skip();
    outer.finish();
  });

  it("hands out views, not copies", () => {
    const bytes = fromHex("0402aabb");
    assert.ok(new DERReader(bytes).read(Tag.OCTET_STRING).buffer === bytes.buffer);
  });

  it("reads lengths of up to four octets", () => {
    for (const length of [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1234]) {
      const octets = new DERReader(element(Tag.OCTET_STRING, new Uint8Array(length)));
      assert.equal(octets.read(Tag.OCTET_STRING).length, length);
      octets.finish();
    }
  });

  it("refuses lengths that are indefinite, not the shortest, reserved or beyond the end", () => {
    for (const hex of [
      "3080020105000000",
      "048101aa",
      "04820001aa",
      "0485000000000100",
      "04ff",
      "0402aa",
      "0484ffffffff",
    ]) {
      assert.throws(() => reader(hex).readElement(), FormatError, hex);
    }
    assert.throws(() => reader(`04820080${"00".repeat(128)}`).readElement(), FormatError);
    assert.throws(() => reader(`0483000100${"00".repeat(256)}`).readElement(), FormatError);
    const inner = reader("3003040401020304").enter(Tag.SEQUENCE);
    assert.throws(() => inner.read(Tag.OCTET_STRING), FormatError);
  });

  it("refuses an element that is cut short", () => {
    for (const hex of ["", "04", "0481", "048200", "0401"])
      assert.throws(() => reader(hex).readElement(), FormatError, hex);
  });

  it("refuses tags that certificates do not have", () => {
    for (const hex of ["0000", "2000", "1f2000", "bf8100", "ff"]) {
      assert.throws(() => reader(hex).readElement(), FormatError, hex);
    }
  });

  it("says what it expected, where, and what came", () => {
    let message = "";
    try {
      reader("30030401aa").enter(Tag.SEQUENCE).read(Tag.INTEGER);
    } catch (error) {
      message = (error as Error).message;
    }
    assert.equal(message, "DER: expected tag 02 at offset 2, got 04");
  });

  it("reads booleans", () => {
    assert.equal(reader("0101ff").readBoolean(), true);
    assert.equal(reader("010100").readBoolean(), false);
    for (const hex of ["0100", "010101", "0102ffff", "0201ff"])
      assert.throws(() => reader(hex).readBoolean(), FormatError);
  });

  it("reads unsigned integers without the sign octet", () => {
    assert.deepEqual(reader("020100").readUnsignedInteger(), fromHex("00"));
    assert.deepEqual(reader("02017f").readUnsignedInteger(), fromHex("7f"));
    assert.deepEqual(reader("02020080").readUnsignedInteger(), fromHex("80"));
    assert.deepEqual(reader("0209008000000000000000").readUnsignedInteger(), fromHex("8000000000000000"));
    for (const hex of ["020180", "0200", "0202007f", "0202ff80"]) {
      assert.throws(() => reader(hex).readUnsignedInteger(), FormatError, hex);
    }
  });

  it("reads bit strings of whole octets only", () => {
    assert.deepEqual(reader("030300aabb").readBitString(), fromHex("aabb"));
    assert.deepEqual(reader("030100").readBitString(), new Uint8Array(0));
    for (const hex of ["0300", "030204f0", "030208aa"])
      assert.throws(() => reader(hex).readBitString(), FormatError, hex);
  });

  it("reads and writes object identifiers", () => {
    const identifiers = [
      ["2a864886f70d010702", "1.2.840.113549.1.7.2"],
      ["550403", "2.5.4.3"],
      ["00", "0.0"],
      ["27", "0.39"],
      ["28", "1.0"],
      ["4f", "1.39"],
      ["50", "2.0"],
      ["883701", "2.999.1"],
      ["0992268993f22c640119", "0.9.2342.19200300.100.1.25"],
      // A UUID, the example of X.667: its arc has 128 bits.
      ["6983f09da7ebcfdee0c7a1a7b2c0948cc8f9d776", "2.25.329800735698586629295641978511506172918"],
      ["83ffffffffffffffff7f", "2.36893488147419103151"],
    ];
    for (const [hex, dotted] of identifiers) {
      const bytes = fromHex(hex!);
      assert.deepEqual(new DERReader(element(Tag.OBJECT_IDENTIFIER, bytes)).readOID(), bytes);
      assert.equal(dottedOID(bytes), dotted);
    }
  });

  it("refuses object identifiers that are empty, cut short, padded or endless", () => {
    for (const hex of ["", "88", "2a86", "802a", "2a8001"]) {
      assert.throws(() => new DERReader(element(Tag.OBJECT_IDENTIFIER, fromHex(hex))).readOID(), FormatError, hex);
      assert.throws(() => dottedOID(fromHex(hex)), FormatError, hex);
    }
    assert.throws(() => dottedOID(new Uint8Array(129).fill(1)), LimitError);
  });

  it("reads times as seconds since 1970", () => {
    const times: [number, string, number][] = [
      [Tag.UTC_TIME, "700101000000Z", 0],
      [Tag.UTC_TIME, "190131112703Z", 1548934023],
      [Tag.UTC_TIME, "491231235959Z", 2524607999],
      [Tag.UTC_TIME, "500101000000Z", -631152000],
      [Tag.UTC_TIME, "000229120000Z", 951825600],
      [Tag.GENERALIZED_TIME, "20500101000000Z", 2524608000],
      [Tag.GENERALIZED_TIME, "99991231235959Z", 253402300799],
      [Tag.GENERALIZED_TIME, "00000101000000Z", -62167219200],
      [Tag.GENERALIZED_TIME, "20000229000000Z", 951782400],
    ];
    for (const [tag, text, seconds] of times) {
      assert.equal(new DERReader(element(tag, ascii(text))).readTime(), seconds, text);
    }
  });

  it("refuses times that do not exist or are not in the form of RFC 5280", () => {
    const times: [number, string][] = [
      [Tag.UTC_TIME, ""],
      [Tag.UTC_TIME, "1901311127Z"],
      [Tag.UTC_TIME, "190131112703"],
      [Tag.UTC_TIME, "190131112703+0000"],
      [Tag.UTC_TIME, "20190131112703Z"],
      [Tag.UTC_TIME, "19013111270/Z"],
      [Tag.UTC_TIME, "19013111270:Z"],
      [Tag.UTC_TIME, "190031112703Z"],
      [Tag.UTC_TIME, "191331112703Z"],
      [Tag.UTC_TIME, "190100112703Z"],
      [Tag.UTC_TIME, "190132112703Z"],
      [Tag.UTC_TIME, "190229112703Z"],
      [Tag.UTC_TIME, "190431112703Z"],
      [Tag.UTC_TIME, "190131242703Z"],
      [Tag.UTC_TIME, "190131116003Z"],
      [Tag.UTC_TIME, "190131112760Z"],
      [Tag.GENERALIZED_TIME, "190131112703Z"],
      [Tag.GENERALIZED_TIME, "20190131112703.5Z"],
      [Tag.GENERALIZED_TIME, "21000229000000Z"],
      [Tag.OCTET_STRING, "190131112703Z"],
    ];
    for (const [tag, text] of times) {
      assert.throws(() => new DERReader(element(tag, ascii(text))).readTime(), FormatError, text);
    }
  });
});
