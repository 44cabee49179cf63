/**
 * Device keys and certificate requests, made and kept by the C core in PSA Crypto (src/pki/crypto.h). A private key
 * never leaves it; TypeScript holds its number.
 *
 *     const key = generateKey(KEY_FIRST);
 *     const csr = certificateRequest(key, subject, new Uint8Array());
 */

import { FormatError, TorporError } from "../errors.js";

/** The number of a key in PSA. */
export type KeyId = number;

/** A key that cannot be made, found or used. */
export class KeyError extends TorporError {}

/** MBEDTLS_ERR_ASN1_BUF_TOO_SMALL */
const BUFFER_TOO_SMALL = -0x6c;
const ALREADY_EXISTS = -139;
const NOT_PERMITTED = -133;
const INSUFFICIENT_STORAGE = -142;
const STORAGE_FAILURE = -146;
const DATA_CORRUPT = -152;
const DATA_INVALID = -153;

function explain(what: string, error: number): TorporError {
  switch (error) {
    case INSUFFICIENT_STORAGE:
      return new KeyError(`${what}: no room in the key storage`);
    case STORAGE_FAILURE:
    case NOT_PERMITTED:
    case DATA_INVALID: // what mbedTLS makes of any failure to store
      return new KeyError(`${what}: the key storage cannot be written; check that it exists, is writable and has room`);
    case DATA_CORRUPT:
      return new KeyError(`${what}: the stored key is corrupt`);
    case ALREADY_EXISTS:
      return new KeyError(`${what}: a key with this number exists already`);
    default:
      return new KeyError(`${what}: PSA error ${error}`);
  }
}

/** Longest PKCS #10 request that is made, bytes. */
const REQUEST_BYTES_MAX = 1024;

/** Persistent keys have numbers from KEY_FIRST to KEY_LAST; 0 makes one that ends with the process. */
export const KEY_FIRST: KeyId = 0x00545001;
export const KEY_LAST: KeyId = 0x005450ff;

/**
 * Makes an ECDSA key on P-256 (or P-384), stored under `id`, or in RAM for `id` 0.
 * @throws KeyError where the number is taken, or storage refuses.
 */
export function generateKey(id: KeyId, bits: 256 | 384 = 256): KeyId {
  const key: number = nativeKeyGenerate(id, bits);
  if (key < 0) {
    throw explain("generating a key", key);
  }
  return key;
}

/**
 * Takes in a private key in DER, PKCS #8 or SEC 1, not encrypted, P-256 or P-384.
 * @throws FormatError where it is none; KeyError where storage refuses.
 */
export function importKey(id: KeyId, der: Uint8Array): KeyId {
  const key: number = nativeKeyImport(id, der);
  if (key < 0) {
    if (key === ALREADY_EXISTS || (id !== 0 && (key === STORAGE_FAILURE || key === DATA_INVALID))) {
      throw explain("importing a key", key);
    }
    throw new FormatError("expected a private key for P-256 or P-384 in DER (PKCS #8 or SEC 1), not encrypted");
  }
  return key;
}

/** Whether there is a usable key with this number. */
export function keyExists(key: KeyId): boolean {
  return nativeKeyCheck(key) === 0;
}

/**
 * The public key as an uncompressed point: 65 bytes (P-256) or 97 (P-384).
 * @throws KeyError where there is no such key.
 */
export function publicKey(key: KeyId): Uint8Array {
  const point = new Uint8Array(97);
  const length: number = nativeKeyPublic(key, point);
  if (length < 0) {
    throw explain("reading the public key", length);
  }
  return point.subarray(0, length);
}

/**
 * ECDSA signature in DER over a SHA-256 hash (P-256) or a SHA-384 hash (P-384).
 * @throws KeyError where there is no such key.
 */
export function sign(key: KeyId, hash: Uint8Array): Uint8Array {
  const signature = new Uint8Array(112);
  const length: number = nativeKeySign(key, hash, signature);
  if (length < 0) {
    throw explain("signing", length);
  }
  return signature.subarray(0, length);
}

