/** How the development server finds and follows the clients that have connection IDs (RFC 9146). */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { join } from "node:path";
import { type EstServer, type EstServerOptions, startEstServer } from "../../tools/est-server/server.js";
import { Relay } from "../../tools/relay.js";
import { newFolder, type WakeLine, wakeLine } from "../support/command.js";

const CONNECTION_ID_RECORD = 25;

describe("the development server, with connection IDs", () => {
  const folder = newFolder();
  let server: EstServer;
  let relay: Relay;
  let stranger: Socket;
  let heard: number;
  let state: string;

  async function start(options: EstServerOptions = {}): Promise<void> {
    server = await startEstServer({ dir: folder, ...options });
    relay = await Relay.to(server.port);
  }

  beforeEach(async () => {
    state = join(newFolder(), "device");
    heard = 0;
    stranger = createSocket("udp4").on("message", () => heard++);
    stranger.bind(0, "127.0.0.1");
    await once(stranger, "listening");
  });
  afterEach(async () => {
    stranger.close();
    relay.close();
    await server.close();
  });

  const wake = (...more: string[]): Promise<WakeLine> =>
    wakeLine(
      ...["crts", "--server", `coaps://127.0.0.1:${relay.port}`, "--trust", join(folder, "ca.pem"), "--state", state],
      ...["--cert", join(folder, "factory.pem"), "--key", join(folder, "factory.key"), ...more],
    );

  /** The last datagram with a connection ID that the device sent. */
  const lastRecord = (): Buffer =>
    relay.datagrams.filter(({ direction, bytes }) => direction === "out" && bytes[0] === CONNECTION_ID_RECORD).at(-1)!
      .bytes;

  /** Lets somebody at another address send this, and the server deal with it. */
  async function fromStranger(datagram: Buffer): Promise<void> {
    await new Promise((resolve) => stranger.send(datagram, server.port, "127.0.0.1", resolve));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }

  it("follows a client to another port, and nobody who sends what it sent before, or a record that is not authentic", async () => {
    await start();
    await wake();
    assert.equal(server.stats.moved, 0);
    assert.equal((await wake()).way, "context");
    assert.equal(server.stats.moved, 1);
    const record = lastRecord();
    await fromStranger(record);
    const forged = Buffer.from(record);
    forged[10]! += 1; // a newer sequence number
    await fromStranger(forged);
    assert.deepEqual([server.stats.moved, heard], [1, 0]);
    assert.equal((await wake()).way, "context");
    assert.deepEqual([server.stats.moved, heard], [2, 0]);
  });

  it("ignores the offer where told to, and a datagram with an ID that it does not know", async () => {
    await start({ connectionIds: false });
    await wake();
    assert.equal((await wake()).way, "session");
    await fromStranger(Buffer.concat([Buffer.from([CONNECTION_ID_RECORD, 254, 253]), Buffer.alloc(60, 1)]));
    await fromStranger(Buffer.from([CONNECTION_ID_RECORD]));
    assert.equal(heard, 0);
    assert.equal((await wake()).way, "session");
  });

  it("loses associations that were silent for as long as --forget says, without a word; sessions stay", async () => {
    await start({ forget: 0.2 });
    await wake();
    relay.forget();
    await new Promise((resolve) => setTimeout(resolve, 600));
    assert.equal(server.stats.associations, 0);
    assert.equal(relay.datagrams.length, 0);
    assert.equal((await wake("--context-patience", "0.3")).way, "session");
  });
});
