/**
 * UDP, timer and clock of Node.js in the shapes of src/io.ts.
 *
 *     new DTLSSocket({ socket: { io: UDP }, timer, clock, … });
 */

import { createSocket, type Socket } from "node:dgram";
import { performance } from "node:perf_hooks";
import type { Clock, Datagram, SocketCallbacks, Timer, UDP as UDPShape } from "../../src/io.js";

export const timer: Timer = {
  set: (callback, delay) => setTimeout(callback, delay),
  clear: (id) => clearTimeout(id as NodeJS.Timeout),
};

export const clock: Clock = {
  get ticks() {
    return Math.floor(performance.now());
  },
  get time() {
    return Date.now();
  },
};

/** Datagrams that wait to be read; more are dropped, as a kernel does. */
const QUEUE_MAX = 64;

/** An unconnected UDP socket on any port; its address family is that of the first address it writes to. */
export class UDP implements UDPShape {
  readonly #options: SocketCallbacks;
  readonly #queue: Datagram[] = [];
  #socket: Socket | undefined;
  #closed = false;

  constructor(options: SocketCallbacks) {
    this.#options = options;
  }

  /** The `target` of the options (ECMA-419). */
  get target(): unknown {
    return this.#options.target;
  }

  write(datagram: Uint8Array, address: string, port: number): void {
    if (this.#closed) {
      throw new Error("the UDP socket is closed");
    }
    this.#socket ??= this.#open(address.includes(":") ? "udp6" : "udp4");
    // A copy: Node.js sends on a later turn, and the caller's buffer is used again before that.
    this.#socket.send(Uint8Array.from(datagram), port, address);
  }

  read(): Datagram | undefined {
    return this.#queue.shift();
  }

  close(): void {
    this.#closed = true;
    this.#queue.length = 0;
    const socket = this.#socket;
    this.#socket = undefined;
    // What was written in this turn still goes out: Node.js sends before it closes on the next.
    if (socket !== undefined) {
      setImmediate(() => socket.close());
    }
  }

  #open(family: "udp4" | "udp6"): Socket {
    const socket = createSocket(family);
    socket.on("message", (message, from) => {
      if (this.#closed || this.#queue.length >= QUEUE_MAX) {
        return;
      }
      const bytes = new ArrayBuffer(message.length);
      new Uint8Array(bytes).set(message);
      this.#queue.push(Object.assign(bytes, { address: from.address, port: from.port }));
      this.#options.onReadable?.call(this as never, 1);
    });
    socket.on("error", (error) => {
      if (!this.#closed) {
        this.#options.onError?.call(this as never, error);
      }
    });
    return socket;
  }
}
