/**
 * Writes DER (X.690 section 8): one element around its parts.
 *
 *     const extension = element(Tag.SEQUENCE, oid, element(Tag.OCTET_STRING, value));
 */

import { joinBytes } from "../bytes.js";

/** A new array with tag, length and the parts; 65,535 bytes of content at most, which nothing here exceeds. */
export function element(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) {
    length += part.length;
  }
  const header =
    length > 0xff
      ? Uint8Array.of(tag, 0x82, length >> 8, length & 0xff)
      : length > 0x7f
        ? Uint8Array.of(tag, 0x81, length)
        : Uint8Array.of(tag, length);
  return joinBytes(header, ...parts);
}
