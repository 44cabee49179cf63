/** Tickets of DTLS 1.3 in the ladder of a socket, in virtual time: used once, replaced, and never in the way. */

import { strict as assert } from "node:assert";
import "../../hosts/node/native.js";
import { AssociationReport, DTLSSocket } from "../../src/dtls/socket.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { ServerEngine } from "../../tools/est-server/engine.js";
import { TestCA, type TestIdentity } from "../support/certificates.js";
import { needsDTLS13 } from "../support/engine.js";
import { JoinedNetwork, SERVER } from "../support/joined.js";

describe("tickets of DTLS 1.3 in a socket", () => {
  let ca: TestCA;
  let server: TestIdentity;
  let device: TestIdentity;
  let serverKey: KeyId;
  let deviceKey: KeyId;
  let network: JoinedNetwork;
  let engine: ServerEngine;
  let bytes: Uint8Array;

  before(async () => {
    needsDTLS13();
    ca = await TestCA.create();
    server = await ca.issue({ subject: "CN=est", dnsNames: ["est.example.net"] });
    device = await ca.issue({ subject: "CN=device", usage: "client" });
    serverKey = importKey(0, server.pkcs8);
    deviceKey = importKey(0, device.pkcs8);
  });
  after(() => {
    destroyKey(serverKey);
    destroyKey(deviceKey);
  });

  beforeEach(() => {
    network = new JoinedNetwork();
    engine = newServer();
    network.serve(engine);
    bytes = new Uint8Array(SessionTable.byteLength());
  });
  afterEach(() => {
    network.free();
    engine.free();
  });

  const newServer = (): ServerEngine => new ServerEngine({ trust: [ca.root], key: serverKey, chain: server.chain });

  const table = (commit?: () => void): SessionTable => new SessionTable(bytes, { clock: network.clock, commit });

  /** One wake: a message, its echo, sleep. The error where it failed. */
  async function wake(sessions = table()): Promise<{ report: AssociationReport; error: Error | undefined }> {
    const report = new AssociationReport();
    let error: Error | undefined;
    let isOver = false;
    const buffer = new Uint8Array(100);
    const socket = new DTLSSocket({
      ...{ ...SERVER, host: "est.example.net", socket: { io: network.UDP }, timer: network.time, clock: network.clock },
      secure: { trustAnchors: [ca.root], certificates: device.chain, key: deviceKey, handshakeTimer: 1000 },
      ...{ sessions, report },
      onWritable: () => socket.write(Uint8Array.of(1)),
      onReadable: () => {
        if (socket.read(buffer) !== undefined) {
          socket.sleep(new Uint8Array());
          isOver = true;
        }
      },
      onError: (failure) => {
        error = failure;
        isOver = true;
      },
    });
    for (let second = 0; second < 130 && !isOver; second++) {
      await network.time.advance(1000);
    }
    assert.ok(isOver, "neither answer nor error");
    return { report, error };
  }

  it("takes the ticket out of the table before the first datagram leaves, and puts the new one there", async () => {
    await wake();
    const before = table().get(SERVER)?.data.slice();
    assert.ok(before !== undefined);
    let atFirst: unknown = "nothing sent";
    network.lose = ({ direction }) => {
      if (direction === "out" && atFirst === "nothing sent") {
        atFirst = table().get(SERVER);
      }
      return false;
    };
    const { report } = await wake();
    assert.equal(atFirst, undefined, "there when the hello left");
    assert.equal(report.way, "ticket");
    assert.notDeepEqual(table().get(SERVER)?.data, before);
  });

  // wolfSSL numbers the tickets of a session, and of all that resume it, by one byte.
  it("resumes by one ticket after the other, 300 times", async () => {
    await wake();
    for (let wakes = 1; wakes <= 300; wakes++) {
      const { report, error } = await wake();
      assert.deepEqual([report.way, error], ["ticket", undefined], `wake ${wakes}`);
    }
  });

  it("does not show a ticket that cannot be removed", async () => {
    await wake();
    const { report, error } = await wake(
      table(() => {
        throw new Error("the flash is full");
      }),
    );
    assert.equal(error, undefined);
    assert.equal(report.way, "full");
    assert.match(report.notes.join(), /the flash is full/);
  });

  it("makes a full handshake where the hello with the ticket is swallowed, within the same patience", async () => {
    await wake();
    const started = network.time.now;
    // Hellos with pre_shared_key (41) are longer than the others.
    network.lose = ({ direction, bytes: { length }, at }) =>
      direction === "out" && length > 400 && at < started + 30_000;
    const { report, error } = await wake();
    assert.equal(error, undefined);
    assert.equal(report.way, "full");
    assert.match(report.notes.join(), /resuming by ticket failed/);
    network.lose = () => false;
    assert.equal((await wake()).report.way, "ticket");
  });

  it("makes a full handshake with a server that has lost its keys, and resumes by its new ticket", async () => {
    await wake();
    engine.free();
    engine = newServer();
    network.serve(engine);
    const { report } = await wake();
    assert.equal(report.way, "full");
    assert.match(report.notes.join(), /did not resume by ticket/);
    assert.equal((await wake()).report.way, "ticket");
  });

  it("does not use a ticket past its lifetime", async () => {
    await wake();
    await network.time.advance(86_400_000 + 1000);
    const { report } = await wake();
    assert.equal(report.way, "full");
  });
});
