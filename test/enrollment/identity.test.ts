/** The identity in storage: keys in PSA's storage, records in a key-value store in memory that can fail at each write. */

import { strict as assert } from "node:assert";
import { webcrypto } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openKeys } from "../../hosts/node/native.js";
import { DTLSError } from "../../src/dtls/engine.js";
import { type Identity, IdentityError, IdentityStore } from "../../src/enrollment/identity.js";
import { FormatError, LimitError } from "../../src/errors.js";
import type { KeyValueStore } from "../../src/io.js";
import { parseCertificate } from "../../src/pki/certificate.js";
import {
  destroyKey,
  KEY_FIRST,
  KEY_LAST,
  KeyError,
  type KeyId,
  keyExists,
  publicKey,
  sha256,
} from "../../src/pki/key.js";
import { TestCA } from "../support/certificates.js";
import { newFolder } from "../support/command.js";

// After the support file, which loads what this library needs.
const x509 = await import("@peculiar/x509");

/** Seconds since 1970: 2029-01-01. The certificates here are valid from 2024 to 2034. */
const NOW = 1_861_920_000;

const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** What the device keeps in flash besides keys. */
class Flash implements KeyValueStore {
  readonly values = new Map<string, Uint8Array>();
  writes: string[] = [];
  /** The power goes at the next write: before it, or after it and before anything else. */
  cut: "before" | "after" | undefined;

  read(key: string): ArrayBuffer | undefined {
    return this.values.get(key)?.slice().buffer as ArrayBuffer | undefined;
  }

  write(key: string, value: ArrayBufferLike | Uint8Array): void {
    this.writes.push(key);
    if (this.cut === "before") {
      throw new PowerCut();
    }
    this.values.set(key, value instanceof Uint8Array ? value.slice() : new Uint8Array(value.slice(0)));
    if (this.cut === "after") {
      throw new PowerCut();
    }
  }

  delete(): void {
    throw new Error("nothing is deleted here");
  }

  close(): void {
    throw new Error("the store is the host's to close");
  }
}

class PowerCut extends Error {}

