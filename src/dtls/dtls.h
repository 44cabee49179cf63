/*
 * The DTLS engine: a DTLS client (RFC 7925 profile) that does no I/O. Datagrams go in and come out by function calls,
 * time comes with the calls, and the host is told when to call next. No sockets, no clock, no files.
 *
 * There are two, and a build has one: dtls.c over mbedTLS 3.6 and 4.x has DTLS 1.2 (RFC 6347); wolfssl/core.c over
 * wolfSSL 5.9.2 and later prefers DTLS 1.3 (RFC 9147) and falls back to 1.2 in the same hello. It saves no contexts.
 *
 *     torpor_dtls *d;
 *     torpor_dtls_new(&d);
 *     torpor_dtls_trust(d, anchor, anchor_length);
 *     torpor_dtls_identity(d, key, certificate, certificate_length);
 *     torpor_dtls_server_name(d, "est.example.net");
 *     torpor_dtls_start(d, now, unix_time, NULL, 0);
 *     for (;;) {
 *         while ((n = torpor_dtls_take(d, datagram, sizeof(datagram))) > 0) send(datagram, n);
 *         … wait for a datagram, at most until torpor_dtls_deadline(d) …
 *         if (came) torpor_dtls_receive(d, now, datagram, n); else torpor_dtls_elapse(d, now);
 *         while ((n = torpor_dtls_read(d, message, sizeof(message))) > 0) use(message, n);
 *         if (torpor_dtls_state(d) == TORPOR_DTLS_OPEN) torpor_dtls_write(d, request, request_length);
 *     }
 *     torpor_dtls_free(d);
 *
 * The one rule of order: take every outgoing datagram before the next receive, elapse or write. The engine holds one
 * datagram, in the library's own output buffer, and makes the next one only when that is taken: no queue, no copy. The one
 * over wolfSSL, which cannot be stopped half-way, holds a flight.
 *
 * Return values: 0 or a length; or a negative number: TORPOR_DTLS_ERR_*, an mbedTLS error or a PSA status. Times named
 * `now` are milliseconds from any origin; one that steps back counts as no time passed. `unix_time` is seconds since
 * 1970, or 0 where there is no trusted clock. Pointers are borrowed for the call only. One association is used from one
 * thread at a time.
 */
#ifndef TORPOR_DTLS_H
#define TORPOR_DTLS_H

#include <stddef.h>
#include <stdint.h>

typedef struct torpor_dtls torpor_dtls;

/* Errors of this layer, outside the ranges of mbedTLS and PSA. */
#define TORPOR_DTLS_ERR_STATE (-0x10001)   /* the call does not fit the state of the association */
#define TORPOR_DTLS_ERR_PENDING (-0x10002) /* an outgoing datagram waits to be taken first */
#define TORPOR_DTLS_ERR_SIZE (-0x10003)    /* the buffer is too small, or the message does not fit one datagram */
#define TORPOR_DTLS_ERR_FORMAT (-0x10004)  /* the bytes are not what they should be */
#define TORPOR_DTLS_ERR_BUILD (-0x10005)   /* the session was saved by another build of the library */
#define TORPOR_DTLS_ERR_SUPPORT (-0x10006) /* this engine, or this build of it, cannot do that */

/* UDP payload, bytes: what fits IPv6's smallest MTU (1,280 less 40 for IP and 8 for UDP). */
#define TORPOR_DTLS_MTU 1232
/* First retransmission after this many milliseconds (RFC 7925 section 11), then twice that, and so on. */
#define TORPOR_DTLS_TIMER 9000
/* A handshake that takes longer than this many milliseconds in all has failed. */
#define TORPOR_DTLS_PATIENCE 60000

/* ---- set up ---- */

/* A new association. 0, or a negative error: no memory. */
int torpor_dtls_new(torpor_dtls **association);

/* Wipes and frees everything; NULL is ignored. Sends nothing: call torpor_dtls_close and take first where wanted. */
void torpor_dtls_free(torpor_dtls *d);

/* Adds a trust anchor, a certificate in DER. At least one is needed: the server's certificate is always verified. */
int torpor_dtls_trust(torpor_dtls *d, const uint8_t *der, size_t length);

