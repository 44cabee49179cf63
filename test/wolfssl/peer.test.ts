/**
 * DTLS 1.3 against a server that is not this core: a small server over wolfSSL (test/peers/wolfssl), which answers by itself or
 * stands as a terminator before the development EST server.
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
import { type Peer, startWolfssl } from "../support/peers.js";

describe("DTLS 1.3 against a server over wolfSSL that is not this core", () => {
  const folder = newFolder();
  const geometry = { slots: 2, slotBytes: 512 };
  let ca: TestCA;
  let device: TestIdentity;
  let key: KeyId;
  let peer: Peer | undefined;
  let est: EstServer | undefined;

  before(async () => {
    needsDTLS13();
    ca = await TestCA.create();
    device = await ca.issue({ subject: "CN=device", usage: "client" });
    key = importKey(0, device.pkcs8);
  });
  after(() => destroyKey(key));

  afterEach(async () => {
    await peer?.stop();
    await est?.close();
    peer = est = undefined;
  });

  async function serve(...more: string[]): Promise<Peer> {
    const server = await ca.issue({ subject: "CN=wolfssl", addresses: ["127.0.0.1"] });
    const clientCA = writeCertificates(folder, "ca", [ca.root]);
    peer = await startWolfssl({ ...writeIdentity(folder, "server", server), clientCA }, ...more);
    assert.ok(peer !== undefined, "no wolfSSL here");
    return peer;
  }

  const life = (sessions: SessionTable, more: Partial<EchoOptions["secure"]> = {}): Promise<AssociationReport> =>
    echo({
      address: "127.0.0.1",
      port: peer!.port,
      secure: { trustAnchors: [ca.root], certificates: device.chain, key, ...more },
      sessions,
      end: "sleep",
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
        assert.equal(report.cipherSuite, "TLS_AES_128_CCM_8_SHA256");
      }
    });
  }

  it("falls back to 1.2 where the server has only that", async () => {
    await serve("1.2");
    const sessions = newTable();
    assert.equal((await life(sessions)).protocol, "DTLS 1.2");
    assert.equal((await life(sessions)).way, "session");
  });

  it("uses a connection ID where it is told to", async () => {
    const { output } = await serve("1.3");
    const report = await life(newTable(), { connectionIdLength: 4 });
    assert.equal(report.overhead, 14 + 8);
    // What the server prints comes by a pipe, perhaps later than its answer.
    for (let tries = 0; !output().includes("handshake") && tries < 500; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.match(output(), /^handshake full \S+ cid in 8 out 4$/m);
  });

  it("gets CA certificates and enrols through it", async () => {
    est = await startEstServer({ dir: `${folder}/est`, plain: 0 });
    const clientCA = writeCertificates(folder, "est-ca", est.ca.clientCAs);
    const server = await ca.issue({ subject: "CN=wolfssl", addresses: ["127.0.0.1"] });
    peer = await startWolfssl({ ...writeIdentity(folder, "server", server), clientCA }, "1.3", String(est.plainPort));
    const args = [
      ...["--server", `coaps://127.0.0.1:${peer!.port}`, "--engine", "wolfssl", "--state", `${folder}/device`],
      ...["--trust", writeCertificates(folder, "ca", [ca.root])],
      ...["--cert", `${folder}/est/factory.pem`, "--key", `${folder}/est/factory.key`],
    ];
    assert.equal((await wakeLine("crts", ...args)).code, "2.05");
    const enrolled = await wakeLine("sen", ...args);
    assert.equal(enrolled.code, "2.04");
    assert.equal(enrolled.protocol, "DTLS 1.3");
    assert.equal(enrolled.way, "ticket");
  });
});
