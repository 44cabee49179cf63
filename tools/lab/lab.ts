/**
 * The simulated device, the network before it and its server, as the lab's page sees them: does what the page asks for
 * and keeps what there is to show. All that it knows of the device comes from its command line and its table's reader.
 *
 *     const lab = await Lab.start({ scratch, state: undefined });
 *     lab.watch(() => show(lab.view()));
 *     lab.act({ action: "wake", operation: "run" });
 */

import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { WakeLine } from "../../hosts/node/result.js";
import { type ListedSlot, readSlots, sessionsText } from "../../hosts/node/sessions.js";
import { deviceHeap } from "../../hosts/node/simulator.js";
import { span } from "../../hosts/node/span.js";
import { statusLines } from "../../hosts/node/status.js";
import { textOf } from "../../hosts/node/text.js";
import type { Status } from "../../src/enrollment/status.js";
import { type EstServer, startEstServer } from "../est-server/server.js";
import { type Recorded, Relay } from "../relay.js";
import { MOVED } from "../timeline.js";
import { startTorpor, type TorporProcess } from "../wake-process.js";
import type { Action, Armed, DatagramView, LabView, Resume, SlotView, WakeView } from "./page/view.js";

/** Wakes that are shown; the oldest go. */
const WAKES_MAX = 12;

/** Datagrams of a wake that are shown: a wake of a minute under loss stays far below. */
const DATAGRAMS_MAX = 400;

/** Seconds that a session may be used for, as the command line has it. */
const TTL = 86400;

/** Shorter than a device has them: whoever looks at the page waits. */
const TIMERS = ["--handshake-timer", "1", "--context-patience", "1"];

const HANDSHAKE = [20, 22];
const ALERT = 21;

export interface LabOptions {
  /** A folder for what is of no use after the end. */
  readonly scratch: string;
  /** The folder of the device; in `scratch` where there is none. */
  readonly state: string | undefined;
}

/** What was asked for cannot be done now; the message says why. */
export class RefusedError extends Error {}

type Writable<T> = { -readonly [K in keyof T]: T[K] };
type Wake = Writable<WakeView> & { datagrams: DatagramView[] };

export class Lab {
  readonly #state: string;
  readonly #ca: string;
  readonly #temporary: string;
  readonly #relay: Relay;
  readonly #watchers = new Set<() => void>();
  readonly #wakes: Wake[] = [];
  readonly #armed = new Set<Armed>();
  #server: EstServer;
  #count = 0;
  #loss = 0;
  #resume: Resume = "context";
  #device: LabView["device"] = "asleep";
  #process: TorporProcess | undefined;
  /** What is being done to the device, while it is. */
  #busy: Promise<void> | undefined;
  #isClosed = false;
  #status: Status | undefined;
  #statusProblem = "";
  #slots: ListedSlot[] = [];
  #outcome: LabView["outcome"] = { text: "The device lies as the factory left it. Wake it.", isError: false };
  /** When the first datagram of this wake was there. */
  #first: number | undefined;
  /** Bytes of the latest full handshake. */
  #full: number | undefined;

