/**
 * A server whose CoAP responses are wrong (RFC 7252, RFC 7959): as messages, in their options, in what they say of
 * blocks.
 *
 *     const deviation = MessageDeviation.of("szx-7");
 *     for (const datagram of deviation.apply(message)) send(datagram);
 */

import { generate } from "coap-packet";
import type { OutgoingMessage } from "./coap-server.js";

interface Kind {
  readonly says: string;
  readonly change: (message: OutgoingMessage, block: BlockName) => readonly Buffer[];
}

/** The block option that is meant where a change is about one. */
export type BlockName = "Block1" | "Block2";

/** Larger than any message here. */
const BYTES_MAX = 4096;

const encoded = (message: Parameters<typeof generate>[0]): Buffer =>
  generate({ ...message, options: [...(message.options ?? [])] }, BYTES_MAX);

const uint = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes.subarray(Math.clz32(value) >> 3);
};

/** The message in other bytes. */
const bytesOf = (change: (bytes: Buffer, message: OutgoingMessage) => Uint8Array) => (message: OutgoingMessage) => [
  Buffer.from(change(encoded(message), message)),
];

/** The message with other fields. */
const withFields = (change: (message: OutgoingMessage) => Partial<OutgoingMessage>) => (message: OutgoingMessage) => [
  encoded({ ...message, ...change(message) }),
];

/** The message with one option in place of all of this name; none where the value is undefined. */
const option = (name: string, value: (before: Buffer | undefined) => Uint8Array | undefined) =>
  withFields((message) => {
    const next = value(message.options.find((candidate) => candidate.name === name)?.value);
    const others = message.options.filter((candidate) => candidate.name !== name);
    return { options: next === undefined ? others : [...others, { name, value: Buffer.from(next) }] };
  });

interface Block {
  readonly number: number;
  readonly more: number;
  readonly szx: number;
}

/** The message with another block option, where it has one. */
const block =
  (change: (block: Block) => Partial<Block>): Kind["change"] =>
  (message, name) =>
    option(name, (value) => {
      if (value === undefined) {
        return undefined;
      }
      const bits = value.reduce((sum, byte) => sum * 256 + byte, 0);
      const before = { number: bits >>> 4, more: (bits >> 3) & 1, szx: bits & 7 };
      const { number, more, szx } = { ...before, ...change(before) };
      return uint((((number & 0xfffff) << 4) | (more << 3) | (szx & 7)) >>> 0);
    })(message);

const separate = ({ messageId }: OutgoingMessage): number => (messageId + 0x4000) & 0xffff;

const tooLarge =
  (szx: (block: Block) => number): Kind["change"] =>
  (message, name) => {
    const refused = { ...message, code: "4.13", payload: Buffer.alloc(0) };
    return block((before) => ({ number: 0, more: 0, szx: szx(before) }))(refused, name);
  };

