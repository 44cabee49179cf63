// Requests and block-wise transfer (RFC 7959) as seen through a client, against a peer that each test scripts.
import { strict as assert } from "node:assert";
import type { Block, BlockSize } from "../../../src/coap/block.js";
import type { CoAPResponse } from "../../../src/coap/client.js";
import { CoAPError } from "../../../src/coap/error.js";
import { Code, MessageType, OptionNumber, uintValue } from "../../../src/coap/message.js";
import { FormatError, LimitError, TorporError } from "../../../src/errors.js";
import { blocksOf, Harness, type Reply, rejection } from "./harness.js";
import { bytes, hex, pattern } from "./hex.js";
import { B1_BLOCK_0, B1_BLOCK_1, B1_BLOCK_9 } from "./rfc9148.js";

const GET = { method: "GET", path: "/x" } as const;
const POST = { method: "POST", path: "/x" } as const;

function block(number: number, more: boolean, size: BlockSize): Block {
  return { number, more, size };
}

/** A Block2 response with the part of `body` that belongs there. */
function part(body: Uint8Array, number: number, size: BlockSize, reply: Partial<Reply> = {}): Reply {
  const end = (number + 1) * size;
  return {
    code: Code.CONTENT,
    block2: block(number, end < body.length, size),
    payload: body.subarray(number * size, end),
    ...reply,
  };
}

function optionText(harness: Harness): string {
  return harness.last.options.map(({ number, value }) => `${number}=${hex(value)}`).join(" ");
}

/** The request that fails on `replies`, given one after the other. */
async function failure(harness: Harness, replies: Reply[], maxBody?: number): Promise<Error> {
  const error = rejection(harness.client.request({ ...GET, maxBody }));
  for (const reply of replies) await harness.reply(reply);
  return error;
}

