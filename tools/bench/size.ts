/**
 * npm run bench -- --only size: what the C core, its glue and the libraries take of a device's flash and RAM, compiled and linked
 * for two processors, with each DTLS engine (scripts/cross.mjs). npm test compiles the same.
 */

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { checkout } from "../../hosts/node/native.js";
import { type Benchmark, beside, grouped, type Report, type Table } from "./bench.js";

/** Bytes by section of what a link keeps. */
interface Sections {
  readonly text: number;
  readonly rodata: number;
  readonly data: number;
  readonly bss: number;
  /** Memory that survives deep sleep. */
  readonly rtc: number;
}

type Parts = Readonly<Record<string, Sections>>;

export interface SizeFigures {
  /** Of mbedTLS. */
  readonly version: string;
  /** Of wolfSSL, where it is to be had. */
  readonly wolfssl?: string | undefined;
  /** By processor, engine and part. */
  readonly sizes: Readonly<Record<string, Readonly<Record<string, Parts>>>>;
}

const COLUMNS: Readonly<Record<string, (its: Sections) => number>> = {
  text: ({ text }) => text,
  rodata: ({ rodata }) => rodata,
  data: ({ data }) => data,
  bss: ({ bss }) => bss,
  rtc: ({ rtc }) => rtc,
  flash: ({ text, rodata, data }) => text + rodata + data,
  RAM: ({ data, bss }) => data + bss,
};

async function measure({ progress }: { progress(what: string): void }): Promise<SizeFigures> {
  progress("compiling for devices");
  const { sizes } = (await import(pathToFileURL(join(checkout(), "scripts", "cross.mjs")).href)) as {
    sizes(): Promise<SizeFigures>;
  };
  return sizes();
}

/** A row for each part of either engine's link, the libraries as their versions; what an engine does not have is "–". */
function tableOf(target: string, engines: Readonly<Record<string, Parts>>, versions: Record<string, string>): Table {
  // The second engine has all parts of the first and its library, in their order.
  const names = [
    ...new Set(
      Object.values(engines)
        .reverse()
        .flatMap((parts) => Object.keys(parts)),
    ),
  ];
  const columns = Object.values(COLUMNS);
  const cells = (parts: readonly (Sections | undefined)[]): string[] =>
    columns.map((of) => {
      const values = parts.flatMap((its) => (its === undefined ? [] : [of(its)]));
      return values.length === 0 ? "–" : grouped(values.reduce((sum, value) => sum + value, 0));
    });
  const row = (name: string, pick: (parts: Parts) => readonly (Sections | undefined)[]): string[] => [
    name,
    ...Object.values(engines).flatMap((parts) => cells(pick(parts))),
  ];
  return {
    head: [target, ...beside(Object.keys(engines), Object.keys(COLUMNS))],
    rows: [
      ...names.map((name) =>
        row(versions[name] === undefined ? name : `${name} ${versions[name]}`, (parts) => [parts[name]]),
      ),
      row("all", (parts) => Object.values(parts)),
    ],
  };
}

function report({ version, wolfssl, sizes }: SizeFigures): Report {
  return {
    title: "Code size",
    parts: [
      "Bytes with -Os, linked as firmware would be, without what nothing calls. Flash is text, rodata and data; RAM data and bss, without " +
        "heap and stack; rtc is memory that survives deep sleep. With DTLS by wolfSSL, " +
        "keys and certificates stay with mbedTLS. XS itself and the modules' bytecode are not counted.",
      ...Object.entries(sizes).map(([target, engines]) =>
        tableOf(target, engines, { mbedTLS: version, ...(wolfssl !== undefined && { wolfSSL: wolfssl }) }),
      ),
    ],
  };
}

export const size: Benchmark<SizeFigures> = {
  name: "size",
  about: "flash and RAM with each DTLS engine, compiled for RISC-V and Cortex-M4",
  measure,
  report,
};
