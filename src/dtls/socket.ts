/**
 * A DTLS client socket in the style of ECMA-419: it connects, comes back by the cheapest way that the session table
 * and the server allow, and keeps message boundaries. RFC 6347, RFC 7925 (sections 4.4, 7, 11).
 *
 *     const socket = new DTLSSocket({
 *       address: "192.0.2.1", port: 5684, host: "est.example.net",
 *       socket: { io: UDP }, timer: Timer, clock,
 *       secure: { trustAnchors: [ca], certificates: [own, issuer], key },
 *       sessions: table,
 *       onWritable() { socket.write(request); },
 *       onReadable() { const length = socket.read(buffer); … },
 *       onError(error) { … },
 *     });
 */

import { joinBytes, sameBytes } from "../bytes.js";
import { TimeoutError, type TorporError } from "../errors.js";
import type { Clock, MessageSocket, SocketCallbacks, Timer, TimerId, UDP, UDPConstructor } from "../io.js";
import { type KeyId, sha256 } from "../pki/key.js";
import { formatAddress, parseAddress } from "../session/address.js";
import type { Peer, SessionTable, StoredSession } from "../session/table.js";
import {
  DTLSError,
  Engine,
  EngineState,
  type ResumableSession,
  type SavedContext,
  type SessionKind,
  unfinished,
} from "./engine.js";
import type { ResumptionMemory, ResumptionWay } from "./resumption.js";

/** What the client trusts and who it is. */
export interface DTLSCredentials {
  /** Certificates in DER; the server's must lead to one of them. */
  readonly trustAnchors: readonly Uint8Array[];
  /** The client's own certificate, then those above it, in DER. */
  readonly certificates: readonly Uint8Array[];
  /** The key of the first certificate. */
  readonly key: KeyId;
  /** Largest UDP payload, bytes: 1232 unless told, which fits IPv6's smallest MTU. */
  readonly mtu?: number | undefined;
  /** First retransmission of a handshake flight, milliseconds: 9000 unless told (RFC 7925 section 11). */
  readonly handshakeTimer?: number | undefined;
  /** Longest time that a handshake may take, milliseconds: 60000 unless told. */
  readonly patience?: number | undefined;
  /** How long a restored association may stay silent after the first message, milliseconds: 4000 unless told. */
  readonly contextPatience?: number | undefined;
  /**
   * Bytes of the connection ID in the server's records (RFC 9146), 0 to 8: 0 unless told, which is the cheapest. An engine
   * that saves no associations offers one only where this is told.
   */
  readonly connectionIdLength?: number | undefined;
  /** Groups for the key exchange by their IANA names, the most wanted first: "secp256r1" unless told. */
  readonly groups?: readonly string[] | undefined;
  /** "alone" resumes in DTLS 1.3 without a key exchange (psk_ke, RFC 8446 section 4.2.9): no forward secrecy. */
  readonly psk?: "alone" | undefined;
  /** "chain" keeps the certificates by which the server is verified, for `AssociationReport.serverChain`. */
  readonly keep?: "chain" | undefined;
}

/** By which way an association came about; the cheaper ones first. */
export type Way = "context" | SessionKind | "full";

/**
 * The cheapest way that may be taken: "context" restores a saved association or resumes as the server allows,
 * "session" and "ticket" resume by these only, "none" makes a full handshake and leaves the table alone.
 */
export type Resume = "context" | SessionKind | "none";

/** What an association cost. Bytes are UDP payload, retransmissions and failed attempts included. */
export class Traffic {
  bytesOut = 0;
  bytesIn = 0;
  datagramsOut = 0;
  datagramsIn = 0;
}

/** What a socket reports into while it lives; made by the caller, who may read it at any time. */
export class AssociationReport {
  #socket: DTLSSocket | undefined;
  /** Undefined until the handshake is over. */
  way: Way | undefined;
  protocol: string | undefined;
  cipherSuite: string | undefined;
  /** Of the key exchange, its IANA name; undefined where there was none. */
  group: string | undefined;
  /** Whether the validity times of the server's certificates were checked; undefined where the session was resumed. */
  timeChecked: boolean | undefined;
  readonly handshake = new Traffic();
  readonly application = new Traffic();
  /** Times that the handshake had to wait for the server. */
  roundTrips = 0;
  /** Bytes that each record to the server adds to its message. */
  overhead = 0;
  /** What went otherwise than hoped and was made good, in sentences; for people. */
  readonly notes: string[] = [];

