/**
 * The command line `torpor`: one invocation is one wake of a device whose memory is the folder --state.
 *
 *     npx torpor crts --server coaps://127.0.0.1:5684 --trust ca.pem --cert factory.pem --key factory.key --state dev
 */

import "./native.js";
import { lookup } from "node:dns/promises";
import { accessSync, constants, existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { type BlockSize, isBlockSize } from "../../src/coap/block.js";
import { parseURI } from "../../src/coap/uri.js";
import { dtlsLibrary, libraryVersion } from "../../src/dtls/engine.js";
import type { Resume } from "../../src/dtls/socket.js";
import type { Identity } from "../../src/enrollment/identity.js";
import { DEFAULT_POLICY, type SchedulePolicy } from "../../src/enrollment/schedule.js";
import { reset, statusOf } from "../../src/enrollment/status.js";
import { type Keep, type Operation, type WakeOptions, wake } from "../../src/enrollment/wake.js";
import { TorporError } from "../../src/errors.js";
import { parseCertificate } from "../../src/pki/certificate.js";
import { importKey, type KeyId } from "../../src/pki/key.js";
import { clock, timer, UDP } from "./io.js";
import { checkout, dtlsHeap, engineName, openKeys } from "./native.js";
import { readPEM } from "./pem.js";
import { lineOf, type WakeResult } from "./result.js";
import { readSessions, sessionsText } from "./sessions.js";
import { ownBuild, simulate, slotsNotice } from "./simulator.js";
import { statusText } from "./status.js";
import { DeviceState, MemoryState } from "./storage.js";
import { textOf } from "./text.js";

const HELP = `torpor: an EST-coaps client (RFC 9148) for devices that sleep; one invocation is one wake

  torpor crts|att|sen|sren|skg|skc|core|run --server coaps://HOST[:PORT][/LABEL] [options]
  torpor sessions|status|reset --state DIR

operations
  crts   get the CA certificates; its self-issued ones are trusted from then on
  att    get what the server wants to see in a certificate request
  sen    make a key and enrol it (simple enrolment)
  sren   make a new key and renew the certificate with it (simple re-enrolment)
  skg    have the server make a key and certify it: both in one answer; the key goes to the key storage alone
  skc    the same, with a single certificate in place of PKCS #7
  core   ask the server where its EST resources are
  run    do what is due: the first boot (crts, att, sen), a renewal (crts, att, sren) after two thirds of the lifetime,
         the first boot again where the certificate has expired, another try after a failure, or nothing
  sessions  list what the device keeps to come back by; connects to nobody, as the two below
  status    tell who the device is, what is due when, and what failed last
  reset     erase keys, certificates, trust and sessions: the device is as the factory left it

identity and trust (PEM or DER files)
  --trust FILE         trust anchors; not needed once crts has been done with --state. run begins with these, and then
                       trusts what crts has brought
  --cert FILE          the factory certificate, then those above it
  --key FILE           its private key: PKCS #8 or SEC 1, P-256 or P-384, not encrypted

the certificate
  --p384               make keys on P-384, where the server does not wish another curve (P-256)
  --same-key           renew with the same key (a new key for each renewal)
  --any-subject        take a certificate whose subject is not the one that was asked for
  --demand-ra          refuse a server that is verified by --trust and whose certificate does not name it a registration
                       authority (id-kp-cmcRA, RFC 9148 section 9.2); run notes it without this

the device
  --state DIR          its memory: retained.bin survives sleep, flash/ survives power-off; made where missing.
                       Without it nothing is kept, and only crts, att and core can be done
  --host HOST          what the device runs on: node (the default), or simulator: XS with a device's memory
  --heap BYTES         XS memory of the simulator: slots, chunks and stack together (32768; 0: no limit), or esp32:
                       what the Moddable SDK gives an ESP32 (32768 bytes of chunks, 2048 slots, 384 of stack)
  --dtls-heap BYTES    memory of mbedTLS in the simulator (32768; 0: no limit)
  --census             print on standard error what lay in the simulator's XS memory when it was largest
  --slots N            slots of the session table (4; 2 with --resume ticket)
  --slot-bytes B       bytes of each (512; 1536 with --resume ticket)
  --ttl SECONDS        how long a session is kept (86400)
  --keep WHERE         where sessions are kept: retained, sealed (there, encrypted), or flash (encrypted; survives
                       power-off) (retained)

the connection
  --engine NAME        what runs DTLS: mbedtls (DTLS 1.2), or wolfssl: DTLS 1.3, and 1.2 where the server has only that. wolfSSL is
                       under the GPL or a commercial licence, and is fetched and built at its first use (mbedtls)
  --groups A,B         groups for the key exchange, the most wanted first: secp256r1, secp384r1, and with wolfSSL
                       X25519MLKEM768, SecP256r1MLKEM768, whose ClientHello takes two datagrams (secp256r1)
  --psk-alone          resume in DTLS 1.3 without a key exchange: fewer bytes, no forward secrecy
  --resume WAY         context: go on with the saved association, else resume by session id, else by ticket, else a full
                       handshake; session or ticket: resume by these only; none: a full handshake (context). Over wolfSSL
                       no association is saved: it resumes by ticket
  --cid BYTES          length of the connection ID in the server's records, 0 to 8 (0)
  --context-patience S seconds that the server may take to answer a restored association (4)
  --discover           ask first where the EST resources are (core), and go there
  --block SIZE         CoAP blocks of at most 16, 32, 64, 128, 256, 512 or 1024 bytes (1024, or what fits the MTU)
  --mtu N              largest UDP payload, 256 to 2048 bytes (1232)
  --handshake-timer S  seconds until a handshake flight is sent again (9, RFC 7925)
  --patience S         seconds that the whole handshake may take (60)
  --retry S            after a run that failed, nothing is tried for so many seconds, then twice as long (60)
  --retry-max S        and so many at most (86400)
  --max-body BYTES     largest body to accept from the server (16384; 3072 in the simulator)

output
  --json               one line of JSON for the wake
  --out FILE           the body of the last answer, as it came; of skg and skc the certificate alone
  --debug              stack traces of what fails; the simulator has 64-bit slots then, and no limit of memory
  --version, --help

Exit status 0: done. 1: failed, with one line on standard error that says what and why; keys, certificates and
sessions are as they were. 2: the command line makes no sense.
`;

/** A command line that makes no sense. */
class UsageError extends TorporError {}

const OPERATIONS: readonly string[] = ["crts", "att", "sen", "sren", "skg", "skc", "core", "run"];
/** Those that connect to nobody. */
const LOCAL = ["sessions", "status", "reset"] as const;
const WITHOUT_STATE: readonly string[] = ["crts", "att", "core"];

const RESUME: readonly Resume[] = ["context", "session", "ticket", "none"];
const KEEP: readonly Keep[] = ["retained", "sealed", "flash"];

const isOneOf = <T extends string>(all: readonly T[], text: string): text is T =>
  (all as readonly string[]).includes(text);

interface LocalArguments {
  readonly local: (typeof LOCAL)[number];
  readonly state: string;
  readonly ttl: number;
  readonly json: boolean;
}

interface Arguments {
  readonly options: Omit<WakeOptions, "address" | "trust" | "factory">;
  readonly host: "node" | "simulator";
  readonly heap: number | "esp32" | undefined;
  readonly dtlsHeap: number | undefined;
  readonly census: boolean;
  readonly trust: string | undefined;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  readonly state: string | undefined;
  readonly out: string | undefined;
  readonly json: boolean;
  readonly debug: boolean;
}

function numberOf(name: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) {
    return undefined;
  }
  const value = Number(text);
  if (!/^[0-9]+(\.[0-9]+)?$/.test(text) || value < min || value > max) {
    throw new UsageError(`--${name} takes a number from ${min} to ${max}, not "${text}"`);
  }
  return value;
}

