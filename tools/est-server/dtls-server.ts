/**
 * A DTLS server on one UDP socket: datagrams go to associations by the address and port that they come from.
 *
 *     const server = await DTLSServer.listen({ host, port, trust, identity, onMessage: (peer, message) => { … } });
 *
 * Nothing is kept for a client before it has shown, by the cookie (RFC 6347 section 4.2.1), that it is where it says:
 * each ClientHello meets a new association, which goes when a HelloVerifyRequest is all that it has to say, and which
 * takes the place of the client's earlier association when the cookie is right (section 4.2.8). So a client that lost
 * its state may come back from the same port, and nobody else can end its association.
 *
 * An association with a connection ID (RFC 9146) is found by that, wherever a datagram comes from, and its address
 * becomes the one of the newest record that was authentic (section 6).
 */

import "../../hosts/node/native.js";
import { createHash } from "node:crypto";
import { performance } from "node:perf_hooks";
import { AlertError, CertificateError, EngineState, type Protocol } from "../../src/dtls/engine.js";
import { TimeoutError } from "../../src/errors.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import type { Identity } from "./ca.js";
import { CONNECTION_ID_BYTES, type ServerAssociation, ServerEngine } from "./engine.js";
import { clientRandom, isServerHello, partOf } from "./hello.js";
import { type Endpoint, endpointName, UDPSocket } from "./udp.js";

const ASSOCIATIONS_MAX = 256;
const HANDSHAKES_MAX = 64;
const CERTIFICATES_MAX = 1024;
const IDLE_MS = 15 * 60_000;
/** One with a connection ID belongs to a device that sleeps. */
const ASLEEP_MS = 24 * 3600_000;
const SWEEP_MS = 30_000;
/** Larger than any record that the engine takes in, or datagram that it makes. */
const BUFFER_BYTES = 4096;

/** RFC 9146 section 4: the ID follows type, version, epoch and sequence number. */
const CONNECTION_ID_RECORD = 25;
const CONNECTION_ID_AT = 11;
/** RFC 9147 section 4: the first byte of a protected record of DTLS 1.3, 001C…; the ID follows where C is set. */
const UNIFIED_MASK = 0xf0;
const UNIFIED_CONNECTION_ID = 0x30;
const UNIFIED_CONNECTION_ID_AT = 1;
const ALERT = 21;

