/**
 * What must hold of the folder of a device at any time, seen from outside: its certificate and its key belong together,
 * nothing lies there that nobody knows, nothing piles up.
 *
 *     assert.deepEqual(storageFaults("device", issuing), []);
 */

import { createECDH, X509Certificate } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** Every file of a device: its host's, those of src/ with the keys of its stores, and PSA's keys. */
const KNOWN =
  /^(retained\.bin|lock|flash\/torpor\/(identity|trust|life|pending|csrattrs|resumption|sessions|session-\d{1,2})|flash\/keys\/[0-9a-f]{16})$/;

/** What a write has not renamed yet. */
const HALF = /\.new$/;

/** The number of the sealing key (src/pki/crypto.h), as PSA's files are named. */
const SEALING_KEY = "0000000000545100";

/** The names of all files below a device's folder, with "/" between them, and their bytes. */
export function filesOf(state: string): Map<string, number> {
  const files = new Map<string, number>();
  for (const name of existsSync(state) ? readdirSync(state, { recursive: true, encoding: "utf8" }).sort() : []) {
    const status = statSync(join(state, name), { throwIfNoEntry: false });
    if (status?.isFile()) {
      files.set(name, status.size);
    }
  }
  return files;
}

/** The record "identity" (src/enrollment/identity.ts): the number of the key, and the certificate. */
function identityOf(state: string): { certificate: X509Certificate; key: string } | undefined {
  const path = join(state, "flash", "torpor", "identity");
  if (!existsSync(path)) {
    return undefined;
  }
  const record = readFileSync(path);
  return {
    certificate: new X509Certificate(record.subarray(15, 15 + record.readUInt16BE(13))),
    key: record.readUInt32BE(8).toString(16).padStart(16, "0"),
  };
}

/** The enrolled certificate; undefined where there is none yet. */
export const certificateOf = (state: string): X509Certificate | undefined => identityOf(state)?.certificate;

/** Why the certificate is of no use with its key, on P-256. */
function pairFault(state: string, issuing: X509Certificate): string | undefined {
  const identity = identityOf(state);
  if (identity === undefined) {
    return undefined;
  }
  const { certificate, key: name } = identity;
  const path = join(state, "flash", "keys", name);
  if (!existsSync(path)) {
    return `the key ${name} of the certificate is not there`;
  }
  // PSA keeps the 32 bytes of a private key on P-256 at the end of its file.
  const key = createECDH("prime256v1");
  key.setPrivateKey(readFileSync(path).subarray(-32));
  if (!key.getPublicKey().equals(certificate.publicKey.export({ format: "der", type: "spki" }).subarray(-65))) {
    return "the key is not that of the certificate";
  }
  return certificate.verify(issuing.publicKey) ? undefined : "the certificate is not one of the server's CA";
}

/**
 * All that is wrong, in sentences. `after` a wake that was killed, what it had half written may lie there until the next
 * one; a key at most that belongs to nothing may lie there after any wake.
 */
export function storageFaults(
  state: string,
  issuing: X509Certificate,
  after: "a whole wake" | "a kill" = "a whole wake",
) {
  const faults: string[] = [];
  const pair = pairFault(state, issuing);
  if (pair !== undefined) {
    faults.push(pair);
  }
  const names = [...filesOf(state).keys()];
  const own = identityOf(state)?.key;
  const strays = names.filter(
    (name) => /^flash\/keys\/[^.]*$/.test(name) && !name.endsWith(`/${own}`) && !name.endsWith(`/${SEALING_KEY}`),
  );
  if (strays.length > 1) {
    faults.push(`keys that belong to nothing: ${strays.join(", ")}`);
  }
  const halves = names.filter((name) => HALF.test(name));
  if (halves.length > 0 && after === "a whole wake") {
    faults.push(`half-written files: ${halves.join(", ")}`);
  }
  const unknown = names.filter((name) => !KNOWN.test(name.replace(HALF, "")));
  if (unknown.length > 0) {
    faults.push(`files that nobody knows: ${unknown.join(", ")}`);
  }
  return faults;
}
