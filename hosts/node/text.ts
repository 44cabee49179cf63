/**
 * What a wake came to, in lines for people.
 *
 *     process.stdout.write(`${textOf(lineOf(3, "node", "crts", result))}\n`);
 */

import type { WakeLine } from "./result.js";
import { span } from "./span.js";

/** The lines for people. */
export function textOf(line: WakeLine): string {
  const { wake, handshake, application, way, operations, ms, heap, schedule, resources = [] } = line;
  const next = schedule === undefined ? [] : [`next: ${schedule.next}, in ${span(schedule.sleep)}`];
  if (operations.length === 0) {
    return [`wake ${wake}: nothing is due`, ...next].join("\n");
  }
  const lines = operations.map(({ operation, code, bytes }) => `${operation}: ${code}, ${bytes} bytes`);
  const ways = {
    context: "restored context",
    session: "resumed by session id",
    ticket: "resumed by ticket",
    full: "full handshake",
  };
  const xs = heap.xsPeak > 0 ? `; XS heap ${heap.xsPeak} bytes, DTLS heap ${heap.dtlsPeak}` : "";
  lines.push(
    `wake ${wake}: ${ways[way ?? "full"]}, ${handshake.bytesOut} + ${handshake.bytesIn} bytes in ${handshake.roundTrips} round ` +
      `trips; requests ${application.bytesOut} + ${application.bytesIn} bytes; ${ms} ms; ` +
      `${line.protocol} ${line.cipherSuite}${xs}`,
  );
  for (const { name, path, host, port, formats } of resources) {
    const authority = host === undefined ? "" : `coaps://${host.includes(":") ? `[${host}]` : host}:${port}`;
    lines.push(`${name}: ${authority}${path}${formats.length > 0 ? `, Content-Format ${formats.join(" or ")}` : ""}`);
  }
  lines.push(...next);
  return [...lines, ...line.notes.map((note) => `note: ${note}`)].join("\n");
}
