/**
 * npm run bench -- --only engines: the two DTLS engines side by side, each against the development server over the same
 * engine: bytes, datagrams, round trips and heap of a wake by each way back, and what hybrid key exchange costs.
 */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import type { WakeLine } from "../../hosts/node/result.js";
import { wakeProcess } from "../wake-process.js";
import { type Benchmark, type Context, grouped, type Report } from "./bench.js";

interface Row {
  readonly name: string;
  readonly line: WakeLine;
}

type Wake = readonly [name: string, way: string, ...args: string[]];

/** In this order on one device; `way` is what must come of it. */
const WAKES: Readonly<Record<"mbedtls" | "wolfssl", readonly Wake[]>> = {
  mbedtls: [
    ["full handshake", "full"],
    ["saved association", "context"],
    ["session id", "session", "--resume", "session"],
    ["full handshake, asking for a ticket", "full", "--resume", "ticket"],
    ["ticket", "ticket", "--resume", "ticket"],
  ],
  wolfssl: [
    ["full handshake", "full"],
    ["ticket", "ticket"],
    ["ticket, without a key exchange", "ticket", "--psk-alone"],
    ["full handshake, X25519MLKEM768", "full", "--resume", "none", "--groups", "X25519MLKEM768"],
    ["full handshake, SecP256r1MLKEM768", "full", "--resume", "none", "--groups", "SecP256r1MLKEM768"],
  ],
};

/** The development server in a process of its own: a process has one engine. */
async function serve(engine: string, dir: string): Promise<{ uri: string; stop: () => Promise<void> }> {
  const program = join(checkout(), "build", "tools", "est-server", "main.js");
  const args = [program, "--out", dir, "--port", "0", "--engine", engine];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  const closed = new Promise<void>((resolve) => child.on("close", () => resolve()));
  let said = "";
  const uri = await new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      const found = /listening on\s+(coaps:\S+)/.exec(said)?.[1];
      if (found !== undefined) {
        resolve(found);
      }
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    void closed.then(() => reject(new Error(`the development server ended: ${said.trim()}`)));
  });
  const stop = (): Promise<void> => {
    child.kill("SIGTERM");
    return closed;
  };
  return { uri, stop };
}

async function measureEngine(engine: "mbedtls" | "wolfssl", progress: Context["progress"]): Promise<Row[]> {
  const dir = mkdtempSync(join(tmpdir(), "torpor-bench-"));
  const server = await serve(engine, join(dir, "est"));
  const rows: Row[] = [];
  try {
    const est = join(dir, "est");
    const common = [
      ...["--server", server.uri, "--host", "simulator", "--state", join(dir, "device"), "--engine", engine],
      ...["--trust", join(est, "ca.pem"), "--cert", join(est, "factory.pem"), "--key", join(est, "factory.key")],
    ];
    for (const [name, way, ...args] of WAKES[engine]) {
      progress(`${name}, over ${engine}`);
      const line = JSON.parse((await wakeProcess(["crts", ...args, ...common])).json) as WakeLine;
      if (line.way !== way) {
        throw new Error(`${name} over ${engine}: expected a wake by ${way}, got ${JSON.stringify(line)}`);
      }
      rows.push({ name: `${line.protocol}, ${name}`, line });
    }
  } finally {
    await server.stop();
    rmSync(dir, { recursive: true, force: true });
  }
  return rows;
}

async function measure({ progress }: Context): Promise<readonly Row[]> {
  return [...(await measureEngine("mbedtls", progress)), ...(await measureEngine("wolfssl", progress))];
}

function report(rows: readonly Row[]): Report {
  return {
    title: "The two DTLS engines",
    parts: [
      "A whole wake, crts in the simulator, against the development server over the same engine: DTLS 1.2 is mbedTLS, DTLS 1.3 wolfSSL " +
        "(GPL or commercial). Handshake bytes of DTLS 1.3 have the new ticket and its ACK in them. Heap is that of the library, in bytes.",
      {
        head: ["way", "bytes out", "bytes in", "datagrams", "round trips", "around a message", "XS peak", "DTLS peak"],
        rows: rows.map(({ name, line: { handshake, overhead, heap } }) => [
          name,
          ...[handshake.bytesOut, handshake.bytesIn].map(grouped),
          `${handshake.datagramsOut} + ${handshake.datagramsIn}`,
          ...[handshake.roundTrips, overhead, heap.xsPeak, heap.dtlsPeak].map(grouped),
        ]),
      },
    ],
  };
}

export const engines: Benchmark<readonly Row[]> = {
  name: "engines",
  about: "the two DTLS engines side by side: DTLS 1.2 and 1.3, hybrid key exchange",
  measure,
  report,
};
