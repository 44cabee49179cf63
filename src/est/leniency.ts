/**
 * What servers do otherwise than RFC 9148 says and Torpor puts up with, because nothing depends on it: one table. What
 * was put up with stands in each answer (`ESTResponse.leniencies`).
 *
 *     for (const name of response.leniencies ?? []) notes.push(describeLeniency(name));
 */

import { DERReader, Tag } from "../pki/der.js";

export type Leniency = "success-code" | "no-format" | "other-format-number";

interface Entry {
  /** What the server does. */
  readonly server: string;
  /** Why that is harmless. */
  readonly reason: string;
}

const TABLE: Readonly<Record<Leniency, Entry>> = {
  "success-code": {
    server: "answers with another success code than 2.05 to GET and 2.04 to POST (RFC 9148 section 4.5)",
    reason: "kipuka answers sen and sren with 2.01; the body says the same",
  },
  "no-format": {
    server: "leaves out the Content-Format of its answer",
    reason: "the body is read as what was asked for by Accept, strictly",
  },
  "other-format-number": {
    server: "uses a Content-Format number of RFC 9148 section 8.1 for another format",
    reason: "kipuka counts 285 pkcs10, 286 pkcs8, 287 csrattrs; the bytes tell what the body is",
  },
};

/** A sentence for people. */
export function describeLeniency(name: Leniency): string {
  const { server, reason } = TABLE[name];
  return `the server ${server}: accepted, for ${reason}`;
}

/** The numbers that servers use for each other, and which therefore tell nothing. */
export function isConfused(format: number): boolean {
  return format >= 285 && format <= 287;
}

/** What DER looks like from outside: "certs-only" is any ContentInfo, "list" a sequence of OIDs or of sequences. */
export type Shape = "certificate" | "certs-only" | "key" | "unknown";

/**
 * Tells a PKCS #8 key (a version comes first), a ContentInfo (an OID does) and an X.509 certificate (a sequence does)
 * from one another. It is only a look: what they are taken for then reads them strictly.
 */
export function shapeOf(bytes: Uint8Array): Shape {
  try {
    switch (new DERReader(bytes).enter(Tag.SEQUENCE).tag) {
      case Tag.INTEGER:
        return "key";
      case Tag.OBJECT_IDENTIFIER:
        return "certs-only";
      case Tag.SEQUENCE:
        return "certificate";
      default:
        return "unknown";
    }
  } catch {
    return "unknown";
  }
}
