/* The server role of the DTLS engine over wolfSSL: see server.h. */
#if defined(TORPOR_SERVER) /* never on a device */

#include "../server.h"
#include "core.h"

#include <stdlib.h>
#include <string.h>

#include <mbedtls/platform_util.h>
#include <psa/crypto.h>

#include "../../pki/crypto.h"

#define TICKET_LIFETIME 86400 /* seconds, told to the client */
#define DIGEST_BYTES 32
#define NONCE_BYTES 12
#define TAG_BYTES 16
#define COOKIE_SECRET_BYTES 32
/* Sessions by id whose client is remembered; the library's own cache is not larger. */
#define REMEMBERED_MAX 64

typedef struct {
    uint8_t id[ID_LEN];
    uint8_t digest[DIGEST_BYTES];
} remembered;

struct torpor_dtls_server {
    WOLFSSL_CTX *ctx;
    torpor_dtls_credentials credentials;
    psa_key_id_t ticket_key;
    uint8_t cookie_secret[COOKIE_SECRET_BYTES];
    remembered clients[REMEMBERED_MAX];
    unsigned next_client;
    unsigned options;
    int configured;
    unsigned references;
};

int torpor_dtls_server_new(torpor_dtls_server **server)
{
    torpor_dtls_server *s;
    int ret = torpor_dtls_wolfssl_open();

    *server = NULL;
    if (ret != 0) {
        return ret;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        wolfSSL_Cleanup();
        return MEMORY_E;
    }
    torpor_dtls_credentials_init(&s->credentials);
    s->references = 1;
    *server = s;
    return 0;
}

void torpor_dtls_server_release(torpor_dtls_server *s)
{
    if (s == NULL || --s->references > 0) {
        return;
    }
    wolfSSL_CTX_free(s->ctx);
    torpor_dtls_credentials_free(&s->credentials);
    psa_destroy_key(s->ticket_key);
    mbedtls_platform_zeroize(s, sizeof(*s));
    free(s);
    wolfSSL_Cleanup();
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
    s->options = options;
    return 0;
}

/* ---- who the client is, in tickets and beside session ids ---- */

/* The digest of the client's certificate, of this handshake or of the session that it resumes; 0 where there is one. */
static int client_digest(torpor_dtls *d, uint8_t digest[DIGEST_BYTES])
{
    if (d->verification.peer_length > 0) {
        return torpor_sha256(d->verification.peer, d->verification.peer_length, digest);
    }
    if (!d->has_peer_digest) {
        return TORPOR_DTLS_ERR_STATE;
    }
    memcpy(digest, d->peer_digest, DIGEST_BYTES);
    return 0;
}

/*
 * Protects a ticket by AES-128-GCM: `enc` is what the library wants to find again, behind it goes the digest of the client's
 * certificate. The nonce lies in `iv`, the tag in `mac`.
 */
static int on_ticket(WOLFSSL *ssl, unsigned char name[WOLFSSL_TICKET_NAME_SZ], unsigned char iv[WOLFSSL_TICKET_IV_SZ],
                     unsigned char mac[WOLFSSL_TICKET_MAC_SZ], int encrypts, unsigned char *enc, int length,
                     int *out_length, void *context)
{
    const torpor_dtls_server *s = context;
    torpor_dtls *d = wolfSSL_GetIOReadCtx(ssl);
    uint8_t text[WOLFSSL_TICKET_ENC_SZ + TAG_BYTES];
    size_t made = 0;
    int ret;

    if (encrypts) {
        if (length < 0 || (size_t) length + DIGEST_BYTES > (size_t) *out_length ||
            client_digest(d, enc + length) != 0 || torpor_random(iv, WOLFSSL_TICKET_IV_SZ) != 0) {
            return WOLFSSL_TICKET_RET_REJECT;
        }
        memset(name, 'T', WOLFSSL_TICKET_NAME_SZ); /* there is one key */
        ret = psa_aead_encrypt(s->ticket_key, PSA_ALG_GCM, iv, NONCE_BYTES, name, WOLFSSL_TICKET_NAME_SZ, enc,
                               (size_t) length + DIGEST_BYTES, text, sizeof(text), &made);
        if (ret != 0 || made != (size_t) length + DIGEST_BYTES + TAG_BYTES) {
            return WOLFSSL_TICKET_RET_REJECT;
        }
        memcpy(enc, text, made - TAG_BYTES);
        memset(mac, 0, WOLFSSL_TICKET_MAC_SZ);
        memcpy(mac, text + made - TAG_BYTES, TAG_BYTES);
        *out_length = (int) (made - TAG_BYTES);
    } else {
        if (length < DIGEST_BYTES || (size_t) length > WOLFSSL_TICKET_ENC_SZ) {
            return WOLFSSL_TICKET_RET_REJECT;
        }
        memcpy(text, enc, (size_t) length);
        memcpy(text + length, mac, TAG_BYTES);
        ret = psa_aead_decrypt(s->ticket_key, PSA_ALG_GCM, iv, NONCE_BYTES, name, WOLFSSL_TICKET_NAME_SZ, text,
                               (size_t) length + TAG_BYTES, enc, (size_t) length, &made);
        if (ret != 0 || made != (size_t) length) {
            return WOLFSSL_TICKET_RET_REJECT;
        }
        memcpy(d->peer_digest, enc + length - DIGEST_BYTES, DIGEST_BYTES);
        d->has_peer_digest = 1;
        *out_length = length - DIGEST_BYTES;
    }
    mbedtls_platform_zeroize(text, sizeof(text));
    return WOLFSSL_TICKET_RET_OK;
}