  private constructor(options: LabOptions, ca: string, server: EstServer, relay: Relay) {
    this.#state = options.state ?? join(options.scratch, "device");
    this.#temporary = join(options.scratch, "wake");
    this.#ca = ca;
    this.#server = server;
    this.#relay = relay;
    relay.pass = (datagram) => this.#pass(datagram);
    mkdirSync(this.#state, { recursive: true, mode: 0o700 });
    mkdirSync(this.#temporary, { recursive: true });
  }

  static async start(options: LabOptions): Promise<Lab> {
    // A device that is kept needs the CA that it was enrolled with: the server's folder lies beside its own.
    const ca = options.state === undefined ? join(options.scratch, "est-server") : `${options.state}-est-server`;
    const server = await startEstServer({ dir: ca });
    const lab = new Lab(options, ca, server, await Relay.to(server.port));
    await lab.#look();
    if (lab.#status?.certificate !== undefined) {
      lab.#outcome = { text: "The device sleeps, with the memory of its last wake. Wake it.", isError: false };
    }
    return lab;
  }

  /** Calls back at each change, until the function that is returned is called. */
  watch(changed: () => void): () => void {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  }

  view(): LabView {
    if (this.#busy === undefined) {
      this.#readSlots();
    }
    const status = this.#status;
    return {
      server: `coaps://127.0.0.1:${this.#relay.port}`,
      folder: this.#state,
      device: this.#device,
      isBusy: this.#busy !== undefined,
      status: status === undefined ? [["identity", this.#statusProblem]] : statusLines(status),
      ...(status?.certificate !== undefined && {
        validity: {
          notBefore: status.certificate.notBefore,
          notAfter: status.certificate.notAfter,
          next: status.at,
          now: status.now,
        },
      }),
      slots: this.#slots.map(slotView),
      sessionsText: sessionsText(
        this.#slots.flatMap(({ content, session }) => (content === "session" && session ? [session] : [])),
      ),
      heapLimit: deviceHeap(),
      resume: this.#resume,
      loss: this.#loss,
      armed: [...this.#armed],
      wakes: this.#wakes,
      outcome: this.#outcome,
    };
  }

  /** Does what the page asks for; a wake goes on after it. @throws RefusedError */
  act(action: Action): void {
    switch (action.action) {
      case "wake":
        this.#begin(() => this.#wake(action.operation));
        break;
      case "reset":
        this.#begin(() => this.#reset());
        break;
      case "restart":
        this.#begin(() => this.#restart());
        break;
      case "cut":
        if (this.#process === undefined || this.#device !== "awake") {
          throw new RefusedError("the device is asleep: there is no wake to cut off");
        }
        this.#cut();
        break;
      case "forget": {
        const { associations } = this.#server.stats;
        this.#server.forget();
        this.#say(
          `the server has forgotten ${associations} association${associations === 1 ? "" : "s"}, without a word; ` +
            "it still resumes sessions",
        );
        break;
      }
      case "resume":
        this.#resume = action.way;
        break;
      case "loss":
        this.#loss = action.percent;
        break;
      case "arm":
        if (!this.#armed.delete(action.what)) {
          this.#armed.add(action.what);
        }
        break;
    }
    this.#changed();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#process?.cut();
    await this.#busy;
    this.#relay.close();
    await this.#server.close();
  }

  // ---- what is done ----

  #begin(what: () => Promise<void>): void {
    if (this.#busy !== undefined || this.#isClosed) {
      throw new RefusedError(
        this.#device === "awake"
          ? "the device is awake: one device does one wake at a time"
          : "the lab is not done with what was asked for before",
      );
    }
    this.#busy = what()
      .catch((error: Error) => this.#say(error.message, "error"))
      .finally(() => {
        this.#busy = undefined;
        this.#changed();
      });
  }

  async #wake(operation: string): Promise<void> {
    const common = ["--server", `coaps://127.0.0.1:${this.#relay.port}`, "--state", this.#state, "--host", "simulator"];
    const chosen = this.#resume === "context" ? [] : ["--resume", this.#resume];
    const identity = ["ca.pem", "factory.pem", "factory.key"].map((name) => join(this.#ca, name));
    const [trust, certificate, key] = identity as [string, string, string];
    const files = ["--trust", trust, "--cert", certificate, "--key", key];
    const wake: Wake = {
      id: ++this.#count,
      command: ["torpor", operation, ...chosen, ...common, ...TIMERS, ...files].join(" "),
      called: ["torpor", operation, ...chosen].join(" "),
      operation,
      state: "awake",
      datagrams: [],
      text: "",
    };
    this.#wakes.push(wake);
    this.#wakes.splice(0, this.#wakes.length - WAKES_MAX);
    this.#device = "awake";
    this.#first = undefined;
    // What the server still has for the wake before is not for this one; and the device comes from a new port anyway.
    this.#relay.rest();
    this.#relay.forget();
    const { moved } = this.#server.stats;
    this.#process = startTorpor([operation, ...chosen, ...common, ...TIMERS, ...files, "--json"], this.#temporary);
    try {
      const line = JSON.parse(await this.#process.output) as WakeLine;
      this.#finish(wake, line, this.#server.stats.moved > moved);
    } catch (error) {
      if ((wake.state as WakeView["state"]) !== "cut") {
        wake.state = "failed";
        wake.text = (error as Error).message;
      }
    }
    this.#process = undefined;
    const { text, called, command } = wake;
    this.#outcome = { text, called, command, isError: wake.state === "failed" };
    this.#device = wake.state === "cut" ? "power cut" : "asleep";
    // A wake that was cut off could not take its arguments away, the factory's key among them.
    for (const left of readdirSync(this.#temporary)) {
      rmSync(join(this.#temporary, left), { recursive: true, force: true });
    }
    await this.#look();
  }

  #finish(wake: Wake, line: WakeLine, hasMoved: boolean): void {
    const { way, handshake, application, ms, heap, operations } = line;
    const bytes = handshake.bytesOut + handshake.bytesIn;
    if (way === "full") {
      this.#full = bytes;
    }
    wake.state = "done";
    wake.text = [textOf(line), ...(hasMoved ? [MOVED] : [])].join("\n");
    if (operations.length > 0) {
      const percent = this.#full === undefined ? {} : { percent: Math.round((100 * bytes) / this.#full) };
      wake.figures = { way, handshake, application, ms, heap, ...percent };
    }
  }

  async #reset(): Promise<void> {
    const args = ["reset", "--state", this.#state];
    const text = await startTorpor(args, this.#temporary).output;
    this.#outcome = { text, called: "torpor reset", command: ["torpor", ...args].join(" "), isError: false };
    this.#device = "asleep";
    this.#wakes.length = 0;
    this.#count = 0;
    this.#full = undefined;
    await this.#look();
  }

  async #restart(): Promise<void> {
    const { port } = this.#server;
    await this.#server.close();
    this.#server = await startEstServer({ dir: this.#ca, port });
    this.#say("the server was started anew: it knows neither associations nor sessions, and no ticket of before");
  }

  #cut(): void {
    const wake = this.#wakes.at(-1)!;
    const { length } = wake.datagrams;
    wake.state = "cut";
    wake.text = `power cut after ${length} datagram${length === 1 ? "" : "s"}: the wake was killed where it was`;
    this.#process!.cut();
  }

  // ---- what is seen ----

  /** Once for each datagram: how often it is passed on. */
  #pass({ direction, bytes }: Recorded): number {
    const wake = this.#wakes.at(-1);
    if (this.#device !== "awake" || wake?.state !== "awake") {
      return 1;
    }
    const now = performance.now();
    this.#first ??= now;
    const type = bytes[0]!;
    const kind = HANDSHAKE.includes(type) ? "handshake" : type === ALERT ? "alert" : "application";
    const isCut = this.#armed.delete("cut");
    const isLost = this.#armed.delete("lose") || Math.random() * 100 < this.#loss;
    if (wake.datagrams.length < DATAGRAMS_MAX) {
      wake.datagrams.push({ at: now - this.#first, direction, bytes: bytes.length, kind, isLost: isLost || isCut });
    }
    // A handshake is bound to its port; what comes after it is not, where there is a connection ID.
    if (direction === "in" && !isLost && type !== 22 && this.#armed.delete("move")) {
      this.#relay.rest();
    }
    if (isCut) {
      this.#cut();
    }
    this.#readSlots();
    this.#changed();
    return isLost || isCut ? 0 : 1;
  }

  /** Asks for the status and reads the table. */
  async #look(): Promise<void> {
    try {
      const { output } = startTorpor(["status", "--state", this.#state, "--json"], this.#temporary);
      this.#status = JSON.parse(await output) as Status;
    } catch (error) {
      this.#status = undefined;
      this.#statusProblem = (error as Error).message;
    }
    this.#readSlots();
    this.#changed();
  }

  #readSlots(): void {
    try {
      const slots = readSlots(this.#state, TTL);
      // While the device writes a slot, it is not sound for a moment.
      if (this.#device !== "awake" || slots.every(({ content }) => content !== "unsound")) {
        this.#slots = slots;
      }
    } catch (error) {
      this.#say((error as Error).message, "error");
    }
  }

  #say(text: string, what: "outcome" | "error" = "outcome"): void {
    this.#outcome = { text, isError: what === "error" };
  }

  #changed(): void {
    for (const changed of this.#watchers) {
      changed();
    }
  }
}

function slotView({ session, ...slot }: ListedSlot): SlotView {
  return session === undefined
    ? slot
    : { ...slot, session: { ...session, ageText: span(session.age), leftText: span(session.left) } };
}
