/**
 * When a certificate is due for renewal: after two thirds of its lifetime.
 *
 *     if (now >= renewalTime(parseCertificate(der))) await est.simpleReenroll(request);
 */

const RENEW_NUMERATOR = 2;
const RENEW_DENOMINATOR = 3;

/** Seconds since 1970 from which on a certificate with this validity is renewed. */
export function renewalTime({
  notBefore,
  notAfter,
}: {
  readonly notBefore: number;
  readonly notAfter: number;
}): number {
  return notBefore + ((notAfter - notBefore) * RENEW_NUMERATOR) / RENEW_DENOMINATOR;
}
