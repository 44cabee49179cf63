/**
 * The session table: DTLS sessions that outlive deep sleep (RFC 5246 section 7.3 session ids, RFC 5077 and RFC 8446
 * section 4.6.1 tickets), as a bounded, expiring cache in one byte array of fixed size. Its keys are peer addresses.
 *
 *     const table = new SessionTable(retained, { slots: 4, slotBytes: 512, clock });
 *     const session = table.get({ address: "2001:db8::1", port: 5684 });
 */
import { readUint, writeUint } from "../bytes.js";
import { FormatError, LimitError, TorporError } from "../errors.js";
import type { Clock } from "../io.js";
import { type ClientCertInfo, clientCertInfo } from "../pki/certificate.js";
import { ADDRESS_BYTES, formatAddress, parseAddress } from "./address.js";

/*
 * Header, 32 bytes. All numbers are big-endian.
 *
 *      0      4         5          6       8           10         12
 *      ┌──────┬─────────┬──────────┬───────┬───────────┬──────────┬─ ─
 *      │ TRPR │ version │ reserved │ slots │ slotBytes │ reserved │
 *      └──────┴─────────┴──────────┴───────┴───────────┴──────────┴─ ─
 *        12            16           20             26         28      32
 *      ─ ─┬─────────────┬────────────┬──────────────┬──────────┬───────┐
 *         │ fingerprint │ generation │ highest time │ reserved │ check │
 *      ─ ─┴─────────────┴────────────┴──────────────┴──────────┴───────┘
 *
 * generation: counts insertions. highest time: the latest that sessions were judged by, milliseconds since 1970. check:
 * CRC-32 of bytes 0 to 27.
 *
 * Slot, `slotBytes` each, right behind the header; an empty one is all zero.
 *
 *      0       4       5      6          7          8            12        18     20        36
 *      ┌───────┬───────┬──────┬──────────┬──────────┬────────────┬─────────┬──────┬─────────┬─ ─
 *      │ check │ flags │ kind │ protocol │ reserved │ generation │ created │ port │ address │
 *      └───────┴───────┴──────┴──────────┴──────────┴────────────┴─────────┴──────┴─────────┴─ ─
 *        36         40            42                   44                 76                      slotBytes
 *      ─ ─┬──────────┬─────────────┬────────────────────┬──────────────────┬──────┬─────────────┬───┐
 *         │ lifetime │ data length │ certificate length │ certificate hash │ data │ certificate │ 0 │
 *      ─ ─┴──────────┴─────────────┴────────────────────┴──────────────────┴──────┴─────────────┴───┘
 *
 * check: CRC-32 of the rest of the slot, its initial value combined with the slot's offset, so that a slot is good in
 * its own place only. flags: bit 0 occupied; the others are for later (context consumed, session dropped), and a slot
 * with a flag that is not known is not used. kind, protocol: index in `kinds` and `protocols` below. created:
 * milliseconds since 1970. address: as in address.ts. lifetime: seconds, 0 for none.
 *
 * The checks are there for decay and for bytes that were something else before. They stop no attacker: sealing does.
 */
/** Bytes of the table's header. */
export const HEADER_BYTES = 32;
/** Bytes of a slot that its session cannot use: `slotBytes` less these are for data and certificate. */
export const SLOT_OVERHEAD_BYTES = 76;

const MAGIC = 0x54525052;
const LAYOUT_VERSION = 1;

const VERSION = 4;
const SLOTS = 6;
const SLOT_BYTES = 8;
const FINGERPRINT = 12;
const HEADER_GENERATION = 16;
const HIGHEST_TIME = 20;
const HEADER_CHECK = 28;

const CHECK_BYTES = 4;
const FLAGS = 4;
const KIND = 5;
const PROTOCOL = 6;
const GENERATION = 8;
const CREATED = 12;
const PORT = 18;
const ADDRESS = 20;
const LIFETIME = 36;
const DATA_LENGTH = 40;
const CERTIFICATE_LENGTH = 42;
const CERTIFICATE_HASH = 44;

const TIME_BYTES = 6;
const HASH_BYTES = 32;

const OCCUPIED = 1;

const kinds = ["session", "ticket"] as const;
const protocols = ["DTLS 1.2", "DTLS 1.3"] as const;

