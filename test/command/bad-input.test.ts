/**
 * What a user gets wrong, and what a server does wrong: one clear line, exit status not 0, and keys, certificates and
 * sessions as before.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { TestCA, writeCertificates, writeIdentity } from "../support/certificates.js";
import { type Finished, newFolder, run, torpor, wakeLine } from "../support/command.js";
import { type Peer, type Responder, startOpenssl } from "../support/peers.js";
import { caCertificates } from "../vectors/rfc9148.js";

/** Where the retained memory has what the table knows of its slots; before that wakes are counted and times noted. */
const RETAINED_FROM = 160 + 36;

/** A device's memory, file by file; of the retained memory the sessions. */
function memoryOf(state: string): Record<string, string> {
  const memory: Record<string, string> = {};
  for (const file of readdirSync(state, { recursive: true, encoding: "utf8" }).sort()) {
    const path = join(state, file);
    if (statSync(path).isFile()) {
      const bytes = readFileSync(path);
      const content = file === "retained.bin" ? bytes.subarray(RETAINED_FROM) : bytes;
      memory[file] = createHash("sha256").update(content).digest("hex");
    }
  }
  return memory;
}

function assertOneLine({ status, stdout, stderr }: Finished, expected: RegExp, wanted = 1): void {
  assert.equal(status, wanted, `${stdout}${stderr}`);
  assert.match(stderr, expected);
  assert.match(stderr, /^torpor: [^\n]+\n$/, "one line, without a stack trace");
  assert.equal(stdout, "");
}

