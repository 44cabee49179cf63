/**
 * What an app uses of Torpor.
 *
 *     import { CoAPClient, DTLSSocket, ESTClient, SessionTable } from "torpor";
 */

export { CoAPClient } from "./coap/client.js";
export { DTLSSocket } from "./dtls/socket.js";
export { ESTClient } from "./est/client.js";
