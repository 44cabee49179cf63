/**
 * The device's identity in storage: the key in PSA and the certificate that belongs to it, changed together by one
 * write or not at all; and the trust anchors that the EST server gave (RFC 9148 section 9.1, the explicit ones).
 *
 *     const identity = new IdentityStore(store);
 *     const key = identity.prepareKey();          // a new key; the old pair stays in use
 *     identity.commit(key, certificates);         // one write switches; the old key is erased after it
 */

import { joinBytes, readUint, sameBytes, writeUint } from "../bytes.js";
import { FormatError, TorporError } from "../errors.js";
import type { KeyValueStore } from "../io.js";
import { parseCertificate } from "../pki/certificate.js";
import { destroyKey, generateKey, KEY_FIRST, type KeyId, keyExists, publicKey, sha256 } from "../pki/key.js";

/** A key and the certificates that go with it: the device's own, then those above it, DER. */
export interface Identity {
  readonly key: KeyId;
  readonly certificates: readonly Uint8Array[];
}

/** A certificate that was issued, but is not for this device or its key. */
export class IdentityError extends TorporError {}

/*
 * The stored records "identity" and "trust":
 *
 *   0         8       12      13
 *   | check   | key   | count | length u16 | DER | length u16 | DER …
 *   check: the first 8 bytes of the SHA-256 of all that follows; key: 0 in "trust"
 */
const CHECK_BYTES = 8;
const KEY_AT = 8;
const COUNT_AT = 12;
const FIRST_AT = 13;

const IDENTITY = "identity";
const TRUST = "trust";

/** Two numbers take turns: the one in use, and the one for the next key. */
const KEYS: readonly KeyId[] = [KEY_FIRST, KEY_FIRST + 1];

function encodeRecord(key: KeyId, certificates: readonly Uint8Array[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const certificate of certificates) {
    const length = new Uint8Array(2);
    writeUint(length, 0, 2, certificate.length);
    parts.push(length, certificate);
  }
  const head = new Uint8Array(FIRST_AT);
  writeUint(head, KEY_AT, 4, key);
  head[COUNT_AT] = certificates.length;
  const record = joinBytes(head, ...parts);
  record.set(sha256(record.subarray(CHECK_BYTES)).subarray(0, CHECK_BYTES));
  return record;
}

function decodeRecord(name: string, record: Uint8Array): Identity {
  const corrupt = new FormatError(
    `the stored record "${name}" is corrupt: erase it to start from the factory identity`,
  );
  if (
    record.length < FIRST_AT ||
    !sameBytes(record.subarray(0, CHECK_BYTES), sha256(record.subarray(CHECK_BYTES)).subarray(0, CHECK_BYTES))
  ) {
    throw corrupt;
  }
  const certificates: Uint8Array[] = [];
  let at = FIRST_AT;
  for (let count = record[COUNT_AT]!; count > 0; count--) {
    const end = at + 2 + (at + 2 <= record.length ? readUint(record, at, 2) : 0);
    if (at + 2 > record.length || end > record.length) {
      throw corrupt;
    }
    certificates.push(record.subarray(at + 2, end));
    at = end;
  }
  if (at !== record.length || certificates.length === 0) {
    throw corrupt;
  }
  return { key: readUint(record, KEY_AT, 4), certificates };
}

export class IdentityStore {
  readonly #store: KeyValueStore;

  constructor(store: KeyValueStore) {
    this.#store = store;
  }

  /**
   * The enrolled identity; undefined before the first enrolment.
   * @throws FormatError where the record is corrupt; IdentityError where its key is gone.
   */
  get current(): Identity | undefined {
    const record = this.#store.read(IDENTITY);
    if (record === undefined) {
      return undefined;
    }
    const identity = decodeRecord(IDENTITY, new Uint8Array(record));
    if (!keyExists(identity.key)) {
      throw new IdentityError(
        "the key of the enrolled certificate is missing or corrupt in storage: enrol again with the factory identity",
      );
    }
    return identity;
  }

  /** Trust anchors from the EST server, DER; undefined before they were fetched. @throws FormatError: corrupt. */
  get trustAnchors(): readonly Uint8Array[] | undefined {
    const record = this.#store.read(TRUST);
    return record === undefined ? undefined : decodeRecord(TRUST, new Uint8Array(record)).certificates;
  }

  /** Keeps trust anchors in place of those before, by one write. */
  setTrustAnchors(anchors: readonly Uint8Array[]): void {
    const record = encodeRecord(0, anchors);
    const old = this.#store.read(TRUST);
    if (old === undefined || !sameBytes(new Uint8Array(old), record)) {
      this.#store.write(TRUST, record);
    }
  }

  /**
   * A new key, for a request. The number that is not in use is taken; a key that an earlier wake left there, cut off
   * before it got a certificate, is erased: there is never more than one.
   * @throws KeyError where storage refuses.
   */
  prepareKey(bits: 256 | 384 = 256): KeyId {
    const record = this.#store.read(IDENTITY);
    const used = record === undefined ? undefined : decodeRecord(IDENTITY, new Uint8Array(record)).key;
    const free = KEYS[0] === used ? KEYS[1]! : KEYS[0]!;
    destroyKey(free);
    return generateKey(free, bits);
  }

  /**
   * Makes `key` and its certificate the device's identity: checks that they belong together, writes one record, and
   * then erases the key before. Where it throws nothing has changed.
   * @throws IdentityError where the first certificate is for another key; what the store throws.
   */
  commit(key: KeyId, certificates: readonly Uint8Array[]): void {
    const own = certificates[0];
    if (own === undefined || !sameBytes(parseCertificate(own).publicKey, publicKey(key))) {
      throw new IdentityError("the issued certificate is for another key than the device's: refused");
    }
    this.#store.write(IDENTITY, encodeRecord(key, certificates));
    for (const other of KEYS) {
      if (other !== key) {
        destroyKey(other);
      }
    }
  }

  /** Erases a key that was prepared and got no certificate. */
  abandon(key: KeyId): void {
    destroyKey(key);
  }
}
