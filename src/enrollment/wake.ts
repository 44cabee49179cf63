/**
 * One wake of the device: connect by the cheapest way, do one thing (or what is due), put everything away, report.
 * RFC 9148 section 4; what the host has to offer comes in as `Host`.
 *
 *     const report = await wake(host, { operation: "sren", address: "192.0.2.1", port: 5684, … });
 */

import { sameBytes } from "../bytes.js";
import type { BlockSize } from "../coap/block.js";
import { CoAPClient, type SocketOptions } from "../coap/client.js";
import { codeText } from "../coap/message.js";
import { buildFingerprint } from "../dtls/engine.js";
import { ResumptionMemory } from "../dtls/resumption.js";
import {
  AssociationReport,
  type DTLSCredentials,
  DTLSSocket,
  type DTLSSocketOptions,
  type Resume,
} from "../dtls/socket.js";
import { TorporError } from "../errors.js";
import { type CertificatesResponse, ESTClient, type ESTResponse } from "../est/client.js";
import type { Clock, KeyValueStore, Timer, UDPConstructor } from "../io.js";
import { parseCertificate } from "../pki/certificate.js";
import { certificateRequest, type KeyId, publicKey, sha256 } from "../pki/key.js";
import { FlashBytes } from "../session/flash.js";
import { DeviceSealer } from "../session/seal.js";
import { type MonotonicCounter, SessionTable, type SessionTableGeometry } from "../session/table.js";
import { type Identity, IdentityError, IdentityStore } from "./identity.js";

/** Bytes that survive deep sleep; `commit`, where they need it, is called after each change of them, as a function. */
export interface RetainedMemory {
  readonly bytes: Uint8Array;
  readonly commit?: (() => void) | undefined;
}

/** What a host hands in. */
export interface Host {
  readonly UDP: UDPConstructor;
  readonly timer: Timer;
  readonly clock: Clock;
  /** Key-value storage that survives power-off. */
  readonly store: KeyValueStore;
  /** Memory that survives deep sleep, with `byteLength` bytes. */
  retain(byteLength: number): RetainedMemory;
  /** A counter that nothing sets back, where the hardware has one. */
  readonly counter?: MonotonicCounter | undefined;
}

/**
 * Where sessions are kept: in the memory that survives sleep, there and sealed, or sealed in the key-value storage, for
 * a device that has no such memory.
 */
export type Keep = "retained" | "sealed" | "flash";

/** What can be done at a wake. `run` does what is due: the first enrolment, or a renewal, or nothing. */
export type Operation = "crts" | "att" | "sen" | "sren" | "run";

export interface WakeOptions {
  readonly operation: Operation;
  /** The server's IP address. */
  readonly address: string;
  readonly port: number;
  /** The DNS name or IP address in the server's certificate. */
  readonly host: string;
  /** EST label (RFC 9148 section 4.1). */
  readonly label?: string | undefined;
  /** Trust anchors in DER; those that the server gave earlier where undefined. */
  readonly trust?: readonly Uint8Array[] | undefined;
  /** The identity to enrol with: what the factory put into the device. */
  readonly factory?: Identity | undefined;
  readonly resume?: Resume | undefined;
  /** "retained" unless told. */
  readonly keep?: Keep | undefined;
  readonly geometry: Required<SessionTableGeometry>;
  /** Seconds that a session is kept: 86,400 unless told. */
  readonly ttl?: number | undefined;
  readonly blockSize: BlockSize;
  /** Bytes of the largest body that the server may send. */
  readonly maxBody?: number | undefined;
  readonly mtu?: number | undefined;
  readonly handshakeTimer?: number | undefined;
  readonly patience?: number | undefined;
  readonly contextPatience?: number | undefined;
  readonly connectionIdLength?: number | undefined;
}

/** One request of a wake. */
export interface OperationReport {
  readonly operation: "crts" | "att" | "sen" | "sren";
  /** CoAP code, such as "2.05". */
  readonly code: string;
  /** Bytes of the answer's body. */
  readonly bytes: number;
}

export interface WakeReport {
  readonly association: AssociationReport;
  readonly operations: readonly OperationReport[];
  /** The body of the last answer. */
  readonly body: Uint8Array;
  /** Milliseconds. */
  readonly duration: number;
}

/** Seconds of a certificate's lifetime after which `run` renews it: two thirds of it. */
const RENEW_NUMERATOR = 2;
const RENEW_DENOMINATOR = 3;

/**
 * Runs one wake. Rejects with a TorporError that says what failed; keys, certificates and sessions are then what they
 * were, save sessions that the server refused.
 */
export function wake(host: Host, options: WakeOptions): Promise<WakeReport> {
  return new Wake(host, options).run();
}

