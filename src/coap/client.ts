/**
 * A CoAP client for one server (RFC 7252) with block-wise transfer (RFC 7959), over a socket that keeps message
 * boundaries: DTLS for coaps. Requests run one after the other (NSTART is 1).
 *
 *     const client = new CoAPClient({ socket: { io: DTLSSocket, … }, timer: Timer });
 *     const { code, payload } = await client.request({ method: "GET", path: "/.well-known/est/crts", accept: 281 });
 */

import type { Timer } from "../io.js";
import { type BlockSize, isBlockSize, MAX_BLOCK_SIZE } from "./block.js";
import { CoAPError } from "./error.js";
import { type ExchangeHandler, MessageExchange, type SocketOptions, type Transmission } from "./exchange.js";
import type { Response } from "./response.js";
import { type CoAPRequest, type CoAPResponse, Transfer } from "./transfer.js";

export type { BlockSize } from "./block.js";
export type { SocketOptions, Transmission } from "./exchange.js";
export type { CoAPRequest, CoAPResponse, PayloadSource } from "./transfer.js";

export interface CoAPClientOptions {
  /** `new socket.io({ ...socket, onReadable, onWritable, onError })` is what the client talks through, and closes. */
  socket: SocketOptions;
  timer: Timer;
  /** Bytes of the largest block to send, and to be sent: 1024. The receive buffer takes this + 129 bytes, the other what it has to hold. */
  blockSize?: BlockSize;
  /** Bytes of the largest response body: 3072. */
  maxBody?: number;
  transmission?: Partial<Transmission>;
  /** 0 ≤ random() < 1, as `Math.random`, which is the default. */
  random?: () => number;
}

/** RFC 7252 section 4.8; the last one is ours. */
const TRANSMISSION: Transmission = {
  ackTimeout: 2000,
  ackRandomFactor: 1.5,
  maxRetransmit: 4,
  responseTimeout: 60_000,
};

/**
 * What a device's 32 KB of heap hold beside all else, in the worst case: CA certificates in blocks of 1024, next to as many
 * that are in use and as many in storage to compare with; docs/memory.md has the figures.
 */
const DEFAULT_MAX_BODY = 3072;
/** Bytes that 2²⁰ blocks of 1024 have. */
const MAX_BODY = 0x40000000;
/** Bytes for header, token and options of a request: enough for a host name and a label, or it is a LimitError. */
const REQUEST_ROOM = 256;
/** The same of a response: RFC 7252 section 4.6 has 1152 bytes for a message with 1024 bytes of payload. */
const RESPONSE_ROOM = 128;

interface PendingRequest {
  readonly transfer: Transfer;
  resolve: (response: CoAPResponse) => void;
  reject: (error: Error) => void;
}

export class CoAPClient implements ExchangeHandler {
  readonly #exchange: MessageExchange;
  readonly #blockSize: BlockSize;
  readonly #maxBody: number;
  readonly #queue: PendingRequest[] = [];
  #current: PendingRequest | undefined;
  /** Why there are no more requests. */
  #end: Error | undefined;

