/**
 * Runs the command line as a user does: a process of its own for each wake.
 *
 *     const { status, json } = await torpor("crts", "--server", uri, "--json", …);
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { WakeLine } from "../../hosts/node/result.js";
import { slotsNotice } from "../../hosts/node/simulator.js";
import { type Finished, run } from "../../tools/process.js";
import { torporProgram } from "../../tools/wake-process.js";

export type { WakeLine } from "../../hosts/node/result.js";

export { type Finished, run };

/** One wake of the device. The compiled program runs: test.mjs has built it. Without the notice on 64-bit slots. */
export async function torpor(...args: readonly string[]): Promise<Finished> {
  const finished = await run(process.execPath, [torporProgram(), ...args]);
  return { ...finished, stderr: finished.stderr.replace(`${slotsNotice()}\n`, "") };
}

/** What runs before a program that valgrind looks at: any error, and any block that is lost, ends it with 99. */
export const VALGRIND = [
  "valgrind",
  "-q",
  "--error-exitcode=99",
  "--leak-check=full",
  "--errors-for-leak-kinds=definite",
];

/** One wake that must succeed: its line of JSON. */
export async function wakeLine(...args: readonly string[]): Promise<WakeLine> {
  const { status, stdout, stderr } = await torpor(...args, "--json");
  if (status !== 0) {
    throw new Error(`torpor ${args.join(" ")} ended with ${status}: ${stderr}`);
  }
  return JSON.parse(stdout) as WakeLine;
}

const folders: string[] = [];

/** A new empty folder, gone when the tests end. */
export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "torpor-test-"));
  folders.push(folder);
  return folder;
}

process.on("exit", () => {
  for (const folder of folders) {
    rmSync(folder, { recursive: true, force: true });
  }
});
