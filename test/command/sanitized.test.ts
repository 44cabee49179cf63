/** Whole wakes of the simulated device under AddressSanitizer, UndefinedBehaviorSanitizer and valgrind. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readPEM } from "../../hosts/node/pem.js";
import { type SimulatedWake, simulate } from "../../hosts/node/simulator.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { newFolder, VALGRIND } from "../support/command.js";

describe("the simulator's memory", () => {
  const folder = newFolder();
  const der = (name: string): Uint8Array =>
    readPEM(Uint8Array.from(readFileSync(join(folder, name))), "CERTIFICATE", "PRIVATE KEY")[0]!;
  let server: EstServer;

  before(async () => {
    server = await startEstServer({ dir: folder });
  });
  after(() => server.close());

  for (const [title, build] of [
    ["AddressSanitizer and UndefinedBehaviorSanitizer find nothing", { build: "sanitized" }],
    ["valgrind finds nothing, and nothing lost,", { build: "plain64", under: VALGRIND }],
  ] as [string, Pick<SimulatedWake, "build" | "under">][]) {
    it(`${title} in a first boot, a wake that resumes, and a renewal`, async function () {
      this.timeout(600_000);
      const state = join(newFolder(), "device");
      const ways: (string | undefined)[] = [];
      for (const operation of ["run", "crts", "crts", "sren"] as const) {
        const result = await simulate({
          options: {
            operation,
            host: "127.0.0.1",
            address: "127.0.0.1",
            port: server.port,
            geometry: { slots: 4, slotBytes: 512 },
            blockSize: 512,
            patience: 60000,
          },
          trust: [der("ca.pem")],
          certificates: [der("factory.pem")],
          key: der("factory.key"),
          state,
          ...build,
        });
        ways.push(result.association?.way);
      }
      assert.deepEqual(ways, ["full", "full", "context", "context"]);
    });
  }
});
