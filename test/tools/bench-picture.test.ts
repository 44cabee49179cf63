/** docs/wake.svg and the model of a battery, of given figures. */

import { strict as assert } from "node:assert";
import { rowOf } from "../../tools/bench/battery.js";
import { type Bars, barsOf, picture } from "../../tools/bench/picture.js";
import type { WakeRow } from "../../tools/bench/wake.js";
import { ATTEMPTS, PROTOCOLS } from "../../tools/bench/ways.js";

const bars = (title: string, bytes: readonly [number, number, number, number], trips: number, cpu: number): Bars => {
  const [handshakeOut, handshakeIn, requestOut, requestIn] = bytes;
  return { title, subtitle: "", handshakeOut, handshakeIn, requestOut, requestIn, roundTrips: trips, cpu };
};

const FULL = bars("Full", [1376, 1518, 63, 904], 4, 12.5);
const CONTEXT = bars("Context", [0, 0, 63, 904], 1, 0.5);

/** Throws where it is not well-formed: elements nested and closed, attributes quoted, no bare "&" or "<". */
function checkXML(text: string): void {
  const open: string[] = [];
  let roots = 0;
  const token = /<(\/?)([a-z]+)((?: [\w:-]+="[^"<&]*")*)(\/?)>|([^<]+)/gy;
  while (token.lastIndex < text.length) {
    const at = token.lastIndex;
    const match = token.exec(text) ?? assert.fail(`not XML at ${at}: ${text.slice(at, at + 60)}`);
    const [, closing, name, , empty, content] = match;
    if (content !== undefined) {
      assert.doesNotMatch(content, /&(?!amp;|lt;)/);
      assert.ok(open.length > 0 || content.trim() === "", content);
    } else if (closing === "/") {
      assert.equal(open.pop(), name);
    } else {
      roots += open.length === 0 ? 1 : 0;
      if (empty === "") open.push(name!);
    }
  }
  assert.deepEqual([open, roots], [[], 1]);
}

/** The widths of the bars of a kind, by what their title says. */
const widths = (svg: string, unit: "bytes" | "ms"): { value: number; width: number }[] =>
  [...svg.matchAll(/<rect [^>]*width="([\d.]+)"[^>]*><title>(?:[^<:]*: )?([\d.,]+) (bytes|ms)<\/title>/g)]
    .filter(([, , , its]) => its === unit)
    .map(([, width, value]) => ({ width: Number(width), value: Number(value!.replace(",", "")) }));

describe("the picture of the ways back", () => {
  it("is well-formed XML with a title and a description, whatever the names hold", () => {
    const svg = picture([{ ...FULL, title: "A & B <c>" }, CONTEXT]);
    checkXML(svg);
    assert.match(
      svg,
      /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg"[^>]* role="img" aria-labelledby="title description">/,
    );
    assert.match(
      svg,
      /<title id="title">[^<]+<\/title>\n<desc id="description">A &amp; B &lt;c>: 3,861 bytes, 4 round trips/,
    );
    assert.throws(() => checkXML(svg.replace("</svg>", "")));
    assert.throws(() => checkXML(svg.replace("&amp;", "&")));
  });

  it("draws all bytes to one scale and all times to another, and a dot for each round trip", () => {
    const svg = picture([FULL, CONTEXT]);
    const bytes = widths(svg, "bytes");
    assert.deepEqual(
      bytes.map(({ value }) => value),
      [1376, 1518, 63, 904, 63, 904],
    );
    const times = widths(svg, "ms");
    assert.deepEqual(
      times.map(({ value }) => value),
      [12.5, 0.5],
    );
    for (const panel of [bytes, times]) {
      const scale = panel[0]!.width / panel[0]!.value;
      for (const { width, value } of panel) {
        assert.ok(Math.abs(width - value * scale) < 0.05, `${width} for ${value}`);
      }
    }
    assert.equal(svg.match(/<circle /g)!.length, 5);
  });

  it("has the ways of DTLS 1.2 and the ticket of DTLS 1.3, each with its own figures and those of the development server", () => {
    let bytes = 0;
    const rows: WakeRow[] = ["OpenSSL", "development"].flatMap((server) =>
      PROTOCOLS.flatMap((protocol) =>
        ATTEMPTS[protocol].map(({ name: way }) => {
          const its = { bytesOut: ++bytes, bytesIn: 0, datagramsOut: 0, datagramsIn: 0, roundTrips: 2, cpu: 1 };
          const more = { requestOut: 0, requestIn: 0, sent: 1, answers: 1, overhead: 0, dtlsPeak: 0, instructions: 0 };
          return { server, protocol, way, figures: { ...its, ...more } };
        }),
      ),
    );
    const of = (protocol: string, name: string): number =>
      rows.find((row) => row.server === "development" && row.protocol === protocol && row.way === name)!.figures!
        .bytesOut;
    assert.deepEqual(
      barsOf(rows).map(({ title, handshakeOut, roundTrips }) => [title, handshakeOut, roundTrips]),
      [
        ["Full handshake", of("DTLS 1.2", "full"), 3],
        ["Ticket, DTLS 1.3", of("DTLS 1.3", "ticket"), 3],
        ["Ticket", of("DTLS 1.2", "ticket"), 3],
        ["Session id", of("DTLS 1.2", "session"), 3],
        ["Saved association", of("DTLS 1.2", "context"), 3],
      ],
    );
  });

  it("is the same for the same figures", () => {
    assert.equal(picture([FULL, CONTEXT]), picture([{ ...FULL }, { ...CONTEXT }]));
  });
});

describe("the model of a battery", () => {
  const nothing = { bytesOut: 0, bytesIn: 0, datagramsOut: 0, roundTrips: 0 };
  const silent = { ...nothing, requestOut: 0, requestIn: 0, sent: 0, answers: 0, cpu: 0 };

  it("adds up by the formula that is shown", () => {
    const alone = rowOf("alone", silent, 3);
    assert.ok(Math.abs(alone.charge - (68 * 0.27 + 100 * 1)) < 1e-9);
    // 3 ms here are a verification there: 302 ms of processor time, with the radio on.
    const busy = rowOf("busy", { ...silent, cpu: 3 }, 3);
    assert.ok(Math.abs(busy.charge - alone.charge - 0.302 * (100 + 68 - 30)) < 1e-9);
    // A request of 63 bytes and its answer: 145 bytes on the air at 1 Mbit/s, and a round trip.
    const request = rowOf("request", { ...silent, requestOut: 63, requestIn: 904, sent: 1, answers: 1 }, 3);
    assert.ok(Math.abs(request.charge - alone.charge - 0.05 * 100 - (8 * 145 * (240 - 100)) / 1e6) < 1e-9);
    assert.deepEqual([request.bytes, request.roundTrips, request.sent], [967, 1, 1]);
    const current = alone.charge / 3600 + 0.01 + (1000 * 0.02) / 720;
    assert.ok(Math.abs(alone.days[0]! - (0.8 * 1000) / (24 * current)) < 1e-9);
  });
});
