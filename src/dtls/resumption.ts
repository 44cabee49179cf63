/**
 * What is known of each server's ways to resume: most give a session id, some only tickets, some neither. Kept in
 * storage that survives power-off, so that a device does not try in vain at each wake.
 *
 *     const memory = new ResumptionMemory(store);
 *     memory.wayTo(peer);              // "session" for a server not met before
 *     memory.note(peer, "ticket");     // it did not resume by session id
 */

import { joinBytes, readUint, sameBytes, writeUint } from "../bytes.js";
import type { Clock, KeyValueStore } from "../io.js";
import { parseAddress } from "../session/address.js";
import type { Peer } from "../session/table.js";

/** How to ask a server for a session that can be resumed; `full`: it gives none that works. */
export type ResumptionWay = "session" | "ticket" | "full";

const WAYS: readonly ResumptionWay[] = ["session", "ticket", "full"];
const KEY = "resumption";

/*
 * The stored value: up to 4 entries, the newest first.
 *
 *   0               16      18    19    20            24
 *   | address       | port  | way | 0   | when        | …
 *     IPv4 mapped     u16 BE  index       seconds since 1970, u32 BE; 0: not known
 */
const ENTRY_BYTES = 24;
const ENTRIES_MAX = 4;
const PORT = 16;
const WAY = 18;
const WHEN = 20;

/** After so many seconds a server is tried afresh: it may have been updated, or only restarted at a bad moment. */
const FORGET_AFTER = 7 * 86400;

export class ResumptionMemory {
  readonly #store: KeyValueStore;
  readonly #clock: Clock;

  constructor(store: KeyValueStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** What to ask this server for; "session" where nothing is known, or the note is older than a week. */
  wayTo(peer: Peer): ResumptionWay {
    const entries = this.read();
    const at = find(entries, peer);
    if (at < 0) {
      return "session";
    }
    const when = readUint(entries, at + WHEN, 4);
    const now = this.seconds();
    // A note from a time without a clock ends as soon as there is one: its age cannot be known.
    if (now !== 0 && (now < when || now - when > FORGET_AFTER)) {
      return "session";
    }
    return WAYS[entries[at + WAY]!] ?? "session";
  }

  /** Notes what this server can do. Writes only what changes; throws what the store throws. */
  note(peer: Peer, way: ResumptionWay): void {
    if (this.wayTo(peer) === way) {
      return;
    }
    const old = this.read();
    const at = find(old, peer);
    const rest = at < 0 ? old : joinBytes(old.subarray(0, at), old.subarray(at + ENTRY_BYTES));
    const entry = new Uint8Array(ENTRY_BYTES);
    entry.set(parseAddress(peer.address));
    writeUint(entry, PORT, 2, peer.port);
    entry[WAY] = WAYS.indexOf(way);
    writeUint(entry, WHEN, 4, this.seconds());
    this.#store.write(KEY, joinBytes(entry, rest.subarray(0, (ENTRIES_MAX - 1) * ENTRY_BYTES)));
  }

  /** The stored entries; a value of another length is ignored. */
  private read(): Uint8Array {
    const stored = this.#store.read(KEY);
    return stored !== undefined &&
      stored.byteLength % ENTRY_BYTES === 0 &&
      stored.byteLength <= ENTRIES_MAX * ENTRY_BYTES
      ? new Uint8Array(stored)
      : new Uint8Array();
  }

  private seconds(): number {
    return Math.floor((this.#clock.time ?? 0) / 1000);
  }
}

function find(entries: Uint8Array, peer: Peer): number {
  const address = parseAddress(peer.address);
  for (let at = 0; at < entries.length; at += ENTRY_BYTES) {
    if (readUint(entries, at + PORT, 2) === peer.port && sameBytes(address, entries.subarray(at, at + PORT))) {
      return at;
    }
  }
  return -1;
}
