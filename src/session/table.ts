/**
 * The session table: DTLS sessions that outlive deep sleep (RFC 5246 section 7.3 session ids, RFC 5077 and RFC 8446
 * section 4.6.1 tickets), as a bounded, expiring cache in one byte array of fixed size. Its keys are peer addresses.
 *
 *     const table = new SessionTable(retained, { slots: 4, slotBytes: 512, clock });
 *     const session = table.get({ address: "2001:db8::1", port: 5684 });
 */
import { joinBytes, readUint, writeUint } from "../bytes.js";
import { FormatError, LimitError, TorporError } from "../errors.js";
import type { Clock } from "../io.js";
import { type ClientCertInfo, clientCertInfo } from "../pki/certificate.js";
import { crc32 } from "../pki/key.js";
import { ADDRESS_BYTES, formatAddress, parseAddress } from "./address.js";
import { SEAL_BYTES, type Sealer } from "./seal.js";

/*
 * Header, 36 bytes and 4 for each slot. All numbers are big-endian.
 *
 *      0      4       8         9          10      12          14         16            20
 *      ┌──────┬───────┬─────────┬──────────┬───────┬───────────┬──────────┬─────────────┬─ ─
 *      │ TRPR │ check │ version │ reserved │ slots │ slotBytes │ reserved │ fingerprint │
 *      └──────┴───────┴─────────┴──────────┴───────┴───────────┴──────────┴─────────────┴─ ─
 *        20           24             30         32        36
 *      ─ ─┬────────────┬──────────────┬──────────┬─────────┬────────────────────────┐
 *         │ generation │ highest time │ reserved │ counter │ state of each slot × n │
 *      ─ ─┴────────────┴──────────────┴──────────┴─────────┴────────────────────────┘
 *
 * check: CRC-32 of the rest of the header. generation: counts insertions, modulo 2³¹. highest time: the latest that
 * sessions were judged by, milliseconds since 1970. counter: the host's monotonic counter, as it was when a context was
 * last used. state: the generation of the slot's content × 2, plus 1 where its context has been used; 0: nothing counts.
 *
 * So what tells whether a context is good lies outside its slot: an old copy of a slot has an old generation.
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
 * its own place only. flags: bit 0 occupied, bit 1 data is a context, bit 2 data and certificate are sealed; a slot with
 * another flag is not used. kind, protocol: index in `kinds` and `protocols` below. created: milliseconds since 1970.
 * address: as in address.ts. lifetime: seconds, 0 for none.
 *
 * In a sealed table data and certificate are one sealed text, SEAL_BYTES longer than they are; bytes 4 to 75 of the
 * slot, its index and the header's fingerprint are what it is associated with (see seal.ts).
 *
 * The checks are there for decay and for bytes that were something else before. They stop no attacker: sealing does.
 */
/** Bytes of a slot that its session cannot use: `slotBytes` less these are for data and certificate. */
export const SLOT_OVERHEAD_BYTES = 76;

const MAGIC = 0x54525052;
const LAYOUT_VERSION = 2;

const HEADER_CHECK = 4;
const HEADER_CHECKED = 8;
const VERSION = 8;
const SLOTS = 10;
const SLOT_BYTES = 12;
const FINGERPRINT = 16;
const HEADER_GENERATION = 20;
const HIGHEST_TIME = 24;
const COUNTER = 32;
const STATES = 36;
const STATE_BYTES = 4;

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

/** Generations have 31 bits: a state has one more. */
const GENERATIONS = 2 ** 31;

const OCCUPIED = 1;
const CONTEXT = 2;
const SEALED = 4;

/** What a sealed text is associated with: the slot's head, its index, and the fingerprint. */
const ASSOCIATED_BYTES = SLOT_OVERHEAD_BYTES - CHECK_BYTES + 2 + 4;

const kinds = ["session", "ticket", "none"] as const;
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
  /** Whether the session in `data` resumes by session id or by ticket; "none" for a context whose session does not. */
  readonly kind: (typeof kinds)[number];
  /** Opaque. */
  readonly data: Uint8Array;
  /** Whether `data` is the context of an association (RFC 9146), which is good for one use; false unless told. */
  readonly isContext?: boolean | undefined;
  /** SHA-256 of the client certificate that the session was authenticated with: 32 bytes. */
  readonly clientCertHash: Uint8Array;
  /** That certificate, DER. Kept where the slot has room for it. */
  readonly clientCert?: Uint8Array | undefined;
  readonly protocol: (typeof protocols)[number];
  /** The server's ticket lifetime in seconds; absent or 0 where it gave none. */
  readonly lifetime?: number | undefined;
  /** Milliseconds since 1970, for a session that keeps its age; now unless told, and at the latest. */
  readonly created?: number | undefined;
}

