/**
 * What the session table and a plain Map take for the same sessions: one loop for Node.js and for XS (xs-sessions.ts).
 *
 *     const times = timesOf(tableStore(clock, bytes), { rounds: 1000, now });
 */

import { SessionTable } from "../../src/session/table.js";

/** As many as the table of a device holds. */
export const SESSIONS = 4;

/** What a session by session id takes (README.md). */
const DATA_BYTES = 143;

type Session = Parameters<SessionTable["insert"]>[0];
type Peer = Session["peer"];

export interface SessionStore {
  insert(session: Session): void;
  get(peer: Peer): object | undefined;
  remove(peer: Peer): unknown;
}

/** Nanoseconds for one call. */
export interface Times {
  readonly insert: number;
  readonly get: number;
  readonly remove: number;
}

/** As src/enrollment/wake.ts makes it, in ordinary memory. */
export function tableStore(clock: { readonly time: number | undefined }): SessionStore {
  const geometry = { slots: SESSIONS, slotBytes: 512 };
  return new SessionTable(new Uint8Array(SessionTable.byteLength(geometry)), { ...geometry, clock });
}

/** The same sessions as objects under their peers; the bytes are copied, for the caller's buffer is used again. */
export function mapStore(): SessionStore {
  const map = new Map<string, Session>();
  const key = ({ address, port }: Peer): string => `${address} ${port}`;
  return {
    insert: (session) =>
      void map.set(key(session.peer), {
        ...session,
        data: session.data.slice(),
        clientCertHash: session.clientCertHash.slice(),
      }),
    get: (peer) => map.get(key(peer)),
    remove: (peer) => map.delete(key(peer)),
  };
}

export const sessionOf = (number: number): Session => ({
  peer: { address: "192.0.2.1", port: 1 + number },
  kind: "session",
  data: new Uint8Array(DATA_BYTES),
  clientCertHash: new Uint8Array(32),
  protocol: "DTLS 1.2",
});

/** @param now milliseconds, of processor time or of a clock */
export function timesOf(store: SessionStore, { rounds, now }: { rounds: number; now: () => number }): Times {
  const sessions = Array.from({ length: SESSIONS }, (_, number) => sessionOf(number));
  const sums = { insert: 0, get: 0, remove: 0 };
  for (let round = 0; round < rounds; round++) {
    const begun = now();
    for (const session of sessions) {
      store.insert(session);
    }
    const inserted = now();
    for (const { peer } of sessions) {
      if (store.get(peer) === undefined) {
        throw new Error(`no session of port ${peer.port}`);
      }
    }
    const got = now();
    for (const { peer } of sessions) {
      store.remove(peer);
    }
    sums.remove += now() - got;
    sums.insert += inserted - begun;
    sums.get += got - inserted;
  }
  const each = (sum: number): number => (sum * 1e6) / (rounds * SESSIONS);
  return { insert: each(sums.insert), get: each(sums.get), remove: each(sums.remove) };
}
