/** What the schedule remembers and what a request on its way is, in storage; and wakes without a trusted clock. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { clock, timer, UDP } from "../../hosts/node/io.js";
import { openKeys } from "../../hosts/node/native.js";
import { DeviceState, MemoryState } from "../../hosts/node/storage.js";
import { AssociationReport } from "../../src/dtls/socket.js";
import { Enrolment } from "../../src/enrollment/enrolment.js";
import { IdentityError, IdentityStore } from "../../src/enrollment/identity.js";
import {
  deleteLife,
  readLife,
  readPending,
  readWishes,
  writeLife,
  writePending,
  writeWishes,
} from "../../src/enrollment/life.js";
import { DEFAULT_POLICY, type Life, NEW_LIFE } from "../../src/enrollment/schedule.js";
import { reset, statusOf } from "../../src/enrollment/status.js";
import { wake } from "../../src/enrollment/wake.js";
import { ESTError } from "../../src/est/client.js";
import type { Clock, KeyValueStore } from "../../src/io.js";
import { parseCertificate } from "../../src/pki/certificate.js";
import { importKey, KEY_FIRST, KEY_LAST, keyExists } from "../../src/pki/key.js";
import { type EstServer, type EstServerOptions, startEstServer } from "../../tools/est-server/server.js";
import { TestCA } from "../support/certificates.js";
import { newFolder } from "../support/command.js";
import { enrollRequest } from "../vectors/rfc9148.js";

const LIFE: Life = {
  time: 2_000_000_000,
  uptime: 123_456,
  sleep: 86_400,
  trustedAt: 1_999_000_000,
  retryAt: 2_000_000_060,
  failures: 3,
  refusals: 2,
  distrusts: 1,
  error: "the server refused sren with 5.03",
};

describe("the memory of the schedule", () => {
  let store: KeyValueStore;

  beforeEach(() => {
    store = new MemoryState().open("torpor");
  });

  it("is as it was written, with and without an uptime", () => {
    assert.deepEqual(readLife(store), NEW_LIFE);
    writeLife(store, LIFE);
    assert.deepEqual(readLife(store), LIFE);
    writeLife(store, { ...LIFE, uptime: undefined, error: "" });
    assert.deepEqual(readLife(store), { ...LIFE, uptime: undefined, error: "" });
  });

  it("keeps 120 characters of an error, and no control characters", () => {
    writeLife(store, { ...LIFE, error: `\u001b[31m${"ä".repeat(200)}\u{1f511}` });
    assert.match(readLife(store).error, /^\?\[31m\?{115}$/);
  });

  it("begins anew where it is corrupt: no bit of it is believed", () => {
    writeLife(store, LIFE);
    const whole = new Uint8Array(store.read("life")!).slice();
    for (let at = 0; at < whole.length; at++) {
      const bytes = whole.slice();
      bytes[at]! ^= 1;
      store.write("life", bytes);
      assert.deepEqual(readLife(store), NEW_LIFE, `byte ${at}`);
    }
    for (const length of [0, 7, 8, 38, whole.length - 1]) {
      store.write("life", whole.subarray(0, length));
      assert.deepEqual(readLife(store), NEW_LIFE, `${length} bytes`);
    }
  });

  it("has beside it a request on its way and the server's wishes, which go together with it", () => {
    const wishes = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    for (const operation of ["sen", "sren"] as const) {
      for (const request of [Uint8Array.of(0x30, 0), new Uint8Array()]) {
        const pending = { operation, key: KEY_FIRST + 1, wishes, request };
        writePending(store, pending);
        assert.deepEqual(readPending(store), pending);
      }
    }
    writeWishes(store, Uint8Array.of(0x30, 0));
    assert.deepEqual(readWishes(store), Uint8Array.of(0x30, 0));
    store.write("pending", new Uint8Array(30));
    assert.equal(readPending(store), undefined, "a corrupt one counts as none");
    writeLife(store, LIFE);
    deleteLife(store);
    assert.deepEqual([readLife(store), readPending(store), readWishes(store)], [NEW_LIFE, undefined, undefined]);
  });
});

describe("a device", () => {
  const folder = newFolder();
  let main: EstServer;
  let factory: number;
  let state: DeviceState;
  const servers: EstServer[] = [];

  before(async () => {
    main = await startEstServer({ dir: folder });
    factory = importKey(0, main.ca.factory.keyPkcs8);
  });
  after(() => main.close());

  beforeEach(() => {
    state = new DeviceState(newFolder());
    openKeys(state.keys);
  });
  afterEach(async () => {
    for (const server of servers.splice(0)) {
      await server.close();
    }
  });

  async function serve(options: EstServerOptions): Promise<EstServer> {
    const server = await startEstServer({ ca: main.ca, ...options });
    servers.push(server);
    return server;
  }

  const run = (server: EstServer, device: Clock, operation: "run" | "sren" | "crts" = "run") =>
    wake(
      { UDP, timer, clock: device, store: state.open("torpor"), retain: (length) => state.retain(length) },
      {
        ...{ operation, address: "127.0.0.1", port: server.port, host: "127.0.0.1", trust: [main.ca.root] },
        factory: { certificates: main.ca.factory.chain, key: factory },
        geometry: { slots: 4, slotBytes: 512 },
        blockSize: 1024,
        policy: { ...DEFAULT_POLICY, firstRetry: 1 },
      },
    );

  const own = () => {
    const record = state.open("torpor").read("identity")!;
    return parseCertificate(new Uint8Array(record).subarray(15, 15 + new DataView(record).getUint16(13)));
  };

  /** A clock that counts from power-on, and knows no date. */
  const dateless = (uptime: number): Clock => ({
    get ticks() {
      return clock.ticks;
    },
    time: undefined,
    uptime: uptime * 1000,
  });

  it("without a trusted clock goes by its certificate and its uptime, and says so", async () => {
    const boot = await run(main, dateless(10));
    assert.ok(boot.association.notes.some((note) => /no trusted clock: the time is estimated/.test(note)));
    assert.equal(boot.association.timeChecked, false);
    assert.equal(boot.schedule?.basis, "estimate");
    const { notBefore, notAfter } = own();
    assert.equal(readLife(state.open("torpor")).time, notBefore);
    // Two thirds of the lifetime, give or take a twenty-fourth.
    const lifetime = notAfter - notBefore;
    const early = await run(main, dateless(10 + lifetime * 0.6));
    assert.deepEqual([early.operations.length, early.schedule?.next], [0, "renewal"]);
    const before = own().serialNumber;
    const due = await run(main, dateless(10 + lifetime * 0.72));
    assert.deepEqual(
      due.operations.map(({ operation }) => operation),
      ["crts", "att", "sren"],
    );
    assert.notDeepEqual(own().serialNumber, before);
  });

  it("makes its key and its request while the server answers: the first datagram is out before", async () => {
    await run(main, clock);
    const order: string[] = [];
    class RecordingUDP extends UDP {
      override write(...args: Parameters<UDP["write"]>): void {
        order.push("datagram");
        super.write(...args);
      }
    }
    const store = state.open("torpor");
    const recording: KeyValueStore = {
      read: (key) => store.read(key),
      write: (key, value) => {
        order.push(key);
        store.write(key, value);
      },
      delete: (key) => store.delete(key),
      close: () => store.close(),
    };
    await wake(
      { UDP: RecordingUDP, timer, clock, store: recording, retain: (length) => state.retain(length) },
      {
        ...{ operation: "sren", address: "127.0.0.1", port: main.port, host: "127.0.0.1", trust: [main.ca.root] },
        ...{ resume: "none", geometry: { slots: 4, slotBytes: 512 }, blockSize: 1024 },
      },
    );
    // The request is kept in storage as soon as it is made (life.ts).
    assert.ok(order.includes("pending"));
    assert.equal(order[0], "datagram");
  });

  it("with a clock that was set back goes on by what it knows, and by the clock once it is right", async () => {
    await run(main, clock);
    const wrong: Clock = { ...dateless(5), time: Date.UTC(2001, 0, 1) };
    const idle = await run(main, wrong);
    assert.deepEqual([idle.operations.length, idle.schedule?.basis], [0, "estimate"]);
    const right = await run(main, clock);
    assert.equal(right.schedule?.basis, "clock");
  });

  it("goes back to the factory identity where the server says twice that its certificate has expired", async () => {
    const brief = await serve({ lifetime: 2 });
    await run(brief, dateless(10));
    const first = own().serialNumber;
    await new Promise((resolve) => setTimeout(resolve, 3000));
    // The device has no clock: for it the minute that the certificate was backdated by has not passed.
    const store = state.open("torpor");
    await assert.rejects(run(main, dateless(56)), /alert .*certificate/);
    assert.deepEqual([readLife(store).refusals, readLife(store).failures], [1, 1]);
    await assert.rejects(run(main, dateless(60)), /alert .*certificate/);
    assert.equal(readLife(store).refusals, 2);
    const line = await run(main, dateless(64));
    assert.deepEqual(
      line.operations.map(({ operation }) => operation),
      ["crts", "att", "sen"],
    );
    assert.notDeepEqual(own().serialNumber, first);
    assert.equal(readLife(store).refusals, 0);
  });

  it("keeps one request on its way: another operation has a key of its own, and only one key is left in the end", async () => {
    await run(main, clock);
    const busy = await serve({ busy: 2, busyFor: 1 });
    const store = state.open("torpor");
    await assert.rejects(run(busy, clock, "sren"), ESTError);
    const first = readPending(store)!;
    assert.ok(keyExists(first.key));
    await assert.rejects(run(busy, clock, "sren"), ESTError);
    assert.deepEqual(readPending(store), first, "the same request again");
    const strict = await serve({ refuse: "no" });
    await assert.rejects(run(strict, clock, "sren"), /4\.03/);
    assert.equal(readPending(store), undefined);
    assert.ok(!keyExists(first.key), "what was refused is not asked again");
    assert.equal((await run(main, clock, "sren")).operations[0]?.code, "2.04");
  });

  it("connects anew where crts brings other trust anchors over a resumed session: nobody saw the server's chain", async () => {
    const other = (await TestCA.create("CN=One more root")).root;
    const certificates = [...main.ca.certificates];
    const server = await serve({ lifetime: 20, caCertificates: certificates, connectionIds: false });
    await run(server, clock);
    await run(server, clock, "crts");
    certificates.push(other);
    // Valid from a minute before to 20 seconds after it was issued: renewal is due at once.
    const line = await run(server, clock);
    assert.deepEqual(
      line.operations.map(({ operation, code }) => `${operation} ${code}`),
      ["crts 2.05", "att 2.05", "sren 2.04"],
    );
    assert.equal(line.association.way, "full", "with the anchors that it has now");
    assert.equal(line.association.roundTrips, 5, "two by the session, three anew");
    assert.equal(server.stats.resumed, 1);
    assert.equal(statusOf(state.open("torpor"), clock).anchors.length, 2);
  });

  it("wipes the private key that a server made once it is stored, and also where it is refused", async () => {
    const { certificate, privateKey } = await main.ca.issueWithKey(enrollRequest, { lifetime: 60 });
    const another = (await main.ca.issueWithKey(enrollRequest, { lifetime: 60 })).privateKey;
    const store = state.open("torpor");
    const identities = new IdentityStore(store);
    const identity = { certificates: [certificate], key: factory };
    for (const key of [another, privateKey]) {
      const enrolment = new Enrolment("skg", {
        ...{ store, identities, identity, attributes: [], association: new AssociationReport(), options: {} },
      });
      const answer = { code: 0x44, body: certificate, certificates: [certificate], privateKey: key };
      if (key === another) {
        assert.throws(() => enrolment.keepServerKey(answer, 0), IdentityError);
        enrolment.end("give up");
        assert.equal(identities.current, undefined);
      } else {
        enrolment.keepServerKey(answer, 0);
        assert.deepEqual(identities.current!.certificates[0], certificate);
      }
      assert.ok(
        key.every((byte) => byte === 0),
        "wiped",
      );
    }
    identities.erase();
  });

  it("is as the factory left it after a reset: no key, no certificate, no trust", async () => {
    await run(main, clock);
    const store = state.open("torpor");
    reset(store);
    for (const key of ["identity", "trust", "life", "pending", "csrattrs"]) {
      assert.equal(store.read(key), undefined, key);
    }
    for (let key = KEY_FIRST; key <= KEY_LAST; key++) {
      assert.ok(!keyExists(key));
    }
    const { certificate, next, anchors } = statusOf(store, clock);
    assert.deepEqual([certificate, next, anchors], [undefined, "bootstrap", []]);
  });
});