/* Of an open association of DTLS 1.2: notes the client of a new session id, or looks up that of a resumed one. */
static void settle_session_id(torpor_dtls *d)
{
    torpor_dtls_server *s = d->server;
    const WOLFSSL_SESSION *session = d->ssl->session;

    if (session->sessionIDSz != ID_LEN) {
        return;
    }
    if (d->verification.peer_length > 0) {
        remembered *client = &s->clients[s->next_client];
        s->next_client = (s->next_client + 1) % REMEMBERED_MAX;
        memcpy(client->id, session->sessionID, ID_LEN);
        (void) client_digest(d, client->digest);
        return;
    }
    for (unsigned i = 0; i < REMEMBERED_MAX && !d->has_peer_digest; i++) {
        if (memcmp(s->clients[i].id, session->sessionID, ID_LEN) == 0) {
            memcpy(d->peer_digest, s->clients[i].digest, DIGEST_BYTES);
            d->has_peer_digest = 1;
        }
    }
}

/*
 * The library numbers tickets by one byte, goes on counting from the ticket by which a client resumes, and gives up after 255.
 * A number need be unique in one association alone (RFC 8446 section 4.6.1), whose secret for resumption is its own; that of the
 * old ticket has done its work once the server's flight is out.
 */
void torpor_dtls_server_waits(torpor_dtls *d)
{
    d->ssl->session->ticketNonce.len = 0;
}

void torpor_dtls_server_opened(torpor_dtls *d)
{
    if (torpor_dtls_version(d) == TORPOR_DTLS_12) {
        settle_session_id(d);
    }
    if (d->verification.peer_length > 0) {
        d->has_peer_digest = client_digest(d, d->peer_digest) == 0;
    }
}

/* ---- set up ---- */

/* A secret of this server for one client's address: a cookie is good for it alone (RFC 9147 section 5.1). */
static int cookie_secret(const torpor_dtls *d, uint8_t secret[DIGEST_BYTES])
{
    uint8_t input[COOKIE_SECRET_BYTES + sizeof(d->transport_id)];

    memcpy(input, d->server->cookie_secret, COOKIE_SECRET_BYTES);
    memcpy(input + COOKIE_SECRET_BYTES, d->transport_id, d->transport_id_length);
    return torpor_sha256(input, COOKIE_SECRET_BYTES + d->transport_id_length, secret);
}

static int make_ticket_key(torpor_dtls_server *s)
{
    psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;

    psa_set_key_type(&attributes, PSA_KEY_TYPE_AES);
    psa_set_key_bits(&attributes, 128);
    psa_set_key_algorithm(&attributes, PSA_ALG_GCM);
    psa_set_key_usage_flags(&attributes, PSA_KEY_USAGE_ENCRYPT | PSA_KEY_USAGE_DECRYPT);
    return psa_generate_key(&attributes, &s->ticket_key);
}

