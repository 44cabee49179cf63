/**
 * A server that deviates at each message of its handshake, in each way that there is (tools/est-server): in bounded time
 * there is an answer or a typed error with a sentence, nothing is lost, and the next wake at an honest server succeeds.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { DTLSError } from "../../src/dtls/engine.js";
import { TimeoutError } from "../../src/errors.js";
import {
  deviationsOf,
  handshakeDeviation,
  type Often,
  SERVER_MESSAGES,
  type ServerMessage,
} from "../../tools/est-server/deviate-handshake.js";
import { type DeviceMemory, HostileWorld } from "../support/hostile.js";

const BOUND = 200_000;

describe("a device and a server that deviates from the handshake", () => {
  let world: HostileWorld;
  before(async () => {
    world = await HostileWorld.start();
  });
  after(() => world.close());

  for (const message of SERVER_MESSAGES) {
    for (const often of ["always", "once"] as const) {
      it(`survives ${message}, ${often}`, async function () {
        this.timeout(0);
        for (const how of deviationsOf(message)) {
          const device = world.device();
          world.network.deviate = handshakeDeviation(message, how, often);
          const more = message === "NewSessionTicket" ? ({ resume: "ticket" } as const) : {};
          const { error, duration, report } = await world.wake(device, "crts", more, BOUND);
          console.log(`${message}/${how}/${often}\t${(duration / 1000).toFixed(1)}\t${error === undefined ? "ok" : `${error.name}: ${error.message}`}`);
          world.network.deviate = (d) => [d];
          const next = await world.wake(device, "crts", {}, BOUND);
          assert.equal(next.error, undefined);
        }
      });
    }
  }
});
