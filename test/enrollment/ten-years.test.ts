/**
 * Ten years of one device in virtual time: the real C core, certificates and key storage; a network that loses
 * datagrams, wakes that are killed, a CA that changes its root key twice, a server that is away for 40 days, a clock
 * that is set back. At every instant the device holds one matching pair, or can get one by itself.
 */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { openKeys } from "../../hosts/node/native.js";
import { sameBytes } from "../../src/bytes.js";
import { type Identity, IdentityStore } from "../../src/enrollment/identity.js";
import { statusOf } from "../../src/enrollment/status.js";
import { wake } from "../../src/enrollment/wake.js";
import type { Clock, KeyValueStore, Timer, UDP } from "../../src/io.js";
import { parseCertificate } from "../../src/pki/certificate.js";
import { destroyKey, importKey, type KeyId, publicKey } from "../../src/pki/key.js";
import { chance } from "../../tools/chance.js";
import { DevelopmentCA } from "../../tools/est-server/ca.js";
import { type CoAPPeer, CoAPServer } from "../../tools/est-server/coap-server.js";
import { type ServerAssociation, ServerEngine } from "../../tools/est-server/engine.js";
import { type ESTPeer, estHandler } from "../../tools/est-server/est.js";
import { newFolder } from "../support/command.js";
import { JoinedNetwork, SERVER, serveCoAP } from "../support/joined.js";

const DAY = 86400_000;
const DAYS = 3640;
const LIFETIME_DAYS = 90;
/** Of all wakes, and of those at which something is due: in most there is nothing to break. */
const KILLED = 0.01;
const KILLED_AT_WORK = 0.5;
const LOSS = 0.05;
/**
 * The step at which a wake that is to be killed is killed, at most: of timers, datagrams and writes together, or of the
 * writes alone, before or after each: a renewal has some 40, and 8.
 */
const STEPS = 40;
const WRITES = 8;

const ROLLOVERS = [1000, 2400];
/** It begins when a renewal is due first after this day, so that the certificate expires meanwhile. */
const OUTAGE = { after: 1700, days: 40 };
/** The clock says 2000 in these days. */
const CLOCK_RESET = { from: 300, days: 200 };
const SERVER_RENEWAL = 180;

class PowerCut extends Error {}

/** What survives the power: key-value storage, and what survives sleep. */
class Memory {
  readonly values = new Map<string, Uint8Array>();
  retained = new Uint8Array(0);
}

/** The power of one wake: it goes after so many steps, of all kinds or of writes alone. */
class Power {
  #left: number;
  #isOff = false;
  readonly #kind: "any" | "write";

  constructor(steps = Number.POSITIVE_INFINITY, kind: "any" | "write" = "any") {
    this.#left = steps;
    this.#kind = kind;
  }

  /** Whether a step was too many. */
  get isOff(): boolean {
    return this.#isOff;
  }

  /** One more step; false where the power goes before it. */
  step(kind: "any" | "write" = "any"): boolean {
    if (this.#kind === "any" || kind === "write") {
      this.#left--;
    }
    this.#isOff ||= this.#left < 0;
    return !this.#isOff;
  }
}

type Client = CoAPPeer & ESTPeer;

