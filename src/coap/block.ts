/**
 * The values of the options Block1 and Block2 (RFC 7959 section 2.2).
 *
 *     options.push({ number: OptionNumber.BLOCK2, value: encodeBlock({ number: 3, more: false, size: 64 }) });
 */

import { FormatError, LimitError } from "../errors.js";
import { uintValue } from "./message.js";

/** A block size in bytes: 2^(SZX + 4). */
export type BlockSize = 16 | 32 | 64 | 128 | 256 | 512 | 1024;

export const MIN_BLOCK_SIZE = 16;
export const MAX_BLOCK_SIZE = 1024;

/** A block of a body: `size` bytes from byte `number * size` on, fewer only where it is the last. */
export interface Block {
  /** NUM: 0 … 2²⁰-1. */
  readonly number: number;
  /** M: whether more blocks follow. */
  readonly more: boolean;
  /** 2^(SZX + 4) bytes. */
  readonly size: BlockSize;
}

const MAX_BLOCK_NUMBER = 0xfffff;
const MAX_BLOCK_VALUE_BYTES = 3;
const RESERVED_SZX = 7;
const MORE = 0x08;

//   0 … 3 bytes, a CoAP uint:
//  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  |                   NUM                 |M| SZX |
//  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

/** The uint value of a Block option. Throws LimitError where the number is above 2²⁰-1. */
export function encodeBlock({ number, more, size }: Block): number {
  if (number > MAX_BLOCK_NUMBER) {
    throw new LimitError(`expected at most ${MAX_BLOCK_NUMBER + 1} blocks, this body needs more: take larger blocks`);
  }
  return (number << 4) | (more ? MORE : 0) | sizeExponent(size);
}

/** The block that the value of a Block option describes. Throws FormatError: more than 3 bytes, or SZX 7. */
export function decodeBlock(value: Uint8Array): Block {
  if (value.length > MAX_BLOCK_VALUE_BYTES) {
    throw new FormatError(`expected a Block option of at most ${MAX_BLOCK_VALUE_BYTES} bytes, found ${value.length}`);
  }
  const bits = uintValue(value);
  return { number: bits >> 4, more: (bits & MORE) !== 0, size: blockSize(bits & 7) };
}

/** The size in bytes for an SZX of 0 … 6. Throws FormatError on 7, which is reserved. */
export function blockSize(szx: number): BlockSize {
  if (szx >= RESERVED_SZX) throw new FormatError(`expected an SZX of 0 to 6, found ${szx}`);
  return (MIN_BLOCK_SIZE << szx) as BlockSize;
}

/** The SZX for a block size in bytes. */
export function sizeExponent(size: BlockSize): number {
  return 27 - Math.clz32(size);
}

/** Whether `size` is one of the seven block sizes. */
export function isBlockSize(size: number): size is BlockSize {
  return size >= MIN_BLOCK_SIZE && size <= MAX_BLOCK_SIZE && (size & (size - 1)) === 0 && Number.isInteger(size);
}
