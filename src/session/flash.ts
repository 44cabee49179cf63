/**
 * The bytes of a session table in key-value storage, for devices without memory that survives sleep: the header under
 * one key, each slot under its own. What lies there is sealed (see seal.ts).
 *
 *     const flash = new FlashBytes(store, { slots: 4, slotBytes: 512 });
 *     const table = new SessionTable(flash.bytes, { …, seal: new DeviceSealer(), commit: () => flash.commit() });
 *
 * Using a context writes the header alone, 52 bytes with 4 slots; keeping one writes its slot, then the header.
 */

import { readUint } from "../bytes.js";
import type { KeyValueStore } from "../io.js";
import { SessionTable, type SessionTableGeometry } from "./table.js";

const HEADER = "sessions";
const slotKey = (index: number): string => `session-${index}`;

/** Bytes of the check that a slot begins with: they differ where the slot does. */
const CHECK_BYTES = 4;

export class FlashBytes {
  /** The whole table. */
  readonly bytes: Uint8Array;
  readonly #store: KeyValueStore;
  readonly #headerLength: number;
  readonly #slotBytes: number;
  /** The check of each slot as it is stored; 0 where none is. */
  readonly #stored: Uint32Array;

  /** Reads what is stored; what is missing, or of another length than this geometry has, is zero. */
  constructor(store: KeyValueStore, { slots, slotBytes }: Required<SessionTableGeometry>) {
    this.#store = store;
    this.#slotBytes = slotBytes;
    this.#headerLength = SessionTable.headerLength(slots);
    this.#stored = new Uint32Array(slots);
    this.bytes = new Uint8Array(SessionTable.byteLength({ slots, slotBytes }));
    this.load(HEADER, 0, this.#headerLength);
    for (let index = 0; index < slots; index++) {
      this.load(slotKey(index), this.slotAt(index), slotBytes);
      this.#stored[index] = this.checkOf(index);
    }
  }

  /** Writes what has changed: slots first, the header last. Throws what the store throws; the next call tries again. */
  commit(): void {
    for (let index = 0; index < this.#stored.length; index++) {
      const check = this.checkOf(index);
      if (check !== this.#stored[index]) {
        this.write(index);
        this.#stored[index] = check;
      }
    }
    this.#store.write(HEADER, this.bytes.slice(0, this.#headerLength));
  }

  private slotAt(index: number): number {
    return this.#headerLength + index * this.#slotBytes;
  }

  private checkOf(index: number): number {
    return readUint(this.bytes, this.slotAt(index), CHECK_BYTES);
  }

  private load(key: string, at: number, length: number): void {
    const stored = this.#store.read(key);
    if (stored !== undefined && stored.byteLength <= length) {
      this.bytes.set(new Uint8Array(stored), at);
    }
  }

  /** Without the zeros at its end; an empty slot is erased. */
  private write(index: number): void {
    const at = this.slotAt(index);
    let end = at + this.#slotBytes;
    while (end > at && this.bytes[end - 1] === 0) {
      end--;
    }
    if (end === at) {
      this.#store.delete(slotKey(index));
    } else {
      this.#store.write(slotKey(index), this.bytes.slice(at, end));
    }
  }
}
