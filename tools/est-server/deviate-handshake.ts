/**
 * A server that deviates from DTLS 1.2 at one message of its handshake (RFC 6347 section 4.2, RFC 5246 section 7.4): what
 * its engine sends is rewritten on its way out. The engine knows nothing of it.
 *
 *     const deviate = handshakeDeviation("ServerHello", "suite-unoffered", "always");
 *     for (const part of deviate(datagram)) send(part);
 *
 * A record of the handshake in the clear:
 *
 *      0    1       3       5          11       13     14       17            19         22         25
 *      | 22 | FE FD | epoch | sequence | length | type | length | message seq | frag off | frag len | body
 */

/** What a server makes of a datagram. */
export type Deviate = (datagram: Uint8Array) => readonly Uint8Array[];

/** Whether it deviates each time that the message comes, or the first time alone. */
export type Often = "always" | "once";

const CHANGE_CIPHER_SPEC = 20;
const ALERT = 21;
const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
const CONNECTION_ID = 25;
const RECORD_BYTES = 13;
const HEADER_BYTES = 12;
const BODY_AT = RECORD_BYTES + HEADER_BYTES;
/** RFC 9146 section 4 */
const EXTENSION_CONNECTION_ID = 54;

/** The messages of a server, by their type where they are in the clear; the last two are told by their record. */
const TYPES = {
  HelloVerifyRequest: 3,
  ServerHello: 2,
  Certificate: 11,
  ServerKeyExchange: 12,
  CertificateRequest: 13,
  ServerHelloDone: 14,
  NewSessionTicket: 4,
} as const;

export type ServerMessage = keyof typeof TYPES | "ChangeCipherSpec" | "Finished";

// ---- records ----

function record(type: number, content: Uint8Array, { version = 0xfefd, epoch = 0 } = {}): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES + content.length);
  bytes.writeUInt8(type, 0);
  bytes.writeUInt16BE(version, 1);
  bytes.writeUInt16BE(epoch, 3);
  bytes.writeUInt16BE(content.length, 11);
  bytes.set(content, RECORD_BYTES);
  return bytes;
}

/** One handshake message, or a fragment of one. */
interface Message {
  readonly type: number;
  readonly length: number;
  readonly sequence: number;
  readonly offset: number;
  /** What the header says of the fragment's length, unless it is that of the body. */
  readonly fragmentLength?: number;
  readonly body: Buffer;
}

function messageOf(bytes: Buffer): Message {
  return {
    type: bytes[13]!,
    length: bytes.readUIntBE(14, 3),
    sequence: bytes.readUInt16BE(17),
    offset: bytes.readUIntBE(19, 3),
    body: bytes.subarray(BODY_AT),
  };
}

function content({ type, length, sequence, offset, fragmentLength, body }: Message): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + body.length);
  bytes.writeUInt8(type, 0);
  bytes.writeUIntBE(length, 1, 3);
  bytes.writeUInt16BE(sequence & 0xffff, 4);
  bytes.writeUIntBE(offset, 6, 3);
  bytes.writeUIntBE(fragmentLength ?? body.length, 9, 3);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

const handshake = (message: Message): Buffer => record(HANDSHAKE, content(message));

/** The message with another body, whole and with lengths that fit. */
const withBody = (message: Message, body: Buffer): Buffer[] => [handshake({ ...message, length: body.length, body })];

function flipped(bytes: Buffer, at: number, bit = 1): Buffer {
  const copy = Buffer.from(bytes);
  if (copy.length > 0) {
    copy[Math.min(copy.length - 1, Math.max(0, at))]! ^= bit;
  }
  return copy;
}

/** The part of a message from `start` to `end`, as a fragment. */
const part = (message: Message, start: number, end: number): Buffer =>
  handshake({ ...message, offset: message.offset + start, body: message.body.subarray(start, end) });

const uint = (value: number, bytes: 1 | 2 | 3): Buffer => {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
};

/** A vector of TLS: its length in so many bytes, then its content. */
const vector = (lengthBytes: 1 | 2 | 3, bytes: Buffer): Buffer =>
  Buffer.concat([uint(bytes.length, lengthBytes), bytes]);

