/**
 * A development EST server at the other end of a network in memory, and wakes of one device against it, in virtual time:
 * honest, or as a script has it (tools/est-server/misbehave.ts).
 *
 *     const joined = await JoinedEST.start(keyFolder);
 *     const { error } = await joined.wake("crts", "block2:1:szx-7");
 *     joined.free();
 */

import "../../hosts/node/native.js";
import { openKeys } from "../../hosts/node/native.js";
import { type ESTOperation, type WakeOptions, type WakeReport, wake } from "../../src/enrollment/wake.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { DevelopmentCA } from "../../tools/est-server/ca.js";
import { type CoAPPeer, CoAPServer } from "../../tools/est-server/coap-server.js";
import { type ServerAssociation, ServerEngine } from "../../tools/est-server/engine.js";
import { type ESTPeer, estHandler } from "../../tools/est-server/est.js";
import { Misconduct } from "../../tools/est-server/misbehave.js";
import { JoinedNetwork, SERVER, serveCoAP } from "./joined.js";

type Client = CoAPPeer & ESTPeer;

/** More than any wake takes. */
const STEPS_MAX = 20_000;

export interface JoinedWake {
  readonly report: WakeReport | undefined;
  readonly error: Error | undefined;
  /** Milliseconds of virtual time; infinite where the wake did not end. */
  readonly took: number;
  /** How often the script was carried out. */
  readonly count: number;
}

export class JoinedEST {
  readonly network: JoinedNetwork;
  /** What the device has stored, and what survives its sleep. */
  readonly values = new Map<string, Uint8Array>();
  retained = new Uint8Array(0);
  readonly #ca: DevelopmentCA;
  readonly #factory: KeyId;
  readonly #serverKey: KeyId;
  readonly #server: ServerEngine;
  readonly #certificates = new Map<string, Uint8Array>();
  /** Requests that the server is working on, in real time. */
  #working = 0;

  private constructor(
    network: JoinedNetwork,
    ca: DevelopmentCA,
    server: { chain: readonly Uint8Array[]; keyPkcs8: Uint8Array },
  ) {
    this.network = network;
    this.#ca = ca;
    this.#factory = importKey(0, ca.factory.keyPkcs8);
    this.#serverKey = importKey(0, server.keyPkcs8);
    this.#server = new ServerEngine({ trust: ca.clientCAs, key: this.#serverKey, chain: server.chain });
    this.network.serve(this.#server);
    this.network.onOpen = (association) => {
      const { peerCertificate } = association;
      if (peerCertificate !== undefined) {
        this.#certificates.set(Buffer.from(association.peerDigest!).toString("hex"), peerCertificate);
      }
    };
  }

  /** `keys`: the folder of the device's keys. */
  static async start(keys: string): Promise<JoinedEST> {
    openKeys(keys);
    const network = new JoinedNetwork();
    const ca = await DevelopmentCA.create({ clock: () => network.clock.time! });
    return new JoinedEST(network, ca, await ca.issueServer({ dnsNames: [], addresses: [SERVER.address] }));
  }

  free(): void {
    this.network.free();
    this.#server.free();
    destroyKey(this.#serverKey);
    destroyKey(this.#factory);
  }

  #clientOf(association: ServerAssociation): Client {
    const name = Buffer.from(association.peerDigest!).toString("hex");
    return {
      dtls: { certificate: this.#certificates.get(name), unique: association.unique },
      send: (message) => this.network.send(association, message),
    };
  }

  /** The server from now on: its associations stay, what CoAP knows of them does not. */
  #behave(misconduct: Misconduct | undefined): void {
    const answer = estHandler({ ca: this.#ca, lifetime: 90 * 86400 });
    const coap = new CoAPServer<Client>({
      handler: async (request) => {
        this.#working++;
        try {
          return await answer(request);
        } finally {
          this.#working--;
        }
      },
      ...(misconduct !== undefined && { tamper: (message, request) => misconduct.tamper(message, request) }),
    });
    serveCoAP(this.network, coap, (association) => this.#clientOf(association));
    this.network.rewrite = (datagram, engine) => misconduct?.rewrite(datagram, engine) ?? [datagram];
  }

  /** One wake, to its end, with a server that does as `script` says; an honest one without. */
  async wake(
    operation: ESTOperation | "run",
    { script, ...more }: Partial<WakeOptions> & { script?: string } = {},
  ): Promise<JoinedWake> {
    const misconduct = script === undefined ? undefined : new Misconduct(script);
    this.#behave(misconduct);
    const { network } = this;
    const { time, clock } = network;
    const started = time.now;
    const outcome: { report?: WakeReport; error?: Error; ended?: number } = {};
    const store = {
      read: (key: string) => this.values.get(key)?.slice().buffer as ArrayBuffer | undefined,
      write: (key: string, value: ArrayBuffer | Uint8Array) => {
        this.values.set(key, Uint8Array.from(value instanceof Uint8Array ? value : new Uint8Array(value)));
      },
      delete: (key: string) => {
        this.values.delete(key);
      },
      close: () => {},
    };
    const retain = (length: number) => {
      if (this.retained.length !== length) {
        this.retained = new Uint8Array(length);
      }
      return { bytes: this.retained };
    };
    wake(
      { UDP: network.UDP, timer: time, clock, store, retain },
      {
        ...{ operation, address: SERVER.address, port: SERVER.port, host: SERVER.address, trust: [this.#ca.root] },
        factory: { certificates: this.#ca.factory.chain, key: this.#factory },
        ...{ geometry: { slots: 2, slotBytes: 512 }, blockSize: 128, maxBody: 8192 },
        ...more,
      },
    )
      .then(
        (report) => {
          outcome.report = report;
        },
        (error: Error) => {
          outcome.error = error;
        },
      )
      .finally(() => {
        outcome.ended = time.now;
      });
    for (let steps = 0; outcome.ended === undefined && steps < STEPS_MAX; ) {
      await new Promise((resolve) => setImmediate(resolve));
      // While the server makes a certificate, in real time, no virtual time passes.
      if (this.#working === 0 && outcome.ended === undefined) {
        steps++;
        if (!(await time.step())) {
          await time.settle();
        }
      }
    }
    return {
      report: outcome.report,
      error: outcome.error,
      took: (outcome.ended ?? Number.POSITIVE_INFINITY) - started,
      count: misconduct?.count ?? 0,
    };
  }
}
