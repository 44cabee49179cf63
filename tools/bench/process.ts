/**
 * Processes whose time, processor time and memory are measured (measure.c), and the simulated device as one.
 *
 *     const { value, cost } = await measured((under) => simulate({ …, under }));
 */

import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { readPEM } from "../../hosts/node/pem.js";
import type { WakeResult } from "../../hosts/node/result.js";
import { simulate } from "../../hosts/node/simulator.js";
import type { BlockSize } from "../../src/coap/block.js";
import type { Operation } from "../../src/enrollment/wake.js";
import { newFolder } from "../../test/support/command.js";
import type { Attempt, EngineName } from "./ways.js";

/** What a process took, from its start to its end. */
export interface Cost {
  /** Milliseconds of the clock of `process.hrtime`. */
  readonly begun: number;
  /** Milliseconds: of the clock on the wall, and of processor time. */
  readonly wall: number;
  readonly cpu: number;
  /** Bytes that it held at most (resident set). */
  readonly peak: number;
}

/** Milliseconds of the clock that `Cost.begun` is of. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6;

let folder: string | undefined;
let count = 0;

/** Calls `run` with the command that a process has to be started under. */
export async function measured<T>(run: (under: readonly string[]) => Promise<T>): Promise<{ value: T; cost: Cost }> {
  const { measure } = JSON.parse(readFileSync(join(checkout(), "build", "native.json"), "utf8")) as { measure: string };
  folder ??= newFolder();
  const file = join(folder, String(count++));
  const value = await run([measure, file]);
  const { begun, ended, user, system, peak } = JSON.parse(readFileSync(file, "utf8")) as Record<
    "begun" | "ended" | "user" | "system" | "peak",
    number
  >;
  const cost = { begun: begun / 1e6, wall: (ended - begun) / 1e6, cpu: (user + system) / 1000, peak: peak * 1024 };
  return { value, cost };
}

/** A certificate and its key in PEM files, and the trust anchors for the server's. */
export interface IdentityFiles {
  readonly trust: string;
  readonly certificate: string;
  readonly key: string;
}

/** What the development server writes for a device, in its folder. */
export const factoryFiles = (dir: string): IdentityFiles => ({
  trust: join(dir, "ca.pem"),
  certificate: join(dir, "factory.pem"),
  key: join(dir, "factory.key"),
});

/** What the files hold, in DER. */
export function readIdentity({ trust, certificate, key }: IdentityFiles): {
  trust: Uint8Array[];
  certificates: Uint8Array[];
  key: Uint8Array;
} {
  const read = (file: string, ...labels: readonly string[]): Uint8Array[] => readPEM(readFileSync(file), ...labels);
  return {
    trust: read(trust, "CERTIFICATE"),
    certificates: read(certificate, "CERTIFICATE"),
    key: read(key, "PRIVATE KEY", "EC PRIVATE KEY")[0]!,
  };
}

export interface Doing extends Pick<Attempt, "resume" | "groups" | "psk"> {
  readonly block?: BlockSize;
  /** "own": the device goes by what it has been enrolled with; what the factory gave it unless told. */
  readonly identity?: "own";
  /** "esp32": chunks and slots as the SDK gives them to an ESP32; else both share a device's memory and grow as they must. */
  readonly heap?: "esp32" | undefined;
}

/** A device in the simulator: each wake is a process, started without Node.js around it. */
export class SimulatedDevice {
  readonly #port: number;
  readonly #files: IdentityFiles;
  readonly #engine: EngineName;
  readonly #state = join(newFolder(), "device");

  constructor(port: number, files: IdentityFiles, engine: EngineName = "mbedtls") {
    this.#port = port;
    this.#files = files;
    this.#engine = engine;
  }

  /** Another device with what this one has in its memory now. */
  copy(): SimulatedDevice {
    const other = new SimulatedDevice(this.#port, this.#files, this.#engine);
    cpSync(this.#state, other.#state, { recursive: true });
    return other;
  }

  wake(operation: Operation, doing: Doing = {}): Promise<{ value: WakeResult; cost: Cost }> {
    return measured((under) => this.run(operation, doing, under));
  }

  /**
   * A wake, and the instructions that the processor went through for it, without the start of the process and
   * the figures of the heap: by valgrind.
   */
  async instructions(operation: Operation, doing: Doing = {}): Promise<{ value: WakeResult; instructions: number }> {
    const file = join(newFolder(), "callgrind");
    const options = [
      "--tool=callgrind",
      "--toggle-collect=host_run",
      "--toggle-collect=xs_host_heap",
      `--callgrind-out-file=${file}`,
    ];
    const value = await this.run(operation, doing, ["valgrind", "-q", ...options]);
    return { value, instructions: Number(/^totals: (\d+)$/m.exec(readFileSync(file, "utf8"))![1]) };
  }

  private run(
    operation: Operation,
    { resume, groups, psk, block = 1024, identity, heap }: Doing,
    under: readonly string[],
  ): Promise<WakeResult> {
    const given =
      identity === "own" ? { trust: undefined, certificates: [], key: undefined } : readIdentity(this.#files);
    const address = "127.0.0.1";
    const geometry = resume === "ticket" ? { slots: 2, slotBytes: 1536 } : { slots: 4, slotBytes: 512 };
    return simulate({
      options: { operation, address, host: address, port: this.#port, geometry, blockSize: block, resume, groups, psk },
      ...given,
      state: this.#state,
      build: this.#engine === "wolfssl" ? "wolfsslSimulator" : "simulator",
      heap,
      under,
    });
  }
}
