/**
 * The messaging layer of CoAP (RFC 7252 section 4): sends one confirmable request at a time (NSTART is 1) over a
 * message socket, retransmits it, finds its response, acknowledges and deduplicates.
 *
 *     const exchange = new MessageExchange({ socket: { io: DTLSSocket, … }, timer: Timer, … }, handler);
 *     exchange.start(message, "GET /.well-known/core"); // once handler.onWritable was called
 */

import { readUint, writeUint } from "../bytes.js";
import { TimeoutError } from "../errors.js";
import type { MessageSocket, Timer, TimerId } from "../io.js";
import { CoAPError } from "./error.js";
import {
  Code,
  encode,
  encodeEmpty,
  HEADER_BYTES,
  isResponse,
  longestEncoding,
  MAX_TOKEN_BYTES,
  type Message,
  MessageReader,
  MessageType,
} from "./message.js";
import { Response } from "./response.js";

/** RFC 7252 section 4.8; times in milliseconds. */
export interface Transmission {
  /** ACK_TIMEOUT: 2000. */
  ackTimeout: number;
  /** ACK_RANDOM_FACTOR: 1.5. The first timeout is `ackTimeout` times a random number from 1 to this. */
  ackRandomFactor: number;
  /** MAX_RETRANSMIT: 4. */
  maxRetransmit: number;
  /** Longest wait for a separate response after an empty acknowledgement: 60000. The RFC leaves it to the client. */
  responseTimeout: number;
}

/*
 * What goes with a connection that is kept over a sleep (RFC 9175 section 4.2: a token is never used twice under the
 * same keys):
 *
 *   0            6            8
 *   | next token | message ID |   big-endian
 */
const STATE_BYTES = 8;
const TOKEN_BYTES = 6;
const MAX_TOKEN = 2 ** (8 * TOKEN_BYTES) - 1;

/** The class of a message socket in `io`; all other options are given to it, with the callbacks. */
export interface SocketOptions {
  // Each socket class has options of its own, which this layer passes on without knowing them.
  io: new (
    options: never,
  ) => MessageSocket;
  [option: string]: unknown;
}

export interface ExchangeOptions {
  socket: SocketOptions;
  timer: Timer;
  transmission: Transmission;
  random: () => number;
  /** Bytes of the longest message to send, and to receive. */
  sendBytes: number;
  receiveBytes: number;
}

/** Called on the socket's or the timer's turns, never within `start`, except `onError`. */
export interface ExchangeHandler {
  /** `start` may be called from now on. */
  onWritable(): void;
  /** The exchange has ended, for the connection is made anew; `onWritable` follows. */
  onRestart(): void;
  /** Whether `response`, which came separately, answers an earlier exchange under the same token. */
  isLate(response: Response): boolean;
  /** The exchange has ended with `response`, which is void after the call. */
  onResponse(response: Response): void;
  /** The exchange has ended without a response that can be used. Another may be started. */
  onFailure(error: Error): void;
  /** The socket has failed; everything has ended. */
  onError(error: Error): void;
}

/** Message IDs that are remembered to know duplicates. A server that this client talks to sends one at a time. */
const SEEN_MESSAGES = 8;

const IDLE = 0;
const AWAITING_ACKNOWLEDGEMENT = 1;
const AWAITING_RESPONSE = 2;

// The callbacks of the socket, which are the same functions for all: ECMA-419 hands them the `target` by `this`.

interface SocketOfExchange {
  readonly target: MessageExchange;
}

function onReadable(this: SocketOfExchange): void {
  this.target.onReadable();
}

function onWritable(this: SocketOfExchange): void {
  this.target.onWritable();
}

function onRestart(this: SocketOfExchange): void {
  this.target.onRestart();
}

function onError(this: SocketOfExchange, error: Error): void {
  this.target.fail(error);
}

