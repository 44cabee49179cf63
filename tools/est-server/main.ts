/**
 * The command line of the development EST server.
 *
 *     npm run est-server -- --port 5684 --out ./est
 */

import { constants } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { MISBEHAVIOURS, Misconduct, SCRIPT_HELP, ScriptError } from "./misbehave.js";
import type { EstServer, EstServerStats } from "./server.js";

const USAGE = `The development EST-coaps server (RFC 9148), with a throw-away CA. For development and tests, on loopback.

    npm run est-server -- --out DIR [options]

  --out DIR            where the CA, its trust anchor and the factory identity are kept; made at the first start
  --port PORT          UDP port for DTLS (5684)
  --host HOST          address to listen on (127.0.0.1)
  --plain PORT         also plain CoAP on this UDP port, for use behind a DTLS terminator
  --engine NAME        what runs DTLS: mbedtls (DTLS 1.2), or wolfssl (1.2 and 1.3; GPL or commercial) (mbedtls)
  --dtls VERSION       speaks only 1.2 or only 1.3 (all that the engine has)
  --no-session-ids     assigns no session ids: clients resume by ticket or not at all
  --no-tickets         issues no session tickets: clients resume by session id or not at all
  --no-connection-ids  ignores connection IDs: clients cannot restore an association after sleep
  --forget TIME        loses associations that were silent for so long, without a word: 5s, 10m, 1h
  --lifetime TIME      of the certificates that are issued: 60s, 30m, 12h, 90d (90d)
  --refuse TEXT        answers every certificate request with 4.03 and this text
  --busy N             answers the first N requests for a certificate with 5.03, to be made again after 5 s
  --delay TIME         a request for a certificate takes so long: above 1 s the answer comes separately
  --label NAME         has this EST label and no other; may be given again (any label)
  --root PATH          discovery says that the resources are at PATH (/est), or at an absolute URI (coaps://HOST:PORT/est)
  --rollover           changes the CA's root key at this start, with the certificates between the old and the new
  --misbehave WHAT     does wrong: see below
  --attributes WHAT    what att answers: none, key-type, proof-of-possession (key-type)
  --associations N     keeps so many associations at most; the one that was silent longest makes room (256)
  --control            takes commands, one on each line of standard input, and ends with it: stats prints a line of JSON
                       with what the server holds, forget loses all associations without a word
  --block SIZE         largest CoAP block: 16, 32, 64, 128, 256, 512 or 1024 (1024; 256 where it
                       does wrong with blocks)
  --help               this text

  --misbehave takes one of these
${Object.entries(MISBEHAVIOURS)
  .map(([name, what]) => `    ${name.padEnd(18)} ${what}`)
  .join("\n")}

  or a script
${SCRIPT_HELP}`;

/** An option that cannot be used. */
class UsageError extends Error {}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86400 };
const ATTRIBUTES = ["none", "key-type", "proof-of-possession"] as const;
const BLOCK_SIZES = [16, 32, 64, 128, 256, 512, 1024];

function portOf(name: string, text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port >= 0 && port <= 65535)) {
    throw new UsageError(`expected a port from 0 to 65535 after --${name}, not "${text}"`);
  }
  return port;
}

function timeOf(name: string, text: string): number {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  const seconds = Number(count) * (SECONDS[unit ?? ""] ?? 0);
  if (!(seconds > 0)) {
    throw new UsageError(`expected a time like 60s, 30m, 12h or 90d after --${name}, not "${text}"`);
  }
  return seconds;
}

function checkScript(script: string): void {
  try {
    new Misconduct(script);
  } catch (error) {
    throw error instanceof ScriptError ? new UsageError(error.message) : error;
  }
}

const text = { type: "string" } as const;
const flag = { type: "boolean", default: false } as const;

function parseCommandLine() {
  return parseArgs({
    options: {
      out: text,
      port: { ...text, default: "5684" },
      host: { ...text, default: "127.0.0.1" },
      plain: text,
      engine: text,
      dtls: text,
      "no-session-ids": flag,
      "no-tickets": flag,
      "no-connection-ids": flag,
      forget: text,
      lifetime: { ...text, default: "90d" },
      refuse: text,
      busy: text,
      delay: text,
      label: { type: "string", multiple: true },
      root: text,
      rollover: flag,
      misbehave: text,
      attributes: { ...text, default: "key-type" },
      associations: text,
      control: flag,
      block: text,
      help: { ...flag, short: "h" },
    },
  }).values;
}

