/**
 * What must hold of a device after its process was killed at any point of a wake: the next wakes work, its identity is
 * one matching pair, nothing piles up in its storage, no nonce was used twice, and each peer gives its own data.
 *
 *     const survival = await Survival.start();
 *     const { device, doing } = await survival.prepare(kind);
 *     const where = await device.killAt(step, doing);
 *     await survival.recover(kind, device, where);
 */

import { strict as assert } from "node:assert";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readPEM } from "../../hosts/node/pem.js";
import type { WakeResult } from "../../hosts/node/result.js";
import type { SimulatedWake } from "../../hosts/node/simulator.js";
import type { Keep } from "../../src/enrollment/wake.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { Relay } from "../../tools/relay.js";
import { NonceAudit } from "../../tools/soak/nonce-audit.js";
import { certificateOf, storageFaults } from "../../tools/soak/storage.js";
import { newFolder } from "./command.js";
import { ENGINE } from "./engine.js";
import { type Doing, KillableDevice } from "./kill.js";

/** A kind of wake to be cut off. */
export interface Kind {
  readonly name: string;
  readonly keep: Keep;
  readonly doing: Doing;
  /** It is the device's first wake: each time that of another device. */
  readonly isFirst?: boolean;
}

const TICKETS = { resume: "ticket", geometry: { slots: 2, slotBytes: 1536 } } as const;

/** How the engine comes back of its own accord: over wolfSSL by a ticket of DTLS 1.3. */
export const COMES_BACK = ENGINE === "wolfssl" ? "ticket" : "context";

const each = (keep: Keep): Kind[] => [
  { name: "a first boot", keep, doing: { operation: "run" }, isFirst: true },
  { name: `a wake by ${COMES_BACK}`, keep, doing: { operation: "crts" } },
  { name: `a renewal by ${COMES_BACK}`, keep, doing: { operation: "sren" } },
  ...(ENGINE === "wolfssl"
    ? []
    : ([
        { name: "a wake by session id", keep, doing: { operation: "crts", resume: "session" } },
        { name: "a wake by ticket", keep, doing: { operation: "crts", ...TICKETS } },
      ] as const)),
  { name: "a full handshake that leaves the table alone", keep, doing: { operation: "crts", resume: "none" } },
];

export const KINDS: readonly Kind[] = [...each("retained"), ...each("flash"), ...each("sealed")];

/** After so many datagrams, what the audit has seen of them is all that is kept. */
const DATAGRAMS_KEPT = 10_000;

export class Survival {
  readonly server: EstServer;
  /** Another peer, with other data: its att answers something else. */
  readonly #other: EstServer;
  readonly relay: Relay;
  readonly #otherRelay: Relay;
  readonly audit = new NonceAudit();
  /** How often the wake after a kill came back by which way. */
  readonly ways: Record<string, number> = {};
  readonly #factory: Pick<SimulatedWake, "trust" | "certificates" | "key">;
  #attributes: readonly [string, string] = ["", ""];
  #recoveries = 0;