static int configure(torpor_dtls_server *s)
{
    WOLFSSL_METHOD *method = (s->options & TORPOR_DTLS_SERVER_ONLY_12)   ? wolfDTLSv1_2_server_method()
                             : (s->options & TORPOR_DTLS_SERVER_ONLY_13) ? wolfDTLSv1_3_server_method()
                                                                         : wolfDTLS_server_method();
    int ret;

    s->ctx = wolfSSL_CTX_new(method);
    if (s->ctx == NULL) {
        return MEMORY_E;
    }
    ret = torpor_dtls_wolfssl_configure(s->ctx, &s->credentials);
    if (ret == 0) {
        ret = torpor_random(s->cookie_secret, sizeof(s->cookie_secret));
    }
    if (ret == 0) {
        ret = make_ticket_key(s);
    }
    if (ret != 0) {
        return ret;
    }
    if (wolfSSL_CTX_set_timeout(s->ctx, TICKET_LIFETIME) != WOLFSSL_SUCCESS) {
        return TORPOR_DTLS_ERR_SUPPORT;
    }
    if ((s->options & TORPOR_DTLS_SERVER_NO_SESSION_IDS) != 0) {
        wolfSSL_CTX_set_session_cache_mode(s->ctx, WOLFSSL_SESS_CACHE_OFF);
    }
    if ((s->options & TORPOR_DTLS_SERVER_NO_TICKETS) != 0) {
        wolfSSL_CTX_no_ticket_TLSv13(s->ctx);
        wolfSSL_CTX_NoTicketTLSv12(s->ctx);
    } else {
        wolfSSL_CTX_set_TicketEncCb(s->ctx, on_ticket);
        wolfSSL_CTX_set_TicketEncCtx(s->ctx, s);
        wolfSSL_CTX_set_TicketHint(s->ctx, TICKET_LIFETIME);
    }
    s->configured = 1;
    return 0;
}

static int prepare(torpor_dtls *d)
{
    uint8_t secret[DIGEST_BYTES];
    int ret = cookie_secret(d, secret);

    if (ret != 0) {
        return ret;
    }
    /* That of HelloVerifyRequests (RFC 6347 section 4.2.1), then that of DTLS 1.3. */
    if ((ret = wolfSSL_DTLS_SetCookieSecret(d->ssl, secret, sizeof(secret))) != 0) {
        return ret;
    }
    if ((d->server->options & TORPOR_DTLS_SERVER_ONLY_12) == 0) {
        if (wolfSSL_send_hrr_cookie(d->ssl, secret, sizeof(secret)) != WOLFSSL_SUCCESS ||
            wolfSSL_dtls13_allow_ch_frag(d->ssl, 1) != WOLFSSL_SUCCESS) {
            return TORPOR_DTLS_ERR_SUPPORT;
        }
        /* Who has a ticket was there before: one round trip less. */
        if (wolfSSL_dtls13_no_hrr_on_resume(d->ssl, 1) != WOLFSSL_SUCCESS) {
            return TORPOR_DTLS_ERR_SUPPORT;
        }
    }
    return (d->server->options & TORPOR_DTLS_SERVER_NO_CONNECTION_IDS) != 0
               ? 0
               : torpor_dtls_use_connection_id(d, TORPOR_DTLS_SERVER_CID_BYTES);
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
    d->server = s;
    s->references++;
    d->verification.credentials = &s->credentials;
    d->verification.keep_peer = 1;
    memcpy(d->transport_id, peer, peer_length);
    d->transport_id_length = (uint8_t) peer_length;
    d->ctx = s->ctx;
    ret = torpor_dtls_wolfssl_begin(d, now, unix_time);
    d->ctx = NULL; /* the library's association has its own reference */
    if (ret == 0) {
        ret = prepare(d);
    }
    if (ret != 0) {
        torpor_dtls_free(d);
        return ret;
    }
    *association = d;
    return 0;
}

/* ---- look ---- */

int torpor_dtls_server_peer_digest(const torpor_dtls *d, uint8_t digest[32])
{
    if (d->server == NULL || d->state != TORPOR_DTLS_OPEN || !d->has_peer_digest) {
        return TORPOR_DTLS_ERR_STATE;
    }
    memcpy(digest, d->peer_digest, DIGEST_BYTES);
    return 0;
}

int torpor_dtls_server_connection_id(torpor_dtls *d, uint8_t cid[TORPOR_DTLS_SERVER_CID_BYTES])
{
    unsigned length = 0;

    if (d->server == NULL || !torpor_dtls_has_connection_id(d) ||
        wolfSSL_dtls_cid_get_rx_size(d->ssl, &length) != WOLFSSL_SUCCESS || length != TORPOR_DTLS_SERVER_CID_BYTES ||
        wolfSSL_dtls_cid_get_rx(d->ssl, cid, TORPOR_DTLS_SERVER_CID_BYTES) != WOLFSSL_SUCCESS) {
        return TORPOR_DTLS_ERR_STATE;
    }
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
    const Dtls13Epoch *e;

    if (d->server == NULL || d->ssl == NULL || d->ssl->specs.key_size != 16 || epoch == 0 ||
        (e = torpor_dtls_wolfssl_epoch(d, epoch)) == NULL) {
        return TORPOR_DTLS_ERR_STATE;
    }
    memcpy(keys, e->server_write_key, 16);
    memcpy(keys + 16, e->server_write_IV, 12);
    memcpy(keys + 28, e->server_sn_key, 16);
    return 0;
}

#endif
