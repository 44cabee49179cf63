/**
 * The errors that a wake may end with where the network is bad, the server goes away or the certificate expires. Anything
 * else that a device says is a finding.
 *
 *     documented("the server did not finish the DTLS handshake within 8 s: …")   // "TimeoutError: handshake"
 */

/** Each with its name for the table: the class of the error, and what it is about. */
const DOCUMENTED: readonly (readonly [name: string, sentence: RegExp])[] = [
  ["TimeoutError: handshake", /^the server did not finish the DTLS handshake within /],
  ["TimeoutError: acknowledgement", /: expected an acknowledgement, none came/],
  ["TimeoutError: response", /: expected a response, none came/],
  ["DTLSError: closed", /^the server closed the association$/],
  // A server that was restarted, or has two copies of a hello, answers twice: what comes of both does not fit together.
  ["DTLSError: two handshakes", /^the DTLS handshake failed: the server's signature does not fit: it began /],
  ["AlertError: certificate_expired", /^the peer ended the (handshake|association) with the alert certificate_expired/],
  ["IdentityError: expired", /^the issued certificate has expired already: refused$/],
];

/** The name of a documented error; undefined where it is none. */
export function documented(error: string): string | undefined {
  return DOCUMENTED.find(([, sentence]) => sentence.test(error))?.[0];
}
