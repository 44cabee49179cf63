/**
 * A server whose CoAP responses deviate: with each code there is, as messages, in their options, and at each block of a
 * request and of a response. Whole wakes over real DTLS engines in virtual time: each ends within bounds, with a typed
 * error or with what it was for; key, certificate, trust anchors and session stay what they were, and the next wake with
 * the server, honest again, succeeds.
 */

import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { buildFingerprint } from "../../src/dtls/engine.js";
import type { ESTOperation } from "../../src/enrollment/wake.js";
import { TorporError } from "../../src/errors.js";
import { SessionTable } from "../../src/session/table.js";
import { MESSAGE_WAYS } from "../../tools/est-server/message-deviation.js";
import { newFolder } from "../support/command.js";
import { SERVER } from "../support/joined.js";
import { JoinedEST } from "../support/joined-est.js";

/** Milliseconds: CoAP gives up after 93 s, and 60 s after an acknowledgement; once more over an association made anew. */
const BOUND = 4000 + 2 * (93_000 + 60_000);
/** Block by block with the least size that a server can wish: 16 bytes of a request, or a response. */
const DATAGRAMS_MAX = 300;

/** What succeeds each time: the protocol takes care of it, or it says nothing that a client has to look at. */
const HARMLESS: ReadonlySet<string> = new Set([
  "double",
  "separate",
  "separate-first",
  "non-confirmable",
  "garbage",
  "ping",
  "request",
  "option-elective",
  "option-observe",
  "max-age-huge",
  "max-age-long",
]);
/** What must not succeed, wherever it is done. */
const REFUSED: ReadonlySet<string> = new Set([
  "silence",
  "reset",
  "empty-ack",
  "code-empty",
  "type-reset",
  "message-id",
  "token-other",
  "token-none",
  "token-8",
  "token-length",
  "version",
  "cut-header",
  "cut-token",
  "cut-option",
  "payload-marker",
  "option-delta",
  "option-length",
  "option-overflow",
  "empty-datagram",
  "option-critical",
  "option-path",
  "busy-huge",
  "too-large",
]);
/** As long as only one response is affected, a retransmission of the request brings the honest one. */
const REPAIRED: ReadonlySet<string> = new Set([
  ...HARMLESS,
  "silence",
  "code-empty",
  "type-reset",
  "message-id",
  "token-other",
  "token-none",
  "token-8",
  "token-length",
  "version",
  "cut-header",
  "cut-token",
  "cut-option",
  "payload-marker",
  "option-delta",
  "option-length",
  "empty-datagram",
]);

const CODES = Array.from({ length: 256 }, (_, code) => `${code >> 5}.${String(code & 31).padStart(2, "0")}`);
const NAMES = MESSAGE_WAYS.map(([name]) => name);
/** What answers a block of a request, beside all that can be wrong with any response. */
const BLOCK_CODES = [
  "0.00",
  "0.01",
  "2.01",
  "2.04",
  "2.05",
  "2.31",
  "4.00",
  "4.01",
  "4.04",
  "4.08",
  "4.13",
  "5.00",
  "5.03",
  "7.31",
];

