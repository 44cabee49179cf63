/**
 * What a wake came to, in lines for people.
 *
 *     process.stdout.write(`${textOf(3, result)}\n`);
 */

import type { WakeResult } from "./result.js";
import { span } from "./span.js";

/** The lines for people. */
export function textOf(wake: number, result: WakeResult): string {
  const { association, operations, duration, heap, schedule, resources = [] } = result;
  const next = schedule === undefined ? [] : [`next: ${schedule.next}, in ${span(schedule.sleep)}`];
  if (operations.length === 0) {
    return [`wake ${wake}: nothing is due`, ...next].join("\n");
  }
  const lines = operations.map(({ operation, code, bytes }) => `${operation}: ${code}, ${bytes} bytes`);
  const { handshake, application, way, roundTrips } = association;
  const ways = {
    context: "restored context",
    session: "resumed by session id",
    ticket: "resumed by ticket",
    full: "full handshake",
  };
  const xs = heap.xsPeak > 0 ? `; XS heap ${heap.xsPeak} bytes, DTLS heap ${heap.dtlsPeak}` : "";
  lines.push(
    `wake ${wake}: ${ways[way ?? "full"]}, ${handshake.bytesOut} + ${handshake.bytesIn} bytes in ${roundTrips} round ` +
      `trips; requests ${application.bytesOut} + ${application.bytesIn} bytes; ${duration} ms; ` +
      `${association.protocol} ${association.cipherSuite}${xs}`,
  );
  for (const { name, path, host, port, formats } of resources) {
    const authority = host === undefined ? "" : `coaps://${host.includes(":") ? `[${host}]` : host}:${port}`;
    lines.push(`${name}: ${authority}${path}${formats.length > 0 ? `, Content-Format ${formats.join(" or ")}` : ""}`);
  }
  lines.push(...next);
  return [...lines, ...association.notes.map((note) => `note: ${note}`)].join("\n");
}
