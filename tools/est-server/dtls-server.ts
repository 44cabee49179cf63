/**
 * A DTLS 1.2 server on one UDP socket: datagrams go to associations by the address and port that they come from.
 *
 *     const server = await DTLSServer.listen({ host, port, trust, identity, onMessage: (peer, message) => { … } });
 *
 * Nothing is kept for a client before it has shown, by the cookie (RFC 6347 section 4.2.1), that it is where it says:
 * each ClientHello meets a new association, which goes when a HelloVerifyRequest is all that it has to say, and which
 * takes the place of the client's earlier association when the cookie is right (section 4.2.8). So a client that lost
 * its state may come back from the same port, and nobody else can end its association.
 */

import "../../hosts/node/native.js";
import { createHash } from "node:crypto";
import { performance } from "node:perf_hooks";
import { AlertError, CertificateError, EngineState } from "../../src/dtls/engine.js";
import { TimeoutError } from "../../src/errors.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import type { Identity } from "./ca.js";
import { type ServerAssociation, ServerEngine } from "./engine.js";
import { type Endpoint, endpointName, UDPSocket } from "./udp.js";

const ASSOCIATIONS_MAX = 256;
const HANDSHAKES_MAX = 64;
const CERTIFICATES_MAX = 1024;
const IDLE_MS = 15 * 60_000;
const SWEEP_MS = 30_000;
/** Larger than any record that the engine takes in, or datagram that it makes. */
const BUFFER_BYTES = 4096;

/*
 * A datagram that begins with a handshake message in the clear (RFC 6347 sections 4.1 and 4.2.2):
 *
 *     0  content type 22      3  epoch 0     13  message type     17  message_seq     25  client_version
 *     1  version              5  sequence    14  length           19  fragment        27  random, 32 bytes
 */
const ALERT = 21;
const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const SERVER_HELLO = 2;
const RANDOM_AT = 27;
const RANDOM_BYTES = 32;

/** The type of the handshake message in the clear that a datagram begins with. */
function plainHandshake(datagram: Uint8Array): number | undefined {
  const plain = datagram[0] === HANDSHAKE && datagram[3] === 0 && datagram[4] === 0;
  return plain ? datagram[13] : undefined;
}

/** The random of the ClientHello that a datagram begins with. It stays the same in the one with the cookie. */
function clientRandom(datagram: Uint8Array): string | undefined {
  if (plainHandshake(datagram) !== CLIENT_HELLO || datagram.length < RANDOM_AT + RANDOM_BYTES) {
    return undefined;
  }
  return Buffer.from(datagram.subarray(RANDOM_AT, RANDOM_AT + RANDOM_BYTES)).toString("hex");
}

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
  /** Its address and port, for people. */
  readonly name: string;
  /** Whether the handshake was an abbreviated one. */
  readonly resumed: boolean;
  readonly cipherSuite: string;
  /** SHA-256 of its certificate. */
  readonly certificateDigest: Uint8Array;
  /** Its certificate in DER, from this full handshake or an earlier one; undefined where that was long ago. */
  readonly certificate: Uint8Array | undefined;
  /** tls-unique (RFC 5929 section 3). */
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
  onMessage: (peer: DTLSPeer, message: Uint8Array) => void;
  onOpen?: (peer: DTLSPeer) => void;
  onClose?: (peer: DTLSPeer) => void;
  /** A handshake or an association that failed, and why. */
  onFailure?: (name: string, reason: string) => void;
  /** Associations at most; the one that was silent longest makes room. Default 256. */
  associations?: number;
  /** An association that was silent for so many milliseconds ends; default 15 minutes. */
  idle?: number;
}

interface Association {
  readonly name: string;
  readonly endpoint: Endpoint;
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
  /** By `endpointName`, the one that was silent longest first. */
  readonly #associations = new Map<string, Association>();
  /** Client certificates in DER by their SHA-256 in hexadecimal: a resumed session knows only the latter. */
  readonly #certificates = new Map<string, Uint8Array>();
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #socket!: UDPSocket;
  #sweep: NodeJS.Timeout | undefined;
  readonly #stats = { full: 0, resumed: 0, failed: 0 };

