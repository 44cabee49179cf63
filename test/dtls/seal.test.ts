/** Sealing with the device's key in PSA, and the session table in flash: src/session/seal.ts and flash.ts. */

import { strict as assert } from "node:assert";
import { join } from "node:path";
import { openKeys } from "../../hosts/node/native.js";
import type { KeyValueStore } from "../../src/io.js";
import { FlashBytes } from "../../src/session/flash.js";
import { DeviceSealer, SEAL_BYTES } from "../../src/session/seal.js";
import { type Session, SessionTable } from "../../src/session/table.js";
import { newFolder } from "../support/command.js";

const GEOMETRY = { slots: 3, slotBytes: 512 };
const START = 1_700_000_000_000;

const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text));
const sealed = (sealer: DeviceSealer, associated: Uint8Array, plain: Uint8Array): Uint8Array => {
  const out = new Uint8Array(plain.length + SEAL_BYTES);
  sealer.seal(associated, plain, out);
  return out;
};

describe("a device's seal", () => {
  // PSA keeps a key in RAM once it was used: other devices and corrupt keys are the affair of test/command.
  before(() => openKeys(join(newFolder(), "keys")));

  it("gives back what it sealed, and shows nothing of it", () => {
    const sealer = new DeviceSealer();
    for (const plain of [bytes(""), bytes("a"), new Uint8Array(4000).fill(0x5a)]) {
      const box = sealed(sealer, bytes("slot 1"), plain);
      const out = new Uint8Array(plain.length);
      assert.equal(new DeviceSealer().unseal(bytes("slot 1"), box, out), true);
      assert.deepEqual(out, plain);
      assert.ok(plain.length < 4 || !Buffer.from(box).includes(Buffer.from(plain.subarray(0, 8))));
    }
    assert.notDeepEqual(sealed(sealer, bytes(""), bytes("same")), sealed(sealer, bytes(""), bytes("same")));
  });

  it("opens nothing of which a bit differs, and gives zeros then", () => {
    const sealer = new DeviceSealer();
    const box = sealed(sealer, bytes("slot 1"), bytes("secret"));
    const out = new Uint8Array(6).fill(1);
    for (let bit = 0; bit < box.length * 8; bit++) {
      const wrong = box.slice();
      wrong[bit >> 3]! ^= 1 << (bit & 7);
      assert.equal(sealer.unseal(bytes("slot 1"), wrong, out.fill(1)), false, `bit ${bit}`);
      assert.deepEqual(out, new Uint8Array(6));
    }
    assert.equal(sealer.unseal(bytes("slot 2"), box, out), false);
    assert.equal(sealer.unseal(bytes("slot 1"), box.subarray(0, SEAL_BYTES - 1), out), false);
    assert.equal(sealer.unseal(bytes("slot 1"), new Uint8Array(), out), false);
  });

  it("refuses room that is too small, and to write over its input", () => {
    const sealer = new DeviceSealer();
    const shared = new Uint8Array(100);
    assert.throws(() => sealer.seal(bytes(""), bytes("four"), new Uint8Array(4 + SEAL_BYTES - 1)), /cannot seal/);
    assert.throws(() => sealer.seal(bytes(""), shared.subarray(0, 20), shared.subarray(10)), /cannot seal/);
    assert.equal(sealer.unseal(bytes(""), sealed(sealer, bytes(""), bytes("four")), new Uint8Array(3)), false);
  });
});

