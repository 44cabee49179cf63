/** Wakes over the engine over wolfSSL, as processes, against servers with each version: what is chosen, and what is said. */

import { strict as assert } from "node:assert";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import type { WakeLine } from "../../hosts/node/result.js";
import { needsDTLS13 } from "../support/engine.js";

interface Run {
  readonly status: number | null;
  readonly out: string;
  readonly error: string;
}

function run(program: string, args: readonly string[]): { child: ChildProcess; ended: Promise<Run> } {
  const env = { ...process.env, TORPOR_ENGINE: "" };
  const child = spawn(process.execPath, [join(checkout(), "build", program), ...args], { env });
  let out = "";
  let error = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    error += text;
  });
  const ended = new Promise<Run>((resolve) => child.on("close", (status) => resolve({ status, out, error })));
  return { child, ended };
}

describe("wakes over the engine over wolfSSL", () => {
  let folder: string;
  let operation: "crts" | "run" | "sren";
  const servers: { child: ChildProcess; ended: Promise<Run> }[] = [];

  before(needsDTLS13);

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "torpor-wolfssl-"));
    operation = "crts";
  });

  afterEach(async () => {
    for (const { child, ended } of servers.splice(0)) {
      child.kill("SIGTERM");
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  });

  /** A development server of its own process; its port. */
  async function serve(...args: string[]): Promise<string> {
    const started = run("tools/est-server/main.js", ["--out", join(folder, "est"), "--port", "0", ...args]);
    servers.push(started);
    return await new Promise((resolve, reject) => {
      let said = "";
      started.child.stdout!.on("data", (text: string) => {
        said += text;
        const uri = /listening on\s+(coaps:\S+)/.exec(said)?.[1];
        if (uri !== undefined) {
          resolve(uri);
        }
      });
      void started.ended.then(({ error }) => reject(new Error(error || said)));
    });
  }

  function wake(server: string, ...args: string[]): Promise<Run> {
    const est = join(folder, "est");
    const identity = ["--trust", join(est, "ca.pem"), "--cert", join(est, "factory.pem")];
    return run("hosts/node/torpor.js", [
      ...[operation, "--server", server, "--state", join(folder, "device"), "--json"],
      ...[...identity, "--key", join(est, "factory.key"), ...args],
    ]).ended;
  }

  async function done(server: string, ...args: string[]): Promise<WakeLine> {
    const { status, out, error } = await wake(server, ...args);
    assert.equal(status, 0, error);
    return JSON.parse(out) as WakeLine;
  }

  const WOLFSSL = ["--engine", "wolfssl"];

  for (const host of ["node", "simulator"]) {
    it(`comes back by a ticket, and each wake by the one that the last brought (${host})`, async () => {
      const server = await serve(...WOLFSSL);
      const first = await done(server, ...WOLFSSL, "--host", host);
      assert.equal(first.protocol, "DTLS 1.3");
      assert.equal(first.way, "full");
      for (let times = 0; times < 2; times++) {
        const next = await done(server, ...WOLFSSL, "--host", host);
        assert.equal(next.way, "ticket");
        assert.equal(next.protocol, "DTLS 1.3");
        assert.equal(next.cipherSuite, "TLS_AES_128_CCM_8_SHA256");
        assert.equal(next.handshake.roundTrips, 2);
        assert.equal(next.overhead, 14);
        assert.match(next.notes.join(), /saves no associations/);
      }
    });
  }

  it("proves possession by tls-exporter (RFC 9266), in a full handshake and in one resumed by a ticket", async () => {
    const server = await serve(...WOLFSSL, "--attributes", "proof-of-possession");
    operation = "run";
    const boot = await done(server, ...WOLFSSL);
    assert.deepEqual([boot.protocol, boot.way, boot.code], ["DTLS 1.3", "full", "2.04"]);
    operation = "crts";
    await done(server, ...WOLFSSL);
    operation = "sren";
    const renewed = await done(server, ...WOLFSSL);
    assert.deepEqual([renewed.protocol, renewed.way, renewed.code], ["DTLS 1.3", "ticket", "2.04"]);
  });

  it("offers a ticket once: the wake after one that was cut off makes a full handshake", async () => {
    const server = await serve(...WOLFSSL);
    await done(server, ...WOLFSSL);
    // Nobody is at this port now: the hello that showed the ticket is lost.
    const { child, ended } = servers.pop()!;
    child.kill("SIGTERM");
    await ended;
    assert.equal((await wake(server, ...WOLFSSL, "--patience", "1")).status, 1);
    await serve(...WOLFSSL, "--port", new URL(server.replace("coaps", "http")).port);
    assert.equal((await done(server, ...WOLFSSL)).way, "full");
  });

  it("takes a full handshake where the server has forgotten the tickets, and goes on by the new one", async () => {
    const server = await serve(...WOLFSSL);
    await done(server, ...WOLFSSL);
    const { child, ended } = servers.pop()!;
    child.kill("SIGTERM");
    await ended;
    await serve(...WOLFSSL, "--port", new URL(server.replace("coaps", "http")).port);
    const again = await done(server, ...WOLFSSL);
    assert.equal(again.way, "full");
    assert.match(again.notes.join(), /did not resume by ticket/);
    assert.equal((await done(server, ...WOLFSSL)).way, "ticket");
  });

  it("chooses 1.3 where the server has both, 1.2 where it has only that, and resumes both", async () => {
    const old = await serve();
    const full = await done(old, ...WOLFSSL);
    assert.equal(full.protocol, "DTLS 1.2");
    assert.equal(full.handshake.roundTrips, 3);
    assert.equal((await done(old, ...WOLFSSL)).way, "session");
  });

  it("speaks 1.2 with a server that has both, where the device has the engine over mbedTLS", async () => {
    const server = await serve(...WOLFSSL);
    const { protocol } = await done(server);
    assert.equal(protocol, "DTLS 1.2");
  });

  it("says that a server speaks only 1.3, where the device has the engine over mbedTLS", async () => {
    const server = await serve(...WOLFSSL, "--dtls", "1.3");
    const { status, error } = await wake(server, "--patience", "2");
    assert.equal(status, 1);
    assert.match(error, /DTLS 1\.3 needs the engine over wolfSSL/);
    assert.equal(error.trim().split("\n").length, 1);
  });

  for (const group of ["X25519MLKEM768", "SecP256r1MLKEM768"]) {
    it(`exchanges keys by ${group}, and says what that costs`, async () => {
      const server = await serve(...WOLFSSL);
      const line = await done(server, ...WOLFSSL, "--groups", `${group},secp256r1`, "--host", "simulator");
      assert.equal(line.group, group);
      assert.ok(line.handshake.bytesOut > 2000, `${line.handshake.bytesOut} bytes`);
      assert.ok(line.heap.dtlsPeak > 0);
    });
  }

  it("goes on by another group where the server does not know the hybrid one", async () => {
    const server = await serve();
    const line = await done(server, ...WOLFSSL, "--groups", "X25519MLKEM768,secp256r1");
    assert.equal(line.protocol, "DTLS 1.2");
  });

  it("has wolfSSL in the simulator's debug build too: it speaks 1.3, and shows where it failed", async () => {
    const server = await serve(...WOLFSSL);
    const debug = [...WOLFSSL, "--host", "simulator", "--debug"];
    const line = await done(server, ...debug);
    assert.deepEqual([line.protocol, line.cipherSuite], ["DTLS 1.3", "TLS_AES_128_CCM_8_SHA256"]);
    operation = "sren";
    const { status, error } = await wake(server, ...debug);
    assert.equal(status, 1);
    assert.match(error, /no identity[\s\S]* at [^\n]*wake\.js:\d+\)/);
  });

  it("tells which library runs DTLS, and what it lacks", async () => {
    const version = async (...args: string[]): Promise<string> =>
      (await run("hosts/node/torpor.js", ["--version", ...args]).ended).out;
    assert.match(await version(), /DTLS: mbedTLS [\d.]+, without DTLS 1\.3; keys and certificates: mbedTLS/);
    assert.match(await version(...WOLFSSL), /DTLS: wolfSSL [\d.]+(, without ML-KEM)?; keys and certificates: mbedTLS/);
  });

  it("refuses an engine and groups that there are not, in one line", async () => {
    const server = "coaps://127.0.0.1:1";
    await run("tools/est-server/main.js", ["--help"]).ended;
    const { status, error } = await run("hosts/node/torpor.js", ["crts", "--server", server, "--engine", "openssl"])
      .ended;
    assert.notEqual(status, 0);
    assert.match(error, /openssl/);
  });
});