describe("a CoAP client", () => {
  describe("whose request body depends on the connection", () => {
    it("asks for it when the request begins, and again once the connection was made anew", async () => {
      const harness = await Harness.connected();
      let made = 0;
      const payload = { payload: () => Uint8Array.of(++made) };
      const first = harness.client.request(GET);
      const response = harness.client.request({ ...POST, payload });
      await harness.time.advance(0);
      assert.equal(made, 0, "not before its turn");
      await harness.reply({ code: Code.CONTENT });
      await first;
      assert.deepEqual(harness.last.payload, Uint8Array.of(1));
      harness.peer.restart(1000);
      await harness.time.advance(1000);
      assert.deepEqual(harness.last.payload, Uint8Array.of(2));
      await harness.reply({ code: Code.CHANGED });
      assert.equal((await response).code, Code.CHANGED);
    });

    it("sends it in blocks where it is long", async () => {
      const harness = await Harness.connected({ blockSize: 16 });
      const body = pattern(20);
      const response = harness.client.request({ ...POST, payload: { payload: () => body } });
      await harness.time.advance(0);
      assert.equal(blocksOf(harness.last), "1:0/1/16 2:0/0/16");
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 16) });
      assert.deepEqual(harness.last.payload, body.subarray(16));
      await harness.reply({ code: Code.CHANGED, block1: block(1, false, 16) });
      assert.equal((await response).code, Code.CHANGED);
    });

    it("rejects with what making it throws, and goes on with the next request", async () => {
      const harness = await Harness.connected();
      const payload = {
        payload: (): Uint8Array => {
          throw new TorporError("no key");
        },
      };
      const error = await rejection(harness.client.request({ ...POST, payload }));
      assert.equal(error.message, "no key");
      const next = harness.client.request(GET);
      await harness.time.advance(0);
      await harness.reply({ code: Code.CONTENT });
      assert.equal((await next).code, Code.CONTENT);
    });
  });

  describe("sends a request", () => {
    it("with the header of RFC 9148 appendix A.1", async () => {
      const harness = await Harness.connected({ kept: { token: 0x9a, messageId: 0x1234 } });
      const response = harness.client.request({
        method: "GET",
        uriHost: "example.com",
        uriPort: 9085,
        path: "/est/crts",
        accept: 281,
      });
      assert.equal(
        hex(harness.peer.sent[0].bytes),
        hex(bytes("4101 1234 9a 3b 6578616d706c652e636f6d 42 237d 43 657374 04 63727473 62 0119")),
      );
      await harness.reply({ code: Code.CONTENT });
      await response;
    });

    it("with path, query, formats and payload", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request({
        method: "PUT",
        path: "/.well-known/é/",
        query: ["rt=ace.est*", "d"],
        accept: 40,
        contentFormat: 0,
        payload: bytes("aa"),
      });
      const { code, payload } = harness.last;
      assert.equal(code, Code.PUT);
      assert.equal(hex(payload), "aa");
      assert.equal(
        optionText(harness),
        "11=2e77656c6c2d6b6e6f776e 11=c3a9 11= 12= 15=72743d6163652e6573742a 15=64 17=28",
      );
      await harness.reply({ code: Code.CHANGED });
      await response;
    });

    it("without options for the path /", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request({ method: "DELETE", path: "/" });
      assert.equal(hex(harness.peer.sent[0].bytes), "4104000000");
      await harness.reply({ code: Code.DELETED });
      assert.equal((await response).code, Code.DELETED);
    });

    it("only where the options can carry it", async () => {
      const harness = await Harness.connected();
      const { client } = harness;
      for (const request of [
        { path: "x" },
        { path: "" },
        { path: "/a/../b" },
        { path: "/\ud800" },
        { path: `/${"x".repeat(256)}` },
        { path: "/", query: ["x".repeat(256)] },
        { path: "/", accept: 65536 },
        { path: "/", contentFormat: -1 },
        { path: "/", uriPort: 70000 },
        { path: `/${"x".repeat(255)}/${"x".repeat(255)}/${"x".repeat(255)}/${"x".repeat(255)}/${"x".repeat(255)}` },
      ]) {
        assert.ok((await rejection(client.request({ method: "GET", ...request }))) instanceof TorporError);
      }
      assert.equal(harness.peer.sent.length, 0);
      const response = client.request(GET);
      await harness.reply({ code: Code.CONTENT });
      assert.equal((await response).code, Code.CONTENT);
    });
  });

  describe("receives a body in blocks", () => {
    it("as in RFC 9148 appendix B.1, with one token and a new message ID for each block", async () => {
      const harness = await Harness.connected({ blockSize: 64, kept: { token: 0x9a, messageId: 0xfffd } });
      const body = new Uint8Array(639);
      body.set(bytes(B1_BLOCK_0), 0);
      body.set(bytes(B1_BLOCK_1), 64);
      body.set(bytes(B1_BLOCK_9), 576);
      const response = harness.client.request({
        method: "GET",
        uriHost: "example.com",
        uriPort: 9085,
        path: "/est/crts",
        accept: 281,
      });
      const options = [{ number: OptionNumber.CONTENT_FORMAT, value: 281 }];
      const header = hex(bytes("3b 6578616d706c652e636f6d 42 237d 43 657374 04 63727473 62 0119 61"));
      for (let number = 0; number < 10; number++) {
        const request = hex(harness.peer.sent[number].bytes);
        const id = (0xfffd + number) & 0xffff;
        const value = hex(new Uint8Array([number * 16 + 2]));
        assert.equal(request, `4101${hex(new Uint8Array([id >> 8, id]))}9a${header}${value}`);
        await harness.reply(part(body, number, 64, { options }));
      }
      const { code, contentFormat, payload, exchanges } = await response;
      assert.deepEqual([code, contentFormat, exchanges], [Code.CONTENT, 281, 10]);
      assert.equal(hex(payload), hex(body));
      assert.equal(harness.peer.sent.length, 10);
    });

    it("asks for no size in the first request where it takes any", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request(GET);
      const body = pattern(300);
      for (let number = 0; number < 3; number++) await harness.reply(part(body, number, 128));
      assert.equal(hex((await response).payload), hex(body));
      assert.deepEqual(harness.messages.map(blocksOf), ["", "2:1/0/128", "2:2/0/128"]);
    });

    it("goes on in the size of the server where that is smaller", async () => {
      const harness = await Harness.connected({ blockSize: 256 });
      const response = harness.client.request(GET);
      const body = pattern(150);
      for (let number = 0; number < 3; number++) await harness.reply(part(body, number, 64));
      assert.equal(hex((await response).payload), hex(body));
      assert.deepEqual(harness.messages.map(blocksOf), ["2:0/0/256", "2:1/0/64", "2:2/0/64"]);
    });

    it("goes on at the right offset where the size becomes smaller later", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request(GET);
      const body = pattern(200);
      await harness.reply(part(body, 0, 64));
      await harness.reply(part(body, 2, 32));
      await harness.reply(part(body, 3, 32));
      await harness.reply(part(body, 8, 16));
      for (let number = 9; number < 13; number++) await harness.reply(part(body, number, 16));
      assert.equal(hex((await response).payload), hex(body));
      assert.deepEqual(harness.messages.slice(0, 5).map(blocksOf), [
        "",
        "2:1/0/64",
        "2:3/0/32",
        "2:4/0/32",
        "2:9/0/16",
      ]);
    });

    it("of any length: empty, one block, whole blocks, an empty last block", async () => {
      for (const length of [0, 1, 15, 16, 17, 32, 3072]) {
        const harness = await Harness.connected({ blockSize: 16 });
        const response = harness.client.request(GET);
        const body = pattern(length);
        for (let number = 0; number * 16 < Math.max(1, length); number++) await harness.reply(part(body, number, 16));
        assert.equal(hex((await response).payload), hex(body));
      }
      const harness = await Harness.connected();
      const response = harness.client.request(GET);
      await harness.reply({ code: Code.CONTENT, block2: block(0, true, 16), payload: pattern(16) });
      await harness.reply({ code: Code.CONTENT, block2: block(1, false, 16) });
      assert.equal((await response).payload.length, 16);
    });

    it("of the size that Size2 says, or of another", async () => {
      const body = pattern(100);
      for (const size2 of [100, 0, 10, 50, 101, 3072]) {
        const harness = await Harness.connected();
        const response = harness.client.request(GET);
        const options = [{ number: OptionNumber.SIZE2, value: size2 }];
        for (let number = 0; number < 7; number++) await harness.reply(part(body, number, 16, { options }));
        assert.equal(hex((await response).payload), hex(body));
      }
    });

    it("up to maxBody and not one byte more", async () => {
      const body = pattern(100);
      const exact = await Harness.connected({ maxBody: 100 });
      const response = exact.client.request(GET);
      for (let number = 0; number < 7; number++) await exact.reply(part(body, number, 16));
      assert.equal(hex((await response).payload), hex(body));

      const over = await Harness.connected();
      const replies = [0, 1, 2, 3, 4, 5, 6].map((number) => part(body, number, 16));
      assert.ok((await failure(over, replies, 99)) instanceof LimitError);
    });

    it("gives up before it asks for a block that would be over maxBody", async () => {
      const harness = await Harness.connected({ maxBody: 32 });
      const body = pattern(33);
      const error = await failure(harness, [part(body, 0, 16), part(body, 1, 16)]);
      assert.ok(error instanceof LimitError);
      assert.equal(harness.peer.sent.length, 2);
    });

    it("gives up at the first block where Size2 is over maxBody", async () => {
      const harness = await Harness.connected();
      const options = [{ number: OptionNumber.SIZE2, value: 3073 }];
      const error = await failure(harness, [part(pattern(3073), 0, 1024, { options })]);
      assert.ok(error instanceof LimitError);
      assert.ok(error.message.includes("3072"));
      assert.equal(harness.peer.sent.length, 1);
    });

    it("gives up where a body in one message is over maxBody", async () => {
      const harness = await Harness.connected();
      assert.ok((await failure(harness, [{ code: Code.CONTENT, payload: pattern(17) }], 16)) instanceof LimitError);
    });

    it("with separate responses as well", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request(GET);
      const body = pattern(80);
      for (let number = 0; number < 5; number++) {
        await harness.reply({ code: Code.EMPTY });
        await harness.reply(part(body, number, 16, { type: MessageType.CON, messageId: 100 + number }));
      }
      const { payload, exchanges } = await response;
      assert.equal(hex(payload), hex(body));
      assert.equal(exchanges, 5);
    });

    it("retransmits the request for a block", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request(GET);
      const body = pattern(30);
      await harness.reply(part(body, 0, 16));
      await harness.time.advance(2000);
      assert.deepEqual(harness.messages.map(blocksOf), ["", "2:1/0/16", "2:1/0/16"]);
      await harness.reply(part(body, 1, 16));
      assert.equal(hex((await response).payload), hex(body));
    });

    it("ends with an error response that comes in the middle", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request(GET);
      await harness.reply(part(pattern(50), 0, 16));
      await harness.reply({ code: Code.NOT_FOUND, payload: bytes("ab") });
      const { code, payload, exchanges } = await response;
      assert.deepEqual([code, hex(payload), exchanges], [Code.NOT_FOUND, "ab", 2]);
    });

    it("takes only the first block of an error", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request(GET);
      await harness.reply(part(pattern(50), 0, 16, { code: Code.BAD_REQUEST }));
      const { code, payload } = await response;
      assert.deepEqual([code, payload.length], [Code.BAD_REQUEST, 16]);
    });

    describe("and breaks off", () => {
      const body = pattern(100);
      const first = part(body, 0, 32);
      const etag = (digits: string): Partial<Reply> => ({
        options: [{ number: OptionNumber.ETAG, value: bytes(digits) }],
      });

      it("where the size is larger than asked for", async () => {
        const early = await Harness.connected({ blockSize: 16 });
        assert.ok((await failure(early, [first])) instanceof CoAPError);
        const later = await Harness.connected();
        const larger = { code: Code.CONTENT, block2: block(0, true, 64), payload: body.subarray(32, 96) };
        assert.ok((await failure(later, [first, larger])) instanceof CoAPError);
        const atItsPlace = await Harness.connected();
        const third = { code: Code.CONTENT, block2: block(1, false, 64), payload: body.subarray(64) };
        assert.ok((await failure(atItsPlace, [first, part(body, 1, 32), third])) instanceof CoAPError);
      });

      it("where the number is not the one asked for", async () => {
        for (const replies of [
          [part(body, 1, 32)],
          [first, first],
          [first, part(body, 2, 32)],
          [first, part(body, 1, 16)],
        ]) {
          assert.ok((await failure(await Harness.connected(), replies)) instanceof CoAPError);
        }
      });

      it("where a block with more to come is not full, or too full", async () => {
        for (const length of [0, 31, 33]) {
          const wrong = { ...first, payload: pattern(length) };
          assert.ok((await failure(await Harness.connected(), [wrong])) instanceof CoAPError);
          const next = { code: Code.CONTENT, block2: block(1, true, 32), payload: pattern(length) };
          assert.ok((await failure(await Harness.connected(), [first, next])) instanceof CoAPError);
        }
      });

      it("where the ETag changes", async () => {
        const replies = [part(body, 0, 32, etag("01")), part(body, 1, 32, etag("02"))];
        assert.ok((await failure(await Harness.connected(), replies)) instanceof CoAPError);
        const longer = [part(body, 0, 32, etag("01")), part(body, 1, 32, etag("0102"))];
        assert.ok((await failure(await Harness.connected(), longer)) instanceof CoAPError);
        const appears = [first, part(body, 1, 32, etag("01"))];
        assert.ok((await failure(await Harness.connected(), appears)) instanceof CoAPError);
      });

      it("but not where the ETag stays", async () => {
        const harness = await Harness.connected();
        const response = harness.client.request(GET);
        for (let number = 0; number < 4; number++)
          await harness.reply(part(body, number, 32, etag("0102030405060708")));
        assert.equal(hex((await response).payload), hex(body));
      });

      it("where the Content-Format changes", async () => {
        const format = (value: number): Partial<Reply> => ({
          options: [{ number: OptionNumber.CONTENT_FORMAT, value }],
        });
        const replies = [part(body, 0, 32, format(281)), part(body, 1, 32, format(287))];
        assert.ok((await failure(await Harness.connected(), replies)) instanceof CoAPError);
      });

      it("where a block has no Block2, or 2.31", async () => {
        for (const wrong of [{ code: Code.CONTENT, payload: body }, part(body, 1, 32, { code: Code.CONTINUE })]) {
          assert.ok((await failure(await Harness.connected(), [first, wrong])) instanceof CoAPError);
        }
      });

      it("where the size is the reserved SZX 7, or the option too long", async () => {
        for (const value of ["07", "0f", "01020304"]) {
          const options = [{ number: OptionNumber.BLOCK2, value: bytes(value) }];
          const reply = { code: Code.CONTENT, options, payload: body };
          assert.ok((await failure(await Harness.connected(), [reply])) instanceof FormatError);
        }
      });

      it("and takes the next request as if nothing had been", async () => {
        const harness = await Harness.connected();
        await failure(harness, [first, first]);
        const response = harness.client.request(GET);
        assert.equal(hex(harness.last.token), "01");
        for (let number = 0; number < 4; number++) await harness.reply(part(body, number, 32));
        assert.equal(hex((await response).payload), hex(body));
      });
    });
  });

  describe("sends a body in blocks", () => {
    const body = pattern(150);

    async function begun(blockSize: BlockSize = 64): Promise<[Harness, Promise<CoAPResponse>]> {
      const harness = await Harness.connected({ blockSize });
      return [harness, harness.client.request({ ...POST, contentFormat: 286, accept: 281, payload: body })];
    }

    /** What was sent, put together by the numbers of the blocks. */
    function sentBody(harness: Harness, from = 0): string {
      return harness.messages
        .slice(from)
        .map(({ payload }) => hex(payload))
        .join("");
    }

    it("and receives one in blocks, as in RFC 9148 appendix B.2", async () => {
      const harness = await Harness.connected({ blockSize: 256 });
      const csr = pattern(600);
      const certificate = pattern(700);
      const response = harness.client.request({
        method: "POST",
        path: "/est/sen",
        contentFormat: 286,
        accept: 281,
        payload: csr,
      });
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 256) });
      await harness.reply({ code: Code.CONTINUE, block1: block(1, true, 256) });
      await harness.reply(part(certificate, 0, 256, { code: Code.CHANGED, block1: block(2, false, 256) }));
      await harness.reply(part(certificate, 1, 256, { code: Code.CHANGED }));
      await harness.reply(part(certificate, 2, 256, { code: Code.CHANGED }));
      const { code, payload, exchanges } = await response;
      assert.deepEqual([code, exchanges], [Code.CHANGED, 5]);
      assert.equal(hex(payload), hex(certificate));
      assert.deepEqual(harness.messages.map(blocksOf), [
        "1:0/1/256 2:0/0/256",
        "1:1/1/256 2:0/0/256",
        "1:2/0/256 2:0/0/256",
        "2:1/0/256",
        "2:2/0/256",
      ]);
      assert.equal(sentBody(harness), hex(csr));
      for (const { code, token, options, payload } of harness.messages) {
        assert.equal(code, Code.POST);
        assert.equal(hex(token), "00");
        assert.equal(uintValue(options.find(({ number }) => number === OptionNumber.ACCEPT)!.value), 281);
        assert.equal(uintValue(options.find(({ number }) => number === OptionNumber.CONTENT_FORMAT)!.value), 286);
        assert.equal(options.filter(({ number }) => number === OptionNumber.URI_PATH).length, 2);
        assert.ok(payload.length <= 256);
      }
      assert.equal(new Set(harness.messages.map(({ messageId }) => messageId)).size, 5);
    });

    it("waits for a separate response to the last block, as in RFC 9148 figure 3", async () => {
      const [harness, response] = await begun();
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 64) });
      await harness.reply({ code: Code.CONTINUE, block1: block(1, true, 64) });
      await harness.reply({ code: Code.EMPTY });
      await harness.time.advance(10_000);
      const certificate = pattern(100);
      const separate = { type: MessageType.CON, messageId: 7, code: Code.CHANGED, block1: block(2, false, 64) };
      await harness.reply(part(certificate, 0, 64, separate));
      await harness.reply(part(certificate, 1, 64, { code: Code.CHANGED }));
      assert.equal(hex((await response).payload), hex(certificate));
    });

    it("only where it is larger than one", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request({ ...POST, payload: pattern(1024) });
      assert.equal(blocksOf(harness.last), "");
      assert.equal(harness.last.payload.length, 1024);
      await harness.reply({ code: Code.CHANGED });
      await response;
      const larger = harness.client.request({ ...POST, payload: pattern(1025) });
      assert.equal(blocksOf(harness.last), "1:0/1/1024");
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 1024) });
      assert.equal(blocksOf(harness.last), "1:1/0/1024");
      assert.equal(harness.last.payload.length, 1);
      await harness.reply({ code: Code.CHANGED, block1: block(1, false, 1024) });
      assert.equal((await larger).exchanges, 2);
    });

    it("and says the size of all of it in the first", async () => {
      const [harness, response] = await begun();
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 64) });
      const sizes = harness.messages.map(({ options }) =>
        options.filter(({ number }) => number === OptionNumber.SIZE1),
      );
      assert.equal(uintValue(sizes[0][0].value), 150);
      assert.equal(sizes[1].length, 0);
      await harness.reply({ code: Code.UNAUTHORIZED });
      await response;
    });

    it("in the smaller size that the server wants, from where it is, as in RFC 7959 figure 9", async () => {
      const [harness, response] = await begun(128);
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 32) });
      await harness.reply({ code: Code.CHANGED, block1: block(4, false, 32) });
      assert.equal((await response).code, Code.CHANGED);
      assert.deepEqual(harness.messages.map(blocksOf), ["1:0/1/128 2:0/0/128", "1:4/0/32 2:0/0/128"]);
      assert.equal(sentBody(harness), hex(body));
    });

    it("in sizes that become smaller twice", async () => {
      const [harness, response] = await begun(64);
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 32) });
      await harness.reply({ code: Code.CONTINUE, block1: block(2, true, 16) });
      for (let number = 6; number < 9; number++) {
        await harness.reply({ code: Code.CONTINUE, block1: block(number, true, 16) });
      }
      await harness.reply({ code: Code.CHANGED, block1: block(9, false, 16) });
      assert.equal((await response).code, Code.CHANGED);
      assert.equal(sentBody(harness), hex(body));
      assert.equal(blocksOf(harness.messages[2]), "1:6/1/16 2:0/0/64");
    });

    it("to a server that acts on each block by itself, as in RFC 7959 figure 8", async () => {
      const [harness, response] = await begun();
      for (let number = 0; number < 3; number++) {
        await harness.reply({ code: Code.CHANGED, block1: block(number, false, 64) });
      }
      assert.equal((await response).exchanges, 3);
      assert.equal(sentBody(harness), hex(body));
    });

    it("and ends with a final response in the middle", async () => {
      for (const reply of [
        { code: Code.UNAUTHORIZED, payload: bytes("01") },
        { code: Code.SERVICE_UNAVAILABLE, block1: block(1, true, 64), payload: bytes("01") },
        { code: Code.REQUEST_ENTITY_TOO_LARGE, payload: bytes("01") },
        { code: Code.CHANGED, payload: bytes("01") },
        { code: Code.CHANGED, block1: block(1, false, 64), payload: bytes("01") },
      ]) {
        const [harness, response] = await begun();
        await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 64) });
        await harness.reply(reply);
        const { code, payload, exchanges } = await response;
        assert.deepEqual([code, hex(payload), exchanges], [reply.code, "01", 2]);
      }
    });

    it("once more from block 0 and under a new token after 4.08, then gives up", async () => {
      const [harness, response] = await begun();
      const error = rejection(response);
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 64) });
      await harness.reply({ code: Code.REQUEST_ENTITY_INCOMPLETE, block1: block(1, true, 64) });
      assert.equal(blocksOf(harness.last), "1:0/1/64 2:0/0/64");
      assert.equal(hex(harness.last.token), "01");
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 64) });
      await harness.reply({ code: Code.REQUEST_ENTITY_INCOMPLETE });
      assert.ok((await error) instanceof CoAPError);
      assert.equal(harness.peer.sent.length, 4);
    });

    it("and succeeds where 4.08 came once", async () => {
      const [harness, response] = await begun();
      await harness.reply({ code: Code.REQUEST_ENTITY_INCOMPLETE });
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 64) });
      await harness.reply({ code: Code.CONTINUE, block1: block(1, true, 64) });
      await harness.reply({ code: Code.CHANGED, block1: block(2, false, 64) });
      assert.equal((await response).exchanges, 4);
      assert.equal(sentBody(harness, 1), hex(body));
    });

    it("once more in the smaller size that 4.13 hints at", async () => {
      const [harness, response] = await begun();
      await harness.reply({ code: Code.REQUEST_ENTITY_TOO_LARGE, block1: block(0, true, 32) });
      for (let number = 0; number < 4; number++) {
        await harness.reply({ code: Code.CONTINUE, block1: block(number, true, 32) });
      }
      await harness.reply({ code: Code.CHANGED, block1: block(4, false, 32) });
      assert.equal((await response).code, Code.CHANGED);
      assert.equal(sentBody(harness, 1), hex(body));
      assert.equal(hex(harness.last.token), "01");
    });

    it("where 4.13 with a size answers a request in one message", async () => {
      const harness = await Harness.connected();
      const response = harness.client.request({ ...POST, payload: body });
      assert.equal(blocksOf(harness.last), "");
      await harness.reply({ code: Code.REQUEST_ENTITY_TOO_LARGE, block1: block(0, true, 128) });
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 128) });
      await harness.reply({ code: Code.CHANGED, block1: block(1, false, 128) });
      assert.equal((await response).exchanges, 3);
      assert.equal(sentBody(harness, 1), hex(body));
    });

    it("and ends with 4.13 where it comes again, or hints at nothing smaller", async () => {
      const tooLarge = { code: Code.REQUEST_ENTITY_TOO_LARGE, block1: block(0, true, 32) };
      const [twice, second] = await begun();
      await twice.reply(tooLarge);
      await twice.reply({ ...tooLarge, block1: block(0, true, 16) });
      assert.deepEqual([(await second).code, twice.peer.sent.length], [Code.REQUEST_ENTITY_TOO_LARGE, 2]);
      const [same, first] = await begun();
      await same.reply({ ...tooLarge, block1: block(0, true, 64) });
      assert.deepEqual([(await first).code, same.peer.sent.length], [Code.REQUEST_ENTITY_TOO_LARGE, 1]);
    });

    it("and breaks off where the server acknowledges another block or a larger size", async () => {
      for (const block1 of [block(1, true, 64), block(0, true, 128)]) {
        const [harness, response] = await begun();
        const error = rejection(response);
        await harness.reply({ code: Code.CONTINUE, block1 });
        assert.ok((await error) instanceof CoAPError);
      }
    });

    it("and breaks off where 2.31 answers the last block, or a request without blocks", async () => {
      const [harness, response] = await begun(128);
      const error = rejection(response);
      await harness.reply({ code: Code.CONTINUE, block1: block(0, true, 128) });
      await harness.reply({ code: Code.CONTINUE, block1: block(1, false, 128) });
      assert.ok((await error) instanceof CoAPError);
      const plain = await Harness.connected();
      assert.ok((await failure(plain, [{ code: Code.CONTINUE }])) instanceof CoAPError);
    });
  });
});
