/**
 * The CoAP message format (RFC 7252 section 3): bytes to message and back.
 *
 *     const length = encode({ type: MessageType.CON, code: Code.GET, messageId, token, options, payload }, buffer);
 *     const { code, payload } = decode(buffer.subarray(0, length));
 */

import { FormatError, LimitError } from "../errors.js";
import { lengthUTF8, readUTF8, writeUTF8 } from "./utf8.js";

/** RFC 7252 section 3. */
export const MessageType = { CON: 0, NON: 1, ACK: 2, RST: 3 } as const;

/** Codes as they are on the wire: the class in the upper three bits (RFC 7252 section 12.1, RFC 7959 section 2.9). */
export const Code = {
  EMPTY: 0x00,
  GET: 0x01,
  POST: 0x02,
  PUT: 0x03,
  DELETE: 0x04,
  CREATED: 0x41,
  DELETED: 0x42,
  VALID: 0x43,
  CHANGED: 0x44,
  CONTENT: 0x45,
  CONTINUE: 0x5f,
  BAD_REQUEST: 0x80,
  UNAUTHORIZED: 0x81,
  BAD_OPTION: 0x82,
  FORBIDDEN: 0x83,
  NOT_FOUND: 0x84,
  METHOD_NOT_ALLOWED: 0x85,
  NOT_ACCEPTABLE: 0x86,
  REQUEST_ENTITY_INCOMPLETE: 0x88,
  PRECONDITION_FAILED: 0x8c,
  REQUEST_ENTITY_TOO_LARGE: 0x8d,
  UNSUPPORTED_CONTENT_FORMAT: 0x8f,
  INTERNAL_SERVER_ERROR: 0xa0,
  NOT_IMPLEMENTED: 0xa1,
  BAD_GATEWAY: 0xa2,
  SERVICE_UNAVAILABLE: 0xa3,
  GATEWAY_TIMEOUT: 0xa4,
  PROXYING_NOT_SUPPORTED: 0xa5,
} as const;

/** RFC 7252 section 12.2, RFC 7959 section 6. */
export const OptionNumber = {
  IF_MATCH: 1,
  URI_HOST: 3,
  ETAG: 4,
  IF_NONE_MATCH: 5,
  URI_PORT: 7,
  LOCATION_PATH: 8,
  URI_PATH: 11,
  CONTENT_FORMAT: 12,
  MAX_AGE: 14,
  URI_QUERY: 15,
  ACCEPT: 17,
  LOCATION_QUERY: 20,
  BLOCK2: 23,
  BLOCK1: 27,
  SIZE2: 28,
  PROXY_URI: 35,
  PROXY_SCHEME: 39,
  SIZE1: 60,
} as const;

/** Bytes of the fixed header, which are all of an Empty message. */
export const HEADER_BYTES = 4;
/** Longest token, in bytes. */
export const MAX_TOKEN_BYTES = 8;
/** Longest value of the string options Uri-Host, Uri-Path and Uri-Query, in bytes. */
export const MAX_STRING_BYTES = 255;

const NO_BYTES = new Uint8Array(0);

const VERSION = 1;
const PAYLOAD_MARKER = 0xff;
const MAX_OPTION_NUMBER = 0xffff;
const MAX_UINT = 0xffffffff;
const MAX_UINT_BYTES = 4;

// Option delta and option length share one coding: up to 12 in the nibble itself, else in extended bytes.
const EXTENDED_8 = 13;
const EXTENDED_16 = 14;
const RESERVED_NIBBLE = 15;
const EXTENDED_8_BASE = 13;
const EXTENDED_16_BASE = 269;
/** Delta and length of an option: a byte for both nibbles, and two extended bytes for each. */
const MAX_OPTION_HEADER_BYTES = 5;
const MAX_EXTENDED = EXTENDED_16_BASE + 0xffff;

/** The option formats of RFC 7252 section 3.2: opaque and empty are bytes, uint is a number (0 … 2³²-1). */
export type OptionValue = Uint8Array | string | number;

export interface Option<Value extends OptionValue = OptionValue> {
  number: number;
  value: Value;
}

/** A message to encode. `options` may be in any order; those of one number keep theirs. */
export interface Message {
  /** One of `MessageType`. */
  type: number;
  /** One of `Code`, or another value of 0 … 255. */
  code: number;
  /** 0 … 65535. */
  messageId: number;
  /** 0 … 8 bytes. */
  token: Uint8Array;
  options: readonly Option[];
  /** Empty where there is none. */
  payload: Uint8Array;
}