type How = (message: Message, original: Buffer) => Buffer[];

// ---- what can be done to any message in the clear ----

const thirds = ({ body }: Message): [number, number] => [Math.floor(body.length / 3), Math.ceil((2 * body.length) / 3)];

const GENERAL: Readonly<Record<string, How>> = {
  dropped: () => [],
  doubled: (_, original) => [original, Buffer.from(original)],
  cut: (message) => withBody(message, message.body.subarray(0, -1)),
  "cut-half": (message) => withBody(message, message.body.subarray(0, message.body.length >> 1)),
  emptied: (message) => withBody(message, Buffer.alloc(0)),
  lengthened: (message) => withBody(message, Buffer.concat([message.body, Buffer.alloc(1)])),
  "lengthened-much": (message) => withBody(message, Buffer.concat([message.body, Buffer.alloc(1000)])),
  "ends-early": (message) => [
    handshake({ ...message, fragmentLength: message.body.length + 1, body: message.body.subarray(0, -1) }),
  ],
  "trailing-byte": (message) => [record(HANDSHAKE, Buffer.concat([content(message), Buffer.alloc(1)]))],
  "record-beyond": (_, original) => {
    const copy = Buffer.from(original);
    copy.writeUInt16BE(copy.length - RECORD_BYTES + 100, 11);
    return [copy];
  },
  "record-empty": () => [record(HANDSHAKE, Buffer.alloc(0))],
  "header-cut": (message) => [record(HANDSHAKE, content(message).subarray(0, HEADER_BYTES - 1))],
  "flip-record-type": (_, original) => [flipped(original, 0)],
  "flip-record-version": (_, original) => [flipped(original, 1, 0x80)],
  "flip-epoch": (_, original) => [flipped(original, 4)],
  "flip-type": (message) => [handshake({ ...message, type: message.type ^ 0x40 })],
  "flip-length": (message) => [handshake({ ...message, length: message.length ^ 1 })],
  "flip-offset": (message) => [handshake({ ...message, offset: message.offset ^ 1 })],
  "flip-fragment-length": (message) => [handshake({ ...message, fragmentLength: message.body.length ^ 1 })],
  "flip-first": (message) => withBody(message, flipped(message.body, 0)),
  "flip-quarter": (message) => withBody(message, flipped(message.body, message.body.length >> 2)),
  "flip-middle": (message) => withBody(message, flipped(message.body, message.body.length >> 1)),
  "flip-last": (message) => withBody(message, flipped(message.body, message.body.length - 1)),
  "sequence-next": (message) => [handshake({ ...message, sequence: message.sequence + 1 })],
  "sequence-before": (message) => [handshake({ ...message, sequence: message.sequence - 1 })],
  "sequence-far": (message) => [handshake({ ...message, sequence: message.sequence + 1000 })],
  "as-hello-request": (message) => [handshake({ ...message, type: 0 })],
  "as-client-hello": (message) => [handshake({ ...message, type: 1 })],
  "as-finished": (message) => [handshake({ ...message, type: 20 })],
  "as-server-hello": (message) => [handshake({ ...message, type: message.type === 2 ? 11 : 2 })],
  "as-server-hello-done": (message) => [handshake({ ...message, type: message.type === 14 ? 12 : 14 })],
  "length-16-million": (message) => [handshake({ ...message, length: 0xffffff })],
  "length-20000": (message) => [handshake({ ...message, length: 20_000 })],
  "fragment-16-million": (message) => [handshake({ ...message, length: 0xffffff, fragmentLength: 0xffffff })],
  "fragment-beyond": (message) => [handshake({ ...message, offset: message.length })],
  "offset-16-million": (message) => [handshake({ ...message, offset: 0xffffff })],
  fragmented: (message) => {
    const [one, two] = thirds(message);
    return [part(message, 0, one), part(message, one, two), part(message, two, message.body.length)];
  },
  "fragments-reversed": (message) => {
    const [one, two] = thirds(message);
    return [part(message, two, message.body.length), part(message, one, two), part(message, 0, one)];
  },
  "fragments-overlapping": (message) => {
    const [one, two] = thirds(message);
    return [part(message, 0, two), part(message, one, message.body.length)];
  },
  "fragments-contradicting": (message) => {
    const [one, two] = thirds(message);
    const other = { ...message, body: flipped(message.body, one) };
    return [part(message, 0, two), part(other, one, message.body.length)];
  },
  "fragments-of-two-lengths": (message) => {
    const [one] = thirds(message);
    return [part(message, 0, one), part({ ...message, length: message.length + 1 }, one, message.body.length)];
  },
  "fragment-missing": (message) => [part(message, 0, thirds(message)[0])],
  "another-after-it": (message, original) => [
    original,
    ...withBody(message, flipped(message.body, message.body.length - 1)),
  ],
  "alert-warning-before": (_, original) => [record(ALERT, Buffer.of(1, 90)), original],
  "alert-unknown-before": (_, original) => [record(ALERT, Buffer.of(1, 255)), original],
  "alert-cut-before": (_, original) => [record(ALERT, Buffer.of(1)), original],
  "alert-fatal-before": (_, original) => [record(ALERT, Buffer.of(2, 40)), original],
  "close-notify-before": (_, original) => [record(ALERT, Buffer.of(1, 0)), original],
  "application-data-before": (_, original) => [record(APPLICATION_DATA, Buffer.from("early")), original],
  "unknown-content-before": (_, original) => [record(99, Buffer.from("?")), original],
  "change-cipher-spec-before": (_, original) => [record(CHANGE_CIPHER_SPEC, Buffer.of(1)), original],
  "next-epoch-before": (_, original) => [record(HANDSHAKE, Buffer.alloc(40, 7), { epoch: 1 }), original],
};

