/**
 * A reader of DER (X.690 section 8 to 11, as RFC 5280 and RFC 5652 use it): walks over one byte array and hands out
 * views, never copies.
 *
 *     const sequence = new DERReader(bytes).enter(Tag.SEQUENCE);
 */
import { FormatError, LimitError } from "../errors.js";

/** Identifier octets of the universal types that certificates are made of. */
export const Tag = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  OBJECT_IDENTIFIER: 0x06,
  UTF8_STRING: 0x0c,
  PRINTABLE_STRING: 0x13,
  TELETEX_STRING: 0x14,
  IA5_STRING: 0x16,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  UNIVERSAL_STRING: 0x1c,
  BMP_STRING: 0x1e,
  SEQUENCE: 0x30,
  SET: 0x31,
} as const;

/** Content octets allowed in an OBJECT IDENTIFIER: the longest in use, a UUID under 2.25, takes 20. */
const OID_BYTES_MAX = 128;

/** An arc that is larger may not fit a Number after the next seven bits. */
const NUMBER_ARC_MAX = 2 ** 45;

const SECONDS_IN_400_YEARS = 146097 * 86400;

/**
 * A cursor over the elements of one level. What it keeps to: nothing is read beyond the end, every call steps over one
 * element or throws, and nothing recurses: the depth is that of the caller's `enter` calls.
 *
 *      ┌─────┬────────┬─────────┬─────┬────────┬─────────┬ ─ ─
 *      │ tag │ length │ content │ tag │ length │ content │
 *      └─────┴────────┴─────────┴─────┴────────┴─────────┴ ─ ─
 *        1     1 to 5             ▲ position               ▲ end
 *
 * Every method throws a FormatError where the bytes are not DER or not the type asked for. Offsets in messages count
 * from the start of the outermost byte array.
 */
