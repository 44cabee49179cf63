/* The DTLS engine over mbedTLS: see dtls.h. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include <mbedtls/error.h>
#include <mbedtls/platform.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/version.h>
#include <psa/crypto.h>

#if defined(TORPOR_SERVER)
#include "server.h"
#endif

#define NAME_MAX_BYTES 255
/* As dtls.h has it: DTLS 1.2. */
#define VERSION 12

/* RFC 9148 section 3: CCM_8 first; CCM and GCM for servers that lack it. */
static const int CIPHER_SUITES[] = {
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    0,
};

/* P-256 for the key exchange; P-384 only so that a CA may sign with it. */
static const uint16_t GROUPS[] = {
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_NONE,
};

static const uint16_t SIGNATURES[] = {
    MBEDTLS_TLS1_3_SIG_ECDSA_SECP256R1_SHA256,
    MBEDTLS_TLS1_3_SIG_ECDSA_SECP384R1_SHA384,
    MBEDTLS_TLS1_3_SIG_NONE,
};

/* ---- configuration ---- */

int torpor_dtls_configure(mbedtls_ssl_config *conf, torpor_dtls_credentials *c, int endpoint)
{
    int ret = mbedtls_ssl_config_defaults(conf, endpoint, MBEDTLS_SSL_TRANSPORT_DATAGRAM, MBEDTLS_SSL_PRESET_DEFAULT);

    if (ret != 0) {
        return ret;
    }
#if MBEDTLS_VERSION_MAJOR < 4
    mbedtls_ssl_conf_rng(conf, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
#endif
    mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_max_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_ciphersuites(conf, CIPHER_SUITES);
    mbedtls_ssl_conf_groups(conf, GROUPS);
    mbedtls_ssl_conf_sig_algs(conf, SIGNATURES);
    mbedtls_ssl_conf_authmode(conf, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(conf, &c->trust, NULL);
    mbedtls_ssl_conf_renegotiation(conf, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    if (c->chain.version != 0) {
        ret = mbedtls_ssl_conf_own_cert(conf, &c->chain, &c->pk);
    }
    return ret;
}

/* ---- callbacks of the library: I/O and timer ---- */

static int on_send(void *context, const unsigned char *datagram, size_t length)
{
    torpor_dtls *d = context;

    if (d->out_taken) {
        d->out_taken = 0;
        return (int) length;
    }
    d->out = datagram;
    d->out_length = length;
    return MBEDTLS_ERR_SSL_WANT_WRITE;
}

#define RECORD_HEADER 13
#define RECORD_CONNECTION_ID 25 /* the type of records whose header has one (RFC 9146 section 4) */

/*
 * The length of the whole records that a datagram begins with. The library takes what is too short for a header for an
 * error of its own, and ends the association: a record that it skips and a few bytes behind it would be enough, which
 * anybody can send.
 */
static size_t whole_records(const torpor_dtls *d, const uint8_t *datagram, size_t length)
{
    size_t at = 0;

    while (length - at >= RECORD_HEADER) {
        const uint8_t *record = datagram + at;
        size_t header = RECORD_HEADER + (record[0] == RECORD_CONNECTION_ID ? d->conf->MBEDTLS_PRIVATE(cid_len) : 0);
        size_t content;
        if (length - at < header) {
            break;
        }
        content = (size_t) record[header - 2] << 8 | record[header - 1];
        if (content > length - at - header) {
            break;
        }
        at += header + content;
    }
    return at;
}

static int on_receive(void *context, unsigned char *datagram, size_t size)
{
    torpor_dtls *d = context;
    const uint8_t *in = d->in;
    size_t length;

    if (in == NULL) {
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    d->in = NULL;
    /* A datagram that is too long is cut, as a socket does. */
    length = whole_records(d, in, d->in_length < size ? d->in_length : size);
    if (length == 0) {
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    memcpy(datagram, in, length);
    return (int) length;
}

static void on_set_timer(void *context, uint32_t intermediate, uint32_t final)
{
    torpor_dtls *d = context;

    d->timer_intermediate = d->now + intermediate;
    d->timer = final == 0 ? TORPOR_DTLS_NEVER : d->now + final;
}

static int on_get_timer(void *context)
{
    torpor_dtls *d = context;

    if (d->timer == TORPOR_DTLS_NEVER) {
        return -1;
    }
    if (d->in != NULL) {
        return 0; /* what has come counts, even where the timer is over: the library would drop it */
    }
    return d->now >= d->timer ? 2 : d->now >= d->timer_intermediate ? 1 : 0;
}

/* ---- set up ---- */

int torpor_dtls_new(torpor_dtls **association)
{
    torpor_dtls *d = mbedtls_calloc(1, sizeof(*d));

    *association = d;
    if (d == NULL) {
        return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    }
    mbedtls_ssl_init(&d->ssl);
    mbedtls_ssl_config_init(&d->own_conf);
    torpor_dtls_credentials_init(&d->own);
    d->conf = &d->own_conf;
    d->verification.credentials = &d->own;
    d->mtu = TORPOR_DTLS_MTU;
    d->timer_first = TORPOR_DTLS_TIMER;
    d->patience = TORPOR_DTLS_PATIENCE;
    d->timer = TORPOR_DTLS_NEVER;
    return 0;
}

void torpor_dtls_free(torpor_dtls *d)
{
    if (d == NULL) {
        return;
    }
    mbedtls_ssl_free(&d->ssl);
    mbedtls_ssl_config_free(&d->own_conf);
    torpor_dtls_credentials_free(&d->own);
    torpor_dtls_verification_free(&d->verification);
#if defined(TORPOR_SERVER)
    torpor_dtls_server_release(d->server);
#endif
    mbedtls_platform_zeroize(d, sizeof(*d));
    mbedtls_free(d);
}

int torpor_dtls_server_name(torpor_dtls *d, const char *name)
{
    size_t length = strlen(name);

    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (length == 0 || length > NAME_MAX_BYTES) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    d->verification.address_length = 0;
    int ret = mbedtls_ssl_set_hostname(&d->ssl, name);
    d->verification.name = d->ssl.MBEDTLS_PRIVATE(hostname);
    return ret;
}

int torpor_dtls_server_address(torpor_dtls *d, const uint8_t *address, size_t length)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (length != 4 && length != 16) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    memcpy(d->verification.address, address, length);
    d->verification.address_length = (uint8_t) length;
    /* Tells the library that doing without a name is meant; torpor_dtls_verify demands the address instead. */
    return mbedtls_ssl_set_hostname(&d->ssl, NULL);
}

int torpor_dtls_versions(torpor_dtls *d, unsigned lowest, unsigned highest)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    return lowest > highest                           ? TORPOR_DTLS_ERR_FORMAT
           : lowest > VERSION || highest < VERSION ? TORPOR_DTLS_ERR_SUPPORT
                                                      : 0;
}

int torpor_dtls_groups(torpor_dtls *d, const uint16_t *groups, size_t count)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (count == 0 || count > TORPOR_DTLS_GROUPS_MAX) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    return count == 1 && groups[0] == MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1 ? 0 : TORPOR_DTLS_ERR_SUPPORT;
}

/* DTLS 1.2 resumes in no other way. */
void torpor_dtls_resume_by_psk_alone(torpor_dtls *d)
{
    (void) d;
}

int torpor_dtls_use_connection_id(torpor_dtls *d, size_t length)
{
    uint8_t cid[TORPOR_DTLS_CID_MAX];
    int ret = length > 0 ? psa_generate_random(cid, length) : 0;

    return ret == 0 ? mbedtls_ssl_set_cid(&d->ssl, MBEDTLS_SSL_CID_ENABLED, cid, length) : ret;
}

int torpor_dtls_begin(torpor_dtls *d, uint64_t now, uint64_t unix_time)
{
    int ret = mbedtls_ssl_setup(&d->ssl, d->conf);

    if (ret != 0) {
        return ret;
    }
    mbedtls_ssl_set_bio(&d->ssl, d, on_send, on_receive, NULL);
    mbedtls_ssl_set_timer_cb(&d->ssl, d, on_set_timer, on_get_timer);
    mbedtls_ssl_set_verify(&d->ssl, torpor_dtls_verify, &d->verification);
    mbedtls_ssl_set_mtu(&d->ssl, d->mtu);
    d->now = d->started = now;
    d->verification.unix_time = unix_time;
    d->state = TORPOR_DTLS_HANDSHAKE;
    return 0;
}

/* ---- run ---- */

static void fail(torpor_dtls *d, int kind, uint32_t detail)
{
    d->state = TORPOR_DTLS_FAILED;
    d->failure.kind = kind;
    d->failure.detail = detail;
    d->timer = TORPOR_DTLS_NEVER;
}

static void fail_by(torpor_dtls *d, int ret)
{
    if (ret == MBEDTLS_ERR_SSL_TIMEOUT) {
        fail(d, TORPOR_DTLS_FAILURE_TIMEOUT, 0);
    } else if (ret == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE) {
        /* No public call gives the alert; its record is still in place. */
        fail(d, TORPOR_DTLS_FAILURE_ALERT, d->ssl.MBEDTLS_PRIVATE(in_msg)[1]);
    } else if (ret == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED || ret == MBEDTLS_ERR_SSL_BAD_CERTIFICATE) {
        /* The usage extensions are judged after the verify callback, with the second error. All ones: nothing was judged
           at all, for the message cannot be decoded. */
        uint32_t judged = mbedtls_ssl_get_verify_result(&d->ssl);
        uint32_t flags = d->verification.flags | (judged == UINT32_MAX ? 0 : judged);
        if (flags != 0) {
            fail(d, TORPOR_DTLS_FAILURE_CERTIFICATE, flags);
        } else {
            fail(d, TORPOR_DTLS_FAILURE_PROTOCOL, (uint32_t) -ret);
        }
    } else if (ret == MBEDTLS_ERR_SSL_ALLOC_FAILED || ret == MBEDTLS_ERR_X509_ALLOC_FAILED ||
               ret == MBEDTLS_ERR_PK_ALLOC_FAILED || ret == MBEDTLS_ERR_ASN1_ALLOC_FAILED ||
               ret == PSA_ERROR_INSUFFICIENT_MEMORY) {
        fail(d, TORPOR_DTLS_FAILURE_MEMORY, (uint32_t) -ret);
    } else {
        fail(d, TORPOR_DTLS_FAILURE_PROTOCOL, (uint32_t) -ret);
    }
}

/*
 * A fatal alert that the library has pending counts for it as unsent while the transport would block, and it would make
 * the same alert anew each time that one is taken: without end. It is on its way once it is in the output buffer; what
 * it was for is the failure.
 */
static int fail_by_pending_alert(torpor_dtls *d)
{
    int reason = d->ssl.MBEDTLS_PRIVATE(alert_reason);

    d->ssl.MBEDTLS_PRIVATE(send_alert) = 0;
    reason = reason != 0 ? reason : MBEDTLS_ERR_SSL_DECODE_ERROR;
    fail_by(d, reason);
    return reason;
}

/* Lets the library work until it wants the network. Returns 0, or the error that ended the association. */
static int step(torpor_dtls *d)
{
    int ret;

    if (d->state == TORPOR_DTLS_HANDSHAKE) {
        ret = mbedtls_ssl_handshake(&d->ssl);
#if defined(TORPOR_SERVER)
        if (ret == MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED) {
            return torpor_dtls_server_again(d);
        }
#endif
        if (ret == MBEDTLS_ERR_SSL_WANT_WRITE && d->ssl.MBEDTLS_PRIVATE(send_alert)) {
            return fail_by_pending_alert(d);
        }
        if (ret == MBEDTLS_ERR_SSL_WANT_READ || ret == MBEDTLS_ERR_SSL_WANT_WRITE) {
            return 0;
        }
        if (ret != 0) {
#if defined(TORPOR_SERVER)
            if (ret == MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE) {
                /* The library says nothing, and the client would wait for its answer until its patience ends. */
                (void) mbedtls_ssl_send_alert_message(&d->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                                      MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
            }
#endif
            fail_by(d, ret);
            return ret;
        }
        d->state = TORPOR_DTLS_OPEN;
    }
    if (d->state == TORPOR_DTLS_OPEN) {
        /* A read of no bytes flushes what is to be sent, handles alerts and leaves the next message to be read. */
        ret = mbedtls_ssl_read(&d->ssl, NULL, 0);
        if (ret == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
            d->state = TORPOR_DTLS_CLOSED;
            return 0;
        }
#if defined(TORPOR_SERVER)
        if (ret == MBEDTLS_ERR_SSL_CLIENT_RECONNECT) {
            d->state = TORPOR_DTLS_HANDSHAKE;
            d->started = d->now;
            d->verification.verified = 0;
            d->verification.flags = 0;
            return step(d);
        }
#endif
        if (ret == MBEDTLS_ERR_SSL_WANT_WRITE && d->ssl.MBEDTLS_PRIVATE(send_alert)) {
            return fail_by_pending_alert(d);
        }
        if (ret < 0 && ret != MBEDTLS_ERR_SSL_WANT_READ && ret != MBEDTLS_ERR_SSL_WANT_WRITE) {
            fail_by(d, ret);
            return ret;
        }
    }
    return 0;
}

static int check_running(const torpor_dtls *d)
{
    if (d->state != TORPOR_DTLS_HANDSHAKE && d->state != TORPOR_DTLS_OPEN) {
        return TORPOR_DTLS_ERR_STATE;
    }
    return d->out != NULL ? TORPOR_DTLS_ERR_PENDING : 0;
}

/* Reads a saved session; its first bytes are the library's version and configuration. */
static int load_session(mbedtls_ssl_session *session, const uint8_t *bytes, size_t length)
{
    int ret = mbedtls_ssl_session_load(session, bytes, length);

    if (ret == MBEDTLS_ERR_SSL_VERSION_MISMATCH) {
        return TORPOR_DTLS_ERR_BUILD;
    }
    return ret == MBEDTLS_ERR_SSL_BAD_INPUT_DATA ? TORPOR_DTLS_ERR_FORMAT : ret;
}

static int start_client(torpor_dtls *d, uint64_t now, uint64_t unix_time, const mbedtls_ssl_session *session)
{
    int ret = torpor_dtls_configure(&d->own_conf, &d->own, MBEDTLS_SSL_IS_CLIENT);

    if (ret != 0) {
        return ret;
    }
    mbedtls_ssl_conf_handshake_timeout(&d->own_conf, d->timer_first,
                                       d->patience > d->timer_first ? d->patience : d->timer_first);
    mbedtls_ssl_conf_session_tickets(&d->own_conf, d->offer_tickets ? MBEDTLS_SSL_SESSION_TICKETS_ENABLED
                                                                    : MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    if (d->offer_cid) {
        ret = mbedtls_ssl_conf_cid(&d->own_conf, d->cid_length, MBEDTLS_SSL_UNEXPECTED_CID_IGNORE);
    }
    if (ret == 0) {
        ret = torpor_dtls_begin(d, now, unix_time);
    }
    if (ret == 0 && d->offer_cid) {
        ret = torpor_dtls_use_connection_id(d, d->cid_length);
    }
    if (ret == 0 && session != NULL) {
        ret = mbedtls_ssl_set_session(&d->ssl, session);
    }
    return ret;
}

int torpor_dtls_start(torpor_dtls *d, uint64_t now, uint64_t unix_time, const uint8_t *session, size_t length)
{
    mbedtls_ssl_session loaded;
    int ret = 0;

    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (d->own.trust.version == 0) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    mbedtls_ssl_session_init(&loaded);
    if (length > 0) {
        ret = load_session(&loaded, session, length);
        if (ret != 0 && ret != TORPOR_DTLS_ERR_BUILD && ret != TORPOR_DTLS_ERR_FORMAT) {
            fail_by(d, ret);
        }
    }
    if (ret == 0) {
        ret = start_client(d, now, unix_time, length > 0 ? &loaded : NULL);
        if (ret != 0) {
            fail_by(d, ret);
        }
    }
    mbedtls_ssl_session_free(&loaded);
    return ret == 0 ? step(d) : ret;
}

/*
 * A saved context:
 *
 *   0            12           13
 *   | tls-unique | CID length | the library's context (ssl_tls.c): version, session, randoms, CIDs, windows, counter, MTU
 *
 * The library saves no Finished messages, and expects the length of its own connection ID in the configuration.
 */
#define UNIQUE_BYTES 12
#define CONTEXT_PREFIX (UNIQUE_BYTES + 1)

/*
 * What of the library's context comes before the connection IDs, the client's and the server's:
 *
 *   0         8                12
 *   | version | session length | session | randoms (64) | length | ID | length | ID | …
 *
 * The library checks all lengths but these against the room that it has: what is longer must not get there.
 */
#define CONTEXT_VERSION 8
#define CONTEXT_RANDOMS 64

static int has_room_for_ids(const uint8_t *context, size_t length, size_t own_length)
{
    size_t at = CONTEXT_VERSION + 4, session;

    if (length < at) {
        return 0;
    }
    session = (size_t) context[at - 4] << 24 | (size_t) context[at - 3] << 16 | (size_t) context[at - 2] << 8 |
              context[at - 1];
    if (session > length - at || length - at - session < CONTEXT_RANDOMS + 1 + own_length + 1) {
        return 0;
    }
    at += session + CONTEXT_RANDOMS;
    return context[at] == own_length && context[at + 1 + own_length] <= MBEDTLS_SSL_CID_OUT_LEN_MAX;
}

int torpor_dtls_restore(torpor_dtls *d, uint64_t now, uint64_t unix_time, const uint8_t *context, size_t length)
{
    int ret;

    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    ret = length <= CONTEXT_PREFIX ? TORPOR_DTLS_ERR_FORMAT : torpor_dtls_offer_connection_id(d, context[UNIQUE_BYTES]);
    if (ret == 0) {
        ret = start_client(d, now, unix_time, NULL);
    }
    if (ret == 0) {
        ret = has_room_for_ids(context + CONTEXT_PREFIX, length - CONTEXT_PREFIX, d->cid_length)
                  ? mbedtls_ssl_context_load(&d->ssl, context + CONTEXT_PREFIX, length - CONTEXT_PREFIX)
                  : MBEDTLS_ERR_SSL_BAD_INPUT_DATA;
        ret = ret == MBEDTLS_ERR_SSL_VERSION_MISMATCH ? TORPOR_DTLS_ERR_BUILD
              : ret == MBEDTLS_ERR_SSL_BAD_INPUT_DATA ? TORPOR_DTLS_ERR_FORMAT
                                                      : ret;
    }
    if (ret != 0) {
        fail_by(d, ret);
        return ret;
    }
    mbedtls_ssl_set_mtu(&d->ssl, d->mtu); /* the saved one was that of another network, maybe */
    memcpy(d->unique, context, UNIQUE_BYTES);
    d->restored = 1;
    d->state = TORPOR_DTLS_OPEN;
    return 0;
}

/* A time that steps back is one at which nothing has passed. */
static void advance(torpor_dtls *d, uint64_t now)
{
    if (now > d->now) {
        d->now = now;
    }
}

int torpor_dtls_receive(torpor_dtls *d, uint64_t now, const uint8_t *datagram, size_t length)
{
    int ret = check_running(d);

    if (ret != 0) {
        return ret;
    }
    advance(d, now);
    if (length == 0) {
        return 0; /* an empty datagram carries no record */
    }
    d->in = datagram;
    d->in_length = length;
    ret = step(d);
    d->in = NULL;
    return ret;
}

int torpor_dtls_elapse(torpor_dtls *d, uint64_t now)
{
    int ret = check_running(d);

    if (ret != 0) {
        return ret;
    }
    advance(d, now);
    if (d->state == TORPOR_DTLS_HANDSHAKE && d->now - d->started >= d->patience) {
        fail(d, TORPOR_DTLS_FAILURE_TIMEOUT, 0);
        return MBEDTLS_ERR_SSL_TIMEOUT;
    }
    return d->now >= d->timer ? step(d) : 0;
}

size_t torpor_dtls_pending(const torpor_dtls *d)
{
    return d->out == NULL ? 0 : d->out_length;
}

int torpor_dtls_take(torpor_dtls *d, uint8_t *datagram, size_t size)
{
    size_t length = d->out_length;

    if (d->out == NULL) {
        return 0;
    }
    if (length > size) {
        return TORPOR_DTLS_ERR_SIZE;
    }
    memcpy(datagram, d->out, length);
    d->out = NULL;
    if (d->state == TORPOR_DTLS_HANDSHAKE || d->state == TORPOR_DTLS_OPEN) {
        /* A stateless HelloVerifyRequest leaves nothing behind in the library that it would send again. */
        d->out_taken = d->ssl.MBEDTLS_PRIVATE(out_left) > 0;
        (void) step(d); /* its failure shows in the state */
    }
    return (int) length;
}

size_t torpor_dtls_readable(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN ? mbedtls_ssl_get_bytes_avail(&d->ssl) : 0;
}

int torpor_dtls_read(torpor_dtls *d, uint8_t *message, size_t size)
{
    size_t waiting = torpor_dtls_readable(d);
    int ret;

    if (waiting == 0) {
        return 0;
    }
    ret = size > 0 ? mbedtls_ssl_read(&d->ssl, message, size) : 0;
    if (ret >= 0 && waiting > size) {
        uint8_t rest[64];
        while (mbedtls_ssl_get_bytes_avail(&d->ssl) > 0 && mbedtls_ssl_read(&d->ssl, rest, sizeof(rest)) > 0) {
        }
        mbedtls_platform_zeroize(rest, sizeof(rest));
        ret = (int) waiting;
    }
    (void) step(d); /* the datagram may hold another record */
    return ret;
}

int torpor_dtls_write(torpor_dtls *d, const uint8_t *message, size_t length)
{
    int ret;

    if (d->state != TORPOR_DTLS_OPEN) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (d->out != NULL) {
        return TORPOR_DTLS_ERR_PENDING;
    }
    ret = mbedtls_ssl_get_max_out_record_payload(&d->ssl);
    if (ret < 0) {
        return ret;
    }
    if (length == 0 || length > (size_t) ret) {
        return TORPOR_DTLS_ERR_SIZE;
    }
    ret = mbedtls_ssl_write(&d->ssl, message, length);
    if (ret == MBEDTLS_ERR_SSL_WANT_WRITE) {
        return 0;
    }
    fail_by(d, ret < 0 ? ret : MBEDTLS_ERR_SSL_INTERNAL_ERROR);
    return ret < 0 ? ret : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

int torpor_dtls_close(torpor_dtls *d)
{
    if (d->state == TORPOR_DTLS_OPEN) {
        if (d->out != NULL) {
            return TORPOR_DTLS_ERR_PENDING;
        }
        (void) mbedtls_ssl_close_notify(&d->ssl);
    }
    if (d->state != TORPOR_DTLS_FAILED) {
        d->state = TORPOR_DTLS_CLOSED;
    }
    d->timer = TORPOR_DTLS_NEVER;
    return 0;
}

/* ---- look ---- */

unsigned torpor_dtls_version(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN ? VERSION : 0;
}

unsigned torpor_dtls_group(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN && d->verification.verified ? MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1 : 0;
}

/* Those of DTLS 1.2 come within the handshake. */
unsigned torpor_dtls_tickets(const torpor_dtls *d)
{
    (void) d;
    return 0;
}

const char *torpor_dtls_library(void)
{
    return "mbedTLS " MBEDTLS_VERSION_STRING ", without DTLS 1.3";
}

unsigned torpor_dtls_cipher_suite(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN ? (unsigned) mbedtls_ssl_get_ciphersuite_id_from_ssl(&d->ssl) : 0;
}

int torpor_dtls_session(torpor_dtls *d, uint8_t *out, size_t size, size_t *length, torpor_dtls_session_info *info)
{
    /* Not by mbedtls_ssl_get_session: that makes a copy, and only once. */
    mbedtls_ssl_session *session = d->ssl.MBEDTLS_PRIVATE(session);
    int ret;

    *length = 0;
    info->kind = TORPOR_DTLS_SESSION_NONE;
    info->lifetime = 0;
    if (d->state != TORPOR_DTLS_OPEN || session == NULL) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (session->MBEDTLS_PRIVATE(ticket_len) > 0) {
        info->kind = TORPOR_DTLS_SESSION_TICKET;
        /* Beside a ticket the id is a random number of the last hello: without it, the same ticket is the same bytes. */
        session->MBEDTLS_PRIVATE(id_len) = 0;
        memset(session->MBEDTLS_PRIVATE(id), 0, sizeof(session->MBEDTLS_PRIVATE(id)));
        info->lifetime = session->MBEDTLS_PRIVATE(ticket_lifetime);
    } else if (session->MBEDTLS_PRIVATE(id_len) > 0) {
        info->kind = TORPOR_DTLS_SESSION_ID;
    }
    ret = mbedtls_ssl_session_save(session, out, size, length);
    if (ret == MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL) {
        ret = out == NULL ? 0 : TORPOR_DTLS_ERR_SIZE;
    }
    return ret;
}

int torpor_dtls_drop_ticket(torpor_dtls *d)
{
    mbedtls_ssl_session *session = d->ssl.MBEDTLS_PRIVATE(session);

    if (d->state != TORPOR_DTLS_OPEN || session == NULL) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (session->MBEDTLS_PRIVATE(ticket_len) > 0) {
        mbedtls_platform_zeroize(session->MBEDTLS_PRIVATE(ticket), session->MBEDTLS_PRIVATE(ticket_len));
        mbedtls_free(session->MBEDTLS_PRIVATE(ticket));
        session->MBEDTLS_PRIVATE(ticket) = NULL;
        session->MBEDTLS_PRIVATE(ticket_len) = 0;
        session->MBEDTLS_PRIVATE(id_len) = 0; /* beside a ticket it is no id to resume by */
    }
    return 0;
}

int torpor_dtls_has_connection_id(torpor_dtls *d)
{
    int enabled = MBEDTLS_SSL_CID_DISABLED;

    return d->state == TORPOR_DTLS_OPEN && mbedtls_ssl_get_peer_cid(&d->ssl, &enabled, NULL, NULL) == 0 &&
           enabled == MBEDTLS_SSL_CID_ENABLED;
}

int torpor_dtls_context(torpor_dtls *d, uint8_t *out, size_t size, size_t *length)
{
    uint8_t unique[TORPOR_DTLS_UNIQUE_MAX];
    uint8_t *context = size > CONTEXT_PREFIX ? out + CONTEXT_PREFIX : NULL;
    int ret = torpor_dtls_unique(d, unique);

    *length = 0;
    if (ret < 0 || d->out != NULL || !torpor_dtls_has_connection_id(d)) {
        return TORPOR_DTLS_ERR_STATE;
    }
    ret = mbedtls_ssl_context_save(&d->ssl, context, context == NULL ? 0 : size - CONTEXT_PREFIX, length);
    if (ret == MBEDTLS_ERR_SSL_BAD_INPUT_DATA) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (ret == MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL) {
        *length += CONTEXT_PREFIX;
        return out == NULL ? 0 : TORPOR_DTLS_ERR_SIZE;
    }
    d->state = TORPOR_DTLS_CLOSED; /* the library has reset what was saved */
    d->timer = TORPOR_DTLS_NEVER;
    if (ret != 0) {
        return ret;
    }
    memcpy(out, unique, UNIQUE_BYTES);
    out[UNIQUE_BYTES] = d->cid_length;
    *length += CONTEXT_PREFIX;
    return 0;
}

size_t torpor_dtls_overhead(const torpor_dtls *d)
{
    int bytes = d->state == TORPOR_DTLS_OPEN ? mbedtls_ssl_get_record_expansion(&d->ssl) : 0;
    return bytes < 0 ? 0 : (size_t) bytes;
}

uint64_t torpor_dtls_highest(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN ? d->ssl.MBEDTLS_PRIVATE(in_window_top) : 0;
}

#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)

uint32_t torpor_dtls_build(void)
{
    /* What a saved session or context depends on besides the library's version; the last is the format of ours. */
    static const char BUILD[] = MBEDTLS_VERSION_STRING " " TEXT(MBEDTLS_SSL_IN_CONTENT_LEN) " " TEXT(
        MBEDTLS_SSL_OUT_CONTENT_LEN) " " TEXT(MBEDTLS_SSL_CID_IN_LEN_MAX) " " TEXT(MBEDTLS_SSL_CID_OUT_LEN_MAX)
#if defined(MBEDTLS_HAVE_TIME)
        " time"
#endif
#if defined(MBEDTLS_SSL_MAX_FRAGMENT_LENGTH)
        " mfl"
#endif
#if defined(MBEDTLS_SSL_ENCRYPT_THEN_MAC)
        " etm"
#endif
#if defined(MBEDTLS_SSL_SERVER_NAME_INDICATION)
        " sni"
#endif
#if defined(MBEDTLS_SSL_ALPN)
        " alpn"
#endif
#if defined(MBEDTLS_SSL_DTLS_ANTI_REPLAY)
        " replay"
#endif
#if defined(MBEDTLS_SSL_PROTO_TLS1_3)
        " 1.3"
#endif
        " 1";
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (size_t i = 0; i < sizeof(BUILD) - 1; i++) {
        hash = (hash ^ (uint8_t) BUILD[i]) * 16777619u;
    }
    return hash;
}

int torpor_dtls_unique(const torpor_dtls *d, uint8_t out[TORPOR_DTLS_UNIQUE_MAX])
{
    int from_client = d->verification.verified; /* full handshake: the client's Finished is the first; abbreviated: the server's */

    if (d->state == TORPOR_DTLS_OPEN && d->restored) {
        memcpy(out, d->unique, UNIQUE_BYTES);
        return UNIQUE_BYTES;
    }
    if (d->state != TORPOR_DTLS_OPEN || d->ssl.MBEDTLS_PRIVATE(verify_data_len) != UNIQUE_BYTES) {
        return TORPOR_DTLS_ERR_STATE;
    }
#if defined(TORPOR_SERVER)
    if (d->server != NULL) {
        from_client = !from_client;
    }
#endif
    memcpy(out, from_client ? d->ssl.MBEDTLS_PRIVATE(own_verify_data) : d->ssl.MBEDTLS_PRIVATE(peer_verify_data),
           UNIQUE_BYTES);
    return UNIQUE_BYTES;
}