/** What can be done to a response. */
const WAYS: Readonly<Record<string, Kind>> = {
  // Messages (RFC 7252 sections 3 and 4)
  silence: { says: "does not come", change: () => [] },
  double: { says: "comes twice", change: (message) => [encoded(message), encoded(message)] },
  reset: { says: "is a Reset", change: ({ messageId }) => [encoded({ code: "0.00", reset: true, messageId })] },
  "empty-ack": {
    says: "is announced by an empty acknowledgement and does not come",
    change: ({ messageId }) => [encoded({ code: "0.00", ack: true, messageId })],
  },
  "code-empty": {
    says: "has code 0.00 with token and payload",
    change: bytesOf((bytes) => Buffer.concat([bytes.subarray(0, 1), Buffer.alloc(1), bytes.subarray(2)])),
  },
  separate: {
    says: "comes separately, after an empty acknowledgement",
    change: (message) => [
      encoded({ code: "0.00", ack: true, messageId: message.messageId }),
      encoded({ ...message, ack: false, confirmable: true, messageId: separate(message) }),
    ],
  },
  "separate-first": {
    says: "comes separately, before the empty acknowledgement",
    change: (message) => [
      encoded({ ...message, ack: false, confirmable: true, messageId: separate(message) }),
      encoded({ code: "0.00", ack: true, messageId: message.messageId }),
    ],
  },
  "non-confirmable": {
    says: "is a non-confirmable message, without acknowledgement",
    change: (message) => [encoded({ ...message, ack: false, messageId: separate(message) })],
  },
  "type-reset": {
    says: "is of type Reset, with a code",
    change: withFields(() => ({ ack: false, reset: true }) as Partial<OutgoingMessage>),
  },
  "message-id": {
    says: "has the message ID of another request",
    change: withFields(({ messageId }) => ({ messageId: messageId ^ 1 })),
  },
  "token-other": {
    says: "has the token of another request",
    change: withFields(({ token }) => ({ token: Buffer.from(token).map((byte) => byte ^ 0x80) as Buffer })),
  },
  "token-none": { says: "has no token", change: withFields(() => ({ token: Buffer.alloc(0) })) },
  "token-8": {
    says: "has a token of 8 bytes that begins as the request's",
    change: withFields(({ token }) => ({ token: Buffer.concat([token, Buffer.alloc(8 - token.length)]) })),
  },
  "token-length": {
    says: "has the reserved token length 15",
    change: bytesOf((bytes) => Buffer.concat([Buffer.from([bytes[0]! | 15]), bytes.subarray(1)])),
  },
  version: {
    says: "is of CoAP version 2",
    change: bytesOf((bytes) => Buffer.concat([Buffer.from([bytes[0]! ^ 0xc0]), bytes.subarray(1)])),
  },
  "cut-header": { says: "has two bytes", change: bytesOf((bytes) => bytes.subarray(0, 2)) },
  "cut-token": { says: "ends before its token does", change: bytesOf((bytes) => bytes.subarray(0, 4)) },
  "cut-option": {
    says: "ends within an option",
    change: bytesOf((_, message) =>
      Buffer.concat([encoded({ ...message, options: [], payload: Buffer.alloc(0) }), Buffer.from([0xc2, 1])]),
    ),
  },
  "payload-marker": {
    says: "has a payload marker and no payload",
    change: bytesOf((_, message) =>
      Buffer.concat([encoded({ ...message, payload: Buffer.alloc(0) }), Buffer.from([0xff])]),
    ),
  },
  "option-delta": {
    says: "has an option with the reserved delta 15",
    change: bytesOf((_, message) =>
      Buffer.concat([
        encoded({ ...message, options: [] }).subarray(0, 4 + message.token.length),
        Buffer.from([0xf0, 0xff, 1]),
      ]),
    ),
  },
  "option-length": {
    says: "has an option with the reserved length 15",
    change: bytesOf((_, message) =>
      Buffer.concat([
        encoded({ ...message, options: [] }).subarray(0, 4 + message.token.length),
        Buffer.from([0xcf, 0xff, 1]),
      ]),
    ),
  },
  "option-overflow": {
    says: "has options whose numbers add up beyond 65,535",
    change: bytesOf((_, message) =>
      Buffer.concat([
        encoded({ ...message, options: [] }).subarray(0, 4 + message.token.length),
        Buffer.from([0xe0, 0xfe, 0xf2, 0xe0, 0xfe, 0xf2]),
      ]),
    ),
  },
  "empty-datagram": { says: "is a datagram of no bytes", change: () => [Buffer.alloc(0)] },
  garbage: {
    says: "comes after 100 bytes that are no message",
    change: (message) => [Buffer.alloc(100, 0xff), encoded(message)],
  },
  ping: {
    says: "comes after a ping",
    change: (message) => [encoded({ code: "0.00", confirmable: true, messageId: separate(message) }), encoded(message)],
  },
  request: {
    says: "comes after a request of the server",
    change: (message) => [
      encoded({ code: "0.01", confirmable: true, messageId: separate(message), token: message.token }),
      encoded(message),
    ],
  },
  // Options (RFC 7252 section 5.4)
  "option-critical": { says: "has the critical option 65001", change: option("65001", () => Uint8Array.of(1)) },
  "option-elective": { says: "has the elective option 65000", change: option("65000", () => Uint8Array.of(1)) },
  "option-path": { says: "has a Uri-Path", change: option("Uri-Path", () => Buffer.from("est")) },
  "option-observe": { says: "has an Observe", change: option("Observe", () => Uint8Array.of(1)) },
  "option-many": {
    says: "has 200 elective options",
    change: withFields(({ options }) => ({
      options: [...options, ...Array.from({ length: 200 }, () => ({ name: "65000", value: Buffer.alloc(1) }))],
    })),
  },
  "format-none": { says: "has no Content-Format", change: option("Content-Format", () => undefined) },
  "format-other": { says: "has the Content-Format 0", change: option("Content-Format", () => new Uint8Array()) },
  "format-reserved": {
    says: "has the Content-Format 65535",
    change: option("Content-Format", () => Uint8Array.of(255, 255)),
  },
  "format-long": {
    says: "has a Content-Format of 3 bytes",
    change: option("Content-Format", (value) => Buffer.concat([Buffer.alloc(1, 1), value ?? Buffer.alloc(0)])),
  },
  "format-twice": {
    says: "has two Content-Formats",
    change: withFields(({ options }) => ({
      options: [...options, { name: "Content-Format", value: Buffer.alloc(0) }],
    })),
  },
  "max-age-huge": { says: "has a Max-Age of 136 years", change: option("Max-Age", () => Buffer.alloc(4, 255)) },
  "max-age-long": { says: "has a Max-Age of 8 bytes", change: option("Max-Age", () => Buffer.alloc(8, 255)) },
  "busy-huge": {
    says: "is 5.03 with a Max-Age of 136 years",
    change: (message) =>
      option("Max-Age", () => Buffer.alloc(4, 255))({
        ...message,
        code: "5.03",
        options: [],
        payload: Buffer.alloc(0),
      }),
  },
  "etag-long": { says: "has an ETag of 9 bytes", change: option("ETag", () => Buffer.alloc(9, 1)) },
  "payload-none": { says: "has no payload", change: withFields(() => ({ payload: Buffer.alloc(0) })) },
  "payload-other": {
    says: "has another payload of the same length",
    change: withFields(({ payload }) => ({ payload: Buffer.alloc(payload.length, 0x30) })),
  },
  "payload-long": {
    says: "has 200 bytes of payload more",
    change: withFields(({ payload }) => ({ payload: Buffer.concat([payload, Buffer.alloc(200)]) })),
  },
  "payload-short": {
    says: "has one byte of payload less",
    change: withFields(({ payload }) => ({ payload: payload.subarray(0, -1) })),
  },
  // Blocks (RFC 7959)
  "number-after": {
    says: "has the number of the block after",
    change: block(({ number }) => ({ number: number + 1 })),
  },
  "number-before": {
    says: "has the number of the block before",
    change: block(({ number }) => ({ number: number - 1 })),
  },
  "number-last": { says: "has the highest number that there is", change: block(() => ({ number: 0xfffff })) },
  "szx-smaller": { says: "says half of the size, and the same number", change: block(({ szx }) => ({ szx: szx - 1 })) },
  "szx-bigger": { says: "says twice the size", change: block(({ szx }) => ({ szx: szx + 1 })) },
  "szx-0": { says: "says 16 bytes", change: block(() => ({ szx: 0 })) },
  "szx-6": { says: "says 1,024 bytes", change: block(() => ({ szx: 6 })) },
  "szx-7": { says: "says the reserved size", change: block(() => ({ szx: 7 })) },
  more: {
    says: "says that more follows where none does, and the other way round",
    change: block(({ more }) => ({ more: 1 - more })),
  },
  "block-none": { says: "has no block option", change: (message, name) => option(name, () => undefined)(message) },
  "block-long": {
    says: "has a block option of 4 bytes",
    change: (message, name) =>
      option(name, (value) => value && Buffer.concat([Buffer.alloc(4 - value.length), value]))(message),
  },
  "block-twice": {
    says: "has its block option twice",
    change: (message, name) =>
      withFields(({ options }) => ({
        options: [...options, ...options.filter((candidate) => candidate.name === name)],
      }))(message),
  },
  "etag-other": { says: "has another ETag", change: option("ETag", () => Uint8Array.of(0xee)) },
  "etag-none": { says: "has no ETag", change: option("ETag", () => undefined) },
  "size-huge": { says: "says that the body has 4 GB", change: option("Size2", () => Buffer.alloc(4, 255)) },
  "size-small": { says: "says that the body has one byte", change: option("Size2", () => Uint8Array.of(1)) },
  "size-1-huge": { says: "says that the request has 4 GB", change: option("Size1", () => Buffer.alloc(4, 255)) },
  "too-large": {
    says: "is 4.13 without a size",
    change: (message, name) => option(name, () => undefined)({ ...message, code: "4.13", payload: Buffer.alloc(0) }),
  },
  "too-large-smaller": {
    says: "is 4.13 and wishes half of the size",
    change: tooLarge(({ szx }) => Math.max(0, szx - 1)),
  },
  "too-large-same": { says: "is 4.13 and wishes the same size", change: tooLarge(({ szx }) => szx) },
  "too-large-bigger": {
    says: "is 4.13 and wishes twice the size",
    change: tooLarge(({ szx }) => Math.min(6, szx + 1)),
  },
  "too-large-16": { says: "is 4.13 and wishes blocks of 16 bytes", change: tooLarge(() => 0) },
  continue: { says: "is 2.31 Continue", change: withFields(() => ({ code: "2.31", payload: Buffer.alloc(0) })) },
};

/** Every way, for people; beside these a code alone, "4.99". */
export const MESSAGE_WAYS: readonly (readonly [name: string, says: string])[] = Object.entries(WAYS).map(
  ([name, { says }]) => [name, says] as const,
);

export class MessageDeviation {
  readonly #change: Kind["change"];

  private constructor(change: Kind["change"]) {
    this.#change = change;
  }

  /** Undefined where there is no such way. A code is one from "0.00" to "7.31". */
  static of(how: string): MessageDeviation | undefined {
    if (/^[0-7]\.([0-2]\d|3[01])$/.test(how)) {
      return new MessageDeviation(withFields(() => ({ code: how })));
    }
    return Object.hasOwn(WAYS, how) ? new MessageDeviation(WAYS[how]!.change) : undefined;
  }

  /** The datagrams that go out in place of a message. */
  apply(message: OutgoingMessage, about: BlockName): readonly Buffer[] {
    return this.#change(message, about);
  }
}
