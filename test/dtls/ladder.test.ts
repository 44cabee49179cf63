/**
 * The ways back of a DTLSSocket, from the cheapest down: a saved association with a connection ID, session id, ticket,
 * full handshake. The real client and server engines, joined in one process, in virtual time.
 */

import { strict as assert } from "node:assert";
import { dtlsHeap } from "../../hosts/node/native.js";
import { MemoryState } from "../../hosts/node/storage.js";
import { buildFingerprint } from "../../src/dtls/engine.js";
import { ResumptionMemory } from "../../src/dtls/resumption.js";
import { AssociationReport, DTLSSocket, type DTLSSocketOptions } from "../../src/dtls/socket.js";
import { destroyKey, importKey, type KeyId } from "../../src/pki/key.js";
import { type Session, SessionTable, type SessionTableOptions, SLOT_OVERHEAD_BYTES } from "../../src/session/table.js";
import { ServerEngine, type ServerEngineOptions } from "../../tools/est-server/engine.js";
import { TestCA, type TestIdentity } from "../support/certificates.js";
import { type Carried, ContentType, JoinedNetwork, SERVER } from "../support/joined.js";

const CONTEXT_PATIENCE = 4000;
const SOON = 1000;
const STATE = Uint8Array.of(7, 7, 7);
/** Where a record has epoch and sequence number (RFC 6347 section 4.1), and its connection ID (RFC 9146 section 4). */
const EPOCH_AT = 3;
const SEQUENCE_END = 11;
const CONNECTION_ID_END = 15;
const CLIENT_HELLO = 1;
/** The last byte of what the table's header says of the first slot. */
const FIRST_STATE_END = 39;

interface Connection {
  readonly socket: DTLSSocket;
  readonly report: AssociationReport;
  readonly messages: string[];
  readonly errors: Error[];
  /** "open" and "restart", in the order of the callbacks. */
  readonly events: string[];
}

const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text));
const hex = (array: Uint8Array): string => Buffer.from(array).toString("hex");

