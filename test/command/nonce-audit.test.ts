/** The check that stands for "no nonce is used twice" finds it where one is: with made-up captures. */

import "../../hosts/node/native.js";
import { strict as assert } from "node:assert";
import { NonceAudit } from "../../tools/soak/nonce-audit.js";

const CHANGE_CIPHER_SPEC = 20;
const APPLICATION_DATA = 23;

/** Epoch and sequence number. */
function numberOf(epoch: number, sequence: number): Buffer {
  const number = Buffer.alloc(8);
  number.writeUInt16BE(epoch);
  number.writeUIntBE(sequence, 2, 6);
  return number;
}

function record(type: number, number: Buffer, id: readonly number[], ...content: (Uint8Array | string)[]): Buffer {
  const body = Buffer.concat(content.map((part) => Buffer.from(part)));
  return Buffer.concat([Buffer.of(type, 0xfe, 0xfd), number, Buffer.from(id), Buffer.of(0, body.length), body]);
}

const sealed = (type: number, sequence: number, id: readonly number[], text: string, nonce = numberOf(1, sequence)) =>
  record(type, numberOf(1, sequence), id, nonce, text);

/** To the server, with a connection ID. */
const request = (id: number, sequence: number, text: string): Buffer => sealed(25, sequence, [0, 0, 0, id], text);

/** To the device. */
const answer = (sequence: number, text: string): Buffer => sealed(APPLICATION_DATA, sequence, [], text);

function serverHello(random: number): Buffer {
  const message = Buffer.alloc(12 + 2 + 32, random);
  message[0] = 2;
  return record(22, numberOf(0, 1), [], message);
}

