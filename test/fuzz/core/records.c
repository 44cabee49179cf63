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

#define STEPS_MAX 48

static const unsigned SETUPS_USED[] = {
#if ENGINE_SAVES_CONTEXTS
    WITH_CONNECTION_ID,
    WITH_CONNECTION_ID | WITH_CHAIN,
    WITH_CONNECTION_ID | WITH_TICKETS,
    WITH_RESUMPTION,
    WITH_RESUMPTION | WITH_TICKETS,
    WITH_RESUMPTION | WITH_CONNECTION_ID,
#else
    WITH_RESUMPTION,
    WITH_RESUMPTION | WITH_CONNECTION_ID,
    WITH_RESUMPTION | WITH_CONNECTION_ID | WITH_CHAIN,
    WITH_RESUMPTION | WITH_VERSION_12,
    WITH_RESUMPTION | WITH_VERSION_12 | WITH_TICKETS,
    WITH_RESUMPTION | WITH_VERSION_12 | WITH_CONNECTION_ID,
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

/* What the script's bits ask of a handshake message. */
enum { MESSAGE = 8, MESSAGE_GENUINE = 16, MESSAGE_ENDS_KEYS = 32, MESSAGE_FRAGMENT = 64 };

/*
 * A handshake message with a header that is right, after the ones of this input before it: one that came with the connection
 * and is changed, or one of the script. Behind a KeyUpdate the server may go on with its next keys.
 */
static size_t server_message(script *s, const connection *c, unsigned bits, unsigned *number, uint8_t datagram[FUZZ_DATAGRAM])
{
    static const uint8_t TYPES[] = {4, 24, 24, 4, 0, 13, 20, 8}; /* NewSessionTicket, KeyUpdate, HelloRequest, … */
    uint8_t body[FUZZ_DATAGRAM], message[FUZZ_DATAGRAM + MESSAGE_HEADER], type = next8(s);
    size_t length, offset = 0, part, made;

    if (bits & MESSAGE_GENUINE && c->secret_count > 0) {
        const uint8_t *genuine = c->secrets[type % c->secret_count];
        length = c->secret_lengths[type % c->secret_count] - MESSAGE_HEADER;
        type = genuine[0];
        memcpy(body, genuine + MESSAGE_HEADER, length);
        edit(s, body, &length, sizeof(body));
    } else {
        uint8_t *content = next_bytes(s, next8(s), &length);
        type = type < 128 ? TYPES[type % 8] : type;
        memcpy(body, content, length);
        free(content);
    }
    part = length;
    if (bits & MESSAGE_FRAGMENT) {
        offset = next16(s) % (length + 1);
        part = next16(s) % (length - offset + 1);
    }
    part = put_fragment(message, type, *number & 0xFFFF, body, length, offset, part);
    *number += bits & MESSAGE_FRAGMENT ? next8(s) % 2 : 1;
    made = server_sends(c, ENGINE_NEWEST_KEYS, TYPE_HANDSHAKE, message, part, datagram);
    if (bits & MESSAGE_ENDS_KEYS) {
        (void) engine_update_keys(c->server);
    }
    return made;
}

/* A record of the server as the script has it: a type, and what is in it. Its length. */
static size_t server_record(script *s, const connection *c, unsigned *number, uint8_t datagram[FUZZ_DATAGRAM])
{
    static const uint8_t TYPES[] = {23, 23, 21, 21, 22, 20, 24, 26};
    uint8_t which = next8(s), type = which < 128 ? TYPES[which % 8] : next8(s);
    size_t length, made;
    uint8_t *content;

    if (which < 128 && type == TYPE_HANDSHAKE && which & MESSAGE) {
        return server_message(s, c, which, number, datagram);
    }
    content = next_bytes(s, which & 64 ? next16(s) % 1200 : next8(s) % 16, &length);
    made = server_sends(c, ENGINE_NEWEST_KEYS, type, content, length, datagram);
    free(content);
    return made;
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
    unsigned number = engine_next_message(c->server);
    torpor_dtls *d = reopen(c, setup);

    for (int steps = 0; steps < STEPS_MAX && s.left > 0; steps++) {
        unsigned operation = next8(&s);
        switch (operation % 9) {
        case 0:
            length = torpor_dtls_readable(d);
            last = server_record(&s, c, &number, datagram);
            deliver(d, now, datagram, last);
            last = length == 0 ? last : 0; /* lost, where a message waited */
            break;
        case 1:
            last = server_record(&s, c, &number, datagram);
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
                size_t pending = torpor_dtls_pending(d), whole = length + torpor_dtls_overhead(d);
                /* DTLS 1.3 pads what is shorter than the 16 bytes that mask its number (RFC 9147 section 4.2.3). */
                PROMISE(pending == whole || (length < 16 && pending > whole && pending < whole + 16));
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
            size_t first = server_record(&s, c, &number, changed), second = server_record(&s, c, &number, datagram);
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
