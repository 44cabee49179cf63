/**
 * The main job, `npm start`: the development EST server on loopback and a device that boots, enrols, sleeps, and comes
 * back by each way, every wake a new process with only its state folder left. Prints what each wake cost.
 *
 *     npm start -- --wakes 6
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { engineName } from "../hosts/node/native.js";
import type { WakeLine } from "../hosts/node/result.js";
import { slotsNotice } from "../hosts/node/simulator.js";
import { startEstServer } from "./est-server/server.js";
import { wakeProcess } from "./wake-process.js";

const HELP = `npm start: a simulated device against the development EST server on loopback

  npm start -- [--wakes N] [--json] [--state DIR] [options of torpor: --block, --mtu, --host]

  --wakes N    how many wakes, 4 to 1000 (7); all ways back are shown from 6 on
  --json       one line of JSON for each wake on standard output, nothing else
  --state DIR  keeps the device's memory there, and the server's CA in DIR-est-server; otherwise both are gone at the end
  --block SIZE, --mtu N, --heap BYTES
               as for torpor
  --engine NAME  what runs DTLS: mbedtls (DTLS 1.2, the default), or wolfssl (DTLS 1.3; GPL or commercial)
  --host HOST  simulator (the default: XS with a device's memory) or node
`;

const WAKES_MIN = 4;
const WAKES_MAX = 1000;

/** What one wake does, and why it is shown. */
interface Step {
  readonly title: string;
  readonly args: readonly string[];
  /** Whether the server loses its associations first, as by a restart that keeps its sessions. */
  readonly isForgotten?: boolean;
}

/** Over wolfSSL, with DTLS 1.3: no association is saved, and each ticket brings the next. */
function planWithTickets(wakes: number): Step[] {
  const boot = { title: "first boot: crts, att, a new key, sen", args: ["run"] };
  const full = { title: "a new certificate, so a new session", args: ["crts"] };
  const ticket = { title: "back by the ticket, which brings the next one", args: ["crts"] };
  const alone = { title: "back by ticket, without a key exchange of its own", args: ["crts", "--psk-alone"] };
  const renewal = { title: "renewal by ticket: a new key, sren", args: ["sren"] };
  return wakes === 4
    ? [boot, full, ticket, renewal]
    : [boot, full, ...Array<Step>(wakes - 4).fill(ticket), alone, renewal];
}

/** First boot, the ways back in turn, and the renewal last. */
function plan(wakes: number): Step[] {
  const boot = { title: "first boot: crts, att, a new key, sen", args: ["run"] };
  const full = { title: "a new certificate, so a new session", args: ["crts"] };
  const context = { title: "back at once: the saved association goes on", args: ["crts"] };
  const session = {
    title: "the server has forgotten the association: back by session id",
    args: ["crts", "--context-patience", "0.5"],
    isForgotten: true,
  };
  const asking = { title: "a full handshake that asks for a ticket", args: ["crts", "--resume", "ticket"] };
  const ticket = { title: "back by ticket", args: ["crts", "--resume", "ticket"] };
  const renewal = { title: "renewal: a new key, sren", args: ["sren"] };
  const byTicket = { title: "renewal by ticket: a new key, sren", args: ["sren", "--resume", "ticket"] };
  switch (wakes) {
    case 4:
      return [boot, full, context, renewal];
    case 5:
      return [boot, full, context, session, renewal];
    case 6:
      return [boot, full, context, session, asking, byTicket];
    default:
      return [boot, asking, ticket, full, ...Array<Step>(wakes - 6).fill(context), session, renewal];
  }
}

const WAYS = { full: "full handshake", session: "session id", ticket: "ticket", context: "context" } as const;

/** What is said where the device came from another UDP port than before. */
export const MOVED = "from another UDP port: the server followed the connection ID";

