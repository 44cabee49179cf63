/** The glue of the C core in XS, and the simulator's own natives, called at random under the sanitizers. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { program } from "../../hosts/node/simulator.js";
import { again, fuzz } from "./fuzz.js";

/** Some 10 s under the sanitizers, the same calls every time; `npm run fuzz` does more, and others. */
const CALLS = 8000;
const SEED = 20261125;

describe("the natives of the simulator", () => {
  it(`end in a result or a JavaScript error whatever they are called with (${again({ seed: SEED, calls: CALLS })})`, async function () {
    this.timeout(600_000);
    const { status, stderr, line } = await fuzz({ seed: SEED, calls: CALLS, command: [program("sanitized")] });
    assert.ok(line !== undefined && status === 0, `${status} ${line?.failure ?? ""} ${stderr.slice(-4000)}`);
    assert.ok(line.calls >= CALLS && line.natives > 50, JSON.stringify(line));
    assert.ok(line.opened > 0, "no association with the server has opened");
  });
});
