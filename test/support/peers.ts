/**
 * Real DTLS and CoAP peers as child processes: OpenSSL, GnuTLS, wolfSSL, NSS, libcoap, socat. A peer that is not installed is
 * an error, never a skipped test; those over wolfSSL and NSS, which have to be built, may be missing, save in CI.
 *
 *     const peer = await startCoapServer("openssl", identity, folder);
 *     …
 *     await peer.stop();
 */

import { type ChildProcess, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { generate, type ParsedPacket, parse } from "coap-packet";
import { checkout } from "../../hosts/node/native.js";
import { run } from "./command.js";

/** Files that a TLS server starts with, PEM. */
export interface ServerFiles {
  readonly certificate: string;
  readonly key: string;
  /** Issues the certificates of clients. */
  readonly clientCA: string;
}

export interface Peer {
  readonly port: number;
  /** What the peer wrote so far. */
  output(): string;
  stop(): Promise<void>;
}

/** A UDP port, and the next one, that nobody uses now. */
export async function freePorts(address = "127.0.0.1"): Promise<number> {
  for (;;) {
    const first = createSocket(address.includes(":") ? "udp6" : "udp4").bind(0, address);
    await once(first, "listening");
    const { port } = first.address();
    const second = createSocket(address.includes(":") ? "udp6" : "udp4");
    const free = await new Promise<boolean>((resolve) => {
      second.once("error", () => resolve(false));
      second.bind(port + 1, address, () => resolve(true));
    });
    first.close();
    second.close();
    if (free && port < 65000) {
      return port;
    }
  }
}

function start(
  command: string,
  args: readonly string[],
  options: { stdin?: boolean; folder?: string | undefined } = {},
): ChildProcess {
  const child = spawn(command, args, {
    stdio: [options.stdin ? "pipe" : "ignore", "pipe", "pipe"],
    cwd: options.folder,
  });
  child.on("error", (error) => {
    throw new Error(`${command} does not start: ${error.message}; npm test installs it, or names its package`);
  });
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}

/** Whether any process has a UDP port. A bind of our own would tell too, and take it from the peer at the wrong moment. */
function isBound(port: number): boolean {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return ["/proc/net/udp", "/proc/net/udp6"].filter(existsSync).some((file) =>
    readFileSync(file, "latin1")
      .split("\n")
      .some((line) => line.trim().split(/\s+/)[1]?.endsWith(suffix)),
  );
}

/** Waits until a UDP port is bound. */
async function untilBound(port: number, child: ChildProcess, output: () => string): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`${child.spawnfile} ended at once with ${child.exitCode ?? child.signalCode}: ${output()}`);
    }
    if (isBound(port)) {
      return;
    }
    await delay(25);
  }
  throw new Error(`${child.spawnfile} does not bind port ${port}: ${output()}`);
}

async function peerOf(child: ChildProcess, port: number): Promise<Peer> {
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  }
  try {
    await untilBound(port, child, () => text);
  } catch (error) {
    await stop(child);
    throw error;
  }
  return { port, output: () => text, stop: () => stop(child) };
}

/** libcoap's server with a resource put there beforehand; `port` is that of coaps. */
export async function startCoapServer(
  library: "openssl" | "gnutls",
  files: ServerFiles,
  resource: { path: string; file: string; format: number },
): Promise<Peer> {
  const port = await freePorts();
  const child = start(`coap-server-${library}`, [
    ...["-A", "127.0.0.1", "-p", String(port), "-d", "50", "-v", "3"],
    ...["-c", files.certificate, "-j", files.key, "-C", files.clientCA, "-R", files.clientCA],
  ]);
  const peer = await peerOf(child, port);
  const uri = `coap://127.0.0.1:${port}${resource.path}`;
  const put = await run("coap-client-notls", [
    "-m",
    "put",
    uri,
    "-f",
    resource.file,
    "-t",
    String(resource.format),
    "-B",
    "5",
  ]);
  if (put.status !== 0) {
    throw new Error(`coap-client-notls cannot put ${uri}: ${put.stderr}`);
  }
  return { ...peer, port: port + 1 };
}

/** Answers a CoAP request. */
export type Responder = (request: ParsedPacket) => { code: string; format: number; payload: Buffer };

const CIPHERS = "ECDHE-ECDSA-AES128-CCM8:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-GCM-SHA256";

/**
 * `openssl s_server` over DTLS with a CoAP responder behind it. Its report and the messages come out of the same
 * stream: a CoAP request is told from text by its second byte, a method code, which no text has.
 */
