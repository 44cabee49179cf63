/** What the device offers a server, byte by byte: RFC 9148 section 3 and 9.1, RFC 7925 sections 4.2, 4.4, 11 and 12. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { setTimeout as delay } from "node:timers/promises";
import { clock, timer, UDP } from "../../hosts/node/io.js";
import { DTLSSocket } from "../../src/dtls/socket.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { ServerEngine } from "../../tools/est-server/engine.js";
import { TestCA, type TestIdentity, writeCertificates, writeIdentity } from "../support/certificates.js";
import { newFolder } from "../support/command.js";
import { JoinedNetwork, SERVER } from "../support/joined.js";
import { startOpenssl } from "../support/peers.js";

const SUITES = { CCM_8: 0xc0ae, CCM: 0xc0ac, GCM: 0xc02b, EMPTY_RENEGOTIATION_INFO: 0x00ff } as const;
const Extension = { SUPPORTED_GROUPS: 10, EC_POINT_FORMATS: 11, EXTENDED_MASTER_SECRET: 23 } as const;
const SECP256R1 = 23;

/** Cipher suites and extensions of a ClientHello or a ServerHello in the clear (RFC 6347 section 4.2.2). */
function readHello(datagram: Uint8Array, from: "client" | "server") {
  const view = Buffer.from(datagram);
  let at = 25 + 2 + 32; // headers, version, random
  at += 1 + view[at]!; // session_id
  const suites: number[] = [];
  if (from === "client") {
    at += 1 + view[at]!; // cookie
    const end = at + 2 + view.readUInt16BE(at);
    for (at += 2; at < end; at += 2) suites.push(view.readUInt16BE(at));
    at += 1 + view[at]!; // compression_methods
  } else {
    suites.push(view.readUInt16BE(at));
    at += 3;
  }
  const extensions = new Map<number, Buffer>();
  const end = at + 2 + view.readUInt16BE(at);
  for (at += 2; at < end; ) {
    const length = view.readUInt16BE(at + 2);
    extensions.set(view.readUInt16BE(at), view.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return { suites, extensions };
}

describe("a device's ClientHello", () => {
  let ca: TestCA;
  let device: TestIdentity;
  let key: KeyId;
  let serverKey: KeyId;
  let network: JoinedNetwork;
  let server: ServerEngine;

  before(async () => {
    ca = await TestCA.create();
    device = await ca.issue({ subject: "CN=device", usage: "client" });
    key = importKey(0, device.pkcs8);
    const identity = await ca.issue({ subject: "CN=server", addresses: [SERVER.address] });
    serverKey = importKey(0, identity.pkcs8);
    server = new ServerEngine({ trust: [ca.root], key: serverKey, chain: identity.chain });
  });
  after(() => {
    server.free();
    destroyKey(key);
    destroyKey(serverKey);
  });
  beforeEach(() => {
    network = new JoinedNetwork();
  });
  afterEach(() => network.free());

  const secure = () => ({ trustAnchors: [ca.root], certificates: device.chain, key });

  function connect(): DTLSSocket {
    const { time, clock: virtual, UDP: io } = network;
    return new DTLSSocket({ ...SERVER, socket: { io }, timer: time, clock: virtual, secure: secure() });
  }

  const sent = (direction: "out" | "in", type: number) =>
    network.trace.filter((carried) => carried.direction === direction && carried.bytes[13] === type);

  it("offers CCM_8 first, then CCM and GCM, all with ECDHE and ECDSA, and nothing else", async () => {
    network.serve(server);
    const socket = connect();
    await network.time.finish(5000);
    const { suites } = readHello(sent("out", 1)[0]!.bytes, "client");
    assert.deepEqual(
      suites.filter((suite) => suite !== SUITES.EMPTY_RENEGOTIATION_INFO),
      [SUITES.CCM_8, SUITES.CCM, SUITES.GCM],
    );
    assert.equal(readHello(sent("in", 2)[0]!.bytes, "server").suites[0], SUITES.CCM_8);
    socket.close();
  });

  it("offers P-256 first, and uncompressed points alone", async () => {
    network.serve(server);
    const socket = connect();
    await network.time.finish(5000);
    const { extensions } = readHello(sent("out", 1)[0]!.bytes, "client");
    const groups = extensions.get(Extension.SUPPORTED_GROUPS)!;
    const offered = Array.from({ length: groups.readUInt16BE(0) / 2 }, (_, index) =>
      groups.readUInt16BE(2 + 2 * index),
    );
    assert.equal(offered[0], SECP256R1, `${offered}`);
    assert.deepEqual([...extensions.get(Extension.EC_POINT_FORMATS)!], [1, 0]);
    socket.close();
  });

  it("offers the extended master secret, which the server agrees to", async () => {
    network.serve(server);
    const socket = connect();
    await network.time.finish(5000);
    assert.ok(readHello(sent("out", 1)[0]!.bytes, "client").extensions.has(Extension.EXTENDED_MASTER_SECRET));
    assert.ok(readHello(sent("in", 2)[0]!.bytes, "server").extensions.has(Extension.EXTENDED_MASTER_SECRET));
    socket.close();
  });

  it("is sent again after 9 seconds, and then after twice that, where nobody answers", async () => {
    const socket = connect();
    await network.time.advance(30_000);
    assert.deepEqual(
      sent("out", 1).map(({ at }) => at),
      [0, 9000, 27000],
    );
    socket.close();
  });

  it("is not sent in an association that is open: a server that wants to renegotiate is told no", async () => {
    const folder = newFolder();
    const identity = await ca.issue({ subject: "CN=openssl", addresses: ["127.0.0.1"] });
    const files = {
      ...writeIdentity(folder, "server", identity),
      clientCA: writeCertificates(folder, "ca", [ca.root]),
    };
    const peer = await startOpenssl(files, () => assert.fail("no request was made"), ["-msg"]);
    try {
      const written: number[] = [];
      class Watched extends UDP {
        override write(datagram: Uint8Array, address: string, port: number): void {
          written.push(datagram[0]!);
          super.write(datagram, address, port);
        }
      }
      const failures: Error[] = [];
      const socket = await new Promise<DTLSSocket>((resolve, reject) => {
        const made = new DTLSSocket({
          ...{ address: "127.0.0.1", port: peer.port, socket: { io: Watched }, timer, clock, secure: secure() },
          onWritable: () => resolve(made),
          onError: (error) => {
            failures.push(error);
            reject(error);
          },
        });
      });
      written.length = 0;
      peer.input("R\n");
      await delay(700);
      const trace = peer.output().slice(peer.output().lastIndexOf("Secure Renegotiation IS supported"));
      assert.match(trace, /^>>> .*content_type=22.*\n {4}00 00 00 00 00 00 00 00 00 00 00 00$/m, "a HelloRequest");
      // A warning, no_renegotiation (100), and no handshake message.
      assert.match(trace, /^<<< .*content_type=21.*\n {4}01 64$/m);
      assert.deepEqual([...new Set(written)], [21]);
      socket.close();
    } finally {
      await peer.stop();
    }
  });
});
