/**
 * A server that deviates at one message of its handshake, one block, with one code or in one part of its messages, as a
 * text says it. What it sends is rewritten on its way out; its own parts know nothing of it.
 *
 *     const { dtls, coap } = readDeviation("ServerHello/suite-unoffered");
 *     const { dtls, coap } = readDeviation("Block2/1/number-next");
 */

import {
  BLOCK_DEVIATIONS,
  blockDeviation,
  codeDeviation,
  MESSAGE_DEVIATIONS,
  messageDeviation,
} from "./deviate-coap.js";
import { type Deviate, deviationsOf, handshakeDeviation, SERVER_MESSAGES } from "./deviate-handshake.js";

/** What becomes of datagrams of DTLS, or of messages of CoAP before DTLS. */
export interface Deviation {
  readonly dtls?: Deviate;
  readonly coap?: Deviate;
}

/** All forms of a deviation, for a help text. */
export const DEVIATIONS_HELP: readonly string[] = [
  "MESSAGE/HOW         deviates at a message of each handshake, MESSAGE/HOW/once at the first one:",
  ...SERVER_MESSAGES.map((message) => `${message}/{${deviationsOf(message).join(",")}}`),
  "Block1/N/HOW, Block2/N/HOW  deviates at block N of a request's or of its own body:",
  `{${BLOCK_DEVIATIONS.join(",")}}`,
  "code/C.DD           answers everything with that code",
  "message/HOW         makes every response wrong:",
  `{${MESSAGE_DEVIATIONS.join(",")}}`,
];

/** @throws RangeError with a sentence where the text is none of those. */
export function readDeviation(text: string): Deviation {
  const [where = "", how = "", more, ...rest] = text.split("/");
  const message = SERVER_MESSAGES.find((name) => name === where);
  if (message !== undefined && (more === undefined || more === "once") && rest.length === 0) {
    return { dtls: handshakeDeviation(message, how, more ?? "always") };
  }
  if ((where === "Block1" || where === "Block2") && /^\d{1,7}$/.test(how) && more !== undefined && rest.length === 0) {
    return { coap: blockDeviation(where, Number(how), more) };
  }
  if (where === "code" && more === undefined) {
    return { coap: codeDeviation(how) };
  }
  if (where === "message" && more === undefined) {
    return { coap: messageDeviation(how) };
  }
  throw new RangeError(
    `"${text}" is no deviation: expected MESSAGE/HOW, MESSAGE/HOW/once, Block1/N/HOW, Block2/N/HOW, code/C.DD or message/HOW`,
  );
}
