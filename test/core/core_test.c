/*
 * The C core by itself, for AddressSanitizer, UndefinedBehaviorSanitizer and valgrind: client and server joined in one
 * process, hostile datagrams, damaged sessions, keys and their storage. What the functions mean is tested through the
 * Node.js binding (test/dtls/); here it counts that no byte is read or written that should not be, and none is lost.
 *
 *     core_test FOLDER [ROUNDS]     an empty folder for the key storage; rounds of hostile input, 150 unless told
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../hosts/desktop/its.h"
#include "../../src/dtls/dtls.h"
#include "../../src/dtls/server.h"
#include "../../src/pki/crypto.h"
#include "certificates.h"

#include <psa/internal_trusted_storage.h>

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition);      \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

#define TIME 1800000000u /* 2027-01-15, within the certificates' validity */

static const uint8_t PEER[] = {127, 0, 0, 1, 0, 1};
static uint32_t server_key, client_key;
static unsigned seed;
static int rounds = 150;

static unsigned next_random(void)
{
    seed = seed * 1103515245u + 12345u;
    return seed >> 8;
}

/* ---- memory that runs out: the linker puts these in place of malloc and calloc ---- */

static long allocations = -1; /* that are made before one fails; -1: none does */
static size_t smallest;       /* bytes of those that count */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

static int runs_out(size_t size)
{
    return size >= smallest && allocations >= 0 && allocations-- == 0;
}

void *__wrap_malloc(size_t size)
{
    return runs_out(size) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return runs_out(count * size) ? NULL : __real_calloc(count, size);
}

static torpor_dtls_server *new_server(void)
{
    torpor_dtls_server *s;
    CHECK(torpor_dtls_server_new(&s) == 0);
    CHECK(torpor_dtls_server_trust(s, CA, sizeof(CA)) == 0);
    CHECK(torpor_dtls_server_identity(s, server_key, SERVER, sizeof(SERVER)) == 0);
    return s;
}

static torpor_dtls *new_client(int tickets)
{
    torpor_dtls *d;
    CHECK(torpor_dtls_new(&d) == 0);
    CHECK(torpor_dtls_trust(d, CA, sizeof(CA)) == 0);
    CHECK(torpor_dtls_identity(d, client_key, CLIENT, sizeof(CLIENT)) == 0);
    CHECK(torpor_dtls_server_name(d, "localhost") == 0);
    if (tickets) {
        torpor_dtls_offer_tickets(d);
    }
    return d;
}

/* Hands every datagram of `from` to `to`, in a heap block of its exact size so that a sanitizer sees the byte after. */
static int carry_one(torpor_dtls *from, torpor_dtls *to, uint64_t now, int damage)
{
    uint8_t datagram[2048];
    uint8_t *exact;
    int length = torpor_dtls_take(from, datagram, sizeof(datagram));
    size_t size;

    CHECK(length >= 0);
    if (length == 0) {
        return 0;
    }
    size = (size_t) length;
    if (damage) {
        switch (next_random() % 4) {
        case 0:
            size = next_random() % (size + 1);
            break;
        case 1:
            datagram[next_random() % size] ^= (uint8_t) (1u << next_random() % 8);
            break;
        case 2:
            datagram[next_random() % (size < 40 ? size : 40)] = (uint8_t) next_random();
            break;
        default:
            break;
        }
    }
    while (carry_one(to, from, now, damage)) {
    }
    exact = __real_malloc(size == 0 ? 1 : size);
    CHECK(exact != NULL);
    memcpy(exact, datagram, size);
    (void) torpor_dtls_receive(to, now, exact, size);
    free(exact);
    return 1;
}

static void carry(torpor_dtls *client, torpor_dtls *server, uint64_t now, int damage)
{
    int turns = 0;
    while ((carry_one(client, server, now, damage) || carry_one(server, client, now, damage)) && turns++ < 200) {
    }
}

/* Whether a message gets from one end to the other, as it is. */
static int comes_through(torpor_dtls *from, torpor_dtls *to, uint64_t now)
{
    static const uint8_t MESSAGE[] = "to and fro";
    uint8_t message[sizeof(MESSAGE)];

    if (torpor_dtls_write(from, MESSAGE, sizeof(MESSAGE)) != 0) {
        return 0;
    }
    carry(from, to, now, 0);
    return torpor_dtls_read(to, message, sizeof(message)) == sizeof(message) &&
           memcmp(message, MESSAGE, sizeof(message)) == 0;
}

static void free_all(torpor_dtls *client, torpor_dtls *server, torpor_dtls_server *s)
{
    torpor_dtls_free(client);
    torpor_dtls_free(server);
    torpor_dtls_server_release(s);
}

static size_t connect_once(torpor_dtls_server *s, int tickets, const uint8_t *session, size_t length, int resumed,
                           uint8_t *saved, size_t size)
{
    torpor_dtls *client = new_client(tickets), *server;
    torpor_dtls_session_info info;
    uint8_t message[64] = "hello", answer[64], digest[32], unique[2][TORPOR_DTLS_UNIQUE_MAX];
    size_t saved_length = 0;
    int is_13, binding;

    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, session, length) == 0);
    carry(client, server, 1, 0);
    CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN && torpor_dtls_state(server) == TORPOR_DTLS_OPEN);
    CHECK(torpor_dtls_resumed(client) == resumed);
    is_13 = torpor_dtls_version(client) == 13;
    binding = is_13 ? 32 : 12; /* tls-exporter, tls-unique */
    CHECK(torpor_dtls_unique(client, unique[0]) == binding && torpor_dtls_unique(server, unique[1]) == binding);
    CHECK(memcmp(unique[0], unique[1], (size_t) binding) == 0);
    CHECK(torpor_dtls_server_peer_digest(server, digest) == 0);
    CHECK(torpor_dtls_write(client, message, sizeof(message)) == 0);
    CHECK(torpor_dtls_write(client, message, sizeof(message)) == TORPOR_DTLS_ERR_PENDING);
    carry(client, server, 2, 0);
    CHECK(torpor_dtls_read(server, answer, 10) == 64);
    CHECK(memcmp(answer, message, 10) == 0);
    CHECK(torpor_dtls_session(client, NULL, 0, &saved_length, &info) == 0);
    CHECK(info.kind == (tickets || is_13 ? TORPOR_DTLS_SESSION_TICKET : TORPOR_DTLS_SESSION_ID));
    if (saved != NULL) {
        size_t needed = saved_length;
        CHECK(needed <= size);
        CHECK(torpor_dtls_session(client, saved, needed - 1, &saved_length, &info) == TORPOR_DTLS_ERR_SIZE);
        CHECK(torpor_dtls_session(client, saved, needed, &saved_length, &info) == 0);
    }
    CHECK(torpor_dtls_close(client) == 0);
    carry(client, server, 3, 0);
    CHECK(torpor_dtls_state(server) == TORPOR_DTLS_CLOSED);
    torpor_dtls_free(client);
    torpor_dtls_free(server);
    return saved_length;
}

