/**
 * The status of a device as a person reads it.
 *
 *     process.stdout.write(statusText(statusOf(store, clock)));
 */

import type { Status } from "../../src/enrollment/status.js";
import { span } from "./span.js";

const WHAT = {
  bootstrap: "the first enrolment, with the factory identity",
  renewal: "renewal",
  recovery: "an enrolment with the factory identity again",
  trust: "fetching the CA certificates",
} as const;

const date = (seconds: number): string => new Date(seconds * 1000).toISOString().replace(".000", "");

/** A name and a value for each thing that is known. */
export function statusLines(status: Status): [string, string][] {
  const { certificate, problem, anchors, pending, next, at, now, basis, failures, lastError } = status;
  const lines: [string, string][] = [];
  if (certificate === undefined) {
    lines.push(["identity", problem === undefined ? "not enrolled" : `unusable: ${problem}`]);
  } else {
    const { subject, serial, notBefore, notAfter, curve } = certificate;
    lines.push(["identity", `${subject}, ${curve}`], ["serial", serial]);
    lines.push(["valid", `${date(notBefore)} to ${date(notAfter)}${now > notAfter ? ": expired" : ""}`]);
  }
  for (const { subject, notAfter } of anchors) {
    lines.push(["trusts", `${subject}, until ${date(notAfter)}`]);
  }
  const when = at <= now ? "now" : `at ${date(at)}, in ${span(at - now)}`;
  lines.push(["due", `${WHAT[next]}: ${when}${basis === "clock" ? "" : " (the time is an estimate)"}`]);
  if (pending !== undefined) {
    lines.push(["on its way", `a request to ${pending}`]);
  }
  if (lastError !== undefined) {
    lines.push(["last error", `${lastError} (${failures} in a row)`]);
  }
  return lines;
}

/** One line for each. */
export function statusText(status: Status): string {
  return statusLines(status)
    .map(([name, value]) => `${name.padEnd(12)}${value}`)
    .join("\n");
}
