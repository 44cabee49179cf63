// npm run simulator: builds what is missing or out of date, then runs a program in the simulated device.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { engineOf, main, SetupError, say } from "./run.mjs";
import { ROOT, setup } from "./setup.mjs";

const HELP = `npm run simulator: runs an ES module on XS with a device's memory; one process is one wake

  npm run simulator -- MODULE.js [--state DIR] [--heap BYTES|esp32] [--stack SLOTS] [--dtls-heap BYTES] [--debug]
                               [--engine wolfssl]

  MODULE.js          its default export is called once it is loaded. There are the modules "embedded:io/socket/udp",
                     "embedded:storage/key-value", "timer", "time" and "sleep" as the Moddable SDK has them, and trace
  --state DIR        the device's memory: retained.bin survives sleep, flash/ survives power-off; made where missing
  --heap BYTES       XS memory: slots, chunks and stack together (32768; 0: no limit)
  --heap esp32       the SDK's ESP32: 32,768 bytes of chunks, 2,048 slots and a stack of 384 slots, each by itself
  --stack SLOTS      how much of it the stack takes (384)
  --dtls-heap BYTES  memory of the DTLS engine (0: no limit)
  --debug            64-bit slots, no limit of memory, and stack traces with file and line for what nobody catches
  --engine wolfssl   with the DTLS engine over wolfSSL, which is under the GPL or a commercial licence

Exit status 0: asleep, or nothing left to wait for. 1: the program, or an argument, is wrong. 65: memory full.
66: stack overflow. 67: an exception that nobody handles. 68: a rejection. 69: anything else that XS gives up for.
A wake of the EST client is \`npx torpor … --host simulator\`.
`;

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "inherit" });
    child.on("error", reject);
    child.on("close", (status, signal) => {
      if (signal !== null) {
        say(`torpor: the simulator ended by ${signal}`);
      }
      resolve(status ?? 1);
    });
  });
}

await main(async () => {
  const given = process.argv.slice(2);
  const args = given.filter((arg, i) => !/^--(debug$|engine(=|$))/.test(arg) && given[i - 1] !== "--engine");
  if (args.length === 0 || args.includes("--help") || args.includes("-h")) {
    process.stdout.write(HELP);
    return args.length === 0 ? 1 : 0;
  }
  const debug = given.includes("--debug");
  const engine = engineOf();
  await setup({ debug, engine });
  const [module, ...options] = args;
  if (!existsSync(module)) {
    throw new SetupError(
      `there is no ${module}: expected the file of an ES module; npm run simulator -- --help tells more`,
    );
  }
  const { ownBuild, program, slotsNotice } = await import("../build/hosts/node/simulator.js");
  const notice = slotsNotice();
  if (notice !== undefined && !debug) {
    say(notice);
  }
  const modules = join(ROOT, "build", "hosts", "simulator", "modules");
  return run(program(ownBuild(debug)), [module, "--modules", modules, ...options]);
});
