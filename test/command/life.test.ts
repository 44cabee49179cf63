/** The command line against the development server: every wake a process of its own, as a user runs it. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { checkout } from "../../hosts/node/native.js";
import { DeviceState } from "../../hosts/node/storage.js";
import { parseCertificate } from "../../src/pki/certificate.js";
import { certificateRequest, destroyKey, generateKey, publicKey, sha256, sign } from "../../src/pki/key.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { Relay } from "../../tools/relay.js";
import { newFolder, run, torpor, type WakeLine, wakeLine } from "../support/command.js";

const CHANGE_CIPHER_SPEC = 20;
const ALERT = 21;
const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
const CONNECTION_ID = 25;

function openssl(args: readonly string[], input?: Uint8Array): string {
  return execFileSync("openssl", [...args], { input, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
}

describe("a device and the development server", () => {
  const folder = newFolder();
  let server: EstServer;
  let relay: Relay;
  let common: string[];
  let factory: string[];
  let state: string;

  before(async () => {
    server = await startEstServer({ dir: folder });
  });
  after(() => server.close());

  beforeEach(async () => {
    relay = await Relay.to(server.port);
    state = join(newFolder(), "device");
    common = ["--server", `coaps://127.0.0.1:${relay.port}`, "--trust", join(folder, "ca.pem"), "--state", state];
    factory = ["--cert", join(folder, "factory.pem"), "--key", join(folder, "factory.key")];
  });
  afterEach(() => relay.close());

  const issued = (): Uint8Array => {
    const record = new DeviceState(state).open("torpor").read("identity")!;
    return new Uint8Array(record).subarray(15, 15 + new DataView(record).getUint16(13));
  };

  /** The line's figures are those that the relay saw. */
  function assertCounted({ handshake, application }: WakeLine): void {
    const out = relay.traffic("out", HANDSHAKE, CHANGE_CIPHER_SPEC);
    const into = relay.traffic("in", HANDSHAKE, CHANGE_CIPHER_SPEC);
    assert.deepEqual(
      [handshake.bytesOut, handshake.datagramsOut, handshake.bytesIn, handshake.datagramsIn],
      [out.bytes, out.datagrams, into.bytes, into.datagrams],
    );
    assert.equal(application.bytesOut, relay.traffic("out", APPLICATION_DATA, ALERT, CONNECTION_ID).bytes);
    assert.equal(application.bytesIn, relay.traffic("in", APPLICATION_DATA, ALERT, CONNECTION_ID).bytes);
    relay.forget();
  }

  it("enrols at the first boot, sleeps, comes back by each way and renews; the figures are those of a capture", async () => {
    const boot = await wakeLine("run", ...common, ...factory);
    assert.deepEqual([boot.wake, boot.way, boot.handshake.roundTrips, boot.code], [1, "full", 3, "2.04"]);
    assertCounted(boot);
    const first = issued();

    const full = await wakeLine("crts", ...common);
    assert.deepEqual([full.wake, full.way, full.handshake.roundTrips, full.code], [2, "full", 3, "2.05"]);
    assertCounted(full);

    // From a new UDP port, and without a byte of a handshake: the first datagram is the request.
    const context = await wakeLine("crts", ...common);
    assert.deepEqual([context.wake, context.way, context.code], [3, "context", "2.05"]);
    assert.deepEqual(context.handshake, { bytesOut: 0, bytesIn: 0, datagramsOut: 0, datagramsIn: 0, roundTrips: 0 });
    assert.deepEqual([context.application.bytesOut, context.overhead], [63, 34]);
    assertCounted(context);

    server.forget();
    const session = await wakeLine("crts", ...common, "--context-patience", "0.3");
    assert.deepEqual([session.wake, session.way, session.handshake.roundTrips], [4, "session", 2]);
    assert.match(session.notes.join(), /restored association is of no use, the server does not answer/);
    const bytes = session.handshake.bytesOut + session.handshake.bytesIn;
    assert.ok(bytes <= 700, `${bytes} handshake bytes`);
    assertCounted(session);

    const asking = await wakeLine("crts", ...common, "--resume", "ticket");
    assert.equal(asking.way, "full");
    assertCounted(asking);
    const ticket = await wakeLine("att", ...common, "--resume", "ticket");
    assert.deepEqual([ticket.wake, ticket.way, ticket.handshake.roundTrips], [6, "ticket", 2]);
    assertCounted(ticket);

    const renewal = await wakeLine("sren", ...common, "--resume", "ticket");
    assert.deepEqual([renewal.way, renewal.code], ["ticket", "2.04"]);
    assertCounted(renewal);
    const second = issued();
    const [before, now] = [parseCertificate(first), parseCertificate(second)];
    assert.deepEqual(now.subject, before.subject);
    assert.notDeepEqual(now.serialNumber, before.serialNumber);
    assert.notDeepEqual(now.publicKey, before.publicKey);

    // A renewed certificate ends every session of the old one.
    assert.equal((await wakeLine("crts", ...common, "--resume", "ticket")).way, "full");
  });

  it("renews over a restored association; what rested on the old certificate ends with it", async () => {
    await wakeLine("run", ...common, ...factory);
    await wakeLine("crts", ...common);
    const renewal = await wakeLine("sren", ...common);
    assert.deepEqual([renewal.way, renewal.code, renewal.handshake.bytesOut], ["context", "2.04", 0]);
    assert.equal((await wakeLine("crts", ...common)).way, "full");
    assert.equal((await wakeLine("crts", ...common)).way, "context");
  });

  it("holds a certificate that openssl verifies, for the key that is in its storage and no other", async () => {
    await wakeLine("run", ...common, ...factory);
    const pem = join(newFolder(), "issued.pem");
    writeFileSync(pem, openssl(["x509", "-inform", "DER"], issued()));
    const issuing = join(newFolder(), "issuing.pem");
    writeFileSync(issuing, openssl(["x509", "-inform", "DER"], server.ca.issuing));
    assert.match(openssl(["verify", "-CAfile", join(folder, "ca.pem"), "-untrusted", issuing, pem]), /issued\.pem: OK/);
    assert.equal(readdirSync(join(state, "flash", "keys")).length, 1);
    // By the next wake the device proves that it has the key: the server demands it in the handshake.
    assert.equal((await wakeLine("crts", ...common)).code, "2.05");
  });

  it("needs no --trust once it has fetched the CA certificates", async () => {
    await wakeLine("run", ...common, ...factory);
    const withoutTrust = common.filter((_, i) => i !== 2 && i !== 3);
    assert.equal((await wakeLine("crts", ...withoutTrust)).code, "2.05");
  });

  it("does nothing at a wake when nothing is due, and renews after two thirds of the lifetime", async () => {
    const brief = await startEstServer({ ca: server.ca, lifetime: 20 });
    try {
      const args = ["--server", `coaps://127.0.0.1:${brief.port}`, ...common.slice(2)];
      assert.equal((await wakeLine("run", ...args, ...factory)).way, "full");
      // Valid from a minute before its issue to 20 seconds after it: past two thirds at once.
      const renewal = await wakeLine("run", ...args);
      assert.deepEqual([renewal.way, renewal.code], ["full", "2.04"]);
    } finally {
      await brief.close();
    }
    state = join(newFolder(), "device");
    common[common.length - 1] = state;
    await wakeLine("run", ...common, ...factory);
    const idle = await wakeLine("run", ...common);
    assert.deepEqual([idle.way, idle.handshake.datagramsOut, idle.code], [null, 0, null]);
  });

  it("writes nothing outside --state, keys with mode 0600, and nothing at all without --state", async () => {
    const cwd = newFolder();
    const program = join(checkout(), "build", "hosts", "node", "torpor.js");
    const wake = await run(process.execPath, [program, "run", ...common, ...factory], { cwd });
    assert.equal(wake.status, 0, wake.stderr);
    const without = await run(process.execPath, [program, "crts", ...common.slice(0, 4), ...factory], { cwd });
    assert.equal(without.status, 0, without.stderr);
    assert.deepEqual(readdirSync(cwd), []);
    const files = readdirSync(state, { recursive: true, encoding: "utf8" });
    for (const file of files) {
      const status = statSync(join(state, file));
      assert.equal(status.mode & 0o777, status.isDirectory() ? 0o700 : 0o600, file);
    }
    assert.deepEqual(
      files.filter((file) => file.endsWith(".new")),
      [],
    );
  });

  it("survives lost and doubled datagrams of a whole first boot", async () => {
    relay.pass = (_, index) => (index % 11 === 5 ? 0 : index % 7 === 2 ? 2 : 1);
    const boot = await wakeLine("run", ...common, ...factory, "--handshake-timer", "0.3");
    assert.equal(boot.code, "2.04");
  });

  it("carries blocks of 64 bytes through an MTU of 256", async () => {
    const line = await wakeLine("run", ...common, ...factory, "--mtu", "256", "--block", "64");
    assert.equal(line.code, "2.04");
    const sizes = relay.datagrams.filter(({ direction }) => direction === "out").map(({ bytes }) => bytes.length);
    assert.ok(Math.max(...sizes) <= 256, `${Math.max(...sizes)}`);
  });

  it("resumes with no other name, trust anchor or certificate than the session was made with", async () => {
    await wakeLine("crts", ...common, ...factory);
    assert.equal((await wakeLine("crts", ...common, ...factory)).way, "context");
    const byName = common.map((arg) => arg.replace("127.0.0.1", "localhost"));
    assert.equal((await wakeLine("crts", ...byName, ...factory)).way, "full");
    assert.equal((await wakeLine("crts", ...byName, ...factory)).way, "context");
    // The first boot leaves a session of the factory certificate; the enrolled one must not use it.
    await wakeLine("sen", ...byName, ...factory);
    assert.equal((await wakeLine("crts", ...byName)).way, "full");
  });

  it("reports a ticket that does not fit its slot, and goes on", async () => {
    const small = ["--resume", "ticket", "--slots", "2", "--slot-bytes", "300"];
    for (let wake = 1; wake <= 2; wake++) {
      const line = await wakeLine("crts", ...common, ...factory, ...small);
      assert.equal(line.way, "full");
      assert.ok(
        line.notes.some((note) => /needs a slot of \d+ bytes/.test(note)),
        JSON.stringify(line.notes),
      );
    }
  });

  it("starts from an empty table where the retained memory has another geometry, is cut or is random", async () => {
    await wakeLine("crts", ...common, ...factory);
    assert.equal((await wakeLine("crts", ...common, ...factory, "--slots", "3")).way, "full");
    const retained = join(state, "retained.bin");
    const whole = readFileSync(retained);
    for (const bytes of [
      whole.subarray(0, 100),
      whole.subarray(0, 3),
      Buffer.alloc(whole.length, 0xa5),
      Buffer.alloc(0),
    ]) {
      writeFileSync(retained, bytes);
      assert.equal((await wakeLine("crts", ...common, ...factory, "--slots", "3")).way, "full");
    }
    assert.equal((await wakeLine("crts", ...common, ...factory, "--slots", "3")).way, "context");
  });

  it("expires sessions by --ttl", async () => {
    await wakeLine("crts", ...common, ...factory, "--ttl", "0");
    assert.equal((await wakeLine("crts", ...common, ...factory, "--ttl", "0")).way, "full");
  });

  it("goes on with a session id after the server has restarted once, at the cost of one full handshake", async () => {
    const { port } = server;
    await wakeLine("crts", ...common, ...factory);
    await server.close();
    server = await startEstServer({ dir: folder, port });
    // Down the ladder: the association is unknown, the session too.
    const down = await wakeLine("crts", ...common, ...factory, "--context-patience", "0.3");
    assert.deepEqual([down.way, down.code, down.notes.length], ["full", "2.05", 2]);
    const ways = [];
    for (const resume of ["context", "session", "context", "context"]) {
      ways.push((await wakeLine("crts", ...common, ...factory, "--resume", resume)).way);
    }
    assert.deepEqual(ways, ["context", "session", "session", "context"]);
  });

  it("keeps the age of a ticket that was used: --ttl counts from the handshake that gave it", async () => {
    const ticket = ["--resume", "ticket", "--ttl", "6"];
    assert.equal((await wakeLine("crts", ...common, ...factory, ...ticket)).way, "full");
    const ways = [];
    for (let wake = 1; wake <= 3; wake++) {
      await new Promise((resolve) => setTimeout(resolve, 2200));
      ways.push((await wakeLine("crts", ...common, ...factory, ...ticket)).way);
    }
    assert.equal(ways[0], "ticket");
    assert.ok(ways.includes("full"), `${ways}`);
  });

  it("prints for people what it did", async () => {
    const { status, stdout, stderr } = await torpor("crts", ...common, ...factory);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^crts: 2\.05, \d+ bytes\nwake 1: full handshake, \d+ \+ \d+ bytes in 3 round trips/);
  });

  it("tells what it can do with --help, and which library it uses with --version", async () => {
    const help = await torpor("--help");
    assert.equal(help.status, 0);
    for (const option of ["--server", "--trust", "--state", "--resume", "--json", "sren"]) {
      assert.ok(help.stdout.includes(option), option);
    }
    const version = await torpor("--version");
    assert.match(
      version.stdout,
      /^torpor \d+\.\d+\.\d+ \(DTLS: mbedTLS 3\.6\.\d+, without DTLS 1\.3; keys and certificates: mbedTLS 3\.6\.\d+\)\n$/,
    );
  });
});