/*
 * Adds a certificate of the client's own, in DER: first the client's, then the CAs that issued it, upwards. `key` is
 * the key of the first one (crypto.h); later calls pass the same. MBEDTLS_ERR_PK_TYPE_MISMATCH (-0x3F00) where the key
 * does not belong to the first certificate.
 */
int torpor_dtls_identity(torpor_dtls *d, uint32_t key, const uint8_t *der, size_t length);

/* The server's DNS name, sent as SNI (RFC 6066 section 3) and demanded in its certificate. At most 255 bytes. */
int torpor_dtls_server_name(torpor_dtls *d, const char *name);

/*
 * The server's IP address, 4 or 16 bytes, demanded among the iPAddress names of its certificate. No SNI is sent: RFC
 * 6066 forbids literal addresses there. Either this or torpor_dtls_server_name is needed.
 */
int torpor_dtls_server_address(torpor_dtls *d, const uint8_t *address, size_t length);

/* Largest outgoing UDP payload in bytes, 256 … 2048; a flight is cut to fit. */
int torpor_dtls_mtu(torpor_dtls *d, unsigned bytes);

/* First retransmission timer and the bound of the whole handshake, both in milliseconds, 1 … 3,600,000. */
int torpor_dtls_timers(torpor_dtls *d, uint32_t first, uint32_t patience);

/*
 * Offers the session ticket extension (RFC 5077) in the handshake. Without this call it is not offered, and servers
 * tend to assign a session id then, whose resumption costs a third of the bytes.
 */
void torpor_dtls_offer_tickets(torpor_dtls *d);

/*
 * Offers a connection ID (RFC 9146): the server then finds the association by the ID in each record, wherever the
 * datagram comes from, and the association can be saved (torpor_dtls_context). `length` is that of the ID that the
 * server is to put into its own records, 0 … TORPOR_DTLS_CID_MAX bytes; 0 saves them and serves where a socket has one
 * association.
 */
#define TORPOR_DTLS_CID_MAX 8
int torpor_dtls_offer_connection_id(torpor_dtls *d, unsigned length);

/*
 * Versions of DTLS that are offered, 12 and 13 for 1.2 and 1.3: all that the engine has unless told.
 * TORPOR_DTLS_ERR_SUPPORT where it has none of them.
 */
int torpor_dtls_versions(torpor_dtls *d, unsigned lowest, unsigned highest);

/*
 * Groups for the key exchange by their IANA numbers, 1 … TORPOR_DTLS_GROUPS_MAX, the most wanted first; the first one's share
 * goes into the first hello. secp256r1 (23) unless told; secp384r1 (24), X25519MLKEM768 (4588), SecP256r1MLKEM768 (4587) in DTLS 1.3.
 * TORPOR_DTLS_ERR_SUPPORT where one is not in this build.
 */
#define TORPOR_DTLS_GROUPS_MAX 4
int torpor_dtls_groups(torpor_dtls *d, const uint16_t *groups, size_t count);

/*
 * Resumes in DTLS 1.3 without a key exchange of its own (psk_ke, RFC 8446 section 4.2.9): fewer bytes and no
 * multiplication on the curve, but whoever gets the session's secret later reads what was recorded.
 */
void torpor_dtls_resume_by_psk_alone(torpor_dtls *d);

/*
 * Begins the handshake. `session` is one that torpor_dtls_session gave, to be resumed, or NULL for a full handshake.
 * TORPOR_DTLS_ERR_BUILD or TORPOR_DTLS_ERR_FORMAT: the session cannot be loaded, nothing has begun, and the same
 * association may be started without it. The session is not authenticated here: hand in only bytes that nobody else
 * could have written.
 */
int torpor_dtls_start(torpor_dtls *d, uint64_t now, uint64_t unix_time, const uint8_t *session, size_t length);

/*
 * Goes on with an association that torpor_dtls_context saved: it is open at once, and nothing has been sent. Neither
 * trust anchors nor identity are needed. TORPOR_DTLS_ERR_BUILD or TORPOR_DTLS_ERR_FORMAT where the context cannot be
 * loaded, TORPOR_DTLS_ERR_SUPPORT where the engine restores none; the association has failed then.
 *
 * A context is good for one restore: a second one would use sequence numbers again, and with them the nonces of the
 * AEAD, which gives away what was encrypted, and take old records of the server for new ones. The caller marks it as
 * used, in storage, before the first datagram is sent. It is not authenticated here: hand in only bytes that nobody
 * else could have written.
 */
