/**
 * npm run bench -- --only memory: what each operation costs the device's memory by each way back, in the simulator, by DTLS 1.2
 * over mbedTLS and by DTLS 1.3 over wolfSSL. A figure that exceeds the one recorded in memory-limits.json is a failure.
 *
 *     npm run bench:memory              the table, compared with the recorded limits
 *     npm run bench:memory -- --record  records the figures as the new limits
 *     npm run bench:memory -- --parts   also what lies in the XS heap at its largest, operation by operation
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import type { WakeLine } from "../../hosts/node/result.js";
import type { Protocol } from "../../src/dtls/engine.js";
import { wakeProcess } from "../wake-process.js";
import { type Benchmark, beside, type Context, grouped, type Report, type Table } from "./bench.js";
import { factoryFiles } from "./process.js";
import { forkServer } from "./server.js";
import { ENGINES, named, PROTOCOLS } from "./ways.js";

/** Bytes. */
interface Figures {
  /** Slots, chunks and stack, each at its own peak: more than there is at any one time. */
  readonly xsPeak: number;
  readonly dtlsPeak: number;
  /** While the association is open and nothing is done. */
  readonly xsSteady: number;
  readonly dtlsSteady: number;
}

export interface MemoryRow extends Figures {
  /** Of the limit. */
  readonly name: string;
  /** The same for both protocols. */
  readonly wake: string;
  readonly protocol: Protocol;
  readonly slots: number;
  readonly chunks: number;
  readonly stack: number;
}

type Limits = Readonly<Record<string, Figures>>;

const COLUMNS = ["xsPeak", "dtlsPeak", "xsSteady", "dtlsSteady"] as const;

/**
 * What figures differ by from run to run: signatures in DER have some bytes more or less, and with them certificates and
 * what holds them; the heap of XS grows in steps of 256 bytes, for slots and for chunks.
 */
const VARIATION = { xsPeak: 640, dtlsPeak: 128, xsSteady: 128, dtlsSteady: 128 };

/** `way` is what must come of it; it is told by its operation and way unless it has a name. */
interface Wake {
  readonly args: readonly string[];
  readonly way: string;
  readonly name?: string;
}

const hybrid = (group: string): Wake => ({
  name: `crts full, ${group}`,
  args: ["crts", "--resume", "none", "--groups", group],
  way: "full",
});

/** In this order on one device: what its table holds decides the way. */
const WAKES: Readonly<Record<Protocol, readonly Wake[]>> = {
  "DTLS 1.2": [
    { args: ["run"], way: "full" },
    { args: ["crts"], way: "full" },
    { args: ["crts"], way: "context" },
    { args: ["att"], way: "context" },
    { args: ["sren"], way: "context" },
    { name: "crts full, asking for a session", args: ["crts", "--resume", "session"], way: "full" },
    { args: ["crts", "--resume", "session"], way: "session" },
    { args: ["sren", "--resume", "session"], way: "session" },
    { name: "crts full, asking for a ticket", args: ["crts", "--resume", "ticket"], way: "full" },
    { args: ["crts", "--resume", "ticket"], way: "ticket" },
    { args: ["sren", "--resume", "ticket"], way: "ticket" },
  ],
  // A full handshake brings a ticket without being asked.
  "DTLS 1.3": [
    { args: ["run"], way: "full" },
    { args: ["crts"], way: "full" },
    { args: ["crts"], way: "ticket" },
    { args: ["att"], way: "ticket" },
    { name: "crts ticket, psk alone", args: ["crts", "--psk-alone"], way: "ticket" },
    { args: ["sren"], way: "ticket" },
    hybrid("X25519MLKEM768"),
    hybrid("SecP256r1MLKEM768"),
  ],
};
const BLOCKS = ["512", "1024"];

export const limitsFile = (): string => join(checkout(), "tools", "bench", "memory-limits.json");

export interface MemoryFigures {
  readonly bits: 32 | 64;
  readonly rows: readonly MemoryRow[];
}

/** With their names in the table. */
function wakesOf(protocol: Protocol, block: string): { wake: string; args: readonly string[]; way: string }[] {
  return WAKES[protocol].map(({ args, way, name = `${args[0]} ${way}` }) => ({ wake: `${name}, ${block}`, args, way }));
}

/** The names of all limits that there must be. */
export function limitNames(): string[] {
  return PROTOCOLS.flatMap((protocol) =>
    BLOCKS.flatMap((block) => wakesOf(protocol, block).map(({ wake }) => named(wake, protocol))),
  );
}

