/**
 * The command line of the lab.
 *
 *     npm run lab -- --port 8080
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { slotsNotice } from "../../hosts/node/simulator.js";
import { Lab } from "./lab.js";
import { serve } from "./server.js";

const DEFAULT_PORT = 5680;

const HELP = `npm run lab: a page that shows the simulated device live, with the development EST server on loopback

  npm run lab -- [--port N] [--state DIR]

  --port N     TCP port of the page on 127.0.0.1 (${DEFAULT_PORT}); 0 takes any free one
  --state DIR  keeps the device's memory there, and the server's CA in DIR-est-server; otherwise both are gone at the end
  --help       this text

The page wakes the device, cuts its power, loses its datagrams, and makes the server forget; it shows the session table,
the datagrams of each wake and its heap. Ctrl-C ends all of it.
`;

/** @throws Error with one line: the arguments make no sense, or the port is in use. */
export async function main(argv: readonly string[]): Promise<void> {
  const text = { type: "string" } as const;
  const options = { port: text, state: text, help: { type: "boolean", short: "h" } } as const;
  const { values } = parseArgs({ args: [...argv], options });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const port = /^\d{1,5}$/.test(values.port ?? "0") ? Number(values.port ?? DEFAULT_PORT) : Number.NaN;
  if (!(port <= 65535)) {
    throw new Error(`--port takes a whole number from 0 to 65535, not "${values.port}"`);
  }
  const notice = slotsNotice();
  if (notice !== undefined) {
    process.stderr.write(`${notice}\n`);
  }
  const ended = new Promise<void>((resolve) => {
    process.once("SIGINT", () => resolve());
    process.once("SIGTERM", () => resolve());
    process.once("SIGHUP", () => resolve());
  });
  const scratch = mkdtempSync(join(tmpdir(), "torpor-lab-"));
  const clean = (): void => rmSync(scratch, { recursive: true, force: true });
  process.once("exit", clean);
  const lab = await Lab.start({ scratch, state: values.state });
  try {
    const page = await serve(lab, port);
    process.stdout.write(`the lab is at http://127.0.0.1:${page.port}/ (Ctrl-C ends it)\n`);
    await ended;
    await page.close();
  } finally {
    await lab.close();
    clean();
  }
}