/** A step of the clock that is worth a commit of its own, in milliseconds. */
const NOTICEABLE_STEP = 1000;

/** Where a DTLS peer is. */
export interface Peer {
  /** IPv4 or IPv6 address; its spelling does not matter. */
  readonly address: string;
  /** UDP port, 1 to 65535. */
  readonly port: number;
}

/** What the DTLS engine gives to keep. */
export interface Session {
  readonly peer: Peer;
  /** Whether `data` resumes by session id or by ticket. */
  readonly kind: (typeof kinds)[number];
  /** Opaque. */
  readonly data: Uint8Array;
  /** SHA-256 of the client certificate that the session was authenticated with: 32 bytes. */
  readonly clientCertHash: Uint8Array;
  /** That certificate, DER. Kept where the slot has room for it. */
  readonly clientCert?: Uint8Array | undefined;
  readonly protocol: (typeof protocols)[number];
  /** The server's ticket lifetime in seconds; absent or 0 where it gave none. */
  readonly lifetime?: number | undefined;
}

/** A certificate out of the host's store: DER whose SHA-256 is the one given, undefined where it has none. */
export type CertificateLookup = (sha256: Uint8Array) => Uint8Array | undefined;

export interface SessionTableGeometry {
  /** How many sessions there is room for, 1 to 65535; 4 unless told. */
  readonly slots?: number;
  /** Bytes for each, 77 to 65535; 512 unless told. */
  readonly slotBytes?: number;
}

export interface SessionTableOptions extends SessionTableGeometry {
  /** Seconds that a session may be used for; 86,400 unless told. With 0 every session has expired at once. */
  readonly ttl?: number;
  /** Milliseconds since 1970; it must go on during sleep. Anything but a number of 0 or more counts as 0. */
  readonly clock: Pick<Clock, "time"> | (() => number | undefined);
  /** Which build of the TLS library the data is for (uint32): a table that was written with another opens as empty. */
  readonly fingerprint?: number;
  /** Called at the end of each operation that changed the bytes, for a host that must copy them out. */
  readonly commit?: () => void;
  /** For sessions whose slot had no room for the certificate. */
  readonly certificates?: CertificateLookup;
}

/** A session as the table holds it. */
class StoredSession implements Session {
  readonly peer: Peer;
  readonly kind: (typeof kinds)[number];
  readonly data: Uint8Array;
  readonly clientCertHash: Uint8Array;
  readonly clientCert: Uint8Array | undefined;
  readonly protocol: (typeof protocols)[number];
  /** Seconds; 0 where the server gave none. */
  readonly lifetime: number;
  /** When it was inserted, in milliseconds since 1970. */
  readonly created: number;
  readonly #certificates: CertificateLookup | undefined;
  #info: ClientCertInfo | null | undefined;

  /** Reads a checked slot; byte arrays are views into it. */
  constructor(slot: Uint8Array, certificates?: CertificateLookup) {
    const certificateStart = SLOT_OVERHEAD_BYTES + readUint(slot, DATA_LENGTH, 2);
    const certificateLength = readUint(slot, CERTIFICATE_LENGTH, 2);
    this.peer = {
      address: formatAddress(slot.subarray(ADDRESS, ADDRESS + ADDRESS_BYTES)),
      port: readUint(slot, PORT, 2),
    };
    this.kind = kinds[slot[KIND]!]!;
    this.data = slot.subarray(SLOT_OVERHEAD_BYTES, certificateStart);
    this.clientCertHash = slot.subarray(CERTIFICATE_HASH, CERTIFICATE_HASH + HASH_BYTES);
    this.clientCert =
      certificateLength > 0 ? slot.subarray(certificateStart, certificateStart + certificateLength) : undefined;
    this.protocol = protocols[slot[PROTOCOL]!]!;
    this.lifetime = readUint(slot, LIFETIME, 4);
    this.created = readUint(slot, CREATED, TIME_BYTES);
    this.#certificates = certificates;
  }

  /**
   * Subject, serial number and DER of the client certificate, parsed at the first look: from the slot, else from the
   * host's store. Undefined where neither has it, or where it cannot be parsed. Never throws.
   */
  get clientCertInfo(): ClientCertInfo | undefined {
    if (this.#info === undefined) {
      this.#info = null;
      try {
        const der = this.clientCert ?? this.#certificates?.(this.clientCertHash);
        if (der) this.#info = clientCertInfo(der);
      } catch {
        // Who the certificate was about is for people to read: a session works without.
      }
    }
    return this.#info ?? undefined;
  }
}

