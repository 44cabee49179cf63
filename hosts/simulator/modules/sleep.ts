/**
 * Deep sleep and what survives it, as the Moddable SDK's module "sleep" for the nRF52 has it, by the natives of host.c:
 * one process is one wake.
 *
 *     import Sleep from "sleep";
 *     Sleep.setRetainedValue(0, Sleep.getRetainedValue(0) + 1);
 *     Sleep.deep(60000);
 */

/** Those that can be here; 0 stands for power-on. */
export const ResetReason = Object.freeze({
  /** The wake before crashed or was cut off. */
  DOG: 2,
  /** Out of deep sleep. */
  SREQ: 4,
});

export const Sleep = Object.freeze({
  /** One of 32 signed integers of 32 bits; 0 after power-on. @throws RangeError where `index` is not 0 to 31. */
  getRetainedValue(index: number): number {
    return native("xs_host_sleep_get").call(undefined, index);
  },

  setRetainedValue(index: number, value: number): void {
    native("xs_host_sleep_set").call(undefined, index, value);
  },

  /** Ends this wake at once; whoever started the simulator reads on its standard error when to start it again. */
  deep(milliseconds: number): never {
    return native("xs_host_sleep_deep").call(undefined, milliseconds) as never;
  },

  get resetReason(): number {
    return native("xs_host_sleep_reason").call(undefined);
  },
});

export default Sleep;