export class MessageExchange {
  readonly #handler: ExchangeHandler;
  readonly #timer: Timer;
  readonly #transmission: Transmission;
  readonly #random: () => number;
  #socket: MessageSocket | undefined;
  #writable = false;

  // The next token and message ID, and those in use.
  #nextToken = 0;
  #nextMessageId: number;
  readonly #token = new Uint8Array(MAX_TOKEN_BYTES);
  #tokenLength = 0;
  #tokenNumber = 0;
  #messageId = 0;

  // The message as sent, kept for its retransmission, and the last one that came.
  // Both are made for the first message: until then a handshake needs the memory. The former is as long as what it has
  // to hold; the latter can be asked to hold anything.
  #tx = new Uint8Array(0);
  #txLength = 0;
  #rx = new Uint8Array(0);
  readonly #sendBytes: number;
  readonly #receiveBytes: number;
  readonly #reader = new MessageReader();
  readonly #response = new Response();

  #waiting = IDLE;
  #description = "";
  #timeout = 0;
  #elapsed = 0;
  #transmissions = 0;
  #timerId: TimerId;
  readonly #onTimeout = (): void => this.timedOut();

  // Separate responses that were processed, made when the first one comes: token and message ID in one number, for a
  // message ID comes again after a while; 0 for none.
  #seen: Float64Array | undefined;
  #seenAt = 0;

  constructor(options: ExchangeOptions, handler: ExchangeHandler) {
    this.#handler = handler;
    this.#timer = options.timer;
    this.#transmission = options.transmission;
    this.#random = options.random;
    this.#nextMessageId = Math.floor(options.random() * 0x10000) & 0xffff;
    this.#sendBytes = options.sendBytes;
    // One byte more than allowed: a message that fills the buffer was too long, whether or not the socket says so.
    this.#receiveBytes = options.receiveBytes + 1;
    const socketOptions = { ...options.socket, target: this, onReadable, onWritable, onRestart, onError };
    this.#socket = new options.socket.io(socketOptions as never);
  }

  /** Whether `start` may be called as far as the socket is concerned. */
  get writable(): boolean {
    return this.#writable;
  }

  /**
   * The token for the next transfer, never used before on this connection: a number in the fewest bytes, but at least
   * one (RFC 9175 section 4.2). A view that is void at the next call.
   */
  newToken(): Uint8Array {
    this.#tokenNumber = this.#nextToken++;
    this.#tokenLength = 0;
    for (let rest = this.#tokenNumber; rest > 0 || this.#tokenLength === 0; rest = Math.floor(rest / 256)) {
      this.#tokenLength++;
    }
    for (let at = this.#tokenLength - 1, rest = this.#tokenNumber; at >= 0; at--, rest = Math.floor(rest / 256)) {
      this.#token[at] = rest % 256;
    }
    return this.#token.subarray(0, this.#tokenLength);
  }

