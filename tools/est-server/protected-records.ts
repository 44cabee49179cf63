/**
 * A server's protected records of DTLS 1.3 (RFC 9147 section 4), opened and sealed anew with its own keys: so that a message
 * which it never said is authentic all the same.
 *
 *     const records = new ProtectedRecords((epoch) => association.recordKeys(epoch));
 *     const { type, content } = records.open(record)!;
 *     send(records.seal(epoch, number, type, content));
 *
 *      0                    1        3        5
 *      | 0 0 1 C S L E E    | number | length | encrypted: content | type | zeros … | tag |
 *
 * The number is masked by a block of the ciphertext (section 4.2.3). This one reads what the engine writes: two bytes of
 * number, a length, and no connection ID.
 */

import { type CipherCCMTypes, createCipheriv, createDecipheriv } from "node:crypto";

/** RFC 9147 section 4: 001, no connection ID, 16 bits of number, a length. */
const FLAGS = 0b0010_1100;
const EPOCH_BITS = 0b11;
export const UNIFIED_BYTES = 5;
const BLOCK_BYTES = 16;
/** The engine's suites by cipher and bytes of the tag, RFC 9148's first. GCM is called as CCM is. */
const SUITES: readonly (readonly [cipher: CipherCCMTypes, tagBytes: number])[] = [
  ["aes-128-ccm", 8],
  ["aes-128-ccm", 16],
  ["aes-128-gcm" as CipherCCMTypes, 16],
];

export interface Opened {
  readonly epoch: number;
  /** The number's last 16 bits. */
  readonly number: number;
  readonly type: number;
  readonly content: Buffer;
}

/** Whether a record, or the first one of a datagram, is protected as DTLS 1.3 does it: by the first bits of its header. */
export const isProtected = (datagram: Uint8Array): boolean => datagram[0]! >> 5 === 0b001;

/** The protected records of a datagram, one by one, as far as each has a length. */
export function* protectedRecordsOf(datagram: Buffer): IterableIterator<Buffer> {
  for (let at = 0; at + UNIFIED_BYTES <= datagram.length; ) {
    const end = at + UNIFIED_BYTES + datagram.readUInt16BE(at + 3);
    yield datagram.subarray(at, end);
    at = end;
  }
}

export class ProtectedRecords {
  readonly #keysOf: (epoch: number) => Uint8Array | undefined;
  /** By epoch, which of SUITES it has: only trying tells. */
  readonly #suites = new Map<number, number>();

  /** `keysOf`: key, IV and key for the record numbers of an epoch, 16, 12 and 16 bytes. */
  constructor(keysOf: (epoch: number) => Uint8Array | undefined) {
    this.#keysOf = keysOf;
  }

  /** Undefined for a record of another form, or of an epoch of which the keys are not known. */
  open(record: Buffer): Opened | undefined {
    const epoch = record[0]! & EPOCH_BITS;
    const keys = this.#keysOf(epoch);
    if ((record[0]! & ~EPOCH_BITS) !== FLAGS || keys === undefined || record.length < UNIFIED_BYTES + BLOCK_BYTES) {
      return undefined;
    }
    const number = record.readUInt16BE(1) ^ maskOf(keys, record.subarray(UNIFIED_BYTES)).readUInt16BE(0);
    const header = headerOf(epoch, number, record.length - UNIFIED_BYTES);
    for (const [at, [name, tagBytes]] of SUITES.entries()) {
      const sealed = record.subarray(UNIFIED_BYTES, record.length - tagBytes);
      const options = { authTagLength: tagBytes };
      const cipher = createDecipheriv(name, keys.subarray(0, 16), nonceOf(keys, number), options);
      cipher.setAuthTag(record.subarray(record.length - tagBytes));
      cipher.setAAD(header, { plaintextLength: sealed.length });
      try {
        const plain = Buffer.concat([cipher.update(sealed), cipher.final()]);
        this.#suites.set(epoch, at);
        let end = plain.length - 1;
        while (end > 0 && plain[end] === 0) {
          end--;
        }
        return { epoch, number, type: plain[end] ?? 0, content: plain.subarray(0, end) };
      } catch {
        // Another suite's.
      }
    }
    return undefined;
  }

  /** A record of an epoch of which one was opened before. */
  seal(epoch: number, number: number, type: number, content: Uint8Array): Buffer {
    const keys = this.#keysOf(epoch)!;
    const [name, tagBytes] = SUITES[this.#suites.get(epoch)!]!;
    // A number is masked by 16 bytes of ciphertext: what has less is padded (RFC 9147 section 4.2.3).
    const padding = Buffer.alloc(Math.max(0, BLOCK_BYTES - tagBytes - content.length - 1));
    const plain = Buffer.concat([content, Buffer.of(type), padding]);
    const header = headerOf(epoch, number, plain.length + tagBytes);
    const options = { authTagLength: tagBytes };
    const cipher = createCipheriv(name, keys.subarray(0, 16), nonceOf(keys, number), options);
    cipher.setAAD(header, { plaintextLength: plain.length });
    const sealed = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    header.writeUInt16BE((number & 0xffff) ^ maskOf(keys, sealed).readUInt16BE(0), 1);
    return Buffer.concat([header, sealed]);
  }
}

/** The header with its number in the clear, which is what is authenticated. */
function headerOf(epoch: number, number: number, length: number): Buffer {
  const header = Buffer.alloc(UNIFIED_BYTES);
  header.writeUInt8(FLAGS | (epoch & EPOCH_BITS), 0);
  header.writeUInt16BE(number & 0xffff, 1);
  header.writeUInt16BE(length, 3);
  return header;
}

/** RFC 8446 section 5.3; a handshake has less than 2^16 records. */
function nonceOf(keys: Uint8Array, number: number): Buffer {
  const nonce = Buffer.from(keys.subarray(16, 28));
  for (let at = 11, rest = number; rest > 0; at--, rest >>>= 8) {
    nonce[at]! ^= rest & 255;
  }
  return nonce;
}

function maskOf(keys: Uint8Array, sealed: Uint8Array): Buffer {
  const cipher = createCipheriv("aes-128-ecb", keys.subarray(28, 44), null).setAutoPadding(false);
  return cipher.update(sealed.subarray(0, BLOCK_BYTES));
}