describe("a device in ten years", () => {
  let random: () => number;
  let network: JoinedNetwork;
  let ca: DevelopmentCA;
  let server: ServerEngine | undefined;
  let serverKey: KeyId | undefined;
  let coap: CoAPServer<Client>;
  /** Requests that the server is working on, in real time. */
  let working = 0;
  let folder: string;
  let memory: Memory;
  let factory: Identity;
  const mathRandom = Math.random;

  before(async () => {
    random = chance(1);
    Math.random = random;
    network = new JoinedNetwork({ seed: 2 });
    network.faults = { loss: LOSS, doubling: 0, reordering: 0 };
    ca = await DevelopmentCA.create({ clock: () => network.clock.time! });
    folder = join(newFolder(), "keys");
    openKeys(folder);
    factory = { certificates: ca.factory.chain, key: importKey(0, ca.factory.keyPkcs8) };
    memory = new Memory();
    await serve();
  });

  after(() => {
    Math.random = mathRandom;
    network.free();
    server?.free();
    for (const key of keysStored()) {
      destroyKey(key);
    }
    destroyKey(factory.key);
  });

  // ---- the server ----

  /** Certificates of clients by their digest, for resumed sessions. */
  const certificates = new Map<string, Uint8Array>();

  function clientOf(association: ServerAssociation): Client {
    const name = Buffer.from(association.peerDigest!).toString("hex");
    return {
      dtls: { certificate: certificates.get(name), unique: association.unique },
      send: (message) => network.send(association, message),
    };
  }

  /** The server with the CA as it is now, in place of the one before. */
  async function serve(): Promise<void> {
    network.serve(undefined);
    server?.free();
    if (serverKey !== undefined) {
      destroyKey(serverKey);
    }
    const identity = await ca.issueServer({ dnsNames: [], addresses: [SERVER.address] });
    serverKey = importKey(0, identity.keyPkcs8);
    server = new ServerEngine({ trust: ca.clientCAs, key: serverKey, chain: identity.chain });
    const answer = estHandler({ ca, lifetime: LIFETIME_DAYS * 86400, attributes: "proof-of-possession" });
    coap = new CoAPServer<Client>({
      handler: async (request) => {
        working++;
        try {
          return await answer(request);
        } finally {
          working--;
        }
      },
    });
    // Before anything is asked: a device may lose its power between the handshake and its request.
    network.onOpen = (association) => {
      const { peerCertificate } = association;
      if (peerCertificate !== undefined) {
        certificates.set(Buffer.from(association.peerDigest!).toString("hex"), peerCertificate);
      }
    };
    serveCoAP(network, coap, clientOf);
    network.serve(server);
  }

  // ---- the device ----

  let clockOffset = 0;

  function clockOf(): Clock {
    const { time } = network;
    const started = time.now;
    return {
      get ticks() {
        return time.now - started;
      },
      get time() {
        return network.clock.time! + clockOffset;
      },
      get uptime() {
        return time.now;
      },
    };
  }

  function storeOf(power: Power): KeyValueStore {
    const check = () => {
      if (!power.step("write")) {
        throw new PowerCut();
      }
    };
    return {
      read: (key) => memory.values.get(key)?.slice().buffer as ArrayBuffer | undefined,
      write: (key, value) => {
        check();
        memory.values.set(key, value instanceof Uint8Array ? value.slice() : new Uint8Array(value.slice(0)));
        check();
      },
      delete: (key) => {
        check();
        memory.values.delete(key);
        check();
      },
      close: () => {},
    };
  }

  /** One wake, to its end or to the end of its power. */
  async function wakeOnce(power: Power): Promise<{ error?: Error; operations: readonly string[]; notes: string[] }> {
    const timer: Timer = {
      set: (callback, delay) =>
        network.time.set(() => {
          if (power.step()) {
            callback();
          }
        }, delay),
      clear: (id) => network.time.clear(id),
    };
    const Base = network.UDP;
    class Radio extends Base {
      override write(datagram: Uint8Array, address: string, port: number): void {
        if (power.step()) {
          (super.write as UDP["write"])(datagram, address, port);
        }
      }
    }
    const host = {
      UDP: Radio as typeof Base,
      timer,
      clock: clockOf(),
      store: storeOf(power),
      retain: (length: number) => {
        if (memory.retained.length !== length) {
          memory.retained = new Uint8Array(length);
        }
        return { bytes: memory.retained };
      },
    };
    const result: { error?: Error; operations: string[]; notes: string[] } = { operations: [], notes: [] };
    let isOver = false;
    wake(host, {
      ...{ operation: "run", address: SERVER.address, port: SERVER.port, host: SERVER.address },
      ...{ trust: [roots[0]!], factory, geometry: { slots: 2, slotBytes: 512 }, blockSize: 1024, maxBody: 8192 },
    })
      .then(
        ({ operations, association }) => {
          result.operations = operations.map(({ operation }) => operation);
          result.notes = association.notes;
        },
        (error: Error) => {
          result.error = error;
        },
      )
      .finally(() => {
        isOver = true;
      });
    while (!isOver && !power.isOff) {
      await new Promise((resolve) => setImmediate(resolve));
      if (working === 0 && !isOver && !(await network.time.step())) {
        await network.time.settle();
      }
    }
    if (power.isOff) {
      for (const udp of [...network.open]) {
        udp.close();
      }
      result.error ??= new PowerCut();
    }
    return result;
  }

  const keysStored = (): number[] =>
    (existsSync(folder) ? readdirSync(folder) : []).map((name) => Number.parseInt(name, 16));

  /** What must hold whenever the power goes. */
  function assertSound(day: number): Identity | undefined {
    const identity = new IdentityStore(storeOf(new Power())).current; // throws where key and certificate do not match
    const stored = keysStored();
    assert.ok(stored.length <= 2, `day ${day}: ${stored.length} keys`);
    if (identity !== undefined) {
      assert.ok(stored.includes(identity.key));
      assert.deepEqual(parseCertificate(identity.certificates[0]!).publicKey, publicKey(identity.key));
    }
    return identity;
  }

  /** Of the factory: what the device trusts to begin with. */
  let roots: Uint8Array[] = [];

  it("holds one matching pair whatever happens, leaks no key, and ends enrolled", async function () {
    this.timeout(600_000);
    roots = [ca.root];
    const started = network.time.now;
    const counts = { wakes: 0, connected: 0, certificates: 0, recoveries: 0, failures: 0, killed: 0 };
    let before: ReturnType<typeof parseCertificate> | undefined;
    const seen = new Set<string>();
    let expiredDays = 0;
    let estimated = 0;
    let awayFrom = Number.POSITIVE_INFINITY;
    for (let day = 0; day < DAYS; day++) {
      const isReset = day >= CLOCK_RESET.from && day < CLOCK_RESET.from + CLOCK_RESET.days;
      clockOffset = isReset ? Date.UTC(2000, 0, 1) - network.clock.time! + (day - CLOCK_RESET.from) * DAY : 0;
      const { at, now, next } = statusOf(storeOf(new Power()), clockOf());
      const isDue = at <= now;
      if (isDue && next === "renewal" && day > OUTAGE.after && awayFrom > day) {
        awayFrom = day;
      }
      const isAway = day >= awayFrom && day < awayFrom + OUTAGE.days;
      if (ROLLOVERS.includes(day)) {
        ca = await ca.rollOver();
        roots.push(ca.root);
      }
      if (ROLLOVERS.includes(day) || day % SERVER_RENEWAL === 0 || day === awayFrom + OUTAGE.days) {
        await serve();
      }
      if (isAway) {
        network.serve(undefined);
      }
      const isKilled = random() < (isDue ? KILLED_AT_WORK : KILLED);
      const kind = random() < 0.5 ? "any" : "write";
      const power = isKilled ? new Power(Math.floor(random() * (kind === "any" ? STEPS : WRITES)), kind) : new Power();
      const { error, operations, notes } = await wakeOnce(power);
      const identity = assertSound(day);
      counts.wakes++;
      counts.connected += operations.length > 0 || (error !== undefined && !(error instanceof PowerCut)) ? 1 : 0;
      counts.killed += error instanceof PowerCut ? 1 : 0;
      counts.failures += error !== undefined && !(error instanceof PowerCut) ? 1 : 0;
      estimated += notes.some((note) => /estimated/.test(note)) ? 1 : 0;
      if (error !== undefined && !(error instanceof PowerCut)) {
        seen.add(`${error.name}: ${error.message}`);
        assert.ok(
          isAway || /did not finish|acknowledgement|response/.test(error.message),
          `day ${day}: ${error.stack}`,
        );
      }
      const own = identity && parseCertificate(identity.certificates[0]!);
      if (own !== undefined && (before === undefined || !sameBytes(own.der, before.der))) {
        counts.certificates++;
        counts.recoveries += before !== undefined && before.notAfter * 1000 < network.clock.time! ? 1 : 0;
        before = own;
      }
      if (own !== undefined && own.notAfter * 1000 < network.clock.time!) {
        expiredDays++;
        assert.ok(day >= awayFrom && day <= awayFrom + OUTAGE.days + 3, `day ${day}: expired`);
      }
      const tomorrow = started + (day + 1) * DAY;
      await network.time.advance(Math.max(0, tomorrow - network.time.now));
    }
    console.log(
      `      ${JSON.stringify({ ...counts, expiredDays, estimated, rollovers: roots.length - 1 })}\n      ${[...seen].join("\n      ")}`,
    );

    // Once more with the power on: it ends enrolled, by the last CA, with one key.
    await wakeOnce(new Power());
    const identity = assertSound(DAYS)!;
    const own = parseCertificate(identity.certificates[0]!);
    assert.ok(own.notAfter * 1000 > network.clock.time!);
    assert.deepEqual(own.issuer, parseCertificate(ca.issuing).subject);
    const status = statusOf(storeOf(new Power()), clockOf());
    assert.deepEqual([status.problem, status.basis], [undefined, "clock"]);
    assert.equal(status.anchors.length, 2, "the last root, and the key before it");
    assert.ok(counts.certificates >= 55 && counts.certificates <= 70, `${counts.certificates} certificates`);
    assert.equal(counts.recoveries, 1, "with the factory identity after the outage");
    assert.ok(expiredDays > 0, "the certificate expired in the outage");
    assert.ok(counts.killed >= 15, `${counts.killed}`);
    assert.ok(estimated >= CLOCK_RESET.days / 2, `${estimated}`);
  });
});