/**
 * Erases the key, from storage too. A number without a key is no error.
 * @throws KeyError where storage refuses.
 */
export function destroyKey(key: KeyId): void {
  const error: number = nativeKeyDestroy(key);
  if (error < 0) {
    throw explain("erasing a key", error);
  }
}

/**
 * A PKCS #10 request (RFC 2986) for `key`, signed with it.
 * @param subject a Name in DER, whole
 * @param attributes the DER of the attributes, one after the other in DER order; may be empty
 * @throws KeyError where there is no such key; FormatError where the request would exceed 1,024 bytes.
 */
export function certificateRequest(key: KeyId, subject: Uint8Array, attributes: Uint8Array): Uint8Array {
  const request = new Uint8Array(REQUEST_BYTES_MAX);
  const length: number = nativeCsr(key, subject, attributes, request);
  if (length < 0) {
    if (length === BUFFER_TOO_SMALL) {
      throw new FormatError(`the certificate request exceeds ${REQUEST_BYTES_MAX} bytes: shorten the subject`);
    }
    throw explain("making a certificate request", length);
  }
  return request.slice(0, length);
}

/** SHA-256 of `bytes`, 32 bytes. */
export function sha256(bytes: Uint8Array): Uint8Array {
  const hash = new Uint8Array(32);
  const error: number = nativeSha256(bytes, hash);
  if (error < 0) {
    throw new TorporError(`SHA-256 failed with PSA error ${error}`);
  }
  return hash;
}

/**
 * CRC-32 (ISO 3309) of the bytes from `start` to `end`: in the C core, for a device's engine takes some 20 to 40 steps
 * for each byte. `initial` makes the same bytes at another place another sum.
 */
export function crc32(bytes: Uint8Array, start: number, end: number, initial: number): number {
  return nativeCrc32(bytes, start, end, initial);
}

/**
 * Whether the first of `chain`, certificates in DER one after the other, leads to one of the trust anchors, by way of
 * the others where need be. Names and times are left aside.
 */
export function isTrusted(chain: Uint8Array, anchors: Uint8Array): boolean {
  return nativeChainVerify(chain, anchors) === 0;
}

// The functions of the C core, which the Moddable SDK's compiler takes as they are: see src/dtls/natives.ts.

function nativeKeyGenerate(this: unknown, id: KeyId, bits: number): number {
  return native("xs_torpor_key_generate").call(this, id, bits);
}

function nativeKeyImport(this: unknown, id: KeyId, der: Uint8Array): number {
  return native("xs_torpor_key_import").call(this, id, der);
}

function nativeKeyCheck(this: unknown, key: KeyId): number {
  return native("xs_torpor_key_check").call(this, key);
}

function nativeKeyPublic(this: unknown, key: KeyId, point: Uint8Array): number {
  return native("xs_torpor_key_public").call(this, key, point);
}

function nativeKeySign(this: unknown, key: KeyId, hash: Uint8Array, signature: Uint8Array): number {
  return native("xs_torpor_key_sign").call(this, key, hash, signature);
}

function nativeKeyDestroy(this: unknown, key: KeyId): number {
  return native("xs_torpor_key_destroy").call(this, key);
}

function nativeCsr(
  this: unknown,
  key: KeyId,
  subject: Uint8Array,
  attributes: Uint8Array,
  request: Uint8Array,
): number {
  return native("xs_torpor_csr").call(this, key, subject, attributes, request);
}

function nativeSha256(this: unknown, bytes: Uint8Array, hash: Uint8Array): number {
  return native("xs_torpor_sha256").call(this, bytes, hash);
}

function nativeCrc32(this: unknown, bytes: Uint8Array, start: number, end: number, initial: number): number {
  return native("xs_torpor_crc32").call(this, bytes, start, end, initial);
}

function nativeChainVerify(this: unknown, chain: Uint8Array, anchors: Uint8Array): number {
  return native("xs_torpor_chain_verify").call(this, chain, anchors);
}
