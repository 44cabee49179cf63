/* Device keys, certificate requests, hashes and random numbers over PSA Crypto: see crypto.h. */
#include "crypto.h"

#include "../idf.h"

#include <stdlib.h>
#include <string.h>

#include <mbedtls/asn1write.h>
#include <mbedtls/error.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>

/* ---- the counting allocator ---- */

static torpor_heap heap;

/*
 * Only where the configuration asks for it: a system that has used the library before torpor_crypto_open would free its
 * blocks by the wrong function. ESP-IDF does, at its start.
 */
#if defined(TORPOR_COUNT_HEAP)

/* Room for the size before each block, aligned as malloc does. */
#define HEAP_PREFIX sizeof(max_align_t)

static void *heap_calloc(size_t count, size_t size)
{
    size_t bytes;
    uint8_t *block;

    if (size != 0 && count > (SIZE_MAX - HEAP_PREFIX) / size) {
        return NULL;
    }
    bytes = count * size;
    if (heap.limit != 0 && bytes > heap.limit - (heap.now < heap.limit ? heap.now : heap.limit)) {
        return NULL;
    }
    block = calloc(1, bytes + HEAP_PREFIX);
    if (block == NULL) {
        return NULL;
    }
    memcpy(block, &bytes, sizeof(bytes));
    heap.now += bytes;
    if (heap.now > heap.peak) {
        heap.peak = heap.now;
    }
    return block + HEAP_PREFIX;
}

static void heap_free(void *pointer)
{
    size_t bytes;
    uint8_t *block;

    if (pointer == NULL) {
        return;
    }
    block = (uint8_t *) pointer - HEAP_PREFIX;
    memcpy(&bytes, block, sizeof(bytes));
    heap.now -= bytes;
    free(block);
}

void *torpor_heap_resize(void *pointer, size_t size)
{
    size_t bytes = 0;
    void *block = heap_calloc(1, size);

    if (block != NULL && pointer != NULL) {
        memcpy(&bytes, (uint8_t *) pointer - HEAP_PREFIX, sizeof(bytes));
        memcpy(block, pointer, bytes < size ? bytes : size);
        heap_free(pointer);
    }
    return block;
}
#else
/* The library's allocator is the C library's, or, as on ESP-IDF, one whose blocks that takes. */
void *torpor_heap_resize(void *pointer, size_t size)
{
    return realloc(pointer, size);
}
#endif

torpor_heap torpor_heap_figures(void)
{
    return heap;
}

void torpor_heap_reset_peak(void)
{
    heap.peak = heap.now;
}

void torpor_heap_limit(size_t limit)
{
    heap.limit = limit;
}

/* ---- start and end ---- */

int torpor_crypto_open(void)
{
#if defined(TORPOR_COUNT_HEAP)
    /* Hooked once, before the first allocation: a block must be freed by the allocator that made it. */
    static int hooked;
    if (!hooked) {
        mbedtls_platform_set_calloc_free(heap_calloc, heap_free);
        hooked = 1;
    }
#endif
    return psa_crypto_init();
}

void torpor_crypto_close(void)
{
    mbedtls_psa_crypto_free();
}

const char *torpor_crypto_version(void)
{
    return "mbedTLS " MBEDTLS_VERSION_STRING;
}

/* ---- hashes and random numbers ---- */

int torpor_sha256(const uint8_t *input, size_t length, uint8_t hash[32])
{
    size_t hash_length;
    return psa_hash_compute(PSA_ALG_SHA_256, input, length, hash, 32, &hash_length);
}

int torpor_random(uint8_t *output, size_t length)
{
    return psa_generate_random(output, length);
}

/* ---- keys ---- */

static int is_device_id(uint32_t id)
{
    return id == 0 || (id >= TORPOR_KEY_FIRST && id <= TORPOR_KEY_LAST);
}

