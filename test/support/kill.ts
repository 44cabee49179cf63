/**
 * Kills the simulated device in the middle of a wake, from outside (strace), at a step that was chosen before: at the
 * n-th call of one kind to the operating system, which is not carried out any more.
 *
 *     const device = new KillableDevice({ … });
 *     const steps = await device.steps({ operation: "crts" });          // does the wake and lists its steps
 *     const where = await device.killAt(steps[3], { operation: "crts" });
 *
 * All that a device does to the world is such a call: sending, receiving, and each part of a write to storage. What it
 * stores in the retained memory between two of them is there when the second one comes.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { WakeResult } from "../../hosts/node/result.js";
import { type SimulatedWake, simulate } from "../../hosts/node/simulator.js";

/** The calls that are steps, where they did something; and those that may be the next one after such a step. */
const STEPS = ["sendto", "recvfrom", "write", "fsync", "rename", "unlink", "mkdir", "ftruncate", "fchmod", "openat"];
const NEXT = ["close", "poll", "socket", "munmap", "exit_group"];

/** The n-th call of a name, from 1. */
export interface Step {
  readonly call: string;
  readonly count: number;
}

export interface KillableOptions {
  /** The wake but for what is done at it. */
  readonly wake: Omit<SimulatedWake, "options" | "state" | "under">;
  readonly options: Omit<SimulatedWake["options"], "operation">;
  readonly state: string;
}

export type Doing = Pick<SimulatedWake["options"], "operation"> & Partial<SimulatedWake["options"]>;

export class KillableDevice {
  readonly state: string;
  readonly #wake: KillableOptions["wake"];
  readonly #options: KillableOptions["options"];

  constructor({ wake, options, state }: KillableOptions) {
    this.#wake = wake;
    this.#options = options;
    this.state = state;
  }

  /** A whole wake. */
  wake(doing: Doing, more: Partial<SimulatedWake> = {}): Promise<WakeResult> {
    const options = { ...this.#options, ...doing };
    return simulate({ ...this.#wake, options, state: this.state, ...more });
  }

  /** Does a wake and lists the calls before which, in one like it, the device can be killed: around each step. */
  async steps(doing: Doing): Promise<Step[]> {
    const { calls } = await this.#traced(doing);
    const steps: Step[] = [];
    const counts = new Map<string, number>();
    let isAwake = false;
    let isBehindStep = false;
    for (const line of calls) {
      const call = /^\d+ +(\w+?)(64)?\(/.exec(line)?.[1];
      if (call === undefined) {
        continue;
      }
      const count = (counts.get(call) ?? 0) + 1;
      counts.set(call, count);
      // Before it has read what to do, it loads the program.
      isAwake ||= line.includes("/options.json");
      const isStep = isAwake && isStepOf(call, line);
      if (isStep || isBehindStep) {
        steps.push({ call, count });
      }
      isBehindStep = isStep;
    }
    return steps;
  }

  /** Kills a wake at a step: what the call would have been; undefined where it came to its end before. */
  async killAt({ call, count }: Step, doing: Doing): Promise<string | undefined> {
    const { calls, isKilled } = await this.#traced(doing, "-e", `inject=/^${call}(64)?$:signal=SIGKILL:when=${count}`);
    return isKilled ? calls.at(-2)?.replace(/^\d+ +/, "") : undefined;
  }

  /** Kills a wake after so many seconds, unless it has come to its end: whether it was killed. */
  async killAfter(seconds: number, doing: Doing): Promise<boolean> {
    try {
      await this.wake(doing, { under: ["timeout", "-s", "KILL", seconds.toFixed(6)] });
      return false;
    } catch (error) {
      if (!/ended with status (null|137)/.test((error as Error).message)) {
        throw error;
      }
      return true;
    }
  }

  async #traced(doing: Doing, ...more: string[]): Promise<{ calls: string[]; isKilled: boolean }> {
    const folder = mkdtempSync(join(tmpdir(), "torpor-kill-"));
    const log = join(folder, "calls");
    const calls = (): string[] => readFileSync(log, "utf8").trim().split("\n");
    const trace = `trace=/^(${[...STEPS, ...NEXT].join("|")})(64)?$`;
    try {
      await this.wake(doing, { under: ["strace", "-f", "-o", log, "-e", trace, ...more] });
      return { calls: calls(), isKilled: false };
    } catch (error) {
      if (!/ended with status null/.test((error as Error).message)) {
        throw error;
      }
      const found = calls();
      if (!found.at(-1)?.includes("killed by SIGKILL")) {
        throw error;
      }
      return { calls: found, isKilled: true };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** Names of all files below a folder of the state. */
  files(folder = "."): string[] {
    try {
      return readdirSync(join(this.state, folder), { recursive: true, encoding: "utf8" });
    } catch {
      return [];
    }
  }
}

/** Whether a call did something that lasts, or brought something in. */
function isStepOf(call: string, line: string): boolean {
  if (!STEPS.includes(call) || / = -1 /.test(line)) {
    return false;
  }
  return call === "openat" ? /O_CREAT/.test(line) : !/^\d+ +write\(1,/.test(line);
}
