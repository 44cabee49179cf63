/**
 * The operation `run`: what the schedule decides from the device's memory and clock, and what is remembered after it.
 *
 *     const run = new Run(host, options, identities, enrolled, notes);
 *     for (const step of run.decision.steps) …
 *     run.succeed(operations);
 */

import { readUint } from "../bytes.js";
import type { Clock, KeyValueStore } from "../io.js";
import { checkedCertificate, parseCertificate } from "../pki/certificate.js";
import { sha256 } from "../pki/key.js";
import type { Identity, IdentityStore } from "./identity.js";
import { readLife, writeLife } from "./life.js";
import {
  type Cause,
  DEFAULT_POLICY,
  type Decision,
  decide,
  type KnownTime,
  type Life,
  livedOn,
  type Outcome,
  type SchedulePolicy,
  type Situation,
  type Step,
  timeOf,
} from "./schedule.js";

/** What comes next. */
export interface ScheduleReport {
  readonly next: Cause;
  /** Seconds to sleep until then, at least 1. */
  readonly sleep: number;
  /** Where the time is from: "estimate" where there is no trusted clock. */
  readonly basis: KnownTime["basis"];
}

interface RunHost {
  readonly clock: Clock;
  readonly store: KeyValueStore;
}

interface RunOptions {
  readonly trust?: readonly Uint8Array[] | undefined;
  readonly factory?: Identity | undefined;
  readonly policy?: SchedulePolicy | undefined;
}

const SLEEP_MAX = 0xffffffff;

export class Run {
  readonly #host: RunHost;
  readonly #options: RunOptions;
  readonly #identities: IdentityStore;
  readonly #notes: string[];
  readonly #time: KnownTime;
  readonly #started: number;
  #life: Life;
  /** Whether there are anchors that the server gave. */
  #isExplicit: boolean;
  #trusts: "implicit" | "explicit";
  #schedule: ScheduleReport | undefined;
  readonly decision: Decision;

  constructor(
    host: RunHost,
    options: RunOptions,
    identities: IdentityStore,
    enrolled: Identity | undefined,
    notes: string[],
  ) {
    this.#host = host;
    this.#options = options;
    this.#identities = identities;
    this.#notes = notes;
    this.#started = host.clock.ticks;
    this.#life = readLife(host.store);
    const notBefore = enrolled === undefined ? 0 : parseCertificate(enrolled.certificates[0]!).notBefore;
    this.#time = timeOf(this.#life, clocksOf(host.clock), notBefore);
    this.#isExplicit = this.explicitAnchors() !== undefined;
    this.decision = decide(this.situation(enrolled, this.#time.now), options.policy);
    this.#trusts = this.decision.anchors;
    if (this.#time.basis === "estimate") {
      notes.push("no trusted clock: the time is estimated from certificates and uptime, and validity is not checked");
    }
  }

  /** The clock that certificates are judged by: without a time where that is not trusted. */
  get clock(): Clock {
    const { clock } = this.#host;
    return this.#time.basis === "clock" ? clock : new Ticks(clock);
  }

  /** The trust anchors to connect with now; undefined where there are none. */
  get anchors(): readonly Uint8Array[] | undefined {
    const { trust } = this.#options;
    return this.#trusts === "explicit" ? this.explicitAnchors() : trust;
  }

  /** Which anchors those are. */
  get trusts(): "implicit" | "explicit" {
    return this.#trusts;
  }

  get schedule(): ScheduleReport | undefined {
    return this.#schedule;
  }

  /** From now on the anchors that the server gave count. */
  trustIsExplicit(): void {
    this.#isExplicit = true;
    this.#trusts = "explicit";
  }

  /** A corrupt record counts as none where there are anchors to begin with again. */
  private explicitAnchors(): readonly Uint8Array[] | undefined {
    try {
      return this.#identities.trustAnchors;
    } catch (error) {
      if (this.#options.trust === undefined) {
        throw error;
      }
      const { message } = error as Error;
      if (!this.#notes.includes(message)) {
        this.#notes.push(message);
      }
      return undefined;
    }
  }

  private situation(enrolled: Identity | undefined, now: number): Situation {
    const { factory, trust } = this.#options;
    return {
      now,
      certificate: enrolled && checkedCertificate(enrolled.certificates[0]!),
      factory: factory === undefined ? "absent" : "present",
      anchors: !this.#isExplicit ? "implicit" : trust === undefined ? "explicit" : "both",
      life: this.#life,
      phase: enrolled === undefined ? 0 : phaseOf(enrolled.certificates[0]!),
    };
  }

  /** Nothing was due. Written only where the time rests on it. */
  rest(): void {
    const { now, basis } = this.#time;
    this.settle(this.current(), now, basis === "clock" ? "keep" : "write");
  }

  /** All that was due is done. */
  succeed(operations: readonly { readonly operation: string }[]): void {
    if (operations.length === 0) {
      return;
    }
    const steps = operations.map(({ operation }) => operation as Step);
    const enrolled = this.current();
    let now = this.now;
    // Without a clock, a certificate that was just issued tells the time best.
    if (
      this.#time.basis === "estimate" &&
      enrolled !== undefined &&
      (steps.includes("sen") || steps.includes("sren"))
    ) {
      now = checkedCertificate(enrolled.certificates[0]!).notBefore;
    }
    this.#life = livedOn(this.#life, now, { kind: "done", steps }, Math.random(), this.#options.policy);
    this.settle(enrolled, now, "write");
  }

  /** The wake has failed. That the schedule cannot be written is no further news then. */
  fail(outcome: Outcome): void {
    const { now } = this;
    this.#life = livedOn(this.#life, now, outcome, Math.random(), this.#options.policy ?? DEFAULT_POLICY);
    try {
      this.settle(this.current(), now, "write");
    } catch {
      // the error that brought us here is what counts
    }
  }

  private get now(): number {
    return this.#time.now + Math.floor((this.#host.clock.ticks - this.#started) / 1000);
  }

  private current(): Identity | undefined {
    try {
      return this.#identities.current;
    } catch {
      return undefined;
    }
  }

  private settle(enrolled: Identity | undefined, now: number, how: "keep" | "write"): void {
    const { cause, at } = decide(this.situation(enrolled, now), this.#options.policy);
    const sleep = Math.min(Math.max(1, Math.ceil(at - now)), SLEEP_MAX);
    this.#schedule = { next: cause, sleep, basis: this.#time.basis };
    if (how === "write") {
      const { uptime } = clocksOf(this.#host.clock);
      this.#life = { ...this.#life, time: now, uptime, sleep };
      writeLife(this.#host.store, this.#life);
    }
  }
}

/** A clock that has only its ticks. */
class Ticks implements Clock {
  readonly #clock: Clock;
  readonly time = undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get ticks(): number {
    return this.#clock.ticks;
  }
}

/** The clocks in whole seconds. */
export function clocksOf({ time, uptime }: Clock): { time: number | undefined; uptime: number | undefined } {
  return {
    time: time === undefined ? undefined : Math.floor(time / 1000),
    uptime: uptime === undefined ? undefined : Math.floor(uptime / 1000),
  };
}

/** 0 to 1, by chance and always the same for one certificate. */
export function phaseOf(certificate: Uint8Array): number {
  return readUint(sha256(certificate), 0, 2) / 0x10000;
}
