// npm run fuzz: all fuzzers, each for a while. Those of the C core are libFuzzer's (test/fuzz/core/), those of what src/
// reads are guided by coverage (test/fuzz/guided.ts), and one calls the natives of the simulator (test/fuzz/natives.ts).

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { main, optionsOf, SetupError, say } from "./run.mjs";
import { CACHE, CORE_FUZZERS, ensureFuzzers, ROOT, setup } from "./setup.mjs";

const HELP = `npm run fuzz: hostile input into everything that reads, with AddressSanitizer and UndefinedBehaviorSanitizer in C

  npm run fuzz -- [--seconds N | --in-all N] [--only NAME]… [--jobs N] [--seed N] [--merge]
  npm run fuzz -- --only NAME --input FILE      one input again
  npm run fuzz -- --only natives --calls N --seed N [--valgrind]
  npm run fuzz -- --list

  --seconds N   for each fuzzer (60); 0: only what is kept in test/fuzz/corpus
  --in-all N    seconds for all together
  --only NAME   these and no others
  --jobs N      so many at once (the processors)
  --seed N      of the random numbers (another one each time)
  --merge       nothing new: puts what earlier runs have found into test/fuzz/corpus, as few and short inputs as do
  --calls N     how many calls of the natives, in place of a time
  --valgrind    the natives in the 64-bit simulator under valgrind, in place of the one with sanitizers

What is found is kept in ${join(CACHE, "fuzz")}. A finding ends with exit status 1 and the line that repeats it.
`;

/** The fuzzers by name, and what goes into what. */
const FUZZERS = {
  handshake: "datagrams into a client at each point of its handshake",
  records: "datagrams into an association that is open, restored or resumed",
  saved: "bytes into the loaders of sessions and contexts",
  crypto: "certificates, chains, keys, parts of requests and sealed texts into the C core",
  storage: "bytes of key files, of a board's storage and of retained memory",
  "handshake-wolfssl": "the same as handshake over the second engine: DTLS 1.3, its fallback to 1.2",
  "records-wolfssl": "the same as records over the second engine: tickets, key updates, acknowledgements",
  "saved-wolfssl": "the same as saved over the second engine: sessions of DTLS 1.3 and 1.2",
  coap: "CoAP messages, blocks, links, URIs, addresses, texts",
  der: "DER: certificates, names, certs-only, CSR attributes, multipart",
  table: "bytes of session tables in retained memory and in flash",
  state: "records and files of a device's state, PEM",
  natives: "calls of the simulator's natives at random",
};

const CORPUS = join(ROOT, "test", "fuzz", "corpus");
/** Longest inputs, in bytes. */
const LONGEST = { handshake: 1024, records: 1024, saved: 2048, crypto: 2048, storage: 8192 };
const longest = (name) => LONGEST[name.replace("-wolfssl", "")];

// ---- the kept corpora: a file for each fuzzer, a line of Base64 for each input ----

const corpusFile = (name) => join(CORPUS, `${name}.txt`);

export function unpack(name, folder) {
  mkdirSync(folder, { recursive: true });
  const lines = existsSync(corpusFile(name)) ? readFileSync(corpusFile(name), "utf8").split("\n") : [];
  for (const line of lines.filter((line) => line !== "")) {
    const bytes = Buffer.from(line, "base64");
    writeFileSync(join(folder, createHash("sha1").update(bytes).digest("hex")), bytes);
  }
}

function pack(name, folder) {
  const inputs = readdirSync(folder).map((file) => readFileSync(join(folder, file)));
  inputs.sort((one, other) => one.length - other.length || Buffer.compare(one, other));
  mkdirSync(CORPUS, { recursive: true });
  writeFileSync(corpusFile(name), inputs.map((bytes) => `${bytes.toString("base64")}\n`).join(""));
  return inputs.length;
}

// ---- one fuzzer ----

/** Runs a program; `onLine` gets each line of its standard error. */
function run(command, args, onLine) {
  return new Promise((done, fail) => {
    const env = { ...process.env, UBSAN_OPTIONS: "print_stacktrace=1" };
    const child = spawn(command, args, { cwd: ROOT, env, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    let rest = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr = (stderr + text).slice(-200_000);
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      lines.forEach(onLine);
    });
    child.on("error", fail);
    child.on("close", (status) => done({ status, stdout, stderr }));
  });
}

const again = (name, input) => `npm run fuzz -- --only ${name} --input ${input}`;

