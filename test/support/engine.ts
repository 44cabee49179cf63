/** Which DTLS engine this process has: the same test files run over both (TORPOR_ENGINE). */

import "../../hosts/node/native.js";
import { dtlsLibrary } from "../../src/dtls/engine.js";

export const ENGINE: "mbedtls" | "wolfssl" = dtlsLibrary().startsWith("wolfSSL") ? "wolfssl" : "mbedtls";

/** For tests of DTLS 1.3: fails where the engine has none, in place of passing over them. */
export function needsDTLS13(): void {
  if (ENGINE !== "wolfssl") {
    throw new Error("these tests are for the engine over wolfSSL: TORPOR_ENGINE=wolfssl npx mocha …");
  }
}
