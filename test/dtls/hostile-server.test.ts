/**
 * A server that deviates at each message of its handshake, in each way that there is (tools/est-server): in bounded time
 * the device has its answer or a typed error with a sentence, nothing is lost, and the next wake at an honest server
 * succeeds. The tables say what must come of a deviation whatever the DTLS library is; where they say nothing, a library
 * may pass over it or not.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { dtlsHeap } from "../../hosts/node/native.js";
import { AlertError, CertificateError, DTLSError } from "../../src/dtls/engine.js";
import type { Resume } from "../../src/dtls/socket.js";
import { TimeoutError } from "../../src/errors.js";
import {
  deviationsOf,
  handshakeDeviation,
  type Often,
  SERVER_MESSAGES,
  type ServerMessage,
} from "../../tools/est-server/deviate-handshake.js";
import { HostileWorld } from "../support/hostile.js";

/** Milliseconds: a handshake, and resuming before it within the same patience. */
const BOUND = 61_000;

/** Must be passed over (RFC 6347 sections 4.1.2.6 and 4.2.3): copies, fragments in any order, one message before another. */
const HARMLESS = ["doubled", "fragmented", "fragments-reversed", "fragments-overlapping"];

/** What is not part of the handshake (RFC 6347 section 4.1.2.7) or comes behind it: may be passed over, or end it. */
const BESIDE = /-before$|^another-after-it$|^swapped$/;

/** They are in the transcript, with a content: whatever is changed in it, the handshake may not succeed. */
const IN_TRANSCRIPT: readonly ServerMessage[] = [
  "ServerHello",
  "Certificate",
  "ServerKeyExchange",
  "CertificateRequest",
  "NewSessionTicket",
];

/** Of a message without content the most does nothing; these change it. */
const CHANGES_DONE =
  /^(dropped|lengthened|lengthened-much|flip-type|as-.*|sequence-.*|length-.*|fragment-16-million|header-cut|record-empty)$/;

/** Without these there is no handshake that is authentic. */
const CHANGES_END: Readonly<Partial<Record<ServerMessage, RegExp>>> = {
  ChangeCipherSpec: /^(dropped|value-2|empty|alert-fatal-instead|application-data-instead)$/,
  Finished: /^(dropped|in-the-clear|cut|empty|flip-(type|epoch|sequence|nonce|content|tag)|alert-fatal-instead)$/,
};

type Expected = "success" | "failure" | "either";

/** Of a handshake that is a full one from the beginning. */
function expected(message: ServerMessage, how: string, often: Often): Expected {
  if (HARMLESS.includes(how) || (often === "once" && how === "dropped")) {
    return "success";
  }
  if (how === "alert-fatal-before" && !["ChangeCipherSpec", "Finished"].includes(message)) {
    return "failure";
  }
  if (BESIDE.test(how) || often === "once") {
    return "either";
  }
  const fails =
    IN_TRANSCRIPT.includes(message) ||
    (message === "ServerHelloDone" && CHANGES_DONE.test(how)) ||
    (message === "HelloVerifyRequest" && how === "dropped") ||
    CHANGES_END[message]?.test(how);
  return fails ? "failure" : "either";
}