type ESTOperation = OperationReport["operation"];

const FIRST_BOOT: readonly ESTOperation[] = ["crts", "att", "sen"];
const RENEWAL: readonly ESTOperation[] = ["sren"];
const NO_BYTES = new Uint8Array();

class Wake {
  readonly #host: Host;
  readonly #options: WakeOptions;
  readonly #identities: IdentityStore;
  readonly #sessions: SessionTable;
  readonly #association = new AssociationReport();
  readonly #operations: OperationReport[] = [];
  #body = NO_BYTES;
  #coap: CoAPClient | undefined;
  #est: ESTClient | undefined;
  /** The one that the connection is made with. */
  #identity: Identity | undefined;
  /** The new key, until its certificate is kept. */
  #key: KeyId | undefined;
  /** The identity or the trust that the association rests on has changed: it ends with this wake. */
  #isOutdated = false;

  constructor(host: Host, options: WakeOptions) {
    this.#host = host;
    this.#options = options;
    this.#identities = new IdentityStore(host.store);
    this.#sessions = openSessions(host, options);
  }

  /**
   * The one function of a wake that waits: each of them would keep its stack, a promise and more in the heap, half a
   * kilobyte, until the server has answered.
   */
  async run(): Promise<WakeReport> {
    const started = this.#host.clock.ticks;
    await undefined; // what follows begins with the stack of a promise's turn, not the caller's
    try {
      const operations = this.begin();
      for (let index = 0; index < operations.length; index++) {
        const operation = operations[index]!;
        this.finish(operation, await this.send(operation));
      }
    } catch (error) {
      this.abandonKey();
      throw error;
    } finally {
      if (this.#isOutdated) {
        this.#coap?.close();
      } else {
        this.#coap?.sleep();
      }
    }
    return {
      association: this.#association,
      operations: this.#operations,
      body: this.#body,
      duration: this.#host.clock.ticks - started,
    };
  }

  /** What is to be done at this wake, in order; the connection for it is begun. */
  private begin(): readonly ESTOperation[] {
    const { operation, factory } = this.#options;
    const enrolled = this.enrolled();
    if (operation === "run") {
      if (enrolled === undefined) {
        this.connect(required(factory));
        return FIRST_BOOT;
      }
      if (!this.isRenewalDue(enrolled)) {
        return [];
      }
      this.connect(enrolled);
      return RENEWAL;
    }
    // The first enrolment is the factory identity's affair, even where the device has another one by now; a renewal is
    // the enrolled one's.
    const other = operation === "sren" ? undefined : factory;
    this.connect(required(operation === "sen" ? (factory ?? enrolled) : (enrolled ?? other)));
    return [operation];
  }

  private send(operation: ESTOperation): Promise<ESTResponse> {
    const est = this.#est!;
    switch (operation) {
      case "crts":
        return est.caCertificates();
      case "att":
        return est.csrAttributes();
      case "sen":
        return est.simpleEnroll(this.newRequest());
      default:
        return est.simpleReenroll(this.newRequest());
    }
  }

  private finish(operation: ESTOperation, response: ESTResponse): void {
    if (operation === "crts") {
      this.keepTrustAnchors((response as CertificatesResponse).certificates);
    } else if (operation !== "att") {
      this.keepIdentity((response as CertificatesResponse).certificates);
    }
    this.#body = response.body as Uint8Array<ArrayBuffer>;
    this.#operations.push({ operation, code: codeText(response.code), bytes: response.body.length });
  }

  /** The enrolled identity. One that is corrupt counts as none where the factory identity is at hand. */
  private enrolled(): Identity | undefined {
    try {
      const identity = this.#identities.recorded;
      // The key is looked at where a handshake comes; should one come after all, the socket checks it.
      if (identity !== undefined && !this.isAssociated(identity)) {
        this.#identities.check(identity);
      }
      return identity;
    } catch (error) {
      if (this.#options.factory === undefined || this.#options.operation === "sren") {
        throw error;
      }
      this.#association.notes.push((error as Error).message);
      return undefined;
    }
  }

  /** Whether a saved association of this identity can be gone on with. */
  private isAssociated({ certificates }: Identity): boolean {
    const { address, port, resume = "context" } = this.#options;
    const stored = resume === "context" ? this.#sessions.get({ address, port }) : undefined;
    return stored?.isContext === true && !stored.isUsed && sameBytes(stored.clientCertHash, sha256(certificates[0]!));
  }

