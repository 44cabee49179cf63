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
import { DTLSError, Engine, EngineState } from "./engine.js";
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
}

/** By which way an association came about; the cheaper ones first. */
export type Way = "session" | "ticket" | "full";

/** What an association cost. Bytes are UDP payload, retransmissions and failed attempts included. */
export class Traffic {
  bytesOut = 0;
  bytesIn = 0;
  datagramsOut = 0;
  datagramsIn = 0;
}

/** What a socket reports into while it lives; made by the caller, who may read it at any time. */
export class AssociationReport {
  /** Undefined until the handshake is over. */
  way: Way | undefined;
  protocol: string | undefined;
  cipherSuite: string | undefined;
  /** Whether the validity times of the server's certificates were checked; undefined where the session was resumed. */
  timeChecked: boolean | undefined;
  readonly handshake = new Traffic();
  readonly application = new Traffic();
  /** Times that the handshake had to wait for the server. */
  roundTrips = 0;
  /** What went otherwise than hoped and was made good, in sentences; for people. */
  readonly notes: string[] = [];
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
  /** Overrides `memory`: resume by these only; "none" leaves the table alone. */
  readonly resume?: "session" | "ticket" | "none" | undefined;
  readonly report?: AssociationReport | undefined;
}

/** Bytes of a saved session that say which name and trust anchors the server was verified with. */
const BINDING_BYTES = 8;

/** RFC 6347 section 4.1: the content types of records that belong to a handshake. */
const CHANGE_CIPHER_SPEC = 20;
const HANDSHAKE = 22;

const isAddress = (host: string): boolean => host.includes(":") || /^[0-9.]+$/.test(host);

export class DTLSSocket implements MessageSocket {
  readonly #options: DTLSSocketOptions;
  readonly #peer: Peer;
  readonly #report: AssociationReport;
  /** Each outgoing datagram on its way from the engine to the network. */
  readonly #outgoing: Uint8Array;
  #udp: UDP | undefined;
  #engine: Engine | undefined;
  #timer: TimerId | undefined;
  #opened = false;
  /** The session that the running handshake tries to resume. */
  #attempt: StoredSession | undefined;
  #way: ResumptionWay | "none";
  /** Datagrams that this attempt has brought; none at all means that nobody is there. */
  #answered = false;
  /** A datagram went out since the last one came in. */
  #waiting = false;
  /** Messages read so far: how `onReadable` knows whether anybody reads. */
  #reads = 0;

  /**
   * Begins to connect. Throws where the options cannot work: FormatError (address), DTLSError (certificates, MTU,
   * timers), CertificateError (the key does not belong to the certificate). Everything later goes to `onError`.
   */
  constructor(options: DTLSSocketOptions) {
    this.#options = options;
    this.#peer = { address: formatAddress(parseAddress(options.address)), port: options.port };
    this.#report = options.report ?? new AssociationReport();
    this.#way = options.resume ?? options.memory?.wayTo(this.#peer) ?? "session";
    const { io, ...rest } = options.socket;
    this.#outgoing = new Uint8Array(options.secure.mtu ?? 1232);
    this.#attempt = this.#resumable();
    this.#engine = this.#newEngine();
    try {
      this.#udp = new io({
        ...rest,
        onReadable: (count) => this.#onDatagrams(count),
        onError: (error) => this.#fail(error),
      });
      this.#start();
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  write(message: Uint8Array): void {
    if (!this.#opened || this.#engine === undefined) {
      throw new DTLSError("the DTLS socket is not open");
    }
    this.#engine.write(message);
    this.#flush(this.#engine);
  }

  read(buffer: Uint8Array): number | undefined {
    if (this.#engine === undefined) {
      return undefined;
    }
    const length = this.#engine.read(buffer);
    this.#reads++;
    return length > 0 ? length : undefined;
  }

  /** Ends the association with a close_notify: some servers forget a session that was not ended properly. */
  close(): void {
    const engine = this.#engine;
    if (engine !== undefined && engine.state === EngineState.OPEN) {
      engine.close();
      this.#flush(engine);
    }
    this.#release();
  }

  // ---- set up ----

