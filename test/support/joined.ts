/**
 * A network in memory, in virtual time, with a DTLS server at its other end: what a DTLSSocket is given for UDP. It can
 * lose, double, delay and forge datagrams, the same ones every time for the same seed.
 *
 *     const network = new JoinedNetwork();
 *     network.serve(new ServerEngine({ … }));
 *     const socket = new DTLSSocket({ …SERVER, socket: { io: network.UDP }, timer: network.time, clock: network.clock, … });
 *     await network.time.finish(60_000);
 *     network.free();
 */

import { EngineState } from "../../src/dtls/engine.js";
import { Traffic } from "../../src/dtls/socket.js";
import type { Clock, Datagram, SocketCallbacks, TimerId, UDP, UDPConstructor } from "../../src/io.js";
import { chance } from "../../tools/chance.js";
import { CONNECTION_ID_BYTES, type ServerAssociation, type ServerEngine } from "../../tools/est-server/engine.js";
import { clientRandom, partOf, plainHandshake, SERVER_HELLO } from "../../tools/est-server/hello.js";
import { FakeTime } from "./fake-time.js";

/** Where the server is, unless told. */
export const SERVER = { address: "192.0.2.1", port: 5684 } as const;

/** Content types of records (RFC 6347 section 4.1). */
export const ContentType = {
  CHANGE_CIPHER_SPEC: 20,
  ALERT: 21,
  HANDSHAKE: 22,
  APPLICATION_DATA: 23,
  /** RFC 9146 section 4 */
  CONNECTION_ID: 25,
} as const;

/** A datagram on its way. */
export interface Carried {
  /** Counts from 0 in each network. */
  readonly index: number;
  /** As the client sees it. */
  readonly direction: "out" | "in";
  /** Virtual time, in milliseconds. */
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** Probabilities, 0 to 1. */
export interface Faults {
  readonly loss: number;
  readonly doubling: number;
  /** A datagram that is late by up to `LATE` milliseconds lets others overtake it. */
  readonly reordering: number;
}

/** Milliseconds that a datagram takes, and that a late one takes more at most. */
const TRANSIT = 5;
const LATE = 4000;

/** The first port of the clients; each has another one. */
const FIRST_PORT = 49152;
const BUFFER_BYTES = 4096;

/** Where a record with a connection ID has it (RFC 9146 section 4). */
const CONNECTION_ID_AT = 11;

/** A fatal alert in the clear, as a server sends it before there are keys. */
export function plainAlert(description: number): Uint8Array {
  return Uint8Array.of(ContentType.ALERT, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, description);
}

/** One client as the server knows it. */
interface Association {
  readonly engine: ServerAssociation;
  readonly random: string;
  /** Where it was last. */
  client: FakeUDP;
  isOpen: boolean;
  timer: TimerId | undefined;
}

export class JoinedNetwork {
  readonly time = new FakeTime();
  readonly clock: Clock;
  /** For `socket: { io }`. */
  readonly UDP: UDPConstructor;
  /** Every datagram that either side sent, lost ones included. */
  readonly trace: Carried[] = [];
  /**
   * UDP payload that the client sent, and that it read from the server's address: what a report must say. To the
   * handshake belong its records, and alerts in the clear.
   */
  counted = { handshake: new Traffic(), application: new Traffic() };
  /** Datagrams that the client gave to UDP, those included that UDP refused. */
  writes = 0;
  /** UDP sockets that are open. */
  readonly open = new Set<FakeUDP>();
  /** Addresses that the client wrote to, in order. */
  readonly destinations: string[] = [];

  /** Whether a datagram is lost, besides the faults. */
  lose: (datagram: Carried) => boolean = () => false;
  faults: Faults = { loss: 0, doubling: 0, reordering: 0 };
  /** What the server sends in place of its engine's answer; undefined: what the engine answers. */
  answer: (datagram: Uint8Array) => readonly Uint8Array[] | undefined = () => undefined;
  /** What the server's datagrams become on their way out. */
  rewrite: (datagram: Uint8Array, engine?: ServerAssociation) => readonly Uint8Array[] = (datagram) => [datagram];
  /** What the UDP class throws: at its construction, and at the write with this index. */
  constructionError: Error | undefined;
  writeError: (index: number) => Error | undefined = () => undefined;
  /** Is called for every message that the server reads; what it returns is the reply. An echo unless told. */
  onMessage: (message: Uint8Array, engine: ServerAssociation) => Uint8Array | undefined = (message) => message;