static void test_connections(void)
{
    uint8_t session[1024];
    for (int tickets = 0; tickets < 2; tickets++) {
        torpor_dtls_server *s = new_server();
        size_t length = connect_once(s, tickets, NULL, 0, 0, session, sizeof(session));
        connect_once(s, tickets, session, length, 1, NULL, 0);
        torpor_dtls_server_release(s);
    }
}

/* A damaged session may load or not; whatever it does, it must do within its bytes, and a start without one works. */
static void test_damaged_sessions(void)
{
    uint8_t session[1024];
    torpor_dtls_server *s = new_server();
    size_t length = connect_once(s, 1, NULL, 0, 0, session, sizeof(session));

    for (int i = 0; i < rounds * 20; i++) {
        torpor_dtls *client = new_client(1);
        size_t cut = i % 2 ? length : next_random() % length;
        uint8_t *exact = malloc(cut == 0 ? 1 : cut);
        CHECK(exact != NULL);
        memcpy(exact, session, cut);
        if (i % 2) {
            exact[next_random() % cut] ^= (uint8_t) (1u << next_random() % 8);
        }
        (void) torpor_dtls_start(client, 0, TIME, exact, cut);
        free(exact);
        torpor_dtls_free(client);
    }
    torpor_dtls_server_release(s);
}

/* Saves a whole association and goes on with it; the server's end stays. */
static void test_contexts(void)
{
    torpor_dtls_server *s = new_server();
    torpor_dtls *client = new_client(0), *server;
    uint8_t context[600], message[8] = "context", answer[8], cid[4], unique[2][TORPOR_DTLS_UNIQUE_MAX], old[2048];
    size_t length, asked;
    int taken;

    CHECK(torpor_dtls_offer_connection_id(client, 9) == TORPOR_DTLS_ERR_FORMAT);
    CHECK(torpor_dtls_offer_connection_id(client, 0) == 0);
    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
    CHECK(torpor_dtls_context(client, NULL, 0, &length) == TORPOR_DTLS_ERR_STATE && length == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) == 0);
    carry(client, server, 1, 0);
    CHECK(torpor_dtls_has_connection_id(client) && torpor_dtls_server_connection_id(server, cid) == 0);
    CHECK(torpor_dtls_unique(client, unique[0]) == 12);

    for (uint64_t wake = 1; wake <= 20; wake++) {
        uint64_t before;
        CHECK(torpor_dtls_context(client, NULL, 0, &asked) == 0);
        CHECK(torpor_dtls_context(client, context, asked - 1, &length) == TORPOR_DTLS_ERR_SIZE && length == asked);
        CHECK(torpor_dtls_context(client, context, 5, &length) == TORPOR_DTLS_ERR_SIZE && length == asked);
        CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN);
        CHECK(torpor_dtls_context(client, context, sizeof(context), &length) == 0 && length == asked);
        CHECK(torpor_dtls_state(client) == TORPOR_DTLS_CLOSED);
        CHECK(torpor_dtls_write(client, message, sizeof(message)) == TORPOR_DTLS_ERR_STATE);
        torpor_dtls_free(client);

        CHECK(torpor_dtls_new(&client) == 0); /* neither trust anchors nor identity */
        CHECK(torpor_dtls_restore(client, wake, TIME, context, length) == 0);
        CHECK(torpor_dtls_restore(client, wake, TIME, context, length) == TORPOR_DTLS_ERR_STATE);
        CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN && torpor_dtls_pending(client) == 0);
        CHECK(torpor_dtls_unique(client, unique[1]) == 12 && memcmp(unique[0], unique[1], 12) == 0);
        before = torpor_dtls_highest(server);
        CHECK(torpor_dtls_write(client, message, sizeof(message)) == 0);
        taken = torpor_dtls_take(client, old, sizeof(old));
        CHECK(taken == (int) (sizeof(message) + torpor_dtls_overhead(client)));
        CHECK(old[0] == 25 && memcmp(old + 11, cid, sizeof(cid)) == 0);
        CHECK(torpor_dtls_receive(server, wake, old, (size_t) taken) == 0);
        CHECK(torpor_dtls_read(server, answer, sizeof(answer)) == sizeof(answer));
        CHECK(torpor_dtls_highest(server) == before + 1);
        /* The same record again is no message. */
        CHECK(torpor_dtls_receive(server, wake, old, (size_t) taken) == 0 && torpor_dtls_readable(server) == 0);
        CHECK(comes_through(server, client, wake));
    }
    free_all(client, server, s);
}

/* An association of a client with a connection ID, and both its ends. */
static torpor_dtls *open_client(torpor_dtls_server *s, unsigned cid_length, torpor_dtls **server)
{
    torpor_dtls *client = new_client(0);

    CHECK(torpor_dtls_offer_connection_id(client, cid_length) == 0);
    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), server) == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) == 0);
    carry(client, *server, 1, 0);
    CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN);
    return client;
}

/*
 * The fuzzer `records` found over wolfSSL that the highest number of an authentic record went down by a forged record of the
 * handshake's epoch, and up again by one of the epoch in use. By that number a server believes that a client has moved: two
 * datagrams of anybody's took an association to their own address.
 */
static void test_highest_number_and_forged_epochs(void)
{
    uint8_t forged[5 + 16] = {0, 0, 0, 0, 16};
    torpor_dtls_server *s = new_server();
    torpor_dtls *server, *client = open_client(s, 0, &server);
    uint64_t highest;

    for (int i = 0; i < 5; i++) {
        CHECK(comes_through(client, server, 2));
    }
    highest = torpor_dtls_highest(server);
    CHECK(highest > 3);
    for (unsigned epoch = 0; epoch < 4; epoch++) {
        forged[0] = (uint8_t) (0x2C | epoch); /* RFC 9147 section 4: a number of two bytes, a length */
        CHECK(torpor_dtls_receive(server, 3, forged, sizeof(forged)) == 0);
        CHECK(torpor_dtls_highest(server) == highest && torpor_dtls_pending(server) == 0);
    }
    free_all(client, server, s);
}

/*
 * The fuzzer `records` found that wolfSSL 5.9.2 ends an open association of DTLS 1.2 by one handshake message in the clear, such as
 * a HelloRequest whose lengths contradict each other, or the message that the handshake would go on with.
 */
