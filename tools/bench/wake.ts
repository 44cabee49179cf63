/**
 * npm run bench -- --only wake: the ways to come back side by side, in one run, against servers over different TLS
 * libraries: bytes, datagrams, round trips, processor time, heap, and all of it against the full handshake.
 */

import "../../hosts/node/native.js";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { clock, UDP } from "../../hosts/node/io.js";
import { readPEM } from "../../hosts/node/pem.js";
import type { DTLSCredentials, Resume, Way } from "../../src/dtls/socket.js";
import { importKey } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { TestCA, writeCertificates, writeIdentity } from "../../test/support/certificates.js";
import { newFolder } from "../../test/support/command.js";
import { type EchoOptions, echo } from "../../test/support/echo.js";
import { type Peer, type ServerFiles, startGnutls, startWolfssl } from "../../test/support/peers.js";
import {
  type Benchmark,
  type Context,
  fraction,
  grouped,
  median,
  medians,
  milliseconds,
  percent,
  type Report,
  type Table,
} from "./bench.js";
import { type Doing, factoryFiles, type IdentityFiles, SimulatedDevice } from "./process.js";
import { forkServer } from "./server.js";
import { Verification } from "./verify.js";

/** The full handshake first: the others are compared with it. */
const WAYS = ["full", "ticket", "session", "context"] as const satisfies readonly Way[];

/** What was measured of one way to one server; medians, `null` where this does not exist. */
export interface Row {
  readonly server: string;
  readonly protocol: Protocol;
  readonly way: Way;
  readonly figures: Figures | null;
  /** Why it does not exist. */
  readonly lack?: string | undefined;
}

/** Of an association; each has rows of its own. */
type Protocol = "DTLS 1.2";

/** DTLS 1.2 goes without saying. */
const nameOf = ({ server, protocol }: Row): string => (protocol === "DTLS 1.2" ? server : `${server}, ${protocol}`);

/** Bytes are UDP payload of the handshake; times are milliseconds of processor time. */
export interface Figures {
  readonly bytesOut: number;
  readonly bytesIn: number;
  readonly datagramsOut: number;
  readonly datagramsIn: number;
  readonly roundTrips: number;
  readonly cpu: number;
}

/** Of a whole wake. */
export interface WakeFigures extends Figures {
  /** Bytes of application data: the request and its answer, in records. */
  readonly requestOut: number;
  readonly requestIn: number;
  /** Datagrams of application data: requests, and an alert at the end; and answers, each of which took a round trip. */
  readonly sent: number;
  readonly answers: number;
  /** Bytes of mbedTLS's heap at the peak. */
  readonly dtlsPeak: number;
}

export interface WakeRow extends Row {
  readonly figures: WakeFigures | null;
}

export interface WakesFigures {
  /** Milliseconds of processor time. */
  readonly udpAlone: number;
  readonly association: readonly Row[];
  readonly simulator: readonly WakeRow[];
  /** Milliseconds of processor time to verify one signature in the simulator. */
  readonly verify: number;
  /** Of one wake in the simulator by each way, against the development server. */
  readonly instructions: Readonly<Record<Way, number>>;
  /** Measurements that failed and were made again, with why. */
  readonly repeated: readonly string[];
}

type Lacks = Partial<Record<Way, string>>;
const NOTHING: Lacks = {};
const NO_CONTEXTS: Lacks = { context: "no connection IDs (RFC 9146)" };

type Server = Pick<Peer, "port" | "stop">;

/** A server, and how it is asked by each way. */
interface Contender<F extends Figures> {
  readonly name: string;
  readonly protocol: Protocol;
  /** The ways that it does not have, and why. */
  readonly lacks: Lacks;
  /** One wake that makes the next one possible, and that one measured. */
  measure(way: Way): Promise<F>;
}

interface Competition {
  /** Is called before each round. */
  readonly between?: (() => Promise<void>) | undefined;
  /** Takes what failed and was measured again. */
  readonly repeated: string[];
}

/**
 * What `measure` gives; where it fails, its second try. A server may not answer one handshake of hundreds: when the system
 * gives a client the UDP port of one before it, whose association a server has not given up.
 */
