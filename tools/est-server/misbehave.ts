/**
 * What a server can do wrong, on demand: for tests of clients, and for whoever wants to see how a device takes it.
 *
 *     estHandler({ ca, lifetime, misbehave: "foreign-key" });
 */

import type { Outgoing } from "./coap-server.js";

/** Each with what the server does. */
export const MISBEHAVIOURS = {
  "foreign-key": "certifies another key than that of the request",
  "wrong-subject": "certifies another subject than that of the request",
  "not-a-ca": "gives a certificate as a CA's that is none",
  "other-ca": "gives the certificate of a CA that its own certificate does not lead to",
  "many-certificates": "answers with 200 certificates",
  "huge-body": "answers with a body of 1 MB",
  "endless-blocks": "sends block after block, without saying how many there are",
  "block-order": "answers with the block after the one that was asked for",
  "block-repeat": "answers with the block before the one that was asked for",
  "etag-change": "gives each block another ETag",
  "csrattrs-bomb": "wishes 1,000 attributes",
  "multipart-nested": "puts an array into the multipart-core of skg",
  "multipart-length": "gives a part of skg a length that is too large",
  "wrong-server-key": "sends with skg a key that does not belong to the certificate",
  "wrapped-key": "sends the key of skg as Content-Format 280, in CMS",
  kipuka: "answers as kipuka does: 2.01 to sen and sren, its own Content-Format numbers, no discovery, no skc",
} as const;

export type Misbehaviour = keyof typeof MISBEHAVIOURS;

/** Bytes of a block where the misbehaviour is about blocks: small, so that there are some. */
export const MISBEHAVING_BLOCK = 256;

export function isAboutBlocks(what: Misbehaviour): boolean {
  return ["endless-blocks", "block-order", "block-repeat", "etag-change"].includes(what);
}

/** Changes a message of a response as `what` demands. */
export function tamper(what: Misbehaviour, message: Outgoing): Outgoing {
  const block2 = message.options.find(({ name }) => name === "Block2");
  if (block2 === undefined || !isAboutBlocks(what)) {
    return message;
  }
  const value = block2.value.reduce((sum, byte) => sum * 256 + byte, 0);
  const number = value >> 4;
  const set = (name: string, bytes: Buffer) => ({
    ...message,
    options: message.options.map((option) => (option.name === name ? { name, value: bytes } : option)),
  });
  const uint = (bits: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(bits);
    return bytes.subarray(Math.clz32(bits) >> 3);
  };
  switch (what) {
    case "block-order":
      return number === 0 ? message : set("Block2", uint(value + 16));
    case "block-repeat":
      return number === 0 ? message : set("Block2", uint(value - 16));
    case "etag-change":
      return set("ETag", Buffer.from([number + 1]));
    default:
      // The body is a long one, of which Size2 would tell.
      return { ...message, options: message.options.filter(({ name }) => name !== "Size2") };
  }
}