async function measureAll(
  protocol: Protocol,
  dir: string,
  { parts, progress }: Pick<Context, "parts" | "progress">,
): Promise<MemoryRow[]> {
  const engine = ENGINES[protocol];
  const est = join(dir, engine);
  const server = await forkServer({ kind: "development", dir: est, engine });
  const rows: MemoryRow[] = [];
  try {
    const { trust, certificate, key } = factoryFiles(est);
    for (const block of BLOCKS) {
      const common = [
        ...["--server", `coaps://127.0.0.1:${server.port}`, "--host", "simulator", "--block", block],
        ...["--trust", trust, "--cert", certificate, "--key", key],
        ...["--state", join(dir, `device-${engine}-${block}`), ...(parts ? ["--census"] : [])],
      ];
      for (const { wake, args, way } of wakesOf(protocol, block)) {
        const name = named(wake, protocol);
        progress(name);
        const { json, errors: census } = await wakeProcess([...args, ...common], engine);
        const line = JSON.parse(json) as WakeLine;
        const { xs, xsPeak, dtlsPeak, xsSteady, dtlsSteady } = line.heap;
        const isAsWanted = line.way === way && line.protocol === protocol;
        if (!isAsWanted || xs === undefined || xsSteady === undefined || dtlsSteady === undefined) {
          throw new Error(`${name}: expected a wake by ${way} with heap figures, got ${JSON.stringify(line)}`);
        }
        rows.push({ name, wake, protocol, xsPeak, ...xs, dtlsPeak, xsSteady, dtlsSteady });
        if (parts) {
          process.stdout.write(`== ${name}\n${census}\n`);
        }
      }
    }
  } finally {
    await server.stop();
  }
  return rows;
}

/** What exceeds its limit, in sentences. */
export function excesses(rows: readonly (Figures & { name: string })[], limits: Limits): string[] {
  const sentences: string[] = [];
  for (const row of rows) {
    const limit = limits[row.name];
    if (limit === undefined) {
      sentences.push(`${row.name}: no limit is recorded`);
      continue;
    }
    for (const column of COLUMNS) {
      if (row[column] > limit[column]) {
        sentences.push(`${row.name}: ${column} is ${row[column]} bytes, its limit ${limit[column]}`);
      }
    }
  }
  return sentences;
}

/** Makes the figures the new limits. */
export function record({ bits, rows }: MemoryFigures): void {
  if (bits === 64) {
    throw new Error("the limits are those of 32-bit slots, a device's: nothing is recorded here");
  }
  const limits: Record<string, Figures> = {};
  for (const row of rows) {
    const { name, xsPeak, dtlsPeak, xsSteady, dtlsSteady } = row;
    limits[name] = {
      xsPeak: xsPeak + VARIATION.xsPeak,
      dtlsPeak: dtlsPeak + VARIATION.dtlsPeak,
      xsSteady: xsSteady + VARIATION.xsSteady,
      dtlsSteady: dtlsSteady + VARIATION.dtlsSteady,
    };
  }
  writeFileSync(limitsFile(), `${JSON.stringify(limits, undefined, 2)}\n`);
}

async function measure(context: Context): Promise<MemoryFigures> {
  const { bits } = JSON.parse(readFileSync(join(checkout(), "build", "native.json"), "utf8")) as { bits: 32 | 64 };
  const dir = mkdtempSync(join(tmpdir(), "torpor-bench-"));
  try {
    const rows: MemoryRow[] = [];
    for (const protocol of PROTOCOLS) {
      rows.push(...(await measureAll(protocol, dir, context)));
    }
    return { bits, rows };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const COLUMNS_SHOWN = ["XS peak", "slots", "chunks", "stack", "DTLS peak", "XS, open", "DTLS, open"] as const;

const cellsOf = (row: MemoryRow | undefined): string[] =>
  row === undefined
    ? COLUMNS_SHOWN.map(() => "–")
    : [row.xsPeak, row.slots, row.chunks, row.stack, row.dtlsPeak, row.xsSteady, row.dtlsSteady].map(grouped);

/** A row for each wake of either protocol, the blocks of one size together. */
function tableOf(rows: readonly MemoryRow[]): Table {
  const wakes = BLOCKS.flatMap((block) => [
    ...new Set(rows.map(({ wake }) => wake).filter((wake) => wake.endsWith(`, ${block}`))),
  ]);
  const find = (its: string, of: Protocol): MemoryRow | undefined =>
    rows.find(({ wake, protocol }) => wake === its && protocol === of);
  return {
    head: ["wake", ...beside(PROTOCOLS, COLUMNS_SHOWN)],
    rows: wakes.map((wake) => [wake, ...PROTOCOLS.flatMap((protocol) => cellsOf(find(wake, protocol)))]),
  };
}

function report({ bits, rows }: MemoryFigures): Report {
  const past = bits === 64 ? [] : excesses(rows, JSON.parse(readFileSync(limitsFile(), "utf8")) as Limits);
  return {
    title: "Memory",
    parts: [
      `Bytes of heap in the simulator (slots of ${bits === 32 ? 16 : 32} bytes) by operation, way back and block size. DTLS 1.2 is by ` +
        "mbedTLS, DTLS 1.3 by wolfSSL, whose heap has mbedTLS's crypto in it. XS peak is slots, chunks and stack, each at its own peak; open: in use while the association is open and nothing is done. " +
        "[memory.md](memory.md) has it part by part.",
      tableOf(rows),
      bits === 64
        ? "The recorded limits are those of 32-bit slots, a device's: not compared."
        : past.length === 0
          ? "All within the recorded limits."
          : past.join("\n"),
    ],
    excesses: past,
  };
}

export const memory: Benchmark<MemoryFigures> = {
  name: "memory",
  about: "the device's heap by operation, way back and block size, by both DTLS engines, against recorded limits",
  measure,
  report,
};