async function atMostTwice<F>(measure: () => Promise<F>, name: string, repeated: string[]): Promise<F> {
  try {
    return await measure();
  } catch (error) {
    repeated.push(`${name}: ${(error as Error).message}`);
    return measure();
  }
}

/** Each contender by each way in turn, `runs` times; a different way begins each time. The first time is not counted. */
async function compete<F extends Figures>(
  contenders: readonly Contender<F>[],
  { runs, progress, between, repeated }: Pick<Context, "runs" | "progress"> & Competition,
): Promise<(Row & { figures: F | null })[]> {
  const measured = new Map<string, F[]>();
  for (let run = 0; run <= runs; run++) {
    progress(`run ${run} of ${runs}`);
    await between?.();
    for (const contender of contenders) {
      for (let turn = 0; turn < WAYS.length; turn++) {
        const way = WAYS[(turn + run) % WAYS.length]!;
        if (contender.lacks[way] !== undefined) {
          continue;
        }
        const name = `${contender.name} ${contender.protocol} ${way}`;
        const figures = await atMostTwice(() => contender.measure(way), name, repeated);
        measured.set(name, run === 0 ? [] : [...measured.get(name)!, figures]);
      }
    }
  }
  return contenders.flatMap(({ name: server, protocol, lacks }) =>
    WAYS.map((way) => {
      const all = measured.get(`${server} ${protocol} ${way}`);
      return { server, protocol, way, figures: all === undefined ? null : (medians(all) as F), lack: lacks[way] };
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
  target: Pick<EchoOptions, "port" | "secure" | "messages" | "check">,
): Contender<Figures> {
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
    protocol: "DTLS 1.2",
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
function simulated(name: string, lacks: Lacks, { port }: Server, files: IdentityFiles): Contender<WakeFigures> {
  return {
    name,
    protocol: "DTLS 1.2",
    lacks,
    async measure(way) {
      const device = new SimulatedDevice(port, files);
      const doing = doingOf(way);
      if (way !== "full") {
        await device.wake("crts", doing);
      }
      const { association, cpu, heap } = (await device.wake("crts", doing)).value;
      expectWay(name, way, association.way, association.notes);
      const {
        bytesOut: requestOut,
        bytesIn: requestIn,
        datagramsOut: sent,
        datagramsIn: answers,
      } = association.application;
      const { roundTrips, handshake } = association;
      const { dtlsPeak } = heap;
      return { ...handshake, roundTrips, requestOut, requestIn, sent, answers, cpu, dtlsPeak };
    },
  };
}

/** A heap that grows by small steps is collected at each step: that tells how little does, not what a device spends. */
function doingOf(way: Way): Doing {
  return { heap: "esp32", resume: way === "full" || way === "context" ? undefined : way };
}

async function instructionsOf({ port }: Server, files: IdentityFiles): Promise<Record<Way, number>> {
  const counted = {} as Record<Way, number>;
  for (const way of WAYS) {
    const device = new SimulatedDevice(port, files);
    if (way !== "full") {
      await device.wake("crts", doingOf(way));
    }
    const { value, instructions } = await device.instructions("crts", doingOf(way));
    expectWay("development", way, value.association.way, value.association.notes);
    counted[way] = instructions;
  }
  return counted;
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

// ---- the table ----

const millions = (count: number): string => (count / 1e6).toFixed(1);

function tableOf(rows: readonly (Row | WakeRow)[]): Table {
  const isWake = rows.some(({ figures }) => figures !== null && "dtlsPeak" in figures);
  const head = [
    ...["server", "way", "bytes out", "in", "datagrams", "round trips", "CPU ms", "bytes", "CPU"],
    ...(isWake ? ["request out", "in", "DTLS heap"] : []),
  ];
  return {
    head,
    texts: ["way"],
    rows: rows.map((its) => {
      const { server, protocol, way, figures } = its;
      if (figures === null) {
        return [nameOf(its), way, ...head.slice(2).map(() => "–")];
      }
      const full = rows.find((row) => row.server === server && row.protocol === protocol && row.way === "full")!
        .figures!;
      return [
        ...[nameOf(its), way, grouped(figures.bytesOut), grouped(figures.bytesIn)],
        ...[`${figures.datagramsOut} + ${figures.datagramsIn}`, figures.roundTrips, milliseconds(figures.cpu)],
        percent(figures.bytesOut + figures.bytesIn, full.bytesOut + full.bytesIn),
        fraction(figures.cpu, full.cpu),
        ...("dtlsPeak" in figures ? [figures.requestOut, figures.requestIn, figures.dtlsPeak].map(grouped) : []),
      ];
    }),
  };
}

/** Which rows are empty, and why. */
const lacksOf = (rows: readonly Row[]): string =>
  rows.flatMap((row) => (row.lack === undefined ? [] : [`${nameOf(row)} ${row.way}: ${row.lack}.`])).join(" ");

function report({ udpAlone, association, simulator, verify, instructions, repeated }: WakesFigures): Report {
  return {
    title: "The ways back",
    parts: [
      "**The association alone:** a DTLS socket in Node.js (64 bits), one message of 16 bytes and its answer, then sleep. " +
        "Bytes (UDP payload), datagrams (out + in) and round trips are those of the handshake; CPU is the client's, user and " +
        "system, around the socket's life; the last columns are parts of the full handshake with the same server.",
      tableOf(association),
      `${lacksOf(association)} One UDP datagram each way and nothing else takes ${milliseconds(udpAlone)} ms of CPU: the least there is in this host.`,
      "**A whole wake:** `crts` in the simulator (XS with the memory that the SDK gives an ESP32), each in a process of its own. CPU is " +
        "the device's, from opening its memory to putting it away, without the start of the process; request: bytes of the " +
        "request and its answer in their records, and of an alert at the end where the association is not kept; heap: bytes of mbedTLS at the peak. GnuTLS and wolfSSL are missing, for their test servers " +
        "do not speak CoAP.",
      tableOf(simulator),
      `${lacksOf(simulator)} Verifying one signature of ECDSA on P-256 takes ${milliseconds(verify)} ms of CPU there, measured between the wakes.`,
      `Instructions of such a wake with the development server, counted by valgrind, millions: ${WAYS.map(
        (way) => `${way} ${millions(instructions[way])} (${fraction(instructions[way], instructions.full)})`,
      ).join(
        ", ",
      )}. The arithmetic of a full handshake goes through more of them in a cycle here than anything else does; a small processor takes one at a time.`,
      ...repeated.map((what) => `Measured again: ${what}`),
    ],
  };
}

async function measure({ runs, progress }: Context): Promise<WakesFigures> {
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
    const verification = await Verification.create();
    const verifications: number[] = [];
    const repeated: string[] = [];
    const among = <F extends Figures>(
      contenders: readonly Contender<F>[],
      between?: () => Promise<void>,
    ): ReturnType<typeof compete<F>> => compete(contenders, { runs, progress, between, repeated });
    return {
      udpAlone: await udpAlone(udp.port, runs),
      association: await among([
        alone("development", NOTHING, {
          ...{ port: development.port, secure: credentialsIn(est) },
          ...{ messages: [COAP_REQUEST], check: anything },
        }),
        alone("OpenSSL", NO_CONTEXTS, { port: openssl.port, secure, messages: [COAP_REQUEST], check: anything }),
        alone("GnuTLS", NO_CONTEXTS, { port: gnutls.port, secure, messages: [ECHO] }),
        ...(wolfssl === undefined
          ? []
          : [alone("wolfSSL", { ticket: "built without tickets" }, { port: wolfssl.port, secure, messages: [ECHO] })]),
      ]),
      simulator: await among(
        [
          simulated("development", NOTHING, development, factoryFiles(est)),
          simulated("OpenSSL", NO_CONTEXTS, openssl, { trust: clientCA, ...own }),
        ],
        async () => void verifications.push(await verification.time()),
      ),
      verify: median(verifications),
      instructions: await instructionsOf(development, factoryFiles(est)),
      repeated,
    };
  } finally {
    await Promise.all(peers.map((peer) => peer.stop()));
  }
}

export const wake: Benchmark<WakesFigures> = {
  name: "wake",
  about: "the ways back: bytes, datagrams, round trips, processor time, heap, against servers over four libraries",
  measure,
  report,
};
