/**
 * npm run bench -- --only wake: the ways to come back side by side, in one run, by DTLS 1.2 over mbedTLS and by DTLS 1.3 over
 * wolfSSL, against servers over different TLS libraries: bytes, datagrams, round trips, processor time, instructions, heap,
 * and all of it against the full handshake.
 */

import { join } from "node:path";
import { UDP } from "../../hosts/node/io.js";
import type { Protocol } from "../../src/dtls/engine.js";
import { TestCA, writeCertificates, writeIdentity } from "../../test/support/certificates.js";
import { newFolder } from "../../test/support/command.js";
import { type Peer, type ServerFiles, startGnutls, startWolfssl } from "../../test/support/peers.js";
import { AssociationClient, expectAttempt, type Figures, type Life } from "./association.js";
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
import { ATTEMPTS, type Attempt, ENGINES, named } from "./ways.js";

/** What was measured of one way to one server; medians, `null` where this does not exist. */
export interface Row {
  readonly server: string;
  readonly protocol: Protocol;
  /** The name of an attempt. */
  readonly way: string;
  readonly figures: Figures | null;
  /** Why it does not exist. */
  readonly lack?: string | undefined;
}

const nameOf = ({ server, protocol }: Row): string => named(server, protocol);

/** Of a whole wake. */
export interface WakeFigures extends Figures {
  /** Bytes of application data: the request and its answer, in records. */
  readonly requestOut: number;
  readonly requestIn: number;
  /** Datagrams of application data: requests, and an alert at the end; and answers, each of which took a round trip. */
  readonly sent: number;
  readonly answers: number;
  /** Bytes that a record to the server adds to its message. */
  readonly overhead: number;
  /** Bytes of the DTLS library's heap at the peak. */
  readonly dtlsPeak: number;
}

export interface WakeRow extends Row {
  readonly figures: (WakeFigures & { readonly instructions: number }) | null;
}

export interface WakesFigures {
  /** Milliseconds of processor time. */
  readonly udpAlone: number;
  readonly association: readonly Row[];
  readonly simulator: readonly WakeRow[];
  /** Milliseconds of processor time to verify one signature in the simulator. */
  readonly verify: number;
  /** Measurements that failed and were made again, with why. */
  readonly repeated: readonly string[];
}

/** By the names of attempts. */
type Lacks = Readonly<Record<string, string>>;
const NOTHING: Lacks = {};
const NO_CONTEXTS: Lacks = { context: "no connection IDs (RFC 9146)" };
const NO_HYBRID: Lacks = Object.fromEntries(
  ATTEMPTS["DTLS 1.3"].flatMap(({ name, groups }) => (groups === undefined ? [] : [[name, "built without ML-KEM"]])),
);

type Server = Pick<Peer, "port" | "stop">;

/** A server, and how it is asked by each way. */
interface Contender<F extends Figures> {
  readonly name: string;
  readonly protocol: Protocol;
  /** What it does not have, and why. */
  readonly lacks: Lacks;
  /** One wake that makes the next one possible, and that one measured. */
  measure(attempt: Attempt): Promise<F>;
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
      const attempts = ATTEMPTS[contender.protocol];
      for (let turn = 0; turn < attempts.length; turn++) {
        const attempt = attempts[(turn + run) % attempts.length]!;
        if (contender.lacks[attempt.name] !== undefined) {
          continue;
        }
        const name = `${contender.name} ${contender.protocol} ${attempt.name}`;
        const figures = await atMostTwice(() => contender.measure(attempt), name, repeated);
        measured.set(name, run === 0 ? [] : [...measured.get(name)!, figures]);
      }
    }
  }
  return contenders.flatMap(({ name: server, protocol, lacks }) =>
    ATTEMPTS[protocol].map(({ name: way }) => {
      const all = measured.get(`${server} ${protocol} ${way}`);
      return { server, protocol, way, figures: all === undefined ? null : (medians(all) as F), lack: lacks[way] };
    }),
  );
}

// ---- the association alone ----

