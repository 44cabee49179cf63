/**
 * A server that does wrong, on demand: each thing is refused with a typed error that says which rule, nothing is stored,
 * and the old identity still works.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { clock, timer, UDP } from "../../hosts/node/io.js";
import { openKeys } from "../../hosts/node/native.js";
import { simulate, WakeError } from "../../hosts/node/simulator.js";
import { DeviceState } from "../../hosts/node/storage.js";
import { CoAPError } from "../../src/coap/error.js";
import { IdentityError } from "../../src/enrollment/identity.js";
import { type Operation, wake } from "../../src/enrollment/wake.js";
import { FormatError, LimitError, type TorporError } from "../../src/errors.js";
import { ServerKeyError } from "../../src/est/client.js";
import { parseCertificate } from "../../src/pki/certificate.js";
import { importKey } from "../../src/pki/key.js";
import { MISBEHAVIOURS, type Misbehaviour } from "../../tools/est-server/misbehave.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { newFolder } from "../support/command.js";
import { ENGINE } from "../support/engine.js";

interface Case {
  readonly what: Misbehaviour;
  readonly operations: readonly Operation[];
  readonly error: typeof TorporError;
  /** Which rule is broken. */
  readonly rule: RegExp;
  readonly maxBody?: number;
}

const ENROLMENTS: readonly Operation[] = ["sen", "sren"];
const SERVER_KEYS: readonly Operation[] = ["skg", "skc"];

