/**
 * A server that deviates from CoAP (RFC 7252, RFC 7959) at one block, with one code, or in one message: what it sends is
 * rewritten on its way out, in front of DTLS. The server knows nothing of it.
 *
 *     const deviate = blockDeviation("Block2", 1, "number-next");
 *     for (const part of deviate(message)) peer.send(part);
 */

import { generate, type ParsedPacket, parse } from "coap-packet";
import type { Deviate } from "./deviate-handshake.js";

type Option = "Block1" | "Block2";

/** A response that is not the only message: acknowledgements alone and resets stay as they are. */
const isResponse = ({ code }: ParsedPacket): boolean => Number(code[0]) >= 2;

interface Block {
  readonly number: number;
  readonly more: boolean;
  readonly szx: number;
}

function uint(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes.subarray(Math.clz32(value) >> 3);
}

const blockValue = ({ number, more, szx }: Block): Buffer => uint(number * 16 + (more ? 8 : 0) + szx);

function blockOf(packet: ParsedPacket, name: Option): Block | undefined {
  const found = packet.options.find((option) => option.name === name);
  if (found === undefined) {
    return undefined;
  }
  const value = found.value.reduce((sum: number, byte: number) => sum * 256 + byte, 0);
  return { number: value >>> 4, more: (value & 8) !== 0, szx: value & 7 };
}

/** An option by its name, or its number. */
type Named = readonly [name: string, value: Buffer];

function message(packet: ParsedPacket, more: Partial<ParsedPacket> = {}): Buffer {
  const { code, confirmable, reset, ack, messageId, token, options, payload } = { ...packet, ...more };
  const named = options.map(({ name, value }) => ({ name, value }));
  return generate({ code, confirmable, reset, ack, messageId, token, options: named, payload }, 70_000);
}

const withOption = (packet: ParsedPacket, ...all: Named[]): ParsedPacket => ({
  ...packet,
  options: [
    ...packet.options.filter(({ name }) => !all.some(([other]) => other === String(name))),
    ...all.map(([name, value]) => ({ name, value }) as unknown as ParsedPacket["options"][number]),
  ],
});

const without = (packet: ParsedPacket, name: string): ParsedPacket => ({
  ...packet,
  options: packet.options.filter((option) => option.name !== name),
});

type How = (packet: ParsedPacket, block: Block, name: Option) => Buffer[];

const changed =
  (change: (block: Block) => Partial<Block>): How =>
  (packet, block, name) => [message(withOption(packet, [name, blockValue({ ...block, ...change(block) })]))];

const answering =
  (code: string, ...options: Named[]): How =>
  (packet) => [
    message(
      { ...packet, payload: Buffer.alloc(0) },
      { code, options: withOption({ ...packet, options: [] }, ...options).options },
    ),
  ];

const BLOCKS: Readonly<Record<string, How>> = {
  "number-next": changed(({ number }) => ({ number: number + 1 })),
  "number-before": changed(({ number }) => ({ number: Math.max(0, number - 1) })),
  "number-first": changed(() => ({ number: 0 })),
  "number-far": changed(() => ({ number: 0xfffff })),
  "size-smaller": changed(({ szx }) => ({ szx: szx - 1 })),
  "size-larger": changed(({ szx }) => ({ szx: Math.min(6, szx + 1) })),
  "size-reserved": changed(() => ({ szx: 7 })),
  "more-wrong": changed(({ more }) => ({ more: !more })),
  "option-missing": (packet, _, name) => [message(without(packet, name))],
  "option-empty": (packet, _, name) => [message(withOption(packet, [name, Buffer.alloc(0)]))],
  "option-4-bytes": (packet, _, name) => [message(withOption(packet, [name, Buffer.alloc(4, 1)]))],
  "option-twice": (packet, block, name) => [
    message({
      ...packet,
      options: [...packet.options, { name, value: blockValue({ ...block, number: block.number + 1 }) } as never],
    }),
  ],
  "other-option-too": (packet, block, name) => [
    message(withOption(packet, [name === "Block1" ? "Block2" : "Block1", blockValue({ ...block, number: 5 })])),
  ],
  "payload-shorter": (packet) => [message({ ...packet, payload: packet.payload.subarray(0, -1) })],
  "payload-longer": (packet) => [message({ ...packet, payload: Buffer.concat([packet.payload, Buffer.alloc(1)]) })],
  "payload-none": (packet) => [message({ ...packet, payload: Buffer.alloc(0) })],
  "payload-other": (packet) => [message({ ...packet, payload: Buffer.alloc(packet.payload.length, 0x55) })],
  "size2-small": (packet) => [message(withOption(packet, ["Size2", uint(1)]))],
  "size2-huge": (packet) => [message(withOption(packet, ["Size2", uint(0xffffffff)]))],
  "size1-huge": (packet) => [message(withOption(packet, ["Size1", uint(0xffffffff)]))],
  "etag-other": (packet) => [message(withOption(packet, ["ETag", Buffer.from("other")]))],
  "etag-missing": (packet) => [message(without(packet, "ETag"))],
  "etag-9-bytes": (packet) => [message(withOption(packet, ["ETag", Buffer.alloc(9, 1)]))],
  "format-other": (packet) => [message(withOption(packet, ["Content-Format", uint(40)]))],
  "answers-2.31": (packet) => [message(packet, { code: "2.31" })],
  "answers-2.04": answering("2.04"),
  "answers-4.08": answering("4.08"),
  "answers-4.13": answering("4.13"),
  "answers-4.13-smaller": (packet, block, name) =>
    answering("4.13", ["Block1", blockValue({ ...block, szx: Math.max(0, block.szx - 1) })])(packet, block, name),
  "answers-4.13-larger": (packet, block, name) =>
    answering("4.13", ["Block1", blockValue({ ...block, szx: 6 })])(packet, block, name),
  "answers-5.00": answering("5.00"),
  "answers-5.03-for-ever": answering("5.03", ["Max-Age", uint(0xffffffff)]),
  dropped: () => [],
  doubled: (packet) => [message(packet), message(packet)],
};

