/**
 * Runs the command line as a user does: a process of its own for each wake.
 *
 *     const { status, json } = await torpor("crts", "--server", uri, "--json", …);
 */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import type { WakeLine } from "../../hosts/node/result.js";
import { slotsNotice } from "../../hosts/node/simulator.js";

export type { WakeLine } from "../../hosts/node/result.js";

export interface Finished {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. */
export function run(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: object } = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}

/** One wake of the device. The compiled program runs: test.mjs has built it. Without the notice on 64-bit slots. */
export async function torpor(...args: readonly string[]): Promise<Finished> {
  const finished = await run(process.execPath, [join(checkout(), "build", "hosts", "node", "torpor.js"), ...args]);
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
