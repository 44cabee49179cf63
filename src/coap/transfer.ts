/**
 * One request and its response, block by block where they are large (RFC 7959): which message comes next, and what to
 * make of the answer to it. Does no I/O.
 *
 *     transfer.begin(token);
 *     send(transfer.nextMessage());
 *     if (transfer.receive(response) === "done") use(transfer.result);
 */

import { FormatError, LimitError } from "../errors.js";
import { type Block, type BlockSize, encodeBlock, MAX_BLOCK_SIZE } from "./block.js";
import { CoAPError } from "./error.js";
import {
  Code,
  codeText,
  isSuccess,
  MAX_STRING_BYTES,
  type Message,
  MessageType,
  type Option,
  OptionNumber,
} from "./message.js";
import { MAX_ETAG_BYTES, type Response } from "./response.js";
import { lengthUTF8 } from "./utf8.js";

/** A request body that is made when the request begins, and anew where its connection was: it may depend on that. */
export interface PayloadSource {
  /** The body for the connection that is open now; read until the request ends, or begins again. */
  payload(): Uint8Array;
}

export interface CoAPRequest {
  method: "GET" | "POST" | "PUT" | "DELETE";
  /** Absolute, not percent-encoded: "/.well-known/est/crts". Segments of up to 255 bytes in UTF-8. */
  path: string;
  /** Uri-Query, one argument each, not percent-encoded: ["rt=ace.est*"]. Up to 255 bytes each. */
  query?: readonly string[];
  /** Only where it differs from the address that the socket is tied to (RFC 7252 section 5.10.1). */
  uriHost?: string;
  uriPort?: number;
  /** Content-Format numbers of RFC 7252 section 12.3, 0 … 65535. */
  accept?: number;
  contentFormat?: number;
  /** The body; read until the request ends, so it must not change before. */
  payload?: Uint8Array | PayloadSource;
  /** Bytes of the largest response body, in place of the client's limit. */
  maxBody?: number;
}

export interface CoAPResponse {
  /** `codeText(code)` gives the text form. */
  code: number;
  contentFormat?: number;
  /** Seconds; absent means 60 (RFC 7252 section 5.10.5). */
  maxAge?: number;
  /** The body, the caller's own. Of an error, the first block. */
  payload: Uint8Array;
  /** Message exchanges that it took. */
  exchanges: number;
  /**
   * The request was sent twice: over a connection kept from before, which stayed silent, and over a new one. The server
   * may have acted on both; that nothing came back does not tell.
   */
  repeated?: boolean;
}

/** What follows a response: another message, all of it again under a new token, or nothing. */
export type Step = "next" | "restart" | "done";

const METHODS = { GET: Code.GET, POST: Code.POST, PUT: Code.PUT, DELETE: Code.DELETE } as const;
const NO_BYTES = new Uint8Array(0);

export class Transfer {
  /** "GET /.well-known/est/crts", for errors. */
  readonly description: string;
  readonly result: CoAPResponse = { code: Code.EMPTY, payload: NO_BYTES, exchanges: 0 };
  readonly #blockSize: BlockSize;
  readonly #maxBody: number;
  readonly #message: Message;

  // The options of every message come first, then those of one message.
  readonly #options: Option[];
  readonly #commonOptions: number;
  readonly #block1: Option = { number: OptionNumber.BLOCK1, value: 0 };
  readonly #block2: Option = { number: OptionNumber.BLOCK2, value: 0 };
  readonly #size1: Option = { number: OptionNumber.SIZE1, value: 0 };

  // The request body: where the block sent last begins.
  readonly #source: Uint8Array | PayloadSource;
  #payload: Uint8Array = NO_BYTES;
  #sendSize: BlockSize;
  #blockwise: boolean;
  #offset = 0;
  #wasIncomplete = false;
  #wasTooLarge = false;

  // The response body: its first `#received` bytes are there. No block size until its first block has come.
  #receiveSize: BlockSize | undefined;
  #body: Uint8Array = NO_BYTES;
  #received = 0;
  readonly #etag = new Uint8Array(MAX_ETAG_BYTES);
  #etagLength = 0;

