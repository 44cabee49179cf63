/* What the fuzzers of the C core share: see fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../hosts/desktop/its.h"
#include "../../../src/pki/crypto.h"
#include "../../core/certificates.h"

void fuzz_broken(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: a broken promise: %s\n", file, line, condition);
    abort();
}

/* ---- the script ---- */

uint8_t next8(script *s)
{
    if (s->left == 0) {
        return 0;
    }
    s->left--;
    return *s->p++;
}

uint16_t next16(script *s)
{
    uint8_t high = next8(s);
    return (uint16_t) (high << 8 | next8(s));
}

uint8_t *exact_copy(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length == 0 ? 1 : length);

    PROMISE(copy != NULL);
    if (length > 0) {
        memcpy(copy, bytes, length);
    }
    return copy;
}

uint8_t *next_bytes(script *s, size_t most, size_t *length)
{
    uint8_t *bytes;

    *length = s->left < most ? s->left : most;
    bytes = exact_copy(s->p, *length);
    s->p += *length;
    s->left -= *length;
    return bytes;
}

void edit(script *s, uint8_t *bytes, size_t *length, size_t size)
{
    int edits = next8(s) % 8;

    while (edits-- > 0 && *length > 0) {
        uint8_t kind = next8(s);
        size_t at = next16(s) % *length, count;
        switch (kind % 6) {
        case 0:
            bytes[at] ^= (uint8_t) (1u << next8(s) % 8);
            break;
        case 1:
            bytes[at] = next8(s);
            break;
        case 2: /* a number of two bytes, a little more or less than it was */
            if (at + 1 < *length) {
                uint16_t number = (uint16_t) ((bytes[at] << 8 | bytes[at + 1]) + (int8_t) next8(s));
                bytes[at] = (uint8_t) (number >> 8);
                bytes[at + 1] = (uint8_t) number;
            }
            break;
        case 3:
            *length = at;
            break;
        case 4:
            count = next8(s);
            count = count < *length - at ? count : *length - at;
            memmove(bytes + at, bytes + at + count, *length - at - count);
            *length -= count;
            break;
        default:
            count = next8(s);
            count = count < size - *length ? count : size - *length;
            count = count < s->left ? count : s->left;
            memmove(bytes + at + count, bytes + at, *length - at);
            if (count > 0) {
                memcpy(bytes + at, s->p, count);
            }
            s->p += count;
            s->left -= count;
            *length += count;
            break;
        }
    }
}

/* ---- handshake messages ---- */

void put16(uint8_t *p, size_t value)
{
    p[0] = (uint8_t) (value >> 8);
    p[1] = (uint8_t) value;
}

void put24(uint8_t *p, size_t value)
{
    p[0] = (uint8_t) (value >> 16);
    put16(p + 1, value);
}

size_t put_fragment(uint8_t *out, uint8_t type, unsigned number, const uint8_t *body, size_t total, size_t offset,
                    size_t length)
{
    out[0] = type;
    put24(out + 1, total);
    put16(out + 4, number);
    put24(out + 6, offset);
    put24(out + 9, length);
    memcpy(out + MESSAGE_HEADER, body + offset, length);
    return MESSAGE_HEADER + length;
}

/* ---- random numbers ---- */

static uint64_t *random_state;

/*
 * The linker puts it in place of the function of this name without __wrap_ (xorshift64*). It is where the random numbers of
 * the core and of both engines come from.
 */
int __wrap_mbedtls_ctr_drbg_random(void *context, unsigned char *output, size_t length);
int __wrap_mbedtls_ctr_drbg_random(void *context, unsigned char *output, size_t length)
{
    (void) context;
    for (size_t i = 0; i < length; i++) {
        *random_state ^= *random_state >> 12;
        *random_state ^= *random_state << 25;
        *random_state ^= *random_state >> 27;
        output[i] = (uint8_t) ((*random_state * 0x2545F4914F6CDD1Du) >> 56);
    }
    return 0;
}

/* ---- peers ---- */

static const uint8_t PEER[] = {127, 0, 0, 1, 0, 1};
static const uint64_t CLIENT_SEED = 0x9E3779B97F4A7C15u, SERVER_SEED = 0xD1B54A32D192ED03u;
static uint64_t client_random, server_random;
static uint32_t server_key, client_key;
static torpor_dtls_server *server, *server_12;
static connection *connections[ENGINE_SETUPS];

void as_client(void)
{
    client_random = CLIENT_SEED;
    random_state = &client_random;
}

void as_server(void)
{
    random_state = &server_random;
}

