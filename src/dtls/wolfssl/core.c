/* The DTLS engine over wolfSSL: see dtls.h. */
#include "core.h"

#include <string.h>

#include <mbedtls/platform.h>
#include <mbedtls/platform_util.h>

#include "../../pki/crypto.h"

#if defined(TORPOR_SERVER)
#include "../server.h"
#endif

#if LIBWOLFSSL_VERSION_HEX < 0x05009002
#error "Torpor needs wolfSSL 5.9.2 or later"
#endif

#define NAME_MAX_BYTES 255
/* Datagrams that wait to be taken, bytes in all: several flights. What exceeds it is lost, as datagrams are. */
#define QUEUE_BYTES_MAX 16384u
/* Records of one datagram that are looked at: more than a flight has there, and less than the library's limits of forged ones. */
#define RECORDS_MAX 16
/* Records that do not authenticate, and end an association. */
#define FORGED_MAX (1u << 20)
/* A retransmission is never due later than this many milliseconds after the one before. */
#define INTERVAL_MAX 3600000u

/* RFC 9148 section 3: CCM_8 first; CCM and GCM for servers that lack it. */
#define SUITES_13 "TLS13-AES128-CCM-8-SHA256:TLS13-AES128-CCM-SHA256:TLS13-AES128-GCM-SHA256"
#define SUITES_12 "ECDHE-ECDSA-AES128-CCM-8:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-GCM-SHA256"

#define GROUP_P256 23
#define GROUP_P384 24
#define GROUP_P256_MLKEM768 4587
#define GROUP_X25519_MLKEM768 4588

#define EXPORTER_LABEL "EXPORTER-Channel-Binding" /* RFC 9266 section 4.2 */
#define EXPORTER_BYTES 32
#define TLS_UNIQUE_BYTES 12

/* ---- what the library asks its host for: memory, time, random numbers ---- */

/* An allocation has failed since the running call began: the library has other words for it in places. */
static int memory_failed;

static void *on_malloc(size_t size)
{
    void *block = mbedtls_calloc(1, size);

    memory_failed |= block == NULL;
    return block;
}

static void on_free(void *pointer)
{
    mbedtls_free(pointer);
}

/* The library asks for the time without saying for whom: that of the association whose call runs. Milliseconds. */
static uint64_t clock_now = 1;

void torpor_dtls_wolfssl_enter(torpor_dtls *d, uint64_t now)
{
    if (now > d->now) {
        d->now = now; /* a time that steps back is one at which nothing has passed */
    }
    memory_failed = 0;
    /* Never 0, which the library takes for a clock that fails. */
    clock_now = 1 + (d->verification.unix_time != 0 ? d->verification.unix_time * 1000 + (d->now - d->started) : d->now);
}

word32 LowResTimer(void)
{
    return (word32) (clock_now / 1000);
}

sword64 TimeNowInMilliseconds(void)
{
    return (sword64) clock_now;
}

int torpor_wolfssl_random(unsigned char *output, unsigned int size)
{
    return torpor_random(output, size);
}

int torpor_dtls_wolfssl_open(void)
{
    static int hooked;

    if (!hooked) {
        if (wolfSSL_SetAllocators(on_malloc, on_free, torpor_heap_resize) != 0) {
            return TORPOR_DTLS_ERR_STATE;
        }
        hooked = 1;
    }
    return wolfSSL_Init() == WOLFSSL_SUCCESS ? 0 : MEMORY_E;
}

const char *torpor_dtls_library(void)
{
    return "wolfSSL " LIBWOLFSSL_VERSION_STRING
#if !defined(WOLFSSL_HAVE_MLKEM)
           ", without ML-KEM"
#endif
        ;
}

/* ---- verification: by mbedTLS's X.509, as in the other engine ---- */

/* RFC 5280 section 4.2.1.12: id-kp-serverAuth, id-kp-clientAuth. */
static const char SERVER_AUTH[] = "\x2B\x06\x01\x05\x05\x07\x03\x01";
static const char CLIENT_AUTH[] = "\x2B\x06\x01\x05\x05\x07\x03\x02";

/* mbedTLS adds the error of a lower layer, less than this, to that of X.509. */
#define X509_ERROR_STEP 0x80

static int verify_chain(torpor_dtls *d, torpor_dtls_credentials *credentials, const WOLFSSL_BUFFER_INFO *certificates,
                        int count, int is_server)
{
    mbedtls_x509_crt chain;
    uint32_t flags = 0;
    int ret = 0;

    mbedtls_x509_crt_init(&chain);
    for (int i = 0; i < count && ret == 0; i++) {
        ret = mbedtls_x509_crt_parse_der(&chain, certificates[i].buffer, certificates[i].length);
        /* One whose algorithm is not known may be of no use on the way: what that leaves is judged. */
        if (ret <= MBEDTLS_ERR_X509_UNKNOWN_SIG_ALG && ret > MBEDTLS_ERR_X509_UNKNOWN_SIG_ALG - X509_ERROR_STEP) {
            ret = 0;
        }
    }
    d->verification.flags = 0;
    if (ret == 0) {
        ret = mbedtls_x509_crt_verify_with_profile(&chain, &credentials->trust, NULL, &mbedtls_x509_crt_profile_default,
                                                   NULL, &flags, torpor_dtls_verify, &d->verification);
    }
    if (ret == 0 || ret == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
        if (mbedtls_x509_crt_check_key_usage(&chain, MBEDTLS_X509_KU_DIGITAL_SIGNATURE) != 0) {
            flags |= MBEDTLS_X509_BADCERT_KEY_USAGE;
        }
        if (mbedtls_x509_crt_check_extended_key_usage(&chain, is_server ? CLIENT_AUTH : SERVER_AUTH,
                                                      sizeof(SERVER_AUTH) - 1) != 0) {
            flags |= MBEDTLS_X509_BADCERT_EXT_KEY_USAGE;
        }
        d->verification.flags |= flags;
        ret = d->verification.flags == 0 ? 0 : MBEDTLS_ERR_X509_CERT_VERIFY_FAILED;
    }
    mbedtls_x509_crt_free(&chain);
    return ret;
}

/*
 * The library knows no trust anchors, so it has no verdict of its own; it always asks about the peer's own certificate.
 * About the ones above it, it may ask before: they are judged with that one.
 */
