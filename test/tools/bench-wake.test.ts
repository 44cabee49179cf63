/** npm run bench -- --only wake, with one run: that it measures what it says, and says what it could not. */

import { strict as assert } from "node:assert";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { run } from "../support/command.js";

interface Row {
  readonly server: string;
  readonly way: string;
  readonly figures: Record<string, number> | null;
  readonly lack?: string;
}

describe("the benchmark of the ways back", function () {
  this.timeout(120_000);

  const bench = (...args: readonly string[]): ReturnType<typeof run> => {
    const program = join(checkout(), "build", "tools", "bench", "main.js");
    return run(process.execPath, ["-e", `import("${program}").then((b) => b.main(${JSON.stringify(args)}))`]);
  };

  it("measures each way of each server against the full handshake, and names the ways that a server lacks", async () => {
    const { status, stdout, stderr } = await bench("--only", "wake", "--runs", "1", "--json");
    assert.equal(status, 0, stderr);
    const { association, simulator } = (JSON.parse(stdout) as { wake: Record<"association" | "simulator", Row[]> })
      .wake;
    for (const rows of [association, simulator]) {
      const find = (server: string, way: string): Row =>
        rows.find((row) => row.server === server && row.way === way) ?? assert.fail(`${server} ${way} is missing`);
      for (const { server, way, figures, lack } of rows) {
        if (figures === null) {
          assert.match(lack!, /^no connection IDs|^built without tickets/);
          continue;
        }
        assert.ok(figures.cpu! > 0, `${server} ${way}`);
        assert.equal(figures.roundTrips, { full: 3, ticket: 2, session: 2, context: 0 }[way]);
        assert.equal(figures.datagramsOut, way === "context" ? 0 : 3);
        if (rows === simulator) {
          assert.ok(figures.xsPeak! > 0 && figures.dtlsPeak! > 0);
        }
      }
      const { bytesOut, bytesIn, datagramsIn, cpu } = find("development", "context").figures!;
      assert.ok(cpu! < find("development", "full").figures!.cpu!);
      assert.deepEqual([bytesOut, bytesIn, datagramsIn], [0, 0, 0]);
      assert.equal(find("OpenSSL", "context").figures, null);
    }
    assert.equal(association.find(({ server, way }) => server === "GnuTLS" && way === "context")!.figures, null);
  });

  it("refuses a number of runs that is none", async () => {
    const { status, stderr } = await bench("--runs", "0");
    assert.notEqual(status, 0);
    assert.match(stderr, /--runs takes a whole number from 1 to 1000/);
  });
});
