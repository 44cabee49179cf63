/**
 * The session table as a person reads it: who can be come back to, how, for how long. Shows no secret, changes nothing.
 *
 *     process.stdout.write(sessionsText(readSessions("./device", 86400)));
 */

import { buildFingerprint } from "../../src/dtls/engine.js";
import { FlashBytes } from "../../src/session/flash.js";
import type { Sealer } from "../../src/session/seal.js";
import { SessionTable, type StoredSession } from "../../src/session/table.js";
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

/** Opens everything: what is listed lies in the clear, the rest is not looked at. */
const blind: Sealer = {
  seal: () => {},
  unseal: () => true,
};

function list(bytes: Uint8Array, where: ListedSession["in"], ttl: number): ListedSession[] {
  const geometry = SessionTable.geometryOf(bytes);
  const length = SessionTable.byteLength(geometry);
  if (geometry === undefined || bytes.length < length) {
    return [];
  }
  const now = Date.now();
  const open = (seal?: Sealer): StoredSession[] => {
    // On a copy: opening wipes what is not sound.
    const copy = bytes.slice(0, length);
    const options = { ...geometry, ttl, clock: () => now, fingerprint: buildFingerprint(), seal };
    return [...new SessionTable(copy, options).sessions()];
  };
  const describe =
    (sealed: boolean) =>
    ({ peer, kind, isContext, isUsed, protocol, created, lifetime, data }: StoredSession): ListedSession => ({
      in: where,
      sealed,
      peer: peer.address.includes(":") ? `[${peer.address}]:${peer.port}` : `${peer.address}:${peer.port}`,
      ways: [...(isContext && !isUsed ? (["context"] as const) : []), ...(kind === "none" ? [] : [kind])],
      contextUsed: isContext && isUsed,
      protocol,
      age: Math.floor((now - created) / 1000),
      left: Math.max(0, Math.floor((lifetime > 0 ? Math.min(lifetime, ttl) : ttl) - (now - created) / 1000)),
      bytes: data.length,
    });
  return [...open().map(describe(false)), ...open(blind).map(describe(true))];
}

/** The sessions of the device in `folder`, those included that only a table in flash has. @throws StorageError */
export function readSessions(folder: string, ttl: number): ListedSession[] {
  const state = DeviceState.existing(folder);
  const store = state.open("torpor");
  const header = store.read(FLASH_HEADER);
  const retained = state.peek();
  const listed = retained === undefined ? [] : list(retained, "retained", ttl);
  const geometry = header && SessionTable.geometryOf(new Uint8Array(header));
  return geometry === undefined ? listed : [...listed, ...list(new FlashBytes(store, geometry).bytes, "flash", ttl)];
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
