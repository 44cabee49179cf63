/**
 * The command line of the soak.
 *
 *     npm run soak -- --minutes 60
 */

import "../../hosts/node/native.js";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { slotsNotice } from "../../hosts/node/simulator.js";
import type { SoakHost } from "./device.js";
import { reportText, soak } from "./soak.js";

const HELP = `npm run soak: devices wake again and again against development servers on loopback, while datagrams get lost,
devices move, power goes in the middle of wakes, and servers forget, restart and die

  npm run soak -- [--minutes N] [--seed S] [--devices D] [--loss P] [--host HOST] [--json]

  --minutes N   how long it is rough, 0.1 to 10080 (10); before and after it is calm for a few seconds
  --seed S      draws the same chances (another one each time); only chance is the same, not time
  --devices D   how many at once, 2 to 32 (6); half of them at a server that lives on, half at one that dies
  --loss P      the highest rate at which a wake loses, doubles and delays datagrams, 0 to 0.9 (0.3)
  --host HOST   simulator (the default: XS with a device's memory), sanitized (that under AddressSanitizer; npm run setup
                -- --tests builds it) or node
  --json        one object with all figures on standard output, in place of the table

A line on standard error every 10 s says how it goes. Ctrl-C ends the rough part early. Exit status 0: nothing lost, no
nonce twice, no growth, no error that is not documented. 1: a finding; the devices' folders are kept then.
`;

const HOSTS: readonly string[] = ["simulator", "sanitized", "node"];

/** An option that cannot be used. */
class UsageError extends Error {}

function numberOf(name: string, value: string | undefined, min: number, max: number): number | undefined {
  if (value === undefined) {
    return undefined;
  }
  const number = Number(value);
  if (value.trim() === "" || !(number >= min && number <= max)) {
    throw new UsageError(`--${name} takes a number from ${min} to ${max}, not "${value}"`);
  }
  return number;
}

function wholeNumberOf(name: string, value: string | undefined, min: number, max: number): number | undefined {
  const number = numberOf(name, value, min, max);
  if (number !== undefined && !Number.isInteger(number)) {
    throw new UsageError(`--${name} takes a whole number, not "${value}"`);
  }
  return number;
}

const text = { type: "string" } as const;

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        ...{ minutes: text, seed: text, devices: text, loss: text, host: { ...text, default: "simulator" } },
        ...{ json: { type: "boolean" }, help: { type: "boolean", short: "h" } },
      } as const,
    }).values;
  } catch (error) {
    throw new UsageError(`${(error as Error).message.split(". ")[0]}; --help lists the options`);
  }
}

/** Returns the exit status. @throws Error with a message that says all where the arguments make no sense. */
export async function main(argv: readonly string[]): Promise<number> {
  const values = parse(argv);
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const { host } = values;
  if (!HOSTS.includes(host)) {
    throw new UsageError(`--host takes ${HOSTS.join(", ")}, not "${host}"`);
  }
  const seconds = (numberOf("minutes", values.minutes, 0.1, 10080) ?? 10) * 60;
  const seed = wholeNumberOf("seed", values.seed, 0, 999_999_999) ?? Date.now() % 1_000_000;
  const devices = wholeNumberOf("devices", values.devices, 2, 32) ?? 6;
  const loss = numberOf("loss", values.loss, 0, 0.9) ?? 0.3;
  const say = (line: string): void => void process.stderr.write(`${line}\n`);
  const notice = host === "node" ? undefined : slotsNotice();
  if (notice !== undefined) {
    say(notice);
  }
  const folder = mkdtempSync(join(tmpdir(), "torpor-soak-"));
  say(`torpor: soak of ${devices} devices for ${seconds / 60} min, seed ${seed}; their folders are in ${folder}`);
  const early = new AbortController();
  process.once("SIGINT", () => {
    say("torpor: the rough part ends; once more Ctrl-C ends all");
    early.abort();
  });
  const report = await soak({
    ...{ seconds, seed, devices, loss, host: host as SoakHost, folder },
    progress: (line) => say(`  ${line}`),
    signal: early.signal,
  });
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : `${reportText(report)}\n`);
  if (report.findings.length > 0) {
    say(`torpor: soak: ${report.findings.length} findings, seed ${seed}; the devices' folders are in ${folder}`);
    return 1;
  }
  rmSync(folder, { recursive: true, force: true });
  return 0;
}
