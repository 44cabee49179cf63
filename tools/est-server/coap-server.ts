/**
 * The server side of CoAP (RFC 7252) with block-wise transfers (RFC 7959), over anything that carries datagrams.
 * Written apart from the client's own CoAP, with the codec of the coap-packet package, so that each proves the other.
 *
 *     const server = new CoAPServer({ handler: (request) => ({ code: "2.05", payload }) });
 *     server.receive(peer, datagram);
 *
 * It is strict where servers in the field are: all blocks of a request carry one token, in order, and a message ID is
 * not used twice within EXCHANGE_LIFETIME.
 */

import { createHash } from "node:crypto";
import { performance } from "node:perf_hooks";
import { generate, type ParsedPacket, parse } from "coap-packet";

/** The other end of one stream of datagrams. What is kept for it is kept by the object. */
export interface CoAPPeer {
  send(datagram: Uint8Array): void;
}

export interface CoAPRequest<P> {
  /** "0.01" … */
  readonly code: string;
  /** "GET" … */
  readonly method: string;
  readonly path: readonly string[];
  readonly query: readonly string[];
  /** The whole one, however many blocks it came in. */
  readonly payload: Uint8Array;
  readonly contentFormat: number | undefined;
  readonly accept: number | undefined;
  readonly peer: P;
}

export interface CoAPResponse {
  /** "2.05" … */
  readonly code: string;
  /** A diagnostic message (RFC 7252 section 5.5.2) where there is no `contentFormat`. */
  readonly payload?: Uint8Array;
  readonly contentFormat?: number;
  /** Seconds. */
  readonly maxAge?: number;
}

/** One answered request, for the log. */
export interface CoAPReport<P> {
  readonly peer: P;
  readonly method: string;
  /** "/.well-known/est/crts" */
  readonly path: string;
  readonly code: string;
  /** Of the whole response payload. */
  readonly bytes: number;
  /** The diagnostic message, where it failed. */
  readonly diagnostic: string | undefined;
}

export interface CoAPServerOptions<P> {
  handler: (request: CoAPRequest<P>) => CoAPResponse | Promise<CoAPResponse>;
  /** Largest block, 16 to 1,024 bytes, a power of two; default 1,024. */
  blockSize?: number;
  /** Largest request payload in all, bytes; default 8,192. */
  requestBytes?: number;
  /** A request that is not answered within so many milliseconds gets an empty acknowledgement; default 1,000. */
  patience?: number;
  /** ACK_TIMEOUT of separate responses, milliseconds; default 2,000. */
  ackTimeout?: number;
  onAnswer?: (report: CoAPReport<P>) => void;
  /** What goes out in place of a message that answers `request`, for a server that does wrong. */
  tamper?: (message: OutgoingMessage, request: ParsedPacket) => readonly Buffer[];
}

/** A diagnostic message as a response. */
export function diagnostic(code: string, message: string): CoAPResponse {
  return { code, payload: Buffer.from(message) };
}

/** RFC 7252 section 4.8 */
const ACK_TIMEOUT = 2_000;
const ACK_RANDOM_FACTOR = 1.5;
const MAX_RETRANSMIT = 4;
const EXCHANGE_LIFETIME = 247_000;

const PATIENCE = 1_000;
const BLOCK_SIZE = 1_024;
const REQUEST_BYTES = 8_192;
/** For each peer: exchanges remembered, uploads going on, responses kept for their later blocks. */
const EXCHANGES_MAX = 64;
const UPLOADS_MAX = 4;
const DOWNLOADS_MAX = 4;
const TOKEN_BYTES_MAX = 8;

const METHODS: Readonly<Record<string, string>> = {
  "0.01": "GET",
  "0.02": "POST",
  "0.03": "PUT",
  "0.04": "DELETE",
  "0.05": "FETCH",
  "0.06": "PATCH",
  "0.07": "iPATCH",
};

