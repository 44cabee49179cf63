/**
 * The sans-I/O DTLS engine as TypeScript sees it: the C core of src/dtls/dtls.h behind one class. The header is the
 * manual; this file adds types and typed errors. Another DTLS library is another C core with the same functions.
 *
 *     const engine = new Engine();
 *     engine.trust(anchor); engine.identity(key, [certificate]); engine.serverName("est.example.net");
 *     engine.start(now, unixTime);
 */

import { TimeoutError, TorporError } from "../errors.js";
import type { KeyId } from "../pki/key.js";
import { EngineNatives } from "./natives.js";

/** A DTLS association that could not be made or broke. */
export class DTLSError extends TorporError {}

/** The certificate of the server, or its chain, was refused. */
export class CertificateError extends DTLSError {}

/** The peer ended the handshake or the association with a fatal alert. */
export class AlertError extends DTLSError {
  /** RFC 5246 section 7.2 */
  readonly alert: number;

  constructor(alert: number, during: string) {
    super(`the peer ended the ${during} with the alert ${ALERTS[alert] ?? alert}${ADVICE[alert] ?? ""}`);
    this.alert = alert;
  }
}

/** RFC 5246 section 7.2, RFC 6066 section 9, RFC 8446 section 6 */
const ALERTS: Readonly<Record<number, string>> = {
  0: "close_notify",
  10: "unexpected_message",
  20: "bad_record_mac",
  22: "record_overflow",
  40: "handshake_failure",
  42: "bad_certificate",
  43: "unsupported_certificate",
  44: "certificate_revoked",
  45: "certificate_expired",
  46: "certificate_unknown",
  47: "illegal_parameter",
  48: "unknown_ca",
  49: "access_denied",
  50: "decode_error",
  51: "decrypt_error",
  70: "protocol_version",
  71: "insufficient_security",
  80: "internal_error",
  86: "inappropriate_fallback",
  90: "user_canceled",
  109: "missing_extension",
  110: "unsupported_extension",
  112: "unrecognized_name",
  115: "unknown_psk_identity",
  116: "certificate_required",
};

const ADVICE: Readonly<Record<number, string>> = {
  40: ": no common cipher suite or group, or it wants a client certificate; Torpor offers ECDHE_ECDSA with AES_128_CCM_8, AES_128_CCM and AES_128_GCM_SHA256",
  42: ": it refuses this device's certificate",
  45: ": this device's certificate has expired; enrol again with the factory identity",
  46: ": it refuses this device's certificate",
  48: ": it does not know the CA of this device's certificate",
  70: ": it does not speak a version of DTLS that was offered; DTLS 1.3 needs the engine over wolfSSL (--engine wolfssl)",
  112: ": it does not know the server name that was asked for",
  116: ": it wants a client certificate",
};

/** MBEDTLS_X509_BADCERT_* and their meaning, the one that explains most first. */
const VERIFY_FLAGS: readonly (readonly [number, string])[] = [
  [0x40, "there is none, or only such as are signed with an algorithm that is not known"],
  [0x01, "it has expired"],
  [0x0200, "it is not yet valid; is the clock right?"],
  [0x04, "its name or address is not that of the server that was asked for"],
  [0x08, "no trust anchor leads to it; is this the right CA?"],
  [0x02, "it is revoked"],
  [0x0800, "its key usage does not allow this"],
  [0x1000, "its extended key usage is not that of a TLS server"],
  [0x4000, "it is signed with a hash that is not allowed"],
  [0x8000, "it is signed with an algorithm that is not allowed"],
  [0x10000, "its key is too short or of a kind that is not allowed"],
];

/** Errors of mbedTLS that a server brings about, as positive numbers; the rest is for people who read its headers. */
const PROTOCOL_ERRORS: Readonly<Record<number, string>> = {
  30720: "no cipher suite in common",
  30848: "the server closed the connection",
  29184: "the server sent a record that makes no sense",
  29440: "the server sent a message that cannot be decoded",
  31232: "the server sent certificates that cannot be decoded",
  30464: "the server sent a message out of turn",
  26112: "the server chose what was not offered",
  19968:
    "the server's signature does not fit: it began the handshake anew in the midst of it, or does not hold its key",
  // wolfSSL
  326: "the server's version of DTLS is not one that was offered",
  304: "the server does not hold the keys of this handshake",
  343: "the server closed the connection",
  328: "the server sent a message that cannot be decoded",
  306: "the server sent a record that makes no sense",
  416: "the server sent a message that cannot be decoded",
  373: "the server sent a message out of turn",
  394: "the server sent a message out of turn",
  395: "the server sent a message twice",
  421: "the server's share of the key exchange is not usable",
  352: "the server's share of the key exchange is not usable",
  425: "the server chose what was not offered",
  429: "the server answered what was not asked",
  501: "no cipher suite in common",
  505: "the server does not recognise its own cookie",
};

