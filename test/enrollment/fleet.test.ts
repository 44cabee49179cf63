/**
 * A thousand devices that run the decisions alone (src/enrollment/schedule.ts), for ten years: their renewals are spread
 * over time, also after a server was away. The histograms go to the output.
 */

import { strict as assert } from "node:assert";
import { decide, type Life, livedOn, NEW_LIFE, type Outcome, type Step } from "../../src/enrollment/schedule.js";
import { chance } from "../../tools/chance.js";

const DEVICES = 1000;
const DAY = 86400;
const HOUR = 3600;
const START = 2_000_000_000;
const YEARS = 10;
const LIFETIME = 90 * DAY;

interface Contact {
  readonly at: number;
  readonly steps: readonly Step[];
  readonly done: boolean;
}

/** One device from its first boot on: every time that it connects. `isAway` is the server at that time. */
function live(random: () => number, isAway: (at: number) => boolean): { contacts: Contact[]; expired: number } {
  const contacts: Contact[] = [];
  let life: Life = NEW_LIFE;
  let certificate: { notBefore: number; notAfter: number } | undefined;
  let phase = 0;
  let expired = 0;
  // All are switched on within an hour.
  let now = START + Math.floor(random() * HOUR);
  while (now < START + YEARS * 365 * DAY) {
    const situation = { now, certificate, factory: "present", anchors: "both", life, phase } as const;
    const { steps, cause, at } = decide(situation);
    if (steps.length === 0) {
      now = Math.max(now + 1, Math.ceil(at));
      continue;
    }
    const away = isAway(now);
    contacts.push({ at: now, steps, done: !away });
    const outcome: Outcome = away
      ? { kind: "failed", error: "away", retryAfter: undefined, refused: undefined }
      : { kind: "done", steps };
    life = livedOn(life, now, outcome, random());
    if (!away) {
      expired += cause === "recovery" ? 1 : 0;
      certificate = { notBefore: now, notAfter: now + LIFETIME };
      phase = random();
    }
    now += 1;
  }
  return { contacts, expired };
}

/** How many of `times` fall into each of `count` spans of `length` from `start` on. */
function histogram(times: readonly number[], start: number, length: number, count: number): number[] {
  const bars = Array<number>(count).fill(0);
  for (const time of times) {
    const bar = Math.floor((time - start) / length);
    if (bar >= 0 && bar < count) {
      bars[bar]!++;
    }
  }
  return bars;
}

function show(title: string, unit: string, first: number, bars: readonly number[]): void {
  const scale = Math.max(...bars) / 50;
  const lines = bars.map(
    (bar, at) =>
      `        ${unit} ${String(first + at).padStart(3)} ${String(bar).padStart(4)} ${"█".repeat(Math.round(bar / scale))}`,
  );
  console.log(`      ${title}\n${lines.join("\n")}`);
}

describe("a fleet of 1,000 devices that are switched on in the same hour", () => {
  it("renews spread over a week, and over more each time", () => {
    const random = chance(7);
    const fleet = Array.from({ length: DEVICES }, () => live(random, () => false));
    const nth = (count: number) => fleet.map(({ contacts }) => contacts[count]!.at);
    const first = histogram(nth(1), START + 55 * DAY, DAY, 10);
    show("first renewals", "day", 55, first);
    assert.equal(
      first.reduce((sum, bar) => sum + bar),
      DEVICES,
    );
    // 7.5 days would be 133 a day if they were all the same.
    assert.ok(Math.max(...first) <= 180, `${first}`);
    const tenth = histogram(nth(10), START + 580 * DAY, DAY, 40);
    show("tenth renewals", "day", 580, tenth);
    assert.ok(Math.max(...tenth) <= 90, `${tenth}`);
    // In ten years each device renews some 60 times, and nothing ever expires.
    for (const { contacts, expired } of fleet) {
      assert.equal(expired, 0);
      assert.ok(contacts.length >= 58 && contacts.length <= 65, `${contacts.length} contacts`);
      assert.ok(contacts.every(({ done }) => done));
    }
  });

  it("comes back spread over a day when a server was away, and asks it seldom meanwhile", () => {
    const random = chance(8);
    const away = { from: START + 58 * DAY, to: START + 65 * DAY };
    const isAway = (at: number) => at >= away.from && at < away.to;
    const fleet = Array.from({ length: DEVICES }, () => live(random, isAway));
    const back = fleet.flatMap(({ contacts }) => contacts.filter(({ at, done }) => done && at >= away.to).slice(0, 1));
    const waited = fleet.filter(({ contacts }) => contacts.some(({ done }) => !done)).length;
    const hours = histogram(
      back.map(({ at }) => at),
      away.to,
      HOUR,
      24,
    );
    show(`after an outage of 7 days, which ${waited} devices met: renewals`, "hour", 0, hours);
    assert.ok(waited > 700, `${waited}`);
    assert.ok(Math.max(...hours) <= waited / 8, `${hours}`);
    for (const { contacts, expired } of fleet) {
      assert.equal(expired, 0);
      const tries = contacts.filter(({ done }) => !done).length;
      assert.ok(tries <= 22, `${tries} tries in a week`);
    }
  });

  it("asks an overloaded server again when it says so, and is served in the end", () => {
    const random = chance(9);
    // Ten a minute are served; the others are told to come back in an hour.
    const served = new Map<number, number>();
    let busy = 0;
    const devices = Array.from({ length: DEVICES }, () => ({
      life: NEW_LIFE,
      now: START + Math.floor(random() * 60),
      done: false,
    }));
    for (let left = DEVICES; left > 0; ) {
      const device = devices.filter(({ done }) => !done).reduce((one, other) => (other.now < one.now ? other : one));
      const minute = Math.floor(device.now / 60);
      const count = served.get(minute) ?? 0;
      if (count < 10) {
        served.set(minute, count + 1);
        device.done = true;
        left--;
      } else {
        busy++;
        const outcome = { kind: "failed", error: "busy", retryAfter: HOUR, refused: undefined } as const;
        device.life = livedOn(device.life, device.now, outcome, random());
        device.now = device.life.retryAt;
      }
    }
    const last = Math.max(...[...served.keys()].map((minute) => minute * 60 - START));
    console.log(
      `      1,000 first boots at 10 a minute: ${busy} told to wait, the last one served after ${Math.round(last / HOUR)} h`,
    );
    assert.ok(last < 48 * HOUR, `${last}`);
  });
});
