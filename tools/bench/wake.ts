/**
 * npm run bench:wake: the ways to come back side by side, in one run, against servers over different TLS libraries: bytes,
 * datagrams, round trips, processor time, heap, and all of it against the full handshake. Medians.
 *
 *     npm run bench:wake -- --runs 20
 *     npm run bench:wake -- --json      one object with all figures on standard output
 */

import "../../hosts/node/native.js";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { clock, UDP } from "../../hosts/node/io.js";
import { readPEM } from "../../hosts/node/pem.js";
import { slotsNotice } from "../../hosts/node/simulator.js";
import type { DTLSCredentials, Resume, Way } from "../../src/dtls/socket.js";
import { importKey } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { TestCA, writeCertificates, writeIdentity } from "../../test/support/certificates.js";
import { newFolder, type WakeLine, wakeLine } from "../../test/support/command.js";
import { type EchoOptions, echo } from "../../test/support/echo.js";
import { type Peer, type ServerFiles, startGnutls, startWolfssl } from "../../test/support/peers.js";
import { forkServer } from "./server.js";

/** The full handshake first: the others are compared with it. */
const WAYS = ["full", "ticket", "session", "context"] as const satisfies readonly Way[];

const RUNS = 15;
const RUNS_MAX = 1000;

/** What was measured of one way to one server; medians, `null` where this does not exist. */
interface Row {
  readonly server: string;
  readonly way: Way;
  readonly figures: Figures | null;
  /** Why it does not exist. */
  readonly lack?: string | undefined;
}

/** Bytes are UDP payload of the handshake; times are milliseconds of processor time. */
interface Figures {
  readonly bytesOut: number;
  readonly bytesIn: number;
  readonly datagramsOut: number;
  readonly datagramsIn: number;
  readonly roundTrips: number;
  readonly cpu: number;
  /** Bytes at the peak, where the host counts them. */
  readonly xsPeak?: number;
  readonly dtlsPeak?: number;
}

type Lacks = Partial<Record<Way, string>>;
const NOTHING: Lacks = {};
const NO_CONTEXTS: Lacks = { context: "no connection IDs (RFC 9146)" };

type Server = Pick<Peer, "port" | "stop">;

/** A server, and how it is asked by each way. */
interface Contender {
  readonly name: string;
  /** The ways that it does not have, and why. */
  readonly lacks: Lacks;
  /** One wake that makes the next one possible, and that one measured. */
  measure(way: Way): Promise<Figures>;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}

function medians(all: readonly Figures[]): Figures {
  const result: Record<string, number> = {};
  for (const name of Object.keys(all[0]!) as (keyof Figures)[]) {
    result[name] = median(all.map((figures) => figures[name] ?? 0));
  }
  return result as unknown as Figures;
}

/** Each contender by each way in turn, `runs` times; a different way begins each time. The first time is not counted. */
async function compete(contenders: readonly Contender[], runs: number): Promise<Row[]> {
  const measured = new Map<string, Figures[]>();
  for (let run = 0; run <= runs; run++) {
    for (const contender of contenders) {
      for (let turn = 0; turn < WAYS.length; turn++) {
        const way = WAYS[(turn + run) % WAYS.length]!;
        if (contender.lacks[way] !== undefined) {
          continue;
        }
        const figures = await contender.measure(way);
        const name = `${contender.name} ${way}`;
        measured.set(name, run === 0 ? [] : [...measured.get(name)!, figures]);
      }
    }
  }
  return contenders.flatMap(({ name: server, lacks }) =>
    WAYS.map((way) => {
      const all = measured.get(`${server} ${way}`);
      return { server, way, figures: all === undefined ? null : medians(all), lack: lacks[way] };
    }),
  );
}

function expectWay(server: string, expected: Way, got: Way | null | undefined, notes: readonly string[]): void {
  if (got !== expected) {
    throw new Error(`${server}: expected a wake by ${expected}, got one by ${got}; ${notes.join("; ")}`);
  }
}

// ---- the association alone, in this process ----

/** Of the one slot of the session table: a device's, and one that a ticket fits. */
const SLOT_BYTES = 512;
const TICKET_SLOT_BYTES = 1536;