  /** Throws FormatError and LimitError where `request` cannot be sent. */
  constructor(request: CoAPRequest, blockSize: BlockSize, maxBody: number) {
    this.description = `${request.method} ${request.path}`;
    this.#blockSize = blockSize;
    this.#maxBody = maxBody;
    this.#options = requestOptions(request);
    this.#commonOptions = this.#options.length;
    this.#source = request.payload ?? NO_BYTES;
    this.#sendSize = blockSize;
    this.#blockwise = false;
    this.#message = {
      type: MessageType.CON,
      code: METHODS[request.method],
      messageId: 0,
      token: NO_BYTES,
      options: this.#options,
      payload: NO_BYTES,
    };
  }

  /**
   * Starts, or starts again, under `token`, which holds for all blocks: strict servers find their state by it. Throws
   * what the source of the payload throws.
   */
  begin(token: Uint8Array): void {
    this.#message.token = token;
    this.#offset = 0;
    this.#payload = this.#source instanceof Uint8Array ? this.#source : this.#source.payload();
    this.#blockwise ||= this.#payload.length > this.#sendSize;
  }

  /** The message to send now; valid until the next call. Throws LimitError where the body has too many blocks. */
  nextMessage(): Message {
    this.#options.length = this.#commonOptions;
    this.#message.payload = NO_BYTES;
    if (this.#receiveSize) this.askForBlock(this.#receiveSize);
    else this.sendBody();
    return this.#message;
  }

  /**
   * Takes the response to the message sent last. Throws CoAPError where it breaks the rules of block-wise transfer,
   * LimitError where the body is too large.
   */
  receive(response: Response): Step {
    this.result.exchanges++;
    if (this.#receiveSize) return this.receiveNext(response, this.#receiveSize);
    return this.#blockwise ? this.receiveForBlock(response) : this.receiveForBody(response);
  }

  /**
   * Whether `response` answers an earlier message of this transfer than the one sent last. Asked of responses that are
   * matched by the token alone, which is the same for all messages.
   */
  isLate({ code, block1, block2 }: Response): boolean {
    if (!isSuccess(code)) return false;
    if (this.#receiveSize) return block2 ? block2.number * block2.size < this.#received : code === Code.CONTINUE;
    // Sizes only become smaller, so numbers only become larger.
    return this.#blockwise && block1 !== undefined && block1.number < this.currentBlock().number;
  }

  // RFC 7959 section 2.7: no payload and no Block1.
  private askForBlock(size: BlockSize): void {
    this.addOption(this.#block2, encodeBlock({ number: this.#received / size, more: false, size }));
  }

  private sendBody(): void {
    if (this.#blockwise) {
      const block = this.currentBlock();
      this.addOption(this.#block1, encodeBlock(block));
      if (block.number === 0) this.addOption(this.#size1, this.#payload.length);
    }
    this.#message.payload = this.#blockwise ? this.#payload.subarray(this.#offset, this.blockEnd()) : this.#payload;
    // Every message that the first block of the response may answer asks for its size: RFC 9148 appendix B.2 wants it
    // in the first one, figure 11 of RFC 7959 shows it in the last.
    if (this.#blockSize < MAX_BLOCK_SIZE) {
      this.addOption(this.#block2, encodeBlock({ number: 0, more: false, size: this.#blockSize }));
    }
  }

  private addOption(option: Option, value: number): void {
    option.value = value;
    this.#options.push(option);
  }

  private currentBlock(): Block {
    const size = this.#sendSize;
    return { number: this.#offset / size, more: this.blockEnd() < this.#payload.length, size };
  }

  private blockEnd(): number {
    return Math.min(this.#offset + this.#sendSize, this.#payload.length);
  }

  /** The response to a request body that went out in one message. */
  private receiveForBody(response: Response): Step {
    if (response.code === Code.CONTINUE) throw violation("a final response to a request without Block1", response);
    if (this.isTooLarge(response)) return this.restartSmaller(response.block1!.size);
    return this.receiveFirst(response);
  }

  /** The response to one block of the request body (RFC 7959 section 2.5). */
  private receiveForBlock(response: Response): Step {
    if (response.code === Code.REQUEST_ENTITY_INCOMPLETE) return this.restartIncomplete();
    if (this.isTooLarge(response)) return this.restartSmaller(response.block1!.size);
    if (!isSuccess(response.code)) return this.receiveFirst(response);
    const sent = this.currentBlock();
    this.checkAcknowledgedBlock(response, sent);
    if (sent.more && goesOn(response)) return this.sendNext(response.block1);
    if (response.code === Code.CONTINUE) throw violation("a final response to the last block", response);
    return this.receiveFirst(response);
  }

  private checkAcknowledgedBlock(response: Response, sent: Block): void {
    const { block1 } = response;
    if (!block1) return;
    if (block1.number !== sent.number) throw violation(`Block1 with number ${sent.number}`, response);
    if (block1.size > sent.size) throw violation(`Block1 with a size of at most ${sent.size}`, response);
  }

  // Both sizes are powers of two, so what was sent is a whole number of the smaller blocks.
  private sendNext(block1: Block | undefined): Step {
    this.#offset = this.blockEnd();
    if (block1) this.#sendSize = block1.size;
    return "next";
  }

  private restartIncomplete(): Step {
    if (this.#wasIncomplete) {
      throw new CoAPError("expected the server to take all blocks, got 4.08 Request Entity Incomplete twice");
    }
    this.#wasIncomplete = true;
    return "restart";
  }

  private isTooLarge({ code, block1 }: Response): boolean {
    if (code !== Code.REQUEST_ENTITY_TOO_LARGE || !block1 || this.#wasTooLarge) return false;
    return block1.size < this.#sendSize && block1.size < this.#payload.length;
  }

  private restartSmaller(size: BlockSize): Step {
    this.#wasTooLarge = true;
    this.#blockwise = true;
    this.#sendSize = size;
    return "restart";
  }

  /** The first or only block of the response body. */
  private receiveFirst(response: Response): Step {
    const { code, block2 } = response;
    this.result.code = code;
    this.result.contentFormat = response.contentFormat;
    this.takeMaxAge(response);
    // An error's diagnostic payload is not worth further requests.
    if (!isSuccess(code)) return this.finish(response.payload.slice());
    this.checkSize(response);
    if (block2 && block2.number !== 0) throw violation("Block2 with number 0", response);
    if (block2 && block2.size > this.#blockSize) {
      throw violation(`Block2 with a size of at most ${this.#blockSize}`, response);
    }
    if (!block2?.more) return this.finish(response.payload.slice());
    this.takeEtag(response);
    return this.takeBlock(response, block2);
  }

  /** A further block of the response body (RFC 7959 section 2.4). */
  private receiveNext(response: Response, size: BlockSize): Step {
    const { code, block2 } = response;
    if (!isSuccess(code)) return this.receiveFirst(response);
    if (code === Code.CONTINUE || !block2) throw violation("a block of the response body", response);
    if (block2.size > size) throw violation(`Block2 with a size of at most ${size}`, response);
    if (block2.number * block2.size !== this.#received) {
      throw violation(`Block2 with number ${this.#received / block2.size}`, response);
    }
    this.checkSameBody(response);
    this.checkSize(response);
    this.takeMaxAge(response);
    return this.takeBlock(response, block2);
  }

  private checkSameBody(response: Response): void {
    const { contentFormat } = response;
    if (contentFormat !== undefined && contentFormat !== this.result.contentFormat) {
      throw violation(`Content-Format ${this.result.contentFormat} as in the first block`, response);
    }
    if (!this.isSameEtag(response)) throw violation("the same ETag as in the blocks before: ask again", response);
  }

  /** Before memory is taken: what has come, what the server says will come, and at least a byte more where M is set. */
  private checkSize({ payload, block2, size2 }: Response): void {
    const least = this.#received + payload.length + (block2?.more ? 1 : 0);
    const total = Math.max(least, size2 ?? 0);
    if (total > this.#maxBody) {
      throw new LimitError(`expected a response body of at most ${this.#maxBody} bytes, got one of ${total} or more`);
    }
  }

  private takeBlock(response: Response, { more, size }: Block): Step {
    const { payload } = response;
    if (more && payload.length !== size) throw violation(`a payload of ${size} bytes`, response);
    this.reserve(this.#received + payload.length, response.size2);
    this.#body.set(payload, this.#received);
    this.#received += payload.length;
    this.#receiveSize = size;
    return more ? "next" : this.finish(this.#body.subarray(0, this.#received));
  }

  /** Makes room for `length` bytes of body and, where `size2` is given, for the rest at once. */
  private reserve(length: number, size2: number | undefined): void {
    if (length <= this.#body.length) return;
    const wanted = Math.max(length, size2 ?? 2 * length);
    const body = new Uint8Array(Math.min(wanted, this.#maxBody));
    body.set(this.#body.subarray(0, this.#received));
    this.#body = body;
  }

  private takeMaxAge({ maxAge }: Response): void {
    if (maxAge !== undefined) this.result.maxAge = maxAge;
  }

  private takeEtag({ etag }: Response): void {
    this.#etagLength = etag?.length ?? 0;
    if (etag) this.#etag.set(etag);
  }

  private isSameEtag({ etag }: Response): boolean {
    if (!etag) return true;
    if (this.#etagLength !== etag.length) return false;
    for (let at = 0; at < etag.length; at++) if (etag[at] !== this.#etag[at]) return false;
    return true;
  }

  private finish(payload: Uint8Array): Step {
    this.result.payload = payload;
    return "done";
  }
}

/**
 * Whether a success in the middle of a request body asks for the next block: 2.31, or the answer of a server that acts
 * on each block by itself (RFC 7959 section 2.3 and figure 8).
 */
function goesOn({ code, block1, block2, payload }: Response): boolean {
  return code === Code.CONTINUE || (block1 !== undefined && !block2 && payload.length === 0);
}

function violation(expected: string, { code, block1, block2, payload }: Response): CoAPError {
  return new CoAPError(
    `expected ${expected}, got ${codeText(code)}${blockText(1, block1)}${blockText(2, block2)} with ` +
      `${payload.length} bytes of payload`,
  );
}

/** As RFC 7959 section 3 writes them: 2:3/1/64 is Block2, number 3, more to come, 64 bytes. */
function blockText(option: number, block: Block | undefined): string {
  return block ? ` ${option}:${block.number}/${block.more ? 1 : 0}/${block.size}` : "";
}

function requestOptions(request: CoAPRequest): Option[] {
  const { path, query, uriHost, uriPort, accept, contentFormat } = request;
  const options: Option[] = [];
  if (uriHost !== undefined) addString(options, OptionNumber.URI_HOST, uriHost);
  if (uriPort !== undefined) addUint16(options, OptionNumber.URI_PORT, uriPort);
  addPath(options, path);
  if (contentFormat !== undefined) addUint16(options, OptionNumber.CONTENT_FORMAT, contentFormat);
  if (query) for (let at = 0; at < query.length; at++) addString(options, OptionNumber.URI_QUERY, query[at]);
  if (accept !== undefined) addUint16(options, OptionNumber.ACCEPT, accept);
  return options;
}

// RFC 7252 section 6.4: one option for each segment, none for "/" alone.
function addPath(options: Option[], path: string): void {
  if (!path.startsWith("/")) throw new FormatError(`expected a path that begins with "/", got "${path}"`);
  if (path === "/") return;
  const segments = path.slice(1).split("/");
  for (let at = 0; at < segments.length; at++) {
    const segment = segments[at];
    if (segment === "." || segment === "..")
      throw new FormatError(`expected a path without "${segment}", got "${path}"`);
    addString(options, OptionNumber.URI_PATH, segment);
  }
}

function addString(options: Option[], number: number, value: string): void {
  const length = lengthUTF8(value);
  if (length > MAX_STRING_BYTES) {
    throw new LimitError(`expected at most ${MAX_STRING_BYTES} bytes in option ${number}, got ${length}`);
  }
  options.push({ number, value });
}

function addUint16(options: Option[], number: number, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff) {
    throw new FormatError(`expected 0 to 65535 in option ${number}, got ${value}`);
  }
  options.push({ number, value });
}
