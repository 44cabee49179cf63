/**
 * A server for benchmarks in a process of its own, so that its work is not counted with the client's: forked with what
 * it is, it sends its port, and ends with its parent.
 *
 *     const { port, stop } = await forkServer({ kind: "development", dir });
 */

import { fork } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type Peer, type Responder, type ServerFiles, startOpenssl } from "../../test/support/peers.js";
import { caCertificates } from "../../test/vectors/rfc9148.js";
import { startEstServer } from "../est-server/server.js";
import type { EngineName } from "./ways.js";

/** The development server with its CA in `dir` (over mbedTLS unless told), `openssl s_server` with a CoAP responder that knows crts, or a UDP echo. */
export type ServerKind =
  | { readonly kind: "development"; readonly dir: string; readonly engine?: EngineName }
  | { readonly kind: "openssl"; readonly files: ServerFiles }
  | { readonly kind: "udp" };

export async function forkServer(what: ServerKind): Promise<Pick<Peer, "port" | "stop">> {
  const engine = what.kind === "development" ? (what.engine ?? "mbedtls") : "mbedtls";
  const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(what), "--engine", engine]);
  const [port] = (await Promise.race([
    once(child, "message"),
    once(child, "exit").then(() => {
      throw new Error(`the ${what.kind} server does not start`);
    }),
  ])) as [number];
  return {
    port,
    stop: async () => {
      child.disconnect();
      await once(child, "exit");
    },
  };
}

/** The certificates, where est/crts is asked for; a short answer to anything else. */
const respond: Responder = ({ options }) =>
  options.some(({ name, value }) => name === "Uri-Path" && value.toString() === "crts")
    ? { code: "2.05", format: 281, payload: Buffer.from(caCertificates) }
    : { code: "4.04", format: 0, payload: Buffer.alloc(0) };

async function start(what: ServerKind): Promise<Pick<Peer, "port" | "stop">> {
  if (what.kind === "openssl") {
    return startOpenssl(what.files, respond);
  }
  if (what.kind === "development") {
    const server = await startEstServer({ dir: what.dir });
    return { port: server.port, stop: () => server.close() };
  }
  const socket = createSocket("udp4").bind(0, "127.0.0.1");
  socket.on("message", (message, { port, address }) => socket.send(message, port, address));
  await once(socket, "listening");
  return { port: socket.address().port, stop: async () => void socket.close() };
}

if (process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url)) {
  const what = JSON.parse(process.argv[2]!) as ServerKind;
  const { port, stop } = await start(what);
  process.on("disconnect", () => void stop().then(() => process.exit()));
  process.send(port);
}
