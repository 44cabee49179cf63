/**
 * application/multipart-core (RFC 8710, Content-Format 62): a CBOR array of Content-Format numbers, each followed by
 * its representation as a byte string. The answer of skg and skc (RFC 9148 section 4.3).
 *
 *     for (const { format, body } of readMultipart(response)) …
 */

import { FormatError, LimitError } from "../errors.js";

/** The Content-Format number (RFC 8710 section 6). */
export const MULTIPART_CORE = 62;

export interface Part {
  /** Content-Format of the body. */
  readonly format: number;
  /** A view of the representation; undefined where it is `null`: not given. */
  readonly body: Uint8Array | undefined;
}

const MAX_PARTS = 8;
const MAX_FORMAT = 0xffff;

// RFC 8949 section 3: a byte of major type (3 bits) and argument (5 bits): 0 … 23 itself, 24 … 27 for 1, 2, 4 or 8
// bytes that follow it.
const UNSIGNED = 0;
const BYTES = 2;
const ARRAY = 4;
const SIMPLE = 7;
const NULL = 22;
const ARGUMENT_IN_BYTES = 24;
const ARGUMENT_IN_4_BYTES = 26;

/**
 * The parts in their order. Throws a FormatError for anything else than such an array: the RFC forbids to go on; nested
 * arrays, indefinite lengths and bytes after the end among it. A LimitError for more than 8 parts.
 */
export function readMultipart(bytes: Uint8Array): Part[] {
  const reader = new Reader(bytes);
  const items = reader.head(ARRAY, "an array");
  if (items % 2 !== 0) throw new FormatError(`multipart: expected an even number of array items, got ${items}`);
  if (items > 2 * MAX_PARTS) throw new LimitError(`multipart: expected at most ${MAX_PARTS} parts, got ${items / 2}`);
  const parts: Part[] = [];
  for (let at = 0; at < items; at += 2) {
    const format = reader.head(UNSIGNED, "a Content-Format number");
    if (format > MAX_FORMAT) throw new FormatError(`multipart: expected a Content-Format below 65536, got ${format}`);
    parts.push({ format, body: reader.body() });
  }
  reader.finish();
  return parts;
}

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** The argument of the next item, which must be of this major type. */
  head(majorType: number, expected: string): number {
    const start = this.#at;
    const first = this.#bytes[this.#at++];
    if (first === undefined) throw new FormatError(`multipart: expected ${expected} at byte ${start}, got the end`);
    const argument = first & 0x1f;
    if (first >> 5 !== majorType || argument > ARGUMENT_IN_4_BYTES) {
      throw new FormatError(
        `multipart: expected ${expected} of a definite length at byte ${start}, got 0x${first.toString(16)}`,
      );
    }
    if (argument < ARGUMENT_IN_BYTES) return argument;
    let value = 0;
    for (let count = 1 << (argument - ARGUMENT_IN_BYTES); count > 0; count--) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw new FormatError(`multipart: expected ${expected} at byte ${start}, got half of it`);
      value = value * 256 + byte;
    }
    return value;
  }

  /** A byte string, or null. */
  body(): Uint8Array | undefined {
    if (this.#bytes[this.#at] === ((SIMPLE << 5) | NULL)) {
      this.#at++;
      return undefined;
    }
    const length = this.head(BYTES, "a byte string or null");
    const start = this.#at;
    if (length > this.#bytes.length - start) {
      throw new FormatError(
        `multipart: expected ${length} bytes at byte ${start}, got ${this.#bytes.length - start}: a wrong length`,
      );
    }
    this.#at += length;
    return this.#bytes.subarray(start, this.#at);
  }

  finish(): void {
    if (this.#at < this.#bytes.length) {
      throw new FormatError(
        `multipart: expected the end at byte ${this.#at}, got ${this.#bytes.length - this.#at} more`,
      );
    }
  }
}
