/**
 * What a wake came to, from whichever host, a board too, and its line of JSON.
 *
 *     process.stdout.write(`${jsonOf(3, "node", "crts", result)}\n`);
 */

import type { AssociationReport, Way } from "../../src/dtls/socket.js";
import type { ScheduleReport } from "../../src/enrollment/run.js";
import type { Operation, OperationReport } from "../../src/enrollment/wake.js";
import type { ESTResource } from "../../src/est/discovery.js";

export interface WakeResult {
  readonly association: AssociationReport;
  readonly operations: readonly OperationReport[];
  /** The body of the last answer, and its length. */
  readonly body: Uint8Array;
  readonly bytes: number;
  /** Milliseconds. */
  readonly duration: number;
  /** Milliseconds of processor time of the wake alone: without the start of the process and of the engine. */
  readonly cpu: number;
  /** Milliseconds of processor time from the start of the process to the wake, where the host tells. */
  readonly cpuBefore?: number | undefined;
  /** Of `run`. */
  readonly schedule?: ScheduleReport | undefined;
  /** Of `core`. */
  readonly resources?: readonly ESTResource[] | undefined;
  /** Bytes at the peak; `xs` are the parts of xsPeak, where the host is XS. */
  readonly heap: {
    readonly xsPeak: number;
    readonly dtlsPeak: number;
    readonly xs?: { readonly slots: number; readonly chunks: number; readonly stack: number };
    /** Bytes in use before the association ends: XS after a collection (slots and chunks), and mbedTLS. */
    readonly xsSteady?: number;
    readonly dtlsSteady?: number;
  };
}

/** The line of --json; the fields up to `bytes` are a contract, those after it may grow. */
export interface WakeLine {
  readonly wake: number;
  readonly host: string;
  readonly operation: string;
  readonly way: Way | null;
  readonly handshake: {
    readonly bytesOut: number;
    readonly bytesIn: number;
    readonly datagramsOut: number;
    readonly datagramsIn: number;
    readonly roundTrips: number;
  };
  readonly application: { readonly bytesOut: number; readonly bytesIn: number };
  readonly protocol: string | null;
  readonly cipherSuite: string | null;
  /** Of the key exchange; null where there was none. */
  readonly group: string | null;
  readonly ms: number;
  readonly heap: WakeResult["heap"];
  readonly code: string | null;
  readonly bytes: number;
  readonly operations: readonly OperationReport[];
  readonly timeChecked: boolean | null;
  /** Bytes that each record to the server adds to its message. */
  readonly overhead: number;
  /** Milliseconds of processor time, without the start of the process. */
  readonly cpu: number;
  readonly notes: readonly string[];
  /** What comes next, of `run`; where the server has what, of `core`. */
  readonly schedule?: ScheduleReport | undefined;
  readonly resources?: readonly ESTResource[] | undefined;
}

export function lineOf(wake: number, host: string, operation: Operation, result: WakeResult): WakeLine {
  const { association, operations, duration, cpu, bytes, heap } = result;
  const { bytesOut, bytesIn, datagramsOut, datagramsIn } = association.handshake;
  return {
    wake,
    host,
    operation,
    way: association.way ?? null,
    handshake: { bytesOut, bytesIn, datagramsOut, datagramsIn, roundTrips: association.roundTrips },
    application: { bytesOut: association.application.bytesOut, bytesIn: association.application.bytesIn },
    protocol: association.protocol ?? null,
    cipherSuite: association.cipherSuite ?? null,
    group: association.group ?? null,
    ms: duration,
    heap,
    code: operations.at(-1)?.code ?? null,
    bytes,
    operations,
    timeChecked: association.timeChecked ?? null,
    overhead: association.overhead,
    cpu: Math.round(cpu * 1000) / 1000,
    notes: association.notes,
    schedule: result.schedule,
    resources: result.resources,
  };
}

export function jsonOf(wake: number, host: string, operation: Operation, result: WakeResult): string {
  return JSON.stringify(lineOf(wake, host, operation, result));
}
