/**
 * A UDP relay between the device and its server that records every datagram, so that a test can count what really went
 * over the wire, and lose, double or hold back what it likes. To the server each flow comes from an address of its own
 * (Linux has all of 127.0.0.0/8 on loopback): none is ever mistaken for an earlier one, as ports are.
 *
 *     const relay = await Relay.to(serverPort);
 *     … connect to relay.port …
 *     relay.records(23, "out")   // application data sent by the device
 */

import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";

import { CONNECTION_ID_BYTES } from "./est-server/engine.js";

const CONNECTION_ID_RECORD = 25;

export type Direction = "out" | "in";

export interface Recorded {
  readonly direction: Direction;
  readonly bytes: Buffer;
  /** Number of the relay's own socket to the server, one for each port of a device: see `rest`. */
  readonly flow: number;
  /** The flow that this one goes on with, where the device has moved: see `move`. */
  readonly from?: number | undefined;
}

interface Flow {
  readonly number: number;
  readonly from: number | undefined;
  readonly back: Socket;
  /** Answers do not find the device any more. */
  isCut: boolean;
}

/** The DTLS records of a datagram, which may hold several (RFC 6347 section 4.1). */
export function* recordsOf(datagram: Buffer): IterableIterator<Buffer> {
  for (let at = 0; at + 13 <= datagram.length; ) {
    // Records to the server carry its connection ID before their length (RFC 9146 section 4).
    const head = datagram[at] === CONNECTION_ID_RECORD ? 13 + CONNECTION_ID_BYTES : 13;
    const end = at + head + datagram.readUInt16BE(at + head - 2);
    yield datagram.subarray(at, end);
    at = end;
  }
}

/** Milliseconds after which a flight has come as a whole. */
const QUIET = 50;

/** Milliseconds that the socket of a flow stays open at rest: what the server still says to it is recorded. */
const LINGER = 60_000;

/** Flows of all relays so far. */
let flows = 0;

/** An address that no flow had before; of IPv6 there is only one on loopback. */
function ownAddress(target: string): string {
  const number = ++flows;
  return target === "127.0.0.1"
    ? `127.${1 + ((number >> 16) % 254)}.${(number >> 8) & 255}.${number & 255}`
    : target.includes(":")
      ? "::"
      : "0.0.0.0";
}

export class Relay {
  readonly datagrams: Recorded[] = [];
  /** Decides what becomes of a datagram: how often it is passed on. */
  pass: (datagram: Recorded, index: number) => number = () => 1;
  /** Milliseconds that each copy of a datagram is late: others overtake it. */
  late: () => number = () => 0;
  /** Holds back what goes in this direction until nothing more has come for a while, then passes on the last one first. */
  reversed: Direction | undefined;
  /** Makes several datagrams of one, before all else. */
  split: (datagram: Recorded) => readonly Buffer[] = ({ bytes }) => [bytes];
  #isClosed = false;
  readonly #held: (() => void)[] = [];
  #quiet: NodeJS.Timeout | undefined;
  /** Where the latest datagram from a device came from. */
  #device = 0;
  readonly #front: Socket;
  /** The latest flow of each port of a device. */
  readonly #flows = new Map<number, Flow>();
  /** By the port of a device, the flow that it had before it moved. */
  readonly #left = new Map<number, number>();
  #flowCount = 0;
  readonly #backs = new Set<Socket>();
  readonly #target: { port: number; address: string };

  private constructor(front: Socket, target: { port: number; address: string }) {
    this.#front = front;
    this.#target = target;
  }

