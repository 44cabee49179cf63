/**
 * npm run bench -- --only loss: wakes over networks that lose up to 30% of the datagrams each way: the real client and
 * server engines joined in this process, in virtual time.
 */

import "../../hosts/node/native.js";
import { CoAPClient, type SocketOptions } from "../../src/coap/client.js";
import { AssociationReport, DTLSSocket, type DTLSSocketOptions, type Resume } from "../../src/dtls/socket.js";
import { destroyKey, importKey } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { TestCA } from "../../test/support/certificates.js";
import { JoinedNetwork, SERVER, serveCoAP } from "../../test/support/joined.js";
import { CoAPServer } from "../est-server/coap-server.js";
import { ServerEngine } from "../est-server/engine.js";
import { type Benchmark, type Context, median, type Report } from "./bench.js";

const LOSSES = [0, 0.05, 0.1, 0.2, 0.3];
/** Wakes of each kind at each loss, for each of `--runs`. */
const WAKES = 7;
/** Bytes of the answer, as the development server's to crts, and of a block. */
const ANSWER_BYTES = 866;
const BLOCK_BYTES = 512;

const FAST = 1000;

/** What begins a wake, in the order of the table. `handshakeTimer` is milliseconds. */
const KINDS = [
  { name: "full", resume: "none" as Resume, handshakeTimer: undefined },
  { name: "full, 1 s", resume: "none" as Resume, handshakeTimer: FAST },
  { name: "session", resume: "session" as Resume, handshakeTimer: undefined },
  { name: "session, 1 s", resume: "session" as Resume, handshakeTimer: FAST },
  { name: "context", resume: "context" as Resume, handshakeTimer: undefined },
] as const;

type Kind = (typeof KINDS)[number];

interface Wake {
  readonly isAnswered: boolean;
  /** Whether it came back by the way that it began with. */
  readonly isFirstWay: boolean;
  /** Bytes that both sides sent. */
  readonly bytes: number;
  /** Milliseconds until the answer, or the error. */
  readonly time: number;
}

export interface LossRow {
  readonly kind: string;
  /** 0 to 1: of the datagrams, each way. */
  readonly loss: number;
  /** 0 to 1: wakes that had their answer, and those that also came back by the way that they began with. */
  readonly answered: number;
  readonly firstWay: number;
  /** Bytes of UDP payload that both sides sent on average, lost ones too. */
  readonly bytes: number;
  /** Milliseconds until the answer, of those that had one: the median, and what nine of ten take at most. */
  readonly time: number;
  readonly ninth: number;
}

export interface LossFigures {
  readonly wakes: number;
  readonly rows: readonly LossRow[];
}

/** Longer than anything may take: a handshake and another, and each request with its retransmissions. */
const BOUND = 4000 + 60_000 + 2 * 93_000;

interface World {
  readonly network: JoinedNetwork;
  readonly secure: DTLSSocketOptions["secure"];
}

/** One wake; `bytes` is the device's session table. */
async function wake({ network, secure }: World, kind: Kind, bytes: Uint8Array): Promise<Wake> {
  const { time } = network;
  const sessions = new SessionTable(bytes, { clock: network.clock });
  const report = new AssociationReport();
  const socket: DTLSSocketOptions & { io: typeof DTLSSocket } = {
    io: DTLSSocket,
    ...SERVER,
    host: "est.example.net",
    socket: { io: network.UDP },
    timer: time,
    clock: network.clock,
    secure: { ...secure, handshakeTimer: kind.handshakeTimer },
    sessions,
    resume: kind.resume,
    report,
  };
  const client = new CoAPClient({
    socket: socket as SocketOptions & typeof socket,
    timer: time,
    blockSize: BLOCK_BYTES,
  });
  network.trace.length = 0;
  const begun = time.now;
  let end: { isAnswered: boolean; at: number } | undefined;
  client.request({ method: "GET", path: "/crts" }).then(
    () => {
      end = { isAnswered: true, at: time.now };
    },
    () => {
      end = { isAnswered: false, at: time.now };
    },
  );
  while (end === undefined) {
    if (time.now > begun + BOUND) {
      throw new Error(`a wake by ${kind.name} has neither answer nor error`);
    }
    await time.advance(100);
  }
  const sent = network.trace.reduce((sum, datagram) => sum + datagram.bytes.length, 0);
  client.sleep();
  await time.advance(10_000);
  const expected = kind.resume === "none" ? "full" : kind.resume;
  return { ...end, isFirstWay: report.way === expected, bytes: sent, time: end.at - begun };
}

