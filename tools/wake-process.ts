/**
 * The command line as a process of its own, for the timeline, the lab and the benchmarks.
 *
 *     const { json, errors } = await wakeProcess(["crts", "--server", …]);
 */

import { join } from "node:path";
import { checkout, engineName } from "../hosts/node/native.js";
import { type Finished, run, start } from "./process.js";

/** The program `torpor`, compiled. */
export const torporProgram = (): string => join(checkout(), "build", "hosts", "node", "torpor.js");

/** What a process printed. Rejects where it failed, with what it said on standard error. */
async function outputOf(finished: Promise<Finished>): Promise<{ json: string; errors: string }> {
  const { status, stdout, stderr } = await finished;
  if (status !== 0) {
    throw new Error(stderr.trim() || `the wake ended with status ${status}`);
  }
  return { json: stdout.trim(), errors: stderr };
}

/**
 * A wake's line of JSON, and what it said on standard error. Rejects where it failed, with what it said. The engine is that of
 * this process unless told.
 */
export function wakeProcess(
  args: readonly string[],
  engine: string = engineName(),
): Promise<{ json: string; errors: string }> {
  const command = [torporProgram(), ...args, "--engine", engine, "--json"];
  return outputOf(run(process.execPath, command));
}

export interface TorporProcess {
  /** What it printed. Rejects where it failed, with what it said. */
  readonly output: Promise<string>;
  /** Kills it, and the simulator that it runs, where they are: SIGKILL. */
  cut(): void;
}

/** Starts one that can be cut off, with its scratch files in `scratch`. */
export function startTorpor(args: readonly string[], scratch: string): TorporProcess {
  const { finished, cut } = start(process.execPath, [torporProgram(), ...args], { env: { TMPDIR: scratch } });
  return { output: outputOf(finished).then(({ json }) => json), cut };
}