/** A sentence for people, and of a documented class. */
function assertTyped(error: Error, where: string): void {
  assert.ok(error instanceof DTLSError || error instanceof TimeoutError, `${where}: ${error.stack}`);
  assert.match(error.message, /^the (server|peer|DTLS handshake)[^\n]{20,}$/, where);
  assert.doesNotMatch(error.message, /undefined|NaN|\[object/, where);
  if (error instanceof CertificateError) {
    assert.doesNotMatch(error.message, /;.*;.*;.*;/, `${where}: reasons that exclude each other`);
  }
}

describe("a device and a server that deviates from the handshake", () => {
  let world: HostileWorld;
  before(async () => {
    world = await HostileWorld.start();
  });

  /** One deviation, then an honest server. */
  async function meet(message: ServerMessage, how: string, often: Often, resume: Resume): Promise<void> {
    const { network } = world;
    const where = `${message}, ${how}, ${often}, resume ${resume}`;
    const device = world.device();
    const before = { lasting: device.lasting, sessions: world.sessionsOf(device) };
    network.deviate = handshakeDeviation(message, how, often);
    const { error } = await world.wake(device, "crts", { resume }, BOUND).catch((reason: Error) => {
      throw new Error(`${where}: ${reason.message}`);
    });
    network.deviate = (datagram) => [datagram];

    // Resuming that fails ends in a full handshake, which does not meet a deviation that comes once.
    const isFull = before.sessions.length === 0;
    const wanted = isFull
      ? expected(message, how, often)
      : often === "once"
        ? "success"
        : expected(message, how, often);
    if (error === undefined) {
      assert.notEqual(wanted, "failure", `${where}: accepted`);
      assert.ok(resume !== "session" || world.sessionsOf(device).length > 0, `${where}: no session was kept`);
    } else {
      assertTyped(error, where);
      assert.notEqual(wanted, "success", `${where}: ${error.message}`);
      assert.deepEqual(world.sessionsOf(device), before.sessions, `${where}: sessions`);
    }
    assert.deepEqual(device.lasting, before.lasting, `${where}: identity and trust`);
    assert.ok(world.identityOf(device) !== undefined, where);
    assert.equal(network.open.size, 0, `${where}: sockets`);

    network.forget();
    const next = await world.wake(device, "crts", { resume }, BOUND);
    assert.equal(next.error, undefined, `${where}, then an honest server`);
    if (error !== undefined && before.sessions.length > 0 && resume !== "none") {
      assert.equal(next.report?.association.way, resume, `${where}: ${next.report?.association.notes}`);
    }
    network.forget();
  }

  for (const message of SERVER_MESSAGES) {
    const resume = message === "NewSessionTicket" ? "ticket" : "none";
    for (const often of ["always", "once"] as const) {
      it(`stands every deviation at ${message}, ${often}: a full handshake`, async function () {
        this.timeout(0);
        for (const how of deviationsOf(message)) {
          await meet(message, how, often, resume);
        }
      });
    }
  }

  for (const resume of ["session", "ticket"] as const) {
    describe(`with a session to resume by ${resume}`, () => {
      /** A new session for all devices. The cache of a server that has met many has no room for it: a new server. */
      async function prepare(): Promise<void> {
        world.serve({ sessionIds: resume === "session", tickets: resume === "ticket" });
        const device = world.device();
        assert.equal((await world.wake(device, "crts", { resume })).error, undefined);
        world.keep(device);
        assert.equal(world.sessionsOf(device).length, 1);
        world.network.forget();
      }

      for (const message of ["HelloVerifyRequest", "ServerHello", "ChangeCipherSpec", "Finished"] as const) {
        for (const often of ["always", "once"] as const) {
          it(`stands every deviation at ${message}, ${often}, and keeps the session until it has another`, async function () {
            this.timeout(0);
            for (const how of deviationsOf(message)) {
              await prepare();
              await meet(message, how, often, resume);
            }
          });
        }
      }
    });
  }

  after("no memory is held", () => {
    world.network.forget();
    world.serve({});
    const { now } = dtlsHeap();
    assert.ok(now < 64 * 1024, `${now} bytes of mbedTLS are still in use`);
    world.close();
  });

  it("knows more than 450 deviations at 9 messages", () => {
    const all = SERVER_MESSAGES.flatMap((message) => deviationsOf(message));
    assert.ok(all.length > 450, `${all.length}`);
  });

  // Found by the table: a Certificate message whose inner length is wrong was judged by flags that mbedTLS had not set,
  // all ones, and the error named every reason there is, from "it has expired" to "its key is too short".
  it("says that certificates cannot be decoded where that is what is wrong", async () => {
    world.network.deviate = handshakeDeviation("Certificate", "certificate-beyond", "always");
    const { error } = await world.wake(world.device(), "crts", { resume: "none" }, BOUND);
    world.network.deviate = (datagram) => [datagram];
    assert.ok(error instanceof DTLSError && !(error instanceof CertificateError) && !(error instanceof AlertError));
    assert.match(error.message, /decoded/);
  });
});