/** What becomes of an association. */
export const EngineState = { IDLE: 0, HANDSHAKE: 1, OPEN: 2, CLOSED: 3, FAILED: 4 } as const;

const FAILURE_TIMEOUT = 1;
const FAILURE_ALERT = 2;
const FAILURE_CERTIFICATE = 3;
const FAILURE_MEMORY = 4;

const ERROR_SIZE = -0x10003;
const ERROR_FORMAT = -0x10004;
const ERROR_BUILD = -0x10005;
const ERROR_SUPPORT = -0x10006;
/** MBEDTLS_ERR_PK_TYPE_MISMATCH */
const ERROR_KEY_MISMATCH = -0x3f00;
/** MBEDTLS_ERR_SSL_FEATURE_UNAVAILABLE and others have no better name than their number. */
const hex = (error: number): string => `-0x${(-error).toString(16).padStart(4, "0")}`;

/** Versions of DTLS (RFC 6347, RFC 9147). */
export type Protocol = "DTLS 1.2" | "DTLS 1.3";

/** How a session can be resumed. */
export type SessionKind = "session" | "ticket";

/** A session that can be resumed later; `data` is secret and loads only in the same build of the library. */
export interface ResumableSession {
  readonly kind: SessionKind;
  readonly data: Uint8Array;
  /** The server's ticket lifetime in seconds, or 0. */
  readonly lifetime: number;
}

/** An association put away for sleep; `data` is secret, good for one restore, and loads only in the same build. */
export interface SavedContext {
  /** How the session in it can be resumed, once the context is of no more use. */
  readonly kind: SessionKind | undefined;
  readonly data: Uint8Array;
  /** The server's ticket lifetime in seconds, or 0. */
  readonly lifetime: number;
}

/** IANA names of the suites that are offered. */
const CIPHER_SUITES: Readonly<Record<number, string>> = {
  4865: "TLS_AES_128_GCM_SHA256",
  4868: "TLS_AES_128_CCM_SHA256",
  4869: "TLS_AES_128_CCM_8_SHA256",
  49326: "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
  49324: "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",
  49195: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
};

/** Groups of the key exchange by the names that IANA gave them (RFC 8446 section 4.2.7). */
const GROUPS: Readonly<Record<string, number>> = {
  secp256r1: 23,
  secp384r1: 24,
  SecP256r1MLKEM768: 4587,
  X25519MLKEM768: 4588,
};

/** The name and version of the library that keeps keys and reads certificates. */
export function libraryVersion(this: unknown): string {
  return native("xs_torpor_crypto_version").call(this);
}

/** The name and version of the library that runs DTLS, and what that lacks. */
export function dtlsLibrary(this: unknown): string {
  return native("xs_torpor_dtls_library").call(this);
}

/** The error of a handshake that took longer than `patience`, milliseconds. */
export function unfinished(patience: number): TimeoutError {
  const spoken = dtlsLibrary().includes("without DTLS 1.3") ? "DTLS 1.2" : "DTLS 1.2 or 1.3";
  return new TimeoutError(
    `the server did not finish the DTLS handshake within ${patience / 1000} s: is it there, and does it speak ${spoken}?`,
  );
}

/** A number for this build of the library: what it saves loads only where this number is the same. */
export function buildFingerprint(this: unknown): number {
  return native("xs_torpor_dtls_build").call(this);
}

/**
 * No bytes: the functions that write into a buffer only tell their length then. Made anew each time: a constant lies in
 * the ROM image of a device, and is read-only.
 */
const noRoom = (): Uint8Array => new Uint8Array();

/** One association. The order of calls, times and buffers are those of dtls.h. */
export class Engine extends EngineNatives {
  /** How long the handshake may take, milliseconds; for the error message. */
  #patience = 60000;

