/**
 * What the options of a response say to a client (RFC 7252 section 5.10, RFC 7959 sections 2.1 and 4): one object for
 * all responses of a connection.
 *
 *     response.read(reader, false);
 *     if (response.block2?.more) askForTheNextBlock();
 */

import { LimitError } from "../errors.js";
import { type Block, decodeBlock } from "./block.js";
import { CoAPError } from "./error.js";
import { Code, codeText, isSuccess, type MessageReader, OptionNumber, uintValue } from "./message.js";

/** Longest ETag, in bytes. */
export const MAX_ETAG_BYTES = 8;

const MAX_CONTENT_FORMAT_BYTES = 2;
const MAX_UINT_BYTES = 4;
const NO_BYTES = new Uint8Array(0);

/** A response as read last. `payload` and `etag` are views of the receive buffer: void once the next datagram comes. */
export class Response {
  code: number = Code.EMPTY;
  contentFormat: number | undefined;
  /** Seconds. */
  maxAge: number | undefined;
  /** Bytes of the whole body, as the server estimates them. */
  size2: number | undefined;
  block1: Block | undefined;
  block2: Block | undefined;
  etag: Uint8Array | undefined;
  payload: Uint8Array = NO_BYTES;

  /**
   * Takes the options from `reader`, which stands before the first. Throws CoAPError on a critical option that this
   * client does not know (RFC 7252 section 5.4.1), FormatError on a reserved block size.
   */
  read(reader: MessageReader): void {
    this.clear();
    this.code = reader.code;
    while (reader.nextOption()) this.readOption(reader);
    this.payload = reader.payload;
  }

  /**
   * As `read`, for a message that the receive buffer cut. Throws LimitError as well, except for what can do without
   * its end: the diagnostic payload of an error (RFC 7252 section 5.5.2).
   */
  readCut(reader: MessageReader): void {
    this.read(reader);
    if (isSuccess(this.code) || this.contentFormat !== undefined) {
      throw new LimitError(
        `expected a ${codeText(this.code)} response in blocks as asked for, got one larger than the receive buffer`,
      );
    }
  }

  private clear(): void {
    this.contentFormat = undefined;
    this.maxAge = undefined;
    this.size2 = undefined;
    this.block1 = undefined;
    this.block2 = undefined;
    this.etag = undefined;
  }

  // Of an option that may not be repeated, the first counts; a value of a length out of its range counts as an unknown
  // option, and so does the repetition of a critical one (RFC 7252 sections 5.4.3 and 5.4.5).
  private readOption(reader: MessageReader): void {
    switch (reader.optionNumber) {
      case OptionNumber.CONTENT_FORMAT:
        this.contentFormat ??= uintUpTo(MAX_CONTENT_FORMAT_BYTES, reader);
        break;
      case OptionNumber.MAX_AGE:
        this.maxAge ??= uintUpTo(MAX_UINT_BYTES, reader);
        break;
      case OptionNumber.SIZE2:
        this.size2 ??= uintUpTo(MAX_UINT_BYTES, reader);
        break;
      case OptionNumber.ETAG:
        if (reader.optionLength > 0 && reader.optionLength <= MAX_ETAG_BYTES) this.etag ??= reader.optionValue;
        break;
      case OptionNumber.BLOCK1:
        if (this.block1) throw unsupported(reader);
        this.block1 = decodeBlock(reader.optionValue);
        break;
      case OptionNumber.BLOCK2:
        if (this.block2) throw unsupported(reader);
        this.block2 = decodeBlock(reader.optionValue);
        break;
      default:
        if (isCritical(reader.optionNumber)) throw unsupported(reader);
    }
  }
}

function uintUpTo(maxBytes: number, reader: MessageReader): number | undefined {
  return reader.optionLength <= maxBytes ? uintValue(reader.optionValue) : undefined;
}

/** Odd numbers are critical (RFC 7252 section 5.4.6). */
function isCritical(optionNumber: number): boolean {
  return (optionNumber & 1) === 1;
}

function unsupported(reader: MessageReader): CoAPError {
  return new CoAPError(
    `expected a response that this client can process, got ${codeText(reader.code)} with the critical option ` +
      `${reader.optionNumber}, unknown or repeated`,
  );
}
