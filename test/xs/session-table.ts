/**
 * A program for the simulator: what the session table costs the XS heap beside the retained memory that it lies in.
 * Reports bytes in use after a collection: how many more there are with an empty table, and with a full one.
 *
 *     simulator build/test/xs/session-table.js --arguments DIR --state DIR
 */

import { clock, retain } from "../../hosts/simulator/io.js";
import { SessionTable } from "../../src/session/table.js";

const inUse = (): number => native("xs_host_heap").call(undefined, 4) + native("xs_host_heap").call(undefined, 5);

function open(): SessionTable {
  // As src/enrollment/wake.ts does it.
  return new SessionTable(retain(SessionTable.byteLength()).bytes, {
    slots: 4,
    slotBytes: 512,
    ttl: 86400,
    clock,
    fingerprint: 1,
    commit: undefined,
    seal: undefined,
    counter: undefined,
  });
}

function fill(table: SessionTable): void {
  for (let port = 1; port <= table.capacity; port++) {
    table.insert({
      peer: { address: "192.0.2.1", port },
      kind: "session",
      data: new Uint8Array(151),
      clientCertHash: new Uint8Array(32),
      protocol: "DTLS 1.2",
    });
  }
}

export default function run(): void {
  inUse(); // what the first call makes is not the table's
  const before = inUse();
  const table = open();
  const empty = inUse() - before;
  fill(table);
  const full = inUse() - before;
  const { length } = table;
  native("xs_host_report").call(undefined, `{"empty":${empty},"full":${full},"length":${length}}`, 0);
}
