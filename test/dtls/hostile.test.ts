/**
 * A hostile network between the client engine and the server role, over each engine from this same file: whatever comes, an
 * association opens as it should or fails with a typed error, in bounded time, and nothing crashes.
 */

import { strict as assert } from "node:assert";
import "../../hosts/node/native.js";
import { DTLSError, Engine, EngineState } from "../../src/dtls/engine.js";
import { TimeoutError } from "../../src/errors.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { chance } from "../../tools/chance.js";
import { ServerEngine } from "../../tools/est-server/engine.js";
import { TestCA, type TestIdentity } from "../support/certificates.js";
import { ENGINE } from "../support/engine.js";
import {} from "../support/joined.js";

const SEEDS = Number(process.env.TORPOR_SEEDS ?? 300);
const PATIENCE = 20_000;
const PEER = Uint8Array.of(1, 2, 3, 4);
const buffer = new Uint8Array(4096);
const now = (): number => Math.floor(Date.now() / 1000);

/** What becomes of a datagram on its way: those that arrive in its place. */
type Change = (datagram: Uint8Array, direction: "out" | "in", index: number) => readonly Uint8Array[];

describe("a hostile network", () => {
  let ca: TestCA;
  let serverIdentity: TestIdentity;
  let clientIdentity: TestIdentity;
  let serverKey: KeyId;
  let clientKey: KeyId;
  let server: ServerEngine;

  before(async () => {
    ca = await TestCA.create();
    serverIdentity = await ca.issue({ subject: "CN=est", dnsNames: ["est.example.net"] });
    clientIdentity = await ca.issue({ subject: "CN=device", usage: "client" });
    serverKey = importKey(0, serverIdentity.pkcs8);
    clientKey = importKey(0, clientIdentity.pkcs8);
    server = new ServerEngine({ trust: [ca.root], key: serverKey, chain: serverIdentity.chain });
  });

  after(() => {
    server.free();
    destroyKey(serverKey);
    destroyKey(clientKey);
  });

  /** One life: a handshake and a message each way, to the end of its time. What became of the client. */
  function live(change: Change, session?: Uint8Array, groups?: readonly string[]): { client: Engine; sent: number } {
    const client = new Engine();
    client.trust(ca.root);
    client.identity(clientKey, clientIdentity.chain);
    client.serverName("est.example.net");
    client.timers(1000, PATIENCE);
    if (groups !== undefined) {
      client.groups(groups);
    }
    const association = server.accept(0, now(), PEER);
    client.start(0, now(), session);
    let index = 0;
    let sent = 0;
    let time = 0;
    const flows = (from: Engine, to: Engine, direction: "out" | "in"): boolean => {
      const length = from.take(buffer);
      if (length === 0) {
        return false;
      }
      sent += direction === "out" ? 1 : 0;
      const arriving = change(buffer.slice(0, length), direction, index++);
      while (flows(to, from, direction === "out" ? "in" : "out"));
      for (const datagram of arriving) {
        to.receive(time, datagram);
        while (flows(to, from, direction === "out" ? "in" : "out"));
      }
      return true;
    };
    const settle = (): void => {
      while (index < 2000 && (flows(client, association, "out") || flows(association, client, "in")));
    };
    settle();
    for (let turn = 0; turn < 100 && client.state === EngineState.HANDSHAKE; turn++) {
      time = Math.max(time + 1, Math.min(client.deadline ?? time + PATIENCE, association.deadline ?? time + PATIENCE));
      client.elapse(time);
      settle();
      association.elapse(time);
      settle();
    }
    if (client.state === EngineState.OPEN) {
      client.write(Uint8Array.of(1, 2, 3));
      settle();
    }
    association.free();
    return { client, sent };
  }

  function assertSettled(client: Engine, what: string): void {
    assert.notEqual(client.state, EngineState.HANDSHAKE, `${what}: still at it after its patience`);
    if (client.state === EngineState.FAILED) {
      const { failure } = client;
      assert.ok(failure instanceof DTLSError || failure instanceof TimeoutError, `${what}: ${failure}`);
    }
    client.free();
  }

  function sessionOf(): Uint8Array {
    const { client } = live((datagram) => [datagram]);
    const data = client.session!.data;
    client.free();
    return data;
  }

  for (const way of ["full", "resumed"] as const) {
    it(`changes, cuts, doubles and makes up datagrams of a ${way} handshake, over ${SEEDS} seeds`, function () {
      this.timeout(0);
      for (let seed = 1; seed <= SEEDS; seed++) {
        const random = chance(seed);
        const below = (bound: number): number => Math.floor(random() * bound);
        const victim = below(8);
        const { client } = live(
          (datagram, _direction, index) => {
            if (index !== victim) {
              return [datagram];
            }
            const changed = datagram.slice();
            switch (below(5)) {
              case 0:
                return [datagram.slice(0, below(datagram.length))];
              case 1:
                return [datagram, datagram];
              case 2: {
                const made = Uint8Array.from({ length: 1 + below(60) }, () => below(256));
                return [made, datagram];
              }
              case 3:
                changed[below(Math.min(80, changed.length))] = below(256);
                return [changed];
              default:
                for (let times = 1 + below(4); times > 0; times--) {
                  changed[below(changed.length)]! ^= 1 << below(8);
                }
                return [changed, datagram];
            }
          },
          way === "resumed" ? sessionOf() : undefined,
        );
        assertSettled(client, `seed ${seed}`);
      }
    });
  }

  it("does not follow a server that asks for another hello without end", () => {
    // Each hello is answered by the first answer, a HelloVerifyRequest or a HelloRetryRequest, with numbers that go on.
    let first: Uint8Array | undefined;
    let times = 0;
    const loop = live((datagram, direction) => {
      if (direction === "in") {
        first ??= datagram;
        times++;
        const again = first.slice();
        again[10] = times & 255;
        again[18] = times & 255;
        return times > 100 ? [] : [again];
      }
      return [datagram];
    });
    assertSettled(loop.client, "a loop of hellos");
    if (ENGINE === "wolfssl") {
      assert.ok(loop.sent < 20, `${loop.sent} datagrams`);
    }
  });

  if (ENGINE === "wolfssl") {
    /** The position of an extension's body in a ServerHello in the clear; -1 where it is not there. */
    const extensionOf = (hello: Uint8Array, type: number): number => {
      for (let at = 13 + 12 + 2 + 32 + 1 + 2 + 1 + 2; at + 4 <= hello.length; ) {
        if (((hello[at]! << 8) | hello[at + 1]!) === type) {
          return at + 4;
        }
        at += 4 + ((hello[at + 2]! << 8) | hello[at + 3]!);
      }
      return -1;
    };
    const SUITE_AT = 13 + 12 + 2 + 32 + 1;
    const VERSIONS = 43;
    const KEY_SHARE = 51;
    /** The second ServerHello is the one after the HelloRetryRequest. */
    const inSecondHello = (edit: (hello: Uint8Array) => void): Change => {
      let hellos = 0;
      return (datagram, direction) => {
        if (direction === "in" && datagram[0] === 22 && datagram[13] === 2 && ++hellos >= 2) {
          edit(datagram);
        }
        return [datagram];
      };
    };

    it("refuses a server that changes its mind about the cipher suite", () => {
      const { client } = live(
        inSecondHello((hello) => {
          hello[SUITE_AT + 1] = 4;
        }),
      );
      assert.equal(client.state, EngineState.FAILED);
      assertSettled(client, "suite");
    });

    it("refuses a server that changes its mind about the version", () => {
      const { client } = live(
        inSecondHello((hello) => {
          hello[extensionOf(hello, VERSIONS) + 1] = 0xfd;
        }),
      );
      assert.equal(client.state, EngineState.FAILED);
      assertSettled(client, "version");
    });

    for (const group of ["secp256r1", "X25519MLKEM768", "SecP256r1MLKEM768"]) {
      for (const by of [-1, 1, -100]) {
        it(`refuses a share of ${group} whose length is off by ${by}`, () => {
          const { client } = live(
            inSecondHello((hello) => {
              const at = extensionOf(hello, KEY_SHARE) + 2;
              const length = ((hello[at]! << 8) | hello[at + 1]!) + by;
              hello[at] = (length >> 8) & 255;
              hello[at + 1] = length & 255;
            }),
            undefined,
            [group],
          );
          assert.equal(client.state, EngineState.FAILED);
          assertSettled(client, group);
        });
      }
    }
  }
});
