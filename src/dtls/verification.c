/* Credentials and the judgement of a peer's chain: see verification.h. */
#include "verification.h"

#include <string.h>

#include <mbedtls/platform.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/version.h>
#include <psa/crypto.h>

/* Certificates that are kept at most: a server that sends more would fill the heap. */
#define CHAIN_BYTES_MAX 8192u

/* ---- credentials ---- */

void torpor_dtls_credentials_init(torpor_dtls_credentials *c)
{
    mbedtls_x509_crt_init(&c->trust);
    mbedtls_x509_crt_init(&c->chain);
    mbedtls_pk_init(&c->pk);
    c->key = 0;
}

void torpor_dtls_credentials_free(torpor_dtls_credentials *c)
{
    mbedtls_x509_crt_free(&c->trust);
    mbedtls_x509_crt_free(&c->chain);
    mbedtls_pk_free(&c->pk); /* of a PSA key it frees the reference, not the key */
}

int torpor_dtls_credentials_trust(torpor_dtls_credentials *c, const uint8_t *der, size_t length)
{
    return mbedtls_x509_crt_parse_der(&c->trust, der, length);
}

/* Whether `key` is the private half of the certificate's public key. */
static int check_key(uint32_t key, const mbedtls_x509_crt *certificate)
{
    uint8_t own[97], theirs[97];
    size_t own_length = 0, theirs_length = 0;
    psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
    psa_key_id_t public_key = 0;
    int ret = psa_export_public_key(key, own, sizeof(own), &own_length);

    if (ret == 0) {
        ret = mbedtls_pk_get_psa_attributes(&certificate->pk, PSA_KEY_USAGE_VERIFY_HASH, &attributes);
    }
    if (ret == 0) {
        psa_set_key_usage_flags(&attributes, PSA_KEY_USAGE_VERIFY_HASH | PSA_KEY_USAGE_EXPORT);
        ret = mbedtls_pk_import_into_psa(&certificate->pk, &attributes, &public_key);
    }
    if (ret == 0) {
        ret = psa_export_public_key(public_key, theirs, sizeof(theirs), &theirs_length);
    }
    psa_destroy_key(public_key);
    if (ret == 0 && (own_length != theirs_length || memcmp(own, theirs, own_length) != 0)) {
        ret = MBEDTLS_ERR_PK_TYPE_MISMATCH;
    }
    return ret;
}

int torpor_dtls_credentials_identity(torpor_dtls_credentials *c, uint32_t key, const uint8_t *der, size_t length)
{
    int first = c->chain.version == 0;
    int ret = mbedtls_x509_crt_parse_der(&c->chain, der, length);

    if (ret == 0 && first) {
        ret = check_key(key, &c->chain);
        if (ret == 0) {
#if MBEDTLS_VERSION_MAJOR >= 4
            ret = mbedtls_pk_wrap_psa(&c->pk, key);
#else
            ret = mbedtls_pk_setup_opaque(&c->pk, key);
#endif
        }
        if (ret != 0) {
            mbedtls_x509_crt_free(&c->chain);
            mbedtls_x509_crt_init(&c->chain);
        } else {
            c->key = key;
        }
    }
    return ret;
}

/* ---- verification ---- */

void torpor_dtls_verification_free(torpor_dtls_verification *v)
{
    mbedtls_free(v->chain);
    mbedtls_free(v->peer);
    v->chain = v->peer = NULL;
    v->chain_length = v->peer_length = 0;
}

/* Seconds since 1970 of a certificate's time; the days of the civil calendar counted from 1 March (leap day last). */
static int64_t seconds_of(const mbedtls_x509_time *t)
{
    int64_t year = t->mon > 2 ? t->year : t->year - 1;
    int64_t month = t->mon > 2 ? t->mon - 3 : t->mon + 9;
    int64_t days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + t->day - 1 - 719468;

    return ((days * 24 + t->hour) * 60 + t->min) * 60 + t->sec;
}

