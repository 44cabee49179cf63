// Properties of the CoAP layer: its codec agrees with coap-packet, no bytes from outside do more than a typed error, and
// block-wise transfer over a bad network gives the right body or a typed error within a bounded time.
import { strict as assert } from "node:assert";
import { generate, parse } from "coap-packet";
import fc from "fast-check";
import { type BlockSize, blockSize, decodeBlock, encodeBlock, sizeExponent } from "../../src/coap/block.js";
import { CoAPClient, type CoAPResponse, type Transmission } from "../../src/coap/client.js";
import { parseLinkFormat } from "../../src/coap/link-format.js";
import {
  Code,
  codeText,
  type DecodedMessage,
  decode,
  encode,
  type Message,
  MessageType,
  type Option,
  OptionNumber,
} from "../../src/coap/message.js";
import { decodePath, parseURI } from "../../src/coap/uri.js";
import { FormatError, TimeoutError, TorporError } from "../../src/errors.js";
import { FakePeer, FakeSocket } from "../support/fake-socket.js";
import { FakeTime } from "../support/fake-time.js";

const NONE = new Uint8Array(0);
const MAX_MESSAGE = 8192;

function toBytes(message: Message): Uint8Array {
  const buffer = new Uint8Array(MAX_MESSAGE);
  return buffer.slice(0, encode(message, buffer));
}

function equalBytes(actual: Uint8Array, expected: Uint8Array): void {
  assert.ok(Buffer.from(actual).equals(expected), `${Buffer.from(actual).toString("hex")} is not what was expected`);
}

const octets = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength });

// coap-packet takes a payload that prints as "" for none, which all payloads but the empty one are not in ASCII.
const message: fc.Arbitrary<Message> = fc.record({
  type: fc.nat(3),
  code: fc.integer({ min: 1, max: 255 }),
  messageId: fc.nat(65535),
  token: octets(8),
  options: fc.array(fc.record({ number: fc.nat(65535), value: fc.oneof(octets(20), octets(700)) }), { maxLength: 8 }),
  payload: fc.uint8Array({ max: 127, maxLength: 100 }),
});

