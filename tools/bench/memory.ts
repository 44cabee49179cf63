/**
 * npm run bench -- --only memory: what each operation costs the device's memory by each way back, in the simulator. A
 * figure that exceeds the one recorded in memory-limits.json is a failure.
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
import { type EstServer, startEstServer } from "../est-server/server.js";
import { wakeProcess } from "../wake-process.js";
import { type Benchmark, type Context, grouped, type Report } from "./bench.js";

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
  readonly name: string;
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

/** In this order on one device: what its table holds decides the way. `way` is what must come of it. */
const WAKES: readonly { args: readonly string[]; way: string }[] = [
  { args: ["run"], way: "full" },
  { args: ["crts"], way: "full" },
  { args: ["crts"], way: "context" },
  { args: ["att"], way: "context" },
  { args: ["sren"], way: "context" },
  { args: ["crts", "--resume", "session"], way: "full" },
  { args: ["crts", "--resume", "session"], way: "session" },
  { args: ["sren", "--resume", "session"], way: "session" },
  { args: ["crts", "--resume", "ticket"], way: "full" },
  { args: ["crts", "--resume", "ticket"], way: "ticket" },
  { args: ["sren", "--resume", "ticket"], way: "ticket" },
];
const BLOCKS = ["512", "1024"];

const limitsFile = (): string => join(checkout(), "tools", "bench", "memory-limits.json");

export interface MemoryFigures {
  readonly bits: 32 | 64;
  readonly rows: readonly MemoryRow[];
}

async function measureAll(
  server: EstServer,
  dir: string,
  { parts, progress }: Pick<Context, "parts" | "progress">,
): Promise<MemoryRow[]> {
  const rows: MemoryRow[] = [];
  for (const block of BLOCKS) {
    const common = [
      ...["--server", `coaps://127.0.0.1:${server.port}`, "--host", "simulator", "--block", block],
      ...["--trust", join(dir, "ca.pem"), "--cert", join(dir, "factory.pem"), "--key", join(dir, "factory.key")],
      ...["--state", join(dir, `device-${block}`), ...(parts ? ["--census"] : [])],
    ];
    for (const { args, way } of WAKES) {
      progress(`${args.join(" ")}, blocks of ${block} bytes`);
      const { json, errors: census } = await wakeProcess([...args, ...common]);
      const line = JSON.parse(json) as WakeLine;
      const name = `${args[0]} ${way === "full" && args.length > 1 ? `full, asking for a ${args[2]}` : way}, ${block}`;
      const { xs, xsPeak, dtlsPeak, xsSteady, dtlsSteady } = line.heap;
      if (line.way !== way || xs === undefined || xsSteady === undefined || dtlsSteady === undefined) {
        throw new Error(`${name}: expected a wake by ${way} with heap figures, got ${JSON.stringify(line)}`);
      }
      rows.push({ name, xsPeak, ...xs, dtlsPeak, xsSteady, dtlsSteady });
      if (parts) {
        process.stdout.write(`== ${name}\n${census}\n`);
      }
    }
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
  const server = await startEstServer({ dir });
  try {
    return { bits, rows: await measureAll(server, dir, context) };
  } finally {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

function report({ bits, rows }: MemoryFigures): Report {
  const past = bits === 64 ? [] : excesses(rows, JSON.parse(readFileSync(limitsFile(), "utf8")) as Limits);
  return {
    title: "Memory",
    parts: [
      `Bytes of heap in the simulator (slots of ${bits === 32 ? 16 : 32} bytes) by operation, way back and block size. XS peak is slots, ` +
        "chunks and stack, each at its own peak; open: in use while the association is open and nothing is done. " +
        "[memory.md](memory.md) has it part by part.",
      {
        head: ["wake", "XS peak", "slots", "chunks", "stack", "DTLS peak", "XS, open", "DTLS, open"],
        rows: rows.map((row) => [
          row.name,
          ...[row.xsPeak, row.slots, row.chunks, row.stack, row.dtlsPeak, row.xsSteady, row.dtlsSteady].map(grouped),
        ]),
      },
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
  about: "the device's heap by operation, way back and block size, against recorded limits",
  measure,
  report,
};
