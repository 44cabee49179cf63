/**
 * npm run bench -- --only libcoap: crts and sen by libcoap's clients, over OpenSSL and over GnuTLS, and by this one in the
 * simulator, taking turns at one server: what goes over the wire, time, memory. All have the same certificate and trust
 * anchor; the certificate requests are of one size, give or take a byte of their signatures.
 */

import { strict as assert } from "node:assert";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { readPEM } from "../../hosts/node/pem.js";
import { planRequest, requestAttributes } from "../../src/est/request.js";
import { certificateRequest, destroyKey, importKey } from "../../src/pki/key.js";
import { newFolder, run } from "../../test/support/command.js";
import { type Recorded, Relay } from "../relay.js";
import { type Benchmark, type Context, grouped, medians, milliseconds, type Report } from "./bench.js";
import { type Cost, factoryFiles, type IdentityFiles, measured, SimulatedDevice } from "./process.js";
import { forkServer } from "./server.js";

type Operation = "crts" | "sen";
const OPERATIONS: readonly Operation[] = ["crts", "sen"];

/** Bytes are UDP payload, everything from the first datagram to the last. */
interface Figures {
  readonly bytesOut: number;
  readonly bytesIn: number;
  readonly datagramsOut: number;
  readonly datagramsIn: number;
  /** Milliseconds from the start of the process to its end, and of its processor time. */
  readonly wall: number;
  readonly cpu: number;
  /** Bytes: the largest resident set of the process, and the heaps of the device alone where it is one. */
  readonly peak: number;
  readonly heap: number;
  /** Bytes of what the server answered. */
  readonly body: number;
}

export interface LibcoapRow {
  readonly client: string;
  readonly operation: Operation;
  readonly suite: string;
  readonly figures: Figures;
}

export interface LibcoapFigures {
  readonly version: string;
  readonly rows: readonly LibcoapRow[];
}

interface Client {
  readonly name: string;
  /** Makes the next `run` possible. Its traffic is not counted. */
  prepare(): Promise<void>;
  run(operation: Operation): Promise<{ cost: Cost; heap: number; body: number }>;
}

/** Names of the suites that a client and the development server may agree on. */
const SUITES: Readonly<Record<number, string>> = {
  49326: "ECDHE_ECDSA_WITH_AES_128_CCM_8",
  49324: "ECDHE_ECDSA_WITH_AES_128_CCM",
  49195: "ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
};

/*
 * A datagram that begins with a ServerHello in the clear (RFC 6347 sections 4.1 and 4.2.2, RFC 5246 section 7.4.1.3):
 *
 *     0  content type 22      13  message type 2      59  length of session id, then that, then the suite
 */
function suiteOf(datagrams: readonly Recorded[]): string | undefined {
  const hello = datagrams.find(
    ({ direction, bytes }) => direction === "in" && bytes[0] === 22 && bytes[13] === 2,
  )?.bytes;
  return hello && SUITES[hello.readUInt16BE(60 + hello[59]!)];
}

/** Milliseconds in which the last datagrams, such as an alert at the end, come through the relay. */
const QUIET = 30;

const VERSION = /^coap-client\S* v(\S+)/m;

async function versionOf(command: string): Promise<string> {
  const { stdout, stderr } = await run(command, []);
  return VERSION.exec(stdout + stderr)?.[1] ?? "of unknown version";
}

function libcoap(library: "openssl" | "gnutls", port: number, files: IdentityFiles, request: string): Client {
  const out = join(newFolder(), "answer");
  return {
    name: `libcoap, ${library === "openssl" ? "OpenSSL" : "GnuTLS"}`,
    prepare: async () => undefined,
    run: async (operation) => {
      const { cost } = await measured(async (under) => {
        const [command, ...args] = [
          ...[...under, `coap-client-${library}`, "-c", files.certificate, "-j", files.key, "-C", files.trust],
          ...(operation === "crts" ? ["-m", "get"] : ["-m", "post", "-f", request, "-t", "286", "-b", "1024"]),
          ...["-B", "20", "-o", out, `coaps://127.0.0.1:${port}/.well-known/est/${operation}`],
        ];
        const { status, stderr } = await run(command!, args);
        if (status !== 0) {
          throw new Error(`coap-client-${library} ended with ${status}: ${stderr}`);
        }
      });
      return { cost, heap: 0, body: readFileSync(out).length };
    },
  };
}

/** A device that has never been there, or that has left an association there. */
function torpor(way: "full" | "context", port: number, files: IdentityFiles): Client {
  let device = new SimulatedDevice(port, files);
  return {
    name: `Torpor, ${way}`,
    prepare: async () => {
      device = new SimulatedDevice(port, files);
      if (way === "context") {
        await device.wake("crts");
      }
    },
    run: async (operation) => {
      const { value, cost } = await device.wake(operation);
      if (value.association.way !== way) {
        throw new Error(`expected a wake by ${way}, got ${JSON.stringify(value.association)}`);
      }
      return { cost, heap: value.heap.xsPeak + value.heap.dtlsPeak, body: value.bytes };
    },
  };
}