  #newEngine(): Engine {
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
      engine.mtu = secure.mtu ?? 1232;
      engine.timers(secure.handshakeTimer ?? 9000, secure.patience ?? 60000);
      if (this.#attempt !== undefined ? this.#attempt.kind === "ticket" : this.#way === "ticket") {
        engine.offerTickets();
      }
    } catch (error) {
      engine.free();
      throw error;
    }
    return engine;
  }

  #start(): void {
    const { clock, sessions } = this.#options;
    const unixTime = Math.floor((clock.time ?? 0) / 1000);
    const data = this.#attempt?.data.subarray(BINDING_BYTES);
    if (!this.#engine!.start(clock.ticks, unixTime, data)) {
      sessions?.remove(this.#peer);
      this.#note("the saved session is of another build: dropped");
      this.#attempt = undefined;
      this.#engine!.start(clock.ticks, unixTime);
    }
    this.#advance();
  }

  // ---- the session table ----

  /** What a session rests on besides the client's certificate: the server's name and the trust anchors. */
  #binding(): Uint8Array {
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
   * The session to try. One that rests on another certificate, name or trust anchor is not used; it gives way to the
   * next one of this server. Until then it stays: a wrong option must not cost a session.
   */
  #resumable(): StoredSession | undefined {
    const { sessions, secure } = this.#options;
    if (sessions === undefined || this.#way === "none") {
      return undefined;
    }
    const stored = sessions.get(this.#peer);
    if (stored === undefined) {
      return undefined;
    }
    const own = secure.certificates[0];
    if (
      own === undefined ||
      !sameBytes(stored.clientCertHash, sha256(own)) ||
      !sameBytes(stored.data.subarray(0, BINDING_BYTES), this.#binding())
    ) {
      this.#note("the saved session rests on another certificate, server name or trust anchor: not used");
      return undefined;
    }
    return stored.kind === this.#way ? stored : undefined;
  }

  /** Keeps the session for the next wake, if it is of the kind that was asked for. */
  #keep(engine: Engine): void {
    const { sessions, secure } = this.#options;
    const session = engine.session;
    const own = secure.certificates[0];
    if (sessions === undefined || own === undefined || session?.kind !== this.#way) {
      return;
    }
    try {
      sessions.insert({
        peer: this.#peer,
        kind: session.kind,
        data: joinBytes(this.#binding(), session.data),
        clientCertHash: sha256(own),
        clientCert: own,
        protocol: engine.protocol,
        lifetime: session.lifetime,
      });
    } catch (error) {
      // Too long for its slot: the next wake makes a full handshake, and need not ask for what cannot be kept.
      this.#note(`the session by ${session.kind} cannot be kept: ${(error as Error).message}`);
      this.#learn("full");
    }
  }

  /** Remembers that the server did not do what was asked of it. An override by `resume` is no experience. */
  #learn(way: ResumptionWay): void {
    if (this.#options.resume !== undefined) {
      return;
    }
    this.#way = way;
    try {
      this.#options.memory?.note(this.#peer, way);
    } catch (error) {
      this.#note(`cannot remember how the server resumes: ${(error as Error).message}`);
    }
  }

  #note(sentence: string): void {
    this.#report.notes.push(sentence);
  }

  // ---- running ----

  #onDatagrams(count: number): void {
    for (; count > 0 && this.#udp !== undefined; count--) {
      const datagram = this.#udp.read();
      if (datagram === undefined) {
        return;
      }
      if (datagram.address === this.#peer.address && datagram.port === this.#peer.port) {
        this.#receive(datagram);
      }
    }
  }

  #receive(datagram: ArrayBuffer): void {
    const engine = this.#engine;
    if (engine === undefined) {
      return;
    }
    this.#answered = true;
    this.#count(new Uint8Array(datagram, 0, datagram.byteLength < 1 ? 0 : 1)[0], datagram.byteLength, "In");
    if (this.#waiting && !this.#opened) {
      this.#report.roundTrips++;
    }
    this.#waiting = false;
    engine.receive(this.#options.clock.ticks, datagram);
    this.#advance();
  }

  /** After anything that moved the engine: sends what it has, sets the timer, and tells what came of it. */
  #advance(): void {
    const engine = this.#engine;
    if (engine === undefined) {
      return;
    }
    this.#flush(engine);
    if (engine.state === EngineState.OPEN && !this.#opened) {
      this.#onOpen(engine);
    }
    // Callbacks may close this socket: what is left to do is then nothing.
    while (this.#engine === engine && engine.readable > 0) {
      const reads = this.#reads;
      this.#options.onReadable?.(1);
      if (reads === this.#reads) {
        break;
      }
    }
    if (this.#engine !== engine) {
      return;
    }
    this.#flush(engine);
    if (engine.state === EngineState.FAILED) {
      this.#onFailed(engine.failure);
    } else if (engine.state === EngineState.CLOSED) {
      this.#fail(new DTLSError("the server closed the association"));
    } else {
      this.#setTimer(engine.deadline);
    }
  }

  #flush(engine: Engine): void {
    for (;;) {
      const length = engine.take(this.#outgoing);
      if (length === 0) {
        return;
      }
      const datagram = this.#outgoing.subarray(0, length);
      this.#count(datagram[0], length, "Out");
      this.#waiting = true;
      this.#udp?.write(datagram, this.#peer.address, this.#peer.port);
    }
  }

  #count(contentType: number | undefined, length: number, direction: "Out" | "In"): void {
    const isHandshake = !this.#opened || contentType === HANDSHAKE || contentType === CHANGE_CIPHER_SPEC;
    const traffic = isHandshake ? this.#report.handshake : this.#report.application;
    traffic[`bytes${direction}`] += length;
    traffic[`datagrams${direction}`]++;
  }

  #setTimer(deadline: number | undefined): void {
    const { timer, clock } = this.#options;
    if (this.#timer !== undefined) {
      timer.clear(this.#timer);
      this.#timer = undefined;
    }
    if (deadline !== undefined) {
      this.#timer = timer.set(this.#onTimer, Math.max(0, deadline - clock.ticks));
    }
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined;
    this.#engine?.elapse(this.#options.clock.ticks);
    this.#advance();
  };

  // ---- how a handshake ends ----

  #onOpen(engine: Engine): void {
    const report = this.#report;
    const attempt = this.#attempt;
    this.#opened = true;
    report.way = attempt !== undefined && engine.resumed ? attempt.kind : "full";
    report.protocol = engine.protocol;
    report.cipherSuite = engine.cipherSuite;
    report.timeChecked = engine.resumed ? undefined : engine.timeChecked;
    if (attempt === undefined) {
      this.#onFull(engine);
    } else if (engine.resumed) {
      // A session id stays as it is, and so does its age; a server may have sent a new ticket.
      if (attempt.kind === "ticket") {
        this.#keep(engine);
      }
    } else {
      this.#note(`the server did not resume by ${attempt.kind} and made a full handshake`);
      this.#options.sessions?.remove(this.#peer);
      this.#learn(attempt.kind === "session" ? "ticket" : "full");
    }
    this.#attempt = undefined;
    this.#options.onWritable?.();
  }

  #onFull(engine: Engine): void {
    if (this.#way === "session" || this.#way === "ticket") {
      if (engine.session?.kind === this.#way) {
        this.#keep(engine);
      } else {
        this.#note(`the server gave no ${this.#way === "session" ? "session id" : "ticket"}`);
        this.#learn(this.#way === "session" ? "ticket" : "full");
      }
    }
  }

  /**
   * A resumption that failed is dropped, and one full handshake follows. Where nothing at all came back the server is
   * not there: its session stays, for it may be as good as before.
   */
  #onFailed(failure: TorporError): void {
    const attempt = this.#attempt;
    if (attempt === undefined || this.#opened || !this.#answered) {
      this.#fail(failure);
      return;
    }
    this.#note(`resuming by ${attempt.kind} failed (${failure.message}): dropped, and a full handshake made`);
    this.#options.sessions?.remove(this.#peer);
    if (!(failure instanceof TimeoutError)) {
      this.#learn(attempt.kind === "session" ? "ticket" : "full");
    }
    this.#attempt = undefined;
    this.#answered = false;
    this.#engine?.free();
    this.#engine = undefined;
    try {
      this.#engine = this.#newEngine();
      this.#start();
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #fail(error: Error): void {
    this.#release();
    this.#options.onError?.(error);
  }

  #release(): void {
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