export async function startOpenssl(
  files: ServerFiles,
  responder: Responder,
  options: readonly string[] = [],
  fixedPort?: number,
): Promise<Peer & { input(text: string): void }> {
  const port = fixedPort ?? (await freePorts());
  const child = start(
    "openssl",
    [
      ...["s_server", "-dtls1_2", "-accept", String(port), "-cert", files.certificate, "-key", files.key],
      ...["-CAfile", files.clientCA, "-Verify", "4", "-verify_return_error", "-cipher", CIPHERS, ...options],
    ],
    { stdin: true },
  );
  child.stdout?.on("data", (chunk: Buffer) => {
    for (let at = 0; at + 4 <= chunk.length; at++) {
      const isRequest = chunk[at]! >= 0x40 && chunk[at]! <= 0x48 && chunk[at + 1]! >= 1 && chunk[at + 1]! <= 4;
      if (isRequest) {
        const request = parse(chunk.subarray(at));
        const { code, format, payload } = responder(request);
        child.stdin?.write(
          generate({
            ack: true,
            messageId: request.messageId,
            token: request.token,
            code,
            options: [{ name: "Content-Format", value: Buffer.from([format >> 8, format & 255]) }],
            payload,
          }),
        );
        return;
      }
    }
  });
  const peer = await peerOf(child, port);
  // A line of text is a command to s_server; "R" renegotiates.
  return { ...peer, input: (text) => void child.stdin?.write(text) };
}

/** `gnutls-serv` over DTLS; it sends back every message. */
export async function startGnutls(
  files: ServerFiles,
  address = "127.0.0.1",
  options: readonly string[] = [],
): Promise<Peer> {
  const port = await freePorts(address);
  const child = start("gnutls-serv", [
    ...["--udp", "--echo", "--port", String(port), "--require-client-cert", "--verify-client-cert"],
    ...["--x509certfile", files.certificate, "--x509keyfile", files.key, "--x509cafile", files.clientCA],
    ...["--priority", "NORMAL:+ECDHE-ECDSA:+AES-128-CCM-8:+AES-128-CCM", "--mtu", "1232", ...options],
  ]);
  return peerOf(child, port);
}

/**
 * Starts a program that npm test builds. Undefined where it could not, which it said; in CI that ended the setup.
 */
async function startBuilt(
  name: "wolfssl" | "wolfsslExample" | "nss",
  argsOf: (port: string) => readonly string[],
  folder?: string,
): Promise<Peer | undefined> {
  const native = JSON.parse(readFileSync(join(checkout(), "build", "native.json"), "utf8")) as Record<string, string>;
  if (native[name] === undefined && !process.env.CI) {
    return undefined;
  }
  const port = await freePorts();
  return peerOf(start(native[name] ?? name, argsOf(String(port)), { folder }), port);
}

/** A server of test/peers, which sends back every message; `more` is the version and the port of a plain server behind it. */
type StartOwn = (files: ServerFiles, ...more: readonly string[]) => Promise<Peer | undefined>;

/** It has connection IDs, DTLS 1.2 and 1.3, and is over the library of the second engine. */
export const startWolfssl: StartOwn = (files, ...more) =>
  startBuilt("wolfssl", (port) => [port, files.certificate, files.key, files.clientCA, ...more]);

/** Mozilla's NSS: DTLS 1.2 and 1.3 with AES_128_GCM and without connection IDs. */
export const startNss: StartOwn = (files, ...more) =>
  startBuilt("nss", (port) => [port, files.certificate, files.key, files.clientCA, ...more]);

/** The server among wolfSSL's examples in DTLS 1.3; it sends back messages, for one client, and once more for the same one. */
export async function startWolfsslExample(files: ServerFiles, folder: string): Promise<Peer | undefined> {
  // By this file it knows the folder of wolfSSL, and then does not read it.
  mkdirSync(join(folder, "certs"), { recursive: true });
  writeFileSync(join(folder, "certs", "dh2048.pem"), "");
  return startBuilt(
    "wolfsslExample",
    (port) => [
      ...["-u", "-v", "4", "-r", "-e", "-p", port, "-c", files.certificate, "-k", files.key, "-A", files.clientCA],
    ],
    folder,
  );
}

/** socat as a DTLS terminator (OpenSSL) in front of a plain CoAP port. */
export async function startTerminator(files: ServerFiles, plainPort: number): Promise<Peer> {
  const port = await freePorts();
  const listen = [
    `OPENSSL-DTLS-SERVER:${port}`,
    "pf=ip4",
    "fork",
    `cert=${files.certificate}`,
    `key=${files.key}`,
    `cafile=${files.clientCA}`,
    "verify=1",
    `cipher=${CIPHERS}`,
  ].join(",");
  const child = start("socat", [listen, `UDP4:127.0.0.1:${plainPort}`]);
  return peerOf(child, port);
}