export type { StoredSession };

/**
 * Sessions by peer, in the caller's bytes. It allocates nothing for its content; every change is in the bytes when the
 * operation returns, and `commit` has been called.
 *
 * Time is that of the clock, or the highest time ever seen where the clock is behind that by one TTL at most. A clock
 * that is further behind was set anew: how old the sessions are cannot be known, and the table becomes empty.
 */
export class SessionTable {
  readonly #bytes: Uint8Array;
  readonly #slotBytes: number;
  readonly #ttl: number;
  readonly #clock: SessionTableOptions["clock"];
  readonly #commit: (() => void) | undefined;
  readonly #certificates: CertificateLookup | undefined;
  #changed = false;

  /** The bytes that a table of this geometry takes: header and slots. */
  static byteLength({ slots = 4, slotBytes = 512 }: SessionTableGeometry = {}): number {
    return HEADER_BYTES + slots * slotBytes;
  }

  /**
   * Opens the table that is in `bytes`. Bytes of another layout, geometry or fingerprint, or with a bad check, are
   * overwritten with an empty table; a slot with a bad check is wiped. Throws a TorporError where the options make no
   * sense or `bytes` is not `SessionTable.byteLength` long; never because of what the bytes are.
   */
  constructor(bytes: Uint8Array, options: SessionTableOptions) {
    const { slots = 4, slotBytes = 512, ttl = 86400, clock, fingerprint = 0, commit, certificates } = options;
    if (!isWithin(slots, 1, 0xffff)) throw new TorporError(`session table: expected 1 to 65535 slots, got ${slots}`);
    if (!isWithin(slotBytes, SLOT_OVERHEAD_BYTES + 1, 0xffff)) {
      throw new TorporError(
        `session table: expected slots of ${SLOT_OVERHEAD_BYTES + 1} to 65535 bytes, got ${slotBytes}`,
      );
    }
    if (!(ttl >= 0 && ttl < Infinity))
      throw new TorporError(`session table: expected a TTL of 0 s or more, got ${ttl}`);
    const length = SessionTable.byteLength({ slots, slotBytes });
    if (bytes.length !== length) {
      throw new TorporError(
        `session table: expected ${length} bytes for ${slots} slots of ${slotBytes}, got ${bytes.length}`,
      );
    }
    this.#bytes = bytes;
    this.#slotBytes = slotBytes;
    this.#ttl = ttl;
    this.#clock = clock;
    this.#commit = commit;
    this.#certificates = certificates;
    if (
      readUint(bytes, 0, 4) === MAGIC &&
      bytes[VERSION] === LAYOUT_VERSION &&
      readUint(bytes, SLOTS, 2) === slots &&
      readUint(bytes, SLOT_BYTES, 2) === slotBytes &&
      readUint(bytes, FINGERPRINT, 4) === fingerprint >>> 0 &&
      isChecked(bytes, HEADER_CHECK, 0, HEADER_CHECK, 0)
    ) {
      for (let at = HEADER_BYTES; at < length; at += slotBytes) {
        if (isSound(bytes, at, slotBytes)) continue;
        if (readUint(bytes, at, CHECK_BYTES + 1) !== 0) this.#changed = true;
        // What a wipe that was cut short left further back goes as well.
        bytes.fill(0, at, at + slotBytes);
      }
    } else {
      bytes.fill(0);
      writeUint(bytes, 0, 4, MAGIC);
      bytes[VERSION] = LAYOUT_VERSION;
      writeUint(bytes, SLOTS, 2, slots);
      writeUint(bytes, SLOT_BYTES, 2, slotBytes);
      writeUint(bytes, FINGERPRINT, 4, fingerprint >>> 0);
      this.#changed = true;
    }
    this.settle(readUint(bytes, HIGHEST_TIME, TIME_BYTES));
  }

