import { strict as assert } from "node:assert";
import { type Block, blockSize, decodeBlock, encodeBlock, isBlockSize, sizeExponent } from "../../../src/coap/block.js";
import { FormatError, LimitError } from "../../../src/errors.js";
import { bytes } from "./hex.js";

const SIZES = [16, 32, 64, 128, 256, 512, 1024] as const;

describe("a Block option", () => {
  it("has the values of RFC 9148 appendix B.1", () => {
    const blocks: [Block, string][] = [
      [{ number: 0, more: true, size: 64 }, "0a"],
      [{ number: 1, more: true, size: 64 }, "1a"],
      [{ number: 9, more: false, size: 64 }, "92"],
    ];
    for (const [block, value] of blocks) {
      assert.equal(encodeBlock(block), Number.parseInt(value, 16));
      assert.deepEqual(decodeBlock(bytes(value)), block);
    }
  });

  it("has the values of RFC 7959 section 3", () => {
    assert.deepEqual(decodeBlock(bytes("21")), { number: 2, more: false, size: 32 });
    assert.deepEqual(decodeBlock(bytes("3b")), { number: 3, more: true, size: 128 });
  });

  it("has the values of the transfer in RFC 9148 appendix B.2", () => {
    assert.equal(encodeBlock({ number: 0, more: true, size: 256 }), 0x0c);
    assert.equal(encodeBlock({ number: 1, more: true, size: 256 }), 0x1c);
    assert.equal(encodeBlock({ number: 1, more: false, size: 256 }), 0x14);
  });

  it("is empty for number 0, no more, size 16", () => {
    assert.equal(encodeBlock({ number: 0, more: false, size: 16 }), 0);
    assert.deepEqual(decodeBlock(bytes("")), { number: 0, more: false, size: 16 });
  });

  it("takes numbers of 20 bits and refuses more", () => {
    const block: Block = { number: 0xfffff, more: true, size: 1024 };
    assert.equal(encodeBlock(block), 0xfffffe);
    assert.deepEqual(decodeBlock(bytes("fffffe")), block);
    assert.throws(() => encodeBlock({ number: 0x100000, more: false, size: 16 }), LimitError);
    assert.throws(() => decodeBlock(bytes("00000000")), FormatError);
  });

  it("refuses SZX 7", () => {
    assert.throws(() => decodeBlock(bytes("07")), FormatError);
    assert.throws(() => decodeBlock(bytes("1f")), FormatError);
    assert.throws(() => blockSize(7), FormatError);
  });

  it("has seven sizes", () => {
    SIZES.forEach((size, szx) => {
      assert.equal(blockSize(szx), size);
      assert.equal(sizeExponent(size), szx);
      assert.ok(isBlockSize(size));
    });
    for (const size of [0, 8, 15, 17, 48, 2048, -16, 16.5, Number.NaN]) assert.ok(!isBlockSize(size));
  });
});