describe("the ways back of a DTLS socket", () => {
  let ca: TestCA;
  let serverIdentity: TestIdentity;
  let device: TestIdentity;
  let deviceKey: KeyId;
  let serverKey: KeyId;
  let network: JoinedNetwork;
  let retained: Uint8Array;
  let sessions: SessionTable;
  let memory: ResumptionMemory;
  let heapBefore: number;
  const servers: ServerEngine[] = [];
  const sockets: DTLSSocket[] = [];

  before(async () => {
    ca = await TestCA.create();
    serverIdentity = await ca.issue({ subject: "CN=est", dnsNames: ["est.example.net", "est.example.org"] });
    device = await ca.issue({ subject: "CN=device 1", usage: "client" });
    deviceKey = importKey(0, device.pkcs8);
    serverKey = importKey(0, serverIdentity.pkcs8);
  });
  after(() => {
    destroyKey(deviceKey);
    destroyKey(serverKey);
  });

  beforeEach(() => {
    network = new JoinedNetwork();
    memory = new ResumptionMemory(new MemoryState().open("memory"), network.clock);
    newTable();
    heapBefore = dtlsHeap().now;
    serve();
  });
  afterEach(() => {
    for (const socket of sockets.splice(0)) {
      socket.close();
    }
    endServers();
  });

  function endServers(): void {
    network.free();
    for (const server of servers.splice(0)) {
      server.free();
    }
  }

  function serve(options: Partial<ServerEngineOptions> = {}): void {
    const server = new ServerEngine({ trust: [ca.root], key: serverKey, chain: serverIdentity.chain, ...options });
    servers.push(server);
    network.serve(server);
  }

  function newTable(slotBytes = 512): void {
    retained = new Uint8Array(SessionTable.byteLength({ slots: 4, slotBytes }));
    openTable({ slotBytes });
  }

  /** Opens the table anew, as a wake does. */
  function openTable(options: Partial<SessionTableOptions> = {}): void {
    sessions = new SessionTable(retained, { clock: network.clock, fingerprint: buildFingerprint(), ...options });
  }

  function start(options: Partial<DTLSSocketOptions> = {}): Connection {
    const buffer = new Uint8Array(2048);
    const connection: Omit<Connection, "socket"> = {
      report: new AssociationReport(),
      messages: [],
      errors: [],
      events: [],
    };
    const socket = new DTLSSocket({
      ...SERVER,
      host: "est.example.net",
      socket: { io: network.UDP },
      timer: network.time,
      clock: network.clock,
      secure: { trustAnchors: [ca.root], certificates: device.chain, key: deviceKey },
      sessions,
      memory,
      report: connection.report,
      onWritable: () => connection.events.push("open"),
      onRestart: () => connection.events.push("restart"),
      onReadable: () => {
        for (let length = socket.read(buffer); length !== undefined; length = socket.read(buffer)) {
          connection.messages.push(Buffer.from(buffer.subarray(0, length)).toString());
        }
      },
      onError: (error) => connection.errors.push(error),
      ...options,
    });
    sockets.push(socket);
    return { ...connection, socket };
  }

  /** Connects, and sends a message, again where the association was made anew; without the sleep. */
  async function awake(options: Partial<DTLSSocketOptions> = {}, text = "wake"): Promise<Connection> {
    const connection = start({
      onWritable: () => {
        connection.events.push("open");
        connection.socket.write(bytes(text));
      },
      ...options,
    });
    await network.time.advance(SOON);
    return connection;
  }

  /** A whole wake without hindrance, put away as a device does it. */
  async function wake(options: Partial<DTLSSocketOptions> = {}): Promise<AssociationReport> {
    const { socket, messages, errors, report } = await awake(options);
    assert.deepEqual([messages, errors], [["wake"], []], report.notes.join());
    socket.sleep(STATE);
    await network.time.advance(SOON);
    return report;
  }

  const sentSince = (index: number): Carried[] =>
    network.trace.slice(index).filter(({ direction }) => direction === "out");
  const helloCount = (from: number): number =>
    sentSince(from).filter(({ bytes }) => bytes[0] === ContentType.HANDSHAKE && bytes[13] === CLIENT_HELLO).length;
  const stored = () => sessions.get(SERVER);

  /** No two different records under one key have the same nonce: epoch and sequence number, by connection ID. */
  function assertNoNonceTwice(): void {
    const seen = new Map<string, string>();
    for (const { bytes } of sentSince(0)) {
      if (bytes[0] === ContentType.CONNECTION_ID) {
        const nonce = hex(bytes.subarray(EPOCH_AT, CONNECTION_ID_END));
        assert.equal(seen.get(nonce) ?? hex(bytes), hex(bytes), `nonce ${nonce} twice`);
        seen.set(nonce, hex(bytes));
      }
    }
    assert.ok(seen.size > 0, "no records with a connection ID");
  }

  // ---- the saved association ----

  it("sends the message at once over a saved association: no handshake byte, from another port, as often as one likes", async () => {
    const first = await wake();
    assert.equal(first.way, "full");
    for (let i = 0; i < 40; i++) {
      openTable();
      const from = network.trace.length;
      const report = await wake();
      assert.equal(report.way, "context", report.notes.join());
      assert.deepEqual({ ...report.handshake }, { bytesOut: 0, bytesIn: 0, datagramsOut: 0, datagramsIn: 0 });
      assert.deepEqual([report.roundTrips, report.notes], [0, []]);
      const [out] = sentSince(from);
      assert.equal(out!.bytes[0], ContentType.CONNECTION_ID);
      assert.equal(out!.bytes.length, "wake".length + report.overhead);
    }
    assert.deepEqual([network.ended.closed, network.ended.failed], [0, 0]);
    assertNoNonceTwice();
  });

  it("gives the layer above the state that it gave to sleep, and none after a handshake", async () => {
    const { socket } = await awake();
    assert.equal(socket.state, undefined);
    socket.sleep(STATE);
    const second = await awake();
    assert.deepEqual(second.socket.state, STATE);
    second.socket.sleep(new Uint8Array());
    assert.deepEqual((await awake()).socket.state, new Uint8Array());
  });

  it("has marked the context as used, committed, before the first datagram leaves", async () => {
    await wake();
    let commits = 0;
    const copies: Uint8Array[] = [];
    openTable({ commit: () => commits++ });
    network.writeError = () => {
      copies.push(retained.slice());
      return undefined;
    };
    const before = commits;
    await awake();
    assert.ok(commits > before);
    retained.set(copies[0]!);
    openTable();
    assert.equal(stored()!.isUsed, true);
    assert.equal(sessions.use(SERVER), false);
  });

  it("after a crash never sends over the old association, and resumes by the session id that was in it", async () => {
    await wake();
    const crashed = await awake();
    assert.equal(crashed.report.way, "context");
    const used = hex(sentSince(0).at(-1)!.bytes.subarray(SEQUENCE_END, CONNECTION_ID_END));
    // The process is gone: nothing is saved, nothing is said.
    const from = network.trace.length;
    openTable();
    const report = await wake();
    assert.deepEqual([report.way, report.roundTrips], ["session", 2]);
    for (const { bytes } of sentSince(from)) {
      assert.notEqual(hex(bytes.subarray(SEQUENCE_END, CONNECTION_ID_END)), used);
    }
    assert.equal((await wake()).way, "context");
    assertNoNonceTwice();
  });

  it("crashes at each wake and still comes back by session id, or by a full handshake where there is none", async () => {
    for (const [options, expected] of [
      [{}, "session"],
      [{ sessionIds: false, tickets: false }, "full"],
    ] as const) {
      newTable();
      serve(options);
      await wake();
      for (let i = 0; i < 5; i++) {
        openTable();
        await awake();
        openTable();
        const report = await wake();
        assert.equal(report.way, expected);
      }
    }
    assertNoNonceTwice();
  });

  it("goes down to the session id where the server has forgotten the association, after one short patience", async () => {
    await wake();
    network.forget();
    const from = network.trace.length;
    const { socket, report, events, messages } = await awake();
    assert.deepEqual([report.way, events], ["context", ["open"]]);
    await network.time.advance(CONTEXT_PATIENCE);
    assert.deepEqual(events, ["open", "restart", "open"]);
    assert.deepEqual([report.way, messages], ["session", ["wake"]]);
    assert.equal(socket.state, undefined);
    assert.match(report.notes.join(), /the restored association is of no use, the server does not answer/);
    // One datagram over the association, then a hello and the one with the cookie.
    assert.deepEqual(
      sentSince(from)
        .map(({ bytes }) => bytes[0])
        .slice(0, 3),
      [ContentType.CONNECTION_ID, ContentType.HANDSHAKE, ContentType.HANDSHAKE],
    );
    assert.equal(helloCount(from), 2);
    socket.sleep(STATE);
    assert.equal((await wake()).way, "context");
    assertNoNonceTwice();
  });

  it("has overwritten the keys of the association with the session alone once it is down", async () => {
    await wake();
    const context = stored()!.data.slice();
    network.forget();
    await awake();
    await network.time.advance(CONTEXT_PATIENCE);
    assert.equal(stored()!.isContext, false);
    assert.ok(stored()!.data.length < context.length);
    // The randoms of the handshake are what the keys are derived from, besides the session.
    const randoms = hex(context.subarray(-110, -50));
    assert.ok(!hex(retained).includes(randoms));
  });

  it("waits as long as it is told, and not at all where nothing is sent", async () => {
    await wake();
    network.forget();
    const secure = { trustAnchors: [ca.root], certificates: device.chain, key: deviceKey, contextPatience: 500 };
    const idle = start({ secure });
    await network.time.advance(100_000);
    assert.deepEqual(idle.events, ["open"]);
    idle.socket.write(bytes("late"));
    await network.time.advance(499);
    assert.deepEqual(idle.events, ["open"]);
    await network.time.advance(1);
    assert.deepEqual(idle.events, ["open", "restart"]);
    await network.time.advance(SOON);
    assert.equal(idle.report.way, "session");
  });

  it("makes a full handshake where the server has lost sessions too: each step once", async () => {
    await wake();
    serve();
    const from = network.trace.length;
    const { report, messages } = await awake();
    await network.time.advance(CONTEXT_PATIENCE + SOON);
    assert.deepEqual([report.way, messages], ["full", ["wake"]]);
    assert.equal(helloCount(from), 2, "the server answers the resumption with a full handshake: no second hello");
    assert.equal(report.notes.length, 2);
  });

  it("fails with the error of a silent server where nobody is there, and keeps the session for the next wake", async () => {
    await wake();
    network.serve(undefined);
    const { errors, events } = await awake();
    await network.time.advance(CONTEXT_PATIENCE + 60_000 + SOON);
    assert.equal(errors.length, 1);
    assert.match(errors[0]!.message, /did not finish the DTLS handshake/);
    assert.deepEqual(events, ["open", "restart"]);
    assert.deepEqual([stored()!.isContext, stored()!.kind], [false, "session"]);
  });

  it("goes down at once where the server ends the restored association", async () => {
    await wake();
    const [goodbye] = network.goodbye();
    const connection = start();
    await network.time.advance(1);
    network.deliver([goodbye!]);
    await network.time.advance(SOON);
    assert.deepEqual(connection.events, ["open", "restart", "open"]);
    assert.equal(connection.report.way, "session");
    assert.match(connection.report.notes.join(), /the server closed the association/);
  });

  it("takes the end of a restored association that has answered for what it is", async () => {
    await wake();
    const { errors, messages } = await awake();
    assert.deepEqual(messages, ["wake"]);
    const [goodbye] = network.goodbye();
    network.deliver([goodbye!]);
    await network.time.advance(SOON);
    assert.match(errors[0]!.message, /the server closed the association/);
  });

  it("leaves nothing behind where the callback of a restart closes it", async () => {
    await wake();
    network.forget();
    const connection = await awake({ onRestart: () => connection.socket.close() });
    await network.time.advance(CONTEXT_PATIENCE + SOON);
    assert.deepEqual([connection.errors, network.open.size, network.time.pending], [[], 0, 0]);
    endServers();
    assert.equal(dtlsHeap().now, heapBefore);
  });

  // ---- what is saved, and what is not ----

  it("does not take a record of the server that it has seen before, in whichever wake", async () => {
    await wake();
    const old = network.trace.filter(({ direction }) => direction === "in").at(-1)!.bytes;
    const { messages } = await awake({}, "new");
    network.deliver([old, old]);
    await network.time.advance(SOON);
    assert.deepEqual(messages, ["new"]);
  });

  it("saves an association after a resumption as after a full handshake, and keeps the session's age", async () => {
    await wake();
    const { created } = stored()!;
    await network.time.advance(60_000);
    assert.equal((await wake()).way, "context");
    assert.equal(stored()!.created, created);
    network.forget();
    const { socket } = await awake();
    await network.time.advance(CONTEXT_PATIENCE);
    socket.sleep(STATE);
    assert.deepEqual([stored()!.isContext, stored()!.created], [true, created]);
    await network.time.advance(86400_000);
    assert.equal((await wake()).way, "full");
    assert.ok(stored()!.created > created);
  });

  it("does not save an association of which the server may not know that it is open", async () => {
    await wake();
    await awake(); // used, and never saved: as by a crash
    openTable();
    const { socket, report } = start();
    await network.time.advance(SOON);
    assert.equal(report.way, "session");
    socket.sleep(STATE); // no message came since the abbreviated handshake
    assert.equal(stored()!.isContext, false);
    assert.equal((await wake()).way, "session");
  });

  it("says goodbye where there is nothing to go on with: the server has no connection IDs", async () => {
    serve({ connectionIds: false });
    const report = await wake();
    assert.deepEqual([report.way, stored()!.isContext, network.ended.closed], ["full", false, 1]);
    assert.equal((await wake()).way, "session");
  });

  it("keeps an association whose server resumes by nothing", async () => {
    serve({ sessionIds: false, tickets: false });
    await wake();
    assert.equal((await wake()).way, "context");
    network.forget();
    const { report } = await awake();
    await network.time.advance(CONTEXT_PATIENCE + SOON);
    assert.equal(report.way, "full");
  });

  it("leaves a ticket out that does not fit beside the association, and has it where there is room", async () => {
    let slotBytes = 2048;
    for (const [kind, expected] of [
      ["ticket", "ticket"],
      ["none", "full"],
    ] as const) {
      newTable(slotBytes);
      serve({ sessionIds: false });
      memory.note(SERVER, "ticket");
      await wake();
      assert.deepEqual([stored()!.isContext, stored()!.kind], [true, kind]);
      slotBytes = SLOT_OVERHEAD_BYTES + stored()!.data.length - 1;
      assert.equal((await wake()).way, "context");
      network.forget();
      const { report, socket } = await awake();
      await network.time.advance(CONTEXT_PATIENCE + SOON);
      assert.equal(report.way, expected);
      socket.close();
    }
  });

  it("comes back in every order of the ways, in one life", async () => {
    newTable(2048);
    const life: [ruin: "" | "forget" | "restart", options: Partial<DTLSSocketOptions>, way: string][] = [
      ["", {}, "full"],
      ["", {}, "context"],
      ["forget", {}, "session"],
      ["", {}, "context"],
      ["", { resume: "session" }, "session"],
      ["", {}, "session"],
      ["", {}, "context"],
      ["", { resume: "ticket" }, "full"],
      ["", { resume: "ticket" }, "ticket"],
      ["", {}, "full"],
      ["", { resume: "none" }, "full"],
      ["", {}, "context"],
      ["restart", {}, "full"],
      ["", {}, "context"],
    ];
    for (const [step, [ruin, options, way]] of life.entries()) {
      if (ruin === "forget") network.forget();
      if (ruin === "restart") serve();
      const { socket, report, messages } = await awake(options);
      await network.time.advance(ruin === "" ? 0 : CONTEXT_PATIENCE + SOON);
      assert.deepEqual([report.way, messages], [way, ["wake"]], `step ${step}: ${report.notes.join()}`);
      socket.sleep(STATE);
      await network.time.advance(SOON);
    }
    assertNoNonceTwice();
  });

  it("takes the session out of a context where only that is asked for, and the association is gone", async () => {
    await wake();
    assert.equal((await wake({ resume: "session" })).way, "session");
    assert.equal(stored()!.isContext, false);
    const from = network.trace.length;
    const report = await wake();
    assert.deepEqual([report.way, helloCount(from)], ["session", 2]);
  });

  it("does not offer a connection ID where it keeps no associations", async () => {
    for (const options of [{ resume: "session" }, { resume: "none" }, { sessions: undefined }] as const) {
      newTable();
      const { socket } = await awake(options);
      assert.notEqual(sentSince(0).at(-1)!.bytes[0], ContentType.CONNECTION_ID, JSON.stringify(Object.keys(options)));
      socket.close();
    }
  });

  it("has connection IDs of its own where told: the server's records are as much longer", async () => {
    const lengths: number[] = [];
    for (const connectionIdLength of [0, 4, 8]) {
      newTable();
      const secure = { trustAnchors: [ca.root], certificates: device.chain, key: deviceKey, connectionIdLength };
      await wake({ secure });
      const report = await wake({ secure });
      assert.equal(report.way, "context");
      lengths.push(report.application.bytesIn);
    }
    // Without an ID a record has no inner content type either.
    assert.deepEqual(lengths, [lengths[0], lengths[0]! + 5, lengths[0]! + 9]);
  });

  // ---- a context that cannot be used ----

  it("does not use the association where the mark cannot be stored, and takes the next way", async () => {
    await wake();
    const from = network.trace.length;
    // The lowest bit of a slot's state in the header is the mark.
    openTable({
      commit: () => {
        if (retained[FIRST_STATE_END]! % 2 === 1) throw new Error("flash full");
      },
    });
    const { report, messages } = await awake();
    assert.deepEqual(messages, ["wake"]);
    assert.notEqual(report.way, "context");
    assert.match(report.notes.join(), /not used: flash full/);
    assert.notEqual(sentSince(from)[0]!.bytes[0], ContentType.CONNECTION_ID);
  });

  it("connects all the same where the table cannot be written at all, by a way that needs no mark", async () => {
    await wake();
    await network.time.advance(2000);
    openTable({
      commit: () => {
        throw new Error("flash full");
      },
    });
    const { report, messages } = await awake();
    assert.deepEqual([messages, report.way], [["wake"], "session"]);
    assert.match(report.notes.join(), /table cannot be used: flash full/);
  });

  it("does not use an association that was made with another name, and does not lose it", async () => {
    await wake();
    const { socket, report } = start({ host: "est.example.org" });
    assert.equal(stored()!.isContext, true);
    socket.close();
    assert.equal((await wake()).way, "context");
    assert.notEqual(report.way, "context");
  });

  const broken: [what: string, change: (session: Session) => Uint8Array][] = [
    [
      "of another build of the library",
      ({ data }) => data.map((byte, at) => (at === 8 + 1 + 3 + 13 ? byte ^ 1 : byte)),
    ],
    ["whose end is missing", ({ data }) => data.slice(0, -1)],
    ["that is longer than it says", ({ data }) => Uint8Array.of(...data, 0)],
    ["of which only the beginning is there", ({ data }) => data.slice(0, 12)],
  ];
  for (const [what, change] of broken) {
    it(`makes a full handshake in place of a context ${what}`, async () => {
      await wake();
      const session = stored()!;
      sessions.insert({ ...session, kind: session.kind, data: change(session), isContext: true });
      const report = await wake();
      assert.equal(report.way, "full");
      assert.match(report.notes.join(), /cannot be restored/);
      endServers();
      assert.equal(dtlsHeap().now, heapBefore);
    });
  }

  it("is empty after an update with another build: the fingerprint differs", async () => {
    await wake();
    openTable({ fingerprint: buildFingerprint() ^ 1 });
    assert.equal((await wake()).way, "full");
  });
});