/** A certificate out of the host's store: DER whose SHA-256 is the one given, undefined where it has none. */
export type CertificateLookup = (sha256: Uint8Array) => Uint8Array | undefined;

/**
 * A counter that nothing sets back, such as a hardware counter: it shows that a copy of the whole table was put back.
 */
export interface MonotonicCounter {
  /** uint32 */
  readonly value: number;
  /** Adds one, durably. */
  increment(): void;
}

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
  readonly fingerprint?: number | undefined;
  /** Called at the end of each operation that changed the bytes, for a host that must copy them out. */
  readonly commit?: (() => void) | undefined;
  /** For sessions whose slot had no room for the certificate. */
  readonly certificates?: CertificateLookup | undefined;
  /** Seals what the slots hold: for bytes that lie where others can read or write them. */
  readonly seal?: Sealer | undefined;
  /** Counts the uses of contexts outside the table; without it, a copy of the whole table put back is not noticed. */
  readonly counter?: MonotonicCounter | undefined;
}

/** A session as the table holds it. */
class StoredSession implements Session {
  readonly peer: Peer;
  readonly kind: (typeof kinds)[number];
  readonly data: Uint8Array;
  readonly isContext: boolean;
  /** Whether the context was used before: only the session in it serves then. */
  readonly isUsed: boolean;
  readonly clientCertHash: Uint8Array;
  readonly clientCert: Uint8Array | undefined;
  readonly protocol: (typeof protocols)[number];
  /** Seconds; 0 where the server gave none. */
  readonly lifetime: number;
  /** When it was inserted first, in milliseconds since 1970. */
  readonly created: number;
  readonly #certificates: CertificateLookup | undefined;
  #info: ClientCertInfo | null | undefined;