  /** @internal For the socket that reports. */
  attach(socket: DTLSSocket): void {
    this.#socket = socket;
  }

  /**
   * The channel binding of the association that is open now: tls-unique (RFC 5929 section 3), 12 bytes, or in DTLS 1.3
   * tls-exporter (RFC 9266), 32 bytes. Undefined where none is open.
   */
  get unique(): Uint8Array | undefined {
    return this.#socket?.unique;
  }

  /**
   * The certificates by which the server was verified (`DTLSCredentials.keep`), DER: the trust anchor first, its own
   * last. Undefined where none were kept, the session was resumed, or no association is open.
   */
  get serverChain(): Uint8Array | undefined {
    return this.#socket?.serverChain;
  }
}

export interface DTLSSocketOptions extends SocketCallbacks {
  /** The server's IP address. */
  readonly address: string;
  readonly port: number;
  /** The DNS name or the IP address that its certificate must carry: `address` unless told. */
  readonly host?: string | undefined;
  /** The UDP class; its options go along. */
  readonly socket: { readonly io: UDPConstructor };
  readonly timer: Timer;
  readonly clock: Clock;
  readonly secure: DTLSCredentials;
  /** Where sessions are kept for the next wake. Without it each handshake is a full one. */
  readonly sessions?: SessionTable | undefined;
  /** What is known of servers' ways to resume; without it, sessions are by session id. */
  readonly memory?: ResumptionMemory | undefined;
  /** "context" unless told. */
  readonly resume?: Resume | undefined;
  readonly report?: AssociationReport | undefined;
}

/*
 * What lies in the session table, of a session and of a context:
 *
 *   0         8
 *   | binding | session …
 *   | binding | state length u8 | state of the layer above | context …
 */
/** Bytes of a saved session that say which name and trust anchors the server was verified with. */
const BINDING_BYTES = 8;

/** RFC 6347 section 4.1: the content types of records that belong to a handshake. */
const CHANGE_CIPHER_SPEC = 20;
const HANDSHAKE = 22;
/** RFC 9147 section 4: the first three bits of a protected record of DTLS 1.3, whose content type is not to be seen. */
const UNIFIED_MASK = 0xe0;
const UNIFIED = 0x20;

/** Bytes and milliseconds, where nothing else is told: those of dtls.h. */
const MTU = 1232;
const HANDSHAKE_TIMER = 9000;
const PATIENCE = 60000;
/**
 * Datagrams of one handshake that a device sends at most: some ten times what a bad network takes. A server that answers
 * each one so that the protocol demands the next would have a device transmit as fast as the network allows.
 */
const HANDSHAKE_DATAGRAMS = 200;
/** Enough for one retransmission of a CoAP message (RFC 7252 section 4.8), and short for a server that forgot us. */
const CONTEXT_PATIENCE = 4000;

const isAddress = (host: string): boolean => host.includes(":") || /^[0-9.]+$/.test(host);

const isHandshake = (contentType: number): boolean => contentType === HANDSHAKE || contentType === CHANGE_CIPHER_SPEC;

// The callbacks of the UDP socket, the same functions for all sockets.

function onDatagrams(this: { readonly target: DTLSSocket }, count: number): void {
  this.target.onDatagrams(count);
}

function onUDPError(this: { readonly target: DTLSSocket }, error: Error): void {
  this.target.fail(error);
}

/** A stored session that a handshake can resume. */
type Resumable = StoredSession & { readonly kind: SessionKind };

