/*
 * What dtls.c, association.c and server.c share: an association as both roles have it. Not for users of the engine.
 */
#ifndef TORPOR_DTLS_INTERNAL_H
#define TORPOR_DTLS_INTERNAL_H

#include "../idf.h"

#include <mbedtls/ssl.h>

#include "dtls.h"
#include "verification.h"

#if defined(MBEDTLS_SSL_KEEP_PEER_CERTIFICATE)
#error "Torpor needs MBEDTLS_SSL_KEEP_PEER_CERTIFICATE off (ESP-IDF: CONFIG_MBEDTLS_SSL_PROTO_TLS1_3=n, which selects it): with it a saved session does not fit its slot"
#endif
#if !defined(MBEDTLS_SSL_PROTO_DTLS) || !defined(MBEDTLS_SSL_DTLS_CONNECTION_ID) || \
    !defined(MBEDTLS_SSL_CONTEXT_SERIALIZATION) || !defined(MBEDTLS_SSL_RENEGOTIATION) || \
    !defined(MBEDTLS_SSL_SESSION_TICKETS)
#error "Torpor needs mbedTLS with DTLS, connection IDs, context serialization, tickets and renegotiation (desktop: src/dtls/mbedtls/config.h; ESP-IDF: hosts/esp32/sdkconfig/sdkconfig.defaults, and the README where the board has an sdkconfig of its own)"
#endif

/* Puts the credentials and what both roles have in common into `conf`; `endpoint` as mbedTLS has it. */
int torpor_dtls_configure(mbedtls_ssl_config *conf, torpor_dtls_credentials *c, int endpoint);

struct torpor_dtls {
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config own_conf;           /* a client's; a server's associations share their server's */
    torpor_dtls_credentials own;           /* likewise */
    const mbedtls_ssl_config *conf;
    int state;
    torpor_dtls_failure_info failure;

    uint64_t now;                          /* of the running call */
    uint64_t started;
    uint64_t timer_intermediate, timer; /* absolute; timer TORPOR_DTLS_NEVER: none runs */
    uint32_t timer_first, patience;
    uint16_t mtu;

    const uint8_t *in;                     /* the datagram being received, until the library fetched it */
    size_t in_length;
    const uint8_t *out;                    /* the datagram to be taken; lies in the library's output buffer */
    size_t out_length;
    int out_taken;                         /* taken; the library is told at its next attempt to send it */

    torpor_dtls_verification verification;
    uint8_t offer_tickets;
    uint8_t offer_cid;                     /* negotiates connection IDs; its own is cid_length bytes */
    uint8_t cid_length;
    uint8_t restored;                      /* from a saved context, whose tls-unique is in `unique` */
    uint8_t unique[12];

#if defined(TORPOR_SERVER)
    struct torpor_dtls_server *server;     /* NULL: a client */
    uint8_t transport_id[18];              /* the client's address and port, for the cookie */
    uint8_t transport_id_length;
#endif
};

/* The part of a start that both roles share; the state is HANDSHAKE afterwards. */
int torpor_dtls_begin(torpor_dtls *d, uint64_t now, uint64_t unix_time);
/* Takes part in connection IDs with a random one of `length` bytes; between begin and the first step. */
int torpor_dtls_use_connection_id(torpor_dtls *d, size_t length);

#endif
