/**
 * Against a server over wolfSSL, the one DTLS library beside mbedTLS with connection IDs (RFC 9146) for DTLS 1.2 that
 * can be had from Debian. It sends back every message: what is shown here are matters of DTLS alone.
 */

import { strict as assert } from "node:assert";
import { setTimeout as delay } from "node:timers/promises";
import "../../hosts/node/native.js";
import { clock } from "../../hosts/node/io.js";
import type { AssociationReport } from "../../src/dtls/socket.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { TestCA, type TestIdentity, writeCertificates, writeIdentity } from "../support/certificates.js";
import { newFolder } from "../support/command.js";
import { type EchoOptions, echo } from "../support/echo.js";
import { type Peer, startWolfssl } from "../support/peers.js";

const NO_HANDSHAKE = { bytesOut: 0, bytesIn: 0, datagramsOut: 0, datagramsIn: 0 };

describe("a DTLS socket against wolfSSL, which has connection IDs", () => {
  const folder = newFolder();
  const geometry = { slots: 2, slotBytes: 512 };
  let ca: TestCA;
  let device: TestIdentity;
  let key: KeyId;
  let peer: Peer;
  let sessions: SessionTable;

  before(async () => {
    ca = await TestCA.create();
    device = await ca.issue({ subject: "CN=device", usage: "client" });
    key = importKey(0, device.pkcs8);
  });
  after(() => destroyKey(key));

  beforeEach(async function () {
    const server = await ca.issue({ subject: "CN=wolfssl", addresses: ["127.0.0.1"] });
    const clientCA = writeCertificates(folder, "ca", [ca.root]);
    const started = await startWolfssl({ ...writeIdentity(folder, "server", server), clientCA });
    if (started === undefined) {
      this.skip();
    }
    peer = started;
    sessions = new SessionTable(new Uint8Array(SessionTable.byteLength(geometry)), { ...geometry, clock });
  });
  afterEach(() => peer?.stop());

  const life = (end: EchoOptions["end"], connectionIdLength = 0): Promise<AssociationReport> =>
    echo({
      address: "127.0.0.1",
      port: peer.port,
      secure: { trustAnchors: [ca.root], certificates: device.chain, key, connectionIdLength },
      sessions,
      end: end!,
    });

  /** What the server wrote, once that has come from it with the lines of so many messages; each life sends one. */
  async function written(messages: number): Promise<string> {
    while (peer.output().split("\nmessage ").length <= messages) {
      await delay(5);
    }
    return peer.output();
  }

  const handshakes = (output: string): unknown[] => [...output.matchAll(/^handshake (\w+)/gm)].map(([, kind]) => kind);

  for (const length of [0, 8]) {
    it(`goes on after each sleep from another port without a handshake byte, with a client's ID of ${length} bytes`, async () => {
      assert.equal((await life("sleep", length)).way, "full");
      for (let wake = 1; wake <= 3; wake++) {
        const report = await life("sleep", length);
        assert.equal(report.way, "context");
        assert.deepEqual({ ...report.handshake }, NO_HANDSHAKE);
        assert.equal(report.roundTrips, 0);
        assert.deepEqual([report.application.datagramsOut, report.application.datagramsIn], [1, 1]);
        assert.deepEqual(report.notes, []);
      }
      const output = await written(4);
      assert.match(output, new RegExp(`^handshake full \\S+ cid in 8 out ${length}$`, "m"));
      assert.deepEqual(handshakes(output), ["full"]);
      const ports = [...output.matchAll(/^message 100 from port (\d+)/gm)].map(([, port]) => port);
      assert.equal(new Set(ports).size, 4);
      assert.equal(output.split(" moved").length - 1, 3);
    });
  }

  it("resumes by session id after a context that was used, and goes on with the new one, in the same life", async () => {
    const ways: unknown[] = [];
    for (const end of ["sleep", "close", "sleep", "sleep", "close", "close", "close"] as const) {
      ways.push((await life(end)).way);
    }
    assert.deepEqual(ways, ["full", "context", "session", "context", "context", "session", "session"]);
    assert.deepEqual(handshakes(await written(7)), ["full", "resumed", "resumed", "resumed"]);
  });

  it("resumes by session id, which the server confirms, where contexts are not wanted", async () => {
    const secure = { trustAnchors: [ca.root], certificates: device.chain, key };
    for (const way of ["full", "session", "session"]) {
      const report = await echo({
        ...{ address: "127.0.0.1", port: peer.port, secure, sessions },
        ...{ resume: "session", end: "sleep" },
      });
      assert.equal(report.way, way);
    }
    const output = await written(3);
    assert.deepEqual(handshakes(output), ["full", "resumed", "resumed"]);
    assert.doesNotMatch(output, /cid in [1-9]/);
  });
});
