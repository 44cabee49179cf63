/**
 * The soak: devices that wake again and again against development servers, while datagrams get lost, devices move, power
 * goes in the middle of wakes, and servers forget, restart and die. It begins and ends calm: what a device and a server
 * hold at the end is compared with what they held at the start, and every device must have come through.
 *
 *     const { findings, wakes } = await soak({ seconds: 600, seed: 7, devices: 6, loss: 0.3, host: "simulator", folder });
 *
 * There are two servers with one CA: the first lives through all of it and must not grow; the second is the one that dies.
 */

import { X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { readSessions } from "../../hosts/node/sessions.js";
import type { Resume } from "../../src/dtls/socket.js";
import type { Operation } from "../../src/enrollment/wake.js";
import { chance } from "../chance.js";
import type { ServerReport } from "../est-server/main.js";
import { CALM, Device, type Outcome, type Plan, type SoakHost } from "./device.js";
import { documented } from "./documented.js";
import { ServerProcess } from "./server-process.js";
import { certificateOf, filesOf, storageFaults } from "./storage.js";

export interface SoakOptions {
  /** How long it is rough. */
  readonly seconds: number;
  readonly seed: number;
  readonly devices: number;
  /** The highest rate at which a wake loses, doubles or delays datagrams, 0 to 1. */
  readonly loss: number;
  readonly host: SoakHost;
  /** Devices and servers are kept there. */
  readonly folder: string;
  /** Gets a line every 10 s. */
  readonly progress?: ((line: string) => void) | undefined;
  /** The rough part ends when this is aborted. */
  readonly signal?: AbortSignal | undefined;
  /** Is called after each wake of the rough part: by the tests, to break something that the soak must find. */
  readonly meddle?: ((device: Device, report: SoakReport) => void) | undefined;
}

/** A figure at the start, at the end, and at its highest. */
export interface Course {
  readonly first: number;
  last: number;
  max: number;
}

/** What must not be, and where. */
export interface Finding {
  readonly sentence: string;
  /** The device, its wake and what was done at it; the server. */
  readonly where: string;
}

export interface SoakReport {
  readonly seconds: number;
  readonly seed: number;
  readonly host: SoakHost;
  wakes: number;
  /** By way; "nothing due" where a wake had nothing to do. */
  readonly ways: Record<string, number>;
  /** By documented error. */
  readonly failures: Record<string, number>;
  killed: number;
  /** By operation. */
  readonly enrolments: Record<string, number>;
  readonly servers: { restarts: number; killed: number; forgot: number };
  readonly network: Record<"datagrams" | "lost" | "doubled" | "late" | "moves", number>;
  /** Bytes of each file of each device. */
  readonly stores: Record<string, Course>;
  /** Of the server that lives on, in bytes or as a number; without associations at the start and at the end. */
  readonly server: Record<"rss" | "heap" | "dtlsHeap" | "associations", Course>;
  /** Bytes of XS at the peak of a wake, by device, operation and way. */
  readonly peaks: Record<string, Course>;
  readonly audit: { records: number; associations: number; violations: number };
  readonly findings: Finding[];
}

/** Seconds; with 60 that the CA puts them back, a certificate is renewed 20 s after it was issued, on average. */
const CERTIFICATE_LIFETIME = 60;
/** Of a server: few enough to be reached, so that the limit is tried too. */
const ASSOCIATIONS = 24;
const PROGRESS_MS = 10_000;
/** Seconds for a wake on a calm network. */
const CALM_SECONDS = 120;
/** Wakes that a device may take to be well again: as many refusals and distrusts as the schedule waits for, and retries. */
const RECOVERIES = 12;
/** Milliseconds between two wakes at most. */
const PAUSE = 600;

/** Bytes that a certificate may have more than another one: two signatures and a serial number in DER. */
const VARIATION = 16;
/** All files of a device together; they may be more by a record of resumption, which not every life has. */
const ALL = "all files";
const ALL_VARIATION = 256;
/** No file of a device is as large. */
const FILE_BYTES_MAX = 4096;
/** Bytes of XS that a peak may differ by where the same is done: chunks and slots come in steps. */
const PEAK_VARIATION = 1024;
/** Bytes that a server without associations may hold more at the end: sessions and tickets' keys; certificates and code. */
const DTLS_GROWTH = 96 * 1024;
const HEAP_GROWTH = 12 * 1024 * 1024;

type Weighted<T> = readonly (readonly [T, number])[];

const OPERATIONS: Weighted<Operation> = [
  ["run", 30],
  ["crts", 20],
  ["att", 12],
  ["sren", 9],
  ["sen", 4],
  ["core", 4],
  ["skg", 3],
  ["skc", 3],
];
const RESUMES: Weighted<Resume> = [
  ["context", 72],
  ["session", 16],
  ["none", 12],
];
const RESUMES_WITH_TICKETS: Weighted<Resume> = [
  ["context", 50],
  ["ticket", 40],
  ["none", 10],
];

export async function soak(options: SoakOptions): Promise<SoakReport> {
  const folder = join(options.folder, "est-server");
  const args = ["--out", folder, "--lifetime", `${CERTIFICATE_LIFETIME}s`, "--associations", String(ASSOCIATIONS)];
  const steady = await ServerProcess.start(args);
  const mortal = await ServerProcess.start(args);
  const devices: Device[] = [];
  try {
    for (let number = 0; number < options.devices; number++) {
      const { port } = number % 2 === 0 ? steady : mortal;
      const random = chance(options.seed * 1000 + number);
      devices.push(
        await Device.create({ number, folder: options.folder, ca: folder, port, host: options.host, random }),
      );
    }
    return await new Soak(options, devices, steady, mortal).run();
  } finally {
    for (const device of devices) {
      device.close();
    }
    await Promise.all([steady.stop(), mortal.stop()]);
  }
}

class Soak {
  readonly #options: SoakOptions;
  readonly #devices: readonly Device[];
  readonly #steady: ServerProcess;
  readonly #mortal: ServerProcess;
  readonly #issuing: X509Certificate;
  readonly #report: SoakReport;
  /** Devices with a finding: they are left as they are. */
  readonly #broken = new Set<Device>();
  #deadline = Number.POSITIVE_INFINITY;
  #started = 0;

  constructor(options: SoakOptions, devices: readonly Device[], steady: ServerProcess, mortal: ServerProcess) {
    const { seconds, seed, host, folder } = options;
    this.#options = options;
    this.#devices = devices;
    this.#steady = steady;
    this.#mortal = mortal;
    this.#issuing = new X509Certificate(readFileSync(join(folder, "est-server", "issuing-ca.pem")));
    const none = (): Course => ({ first: 0, last: 0, max: 0 });
    this.#report = {
      ...{ seconds, seed, host, wakes: 0, ways: {}, failures: {}, killed: 0, enrolments: {} },
      servers: { restarts: 0, killed: 0, forgot: 0 },
      network: { datagrams: 0, lost: 0, doubled: 0, late: 0, moves: 0 },
      stores: {},
      server: { rss: none(), heap: none(), dtlsHeap: none(), associations: none() },
      peaks: {},
      audit: { records: 0, associations: 0, violations: 0 },
      findings: [],
    };
  }

  async run(): Promise<SoakReport> {
    this.#started = performance.now();
    const progress = setInterval(() => void this.#tell(), PROGRESS_MS);
    try {
      await this.#each((device) => this.#begin(device));
      await this.#measure("first");
      await this.#rough();
      await this.#measure("last");
      await this.#each((device) => this.#end(device));
    } finally {
      clearInterval(progress);
    }
    this.#judge();
    return this.#report;
  }

  // ---- the three parts ----

  /** A device is enrolled, and comes back by context. */
  async #begin(device: Device): Promise<void> {
    device.calm();
    for (const operation of ["run", "crts", "att"] as const) {
      await this.#calmly(device, operation);
    }
    this.#weigh(device, "first");
  }

  async #rough(): Promise<void> {
    const { seconds, signal } = this.#options;
    this.#deadline = performance.now() + seconds * 1000;
    const end = new AbortController();
    const stop = (): void => {
      this.#deadline = performance.now();
      end.abort();
    };
    const timer = setTimeout(stop, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
    // A wake that still goes on at the end may take minutes to give up: the power goes.
    const dying = this.#die(end.signal).catch((error: Error) => {
      this.#report.findings.push({ sentence: error.message, where: "the server that dies" });
    });
    await this.#each((device) => this.#live(device));
    clearTimeout(timer);
    stop();
    await dying;
  }

  /** Wakes of all kinds, until the end. */
  async #live(device: Device): Promise<void> {
    const random = chance(this.#options.seed * 1000 + 500 + this.#devices.indexOf(device));
    while (performance.now() < this.#deadline && !this.#broken.has(device)) {
      const plan = this.#draw(device, random);
      const server = this.#devices.indexOf(device) % 2 === 0 ? this.#steady : this.#mortal;
      if (random() < 0.04) {
        server.forget();
        this.#report.servers.forgot++;
      }
      const left = Math.max(0.05, (this.#deadline - performance.now()) / 1000);
      this.#take(device, plan, await device.wake(plan, left));
      this.#weigh(device);
      this.#options.meddle?.(device, this.#report);
      await delay(random() * PAUSE);
    }
  }

  /** The second server is restarted and killed, about twelve times in a soak, and at least every minute. */
  async #die(signal: AbortSignal): Promise<void> {
    const random = chance(this.#options.seed * 1000 + 999);
    const interval = Math.min(60, Math.max(4, this.#options.seconds / 12)) * 1000;
    const wait = (ms: number): Promise<void> => delay(ms, undefined, { signal }).catch(() => undefined);
    for (;;) {
      await wait(interval * (0.5 + random()));
      if (signal.aborted) {
        return;
      }
      const isKilled = random() < 0.5;
      this.#report.servers[isKilled ? "killed" : "restarts"]++;
      await this.#mortal.restart(isKilled ? "SIGKILL" : "SIGTERM", random() * 3000);
    }
  }

  /** Whatever happened to a device: it gets well, renews and comes back by context. */
  async #end(device: Device): Promise<void> {
    device.calm();
    let isWell = false;
    for (let tries = 0; tries < RECOVERIES && !isWell && !this.#broken.has(device); tries++) {
      const outcome = await this.#wake(device, { ...CALM, operation: "run" }, CALM_SECONDS);
      const certificate = certificateOf(device.state);
      isWell =
        outcome.kind === "done" && certificate !== undefined && new Date(certificate.validTo).getTime() > Date.now();
      if (!isWell) {
        await delay(1000);
      }
    }
    if (!isWell && !this.#broken.has(device)) {
      this.#find(device, `it has no valid certificate after ${RECOVERIES} wakes on a calm network`, "at the end");
    }
    await this.#calmly(device, "sren");
    await this.#calmly(device, "crts");
    const outcome = await this.#calmly(device, "att");
    if (outcome?.kind === "done" && outcome.way !== "context") {
      this.#find(device, `it came back by ${outcome.way}, not by context`, "at the end");
    }
    this.#weigh(device, "last");
  }

  /** A wake that nothing happens to, which must succeed. */
  async #calmly(device: Device, operation: Operation): Promise<Outcome | undefined> {
    if (this.#broken.has(device)) {
      return undefined;
    }
    const outcome = await this.#wake(device, { ...CALM, operation }, CALM_SECONDS);
    if (outcome.kind !== "done" && !this.#broken.has(device)) {
      const how = outcome.kind === "failed" ? `failed: ${outcome.error}` : `did not end within ${CALM_SECONDS} s`;
      this.#find(device, `${operation} ${how}`, "on a calm network");
    }
    return outcome;
  }

  async #wake(device: Device, plan: Plan, within: number): Promise<Outcome> {
    const outcome = await device.wake(plan, within);
    this.#take(device, plan, outcome);
    return outcome;
  }

  async #each(action: (device: Device) => Promise<void>): Promise<void> {
    await Promise.all(this.#devices.map(action));
  }

  #draw(device: Device, random: () => number): Plan {
    const { loss } = this.#options;
    const rate = (): number => random() * loss;
    const isRough = random() < 0.6;
    return {
      operation: pick(OPERATIONS, random),
      resume: pick(device.hasTickets ? RESUMES_WITH_TICKETS : RESUMES, random),
      loss: isRough ? rate() : 0,
      doubling: isRough ? rate() : 0,
      lateness: isRough ? rate() : 0,
      moveAfter: random() < 0.15 ? 1 + Math.floor(random() * 10) : 0,
      killAfter: random() < 0.15 ? 0.05 + random() * 1.2 : undefined,
    };
  }

  // ---- what comes of it ----

  /** Counts a wake, and looks at all that must hold after it. */
  #take(device: Device, plan: Plan, outcome: Outcome): void {
    const report = this.#report;
    const where = `wake ${device.wakes}, ${JSON.stringify(plan)}`;
    const count = (counts: Record<string, number>, name: string): void => {
      counts[name] = (counts[name] ?? 0) + 1;
    };
    report.wakes++;
    switch (outcome.kind) {
      case "done":
        count(report.ways, outcome.way ?? "nothing due");
        for (const operation of outcome.operations) {
          const [, name] = /^(sen|sren|skg|skc) 2/.exec(operation) ?? [];
          if (name !== undefined) {
            count(report.enrolments, name);
          }
        }
        if (outcome.xsPeak > 0 && outcome.way !== null) {
          course(report.peaks, `${device.name} ${plan.operation} ${outcome.way}`, outcome.xsPeak);
        }
        break;
      case "failed":
        count(report.failures, documented(outcome.error) ?? outcome.error);
        break;
      case "killed":
        report.killed++;
        break;
      case "broken":
        this.#find(device, outcome.how, where);
    }
    const violations = device.audit.violations.splice(0);
    report.audit.violations += violations.length;
    const after = outcome.kind === "done" || outcome.kind === "failed" ? "a whole wake" : "a kill";
    for (const fault of [
      ...storageFaults(device.state, this.#issuing, after),
      ...this.#sessionFaults(device),
      ...violations,
    ]) {
      this.#find(device, fault, where);
    }
    for (const [server, name] of [
      [this.#steady, "the server that lives on"],
      [this.#mortal, "the server that dies"],
    ] as const) {
      for (const failure of server.failures.splice(0)) {
        report.findings.push({ sentence: failure, where: name });
      }
    }
  }

  #sessionFaults(device: Device): string[] {
    try {
      readSessions(device.state, 86400);
      return [];
    } catch (error) {
      return [`the sessions cannot be opened: ${(error as Error).message}`];
    }
  }

  #find(device: Device, sentence: string, where: string): void {
    this.#broken.add(device);
    this.#report.findings.push({ sentence, where: `${device.name}, ${where}; ${device.state}` });
    writeFileSync(`${device.state}-datagrams.txt`, device.capture);
  }

  /** Notes how large the files of a device are; `when` it is calm. */
  #weigh(device: Device, when?: "first" | "last"): void {
    const files = filesOf(device.state);
    files.set(
      ALL,
      [...files.values()].reduce((sum, bytes) => sum + bytes, 0),
    );
    for (const [name, bytes] of files) {
      const kind = name
        .replace(/[0-9a-f]{16}(\.new)?$/, "KEY")
        .replace(/session-\d+/, "session-N")
        .replace(/\.new$/, "");
      const { stores } = this.#report;
      const key = `${device.name} ${kind}`;
      const known = stores[key];
      if (known === undefined) {
        // What was not there on the calm network of the start has no size to be compared with.
        stores[key] = { first: when === "first" ? bytes : 0, last: 0, max: bytes };
      } else {
        known.max = Math.max(known.max, bytes);
      }
      if (when === "last") {
        stores[key]!.last = bytes;
      }
    }
  }

  async #measure(when: "first" | "last"): Promise<void> {
    this.#steady.forget();
    this.#note(await this.#steady.stats(), when);
  }

  #note(stats: ServerReport, when?: "first" | "last"): void {
    const { server } = this.#report;
    for (const name of ["rss", "heap", "dtlsHeap", "associations"] as const) {
      const max = Math.max(server[name].max, stats[name]);
      server[name] =
        when === "first" ? { first: stats[name], last: stats[name], max } : { ...server[name], max, last: stats[name] };
    }
  }

  async #tell(): Promise<void> {
    this.#sum();
    this.#note(await this.#steady.stats());
    this.#options.progress?.(progressLine(this.#report, (performance.now() - this.#started) / 1000));
  }

  /** What each device counts by itself. */
  #sum(): void {
    const { network, audit } = this.#report;
    const of = <K extends string>(counts: (device: Device) => Record<K, number>, name: K): number =>
      this.#devices.reduce((sum, device) => sum + counts(device)[name], 0);
    for (const name of ["datagrams", "lost", "doubled", "late", "moves"] as const) {
      network[name] = of((device) => device.network, name);
    }
    audit.records = of(({ audit: { records } }) => ({ records }), "records");
    audit.associations = of(({ audit: { associations } }) => ({ associations }), "associations");
  }

  #judge(): void {
    this.#sum();
    const { stores, server, peaks, findings } = this.#report;
    const grown = (sentence: string, where: string): void =>
      void findings.push({ sentence: `growth: ${sentence}`, where });
    for (const [name, { first, last, max }] of Object.entries(stores)) {
      if (max > FILE_BYTES_MAX && !name.endsWith(ALL)) {
        grown(`${name} has come to ${max} bytes`, this.#options.folder);
      }
      if (first > 0 && last > first + (name.endsWith(ALL) ? ALL_VARIATION : VARIATION)) {
        grown(`${name} had ${first} bytes at the start and has ${last} at the end`, this.#options.folder);
      }
    }
    for (const [name, { first, last }] of Object.entries(peaks)) {
      if (name.endsWith(" att context") && last > first + PEAK_VARIATION) {
        grown(`a wake took ${first} bytes of XS at the start and takes ${last} at the end`, name);
      }
    }
    for (const [name, most] of [
      ["dtlsHeap", DTLS_GROWTH],
      ["heap", HEAP_GROWTH],
    ] as const) {
      const { first, last } = server[name];
      if (last > first + most) {
        grown(`${name} was ${first} bytes at the start and is ${last} at the end, without associations`, "the server");
      }
    }
    if (server.associations.max > ASSOCIATIONS) {
      grown(`${server.associations.max} associations, where ${ASSOCIATIONS} are the limit`, "the server");
    }
  }
}