// ---- what can be done to what is in a message ----

interface ServerHello {
  readonly version: number;
  readonly random: Buffer;
  readonly sessionId: Buffer;
  readonly suite: number;
  readonly compression: number;
  readonly extensions: readonly { type: number; data: Buffer }[];
}

function readServerHello(body: Buffer): ServerHello {
  let at = 35 + body[34]!;
  const [suite, compression] = [body.readUInt16BE(at), body[at + 2]!];
  const extensions: { type: number; data: Buffer }[] = [];
  for (at += 5; at + 4 <= body.length; ) {
    const end = at + 4 + body.readUInt16BE(at + 2);
    extensions.push({ type: body.readUInt16BE(at), data: body.subarray(at + 4, end) });
    at = end;
  }
  return {
    ...{ version: body.readUInt16BE(0), random: body.subarray(2, 34), sessionId: body.subarray(35, 35 + body[34]!) },
    ...{ suite, compression, extensions },
  };
}

function writeServerHello({ version, random, sessionId, suite, compression, extensions }: ServerHello): Buffer {
  const all = extensions.map(({ type, data }) => Buffer.concat([uint(type, 2), vector(2, data)]));
  return Buffer.concat([
    ...[uint(version, 2), random, vector(1, sessionId), uint(suite, 2), uint(compression, 1)],
    vector(2, Buffer.concat(all)),
  ]);
}

const hello =
  (change: (hello: ServerHello) => Partial<ServerHello>): How =>
  (message) => {
    const before = readServerHello(message.body);
    return withBody(message, writeServerHello({ ...before, ...change(before) }));
  };

const connectionId =
  (data: Buffer): How =>
  (message) =>
    hello(({ extensions }) => ({
      extensions: [
        ...extensions.filter(({ type }) => type !== EXTENSION_CONNECTION_ID),
        { type: EXTENSION_CONNECTION_ID, data },
      ],
    }))(message, Buffer.alloc(0));

const body =
  (change: (body: Buffer) => Buffer): How =>
  (message) =>
    withBody(message, change(Buffer.from(message.body)));

/** Sets a byte, or two. */
const set = (at: number, value: number, bytes: 1 | 2 = 1): How =>
  body((all) => {
    all.writeUIntBE(value, at, bytes);
    return all;
  });

