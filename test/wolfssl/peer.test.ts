/**
 * DTLS 1.3 against servers that are not this core (test/peers): one over wolfSSL, which is the engine's own library, and one over
 * NSS, which shares nothing with it. They answer by themselves or stand as terminators before the development EST server.
 */

import { strict as assert } from "node:assert";
import "../../hosts/node/native.js";
import { clock } from "../../hosts/node/io.js";
import type { AssociationReport } from "../../src/dtls/socket.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { TestCA, type TestIdentity, writeCertificates, writeIdentity } from "../support/certificates.js";
import { newFolder, wakeLine } from "../support/command.js";
import { type EchoOptions, echo } from "../support/echo.js";
import { needsDTLS13 } from "../support/engine.js";
import { type Peer, type ServerFiles, startNss, startWolfssl, startWolfsslExample } from "../support/peers.js";

const text = (words: string): Uint8Array => new TextEncoder().encode(words);

/** In DTLS 1.3: the best cipher suite of each, the groups that it lacks, whether it resumes without a key exchange. */
const LIBRARIES = [
  {
    ...{ name: "wolfSSL", start: startWolfssl, suite: "TLS_AES_128_CCM_8_SHA256", lacks: ["X25519MLKEM768"] },
    ...{ pskAlone: true, example: startWolfsslExample },
  },
  {
    ...{ name: "NSS", start: startNss, suite: "TLS_AES_128_GCM_SHA256", lacks: ["secp384r1", "X25519MLKEM768"] },
    ...{ pskAlone: false, example: undefined },
  },
];

