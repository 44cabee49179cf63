/**
 * A server that spoils its own handshake (RFC 5246 section 7.4, RFC 6347 section 4.2; RFC 8446 section 4, RFC 9147 section 5):
 * one message of its flights, in one way, each time or once. It changes datagrams on their way out, so the engine below does
 * not know. What DTLS 1.3 protects is opened, changed and sealed again with the server's keys.
 *
 *     const deviation = HandshakeDeviation.of("ServerHello", "cut", "always")!;
 *     for (const changed of deviation.apply(datagram, association)) send(changed);
 */

import {
  type Fragment,
  fragmentOf,
  HANDSHAKE,
  HandshakeRecords,
  RECORD_BYTES,
  recordsOf,
} from "./handshake-records.js";
import { RETRY_RANDOM } from "./hello.js";
import { isProtected, type Opened, ProtectedRecords, protectedRecordsOf, UNIFIED_BYTES } from "./protected-records.js";

/** Types of handshake messages (RFC 5246 section 7.4, RFC 6347 section 4.3.2, RFC 5077 section 3.3; RFC 8446 section 4). */
const TYPES = {
  HelloVerifyRequest: 3,
  ServerHello: 2,
  EncryptedExtensions: 8,
  Certificate: 11,
  ServerKeyExchange: 12,
  CertificateRequest: 13,
  CertificateVerify: 15,
  ServerHelloDone: 14,
  NewSessionTicket: 4,
  Finished: 20,
} as const;

