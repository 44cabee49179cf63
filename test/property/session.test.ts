// The session table and its addresses under any sequence of operations. fast-check prints the seed of a failure.
import { strict as assert } from "node:assert";
import { isIPv4, isIPv6 } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { FormatError, LimitError } from "../../src/errors.js";
import { formatAddress, parseAddress } from "../../src/session/address.js";
import { type Session, SessionTable, SLOT_OVERHEAD_BYTES } from "../../src/session/table.js";

const START = 1_700_000_000_000;
const SLOTS = 4;
const SLOT_BYTES = 128;
const HEADER_BYTES = SessionTable.headerLength(SLOTS);
const ROOM = SLOT_BYTES - SLOT_OVERHEAD_BYTES;
const LENGTH = SessionTable.byteLength({ slots: SLOTS, slotBytes: SLOT_BYTES });

type Operation =
  | { type: "insert"; peer: number; size: number; certificateSize: number; lifetime: number }
  | { type: "get" | "remove"; peer: number }
  | { type: "advance" | "jump"; milliseconds: number }
  | { type: "flip"; bit: number }
  | { type: "cleanup" | "clear" | "reopen" | "list" };

/** Operations whose clock moves by multiples of `step` milliseconds. */
function operations(step: number, ttl: number): fc.Arbitrary<Operation[]> {
  const peer = fc.nat({ max: 6 });
  const ticks = (min: number, max: number) => fc.integer({ min, max }).map((count) => count * step);
  const steps = Math.ceil((ttl * 1000) / step);
  const insert = fc.record({
    type: fc.constant("insert" as const),
    peer,
    size: fc.nat({ max: ROOM + 2 }),
    certificateSize: fc.nat({ max: ROOM }),
    lifetime: fc.oneof(fc.constant(0), fc.nat({ max: ttl * 2 })),
  });
  return fc.array(
    fc.oneof(
      { weight: 8, arbitrary: insert },
      { weight: 6, arbitrary: fc.record({ type: fc.constant("get" as const), peer }) },
      { weight: 2, arbitrary: fc.record({ type: fc.constant("remove" as const), peer }) },
      {
        weight: 6,
        arbitrary: fc.record({ type: fc.constant("advance" as const), milliseconds: ticks(0, Math.ceil(steps / 4)) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ type: fc.constant("jump" as const), milliseconds: ticks(-2 * steps, 2 * steps) }),
      },
      { weight: 1, arbitrary: fc.record({ type: fc.constant("flip" as const), bit: fc.nat({ max: LENGTH * 8 - 1 }) }) },
      {
        weight: 4,
        arbitrary: fc.record({ type: fc.constantFrom("cleanup" as const, "reopen" as const, "list" as const) }),
      },
    ),
    { minLength: 20, maxLength: 120, size: "max" },
  );
}

function addressOf(peer: number): string {
  return peer % 2 === 0 ? `192.0.2.${peer}` : `2001:db8::${peer}`;
}

/** A session whose data starts with `serial`, as far as there is room: which insertion it came from. */
function sessionOf(operation: Operation & { type: "insert" }, serial: number): Session {
  const data = new Uint8Array(operation.size).fill(serial);
  for (let at = 0; at < 4 && at < data.length; at++) data[at] = serial >> (at * 8);
  return {
    peer: { address: addressOf(operation.peer), port: 5684 },
    kind: serial % 2 === 0 ? "session" : "ticket",
    data,
    clientCertHash: new Uint8Array(32).fill(serial * 7),
    clientCert: new Uint8Array(operation.certificateSize).fill(serial * 3),
    protocol: serial % 3 === 0 ? "DTLS 1.2" : "DTLS 1.3",
    lifetime: operation.lifetime,
  };
}

interface Entry {
  readonly session: Session;
  readonly created: number;
  readonly order: number;
}

/** The table as a list of entries: what the design says and nothing else. */
class Model {
  slots: (Entry | undefined)[] = new Array(SLOTS).fill(undefined);
  highest = 0;
  order = 0;

  constructor(readonly ttl: number) {}

  now(clock: number): number {
    if (clock < this.highest) {
      if (this.highest - clock <= this.ttl * 1000) return this.highest;
      this.slots.fill(undefined);
    }
    this.highest = clock;
    return clock;
  }

  isExpired({ session, created }: Entry, now: number): boolean {
    const limit = Math.min(this.ttl, session.lifetime || Number.POSITIVE_INFINITY);
    return limit === 0 || created > now || now - created > limit * 1000;
  }

  indexOf(address: string): number {
    return this.slots.findIndex((entry) => entry?.session.peer.address === address);
  }

  cleanup(now: number): number {
    let count = 0;
    for (const [index, entry] of this.slots.entries()) {
      if (!entry || !this.isExpired(entry, now)) continue;
      this.slots[index] = undefined;
      count++;
    }
    return count;
  }