function wholeNumberOf(name: string, text: string | undefined, min: number, max: number): number | undefined {
  const value = numberOf(name, text, min, max);
  if (value !== undefined && !Number.isInteger(value)) {
    throw new UsageError(`--${name} takes a whole number, not "${text}"`);
  }
  return value;
}

const milliseconds = (seconds: number | undefined): number | undefined =>
  seconds === undefined ? undefined : Math.max(1, Math.round(seconds * 1000));

/** Bytes of a datagram around a block: DTLS record and CoAP header, token and options. */
const AROUND_BLOCK = 150;

function blockSizeOf(text: string | undefined, mtu: number): BlockSize {
  const given = wholeNumberOf("block", text, 16, 1024);
  if (given !== undefined) {
    if (!isBlockSize(given)) {
      throw new UsageError(`--block takes 16, 32, 64, 128, 256, 512 or 1024, not ${given}`);
    }
    if (given + AROUND_BLOCK > mtu) {
      throw new UsageError(`blocks of ${given} bytes do not fit an MTU of ${mtu}: take a smaller --block`);
    }
    return given;
  }
  let size = 1024;
  while (size + AROUND_BLOCK > mtu) {
    size /= 2;
  }
  return size as BlockSize;
}

function policyOf(retry: string | undefined, most: string | undefined): SchedulePolicy | undefined {
  const firstRetry = wholeNumberOf("retry", retry, 1, 31536000);
  const longestRetry = wholeNumberOf("retry-max", most, 1, 31536000);
  return firstRetry === undefined && longestRetry === undefined
    ? undefined
    : {
        ...DEFAULT_POLICY,
        ...(firstRetry !== undefined && { firstRetry }),
        ...(longestRetry !== undefined && { longestRetry }),
      };
}

