/**
 * Many wakes on one state folder, by all ways: nothing grows, none fails. 40 of them with `npm test`, 1,000 with
 * `npm run test:long`.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { newFolder, wakeLine } from "../support/command.js";

const WAKES = Number(process.env.TORPOR_WAKES ?? 40);

/** In turn, one after the other; what comes of each is up to what the table then holds. */
const TURN: readonly (readonly string[])[] = [
  ["crts"],
  ["crts"],
  ["att"],
  ["att", "--resume", "context"],
  ["crts", "--resume", "ticket"],
  ["att", "--resume", "ticket"],
  ["crts", "--resume", "none"],
  ["run"],
  ["crts", "--resume", "session"],
  ["att", "--resume", "session"],
  ["sren"],
];

/** Bytes that a certificate may have more than another one: two signatures and a serial number in DER. */
const VARIATION = 16;

/** The files of a device: how long each is. */
function filesOf(state: string): Map<string, number> {
  const files = new Map<string, number>();
  for (const name of readdirSync(state, { recursive: true, encoding: "utf8" })) {
    const status = statSync(join(state, name));
    if (status.isFile()) {
      // The two numbers of keys take turns.
      files.set(name.replace(/[0-9a-f]{16}$/, "key"), status.size);
    }
  }
  return files;
}

describe(`${WAKES} wakes in a row`, () => {
  const folder = newFolder();
  let server: EstServer;

  before(async () => {
    server = await startEstServer({ dir: folder });
  });
  after(() => server.close());

  it("on one state folder in the simulator, by all ways: none fails, and the folder does not grow", async function () {
    this.timeout(WAKES * 5000);
    const state = join(newFolder(), "device");
    const args = ["--server", `coaps://127.0.0.1:${server.port}`, "--trust", join(folder, "ca.pem"), "--state", state];
    args.push("--host", "simulator", "--slots", "2", "--slot-bytes", "1536");
    const factory = ["--cert", join(folder, "factory.pem"), "--key", join(folder, "factory.key")];
    await wakeLine("run", ...args, ...factory);
    const ways = new Map<string, number>();
    let first: Map<string, number> | undefined;
    for (let wake = 2; wake <= WAKES; wake++) {
      const [operation, ...more] = TURN[(wake - 2) % TURN.length]!;
      const line = await wakeLine(operation!, ...args, ...more);
      assert.equal(line.wake, wake);
      const way = `${operation} ${line.way}`;
      ways.set(way, (ways.get(way) ?? 0) + 1);
      if (wake === 1 + TURN.length) {
        first = filesOf(state);
      } else if (first !== undefined) {
        const files = filesOf(state);
        assert.deepEqual([...files.keys()].sort(), [...first.keys()].sort(), `after wake ${wake}`);
        for (const [name, size] of files) {
          assert.ok(size <= first.get(name)! + VARIATION, `${name} has ${size} bytes after wake ${wake}`);
        }
      }
    }
    for (const way of ["crts full", "crts context", "att context", "att session", "att ticket", "run null"]) {
      assert.ok((ways.get(way) ?? 0) > 0, `${way} in ${JSON.stringify([...ways])}`);
    }
    if (process.env.TORPOR_WAKES !== undefined) {
      const bytes = [...filesOf(state).values()].reduce((sum, size) => sum + size, 0);
      process.stderr.write(`${JSON.stringify({ ways: [...ways], files: [...filesOf(state)], bytes })}\n`);
    }
  });
});