describe("the identity store", () => {
  let ca: webcrypto.CryptoKeyPair;
  let issuer: Uint8Array;
  let otherIssuer: Uint8Array;
  let folder: string;
  let flash: Flash;

  before(async () => {
    ca = await webcrypto.subtle.generateKey(P256, true, ["sign", "verify"]);
    issuer = (await TestCA.create("CN=Issuing CA")).root;
    otherIssuer = (await TestCA.create("CN=Other CA")).root;
  });

  beforeEach(() => {
    folder = join(newFolder(), "keys");
    openKeys(folder);
    flash = new Flash();
  });

  afterEach(() => {
    for (const key of keysStored()) {
      destroyKey(key);
    }
  });

  /** As after a restart: nothing but what is stored is left. */
  const open = (): IdentityStore => new IdentityStore(flash);

  /** A certificate for a key of the device. */
  async function certify(key: KeyId): Promise<Uint8Array> {
    const point = publicKey(key);
    const curve = point.length === 65 ? P256 : { ...P256, namedCurve: "P-384" };
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: "01",
      subject: "CN=device",
      issuer: "CN=Issuing CA",
      notBefore: new Date("2024-01-01"),
      notAfter: new Date("2034-01-01"),
      publicKey: await webcrypto.subtle.importKey("raw", point, curve, true, ["verify"]),
      signingKey: ca.privateKey,
      signingAlgorithm: P256,
      extensions: [new x509.BasicConstraintsExtension(false)],
    });
    return new Uint8Array(certificate.rawData);
  }

  /** Enrols or renews, to the end. */
  async function enroll(): Promise<Identity> {
    const store = open();
    const key = store.prepareKey();
    store.commit(key, [await certify(key), issuer], NOW);
    return store.current!;
  }

  /** Keys in storage. */
  const keysStored = (): number[] =>
    (existsSync(folder) ? readdirSync(folder) : []).map((name) => Number.parseInt(name, 16)).sort();

  /** A matching, usable pair, and in the key storage one more key at most. */
  function assertSound(identity: Identity | undefined): void {
    assert.ok(identity !== undefined, "no identity");
    assert.ok(keyExists(identity.key));
    assert.deepEqual(parseCertificate(identity.certificates[0]!).publicKey, publicKey(identity.key));
    const stored = keysStored();
    assert.ok(stored.includes(identity.key), `${stored}`);
    assert.ok(stored.length <= 2, `${stored}`);
  }

  /** The next renewal leaves one pair and one key. */
  async function assertRecovers(): Promise<void> {
    const before = open().current;
    const key = open().prepareKey();
    assert.deepEqual(open().current, before);
    assert.deepEqual(keysStored(), [before?.key, key].filter((each) => each !== undefined).sort());
    const after = await enroll();
    assertSound(after);
    assert.deepEqual(keysStored(), [after.key]);
  }

  // ---- the life of a pair ----

  it("has no identity before the first enrolment", () => {
    assert.equal(open().current, undefined);
    assert.equal(open().trustAnchors, undefined);
    assert.deepEqual(flash.writes, []);
  });

  it("keeps the key, its certificate and those above it, across restarts", async () => {
    const key = open().prepareKey();
    const certificate = await certify(key);
    open().commit(key, [certificate, issuer], NOW);
    const { current } = open();
    assert.equal(current?.key, key);
    assert.deepEqual(current.certificates, [certificate, issuer]);
    assertSound(current);
  });

  it("makes keys with numbers of the device, in storage, P-256 unless told", () => {
    const key = open().prepareKey();
    assert.ok(key >= KEY_FIRST && key <= KEY_LAST);
    assert.deepEqual(keysStored(), [key]);
    assert.equal(publicKey(key).length, 65);
    assert.equal(publicKey(open().prepareKey(384)).length, 97);
    assert.equal(keysStored().length, 1);
  });

  it("takes a certificate for a P-384 key", async () => {
    const key = open().prepareKey(384);
    open().commit(key, [await certify(key)], NOW);
    assertSound(open().current);
  });

  it("prepares a key without touching the pair in use, and without writing a record", async () => {
    const before = await enroll();
    flash.writes = [];
    const point = publicKey(before.key);
    const key = open().prepareKey();
    assert.notEqual(key, before.key);
    assert.deepEqual(open().current, before);
    assert.deepEqual(publicKey(before.key), point);
    assert.deepEqual(flash.writes, []);
  });

  it("switches key and certificate by exactly one write, and then erases the old key", async () => {
    for (let renewal = 0; renewal < 5; renewal++) {
      const before = open().current;
      const store = open();
      const key = store.prepareKey();
      const certificate = await certify(key);
      flash.writes = [];
      store.commit(key, [certificate], NOW);
      assert.deepEqual(flash.writes, ["identity"]);
      assert.deepEqual(store.current, { key, certificates: [certificate] });
      assertSound(open().current);
      assert.deepEqual(keysStored(), [key]);
      assert.ok(before === undefined || !keyExists(before.key));
    }
  });

  it("makes another key each time, and erases the one that got no certificate", () => {
    const points = new Set<string>();
    for (let attempt = 0; attempt < 4; attempt++) {
      points.add(Buffer.from(publicKey(open().prepareKey())).toString("hex"));
      assert.equal(keysStored().length, 1);
    }
    assert.equal(points.size, 4);
  });

  it("abandons a prepared key, and the pair in use stays", async () => {
    const first = open().prepareKey();
    open().abandon(first);
    open().abandon(first);
    assert.deepEqual(keysStored(), []);
    const before = await enroll();
    const key = open().prepareKey();
    open().abandon(key);
    // Not the one in use, whatever is asked.
    open().abandon(before.key);
    assert.deepEqual(open().current, before);
    assertSound(open().current);
    assert.deepEqual(keysStored(), [before.key]);
    await assertRecovers();
  });

  // ---- what is refused ----

  it("refuses a certificate for another key, or none, and nothing changes", async () => {
    const before = await enroll();
    const key = open().prepareKey();
    flash.writes = [];
    const refused = [[], [before.certificates[0]!], [issuer], [issuer, await certify(key)]];
    for (const certificates of refused) {
      assert.throws(() => open().commit(key, certificates, NOW), IdentityError);
    }
    for (const wrong of [new Uint8Array(), Uint8Array.of(0x30, 0), before.certificates[0]!.subarray(0, 100)]) {
      assert.throws(() => open().commit(key, [wrong], NOW), FormatError);
    }
    assert.deepEqual(flash.writes, []);
    assert.deepEqual(open().current, before);
    assert.ok(keyExists(key));
    assertSound(open().current);
  });

  it("refuses a certificate that has expired, where the time is known, and nothing changes", async () => {
    const before = await enroll();
    const key = open().prepareKey();
    const certificate = await certify(key);
    const { notAfter } = parseCertificate(certificate);
    flash.writes = [];
    assert.throws(() => open().commit(key, [certificate], notAfter + 1), IdentityError);
    assert.deepEqual(open().current, before);
    assert.deepEqual(flash.writes, []);
    open().commit(key, [certificate], notAfter);
    assert.equal(open().current?.key, key);
    const next = open().prepareKey();
    open().commit(next, [await certify(next)], 0);
    assert.equal(open().current?.key, next);
  });

  it("refuses a chain that the TLS library cannot use, or that is too long, and nothing changes", async () => {
    const before = await enroll();
    const key = open().prepareKey();
    const certificate = await certify(key);
    flash.writes = [];
    assert.throws(() => open().commit(key, [certificate, Uint8Array.of(1, 2, 3)], NOW), DTLSError);
    assert.throws(() => open().commit(key, [certificate, ...new Array(16).fill(issuer)], NOW), LimitError);
    assert.deepEqual(flash.writes, []);
    assert.deepEqual(open().current, before);
    assert.ok(keyExists(key));
    open().commit(key, [certificate, ...new Array(15).fill(issuer)], NOW);
    assert.equal(open().current?.certificates.length, 16);
  });

  it("refuses to commit a key that does not exist, and nothing changes", async () => {
    const before = await enroll();
    const key = open().prepareKey();
    const certificate = await certify(key);
    open().abandon(key);
    flash.writes = [];
    assert.throws(() => open().commit(key, [certificate], NOW), KeyError);
    assert.deepEqual(flash.writes, []);
    assert.deepEqual(open().current, before);
  });

  // ---- the power goes ----

  it("has a sound pair wherever the power goes between two steps of a renewal", async () => {
    const first = await enroll();
    // A key is made, and its request on the way: twice, as where one wake after another is cut short.
    for (let wake = 0; wake < 2; wake++) {
      open().prepareKey();
      assertSound(open().current);
      assert.deepEqual(open().current, first);
      assert.equal(keysStored().length, 2);
    }
    await assertRecovers();
  });

  it("has no identity, and one key at most, where the power goes in the first enrolment", async () => {
    const key = open().prepareKey();
    assert.equal(open().current, undefined);
    assert.deepEqual(keysStored(), [key]);
    flash.cut = "before";
    const certificate = await certify(key);
    assert.throws(() => open().commit(key, [certificate], NOW), PowerCut);
    flash.cut = undefined;
    assert.equal(open().current, undefined);
    assert.deepEqual(keysStored(), [key]);
    await assertRecovers();
  });

  for (const cut of ["before", "after"] as const) {
    it(`has a sound pair where the power goes right ${cut} the write of a renewal`, async () => {
      // Both numbers have their turn as the one in use.
      for (let renewal = 0; renewal < 2; renewal++) {
        const before = await enroll();
        const key = open().prepareKey();
        const certificate = await certify(key);
        flash.cut = cut;
        assert.throws(() => open().commit(key, [certificate], NOW), PowerCut);
        flash.cut = undefined;
        const { current } = open();
        assert.deepEqual(current, cut === "before" ? before : { key, certificates: [certificate] });
        assertSound(current);
        assert.deepEqual(keysStored(), [KEY_FIRST, KEY_FIRST + 1]);
        await assertRecovers();
      }
    });
  }

  it("has a sound pair where the power goes right after the write of the first enrolment", async () => {
    const key = open().prepareKey();
    const certificate = await certify(key);
    flash.cut = "after";
    assert.throws(() => open().commit(key, [certificate], NOW), PowerCut);
    flash.cut = undefined;
    assertSound(open().current);
    assert.deepEqual(keysStored(), [key]);
    await assertRecovers();
  });

  it("has a sound pair where the power goes between the erasure of a left key and the next one", async () => {
    const before = await enroll();
    const left = open().prepareKey();
    destroyKey(left);
    assert.deepEqual(open().current, before);
    assertSound(open().current);
    await assertRecovers();
  });

  /** The file in which the key storage keeps a key. */
  const fileOf = (key: KeyId): string => join(folder, key.toString(16).padStart(16, "0"));

  it("makes the next key where the power went while a key was written", async () => {
    const before = await enroll();
    const other = before.key === KEY_FIRST ? KEY_FIRST + 1 : KEY_FIRST;
    writeFileSync(`${fileOf(other)}.new`, readFileSync(fileOf(before.key)).subarray(0, 20));
    const key = open().prepareKey();
    assert.equal(key, other);
    assert.deepEqual(open().current, before);
    assert.deepEqual(keysStored(), [KEY_FIRST, KEY_FIRST + 1]);
    await assertRecovers();
  });

  // Found by reading the code: such a key stood in the way of every renewal.
  it("makes the next key in the place of one that flash has spoilt", async () => {
    const before = await enroll();
    const other = before.key === KEY_FIRST ? KEY_FIRST + 1 : KEY_FIRST;
    const good = readFileSync(fileOf(before.key));
    for (const spoilt of [good.subarray(0, 20), good.subarray(0, 0), new Uint8Array(good.length)]) {
      writeFileSync(fileOf(other), spoilt);
      try {
        const key = open().prepareKey();
        assert.equal(publicKey(key).length, 65);
        assert.deepEqual(open().current, before);
        open().abandon(key);
      } finally {
        rmSync(fileOf(other), { force: true });
      }
    }
    await assertRecovers();
  });

  it("can commit again what a full store refused", async () => {
    const before = await enroll();
    const store = open();
    const key = store.prepareKey();
    const certificate = await certify(key);
    flash.cut = "before";
    assert.throws(() => store.commit(key, [certificate], NOW), PowerCut);
    assert.deepEqual(store.current, before);
    flash.cut = undefined;
    store.commit(key, [certificate], NOW);
    assert.deepEqual(store.current, { key, certificates: [certificate] });
    assert.deepEqual(keysStored(), [key]);
  });

  // Found by reading the code: the old key is erased after the switch, and that may fail too.
  it("has changed nothing where commit throws, or does not throw where the old key cannot be erased", async () => {
    const before = await enroll();
    const key = open().prepareKey();
    const certificate = await certify(key);
    // A folder in the place of the old key's file cannot be erased as a file.
    const path = fileOf(before.key);
    renameSync(path, `${folder}.key`);
    mkdirSync(path);
    let thrown: unknown;
    try {
      open().commit(key, [certificate], NOW);
    } catch (error) {
      thrown = error;
    }
    rmSync(path, { recursive: true });
    renameSync(`${folder}.key`, path);
    const record = new Uint8Array(flash.values.get("identity")!);
    const isSwitched = Buffer.from(record).includes(Buffer.from(certificate));
    assert.equal(isSwitched, thrown === undefined, `switched: ${isSwitched}, thrown: ${thrown}`);
  });

  // ---- what is stored is wrong ----

  it("says that the key of the enrolled certificate is gone", async () => {
    const { key } = await enroll();
    destroyKey(key);
    assert.throws(() => open().current, IdentityError);
    await assert.rejects(async () => open().current, /key of the enrolled certificate is missing/);
    // The way out: a new key, with the factory identity.
    const fresh = open().prepareKey();
    open().commit(fresh, [await certify(fresh)], NOW);
    assertSound(open().current);
  });

  /** What `action` throws; undefined where it does not. */
  function thrownBy(action: () => unknown): unknown {
    try {
      action();
    } catch (error) {
      return error;
    }
    return undefined;
  }

  function assertCorrupt(record: "identity" | "trust", bytes: Uint8Array, what: string): void {
    flash.values.set(record, bytes);
    const error = thrownBy(() => (record === "trust" ? open().trustAnchors : open().current));
    assert.ok(error instanceof FormatError, `${what}: ${error}`);
    assert.match(error.message, new RegExp(`stored record "${record}" is corrupt`));
  }

  for (const record of ["identity", "trust"] as const) {
    it(`refuses a record "${record}" with any byte wrong, cut anywhere or longer, by a FormatError`, async () => {
      await enroll();
      open().setTrustAnchors([issuer, otherIssuer]);
      const before = keysStored();
      flash.writes = [];
      const good = flash.values.get(record)!;
      for (let at = 0; at < good.length; at++) {
        for (const flip of [1, 0x80, 0xff]) {
          const bytes = good.slice();
          bytes[at]! ^= flip;
          assertCorrupt(record, bytes, `byte ${at}`);
        }
      }
      for (let length = 0; length < good.length; length++) {
        assertCorrupt(record, good.slice(0, length), `${length} bytes`);
      }
      assertCorrupt(record, Uint8Array.of(...good, 0), "a byte more");
      assert.deepEqual(keysStored(), before);
      assert.deepEqual(flash.writes, []);
      flash.values.set(record, good);
      assertSound(open().current);
      assert.equal(open().trustAnchors?.length, 2);
    });
  }

  /** A record with the right check. */
  function checked(...content: number[]): Uint8Array {
    const bytes = Uint8Array.from(content);
    return Uint8Array.of(...sha256(bytes).subarray(0, 8), ...bytes);
  }

  it("refuses a record that is well checked but makes no sense", async () => {
    const key = [0, 0x54, 0x50, 1];
    const wrong: [string, Uint8Array][] = [
      ["nothing", checked()],
      ["no count", checked(...key)],
      ["no certificate", checked(...key, 0)],
      ["no length", checked(...key, 1)],
      ["half a length", checked(...key, 1, 0)],
      ["less than its length", checked(...key, 1, 0, 3, 1, 2)],
      ["more than its length", checked(...key, 1, 0, 1, 1, 2)],
      ["a certificate less than its count", checked(...key, 2, 0, 1, 1)],
      ["the longest length", checked(...key, 1, 255, 255, 1)],
      ["the highest count", checked(...key, 255, 0, 0, 0, 0)],
    ];
    await enroll();
    for (const [what, bytes] of wrong) {
      assertCorrupt("identity", bytes, what);
      assertCorrupt("trust", bytes, what);
    }
    // What is in a certificate is not the record's affair, but that of what reads it.
    flash.values.set("identity", checked(...key, 1, 0, 1, 1));
    assert.throws(() => open().current, FormatError);
  });

  it("says that the key is gone where the record names one that the device cannot have, or another one", async () => {
    const { certificates } = await enroll();
    const other = open().prepareKey();
    const certificate = certificates[0]!;
    for (const number of [0, 0xffffffff, KEY_LAST, other]) {
      const length = [certificate.length >> 8, certificate.length & 255];
      const id = [number >>> 24, (number >> 16) & 255, (number >> 8) & 255, number & 255];
      flash.values.set("identity", checked(...id, 1, ...length, ...certificate));
      assert.throws(() => open().current, IdentityError, `${number}`);
    }
  });

  it("enrols anew over a corrupt record", async () => {
    await enroll();
    flash.values.set("identity", Uint8Array.of(1, 2, 3));
    const key = open().prepareKey();
    assert.throws(() => open().current, FormatError);
    open().commit(key, [await certify(key)], NOW);
    assertSound(open().current);
    await assertRecovers();
  });

  // ---- trust anchors ----

  it("keeps trust anchors in their order, by one write, and none where they are the same", () => {
    assert.deepEqual(open().setTrustAnchors([issuer, otherIssuer]), { leftOut: 0, isChanged: true });
    assert.deepEqual(open().trustAnchors, [issuer, otherIssuer]);
    assert.deepEqual(open().setTrustAnchors([issuer, otherIssuer]), { leftOut: 0, isChanged: false });
    assert.deepEqual(flash.writes, ["trust"]);
    open().setTrustAnchors([otherIssuer, issuer]);
    assert.deepEqual(open().trustAnchors, [otherIssuer, issuer]);
    open().setTrustAnchors([issuer]);
    assert.deepEqual(open().trustAnchors, [issuer]);
    assert.deepEqual(flash.writes, ["trust", "trust", "trust"]);
    assert.equal(open().current, undefined);
  });

  it("leaves out trust anchors that the TLS library cannot use, and refuses where none is left", () => {
    const unusable = [new Uint8Array(), Uint8Array.of(0x30, 0), issuer.subarray(0, 100)];
    assert.deepEqual(open().setTrustAnchors([unusable[0]!, issuer, unusable[1]!, otherIssuer, unusable[2]!]), {
      leftOut: 3,
      isChanged: true,
    });
    assert.deepEqual(open().trustAnchors, [issuer, otherIssuer]);
    assert.throws(() => open().setTrustAnchors(unusable), IdentityError);
    assert.throws(() => open().setTrustAnchors([]), IdentityError);
    assert.throws(() => open().setTrustAnchors(new Array(17).fill(issuer)), LimitError);
    assert.deepEqual(open().trustAnchors, [issuer, otherIssuer]);
    assert.deepEqual(flash.writes, ["trust"]);
  });

  it("keeps the trust anchors before where the store refuses, and writes over corrupt ones", () => {
    open().setTrustAnchors([issuer]);
    flash.cut = "before";
    assert.throws(() => open().setTrustAnchors([otherIssuer]), PowerCut);
    flash.cut = undefined;
    assert.deepEqual(open().trustAnchors, [issuer]);
    flash.values.set("trust", Uint8Array.of(1, 2, 3));
    open().setTrustAnchors([otherIssuer]);
    assert.deepEqual(open().trustAnchors, [otherIssuer]);
  });

  it("keeps trust anchors apart from the identity: neither changes the other", async () => {
    open().setTrustAnchors([issuer]);
    const identity = await enroll();
    assert.deepEqual(open().trustAnchors, [issuer]);
    open().setTrustAnchors([otherIssuer]);
    assert.deepEqual(open().current, identity);
  });
});
