/**
 * PEM files (RFC 7468), or DER as it is.
 *
 *     const certificates = readPEM(readFileSync("chain.pem"), "CERTIFICATE");
 */

import { FormatError } from "../../src/errors.js";

/** DER begins with a SEQUENCE; no PEM file does. */
const SEQUENCE = 0x30;

/**
 * The DER of all blocks with one of the labels; a file of DER is one block.
 * @throws FormatError where there is none, or a block is not Base64.
 */
export function readPEM(file: Uint8Array, ...labels: readonly string[]): Uint8Array[] {
  if (file[0] === SEQUENCE) {
    return [file];
  }
  const text = Buffer.from(file).toString("latin1");
  const blocks: Uint8Array[] = [];
  for (const match of text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----([^-]*)-----END \1-----/g)) {
    const [, label = "", body = ""] = match;
    if (label === "ENCRYPTED PRIVATE KEY" || body.includes("Proc-Type: 4,ENCRYPTED")) {
      throw new FormatError("the key is encrypted: decrypt it first (openssl pkcs8)");
    }
    const base64 = body.replace(/\s+/g, "");
    if (labels.includes(label)) {
      if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) {
        throw new FormatError(`the PEM block ${label} is not Base64`);
      }
      blocks.push(Uint8Array.from(Buffer.from(base64, "base64")));
    }
  }
  if (blocks.length === 0) {
    throw new FormatError(`expected PEM with ${labels.join(" or ")}, or DER; found neither`);
  }
  return blocks;
}