function parseCommandLine(argv: readonly string[]): Arguments | LocalArguments | "help" | "version" {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(argv);
  } catch (error) {
    throw new UsageError((error as Error).message.split(". ")[0] ?? "bad option");
  }
  const { values, positionals } = parsed;
  if (values.help) {
    return "help";
  }
  if (values.version) {
    return "version";
  }
  const [operation, ...more] = positionals;
  if (operation === undefined || more.length > 0) {
    throw new UsageError(`expected one operation, got ${positionals.length}: one of ${OPERATIONS.join(", ")}`);
  }
  if (isOneOf(LOCAL, operation)) {
    if (values.state === undefined) {
      throw new UsageError(`${operation} needs --state DIR: the device that it is about`);
    }
    const ttl = wholeNumberOf("ttl", values.ttl, 0, 31536000) ?? 86400;
    return { local: operation, state: values.state, ttl, json: values.json ?? false };
  }
  if (!OPERATIONS.includes(operation)) {
    throw new UsageError(`"${operation}" is no operation: one of ${[...OPERATIONS, ...LOCAL].join(", ")}`);
  }
  if (values.server === undefined) {
    throw new UsageError("--server is missing: coaps://HOST[:PORT][/LABEL]");
  }
  const uri = parseURI(values.server);
  if (uri.scheme !== "coaps") {
    throw new UsageError("--server takes a coaps:// URI: EST needs DTLS");
  }
  const host = values.host ?? "node";
  if (host !== "node" && host !== "simulator") {
    throw new UsageError(`--host takes node or simulator, not "${host}"`);
  }
  if (engineName() !== "mbedtls" && engineName() !== "wolfssl") {
    throw new UsageError(`--engine takes mbedtls or wolfssl, not "${engineName()}"`);
  }
  const resume = values.resume;
  if (resume !== undefined && !isOneOf(RESUME, resume)) {
    throw new UsageError(`--resume takes context, session, ticket or none, not "${resume}"`);
  }
  const keep = values.keep;
  if (keep !== undefined && !isOneOf(KEEP, keep)) {
    throw new UsageError(`--keep takes retained, sealed or flash, not "${keep}"`);
  }
  if ((values.cert === undefined) !== (values.key === undefined)) {
    throw new UsageError("--cert and --key go together");
  }
  if (values.state === undefined && !WITHOUT_STATE.includes(operation)) {
    throw new UsageError(`${operation} needs --state DIR: the key and the certificate have to be kept somewhere`);
  }
  const mtu = wholeNumberOf("mtu", values.mtu, 256, 2048);
  const byTicket = resume === "ticket";
  return {
    options: {
      operation: operation as Operation,
      host: uri.host,
      port: uri.port,
      label: uri.path === "/" ? undefined : uri.path.replace(/^\//, ""),
      resume,
      keep,
      geometry: {
        slots: wholeNumberOf("slots", values.slots, 1, 64) ?? (byTicket ? 2 : 4),
        slotBytes: wholeNumberOf("slot-bytes", values["slot-bytes"], 256, 4096) ?? (byTicket ? 1536 : 512),
      },
      ttl: wholeNumberOf("ttl", values.ttl, 0, 31536000),
      blockSize: blockSizeOf(values.block, mtu ?? 1232),
      maxBody: wholeNumberOf("max-body", values["max-body"], 64, 1048576) ?? (host === "node" ? 16384 : undefined),
      mtu,
      handshakeTimer: milliseconds(numberOf("handshake-timer", values["handshake-timer"], 0.001, 3600)),
      patience: milliseconds(numberOf("patience", values.patience, 0.001, 3600)),
      contextPatience: milliseconds(numberOf("context-patience", values["context-patience"], 0.001, 3600)),
      connectionIdLength: wholeNumberOf("cid", values.cid, 0, 8),
      groups: values.groups?.split(","),
      psk: values["psk-alone"] ? "alone" : undefined,
      discovery: values.discover ? "first" : undefined,
      keyBits: values.p384 ? 384 : undefined,
      keyPolicy: values["same-key"] ? "same" : undefined,
      subject: values["any-subject"] ? "any" : undefined,
      policy: policyOf(values.retry, values["retry-max"]),
      registrationAuthority: values["demand-ra"] ? "demand" : undefined,
    },
    host,
    heap: values.heap === "esp32" ? values.heap : wholeNumberOf("heap", values.heap, 0, 16777216),
    dtlsHeap: wholeNumberOf("dtls-heap", values["dtls-heap"], 0, 16777216),
    census: values.census ?? false,
    trust: values.trust,
    certificate: values.cert,
    key: values.key,
    state: values.state,
    out: values.out,
    json: values.json ?? false,
    debug: values.debug ?? false,
  };
}

