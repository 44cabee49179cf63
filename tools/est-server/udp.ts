/**
 * A UDP socket of a server, for DTLS and for plain CoAP alike.
 *
 *     const socket = await UDPSocket.listen("127.0.0.1", 5684, (datagram, from) => { … });
 */

import { createSocket, type Socket } from "node:dgram";
import { lookup } from "node:dns/promises";

/** An address or port that a server cannot listen on. The message is all that its reader needs. */
export class ListenError extends Error {}

/** Where a datagram came from, or goes to. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** "127.0.0.1:5684", "[::1]:5684" */
export function endpointName({ address, port }: Endpoint): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

export class UDPSocket {
  readonly #socket: Socket;
  /** The numeric address that the socket is bound to. */
  readonly address: string;
  readonly port: number;
  #sending = 0;
  #drained: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    const { address, port } = socket.address();
    this.address = address;
    this.port = port;
  }

  /** Port 0 takes any free one. @throws ListenError */
  static async listen(
    host: string,
    port: number,
    onDatagram: (datagram: Buffer, from: Endpoint) => void,
  ): Promise<UDPSocket> {
    try {
      const { address, family } = await lookup(host);
      const socket = createSocket(family === 6 ? "udp6" : "udp4");
      await new Promise<void>((resolve, reject) => {
        socket.once("error", reject);
        socket.bind(port, address, resolve);
      });
      socket.removeAllListeners("error");
      // What ICMP reports about one peer is no reason to stop serving the others.
      socket.on("error", () => {});
      socket.on("message", (datagram, { address, port }) => onDatagram(datagram, { address, port }));
      return new UDPSocket(socket);
    } catch (error) {
      const where = endpointName({ address: host, port });
      switch ((error as NodeJS.ErrnoException).code) {
        case "EADDRINUSE":
          throw new ListenError(`${where} is in use: stop what listens there, or take another --port`);
        case "EACCES":
          throw new ListenError(`${where} needs more rights: take a --port above 1023`);
        case "EADDRNOTAVAIL":
        case "ENOTFOUND":
        case "EAI_AGAIN":
          throw new ListenError(`${host} is no address of this machine: take another --host`);
        default:
          throw new ListenError(`cannot listen on ${where}: ${(error as Error).message}`);
      }
    }
  }

  /** Sends a copy. What the network does not take is lost, as datagrams are. */
  send(datagram: Uint8Array, to: Endpoint): void {
    this.#sending += 1;
    this.#socket.send(Uint8Array.from(datagram), to.port, to.address, () => {
      this.#sending -= 1;
      if (this.#sending === 0) {
        this.#drained?.();
      }
    });
  }

  /** Closes once everything is sent. */
  async close(): Promise<void> {
    if (this.#sending > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    await new Promise<void>((resolve) => this.#socket.close(resolve));
  }
}