  /**
   * Sends `message`, a confirmable request with the token from `newToken`, under a new message ID. One exchange at a
   * time. `description` is for errors. Throws LimitError and FormatError where it cannot be encoded.
   */
  start(message: Message, description: string): void {
    message.messageId = this.#nextMessageId;
    const length = Math.min(longestEncoding(message), this.#sendBytes);
    if (this.#tx.length < length) this.#tx = new Uint8Array(length);
    this.#txLength = encode(message, this.#tx);
    this.#messageId = this.#nextMessageId;
    this.#nextMessageId = (this.#nextMessageId + 1) & 0xffff;
    this.#description = description;
    this.#waiting = AWAITING_ACKNOWLEDGEMENT;
    this.#transmissions = 0;
    this.#elapsed = 0;
    const { ackTimeout, ackRandomFactor } = this.#transmission;
    this.#timeout = Math.round(ackTimeout * (1 + this.#random() * (ackRandomFactor - 1)));
    this.transmit();
  }

  /** Ends the exchange and the socket. No callback comes after it. */
  close(): void {
    this.detach()?.close();
  }

  /** As `close`; the connection is kept for the next wake where the socket can. */
  sleep(): void {
    const socket = this.detach();
    if (socket?.sleep === undefined || this.#nextToken > MAX_TOKEN) {
      socket?.close();
      return;
    }
    const state = new Uint8Array(STATE_BYTES);
    writeUint(state, 0, TOKEN_BYTES, this.#nextToken);
    writeUint(state, TOKEN_BYTES, STATE_BYTES - TOKEN_BYTES, this.#nextMessageId);
    socket.sleep(state);
  }

  private detach(): MessageSocket | undefined {
    this.stop();
    this.#writable = false;
    const socket = this.#socket;
    this.#socket = undefined;
    return socket;
  }

  private transmit(): void {
    this.#transmissions++;
    this.wait(this.#timeout);
    this.write(this.#tx.subarray(0, this.#txLength));
  }

  private write(message: Uint8Array): void {
    try {
      if (this.#writable) this.#socket?.write(message);
    } catch (error) {
      this.fail(error as Error);
    }
  }

  private wait(delay: number): void {
    this.clearTimer();
    this.#timerId = this.#timer.set(this.#onTimeout, delay);
  }

  private clearTimer(): void {
    if (this.#timerId !== undefined) this.#timer.clear(this.#timerId);
    this.#timerId = undefined;
  }

  private stop(): void {
    this.#waiting = IDLE;
    this.clearTimer();
  }

  // RFC 7252 section 4.2.
  private timedOut(): void {
    this.#timerId = undefined;
    this.#elapsed += this.#timeout;
    if (this.#waiting === AWAITING_RESPONSE) {
      this.endWithout(this.noResponse());
    } else if (this.#transmissions > this.#transmission.maxRetransmit) {
      this.endWithout(this.noAcknowledgement());
    } else {
      this.#timeout *= 2;
      this.transmit();
    }
  }

  private noResponse(): TimeoutError {
    return new TimeoutError(
      `${this.#description}: expected a response, none came within ${this.#transmission.responseTimeout} ms after its ` +
        "acknowledgement",
    );
  }

  private noAcknowledgement(): TimeoutError {
    return new TimeoutError(
      `${this.#description}: expected an acknowledgement, none came within ${this.#elapsed} ms and ` +
        `${this.#transmissions} transmissions`,
    );
  }

  private endWithout(error: Error): void {
    this.stop();
    this.#handler.onFailure(error);
  }

  /** @internal */
  fail(error: Error): void {
    if (!this.#socket) return;
    this.close();
    this.#handler.onError(error);
  }

  /** @internal For the callbacks above, as the three below. */
  onWritable(): void {
    if (!this.#socket || this.#writable) return;
    const { state } = this.#socket;
    if (state?.length === STATE_BYTES) {
      this.#nextToken = readUint(state, 0, TOKEN_BYTES);
      this.#nextMessageId = readUint(state, TOKEN_BYTES, STATE_BYTES - TOKEN_BYTES);
    }
    this.#writable = true;
    this.#handler.onWritable();
  }

  /** @internal RFC 7252 section 9.1: what was in flight dies with its connection; so does what was seen in it. */
  onRestart(): void {
    if (!this.#socket) return;
    this.stop();
    this.#writable = false;
    this.#nextToken = 0;
    this.#seen = undefined;
    this.#handler.onRestart();
  }

  /** @internal */
  onReadable(): void {
    if (this.#rx.length === 0) this.#rx = new Uint8Array(this.#receiveBytes);
    while (this.#socket) {
      let length: number | undefined;
      try {
        length = this.#socket.read(this.#rx);
      } catch (error) {
        this.fail(error as Error);
        return;
      }
      if (length === undefined) return;
      this.receive(length);
    }
  }

  private receive(length: number): void {
    const reader = this.#reader;
    try {
      reader.read(this.#rx, Math.min(length, this.#rx.length));
    } catch {
      // RFC 7252 sections 4.2 and 4.3: rejected, or silently ignored; the exchange goes on.
      if (reader.hasHeader && reader.type === MessageType.CON) this.sendEmpty(MessageType.RST);
      return;
    }
    const cut = length >= this.#rx.length;
    if (reader.type === MessageType.ACK) this.onAcknowledgement(cut);
    else if (reader.type === MessageType.RST) this.onReset();
    else this.onMessage(cut);
  }

  private onAcknowledgement(cut: boolean): void {
    const reader = this.#reader;
    if (this.#waiting === IDLE || reader.messageId !== this.#messageId) return;
    if (reader.code === Code.EMPTY) {
      if (this.#waiting === AWAITING_RESPONSE) return;
      this.#waiting = AWAITING_RESPONSE;
      this.wait(this.#transmission.responseTimeout);
    } else if (this.isOurs()) {
      this.deliver(cut);
    }
  }

  private onReset(): void {
    const reader = this.#reader;
    if (this.#waiting === IDLE || reader.messageId !== this.#messageId || reader.code !== Code.EMPTY) return;
    this.endWithout(new CoAPError(`${this.#description}: expected a response, the peer reset the exchange`));
  }

  /** A separate response, confirmable or not, or something this client does not serve. */
  private onMessage(cut: boolean): void {
    const confirmable = this.#reader.type === MessageType.CON;
    if (this.isSeen()) {
      if (confirmable) this.sendEmpty(MessageType.ACK);
    } else if (this.#waiting !== IDLE && this.isOurs()) {
      this.deliver(cut);
    } else if (confirmable) {
      this.sendEmpty(MessageType.RST);
    }
  }

  /** Whether what came is a response to our request (RFC 7252 section 5.3.2). */
  private isOurs(): boolean {
    return isResponse(this.#reader.code) && this.#reader.hasToken(this.#token, this.#tokenLength);
  }

  private deliver(cut: boolean): void {
    const reader = this.#reader;
    const confirmable = reader.type === MessageType.CON;
    const response = this.#response;
    try {
      if (cut) response.readCut(reader);
      else response.read(reader);
    } catch (error) {
      if (confirmable) this.sendEmpty(MessageType.RST);
      this.endWithout(error as Error);
      return;
    }
    // All blocks of a transfer have one token, and a server that has lost our acknowledgement may send a block again
    // when more than SEEN_MESSAGES others have come: found by the property test over a network with losses.
    const isLate = reader.type !== MessageType.ACK && this.#handler.isLate(response);
    if (reader.type !== MessageType.ACK) this.remember();
    if (confirmable) this.sendEmpty(MessageType.ACK);
    // The acknowledgement may have found the socket broken.
    if (isLate || this.#waiting === IDLE) return;
    this.stop();
    this.#handler.onResponse(response);
  }

  private sendEmpty(type: number): void {
    const empty = new Uint8Array(HEADER_BYTES); // few servers make one necessary, none twice in a row
    encodeEmpty(type, this.#reader.messageId, empty);
    this.write(empty);
  }

  private remember(): void {
    this.#seen ??= new Float64Array(SEEN_MESSAGES);
    this.#seen[this.#seenAt] = seenNumber(this.#tokenNumber, this.#reader.messageId);
    this.#seenAt = (this.#seenAt + 1) % SEEN_MESSAGES;
  }

  // RFC 7252 section 4.5.
  private isSeen(): boolean {
    const { code, messageId, tokenNumber } = this.#reader;
    return isResponse(code) && (this.#seen?.includes(seenNumber(tokenNumber, messageId)) ?? false);
  }
}

/** Never 0. Exact for the tokens of this client, which counts; one too large for that is none of them. */
function seenNumber(token: number, messageId: number): number {
  return (token + 1) * 0x10000 + messageId;
}
