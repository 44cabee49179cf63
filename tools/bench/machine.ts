/** Names what figures were measured on: without it they say little. */

import { execFileSync } from "node:child_process";
import { cpus, release, totalmem } from "node:os";
import { checkout } from "../../hosts/node/native.js";
import { libraryVersion } from "../../src/dtls/engine.js";
import { torporProgram } from "../wake-process.js";

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  /** Bytes. */
  readonly memory: number;
  readonly kernel: string;
  readonly node: string;
  readonly mbedtls: string;
  readonly wolfssl: string;
  /** Of the checkout; "-dirty" where it has been changed since. */
  readonly commit: string;
  readonly date: string;
}

function commit(): string {
  try {
    const args = ["describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"];
    return execFileSync("git", args, { cwd: checkout(), encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return "unknown";
  }
}

/** As the second engine tells it: this process has the first. */
function wolfsslVersion(): string {
  const args = [torporProgram(), "--version", "--engine", "wolfssl"];
  return /DTLS: ([^,;)]+)/.exec(execFileSync(process.execPath, args, { encoding: "utf8" }))?.[1] ?? "wolfSSL";
}

export function machine(): Machine {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? process.arch,
    cores: processors.length,
    memory: totalmem(),
    kernel: `${process.platform} ${release()}`,
    node: process.version,
    mbedtls: libraryVersion(),
    wolfssl: wolfsslVersion(),
    commit: commit(),
    date: new Date().toISOString().slice(0, 10),
  };
}

export function machineText({ machine: its, runs }: { machine: Machine; runs: number }): string {
  return (
    `${its.cpu}, ${its.cores} cores, ${Math.round(its.memory / 2 ** 30)} GB; ${its.kernel}; Node.js ${its.node}; ` +
    `${its.mbedtls}; ${its.wolfssl}; ${its.date}, commit ${its.commit}; medians of ${runs} runs.`
  );
}