const CASES: readonly Case[] = [
  { what: "foreign-key", operations: ENROLMENTS, error: IdentityError, rule: /no certificate for this device's key/ },
  {
    what: "wrong-subject",
    operations: ENROLMENTS,
    error: IdentityError,
    rule: /is for "CN=Torpor development issuing CA", not for ".*CN=torpor-dev" as requested/,
  },
  {
    what: "not-a-ca",
    operations: ["crts", ...ENROLMENTS, "run"],
    error: IdentityError,
    rule: /is no CA: basicConstraints .*RFC 5280 section 4\.2\.1\.9/,
  },
  { what: "other-ca", operations: ["run"], error: IdentityError, rule: /does not lead to .*RFC 9148 section 9\.1/ },
  {
    what: "many-certificates",
    operations: ["crts", ...ENROLMENTS],
    error: LimitError,
    rule: /at most 16 certificates/,
    maxBody: 262144,
  },
  {
    what: "many-certificates",
    operations: ["crts", ...ENROLMENTS],
    error: LimitError,
    rule: /response body of at most 3072 bytes/,
  },
  {
    what: "huge-body",
    operations: ["crts", ...ENROLMENTS, "run"],
    error: LimitError,
    rule: /response body of at most 3072 bytes, got one of 1048576/,
  },
  {
    what: "endless-blocks",
    operations: ["crts", ...ENROLMENTS],
    error: LimitError,
    rule: /response body of at most 3072/,
  },
  { what: "block-order", operations: ["crts", ...ENROLMENTS], error: CoAPError, rule: /expected Block2 with number 1/ },
  {
    what: "block-repeat",
    operations: ["crts", ...ENROLMENTS],
    error: CoAPError,
    rule: /expected Block2 with number 1/,
  },
  { what: "etag-change", operations: ["crts"], error: CoAPError, rule: /the same ETag as in the blocks before/ },
  { what: "csrattrs-bomb", operations: ["att"], error: LimitError, rule: /at most 64 OIDs/, maxBody: 65536 },
  { what: "csrattrs-bomb", operations: ["att"], error: LimitError, rule: /response body of at most 3072/ },
  { what: "multipart-nested", operations: SERVER_KEYS, error: FormatError, rule: /byte string or null .* got 0x84/ },
  { what: "multipart-length", operations: SERVER_KEYS, error: FormatError, rule: /wrong length/ },
  {
    what: "wrong-server-key",
    operations: SERVER_KEYS,
    error: IdentityError,
    rule: /private key that the server made does not belong to the certificate/,
  },
  { what: "wrapped-key", operations: SERVER_KEYS, error: ServerKeyError, rule: /wrapped in CMS \(280\).*section 4\.8/ },
];

describe("a device and a server that does wrong", () => {
  const folder = newFolder();
  let server: EstServer;
  let factory: number;
  let enrolled: string;

  before(async () => {
    server = await startEstServer({ dir: folder });
    factory = importKey(0, server.ca.factory.keyPkcs8);
    enrolled = join(newFolder(), "device");
    openKeys(new DeviceState(enrolled).keys);
    await operate("run", server.port);
  });
  after(() => server.close());

  /** One wake of the enrolled device; `fresh`: of one that has nothing yet. */
  function operate(operation: Operation, port: number, more: { maxBody?: number; state?: string } = {}) {
    const state = new DeviceState(more.state ?? enrolled);
    openKeys(state.keys);
    return wake(
      { UDP, timer, clock, store: state.open("torpor"), retain: (length) => state.retain(length) },
      {
        operation,
        address: "127.0.0.1",
        port,
        host: "127.0.0.1",
        trust: [server.ca.root],
        factory: { certificates: server.ca.factory.chain, key: factory },
        geometry: { slots: 4, slotBytes: 512 },
        blockSize: 1024,
        ...(more.maxBody === undefined ? {} : { maxBody: more.maxBody }),
      },
    );
  }

  function memoryOf(state: string): Record<string, string> {
    const memory: Record<string, string> = {};
    for (const file of readdirSync(join(state, "flash"), { recursive: true, encoding: "utf8" }).sort()) {
      const path = join(state, "flash", file);
      if (statSync(path).isFile() && !file.endsWith("resumption")) {
        memory[file] = createHash("sha256").update(readFileSync(path)).digest("hex");
      }
    }
    return memory;
  }

  it("is tested with all that the server can do wrong, save what is accepted", () => {
    const tested = new Set(CASES.map(({ what }) => what));
    const all = Object.keys(MISBEHAVIOURS) as Misbehaviour[];
    assert.deepEqual(
      all.filter((what) => !tested.has(what)),
      ["kipuka"],
    );
  });

  for (const { what, operations, error: kind, rule, maxBody } of CASES) {
    it(`refuses it where the server ${MISBEHAVIOURS[what]}${maxBody === undefined ? "" : `, up to ${maxBody} bytes`}`, async () => {
      const wrong = await startEstServer({ ca: server.ca, misbehave: what });
      try {
        for (const operation of operations) {
          // `run` has nothing due on an enrolled device: there it is a first boot.
          const state = operation === "run" ? newFolder() : enrolled;
          const before = operation === "run" ? {} : memoryOf(enrolled);
          const error = await operate(operation, wrong.port, { state, ...(maxBody && { maxBody }) }).then(
            () => assert.fail(`${operation}: accepted`),
            (reason: Error) => reason,
          );
          assert.ok(error instanceof kind, `${operation}: ${error.name}: ${error.message}`);
          assert.match(error.message, rule, operation);
          if (operation === "run") {
            assert.deepEqual(
              Object.keys(memoryOf(state)).filter((file) => !/life|csrattrs/.test(file)),
              [],
            );
          } else {
            assert.deepEqual(memoryOf(enrolled), before, operation);
          }
        }
      } finally {
        await wrong.close();
      }
      const { operations: done } = await operate("crts", server.port);
      assert.equal(done[0]?.code, "2.05", "the old identity still works");
    });
  }

  // One of each kind over UDP, in the simulator; test/dtls and test/enrollment go through all of them in virtual time.
  for (const [script, rule] of [
    ...(ENGINE === "wolfssl"
      ? ([
          ["handshake:HelloRetryRequest:cookie-wrong", /alert/],
          ["handshake:ServerHello:retry", /DTLS handshake failed/],
          ["handshake:ServerHello:share-short", /DTLS handshake failed/],
          ["handshake:CertificateVerify:signature-zero", /DTLS handshake failed/],
          ["handshake:Finished:fatal-sealed-40", /alert/],
          ["handshake:Certificate:drop:once", undefined],
        ] as const)
      : ([
          ["handshake:HelloVerifyRequest:cookie-wrong", /datagrams and no end: given up/],
          ["handshake:ServerKeyExchange:point-off-curve", /DTLS handshake failed/],
          ["handshake:ServerHelloDone:fatal-40", /alert/],
        ] as const)),
    ["handshake:ServerHello:suite-other", /DTLS handshake failed/],
    ["handshake:ServerHello:drop:once", undefined],
    ["handshake:Certificate:none", /DTLS|certificate/],
    ["handshake:ServerHello:fragments-reversed", undefined],
    ["block2:1:szx-7", /an SZX of 0 to 6, found 7/],
    ["block2:2:etag-other", /the same ETag/],
    ["message:option-critical", /critical option/],
    ["message:reset", /reset the exchange/],
    ["message:separate", undefined],
    ["code:5.31", /refused crts with 5\.31/],
  ] as const) {
    it(`in the simulator, over UDP, ${rule === undefined ? "succeeds" : "says in a sentence why it fails"} with ${script}`, async () => {
      const wrong = await startEstServer({ ca: server.ca, misbehave: script });
      const { chain, keyPkcs8 } = server.ca.factory;
      const device = (port: number) =>
        simulate({
          options: {
            ...{ operation: "crts", address: "127.0.0.1", port, host: "127.0.0.1", blockSize: 256 },
            ...{ geometry: { slots: 4, slotBytes: 512 }, handshakeTimer: 500, patience: 10_000 },
          },
          ...{ trust: [server.ca.root], certificates: chain, key: keyPkcs8, state },
        });
      const state = newFolder();
      try {
        const error = await device(wrong.port).then(
          () => undefined,
          (reason: Error) => reason,
        );
        assert.equal(error === undefined, rule === undefined, error?.message);
        if (error !== undefined) {
          assert.ok(error instanceof WakeError, error.message);
          assert.match(error.message, rule!);
        }
      } finally {
        await wrong.close();
      }
      assert.equal((await device(server.port)).operations[0]?.code, "2.05");
    });
  }

  it("takes another subject where it is told to", async () => {
    const wrong = await startEstServer({ ca: server.ca, misbehave: "wrong-subject" });
    const state = new DeviceState(newFolder());
    openKeys(state.keys);
    try {
      await wake(
        { UDP, timer, clock, store: state.open("torpor"), retain: (length) => state.retain(length) },
        {
          ...{ operation: "sen", address: "127.0.0.1", port: wrong.port, host: "127.0.0.1", trust: [server.ca.root] },
          factory: { certificates: server.ca.factory.chain, key: factory },
          geometry: { slots: 4, slotBytes: 512 },
          blockSize: 1024,
          subject: "any",
        },
      );
      const record = state.open("torpor").read("identity")!;
      const own = new Uint8Array(record).subarray(15, 15 + new DataView(record).getUint16(13));
      assert.deepEqual(parseCertificate(own).subject, parseCertificate(server.ca.issuing).subject);
    } finally {
      await wrong.close();
    }
  });
});