/** The processor time is that of this process around the socket's life; the server is another process. */
function alone(
  name: string,
  lacks: Lacks,
  target: Pick<EchoOptions, "port" | "secure" | "message" | "check">,
): Contender {
  async function life(way: Way, sessions: SessionTable, end: "close" | "sleep"): Promise<Figures> {
    const resume: Resume = way === "ticket" ? "ticket" : "context";
    const before = process.cpuUsage();
    const report = await echo({ address: "127.0.0.1", ...target, sessions, resume, end });
    const { user, system } = process.cpuUsage(before);
    expectWay(name, way, report.way, report.notes);
    return { ...report.handshake, roundTrips: report.roundTrips, cpu: (user + system) / 1000 };
  }
  return {
    name,
    lacks,
    async measure(way) {
      const geometry = { slots: 1, slotBytes: way === "ticket" ? TICKET_SLOT_BYTES : SLOT_BYTES };
      const sessions = new SessionTable(new Uint8Array(SessionTable.byteLength(geometry)), { ...geometry, clock });
      if (way !== "full") {
        const resume: Resume = way === "ticket" ? "ticket" : "context";
        await echo({
          ...{ address: "127.0.0.1", ...target, sessions, resume },
          end: way === "context" ? "sleep" : "close",
        });
      }
      return life(way, sessions, "sleep");
    },
  };
}

/** Milliseconds of processor time of a UDP socket of this host that sends one datagram and gets one: the least there is. */
async function udpAlone(port: number, runs: number): Promise<number> {
  const all: number[] = [];
  for (let run = 0; run <= runs; run++) {
    const before = process.cpuUsage();
    await new Promise<void>((resolve, reject) => {
      const socket = new UDP({
        onReadable: () => {
          socket.close();
          resolve();
        },
        onError: reject,
      });
      socket.write(new Uint8Array(48), "127.0.0.1", port);
    });
    const { user, system } = process.cpuUsage(before);
    all.push((user + system) / 1000);
  }
  return median(all.slice(1));
}

// ---- a whole wake in the simulator ----

/** `crts` in a process of its own; what the device itself says of its processor time and memory. */
function simulated(name: string, lacks: Lacks, args: readonly string[]): Contender {
  const crts = (state: string, way: Way): Promise<WakeLine> =>
    wakeLine(
      ...["crts", "--host", "simulator", "--state", state, ...args],
      ...(way === "ticket" ? ["--resume", "ticket"] : way === "session" ? ["--resume", "session"] : []),
    );
  return {
    name,
    lacks,
    async measure(way) {
      const state = newFolder();
      if (way !== "full") {
        await crts(state, way);
      }
      const { handshake, cpu, heap, way: got, notes } = await crts(state, way);
      expectWay(name, way, got, notes);
      return { ...handshake, cpu, xsPeak: heap.xsPeak, dtlsPeak: heap.dtlsPeak };
    },
  };
}

// ---- servers ----

function credentialsIn(dir: string): DTLSCredentials {
  const read = (name: string, ...labels: readonly string[]): Uint8Array[] =>
    readPEM(readFileSync(join(dir, name)), ...labels);
  return {
    trustAnchors: read("ca.pem", "CERTIFICATE"),
    certificates: read("factory.pem", "CERTIFICATE"),
    key: importKey(0, read("factory.key", "PRIVATE KEY", "EC PRIVATE KEY")[0]!),
  };
}

/** GET /.well-known: 16 bytes, and the server's 4.04 is an answer too. */
const COAP_REQUEST = Uint8Array.from([0x40, 0x01, 0x00, 0x01, 0xbb, ...Buffer.from(".well-known")]);
const ECHO = new Uint8Array(16);

const anything = (): void => undefined;

// ---- the tables ----

const percent = (part: number, whole: number): string => (whole === 0 ? "" : `${Math.round((100 * part) / whole)}%`);
const fraction = (part: number, whole: number): string => `1/${(whole / part).toFixed(part * 10 < whole ? 0 : 1)}`;

function print(title: string, rows: readonly Row[]): void {
  const hasHeap = rows.some(({ figures }) => figures?.xsPeak !== undefined);
  const head = [
    "server",
    "way",
    "B out",
    "B in",
    "dgrams",
    "trips",
    "CPU ms",
    "bytes",
    "CPU",
    ...(hasHeap ? ["XS heap", "DTLS heap"] : []),
  ];
  const lines = rows.map(({ server, way, figures, lack }) => {
    if (figures === null) {
      return [server, way, `  ${lack}`];
    }
    const full = rows.find((row) => row.server === server && row.way === "full")!.figures!;
    return [
      ...[server, way, String(figures.bytesOut), String(figures.bytesIn)],
      ...[`${figures.datagramsOut}+${figures.datagramsIn}`, String(figures.roundTrips), figures.cpu.toFixed(2)],
      percent(figures.bytesOut + figures.bytesIn, full.bytesOut + full.bytesIn),
      fraction(figures.cpu, full.cpu),
      ...(hasHeap ? [String(figures.xsPeak), String(figures.dtlsPeak)] : []),
    ];
  });
  process.stdout.write(`\n${title}\n`);
  for (const [server, way, ...cells] of [head, ...lines]) {
    const row = cells.map((cell) => cell.padStart(10)).join("");
    process.stdout.write(`  ${server!.padEnd(13)}${way!.padEnd(8)}${row}\n`);
  }
}