/** A decoded message: token, option values and payload are views of the bytes it came from. */
export interface DecodedMessage extends Message {
  options: Option<Uint8Array>[];
}

//   0                   1                   2                   3
//   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  |Ver| T |  TKL  |      Code     |          Message ID           |
//  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  |   Token (if any, TKL bytes) …   Options (if any) …            |
//  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//  |1 1 1 1 1 1 1 1|    Payload (if any) …
//  +-+-+-+-+-+-+-+-+-+-+-+-+-+-
//
//  An option: | delta nibble, length nibble | delta, 0 … 2 bytes | length, 0 … 2 bytes | value |

/**
 * Writes `message` to the start of `buffer` and returns its length in bytes. Throws LimitError where `buffer` is too
 * small, FormatError where a field is out of its range (RFC 7252 section 3). `buffer` is undefined after an error.
 */
export function encode(message: Message, buffer: Uint8Array): number {
  checkFields(message);
  const { token, payload } = message;
  let at = reserve(buffer, 0, HEADER_BYTES + token.length);
  writeHeader(buffer, message.type, message.code, message.messageId, token.length);
  buffer.set(token, HEADER_BYTES);
  at = encodeOptions(message.options, buffer, at);
  if (payload.length === 0) return at;
  const end = reserve(buffer, at, 1 + payload.length);
  buffer[at] = PAYLOAD_MARKER;
  buffer.set(payload, at + 1);
  return end;
}

/** Bytes that `encode` needs at most: those of the message, and four for each option more than some need. */
export function longestEncoding({ token, options, payload }: Message): number {
  let length = HEADER_BYTES + token.length + 1 + payload.length;
  for (let at = 0; at < options.length; at++) length += MAX_OPTION_HEADER_BYTES + valueLength(options[at].value);
  return length;
}

/** Writes an Empty message of 4 bytes: an acknowledgement or a reset of `messageId` (RFC 7252 section 4.1). */
export function encodeEmpty(type: number, messageId: number, buffer: Uint8Array): number {
  reserve(buffer, 0, HEADER_BYTES);
  writeHeader(buffer, type, Code.EMPTY, messageId, 0);
  return HEADER_BYTES;
}

/** The message in `bytes`, as views of them. Throws FormatError (RFC 7252 section 3). */
export function decode(bytes: Uint8Array): DecodedMessage {
  const reader = new MessageReader();
  reader.read(bytes, bytes.length);
  const { type, code, messageId, token, payload } = reader;
  const options: Option<Uint8Array>[] = [];
  while (reader.nextOption()) options.push({ number: reader.optionNumber, value: reader.optionValue });
  return { type, code, messageId, token, options, payload };
}

/** The text form of a code: `codeText(0x45)` is "2.05" (RFC 7252 section 5.2). */
export function codeText(code: number): string {
  const detail = code & 0x1f;
  return `${code >> 5}.${detail < 10 ? "0" : ""}${detail}`;
}

/** Whether `code` is a response: class 2, 4 or 5 (RFC 7252 section 12.1.2). */
export function isResponse(code: number): boolean {
  const codeClass = code >> 5;
  return codeClass === 2 || codeClass === 4 || codeClass === 5;
}

/** Whether `code` is a response that says that the request succeeded: class 2. */
export function isSuccess(code: number): boolean {
  return code >> 5 === 2;
}

/** The value of a uint option, leading zeros allowed. Throws FormatError above 4 bytes (RFC 7252 section 3.2). */
export function uintValue(value: Uint8Array): number {
  if (value.length > MAX_UINT_BYTES) {
    throw new FormatError(`expected a uint option of at most ${MAX_UINT_BYTES} bytes, found ${value.length}`);
  }
  let result = 0;
  for (let at = 0; at < value.length; at++) result = result * 256 + value[at];
  return result;
}

/** The value of a string option. Throws FormatError where it is not UTF-8 (RFC 7252 section 3.2). */
export function stringValue(value: Uint8Array): string {
  return readUTF8(value);
}

/**
 * Reads one message after another without making objects for their options: fields first, then option by option.
 * Everything is a view of the bytes given to `read`, and void at the next `read`.
 *
 *     reader.read(buffer, length);
 *     while (reader.nextOption()) if (reader.optionNumber === OptionNumber.BLOCK2) …
 */