  /** Sessions in the table, those included that have expired and were not looked at since. */
  get length(): number {
    let count = 0;
    for (let at = HEADER_BYTES; at < this.#bytes.length; at += this.#slotBytes) count += this.#bytes[at + FLAGS]!;
    return count;
  }

  get isEmpty(): boolean {
    return this.length === 0;
  }

  /** Sessions that there is room for. */
  get capacity(): number {
    return (this.#bytes.length - HEADER_BYTES) / this.#slotBytes;
  }

  /** Seconds. */
  get ttl(): number {
    return this.#ttl;
  }

  /**
   * Keeps a copy of `session`, created now: in the slot of the same peer, else in a free one. Where all are taken, all
   * that have expired make room, else the one created first.
   *
   * Throws a LimitError where the session does not fit a slot, a FormatError for a peer or a hash that is none, a
   * TorporError for a lifetime that is not 0 to 4,294,967,295 seconds; then nothing has changed.
   */
  insert(session: Session): void {
    const bytes = this.#bytes;
    const slotBytes = this.#slotBytes;
    const { lifetime = 0 } = session;
    const port = checkedPort(session.peer);
    const address = parseAddress(session.peer.address);
    if (session.clientCertHash.length !== HASH_BYTES) {
      throw new FormatError(`session: expected a hash of ${HASH_BYTES} bytes, got ${session.clientCertHash.length}`);
    }
    if (!isWithin(lifetime, 0, 0xffffffff)) {
      throw new TorporError(`session: expected a lifetime of 0 to 4294967295 s, got ${lifetime}`);
    }
    const needed = SLOT_OVERHEAD_BYTES + session.data.length;
    if (needed > slotBytes) {
      throw new LimitError(`session: it needs a slot of ${needed} bytes, the table's slots have ${slotBytes}`);
    }
    const data = detached(session.data, bytes);
    const hash = detached(session.clientCertHash, bytes);
    let certificate = session.clientCert;
    if (certificate && needed + certificate.length > slotBytes) certificate = undefined;
    if (certificate) certificate = detached(certificate, bytes);

    const now = this.now();
    let at = find(bytes, slotBytes, address, port) || findFree(bytes, slotBytes);
    if (at === 0) {
      purge(bytes, slotBytes, this.#ttl, now);
      at = findFree(bytes, slotBytes) || findOldest(bytes, slotBytes);
    }
    const generation = (readUint(bytes, HEADER_GENERATION, 4) + 1) % 2 ** 32;
    writeUint(bytes, HEADER_GENERATION, 4, generation);
    bytes.fill(0, at, at + slotBytes);
    bytes[at + FLAGS] = OCCUPIED;
    bytes[at + KIND] = kinds.indexOf(session.kind);
    bytes[at + PROTOCOL] = protocols.indexOf(session.protocol);
    writeUint(bytes, at + GENERATION, 4, generation);
    writeUint(bytes, at + CREATED, TIME_BYTES, now);
    writeUint(bytes, at + PORT, 2, port);
    bytes.set(address, at + ADDRESS);
    writeUint(bytes, at + LIFETIME, 4, lifetime);
    writeUint(bytes, at + DATA_LENGTH, 2, data.length);
    bytes.set(hash, at + CERTIFICATE_HASH);
    bytes.set(data, at + SLOT_OVERHEAD_BYTES);
    if (certificate) {
      writeUint(bytes, at + CERTIFICATE_LENGTH, 2, certificate.length);
      bytes.set(certificate, at + needed);
    }
    writeUint(bytes, at, CHECK_BYTES, crc32(bytes, at + CHECK_BYTES, at + slotBytes, at));
    this.#changed = true;
    this.settle(now);
  }

  /**
   * The session of a peer, or undefined where there is none or it has expired; an expired one is removed. Its byte
   * arrays are views into the table, good until the next change. Throws a FormatError for a peer that is none.
   */
  get(peer: Peer): StoredSession | undefined {
    const bytes = this.#bytes;
    const slotBytes = this.#slotBytes;
    const port = checkedPort(peer);
    const address = parseAddress(peer.address);
    const now = this.now();
    let at = find(bytes, slotBytes, address, port);
    if (at !== 0 && isExpired(bytes, at, this.#ttl, now)) {
      bytes.fill(0, at, at + slotBytes);
      this.#changed = true;
      at = 0;
    }
    this.settle(now);
    return at === 0 ? undefined : new StoredSession(bytes.subarray(at, at + slotBytes), this.#certificates);
  }

  /**
   * Removes the session of a peer and returns a copy of it, whether it has expired or not: to resume, `get` it. Throws
   * a FormatError for a peer that is none.
   */
  remove(peer: Peer): StoredSession | undefined {
    const bytes = this.#bytes;
    const slotBytes = this.#slotBytes;
    const port = checkedPort(peer);
    const address = parseAddress(peer.address);
    const now = this.now();
    const at = find(bytes, slotBytes, address, port);
    let removed: StoredSession | undefined;
    if (at !== 0) {
      removed = new StoredSession(bytes.slice(at, at + slotBytes), this.#certificates);
      bytes.fill(0, at, at + slotBytes);
      this.#changed = true;
    }
    this.settle(now);
    return removed;
  }

  /** Removes all sessions that have expired; returns how many. */
  cleanupExpired(): number {
    const now = this.now();
    const count = purge(this.#bytes, this.#slotBytes, this.#ttl, now);
    if (count > 0) this.#changed = true;
    this.settle(now);
    return count;
  }

  /** Removes all sessions. */
  clear(): void {
    const now = this.now();
    this.#bytes.fill(0, HEADER_BYTES);
    this.#changed = true;
    this.settle(now);
  }

  /**
   * The sessions that have not expired, by slot. The table may be changed on the way; the byte arrays are views as
   * those of `get`.
   */
  *sessions(): IterableIterator<StoredSession> {
    const bytes = this.#bytes;
    const slotBytes = this.#slotBytes;
    const now = this.now();
    this.settle(now);
    for (let at = HEADER_BYTES; at < bytes.length; at += slotBytes) {
      if (bytes[at + FLAGS] === 0 || isExpired(bytes, at, this.#ttl, now)) continue;
      yield new StoredSession(bytes.subarray(at, at + slotBytes), this.#certificates);
    }
  }

  /**
   * The time to judge by; never less than the header's highest. So that a session which was seen expired stays so for
   * a later, slower clock, the header takes note of each time at which one expires; else of whole seconds only, for a
   * commit may wear out flash.
   */
  private now(): number {
    const bytes = this.#bytes;
    const slotBytes = this.#slotBytes;
    const clock = this.#clock;
    const shown = typeof clock === "function" ? clock() : clock.time;
    const time = shown !== undefined && shown >= 0 && shown < 256 ** TIME_BYTES ? Math.floor(shown) : 0;
    const highest = readUint(bytes, HIGHEST_TIME, TIME_BYTES);
    if (time < highest) {
      if (highest - time <= this.#ttl * 1000) return highest;
      bytes.fill(0, HEADER_BYTES);
      this.#changed = true;
    } else if (time - highest >= NOTICEABLE_STEP) this.#changed = true;
    else {
      for (let at = HEADER_BYTES; at < bytes.length; at += slotBytes) {
        if (bytes[at + FLAGS] !== 0 && isExpired(bytes, at, this.#ttl, time)) {
          if (!isExpired(bytes, at, this.#ttl, highest)) this.#changed = true;
        }
      }
    }
    return time;
  }

  /** Ends an operation: where it changed something, the header gets the time and its check, and the host its call. */
  private settle(now: number): void {
    if (!this.#changed) return;
    this.#changed = false;
    const bytes = this.#bytes;
    writeUint(bytes, HIGHEST_TIME, TIME_BYTES, now);
    writeUint(bytes, HEADER_CHECK, CHECK_BYTES, crc32(bytes, 0, HEADER_CHECK, 0));
    this.#commit?.();
  }
}

// Functions, not private methods: an engine gives every object a slot for each of its private methods.

/** The offset of a peer's slot; 0 where there is none. */
function find(bytes: Uint8Array, slotBytes: number, address: Uint8Array, port: number): number {
  for (let at = HEADER_BYTES; at < bytes.length; at += slotBytes) {
    if (bytes[at + FLAGS] === 0 || readUint(bytes, at + PORT, 2) !== port) continue;
    let index = 0;
    while (index < ADDRESS_BYTES && bytes[at + ADDRESS + index] === address[index]) index++;
    if (index === ADDRESS_BYTES) return at;
  }
  return 0;
}

/** The offset of a free slot; 0 where there is none. */
function findFree(bytes: Uint8Array, slotBytes: number): number {
  for (let at = HEADER_BYTES; at < bytes.length; at += slotBytes) if (bytes[at + FLAGS] === 0) return at;
  return 0;
}

/** The offset of the slot created first, in a full table. */
function findOldest(bytes: Uint8Array, slotBytes: number): number {
  let oldest = HEADER_BYTES;
  for (let at = oldest + slotBytes; at < bytes.length; at += slotBytes) {
    const difference =
      readUint(bytes, at + CREATED, TIME_BYTES) - readUint(bytes, oldest + CREATED, TIME_BYTES) ||
      // The insertion counter may wrap around: the sign of a 32-bit difference still tells which came first.
      (readUint(bytes, at + GENERATION, 4) - readUint(bytes, oldest + GENERATION, 4)) | 0;
    if (difference < 0) oldest = at;
  }
  return oldest;
}

/** Wipes all sessions that have expired; returns how many. */
function purge(bytes: Uint8Array, slotBytes: number, ttl: number, now: number): number {
  let count = 0;
  for (let at = HEADER_BYTES; at < bytes.length; at += slotBytes) {
    if (bytes[at + FLAGS] === 0 || !isExpired(bytes, at, ttl, now)) continue;
    bytes.fill(0, at, at + slotBytes);
    count++;
  }
  return count;
}

/** Whether the age is above the smaller of TTL and lifetime. No age is negative: see `isSound`. */
function isExpired(bytes: Uint8Array, at: number, ttl: number, now: number): boolean {
  const lifetime = readUint(bytes, at + LIFETIME, 4);
  const limit = lifetime !== 0 && lifetime < ttl ? lifetime : ttl;
  return limit === 0 || now - readUint(bytes, at + CREATED, TIME_BYTES) > limit * 1000;
}

/**
 * Whether a slot holds a session that this code wrote here. One created after the highest time that the header knows
 * comes from the future: it counts as expired, now and when that time comes.
 */
function isSound(bytes: Uint8Array, at: number, slotBytes: number): boolean {
  const used = SLOT_OVERHEAD_BYTES + readUint(bytes, at + DATA_LENGTH, 2) + readUint(bytes, at + CERTIFICATE_LENGTH, 2);
  return (
    bytes[at + FLAGS] === OCCUPIED &&
    bytes[at + KIND]! < kinds.length &&
    bytes[at + PROTOCOL]! < protocols.length &&
    used <= slotBytes &&
    readUint(bytes, at + CREATED, TIME_BYTES) <= readUint(bytes, HIGHEST_TIME, TIME_BYTES) &&
    isChecked(bytes, at, at + CHECK_BYTES, at + slotBytes, at)
  );
}

function isChecked(bytes: Uint8Array, check: number, start: number, end: number, offset: number): boolean {
  return readUint(bytes, check, CHECK_BYTES) === crc32(bytes, start, end, offset);
}

/** CRC-32 (ISO 3309, polynomial edb88320) by half octets; signed entries, which an engine keeps as integers. */
const crcTable = Int32Array.of(
  0x00000000,
  0x1db71064,
  0x3b6e20c8,
  0x26d930ac,
  0x76dc4190,
  0x6b6b51f4,
  0x4db26158,
  0x5005713c,
  0xedb88320,
  0xf00f9344,
  0xd6d6a3e8,
  0xcb61b38c,
  0x9b64c2b0,
  0x86d3d2d4,
  0xa00ae278,
  0xbdbdf21c,
);

function crc32(bytes: Uint8Array, start: number, end: number, offset: number): number {
  let value = ~offset;
  for (let at = start; at < end; at++) {
    value ^= bytes[at]!;
    value = (value >>> 4) ^ crcTable[value & 15]!;
    value = (value >>> 4) ^ crcTable[value & 15]!;
  }
  return ~value >>> 0;
}

/** A view of the table's own memory as a copy: what it shows may be overwritten before it is read. */
function detached(view: Uint8Array, bytes: Uint8Array): Uint8Array {
  return view.buffer === bytes.buffer ? view.slice() : view;
}

function checkedPort({ port }: Peer): number {
  if (!isWithin(port, 1, 0xffff)) throw new FormatError(`peer: expected a port of 1 to 65535, got ${port}`);
  return port;
}

function isWithin(value: number, least: number, most: number): boolean {
  return Number.isInteger(value) && value >= least && value <= most;
}
