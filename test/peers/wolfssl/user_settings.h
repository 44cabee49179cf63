/*
 * What of wolfSSL the test server is built with: a DTLS 1.2 and 1.3 server with connection IDs (RFC 9146), the client's
 * cipher suites, P-256 and P-384, session ids, and tickets as the library makes them. wolfSSL reads this file because of WOLFSSL_USER_SETTINGS.
 */
#ifndef TORPOR_TEST_WOLFSSL_SETTINGS_H
#define TORPOR_TEST_WOLFSSL_SETTINGS_H

#define WOLFSSL_DTLS
#define WOLFSSL_DTLS_CID
#define HAVE_TLS_EXTENSIONS
#define HAVE_EXTENDED_MASTER
#define HAVE_SUPPORTED_CURVES
#define WOLFSSL_TLS13
#define WOLFSSL_DTLS13
#define WOLFSSL_DTLS_CH_FRAG
#define WOLFSSL_SEND_HRR_COOKIE
#define HAVE_SESSION_TICKET
#define WOLFSSL_TICKET_ENC_AES128_GCM
#define HAVE_HKDF
#define WOLFSSL_AES_DIRECT
#define NO_WOLFSSL_CLIENT
#define SMALL_SESSION_CACHE

#define HAVE_ECC
#define HAVE_ECC384
#define ECC_TIMING_RESISTANT
#define ECC_USER_CURVES
#define HAVE_AESCCM
#define HAVE_AESGCM
#define WOLFSSL_SHA384
#define WOLFSSL_SHA512
#define WOLFSSL_SP_MATH_ALL
#define SINGLE_THREADED

#define NO_DES3
#define NO_DH
#define NO_DSA
#define NO_MD4
#define NO_MD5
#define NO_OLD_TLS
#define NO_PSK
#define NO_PWDBASED
#define NO_RC4
#define NO_RSA
#define NO_SHA

#endif