export class MessageReader {
  /** The fields of the header; `type` and `messageId` also hold after a `read` that threw, if `hasHeader`. */
  type = 0;
  code = 0;
  messageId = 0;
  /** Whether the last `read` found a whole header of this version, so that the message can be rejected. */
  hasHeader = false;
  /** The number of the option that `nextOption` has come to. */
  optionNumber = 0;
  #bytes: Uint8Array = NO_BYTES;
  #end = 0;
  #tokenEnd = 0;
  #payload = 0;
  #at = 0;
  #optionStart = 0;

  get token(): Uint8Array {
    return this.#bytes.subarray(HEADER_BYTES, this.#tokenEnd);
  }

  get payload(): Uint8Array {
    return this.#bytes.subarray(this.#payload, this.#end);
  }

  /** Bytes of the payload, without making a view. */
  get payloadLength(): number {
    return this.#end - this.#payload;
  }

  get optionValue(): Uint8Array {
    return this.#bytes.subarray(this.#optionStart, this.#at);
  }

  /** Bytes of the option's value, without making a view. */
  get optionLength(): number {
    return this.#at - this.#optionStart;
  }

  /** Reads the message in the first `length` bytes of `bytes`, all of it. Throws FormatError (RFC 7252 section 3). */
  read(bytes: Uint8Array, length: number): void {
    this.#bytes = bytes;
    this.#end = length;
    this.readHeader();
    this.#payload = length;
    this.rewind();
    while (this.nextOption());
    this.rewind();
  }