static void set_device_key(psa_key_attributes_t *attributes, uint32_t id)
{
    psa_set_key_usage_flags(attributes, PSA_KEY_USAGE_SIGN_HASH);
    psa_set_key_algorithm(attributes, PSA_ALG_ECDSA(PSA_ALG_ANY_HASH));
    if (id != 0) {
        psa_set_key_id(attributes, id);
        psa_set_key_lifetime(attributes, PSA_KEY_LIFETIME_FROM_PERSISTENCE_AND_LOCATION(
                                             PSA_KEY_PERSISTENCE_DEFAULT, TORPOR_KEY_LOCATION));
    }
}

int torpor_key_generate(uint32_t id, unsigned bits, uint32_t *key)
{
    psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;

    *key = 0;
    if (!is_device_id(id) || (bits != 256 && bits != 384)) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    set_device_key(&attributes, id);
    psa_set_key_type(&attributes, PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
    psa_set_key_bits(&attributes, bits);
    return psa_generate_key(&attributes, key);
}

/* mbedTLS 3.6 makes errors of its own of what PSA says: of a store that cannot be written, too. */
static int storage_error(int ret)
{
#if MBEDTLS_VERSION_MAJOR < 4
    if (ret == MBEDTLS_ERR_PK_FILE_IO_ERROR || ret == MBEDTLS_ERR_ERROR_GENERIC_ERROR) {
        return PSA_ERROR_STORAGE_FAILURE;
    }
#endif
    return ret;
}

int torpor_key_import(uint32_t id, const uint8_t *der, size_t length, uint32_t *key)
{
    psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
    mbedtls_pk_context pk;
    int ret;

    *key = 0;
    if (!is_device_id(id)) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    mbedtls_pk_init(&pk);
#if MBEDTLS_VERSION_MAJOR >= 4
    ret = mbedtls_pk_parse_key(&pk, der, length, NULL, 0);
#else
    ret = mbedtls_pk_parse_key(&pk, der, length, NULL, 0, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
#endif
    if (ret == 0) {
        ret = mbedtls_pk_get_psa_attributes(&pk, PSA_KEY_USAGE_SIGN_HASH, &attributes);
    }
    if (ret == 0 && psa_get_key_type(&attributes) != PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1)) {
        ret = PSA_ERROR_NOT_SUPPORTED;
    }
    if (ret == 0 && id != 0 && torpor_key_check(id) == 0) {
        ret = PSA_ERROR_ALREADY_EXISTS;
    }
    if (ret == 0) {
        set_device_key(&attributes, id);
        ret = mbedtls_pk_import_into_psa(&pk, &attributes, key);
        ret = id != 0 ? storage_error(ret) : ret;
    }
    mbedtls_pk_free(&pk);
    return ret;
}

/* Bits of an ECDSA key, or a negative status. */
static int key_bits(uint32_t key)
{
    psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
    psa_status_t status = psa_get_key_attributes(key, &attributes);
    size_t bits = psa_get_key_bits(&attributes);

    if (status != PSA_SUCCESS) {
        return status;
    }
    if (psa_get_key_type(&attributes) != PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1) ||
        (bits != 256 && bits != 384)) {
        return PSA_ERROR_NOT_SUPPORTED;
    }
    return (int) bits;
}

int torpor_key_check(uint32_t key)
{
    int bits = key_bits(key);
    return bits < 0 ? bits : 0;
}

int torpor_key_public(uint32_t key, uint8_t *point, size_t size, size_t *length)
{
    *length = 0;
    return psa_export_public_key(key, point, size, length);
}

int torpor_key_sign(uint32_t key, const uint8_t *hash, size_t hash_length, uint8_t *signature, size_t size,
                    size_t *length)
{
    uint8_t raw[96];
    size_t raw_length;
    int bits = key_bits(key);
    int ret;

    *length = 0;
    if (bits < 0) {
        return bits;
    }
    if (hash_length != (size_t) bits / 8) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    ret = psa_sign_hash(key, PSA_ALG_ECDSA(bits == 384 ? PSA_ALG_SHA_384 : PSA_ALG_SHA_256), hash, hash_length, raw,
                        sizeof(raw), &raw_length);
    if (ret == 0) {
        ret = mbedtls_ecdsa_raw_to_der((size_t) bits, raw, raw_length, signature, size, length);
    }
    return ret;
}

