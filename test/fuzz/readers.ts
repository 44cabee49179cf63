/**
 * What the coverage-guided fuzzers call (guided.ts): every reader of src/ and of the Node.js host for bytes from outside,
 * by groups that share their inputs. A reader gives a value or throws one of Torpor's errors, never another; what has been
 * read and is written again reads the same.
 *
 *     fuzzers.der!.run(bytes);      // throws where a promise is broken
 */

import { strict as assert } from "node:assert";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 as zlibCrc32 } from "node:zlib";
import "../../hosts/node/native.js";
import { readPEM } from "../../hosts/node/pem.js";
import { DeviceState } from "../../hosts/node/storage.js";
import { readUint, writeUint } from "../../src/bytes.js";
import { decodeBlock, encodeBlock } from "../../src/coap/block.js";
import { parseLinkFormat } from "../../src/coap/link-format.js";
import {
  decode,
  encode,
  encodeEmpty,
  longestEncoding,
  MessageReader,
  stringValue,
  uintValue,
} from "../../src/coap/message.js";
import { Response } from "../../src/coap/response.js";
import { decodePath, parseURI } from "../../src/coap/uri.js";
import { lengthUTF8, readUTF8, writeUTF8 } from "../../src/coap/utf8.js";
import { ResumptionMemory } from "../../src/dtls/resumption.js";
import { IdentityStore } from "../../src/enrollment/identity.js";
import {
  deleteLife,
  readLife,
  readPending,
  readWishes,
  writeLife,
  writePending,
  writeWishes,
} from "../../src/enrollment/life.js";
import { statusOf } from "../../src/enrollment/status.js";
import { anchorsOf, checkCA, isRegistrationAuthority, leadsTo } from "../../src/enrollment/trust.js";
import { TorporError } from "../../src/errors.js";
import { readCsrAttributes } from "../../src/est/csrattrs.js";
import { findResources } from "../../src/est/discovery.js";
import { shapeOf } from "../../src/est/leniency.js";
import { readMultipart } from "../../src/est/multipart.js";
import { planRequest, requestAttributes } from "../../src/est/request.js";
import type { KeyValueStore } from "../../src/io.js";
import { clientCertInfo, parseCertificate } from "../../src/pki/certificate.js";
import { DERReader, dottedOID, Tag } from "../../src/pki/der.js";
import { sha256 } from "../../src/pki/key.js";
import { distinguishedName } from "../../src/pki/name.js";
import { readCertsOnly } from "../../src/pki/pkcs7.js";
import { formatAddress, parseAddress } from "../../src/session/address.js";
import { FlashBytes } from "../../src/session/flash.js";
import type { Sealer } from "../../src/session/seal.js";
import { SEAL_BYTES } from "../../src/session/seal.js";
import { type Session, SessionTable, SLOT_OVERHEAD_BYTES } from "../../src/session/table.js";
import * as vectors from "../vectors/rfc9148.js";

export interface Fuzzer {
  /** Genuine inputs to start from. */
  readonly seeds: () => Uint8Array[];
  readonly run: (bytes: Uint8Array) => void;
}

/** The value, or undefined where it threw one of Torpor's errors. Anything else goes through. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof TorporError && error.message !== "") return undefined;
    throw error;
  }
}

/** Quicker than what `assert` has, which the fuzzers would spend their time in. */
function sameContent(actual: Uint8Array, expected: Uint8Array): void {
  assert.ok(Buffer.compare(actual, expected) === 0, `${Buffer.from(actual).toString("hex")} is not what was expected`);
}

const ascii = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "latin1"));
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const hex = vectors.fromHex;

/** Values by key, for what reads records; a write stays. */
function storeOf(values: Record<string, Uint8Array>): KeyValueStore {
  const kept = new Map(Object.entries(values));
  return {
    read: (key) => kept.get(key)?.slice().buffer,
    write: (key, value) => {
      kept.set(key, value instanceof Uint8Array ? value.slice() : new Uint8Array(value.slice(0)));
    },
    delete: (key) => {
      kept.delete(key);
    },
    close: () => {},
  };
}

// ---- coap: messages and what is in their options ----