/** The options of requests that are understood (RFC 7252 section 5.10, RFC 7959 section 2.1): number and length. */
const OPTIONS: Readonly<Record<string, { number: number; min: number; max: number; repeatable?: true }>> = {
  "Uri-Host": { number: 3, min: 1, max: 255 },
  "Uri-Port": { number: 7, min: 0, max: 2 },
  "Uri-Path": { number: 11, min: 0, max: 255, repeatable: true },
  "Content-Format": { number: 12, min: 0, max: 2 },
  "Uri-Query": { number: 15, min: 0, max: 255, repeatable: true },
  Accept: { number: 17, min: 0, max: 2 },
  Block2: { number: 23, min: 0, max: 3 },
  Block1: { number: 27, min: 0, max: 3 },
  Size2: { number: 28, min: 0, max: 4 },
  Size1: { number: 60, min: 0, max: 4 },
};

/** Numbers of options that coap-packet names, beyond those above. An odd number makes an option critical. */
const OTHER_OPTIONS: Readonly<Record<string, number>> = {
  "If-Match": 1,
  ETag: 4,
  "If-None-Match": 5,
  Observe: 6,
  "Location-Path": 8,
  OSCORE: 9,
  "Max-Age": 14,
  "Hop-Limit": 16,
  "Q-Block1": 19,
  "Location-Query": 20,
  "Q-Block2": 31,
  "Proxy-Uri": 35,
  "Proxy-Scheme": 39,
  "No-Response": 258,
  "OCF-Accept-Content-Format-Version": 2049,
  "OCF-Content-Format-Version": 2053,
};

/** A Block1 or Block2 option (RFC 7959 section 2.2). */
interface Block {
  readonly number: number;
  readonly more: boolean;
  /** Size exponent. */
  readonly szx: number;
}

const RESERVED_SZX = 7;
const sizeOf = (szx: number): number => 2 ** (szx + 4);

/** An unsigned integer in as few bytes as it needs (RFC 7252 section 3.2). */
function uint(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes.subarray(Math.clz32(value) >> 3);
}

const uintOf = (bytes: Uint8Array): number => bytes.reduce((value, byte) => value * 256 + byte, 0);

const blockValue = ({ number, more, szx }: Block): Buffer => uint((number << 4) | (more ? 8 : 0) | szx);

function blockOf(value: Uint8Array | undefined): Block | undefined {
  if (value === undefined) {
    return undefined;
  }
  const bits = uintOf(value);
  return { number: bits >>> 4, more: (bits & 8) !== 0, szx: bits & 7 };
}

/** Class 0, but not the empty message (RFC 7252 section 12.1). */
const isRequest = (code: string): boolean => code.startsWith("0.") && code !== "0.00";

/**
 * A message, or undefined where the datagram has no CoAP message format (RFC 7252 section 3). coap-packet cuts short
 * what runs over the end, and the encoding of a message is unique: what does not come out again was malformed.
 */
function parseStrictly(datagram: Buffer): ParsedPacket | undefined {
  try {
    const packet = parse(datagram);
    const { options } = packet;
    const again = generate(
      { ...packet, options: options.map(({ name, value }) => ({ name, value })) },
      datagram.length,
    );
    return packet.token.length <= TOKEN_BYTES_MAX && again.equals(datagram) ? packet : undefined;
  } catch {
    return undefined;
  }
}

/** A request that is answered as it is, without its handler. */
class Refusal extends Error {
  readonly response: Outgoing;

  constructor(code: string, message: string, options: Outgoing["options"] = []) {
    super(message);
    this.response = { code, payload: Buffer.from(message), options };
  }
}

/** A response on its way out: one message. */
export interface Outgoing {
  readonly code: string;
  readonly payload: Buffer;
  readonly options: { name: string; value: Buffer }[];
}

/** A response with what makes it a message: neither `confirmable` nor `ack` is a non-confirmable one. */
export interface OutgoingMessage extends Outgoing {
  readonly confirmable?: boolean;
  readonly ack?: boolean;
  readonly messageId: number;
  readonly token: Buffer;
}

