/**
 * Where the schedule's memory and a request on its way are kept in storage: each one record, written at once. A record
 * that is corrupt counts as none: the device starts from what its certificates say.
 *
 *     const life = readLife(store);
 *     writeLife(store, livedOn(life, now, outcome, Math.random()));
 */

import { joinBytes, readUint, sameBytes, writeUint } from "../bytes.js";
import { lengthUTF8, readUTF8, writeUTF8 } from "../coap/utf8.js";
import type { KeyValueStore } from "../io.js";
import { type KeyId, sha256 } from "../pki/key.js";
import { type Life, NEW_LIFE } from "./schedule.js";

const LIFE = "life";
const PENDING = "pending";
const ATTRIBUTES = "csrattrs";

const CHECK_BYTES = 8;

function seal(content: Uint8Array): Uint8Array {
  return joinBytes(sha256(content).subarray(0, CHECK_BYTES), content);
}

/** The content of a record; undefined where there is none, or it is corrupt or too short. */
function open(store: KeyValueStore, key: string, least: number): Uint8Array | undefined {
  const record = store.read(key);
  if (record === undefined || record.byteLength < CHECK_BYTES + least) {
    return undefined;
  }
  const bytes = new Uint8Array(record);
  const content = bytes.subarray(CHECK_BYTES);
  return sameBytes(bytes.subarray(0, CHECK_BYTES), sha256(content).subarray(0, CHECK_BYTES)) ? content : undefined;
}

/*
 * "life", after 8 bytes of its hash:
 *
 *   0      6        12      16          22        28         29         30          31
 *   | time | uptime | sleep | trustedAt | retryAt | failures | refusals | distrusts | error, UTF-8 …
 *           ff…: none
 */
const UPTIME = 6;
const SLEEP = 12;
const TRUSTED_AT = 16;
const RETRY_AT = 22;
const FAILURES = 28;
const REFUSALS = 29;
const DISTRUSTS = 30;
const ERROR = 31;
const NO_UPTIME = 0xffffffffffff;
const ERROR_CHARACTERS = 120;

export function readLife(store: KeyValueStore): Life {
  const bytes = open(store, LIFE, ERROR);
  if (bytes === undefined) {
    return NEW_LIFE;
  }
  const uptime = readUint(bytes, UPTIME, 6);
  return {
    time: readUint(bytes, 0, 6),
    uptime: uptime === NO_UPTIME ? undefined : uptime,
    sleep: readUint(bytes, SLEEP, 4),
    trustedAt: readUint(bytes, TRUSTED_AT, 6),
    retryAt: readUint(bytes, RETRY_AT, 6),
    failures: bytes[FAILURES]!,
    refusals: bytes[REFUSALS]!,
    distrusts: bytes[DISTRUSTS]!,
    error: readUTF8(bytes.subarray(ERROR)),
  };
}

/** @throws what the store throws. */
export function writeLife(store: KeyValueStore, life: Life): void {
  // Errors are Torpor's own sentences; what a server said in one may be cut within a pair of surrogates.
  // An empty one as it is: XS 13 reads beyond the empty string in a replacement.
  const error = life.error === "" ? "" : life.error.slice(0, ERROR_CHARACTERS).replace(/[^\u0020-\u007e]/g, "?");
  const bytes = new Uint8Array(ERROR + lengthUTF8(error));
  writeUint(bytes, 0, 6, life.time);
  writeUint(bytes, UPTIME, 6, life.uptime ?? NO_UPTIME);
  writeUint(bytes, SLEEP, 4, Math.min(life.sleep, 0xffffffff));
  writeUint(bytes, TRUSTED_AT, 6, life.trustedAt);
  writeUint(bytes, RETRY_AT, 6, life.retryAt);
  bytes[FAILURES] = life.failures;
  bytes[REFUSALS] = life.refusals;
  bytes[DISTRUSTS] = life.distrusts;
  writeUTF8(error, bytes, ERROR);
  store.write(LIFE, seal(bytes));
}

/** A certificate request that was sent and has no answer yet. */
export interface Pending {
  readonly operation: "sen" | "sren";
  readonly key: KeyId;
  /** A hash of what it asks for, signature and proof of possession left aside. */
  readonly wishes: Uint8Array;
  /** PKCS #10, DER; empty where it is made for each connection, for a proof of possession. */
  readonly request: Uint8Array;
}

/*
 * "pending", after 8 bytes of its hash:
 *
 *   0           1     5        13
 *   | operation | key | wishes | request …
 */
const KEY = 1;
const WISHES = 5;
const REQUEST = 13;
const WISHES_BYTES = REQUEST - WISHES;
const SEN = 0;
const SREN = 1;

export function readPending(store: KeyValueStore): Pending | undefined {
  const bytes = open(store, PENDING, REQUEST);
  return (
    bytes && {
      operation: bytes[0] === SEN ? "sen" : "sren",
      key: readUint(bytes, KEY, 4),
      wishes: bytes.subarray(WISHES, REQUEST),
      request: bytes.subarray(REQUEST),
    }
  );
}

/** @throws what the store throws. */
export function writePending(store: KeyValueStore, { operation, key, wishes, request }: Pending): void {
  const head = new Uint8Array(WISHES);
  head[0] = operation === "sen" ? SEN : SREN;
  writeUint(head, KEY, 4, key);
  store.write(PENDING, seal(joinBytes(head, wishes.subarray(0, WISHES_BYTES), request)));
}

export function deletePending(store: KeyValueStore): void {
  store.delete(PENDING);
}

/** What the server wished last to see in a request: the body of att. Undefined where it was never asked. */
export function readWishes(store: KeyValueStore): Uint8Array | undefined {
  return open(store, ATTRIBUTES, 0);
}

/** Writes only where it has changed. @throws what the store throws. */
export function writeWishes(store: KeyValueStore, body: Uint8Array): void {
  const before = readWishes(store);
  if (before === undefined || !sameBytes(before, body)) {
    store.write(ATTRIBUTES, seal(body));
  }
}

/** Erases all that is kept here. */
export function deleteLife(store: KeyValueStore): void {
  store.delete(LIFE);
  store.delete(PENDING);
  store.delete(ATTRIBUTES);
}
