/** The comparison of npm run bench:memory with its recorded limits. */

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { excesses, limitNames, limitsFile } from "../../tools/bench/memory.js";

const limits = { "crts session, 512": { xsPeak: 20000, dtlsPeak: 11000, xsSteady: 12000, dtlsSteady: 7500 } };
const good = { name: "crts session, 512", xsPeak: 20000, dtlsPeak: 10999, xsSteady: 12000, dtlsSteady: 1 };

describe("the bench of memory", () => {
  it("has a limit recorded for each wake by either protocol, and no other", () => {
    const recorded = Object.keys(JSON.parse(readFileSync(limitsFile(), "utf8")) as object);
    assert.deepEqual(recorded, limitNames());
    for (const name of ["crts full", "crts ticket", "run full"].map((wake) => `${wake}, 512`)) {
      assert.ok(recorded.includes(name) && recorded.includes(`${name}, DTLS 1.3`), name);
    }
  });

  it("accepts what is not above its limit", () => {
    assert.deepEqual(excesses([good], limits), []);
  });

  it("names each figure that exceeds its limit, and what has none", () => {
    assert.deepEqual(
      excesses(
        [
          { ...good, xsPeak: 20001, dtlsSteady: 7501 },
          { ...good, name: "skg full, 512" },
        ],
        limits,
      ),
      [
        "crts session, 512: xsPeak is 20001 bytes, its limit 20000",
        "crts session, 512: dtlsSteady is 7501 bytes, its limit 7500",
        "skg full, 512: no limit is recorded",
      ],
    );
  });
});
