/** A short soak comes through; and the soak notices what it is there to notice: something is broken while it runs. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Device } from "../../tools/soak/device.js";
import { main } from "../../tools/soak/main.js";
import { reportText, type SoakOptions, type SoakReport, soak } from "../../tools/soak/soak.js";
import { newFolder } from "../support/command.js";

const SEED = 3;

const short = (seconds: number, more: Partial<SoakOptions> = {}): Promise<SoakReport> =>
  soak({ seconds, seed: SEED, devices: 4, loss: 0.2, host: "simulator", folder: newFolder(), ...more });

const sentences = ({ findings }: SoakReport): string => findings.map(({ sentence }) => sentence).join("\n");

describe("a soak", () => {
  it("loses nothing, uses no nonce twice and lets nothing grow, and says what happened", async function () {
    this.timeout(0);
    const report = await short(20);
    assert.deepEqual(report.findings, []);
    assert.ok(report.wakes >= 4 * 7, `${report.wakes}`);
    assert.ok(report.ways.context! > 0 && report.ways.full! > 0);
    assert.ok(report.enrolments.sen! >= 4 && report.enrolments.sren! >= 4);
    assert.ok(report.servers.killed + report.servers.restarts > 0);
    assert.ok(report.network.lost > 0 && report.audit.records > 100);
    const text = reportText(report);
    assert.match(text, /nothing lost, no nonce twice, no growth$/);
    assert.match(text, /retained\.bin +\d+ +\d+ +\d+\n/);
  });

  it("finds a nonce that is used twice: a device's memory is put back as it was before its last wake", async function () {
    this.timeout(0);
    // Slots and header together, which no software on the device can tell (README): the relay can. Every second wake
    // begins with what the one before it began with.
    const copies = new Map<Device, Buffer>();
    const found = new AbortController();
    const meddle = (device: Device, { audit }: SoakReport): void => {
      if (audit.violations > 0) {
        found.abort();
      }
      const path = join(device.state, "retained.bin");
      if (device.keep === "retained" && existsSync(path)) {
        const copy = copies.get(device);
        if (copy === undefined) {
          copies.set(device, readFileSync(path));
        } else {
          writeFileSync(path, copy);
          copies.delete(device);
        }
      }
    };
    const report = await short(120, { meddle, signal: found.signal, loss: 0 });
    assert.match(sentences(report), /association \d+, out: two different records with the nonce 0001[0-9a-f]{12}/);
    assert.ok(report.audit.violations > 0);
    assert.match(reportText(report), /FINDING: association .*\n +device-\d, wake \d+, .*operation/);
  });

  it("finds what grows: keys that nobody needs, a file that nobody knows, a slot more", async function () {
    this.timeout(0);
    const meddle = (device: Device): void => {
      switch (device.name) {
        case "device-0":
          copyFileSync(keyOf(device), join(device.state, "flash", "keys", "00000000000000aa"));
          copyFileSync(keyOf(device), join(device.state, "flash", "keys", "00000000000000ab"));
          break;
        case "device-1":
          writeFileSync(join(device.state, "flash", "torpor", "notes"), "");
          break;
        case "device-2":
          writeFileSync(join(device.state, "flash", "torpor", "session-9"), Buffer.alloc(500));
      }
    };
    const report = await short(6, { meddle });
    const found = sentences(report);
    assert.match(found, /keys that belong to nothing: flash\/keys\/00000000000000aa, flash\/keys\/00000000000000ab/);
    assert.match(found, /files that nobody knows: flash\/torpor\/notes/);
    assert.match(found, /growth: device-2 all files had \d+ bytes at the start and has \d+ at the end/);
  });

  it("finds a pair that is none: the key of a certificate is another one", async function () {
    this.timeout(0);
    const meddle = (device: Device): void => {
      if (device.name === "device-0") {
        const bytes = readFileSync(keyOf(device));
        bytes[bytes.length - 1]! ^= 1;
        writeFileSync(keyOf(device), bytes);
      }
    };
    const report = await short(6, { meddle });
    assert.match(sentences(report), /the key is not that of the certificate/);
  });

  it("says in one line what is wrong with its options", async () => {
    for (const [args, what] of [
      [["--minutes", "none"], /^--minutes takes a number from 0\.1 to 10080, not "none"$/],
      [["--devices", "2.5"], /^--devices takes a whole number, not "2\.5"$/],
      [["--host", "board"], /^--host takes simulator, sanitized, node, not "board"$/],
      [["--forever"], /^Unknown option '--forever'; --help lists the options$/],
    ] as const) {
      await assert.rejects(main(args), ({ message }: Error) => what.test(message));
    }
  });
});

/** The file of the key of a device's certificate. */
function keyOf(device: Device): string {
  const record = readFileSync(join(device.state, "flash", "torpor", "identity"));
  return join(device.state, "flash", "keys", record.readUInt32BE(8).toString(16).padStart(16, "0"));
}