describe("the audit of nonces", () => {
  let audit: NonceAudit;

  beforeEach(() => {
    audit = new NonceAudit();
  });

  const out = (flow: number, ...records: Buffer[]): void =>
    audit.look({ direction: "out", bytes: Buffer.concat(records), flow }, "one");
  const into = (flow: number, ...records: Buffer[]): void =>
    audit.look({ direction: "in", bytes: Buffer.concat(records), flow }, "one");

  /** A handshake on a flow, up to the client's last flight. */
  function shake(flow: number, id: number, random: number): void {
    into(flow, serverHello(random));
    out(flow, record(CHANGE_CIPHER_SPEC, numberOf(0, 2), [], Buffer.of(1)), request(id, 0, `finished ${random}`));
  }

  it("finds two records of one association with one number, in one flow or in two", () => {
    shake(1000, 1, 7);
    out(1000, request(1, 1, "crts"));
    out(1000, request(1, 1, "att"));
    assert.match(audit.violations.join(), /association 1, out: .*nonce 0001000000000001/);
    audit.violations.length = 0;
    out(2000, request(1, 2, "crts"));
    out(3000, request(1, 2, "att"));
    assert.match(audit.violations.join(), /association 1, out: .*nonce 0001000000000002/);
  });

  // Found by an hour's soak: without a connection ID, the last flight sent again from elsewhere was taken for nobody's.
  it("follows a device that moves in the middle of a handshake, and again before it has sent anything", () => {
    into(1000, serverHello(7));
    const finished = (sequence: number, text = "finished"): Buffer => sealed(22, sequence, [], text);
    out(1000, record(CHANGE_CIPHER_SPEC, numberOf(0, 2), [], Buffer.of(1)), finished(0));
    const moved = (flow: number, from: number, ...records: Buffer[]): void =>
      audit.look({ direction: "out", bytes: Buffer.concat(records), flow, from }, "one");
    moved(2000, 1000, record(CHANGE_CIPHER_SPEC, numberOf(0, 3), [], Buffer.of(1)), finished(1));
    moved(3000, 2000, finished(2));
    assert.deepEqual(audit.violations, []);
    moved(3000, 2000, finished(1, "other"));
    assert.match(audit.violations.join(), /association 1, out: .*nonce 0001000000000001/);
    out(4000, finished(3));
    assert.match(audit.violations.at(-1)!, /flow 4000, where no association began/);
  });

  it("finds a nonce that is used twice under two numbers", () => {
    shake(1000, 1, 7);
    out(1000, sealed(25, 1, [0, 0, 0, 1], "crts"));
    out(1000, sealed(25, 2, [0, 0, 0, 1], "att", numberOf(1, 1)));
    assert.equal(audit.violations.length, 1);
  });

  it("finds two of the server's records with one number, wherever the association has moved", () => {
    shake(1000, 1, 7);
    into(1000, answer(1, "a"));
    out(2000, request(1, 1, "crts"));
    into(2000, answer(1, "b"));
    assert.match(audit.violations.join(), /association 1, in: .*0001000000000001/);
  });

  it("takes the same record twice for what it is, a copy", () => {
    shake(1000, 1, 7);
    out(1000, request(1, 1, "crts"));
    out(2000, request(1, 1, "crts"));
    into(2000, answer(0, "a"), answer(0, "a"));
    assert.deepEqual(audit.violations, []);
    assert.equal(audit.records, 5);
  });

  it("tells keys apart: directions, associations, and those of a later handshake in the same flow or with the same ID", () => {
    shake(1000, 1, 7);
    out(1000, request(1, 1, "crts"));
    into(1000, answer(1, "a"));
    shake(2000, 2, 8);
    out(2000, request(2, 1, "att"));
    into(2000, answer(1, "b"));
    shake(1000, 3, 9);
    out(1000, request(3, 1, "sren"));
    into(1000, answer(1, "c"));
    shake(4000, 1, 10);
    out(4000, request(1, 1, "sen"));
    assert.deepEqual(audit.violations, []);
    assert.equal(audit.associations, 4);
    // The association that has moved to a flow is the one of that flow.
    out(1000, request(2, 2, "att"));
    into(1000, answer(1, "d"));
    assert.match(audit.violations.join(), /association 2, in/);
  });

  it("finds an association that is used with another server", () => {
    shake(1000, 1, 7);
    audit.look({ direction: "out", bytes: request(1, 1, "crts"), flow: 2000 }, "another");
    assert.match(audit.violations.join(), /association 1 of one is used with another/);
  });

  it("finds a ticket that two handshakes show, and takes the second hello of one handshake for what it is", () => {
    const hello = (random: number, ticket: string): Buffer => {
      const identity = Buffer.concat([Buffer.of(0, ticket.length), Buffer.from(ticket), Buffer.alloc(4)]);
      const key = Buffer.concat([Buffer.of(0, identity.length), identity, Buffer.of(0, 33, 32), Buffer.alloc(32)]);
      const extensions = Buffer.concat([Buffer.of(0, 43, 0, 3, 2, 0xfe, 0xfc, 0, 41, 0, key.length), key]);
      const lists = [Buffer.of(0, 0, 0, 2, 0x13, 0x05, 1, 0, 0, extensions.length), extensions];
      return record(22, numberOf(0, 0), [], Buffer.of(1), Buffer.alloc(13, 0), Buffer.alloc(32, random), ...lists);
    };
    out(1000, hello(1, "one"));
    out(1000, hello(1, "one"));
    out(2000, hello(2, "another"));
    assert.deepEqual(audit.violations, []);
    assert.equal(audit.tickets, 2);
    out(3000, hello(3, "one"));
    assert.match(audit.violations.join(), /two handshakes show one ticket: .*(01){32} and (03){32}$/);
  });

  it("does not let a record pass of which it does not know the key", () => {
    into(1000, answer(1, "a"));
    assert.equal(audit.violations.length, 1);
  });

  it("forgets the associations that were silent longest, and finds a record of one that it has forgotten", () => {
    const id = (flow: number) => [0, 0, flow >> 8, flow & 255];
    const begin = (flow: number): void => {
      into(flow, serverHello(flow & 255));
      out(flow, record(CHANGE_CIPHER_SPEC, numberOf(0, 2), [], Buffer.of(1)), sealed(25, 0, id(flow), `${flow}`));
    };
    begin(1);
    begin(2);
    for (let flow = 3; flow < 6000; flow++) {
      begin(flow);
      out(2, sealed(25, flow, id(2), "att"));
    }
    assert.deepEqual(audit.violations, []);
    out(2, sealed(25, 3, id(2), "crts"));
    assert.match(audit.violations.join(), /association 2, out: two different records with the nonce 0001000000000003/);
    audit.violations.length = 0;
    into(1, answer(1, "a"));
    assert.match(audit.violations.join(), /flow 1, where no association began/);
    audit.violations.length = 0;
    out(1, sealed(25, 1, id(1), "crts"));
    assert.equal(audit.violations.length, 1);
  });
});