function runMessage(bytes: Uint8Array): void {
  const reader = new MessageReader();
  const response = new Response();
  attempt(() => {
    reader.read(bytes, bytes.length);
    let size = 0;
    while (reader.nextOption()) size += reader.optionLength;
    assert.ok(size + reader.payloadLength + reader.token.length <= bytes.length);
    assert.equal(reader.hasToken(reader.token, reader.token.length), true);
    void reader.tokenNumber;
  });
  if (reader.hasHeader) encodeEmpty(reader.type, reader.messageId, new Uint8Array(4));
  for (const read of ["read", "readCut"] as const) {
    attempt(() => {
      reader.read(bytes, bytes.length);
      response[read](reader);
    });
  }
  const message = attempt(() => decode(bytes));
  if (message === undefined) return;
  for (const { value } of message.options) {
    const text = attempt(() => stringValue(value));
    if (text !== undefined) assert.equal(lengthUTF8(text), value.length);
    attempt(() => uintValue(value));
    const block = attempt(() => decodeBlock(value));
    if (block !== undefined) assert.equal(encodeBlock(block), uintValue(value));
  }
  const longest = longestEncoding(message);
  const buffer = new Uint8Array(longest);
  const written = buffer.subarray(0, encode(message, buffer));
  assert.deepEqual(decode(written), message);
  if (written.length > 4)
    assert.equal(
      attempt(() => encode(message, new Uint8Array(written.length - 1))),
      undefined,
    );
}

function runText(bytes: Uint8Array): void {
  const text = attempt(() => readUTF8(bytes));
  if (text !== undefined) {
    const again = new Uint8Array(lengthUTF8(text));
    assert.equal(writeUTF8(text, again, 0), again.length);
    sameContent(again, bytes);
  }
  const links = attempt(() => parseLinkFormat(bytes));
  const resources = attempt(() => findResources(bytes));
  if (resources !== undefined) assert.ok(links !== undefined && resources.length <= 32);
  for (const line of [latin1(bytes), text ?? ""]) {
    const uri = attempt(() => parseURI(line));
    if (uri !== undefined) {
      assert.ok(uri.path.startsWith("/") && uri.port > 0 && uri.port < 65536 && uri.host === uri.host.toLowerCase());
      if (uri.host.includes(":")) parseAddress(uri.host);
    }
    attempt(() => decodePath(line));
    const address = attempt(() => parseAddress(line));
    if (address !== undefined) sameContent(parseAddress(formatAddress(address)), address);
  }
  if (bytes.length === 16) sameContent(parseAddress(formatAddress(bytes)), bytes);
}

const coap: Fuzzer = {
  seeds: () => [
    hex("44011234010203043a6578616d706c652e636f6d8463727473d1320a"),
    hex("6445123401020304c1191992ff3082027b06"),
    hex("644512340102030448aabbccdd00112233c21119d10a0ee10b0ae2030002bcff01"),
    hex("40000001"),
    hex("7040ffffd2ff000102ee010001ff61"),
    ascii(
      '</est/crts>;rt="ace.est.crts";ct="281 287",<coaps://[2001:db8::1]:61617/est/sen>;rt="ace.est.sen a\\"b";sz=1',
    ),
    ascii("coaps://EST.example.net:5684/label/%C3%A9"),
    ascii("2001:db8::1:0:0:192.0.2.33"),
    ascii("192.0.2.1"),
    Uint8Array.from(Buffer.from("/é/ñ/€/😀")),
    hex("00000000000000000000ffffc0000201"),
  ],
  run: (bytes) => {
    runMessage(bytes);
    runText(bytes);
  },
};

// ---- der: certificates, names, certs-only, csrattrs, and multipart-core beside them ----

const OWN = readCertsOnly(vectors.enrollResponse)[0]!;
const CA = readCertsOnly(vectors.caCertificates)[0]!;

/** Steps over everything at one level, and into what is constructed. */
function walk(reader: DERReader, depth: number): void {
  while (!reader.done) {
    const { tag } = reader;
    if (tag === undefined) return;
    if ((tag & 0x20) !== 0 && depth < 20) {
      walk(reader.enter(tag), depth + 1);
      continue;
    }
    switch (tag) {
      case Tag.BOOLEAN:
        reader.readBoolean();
        break;
      case Tag.INTEGER:
        reader.readUnsignedInteger();
        break;
      case Tag.BIT_STRING:
        reader.readBitString();
        break;
      case Tag.OBJECT_IDENTIFIER:
        assert.match(dottedOID(reader.readOID()), /^[0-2](\.\d+)+$/);
        break;
      case Tag.UTC_TIME:
      case Tag.GENERALIZED_TIME:
        assert.ok(Number.isInteger(reader.readTime()));
        break;
      default:
        reader.readElement();
    }
  }
  reader.finish();
}