/** Valid bytes with some of them changed, taken out or added. */
function mutated(valid: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Uint8Array> {
  const edit = fc.record({
    at: fc.nat(200),
    byte: fc.nat(255),
    kind: fc.constantFrom("set", "remove", "insert", "end"),
  });
  return fc.tuple(valid, fc.array(edit, { maxLength: 5 })).map(([bytes, edits]) => {
    const result = [...bytes];
    for (const { at, byte, kind } of edits) {
      const place = result.length === 0 ? 0 : at % result.length;
      if (kind === "set") result[place] = byte;
      else if (kind === "remove") result.splice(place, 1);
      else if (kind === "insert") result.splice(place, 0, byte);
      else result.length = place;
    }
    return Uint8Array.from(result);
  });
}

/** The reader gives a value, or throws a FormatError: nothing else. */
function endsWell(read: () => unknown): void {
  try {
    read();
  } catch (error) {
    assert.ok(error instanceof FormatError, String(error));
  }
}

describe("the CoAP codec", () => {
  it("reads what coap-packet writes", () => {
    fc.assert(
      fc.property(message, ({ type, code, messageId, token, options, payload }) => {
        const written = generate(
          {
            code: codeText(code),
            confirmable: type === MessageType.CON,
            ack: type === MessageType.ACK,
            reset: type === MessageType.RST,
            messageId,
            token: Buffer.from(token),
            options: options.map(({ number, value }) => ({
              name: String(number),
              value: Buffer.from(value as Uint8Array),
            })),
            payload: Buffer.from(payload),
          },
          MAX_MESSAGE,
        );
        const read = decode(written);
        assert.deepEqual([read.type, read.code, read.messageId], [type, code, messageId]);
        equalBytes(read.token, token);
        equalBytes(read.payload, payload);
        const sorted = [...options].sort((a, b) => a.number - b.number);
        assert.equal(read.options.length, sorted.length);
        sorted.forEach((option, at) => {
          assert.equal(read.options[at].number, option.number);
          equalBytes(read.options[at].value, option.value as Uint8Array);
        });
        equalBytes(toBytes({ type, code, messageId, token, options, payload }), written);
      }),
    );
  });

  it("writes what coap-packet reads", () => {
    fc.assert(
      fc.property(message, (fields) => {
        const written = toBytes(fields);
        const read = parse(Buffer.from(written));
        assert.equal(read.code, codeText(fields.code));
        assert.equal(read.messageId, fields.messageId);
        assert.equal(read.confirmable, fields.type === MessageType.CON);
        equalBytes(read.token, fields.token);
        equalBytes(read.payload, fields.payload);
        const own = decode(written).options;
        assert.equal(read.options.length, own.length);
        read.options.forEach(({ value }, at) => {
          equalBytes(value, own[at].value);
        });
      }),
    );
  });

  it("reads any bytes to a value or a FormatError, and writes what it has read as it was", () => {
    const anything = fc.oneof(octets(40), mutated(message.map(toBytes)));
    fc.assert(
      fc.property(anything, (bytes) => {
        endsWell(() => {
          const read = decode(bytes);
          const again = decode(toBytes(read));
          assert.deepEqual(again, read);
        });
      }),
      { numRuns: 2000 },
    );
  });

  it("reads what it writes of a Block option", () => {
    fc.assert(
      fc.property(fc.nat(0xfffff), fc.boolean(), fc.nat(6), (number, more, szx) => {
        const size = blockSize(szx);
        assert.equal(sizeExponent(size), szx);
        const value = encodeBlock({ number, more, size });
        const bytes = Uint8Array.from([value >> 16, (value >> 8) & 0xff, value & 0xff]);
        assert.deepEqual(decodeBlock(bytes), { number, more, size });
      }),
    );
    fc.assert(fc.property(octets(5), (bytes) => endsWell(() => decodeBlock(bytes))));
  });
});

describe("the readers of link-format and URIs", () => {
  const ascii = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text));

  it("read any bytes to links or a FormatError", () => {
    const core = '</est/crts>;rt="ace.est.crts";ct="281 \\"287",</est>;obs,<coaps://[::1]:61617/é>;x=y';
    const anything = fc.oneof(octets(60), mutated(fc.constant(ascii(core))));
    fc.assert(
      fc.property(anything, (bytes) => endsWell(() => parseLinkFormat(bytes))),
      { numRuns: 2000 },
    );
  });

  it("read any text to a URI or a FormatError", () => {
    const valid = fc.constantFrom(
      "coaps://[2001:db8::1%]:5684/a%20b",
      "coap://est.example.com:61616/label/",
      "coaps://1.2.3.4",
    );
    const anything = fc.oneof(
      fc.string({ unit: "binary" }),
      mutated(valid.map(ascii)).map((bytes) => Buffer.from(bytes).toString("latin1")),
    );
    fc.assert(
      fc.property(anything, (text) => {
        endsWell(() => parseURI(text));
        endsWell(() => decodePath(text));
      }),
      { numRuns: 2000 },
    );
  });

  it("give back what was percent-encoded", () => {
    const segment = fc.string({ unit: "grapheme", maxLength: 20 }).filter((text) => !/^\.{1,2}$|\//.test(text));
    fc.assert(
      fc.property(fc.array(segment, { minLength: 1, maxLength: 4 }), (segments) => {
        const path = segments.map((text) => `/${encodeURIComponent(text)}`).join("");
        assert.equal(decodePath(path), `/${segments.join("/")}`);
      }),
    );
  });
});

/** Numbers from 0 to 1 that a seed determines (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

interface Network {
  seed: number;
  /** Probabilities of a datagram, either way. */
  loss: number;
  duplication: number;
  /** Milliseconds: a datagram takes from 0 to this, so that later ones overtake it. */
  delay: number;
}

interface Server {
  requestBlockSize: BlockSize;
  responseBlockSize: BlockSize;
  response: Uint8Array;
  /** How it answers: in the acknowledgement, or separately and confirmable or not; by chance where there are more. */
  manners: number[];
  saysSize2: boolean;
}

