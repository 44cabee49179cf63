/**
 * An app written against the public types alone must compile, with the SDK's typings; wrong use must not. Nothing runs
 * here: `npm test` compiles it.
 */

import UDP from "embedded:io/socket/udp";
import Timer from "timer";
import {
  type Clock,
  CoAPClient,
  type DTLSCredentials,
  DTLSSocket,
  ESTClient,
  generateKey,
  type KeyValueStore,
  SessionTable,
  type SocketDictionary,
  TimeoutError,
  type UDPConstructor,
} from "torpor";
import { network, openDevice, Store } from "torpor/device";

declare const certificate: Uint8Array;
const clock: Clock = { ticks: 0, time: undefined };
const secure: DTLSCredentials = { trustAnchors: [certificate], certificates: [certificate], key: generateKey(0) };
const timer = { set: (callback: () => void, delay: number) => Timer.set(callback, delay), clear: () => {} };
const table = new SessionTable(new Uint8Array(SessionTable.byteLength({ slots: 4, slotBytes: 512 })), { clock });

// ---- right: dictionaries that compose ----

const dtls: SocketDictionary<typeof DTLSSocket, "address" | "port" | "secure"> = {
  io: DTLSSocket,
  socket: { io: UDP as unknown as UDPConstructor },
  timer,
  clock,
  sessions: table,
};
const socket = { ...dtls, address: "192.0.2.1", port: 5684, host: "est.example.net", secure };
const coap = new CoAPClient({ socket, timer, blockSize: 512 });
const est = new ESTClient({ coap });
export const anchors: Promise<readonly Uint8Array[]> = est.caCertificates().then(({ certificates }) => certificates);

const { coaps } = network;
new coaps.io({ ...coaps, socket: { ...coaps.socket, address: "192.0.2.1", port: 5684, secure } });

export const direct: DTLSSocket = new DTLSSocket({
  ...socket,
  target: { buffer: new Uint8Array(1024) },
  onReadable(count: number) {
    for (; count > 0; count--) {
      direct.read(new Uint8Array(64));
    }
  },
  onWritable() {
    direct.write(Uint8Array.of(1));
  },
  onError(error) {
    if (error instanceof TimeoutError) {
      direct.close();
    }
  },
});

const store: KeyValueStore = new Store("app");
const value: ArrayBuffer | undefined = store.read("setting");
openDevice().sleep(60, value === undefined ? "failed" : "done");

// ---- wrong ----

// @ts-expect-error no clock, no credentials
new DTLSSocket({ address: "192.0.2.1", port: 5684, socket: { io: UDP as unknown as UDPConstructor }, timer });
// @ts-expect-error a port is a number
new DTLSSocket({ ...socket, port: "5684" });
// @ts-expect-error a way to resume that there is not
new DTLSSocket({ ...socket, resume: "psk" });
// @ts-expect-error certificates are bytes, not PEM
new DTLSSocket({ ...socket, secure: { ...secure, certificates: ["-----BEGIN CERTIFICATE-----"] } });
// @ts-expect-error credentials without a key
new DTLSSocket({ ...socket, secure: { trustAnchors: [], certificates: [] } });
// @ts-expect-error an option that there is not
export const typo: typeof dtls = { ...dtls, session: table };
// @ts-expect-error blocks have sizes of powers of two up to 1024
new CoAPClient({ socket, timer, blockSize: 100 });
// @ts-expect-error no timer
new CoAPClient({ socket });
// @ts-expect-error a method that there is not
coap.request({ method: "FETCH", path: "/" });
// @ts-expect-error a path is needed
coap.request({ method: "GET" });
// @ts-expect-error EST runs over a CoAP client
new ESTClient({ coap: direct });
// @ts-expect-error a request is bytes
est.simpleEnroll("csr");
// @ts-expect-error a socket reads into bytes
direct.read("buffer");
// @ts-expect-error a table needs a clock
new SessionTable(new Uint8Array(2080), {});
// @ts-expect-error a key has 256 or 384 bits
generateKey(0, 512);
// @ts-expect-error an outcome is "done" or "failed"
openDevice().sleep(60, true);
