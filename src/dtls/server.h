/*
 * The server role of the engine, for the development EST server and the tests; it is never built for a device
 * (TORPOR_SERVER). A server holds credentials, cookie, session cache and ticket keys; each peer gets an association,
 * which runs by the functions of dtls.h.
 *
 *     torpor_dtls_server *s;
 *     torpor_dtls_server_new(&s);
 *     torpor_dtls_server_trust(s, anchor, anchor_length);
 *     torpor_dtls_server_identity(s, key, certificate, certificate_length);
 *     torpor_dtls_server_accept(s, now, unix_time, peer, peer_length, &d);
 *     torpor_dtls_receive(d, now, datagram, length); …
 */
#ifndef TORPOR_DTLS_SERVER_H
#define TORPOR_DTLS_SERVER_H

#include "dtls.h"

typedef struct torpor_dtls_server torpor_dtls_server;

int torpor_dtls_server_new(torpor_dtls_server **server);

/* Gives up the caller's reference. Associations hold their own; the last one frees the server. */
void torpor_dtls_server_release(torpor_dtls_server *s);

/* Adds a trust anchor for client certificates (DER). */
int torpor_dtls_server_trust(torpor_dtls_server *s, const uint8_t *der, size_t length);
/* Adds the server's certificate, then the CAs above it (DER), as torpor_dtls_identity does. */
int torpor_dtls_server_identity(torpor_dtls_server *s, uint32_t key, const uint8_t *der, size_t length);

enum {
    TORPOR_DTLS_SERVER_NO_SESSION_IDS = 1, /* assigns none, resumes none */
    TORPOR_DTLS_SERVER_NO_TICKETS = 2,     /* issues none, resumes none */
    TORPOR_DTLS_SERVER_NO_CONNECTION_IDS = 4, /* ignores the offer of a client */
    TORPOR_DTLS_SERVER_ONLY_12 = 8,        /* speaks DTLS 1.2 only; what mbedTLS does anyway */
    TORPOR_DTLS_SERVER_ONLY_13 = 16        /* speaks DTLS 1.3 only */
};
/* Sets options, a sum of the above; before the first accept. Default 0: all of them. */
int torpor_dtls_server_options(torpor_dtls_server *s, unsigned options);

/*
 * A new association that waits for a ClientHello. `peer` is the client's address and port in any form, at most 18
 * bytes: the cookie (RFC 6347 section 4.2.1) is bound to it.
 */
int torpor_dtls_server_accept(torpor_dtls_server *s, uint64_t now, uint64_t unix_time, const uint8_t *peer,
                              size_t peer_length, torpor_dtls **association);

/*
 * SHA-256 of the client's certificate, of an open association; in a resumed one it comes from the session or the
 * ticket. TORPOR_DTLS_ERR_STATE otherwise.
 */
int torpor_dtls_server_peer_digest(const torpor_dtls *d, uint8_t digest[32]);

/* DER of the client's certificate, after a full handshake: its length, or 0 where this association has not seen it. */
int torpor_dtls_server_peer_certificate(const torpor_dtls *d, uint8_t *out, size_t size);

/* Bytes of the connection IDs that a server gives (RFC 9146). */
#define TORPOR_DTLS_SERVER_CID_BYTES 4
/*
 * The connection ID that the client puts into its records, of an open association. TORPOR_DTLS_ERR_STATE where there is
 * none. In a datagram it follows the first 11 bytes of a record of type 25.
 */
int torpor_dtls_server_connection_id(torpor_dtls *d, uint8_t cid[TORPOR_DTLS_SERVER_CID_BYTES]);

/* AES-128 key, IV and AES-128 key for the record numbers (RFC 9147 sections 4 and 4.2.3). */
#define TORPOR_DTLS_SERVER_RECORD_KEYS_BYTES (16 + 12 + 16)
/*
 * What protects the server's own records of an epoch of DTLS 1.3, so that a test can have it say something wrong that is
 * authentic. TORPOR_DTLS_ERR_STATE where it has no such epoch (now), as in DTLS 1.2.
 */
int torpor_dtls_server_record_keys(const torpor_dtls *d, unsigned epoch,
                                   uint8_t keys[TORPOR_DTLS_SERVER_RECORD_KEYS_BYTES]);

/* For dtls.c over mbedTLS: the library has sent a HelloVerifyRequest and waits for the ClientHello with the cookie. */
int torpor_dtls_server_again(torpor_dtls *d);

#endif
