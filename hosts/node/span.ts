/**
 * A span of time as people say it.
 *
 *     span(86400 * 61.4)   // "61 days"
 */

const UNITS = [
  [86400, "days"],
  [3600, "hours"],
  [60, "minutes"],
] as const;

/** In the largest unit of which there are two at least, cut to whole ones. */
export function span(seconds: number): string {
  const unit = UNITS.find(([length]) => seconds >= 2 * length);
  const whole = Math.ceil(seconds);
  return unit === undefined
    ? `${whole} second${whole === 1 ? "" : "s"}`
    : `${Math.floor(seconds / unit[0])} ${unit[1]}`;
}
