/**
 * A message socket over plain UDP, for tests against peers without DTLS: node:dgram, tied to one address and port.
 *
 *     new CoAPClient({ socket: { io: UDPMessageSocket, address: "127.0.0.1", port: 5683 }, timer: nodeTimer });
 */

import { createSocket, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import type { MessageSocket, SocketCallbacks, Timer } from "../../src/io.js";

export interface UDPMessageSocketOptions extends SocketCallbacks {
  address: string;
  port: number;
}

export class UDPMessageSocket implements MessageSocket {
  readonly #options: UDPMessageSocketOptions;
  readonly #socket: Socket;
  readonly #received: Buffer[] = [];
  #isConnected = false;
  #isClosed = false;

  constructor(options: UDPMessageSocketOptions) {
    this.#options = options;
    this.#socket = createSocket(isIPv6(options.address) ? "udp6" : "udp4");
    this.#socket.on("connect", () => this.#onConnect());
    this.#socket.on("message", (message) => this.#onMessage(message));
    this.#socket.on("error", (error) => this.#onError(error));
    this.#socket.connect(options.port, options.address);
  }

  write(message: Uint8Array): void {
    if (!this.#isConnected || this.#isClosed) throw new Error("write before onWritable or after close");
    // send keeps the bytes until a later turn, and the caller may use its buffer again at once.
    this.#socket.send(message.slice());
  }

  /** The length is that of the datagram, also where it is longer than `buffer` and was cut. */
  read(buffer: Uint8Array): number | undefined {
    const message = this.#received.shift();
    if (!message) return undefined;
    buffer.set(message.subarray(0, buffer.length));
    return message.length;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.close();
  }

  #onConnect(): void {
    this.#isConnected = true;
    if (!this.#isClosed) this.#options.onWritable?.();
  }

  #onMessage(message: Buffer): void {
    if (this.#isClosed) return;
    this.#received.push(message);
    this.#options.onReadable?.(this.#received.length);
  }

  #onError(error: Error): void {
    if (!this.#isClosed) this.#options.onError?.(error);
  }
}

/** Node's timers as the SDK's `Timer`. */
export const nodeTimer: Timer = {
  set: (callback, delay) => setTimeout(callback, delay),
  clear: (id) => clearTimeout(id as NodeJS.Timeout),
};
