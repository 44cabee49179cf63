/**
 * Calls the natives of the simulator at random: the glue of the C core and the host's own, all of them by their names,
 * with wrong `this`, buffers of every kind, detached ones, numbers of every size, and JavaScript that runs in the middle of
 * a call and pulls away what it works on. Whatever comes, a call ends in a result or in a JavaScript error. Runs in XS, in
 * the simulator that is built with sanitizers; test/fuzz/fuzz.ts starts it.
 *
 *     simulator build/test/fuzz/natives.js --arguments DIR --state DIR --heap 0
 */

import { newDataView, Random } from "./random.js";

type Native = (...args: unknown[]) => unknown;

interface Options {
  readonly seed: number;
  readonly calls: number;
  /** The port of a server that speaks DTLS and knows the identity, on 127.0.0.1. */
  readonly port: number;
  /** Milliseconds that a live association may take. */
  readonly patience: number;
}

/** What natives.c installs: each function and each class by its name. */
const natives = Object.entries((globalThis as unknown as Record<string, Record<string, Native>>)["#natives"]!);
const classes = Object.values((globalThis as unknown as Record<string, Record<string, new () => object>>)["#classes"]!);
const byName = Object.fromEntries(natives) as Record<string, Native>;

/** They end the process, as they should. The first one has a test of its own, the second one gets its calls at the end. */
const ENDS = ["xs_host_sleep_deep", "xs_host_report"];
/** Those whose cost is in elliptic curves, or that print: called less often. */
const SLOW = ["xs_host_trace", "xs_torpor_key_generate", "xs_torpor_key_import", "xs_torpor_csr", "xs_torpor_key_sign"];
const called = natives.filter(([name]) => !ENDS.includes(name));

let random: Random;
let options: Options;
let trust: Uint8Array;
let certificate: Uint8Array;
let key: number;

// ---- values ----

const LENGTHS = [0, 1, 4, 11, 12, 13, 16, 31, 32, 33, 48, 65, 97, 112, 255, 256, 600, 1500, 4096, 70000];
const GUARD = 32;
const GUARD_BYTE = 0xa7;

/** Memory around the views that were handed out in this call: what is outside of them must stay as it is. */
let guarded: { readonly whole: Uint8Array; readonly from: number; readonly to: number }[];

/** Bytes within a larger buffer, filled with something that some native reads, or with noise. */
function bytes(): Uint8Array {
  const content = random.pick([trust, certificate, undefined, undefined]);
  const length = content === undefined ? random.pick(LENGTHS) : content.length;
  const whole = new Uint8Array(length + 2 * GUARD).fill(GUARD_BYTE);
  const view = whole.subarray(GUARD, GUARD + length);
  if (content !== undefined) {
    view.set(content);
    if (random.chance(3) && length > 0) {
      view[random.below(length)] = random.below(256);
    }
  } else {
    random.fill(view);
  }
  guarded.push({ whole, from: GUARD, to: GUARD + length });
  return view;
}

function checkGuards(name: string): void {
  for (const { whole, from, to } of guarded) {
    for (let i = 0; i < whole.length; i += i === from - 1 ? to - from + 1 : 1) {
      if (whole[i] !== GUARD_BYTE) {
        throw new Error(`${name} has written outside of the bytes that it was given: at ${i - from} of ${to - from}`);
      }
    }
  }
  guarded = [];
}

const detach = (view: Uint8Array): Uint8Array => {
  (view.buffer as unknown as { transfer(): void }).transfer();
  return view;
};

/** Objects that natives hold: some new, some in use, some at their end. Made by main, as all that changes: see there. */
let held: object[];

function anyHeld(): object {
  return held.length === 0 ? {} : random.pick(held);
}

const VIEWS = [
  Int8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
];

const NUMBERS = [
  0, -0, 1, 2, 3, 4, 5, 8, 255, 256, 384, 512, 1232, 2048, 2049, 65535, 65536, 3600000, 0x545001, 0x5450ff,
];
const ODD_NUMBERS = [
  ...[-1, -2147483648, 2147483647, 2147483648, 4294967295, 4294967296, 9007199254740991, 9007199254740992, 1e308],
  ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0.5, -0.5, 5e-324],
];
const STRINGS = [
  "",
  "a",
  "est.example.net",
  "a\0b",
  "\u{1F426}",
  "key-0",
  "../../x",
  "127.0.0.1",
  "::1",
  "x".repeat(256),
];
const LONG = "y".repeat(70000);