/** The processor time is that of the client's process; the server is another one. */
function alone(
  name: string,
  lacks: Lacks,
  { client, protocol, ...target }: Omit<Life, "attempt"> & { client: AssociationClient; protocol: Protocol },
): Contender<Figures> {
  return { name, protocol, lacks, measure: (attempt) => client.measure({ attempt, ...target }) };
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
interface Simulated extends Contender<WakeFigures> {
  /** That the processor went through for such a wake, once. */
  instructions(attempt: Attempt): Promise<number>;
}

function simulated(name: string, protocol: Protocol, lacks: Lacks, { port }: Server, files: IdentityFiles): Simulated {
  const engine = ENGINES[protocol];
  /** A device that the attempt is possible for. */
  async function prepared(attempt: Attempt): Promise<SimulatedDevice> {
    const device = new SimulatedDevice(port, files, engine);
    if (attempt.way !== "full") {
      await device.wake("crts", doingOf(attempt));
    }
    return device;
  }
  return {
    name,
    protocol,
    lacks,
    async measure(attempt) {
      const device = await prepared(attempt);
      const { association, cpu, heap } = (await device.wake("crts", doingOf(attempt))).value;
      expectAttempt(attempt, engine, association);
      const {
        bytesOut: requestOut,
        bytesIn: requestIn,
        datagramsOut: sent,
        datagramsIn: answers,
      } = association.application;
      const { roundTrips, handshake, overhead } = association;
      const { dtlsPeak } = heap;
      return { ...handshake, roundTrips, requestOut, requestIn, sent, answers, overhead, cpu, dtlsPeak };
    },
    async instructions(attempt) {
      const device = await prepared(attempt);
      const { value, instructions } = await device.instructions("crts", doingOf(attempt));
      expectAttempt(attempt, engine, value.association);
      return instructions;
    },
  };
}

/** A heap that grows by small steps is collected at each step: that tells how little does, not what a device spends. */
const doingOf = (attempt: Attempt): Doing => ({ ...attempt, heap: "esp32" });

/** As `compete`, and the instructions of each. */
async function competeSimulated(
  contenders: readonly Simulated[],
  { progress, ...options }: Parameters<typeof compete>[1],
): Promise<WakeRow[]> {
  const rows = await compete(contenders, { progress, ...options });
  progress("instructions");
  // Side by side: that takes time, and does not change what is counted.
  const counted = contenders.map(async (contender): Promise<WakeRow[]> => {
    const { name: server, protocol } = contender;
    const own: WakeRow[] = [];
    for (const attempt of ATTEMPTS[protocol]) {
      const { figures, ...row } = rows.find(
        (its) => its.server === server && its.protocol === protocol && its.way === attempt.name,
      )!;
      const name = `${server} ${protocol} ${attempt.name}`;
      const count = (): Promise<number> => atMostTwice(() => contender.instructions(attempt), name, options.repeated);
      own.push({ ...row, figures: figures && { ...figures, instructions: await count() } });
    }
    return own;
  });
  return (await Promise.all(counted)).flat();
}

// ---- the table ----

const millions = (count: number): string => (count / 1e6).toFixed(1);

function tableOf(rows: readonly (Row | WakeRow)[]): Table {
  const isWake = rows.some(({ figures }) => figures !== null && "dtlsPeak" in figures);
  const head = [
    ...["server", "way", "bytes out", "in", "datagrams", "round trips", "CPU ms", "bytes", "CPU"],
    ...(isWake ? ["instr. M", "instr.", "request out", "in", "around", "DTLS heap"] : []),
  ];
  return {
    head,
    texts: ["way"],
    rows: rows.map((its) => {
      const { server, protocol, way, figures } = its;
      if (figures === null) {
        return [nameOf(its), way, ...head.slice(2).map(() => "–")];
      }
      const full = rows.find((row) => row.server === server && row.protocol === protocol)!.figures!;
      return [
        ...[nameOf(its), way, grouped(figures.bytesOut), grouped(figures.bytesIn)],
        ...[`${figures.datagramsOut} + ${figures.datagramsIn}`, figures.roundTrips, milliseconds(figures.cpu)],
        percent(figures.bytesOut + figures.bytesIn, full.bytesOut + full.bytesIn),
        fraction(figures.cpu, full.cpu),
        ...("instructions" in figures && "instructions" in full ? ofWake(figures, full.instructions) : []),
      ];
    }),
  };
}

const ofWake = (figures: NonNullable<WakeRow["figures"]>, full: number): string[] => [
  ...[millions(figures.instructions), fraction(figures.instructions, full)],
  ...[figures.requestOut, figures.requestIn, figures.overhead, figures.dtlsPeak].map(grouped),
];

/** Which rows are empty, and why. */
const lacksOf = (rows: readonly Row[]): string =>
  rows.flatMap((row) => (row.lack === undefined ? [] : [`${nameOf(row)} ${row.way}: ${row.lack}.`])).join(" ");

function report({ udpAlone, association, simulator, verify, repeated }: WakesFigures): Report {
  return {
    title: "The ways back",
    parts: [
      "DTLS 1.2 is by mbedTLS, DTLS 1.3 by wolfSSL (GPL or commercial), each against the development server over the same library. The " +
        "bytes of a handshake of DTLS 1.3 have its new ticket, and the ACK of that, in them; psk alone: by the ticket's secret without " +
        "a key exchange, and without forward secrecy. DTLS 1.3 has no session ids, and wolfSSL saves no association of it.",
      "**The association alone:** a DTLS socket in Node.js (64 bits), one message of 16 bytes and its answer, then sleep. " +
        "Bytes (UDP payload), datagrams (out + in) and round trips are those of the handshake; CPU is the client's, user and " +
        "system, around the socket's life; the last columns are parts of the full handshake with the same server.",
      tableOf(association),
      `${lacksOf(association)} One UDP datagram each way and nothing else takes ${milliseconds(udpAlone)} ms of CPU: the least there is in this host.`,
      "**A whole wake:** `crts` in the simulator (XS with the memory that the SDK gives an ESP32), each in a process of its own. CPU is " +
        "the device's, from opening its memory to putting it away, without the start of the process; request: bytes of the " +
        "request and its answer in their records, and of an alert at the end where the association is not kept; around: bytes of them " +
        "around a message to the server; heap: bytes of the DTLS library at the peak. Instructions, in millions, are counted by " +
        "valgrind. GnuTLS's and wolfSSL's test servers are missing, for they do not speak CoAP.",
      tableOf(simulator),
      `${lacksOf(simulator)} Verifying one signature of ECDSA on P-256 takes ${milliseconds(verify)} ms of CPU there, measured between the wakes.`,
      "The arithmetic of a full handshake goes through more instructions in a cycle here than anything else does; a small processor takes " +
        "one at a time.",
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
  const identity = { trust: clientCA, ...own };
  const peers: Pick<Server, "stop">[] = [];
  const keep = <T extends Pick<Server, "stop"> | undefined>(peer: T): T => {
    if (peer !== undefined) {
      peers.push(peer);
    }
    return peer;
  };
  try {
    const est = { "DTLS 1.2": join(folder, "est"), "DTLS 1.3": join(folder, "est-wolfssl") };
    const development = async (protocol: Protocol): Promise<{ server: Server; files: IdentityFiles }> => ({
      server: keep(await forkServer({ kind: "development", dir: est[protocol], engine: ENGINES[protocol] })),
      files: factoryFiles(est[protocol]),
    });
    const [development12, development13] = [await development("DTLS 1.2"), await development("DTLS 1.3")];
    const openssl = keep(await forkServer({ kind: "openssl", files }));
    const udp = keep(await forkServer({ kind: "udp" }));
    const gnutls = keep(await startGnutls(files));
    const wolfssl = keep(await startWolfssl(files));
    const wolfssl13 = keep(await startWolfssl(files, "1.3"));
    const over12 = { protocol: "DTLS 1.2", client: keep(new AssociationClient(ENGINES["DTLS 1.2"])) } as const;
    const over13 = { protocol: "DTLS 1.3", client: keep(new AssociationClient(ENGINES["DTLS 1.3"])) } as const;
    const verification = await Verification.create();
    const verifications: number[] = [];
    const repeated: string[] = [];
    const echo = { files: identity, server: "echo" } as const;
    const options = { runs, progress, repeated };
    return {
      udpAlone: await udpAlone(udp.port, runs),
      association: await compete(
        [
          ...(
            [
              [development12, over12],
              [development13, over13],
            ] as const
          ).map(([{ server, files: its }, over]) =>
            alone("development", NOTHING, { ...over, port: server.port, files: its, server: "coap" }),
          ),
          alone("OpenSSL", NO_CONTEXTS, { ...over12, port: openssl.port, files: identity, server: "coap" }),
          alone("GnuTLS", NO_CONTEXTS, { ...over12, ...echo, port: gnutls.port }),
          ...(wolfssl === undefined ? [] : [alone("wolfSSL", NOTHING, { ...over12, ...echo, port: wolfssl.port })]),
          ...(wolfssl13 === undefined
            ? []
            : [alone("wolfSSL", NO_HYBRID, { ...over13, ...echo, port: wolfssl13.port })]),
        ],
        options,
      ),
      simulator: await competeSimulated(
        [
          simulated("development", "DTLS 1.2", NOTHING, development12.server, development12.files),
          simulated("development", "DTLS 1.3", NOTHING, development13.server, development13.files),
          simulated("OpenSSL", "DTLS 1.2", NO_CONTEXTS, openssl, identity),
        ],
        { ...options, between: async () => void verifications.push(await verification.time()) },
      ),
      verify: median(verifications),
      repeated,
    };
  } finally {
    await Promise.all(peers.map((peer) => peer.stop()));
  }
}

export const wake: Benchmark<WakesFigures> = {
  name: "wake",
  about:
    "the ways back in DTLS 1.2 and 1.3: bytes, round trips, processor time, instructions, heap, by servers over four libraries",
  measure,
  report,
};
