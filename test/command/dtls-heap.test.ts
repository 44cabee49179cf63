/**
 * What bad order in a handshake may cost the device (RFC 6347 sections 4.2.3 and 4.2.4): it keeps messages that come
 * too early, up to MBEDTLS_SSL_DTLS_MAX_BUFFERING bytes of them. In the simulator, whose mbedTLS has 32 KB as a device's.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { randomFillSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readPEM } from "../../hosts/node/pem.js";
import type { WakeResult } from "../../hosts/node/result.js";
import { simulate, WakeError } from "../../hosts/node/simulator.js";
import { HandshakeRecords } from "../../tools/est-server/handshake-records.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { Relay } from "../../tools/relay.js";
import { newFolder } from "../support/command.js";

/** Bytes at the peak, as docs/memory.md has them. */
const IN_ORDER_MAX = 26 * 1024;
const HOSTILE_MAX = 32 * 1024;
/** MBEDTLS_SSL_DTLS_MAX_BUFFERING of src/dtls/mbedtls/config.h. */
const BUFFERING = 4096;

/**
 * Handshake types and sequence numbers of what follows a server's hello (1) and certificate (2), which come whole: the
 * device verifies them, at which its heap is largest, with all of the others in its buffers.
 */
const FUTURE = [
  [12, 3],
  [13, 4],
  [14, 5],
] as const;
/** The longest message that fits the input buffer of 2,048 bytes. */
const LONGEST = 2036;

describe("the DTLS heap of a device in the simulator", () => {
  const folder = newFolder();
  let server: EstServer;
  let relay: Relay;

  before(async () => {
    server = await startEstServer({ dir: folder });
  });
  after(() => server.close());
  beforeEach(async () => {
    relay = await Relay.to(server.port);
  });
  afterEach(() => relay.close());

  const der = (name: string, ...types: string[]): Uint8Array[] =>
    readPEM(Uint8Array.from(readFileSync(join(folder, name))), ...types);

  function wake(patience: number): Promise<WakeResult> {
    return simulate({
      options: {
        operation: "crts",
        address: "127.0.0.1",
        port: relay.port,
        host: "127.0.0.1",
        geometry: { slots: 4, slotBytes: 512 },
        blockSize: 512,
        patience,
      },
      trust: der("ca.pem", "CERTIFICATE"),
      certificates: der("factory.pem", "CERTIFICATE"),
      key: der("factory.key", "PRIVATE KEY", "EC PRIVATE KEY")[0],
      state: undefined,
    });
  }

  for (const [what, bytes] of [
    ["whole messages", LONGEST],
    ["fragments of 200 bytes", 200],
  ] as const) {
    it(`takes a flight of ${what} in reversed order`, async () => {
      const records = new HandshakeRecords(bytes);
      relay.split = (datagram) => (datagram.direction === "in" ? records.cut(datagram.bytes) : [datagram.bytes]);
      relay.reversed = "in";
      const { association, heap } = await wake(60_000);
      assert.equal(association.way, "full");
      assert.ok(heap.dtlsPeak <= IN_ORDER_MAX, JSON.stringify(heap));
    });
  }

  it("bounds what a flood of fragments and records from the future costs", async () => {
    const inOrder = (await wake(60_000)).heap.dtlsPeak;
    assert.ok(inOrder <= IN_ORDER_MAX, `${inOrder}`);
    const records = new HandshakeRecords(LONGEST);
    relay.split = (datagram) => (datagram.direction === "in" ? records.cut(datagram.bytes) : [datagram.bytes]);
    let hellos = 0;
    relay.pass = ({ direction }) => {
      hellos += direction === "out" ? 1 : 0;
      if (direction === "out" && hellos === 2) {
        // The hello with the cookie is out: what a server would send next, never whole, and the records after it.
        for (let offset = 0; offset < 10; offset++) {
          for (const [type, messageSequence] of FUTURE) {
            const body = randomFillSync(Buffer.alloc(180));
            relay.inject(records.record({ type, length: LONGEST, messageSequence, offset: offset * 180, body }));
          }
          const future = randomFillSync(Buffer.alloc(1200));
          Buffer.from([22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, offset, 0x04, 0xa3]).copy(future);
          relay.inject(future);
        }
      }
      return 1;
    };
    const heap = await wake(3000).then(
      (result) => result.heap,
      (error: unknown) => {
        assert.ok(error instanceof WakeError, String(error));
        assert.match(error.message, /did not finish the DTLS handshake within 3 s/);
        return error.heap;
      },
    );
    assert.ok(heap.dtlsPeak > inOrder, `the flood cost nothing: ${JSON.stringify(heap)}`);
    assert.ok(heap.dtlsPeak <= Math.min(inOrder + BUFFERING, HOSTILE_MAX), JSON.stringify(heap));
  });
});