static void test_open_association_and_messages_in_the_clear(void)
{
    /* A handshake record of epoch 0: type, length of the body, number, offset and length of the fragment. */
    uint8_t record[13 + 12 + 4] = {22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 1, 0, 0, 16};
    torpor_dtls_server *s = new_server();
    torpor_dtls *server, *client;

    CHECK(torpor_dtls_server_options(s, TORPOR_DTLS_SERVER_ONLY_12) == 0);
    client = open_client(s, 0, &server);
    for (unsigned i = 0; i < 20 * 12 * 2 * 2; i++) {
        record[9] = (uint8_t) (i >> 8);
        record[10] = (uint8_t) i;
        record[13] = (uint8_t) (i % 20);
        record[16] = 4;
        record[18] = (uint8_t) (i / 20 % 12);
        record[21] = (uint8_t) (i / 240 % 2);
        record[24] = i / 480 ? 200 : 4;
        for (int side = 0; side < 2; side++) {
            torpor_dtls *end = side ? server : client;
            uint8_t sent[2048];
#if !defined(TORPOR_ENGINE_WOLFSSL)
            if (side && record[13] == 1) { /* over mbedTLS a ClientHello begins another handshake */
                continue;
            }
#endif
            CHECK(torpor_dtls_receive(end, 2, record, sizeof(record)) == 0);
            while (torpor_dtls_take(end, sent, sizeof(sent)) > 0) { /* a flight again, it may be */
            }
            CHECK(torpor_dtls_state(end) == TORPOR_DTLS_OPEN);
        }
    }
    CHECK(comes_through(client, server, 3));
    free_all(client, server, s);
}

/*
 * A client of DTLS 1.2 that is open still answers a server whose flight it has answered before: with its last flight, which was
 * lost. What starts that is in the clear, and is to come through where other such records do not.
 */
static void test_last_flight_that_is_lost(void)
{
    torpor_dtls_server *s = new_server();
    torpor_dtls *client, *server;
    torpor_dtls_session_info info;
    uint8_t session[1024], datagram[2048];
    size_t length;
    int hellos = 2;

    CHECK(torpor_dtls_server_options(s, TORPOR_DTLS_SERVER_ONLY_12) == 0);
    client = open_client(s, 0, &server);
    CHECK(torpor_dtls_session(client, session, sizeof(session), &length, &info) == 0 && length > 0);
    torpor_dtls_free(client);
    torpor_dtls_free(server);

    client = new_client(0);
    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, session, length) == 0);
    while (torpor_dtls_state(client) == TORPOR_DTLS_HANDSHAKE) {
        torpor_dtls *from = torpor_dtls_pending(client) > 0 ? client : server, *to = from == client ? server : client;
        int size = torpor_dtls_take(from, datagram, sizeof(datagram));
        CHECK(size > 0);
        if (from == server || hellos-- > 0) {
            CHECK(torpor_dtls_receive(to, 1, datagram, (size_t) size) == 0);
        }
    }
    CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN && torpor_dtls_state(server) == TORPOR_DTLS_HANDSHAKE);
    while (torpor_dtls_take(client, datagram, sizeof(datagram)) > 0) {
    }
    CHECK(torpor_dtls_elapse(server, torpor_dtls_deadline(server)) == 0 && torpor_dtls_pending(server) > 0);
    carry(client, server, 10000, 0);
    CHECK(torpor_dtls_state(server) == TORPOR_DTLS_OPEN);
    CHECK(comes_through(client, server, 10001));
    free_all(client, server, s);
}

/*
 * Once a handshake of DTLS 1.3 has keys, wolfSSL 5.9.2 drops what is in the clear, but for acknowledgements: one of a wrong length
 * from anybody ended it.
 */
static void test_acknowledgements_in_the_clear(void)
{
    static const uint8_t LENGTHS[][2] = {{128, 128}, {16, 16}, {15, 15}, {255, 16}, {0, 0}, {0, 16}};
    torpor_dtls_server *s = new_server();
    torpor_dtls *client = new_client(0), *server;
    uint8_t datagram[2048];
    int size, first;

    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) == 0);
    for (;;) {
        torpor_dtls *from = torpor_dtls_pending(client) > 0 ? client : server, *to = from == client ? server : client;
        size = torpor_dtls_take(from, datagram, sizeof(datagram));
        CHECK(size > 13);
        first = 13 + (datagram[11] << 8 | datagram[12]);
        if (from == server && (size > first || torpor_dtls_pending(server) > 0)) { /* a ServerHello, and more behind it */
            break;
        }
        CHECK(torpor_dtls_receive(to, 1, datagram, (size_t) size) == 0);
    }
    CHECK(torpor_dtls_receive(client, 1, datagram, (size_t) first) == 0);
    for (size_t i = 0; i < sizeof(LENGTHS) / sizeof(LENGTHS[0]); i++) {
        /* RFC 9147 section 7: a list of epochs and numbers; here of the keys of the handshake. */
        uint8_t forged[13 + 2 + 128] = {26, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 1, (uint8_t) i};
        forged[12] = (uint8_t) (2 + LENGTHS[i][1]);
        forged[14] = LENGTHS[i][0];
        for (size_t number = 0; number < 8; number++) {
            forged[13 + 2 + 16 * number + 7] = 2;
            forged[13 + 2 + 16 * number + 15] = (uint8_t) number;
        }
        CHECK(torpor_dtls_receive(client, 2, forged, 13u + 2 + LENGTHS[i][1]) == 0);
        CHECK(torpor_dtls_state(client) == TORPOR_DTLS_HANDSHAKE);
    }
    CHECK(size == first || torpor_dtls_receive(client, 3, datagram + first, (size_t) (size - first)) == 0);
    carry(client, server, 3, 0);
    CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN);
    CHECK(comes_through(client, server, 4));
    free_all(client, server, s);
}

/*
 * wolfSSL 5.9.2 ends an association of DTLS 1.3 with CCM_8 after 64 records that do not authenticate: one datagram that anybody
 * can send. After 32 it updates keys.
 */
static void test_many_forged_records(void)
{
    uint8_t forged[60 * 20] = {0};
    torpor_dtls_server *s = new_server();
    torpor_dtls *server, *client = open_client(s, 0, &server);

    for (size_t at = 0; at < sizeof(forged); at += 20) {
        forged[at] = 0x27; /* RFC 9147 section 4: epoch 3, a number of one byte, a length */
        forged[at + 3] = 16;
    }
    for (int i = 0; i < 100; i++) {
        CHECK(torpor_dtls_receive(client, 2, forged, sizeof(forged)) == 0 && torpor_dtls_pending(client) == 0);
        CHECK(torpor_dtls_receive(server, 2, forged, sizeof(forged)) == 0 && torpor_dtls_pending(server) == 0);
    }
    CHECK(comes_through(client, server, 3));
    free_all(client, server, s);
}

/*
 * The first run of the fuzzers over wolfSSL 5.9.2 found that a client which offers DTLS 1.3 and a connection ID cannot fall back
 * to a server of 1.2 that gives one: the library forgets its offer before it reads the answer. With a client of 1.2 it does
 * not forget an offer that was turned down, and has a connection ID that nobody knows.
 */
