// npm run coverage: which lines of src/ the tests go through: C by clang (the core's test, the fuzzers' kept inputs, and
// the tests in Node.js through the binding, over both engines), TypeScript by V8 and c8 (the tests in Node.js).

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { unpack } from "./fuzz.mjs";
import { main, optionsOf, SetupError, say, step } from "./run.mjs";
import { CORE_FUZZERS, ensureFuzzers, ensureNative, ROOT, SECOND_ENGINE_TESTS, setup } from "./setup.mjs";

const HELP = `npm run coverage: the lines of src/ that the tests go through, C and TypeScript

  npm run coverage -- [--lines] [--tests GLOB]…

  --lines        also the numbers of the lines that nothing goes through
  --tests GLOB   these test files in place of all that run in Node.js alone

Not measured: engine.c and key.c, the glue of the core in XS, which runs in the simulator only (npm run fuzz -- --only
natives); what is below hosts/; and what the tests go through in other processes, as those of the command line do.
`;

/** Those that go through src/ in mocha's own process: not those that start the command line, or the simulator. */
const TESTS = ["unit", "property", "dtls", "enrollment", "tools", "peers"].map((name) => `test/${name}/**/*.test.ts`);
TESTS.push("test/rfc9148.test.ts");

/** The glue of the core in XS, which no program here is built with. */
const NOT_MEASURED = /\/(engine|key)\.c$/;

/** The output of a command that must succeed. */
function output(command, args, env = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk) => {
      text += chunk;
    });
    child.on("error", reject);
    child.on("close", (status) =>
      status === 0 ? resolve(text) : reject(new SetupError(`${command} ${args.join(" ")} ended with ${status}`)),
    );
  });
}

/** The mocha tests with the bindings that count; their standard output is shown only where they fail. */
async function mocha(tests, profiles, v8, bindings) {
  const native = join(ROOT, "build", "native.json");
  const parts = readFileSync(native, "utf8");
  // An interrupted run must not leave this binding in place: without the stamp, the next setup writes the file anew.
  rmSync(join(ROOT, "build", ".ready"), { force: true });
  writeFileSync(native, JSON.stringify({ ...JSON.parse(parts), ...bindings }));
  try {
    const args = [join(ROOT, "node_modules", "mocha", "bin", "mocha.js"), "--reporter", "dot"];
    const env = { ...process.env, LLVM_PROFILE_FILE: join(profiles, "node-%4m.profraw"), NODE_V8_COVERAGE: v8 };
    await step("tests in Node.js", process.execPath, [...args, ...tests], { cwd: ROOT, env });
    if (tests === TESTS) {
      const second = { ...env, TORPOR_ENGINE: "wolfssl" };
      await step("tests over the second engine", process.execPath, [...args, ...SECOND_ENGINE_TESTS], {
        cwd: ROOT,
        env: second,
      });
    }
  } finally {
    writeFileSync(native, parts);
  }
}

const percent = (covered, all) => `${((100 * covered) / Math.max(1, all)).toFixed(1)}%`;

/** A table with a line for each file, and the totals. */
function table(title, files, withLines) {
  const rows = files.map(({ name, covered, all, missing }) => {
    const lines = withLines && missing.length > 0 ? `   ${ranges(missing)}` : "";
    return `  ${name.padEnd(32)}${String(all - covered).padStart(5)} of ${String(all).padStart(5)} lines missed ${percent(covered, all).padStart(7)}${lines}`;
  });
  const sum = (field) => files.reduce((total, file) => total + file[field], 0);
  rows.push(
    `  ${"in all".padEnd(32)}${String(sum("all") - sum("covered")).padStart(5)} of ${String(sum("all")).padStart(5)} lines missed ${percent(sum("covered"), sum("all")).padStart(7)}`,
  );
  process.stdout.write(`${title}\n${rows.join("\n")}\n`);
}

function ranges(numbers) {
  const parts = [];
  for (const number of numbers) {
    const last = parts.at(-1);
    if (last !== undefined && last[1] === number - 1) {
      last[1] = number;
    } else {
      parts.push([number, number]);
    }
  }
  return parts.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(" ");
}

/** Lines of C from llvm-cov's export for lcov, which has a count for each line that has code. */
function linesOf(lcov) {
  const files = [];
  let file;
  for (const line of lcov.split("\n")) {
    const [kind, rest = ""] = line.split(/:(.*)/s);
    if (kind === "SF") {
      file = { name: relative(join(ROOT, "src"), rest), covered: 0, all: 0, missing: [] };
    } else if (kind === "DA") {
      const [number, count] = rest.split(",").map(Number);
      file.all++;
      if (count > 0) {
        file.covered++;
      } else {
        file.missing.push(number);
      }
    } else if (line === "end_of_record" && !file.name.startsWith("..")) {
      files.push(file);
    }
  }
  return files.sort((one, other) => (one.name < other.name ? -1 : 1));
}

