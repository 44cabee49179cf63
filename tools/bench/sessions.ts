/**
 * npm run bench -- --only sessions: the session table against a plain Map, in Node.js and in XS, and against the handshake
 * that a session saves.
 */

import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { clock } from "../../hosts/node/io.js";
import { checkout } from "../../hosts/node/native.js";
import { program } from "../../hosts/node/simulator.js";
import { SessionTable } from "../../src/session/table.js";
import { newFolder, run } from "../../test/support/command.js";
import { type Benchmark, type Context, grouped, medians, type Report } from "./bench.js";
import { now } from "./process.js";
import { mapStore, SESSIONS, type SessionStore, sessionOf, type Times, tableStore, timesOf } from "./session-loop.js";
import { wake } from "./wake.js";

/** What one host needs for the table, and for a Map. Bytes are those of SESSIONS sessions, beside the table's own. */
interface Host {
  readonly table: Times & { readonly bytes: number };
  readonly map: Times & { readonly bytes: number };
  /** Milliseconds of processor time of a full handshake: the association alone in Node.js, a wake in XS. */
  readonly handshake: number;
}

export interface SessionsFigures {
  /** Bytes of the table itself, which survive sleep. */
  readonly tableBytes: number;
  readonly node: Host;
  readonly xs: Host;
}

const ROUNDS = 20_000;
const TABLE_BYTES = SessionTable.byteLength({ slots: SESSIONS, slotBytes: 512 });
/** Stores whose memory is measured together: one alone is less than what the heap changes by. */
const STORES = 2000;

/** Bytes of the heap and outside of it for SESSIONS sessions in a store. */
function bytesOf(make: () => SessionStore): number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const inUse = (): number => {
    collect();
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const before = inUse();
  const stores = Array.from({ length: STORES }, () => {
    const store = make();
    for (let number = 0; number < SESSIONS; number++) {
      store.insert(sessionOf(number));
    }
    return store;
  });
  const bytes = (inUse() - before) / STORES;
  if (stores.some((store) => store.get(sessionOf(0).peer) === undefined)) {
    throw new Error("a session is missing");
  }
  return bytes;
}

async function inXS(): Promise<Omit<Host, "handshake">> {
  const { stdout, stderr, status } = await run(program("simulator"), [
    ...[join(checkout(), "build", "tools", "bench", "xs-sessions.js"), "--state", newFolder()],
  ]);
  if (status !== 0) {
    throw new Error(`the simulator ended with ${status}: ${stderr}`);
  }
  const { heap, table, map } = JSON.parse(stdout) as {
    heap: Record<"table" | "map", { full: number }>;
    table: Times;
    map: Times;
  };
  return { table: { ...table, bytes: heap.table.full - TABLE_BYTES }, map: { ...map, bytes: heap.map.full } };
}

async function measure({ runs, progress, of }: Context): Promise<SessionsFigures> {
  const { association, simulator } = await of(wake);
  const cost = (rows: typeof association): number =>
    rows.find(({ server, protocol, way }) => server === "development" && protocol === "DTLS 1.2" && way === "full")!
      .figures!.cpu;
  progress("in Node.js");
  const make = { table: () => tableStore(clock), map: mapStore };
  const bytes = { table: bytesOf(make.table) - TABLE_BYTES, map: bytesOf(make.map) };
  const node = { table: [] as Times[], map: [] as Times[] };
  const xs = { table: [] as Host["table"][], map: [] as Host["map"][] };
  for (let number = 0; number <= runs; number++) {
    progress(`run ${number} of ${runs}`);
    const times = {
      table: timesOf(make.table(), { rounds: Math.ceil(ROUNDS / runs), now }),
      map: timesOf(make.map(), { rounds: Math.ceil(ROUNDS / runs), now }),
    };
    const device = await inXS();
    if (number > 0) {
      for (const name of ["table", "map"] as const) {
        node[name].push(times[name]);
        xs[name].push(device[name]);
      }
    }
  }
  return {
    tableBytes: TABLE_BYTES,
    node: {
      table: { ...medians(node.table), bytes: bytes.table },
      map: { ...medians(node.map), bytes: bytes.map },
      handshake: cost(association),
    },
    xs: { table: medians(xs.table), map: medians(xs.map), handshake: cost(simulator) },
  };
}

function report({ tableBytes, node, xs }: SessionsFigures): Report {
  const microseconds = (nanoseconds: number): string => (nanoseconds / 1000).toFixed(nanoseconds < 10_000 ? 2 : 1);
  const rows = (name: string, { table, map, handshake }: Host): (string | number)[][] =>
    ([["session table", table, tableBytes] as const, ["Map", map, 0] as const] as const).map(([what, its, own]) => [
      ...[`${name}: ${what}`, microseconds(its.insert), microseconds(its.get), microseconds(its.remove)],
      ...[grouped(own), grouped(its.bytes), `1/${grouped((handshake * 1e6) / (its.insert + its.get))}`],
    ]);
  return {
    title: "The session table",
    parts: [
      `${SESSIONS} sessions of 143 bytes, by session id: microseconds for one call. A Map is quicker and forgets everything in deep ` +
        "sleep; the table lies in memory that survives it, checks each slot, expires sessions and needs no memory that grows. Bytes: " +
        "what survives sleep, and what lies on the heap beside it. The last column compares one `insert` and one `get`, which a " +
        "wake that resumes makes, with the processor time of a full handshake in the same host (the association in Node.js, a wake in XS).",
      {
        head: ["host", "insert µs", "get µs", "remove µs", "bytes kept", "heap bytes", "of a handshake"],
        rows: [...rows("Node.js", node), ...rows("XS", xs)],
      },
    ],
  };
}

export const sessions: Benchmark<SessionsFigures> = {
  name: "sessions",
  about: "the session table against a plain Map, and against the cost of a handshake",
  measure,
  report,
};
