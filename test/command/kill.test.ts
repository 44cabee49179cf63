/**
 * A device whose process is killed at every step of a wake: before and behind each datagram and each part of a write to
 * storage. Then it wakes again, against the same server, and a relay tells whether a nonce, or a ticket of DTLS 1.3, was used
 * twice.
 */

import { strict as assert } from "node:assert";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { chance } from "../../tools/chance.js";
import { run, wakeLine } from "../support/command.js";
import { ENGINE } from "../support/engine.js";
import type { KillableDevice, Step } from "../support/kill.js";
import { COMES_BACK, KINDS, type Kind, Survival } from "../support/survival.js";

const comesBack = ({ name }: Pick<Kind, "name">): boolean => name === `a wake by ${COMES_BACK}`;

/** Which kinds of wakes `npm test` goes through; `npm run test:long` takes all of them, at random. */
const TRIED: readonly Kind[] = KINDS.filter(
  ({ name, keep, doing }) =>
    (keep === "retained" && doing.resume !== "none") ||
    (keep === "flash" && doing.resume === undefined && doing.operation !== "run") ||
    (keep === "flash" && doing.resume === "session") ||
    (keep === "sealed" && comesBack({ name })),
);

/** How many random kills; test:long has 2,000. */
const KILLS = Number(process.env.TORPOR_KILLS ?? 24);

describe("a device that is killed in the middle of a wake", () => {
  let survival: Survival;
  const points = new Set<string>();

  before(async () => {
    survival = await Survival.start();
  });
  after(() => survival.close());

  for (const kind of TRIED) {
    it(`works on, kept in ${kind.keep} memory: ${kind.name}, killed at each of its steps`, async function () {
      this.timeout(600_000);
      let { device, doing } = await survival.prepare(kind);
      const steps = await device.steps(doing);
      await survival.recover(kind, device, "no step");
      let killed = 0;
      for (const step of steps) {
        if (kind.isFirst) {
          ({ device, doing } = await survival.prepare(kind));
        }
        const where = await device.killAt(step, doing);
        if (where !== undefined) {
          killed++;
          points.add(`${kind.keep} ${kind.name} ${step.call} ${step.count}`);
        }
        await survival.recover(kind, device, where ?? "no step");
      }
      // How often the device has to look for a datagram is a matter of time: a few steps may not come.
      assert.ok(killed >= steps.length * 0.8, `killed at ${killed} of ${steps.length} steps`);
    });
  }

  it("was killed at 200 different steps or more, and came back by each way", () => {
    assert.ok(points.size >= 200, `${points.size}`);
    for (const way of ENGINE === "wolfssl" ? ["ticket", "full"] : ["context", "session", "ticket", "full"]) {
      assert.ok(survival.ways[way]! > 0, JSON.stringify(survival.ways));
    }
    assert.ok(ENGINE === "wolfssl" ? survival.audit.tickets > 200 : survival.audit.records > 1000);
  });

  it(`works on, killed at random: ${KILLS} times, half of them at any moment between two steps`, async function () {
    this.timeout(60_000 + KILLS * 10_000);
    const seed = Number(process.env.TORPOR_SEED ?? Date.now() % 1e6);
    const random = chance(seed);
    const known = new Map<Kind, Awaited<ReturnType<Survival["prepare"]>> & { steps: Step[]; seconds: number }>();
    let killed = 0;
    // Some wakes end before their time, or without the step, has come: they are tried again.
    for (let tries = 1; killed < KILLS && tries <= 20 * KILLS; tries++) {
      const kind = KINDS[Math.floor(random() * KINDS.length)]!;
      let device = known.get(kind);
      if (device === undefined) {
        const prepared = await survival.prepare(kind);
        const steps = await prepared.device.steps(kind.doing);
        await survival.recover(kind, prepared.device, "no step");
        device = { ...prepared, steps, seconds: 0.06 };
        known.set(kind, device);
      }
      if (kind.isFirst) {
        device = { ...device, ...(await survival.prepare(kind)) };
      }
      const byTime = random() < 0.5;
      const step = device.steps[Math.floor(random() * device.steps.length)]!;
      const seconds = random() * device.seconds;
      let where = `${step.call} ${step.count}`;
      if (byTime) {
        where = `${seconds.toFixed(6)} s`;
        const isKilled = await device.device.killAfter(seconds, kind.doing);
        killed += isKilled ? 1 : 0;
        // The end of a wake is where most happens: it is found by how long wakes last here and now.
        known.get(kind)!.seconds = Math.min(
          2,
          isKilled ? device.seconds * 1.02 : Math.max(0.01, device.seconds * 0.95),
        );
      } else if ((await device.device.killAt(step, kind.doing)) !== undefined) {
        killed++;
      }
      await survival.recover(kind, device.device, `${where} of ${kind.name}, ${kind.keep}; try ${tries}, seed ${seed}`);
    }
    assert.equal(killed, KILLS);
  });

  it(`works on in Node.js, killed at random: ${Math.ceil(KILLS / 8)} times, at any moment`, async function () {
    this.timeout(60_000 + KILLS * 10_000);
    const random = chance(Date.now());
    const program = join(checkout(), "build", "hosts", "node", "torpor.js");
    const devices: { device: KillableDevice; keep: string }[] = [];
    for (const kind of KINDS.filter(comesBack)) {
      devices.push({ ...(await survival.prepare(kind)), keep: kind.keep });
    }
    let seconds = 0.5;
    let killed = 0;
    const wanted = Math.ceil(KILLS / 8);
    for (let tries = 0; killed < wanted && tries < 20 * wanted; tries++) {
      const { device, keep } = devices[tries % devices.length]!;
      const args = ["--server", `coaps://127.0.0.1:${survival.relay.port}`, "--state", device.state];
      args.push("--keep", keep, "--context-patience", "0.4");
      const operation = random() < 0.3 ? "sren" : "crts";
      const after = (random() * seconds).toFixed(6);
      const command = ["-s", "KILL", after, process.execPath, program, operation, ...args];
      survival.rest();
      const { status, stderr } = await run("timeout", command);
      assert.ok(status === 0 || status === null || status === 137, stderr);
      killed += status === 0 ? 0 : 1;
      seconds = Math.min(3, status === 0 ? Math.max(0.1, seconds * 0.95) : seconds * 1.02);
      const where = `${after} s of ${operation}, ${keep}`;
      survival.rest();
      assert.equal((await wakeLine("att", ...args)).code, "2.05", where);
      survival.checkStorage(device);
      assert.deepEqual(survival.audit.violations.splice(0), [], where);
      assert.equal(survival.server.stats.stale, 0, where);
    }
    assert.equal(killed, wanted);
  });
});
