/**
 * UTF-8 (RFC 3629) for the string options of CoAP (RFC 7252 section 3.2): XS and the language itself have no
 * TextEncoder. Strict both ways: no overlong forms, no surrogates, nothing cut short.
 *
 *     const length = writeUTF8("crts", buffer, 4);
 *     const text = readUTF8(buffer.subarray(4, 4 + length));
 */

import { FormatError } from "../errors.js";

//  code point            bytes
//  U+0000  … U+007F      0xxxxxxx
//  U+0080  … U+07FF      110xxxxx 10xxxxxx
//  U+0800  … U+FFFF      1110xxxx 10xxxxxx 10xxxxxx      without U+D800 … U+DFFF
//  U+10000 … U+10FFFF    11110xxx 10xxxxxx 10xxxxxx 10xxxxxx

// Texts are read by index: an iterator costs objects for each character, and stack where requests are made.

/** Bytes of a character that is two UTF-16 units in a string. */
const SURROGATE_PAIR_SIZE = 4;

/** Bytes that `text` takes in UTF-8. Throws FormatError on a lone surrogate. */
export function lengthUTF8(text: string): number {
  let length = 0;
  for (let index = 0; index < text.length; index++) {
    const size = sizeUTF8(text.codePointAt(index)!);
    length += size;
    if (size === SURROGATE_PAIR_SIZE) index++;
  }
  return length;
}

/**
 * Writes `text` at `offset`, and returns the number of bytes written. The caller has made sure by `lengthUTF8` that
 * it fits. Throws FormatError on a lone surrogate.
 */
export function writeUTF8(text: string, buffer: Uint8Array, offset: number): number {
  let at = offset;
  for (let index = 0; index < text.length; index++) {
    const point = text.codePointAt(index)!;
    const size = sizeUTF8(point);
    if (size === SURROGATE_PAIR_SIZE) index++;
    if (size === 1) {
      buffer[at++] = point;
      continue;
    }
    buffer[at++] = (0xf00 >> size) | (point >> (6 * (size - 1)));
    for (let rest = size - 2; rest >= 0; rest--) buffer[at++] = 0x80 | ((point >> (6 * rest)) & 0x3f);
  }
  return at - offset;
}

/** The text of `bytes`. Throws FormatError where they are not well-formed UTF-8. */
export function readUTF8(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at];
    const size = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf8 ? 4 : 0;
    if (size === 0 || at + size > bytes.length) throw malformed(at);
    let point = size === 1 ? first : first & (0x7f >> size);
    for (let next = at + 1; next < at + size; next++) {
      if ((bytes[next] & 0xc0) !== 0x80) throw malformed(next);
      point = (point << 6) | (bytes[next] & 0x3f);
    }
    if (point > 0x10ffff || sizeUTF8(point) !== size) throw malformed(at);
    text += String.fromCodePoint(point);
    at += size;
  }
  return text;
}

function sizeUTF8(point: number): number {
  if (point >= 0xd800 && point <= 0xdfff) throw new FormatError("text has a lone surrogate, which UTF-8 cannot carry");
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

function malformed(at: number): FormatError {
  return new FormatError(`expected UTF-8, found a malformed sequence at byte ${at}`);
}
