/**
 * IP addresses as 16 bytes, so that one address in two spellings is one: RFC 4291 section 2.2 (text to bytes),
 * section 2.5.5.2 (IPv4 in IPv6), RFC 5952 section 4 (bytes to text).
 *
 *     formatAddress(parseAddress("2001:DB8:0::1")); // "2001:db8::1"
 */
import { FormatError } from "../errors.js";

/** Bytes of a parsed address; an IPv4 address is ::ffff:0:0/96. */
export const ADDRESS_BYTES = 16;

/** The longest spelling: six groups of four digits and a dotted quad. */
const TEXT_LENGTH_MAX = 45;
const IPV4_OFFSET = 12;

/**
 * The 16 bytes of an IPv4 address in dotted decimal (no leading zeros) or an IPv6 address. Throws a FormatError for
 * anything else; zone identifiers (%eth0), brackets and white space are not part of an address.
 */
export function parseAddress(text: string): Uint8Array {
  const address = new Uint8Array(ADDRESS_BYTES);
  const good =
    text.length <= TEXT_LENGTH_MAX &&
    (text.includes(":") ? parseIPv6(text, address) : parseIPv4(text, 0, mapped(address)));
  // Only so much of the text is shown as an address can have.
  if (!good) throw new FormatError(`expected an IPv4 or IPv6 address, got "${text.slice(0, TEXT_LENGTH_MAX)}"`);
  return address;
}

/**
 * The canonical text of 16 bytes: dotted decimal for an IPv4-mapped address, else RFC 5952 section 4. Throws a
 * FormatError for another length.
 */
export function formatAddress(address: Uint8Array): string {
  if (address.length !== ADDRESS_BYTES) throw new FormatError(`expected ${ADDRESS_BYTES} bytes, got ${address.length}`);
  if (isMapped(address)) return `${address[12]}.${address[13]}.${address[14]}.${address[15]}`;
  let gapStart = ADDRESS_BYTES;
  let gapEnd = ADDRESS_BYTES;
  // The first of the longest runs of zero groups; a single one is not shortened (RFC 5952 section 4.2.2).
  let longest = 2;
  for (let at = 0; at < ADDRESS_BYTES; at += 2) {
    let end = at;
    while (end < ADDRESS_BYTES && address[end] === 0 && address[end + 1] === 0) end += 2;
    if (end - at > longest) {
      longest = end - at;
      gapStart = at;
      gapEnd = end;
    }
    if (end > at) at = end - 2;
  }
  let text = "";
  for (let at = 0; at < ADDRESS_BYTES; at += 2) {
    if (at === gapStart) {
      text += "::";
      at = gapEnd;
      if (at === ADDRESS_BYTES) break;
    } else if (at > 0) text += ":";
    text += (address[at]! * 256 + address[at + 1]!).toString(16);
  }
  return text;
}

function parseIPv6(text: string, address: Uint8Array): boolean {
  let written = 0;
  let gap = -1;
  let position = 0;
  if (text.startsWith("::")) {
    gap = 0;
    position = 2;
  }
  while (position < text.length) {
    let end = text.indexOf(":", position);
    if (end < 0) {
      end = text.length;
      if (text.indexOf(".", position) >= 0) {
        if (written > IPV4_OFFSET || !parseIPv4(text, position, address.subarray(written, written + 4))) return false;
        written += 4;
        break;
      }
    }
    if (written >= ADDRESS_BYTES || end === position || end - position > 4) return false;
    let group = 0;
    for (; position < end; position++) {
      const digit = hexDigit(text.charCodeAt(position));
      if (digit < 0) return false;
      group = group * 16 + digit;
    }
    address[written++] = group >> 8;
    address[written++] = group;
    if (end === text.length) break;
    position++;
    if (position === text.length) return false;
    if (text.charCodeAt(position) === 0x3a) {
      if (gap >= 0) return false;
      gap = written;
      position++;
    }
  }
  if (gap < 0) return written === ADDRESS_BYTES;
  // "::" stands for one group at least.
  if (written > ADDRESS_BYTES - 2) return false;
  const tail = ADDRESS_BYTES - (written - gap);
  address.copyWithin(tail, gap, written);
  address.fill(0, gap, tail);
  return true;
}

function parseIPv4(text: string, start: number, quad: Uint8Array): boolean {
  let position = start;
  for (let index = 0; index < 4; index++) {
    if (index > 0 && text.charCodeAt(position++) !== 0x2e) return false;
    const first = position;
    let value = 0;
    while (position < text.length && position - first < 3) {
      const digit = text.charCodeAt(position) - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
      position++;
    }
    const digits = position - first;
    if (digits === 0 || value > 255 || (digits > 1 && text.charCodeAt(first) === 0x30)) return false;
    quad[index] = value;
  }
  return position === text.length;
}

/** Makes an all-zero address IPv4-mapped; returns where the IPv4 address goes. */
function mapped(address: Uint8Array): Uint8Array {
  address[10] = 0xff;
  address[11] = 0xff;
  return address.subarray(IPV4_OFFSET);
}

function isMapped(address: Uint8Array): boolean {
  for (let at = 0; at < 10; at++) if (address[at] !== 0) return false;
  return address[10] === 0xff && address[11] === 0xff;
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const letter = code | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}
