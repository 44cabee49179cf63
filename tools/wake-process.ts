/**
 * The command line as a process of its own, for the timeline, the lab and the benchmarks.
 *
 *     const { json, errors } = await wakeProcess(["crts", "--server", …]);
 */

import { spawn } from "node:child_process";
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

export interface TorporProcess {
  /** What it printed. Rejects where it failed, with what it said. */
  readonly output: Promise<string>;
  /** Kills it, and the simulator that it runs, where they are: SIGKILL. */
  cut(): void;
}

/** Starts one that can be cut off: in a process group of its own, with its scratch files in `scratch`. */
export function startTorpor(args: readonly string[], scratch: string): TorporProcess {
  const child = spawn(process.execPath, [torporProgram(), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, TMPDIR: scratch },
    detached: true,
  });
  const output = new Promise<string>((resolve, reject) => {
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
      status === 0 ? resolve(out.trim()) : reject(new Error(errors.trim() || `torpor ended with status ${status}`)),
    );
  });
  return {
    output,
    cut: () => {
      try {
        process.kill(-child.pid!, "SIGKILL");
      } catch {
        // It has come to its end.
      }
    },
  };
}