export const BLOCK_DEVIATIONS: readonly string[] = Object.keys(BLOCKS);

/** What each CoAP message of the server becomes. */
const rewriting =
  (rewrite: (packet: ParsedPacket, bytes: Buffer) => Buffer[] | undefined): Deviate =>
  (datagram) => {
    const bytes = Buffer.from(datagram);
    return (rewrite(parse(bytes), bytes) ?? [bytes]).map((part) => Uint8Array.from(part));
  };

/** At the block of that number; of Block1 that is the acknowledgement of it. Each time that it comes. */
export function blockDeviation(option: Option, number: number, how: string): Deviate {
  const change = BLOCKS[how];
  if (change === undefined) {
    throw new RangeError(`no deviation of blocks is "${how}": expected one of ${BLOCK_DEVIATIONS.join(", ")}`);
  }
  return rewriting((packet) => {
    const block = blockOf(packet, option);
    return isResponse(packet) && block?.number === number ? change(packet, block, option) : undefined;
  });
}

/** Every response has this code, 0.00 to 7.31, in place of its own. */
export function codeDeviation(code: string): Deviate {
  const [, high, low] = /^([0-7])\.([0-3]\d)$/.exec(code) ?? [];
  if (high === undefined || Number(low) > 31) {
    throw new RangeError(`"${code}" is no CoAP code: expected 0.00 to 7.31`);
  }
  return rewriting((packet, bytes) => {
    if (!isResponse(packet)) {
      return undefined;
    }
    const copy = Buffer.from(bytes);
    copy[1] = Number(high) * 32 + Number(low);
    return [copy];
  });
}

/** The first byte: version, type, and length of the token (RFC 7252 section 3). */
const head =
  (change: (first: number) => number) =>
  (_: ParsedPacket, bytes: Buffer): Buffer[] => {
    const copy = Buffer.from(bytes);
    copy[0] = change(copy[0]!);
    return [copy];
  };

const type = (value: number) => head((first) => (first & 0xcf) | (value << 4));
const cutAt = (length: (bytes: Buffer) => number) => (_: ParsedPacket, bytes: Buffer) => [
  Buffer.from(bytes.subarray(0, length(bytes))),
];

/** Behind header and token. */
const optionsAt = (bytes: Buffer): number => 4 + (bytes[0]! & 15);

const inserted = (content: Buffer) => (_: ParsedPacket, bytes: Buffer) => [
  Buffer.concat([bytes.subarray(0, optionsAt(bytes)), content, bytes.subarray(optionsAt(bytes))]),
];

const option =
  (name: string, value: Buffer) =>
  (packet: ParsedPacket): Buffer[] => [message(withOption(packet, [name, value]))];

