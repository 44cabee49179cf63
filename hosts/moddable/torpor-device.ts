/**
 * The device under the Moddable SDK, as `Device` of device.ts: on a board (hosts/esp32) and in a desktop process
 * (hosts/moddable/lin), over the C functions of device.h.
 *
 *     import { device } from "torpor/device";
 */

import UDP from "embedded:io/socket/udp";
import config from "mc/config";
// biome-ignore lint/style/useNodejsImportProtocol: the SDK's module of this name
import Net from "net";
import Time from "time";
import Timer from "timer";
import type { Device, DeviceConfig, Factory } from "torpor/hosts/moddable/device";
import { connect } from "torpor/network";
import { CoAPClient } from "torpor/src/coap/client";
import { DTLSSocket } from "torpor/src/dtls/socket";
import type { RetainedMemory } from "torpor/src/enrollment/wake";
import { TorporError } from "torpor/src/errors";
import type { Clock, KeyValueStore, Timer as TimerShape, UDPConstructor } from "torpor/src/io";
import { importKey } from "torpor/src/pki/key";

/** The numbers in retained memory: their index in device.h. */
const WAKES = 0;
const FAILURES = 1;
const CLOCK_SET = 2;

/** Seconds after which the clock must be set again: by then it may be off by half an hour (RC oscillator). */
const CLOCK_TRUST = 86_400;

// The C functions, which the Moddable SDK's compiler takes as they are: see src/dtls/natives.ts.

function number(this: unknown, index: number): number {
  return native("xs_torpor_device_number").call(this, index);
}

function setNumber(this: unknown, index: number, value: number): undefined {
  return native("xs_torpor_device_set_number").call(this, index, value);
}

function storeRead(this: unknown, path: string, key: string): ArrayBuffer | undefined {
  return native("xs_torpor_store_read").call(this, path, key);
}

function storeWrite(this: unknown, path: string, key: string, value: ArrayBufferLike | Uint8Array): undefined {
  return native("xs_torpor_store_write").call(this, path, key, value);
}

function storeDelete(this: unknown, path: string, key: string): undefined {
  return native("xs_torpor_store_delete").call(this, path, key);
}

function uptime(this: unknown): number {
  return native("xs_torpor_device_uptime").call(this);
}

function heap(this: unknown, which: number): number {
  return native("xs_torpor_device_heap").call(this, which);
}

function sleep(this: unknown, seconds: number, status: number): undefined {
  return native("xs_torpor_device_sleep").call(this, seconds, status);
}

/** Key-value storage for one path: NVS on a board, files on the desktop. */
export class Store implements KeyValueStore {
  readonly #path: string;

  /** `path`: 1 to 15 characters. */
  constructor(path: string) {
    this.#path = path;
  }