/** The connection ID of the record that a datagram begins with, in hexadecimal. */
function connectionIdOf(datagram: Uint8Array): string | undefined {
  const [first = 0] = datagram;
  const isUnified = (first & UNIFIED_MASK) === UNIFIED_CONNECTION_ID;
  const start = isUnified ? UNIFIED_CONNECTION_ID_AT : CONNECTION_ID_AT;
  const end = start + CONNECTION_ID_BYTES;
  return (isUnified || first === CONNECTION_ID_RECORD) && datagram.length > end
    ? hex(datagram.subarray(start, end))
    : undefined;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE, as the engine prints it */
const NO_CLIENT_CERTIFICATE = "-0x7480";

/** Milliseconds from any origin, whole: the engine counts in integers. */
const now = (): number => Math.floor(performance.now());

/** Why an association failed. The engine's own words are a client's. */
function reasonOf(engine: ServerAssociation): string {
  if (engine.state !== EngineState.FAILED) {
    return "the ClientHello cannot be decoded";
  }
  const { failure } = engine;
  const { message } = failure;
  if (failure instanceof TimeoutError) {
    return "the client did not finish the handshake in time";
  }
  if (failure instanceof CertificateError) {
    return message.replace("the server's certificate", "the client's certificate");
  }
  if (failure instanceof AlertError) {
    return message.split(":")[0]!;
  }
  return message.includes(NO_CLIENT_CERTIFICATE) ? "the client has no certificate" : message;
}

/** The client of one open association. It is a new one after each handshake, from the same port too. */
export interface DTLSPeer {
  /** Its address and port, for people; another one once it has moved. */
  readonly name: string;
  /** Whether the handshake was an abbreviated one. */
  readonly resumed: boolean;
  readonly cipherSuite: string;
  /** SHA-256 of its certificate. */
  readonly certificateDigest: Uint8Array;
  /** Its certificate in DER, from this full handshake or an earlier one; undefined where that was long ago. */
  readonly certificate: Uint8Array | undefined;
  /** The channel binding: tls-unique (RFC 5929 section 3), or tls-exporter (RFC 9266) in DTLS 1.3. */
  readonly unique: Uint8Array;
  /** Sends one message; without effect where the association has ended. */
  send(message: Uint8Array): void;
}

export interface DTLSServerOptions {
  host: string;
  /** 0 takes any free one. */
  port: number;
  /** CAs whose client certificates are accepted, DER. */
  trust: readonly Uint8Array[];
  identity: Identity;
  /** Assigns session ids and resumes by them; default true. */
  sessionIds?: boolean;
  /** Issues tickets to clients that ask, and resumes by them; default true. */
  tickets?: boolean;
  /** Takes part in connection IDs; default true. */
  connectionIds?: boolean;
  /** The one version of DTLS that it speaks; default: all that the engine has. */
  protocol?: Protocol | undefined;
  onMessage: (peer: DTLSPeer, message: Uint8Array) => void;
  onOpen?: (peer: DTLSPeer) => void;
  onClose?: (peer: DTLSPeer) => void;
  /** A handshake or an association that failed, and why. */
  onFailure?: (name: string, reason: string) => void;
  /** Associations at most; the one that was silent longest makes room. Default 256. */
  associations?: number;
  /** An association that was silent for so many milliseconds ends; default 15 minutes, 24 hours with a connection ID. */
  idle?: number;
  /** What goes out in place of a datagram of an association, for a server that does wrong. */
  rewrite?: (datagram: Uint8Array, engine: ServerAssociation) => readonly Uint8Array[];
  /** One that was silent for so many milliseconds is dropped without a word, as if the server had lost its memory. */
  forget?: number;
}

interface Association {
  name: string;
  endpoint: Endpoint;
  /** In hexadecimal, once the handshake has agreed on one. */
  connectionId: string | undefined;
  readonly engine: ServerAssociation;
  /** The random of the ClientHello that it began with. */
  readonly random: string;
  peer: DTLSPeer | undefined;
  lastHeard: number;
  timer: NodeJS.Timeout | undefined;
  freed: boolean;
}

export class DTLSServer {
  readonly #options: DTLSServerOptions;
  readonly #key: KeyId;
  readonly #server: ServerEngine;
  /** The one that was silent longest first. */
  readonly #associations = new Set<Association>();
  /** By `endpointName`: the latest one of each address. */
  readonly #byName = new Map<string, Association>();
  readonly #byConnectionId = new Map<string, Association>();
  /** Client certificates in DER by their SHA-256 in hexadecimal: a resumed session knows only the latter. */
  readonly #certificates = new Map<string, Uint8Array>();
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #socket!: UDPSocket;
  #sweep: NodeJS.Timeout | undefined;
  readonly #stats = { full: 0, resumed: 0, failed: 0, moved: 0, stale: 0 };

  private constructor(options: DTLSServerOptions) {
    this.#options = options;
    this.#key = importKey(0, options.identity.keyPkcs8);
    this.#server = new ServerEngine({
      trust: options.trust,
      key: this.#key,
      chain: options.identity.chain,
      ...(options.sessionIds !== undefined && { sessionIds: options.sessionIds }),
      ...(options.tickets !== undefined && { tickets: options.tickets }),
      ...(options.connectionIds !== undefined && { connectionIds: options.connectionIds }),
      protocol: options.protocol,
    });
  }

  /** @throws ListenError */
  static async listen(options: DTLSServerOptions): Promise<DTLSServer> {
    const server = new DTLSServer(options);
    try {
      server.#socket = await UDPSocket.listen(options.host, options.port, (datagram, from) => {
        const name = endpointName(from);
        server.#guard(name, () => server.#onDatagram(name, datagram, from));
      });
    } catch (error) {
      server.#free();
      throw error;
    }
    const every = Math.min(SWEEP_MS, Math.max(10, (options.forget ?? SWEEP_MS) / 4));
    server.#sweep = setInterval(() => server.#endIdle(), every).unref();
    return server;
  }

  get port(): number {
    return this.#socket.port;
  }

  /**
   * Associations now; handshakes so far: full, resumed, failed; how often one was followed to another address; and how
   * many datagrams to open associations were of no use: late or doubled ones, replays, forgeries.
   */
  get stats(): { associations: number; full: number; resumed: number; failed: number; moved: number; stale: number } {
    return { associations: this.#associations.size, ...this.#stats };
  }

  /** Ends every association with a close_notify. */
  async close(): Promise<void> {
    clearInterval(this.#sweep);
    for (const association of [...this.#associations]) {
      this.#end(association);
    }
    await this.#socket.close();
    this.#free();
  }

  /** Loses all associations, without a word to their clients; sessions can still be resumed. */
  forget(): void {
    for (const association of [...this.#associations]) {
      this.#drop(association);
    }
  }

  #free(): void {
    this.#server.free();
    destroyKey(this.#key);
  }

  // ---- datagrams ----

  /** Whatever a client brings about ends its own association at most. */
  #guard(name: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#options.onFailure?.(name, error instanceof Error ? error.message : String(error));
      this.#drop(this.#byName.get(name));
    }
  }

  #onDatagram(name: string, datagram: Uint8Array, endpoint: Endpoint): void {
    const known = this.#byName.get(name);
    const random = clientRandom(datagram);
    if (random === undefined) {
      // In a handshake the client's last flight may begin with an ID that the association has not agreed on yet.
      const association = this.#byConnectionId.get(connectionIdOf(datagram) ?? "") ?? known;
      if (association !== undefined) {
        this.#receive(association, datagram, name, endpoint);
      }
    } else if (known?.random !== random) {
      this.#greet(name, endpoint, random, datagram);
    } else if (known.engine.state === EngineState.HANDSHAKE) {
      this.#receive(known, datagram, name, endpoint); // its flight was lost: the engine sends it again
    }
  }

  /** A ClientHello that belongs to no association yet. */
  #greet(name: string, endpoint: Endpoint, random: string, datagram: Uint8Array): void {
    const time = now();
    // The cookie is bound to the peer by 18 bytes at most: fewer than an IPv6 address with its zone may take.
    const peer = createHash("sha256").update(name).digest().subarray(0, 18);
    const engine = this.#server.accept(time, Math.floor(Date.now() / 1000), Uint8Array.from(peer));
    engine.receive(time, datagram);
    const first = this.#take(engine);
    if (first !== undefined) {
      this.#send(first, endpoint, engine);
    }
    // The rest of a hello in parts is still on its way (hybrid key exchange); the first one has the cookie.
    const isPart = first === undefined && partOf(datagram) === "first" && engine.state === EngineState.HANDSHAKE;
    if (!isPart && (first === undefined || !isServerHello(first))) {
      // A HelloVerifyRequest, a HelloRetryRequest with a cookie, or an alert, or the message is no whole ClientHello. No more
      // is taken: where an extension cannot be decoded, the engine makes the same alert again and again.
      if (engine.state === EngineState.FAILED || first?.[0] === ALERT) {
        this.#fail(name, engine);
      }
      engine.free();
      return;
    }
    this.#leave(this.#byName.get(name));
    const association: Association = {
      name,
      endpoint,
      connectionId: undefined,
      engine,
      random,
      peer: undefined,
      lastHeard: time,
      timer: undefined,
      freed: false,
    };
    this.#makeRoom();
    this.#associations.add(association);
    this.#byName.set(name, association);
    this.#settle(association);
  }

  #receive(association: Association, datagram: Uint8Array, name: string, endpoint: Endpoint): void {
    const { engine } = association;
    const isOpen = engine.state === EngineState.OPEN;
    const before = engine.highest;
    association.lastHeard = now();
    this.#associations.delete(association);
    this.#associations.add(association);
    engine.receive(association.lastHeard, datagram);
    if (isOpen && engine.state === EngineState.OPEN && engine.highest === before) {
      this.#stats.stale += 1;
    }
    // Only a record that is authentic and newer than all before shows where the client is now (RFC 9146 section 6).
    if (association.name !== name && engine.highest > before) {
      this.#move(association, name, endpoint);
    }
    this.#settle(association);
  }

  #move(association: Association, name: string, endpoint: Endpoint): void {
    if (this.#byName.get(association.name) === association) {
      this.#byName.delete(association.name);
    }
    this.#leave(this.#byName.get(name));
    association.name = name;
    association.endpoint = endpoint;
    this.#byName.set(name, association);
    this.#stats.moved += 1;
  }

  /** Another client is at its address now: it lives on only where it can be found by its connection ID. */
  #leave(association: Association | undefined): void {
    if (association?.connectionId === undefined) {
      this.#drop(association);
    } else {
      this.#byName.delete(association.name);
    }
  }

  /** The next datagram that an engine has to send. */
  #take(engine: ServerAssociation): Uint8Array | undefined {
    const length = engine.take(this.#buffer);
    return length === 0 ? undefined : this.#buffer.slice(0, length);
  }

  /** All datagrams that wait: the engine demands that before it is given anything else. */
  #flush({ engine, endpoint }: Association): void {
    for (let datagram = this.#take(engine); datagram !== undefined; datagram = this.#take(engine)) {
      this.#send(datagram, endpoint, engine);
    }
  }

  #send(datagram: Uint8Array, endpoint: Endpoint, engine: ServerAssociation): void {
    for (const sent of this.#options.rewrite?.(datagram, engine) ?? [datagram]) {
      this.#socket.send(sent, endpoint);
    }
  }

  /** Does what is due after the engine was given a datagram or time. */
  #settle(association: Association): void {
    const { engine } = association;
    this.#flush(association);
    if (engine.state === EngineState.OPEN && association.peer === undefined) {
      association.peer = this.#open(association);
      this.#options.onOpen?.(association.peer);
    }
    const messages: Uint8Array[] = [];
    if (association.peer !== undefined) {
      for (let length = engine.read(this.#buffer); length > 0; length = engine.read(this.#buffer)) {
        messages.push(this.#buffer.slice(0, length));
        this.#flush(association);
      }
      for (const message of messages) {
        this.#options.onMessage(association.peer, message);
      }
    }
    if (association.freed) {
      return;
    }
    if (engine.state === EngineState.FAILED) {
      this.#fail(association.name, engine);
    }
    if (engine.state === EngineState.FAILED || engine.state === EngineState.CLOSED) {
      this.#drop(association);
    } else {
      this.#arm(association);
    }
  }

  #arm(association: Association): void {
    clearTimeout(association.timer);
    association.timer = undefined;
    const { deadline } = association.engine;
    if (deadline !== undefined) {
      const elapse = () => {
        association.engine.elapse(now());
        this.#settle(association);
      };
      const guarded = () => this.#guard(association.name, elapse);
      association.timer = setTimeout(guarded, Math.max(1, deadline - now())).unref();
    }
  }

  // ---- associations ----

  /** The client of an association whose handshake is over. */
  #open(association: Association): DTLSPeer {
    const { engine } = association;
    const digest = engine.peerDigest!;
    const name = hex(digest);
    const { connectionId } = engine;
    if (connectionId !== undefined) {
      association.connectionId = hex(connectionId);
      this.#byConnectionId.set(association.connectionId, association);
    }
    const certificate = engine.peerCertificate ?? this.#certificates.get(name);
    if (certificate !== undefined) {
      this.#certificates.delete(name);
      this.#certificates.set(name, certificate);
      if (this.#certificates.size > CERTIFICATES_MAX) {
        this.#certificates.delete(this.#certificates.keys().next().value!);
      }
    }
    this.#stats[engine.resumed ? "resumed" : "full"] += 1;
    return {
      get name() {
        return association.name;
      },
      resumed: engine.resumed,
      cipherSuite: engine.cipherSuite!,
      certificateDigest: digest,
      certificate,
      unique: engine.unique,
      send: (message) => {
        if (!association.freed && engine.state === EngineState.OPEN) {
          engine.write(message);
          this.#flush(association);
        }
      },
    };
  }

  #fail(name: string, engine: ServerAssociation): void {
    this.#stats.failed += 1;
    this.#options.onFailure?.(name, reasonOf(engine));
  }

  /** Frees an association that has nothing more to say. */
  #drop(association: Association | undefined): void {
    if (association === undefined || association.freed) {
      return;
    }
    association.freed = true;
    clearTimeout(association.timer);
    this.#associations.delete(association);
    if (this.#byName.get(association.name) === association) {
      this.#byName.delete(association.name);
    }
    if (association.connectionId !== undefined) {
      this.#byConnectionId.delete(association.connectionId);
    }
    association.engine.free();
    if (association.peer !== undefined) {
      this.#options.onClose?.(association.peer);
    }
  }

  /** Ends an association with a close_notify. */
  #end(association: Association): void {
    association.engine.close();
    this.#flush(association);
    this.#drop(association);
  }

  /** Ends the handshake or association that was silent longest, where there are as many as may be. */
  #makeRoom(): void {
    const all = [...this.#associations];
    const handshakes = all.filter(({ peer }) => peer === undefined);
    if (handshakes.length >= HANDSHAKES_MAX) {
      this.#end(handshakes[0]!);
    }
    if (all.length >= (this.#options.associations ?? ASSOCIATIONS_MAX)) {
      this.#end(all[0]!);
    }
  }

  #endIdle(): void {
    const { idle, forget = Infinity } = this.#options;
    const time = now();
    for (const association of [...this.#associations]) {
      const silent = time - association.lastHeard;
      if (silent > forget) {
        this.#drop(association);
      } else if (silent > (idle ?? (association.connectionId === undefined ? IDLE_MS : ASLEEP_MS))) {
        this.#end(association);
      }
    }
  }
}
