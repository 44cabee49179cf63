/**
 * The Moddable SDK's module "timer" in the simulator, by the natives of host.c.
 *
 *     import Timer from "timer";
 *     Timer.set(() => trace("once\n"), 100);
 */

/** A running timer; opaque. */
export type TimerId = object;
type Callback = (id: TimerId) => void;

const Timer = Object.freeze({
  /** Calls back after `delay` milliseconds, then each `repeat` milliseconds, or once where that is 0. */
  set(callback: Callback, delay = 0, repeat = 0): TimerId {
    return native("xs_host_timer_set").call(undefined, callback, delay, repeat);
  },

  repeat(callback: Callback, interval: number): TimerId {
    return native("xs_host_timer_set").call(undefined, callback, interval, interval);
  },

  /** Another time for a timer that still runs. */
  schedule(id: TimerId, delay: number, repeat = 0): void {
    native("xs_host_timer_schedule").call(undefined, id, delay, repeat);
  },

  /** Cancels; a timer that has fired already is ignored. */
  clear(id: unknown): void {
    native("xs_host_timer_clear").call(undefined, id);
  },
});

export default Timer;