/*
 * ServerKeyExchange of ECDHE_ECDSA (RFC 8422 section 5.4):
 *
 *   0            1       3        4       4 + point
 *   | curve type | group | length | point | hash, signature | length | signature
 */
const behindPoint = (all: Buffer): number => 4 + all[3]!;
const withPoint = (point: Buffer): How =>
  body((all) => Buffer.concat([all.subarray(0, 3), vector(1, point), all.subarray(behindPoint(all))]));

const PARTICULAR: Readonly<Partial<Record<ServerMessage, Readonly<Record<string, How>>>>> = {
  HelloVerifyRequest: {
    "version-dtls-1.3": set(0, 0xfefc, 2),
    "version-nonsense": set(0, 0x0303, 2),
    "cookie-none": body(() => Buffer.of(0xfe, 0xff, 0)),
    "cookie-other": body(() => Buffer.concat([Buffer.of(0xfe, 0xff, 32), Buffer.alloc(32, 1)])),
    "cookie-255": body(() => Buffer.concat([Buffer.of(0xfe, 0xff, 255), Buffer.alloc(255, 1)])),
    "cookie-beyond": set(2, 255),
  },
  ServerHello: {
    "version-dtls-1.0": hello(() => ({ version: 0xfeff })),
    "version-dtls-1.3": hello(() => ({ version: 0xfefc })),
    "version-tls": hello(() => ({ version: 0x0303 })),
    "suite-unoffered": hello(() => ({ suite: 0xc0ad })),
    "suite-null": hello(() => ({ suite: 0 })),
    "suite-other-offered": hello(({ suite }) => ({ suite: suite === 0xc02b ? 0xc0ac : 0xc02b })),
    compression: hello(() => ({ compression: 1 })),
    "session-id-33": hello(() => ({ sessionId: Buffer.alloc(33, 1) })),
    "session-id-other": hello(() => ({ sessionId: Buffer.alloc(32, 1) })),
    "random-other": hello(() => ({ random: Buffer.alloc(32, 1) })),
    "extensions-none": hello(() => ({ extensions: [] })),
    "extension-unoffered": hello(({ extensions }) => ({
      extensions: [...extensions, { type: 16, data: Buffer.from("0003026832", "hex") }],
    })),
    "extension-unknown": hello(({ extensions }) => ({
      extensions: [...extensions, { type: 0xfafa, data: Buffer.of(1) }],
    })),
    "extension-twice": hello(({ extensions }) => ({ extensions: [...extensions, extensions.at(-1)!] })),
    "extension-beyond": body((all) => flipped(all, 35 + all[34]! + 3, 0x40)),
    "extensions-2000": hello(({ extensions }) => ({
      extensions: [...extensions, ...Array.from({ length: 500 }, () => ({ type: 0xfafa, data: Buffer.alloc(0) }))],
    })),
    "connection-id-255": connectionId(vector(1, Buffer.alloc(255, 1))),
    "connection-id-beyond": connectionId(Buffer.of(8, 1)),
    "connection-id-no-length": connectionId(Buffer.alloc(0)),
    "connection-id-other": connectionId(vector(1, Buffer.alloc(4, 1))),
  },
  Certificate: {
    "list-empty": body(() => Buffer.alloc(3)),
    "list-beyond": body((all) => flipped(all, 2)),
    "certificate-beyond": body((all) => flipped(all, 3)),
    "certificate-empty": body(() => vector(3, vector(3, Buffer.alloc(0)))),
    "certificate-no-der": body(() => vector(3, vector(3, Buffer.alloc(300, 0x55)))),
    "certificates-doubled": body((all) => vector(3, Buffer.concat([all.subarray(3), all.subarray(3)]))),
  },
  ServerKeyExchange: {
    "curve-explicit": set(0, 1),
    "group-p384": set(1, 24, 2),
    "group-x25519": set(1, 29, 2),
    "group-unknown": set(1, 0xfafa, 2),
    "point-off-curve": body((all) => flipped(all, 20)),
    "point-infinity": withPoint(Buffer.of(0)),
    "point-empty": withPoint(Buffer.alloc(0)),
    "point-compressed": withPoint(Buffer.alloc(33, 2)),
    "point-zero": withPoint(Buffer.concat([Buffer.of(4), Buffer.alloc(64)])),
    "point-beyond": set(3, 255),
    "hash-sha1": body((all) => {
      all[behindPoint(all)] = 2;
      return all;
    }),
    "signature-rsa": body((all) => {
      all[behindPoint(all) + 1] = 1;
      return all;
    }),
    "signature-empty": body((all) => Buffer.concat([all.subarray(0, behindPoint(all) + 2), Buffer.alloc(2)])),
    "signature-beyond": body((all) => flipped(all, behindPoint(all) + 2, 0x40)),
    "signature-other": body((all) => flipped(all, all.length - 5)),
  },
  CertificateRequest: {
    "types-none": body((all) => Buffer.concat([Buffer.of(0), all.subarray(1 + all[0]!)])),
    "types-beyond": set(0, 255),
    "algorithms-none": body((all) => {
      const at = 1 + all[0]!;
      return Buffer.concat([all.subarray(0, at), Buffer.alloc(2), all.subarray(at + 2 + all.readUInt16BE(at))]);
    }),
    "names-beyond": body((all) => {
      const at = 1 + all[0]!;
      const names = at + 2 + all.readUInt16BE(at);
      all.writeUInt16BE(0xffff, names);
      return all;
    }),
  },
  NewSessionTicket: {
    "lifetime-huge": body((all) => {
      all.writeUInt32BE(0xffffffff, 0);
      return all;
    }),
    "ticket-empty": body((all) => Buffer.concat([all.subarray(0, 4), Buffer.alloc(2)])),
    "ticket-beyond": set(4, 0xffff, 2),
  },
};

