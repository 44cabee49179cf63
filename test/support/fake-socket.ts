/**
 * A message socket in memory, and the peer at its other end, which tests script.
 *
 *     const peer = new FakePeer(time);
 *     const client = new CoAPClient({ socket: { io: FakeSocket, peer }, timer: time });
 *     await time.advance(0); // the socket becomes writable
 *     peer.deliver(reply);   // and is readable on the next turn
 */

import type { MessageSocket, SocketCallbacks } from "../../src/io.js";
import type { FakeTime } from "./fake-time.js";

export interface SentMessage {
  /** Virtual time, in milliseconds. */
  readonly at: number;
  readonly bytes: Uint8Array;
}

export class FakePeer {
  readonly time: FakeTime;
  /** Milliseconds until the socket is writable; undefined for never. */
  connectTime: number | undefined = 0;
  /** Everything the socket sent. */
  readonly sent: SentMessage[] = [];
  /** Is called for every message, if set: a server. */
  onMessage: ((bytes: Uint8Array) => void) | undefined;
  /** The next write throws this. */
  writeError: Error | undefined;
  socket: FakeSocket | undefined;
  /** What the layer above is told of a connection kept from before, and what it gave to `sleep`. */
  state: Uint8Array | undefined;
  kept: Uint8Array | undefined;

  constructor(time: FakeTime) {
    this.time = time;
  }

  /** Lets the socket receive `bytes` after `delay` milliseconds, on a later turn in any case. */
  deliver(bytes: Uint8Array, delay = 0): void {
    this.time.set(() => this.socket?.receive(bytes), delay);
  }

  /** Lets the socket lose its connection and make a new one, which takes `delay` milliseconds. */
  restart(delay = 0): void {
    this.time.set(() => this.socket?.restart(delay), 0);
  }

  /** Lets the socket fail. */
  fail(error: Error): void {
    this.time.set(() => this.socket?.fail(error), 0);
  }
}

export class FakeSocket implements MessageSocket {
  readonly options: SocketCallbacks & { peer: FakePeer };
  isClosed = false;
  #isWritable = false;
  readonly #received: Uint8Array[] = [];

  constructor(options: SocketCallbacks & { peer: FakePeer }) {
    this.options = options;
    const { peer } = options;
    peer.socket = this;
    if (peer.connectTime !== undefined) peer.time.set(() => this.#connect(), peer.connectTime);
  }

  write(message: Uint8Array): void {
    const { peer } = this.options;
    if (!this.#isWritable || this.isClosed) throw new Error("write before onWritable or after close");
    if (peer.writeError) throw peer.writeError;
    const bytes = message.slice();
    peer.sent.push({ at: peer.time.now, bytes });
    peer.onMessage?.(bytes);
  }

  /** The length is that of the message, also where it is longer than `buffer` and was cut. */
  read(buffer: Uint8Array): number | undefined {
    const message = this.#received.shift();
    if (!message) return undefined;
    buffer.set(message.subarray(0, buffer.length));
    return message.length;
  }

  get state(): Uint8Array | undefined {
    return this.options.peer.state;
  }

  sleep(state: Uint8Array): void {
    this.options.peer.kept = state;
    this.close();
  }

  close(): void {
    this.isClosed = true;
  }

  restart(delay: number): void {
    this.#isWritable = false;
    this.options.peer.state = undefined;
    this.options.onRestart?.();
    this.options.peer.time.set(() => this.#connect(), delay);
  }

  receive(message: Uint8Array): void {
    if (this.isClosed) return;
    this.#received.push(message);
    this.options.onReadable?.(this.#received.length);
  }

  fail(error: Error): void {
    if (!this.isClosed) this.options.onError?.(error);
  }

  #connect(): void {
    if (this.isClosed) return;
    this.#isWritable = true;
    this.options.onWritable?.();
  }
}
