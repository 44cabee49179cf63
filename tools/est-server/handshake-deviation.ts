/**
 * A server that spoils its own handshake (RFC 5246 section 7.4, RFC 6347 section 4.2): one message of its flights, in
 * one way, each time or once. It changes datagrams on their way out, so the engine below does not know.
 *
 *     const deviation = new HandshakeDeviation("ServerHello", "cut", "always");
 *     for (const changed of deviation.apply(datagram)) send(changed);
 */

import {
  type Fragment,
  fragmentOf,
  HANDSHAKE,
  HandshakeRecords,
  RECORD_BYTES,
  recordsOf,
} from "./handshake-records.js";

/** Types of handshake messages (RFC 5246 section 7.4, RFC 6347 section 4.3.2, RFC 5077 section 3.3). */
const TYPES = {
  HelloVerifyRequest: 3,
  ServerHello: 2,
  Certificate: 11,
  ServerKeyExchange: 12,
  CertificateRequest: 13,
  ServerHelloDone: 14,
  NewSessionTicket: 4,
} as const;

/** What a server sends in its handshakes; the last two are no handshake messages in the clear. */
export const HANDSHAKE_MESSAGES = [...(Object.keys(TYPES) as (keyof typeof TYPES)[]), "ChangeCipherSpec", "Finished"];

const CHANGE_CIPHER_SPEC = 20;
const ALERT = 21;
const APPLICATION_DATA = 23;
/** Bytes of a fragment where a message is cut into some. */
const FRAGMENT_BYTES = 20;
const FLOOD = 300;

const uint = (bytes: number, value: number): Buffer => {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
};

const flipped = (bytes: Uint8Array, at: number): Buffer => {
  const copy = Buffer.from(bytes);
  if (copy.length > 0) {
    copy[at % copy.length]! ^= 1;
  }
  return copy;
};

/** Records that go out in place of one; those in the clear are numbered afterwards. */
type Change = (record: Buffer, argument: number) => Buffer[];

/** A record in the clear. */
function plain(type: number, payload: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([type, 0xfe, 0xfd]), Buffer.alloc(8), uint(2, payload.length), payload]);
}

/** A record with a handshake message, as it says of itself. */
function handshake({ type, length, messageSequence, offset, body }: Fragment, fragmentLength = body.length): Buffer {
  return plain(
    HANDSHAKE,
    Buffer.concat([
      uint(1, type),
      uint(3, length),
      uint(2, messageSequence),
      uint(3, offset),
      uint(3, fragmentLength),
      body,
    ]),
  );
}

/** Any record with another payload; one that is protected is then not authentic. */
const withPayload = (record: Buffer, change: (payload: Buffer) => Uint8Array): Buffer[] => {
  const payload = change(record.subarray(RECORD_BYTES));
  return [Buffer.concat([record.subarray(0, 11), uint(2, payload.length), payload])];
};

/** A change of a handshake message; it leaves other records alone. */
const ofMessage =
  (change: (message: Fragment, argument: number) => Buffer[]): Change =>
  (record, argument) => {
    const message = fragmentOf(record);
    return message === undefined ? [record] : change(message, argument);
  };

/** A change of the content of a message, which then says its new length; of other records, that of their payload. */
const ofBody =
  (change: (body: Buffer, argument: number) => Uint8Array): Change =>
  (record, argument) => {
    const message = fragmentOf(record);
    if (message === undefined) {
      return withPayload(record, (payload) => change(payload, argument));
    }
    const body = change(Buffer.from(message.body), argument);
    return [handshake({ ...message, length: body.length, body })];
  };

function fragments(message: Fragment, bytes = FRAGMENT_BYTES): Fragment[] {
  const parts: Fragment[] = [];
  for (let start = 0; start === 0 || start < message.body.length; start += bytes) {
    parts.push({ ...message, offset: start, body: message.body.subarray(start, start + bytes) });
  }
  return parts;
}

interface Kind {
  readonly says: string;
  readonly change: Change;
}

