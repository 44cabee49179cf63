/**
 * A program for the simulator: what sessions take in XS, of time and of the heap, in the session table and in a plain Map.
 *
 *     simulator build/tools/bench/xs-sessions.js --state DIR
 */

import { clock } from "../../hosts/simulator/io.js";
import { mapStore, SESSIONS, type SessionStore, sessionOf, tableStore, timesOf } from "./session-loop.js";

const ROUNDS = 100;

const inUse = (): number => native("xs_host_heap").call(undefined, 4) + native("xs_host_heap").call(undefined, 5);
const now = (): number => native("xs_host_cpu").call(undefined);

function heapOf(make: () => SessionStore): { empty: number; full: number } {
  const before = inUse();
  const store = make();
  const empty = inUse() - before;
  for (let number = 0; number < SESSIONS; number++) {
    store.insert(sessionOf(number));
  }
  const full = inUse() - before;
  if (store.get(sessionOf(0).peer) === undefined) {
    throw new Error("a session is missing"); // and the store must live until here
  }
  return { empty, full };
}

export default function run(): void {
  inUse(); // what the first call makes is nobody's
  const heap = { table: heapOf(() => tableStore(clock)), map: heapOf(mapStore) };
  const table = timesOf(tableStore(clock), { rounds: ROUNDS, now });
  const map = timesOf(mapStore(), { rounds: ROUNDS, now });
  native("xs_host_report").call(undefined, JSON.stringify({ heap, table, map }), 0);
}
