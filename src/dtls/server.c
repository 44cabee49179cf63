/* The server role of the DTLS engine: see server.h. */
#if defined(TORPOR_SERVER) /* never on a device, whose build may take every file of the folder */

#include "internal.h"
#include "server.h"

#include <stdlib.h>
#include <string.h>

#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl_cache.h>
#include <mbedtls/ssl_cookie.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/version.h>
#include <psa/crypto.h>

#define TICKET_LIFETIME 86400 /* seconds, told to the client */

struct torpor_dtls_server {
    mbedtls_ssl_config conf;
    torpor_dtls_credentials credentials;
    mbedtls_ssl_cookie_ctx cookie;
    mbedtls_ssl_cache_context cache;
    mbedtls_ssl_ticket_context ticket;
    unsigned options;
    int configured;
    unsigned references;
};

int torpor_dtls_server_new(torpor_dtls_server **server)
{
    torpor_dtls_server *s = calloc(1, sizeof(*s));

    *server = s;
    if (s == NULL) {
        return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    }
    mbedtls_ssl_config_init(&s->conf);
    torpor_dtls_credentials_init(&s->credentials);
    mbedtls_ssl_cookie_init(&s->cookie);
    mbedtls_ssl_cache_init(&s->cache);
    mbedtls_ssl_ticket_init(&s->ticket);
    s->references = 1;
    return 0;
}

void torpor_dtls_server_release(torpor_dtls_server *s)
{
    if (s == NULL || --s->references > 0) {
        return;
    }
    mbedtls_ssl_config_free(&s->conf);
    torpor_dtls_credentials_free(&s->credentials);
    mbedtls_ssl_cookie_free(&s->cookie);
    mbedtls_ssl_cache_free(&s->cache);
    mbedtls_ssl_ticket_free(&s->ticket);
    mbedtls_platform_zeroize(s, sizeof(*s));
    free(s);
}

int torpor_dtls_server_trust(torpor_dtls_server *s, const uint8_t *der, size_t length)
{
    return s->configured ? TORPOR_DTLS_ERR_STATE : torpor_dtls_credentials_trust(&s->credentials, der, length);
}

int torpor_dtls_server_identity(torpor_dtls_server *s, uint32_t key, const uint8_t *der, size_t length)
{
    return s->configured ? TORPOR_DTLS_ERR_STATE : torpor_dtls_credentials_identity(&s->credentials, key, der, length);
}

int torpor_dtls_server_options(torpor_dtls_server *s, unsigned options)
{
    if (s->configured) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if ((options & TORPOR_DTLS_SERVER_ONLY_13) != 0) {
        return TORPOR_DTLS_ERR_SUPPORT;
    }
    s->options = options;
    return 0;
}

