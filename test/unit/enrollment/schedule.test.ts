// What is due when: src/enrollment/schedule.ts.
import { strict as assert } from "node:assert";
import {
  DEFAULT_POLICY,
  decide,
  type Life,
  livedOn,
  NEW_LIFE,
  type Outcome,
  renewalTime,
  type Situation,
  timeOf,
} from "../../../src/enrollment/schedule.js";

const DAY = 86400;
const START = 2_000_000_000;
/** 90 days. */
const certificate = { notBefore: START, notAfter: START + 90 * DAY };

function situation(more: Partial<Situation>, life: Partial<Life> = {}): Situation {
  return {
    now: START,
    certificate,
    factory: "present",
    anchors: "explicit",
    phase: 0.5,
    ...more,
    life: { ...NEW_LIFE, trustedAt: START, ...life },
  };
}

const failed = (more: Partial<Outcome & { kind: "failed" }> = {}): Outcome => ({
  kind: "failed",
  error: "why",
  retryAfter: undefined,
  refused: undefined,
  ...more,
});

describe("the schedule", () => {
  it("begins with a first boot: CA certificates, attributes, enrolment, as the factory made the device", () => {
    const decision = decide(situation({ certificate: undefined, anchors: "implicit" }));
    assert.deepEqual(decision, {
      cause: "bootstrap",
      at: 0,
      steps: ["crts", "att", "sen"],
      identity: "factory",
      anchors: "implicit",
    });
  });

  it("does nothing before two thirds of the lifetime, and renews then, with the CA certificates first", () => {
    const at = START + 60 * DAY;
    const early = decide(situation({ now: at - 1 }));
    assert.deepEqual([early.cause, early.at, early.steps], ["renewal", at, []]);
    const due = decide(situation({ now: at }));
    assert.deepEqual(
      [due.cause, due.steps, due.identity, due.anchors],
      ["renewal", ["crts", "att", "sren"], "enrolled", "explicit"],
    );
  });

  it("spreads renewals over a twelfth of the lifetime around that", () => {
    assert.equal(renewalTime(certificate, 0), START + (60 - 3.75) * DAY);
    assert.equal(renewalTime(certificate, 0.5), START + 60 * DAY);
    assert.equal(renewalTime(certificate, 1), START + (60 + 3.75) * DAY);
    const early = { ...DEFAULT_POLICY, renewal: 0.5, spread: 0 };
    assert.equal(renewalTime(certificate, 0.9, early), START + 45 * DAY);
  });

  it("fetches the CA certificates alone where no renewal has done so for 90 days", () => {
    const long = { notBefore: START, notAfter: START + 3650 * DAY };
    const before = decide(situation({ certificate: long, now: START + 90 * DAY - 1 }));
    assert.deepEqual([before.cause, before.at, before.steps.length], ["trust", START + 90 * DAY, 0]);
    assert.deepEqual(decide(situation({ certificate: long, now: START + 90 * DAY })).steps, ["crts"]);
  });

  it("goes back to the factory identity where the certificate has expired, or renews as it is without one", () => {
    const now = START + 91 * DAY;
    const { cause, steps, identity } = decide(situation({ now }));
    assert.deepEqual([cause, steps, identity], ["recovery", ["crts", "att", "sen"], "factory"]);
    const without = decide(situation({ now, factory: "absent" }));
    assert.deepEqual(
      [without.cause, without.steps, without.identity],
      ["recovery", ["crts", "att", "sren"], "enrolled"],
    );
  });

  it("waits after a failure, twice as long each time, up to a day, half of it by chance", () => {
    let life = NEW_LIFE;
    const waits: number[] = [];
    for (let count = 0; count < 13; count++) {
      life = livedOn(life, START, failed(), 1);
      waits.push(life.retryAt - START);
    }
    assert.deepEqual(waits.slice(0, 4), [60, 120, 240, 480]);
    assert.deepEqual(waits.slice(-2), [DAY, DAY]);
    assert.equal(livedOn(NEW_LIFE, START, failed(), 0).retryAt - START, 30);
    assert.equal(life.failures, 13);
    const { at, steps } = decide(situation({ certificate: undefined, now: START + 1 }, life));
    assert.deepEqual([at, steps], [life.retryAt, []]);
    assert.equal(decide(situation({ certificate: undefined, now: life.retryAt }, life)).steps.length, 3);
  });

  it("waits as long as a busy server says, and a tenth more at most", () => {
    for (const [random, wait] of [
      [0, 3600],
      [1, 3960],
    ] as const) {
      const life = livedOn({ ...NEW_LIFE, failures: 9 }, START, failed({ retryAfter: 3600 }), random);
      assert.equal(life.retryAt, START + wait);
    }
  });

  it("forgets its failures once something has gone well", () => {
    const life = livedOn(NEW_LIFE, START, failed({ refused: "device" }), 0.5);
    assert.deepEqual([life.failures, life.refusals, life.error], [1, 1, "why"]);
    const well = livedOn(life, START + 9, { kind: "done", steps: ["crts", "att", "sen"] }, 0.5);
    assert.deepEqual(well, { ...NEW_LIFE, time: START + 9, trustedAt: START + 9 });
    assert.equal(livedOn(life, START, { kind: "done", steps: ["sren"] }, 0.5).trustedAt, 0);
  });

  it("takes the certificate for the cause where servers refuse it twice, and not at once: an alert may be forged", () => {
    const once = livedOn({ ...NEW_LIFE, trustedAt: START }, START, failed({ refused: "device" }), 0);
    assert.equal(decide(situation({ now: START + DAY }, once)).cause, "renewal");
    const twice = livedOn(once, START, failed({ refused: "device" }), 0);
    assert.equal(decide(situation({ now: START + DAY }, twice)).cause, "recovery");
  });

  it("goes back to the trust anchors of the factory where the server is refused three times, if there are any", () => {
    let life = { ...NEW_LIFE, trustedAt: START };
    const trusts: string[] = [];
    for (let count = 0; count < 4; count++) {
      trusts.push(decide(situation({ anchors: "both" }, life)).anchors);
      life = livedOn(life, START, failed({ refused: "server" }), 0);
    }
    assert.deepEqual(trusts, ["explicit", "explicit", "explicit", "implicit"]);
    assert.equal(decide(situation({ anchors: "explicit" }, life)).anchors, "explicit");
  });

  describe("knows the time", () => {
    const life: Life = { ...NEW_LIFE, time: START, uptime: 1000, sleep: 5 * DAY };

    it("by the clock", () => {
      assert.deepEqual(timeOf(life, { time: START + 7, uptime: 2000 }, 0), { now: START + 7, basis: "clock" });
      assert.deepEqual(timeOf(NEW_LIFE, { time: START, uptime: undefined }, 0), { now: START, basis: "clock" });
      // It may have been a little ahead before.
      assert.equal(timeOf(life, { time: START - 3600, uptime: undefined }, 0).basis, "clock");
    });

    it("by the uptime since it was known last, where there is no clock or it was set anew", () => {
      for (const time of [undefined, 0, 946684800, START - 2 * DAY]) {
        assert.deepEqual(timeOf(life, { time, uptime: 1000 + DAY }, 0), { now: START + DAY, basis: "estimate" });
      }
    });

    it("by the uptime alone where the power was off: not less than that has passed", () => {
      assert.equal(timeOf(life, { time: undefined, uptime: 10 }, 0).now, START + 10);
    });

    it("by the sleep that was planned, where there is no uptime either", () => {
      assert.equal(timeOf(life, { time: undefined, uptime: undefined }, 0).now, START + 5 * DAY);
    });

    it("not to be before the certificate was issued", () => {
      const { now, basis } = timeOf(NEW_LIFE, { time: undefined, uptime: 5 }, START);
      assert.deepEqual([now, basis], [START, "estimate"]);
    });
  });
});
