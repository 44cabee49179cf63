/** Where a device keeps its sessions (--keep), and what `torpor sessions` shows of them. In Node.js and in the simulator. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ListedSession, readSlots } from "../../hosts/node/sessions.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { newFolder, torpor, wakeLine } from "../support/command.js";

/** The number of PSA's sealing key, as its file is named. */
const SEAL_KEY = "0000000000545100";
const CONTEXT_PATIENCE = ["--context-patience", "0.3"];

describe("what a device keeps to come back by", () => {
  const folder = newFolder();
  let server: EstServer;
  let state: string;
  let common: string[];
  let factory: string[];

  before(async () => {
    server = await startEstServer({ dir: folder });
    factory = ["--cert", join(folder, "factory.pem"), "--key", join(folder, "factory.key")];
  });
  after(() => server.close());
  beforeEach(() => {
    state = join(newFolder(), "device");
    common = ["--server", `coaps://127.0.0.1:${server.port}`, "--trust", join(folder, "ca.pem")];
  });

  const wake = (...args: string[]) => wakeLine("crts", ...common, ...factory, "--state", state, ...args);

  async function listed(): Promise<ListedSession[]> {
    const { status, stdout, stderr } = await torpor("sessions", "--state", state, "--json");
    assert.equal(status, 0, stderr);
    return (JSON.parse(stdout) as { sessions: ListedSession[] }).sessions;
  }

  /** Every byte of the device's memory. */
  const memory = (): Buffer =>
    Buffer.concat(
      readdirSync(state, { recursive: true, encoding: "utf8" })
        .sort()
        .map((file) => join(state, file))
        .filter((file) => statSync(file).isFile())
        .map((file) => readFileSync(file)),
    );

  for (const host of ["node", "simulator"]) {
    for (const keep of ["retained", "sealed", "flash"]) {
      it(`comes back over a saved association that is kept ${keep}, on ${host}`, async () => {
        const where = ["--host", host, "--keep", keep];
        const ways = [];
        for (let i = 0; i < 4; i++) {
          const { way, notes } = await wake(...where);
          ways.push(way);
          assert.deepEqual(notes, []);
        }
        assert.deepEqual(ways, ["full", "context", "context", "context"]);
        const [session, ...more] = await listed();
        assert.equal(more.length, 0);
        assert.deepEqual(
          [session!.in, session!.sealed, session!.ways, session!.contextUsed],
          [keep === "flash" ? "flash" : "retained", keep !== "retained", ["context", "session"], false],
        );
        server.forget();
        assert.equal((await wake(...where, ...CONTEXT_PATIENCE)).way, "session");
        const renewal = await wakeLine("sen", ...common, ...factory, "--state", state, ...where);
        assert.deepEqual([renewal.way, renewal.code], ["context", "2.04"]);
        assert.deepEqual(await listed(), []);
      });
    }
  }

  it("survives power-off in flash, and not in retained memory", async () => {
    for (const [keep, way] of [
      ["flash", "context"],
      ["retained", "full"],
    ] as const) {
      await wake("--keep", keep);
      rmSync(join(state, "retained.bin"));
      assert.equal((await wake("--keep", keep)).way, way);
    }
  });

  for (const keep of ["sealed", "flash"]) {
    it(`opens nothing with another device's seal, or after its own was lost or corrupt: ${keep}`, async () => {
      await wake("--keep", keep);
      const other = join(newFolder(), "other");
      cpSync(state, other, { recursive: true });
      const key = join(state, "flash", "keys", SEAL_KEY);
      assert.equal(statSync(key).mode & 0o777, 0o600);
      const good = readFileSync(key);
      for (const wrong of [Buffer.alloc(good.length), good.subarray(0, 20), Buffer.alloc(0), undefined]) {
        rmSync(state, { recursive: true });
        cpSync(other, state, { recursive: true });
        if (wrong === undefined) rmSync(key);
        else writeFileSync(key, wrong);
        assert.equal((await wake("--keep", keep)).way, "full");
        assert.equal((await wake("--keep", keep)).way, "context");
      }
      // Another device: its own key, and the memory of the first one.
      rmSync(state, { recursive: true });
      await wake("--keep", keep);
      const own = readFileSync(key);
      rmSync(state, { recursive: true });
      cpSync(other, state, { recursive: true });
      writeFileSync(key, own);
      assert.equal((await wake("--keep", keep)).way, "full");
    });
  }

  it("has no part of a sealed session in its memory in the clear", async () => {
    await wake("--keep", "retained");
    const retained = readFileSync(join(state, "retained.bin"));
    // The master secret is somewhere in there; any 16 bytes that look random will do as a probe of the method.
    const at = 160 + 36 + 16 + 76 + 60;
    const probe = retained.subarray(at, at + 16);
    assert.ok(memory().includes(probe));
    for (const keep of ["sealed", "flash"]) {
      rmSync(state, { recursive: true });
      await wake("--keep", keep);
      const all = memory();
      // What every saved session begins with: the version and configuration of the library.
      const header = retained.subarray(160 + 36 + 16 + 76 + 8 + 1 + 8 + 13, 160 + 36 + 16 + 76 + 8 + 1 + 8 + 13 + 8);
      assert.ok(retained.includes(header) && !all.includes(header), keep);
    }
  });

  it("lists peer, ways, age, time left and bytes for people, and changes nothing by it", async () => {
    await wake();
    const before = memory();
    const { status, stdout } = await torpor("sessions", "--state", state, "--ttl", "7200");
    assert.equal(status, 0);
    const [head, line, ...more] = stdout.trimEnd().split("\n");
    assert.match(head!, /^server +ways back +age +time left +bytes +kept$/);
    assert.match(line!, /^127\.0\.0\.1:\d+ +context, session id +\d+ seconds? +119 minutes +\d{3} +retained$/);
    assert.equal(more.length, 0);
    assert.deepEqual(memory(), before);
    const secret = readFileSync(join(state, "retained.bin"));
    assert.ok(!stdout.includes(secret.subarray(300, 316).toString("hex")));
  });

  for (const keep of ["retained", "sealed", "flash"]) {
    it(`reads the table slot by slot where it is kept ${keep}: what is taken up, by what, and what has expired`, async () => {
      await wake("--keep", keep);
      const slots = readSlots(state, 86400);
      assert.deepEqual(
        slots.map(({ slot, content, slotBytes }) => [slot, content, slotBytes]),
        [0, 1, 2, 3].map((slot) => [slot, slot === 0 ? "session" : "empty", 512]),
      );
      const { session, bytes, generation } = slots[0]!;
      const [whole] = await listed();
      // It is older by then.
      assert.deepEqual({ ...session, age: 0, left: 0 }, { ...whole, age: 0, left: 0 });
      assert.equal(bytes, 76 + (keep === "retained" ? 0 : 28) + session!.bytes);
      assert.ok(generation > 0);
      const expired = readSlots(state, 0)[0]!;
      assert.deepEqual([expired.content, expired.session!.left], ["expired", 0]);
      await wake("--keep", keep);
      assert.ok(readSlots(state, 86400)[0]!.generation > generation);
    });
  }

  it("shows a slot whose bytes have decayed as unsound, and the others as they are", async () => {
    await wake();
    const path = join(state, "retained.bin");
    const bytes = readFileSync(path);
    bytes[160 + 52 + 100]! ^= 1;
    writeFileSync(path, bytes);
    const [first, ...others] = readSlots(state, 86400);
    assert.deepEqual([first!.content, first!.session], ["unsound", undefined]);
    assert.ok(others.every(({ content }) => content === "empty"));
  });

  it("says so where there is nothing, where a context was used, and where there is no device", async () => {
    const none = await torpor("sessions", "--state", state);
    assert.deepEqual([none.status, none.stdout], [1, ""]);
    assert.match(none.stderr, /^torpor: no device in [^\n]+\n$/);
    assert.equal((await torpor("sessions")).status, 2);
    await wake("--resume", "none");
    assert.match((await torpor("sessions", "--state", state)).stdout, /^no sessions: the next wake makes a full/);
    await wake();
    // A wake that ends without putting the association away again, for the server refuses what it asks.
    const refusing = await startEstServer({ dir: folder });
    await refusing.close();
    server.forget();
    const dead = ["--patience", "0.5", ...CONTEXT_PATIENCE];
    const { port } = server;
    await server.close();
    const silent = await torpor("crts", ...common, ...factory, "--state", state, ...dead);
    assert.equal(silent.status, 1);
    server = await startEstServer({ dir: folder, port });
    assert.deepEqual(
      (await listed()).map(({ ways }) => ways),
      [["session"]],
    );
  });
});
