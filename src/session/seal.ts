/**
 * Sealing: AES-128-GCM with a key of this device, for sessions that lie where others can read or write them (flash).
 *
 *     const seal = new DeviceSealer();
 *     seal.seal(associated, plain, sealed);      // sealed.length === plain.length + SEAL_BYTES
 *     seal.unseal(associated, sealed, plain);    // false: not what this device sealed, or for something else
 */

import { TorporError } from "../errors.js";

/** A sealed text is longer than the plain one by this: a nonce of 12 bytes before, a tag of 16 behind. */
export const SEAL_BYTES = 28;

/** What a session table seals with. */
export interface Sealer {
  /** Encrypts and authenticates `plain`, and authenticates `associated`. The arrays do not overlap. */
  seal(associated: Uint8Array, plain: Uint8Array, sealed: Uint8Array): void;
  /** Decrypts; false, and `plain` zeroed, where a bit of `sealed` or `associated` is another one. */
  unseal(associated: Uint8Array, sealed: Uint8Array, plain: Uint8Array): boolean;
}

/** With the key that PSA keeps for this device; it is made when it is needed first. */
export class DeviceSealer implements Sealer {
  readonly #key: number;

  /** @throws TorporError where there is no key and none can be stored. */
  constructor() {
    this.#key = nativeSealKey();
    if (this.#key < 0) {
      throw new TorporError(`cannot make or store the sealing key (PSA error ${this.#key})`);
    }
  }

  seal(associated: Uint8Array, plain: Uint8Array, sealed: Uint8Array): void {
    const error: number = nativeSeal(this.#key, associated, plain, sealed);
    if (error < 0) {
      throw new TorporError(`cannot seal (PSA error ${error})`);
    }
  }

  unseal(associated: Uint8Array, sealed: Uint8Array, plain: Uint8Array): boolean {
    return nativeUnseal(this.#key, associated, sealed, plain) === 0;
  }
}

// The functions of the C core, which the Moddable SDK's compiler takes as they are: see src/dtls/natives.ts.

function nativeSealKey(this: unknown): number {
  return native("xs_torpor_seal_key").call(this);
}

function nativeSeal(this: unknown, key: number, associated: Uint8Array, plain: Uint8Array, sealed: Uint8Array): number {
  return native("xs_torpor_seal").call(this, key, associated, plain, sealed);
}

function nativeUnseal(
  this: unknown,
  key: number,
  associated: Uint8Array,
  sealed: Uint8Array,
  plain: Uint8Array,
): number {
  return native("xs_torpor_unseal").call(this, key, associated, sealed, plain);
}