/** What a server sends in its handshakes; some of it in one version alone. */
export const HANDSHAKE_MESSAGES = [...Object.keys(TYPES), "HelloRetryRequest", "ChangeCipherSpec"];

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
  /** Where the message of DTLS 1.3, which is protected there, has another form. */
  readonly change13?: Change;
  /** In place of a change of the record in the clear, what becomes of the one that is protected. */
  readonly sealed?: (record: Buffer, argument: number) => Buffer;
  /** The one version of DTLS that has what it changes. */
  readonly only?: "1.2" | "1.3";
  /** What it adds stays in the clear, where the message itself is protected. */
  readonly isClear?: true;
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
    sealed: (record, n) =>
      Buffer.concat([flipped(record.subarray(0, UNIFIED_BYTES), n), record.subarray(UNIFIED_BYTES)]),
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
    sealed: (record) => Buffer.concat([record.subarray(0, 3), uint(2, record.length), record.subarray(UNIFIED_BYTES)]),
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
    isClear: true,
  },
  "fatal-N": {
    says: "is a plaintext fatal alert N instead",
    change: (_, n) => [plain(ALERT, Uint8Array.of(2, n))],
    isClear: true,
  },
  "fatal-sealed-N": { says: "is a fatal alert N instead", change: (_, n) => [plain(ALERT, Uint8Array.of(2, n))] },
  "alert-short": {
    says: "is an alert of one byte instead",
    change: () => [plain(ALERT, Uint8Array.of(2))],
    isClear: true,
  },
  "alert-level": {
    says: "comes after an alert of level 9",
    change: (record) => [plain(ALERT, Uint8Array.of(9, 40)), record],
    isClear: true,
  },
  warnings: {
    says: "comes after 300 plaintext warning alerts",
    change: (record) => [...Array<Buffer>(FLOOD).fill(plain(ALERT, Uint8Array.of(1, 90))), record],
    isClear: true,
  },
  "application-data": {
    says: "comes after application data in the clear",
    change: (record) => [plain(APPLICATION_DATA, Buffer.from("plain")), record],
    isClear: true,
  },
  "early-change": {
    says: "comes after a ChangeCipherSpec",
    change: (record) => [plain(CHANGE_CIPHER_SPEC, Uint8Array.of(1)), record],
    isClear: true,
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
  garbage: {
    says: "comes after a datagram that is no record",
    change: (record) => [Buffer.alloc(40, 0xa5), record],
    isClear: true,
  },
  nothing: { says: "comes after an empty datagram", change: (record) => [Buffer.alloc(0), record], isClear: true },
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

type Place = (body: Buffer) => number;
const inServerHello: Place = (body) => serverHello(body).extensions;
/** EncryptedExtensions and CertificateRequest (RFC 8446 sections 4.3.1 and 4.3.2): extensions at once, or behind a context. */
const atStart: Place = () => 0;
const behindContext: Place = (body) => 1 + body[0]!;

/** A message with more extensions. */
const extended = (place: Place, ...bytes: number[]): Change =>
  ofBody((body) => {
    const extensions = place(body);
    const before = body.length > extensions ? body.subarray(extensions + 2) : Buffer.alloc(0);
    return Buffer.concat([
      body.subarray(0, extensions),
      uint(2, before.length + bytes.length),
      before,
      Buffer.from(bytes),
    ]);
  });

/** A ServerHello with one of its extensions changed, where it has it, or without it. */
const extensionChanged = (number: number, change: (value: Buffer) => Uint8Array | undefined): Change =>
  ofBody((body) => {
    const start = serverHello(body).extensions + 2;
    const parts: Buffer[] = [];
    for (let at = start; at + 4 <= body.length; ) {
      const end = at + 4 + body.readUInt16BE(at + 2);
      const type = body.readUInt16BE(at);
      const value = type === number ? change(body.subarray(at + 4, end)) : body.subarray(at + 4, end);
      if (value !== undefined) {
        parts.push(Buffer.concat([uint(2, type), uint(2, value.length), value]));
      }
      at = end;
    }
    const all = Buffer.concat(parts);
    return Buffer.concat([body.subarray(0, start - 2), uint(2, all.length), all]);
  });

/** ServerKeyExchange (RFC 8422 section 5.4): type of curve, curve, 2, length of the point | hash, signature, length, 2 | … */
const signatureAt: Place = (body) => 4 + body[3]!;

const at = (offset: number | Place, ...bytes: number[]): Change =>
  ofBody((body) => replaced(body, typeof offset === "number" ? offset : offset(body), ...bytes));

const PRE_SHARED_KEY = 41;
const SUPPORTED_VERSIONS = 43;
const COOKIE = 44;
const KEY_SHARE = 51;
const CONNECTION_ID = 54;
const EXTENDED_MASTER_SECRET = 23;
const POINT_FORMATS = 11;
const RENEGOTIATION_INFO = 0xff01;

/** What can be wrong with the extensions of a message, which are at `place`. */
const extensionKinds = (place: Place): Readonly<Record<string, Kind>> => ({
  "extensions-beyond": { says: "has extensions that end beyond the message", change: at(place, 0xff, 0xff) },
  "extension-beyond": {
    says: "has an extension that ends beyond the others",
    change: extended(place, 0xff, 0x77, 0, 200),
  },
  "extension-other": { says: "has an extension that was not offered", change: extended(place, 0, 15, 0, 1, 1) },
});

/** A ServerHello whose key share (RFC 8446 section 4.2.8) is longer or shorter by so many bytes, and says so. */
const shareResized = (by: 1 | -1): Change =>
  extensionChanged(KEY_SHARE, (value) => {
    const key = Buffer.concat([value.subarray(4), Buffer.alloc(1)]).subarray(0, value.length - 4 + by);
    return Buffer.concat([value.subarray(0, 2), uint(2, key.length), key]);
  });

/** A Certificate with its list, which begins at `start`, turned round; each one has bytes behind it that `behind` counts. */
const reversed = (start: number, behind: (body: Buffer, end: number) => number): Change =>
  ofBody((body) => {
    const certificates: Buffer[] = [];
    for (let at = start; at + 3 <= body.length; ) {
      const der = at + 3 + body.readUIntBE(at, 3);
      const end = der + behind(body, der);
      certificates.unshift(body.subarray(at, end));
      at = end;
    }
    return Buffer.concat([body.subarray(0, start), ...certificates]);
  });

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
    ...extensionKinds(inServerHello),
    "extension-cut": { says: "has half of an extension's header", change: extended(inServerHello, 0xff, 0x77) },
    "extension-alpn": {
      says: "has ALPN, which was not offered",
      change: extended(inServerHello, 0, 16, 0, 5, 0, 3, 2, 0x68, 0x32),
    },
    "extension-secret": {
      says: "has an extended_master_secret with content",
      only: "1.2",
      change: extensionChanged(EXTENDED_MASTER_SECRET, () => Uint8Array.of(1)),
    },
    "extension-renegotiation": {
      says: "has a renegotiation_info of another handshake",
      only: "1.2",
      change: extensionChanged(RENEGOTIATION_INFO, () => Uint8Array.of(4, 1, 2, 3, 4)),
    },
    "extension-points": {
      says: "wishes compressed points alone",
      only: "1.2",
      change: extensionChanged(POINT_FORMATS, () => Uint8Array.of(1, 1)),
    },
    "versions-none": {
      says: "does not say that it chooses DTLS 1.3",
      only: "1.3",
      change: extensionChanged(SUPPORTED_VERSIONS, () => undefined),
    },
    "versions-1.2": {
      says: "chooses DTLS 1.2 where DTLS 1.3 is chosen",
      only: "1.3",
      change: extensionChanged(SUPPORTED_VERSIONS, () => Uint8Array.of(0xfe, 0xfd)),
    },
    "versions-other": {
      says: "chooses a version that nobody knows",
      only: "1.3",
      change: extensionChanged(SUPPORTED_VERSIONS, () => Uint8Array.of(0xfe, 0xf0)),
    },
    "suite-changed": {
      says: "chooses another cipher suite than before, one that was offered",
      only: "1.3",
      change: at((body) => serverHello(body).suite, 0x13, 0x01),
    },
    "share-none": { says: "has no key share", only: "1.3", change: extensionChanged(KEY_SHARE, () => undefined) },
    "share-short": {
      says: "has a key share that lacks its last byte",
      only: "1.3",
      change: shareResized(-1),
    },
    "share-long": {
      says: "has a key share with one byte more",
      only: "1.3",
      change: shareResized(1),
    },
    "share-beyond": {
      says: "has a key share that ends beyond its extension",
      only: "1.3",
      change: extensionChanged(KEY_SHARE, (value) => replaced(value, 2, 0xff, 0xff)),
    },
    "share-group": {
      says: "has a key share of a group that was not offered",
      only: "1.3",
      change: extensionChanged(KEY_SHARE, (value) => replaced(value, 0, 0, 25)),
    },
    "share-off-curve": {
      says: "has a point off the curve for its key share",
      only: "1.3",
      change: extensionChanged(KEY_SHARE, (value) => flipped(value, value.length - 1)),
    },
    "key-other": {
      says: "resumes by a ticket that was not shown",
      only: "1.3",
      change: extensionChanged(PRE_SHARED_KEY, () => Uint8Array.of(0, 7)),
    },
    "key-long": {
      says: "says with too many bytes which ticket it resumes by",
      only: "1.3",
      change: extensionChanged(PRE_SHARED_KEY, () => Uint8Array.of(0, 0, 0)),
    },
    retry: {
      says: "asks for another ClientHello, again and again",
      only: "1.3",
      change: ofBody((body) => Buffer.concat([body.subarray(0, 2), RETRY_RANDOM, body.subarray(34)])),
    },
    "connection-id-long": {
      says: "gives a connection ID of 255 bytes",
      only: "1.2",
      change: extensionChanged(CONNECTION_ID, () => Buffer.alloc(256, 255)),
    },
    "connection-id-beyond": {
      says: "gives a connection ID that ends beyond its extension",
      only: "1.2",
      change: extensionChanged(CONNECTION_ID, (value) => flipped(value, 0)),
    },
    "connection-id-empty": {
      says: "has a connection_id extension without content",
      only: "1.2",
      change: extensionChanged(CONNECTION_ID, () => new Uint8Array()),
    },
  },
  HelloRetryRequest: {
    "cookie-empty": {
      says: "has a cookie of no bytes",
      change: extensionChanged(COOKIE, () => Uint8Array.of(0, 0)),
    },
    "cookie-beyond": {
      says: "has a cookie that ends beyond its extension",
      change: extensionChanged(COOKIE, (value) => replaced(value, 0, 0xff, 0xff)),
    },
    "cookie-wrong": {
      says: "has a cookie that the server will not take",
      change: extensionChanged(COOKIE, (value) => flipped(value, value.length - 1)),
    },
    "cookie-none": { says: "asks for nothing else", change: extensionChanged(COOKIE, () => undefined) },
    "group-same": {
      says: "asks for the group whose share was there",
      change: extended(inServerHello, 0, KEY_SHARE, 0, 2, 0, 23),
    },
    "group-other": {
      says: "asks for a group that was not offered",
      change: extended(inServerHello, 0, KEY_SHARE, 0, 2, 0, 25),
    },
    "suite-other": {
      says: "chooses a cipher suite that was not offered",
      change: at((body) => serverHello(body).suite, 0x13, 0x02),
    },
    "suite-changed": {
      says: "chooses another cipher suite than the ServerHello, one that was offered",
      change: at((body) => serverHello(body).suite, 0x13, 0x01),
    },
    "versions-1.2": {
      says: "chooses DTLS 1.2",
      change: extensionChanged(SUPPORTED_VERSIONS, () => Uint8Array.of(0xfe, 0xfd)),
    },
    ...extensionKinds(inServerHello),
  },
  EncryptedExtensions: {
    ...extensionKinds(atStart),
    "extension-early": { says: "takes early data, which was not offered", change: extended(atStart, 0, 42, 0, 0) },
  },
  Certificate: {
    none: {
      says: "has no certificates",
      change: ofBody(() => Buffer.alloc(3)),
      change13: ofBody(() => Buffer.alloc(4)),
    },
    "certificate-empty": {
      says: "has one certificate of no bytes",
      change: ofBody(() => Buffer.from([0, 0, 3, 0, 0, 0])),
      change13: ofBody(() => Buffer.from([0, 0, 0, 5, 0, 0, 0, 0, 0])),
    },
    "list-beyond": {
      says: "has a list that ends beyond the message",
      change: at(0, 0xff, 0xff, 0xff),
      change13: at(1, 0xff, 0xff, 0xff),
    },
    "certificate-beyond": {
      says: "has a certificate that ends beyond the list",
      change: at(3, 0xff, 0xff, 0xff),
      change13: at(4, 0xff, 0xff, 0xff),
    },
    "not-der": {
      says: "has a certificate that is not in DER",
      change: ofBody(() => Buffer.concat([Buffer.from([0, 0, 67, 0, 0, 64]), Buffer.alloc(64, 0x41)])),
      change13: ofBody(() =>
        Buffer.concat([Buffer.from([0, 0, 0, 69, 0, 0, 64]), Buffer.alloc(64, 0x41), Buffer.alloc(2)]),
      ),
    },
    reversed: {
      says: "has its certificates in the wrong order",
      change: reversed(3, () => 0),
      change13: reversed(4, (body, end) => 2 + body.readUInt16BE(end)),
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
  CertificateVerify: {
    "algorithm-rsa": { says: "is signed with RSA", change: at(0, 8, 4) },
    "algorithm-sha1": { says: "is signed with SHA-1", change: at(0, 2, 3) },
    "algorithm-other": { says: "is signed in a way that nobody knows", change: at(0, 0xfe, 0xed) },
    "signature-none": {
      says: "has a signature of no bytes",
      change: ofBody((body) => Buffer.concat([body.subarray(0, 2), Buffer.alloc(2)])),
    },
    "signature-beyond": { says: "has a signature that ends beyond the message", change: at(2, 0xff, 0xff) },
    "signature-zero": {
      says: "has a signature of zeros",
      change: ofBody((body) => Buffer.concat([body.subarray(0, 2), Buffer.from([0, 8, 0x30, 6, 2, 1, 0, 2, 1, 0])])),
    },
  },
  CertificateRequest: {
    context: {
      says: "has a context, which only a later one has",
      only: "1.3",
      change: ofBody((body) => Buffer.concat([Buffer.from([1, 7]), body.subarray(1 + body[0]!)])),
    },
    "extensions-none": {
      says: "does not say which signatures it takes",
      only: "1.3",
      change: ofBody((body) => Buffer.concat([body.subarray(0, 1 + body[0]!), Buffer.alloc(2)])),
    },
    "extensions-beyond": {
      says: "has extensions that end beyond the message",
      only: "1.3",
      change: at(behindContext, 0xff, 0xff),
    },
    "types-none": {
      says: "wishes no type of certificate",
      only: "1.2",
      change: ofBody((body) => Buffer.concat([uint(1, 0), body.subarray(1 + body[0]!)])),
    },
    "types-beyond": { says: "has types that end beyond the message", only: "1.2", change: at(0, 255) },
    "algorithms-beyond": {
      says: "has algorithms that end beyond the message",
      only: "1.2",
      change: at((body) => 1 + body[0]!, 0xff, 0xff),
    },
    "authorities-beyond": {
      says: "has authorities that end beyond the message",
      only: "1.2",
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
      change13: ofBody((body) => Buffer.concat([body.subarray(0, 9 + body[8]!), Buffer.alloc(4)])),
    },
    "ticket-beyond": {
      says: "has a ticket that ends beyond the message",
      change: at(4, 0xff, 0xff),
      change13: at((body) => 9 + body[8]!, 0xff, 0xff),
    },
    "nonce-beyond": { says: "has a nonce that ends beyond the message", only: "1.3", change: at(8, 0xff) },
    "nonce-long": {
      says: "has a nonce of 255 bytes",
      only: "1.3",
      change: ofBody((body) =>
        Buffer.concat([body.subarray(0, 8), Buffer.alloc(256, 255), body.subarray(9 + body[8]!)]),
      ),
    },
    "lifetime-none": { says: "has a ticket of no use any more", only: "1.3", change: at(0, 0, 0, 0, 0) },
    "lifetime-long": { says: "lives for 136 years", change: at(0, 0xff, 0xff, 0xff, 0xff) },
  },
  ChangeCipherSpec: {
    value: { says: "has the value 2", change: (record) => withPayload(record, () => Uint8Array.of(2)) },
  },
  Finished: {
    plain: {
      says: "comes in the clear",
      change: () => [handshake({ type: 20, length: 12, messageSequence: 7, offset: 0, body: Buffer.alloc(12, 7) })],
      isClear: true,
    },
    "epoch-far": { says: "comes in epoch 9", only: "1.2", change: (record) => [replaced(record, 3, 0, 9)] },
  },
};

/** Every way, for people: to any message, then to each one. */
export const HANDSHAKE_WAYS: readonly (readonly [message: string, name: string, says: string, only?: "1.2" | "1.3"])[] =
  [
    ...Object.entries(ANY).map(([name, { says, only }]) => ["MESSAGE", name, says, only] as const),
    ...Object.entries(ONE).flatMap(([message, kinds]) =>
      Object.entries(kinds).map(([name, { says, only }]) => [message, name, says, only] as const),
    ),
  ];

/** The name of a record's message. */
function nameOf(record: Buffer, isSealed: boolean): string | undefined {
  if (record[0] === CHANGE_CIPHER_SPEC) {
    return "ChangeCipherSpec";
  }
  const message = fragmentOf(record);
  if (message === undefined) {
    return record[0] === HANDSHAKE && !isSealed ? "Finished" : undefined;
  }
  if (message.type === TYPES.ServerHello && RETRY_RANDOM.equals(message.body.subarray(2, 34))) {
    return "HelloRetryRequest";
  }
  return Object.entries(TYPES).find(([, type]) => type === message.type)?.[0];
}

/** What the deviation asks of the server's end of an association: its keys. */
export interface RecordKeys {
  recordKeys(epoch: number): Uint8Array | undefined;
}

/**
 * The server's numbers are spread so far that what is put between its records has some too: those that the server knows by
 * an ACK stay apart from those that it never gave.
 */
const SPREAD = 512;

/** One association's protected records as they go out. */
class Sealing {
  readonly #records: ProtectedRecords;
  readonly #last = new Map<number, number>();

  constructor(keys: RecordKeys) {
    this.#records = new ProtectedRecords((epoch) => keys.recordKeys(epoch));
  }

  open(record: Buffer): Opened | undefined {
    return this.#records.open(record);
  }

  seal({ epoch, number }: Opened, type: number, content: Uint8Array): Buffer {
    const next = Math.max(number * SPREAD, (this.#last.get(epoch) ?? -1) + 1);
    this.#last.set(epoch, next);
    return this.#records.seal(epoch, next, type, content);
  }
}

export class HandshakeDeviation {
  readonly #message: string;
  readonly #how: string;
  readonly #kind: Kind;
  readonly #argument: number;
  readonly #times: "always" | "once";
  /** One count for all clients: to each of them numbers only grow, which is all that they demand. */
  readonly #records = new HandshakeRecords(Number.MAX_SAFE_INTEGER);
  readonly #sealings = new WeakMap<RecordKeys, Sealing>();
  #held: (() => Buffer)[] = [];
  /** How often it was done. */
  count = 0;

  private constructor(message: string, how: string, kind: Kind, argument: number, times: "always" | "once") {
    this.#message = message;
    this.#how = how;
    this.#kind = kind;
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

  /** The datagrams that go out in place of one; `keys` are of the association that it belongs to. */
  apply(datagram: Uint8Array, keys?: RecordKeys): Buffer[] {
    const [first = 0] = datagram;
    if (first !== HANDSHAKE && first !== CHANGE_CIPHER_SPEC && first !== ALERT && !isProtected(datagram)) {
      return [Buffer.from(datagram)];
    }
    const held = this.#held.splice(0);
    const whole: Buffer[] = [];
    let rest = Buffer.from(datagram);
    for (const record of recordsOf(rest)) {
      if (isProtected(record)) {
        break;
      }
      whole.push(...this.#applyTo(record));
      rest = rest.subarray(record.length);
    }
    if (rest.length > 0 && isProtected(rest)) {
      const sealing = this.#sealingOf(keys);
      for (const record of protectedRecordsOf(rest)) {
        whole.push(...this.#applyToProtected(record, sealing));
      }
    }
    return [...whole, ...held.map((late) => late())];
  }

  #sealingOf(keys: RecordKeys | undefined): Sealing | undefined {
    let sealing = keys && this.#sealings.get(keys);
    if (keys !== undefined && sealing === undefined) {
      sealing = new Sealing(keys);
      this.#sealings.set(keys, sealing);
    }
    return sealing;
  }

  #isMeant(record: Buffer, isSealed: boolean): boolean {
    return nameOf(record, isSealed) === this.#message && (this.#times === "always" || this.count === 0);
  }

  #applyTo(record: Buffer): Buffer[] {
    if (!this.#isMeant(record, false)) {
      return [this.#records.numbered(record)];
    }
    this.count++;
    if (this.#how === "late") {
      this.#held.push(() => this.#records.numbered(record));
    }
    if (this.#how === "replay") {
      const once = this.#records.numbered(record);
      return [once, once];
    }
    // A header is as it was made, but for the number, which a record of the same number would not get past.
    return this.#kind.change(record, this.#argument).map((changed) => this.#inTheClear(changed));
  }

  #inTheClear(record: Buffer): Buffer {
    return record.length < RECORD_BYTES ? record : this.#records.numbered(record);
  }

  #applyToProtected(record: Buffer, sealing: Sealing | undefined): Buffer[] {
    const opened = sealing?.open(record);
    if (sealing === undefined || opened === undefined) {
      return [record];
    }
    const whole = plain(opened.type, opened.content);
    const seal = (content: Buffer): Buffer => sealing.seal(opened, content[0]!, content.subarray(RECORD_BYTES));
    if (!this.#isMeant(whole, true)) {
      return [seal(whole)];
    }
    this.count++;
    const { change, change13 = change, sealed, isClear } = this.#kind;
    if (this.#how === "late") {
      this.#held.push(() => seal(whole));
    }
    if (sealed !== undefined || this.#how === "replay") {
      const once = seal(whole);
      return sealed === undefined ? [once, once] : [sealed(once, this.#argument)];
    }
    return change13(whole, this.#argument).map((changed) =>
      isClear && changed !== whole ? this.#inTheClear(changed) : seal(changed),
    );
  }
}
