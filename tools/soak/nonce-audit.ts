/**
 * Checks from a capture alone that nothing is used twice that must be used once. No nonce: no two different records under
 * one key with the same one (RFC 5288 section 3, RFC 6655 section 3: the nonce is a salt that belongs to the key and 8 bytes
 * in the record).
 *
 *     const audit = new NonceAudit();
 *     relay.pass = (datagram) => { audit.look(datagram, "server 1"); return 1; };
 *     assert.deepEqual(audit.violations, []);
 *
 * It knows none of the keys. What has one key is told from the outside: an association begins with a ServerHello and has
 * a key for each direction. A record to the server belongs to the association of its connection ID (RFC 9146), else to
 * that of its flow; a record to the device, which carries no ID, to the association that its flow has spoken for last.
 * On the way it sees whether an association is used with another server than the one that it was made with.
 *
 * DTLS 1.3 encrypts the numbers too (RFC 9147 section 4.2.3), and none of its associations outlives a wake. What a device
 * must use once there is a ticket (RFC 8446 appendix C.4): no two ClientHellos of different handshakes show the same one.
 *
 * It keeps no record, only a digest under its number, and of the associations heard of last alone: what it takes does not
 * grow with time. A record of one that it has forgotten is a finding, for it belongs to none that is known.
 */

import { createHash } from "node:crypto";
import { CONNECTION_ID_BYTES } from "../est-server/engine.js";
import { isProtected } from "../est-server/protected-records.js";
import { type Recorded, recordsOf } from "../relay.js";

const CHANGE_CIPHER_SPEC = 20;
const HANDSHAKE = 22;
const CONNECTION_ID = 25;
const CLIENT_HELLO = 1;
const SERVER_HELLO = 2;

const EPOCH_AT = 3;
const CONNECTION_ID_AT = 11;
const HEADER_BYTES = 13;
const NONCE_BYTES = 8;
/** Of a handshake message, behind its header of 12 bytes and the version. */
const RANDOM_AT = HEADER_BYTES + 12 + 2;
const RANDOM_BYTES = 32;

/** RFC 8446 section 4.2 */
const PRE_SHARED_KEY = 41;

/** More than a server and its devices can still know: the development server keeps 256 at most. */
const ASSOCIATIONS_MAX = 4096;

interface Association {
  readonly number: number;
  readonly server: string;
  /** The server's random that it began with. */
  readonly random: string;
  /** The client has changed to the new keys: the ID of its next record is that of this association. */
  isChanged: boolean;
  /** By direction, what has one key. */
  readonly seen: { readonly out: Key; readonly in: Key };
}

interface Key {
  readonly numbers: Numbers;
  readonly nonces: Numbers;
}

/** Digests of records by 8 bytes in them: epoch and sequence number, or what has their form. */
class Numbers {
  readonly #epochs = new Map<number, Map<number, number>>();

  /** Whether another record has been there with this number. */
  isTaken(number: Buffer, digest: number): boolean {
    const [epoch, sequence] = [number.readUInt16BE(0), number.readUIntBE(2, 6)];
    let digests = this.#epochs.get(epoch);
    if (digests === undefined) {
      digests = new Map();
      this.#epochs.set(epoch, digests);
    }
    const before = digests.get(sequence);
    if (before === undefined) {
      digests.set(sequence, digest);
    }
    return before !== undefined && before !== digest;
  }
}

/** 30 bits, which a small integer holds: one of 10^9 pairs of records is mistaken for a copy. */
const digestOf = (record: Buffer): number => createHash("sha256").update(record).digest().readUInt32BE(0) >>> 2;

/*
 * A ClientHello (RFC 9147 section 5.3), behind version and random:
 *
 *     length 1 | session id | length 1 | cookie | length 2 | suites | length 1 | compression | length 2 | extensions
 *
 * Its first pre_shared_key: type 2 | length 2 | length of all 2 | length 2 | ticket
 */
function ticketOf(hello: Buffer): Buffer | undefined {
  let at = RANDOM_AT + RANDOM_BYTES;
  for (const bytes of [1, 1, 2, 1]) {
    if (at + bytes > hello.length) {
      return undefined;
    }
    at += bytes + hello.readUIntBE(at, bytes);
  }
  for (at += 2; at + 4 <= hello.length; at += 4 + hello.readUInt16BE(at + 2)) {
    if (hello.readUInt16BE(at) === PRE_SHARED_KEY && at + 8 <= hello.length) {
      return hello.subarray(at + 8, at + 8 + hello.readUInt16BE(at + 6));
    }
  }
  return undefined;
}

export class NonceAudit {
  /** What was found, in sentences. */
  readonly violations: string[] = [];
  /** Protected records looked at, and associations that they belonged to. */
  records = 0;
  associations = 0;
  /** Handshakes that showed a ticket of DTLS 1.3. */
  tickets = 0;
  /** By digest of a ticket, the random of the client that showed it. */
  readonly #shown = new Map<string, string>();
  /** Flows of one server are told from those of another by its name. */
  readonly #byFlow = new Map<string, Association>();
  readonly #byConnectionId = new Map<string, Association>();
  /** The one that was silent longest first. */
  readonly #known = new Set<Association>();