/** What can be done to any message. Names that end with "-N" take a number. */
const ANY: Readonly<Record<string, Kind>> = {
  drop: { says: "is not sent", change: () => [] },
  double: { says: "is sent twice", change: (record) => [record, record] },
  replay: { says: "is sent twice, as the same record", change: (record) => [record, record] },
  late: { says: "is sent with the server's next datagram", change: () => [] },
  cut: { says: "has half of its content, and says so", change: ofBody((body) => body.subarray(0, body.length >> 1)) },
  empty: { says: "has no content", change: ofBody(() => new Uint8Array()) },
  lengthen: { says: "has one byte more", change: ofBody((body) => Buffer.concat([body, Buffer.alloc(1)])) },
  "lengthen-N": { says: "has N bytes more", change: ofBody((body, n) => Buffer.concat([body, Buffer.alloc(n)])) },
  "flip-N": {
    says: "has a bit flipped in byte N of message or record content",
    change: (record, n) => withPayload(record, (payload) => flipped(payload, n)),
  },
  "flip-record-N": {
    says: "has a bit flipped in byte N of its record's header",
    change: (record, n) => [
      Buffer.concat([flipped(record.subarray(0, RECORD_BYTES), n), record.subarray(RECORD_BYTES)]),
    ],
  },
  "as-N": {
    says: "says that it is of handshake type N",
    change: ofMessage((message, n) => [handshake({ ...message, type: n })]),
  },
  "content-N": {
    says: "says that it is a record of type N",
    change: (record, n) => [Buffer.concat([uint(1, n), record.subarray(1)])],
  },
  "record-length": {
    says: "is in a record longer than its datagram",
    change: (record) => [
      Buffer.concat([record.subarray(0, 11), uint(2, record.length), record.subarray(RECORD_BYTES)]),
    ],
  },
  "record-empty": {
    says: "is a record without content",
    change: (record) => withPayload(record, () => new Uint8Array()),
  },
  "record-huge": {
    says: "is in a record of 16,000 bytes",
    change: (record) =>
      withPayload(record, (payload) => Buffer.concat([payload, Buffer.alloc(16000 - payload.length)])),
  },
  "sequence-before": {
    says: "has the message_seq before its own",
    change: ofMessage((message) => [
      handshake({ ...message, messageSequence: (message.messageSequence + 0xffff) & 0xffff }),
    ]),
  },
  "sequence-after": {
    says: "has the message_seq after its own",
    change: ofMessage((message) => [handshake({ ...message, messageSequence: message.messageSequence + 1 })]),
  },
  "sequence-far": {
    says: "has a message_seq far ahead",
    change: ofMessage((message) => [handshake({ ...message, messageSequence: message.messageSequence + 1000 })]),
  },
  fragments: {
    says: "comes in fragments of 20 bytes",
    change: ofMessage((message) => fragments(message).map((part) => handshake(part))),
  },
  "fragments-reversed": {
    says: "comes in fragments, the last one first",
    change: ofMessage((message) =>
      fragments(message)
        .map((part) => handshake(part))
        .reverse(),
    ),
  },
  "fragments-overlap": {
    says: "comes in fragments that overlap and agree",
    change: ofMessage((message) =>
      fragments(message).map((part) =>
        handshake({ ...part, body: message.body.subarray(part.offset, part.offset + 2 * FRAGMENT_BYTES) }),
      ),
    ),
  },
  "fragments-contradict": {
    says: "comes in fragments that overlap and do not agree",
    change: ofMessage((message) =>
      fragments(message).flatMap((part) => [
        handshake({ ...part, body: Buffer.from(part.body).map((byte) => byte ^ 0xff) }),
        handshake(part),
      ]),
    ),
  },
  "fragments-lengths": {
    says: "comes in fragments that each say another length",
    change: ofMessage((message) =>
      fragments(message).map((part, at) => handshake({ ...part, length: message.length + at })),
    ),
  },
  "fragments-types": {
    says: "comes in fragments that each say another type",
    change: ofMessage((message) =>
      fragments(message).map((part, at) => handshake({ ...part, type: message.type + at })),
    ),
  },
  "fragments-missing": {
    says: "comes in fragments without the first one",
    change: ofMessage((message) =>
      fragments(message)
        .slice(1)
        .map((part) => handshake(part)),
    ),
  },
  "fragment-beyond": {
    says: "is a fragment that ends beyond its message",
    change: ofMessage((message) => [handshake({ ...message, offset: 1 })]),
  },
  "fragment-short": {
    says: "has half of its content, and says that it has all",
    change: ofMessage((message) => [
      handshake({ ...message, body: message.body.subarray(0, message.body.length >> 1) }, message.body.length),
    ]),
  },
  "fragment-huge": {
    says: "is a fragment of 16 MB, of which it has its content",
    change: ofMessage((message) => [handshake({ ...message, length: 0xffffff })]),
  },
  "fragment-far": {
    says: "has fragment offset and length near 16 MB",
    change: ofMessage((message) => [handshake({ ...message, offset: 0xffffff, length: 0xffffff }, 0xffffff)]),
  },
  "warning-N": {
    says: "comes after a plaintext warning alert N",
    change: (record, n) => [plain(ALERT, Uint8Array.of(1, n)), record],
  },
  "fatal-N": { says: "is a plaintext fatal alert N instead", change: (_, n) => [plain(ALERT, Uint8Array.of(2, n))] },
  "alert-short": { says: "is an alert of one byte instead", change: () => [plain(ALERT, Uint8Array.of(2))] },
  "alert-level": {
    says: "comes after an alert of level 9",
    change: (record) => [plain(ALERT, Uint8Array.of(9, 40)), record],
  },
  warnings: {
    says: "comes after 300 plaintext warning alerts",
    change: (record) => [...Array<Buffer>(FLOOD).fill(plain(ALERT, Uint8Array.of(1, 90))), record],
  },
  "application-data": {
    says: "comes after application data in the clear",
    change: (record) => [plain(APPLICATION_DATA, Buffer.from("plain")), record],
  },
  "early-change": {
    says: "comes after a ChangeCipherSpec",
    change: (record) => [plain(CHANGE_CIPHER_SPEC, Uint8Array.of(1)), record],
  },
  "hello-request": {
    says: "comes after a HelloRequest",
    change: ofMessage((message) => [
      handshake({ ...message, type: 0, length: 0, offset: 0, body: new Uint8Array() }),
      handshake({ ...message, messageSequence: message.messageSequence + 1 }),
    ]),
  },
  flood: {
    says: "comes after 300 messages of the future",
    change: ofMessage((message) => [
      ...Array.from({ length: FLOOD }, (_, at) =>
        handshake({ ...message, messageSequence: message.messageSequence + 1 + at }),
      ),
      handshake(message),
    ]),
  },
  garbage: { says: "comes after a datagram that is no record", change: (record) => [Buffer.alloc(40, 0xa5), record] },
  nothing: { says: "comes after an empty datagram", change: (record) => [Buffer.alloc(0), record] },
};