/** A request message, its options read. */
interface Incoming<P> {
  readonly peer: P;
  readonly code: string;
  readonly token: string;
  readonly payload: Buffer;
  readonly path: readonly string[];
  readonly query: readonly string[];
  readonly contentFormat: number | undefined;
  readonly accept: number | undefined;
  readonly block1: Block | undefined;
  readonly block2: Block | undefined;
  readonly size1: number | undefined;
  readonly size2: number | undefined;
  /** What the blocks of one transfer have in common: method, path and query. */
  readonly resource: string;
}

/** A message ID that was seen, and how it was answered. */
interface Exchange {
  readonly since: number;
  reply: (() => void) | undefined;
}

/** A request payload whose blocks are coming in. */
interface Upload {
  readonly resource: string;
  readonly contentFormat: number | undefined;
  readonly parts: Buffer[];
  length: number;
  lastBlock: number;
}

/** A response whose blocks are going out. */
interface Download {
  readonly resource: string;
  token: string;
  readonly response: CoAPResponse;
  lastBlock: number;
}

/** A separate response that is not acknowledged yet. */
interface Retransmission {
  timer: NodeJS.Timeout;
}

interface State {
  /** By message ID, the oldest first. */
  readonly exchanges: Map<number, Exchange>;
  /** By token, the oldest first. */
  readonly uploads: Map<string, Upload>;
  /** The oldest first. */
  downloads: Download[];
  readonly retransmissions: Map<number, Retransmission>;
  messageId: number;
}

/** Drops the oldest entries of a map until there is room for one more. */
function makeRoom(map: Map<unknown, unknown>, max: number): void {
  for (const key of map.keys()) {
    if (map.size < max) {
      return;
    }
    map.delete(key);
  }
}

export class CoAPServer<P extends CoAPPeer> {
  readonly #options: CoAPServerOptions<P>;
  /** Size exponent of the largest block. */
  readonly #szx: number;
  readonly #requestBytes: number;
  readonly #states = new Map<P, State>();

  constructor(options: CoAPServerOptions<P>) {
    this.#options = options;
    this.#szx = Math.log2(options.blockSize ?? BLOCK_SIZE) - 4;
    this.#requestBytes = options.requestBytes ?? REQUEST_BYTES;
    if (!(Number.isInteger(this.#szx) && this.#szx >= 0 && this.#szx < RESERVED_SZX)) {
      throw new RangeError(`a block size of ${options.blockSize} is not one of 16, 32, 64, 128, 256, 512, 1024`);
    }
  }

  /** Forgets a peer: its exchanges end without another message. */
  forget(peer: P): void {
    for (const { timer } of this.#states.get(peer)?.retransmissions.values() ?? []) {
      clearTimeout(timer);
    }
    this.#states.delete(peer);
  }

  close(): void {
    for (const peer of [...this.#states.keys()]) {
      this.forget(peer);
    }
  }

  // ---- messages (RFC 7252 section 4) ----

  /** One datagram from a peer, whatever is in it. */
  receive(peer: P, datagram: Uint8Array): void {
    const bytes = Buffer.from(datagram);
    if (bytes.length < 4 || bytes[0]! >> 6 !== 1) {
      return; // not CoAP, or another version: silently ignored
    }
    const confirmable = (bytes[0]! & 0x30) === 0;
    const messageId = bytes.readUInt16BE(2);
    const packet = parseStrictly(bytes);
    const state = this.#stateOf(peer);
    if (packet?.ack || packet?.reset) {
      this.#acknowledged(state, messageId);
    } else if (packet === undefined || !isRequest(packet.code)) {
      // Malformed, empty (a ping), a response that nobody asked for, or of a reserved class
      if (confirmable) {
        peer.send(generate({ code: "0.00", reset: true, messageId }));
      }
    } else if (!this.#duplicate(state, messageId)) {
      this.#handle(peer, state, packet);
    }
  }

  #stateOf(peer: P): State {
    let state = this.#states.get(peer);
    if (state === undefined) {
      const messageId = Math.floor(Math.random() * 0x10000);
      state = { exchanges: new Map(), uploads: new Map(), downloads: [], retransmissions: new Map(), messageId };
      this.#states.set(peer, state);
    }
    return state;
  }

  /** Answers a message ID that was seen before as it was answered then, or not yet. */
  #duplicate({ exchanges }: State, messageId: number): boolean {
    const exchange = exchanges.get(messageId);
    if (exchange === undefined || performance.now() - exchange.since > EXCHANGE_LIFETIME) {
      return false;
    }
    exchange.reply?.();
    return true;
  }

  #acknowledged(state: State, messageId: number): void {
    clearTimeout(state.retransmissions.get(messageId)?.timer);
    state.retransmissions.delete(messageId);
  }

