/*
 * Who the peer is, and who we are: trust anchors, own certificates with their key, and the judgement of a peer's chain.
 * The same for each engine; mbedTLS's X.509 does it, whichever library runs the protocol. Not for users of the engine.
 */
#ifndef TORPOR_DTLS_VERIFICATION_H
#define TORPOR_DTLS_VERIFICATION_H

#include "../idf.h"

#include <stddef.h>
#include <stdint.h>

#include <mbedtls/pk.h>
#include <mbedtls/x509_crt.h>

/* Own certificates, key and trust anchors. */
typedef struct {
    mbedtls_x509_crt trust;
    mbedtls_x509_crt chain;
    mbedtls_pk_context pk;
    uint32_t key;
} torpor_dtls_credentials;

void torpor_dtls_credentials_init(torpor_dtls_credentials *c);
void torpor_dtls_credentials_free(torpor_dtls_credentials *c);
int torpor_dtls_credentials_trust(torpor_dtls_credentials *c, const uint8_t *der, size_t length);
int torpor_dtls_credentials_identity(torpor_dtls_credentials *c, uint32_t key, const uint8_t *der, size_t length);

/* What is demanded of a peer's chain, and what came of it. */
typedef struct {
    torpor_dtls_credentials *credentials; /* whose anchors decide, where the engine has no place of its own for them */
    const char *name;       /* the DNS name demanded; NULL: none. Borrowed */
    uint8_t address[16];    /* the address demanded */
    uint8_t address_length; /* 0: none */
    uint8_t keep_chain;     /* the certificates that the verification goes through are kept */
    uint8_t keep_peer;      /* the peer's own certificate is kept */
    uint8_t verified;       /* the certificates were looked at: a full handshake */
    uint64_t unix_time;     /* seconds; 0: not known, validity times are not judged */
    uint32_t flags;         /* MBEDTLS_X509_BADCERT_* of all certificates */
    uint8_t *chain;         /* DER, the trust anchor first, the peer's own last */
    size_t chain_length;
    uint8_t *peer;          /* DER of the peer's own */
    size_t peer_length;
} torpor_dtls_verification;

/* Frees what was kept. */
void torpor_dtls_verification_free(torpor_dtls_verification *v);

/* Checks one certificate of the peer's chain: mbedTLS's verify callback; `verification` is the above. */
int torpor_dtls_verify(void *verification, mbedtls_x509_crt *certificate, int depth, uint32_t *flags);

#endif