/** The options for the server; undefined where only help is asked for. @throws UsageError */
function readOptions() {
  let values: ReturnType<typeof parseCommandLine>;
  try {
    values = parseCommandLine();
  } catch (error) {
    throw new UsageError(`${(error as Error).message.split(". ")[0]}; --help lists the options`);
  }
  if (values.help) {
    return undefined;
  }
  const { out, plain, refuse } = values;
  if (!out) {
    throw new UsageError("--out DIR is needed: the CA and the factory identity are kept there");
  }
  const blockSize = values.block === undefined ? undefined : Number(values.block);
  if (blockSize !== undefined && !BLOCK_SIZES.includes(blockSize)) {
    throw new UsageError(`expected one of ${BLOCK_SIZES.join(", ")} after --block, not "${values.block}"`);
  }
  const attributes = ATTRIBUTES.find((name) => name === values.attributes);
  if (attributes === undefined) {
    throw new UsageError(`expected one of ${ATTRIBUTES.join(", ")} after --attributes, not "${values.attributes}"`);
  }
  const { misbehave, busy, root, associations, dtls, engine } = values;
  if (engine !== undefined && engine !== "mbedtls" && engine !== "wolfssl") {
    throw new UsageError(`expected mbedtls or wolfssl after --engine, not "${engine}"`);
  }
  if (dtls !== undefined && dtls !== "1.2" && dtls !== "1.3") {
    throw new UsageError(`expected 1.2 or 1.3 after --dtls, not "${dtls}"`);
  }
  if (misbehave !== undefined) {
    checkScript(misbehave);
  }
  if (busy !== undefined && !/^\d{1,6}$/.test(busy)) {
    throw new UsageError(`expected a number after --busy, not "${busy}"`);
  }
  if (associations !== undefined && !(/^\d{1,5}$/.test(associations) && Number(associations) > 0)) {
    throw new UsageError(`expected a number from 1 to 99999 after --associations, not "${associations}"`);
  }
  if (root !== undefined && !/^(coaps:\/\/[^/]+)?\/[^/]/.test(root)) {
    throw new UsageError(`expected /PATH or coaps://HOST:PORT/PATH after --root, not "${root}"`);
  }
  return {
    ...(misbehave !== undefined && { misbehave }),
    ...(dtls !== undefined && { protocol: dtls === "1.2" ? ("DTLS 1.2" as const) : ("DTLS 1.3" as const) }),
    ...(busy !== undefined && { busy: Number(busy) }),
    ...(values.delay !== undefined && { delay: timeOf("delay", values.delay) * 1000 }),
    ...(values.label !== undefined && { labels: values.label }),
    ...(root !== undefined && { root }),
    ...(associations !== undefined && { associations: Number(associations) }),
    control: values.control,
    ...(values.rollover && { rollover: "now" as const }),
    dir: out,
    host: values.host,
    port: portOf("port", values.port),
    ...(plain !== undefined && { plain: portOf("plain", plain) }),
    sessionIds: !values["no-session-ids"],
    tickets: !values["no-tickets"],
    connectionIds: !values["no-connection-ids"],
    ...(values.forget !== undefined && { forget: timeOf("forget", values.forget) }),
    lifetime: timeOf("lifetime", values.lifetime),
    ...(refuse !== undefined && { refuse }),
    attributes,
    ...(blockSize !== undefined && { blockSize }),
  };
}

/** An argument for a shell, to be pasted. */
const quoted = (text: string): string => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** What the server holds, as `stats` prints it; memory in bytes. */
export interface ServerReport extends EstServerStats {
  /** Of the process, as the system counts it. */
  readonly rss: number;
  /** Of JavaScript; after a collection where Node.js was started with --expose-gc. */
  readonly heap: number;
  /** Of mbedTLS. */
  readonly dtlsHeap: number;
}

function obey(server: EstServer, command: string, dtlsHeap: () => { now: number }): void {
  switch (command) {
    case "stats": {
      (globalThis as { gc?: () => void }).gc?.();
      const { rss, heapUsed } = process.memoryUsage();
      const report: ServerReport = { ...server.stats, rss, heap: heapUsed, dtlsHeap: dtlsHeap().now };
      process.stdout.write(`${JSON.stringify(report)}\n`);
      break;
    }
    case "forget":
      server.forget();
      break;
    default:
      process.stderr.write(`est-server: "${command.slice(0, 40)}" is no command: expected stats or forget\n`);
  }
}

async function main(): Promise<void> {
  const say = (line: string) => process.stdout.write(`${line}\n`);
  const options = readOptions();
  if (options === undefined) {
    process.stdout.write(USAGE);
    return;
  }
  // Not before the options are read: loading the C core fails where it is not built, and takes its time.
  const { startEstServer } = await import("./server.js");
  const { dtlsHeap } = await import("../../hosts/node/native.js");
  const { control, ...others } = options;
  const server = await startEstServer({ ...others, log: say });
  const { dir, host } = options;
  const file = (name: string) => quoted(join(dir, name));
  const reached = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  const authority = `${reached.includes(":") ? `[${reached}]` : reached}:${server.port}`;
  say("EST-coaps server for development: its CA is a throw-away one and certifies whoever asks. Keep it on loopback.");
  say(`  trust anchor      ${file("ca.pem")}, ${file("ca.der")}`);
  say(`  factory identity  ${file("factory.pem")}, ${file("factory.key")}`);
  say(`  listening on      coaps://${authority}`);
  if (server.plainPort !== undefined) {
    say(`                    coap://${authority.replace(/\d+$/, String(server.plainPort))}, without DTLS`);
  }
  say("Try:");
  say(
    `  npx torpor crts --server coaps://${authority} --trust ${file("ca.pem")} --cert ${file("factory.pem")}` +
      ` --key ${file("factory.key")} --state ./state`,
  );
  await new Promise<void>((resolve) => {
    process.once("SIGINT", () => resolve());
    process.once("SIGTERM", () => resolve());
    if (control) {
      createInterface({ input: process.stdin })
        .on("line", (line) => obey(server, line.trim(), dtlsHeap))
        .on("close", resolve);
    }
  });
  process.stdin.destroy(); // it may be open still, and would keep the process
  await server.close();
}

// A reader that goes away, as `| head` does, is no failure.
process.stdout.on("error", () => process.exit(128 + constants.signals.SIGPIPE));

main().catch((error: Error) => {
  process.stderr.write(`est-server: ${error.message}\n`);
  process.exitCode = 1;
});
