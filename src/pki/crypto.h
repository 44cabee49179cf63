/*
 * Device keys, certificate requests, hashes and random numbers over the PSA Crypto API: the part of the C core that is
 * not DTLS. Builds against mbedTLS 3.6 and 4.x. It opens no file; PSA's persistent storage is the host's.
 *
 *     uint32_t key = 0;
 *     torpor_crypto_open();
 *     torpor_key_generate(TORPOR_KEY_FIRST, 256, &key);
 *     torpor_csr(key, subject, subject_length, NULL, 0, csr, sizeof(csr), &csr_length);
 *
 * Return values: 0, or a negative number: a PSA status (-132 … -152) or an mbedTLS error (-0x7FFF … ). A function that
 * fails has changed nothing and leaves its outputs at 0 or zeroed. Private keys never leave PSA.
 */
#ifndef TORPOR_CRYPTO_H
#define TORPOR_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

/* ---- start and end ---- */

/*
 * Starts PSA Crypto. Call before anything else; more calls are harmless. PSA is global to the process. In a build with
 * TORPOR_COUNT_HEAP mbedTLS then allocates through a counting allocator: nothing may have used the library before.
 */
int torpor_crypto_open(void);

/* Wipes and frees everything that PSA holds in RAM, for all of the process. Persistent keys stay in storage. */
void torpor_crypto_close(void);

/* The library's version, such as "mbedTLS 3.6.6". */
const char *torpor_crypto_version(void);

/* ---- the heap of mbedTLS: what DTLS and certificates cost ---- */

typedef struct {
    size_t now;   /* bytes in use */
    size_t peak;  /* most bytes in use since the start or the last reset of the peak */
    size_t limit; /* an allocation beyond this fails; 0: no limit */
} torpor_heap;

/* The figures; 0 in a build without TORPOR_COUNT_HEAP. */
torpor_heap torpor_heap_figures(void);
/* Starts the peak anew from what is in use. */
void torpor_heap_reset_peak(void);
/* Sets the limit in bytes; 0 for none. */
void torpor_heap_limit(size_t limit);

/* Makes a block of mbedTLS's heap larger or smaller, as realloc does: for another library that shares it. */
void *torpor_heap_resize(void *pointer, size_t size);

/* ---- hashes and random numbers ---- */

int torpor_sha256(const uint8_t *input, size_t length, uint8_t hash[32]);
int torpor_random(uint8_t *output, size_t length);

/* ---- keys ---- */

/* Persistent keys of the device are numbered in this range; 0 stands for a key that ends with the process. */
#define TORPOR_KEY_FIRST 0x00545001u
#define TORPOR_KEY_LAST 0x005450FFu

/*
 * Where PSA makes and keeps the persistent keys: in its own storage, unless a build says otherwise. A secure element has a
 * location of its own, whose opaque driver PSA then calls for making, using and erasing keys; the private key never is in
 * the processor's memory. Keys that are imported (skg, skc) need a driver that takes them in.
 */
#if !defined(TORPOR_KEY_LOCATION)
#define TORPOR_KEY_LOCATION PSA_KEY_LOCATION_LOCAL_STORAGE
#endif

/* Bytes of the longest uncompressed point (P-384). */
#define TORPOR_POINT_BYTES_MAX 97

/*
 * Makes an ECDSA key of 256 or 384 bits (P-256, P-384) and stores it under `id` (0: in RAM only). `*key` is what the
 * functions below take. PSA_ERROR_ALREADY_EXISTS (-139) where `id` is taken.
 */
int torpor_key_generate(uint32_t id, unsigned bits, uint32_t *key);

/*
 * Takes in a private key in DER: PKCS #8 (RFC 5958, not encrypted) or SEC 1 (RFC 5915). P-256 or P-384.
 * PSA_ERROR_ALREADY_EXISTS (-139) where `id` is taken, PSA_ERROR_STORAGE_FAILURE (-146) where it cannot be stored.
 */
