/**
 * npm run bench -- --only size: what the C core, its glue and mbedTLS take of a device's flash and RAM, compiled and linked
 * for two processors (scripts/cross.mjs). npm test compiles the same.
 */

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { checkout } from "../../hosts/node/native.js";
import { type Benchmark, grouped, type Report } from "./bench.js";

/** Bytes by section of what a link keeps. */
interface Sections {
  readonly text: number;
  readonly rodata: number;
  readonly data: number;
  readonly bss: number;
  /** Memory that survives deep sleep. */
  readonly rtc: number;
}

export interface SizeFigures {
  /** Of mbedTLS. */
  readonly version: string;
  /** Of wolfSSL, where it is to be had. */
  readonly wolfssl?: string | undefined;
  /** By processor and part. */
  readonly sizes: Readonly<Record<string, Readonly<Record<string, Sections>>>>;
}

const SECTIONS = ["text", "rodata", "data", "bss", "rtc"] as const;

async function measure({ progress }: { progress(what: string): void }): Promise<SizeFigures> {
  progress("compiling for devices");
  const { sizes } = (await import(pathToFileURL(join(checkout(), "scripts", "cross.mjs")).href)) as {
    sizes(): Promise<SizeFigures>;
  };
  return sizes();
}

function report({ version, wolfssl, sizes }: SizeFigures): Report {
  return {
    title: "Code size",
    parts: [
      "Bytes with -Os, linked as firmware would be, without what nothing calls. Flash is text, rodata and data; rtc is memory that " +
        "survives deep sleep. XS itself and the modules' bytecode are not counted.",
      ...Object.entries(sizes).map(([target, parts]) => {
        const row = (name: string, of: (section: (typeof SECTIONS)[number]) => number): string[] => [
          name,
          ...[...SECTIONS.map(of), of("text") + of("rodata") + of("data")].map(grouped),
        ];
        return {
          head: [target, ...SECTIONS, "flash"],
          rows: [
            ...Object.entries(parts).map(([name, sections]) =>
              row(
                name === "mbedTLS" ? `mbedTLS ${version}` : name === "wolfSSL" ? `wolfSSL ${wolfssl}` : name,
                (section) => sections[section],
              ),
            ),
            row("all", (section) => Object.values(parts).reduce((sum, sections) => sum + sections[section], 0)),
          ],
        };
      }),
    ],
  };
}

export const size: Benchmark<SizeFigures> = {
  name: "size",
  about: "flash and RAM of the C core, its glue and mbedTLS, compiled for RISC-V and Cortex-M4",
  measure,
  report,
};