describe("keys in the C core", () => {
  it("make certificate requests that openssl verifies, with the subject and the key that were given", () => {
    const subject = Uint8Array.of(0x30, 0x0d, 0x31, 0x0b, 0x30, 9, 6, 3, 0x55, 4, 3, 0x0c, 2, 0x61, 0x62);
    for (const bits of [256, 384] as const) {
      const key = generateKey(0, bits);
      const request = certificateRequest(key, subject, new Uint8Array());
      const text = openssl(["req", "-inform", "DER", "-verify", "-noout", "-subject", "-pubkey"], request);
      assert.match(text, /subject=CN = ab/);
      const spki = openssl(["pkey", "-pubin", "-outform", "DER"], Buffer.from(text.slice(text.indexOf("-----BEGIN"))));
      assert.ok(spki.length > 0);
      assert.equal(publicKey(key).length, bits === 256 ? 65 : 97);
      destroyKey(key);
    }
  });

  it("carry attributes into the request as they are given", () => {
    // SEQUENCE { challengePassword, SET { UTF8String "pop" } }
    const attribute = Buffer.from("301206092a864886f70d010907310512 03706f70".replace(/ /g, ""), "hex");
    attribute[attribute.length - 5] = 0x0c;
    const key = generateKey(0);
    const request = certificateRequest(key, Uint8Array.of(0x30, 0), attribute);
    assert.match(openssl(["req", "-inform", "DER", "-verify", "-noout", "-text"], request), /challengePassword\s*:pop/);
    destroyKey(key);
  });

  it("sign what openssl verifies", () => {
    const key = generateKey(0);
    const folder = newFolder();
    const message = Buffer.from("a message");
    const der = Buffer.concat([
      Buffer.from("3059301306072a8648ce3d020106082a8648ce3d030107034200", "hex"),
      publicKey(key),
    ]);
    writeFileSync(join(folder, "key.pem"), openssl(["pkey", "-pubin", "-inform", "DER", "-pubout"], der));
    writeFileSync(join(folder, "signature"), sign(key, sha256(message)));
    assert.match(
      openssl(
        ["dgst", "-sha256", "-verify", join(folder, "key.pem"), "-signature", join(folder, "signature")],
        message,
      ),
      /Verified OK/,
    );
    destroyKey(key);
  });

  it("belong to one environment of a process: a worker gets an error, not shared keys", async () => {
    const { binding } = JSON.parse(readFileSync(join(checkout(), "build", "native.json"), "utf8")) as {
      binding: string;
    };
    const worker = new Worker(`require(${JSON.stringify(binding)})`, { eval: true });
    const error = await new Promise<Error>((resolve, reject) => {
      worker.once("error", resolve);
      worker.once("exit", () => reject(new Error("the worker loaded the binding")));
    });
    assert.match(error.message, /another Node\.js environment/);
    assert.equal(existsSync(binding), true);
  });
});