  constructor() {
    super();
    this.create();
  }

  /** Makes the C object; the server role of the tests makes another one. */
  protected create(): void {
    const error: number = this.nativeCreate();
    if (error < 0) {
      throw new DTLSError("no memory for a DTLS association");
    }
  }

  /** Adds a trust anchor in DER. @throws DTLSError where it is no certificate that the library reads. */
  trust(certificate: Uint8Array): void {
    const error: number = this.nativeTrust(certificate);
    if (error < 0) {
      throw new DTLSError(`the trust anchor is no usable X.509 certificate (error ${hex(error)})`);
    }
  }

  /**
   * The client's certificate, then those above it, in DER, and the key of the first.
   * @throws DTLSError where one is no certificate; CertificateError where the key does not match.
   */
  identity(key: KeyId, chain: readonly Uint8Array[]): void {
    for (const certificate of chain) {
      const error: number = this.nativeIdentity(key, certificate);
      if (error === ERROR_KEY_MISMATCH) {
        throw new CertificateError("the private key does not belong to the client certificate");
      }
      if (error < 0) {
        throw new DTLSError(`the client certificate or its key is not usable (error ${hex(error)})`);
      }
    }
  }

  /** The DNS name that the server's certificate must carry; sent as SNI. */
  serverName(name: string): void {
    const error: number = this.nativeServerName(name);
    if (error < 0) {
      throw new DTLSError(`"${name}" cannot be a server name (error ${hex(error)})`);
    }
  }

  /** The IP address, 4 or 16 bytes, that the server's certificate must carry; no SNI is sent. */
  serverAddress(address: Uint8Array): void {
    const error: number = this.nativeServerAddress(address);
    if (error < 0) {
      throw new DTLSError(`expected an IP address of 4 or 16 bytes, not ${address.length}`);
    }
  }

  /** Largest UDP payload in bytes, 256 to 2,048. */
  set mtu(bytes: number) {
    const error: number = this.nativeMtu(bytes);
    if (error < 0) {
      throw new DTLSError(`an MTU of ${bytes} bytes is not between 256 and 2048`);
    }
  }

  /** First retransmission and whole patience of the handshake, milliseconds. */
  timers(first: number, patience: number): void {
    const error: number = this.nativeTimers(first, patience);
    if (error < 0) {
      throw new DTLSError(`handshake timers of ${first} and ${patience} ms are not between 1 and 3600000`);
    }
    this.#patience = patience;
  }

  /** Keeps the certificates by which the server is verified, for `serverChain`. */
  keepServerChain(): void {
    this.nativeKeepChain();
  }

  /**
   * Those certificates in DER, one after the other, the trust anchor first, the server's own last; undefined where they
   * were not kept, or the handshake was an abbreviated one.
   */
  get serverChain(): Uint8Array | undefined {
    const length: number = this.nativeChain(noRoom());
    if (length <= 0) {
      return undefined;
    }
    const chain = new Uint8Array(length);
    this.nativeChain(chain);
    return chain;
  }

  /** Offers the session ticket extension. */
  offerTickets(): void {
    this.nativeOfferTickets();
  }

  /** Offers a connection ID (RFC 9146); the server puts one of `length` bytes, 0 to 8, into its own records. */
  offerConnectionId(length: number): void {
    if (this.nativeOfferConnectionId(length) < 0) {
      throw new DTLSError(`expected a connection ID of 0 to 8 bytes, not ${length}`);
    }
  }

  /** Versions of DTLS that are offered: all that the engine has unless told. @throws DTLSError where it has none of them. */
  versions(lowest: Protocol, highest: Protocol): void {
    if (this.nativeVersions(lowest === "DTLS 1.2" ? 12 : 13, highest === "DTLS 1.2" ? 12 : 13) < 0) {
      throw new DTLSError(`this engine does not speak ${lowest}: ${dtlsLibrary()}`);
    }
  }