static int configure(torpor_dtls_server *s)
{
    int ret = torpor_dtls_configure(&s->conf, &s->credentials, MBEDTLS_SSL_IS_SERVER);

#if MBEDTLS_VERSION_MAJOR >= 4
    if (ret == 0) {
        ret = mbedtls_ssl_cookie_setup(&s->cookie);
    }
    if (ret == 0) {
        ret = mbedtls_ssl_ticket_setup(&s->ticket, PSA_ALG_GCM, PSA_KEY_TYPE_AES, 128, TICKET_LIFETIME);
    }
#else
    if (ret == 0) {
        ret = mbedtls_ssl_cookie_setup(&s->cookie, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    }
    if (ret == 0) {
        ret = mbedtls_ssl_ticket_setup(&s->ticket, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE,
                                       MBEDTLS_CIPHER_AES_128_GCM, TICKET_LIFETIME);
    }
#endif
    if (ret != 0) {
        return ret;
    }
    mbedtls_ssl_conf_dtls_cookies(&s->conf, mbedtls_ssl_cookie_write, mbedtls_ssl_cookie_check, &s->cookie);
    if ((s->options & TORPOR_DTLS_SERVER_NO_SESSION_IDS) == 0) {
        mbedtls_ssl_conf_session_cache(&s->conf, &s->cache, mbedtls_ssl_cache_get, mbedtls_ssl_cache_set);
    }
    if ((s->options & TORPOR_DTLS_SERVER_NO_TICKETS) == 0) {
        mbedtls_ssl_conf_session_tickets_cb(&s->conf, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse, &s->ticket);
    }
    if ((s->options & TORPOR_DTLS_SERVER_NO_CONNECTION_IDS) == 0) {
        ret = mbedtls_ssl_conf_cid(&s->conf, TORPOR_DTLS_SERVER_CID_BYTES, MBEDTLS_SSL_UNEXPECTED_CID_IGNORE);
    }
    s->configured = ret == 0;
    return ret;
}

int torpor_dtls_server_accept(torpor_dtls_server *s, uint64_t now, uint64_t unix_time, const uint8_t *peer,
                              size_t peer_length, torpor_dtls **association)
{
    torpor_dtls *d;
    int ret;

    *association = NULL;
    if (peer_length == 0 || peer_length > sizeof(d->transport_id)) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    if (!s->configured && (ret = configure(s)) != 0) {
        return ret;
    }
    ret = torpor_dtls_new(&d);
    if (ret != 0) {
        return ret;
    }
    d->conf = &s->conf;
    d->server = s;
    d->verification.keep_peer = 1;
    s->references++;
    memcpy(d->transport_id, peer, peer_length);
    d->transport_id_length = (uint8_t) peer_length;
    ret = torpor_dtls_begin(d, now, unix_time);
    if (ret == 0) {
        /* A client's flight in two datagrams is dropped where ours is packed and connection IDs are compiled in. */
        mbedtls_ssl_set_datagram_packing(&d->ssl, 0);
        ret = mbedtls_ssl_set_client_transport_id(&d->ssl, d->transport_id, d->transport_id_length);
    }
    if (ret == 0 && (s->options & TORPOR_DTLS_SERVER_NO_CONNECTION_IDS) == 0) {
        ret = torpor_dtls_use_connection_id(d, TORPOR_DTLS_SERVER_CID_BYTES);
    }
    if (ret != 0) {
        torpor_dtls_free(d);
        return ret;
    }
    *association = d;
    return 0;
}

int torpor_dtls_server_again(torpor_dtls *d)
{
    int ret = mbedtls_ssl_session_reset(&d->ssl);

    if (ret == 0) {
        ret = mbedtls_ssl_set_client_transport_id(&d->ssl, d->transport_id, d->transport_id_length);
    }
    return ret;
}

int torpor_dtls_server_peer_digest(const torpor_dtls *d, uint8_t digest[32])
{
    const mbedtls_ssl_session *session = d->ssl.MBEDTLS_PRIVATE(session);

    if (d->server == NULL || d->state != TORPOR_DTLS_OPEN || session == NULL ||
        session->MBEDTLS_PRIVATE(peer_cert_digest) == NULL || session->MBEDTLS_PRIVATE(peer_cert_digest_len) != 32) {
        return TORPOR_DTLS_ERR_STATE;
    }
    memcpy(digest, session->MBEDTLS_PRIVATE(peer_cert_digest), 32);
    return 0;
}

int torpor_dtls_server_connection_id(torpor_dtls *d, uint8_t cid[TORPOR_DTLS_SERVER_CID_BYTES])
{
    int enabled = MBEDTLS_SSL_CID_DISABLED;
    uint8_t own[MBEDTLS_SSL_CID_IN_LEN_MAX];
    size_t length = 0;

    if (d->server == NULL || !torpor_dtls_has_connection_id(d) ||
        mbedtls_ssl_get_own_cid(&d->ssl, &enabled, own, &length) != 0 || length != TORPOR_DTLS_SERVER_CID_BYTES) {
        return TORPOR_DTLS_ERR_STATE;
    }
    memcpy(cid, own, length);
    return 0;
}

int torpor_dtls_server_peer_certificate(const torpor_dtls *d, uint8_t *out, size_t size)
{
    if (d->verification.peer_length > size) {
        return TORPOR_DTLS_ERR_SIZE;
    }
    if (d->verification.peer_length > 0) {
        memcpy(out, d->verification.peer, d->verification.peer_length);
    }
    return (int) d->verification.peer_length;
}

int torpor_dtls_server_record_keys(const torpor_dtls *d, unsigned epoch,
                                   uint8_t keys[TORPOR_DTLS_SERVER_RECORD_KEYS_BYTES])
{
    (void) d;
    (void) epoch;
    (void) keys;
    return TORPOR_DTLS_ERR_STATE;
}

#endif
