/**
 * One association alone: a DTLS socket in Node.js and nothing above it. In a process of its own, for a process has one
 * DTLS engine: forked with the engine's name, it measures what it is sent, and ends with its parent.
 *
 *     const client = new AssociationClient("wolfssl");
 *     const { bytesOut, cpu } = await client.measure({ attempt, port, files, server: "echo" });
 */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { clock } from "../../hosts/node/io.js";
import { engineName } from "../../hosts/node/native.js";
import type { Protocol } from "../../src/dtls/engine.js";
import type { AssociationReport, DTLSCredentials } from "../../src/dtls/socket.js";
import { importKey } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { type EchoOptions, echo } from "../../test/support/echo.js";
import { type IdentityFiles, readIdentity } from "./process.js";
import { type Attempt, ENGINES, type EngineName } from "./ways.js";

export interface Life {
  readonly attempt: Attempt;
  readonly port: number;
  readonly files: IdentityFiles;
  /** What the server does with a message: sends it back, or takes it for a CoAP request. */
  readonly server: "echo" | "coap";
}

/** Bytes are UDP payload of the handshake; times are milliseconds of processor time. */
export interface Figures {
  readonly bytesOut: number;
  readonly bytesIn: number;
  readonly datagramsOut: number;
  readonly datagramsIn: number;
  readonly roundTrips: number;
  readonly cpu: number;
}

/** Throws where an association did not come about as it was to. */
export function expectAttempt(
  { name, way, groups, psk }: Attempt,
  engine: EngineName,
  got: Pick<AssociationReport, "way" | "protocol" | "group" | "notes">,
): void {
  const isRight =
    got.way === way &&
    ENGINES[got.protocol as Protocol] === engine &&
    (groups === undefined || got.group === groups[0]) &&
    (psk === undefined || got.group === undefined);
  if (!isRight) {
    const { protocol, group, notes } = got;
    throw new Error(`${name} over ${engine}: got ${got.way}, ${protocol}, group ${group}; ${notes.join("; ")}`);
  }
}

type Answer = { readonly figures: Figures } | { readonly error: string };

/** Measures one life after the other. */
export class AssociationClient {
  readonly #child: ChildProcess;
  #settle: (answer: Answer) => void = () => undefined;

  constructor(engine: EngineName) {
    this.#child = fork(fileURLToPath(import.meta.url), ["--engine", engine]);
    this.#child.on("message", (answer: Answer) => this.#settle(answer));
    this.#child.on("exit", () => this.#settle({ error: "the client of an association has ended" }));
  }

  /** One life that makes the attempt possible, and that one measured. */
  async measure(life: Life): Promise<Figures> {
    const answer = await new Promise<Answer>((resolve) => {
      this.#settle = resolve;
      this.#child.send(life, (error) => error && resolve({ error: error.message }));
    });
    if ("error" in answer) {
      throw new Error(answer.error);
    }
    return answer.figures;
  }

  async stop(): Promise<void> {
    if (this.#child.connected) {
      this.#child.disconnect();
      await once(this.#child, "exit");
    }
  }
}

/** Of the one slot of the session table: a device's, and one that a ticket of DTLS 1.2 fits. */
const SLOT_BYTES = 512;
const TICKET_SLOT_BYTES = 1536;

/** GET /.well-known: 16 bytes, and the server's 4.04 is an answer too. */
const COAP_REQUEST = Uint8Array.from([0x40, 0x01, 0x00, 0x01, 0xbb, ...Buffer.from(".well-known")]);
const ECHO = new Uint8Array(16);

const MESSAGES: Readonly<Record<Life["server"], Pick<EchoOptions, "messages" | "check">>> = {
  coap: { messages: [COAP_REQUEST], check: () => undefined },
  echo: { messages: [ECHO] },
};

const known = new Map<string, DTLSCredentials>();

function credentialsOf(files: IdentityFiles): DTLSCredentials {
  let credentials = known.get(files.certificate);
  if (credentials === undefined) {
    const { trust, certificates, key } = readIdentity(files);
    credentials = { trustAnchors: trust, certificates, key: importKey(0, key) };
    known.set(files.certificate, credentials);
  }
  return credentials;
}

/** The processor time is that of this process around the socket's life. */
async function live({ attempt, port, files, server }: Life): Promise<Figures> {
  const { way, resume, groups, psk } = attempt;
  const geometry = { slots: 1, slotBytes: resume === "ticket" ? TICKET_SLOT_BYTES : SLOT_BYTES };
  const sessions = new SessionTable(new Uint8Array(SessionTable.byteLength(geometry)), { ...geometry, clock });
  const secure = { ...credentialsOf(files), groups, psk };
  const common = { address: "127.0.0.1", port, secure, sessions, resume, ...MESSAGES[server] };
  if (way !== "full") {
    await echo({ ...common, end: way === "context" ? "sleep" : "close" });
  }
  const before = process.cpuUsage();
  const report = await echo({ ...common, end: "sleep" });
  const { user, system } = process.cpuUsage(before);
  expectAttempt(attempt, engineName() as EngineName, report);
  const { handshake, roundTrips } = report;
  const { bytesOut, bytesIn, datagramsOut, datagramsIn } = handshake;
  return { bytesOut, bytesIn, datagramsOut, datagramsIn, roundTrips, cpu: (user + system) / 1000 };
}

if (process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url)) {
  const answer = (message: Answer): void => void process.send!(message);
  process.on("message", (life: Life) => {
    live(life).then(
      (figures) => answer({ figures }),
      (error: Error) => answer({ error: error.message }),
    );
  });
  process.on("disconnect", () => process.exit());
}