/*
 * ServerHello (RFC 5246 section 7.4.1.3):
 *
 *     0 version   2 random   34 length | session id | suite, 2 | compression | length, 2 | extensions
 */
function serverHello(body: Buffer): { suite: number; extensions: number } {
  const suite = 35 + body[34]!;
  return { suite, extensions: suite + 3 };
}

const replaced = (body: Buffer, at: number, ...bytes: number[]): Buffer => {
  const copy = Buffer.from(body);
  copy.set(bytes, at);
  return copy;
};

/** A ServerHello with more extensions. */
const extended = (...bytes: number[]): Change =>
  ofBody((body) => {
    const { extensions } = serverHello(body);
    const before = body.length > extensions ? body.subarray(extensions + 2) : Buffer.alloc(0);
    return Buffer.concat([
      body.subarray(0, extensions),
      uint(2, before.length + bytes.length),
      before,
      Buffer.from(bytes),
    ]);
  });

/** A ServerHello with one of its extensions changed, where it has it. */
const extensionChanged = (number: number, change: (value: Buffer) => Uint8Array): Change =>
  ofBody((body) => {
    const start = serverHello(body).extensions + 2;
    const parts: Buffer[] = [];
    for (let at = start; at + 4 <= body.length; ) {
      const end = at + 4 + body.readUInt16BE(at + 2);
      const type = body.readUInt16BE(at);
      const value = type === number ? change(body.subarray(at + 4, end)) : body.subarray(at + 4, end);
      parts.push(Buffer.concat([uint(2, type), uint(2, value.length), value]));
      at = end;
    }
    const all = Buffer.concat(parts);
    return Buffer.concat([body.subarray(0, start - 2), uint(2, all.length), all]);
  });

