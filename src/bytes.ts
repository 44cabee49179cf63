/**
 * Byte arrays: compare, join, big-endian numbers.
 *
 *     sameBytes(hash, expected); const both = joinBytes(header, body);
 */

/** Whether two byte arrays have the same content. Not for secrets: the time it takes tells where they differ. */
export function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  const length = one.length;
  return length === other.length && (length === 0 || nativeDiffer(one, other) === 0);
}

// In the C core: a device's engine takes some 15 steps for each byte.
function nativeDiffer(this: unknown, one: Uint8Array, other: Uint8Array): number {
  return native("xs_torpor_differ").call(this, one, other);
}

/** A new array with the content of all, one after the other. */
export function joinBytes(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) {
    length += part.length;
  }
  const joined = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** The unsigned big-endian number in `size` bytes (1 to 6) from `at`. */
export function readUint(bytes: Uint8Array, at: number, size: number): number {
  let value = 0;
  for (const end = at + size; at < end; at++) {
    value = value * 256 + bytes[at]!;
  }
  return value;
}

/** Writes `value` as an unsigned big-endian number into `size` bytes (1 to 6) from `at`. */
export function writeUint(bytes: Uint8Array, at: number, size: number, value: number): void {
  for (let i = at + size - 1; i >= at; i--) {
    bytes[i] = value % 256;
    value = Math.floor(value / 256);
  }
}
