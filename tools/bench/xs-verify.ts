/**
 * A program for the simulator: the processor time of verifying one signature of ECDSA on P-256, as a device's build of
 * mbedTLS does it.
 *
 *     simulator build/tools/bench/xs-verify.js --arguments DIR --state DIR
 *
 * In DIR: certificate-0, and trust-0, which has signed it.
 */

import { isTrusted } from "../../src/pki/key.js";

const ROUNDS = 20;

const file = (name: string): Uint8Array => new Uint8Array(native("xs_host_file").call(undefined, name));
const now = (): number => native("xs_host_cpu").call(undefined);

export default function run(): void {
  const chain = file("certificate-0");
  const anchors = file("trust-0");
  const begun = now();
  for (let round = 0; round < ROUNDS; round++) {
    if (!isTrusted(chain, anchors)) {
      throw new Error("the certificate is not trusted");
    }
  }
  native("xs_host_report").call(undefined, `{"verify":${(now() - begun) / ROUNDS}}`, 0);
}