  /**
   * Groups for the key exchange by their IANA names, the most wanted first: "secp256r1" unless told.
   * @throws DTLSError for one that this build does not have.
   */
  groups(names: readonly string[]): void {
    const numbers: number[] = [];
    for (const name of names) {
      const number = GROUPS[name];
      if (number === undefined) {
        throw new DTLSError(`"${name}" is no group of the key exchange: ${Object.keys(GROUPS).join(", ")}`);
      }
      numbers.push(number >> 8, number & 255);
    }
    const error: number = this.nativeGroups(Uint8Array.from(numbers));
    if (error < 0) {
      throw new DTLSError(
        error === ERROR_FORMAT
          ? `expected 1 to 4 groups of the key exchange, not ${names.length}`
          : `this engine does not have all of the groups ${names.join(", ")}: ${dtlsLibrary()}`,
      );
    }
  }

  /** Resumes in DTLS 1.3 by the session's secret alone (RFC 8446 section 4.2.9, psk_ke), without forward secrecy. */
  resumeByPSKAlone(): void {
    this.nativeResumeByPSKAlone();
  }

  /**
   * Goes on with a saved association, in place of `start`; needs neither trust anchors nor identity.
   * @returns false where this build cannot load it: this engine is of no more use then.
   */
  restore(now: number, unixTime: number, context: Uint8Array): boolean {
    return this.nativeRestore(now, unixTime, context) === 0;
  }

  /**
   * Begins the handshake; `unixTime` is in seconds, 0 where it is not known.
   * @returns false where `session` cannot be loaded by this build: nothing has begun then, start again without it.
   */
  start(now: number, unixTime: number, session?: Uint8Array): boolean {
    const error: number = this.nativeStart(now, unixTime, session);
    if (error === ERROR_BUILD || (error === ERROR_FORMAT && session !== undefined)) {
      return false;
    }
    if (error === ERROR_FORMAT) {
      throw new DTLSError("no trust anchor: a server cannot be verified");
    }
    if (error < 0 && this.state === EngineState.IDLE) {
      throw new DTLSError(`the handshake cannot begin (error ${hex(error)})`);
    }
    return true;
  }

  /** Hands in one datagram. What it does shows in `state`. */
  receive(now: number, datagram: ArrayBuffer | Uint8Array): void {
    this.nativeReceive(now, datagram);
  }

  /** Time has passed. */
  elapse(now: number): void {
    this.nativeElapse(now);
  }

  /** When to call `elapse`, milliseconds; undefined: never. */
  get deadline(): number | undefined {
    const deadline: number = this.nativeDeadline();
    return deadline < 0 ? undefined : deadline;
  }

  /** Bytes of the datagram that `take` gives next; 0 where there is none. */
  get pending(): number {
    return this.nativePending();
  }

  /** The next outgoing datagram into `buffer`: its length, or 0. */
  take(buffer: Uint8Array): number {
    const length: number = this.nativeTake(buffer);
    if (length < 0) {
      throw new DTLSError(`a buffer of ${buffer.length} bytes is shorter than the datagram`);
    }
    return length;
  }

  /** The next message into `buffer`: its length, 0 where none waits. One that is longer than the buffer is cut. */
  read(buffer: Uint8Array): number {
    return Math.max(0, this.nativeRead(buffer));
  }

  /** Bytes of the message that `read` gives next; 0 where none waits. */
  get readable(): number {
    return this.nativeReadable();
  }

  /** Protects one message, to be taken. @throws DTLSError where it exceeds the MTU or the association is not open. */
  write(message: Uint8Array): void {
    const error: number = this.nativeWrite(message);
    if (error === ERROR_SIZE) {
      throw new DTLSError(`a message of ${message.length} bytes does not fit the MTU: use smaller blocks`);
    }
    if (error < 0) {
      throw new DTLSError(`the association is not open (error ${hex(error)})`);
    }
  }

  /** Ends the association with a close_notify, to be taken. */
  close(): void {
    this.nativeClose();
  }

  /** Wipes and frees the C object; every later call throws. */
  free(): void {
    this.nativeFree();
  }

  get state(): number {
    return this.nativeState();
  }

