/** The operations and options of the command line against the development server, and what openssl says of the results. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DeviceState } from "../../hosts/node/storage.js";
import { parseCertificate } from "../../src/pki/certificate.js";
import { element } from "../../src/pki/der-writer.js";
import { type EstServer, type EstServerOptions, startEstServer } from "../../tools/est-server/server.js";
import { newFolder, torpor, type WakeLine, wakeLine } from "../support/command.js";
import { fromHex } from "../vectors/rfc9148.js";

function openssl(args: readonly string[], input?: Uint8Array): string {
  return execFileSync("openssl", [...args], { input, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
}

describe("the command line and the development server", () => {
  const folder = newFolder();
  const servers: EstServer[] = [];
  let main: EstServer;
  let state: string;

  before(async () => {
    main = await startEstServer({ dir: folder });
  });
  after(() => main.close());

  beforeEach(() => {
    state = join(newFolder(), "device");
  });
  afterEach(async () => {
    for (const server of servers.splice(0)) {
      await server.close();
    }
  });

  /** Another server of the same CA. */
  async function serve(options: EstServerOptions): Promise<EstServer> {
    const server = await startEstServer({ ca: main.ca, ...options });
    servers.push(server);
    return server;
  }

  const factory = ["--cert", join(folder, "factory.pem"), "--key", join(folder, "factory.key")];
  const trust = ["--trust", join(folder, "ca.pem")];
  const to = (server: EstServer, label = ""): string[] => [
    ...["--server", `coaps://127.0.0.1:${server.port}${label}`, "--state", state],
  ];

  /** DER of the enrolled certificate. */
  function issued(): Uint8Array {
    const record = new DeviceState(state).open("torpor").read("identity")!;
    return new Uint8Array(record).subarray(15, 15 + new DataView(record).getUint16(13));
  }

  const keys = (): string[] => readdirSync(join(state, "flash", "keys"));

  /** openssl verifies what the device has, down from the root. */
  function assertVerified(): void {
    const file = join(newFolder(), "issued.pem");
    writeFileSync(file, openssl(["x509", "-inform", "DER"], issued()));
    const issuing = join(newFolder(), "issuing.pem");
    writeFileSync(issuing, openssl(["x509", "-inform", "DER"], main.ca.issuing));
    const text = openssl(["verify", "-CAfile", join(folder, "ca.pem"), "-untrusted", issuing, file]);
    assert.match(text, /issued\.pem: OK/);
  }

  describe("with server-side key generation", () => {
    for (const operation of ["skg", "skc"] as const) {
      it(`takes a key and its certificate by ${operation}, keeps the key in its key storage alone, and uses it`, async () => {
        const out = join(newFolder(), "out");
        const line = await wakeLine(operation, ...to(main), ...trust, ...factory, "--out", out);
        assert.deepEqual([line.code, line.operations.map((each) => each.operation)], ["2.04", [operation]]);
        assertVerified();
        assert.equal(keys().length, 1);
        // The answer that is kept is the certificate, never the key.
        const text =
          operation === "skg"
            ? openssl(["pkcs7", "-inform", "DER", "-print_certs"], readFileSync(out))
            : openssl(["x509", "-inform", "DER"], readFileSync(out));
        assert.match(text, /BEGIN CERTIFICATE/);
        assert.equal((await wakeLine("crts", ...to(main), ...trust)).code, "2.05");
        assert.equal((await wakeLine("sren", ...to(main), ...trust)).code, "2.04");
        assertVerified();
      });
    }

    it("is answered with what openssl reads as a PKCS #8 key of that certificate", async () => {
      const csr = join(newFolder(), "csr.der");
      const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null"];
      openssl(["req", "-new", ...curve, "-subj", "/CN=skg", "-outform", "DER", "-out", csr]);
      const { certificate, privateKey } = await main.ca.issueWithKey(readFileSync(csr), { lifetime: 60 });
      const pem = openssl(["pkcs8", "-inform", "DER", "-nocrypt"], privateKey);
      const own = openssl(["pkey", "-pubout"], Buffer.from(pem));
      assert.equal(openssl(["x509", "-inform", "DER", "-noout", "-pubkey"], certificate), own);
    });
  });

  describe("with discovery", () => {
    it("shows where the server has what", async () => {
      const { status, stdout, stderr } = await torpor("core", ...to(main), ...trust, ...factory);
      assert.equal(status, 0, stderr);
      assert.match(stdout, /^crts: \/\.well-known\/est\/crts, Content-Format 281 or 287$/m);
      const line = await wakeLine("core", ...to(main), ...trust, ...factory);
      assert.deepEqual(
        line.resources?.map(({ name }) => name),
        ["crts", "sen", "sren", "att", "skg", "skc"],
      );
    });

    it("goes to the paths that it finds", async () => {
      const server = await serve({ root: "/est" });
      const line = await wakeLine("sen", ...to(server), ...trust, ...factory, "--discover");
      assert.deepEqual(
        line.operations.map(({ operation }) => operation),
        ["core", "sen"],
      );
      assertVerified();
    });

    it("goes to another port that absolute links name", async () => {
      const elsewhere = await serve({ root: "/est" });
      const server = await serve({ root: `coaps://127.0.0.1:${elsewhere.port}/est` });
      const line = await wakeLine("crts", ...to(server), ...trust, ...factory, "--discover");
      assert.equal(line.code, "2.05");
      assert.deepEqual([server.stats.requests, elsewhere.stats.requests], [1, 1]);
    });

    it("says where to go where the resources are on another host", async () => {
      const server = await serve({ root: "coaps://est.example:5684/est" });
      const { status, stderr } = await torpor("crts", ...to(server), ...trust, ...factory, "--discover");
      assert.equal(status, 1);
      assert.match(stderr, /on another host: connect to est\.example instead/);
    });
  });

  it("uses the label of the server's URI, and is refused under one that is not there", async () => {
    const server = await serve({ labels: ["sensors"] });
    assert.equal((await wakeLine("run", ...to(server, "/sensors"), ...trust, ...factory)).code, "2.04");
    const { stderr } = await torpor("crts", ...to(server, "/actuators"), ...trust, ...factory);
    assert.match(stderr, /refused crts with 4\.04/);
  });

  describe("with a proof of possession", () => {
    it("carries the tls-unique of a full handshake, of a resumed one by each way, and of a restored association", async () => {
      const server = await serve({ attributes: "proof-of-possession" });
      const boot = await wakeLine("run", ...to(server), ...trust, ...factory);
      assert.deepEqual([boot.way, boot.code], ["full", "2.04"]);
      const ways: unknown[] = [];
      for (const resume of ["context", "session", "ticket"]) {
        const more = [...trust, "--resume", resume];
        await wakeLine("crts", ...to(server), ...more);
        const { way, code } = await wakeLine("sren", ...to(server), ...more);
        ways.push([way, code]);
      }
      assert.deepEqual(ways, [
        ["context", "2.04"],
        ["session", "2.04"],
        ["ticket", "2.04"],
      ]);
    });

    it("makes the request anew where the connection was lost under it", async () => {
      const server = await serve({ attributes: "proof-of-possession" });
      await wakeLine("run", ...to(server), ...trust, ...factory);
      await wakeLine("crts", ...to(server), ...trust);
      server.forget(); // the association that the device restores is not there any more
      const line = await wakeLine("sren", ...to(server), ...trust, "--context-patience", "0.5");
      assert.deepEqual([line.way, line.code], ["session", "2.04"]);
    });
  });

  describe("with a server that has no time", () => {
    it("sends the same request again after 5.03 and Max-Age, and keeps the old certificate until then", async () => {
      const server = await serve({ busy: 1, busyFor: 2 });
      await wakeLine("run", ...to(main), ...trust, ...factory);
      const before = issued();
      const { status, stderr } = await torpor("sren", ...to(server), ...trust);
      assert.equal(status, 1);
      assert.match(stderr, /5\.03 Service Unavailable: "busy"; try again in 2 s/);
      assert.deepEqual(issued(), before);
      assert.equal(keys().length, 2);
      const pending = new DeviceState(state).open("torpor").read("pending")!;
      const csr = new Uint8Array(pending).subarray(21);
      assert.match(
        openssl(["req", "-inform", "DER", "-verify", "-noout", "-text"], csr),
        /verif\w+ OK|CN = torpor-dev/i,
      );
      const shown = JSON.parse((await torpor("status", "--state", state, "--json")).stdout) as { pending: string };
      assert.equal(shown.pending, "sren");
      assert.equal((await wakeLine("sren", ...to(server), ...trust)).code, "2.04");
      // The certificate is for the key of the first request: it was sent again, byte for byte.
      const point = Buffer.from(parseCertificate(issued()).publicKey).toString("hex");
      assert.ok(Buffer.from(csr).toString("hex").includes(point));
      assert.equal(keys().length, 1);
      assert.equal(new DeviceState(state).open("torpor").read("pending"), undefined);
    });

    it("waits for an answer that comes separately, after an empty acknowledgement", async () => {
      const server = await serve({ delay: 1500 });
      assert.equal((await wakeLine("run", ...to(server), ...trust, ...factory)).code, "2.04");
    });

    it("does not come back before Max-Age is over when it does what is due, and says when it will", async () => {
      const server = await serve({ busy: 1, busyFor: 3 });
      const { status, stderr } = await torpor("run", ...to(server), ...trust, ...factory);
      assert.equal(status, 1);
      assert.match(stderr, /refused sen with 5\.03/);
      const early = await wakeLine("run", ...to(server), ...trust, ...factory);
      assert.equal(early.code, null);
      assert.ok(early.schedule!.sleep >= 1 && early.schedule!.sleep <= 4, JSON.stringify(early.schedule));
      assert.match((await torpor("status", "--state", state)).stdout, /last error +the server refused sen with 5\.03/);
      await new Promise((resolve) => setTimeout(resolve, 3500));
      const line = await wakeLine("run", ...to(server), ...trust, ...factory);
      assert.equal(line.code, "2.04");
      assert.equal(line.schedule!.next, "renewal");
      assert.doesNotMatch((await torpor("status", "--state", state)).stdout, /last error/);
    });
  });

  describe("with CSR attributes", () => {
    it("makes the key that the server wishes, and the one that it is told to", async () => {
      const server = await serve({
        wishes: element(0x30, element(0x30, fromHex("06072a8648ce3d0201"), element(0x31, fromHex("06052b81040022")))),
      });
      await wakeLine("run", ...to(server), ...trust, ...factory);
      assert.equal(parseCertificate(issued()).publicKey.length, 97);
      assertVerified();
      // The next handshake is signed with it.
      assert.equal((await wakeLine("crts", ...to(server), ...trust)).way, "full");
      state = join(newFolder(), "device");
      const none = await serve({ attributes: "none" });
      await wakeLine("run", ...to(none), ...trust, ...factory, "--p384");
      assert.equal(parseCertificate(issued()).publicKey.length, 97);
      assert.match((await torpor("status", "--state", state)).stdout, /P-384/);
    });

    it("asks for the extensions that the server wishes, as openssl sees them in the request", async () => {
      const san = element(
        0x30,
        fromHex("0603551d11"),
        element(0x04, element(0x30, element(0x82, Buffer.from("dev.example")))),
      );
      const server = await serve({
        busy: 1,
        busyFor: 1,
        wishes: element(0x30, element(0x30, fromHex("06092a864886f70d01090e"), element(0x31, element(0x30, san)))),
      });
      await wakeLine("att", ...to(server), ...trust, ...factory);
      assert.equal((await torpor("sen", ...to(server), ...trust, ...factory)).status, 1);
      const csr = new Uint8Array(new DeviceState(state).open("torpor").read("pending")!).subarray(21);
      assert.match(openssl(["req", "-inform", "DER", "-noout", "-text"], csr), /DNS:dev\.example/);
      await wakeLine("sen", ...to(server), ...trust, ...factory);
      assert.match(openssl(["x509", "-inform", "DER", "-noout", "-text"], issued()), /DNS:dev\.example/);
      // A renewal keeps the name, which the server demands byte for byte.
      assert.equal((await wakeLine("sren", ...to(server), ...trust)).code, "2.04");
      assert.match(openssl(["x509", "-inform", "DER", "-noout", "-text"], issued()), /DNS:dev\.example/);
    });
  });

  it("renews with a new key, or with the same one where it is told to", async () => {
    await wakeLine("run", ...to(main), ...trust, ...factory);
    const point = () => Buffer.from(parseCertificate(issued()).publicKey).toString("hex");
    const first = point();
    await wakeLine("sren", ...to(main), ...trust, "--same-key");
    assert.equal(point(), first);
    assert.equal(keys().length, 1);
    await wakeLine("sren", ...to(main), ...trust);
    assert.notEqual(point(), first);
    assert.equal(keys().length, 1);
  });

  it("follows a rollover of the CA's root key from before, and trusts the new root from then on", async () => {
    await wakeLine("run", ...to(main), ...trust, ...factory);
    const next = await main.ca.rollOver();
    const server = await startEstServer({ ca: next });
    servers.push(server);
    const port = ["--server", `coaps://127.0.0.1:${server.port}`, "--state", state];
    // By NewWithOld, for the device knows the old root only.
    assert.equal((await wakeLine("crts", ...port)).code, "2.05");
    const anchors = (JSON.parse((await torpor("status", "--state", state, "--json")).stdout) as { anchors: object[] })
      .anchors;
    assert.equal(anchors.length, 2, "the new root, and the old key for which it vouches");
    assert.equal((await wakeLine("sren", ...port)).code, "2.04");
    // A server whose certificate is still of the old root is verified by OldWithNew.
    const identity = await main.ca.issueServer({ dnsNames: [], addresses: ["127.0.0.1"] });
    const late = await startEstServer({ ca: next, identity });
    servers.push(late);
    assert.equal((await wakeLine("crts", "--server", `coaps://127.0.0.1:${late.port}`, "--state", state)).code, "2.05");
  });

  describe("about the server's role", () => {
    const notRA = async () => {
      const { TestCA, writeCertificates } = await import("../support/certificates.js");
      const ca = await TestCA.create();
      const identity = await ca.issue({ subject: "CN=no ra", addresses: ["127.0.0.1"] });
      return { identity, trust: ["--trust", writeCertificates(folder, "no-ra", [ca.root])] };
    };

    it("refuses one that is verified by --trust and is no registration authority, where it is told to", async () => {
      const { identity, trust: other } = await notRA();
      const server = await serve({ identity: { chain: identity.chain, keyPkcs8: identity.pkcs8 } });
      const { status, stderr } = await torpor("run", ...to(server), ...other, ...factory, "--demand-ra");
      assert.equal(status, 1);
      assert.match(stderr, /id-kp-cmcRA, RFC 9148 section 9\.2.*refused/);
      assert.equal(server.stats.issued, 0);
      const line = await wakeLine("run", ...to(main), ...trust, ...factory, "--demand-ra", "--state", `${state}2`);
      assert.equal(line.code, "2.04");
    });

    it("looks at its certificate also where a session could be resumed, which shows none", async () => {
      const plain = await main.ca.issueServer({ dnsNames: [], addresses: ["127.0.0.1"], role: "server" });
      const server = await serve({ identity: plain });
      await wakeLine("crts", ...to(server), ...trust, ...factory);
      assert.equal((await wakeLine("crts", ...to(server), ...trust, ...factory)).way, "context");
      const { status, stderr } = await torpor("crts", ...to(server), ...trust, ...factory, "--demand-ra");
      assert.equal(status, 1);
      assert.match(stderr, /id-kp-cmcRA/);
    });

    it("refuses one whose own certificate does not lead to the CA certificates that it gives, and keeps nothing", async () => {
      const { identity, trust: other } = await notRA();
      const server = await serve({ identity: { chain: identity.chain, keyPkcs8: identity.pkcs8 } });
      const { status, stderr } = await torpor("run", ...to(server), ...other, ...factory);
      assert.equal(status, 1);
      assert.match(stderr, /does not lead to the CA certificates that it gave \(RFC 9148 section 9\.1\)/);
      assert.equal(server.stats.issued, 0);
      assert.equal(new DeviceState(state).open("torpor").read("trust"), undefined);
    });

    it("notes one that is no registration authority, and goes on", async () => {
      const { identity, trust: other } = await notRA();
      const server = await serve({ identity: { chain: identity.chain, keyPkcs8: identity.pkcs8 } });
      const { stderr } = await torpor("run", ...to(server), ...other, ...factory, "--json");
      // It ends there for the other reason; that the role alone is no reason shows where both are of one CA.
      assert.doesNotMatch(stderr, /cmcRA/);
      const plain = await main.ca.issueServer({ dnsNames: [], addresses: ["127.0.0.1"], role: "server" });
      const same = await serve({ identity: plain });
      const line = await wakeLine("run", ...to(same), ...trust, ...factory, "--state", `${state}2`);
      assert.equal(line.code, "2.04");
      assert.ok(
        line.notes.some((note) => /id-kp-cmcRA/.test(note)),
        JSON.stringify(line.notes),
      );
    });
  });

  describe("about a device", () => {
    it("tells who it is, what is due when, and forgets all of it by reset", async () => {
      await wakeLine("run", ...to(main), ...trust, ...factory);
      const { stdout } = await torpor("status", "--state", state);
      assert.match(stdout, /^identity +.*CN=torpor-dev, P-256$/m);
      const serial = openssl(["x509", "-inform", "DER", "-noout", "-serial"], issued()).trim().split("=")[1]!;
      assert.match(stdout, new RegExp(`^serial +${serial}$`, "im"));
      assert.match(stdout, /^valid +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ to /m);
      assert.match(stdout, /^trusts +CN=Torpor development root CA, until /m);
      assert.match(stdout, /^due +renewal: at .*, in (5[6-9]|6[0-3]) days$/m);
      const finished = await torpor("reset", "--state", state);
      assert.equal(finished.status, 0, finished.stderr);
      assert.deepEqual(
        readdirSync(state).filter((name) => name !== "lock"),
        [],
      );
      assert.match(
        (await torpor("status", "--state", state)).stdout,
        /^identity +not enrolled\ndue +the first enrolment/,
      );
      assert.equal((await wakeLine("run", ...to(main), ...trust, ...factory)).code, "2.04");
    });

    it("needs --state for each of the operations that connect to nobody, and a device there", async () => {
      for (const operation of ["status", "reset", "sessions"]) {
        assert.equal((await torpor(operation)).status, 2);
        assert.equal((await torpor(operation, "--state", join(folder, "nobody"))).status, 1);
      }
    });

    it("goes back to the factory identity where its certificate has expired", async () => {
      const brief = await serve({ lifetime: 1 });
      await wakeLine("run", ...to(brief), ...trust, ...factory);
      const first = Buffer.from(issued());
      await new Promise((resolve) => setTimeout(resolve, 2100));
      const line: WakeLine = await wakeLine("run", ...to(main), ...trust, ...factory);
      assert.deepEqual(
        line.operations.map(({ operation }) => operation),
        ["crts", "att", "sen"],
      );
      assert.notDeepEqual(Buffer.from(issued()), first);
      assert.equal(keys().length, 1);
    });
  });

  it("does all of it in XS, with a device's memory: proof of possession, renewal, the server's key, discovery", async () => {
    const server = await serve({ attributes: "proof-of-possession" });
    const device = [...to(server), ...trust, "--host", "simulator", "--block", "512"];
    const boot = await wakeLine("run", ...device, ...factory);
    assert.deepEqual([boot.code, boot.schedule?.next], ["2.04", "renewal"]);
    const idle = await wakeLine("run", ...device, ...factory);
    assert.deepEqual([idle.code, idle.schedule?.next], [null, "renewal"]);
    const found = await wakeLine("core", ...device);
    assert.equal(found.resources?.length, 6);
    for (const operation of ["att", "sren", "skg", "skc"]) {
      const line = await wakeLine(operation, ...device);
      assert.equal(line.code, operation === "att" ? "2.05" : "2.04", operation);
    }
    assertVerified();
    assert.equal(keys().length, 1);
    assert.match((await torpor("status", "--state", state)).stdout, /^due +renewal/m);
  });

  it("does without what a server does otherwise, as kipuka does, and says so", async () => {
    const server = await serve({ misbehave: "kipuka" });
    const line = await wakeLine("run", ...to(server), ...trust, ...factory);
    assert.equal(line.code, "2.01");
    assert.equal(line.notes.filter((note) => /kipuka/.test(note)).length, 2, JSON.stringify(line.notes));
    assert.equal((await wakeLine("sren", ...to(server), ...trust)).code, "2.01");
    assert.equal((await wakeLine("skg", ...to(server), ...trust)).code, "2.01");
  });
});