static int on_verify(int is_good, WOLFSSL_X509_STORE_CTX *store)
{
    torpor_dtls *d = store->userCtx;
    torpor_dtls_credentials *credentials = d->verification.credentials;
    int is_server = 0;
    int ret;

    (void) is_good;
    if (store->error_depth != 0) {
        return 1;
    }
    if (d->verification.verified) { /* it asks again once it was told to go on, and there is one chain in a handshake */
        return d->verification.flags == 0 && d->error == 0;
    }
#if defined(TORPOR_SERVER)
    is_server = d->server != NULL;
#endif
    ret = verify_chain(d, credentials, store->certs, store->totalCerts, is_server);
    if (ret != 0 && ret != MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
        d->error = ret;
    }
    return ret == 0;
}

/* ---- callbacks of the library: keys and I/O ---- */

/* The private key stays in PSA: the library gives the hash, and gets the signature in DER. */
static int on_sign(WOLFSSL *ssl, const unsigned char *hash, unsigned int hash_length, unsigned char *signature,
                   word32 *size, const unsigned char *key, unsigned int key_length, void *context)
{
    const torpor_dtls_credentials *credentials = context;
    size_t length = 0;
    int ret = torpor_key_sign(credentials->key, hash, hash_length, signature, *size, &length);

    (void) ssl;
    (void) key;
    (void) key_length;
    *size = (word32) length;
    return ret == 0 ? 0 : WC_HW_E;
}

static int on_send(WOLFSSL *ssl, char *bytes, int length, void *context)
{
    torpor_dtls *d = context;
    torpor_dtls_datagram *datagram;

    (void) ssl;
    if (length <= 0 || d->queued + (size_t) length > QUEUE_BYTES_MAX) {
        return length;
    }
    datagram = mbedtls_calloc(1, sizeof(*datagram) + (size_t) length);
    if (datagram == NULL) {
        d->error = MEMORY_E;
        return WOLFSSL_CBIO_ERR_GENERAL;
    }
    memcpy(datagram->bytes, bytes, (size_t) length);
    datagram->length = (size_t) length;
    if (d->last == NULL) {
        d->first = datagram;
    } else {
        d->last->next = datagram;
    }
    d->last = datagram;
    d->queued += (size_t) length;
    d->sent++;
    return length;
}

/* ---- which records the library gets to see ---- */

/* RFC 9147 section 4: the first bits of a record with the unified header; connection ID, sequence number, length are there. */
#define UNIFIED_MASK 0xE0
#define UNIFIED 0x20
#define UNIFIED_CID 0x10
#define UNIFIED_LONG_NUMBER 0x08
#define UNIFIED_LENGTH 0x04
/* A protected record has at least as many bytes behind its header: its number is masked by them. */
#define UNIFIED_BYTES_MIN 16
#define CONTENT_FIRST change_cipher_spec
#define CONTENT_LAST ack
#define VERSION_AT 1
#define EPOCH_AT 3

static size_t number_at(const uint8_t *at, unsigned bytes)
{
    size_t value = 0;

    while (bytes-- > 0) {
        value = value << 8 | *at++;
    }
    return value;
}

/* Bytes of the well-formed record at the start of `bytes`, or 0. */
static size_t record_length(const torpor_dtls *d, const uint8_t *bytes, size_t length)
{
    size_t cid = 0, header, content;

#if defined(TORPOR_SERVER)
    cid = d->server != NULL ? TORPOR_DTLS_SERVER_CID_BYTES : d->cid_length;
#else
    cid = d->cid_length;
#endif
    if ((bytes[0] & UNIFIED_MASK) == UNIFIED) {
        header = 1 + ((bytes[0] & UNIFIED_CID) ? cid : 0) + ((bytes[0] & UNIFIED_LONG_NUMBER) ? 2 : 1);
        if ((bytes[0] & UNIFIED_LENGTH) == 0) {
            return length >= header + UNIFIED_BYTES_MIN ? length : 0;
        }
        if (length < header + 2) {
            return 0;
        }
        content = number_at(bytes + header, 2);
        header += 2;
        return content >= UNIFIED_BYTES_MIN && content <= length - header ? header + content : 0;
    }
    /* After the handshake of DTLS 1.3 nothing comes in the clear. */
    if (bytes[0] < CONTENT_FIRST || bytes[0] > CONTENT_LAST || length < DTLS_RECORD_HEADER_SZ ||
        bytes[VERSION_AT] != DTLS_MAJOR || torpor_dtls_version(d) == TORPOR_DTLS_13) {
        return 0;
    }
    header = DTLS_RECORD_HEADER_SZ + (bytes[0] == dtls12_cid ? cid : 0);
    if (length < header) {
        return 0;
    }
    content = number_at(bytes + header - 2, 2);
    return content > 0 && content <= length - header ? header + content : 0;
}

/*
 * Whether a record in the clear, to an open association of DTLS 1.2, is the start of the flight that the library has answered
 * last: the answer was lost then, and goes out again. By any other it would fail, and nobody needs a key for one. It would
 * also by one of the number that it expects, which begins at 0 again once a handshake is over.
 */
static int is_repeated(const torpor_dtls *d, const uint8_t *record, size_t length)
{
    const uint8_t *message = record + DTLS_RECORD_HEADER_SZ;
    size_t body = length - DTLS_RECORD_HEADER_SZ - DTLS_HANDSHAKE_HEADER_SZ;

    return record[0] == handshake && length >= DTLS_RECORD_HEADER_SZ + DTLS_HANDSHAKE_HEADER_SZ &&
           message[0] != hello_request && message[0] != client_hello && /* which begin another handshake */
           VerifyForDtlsMsgPoolSend(d->ssl, message[0], number_at(message + 6, 3)) &&
           number_at(message + 4, 2) != d->ssl->keys.dtls_expected_peer_handshake_number &&
           number_at(message + 9, 3) == body && number_at(message + 1, 3) >= body &&
           number_at(message + 1, 3) <= MAX_HANDSHAKE_SZ;
}

/*
 * Whether an acknowledgement in the clear (RFC 9147 section 7) is one of records in the clear, a part of a hello; those of others
 * are protected. The library takes it at any time before the end of a handshake, and fails by a length that is wrong.
 */
static int is_of_hellos(const uint8_t *record, size_t length)
{
    static const uint8_t EPOCH_0[OPAQUE64_LEN];
    const uint8_t *numbers = record + DTLS_RECORD_HEADER_SZ + OPAQUE16_LEN;
    size_t listed = length - DTLS_RECORD_HEADER_SZ - OPAQUE16_LEN;

    if (length < DTLS_RECORD_HEADER_SZ + OPAQUE16_LEN || listed % DTLS13_RN_SIZE != 0 ||
        number_at(record + DTLS_RECORD_HEADER_SZ, OPAQUE16_LEN) != listed) {
        return 0;
    }
    for (size_t at = 0; at < listed; at += DTLS13_RN_SIZE) {
        if (memcmp(numbers + at, EPOCH_0, sizeof(EPOCH_0)) != 0) {
            return 0;
        }
    }
    return 1;
}

