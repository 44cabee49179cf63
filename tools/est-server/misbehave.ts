/**
 * What a server can do wrong, on demand: for tests of clients, and for whoever wants to see how a device takes it. Either
 * something by its name, as an EST server, or by a script, as a DTLS or CoAP server:
 *
 *     handshake:MESSAGE:HOW    one message of its handshakes        handshake:ServerHello:cut
 *     block1:N:HOW             the response to block N of a request  block1:2:4.08
 *     block2:N:HOW             block N of a response                 block2:0:szx-bigger
 *     message:HOW              every response                        message:reset
 *     code:C.DD                every response has this code          code:4.99
 *
 * and ":once" behind it does so the first time alone.
 *
 *     const misconduct = new Misconduct("handshake:ServerHello:cut:once");
 */

import { generate, type ParsedPacket } from "coap-packet";
import type { OutgoingMessage } from "./coap-server.js";
import { HANDSHAKE_MESSAGES, HANDSHAKE_WAYS, HandshakeDeviation, type RecordKeys } from "./handshake-deviation.js";
import { type BlockName, MESSAGE_WAYS, MessageDeviation } from "./message-deviation.js";

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
const MISBEHAVING_BLOCK = 256;
/** Else as much as a server takes. */
const BLOCK = 1024;

function isAboutBlocks(what: Misbehaviour): boolean {
  return ["endless-blocks", "block-order", "block-repeat", "etag-change"].includes(what);
}

/** Changes a message of a response as `what` demands. */
function tamper(what: Misbehaviour, message: OutgoingMessage): OutgoingMessage {
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

/** A name or a script that says nothing. */
export class ScriptError extends Error {}

/** What `--help` says of scripts. */
export const SCRIPT_HELP = `    handshake:MESSAGE:HOW    a message of its DTLS handshakes:
                             ${HANDSHAKE_MESSAGES.slice(0, 4).join(", ")},
                             ${HANDSHAKE_MESSAGES.slice(4).join(", ")}
    block1:N:HOW             the response to block N of a request, from 0
    block2:N:HOW             block N of a response
    message:HOW              each response
    code:C.DD                each response has this code, 0.00 to 7.31, whatever it means
    …:once                   what stands before it, at the first time only

  of a handshake, HOW is one of (a name with N takes a number: flip-4)
${HANDSHAKE_WAYS.map(
  ([message, name, says, only]) =>
    `    ${(message === "MESSAGE" ? name : `${message}:${name}`).padEnd(38)} ${says}${only === undefined ? "" : ` (DTLS ${only})`}`,
).join("\n")}

  else HOW is a code, or one of
${MESSAGE_WAYS.map(([name, says]) => `    ${name.padEnd(18)} ${says}`).join("\n")}
`;

const BLOCK_NAMES: Readonly<Record<string, BlockName>> = { block1: "Block1", block2: "Block2" };

/** A script as it is carried out: what it does at each layer of the server. */
export class Misconduct {
  /** What the EST server does by itself. */
  readonly est: Misbehaviour | undefined;
  readonly #handshake: HandshakeDeviation | undefined;
  readonly #message: MessageDeviation | undefined;
  readonly #block: { readonly name: BlockName; readonly number: number } | undefined;
  readonly #times: "always" | "once";
  #count = 0;

  /** @throws ScriptError */
  constructor(script: string) {
    this.#times = script.endsWith(":once") ? "once" : "always";
    const [kind = "", ...rest] = script.replace(/:once$/, "").split(":");
    const [first = "", second = ""] = rest;
    let isKnown = false;
    if (rest.length === 0 && this.#times === "always" && Object.hasOwn(MISBEHAVIOURS, kind)) {
      this.est = kind as Misbehaviour;
      isKnown = true;
    } else if (kind === "handshake" && rest.length === 2) {
      this.#handshake = HandshakeDeviation.of(first, second, this.#times);
      isKnown = this.#handshake !== undefined;
    } else if (Object.hasOwn(BLOCK_NAMES, kind) && rest.length === 2 && /^\d{1,6}$/.test(first)) {
      this.#block = { name: BLOCK_NAMES[kind]!, number: Number(first) };
      this.#message = MessageDeviation.of(second);
    } else if (rest.length === 1 && (kind === "message" || (kind === "code" && first.includes(".")))) {
      this.#message = MessageDeviation.of(first);
    }
    if (!isKnown && this.#message === undefined) {
      throw new ScriptError(`expected what --help lists after --misbehave, not "${script}"`);
    }
  }

  /** Bytes of the largest block that the server takes and gives. */
  get blockSize(): number {
    const isOfBlocks = this.est === undefined ? this.#block !== undefined : isAboutBlocks(this.est);
    return isOfBlocks ? MISBEHAVING_BLOCK : BLOCK;
  }

  /** How often a script was carried out: a test of what never took place proves nothing. */
  get count(): number {
    return this.#handshake?.count ?? this.#count;
  }

  /** The datagrams that go out in place of a DTLS one; `keys` are of its association. */
  rewrite(datagram: Uint8Array, keys?: RecordKeys): readonly Uint8Array[] {
    return this.#handshake?.apply(datagram, keys) ?? [datagram];
  }

  /** The CoAP datagrams that go out in place of a response. */
  tamper(message: OutgoingMessage, request: ParsedPacket): readonly Buffer[] {
    const isDue = this.#times === "always" || this.#count === 0;
    if (this.#message !== undefined && isDue && this.#isMeant(message, request)) {
      this.#count++;
      return this.#message.apply(message, this.#block?.name ?? "Block2");
    }
    return [generate({ ...(this.est === undefined ? message : tamper(this.est, message)) })];
  }

  #isMeant(message: OutgoingMessage, request: ParsedPacket): boolean {
    if (this.#block === undefined) {
      return true;
    }
    const { name, number } = this.#block;
    const { options } = name === "Block1" ? request : message;
    const value = options.find((option) => option.name === name)?.value;
    return value !== undefined && value.reduce((sum, byte) => sum * 256 + byte, 0) >>> 4 === number;
  }
}