const MESSAGES: Readonly<Record<string, (packet: ParsedPacket, bytes: Buffer) => Buffer[]>> = {
  dropped: () => [],
  doubled: (_, bytes) => [bytes, bytes],
  "version-0": head((first) => first & 0x3f),
  "version-2": head((first) => (first & 0x3f) | 0x80),
  "type-con": type(0),
  "type-non": type(1),
  "type-rst": type(3),
  "reset-instead": ({ messageId }) => [generate({ code: "0.00", reset: true, messageId })],
  "acknowledged-only": ({ messageId }) => [generate({ code: "0.00", ack: true, messageId })],
  "separate-confirmable": (packet) => [
    generate({ code: "0.00", ack: true, messageId: packet.messageId }),
    message(packet, { ack: false, confirmable: true, messageId: packet.messageId ^ 0x8000 }),
  ],
  "separate-non-confirmable": (packet) => [
    generate({ code: "0.00", ack: true, messageId: packet.messageId }),
    message(packet, { ack: false, confirmable: false, messageId: packet.messageId ^ 0x8000 }),
  ],
  "separate-before-acknowledgement": (packet) => [
    message(packet, { ack: false, confirmable: true, messageId: packet.messageId ^ 0x8000 }),
    generate({ code: "0.00", ack: true, messageId: packet.messageId }),
  ],
  "message-id-other": (packet) => [message(packet, { messageId: packet.messageId ^ 1 })],
  "token-other": (packet) => [message(packet, { token: Buffer.from(packet.token).fill(0x77) })],
  "token-none": (packet) => [message(packet, { token: Buffer.alloc(0) })],
  "token-8": (packet) => [message(packet, { token: Buffer.alloc(8, 0x77) })],
  "token-length-9": head((first) => (first & 0xf0) | 9),
  "token-length-15": head((first) => first | 15),
  empty: cutAt(() => 0),
  "cut-in-header": cutAt(() => 3),
  "cut-in-token": cutAt((bytes) => optionsAt(bytes) - 1),
  "cut-behind-token": cutAt(optionsAt),
  "cut-in-options": cutAt((bytes) => optionsAt(bytes) + 2),
  "cut-in-payload": cutAt((bytes) => bytes.length - 1),
  "marker-without-payload": (packet) => [
    Buffer.concat([message(packet, { payload: Buffer.alloc(0) }), Buffer.of(0xff)]),
  ],
  "option-delta-15": inserted(Buffer.of(0xf1, 0)),
  "option-length-15": inserted(Buffer.of(0x1f, 0)),
  "option-delta-65000": inserted(Buffer.of(0xe0, 0xfd, 0xf0)),
  "option-length-65000": inserted(Buffer.of(0x0e, 0xfd, 0xf0)),
  "option-beyond": (packet) => [Buffer.concat([message(packet, { payload: Buffer.alloc(0) }), Buffer.of(0x0c, 1)])],
  "critical-unknown": option("2053", Buffer.of(1)),
  "elective-unknown": option("2052", Buffer.of(1)),
  "elective-200-bytes": option("2052", Buffer.alloc(200, 1)),
  "if-match": option("If-Match", Buffer.alloc(0)),
  "uri-path": option("Uri-Path", Buffer.from("elsewhere")),
  "location-path": option("Location-Path", Buffer.from("elsewhere")),
  observe: option("Observe", Buffer.of(5)),
  "format-missing": (packet) => [message(without(packet, "Content-Format"))],
  "format-other": option("Content-Format", uint(40)),
  "format-unknown": option("Content-Format", uint(65000)),
  "format-3-bytes": option("Content-Format", Buffer.of(0, 1, 25)),
  "max-age-huge": option("Max-Age", Buffer.alloc(4, 255)),
  "max-age-5-bytes": option("Max-Age", Buffer.alloc(5, 255)),
  "payload-none": (packet) => [message(packet, { payload: Buffer.alloc(0) })],
  "payload-one-byte": (packet) => [message(packet, { payload: Buffer.of(0x30) })],
  "payload-longer": (packet) => [message(packet, { payload: Buffer.concat([packet.payload, Buffer.alloc(1)]) })],
  "request-before": (_, bytes) => [
    generate({ code: "GET" as never, confirmable: true, messageId: 0x4242, token: Buffer.of(9) }),
    bytes,
  ],
  "ping-before": (_, bytes) => [generate({ code: "0.00", confirmable: true, messageId: 0x4243 }), bytes],
  "garbage-before": (_, bytes) => [Buffer.alloc(30, 0xff), bytes],
  "response-to-nobody-before": (packet, bytes) => [
    message(packet, { ack: false, confirmable: true, messageId: 0x4244, token: Buffer.of(1, 2) }),
    bytes,
  ],
  "other-code-after": (packet, bytes) => [bytes, message(packet, { code: "5.00" })],
};

export const MESSAGE_DEVIATIONS: readonly string[] = Object.keys(MESSAGES);

/** Every response, in this way. */
export function messageDeviation(how: string): Deviate {
  const change = MESSAGES[how];
  if (change === undefined) {
    throw new RangeError(`no deviation of messages is "${how}": expected one of ${MESSAGE_DEVIATIONS.join(", ")}`);
  }
  return rewriting((packet, bytes) => (isResponse(packet) ? change(packet, bytes) : undefined));
}
