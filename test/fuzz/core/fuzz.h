/*
 * What the fuzzers of the C core share: an input that is read as a script, random numbers that are the same at every run,
 * clients, and what a server answered to them once. The fuzzers know the core by dtls.h, server.h and crypto.h alone;
 * what depends on the library below it is in engine.h.
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
 *     {
 *         script s = {data, size};
 *         switch (next8(&s) % 3) { … }
 *     }
 */
#ifndef TORPOR_FUZZ_H
#define TORPOR_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "../../../src/dtls/dtls.h"
#include "../../../src/dtls/server.h"
#include "engine.h"

/* What the core promises; where it is not so, the run ends and libFuzzer keeps the input. */
#define PROMISE(condition)                                                            \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fuzz_broken(__FILE__, __LINE__, #condition);                              \
        }                                                                             \
    } while (0)
void fuzz_broken(const char *file, int line, const char *condition) __attribute__((noreturn));

/* ---- the input as a script: what is missing at its end reads as 0 ---- */

typedef struct {
    const uint8_t *p;
    size_t left;
} script;

uint8_t next8(script *s);
uint16_t next16(script *s);
/* A copy of the next bytes, at most `most`, in a block of just that size for the sanitizer; free it. */
uint8_t *next_bytes(script *s, size_t most, size_t *length);

/* A block of just `length` bytes. */
uint8_t *exact_copy(const uint8_t *bytes, size_t length);

/*
 * Changes `bytes`, of `*length` and with room for `size`, as the script says: bits, bytes, numbers, what is cut, added,
 * taken out. One edit takes 4 bytes of script, or those that it adds.
 */
void edit(script *s, uint8_t *bytes, size_t *length, size_t size);

/* ---- handshake messages (RFC 6347 section 4.2.2) ---- */

#define MESSAGE_HEADER 12
#define TYPE_HANDSHAKE 22

void put16(uint8_t *p, size_t value);
void put24(uint8_t *p, size_t value);
/* Writes a fragment with its header, `length` bytes from `offset` of a body of `total`; the bytes written. */
size_t put_fragment(uint8_t *out, uint8_t type, unsigned number, const uint8_t *body, size_t total, size_t offset,
                    size_t length);

/* ---- peers ---- */

#define FUZZ_TIME 1800000000u /* 2027-01-15, within the certificates' validity */
#define FUZZ_DATAGRAM 2048

/* How a client is set up. */
enum {
    WITH_TICKETS = 1,
    WITH_CONNECTION_ID = 2,
    WITH_RESUMPTION = 4, /* it comes back with a session */
    WITH_CHAIN = 8,      /* it keeps the chain, and demands an address in place of a name */
    WITH_VERSION_12 = 16, /* where its engine has DTLS 1.3, the server has not */
    WITH_HYBRID = 32,    /* X25519MLKEM768, whose hello takes two datagrams */
};

#define DATAGRAMS_MAX 12
#define SAVED_MAX 1600

/* A connection as it went: everything that a client of one setup needs to go through it again without a server. */
typedef struct {
    uint8_t *datagrams[DATAGRAMS_MAX]; /* of the server */
    size_t lengths[DATAGRAMS_MAX];
    unsigned count;
    uint8_t unique[TORPOR_DTLS_UNIQUE_MAX];
    uint8_t begun[SAVED_MAX]; /* the session that the client came with */
    size_t begun_length;
    uint8_t session[SAVED_MAX]; /* the session that it left with */
    size_t session_length;
    uint8_t context[SAVED_MAX]; /* its context, where it has a connection ID */
    size_t context_length;
    uint8_t *secrets[DATAGRAMS_MAX]; /* handshake messages of the server that are protected, in the clear; of DTLS 1.3 */
    size_t secret_lengths[DATAGRAMS_MAX];
    unsigned secret_count;
    torpor_dtls *server; /* the other end, as it was then */
    engine_mark *mark;
} connection;

/* Opens the core; once, from LLVMFuzzerInitialize. */
void fuzz_open(void);

/* A connection of this setup, made with a server in memory; its server is as it was then, each time. */
const connection *connected(unsigned setup);

/* The random numbers of a client from here on, from their start: a client gets the same ones each time. */
void as_client(void);
/* Those of a server; they go on where they were, or from the start of its connection. */
void as_server(void);

/* A client of this setup; WITH_RESUMPTION is up to the caller. */
torpor_dtls *new_client(unsigned setup);

/* Takes whatever is to be sent, and forgets it. */
void discard_output(torpor_dtls *d);
/* A record of the server, whatever is in it, as a datagram; its length, or 0 where it cannot be sent. */
size_t server_sends(const connection *c, engine_keys keys, uint8_t type, const uint8_t *content, size_t length,
                    uint8_t datagram[FUZZ_DATAGRAM]);
/* Hands a datagram in, in a block of just its size, and forgets what comes out. */
void deliver(torpor_dtls *d, uint64_t now, const uint8_t *datagram, size_t length);
/* Reads all messages; each must fit its promised length. */
void read_all(torpor_dtls *d);
/* What holds for an association in every state; asks for everything that can be asked for. */
void look(torpor_dtls *d);

#endif