  private constructor(options: DTLSServerOptions) {
    this.#options = options;
    this.#key = importKey(0, options.identity.keyPkcs8);
    this.#server = new ServerEngine({
      trust: options.trust,
      key: this.#key,
      chain: options.identity.chain,
      ...(options.sessionIds !== undefined && { sessionIds: options.sessionIds }),
      ...(options.tickets !== undefined && { tickets: options.tickets }),
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
    server.#sweep = setInterval(() => server.#endIdle(), SWEEP_MS).unref();
    return server;
  }

  get port(): number {
    return this.#socket.port;
  }

  /** Associations now, and handshakes so far: full, resumed, failed. */
  get stats(): { associations: number; full: number; resumed: number; failed: number } {
    return { associations: this.#associations.size, ...this.#stats };
  }

  /** Ends every association with a close_notify. */
  async close(): Promise<void> {
    clearInterval(this.#sweep);
    for (const association of [...this.#associations.values()]) {
      this.#end(association);
    }
    await this.#socket.close();
    this.#free();
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
      this.#drop(this.#associations.get(name));
    }
  }

  #onDatagram(name: string, datagram: Uint8Array, endpoint: Endpoint): void {
    const known = this.#associations.get(name);
    const random = clientRandom(datagram);
    if (random === undefined) {
      if (known !== undefined) {
        this.#receive(known, datagram);
      }
    } else if (known?.random !== random) {
      this.#greet(name, endpoint, random, datagram);
    } else if (known.engine.state === EngineState.HANDSHAKE) {
      this.#receive(known, datagram); // its flight was lost: the engine sends it again
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
      this.#socket.send(first, endpoint);
    }
    if (first === undefined || plainHandshake(first) !== SERVER_HELLO) {
      // A HelloVerifyRequest or an alert, or the message is no whole ClientHello. No more is taken: where an extension
      // cannot be decoded, the engine makes the same alert again and again.
      if (engine.state === EngineState.FAILED || first?.[0] === ALERT) {
        this.#fail(name, engine);
      }
      engine.free();
      return;
    }
    this.#drop(this.#associations.get(name));
    const association: Association = {
      name,
      endpoint,
      engine,
      random,
      peer: undefined,
      lastHeard: time,
      timer: undefined,
      freed: false,
    };
    this.#makeRoom();
    this.#associations.set(name, association);
    this.#settle(association);
  }

  #receive(association: Association, datagram: Uint8Array): void {
    association.lastHeard = now();
    this.#associations.delete(association.name);
    this.#associations.set(association.name, association);
    association.engine.receive(association.lastHeard, datagram);
    this.#settle(association);
  }

  /** The next datagram that an engine has to send. */
  #take(engine: ServerAssociation): Uint8Array | undefined {
    const length = engine.take(this.#buffer);
    return length === 0 ? undefined : this.#buffer.slice(0, length);
  }

  /** All datagrams that wait: the engine demands that before it is given anything else. */
  #flush({ engine, endpoint }: Association): void {
    for (let datagram = this.#take(engine); datagram !== undefined; datagram = this.#take(engine)) {
      this.#socket.send(datagram, endpoint);
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
    const name = Buffer.from(digest).toString("hex");
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
      name: association.name,
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
    if (this.#associations.get(association.name) === association) {
      this.#associations.delete(association.name);
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
    const all = [...this.#associations.values()];
    const handshakes = all.filter(({ peer }) => peer === undefined);
    if (handshakes.length >= HANDSHAKES_MAX) {
      this.#end(handshakes[0]!);
    }
    if (all.length >= (this.#options.associations ?? ASSOCIATIONS_MAX)) {
      this.#end(this.#associations.values().next().value!);
    }
  }

  #endIdle(): void {
    const before = now() - (this.#options.idle ?? IDLE_MS);
    for (const association of [...this.#associations.values()]) {
      if (association.lastHeard < before) {
        this.#end(association);
      }
    }
  }
}
