/**
 * npm run bench -- --only start: how long a simulated device takes from the start of its process to its first datagram,
 * and how its processor time is spent. The datagram's time is that of its arrival at a relay.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { program } from "../../hosts/node/simulator.js";
import { newFolder } from "../../test/support/command.js";
import { Relay } from "../relay.js";
import { type Benchmark, type Context, medians, milliseconds } from "./bench.js";
import { factoryFiles, measured, now, SimulatedDevice } from "./process.js";
import { forkServer } from "./server.js";

/** Milliseconds; of processor time but for `datagram` and `wall`. */
interface Start {
  /** From the start of the process to the arrival of its first datagram. */
  readonly datagram: number;
  /** Until the process has ended. */
  readonly wall: number;
  /** Of the whole process. */
  readonly cpu: number;
  /** Of it, until the modules are loaded and the wake begins: what a device has in ROM. */
  readonly load: number;
  /** Of it, the wake. */
  readonly wake: number;
  /** Of it, all after it. */
  readonly rest: number;
}

export interface StartFigures {
  /** A program that does nothing but import the device's modules for I/O. */
  readonly engine: { readonly wall: number; readonly cpu: number };
  readonly full: Start;
  readonly context: Start;
}

/** The simulator with a program of one line. */
async function engine(): Promise<StartFigures["engine"]> {
  const folder = newFolder();
  const module = join(folder, "nothing.js");
  mkdirSync(join(folder, "state"));
  const io = join(checkout(), "build", "hosts", "simulator", "io.js");
  const end = 'native("xs_host_report").call(undefined, "", 0)';
  writeFileSync(module, `import "${io}";\nexport default () => ${end};\n`);
  const { cost } = await measured(async (under) => {
    const [command, ...args] = [...under, program("simulator"), module, "--state", join(folder, "state")];
    const child = spawn(command!, args, { stdio: ["ignore", "ignore", "inherit"] });
    const [status] = (await once(child, "close")) as [number | null];
    if (status !== 0) {
      throw new Error(`the simulator ended with status ${status} for a program that does nothing`);
    }
  });
  return { wall: cost.wall, cpu: cost.cpu };
}

async function measure({ runs, progress }: Context): Promise<StartFigures> {
  const dir = join(newFolder(), "est");
  const server = await forkServer({ kind: "development", dir });
  const relay = await Relay.to(server.port);
  let first: number | undefined;
  relay.pass = ({ direction }) => {
    if (direction === "out") {
      first ??= now();
    }
    return 1;
  };
  try {
    const wake = async (device: SimulatedDevice, way: "full" | "context"): Promise<Start> => {
      relay.rest();
      first = undefined;
      const { value, cost } = await device.wake("crts", { identity: "own" });
      if (value.association.way !== way || first === undefined) {
        throw new Error(`expected a wake by ${way}, got ${JSON.stringify(value.association)}`);
      }
      const { cpu, wall, begun } = cost;
      return {
        datagram: first - begun,
        wall,
        cpu,
        load: value.cpuBefore!,
        wake: value.cpu,
        rest: cpu - value.cpuBefore! - value.cpu,
      };
    };
    progress("a device enrols");
    const enrolled = new SimulatedDevice(relay.port, factoryFiles(dir));
    await enrolled.wake("run");
    const all = { engine: [] as StartFigures["engine"][], full: [] as Start[], context: [] as Start[] };
    for (let run = 0; run <= runs; run++) {
      progress(`run ${run} of ${runs}`);
      // With its new certificate a device comes by a full handshake, and by what that has left at the next wake.
      const device = enrolled.copy();
      const [nothing, full, context] = [await engine(), await wake(device, "full"), await wake(device, "context")];
      if (run > 0) {
        all.engine.push(nothing);
        all.full.push(full);
        all.context.push(context);
      }
    }
    return { engine: medians(all.engine), full: medians(all.full), context: medians(all.context) };
  } finally {
    relay.close();
    await server.stop();
  }
}

export const start: Benchmark<StartFigures> = {
  name: "start",
  about: "from the start of the simulator's process to its first datagram",
  measure,
  report: (figures) => ({
    title: "The simulator's start",
    parts: [
      "`crts` of an enrolled device, milliseconds. The first datagram is out when it arrives at a relay; processor time is that of " +
        "the process, its parts those of the device: until its wake begins, the wake, and the rest, from there to the end of the process.",
      {
        head: ["wake", "first datagram", "end of process", "CPU", "until the wake", "the wake", "rest"],
        rows: [
          ...(["full", "context"] as const).map((way) => {
            const { datagram, wall, cpu, load, wake, rest } = figures[way];
            return [way, ...[datagram, wall, cpu, load, wake, rest].map(milliseconds)];
          }),
          [
            "no wake: a program that imports the I/O modules",
            "",
            ...[figures.engine.wall, figures.engine.cpu].map(milliseconds),
            "",
            "",
            "",
          ],
        ],
      },
      `A full wake takes ${(figures.full.wake / figures.context.wake).toFixed(0)} times the processor time of one by context, ` +
        `and its process ${(figures.full.cpu / figures.context.cpu).toFixed(1)} times that of the other's.`,
    ],
  }),
};