static torpor_dtls_server *new_server(unsigned options)
{
    torpor_dtls_server *s;

    PROMISE(torpor_dtls_server_new(&s) == 0);
    PROMISE(torpor_dtls_server_trust(s, CA, sizeof(CA)) == 0);
    PROMISE(torpor_dtls_server_identity(s, server_key, SERVER, sizeof(SERVER)) == 0);
    PROMISE(torpor_dtls_server_options(s, options) == 0);
    return s;
}

void fuzz_open(void)
{
    torpor_its_close(); /* keys are in RAM only */
    server_random = SERVER_SEED;
    as_server();
    PROMISE(torpor_crypto_open() == 0);
    PROMISE(torpor_key_import(0, SERVER_KEY, sizeof(SERVER_KEY), &server_key) == 0);
    PROMISE(torpor_key_import(0, CLIENT_KEY, sizeof(CLIENT_KEY), &client_key) == 0);
    server = new_server(0);
    server_12 = new_server(TORPOR_DTLS_SERVER_ONLY_12);
}

torpor_dtls *new_client(unsigned setup)
{
    static const uint8_t ADDRESS[] = {127, 0, 0, 1};
    static const uint16_t HYBRID[] = {4588, 23}; /* X25519MLKEM768, secp256r1 */
    torpor_dtls *d;

    PROMISE(torpor_dtls_new(&d) == 0);
    PROMISE(torpor_dtls_trust(d, CA, sizeof(CA)) == 0);
    if ((setup & WITH_RESUMPTION) == 0) { /* to come back needs none, and a key costs the time of many inputs */
        PROMISE(torpor_dtls_identity(d, client_key, CLIENT, sizeof(CLIENT)) == 0);
    }
    if (setup & WITH_CHAIN) {
        PROMISE(torpor_dtls_keep_chain(d) == 0);
        PROMISE(torpor_dtls_server_address(d, ADDRESS, sizeof(ADDRESS)) == 0);
    } else {
        PROMISE(torpor_dtls_server_name(d, "localhost") == 0);
    }
    if (setup & WITH_HYBRID) {
        PROMISE(torpor_dtls_groups(d, HYBRID, 2) == 0);
    } else if (setup & WITH_RESUMPTION) { /* a key exchange costs the time of many inputs, too */
        torpor_dtls_resume_by_psk_alone(d);
    }
    if (setup & WITH_TICKETS) {
        torpor_dtls_offer_tickets(d);
    }
    if (setup & WITH_CONNECTION_ID) {
        PROMISE(torpor_dtls_offer_connection_id(d, setup & WITH_CHAIN ? 8 : 0) == 0);
    }
    return d;
}

void discard_output(torpor_dtls *d)
{
    uint8_t datagram[FUZZ_DATAGRAM];
    int length, count = 0;

    while ((length = torpor_dtls_take(d, datagram, sizeof(datagram))) > 0) {
        PROMISE(length <= TORPOR_DTLS_MTU);
        PROMISE(++count < 100); /* a flight has an end */
    }
    PROMISE(length == 0);
}

size_t server_sends(const connection *c, engine_keys keys, uint8_t type, const uint8_t *content, size_t length,
                    uint8_t datagram[FUZZ_DATAGRAM])
{
    int made = 0;

    as_server();
    if (engine_send(c->server, keys, type, content, length) == 0) {
        made = torpor_dtls_take(c->server, datagram, FUZZ_DATAGRAM);
        PROMISE(made > 0);
    }
    return (size_t) made;
}

void deliver(torpor_dtls *d, uint64_t now, const uint8_t *datagram, size_t length)
{
    uint8_t *exact = exact_copy(datagram, length);

    (void) torpor_dtls_receive(d, now, exact, length);
    free(exact);
    discard_output(d);
}

void read_all(torpor_dtls *d)
{
    uint8_t message[FUZZ_DATAGRAM];
    int count = 0;

    for (;;) {
        size_t waiting = torpor_dtls_readable(d);
        int length = torpor_dtls_read(d, message, sizeof(message));
        PROMISE(length < 0 || (size_t) length == waiting);
        discard_output(d);
        if (length <= 0) {
            break;
        }
        PROMISE(++count < 1000);
    }
}