  /** A new request: answers it piggybacked, or where that takes too long, separately (section 5.2). */
  #handle(peer: P, state: State, packet: ParsedPacket): void {
    const { messageId, token, confirmable } = packet;
    const exchange: Exchange = { since: performance.now(), reply: undefined };
    state.exchanges.delete(messageId);
    makeRoom(state.exchanges, EXCHANGES_MAX);
    state.exchanges.set(messageId, exchange);
    const reply = (send: () => void) => {
      exchange.reply = send;
      send();
    };
    const send = (message: OutgoingMessage) => {
      for (const datagram of this.#options.tamper?.(message, packet) ?? [generate({ ...message })]) {
        peer.send(datagram);
      }
    };
    let separate = false;
    const late = () => {
      separate = true;
      reply(() => peer.send(generate({ code: "0.00", ack: true, messageId })));
    };
    const timer = confirmable ? setTimeout(late, this.#options.patience ?? PATIENCE).unref() : undefined;
    const respond = (response: Outgoing) => {
      clearTimeout(timer);
      if (this.#states.get(peer) !== state) {
        return; // it went away meanwhile
      }
      if (confirmable && !separate) {
        reply(() => send({ ...response, token, ack: true, messageId }));
        return;
      }
      state.messageId = (state.messageId + 1) & 0xffff;
      const message = { ...response, token, confirmable, messageId: state.messageId };
      send(message);
      if (confirmable) {
        this.#retransmit(state, state.messageId, () => send(message));
      }
    };
    const refuse = (error: unknown) => {
      if (!(error instanceof Refusal)) {
        throw error;
      }
      // Section 5.4.1: a non-confirmable message with such an option is rejected, which is to say ignored.
      if (confirmable || error.response.code !== "4.02") {
        respond(error.response);
      }
    };
    this.#answer(peer, state, packet)
      .then(respond, refuse)
      .catch(() => this.forget(peer)); // it cannot be answered, so it need not be remembered
  }

  /** Sends a confirmable message again until it is acknowledged (section 4.2). */
  #retransmit(state: State, messageId: number, send: () => void): void {
    let timeout = (this.#options.ackTimeout ?? ACK_TIMEOUT) * (1 + Math.random() * (ACK_RANDOM_FACTOR - 1));
    let attempts = 0;
    const entry: Retransmission = { timer: setTimeout(() => again(), timeout).unref() };
    const again = () => {
      if (attempts >= MAX_RETRANSMIT) {
        state.retransmissions.delete(messageId);
        return;
      }
      attempts += 1;
      timeout *= 2;
      send();
      entry.timer = setTimeout(again, timeout).unref();
    };
    state.retransmissions.set(messageId, entry);
  }

  // ---- requests (RFC 7252 section 5, RFC 7959) ----