/** The numbers of the lines that come to code: no comments, no types, no imports and exports by name. */
function codeLinesOf(path) {
  const file = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.ES2022, true);
  const numbers = new Set();
  const visit = (node) => {
    const { kind } = node;
    if (ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isImportDeclaration(node)) {
      return;
    }
    if (ts.isExportDeclaration(node) || kind === ts.SyntaxKind.EndOfFileToken || kind === ts.SyntaxKind.JSDoc) {
      return;
    }
    if (node.getChildCount(file) === 0) {
      numbers.add(file.getLineAndCharacterOfPosition(node.getStart(file)).line + 1);
    }
    for (const child of node.getChildren(file)) {
      visit(child);
    }
  };
  visit(file);
  return numbers;
}

/** What is left of a file where only lines that come to code are counted: V8 counts all of them. */
function codeOnly({ name, all, missing }) {
  const lines = codeLinesOf(join(ROOT, "src", name));
  const left = all === 0 ? [] : missing.filter((number) => lines.has(number));
  return { name, all: lines.size, covered: lines.size - left.length, missing: left };
}

async function measure({ tests, withLines }) {
  await setup({ tests: true });
  const native = await ensureNative({ coverage: true });
  const second = await ensureNative({ coverage: true, engine: "wolfssl" });
  const fuzzers = await ensureFuzzers({ coverage: true });
  const scratch = mkdtempSync(join(tmpdir(), "torpor-coverage-"));
  try {
    const profiles = join(scratch, "profiles");
    const v8 = join(scratch, "v8");
    const folders = [join(scratch, "core"), join(scratch, "second")];
    for (const made of [profiles, v8, ...folders]) {
      mkdirSync(made);
    }
    const env = (name) => ({ env: { ...process.env, LLVM_PROFILE_FILE: join(profiles, `${name}.profraw`) } });
    await step("C core", join(native, "core_test"), [folders[0]], { cwd: folders[0], ...env("core") });
    await step("C core over wolfSSL", join(second, "core_test"), [folders[1]], { cwd: folders[1], ...env("second") });
    for (const name of CORE_FUZZERS) {
      unpack(name, join(scratch, name));
      await step(`kept inputs of ${name}`, join(fuzzers, name), ["-runs=0", join(scratch, name)], env(name));
    }
    const bindings = { binding: join(native, "torpor.node"), wolfsslBinding: join(second, "torpor.node") };
    await mocha(tests, profiles, v8, bindings);

    const data = join(scratch, "all.profdata");
    const raw = readdirSync(profiles).map((name) => join(profiles, name));
    await output("llvm-profdata", ["merge", "-sparse", ...raw, "-o", data]);
    const programs = [
      ...[native, second].flatMap((from) => [join(from, "torpor.node"), join(from, "core_test")]),
      ...CORE_FUZZERS.map((name) => join(fuzzers, name)),
    ];
    const objects = programs.flatMap((program, index) => (index === 0 ? [program] : ["-object", program]));
    const lcov = await output("llvm-cov", ["export", "-format=lcov", `-instr-profile=${data}`, ...objects]);
    table(
      "C (src/)",
      linesOf(lcov).filter(({ name }) => name.endsWith(".c") && !NOT_MEASURED.test(`/${name}`)),
      withLines,
    );

    const c8 = join(ROOT, "node_modules", "c8", "bin", "c8.js");
    const report = [
      "report",
      "--temp-directory",
      v8,
      "--reports-dir",
      join(scratch, "report"),
      "--reporter",
      "lcovonly",
    ];
    await output(process.execPath, [
      c8,
      ...report,
      "--all",
      "--src",
      "src",
      "--include",
      "src/**/*.ts",
      "--exclude",
      "**/*.d.ts",
    ]);
    const file = join(scratch, "report", "lcov.info");
    const lcovTs = existsSync(file) ? readFileSync(file, "utf8").replace(/^SF:(?!\/)/gm, `SF:${ROOT}/`) : "";
    table(
      "TypeScript (src/)",
      linesOf(lcovTs)
        .map(codeOnly)
        .filter(({ all }) => all > 0),
      withLines,
    );
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  await setup({ tests: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    const values = optionsOf({ lines: { type: "boolean" }, tests: { type: "string", multiple: true } }, HELP);
    if (values === undefined) {
      return 0;
    }
    await measure({ tests: values.tests ?? TESTS, withLines: values.lines });
    say("torpor: the binding without counters is back in place");
    return 0;
  });
}
