/**
 * DER elements for tests.
 *
 *     element(Tag.SEQUENCE, element(Tag.INTEGER, Uint8Array.of(1)));
 */
import { joinBytes } from "../../../src/bytes.js";

/** One element around the parts, with the shortest length. */
export function element(tag: number, ...parts: Uint8Array[]): Uint8Array {
  const content = joinBytes(...parts);
  const length = content.length;
  const header =
    length < 0x80 ? [tag, length] : length < 0x100 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 0xff];
  return joinBytes(Uint8Array.from(header), content);
}

/** The bytes of a 7-bit string. */
export function ascii(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}
