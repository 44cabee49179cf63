/**
 * What the app (app.ts) asks of the device that it runs on. hosts/esp32 is a board, hosts/moddable/lin a desktop process
 * that stands for one; tests hand in their own.
 *
 *     await live(device);
 */

import type { BlockSize } from "../../src/coap/block.js";
import type { Resume } from "../../src/dtls/socket.js";
import type { Identity } from "../../src/enrollment/identity.js";
import type { Host, Keep, Operation } from "../../src/enrollment/wake.js";

/** What the firmware's `config` says (mcconfig's key=value, or the manifest); every value but `server` has a default. */
export interface DeviceConfig {
  /** coaps://HOST[:PORT][/LABEL] */
  readonly server?: string | undefined;
  /** "run" unless told: what is due. */
  readonly operation?: Operation | undefined;
  /** Seconds of sleep at most, from one wake to the next: 86,400. */
  readonly interval?: number | undefined;
  /** Seconds of sleep after the first failure, doubled with each one more: 60. */
  readonly retry?: number | undefined;
  /** Seconds of sleep at most after failures: 21,600. */
  readonly retryMax?: number | undefined;
  /** Seconds that a wake may take in all: 90. */
  readonly patience?: number | undefined;
  /** The ways back down to this one; unless told, what the server is known for. */
  readonly resume?: Resume | undefined;
  /** Where sessions are kept: "retained" unless told; "flash" for chips without RTC memory. */
  readonly keep?: Keep | undefined;
  /** Slots of the session table (4) and bytes of each (512). */
  readonly slots?: number | undefined;
  readonly slotBytes?: number | undefined;
  /** Groups for the key exchange, the most wanted first, with commas between: hybrid ones too in a build that has them. */
  readonly groups?: string | undefined;
  /** Bytes of a CoAP block: 512. */
  readonly block?: BlockSize | undefined;
  /** Bytes of the largest answer: 8,192. */
  readonly maxBody?: number | undefined;
}

/** What the factory has put into the device. */
export interface Factory {
  readonly trust: readonly Uint8Array[] | undefined;
  readonly identity: Identity | undefined;
}

/** Numbers that survive deep sleep, 0 after power-on and with new firmware. */
export interface RetainedNumbers {
  wakes: number;
  /** Wakes that failed, in a row. */
  failures: number;
}

export interface Device extends Host {
  /** As it stands in the line: "esp32", "lin". */
  readonly name: string;
  /** Why it runs: "power-on", "sleep", "brown-out", "panic", "watchdog" or "reset". */
  readonly reason: string;
  readonly config: DeviceConfig;
  readonly retained: RetainedNumbers;
  /** Reads what the factory left. @throws KeyError or FormatError where it is no use. */
  factory(): Factory;
  /** Gets onto the network and sets the clock where it is not trusted. Rejects with a sentence that says what failed. */
  connect(): Promise<void>;
  /** The IP address of a name; rejects where there is none. */
  resolve(name: string): Promise<string>;
  /** The clock was shown to be wrong: it is not trusted any more, and set anew at the next wake. */
  distrustClock(): void;
  /** Bytes of heap at the peak, 0 where they are not counted. */
  heap(): { readonly xsPeak: number; readonly dtlsPeak: number };
  log(line: string): void;
  /**
   * Sleeps after `milliseconds` for `seconds` whatever the program does, even where it hangs, and logs `line` then.
   * Later calls replace the former.
   */
  limit(milliseconds: number, seconds: number, line: string): void;
  /** Sleeps now. On a board it does not return; `outcome` is the exit status of a desktop process (0, 1). */
  sleep(seconds: number, outcome: "done" | "failed"): void;
}