export class DTLSSocket implements MessageSocket {
  readonly #options: DTLSSocketOptions;
  readonly #peer: Peer;
  readonly #report: AssociationReport;
  /** Each outgoing datagram on its way from the engine to the network; as long as the longest one so far. */
  #outgoing = new Uint8Array(0);
  #udp: UDP | undefined;
  #engine: Engine | undefined;
  #timer: TimerId | undefined;
  #opened = false;
  /** The session that the running handshake tries to resume. */
  #attempt: Resumable | undefined;
  /** The state of the layer above that came with a restored context; undefined after a handshake. */
  #state: Uint8Array | undefined;
  /** Of a restored association from which nothing has come yet: it may be that the server does not know it. */
  #isUnconfirmed = false;
  /** When an unconfirmed association is given up, in ticks; undefined until something is sent. */
  #confirmBy: number | undefined;
  /** When the session that this association rests on was made, milliseconds since 1970; undefined: in this one. */
  #created: number | undefined;
  /** The kind of the session whose resumption failed before the running handshake, which is a full one. */
  #refused: SessionKind | undefined;
  /** Whether a server that lets no resumption through is learned from: not from mere silence. */
  #isRefusal = false;
  /** When the whole connecting must be over, in ticks. */
  #deadline: number;
  #way: ResumptionWay | "none";
  /** Whether associations may be restored and saved. */
  readonly #keepsContexts: boolean;
  /** A datagram went out since the last one came in. */
  #waiting = false;
  /** Datagrams of the running handshake that went out. */
  #sent = 0;
  #unsent = false;
  /** Tickets that have come after the handshake (DTLS 1.3), as far as they were kept. */
  #tickets = 0;
  /** Messages read so far: how `onReadable` knows whether anybody reads. */
  #reads = 0;

  /**
   * Begins to connect. Throws a FormatError where `address` is none, and what the UDP class throws; everything else goes
   * to `onError`: DTLSError (certificates, MTU, timers, protocol), CertificateError, AlertError, TimeoutError.
   */
  constructor(options: DTLSSocketOptions) {
    this.#options = options;
    this.#peer = { address: formatAddress(parseAddress(options.address)), port: options.port };
    this.#report = options.report ?? new AssociationReport();
    this.#report.attach(this);
    const { resume = "context", sessions } = options;
    this.#keepsContexts = resume === "context" && sessions !== undefined;
    this.#way = resume === "context" ? (options.memory?.wayTo(this.#peer) ?? "session") : resume;
    this.#deadline = options.clock.ticks + (options.secure.patience ?? PATIENCE);
    this.#udp = this.newUDP();
    // The rest on a turn of its own: whoever makes a socket may be deep in the stack.
    this.#timer = options.timer.set(this.#onTimer, 0);
  }

  private newUDP(): UDP {
    const { io, ...rest } = this.#options.socket;
    return new io({ ...rest, target: this, onReadable: onDatagrams, onError: onUDPError });
  }

  /** The `target` of the options. */
  get target(): unknown {
    return this.#options.target;
  }

  write(message: Uint8Array): void {
    if (!this.#opened || this.#engine === undefined) {
      throw new DTLSError("the DTLS socket is not open");
    }
    const engine = this.#engine;
    engine.write(message);
    if (this.#isUnconfirmed && this.#confirmBy === undefined) {
      const { secure, clock } = this.#options;
      this.#confirmBy = clock.ticks + (secure.contextPatience ?? CONTEXT_PATIENCE);
      this.setTimer(engine.deadline);
    }
    this.flush(engine, "application");
  }

  read(buffer: Uint8Array): number | undefined {
    if (this.#engine === undefined) {
      return undefined;
    }
    const engine = this.#engine;
    const length = engine.read(buffer);
    this.#reads++;
    if (engine.state !== EngineState.OPEN && this.#timer === undefined) {
      // What came behind the message ended the association: told on a turn of its own.
      this.#timer = this.#options.timer.set(this.#onTimer, 0);
    }
    return length > 0 ? length : undefined;
  }

  /** What `sleep` was given before this association was restored; undefined after a handshake. */
  get state(): Uint8Array | undefined {
    return this.#state;
  }

  /**
   * Ends the socket and keeps the association for the next wake, with `state` of the layer above, 255 bytes at most:
   * with a connection ID, and where the table has room. Otherwise as `close`; the session, if any, stays either way.
   */
  sleep(state: Uint8Array): void {
    const engine = this.#engine;
    const { sessions } = this.#options;
    // An association that was restored and said nothing may be dead: what is in the table serves the next wake.
    if (engine !== undefined && this.isKeepable && !engine.savesContexts) {
      this.note("this engine saves no associations: the next wake resumes by ticket or session id");
    } else if (engine !== undefined && sessions !== undefined && this.isKeepable) {
      const saved = engine.save(sessions.room - BINDING_BYTES - 1 - state.length);
      if (saved !== undefined) {
        this.keep(saved, joinBytes(Uint8Array.of(state.length), state, saved.data), engine.protocol, true);
      }
    }
    this.close();
  }

