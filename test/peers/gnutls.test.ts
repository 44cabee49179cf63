/**
 * Against `gnutls-serv`. It has nothing but an echo mode over DTLS, so the messages are not CoAP here: resumption, and
 * the address in the certificate of a server on [::1], are matters of DTLS alone.
 */

import { strict as assert } from "node:assert";
import "../../hosts/node/native.js";
import { clock } from "../../hosts/node/io.js";
import type { AssociationReport } from "../../src/dtls/socket.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { TestCA, type TestIdentity, writeCertificates, writeIdentity } from "../support/certificates.js";
import { newFolder } from "../support/command.js";
import { type EchoOptions, echo } from "../support/echo.js";
import { type Peer, startGnutls } from "../support/peers.js";

describe("a DTLS socket against gnutls-serv", () => {
  const folder = newFolder();
  let ca: TestCA;
  let device: TestIdentity;
  let key: KeyId;
  let peer: Peer | undefined;

  before(async () => {
    ca = await TestCA.create();
    device = await ca.issue({ subject: "CN=device", usage: "client" });
    key = importKey(0, device.pkcs8);
  });
  after(() => destroyKey(key));
  afterEach(() => peer?.stop());

  async function start(address: string, inCertificate: string, options: readonly string[] = []): Promise<void> {
    const server = await ca.issue({ subject: "CN=gnutls-serv", addresses: [inCertificate] });
    const clientCA = writeCertificates(folder, "ca", [ca.root]);
    peer = await startGnutls({ ...writeIdentity(folder, "server", server), clientCA }, address, options);
  }

  const life = (address: string, more: Pick<EchoOptions, "sessions" | "resume"> = {}): Promise<AssociationReport> =>
    echo({
      address,
      port: peer!.port,
      secure: { trustAnchors: [ca.root], certificates: device.chain, key },
      ...more,
    });

  /** By the server's own log: in two handshakes one certificate came, so one was an abbreviated one. */
  function received(): { certificates: number; finished: number } {
    const count = (message: string): number => peer!.output().split(`${message} was received`).length - 1;
    return { certificates: count("CERTIFICATE (11)"), finished: count("FINISHED (20)") };
  }

  const newTable = (slotBytes: number): SessionTable =>
    new SessionTable(new Uint8Array(SessionTable.byteLength({ slots: 2, slotBytes })), { slots: 2, slotBytes, clock });

  for (const [address, spelled] of [
    ["127.0.0.1", "127.0.0.1"],
    ["::1", "::1"],
    ["::1", "0:0:0:0:0:0:0:1"],
  ] as const) {
    it(`connects to ${address}, given as ${spelled}, whose certificate carries that address`, async () => {
      await start(address, address);
      assert.equal((await life(spelled)).way, "full");
    });
  }

  it("refuses a server on [::1] whose certificate carries another address", async () => {
    await start("::1", "::2");
    await assert.rejects(life("::1"), /name or address/);
  });

  it("resumes by session id, which the server confirms", async () => {
    await start("127.0.0.1", "127.0.0.1", ["--debug", "4"]);
    const sessions = newTable(512);
    assert.equal((await life("127.0.0.1", { sessions })).way, "full");
    const report = await life("127.0.0.1", { sessions });
    assert.equal(report.way, "session");
    assert.equal(report.roundTrips, 2);
    assert.deepEqual(received(), { certificates: 1, finished: 2 });
  });

  it("resumes by ticket where asked to, which the server confirms", async () => {
    await start("127.0.0.1", "127.0.0.1", ["--debug", "4"]);
    const sessions = newTable(1536);
    assert.equal((await life("127.0.0.1", { sessions, resume: "ticket" })).way, "full");
    assert.equal((await life("127.0.0.1", { sessions, resume: "ticket" })).way, "ticket");
    assert.deepEqual(received(), { certificates: 1, finished: 2 });
  });
});