function pick<T>(all: Weighted<T>, random: () => number): T {
  let left = random() * all.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [value, weight] of all) {
    left -= weight;
    if (left < 0) {
      return value;
    }
  }
  return all[0]![0];
}

function course(courses: Record<string, Course>, name: string, value: number): void {
  const known = courses[name];
  if (known === undefined) {
    courses[name] = { first: value, last: value, max: value };
  } else {
    known.last = value;
    known.max = Math.max(known.max, value);
  }
}

const list = (counts: Record<string, number>): string =>
  Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `${name} ${count}`)
    .join(", ") || "none";

const total = (counts: Record<string, number>): number => Object.values(counts).reduce((sum, count) => sum + count, 0);

function progressLine({ wakes, ways, failures, killed, servers, network, audit, server }: SoakReport, seconds: number) {
  return (
    `${Math.round(seconds)} s: ${wakes} wakes (${list(ways)}), ${total(failures)} failed, ${killed} killed, ` +
    `${network.moves} moves, ${servers.restarts + servers.killed} restarts, ${audit.records} records, ` +
    `${audit.violations} nonces twice, server ${Math.round(server.heap.last / 1024)} KB + ${Math.round(server.dtlsHeap.last / 1024)} KB`
  );
}

/** The report as a person reads it. */
export function reportText(report: SoakReport): string {
  const { seconds, seed, host, wakes, ways, failures, killed, enrolments, servers, network, audit } = report;
  const { stores, server, peaks, findings } = report;
  const lines: [string, string][] = [
    ["soak", `${seconds} s in ${host}, seed ${seed}`],
    ["wakes", `${wakes}: ${list({ ...ways, failed: total(failures), killed })}`],
    ["failed with", list(failures)],
    ["enrolments", `${total(enrolments)}: ${list(enrolments)}`],
    ["servers", `restarted ${servers.restarts}, killed ${servers.killed}, lost their associations ${servers.forgot}`],
    [
      "datagrams",
      `${network.datagrams}: lost ${network.lost}, doubled ${network.doubled}, late ${network.late}; devices moved ${network.moves}`,
    ],
    ["nonces", `${audit.records} protected records of ${audit.associations} associations: ${audit.violations} twice`],
  ];
  const text = lines.map(([name, value]) => `${name.padEnd(14)}${value}`);
  const table = (title: string, courses: Record<string, Course>): void => {
    text.push("", `${title.padEnd(40)}${["first", "last", "max"].map((name) => name.padStart(12)).join("")}`);
    for (const [name, { first, last, max }] of Object.entries(courses)) {
      text.push(`${name.padEnd(40)}${[first, last, max].map((value) => String(value).padStart(12)).join("")}`);
    }
  };
  table("stores of all devices, bytes", largest(stores));
  table("the server that lives on, bytes", server);
  table("XS at the peak of a wake, bytes", largest(peaks));
  text.push("");
  for (const { sentence, where } of findings.slice(0, 20)) {
    text.push(`FINDING: ${sentence}\n         ${where}`);
  }
  text.push(
    findings.length === 0
      ? "nothing lost, no nonce twice, no growth"
      : `${findings.length} findings; what is kept lies in the folder above, --seed ${seed} draws the same`,
  );
  return text.join("\n");
}

/** Of each thing that is told of each device the course of the device where it comes to most. */
function largest(courses: Record<string, Course>): Record<string, Course> {
  const all: Record<string, Course> = {};
  for (const [name, one] of Object.entries(courses)) {
    const kind = name.replace(/^device-\d+ /, "");
    if (all[kind] === undefined || all[kind].max < one.max) {
      all[kind] = one;
    }
  }
  return Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)));
}
