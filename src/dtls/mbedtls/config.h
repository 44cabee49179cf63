/*
 * The one mbedTLS 3.6 configuration of every desktop host: the Node.js binding, the simulator and the tests. It follows
 * what the ESP32 gets by sdkconfig, so that sizes, heap and behaviour on the desktop are those of the device.
 *
 *     cmake -DMBEDTLS_CONFIG_FILE=…/src/dtls/mbedtls/config.h …
 *
 * A saved session or context loads only in a build with this same configuration.
 */

/* ---- platform: no clock, no files, no sockets; memory through our counting allocator ---- */
#define MBEDTLS_HAVE_ASM
#define MBEDTLS_PLATFORM_C
#define MBEDTLS_PLATFORM_MEMORY
#define TORPOR_COUNT_HEAP /* src/pki/crypto.c hooks a counting allocator in */
/* No MBEDTLS_HAVE_TIME: the host hands the time in, and src/dtls/dtls.c checks validity itself, so that a device without
 * a trusted clock and a desktop take the same path. */

/* ---- PSA: every private key lives there; storage is the host's (hosts/desktop/its.c) ---- */
#define MBEDTLS_PSA_CRYPTO_C
#define MBEDTLS_PSA_CRYPTO_STORAGE_C
#define MBEDTLS_USE_PSA_CRYPTO
#define MBEDTLS_ENTROPY_C
#define MBEDTLS_CTR_DRBG_C

/* ---- algorithms of RFC 9148 section 3 and RFC 7925: P-256, SHA-256, AES-128; P-384 and SHA-384 for issuing CAs ---- */
#define MBEDTLS_AES_C
#define MBEDTLS_AES_ROM_TABLES /* as ESP-IDF has it: the tables take flash, not 10 KB of RAM */
#define MBEDTLS_CIPHER_C
#define MBEDTLS_CCM_C
#define MBEDTLS_GCM_C
#define MBEDTLS_MD_C
#define MBEDTLS_SHA256_C
#define MBEDTLS_SHA384_C
#define MBEDTLS_BIGNUM_C
#define MBEDTLS_ECP_C
#define MBEDTLS_ECP_NIST_OPTIM
#define MBEDTLS_ECP_DP_SECP256R1_ENABLED
#define MBEDTLS_ECP_DP_SECP384R1_ENABLED
#define MBEDTLS_ECDH_C
#define MBEDTLS_ECDSA_C

/* ---- certificates ---- */
#define MBEDTLS_ASN1_PARSE_C
#define MBEDTLS_ASN1_WRITE_C
#define MBEDTLS_OID_C
#define MBEDTLS_PK_C
#define MBEDTLS_PK_PARSE_C
#define MBEDTLS_X509_USE_C
#define MBEDTLS_X509_CRT_PARSE_C

/* ---- DTLS 1.2 ---- */
#define MBEDTLS_SSL_TLS_C
#define MBEDTLS_SSL_CLI_C
#define MBEDTLS_SSL_PROTO_TLS1_2
#define MBEDTLS_SSL_PROTO_DTLS
#define MBEDTLS_SSL_DTLS_ANTI_REPLAY
#define MBEDTLS_SSL_DTLS_HELLO_VERIFY
#define MBEDTLS_KEY_EXCHANGE_ECDHE_ECDSA_ENABLED
#define MBEDTLS_SSL_EXTENDED_MASTER_SECRET
#define MBEDTLS_SSL_SERVER_NAME_INDICATION
#define MBEDTLS_SSL_SESSION_TICKETS
#define MBEDTLS_SSL_KEYING_MATERIAL_EXPORT
#define MBEDTLS_SSL_CONTEXT_SERIALIZATION
#define MBEDTLS_SSL_DTLS_CONNECTION_ID
#define MBEDTLS_SSL_CID_TLS1_3_PADDING_GRANULARITY 1
/* Compiled in for the Finished values that tls-unique needs (RFC 5929); src/dtls/dtls.c disables it at run time. */
#define MBEDTLS_SSL_RENEGOTIATION
/* MBEDTLS_SSL_KEEP_PEER_CERTIFICATE stays off: it makes a saved session 593 bytes instead of 145. */

/* CoAP blocks are at most 1,024 bytes; 2,048 leaves room for a chain of certificates in one handshake message. */
#define MBEDTLS_SSL_IN_CONTENT_LEN 2048
#define MBEDTLS_SSL_OUT_CONTENT_LEN 2048

/* Bytes of handshake messages that came too early, which are kept. The longest message takes 2,303 in fragments, the rest
 * of a flight with two certificates some 1,200; the library's default lets a flood cost 2.3 KB more, and 32 KB where the
 * input buffer is larger. Measured by test/command/dtls-heap.test.ts; docs/memory.md has the figures. */
#define MBEDTLS_SSL_DTLS_MAX_BUFFERING 4096

/* ---- the server role, for the development server and the tests; never on a device ---- */
#if defined(TORPOR_SERVER)
#define MBEDTLS_SSL_SRV_C
#define MBEDTLS_SSL_CACHE_C
#define MBEDTLS_SSL_COOKIE_C
#define MBEDTLS_SSL_TICKET_C
#define MBEDTLS_SSL_DTLS_CLIENT_PORT_REUSE
/* An association takes two PSA key slots; the default of 32 would end at some 15 clients, with odd errors. */
#define MBEDTLS_PSA_KEY_STORE_DYNAMIC
#endif
