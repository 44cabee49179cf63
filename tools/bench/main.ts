/**
 * npm run bench: all benchmarks in turn; prints their tables, and writes docs/bench.md and docs/wake.svg.
 *
 *     npm run bench -- --only start --runs 30
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { checkout } from "../../hosts/node/native.js";
import { slotsNotice } from "../../hosts/node/simulator.js";
import { battery } from "./battery.js";
import { type Benchmark, type Context, markdown, type Report } from "./bench.js";
import { blocks } from "./blocks.js";
import { comparison } from "./libcoap.js";
import { loss } from "./loss.js";
import { machine, machineText } from "./machine.js";
import { type MemoryFigures, memory, record } from "./memory.js";
import { barsOf, picture } from "./picture.js";
import { sessions } from "./sessions.js";
import { size } from "./size.js";
import { start } from "./start.js";
import { type WakesFigures, wake } from "./wake.js";

const BENCHMARKS = [
  wake,
  comparison,
  start,
  sessions,
  blocks,
  loss,
  memory,
  size,
  battery,
] as readonly Benchmark<unknown>[];

const RUNS = 15;
const RUNS_MAX = 1000;

const names = BENCHMARKS.map(({ name }) => name);

const HELP = `npm run bench: measures what a wake costs; prints tables, and writes docs/bench.md and docs/wake.svg

  npm run bench -- [--only NAME] [--runs N] [--json] [--out DIR]

  --only NAME  this one alone, which may be given several times; nothing is written unless --out is given
${BENCHMARKS.map(({ name, about }) => `                 ${name.padEnd(9)} ${about}`).join("\n")}
  --runs N     how often each thing is done, 1 to ${RUNS_MAX} (${RUNS}); what is told are medians
  --out DIR    where bench.md and wake.svg are written (docs)
  --json       one object with all figures on standard output, by the names above
  --parts      with memory: also what lies in the XS heap at its largest, operation by operation
  --record     with memory: makes the figures the new limits

Exit status 0: done. 1: something failed, or is more than its recorded limit; one line on standard error tells what.
`;

const INTRODUCTION = `# What it costs

Written by \`npm run bench\`, which measures all of it in one run; not changed by hand. Times are those of this machine: what they say
is how the rows of a table compare. Bytes, datagrams and round trips are the same on every machine, but for one or two bytes of each
ECDSA signature.`;

/** @returns the exit status */
export async function main(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      only: { type: "string", multiple: true, default: [] },
      runs: { type: "string", default: String(RUNS) },
      out: { type: "string" },
      json: { type: "boolean", default: false },
      parts: { type: "boolean", default: false },
      record: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const runs = Number(values.runs);
  if (!Number.isInteger(runs) || runs < 1 || runs > RUNS_MAX) {
    throw new Error(`--runs takes a whole number from 1 to ${RUNS_MAX}, not "${values.runs}"`);
  }
  const unknown = values.only.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new Error(`--only takes one of ${names.join(", ")}, not "${unknown}"`);
  }
  const chosen = BENCHMARKS.filter(({ name }) => values.only.length === 0 || values.only.includes(name));
  const measured = new Map<string, unknown>();
  const options = { runs, parts: values.parts };
  const reports: Report[] = [];
  for (const benchmark of chosen) {
    const figures = await figuresOf(benchmark, options, measured);
    if (values.record && benchmark.name === memory.name) {
      record(figures as MemoryFigures);
    }
    const report = benchmark.report(figures);
    reports.push(report);
    if (!values.json) {
      process.stdout.write(`${markdown(report)}\n\n`);
    }
  }
  const found = { machine: machine(), runs };
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ ...found, ...Object.fromEntries(measured) })}\n`);
  } else {
    process.stdout.write(`${machineText(found)}\n`);
  }
  const out = values.out ?? (values.only.length === 0 ? join(checkout(), "docs") : undefined);
  if (out !== undefined) {
    mkdirSync(out, { recursive: true });
    const text = [INTRODUCTION, machineText(found), ...reports.map(markdown)].join("\n\n");
    writeFileSync(join(out, "bench.md"), `${text}\n`);
    const wakes = measured.get(wake.name) as WakesFigures | undefined;
    if (wakes !== undefined) {
      writeFileSync(join(out, "wake.svg"), picture(barsOf(wakes.simulator)));
    }
  }
  const notice = slotsNotice();
  if (notice !== undefined) {
    process.stderr.write(`${notice}\n`);
  }
  const excesses = reports.flatMap((report) => report.excesses ?? []);
  for (const sentence of excesses) {
    process.stderr.write(`torpor: ${sentence}\n`);
  }
  return excesses.length === 0 ? 0 : 1;
}

/** What a benchmark measures, once. */
async function figuresOf<Data>(
  benchmark: Benchmark<Data>,
  options: Pick<Context, "runs" | "parts">,
  measured: Map<string, unknown>,
): Promise<Data> {
  const { name } = benchmark;
  if (!measured.has(name)) {
    const context: Context = {
      ...options,
      progress: (what) => tell(`  ${name}: ${what} …`),
      of: (other) => figuresOf(other, options, measured),
    };
    const begun = Date.now();
    const data = await benchmark.measure(context);
    tell(`  ${name}: done in ${((Date.now() - begun) / 1000).toFixed(1)} s`, "last");
    measured.set(name, data);
  }
  return measured.get(name) as Data;
}

/** Progress: on a terminal each line takes the place of the one before. */
function tell(line: string, place?: "last"): void {
  if (process.stderr.isTTY) {
    process.stderr.write(`\r\x1b[2K${line}${place === "last" ? "\n" : ""}`);
  } else if (place === "last") {
    process.stderr.write(`${line}\n`);
  }
}
