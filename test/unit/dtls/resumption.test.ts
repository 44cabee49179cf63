// What is remembered of servers' ways to resume: src/dtls/resumption.ts.
import { strict as assert } from "node:assert";
import { ResumptionMemory, type ResumptionWay } from "../../../src/dtls/resumption.js";
import { FormatError } from "../../../src/errors.js";
import type { KeyValueStore } from "../../../src/io.js";
import type { Peer } from "../../../src/session/table.js";

const START = 1_700_000_000_000;
const DAY = 86_400_000;
const KEY = "resumption";
const ENTRY_BYTES = 24;
const WAY_AT = 18;

class MemoryStore implements KeyValueStore {
  value: Uint8Array | undefined;
  writes = 0;
  /** Reads or writes throw this. */
  readError: Error | undefined;
  writeError: Error | undefined;

  read(key: string): ArrayBuffer | undefined {
    assert.equal(key, KEY);
    if (this.readError) throw this.readError;
    return this.value?.slice().buffer as ArrayBuffer | undefined;
  }

  write(key: string, value: ArrayBufferLike | Uint8Array): void {
    assert.equal(key, KEY);
    if (this.writeError) throw this.writeError;
    this.value = value instanceof Uint8Array ? value.slice() : new Uint8Array(value.slice(0));
    this.writes++;
  }

  delete(): void {
    throw new Error("nothing is deleted here");
  }

  close(): void {
    throw new Error("the store is the host's to close");
  }
}

const clock: { ticks: number; time: number | undefined } = { ticks: 0, time: START };
let store: MemoryStore;

/** As after a restart: nothing but the store is left. */
function open(): ResumptionMemory {
  return new ResumptionMemory(store, clock);
}

function peer(number: number): Peer {
  return { address: `192.0.2.${number}`, port: 5684 };
}

function waysTo(...numbers: number[]): ResumptionWay[] {
  return numbers.map((number) => open().wayTo(peer(number)));
}

