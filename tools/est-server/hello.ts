/**
 * What tells a DTLS server to whom a datagram belongs, and whether its engine has accepted a ClientHello.
 *
 *     const random = clientRandom(datagram);
 *
 * A datagram that begins with a handshake message in the clear (RFC 6347 sections 4.1 and 4.2.2):
 *
 *     0  content type 22      3  epoch 0     13  message type     17  message_seq     25  client_version
 *     1  version              5  sequence    14  length           19  fragment        27  random, 32 bytes
 */

import { HANDSHAKE } from "./handshake-records.js";

const CLIENT_HELLO = 1;
export const SERVER_HELLO = 2;
const LENGTH_AT = 14;
const FRAGMENT_AT = 19;
const RANDOM_AT = 27;
const RANDOM_BYTES = 32;

/** RFC 8446 section 4.1.3: the random of a ServerHello that is a HelloRetryRequest. */
export const RETRY_RANDOM = Buffer.from("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c", "hex");

/** The type of the handshake message in the clear that a datagram begins with. */
export function plainHandshake(datagram: Uint8Array): number | undefined {
  const plain = datagram[0] === HANDSHAKE && datagram[3] === 0 && datagram[4] === 0;
  return plain ? datagram[13] : undefined;
}

/** Whether the engine has accepted a ClientHello: it answers with a ServerHello, not with a request for another hello. */
export function isServerHello(datagram: Uint8Array): boolean {
  return (
    plainHandshake(datagram) === SERVER_HELLO &&
    !RETRY_RANDOM.equals(datagram.subarray(RANDOM_AT, RANDOM_AT + RANDOM_BYTES))
  );
}

/** Whether a datagram begins with a part of a handshake message, and which: its first part, or another one. */
export function partOf(datagram: Uint8Array): "first" | "other" | undefined {
  const number = (at: number): number => (datagram[at]! << 16) | (datagram[at + 1]! << 8) | datagram[at + 2]!;
  const [length, offset, part] = [number(LENGTH_AT), number(FRAGMENT_AT), number(FRAGMENT_AT + 3)];
  return offset > 0 ? "other" : part < length ? "first" : undefined;
}

/** The random of the ClientHello that a datagram begins with, in hexadecimal. It stays the same in the one with the cookie. */
export function clientRandom(datagram: Uint8Array): string | undefined {
  const isHello = plainHandshake(datagram) === CLIENT_HELLO && datagram.length >= RANDOM_AT + RANDOM_BYTES;
  if (!isHello || partOf(datagram) === "other") {
    return undefined;
  }
  return Buffer.from(datagram.subarray(RANDOM_AT, RANDOM_AT + RANDOM_BYTES)).toString("hex");
}
