/** npm run bench, with one run: that it measures what it says, that its figures add up, and that it says what it could not. */

import { strict as assert } from "node:assert";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import type { BatteryFigures } from "../../tools/bench/battery.js";
import { beside, fraction, markdown } from "../../tools/bench/bench.js";
import type { BlocksFigures } from "../../tools/bench/blocks.js";
import type { LibcoapFigures } from "../../tools/bench/libcoap.js";
import type { LossFigures } from "../../tools/bench/loss.js";
import type { Machine } from "../../tools/bench/machine.js";
import type { SessionsFigures } from "../../tools/bench/sessions.js";
import type { StartFigures } from "../../tools/bench/start.js";
import { newFolder, run } from "../support/command.js";

interface Row {
  readonly server: string;
  readonly protocol: string;
  readonly way: string;
  readonly figures: Record<string, number> | null;
  readonly lack?: string;
}

interface All {
  readonly machine: Machine;
  readonly runs: number;
  readonly wake: Record<"association" | "simulator", Row[]> & { verify: number };
  readonly libcoap: LibcoapFigures;
  readonly start: StartFigures;
  readonly sessions: SessionsFigures;
  readonly blocks: BlocksFigures;
  readonly loss: LossFigures;
  readonly battery: BatteryFigures;
}

const NAMES = ["wake", "libcoap", "start", "sessions", "blocks", "loss", "battery"] as const;

/** Of the development server. */
const find = (rows: readonly Row[], way: string, protocol = "DTLS 1.2"): Row =>
  rows.find((row) => row.server === "development" && row.protocol === protocol && row.way === way) ??
  assert.fail(`${protocol} ${way} is missing`);

const bench = (...args: readonly string[]): ReturnType<typeof run> => {
  const program = join(checkout(), "build", "tools", "bench", "main.js");
  const script = `import("${program}").then((b) => b.main(${JSON.stringify(args)})).then((s) => { process.exitCode = s; })`;
  return run(process.execPath, ["-e", script]);
};

describe("the tables of the benchmarks", () => {
  it("tell a part of the full handshake as a fraction, and what is more as a multiple", () => {
    assert.deepEqual(
      [1, 3, 9.8, 10, 10.4, 16, 25].map((part) => fraction(part, 10)),
      ["1/10.0", "1/3.3", "1/1.0", "1/1.0", "1/1.0", "1.6×", "2.5×"],
    );
    assert.equal(fraction(1, 20), "1/20");
  });

  it("have the columns of one engine beside those of the other, and the first of each says whose they are", () => {
    const head = ["", ...beside(["A", "B"], ["flash", "RAM"])];
    assert.equal(
      markdown({ title: "Size", parts: [{ head, rows: [["all", 1, 2, 3, 4]] }] }),
      "## Size\n\n|     | A: flash | RAM | B: flash | RAM |\n|-----|---------:|----:|---------:|----:|\n| all |        1 |   2 |        3 |   4 |",
    );
  });
});

