/**
 * An enrolled device in memory, and a server at the other end of a network in virtual time that deviates where it is told
 * to: for tables of what a device must stand.
 *
 *     const hostile = await HostileWorld.start();
 *     const device = hostile.device();                              // each with the same identity and memory
 *     const outcome = await hostile.wake(device, "crts");           // an error, or undefined
 *     await hostile.close();
 */

import "../../hosts/node/native.js";
import { openKeys } from "../../hosts/node/native.js";
import { buildFingerprint } from "../../src/dtls/engine.js";
import { IdentityStore } from "../../src/enrollment/identity.js";
import { type Operation, type WakeOptions, type WakeReport, wake } from "../../src/enrollment/wake.js";
import type { KeyValueStore } from "../../src/io.js";
import { importKey, type KeyId } from "../../src/pki/key.js";
import { SessionTable } from "../../src/session/table.js";
import { DevelopmentCA } from "../../tools/est-server/ca.js";
import { type CoAPPeer, CoAPServer } from "../../tools/est-server/coap-server.js";
import { type ServerAssociation, ServerEngine, type ServerEngineOptions } from "../../tools/est-server/engine.js";
import { type ESTPeer, estHandler } from "../../tools/est-server/est.js";
import { newFolder } from "./command.js";
import { JoinedNetwork, SERVER } from "./joined.js";

type Client = CoAPPeer & ESTPeer;

const GEOMETRY = { slots: 2, slotBytes: 1536 } as const;

/** What survives the sleep of a device; its keys are the process's. */
export class DeviceMemory {
  values = new Map<string, Uint8Array>();
  retained = new Uint8Array(SessionTable.byteLength(GEOMETRY));

  get store(): KeyValueStore {
    return {
      read: (key) => this.values.get(key)?.slice().buffer as ArrayBuffer | undefined,
      write: (key, value) => {
        this.values.set(key, value instanceof Uint8Array ? value.slice() : new Uint8Array(value.slice(0)));
      },
      delete: (key) => {
        this.values.delete(key);
      },
      close: () => {},
    };
  }

  copy(): DeviceMemory {
    const copy = new DeviceMemory();
    copy.values = new Map([...this.values].map(([key, value]) => [key, value.slice()]));
    copy.retained = this.retained.slice();
    return copy;
  }

  /** What may not get lost: all values, but for those that say how servers are and what was tried. */
  get lasting(): Record<string, string> {
    const lasting: Record<string, string> = {};
    for (const [key, value] of this.values) {
      if (!["resumption", "life", "pending", "csrattrs"].includes(key)) {
        lasting[key] = Buffer.from(value).toString("hex");
      }
    }
    return lasting;
  }
}

export interface Woken {
  readonly report: WakeReport | undefined;
  readonly error: Error | undefined;
  /** Virtual milliseconds. */
  readonly duration: number;
}

export class HostileWorld {
  readonly network = new JoinedNetwork();
  readonly ca: DevelopmentCA;
  /** What becomes of a CoAP message of the server. */
  deviate: (message: Uint8Array) => readonly Uint8Array[] = (message) => [message];
  readonly #factory: KeyId;
  readonly #serverKey: KeyId;
  readonly #chain: readonly Uint8Array[];
  #server: ServerEngine | undefined;
  #coap!: CoAPServer<Client>;
  readonly #certificates = new Map<string, Uint8Array>();
  /** Requests that the server is working on, in real time. */
  #working = 0;
  #enrolled = new DeviceMemory();

  private constructor(ca: DevelopmentCA, chain: readonly Uint8Array[], serverKey: KeyId) {
    this.ca = ca;
    this.#chain = chain;
    this.#serverKey = serverKey;
    this.#factory = importKey(0, ca.factory.keyPkcs8);
    openKeys(newFolder());
    this.network.onOpen = (association) => {
      const { peerCertificate } = association;
      if (peerCertificate !== undefined) {
        this.#certificates.set(Buffer.from(association.peerDigest!).toString("hex"), peerCertificate);
      }
    };
    const clients = new WeakMap<ServerAssociation, Client>();
    this.network.onMessage = (message, association) => {
      const client = clients.get(association) ?? this.#clientOf(association);
      clients.set(association, client);
      this.#coap.receive(client, message);
      return undefined;
    };
    this.serve({});
  }