int torpor_key_destroy(uint32_t key)
{
    psa_status_t status = psa_destroy_key(key);
    return status == PSA_ERROR_INVALID_HANDLE || status == PSA_ERROR_DOES_NOT_EXIST ? 0 : status;
}

/* ---- sealing ---- */

/* Whether two ranges of memory share a byte. As numbers: pointers into different objects have no order in C. */
static int overlaps(const uint8_t *one, size_t one_length, const uint8_t *other, size_t other_length)
{
    uintptr_t a = (uintptr_t) one, b = (uintptr_t) other;
    return one_length > 0 && other_length > 0 && (a <= b ? b - a < one_length : a - b < other_length);
}

#define SEAL_NONCE_BYTES 12

static int make_seal_key(uint32_t id)
{
    psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
    psa_key_id_t made;

    psa_set_key_type(&attributes, PSA_KEY_TYPE_AES);
    psa_set_key_bits(&attributes, 128);
    psa_set_key_algorithm(&attributes, PSA_ALG_GCM);
    psa_set_key_usage_flags(&attributes, PSA_KEY_USAGE_ENCRYPT | PSA_KEY_USAGE_DECRYPT);
    psa_set_key_id(&attributes, id);
    psa_set_key_lifetime(&attributes, PSA_KEY_LIFETIME_PERSISTENT);
    return psa_generate_key(&attributes, &made);
}

int torpor_seal_key(uint32_t *key)
{
    int ret = 0;

    *key = 0;
    for (uint32_t id = TORPOR_SEAL_KEY_FIRST; id <= TORPOR_SEAL_KEY_LAST; id++) {
        psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
        ret = psa_get_key_attributes(id, &attributes);
        psa_reset_key_attributes(&attributes);
        if (ret == PSA_ERROR_INVALID_HANDLE || ret == PSA_ERROR_DOES_NOT_EXIST) {
            ret = make_seal_key(id);
        }
        if (ret == 0) {
            *key = id;
            return 0;
        }
    }
    return ret;
}

int torpor_seal(uint32_t key, const uint8_t *associated, size_t associated_length, const uint8_t *in, size_t length,
                uint8_t *out, size_t size)
{
    size_t made;
    int ret;

    if (size < TORPOR_SEAL_BYTES || size - TORPOR_SEAL_BYTES < length) {
        return PSA_ERROR_BUFFER_TOO_SMALL;
    }
    if (overlaps(in, length, out, size) || overlaps(associated, associated_length, out, size)) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    ret = psa_generate_random(out, SEAL_NONCE_BYTES);
    if (ret == 0) {
        ret = psa_aead_encrypt(key, PSA_ALG_GCM, out, SEAL_NONCE_BYTES, associated, associated_length, in, length,
                               out + SEAL_NONCE_BYTES, size - SEAL_NONCE_BYTES, &made);
    }
    return ret;
}

int torpor_unseal(uint32_t key, const uint8_t *associated, size_t associated_length, const uint8_t *in, size_t length,
                  uint8_t *out, size_t size)
{
    size_t made;
    int ret;

    if (length < TORPOR_SEAL_BYTES) {
        return PSA_ERROR_INVALID_SIGNATURE;
    }
    if (size < length - TORPOR_SEAL_BYTES) {
        return PSA_ERROR_BUFFER_TOO_SMALL;
    }
    if (overlaps(in, length, out, size) || overlaps(associated, associated_length, out, size)) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    ret = psa_aead_decrypt(key, PSA_ALG_GCM, in, SEAL_NONCE_BYTES, associated, associated_length,
                           in + SEAL_NONCE_BYTES, length - SEAL_NONCE_BYTES, out, size, &made);
    if (ret != 0) {
        memset(out, 0, size);
    }
    return ret;
}

/* ---- certificate requests ---- */

