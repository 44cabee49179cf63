/** Wakes over real UDP of which much is lost, doubled or late each way: ten devices at once, each with its own seed. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { join } from "node:path";
import { chance } from "../../tools/chance.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { Relay } from "../../tools/relay.js";
import { newFolder, torpor, type WakeLine } from "../support/command.js";
import { ENGINE } from "../support/engine.js";

const SEEDS = 10;
/** Some of them in XS. */
const HOSTS = ["node", "simulator"];
/** Wakes of each device. */
const WAKES = 3;
/** The errors of a wake that the network may bring about; nothing else may happen. */
const DOCUMENTED =
  /^torpor: (the server did not finish the DTLS handshake within|[A-Z]+ \/[^:]*: expected an acknowledgement, none came|[A-Z]+ \/[^:]*: expected a response, none came)[^\n]*\n$/;

describe("devices on a bad network", () => {
  const folder = newFolder();
  let server: EstServer;

  before(async () => {
    server = await startEstServer({ dir: folder });
  });
  after(() => server.close());

  async function life(seed: number): Promise<string[]> {
    const relay = await Relay.to(server.port);
    const random = chance(seed);
    relay.pass = () => {
      const [lost, doubled] = [random() < 0.3, random() < 0.3];
      return lost ? 0 : doubled ? 2 : 1;
    };
    relay.late = () => (random() < 0.3 ? random() * 500 : 0);
    const outcomes: string[] = [];
    try {
      for (let wake = 0; wake < WAKES; wake++) {
        const { status, stdout, stderr } = await torpor(
          ...["crts", "--server", `coaps://127.0.0.1:${relay.port}`, "--trust", join(folder, "ca.pem")],
          ...["--cert", join(folder, "factory.pem"), "--key", join(folder, "factory.key")],
          ...["--state", join(folder, `device-${seed}`), "--host", HOSTS[seed % 2]!, "--json"],
          ...["--handshake-timer", "0.2", "--patience", "20"],
        );
        if (status === 0) {
          outcomes.push((JSON.parse(stdout) as WakeLine).way!);
        } else {
          assert.match(stderr, DOCUMENTED, `seed ${seed}`);
          outcomes.push("failed");
        }
      }
    } finally {
      relay.close();
    }
    return outcomes;
  }

  it(`end each wake with an answer or a documented error, over ${SEEDS} seeds at once`, async function () {
    this.timeout(0);
    const outcomes = (await Promise.all(Array.from({ length: SEEDS }, (_, seed) => life(seed)))).flat();
    const answered = outcomes.filter((outcome) => outcome !== "failed").length;
    assert.ok(answered >= (SEEDS * WAKES) / 2, `${outcomes}`);
    assert.ok(outcomes.includes(ENGINE === "wolfssl" ? "ticket" : "context"), `${outcomes}`);
  });
});
