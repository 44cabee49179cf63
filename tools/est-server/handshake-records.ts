/**
 * Handshake records in the clear (RFC 6347 sections 4.1 and 4.2.2), cut into fragments or forged.
 *
 *     relay.split = ({ direction, bytes }) => (direction === "in" ? fragments.cut(bytes) : [bytes]);
 *
 *      0    1       3       5          11       13     14       17            19         22         25
 *      | 22 | FE FD | epoch | sequence | length | type | length | message seq | frag off | frag len | body
 */

export const HANDSHAKE = 22;
export const RECORD_BYTES = 13;
export const HEADER_BYTES = 25;

export interface Fragment {
  readonly type: number;
  /** Bytes of the whole message. */
  readonly length: number;
  readonly messageSequence: number;
  readonly offset: number;
  readonly body: Uint8Array;
}

/** Records of one connection in the clear: no number may come twice, or the record counts as replayed. */
export class HandshakeRecords {
  readonly #bytes: number;
  #sequence = 0;

  /** `bytes`: those of a message that a fragment has at most. */
  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  record({ type, length, messageSequence, offset, body }: Fragment): Buffer {
    const record = Buffer.alloc(HEADER_BYTES + body.length);
    record.writeUInt8(HANDSHAKE, 0);
    record.writeUInt16BE(0xfefd, 1);
    record.writeUIntBE(this.#sequence++, 5, 6);
    record.writeUInt16BE(record.length - RECORD_BYTES, 11);
    record.writeUInt8(type, 13);
    record.writeUIntBE(length, 14, 3);
    record.writeUInt16BE(messageSequence, 17);
    record.writeUIntBE(offset, 19, 3);
    record.writeUIntBE(body.length, 22, 3);
    record.set(body, HEADER_BYTES);
    return record;
  }

  /** Any other record in the clear gets its number here too; one that is protected has its own. */
  numbered(record: Buffer): Buffer {
    const copy = Buffer.from(record);
    if (copy.readUInt16BE(3) === 0) {
      copy.writeUIntBE(this.#sequence++, 5, 6);
    }
    return copy;
  }

  /** A datagram's records, one by one: each handshake message in the clear in fragments, all else as it is. */
  cut(datagram: Buffer): Buffer[] {
    const parts: Buffer[] = [];
    for (const record of recordsOf(datagram)) {
      const message = fragmentOf(record);
      if (message === undefined) {
        parts.push(this.numbered(record));
        continue;
      }
      for (let start = 0; start === 0 || start < message.body.length; start += this.#bytes) {
        const body = message.body.subarray(start, start + this.#bytes);
        parts.push(this.record({ ...message, offset: message.offset + start, body }));
      }
    }
    return parts;
  }
}

/** The records of a datagram of which none has a connection ID. */
export function* recordsOf(datagram: Buffer): IterableIterator<Buffer> {
  for (let at = 0; at + RECORD_BYTES <= datagram.length; ) {
    const end = at + RECORD_BYTES + datagram.readUInt16BE(at + 11);
    yield datagram.subarray(at, end);
    at = end;
  }
}

/** What is in a record with a handshake message in the clear; undefined for any other. */
export function fragmentOf(record: Buffer): Fragment | undefined {
  return record[0] === HANDSHAKE && record.readUInt16BE(3) === 0 && record.length >= HEADER_BYTES
    ? {
        type: record[13]!,
        length: record.readUIntBE(14, 3),
        messageSequence: record.readUInt16BE(17),
        offset: record.readUIntBE(19, 3),
        body: record.subarray(HEADER_BYTES),
      }
    : undefined;
}
