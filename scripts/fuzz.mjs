// npm run fuzz: calls the natives of the simulator at random (test/fuzz/natives.ts), longer than npm test does.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { main, SetupError, say } from "./run.mjs";
import { ROOT, setup } from "./setup.mjs";

const HELP = `npm run fuzz: calls the natives of the simulator at random; each call must end in a result or a JavaScript error

  npm run fuzz -- [--calls N] [--seed N] [--valgrind]

  --calls N    how many calls (1000000)
  --seed N     repeats a run (another one each time)
  --valgrind   the 64-bit simulator under valgrind, in place of the one with sanitizers
`;

await main(async () => {
  const text = { type: "string" };
  const { values } = parseArgs({
    options: { calls: text, seed: text, valgrind: { type: "boolean" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  await setup({ tests: true });
  const { fuzz } = await import("../build/test/fuzz/fuzz.js");
  const { VALGRIND } = await import("../build/test/support/command.js");
  const parts = JSON.parse(readFileSync(join(ROOT, "build", "native.json"), "utf8"));
  const seed = Number(values.seed ?? Date.now() % 4294967296);
  const calls = Number(values.calls ?? 1000000);
  say(`torpor: ${calls} calls with the seed ${seed}`);
  const command = values.valgrind ? [...VALGRIND, parts.plain64] : [parts.sanitized];
  const started = Date.now();
  const { status, stderr, line } = await fuzz({ seed, calls, command, patience: values.valgrind ? 10000 : 500 });
  if (status !== 0 || line === undefined) {
    throw new SetupError(`ended with ${status}: ${line?.failure ?? ""}\n${stderr.slice(-6000)}`);
  }
  say(`torpor: ${JSON.stringify(line)} in ${((Date.now() - started) / 1000).toFixed(1)} s`);
  return 0;
});