  private get isKeepable(): boolean {
    return this.#opened && this.#keepsContexts && !this.#isUnconfirmed;
  }

  /** As in `AssociationReport`, as the one below. */
  get unique(): Uint8Array | undefined {
    return this.#opened ? this.#engine?.unique : undefined;
  }

  get serverChain(): Uint8Array | undefined {
    return this.#opened ? this.#engine?.serverChain : undefined;
  }

  /** Ends the association with a close_notify: some servers forget a session that was not ended properly. */
  close(): void {
    const engine = this.#engine;
    if (engine !== undefined && engine.state === EngineState.OPEN) {
      engine.close();
      this.flush(engine, "application");
    }
    this.release();
  }

  // ---- set up ----

  private newEngine(): Engine {
    const { secure, host = this.#options.address } = this.#options;
    const engine = new Engine();
    try {
      for (const anchor of secure.trustAnchors) {
        engine.trust(anchor);
      }
      engine.identity(secure.key, secure.certificates);
      if (isAddress(host)) {
        const address = parseAddress(host);
        engine.serverAddress(host.includes(":") ? address : address.subarray(12));
      } else {
        engine.serverName(host);
      }
      if (secure.keep === "chain") {
        engine.keepServerChain();
      }
      engine.mtu = secure.mtu ?? MTU;
      // An attempt to resume may take half of the time: something on the path may swallow just that hello.
      const patience = secure.patience ?? PATIENCE;
      const left = patience > 0 ? Math.max(1, this.#deadline - this.#options.clock.ticks) : patience;
      engine.timers(secure.handshakeTimer ?? HANDSHAKE_TIMER, this.#attempt === undefined ? left : Math.ceil(left / 2));
      if (this.#way === "ticket" || this.#attempt?.kind === "ticket") {
        engine.offerTickets();
      }
      if (this.#keepsContexts && (engine.savesContexts || secure.connectionIdLength !== undefined)) {
        engine.offerConnectionId(secure.connectionIdLength ?? 0);
      }
      if (secure.groups !== undefined) {
        engine.groups(secure.groups);
      }
      if (secure.psk === "alone") {
        engine.resumeByPSKAlone();
      }
    } catch (error) {
      engine.free();
      throw error;
    }
    return engine;
  }

  /** The saved context, or the first handshake, or the full one after a resumption that failed. */
  private begin(): void {
    try {
      if (this.#refused === undefined) {
        const stored = this.usable();
        if (stored?.isContext && !stored.isUsed && this.#keepsContexts && this.restore(stored)) {
          return;
        }
        this.#attempt = this.resumable();
      }
      this.handshake();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  private handshake(): void {
    this.#sent = 0;
    this.#engine = this.newEngine();
    this.start();
  }

  private get unixTime(): number {
    return Math.floor((this.#options.clock.time ?? 0) / 1000);
  }

  private start(): void {
    const { clock } = this.#options;
    const { unixTime } = this;
    this.#tickets = 0;
    this.takeTicket();
    const data = this.#attempt?.data.subarray(BINDING_BYTES);
    if (!this.#engine!.start(clock.ticks, unixTime, data)) {
      this.forget();
      this.note("the saved session cannot be loaded: dropped");
      this.#attempt = undefined;
      this.#engine!.start(clock.ticks, unixTime);
    }
    this.advance();
  }

  /**
   * A ticket of DTLS 1.3 is used once (RFC 8446 appendix C.4): whoever sees it twice knows the device again. It goes
   * before the hello that shows it, and where it cannot go it is not shown.
   */
  private takeTicket(): void {
    if (this.#attempt?.protocol !== "DTLS 1.3") {
      return;
    }
    try {
      this.#attempt = this.#options.sessions?.remove(this.#peer) as Resumable | undefined;
    } catch (error) {
      this.note(`the ticket is not used, for it cannot be removed: ${(error as Error).message}`);
      this.#attempt = undefined;
    }
  }

  // ---- the session table ----

  /** What a session rests on besides the client's certificate: the server's name and the trust anchors. */
  private binding(): Uint8Array {
    const { secure, host = this.#options.address } = this.#options;
    const parts: Uint8Array[] = [];
    for (const anchor of secure.trustAnchors) {
      parts.push(sha256(anchor));
    }
    const name = new Uint8Array(host.length);
    for (let i = 0; i < host.length; i++) {
      name[i] = host.charCodeAt(i);
    }
    return sha256(joinBytes(...parts, name)).subarray(0, BINDING_BYTES);
  }

  /**
   * What the table has for this server. What rests on another certificate, name or trust anchor is not used; it gives
   * way to the next session of this server. Until then it stays: a wrong option must not cost a session.
   */
  private usable(): StoredSession | undefined {
    const { sessions, secure } = this.#options;
    let stored: StoredSession | undefined;
    try {
      stored = this.#way === "none" ? undefined : sessions?.get(this.#peer);
    } catch (error) {
      // It may have to note the time, or wipe what has expired. A full handshake needs no table.
      this.note(`the session table cannot be used: ${(error as Error).message}`);
    }
    if (stored === undefined) {
      return undefined;
    }
    const own = secure.certificates[0];
    if (
      own === undefined ||
      !sameBytes(stored.clientCertHash, sha256(own)) ||
      !sameBytes(stored.data.subarray(0, BINDING_BYTES), this.binding())
    ) {
      this.note("the saved session rests on another certificate, server name or trust anchor: not used");
      return undefined;
    }
    return stored;
  }

  /** The session to try; one that lies in a context is taken out of it, and the keys of the association are gone. */
  private resumable(): Resumable | undefined {
    let stored = this.usable();
    if (stored?.isContext) {
      this.reduce(stored);
      stored = this.usable();
    }
    if (stored === undefined || stored.isContext) {
      return undefined;
    }
    // A server that refused a session id once is asked for a ticket too, and may still know the id it gave since then.
    const isAsked =
      stored.kind === this.#way || (this.isFree && (this.#way === "ticket" || stored.protocol === "DTLS 1.3"));
    return isAsked ? (stored as Resumable) : undefined;
  }

  /** Whether the ways of the server are found out, not given by `resume`. */
  private get isFree(): boolean {
    return (this.#options.resume ?? "context") === "context";
  }

  /** Goes on with a saved association; false where it cannot be done, which is no harm yet: nothing was sent. */
  private restore(stored: StoredSession): boolean {
    const { clock, sessions, secure } = this.#options;
    const engine = new Engine();
    try {
      engine.mtu = secure.mtu ?? MTU;
      const start = BINDING_BYTES + 1 + stored.data[BINDING_BYTES]!;
      const state = stored.data.slice(BINDING_BYTES + 1, start);
      // Marked before anything is sent: after a crash from here on, the same keys and counters are not used again.
      if (!engine.restore(clock.ticks, this.unixTime, stored.data.subarray(start)) || !sessions!.use(this.#peer)) {
        this.note("the saved association cannot be restored");
        engine.free();
        return false;
      }
      this.#state = state;
    } catch (error) {
      engine.free();
      this.note(`the saved association is not used: ${(error as Error).message}`);
      return false;
    }
    this.#created = stored.created;
    this.#isUnconfirmed = true;
    this.#engine = engine;
    this.open(engine, "context");
    return true;
  }

  /** Replaces a context in the table by the session in it, or removes it where the session is of no use. */
  private reduce({ data, kind, created, protocol }: StoredSession): void {
    const engine = new Engine();
    try {
      const context = data.subarray(BINDING_BYTES + 1 + data[BINDING_BYTES]!);
      const isLoaded = engine.restore(this.#options.clock.ticks, this.unixTime, context);
      const session = isLoaded && kind !== "none" ? engine.session : undefined;
      if (session === undefined) {
        this.forget();
      } else {
        this.#created = created;
        this.keep(session, session.data, protocol, false);
      }
    } finally {
      engine.free();
    }
  }

  /** Keeps a session or a context for the next wake; `data` is what follows the binding. */
  private keep(
    { kind, lifetime }: ResumableSession | SavedContext,
    data: Uint8Array,
    protocol: Engine["protocol"],
    isContext: boolean,
  ): void {
    const { sessions, secure } = this.#options;
    const own = secure.certificates[0];
    if (sessions === undefined || own === undefined) {
      return;
    }
    try {
      sessions.insert({
        peer: this.#peer,
        kind: kind ?? "none",
        data: joinBytes(this.binding(), data),
        isContext,
        clientCertHash: sha256(own),
        clientCert: own,
        protocol,
        lifetime,
        created: this.#created,
      });
    } catch (error) {
      // Too long for its slot, or storage refuses: the next wake takes another way. That is no fault of the server.
      this.note(`the session by ${kind ?? "context"} cannot be kept: ${(error as Error).message}`);
    }
  }

  /** Removes this server's session. That it cannot be made durable is no reason to fail a connection that works. */
  private forget(): void {
    try {
      this.#options.sessions?.remove(this.#peer);
    } catch (error) {
      this.note(`the old session cannot be removed: ${(error as Error).message}`);
    }
  }

  /** Remembers that the server did not do what was asked of it. An override by `resume` is no experience. */
  private learn(way: ResumptionWay): void {
    if (!this.isFree) {
      return;
    }
    this.#way = way;
    try {
      this.#options.memory?.note(this.#peer, way);
    } catch (error) {
      this.note(`cannot remember how the server resumes: ${(error as Error).message}`);
    }
  }

  private note(sentence: string): void {
    this.#report.notes.push(sentence);
  }

  // ---- running ----

  /** @internal For the callback above. */
  onDatagrams(count: number): void {
    for (; count > 0 && this.#udp !== undefined; count--) {
      const datagram = this.#udp.read();
      if (datagram === undefined) {
        return;
      }
      if (datagram.port === this.#peer.port && this.isPeer(datagram.address)) {
        this.receive(datagram);
      }
    }
  }

  /** Some systems spell an IPv6 address in their own way. */
  private isPeer(address: string): boolean {
    if (address === this.#peer.address) {
      return true;
    }
    try {
      return formatAddress(parseAddress(address)) === this.#peer.address;
    } catch {
      return false;
    }
  }

  private receive(datagram: ArrayBuffer): void {
    const engine = this.#engine;
    if (engine === undefined) {
      return;
    }
    const contentType = new Uint8Array(datagram, 0, datagram.byteLength < 1 ? 0 : 1)[0];
    const isOpen = this.#opened;
    if (this.#waiting && !this.#opened) {
      this.#report.roundTrips++;
    }
    this.#waiting = false;
    engine.receive(this.#options.clock.ticks, datagram);
    // Of a record of DTLS 1.3 only the engine knows whether there was a message in it, or a ticket or an ACK.
    const isMessage = contentType !== undefined && (contentType & UNIFIED_MASK) === UNIFIED && engine.readable > 0;
    const hasType = contentType !== undefined && (contentType & UNIFIED_MASK) !== UNIFIED;
    this.count(isOpen && (isMessage || (hasType && !isHandshake(contentType))), datagram.byteLength, "In");
    this.advance();
  }

  /** After anything that moved the engine: sends what it has, sets the timer, and tells what came of it. */
  private advance(): void {
    const engine = this.#engine;
    if (engine === undefined) {
      return;
    }
    this.flush(engine);
    if (engine.state === EngineState.OPEN && !this.#opened) {
      this.onOpen(engine);
    }
    if (this.#engine === engine && this.#opened && engine.tickets !== this.#tickets) {
      this.keepTicket(engine);
    }
    if (this.#isUnconfirmed && engine.readable > 0) {
      // The server knows the association: from now on it is like any other.
      this.#isUnconfirmed = false;
      this.#confirmBy = undefined;
    }
    // Callbacks may close this socket: what is left to do is then nothing.
    while (this.#engine === engine && engine.readable > 0) {
      const reads = this.#reads;
      this.#options.onReadable?.call(this as never, 1);
      if (reads === this.#reads) {
        break;
      }
    }
    if (this.#engine !== engine) {
      return;
    }
    this.flush(engine);
    if (engine.state === EngineState.FAILED) {
      this.onFailed(engine.failure);
    } else if (engine.state === EngineState.CLOSED) {
      this.onFailed(new DTLSError("the server closed the association"));
    } else if (!this.#opened && this.#sent > HANDSHAKE_DATAGRAMS) {
      this.onFailed(new DTLSError(`the DTLS handshake has taken ${this.#sent} datagrams and no end: given up`));
    } else {
      this.setTimer(engine.deadline);
    }
  }

  /** `what` is sent; where nothing is told, its content type says so. */
  private flush(engine: Engine, what?: "application"): void {
    for (let length = engine.pending; length > 0; length = engine.pending) {
      if (this.#outgoing.length < length) {
        this.#outgoing = new Uint8Array(length);
      }
      engine.take(this.#outgoing);
      const datagram = this.#outgoing.subarray(0, length);
      this.#waiting = true;
      this.#sent++;
      this.send(datagram, what);
    }
  }

  /** A datagram that does not get out is lost, as others are; what waits for its answer sends it again. */
  private send(datagram: Uint8Array, what: "application" | undefined): void {
    try {
      this.#udp?.write(datagram, this.#peer.address, this.#peer.port);
      const contentType = datagram[0]!;
      const isTold = what === "application" || (contentType & UNIFIED_MASK) !== UNIFIED;
      this.count(this.#opened && isTold && !isHandshake(contentType), datagram.length, "Out");
    } catch (error) {
      if (!this.#unsent) {
        this.#unsent = true;
        this.note(`a datagram could not be sent: ${(error as Error).message}`);
      }
    }
  }

  private count(isApplication: boolean, length: number, direction: "Out" | "In"): void {
    const traffic = isApplication ? this.#report.application : this.#report.handshake;
    traffic[`bytes${direction}`] += length;
    traffic[`datagrams${direction}`]++;
  }

  private setTimer(deadline: number | undefined): void {
    const { timer, clock } = this.#options;
    if (this.#timer !== undefined) {
      timer.clear(this.#timer);
      this.#timer = undefined;
    }
    const next = this.#confirmBy ?? deadline;
    if (next !== undefined) {
      this.#timer = timer.set(this.#onTimer, Math.max(0, next - clock.ticks));
    }
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined;
    const { ticks } = this.#options.clock;
    if (this.#engine === undefined) {
      this.begin();
    } else if (this.#confirmBy !== undefined && ticks >= this.#confirmBy) {
      this.descend("the server does not answer");
    } else {
      this.#engine.elapse(ticks);
      this.advance();
    }
  };

  // ---- how a handshake ends ----

  private onOpen(engine: Engine): void {
    const attempt = this.#attempt;
    const isResumed = attempt !== undefined && engine.resumed;
    this.#created = isResumed ? attempt.created : undefined;
    const way = isResumed ? attempt.kind : "full";
    this.#attempt = undefined;
    this.#outgoing = new Uint8Array(0); // a handshake's datagrams are longer than most requests
    this.settleSession(engine, attempt);
    this.open(engine, way);
  }

  private open(engine: Engine, way: Way): void {
    const report = this.#report;
    this.#opened = true;
    report.way = way;
    report.protocol = engine.protocol;
    report.cipherSuite = engine.cipherSuite;
    report.group = engine.group;
    report.timeChecked = engine.resumed ? undefined : engine.timeChecked;
    report.overhead = engine.overhead;
    this.#options.onWritable?.call(this as never);
  }

  /**
   * A restored association that the server does not answer, or ends at once: the next step of the ladder, from another
   * port. What was sent over it may have been received: `onRestart` tells the layer above, `onWritable` follows.
   */
  private descend(reason: string): void {
    const engine = this.#engine;
    this.note(`the restored association is of no use, ${reason}`);
    this.#isUnconfirmed = false;
    this.#confirmBy = undefined;
    this.#state = undefined;
    this.#opened = false;
    this.#waiting = false;
    this.#options.onRestart?.call(this as never);
    if (this.#udp === undefined || this.#engine !== engine) {
      return; // closed by the callback
    }
    this.#deadline = this.#options.clock.ticks + (this.#options.secure.patience ?? PATIENCE);
    try {
      this.renewUDP();
      engine?.free();
      this.#engine = undefined;
      this.#attempt = this.resumable();
      this.handshake();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  /** From another port: a late flight of the handshake before must not get into the next one. */
  private renewUDP(): void {
    this.#udp?.close();
    this.#udp = this.newUDP();
  }

  /** What becomes of the table and of what is remembered, once a handshake has succeeded. */
  private settleSession(engine: Engine, attempt: Resumable | undefined): void {
    if (this.#way === "none") {
      return;
    }
    if (engine.protocol === "DTLS 1.3") {
      // The used ticket is gone, and new ones come when the server likes: there is nothing to learn from this handshake.
      if (attempt !== undefined && !engine.resumed) {
        this.note(`the server did not resume by ${attempt.kind} and made a full handshake`);
        this.forget();
      }
      return;
    }
    if (attempt !== undefined && engine.resumed) {
      this.settleResumed(engine, attempt);
      return;
    }
    // That a server which spoke 1.3 before speaks 1.2 now says nothing about its tickets.
    const refused = attempt?.protocol === "DTLS 1.3" ? undefined : (attempt?.kind ?? this.#refused);
    if (attempt !== undefined) {
      this.note(`the server did not resume by ${attempt.kind} and made a full handshake`);
    }
    if (refused !== undefined) {
      this.forget();
    }
    const session = engine.session;
    const isWanted = session !== undefined && (session.kind === this.#way || this.isFree);
    if (isWanted && this.#way !== "full" && this.#refused !== "ticket") {
      this.keep(session, session.data, engine.protocol, false);
    }
    this.learnFrom(attempt !== undefined || this.#isRefusal ? refused : undefined, session?.kind);
  }

  /** A ticket that came after the handshake (DTLS 1.3) takes the place of what the table has for this server. */
  private keepTicket(engine: Engine): void {
    this.#tickets = engine.tickets;
    const session = engine.session;
    if (session !== undefined && (this.isFree || this.#way === "ticket")) {
      this.#created = undefined;
      this.keep(session, session.data, engine.protocol, false);
    }
  }

  /** A session keeps its age when it is used; a new ticket in place of a used one is a new session. */
  private settleResumed(engine: Engine, attempt: Resumable): void {
    const session = engine.session;
    if (
      attempt.kind === "ticket" &&
      session?.kind === "ticket" &&
      !sameBytes(session.data, attempt.data.subarray(BINDING_BYTES))
    ) {
      this.#created = undefined;
      this.keep(session, session.data, engine.protocol, false);
    }
    this.learn(attempt.kind);
  }

  /**
   * What a full handshake tells: a server that refused a session id is asked for a ticket from then on, and one that
   * refused a ticket, or gave none, for nothing. One that gave nothing to resume by is asked for the next thing.
   */
  private learnFrom(refused: SessionKind | undefined, given: SessionKind | undefined): void {
    if (refused === "ticket" || (this.#way === "ticket" && given !== "ticket")) {
      this.note(refused === "ticket" ? "tickets do not work with this server" : "the server gave no ticket");
      this.learn("full");
    } else if (refused === "session" || (this.#way === "session" && given === undefined)) {
      if (refused === undefined) {
        this.note("the server gave no session id");
      }
      this.learn("ticket");
    }
  }

  /**
   * A resumption that failed is followed by one full handshake, within the same patience. The session stays until that
   * has succeeded: an alert may be forged, and a server that does not answer at all may only be away.
   */
  private onFailed(failure: TorporError): void {
    const attempt = this.#attempt;
    if (this.#isUnconfirmed) {
      this.descend(failure.message);
      return;
    }
    if (attempt === undefined || this.#opened) {
      this.fail(failure instanceof TimeoutError && !this.#opened ? this.silence() : failure);
      return;
    }
    this.note(`resuming by ${attempt.kind} failed: ${failure.message}`);
    // A ticket of DTLS 1.3 is gone already, and says nothing about the next one.
    this.#refused = attempt.protocol === "DTLS 1.3" ? undefined : attempt.kind;
    this.#isRefusal = !(failure instanceof TimeoutError);
    this.#attempt = undefined;
    this.#waiting = false;
    this.#engine?.free();
    this.#engine = undefined;
    try {
      this.renewUDP();
    } catch (error) {
      this.fail(error as Error);
      return;
    }
    this.begin();
  }

  private silence(): TimeoutError {
    return unfinished(this.#options.secure.patience ?? PATIENCE);
  }

  /** @internal For the callback above. */
  fail(error: Error): void {
    if (this.#udp === undefined) {
      return; // closed, or told before
    }
    this.release();
    this.#options.onError?.call(this as never, error);
  }

  private release(): void {
    if (this.#timer !== undefined) {
      this.#options.timer.clear(this.#timer);
      this.#timer = undefined;
    }
    this.#udp?.close();
    this.#udp = undefined;
    this.#engine?.free();
    this.#engine = undefined;
    this.#attempt = undefined;
  }
}
