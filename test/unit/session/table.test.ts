// The session table: src/session/table.ts. What it promises is in the design's section of that name.
import { strict as assert } from "node:assert";
import { readUint, writeUint } from "../../../src/bytes.js";
import { FormatError, LimitError, TorporError } from "../../../src/errors.js";
import { readCertsOnly } from "../../../src/pki/pkcs7.js";
import { SEAL_BYTES, type Sealer } from "../../../src/session/seal.js";
import {
  type Peer,
  type Session,
  SessionTable,
  type SessionTableOptions,
  SLOT_OVERHEAD_BYTES,
} from "../../../src/session/table.js";
import { fromHex, serverKeyCertificate } from "../../vectors/rfc9148.js";

const START = 1_700_000_000_000;
const TTL = 3600;
const SLOTS = 3;
const SLOT_BYTES = 512;
const HEADER_BYTES = SessionTable.headerLength(SLOTS);
/** Where the header has what it knows of each slot. */
const STATES = 36;

const certificate = readCertsOnly(serverKeyCertificate)[0]!;

const clock: { time: number | undefined } = { time: START };
let bytes: Uint8Array;
let commits: number;

function open(options: Partial<SessionTableOptions> = {}): SessionTable {
  return new SessionTable(bytes, {
    slots: SLOTS,
    slotBytes: SLOT_BYTES,
    ttl: TTL,
    clock,
    commit: () => commits++,
    ...options,
  });
}

function peer(number: number): Peer {
  return { address: `192.0.2.${number}`, port: 5684 };
}

function session(number: number, more: Partial<Session> = {}): Session {
  return {
    peer: peer(number),
    kind: "session",
    data: Uint8Array.of(number, 2, 3),
    clientCertHash: new Uint8Array(32).fill(number),
    protocol: "DTLS 1.2",
    ...more,
  };
}

/** The peers whose sessions can be got, by their numbers, without removing any. */
function present(table: SessionTable): number[] {
  const numbers: number[] = [];
  for (const { data } of table.sessions()) numbers.push(data[0]!);
  return numbers.sort();
}

function failure(action: () => void): Error {
  try {
    action();
  } catch (error) {
    return error as Error;
  }
  throw new TorporError("expected an error, got none");
}

