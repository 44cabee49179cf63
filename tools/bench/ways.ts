/**
 * What is measured side by side: the ways to make an association and to come back to it, in DTLS 1.2 over mbedTLS and in
 * DTLS 1.3 over wolfSSL.
 *
 *     for (const attempt of ATTEMPTS["DTLS 1.3"]) …
 */

import type { Protocol } from "../../src/dtls/engine.js";
import type { Resume, Way } from "../../src/dtls/socket.js";

/** A process has one. */
export type EngineName = "mbedtls" | "wolfssl";

export const ENGINES = { "DTLS 1.2": "mbedtls", "DTLS 1.3": "wolfssl" } as const satisfies Record<Protocol, EngineName>;

export const PROTOCOLS = Object.keys(ENGINES) as readonly Protocol[];

/** How a wake is to go. */
export interface Attempt {
  readonly name: string;
  /** What must come of it. */
  readonly way: Way;
  readonly resume?: Resume;
  readonly groups?: readonly string[];
  readonly psk?: "alone";
}

const hybrid = (group: string): Attempt => ({ name: `full, ${group}`, way: "full", groups: [group] });

/** The full handshake first: the others of its protocol are compared with it. A full handshake of DTLS 1.3 brings a ticket. */
export const ATTEMPTS: Readonly<Record<Protocol, readonly Attempt[]>> = {
  "DTLS 1.2": [
    { name: "full", way: "full" },
    { name: "full, for a ticket", way: "full", resume: "ticket" },
    { name: "ticket", way: "ticket", resume: "ticket" },
    { name: "session", way: "session", resume: "session" },
    { name: "context", way: "context" },
  ],
  "DTLS 1.3": [
    { name: "full", way: "full" },
    hybrid("X25519MLKEM768"),
    hybrid("SecP256r1MLKEM768"),
    { name: "ticket", way: "ticket" },
    { name: "ticket, psk alone", way: "ticket", psk: "alone" },
  ],
};

/** DTLS 1.2 goes without saying. */
export const named = (name: string, protocol: Protocol): string =>
  protocol === "DTLS 1.2" ? name : `${name}, ${protocol}`;
