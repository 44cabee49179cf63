/**
 * docs/wake.svg: what a wake costs by each way back, to scale: bytes, round trips and processor time.
 *
 *     writeFileSync("wake.svg", picture(barsOf(figures.simulator)));
 */

import type { Protocol } from "../../src/dtls/engine.js";
import { grouped } from "./bench.js";
import type { WakeRow } from "./wake.js";

/** One way in the picture. */
export interface Bars {
  readonly title: string;
  readonly subtitle: string;
  /** Bytes of UDP payload. */
  readonly handshakeOut: number;
  readonly handshakeIn: number;
  readonly requestOut: number;
  readonly requestIn: number;
  readonly roundTrips: number;
  /** Milliseconds of processor time. */
  readonly cpu: number;
}

/** What is drawn, from the top; of DTLS 1.3 the usual way back. */
const DRAWN: readonly { protocol: Protocol; way: string; title: string; subtitle: string }[] = [
  { protocol: "DTLS 1.2", way: "full", title: "Full handshake", subtitle: "certificates both ways" },
  { protocol: "DTLS 1.3", way: "ticket", title: "Ticket, DTLS 1.3", subtitle: "wolfSSL, RFC 9147" },
  { protocol: "DTLS 1.2", way: "ticket", title: "Ticket", subtitle: "RFC 5077" },
  { protocol: "DTLS 1.2", way: "session", title: "Session id", subtitle: "RFC 5246" },
  { protocol: "DTLS 1.2", way: "context", title: "Saved association", subtitle: "connection ID, RFC 9146" },
];

/** The ways to the development server. */
export function barsOf(rows: readonly WakeRow[]): Bars[] {
  return DRAWN.map(({ title, subtitle, ...drawn }) => {
    const { figures } = rows.find(
      ({ server, protocol, way }) => server === "development" && protocol === drawn.protocol && way === drawn.way,
    )!;
    return {
      title,
      subtitle,
      handshakeOut: figures!.bytesOut,
      handshakeIn: figures!.bytesIn,
      requestOut: figures!.requestOut,
      requestIn: figures!.requestIn,
      roundTrips: figures!.roundTrips + figures!.answers,
      cpu: figures!.cpu,
    };
  });
}

const WIDTH = 880;
const MARGIN = 24;
const TOP = 128;
const ROW = 62;
const BAR = 26;
const BOTTOM = 44;

/** Where a panel begins, and how wide its largest bar is. */
const BYTES = { x: 206, width: 320 };
const TRIPS = { x: 600, step: 16 };
const CPU = { x: 712, width: 80 };

const PARTS = [
  { name: "handshakeOut", label: "handshake, out", fill: "h1" },
  { name: "handshakeIn", label: "handshake, in", fill: "h2" },
  { name: "requestOut", label: "request", fill: "r1" },
  { name: "requestIn", label: "answer", fill: "r2" },
] as const;

const STYLE = `
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: #1f2933 }
  .card { fill: #ffffff; stroke: #d5dae1 }
  .title { font-size: 19px; font-weight: 600 }
  .head { font-size: 13px; font-weight: 600 }
  .way { font-size: 15px; font-weight: 600 }
  .small { font-size: 12px; fill: #5b6673 }
  .number { font-size: 14px; font-variant-numeric: tabular-nums }
  .line { stroke: #d5dae1 }
  .h1 { fill: #2f4b9c } .h2 { fill: #8ea4e0 } .r1 { fill: #b4540a } .r2 { fill: #f0a95c } .cpu { fill: #4c7a5d } .trip { fill: #5b6673 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6eaf0 }
    .card { fill: #161b22; stroke: #343b45 }
    .small { fill: #9aa5b1 }
    .line { stroke: #343b45 }
    .h1 { fill: #6f8ff0 } .h2 { fill: #33498f } .r1 { fill: #f3a04a } .r2 { fill: #8f5618 } .cpu { fill: #7fb994 } .trip { fill: #9aa5b1 }
  }
`;

/** Hundredths of a pixel are enough. */
const px = (value: number): string => String(Math.round(value * 100) / 100);

const escaped = (text: string): string => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