  /** A datagram to or from a server, which may have any name. */
  look({ direction, bytes, flow, from }: Recorded, server: string): void {
    const left = this.#byFlow.get(`${server} ${from}`);
    if (left !== undefined && !this.#byFlow.has(`${server} ${flow}`)) {
      this.#byFlow.set(`${server} ${flow}`, left); // the device has moved, perhaps in the middle of a handshake
    }
    for (const record of recordsOf(bytes)) {
      if (isProtected(record)) {
        return; // nor is anything in the clear behind it
      }
      if (record.readUInt16BE(EPOCH_AT) > 0) {
        this.#protected(direction, record, flow, server);
      } else if (direction === "in" && record[0] === HANDSHAKE && record[HEADER_BYTES] === SERVER_HELLO) {
        const random = record.toString("hex", RANDOM_AT, RANDOM_AT + RANDOM_BYTES);
        if (this.#byFlow.get(`${server} ${flow}`)?.random !== random) {
          this.#byFlow.set(`${server} ${flow}`, this.#begin(random, server));
        }
      } else if (direction === "out" && record[0] === CHANGE_CIPHER_SPEC) {
        const association = this.#byFlow.get(`${server} ${flow}`);
        if (association !== undefined) {
          association.isChanged = true;
        }
      } else if (direction === "out" && record[0] === HANDSHAKE && record[HEADER_BYTES] === CLIENT_HELLO) {
        this.#greeted(record);
      }
    }
  }

  #greeted(hello: Buffer): void {
    const ticket = ticketOf(hello);
    if (ticket === undefined) {
      return;
    }
    const digest = createHash("sha256").update(ticket).digest("base64");
    const random = hello.toString("hex", RANDOM_AT, RANDOM_AT + RANDOM_BYTES);
    const before = this.#shown.get(digest);
    if (before === undefined) {
      this.tickets++;
    } else if (before !== random) {
      this.violations.push(`two handshakes show one ticket: those with the randoms ${before} and ${random}`);
    }
    this.#shown.set(digest, random);
    if (this.#shown.size > ASSOCIATIONS_MAX) {
      this.#shown.delete(this.#shown.keys().next().value!);
    }
  }

  #begin(random: string, server: string): Association {
    const key = (): Key => ({ numbers: new Numbers(), nonces: new Numbers() });
    const seen = { out: key(), in: key() };
    const association = { number: ++this.associations, server, random, isChanged: false, seen };
    this.#known.add(association);
    if (this.#known.size > ASSOCIATIONS_MAX) {
      this.#forget(this.#known.values().next().value!);
    }
    return association;
  }

  #forget(association: Association): void {
    this.#known.delete(association);
    for (const index of [this.#byFlow, this.#byConnectionId]) {
      for (const [key, indexed] of index) {
        if (indexed === association) {
          index.delete(key);
        }
      }
    }
  }

  #protected(direction: Recorded["direction"], record: Buffer, flow: number, server: string): void {
    const hasId = record[0] === CONNECTION_ID;
    const association = hasId ? this.#identified(record, flow, server) : this.#byFlow.get(`${server} ${flow}`);
    if (association === undefined) {
      this.violations.push(`a protected record to or from flow ${flow}, where no association began`);
      return;
    }
    if (association.server !== server) {
      this.violations.push(`association ${association.number} of ${association.server} is used with ${server}`);
    }
    this.records++;
    this.#known.delete(association);
    this.#known.add(association);
    const header = HEADER_BYTES + (hasId ? CONNECTION_ID_BYTES : 0);
    const number = record.subarray(EPOCH_AT, EPOCH_AT + NONCE_BYTES);
    const nonce = record.subarray(header, header + NONCE_BYTES);
    const digest = digestOf(record);
    const { numbers, nonces } = association.seen[direction];
    // Both count: what mbedTLS puts into the record is the epoch and the number, which other servers need not do.
    for (const [what, value, seen] of [
      ["epoch and sequence number", number, numbers],
      ["nonce", nonce, nonces],
    ] as const) {
      if (seen.isTaken(value, digest)) {
        this.violations.push(
          `association ${association.number}, ${direction}: two different records with the ${what} ${value.toString("hex")}`,
        );
      }
    }
  }

  /** The association of a record with an ID, where there is one, which moves to the flow that it came from. */
  #identified(record: Buffer, flow: number, server: string): Association | undefined {
    const id = record.toString("hex", CONNECTION_ID_AT, CONNECTION_ID_AT + CONNECTION_ID_BYTES);
    const here = this.#byFlow.get(`${server} ${flow}`);
    let association = this.#byConnectionId.get(id);
    if (here?.isChanged) {
      here.isChanged = false;
      association = here;
    }
    if (association === undefined) {
      return undefined;
    }
    this.#byConnectionId.set(id, association);
    this.#byFlow.set(`${server} ${flow}`, association);
    return association;
  }
}