async function measure({ runs, progress }: Context): Promise<LossFigures> {
  const ca = await TestCA.create();
  const server = await ca.issue({ subject: "CN=est", dnsNames: ["est.example.net"] });
  const device = await ca.issue({ subject: "CN=device", usage: "client" });
  const keys = { server: importKey(0, server.pkcs8), device: importKey(0, device.pkcs8) };
  const secure = { trustAnchors: [ca.root], certificates: device.chain, key: keys.device };
  const wakes = runs * WAKES;
  const rows: LossRow[] = [];
  try {
    for (const loss of LOSSES) {
      const network = new JoinedNetwork({ seed: 1 + Math.round(1000 * loss) });
      const engine = new ServerEngine({ trust: [ca.root], key: keys.server, chain: server.chain });
      network.serve(engine);
      const coap = answering(network);
      const world = { network, secure };
      for (const kind of KINDS) {
        progress(`${100 * loss}% lost, ${kind.name}`);
        const all: Wake[] = [];
        let kept: Uint8Array | undefined;
        for (let number = 0; number < wakes; number++) {
          network.forget();
          let bytes = new Uint8Array(SessionTable.byteLength());
          if (kind.resume === "session" && kept !== undefined) {
            bytes = kept.slice();
          } else if (kind.resume !== "none") {
            network.faults = { loss: 0, doubling: 0, reordering: 0 };
            await wake(world, { ...KINDS[4], name: "context" }, bytes);
            kept = bytes.slice();
          }
          network.faults = { loss, doubling: 0, reordering: 0 };
          all.push(await wake(world, kind, bytes));
        }
        rows.push({ kind: kind.name, loss, ...summary(all) });
      }
      coap.close();
      network.free();
      engine.free();
    }
  } finally {
    destroyKey(keys.server);
    destroyKey(keys.device);
  }
  return { wakes, rows };
}

function summary(all: readonly Wake[]): Omit<LossRow, "kind" | "loss"> {
  const answered = all.filter(({ isAnswered }) => isAnswered);
  const times = answered.map(({ time }) => time).sort((a, b) => a - b);
  return {
    answered: answered.length / all.length,
    firstWay: answered.filter(({ isFirstWay }) => isFirstWay).length / all.length,
    bytes: all.reduce((sum, { bytes }) => sum + bytes, 0) / all.length,
    time: median(times),
    ninth: times[Math.ceil(0.9 * times.length) - 1]!,
  };
}

/** A CoAP server that gives the same answer to everything. */
function answering(network: JoinedNetwork): CoAPServer<{ send(datagram: Uint8Array): void }> {
  const coap = new CoAPServer<{ send(datagram: Uint8Array): void }>({
    handler: () => ({ code: "2.05", payload: new Uint8Array(ANSWER_BYTES), contentFormat: 281 }),
  });
  serveCoAP(network, coap, (engine) => ({ send: (datagram) => network.send(engine, datagram) }));
  return coap;
}

function report({ wakes, rows }: LossFigures): Report {
  const whole = (part: number): string => `${Math.round(100 * part)}%`;
  const seconds = (time: number): string => (time / 1000).toFixed(time < 10_000 ? 2 : 1);
  return {
    title: "Loss",
    parts: [
      `One GET with an answer of ${ANSWER_BYTES} bytes in blocks of ${BLOCK_BYTES}, ${wakes} wakes for each row, the real client and server in ` +
        "virtual time; a datagram takes 5 ms, and each is lost with the probability in the second column, whatever its direction. The " +
        "handshake timer is the 9 s of RFC 7925 unless named. Answered: within 60 s for the handshake and CoAP's retransmissions " +
        "(RFC 7252 section 4.2); first way: by the way that the wake began with, and not by one further down the ladder. Bytes are what " +
        "both sides sent, lost ones too, on average; time is virtual, until the answer.",
      {
        head: ["way", "lost", "answered", "first way", "bytes", "of no loss", "median s", "9 of 10 within s"],
        rows: rows.map(({ kind, loss, answered, firstWay, bytes, time, ninth }) => {
          const none = rows.find((row) => row.kind === kind && row.loss === 0)!;
          return [
            ...[kind, whole(loss), whole(answered), whole(firstWay), Math.round(bytes)],
            ...[`${(bytes / none.bytes).toFixed(2)}×`, seconds(time), seconds(ninth)],
          ];
        }),
      },
    ],
  };
}

export const loss: Benchmark<LossFigures> = {
  name: "loss",
  about: "wakes over networks that lose 0 to 30% of the datagrams",
  measure,
  report: (figures) => report({ ...figures, rows: byKind(figures.rows) }),
};

/** One way after the other, each with rising loss. */
const byKind = (rows: readonly LossRow[]): LossRow[] =>
  KINDS.flatMap(({ name }) => rows.filter(({ kind }) => kind === name));
