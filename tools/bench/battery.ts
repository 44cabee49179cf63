/**
 * npm run bench -- --only battery: how long a battery would last an ESP32 that wakes once an hour, by each way back. A model:
 * bytes, round trips and processor time are measured, the rest are figures of others, named with their source below.
 */

import { type Benchmark, type Context, grouped, type Report } from "./bench.js";
import { type WakeFigures, wake } from "./wake.js";
import { named } from "./ways.js";

/** What the model takes from elsewhere. */
interface Constant {
  readonly symbol: string;
  readonly value: number;
  readonly unit: string;
  readonly meaning: string;
  readonly source: string;
}

const MODES = 'ESP32 Series Datasheet v3.5, section 3.7, table 6 "Power Consumption by Power Modes"';
const RADIO = "the same, table 15, to which table 6 refers for the radio";
const ASSUMED = "assumed";

const CONSTANTS = {
  sleep: {
    ...{ symbol: "I_sleep", value: 0.01, unit: "mA", source: MODES },
    meaning: "deep sleep with RTC timer and RTC memory",
  },
  busy: { symbol: "I_cpu", value: 68, unit: "mA", meaning: "processor at 240 MHz, radio off, busy", source: MODES },
  idle: { symbol: "I_idle", value: 30, unit: "mA", meaning: "the same, idle", source: MODES },
  receive: {
    ...{ symbol: "I_rx", value: 100, unit: "mA", source: RADIO },
    meaning: "radio on, listening or receiving, processor idle",
  },
  transmit: {
    ...{ symbol: "I_tx", value: 240, unit: "mA", source: RADIO },
    meaning: "transmitting, 802.11b, 1 Mbit/s, 19.5 dBm",
  },
  boot: {
    ...{ symbol: "t_boot", value: 0.27, unit: "s", meaning: "from deep sleep to the app" },
    source: 'T. von Eicken, "ESP32 Deep-Sleep with Periodic Wake-up" (2018), measured',
  },
  join: {
    ...{ symbol: "t_wifi", value: 1, unit: "s", meaning: "Wi-Fi association with WPA2, DHCP and ARP" },
    source: ASSUMED,
  },
  fast: {
    ...{
      symbol: "",
      value: 0.2,
      unit: "s",
      meaning: "the same with channel, access point and address known, without WPA2",
    },
    source: "T. von Eicken, as above, measured",
  },
  trip: { symbol: "t_rtt", value: 0.05, unit: "s", meaning: "a round trip to the server", source: ASSUMED },
  verify: {
    ...{ symbol: "t_verify", value: 302, unit: "ms", meaning: "verifying ECDSA on P-256 at 240 MHz" },
    source: "ESP-IDF pull request 19027: ESP32-S3, ESP-IDF 6.0.2 as it is configured by default, measured",
  },
  rate: { symbol: "r", value: 1, unit: "Mbit/s", meaning: "rate of Wi-Fi, the lowest", source: ASSUMED },
  around: {
    ...{ symbol: "h", value: 82, unit: "bytes", source: "RFC 768, RFC 791, IEEE 802.11" },
    meaning: "around each datagram: UDP 8, IP 20, LLC 8, QoS MAC header 26, CCMP 16, FCS 4",
  },
  usable: { symbol: "u", value: 0.8, unit: "", meaning: "part of a battery that can be used", source: ASSUMED },
  loss: {
    symbol: "d",
    value: 0.02,
    unit: "",
    meaning: "part of it that it loses by itself in 30 days",
    source: ASSUMED,
  },
} as const satisfies Record<string, Constant>;

/** mAh, and how the device joins the Wi-Fi. */
const BATTERIES = [
  { capacity: 1000, join: "join" },
  { capacity: 2000, join: "join" },
  { capacity: 2000, join: "fast" },
] as const;
const HOUR = 3600;

const value = (name: keyof typeof CONSTANTS): number => CONSTANTS[name].value;

/** What a wake takes, of an ESP32. */
export interface BatteryRow {
  readonly way: string;
  /** Bytes of UDP payload, datagrams that the device sends, and round trips, those of the requests too. */
  readonly bytes: number;
  readonly sent: number;
  readonly roundTrips: number;
  /** Milliseconds of processor time: in the simulator, measured, and on an ESP32, scaled. */
  readonly cpu: number;
  readonly scaled: number;
  /** Seconds awake. */
  readonly awake: number;
  /** Milliampere seconds: of start and Wi-Fi, and of all. */
  readonly before: number;
  readonly charge: number;
  /** For each of BATTERIES. */
  readonly days: readonly number[];
}

export interface BatteryFigures {
  /** Milliseconds of processor time to verify a signature in the simulator, measured between the wakes. */
  readonly verify: number;
  readonly rows: readonly BatteryRow[];
}

/** Days that a battery of `capacity` mAh lasts with a charge of `charge` mAs each hour. */
export function daysOf(capacity: number, charge: number): number {
  const itself = (capacity * value("loss")) / (30 * 24);
  const current = charge / HOUR + value("sleep") + itself;
  return (capacity * value("usable")) / (current * 24);
}