static int ascii_lower(int c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* Whether the certificate carries the address among the iPAddress names of its subjectAltName. */
static int has_address(const mbedtls_x509_crt *certificate, const uint8_t *address, size_t length)
{
    const mbedtls_x509_sequence *name;

    for (name = &certificate->subject_alt_names; name != NULL; name = name->next) {
        int tag = name->buf.tag & (MBEDTLS_ASN1_TAG_CLASS_MASK | MBEDTLS_ASN1_TAG_VALUE_MASK);
        if (tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_IP_ADDRESS) && name->buf.len == length &&
            memcmp(name->buf.p, address, length) == 0) {
            return 1;
        }
    }
    return 0;
}

/*
 * Whether the certificate carries the name among the dNSName names of its subjectAltName, as it is. RFC 7925 section
 * 4.4.1 has neither names in the subject nor wildcards, both of which the library accepts.
 */
static int has_name(const mbedtls_x509_crt *certificate, const char *wanted)
{
    const mbedtls_x509_sequence *name;
    size_t length = strlen(wanted);

    for (name = &certificate->subject_alt_names; name != NULL; name = name->next) {
        int tag = name->buf.tag & (MBEDTLS_ASN1_TAG_CLASS_MASK | MBEDTLS_ASN1_TAG_VALUE_MASK);
        if (tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_DNS_NAME) && name->buf.len == length) {
            size_t i = 0;
            while (i < length && ascii_lower(name->buf.p[i]) == ascii_lower((unsigned char) wanted[i])) {
                i++;
            }
            if (i == length) {
                return 1;
            }
        }
    }
    return 0;
}

/* Adds a certificate to those that are kept: the libraries forget them. */
static int keep_certificate(torpor_dtls_verification *v, const mbedtls_x509_crt *certificate)
{
    uint8_t *longer;
    size_t length = certificate->raw.len;

    if (length > CHAIN_BYTES_MAX - v->chain_length) {
        return MBEDTLS_ERR_X509_ALLOC_FAILED;
    }
    longer = mbedtls_calloc(1, v->chain_length + length);
    if (longer == NULL) {
        return MBEDTLS_ERR_X509_ALLOC_FAILED;
    }
    if (v->chain_length > 0) {
        memcpy(longer, v->chain, v->chain_length);
    }
    memcpy(longer + v->chain_length, certificate->raw.p, length);
    mbedtls_free(v->chain);
    v->chain = longer;
    v->chain_length += length;
    return 0;
}

int torpor_dtls_verify(void *context, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
    torpor_dtls_verification *v = context;

    v->verified = 1;
    if (certificate->raw.len == 0) { /* the library passes over those whose algorithm it does not know, and none is left */
        *flags |= MBEDTLS_X509_BADCERT_MISSING;
        v->flags |= *flags;
        return 0;
    }
    /* A library built with a clock of its own has judged the times by it; the host's time decides. */
    *flags &= ~(uint32_t) (MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
    if (v->unix_time != 0) {
        if (seconds_of(&certificate->valid_to) < (int64_t) v->unix_time) {
            *flags |= MBEDTLS_X509_BADCERT_EXPIRED;
        }
        if (seconds_of(&certificate->valid_from) > (int64_t) v->unix_time) {
            *flags |= MBEDTLS_X509_BADCERT_FUTURE;
        }
    }
    if (depth == 0 && v->address_length > 0 && !has_address(certificate, v->address, v->address_length)) {
        *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    }
    if (depth == 0 && v->address_length == 0 && v->name != NULL && !has_name(certificate, v->name)) {
        *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    }
    if (v->keep_chain) {
        int ret = keep_certificate(v, certificate);
        if (ret != 0) {
            return ret;
        }
    }
    if (depth == 0 && v->keep_peer) {
        mbedtls_free(v->peer);
        v->peer_length = 0;
        v->peer = mbedtls_calloc(1, certificate->raw.len);
        if (v->peer == NULL) {
            return MBEDTLS_ERR_X509_ALLOC_FAILED;
        }
        memcpy(v->peer, certificate->raw.p, certificate->raw.len);
        v->peer_length = certificate->raw.len;
    }
    v->flags |= *flags;
    return 0;
}
