/**
 * One wake of a device as a process of its own, for the timeline and the benchmarks.
 *
 *     const { json, errors } = await wakeProcess(["crts", "--server", …]);
 */

import { spawn } from "node:child_process";
import { join } from "node:path";
import { checkout, engineName } from "../hosts/node/native.js";

/** Its line of JSON, and what it said on standard error. Rejects where it failed, with what it said. */
export function wakeProcess(args: readonly string[]): Promise<{ json: string; errors: string }> {
  const program = join(checkout(), "build", "hosts", "node", "torpor.js");
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args, "--engine", engineName(), "--json"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let errors = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      errors += text;
    });
    child.on("error", reject);
    child.on("close", (status) =>
      status === 0
        ? resolve({ json: out.trim(), errors })
        : reject(new Error(errors.trim() || `the wake ended with status ${status}`)),
    );
  });
}
