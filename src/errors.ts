/**
 * The errors that Torpor throws. Each message says what was expected, what came, and where it helps, what to do.
 *
 *     try { … } catch (error) { if (error instanceof TimeoutError) sleepAndTryAgain(); }
 */

/** Base of all errors below: `error instanceof TorporError` means the device is fine, something it met is not. */
export class TorporError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** Bytes from outside (a datagram, a certificate, a stored record) that are not what their format demands. */
export class FormatError extends TorporError {}

/** Something well-formed that is larger than the limit set for it. Thrown before memory is taken for it. */
export class LimitError extends TorporError {}

/** The peer did not answer within the time allowed. */
export class TimeoutError extends TorporError {}
