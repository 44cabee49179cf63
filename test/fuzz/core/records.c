/*
 * Datagrams into an open association: one restored from a saved context, or one that came back by a session. Records of
 * the server of every type and content, genuine ones that were changed, repeated, put together, and whatever else comes
 * by. What does not authenticate changes nothing.
 *
 *     records CORPUS     (a libFuzzer target: records -help=1)
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define STEPS_MAX 48

static const unsigned SETUPS_USED[] = {
    WITH_CONNECTION_ID,
    WITH_CONNECTION_ID | WITH_CHAIN,
    WITH_CONNECTION_ID | WITH_TICKETS,
    WITH_RESUMPTION,
    WITH_RESUMPTION | WITH_TICKETS,
    WITH_RESUMPTION | WITH_CONNECTION_ID,
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

/* The client's end of a connection, open. */
static torpor_dtls *reopen(const connection *c, unsigned setup)
{
    torpor_dtls *d;

    as_client();
    if (c->context_length > 0) {
        PROMISE(torpor_dtls_new(&d) == 0);
        PROMISE(torpor_dtls_restore(d, 0, FUZZ_TIME, c->context, c->context_length) == 0);
    } else {
        d = new_client(setup);
        PROMISE(torpor_dtls_start(d, 0, FUZZ_TIME, c->begun, c->begun_length) == 0);
        discard_output(d);
        for (unsigned i = 0; i < c->count; i++) {
            deliver(d, 0, c->datagrams[i], c->lengths[i]);
        }
    }
    PROMISE(torpor_dtls_state(d) == TORPOR_DTLS_OPEN);
    return d;
}

/* A record of the server as the script has it: a type, and what is in it. Its length. */
static size_t server_record(script *s, const connection *c, uint8_t datagram[FUZZ_DATAGRAM])
{
    static const uint8_t TYPES[] = {23, 23, 21, 21, 22, 20, 24, 25};
    uint8_t which = next8(s), type = which < 128 ? TYPES[which % 8] : next8(s);
    size_t length;
    uint8_t *content = next_bytes(s, which & 64 ? next16(s) % 1200 : next8(s) % 16, &length);
    int made = 0;

    as_server();
    if (engine_send(c->server, type, content, length) == 0) {
        made = torpor_dtls_take(c->server, datagram, FUZZ_DATAGRAM);
        PROMISE(made > 0);
    }
    free(content);
    return (size_t) made;
}

/* What has no part of the association's keys must leave no trace. */
static void deliver_foreign(torpor_dtls *d, uint64_t now, const uint8_t *datagram, size_t length)
{
    int before = torpor_dtls_state(d);
    size_t waiting = torpor_dtls_readable(d);
    uint64_t highest = torpor_dtls_highest(d);

    deliver(d, now, datagram, length);
    PROMISE(torpor_dtls_state(d) == before && torpor_dtls_readable(d) == waiting && torpor_dtls_highest(d) == highest);
}

/* Saves the association, and goes on with what was saved. */
static torpor_dtls *save_and_restore(torpor_dtls *d, uint64_t now)
{
    uint8_t context[SAVED_MAX], unique[2][TORPOR_DTLS_UNIQUE_MAX] = {{0}};
    size_t asked = 0, length = 0;
    torpor_dtls *again;

    if (torpor_dtls_state(d) != TORPOR_DTLS_OPEN || torpor_dtls_context(d, NULL, 0, &asked) != 0) {
        return d;
    }
    PROMISE(asked <= sizeof(context) && torpor_dtls_unique(d, unique[0]) > 0);
    PROMISE(torpor_dtls_context(d, context, asked, &length) == 0 && length == asked);
    look(d);
    torpor_dtls_free(d);
    PROMISE(torpor_dtls_new(&again) == 0);
    PROMISE(torpor_dtls_restore(again, now, FUZZ_TIME, context, length) == 0);
    PROMISE(torpor_dtls_unique(again, unique[1]) > 0 && memcmp(unique[0], unique[1], sizeof(unique[0])) == 0);
    return again;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script s = {data, size};
    unsigned setup = SETUPS_USED[next8(&s) % USED];
    const connection *c = connected(setup);
    uint8_t datagram[FUZZ_DATAGRAM] = {0}, changed[FUZZ_DATAGRAM], message[1500] = {0};
    uint64_t now = 0;
    size_t last = 0, length;
    torpor_dtls *d = reopen(c, setup);

    for (int steps = 0; steps < STEPS_MAX && s.left > 0; steps++) {
        unsigned operation = next8(&s);
        switch (operation % 9) {
        case 0:
            length = torpor_dtls_readable(d);
            last = server_record(&s, c, datagram);
            deliver(d, now, datagram, last);
            last = length == 0 ? last : 0; /* lost, where a message waited */
            break;
        case 1:
            last = server_record(&s, c, datagram);
            memcpy(changed, datagram, last);
            length = last;
            edit(&s, changed, &length, sizeof(changed));
            if (length < last || (length == last && memcmp(changed, datagram, last) != 0)) {
                read_all(d);
                deliver_foreign(d, now, changed, length);
            } else {
                deliver(d, now, changed, length); /* the genuine record may be in it, whole */
            }
            last = 0; /* the genuine one is yet to come */
            break;
        case 2: {
            uint8_t *foreign = next_bytes(&s, next16(&s) % FUZZ_DATAGRAM, &length);
            read_all(d);
            deliver_foreign(d, now, foreign, length);
            free(foreign);
            break;
        }
        case 3: /* the same once more is no message; that it was seen at all does not hold for every empty record */
            if (last > 0 && torpor_dtls_state(d) == TORPOR_DTLS_OPEN) {
                read_all(d);
                deliver(d, now, datagram, last);
                PROMISE(torpor_dtls_state(d) == TORPOR_DTLS_OPEN && torpor_dtls_readable(d) == 0);
            }
            break;
        case 4: {
            int written;
            length = next16(&s) % sizeof(message);
            written = torpor_dtls_write(d, message, length);
            if (written == 0) {
                PROMISE(torpor_dtls_pending(d) == length + torpor_dtls_overhead(d));
                discard_output(d);
            } else {
                PROMISE(written == TORPOR_DTLS_ERR_SIZE || written == TORPOR_DTLS_ERR_STATE);
            }
            break;
        }
        case 5: { /* a reader with little room */
            size_t waiting = torpor_dtls_readable(d), room = next8(&s);
            uint8_t *small = exact_copy(message, room);
            int got = torpor_dtls_read(d, small, room);
            PROMISE(got < 0 || (size_t) got == waiting);
            free(small);
            discard_output(d);
            break;
        }
        case 6:
            now += 1000u * next8(&s);
            (void) torpor_dtls_elapse(d, now);
            discard_output(d);
            break;
        case 7: { /* two records in one datagram */
            size_t first = server_record(&s, c, changed), second = server_record(&s, c, datagram);
            if (first + second <= sizeof(changed)) {
                memcpy(changed + first, datagram, second);
                deliver(d, now, changed, first + second);
            }
            last = 0;
            break;
        }
        default:
            if (operation & 16) {
                (void) torpor_dtls_drop_ticket(d);
            }
            if (operation & 32) {
                d = save_and_restore(d, now);
            }
            if (operation & 64) {
                (void) torpor_dtls_close(d);
                discard_output(d);
            }
            break;
        }
        look(d);
        if (operation < 128) {
            read_all(d);
        }
    }
    torpor_dtls_free(d);
    return 0;
}
