/*
 * Bytes into the loaders of what was saved: a session into torpor_dtls_start, a context into torpor_dtls_restore. Genuine
 * ones that were changed, and anything at all. The core does not authenticate them (the session table does, by its checks
 * and its seal), but whatever they are, they are loaded or refused within their bytes.
 *
 *     saved CORPUS     (a libFuzzer target: saved -help=1)
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static const unsigned SETUPS_USED[] = {
#if ENGINE_SAVES_CONTEXTS
    WITH_CONNECTION_ID,
    WITH_CONNECTION_ID | WITH_TICKETS | WITH_CHAIN,
    WITH_RESUMPTION,
    WITH_RESUMPTION | WITH_TICKETS | WITH_CONNECTION_ID,
#else
    WITH_RESUMPTION,
    WITH_RESUMPTION | WITH_VERSION_12,
    WITH_RESUMPTION | WITH_VERSION_12 | WITH_TICKETS | WITH_CONNECTION_ID,
    WITH_RESUMPTION | WITH_HYBRID,
#endif
};
#define USED (sizeof(SETUPS_USED) / sizeof(SETUPS_USED[0]))

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void) argc;
    (void) argv;
    fuzz_open();
    for (size_t i = 0; i < USED; i++) {
        (void) connected(SETUPS_USED[i]);
    }
    return 0;
}

/* Comes back with a session, to the answers of a server that knows the genuine one. */
static void start(unsigned setup, const connection *c, const uint8_t *session, size_t length)
{
    torpor_dtls *d;
    int ret;

    as_client();
    d = new_client(setup | WITH_RESUMPTION);
    ret = torpor_dtls_start(d, 0, FUZZ_TIME, session, length);
    if (ret == 0) {
        discard_output(d);
        for (unsigned i = 0; i < c->count; i++) {
            deliver(d, 0, c->datagrams[i], c->lengths[i]);
        }
    } else if (ret == TORPOR_DTLS_ERR_BUILD || ret == TORPOR_DTLS_ERR_FORMAT) {
        PROMISE(torpor_dtls_state(d) == TORPOR_DTLS_IDLE && torpor_dtls_start(d, 0, FUZZ_TIME, NULL, 0) == 0);
        discard_output(d);
    } else {
        PROMISE(torpor_dtls_state(d) == TORPOR_DTLS_FAILED);
    }
    look(d);
    torpor_dtls_free(d);
}

static void restore(const uint8_t *context, size_t length, script *s, int depth)
{
    uint8_t saved[SAVED_MAX] = {0}, message[100] = {0};
    size_t saved_length = 0;
    torpor_dtls *d;

    as_client();
    PROMISE(torpor_dtls_new(&d) == 0);
    if (torpor_dtls_restore(d, 0, FUZZ_TIME, context, length) == 0) {
        torpor_dtls_session_info info;
        PROMISE(torpor_dtls_state(d) == TORPOR_DTLS_OPEN);
        look(d);
        (void) torpor_dtls_session(d, saved, sizeof(saved), &saved_length, &info);
        if (torpor_dtls_write(d, message, next8(s) % sizeof(message)) == 0) {
            discard_output(d);
        }
        uint8_t *foreign = next_bytes(s, FUZZ_DATAGRAM, &saved_length);
        deliver(d, 1, foreign, saved_length);
        free(foreign);
        read_all(d);
        (void) torpor_dtls_drop_ticket(d);
        if (depth == 0 && torpor_dtls_context(d, saved, sizeof(saved), &saved_length) == 0) {
            uint8_t *exact = exact_copy(saved, saved_length);
            restore(exact, saved_length, s, 1);
            free(exact);
        }
    } else {
        PROMISE(torpor_dtls_state(d) == TORPOR_DTLS_FAILED);
    }
    look(d);
    torpor_dtls_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script s = {data, size};
    unsigned which = next8(&s), setup = SETUPS_USED[which % USED];
    const connection *c = connected(setup);
    int is_context = c->context_length > 0;
    uint8_t bytes[FUZZ_DATAGRAM], *exact;
    size_t length;

    if (which & 128) {
        exact = next_bytes(&s, FUZZ_DATAGRAM, &length);
    } else {
        length = is_context ? c->context_length : c->begun_length;
        memcpy(bytes, is_context ? c->context : c->begun, length);
        edit(&s, bytes, &length, sizeof(bytes));
        exact = exact_copy(bytes, length);
    }
    if (is_context) {
        restore(exact, length, &s, 0);
    } else {
        start(setup, c, exact, length);
    }
    free(exact);
    return 0;
}
