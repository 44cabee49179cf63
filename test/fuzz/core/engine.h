/*
 * What the fuzzers need of the library below the core, one file for each library: engine_mbedtls.c, engine_wolfssl.c.
 */
#ifndef TORPOR_FUZZ_ENGINE_H
#define TORPOR_FUZZ_ENGINE_H

#include "../../../src/dtls/dtls.h"

/*
 * What one engine has and the other has not. Contexts, and with them everything that begins with one, are mbedTLS's alone;
 * DTLS 1.3, and with it the setups for its fallback and its groups (fuzz.h), are wolfSSL's.
 */
#if defined(TORPOR_WOLFSSL_CORE)
#define ENGINE_SAVES_CONTEXTS 0
#define ENGINE_SETUPS 64
#else
#define ENGINE_SAVES_CONTEXTS 1
#define ENGINE_SETUPS 16
#endif

/* By which keys of a server: its newest ones, or those of the handshake, which DTLS 1.3 alone has. */
typedef enum { ENGINE_NEWEST_KEYS, ENGINE_HANDSHAKE_KEYS } engine_keys;

/*
 * Protects one record of any type, as no honest peer would send it, to be taken. Nothing in the association changes but
 * its sequence number. 0, or a negative error: the record is too long, or there are no such keys.
 */
int engine_send(torpor_dtls *d, engine_keys keys, uint8_t type, const uint8_t *content, size_t length);

/* The number that a server's next handshake message has to have (RFC 6347 section 4.2.2). */
unsigned engine_next_message(const torpor_dtls *d);

/* The server's records are protected by its next keys from here on (RFC 9147 section 8). Negative where there are none. */
int engine_update_keys(torpor_dtls *d);

/* Notes the state of an open server's sending side, and goes back to it, as often as is wanted; free() the mark. */
typedef struct engine_mark engine_mark;
engine_mark *engine_take_mark(const torpor_dtls *d);
void engine_go_back(torpor_dtls *d, const engine_mark *mark);

/*
 * Handshake messages that servers protect are shown to `seen` in the clear, with their headers, one fragment at a time;
 * NULL: no more. Those of DTLS 1.2 are Finished messages alone, and are not shown.
 */
void engine_watch(void (*seen)(const uint8_t *message, size_t length));

#endif