/** A certificate alone, as libcoap's client over OpenSSL sends it whatever its file holds, and a request in its name. */
function identity(dir: string): { files: IdentityFiles; request: string } {
  const factory = factoryFiles(dir);
  const own = newFolder();
  const pem = readFileSync(factory.certificate, "utf8");
  const certificate = join(own, "certificate.pem");
  const request = join(own, "request");
  writeFileSync(certificate, /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----\n/.exec(pem)![0]);
  const plan = planRequest([], readPEM(readFileSync(certificate), "CERTIFICATE")[0]!, "enrolment");
  const key = importKey(0, readPEM(readFileSync(factory.key), "PRIVATE KEY", "EC PRIVATE KEY")[0]!);
  writeFileSync(request, certificateRequest(key, plan.subject, requestAttributes(plan, undefined)));
  destroyKey(key);
  return { files: { ...factory, certificate }, request };
}

async function measure({ runs, progress }: Context): Promise<LibcoapFigures> {
  const dir = join(newFolder(), "est");
  const server = await forkServer({ kind: "development", dir });
  const relay = await Relay.to(server.port);
  const all = new Map<string, { client: string; operation: Operation; suite: string; figures: Figures[] }>();
  try {
    const { files, request } = identity(dir);
    const clients = [
      libcoap("openssl", relay.port, files, request),
      libcoap("gnutls", relay.port, files, request),
      torpor("full", relay.port, files),
      torpor("context", relay.port, files),
    ];
    for (let number = 0; number <= runs; number++) {
      progress(`run ${number} of ${runs}`);
      for (let turn = 0; turn < clients.length; turn++) {
        const client = clients[(turn + number) % clients.length]!;
        for (const operation of OPERATIONS) {
          await client.prepare();
          await delay(QUIET);
          relay.rest();
          relay.forget();
          const { cost, heap, body } = await client.run(operation);
          await delay(QUIET);
          const of = (direction: "out" | "in"): [number, number] => {
            const those = relay.datagrams.filter((datagram) => datagram.direction === direction);
            return [those.reduce((sum, { bytes }) => sum + bytes.length, 0), those.length];
          };
          const [bytesOut, datagramsOut] = of("out");
          const [bytesIn, datagramsIn] = of("in");
          const { wall, cpu, peak } = cost;
          const key = `${client.name} ${operation}`;
          const row = all.get(key) ?? { client: client.name, operation, suite: "as before", figures: [] };
          all.set(key, { ...row, suite: suiteOf(relay.datagrams) ?? row.suite });
          if (number > 0) {
            row.figures.push({ bytesOut, bytesIn, datagramsOut, datagramsIn, wall, cpu, peak, heap, body });
          }
        }
      }
    }
    const rows = OPERATIONS.flatMap((operation) =>
      clients.map(({ name }) => {
        const { figures, ...row } = all.get(`${name} ${operation}`)!;
        return { ...row, figures: medians(figures) };
      }),
    );
    return { version: await versionOf("coap-client-openssl"), rows };
  } finally {
    relay.close();
    await server.stop();
  }
}

function report({ version, rows }: LibcoapFigures): Report {
  const first = (operation: Operation): Figures => rows.find((row) => row.operation === operation)!.figures;
  const suites = new Set(rows.map(({ suite }) => suite).filter((suite) => suite !== "as before"));
  assert.equal(suites.size, 1, `not one cipher suite: ${[...suites].join(", ")}`);
  return {
    title: "Against libcoap's clients",
    parts: [
      `\`coap-client-openssl\` and \`coap-client-gnutls\` of libcoap ${version} and this client in the simulator, in one run and taking ` +
        `turns, each wake or call a process of its own; one server (the development EST server), one cipher suite (TLS_${[...suites][0]}), ` +
        "one client certificate without those above it, blocks of at most 1,024 bytes, so that each body is one block. " +
        "Bytes are UDP payload of everything from the first datagram to the last, with the handshake and the alert at its end; " +
        "the last column compares them with the first client's.",
      {
        head: [
          ...[
            "client",
            "operation",
            "bytes out",
            "in",
            "datagrams",
            "wall ms",
            "CPU ms",
            "process KB",
            "device's heap KB",
            "answer",
          ],
          "bytes",
        ],
        texts: ["operation"],
        rows: rows.map(({ client, operation, figures }) => [
          ...[client, operation, grouped(figures.bytesOut), grouped(figures.bytesIn)],
          ...[
            `${figures.datagramsOut} + ${figures.datagramsIn}`,
            milliseconds(figures.wall),
            milliseconds(figures.cpu),
          ],
          ...[
            grouped(figures.peak / 1024),
            figures.heap === 0 ? "" : grouped(figures.heap / 1024),
            grouped(figures.body),
          ],
          `${Math.round((100 * (figures.bytesOut + figures.bytesIn)) / (first(operation).bytesOut + first(operation).bytesIn))}%`,
        ]),
      },
      "What differs: libcoap's are native programs that make one CoAP request, without any of EST: they have their key, do not look " +
        "at the answer and keep nothing. This one starts an engine, loads its modules (which are in a device's ROM), makes a key " +
        "for `sen`, checks what it gets and writes it to storage. libcoap offers no connection ID, and many cipher suites, curves and " +
        "signature algorithms, which makes its ClientHello 150 to 170 bytes longer, twice; it asks for a ticket that it never uses. " +
        "A process of the simulator holds the engine and what stands for the ROM; the device's heap is what counts on a board.",
    ],
  };
}

export const comparison: Benchmark<LibcoapFigures> = {
  name: "libcoap",
  about: "crts and sen by libcoap's clients over OpenSSL and GnuTLS and by this one: wire, time, memory",
  measure,
  report,
};