/** CRC-32 bit by bit, with the offset of what it checks in its initial value. */
function crc32(checked: Uint8Array, offset: number): number {
  let value = ~offset;
  for (let at = 0; at < checked.length; at++) {
    value ^= checked[at]!;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return ~value;
}

/** Makes the check of a header good that was changed by hand. */
function repairHeader(): void {
  writeUint(bytes, 4, 4, crc32(bytes.subarray(8, HEADER_BYTES), 0) >>> 0);
}

function isZero(from: number, to: number): boolean {
  for (let at = from; at < to; at++) if (bytes[at] !== 0) return false;
  return true;
}

describe("the session table", () => {
  beforeEach(() => {
    clock.time = START;
    commits = 0;
    bytes = new Uint8Array(SessionTable.byteLength({ slots: SLOTS, slotBytes: SLOT_BYTES }));
  });

  describe("in the caller's bytes", () => {
    it("takes slots * slotBytes and a header of 36 bytes and 4 for each slot, by default 4 slots of 512 bytes", () => {
      assert.equal(SessionTable.byteLength({ slots: 3, slotBytes: 600 }), 3 * 600 + 36 + 3 * 4);
      assert.equal(SessionTable.byteLength(), 4 * 512 + 36 + 4 * 4);
      assert.equal(new SessionTable(new Uint8Array(SessionTable.byteLength()), { clock }).capacity, 4);
    });

    it("has a TTL of a day by default", () => {
      assert.equal(new SessionTable(new Uint8Array(SessionTable.byteLength()), { clock }).ttl, 86400);
    });

    it("says its capacity, TTL and length", () => {
      const table = open();
      assert.equal(table.capacity, SLOTS);
      assert.equal(table.ttl, TTL);
      assert.equal(table.length, 0);
      assert.equal(table.isEmpty, true);
      table.insert(session(1));
      table.insert(session(2));
      assert.equal(table.length, 2);
      assert.equal(table.isEmpty, false);
    });

    it("refuses another number of bytes, and options that make no sense", () => {
      assert.ok(
        /expected 1584 bytes for 3 slots of 512, got 100/.test(
          failure(() => {
            new SessionTable(new Uint8Array(100), { slots: 3, slotBytes: 512, clock });
          }).message,
        ),
      );
      assert.throws(() => open({ slots: 0 }), TorporError);
      assert.throws(() => open({ slots: 1.5 }), TorporError);
      assert.throws(() => open({ slotBytes: SLOT_OVERHEAD_BYTES }), TorporError);
      assert.throws(() => open({ slotBytes: 65536 }), TorporError);
      assert.throws(() => open({ ttl: -1 }), TorporError);
      assert.throws(() => open({ ttl: Number.NaN }), TorporError);
      assert.throws(() => open({ ttl: Number.POSITIVE_INFINITY }), TorporError);
    });

    it("may be in the middle of a larger array and leaves the rest alone", () => {
      const larger = new Uint8Array(bytes.length + 20).fill(0xee);
      bytes = larger.subarray(10, 10 + bytes.length);
      open().insert(session(1));
      assert.deepEqual(present(open()), [1]);
      open().clear();
      assert.deepEqual(larger.subarray(0, 10), new Uint8Array(10).fill(0xee));
      assert.deepEqual(larger.subarray(larger.length - 10), new Uint8Array(10).fill(0xee));
    });
  });

  describe("insert", () => {
    it("keeps everything that the session has", () => {
      open().insert({
        peer: { address: "2001:DB8::1", port: 61616 },
        kind: "ticket",
        data: Uint8Array.of(9, 8, 7),
        clientCertHash: new Uint8Array(32).fill(0xcc),
        clientCert: certificate,
        protocol: "DTLS 1.3",
        lifetime: 300,
      });
      const stored = open().get({ address: "2001:db8:0::1", port: 61616 })!;
      assert.deepEqual(stored.peer, { address: "2001:db8::1", port: 61616 });
      assert.equal(stored.kind, "ticket");
      assert.deepEqual(stored.data, Uint8Array.of(9, 8, 7));
      assert.deepEqual(stored.clientCertHash, new Uint8Array(32).fill(0xcc));
      assert.deepEqual(stored.clientCert, certificate);
      assert.equal(stored.protocol, "DTLS 1.3");
      assert.equal(stored.lifetime, 300);
      assert.equal(stored.created, START);
    });

    it("knows an address in every spelling, and tells ports apart", () => {
      const table = open();
      table.insert(session(1, { peer: { address: "::ffff:c000:201", port: 5684 } }));
      assert.deepEqual(table.get({ address: "192.0.2.1", port: 5684 })!.data, Uint8Array.of(1, 2, 3));
      assert.equal(table.get({ address: "192.0.2.1", port: 5685 }), undefined);
      assert.equal(table.get({ address: "::192.0.2.1", port: 5684 }), undefined);
    });

    it("replaces the session of the same peer in place", () => {
      const table = open();
      for (const number of [1, 2, 3]) table.insert(session(number));
      clock.time = START + 1000;
      table.insert(session(1, { data: Uint8Array.of(77) }));
      assert.equal(table.length, 3);
      assert.deepEqual(table.get(peer(1))!.data, Uint8Array.of(77));
      assert.equal(table.get(peer(1))!.created, START + 1000);
      assert.deepEqual(table.get(peer(2))!.data, Uint8Array.of(2, 2, 3));
      assert.deepEqual(table.get(peer(3))!.data, Uint8Array.of(3, 2, 3));
    });

    it("leaves nothing of the session that it replaces", () => {
      const table = open();
      table.insert(session(1, { data: new Uint8Array(100).fill(0x5a), clientCert: certificate.subarray(0, 300) }));
      table.insert(session(1, { data: Uint8Array.of(1) }));
      assert.ok(isZero(HEADER_BYTES + SLOT_OVERHEAD_BYTES + 1, HEADER_BYTES + SLOT_BYTES));
    });

    it("purges expired sessions first when full", () => {
      const table = open();
      table.insert(session(1));
      table.insert(session(2, { lifetime: 10 }));
      table.insert(session(3, { lifetime: 10 }));
      clock.time = START + 11_000;
      table.insert(session(4));
      assert.equal(table.length, 2);
      assert.deepEqual(present(table), [1, 4]);
    });

    it("purges nothing while there is room", () => {
      const table = open();
      table.insert(session(1, { lifetime: 10 }));
      clock.time = START + 11_000;
      table.insert(session(2));
      assert.equal(table.length, 2);
    });

    it("evicts the oldest by creation time when full and none has expired", () => {
      const table = open();
      for (const [number, second] of [
        [1, 0],
        [2, 1],
        [3, 2],
      ]) {
        clock.time = START + second! * 1000;
        table.insert(session(number!));
      }
      clock.time = START + 3000;
      table.insert(session(1));
      table.insert(session(4));
      assert.deepEqual(present(table), [1, 3, 4]);
      table.insert(session(5));
      assert.deepEqual(present(table), [1, 4, 5]);
    });

    it("evicts the one inserted first where creation times are the same, also after opening again", () => {
      const table = open();
      for (const number of [1, 2, 3, 1]) table.insert(session(number));
      open().insert(session(4));
      assert.deepEqual(present(table), [1, 3, 4]);
      open().insert(session(5));
      assert.deepEqual(present(table), [1, 4, 5]);
      open().insert(session(6));
      assert.deepEqual(present(table), [4, 5, 6]);
    });

    it("refuses a session that does not fit its slot, says how many bytes it needs, and changes nothing", () => {
      const table = open();
      table.insert(session(1));
      clock.time = START + 5000;
      const before = bytes.slice();
      const commitsBefore = commits;
      const error = failure(() =>
        table.insert(session(1, { data: new Uint8Array(SLOT_BYTES - SLOT_OVERHEAD_BYTES + 1) })),
      );
      assert.ok(error instanceof LimitError);
      assert.equal(error.message, "session: it needs a slot of 513 bytes, the table's slots have 512");
      assert.deepEqual(bytes, before);
      assert.equal(commits, commitsBefore);
      assert.deepEqual(table.get(peer(1))!.data, Uint8Array.of(1, 2, 3));
    });

    it("takes a session that just fits", () => {
      const data = new Uint8Array(SLOT_BYTES - SLOT_OVERHEAD_BYTES).fill(0xab);
      open().insert(session(1, { data }));
      assert.deepEqual(open().get(peer(1))!.data, data);
    });

    it("leaves out the certificate where it does not fit into what is left", () => {
      const room = SLOT_BYTES - SLOT_OVERHEAD_BYTES - certificate.length;
      const table = open();
      table.insert(session(1, { data: new Uint8Array(room), clientCert: certificate }));
      assert.deepEqual(table.get(peer(1))!.clientCert, certificate);
      table.insert(session(1, { data: new Uint8Array(room + 1), clientCert: certificate }));
      assert.equal(table.get(peer(1))!.clientCert, undefined);
      assert.equal(table.get(peer(1))!.data.length, room + 1);
    });

    it("refuses a peer, a hash or a lifetime that is none, and changes nothing", () => {
      const table = open();
      const before = bytes.slice();
      assert.throws(() => table.insert(session(1, { peer: { address: "est.example", port: 5684 } })), FormatError);
      for (const port of [0, -1, 65536, 1.5, Number.NaN]) {
        assert.throws(() => table.insert(session(1, { peer: { address: "192.0.2.1", port } })), FormatError);
      }
      assert.throws(() => table.insert(session(1, { clientCertHash: new Uint8Array(31) })), FormatError);
      for (const lifetime of [-1, 0.5, 2 ** 32, Number.NaN, Number.POSITIVE_INFINITY]) {
        assert.throws(() => table.insert(session(1, { lifetime })), TorporError);
      }
      assert.deepEqual(bytes, before);
    });

    it("takes a session that it gave out itself", () => {
      const table = open();
      table.insert(session(1, { clientCert: certificate }));
      table.insert(table.get(peer(1))!);
      assert.deepEqual(table.get(peer(1))!.data, Uint8Array.of(1, 2, 3));
      assert.deepEqual(table.get(peer(1))!.clientCert, certificate);
      assert.deepEqual(table.get(peer(1))!.clientCertHash, new Uint8Array(32).fill(1));
      const small = new SessionTable(new Uint8Array(SessionTable.byteLength({ slots: 1 })), { slots: 1, clock });
      small.insert(session(1));
      const evicted = small.get(peer(1))!;
      small.insert({ ...session(2), data: evicted.data });
      assert.deepEqual(small.get(peer(2))!.data, Uint8Array.of(1, 2, 3));
    });
  });

  describe("get", () => {
    it("gives nothing for a peer that has no session", () => {
      assert.equal(open().get(peer(1)), undefined);
      assert.throws(() => open().get({ address: "", port: 5684 }), FormatError);
      assert.throws(() => open().get({ address: "::1", port: 0 }), FormatError);
    });

    it("gives views into the table's bytes", () => {
      const table = open();
      table.insert(session(1));
      assert.ok(table.get(peer(1))!.data.buffer === bytes.buffer);
    });

    it("removes an expired session, and wipes it", () => {
      const table = open();
      table.insert(session(1));
      table.insert(session(2));
      clock.time = START + TTL * 1000 + 1;
      assert.equal(table.length, 2);
      assert.equal(table.get(peer(1)), undefined);
      assert.equal(table.length, 1);
      assert.ok(isZero(HEADER_BYTES, HEADER_BYTES + SLOT_BYTES));
    });
  });

  describe("remove", () => {
    it("returns a copy of the removed session, or undefined", () => {
      const table = open();
      table.insert(session(1, { clientCert: certificate }));
      const removed = table.remove(peer(1))!;
      assert.equal(table.length, 0);
      table.insert(session(2));
      assert.deepEqual(removed.peer, peer(1));
      assert.deepEqual(removed.data, Uint8Array.of(1, 2, 3));
      assert.deepEqual(removed.clientCertHash, new Uint8Array(32).fill(1));
      assert.deepEqual(removed.clientCert, certificate);
      assert.equal(removed.clientCertInfo!.subject, "O=skg example");
      assert.equal(table.remove(peer(1)), undefined);
      assert.throws(() => table.remove({ address: "::1%0", port: 5684 }), FormatError);
    });

    it("wipes the slot", () => {
      const table = open();
      table.insert(session(1, { data: new Uint8Array(200).fill(0x5a) }));
      table.remove(peer(1));
      assert.ok(isZero(HEADER_BYTES, bytes.length));
    });

    it("returns the removed session even where it has expired", () => {
      const table = open();
      table.insert(session(1));
      clock.time = START + TTL * 1000 + 1;
      assert.deepEqual(table.remove(peer(1))!.data, Uint8Array.of(1, 2, 3));
      assert.equal(table.isEmpty, true);
    });
  });

  describe("cleanupExpired", () => {
    it("removes what has expired, wipes it and returns how many", () => {
      const table = open();
      table.insert(session(1, { lifetime: 10 }));
      table.insert(session(2, { lifetime: 20 }));
      table.insert(session(3, { lifetime: 10 }));
      assert.equal(table.cleanupExpired(), 0);
      clock.time = START + 10_001;
      assert.equal(table.cleanupExpired(), 2);
      assert.deepEqual(present(table), [2]);
      assert.ok(isZero(HEADER_BYTES, HEADER_BYTES + SLOT_BYTES));
      assert.equal(table.cleanupExpired(), 0);
    });
  });

  describe("clear", () => {
    it("removes and wipes all", () => {
      const table = open();
      for (const number of [1, 2, 3]) table.insert(session(number));
      table.clear();
      assert.equal(table.isEmpty, true);
      assert.ok(isZero(HEADER_BYTES, bytes.length));
      assert.equal(open().isEmpty, true);
    });
  });

  describe("sessions", () => {
    it("lists those that have not expired, and may be removed on the way", () => {
      const table = open();
      table.insert(session(1));
      table.insert(session(2, { lifetime: 10 }));
      table.insert(session(3));
      clock.time = START + 11_000;
      const seen: Peer[] = [];
      for (const found of table.sessions()) {
        seen.push(found.peer);
        table.remove(found.peer);
      }
      assert.deepEqual(seen, [peer(1), peer(3)]);
      assert.equal(table.length, 1);
    });
  });

  describe("expiry", () => {
    it("comes when the age exceeds the TTL", () => {
      const table = open();
      table.insert(session(1));
      clock.time = START + TTL * 1000;
      assert.ok(table.get(peer(1)));
      clock.time = START + TTL * 1000 + 1;
      assert.equal(table.get(peer(1)), undefined);
    });

    it("comes at the server's ticket lifetime where that is smaller", () => {
      const table = open();
      table.insert(session(1, { lifetime: 60 }));
      table.insert(session(2, { lifetime: TTL * 2 }));
      clock.time = START + 60_000;
      assert.ok(table.get(peer(1)));
      clock.time = START + 60_001;
      assert.equal(table.get(peer(1)), undefined);
      clock.time = START + TTL * 1000 + 1;
      assert.equal(table.get(peer(2)), undefined);
    });

    it("is not that of a lifetime of 0, which is none", () => {
      const table = open();
      table.insert(session(1, { lifetime: 0 }));
      clock.time = START + TTL * 1000;
      assert.ok(table.get(peer(1)));
    });

    it("comes at once with a TTL of 0, even within one clock tick", () => {
      const table = open({ ttl: 0 });
      table.insert(session(1));
      assert.equal(table.length, 1);
      assert.equal(table.get(peer(1)), undefined);
      assert.equal(table.length, 0);
      table.insert(session(1, { lifetime: 60 }));
      assert.equal(table.cleanupExpired(), 1);
    });

    it("is that of the TTL the table is opened with", () => {
      open().insert(session(1));
      clock.time = START + 10_001;
      assert.equal(open({ ttl: 10 }).get(peer(1)), undefined);
    });

    it("goes on during sleep: by the clock, not by how long the table was open", () => {
      open().insert(session(1));
      clock.time = START + TTL * 1000 + 1;
      assert.equal(open().get(peer(1)), undefined);
    });

    it("takes a clock that is a function", () => {
      const table = open({ clock: () => clock.time });
      table.insert(session(1));
      clock.time = START + TTL * 1000 + 1;
      assert.equal(table.get(peer(1)), undefined);
    });
  });

  describe("with a clock that jumps", () => {
    it("counts a creation time in the future as expired, now and when that time comes", () => {
      open();
      const earlier = bytes.slice();
      clock.time = START + 5000;
      open().insert(session(1));
      // The slot as it is, under a header that knows it and never saw its time.
      bytes.set(earlier.subarray(24, 30), 24);
      repairHeader();
      clock.time = START;
      assert.equal(open().get(peer(1)), undefined);
      clock.time = START + 5000;
      assert.equal(open().get(peer(1)), undefined);
    });

    it("never makes an expired session live again when it goes back", () => {
      const table = open();
      table.insert(session(1, { lifetime: 60 }));
      table.insert(session(2));
      clock.time = START + 60_001;
      assert.deepEqual(present(table), [2]);
      clock.time = START + 59_000;
      assert.equal(table.get(peer(1)), undefined);
      assert.ok(table.get(peer(2)));
    });

    it("never makes an expired session live again, be the step back ever so small and the table opened anew", () => {
      const table = open();
      table.insert(session(1, { lifetime: 60 }));
      clock.time = START + 59_800;
      assert.ok(table.get(peer(1)));
      clock.time = START + 60_100;
      assert.equal(table.get(peer(2)), undefined);
      clock.time = START + 59_900;
      assert.equal(open().get(peer(1)), undefined);
    });

    it("never makes an expired session live again when it goes forward and comes back", () => {
      const table = open();
      table.insert(session(1));
      clock.time = START + 100 * TTL * 1000;
      assert.deepEqual(present(table), []);
      clock.time = START + 1000;
      assert.equal(table.get(peer(1)), undefined);
      assert.equal(table.length, 0);
    });

    it("goes by the highest time seen while the clock is behind it by one TTL at most", () => {
      const table = open();
      table.insert(session(1));
      clock.time = START - TTL * 1000;
      table.insert(session(2));
      assert.equal(table.get(peer(2))!.created, START);
      assert.ok(table.get(peer(1)));
      clock.time = START + TTL * 1000 + 1;
      assert.equal(table.cleanupExpired(), 2);
    });

    it("becomes empty, wiped and useful again when the clock is behind by more than a TTL", () => {
      const table = open();
      table.insert(session(1));
      clock.time = START - TTL * 1000 - 1;
      assert.equal(table.get(peer(1)), undefined);
      assert.ok(isZero(HEADER_BYTES, bytes.length));
      table.insert(session(2));
      assert.equal(table.get(peer(2))!.created, clock.time);
      clock.time += TTL * 1000 + 1;
      assert.equal(table.get(peer(2)), undefined);
    });

    it("takes a time that is no number of 0 or more for 0 and never throws", () => {
      for (const time of [Number.NaN, -1, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2 ** 48, undefined]) {
        clock.time = START;
        open().insert(session(1));
        clock.time = time;
        const table = open();
        assert.equal(table.get(peer(1)), undefined, String(time));
        table.insert(session(2));
        assert.equal(table.get(peer(2))!.created, 0);
        assert.equal(table.cleanupExpired(), 0);
        assert.deepEqual(present(table), [2]);
        assert.ok(table.remove(peer(2)));
        table.clear();
      }
    });

    it("takes whole milliseconds of a finer clock", () => {
      clock.time = START + 0.75;
      const table = open();
      table.insert(session(1));
      assert.equal(table.get(peer(1))!.created, START);
    });
  });

  describe("opened with bytes that were something else", () => {
    it("is empty where all bytes are the same", () => {
      for (const value of [0x00, 0xff, 0x01, 0x54]) {
        bytes.fill(value);
        const table = open();
        assert.equal(table.isEmpty, true);
        table.insert(session(1));
        assert.deepEqual(present(open()), [1]);
      }
    });

    it("is empty for another geometry", () => {
      // 3 slots of 512 bytes take as much as 1 of 1,544.
      const other = { slots: 1, slotBytes: 1544 };
      assert.equal(SessionTable.byteLength(other), bytes.length);
      open().insert(session(1));
      assert.deepEqual(SessionTable.geometryOf(bytes), { slots: SLOTS, slotBytes: SLOT_BYTES });
      assert.equal(open(other).length, 0);
      open(other).insert(session(1));
      assert.deepEqual(SessionTable.geometryOf(bytes), other);
      assert.equal(open().isEmpty, true);
      assert.ok(isZero(STATES, bytes.length));
    });

    it("is empty for another build of the TLS library", () => {
      open({ fingerprint: 0xfedcba98 }).insert(session(1));
      assert.equal(open({ fingerprint: 0xfedcba98 }).length, 1);
      assert.equal(open({ fingerprint: 0xfedcba99 }).length, 0);
      assert.ok(isZero(HEADER_BYTES, bytes.length));
      assert.equal(open({ fingerprint: 0xfedcba98 }).length, 0);
    });

    it("is empty for another layout version", () => {
      open().insert(session(1));
      bytes[8] = bytes[8]! + 1;
      repairHeader();
      assert.equal(open().length, 0);
    });

    it("is empty with any flipped bit in the header", () => {
      open().insert(session(1));
      const good = bytes.slice();
      for (let bit = 0; bit < HEADER_BYTES * 8; bit++) {
        bytes.set(good);
        bytes[bit >> 3]! ^= 1 << (bit & 7);
        assert.equal(open().length, 0, `bit ${bit}`);
      }
    });

    it("is empty for a slot with a flipped bit, wherever it is, and only for that", () => {
      const small = { slots: 2, slotBytes: 100 };
      const make = () => new SessionTable(bytes, { ...small, ttl: TTL, clock });
      const HEADER_BYTES = SessionTable.headerLength(small.slots);
      bytes = new Uint8Array(SessionTable.byteLength(small));
      make().insert(session(1));
      make().insert(session(2));
      const good = bytes.slice();
      for (let bit = 0; bit < small.slotBytes * 8; bit++) {
        bytes.set(good);
        bytes[HEADER_BYTES + (bit >> 3)]! ^= 1 << (bit & 7);
        assert.deepEqual(present(make()), [2], `bit ${bit}`);
        assert.ok(isZero(HEADER_BYTES, HEADER_BYTES + small.slotBytes));
      }
    });

    it("is empty for a slot that was written for another place", () => {
      open().insert(session(1));
      bytes.copyWithin(HEADER_BYTES + SLOT_BYTES, HEADER_BYTES, HEADER_BYTES + SLOT_BYTES);
      bytes.copyWithin(STATES + 4, STATES, STATES + 4);
      repairHeader();
      assert.equal(open().length, 1);
    });

    it("is empty for a slot whose check is good and whose content makes no sense", () => {
      open().insert(session(1));
      const good = bytes.slice();
      const wrong: [number, number][] = [
        [4, 0x05],
        [4, 0x81],
        [5, 3],
        [6, 255],
        [40, 0xff],
        [42, 0x02],
        [12, 0xff],
      ];
      for (const [at, value] of wrong) {
        bytes.set(good);
        bytes[HEADER_BYTES + at] = value;
        const check = crc32(bytes.subarray(HEADER_BYTES + 4, HEADER_BYTES + SLOT_BYTES), HEADER_BYTES);
        for (let index = 0; index < 4; index++) bytes[HEADER_BYTES + index] = check >>> (24 - index * 8);
        assert.equal(open().length, 0, `byte ${at}`);
      }
      bytes.set(good);
      const stored = crc32(bytes.subarray(HEADER_BYTES + 4, HEADER_BYTES + SLOT_BYTES), HEADER_BYTES);
      for (let index = 0; index < 4; index++)
        assert.equal(bytes[HEADER_BYTES + index], (stored >>> (24 - index * 8)) & 255);
    });

    it("is empty for a slot that was cut short while it was written or wiped", () => {
      const table = open();
      table.insert(session(1, { data: new Uint8Array(300).fill(0x5a) }));
      const before = bytes.slice();
      table.insert(session(1, { data: new Uint8Array(300).fill(0xa5) }));
      const after = bytes.slice();
      // The slot is written first: what is cut off is known by the header of before.
      for (let cut = 1; cut < SLOT_BYTES; cut += 5) {
        bytes.set(before);
        bytes.set(after.subarray(HEADER_BYTES, HEADER_BYTES + cut), HEADER_BYTES);
        assert.equal(open().get(peer(1)), undefined, `slot cut at ${cut}`);
      }
      for (let cut = 0; cut < HEADER_BYTES; cut++) {
        bytes.set(after);
        bytes.set(before.subarray(cut, HEADER_BYTES), cut);
        const found = open().get(peer(1));
        // Where the cut is behind the last byte that differs, the header is whole.
        assert.ok(found === undefined || (found.data[0] === 0xa5 && cut >= STATES), `header cut at ${cut}`);
      }
      bytes.set(after);
      bytes.fill(0, HEADER_BYTES, HEADER_BYTES + 50);
      open();
      assert.ok(isZero(HEADER_BYTES, bytes.length));
    });

    it("keeps the highest time that it has seen", () => {
      const table = open();
      clock.time = START + 7000;
      table.cleanupExpired();
      clock.time = START;
      const again = open();
      again.insert(session(1));
      assert.equal(again.get(peer(1))!.created, START + 7000);
    });
  });

  describe("commit", () => {
    it("is called once for every operation that changed the bytes", () => {
      const table = open();
      assert.equal(commits, 1);
      table.insert(session(1));
      assert.equal(commits, 2);
      table.insert(session(1));
      assert.equal(commits, 3);
      table.remove(peer(1));
      assert.equal(commits, 4);
      table.insert(session(1));
      table.clear();
      assert.equal(commits, 6);
      table.insert(session(1, { lifetime: 1 }));
      clock.time = START + 5000;
      table.cleanupExpired();
      assert.equal(commits, 8);
      clock.time = 0;
      table.insert(session(1));
      assert.equal(commits, 9);
    });

    it("is not called where nothing changed", () => {
      const table = open();
      table.insert(session(1));
      const before = commits;
      open();
      table.get(peer(1));
      table.get(peer(2));
      table.remove(peer(2));
      table.cleanupExpired();
      present(table);
      assert.ok(table.length === 1 && !table.isEmpty);
      assert.equal(commits, before);
    });

    it("is called for reads only where the clock went on by a second or a session expired", () => {
      const table = open();
      table.insert(session(1));
      table.insert(session(2, { lifetime: 2 }));
      const before = commits;
      clock.time = START + 999;
      table.get(peer(1));
      assert.equal(commits, before);
      clock.time = START + 1500;
      table.get(peer(1));
      assert.equal(commits, before + 1);
      clock.time = START + 2001;
      table.get(peer(1));
      table.get(peer(1));
      assert.equal(commits, before + 2);
    });

    it("finds the bytes in a state that opens", () => {
      let copy = new Uint8Array(0);
      const table = open({
        commit: () => {
          copy = bytes.slice();
        },
      });
      table.insert(session(1));
      table.insert(session(2));
      table.remove(peer(1));
      bytes.set(copy);
      assert.deepEqual(present(open()), [2]);
    });

    it("is called where opening found a slot that had to be wiped", () => {
      open().insert(session(1));
      bytes[HEADER_BYTES + 100]! ^= 1;
      const before = commits;
      open();
      assert.equal(commits, before + 1);
    });
  });

  describe("with a context", () => {
    const context = (number: number, more: Partial<Session> = {}) => session(number, { isContext: true, ...more });

    it("gives it for use once, until it is kept anew", () => {
      const table = open();
      table.insert(context(1));
      assert.deepEqual([table.get(peer(1))!.isContext, table.get(peer(1))!.isUsed], [true, false]);
      assert.equal(table.use(peer(1)), true);
      assert.equal(table.get(peer(1))!.isUsed, true);
      assert.equal(table.use(peer(1)), false);
      assert.equal(open().use(peer(1)), false);
      assert.deepEqual(open().get(peer(1))!.data, Uint8Array.of(1, 2, 3));
      table.insert(context(1));
      assert.equal(table.get(peer(1))!.isUsed, false);
      assert.equal(open().use(peer(1)), true);
    });

    it("has marked it in the bytes, and committed, before it may be used", () => {
      let isMarked: boolean | undefined;
      const table = open();
      table.insert(context(1));
      const marking = open({
        commit: () => {
          isMarked = !open({ commit: () => {} }).use(peer(1));
        },
      });
      assert.equal(marking.use(peer(1)), true);
      assert.equal(isMarked, true);
    });

    it("does not give it where the mark cannot be committed", () => {
      open().insert(context(1));
      const table = open({
        commit: () => {
          throw new TorporError("flash full");
        },
      });
      assert.throws(() => table.use(peer(1)), /flash full/);
      assert.equal(table.use(peer(1)), false);
    });

    it("gives none for use where there is none: a session, an unknown peer", () => {
      const table = open();
      table.insert(session(1));
      assert.equal(table.use(peer(1)), false);
      assert.equal(table.use(peer(2)), false);
    });

    it("does not take a copy of its slot put back after use: what was used stays used", () => {
      const table = open();
      table.insert(context(1));
      const copy = bytes.slice(HEADER_BYTES, HEADER_BYTES + SLOT_BYTES);
      table.use(peer(1));
      bytes.set(copy, HEADER_BYTES);
      assert.equal(open().get(peer(1))!.isUsed, true);
      assert.equal(open().use(peer(1)), false);
    });

    it("does not take a copy of its slot put back after it was kept anew: another generation is no session at all", () => {
      const table = open();
      table.insert(context(1));
      const copy = bytes.slice(HEADER_BYTES, HEADER_BYTES + SLOT_BYTES);
      table.use(peer(1));
      table.insert(context(1));
      bytes.set(copy, HEADER_BYTES);
      assert.equal(open().get(peer(1)), undefined);
      assert.ok(isZero(HEADER_BYTES, HEADER_BYTES + SLOT_BYTES));
    });

    it("keeps those of other peers as they are when one is used", () => {
      const table = open();
      table.insert(context(1));
      table.insert(context(2));
      table.use(peer(2));
      assert.deepEqual([table.get(peer(1))!.isUsed, table.get(peer(2))!.isUsed], [false, true]);
      assert.equal(table.use(peer(1)), true);
    });

    it("keeps its age where the session says when it was made, and takes no time to come for it", () => {
      const table = open();
      clock.time = START + 5000;
      table.insert(context(1, { created: START }));
      table.insert(context(2, { created: START + 9000 }));
      assert.equal(table.get(peer(1))!.created, START);
      assert.equal(table.get(peer(2))!.created, START + 5000);
      clock.time = START + TTL * 1000 + 1;
      assert.equal(table.get(peer(1)), undefined);
      assert.ok(table.get(peer(2)));
    });

    it("can be one whose session resumes by nothing", () => {
      open().insert(context(1, { kind: "none" }));
      assert.equal(open().get(peer(1))!.kind, "none");
    });

    it("is used up where the whole table was put back and the host has a monotonic counter", () => {
      const counter = {
        value: 41,
        increment() {
          this.value++;
        },
      };
      const table = open({ counter });
      table.insert(context(1));
      const copy = bytes.slice();
      assert.equal(open({ counter }).use(peer(1)), true);
      assert.equal(counter.value, 42);
      bytes.set(copy);
      assert.equal(open({ counter }).get(peer(1))!.isUsed, true);
      assert.equal(open({ counter }).use(peer(1)), false);
      open({ counter }).insert(context(1));
      assert.equal(open({ counter }).use(peer(1)), true);
    });

    it("is not known to be used where the whole table was put back without such a counter: the README says so", () => {
      const table = open();
      table.insert(context(1));
      const copy = bytes.slice();
      table.use(peer(1));
      bytes.set(copy);
      assert.equal(open().use(peer(1)), true);
    });
  });

  describe("sealed", () => {
    /** A seal that can be broken and read: XOR with 0x55, and a tag that sums up. The real one has tests of its own. */
    const seal: Sealer = {
      seal(associated, plain, sealed) {
        sealed.fill(0);
        for (let at = 0; at < plain.length; at++) sealed[12 + at] = plain[at]! ^ 0x55;
        writeUint(sealed, sealed.length - 4, 4, crc32(sealed.subarray(0, -16), crc32(associated, 7)) >>> 0);
      },
      unseal(associated, sealed, plain) {
        for (let at = 0; at < plain.length; at++) plain[at] = sealed[12 + at]! ^ 0x55;
        const tag = crc32(sealed.subarray(0, -16), crc32(associated, 7)) >>> 0;
        return tag === readUint(sealed, sealed.length - 4, 4);
      },
    };
    const repairSlot = (at: number) =>
      writeUint(bytes, at, 4, crc32(bytes.subarray(at + 4, at + SLOT_BYTES), at) >>> 0);

    it("gives back what was inserted, the certificate too, and has neither in its bytes", () => {
      const table = open({ seal });
      const data = new Uint8Array(40).fill(0xd5);
      table.insert(session(1, { data, clientCert: certificate.subarray(0, 200) }));
      const found = open({ seal }).get(peer(1))!;
      assert.deepEqual(found.data, data);
      assert.deepEqual(found.clientCert, certificate.slice(0, 200));
      for (let at = 0; at < bytes.length - 4; at++) assert.notDeepEqual(bytes.slice(at, at + 4), data.slice(0, 4));
      assert.deepEqual(open({ seal }).remove(peer(1))!.data, data);
    });

    it("has 28 bytes less room in each slot", () => {
      const table = open({ seal });
      assert.equal(table.room, SLOT_BYTES - SLOT_OVERHEAD_BYTES - SEAL_BYTES);
      table.insert(session(1, { data: new Uint8Array(table.room) }));
      assert.throws(() => table.insert(session(1, { data: new Uint8Array(table.room + 1) })), LimitError);
    });

    it("gives and keeps no slot with a flipped bit, head or content, though its check is good", () => {
      open({ seal }).insert(session(1));
      const good = bytes.slice();
      for (const at of [6, 17, 25, 38, 50, SLOT_OVERHEAD_BYTES + 13, SLOT_OVERHEAD_BYTES + 3 + SEAL_BYTES - 1]) {
        bytes.set(good);
        bytes[HEADER_BYTES + at]! ^= 1;
        repairSlot(HEADER_BYTES);
        const table = open({ seal });
        for (const { peer } of table.sessions()) assert.fail(`listed ${peer.address}, byte ${at}`);
        assert.equal(table.get(peer(1)), undefined, `byte ${at}`);
      }
    });

    it("gives no slot that was sealed for another place, another generation or another build", () => {
      open({ seal, fingerprint: 1 }).insert(session(1));
      const good = bytes.slice();
      bytes.copyWithin(HEADER_BYTES + SLOT_BYTES, HEADER_BYTES, HEADER_BYTES + SLOT_BYTES);
      bytes.copyWithin(STATES + 4, STATES, STATES + 4);
      bytes.fill(0, HEADER_BYTES, HEADER_BYTES + SLOT_BYTES);
      repairSlot(HEADER_BYTES + SLOT_BYTES);
      repairHeader();
      assert.equal(open({ seal, fingerprint: 1 }).get(peer(1)), undefined);

      bytes.set(good);
      const copy = bytes.slice(HEADER_BYTES, HEADER_BYTES + SLOT_BYTES);
      open({ seal, fingerprint: 1 }).insert(session(1));
      const generation = bytes.slice(HEADER_BYTES + 8, HEADER_BYTES + 12);
      bytes.set(copy, HEADER_BYTES);
      bytes.set(generation, HEADER_BYTES + 8);
      repairSlot(HEADER_BYTES);
      assert.equal(open({ seal, fingerprint: 1 }).get(peer(1)), undefined);

      bytes.set(good);
      writeUint(bytes, 16, 4, 2);
      repairHeader();
      assert.equal(open({ seal, fingerprint: 2 }).get(peer(1)), undefined);
    });

    it("takes nothing that is not sealed, and unsealed nothing that is", () => {
      open().insert(session(1));
      assert.equal(open({ seal }).length, 0);
      open({ seal }).insert(session(1));
      assert.equal(open().length, 0);
    });
  });

  describe("clientCertInfo", () => {
    const expected = { subject: "O=skg example", serialNumber: fromHex("b3313e8f3fc9538e"), der: certificate };

    it("is parsed from the certificate in the slot", () => {
      const table = open({ certificates: () => undefined });
      table.insert(session(1, { clientCert: certificate }));
      assert.deepEqual(table.get(peer(1))!.clientCertInfo, expected);
      const stored = table.get(peer(1))!;
      const first = stored.clientCertInfo;
      assert.ok(stored.clientCertInfo === first);
    });

    it("is parsed from the host's store where the slot has no room for the certificate", () => {
      const asked: Uint8Array[] = [];
      const table = open({
        certificates: (hash) => {
          asked.push(hash.slice());
          return hash[0] === 1 ? certificate : undefined;
        },
      });
      table.insert(session(1, { data: new Uint8Array(400), clientCert: certificate }));
      table.insert(session(2));
      assert.equal(asked.length, 0);
      assert.deepEqual(table.get(peer(1))!.clientCertInfo, expected);
      assert.equal(table.get(peer(2))!.clientCertInfo, undefined);
      assert.deepEqual(asked, [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)]);
    });

    it("is undefined where there is no certificate", () => {
      const table = open();
      table.insert(session(1));
      assert.equal(table.get(peer(1))!.clientCertInfo, undefined);
    });

    it("is undefined where the certificate cannot be parsed, or the host's store fails", () => {
      const table = open({
        certificates: () => {
          throw new Error("no store");
        },
      });
      table.insert(session(1, { clientCert: certificate.subarray(1) }));
      table.insert(session(2));
      assert.equal(table.get(peer(1))!.clientCertInfo, undefined);
      assert.equal(table.get(peer(2))!.clientCertInfo, undefined);
    });
  });
});
