/**
 * The server role of the DTLS engine (src/dtls/server.h) as TypeScript sees it. Development and tests only.
 *
 *     const server = new ServerEngine({ trust: [ca], key, chain: [certificate] });
 *     const association = server.accept(now, unixTime, peer);
 */

import { DTLSError, dtlsLibrary, Engine, type Protocol } from "../../src/dtls/engine.js";
import type { KeyId } from "../../src/pki/key.js";

export interface ServerEngineOptions {
  /** CAs whose client certificates are accepted, DER. */
  trust: readonly Uint8Array[];
  key: KeyId;
  /** The server's certificate, then those above it, DER. */
  chain: readonly Uint8Array[];
  /** Assigns session ids and resumes by them; default true. */
  sessionIds?: boolean;
  /** Issues tickets to clients that ask, and resumes by them; default true. */
  tickets?: boolean;
  /** Takes part in connection IDs (RFC 9146) where the client offers one; default true. */
  connectionIds?: boolean;
  /** The one version that it speaks; unless told, all that the engine has. */
  protocol?: Protocol | undefined;
}

/** TORPOR_DTLS_ERR_SUPPORT */
const ERROR_SUPPORT = -0x10006;

/** Bytes of the connection IDs that the server gives. */
export const CONNECTION_ID_BYTES = 4;

/** TORPOR_DTLS_SERVER_RECORD_KEYS_BYTES */
const RECORD_KEYS_BYTES = 44;

/** Keys, cookies, session cache and ticket keys of one server. */
export class ServerEngine extends Native("xs_torpor_dtls_server_destructor") {
  constructor(options: ServerEngineOptions) {
    super();
    let error: number = native("xs_torpor_dtls_server_create").call(this);
    for (const certificate of options.trust) {
      error ||= native("xs_torpor_dtls_server_trust").call(this, certificate) as number;
    }
    for (const certificate of options.chain) {
      error ||= native("xs_torpor_dtls_server_identity").call(this, options.key, certificate) as number;
    }
    const without =
      (options.sessionIds === false ? 1 : 0) +
      (options.tickets === false ? 2 : 0) +
      (options.connectionIds === false ? 4 : 0) +
      (options.protocol === "DTLS 1.2" ? 8 : options.protocol === "DTLS 1.3" ? 16 : 0);
    error ||= native("xs_torpor_dtls_server_options").call(this, without) as number;
    if (error === ERROR_SUPPORT) {
      throw new DTLSError(`this engine does not speak ${options.protocol}: ${dtlsLibrary()}`);
    }
    if (error < 0) {
      throw new DTLSError(`the server's certificates or its key are not usable (error ${error})`);
    }
  }

  /** A new association for a peer, which is named by at most 18 bytes: the cookie is bound to them. */
  accept(now: number, unixTime: number, peer: Uint8Array): ServerAssociation {
    return new ServerAssociation(this, now, unixTime, peer);
  }

  /** Wipes and frees, once the associations are freed too. */
  free(): void {
    native("xs_torpor_dtls_server_free").call(this);
  }
}

/** One client's association with the server: an engine that waits for the ClientHello. */
export class ServerAssociation extends Engine {
  constructor(server: ServerEngine, now: number, unixTime: number, peer: Uint8Array) {
    super();
    const error: number = native("xs_torpor_dtls_server_accept").call(this, server, now, unixTime, peer);
    if (error < 0) {
      throw new DTLSError(`the server cannot accept (error ${error})`);
    }
  }

  /** The server makes the C object when it accepts. */
  protected override create(): void {}

  /** SHA-256 of the client's certificate, also after a resumption; undefined before the handshake is over. */
  get peerDigest(): Uint8Array | undefined {
    const digest = new Uint8Array(32);
    return native("xs_torpor_dtls_server_peer_digest").call(this, digest) < 0 ? undefined : digest;
  }

  /** The connection ID in the client's records, 4 bytes; undefined where there is none, or before the handshake is over. */
  get connectionId(): Uint8Array | undefined {
    const id = new Uint8Array(CONNECTION_ID_BYTES);
    return native("xs_torpor_dtls_server_connection_id").call(this, id) < 0 ? undefined : id;
  }

  /** What protects its records of an epoch of DTLS 1.3: key, IV, key for the record numbers; undefined where there is none. */
  recordKeys(epoch: number): Uint8Array | undefined {
    const keys = new Uint8Array(RECORD_KEYS_BYTES);
    return native("xs_torpor_dtls_server_record_keys").call(this, epoch, keys) < 0 ? undefined : keys;
  }

  /** The client's certificate in DER, where this association saw it: after a full handshake. */
  get peerCertificate(): Uint8Array | undefined {
    const certificate = new Uint8Array(2048);
    const length: number = native("xs_torpor_dtls_server_peer_certificate").call(this, certificate);
    return length > 0 ? certificate.slice(0, length) : undefined;
  }
}
