/**
 * Copies of a device's memory, put back with the bytes really replaced; and the server's records of an earlier wake,
 * sent once more. In the simulator, whose retained memory and flash are files.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SessionTable } from "../../src/session/table.js";
import type { KillableDevice } from "../support/kill.js";
import { KINDS, Survival } from "../support/survival.js";

const kindOf = (keep: string) => KINDS.find((kind) => kind.keep === keep && kind.name === "a wake by context")!;

/** Where the table begins in retained.bin, and its first slot in it. */
const TABLE = 160;
const SLOT = TABLE + SessionTable.headerLength(4);
const SLOT_BYTES = 512;

describe("a copy of a device's memory that is put back", () => {
  let survival: Survival;
  let device: KillableDevice;

  before(async () => {
    survival = await Survival.start();
  });
  after(() => survival.close());

  const path = (...names: string[]): string => join(device.state, ...names);
  const flash = (key: string): string => path("flash", "torpor", key);

  /** Wakes by context, and says what the server and the relay thought of it. */
  async function wakeOn(operation: "crts" | "att") {
    const { stale } = survival.server.stats;
    survival.audit.violations.length = 0;
    const { association, operations } = await survival.wake(device, { operation });
    assert.equal(operations[0]?.code, "2.05");
    const { way, notes, handshake } = association;
    return {
      way,
      notes: notes.join(),
      handshakeOut: handshake.bytesOut,
      stale: survival.server.stats.stale - stale,
      violations: survival.audit.violations.length,
    };
  }

  const clean = { stale: 0, violations: 0 };
  const partOf = ({ stale, violations }: { stale: number; violations: number }) => ({ stale, violations });

  for (const keep of ["retained", "sealed"] as const) {
    it(`is not used where it is a slot of ${keep} memory: its generation is that of the header no longer`, async () => {
      ({ device } = await survival.prepare(kindOf(keep)));
      const copy = readFileSync(path("retained.bin")).subarray(SLOT, SLOT + SLOT_BYTES);
      assert.ok(copy[4] !== 0, "the slot is in use");
      assert.equal((await wakeOn("crts")).way, "context");
      const now = readFileSync(path("retained.bin"));
      assert.notDeepEqual(now.subarray(SLOT, SLOT + SLOT_BYTES), copy);
      copy.copy(now, SLOT);
      writeFileSync(path("retained.bin"), now);
      const wake = await wakeOn("att");
      assert.equal(wake.way, "full");
      assert.deepEqual(partOf(wake), clean);
      assert.equal((await wakeOn("crts")).way, "context");
    });

    it(`is not used where it is a slot of ${keep} memory that comes back while its context is in use`, async () => {
      ({ device } = await survival.prepare(kindOf(keep)));
      const copy = readFileSync(path("retained.bin")).subarray(SLOT, SLOT + SLOT_BYTES);
      assert.match((await device.killAt({ call: "poll", count: 3 }, { operation: "crts" })) ?? "", /^poll/);
      const now = readFileSync(path("retained.bin"));
      copy.copy(now, SLOT);
      writeFileSync(path("retained.bin"), now);
      // The slot is as it was, and the header knows that its context has been used: only the session in it serves.
      const wake = await wakeOn("att");
      assert.equal(wake.way, "session");
      assert.deepEqual(partOf(wake), clean);
    });
  }

  it("is not used where it is a slot in flash: its generation is that of the header no longer", async () => {
    ({ device } = await survival.prepare(kindOf("flash")));
    const copy = readFileSync(flash("session-0"));
    assert.equal((await wakeOn("crts")).way, "context");
    assert.notDeepEqual(readFileSync(flash("session-0")), copy);
    writeFileSync(flash("session-0"), copy);
    const wake = await wakeOn("att");
    assert.equal(wake.way, "full");
    assert.deepEqual(partOf(wake), clean);
    assert.equal((await wakeOn("crts")).way, "context");
  });

  // What a device without a hardware counter cannot find out: README says so. The harm is real, and the audit sees it:
  // two requests under one nonce. The server drops the second, and the device comes back by the session.
  for (const keep of ["retained", "sealed", "flash"] as const) {
    it(`is used where it is slot and header together, in ${keep} memory: the server drops what it sends as a replay`, async () => {
      ({ device } = await survival.prepare(kindOf(keep)));
      const files = keep === "flash" ? [flash("session-0"), flash("sessions")] : [path("retained.bin")];
      const copies = files.map((file) => readFileSync(file));
      assert.equal((await wakeOn("crts")).way, "context");
      files.forEach((file, index) => {
        writeFileSync(file, copies[index]!);
      });
      const wake = await wakeOn("att");
      assert.match(wake.notes, /restored association is of no use, the server does not answer/);
      assert.equal(wake.way, "session");
      assert.ok(wake.handshakeOut > 0);
      assert.ok(wake.stale >= 1, `${wake.stale}`);
      assert.ok(wake.violations >= 1, `${wake.violations}`);
      // It is over with that: the next wake has a context of its own.
      const next = await wakeOn("crts");
      assert.equal(next.way, "context");
      assert.deepEqual(partOf(next), clean);
    });
  }

  it("is of no use in another device: the sealing key is not the one", async () => {
    ({ device } = await survival.prepare(kindOf("flash")));
    const { device: thief } = await survival.prepare(kindOf("flash"));
    for (const key of ["session-0", "sessions", "identity"]) {
      cpSync(flash(key), join(thief.state, "flash", "torpor", key));
    }
    // Even with the private key, so that nothing but the sealing key is another one.
    cpSync(path("flash", "keys", "0000000000545001"), join(thief.state, "flash", "keys", "0000000000545001"));
    const { stale } = survival.server.stats;
    const { association } = await survival.wake(thief, { operation: "crts" });
    assert.equal(association.way, "full");
    assert.equal(survival.server.stats.stale, stale);
    assert.equal((await wakeOn("crts")).way, "context");
  });
});

