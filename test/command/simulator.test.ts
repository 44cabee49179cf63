/** The device on the desktop: the same wakes in XS, with a device's memory. */

import { strict as assert } from "node:assert";
import { randomFillSync } from "node:crypto";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { type Build, program as builtProgram, slotsNotice } from "../../hosts/node/simulator.js";
import { certsOnly } from "../../tools/est-server/ca.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { Relay } from "../../tools/relay.js";
import { TestCA, writeIdentity } from "../support/certificates.js";
import { type Finished, newFolder, run, torpor, type WakeLine, wakeLine } from "../support/command.js";

/** Bytes of XS (slots, chunks and stack together) and of mbedTLS that a wake may take, with slots of a device's size. */
const FULL = { xs: 32768, dtls: 26 * 1024 };
const RESUMED = { xs: 24 * 1024, dtls: 22 * 1024 };

/** Of src/coap/client.ts. */
const MAX_BODY = 3072;

/** Of hosts/simulator/host.c and src/session/table.ts. */
const RETAINED_HOST_BYTES = 160;
const TABLE_VERSION = 8;

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

  // Found by killing devices at every step: they were overwritten when the same value was written again, which may be never. One may be a key.
  it("removes what writes that were cut off have left, in Node.js as well", async () => {
    await wakeLine("run", ...args, ...factory);
    const halves = [join("keys", "0000000000545001.new"), join("torpor", "identity.new"), join("torpor", "trust.new")];
    for (const host of ["simulator", "node"]) {
      for (const half of halves) {
        writeFileSync(join(state, "flash", half), "half");
      }
      await wakeLine("crts", ...args.slice(0, -1), host);
      assert.deepEqual(
        halves.filter((half) => existsSync(join(state, "flash", half))),
        [],
        host,
      );
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

  it("has room for a body as long as its limit, beside as much that it has already; refuses one that is longer with an error", async () => {
    const roots = [server.ca.root];
    while (certsOnly(roots).length <= MAX_BODY) {
      roots.push((await TestCA.create(`CN=Root of a CA ${roots.length}`)).root);
    }
    const anchors = join(newFolder(), "ca.pem");
    for (const [count, expected] of [
      [roots.length - 1, undefined],
      [roots.length, /^torpor: expected a response body of at most 3072 bytes, got one of \d+ or more\n$/],
    ] as const) {
      const large = await startEstServer({ ca: server.ca, caCertificates: roots.slice(0, count) });
      try {
        const to = ["--server", `coaps://127.0.0.1:${large.port}`, "--state", state, "--host", "simulator"];
        copyFileSync(join(folder, "ca.pem"), anchors);
        if (expected === undefined) {
          await wakeLine("run", ...to, ...factory, "--trust", anchors);
        }
        // From now on with the anchors of its own. Blocks of 1,024 bytes: the larger buffers.
        for (const operation of ["crts", "crts"]) {
          const { status, stderr } = await torpor(operation, ...to);
          assert.equal(status, expected === undefined ? 0 : 1, stderr);
          assert.match(stderr, expected ?? /^$/);
        }
      } finally {
        await large.close();
      }
    }
    assert.equal((await wakeLine("sren", ...args)).code, "2.04");
  });

  it("starts from an empty table where the retained memory has another size, another version or random bytes", async () => {
    await wakeLine("crts", ...args, ...factory);
    assert.equal((await wakeLine("crts", ...args, ...factory)).way, "context");
    assert.equal((await wakeLine("crts", ...args, ...factory, "--slots", "3")).way, "full");
    const retained = join(state, "retained.bin");
    // Another version of the host's part, and of the table behind it.
    for (const at of [0, RETAINED_HOST_BYTES + TABLE_VERSION]) {
      const bytes = readFileSync(retained);
      bytes[at]! ^= 0x40;
      writeFileSync(retained, bytes);
      assert.equal((await wakeLine("crts", ...args, ...factory, "--slots", "3")).way, "full", `version at ${at}`);
      assert.equal((await wakeLine("crts", ...args, ...factory, "--slots", "3")).way, "context");
    }
    for (const length of [0, 3, 100, readFileSync(retained).length, 8192]) {
      writeFileSync(retained, randomFillSync(Buffer.alloc(length)));
      assert.equal((await wakeLine("crts", ...args, ...factory, "--slots", "3")).way, "full", `${length} bytes`);
    }
    assert.equal((await wakeLine("crts", ...args, ...factory, "--slots", "3")).way, "context");
  });

  it("starts clean after memory was full anywhere in the first enrolment", async () => {
    // How far it gets with so much memory: to a key without a certificate, too.
    const kept = { key: 0, nothing: 0 };
    for (let heap = 12_000; heap < 24_000; heap += 600) {
      const { status, stderr } = await torpor("sen", ...args, ...factory, "--heap", String(heap));
      if (status === 0) {
        break;
      }
      assert.match(stderr, /^torpor: the device's memory is full; [^\n]*\n$/);
      const folder = join(state, "flash", "keys");
      const keys = existsSync(folder) ? readdirSync(folder) : [];
      assert.ok(keys.length <= 1, `${keys}`);
      kept[keys.length > 0 ? "key" : "nothing"]++;
      assert.ok(!existsSync(join(state, "flash", "torpor", "identity")), "no identity without its certificate");
    }
    assert.ok(kept.key > 0 && kept.nothing > 0, JSON.stringify(kept));
    rmSync(join(state, "flash", "torpor"), { recursive: true, force: true });
    const boot = await wakeLine("run", ...args, ...factory);
    assert.deepEqual([boot.operation, boot.code, boot.operations.length], ["run", "2.04", 3]);
    assert.equal(readdirSync(join(state, "flash", "keys")).length, 1);
    assert.deepEqual(readdirSync(join(state, "flash", "torpor")).sort(), ["csrattrs", "identity", "life", "trust"]);
    assert.equal((await wakeLine("sren", ...args)).code, "2.04");
  });

  it("says that its flash is full where what was issued has no room, and keeps the old pair", async () => {
    // A limit on the size of files is what full flash is to a program, and needs no rights. It is chosen so that all has
    // room but the record of the identity, by a long name: retained memory of one small slot, the arguments of the wake.
    const geometry = ["--slots", "1", "--slot-bytes", "256"];
    const { chain, keyPkcs8 } = await server.ca.issueFactory({ serialNumber: "7".repeat(128) });
    const long = writeIdentity(newFolder(), "long", { chain: [...chain], pkcs8: keyPkcs8, sec1: keyPkcs8 });
    await wakeLine("run", ...args, "--cert", long.certificate, "--key", long.key, ...geometry);
    const flash = (name: string): Buffer => readFileSync(join(state, "flash", name));
    const [before, keys] = [flash("torpor/identity"), readdirSync(join(state, "flash", "keys"))];
    const program = join(checkout(), "build", "hosts", "node", "torpor.js");
    const trustless = args.filter((arg, i) => arg !== "--trust" && args[i - 1] !== "--trust");
    const command = [process.execPath, program, "sren", ...trustless, ...geometry];
    const script = `trap "" XFSZ; exec prlimit --fsize=${before.length - 40} "$0" "$@"`;
    const { status, stderr } = await run("bash", ["-c", script, ...command]);
    assert.equal(status, 1);
    assert.match(stderr, /^torpor: cannot write [^\n]*identity[^\n]*\n$/);
    assert.deepEqual(flash("torpor/identity"), before);
    assert.deepEqual(readdirSync(join(state, "flash", "keys")), keys);
    assert.deepEqual(readdirSync(join(state, "flash", "torpor")).sort(), ["csrattrs", "identity", "life", "trust"]);
    assert.equal((await wakeLine("sren", ...args, ...geometry)).code, "2.04");
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

  it("runs a first boot with the memory that the SDK gives an ESP32, each part by itself", async () => {
    const { heap } = await wakeLine("run", ...args, ...factory, "--heap", "esp32");
    assert.ok(
      heap.xsPeak > 0 && heap.xsPeak <= 32768 + (2048 + 384) * 16 * (slotsNotice() ? 2 : 1),
      JSON.stringify(heap),
    );
  });

  it("shows where it failed, in which file and line, in its debug build", async () => {
    const { status, stderr } = await torpor("sren", ...args, "--debug");
    assert.equal(status, 1);
    assert.match(stderr, /no identity[\s\S]* at [^\n]*wake\.js:\d+\)[\s\S]*torpor: no identity/);
  });
});

describe("a program in the simulator", () => {
  /** Runs `body` as the default export of a module; `torpor` is one of the builds. */
  async function program(body: string, build: Build = "simulator", ...args: string[]): Promise<Finished> {
    const module = join(newFolder(), "program.js");
    writeFileSync(module, body);
    const modules = join(checkout(), "build", "hosts", "simulator", "modules");
    return run(builtProgram(build), [module, "--modules", modules, ...args]);
  }

  const FIGURES = /simulator: XS heap peak: slots [1-9]\d*, chunks [1-9]\d*, stack [1-9]\d* bytes; limit \d+\n$/;
  const ENDS: [string, number, RegExp, string][] = [
    ["memory that is full", 65, /memory full/, "const all = []; for (;;) all.push(new Uint8Array(100));"],
    ["slots that are used up", 65, /memory full/, "let all; for (;;) all = { all };"],
    ["a stack that overflows", 66, /stack overflow/, "(function deeper() { return 1 + deeper(); })();"],
    ["an exception", 67, /unhandled exception: RangeError: boom/, "throw new RangeError('boom');"],
    ["a rejection", 68, /unhandled rejection: RangeError: boom/, "Promise.reject(new RangeError('boom'));"],
  ];

  for (const [what, status, expected, statement] of ENDS) {
    it(`ends with ${status} for ${what}, and prints its heap figures`, async () => {
      const source = `import Timer from "timer";\nexport default () => Timer.set(() => { ${statement} });\n`;
      const finished = await program(source);
      assert.equal(finished.status, status, finished.stderr);
      assert.match(finished.stderr, expected);
      assert.match(finished.stderr, FIGURES);
    });
  }

  it("goes by the byte code of a module only while the module is as it was, and the byte code whole", async () => {
    const folder = newFolder();
    const module = join(folder, "program.js");
    const modules = join(checkout(), "build", "hosts", "simulator", "modules");
    const write = (text: string): void =>
      writeFileSync(module, `import Timer from "timer";\nexport default () => Timer.set(() => trace("${text}"));\n`);
    const say = async (): Promise<string> =>
      (await run(builtProgram("simulator"), [module, "--modules", modules])).stderr.split("\n")[0]!;
    const compile = (): Promise<Finished> =>
      run(builtProgram("simulator"), [module, "--modules", modules, "--compile", "1"]);

    write("one");
    assert.deepEqual(await compile(), { status: 0, stdout: "", stderr: "" });
    const code = readFileSync(`${module}b`);
    assert.match(await say(), /^one/);
    write("two");
    assert.match(await say(), /^two/, "parsed anew, for it is newer");
    assert.deepEqual(readFileSync(`${module}b`), code);
    await compile();
    const fresh = readFileSync(`${module}b`);
    // Other byte code with the same head: it is what runs.
    const at = fresh.indexOf("two");
    writeFileSync(`${module}b`, Buffer.concat([fresh.subarray(0, at), Buffer.from("six"), fresh.subarray(at + 3)]));
    assert.match(await say(), /^six/);
    for (const length of [0, 7, 47, fresh.length - 1]) {
      writeFileSync(`${module}b`, fresh.subarray(0, length));
      assert.match(await say(), /^two/, `${length} bytes of byte code`);
    }
    writeFileSync(`${module}b`, Buffer.concat([fresh, Buffer.alloc(1)]));
    assert.match(await say(), /^two/);
  });

  it("has separate limits for chunks and slots with the SDK's ESP32 memory", async () => {
    const fill = (bytes: number): string => `const b = new Uint8Array(${bytes}); Timer.set(() => trace(b.length), 0);`;
    const source = (bytes: number): string => `import Timer from "timer";\nexport default () => { ${fill(bytes)} }\n`;
    const fits = await program(source(30000), "simulator", "--heap", "esp32");
    assert.deepEqual([fits.status, fits.stderr.slice(0, 5)], [1, "30000"], fits.stderr);
    assert.equal((await program(source(33000), "simulator", "--heap", "esp32")).status, 65);
    assert.equal((await program(source(33000), "simulator", "--heap", "65536")).status, 1);
  });

  it("shows file and line of what nobody caught in the debug build, and has no limit of memory there", async () => {
    const source =
      "function deeper() {\n  new Uint8Array(100000);\n  throw new RangeError('boom');\n}\nexport default () => {\n  deeper();\n  trace();\n};\n";
    const { status, stderr } = await program(source, "debug");
    assert.ok(status === 67 || status === 68, stderr);
    assert.match(stderr, /RangeError: boom\n at deeper \([^)]*program\.js:3\)\n at default \([^)]*program\.js:6\)/);
    // On a turn of its own, where nothing is on the stack any more.
    const later = `import Timer from "timer";\nexport default () => Timer.set(() => {\n  throw new RangeError("boom");\n});\n`;
    assert.match(
      (await program(later, "debug")).stderr,
      /unhandled exception: RangeError: boom\n at [^\n]*program\.js:3\)/,
    );
  });

  it("keeps retained values over deep sleep and crashes, knows why it woke, and forgets them without power", async () => {
    const state = join(newFolder(), "device");
    const source = `import Sleep from "sleep";
      export default () => {
        const n = Sleep.getRetainedValue(31);
        trace(Sleep.resetReason, " ", n, "\\n");
        Sleep.setRetainedValue(31, n - 1);
        if (n === -1) throw new Error("crash");
        Sleep.deep(2500);
      };\n`;
    const seen: string[] = [];
    for (let i = 0; i < 4; i++) {
      const { stderr } = await program(source, "simulator", "--state", state);
      seen.push(stderr.split("\n")[0]!);
      assert.match(stderr, i === 1 ? /crash/ : /asleep for 2500 ms\n$/);
    }
    assert.deepEqual(seen, ["0 0", "4 -1", "2 -2", "4 -3"]);
    rmSync(join(state, "retained.bin"));
    assert.match((await program(source, "simulator", "--state", state)).stderr, /^0 0\n/);
  });

  it("has the device's modules: UDP, timers and storage in every format", async () => {
    const source = `import Timer from "timer"; import UDP from "embedded:io/socket/udp"; import storage from "embedded:storage/key-value";
      const fails = (body) => { try { body(); } catch (error) { return error.constructor.name; } };
      export default () => {
        const out = [];
        for (const [format, value] of [["buffer", new Uint8Array(3)], ["string", "h\u00e9"], ["int8", -128], ["uint16", 65535], ["int32", -2147483648], ["uint32", 4294967295]]) {
          const store = storage.open({ path: "app", format });
          store.write(format, value);
          const back = store.read(format);
          out.push(format === "buffer" ? back.byteLength : back);
          store.close();
          out.push(fails(() => store.read(format)));
        }
        const reader = storage.open({ path: "app", mode: "r" });
        out.push([...reader].length, fails(() => reader.write("x", new Uint8Array(1))), fails(() => reader.delete("x")));
        out.push(fails(() => storage.open({ path: "app", format: "xyzzy" })), fails(() => storage.open({})));
        const server = new UDP({ port: 47113, target: "t", onReadable(count) {
          const datagram = this.read();
          out.push(this.target, count, datagram.byteLength, datagram.address, this.read());
          this.close(); this.close();
          out.push(fails(() => this.write(new Uint8Array(1), "127.0.0.1", 9)));
        } });
        const client = new UDP({});
        client.write(Uint8Array.of(1, 2, 3), "127.0.0.1", 47113);
        client.close();
        let ticks = 0;
        Timer.repeat((id) => { if (++ticks === 3) Timer.schedule(id, 20); if (ticks === 4) { trace(JSON.stringify(out)); } }, 5);
      };\n`;
    const { stderr } = await program(source, "simulator", "--state", join(newFolder(), "device"));
    const line = JSON.parse(stderr.split("\n")[0]!.replace(/simulator:.*/, ""));
    const values = [3, "hé", -128, 65535, -2147483648, 4294967295].flatMap((value) => [value, "Error"]);
    const rest = [6, "Error", "Error", "RangeError", "Error", "t", 1, 3, "127.0.0.1", null, "TypeError"];
    assert.deepEqual(line, [...values, ...rest]);
  });

  it("takes no object of the host for a buffer, whatever length it is given", async () => {
    const source = `import Timer from "timer"; import UDP from "embedded:io/socket/udp";
      export default () => Timer.set(() => {
        const objects = [new UDP({}), Timer.set(() => {}, 1000), new (Native("xs_torpor_dtls_destructor"))()];
        for (const object of objects) {
          Object.defineProperty(object, "byteLength", { value: 4096 });
          for (const name of ["xs_torpor_random", "xs_torpor_key_public", "xs_host_answer"]) {
            try { native(name).call(undefined, object, object); trace("taken by ", name); } catch (error) { trace(error.constructor.name, " "); }
          }
        }
      });\n`;
    assert.match((await program(source)).stderr, /^(TypeError ){9}simulator/);
  });

  it("tells how it is used where an argument is wrong", async () => {
    for (const wrong of [["--heap", "12x"], ["--stack", "1"], ["--xyzzy", "1"], ["--heap"]]) {
      const { status, stderr } = await program("export default () => {};\n", "simulator", ...wrong);
      assert.deepEqual([status, stderr.startsWith("simulator MODULE")], [1, true], stderr);
    }
  });

  it("has its session table in retained memory: beside it, 4 slots of 512 bytes cost at most 256 bytes of heap, empty or full", async () => {
    const simulator = builtProgram("simulator");
    const program = join(checkout(), "build", "test", "xs", "session-table.js");
    const { stdout, stderr } = await run(simulator, [program, "--state", newFolder()]);
    assert.match(stdout, /^\{/, stderr);
    const { empty, full, length } = JSON.parse(stdout) as { empty: number; full: number; length: number };
    assert.equal(length, 4);
    assert.ok(empty > 0 && empty <= (256 * bits) / 32, `${empty} bytes`);
    assert.ok(full <= (256 * bits) / 32, `${full} bytes`);
  });
});
