/**
 * What is due at a wake, and when to wake next: decisions alone, without I/O, clock or chance of their own.
 *
 *     const { steps, at } = decide({ now, certificate, factory: "present", anchors: "explicit", life, phase }, policy);
 */

/** When the device does what; times in seconds. */
export interface SchedulePolicy {
  /** The part of a certificate's lifetime after which it is renewed, on average. */
  readonly renewal: number;
  /** The part of the lifetime over which the renewals of a fleet are spread. */
  readonly spread: number;
  /** The CA certificates are fetched anew after this at the latest; they are at each renewal. */
  readonly trustPeriod: number;
  /** The first wait after a failure, doubled at each further one, and the longest one. */
  readonly firstRetry: number;
  readonly longestRetry: number;
}

export const DEFAULT_POLICY: SchedulePolicy = {
  renewal: 2 / 3,
  spread: 1 / 12,
  trustPeriod: 90 * 86400,
  firstRetry: 60,
  longestRetry: 86400,
};

/** What is remembered from one wake to the next; times in seconds, those of the calendar since 1970, 0: never. */
export interface Life {
  /** When this was written, as far as was known. */
  readonly time: number;
  /** `Clock.uptime` then; undefined where the host has none. */
  readonly uptime: number | undefined;
  /** How long the device was to sleep after that. */
  readonly sleep: number;
  /** When the CA certificates were fetched. */
  readonly trustedAt: number;
  /** Nothing is tried before. */
  readonly retryAt: number;
  /** Wakes in a row that failed. */
  readonly failures: number;
  /** Those of them whose connection the server refused for the device's certificate. */
  readonly refusals: number;
  /** Those of them in which the device refused the server's certificate. */
  readonly distrusts: number;
  /** What the last failure was; empty after a success. */
  readonly error: string;
}

export const NEW_LIFE: Life = {
  time: 0,
  uptime: undefined,
  sleep: 0,
  trustedAt: 0,
  retryAt: 0,
  failures: 0,
  refusals: 0,
  distrusts: 0,
  error: "",
};

/** What is known at a wake. */
export interface Situation {
  /** Seconds since 1970, as well as it is known: `timeOf`. */
  readonly now: number;
  /** The enrolled one; undefined before the first enrolment, or where it is corrupt. */
  readonly certificate: { readonly notBefore: number; readonly notAfter: number } | undefined;
  /** Whether there is a factory identity to go back to. */
  readonly factory: "present" | "absent";
  /** Whether there are trust anchors to bootstrap with, those that the server gave, or both. */
  readonly anchors: "implicit" | "explicit" | "both";
  readonly life: Life;
  /** 0 to 1: where this certificate's renewal falls in the spread. */
  readonly phase: number;
}

/**
 * bootstrap: the first enrolment. renewal: of the certificate. recovery: a first enrolment again, for the certificate
 * has expired or the server refuses it. trust: the CA certificates alone.
 */
export type Cause = "bootstrap" | "renewal" | "recovery" | "trust";

export type Step = "crts" | "att" | "sen" | "sren";

export interface Decision {
  /** What comes next, and when it is due. */
  readonly cause: Cause;
  readonly at: number;
  /** What is to be done now, in this order; empty: nothing is due. */
  readonly steps: readonly Step[];
  /** As whom, and trusting what. */
  readonly identity: "factory" | "enrolled";
  readonly anchors: "implicit" | "explicit";
}

const ENROLMENT: readonly Step[] = ["crts", "att", "sen"];
const RENEWAL: readonly Step[] = ["crts", "att", "sren"];
const TRUST: readonly Step[] = ["crts"];
const NOTHING: readonly Step[] = [];

/** Refusals in a row after which the certificate, or the trust, is taken to be the cause: an alert may be forged. */
const REFUSALS = 2;
const DISTRUSTS = 3;

export function decide(situation: Situation, policy: SchedulePolicy = DEFAULT_POLICY): Decision {
  const { now, factory, life } = situation;
  const { cause, due } = nextCause(situation, policy);
  const at = Math.max(due, life.retryAt);
  const isEnrolment = cause === "bootstrap" || (cause === "recovery" && factory === "present");
  const steps = at > now ? NOTHING : cause === "trust" ? TRUST : isEnrolment ? ENROLMENT : RENEWAL;
  return { cause, at, steps, identity: isEnrolment ? "factory" : "enrolled", anchors: anchorsFor(situation) };
}