  read(key: string): ArrayBuffer | undefined {
    return storeRead(this.#path, key);
  }

  write(key: string, value: ArrayBufferLike | Uint8Array): void {
    storeWrite(this.#path, key, value);
  }

  delete(key: string): void {
    storeDelete(this.#path, key);
  }

  close(): void {}
}

export const timer: TimerShape = {
  set: (callback, delay) => Timer.set(callback, delay),
  clear: (id) => Timer.clear(id as Timer),
};

export const clock: Clock = {
  get ticks() {
    return Time.ticks;
  },
  get uptime() {
    return uptime();
  },
  /** Undefined where it was never set, or too long ago to be right. */
  get time() {
    const set = number(CLOCK_SET);
    const now = Date.now();
    const age = now / 1000 - set;
    return set !== 0 && age >= 0 && age < CLOCK_TRUST ? now : undefined;
  },
};

/** What the factory wrote into the store "factory": trust-0 …, certificate-0 …, key; all in DER. */
function factory(): Factory {
  const store = new Store("factory");
  const all = (name: string): Uint8Array[] => {
    const found: Uint8Array[] = [];
    for (let der = store.read(`${name}-0`); der !== undefined; der = store.read(`${name}-${found.length}`)) {
      found.push(new Uint8Array(der));
    }
    return found;
  };
  const trust = all("trust");
  const certificates = all("certificate");
  const key = store.read("key");
  const identity =
    key === undefined || certificates.length === 0
      ? undefined
      : { certificates, key: importKey(0, new Uint8Array(key)) };
  return { trust: trust.length > 0 ? trust : undefined, identity };
}

function resolve(name: string): Promise<string> {
  return new Promise((resolved, rejected) => {
    Net.resolve(name, (_, address) => {
      if (address) {
        resolved(address);
      } else {
        rejected(new TorporError(`cannot find the address of ${name}: is the name right, and is there a network?`));
      }
    });
  });
}

/** mc.config, and over it what a desktop process was told. */
function configuration(): DeviceConfig {
  const told: string | undefined = native("xs_torpor_device_options").call(undefined);
  const built = config as DeviceConfig & typeof config;
  return told === undefined ? built : { ...built, ...JSON.parse(told) };
}

/** Memory of the host as a buffer: no copy, and it outlives this object. */
class RetainedBytes extends Native("xs_torpor_retained_destructor") {
  constructor(byteLength: number) {
    super();
    native("xs_torpor_device_retained").call(this, byteLength);
  }
}

class ModdableDevice implements Device {
  readonly name: string = native("xs_torpor_device_name").call(undefined);
  readonly reason: string = native("xs_torpor_device_reason").call(undefined);
  readonly config = configuration();
  // The SDK's typings know neither the close() of its UDP nor the `this` of its callbacks.
  readonly UDP = UDP as unknown as UDPConstructor;
  readonly timer = timer;
  readonly clock = clock;
  readonly store = new Store("torpor");
  readonly factory = factory;
  readonly resolve = resolve;
  readonly retained = {
    get wakes() {
      return number(WAKES);
    },
    set wakes(count: number) {
      setNumber(WAKES, count);
    },
    get failures() {
      return number(FAILURES);
    },
    set failures(count: number) {
      setNumber(FAILURES, count);
    },
  };

  retain(byteLength: number): RetainedMemory {
    return { bytes: new Uint8Array(new RetainedBytes(byteLength) as unknown as ArrayBuffer) };
  }

  async connect(): Promise<void> {
    const isSet = await connect(this.config, clock.time === undefined);
    if (isSet) {
      setNumber(CLOCK_SET, Math.floor(Date.now() / 1000));
    }
  }

  distrustClock(): void {
    setNumber(CLOCK_SET, 0);
  }

  heap(): { readonly xsPeak: number; readonly dtlsPeak: number } {
    return { xsPeak: heap(0), dtlsPeak: heap(1) };
  }

  log(line: string): undefined {
    return native("xs_torpor_device_log").call(this, line);
  }

  limit(milliseconds: number, seconds: number, line: string): undefined {
    return native("xs_torpor_device_limit").call(this, milliseconds, seconds, line);
  }

  sleep(seconds: number, outcome: "done" | "failed"): void {
    sleep(seconds, outcome === "done" ? 0 : 1);
  }
}

/**
 * Dictionaries in the way of ECMA-419's `device.network`: a class beside the options that this device has for it.
 *
 *     const { coaps } = network;
 *     new coaps.io({ ...coaps, socket: { ...coaps.socket, address, port, host, secure } });
 */
const dtls = { io: DTLSSocket, socket: { io: UDP as unknown as UDPConstructor }, timer, clock };
export const network = { dtls, coaps: { io: CoAPClient, socket: dtls, timer } };

let opened: ModdableDevice | undefined;

/** The one device; its storage is opened by the first call. @throws where that fails. */
export function openDevice(): Device {
  if (opened === undefined) {
    native("xs_torpor_device_open").call(undefined);
    opened = new ModdableDevice();
  }
  return opened;
}
