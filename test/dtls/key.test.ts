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
/** A number of this file's own: other tests of this process leave keys in the library's cache, of other folders. */
const OWN = KEY_FIRST + 60;

describe("device keys", () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "torpor-keys-"));
    openKeys(join(folder, "keys"));
  });
  afterEach(() => {
    destroyKey(OWN);
    rmSync(folder, { recursive: true, force: true });
    openKeys("");
  });

  it("are not made where the number is taken", async () => {
    const { pkcs8 } = await (await TestCA.create()).issue({ subject: "CN=device" });
    generateKey(OWN);
    const before = publicKey(OWN);
    assert.throws(() => generateKey(OWN), new KeyError("generating a key: a key with this number exists already"));
    assert.throws(() => importKey(OWN, pkcs8), new KeyError("importing a key: a key with this number exists already"));
    assert.deepEqual(publicKey(OWN), before);
  });

  it("are not made where there is no storage, and none is left behind", async () => {
    const { pkcs8 } = await (await TestCA.create()).issue({ subject: "CN=device" });
    writeFileSync(join(folder, "file"), "");
    openKeys(join(folder, "file", "keys"));
    assert.throws(() => generateKey(OWN), /generating a key: the key storage cannot be written/);
    assert.throws(() => importKey(OWN, pkcs8), /importing a key: the key storage cannot be written/);
    assert.throws(() => new DeviceSealer(), /cannot make or store the sealing key/);
    assert.equal(keyExists(OWN), false);
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