/** Something that runs when a native converts it, and takes away what the native may be working on. */
function trap(): object {
  const victim = random.pick(guarded)?.whole;
  const answer = random.chance(2) ? number() : random.pick(STRINGS);
  const spring = (): unknown => {
    const what = random.below(6);
    if (what === 0 && victim !== undefined && victim.byteLength > 0) {
      guarded = guarded.filter(({ whole }) => whole !== victim);
      detach(victim);
    } else if (what === 1) {
      attempt(byName.xs_torpor_dtls_free!, anyHeld(), []);
    } else if (what === 2) {
      attempt(byName.xs_host_udp_close!, anyHeld(), []);
    } else if (what === 3) {
      collect();
    } else if (what === 4) {
      throw new RangeError("sprung");
    }
    return answer;
  };
  return { valueOf: spring, toString: spring, [Symbol.toPrimitive]: random.chance(2) ? spring : undefined };
}

/** Makes garbage until XS has collected: chunks move then. */
function collect(): void {
  for (let i = 0; i < 50; i++) {
    new Uint8Array(2000);
  }
}

const number = (): number => random.pick(random.chance(3) ? ODD_NUMBERS : NUMBERS);

function value(): unknown {
  switch (random.below(24)) {
    case 0:
      return undefined;
    case 1:
      return random.pick([null, true, false, Symbol("s"), 10n, -1n << 70n]);
    case 2:
    case 3:
    case 4:
    case 5:
      return number();
    case 6:
    case 7:
      return random.chance(10) ? LONG : random.pick(STRINGS);
    case 8:
      return random.pick([{}, [], [1, 2, 3], () => 1, new Date(0), /x/, new Map(), Object.create(null)]);
    case 9:
      return detach(new Uint8Array(random.pick(LENGTHS)));
    case 10:
      return detach(new Uint8Array(random.pick(LENGTHS))).buffer;
    case 11: {
      const length = 8 * random.below(9);
      return new (random.pick(VIEWS) as new (length: number) => object)(length);
    }
    case 12:
      return newDataView(bytes());
    case 13:
      return Object.freeze([...(random.chance(2) ? [bytes()] : [])]);
    case 14:
      return new SharedArrayBuffer(random.pick(LENGTHS));
    case 15:
      return new Proxy(bytes(), {});
    case 16: {
      // The trick that XS 13 falls for: an object of the host with a length that JavaScript gives it.
      const object = random.chance(2) ? anyHeld() : new (random.pick(classes))();
      held.push(object);
      attempt(Object.defineProperty as Native, Object, [object, "byteLength", { value: 1 << 20, configurable: true }]);
      return object;
    }
    case 17:
      return anyHeld();
    case 18:
      return trap();
    case 19:
      return bytes().slice().buffer;
    default:
      return bytes();
  }
}

/** What a native takes: it gets further with these, and meets lengths that do not fit. */
const likely = (): unknown => random.pick<() => unknown>([bytes, bytes, bytes, number, () => random.pick(STRINGS)])();

/** A call that may throw what it likes, so long as that is an error of JavaScript. */
function attempt(native: Native, self: unknown, args: unknown[]): unknown {
  try {
    return native.apply(self, args);
  } catch (error) {
    if (!(error instanceof Error)) {
      throw new Error(`something was thrown that is no error: ${String(error)}`);
    }
    return undefined;
  }
}

// ---- associations ----

class Association extends (classes[0] as new () => object) {}

/** An association of the device's, ready to start or started. */
function newAssociation(start: boolean): object {
  const association = new Association();
  byName.xs_torpor_dtls_create!.call(association);
  byName.xs_torpor_dtls_trust!.call(association, trust);
  byName.xs_torpor_dtls_identity!.call(association, key, certificate);
  byName.xs_torpor_dtls_server_address!.call(association, Uint8Array.of(127, 0, 0, 1));
  if (random.chance(2)) {
    byName.xs_torpor_dtls_offer_tickets!.call(association);
  }
  if (start) {
    byName.xs_torpor_dtls_start!.call(association, 0, 0);
  }
  return association;
}