  /** Is called for every handshake that the server has finished. */
  onOpen: (engine: ServerAssociation) => void = () => {};

  /** What became of the server's associations. */
  readonly ended = { closed: 0, failed: 0 };
  readonly address: string;
  readonly port: number;
  readonly #random: () => number;
  readonly #started = Math.floor(Date.now() / 1000) * 1000;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #associations = new Map<FakeUDP, Association>();
  #server: ServerEngine | undefined;

  constructor({ seed = 1, address = SERVER.address, port = SERVER.port }: Partial<JoinedOptions> = {}) {
    this.address = address;
    this.port = port;
    this.#random = chance(seed);
    const { time } = this;
    const started = this.#started;
    this.clock = {
      get ticks() {
        return time.now;
      },
      get time() {
        return started + time.now;
      },
    };
    const network = this;
    this.UDP = class extends FakeUDP {
      constructor(options: SocketCallbacks) {
        super(network, options);
      }
    };
  }

  /** Puts a server there, in place of the one before: as after a restart, nobody is known. Undefined: nobody there. */
  serve(server: ServerEngine | undefined): void {
    this.#endAll();
    this.#server = server;
  }

  /** The server loses all associations without a word; its sessions stay. */
  forget(): void {
    this.#endAll();
  }

  /** The server's end of the association made last. */
  get association(): ServerAssociation | undefined {
    return [...this.#associations.values()].at(-1)?.engine;
  }

  /** The server sends a message to the client of `engine`, where it is now; without effect once that has ended. */
  send(engine: ServerAssociation, message: Uint8Array): void {
    const association = [...this.#associations.values()].find((candidate) => candidate.engine === engine);
    if (association !== undefined && engine.state === EngineState.OPEN) {
      engine.write(message);
      this.#flush(association);
    }
  }

  /** A message as the datagram by which the server would send it now. */
  protect(message: Uint8Array): Uint8Array {
    const engine = this.association!;
    engine.write(message);
    return this.#take(engine)!;
  }

  /** The server ends all associations with a close_notify; its datagrams come back for the test to use or not. */
  goodbye(): Uint8Array[] {
    const datagrams: Uint8Array[] = [];
    for (const association of [...this.#associations.values()]) {
      association.engine.close();
      datagrams.push(this.#take(association.engine)!);
      this.#end(association);
    }
    return datagrams;
  }

  /** Lets the client receive datagrams on a later turn, all at once. They come from the server unless told. */
  deliver(datagrams: readonly Uint8Array[], from: { address: string; port: number } = this): void {
    this.time.set(() => {
      for (const udp of this.open) {
        udp.receive(datagrams, from);
      }
    }, TRANSIT);
  }

  /** Ends the server's associations. */
  free(): void {
    this.#endAll();
  }

  // ---- what the client's UDP does ----

  /** The client sends. */
  receive(client: FakeUDP, bytes: Uint8Array, address: string, port: number): void {
    const error = this.writeError(this.writes++);
    if (error !== undefined) {
      throw error;
    }
    this.#count(bytes, "Out");
    this.destinations.push(`${address} ${port}`);
    if (address === this.address && port === this.port) {
      this.#carry("out", bytes, () => this.#onDatagram(client, bytes));
    }
  }

  /** The client has read what came from the server. */
  count(datagram: Datagram): void {
    if (datagram.address === this.address && datagram.port === this.port) {
      this.#count(new Uint8Array(datagram), "In");
    }
  }

  #count(bytes: Uint8Array, direction: "Out" | "In"): void {
    const isPlainAlert = bytes[0] === ContentType.ALERT && bytes[3] === 0 && bytes[4] === 0;
    const isHandshake = bytes[0] === ContentType.HANDSHAKE || bytes[0] === ContentType.CHANGE_CIPHER_SPEC;
    const traffic = this.counted[isHandshake || isPlainAlert ? "handshake" : "application"];
    traffic[`bytes${direction}`] += bytes.length;
    traffic[`datagrams${direction}`]++;
  }

  #carry(direction: "out" | "in", bytes: Uint8Array, arrive: () => void): void {
    const datagram = { index: this.trace.length, direction, at: this.time.now, bytes };
    this.trace.push(datagram);
    const { loss, doubling, reordering } = this.faults;
    // Every datagram takes as many random numbers, whatever becomes of it.
    const [lost, doubled, late, delay] = [this.#random(), this.#random(), this.#random(), this.#random()];
    if (this.lose(datagram) || lost < loss) {
      return;
    }
    this.time.set(arrive, late < reordering ? TRANSIT + Math.floor(delay * LATE) : TRANSIT);
    if (doubled < doubling) {
      this.time.set(arrive, TRANSIT + Math.floor(delay * LATE));
    }
  }

  // ---- the server, as tools/est-server/dtls-server.ts does it ----

  #onDatagram(client: FakeUDP, datagram: Uint8Array): void {
    const answers = this.answer(datagram);
    if (answers !== undefined) {
      for (const answer of answers) {
        this.#sendTo(client, answer);
      }
      return;
    }
    const known = this.#byConnectionId(datagram) ?? this.#associations.get(client);
    const random = clientRandom(datagram);
    if (random !== undefined && known?.random !== random) {
      this.#greet(client, random, datagram);
    } else if (known !== undefined && (random === undefined || known.engine.state === EngineState.HANDSHAKE)) {
      const before = known.engine.highest;
      known.engine.receive(this.time.now, datagram);
      // RFC 9146 section 6: its new address is that of the newest authentic record.
      if (known.client !== client && known.engine.highest > before) {
        this.#associations.delete(known.client);
        known.client = client;
        this.#associations.set(client, known);
      }
      this.#settle(known);
    }
  }

  #byConnectionId(datagram: Uint8Array): Association | undefined {
    if (datagram[0] !== ContentType.CONNECTION_ID) {
      return undefined;
    }
    const id = datagram.subarray(CONNECTION_ID_AT, CONNECTION_ID_AT + CONNECTION_ID_BYTES).toString();
    return [...this.#associations.values()].find(({ engine }) => engine.connectionId?.toString() === id);
  }

  /** A ClientHello of nobody known: it makes an association if its cookie is right. */
  #greet(client: FakeUDP, random: string, datagram: Uint8Array): void {
    if (this.#server === undefined) {
      return;
    }
    const unixTime = Math.floor((this.clock.time ?? 0) / 1000);
    const engine = this.#server.accept(this.time.now, unixTime, Uint8Array.of(client.port >> 8, client.port & 255));
    engine.receive(this.time.now, datagram);
    const first = this.#take(engine);
    if (first !== undefined) {
      this.#sendTo(client, first, engine);
    }
    // Of a hello in parts (hybrid key exchange) the rest is still on its way.
    const isPart = first === undefined && partOf(datagram) === "first" && engine.state === EngineState.HANDSHAKE;
    if (!isPart && (first === undefined || plainHandshake(first) !== SERVER_HELLO)) {
      engine.free();
      return;
    }
    this.#end(this.#associations.get(client));
    const association: Association = { engine, random, client, isOpen: false, timer: undefined };
    this.#associations.set(client, association);
    this.#settle(association);
  }

  #settle(association: Association): void {
    const { engine } = association;
    if (!this.#flush(association)) {
      return;
    }
    if (engine.state === EngineState.OPEN && !association.isOpen) {
      association.isOpen = true;
      this.onOpen(engine);
    }
    for (let length = engine.read(this.#buffer); length > 0; length = engine.read(this.#buffer)) {
      const reply = this.onMessage(this.#buffer.slice(0, length), engine);
      if (!this.#flush(association)) {
        return;
      }
      if (reply !== undefined) {
        engine.write(reply);
        this.#sendTo(association.client, this.#take(engine)!, engine);
      }
    }
    if (engine.state === EngineState.CLOSED || engine.state === EngineState.FAILED) {
      this.ended[engine.state === EngineState.CLOSED ? "closed" : "failed"]++;
      this.#end(association);
      return;
    }
    this.time.clear(association.timer);
    association.timer = undefined;
    const { deadline } = engine;
    if (deadline !== undefined) {
      association.timer = this.time.set(
        () => {
          engine.elapse(this.time.now);
          this.#settle(association);
        },
        Math.max(1, deadline - this.time.now),
      );
    }
  }

  /** Sends what waits; false where a fatal alert has ended the association. */
  #flush(association: Association): boolean {
    const { engine, client } = association;
    for (let datagram = this.#take(engine); datagram !== undefined; datagram = this.#take(engine)) {
      this.#sendTo(client, datagram, engine);
      if (datagram[0] === ContentType.ALERT && engine.state === EngineState.HANDSHAKE) {
        this.ended.failed++;
        this.#end(association);
        return false;
      }
    }
    return true;
  }

  #sendTo(client: FakeUDP, datagram: Uint8Array, engine?: ServerAssociation): void {
    for (const rewritten of this.rewrite(datagram, engine)) {
      const sent = Uint8Array.from(rewritten); // a Buffer's `slice` would be no copy
      this.#carry("in", sent, () => client.receive([sent], this));
    }
  }