/* Whether the library gets to see a well-formed record. */
static int is_taken(const torpor_dtls *d, const uint8_t *record, size_t length)
{
    if ((record[0] & UNIFIED_MASK) == UNIFIED || number_at(record + EPOCH_AT, 2) != 0) {
        return 1;
    }
    return torpor_dtls_version(d) == TORPOR_DTLS_12 ? is_repeated(d, record, length)
                                                    : record[0] != ack || is_of_hellos(record, length);
}

/* Once the ServerHello is there: forgets the connection ID that was offered where the server has not taken it up. */
static void settle_connection_id(torpor_dtls *d)
{
    if (d->cid_offered && d->ssl->options.serverState >= SERVER_HELLO_COMPLETE) {
        DtlsCIDOnExtensionsParsed(d->ssl);
        d->cid_offered = 0;
    }
}

/*
 * Gives the records of a datagram up to one that is not well-formed, behind which nothing can be found. The library fails by
 * some that are not, which RFC 9147 section 4.5.2 has dropped: anybody could end an association by one datagram.
 */
static int on_receive(WOLFSSL *ssl, char *bytes, int size, void *context)
{
    torpor_dtls *d = context;
    size_t given = 0;

    (void) ssl;
    settle_connection_id(d);
    while (d->in != NULL && d->in_length > 0 && d->in_records < RECORDS_MAX) {
        const uint8_t *record = d->in;
        size_t length = record_length(d, record, d->in_length);
        if (length == 0 || length > (size_t) size - given) {
            break;
        }
        d->in += length;
        d->in_length -= length;
        d->in_records++;
        if (is_taken(d, record, length)) {
            memcpy(bytes + given, record, length);
            given += length;
            if (d->cid_offered) { /* what is behind a ServerHello depends on it */
                return (int) given;
            }
        }
    }
    d->in = NULL;
    return given > 0 ? (int) given : WOLFSSL_CBIO_ERR_WANT_READ;
}

/*
 * Records that do not authenticate are counted (RFC 9147 section 4.5.3). The library ends an association after 64 of them where
 * the tag has 8 bytes, which one datagram of anybody's can hold, and updates keys after 32. Its count starts anew with each
 * datagram; ours ends an association after so many that one of them may have passed with a probability of 2^-44.
 */
static int count_forged(torpor_dtls *d)
{
    for (Dtls13Epoch *e = d->ssl->dtls13Epochs; e < d->ssl->dtls13Epochs + DTLS13_EPOCH_SIZE; e++) {
        d->forged += (uint32_t) e->dropCount.n;
        e->dropCount.n = 0;
    }
    return d->forged > FORGED_MAX ? DECRYPT_ERROR : 0;
}

static int on_ticket(WOLFSSL *ssl, const unsigned char *ticket, int length, void *context)
{
    torpor_dtls *d = context;

    (void) ssl;
    (void) ticket;
    if (length > 0) {
        d->tickets++;
    }
    return 0;
}

/* ---- set up ---- */

int torpor_dtls_new(torpor_dtls **association)
{
    torpor_dtls *d = NULL;
    int ret = torpor_dtls_wolfssl_open();

    *association = NULL;
    if (ret != 0) {
        return ret;
    }
    d = mbedtls_calloc(1, sizeof(*d));
    if (d == NULL) {
        wolfSSL_Cleanup();
        return MEMORY_E;
    }
    torpor_dtls_credentials_init(&d->own);
    d->verification.credentials = &d->own;
    d->mtu = TORPOR_DTLS_MTU;
    d->timer_first = TORPOR_DTLS_TIMER;
    d->patience = TORPOR_DTLS_PATIENCE;
    d->timer = TORPOR_DTLS_NEVER;
    d->lowest = TORPOR_DTLS_12;
    d->highest = TORPOR_DTLS_13;
    d->groups[0] = GROUP_P256;
    d->groups[1] = GROUP_P384; /* so that a CA may sign with it: DTLS 1.2 has one list for both */
    d->group_count = 2;
    *association = d;
    return 0;
}

static torpor_dtls_datagram *unqueue(torpor_dtls *d)
{
    torpor_dtls_datagram *datagram = d->first;

    if (datagram != NULL) {
        d->first = datagram->next;
        d->last = d->first == NULL ? NULL : d->last;
        d->queued -= datagram->length;
    }
    return datagram;
}

void torpor_dtls_free(torpor_dtls *d)
{
    torpor_dtls_datagram *datagram;

    if (d == NULL) {
        return;
    }
    wolfSSL_free(d->ssl);
    wolfSSL_CTX_free(d->ctx);
    torpor_dtls_credentials_free(&d->own);
    torpor_dtls_verification_free(&d->verification);
    while ((datagram = unqueue(d)) != NULL) {
        mbedtls_free(datagram);
    }
#if defined(TORPOR_SERVER)
    torpor_dtls_server_release(d->server);
#endif
    mbedtls_platform_zeroize(d, sizeof(*d));
    mbedtls_free(d);
    wolfSSL_Cleanup();
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
    memcpy(d->name, name, length + 1);
    d->verification.address_length = 0;
    d->verification.name = d->name;
    return 0;
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
    d->verification.name = NULL;
    return 0;
}

int torpor_dtls_versions(torpor_dtls *d, unsigned lowest, unsigned highest)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (lowest > highest) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    if (highest < TORPOR_DTLS_12 || lowest > TORPOR_DTLS_13) {
        return TORPOR_DTLS_ERR_SUPPORT;
    }
    d->lowest = lowest < TORPOR_DTLS_12 ? TORPOR_DTLS_12 : (uint8_t) lowest;
    d->highest = highest > TORPOR_DTLS_13 ? TORPOR_DTLS_13 : (uint8_t) highest;
    return 0;
}

static int has_group(uint16_t group)
{
    switch (group) {
    case GROUP_P256:
    case GROUP_P384:
        return 1;
#if defined(WOLFSSL_HAVE_MLKEM)
    case GROUP_P256_MLKEM768:
    case GROUP_X25519_MLKEM768:
        return 1;
#endif
    default:
        return 0;
    }
}

