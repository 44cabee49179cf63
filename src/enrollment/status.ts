/**
 * What a device is at present: its identity, its trust, what is due when, what went wrong last. Connects to nobody and
 * changes nothing.
 *
 *     const { subject, next } = statusOf(store, clock);
 */

import type { Clock, KeyValueStore } from "../io.js";
import { parseCertificate } from "../pki/certificate.js";
import { publicKey } from "../pki/key.js";
import { distinguishedName } from "../pki/name.js";
import { type Identity, IdentityStore } from "./identity.js";
import { deleteLife, readLife, readPending } from "./life.js";
import { clocksOf, phaseOf } from "./run.js";
import { type Cause, DEFAULT_POLICY, decide, type KnownTime, type SchedulePolicy, timeOf } from "./schedule.js";

/** Times in seconds since 1970. */
export interface Status {
  /** Undefined before the first enrolment, or where `problem` says why it cannot be used. */
  readonly certificate:
    | {
        /** RFC 4514 */
        readonly subject: string;
        /** Hexadecimal. */
        readonly serial: string;
        readonly notBefore: number;
        readonly notAfter: number;
        readonly curve: "P-256" | "P-384";
      }
    | undefined;
  readonly problem: string | undefined;
  /** Subjects of the trust anchors that the server gave, and when they expire. */
  readonly anchors: readonly { readonly subject: string; readonly notAfter: number }[];
  /** A request that was sent and has no answer yet. */
  readonly pending: "sen" | "sren" | undefined;
  readonly next: Cause;
  /** When that is due; in the past: now. */
  readonly at: number;
  readonly now: number;
  readonly basis: KnownTime["basis"];
  readonly failures: number;
  readonly lastError: string | undefined;
}

export function statusOf(store: KeyValueStore, clock: Clock, policy: SchedulePolicy = DEFAULT_POLICY): Status {
  const identities = new IdentityStore(store);
  let identity: Identity | undefined;
  let problem: string | undefined;
  let anchors: readonly Uint8Array[] = [];
  try {
    identity = identities.current;
    anchors = identities.trustAnchors ?? [];
  } catch (error) {
    problem = (error as Error).message;
  }
  const own = identity?.certificates[0];
  const certificate = own && parseCertificate(own);
  const life = readLife(store);
  const { now, basis } = timeOf(life, clocksOf(clock), certificate?.notBefore ?? 0);
  const { cause, at } = decide(
    {
      now,
      certificate,
      factory: "present",
      anchors: "explicit",
      life,
      phase: own === undefined ? 0 : phaseOf(own),
    },
    policy,
  );
  return {
    certificate: certificate && {
      subject: distinguishedName(certificate.subject),
      serial: hex(certificate.serialNumber),
      notBefore: certificate.notBefore,
      notAfter: certificate.notAfter,
      curve: publicKey(identity!.key).length === 65 ? "P-256" : "P-384",
    },
    problem,
    anchors: anchors.map((der) => {
      const { subject, notAfter } = parseCertificate(der);
      return { subject: distinguishedName(subject), notAfter };
    }),
    pending: readPending(store)?.operation,
    next: cause,
    at,
    now,
    basis,
    failures: life.failures,
    lastError: life.error === "" ? undefined : life.error,
  };
}

/** Erases identity, keys, trust and schedule: what is left is what the factory gave. @throws what the store throws. */
export function reset(store: KeyValueStore): void {
  new IdentityStore(store).erase();
  deleteLife(store);
}

function hex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    text += byte.toString(16).padStart(2, "0");
  }
  return text;
}