const text = (x: number, y: number, kind: string, content: string): string =>
  `<text x="${px(x)}" y="${px(y)}" class="${kind}">${escaped(content)}</text>`;

const rect = (x: number, y: number, width: number, height: number, kind: string, title: string): string =>
  `<rect x="${px(x)}" y="${px(y)}" width="${px(width)}" height="${px(height)}" class="${kind}">` +
  `<title>${escaped(title)}</title></rect>`;

const sumOf = (bars: Bars): number => PARTS.reduce((sum, { name }) => sum + bars[name], 0);

/** SVG; the same for the same bars. All bars of a panel have one scale. */
export function picture(all: readonly Bars[]): string {
  const height = TOP + all.length * ROW + BOTTOM;
  const perByte = BYTES.width / Math.max(...all.map(sumOf));
  const perMillisecond = CPU.width / Math.max(...all.map(({ cpu }) => cpu));
  const description = all
    .map((bars) => {
      const trips = bars.roundTrips === 1 ? "round trip" : "round trips";
      return `${bars.title}: ${grouped(sumOf(bars))} bytes, ${bars.roundTrips} ${trips}, ${bars.cpu.toFixed(1)} ms.`;
    })
    .join(" ");
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" ` +
      `aria-labelledby="title description">`,
    `<title id="title">What a wake costs, by each way back to the EST server</title>`,
    `<desc id="description">${escaped(description)}</desc>`,
    `<style>${STYLE}</style>`,
    `<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="10" class="card"/>`,
    text(MARGIN, 40, "title", "What a wake costs, by each way back"),
    text(BYTES.x, 86, "head", "Bytes on the wire"),
    text(TRIPS.x, 86, "head", "Round trips"),
    text(CPU.x, 86, "head", "Processor time"),
    ...legend(),
    text(CPU.x, 110.5, "small", "in the simulator"),
    ...all.flatMap((bars, at) => row(bars, TOP + at * ROW, { perByte, perMillisecond })),
    text(
      MARGIN,
      height - 18,
      "small",
      "One wake that gets the CA certificates (crts), simulated device, development server. To scale; docs/bench.md has the machine.",
    ),
    "</svg>",
  ];
  return `${lines.join("\n")}\n`;
}

/** The colours of the bytes. */
function legend(): string[] {
  let x = BYTES.x;
  return PARTS.flatMap(({ label, fill }) => {
    const at = x;
    x += 30 + label.length * 6.6;
    return [
      `<rect x="${px(at)}" y="100" width="12" height="12" rx="2" class="${fill}"/>`,
      text(at + 18, 110.5, "small", label),
    ];
  });
}

function row(bars: Bars, y: number, scale: { perByte: number; perMillisecond: number }): string[] {
  const middle = y + ROW / 2;
  const top = middle - BAR / 2;
  const base = middle + 5;
  let x = BYTES.x;
  const parts = PARTS.filter(({ name }) => bars[name] > 0).map(({ name, label, fill }) => {
    const width = bars[name] * scale.perByte;
    x += width;
    return rect(x - width, top, width, BAR, fill, `${label}: ${grouped(bars[name])} bytes`);
  });
  const cpu = bars.cpu * scale.perMillisecond;
  return [
    `<line x1="${MARGIN}" x2="${WIDTH - MARGIN}" y1="${y}" y2="${y}" class="line"/>`,
    text(MARGIN, middle - 3, "way", bars.title),
    text(MARGIN, middle + 15, "small", bars.subtitle),
    ...parts,
    text(x + 8, base, "number", grouped(sumOf(bars))),
    ...Array.from(
      { length: bars.roundTrips },
      (_, trip) => `<circle cx="${px(TRIPS.x + 6 + trip * TRIPS.step)}" cy="${px(middle)}" r="5.5" class="trip"/>`,
    ),
    text(TRIPS.x + 8 + bars.roundTrips * TRIPS.step, base, "number", String(bars.roundTrips)),
    rect(CPU.x, top, cpu, BAR, "cpu", `${bars.cpu.toFixed(2)} ms`),
    text(CPU.x + cpu + 8, base, "number", `${bars.cpu.toFixed(1)} ms`),
  ];
}
