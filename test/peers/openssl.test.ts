/** Against `openssl s_server` with a CoAP responder behind it, and through socat as a DTLS terminator. */

import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { TestCA, writeCertificates, writeIdentity } from "../support/certificates.js";
import { newFolder, torpor, type WakeLine, wakeLine } from "../support/command.js";
import { type Peer, type Responder, startOpenssl, startTerminator } from "../support/peers.js";
import { caCertificates } from "../vectors/rfc9148.js";

const serveCrts: Responder = () => ({ code: "2.05", format: 281, payload: Buffer.from(caCertificates) });

describe("a device against openssl s_server", () => {
  const folder = newFolder();
  let args: string[];
  let files: { certificate: string; key: string; clientCA: string };
  let ca: TestCA;
  let peer: Peer | undefined;

  before(async () => {
    ca = await TestCA.create();
    const server = await ca.issue({ subject: "CN=s_server", dnsNames: ["localhost"], addresses: ["127.0.0.1"] });
    const device = writeIdentity(folder, "device", await ca.issue({ subject: "CN=device", usage: "client" }));
    files = { ...writeIdentity(folder, "server", server), clientCA: writeCertificates(folder, "ca", [ca.root]) };
    args = ["--trust", files.clientCA, "--cert", device.certificate, "--key", device.key];
  });

  afterEach(() => peer?.stop());

  const crts = (...more: readonly string[]): Promise<WakeLine> =>
    wakeLine("crts", "--server", `coaps://127.0.0.1:${peer!.port}`, ...args, ...more);
  /** How often the server itself says that it resumed. */
  const reused = (): number => peer!.output().split("Reused session-id").length - 1;

  for (const options of [[], ["-no_ticket"]]) {
    it(`resumes by session id at each further wake, which the server confirms (${options.join(" ") || "default"})`, async () => {
      peer = await startOpenssl(files, serveCrts, options);
      const state = newFolder();
      const ways: unknown[] = [];
      for (let wake = 1; wake <= 3; wake++) {
        const line = await crts("--state", state);
        ways.push(line.way);
        if (wake > 1) {
          assert.equal(line.handshake.roundTrips, 2);
          assert.ok(line.handshake.bytesOut + line.handshake.bytesIn <= 700, JSON.stringify(line.handshake));
        }
      }
      assert.deepEqual(ways, ["full", "session", "session"]);
      assert.equal(reused(), 2);
    });
  }

  it("resumes by ticket where asked to, which the server confirms", async () => {
    peer = await startOpenssl(files, serveCrts);
    const state = newFolder();
    const ways = [];
    for (let wake = 1; wake <= 3; wake++) {
      ways.push((await crts("--state", state, "--resume", "ticket")).way);
    }
    assert.deepEqual(ways, ["full", "ticket", "ticket"]);
    assert.equal(reused(), 2);
  });

  it("makes a full handshake where the server has forgotten all, and exits 0", async () => {
    peer = await startOpenssl(files, serveCrts);
    const state = newFolder();
    assert.equal((await crts("--state", state)).way, "full");
    assert.equal((await crts("--state", state)).way, "session");
    const { port } = peer;
    await peer.stop();
    peer = await startOpenssl(files, serveCrts, [], port);
    const line = await wakeLine("crts", "--server", `coaps://127.0.0.1:${port}`, ...args, "--state", state);
    assert.equal(line.way, "full");
  });

  it("negotiates CCM and GCM where the server has no CCM_8", async () => {
    for (const [name, suite] of [
      ["ECDHE-ECDSA-AES128-CCM", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM"],
      ["ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"],
    ] as const) {
      peer = await startOpenssl(files, serveCrts, ["-cipher", name]);
      assert.equal((await crts()).cipherSuite, suite);
      await peer.stop();
    }
  });

  it("says which cipher suites it offers where the server has none of them", async () => {
    peer = await startOpenssl(files, serveCrts, ["-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]);
    const { status, stderr } = await torpor("crts", "--server", `coaps://127.0.0.1:${peer.port}`, ...args);
    assert.equal(status, 1);
    assert.match(stderr, /^torpor: .*handshake_failure.*AES_128_CCM_8.*\n$/);
  });

  it("refuses a server certificate that is for clients only", async () => {
    const wrong = await ca.issue({ subject: "CN=s_server", addresses: ["127.0.0.1"], usage: "client" });
    peer = await startOpenssl({ ...files, ...writeIdentity(folder, "wrong", wrong) }, serveCrts);
    const { status, stderr } = await torpor("crts", "--server", `coaps://127.0.0.1:${peer.port}`, ...args);
    assert.equal(status, 1);
    assert.match(stderr, /extended key usage is not that of a TLS server/);
  });

  it("refuses a server certificate for another name, and for another address", async () => {
    const wrong = await ca.issue({ subject: "CN=localhost", dnsNames: ["example.net"], addresses: ["127.0.0.2"] });
    peer = await startOpenssl({ ...files, ...writeIdentity(folder, "wrong", wrong) }, serveCrts);
    for (const host of ["localhost", "127.0.0.1"]) {
      const { status, stderr } = await torpor("crts", "--server", `coaps://${host}:${peer.port}`, ...args);
      assert.equal(status, 1);
      assert.match(stderr, /name or address is not that of the server/);
      await peer.stop();
      peer = await startOpenssl({ ...files, ...writeIdentity(folder, "wrong", wrong) }, serveCrts);
    }
  });

  it("connects by DNS name", async () => {
    peer = await startOpenssl(files, serveCrts);
    const line = await wakeLine("crts", "--server", `coaps://localhost:${peer.port}`, ...args);
    assert.equal(line.code, "2.05");
  });
});

describe("a device through a DTLS terminator (socat, OpenSSL) in front of the development server's plain CoAP", () => {
  const folder = newFolder();
  let server: EstServer;
  let terminator: Peer;
  let args: string[];

  before(async () => {
    server = await startEstServer({ dir: join(folder, "est"), plain: 0 });
    const ca = await TestCA.create();
    const identity = await ca.issue({ subject: "CN=terminator", addresses: ["127.0.0.1"] });
    const trust = writeCertificates(folder, "trust", [ca.root]);
    const clientCA = writeCertificates(folder, "client-ca", [server.ca.factoryCA, server.ca.issuing, server.ca.root]);
    terminator = await startTerminator(
      { ...writeIdentity(folder, "terminator", identity), clientCA },
      server.plainPort!,
    );
    args = ["--server", `coaps://127.0.0.1:${terminator.port}`, "--trust", trust, "--state", join(folder, "device")];
  });

  after(async () => {
    await terminator.stop();
    await server.close();
  });

  for (const block of [1024, 64]) {
    it(`enrols and renews in blocks of ${block}`, async () => {
      const factory = ["--cert", join(folder, "est", "factory.pem"), "--key", join(folder, "est", "factory.key")];
      const out = join(folder, "issued.p7");
      const sen = await wakeLine("sen", ...args, ...factory, "--block", String(block), "--out", out);
      assert.equal(sen.code, "2.04");
      assert.equal(sen.cipherSuite, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8");
      const text = execFileSync("openssl", ["pkcs7", "-inform", "DER", "-print_certs"], { input: readFileSync(out) });
      assert.match(text.toString(), /BEGIN CERTIFICATE/);
      const sren = await wakeLine("sren", ...args, "--block", String(block));
      assert.equal(sren.code, "2.04");
    });
  }
});

describe("a device through a DTLS terminator (socat, OpenSSL) in front of a CoAP server that behaves as kipuka's", () => {
  const folder = newFolder();
  let server: EstServer;
  let terminator: Peer;
  let args: string[];
  let factory: string[];

  before(async () => {
    // Its block state is keyed by peer and token, as that of the development server always is.
    server = await startEstServer({ dir: join(folder, "est"), plain: 0, misbehave: "kipuka" });
    const identity = await server.ca.issueServer({ dnsNames: [], addresses: ["127.0.0.1"] });
    const clientCA = writeCertificates(folder, "client-ca", [server.ca.factoryCA, server.ca.issuing, server.ca.root]);
    const files = { chain: [...identity.chain], pkcs8: identity.keyPkcs8, sec1: identity.keyPkcs8 };
    terminator = await startTerminator({ ...writeIdentity(folder, "terminator", files), clientCA }, server.plainPort!);
    const trust = ["--trust", join(folder, "est", "ca.pem")];
    args = ["--server", `coaps://127.0.0.1:${terminator.port}`, ...trust, "--state", join(folder, "device")];
    factory = ["--cert", join(folder, "est", "factory.pem"), "--key", join(folder, "est", "factory.key")];
  });

  after(async () => {
    await terminator.stop();
    await server.close();
  });

  for (const block of ["1024", "64"]) {
    it(`gets CA certificates and attributes, enrols and renews in blocks of ${block}, and says what it put up with`, async () => {
      const more = ["--block", block];
      assert.equal((await wakeLine("crts", ...args, ...factory, ...more)).code, "2.05");
      const att = await wakeLine("att", ...args, ...factory, ...more);
      assert.equal(att.code, "2.05");
      assert.ok(
        att.notes.some((note) => /285 pkcs10, 286 pkcs8, 287 csrattrs/.test(note)),
        JSON.stringify(att.notes),
      );
      const sen = await wakeLine("sen", ...args, ...factory, ...more);
      const sren = await wakeLine("sren", ...args, ...more);
      for (const line of [sen, sren]) {
        assert.equal(line.code, "2.01");
        assert.ok(
          line.notes.some((note) => /another success code/.test(note)),
          JSON.stringify(line.notes),
        );
      }
    });
  }

  it("boots and renews by itself", async () => {
    const device = [...args.slice(0, -1), join(folder, "another")];
    const boot = await wakeLine("run", ...device, ...factory);
    assert.deepEqual(
      boot.operations.map(({ operation, code }) => `${operation} ${code}`),
      ["crts 2.05", "att 2.05", "sen 2.01"],
    );
    assert.equal((await wakeLine("sren", ...device)).code, "2.01");
  });

  it("gets a key by skg, is told that there is no skc, and does without discovery", async () => {
    assert.equal((await wakeLine("skg", ...args)).code, "2.01");
    for (const operation of ["skc", "core"]) {
      const { status, stderr } = await torpor(operation, ...args);
      assert.equal(status, 1);
      assert.match(stderr, new RegExp(`refused ${operation} with 4\\.04`));
    }
  });
});
