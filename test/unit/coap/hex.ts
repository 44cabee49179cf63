/** Bytes as the RFCs print them: `hex(bytes("45 00"))` is "4500". */

export function bytes(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, "");
  const result = new Uint8Array(digits.length / 2);
  for (let at = 0; at < result.length; at++) result[at] = Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16);
  return result;
}

export function hex(data: Uint8Array): string {
  let text = "";
  for (const byte of data) text += (byte < 16 ? "0" : "") + byte.toString(16);
  return text;
}

/** `length` bytes that differ from block to block. */
export function pattern(length: number): Uint8Array {
  const result = new Uint8Array(length);
  for (let at = 0; at < length; at++) result[at] = (at * 7 + (at >> 4) * 13) & 0xff;
  return result;
}