  /** Why the association failed, as an error to throw. */
  get failure(): TorporError {
    const detail: number = this.nativeFailureDetail();
    switch (this.nativeFailureKind()) {
      case FAILURE_TIMEOUT:
        return unfinished(this.#patience);
      case FAILURE_ALERT:
        return new AlertError(detail, "association");
      case FAILURE_CERTIFICATE: {
        const reasons = VERIFY_FLAGS.filter(([flag]) => (detail & flag) !== 0).map(([, reason]) => reason);
        return new CertificateError(
          `the server's certificate is refused: ${reasons.join("; ") || `verification flags 0x${detail.toString(16)}`}`,
        );
      }
      case FAILURE_MEMORY:
        return new DTLSError("no memory left for DTLS");
      default:
        return new DTLSError(
          `the DTLS handshake failed: ${PROTOCOL_ERRORS[detail] ?? "the server does not keep to the protocol"} (${dtlsLibrary().split(/[ ,]/, 1)[0]} error ${hex(-detail)})`,
        );
    }
  }

  /** The IANA name of the negotiated suite; undefined unless open. */
  get cipherSuite(): string | undefined {
    const suite: number = this.nativeCipherSuite();
    return suite === 0 ? undefined : (CIPHER_SUITES[suite] ?? `0x${suite.toString(16)}`);
  }

  /** Whether the handshake was an abbreviated one. */
  get resumed(): boolean {
    return this.nativeResumed() === 1;
  }

  /** Whether the validity times of the server's certificates were checked against a known time. */
  get timeChecked(): boolean {
    return this.nativeTimeChecked() === 1;
  }

  /** The negotiated version; that of the engine's oldest unless open. */
  get protocol(): Protocol {
    return this.nativeVersion() === 13 ? "DTLS 1.3" : "DTLS 1.2";
  }

  /** The IANA name of the group of the key exchange; undefined unless open, or where there was none. */
  get group(): string | undefined {
    const group: number = this.nativeGroup();
    return Object.keys(GROUPS).find((name) => GROUPS[name] === group);
  }

  /** How many tickets have come after the handshake (DTLS 1.3); another number says that `session` is a new one. */
  get tickets(): number {
    return this.nativeTickets();
  }

  private get sessionKind(): SessionKind | undefined {
    const kind: number = this.nativeSessionKind();
    return kind === 0 ? undefined : kind === 2 ? "ticket" : "session";
  }

  private get sessionLifetime(): number {
    return this.nativeSessionLifetime();
  }

  /** The session of an open association, to be resumed later; undefined where the server gave no way. */
  get session(): ResumableSession | undefined {
    const kind = this.sessionKind;
    if (kind === undefined) {
      return undefined;
    }
    const data = new Uint8Array(this.nativeSession(noRoom()));
    this.nativeSession(data);
    return { kind, data, lifetime: this.sessionLifetime };
  }

  /** Whether the server has agreed to connection IDs. */
  get hasConnectionId(): boolean {
    return this.nativeHasConnectionId() === 1;
  }

  /**
   * Puts an open association away in at most `room` bytes, without a ticket where only that makes it fit. It is closed
   * then, without a word to the server. Undefined, and open as before, where it cannot be saved: there is no connection
   * ID, it does not fit, something waits to be read or taken, or nothing came since an abbreviated handshake.
   */
  save(room: number): SavedContext | undefined {
    let length: number = this.nativeContext(noRoom());
    if (length > room && this.sessionKind === "ticket") {
      this.nativeDropTicket();
      length = this.nativeContext(noRoom());
    }
    if (length < 0 || length > room) {
      return undefined;
    }
    const { sessionKind: kind, sessionLifetime: lifetime } = this;
    const data = new Uint8Array(length);
    return this.nativeContext(data) === length ? { kind, data, lifetime } : undefined;
  }

  /** Whether the engine saves and restores associations at all. */
  get savesContexts(): boolean {
    return this.nativeContext(noRoom()) !== ERROR_SUPPORT;
  }

  /** Bytes that a record adds to its message: header, connection ID, nonce, type and tag. 0 unless open. */
  get overhead(): number {
    return this.nativeOverhead();
  }

  /** Grows with each record of the peer that is authentic and newer than all before. 0 unless open. */
  get highest(): number {
    return this.nativeHighest();
  }

  /**
   * The channel binding: tls-unique of DTLS 1.2 (RFC 5929 section 3), 12 bytes; tls-exporter of DTLS 1.3 (RFC 9266), 32
   * bytes. @throws DTLSError unless open.
   */
  get unique(): Uint8Array {
    const unique = new Uint8Array(32);
    const length: number = this.nativeUnique(unique);
    if (length < 0) {
      throw new DTLSError("a channel binding needs an open association");
    }
    return unique.slice(0, length);
  }
}