  /** Reads a checked slot, whose data and certificate are in `content`; byte arrays are views of the two. */
  constructor(slot: Uint8Array, content: Uint8Array, isUsed: boolean, certificates?: CertificateLookup) {
    const dataLength = readUint(slot, DATA_LENGTH, 2);
    const certificateLength = readUint(slot, CERTIFICATE_LENGTH, 2);
    this.peer = {
      address: formatAddress(slot.subarray(ADDRESS, ADDRESS + ADDRESS_BYTES)),
      port: readUint(slot, PORT, 2),
    };
    this.kind = kinds[slot[KIND]!]!;
    this.data = content.subarray(0, dataLength);
    this.isContext = (slot[FLAGS]! & CONTEXT) !== 0;
    this.isUsed = isUsed;
    this.clientCertHash = slot.subarray(CERTIFICATE_HASH, CERTIFICATE_HASH + HASH_BYTES);
    this.clientCert = certificateLength > 0 ? content.subarray(dataLength, dataLength + certificateLength) : undefined;
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
 *
 * A change is written slot first, header last. Whoever loses power in between finds a slot that the header does not
 * know, or a header whose check is wrong: no session then, never an old one in place of a newer one.
 */
export class SessionTable {
  readonly #bytes: Uint8Array;
  readonly #slotBytes: number;
  readonly #ttl: number;
  readonly #clock: SessionTableOptions["clock"];
  /** The options, where one of those is set that few tables have: elsewhere the object is not kept in memory. */
  readonly #options: SessionTableOptions | undefined;
  #changed = false;

  /** The bytes that a table of this geometry takes: header and slots. */
  static byteLength({ slots = 4, slotBytes = 512 }: SessionTableGeometry = {}): number {
    return SessionTable.headerLength(slots) + slots * slotBytes;
  }

  /** The bytes of the header of a table with so many slots. */
  static headerLength(slots: number): number {
    return STATES + STATE_BYTES * slots;
  }

  /** The geometry of the table whose header `bytes` begin with; undefined where it is none of this layout. */
  static geometryOf(bytes: Uint8Array): Required<SessionTableGeometry> | undefined {
    if (bytes.length < STATES || readUint(bytes, 0, 4) !== MAGIC || bytes[VERSION] !== LAYOUT_VERSION) return undefined;
    return { slots: readUint(bytes, SLOTS, 2), slotBytes: readUint(bytes, SLOT_BYTES, 2) };
  }

  /**
   * Opens the table that is in `bytes`. Bytes of another layout, geometry or fingerprint, or with a bad check, are
   * overwritten with an empty table; a slot with a bad check, or that the header does not know, is wiped. Throws a
   * TorporError where the options make no sense or `bytes` is not `SessionTable.byteLength` long; never because of what
   * the bytes are.
   */
  constructor(bytes: Uint8Array, options: SessionTableOptions) {
    const { slots = 4, slotBytes = 512, ttl = 86400, fingerprint = 0, counter, commit, seal, certificates } = options;
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
    this.#clock = options.clock;
    this.#options = (commit ?? seal ?? counter ?? certificates) ? options : undefined;
    if (
      readUint(bytes, 0, 4) === MAGIC &&
      bytes[VERSION] === LAYOUT_VERSION &&
      readUint(bytes, SLOTS, 2) === slots &&
      readUint(bytes, SLOT_BYTES, 2) === slotBytes &&
      readUint(bytes, FINGERPRINT, 4) === fingerprint >>> 0 &&
      isChecked(bytes, HEADER_CHECK, HEADER_CHECKED, SessionTable.headerLength(slots), 0)
    ) {
      for (let at = firstSlot(bytes); at < length; at += slotBytes) {
        if (isSound(bytes, at, slotBytes, options.seal !== undefined)) continue;
        if (stateOf(bytes, at, slotBytes) !== 0 || readUint(bytes, at, CHECK_BYTES + 1) !== 0) this.#changed = true;
        // What a wipe that was cut short left further back goes as well.
        wipe(bytes, at, slotBytes);
      }
      if (counter && readUint(bytes, COUNTER, 4) !== counter.value >>> 0) this.useAll(counter);
    } else {
      bytes.fill(0);
      writeUint(bytes, 0, 4, MAGIC);
      bytes[VERSION] = LAYOUT_VERSION;
      writeUint(bytes, SLOTS, 2, slots);
      writeUint(bytes, SLOT_BYTES, 2, slotBytes);
      writeUint(bytes, FINGERPRINT, 4, fingerprint >>> 0);
      if (counter) writeUint(bytes, COUNTER, 4, counter.value >>> 0);
      this.#changed = true;
    }
    this.settle(readUint(bytes, HIGHEST_TIME, TIME_BYTES));
  }

  /** Sessions in the table, those included that have expired and were not looked at since. */
  get length(): number {
    let count = 0;
    for (let at = firstSlot(this.#bytes); at < this.#bytes.length; at += this.#slotBytes) {
      if (this.#bytes[at + FLAGS] !== 0) count++;
    }
    return count;
  }

  get isEmpty(): boolean {
    return this.length === 0;
  }

  /** Sessions that there is room for. */
  get capacity(): number {
    return readUint(this.#bytes, SLOTS, 2);
  }

  /** Bytes that a session's data may have at most. */
  get room(): number {
    return this.#slotBytes - SLOT_OVERHEAD_BYTES - (this.#options?.seal ? SEAL_BYTES : 0);
  }

  /** Seconds. */
  get ttl(): number {
    return this.#ttl;
  }

  /**
   * Keeps a copy of `session`: in the slot of the same peer, else in a free one. Where all are taken, all that have
   * expired make room, else the one created first.
   *
   * Throws a LimitError where the session does not fit a slot, a FormatError for a peer or a hash that is none, a
   * TorporError for a lifetime that is not 0 to 4,294,967,295 seconds or where it cannot be sealed; then nothing has
   * changed.
   */
  insert(session: Session): void {
    const bytes = this.#bytes;
    const slotBytes = this.#slotBytes;
    const seal = this.#options?.seal;
    const { lifetime = 0 } = session;
    const port = checkedPort(session.peer);
    const address = parseAddress(session.peer.address);
    if (session.clientCertHash.length !== HASH_BYTES) {
      throw new FormatError(`session: expected a hash of ${HASH_BYTES} bytes, got ${session.clientCertHash.length}`);
    }
    if (!isWithin(lifetime, 0, 0xffffffff)) {
      throw new TorporError(`session: expected a lifetime of 0 to 4294967295 s, got ${lifetime}`);
    }
    const spare = this.room - session.data.length;
    if (spare < 0) {
      throw new LimitError(
        `session: it needs a slot of ${slotBytes - spare} bytes, the table's slots have ${slotBytes}`,
      );
    }
    const data = detached(session.data, bytes);
    const hash = detached(session.clientCertHash, bytes);
    let certificate = session.clientCert;
    if (certificate && certificate.length > spare) certificate = undefined;
    if (certificate) certificate = detached(certificate, bytes);
    const certificateLength = certificate?.length ?? 0;

    const now = this.now();
    let at = find(bytes, slotBytes, address, port) || findFree(bytes, slotBytes);
    if (at === 0) {
      purge(bytes, slotBytes, this.ttl, now);
      at = findFree(bytes, slotBytes) || findOldest(bytes, slotBytes);
    }
    const generation = (readUint(bytes, HEADER_GENERATION, 4) + 1) % GENERATIONS;
    const head = new Uint8Array(SLOT_OVERHEAD_BYTES);
    head[FLAGS] = OCCUPIED | (session.isContext ? CONTEXT : 0) | (seal ? SEALED : 0);
    head[KIND] = kinds.indexOf(session.kind);
    head[PROTOCOL] = protocols.indexOf(session.protocol);
    writeUint(head, GENERATION, 4, generation);
    writeUint(head, CREATED, TIME_BYTES, Math.min(session.created ?? now, now));
    writeUint(head, PORT, 2, port);
    head.set(address, ADDRESS);
    writeUint(head, LIFETIME, 4, lifetime);
    writeUint(head, DATA_LENGTH, 2, data.length);
    writeUint(head, CERTIFICATE_LENGTH, 2, certificateLength);
    head.set(hash, CERTIFICATE_HASH);
    let sealed: Uint8Array | undefined;
    if (seal) {
      const plain = certificate ? joinBytes(data, certificate) : data;
      sealed = new Uint8Array(plain.length + SEAL_BYTES);
      seal.seal(associatedOf(bytes, head, at, slotBytes), plain, sealed);
    }
    bytes.fill(0, at, at + slotBytes);
    bytes.set(head, at);
    bytes.set(sealed ?? data, at + SLOT_OVERHEAD_BYTES);
    if (certificate && !sealed) bytes.set(certificate, at + SLOT_OVERHEAD_BYTES + data.length);
    writeUint(bytes, at, CHECK_BYTES, crc32(bytes, at + CHECK_BYTES, at + slotBytes, at));
    writeUint(bytes, HEADER_GENERATION, 4, generation);
    setState(bytes, at, slotBytes, generation * 2);
    this.#changed = true;
    this.settle(now);
  }

  /**
   * The session of a peer, or undefined where there is none or it has expired; an expired one is removed, as is one
   * that was not sealed here. Its byte arrays are views into the table, good until the next change. Throws a
   * FormatError for a peer that is none.
   */
  get(peer: Peer): StoredSession | undefined {
    const now = this.now();
    const at = this.findPeer(peer);
    let session: StoredSession | undefined;
    if (at !== 0) {
      if (!isExpired(this.#bytes, at, this.ttl, now)) session = this.read(at);
      if (session === undefined) {
        wipe(this.#bytes, at, this.#slotBytes);
        this.#changed = true;
      }
    }
    this.settle(now);
    return session;
  }

  /**
   * Marks the context of a peer as used, durably, before it is: true where it may be used now, once. False where there
   * is none, or where it was used before. Throws what `commit` and the counter throw; it counts as used then.
   */
  use(peer: Peer): boolean {
    const bytes = this.#bytes;
    const counter = this.#options?.counter;
    const now = this.now();
    const at = this.findPeer(peer);
    const state = at === 0 ? 0 : stateOf(bytes, at, this.#slotBytes);
    const isGood = at !== 0 && (bytes[at + FLAGS]! & CONTEXT) !== 0 && state % 2 === 0;
    if (isGood) {
      setState(bytes, at, this.#slotBytes, state + 1);
      this.#changed = true;
      if (counter) {
        counter.increment();
        writeUint(bytes, COUNTER, 4, counter.value >>> 0);
      }
    }
    this.settle(now);
    return isGood;
  }

  /**
   * Removes the session of a peer and returns a copy of it, whether it has expired or not: to resume, `get` it. Throws
   * a FormatError for a peer that is none.
   */
  remove(peer: Peer): StoredSession | undefined {
    const bytes = this.#bytes;
    const slotBytes = this.#slotBytes;
    const now = this.now();
    const at = this.findPeer(peer);
    let removed: StoredSession | undefined;
    if (at !== 0) {
      removed = this.read(at, bytes.slice(at, at + slotBytes));
      wipe(bytes, at, slotBytes);
      this.#changed = true;
    }
    this.settle(now);
    return removed;
  }

  /** Removes all sessions that have expired; returns how many. */
  cleanupExpired(): number {
    const now = this.now();
    const count = purge(this.#bytes, this.#slotBytes, this.ttl, now);
    if (count > 0) this.#changed = true;
    this.settle(now);
    return count;
  }

  /** Removes all sessions. */
  clear(): void {
    const now = this.now();
    this.#bytes.fill(0, STATES);
    this.#changed = true;
    this.settle(now);
  }

  /**
   * The sessions that have not expired, by slot. The table may be changed on the way; the byte arrays are views as
   * those of `get`.
   */
  *sessions(): IterableIterator<StoredSession> {
    const bytes = this.#bytes;
    const now = this.now();
    this.settle(now);
    for (let at = firstSlot(bytes); at < bytes.length; at += this.#slotBytes) {
      if (bytes[at + FLAGS] === 0 || isExpired(bytes, at, this.ttl, now)) continue;
      const session = this.read(at);
      if (session) yield session;
    }
  }

  private findPeer(peer: Peer): number {
    return find(this.#bytes, this.#slotBytes, parseAddress(peer.address), checkedPort(peer));
  }

  /** The session in the slot at `at`, of which `slot` is a view or a copy; undefined where its seal is not ours. */
  private read(at: number, slot = this.#bytes.subarray(at, at + this.#slotBytes)): StoredSession | undefined {
    const seal = this.#options?.seal;
    const certificates = this.#options?.certificates;
    const length = readUint(slot, DATA_LENGTH, 2) + readUint(slot, CERTIFICATE_LENGTH, 2);
    let content = slot.subarray(SLOT_OVERHEAD_BYTES);
    if (seal) {
      const associated = associatedOf(this.#bytes, slot, at, this.#slotBytes);
      const plain = new Uint8Array(length);
      if (!seal.unseal(associated, content.subarray(0, length + SEAL_BYTES), plain)) return undefined;
      content = plain;
    }
    return new StoredSession(slot, content, stateOf(this.#bytes, at, this.#slotBytes) % 2 === 1, certificates);
  }

  /** The counter and the table do not belong together: no context in it can be trusted to be unused. */
  private useAll(counter: MonotonicCounter): void {
    const bytes = this.#bytes;
    for (let at = firstSlot(bytes); at < bytes.length; at += this.#slotBytes) {
      const state = stateOf(bytes, at, this.#slotBytes);
      if (state !== 0 && state % 2 === 0) setState(bytes, at, this.#slotBytes, state + 1);
    }
    writeUint(bytes, COUNTER, 4, counter.value >>> 0);
    this.#changed = true;
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
      if (highest - time <= this.ttl * 1000) return highest;
      bytes.fill(0, STATES);
      this.#changed = true;
    } else if (time - highest >= NOTICEABLE_STEP) this.#changed = true;
    else {
      for (let at = firstSlot(bytes); at < bytes.length; at += slotBytes) {
        if (bytes[at + FLAGS] !== 0 && isExpired(bytes, at, this.ttl, time)) {
          if (!isExpired(bytes, at, this.ttl, highest)) this.#changed = true;
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
    writeUint(bytes, HEADER_CHECK, CHECK_BYTES, crc32(bytes, HEADER_CHECKED, firstSlot(bytes), 0));
    this.#options?.commit?.();
  }
}

// Functions, not private methods: an engine gives every object a slot for each of its private methods.

/** The offset of the first slot. */
function firstSlot(bytes: Uint8Array): number {
  return STATES + STATE_BYTES * readUint(bytes, SLOTS, 2);
}

function stateAt(bytes: Uint8Array, at: number, slotBytes: number): number {
  return STATES + (STATE_BYTES * (at - firstSlot(bytes))) / slotBytes;
}

/** What the header says of the slot at `at`. */
function stateOf(bytes: Uint8Array, at: number, slotBytes: number): number {
  return readUint(bytes, stateAt(bytes, at, slotBytes), STATE_BYTES);
}

function setState(bytes: Uint8Array, at: number, slotBytes: number, state: number): void {
  writeUint(bytes, stateAt(bytes, at, slotBytes), STATE_BYTES, state);
}

function wipe(bytes: Uint8Array, at: number, slotBytes: number): void {
  setState(bytes, at, slotBytes, 0);
  bytes.fill(0, at, at + slotBytes);
}

/** What the seal of a slot covers besides its content; `slot` begins with its head. */
function associatedOf(bytes: Uint8Array, slot: Uint8Array, at: number, slotBytes: number): Uint8Array {
  const associated = new Uint8Array(ASSOCIATED_BYTES);
  associated.set(slot.subarray(CHECK_BYTES, SLOT_OVERHEAD_BYTES));
  writeUint(associated, ASSOCIATED_BYTES - 6, 2, (at - firstSlot(bytes)) / slotBytes);
  writeUint(associated, ASSOCIATED_BYTES - 4, 4, readUint(bytes, FINGERPRINT, 4));
  return associated;
}

/** The offset of a peer's slot; 0 where there is none. */
function find(bytes: Uint8Array, slotBytes: number, address: Uint8Array, port: number): number {
  for (let at = firstSlot(bytes); at < bytes.length; at += slotBytes) {
    if (bytes[at + FLAGS] === 0 || readUint(bytes, at + PORT, 2) !== port) continue;
    let index = 0;
    while (index < ADDRESS_BYTES && bytes[at + ADDRESS + index] === address[index]) index++;
    if (index === ADDRESS_BYTES) return at;
  }
  return 0;
}

/** The offset of a free slot; 0 where there is none. */
function findFree(bytes: Uint8Array, slotBytes: number): number {
  for (let at = firstSlot(bytes); at < bytes.length; at += slotBytes) if (bytes[at + FLAGS] === 0) return at;
  return 0;
}

/** The offset of the slot created first, in a full table. */
function findOldest(bytes: Uint8Array, slotBytes: number): number {
  let oldest = firstSlot(bytes);
  for (let at = oldest + slotBytes; at < bytes.length; at += slotBytes) {
    const difference =
      readUint(bytes, at + CREATED, TIME_BYTES) - readUint(bytes, oldest + CREATED, TIME_BYTES) ||
      // The insertion counter may wrap around: the sign of a 31-bit difference still tells which came first.
      (readUint(bytes, at + GENERATION, 4) - readUint(bytes, oldest + GENERATION, 4)) << 1;
    if (difference < 0) oldest = at;
  }
  return oldest;
}

/** Wipes all sessions that have expired; returns how many. */
function purge(bytes: Uint8Array, slotBytes: number, ttl: number, now: number): number {
  let count = 0;
  for (let at = firstSlot(bytes); at < bytes.length; at += slotBytes) {
    if (bytes[at + FLAGS] === 0 || !isExpired(bytes, at, ttl, now)) continue;
    wipe(bytes, at, slotBytes);
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
 * Whether a slot holds the session that this code wrote here last, sealed or not as asked for. One created after the highest time that the header knows
 * comes from the future: it counts as expired, now and when that time comes.
 */
function isSound(bytes: Uint8Array, at: number, slotBytes: number, isSealed: boolean): boolean {
  const around = SLOT_OVERHEAD_BYTES + (isSealed ? SEAL_BYTES : 0);
  const used = around + readUint(bytes, at + DATA_LENGTH, 2) + readUint(bytes, at + CERTIFICATE_LENGTH, 2);
  const state = stateOf(bytes, at, slotBytes);
  return (
    state !== 0 &&
    readUint(bytes, at + GENERATION, 4) === Math.floor(state / 2) &&
    (bytes[at + FLAGS]! & ~CONTEXT) === (isSealed ? OCCUPIED | SEALED : OCCUPIED) &&
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