  #take(engine: ServerAssociation): Uint8Array | undefined {
    const length = engine.take(this.#buffer);
    return length === 0 ? undefined : this.#buffer.slice(0, length);
  }

  #end(association: Association | undefined): void {
    if (association !== undefined) {
      this.time.clear(association.timer);
      association.engine.free();
      this.#associations.delete(association.client);
    }
  }

  #endAll(): void {
    for (const association of [...this.#associations.values()]) {
      this.#end(association);
    }
  }
}

export interface JoinedOptions {
  readonly seed: number;
  /** The server's. */
  readonly address: string;
  readonly port: number;
}

/** The client's UDP socket: `new network.UDP({ onReadable, onError })`. */
class FakeUDP implements UDP {
  static #ports = FIRST_PORT;

  /** Its own, which no other has. */
  readonly port = FakeUDP.#ports++;
  readonly #network: JoinedNetwork;
  readonly #options: SocketCallbacks;
  readonly #queue: Datagram[] = [];

  constructor(network: JoinedNetwork, options: SocketCallbacks) {
    if (network.constructionError !== undefined) {
      throw network.constructionError;
    }
    this.#network = network;
    this.#options = options;
    network.open.add(this);
  }

  /** ECMA-419: how a callback finds what it is for. */
  get target(): unknown {
    return this.#options.target;
  }