describe("the benchmarks", function () {
  this.timeout(0);
  const out = newFolder();
  let all: All;

  before(async () => {
    const { status, stdout, stderr } = await bench(
      ...NAMES.flatMap((name) => ["--only", name]),
      ...["--runs", "1", "--json", "--out", out],
    );
    assert.equal(status, 0, stderr);
    all = JSON.parse(stdout) as All;
  });

  it("measures each way of each server against the full handshake, and names the ways that a server lacks", () => {
    const { association, simulator } = all.wake;
    for (const rows of [association, simulator]) {
      for (const { server, protocol, way, figures, lack } of rows) {
        const name = `${server}, ${protocol}, ${way}`;
        if (figures === null) {
          assert.match(lack!, /^no connection IDs|^built without ML-KEM/);
          continue;
        }
        assert.ok(figures.cpu! > 0, name);
        const cookie = server === "wolfSSL" && protocol === "DTLS 1.3"; // it asks for one where it resumes, too
        assert.equal(figures.roundTrips, way === "context" ? 0 : way.startsWith("full") || cookie ? 3 : 2, name);
        if (protocol === "DTLS 1.2") {
          assert.equal(figures.datagramsOut, way === "context" ? 0 : 3, name);
        }
        if (rows === simulator) {
          assert.ok(figures.dtlsPeak! > 0 && figures.instructions! > 1e6, name);
        }
      }
      const { bytesOut, bytesIn, datagramsIn, cpu } = find(rows, "context").figures!;
      assert.ok(cpu! < find(rows, "full").figures!.cpu!);
      assert.deepEqual([bytesOut, bytesIn, datagramsIn], [0, 0, 0]);
      assert.equal(rows.find(({ server, way }) => server === "OpenSSL" && way === "context")!.figures, null);
    }
    assert.equal(association.find(({ server, way }) => server === "GnuTLS" && way === "context")!.figures, null);
  });

  it("has the ways of DTLS 1.3 beside those of 1.2, and a ticket without a key exchange cheaper than with one", () => {
    const { association, simulator } = all.wake;
    const sum = ({ bytesOut, bytesIn }: Record<string, number>): number => bytesOut! + bytesIn!;
    for (const rows of [association, simulator]) {
      const [full, hybrid, ticket, alone] = ["full", "full, X25519MLKEM768", "ticket", "ticket, psk alone"].map(
        (way) => find(rows, way, "DTLS 1.3").figures!,
      );
      // The public key and the ciphertext of ML-KEM-768 (FIPS 203 table 3), but for what X25519 saves beside P-256.
      assert.ok(Math.abs(sum(hybrid!) - sum(full!) - (1184 + 1088)) < 200);
      assert.ok(sum(ticket!) < sum(full!) / 2);
      assert.equal(alone!.bytesOut, ticket!.bytesOut);
      // Extension, group, length and a point of P-256 in the server's key share.
      assert.equal(ticket!.bytesIn! - alone!.bytesIn!, 4 + 2 + 2 + 65);
    }
    const [ticket, alone] = ["ticket", "ticket, psk alone"].map((way) => find(simulator, way, "DTLS 1.3").figures!);
    assert.ok(alone!.instructions! < ticket!.instructions!);
    assert.deepEqual([ticket!.overhead, find(simulator, "ticket").figures!.overhead], [14, 29]);
    assert.ok(association.some(({ server, protocol }) => server === "wolfSSL" && protocol === "DTLS 1.3"));
  });

  it("has a wake by context take one datagram each way: the request of 29 bytes and 34 around it, and the answer", () => {
    const { figures } = find(all.wake.simulator, "context");
    const { requestOut, sent, answers } = figures!;
    assert.deepEqual([requestOut, sent, answers], [63, 1, 1]);
  });

  it("compares with libcoap's clients by the same suite, answers of the same size and no more bytes than theirs", () => {
    const { rows } = all.libcoap;
    const find = (client: RegExp, operation: string): LibcoapFigures["rows"][number]["figures"] =>
      rows.find((row) => client.test(row.client) && row.operation === operation)!.figures;
    const sum = ({ bytesOut, bytesIn }: { bytesOut: number; bytesIn: number }): number => bytesOut + bytesIn;
    for (const { client, suite } of rows) {
      assert.match(suite, client === "Torpor, context" ? /^as before$/ : /^ECDHE_ECDSA_WITH_AES_128_CCM_8$/, client);
    }
    for (const operation of ["crts", "sen"]) {
      const full = find(/^Torpor, full/, operation);
      for (const library of [/OpenSSL/, /GnuTLS/]) {
        const theirs = find(library, operation);
        assert.ok(sum(full) <= sum(theirs), `${operation}: ${sum(full)} bytes, ${library} ${sum(theirs)}`);
        assert.ok(
          Math.abs(theirs.body - full.body) <= 6,
          `${operation}: ${full.body} bytes, ${library} ${theirs.body}`,
        );
      }
    }
    const context = find(/^Torpor, context/, "crts");
    const { bytesOut, bytesIn, datagramsOut, datagramsIn, body } = context;
    assert.deepEqual([bytesOut, datagramsOut, datagramsIn], [63, 1, 1]);
    // CoAP header 4, token, Content-Format and payload marker; record 13 of header, 8 of nonce, 8 of tag.
    assert.ok(bytesIn - body > 29 && bytesIn - body < 60, `${bytesIn} bytes for a body of ${body}`);
  });

  it("counts each block as a round trip, and a block less where they are larger", () => {
    assert.deepEqual(
      all.blocks.map(({ block, crts }) => [block, crts.roundTrips, crts.datagrams]),
      [64, 128, 256, 512, 1024].map((block) => {
        const answers = Math.ceil(all.libcoap.rows[0]!.figures.body / block);
        return [block, answers, 2 * answers];
      }),
    );
    const boots = all.blocks.map(({ boot }) => boot.bytes);
    assert.deepEqual(
      boots,
      [...boots].sort((a, b) => b - a),
    );
  });

  it("loses nothing where nothing is lost, and sends more where something is", () => {
    for (const kind of new Set(all.loss.rows.map((row) => row.kind))) {
      const [none, ...others] = all.loss.rows.filter((row) => row.kind === kind).sort((a, b) => a.loss - b.loss);
      assert.deepEqual([none!.loss, none!.answered, none!.firstWay], [0, 1, 1], kind);
      assert.ok(others.length >= 4 && others.at(-1)!.loss === 0.3);
      assert.ok(others.reduce((sum, { bytes }) => sum + bytes, 0) > others.length * none!.bytes, kind);
    }
  });

  it("times the start and its parts, and the session table beside a Map", () => {
    const { engine, full, context } = all.start;
    for (const { datagram, wall, cpu, load, wake } of [full, context]) {
      assert.ok(0 < datagram && datagram < wall && load + wake < cpu, JSON.stringify(all.start));
    }
    assert.ok(engine.cpu < context.cpu && context.wake < full.wake);
    for (const { table, map } of [all.sessions.node, all.sessions.xs]) {
      assert.ok([table, map].every(({ insert, get, remove }) => insert > 0 && get > 0 && remove > 0));
    }
    assert.equal(all.sessions.tableBytes, 36 + 4 * (4 + 512));
    assert.ok(all.sessions.xs.table.bytes <= 512 && all.sessions.xs.map.bytes > all.sessions.xs.table.bytes);
  });

  it("has a battery last longer the less a wake takes, and longest without any", () => {
    const { rows } = all.battery;
    assert.deepEqual(
      rows.map(({ way }) => way),
      [
        ...["full", "full, for a ticket", "ticket", "session", "context"],
        ...["full", "full, X25519MLKEM768", "full, SecP256r1MLKEM768", "ticket", "ticket, psk alone"].map(
          (way) => `${way}, DTLS 1.3`,
        ),
        "Wi-Fi alone",
      ],
    );
    const [full, context, alone] = ["full", "context", "Wi-Fi alone"].map((name) =>
      rows.find(({ way }) => way === name),
    );
    for (const [column, days] of context!.days.entries()) {
      assert.ok(full!.days[column]! < days && days < alone!.days[column]!);
    }
    assert.deepEqual([full!.roundTrips, context!.roundTrips, alone!.charge - alone!.before], [4, 1, 0]);
  });

  it("writes all tables with the machine named, and the picture beside them", () => {
    assert.deepEqual(readdirSync(out).sort(), ["bench.md", "wake.svg"]);
    const text = readFileSync(join(out, "bench.md"), "utf8");
    assert.ok(text.includes(all.machine.cpu) && text.includes(process.version), text.slice(0, 600));
    assert.match(text, /\d{4}-\d\d-\d\d, commit ([0-9a-f]{7,}|unknown)/);
    assert.equal(text.match(/^## /gm)!.length, NAMES.length);
    const cells = text.split("\n").filter((line) => line.startsWith("|") && !line.includes("ms, simulator"));
    assert.ok(
      cells.every((line) => !/NaN|undefined|null|Infinity/.test(line)),
      text,
    );
    const { figures } = find(all.wake.simulator, "full");
    const digits = String(figures!.bytesIn).replace(/\B(?=(\d{3})+$)/g, ",");
    assert.ok(readFileSync(join(out, "wake.svg"), "utf8").includes(`${digits} bytes`));
  });

  it("refuses a number of runs that is none", async () => {
    const { status, stderr } = await bench("--runs", "0");
    assert.notEqual(status, 0);
    assert.match(stderr, /--runs takes a whole number from 1 to 1000/);
  });

  it("refuses a benchmark that it does not have, and names those that it has", async () => {
    const { status, stderr } = await bench("--only", "speed");
    assert.notEqual(status, 0);
    assert.match(stderr, /--only takes one of wake, libcoap, start, .*, not "speed"/);
    const { stdout } = await bench("--help");
    assert.ok(NAMES.every((name) => stdout.includes(`  ${name} `)));
  });
});