function describe(line: WakeLine, title: string, reference: WakeLine, hasMoved: boolean): string {
  const { handshake, application } = line;
  const bytes = handshake.bytesOut + handshake.bytesIn;
  const full = reference.handshake.bytesOut + reference.handshake.bytesIn;
  const requests = line.operations
    .map(({ operation, code, bytes: body }) => `${operation} ${code} ${body} B`)
    .join(", ");
  return [
    `wake ${line.wake}  ${title}`,
    `        ${WAYS[line.way ?? "full"].padEnd(14)} handshake ${String(handshake.bytesOut).padStart(4)} B out, ` +
      `${String(handshake.bytesIn).padStart(4)} B in = ${String(bytes).padStart(4)} B ` +
      `(${String(Math.round((100 * bytes) / full)).padStart(3)}% of a full one), ${handshake.roundTrips} round trips`,
    `        ${requests}`,
    `        application ${application.bytesOut} B out, ${application.bytesIn} B in, ${line.overhead} B of it around each ` +
      `message to the server; ${line.ms} ms; ` +
      `heap peak: ${line.heap.xsPeak > 0 ? `XS ${line.heap.xsPeak} B, ` : ""}DTLS ${line.heap.dtlsPeak} B`,
    ...(hasMoved ? [`        ${MOVED}`] : []),
    ...line.notes.map((note) => `        note: ${note}`),
    "        sleeps",
  ].join("\n");
}

export async function main(argv: readonly string[]): Promise<void> {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    args: [...argv],
    options: {
      wakes: text,
      state: text,
      block: text,
      mtu: text,
      host: text,
      heap: text,
      engine: text,
      json: { type: "boolean" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const wakes = Number(values.wakes ?? 7);
  if (!Number.isInteger(wakes) || wakes < WAKES_MIN || wakes > WAKES_MAX) {
    throw new Error(`--wakes takes a whole number from ${WAKES_MIN} to ${WAKES_MAX}, not "${values.wakes}"`);
  }
  const print = (line: string): void => {
    if (!values.json) {
      process.stdout.write(`${line}\n`);
    }
  };
  const host = values.host ?? "simulator";
  const notice = host === "simulator" ? slotsNotice() : undefined;
  if (notice !== undefined) {
    process.stderr.write(`${notice}\n`);
  }
  const folder = mkdtempSync(join(tmpdir(), "torpor-start-"));
  const clean = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("SIGINT", () => {
    clean();
    process.exit(130);
  });
  const state = values.state ?? join(folder, "device");
  // A device that is kept needs the CA that it was enrolled with: the server's folder lies beside its own.
  const ca = values.state === undefined ? join(folder, "est-server") : `${values.state}-est-server`;
  const server = await startEstServer({ dir: ca });
  try {
    const identity = ["--cert", join(ca, "factory.pem"), "--key", join(ca, "factory.key")];
    const common = [
      ...["--server", `coaps://127.0.0.1:${server.port}`, "--state", state],
      ...["--trust", join(ca, "ca.pem"), ...identity],
      ...["--host", host],
      ...(["block", "mtu", "heap"] as const).flatMap((name) => (values[name] ? [`--${name}`, values[name]] : [])),
    ];
    print(`development EST server on coaps://127.0.0.1:${server.port}; the device's memory is ${state}\n`);
    const lines: WakeLine[] = [];
    /** The latest full handshake: what the others are compared with. */
    let full: WakeLine | undefined;
    for (const { title, args, isForgotten } of engineName() === "wolfssl" ? planWithTickets(wakes) : plan(wakes)) {
      if (isForgotten) {
        server.forget();
      }
      const { moved } = server.stats;
      const { json } = await wakeProcess([...args, ...common]);
      if (values.json) {
        process.stdout.write(`${json}\n`);
        continue;
      }
      const line = JSON.parse(json) as WakeLine;
      lines.push(line);
      if (line.way === "full") {
        full = line;
      }
      print(describe(line, title, full ?? line, server.stats.moved > moved));
    }
    print(`\n${lines.length} wakes, ${lines.length} processes; the identity is the one of the last enrolment`);
  } finally {
    await server.close();
    clean();
  }
}
