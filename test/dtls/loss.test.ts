/**
 * A device's life over a bad network: CoAP requests over the DTLS ladder, the real client and server engines joined in
 * one process, in virtual time, with datagrams lost, doubled and late each way, the same ones for the same seed.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { MemoryState } from "../../hosts/node/storage.js";
import { CoAPClient, type SocketOptions } from "../../src/coap/client.js";
import { CoAPError } from "../../src/coap/error.js";
import { Code } from "../../src/coap/message.js";
import { DTLSError } from "../../src/dtls/engine.js";
import { ResumptionMemory } from "../../src/dtls/resumption.js";
import { AssociationReport, DTLSSocket, type DTLSSocketOptions } from "../../src/dtls/socket.js";
import { TimeoutError } from "../../src/errors.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { CoAPServer } from "../../tools/est-server/coap-server.js";
import { ServerEngine } from "../../tools/est-server/engine.js";
import { TestCA, type TestIdentity } from "../support/certificates.js";
import { ENGINE } from "../support/engine.js";
import { ContentType, JoinedNetwork, SERVER, serveCoAP } from "../support/joined.js";

const SEEDS = Number(process.env.TORPOR_SEEDS ?? 500);
/** Wakes of one life: the first has nothing saved, the others what the one before left. */
const WAKES = 4;
/** Milliseconds: a handshake and one more after a failed resumption, a silent context, and a request with its blocks. */
const BOUND = 4000 + 60_000 + 8 * (93_000 + 60_000);

/** What a wake over this network may end with: the documented errors of the client and the socket. */
const DOCUMENTED = [TimeoutError, CoAPError, DTLSError];

describe("a device on a bad network", () => {
  let ca: TestCA;
  let server: TestIdentity;
  let device: TestIdentity;
  let serverKey: KeyId;
  let deviceKey: KeyId;

  before(async () => {
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

  it(`ends each request with its own answer or a documented error, in bounded time, over ${SEEDS} seeds`, async function () {
    this.timeout(0);
    const ways: Record<string, number> = {};
    let answered = 0;
    let failed = 0;
    let repeated = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const network = new JoinedNetwork({ seed });
      const engine = new ServerEngine({ trust: [ca.root], key: serverKey, chain: server.chain });
      network.serve(engine);
      network.faults = { loss: 0.3, doubling: 0.3, reordering: 0.3 };
      const coap = serveEcho(network);
      const bytes = new Uint8Array(SessionTable.byteLength());
      const memory = new ResumptionMemory(new MemoryState().open("memory"), network.clock);
      for (let wake = 0; wake < WAKES; wake++) {
        const sessions = new SessionTable(bytes, { clock: network.clock });
        const report = new AssociationReport();
        const socket: DTLSSocketOptions & { io: typeof DTLSSocket } = {
          io: DTLSSocket,
          ...SERVER,
          host: "est.example.net",
          socket: { io: network.UDP },
          timer: network.time,
          clock: network.clock,
          secure: { trustAnchors: [ca.root], certificates: device.chain, key: deviceKey, handshakeTimer: 1000 },
          sessions,
          memory,
          report,
        };
        const client = new CoAPClient({
          socket: socket as SocketOptions & typeof socket,
          timer: network.time,
          blockSize: 64,
        });
        // A body in blocks, each way; what comes back tells seed and wake.
        const payload = Uint8Array.from(Buffer.from(`seed ${seed}, wake ${wake} `.repeat(8)));
        let outcome: string | undefined;
        client.request({ method: "POST", path: "/echo", payload }).then(
          (response) => {
            assert.equal(response.code, Code.CHANGED);
            assert.deepEqual(Buffer.from(response.payload), Buffer.from(payload), `seed ${seed}, wake ${wake}`);
            repeated += response.repeated ? 1 : 0;
            outcome = "answered";
          },
          (error: Error) => {
            assert.ok(
              DOCUMENTED.some((kind) => error instanceof kind),
              `seed ${seed}, wake ${wake}: ${error.stack}`,
            );
            outcome = "failed";
          },
        );
        const end = network.time.now + BOUND;
        while (outcome === undefined && network.time.now < end) {
          await network.time.advance(1000);
        }
        assert.ok(outcome !== undefined, `seed ${seed}, wake ${wake}: neither answer nor error`);
        if (outcome === "answered") answered++;
        else failed++;
        ways[report.way ?? "none"] = (ways[report.way ?? "none"] ?? 0) + 1;
        client.sleep();
        // Now and then the server forgets associations, or the device loses its memory of the wake by a crash.
        if (seed % 5 === 0) network.forget();
        await network.time.advance(10_000);
        assert.equal(network.open.size, 0);
      }
      assertNoNonceTwice(network, seed);
      coap.close();
      network.free();
      engine.free();
    }
    const all = SEEDS * WAKES;
    console.log(
      `      ${all} wakes: ${answered} answered (${repeated} sent twice), ${failed} failed; ${JSON.stringify(ways)}`,
    );
    assert.ok(answered > all / 2, `${answered} of ${all} answered`);
    // Over wolfSSL no association is saved, and DTLS 1.3 resumes by tickets.
    for (const way of ENGINE === "wolfssl" ? ["full", "ticket"] : ["full", "session", "context"]) {
      assert.ok((ways[way] ?? 0) > all / 50, `${way}: ${ways[way]}`);
    }
  });

  /** No two different records of the client under one connection ID have the same epoch and sequence number. */
  function assertNoNonceTwice(network: JoinedNetwork, seed: number): void {
    const seen = new Map<string, string>();
    for (const { direction, bytes } of network.trace) {
      if (direction === "out" && bytes[0] === ContentType.CONNECTION_ID) {
        const record = Buffer.from(bytes).toString("hex");
        const nonce = record.slice(2 * 3, 2 * 15);
        assert.equal(seen.get(nonce) ?? record, record, `seed ${seed}: nonce ${nonce} twice`);
        seen.set(nonce, record);
      }
    }
  }

  /** A CoAP server that gives back what it gets, for each association its own stream. */
  function serveEcho(network: JoinedNetwork): CoAPServer<{ send(datagram: Uint8Array): void }> {
    const coap = new CoAPServer<{ send(datagram: Uint8Array): void }>({
      handler: ({ payload }) => ({ code: "2.04", payload, contentFormat: 42 }),
      blockSize: 64,
    });
    serveCoAP(network, coap, (engine) => ({ send: (datagram) => network.send(engine, datagram) }));
    return coap;
  }
});