async function runCore(name, { programs, seconds, seed, kept, found, findings }, tell) {
  const program = join(programs, name);
  const args = [
    ...["-print_final_stats=1", "-timeout=25", "-rss_limit_mb=2048", "-len_control=10", `-max_len=${longest(name)}`],
    ...[`-seed=${seed}`, `-artifact_prefix=${findings}/`, seconds > 0 ? `-max_total_time=${seconds}` : "-runs=0"],
    ...[found, kept],
  ];
  let newest = "";
  const { status, stderr } = await run(program, args, (line) => {
    const progress = /^#(\d+).* cov: (\d+) ft: (\d+) corp: (\d+)/.exec(line);
    if (progress) {
      newest = `${progress[2]} branches, ${progress[4]} inputs`;
      tell(`${progress[1]} executions, ${newest}`);
    }
  });
  const executions = Number(/number_of_executed_units: (\d+)/.exec(stderr)?.[1] ?? 0);
  const result = { executions, summary: newest };
  if (status !== 0) {
    const input = /Test unit written to (\S+)/.exec(stderr)?.[1];
    const what = stderr
      .split("\n")
      .filter((line) => /broken promise|ERROR:|SUMMARY:|runtime error:| #[0-9] /.test(line));
    result.finding = `${what.slice(0, 16).join("\n") || stderr.slice(-3000)}\n${input ? again(name, input) : ""}`;
  }
  return result;
}

async function runReader(name, { seconds, seed, kept, found, findings }, tell) {
  const args = ["--max-old-space-size=512", join(ROOT, "build", "test", "fuzz", "guided.js"), name];
  args.push("--kept", kept, "--found", found, "--findings", findings, "--seconds", `${seconds}`, "--seed", `${seed}`);
  const { status, stdout, stderr } = await run(process.execPath, args, (line) => {
    const progress = new RegExp(`^${name}: (.*)`).exec(line);
    if (progress) {
      tell(progress[1]);
    }
  });
  const last = stdout.trimEnd().split("\n").at(-1) ?? "";
  const line = last.startsWith("{") ? JSON.parse(last) : {};
  const result = { executions: line.executions ?? 0, summary: `${line.branches} branches, ${line.inputs} inputs` };
  if (status !== 0) {
    result.finding = `${line.finding ?? `ended with ${status}: ${stderr.slice(-3000)}`}\n${line.input ? again(name, line.input) : ""}`;
  }
  return result;
}

/** Batches with one seed after the other until the time is over, or `calls` with one seed. */
async function runNatives(_, { seconds, seed, calls, valgrind }, tell) {
  const { again: lineAgain, fuzz } = await import("../build/test/fuzz/fuzz.js");
  const { VALGRIND } = await import("../build/test/support/command.js");
  const parts = JSON.parse(readFileSync(join(ROOT, "build", "native.json"), "utf8"));
  const command = valgrind ? [...VALGRIND, parts.plain64] : [parts.sanitized];
  const end = Date.now() + 1000 * seconds;
  let executions = 0;
  let opened = 0;
  for (let batch = 0; calls === undefined ? Date.now() < end : batch === 0; batch++) {
    const each = { seed: (seed + batch) % 4294967296, calls: calls ?? 4000 };
    const { status, stderr, line } = await fuzz({ ...each, command, patience: valgrind ? 10000 : 500 });
    if (status !== 0 || line === undefined) {
      const finding = `ended with ${status}: ${line?.failure ?? ""}\n${stderr.slice(-6000)}\n${lineAgain(each)}`;
      return { executions, summary: "", finding };
    }
    executions += line.calls;
    opened += line.opened;
    tell(`${executions} calls`);
  }
  return { executions, summary: `${opened} associations opened` };
}

const runnerOf = (name) => (name === "natives" ? runNatives : CORE_FUZZERS.includes(name) ? runCore : runReader);

// ---- all of them ----

/** Seconds between two lines of progress of one fuzzer. */
const PROGRESS = 30;
/** Seconds that a fuzzer takes before its time begins: connections are made, modules and inputs are read. */
const START = 4;

/**
 * Runs fuzzers, `jobs` at once, and says what came of each. Returns the number of those that found something.
 * @param seconds for each; or `inAll`, for all together
 * @param folder where found inputs and findings go; unless told, where earlier runs have left theirs
 */
export async function fuzzAll({
  names = Object.keys(FUZZERS),
  seconds = 60,
  inAll,
  jobs = availableParallelism(),
  seed = Date.now() % 4294967296,
  folder = join(CACHE, "fuzz"),
  ...more
} = {}) {
  await setup({ tests: true });
  const programs = names.some((name) => CORE_FUZZERS.includes(name)) ? await ensureFuzzers() : undefined;
  const each = inAll === undefined ? seconds : Math.max(1, Math.floor((inAll * jobs) / names.length) - START);
  say(`torpor: ${names.length} fuzzers, ${each} s each, ${jobs} at once, seed ${seed}`);
  const scratch = mkdtempSync(join(tmpdir(), "torpor-fuzz-"));
  const queue = [...names];
  let failures = 0;
  const work = async () => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      const kept = join(scratch, name);
      unpack(name, kept);
      const [found, findings] = [join(folder, "corpus", name), join(folder, "findings", name)];
      mkdirSync(found, { recursive: true });
      mkdirSync(findings, { recursive: true });
      const started = Date.now();
      let told = started;
      const tell = (line) => {
        if (Date.now() - told > PROGRESS * 1000) {
          told = Date.now();
          say(`  ${name} … ${((told - started) / 1000).toFixed(0)} s: ${line}`);
        }
      };
      const options = { programs, seconds: each, seed, kept, found, findings, ...more };
      const { executions, summary, finding } = await runnerOf(name)(name, options, tell);
      const took = ((Date.now() - started) / 1000).toFixed(0);
      say(
        `  ${name}: ${executions} executions in ${took} s, ${summary}: ${finding === undefined ? "no finding" : "A FINDING"}`,
      );
      if (finding !== undefined) {
        failures++;
        say(`    ${finding.split("\n").join("\n    ")}`);
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: jobs }, work));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return failures;
}