  /** Whether the token is the first `length` bytes of `token`. */
  hasToken(token: Uint8Array, length: number): boolean {
    if (this.#tokenEnd - HEADER_BYTES !== length) return false;
    for (let at = 0; at < length; at++) if (this.#bytes[HEADER_BYTES + at] !== token[at]) return false;
    return true;
  }

  /** The token as a big-endian number; exact up to 6 bytes. */
  get tokenNumber(): number {
    let number = 0;
    for (let at = HEADER_BYTES; at < this.#tokenEnd; at++) number = number * 256 + this.#bytes[at];
    return number;
  }

  /** Goes to the next option; false where there is none. */
  nextOption(): boolean {
    if (this.#at === this.#end) return false;
    const first = this.#bytes[this.#at];
    if (first === PAYLOAD_MARKER) {
      this.#payload = this.#at + 1;
      if (this.#payload === this.#end) throw new FormatError("expected a payload after the marker, found none");
      return false;
    }
    this.#at++;
    this.optionNumber += this.extended(first >> 4);
    const length = this.extended(first & 0x0f);
    if (this.optionNumber > MAX_OPTION_NUMBER) {
      throw new FormatError(`expected option numbers up to ${MAX_OPTION_NUMBER}, found ${this.optionNumber}`);
    }
    this.#optionStart = this.#at;
    this.skip(length);
    return true;
  }

  private readHeader(): void {
    const bytes = this.#bytes;
    this.hasHeader = this.#end >= HEADER_BYTES && bytes[0] >> 6 === VERSION;
    if (!this.hasHeader) throw new FormatError("expected a CoAP message of version 1");
    this.type = (bytes[0] >> 4) & 3;
    this.code = bytes[1];
    this.messageId = (bytes[2] << 8) | bytes[3];
    const tokenLength = bytes[0] & 0x0f;
    if (tokenLength > MAX_TOKEN_BYTES) {
      throw new FormatError(`expected a token of at most ${MAX_TOKEN_BYTES} bytes, found length ${tokenLength}`);
    }
    this.#tokenEnd = HEADER_BYTES + tokenLength;
    if (this.#tokenEnd > this.#end) throw cutShort();
    if (this.code === Code.EMPTY && this.#end !== HEADER_BYTES) {
      throw new FormatError(`expected an Empty message of ${HEADER_BYTES} bytes, found ${this.#end}`);
    }
  }

  private rewind(): void {
    this.#at = this.#tokenEnd;
    this.optionNumber = 0;
  }

  private extended(nibble: number): number {
    if (nibble < EXTENDED_8) return nibble;
    if (nibble === RESERVED_NIBBLE) throw new FormatError("expected an option delta or length, found the reserved 15");
    const at = this.#at;
    this.skip(nibble === EXTENDED_8 ? 1 : 2);
    if (nibble === EXTENDED_8) return this.#bytes[at] + EXTENDED_8_BASE;
    return ((this.#bytes[at] << 8) | this.#bytes[at + 1]) + EXTENDED_16_BASE;
  }

  private skip(length: number): void {
    if (this.#at + length > this.#end) throw cutShort();
    this.#at += length;
  }
}

function cutShort(): FormatError {
  return new FormatError("expected more bytes, the CoAP message ends within its token or an option");
}

function checkFields({ type, code, messageId, token, options, payload }: Message): void {
  checkRange("type", type, MessageType.RST);
  checkRange("code", code, 0xff);
  checkRange("message ID", messageId, 0xffff);
  checkRange("token length", token.length, MAX_TOKEN_BYTES);
  if (code === Code.EMPTY && token.length + options.length + payload.length > 0) {
    throw new FormatError("expected an Empty message without token, options and payload");
  }
}

function checkRange(field: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new FormatError(`expected a ${field} of 0 to ${max}, got ${value}`);
  }
}

function writeHeader(buffer: Uint8Array, type: number, code: number, messageId: number, tokenLength: number): void {
  buffer[0] = (VERSION << 6) | (type << 4) | tokenLength;
  buffer[1] = code;
  buffer[2] = messageId >> 8;
  buffer[3] = messageId & 0xff;
}

/** The end of `length` bytes at `at`, if `buffer` has them. */
function reserve(buffer: Uint8Array, at: number, length: number): number {
  if (at + length > buffer.length) {
    throw new LimitError(`expected a message of at most ${buffer.length} bytes, this one needs more`);
  }
  return at + length;
}

function encodeOptions(options: readonly Option[], buffer: Uint8Array, offset: number): number {
  let at = offset;
  let previous = 0;
  // The delta coding wants ascending numbers: looking for the next one costs less memory than a sorted copy.
  for (let number = nextNumber(options, -1); number <= MAX_OPTION_NUMBER; number = nextNumber(options, number)) {
    for (let index = 0; index < options.length; index++) {
      const option = options[index];
      if (option.number !== number) continue;
      at = encodeOption(number - previous, option.value, buffer, at);
      previous = number;
    }
  }
  return at;
}

/** The smallest option number above `previous`, or one that is too large for an option. */
function nextNumber(options: readonly Option[], previous: number): number {
  let next = MAX_OPTION_NUMBER + 1;
  for (let at = 0; at < options.length; at++) {
    const { number } = options[at];
    checkRange("option number", number, MAX_OPTION_NUMBER);
    if (number > previous && number < next) next = number;
  }
  return next;
}

function encodeOption(delta: number, value: OptionValue, buffer: Uint8Array, offset: number): number {
  const length = valueLength(value);
  if (length > MAX_EXTENDED) throw new LimitError(`expected an option of at most ${MAX_EXTENDED} bytes, got ${length}`);
  const deltaEnd = offset + 1 + extendedBytes(delta);
  const at = deltaEnd + extendedBytes(length);
  const end = reserve(buffer, offset, at - offset + length);
  buffer[offset] = (nibbleOf(delta) << 4) | nibbleOf(length);
  writeExtended(delta, buffer, offset + 1);
  writeExtended(length, buffer, deltaEnd);
  if (typeof value === "string") writeUTF8(value, buffer, at);
  else if (typeof value === "number") writeUint(value, buffer, at, length);
  else buffer.set(value, at);
  return end;
}

function valueLength(value: OptionValue): number {
  if (typeof value === "string") return lengthUTF8(value);
  if (typeof value !== "number") return value.length;
  checkRange("uint option", value, MAX_UINT);
  return value === 0 ? 0 : value < 0x100 ? 1 : value < 0x10000 ? 2 : value < 0x1000000 ? 3 : 4;
}

function nibbleOf(value: number): number {
  return value < EXTENDED_8_BASE ? value : value < EXTENDED_16_BASE ? EXTENDED_8 : EXTENDED_16;
}

function extendedBytes(value: number): number {
  return value < EXTENDED_8_BASE ? 0 : value < EXTENDED_16_BASE ? 1 : 2;
}

function writeExtended(value: number, buffer: Uint8Array, at: number): void {
  if (value >= EXTENDED_16_BASE) writeUint(value - EXTENDED_16_BASE, buffer, at, 2);
  else if (value >= EXTENDED_8_BASE) buffer[at] = value - EXTENDED_8_BASE;
}

function writeUint(value: number, buffer: Uint8Array, at: number, length: number): void {
  for (let shift = 8 * (length - 1), next = at; shift >= 0; shift -= 8) buffer[next++] = value >>> shift;
}