/** One server of one resource: it answers POST and GET with a body, and keeps block state by token, as strict ones do. */
class SimulatedServer {
  readonly #peer: FakePeer;
  readonly #time: FakeTime;
  readonly #network: Network;
  readonly #server: Server;
  readonly #random: () => number;
  /** What was sent for a message ID of the client: the same again for a duplicate. */
  readonly #answers = new Map<number, Uint8Array>();
  /** Separate responses that the client has not acknowledged, by their message ID. */
  readonly #unacknowledged = new Set<number>();
  readonly #uploads = new Map<string, Uint8Array>();
  #messageId: number;
  /** Bodies that were received whole. */
  readonly received: Uint8Array[] = [];

  constructor(peer: FakePeer, time: FakeTime, network: Network, server: Server) {
    this.#peer = peer;
    this.#time = time;
    this.#network = network;
    this.#server = server;
    this.#random = randomFrom(network.seed);
    this.#messageId = Math.floor(this.#random() * 65536);
    peer.onMessage = (bytes) => this.#carry(() => this.#receive(decode(bytes)));
  }

  /** The network, either way. */
  #carry(arrive: () => void): void {
    const { loss, duplication, delay } = this.#network;
    for (let copies = this.#random() < duplication ? 2 : 1; copies > 0; copies--) {
      if (this.#random() >= loss) this.#time.set(arrive, Math.floor(this.#random() * delay));
    }
  }

