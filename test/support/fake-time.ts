/**
 * A timer with virtual time: nothing happens but in `advance`, and then in the same order every time.
 *
 *     const time = new FakeTime();
 *     time.set(() => log("two seconds"), 2000);
 *     await time.advance(2000);
 */

import type { Timer, TimerId } from "../../src/io.js";

/** Turns of the promise queue that are let go by between two timers: more than any chain of `await` in the tests. */
const TURNS = 30;

interface Alarm {
  readonly at: number;
  readonly callback: () => void;
}

export class FakeTime implements Timer {
  /** Milliseconds since the start. */
  now = 0;
  // By time, and in the order of `set` within one time.
  readonly #alarms: Alarm[] = [];

  set(callback: () => void, delay: number): TimerId {
    const alarm: Alarm = { at: this.now + delay, callback };
    let place = this.#alarms.length;
    while (place > 0 && this.#alarms[place - 1].at > alarm.at) place--;
    this.#alarms.splice(place, 0, alarm);
    return alarm;
  }

  clear(id: TimerId): void {
    const place = this.#alarms.indexOf(id as Alarm);
    if (place >= 0) this.#alarms.splice(place, 1);
  }

  /** Timers that have not fired. */
  get pending(): number {
    return this.#alarms.length;
  }

  /** Lets `milliseconds` pass: fires what is due, one after the other, and lets promises run in between. */
  async advance(milliseconds: number): Promise<void> {
    const end = this.now + milliseconds;
    await this.settle();
    while (this.#alarms.length > 0 && this.#alarms[0].at <= end) {
      const alarm = this.#alarms.shift()!;
      this.now = alarm.at;
      alarm.callback();
      await this.settle();
    }
    this.now = end;
  }

  /** Advances to one timer after the other until there is none, for at most `milliseconds`. */
  async finish(milliseconds: number): Promise<void> {
    const end = this.now + milliseconds;
    await this.settle();
    while (this.#alarms.length > 0 && this.#alarms[0].at <= end) await this.advance(this.#alarms[0].at - this.now);
  }

  /** Advances to the next timer and fires it; false where there is none, or only later than `end`. */
  async step(end = Number.POSITIVE_INFINITY): Promise<boolean> {
    const next = this.#alarms[0];
    if (next === undefined || next.at > end) return false;
    await this.advance(Math.max(0, next.at - this.now));
    return true;
  }

  /** Lets promises run, at the same time. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < TURNS; turn++) await undefined;
  }
}
