/**
 * The session table as a person reads it: who can be come back to, how, for how long. Shows no secret, changes nothing.
 *
 *     process.stdout.write(sessionsText(readSessions("./device", 86400)));
 */

import { readUint } from "../../src/bytes.js";
import { buildFingerprint } from "../../src/dtls/engine.js";
import { FlashBytes } from "../../src/session/flash.js";
import { SEAL_BYTES, type Sealer } from "../../src/session/seal.js";
import { SessionTable, SLOT_OVERHEAD_BYTES } from "../../src/session/table.js";
import { span } from "./span.js";
import { DeviceState } from "./storage.js";

/** Bytes of the header of a table, as it is stored in flash under this key: enough to tell the geometry. */
const FLASH_HEADER = "sessions";

export interface ListedSession {
  /** Where it is kept. */
  readonly in: "retained" | "flash";
  readonly sealed: boolean;
  readonly peer: string;
  /** The ways back, the cheapest first. */
  readonly ways: readonly ("context" | "session" | "ticket")[];
  /** Whether the context was used by a wake that did not keep it again: only the session serves. */
  readonly contextUsed: boolean;
  readonly protocol: string;
  /** Seconds. */
  readonly age: number;
  readonly left: number;
  /** Bytes of the slot that are taken up by the session, without its certificate. */
  readonly bytes: number;
}

/** A slot of a table as it lies there, whether its session still serves or not. */
export interface ListedSlot {
  /** From 0, by its place. */
  readonly slot: number;
  readonly slotBytes: number;
  /** Counts what was put into the table; 0 for an empty slot. */
  readonly generation: number;
  /** "unsound": half written, decayed, or of another build; the next wake wipes it. */
  readonly content: "empty" | "session" | "expired" | "unsound";
  /** Bytes of the slot that are taken up: its head, the session and the certificate. */
  readonly bytes?: number;
  /** Where there is one, expired or not. */
  readonly session?: ListedSession;
}

/** Opens everything: what is listed lies in the clear, the rest is not looked at. */
const blind: Sealer = {
  seal: () => {},
  unseal: () => true,
};

function slotsOf(bytes: Uint8Array, where: ListedSession["in"], ttl: number): ListedSlot[] {
  const geometry = SessionTable.geometryOf(bytes);
  const length = SessionTable.byteLength(geometry);
  if (geometry === undefined || bytes.length < length) {
    return [];
  }
  const { slots, slotBytes } = geometry;
  const now = Date.now();
  const listed = Array.from({ length: slots }, (_, slot): ListedSlot => {
    // Where the header ends that has so many slots, the state of the next one begins: see table.ts.
    const state = readUint(bytes, SessionTable.headerLength(slot), 4);
    return { slot, slotBytes, generation: Math.floor(state / 2), content: state === 0 ? "empty" : "unsound" };
  });
  for (const seal of [undefined, blind]) {
    // On a copy: opening wipes what is not sound. At its own highest time, so that what has expired since is there.
    const copy = bytes.slice(0, length);
    const options = {
      ...geometry,
      ttl: Number.MAX_SAFE_INTEGER,
      clock: () => 0,
      fingerprint: buildFingerprint(),
      seal,
    };
    for (const session of new SessionTable(copy, options).sessions()) {
      // The hash is a view of the slot in any table, the data only of one that is not sealed.
      const at = session.clientCertHash.byteOffset - SessionTable.headerLength(slots);
      const { peer, kind, isContext, isUsed, protocol, created, lifetime, data, clientCert } = session;
      const left = Math.floor((lifetime > 0 ? Math.min(lifetime, ttl) : ttl) - (now - created) / 1000);
      const around = SLOT_OVERHEAD_BYTES + (seal === undefined ? 0 : SEAL_BYTES);
      const index = Math.floor(at / slotBytes);
      listed[index] = {
        ...listed[index]!,
        content: left < 0 || ttl === 0 ? "expired" : "session",
        bytes: around + data.length + (clientCert?.length ?? 0),
        session: {
          in: where,
          sealed: seal !== undefined,
          peer: peer.address.includes(":") ? `[${peer.address}]:${peer.port}` : `${peer.address}:${peer.port}`,
          ways: [...(isContext && !isUsed ? (["context"] as const) : []), ...(kind === "none" ? [] : [kind])],
          contextUsed: isContext && isUsed,
          protocol,
          age: Math.floor((now - created) / 1000),
          left: Math.max(0, left),
          bytes: data.length,
        },
      };
    }
  }
  return listed;
}

/** Those of both tables, the one in retained memory first. @throws StorageError */
export function readSlots(folder: string, ttl: number): ListedSlot[] {
  const state = DeviceState.existing(folder);
  const store = state.open("torpor");
  const header = store.read(FLASH_HEADER);
  const retained = state.peek();
  const listed = retained === undefined ? [] : slotsOf(retained, "retained", ttl);
  const geometry = header && SessionTable.geometryOf(new Uint8Array(header));
  return geometry === undefined ? listed : [...listed, ...slotsOf(new FlashBytes(store, geometry).bytes, "flash", ttl)];
}

/** The sessions of the device in `folder`, those included that only a table in flash has. @throws StorageError */
export function readSessions(folder: string, ttl: number): ListedSession[] {
  return readSlots(folder, ttl).flatMap(({ content, session }) =>
    content === "session" && session !== undefined ? [session] : [],
  );
}

const WAYS = { context: "context", session: "session id", ticket: "ticket" } as const;

/** One line for each session, under a head. */
export function sessionsText(sessions: readonly ListedSession[]): string {
  if (sessions.length === 0) {
    return "no sessions: the next wake makes a full handshake";
  }
  const rows = sessions.map(({ peer, ways, contextUsed, age, left, bytes, sealed, ...rest }) => [
    peer,
    `${ways.map((way) => WAYS[way]).join(", ") || "none"}${contextUsed ? " (context used)" : ""}`,
    span(age),
    span(left),
    String(bytes),
    `${rest.in}${sealed ? ", sealed" : ""}`,
  ]);
  const all = [["server", "ways back", "age", "time left", "bytes", "kept"], ...rows];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
