/** The device on the desktop: the same wakes in XS, with a device's memory. */

import { strict as assert } from "node:assert";
import { randomFillSync } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { newFolder, run, torpor, type WakeLine, wakeLine } from "../support/command.js";
import { Relay } from "../support/relay.js";

/** Bytes of XS (slots, chunks and stack together) and of mbedTLS that a wake may take, with slots of a device's size. */
const FULL = { xs: 32768, dtls: 26 * 1024 };
const RESUMED = { xs: 24 * 1024, dtls: 22 * 1024 };

const { bits } = JSON.parse(readFileSync(join(checkout(), "build", "native.json"), "utf8")) as { bits: 32 | 64 };

describe("a device in the simulator", () => {
  const folder = newFolder();
  let server: EstServer;
  let relay: Relay;
  let state: string;
  let args: string[];
  let factory: string[];

  before(async () => {
    server = await startEstServer({ dir: folder });
  });
  after(() => server.close());
  beforeEach(async () => {
    relay = await Relay.to(server.port);
    state = join(newFolder(), "device");
    args = ["--server", `coaps://127.0.0.1:${relay.port}`, "--trust", join(folder, "ca.pem"), "--state", state];
    args.push("--host", "simulator");
    factory = ["--cert", join(folder, "factory.pem"), "--key", join(folder, "factory.key")];
  });
  afterEach(() => relay.close());

  function assertFits({ host, heap, way }: WakeLine): void {
    const limit = way === "full" ? FULL : RESUMED;
    assert.equal(host, "simulator");
    assert.ok(heap.xsPeak > 0 && heap.xsPeak <= (limit.xs * bits) / 32, `${way} ${JSON.stringify(heap)}`);
    assert.ok(heap.dtlsPeak > 0 && heap.dtlsPeak <= (limit.dtls * bits) / 32, `${way} ${JSON.stringify(heap)}`);
  }

  it("boots, enrols, resumes by each way and renews, within a device's memory; its figures are those of a capture", async () => {
    const ways: unknown[] = [];
    for (const [operation, ...more] of [
      ["run", ...factory, "--block", "512"],
      ["crts"],
      ["crts"],
      ["crts", "--resume", "session"],
      ["att", "--resume", "ticket"],
      ["crts", "--resume", "ticket"],
      ["sren", "--resume", "ticket"],
    ] as [string, ...string[]][]) {
      relay.forget();
      const line = await wakeLine(operation, ...args, ...more);
      ways.push([line.wake, line.way, line.handshake.roundTrips]);
      assertFits(line);
      const out = relay.traffic("out", 20, 22);
      const into = relay.traffic("in", 20, 22);
      assert.deepEqual([line.handshake.bytesOut, line.handshake.bytesIn], [out.bytes, into.bytes]);
    }
    assert.deepEqual(ways, [
      [1, "full", 3],
      [2, "full", 3],
      [3, "context", 0],
      [4, "session", 2],
      [5, "full", 3],
      [6, "ticket", 2],
      [7, "ticket", 2],
    ]);
    for (const file of readdirSync(state, { recursive: true, encoding: "utf8" })) {
      const { mode } = statSync(join(state, file));
      assert.equal(mode & 0o077, 0, file);
    }
  });

  it("writes the answer to --out as it came", async () => {
    const out = join(folder, "crts.p7");
    const line = await wakeLine("crts", ...args, ...factory, "--out", out);
    assert.equal(readFileSync(out).length, line.bytes);
  });

  it("says that its memory is full, with figures, and works at the next wake: nothing that was committed is lost", async () => {
    await wakeLine("run", ...args, ...factory);
    const identity = readFileSync(join(state, "flash", "torpor", "identity"));
    let full = 0;
    for (const heap of ["14000", "18000", "22000", "24000"]) {
      const { status, stderr, stdout } = await torpor("sren", ...args, "--heap", heap);
      if (status !== 0) {
        full++;
        assert.match(
          stderr,
          /^torpor: the device's memory is full; .*slots \d+, chunks \d+, stack \d+ bytes; limit \d+\n$/,
        );
        assert.equal(stdout, "");
        assert.deepEqual(readFileSync(join(state, "flash", "torpor", "identity")), identity);
      }
    }
    assert.ok(full >= 2, `${full} wakes ran out of memory`);
    const line = await wakeLine("sren", ...args);
    assert.equal(line.code, "2.04");
    assert.equal(readdirSync(join(state, "flash", "keys")).length, 1);
  });

  it("refuses a body larger than its limit with an error, not with full memory", async () => {
    const { status, stderr } = await torpor("crts", ...args, ...factory, "--max-body", "300");
    assert.equal(status, 1);
    assert.match(stderr, /^torpor: [^\n]*300[^\n]*\n$/);
  });

  it("starts from an empty table where the retained memory has another size or random bytes", async () => {
    await wakeLine("crts", ...args, ...factory);
    assert.equal((await wakeLine("crts", ...args, ...factory)).way, "context");
    assert.equal((await wakeLine("crts", ...args, ...factory, "--slots", "3")).way, "full");
    const retained = join(state, "retained.bin");
    for (const length of [0, 3, 100, readFileSync(retained).length, 8192]) {
      writeFileSync(retained, randomFillSync(Buffer.alloc(length)));
      assert.equal((await wakeLine("crts", ...args, ...factory, "--slots", "3")).way, "full", `${length} bytes`);
    }
    assert.equal((await wakeLine("crts", ...args, ...factory, "--slots", "3")).way, "context");
  });

  it("names the cause of what goes wrong in one line, as Node.js does", async () => {
    const nobody = await Relay.to(1);
    try {
      const silent = args.map((arg) => arg.replace(String(relay.port), String(nobody.port)));
      nobody.pass = () => 0;
      const { status, stderr } = await torpor("crts", ...silent, ...factory, "--patience", "1");
      assert.equal(status, 1);
      assert.match(stderr, /^torpor: the server did not finish the DTLS handshake within 1 s[^\n]*\n$/);
    } finally {
      nobody.close();
    }
    const none = await torpor("sren", ...args);
    assert.match(none.stderr, /^torpor: no identity[^\n]*\n$/);
  });

  it("survives lost and doubled datagrams of a whole first boot", async () => {
    relay.pass = (_, index) => (index % 11 === 5 ? 0 : index % 7 === 2 ? 2 : 1);
    const boot = await wakeLine("run", ...args, ...factory, "--handshake-timer", "0.3");
    assert.equal(boot.code, "2.04");
    assertFits(boot);
  });

  it("has its session table in retained memory: beside it, 4 slots of 512 bytes cost at most 256 bytes of heap, empty or full", async () => {
    const { simulator } = JSON.parse(readFileSync(join(checkout(), "build", "native.json"), "utf8"));
    const program = join(checkout(), "build", "test", "xs", "session-table.js");
    const { stdout, stderr } = await run(simulator, [program, "--state", newFolder()]);
    assert.match(stdout, /^\{/, stderr);
    const { empty, full, length } = JSON.parse(stdout) as { empty: number; full: number; length: number };
    assert.equal(length, 4);
    assert.ok(empty > 0 && empty <= (256 * bits) / 32, `${empty} bytes`);
    assert.ok(full <= (256 * bits) / 32, `${full} bytes`);
  });
});
