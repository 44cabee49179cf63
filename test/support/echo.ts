/**
 * A client of a server that sends back every message: one life of an association, from connecting to sleep or end.
 *
 *     const report = await echo({ address, port, secure, sessions, end: "sleep" });
 */

import { strict as assert } from "node:assert";
import "../../hosts/node/native.js";
import { clock, timer, UDP } from "../../hosts/node/io.js";
import { AssociationReport, DTLSSocket, type DTLSSocketOptions } from "../../src/dtls/socket.js";

const MESSAGE = Uint8Array.from({ length: 100 }, (_, i) => i);

export interface EchoOptions extends Pick<DTLSSocketOptions, "address" | "port" | "secure" | "sessions" | "resume"> {
  /** One of 100 bytes unless told. */
  readonly messages?: readonly Uint8Array[];
  /** Looks at each answer; unless told it must be the message. */
  readonly check?: (answer: Uint8Array) => void;
  /** Milliseconds from an answer to the next message. */
  readonly pause?: number;
  /** How the life ends; "close" unless told. */
  readonly end?: "close" | "sleep";
}

/** Connects, sends the messages, each when the one before it has come back, and ends. What the association cost. */
export function echo({
  end = "close",
  secure,
  messages = [MESSAGE],
  pause = 0,
  check,
  ...options
}: EchoOptions): Promise<AssociationReport> {
  const report = new AssociationReport();
  return new Promise((resolve, reject) => {
    const buffer = new Uint8Array(1200);
    let at = 0;
    const socket = new DTLSSocket({
      ...options,
      socket: { io: UDP },
      timer,
      clock,
      secure: { handshakeTimer: 1000, patience: 8000, ...secure },
      report,
      onWritable: () => socket.write(messages[0]!),
      onReadable: () => {
        const length = socket.read(buffer);
        if (length !== undefined) {
          const answer = buffer.subarray(0, length);
          if (check === undefined) {
            assert.deepEqual(answer, messages[at]);
          } else {
            check(answer);
          }
          if (++at < messages.length) {
            setTimeout(() => socket.write(messages[at]!), pause);
            return;
          }
          if (end === "sleep") {
            socket.sleep(new Uint8Array());
          } else {
            socket.close();
          }
          resolve(report);
        }
      },
      onError: reject,
    });
  });
}
