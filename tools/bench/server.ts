/**
 * A server for benchmarks in a process of its own, so that its work is not counted with the client's: forked with what
 * it is, it sends its port, and ends with its parent.
 *
 *     const { port, stop } = await forkServer({ kind: "development", dir });
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type Peer, type Responder, type ServerFiles, startOpenssl } from "../../test/support/peers.js";
import { caCertificates } from "../../test/vectors/rfc9148.js";
import { startEstServer } from "../est-server/server.js";

/** The development server with its CA in `dir`, or `openssl s_server` with a CoAP responder that knows crts. */
export type ServerKind =
  | { readonly kind: "development"; readonly dir: string }
  | { readonly kind: "openssl"; readonly files: ServerFiles };

export async function forkServer(what: ServerKind): Promise<Pick<Peer, "port" | "stop">> {
  const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(what)]);
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

if (process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url)) {
  const what = JSON.parse(process.argv[2]!) as ServerKind;
  const stop =
    what.kind === "openssl"
      ? await startOpenssl(what.files, respond).then((peer) => ({ port: peer.port, end: () => peer.stop() }))
      : await startEstServer({ dir: what.dir }).then((server) => ({ port: server.port, end: () => server.close() }));
  process.on("disconnect", () => void stop.end().then(() => process.exit()));
  process.send(stop.port);
}
