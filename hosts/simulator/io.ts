/**
 * UDP, timer, clock and storage of the simulated device, in the shapes of src/io.ts over the natives of host.c.
 *
 *     const socket = new UDP({ onReadable() { const datagram = socket.read(); … } });
 */

import type { RetainedMemory } from "../../src/enrollment/wake.js";
import type { Clock, Datagram, KeyValueStore, SocketCallbacks, Timer, UDP as UDPShape } from "../../src/io.js";

export class UDP extends Native("xs_host_udp_destructor") implements UDPShape {
  readonly target: unknown;

  constructor(options: SocketCallbacks) {
    super();
    this.target = options.target;
    native("xs_host_udp_create").call(this, options.onReadable);
  }

  write(datagram: Uint8Array, address: string, port: number): void {
    native("xs_host_udp_write").call(this, datagram, address, port);
  }

  read(): Datagram | undefined {
    return native("xs_host_udp_read").call(this);
  }

  close(): void {
    native("xs_host_udp_close").call(this);
  }
}

export const timer: Timer = {
  set: (callback, delay) => native("xs_host_timer_set").call(undefined, callback, delay),
  clear: (id) => native("xs_host_timer_clear").call(undefined, id),
};

export const clock: Clock = {
  get ticks() {
    return native("xs_host_ticks").call(undefined);
  },
  get time() {
    return Date.now();
  },
};

/** Key-value storage for one path of the device's flash. */
export class Store implements KeyValueStore {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  read(key: string): ArrayBuffer | undefined {
    return native("xs_host_store_read").call(undefined, this.#path, key);
  }

  write(key: string, value: ArrayBufferLike | Uint8Array): void {
    native("xs_host_store_write").call(undefined, this.#path, key, value);
  }

  delete(key: string): void {
    native("xs_host_store_delete").call(undefined, this.#path, key);
  }

  close(): void {}
}

/** The retained memory of the device with `length` bytes for the session table: mapped, it needs no commit. */
export function retain(length: number): RetainedMemory {
  return { bytes: new Uint8Array(native("xs_host_retained").call(undefined, length)) };
}