  insert(session: Session, now: number): void {
    let index = this.indexOf(session.peer.address);
    if (index < 0) index = this.slots.indexOf(undefined);
    if (index < 0) {
      this.cleanup(now);
      index = this.slots.indexOf(undefined);
    }
    if (index < 0) {
      const entries = this.slots as Entry[];
      const oldest = [...entries].sort((a, b) => a.created - b.created || a.order - b.order)[0]!;
      index = entries.indexOf(oldest);
    }
    this.slots[index] = { session, created: now, order: this.order++ };
  }
}

function assertIs(actual: Session & { readonly created: number }, { session, created }: Entry): void {
  assert.deepEqual(actual.peer, session.peer);
  assert.equal(actual.kind, session.kind);
  assert.equal(actual.protocol, session.protocol);
  assert.deepEqual(actual.data, session.data);
  assert.deepEqual(actual.clientCertHash, session.clientCertHash);
  const size = session.clientCert!.length;
  assert.deepEqual(actual.clientCert, size > 0 && session.data.length + size <= ROOM ? session.clientCert : undefined);
  assert.equal(actual.lifetime, session.lifetime);
  assert.equal(actual.created, created);
}

/** Runs the operations on a table and a model, which must agree at each step. */
function compare(list: Operation[], ttl: number): void {
  const bytes = new Uint8Array(LENGTH);
  let committed = bytes.slice();
  let time = START;
  const open = () =>
    new SessionTable(bytes, {
      slots: SLOTS,
      slotBytes: SLOT_BYTES,
      ttl,
      clock: () => time,
      commit: () => {
        committed = bytes.slice();
      },
    });
  const model = new Model(ttl);
  let table = open();
  let serial = 0;
  for (const operation of list) {
    switch (operation.type) {
      case "insert": {
        const session = sessionOf(operation, ++serial);
        if (operation.size > ROOM) {
          const before = bytes.slice();
          assert.throws(() => table.insert(session), LimitError);
          assert.deepEqual(bytes, before);
        } else {
          table.insert(session);
          model.insert(session, model.now(time));
        }
        break;
      }
      case "get": {
        const found = table.get({ address: addressOf(operation.peer), port: 5684 });
        const now = model.now(time);
        const index = model.indexOf(addressOf(operation.peer));
        let entry = model.slots[index];
        if (entry && model.isExpired(entry, now)) entry = model.slots[index] = undefined;
        if (entry) assertIs(found!, entry);
        else assert.equal(found, undefined);
        break;
      }
      case "remove": {
        const removed = table.remove({ address: addressOf(operation.peer), port: 5684 });
        model.now(time);
        const index = model.indexOf(addressOf(operation.peer));
        if (index < 0) assert.equal(removed, undefined);
        else {
          assertIs(removed!, model.slots[index]!);
          model.slots[index] = undefined;
        }
        break;
      }
      case "advance":
      case "jump":
        time = Math.max(0, time + operation.milliseconds);
        break;
      case "flip": {
        bytes[operation.bit >> 3]! ^= 1 << (operation.bit & 7);
        const at = (operation.bit >> 3) - HEADER_BYTES;
        if (at < 0) {
          model.slots.fill(undefined);
          model.highest = 0;
        } else model.slots[Math.floor(at / SLOT_BYTES)] = undefined;
        table = open();
        committed = bytes.slice();
        break;
      }
      case "cleanup":
        assert.equal(table.cleanupExpired(), model.cleanup(model.now(time)));
        break;
      case "clear":
        table.clear();
        model.now(time);
        model.slots.fill(undefined);
        break;
      case "reopen":
        table = open();
        break;
      case "list": {
        const now = model.now(time);
        const living = model.slots.filter((entry) => entry && !model.isExpired(entry, now)) as Entry[];
        const listed = [...table.sessions()];
        assert.equal(listed.length, living.length);
        for (const [index, entry] of living.entries()) assertIs(listed[index]!, entry);
        break;
      }
    }
    assert.equal(table.length, model.slots.filter((entry) => entry).length);
    assert.equal(table.isEmpty, table.length === 0);
    assert.deepEqual(bytes, committed, "a change without a commit");
  }
}

