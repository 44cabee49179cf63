// Addresses: src/session/address.ts.
import { strict as assert } from "node:assert";
import { FormatError } from "../../../src/errors.js";
import { formatAddress, parseAddress } from "../../../src/session/address.js";
import { fromHex } from "../../vectors/rfc9148.js";

describe("an address", () => {
  it("becomes 16 bytes, an IPv4 address as an IPv4-mapped one", () => {
    assert.deepEqual(parseAddress("192.0.2.33"), fromHex("00000000000000000000ffffc0000221"));
    assert.deepEqual(parseAddress("0.0.0.0"), fromHex("00000000000000000000ffff00000000"));
    assert.deepEqual(parseAddress("2001:db8:1:2:3:4:5:6"), fromHex("20010db8000100020003000400050006"));
    assert.deepEqual(parseAddress("::"), new Uint8Array(16));
    assert.deepEqual(parseAddress("::1"), fromHex("00000000000000000000000000000001"));
    assert.deepEqual(parseAddress("fe80::"), fromHex("fe800000000000000000000000000000"));
    assert.deepEqual(parseAddress("64:ff9b::192.0.2.33"), fromHex("0064ff9b0000000000000000c0000221"));
  });

  it("is the same bytes in every spelling", () => {
    const spellings = [
      "2001:db8::1",
      "2001:DB8::1",
      "2001:0db8:0:0::1",
      "2001:db8:0:0:0:0:0:1",
      "2001:0db8:0000:0000:0000:0000:0000:0001",
      "2001:db8:0:0:0:0::1",
      "2001:db8::0.0.0.1",
    ];
    for (const spelling of spellings) assert.deepEqual(parseAddress(spelling), parseAddress("2001:db8::1"), spelling);
    for (const spelling of ["::ffff:192.0.2.1", "::FFFF:c000:201", "0:0:0:0:0:ffff:192.0.2.1"]) {
      assert.deepEqual(parseAddress(spelling), parseAddress("192.0.2.1"), spelling);
    }
  });

  it("is written in the form of RFC 5952, section 4", () => {
    const forms = [
      ["2001:0db8::0001", "2001:db8::1"],
      ["2001:db8:0:0:0:0:2:1", "2001:db8::2:1"],
      ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
      ["2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
      ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
      ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
      ["2001:DB8::ABCD", "2001:db8::abcd"],
      ["0:0:0:0:0:0:0:0", "::"],
      ["0:0:0:0:0:0:0:1", "::1"],
      ["1:0:0:0:0:0:0:0", "1::"],
      ["1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"],
      ["0:0:3:4:5:6:7:8", "::3:4:5:6:7:8"],
      ["0:2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"],
      ["1:2:3:4:5:6:7:0", "1:2:3:4:5:6:7:0"],
      ["::192.0.2.1", "::c000:201"],
    ];
    for (const [text, canonical] of forms) assert.equal(formatAddress(parseAddress(text!)), canonical);
  });

  it("is written as dotted decimal where it is IPv4-mapped", () => {
    assert.equal(formatAddress(parseAddress("192.0.2.1")), "192.0.2.1");
    assert.equal(formatAddress(parseAddress("::ffff:c000:201")), "192.0.2.1");
    assert.equal(formatAddress(parseAddress("::fffe:c000:201")), "::fffe:c000:201");
  });

  it("is refused where the text is not exactly one address", () => {
    const wrong = [
      "",
      " ",
      "localhost",
      "1.2.3",
      "1.2.3.4.5",
      "1.2.3.256",
      "1.2.3.04",
      "01.2.3.4",
      "1.2.3.",
      ".1.2.3",
      "1..2.3",
      "1.2.3.4 ",
      " 1.2.3.4",
      "1.2.3.-4",
      "1.2.3.0x4",
      "1.2.3.1000",
      ":",
      ":::",
      "1",
      "1:",
      ":1",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:",
      ":1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1:2:3:4:5:6:7:8::",
      "::1:2:3:4:5:6:7:8",
      "1:2:3:4::5:6:7:8",
      "1::2::3",
      "1:::2",
      "12345::",
      "g::",
      "1::2%eth0",
      "fe80::1%1",
      "[::1]",
      "::1 ",
      "::1.2.3",
      "::1.2.3.4.5",
      "::1.2.3.256",
      "1.2.3.4::",
      "::1.2.3.4:5",
      "1:2:3:4:5:6:7:1.2.3.4",
      "1:2:3:4:5:1.2.3.4",
      "::-1",
      "::+1",
      "::1\u0000",
      "::\u0661",
      "1:2:3:4:5:6:1.2.3.4.",
      "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000",
    ];
    for (const text of wrong) assert.throws(() => parseAddress(text), FormatError, text);
  });

  it("is not written from another number of bytes", () => {
    assert.throws(() => formatAddress(new Uint8Array(4)), FormatError);
    assert.throws(() => formatAddress(new Uint8Array(17)), FormatError);
  });
});