static const uint8_t OID_EC_PUBLIC_KEY[] = {0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01};
static const uint8_t OID_P256[] = {0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07};
static const uint8_t OID_P384[] = {0x2B, 0x81, 0x04, 0x00, 0x22};
static const uint8_t OID_ECDSA_SHA256[] = {0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02};
static const uint8_t OID_ECDSA_SHA384[] = {0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03};

/* mbedTLS writes DER from the end of a buffer towards its start: each call adds before what is there. */
typedef struct {
    uint8_t *start; /* of the buffer */
    uint8_t *p;     /* first byte written so far */
    uint8_t *end;   /* of the buffer */
    int error;      /* the first error; the calls after it do nothing */
} writer;

#define SEQUENCE (MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE)
#define CONTEXT_0 (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_ASN1_CONSTRUCTED | 0)

static void note(writer *w, int ret)
{
    if (ret < 0) {
        w->error = ret;
    }
}

static size_t written(const writer *w)
{
    return (size_t) (w->end - w->p);
}

static void put_raw(writer *w, const uint8_t *bytes, size_t length)
{
    if (w->error == 0 && length > 0) {
        note(w, mbedtls_asn1_write_raw_buffer(&w->p, w->start, bytes, length));
    }
}

static void put_bits(writer *w, const uint8_t *bytes, size_t length)
{
    if (w->error == 0) {
        note(w, mbedtls_asn1_write_bitstring(&w->p, w->start, bytes, length * 8));
    }
}

/* Tag and length before the `length` bytes written last. */
static void put_header(writer *w, size_t length, int tag)
{
    if (w->error == 0) {
        note(w, mbedtls_asn1_write_len(&w->p, w->start, length));
    }
    if (w->error == 0) {
        note(w, mbedtls_asn1_write_tag(&w->p, w->start, (unsigned char) tag));
    }
}

static void put_oid(writer *w, const uint8_t *oid, size_t length)
{
    put_raw(w, oid, length);
    put_header(w, length, MBEDTLS_ASN1_OID);
}

/* SubjectPublicKeyInfo ::= SEQUENCE { SEQUENCE { id-ecPublicKey, curve }, BIT STRING } (RFC 5480) */
static void put_public_key(writer *w, int bits, const uint8_t *point, size_t length)
{
    size_t before = written(w), before_algorithm;

    put_bits(w, point, length);
    before_algorithm = written(w);
    if (bits == 384) {
        put_oid(w, OID_P384, sizeof(OID_P384));
    } else {
        put_oid(w, OID_P256, sizeof(OID_P256));
    }
    put_oid(w, OID_EC_PUBLIC_KEY, sizeof(OID_EC_PUBLIC_KEY));
    put_header(w, written(w) - before_algorithm, SEQUENCE);
    put_header(w, written(w) - before, SEQUENCE);
}

/* What follows the CertificationRequestInfo: SEQUENCE { ecdsa-with-SHA256 or -SHA384 }, BIT STRING */
static void put_signature(writer *w, int bits, const uint8_t *signature, size_t length)
{
    size_t before;

    put_bits(w, signature, length);
    before = written(w);
    if (bits == 384) {
        put_oid(w, OID_ECDSA_SHA384, sizeof(OID_ECDSA_SHA384));
    } else {
        put_oid(w, OID_ECDSA_SHA256, sizeof(OID_ECDSA_SHA256));
    }
    put_header(w, written(w) - before, SEQUENCE);
}