  private constructor(folder: string, server: EstServer, other: EstServer, relay: Relay, otherRelay: Relay) {
    this.server = server;
    this.#other = other;
    this.relay = relay;
    this.#otherRelay = otherRelay;
    for (const one of [relay, otherRelay]) {
      one.pass = (datagram) => {
        this.audit.look(datagram, `the server behind port ${one.port}`);
        if (one.datagrams.length > DATAGRAMS_KEPT) {
          one.forget();
        }
        return 1;
      };
    }
    const read = (name: string, ...labels: string[]) =>
      readPEM(Uint8Array.from(readFileSync(join(folder, name))), ...labels);
    this.#factory = {
      trust: read("ca.pem", "CERTIFICATE"),
      certificates: read("factory.pem", "CERTIFICATE"),
      key: read("factory.key", "PRIVATE KEY", "EC PRIVATE KEY")[0],
    };
  }

  static async start(): Promise<Survival> {
    const folder = newFolder();
    const server = await startEstServer({ dir: folder });
    const other = await startEstServer({ ca: server.ca, attributes: "proof-of-possession" });
    const survival = new Survival(folder, server, other, await Relay.to(server.port), await Relay.to(other.port));
    const { device } = await survival.prepare(KINDS[1]!);
    const own = (await survival.wake(device, { operation: "att" })).body;
    const others = (await survival.wake(device, { operation: "att", port: survival.#otherRelay.port })).body;
    survival.#attributes = [hex(own), hex(others)];
    assert.notEqual(...survival.#attributes);
    return survival;
  }

  async close(): Promise<void> {
    this.relay.close();
    this.#otherRelay.close();
    await this.server.close();
    await this.#other.close();
  }

  /** A device in the state in which such a wake can take place. */
  async prepare(kind: Kind): Promise<{ device: KillableDevice; doing: Doing }> {
    this.rest();
    const { keep, doing, isFirst } = kind;
    const device = new KillableDevice({
      // An enrolled device has nothing but what is in its storage: nothing covers up for it.
      wake: isFirst ? this.#factory : { trust: undefined, certificates: [], key: undefined },
      options: {
        address: "127.0.0.1",
        port: this.relay.port,
        host: "127.0.0.1",
        geometry: { slots: 4, slotBytes: 512 },
        blockSize: 1024,
        maxBody: 16384,
        contextPatience: 400,
        keep,
      },
      state: join(newFolder(), "device"),
    });
    if (!isFirst) {
      await device.wake({ operation: "run" }, this.#factory);
      for (let wakes = 0; wakes < 2; wakes++) {
        await this.wake(device, afterwards(doing));
      }
    }
    return { device, doing };
  }

  /** Between two wakes. */
  rest(): void {
    this.relay.rest();
    this.#otherRelay.rest();
  }

  /** A wake of an enrolled device. */
  wake(device: KillableDevice, doing: Doing): Promise<WakeResult> {
    this.rest();
    return device.wake(doing, { trust: undefined, certificates: [], key: undefined });
  }

  /** The wakes after a kill, and all that must hold then. `where` is for people. */
  async recover({ doing, isFirst }: Kind, device: KillableDevice, where: string): Promise<void> {
    try {
      this.rest();
      if (isFirst) {
        await device.wake(doing);
        this.checkStorage(device);
      }
      // Something else than what was cut off: the same request under the same number would be the same record.
      const { association, body } = await this.wake(device, afterwards(doing));
      const way = association.way!;
      this.ways[way] = (this.ways[way] ?? 0) + 1;
      assert.equal(hex(body), this.#attributes[0], "the data of another peer");
      if (this.#recoveries++ % 4 === 0) {
        const port = this.#otherRelay.port;
        assert.equal(hex((await this.wake(device, { ...afterwards(doing), port })).body), this.#attributes[1]);
      }
      this.rest();
      this.checkStorage(device);
      assert.deepEqual(this.audit.violations.splice(0), []);
      assert.equal(this.server.stats.stale, 0, "the server met records that were no newer than those before");
    } catch (error) {
      (error as Error).message += `\n(after the device was killed at ${where})`;
      throw error;
    }
  }

  /** One certificate with its key, one key at most that belongs to nothing, and no heap of half-written files. */
  checkStorage(device: KillableDevice): void {
    const issuing = new X509Certificate(this.server.ca.issuing);
    assert.deepEqual(storageFaults(device.state, issuing), []);
    assert.ok(new Date(certificateOf(device.state)!.validTo).getTime() > Date.now());
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** What is done at the wake after one that was cut off: it comes back by what is left, and leaves what the next needs. */
function afterwards({ resume, geometry }: Doing): Doing {
  return resume === "ticket" ? { operation: "att", resume, geometry: geometry! } : { operation: "att" };
}