int torpor_dtls_restore(torpor_dtls *d, uint64_t now, uint64_t unix_time, const uint8_t *context, size_t length);

/* ---- run ---- */

/*
 * Hands in one datagram as it came. Whatever it contains, the association does not fail by it unless the handshake
 * itself is broken: records that do not authenticate are dropped silently, as DTLS demands. Read what waits first: a
 * datagram that comes while a message waits is lost.
 */
int torpor_dtls_receive(torpor_dtls *d, uint64_t now, const uint8_t *datagram, size_t length);

/* Time has passed: retransmits, or gives up. Call at the deadline; earlier calls do nothing. */
int torpor_dtls_elapse(torpor_dtls *d, uint64_t now);

#define TORPOR_DTLS_NEVER UINT64_MAX
/* The time by which torpor_dtls_elapse must be called, or TORPOR_DTLS_NEVER. */
uint64_t torpor_dtls_deadline(const torpor_dtls *d);

/*
 * The next outgoing datagram, into a buffer of `size` bytes: its length, or 0 where there is none. TORPOR_DTLS_ERR_SIZE
 * where it does not fit; it stays then. A buffer of the MTU always fits.
 */
int torpor_dtls_take(torpor_dtls *d, uint8_t *datagram, size_t size);

/* Bytes of the datagram that torpor_dtls_take gives next; 0 where there is none. */
size_t torpor_dtls_pending(const torpor_dtls *d);

/*
 * The next message from the peer, one record, into a buffer of `size` bytes: its length, or 0 where none waits. Of a
 * message longer than the buffer the first `size` bytes are given, and its whole length is returned. One datagram may
 * hold several: read until 0.
 */
int torpor_dtls_read(torpor_dtls *d, uint8_t *message, size_t size);

/* Bytes of the message that torpor_dtls_read gives next; 0 where none waits. */
size_t torpor_dtls_readable(const torpor_dtls *d);

/* Protects one message as one record in one datagram, to be taken. TORPOR_DTLS_ERR_SIZE where it exceeds the MTU. */
int torpor_dtls_write(torpor_dtls *d, const uint8_t *message, size_t length);

/* Ends the association with a close_notify alert, to be taken. A handshake that goes on ends without one. */
int torpor_dtls_close(torpor_dtls *d);

/* ---- look ---- */

enum {
    TORPOR_DTLS_IDLE = 0,      /* set up, not started */
    TORPOR_DTLS_HANDSHAKE = 1, /* started */
    TORPOR_DTLS_OPEN = 2,      /* messages can be written and read */
    TORPOR_DTLS_CLOSED = 3,    /* by either side */
    TORPOR_DTLS_FAILED = 4     /* torpor_dtls_failure says why */
};
int torpor_dtls_state(const torpor_dtls *d);

enum {
    TORPOR_DTLS_FAILURE_NONE = 0,
    TORPOR_DTLS_FAILURE_TIMEOUT = 1,     /* the peer did not answer within the patience */
    TORPOR_DTLS_FAILURE_ALERT = 2,       /* detail: the fatal alert that the peer sent (RFC 5246 section 7.2) */
    TORPOR_DTLS_FAILURE_CERTIFICATE = 3, /* detail: MBEDTLS_X509_BADCERT_* flags of the peer's certificate */
    TORPOR_DTLS_FAILURE_MEMORY = 4,      /* no memory */
    TORPOR_DTLS_FAILURE_PROTOCOL = 5     /* detail: the library's error, as a positive number */
};
typedef struct {
    int kind;
    uint32_t detail;
} torpor_dtls_failure_info;
torpor_dtls_failure_info torpor_dtls_failure(const torpor_dtls *d);

/* The negotiated version: 12 for DTLS 1.2, 13 for DTLS 1.3; 0 unless open. */
unsigned torpor_dtls_version(const torpor_dtls *d);

/* The IANA number of the group of the key exchange (RFC 8422, RFC 8446 section 4.2.7); 0 unless open, or where none was. */
unsigned torpor_dtls_group(const torpor_dtls *d);

/*
 * How many tickets have come that are good for another handshake. In DTLS 1.3 they come after the handshake, whenever the
 * server likes, and torpor_dtls_session gives the last one: a change of this number says that there is a new one.
 */
unsigned torpor_dtls_tickets(const torpor_dtls *d);

