/**
 * As much DER (X.690) as the development EST server needs beside @peculiar/x509: putting elements together, and taking
 * them apart without changing a byte.
 *
 *     const [info] = children(csr);
 */

/** Tags of X.690 section 8. */
export const SEQUENCE = 0x30;
export const SET = 0x31;
export const EXPLICIT_0 = 0xa0;

/** One element around the parts. */
export function element(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = Buffer.concat(parts);
  const { length } = content;
  let header = [tag, length];
  if (length > 0xffff) {
    header = [tag, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff];
  } else if (length > 0xff) {
    header = [tag, 0x82, length >> 8, length & 0xff];
  } else if (length > 0x7f) {
    header = [tag, 0x81, length];
  }
  return Uint8Array.from([...header, ...content]);
}

/** Tag and value of the element at `at`, and where it ends. */
function elementAt(bytes: Uint8Array, at: number): { tag: number; start: number; end: number } {
  const tag = bytes[at];
  const first = bytes[at + 1];
  if (tag === undefined || first === undefined) {
    throw new Error("it ends within an element");
  }
  let start = at + 2;
  let length = first;
  if (first > 0x7f) {
    const octets = first & 0x7f;
    if (octets === 0 || octets > 3) {
      throw new Error("a length is indefinite or too large for DER");
    }
    length = 0;
    for (const octet of bytes.subarray(start, start + octets)) {
      length = length * 256 + octet;
    }
    start += octets;
    if (length < 0x80 || (octets > 1 && length < 256 ** (octets - 1))) {
      throw new Error("a length is not in its shortest form");
    }
  }
  if (start + length > bytes.length) {
    throw new Error("an element is longer than what is there");
  }
  return { tag, start, end: start + length };
}

/**
 * The elements within one constructed element, each with its tag and length.
 * @throws Error where `der` is not one whole element.
 */
export function children(der: Uint8Array): Uint8Array[] {
  const outer = elementAt(der, 0);
  if ((outer.tag & 0x20) === 0 || outer.end !== der.length) {
    throw new Error(outer.end === der.length ? "an element is not constructed" : "bytes follow the last element");
  }
  const found: Uint8Array[] = [];
  for (let at = outer.start; at < outer.end; ) {
    const { end } = elementAt(der.subarray(0, outer.end), at);
    found.push(Uint8Array.from(der.subarray(at, end)));
    at = end;
  }
  return found;
}
