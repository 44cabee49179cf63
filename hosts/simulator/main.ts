/**
 * The program of the simulated device: does one wake as options.json says, and reports it in one line of JSON.
 *
 *     simulator build/hosts/simulator/main.js --arguments DIR --state DIR
 */

import type { Identity } from "../../src/enrollment/identity.js";
import { type WakeOptions, type WakeReport, wake } from "../../src/enrollment/wake.js";
import { importKey } from "../../src/pki/key.js";
import { clock, retain, storage, timer, UDP } from "./io.js";

/** What hosts/node/simulator.ts writes; the certificates and the key are files beside it. */
interface Options extends Omit<WakeOptions, "trust" | "factory"> {
  readonly trustAnchors: number;
  readonly certificates: number;
  /** Stack traces for what fails. */
  readonly debug: boolean;
}

/** XS's own: UTF-8 to text (the SDK's typings have it, the language's do not). */
const { fromArrayBuffer } = String as unknown as { fromArrayBuffer(bytes: ArrayBuffer): string };

function files(name: string, count: number): Uint8Array[] {
  const all: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    all.push(new Uint8Array(native("xs_host_file").call(undefined, `${name}-${i}`)));
  }
  return all;
}

function factoryOf(options: Options): Identity | undefined {
  if (options.certificates === 0) {
    return undefined;
  }
  const key = importKey(0, new Uint8Array(native("xs_host_file").call(undefined, "key-0")));
  return { certificates: files("certificate", options.certificates), key };
}

const heap = (which: number): number => native("xs_host_heap").call(undefined, which);
const cpu = (): number => native("xs_host_cpu").call(undefined);

function report(line: object, status: 0 | 1): void {
  native("xs_host_report").call(undefined, JSON.stringify(line), status);
}

function done({ association, operations, body, duration, schedule, resources }: WakeReport): void {
  if (body.length > 0) {
    native("xs_host_answer").call(undefined, body);
  }
  const spent = cpu() - cpuBefore;
  const rest = { bytes: body.length, duration, cpu: spent, cpuBefore: cpuStart, heap: figures(), schedule, resources };
  report({ association, operations, ...rest }, 0);
}

function figures(): object {
  const xs = { slots: heap(0), chunks: heap(1), stack: heap(2) };
  return { xsPeak: xs.slots + xs.chunks + xs.stack, dtlsPeak: heap(3), xs, xsSteady: steadyXS, dtlsSteady: steadyDTLS };
}

// In use at the end of the work, while the association is still open: what is left after a collection.
let steadyXS = 0;
let steadyDTLS = 0;

class MeasuredUDP extends UDP {
  override close(): void {
    const before = cpu();
    steadyXS = heap(4) + heap(5);
    steadyDTLS = heap(6);
    cpuBefore += cpu() - before; // the collections of this measurement are no work of the device
    super.close();
  }
}

/** Starts on a turn of its own: the stack of whoever imported this module is not the device's. */
export default function main(): void {
  timer.set(start, 0);
}

let debug = false;
let cpuBefore = 0;
let cpuStart = 0;

function start(): void {
  try {
    const options: Options = JSON.parse(fromArrayBuffer(native("xs_host_option").call(undefined)));
    debug = options.debug;
    // Added in place: a copy would cost the device's heap.
    const full = Object.assign(options, {
      trust: options.trustAnchors > 0 ? files("trust", options.trustAnchors) : undefined,
      factory: factoryOf(options),
    });
    const store = storage.open({ path: "torpor" });
    cpuBefore = cpuStart = cpu();
    wake({ UDP: MeasuredUDP, timer, clock, store, retain }, full).then(done, failed);
  } catch (error) {
    failed(error as Error);
  }
}

function failed(error: Error): void {
  if (debug) {
    native("xs_host_trace").call(undefined, error.stack, "\n");
  }
  report({ error: error.message, heap: figures() }, 1);
}