  write(datagram: Uint8Array, address: string, port: number): void {
    if (!this.#network.open.has(this)) {
      throw new Error("the UDP socket is closed");
    }
    this.#network.receive(this, datagram.slice(), address, port);
  }

  read(): Datagram | undefined {
    const datagram = this.#queue.shift();
    if (datagram !== undefined) {
      this.#network.count(datagram);
    }
    return datagram;
  }

  close(): void {
    this.#network.open.delete(this);
    this.#queue.length = 0;
  }

  receive(datagrams: readonly Uint8Array[], { address, port }: { address: string; port: number }): void {
    if (this.#network.open.has(this)) {
      for (const datagram of datagrams) {
        this.#queue.push(Object.assign(datagram.slice().buffer as ArrayBuffer, { address, port }));
      }
      this.#options.onReadable?.call(this as never, this.#queue.length);
    }
  }

  /** The socket has failed. */
  fail(error: Error): void {
    this.#options.onError?.call(this as never, error);
  }
}

/** Hands what devices send to a CoAP server; `clientOf` makes what it knows of each association. */
export function serveCoAP<Client extends object>(
  network: JoinedNetwork,
  coap: { receive(client: Client, message: Uint8Array): void },
  clientOf: (association: ServerAssociation) => Client,
): void {
  const clients = new WeakMap<ServerAssociation, Client>();
  network.onMessage = (message, association) => {
    const client = clients.get(association) ?? clientOf(association);
    clients.set(association, client);
    coap.receive(client, message);
    return undefined;
  };
}
