/**
 * A server that deviates from CoAP at each block of a transfer, with each code, and in each part of a message
 * (tools/est-server/deviate-coap.ts): in bounded time the device has its answer or a typed error with a sentence, nothing
 * is lost, and the next wake at an honest server succeeds.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import type { WakeOptions } from "../../src/enrollment/wake.js";
import { TorporError } from "../../src/errors.js";
import {
  BLOCK_DEVIATIONS,
  blockDeviation,
  codeDeviation,
  MESSAGE_DEVIATIONS,
  messageDeviation,
} from "../../tools/est-server/deviate-coap.js";
import type { Deviate } from "../../tools/est-server/deviate-handshake.js";
import { HostileWorld } from "../support/hostile.js";

/** Milliseconds: an exchange that is given up after 93 s, for a body of 4 blocks, and 4 more where it begins anew. */
const BOUND = 8 * 93_000;

type Expected = "success" | "failure" | "either";

/** RFC 9148 section 4.2: 2.05 for crts. 2.01 is what kipuka answers to others; a client may put up with it. */
const codeExpected = (code: string): Expected =>
  code === "2.05" ? "success" : /^2\.0[1-5]$/.test(code) ? "either" : "failure";

/** What a client must pass over (RFC 7252 sections 4.2, 5.2, 5.3.2, 5.4.1), and what it may not take for an answer. */
const HARMLESS_MESSAGES = /^(doubled|separate-.*|elective-.*|max-age-huge|location-path|.*-before|other-code-after)$/;
const HARMFUL_MESSAGES =
  /^(dropped|version-.*|type-rst|reset-instead|acknowledged-only|message-id-other|token-.*|empty|cut-.*|marker-.*|option-(delta|length)-15|option-beyond|critical-unknown|if-match|uri-path|payload-(none|one-byte|longer)|format-other)$/;

/** At a block of crts and of its answer to a request in blocks. */
const HARMLESS_BLOCKS = /^(doubled)$/;
const HARMFUL_BLOCKS =
  /^(size-reserved|option-4-bytes|payload-other|answers-(4|5).*|answers-2\.31|dropped|number-far|payload-none)$/;

/** At the answer to a block of a request; 4.13 with a smaller size is a wish that a client may grant. */
const HARMFUL_ANSWERS =
  /^(size-reserved|option-4-bytes|number-next|number-far|answers-4\.08|answers-4\.13|answers-5.*|dropped)$/;

describe("a device and a server that deviates from CoAP", () => {
  let world: HostileWorld;
  before(async () => {
    world = await HostileWorld.start();
  });
  after(() => world.close());

  /** One wake at a server that deviates, one at an honest one. */
  async function meet(
    what: string,
    deviate: Deviate,
    wanted: Expected,
    options: Partial<WakeOptions> = {},
  ): Promise<void> {
    const { network } = world;
    const { operation = "crts" } = options;
    const device = world.device();
    const before = device.lasting;
    world.deviate = deviate;
    const { error } = await world
      .wake(device, operation, { resume: "none", ...options }, BOUND)
      .catch((reason: Error) => {
        throw new Error(`${what}: ${reason.message}`);
      });
    world.deviate = (message) => [message];
    if (error === undefined) {
      assert.notEqual(wanted, "failure", `${what}: accepted`);
    } else {
      assert.ok(error instanceof TorporError, `${what}: ${error.stack}`);
      assert.match(error.message, /^[^\n]{20,}$/, what);
      assert.doesNotMatch(error.message, /undefined|NaN|\[object/, what);
      assert.notEqual(wanted, "success", `${what}: ${error.message}`);
    }
    if (error !== undefined || operation === "crts") {
      assert.deepEqual(device.lasting, before, `${what}: identity and trust`);
    } else {
      world.keep(device); // it has a new key, and the one before is gone
    }
    assert.ok(world.identityOf(device) !== undefined, what);
    assert.equal(network.open.size, 0, `${what}: sockets`);
    network.forget();
    const next = await world.wake(device, "crts", { resume: "none" }, BOUND);
    assert.equal(next.error, undefined, `${what}, then an honest server`);
    network.forget();
  }

  it("stands each of the 256 codes: success is 2.05, whatever else ends in an error or in silence", async function () {
    this.timeout(0);
    for (let code = 0; code < 256; code++) {
      const text = `${code >> 5}.${String(code & 31).padStart(2, "0")}`;
      await meet(`code ${text}`, codeDeviation(text), codeExpected(text));
    }
  });

  it("stands messages of every wrong form", async function () {
    this.timeout(0);
    for (const how of MESSAGE_DEVIATIONS) {
      const wanted = HARMLESS_MESSAGES.test(how) ? "success" : HARMFUL_MESSAGES.test(how) ? "failure" : "either";
      await meet(`message ${how}`, messageDeviation(how), wanted);
    }
  });

  const blockExpected = (how: string, harmful: RegExp): Expected =>
    HARMLESS_BLOCKS.test(how) ? "success" : harmful.test(how) ? "failure" : "either";

  for (const number of [0, 1, 2, 3]) {
    it(`stands everything that can be wrong with block ${number} of an answer`, async function () {
      this.timeout(0);
      for (const how of BLOCK_DEVIATIONS) {
        const deviate = blockDeviation("Block2", number, how);
        await meet(`Block2 ${number}, ${how}`, deviate, blockExpected(how, HARMFUL_BLOCKS), { blockSize: 256 });
      }
    });

    it(`stands everything that can be wrong with the answer to block ${number} of a request`, async function () {
      this.timeout(0);
      for (const how of BLOCK_DEVIATIONS) {
        const deviate = blockDeviation("Block1", number, how);
        await meet(`Block1 ${number}, ${how}`, deviate, blockExpected(how, HARMFUL_ANSWERS), {
          operation: "sren",
          blockSize: 64,
        });
      }
    });
  }
});