/** ServerKeyExchange (RFC 8422 section 5.4): type of curve, curve, 2, length of the point | hash, signature, length, 2 | … */
const signatureAt = (body: Buffer): number => 4 + body[3]!;

const at = (offset: number | ((body: Buffer) => number), ...bytes: number[]): Change =>
  ofBody((body) => replaced(body, typeof offset === "number" ? offset : offset(body), ...bytes));

const CONNECTION_ID = 54;
const EXTENDED_MASTER_SECRET = 23;
const POINT_FORMATS = 11;
const RENEGOTIATION_INFO = 0xff01;

/** What can be done to one message alone. */
const ONE: Readonly<Record<string, Readonly<Record<string, Kind>>>> = {
  HelloVerifyRequest: {
    "cookie-empty": {
      says: "has a cookie of no bytes",
      change: ofBody((body) => Buffer.from([body[0]!, body[1]!, 0])),
    },
    "cookie-long": {
      says: "has a cookie of 255 bytes",
      change: ofBody((body) => Buffer.concat([body.subarray(0, 2), Buffer.alloc(256, 255)])),
    },
    "cookie-beyond": { says: "has a cookie that ends beyond the message", change: at(2, 255) },
    "cookie-wrong": {
      says: "has a cookie that the server will not take",
      change: ofBody((body) => flipped(body, body.length - 1)),
    },
  },
  ServerHello: {
    "version-1.0": { says: "chooses DTLS 1.0", change: at(0, 0xfe, 0xff) },
    "version-1.3": { says: "chooses DTLS 1.3 by its version", change: at(0, 0xfe, 0xfc) },
    "version-tls": { says: "chooses TLS 1.2", change: at(0, 3, 3) },
    "suite-null": {
      says: "chooses the cipher suite without encryption",
      change: at((body) => serverHello(body).suite, 0, 0),
    },
    "suite-psk": {
      says: "chooses a cipher suite with a shared key",
      change: at((body) => serverHello(body).suite, 0xc0, 0xa8),
    },
    "suite-other": {
      says: "chooses a cipher suite that was not offered",
      change: at((body) => serverHello(body).suite, 0xc0, 0x2c),
    },
    compression: { says: "chooses DEFLATE", change: at((body) => serverHello(body).suite + 2, 1) },
    "session-id-long": {
      says: "gives a session id of 33 bytes",
      change: ofBody((body) =>
        Buffer.concat([body.subarray(0, 34), uint(1, 33), Buffer.alloc(33, 1), body.subarray(35 + body[34]!)]),
      ),
    },
    "session-id-beyond": { says: "gives a session id that ends beyond the message", change: at(34, 255) },
    "extensions-beyond": {
      says: "has extensions that end beyond the message",
      change: at((body) => serverHello(body).extensions, 0xff, 0xff),
    },
    "extension-beyond": { says: "has an extension that ends beyond the others", change: extended(0xff, 0x77, 0, 200) },
    "extension-cut": { says: "has half of an extension's header", change: extended(0xff, 0x77) },
    "extension-other": { says: "has an extension that was not offered", change: extended(0, 15, 0, 1, 1) },
    "extension-alpn": { says: "has ALPN, which was not offered", change: extended(0, 16, 0, 5, 0, 3, 2, 0x68, 0x32) },
    "extension-secret": {
      says: "has an extended_master_secret with content",
      change: extensionChanged(EXTENDED_MASTER_SECRET, () => Uint8Array.of(1)),
    },
    "extension-renegotiation": {
      says: "has a renegotiation_info of another handshake",
      change: extensionChanged(RENEGOTIATION_INFO, () => Uint8Array.of(4, 1, 2, 3, 4)),
    },
    "extension-points": {
      says: "wishes compressed points alone",
      change: extensionChanged(POINT_FORMATS, () => Uint8Array.of(1, 1)),
    },
    "connection-id-long": {
      says: "gives a connection ID of 255 bytes",
      change: extensionChanged(CONNECTION_ID, () => Buffer.alloc(256, 255)),
    },
    "connection-id-beyond": {
      says: "gives a connection ID that ends beyond its extension",
      change: extensionChanged(CONNECTION_ID, (value) => flipped(value, 0)),
    },
    "connection-id-empty": {
      says: "has a connection_id extension without content",
      change: extensionChanged(CONNECTION_ID, () => new Uint8Array()),
    },
  },
  Certificate: {
    none: { says: "has no certificates", change: ofBody(() => Buffer.alloc(3)) },
    "certificate-empty": {
      says: "has one certificate of no bytes",
      change: ofBody(() => Buffer.from([0, 0, 3, 0, 0, 0])),
    },
    "list-beyond": { says: "has a list that ends beyond the message", change: at(0, 0xff, 0xff, 0xff) },
    "certificate-beyond": { says: "has a certificate that ends beyond the list", change: at(3, 0xff, 0xff, 0xff) },
    "not-der": {
      says: "has a certificate that is not in DER",
      change: ofBody(() => Buffer.concat([Buffer.from([0, 0, 67, 0, 0, 64]), Buffer.alloc(64, 0x41)])),
    },
    reversed: {
      says: "has its certificates in the wrong order",
      change: ofBody((body) => {
        const certificates: Buffer[] = [];
        for (let start = 3; start + 3 <= body.length; ) {
          const end = start + 3 + body.readUIntBE(start, 3);
          certificates.unshift(body.subarray(start, end));
          start = end;
        }
        return Buffer.concat([body.subarray(0, 3), ...certificates]);
      }),
    },
  },
  ServerKeyExchange: {
    "curve-explicit": { says: "has a curve by its parameters", change: at(0, 1) },
    "curve-other": { says: "has a curve that was not offered", change: at(1, 0, 29) },
    "curve-unknown": { says: "has a curve that nobody knows", change: at(1, 0xfe, 0xed) },
    "point-none": {
      says: "has a point of no bytes",
      change: ofBody((body) => Buffer.concat([body.subarray(0, 3), uint(1, 0), body.subarray(signatureAt(body))])),
    },
    "point-beyond": { says: "has a point that ends beyond the message", change: at(3, 255) },
    "point-infinity": {
      says: "has the point at infinity",
      change: ofBody((body) =>
        Buffer.concat([body.subarray(0, 3), Buffer.from([1, 0]), body.subarray(signatureAt(body))]),
      ),
    },
    "point-compressed": { says: "has a compressed point", change: at(4, 2) },
    "point-off-curve": {
      says: "has a point off the curve",
      change: ofBody((body) => flipped(body, signatureAt(body) - 1)),
    },
    "hash-md5": { says: "is signed with MD5", change: at(signatureAt, 1) },
    "hash-sha1": { says: "is signed with SHA-1", change: at(signatureAt, 2) },
    "signature-rsa": { says: "is signed with RSA", change: at((body) => signatureAt(body) + 1, 1) },
    "signature-anonymous": {
      says: "says that it is not signed",
      change: ofBody((body) => Buffer.concat([body.subarray(0, signatureAt(body)), Buffer.alloc(4)])),
    },
    "signature-none": {
      says: "has a signature of no bytes",
      change: ofBody((body) => Buffer.concat([body.subarray(0, signatureAt(body) + 2), Buffer.alloc(2)])),
    },
    "signature-beyond": {
      says: "has a signature that ends beyond the message",
      change: at((body) => signatureAt(body) + 2, 0xff, 0xff),
    },
    "signature-zero": {
      says: "has a signature of zeros",
      change: ofBody((body) =>
        Buffer.concat([body.subarray(0, signatureAt(body) + 2), Buffer.from([0, 8, 0x30, 6, 2, 1, 0, 2, 1, 0])]),
      ),
    },
  },
  CertificateRequest: {
    "types-none": {
      says: "wishes no type of certificate",
      change: ofBody((body) => Buffer.concat([uint(1, 0), body.subarray(1 + body[0]!)])),
    },
    "types-beyond": { says: "has types that end beyond the message", change: at(0, 255) },
    "algorithms-beyond": {
      says: "has algorithms that end beyond the message",
      change: at((body) => 1 + body[0]!, 0xff, 0xff),
    },
    "authorities-beyond": {
      says: "has authorities that end beyond the message",
      change: ofBody((body) => {
        const start = 1 + body[0]!;
        return replaced(body, start + 2 + body.readUInt16BE(start), 0xff, 0xff);
      }),
    },
  },
  NewSessionTicket: {
    "ticket-none": {
      says: "has a ticket of no bytes",
      change: ofBody((body) => Buffer.concat([body.subarray(0, 4), uint(2, 0)])),
    },
    "ticket-beyond": { says: "has a ticket that ends beyond the message", change: at(4, 0xff, 0xff) },
    "lifetime-long": { says: "lives for 136 years", change: at(0, 0xff, 0xff, 0xff, 0xff) },
  },
  ChangeCipherSpec: {
    value: { says: "has the value 2", change: (record) => withPayload(record, () => Uint8Array.of(2)) },
  },
  Finished: {
    plain: {
      says: "comes in the clear",
      change: () => [handshake({ type: 20, length: 12, messageSequence: 7, offset: 0, body: Buffer.alloc(12, 7) })],
    },
    "epoch-far": { says: "comes in epoch 9", change: (record) => [replaced(record, 3, 0, 9)] },
  },
};

