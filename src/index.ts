/**
 * What an app uses of Torpor; everything else may change.
 *
 *     import { CoAPClient, DTLSSocket, ESTClient, type SocketDictionary } from "torpor";
 */

import type { SocketCallbacks } from "./io.js";

export {
  type BlockSize,
  CoAPClient,
  type CoAPClientOptions,
  type CoAPRequest,
  type CoAPResponse,
} from "./coap/client.js";
export { CoAPError } from "./coap/error.js";
export { codeText } from "./coap/message.js";
export { parseURI } from "./coap/uri.js";
export { AlertError, CertificateError, DTLSError } from "./dtls/engine.js";
export { ResumptionMemory } from "./dtls/resumption.js";
export {
  AssociationReport,
  type DTLSCredentials,
  DTLSSocket,
  type DTLSSocketOptions,
  type Resume,
  type Way,
} from "./dtls/socket.js";
export { type Identity, IdentityError, IdentityStore } from "./enrollment/identity.js";
export { type Status, statusOf } from "./enrollment/status.js";
export { type Host, type Operation, type WakeOptions, type WakeReport, wake } from "./enrollment/wake.js";
export { FormatError, LimitError, TimeoutError, TorporError } from "./errors.js";
export {
  type CertificatesResponse,
  ESTClient,
  type ESTClientOptions,
  ESTError,
  type ESTResponse,
} from "./est/client.js";
export type {
  Clock,
  Datagram,
  KeyValueStore,
  MessageSocket,
  SocketCallbacks,
  Timer,
  TimerId,
  UDP,
  UDPConstructor,
} from "./io.js";
export { type Certificate, parseCertificate } from "./pki/certificate.js";
export { certificateRequest, destroyKey, generateKey, importKey, KeyError, type KeyId, publicKey } from "./pki/key.js";
export { distinguishedName } from "./pki/name.js";
export { DeviceSealer } from "./session/seal.js";
export { SessionTable, type SessionTableOptions } from "./session/table.js";

/**
 * A dictionary as ECMA-419 composes them: the class in `io` beside its options, all but the callbacks and those in
 * `Later`, which whoever makes the object adds.
 *
 *     const dtls: SocketDictionary<typeof DTLSSocket, "address"> = { io: DTLSSocket, … };
 *     new CoAPClient({ socket: { ...dtls, address }, timer });
 */
export type SocketDictionary<Class extends new (options: never) => unknown, Later extends string = never> = {
  io: Class;
} & Omit<ConstructorParameters<Class>[0], keyof SocketCallbacks | Later> extends infer Options
  ? { [Option in keyof Options]: Options[Option] }
  : never;