void look(torpor_dtls *d)
{
    int state = torpor_dtls_state(d);
    torpor_dtls_session_info info;
    size_t length = 0;
    uint8_t unique[TORPOR_DTLS_UNIQUE_MAX], chain[8192];

    PROMISE(state >= TORPOR_DTLS_IDLE && state <= TORPOR_DTLS_FAILED);
    PROMISE((state == TORPOR_DTLS_FAILED) == (torpor_dtls_failure(d).kind != TORPOR_DTLS_FAILURE_NONE));
    PROMISE(torpor_dtls_pending(d) == 0);
    (void) torpor_dtls_time_checked(d);
    (void) torpor_dtls_has_connection_id(d);
    (void) torpor_dtls_session(d, NULL, 0, &length, &info);
    if (state == TORPOR_DTLS_OPEN) {
        PROMISE(torpor_dtls_cipher_suite(d) != 0);
        PROMISE(torpor_dtls_overhead(d) > 0);
        PROMISE(torpor_dtls_unique(d, unique) > 0);
        PROMISE(torpor_dtls_chain(d, chain, sizeof(chain)) >= 0);
    } else {
        PROMISE(torpor_dtls_readable(d) == 0 && torpor_dtls_overhead(d) == 0 && torpor_dtls_highest(d) == 0);
        PROMISE(torpor_dtls_unique(d, unique) == TORPOR_DTLS_ERR_STATE && !torpor_dtls_resumed(d));
    }
    if (state != TORPOR_DTLS_HANDSHAKE && state != TORPOR_DTLS_OPEN) {
        PROMISE(torpor_dtls_deadline(d) == TORPOR_DTLS_NEVER);
    }
}

/* ---- a connection, once ---- */

static connection *making;

/* What the server protects is noted in the clear, where it is a whole message. */
static void keep_secret(const uint8_t *message, size_t length)
{
    PROMISE(making->secret_count < DATAGRAMS_MAX && length >= MESSAGE_HEADER);
    if (memcmp(message + 1, message + 9, 3) == 0) {
        making->secrets[making->secret_count] = exact_copy(message, length);
        making->secret_lengths[making->secret_count++] = length;
    }
}

static void keep_datagrams(connection *c)
{
    uint8_t datagram[FUZZ_DATAGRAM];
    int length;

    while ((length = torpor_dtls_take(c->server, datagram, sizeof(datagram))) > 0) {
        PROMISE(c->count < DATAGRAMS_MAX);
        c->datagrams[c->count] = exact_copy(datagram, (size_t) length);
        c->lengths[c->count++] = (size_t) length;
    }
}

/* Both ends in turn, each with random numbers of its own, so that the client alone does the same again. */
static void carry(connection *c, torpor_dtls *client)
{
    uint8_t datagram[FUZZ_DATAGRAM];
    unsigned delivered = 0;
    int length;

    do {
        random_state = &client_random;
        while ((length = torpor_dtls_take(client, datagram, sizeof(datagram))) > 0) {
            as_server();
            PROMISE(torpor_dtls_receive(c->server, 0, datagram, (size_t) length) == 0);
            keep_datagrams(c);
            random_state = &client_random;
        }
        while (delivered < c->count && torpor_dtls_pending(client) == 0) {
            PROMISE(torpor_dtls_receive(client, 0, c->datagrams[delivered], c->lengths[delivered]) == 0);
            delivered++;
        }
    } while (torpor_dtls_pending(client) > 0);
}

const connection *connected(unsigned setup)
{
    connection *c = connections[setup %= ENGINE_SETUPS];
    torpor_dtls *client;
    torpor_dtls_session_info info;

    if (c != NULL) {
        engine_go_back(c->server, c->mark);
        server_random = SERVER_SEED;
        return c;
    }
    c = calloc(1, sizeof(*c));
    PROMISE(c != NULL);
    connections[setup] = c;
    if (setup & WITH_RESUMPTION) {
        const connection *before = connected(setup & ~(unsigned) WITH_RESUMPTION);
        memcpy(c->begun, before->session, before->session_length);
        c->begun_length = before->session_length;
    }
    as_server();
    making = c;
    engine_watch(keep_secret);
    PROMISE(torpor_dtls_server_accept(setup & WITH_VERSION_12 ? server_12 : server, 0, FUZZ_TIME, PEER, sizeof(PEER), &c->server) == 0);
    as_client();
    client = new_client(setup);
    PROMISE(torpor_dtls_start(client, 0, FUZZ_TIME, c->begun, c->begun_length) == 0);
    carry(c, client);
    engine_watch(NULL);
    PROMISE(torpor_dtls_state(client) == TORPOR_DTLS_OPEN && torpor_dtls_state(c->server) == TORPOR_DTLS_OPEN);
    PROMISE(torpor_dtls_resumed(client) == ((setup & WITH_RESUMPTION) != 0));
    PROMISE(torpor_dtls_unique(client, c->unique) > 0);
    PROMISE(torpor_dtls_session(client, c->session, sizeof(c->session), &c->session_length, &info) == 0);
    if (ENGINE_SAVES_CONTEXTS && setup & WITH_CONNECTION_ID && (setup & WITH_RESUMPTION) == 0) {
        PROMISE(torpor_dtls_context(client, c->context, sizeof(c->context), &c->context_length) == 0);
    }
    torpor_dtls_free(client);
    c->mark = engine_take_mark(c->server);
    PROMISE(c->mark != NULL);
    return c;
}