/** Datagrams that went out or came in: mutated, they are what a hostile peer sends. */
let captured: Uint8Array[];
const CAPTURED_MAX = 60;

function capture(datagram: Uint8Array): void {
  if (captured.length < CAPTURED_MAX) {
    captured.push(datagram.slice());
  } else {
    captured[random.below(CAPTURED_MAX)] = datagram.slice();
  }
}

/** A datagram with some bytes changed, cut or doubled; one of a server's by its type of message where it is a hello. */
function hostile(): Uint8Array {
  if (captured.length === 0 || random.chance(8)) {
    return random.fill(new Uint8Array(random.below(200)));
  }
  const source = random.pick(captured);
  const datagram = source.slice(0, random.chance(3) ? random.below(source.length + 1) : source.length);
  for (let flips = random.below(4); flips > 0 && datagram.length > 0; flips--) {
    datagram[random.below(random.chance(2) ? Math.min(30, datagram.length) : datagram.length)] = random.below(256);
  }
  if (datagram.length > 13 && datagram[13] === 1 && random.chance(2)) {
    datagram[13] = random.pick([0, 2, 3, 11, 12, 13, 14, 16, 20]);
  }
  return datagram;
}

let room: Uint8Array;

function takeAll(association: object): Uint8Array[] {
  const all: Uint8Array[] = [];
  for (;;) {
    const length = attempt(byName.xs_torpor_dtls_take!, association, [room]);
    if (typeof length !== "number" || length <= 0) {
      return all;
    }
    const datagram = room.slice(0, length);
    capture(datagram);
    all.push(datagram);
    if (all.length > 100) {
      throw new Error("an association that sends without end");
    }
  }
}

/** One peer that no server plays: hostile datagrams at random times, until the association has ended. */
function strangePeer(): void {
  const association = newAssociation(true);
  let now = 0;
  for (let i = random.below(12); i >= 0; i--) {
    takeAll(association);
    now += random.below(9000);
    attempt(byName.xs_torpor_dtls_receive!, association, [now, hostile()]);
    attempt(byName.xs_torpor_dtls_elapse!, association, [random.chance(8) ? 0 : now]);
    attempt(byName.xs_torpor_dtls_read!, association, [room]);
  }
  if (random.chance(2)) {
    held.push(association);
  } else {
    attempt(byName.xs_torpor_dtls_free!, association, []);
  }
}

// ---- calls ----

function renewHeld(): void {
  while (held.length > 12) {
    const [gone] = held.splice(random.below(held.length), 1);
    attempt(byName.xs_host_udp_close!, gone, []);
    if (random.chance(2)) {
      attempt(byName.xs_torpor_dtls_free!, gone, []); // otherwise the collector finds it
    }
  }
  const kind = random.below(4);
  if (kind < 2) {
    held.push(newAssociation(kind === 1));
  } else if (kind === 2) {
    const object = new (random.pick(classes))();
    attempt(byName.xs_host_udp_create!, object, [undefined, 0]);
    held.push(object);
  } else {
    const timer = attempt(byName.xs_host_timer_set!, undefined, [() => {}, 1e6, 0]);
    if (timer !== undefined) {
      held.push(timer as object);
    }
  }
}

const selves = (): unknown => (random.chance(4) ? value() : anyHeld());

function oneCall(): void {
  const [name, native] = random.pick(called);
  if (SLOW.includes(name) && !random.chance(8)) {
    return;
  }
  const args: unknown[] = [];
  const any = random.chance(2) ? value : likely;
  for (let count = random.below(6); count > 0; count--) {
    args.push(any());
  }
  attempt(native, selves(), args);
  checkGuards(name);
}

// ---- live associations, over UDP with a server ----

interface Socket {
  write(datagram: Uint8Array): void;
  close(): void;
}

class Udp extends (classes[1] as new () => object) {}

function openSocket(onDatagram: (datagram: Uint8Array) => void): Socket {
  const udp = new Udp();
  byName.xs_host_udp_create!.call(
    udp,
    () => {
      for (;;) {
        const datagram = attempt(byName.xs_host_udp_read!, udp, []) as ArrayBuffer | undefined; // it may be closed
        if (datagram === undefined) {
          return;
        }
        onDatagram(new Uint8Array(datagram));
      }
    },
    0,
  );
  return {
    write: (datagram) => byName.xs_host_udp_write!.call(udp, datagram, "127.0.0.1", options.port),
    close: () => byName.xs_host_udp_close!.call(udp),
  };
}

