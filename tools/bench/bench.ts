/**
 * What a benchmark is: figures that can be written as JSON, and what is told of them. `npm run bench` (main.ts) runs them.
 *
 *     export const start: Benchmark<StartFigures> = { name: "start", about: "…", measure, report };
 */

export interface Benchmark<Data> {
  /** For `--only`. */
  readonly name: string;
  /** What it measures, in one line. */
  readonly about: string;
  measure(context: Context): Promise<Data>;
  report(data: Data): Report;
}

export interface Context {
  /** How often each thing is done; figures are medians. The first time, that fills caches, is not counted. */
  readonly runs: number;
  /** Whether `memory` tells what lies in the heap too. */
  readonly parts: boolean;
  /** Tells, on standard error, what is done now. */
  progress(what: string): void;
  /** What another benchmark measures, or has measured already. */
  of<Data>(other: Benchmark<Data>): Promise<Data>;
}

/** For people: a title, then paragraphs and tables; `excesses` are limits that were passed, which is a failure. */
export interface Report {
  readonly title: string;
  readonly parts: readonly (string | Table)[];
  readonly excesses?: readonly string[];
}

/** Columns of figures stand to the right, those named in `texts` to the left; the first one always does. */
export interface Table {
  readonly head: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
  readonly texts?: readonly string[];
}

/** The names of columns that come once for each of `groups`, side by side: the first of each says whose they are. */
export const beside = (groups: readonly string[], columns: readonly string[]): string[] =>
  groups.flatMap((group) => columns.map((name, at) => (at === 0 ? `${group}: ${name}` : name)));

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}

/** The medians of each figure by itself. */
export function medians<Figures extends object>(all: readonly Figures[]): { [Name in keyof Figures]: number } {
  const names = Object.keys(all[0]!) as (keyof Figures)[];
  return Object.fromEntries(names.map((name) => [name, median(all.map((one) => one[name] as number))])) as {
    [Name in keyof Figures]: number;
  };
}

/** 12345 as "12,345". */
export const grouped = (value: number): string => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");

/** As many digits as tell something. */
export const milliseconds = (value: number): string => value.toFixed(value < 10 ? 2 : 1);

/** A part of a whole: "35%"; nothing of nothing is "". */
export const percent = (part: number, whole: number): string =>
  whole === 0 ? "" : `${Math.round((100 * part) / whole)}%`;

/** One of how many: "1/3.4", "1/25"; or how many of them: "1.6×". */
export const fraction = (part: number, whole: number): string =>
  part > 1.05 * whole ? `${(part / whole).toFixed(1)}×` : `1/${(whole / part).toFixed(part * 10 < whole ? 0 : 1)}`;

/** Markdown, which can be read in a terminal too. */
export function markdown({ title, parts }: Report): string {
  return [`## ${title}`, ...parts.map((part) => (typeof part === "string" ? part : tableText(part)))].join("\n\n");
}

function tableText({ head, rows, texts = [] }: Table): string {
  const cells = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, at) => Math.max(3, ...cells.map((row) => row[at]!.length)));
  const isText = head.map((name, at) => at === 0 || texts.includes(name));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, at) => (isText[at] ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!))).join(" | ")} |`;
  const rule = `|${widths.map((width, at) => `-${"-".repeat(width)}${isText[at] ? "-" : ":"}`).join("|")}|`;
  return [line(cells[0]!), rule, ...cells.slice(1).map(line)].join("\n");
}