/** Every way, for people: to any message, then to each one. */
export const HANDSHAKE_WAYS: readonly (readonly [message: string, name: string, says: string])[] = [
  ...Object.entries(ANY).map(([name, { says }]) => ["MESSAGE", name, says] as const),
  ...Object.entries(ONE).flatMap(([message, kinds]) =>
    Object.entries(kinds).map(([name, { says }]) => [message, name, says] as const),
  ),
];

/** How a message is named in the first record of a datagram, or in any. */
function nameOf(record: Buffer): string | undefined {
  if (record[0] === CHANGE_CIPHER_SPEC) {
    return "ChangeCipherSpec";
  }
  const message = fragmentOf(record);
  if (message === undefined) {
    return record[0] === HANDSHAKE ? "Finished" : undefined;
  }
  return Object.entries(TYPES).find(([, type]) => type === message.type)?.[0];
}

export class HandshakeDeviation {
  readonly #message: string;
  readonly #how: string;
  readonly #change: Change;
  readonly #argument: number;
  readonly #times: "always" | "once";
  /** One count for all clients: to each of them numbers only grow, which is all that they demand. */
  readonly #records = new HandshakeRecords(Number.MAX_SAFE_INTEGER);
  #held: Buffer[] = [];
  /** How often it was done. */
  count = 0;

