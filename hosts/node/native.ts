/**
 * Puts the C core behind the globals `native` and `Native`, as the device's engine has them. Import this before any
 * module of src/ that uses the core:
 *
 *     import "./native.js";
 *
 * `--engine wolfssl` on the command line, or TORPOR_ENGINE=wolfssl, takes the second DTLS engine: a process has one.
 */

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

type Binding = Record<string, (...args: unknown[]) => unknown>;

/** The checkout's folder, seen from the sources and from build/ alike. */
export function checkout(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    folder = dirname(folder);
  }
  return folder;
}

/** The DTLS engine of this process: `--engine NAME` of its command line, else TORPOR_ENGINE, else mbedTLS. */
export function engineName(): string {
  const at = process.argv.findIndex((argument) => argument === "--engine" || argument.startsWith("--engine="));
  const told = at < 0 ? undefined : (process.argv[at]!.split("=")[1] ?? process.argv[at + 1]);
  return told || process.env.TORPOR_ENGINE || "mbedtls";
}

function load(): Binding {
  const file = join(checkout(), "build", "native.json");
  if (!existsSync(file)) {
    throw new Error("the C core is not built yet: run `npm run setup` first");
  }
  const parts = JSON.parse(readFileSync(file, "utf8")) as Record<string, string | undefined>;
  const engine = engineName();
  const binding = engine === "mbedtls" ? parts.binding : parts[`${engine}Binding`];
  if (binding === undefined) {
    throw new Error(`the engine "${engine}" is not built: run \`npm run setup -- --engine ${engine}\` first`);
  }
  return createRequire(import.meta.url)(binding) as Binding;
}

const binding = load();

Object.assign(globalThis, {
  native(name: string): (...args: unknown[]) => unknown {
    const found = binding[name];
    if (found === undefined) {
      throw new Error(`the C core has no function ${name}`);
    }
    return found;
  },
  // The binding ties its C object to `this` and frees it with it: the class itself is empty.
  Native: () => class {},
});

/** Tells PSA where its persistent keys are: a folder that is made at the first write. */
export function openKeys(folder: string): void {
  if ((binding.xs_torpor_keys_open!(folder) as number) < 0) {
    throw new Error(`the path of the key storage is too long: ${folder}`);
  }
}

/** Bytes of mbedTLS's heap: in use now, and at most since the start. */
export function dtlsHeap(): { now: number; peak: number } {
  return { now: binding.xs_torpor_heap_now!() as number, peak: binding.xs_torpor_heap_peak!() as number };
}