describe("a device and a server whose responses deviate", () => {
  let joined: JoinedEST;
  let keys: string;

  before(async () => {
    keys = join(newFolder(), "keys");
    joined = await JoinedEST.start(keys);
    const { error } = await joined.wake("run");
    assert.equal(error, undefined);
  });
  after(() => joined.free());

  const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

  /** All that must stay: who the device is, whom it trusts, and its keys. What is due and how servers resume may change. */
  function possessions(): unknown {
    const stored = ["identity", "trust"].map((name) => [name, hash(joined.values.get(name)!)]);
    return { stored, keys: readdirSync(keys).sort() };
  }

  const session = () => {
    const clock = joined.network.clock;
    const table = new SessionTable(joined.retained, {
      clock,
      fingerprint: buildFingerprint(),
      slots: 2,
      slotBytes: 512,
    });
    return table.get(SERVER);
  };

  /** One deviation, then an honest server; whether the wake succeeded. */
  async function attempt(operation: ESTOperation, script: string): Promise<"failed" | "done"> {
    if (session() === undefined) {
      await joined.wake("att");
    }
    const before = possessions();
    const kind = session()?.kind;
    const from = joined.network.trace.length;
    const { error, took, count } = await joined.wake(operation, { script, blockSize: operation === "sren" ? 64 : 128 });
    assert.ok(count > 0, `${script}: did not take place`);
    assert.ok(took <= BOUND, `${script}: took ${took} ms`);
    const sent = joined.network.trace.slice(from).filter(({ direction }) => direction === "out").length;
    assert.ok(sent <= DATAGRAMS_MAX, `${script}: ${sent} datagrams`);
    if (error !== undefined) {
      assert.ok(error instanceof TorporError, `${script}: ${error.stack}`);
      assert.match(error.message, /^\S[^\n]{20,}/, script);
      // A request that may be made again keeps its key beside those that are in use.
      const { stored, keys: left } = possessions() as { stored: unknown; keys: string[] };
      const was = before as { stored: unknown; keys: string[] };
      assert.deepEqual(stored, was.stored, `${script}: after ${error.message}`);
      assert.ok(
        was.keys.every((key) => left.includes(key)) && left.length <= was.keys.length + 1,
        `${script}: ${left}`,
      );
      assert.ok(
        kind === undefined || session()?.kind === kind,
        `${script}: the session is lost after ${error.message}`,
      );
    }
    const again = await joined.wake(operation);
    assert.ok(again.report !== undefined, `${script}: and then with an honest server: ${again.error?.message}`);
    assert.notEqual(error !== undefined && kind !== undefined && again.report?.association.way, "full", script);
    return error === undefined ? "done" : "failed";
  }

  /** Every script, and what fails of them in one message. */
  async function table(
    operation: ESTOperation,
    scripts: readonly string[],
    expected: (how: string, isOnce: boolean) => "failed" | "done" | undefined,
  ): Promise<void> {
    const failures: string[] = [];
    for (const script of scripts) {
      const isOnce = script.endsWith(":once");
      const how = script
        .replace(/:once$/, "")
        .split(":")
        .at(-1)!;
      try {
        const result = await attempt(operation, script);
        assert.equal(result, expected(how, isOnce) ?? result, script);
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    assert.equal(failures.length, 0, failures.join("\n"));
  }

  const byName = (how: string, isOnce: boolean): "failed" | "done" | undefined => {
    if (isOnce) {
      return REPAIRED.has(how) ? "done" : undefined;
    }
    return HARMLESS.has(how) ? "done" : REFUSED.has(how) ? "failed" : undefined;
  };

  it("takes each code there is for CSR attributes, and only a success for an answer, or 4.04 for none", async function () {
    this.timeout(0);
    const scripts = CODES.map((code) => `code:${code}`);
    await table("att", scripts, (how) => (["2.01", "2.04", "2.05", "4.04"].includes(how) ? "done" : "failed"));
  });

  it("takes each code there is for a certificate, and only a success for an answer", async function () {
    this.timeout(0);
    const scripts = CODES.filter((code) => /\.0[0-5]$/.test(code)).map((code) => `code:${code}`);
    await table("sren", scripts, (how) => (["2.01", "2.04", "2.05"].includes(how) ? "done" : "failed"));
  });

  for (const times of ["", ":once"]) {
    const when = times === "" ? "each time" : "once";
    it(`takes whatever is wrong with a response as a message or in its options, ${when}`, async function () {
      this.timeout(0);
      await table(
        "crts",
        NAMES.map((name) => `message:${name}${times}`),
        byName,
      );
    });

    for (const number of [0, 1, 6]) {
      it(`takes whatever is wrong with block ${number} of a response, ${when}`, async function () {
        this.timeout(0);
        const hows = [...NAMES, ...BLOCK_CODES.filter((code) => code !== "2.05")];
        await table(
          "crts",
          hows.map((how) => `block2:${number}:${how}${times}`),
          byName,
        );
      });
    }

    for (const number of times === "" ? [0, 2] : [1]) {
      it(`takes whatever is wrong with the response to block ${number} of a request, ${when}`, async function () {
        this.timeout(0);
        const hows = [...NAMES, ...BLOCK_CODES];
        await table(
          "sren",
          hows.map((how) => `block1:${number}:${how}${times}`),
          byName,
        );
      });
    }
  }
});