for (const { name, start, suite, lacks, pskAlone, example } of LIBRARIES) {
  describe(`DTLS 1.3 against a server over ${name} that is not this core`, () => {
    const geometry = { slots: 2, slotBytes: 1536 };
    let folder: string;
    let ca: TestCA;
    let device: TestIdentity;
    let key: KeyId;
    let peer: Peer | undefined;
    let est: EstServer | undefined;

    before(async function () {
      needsDTLS13();
      ca = await TestCA.create();
      device = await ca.issue({ subject: "CN=device", usage: "client" });
      key = importKey(0, device.pkcs8);
      folder = newFolder();
      if ((await serve("1.3")) === undefined) {
        this.skip();
      }
      await end();
    });
    after(() => destroyKey(key));

    beforeEach(() => {
      folder = newFolder();
    });
    afterEach(end);

    async function end(): Promise<void> {
      await peer?.stop();
      await est?.close();
      peer = est = undefined;
    }

    /** The files of a server that takes the clients of these CAs. */
    async function serverFiles(clientCAs: readonly Uint8Array[] = [ca.root]): Promise<ServerFiles> {
      const server = await ca.issue({ subject: "CN=peer", addresses: ["127.0.0.1"] });
      return {
        ...writeIdentity(folder, "server", server),
        clientCA: writeCertificates(folder, "client-ca", clientCAs),
      };
    }

    async function serve(version: string, before?: EstServer): Promise<Peer | undefined> {
      const files = await serverFiles(before?.ca.clientCAs);
      peer = await start(files, version, ...(before === undefined ? [] : [String(before.plainPort)]));
      return peer;
    }

    /** The first match in what the server prints. It comes by a pipe, perhaps later than its answer. */
    async function printed(pattern: RegExp): Promise<RegExpExecArray> {
      for (let tries = 0; tries < 500; tries++) {
        const found = pattern.exec(peer!.output());
        if (found !== null) {
          return found;
        }
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return assert.fail(`no ${pattern} in ${peer!.output()}`);
    }

    /** Whether the handshakes were full or resumed, once so many have ended. */
    async function handshakes(count: number): Promise<unknown[]> {
      await printed(new RegExp(`(^handshake [^]*?){${count}}`, "m"));
      return [...peer!.output().matchAll(/^handshake (\w+)/gm)].map(([, kind]) => kind);
    }

    const life = (
      sessions: SessionTable,
      more: Partial<EchoOptions["secure"]> = {},
      conversation: Pick<EchoOptions, "messages" | "pause"> = {},
    ): Promise<AssociationReport> =>
      echo({
        address: "127.0.0.1",
        port: peer!.port,
        secure: { trustAnchors: [ca.root], certificates: device.chain, key, ...more },
        sessions,
        end: "sleep",
        ...conversation,
      });

    const newTable = (): SessionTable =>
      new SessionTable(new Uint8Array(SessionTable.byteLength(geometry)), { ...geometry, clock });

    for (const version of ["1.3", "both"]) {
      it(`makes a full handshake and resumes by ticket, time and again (server with ${version})`, async () => {
        await serve(version);
        const sessions = newTable();
        for (const way of ["full", "ticket", "ticket", "ticket"]) {
          const report = await life(sessions);
          assert.equal(report.way, way);
          assert.equal(report.protocol, "DTLS 1.3");
          assert.equal(report.cipherSuite, suite);
          assert.equal(report.group, "secp256r1");
        }
        assert.deepEqual(await handshakes(4), ["full", "resumed", "resumed", "resumed"]);
      });
    }

    it("falls back to 1.2 where the server has only that", async () => {
      await serve("1.2");
      const sessions = newTable();
      assert.equal((await life(sessions)).protocol, "DTLS 1.2");
      assert.equal((await life(sessions)).way, "session");
    });

    for (const group of lacks) {
      it(`takes the group that the server asks for in place of ${group} (HelloRetryRequest), and resumes so`, async () => {
        await serve("1.3");
        const sessions = newTable();
        for (const way of ["full", "ticket", "ticket"]) {
          const report = await life(sessions, { groups: [group, "secp256r1"] });
          assert.equal(report.way, way);
          assert.equal(report.group, "secp256r1");
        }
        assert.deepEqual(await handshakes(3), ["full", "resumed", "resumed"]);
      });
    }

    it(`${pskAlone ? "resumes" : "is told that the server does not resume"} without a key exchange`, async () => {
      await serve("1.3");
      const sessions = newTable();
      assert.equal((await life(sessions, { psk: "alone" })).way, "full");
      const report = await life(sessions, { psk: "alone" });
      if (pskAlone) {
        assert.equal(report.way, "ticket");
        assert.equal(report.group, undefined);
      } else {
        assert.equal(report.way, "full");
        assert.ok(report.notes.includes("the server did not resume by ticket and made a full handshake"));
      }
    });

    it("goes on with new keys in both directions whenever the server updates them (KeyUpdate)", async () => {
      await serve("1.3");
      const messages = ["before", "update", "one", "two", "update", "three", "four"].map(text);
      await life(newTable(), {}, { messages, pause: 100 });
      await printed(/(^message .*\n(update sent\n)?){7}/m);
      // What a record shows of its epoch: 3, 4 and 5, modulo 4; of the message, and of what the server sent last before it.
      const lines = [...peer!.output().matchAll(/^message .* in epoch (\d) out (\d)$/gm)];
      const epochs = lines.map(([, received, sent]) => `${received} ${sent}`);
      assert.deepEqual([epochs[1], epochs[3], epochs[6]], ["3 3", "0 0", "1 1"]);
    });

    if (example !== undefined) {
      it("makes a full handshake and resumes by ticket with the example server of the library", async () => {
        peer = await example(await serverFiles(), folder);
        const sessions = newTable();
        for (const way of ["full", "ticket"]) {
          const report = await life(sessions);
          assert.equal(report.way, way);
          assert.equal(report.protocol, "DTLS 1.3");
        }
        await printed(/^SSL reused session$/m);
      });
    }

    for (const host of ["node", "simulator"]) {
      it(`gets CA certificates and enrols through it (${host})`, async () => {
        est = await startEstServer({ dir: `${folder}/est`, plain: 0 });
        await serve("1.3", est);
        const args = [
          ...["--server", `coaps://127.0.0.1:${peer!.port}`, "--engine", "wolfssl", "--state", `${folder}/device`],
          ...["--trust", writeCertificates(folder, "ca", [ca.root]), "--host", host, "--resume", "ticket"],
          ...["--cert", `${folder}/est/factory.pem`, "--key", `${folder}/est/factory.key`],
        ];
        assert.equal((await wakeLine("crts", ...args)).code, "2.05");
        const enrolled = await wakeLine("sen", ...args);
        assert.equal(enrolled.code, "2.04");
        assert.equal(enrolled.protocol, "DTLS 1.3");
        assert.equal(enrolled.way, "ticket");
      });
    }
  });
}
