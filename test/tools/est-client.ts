/**
 * A small EST-coaps client for the tests of the development EST server: the DTLS engine over a UDP socket, and CoAP
 * messages put together by the test with coap-packet. It shares nothing with the library's own CoAP.
 *
 *     const client = await Client.connect({ port, anchor, identity });
 *     const response = await client.request({ code: "GET", path: ".well-known/est/crts" });
 */

import { createSocket, type Socket } from "node:dgram";
import { performance } from "node:perf_hooks";
import { generate, type ParsedPacket, parse } from "coap-packet";
import "../../hosts/node/native.js";
import { Engine, EngineState } from "../../src/dtls/engine.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import type { Identity } from "../../tools/est-server/ca.js";

const now = () => Math.floor(performance.now());

export interface Message {
  code: string;
  path?: string;
  query?: string[];
  payload?: Uint8Array;
  contentFormat?: number;
  accept?: number;
  /** number, more, size */
  block1?: readonly [number, boolean, number];
  block2?: readonly [number, boolean, number];
  token?: string;
  messageId?: number;
  confirmable?: boolean;
  options?: { name: string; value: Buffer }[];
}

export const uint = (value: number) => {
  const hex = value.toString(16);
  return value === 0 ? Buffer.alloc(0) : Buffer.from(hex.length % 2 ? `0${hex}` : hex, "hex");
};

/** A Block option's value, from its number, its M bit and its size. */
export const block = ([number, more, size]: readonly [number, boolean, number]) =>
  uint(number * 16 + (more ? 8 : 0) + (Math.log2(size) - 4));

let nextMessageId = 1000;
let nextToken = 1;

export function encode(message: Message): Buffer {
  const options: { name: string; value: Buffer }[] = [];
  for (const part of message.path?.split("/") ?? []) options.push({ name: "Uri-Path", value: Buffer.from(part) });
  if (message.contentFormat !== undefined) options.push({ name: "Content-Format", value: uint(message.contentFormat) });
  for (const query of message.query ?? []) options.push({ name: "Uri-Query", value: Buffer.from(query) });
  if (message.accept !== undefined) options.push({ name: "Accept", value: uint(message.accept) });
  if (message.block1 !== undefined) options.push({ name: "Block1", value: block(message.block1) });
  if (message.block2 !== undefined) options.push({ name: "Block2", value: block(message.block2) });
  options.push(...(message.options ?? []));
  return generate({
    code: message.code,
    confirmable: message.confirmable ?? true,
    messageId: message.messageId ?? nextMessageId++,
    token: Buffer.from(message.token ?? (nextToken++).toString(16).padStart(4, "0"), "hex"),
    options,
    payload: Buffer.from(message.payload ?? []),
  });
}

/** An option of a response as an unsigned integer. */
export function option(packet: ParsedPacket, name: string): number | undefined {
  const found = packet.options.find((candidate) => candidate.name === name);
  return found === undefined ? undefined : found.value.reduce((value, byte) => value * 256 + byte, 0);
}

/** A Block option of a response: number, more, size. */
export function blockOf(packet: ParsedPacket, name: "Block1" | "Block2"): [number, boolean, number] | undefined {
  const value = option(packet, name);
  return value === undefined ? undefined : [value >> 4, (value & 8) !== 0, 2 ** ((value & 7) + 4)];
}

/** Messages that came, and who waits for one. */
class Inbox<T> {
  readonly #waiting: ((message: T) => void)[] = [];
  readonly #messages: T[] = [];

  put(message: T): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#messages.push(message);
    else waiting(message);
  }

  /** The next message; undefined where none comes within so many milliseconds. */
  async next(patience: number): Promise<T | undefined> {
    if (this.#messages.length > 0) return this.#messages.shift();
    return await new Promise((resolve) => {
      const arrived = (message: T) => {
        clearTimeout(timer);
        resolve(message);
      };
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(arrived), 1);
        resolve(undefined);
      }, patience);
      this.#waiting.push(arrived);
    });
  }
}

/** What DTLS and plain clients have in common. */
abstract class Requester {
  readonly inbox = new Inbox<Buffer>();

  abstract send(message: Uint8Array): void;

  /** Sends one datagram and gives the next that comes back, parsed. */
  async exchange(datagram: Uint8Array): Promise<ParsedPacket> {
    this.send(datagram);
    const answer = await this.inbox.next(5000);
    if (answer === undefined) throw new Error("no answer within 5 s");
    return parse(answer);
  }

  async request(message: Message): Promise<ParsedPacket> {
    return await this.exchange(encode(message));
  }