async function merge(names) {
  await setup({ tests: true });
  const programs = await ensureFuzzers();
  for (const name of names.filter((each) => each !== "natives")) {
    const scratch = mkdtempSync(join(tmpdir(), "torpor-fuzz-"));
    try {
      const [kept, merged, found] = [
        join(scratch, "kept"),
        join(scratch, "merged"),
        join(CACHE, "fuzz", "corpus", name),
      ];
      unpack(name, kept);
      mkdirSync(merged);
      mkdirSync(found, { recursive: true });
      const { status, stderr } = CORE_FUZZERS.includes(name)
        ? await run(join(programs, name), ["-set_cover_merge=1", merged, kept, found], () => {})
        : await run(
            process.execPath,
            [join(ROOT, "build/test/fuzz/guided.js"), name, "--kept", kept, "--found", found, "--merge", merged],
            () => {},
          );
      if (status !== 0) {
        throw new SetupError(`merging the inputs of ${name} ended with ${status}: ${stderr.slice(-2000)}`);
      }
      say(`  ${name}: ${pack(name, merged)} inputs kept`);
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }
}

/** One input again, with all that the fuzzer says. */
async function repeat(name, input) {
  await setup({ tests: true });
  const [command, ...args] = CORE_FUZZERS.includes(name)
    ? [join(await ensureFuzzers(), name), "-timeout=25", input]
    : [process.execPath, "--enable-source-maps", join(ROOT, "build/test/fuzz/guided.js"), name, "--input", input];
  const { status, stdout, stderr } = await run(command, args, () => {});
  process.stderr.write(stdout + stderr);
  say(`torpor: ${name}: ${status === 0 ? "nothing is found with this input" : "the finding is there"}`);
  return status === 0 ? 0 : 1;
}

function wholeNumber(value, option) {
  if (value !== undefined && !/^\d{1,10}$/.test(value)) {
    throw new SetupError(`--${option} ${value}: expected a whole number`);
  }
  return value === undefined ? undefined : Number(value);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    const [text, flag] = [{ type: "string" }, { type: "boolean" }];
    const options = {
      ...{
        seconds: text,
        "in-all": text,
        only: { type: "string", multiple: true },
        jobs: text,
        seed: text,
        input: text,
      },
      ...{ merge: flag, list: flag, calls: text, valgrind: flag },
    };
    const values = optionsOf(options, HELP);
    if (values === undefined) {
      return 0;
    }
    if (values.list) {
      for (const [name, what] of Object.entries(FUZZERS)) {
        process.stdout.write(`${name.padEnd(18)}${what}\n`);
      }
      return 0;
    }
    const unknown = values.only?.find((name) => !(name in FUZZERS));
    if (unknown !== undefined) {
      throw new SetupError(`there is no fuzzer "${unknown}": ${Object.keys(FUZZERS).join(", ")}`);
    }
    if (values.input !== undefined) {
      if (values.only?.length !== 1 || values.only[0] === "natives" || !existsSync(values.input)) {
        throw new SetupError(
          "--input FILE: expected a file, and --only with the one fuzzer that it is for, not natives",
        );
      }
      return repeat(values.only[0], resolve(values.input));
    }
    if (values.merge) {
      await merge(values.only ?? Object.keys(FUZZERS));
      return 0;
    }
    const number = (option) => wholeNumber(values[option], option);
    const failures = await fuzzAll({
      names: values.only,
      seconds: number("seconds"),
      inAll: number("in-all"),
      jobs: number("jobs"),
      seed: number("seed"),
      calls: number("calls"),
      valgrind: values.valgrind,
    });
    return failures === 0 ? 0 : 1;
  });
}