int torpor_csr(uint32_t key, const uint8_t *subject, size_t subject_length, const uint8_t *attributes,
               size_t attributes_length, uint8_t *out, size_t size, size_t *length)
{
    uint8_t point[TORPOR_POINT_BYTES_MAX];
    uint8_t signature[112];        /* two INTEGERs of up to 49 bytes in a SEQUENCE */
    uint8_t tail[sizeof(signature) + 24];
    uint8_t hash[48];
    writer info = {out, out + size, out + size, 0};
    writer rest = {tail, tail + sizeof(tail), tail + sizeof(tail), 0};
    size_t point_length = 0, signature_length = 0, hash_length = 0, info_length;
    int bits, ret;

    *length = 0;
    if (overlaps(out, size, subject, subject_length) || overlaps(out, size, attributes, attributes_length)) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    bits = key_bits(key);
    if (bits < 0) {
        return bits;
    }
    ret = torpor_key_public(key, point, sizeof(point), &point_length);
    if (ret != 0) {
        return ret;
    }

    /* CertificationRequestInfo ::= SEQUENCE { version 0, subject, subjectPKInfo, [0] IMPLICIT SET OF Attribute } */
    put_raw(&info, attributes, attributes_length);
    put_header(&info, attributes_length, CONTEXT_0);
    put_public_key(&info, bits, point, point_length);
    put_raw(&info, subject, subject_length);
    if (info.error == 0) {
        note(&info, mbedtls_asn1_write_int(&info.p, info.start, 0));
    }
    put_header(&info, written(&info), SEQUENCE);
    ret = info.error;
    info_length = written(&info);

    if (ret == 0) {
        ret = psa_hash_compute(bits == 384 ? PSA_ALG_SHA_384 : PSA_ALG_SHA_256, info.p, info_length, hash,
                               sizeof(hash), &hash_length);
    }
    if (ret == 0) {
        ret = torpor_key_sign(key, hash, hash_length, signature, sizeof(signature), &signature_length);
    }
    if (ret == 0) {
        put_signature(&rest, bits, signature, signature_length);
        ret = rest.error;
    }
    if (ret == 0 && written(&rest) > (size_t) (info.p - out)) {
        ret = MBEDTLS_ERR_ASN1_BUF_TOO_SMALL;
    }

    /* CertificationRequest ::= SEQUENCE { info, signatureAlgorithm, signature }: the info moves up by the tail's size. */
    if (ret == 0) {
        info.p -= written(&rest);
        memmove(info.p, info.p + written(&rest), info_length);
        memcpy(info.p + info_length, rest.p, written(&rest));
        put_header(&info, info_length + written(&rest), SEQUENCE);
        ret = info.error;
    }
    if (ret != 0) {
        memset(out, 0, size);
        return ret;
    }
    *length = written(&info);
    memmove(out, info.p, *length);
    return 0;
}

/* ---- chains ---- */

/* Reads certificates in DER that lie one after the other. */
static int read_certificates(mbedtls_x509_crt *list, const uint8_t *der, size_t length)
{
    unsigned char *p = (unsigned char *) der;
    const unsigned char *end = der + length;
    int ret = length == 0 ? MBEDTLS_ERR_X509_INVALID_FORMAT : 0;

    while (ret == 0 && p < end) {
        unsigned char *start = p;
        size_t content;
        ret = mbedtls_asn1_get_tag(&p, end, &content, SEQUENCE);
        if (ret == 0) {
            p += content;
            ret = mbedtls_x509_crt_parse_der(list, start, (size_t) (p - start));
        }
    }
    return ret;
}

int torpor_chain_verify(const uint8_t *chain, size_t chain_length, const uint8_t *anchors, size_t anchors_length)
{
    mbedtls_x509_crt certificates, trusted;
    uint32_t flags = 0;
    int ret;

    mbedtls_x509_crt_init(&certificates);
    mbedtls_x509_crt_init(&trusted);
    ret = read_certificates(&certificates, chain, chain_length);
    if (ret == 0) {
        ret = read_certificates(&trusted, anchors, anchors_length);
    }
    if (ret == 0) {
        ret = mbedtls_x509_crt_verify(&certificates, &trusted, NULL, NULL, &flags, NULL, NULL);
        if (ret == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
            ret = 0;
        }
    }
    mbedtls_x509_crt_free(&certificates);
    mbedtls_x509_crt_free(&trusted);
    /* Times are the business of whoever has the clock. */
    flags &= ~(uint32_t) (MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
    return ret != 0 ? ret : (int) (flags & INT32_MAX);
}