int torpor_dtls_groups(torpor_dtls *d, const uint16_t *groups, size_t count)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (count == 0 || count > TORPOR_DTLS_GROUPS_MAX) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    for (size_t i = 0; i < count; i++) {
        if (!has_group(groups[i])) {
            return TORPOR_DTLS_ERR_SUPPORT;
        }
    }
    memcpy(d->groups, groups, count * sizeof(groups[0]));
    d->group_count = (uint8_t) count;
    return 0;
}

void torpor_dtls_resume_by_psk_alone(torpor_dtls *d)
{
    d->psk_alone = 1;
}

/* Hands the own certificates to the library, which takes a chain as one DER after the other. */
static int use_certificates(WOLFSSL_CTX *ctx, const mbedtls_x509_crt *chain)
{
    const mbedtls_x509_crt *certificate;
    size_t length = 0;
    uint8_t *all;
    int ret;

    for (certificate = chain; certificate != NULL; certificate = certificate->next) {
        length += certificate->raw.len;
    }
    all = mbedtls_calloc(1, length);
    if (all == NULL) {
        return MEMORY_E;
    }
    length = 0;
    for (certificate = chain; certificate != NULL; certificate = certificate->next) {
        memcpy(all + length, certificate->raw.p, certificate->raw.len);
        length += certificate->raw.len;
    }
    ret = wolfSSL_CTX_use_certificate_chain_buffer_format(ctx, all, (long) length, WOLFSSL_FILETYPE_ASN1);
    mbedtls_free(all);
    return ret == WOLFSSL_SUCCESS ? 0 : ret < 0 ? ret : TORPOR_DTLS_ERR_FORMAT;
}

int torpor_dtls_wolfssl_configure(WOLFSSL_CTX *ctx, torpor_dtls_credentials *c)
{
    int ret = 0;

    if (wolfSSL_CTX_set_cipher_list(ctx, SUITES_13 ":" SUITES_12) != WOLFSSL_SUCCESS) {
        return TORPOR_DTLS_ERR_SUPPORT;
    }
    wolfSSL_SetIOSend(ctx, on_send);
    wolfSSL_SetIORecv(ctx, on_receive);
    wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
    wolfSSL_CTX_set_group_messages(ctx);
    wolfSSL_CTX_SetEccSignCb(ctx, on_sign);
    if (c->chain.version != 0) {
        ret = use_certificates(ctx, &c->chain);
    }
    return ret;
}

int torpor_dtls_wolfssl_begin(torpor_dtls *d, uint64_t now, uint64_t unix_time)
{
    d->now = d->started = now;
    d->verification.unix_time = unix_time;
    torpor_dtls_wolfssl_enter(d, now);
    d->ssl = wolfSSL_new(d->ctx);
    if (d->ssl == NULL) {
        return MEMORY_E;
    }
    wolfSSL_SetIOReadCtx(d->ssl, d);
    wolfSSL_SetIOWriteCtx(d->ssl, d);
    wolfSSL_SetCertCbCtx(d->ssl, d);
    wolfSSL_SetEccSignCtx(d->ssl, d->verification.credentials);
    wolfSSL_dtls_set_using_nonblock(d->ssl, 1);
    wolfSSL_KeepArrays(d->ssl); /* for the channel binding; freed when that is taken */
    if (wolfSSL_dtls_set_mtu(d->ssl, d->mtu) != WOLFSSL_SUCCESS ||
        /* The core times and counts: the library's own limit, in doublings of a second, is out of reach. */
        wolfSSL_dtls_set_timeout_max(d->ssl, 1 << 30) != WOLFSSL_SUCCESS ||
        wolfSSL_set_SessionTicket_cb(d->ssl, on_ticket, d) != WOLFSSL_SUCCESS) {
        return TORPOR_DTLS_ERR_SUPPORT;
    }
    d->interval = d->timer_first;
    d->state = TORPOR_DTLS_HANDSHAKE;
    return 0;
}

/* ---- sessions ---- */

/*
 * A saved session:
 *
 *   0        4         5       6        8       10
 *   | build  | version | EMS   | suite  | group | secret, 32 (1.3) or 48 (1.2) | …
 *     u32 BE   12, 13    0, 1    u16 BE   u16 BE
 *
 *   … of DTLS 1.3:  | seen u64 BE | lifetime u32 BE | age add u32 BE | nonce length u8 | nonce | ticket length u16 BE | ticket |
 *     `seen` is when the ticket came, milliseconds since 1970; 0: not known
 *   … of DTLS 1.2:  | lifetime u32 BE | id length u8 | id | ticket length u16 BE | ticket |
 *
 * No certificates: the session table knows the client's by its hash, and the server's was verified when it was made.
 */
#define SESSION_HEADER 10
#define SECRET_13 32
#define SECRET_12 48

typedef struct {
    uint8_t *out; /* NULL: counts only */
    size_t size, length;
} writer;

static void put(writer *w, const void *bytes, size_t length)
{
    if (w->out != NULL && length <= w->size && w->length <= w->size - length) {
        memcpy(w->out + w->length, bytes, length);
    }
    w->length += length;
}

static void put_number(writer *w, uint64_t value, unsigned bytes)
{
    while (bytes-- > 0) {
        uint8_t byte = (uint8_t) (value >> (8 * bytes));
        put(w, &byte, 1);
    }
}

typedef struct {
    const uint8_t *in;
    size_t length;
    int failed;
} reader;

static const uint8_t *get(reader *r, size_t length)
{
    const uint8_t *at = r->in;

    if (length > r->length) {
        r->failed = 1;
        return NULL;
    }
    r->in += length;
    r->length -= length;
    return at;
}

