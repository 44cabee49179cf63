/**
 * What a wake came to, from whichever host, and how it is printed.
 *
 *     process.stdout.write(`${jsonOf(3, "node", "crts", result)}\n`);
 */

import type { AssociationReport } from "../../src/dtls/socket.js";
import type { Operation, OperationReport } from "../../src/enrollment/wake.js";

export interface WakeResult {
  readonly association: AssociationReport;
  readonly operations: readonly OperationReport[];
  /** The body of the last answer, and its length. */
  readonly body: Uint8Array;
  readonly bytes: number;
  /** Milliseconds. */
  readonly duration: number;
  /** Bytes at the peak; `xs` are the parts of xsPeak, where the host is XS. */
  readonly heap: {
    readonly xsPeak: number;
    readonly dtlsPeak: number;
    readonly xs?: { readonly slots: number; readonly chunks: number; readonly stack: number };
  };
}

/** The line of --json; its first fields are a contract, the ones after `bytes` may grow. */
export function jsonOf(wake: number, host: string, operation: Operation, result: WakeResult): string {
  const { association, operations, duration, bytes, heap } = result;
  const { bytesOut, bytesIn, datagramsOut, datagramsIn } = association.handshake;
  return JSON.stringify({
    wake,
    host,
    operation,
    way: association.way ?? null,
    handshake: { bytesOut, bytesIn, datagramsOut, datagramsIn, roundTrips: association.roundTrips },
    application: { bytesOut: association.application.bytesOut, bytesIn: association.application.bytesIn },
    protocol: association.protocol ?? null,
    cipherSuite: association.cipherSuite ?? null,
    ms: duration,
    heap,
    code: operations.at(-1)?.code ?? null,
    bytes,
    operations,
    timeChecked: association.timeChecked ?? null,
    notes: association.notes,
  });
}

/** The lines for people. */
export function textOf(wake: number, { association, operations, duration, heap }: WakeResult): string {
  if (operations.length === 0) {
    return `wake ${wake}: nothing is due`;
  }
  const lines = operations.map(({ operation, code, bytes }) => `${operation}: ${code}, ${bytes} bytes`);
  const { handshake, application, way, roundTrips } = association;
  const ways = { session: "resumed by session id", ticket: "resumed by ticket", full: "full handshake" };
  const xs = heap.xsPeak > 0 ? `; XS heap ${heap.xsPeak} bytes, DTLS heap ${heap.dtlsPeak}` : "";
  lines.push(
    `wake ${wake}: ${ways[way ?? "full"]}, ${handshake.bytesOut} + ${handshake.bytesIn} bytes in ${roundTrips} round ` +
      `trips; requests ${application.bytesOut} + ${application.bytesIn} bytes; ${duration} ms; ` +
      `${association.protocol} ${association.cipherSuite}${xs}`,
  );
  return [...lines, ...association.notes.map((note) => `note: ${note}`)].join("\n");
}
