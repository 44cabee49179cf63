/**
 * The development EST server: DTLS, CoAP and EST put together, for the command line and for tests in one process.
 *
 *     const server = await startEstServer({ dir: "./est" });
 *     … coaps://127.0.0.1:${server.port} …
 *     await server.close();
 */

import "../../hosts/node/native.js";
import { isIP } from "node:net";
import type { Protocol } from "../../src/dtls/engine.js";
import { DevelopmentCA, type Identity } from "./ca.js";
import { type CoAPPeer, type CoAPReport, CoAPServer } from "./coap-server.js";
import { type DTLSPeer, DTLSServer } from "./dtls-server.js";
import { type ESTOptions, type ESTPeer, estHandler } from "./est.js";
import { Misconduct } from "./misbehave.js";
import { endpointName, UDPSocket } from "./udp.js";

export const DEFAULT_LIFETIME = 90 * 86400;

/** Clients of the plain listener that are remembered; the one that was silent longest makes room. */
const PLAIN_PEERS_MAX = 256;

export interface EstServerOptions extends Partial<Omit<ESTOptions, "ca" | "misbehave">> {
  /** Address or name to listen on; default "127.0.0.1". */
  host?: string;
  /** UDP port for DTLS; default any free one. */
  port?: number;
  /** Where the CA and the factory identity are kept from one start to the next; default: nowhere. */
  dir?: string;
  /** The CA, in place of the one in `dir`. */
  ca?: DevelopmentCA;
  /** The server's own certificate and key, in place of one that the CA issues. */
  identity?: Identity;
  /** UDP port for plain CoAP, 0 for any free one; for use behind a DTLS terminator. Default: no such listener. */
  plain?: number;
  /** Assigns session ids; default true. */
  sessionIds?: boolean;
  /** Issues tickets; default true. */
  tickets?: boolean;
  /** Takes part in connection IDs (RFC 9146); default true. */
  connectionIds?: boolean;
  /** DTLS associations at most; the one that was silent longest makes room. Default 256. */
  associations?: number;
  /** The one version of DTLS that it speaks; default: all that the engine has. */
  protocol?: Protocol | undefined;
  /** Loses, without a word, associations that were silent for so many seconds; default: never. */
  forget?: number;
  /** What crts answers, DER; default: root and issuing certificate of the CA. */
  caCertificates?: readonly Uint8Array[];
  /** Gives the CA a new root key before it starts, and keeps that in `dir`. */
  rollover?: "now";
  /** Largest CoAP block, bytes; default 1,024. */
  blockSize?: number;
  /** What it does wrong: a name or a script, as misbehave.ts has them. */
  misbehave?: string;
  /** Gets a line for each request, and for each handshake that fails. */
  log?: (line: string) => void;
}

export interface EstServerStats {
  /** DTLS associations now. */
  associations: number;
  /** Handshakes so far. */
  full: number;
  resumed: number;
  failed: number;
  /** How often an association was followed to another address of its client. */
  moved: number;
  /** Datagrams to open associations that were of no use: late or doubled ones, replays, forgeries. */
  stale: number;
  /** CoAP requests answered so far, a block-wise one counted once. */
  requests: number;
  /** Certificates issued so far. */
  issued: number;
}

export interface EstServer {
  readonly port: number;
  readonly plainPort: number | undefined;
  readonly ca: DevelopmentCA;
  readonly stats: EstServerStats;
  /** Loses all DTLS associations, without a word to their clients; sessions can still be resumed. */
  forget(): void;
  close(): Promise<void>;
}

/** A client, as CoAP and EST see it. */
interface Client extends CoAPPeer, ESTPeer {
  readonly name: string;
  readonly dtls: DTLSPeer | undefined;
}

async function provideCA({ ca, dir, rollover }: EstServerOptions): Promise<DevelopmentCA> {
  if (ca !== undefined) {
    return ca;
  }
  if (dir === undefined) {
    return await DevelopmentCA.create();
  }
  const kept = await DevelopmentCA.load(dir);
  if (kept === undefined) {
    const created = await DevelopmentCA.create();
    await created.save(dir);
    return created;
  }
  if (rollover === undefined) {
    return kept;
  }
  const next = await kept.rollOver();
  await next.save(dir, "replace");
  return next;
}

/** Text from outside on its way to a terminal. */
const printable = (text: string): string => text.replace(/[^\x20-\x7e]/g, "?");