describe("the memory of ways to resume", () => {
  beforeEach(() => {
    store = new MemoryStore();
    clock.time = START;
  });

  it("says session for a server that it does not know, and writes nothing", () => {
    assert.deepEqual(waysTo(1, 2), ["session", "session"]);
    assert.equal(store.writes, 0);
  });

  it("remembers what was noted of each server, by address and port", () => {
    open().note(peer(1), "ticket");
    open().note(peer(2), "full");
    open().note({ address: "192.0.2.1", port: 5685 }, "full");
    assert.deepEqual(waysTo(1, 2, 3), ["ticket", "full", "session"]);
    assert.equal(open().wayTo({ address: "192.0.2.1", port: 5685 }), "full");
    assert.equal(open().wayTo({ address: "192.0.2.1", port: 5686 }), "session");
  });

  it("replaces what it knows of a server", () => {
    for (const way of ["ticket", "full", "session", "ticket"] as const) {
      open().note(peer(1), way);
      assert.deepEqual(waysTo(1), [way]);
      assert.equal(store.value?.length, ENTRY_BYTES);
    }
  });

  it("knows an IPv6 server in every spelling, and an IPv4 one that is mapped into IPv6", () => {
    open().note({ address: "2001:DB8:0:0::7", port: 5684 }, "ticket");
    open().note({ address: "::ffff:192.0.2.1", port: 5684 }, "full");
    assert.equal(open().wayTo({ address: "2001:db8::7", port: 5684 }), "ticket");
    assert.equal(open().wayTo({ address: "2001:db8::8", port: 5684 }), "session");
    assert.deepEqual(waysTo(1), ["full"]);
    open().note({ address: "2001:db8::0007", port: 5684 }, "ticket");
    assert.equal(store.writes, 2);
  });

  it("writes once for each change, and nothing that it knows already", () => {
    const memory = open();
    memory.note(peer(1), "session");
    assert.equal(store.writes, 0);
    memory.note(peer(1), "ticket");
    memory.note(peer(1), "ticket");
    open().note(peer(1), "ticket");
    assert.equal(store.writes, 1);
    memory.note(peer(1), "full");
    assert.equal(store.writes, 2);
  });

  it("keeps the four servers that were noted last, the newest first", () => {
    for (let number = 1; number <= 4; number++) open().note(peer(number), "ticket");
    assert.deepEqual(waysTo(1, 2, 3, 4), ["ticket", "ticket", "ticket", "ticket"]);
    open().note(peer(1), "full");
    open().note(peer(5), "full");
    assert.deepEqual(waysTo(1, 2, 3, 4, 5), ["full", "session", "ticket", "ticket", "full"]);
    assert.equal(store.value?.length, 4 * ENTRY_BYTES);
    const order: number[] = [];
    for (let at = 0; at < store.value!.length; at += ENTRY_BYTES) order.push(store.value![at + 15]!);
    assert.deepEqual(order, [5, 1, 4, 3]);
  });

  it("forgets after a week, so that the server is tried afresh, and may note the same again", () => {
    open().note(peer(1), "full");
    clock.time = START + 7 * DAY;
    assert.deepEqual(waysTo(1), ["full"]);
    clock.time = START + 7 * DAY + 1000;
    assert.deepEqual(waysTo(1), ["session"]);
    open().note(peer(1), "full");
    assert.equal(store.writes, 2);
    assert.equal(store.value?.length, ENTRY_BYTES);
    clock.time = START + 14 * DAY;
    assert.deepEqual(waysTo(1), ["full"]);
  });

  it("forgets what was noted in the future: the clock was set back", () => {
    open().note(peer(1), "full");
    clock.time = START - 1000;
    assert.deepEqual(waysTo(1), ["session"]);
    open().note(peer(1), "ticket");
    assert.deepEqual(waysTo(1), ["ticket"]);
  });

  it("remembers without a clock what it noted with one, and until there is one what it noted without", () => {
    open().note(peer(1), "full");
    clock.time = undefined;
    open().note(peer(2), "ticket");
    assert.deepEqual(waysTo(1, 2), ["full", "ticket"]);
    clock.time = START;
    // How old the second note is cannot be known.
    assert.deepEqual(waysTo(1, 2), ["full", "session"]);
    open().note(peer(2), "ticket");
    assert.deepEqual(waysTo(1, 2), ["full", "ticket"]);
  });

  it("takes stored bytes of another length for nothing, and writes over them", () => {
    const entry = ((): Uint8Array => {
      open().note(peer(1), "full");
      return store.value!;
    })();
    const wrong = [0, 1, ENTRY_BYTES - 1, ENTRY_BYTES + 1, 4 * ENTRY_BYTES + 1, 5 * ENTRY_BYTES, 4096];
    for (const length of wrong) {
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length; at++) bytes[at] = entry[at % ENTRY_BYTES]!;
      store.value = bytes;
      assert.deepEqual(waysTo(1), ["session"], `${length} bytes`);
      open().note(peer(2), "ticket");
      assert.deepEqual(waysTo(1, 2), ["session", "ticket"], `${length} bytes`);
      assert.equal(store.value?.length, ENTRY_BYTES);
    }
  });

  it("takes a way that it does not know for none", () => {
    open().note(peer(1), "ticket");
    for (const way of [3, 7, 255]) {
      store.value![WAY_AT] = way;
      assert.deepEqual(waysTo(1), ["session"]);
    }
    open().note(peer(1), "full");
    assert.deepEqual(waysTo(1), ["full"]);
  });

  it("never throws because of what is stored, whichever byte is wrong", () => {
    open().note(peer(1), "full");
    const good = store.value!;
    for (let at = 0; at < good.length; at++) {
      for (const wrong of [0, 255, good[at]! ^ 1]) {
        store.value = good.slice();
        store.value[at] = wrong;
        const [way] = waysTo(1);
        assert.ok(way === "session" || way === "ticket" || way === "full", `${way}`);
        open().note(peer(1), "ticket");
        assert.deepEqual(waysTo(1), ["ticket"]);
      }
    }
  });

  it("throws what the store throws, and then knows what it knew before", () => {
    open().note(peer(1), "ticket");
    const memory = open();
    store.writeError = new Error("no room");
    assert.throws(() => memory.note(peer(1), "full"), /no room/);
    assert.throws(() => memory.note(peer(2), "full"), /no room/);
    memory.note(peer(1), "ticket");
    store.writeError = undefined;
    assert.equal(memory.wayTo(peer(1)), "ticket");
    assert.equal(memory.wayTo(peer(2)), "session");
    store.readError = new Error("no permission");
    assert.throws(() => memory.wayTo(peer(1)), /no permission/);
    assert.throws(() => memory.note(peer(1), "full"), /no permission/);
  });

  it("throws a FormatError for a peer that has no IP address, and writes nothing", () => {
    open().note(peer(1), "ticket");
    assert.throws(() => open().wayTo({ address: "est.example.net", port: 5684 }), FormatError);
    assert.throws(() => open().note({ address: "est.example.net", port: 5684 }, "full"), FormatError);
    assert.equal(store.writes, 1);
  });
});