  #send(bytes: Uint8Array): void {
    this.#carry(() => this.#peer.deliver(bytes));
  }

  #receive(request: DecodedMessage): void {
    if (request.type !== MessageType.CON) {
      this.#unacknowledged.delete(request.messageId);
      return;
    }
    const known = this.#answers.get(request.messageId);
    if (known) {
      this.#send(known);
      return;
    }
    const { code, options, payload } = this.#respond(request);
    const manner = this.#server.manners[Math.floor(this.#random() * this.#server.manners.length)];
    const { messageId, token } = request;
    const piggybacked = toBytes({ type: MessageType.ACK, code, messageId, token, options, payload });
    const empty = { type: MessageType.ACK, code: Code.EMPTY, messageId, token: NONE, options: [], payload: NONE };
    const answer = manner === MessageType.ACK ? piggybacked : toBytes(empty);
    this.#answers.set(messageId, answer);
    this.#send(answer);
    if (manner !== MessageType.ACK) this.#sendSeparate({ type: manner, code, messageId: 0, token, options, payload });
  }

  #sendSeparate(response: Message): void {
    response.messageId = this.#messageId;
    this.#messageId = (this.#messageId + 1) & 0xffff;
    const bytes = toBytes(response);
    if (response.type === MessageType.CON) {
      this.#unacknowledged.add(response.messageId);
      this.#retransmit(bytes, response.messageId, 2000);
    }
    this.#time.set(() => this.#send(bytes), Math.floor(this.#random() * this.#network.delay));
  }

  #retransmit(bytes: Uint8Array, messageId: number, timeout: number): void {
    this.#time.set(() => {
      if (!this.#unacknowledged.has(messageId)) return;
      this.#send(bytes);
      if (timeout < 32_000) this.#retransmit(bytes, messageId, 2 * timeout);
    }, timeout);
  }

  #respond(request: DecodedMessage): { code: number; options: Option[]; payload: Uint8Array } {
    const block1 = request.options.find(({ number }) => number === OptionNumber.BLOCK1);
    const block2 = request.options.find(({ number }) => number === OptionNumber.BLOCK2);
    const asked = block2 ? decodeBlock(block2.value) : { number: 0, size: this.#server.responseBlockSize };
    const options: Option[] = [];
    if (asked.number === 0) {
      const upload = this.#upload(request, block1?.value, options);
      if (upload !== Code.EMPTY) return { code: upload, options, payload: NONE };
    }
    const size = Math.min(asked.size, this.#server.responseBlockSize) as BlockSize;
    const body = this.#server.response;
    const start = asked.number * asked.size;
    const more = start + size < body.length;
    options.push({ number: OptionNumber.ETAG, value: Uint8Array.of(1, 2) });
    if (this.#server.saysSize2) options.push({ number: OptionNumber.SIZE2, value: body.length });
    const block = encodeBlock({ number: start / size, more, size });
    if (block2 || more) options.push({ number: OptionNumber.BLOCK2, value: block });
    return { code: Code.CHANGED, options, payload: body.subarray(start, start + size) };
  }

  /** The code to answer a block of a request body with; EMPTY where the body is whole. */
  #upload(request: DecodedMessage, block1: Uint8Array | undefined, options: Option[]): number {
    if (!block1) {
      this.received.push(request.payload);
      return Code.EMPTY;
    }
    const { number, more, size } = decodeBlock(block1);
    const key = Buffer.from(request.token).toString("hex");
    const before = number === 0 ? NONE : this.#uploads.get(key);
    if (!before || before.length !== number * size) return Code.REQUEST_ENTITY_INCOMPLETE;
    const body = Uint8Array.from([...before, ...request.payload]);
    this.#uploads.set(key, body);
    const preferred = Math.min(size, this.#server.requestBlockSize) as BlockSize;
    options.push({ number: OptionNumber.BLOCK1, value: encodeBlock({ number, more, size: preferred }) });
    if (more) return Code.CONTINUE;
    this.received.push(body);
    return Code.EMPTY;
  }
}

const blockSizes = fc.nat(6).map(blockSize);
const bodies = fc
  .oneof(fc.nat(64), fc.nat(1500))
  .map((length) => Uint8Array.from({ length }, (_, at) => (at * 7 + (at >> 4)) & 0xff));
const manners = fc.uniqueArray(fc.constantFrom(MessageType.ACK, MessageType.CON, MessageType.NON), { minLength: 1 });
const servers: fc.Arbitrary<Server> = fc.record({
  requestBlockSize: blockSizes,
  responseBlockSize: blockSizes,
  response: bodies,
  manners,
  saysSize2: fc.boolean(),
});
const networks = (losses: fc.Arbitrary<number>): fc.Arbitrary<Network> =>
  fc.record({
    seed: fc.integer(),
    loss: losses,
    duplication: fc.constantFrom(0, 0.2, 0.5),
    // Less than a fourth of ACK_TIMEOUT is never taken for a loss, by either side; more is, and then is a late duplicate.
    delay: fc.constantFrom(1, 450, 5000),
  });

interface Outcome {
  response?: CoAPResponse;
  error?: unknown;
  server: SimulatedServer;
  time: FakeTime;
}

const TRANSMISSION: Transmission = {
  ackTimeout: 2000,
  ackRandomFactor: 1.5,
  maxRetransmit: 4,
  responseTimeout: 60_000,
};
/** MAX_TRANSMIT_WAIT of RFC 7252 section 4.8.2, and what a server may take then. */
const LONGEST_EXCHANGE = 93_000 + TRANSMISSION.responseTimeout;

async function transfer(network: Network, server: Server, size: BlockSize, payload: Uint8Array): Promise<Outcome> {
  const time = new FakeTime();
  const peer = new FakePeer(time);
  const simulated = new SimulatedServer(peer, time, network, server);
  const client = new CoAPClient({
    socket: { io: FakeSocket, peer },
    timer: time,
    blockSize: size,
    random: randomFrom(~network.seed),
    transmission: TRANSMISSION,
  });
  const outcome: Outcome = { server: simulated, time };
  const request = client.request({ method: "POST", path: "/x", payload }).then(
    (response) => {
      outcome.response = response;
    },
    (error: unknown) => {
      outcome.error = error;
    },
  );
  // Two restarts are allowed, and no block is smaller than 16 bytes.
  const exchanges = 3 * (payload.length / 16 + 1) + server.response.length / 16 + 1;
  await time.finish(exchanges * LONGEST_EXCHANGE);
  assert.ok(outcome.response || outcome.error, "neither a response nor an error within the bounded time");
  await request;
  client.close();
  return outcome;
}

describe("a block-wise transfer", () => {
  it("over a network that loses, doubles and reorders gives the right bodies, or a TimeoutError in bounded time", async () => {
    let completed = 0;
    await fc.assert(
      fc.asyncProperty(
        networks(fc.constantFrom(0, 0.05, 0.2, 0.5)),
        servers,
        blockSizes,
        bodies,
        async (network, server, size, payload) => {
          const { response, error, server: simulated } = await transfer(network, server, size, payload);
          if (!response) {
            assert.ok(error instanceof TimeoutError, String(error));
            return;
          }
          completed++;
          assert.equal(response.code, Code.CHANGED);
          equalBytes(response.payload, server.response);
          equalBytes(simulated.received[simulated.received.length - 1], payload);
          assert.equal(simulated.received.length, 1);
        },
      ),
      { numRuns: 150 },
    );
    assert.ok(completed > 30, `only ${completed} transfers completed`);
  });

  it("always completes where nothing is lost and nothing is late", async () => {
    await fc.assert(
      fc.asyncProperty(
        networks(fc.constant(0)).filter(({ delay }) => delay < 500),
        servers,
        blockSizes,
        bodies,
        async (network, server, size, payload) => {
          const { response, error, server: simulated } = await transfer(network, server, size, payload);
          assert.ok(response, String(error));
          equalBytes(response.payload, server.response);
          equalBytes(simulated.received[0], payload);
        },
      ),
      { numRuns: 100 },
    );
  });

  it("ends in bounded time with a typed error where the server is silent", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), servers, blockSizes, bodies, async (seed, server, size, payload) => {
        const silent = { seed, loss: 1, duplication: 0, delay: 1 };
        const { error, time } = await transfer(silent, server, size, payload);
        assert.ok(error instanceof TimeoutError);
        assert.ok(time.now <= 93_000);
      }),
      { numRuns: 20 },
    );
  });
});

