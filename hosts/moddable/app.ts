/**
 * The life of a device that sleeps: one wake, one line of JSON, and back to sleep within a bounded time, whatever the
 * network does. It is the same on a board and on the desktop.
 *
 *     import { device } from "torpor/device";
 *     live(device);
 */

import { parseURI } from "../../src/coap/uri.js";
import { CertificateError } from "../../src/dtls/engine.js";
import { statusOf } from "../../src/enrollment/status.js";
import { type WakeOptions, type WakeReport, wake } from "../../src/enrollment/wake.js";
import { TimeoutError, TorporError } from "../../src/errors.js";
import { jsonOf } from "../node/result.js";
import type { Device } from "./device.js";

/** Seconds, where the configuration says nothing. */
const INTERVAL = 86_400;
const RETRY = 60;
const RETRY_MAX = 21_600;
const PATIENCE = 90;

/** A clock that is off by seconds must not wake the device just before its certificate is due. */
const AFTER_DUE = 60;
/** Milliseconds after which the device sleeps even where this program hangs. */
const HARD_MARGIN = 10_000;
/** What ends a wake that nobody ended; XS resets the board where an exception is not caught, or memory is full. */
const CRASHES = ["panic", "watchdog", "brown-out", "reset"];
/** Milliseconds for connecting at most. */
const HANDSHAKE_PATIENCE = 60_000;
/** Milliseconds for the last datagram (close_notify) to leave. */
const LINGER = 100;

/** One wake. Never rejects: everything that fails ends in a line and in sleep. */
export async function live(device: Device): Promise<void> {
  const { retained, config, timer } = device;
  retained.wakes++;
  const patience = number(config.patience, PATIENCE, 5, 3600);
  const wakes = retained.wakes;
  if (retained.failures > 0 && CRASHES.includes(device.reason)) {
    // The wake before did not come to its end, and this one may not either: awake again at once, it would empty the
    // battery. Its failure has been counted.
    const seconds = backOff(device);
    device.log(failureLine(device, wakes, new TorporError(`the wake before ended with a ${device.reason}`), seconds));
    timer.set(() => device.sleep(seconds, "failed"), LINGER);
    return;
  }
  // As if this wake failed: what a program that hangs, or a crash, leaves behind.
  retained.failures++;
  const asleep = backOff(device);
  const slow = new TimeoutError(`the wake took longer than ${patience} s`);
  device.limit(patience * 1000 + HARD_MARGIN, asleep, failureLine(device, wakes, slow, asleep));

  let line: string;
  let sleep: number;
  let outcome: "done" | "failed" = "done";
  const late = timeOut(device, patience * 1000, slow);
  try {
    const report = await Promise.race([work(device, patience), late.promise]);
    retained.failures = 0;
    sleep = untilNext(device);
    line = successLine(device, wakes, report, sleep);
  } catch (error) {
    if (error instanceof CertificateError) {
      // Either the server or the clock is wrong, and only the clock can be mended from here.
      device.distrustClock();
    }
    outcome = "failed";
    sleep = asleep;
    line = failureLine(device, wakes, error as Error, sleep);
  }
  timer.clear(late.id);
  device.log(line);
  timer.set(() => device.sleep(sleep, outcome), LINGER);
}

/** A number of the configuration; mcconfig's command line gives strings. */
function number(value: number | string | undefined, otherwise: number, min: number, max: number): number {
  const given = Number(value ?? otherwise);
  return given >= min && given <= max ? given : otherwise;
}

function timeOut({ timer }: Device, delay: number, error: Error) {
  let reject: (error: Error) => void;
  const promise = new Promise<never>((_, rejectNow) => {
    reject = rejectNow;
  });
  return { promise, id: timer.set(() => reject(error), delay) };
}

async function work(device: Device, patience: number): Promise<WakeReport> {
  const { config } = device;
  const operation = config.operation ?? "run";
  await undefined; // with the stack of a promise's turn
  if (operation === "run" && untilDue(device) > 0) {
    // The radio stays off, and no address is needed: `wake` looks after the schedule alone.
    return wake(device, optionsOf(device, patience, { operation, address: "0.0.0.0", host: "0.0.0.0", port: 5684 }));
  }
  if (!config.server) {
    throw new TorporError("no server: build the firmware with server=coaps://HOST[:PORT][/LABEL]");
  }
  const { scheme, host, port, path } = parseURI(config.server);
  if (scheme !== "coaps") {
    throw new TorporError(`expected server=coaps://…, got ${config.server}`);
  }
  const { trust, identity } = device.factory();
  await device.connect();
  const address = await device.resolve(host);
  const label = path === "/" ? undefined : path.replace(/^\//, "");
  return wake(device, {
    ...optionsOf(device, patience, { operation, address, host, port }),
    label,
    trust,
    factory: identity,
  });
}

function optionsOf(
  { config }: Device,
  patience: number,
  peer: Pick<WakeOptions, "operation" | "address" | "host" | "port">,
): WakeOptions {
  return {
    ...peer,
    resume: config.resume,
    keep: config.keep,
    groups: config.groups?.split(","),
    geometry: { slots: number(config.slots, 4, 1, 64), slotBytes: number(config.slotBytes, 512, 256, 4096) },
    blockSize: number(config.block, 512, 16, 1024) as WakeOptions["blockSize"],
    // Its error says more than that of the whole wake, so it comes first.
    patience: Math.min(HANDSHAKE_PATIENCE, patience * 800),
    maxBody: number(config.maxBody, 8192, 64, 65_536),
  };
}

/** Seconds until something is due, as the schedule remembers it: failures and the server's Retry-After included. */
function untilDue({ store, clock }: Device): number {
  const { at, now } = statusOf(store, clock);
  return Math.max(0, at - now);
}

/** Seconds to sleep after a wake that did what was due. */
function untilNext(device: Device): number {
  const interval = number(device.config.interval, INTERVAL, 1, 31_536_000);
  const due = untilDue(device);
  return due > 0 ? Math.ceil(Math.min(interval, due + AFTER_DUE)) : interval;
}

/** Seconds to sleep after `failures` in a row: doubled each time, up to the largest, and spread so that a fleet is. */
function backOff({ config, retained }: Device): number {
  const first = number(config.retry, RETRY, 1, 86_400);
  const largest = number(config.retryMax, RETRY_MAX, 1, 604_800);
  const seconds = Math.min(largest, first * 2 ** Math.min(retained.failures - 1, 20));
  return Math.max(1, Math.round(seconds * (0.875 + Math.random() / 4)));
}

function successLine(device: Device, wakes: number, report: WakeReport, sleep: number): string {
  const result = { ...report, bytes: report.body.length, cpu: 0, heap: device.heap() };
  const line = jsonOf(wakes, device.name, device.config.operation ?? "run", result);
  return `${line.slice(0, -1)},${JSON.stringify({ reason: device.reason, sleep }).slice(1)}`;
}

function failureLine(device: Device, wakes: number, error: Error, sleep: number): string {
  const operation = device.config.operation ?? "run";
  return JSON.stringify({
    wake: wakes,
    host: device.name,
    operation,
    error: error.message,
    reason: device.reason,
    sleep,
  });
}