static void test_connection_ids_of_each_version(void)
{
    static const unsigned OFFERED[] = {0, 8};

    for (unsigned i = 0; i < 16; i++) {
        unsigned highest = i & 1 ? 12 : 13, length = OFFERED[i >> 1 & 1];
        int given = (i & 4) == 0;
        torpor_dtls_server *s = new_server();
        torpor_dtls *client = new_client(0), *server;
        uint8_t message[] = "to and fro", answer[sizeof(message)];

        CHECK(torpor_dtls_server_options(s, (given ? 0u : TORPOR_DTLS_SERVER_NO_CONNECTION_IDS) |
                                                (i & 8 ? TORPOR_DTLS_SERVER_ONLY_12 : 0u)) == 0);
        CHECK(torpor_dtls_versions(client, 12, highest) == 0);
        CHECK(torpor_dtls_offer_connection_id(client, length) == 0);
        CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
        CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) == 0);
        carry(client, server, 1, 0);
        CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN && torpor_dtls_state(server) == TORPOR_DTLS_OPEN);
        CHECK(torpor_dtls_has_connection_id(client) == given && torpor_dtls_has_connection_id(server) == given);
        CHECK(torpor_dtls_write(client, message, sizeof(message)) == 0);
        CHECK(torpor_dtls_pending(client) == sizeof(message) + torpor_dtls_overhead(client));
        carry(client, server, 2, 0);
        CHECK(torpor_dtls_read(server, answer, sizeof(answer)) == sizeof(message));
        CHECK(comes_through(server, client, 3));
        free_all(client, server, s);
    }
}

/*
 * The fuzzer `records` found that mbedTLS 3.6 ends an association, with an internal error of its own, for a datagram with
 * a record that it skips, of another epoch, say, and less than a record's header behind it. Nobody needs a key for that.
 */
static void test_bytes_behind_a_skipped_record(void)
{
    static const uint8_t OF_EPOCH_0[] = {23, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 99, 0, 1, 0};
    static const uint8_t WITHOUT_ID[] = {20, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 99, 0, 1, 0};
    torpor_dtls_server *s = new_server();

    for (unsigned cid_length = 0; cid_length <= 8; cid_length += 8) {
        torpor_dtls *server, *client = open_client(s, cid_length, &server);
        uint8_t datagram[sizeof(OF_EPOCH_0) + 30];
        for (size_t more = 0; more <= 30; more++) {
            memset(datagram, 23, sizeof(datagram));
            memcpy(datagram, OF_EPOCH_0, sizeof(OF_EPOCH_0));
            CHECK(torpor_dtls_receive(client, 1, datagram, sizeof(OF_EPOCH_0) + more) == 0);
            CHECK(torpor_dtls_receive(server, 1, datagram, sizeof(OF_EPOCH_0) + more) == 0);
            memcpy(datagram, WITHOUT_ID, sizeof(WITHOUT_ID));
            CHECK(torpor_dtls_receive(client, 1, datagram, sizeof(WITHOUT_ID) + more) == 0);
        }
        CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN && torpor_dtls_state(server) == TORPOR_DTLS_OPEN);
        CHECK(comes_through(server, client, 2));
        torpor_dtls_free(client);
        torpor_dtls_free(server);
    }
    torpor_dtls_server_release(s);
}

/*
 * The fuzzer `saved` found that mbedTLS 3.6 copies connection IDs of any length out of a context, over what lies behind
 * the 32 bytes that it has for each. They follow the session and 64 random bytes.
 */
static void test_contexts_with_long_connection_ids(void)
{
    enum { SESSION_LENGTH = 12 + 1 + 8, SESSION = SESSION_LENGTH + 4 };
    torpor_dtls_server *s = new_server();
    torpor_dtls *server, *client = open_client(s, 8, &server), *d;
    uint8_t context[1500] = {0};
    size_t length, at;

    CHECK(torpor_dtls_context(client, context, sizeof(context), &length) == 0 && length < 1000);
    at = SESSION + (size_t) (context[SESSION_LENGTH + 2] << 8 | context[SESSION_LENGTH + 3]) + 64;
    CHECK(context[at] == 8 && context[at + 9] == 4); /* the client's, the server's */
    for (int which = 0; which < 2; which++) {
        uint8_t *number = &context[which == 0 ? at : at + 9], right = *number;
        for (unsigned wrong = 0; wrong < 256; wrong++) {
            *number = (uint8_t) wrong;
            CHECK(torpor_dtls_new(&d) == 0);
            CHECK((torpor_dtls_restore(d, 0, TIME, context, wrong == right ? length : sizeof(context)) == 0) ==
                  (wrong == right));
            torpor_dtls_free(d);
        }
        *number = right;
    }
    free_all(client, server, s);
}

/* A damaged context may load or not; whatever comes of it stays within its bytes. */
static void test_damaged_contexts(void)
{
    torpor_dtls_server *s = new_server();
    torpor_dtls *client = new_client(1), *server;
    uint8_t context[1500], saved[1500], message[100] = {1};
    size_t length;

    CHECK(torpor_dtls_offer_connection_id(client, 8) == 0);
    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) == 0);
    carry(client, server, 1, 0);
    CHECK(torpor_dtls_context(client, context, sizeof(context), &length) == 0);
    for (int i = 0; i < rounds * 20; i++) {
        torpor_dtls *d;
        size_t cut = i % 2 ? length : next_random() % length;
        uint8_t *exact = malloc(cut == 0 ? 1 : cut);
        torpor_dtls_session_info info;
        CHECK(exact != NULL && torpor_dtls_new(&d) == 0);
        memcpy(exact, context, cut);
        if (i % 2) {
            exact[next_random() % cut] ^= (uint8_t) (1u << next_random() % 8);
        }
        if (torpor_dtls_restore(d, 0, TIME, exact, cut) == 0) {
            CHECK(torpor_dtls_session(d, NULL, 0, &cut, &info) == 0);
            CHECK(torpor_dtls_drop_ticket(d) == 0 && torpor_dtls_drop_ticket(d) == 0);
            if (torpor_dtls_write(d, message, sizeof(message)) == 0) {
                carry(d, server, 2, 0);
            }
            (void) torpor_dtls_context(d, saved, sizeof(saved), &cut);
        } else {
            CHECK(torpor_dtls_state(d) == TORPOR_DTLS_FAILED);
            CHECK(torpor_dtls_session(d, NULL, 0, &cut, &info) == TORPOR_DTLS_ERR_STATE);
            CHECK(torpor_dtls_start(d, 0, TIME, NULL, 0) == TORPOR_DTLS_ERR_STATE);
        }
        free(exact);
        torpor_dtls_free(d);
    }
    free_all(client, server, s);
}