  static async to(port: number, address = "127.0.0.1"): Promise<Relay> {
    const front = createSocket(address.includes(":") ? "udp6" : "udp4");
    front.bind(0, address);
    await once(front, "listening");
    const relay = new Relay(front, { port, address });
    front.on("message", (bytes, from) => relay.#fromDevice(bytes, from.port));
    return relay;
  }

  get port(): number {
    return this.#front.address().port;
  }

  /** How many DTLS records of a content type there were. */
  records(contentType: number, direction: Direction): number {
    let count = 0;
    for (const datagram of this.datagrams) {
      if (datagram.direction === direction) {
        count += [...recordsOf(datagram.bytes)].filter((record) => record[0] === contentType).length;
      }
    }
    return count;
  }

  /** Bytes and datagrams whose first record is of one of the content types. */
  traffic(direction: Direction, ...contentTypes: readonly number[]): { bytes: number; datagrams: number } {
    const those = this.datagrams.filter(
      (datagram) => datagram.direction === direction && contentTypes.includes(datagram.bytes[0]!),
    );
    return { bytes: those.reduce((sum, { bytes }) => sum + bytes.length, 0), datagrams: those.length };
  }

  /** A datagram for the device that looks as if it came from the server. */
  inject(bytes: Buffer): void {
    this.#front.send(bytes, this.#device);
  }

  /**
   * The device sleeps: what comes from any port of it now is a new flow. What the server still has for the old one is
   * not mistaken for the new one's, as it would be where the system gives a port to a second process.
   */
  rest(): void {
    for (const { back } of this.#flows.values()) {
      setTimeout(() => this.#end(back), LINGER).unref();
    }
    this.#flows.clear();
    this.#left.clear();
  }

  /**
   * The device moves, as behind a NAT that has forgotten it: what it sends from now on comes from elsewhere, and what is
   * still on its way to where it was does not find it.
   */
  move(): void {
    const left = [...this.#flows];
    this.rest();
    for (const [devicePort, flow] of left) {
      flow.isCut = true;
      this.#left.set(devicePort, flow.number);
    }
  }

  forget(): void {
    this.datagrams.length = 0;
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#quiet);
    this.#front.close();
    for (const back of this.#backs) {
      this.#end(back);
    }
  }

  #end(back: Socket): void {
    if (this.#backs.delete(back)) {
      back.close();
    }
  }

  #fromDevice(bytes: Buffer, devicePort: number): void {
    const flow = this.#flows.get(devicePort) ?? this.#newFlow(devicePort);
    const { back } = flow;
    this.#device = devicePort;
    for (const part of this.split({ direction: "out", bytes, flow: flow.number, from: flow.from })) {
      this.#record("out", part, flow, () => {
        if (this.#backs.has(back)) {
          back.send(part, this.#target.port, this.#target.address);
        }
      });
    }
  }

  #newFlow(devicePort: number): Flow {
    const back = createSocket(this.#target.address.includes(":") ? "udp6" : "udp4");
    back.bind(0, ownAddress(this.#target.address));
    this.#backs.add(back);
    const flow: Flow = { number: ++this.#flowCount, from: this.#left.get(devicePort), back, isCut: false };
    back.on("message", (answer, { port }) => {
      if (port !== this.#target.port) {
        return; // what was for a device that is gone, whose port the system gave to this socket
      }
      for (const part of this.split({ direction: "in", bytes: answer, flow: flow.number, from: flow.from })) {
        this.#record("in", part, flow, () => {
          if (!flow.isCut) {
            this.#front.send(part, devicePort, this.#target.address);
          }
        });
      }
    });
    this.#flows.set(devicePort, flow);
    return flow;
  }

  #record(direction: Direction, bytes: Buffer, { number, from }: Flow, send: () => void): void {
    const datagram = { direction, bytes, flow: number, from };
    this.datagrams.push(datagram);
    for (let times = this.pass(datagram, this.datagrams.length - 1); times > 0; times--) {
      const late = this.late();
      if (this.reversed === direction) {
        this.#hold(send);
      } else if (late > 0) {
        setTimeout(() => !this.#isClosed && send(), late);
      } else {
        send();
      }
    }
  }

  #hold(send: () => void): void {
    this.#held.push(send);
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => {
      for (const held of this.#held.splice(0).reverse()) {
        held();
      }
    }, QUIET);
  }
}
