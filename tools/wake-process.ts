/**
 * One wake of a device as a process of its own, for the timeline and the benchmarks.
 *
 *     const { json, errors } = await wakeProcess(["crts", "--server", …]);
 */

import { join } from "node:path";
import { checkout, engineName } from "../hosts/node/native.js";
import { run } from "./process.js";

/** The program `torpor`, compiled. */
export const torporProgram = (): string => join(checkout(), "build", "hosts", "node", "torpor.js");

/** Its line of JSON, and what it said on standard error. Rejects where it failed, with what it said. */
export async function wakeProcess(args: readonly string[]): Promise<{ json: string; errors: string }> {
  const { status, stdout, stderr } = await run(process.execPath, [
    torporProgram(),
    ...args,
    "--engine",
    engineName(),
    "--json",
  ]);
  if (status !== 0) {
    throw new Error(stderr.trim() || `the wake ended with status ${status}`);
  }
  return { json: stdout.trim(), errors: stderr };
}