  /** Throws RangeError on an option out of its range, and what the socket's constructor throws. */
  constructor(options: CoAPClientOptions) {
    const transmission = options.transmission ? { ...TRANSMISSION, ...options.transmission } : TRANSMISSION;
    checkOptions(options, transmission);
    this.#blockSize = options.blockSize ?? MAX_BLOCK_SIZE;
    this.#maxBody = options.maxBody ?? DEFAULT_MAX_BODY;
    this.#exchange = new MessageExchange(
      {
        socket: options.socket,
        timer: options.timer,
        transmission,
        random: options.random ?? Math.random,
        sendBytes: this.#blockSize + REQUEST_ROOM,
        receiveBytes: this.#blockSize + RESPONSE_ROOM,
      },
      this,
    );
  }

  /** @internal For the exchange, as the five below: methods, for closures cost memory in each client. */
  onWritable(): void {
    // A request whose connection was made anew, before anything of its response came, starts again.
    if (this.#current) this.begin(this.#current);
    else this.startNext();
  }

  /** @internal */
  onRestart(): void {
    if (this.#current) this.#current.transfer.result.repeated = true;
  }

  /** @internal */
  isLate(response: Response): boolean {
    return this.#current?.transfer.isLate(response) ?? false;
  }

  /** @internal */
  onFailure(error: Error): void {
    this.rejectNow(error);
  }

  /** @internal */
  onError(error: Error): void {
    this.endWith(error);
  }

  /**
   * Sends a request once those before it have ended and the socket is writable. Resolves with any response, an error
   * code included. Rejects with TimeoutError (no acknowledgement, or no response after one), CoAPError (reset by the
   * peer, rules of block-wise transfer broken, unknown critical option, client closed), LimitError (response body over
   * `maxBody`, request too large for the buffer), FormatError (malformed response or request), or the socket's error.
   */
  request(request: CoAPRequest): Promise<CoAPResponse> {
    try {
      const pending = this.newPending(request);
      const promise = new Promise<CoAPResponse>((resolve, reject) => {
        pending.resolve = resolve;
        pending.reject = reject;
      });
      // Not within the promise's function, nor before: what is deep in the stack when a message is made costs heap.
      this.#queue.push(pending);
      this.startNext();
      return promise;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  private newPending(request: CoAPRequest): PendingRequest {
    if (this.#end) throw this.#end;
    const maxBody = request.maxBody ?? this.#maxBody;
    checkMaxBody(maxBody);
    return { transfer: new Transfer(request, this.#blockSize, maxBody), resolve: nothing, reject: nothing };
  }

  /** Closes the socket; requests that have not ended are rejected with a CoAPError. May be called again. */
  close(): void {
    this.#exchange.close();
    this.endWith(new CoAPError("the CoAP client was closed"));
  }

  /**
   * As `close`, and keeps the connection for the next wake where the socket can: with it go the next token and message
   * ID. Requests that have not ended are rejected.
   */
  sleep(): void {
    this.#exchange.sleep();
    this.endWith(new CoAPError("the CoAP client went to sleep"));
  }

  private startNext(): void {
    if (this.#current || !this.#exchange.writable) return;
    this.#current = this.#queue.shift();
    if (this.#current) this.begin(this.#current);
  }

  private begin(pending: PendingRequest): void {
    try {
      pending.transfer.begin(this.#exchange.newToken());
    } catch (error) {
      this.rejectNow(error as Error);
      return;
    }
    this.send(pending);
  }

  private send({ transfer }: PendingRequest): void {
    try {
      this.#exchange.start(transfer.nextMessage(), transfer.description);
    } catch (error) {
      this.rejectNow(error as Error);
    }
  }

  /** @internal */
  onResponse(response: Response): void {
    const pending = this.#current;
    if (!pending) return;
    let step: ReturnType<Transfer["receive"]>;
    try {
      step = pending.transfer.receive(response);
    } catch (error) {
      this.rejectNow(error as Error);
      return;
    }
    if (step === "next") this.send(pending);
    else if (step === "restart") this.begin(pending);
    else this.resolveNow(pending);
  }

  private resolveNow(pending: PendingRequest): void {
    this.#current = undefined;
    pending.resolve(pending.transfer.result);
    this.startNext();
  }

  private rejectNow(error: Error): void {
    const pending = this.#current;
    this.#current = undefined;
    pending?.reject(error);
    this.startNext();
  }

  private endWith(error: Error): void {
    if (this.#end) return;
    this.#end = error;
    this.#current?.reject(error);
    this.#current = undefined;
    for (const pending of this.#queue) pending.reject(error);
    this.#queue.length = 0;
  }
}

function nothing(): void {}

function checkOptions(options: CoAPClientOptions, transmission: Transmission): void {
  const { blockSize = MAX_BLOCK_SIZE, maxBody = 0 } = options;
  const { ackTimeout, ackRandomFactor, maxRetransmit, responseTimeout } = transmission;
  if (!isBlockSize(blockSize)) throw new RangeError(`expected a block size of 16, 32, … 1024, got ${blockSize}`);
  checkMaxBody(maxBody);
  if (!(ackTimeout > 0 && ackRandomFactor >= 1 && maxRetransmit >= 0 && responseTimeout > 0)) {
    throw new RangeError("expected times above 0, ackRandomFactor of at least 1 and maxRetransmit of at least 0");
  }
}

function checkMaxBody(maxBody: number): void {
  if (!isCount(maxBody, MAX_BODY)) throw new RangeError(`expected maxBody of 0 to ${MAX_BODY} bytes, got ${maxBody}`);
}

function isCount(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}