  /** The response to one request message. @throws Refusal */
  async #answer(peer: P, state: State, packet: ParsedPacket): Promise<Outgoing> {
    const method = METHODS[packet.code] ?? packet.code;
    const report = (path: string, response: CoAPResponse) => {
      const bytes = response.payload?.length ?? 0;
      const text =
        response.contentFormat === undefined && bytes > 0 ? Buffer.from(response.payload!).toString() : undefined;
      this.#options.onAnswer?.({ peer, method, path, code: response.code, bytes, diagnostic: text });
    };
    let path = "";
    try {
      const message = readRequest(peer, packet);
      path = `/${message.path.join("/")}`;
      if (message.block2 !== undefined && message.block2.number > 0) {
        const download = this.#findDownload(state, message);
        if (download !== undefined) {
          return this.#block(message, download.response);
        }
        if (method !== "GET") {
          throw new Refusal("4.08", "the response of which this asks a block is not kept any more");
        }
      }
      const payload = this.#collect(state, message);
      if (payload === undefined) {
        const { number, szx } = message.block1!;
        const value = blockValue({ number, more: true, szx: Math.min(szx, this.#szx) });
        return { code: "2.31", payload: Buffer.alloc(0), options: [{ name: "Block1", value }] };
      }
      const { code, query, contentFormat, accept } = message;
      const request = { code, method, path: message.path, query, payload, contentFormat, accept, peer };
      const response = METHODS[code]
        ? await this.#options.handler(request)
        : diagnostic("4.05", `no method has the code ${code}`);
      report(path, response);
      const outgoing = this.#block(message, response);
      if ((response.payload?.length ?? 0) > outgoing.payload.length) {
        this.#keep(state, message, response);
      }
      return outgoing;
    } catch (error) {
      const refusal =
        error instanceof Refusal ? error : new Refusal("5.00", `internal error: ${(error as Error).message}`);
      report(path, refusal.response);
      throw refusal;
    }
  }

  /** The whole request payload once its last block is there; undefined before that. @throws Refusal */
  #collect(state: State, message: Incoming<P>): Buffer | undefined {
    const { block1, payload, token, size1 } = message;
    const limit = this.#requestBytes;
    const largest = sizeOf(this.#szx);
    const tooLarge = (length: number) => {
      state.uploads.delete(token);
      return new Refusal("4.13", `a request of ${length} bytes exceeds ${limit}`, [
        { name: "Size1", value: uint(limit) },
      ]);
    };
    if (block1 === undefined) {
      if (payload.length > largest) {
        // RFC 7959 section 2.9.3: a hint to send blocks, of this size
        const value = blockValue({ number: 0, more: false, szx: this.#szx });
        throw new Refusal("4.13", `send blocks of at most ${largest} bytes`, [{ name: "Block1", value }]);
      }
      return payload;
    }
    const size = sizeOf(block1.szx);
    if (block1.more && payload.length !== size) {
      state.uploads.delete(token);
      throw new Refusal("4.00", `a block of ${payload.length} bytes says that it has ${size}`);
    }
    const offset = block1.number * size;
    if ((size1 ?? 0) > limit || offset + payload.length > limit) {
      throw tooLarge(Math.max(size1 ?? 0, offset + payload.length));
    }
    let upload = state.uploads.get(token);
    if (block1.number === 0) {
      const { resource, contentFormat } = message;
      upload = { resource, contentFormat, parts: [], length: 0, lastBlock: 0 };
    }
    const now = performance.now();
    state.uploads.delete(token);
    if (
      upload === undefined ||
      upload.length !== offset ||
      upload.resource !== message.resource ||
      upload.contentFormat !== message.contentFormat ||
      (upload.lastBlock !== 0 && now - upload.lastBlock > EXCHANGE_LIFETIME)
    ) {
      throw new Refusal("4.08", `block ${block1.number} does not follow what came before with this token`);
    }
    upload.parts.push(payload);
    upload.length += payload.length;
    upload.lastBlock = now;
    if (!block1.more) {
      return Buffer.concat(upload.parts);
    }
    makeRoom(state.uploads, UPLOADS_MAX);
    state.uploads.set(token, upload);
    return undefined;
  }

  /** One message of a response: all of it, or the block that the request asks for. @throws Refusal */
  #block(message: Incoming<P>, response: CoAPResponse): Outgoing {
    const { block1, block2, size2 } = message;
    const payload = Buffer.from(response.payload ?? []);
    const options: { name: string; value: Buffer }[] = [];
    const option = (name: string, value: Buffer) => options.push({ name, value });
    if (response.contentFormat !== undefined) {
      option("Content-Format", uint(response.contentFormat));
    }
    if (response.maxAge !== undefined) {
      option("Max-Age", uint(response.maxAge));
    }
    if (block1 !== undefined) {
      option("Block1", blockValue({ ...block1, more: false, szx: Math.min(block1.szx, this.#szx) }));
    }
    const szx = Math.min(block2?.szx ?? this.#szx, this.#szx);
    const size = sizeOf(szx);
    if (block2 === undefined && payload.length <= size) {
      return { code: response.code, payload, options };
    }
    const offset = (block2?.number ?? 0) * sizeOf(block2?.szx ?? szx);
    if (offset > 0 && offset >= payload.length) {
      throw new Refusal("4.00", `there is no block ${block2!.number} in ${payload.length} bytes`);
    }
    const part = payload.subarray(offset, offset + size);
    option("Block2", blockValue({ number: offset / size, more: offset + size < payload.length, szx }));
    if (offset === 0 || size2 !== undefined) {
      option("Size2", uint(payload.length));
    }
    if (response.code === "2.05") {
      option("ETag", createHash("sha256").update(payload).digest().subarray(0, 4));
    }
    return { code: response.code, payload: part, options };
  }

  #keep(state: State, { resource, token }: Incoming<P>, response: CoAPResponse): void {
    const others = state.downloads.filter((download) => download.resource !== resource || download.token !== token);
    state.downloads = [...others.slice(1 - DOWNLOADS_MAX), { resource, token, response, lastBlock: performance.now() }];
  }

  /** The response that a later block is asked of: that with the same token, else the newest of the resource. */
  #findDownload(state: State, { resource, token }: Incoming<P>): Download | undefined {
    const now = performance.now();
    state.downloads = state.downloads.filter(({ lastBlock }) => now - lastBlock <= EXCHANGE_LIFETIME);
    const candidates = state.downloads.filter((download) => download.resource === resource);
    const found = candidates.find((download) => download.token === token) ?? candidates.at(-1);
    if (found !== undefined) {
      found.lastBlock = now;
    }
    return found;
  }
}

/** Reads the options of a request. @throws Refusal where one is not understood that must be. */
function readRequest<P>(peer: P, { code, token, payload, options }: ParsedPacket): Incoming<P> {
  const values = new Map<string, Buffer[]>();
  for (const { name, value } of options) {
    const known = OPTIONS[name];
    const earlier = values.get(String(name)) ?? [];
    const understood =
      known !== undefined &&
      value.length >= known.min &&
      value.length <= known.max &&
      (earlier.length === 0 || known.repeatable === true);
    if (understood) {
      values.set(String(name), [...earlier, value]);
      continue;
    }
    if (name === "Proxy-Uri" || name === "Proxy-Scheme") {
      throw new Refusal("5.05", "this server is no proxy");
    }
    const number = known?.number ?? OTHER_OPTIONS[name] ?? Number(name);
    if (number % 2 === 1) {
      throw new Refusal("4.02", `the critical option ${number} is not understood, or not in this form or number`);
    }
  }
  const texts = (name: string) => (values.get(name) ?? []).map((value) => value.toString());
  const first = (name: string) => values.get(name)?.[0];
  const number = (name: string) => {
    const value = first(name);
    return value === undefined ? undefined : uintOf(value);
  };
  const block1 = blockOf(first("Block1"));
  const block2 = blockOf(first("Block2"));
  if (block1?.szx === RESERVED_SZX || block2?.szx === RESERVED_SZX) {
    throw new Refusal("4.00", "the block size exponent 7 is reserved");
  }
  if (block1 !== undefined && (block2?.number ?? 0) > 0) {
    throw new Refusal("4.00", "a block of the request asks for a later block of the response");
  }
  const path = texts("Uri-Path");
  const query = texts("Uri-Query");
  return {
    peer,
    code,
    token: token.toString("hex"),
    payload,
    path,
    query,
    contentFormat: number("Content-Format"),
    accept: number("Accept"),
    block1,
    block2,
    size1: number("Size1"),
    size2: number("Size2"),
    resource: JSON.stringify([code, path, query]),
  };
}
