/**
 * The Moddable SDK's module "time" in the simulator: its ticks.
 *
 *     import Time from "time";
 *     const started = Time.ticks;
 */
export default Object.freeze({
  /** Milliseconds from any origin; another one in each wake. */
  get ticks(): number {
    return native("xs_host_ticks").call(undefined);
  },
});