describe("the session table, property", () => {
  for (const ttl of [0, 10, 3600]) {
    it(`does what a list of entries does, with a TTL of ${ttl} s`, () => {
      fc.assert(
        fc.property(operations(1000, Math.max(ttl, 4)), (list) => compare(list, ttl)),
        { numRuns: 400 },
      );
    });
  }

  it("never gives a session again once it was expired, whatever the clock does by milliseconds", () => {
    const ttl = 3;
    fc.assert(
      fc.property(operations(7, ttl), (list) => {
        const bytes = new Uint8Array(LENGTH);
        let time = START;
        const open = () => new SessionTable(bytes, { slots: SLOTS, slotBytes: SLOT_BYTES, ttl, clock: () => time });
        let table = open();
        let serial = 0;
        const latest = new Map<number, number>();
        const dead = new Set<number>();
        for (const operation of list) {
          if (operation.type === "insert" && operation.size <= ROOM) {
            table.insert(sessionOf({ ...operation, size: ROOM }, ++serial));
            latest.set(operation.peer, serial);
          } else if (operation.type === "advance" || operation.type === "jump") time += operation.milliseconds;
          else if (operation.type === "reopen") table = open();
          else if (operation.type === "cleanup") table.cleanupExpired();
          for (const [peer, number] of latest) {
            const found = table.get({ address: addressOf(peer), port: 5684 });
            if (!found) dead.add(number);
            else {
              assert.ok(!dead.has(number));
              assert.equal(found.data[0], number & 0xff);
            }
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it("opens and works whatever the bytes are", () => {
    const table = new Uint8Array(LENGTH);
    new SessionTable(table, { slots: SLOTS, slotBytes: SLOT_BYTES, clock: () => START });
    const header = table.slice(0, HEADER_BYTES);
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: LENGTH, maxLength: LENGTH, size: "max" }),
        fc.boolean(),
        (random, good) => {
          const bytes = random.slice();
          if (good) bytes.set(header);
          const opened = new SessionTable(bytes, { slots: SLOTS, slotBytes: SLOT_BYTES, clock: () => START });
          assert.equal(opened.length, 0);
          assert.equal(opened.get({ address: "::1", port: 1 }), undefined);
          assert.equal(opened.cleanupExpired(), 0);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("does 200,000 operations without a growth of the heap that lasts", () => {
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("gc") as () => void;
    const bytes = new Uint8Array(LENGTH);
    let time = START;
    const table = new SessionTable(bytes, { slots: SLOTS, slotBytes: SLOT_BYTES, ttl: 100, clock: () => time });
    let state = 1;
    // A linear congruential generator: the same numbers in each run, and nothing kept.
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const run = (count: number) => {
      for (let done = 0; done < count; done++) {
        const peer = random(7);
        time += random(3000) - (random(50) === 0 ? 20_000 : 0);
        switch (random(6)) {
          case 0:
            table.get({ address: addressOf(peer), port: 5684 });
            break;
          case 1:
            table.remove({ address: addressOf(peer), port: 5684 });
            break;
          case 2:
            table.cleanupExpired();
            break;
          case 3:
            for (const session of table.sessions()) void session.clientCertInfo;
            break;
          default:
            table.insert(
              sessionOf({ type: "insert", peer, size: random(ROOM), certificateSize: random(20), lifetime: 0 }, done),
            );
        }
      }
      gc();
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      return heapUsed + arrayBuffers;
    };
    run(5000);
    const before = run(5000);
    const between = run(100_000);
    const after = run(100_000);
    // What grows once, such as compiled code, is no growth that lasts.
    const growth = Math.min(between - before, after - between);
    assert.ok(growth < 300_000, `grew by ${between - before}, then by ${after - between} bytes`);
  });
});

describe("an address, property", () => {
  it("is written as URLs write it", () => {
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        const canonical = new URL(`http://[${text}]`).hostname.slice(1, -1);
        const written = formatAddress(parseAddress(text));
        if (isIPv4(written)) assert.deepEqual(parseAddress(canonical), parseAddress(written));
        else assert.equal(written, canonical);
      }),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(fc.ipV4(), (text) => {
        assert.equal(formatAddress(parseAddress(text)), text);
      }),
    );
  });

  it("is 16 bytes that come back from their text", () => {
    const group = fc.oneof(fc.constant(0), fc.constant(0xffff), fc.nat({ max: 0xffff }));
    fc.assert(
      fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
        const address = Uint8Array.from(groups.flatMap((value) => [value >> 8, value & 0xff]));
        assert.deepEqual(parseAddress(formatAddress(address)), address);
      }),
      { numRuns: 2000 },
    );
  });

  it("is what Node.js takes for one, and else a FormatError", () => {
    const part = fc.constantFrom("0", "1", "10", "255", "256", "01", "ffff", "12345", "g", ":", "::", ".", "%", " ");
    const texts = fc.oneof(
      fc.array(part, { maxLength: 20 }).map((parts) => parts.join("")),
      fc
        .tuple(fc.ipV6(), fc.nat({ max: 40 }), part)
        .map(([text, at, more]) => text.slice(0, at) + more + text.slice(at)),
      fc.string(),
    );
    fc.assert(
      fc.property(texts, (text) => {
        if (isIPv4(text) || (isIPv6(text) && !text.includes("%"))) parseAddress(text);
        else assert.throws(() => parseAddress(text), FormatError);
      }),
      { numRuns: 5000 },
    );
  });
});
