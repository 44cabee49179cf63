/**
 * coap and coaps URIs (RFC 7252 section 6), as far as an EST server's address needs them.
 *
 *     parseURI("coaps://[2001:db8::1]/label"); // { scheme: "coaps", host: "2001:db8::1", port: 5684, path: "/label" }
 */

import { FormatError } from "../errors.js";
import { MAX_STRING_BYTES } from "./message.js";
import { lengthUTF8, readUTF8 } from "./utf8.js";

export interface URI {
  scheme: "coap" | "coaps";
  /** A name in lower case, an IPv4 address, or an IPv6 address without brackets. */
  host: string;
  port: number;
  /** Begins with "/"; percent-decoded, as `CoAPRequest.path` takes it. */
  path: string;
}

/** RFC 7252 sections 6.1 and 6.2. */
export const DEFAULT_PORTS = { coap: 5683, coaps: 5684 } as const;

const AUTHORITY = /^(coaps?):\/\/(\[[^\]/?#]*\]|[^[\]:/?#]*)(?::([0-9]*))?(\/.*)?$/i;
const HOST_NAME = /^[A-Za-z0-9._-]+$/;
const IPV4 = /^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!$)|$)){4}$/;
const IPV6_GROUP = /^[0-9A-Fa-f]{1,4}$/;
const IPV6_GROUPS = 8;

// RFC 3986 section 3.3, pchar without the percent sign.
const PATH_CHARACTER = /[A-Za-z0-9\-._~!$&'()*+,;=:@]/;
const HEX_OCTET = /^[0-9A-Fa-f]{2}$/;

/**
 * The parts of `coap[s]://HOST[:PORT][/PATH]`. Throws FormatError on anything else: another scheme, user information, a
 * query, a fragment, a port of 0 or above 65535, a malformed address, dot segments, or a segment over 255 bytes.
 */
export function parseURI(text: string): URI {
  const parts = AUTHORITY.exec(text);
  if (!parts) throw new FormatError(`expected coaps://HOST[:PORT][/PATH], got "${text}"`);
  const scheme = parts[1].toLowerCase() === "coap" ? "coap" : "coaps";
  return {
    scheme,
    host: parseHost(parts[2]),
    port: parts[3] ? parsePort(parts[3]) : DEFAULT_PORTS[scheme],
    path: decodePath(parts[4] ?? "/"),
  };
}

/**
 * The path of a URI or of a link target, percent-decoded (RFC 7252 section 6.4). Throws FormatError where it does not
 * begin with "/", has characters that a path cannot have, or a segment with an encoded "/" or of over 255 bytes.
 */
export function decodePath(path: string): string {
  if (!path.startsWith("/")) throw new FormatError(`expected a path that begins with "/", got "${path}"`);
  return `/${path.slice(1).split("/").map(decodeSegment).join("/")}`;
}

function parseHost(host: string): string {
  if (host.startsWith("[")) {
    const address = host.slice(1, -1);
    if (!isIPv6(address)) throw new FormatError(`expected an IPv6 address in brackets, got "${host}"`);
    return address.toLowerCase();
  }
  if (!HOST_NAME.test(host) || host.length > MAX_STRING_BYTES) {
    throw new FormatError(`expected a host name or address, got "${host}"`);
  }
  return host.toLowerCase();
}

function parsePort(digits: string): number {
  const port = Number(digits);
  if (port < 1 || port > 0xffff) throw new FormatError(`expected a port of 1 to 65535, got ${digits}`);
  return port;
}

/** RFC 4291 section 2.2; no zone. */
function isIPv6(address: string): boolean {
  const halves = address.split("::");
  if (halves.length > 2) return false;
  const before = countGroups(halves[0], halves.length === 1);
  if (halves.length === 1) return before === IPV6_GROUPS;
  const after = countGroups(halves[1], true);
  // "::" stands for one group of zeros at least.
  return before + after < IPV6_GROUPS;
}

/** Groups of 16 bits in a part of an address; more than there can be where it is malformed. */
function countGroups(part: string, isLast: boolean): number {
  if (part === "") return 0;
  const groups = part.split(":");
  let count = 0;
  for (let at = 0; at < groups.length; at++) {
    if (IPV6_GROUP.test(groups[at])) count++;
    else if (isLast && at === groups.length - 1 && IPV4.test(groups[at])) count += 2;
    else return IPV6_GROUPS + 1;
  }
  return count;
}

function decodeSegment(segment: string): string {
  const bytes = new Uint8Array(segment.length);
  let length = 0;
  for (let at = 0; at < segment.length; length++) {
    const isEncoded = segment[at] === "%";
    bytes[length] = isEncoded ? decodeOctet(segment.slice(at + 1, at + 3)) : pathCharacter(segment[at]);
    at += isEncoded ? 3 : 1;
  }
  const text = readUTF8(bytes.subarray(0, length));
  // A path is one string here, so that a "/" in a segment would be taken for its end.
  if (text === "." || text === ".." || text.includes("/") || lengthUTF8(text) > MAX_STRING_BYTES) {
    throw new FormatError(`expected a path segment of at most ${MAX_STRING_BYTES} bytes, got "${segment}"`);
  }
  return text;
}

function decodeOctet(digits: string): number {
  if (!HEX_OCTET.test(digits)) throw new FormatError(`expected two hexadecimal digits after "%", got "${digits}"`);
  return Number.parseInt(digits, 16);
}

function pathCharacter(character: string): number {
  if (!PATH_CHARACTER.test(character)) {
    throw new FormatError(`expected a path without "${character}": percent-encode it`);
  }
  return character.charCodeAt(0);
}
