// The CoAP client against node-coap (npm package coap) as the server, over real UDP on the loopback interface.
import { strict as assert } from "node:assert";
import type { Socket } from "node:dgram";
import { createServer, type IncomingMessage, type OutgoingMessage, type Server } from "coap";
import { type BlockSize, CoAPClient } from "../../src/coap/client.js";
import { Code, codeText } from "../../src/coap/message.js";
import { nodeTimer, UDPMessageSocket } from "../support/udp-socket.js";

const LARGE = Buffer.from(Array.from({ length: 2500 }, (_, at) => (at * 7 + (at >> 6)) & 0xff));
const SMALL = Buffer.from("hello");
const DELAY = 150;

/** /small and /large give a body, /echo gives back what it gets, /slow does so after an empty acknowledgement. */
function serve(request: IncomingMessage, response: OutgoingMessage): void {
  switch (request.url) {
    case "/small":
      response.end(SMALL);
      break;
    case "/large":
      response.setOption("Content-Format", "application/octet-stream");
      response.end(LARGE);
      break;
    case "/echo":
      response.code = "2.04";
      response.end(request.payload);
      break;
    case "/slow":
      setTimeout(() => response.end(SMALL), DELAY);
      break;
    default:
      response.code = "4.04";
      response.end();
  }
}

describe("the CoAP client against node-coap", () => {
  let server: Server;
  let port: number;
  let client: CoAPClient;

  before((done) => {
    server = createServer({ type: "udp4", piggybackReplyMs: DELAY / 3 }, serve);
    server.listen(0, "127.0.0.1", (error?: Error) => {
      port = (server._sock as Socket).address().port;
      done(error);
    });
  });

  after((done) => {
    server.close(() => done());
  });

  afterEach(() => client.close());

  function connect(blockSize: BlockSize): void {
    client = new CoAPClient({
      socket: { io: UDPMessageSocket, address: "127.0.0.1", port },
      timer: nodeTimer,
      blockSize,
    });
  }

  for (const blockSize of [64, 1024] as const) {
    describe(`with blocks of ${blockSize} bytes`, () => {
      beforeEach(() => connect(blockSize));

      it("gets a small body in one message", async () => {
        const { code, payload, exchanges } = await client.request({ method: "GET", path: "/small" });
        assert.equal(codeText(code), "2.05");
        assert.deepEqual(Buffer.from(payload), SMALL);
        assert.equal(exchanges, 1);
      });

      it("gets a large body block by block", async () => {
        const { code, contentFormat, payload, exchanges } = await client.request({ method: "GET", path: "/large" });
        assert.equal(codeText(code), "2.05");
        assert.equal(contentFormat, 42);
        assert.deepEqual(Buffer.from(payload), LARGE);
        assert.equal(exchanges, Math.ceil(LARGE.length / blockSize));
      });

      it("posts a small body in one message", async () => {
        const { code, payload } = await client.request({ method: "POST", path: "/echo", payload: SMALL });
        assert.equal(codeText(code), "2.04");
        assert.deepEqual(Buffer.from(payload), SMALL);
      });

      it("posts a body larger than a block, and gets it back block by block", async () => {
        const { code, payload } = await client.request({ method: "POST", path: "/echo", payload: LARGE });
        assert.equal(codeText(code), "2.04");
        assert.deepEqual(Buffer.from(payload), LARGE);
      });
    });
  }

  it("takes a separate response", async () => {
    connect(1024);
    const { code, payload, exchanges } = await client.request({ method: "GET", path: "/slow" });
    assert.equal(code, Code.CONTENT);
    assert.deepEqual(Buffer.from(payload), SMALL);
    assert.equal(exchanges, 1);
  });

  it("resolves with an error code", async () => {
    connect(1024);
    assert.equal((await client.request({ method: "GET", path: "/nothing" })).code, Code.NOT_FOUND);
  });

  it("runs requests one after the other over one socket", async () => {
    connect(256);
    const bodies = await Promise.all(
      ["/large", "/small", "/large"].map(
        async (path) => (await client.request({ method: "GET", path })).payload.length,
      ),
    );
    assert.deepEqual(bodies, [LARGE.length, SMALL.length, LARGE.length]);
  });
});
