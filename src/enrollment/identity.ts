/**
 * The device's identity in storage: the key in PSA and the certificate that belongs to it, changed together by one
 * write or not at all; and the trust anchors that the EST server gave (RFC 9148 section 9.1, the explicit ones).
 *
 *     const identity = new IdentityStore(store);
 *     const key = identity.prepareKey();          // a new key; the old pair stays in use
 *     identity.commit(key, certificates);         // one write switches; the old key is erased after it
 */

import { readUint, sameBytes, writeUint } from "../bytes.js";
import { Engine } from "../dtls/engine.js";
import { FormatError, LimitError, TorporError } from "../errors.js";
import type { KeyValueStore } from "../io.js";
import { parseCertificate } from "../pki/certificate.js";
import {
  destroyKey,
  generateKey,
  importKey,
  KEY_FIRST,
  KEY_LAST,
  type KeyId,
  keyExists,
  publicKey,
  sha256,
} from "../pki/key.js";

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

const NO_KEY =
  "the key of the enrolled certificate is missing or corrupt in storage: enrol again with the factory identity";

const CERTIFICATES_MAX = 16;
const CERTIFICATE_BYTES_MAX = 0xffff;

function encodeRecord(key: KeyId, certificates: readonly Uint8Array[]): Uint8Array {
  if (certificates.length > CERTIFICATES_MAX) {
    throw new LimitError(`expected at most ${CERTIFICATES_MAX} certificates to keep, got ${certificates.length}`);
  }
  let end = FIRST_AT;
  for (const { length } of certificates) {
    if (length > CERTIFICATE_BYTES_MAX) {
      throw new LimitError(`expected a certificate of at most ${CERTIFICATE_BYTES_MAX} bytes, got ${length}`);
    }
    end += 2 + length;
  }
  const record = new Uint8Array(end);
  writeUint(record, KEY_AT, 4, key);
  record[COUNT_AT] = certificates.length;
  let at = FIRST_AT;
  for (const certificate of certificates) {
    writeUint(record, at, 2, certificate.length);
    record.set(certificate, at + 2);
    at += 2 + certificate.length;
  }
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

/** Whether the TLS library can use the certificate as a trust anchor; some have keys that it was built without. */
function isUsableAnchor(certificate: Uint8Array): boolean {
  const engine = new Engine();
  try {
    engine.trust(certificate);
    return true;
  } catch {
    return false;
  } finally {
    engine.free();
  }
}

/** Throws where the TLS library cannot use the key with these certificates. */
function checkUsable({ key, certificates }: Identity): void {
  const engine = new Engine();
  try {
    engine.identity(key, certificates);
  } finally {
    engine.free();
  }
}

export class IdentityStore {
  readonly #store: KeyValueStore;

  constructor(store: KeyValueStore) {
    this.#store = store;
  }

  /**
   * The enrolled identity as `commit` wrote it, which had checked the pair; undefined before the first enrolment. For a
   * wake that goes on with a saved association, which needs no key: `check` costs a multiplication on the curve.
   * @throws FormatError where the record is corrupt; IdentityError where its key is gone. The device can then enrol again
   * with its factory identity.
   */
  get recorded(): Identity | undefined {
    const record = this.#store.read(IDENTITY);
    if (record === undefined) {
      return undefined;
    }
    const identity = decodeRecord(IDENTITY, new Uint8Array(record));
    if (!keyExists(identity.key)) {
      throw new IdentityError(NO_KEY);
    }
    return identity;
  }

  /** The enrolled identity, checked. @throws as `recorded` and `check`. */
  get current(): Identity | undefined {
    const identity = this.recorded;
    if (identity !== undefined) {
      this.check(identity);
    }
    return identity;
  }

  /** @throws IdentityError where the key in storage is corrupt, or not that of the certificate. */
  check({ key, certificates }: Identity): void {
    const { publicKey: expected } = parseCertificate(certificates[0]!);
    try {
      if (sameBytes(expected, publicKey(key))) {
        return;
      }
    } catch {
      // No key, or one that cannot be read: the same to the device as a wrong one.
    }
    throw new IdentityError(NO_KEY);
  }

  /** Trust anchors from the EST server, DER; undefined before they were fetched. @throws FormatError: corrupt. */
  get trustAnchors(): readonly Uint8Array[] | undefined {
    const record = this.#store.read(TRUST);
    return record === undefined ? undefined : decodeRecord(TRUST, new Uint8Array(record)).certificates;
  }

  /**
   * Keeps trust anchors in place of those before, by one write; those that the TLS library cannot use are left out.
   * @returns how many were left out, and whether those kept are others than before.
   * @throws IdentityError where none can be used.
   */
  setTrustAnchors(anchors: readonly Uint8Array[]): { leftOut: number; isChanged: boolean } {
    const usable = anchors.filter(isUsableAnchor);
    if (usable.length === 0) {
      throw new IdentityError("none of the server's CA certificates can be used: expected keys on P-256 or P-384");
    }
    const isChanged = !this.hasTrustAnchors(usable);
    if (isChanged) {
      this.#store.write(TRUST, encodeRecord(0, usable));
    }
    return { leftOut: anchors.length - usable.length, isChanged };
  }

  /** Whether these are the ones that are kept: told without a second record in memory. */
  private hasTrustAnchors(anchors: readonly Uint8Array[]): boolean {
    try {
      const kept = this.trustAnchors;
      return kept?.length === anchors.length && kept.every((anchor, index) => sameBytes(anchor, anchors[index]!));
    } catch {
      return false; // a corrupt record is written anew
    }
  }

  /**
   * A new key, for a request. It takes the first number that is not in use; a key that an earlier wake left there, cut
   * off before it got a certificate, is erased. A number whose key cannot be erased (a corrupt one) is passed over.
   * @throws KeyError where storage refuses.
   */
  prepareKey(bits: 256 | 384 = 256): KeyId {
    return generateKey(this.freeNumber(), bits);
  }

  /**
   * The same with a private key that the server made, PKCS #8 in DER.
   * @throws FormatError where it is none; KeyError where storage refuses.
   */
  takeKey(der: Uint8Array): KeyId {
    return importKey(this.freeNumber(), der);
  }

  private freeNumber(): KeyId {
    const used = this.keyInUse;
    for (let key = KEY_FIRST; key < KEY_LAST; key++) {
      if (key !== used) {
        try {
          destroyKey(key);
          return key;
        } catch {
          // a corrupt one: the next
        }
      }
    }
    return KEY_LAST;
  }

  /** Erases identity, keys and trust anchors: the device is as the factory left it. @throws what the store throws. */
  erase(): void {
    this.#store.delete(IDENTITY);
    this.#store.delete(TRUST);
    for (let key = KEY_FIRST; key <= KEY_LAST; key++) {
      destroyKey(key);
    }
  }

  /**
   * Makes `key` and its certificate the device's identity: checks that they belong together and that the TLS library
   * can use them, writes one record, and then erases the key before. Where it throws nothing has changed.
   * @param time seconds since 1970; 0 where it is not known
   * @throws IdentityError where the first certificate is for another key or has expired; CertificateError or DTLSError
   * where the TLS library cannot use it; LimitError; what the store throws.
   */
  commit(key: KeyId, certificates: readonly Uint8Array[], time: number): void {
    const own = certificates[0];
    if (own === undefined || !sameBytes(parseCertificate(own).publicKey, publicKey(key))) {
      throw new IdentityError("the issued certificate is for another key than the device's: refused");
    }
    if (time !== 0 && parseCertificate(own).notAfter < time) {
      throw new IdentityError("the issued certificate has expired already: refused");
    }
    checkUsable({ key, certificates });
    const before = this.keyInUse;
    this.#store.write(IDENTITY, encodeRecord(key, certificates));
    if (before !== undefined && before !== key) {
      this.abandon(before);
    }
  }

  /** Erases a key that is not the identity's. One that cannot be erased stays, and the next enrolment passes it over. */
  abandon(key: KeyId): void {
    if (key === this.keyInUse) {
      return;
    }
    try {
      destroyKey(key);
    } catch {
      // The identity is what counts, and it is as it should be.
    }
  }

  /** The number of the identity's key; undefined where there is none, or its record is corrupt. */
  get keyInUse(): KeyId | undefined {
    const record = this.#store.read(IDENTITY);
    try {
      return record === undefined ? undefined : decodeRecord(IDENTITY, new Uint8Array(record)).key;
    } catch {
      return undefined;
    }
  }
}