static uint64_t get_number(reader *r, unsigned bytes)
{
    const uint8_t *at = get(r, bytes);
    uint64_t value = 0;

    for (unsigned i = 0; at != NULL && i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

static void write_session(const torpor_dtls *d, writer *w)
{
    const WOLFSSL_SESSION *s = d->ssl->session;
    int is_13 = torpor_dtls_version(d) == TORPOR_DTLS_13;
    size_t ticket_length = d->tickets > 0 ? s->ticketLen : 0;

    put_number(w, torpor_dtls_build(), 4);
    put_number(w, is_13 ? TORPOR_DTLS_13 : TORPOR_DTLS_12, 1);
    put_number(w, s->haveEMS != 0, 1);
    put_number(w, (uint64_t) s->cipherSuite0 << 8 | s->cipherSuite, 2);
    put_number(w, s->namedGroup, 2);
    put(w, s->masterSecret, is_13 ? SECRET_13 : SECRET_12);
    if (is_13) {
        put_number(w, d->verification.unix_time != 0 ? (uint64_t) s->ticketSeen : 0, 8);
        put_number(w, s->timeout, 4);
        put_number(w, s->ticketAdd, 4);
        put_number(w, s->ticketNonce.len, 1);
        put(w, s->ticketNonce.data, s->ticketNonce.len);
    } else {
        size_t id_length = ticket_length > 0 ? 0 : s->sessionIDSz;
        put_number(w, s->timeout, 4);
        put_number(w, id_length, 1);
        put(w, s->sessionID, id_length);
    }
    put_number(w, ticket_length, 2);
    put(w, s->ticket, ticket_length);
}

/* A saved session as read; pointers into its bytes. */
typedef struct {
    const uint8_t *secret, *nonce, *id, *ticket;
    size_t secret_length, nonce_length, id_length, ticket_length;
    uint64_t seen;
    uint32_t lifetime, age_add;
    unsigned version, ems, suite, group;
} saved_session;

static int read_session(const torpor_dtls *d, const uint8_t *bytes, size_t length, saved_session *s)
{
    reader r = {bytes, length, 0};

    memset(s, 0, sizeof(*s));
    if (get_number(&r, 4) != torpor_dtls_build()) {
        return r.failed ? TORPOR_DTLS_ERR_FORMAT : TORPOR_DTLS_ERR_BUILD;
    }
    s->version = (unsigned) get_number(&r, 1);
    s->ems = (unsigned) get_number(&r, 1);
    s->suite = (unsigned) get_number(&r, 2);
    s->group = (unsigned) get_number(&r, 2);
    s->secret_length = s->version == TORPOR_DTLS_13 ? SECRET_13 : SECRET_12;
    s->secret = get(&r, s->secret_length);
    if (s->version == TORPOR_DTLS_13) {
        s->seen = get_number(&r, 8);
        s->lifetime = (uint32_t) get_number(&r, 4);
        s->age_add = (uint32_t) get_number(&r, 4);
        s->nonce_length = (size_t) get_number(&r, 1);
        s->nonce = get(&r, s->nonce_length);
    } else {
        s->lifetime = (uint32_t) get_number(&r, 4);
        s->id_length = (size_t) get_number(&r, 1);
        s->id = get(&r, s->id_length);
    }
    s->ticket_length = (size_t) get_number(&r, 2);
    s->ticket = get(&r, s->ticket_length);
    if (r.failed || r.length != 0 || (s->version != TORPOR_DTLS_13 && s->version != TORPOR_DTLS_12) || s->ems > 1 ||
        s->id_length > ID_LEN ||
        (s->ticket_length == 0 && s->id_length == 0) || s->version < d->lowest || s->version > d->highest) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    if (s->seen == 0 || d->verification.unix_time == 0 || s->seen > clock_now) {
        s->seen = clock_now; /* its age is not known: that of a ticket that came just now */
    }
    if (s->version == TORPOR_DTLS_13 && (clock_now - s->seen) / 1000 > s->lifetime) {
        return TORPOR_DTLS_ERR_FORMAT; /* past its lifetime (RFC 8446 section 4.6.1) */
    }
    return 0;
}

/* Has the library resume the session: what its wolfSSL_SetSession does, which it has only with a cache of its own. */
static int use_session(WOLFSSL *ssl, const saved_session *saved)
{
    WOLFSSL_SESSION *s = ssl->session;

    if (saved->ticket_length > sizeof(s->staticTicket)) {
        uint8_t *ticket = XMALLOC(saved->ticket_length, ssl->heap, DYNAMIC_TYPE_SESSION_TICK);
        if (ticket == NULL) {
            return MEMORY_E;
        }
        s->ticket = ticket;
        s->ticketLenAlloc = (word16) saved->ticket_length;
    }
    if (saved->ticket_length > 0) {
        memcpy(s->ticket, saved->ticket, saved->ticket_length);
    }
    s->ticketLen = (word16) saved->ticket_length;
    s->side = WOLFSSL_CLIENT_END;
    s->version.major = DTLS_MAJOR;
    s->version.minor = saved->version == TORPOR_DTLS_13 ? DTLSv1_3_MINOR : DTLSv1_2_MINOR;
    s->haveEMS = (word16) saved->ems;
    s->cipherSuite0 = (byte) (saved->suite >> 8);
    s->cipherSuite = (byte) saved->suite;
    s->namedGroup = (word16) saved->group;
    memcpy(s->masterSecret, saved->secret, saved->secret_length);
    s->ticketSeen = (sword64) saved->seen;
    s->ticketAdd = saved->age_add;
    if (saved->nonce_length > 0) {
        int ret = SessionTicketNoncePopulate(s, saved->nonce, (byte) saved->nonce_length);
        if (ret != 0) {
            return ret;
        }
    }
    if (saved->id_length > 0) {
        memcpy(s->sessionID, saved->id, saved->id_length);
    }
    s->sessionIDSz = (byte) saved->id_length;
    s->bornOn = LowResTimer();
    s->timeout = saved->lifetime > 0 ? saved->lifetime : 1;
    s->isSetup = 1;
    ssl->options.resuming = 1;
    ssl->options.haveEMS = saved->ems != 0;
    ssl->options.cipherSuite0 = s->cipherSuite0;
    ssl->options.cipherSuite = s->cipherSuite;
    ssl->version = s->version;
    ssl->options.tls1_3 = saved->version == TORPOR_DTLS_13;
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

static int is_memory(int error)
{
    return error == MEMORY_E || error == MEMORY_ERROR || error == MBEDTLS_ERR_X509_ALLOC_FAILED ||
           error == MBEDTLS_ERR_PK_ALLOC_FAILED || error == MBEDTLS_ERR_ASN1_ALLOC_FAILED;
}

static void fail_by(torpor_dtls *d, int error)
{
    WOLFSSL_ALERT_HISTORY alerts;

    if (d->error != 0) {
        error = d->error;
    }
    if (is_memory(error) || memory_failed) {
        fail(d, TORPOR_DTLS_FAILURE_MEMORY, (uint32_t) -error);
    } else if (d->verification.flags != 0) {
        fail(d, TORPOR_DTLS_FAILURE_CERTIFICATE, d->verification.flags);
    } else if (error == FATAL_ERROR && wolfSSL_get_alert_history(d->ssl, &alerts) == WOLFSSL_SUCCESS &&
               alerts.last_rx.code >= 0) {
        fail(d, TORPOR_DTLS_FAILURE_ALERT, (uint32_t) alerts.last_rx.code);
    } else {
        fail(d, TORPOR_DTLS_FAILURE_PROTOCOL, (uint32_t) -error);
    }
}

/* The handshake is over: takes what is forgotten from now on. */
static int open_association(torpor_dtls *d)
{
    int is_resumed = wolfSSL_session_reused(d->ssl);
    int from_client = !is_resumed; /* whose Finished is the first one (RFC 5929 section 3) */
    int ret = 0;

    if (!is_resumed && !d->verification.verified) {
        return PEER_KEY_ERROR; /* whatever the library thinks: nobody looked at the peer's certificate */
    }
    if (IsAtLeastTLSv1_3(d->ssl->version)) {
        d->unique_length = EXPORTER_BYTES;
        ret = wolfSSL_export_keying_material(d->ssl, d->unique, EXPORTER_BYTES, EXPORTER_LABEL,
                                             sizeof(EXPORTER_LABEL) - 1, NULL, 0, 0) == WOLFSSL_SUCCESS
                  ? 0
                  : WOLFSSL_FATAL_ERROR;
    } else {
        d->unique_length = TLS_UNIQUE_BYTES;
#if defined(TORPOR_SERVER)
        if (d->server != NULL) {
            from_client = !from_client;
        }
#endif
        ret = (from_client ? wolfSSL_get_finished(d->ssl, d->unique, TLS_UNIQUE_BYTES)
                           : wolfSSL_get_peer_finished(d->ssl, d->unique, TLS_UNIQUE_BYTES)) == TLS_UNIQUE_BYTES
                  ? 0
                  : WOLFSSL_FATAL_ERROR;
    }
    wolfSSL_FreeArrays(d->ssl);
    d->state = TORPOR_DTLS_OPEN;
#if defined(TORPOR_SERVER)
    if (d->server != NULL) {
        torpor_dtls_server_opened(d);
    }
#endif
    return ret;
}

/* Lets the library work until it wants the network. Returns 0, or the error that ended the association. */
static int work(torpor_dtls *d)
{
    int ret, error;

    if (d->state == TORPOR_DTLS_HANDSHAKE) {
        ret = wolfSSL_negotiate(d->ssl);
        settle_connection_id(d);
        error = ret == WOLFSSL_SUCCESS ? 0 : wolfSSL_get_error(d->ssl, ret);
        if (error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE) {
#if defined(TORPOR_SERVER)
            if (d->server != NULL) {
                torpor_dtls_server_waits(d);
            }
#endif
            return 0;
        }
        if (error == 0 && ret == WOLFSSL_SUCCESS) {
            error = open_association(d);
        }
        if (error != 0 || ret != WOLFSSL_SUCCESS) {
            fail_by(d, error != 0 ? error : WOLFSSL_FATAL_ERROR);
            return error != 0 ? error : WOLFSSL_FATAL_ERROR;
        }
    }
    if (d->state == TORPOR_DTLS_OPEN && wolfSSL_pending(d->ssl) == 0) {
        uint8_t byte;
        ret = wolfSSL_peek(d->ssl, &byte, 1); /* handles what is no message, and leaves the next message to be read */
        error = ret > 0 ? 0 : wolfSSL_get_error(d->ssl, ret);
        if (error == WOLFSSL_ERROR_ZERO_RETURN || error == ZERO_RETURN) {
            d->state = TORPOR_DTLS_CLOSED;
            d->timer = TORPOR_DTLS_NEVER;
            return 0;
        }
        if (error != 0 && error != WOLFSSL_ERROR_WANT_READ && error != WOLFSSL_ERROR_WANT_WRITE) {
            fail_by(d, error);
            return error;
        }
    }
    return 0;
}

/* Whether the peer owes an answer: then there is something to send again, or to acknowledge. */
static int is_waiting(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_HANDSHAKE ||
           (d->state == TORPOR_DTLS_OPEN && IsAtLeastTLSv1_3(d->ssl->version) &&
            (wolfSSL_dtls13_has_pending_msg(d->ssl) || wolfSSL_dtls13_use_quick_timeout(d->ssl)));
}

/* Sets the timer anew after the library has worked; `sent` is what d->sent was before. */
static void set_timer(torpor_dtls *d, unsigned sent)
{
    if (!is_waiting(d)) {
        d->timer = TORPOR_DTLS_NEVER;
        return;
    }
    if (d->sent != sent || (d->timer == TORPOR_DTLS_NEVER && d->state == TORPOR_DTLS_OPEN)) {
        d->timer = d->now + d->interval;
    }
    /* Something of the peer's flight is missing: what came is acknowledged soon (RFC 9147 section 7.1). */
    if (d->timer != TORPOR_DTLS_NEVER && wolfSSL_dtls13_use_quick_timeout(d->ssl)) {
        uint64_t soon = d->now + (d->interval + 3) / 4;
        d->timer = d->timer < soon ? d->timer : soon;
    }
}

static int step(torpor_dtls *d)
{
    unsigned sent = d->sent;
    int ret = work(d);

    if (ret == 0 && (ret = count_forged(d)) != 0) {
        fail_by(d, ret);
    }
    if (d->state == TORPOR_DTLS_HANDSHAKE || d->state == TORPOR_DTLS_OPEN) {
        if (d->sent != sent) {
            d->interval = d->timer_first; /* something new, or the answer to something old that came again */
        }
        set_timer(d, sent);
    }
    return ret;
}

static int check_running(const torpor_dtls *d)
{
    if (d->state != TORPOR_DTLS_HANDSHAKE && d->state != TORPOR_DTLS_OPEN) {
        return TORPOR_DTLS_ERR_STATE;
    }
    return d->first != NULL ? TORPOR_DTLS_ERR_PENDING : 0;
}

static WOLFSSL_METHOD *client_method(const torpor_dtls *d)
{
    return d->lowest == TORPOR_DTLS_13    ? wolfDTLSv1_3_client_method()
           : d->highest == TORPOR_DTLS_12 ? wolfDTLSv1_2_client_method()
                                          : wolfDTLS_client_method();
}

static int offer(torpor_dtls *d)
{
    int groups[TORPOR_DTLS_GROUPS_MAX], ret;

    for (size_t i = 0; i < d->group_count; i++) {
        groups[i] = d->groups[i];
    }
    if (wolfSSL_set_groups(d->ssl, groups, d->group_count) != WOLFSSL_SUCCESS ||
        (d->highest == TORPOR_DTLS_13 && wolfSSL_UseKeyShare(d->ssl, d->groups[0]) != WOLFSSL_SUCCESS) ||
        (d->verification.name != NULL &&
         wolfSSL_UseSNI(d->ssl, WOLFSSL_SNI_HOST_NAME, d->name, (word16) strlen(d->name)) != WOLFSSL_SUCCESS) ||
        (d->offer_tickets && wolfSSL_UseSessionTicket(d->ssl) != WOLFSSL_SUCCESS)) {
        return TORPOR_DTLS_ERR_SUPPORT;
    }
    if (d->highest == TORPOR_DTLS_13 &&
        (d->psk_alone ? wolfSSL_no_dhe_psk(d->ssl) : wolfSSL_only_dhe_psk(d->ssl)) != 0) {
        return TORPOR_DTLS_ERR_SUPPORT;
    }
    if (!d->offer_cid) {
        return 0;
    }
    /*
     * wolfSSL 5.9.2 forgets what it offered before it parses the extensions of a ServerHello of DTLS 1.2 that answers one
     * of 1.3, and then fails by the server's connection ID as by one that was not asked for; in one of 1.2 that answers 1.2
     * it does not forget an offer that was turned down. So it is not told to settle that: we do, see settle_connection_id.
     */
    d->cid_offered = 1;
    ret = torpor_dtls_use_connection_id(d, d->cid_length);
    d->ssl->options.useDtlsCID = 0;
    return ret;
}

int torpor_dtls_use_connection_id(torpor_dtls *d, size_t length)
{
    uint8_t cid[TORPOR_DTLS_CID_MAX];
    int ret = length > 0 ? torpor_random(cid, length) : 0;

    if (ret == 0 && (wolfSSL_dtls_cid_use(d->ssl) != WOLFSSL_SUCCESS ||
                     wolfSSL_dtls_cid_set(d->ssl, cid, (unsigned) length) != WOLFSSL_SUCCESS)) {
        ret = TORPOR_DTLS_ERR_SUPPORT;
    }
    return ret;
}

int torpor_dtls_start(torpor_dtls *d, uint64_t now, uint64_t unix_time, const uint8_t *session, size_t length)
{
    saved_session saved;
    int ret = 0;

    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (d->own.trust.version == 0) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    d->now = d->started = now;
    d->verification.unix_time = unix_time;
    torpor_dtls_wolfssl_enter(d, now);
    if (length > 0) {
        ret = read_session(d, session, length, &saved);
        if (ret != 0) {
            return ret;
        }
    }
    d->ctx = wolfSSL_CTX_new(client_method(d));
    ret = d->ctx == NULL ? MEMORY_E : torpor_dtls_wolfssl_configure(d->ctx, &d->own);
    if (ret == 0) {
        ret = torpor_dtls_wolfssl_begin(d, now, unix_time);
    }
    if (ret == 0) {
        ret = offer(d);
    }
    if (ret == 0 && length > 0) {
        ret = use_session(d->ssl, &saved);
    }
    if (ret != 0) {
        fail_by(d, ret);
        return ret;
    }
    return step(d);
}

int torpor_dtls_restore(torpor_dtls *d, uint64_t now, uint64_t unix_time, const uint8_t *context, size_t length)
{
    (void) now;
    (void) unix_time;
    (void) context;
    (void) length;
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    fail(d, TORPOR_DTLS_FAILURE_PROTOCOL, (uint32_t) -TORPOR_DTLS_ERR_SUPPORT);
    return TORPOR_DTLS_ERR_SUPPORT;
}

int torpor_dtls_receive(torpor_dtls *d, uint64_t now, const uint8_t *datagram, size_t length)
{
    int ret = check_running(d);

    if (ret != 0) {
        return ret;
    }
    torpor_dtls_wolfssl_enter(d, now);
    d->in = datagram;
    d->in_length = length;
    d->in_records = 0;
    ret = step(d);
    d->in = NULL;
    return ret;
}

int torpor_dtls_elapse(torpor_dtls *d, uint64_t now)
{
    int ret = check_running(d);
    int is_quick;
    unsigned sent;

    if (ret != 0) {
        return ret;
    }
    torpor_dtls_wolfssl_enter(d, now);
    if (d->state == TORPOR_DTLS_HANDSHAKE && d->now - d->started >= d->patience) {
        fail(d, TORPOR_DTLS_FAILURE_TIMEOUT, 0);
        return WOLFSSL_FATAL_ERROR;
    }
    if (d->now < d->timer) {
        return 0;
    }
    is_quick = wolfSSL_dtls13_use_quick_timeout(d->ssl);
    if (!is_quick) {
        d->interval = d->interval > INTERVAL_MAX / 2 ? INTERVAL_MAX : d->interval * 2;
    }
    sent = d->sent;
    if (wolfSSL_dtls_got_timeout(d->ssl) != WOLFSSL_SUCCESS) {
        int error = wolfSSL_get_error(d->ssl, WOLFSSL_FATAL_ERROR);
        if (error != WOLFSSL_ERROR_WANT_READ && error != WOLFSSL_ERROR_WANT_WRITE) {
            fail_by(d, error);
            return error;
        }
    }
    d->timer = d->now + d->interval;
    set_timer(d, sent);
    return 0;
}

size_t torpor_dtls_pending(const torpor_dtls *d)
{
    return d->first == NULL ? 0 : d->first->length;
}

int torpor_dtls_take(torpor_dtls *d, uint8_t *datagram, size_t size)
{
    torpor_dtls_datagram *first = d->first;
    int length;

    if (first == NULL) {
        return 0;
    }
    if (first->length > size) {
        return TORPOR_DTLS_ERR_SIZE;
    }
    length = (int) first->length;
    memcpy(datagram, first->bytes, first->length);
    mbedtls_free(unqueue(d));
    return length;
}

size_t torpor_dtls_readable(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN ? (size_t) wolfSSL_pending(d->ssl) : 0;
}

int torpor_dtls_read(torpor_dtls *d, uint8_t *message, size_t size)
{
    size_t waiting = torpor_dtls_readable(d);
    int ret;

    if (waiting == 0) {
        return 0;
    }
    torpor_dtls_wolfssl_enter(d, d->now);
    ret = size > 0 ? wolfSSL_read(d->ssl, message, size > INT32_MAX ? INT32_MAX : (int) size) : 0;
    if (ret >= 0 && waiting > size) {
        uint8_t rest[64];
        while (wolfSSL_pending(d->ssl) > 0 && wolfSSL_read(d->ssl, rest, sizeof(rest)) > 0) {
        }
        mbedtls_platform_zeroize(rest, sizeof(rest));
        ret = (int) waiting;
    }
    (void) step(d); /* the datagram may hold another record */
    return ret;
}

int torpor_dtls_write(torpor_dtls *d, const uint8_t *message, size_t length)
{
    int room, ret;

    if (d->state != TORPOR_DTLS_OPEN) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (d->first != NULL) {
        return TORPOR_DTLS_ERR_PENDING;
    }
    torpor_dtls_wolfssl_enter(d, d->now);
    room = wolfSSL_GetMaxOutputSize(d->ssl);
    if (room < 0) {
        return room;
    }
    if (length == 0 || length > (size_t) room) {
        return TORPOR_DTLS_ERR_SIZE;
    }
    ret = wolfSSL_write(d->ssl, message, (int) length);
    if (ret == (int) length) {
        set_timer(d, d->sent);
        return 0;
    }
    ret = wolfSSL_get_error(d->ssl, ret);
    fail_by(d, ret);
    return ret < 0 ? ret : WOLFSSL_FATAL_ERROR;
}

int torpor_dtls_close(torpor_dtls *d)
{
    if (d->state == TORPOR_DTLS_OPEN) {
        if (d->first != NULL) {
            return TORPOR_DTLS_ERR_PENDING;
        }
        torpor_dtls_wolfssl_enter(d, d->now);
        (void) wolfSSL_shutdown(d->ssl);
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
    return d->state != TORPOR_DTLS_OPEN ? 0 : IsAtLeastTLSv1_3(d->ssl->version) ? TORPOR_DTLS_13 : TORPOR_DTLS_12;
}

unsigned torpor_dtls_group(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN ? d->ssl->namedGroup : 0;
}

unsigned torpor_dtls_tickets(const torpor_dtls *d)
{
    return d->tickets;
}

unsigned torpor_dtls_cipher_suite(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN
               ? (unsigned) d->ssl->options.cipherSuite0 << 8 | d->ssl->options.cipherSuite
               : 0;
}

int torpor_dtls_session(torpor_dtls *d, uint8_t *out, size_t size, size_t *length, torpor_dtls_session_info *info)
{
    writer w = {out, size, 0};

    *length = 0;
    info->kind = TORPOR_DTLS_SESSION_NONE;
    info->lifetime = 0;
    if (d->state != TORPOR_DTLS_OPEN) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (d->tickets > 0 && d->ssl->session->ticketLen > 0 &&
        /* Of 1.3, one without a lifetime is to be discarded at once (RFC 8446 section 4.6.1); of 1.2 it tells none. */
        (d->ssl->session->timeout > 0 || torpor_dtls_version(d) != TORPOR_DTLS_13)) {
        info->kind = TORPOR_DTLS_SESSION_TICKET;
        info->lifetime = d->ssl->session->timeout;
    } else if (torpor_dtls_version(d) == TORPOR_DTLS_12 && d->ssl->session->sessionIDSz > 0) {
        info->kind = TORPOR_DTLS_SESSION_ID;
    } else {
        return 0;
    }
    write_session(d, &w);
    *length = w.length;
    return out == NULL || w.length <= size ? 0 : TORPOR_DTLS_ERR_SIZE;
}

int torpor_dtls_drop_ticket(torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN ? TORPOR_DTLS_ERR_SUPPORT : TORPOR_DTLS_ERR_STATE;
}

int torpor_dtls_has_connection_id(torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN && wolfSSL_dtls_cid_is_enabled(d->ssl);
}

int torpor_dtls_context(torpor_dtls *d, uint8_t *out, size_t size, size_t *length)
{
    (void) d;
    (void) out;
    (void) size;
    *length = 0;
    return TORPOR_DTLS_ERR_SUPPORT;
}

size_t torpor_dtls_overhead(const torpor_dtls *d)
{
    unsigned cid = 0;

    if (d->state != TORPOR_DTLS_OPEN) {
        return 0;
    }
    if (wolfSSL_dtls_cid_is_enabled(d->ssl)) {
        (void) wolfSSL_dtls_cid_get_tx_size(d->ssl, &cid);
    }
    /* RFC 9147 section 4: flags, connection ID, sequence number and length of two bytes each, the content type inside. */
    if (torpor_dtls_version(d) == TORPOR_DTLS_13) {
        return 1 + cid + 2 + 2 + 1 + d->ssl->specs.aead_mac_size;
    }
    return DTLS_RECORD_HEADER_SZ + (cid > 0 ? cid + 1 : 0) + AESGCM_EXP_IV_SZ + d->ssl->specs.aead_mac_size;
}

const Dtls13Epoch *torpor_dtls_wolfssl_epoch(const torpor_dtls *d, uint64_t number)
{
    for (size_t i = 0; i < DTLS13_EPOCH_SIZE; i++) {
        const Dtls13Epoch *epoch = &d->ssl->dtls13Epochs[i];
        if (epoch->isValid && epoch->epochNumber.n == number) {
            return epoch;
        }
    }
    return NULL;
}

/* What keeps the epoch before the sequence number within the 53 bits that TypeScript can count. */
#define HIGHEST_EPOCH_SHIFT 36

uint64_t torpor_dtls_highest(const torpor_dtls *d)
{
    uint64_t next;

    if (d->state != TORPOR_DTLS_OPEN) {
        return 0;
    }
    if (torpor_dtls_version(d) == TORPOR_DTLS_13) {
        const Dtls13Epoch *epoch = torpor_dtls_wolfssl_epoch(d, d->ssl->dtls13PeerEpoch.n);
        return epoch == NULL ? 0 : epoch->epochNumber.n << HIGHEST_EPOCH_SHIFT | epoch->nextPeerSeqNumber.n;
    }
    next = (uint64_t) d->ssl->keys.peerSeq[0].nextSeq_hi << 32 | d->ssl->keys.peerSeq[0].nextSeq_lo;
    return next == 0 ? 0 : next - 1;
}

uint32_t torpor_dtls_build(void)
{
    /* What a saved session depends on; the last is the format of ours. */
    static const char BUILD[] = "wolfSSL " LIBWOLFSSL_VERSION_STRING " 1";
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (size_t i = 0; i < sizeof(BUILD) - 1; i++) {
        hash = (hash ^ (uint8_t) BUILD[i]) * 16777619u;
    }
    return hash;
}

int torpor_dtls_unique(const torpor_dtls *d, uint8_t out[TORPOR_DTLS_UNIQUE_MAX])
{
    if (d->state != TORPOR_DTLS_OPEN) {
        return TORPOR_DTLS_ERR_STATE;
    }
    memcpy(out, d->unique, d->unique_length);
    return d->unique_length;
}