static void test_sealing(void)
{
    uint32_t key, again;
    uint8_t plain[40] = "secret", sealed[40 + TORPOR_SEAL_BYTES], out[40];

    CHECK(torpor_seal_key(&key) == 0 && torpor_seal_key(&again) == 0 && key == again);
    CHECK(torpor_seal(key, (const uint8_t *) "slot", 4, plain, sizeof(plain), sealed, sizeof(sealed)) == 0);
    CHECK(torpor_unseal(key, (const uint8_t *) "slot", 4, sealed, sizeof(sealed), out, sizeof(out)) == 0);
    CHECK(memcmp(plain, out, sizeof(plain)) == 0);
    CHECK(torpor_unseal(key, (const uint8_t *) "slit", 4, sealed, sizeof(sealed), out, sizeof(out)) != 0 && out[0] == 0);
    for (size_t cut = 0; cut < sizeof(sealed); cut++) {
        uint8_t *exact = malloc(cut == 0 ? 1 : cut);
        CHECK(exact != NULL);
        memcpy(exact, sealed, cut);
        CHECK(torpor_unseal(key, NULL, 0, exact, cut, out, sizeof(out)) != 0);
        free(exact);
    }
    CHECK(torpor_seal(key, NULL, 0, plain, sizeof(plain), sealed, sizeof(sealed) - 1) != 0);
    CHECK(torpor_seal(key, NULL, 0, sealed, 10, sealed + 5, 40) != 0);
    CHECK(torpor_seal(0x1234, NULL, 0, plain, sizeof(plain), sealed, sizeof(sealed)) != 0);
}

static void test_hostile_datagrams(void)
{
    torpor_dtls_server *s = new_server();
    for (int i = 0; i < rounds; i++) {
        torpor_dtls *client = new_client(i & 1), *server;
        CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
        CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) == 0);
        for (uint64_t now = 1; now < 60000; now += 5000) {
            carry(client, server, now, 1);
            (void) torpor_dtls_elapse(client, now);
            (void) torpor_dtls_elapse(server, now);
        }
        torpor_dtls_free(client);
        torpor_dtls_free(server);
    }
    torpor_dtls_server_release(s);
}

static void test_certificates(void)
{
    torpor_dtls *d;
    CHECK(torpor_dtls_new(&d) == 0);
    for (size_t cut = 0; cut < sizeof(CLIENT); cut++) {
        uint8_t *exact = malloc(cut == 0 ? 1 : cut);
        CHECK(exact != NULL);
        memcpy(exact, CLIENT, cut);
        CHECK(torpor_dtls_trust(d, exact, cut) != 0);
        CHECK(torpor_dtls_identity(d, client_key, exact, cut) != 0);
        free(exact);
    }
    CHECK(torpor_dtls_identity(d, server_key, CLIENT, sizeof(CLIENT)) != 0);
    CHECK(torpor_dtls_identity(d, client_key, CLIENT, sizeof(CLIENT)) == 0);
    torpor_dtls_free(d);
}

static void test_keys(void)
{
    static const uint8_t SUBJECT[] = {0x30, 0x0C, 0x31, 0x0A, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0C, 0x01, 0x61};
    uint8_t point[97], request[512], hash[48] = {0}, signature[112];
    size_t length;
    uint32_t key, again;

    for (unsigned bits = 256; bits <= 384; bits += 128) {
        CHECK(torpor_key_generate(TORPOR_KEY_FIRST, bits, &key) == 0);
        CHECK(torpor_key_generate(TORPOR_KEY_FIRST, bits, &again) == -139);
        CHECK(torpor_key_import(TORPOR_KEY_FIRST, CLIENT_KEY, sizeof(CLIENT_KEY), &again) == -139 && again == 0);
        CHECK(torpor_key_public(key, point, sizeof(point), &length) == 0 && length == 1 + bits / 4);
        CHECK(torpor_key_sign(key, hash, bits / 8, signature, sizeof(signature), &length) == 0);
        for (size_t size = 0; size < 300; size += 1) {
            uint8_t *exact = malloc(size == 0 ? 1 : size);
            CHECK(exact != NULL);
            int ret = torpor_csr(key, SUBJECT, sizeof(SUBJECT), NULL, 0, exact, size, &length);
            CHECK(ret != 0 ? length == 0 : length <= size);
            free(exact);
        }
        CHECK(torpor_csr(key, SUBJECT, sizeof(SUBJECT), NULL, 0, request, sizeof(request), &length) == 0);
        /* `out` over what goes in: refused wherever they share a byte, and nothing is written. */
        memcpy(request, SUBJECT, sizeof(SUBJECT));
        CHECK(torpor_csr(key, request, sizeof(SUBJECT), NULL, 0, request, sizeof(request), &length) == -135);
        CHECK(torpor_csr(key, request, sizeof(SUBJECT), NULL, 0, request + sizeof(SUBJECT) - 1, 300, &length) == -135);
        CHECK(torpor_csr(key, SUBJECT, sizeof(SUBJECT), request + 300, 12, request, 301, &length) == -135);
        CHECK(length == 0 && memcmp(request, SUBJECT, sizeof(SUBJECT)) == 0);
        CHECK(torpor_csr(key, request, sizeof(SUBJECT), NULL, 0, request + sizeof(SUBJECT), 400, &length) == 0);
        CHECK(torpor_key_destroy(key) == 0 && torpor_key_destroy(key) == 0 && torpor_key_check(key) != 0);
    }
    CHECK(torpor_key_generate(1, 256, &key) != 0 && key == 0);
    CHECK(torpor_key_generate(0, 255, &key) != 0);
    for (size_t cut = 0; cut < sizeof(CLIENT_KEY); cut++) {
        uint8_t *exact = malloc(cut == 0 ? 1 : cut);
        CHECK(exact != NULL);
        memcpy(exact, CLIENT_KEY, cut);
        CHECK(torpor_key_import(0, exact, cut, &key) != 0);
        free(exact);
    }
}

