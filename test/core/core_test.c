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
    exact = malloc(size == 0 ? 1 : size);
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

static size_t connect_once(torpor_dtls_server *s, int tickets, const uint8_t *session, size_t length, int resumed,
                           uint8_t *saved, size_t size)
{
    torpor_dtls *client = new_client(tickets), *server;
    torpor_dtls_session_info info;
    uint8_t message[64] = "hello", answer[64], digest[32], unique[2][TORPOR_DTLS_UNIQUE_MAX];
    size_t saved_length = 0;

    CHECK(torpor_dtls_server_accept(s, 0, TIME, PEER, sizeof(PEER), &server) == 0);
    CHECK(torpor_dtls_start(client, 0, TIME, session, length) == 0);
    carry(client, server, 1, 0);
    CHECK(torpor_dtls_state(client) == TORPOR_DTLS_OPEN && torpor_dtls_state(server) == TORPOR_DTLS_OPEN);
    CHECK(torpor_dtls_resumed(client) == resumed);
    CHECK(torpor_dtls_unique(client, unique[0]) == 12 && torpor_dtls_unique(server, unique[1]) == 12);
    CHECK(memcmp(unique[0], unique[1], 12) == 0);
    CHECK(torpor_dtls_server_peer_digest(server, digest) == 0);
    CHECK(torpor_dtls_write(client, message, sizeof(message)) == 0);
    CHECK(torpor_dtls_write(client, message, sizeof(message)) == TORPOR_DTLS_ERR_PENDING);
    carry(client, server, 2, 0);
    CHECK(torpor_dtls_read(server, answer, 10) == 64);
    CHECK(memcmp(answer, message, 10) == 0);
    CHECK(torpor_dtls_session(client, NULL, 0, &saved_length, &info) == 0);
    CHECK(info.kind == (tickets ? TORPOR_DTLS_SESSION_TICKET : TORPOR_DTLS_SESSION_ID));
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
        CHECK(torpor_dtls_write(server, message, sizeof(message)) == 0);
        carry(client, server, wake, 0);
        CHECK(torpor_dtls_read(client, answer, sizeof(answer)) == sizeof(answer));
    }
    torpor_dtls_free(client);
    torpor_dtls_free(server);
    torpor_dtls_server_release(s);
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
    torpor_dtls_free(client);
    torpor_dtls_free(server);
    torpor_dtls_server_release(s);
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
        CHECK(torpor_key_generate(TORPOR_KEY_FIRST, bits, &again) != 0);
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
    test_contexts();
    test_damaged_contexts();
    test_sealing();
    test_hostile_datagrams();
    test_certificates();
    test_chains();
    test_keys();
    test_storage(argv[1]);
    test_heap_limit();

    CHECK(torpor_key_destroy(server_key) == 0 && torpor_key_destroy(client_key) == 0);
    torpor_crypto_close();
    CHECK(torpor_heap_figures().now == 0);
    printf("the C core: all checks passed\n");
    return 0;
}