function parse(argv: readonly string[]) {
  const text = { type: "string" } as const;
  return parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      server: text,
      trust: text,
      cert: text,
      key: text,
      state: text,
      host: text,
      heap: text,
      "dtls-heap": text,
      census: { type: "boolean" },
      slots: text,
      "slot-bytes": text,
      ttl: text,
      resume: text,
      block: text,
      mtu: text,
      "handshake-timer": text,
      patience: text,
      "context-patience": text,
      cid: text,
      engine: text,
      groups: text,
      "psk-alone": { type: "boolean" },
      keep: text,
      discover: { type: "boolean" },
      p384: { type: "boolean" },
      "same-key": { type: "boolean" },
      "any-subject": { type: "boolean" },
      "demand-ra": { type: "boolean" },
      retry: text,
      "retry-max": text,
      "max-body": text,
      out: text,
      json: { type: "boolean" },
      debug: { type: "boolean" },
      version: { type: "boolean" },
      help: { type: "boolean", short: "h" },
    },
  });
}

// ---- files ----

function readFile(option: string, path: string): Uint8Array {
  try {
    return Uint8Array.from(readFileSync(path));
  } catch (error) {
    const reason =
      (error as NodeJS.ErrnoException).code === "ENOENT" ? "there is no such file" : (error as Error).message;
    throw new TorporError(`cannot read --${option} ${path}: ${reason}`);
  }
}

function readCertificates(option: string, path: string): Uint8Array[] {
  try {
    const certificates = readPEM(readFile(option, path), "CERTIFICATE");
    for (const certificate of certificates) {
      parseCertificate(certificate);
    }
    return certificates;
  } catch (error) {
    throw error instanceof TorporError && error.message.startsWith("cannot read")
      ? error
      : new TorporError(`--${option} ${path} holds no usable certificate: ${(error as Error).message}`);
  }
}

/** The private key in DER; that it is one is found out by taking it in. */
function readKey(path: string): { der: Uint8Array; id: KeyId } {
  try {
    const [der] = readPEM(readFile("key", path), "PRIVATE KEY", "EC PRIVATE KEY");
    return { der: der!, id: importKey(0, der!) };
  } catch (error) {
    const { message } = error as Error;
    throw message.startsWith("cannot read") ? error : new TorporError(`--key ${path}: ${message}`);
  }
}

// ---- output ----

/** Finds out before the wake whether its answer can be written: an enrolment should not end with that error. */
function checkOut(path: string): void {
  try {
    accessSync(existsSync(path) ? path : dirname(path), constants.W_OK);
  } catch (error) {
    throw new TorporError(`cannot write --out ${path}: ${(error as Error).message}`);
  }
}

function writeOut(path: string, body: Uint8Array): void {
  try {
    writeFileSync(path, body);
  } catch (error) {
    throw new TorporError(`cannot write --out ${path}: ${(error as Error).message}`);
  }
}