const OPEN = 2;

/** Opens an association with the server, and calls natives on it at random while messages go both ways. */
function live(done: (opened: boolean) => void): void {
  const association = newAssociation(true);
  let opened = false;
  let rounds = 0;
  const disturbed = random.chance(3);
  const flush = (): void => {
    for (const datagram of takeAll(association)) {
      socket.write(datagram);
    }
  };
  const received = (datagram: Uint8Array): void => {
    capture(datagram);
    attempt(byName.xs_torpor_dtls_receive!, association, [1, datagram]);
    if (disturbed && random.chance(2)) {
      attempt(byName.xs_torpor_dtls_receive!, association, [1, hostile()]);
    }
    flush();
    if (attempt(byName.xs_torpor_dtls_state!, association, []) === OPEN) {
      opened = true;
      held.push(association);
      for (let i = 0; i < 20; i++) {
        const [name, native] = random.pick(called.filter(([one]) => one.startsWith("xs_torpor_dtls")));
        const args = Array.from({ length: random.below(4) }, value);
        attempt(native, association, args);
        checkGuards(name);
        if (random.chance(3)) {
          flush();
        }
      }
      // A CoAP ping (RFC 7252 section 4.3), which the server answers: the next datagram.
      attempt(byName.xs_torpor_dtls_write!, association, [Uint8Array.of(0x40, 0, 1, rounds)]);
      flush();
    }
    if (++rounds >= 12) {
      end();
    }
  };
  const socket = openSocket((datagram) => guard(() => received(datagram)));
  const end = (): void => {
    byName.xs_host_timer_clear!(timer);
    socket.close();
    attempt(byName.xs_torpor_dtls_close!, association, []);
    takeAll(association);
    attempt(byName.xs_torpor_dtls_free!, association, []);
    done(opened);
  };
  const timer = byName.xs_host_timer_set!(() => guard(end), options.patience, 0);
  flush();
}

// ---- the run ----

/** Calls of one turn, and turns for each live association. */
const CALLS_A_TURN = 200;
const TURNS_A_LIVE = 6;

let made = 0;
let turns = 0;
let opened = 0;
let tried = 0;

/** Timers that calls have set go on by themselves; this one starts the next turn. */
const later = (callback: () => void): unknown => byName.xs_host_timer_set!(callback, 0, 0);

function guard(body: () => void): void {
  try {
    body();
  } catch (error) {
    finish((error as Error).stack ?? String(error));
  }
}

function finish(failure?: string): void {
  for (let i = 0; i < 50; i++) {
    attempt(byName.xs_host_report!, value(), [value(), value()]);
  }
  const line = { calls: made, natives: called.length, associations: tried, opened, failure };
  byName.xs_host_report!(JSON.stringify(line), failure === undefined ? 0 : 1);
}

function turn(): void {
  guard(() => {
    for (let i = 0; i < CALLS_A_TURN; i++, made++) {
      if (i % 20 === 0) {
        renewHeld();
      }
      oneCall();
    }
    strangePeer();
    turns++;
    if (made >= options.calls) {
      finish();
    } else if (turns % TURNS_A_LIVE === 0) {
      // Sockets that calls have opened: a device has few, and the live association needs one.
      for (const object of held) {
        attempt(byName.xs_host_udp_close!, object, []);
      }
      tried++;
      live((ok) => {
        opened += ok ? 1 : 0;
        later(turn);
      });
    } else {
      later(turn);
    }
  });
}

const file = (name: string): Uint8Array => new Uint8Array(byName.xs_host_file!(name) as ArrayBuffer);

export default function main(): void {
  later(() =>
    guard(() => {
      const text = byName.xs_host_option!() as ArrayBuffer;
      options = JSON.parse((String as unknown as { fromArrayBuffer(b: ArrayBuffer): string }).fromArrayBuffer(text));
      // What modules make while they are loaded cannot be changed on a device: it is in ROM.
      random = new Random(options.seed);
      held = [];
      captured = [];
      guarded = [];
      room = new Uint8Array(2048);
      trust = file("trust-0");
      certificate = file("certificate-0");
      key = byName.xs_torpor_key_import!(0, file("key-0")) as number;
      turn();
    }),
  );
}