  private connect(identity: Identity): void {
    const options = this.#options;
    const secure = this.credentials(identity);
    const { UDP, timer, clock, store } = this.#host;
    const socket: DTLSSocketOptions & { io: typeof DTLSSocket } = {
      io: DTLSSocket,
      address: options.address,
      port: options.port,
      host: options.host,
      socket: { io: UDP },
      timer,
      clock,
      secure,
      sessions: this.#sessions,
      memory: new ResumptionMemory(store, clock),
      resume: options.resume,
      report: this.#association,
    };
    this.#coap = new CoAPClient({
      socket: socket as SocketOptions & typeof socket,
      timer,
      blockSize: options.blockSize,
      ...(options.maxBody === undefined ? {} : { maxBody: options.maxBody }),
    });
    this.#est = new ESTClient({ coap: this.#coap, label: options.label });
    this.#identity = identity;
  }

  private credentials(identity: Identity): DTLSCredentials {
    const { trust, mtu, handshakeTimer, patience, contextPatience, connectionIdLength } = this.#options;
    const trustAnchors = trust ?? this.#identities.trustAnchors;
    if (trustAnchors === undefined) {
      throw new TorporError("no trust anchor: give one until the server's CA certificates have been fetched (crts)");
    }
    const { certificates, key } = identity;
    return {
      ...{ trustAnchors, certificates, key },
      ...{ mtu, handshakeTimer, patience, contextPatience, connectionIdLength },
    };
  }

  /** Keeps the self-issued ones as anchors; where there is none, all. */
  private keepTrustAnchors(certificates: readonly Uint8Array[]): void {
    const roots = certificates.filter(isSelfIssued);
    const { leftOut, isChanged } = this.#identities.setTrustAnchors(roots.length > 0 ? roots : certificates);
    if (leftOut > 0) {
      this.#association.notes.push(`${leftOut} of the server's CA certificates cannot be used here: left out`);
    }
    if (isChanged && this.#options.trust === undefined) {
      this.endSessions("trust anchors");
    }
  }

  /** A new key, and a request for it with the subject of the identity at hand. */
  private newRequest(): Uint8Array {
    const { subject } = parseCertificate(this.#identity!.certificates[0]!);
    const key = this.#identities.prepareKey();
    this.#key = key;
    return certificateRequest(key, subject, new Uint8Array());
  }

  /** The switch to what was issued. */
  private keepIdentity(certificates: readonly Uint8Array[]): void {
    const key = this.#key!;
    const time = Math.floor((this.#host.clock.time ?? 0) / 1000);
    this.#identities.commit(key, ownFirst(certificates, publicKey(key)), time);
    this.#key = undefined;
    this.endSessions("certificate");
  }

  /** What rests on the `what` before ends with it. The socket would not use it any more either. */
  private endSessions(what: string): void {
    this.#isOutdated = true;
    try {
      this.#sessions.clear();
    } catch (error) {
      this.#association.notes.push(`the sessions of the old ${what} stay: ${(error as Error).message}`);
    }
  }

  /** Erases the key of an enrolment that failed. */
  private abandonKey(): void {
    if (this.#key !== undefined) {
      this.#identities.abandon(this.#key);
    }
  }

  private isRenewalDue({ certificates }: Identity): boolean {
    const { notBefore, notAfter } = parseCertificate(certificates[0]!);
    const now = (this.#host.clock.time ?? 0) / 1000;
    return now >= notBefore + ((notAfter - notBefore) * RENEW_NUMERATOR) / RENEW_DENOMINATOR;
  }
}

/** The session table, in the memory that `keep` names. */
function openSessions(host: Host, { keep = "retained", geometry, ttl = 86400 }: WakeOptions): SessionTable {
  const flash = keep === "flash" ? new FlashBytes(host.store, geometry) : undefined;
  const { bytes, commit } = flash ?? host.retain(SessionTable.byteLength(geometry));
  return new SessionTable(bytes, {
    ...geometry,
    ttl,
    clock: host.clock,
    fingerprint: buildFingerprint(),
    commit: flash === undefined ? commit : () => flash.commit(),
    seal: keep === "retained" ? undefined : new DeviceSealer(),
    counter: host.counter,
  });
}

function required(identity: Identity | undefined): Identity {
  if (identity === undefined) {
    throw new TorporError("no identity: the device is not enrolled yet, so it needs its factory certificate and key");
  }
  return identity;
}

/** The certificate for this key first, then the others in the server's order. */
function ownFirst(certificates: readonly Uint8Array[], point: Uint8Array): readonly Uint8Array[] {
  const own = certificates.find((der) => sameBytes(parseCertificate(der).publicKey, point));
  if (own === undefined) {
    throw new IdentityError("the server issued no certificate for this device's key: refused");
  }
  return [own, ...certificates.filter((der) => der !== own)];
}

function isSelfIssued(der: Uint8Array): boolean {
  const certificate = parseCertificate(der);
  return sameBytes(certificate.subject, certificate.issuer);
}