type Measured = Pick<
  WakeFigures,
  "bytesOut" | "bytesIn" | "datagramsOut" | "roundTrips" | "requestOut" | "requestIn" | "sent" | "answers" | "cpu"
>;

/** The model. `verify` is the processor time of a verification where `cpu` was measured. */
export function rowOf(way: string, measured: Measured, verify: number): BatteryRow {
  const { bytesOut, bytesIn, datagramsOut, requestOut, requestIn, cpu } = measured;
  const sent = datagramsOut + measured.sent;
  const roundTrips = measured.roundTrips + measured.answers;
  const scaled = (cpu * value("verify")) / verify;
  const busy = scaled / 1000;
  const air = (8 * (bytesOut + requestOut + sent * value("around"))) / (value("rate") * 1e6);
  const before = value("busy") * value("boot") + value("receive") * value("join");
  const charge =
    before +
    value("receive") * (busy + roundTrips * value("trip")) +
    (value("busy") - value("idle")) * busy +
    (value("transmit") - value("receive")) * air;
  return {
    ...{ way, bytes: bytesOut + bytesIn + requestOut + requestIn, sent, roundTrips, cpu, scaled },
    awake: value("boot") + value("join") + busy + roundTrips * value("trip"),
    before,
    charge,
    days: BATTERIES.map(({ capacity, join }) =>
      daysOf(capacity, charge - value("receive") * (value("join") - value(join))),
    ),
  };
}

async function measure({ of }: Context): Promise<BatteryFigures> {
  const { simulator, verify } = await of(wake);
  const rows = simulator
    .filter(({ server, figures }) => server === "development" && figures !== null)
    .map(({ way, protocol, figures }) => rowOf(named(way, protocol), figures!, verify));
  const nothing = {
    bytesOut: 0,
    bytesIn: 0,
    datagramsOut: 0,
    roundTrips: 0,
    requestOut: 0,
    requestIn: 0,
    sent: 0,
    answers: 0,
  };
  return { verify, rows: [...rows, rowOf("Wi-Fi alone", { ...nothing, cpu: 0 }, verify)] };
}

function report({ verify, rows }: BatteryFigures): Report {
  const full = rows[0]!;
  return {
    title: "Battery",
    parts: [
      "**A model of an ESP32, not a measurement:** no board has run it. It wakes once an hour, joins the Wi-Fi, does `crts` by one of " +
        "the ways, and sleeps. Bytes, datagrams, round trips and processor time are those of the whole wakes above.",
      "```\n" +
        "t_cpu  = CPU × t_verify / V        CPU: of the wake in the simulator; V: of a verification there, measured\n" +
        "t_tx   = 8 × (bytes out + h × datagrams out) / r\n" +
        "charge = I_cpu × t_boot + I_rx × (t_wifi + t_cpu + round trips × t_rtt) + (I_cpu − I_idle) × t_cpu + (I_tx − I_rx) × t_tx\n" +
        "days   = u × battery / (24 h × (charge / 3600 s + I_sleep + d × battery / 720 h))\n" +
        "```",
      {
        head: ["", "value", "what", "source"],
        texts: ["what", "source"],
        rows: [
          ...Object.values<Constant>(CONSTANTS).map(({ symbol, value, unit, meaning, source }) => [
            ...[symbol, `${value} ${unit}`.trim(), meaning, source],
          ]),
          ["V", `${verify.toFixed(2)} ms`, "the same in the simulator", "measured between the wakes of this run"],
        ],
      },
      {
        head: [
          ...["way", "bytes", "round trips", "CPU ms, simulator", "CPU s, ESP32", "awake s", "charge mAs", "of it EST"],
          ...BATTERIES.map(
            ({ capacity, join }) => `days, ${grouped(capacity)} mAh${join === "fast" ? ", fast Wi-Fi" : ""}`,
          ),
        ],
        rows: rows.map(({ way, bytes, roundTrips, cpu, scaled, awake, before, charge, days }) => [
          ...[way, grouped(bytes), roundTrips, cpu.toFixed(2), (scaled / 1000).toFixed(2), awake.toFixed(2)],
          ...[charge.toFixed(0), (charge - before).toFixed(0), ...days.map((number) => grouped(number))],
        ]),
      },
      `By context a wake takes ${Math.round((100 * rows.find(({ way }) => way === "context")!.charge) / full.charge)}% of the charge of a ` +
        "full one. The last row is what start and Wi-Fi take by themselves: no way back can take less. In the last " +
        `column t_wifi is ${value("fast")} s: the less the Wi-Fi takes, the more the ways differ. All of the wake's processor time is scaled ` +
        "as that of a verification is, the engine's and JavaScript's too: for the ways without public-key operations, and for what wolfSSL " +
        "computes in DTLS 1.3, that is a guess.",
    ],
  };
}

export const battery: Benchmark<BatteryFigures> = {
  name: "battery",
  about: "a model of an ESP32: days of battery at one wake an hour, by each way",
  measure,
  report,
};