  static async start(): Promise<HostileWorld> {
    const ca = await DevelopmentCA.create();
    const { chain, keyPkcs8 } = await ca.issueServer({ dnsNames: [], addresses: [SERVER.address] });
    const world = new HostileWorld(ca, chain, importKey(0, keyPkcs8));
    const { error } = await world.wake(world.#enrolled, "run");
    if (error !== undefined) {
      throw error;
    }
    return world;
  }

  /** A new server, which knows nobody, in place of the one before. */
  serve(options: Partial<ServerEngineOptions>, blockSize = 1024): void {
    this.network.serve(undefined);
    this.#server?.free();
    this.#server = new ServerEngine({
      trust: this.ca.clientCAs,
      key: this.#serverKey,
      chain: this.#chain,
      ...options,
    });
    this.network.serve(this.#server);
    this.#coap?.close();
    const answer = estHandler({ ca: this.ca, lifetime: 90 * 86400 });
    this.#coap = new CoAPServer<Client>({
      blockSize,
      handler: async (request) => {
        this.#working++;
        try {
          return await answer(request);
        } finally {
          this.#working--;
        }
      },
    });
  }

  #clientOf(association: ServerAssociation): Client {
    const name = Buffer.from(association.peerDigest!).toString("hex");
    return {
      dtls: { certificate: this.#certificates.get(name), unique: association.unique },
      send: (message) => {
        for (const part of this.deviate(message)) {
          this.network.send(association, part);
        }
      },
    };
  }

  /** An enrolled device without a session. */
  device(): DeviceMemory {
    return this.#enrolled.copy();
  }

  /** From now on every device has what this one has. */
  keep(device: DeviceMemory): void {
    this.#enrolled = device.copy();
  }

  /** A wake to its end. @throws Error where it does not come to one within `bound` virtual milliseconds. */
  async wake(
    memory: DeviceMemory,
    operation: Operation,
    more: Partial<WakeOptions> = {},
    bound = Number.POSITIVE_INFINITY,
  ): Promise<Woken> {
    const { network } = this;
    const started = network.time.now;
    let woken: { report?: WakeReport; error?: Error } | undefined;
    wake(
      {
        UDP: network.UDP,
        timer: network.time,
        clock: network.clock,
        store: memory.store,
        retain: () => ({ bytes: memory.retained }),
      },
      {
        ...{ operation, address: SERVER.address, port: SERVER.port, host: SERVER.address },
        ...{ geometry: GEOMETRY, blockSize: 1024, maxBody: 8192 },
        ...(operation === "run" && {
          trust: [this.ca.root],
          factory: { certificates: this.ca.factory.chain, key: this.#factory },
        }),
        ...more,
      },
    ).then(
      (report) => {
        woken = { report };
      },
      (error: Error) => {
        woken = { error };
      },
    );
    while (woken === undefined) {
      await network.time.settle();
      if (this.#working > 0) {
        await new Promise((resolve) => setImmediate(resolve));
      } else if (woken === undefined && !(await network.time.step(started + bound))) {
        // Promises of Node.js itself take real turns; then nothing moves any more, or not in time.
        await new Promise((resolve) => setImmediate(resolve));
        await network.time.settle();
        if (woken === undefined && this.#working === 0 && !(await network.time.step(started + bound))) {
          throw new Error(`the wake has not ended after ${(network.time.now - started) / 1000} s`);
        }
      }
    }
    const { report, error } = woken as { report?: WakeReport; error?: Error };
    return { report, error, duration: network.time.now - started };
  }

  /** How a device could come back: the data of its sessions. @throws where the table is not sound. */
  sessionsOf(memory: DeviceMemory): string[] {
    const table = new SessionTable(memory.retained.slice(), {
      ...GEOMETRY,
      clock: this.network.clock,
      fingerprint: buildFingerprint(),
    });
    return [...table.sessions()].map(
      ({ kind, isContext, data }) => `${kind} ${isContext} ${Buffer.from(data).toString("hex")}`,
    );
  }

  /** The device's identity. @throws where key and certificate do not belong together. */
  identityOf(memory: DeviceMemory) {
    return new IdentityStore(memory.store).current;
  }

  close(): void {
    this.network.free();
    this.#server?.free();
    this.#coap.close();
  }
}
