/** The app that gets flashed (hosts/moddable/app.ts), on a device made of this process: what it does at each wake. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { live } from "../../hosts/moddable/app.js";
import type { Device, DeviceConfig, Factory } from "../../hosts/moddable/device.js";
import { clock, timer, UDP } from "../../hosts/node/io.js";
import { openKeys } from "../../hosts/node/native.js";
import { readPEM } from "../../hosts/node/pem.js";
import { DeviceState } from "../../hosts/node/storage.js";
import { IdentityStore } from "../../src/enrollment/identity.js";
import type { Clock, KeyValueStore } from "../../src/io.js";
import { importKey } from "../../src/pki/key.js";
import { type EstServer, startEstServer } from "../../tools/est-server/server.js";
import { newFolder } from "../support/command.js";

/** What a wake came to. */
interface Outcome {
  readonly line: {
    readonly wake: number;
    readonly host: string;
    readonly operation: string;
    readonly way?: string | null;
    readonly error?: string;
    readonly sleep: number;
    readonly timeChecked?: boolean | null;
    readonly operations?: readonly { readonly operation: string }[];
  };
  readonly sleep: number;
  readonly outcome: "done" | "failed";
}

/** A device whose parts a test can break. */
class TestDevice implements Device {
  readonly name = "test";
  reason = "sleep";
  config: DeviceConfig;
  readonly retained = { wakes: 0, failures: 0 };
  readonly UDP = UDP;
  readonly timer = timer;
  clock: Clock = clock;
  store: KeyValueStore;
  factoryIdentity: Factory;
  connects = 0;
  distrusted = 0;
  limits: { milliseconds: number; seconds: number; line: string }[] = [];
  noNetwork: Error | undefined;
  readonly #lines: string[] = [];
  readonly #memory = new Map<number, Uint8Array>();
  #asleep: ((slept: Outcome) => void) | undefined;

  constructor(store: KeyValueStore, config: DeviceConfig, factory: Factory) {
    this.store = store;
    this.config = config;
    this.factoryIdentity = factory;
  }

  retain(byteLength: number) {
    const bytes = this.#memory.get(byteLength) ?? new Uint8Array(byteLength);
    this.#memory.set(byteLength, bytes);
    return { bytes };
  }

  factory(): Factory {
    return this.factoryIdentity;
  }

  async connect(): Promise<void> {
    this.connects++;
    if (this.noNetwork !== undefined) {
      throw this.noNetwork;
    }
  }

  async resolve(name: string): Promise<string> {
    return name;
  }

  distrustClock(): void {
    this.distrusted++;
  }

  heap() {
    return { xsPeak: 0, dtlsPeak: 0 };
  }

  log(line: string): void {
    this.#lines.push(line);
  }

  limit(milliseconds: number, seconds: number, line: string): void {
    this.limits.push({ milliseconds, seconds, line });
  }

  sleep(seconds: number, outcome: "done" | "failed"): void {
    assert.equal(this.#lines.length, 1, "one line for each wake");
    this.#asleep!({ line: JSON.parse(this.#lines.pop()!), sleep: seconds, outcome });
  }

  /** One wake, until the device sleeps. */
  wakeUp(): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      this.#asleep = resolve;
      live(this).catch(reject);
    });
  }
}

