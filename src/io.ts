/**
 * The shapes of what a host hands in: I/O, timer and storage as ECMA-419 and the Moddable SDK have them. Torpor's own
 * code opens no socket, reads no clock and touches no storage by itself; it uses what it is given through these.
 *
 *     new DTLSSocket({ socket: { io: UDP }, timer: Timer, … });
 */

/** A running timer; opaque. */
export type TimerId = unknown;

/** One-shot timers: the part of the SDK's `Timer` module that Torpor uses. */
export interface Timer {
  /** Calls `callback` once after `delay` milliseconds. */
  set(callback: () => void, delay: number): TimerId;
  /** Cancels; a timer that has fired already is ignored. */
  clear(id: TimerId): void;
}

/** A clock in milliseconds. */
export interface Clock {
  /** Milliseconds from any origin; never steps back; may restart at a wake. */
  readonly ticks: number;
  /** Milliseconds since 1970-01-01T00:00Z, going on during sleep; undefined where there is no trusted clock. */
  readonly time: number | undefined;
  /** Milliseconds since power-on, going on during sleep; undefined, or left out, where the host has no such count. */
  readonly uptime?: number | undefined;
}

/**
 * Options common to all sockets below. The callbacks run on a later turn than the call that caused them; `this` is the
 * socket, whose `target` is the one of the options (ECMA-419).
 */
export interface SocketCallbacks {
  /** For whoever needs it in a callback. */
  target?: unknown;
  /** `count` messages can be read. */
  onReadable?: (count: number) => void;
  /** The socket takes messages from now on. It comes again after `onRestart`. */
  onWritable?: () => void;
  /**
   * The connection is gone and is being made anew: nothing that was sent will be answered, and whether it was received
   * cannot be known. The socket takes no messages until the next `onWritable`.
   */
  onRestart?: () => void;
  /** The socket is unusable from now on. */
  onError?: (error: Error) => void;
}

/** A received datagram, as the SDK's UDP gives it: its bytes, and where it came from. */
export type Datagram = ArrayBuffer & { readonly address: string; readonly port: number };

/** ECMA-419 UDP, one datagram a call. */
export interface UDP {
  write(datagram: Uint8Array, address: string, port: number): void;
  /** The next datagram, or undefined where none waits. */
  read(): Datagram | undefined;
  close(): void;
}

export interface UDPConstructor {
  new (options: SocketCallbacks): UDP;
}

/** A socket tied to one peer that keeps message boundaries: what CoAP runs over. `DTLSSocket` is one. */
export interface MessageSocket {
  /** Sends one message. Throws before `onWritable` and after `close`. */
  write(message: Uint8Array): void;
  /**
   * The next message, into `buffer`: its length, or undefined where none waits. Of a longer one the buffer gets the
   * beginning, and the length returned exceeds the buffer's.
   */
  read(buffer: Uint8Array): number | undefined;
  /** Ends the socket; may be called again. */
  close(): void;
  /** Ends the socket as `close` does, and keeps the connection for the next wake where that is possible, with `state`. */
  sleep?(state: Uint8Array): void;
  /** What `sleep` was given where this connection is a kept one; undefined for a new one. Known from `onWritable` on. */
  readonly state?: Uint8Array | undefined;
}

/**
 * An ECMA-419 key-value store opened for one path with the format "buffer". A write is atomic and durable; it throws
 * where there is no room or no permission, and the old value stays.
 */
export interface KeyValueStore {
  read(key: string): ArrayBuffer | undefined;
  write(key: string, value: ArrayBufferLike | Uint8Array): void;
  /** A key that is not there is ignored. */
  delete(key: string): void;
  close(): void;
}
