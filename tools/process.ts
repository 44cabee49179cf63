/**
 * Runs a program to its end, whatever that is.
 *
 *     const { status, stdout, stderr } = await run("openssl", ["version"]);
 */

import { spawn } from "node:child_process";

export interface Finished {
  /** Null where a signal ended it. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: object;
}

export interface Running {
  readonly finished: Promise<Finished>;
  /** Ends it, and what it has started, where they are: SIGKILL. */
  cut(): void;
}

/** Starts a program that can be cut off: in a process group of its own. */
export function start(command: string, args: readonly string[], { cwd, env }: RunOptions = {}): Running {
  return launch(command, args, { cwd, env, detached: true });
}

export function run(command: string, args: readonly string[], { cwd, env }: RunOptions = {}): Promise<Finished> {
  return launch(command, args, { cwd, env, detached: false }).finished;
}

interface LaunchOptions {
  readonly cwd: string | undefined;
  readonly env: object | undefined;
  readonly detached: boolean;
}

function launch(command: string, args: readonly string[], { cwd, env, detached }: LaunchOptions): Running {
  const child = spawn(command, args, {
    ...{ cwd, detached, env: { ...process.env, ...env } },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const finished = new Promise<Finished>((resolve, reject) => {
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
  return {
    finished,
    cut: () => {
      try {
        process.kill(-child.pid!, "SIGKILL");
      } catch {
        // It has come to its end.
      }
    },
  };
}