  private constructor(message: string, how: string, kind: Kind, argument: number, times: "always" | "once") {
    this.#message = message;
    this.#how = how;
    this.#change = kind.change;
    this.#argument = argument;
    this.#times = times;
  }

  /** Undefined where there is no such message or way. */
  static of(message: string, how: string, times: "always" | "once"): HandshakeDeviation | undefined {
    const [, name = "", digits] = /^(.*?)(?:-(\d{1,5}))?$/.exec(how) ?? [];
    const kinds = { ...ANY, ...ONE[message] };
    const wanted = Object.hasOwn(kinds, how) ? how : digits === undefined ? name : `${name}-N`;
    if (!HANDSHAKE_MESSAGES.includes(message) || !Object.hasOwn(kinds, wanted) || /-N$/.test(how)) {
      return undefined;
    }
    return new HandshakeDeviation(message, wanted, kinds[wanted]!, Number(digits ?? 0), times);
  }

  /** The datagrams that go out in place of one. */
  apply(datagram: Uint8Array): Buffer[] {
    const [first = 0] = datagram;
    if (first !== HANDSHAKE && first !== CHANGE_CIPHER_SPEC && first !== ALERT) {
      return [Buffer.from(datagram)];
    }
    const held = this.#held.splice(0);
    const whole = [...recordsOf(Buffer.from(datagram))].flatMap((record) => this.#applyTo(record));
    return [...whole, ...held.map((record) => this.#records.numbered(record))];
  }

  #applyTo(record: Buffer): Buffer[] {
    if (nameOf(record) !== this.#message || (this.#times === "once" && this.count > 0)) {
      return [this.#records.numbered(record)];
    }
    this.count++;
    if (this.#how === "late") {
      this.#held.push(record);
    }
    if (this.#how === "replay") {
      const once = this.#records.numbered(record);
      return [once, once];
    }
    // A header is as it was made, but for the number, which a record of the same number would not get past.
    return this.#change(record, this.#argument).map((changed) =>
      changed.length < RECORD_BYTES ? changed : this.#records.numbered(changed),
    );
  }
}
