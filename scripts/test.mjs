// npm test: builds what is missing or out of date, then checks types and form and runs all tests.
//
//     npm test                    everything, as .ci/run does
//     npm test -- --grep ticket   only the mocha tests whose names match

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { main, SetupError, say, step } from "./run.mjs";
import { ensureNative, ROOT, setup } from "./setup.mjs";

const npx = (name, ...args) => [process.execPath, [join(ROOT, "node_modules", ...name), ...args]];

/** The C core by itself, in a folder of its own. */
async function core(what, native, ...before) {
  const folder = mkdtempSync(join(tmpdir(), "torpor-core-"));
  try {
    const [command, ...args] = [...before, join(native, "core_test"), folder, ...(before.length > 0 ? ["5"] : [])];
    await step(what, command, args, { cwd: folder });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function mocha(args) {
  const [command, before] = npx(["mocha", "bin", "mocha.js"]);
  return new Promise((resolve) => {
    spawn(command, [...before, ...args], { cwd: ROOT, stdio: "inherit" }).on("close", resolve);
  });
}

await main(async () => {
  await setup({ tests: true });
  const args = process.argv.slice(2);
  if (args.length === 0) {
    say("torpor: checks");
    await step(
      "form and lint (biome)",
      ...npx(["@biomejs", "biome", "bin", "biome"], "check", "--error-on-warnings", "."),
      {
        cwd: ROOT,
      },
    );
    const native = await ensureNative();
    await core("C core", native);
    await core("C core under AddressSanitizer and UndefinedBehaviorSanitizer", await ensureNative({ sanitize: true }));
    await core("C core under valgrind", native, "valgrind", "-q", "--error-exitcode=9", "--leak-check=full");
  }
  say("torpor: tests");
  const failed = await mocha(["test/**/*.test.ts", ...args]);
  if (failed !== 0) {
    throw new SetupError(`tests failed (mocha ended with ${failed})`);
  }
});