int torpor_key_import(uint32_t id, const uint8_t *der, size_t length, uint32_t *key);

/* 0 where a key with this number can be used; PSA_ERROR_INVALID_HANDLE (-136) where there is none. */
int torpor_key_check(uint32_t key);

/* The public key as an uncompressed point, 65 or 97 bytes (SEC 1 section 2.3.3). */
int torpor_key_public(uint32_t key, uint8_t *point, size_t size, size_t *length);

/* ECDSA over a hash of 32 bytes (P-256) or 48 bytes (P-384); the signature in DER (RFC 3279 section 2.2.3). */
int torpor_key_sign(uint32_t key, const uint8_t *hash, size_t hash_length, uint8_t *signature, size_t size,
                    size_t *length);

/* Erases the key, from storage too. A number without a key is no error. */
int torpor_key_destroy(uint32_t key);

/* ---- sealing: AES-128-GCM with a key of this device, for what lies in storage ---- */

/* The numbers that the sealing key may have, outside the range of the device's keys. */
#define TORPOR_SEAL_KEY_FIRST 0x00545100u
#define TORPOR_SEAL_KEY_LAST 0x00545107u
/* A sealed text is longer by this: a random nonce of 12 bytes before, the tag of 16 bytes behind. */
#define TORPOR_SEAL_BYTES 28

/*
 * The number of the device's sealing key, made at the first call and stored as PSA stores keys: in the device's secure
 * storage where there is one. A stored key that cannot be read is passed over, for PSA may not even be able to erase it;
 * the new one opens nothing that was sealed before.
 */
int torpor_seal_key(uint32_t *key);

/*
 * Encrypts `length` bytes into `out`, `length` + TORPOR_SEAL_BYTES of `size`. `associated` is authenticated and not
 * encrypted. PSA_ERROR_INVALID_ARGUMENT (-135) where `out` and `in` overlap, PSA_ERROR_BUFFER_TOO_SMALL (-138).
 */
int torpor_seal(uint32_t key, const uint8_t *associated, size_t associated_length, const uint8_t *in, size_t length,
                uint8_t *out, size_t size);

/*
 * Decrypts what torpor_seal made into `out`, `length` - TORPOR_SEAL_BYTES of `size`. PSA_ERROR_INVALID_SIGNATURE (-149)
 * where a bit of it or of `associated` is not the same, or the key is another one; `out` is zeroed then.
 */
int torpor_unseal(uint32_t key, const uint8_t *associated, size_t associated_length, const uint8_t *in, size_t length,
                  uint8_t *out, size_t size);

/* ---- certificate requests ---- */

/*
 * Writes a PKCS #10 request (RFC 2986) signed with `key`, ECDSA with SHA-256 (P-256) or SHA-384 (P-384).
 *   subject     a Name in DER, whole: as it stands in the certificate that it is taken from
 *   attributes  the Attribute values of the [0] SET in DER, one after the other, in DER's order; may be empty
 * The DER goes to the start of `out`. MBEDTLS_ERR_ASN1_BUF_TOO_SMALL (-0x6C) where it does not fit.
 * PSA_ERROR_INVALID_ARGUMENT (-135) where `out` shares bytes with `subject` or `attributes`.
 */
int torpor_csr(uint32_t key, const uint8_t *subject, size_t subject_length, const uint8_t *attributes,
               size_t attributes_length, uint8_t *out, size_t size, size_t *length);

/* ---- chains ---- */

/*
 * Whether certificates lead to a trust anchor, names and times left aside. Both are DER, one certificate after the
 * other; the first of `chain` is the one in question, the others may be of use on the way. Returns 0, or
 * MBEDTLS_X509_BADCERT_* flags (positive), or a negative error where one cannot be read or there is none.
 */
int torpor_chain_verify(const uint8_t *chain, size_t chain_length, const uint8_t *anchors, size_t anchors_length);

#endif
