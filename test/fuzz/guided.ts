/**
 * A coverage-guided fuzzer of what src/ reads: an input that takes a new branch, or one more often than any before, is
 * kept and changed further. scripts/fuzz.mjs starts it, a process for each fuzzer of readers.ts.
 *
 *     node build/test/fuzz/guided.js NAME --kept DIR --found DIR --seconds N --seed N --findings DIR
 *     node build/test/fuzz/guided.js NAME --input FILE      one input, without counters: errors show true lines
 *
 * --kept and --found are read at the start, new inputs go to --found. With --merge DIR nothing is made: of all inputs
 * those that are needed for the coverage go there, shortest first. The last line of standard output is one of JSON:
 * executions, branches taken, inputs, and the finding if there was one; exit status 1 then.
 */

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { register } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { COUNTERS } from "./instrument.js";
import { mutate } from "./mutate.js";
import { Random } from "./random.js";

const text = { type: "string" } as const;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { kept: text, found: text, findings: text, merge: text, seconds: text, seed: text, input: text },
});
const name = positionals[0] ?? "";
const LIMIT = 4096;
/** Seconds that one input may take, on a machine with other work to do. */
const PATIENCE = 20;

const coverage = new Uint8Array(COUNTERS);
const literals = new Set<string>();
Object.assign(globalThis, { torporFuzz: { coverage, literals } });
if (values.input === undefined) {
  register("./instrument.js", import.meta.url);
}
const { fuzzers } = await import("./readers.js");
const fuzzer = fuzzers[name];
if (fuzzer === undefined) {
  throw new Error(`there is no fuzzer "${name}": ${Object.keys(fuzzers).join(", ")}`);
}

if (values.input !== undefined) {
  fuzzer.run(Uint8Array.from(readFileSync(values.input)));
  process.exit(0);
}

function inputsIn(folder: string | undefined): Uint8Array[] {
  return folder === undefined || !existsSync(folder)
    ? []
    : readdirSync(folder)
        .sort()
        .map((file) => Uint8Array.from(readFileSync(join(folder, file))));
}

const nameOf = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex").slice(0, 16);

function keep(folder: string, bytes: Uint8Array): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, nameOf(bytes));
  writeFileSync(path, bytes);
  return path;
}

// An input without end stops this thread: another one keeps the input, and ends the process.
const shared = new Int32Array(new SharedArrayBuffer(4 * 2));
const current = new Uint8Array(new SharedArrayBuffer(LIMIT));
const watchdog = new Worker(
  `const { workerData: { shared, current, folder, patience } } = require("node:worker_threads");
   const { mkdirSync, writeFileSync } = require("node:fs");
   let last = -1, since = 0;
   setInterval(() => {
     if (shared[0] !== last) { last = shared[0]; since = 0; return; }
     if (++since < patience) return;
     mkdirSync(folder, { recursive: true });
     writeFileSync(folder + "/endless", current.slice(0, shared[1]));
     require("node:fs").writeSync(1, JSON.stringify({ finding: "takes more than " + patience + " s", input: folder + "/endless" }) + "\\n");
     process.kill(process.pid, "SIGKILL");
   }, 1000);`,
  { eval: true, workerData: { shared, current, folder: values.findings ?? ".", patience: PATIENCE } },
);
watchdog.unref();

const seen = new Uint8Array(COUNTERS);
const corpus: Uint8Array[] = [];
let executions = 0;
let branches = 0;
let finding: { finding: string; input: string } | undefined;

/** How often as one of eight steps, a bit each. */
const step = (count: number): number =>
  count > 127 ? 128 : count > 31 ? 64 : count > 15 ? 32 : count > 7 ? 16 : count > 3 ? 8 : count > 2 ? 4 : count;

/** Runs one input; whether it went where none before it did. */
function attempt(bytes: Uint8Array): boolean {
  coverage.fill(0);
  current.set(bytes);
  shared[1] = bytes.length;
  shared[0] = ++executions;
  try {
    fuzzer!.run(bytes);
  } catch (error) {
    const input = keep(values.findings ?? ".", bytes);
    finding = { finding: error instanceof Error ? (error.stack ?? error.message) : String(error), input };
    return false;
  }
  let isNew = false;
  for (let index = 0; index < COUNTERS; index++) {
    const count = coverage[index]!;
    if (count !== 0) {
      const bits = seen[index]! | step(count);
      if (bits !== seen[index]) {
        if (seen[index] === 0) branches++;
        seen[index] = bits;
        isNew = true;
      }
    }
  }
  return isNew;
}

const started = performance.now();
const known = [...fuzzer.seeds(), ...inputsIn(values.kept), ...inputsIn(values.found)].map((bytes) =>
  bytes.slice(0, LIMIT),
);
if (values.merge !== undefined) {
  known.sort((one, other) => one.length - other.length);
}
for (const bytes of known) {
  if (attempt(bytes)) {
    corpus.push(bytes);
    if (values.merge !== undefined) keep(values.merge, bytes);
  }
  if (finding !== undefined) break;
}

const end = values.merge === undefined ? started + 1000 * Number(values.seconds ?? 0) : 0;
const random = new Random(Number(values.seed ?? 1));
const words = [...literals].map((literal) => Uint8Array.from(Buffer.from(literal, "latin1")));
let told = started;
while (finding === undefined && corpus.length > 0 && performance.now() < end) {
  for (let turn = 0; turn < 200 && finding === undefined; turn++) {
    // Newer ones more often: they have been tried least.
    const at = random.chance(2)
      ? random.below(corpus.length)
      : corpus.length - 1 - random.below(Math.min(20, corpus.length));
    const bytes = mutate(corpus[at]!, random.pick(corpus), words, random, LIMIT);
    if (attempt(bytes)) {
      corpus.push(bytes);
      if (values.found !== undefined) keep(values.found, bytes);
    }
  }
  if (performance.now() - told > 10000) {
    told = performance.now();
    process.stderr.write(`${name}: ${executions} executions, ${branches} branches, ${corpus.length} inputs\n`);
  }
}
const seconds = (performance.now() - started) / 1000;
process.stdout.write(
  `${JSON.stringify({ executions, branches, inputs: corpus.length, seconds: Math.round(seconds), ...finding })}\n`,
);
process.exit(finding === undefined ? 0 : 1);