/* The certificates that the server is verified by are kept where asked to, and lead to the trust anchor. */
static void test_chains(void)
{
    torpor_dtls_server *s = new_server();
    uint8_t chain[4096], both[sizeof(SERVER) + sizeof(CA)];

    for (int keep = 0; keep < 2; keep++) {
        torpor_dtls *client = new_client(0), *server = NULL;
        if (keep) {
            CHECK(torpor_dtls_keep_chain(client) == 0);
        }
        CHECK(torpor_dtls_chain(client, chain, sizeof(chain)) == TORPOR_DTLS_ERR_STATE);
        CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
        CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) == 0);
        CHECK(torpor_dtls_keep_chain(client) == TORPOR_DTLS_ERR_STATE);
        carry(client, server, 0, 0);
        /* The anchor first, the server's own last. */
        CHECK(torpor_dtls_chain(client, NULL, 0) == (keep ? (int) (sizeof(CA) + sizeof(SERVER)) : 0));
        if (keep) {
            memset(chain, 0, sizeof(chain));
            CHECK(torpor_dtls_chain(client, chain, sizeof(CA)) == (int) sizeof(both) && chain[0] == 0);
            CHECK(torpor_dtls_chain(client, chain, sizeof(chain)) == (int) sizeof(both));
            CHECK(memcmp(chain, CA, sizeof(CA)) == 0 && memcmp(chain + sizeof(CA), SERVER, sizeof(SERVER)) == 0);
        }
        torpor_dtls_free(client);
        torpor_dtls_free(server);
    }
    torpor_dtls_server_release(s);

    memcpy(both, SERVER, sizeof(SERVER));
    memcpy(both + sizeof(SERVER), CA, sizeof(CA));
    CHECK(torpor_chain_verify(SERVER, sizeof(SERVER), CA, sizeof(CA)) == 0);
    CHECK(torpor_chain_verify(both, sizeof(both), CA, sizeof(CA)) == 0);
    CHECK(torpor_chain_verify(SERVER, sizeof(SERVER), CLIENT, sizeof(CLIENT)) > 0);
    CHECK(torpor_chain_verify(SERVER, 0, CA, sizeof(CA)) < 0);
    CHECK(torpor_chain_verify(SERVER, sizeof(SERVER), CA, 0) < 0);
    for (int round = 0; round < rounds; round++) {
        /* Cut off or changed anywhere, in a block of just that size. */
        size_t length = next_random() % sizeof(both) + 1;
        uint8_t *exact = malloc(length);
        CHECK(exact != NULL);
        memcpy(exact, both, length);
        exact[next_random() % length] ^= (uint8_t) (1u << next_random() % 8);
        torpor_chain_verify(exact, length, CA, sizeof(CA));
        torpor_chain_verify(SERVER, sizeof(SERVER), exact, length);
        free(exact);
    }
}

static void test_storage(const char *folder)
{
    char path[600];
    uint8_t value[64] = {1, 2, 3}, out[64];
    size_t length;
    struct psa_storage_info_t info;
    struct stat status;
    FILE *file;

    CHECK(psa_its_set(0x77, sizeof(value), value, PSA_STORAGE_FLAG_NONE) == PSA_SUCCESS);
    CHECK(psa_its_get_info(0x77, &info) == PSA_SUCCESS && info.size == sizeof(value));
    CHECK(psa_its_get(0x77, 60, 64, out, &length) == PSA_SUCCESS && length == 4);
    CHECK(psa_its_get(0x77, 65, 1, out, &length) == PSA_ERROR_INVALID_ARGUMENT);
    CHECK(psa_its_get(0x78, 0, 1, out, &length) == PSA_ERROR_DOES_NOT_EXIST);
    snprintf(path, sizeof(path), "%s/keys/%016x", folder, 0x77);
    CHECK(stat(path, &status) == 0 && (status.st_mode & 0777) == 0600);
    CHECK(truncate(path, 20) == 0);
    CHECK(psa_its_get(0x77, 0, 64, out, &length) == PSA_ERROR_DATA_CORRUPT);
    file = fopen(path, "w");
    CHECK(file != NULL && fputs("garbage, and no header at all", file) >= 0 && fclose(file) == 0);
    CHECK(psa_its_get_info(0x77, &info) == PSA_ERROR_DATA_CORRUPT);
    CHECK(psa_its_remove(0x77) == PSA_SUCCESS);
    CHECK(psa_its_remove(0x77) == PSA_ERROR_DOES_NOT_EXIST);
    CHECK(psa_its_set(0x79, 3, value, PSA_STORAGE_FLAG_WRITE_ONCE) == PSA_SUCCESS);
    CHECK(psa_its_set(0x79, 3, value, PSA_STORAGE_FLAG_NONE) == PSA_ERROR_NOT_PERMITTED);
    CHECK(psa_its_remove(0x79) == PSA_ERROR_NOT_PERMITTED);
    CHECK(psa_its_set(0x7A, 3, value, 0x80) == PSA_ERROR_NOT_SUPPORTED);
    CHECK(psa_its_set(0x7A, 1000000, value, 0) == PSA_ERROR_INSUFFICIENT_STORAGE);
}

/*
 * The fuzzer `handshake` found that mbedTLS passes over a certificate that is signed with an algorithm that it does not
 * know, and comes to the verification with a certificate of no bytes, at a null pointer, where that was the only one.
 */
static void test_server_with_an_unknown_signature(void)
{
    static const uint8_t ECDSA_WITH_SHA256[] = {0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02};
    torpor_dtls_server *s = new_server();
    torpor_dtls *client = new_client(0), *server;
    uint8_t datagram[2048];
    int length, changed = 0;

    CHECK(torpor_dtls_keep_chain(client) == 0);
    CHECK(torpor_dtls_versions(client, 12, 12) == 0); /* whose certificates are in the clear */
    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) == 0);
    while (torpor_dtls_state(client) == TORPOR_DTLS_HANDSHAKE) {
        while ((length = torpor_dtls_take(client, datagram, sizeof(datagram))) > 0) {
            (void) torpor_dtls_receive(server, 1, datagram, (size_t) length);
        }
        length = torpor_dtls_take(server, datagram, sizeof(datagram));
        CHECK(length > 0);
        for (size_t at = 0; at + sizeof(ECDSA_WITH_SHA256) <= (size_t) length; at++) {
            if (memcmp(datagram + at, ECDSA_WITH_SHA256, sizeof(ECDSA_WITH_SHA256)) == 0) {
                datagram[at + sizeof(ECDSA_WITH_SHA256) - 1] = 9;
                changed++;
            }
        }
        (void) torpor_dtls_receive(client, 1, datagram, (size_t) length);
    }
    CHECK(changed == 2 && torpor_dtls_state(client) == TORPOR_DTLS_FAILED);
    CHECK(torpor_dtls_failure(client).kind == TORPOR_DTLS_FAILURE_CERTIFICATE);
    CHECK((torpor_dtls_failure(client).detail & 0x40) != 0); /* MBEDTLS_X509_BADCERT_MISSING */
    free_all(client, server, s);
}

/* ---- what is refused ---- */

