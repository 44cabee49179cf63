/*
 * The wolfSSL configuration of the second engine and of its development server (test/peers/wolfssl has one of its own):
 * DTLS 1.3 (RFC 9147) and DTLS 1.2, the suites and curves of RFC 9148, P-384 for issuing CAs, hybrid key exchange by option.
 * wolfSSL reads this file because of WOLFSSL_USER_SETTINGS.
 *
 *     cc -DWOLFSSL_USER_SETTINGS -Isrc/dtls/wolfssl …
 *
 * wolfSSL is under the GPL or a commercial licence: nothing of it is built or linked unless it was asked for.
 */
#ifndef TORPOR_WOLFSSL_SETTINGS_H
#define TORPOR_WOLFSSL_SETTINGS_H

/* ---- platform: no files, no sockets, no clock, no threads; memory, time and random numbers come from the core ---- */
#define NO_FILESYSTEM
#define NO_WRITEV
#define WOLFSSL_NO_SOCK
#define WOLFSSL_USER_IO
#define SINGLE_THREADED
#define NO_ERROR_STRINGS
#define NO_MAIN_DRIVER
#define WOLFSSL_SMALL_STACK
#define WOLFSSL_USE_ALIGN
#define WOLFSSL_IGNORE_FILE_WARN
/* The core's clock, which is that of the call: LowResTimer and TimeNowInMilliseconds. */
#define USER_TICKS
/* Validity times are judged by verification.c. */
#define NO_ASN_TIME_CHECK
#if defined(TORPOR_WOLFSSL_CORE)
#define CUSTOM_RAND_GENERATE_BLOCK torpor_wolfssl_random
int torpor_wolfssl_random(unsigned char *output, unsigned int size);
#endif

/* ---- DTLS ---- */
#define WOLFSSL_DTLS
#define WOLFSSL_DTLS13
#define WOLFSSL_TLS13
#define WOLFSSL_DTLS_CID
#define WOLFSSL_DTLS_MTU
/* Bytes that the peer's datagrams may exceed our MTU by: ours is 256 at least, theirs 1,232. */
#define WOLFSSL_DTLS_MTU_ADDITIONAL_READ_BUFFER 976
#define WOLFSSL_DTLS_CH_FRAG
#define WOLFSSL_SEND_HRR_COOKIE
#define WOLFSSL_DTLS13_NO_HRR_ON_RESUME
#define NO_OLD_TLS
#define HAVE_TLS_EXTENSIONS
#define HAVE_SUPPORTED_CURVES
#define HAVE_EXTENDED_MASTER
#define HAVE_SNI
#define HAVE_SESSION_TICKET
/* Of any length, as RFC 8446 section 4.6.1 has it. */
#define WOLFSSL_TICKET_NONCE_MALLOC
#define HAVE_KEYING_MATERIAL
#define WOLFSSL_EXTRA_ALERTS
#define WOLFSSL_HAVE_TLS_UNIQUE
#define HAVE_PK_CALLBACKS
/* The core times retransmissions and bounds them; a second limit in the library would swallow some. */
#define DTLS13_MIN_RTX_INTERVAL 1
/* Records of the peer that wait to be acknowledged: those of the longest flight, many times over. */
#define DTLS13_ACK_MAX_RECORDS 32
/* No WOLFSSL_EARLY_DATA: RFC 9148 and the profiles for the Internet of Things forbid it. */

/* ---- certificates: verification.c judges them; what wolfSSL cannot lead to an anchor it leaves to the callback ---- */
#define WOLFSSL_ALWAYS_VERIFY_CB
#define WOLFSSL_ALT_CERT_CHAINS
#define IGNORE_NAME_CONSTRAINTS

/* ---- algorithms ---- */
#define HAVE_ECC
#define WOLFSSL_ECDSA_MATCH_HASH
#define ECC_USER_CURVES
#define HAVE_ECC384
#define ECC_TIMING_RESISTANT
#define HAVE_HKDF
#define HAVE_AESGCM
#define HAVE_AESCCM
#define GCM_SMALL
#define NO_AES_192
#define NO_AES_256
#define WOLFSSL_AES_SMALL_TABLES
#define WOLFSSL_AES_DIRECT
#define WOLFSSL_SHA384
#define WOLFSSL_SHA512
#define WOLFSSL_SP_MATH
#define WOLFSSL_SP_SMALL
#define WOLFSSL_HAVE_SP_ECC
#define WOLFSSL_SP_384

#define NO_DES3
#define NO_DH
#define NO_DSA
#define NO_MD4
#define NO_MD5
#define NO_PSK
#define NO_PWDBASED
#define NO_RC4
#define NO_RSA
#define NO_SHA
#define NO_PKCS7
#define NO_PKCS12

/* ---- hybrid key exchange (ML-KEM) ---- */
#if defined(TORPOR_MLKEM)
#define WOLFSSL_HAVE_MLKEM
#define WOLFSSL_WC_MLKEM
#define WOLFSSL_NO_ML_KEM_512
#define WOLFSSL_NO_ML_KEM_1024
#define WOLFSSL_PQC_HYBRIDS
#define WOLFSSL_TLS_NO_MLKEM_STANDALONE
#define WOLFSSL_MLKEM_SMALL
#define WOLFSSL_MLKEM_MAKEKEY_SMALL_MEM
#define WOLFSSL_MLKEM_ENCAPSULATE_SMALL_MEM
#define WOLFSSL_SHA3
#define WOLFSSL_SHAKE128
#define WOLFSSL_SHAKE256
#define HAVE_CURVE25519
#define CURVE25519_SMALL
#endif

/* ---- roles ---- */
#if !defined(TORPOR_SERVER)
#define NO_WOLFSSL_SERVER
#define NO_SESSION_CACHE
#else
#define SMALL_SESSION_CACHE
#define SESSION_TICKET_HINT_DEFAULT 86400
#define WOLFSSL_TICKET_KEY_LIFETIME (2 * 86400)
#define WOLFSSL_TICKET_ENC_AES128_GCM
#endif

#endif
