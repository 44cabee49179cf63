/**
 * UDP, timer, clock, storage and retained memory of the simulated device, in the shapes of src/io.ts: the device's own
 * modules (modules/), which have them already.
 *
 *     const socket = new UDP({ onReadable() { const datagram = socket.read(); … } });
 */

import type { RetainedMemory } from "../../src/enrollment/wake.js";
import type { Clock } from "../../src/io.js";
import storage from "./modules/embedded-storage-key-value.js";
import Time from "./modules/time.js";

export { default as UDP } from "./modules/embedded-io-socket-udp.js";
export { default as timer } from "./modules/timer.js";
export { storage };

export const clock: Clock = {
  get ticks() {
    return Time.ticks;
  },
  get time() {
    return Date.now();
  },
};

/** The retained memory of the device with `length` bytes for the session table: mapped, it needs no commit. */
export function retain(length: number): RetainedMemory {
  return { bytes: new Uint8Array(native("xs_host_retained").call(undefined, length)) };
}