function runCertificate(bytes: Uint8Array): void {
  const certificate = attempt(() => parseCertificate(bytes));
  if (certificate === undefined) {
    assert.equal(
      attempt(() => clientCertInfo(bytes)),
      undefined,
    );
    return;
  }
  // It was checked as a whole: no field throws.
  const { tbs, serialNumber, issuer, subject, notBefore, notAfter, publicKeyInfo, publicKeyAlgorithm, publicKey } =
    certificate;
  assert.ok(Number.isInteger(notBefore) && Number.isInteger(notAfter) && serialNumber.length > 0);
  for (const part of [tbs, issuer, subject, publicKeyInfo]) new DERReader(part).readElement(Tag.SEQUENCE);
  assert.ok(publicKeyAlgorithm.length > 0 && publicKey.length < bytes.length && certificate.curve?.length !== 0);
  attempt(() => certificate.extension(hex("551d13")));
  attempt(() => distinguishedName(issuer));
  attempt(() => clientCertInfo(bytes));
  attempt(() => checkCA(bytes));
  attempt(() => isRegistrationAuthority(bytes));
}

function runList(bytes: Uint8Array): void {
  const certificates = attempt(() => readCertsOnly(bytes));
  if (certificates !== undefined) {
    assert.ok(certificates.length > 0 && certificates.length <= 16);
    const anchors = attempt(() => anchorsOf(certificates.slice(0, 4)));
    if (anchors !== undefined) attempt(() => leadsTo(OWN, certificates, anchors));
  }
  const attributes = attempt(() => readCsrAttributes(bytes));
  if (attributes === undefined) return;
  assert.ok(attributes.length <= 64);
  for (const purpose of ["enrolment", "renewal"] as const) {
    const plan = attempt(() => planRequest(attributes, OWN, purpose));
    if (plan === undefined) continue;
    // What the device made itself, others must be able to read.
    new DERReader(plan.subject).readElement(Tag.SEQUENCE);
    walkRequest(requestAttributes(plan, bytes.subarray(0, 12)));
  }
}

function walkRequest(attributes: Uint8Array): void {
  const reader = new DERReader(attributes);
  while (!reader.done) {
    const attribute = reader.enter(Tag.SEQUENCE);
    attribute.readOID();
    attribute.skip(Tag.SET);
    attribute.finish();
  }
}

const element = (tag: number, ...parts: Uint8Array[]): Uint8Array => {
  const content = Buffer.concat(parts);
  assert.ok(content.length < 128);
  return Uint8Array.of(tag, content.length, ...content);
};

const der: Fuzzer = {
  seeds: () => [
    OWN,
    CA,
    parseCertificate(OWN).subject,
    vectors.caCertificates,
    vectors.enrollResponse,
    vectors.serverKeyCertificate,
    vectors.serverKey,
    vectors.csrAttributes,
    hex(
      "304106092a864886f70d010907301206072a8648ce3d0201310706052b81040022301606092a864886f70d01090e310906072b06010101011606082a8648ce3d040303",
    ),
    element(0x30, element(0x30, hex("0603550407"), element(0x31, hex("0c024c41")))),
    element(
      0x30,
      element(
        0x30,
        hex("060b2a864886f70d010910023d"),
        element(
          0x31,
          element(
            0x30,
            hex("020100"),
            element(0x30, hex("310b300906035504030c026162"), hex("310730050603550405")),
            element(0xa0, hex("301006072a8648ce3d020106052b81040022")),
            element(
              0xa1,
              element(
                0x30,
                hex("060b2a864886f70d010910023e"),
                element(0x31, element(0x30, hex("30050603551d0f"), hex("30090603551d2504023000"))),
              ),
            ),
          ),
        ),
      ),
    ),
    hex("8419011c480123456789abcdef19011948fedcba9876543210"),
    hex("82182af6"),
    hex("9802182a5801aa"),
    hex("2b0601040182370a0304"),
    hex("170d3139303133313131323730335a180f39393939313233313233353935395a"),
  ],
  run: (bytes) => {
    attempt(() => walk(new DERReader(bytes), 0));
    attempt(() => dottedOID(bytes));
    attempt(() => distinguishedName(bytes));
    shapeOf(bytes);
    runCertificate(bytes);
    runList(bytes);
    const parts = attempt(() => readMultipart(bytes));
    assert.ok(parts === undefined || parts.length <= 8);
  },
};