/** Of the record ChangeCipherSpec, in the clear, and of Finished, which is protected. */
const OF_RECORDS: Readonly<
  Record<"ChangeCipherSpec" | "Finished", Readonly<Record<string, (original: Buffer) => Buffer[]>>>
> = {
  ChangeCipherSpec: {
    dropped: () => [],
    doubled: (original) => [original, Buffer.from(original)],
    "value-2": () => [record(CHANGE_CIPHER_SPEC, Buffer.of(2))],
    empty: () => [record(CHANGE_CIPHER_SPEC, Buffer.alloc(0))],
    long: () => [record(CHANGE_CIPHER_SPEC, Buffer.of(1, 1))],
    "epoch-1": () => [record(CHANGE_CIPHER_SPEC, Buffer.of(1), { epoch: 1 })],
    "version-nonsense": () => [record(CHANGE_CIPHER_SPEC, Buffer.of(1), { version: 0x1234 })],
    "alert-fatal-before": (original) => [record(ALERT, Buffer.of(2, 40)), original],
    "alert-fatal-instead": () => [record(ALERT, Buffer.of(2, 51))],
    "application-data-instead": () => [record(APPLICATION_DATA, Buffer.from("early"))],
  },
  Finished: {
    dropped: () => [],
    doubled: (original) => [original, Buffer.from(original)],
    "in-the-clear": () => [handshake({ type: 20, length: 12, sequence: 7, offset: 0, body: Buffer.alloc(12) })],
    "in-the-clear-before": (original) => [
      handshake({ type: 20, length: 12, sequence: 7, offset: 0, body: Buffer.alloc(12) }),
      original,
    ],
    cut: (original) => {
      const copy = Buffer.from(original.subarray(0, -1));
      copy.writeUInt16BE(copy.length - RECORD_BYTES, 11);
      return [copy];
    },
    empty: (original) => [record(original[0]!, Buffer.alloc(0), { epoch: 1 })],
    "record-beyond": (original) => [flipped(original, 11)],
    "flip-type": (original) => [flipped(original, 0)],
    "flip-version": (original) => [flipped(original, 2)],
    "flip-epoch": (original) => [flipped(original, 4, 2)],
    "flip-sequence": (original) => [flipped(original, 10)],
    "flip-nonce": (original) => [flipped(original, RECORD_BYTES)],
    "flip-content": (original) => [flipped(original, RECORD_BYTES + 10)],
    "flip-tag": (original) => [flipped(original, original.length - 1)],
    "alert-fatal-before": (original) => [record(ALERT, Buffer.of(2, 40)), original],
    "alert-fatal-instead": () => [record(ALERT, Buffer.of(2, 51))],
    "garbage-before": (original) => [record(APPLICATION_DATA, Buffer.alloc(60, 9), { epoch: 1 }), original],
    "next-epoch-before": (original) => [record(HANDSHAKE, Buffer.alloc(60, 9), { epoch: 2 }), original],
  },
};