describe("a session table in flash", () => {
  let values: Map<string, Uint8Array>;
  let writes: string[];
  let refuse: (key: string) => boolean;
  let clock: number;
  const store: KeyValueStore = {
    read: (key) => values.get(key)?.slice().buffer as ArrayBuffer | undefined,
    write: (key, value) => {
      if (refuse(key)) throw new Error(`no room for ${key}`);
      writes.push(key);
      values.set(key, Uint8Array.from(value instanceof Uint8Array ? value : new Uint8Array(value)));
    },
    delete: (key) => {
      writes.push(`-${key}`);
      values.delete(key);
    },
    close: () => {},
  };

  beforeEach(() => {
    openKeys(join(newFolder(), "keys"));
    values = new Map();
    writes = [];
    refuse = () => false;
    clock = START;
  });

  function open(): SessionTable {
    const flash = new FlashBytes(store, GEOMETRY);
    return new SessionTable(flash.bytes, {
      ...GEOMETRY,
      clock: () => clock,
      seal: new DeviceSealer(),
      commit: () => flash.commit(),
    });
  }

  const session = (number: number): Session => ({
    peer: { address: `192.0.2.${number}`, port: 5684 },
    kind: "session",
    data: new Uint8Array(258).fill(0xa0 + number),
    isContext: true,
    clientCertHash: new Uint8Array(32).fill(number),
    protocol: "DTLS 1.2",
  });

  it("keeps what the table has, sealed, each slot under its own key and no longer than its content", () => {
    const table = open();
    table.insert(session(1));
    table.insert(session(2));
    assert.deepEqual([...values.keys()].sort(), ["session-0", "session-1", "sessions"]);
    assert.equal(values.get("session-0")!.length, 76 + 258 + SEAL_BYTES);
    for (const value of values.values()) {
      assert.ok(!Buffer.from(value).includes(Buffer.alloc(8, 0xa1)));
    }
    assert.deepEqual(open().get(session(1).peer)!.data, session(1).data);
    assert.deepEqual(open().get(session(2).peer)!.data, session(2).data);
  });

  it("writes the header alone, 48 bytes with 3 slots, to mark a context as used", () => {
    open().insert(session(1));
    writes = [];
    const table = open();
    assert.equal(table.use(session(1).peer), true);
    assert.deepEqual(writes, ["sessions"]);
    assert.equal(values.get("sessions")!.length, 36 + 3 * 4);
    assert.equal(open().use(session(1).peer), false);
  });

  it("erases a slot that is emptied", () => {
    open().insert(session(1));
    open().remove(session(1).peer);
    assert.deepEqual([...values.keys()], ["sessions"]);
  });

  it("writes a slot before the header that knows it: a cut in between leaves no session, not a wrong one", () => {
    open().insert(session(1));
    const before = new Map(values);
    refuse = (key) => key === "sessions";
    assert.throws(() => open().insert({ ...session(1), data: new Uint8Array(258).fill(9) }), /no room for sessions/);
    assert.notDeepEqual(values.get("session-0"), before.get("session-0"));
    refuse = () => false;
    assert.equal(open().get(session(1).peer), undefined);
  });

  it("keeps the session of before where there is no room for the slot", () => {
    open().insert(session(1));
    refuse = (key) => key !== "sessions";
    assert.throws(() => open().insert(session(2)), /no room for session-1/);
    refuse = () => false;
    assert.equal(open().get(session(2).peer), undefined);
    assert.deepEqual(open().get(session(1).peer)!.data, session(1).data);
  });

  it("does not take a slot that was put back after use: the header knows better", () => {
    open().insert(session(1));
    const copy = values.get("session-0")!;
    open().use(session(1).peer);
    open().insert(session(1));
    open().use(session(1).peer);
    values.set("session-0", copy);
    assert.equal(open().use(session(1).peer), false);
    assert.equal(open().get(session(1).peer), undefined);
  });

  it("is empty where values are missing, too long, cut or random", () => {
    for (const [key, value] of [
      ["sessions", undefined],
      ["sessions", new Uint8Array(1000)],
      ["sessions", new Uint8Array(20).fill(7)],
      ["session-0", undefined],
      ["session-0", new Uint8Array(513).fill(1)],
      ["session-0", new Uint8Array(300).fill(0x5a)],
    ] as const) {
      values = new Map();
      open().insert(session(1));
      if (value === undefined) values.delete(key);
      else values.set(key, value);
      assert.equal(open().get(session(1).peer), undefined, `${key} ${value?.length}`);
      open().insert(session(1));
      assert.ok(open().get(session(1).peer));
    }
  });
});
