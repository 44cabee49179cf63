/**
 * The error of the CoAP layer (RFC 7252, RFC 7959).
 *
 *     try { … } catch (error) { if (error instanceof CoAPError) reconnect(); }
 */

import { TorporError } from "../errors.js";

/** The peer reset the exchange, broke the rules of CoAP or of block-wise transfer, or the client was closed. */
export class CoAPError extends TorporError {}
