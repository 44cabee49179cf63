/**
 * Runs a wake in the simulator (hosts/simulator): the same TypeScript on XS, with a device's memory, in its own process.
 *
 *     const result = await simulate({ options, trust, certificates, key, state: "device" });
 */

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { WakeOptions } from "../../src/enrollment/wake.js";
import { TorporError } from "../../src/errors.js";
import { checkout, engineName } from "./native.js";
import type { WakeResult } from "./result.js";

export interface SimulatedWake {
  readonly options: Omit<WakeOptions, "trust" | "factory">;
  /** Certificates and key in DER; undefined where the device has its own. */
  readonly trust: readonly Uint8Array[] | undefined;
  readonly certificates: readonly Uint8Array[];
  readonly key: Uint8Array | undefined;
  /** The folder of the device's memory; undefined for a device without. */
  readonly state: string | undefined;
  /**
   * Bytes for XS in all (a device's 32,768 unless told, twice that where slots have 64 bits), or the SDK's ESP32; 0: no
   * limit.
   */
  readonly heap?: number | "esp32" | undefined;
  /** Bytes for mbedTLS: 32,768 unless told, likewise; 0: no limit. */
  readonly dtlsHeap?: number | undefined;
  /** Prints on standard error what lay in the heap when it was largest. */
  readonly census?: boolean | undefined;
  /** The device unless told. A debug build shows the stack trace of what fails, with file and line, on standard error. */
  readonly build?: Build | undefined;
  /** A command before the simulator's, such as that of valgrind. */
  readonly under?: readonly string[] | undefined;
}

/** The builds of the simulator: the device and one for debugging, over each DTLS engine; the last two are the tests'. */
export type Build = "simulator" | "debug" | "wolfsslSimulator" | "wolfsslDebug" | "sanitized" | "plain64";

/** The device over the DTLS engine of this process. `debug`: with 64-bit slots and no limit of memory. */
export function ownBuild(debug = false): Build {
  if (engineName() === "wolfssl") {
    return debug ? "wolfsslDebug" : "wolfsslSimulator";
  }
  return debug ? "debug" : "simulator";
}

const isDebug = (build: Build | undefined): boolean => build === "debug" || build === "wolfsslDebug";

/** A wake that failed: what the device reported, and what its heap came to. */
export class WakeError extends TorporError {
  readonly heap: WakeResult["heap"];

  constructor(message: string, heap: WakeResult["heap"]) {
    super(message);
    this.heap = heap;
  }
}

/** What the simulator's exit statuses from 65 mean; hosts/simulator/machine.h has them. */
const ENDS: Readonly<Record<number, string>> = {
  65: "the device's memory is full",
  66: "the device's stack has overflowed",
  67: "the device met an exception that nobody handles",
  68: "the device met a rejection that nobody handles",
  69: "the device's engine gave up",
};

type Parts = { readonly bits: 32 | 64 } & Readonly<Partial<Record<Build, string>>>;

function parts(): Parts {
  return JSON.parse(readFileSync(join(checkout(), "build", "native.json"), "utf8")) as Parts;
}

/** What has to be said where the simulator is not as the device is: in one line. */
export function slotsNotice(): string | undefined {
  return parts().bits === 32
    ? undefined
    : "torpor: no 32-bit compiler here: the simulator has 64-bit slots, twice the size of the device's";
}

/** Bytes of memory that the device has unless told otherwise: as much for XS as for mbedTLS. */
export function deviceHeap(): number {
  return (32768 * parts().bits) / 32;
}

/** The file of a build. @throws TorporError where it was not made. */
export function program(build: Build): string {
  const found = parts()[build];
  if (found === undefined) {
    throw new TorporError(`the simulator's ${build} build is not there: start it by npx torpor or npm run simulator`);
  }
  return found;
}

function writeArguments(folder: string, wake: SimulatedWake): void {
  const { options, trust = [], certificates, key, build } = wake;
  const numbers = { trustAnchors: trust.length, certificates: certificates.length };
  writeFileSync(join(folder, "options.json"), JSON.stringify({ ...options, ...numbers, debug: isDebug(build) }));
  trust.forEach((der, i) => {
    writeFileSync(join(folder, `trust-${i}`), der);
  });
  certificates.forEach((der, i) => {
    writeFileSync(join(folder, `certificate-${i}`), der);
  });
  if (key !== undefined) {
    writeFileSync(join(folder, "key-0"), key, { mode: 0o600 });
  }
}

/** One wake of the simulated device. @throws WakeError with what the device reported; TorporError: why it crashed. */
export async function simulate(wake: SimulatedWake): Promise<WakeResult> {
  const folder = mkdtempSync(join(tmpdir(), "torpor-wake-"));
  try {
    writeArguments(folder, wake);
    const { build = ownBuild(), under = [] } = wake;
    const module = join(checkout(), "build", "hosts", "simulator", "main.js");
    const [command = "", ...args] = [...under, program(build), module, "--arguments", folder];
    for (const [name, value] of [
      ["--state", wake.state],
      ["--heap", wake.heap],
      ["--dtls-heap", wake.dtlsHeap],
      ["--census", wake.census ? 1 : undefined],
    ] as const) {
      if (value !== undefined) {
        args.push(name, String(value));
      }
    }
    const { status, stdout, stderr } = await run(command, args);
    if (isDebug(build) || wake.census) {
      process.stderr.write(stderr);
    }
    const line = stdout.trim() === "" ? undefined : (JSON.parse(stdout) as WakeResult & { error?: string });
    if (line?.error !== undefined) {
      throw new WakeError(line.error, line.heap);
    }
    if (status !== 0 || line === undefined) {
      const end = ENDS[status ?? 0] ?? `the simulator ended with status ${status}`;
      throw new TorporError(`${end}; ${stderr.trim().replace(/\s*\n\s*/g, "; ")}`);
    }
    return { ...line, body: line.bytes > 0 ? readFileSync(join(folder, "answer")) : new Uint8Array() };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(
  command: string,
  args: readonly string[],
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}