/* The IANA number of the negotiated cipher suite, or 0 before the handshake is over. */
unsigned torpor_dtls_cipher_suite(const torpor_dtls *d);

/* 1 where the handshake was an abbreviated one (the session was resumed), or none (restored); 0: a full one. */
int torpor_dtls_resumed(const torpor_dtls *d);

/* 1 where the validity times of the peer's certificates could be checked; 0 without a time, and when resumed. */
int torpor_dtls_time_checked(const torpor_dtls *d);

enum {
    TORPOR_DTLS_SESSION_NONE = 0,   /* the server gave neither: nothing to resume */
    TORPOR_DTLS_SESSION_ID = 1,     /* RFC 5246 session id */
    TORPOR_DTLS_SESSION_TICKET = 2  /* RFC 5077 ticket, or that of DTLS 1.3 (RFC 8446 section 4.6.1) */
};
typedef struct {
    int kind;
    uint32_t lifetime; /* the server's ticket lifetime hint in seconds; 0: not given */
} torpor_dtls_session_info;

/*
 * Writes the session of an open association, to be resumed later; a secret. `*length` is its size, also where it does
 * not fit (TORPOR_DTLS_ERR_SIZE) or is only asked for (`out` NULL, `size` 0). About 145 bytes, and the ticket.
 */
int torpor_dtls_session(torpor_dtls *d, uint8_t *out, size_t size, size_t *length, torpor_dtls_session_info *info);

/* Removes the ticket from the session of an open association, for a context without it; the session resumes no more. */
int torpor_dtls_drop_ticket(torpor_dtls *d);

/* 1 where the peer has agreed to connection IDs, so that the association can be saved; else 0. */
int torpor_dtls_has_connection_id(torpor_dtls *d);

/*
 * Saves an open association with a connection ID, to be restored after sleep; a secret. `*length` is its size, also
 * where it does not fit (TORPOR_DTLS_ERR_SIZE) or is only asked for (`out` NULL, `size` 0). About 260 bytes, and the
 * ticket. It holds the session too. Once it is written the association is closed, without a word to the server: save
 * last. TORPOR_DTLS_ERR_STATE where it cannot be saved: no connection ID, messages or datagrams wait, or no message has
 * come since an abbreviated handshake, whose end the server may not have seen. TORPOR_DTLS_ERR_SUPPORT: this engine saves
 * none.
 */
int torpor_dtls_context(torpor_dtls *d, uint8_t *out, size_t size, size_t *length);

/* Bytes that a record adds to its message: header, connection ID, nonce, type and tag; 0 unless open. */
size_t torpor_dtls_overhead(const torpor_dtls *d);

/* A number that grows with each record of the peer that is authentic and newer than all before; 0 unless open. */
uint64_t torpor_dtls_highest(const torpor_dtls *d);

/* A number for this build: another library, configuration or format gives another one. Saved bytes are for their own. */
uint32_t torpor_dtls_build(void);

/* The library that runs the protocol, its version, and what that lacks, such as "wolfSSL 5.9.2, without ML-KEM". */
const char *torpor_dtls_library(void);

/*
 * The channel binding of an open association: its length, and the bytes at the start of `out`. Of DTLS 1.2 tls-unique
 * (RFC 5929 section 3), the verify_data of the first Finished message, 12 bytes; of a restored association that of its
 * handshake. Of DTLS 1.3 tls-exporter (RFC 9266), 32 bytes. TORPOR_DTLS_ERR_STATE unless open.
 */
#define TORPOR_DTLS_UNIQUE_MAX 32
int torpor_dtls_unique(const torpor_dtls *d, uint8_t out[TORPOR_DTLS_UNIQUE_MAX]);

/*
 * Keeps the certificates by which the server is verified, 8,192 bytes at most, until torpor_dtls_free: for a second look
 * with other trust anchors (RFC 9148 section 9.1), or at what they allow. Call before start.
 */
int torpor_dtls_keep_chain(torpor_dtls *d);

/*
 * Those certificates in DER, one after the other: the trust anchor first, the server's own last. Returns their length,
 * and copies them where `size` is enough. 0 where nothing was asked to be kept, or the handshake was an abbreviated one;
 * TORPOR_DTLS_ERR_STATE unless open.
 */
int torpor_dtls_chain(const torpor_dtls *d, uint8_t *out, size_t size);

#endif
