/**
 * A device of the soak: its folder, the relay between it and its server, and what can happen to a wake.
 *
 *     const device = await Device.create({ number: 0, … });
 *     const outcome = await device.wake({ operation: "run", …CALM });
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readPEM } from "../../hosts/node/pem.js";
import type { WakeLine } from "../../hosts/node/result.js";
import { type Build, simulate, WakeError } from "../../hosts/node/simulator.js";
import type { BlockSize } from "../../src/coap/block.js";
import type { Resume, Way } from "../../src/dtls/socket.js";
import { DEFAULT_POLICY } from "../../src/enrollment/schedule.js";
import type { Keep, Operation } from "../../src/enrollment/wake.js";
import { run } from "../process.js";
import { Relay } from "../relay.js";
import { torporProgram } from "../wake-process.js";
import { documented } from "./documented.js";
import { NonceAudit } from "./nonce-audit.js";

/** What the devices run on: the simulator, that under AddressSanitizer, or Node.js. */
export type SoakHost = "simulator" | "sanitized" | "node";

/** What is done at a wake, and what happens to it. */
export interface Plan {
  readonly operation: Operation;
  readonly resume: Resume;
  /** Rates, 0 to 1. */
  readonly loss: number;
  readonly doubling: number;
  readonly lateness: number;
  /** The device moves after so many datagrams; 0: it stays. */
  readonly moveAfter: number;
  /** Seconds after which the power goes; undefined: it does not. */
  readonly killAfter: number | undefined;
}

/** Nothing happens to it. */
export const CALM = {
  resume: "context",
  loss: 0,
  doubling: 0,
  lateness: 0,
  moveAfter: 0,
  killAfter: undefined,
} as const;

export type Outcome =
  | {
      readonly kind: "done";
      /** Null where nothing was due. */
      readonly way: Way | null;
      /** CoAP codes by operation, such as "sren 2.04". */
      readonly operations: readonly string[];
      /** Bytes at the peak; 0 where the host does not count them. */
      readonly xsPeak: number;
      readonly dtlsPeak: number;
    }
  | { readonly kind: "failed"; readonly error: string }
  | { readonly kind: "killed" }
  /** What must not happen, in a sentence. */
  | { readonly kind: "broken"; readonly how: string };

/** Seconds that a wake that nobody kills may take: a handshake, a silent context, and requests given up one by one. */
const WAKE_SECONDS = 300;
/** Milliseconds that a datagram is late at most. */
const LATE = 500;

const KEEPS: readonly Keep[] = ["retained", "flash", "sealed"];
const BLOCKS: readonly BlockSize[] = [1024, 256, 128];

export interface DeviceOptions {
  readonly number: number;
  /** The folder of the soak. */
  readonly folder: string;
  /** Where the server's CA and the factory identity are. */
  readonly ca: string;
  readonly port: number;
  readonly host: SoakHost;
  readonly random: () => number;
}

export class Device {
  readonly name: string;
  readonly state: string;
  readonly audit = new NonceAudit();
  /** What happened to datagrams, and how often the device moved. */
  readonly network = { datagrams: 0, lost: 0, doubled: 0, late: 0, moves: 0 };
  wakes = 0;
  /** Seconds that a wake takes about, to kill it within. */
  #seconds = 0.2;
  readonly keep: Keep;
  /** Only a device with large slots can keep a ticket. */
  readonly hasTickets: boolean;
  readonly #blockSize: BlockSize;
  readonly #options: DeviceOptions;
  readonly #relay: Relay;

  private constructor(options: DeviceOptions, relay: Relay) {
    const { number, folder } = options;
    this.#options = options;
    this.#relay = relay;
    this.name = `device-${number}`;
    this.state = join(folder, this.name);
    this.keep = KEEPS[number % KEEPS.length]!;
    this.#blockSize = BLOCKS[(number >> 1) % BLOCKS.length]!;
    this.hasTickets = number % 4 === 3;
  }

  static async create(options: DeviceOptions): Promise<Device> {
    return new Device(options, await Relay.to(options.port));
  }

  close(): void {
    this.#relay.close();
  }

  /** The latest wakes' datagrams, for people: one on each line. */
  get capture(): string {
    return this.#relay.datagrams
      .map(({ direction, flow, bytes }) => `${direction} flow ${flow} ${bytes.toString("hex")}\n`)
      .join("");
  }