describe("the app that gets flashed", () => {
  const folder = newFolder();
  let server: EstServer;
  let factory: Factory;
  let device: TestDevice;

  before(async () => {
    server = await startEstServer({ dir: folder });
    const read = (name: string, ...labels: string[]) => readPEM(readFileSync(join(folder, name)), ...labels);
    factory = {
      trust: read("ca.pem", "CERTIFICATE"),
      identity: {
        certificates: read("factory.pem", "CERTIFICATE"),
        key: importKey(0, read("factory.key", "PRIVATE KEY", "EC PRIVATE KEY")[0]!),
      },
    };
  });
  after(() => server.close());

  beforeEach(() => {
    const state = new DeviceState(join(newFolder(), "device"));
    openKeys(state.keys);
    const config = { server: `coaps://127.0.0.1:${server.port}`, patience: 15, retry: 60, retryMax: 600 };
    device = new TestDevice(state.open("torpor"), config, factory);
  });

  it("enrols at the first wake and does nothing at the next, without the radio", async () => {
    const first = await device.wakeUp();
    assert.equal(first.outcome, "done");
    assert.deepEqual(
      first.line.operations!.map(({ operation }) => operation),
      ["crts", "att", "sen"],
    );
    assert.equal(first.line.timeChecked, true);
    assert.equal(first.line.sleep, first.sleep);
    const second = await device.wakeUp();
    assert.equal(second.line.error, undefined);
    assert.deepEqual([second.line.operations, second.line.wake, second.outcome], [[], 2, "done"]);
    assert.equal(device.connects, 1);
    assert.equal(device.retained.failures, 0);
  });

  it("comes back without a handshake when something is due", async () => {
    await device.wakeUp();
    device.config = { ...device.config, operation: "crts" };
    await device.wakeUp();
    const { line } = await device.wakeUp();
    assert.equal(line.way, "context");
  });

  it("sleeps until its certificate is due, and renews it then", async () => {
    device.config = { ...device.config, interval: 31_536_000 };
    const first = await device.wakeUp();
    const certificate = new IdentityStore(device.store).current!.certificates[0]!;
    assert.ok(first.sleep < 31_536_000, `${first.sleep} s are less than the longest sleep`);
    const due = Date.now() + first.sleep * 1000;
    device.clock = { ticks: 0, time: due - 120_000 };
    assert.deepEqual((await device.wakeUp()).line.operations, []);
    device.clock = {
      get ticks() {
        return clock.ticks;
      },
      time: due,
    };
    const renewal = await device.wakeUp();
    assert.equal(renewal.line.operations?.at(-1)?.operation, "sren", JSON.stringify(renewal.line));
    assert.notDeepEqual(new IdentityStore(device.store).current!.certificates[0]!, certificate);
  });

  it("tells that there is no Wi-Fi, and sleeps longer after each failure up to a limit", async () => {
    device.noNetwork = new Error('no Wi-Fi: "home" gave no address within 20 s');
    const sleeps: number[] = [];
    for (let i = 0; i < 7; i++) {
      const { line, sleep, outcome } = await device.wakeUp();
      assert.equal(line.error, device.noNetwork.message);
      assert.equal(outcome, "failed");
      sleeps.push(sleep);
    }
    const expected = [60, 120, 240, 480, 600, 600, 600];
    sleeps.forEach((sleep, i) => {
      assert.ok(Math.abs(sleep - expected[i]!) <= expected[i]! / 8 + 1, `sleep ${i + 1}: ${sleep}, not ${expected[i]}`);
    });
    device.noNetwork = undefined;
    assert.equal((await device.wakeUp()).outcome, "done");
    assert.equal(device.retained.failures, 0);
  });

  it("gives up on a server that does not answer when its patience ends", async () => {
    const silent = createSocket("udp4");
    await new Promise<void>((bound) => silent.bind(0, "127.0.0.1", bound));
    try {
      device.config = { ...device.config, server: `coaps://127.0.0.1:${silent.address().port}`, patience: 5 };
      const { line, outcome } = await device.wakeUp();
      assert.match(line.error!, /^the server did not finish the DTLS handshake within 4 s/);
      assert.equal(outcome, "failed");
    } finally {
      silent.close();
    }
  });

  it("goes to sleep where the network neither comes nor fails", async () => {
    device.config = { ...device.config, patience: 5 };
    device.connect = () => new Promise(() => {});
    const { line, outcome } = await device.wakeUp();
    assert.deepEqual([line.error, outcome], ["the wake took longer than 5 s", "failed"]);
  });

  it("has its sleep arranged before it does anything, for a program that hangs", async () => {
    await device.wakeUp();
    const { milliseconds, seconds, line } = device.limits[0]!;
    assert.equal(milliseconds, 25_000);
    assert.ok(seconds >= 52 && seconds <= 68);
    assert.match(JSON.parse(line).error, /longer than 15 s/);
    assert.ok(line.length < 256);
  });

  it("sleeps before it tries again where the wake before crashed", async () => {
    device.connect = () => {
      throw new Error("no network in this test");
    };
    await device.wakeUp();
    for (const reason of ["panic", "watchdog", "brown-out", "reset"]) {
      device.reason = reason;
      const { line, sleep } = await device.wakeUp();
      assert.equal(line.error, `the wake before ended with a ${reason}`);
      assert.ok(Math.abs(sleep - 60) <= 9, `${sleep}`);
    }
    device.reason = "sleep";
    assert.match((await device.wakeUp()).line.error!, /no network in this test/);
    device.retained.failures = 0;
    device.reason = "reset";
    assert.match((await device.wakeUp()).line.error!, /no network in this test/, "nothing failed before: go on");
  });

  it("does not trust a clock that makes the server's certificate invalid", async () => {
    device.clock = {
      get ticks() {
        return clock.ticks;
      },
      time: Date.UTC(1980, 0, 1),
    };
    const { line, outcome } = await device.wakeUp();
    assert.match(line.error!, /not yet valid; is the clock right\?/);
    assert.equal(outcome, "failed");
    assert.equal(device.distrusted, 1);
    device.clock = {
      get ticks() {
        return clock.ticks;
      },
      time: undefined,
    };
    const next = await device.wakeUp();
    assert.deepEqual([next.outcome, next.line.timeChecked], ["done", false]);
  });

  it("says that it needs a factory identity, or a server, or a coaps URI", async () => {
    device.factoryIdentity = { trust: factory.trust, identity: undefined };
    assert.match((await device.wakeUp()).line.error!, /needs its factory certificate and key/);
    device.factoryIdentity = { trust: undefined, identity: factory.identity };
    assert.match((await device.wakeUp()).line.error!, /no trust anchor/);
    device.config = {};
    assert.match((await device.wakeUp()).line.error!, /no server: build the firmware with server=/);
    device.config = { server: "coap://127.0.0.1" };
    assert.match((await device.wakeUp()).line.error!, /expected server=coaps:/);
  });

  it("keeps what it had where storage is full at any of its writes, and finishes once there is room", async () => {
    for (let allowed = 0; allowed < 8; allowed++) {
      const state = new DeviceState(join(newFolder(), "device"));
      openKeys(state.keys);
      const store = state.open("torpor");
      let writes = 0;
      const full: KeyValueStore = {
        read: (key) => store.read(key),
        write: (key, value) => {
          if (writes++ >= allowed) {
            throw new Error(`cannot write ${key}: the storage is full`);
          }
          store.write(key, value);
        },
        delete: (key) => store.delete(key),
        close: () => {},
      };
      const fresh = new TestDevice(full, device.config, factory);
      const outcome = await fresh.wakeUp();
      if (outcome.outcome === "done") {
        assert.ok(allowed > 0);
        return;
      }
      assert.match(outcome.line.error!, /storage is full/);
      // Read without an error: there is none, or a whole one where only what is remembered after it had no room.
      void new IdentityStore(store).current;
      fresh.store = store;
      assert.equal((await fresh.wakeUp()).outcome, "done");
    }
    assert.fail("a first boot makes fewer than 8 writes");
  });

  it("takes numbers as mcconfig's command line gives them, and ignores those that make no sense", async () => {
    const texts = { interval: "120", block: "256", slots: "2", slotBytes: "NaN", patience: "-1", retry: "x" };
    device.config = { ...device.config, ...(texts as unknown as DeviceConfig) };
    const { outcome, sleep } = await device.wakeUp();
    assert.deepEqual([outcome, sleep], ["done", 120]);
    assert.equal(device.limits[0]!.milliseconds, 100_000);
  });

  it("asks for the groups that it is told, and says where its DTLS engine has none of that name", async () => {
    device.config = { ...device.config, groups: "secp256r1" };
    assert.equal((await device.wakeUp()).outcome, "done");
    device.config = { ...device.config, operation: "crts", groups: "X25519MLKEM768,secp256r1" };
    const { line, outcome } = await device.wakeUp();
    assert.equal(outcome, "failed");
    assert.match(line.error!, /does not have all of the groups X25519MLKEM768, secp256r1: mbedTLS/);
  });
});
