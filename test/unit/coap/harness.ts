/**
 * A CoAP client on a scripted socket in virtual time.
 *
 *     const harness = await Harness.connected({ blockSize: 64 });
 *     const response = harness.client.request({ method: "GET", path: "/x" });
 *     await harness.reply({ code: Code.CONTENT, payload });
 */

import { writeUint } from "../../../src/bytes.js";
import { type Block, decodeBlock, encodeBlock } from "../../../src/coap/block.js";
import { CoAPClient, type CoAPClientOptions } from "../../../src/coap/client.js";
import {
  type DecodedMessage,
  decode,
  encode,
  MessageType,
  type Option,
  OptionNumber,
} from "../../../src/coap/message.js";
import { FakePeer, FakeSocket } from "../../support/fake-socket.js";
import { FakeTime } from "../../support/fake-time.js";

export interface Reply {
  type?: number;
  code: number;
  messageId?: number;
  token?: Uint8Array;
  block1?: Block;
  block2?: Block;
  options?: Option[];
  payload?: Uint8Array;
}

export interface HarnessOptions extends Partial<CoAPClientOptions> {
  /** The connection is one kept from before, with this next token and message ID. */
  kept?: { token: number; messageId: number };
}

/** What goes with a kept connection: the token in 6 bytes, the message ID in 2. */
export function stateOf(token: number, messageId: number): Uint8Array {
  const state = new Uint8Array(8);
  writeUint(state, 0, 6, token);
  writeUint(state, 6, 2, messageId);
  return state;
}

export class Harness {
  readonly time = new FakeTime();
  readonly peer = new FakePeer(this.time);
  readonly client: CoAPClient;

  constructor({ kept, ...options }: HarnessOptions = {}, connectTime: number | undefined = 0) {
    this.peer.connectTime = connectTime;
    this.peer.state = kept && stateOf(kept.token, kept.messageId);
    this.client = new CoAPClient({
      socket: { io: FakeSocket, peer: this.peer },
      timer: this.time,
      random: () => 0,
      ...options,
    });
  }

  static async connected(options: HarnessOptions = {}): Promise<Harness> {
    const harness = new Harness(options);
    await harness.time.advance(0);
    return harness;
  }

  /** What the client sent, in order. */
  get messages(): DecodedMessage[] {
    return this.peer.sent.map(({ bytes }) => decode(bytes));
  }

  get last(): DecodedMessage {
    return decode(this.peer.sent[this.peer.sent.length - 1].bytes);
  }

  /** The last request that the client sent, not an acknowledgement or a reset. */
  get lastRequest(): DecodedMessage {
    const requests = this.messages.filter(({ code }) => code !== 0);
    return requests[requests.length - 1];
  }

  /** Answers the last request; by default in its acknowledgement. */
  async reply(reply: Reply): Promise<void> {
    this.peer.deliver(replyTo(this.lastRequest, reply));
    await this.time.advance(0);
  }

  async deliver(bytes: Uint8Array): Promise<void> {
    this.peer.deliver(bytes);
    await this.time.advance(0);
  }
}

export function replyTo(request: DecodedMessage, reply: Reply): Uint8Array {
  const options = [...(reply.options ?? [])];
  if (reply.block1) options.push({ number: OptionNumber.BLOCK1, value: encodeBlock(reply.block1) });
  if (reply.block2) options.push({ number: OptionNumber.BLOCK2, value: encodeBlock(reply.block2) });
  return toBytes({
    type: MessageType.ACK,
    messageId: request.messageId,
    token: reply.code === 0 ? new Uint8Array(0) : request.token,
    ...reply,
    options,
  });
}

export function toBytes(reply: Reply): Uint8Array {
  const buffer = new Uint8Array(4096);
  const none = new Uint8Array(0);
  const message = { type: MessageType.CON, messageId: 0, token: none, options: [], payload: none, ...reply };
  return buffer.slice(0, encode(message, buffer));
}

export function blockOf(message: DecodedMessage, number: number): string {
  const option = message.options.find((candidate) => candidate.number === number);
  if (!option) return "";
  const block = decodeBlock(option.value);
  return `${number === OptionNumber.BLOCK1 ? 1 : 2}:${block.number}/${block.more ? 1 : 0}/${block.size}`;
}

/** The Block options of a message as RFC 7959 section 3 writes them: "1:0/1/64 2:0/0/64". */
export function blocksOf(message: DecodedMessage): string {
  return `${blockOf(message, OptionNumber.BLOCK1)} ${blockOf(message, OptionNumber.BLOCK2)}`.trim();
}

/** What a promise is rejected with; fails where it resolves. */
export async function rejection(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error("expected a rejection");
}
