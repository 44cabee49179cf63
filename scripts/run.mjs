// Runs the commands of the setup and says what it does: one line for each step, with its time.

import { spawn } from "node:child_process";
import { createWriteStream, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

/** A step that failed in a way that the reader can do something about: the message is all they need to see. */
export class SetupError extends Error {}

/** Where the output of this run's commands goes. */
let logs;

/** Progress goes to standard error: standard output belongs to results. */
export function say(line) {
  process.stderr.write(`${line}\n`);
}

/** What did not fail has no log any more. */
function forgetLogs() {
  if (readdirSync(logs).length === 0) {
    rmdirSync(logs);
  }
}

/**
 * Runs one command as a step named `what`. Its output goes to a log; the end of it is shown when the command fails.
 * On a terminal the command's newest line is shown while it runs.
 */
export async function step(what, command, args, options = {}) {
  const started = Date.now();
  if (logs === undefined) {
    logs = mkdtempSync(join(tmpdir(), "torpor-setup-"));
    process.once("exit", forgetLogs);
  }
  const log = join(logs, `${started}.log`);
  const out = createWriteStream(log);
  const terminal = process.stderr.isTTY;
  process.stderr.write(`  ${what} …${terminal ? "" : "\n"}`);
  const code = await new Promise((resolve) => {
    const child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    const show = (chunk) => {
      out.write(chunk);
      if (terminal) {
        const line = chunk.toString().trimEnd().split("\n").pop().slice(0, 60);
        process.stderr.write(`\r\x1b[2K  ${what} … ${line}`);
      }
    };
    child.stdout.on("data", show);
    child.stderr.on("data", show);
    child.on("error", (error) => {
      out.write(`${error.message}\n`);
      resolve(-1);
    });
    child.on("close", resolve);
  });
  await new Promise((resolve) => out.end(resolve));
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  if (terminal) {
    process.stderr.write("\r\x1b[2K");
  }
  if (code !== 0) {
    const lines = readFileSync(log, "utf8").trimEnd().split("\n");
    const shown = lines.length > 30 ? [...lines.slice(0, 12), "…", ...lines.slice(-18)] : lines;
    throw new SetupError(
      `${what} failed (exit ${code}); the command was: ${command} ${args.join(" ")}\n    ${shown.join("\n    ")}\n  log: ${log}`,
    );
  }
  rmSync(log, { force: true });
  say(`  ${what}: done in ${seconds} s`);
}

/** Runs a script's main function: a SetupError is shown as its message alone, anything else with its stack. */
export async function main(body) {
  try {
    process.exitCode = (await body()) ?? 0;
  } catch (error) {
    say(error instanceof SetupError ? `torpor: ${error.message}` : (error.stack ?? String(error)));
    process.exitCode = 1;
  }
}

/** The values of a script's options (as parseArgs has them); undefined where --help was asked for, which is printed. */
export function optionsOf(options, help) {
  let values;
  try {
    ({ values } = parseArgs({ options: { ...options, help: { type: "boolean", short: "h" } } }));
  } catch (error) {
    throw new SetupError(`${error.message}; --help shows what there is`);
  }
  if (values.help) {
    process.stdout.write(help);
    return undefined;
  }
  return values;
}

/** The DTLS engine that a command line asks for, as hosts/node/native.ts reads it: for `setup`. */
export function engineOf(argv = process.argv) {
  const at = argv.findIndex((argument) => argument === "--engine" || argument.startsWith("--engine="));
  const told = at < 0 ? undefined : (argv[at].split("=")[1] ?? argv[at + 1] ?? "");
  return told ?? (process.env.TORPOR_ENGINE || "mbedtls");
}