/* What is set up after the start, out of its range, or asked of the wrong state is refused, and nothing changes. */
static void test_refused_calls(void)
{
    static const uint8_t ADDRESS[16] = {127, 0, 0, 1};
    torpor_dtls_server *s = new_server();
    torpor_dtls *client = new_client(1), *server;
    char name[257];
    uint8_t bytes[2048], digest[32];
    size_t length;
    int size;

    memset(name, 'a', 256);
    name[256] = '\0';
    CHECK(torpor_dtls_server_name(client, "") == TORPOR_DTLS_ERR_FORMAT);
    CHECK(torpor_dtls_server_name(client, name) == TORPOR_DTLS_ERR_FORMAT);
    CHECK(torpor_dtls_server_address(client, ADDRESS, 5) == TORPOR_DTLS_ERR_FORMAT);
    CHECK(torpor_dtls_mtu(client, 255) == TORPOR_DTLS_ERR_FORMAT && torpor_dtls_mtu(client, 2049) == TORPOR_DTLS_ERR_FORMAT);
    CHECK(torpor_dtls_timers(client, 0, 1) == TORPOR_DTLS_ERR_FORMAT);
    CHECK(torpor_dtls_timers(client, 1, 3600001) == TORPOR_DTLS_ERR_FORMAT);
    CHECK(torpor_dtls_drop_ticket(client) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_server_accept(s, 0, TIME, bytes, 0, &server) == TORPOR_DTLS_ERR_FORMAT && server == NULL);
    CHECK(torpor_dtls_server_accept(s, 0, TIME, bytes, 19, &server) == TORPOR_DTLS_ERR_FORMAT && server == NULL);
    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
    CHECK(torpor_dtls_server_trust(s, CA, sizeof(CA)) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_server_identity(s, server_key, SERVER, sizeof(SERVER)) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_server_options(s, 0) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_server_peer_digest(server, digest) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_start(client, 5, TIME, NULL, 0) == 0);

    CHECK(torpor_dtls_trust(client, CA, sizeof(CA)) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_identity(client, client_key, CLIENT, sizeof(CLIENT)) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_server_name(client, "localhost") == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_server_address(client, ADDRESS, 4) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_mtu(client, 1000) == TORPOR_DTLS_ERR_STATE && torpor_dtls_timers(client, 1, 1) == TORPOR_DTLS_ERR_STATE);
    CHECK(torpor_dtls_offer_connection_id(client, 0) == TORPOR_DTLS_ERR_STATE);
    /* A datagram that does not fit the buffer stays, and the calls that it keeps waiting wait. */
    length = torpor_dtls_pending(client);
    CHECK(length > 0 && torpor_dtls_take(client, bytes, length - 1) == TORPOR_DTLS_ERR_SIZE);
    CHECK(torpor_dtls_receive(client, 5, bytes, 1) == TORPOR_DTLS_ERR_PENDING);
    CHECK(torpor_dtls_elapse(client, 5) == TORPOR_DTLS_ERR_PENDING);
    CHECK(torpor_dtls_pending(client) == length);
    carry(client, server, 6, 0);
    CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN);

    size = torpor_dtls_server_peer_certificate(server, bytes, sizeof(bytes));
    CHECK(size == (int) sizeof(CLIENT) && memcmp(bytes, CLIENT, sizeof(CLIENT)) == 0);
    CHECK(torpor_dtls_server_peer_certificate(server, bytes, sizeof(CLIENT) - 1) == TORPOR_DTLS_ERR_SIZE);
    CHECK(torpor_dtls_server_connection_id(server, digest) == TORPOR_DTLS_ERR_STATE); /* the client offered none */
    CHECK(torpor_dtls_write(client, bytes, 0) == TORPOR_DTLS_ERR_SIZE);
    CHECK(torpor_dtls_write(client, bytes, TORPOR_DTLS_MTU) == TORPOR_DTLS_ERR_SIZE);
    CHECK(torpor_dtls_write(client, bytes, 1) == 0 && torpor_dtls_close(client) == TORPOR_DTLS_ERR_PENDING);
    CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN);
    torpor_dtls_free(client);
    torpor_dtls_free(server);
    torpor_dtls_free(NULL);
    torpor_dtls_server_release(s);
}

/* A key of another kind, a number without a key, lengths and places that do not fit: an error, and no output. */
static void test_refused_crypto(void)
{
    uint8_t bytes[200] = {0}, hash[48] = {0}, signature[112];
    uint32_t seal_key, key;
    size_t length = 1;

    CHECK(strstr(torpor_crypto_version(), "TLS ") != NULL || strstr(torpor_crypto_version(), "SSL ") != NULL);
    CHECK(torpor_random(bytes, 16) == 0 && memcmp(bytes, bytes + 16, 16) != 0);
    CHECK(torpor_key_import(1, CLIENT_KEY, sizeof(CLIENT_KEY), &key) == -135 && key == 0);
    CHECK(torpor_seal_key(&seal_key) == 0 && torpor_key_check(seal_key) == -134);
    CHECK(torpor_key_sign(seal_key, hash, 32, signature, sizeof(signature), &length) == -134 && length == 0);
    CHECK(torpor_key_sign(client_key, hash, 48, signature, sizeof(signature), &length) == -135 && length == 0);
    CHECK(torpor_csr(seal_key, bytes, 2, NULL, 0, bytes + 10, 100, &length) == -134 && length == 0);
    CHECK(torpor_key_public(client_key, bytes, 10, &length) != 0);
    CHECK(torpor_unseal(seal_key, NULL, 0, bytes, 100, bytes + 50, 100) == -135);
    CHECK(torpor_unseal(seal_key, NULL, 0, bytes, 100, bytes + 110, 71) == -138);
}

/* A device that has lost its association begins anew from the same address and port: the server's end goes along. */
static void test_client_that_begins_anew(void)
{
    torpor_dtls_server *s = new_server();
    torpor_dtls *server, *client = open_client(s, 0, &server), *again = new_client(0);
    uint8_t message[] = "again", answer[sizeof(message)];

    CHECK(torpor_dtls_start(again, 2, TIME, NULL, 0) == 0);
    carry(again, server, 3, 0);
    CHECK(torpor_dtls_state(again) == TORPOR_DTLS_OPEN && torpor_dtls_state(server) == TORPOR_DTLS_OPEN);
    CHECK(torpor_dtls_write(again, message, sizeof(message)) == 0);
    carry(again, server, 4, 0);
    CHECK(torpor_dtls_read(server, answer, sizeof(answer)) == sizeof(message));
    torpor_dtls_free(client);
    torpor_dtls_free(again);
    torpor_dtls_free(server);
    torpor_dtls_server_release(s);
}

/* ---- memory that runs out ---- */

