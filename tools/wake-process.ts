/**
 * The command line as a process of its own, for the timeline, the lab and the benchmarks.
 *
 *     const { json, errors } = await wakeProcess(["crts", "--server", …]);
 */

import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { checkout } from "../hosts/node/native.js";

interface Output {
  readonly out: string;
  readonly errors: string;
}

function outputOf(child: ChildProcess): Promise<Output> {
  return new Promise((resolve, reject) => {
    let out = "";
    let errors = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      out += text;
    });
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      errors += text;
    });
    child.on("error", reject);
    child.on("close", (status) =>
      status === 0
        ? resolve({ out: out.trim(), errors })
        : reject(new Error(errors.trim() || `the wake ended with status ${status}`)),
    );
  });
}

const program = (): string => join(checkout(), "build", "hosts", "node", "torpor.js");

/** A wake's line of JSON, and what it said on standard error. Rejects where it failed, with what it said. */
export async function wakeProcess(args: readonly string[]): Promise<{ json: string; errors: string }> {
  const command = [program(), ...args, "--json"];
  const { out, errors } = await outputOf(spawn(process.execPath, command, { stdio: ["ignore", "pipe", "pipe"] }));
  return { json: out, errors };
}

export interface TorporProcess {
  /** What it printed. Rejects where it failed, with what it said. */
  readonly output: Promise<string>;
  /** Kills it, and the simulator that it runs, where they are: SIGKILL. */
  cut(): void;
}

/** Starts one that can be cut off: in a process group of its own, with its scratch files in `scratch`. */
export function startTorpor(args: readonly string[], scratch: string): TorporProcess {
  const child = spawn(process.execPath, [program(), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, TMPDIR: scratch },
    detached: true,
  });
  return {
    output: outputOf(child).then(({ out }) => out),
    cut: () => {
      try {
        process.kill(-child.pid!, "SIGKILL");
      } catch {
        // It has come to its end.
      }
    },
  };
}
