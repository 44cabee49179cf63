/**
 * One wake of the device: connect by the cheapest way, do one thing (or what is due), put everything away, report.
 * RFC 9148 section 4; what the host has to offer comes in as `Host`.
 *
 *     const report = await wake(host, { operation: "sren", address: "192.0.2.1", port: 5684, … });
 */

import { sameBytes } from "../bytes.js";
import type { BlockSize } from "../coap/block.js";
import { CoAPClient, type PayloadSource, type SocketOptions } from "../coap/client.js";
import { Code, codeText } from "../coap/message.js";
import { AlertError, buildFingerprint, CertificateError } from "../dtls/engine.js";
import { ResumptionMemory } from "../dtls/resumption.js";
import {
  AssociationReport,
  type DTLSCredentials,
  DTLSSocket,
  type DTLSSocketOptions,
  type Resume,
} from "../dtls/socket.js";
import { TimeoutError, TorporError } from "../errors.js";
import {
  type CertificatesResponse,
  type CsrAttributesResponse,
  type DiscoveryResponse,
  ESTClient,
  ESTError,
  type ESTResponse,
  type ServerKeyResponse,
} from "../est/client.js";
import type { CsrAttribute } from "../est/csrattrs.js";
import type { ESTResource } from "../est/discovery.js";
import { describeLeniency } from "../est/leniency.js";
import type { Clock, KeyValueStore, Timer, UDPConstructor } from "../io.js";
import { sha256 } from "../pki/key.js";
import { FlashBytes } from "../session/flash.js";
import { DeviceSealer } from "../session/seal.js";
import { type MonotonicCounter, SessionTable, type SessionTableGeometry } from "../session/table.js";
import { Enrolment, type KeyPolicy } from "./enrolment.js";
import { type Identity, IdentityError, IdentityStore } from "./identity.js";
import { writeWishes } from "./life.js";
import { Run, type ScheduleReport } from "./run.js";
import type { SchedulePolicy } from "./schedule.js";
import { anchorsOf, isRegistrationAuthority, leadsTo } from "./trust.js";

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

/** What can be done at a wake. `run` does what is due (schedule.ts): the first enrolment, a renewal, or nothing. */
export type Operation = ESTOperation | "run";

/** One request: the functions of RFC 9148, table 1, and `core`, discovery. */
export type ESTOperation = "core" | "crts" | "att" | "sen" | "sren" | "skg" | "skc";

export interface WakeOptions {
  readonly operation: Operation;
  /** The server's IP address. */
  readonly address: string;
  readonly port: number;
  /** The DNS name or IP address in the server's certificate. */
  readonly host: string;
  /** EST label (RFC 9148 section 4.1). */
  readonly label?: string | undefined;
  /**
   * Trust anchors in DER; those that the server gave earlier where undefined. `run` takes these to begin with, the
   * implicit ones of RFC 7030 section 1.1, and those that the server gave once it has them.
   */
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
  /** As in DTLSCredentials, as the one below. */
  readonly groups?: readonly string[] | undefined;
  readonly psk?: "alone" | undefined;
  /** "first" asks the server where its EST resources are before anything else, and goes there. */
  readonly discovery?: "first" | undefined;
  readonly keyPolicy?: KeyPolicy | undefined;
  /** Bits of a new key, where the server does not wish others: 256 unless told. */
  readonly keyBits?: 256 | 384 | undefined;
  /** "any": the CA may name the device otherwise than it asked to be named. */
  readonly subject?: "requested" | "any" | undefined;
  /**
   * Whether the server's certificate must name it a registration authority (RFC 9148 section 9.2) while the trust
   * anchors are implicit: it is noted where it does not, or demanded. `run` notes it unless told.
   */
  readonly registrationAuthority?: "note" | "demand" | undefined;
  /** When `run` does what. */
  readonly policy?: SchedulePolicy | undefined;
}

/** One request of a wake. */
export interface OperationReport {
  readonly operation: ESTOperation;
  /** CoAP code, such as "2.05". */
  readonly code: string;
  /** Bytes of the answer's body. */
  readonly bytes: number;
}