describe("a device that meets something bad", () => {
  const folder = newFolder();
  let server: EstServer;
  let device: { certificate: string; key: string };
  let ca: TestCA;
  let state: string;
  let memory: Record<string, string>;
  const peers: Peer[] = [];
  const sockets: Socket[] = [];

  const identityArgs = (): string[] => ["--cert", join(folder, "factory.pem"), "--key", join(folder, "factory.key")];
  const to = (port: number): string[] => ["--server", `coaps://127.0.0.1:${port}`];
  const trust = (): string[] => ["--trust", join(folder, "ca.pem")];

  before(async () => {
    server = await startEstServer({ dir: folder });
    ca = await TestCA.create("CN=Another CA");
    device = writeIdentity(folder, "other", await ca.issue({ subject: "CN=other device", usage: "client" }));
    // An enrolled device with a session in its table: what must not change.
    state = join(newFolder(), "device");
    await wakeLine("run", ...to(server.port), ...trust(), ...identityArgs(), "--state", state);
    await wakeLine("crts", ...to(server.port), ...trust(), "--state", state);
    memory = memoryOf(state);
  });

  after(() => server.close());

  afterEach(async () => {
    for (const peer of peers.splice(0)) {
      await peer.stop();
    }
    for (const socket of sockets.splice(0)) {
      socket.close();
    }
    assert.deepEqual(memoryOf(state), memory, "the device's memory is as before");
    assert.equal((await wakeLine("crts", ...to(server.port), ...trust(), "--state", state)).way, "context");
    memory = memoryOf(state);
  });

  /** A UDP port that answers each datagram as told. */
  async function udpServer(answer: (datagram: Buffer) => Buffer | undefined): Promise<number> {
    const socket = createSocket("udp4");
    sockets.push(socket);
    socket.on("message", (datagram, from) => {
      const bytes = answer(datagram);
      if (bytes !== undefined) {
        socket.send(bytes, from.port, from.address);
      }
    });
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    return socket.address().port;
  }

  /** A real DTLS server that answers as told; the arguments that reach it, and leave the table of sessions alone. */
  async function answering(responder: Responder): Promise<string[]> {
    const identity = await ca.issue({ subject: "CN=bad server", addresses: ["127.0.0.1"] });
    const clientCA = writeCertificates(folder, "client-ca", [server.ca.issuing, server.ca.root, server.ca.factoryCA]);
    const peer = await startOpenssl({ ...writeIdentity(folder, "bad", identity), clientCA }, responder);
    peers.push(peer);
    return [
      ...to(peer.port),
      "--trust",
      writeCertificates(folder, "bad-ca", [ca.root]),
      "--state",
      state,
      "--resume",
      "none",
    ];
  }

  // ---- certificates and keys ----

  it("refuses a server of another CA", async () => {
    const wrong = ["--trust", writeCertificates(folder, "wrong-ca", [ca.root])];
    assertOneLine(
      await torpor("sren", ...to(server.port), ...wrong, "--state", state, "--resume", "none"),
      /certificate is refused: no trust anchor leads to it/,
    );
  });

  it("refuses an expired server certificate", async () => {
    const expired = await ca.issue({
      subject: "CN=old",
      addresses: ["127.0.0.1"],
      notAfter: new Date(Date.now() - 1000),
    });
    const clientCA = writeCertificates(folder, "client-ca", [server.ca.issuing]);
    const peer = await startOpenssl({ ...writeIdentity(folder, "old", expired), clientCA }, () => assert.fail());
    peers.push(peer);
    assertOneLine(
      await torpor(
        "crts",
        ...to(peer.port),
        "--trust",
        writeCertificates(folder, "bad-ca", [ca.root]),
        "--state",
        state,
      ),
      /refused: it has expired/,
    );
  });

  it("is refused with an expired certificate of its own, and says so", async () => {
    const old = await ca.issue({ subject: "CN=old device", usage: "client", notAfter: new Date(Date.now() - 1000) });
    const files = writeIdentity(folder, "old-device", old);
    const identity = await ca.issue({ subject: "CN=server", addresses: ["127.0.0.1"] });
    const clientCA = writeCertificates(folder, "old-ca", [ca.root]);
    const peer = await startOpenssl({ ...writeIdentity(folder, "server", identity), clientCA }, () => assert.fail());
    peers.push(peer);
    assertOneLine(
      await torpor("crts", ...to(peer.port), "--trust", clientCA, "--cert", files.certificate, "--key", files.key),
      /alert certificate_expired: this device's certificate has expired/,
    );
  });

  it("refuses a server that has the right CA and the wrong name", async () => {
    const elsewhere = await server.ca.issueServer({ dnsNames: ["elsewhere.example"], addresses: ["192.0.2.1"] });
    const identity = { chain: [...elsewhere.chain], pkcs8: elsewhere.keyPkcs8, sec1: elsewhere.keyPkcs8 };
    const clientCA = writeCertificates(folder, "client-ca", [server.ca.issuing]);
    const peer = await startOpenssl({ ...writeIdentity(folder, "elsewhere", identity), clientCA }, () => assert.fail());
    peers.push(peer);
    assertOneLine(
      await torpor("crts", ...to(peer.port), ...trust(), "--state", state),
      /name or address is not that of the server/,
    );
  });

  it("refuses a key that does not belong to the certificate", async () => {
    const mixed = ["--cert", join(folder, "factory.pem"), "--key", device.key];
    assertOneLine(
      await torpor("sen", ...to(server.port), ...trust(), ...mixed, "--state", state),
      /private key does not belong to the client certificate/,
    );
  });

  it("is refused by a server that does not know its CA", async () => {
    const stranger = ["--cert", device.certificate, "--key", device.key];
    assertOneLine(await torpor("crts", ...to(server.port), ...trust(), ...stranger), /alert unknown_ca/);
  });

  // ---- servers ----

  it("waits for a silent server as long as it was told, and says how long", async () => {
    const port = await udpServer(() => undefined);
    const started = Date.now();
    assertOneLine(
      await torpor("crts", ...to(port), ...trust(), "--state", state, "--handshake-timer", "0.2", "--patience", "1.5"),
      /did not finish the DTLS handshake within 1\.5 s/,
    );
    assert.ok(Date.now() - started >= 1500);
  });

  it("waits for nobody at all no longer, and keeps its session for a server that is only away", async () => {
    const port = await udpServer(() => undefined);
    sockets.splice(0).forEach((socket) => {
      socket.close();
    });
    assertOneLine(
      await torpor("crts", ...to(port), ...trust(), "--state", state, "--patience", "1"),
      /did not finish the DTLS handshake within 1 s/,
    );
  });

  for (const [what, answer] of [
    ["an echo", (datagram: Buffer) => datagram],
    ["random bytes", () => Buffer.from("not DTLS at all, but long enough to look like a record")],
    ["a record of zeros", () => Buffer.concat([Buffer.from([22, 254, 253]), Buffer.alloc(60)])],
    ["an empty datagram", () => Buffer.alloc(0)],
  ] as const) {
    it(`gives up on a server that answers with ${what}, within the time it was told`, async () => {
      const port = await udpServer(answer);
      assertOneLine(
        await torpor("crts", ...to(port), ...trust(), "--state", state, "--handshake-timer", "0.3", "--patience", "1"),
        /handshake/,
      );
    });
  }

  it("refuses a truncated PKCS #7", async () => {
    for (const length of [1, 10, 100, 637]) {
      const args = await answering(() => ({
        code: "2.05",
        format: 281,
        payload: Buffer.from(caCertificates.subarray(0, length)),
      }));
      assertOneLine(await torpor("crts", ...args), /expected/);
    }
  });

  it("refuses an answer that is no certificate, of another format, or empty", async () => {
    for (const [format, payload, expected] of [
      [281, Buffer.from("<html>sign in to the network</html>"), /expected/],
      [0, Buffer.from("hello"), /expected Content-Format 281 or 287 in the answer, got 0/],
      [281, Buffer.alloc(0), /empty body/],
      [287, Buffer.from("3003020101", "hex"), /expected/],
    ] as const) {
      assertOneLine(await torpor("crts", ...(await answering(() => ({ code: "2.05", format, payload })))), expected);
    }
  });

  it("refuses a certificate that was issued for another key, and keeps the old pair", async () => {
    const other = await ca.issue({ subject: "CN=other device", usage: "client" });
    const args = await answering(() => ({ code: "2.04", format: 287, payload: Buffer.from(other.chain[0]!) }));
    assertOneLine(await torpor("sren", ...args), /no certificate for this device's key/);
  });

  it("refuses a body that is larger than it was told to accept", async () => {
    const args = await answering(() => ({ code: "2.05", format: 281, payload: Buffer.from(caCertificates) }));
    assertOneLine(await torpor("crts", ...args, "--max-body", "600"), /600/);
  });

  it("shows why a server refuses a request, and keeps the old pair", async () => {
    const strict = await startEstServer({ ca: server.ca, refuse: "this device was reported stolen\n\u001b[31m!" });
    try {
      assertOneLine(
        await torpor("sren", ...to(strict.port), ...trust(), "--state", state, "--resume", "none"),
        /refused sren with 4\.03 Forbidden: "this device was reported stolen \[31m!"/,
      );
    } finally {
      await strict.close();
    }
  });

  // ---- files and the command line ----

  it("names a file that is missing, is no certificate or is no key", async () => {
    const good = [...to(server.port), "--state", state];
    const text = join(folder, "text");
    writeFileSync(text, "no PEM here");
    const cut = join(folder, "cut.pem");
    writeFileSync(
      cut,
      readFileSync(join(folder, "ca.pem"), "utf8").replace(/\n[A-Za-z0-9+/=]+\n-----END/, "\n-----END"),
    );
    assertOneLine(await torpor("crts", ...good, "--trust", "/no/such/file"), /--trust \/no\/such\/file.*no such file/);
    assertOneLine(await torpor("crts", ...good, "--trust", folder), /--trust .*EISDIR/);
    assertOneLine(await torpor("crts", ...good, "--trust", text), /--trust .*no usable certificate/);
    assertOneLine(await torpor("crts", ...good, "--trust", cut), /--trust .*no usable certificate/);
    const key = ["--cert", join(folder, "factory.pem"), "--key", join(folder, "ca.pem")];
    assertOneLine(await torpor("sen", ...good, ...trust(), ...key), /PRIVATE KEY/);
  });

  it("explains a command line that makes no sense, with exit status 2", async () => {
    for (const [args, expected] of [
      [[], /expected one operation/],
      [["crts"], /--server is missing/],
      [["enrol", ...to(1)], /"enrol" is no operation/],
      [["crts", "sen", ...to(1)], /expected one operation/],
      [["crts", ...to(1), "--frobnicate"], /--frobnicate/],
      [["crts", ...to(1), "--block", "100"], /--block takes/],
      [["crts", ...to(1), "--block", "1024", "--mtu", "600"], /do not fit/],
      [["crts", ...to(1), "--mtu", "many"], /--mtu takes a number/],
      [["crts", ...to(1), "--resume", "maybe"], /--resume takes/],
      [["crts", ...to(1), "--cert", "x"], /go together/],
      [["crts", ...to(1), "--host", "toaster"], /--host takes node or simulator/],
      [["crts", "--server", "coap://127.0.0.1"], /DTLS/],
      [["sen", ...to(1)], /needs --state/],
    ] as const) {
      assertOneLine(await torpor(...args), expected, 2);
    }
    assertOneLine(await torpor("crts", "--server", "https://127.0.0.1"), /coaps:\/\/HOST/);
  });

  it("says what is missing before the device is enrolled", async () => {
    const fresh = ["--state", newFolder()];
    assertOneLine(await torpor("sren", ...to(server.port), ...trust(), ...fresh), /factory certificate and key/);
    assertOneLine(await torpor("crts", ...to(server.port), ...fresh, ...identityArgs()), /no trust anchor/);
  });

  it("refuses a session table that exceeds what a device can retain", async () => {
    assertOneLine(
      await torpor("crts", ...to(server.port), ...trust(), "--state", newFolder(), "--slots", "64"),
      /does not fit the \d+ bytes of retained memory/,
    );
  });

  it("names the cause where --state or --out cannot be written", async () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    const args = [...to(server.port), ...trust(), ...identityArgs()];
    assertOneLine(await torpor("crts", ...args, "--state", file), /cannot use .*file/);
    assertOneLine(await torpor("crts", ...args, "--state", join(file, "below")), /cannot use .*file/);
    assertOneLine(await torpor("crts", ...args, "--out", join(file, "below")), /cannot write --out/);
    // What stands in the way of a file is named too: here a folder in its place.
    const blocked = newFolder();
    mkdirSync(join(blocked, "retained.bin"));
    assertOneLine(await torpor("crts", ...args, "--state", blocked), /cannot (read|write) .*retained\.bin/);
    const noKeys = newFolder();
    mkdirSync(join(noKeys, "flash"));
    writeFileSync(join(noKeys, "flash", "keys"), "");
    assertOneLine(await torpor("sen", ...args, "--state", noKeys), /key storage cannot be written/);
  });

  it("does not start on a state folder without permission", async () => {
    const locked = newFolder();
    chmodSync(locked, 0o500);
    const program = join(checkout(), "build", "hosts", "node", "torpor.js");
    const args = [
      program,
      "crts",
      ...to(server.port),
      ...trust(),
      ...identityArgs(),
      "--state",
      join(locked, "device"),
    ];
    const asRoot = process.getuid?.() === 0;
    // Permissions do not bind root: it gives up its capability to override them.
    const finished = asRoot
      ? await run("setpriv", [
          "--bounding-set",
          "-dac_override,-dac_read_search",
          "--inh-caps",
          "-all",
          process.execPath,
          ...args,
        ])
      : await run(process.execPath, args);
    assertOneLine(finished, /no permission/);
  });

  it("ends with one line on a full disk, at every write, and works again when there is room", async () => {
    // /dev/full would be a file: a limit on the size of files fails every write in the same way, without being root.
    const program = join(checkout(), "build", "hosts", "node", "torpor.js");
    const full = newFolder();
    const args = ["run", ...to(server.port), ...trust(), ...identityArgs(), "--state", full];
    for (const limit of [0, 1]) {
      const script = `trap "" XFSZ; ulimit -f ${limit}; exec "$0" "$@"`;
      const finished = await run("bash", ["-c", script, process.execPath, program, ...args]);
      assertOneLine(finished, /cannot write|key storage|no room/);
    }
    assert.equal((await wakeLine(...(args as [string]))).code, "2.04");
  });

  it("does one wake at a time: a second one says who has the state folder, and a dead one's lock gives way", async () => {
    const port = await udpServer(() => undefined);
    const first = torpor("crts", ...to(port), ...trust(), "--state", state, "--patience", "5");
    while (!existsSync(join(state, "lock"))) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const second = await torpor("crts", ...to(server.port), ...trust(), "--state", state);
    assertOneLine(second, /another wake \(process \d+\) is using/);
    await first;
    const copy = newFolder();
    // No process has a number as high as this. The other one lives, and is not the one that made the lock: found by
    // killing devices again and again, and what becomes of a lock after a reboot.
    for (const lock of ["4194305", "4194305 17", `${process.pid} 17`]) {
      writeFileSync(join(copy, "lock"), lock);
      const line = await wakeLine("crts", ...to(server.port), ...trust(), ...identityArgs(), "--state", copy);
      assert.equal(line.code, "2.05", lock);
    }
  });

  it("enrols again with its factory identity where the enrolled one, its key or the next key is corrupt", async () => {
    for (const [file, bytes] of [
      ["torpor/identity", "garbage"],
      ["keys/0000000000545001", ""],
      ["keys/0000000000545002", ""],
    ] as const) {
      const copy = newFolder();
      const args = [...to(server.port), ...trust(), "--state", copy];
      await wakeLine("run", ...args, ...identityArgs());
      writeFileSync(join(copy, "flash", file), bytes);
      assert.equal((await wakeLine("sen", ...args, ...identityArgs())).code, "2.04", file);
      assert.equal((await wakeLine("sren", ...args)).code, "2.04", file);
    }
  });

  it("looks at its key only where a handshake needs it, and enrols again where that finds another one", async () => {
    const copy = newFolder();
    const own = await startEstServer({ dir: folder });
    peers.push({ port: own.port, output: () => "", stop: () => own.close() });
    const args = [...to(own.port), ...trust(), "--state", copy];
    await wakeLine("run", ...args, ...identityArgs());
    assert.equal((await wakeLine("crts", ...args)).way, "full");
    // The key in use and another one, both as PSA stores them.
    const keys = join(copy, "flash", "keys");
    const [used] = readdirSync(keys).filter((name) => name.startsWith("00000000005450"));
    const other = newFolder();
    await wakeLine("run", ...to(own.port), ...trust(), "--state", other, ...identityArgs());
    const key = readFileSync(join(keys, used!));
    const wrong = readFileSync(join(other, "flash", "keys", used!));
    assert.equal(wrong.length, key.length);
    writeFileSync(join(keys, used!), wrong);
    assert.equal((await wakeLine("crts", ...args)).way, "context");
    own.forget();
    assertOneLine(await torpor("crts", ...args, "--context-patience", "0.1"), /key does not belong/);
    assertOneLine(await torpor("crts", ...args), /key .* missing or corrupt/);
    assert.equal((await wakeLine("sen", ...args, ...identityArgs())).code, "2.04");
    assert.equal((await wakeLine("sren", ...args)).code, "2.04");
  });

  it("refuses a certificate that its TLS library cannot use, and keeps the old pair", async () => {
    const dir = newFolder();
    const rsa = (...args: string[]): void => void execFileSync("openssl", args, { cwd: dir, stdio: "pipe" });
    rsa("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=RSA CA");
    const args = await answering((request) => {
      writeFileSync(join(dir, "request.der"), request.payload);
      rsa("req", "-inform", "DER", "-in", "request.der", "-out", "request.pem");
      rsa(
        "x509",
        "-req",
        "-in",
        "request.pem",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "1",
        "-outform",
        "DER",
        "-out",
        "issued.der",
      );
      return { code: "2.04", format: 287, payload: readFileSync(join(dir, "issued.der")) };
    });
    assertOneLine(await torpor("sren", ...args), /certificate or its key is not usable/);
  });

  it("shows no stack trace where nobody reads what it prints, or the disk behind it is full", async () => {
    const program = join(checkout(), "build", "hosts", "node", "torpor.js");
    for (const where of ["> /dev/full", "| true"]) {
      const { stderr } = await run("bash", ["-c", `"${process.execPath}" "${program}" --help ${where}`]);
      assert.ok(!/ at |node:/.test(stderr), stderr);
    }
  });

  it("says that a record of its identity is corrupt, and does not touch it", async () => {
    const copy = newFolder();
    await wakeLine("run", ...to(server.port), ...trust(), ...identityArgs(), "--state", copy);
    const record = join(copy, "flash", "torpor", "identity");
    const whole = readFileSync(record);
    for (const bytes of [
      Buffer.alloc(0),
      whole.subarray(0, 12),
      whole.subarray(0, 100),
      Buffer.from(whole).fill(7, 40, 41),
    ]) {
      writeFileSync(record, bytes);
      assertOneLine(await torpor("sren", ...to(server.port), ...trust(), "--state", copy), /"identity" is corrupt/);
      assert.deepEqual(readFileSync(record), bytes);
    }
    writeFileSync(record, whole);
    const [key] = readdirSync(join(copy, "flash", "keys"));
    writeFileSync(join(copy, "flash", "keys", key!), "garbage");
    assertOneLine(await torpor("sren", ...to(server.port), ...trust(), "--state", copy), /key .* missing or corrupt/);
  });
});
