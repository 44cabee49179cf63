/** Device keys and sealing where PSA or its storage says no: each in words of its own, and nothing is made. */

import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openKeys } from "../../hosts/node/native.js";
import { FormatError } from "../../src/errors.js";
import {
  certificateRequest,
  destroyKey,
  generateKey,
  importKey,
  KEY_FIRST,
  KeyError,
  keyExists,
  publicKey,
  sign,
} from "../../src/pki/key.js";
import { DeviceSealer } from "../../src/session/seal.js";
import { TestCA } from "../support/certificates.js";

const EMPTY_NAME = Uint8Array.of(0x30, 0);
const NONE = new Uint8Array(0);
const NO_KEY = KEY_FIRST + 77;

describe("device keys", () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "torpor-keys-"));
    openKeys(join(folder, "keys"));
  });
  afterEach(() => {
    destroyKey(KEY_FIRST);
    rmSync(folder, { recursive: true, force: true });
    openKeys("");
  });

  it("are not made where the number is taken", async () => {
    const { pkcs8 } = await (await TestCA.create()).issue({ subject: "CN=device" });
    generateKey(KEY_FIRST);
    const before = publicKey(KEY_FIRST);
    assert.throws(
      () => generateKey(KEY_FIRST),
      new KeyError("generating a key: a key with this number exists already"),
    );
    assert.throws(
      () => importKey(KEY_FIRST, pkcs8),
      new KeyError("importing a key: a key with this number exists already"),
    );
    assert.deepEqual(publicKey(KEY_FIRST), before);
  });

  it("are not made where there is no storage, and none is left behind", async () => {
    const { pkcs8 } = await (await TestCA.create()).issue({ subject: "CN=device" });
    writeFileSync(join(folder, "file"), "");
    openKeys(join(folder, "file", "keys"));
    assert.throws(() => generateKey(KEY_FIRST), /generating a key: the key storage cannot be written/);
    assert.throws(() => importKey(KEY_FIRST, pkcs8), /importing a key: the key storage cannot be written/);
    assert.throws(() => new DeviceSealer(), /cannot make or store the sealing key/);
    assert.equal(keyExists(KEY_FIRST), false);
  });

  it("that do not exist, or are of a kind that is not asked for, make nothing", () => {
    assert.throws(() => publicKey(NO_KEY), KeyError);
    assert.throws(() => sign(NO_KEY, new Uint8Array(32)), KeyError);
    assert.throws(() => certificateRequest(NO_KEY, EMPTY_NAME, NONE), KeyError);
    assert.throws(() => importKey(0, EMPTY_NAME), FormatError);
    assert.doesNotThrow(() => destroyKey(NO_KEY));
  });

  it("sign hashes of their own length only", () => {
    const key = generateKey(0, 384);
    try {
      assert.equal(publicKey(key).length, 97);
      assert.equal(sign(key, new Uint8Array(48))[0], 0x30);
      assert.throws(() => sign(key, new Uint8Array(32)), new KeyError("signing: PSA error -135"));
    } finally {
      destroyKey(key);
    }
  });

  it("make no request that is longer than a request may be", () => {
    const key = generateKey(0);
    try {
      assert.equal(certificateRequest(key, EMPTY_NAME, NONE)[0], 0x30);
      assert.throws(() => certificateRequest(key, EMPTY_NAME, new Uint8Array(1000)), /exceeds 1024 bytes/);
    } finally {
      destroyKey(key);
    }
  });

  it("seal only what the room is for", () => {
    const sealer = new DeviceSealer();
    assert.throws(() => sealer.seal(NONE, new Uint8Array(4), new Uint8Array(4)), /cannot seal \(PSA error -138\)/);
  });
});