export class DERReader {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  #position: number;
  #content: number;

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#position = start;
    this.#content = start;
    this.#end = end;
  }

  /** Whether no element is left. */
  get done(): boolean {
    return this.#position >= this.#end;
  }

  /** The next element's identifier octet; undefined where none is left. */
  get tag(): number | undefined {
    return this.done ? undefined : this.#bytes[this.#position];
  }

  /** Throws a FormatError where an element is left. */
  finish(): void {
    if (!this.done) throw new FormatError(`DER: expected the end at offset ${this.#position}, got ${hex(this.tag!)}`);
  }

  /** The next element with tag and length, as a view; of any type where no tag is given. */
  readElement(tag?: number): Uint8Array {
    const start = this.open(tag);
    return this.#bytes.subarray(start, this.#position);
  }

  /** The content octets of the next element, as a view. */
  read(tag: number): Uint8Array {
    this.open(tag);
    return this.#bytes.subarray(this.#content, this.#position);
  }

  /** A reader of what is inside the next element. */
  enter(tag: number): DERReader {
    this.open(tag);
    return new DERReader(this.#bytes, this.#content, this.#position);
  }

  /** Steps over the next element. */
  skip(tag?: number): void {
    this.open(tag);
  }

  /** BOOLEAN. An encoded FALSE is accepted where it is the default: DER forbids it, certificates in use have it. */
  readBoolean(): boolean {
    const content = this.read(Tag.BOOLEAN);
    if (content.length !== 1 || (content[0] !== 0x00 && content[0] !== 0xff)) {
      throw new FormatError(`DER: expected a BOOLEAN of 00 or ff before offset ${this.#position}`);
    }
    return content[0] !== 0;
  }

  /** INTEGER: its content octets, two's complement, big-endian, at least 1. */
  readInteger(): Uint8Array {
    const content = this.read(Tag.INTEGER);
    const [first, second] = content;
    if (
      first === undefined ||
      (second !== undefined && ((first === 0x00 && second < 0x80) || (first === 0xff && second >= 0x80)))
    ) {
      throw new FormatError(`DER: expected the shortest form of an INTEGER before offset ${this.#position}`);
    }
    return content;
  }

  /** INTEGER that is not negative: big-endian, without the sign octet; 0 is one octet. */
  readUnsignedInteger(): Uint8Array {
    const content = this.readInteger();
    if (content[0]! >= 0x80) {
      throw new FormatError(
        `DER: expected an INTEGER of 0 or more before offset ${this.#position}, got a negative one`,
      );
    }
    return withoutSignOctet(content);
  }

  /** OBJECT IDENTIFIER: its content octets. Throws a LimitError above 128. */
  readOID(): Uint8Array {
    const content = this.read(Tag.OBJECT_IDENTIFIER);
    checkOID(content);
    return content;
  }

  /** BIT STRING of whole octets: those octets. */
  readBitString(): Uint8Array {
    const content = this.read(Tag.BIT_STRING);
    if (content[0] !== 0) {
      throw new FormatError(`DER: expected a BIT STRING without unused bits before offset ${this.#position}`);
    }
    return content.subarray(1);
  }

  /**
   * UTCTime or GeneralizedTime in the forms of RFC 5280 section 4.1.2.5 (YYMMDDHHMMSSZ, YYYYMMDDHHMMSSZ): seconds since
   * 1970-01-01T00:00:00Z, negative before. Years 50 to 99 of a UTCTime are of the 20th century.
   */
  readTime(): number {
    const generalized = this.tag === Tag.GENERALIZED_TIME;
    const content = this.read(generalized ? Tag.GENERALIZED_TIME : Tag.UTC_TIME);
    const yearDigits = generalized ? 4 : 2;
    let good = content.length === yearDigits + 11 && content[yearDigits + 10] === 0x5a;
    for (let at = 0; good && at < yearDigits + 10; at++) good = content[at]! >= 0x30 && content[at]! <= 0x39;
    if (good) {
      let year = twoDigits(content, 0);
      if (generalized) year = year * 100 + twoDigits(content, 2);
      else year += year < 50 ? 2000 : 1900;
      const month = twoDigits(content, yearDigits);
      const day = twoDigits(content, yearDigits + 2);
      const hour = twoDigits(content, yearDigits + 4);
      const minute = twoDigits(content, yearDigits + 6);
      const second = twoDigits(content, yearDigits + 8);
      if (
        month >= 1 &&
        month <= 12 &&
        day >= 1 &&
        day <= daysInMonth(year, month) &&
        hour < 24 &&
        minute < 60 &&
        second < 60
      ) {
        // Date.UTC takes years below 100 for 1900 and up; 400 years later the calendar is the same.
        return Date.UTC(year + 400, month - 1, day, hour, minute, second) / 1000 - SECONDS_IN_400_YEARS;
      }
    }
    throw new FormatError(`DER: expected a time as in RFC 5280, section 4.1.2.5, before offset ${this.#position}`);
  }

  /** Checks tag and length of the next element and steps over it. Returns its start; its content is at `#content`. */
  private open(tag: number | undefined): number {
    const bytes = this.#bytes;
    const start = this.#position;
    // Most elements: the tag asked for, which needs no more checks, and a length of one octet.
    const content = start + 2;
    const length = bytes[start + 1]!;
    if (bytes[start] !== tag || length >= 0x80 || !(content + length <= this.#end)) return this.openOther(tag);
    this.#content = content;
    this.#position = content + length;
    return start;
  }

  private openOther(tag: number | undefined): number {
    const bytes = this.#bytes;
    const start = this.#position;
    const end = this.#end;
    let at = start;
    if (at >= end) throw new FormatError(`DER: expected ${describe(tag)} at offset ${start}, got the end`);
    const found = bytes[at++]!;
    if (tag !== undefined && found !== tag) {
      throw new FormatError(`DER: expected ${describe(tag)} at offset ${start}, got ${hex(found)}`);
    }
    if ((found & 0x1f) === 0x1f || (found & 0xdf) === 0) {
      throw new FormatError(`DER: expected a tag number of 1 to 30 at offset ${start}, got ${hex(found)}`);
    }
    if (at >= end) throw new FormatError(`DER: expected a length at offset ${at}, got the end`);
    let length = bytes[at++]!;
    if (length >= 0x80) {
      const octets = length & 0x7f;
      if (octets === 0 || octets > 4) {
        throw new FormatError(
          `DER: expected a definite length of 1 to 4 octets at offset ${at - 1}, got ${hex(length)}`,
        );
      }
      if (octets > end - at)
        throw new FormatError(`DER: expected ${octets} length octets at offset ${at}, got the end`);
      length = 0;
      for (let count = octets; count > 0; count--) length = length * 256 + bytes[at++]!;
      if (length < 0x80 || length < 256 ** (octets - 1)) {
        throw new FormatError(`DER: expected the shortest form of length ${length} before offset ${at}`);
      }
    }
    if (length > end - at) throw new FormatError(`DER: expected ${length} octets at offset ${at}, got ${end - at}`);
    this.#content = at;
    this.#position = at + length;
    return start;
  }
}

/** An INTEGER's content octets without the 00 that only says "not negative". */
export function withoutSignOctet(integer: Uint8Array): Uint8Array {
  return integer.length > 1 && integer[0] === 0 ? integer.subarray(1) : integer;
}

/** The dotted form of an OBJECT IDENTIFIER's content octets. Throws a FormatError, or a LimitError above 128 octets. */
export function dottedOID(oid: Uint8Array): string {
  checkOID(oid);
  let text = "";
  let arc: number | bigint = 0;
  for (let at = 0; at < oid.length; at++) {
    const octet = oid[at]!;
    if (typeof arc === "number" && arc > NUMBER_ARC_MAX) arc = BigInt(arc);
    arc = typeof arc === "number" ? arc * 128 + (octet & 0x7f) : arc * 128n + BigInt(octet & 0x7f);
    if (octet >= 0x80) continue;
    if (text !== "") text += `.${arc}`;
    // The first two arcs share a subidentifier (X.690 section 8.19.4).
    else if (arc < 40) text = `0.${arc}`;
    else if (arc < 80) text = `1.${Number(arc) - 40}`;
    else text = `2.${typeof arc === "number" ? arc - 80 : arc - 80n}`;
    arc = 0;
  }
  return text;
}

function checkOID(oid: Uint8Array): void {
  const length = oid.length;
  if (length > OID_BYTES_MAX)
    throw new LimitError(`DER: expected an OID of at most ${OID_BYTES_MAX} octets, got ${length}`);
  // Every subidentifier ends with an octet below 80, and none starts with 80.
  let previous = 0;
  for (let at = 0; at < length; at++) {
    const octet = oid[at]!;
    if (octet === 0x80 && previous < 0x80)
      throw new FormatError("DER: expected an OID in shortest form, got a leading 80");
    previous = octet;
  }
  if (length === 0 || previous >= 0x80) throw new FormatError("DER: expected a whole OID, got a part of one");
}

function twoDigits(content: Uint8Array, at: number): number {
  return (content[at]! - 0x30) * 10 + content[at + 1]! - 0x30;
}

function daysInMonth(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

function hex(octet: number): string {
  return octet < 16 ? `0${octet.toString(16)}` : octet.toString(16);
}

function describe(tag: number | undefined): string {
  return tag === undefined ? "an element" : `tag ${hex(tag)}`;
}