  /** A whole request in blocks of one size, whose response is fetched block by block too. */
  async transfer(message: Message, size: number): Promise<ParsedPacket> {
    const payload = message.payload ?? new Uint8Array();
    const token = message.token ?? (nextToken++).toString(16).padStart(4, "0");
    let answer: ParsedPacket | undefined;
    for (let at = 0; at < Math.max(payload.length, 1); at += size) {
      const more = at + size < payload.length;
      const part = payload.subarray(at, at + size);
      const blocks = payload.length > 0 ? { block1: [at / size, more, size] as const } : {};
      const asked = more ? {} : { block2: [0, false, size] as const };
      answer = await this.request({ ...message, ...blocks, ...asked, token, payload: part });
      if (more && answer.code !== "2.31") return answer;
    }
    const parts = [answer!.payload];
    let { payload: _, ...rest } = message;
    for (let at = blockOf(answer!, "Block2"); at?.[1]; at = blockOf(answer!, "Block2")) {
      rest = { ...rest, token };
      answer = await this.request({ ...rest, block2: [at[0] + 1, false, at[2]] });
      parts.push(answer.payload);
    }
    return { ...answer!, payload: Buffer.concat(parts) };
  }
}

/** Plain CoAP, or any bytes, over UDP. */
export class PlainClient extends Requester {
  readonly #socket: Socket;
  readonly #port: number;

  constructor(port: number) {
    super();
    this.#port = port;
    this.#socket = createSocket("udp4");
    this.#socket.on("message", (message) => this.inbox.put(message));
  }

  send(message: Uint8Array): void {
    this.#socket.send(Uint8Array.from(message), this.#port, "127.0.0.1");
  }

  close(): void {
    this.#socket.close();
  }
}

export interface ConnectOptions {
  port: number;
  host?: string;
  /** DER */
  anchor: Uint8Array;
  identity?: Identity;
  tickets?: true;
  /** A session to be resumed. */
  session?: Uint8Array | undefined;
  /** Port of its own. */
  from?: number;
  /** How long the handshake may take, milliseconds. */
  patience?: number;
}

export class Client extends Requester {
  readonly engine = new Engine();
  readonly #socket: Socket;
  readonly #key: KeyId | undefined;
  readonly #to: ConnectOptions;
  #timer: NodeJS.Timeout | undefined;
  #settled: () => void = () => {};
  #freed = false;

  private constructor(options: ConnectOptions) {
    super();
    this.#to = options;
    this.#socket = createSocket(options.host?.includes(":") ? "udp6" : "udp4");
    const { engine } = this;
    engine.trust(options.anchor);
    if (options.identity !== undefined) {
      this.#key = importKey(0, options.identity.keyPkcs8);
      engine.identity(this.#key, options.identity.chain);
    }
    if (options.tickets) engine.offerTickets();
    engine.serverName("localhost");
    engine.timers(1000, options.patience ?? 8000);
  }

  /** After the handshake. @throws what the engine names as its failure */
  static async connect(options: ConnectOptions): Promise<Client> {
    const client = new Client(options);
    await new Promise<void>((resolve) => client.#socket.bind(options.from ?? 0, resolve));
    client.#socket.on("message", (datagram) => client.#receive(datagram));
    const { engine } = client;
    const over = new Promise<void>((resolve) => {
      client.#settled = resolve;
    });
    engine.start(now(), Math.floor(Date.now() / 1000), options.session);
    client.#settle();
    await over;
    if (engine.state !== EngineState.OPEN) {
      const { failure } = engine;
      client.vanish();
      throw failure;
    }
    return client;
  }

  get port(): number {
    return this.#socket.address().port;
  }

  send(message: Uint8Array): void {
    this.engine.write(message);
    this.#settle();
  }

  /** Sends bytes past DTLS. */
  sendRaw(datagram: Uint8Array): void {
    this.#socket.send(Uint8Array.from(datagram), this.#to.port, this.#to.host ?? "127.0.0.1");
  }

  #receive(datagram: Uint8Array): void {
    if (this.#freed) return;
    this.engine.receive(now(), datagram);
    this.#settle();
  }

  #settle(): void {
    const { engine } = this;
    const buffer = new Uint8Array(4096);
    for (let length = engine.take(buffer); length > 0; length = engine.take(buffer)) {
      this.sendRaw(buffer.subarray(0, length));
    }
    for (let length = engine.read(buffer); length > 0; length = engine.read(buffer)) {
      this.inbox.put(Buffer.from(buffer.subarray(0, length)));
    }
    if (engine.state !== EngineState.HANDSHAKE) this.#settled();
    clearTimeout(this.#timer);
    const { deadline } = engine;
    if (deadline !== undefined) {
      const elapse = () => {
        engine.elapse(now());
        this.#settle();
      };
      this.#timer = setTimeout(elapse, Math.max(1, deadline - now()));
    }
  }

  /** Ends the association as it should be ended. */
  close(): void {
    if (this.#freed) return;
    this.engine.close();
    this.#settle();
    setImmediate(() => this.vanish());
  }

  /** Goes away without a word. */
  vanish(): void {
    if (this.#freed) return;
    this.#freed = true;
    clearTimeout(this.#timer);
    this.#socket.close();
    this.engine.free();
    if (this.#key !== undefined) destroyKey(this.#key);
  }
}
