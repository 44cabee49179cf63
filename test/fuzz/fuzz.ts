/**
 * Starts test/fuzz/natives.ts in a simulator, with a server for the live associations, and tells what came of it.
 *
 *     const { status, line } = await fuzz({ seed: 1, calls: 20000, command: [simulator] });
 */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { readPEM } from "../../hosts/node/pem.js";
import { startEstServer } from "../../tools/est-server/server.js";
import { run } from "../support/command.js";

export interface FuzzRun {
  readonly seed: number;
  readonly calls: number;
  /** Milliseconds that an association with the server may take; 500 unless told. */
  readonly patience?: number;
  /** The simulator, and what it runs under. */
  readonly command: readonly string[];
}

export interface FuzzResult {
  readonly status: number | null;
  readonly stderr: string;
  /** What the program reported; undefined where it crashed. */
  readonly line:
    | { calls: number; natives: number; associations: number; opened: number; failure: string | undefined }
    | undefined;
}

export async function fuzz({ seed, calls, patience = 500, command }: FuzzRun): Promise<FuzzResult> {
  const folder = mkdtempSync(join(tmpdir(), "torpor-fuzz-"));
  const server = await startEstServer({ dir: join(folder, "est") });
  try {
    const args = join(folder, "arguments");
    mkdirSync(args);
    const der = (name: string, ...labels: [string, ...string[]]): Uint8Array =>
      readPEM(Uint8Array.from(readFileSync(join(folder, "est", name))), ...labels)[0]!;
    writeFileSync(join(args, "trust-0"), der("ca.pem", "CERTIFICATE"));
    writeFileSync(join(args, "certificate-0"), der("factory.pem", "CERTIFICATE"));
    writeFileSync(join(args, "key-0"), der("factory.key", "PRIVATE KEY", "EC PRIVATE KEY"));
    writeFileSync(join(args, "options.json"), JSON.stringify({ seed, calls, patience, port: server.port }));
    const module = join(checkout(), "build", "test", "fuzz", "natives.js");
    const [program = "", ...before] = command;
    const rest = [module, "--arguments", args, "--state", join(folder, "device"), "--heap", "0", "--dtls-heap", "0"];
    const { status, stdout, stderr } = await run(program, [...before, ...rest]);
    // Natives print what they are called with: the last line is the program's own.
    const last = stdout.trimEnd().split("\n").at(-1) ?? "";
    return { status, stderr, line: last.startsWith('{"calls"') ? JSON.parse(last) : undefined };
  } finally {
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** How a run is started again. */
export const again = ({ seed, calls }: Pick<FuzzRun, "seed" | "calls">): string =>
  `npm run fuzz -- --only natives --seed ${seed} --calls ${calls}`;