export interface WakeReport {
  readonly association: AssociationReport;
  readonly operations: readonly OperationReport[];
  /** The body of the last answer; of skg and skc the certificate alone. */
  readonly body: Uint8Array;
  /** Milliseconds. */
  readonly duration: number;
  /** Of `run`: what comes next, and when. */
  readonly schedule?: ScheduleReport | undefined;
  /** Of `core`: where the server has what. */
  readonly resources?: readonly ESTResource[] | undefined;
}

/**
 * Runs one wake. Rejects with a TorporError that says what failed; keys, certificates and sessions are then what they
 * were, save sessions that the server refused.
 */
export function wake(host: Host, options: WakeOptions): Promise<WakeReport> {
  return new Wake(host, options).run();
}

const NO_BYTES = new Uint8Array();

/** What a key pair or a signature is made for first. */
const ENROLMENTS: readonly ESTOperation[] = ["sen", "sren", "skg", "skc"];

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
  /** What discovery has found. */
  #resources: readonly ESTResource[] | undefined;
  /** What the server wishes to see in a request, where it was asked at this wake. */
  #attributes: readonly CsrAttribute[] | undefined;
  /** The request on its way, until its certificate is kept. */
  #enrolment: Enrolment | undefined;
  /** Of the operation `run`. */
  #run: Run | undefined;
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
      if (ENROLMENTS.includes(operations[0]!)) {
        await this.nextTurn(); // the first datagram is out: key and request are made while the server answers
      }
      for (let index = 0; index < operations.length; index++) {
        const operation = operations[index]!;
        this.finish(operation, await this.send(operation), operations.length - index - 1);
      }
      this.#run?.succeed(this.#operations);
    } catch (error) {
      this.fail(error as Error);
      throw error;
    } finally {
      if (this.#isOutdated) {
        this.#coap?.close();
      } else {
        this.#coap?.sleep();
      }
    }
    return this.report(started);
  }

  /** After what timers are set for by now: the socket, which is to begin then. */
  private nextTurn(): Promise<void> {
    return new Promise((resolve) => this.#host.timer.set(() => resolve(), 0));
  }

  private report(started: number): WakeReport {
    return {
      association: this.#association,
      operations: this.#operations,
      body: this.#body,
      duration: this.#host.clock.ticks - started,
      schedule: this.#run?.schedule,
      resources: this.#resources,
    };
  }

  /** What is to be done at this wake, in order; the connection for it is begun. */
  private begin(): readonly ESTOperation[] {
    const { operation, factory, discovery } = this.#options;
    const enrolled = this.enrolled();
    let operations: readonly ESTOperation[];
    if (operation === "run") {
      const run = new Run(this.#host, this.#options, this.#identities, enrolled, this.#association.notes);
      operations = run.decision.steps;
      if (operations.length === 0) {
        run.rest();
        this.#run = run;
        return operations;
      }
      this.connect(required(run.decision.identity === "factory" ? factory : enrolled), run);
      this.#run = run;
    } else {
      // The first enrolment is the factory identity's affair, even where the device has another one by now; a renewal
      // is the enrolled one's.
      const other = operation === "sren" ? undefined : factory;
      this.connect(required(operation === "sen" ? (factory ?? enrolled) : (enrolled ?? other)));
      operations = [operation];
    }
    return discovery === "first" && operation !== "core" ? ["core", ...operations] : operations;
  }

  private send(operation: ESTOperation): Promise<ESTResponse> {
    const est = this.#est!;
    switch (operation) {
      case "core":
        return est.discover();
      case "crts":
        return est.caCertificates();
      case "att":
        return est.csrAttributes();
      case "sen":
        return est.simpleEnroll(this.newRequest("sen"));
      case "sren":
        return est.simpleReenroll(this.newRequest("sren"));
      default:
        return est.serverKeyGeneration(operation, this.newRequest(operation));
    }
  }

  /** @param left how many operations follow at this wake */
  private finish(operation: ESTOperation, response: ESTResponse, left: number): void {
    const { leniencies, code, body } = response;
    if (leniencies !== undefined) {
      for (const leniency of leniencies) {
        this.noteOnce(describeLeniency(leniency));
      }
    }
    if (this.#operations.length === 0 && this.isTrustImplicit) {
      this.checkRegistrationAuthority();
    }
    switch (operation) {
      case "core":
        this.goTo((response as DiscoveryResponse).resources, left);
        break;
      case "crts":
        this.keepTrustAnchors((response as CertificatesResponse).certificates, left);
        break;
      case "att":
        this.#attributes = (response as CsrAttributesResponse).attributes;
        writeWishes(this.#host.store, body);
        break;
      case "sen":
      case "sren":
        this.#enrolment!.keep((response as CertificatesResponse).certificates, this.certificateTime);
        this.endEnrolment();
        break;
      default:
        this.#enrolment!.keepServerKey(response as ServerKeyResponse, this.certificateTime);
        this.endEnrolment();
    }
    this.#body = body as Uint8Array<ArrayBuffer>;
    this.#operations.push({ operation, code: codeText(code), bytes: body.length });
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

  private connect(identity: Identity, run?: Run, port = this.#options.port): void {
    const options = this.#options;
    const secure = this.credentials(identity, run);
    const { UDP, timer, clock, store } = this.#host;
    const socket: DTLSSocketOptions & { io: typeof DTLSSocket } = {
      io: DTLSSocket,
      address: options.address,
      port,
      host: options.host,
      socket: { io: UDP },
      timer,
      clock: run?.clock ?? clock,
      secure,
      sessions: this.#sessions,
      memory: new ResumptionMemory(store, clock),
      resume: this.demandsChain(run) ? "none" : options.resume,
      report: this.#association,
    };
    this.#coap = new CoAPClient({
      socket: socket as SocketOptions & typeof socket,
      timer,
      blockSize: options.blockSize,
      ...(options.maxBody === undefined ? {} : { maxBody: options.maxBody }),
    });
    this.#est = new ESTClient({ coap: this.#coap, label: options.label, resources: this.#resources });
    this.#identity = identity;
  }

  /** The connection made anew: with the trust anchors that are kept now, or to another port. */
  private reconnect(port?: number): void {
    this.#coap!.close();
    this.connect(this.#identity!, this.#run, port);
  }

  private credentials(identity: Identity, run: Run | undefined): DTLSCredentials {
    const { trust, mtu, handshakeTimer, patience, contextPatience, connectionIdLength, groups, psk } = this.#options;
    const trustAnchors = run === undefined ? (trust ?? this.#identities.trustAnchors) : run.anchors;
    if (trustAnchors === undefined) {
      throw new TorporError("no trust anchor: give one until the server's CA certificates have been fetched (crts)");
    }
    const { certificates, key } = identity;
    const keep = run !== undefined || this.isTrustImplicit ? "chain" : undefined;
    return {
      ...{ trustAnchors, certificates, key, keep },
      ...{ mtu, handshakeTimer, patience, contextPatience, connectionIdLength },
      ...(groups === undefined ? undefined : { groups }),
      ...(psk === undefined ? undefined : { psk }),
    };
  }

  // ---- discovery ----

  /** Uses the resources that were found; where they are on another port of the server, there. */
  private goTo(resources: readonly ESTResource[], left: number): void {
    const { host, address, port } = this.#options;
    this.#resources = resources;
    if (left === 0 || resources.length === 0) {
      return;
    }
    const elsewhere = resources.find((resource) => resource.host !== undefined);
    if (elsewhere !== undefined && elsewhere.host !== host && elsewhere.host !== address) {
      throw new TorporError(`the server's EST resources are on another host: connect to ${elsewhere.host} instead`);
    }
    if (elsewhere?.port !== undefined && elsewhere.port !== port) {
      this.reconnect(elsewhere.port);
    } else {
      this.#est = new ESTClient({ coap: this.#coap!, resources });
    }
  }

  // ---- trust ----

  /** Whether the server is verified by anchors that it did not give itself, as far as anybody asks. */
  private get isTrustImplicit(): boolean {
    const { trust, registrationAuthority } = this.#options;
    return this.#run === undefined
      ? trust !== undefined && registrationAuthority !== undefined
      : this.#run.trusts === "implicit";
  }

  /** Whether the server's certificate must be seen: a session that is resumed would show none. */
  private demandsChain(run: Run | undefined): boolean {
    const { trust, registrationAuthority } = this.#options;
    return registrationAuthority === "demand" && (run === undefined ? trust !== undefined : run.trusts === "implicit");
  }

  /** RFC 9148 section 9.2. */
  private checkRegistrationAuthority(): void {
    const chain = this.#association.serverChain;
    if (chain === undefined || isRegistrationAuthority(chain)) {
      return;
    }
    const sentence =
      "the server's certificate does not name it a registration authority (id-kp-cmcRA, RFC 9148 section 9.2), and " +
      "its trust anchor is not one that an EST server gave";
    if (this.#options.registrationAuthority === "demand") {
      throw new IdentityError(`${sentence}: refused`);
    }
    this.#association.notes.push(sentence);
  }

  private keepTrustAnchors(certificates: readonly Uint8Array[], left: number): void {
    const anchors = anchorsOf(certificates);
    // RFC 9148 section 9.1: before anything else is asked of this server.
    const chain = left > 0 ? this.#association.serverChain : undefined;
    if (chain !== undefined && !leadsTo(chain, certificates, anchors)) {
      throw new IdentityError(
        "the server's own certificate does not lead to the CA certificates that it gave (RFC 9148 section 9.1): not kept",
      );
    }
    const { leftOut, isChanged } = this.#identities.setTrustAnchors(anchors);
    if (leftOut > 0) {
      this.#association.notes.push(`${leftOut} of the server's CA certificates cannot be used here: left out`);
    }
    if (isChanged && (this.#run !== undefined || this.#options.trust === undefined)) {
      this.endSessions("trust anchors");
    }
    if (this.#run !== undefined) {
      this.#run.trustIsExplicit();
      if (isChanged && left > 0 && chain === undefined) {
        this.reconnect();
        this.#isOutdated = false; // the new connection rests on what is kept now
      }
    }
  }

  // ---- enrolment ----

  private newRequest(operation: "sen" | "sren" | "skg" | "skc"): Uint8Array | PayloadSource {
    const enrolment = new Enrolment(operation, {
      store: this.#host.store,
      identities: this.#identities,
      identity: this.#identity!,
      attributes: this.#attributes,
      association: this.#association,
      options: this.#options,
    });
    this.#enrolment = enrolment;
    return enrolment.begin();
  }

  /** Seconds since 1970 by which a new certificate is judged; 0 where there is no trusted clock. */
  private get certificateTime(): number {
    return Math.floor(((this.#run?.clock ?? this.#host.clock).time ?? 0) / 1000);
  }

  private endEnrolment(): void {
    this.#enrolment = undefined;
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

  private noteOnce(sentence: string): void {
    if (!this.#association.notes.includes(sentence)) {
      this.#association.notes.push(sentence);
    }
  }

  // ---- failure ----

  /** What becomes of the request on its way, and of the schedule, where the wake has failed. */
  private fail(error: Error): void {
    const retryAfter = error instanceof ESTError ? error.retryAfter : undefined;
    this.#enrolment?.end(retryAfter !== undefined || error instanceof TimeoutError ? "try again" : "give up");
    this.#run?.fail({
      kind: "failed",
      error: error.message,
      retryAfter,
      refused: isRefusal(error) ? "device" : error instanceof CertificateError ? "server" : undefined,
    });
  }
}

/** RFC 5246 section 7.2: the alerts that are about this device's certificate; 4.01 says the same one layer above. */
function isRefusal(error: Error): boolean {
  return error instanceof AlertError
    ? (error.alert >= 42 && error.alert <= 46) || error.alert === 48
    : error instanceof ESTError && error.code === Code.UNAUTHORIZED;
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
