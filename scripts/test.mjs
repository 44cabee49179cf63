// npm test: builds what is missing or out of date, then checks types and form and runs all tests.
//
//     npm test                    everything, as .ci/run does
//     npm test -- --grep ticket   only the mocha tests whose names match

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sizes } from "./cross.mjs";
import { fuzzAll } from "./fuzz.mjs";
import { main, SetupError, say, step } from "./run.mjs";
import { ensureNative, ROOT, SECOND_ENGINE_TESTS, setup } from "./setup.mjs";

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

/** Seconds of fuzzing in all. More is done by npm run fuzz. */
const FUZZING = 180;

/** Every fuzzer: first the inputs that are kept in test/fuzz/corpus, then new ones, of the same seed each time. */
async function fuzz() {
  say("torpor: fuzzing, three minutes in all");
  const folder = mkdtempSync(join(tmpdir(), "torpor-fuzz-"));
  if ((await fuzzAll({ inAll: FUZZING, jobs: 2, seed: 1, folder })) > 0) {
    throw new SetupError(`fuzzing has found something: see above. The inputs are in ${join(folder, "findings")}`);
  }
  rmSync(folder, { recursive: true, force: true });
}

function mocha(args, env = {}) {
  const [command, before] = npx(["mocha", "bin", "mocha.js"]);
  return new Promise((resolve) => {
    spawn(command, [...before, ...args], { cwd: ROOT, stdio: "inherit", env: { ...process.env, ...env } }).on(
      "close",
      resolve,
    );
  });
}

/** Bytes and slots of stack for a test file in XS: more than a device's, for all tests of a file share one machine. */
const XS_HEAP = "262144";
const XS_STACK = "1024";

function simulate(simulator, args) {
  return new Promise((resolve) => {
    const child = spawn(simulator, args, { stdio: ["ignore", "pipe", "inherit"] });
    let out = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      out += text;
    });
    child.on("close", (status) => resolve({ status, out }));
  });
}

/** The portable tests (test/unit) once more, in XS: each file in a simulated device of its own. */
async function xs() {
  const build = join(ROOT, "build");
  const { simulator } = JSON.parse(readFileSync(join(build, "native.json"), "utf8"));
  const unit = join(build, "test", "unit");
  const sources = join(ROOT, "test", "unit");
  const files = readdirSync(sources, { recursive: true }).filter((name) => name.endsWith(".test.ts"));
  const folder = mkdtempSync(join(tmpdir(), "torpor-xs-"));
  let passed = 0;
  let failed = 0;
  try {
    for (const file of files.sort()) {
      const wrapper = join(folder, "wrapper.js");
      const compiled = join(unit, file.replace(/\.ts$/, ".js"));
      const mochaShim = join(build, "test", "xs", "mocha.js");
      writeFileSync(wrapper, `import run from "${mochaShim}";\nimport "${compiled}";\nexport default run;\n`);
      const limits = ["--heap", XS_HEAP, "--stack", XS_STACK];
      const args = [wrapper, "--arguments", folder, "--modules", join(build, "test", "xs"), ...limits];
      const { status, out } = await simulate(simulator, args);
      const counts = out.trim() === "" ? { passed: 0, failed: 1 } : JSON.parse(out);
      passed += counts.passed;
      failed += counts.failed + (status !== 0 && counts.failed === 0 ? 1 : 0);
      say(`  in XS: ${file}: ${counts.passed} passed, ${counts.failed} failed${status > 1 ? ` (exit ${status})` : ""}`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  say(`torpor: in XS ${passed} passed, ${failed} failed`);
  return failed;
}

/** The second engine as it says itself, with what its version lacks. */
function wolfsslVersion() {
  const { wolfsslBinding } = JSON.parse(readFileSync(join(ROOT, "build", "native.json"), "utf8"));
  const code = `process.stdout.write(require(${JSON.stringify(wolfsslBinding)}).xs_torpor_dtls_library())`;
  return spawnSync(process.execPath, ["-e", code], { encoding: "utf8" }).stdout;
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
    const sanitized = await ensureNative({ sanitize: true });
    const second = await ensureNative({ engine: "wolfssl" });
    const secondSanitized = await ensureNative({ engine: "wolfssl", sanitize: true });
    const valgrind = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full"];
    const sanitizers = "under AddressSanitizer and UndefinedBehaviorSanitizer";
    // Two at a time: they wait for nothing.
    await Promise.all([
      (async () => {
        await core("C core", native);
        await core("C core under valgrind", native, ...valgrind);
        await core(`C core ${sanitizers}`, sanitized);
        await step("a board's storage, losing power at each step", join(sanitized, "device_test"), []);
      })(),
      (async () => {
        await core(`C core over wolfSSL ${sanitizers}`, secondSanitized);
        await core("C core over wolfSSL under valgrind", second, ...valgrind);
      })(),
    ]);
  }
  if (args.length === 0) {
    await step(
      "an app against the public types, the board's and the examples' modules",
      ...npx(["typescript", "bin", "tsc"], "-p", "test/types"),
      {
        cwd: ROOT,
      },
    );
    say("torpor: the C of devices, cross-compiled");
    await sizes();
  }
  if (args.length === 0) {
    await fuzz();
    say("torpor: portable tests in XS, the device's engine");
    if ((await xs()) > 0) {
      throw new SetupError("tests failed in XS");
    }
  }
  say("torpor: tests in Node.js");
  const failed = await mocha(["test/**/*.test.ts", "--ignore", "test/wolfssl/**", ...args]);
  say(`torpor: tests over the second engine, ${wolfsslVersion()}`);
  // Two files at a time: these wait for time to pass more than they work.
  const twice = ["--parallel", "--jobs", "2"];
  const failedToo = await mocha([...SECOND_ENGINE_TESTS, ...twice, ...args], { TORPOR_ENGINE: "wolfssl" });
  if (failed !== 0 || failedToo !== 0) {
    throw new SetupError(`tests failed (mocha ended with ${failed}, over the second engine with ${failedToo})`);
  }
});