  /** Nothing happens to datagrams any more, of the wake that goes on as well. */
  calm(): void {
    this.#relay.pass = (datagram) => {
      this.network.datagrams++;
      this.audit.look(datagram, this.name);
      return 1;
    };
    this.#relay.late = () => 0;
  }

  /** A wake, and how long it took. `within` so many seconds the power goes in any case. */
  async wake(plan: Plan, within = Number.POSITIVE_INFINITY): Promise<Outcome> {
    const { killAfter } = plan;
    this.#relay.rest();
    this.#relay.forget();
    this.#disturb(plan);
    this.wakes++;
    const limit = Math.min(WAKE_SECONDS, within, killAfter === undefined ? Infinity : killAfter * this.#seconds);
    const started = performance.now();
    const { host } = this.#options;
    const outcome = await (host === "node" ? this.#inNode(plan, limit) : this.#inSimulator(plan, limit, host));
    const seconds = (performance.now() - started) / 1000;
    if (outcome.kind === "killed" && limit === WAKE_SECONDS) {
      return { kind: "broken", how: `the wake did not end within ${WAKE_SECONDS} s` };
    }
    if (outcome.kind === "done") {
      this.#seconds = 0.9 * this.#seconds + 0.1 * Math.min(seconds, 2);
    }
    if (outcome.kind === "failed" && documented(outcome.error) === undefined) {
      return { kind: "broken", how: `an error that is not documented: ${outcome.error}` };
    }
    return outcome;
  }

  #disturb({ loss, doubling, lateness, moveAfter }: Plan): void {
    const { random } = this.#options;
    const { network } = this;
    let left = moveAfter;
    this.#relay.pass = (datagram) => {
      network.datagrams++;
      this.audit.look(datagram, this.name);
      if (left > 0 && --left === 0) {
        network.moves++;
        this.#relay.move();
      }
      const [lost, doubled] = [random() < loss, random() < doubling];
      network.lost += lost ? 1 : 0;
      network.doubled += !lost && doubled ? 1 : 0;
      return lost ? 0 : doubled ? 2 : 1;
    };
    this.#relay.late = () => {
      const isLate = random() < lateness;
      network.late += isLate ? 1 : 0;
      return isLate ? random() * LATE : 0;
    };
  }

  /** Whether it is given the factory identity and the anchors to begin with: an enrolled device has its own. */
  #isFromFactory({ operation }: Plan): boolean {
    return operation === "run" || operation === "sen";
  }

  async #inSimulator(plan: Plan, limit: number, host: "simulator" | "sanitized"): Promise<Outcome> {
    const { ca } = this.#options;
    const read = (name: string, ...labels: string[]) =>
      readPEM(Uint8Array.from(readFileSync(join(ca, name))), ...labels);
    const isFromFactory = this.#isFromFactory(plan);
    try {
      const { association, operations, heap } = await simulate({
        options: {
          operation: plan.operation,
          resume: plan.resume,
          address: "127.0.0.1",
          port: this.#relay.port,
          host: "127.0.0.1",
          keep: this.keep,
          geometry: this.hasTickets ? { slots: 2, slotBytes: 1536 } : { slots: 4, slotBytes: 512 },
          blockSize: this.#blockSize,
          handshakeTimer: 400,
          patience: 8000,
          contextPatience: 500,
          policy: { ...DEFAULT_POLICY, firstRetry: 1, longestRetry: 4 },
        },
        trust: isFromFactory ? read("ca.pem", "CERTIFICATE") : undefined,
        certificates: isFromFactory ? read("factory.pem", "CERTIFICATE") : [],
        key: isFromFactory ? read("factory.key", "PRIVATE KEY", "EC PRIVATE KEY")[0] : undefined,
        state: this.state,
        build: host satisfies Build,
        under: ["timeout", "-s", "KILL", limit.toFixed(6)],
      });
      return {
        kind: "done",
        way: association.way ?? null,
        operations: operations.map(({ operation, code }) => `${operation} ${code}`),
        xsPeak: heap.xsPeak,
        dtlsPeak: heap.dtlsPeak,
      };
    } catch (error) {
      const { message } = error as Error;
      if (error instanceof WakeError) {
        return { kind: "failed", error: message };
      }
      return /^the simulator ended with status (null|137)/.test(message)
        ? { kind: "killed" }
        : { kind: "broken", how: message };
    }
  }

  async #inNode(plan: Plan, limit: number): Promise<Outcome> {
    const { ca } = this.#options;
    const args = [plan.operation, "--server", `coaps://127.0.0.1:${this.#relay.port}`, "--state", this.state];
    args.push("--resume", plan.resume, "--keep", this.keep, "--block", String(this.#blockSize), "--json");
    args.push("--slots", this.hasTickets ? "2" : "4", "--slot-bytes", this.hasTickets ? "1536" : "512");
    args.push("--handshake-timer", "0.4", "--patience", "8", "--context-patience", "0.5");
    args.push("--retry", "1", "--retry-max", "4");
    if (this.#isFromFactory(plan)) {
      args.push("--trust", join(ca, "ca.pem"), "--cert", join(ca, "factory.pem"), "--key", join(ca, "factory.key"));
    }
    const command = ["-s", "KILL", limit.toFixed(6), process.execPath, torporProgram(), ...args];
    const { status, stdout, stderr } = await run("timeout", command);
    if (status === null || status === 137) {
      return { kind: "killed" };
    }
    if (status === 0 && stderr === "") {
      const { way, operations, heap } = JSON.parse(stdout) as WakeLine;
      return {
        kind: "done",
        way,
        operations: operations.map(({ operation, code }) => `${operation} ${code}`),
        xsPeak: heap.xsPeak,
        dtlsPeak: heap.dtlsPeak,
      };
    }
    const [, error] = /^torpor: ([^\n]*)\n$/.exec(stderr) ?? [];
    return status === 1 && error !== undefined
      ? { kind: "failed", error }
      : { kind: "broken", how: `the wake ended with status ${status}: ${stderr.trim()}` };
  }
}