describe("a CoAP client", () => {
  // Replies that are nearly right: of the options that matter, with the request's token and message ID or not.
  const replies = fc.record({
    type: fc.constantFrom(MessageType.ACK, MessageType.ACK, MessageType.CON, MessageType.NON, MessageType.RST),
    code: fc.constantFrom(0x45, 0x44, 0x5f, 0x88, 0x8d, 0x84, 0x01, 0xe1),
    isOurs: fc.boolean(),
    block1: fc.option(fc.nat(0x4f), { nil: undefined }),
    block2: fc.option(fc.nat(0x4f), { nil: undefined }),
    size2: fc.option(fc.nat(0xffffffff), { nil: undefined }),
    payload: octets(40),
  });

  it("given any datagrams ends each request with a response or a typed error", async () => {
    const datagrams = fc.array(fc.oneof(octets(30), replies), { minLength: 1, maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(datagrams, octets(100), async (scripts, payload) => {
        const time = new FakeTime();
        const peer = new FakePeer(time);
        const client = new CoAPClient({ socket: { io: FakeSocket, peer }, timer: time, blockSize: 16 });
        await time.advance(0);
        let ended: unknown;
        client.request({ method: "POST", path: "/x", payload }).then(
          (response) => {
            ended = response;
          },
          (error: unknown) => {
            ended = error;
          },
        );
        for (const script of scripts) {
          const request = decode(peer.sent[peer.sent.length - 1].bytes);
          peer.deliver(script instanceof Uint8Array ? script : replyBytes(script, request));
          await time.advance(100);
        }
        await time.finish(LONGEST_EXCHANGE);
        assert.ok(ended instanceof TorporError || (ended as CoAPResponse | undefined)?.payload, String(ended));
        assert.equal(time.pending, 0);
      }),
      { numRuns: 300 },
    );
  });

  function replyBytes(
    script: typeof replies extends fc.Arbitrary<infer T> ? T : never,
    request: DecodedMessage,
  ): Uint8Array {
    const { type, code, isOurs, block1, block2, size2, payload } = script;
    const options: Option[] = [];
    if (block1 !== undefined) options.push({ number: OptionNumber.BLOCK1, value: block1 });
    if (block2 !== undefined) options.push({ number: OptionNumber.BLOCK2, value: block2 });
    if (size2 !== undefined) options.push({ number: OptionNumber.SIZE2, value: size2 });
    const token = isOurs ? request.token : Uint8Array.of(9, 9);
    return toBytes({ type, code, messageId: request.messageId, token, options, payload });
  }
});