/** "12:03:04.123 127.0.0.1:50123 POST /.well-known/est/sen 2.04 443 B full" */
function logLine({ peer, method, path, code, bytes, diagnostic }: CoAPReport<Client>): string {
  const time = new Date().toISOString().slice(11, 23);
  const way = peer.dtls === undefined ? "plain" : peer.dtls.resumed ? "resumed" : "full";
  const why = diagnostic === undefined ? "" : `: ${diagnostic}`;
  return printable(`${time} ${peer.name} ${method} ${path} ${code} ${bytes} B ${way}${why}`);
}

/** @throws CAError, ListenError, ScriptError */
export async function startEstServer(options: EstServerOptions = {}): Promise<EstServer> {
  const { host = "127.0.0.1", lifetime = DEFAULT_LIFETIME, misbehave, log, ...rest } = options;
  const misconduct = misbehave === undefined ? undefined : new Misconduct(misbehave);
  const ca = await provideCA(options);
  const counted = { requests: 0, issued: 0 };
  const coap = new CoAPServer<Client>({
    handler: estHandler({ ...rest, ca, lifetime, ...(misconduct?.est !== undefined && { misbehave: misconduct.est }) }),
    ...(misconduct !== undefined && {
      tamper: (message, request) => misconduct.tamper(message, request),
      blockSize: misconduct.blockSize,
    }),
    ...(options.blockSize !== undefined && { blockSize: options.blockSize }),
    onAnswer: (report) => {
      counted.requests += 1;
      counted.issued += report.code === "2.04" || report.code === "2.01" ? 1 : 0;
      log?.(logLine(report));
    },
  });

  const clients = new Map<DTLSPeer, Client>();
  const dtls = await DTLSServer.listen({
    host,
    port: options.port ?? 0,
    trust: ca.clientCAs,
    ...(misconduct !== undefined && { rewrite: (datagram, keys) => misconduct.rewrite(datagram, keys) }),
    identity: options.identity ?? (await ca.issueServer(serverNames(host))),
    ...(options.sessionIds !== undefined && { sessionIds: options.sessionIds }),
    ...(options.tickets !== undefined && { tickets: options.tickets }),
    ...(options.connectionIds !== undefined && { connectionIds: options.connectionIds }),
    ...(options.associations !== undefined && { associations: options.associations }),
    protocol: options.protocol,
    ...(options.forget !== undefined && { forget: options.forget * 1000 }),
    onOpen: (peer) => {
      const client: Client = {
        get name() {
          return peer.name;
        },
        dtls: peer,
        send: (datagram) => peer.send(datagram),
      };
      clients.set(peer, client);
    },
    onMessage: (peer, message) => coap.receive(clients.get(peer)!, message),
    onClose: (peer) => {
      coap.forget(clients.get(peer)!);
      clients.delete(peer);
    },
    onFailure: (name, reason) => {
      log?.(printable(`${new Date().toISOString().slice(11, 23)} ${name} DTLS failed: ${reason}`));
    },
  });

  let plain: UDPSocket | undefined;
  if (options.plain !== undefined) {
    try {
      plain = await listenPlain(host, options.plain, coap);
    } catch (error) {
      await dtls.close();
      throw error;
    }
  }

  return {
    port: dtls.port,
    plainPort: plain?.port,
    ca,
    get stats() {
      return { ...dtls.stats, ...counted };
    },
    forget: () => dtls.forget(),
    async close() {
      await dtls.close();
      await plain?.close();
      coap.close();
    },
  };
}

/** What clients may call the server: the names of this machine's loopback, and the host that was asked for. */
function serverNames(host: string): { dnsNames: string[]; addresses: string[] } {
  const numeric = isIP(host) !== 0;
  return {
    dnsNames: [...new Set(["localhost", ...(numeric ? [] : [host])])],
    addresses: [...new Set(["127.0.0.1", "::1", ...(numeric ? [host] : [])])],
  };
}

/** CoAP without DTLS: its clients are told apart by address and port, and are otherwise unknown. */
async function listenPlain(host: string, port: number, coap: CoAPServer<Client>): Promise<UDPSocket> {
  /** The one that was silent longest first. */
  const clients = new Map<string, Client>();
  const socket = await UDPSocket.listen(host, port, (datagram, from) => {
    const name = endpointName(from);
    const client = clients.get(name) ?? {
      name,
      dtls: undefined,
      send: (message: Uint8Array) => socket.send(message, from),
    };
    clients.delete(name);
    clients.set(name, client);
    if (clients.size > PLAIN_PEERS_MAX) {
      const [oldest, forgotten] = clients.entries().next().value!;
      clients.delete(oldest);
      coap.forget(forgotten);
    }
    coap.receive(client, datagram);
  });
  return socket;
}