/* A client of its own with a server of its own: whether all went well. What fails says so, and leaves nothing behind. */
static int live(const uint8_t *session, size_t length, int tickets)
{
    torpor_dtls_server *s = NULL;
    torpor_dtls *client = NULL, *server = NULL;
    torpor_dtls_session_info info;
    uint8_t saved[1500], message[] = "memory";
    size_t saved_length;
    int ok = torpor_dtls_server_new(&s) == 0 && torpor_dtls_server_trust(s, CA, sizeof(CA)) == 0 &&
             torpor_dtls_server_identity(s, server_key, SERVER, sizeof(SERVER)) == 0 &&
             torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0;

    CHECK(ok || server == NULL);
    ok = ok && torpor_dtls_new(&client) == 0;
    if (ok) {
        if (tickets) {
            torpor_dtls_offer_tickets(client);
        }
        ok = torpor_dtls_trust(client, CA, sizeof(CA)) == 0 &&
             torpor_dtls_identity(client, client_key, CLIENT, sizeof(CLIENT)) == 0 &&
             torpor_dtls_server_name(client, "localhost") == 0 && torpor_dtls_keep_chain(client) == 0 &&
             torpor_dtls_offer_connection_id(client, 8) == 0 &&
             torpor_dtls_start(client, 0, TIME, session, length) == 0;
    }
    if (ok) {
        carry(client, server, 1, 0);
        CHECK((torpor_dtls_state(client) == TORPOR_DTLS_FAILED) ==
              (torpor_dtls_failure(client).kind != TORPOR_DTLS_FAILURE_NONE));
        ok = torpor_dtls_state(client) == TORPOR_DTLS_OPEN && torpor_dtls_write(client, message, sizeof(message)) == 0;
    }
    if (ok) {
        carry(client, server, 2, 0);
        ok = torpor_dtls_read(server, saved, sizeof(saved)) == sizeof(message) &&
             torpor_dtls_write(server, message, sizeof(message)) == 0;
    }
    if (ok) {
        carry(client, server, 3, 0);
        ok = torpor_dtls_read(client, saved, sizeof(saved)) == sizeof(message) &&
             torpor_dtls_session(client, saved, sizeof(saved), &saved_length, &info) == 0;
    }
#if !defined(TORPOR_ENGINE_WOLFSSL)
    ok = ok && torpor_dtls_context(client, saved, sizeof(saved), &saved_length) == 0;
    torpor_dtls_free(client);
    client = NULL;
    if (ok) {
        ok = torpor_dtls_new(&client) == 0 && torpor_dtls_restore(client, 4, TIME, saved, saved_length) == 0;
        CHECK(client == NULL || ok == (torpor_dtls_state(client) == TORPOR_DTLS_OPEN));
    }
#endif
    free_all(client, server, s);
    return ok;
}

/* The same with what needs keys and certificates alone. */
static int certify(void)
{
    static const uint8_t SUBJECT[] = {0x30, 0x00};
    uint8_t request[512];
    size_t length;
    uint32_t key = 0;
    int ok = torpor_chain_verify(SERVER, sizeof(SERVER), CA, sizeof(CA)) == 0 &&
             torpor_key_import(0, CLIENT_KEY, sizeof(CLIENT_KEY), &key) == 0 &&
             torpor_csr(key, SUBJECT, sizeof(SUBJECT), NULL, 0, request, sizeof(request), &length) == 0;

    CHECK(key == 0 || torpor_key_destroy(key) == 0);
    return ok;
}

/*
 * Memory runs out at one allocation after the other: whatever was going on ends in an error, or goes on without what there
 * was no room for, and all of the memory is there again afterwards. Numbers of elliptic curves are left out, of which a
 * full handshake makes thousands: they are shorter than what else there is.
 */
static void test_memory_that_runs_out(void)
{
    enum { NUMBER = 96 };
    uint8_t session[1024];
    torpor_dtls_server *s = new_server();
    size_t length = connect_once(s, 1, NULL, 0, 0, session, sizeof(session)), before;
    long stride = rounds >= 150 ? 1 : 37, failed = 0;

    torpor_dtls_server_release(s);
    CHECK(live(session, length, 1) && live(NULL, 0, 1) && certify());
    torpor_heap_reset_peak();
    before = torpor_heap_figures().now;
    CHECK(torpor_heap_figures().peak == before);
    smallest = NUMBER;
    for (int what = 0; what < 3; what++) {
        for (long made = 0, done = 0; !done; made += stride) {
            allocations = made;
            (void) (what == 0 ? live(NULL, 0, 1) : what == 1 ? live(session, length, 1) : certify());
            done = allocations >= 0;
            failed += !done;
            allocations = -1;
            CHECK(torpor_heap_figures().now == before);
        }
    }
    CHECK(failed > 10);
    smallest = 0;
    CHECK(live(NULL, 0, 0) && certify());
    CHECK(torpor_heap_figures().now == before);
}

static void test_heap_limit(void)
{
    torpor_heap figures = torpor_heap_figures();
    torpor_dtls *client;
    size_t before = figures.now;

    CHECK(figures.peak > 0);
    torpor_heap_limit(before + 6000);
    CHECK(torpor_dtls_new(&client) == 0);
    CHECK(torpor_dtls_trust(client, CA, sizeof(CA)) == 0);
    CHECK(torpor_dtls_server_name(client, "localhost") == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, NULL, 0) != 0);
    CHECK(torpor_dtls_failure(client).kind == TORPOR_DTLS_FAILURE_MEMORY);
    torpor_dtls_free(client);
    torpor_heap_limit(0);
    CHECK(torpor_heap_figures().now == before);
}

int main(int argc, char **argv)
{
    char keys[512];
    uint32_t none;

    CHECK(argc == 2 || argc == 3);
    if (argc == 3) {
        rounds = atoi(argv[2]);
    }
    seed = 20261122;
    CHECK(torpor_crypto_open() == 0 && torpor_crypto_open() == 0);
    /* Nothing is written anywhere before the folder is named. */
    CHECK(torpor_key_generate(TORPOR_KEY_FIRST, 256, &none) != 0 && none == 0);
    snprintf(keys, sizeof(keys), "%s/keys", argv[1]);
    CHECK(torpor_its_open(keys) == 0);
    CHECK(torpor_key_import(0, SERVER_KEY, sizeof(SERVER_KEY), &server_key) == 0);
    CHECK(torpor_key_import(0, CLIENT_KEY, sizeof(CLIENT_KEY), &client_key) == 0);

    test_connections();
    test_damaged_sessions();
#if !defined(TORPOR_ENGINE_WOLFSSL) /* which saves no contexts */
    test_contexts();
    test_damaged_contexts();
    test_contexts_with_long_connection_ids();
#endif
    test_connection_ids_of_each_version();
    test_highest_number_and_forged_epochs();
    test_open_association_and_messages_in_the_clear();
    test_last_flight_that_is_lost();
    test_acknowledgements_in_the_clear();
    test_many_forged_records();
    test_bytes_behind_a_skipped_record();
    test_sealing();
    test_hostile_datagrams();
    test_certificates();
    test_chains();
    test_keys();
    test_storage(argv[1]);
    test_server_with_an_unknown_signature();
    test_refused_calls();
    test_refused_crypto();
#if !defined(TORPOR_ENGINE_WOLFSSL) /* there the host finds a new ClientHello, and makes another association */
    test_client_that_begins_anew();
#endif
    test_memory_that_runs_out();
    test_heap_limit();

    CHECK(torpor_key_destroy(server_key) == 0 && torpor_key_destroy(client_key) == 0);
    torpor_crypto_close();
    CHECK(torpor_heap_figures().now == 0);
    printf("the C core: all checks passed\n");
    return 0;
}