// ---- one wake ----

async function addressOf(host: string): Promise<string> {
  try {
    return (await lookup(host)).address;
  } catch {
    throw new TorporError(`cannot find the address of ${host}: is the name right, and is there a network?`);
  }
}

async function run(argv: readonly string[]): Promise<void> {
  const parsed = parseCommandLine(argv);
  if (parsed === "help") {
    process.stdout.write(HELP);
    return;
  }
  if (parsed === "version") {
    const { version } = JSON.parse(readFileSync(join(checkout(), "package.json"), "utf8")) as { version: string };
    process.stdout.write(`torpor ${version} (DTLS: ${dtlsLibrary()}; keys and certificates: ${libraryVersion()})\n`);
    return;
  }
  if ("local" in parsed) {
    process.stdout.write(`${runLocally(parsed)}\n`);
    return;
  }
  const { options, host, heap, dtlsHeap, census, trust, certificate, key, state: folder, out, json, debug } = parsed;
  const notice = host === "simulator" && !debug ? slotsNotice() : undefined;
  if (notice !== undefined) {
    process.stderr.write(`${notice}\n`);
  }
  const anchors = trust === undefined ? undefined : readCertificates("trust", trust);
  const certificates = certificate === undefined ? [] : readCertificates("cert", certificate);
  const factoryKey = key === undefined ? undefined : readKey(key);
  if (out !== undefined) {
    checkOut(out);
  }
  const state = folder === undefined ? new MemoryState() : new DeviceState(folder);
  state.lock();
  const number = state.countWake();
  const address = await addressOf(options.host);
  const result =
    host === "simulator"
      ? await simulate({
          options: { ...options, address },
          trust: anchors,
          certificates,
          key: factoryKey?.der,
          state: folder,
          heap,
          dtlsHeap,
          census,
          build: ownBuild(debug),
        })
      : await runHere(
          { ...options, address, trust: anchors, factory: identityOf(certificates, factoryKey?.id) },
          state,
        );
  if (out !== undefined) {
    writeOut(out, result.body);
  }
  const line = lineOf(number, host, options.operation, result);
  process.stdout.write(`${json ? JSON.stringify(line) : textOf(line)}\n`);
}

/** What is printed of an operation that connects to nobody. */
function runLocally({ local, state: folder, ttl, json }: LocalArguments): string {
  if (local === "sessions") {
    const sessions = readSessions(folder, ttl);
    return json ? JSON.stringify({ sessions }) : sessionsText(sessions);
  }
  const state = DeviceState.existing(folder);
  openKeys(state.keys);
  if (local === "status") {
    const status = statusOf(state.open("torpor"), clock);
    return json ? JSON.stringify(status) : statusText(status);
  }
  state.lock();
  reset(state.open("torpor"));
  state.erase();
  return json ? JSON.stringify({ reset: folder }) : `${folder} is as the factory left it`;
}

const identityOf = (certificates: readonly Uint8Array[], key: KeyId | undefined): Identity | undefined =>
  key === undefined ? undefined : { certificates, key };

async function runHere(options: WakeOptions, state: DeviceState | MemoryState): Promise<WakeResult> {
  if (state.keys !== undefined) {
    openKeys(state.keys);
  }
  const host = { UDP, timer, clock, store: state.open("torpor"), retain: (length: number) => state.retain(length) };
  const before = process.cpuUsage();
  const report = await wake(host, options);
  const { user, system } = process.cpuUsage(before);
  return {
    ...report,
    cpu: (user + system) / 1000,
    bytes: report.body.length,
    heap: { xsPeak: 0, dtlsPeak: dtlsHeap().peak },
  };
}

// A reader that is gone or a full disk behind standard output: no reason for a stack trace.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exitCode = 1;
  if (error.code !== "EPIPE") {
    process.stderr.write(`torpor: cannot write to standard output: ${error.message}\n`);
  }
});

run(process.argv.slice(2)).catch((error: Error) => {
  process.exitCode = error instanceof UsageError ? 2 : 1;
  const line = error.message.replace(/\s*\n\s*/g, " ");
  process.stderr.write(`torpor: ${line}${error instanceof UsageError ? " (torpor --help tells more)" : ""}\n`);
  if (process.argv.includes("--debug")) {
    process.stderr.write(`${error.stack}\n`);
  }
});
