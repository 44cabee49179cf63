// multipart-core: src/est/multipart.ts. RFC 8710 section 2.
import { strict as assert } from "node:assert";
import { FormatError, LimitError } from "../../../src/errors.js";
import { readMultipart } from "../../../src/est/multipart.js";
import { fromHex } from "../../vectors/rfc9148.js";

const plain = (hex: string) =>
  readMultipart(fromHex(hex)).map(({ format, body }) => [format, body === undefined ? null : [...body]]);

describe("multipart-core", () => {
  it("of RFC 9148, figure 2, is read part by part", () => {
    assert.deepEqual(plain("8419011c480123456789abcdef19011948fedcba9876543210"), [
      [284, [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]],
      [281, [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10]],
    ]);
  });

  it("of RFC 8710, section 2, is read, and so are no parts and parts that are not given", () => {
    assert.deepEqual(plain("84182a480123456789abcdef00453031323334"), [
      [42, [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]],
      [0, [0x30, 0x31, 0x32, 0x33, 0x34]],
    ]);
    assert.deepEqual(plain("80"), []);
    assert.deepEqual(plain("82182af6"), [[42, null]]);
  });

  it("may have lengths of 1, 2 and 4 bytes", () => {
    assert.deepEqual(plain("9802182a5801aa"), [[42, [0xaa]]]);
    assert.deepEqual(plain("9900021900005900 01bb".replace(" ", "")), [[0, [0xbb]]]);
    assert.deepEqual(plain("821a0000ffff5a00000001cc"), [[65535, [0xcc]]]);
  });

  it("is refused with nested arrays, wrong lengths and anything else than numbers and byte strings in turn", () => {
    const wrong = [
      // nothing, no array, an indefinite one, half a pair, a part missing
      "",
      "40",
      "9f182a41aaff",
      "81182a",
      "82182a",
      // a nested array for the body, for the number, a map, a tag, a text string, an indefinite byte string
      "82182a8100",
      "828041aa",
      "82182aa0",
      "82182ac041aa",
      "82182a6161",
      "82182a5f41aaff",
      // a negative number, one over 65535, a body that is longer than what there is, by 1 byte and by 4 gigabytes
      "822041aa",
      "821a0001000041aa",
      "82182a42aa",
      "82182a5affffffffaa",
      "82182a5bffffffffffffffffaa",
      // a length that is cut short, bytes after the end, reserved argument 28, other simple values
      "82182a59ff",
      "82182a41aa00",
      "82182a5caa",
      "82182af5",
      "82182af7",
    ];
    for (const hex of wrong) assert.throws(() => readMultipart(fromHex(hex)), FormatError, hex);
    const whole = fromHex("8419011c480123456789abcdef19011948fedcba9876543210");
    for (let length = 0; length < whole.length; length++) {
      assert.throws(() => readMultipart(whole.subarray(0, length)), FormatError);
    }
  });

  it("has at most 8 parts", () => {
    assert.equal(readMultipart(fromHex(`90${"0040".repeat(8)}`)).length, 8);
    assert.throws(() => readMultipart(fromHex(`92${"0040".repeat(9)}`)), LimitError);
    assert.throws(() => readMultipart(fromHex("9afffffffe")), LimitError);
  });
});