describe("records of the server that are sent once more", () => {
  let survival: Survival;
  let device: KillableDevice;

  before(async () => {
    survival = await Survival.start();
  });
  after(() => survival.close());

  beforeEach(async () => {
    ({ device } = await survival.prepare(kindOf("retained")));
    survival.relay.forget();
    assert.equal((await survival.wake(device, { operation: "crts" })).association.way, "context");
    replayed = survival.relay.datagrams.filter(({ direction }) => direction === "in").map(({ bytes }) => bytes);
    assert.ok(replayed.length > 0);
  });
  let replayed: Buffer[] = [];

  it("are not taken by a restored association: the request gets its own answer", async () => {
    const { relay } = survival;
    const expected = (await survival.wake(device, { operation: "att" })).body;
    let sent = 0;
    const pass = relay.pass;
    relay.pass = (datagram, index) => {
      if (datagram.direction === "out") {
        for (const bytes of replayed) {
          relay.inject(bytes);
          sent++;
        }
      }
      return pass(datagram, index);
    };
    const { association, body } = await survival.wake(device, { operation: "att" });
    relay.pass = pass;
    assert.ok(sent > 0);
    assert.equal(association.way, "context");
    assert.equal(association.application.datagramsIn, sent + 1);
    assert.deepEqual(body, expected);
  });

  it("do not pass for a sign of life: where nothing else comes, the association is given up", async () => {
    const { relay } = survival;
    const pass = relay.pass;
    let sent = 0;
    relay.pass = (datagram, index) => {
      pass(datagram, index);
      const isAssociation = datagram.bytes[0] === 25 || datagram.bytes[0] === 23;
      if (datagram.direction === "out" && isAssociation && sent === 0) {
        for (const bytes of replayed) {
          relay.inject(bytes);
          sent++;
        }
        return 0; // the server never hears of it
      }
      return 1;
    };
    const { association } = await survival.wake(device, { operation: "att" });
    relay.pass = pass;
    assert.ok(sent > 0);
    assert.match(association.notes.join(), /restored association is of no use, the server does not answer/);
    assert.equal(association.way, "session");
  });
});
