/**
 * What the lab tells its page: all of it, each time that something has changed. Types alone, for both sides.
 *
 *     const view = JSON.parse(event.data) as LabView;
 */

/** What the page may ask for, as the body of a POST to /action. */
export type Action =
  | { readonly action: "wake"; readonly operation: "run" | "crts" | "sren" }
  | { readonly action: "resume"; readonly way: Resume }
  | { readonly action: "loss"; readonly percent: number }
  | { readonly action: "arm"; readonly what: Armed }
  | { readonly action: "cut" | "forget" | "restart" | "reset" };

export type Resume = "context" | "session" | "ticket" | "none";

/** What happens once, at the next datagram: it is lost; the device's power is cut; the device has another port after it. */
export type Armed = "lose" | "cut" | "move";

export interface DatagramView {
  /** Milliseconds since the first datagram of the wake. */
  readonly at: number;
  readonly direction: "out" | "in";
  readonly bytes: number;
  readonly kind: "handshake" | "application" | "alert";
  readonly isLost: boolean;
}

export interface HeapView {
  readonly xsPeak: number;
  readonly dtlsPeak: number;
  readonly xs?: { readonly slots: number; readonly chunks: number; readonly stack: number };
}

export interface WakeView {
  /** From 1, as the lab counts. */
  readonly id: number;
  /** As one types it, and its beginning. */
  readonly command: string;
  readonly called: string;
  readonly operation: string;
  readonly state: "awake" | "done" | "failed" | "cut";
  readonly datagrams: readonly DatagramView[];
  /** What the command line says of it. */
  readonly text: string;
  /** Where the wake came to its end: its figures. */
  readonly figures?: {
    readonly way: "full" | "session" | "ticket" | "context" | null;
    readonly handshake: { readonly bytesOut: number; readonly bytesIn: number; readonly roundTrips: number };
    readonly application: { readonly bytesOut: number; readonly bytesIn: number };
    readonly ms: number;
    readonly heap: HeapView;
    /** Bytes of its handshake in percent of those of the latest full one. */
    readonly percent?: number;
  };
}

export interface SlotView {
  readonly slot: number;
  readonly slotBytes: number;
  readonly generation: number;
  readonly content: "empty" | "session" | "expired" | "unsound";
  readonly bytes?: number;
  readonly session?: {
    readonly in: string;
    readonly sealed: boolean;
    readonly peer: string;
    readonly ways: readonly string[];
    readonly contextUsed: boolean;
    readonly protocol: string;
    /** Seconds. */
    readonly age: number;
    readonly left: number;
    /** The two as people say them. */
    readonly ageText: string;
    readonly leftText: string;
  };
}

export interface OutcomeView {
  readonly text: string;
  readonly isError: boolean;
  /** Where it was a command: its beginning, and all of it. */
  readonly called?: string;
  readonly command?: string;
}

export interface LabView {
  readonly server: string;
  readonly folder: string;
  readonly device: "asleep" | "awake" | "power cut";
  /** Whether something is being done to it or to the server: nothing else can be, but for a cut. */
  readonly isBusy: boolean;
  /** What `torpor status` says, a name and a value for each line. */
  readonly status: readonly (readonly [string, string])[];
  /** Seconds since 1970. */
  readonly validity?: {
    readonly notBefore: number;
    readonly notAfter: number;
    readonly next: number;
    readonly now: number;
  };
  readonly slots: readonly SlotView[];
  /** What `torpor sessions` says. */
  readonly sessionsText: string;
  /** Bytes that the device has for each of XS and mbedTLS. */
  readonly heapLimit: number;
  readonly resume: Resume;
  /** Percent of datagrams that are lost, in either direction. */
  readonly loss: number;
  readonly armed: readonly Armed[];
  /** The newest last. */
  readonly wakes: readonly WakeView[];
  /** The outcome of what was asked for last. */
  readonly outcome: OutcomeView;
}