/** Comes only behind the record that follows it; a kind of its own, for it needs more than its message. */
const SWAPPED = "swapped";

const isInClear = (message: ServerMessage): message is keyof typeof TYPES => message in TYPES;

/** All messages of a server. */
export const SERVER_MESSAGES: readonly ServerMessage[] = [
  ...(Object.keys(TYPES) as ServerMessage[]),
  "ChangeCipherSpec",
  "Finished",
];

/** All that can be done to a message. */
export function deviationsOf(message: ServerMessage): readonly string[] {
  return isInClear(message)
    ? [...Object.keys(GENERAL), SWAPPED, ...Object.keys(PARTICULAR[message] ?? {})]
    : [...Object.keys(OF_RECORDS[message]), SWAPPED];
}

/** Which message a record of a server is. */
function messageIn(bytes: Buffer): ServerMessage | undefined {
  const epoch = bytes.readUInt16BE(3);
  if (bytes[0] === CHANGE_CIPHER_SPEC && epoch === 0) {
    return "ChangeCipherSpec";
  }
  if (epoch === 1 && (bytes[0] === HANDSHAKE || bytes[0] === CONNECTION_ID)) {
    return bytes[0] === HANDSHAKE ? "Finished" : undefined;
  }
  const type = bytes[0] === HANDSHAKE && epoch === 0 && bytes.length >= BODY_AT ? bytes[13] : undefined;
  return (Object.keys(TYPES) as (keyof typeof TYPES)[]).find((name) => TYPES[name] === type);
}

/** @throws RangeError where the message has no such deviation. */
export function handshakeDeviation(target: ServerMessage, how: string, often: Often): Deviate {
  if (!deviationsOf(target).includes(how)) {
    throw new RangeError(`${target} has no deviation "${how}": expected one of ${deviationsOf(target).join(", ")}`);
  }
  let left = often === "once" ? 1 : Number.POSITIVE_INFINITY;
  let sequence = 0;
  const held: Buffer[] = [];

  const change = (bytes: Buffer): Buffer[] => {
    if (messageIn(bytes) !== target || left <= 0) {
      return [bytes, ...held.splice(0)];
    }
    left--;
    if (how === SWAPPED) {
      held.push(bytes);
      return [];
    }
    if (!isInClear(target)) {
      return OF_RECORDS[target][how]!(bytes);
    }
    return (PARTICULAR[target]?.[how] ?? GENERAL[how]!)(messageOf(bytes), bytes);
  };

  /** Records in the clear are numbered anew: one that is inserted would otherwise count as a copy. */
  const numbered = (bytes: Buffer): Uint8Array => {
    const copy = Buffer.from(bytes);
    if (copy.length >= RECORD_BYTES && copy.readUInt16BE(3) === 0) {
      copy.writeUIntBE(sequence++, 5, 6);
    }
    return Uint8Array.from(copy); // with memory of its own, which a Buffer need not have
  };

  return (datagram) => {
    const bytes = Buffer.from(datagram);
    const parts: Uint8Array[] = [];
    for (let at = 0; at + RECORD_BYTES <= bytes.length; ) {
      const end = at + RECORD_BYTES + bytes.readUInt16BE(at + 11);
      parts.push(...change(bytes.subarray(at, end)).map(numbered));
      at = end;
    }
    return parts;
  };
}
