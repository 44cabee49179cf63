// Beside an installed Moddable SDK: what mcconfig needs to find, and the app's desktop build run without a display.
//
//     eval "$(npm run -s moddable -- --env)" && mcconfig -m -p lin -t build hosts/esp32/manifest.json
//     eval "$(npm run -s moddable -- --env --engine wolfssl)"       # for hosts/esp32/manifest_wolfssl.json
//     npm run moddable -- --run --state device --options '{"server":"coaps://127.0.0.1:5684"}' MC.SO
//     npm run moddable -- --sdkconfig m5atom_s3_lite FOLDER

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";
import { engineOf, main, SetupError, say, step } from "./run.mjs";
import { cached, ensureMbedtls, hashOf, ROOT, wolfsslForDevices } from "./setup.mjs";

const HELP = `npm run moddable -- ARGUMENTS

  --env                        prints for a shell what mcconfig needs: TORPOR, TORPOR_MBEDTLS, and tsc on the PATH:
                               eval "$(npm run -s moddable -- --env)"
  --env --engine wolfssl       TORPOR_WOLFSSL too, for manifest_wolfssl.json: the sources of wolfSSL, which is under the
                               GPL or a commercial licence of wolfSSL Inc., and so is what is built with it
  --run --state DIR [--options JSON] MC.SO
                               one wake of a desktop build: its line on standard output, its exit status
  --sdkconfig BOARD FOLDER     for a board with an sdkconfig of its own: writes that and Torpor's into FOLDER, with a
                               manifest.json that an app includes as its last
`;

function sdk() {
  const folder = process.env.MODDABLE;
  if (!folder || !existsSync(join(folder, "tools", "mcconfig"))) {
    throw new SetupError("MODDABLE must name the folder of the Moddable SDK (xs-dev setup installs it)");
  }
  return folder;
}

async function environment() {
  const path = [process.env.PATH, join(ROOT, "node_modules", ".bin")].join(delimiter);
  const mbedtls = { TORPOR: ROOT, TORPOR_MBEDTLS: await ensureMbedtls({ role: "device", bits: 64 }), PATH: path };
  switch (engineOf()) {
    case "mbedtls":
      return mbedtls;
    case "wolfssl":
      return { ...mbedtls, TORPOR_WOLFSSL: resolve((await wolfsslForDevices()).source) };
    default:
      throw new SetupError(`--engine ${engineOf()}: expected mbedtls or wolfssl`);
  }
}

function run(command, args, env = {}) {
  return new Promise((done, failed) => {
    const child = spawn(command, args, { stdio: "inherit", env: { ...process.env, ...env } });
    child.on("error", failed);
    child.on("close", (status) => done(status ?? 1));
  });
}

/** The small host of hosts/moddable/lin/run.c. */
async function ensureHost() {
  const source = join(ROOT, "hosts", "moddable", "lin", "run.c");
  const screen = join(sdk(), "build", "simulators", "modules");
  const glib = spawnSync("pkg-config", ["--cflags", "--libs", "gio-2.0"], { encoding: "utf8" });
  if (glib.status !== 0) {
    throw new SetupError("the host of desktop builds needs GLib: apt-get install libglib2.0-dev pkg-config");
  }
  const name = `moddable-${hashOf(readFileSync(source), readFileSync(join(screen, "screen.h")))}`;
  const folder = await cached(name, async (_, work) => {
    const out = join(work, "torpor-moddable");
    const warnings = ["-std=c11", "-Wall", "-Wextra", "-Werror"];
    const flags = glib.stdout.trim().split(/\s+/);
    // -rdynamic: the library calls back into GLib as this program has it.
    const args = [...warnings, "-O2", `-I${screen}`, source, "-o", out, "-rdynamic", ...flags, "-ldl"];
    await step("building the host of desktop builds", "gcc", args);
    renameSync(out, join(_, "torpor-moddable"));
  });
  return join(folder, "torpor-moddable");
}

function option(args, name) {
  const at = args.indexOf(name);
  return at < 0 ? undefined : args.splice(at, 2)[1];
}

async function runWake(args) {
  const state = option(args, "--state");
  const options = option(args, "--options");
  if (state === undefined || args.length !== 1) {
    throw new SetupError(`--run takes --state DIR and one mc.so\n${HELP}`);
  }
  const told = options === undefined ? {} : { TORPOR_OPTIONS: options };
  return run(await ensureHost(), [resolve(args[0])], { TORPOR_STATE: resolve(state), ...told });
}

/** The SDK takes one folder with an sdkconfig: the board's comes first, so that Torpor's lines hold. */
export function mergeSdkconfig(board, own) {
  const keys = new Set([...own.matchAll(/^(?:# )?(CONFIG_[A-Z0-9_]+)/gm)].map(([, key]) => key));
  const kept = board.split("\n").filter((line) => !keys.has(/^(?:# )?(CONFIG_[A-Z0-9_]+)/.exec(line)?.[1]));
  return `${kept.join("\n").trimEnd()}\n\n${own}`.trimStart();
}

function sdkconfig([board, folder]) {
  if (folder === undefined) {
    throw new SetupError(`--sdkconfig takes a board and a folder\n${HELP}`);
  }
  const theirs = join(sdk(), "build", "devices", "esp32", "targets", board);
  const ours = join(ROOT, "hosts", "esp32", "sdkconfig");
  if (!existsSync(theirs)) {
    throw new SetupError(`the SDK has no board "${board}" in build/devices/esp32/targets`);
  }
  const read = (path) => (existsSync(path) ? readFileSync(path, "utf8") : "");
  mkdirSync(folder, { recursive: true });
  for (const name of ["sdkconfig.defaults", "sdkconfig.defaults.release", "sdkconfig.inst"]) {
    const merged = mergeSdkconfig(read(join(theirs, "sdkconfig", name)), read(join(ours, name)));
    if (merged.trim() !== "") {
      writeFileSync(join(folder, name), merged);
    }
  }
  writeFileSync(join(folder, "manifest.json"), `${JSON.stringify({ build: { SDKCONFIGPATH: "./" } }, null, 2)}\n`);
  say(`torpor: ${folder} is written: include its manifest.json as the last in your app's`);
  return 0;
}

if (process.argv[1]?.endsWith("moddable.mjs")) {
  await main(async () => {
    const [first, ...rest] = process.argv.slice(2);
    switch (first) {
      case undefined:
      case "--help":
        process.stdout.write(HELP);
        return 0;
      case "--env":
        for (const [name, value] of Object.entries(await environment())) {
          process.stdout.write(`export ${name}='${value}'\n`);
        }
        return 0;
      case "--run":
        return runWake(rest);
      case "--sdkconfig":
        return sdkconfig(rest);
      default:
        throw new SetupError(`"${first}" is none of --env, --run and --sdkconfig\n${HELP}`);
    }
  });
}