function nextCause(situation: Situation, policy: SchedulePolicy): { cause: Cause; due: number } {
  const { now, certificate, life, phase } = situation;
  if (certificate === undefined) {
    return { cause: "bootstrap", due: 0 };
  }
  if (now > certificate.notAfter || life.refusals >= REFUSALS) {
    return { cause: "recovery", due: 0 };
  }
  const renewal = renewalTime(certificate, phase, policy);
  const trust = life.trustedAt + policy.trustPeriod;
  return trust < renewal ? { cause: "trust", due: trust } : { cause: "renewal", due: renewal };
}

/** Seconds since 1970 from which on a certificate is renewed; `phase` is 0 to 1, 0.5 the average. */
export function renewalTime(
  { notBefore, notAfter }: { readonly notBefore: number; readonly notAfter: number },
  phase: number,
  { renewal, spread }: SchedulePolicy = DEFAULT_POLICY,
): number {
  return Math.floor(notBefore + (notAfter - notBefore) * (renewal + (phase - 0.5) * spread));
}

function anchorsFor({ anchors, life }: Situation): "implicit" | "explicit" {
  if (anchors === "both") {
    return life.distrusts >= DISTRUSTS ? "implicit" : "explicit";
  }
  return anchors;
}

/** How a wake went. */
export type Outcome =
  | { readonly kind: "done"; readonly steps: readonly Step[] }
  | {
      readonly kind: "failed";
      readonly error: string;
      /** Seconds that the server asks to wait (5.03, Max-Age). */
      readonly retryAfter: number | undefined;
      /** Who refused whose certificate; undefined where the failure was another one. */
      readonly refused: "device" | "server" | undefined;
    };

/**
 * What is to be remembered after a wake that did something; `random` is 0 to 1. The time of the next wake is decided
 * from it by the one who writes it.
 */
export function livedOn(
  life: Life,
  now: number,
  outcome: Outcome,
  random: number,
  policy: SchedulePolicy = DEFAULT_POLICY,
): Life {
  if (outcome.kind === "done") {
    const trustedAt = outcome.steps.includes("crts") ? now : life.trustedAt;
    return { ...life, time: now, trustedAt, retryAt: 0, failures: 0, refusals: 0, distrusts: 0, error: "" };
  }
  const { error, retryAfter, refused } = outcome;
  const failures = Math.min(life.failures + 1, 255);
  // Half of the wait is by chance, so that those who failed together do not come back together.
  const backOff = Math.min(policy.firstRetry * 2 ** Math.min(failures - 1, 30), policy.longestRetry);
  const wait = retryAfter === undefined ? backOff * (0.5 + random / 2) : retryAfter * (1 + random / 10);
  return {
    ...life,
    time: now,
    retryAt: now + Math.round(wait),
    failures,
    refusals: refused === "device" ? Math.min(life.refusals + 1, 255) : life.refusals,
    distrusts: refused === "server" ? Math.min(life.distrusts + 1, 255) : life.distrusts,
    error,
  };
}

/** What the host's clocks say; seconds. */
export interface Clocks {
  /** Since 1970; undefined where there is no trusted clock. */
  readonly time: number | undefined;
  /** Since power-on, going on during sleep; undefined where the host has none. */
  readonly uptime: number | undefined;
}

/** The time, and where it is from: "clock", or "estimate": from certificates, uptime and planned sleeps. */
export interface KnownTime {
  readonly now: number;
  readonly basis: "clock" | "estimate";
}

/** A clock that is behind what was remembered by more than this was set anew, and is not believed. */
const CLOCK_TOLERANCE = 86400;

/** The time as well as it is known. What the certificate says is a bound: it was not issued in the future. */
export function timeOf(life: Life, clocks: Clocks, notBefore: number): KnownTime {
  const { time, uptime } = clocks;
  if (time !== undefined && time >= life.time - CLOCK_TOLERANCE) {
    return { now: time, basis: "clock" };
  }
  // An uptime that is less than the one remembered began anew: as much time has passed at least.
  const passed =
    uptime === undefined
      ? life.sleep
      : life.uptime !== undefined && uptime >= life.uptime
        ? uptime - life.uptime
        : uptime;
  return { now: Math.max(life.time + passed, notBefore), basis: "estimate" };
}
