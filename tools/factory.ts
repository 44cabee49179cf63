/**
 * Provisions a device: what the factory puts into its storage before it first wakes. For a board a CSV from which
 * ESP-IDF's nvs_partition_gen makes the NVS partition, for the desktop build files under its --state.
 *
 *     npm run factory -- --trust ca.pem --cert factory.pem --key factory.key --nvs factory.csv
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { readPEM } from "../hosts/node/pem.js";
import { TorporError } from "../src/errors.js";

const HELP = `npm run factory -- --trust FILE --cert FILE --key FILE (--nvs CSV | --state DIR)

  --trust FILE   trust anchors of the EST server (PEM or DER)
  --cert FILE    the factory certificate, then those above it
  --key FILE     its private key: PKCS #8 or SEC 1, P-256 or P-384, not encrypted
  --nvs CSV      writes the input of ESP-IDF's nvs_partition_gen; it holds the private key
  --state DIR    writes the files of a desktop device
`;

/** The values of the store "factory" as hosts/moddable/torpor-device.ts reads them, in DER. */
export function factoryValues(
  trust: Uint8Array[],
  certificates: Uint8Array[],
  key: Uint8Array,
): Map<string, Uint8Array> {
  const values = new Map<string, Uint8Array>();
  trust.forEach((der, i) => {
    values.set(`trust-${i}`, der);
  });
  certificates.forEach((der, i) => {
    values.set(`certificate-${i}`, der);
  });
  return values.set("key", key);
}

/** CRC-32 as Ethernet has it (ISO 3309). */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
  }
  return ~crc >>> 0;
}

/** A record as hosts/esp32/store.h draws it, of the first copy. */
function record(value: Uint8Array): Buffer {
  const bytes = Buffer.alloc(8 + value.length);
  bytes.writeUInt32LE(1, 0);
  bytes.set(value, 8);
  bytes.writeUInt32LE(crc32(Buffer.concat([bytes.subarray(0, 4), value])), 4);
  return bytes;
}

/** The CSV for nvs_partition_gen. */
export function nvsCSV(values: Map<string, Uint8Array>): string {
  const lines = ["key,type,encoding,value", "factory,namespace,,"];
  for (const [key, value] of values) {
    lines.push(`${key}.a,data,hex2bin,${record(value).toString("hex")}`);
  }
  return `${lines.join("\n")}\n`;
}

/** @throws TorporError where the arguments make no sense. */
export function main(argv: readonly string[]): void {
  const text = { type: "string" } as const;
  const options = { trust: text, cert: text, key: text, nvs: text, state: text, help: { type: "boolean" } } as const;
  const { values } = parseArgs({ args: [...argv], options });
  const { trust, cert, key, nvs, state } = values;
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (trust === undefined || cert === undefined || key === undefined || (nvs === undefined) === (state === undefined)) {
    throw new TorporError("--trust, --cert, --key and one of --nvs and --state are needed (--help tells more)");
  }
  const read = (path: string, ...labels: string[]) => readPEM(Uint8Array.from(readFileSync(path)), ...labels);
  const all = factoryValues(
    read(trust, "CERTIFICATE"),
    read(cert, "CERTIFICATE"),
    read(key, "PRIVATE KEY", "EC PRIVATE KEY")[0]!,
  );
  if (nvs !== undefined) {
    writeFileSync(nvs, nvsCSV(all), { mode: 0o600 });
    return;
  }
  const folder = join(state!, "flash", "factory");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  for (const [name, value] of all) {
    writeFileSync(join(folder, name), value, { mode: 0o600 });
  }
}
