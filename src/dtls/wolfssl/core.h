/*
 * What core.c and server.c of the engine over wolfSSL share with association.c: an association as both roles have it. Not
 * for users.
 */
#ifndef TORPOR_DTLS_WOLFSSL_CORE_H
#define TORPOR_DTLS_WOLFSSL_CORE_H

#include "../verification.h"

#include <wolfssl/wolfcrypt/settings.h>

#include <wolfssl/internal.h>
#include <wolfssl/ssl.h>

#include "../dtls.h"

#define TORPOR_DTLS_12 12u
#define TORPOR_DTLS_13 13u

/* A datagram that waits to be taken. */
typedef struct torpor_dtls_datagram {
    struct torpor_dtls_datagram *next;
    size_t length;
    uint8_t bytes[];
} torpor_dtls_datagram;

struct torpor_dtls {
    WOLFSSL_CTX *ctx; /* a client's own; a server's associations hold references to their server's */
    WOLFSSL *ssl;
    torpor_dtls_credentials own;
    int state;
    torpor_dtls_failure_info failure;

    uint64_t now; /* of the running call */
    uint64_t started;
    uint64_t timer; /* absolute; TORPOR_DTLS_NEVER: none runs */
    uint32_t timer_first, patience;
    uint32_t interval; /* to the next retransmission */
    uint16_t mtu;

    const uint8_t *in; /* the datagram being received, until the library fetched it */
    size_t in_length;
    unsigned in_records; /* of it that were looked at */
    uint32_t forged; /* records that did not authenticate */
    torpor_dtls_datagram *first, *last;
    size_t queued; /* bytes */
    unsigned sent; /* datagrams so far: whether a call has sent something */

    torpor_dtls_verification verification;
    char name[256]; /* SNI; empty: none */
    uint8_t lowest, highest;
    uint16_t groups[TORPOR_DTLS_GROUPS_MAX];
    uint8_t group_count;
    uint8_t offer_tickets;
    uint8_t offer_cid;
    uint8_t cid_length;
    uint8_t cid_offered; /* and the server's answer is yet to be looked at */
    uint8_t psk_alone;
    uint8_t unique_length;
    uint8_t unique[TORPOR_DTLS_UNIQUE_MAX];
    unsigned tickets;
    int error; /* what went wrong in a callback: the library has a poorer one */

#if defined(TORPOR_SERVER)
    struct torpor_dtls_server *server; /* NULL: a client */
    uint8_t peer_digest[32]; /* SHA-256 of the client's certificate */
    uint8_t has_peer_digest;
    uint8_t transport_id[18]; /* the client's address and port, for the cookie */
    uint8_t transport_id_length;
#endif
};

/* Takes part in connection IDs with a random one of `length` bytes; between begin and the first step. */
int torpor_dtls_use_connection_id(torpor_dtls *d, size_t length);
/* Sets the clock for the calls that follow. */
void torpor_dtls_wolfssl_enter(torpor_dtls *d, uint64_t now);
/* Starts the library; wolfSSL_Cleanup ends it, once for each start. */
int torpor_dtls_wolfssl_open(void);
/* Puts the credentials and what both roles have in common into a context. 0, or a negative error. */
int torpor_dtls_wolfssl_configure(WOLFSSL_CTX *ctx, torpor_dtls_credentials *c);
/* Makes the library's association out of `d->ctx`; the state is HANDSHAKE afterwards. */
int torpor_dtls_wolfssl_begin(torpor_dtls *d, uint64_t now, uint64_t unix_time);

/* The epoch of DTLS 1.3 with that number, or NULL. */
const Dtls13Epoch *torpor_dtls_wolfssl_epoch(const torpor_dtls *d, uint64_t number);

#if defined(TORPOR_SERVER)
/* For core.c: a server's association has sent its flight and waits for the client's. */
void torpor_dtls_server_waits(torpor_dtls *d);
/* For core.c: the handshake of a server's association is over. */
void torpor_dtls_server_opened(torpor_dtls *d);
#endif

#endif