const ALONE =
  "The association alone: a DTLS socket in this process (Node.js, 64 bits), one message of 16 bytes and its answer, end or " +
  "sleep.\nBytes and datagrams (out+in) of the handshake; CPU is this process's around it, user and system; last columns: " +
  "against full";
const SIMULATED =
  "A whole wake: crts in the simulator (XS and mbedTLS with a device's memory), each in a process of its own.\nCPU is the " +
  "device's from opening its memory to putting it away, without the start of the process; heap: bytes at the peak";

/** @returns the exit status */
export async function main(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: { runs: { type: "string", default: String(RUNS) }, json: { type: "boolean", default: false } },
  });
  const runs = Number(values.runs);
  if (!Number.isInteger(runs) || runs < 1 || runs > RUNS_MAX) {
    throw new Error(`--runs takes a whole number from 1 to ${RUNS_MAX}, not "${values.runs}"`);
  }
  const folder = newFolder();
  const ca = await TestCA.create();
  const device = await ca.issue({ subject: "CN=device", usage: "client" });
  const server = await ca.issue({ subject: "CN=server", addresses: ["127.0.0.1"] });
  const clientCA = writeCertificates(folder, "ca", [ca.root]);
  const files: ServerFiles = { ...writeIdentity(folder, "server", server), clientCA };
  const own = writeIdentity(folder, "device", device);
  const secure = { trustAnchors: [ca.root], certificates: device.chain, key: importKey(0, device.pkcs8) };
  const est = join(folder, "est");
  const peers: Server[] = [];
  const keep = <T extends Server | undefined>(peer: T): T => {
    if (peer !== undefined) {
      peers.push(peer);
    }
    return peer;
  };
  try {
    const development = keep(await forkServer({ kind: "development", dir: est }));
    const openssl = keep(await forkServer({ kind: "openssl", files }));
    const udp = keep(await forkServer({ kind: "udp" }));
    const gnutls = keep(await startGnutls(files));
    const wolfssl = keep(await startWolfssl(files));
    const at = ({ port }: Server, args: readonly string[]): string[] => [
      "--server",
      `coaps://127.0.0.1:${port}`,
      ...args,
    ];
    const rows = {
      runs,
      udpAlone: await udpAlone(udp.port, runs),
      association: await compete(
        [
          alone("development", NOTHING, {
            ...{ port: development.port, secure: credentialsIn(est) },
            ...{ message: COAP_REQUEST, check: anything },
          }),
          alone("OpenSSL", NO_CONTEXTS, { port: openssl.port, secure, message: COAP_REQUEST, check: anything }),
          alone("GnuTLS", NO_CONTEXTS, { port: gnutls.port, secure, message: ECHO }),
          ...(wolfssl === undefined
            ? []
            : [alone("wolfSSL", { ticket: "built without tickets" }, { port: wolfssl.port, secure, message: ECHO })]),
        ],
        runs,
      ),
      simulator: await compete(
        [
          simulated("development", NOTHING, [
            ...at(development, ["--trust", join(est, "ca.pem")]),
            ...["--cert", join(est, "factory.pem"), "--key", join(est, "factory.key")],
          ]),
          simulated(
            "OpenSSL",
            NO_CONTEXTS,
            at(openssl, ["--trust", clientCA, "--cert", own.certificate, "--key", own.key]),
          ),
        ],
        runs,
      ),
    };
    if (values.json) {
      process.stdout.write(`${JSON.stringify(rows)}\n`);
      return 0;
    }
    process.stdout.write(`Medians of ${runs} runs, the ways and servers taking turns\n`);
    print(ALONE, rows.association);
    process.stdout.write(`  UDP alone    one datagram each way, nothing else: ${rows.udpAlone.toFixed(2)} ms of CPU\n`);
    print(SIMULATED, rows.simulator);
    process.stdout.write("  GnuTLS       its gnutls-serv does not speak CoAP: no whole wake\n");
    const notice = slotsNotice();
    if (notice !== undefined) {
      process.stdout.write(`${notice}\n`);
    }
    return 0;
  } finally {
    await Promise.all(peers.map((peer) => peer.stop()));
  }
}