// ---- table: the bytes of a session table, in retained memory and in flash ----

const GEOMETRY = { slots: 3, slotBytes: 112 } as const;
const TABLE_BYTES = SessionTable.byteLength(GEOMETRY);
const HEADER_BYTES = SessionTable.headerLength(GEOMETRY.slots);
const START = 1_700_000_000_000;
const PEERS = [0, 1, 2, 3, 4].map((index) => ({ address: `192.0.2.${index + 1}`, port: 5684 }));

/** As the table has it, so that it is asked for more than its checks: CRC-32 from `offset` on. */
const crc32 = (bytes: Uint8Array, start: number, end: number, offset: number): number =>
  zlibCrc32(bytes.subarray(start, end), offset);

/** A seal that anybody can make: what is under test is the table. */
const openSeal: Sealer = {
  seal: (associated, plain, sealed) => {
    sealed.fill(0);
    sealed.set(plain, SEAL_BYTES);
    writeUint(sealed, 0, 4, crc32(associated, 0, associated.length, plain.length));
  },
  unseal: (associated, sealed, plain) => {
    plain.set(sealed.subarray(SEAL_BYTES));
    return readUint(sealed, 0, 4) === crc32(associated, 0, associated.length, plain.length);
  },
};

class Script {
  #at = 0;
  constructor(readonly bytes: Uint8Array) {}
  get done(): boolean {
    return this.#at >= this.bytes.length;
  }
  next(): number {
    return this.bytes[this.#at++] ?? 0;
  }
  take(length: number): Uint8Array {
    const taken = this.bytes.slice(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }
}

function useTable(table: SessionTable, script: Script, clock: { now: number }): void {
  for (let steps = 0; steps < 40 && !script.done; steps++) {
    const operation = script.next();
    const peer = PEERS[(operation >> 4) % PEERS.length]!;
    switch (operation % 10) {
      case 0: {
        const session: Session = {
          peer,
          kind: (["session", "ticket", "none"] as const)[script.next() % 3]!,
          data: script.take(script.next() % 48),
          isContext: script.next() % 2 === 1,
          clientCertHash: new Uint8Array(32),
          clientCert: operation & 128 ? script.take(script.next() % 24) : undefined,
          protocol: "DTLS 1.2",
          lifetime: script.next() * 1000,
        };
        if (attempt(() => table.insert(session) ?? true) && table.ttl > 0) {
          const got = table.get(peer);
          assert.ok(got !== undefined, "what was put in is not there");
          assert.ok(got.kind === session.kind && got.isContext === session.isContext && !got.isUsed);
          sameContent(got.data, session.data);
        }
        break;
      }
      case 1:
        void table.get(peer)?.clientCertInfo;
        break;
      case 2:
        table.remove(peer);
        assert.equal(table.get(peer), undefined);
        break;
      case 3:
        if (table.use(peer)) assert.equal(table.use(peer), false, "a context was used twice");
        break;
      case 4:
        table.cleanupExpired();
        break;
      case 5:
        clock.now += script.next() * 600_000;
        break;
      case 6:
        clock.now -= script.next() * 600_000;
        break;
      case 7: {
        const all = [...table.sessions()];
        assert.ok(all.length <= table.capacity && all.length <= table.length);
        for (const { peer: its } of all) assert.ok(its.port >= 0 && parseAddress(its.address).length === 16);
        break;
      }
      case 8:
        if (operation & 128) table.clear();
        assert.ok(table.length <= table.capacity && table.room > 0 && table.isEmpty === (table.length === 0));
        break;
      default:
        return;
    }
  }
}

function runTable(bytes: Uint8Array): void {
  const script = new Script(bytes);
  const shape = script.next();
  const memory = new Uint8Array(TABLE_BYTES);
  const clock = { now: START };
  const counter = { value: 7, increment: () => void counter.value++ };
  const options = () => ({
    ...GEOMETRY,
    clock: () => clock.now,
    fingerprint: 1,
    seal: shape & 1 ? openSeal : undefined,
    counter: shape & 2 ? counter : undefined,
    ttl: shape & 4 ? 3600 : 86400,
  });
  memory.set(script.take(shape & 8 ? TABLE_BYTES : 0));
  if (shape & 16) {
    // A header that counts, over slots that each may: what an attacker would make, or the worst decay.
    writeUint(memory, 0, 4, 0x54525052);
    memory[8] = 2;
    writeUint(memory, 10, 2, GEOMETRY.slots);
    writeUint(memory, 12, 2, GEOMETRY.slotBytes);
    writeUint(memory, 16, 4, 1);
    writeUint(memory, 24, 6, START);
    for (let index = 0; index < GEOMETRY.slots; index++) {
      const at = HEADER_BYTES + index * GEOMETRY.slotBytes;
      if (shape & 32) writeUint(memory, at + 8, 4, readUint(memory, 36 + 4 * index, 4) >>> 1);
      writeUint(memory, at, 4, crc32(memory, at + 4, at + GEOMETRY.slotBytes, at));
    }
    writeUint(memory, 4, 4, crc32(memory, 8, HEADER_BYTES, 0));
  }
  void SessionTable.geometryOf(memory);
  for (let wake = 0; wake < 3; wake++) {
    const made = new SessionTable(memory, options());
    for (let at = HEADER_BYTES; at < TABLE_BYTES; at += GEOMETRY.slotBytes) {
      const used =
        SLOT_OVERHEAD_BYTES +
        (shape & 1 ? SEAL_BYTES : 0) +
        readUint(memory, at + 40, 2) +
        readUint(memory, at + 42, 2);
      assert.ok(memory[at + 4] === 0 || used <= GEOMETRY.slotBytes, "a slot has more than there is room for");
    }
    useTable(made, script, clock);
    const before = memory.slice();
    const again = new SessionTable(memory, options());
    // Nothing of what was written is unsound when it is opened again, but for a clock that is far behind.
    if (clock.now >= readUint(before, 24, 6)) sameContent(memory, before);
    void again.length;
  }
}

function runFlash(bytes: Uint8Array): void {
  const script = new Script(bytes);
  const values: Record<string, Uint8Array> = {};
  for (const key of ["sessions", "session-0", "session-1", "session-2"]) values[key] = script.take(script.next());
  const store = storeOf(values);
  const flash = new FlashBytes(store, GEOMETRY);
  const clock = { now: START };
  useTable(
    new SessionTable(flash.bytes, {
      ...GEOMETRY,
      clock: () => clock.now,
      seal: openSeal,
      commit: () => flash.commit(),
    }),
    script,
    clock,
  );
  flash.commit();
  // What an unsound slot held may lie on in flash, where its check was 0: the table passes it over again.
  const again = new FlashBytes(store, GEOMETRY);
  if (clock.now >= readUint(flash.bytes, 24, 6)) {
    new SessionTable(again.bytes, { ...GEOMETRY, clock: () => clock.now, seal: openSeal });
    sameContent(again.bytes, flash.bytes);
  }
}

const table: Fuzzer = {
  seeds: () => {
    const memory = new Uint8Array(TABLE_BYTES);
    const made = new SessionTable(memory, { ...GEOMETRY, clock: () => START, fingerprint: 1 });
    PEERS.slice(0, 3).forEach((peer, index) => {
      const data = new Uint8Array(20).fill(index);
      made.insert({
        peer,
        kind: "session",
        data,
        isContext: index === 1,
        clientCertHash: data.slice(0, 1).length ? new Uint8Array(32) : data,
        protocol: "DTLS 1.2",
      });
    });
    return [
      Uint8Array.of(0, 0, 1, 5, 1, 2, 3, 4, 5, 1, 9, 3, 19, 7),
      Uint8Array.of(8, ...memory, 1, 3, 3, 7, 17, 19),
      Uint8Array.of(8 | 16 | 32, ...memory, 7, 1, 17, 33, 3, 19, 2, 4),
      Uint8Array.of(1, 0, 1, 5, 1, 2, 3, 4, 5, 1, 9, 3, 7, 9, 1),
      Uint8Array.of(2 | 8 | 16, ...memory, 3, 19, 35, 7),
    ];
  },
  run: (bytes) => {
    runTable(bytes);
    runFlash(bytes);
  },
};

// ---- state: the records in a device's storage, and the files of a device on the desktop ----

const folder = mkdtempSync(join(tmpdir(), "torpor-fuzz-"));
process.once("exit", () => rmSync(folder, { recursive: true, force: true }));

const CHECK_BYTES = 8;
/** A record with its check right. */
const sealed = (content: Uint8Array): Uint8Array =>
  Uint8Array.of(...sha256(content).subarray(0, CHECK_BYTES), ...content);

function runRecords(bytes: Uint8Array): void {
  const clock = { time: START, ticks: 0, uptime: 0 };
  for (const record of [bytes, sealed(bytes)]) {
    const store = storeOf({
      life: record,
      pending: record,
      csrattrs: record,
      identity: record,
      trust: record,
      resumption: bytes,
    });
    const life = attempt(() => readLife(store));
    if (life !== undefined) {
      writeLife(store, life);
      assert.deepEqual({ ...readLife(store), error: "" }, { ...life, error: "" });
    }
    const pending = attempt(() => readPending(store));
    if (pending !== undefined) {
      writePending(store, pending);
      assert.deepEqual(readPending(store), pending);
    }
    const wishes = attempt(() => readWishes(store));
    if (wishes !== undefined) writeWishes(store, wishes);
    const identities = new IdentityStore(store);
    attempt(() => identities.recorded);
    attempt(() => identities.current);
    attempt(() => identities.trustAnchors);
    void identities.keyInUse;
    // A device that shows its status must be able to, whatever lies there.
    attempt(() => statusOf(store, clock));
    const memory = new ResumptionMemory(store, clock);
    for (const peer of PEERS.slice(0, 2)) {
      void memory.wayTo(peer);
      memory.note(peer, "ticket");
      assert.equal(memory.wayTo(peer), "ticket");
    }
    deleteLife(store);
  }
}

function runFiles(bytes: Uint8Array): void {
  const flash = join(folder, "flash", "torpor");
  mkdirSync(flash, { recursive: true });
  writeFileSync(join(folder, "retained.bin"), bytes);
  const state = new DeviceState(folder);
  const memory = attempt(() => state.retain(64));
  if (memory !== undefined) assert.equal(memory.bytes.length, 64);
  void attempt(() => state.peek());
}

function runPEM(bytes: Uint8Array): void {
  const blocks = attempt(() => readPEM(bytes, "CERTIFICATE", "PRIVATE KEY", "EC PRIVATE KEY"));
  assert.ok(blocks === undefined || blocks.length > 0);
}

const state: Fuzzer = {
  seeds: () => {
    const record = (...certificates: Uint8Array[]): Uint8Array =>
      Uint8Array.from(
        Buffer.concat([
          hex("0054500101".slice(0, 8)),
          Uint8Array.of(certificates.length),
          ...certificates.flatMap((certificate) => [
            Uint8Array.of(certificate.length >> 8, certificate.length & 255),
            certificate,
          ]),
        ]),
      );
    const kept: Record<string, Uint8Array> = {};
    const store = storeOf({});
    const keeping: KeyValueStore = {
      ...store,
      write: (key, value) => {
        kept[key] = new Uint8Array(value as Uint8Array);
      },
    };
    writeLife(keeping, {
      time: START / 1000,
      uptime: 5,
      sleep: 60,
      trustedAt: 3,
      retryAt: 4,
      failures: 1,
      refusals: 0,
      distrusts: 0,
      error: "no answer",
    });
    writePending(keeping, {
      operation: "sren",
      key: 0x545001,
      wishes: new Uint8Array(8),
      request: vectors.enrollRequest.slice(0, 40),
    });
    const pem = `-----BEGIN CERTIFICATE-----\n${Buffer.from(OWN).toString("base64")}\n-----END CERTIFICATE-----\n`;
    return [
      record(OWN),
      record(OWN, CA),
      ...Object.values(kept).map((value) => value.subarray(CHECK_BYTES)),
      vectors.csrAttributes,
      Uint8Array.of(...parseAddress("192.0.2.1"), 0x16, 0x34, 1, 0, 0x65, 0x53, 0xf1, 0),
      ascii(pem),
      ascii("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAo=\n-----END ENCRYPTED PRIVATE KEY-----\n"),
      Uint8Array.from(Buffer.concat([hex("54524554".match(/../g)!.reverse().join("")), new Uint8Array(160 + 64 - 4)])),
    ];
  },
  run: (bytes) => {
    runRecords(bytes);
    runPEM(bytes);
    if (bytes.length > 4 && bytes.length % 8 === 0) runFiles(bytes);
  },
};

export const fuzzers: Readonly<Record<string, Fuzzer | undefined>> = { coap, der, table, state };
