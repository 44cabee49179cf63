/**
 * Distinguished names as strings: RFC 4514 section 2.
 *
 *     distinguishedName(certificate.subject); // "CN=sensor 7,O=Example\, Inc."
 */
import { FormatError } from "../errors.js";
import { DERReader, dottedOID, Tag } from "./der.js";

/** RFC 4514 section 3. Any other type is written in dotted form, with its value in hexadecimal. */
const shortNames: Readonly<Record<string, string | undefined>> = {
  "2.5.4.3": "CN",
  "2.5.4.7": "L",
  "2.5.4.8": "ST",
  "2.5.4.10": "O",
  "2.5.4.11": "OU",
  "2.5.4.6": "C",
  "2.5.4.9": "STREET",
  "0.9.2342.19200300.100.1.25": "DC",
  "0.9.2342.19200300.100.1.1": "UID",
};

const BACKSLASH = 0x5c;
const DIGIT_ZERO = 0x30;
const NUMBER_SIGN = 0x23;
const SPACE = 0x20;

/**
 * Code points that are turned into a string at once: as arguments they take that many stack slots, and one at a time
 * each step would leave a copy of the string as garbage.
 */
const RUN_LENGTH = 16;

/**
 * The RFC 4514 string of a DER-encoded Name (RFC 5280 section 4.1.2.4): last RDN first, the attributes of one RDN in
 * encoded order. An empty Name is "". Throws a FormatError where the bytes are no Name, a string's bytes do not fit its
 * type, or anything follows.
 */
export function distinguishedName(der: Uint8Array): string {
  const reader = new DERReader(der);
  const names = reader.enter(Tag.SEQUENCE);
  reader.finish();
  const parts: string[] = [];
  while (!names.done) {
    const attributes = names.enter(Tag.SET);
    let part = attributeString(attributes.enter(Tag.SEQUENCE));
    while (!attributes.done) part += `+${attributeString(attributes.enter(Tag.SEQUENCE))}`;
    parts.push(part);
  }
  return parts.reverse().join(",");
}

function attributeString(attribute: DERReader): string {
  const type = dottedOID(attribute.readOID());
  const name = shortNames[type];
  const tag = attribute.tag;
  const isString = name !== undefined && tag !== undefined && codeUnitBytes(tag) > 0;
  const value = isString ? escapedString(tag, attribute.read(tag)) : hexString(attribute.readElement());
  attribute.finish();
  return `${name ?? type}=${value}`;
}

/** Octets of a code unit in a string type; 0 for a type that has no string form. */
function codeUnitBytes(tag: number): number {
  switch (tag) {
    case Tag.UTF8_STRING:
    case Tag.PRINTABLE_STRING:
    case Tag.IA5_STRING:
    case Tag.TELETEX_STRING:
      return 1;
    case Tag.BMP_STRING:
      return 2;
    case Tag.UNIVERSAL_STRING:
      return 4;
    default:
      return 0;
  }
}

/** RFC 4514 section 2.4. */
function escapedString(tag: number, octets: Uint8Array): string {
  const unitBytes = codeUnitBytes(tag);
  if (octets.length % unitBytes !== 0) {
    throw new FormatError(`name: expected a multiple of ${unitBytes} octets in a string, got ${octets.length}`);
  }
  let text = "";
  const run: number[] = [];
  for (let at = 0; at < octets.length; ) {
    const isFirst = at === 0;
    const code = tag === Tag.UTF8_STRING ? utf8CodePoint(octets, at) : codePoint(tag, octets, at, unitBytes);
    at += tag === Tag.UTF8_STRING ? utf8Length(code) : unitBytes;
    if (code === 0) run.push(BACKSLASH, DIGIT_ZERO, DIGIT_ZERO);
    else if (
      isSpecial(code) ||
      (code === SPACE && (isFirst || at === octets.length)) ||
      (code === NUMBER_SIGN && isFirst)
    )
      run.push(BACKSLASH, code);
    else run.push(code);
    if (run.length >= RUN_LENGTH) {
      text += String.fromCodePoint(...run);
      run.length = 0;
    }
  }
  return text + String.fromCodePoint(...run);
}

/** One of `" + , ; < > \`. */
function isSpecial(code: number): boolean {
  switch (code) {
    case 0x22:
    case 0x2b:
    case 0x2c:
    case 0x3b:
    case 0x3c:
    case 0x3e:
    case BACKSLASH:
      return true;
    default:
      return false;
  }
}

function codePoint(tag: number, octets: Uint8Array, at: number, unitBytes: number): number {
  let code = 0;
  for (let count = unitBytes; count > 0; count--) code = code * 256 + octets[at++]!;
  // TeletexString is taken for Latin-1, which is what those who used it put there.
  if (code >= 0x80 && (tag === Tag.PRINTABLE_STRING || tag === Tag.IA5_STRING)) {
    throw new FormatError(`name: expected a 7-bit character, got ${code}`);
  }
  return checkedCodePoint(code);
}

/** Strict, as RFC 3629 section 3 demands: no overlong form, no surrogate, nothing above U+10FFFF. */
function utf8CodePoint(octets: Uint8Array, at: number): number {
  const lead = octets[at]!;
  if (lead < 0x80) return lead;
  const more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
  let good = lead >= 0xc2 && lead < 0xf8 && octets.length - at > more;
  let code = lead & (0x3f >> more);
  for (let index = 1; good && index <= more; index++) {
    const octet = octets[at + index]!;
    good = (octet & 0xc0) === 0x80;
    code = (code << 6) | (octet & 0x3f);
  }
  if (!good || utf8Length(code) !== more + 1)
    throw new FormatError(`name: expected UTF-8, got octet ${lead} out of place`);
  return checkedCodePoint(code);
}

function utf8Length(code: number): number {
  return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

function checkedCodePoint(code: number): number {
  if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
    throw new FormatError(`name: expected a Unicode scalar value, got ${code}`);
  }
  return code;
}

/** The whole BER value: `#` and two digits an octet. */
function hexString(element: Uint8Array): string {
  let text = "#";
  let run = "";
  for (let at = 0; at < element.length; at++) {
    const octet = element[at]!;
    run += octet < 16 ? `0${octet.toString(16)}` : octet.toString(16);
    if (run.length >= RUN_LENGTH) {
      text += run;
      run = "";
    }
  }
  return text + run;
}
