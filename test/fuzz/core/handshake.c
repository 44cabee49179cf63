/*
 * Datagrams into a client at each point of its handshake: a server's genuine ones, late, twice, out of order, changed in
 * transit, cut into fragments, beside others that no server has sent. Those that DTLS 1.3 protects are changed before they
 * are. A client that ends up open must have come to the genuine end: neither the server's key nor its Finished is in the
 * script.
 *
 *     handshake CORPUS     (a libFuzzer target: handshake -help=1)
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_HEADER 13
#define STEPS_MAX 48

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void) argc;
    (void) argv;
    fuzz_open();
    for (unsigned setup = 0; setup < ENGINE_SETUPS; setup++) {
        (void) connected(setup ^ WITH_RESUMPTION); /* that first: a server may forget a session soon */
    }
    return 0;
}

static size_t get16(const uint8_t *p)
{
    return (size_t) (p[0] << 8 | p[1]);
}

/* The start of a handshake message in clear in the datagram, the `which`th; NULL where there is none. */
static const uint8_t *find_message(const uint8_t *datagram, size_t length, unsigned which)
{
    const uint8_t *found = NULL;

    for (size_t at = 0; at + RECORD_HEADER + MESSAGE_HEADER <= length;) {
        const uint8_t *record = datagram + at;
        size_t content = get16(record + 11);
        if (record[0] == TYPE_HANDSHAKE && get16(record + 3) == 0 && content >= MESSAGE_HEADER &&
            at + RECORD_HEADER + content <= length) {
            found = record + RECORD_HEADER;
            if (which-- == 0) {
                break;
            }
        }
        at += RECORD_HEADER + content;
    }
    return found;
}

/* How the fragments of a message go out: in clear records with numbers of their own, or by the keys of the server. */
typedef struct {
    const connection *c; /* NULL: in the clear */
    unsigned *sequence;
    torpor_dtls *client;
    uint64_t now;
} way;

/* A record of its own around one fragment of a handshake message. */
static void deliver_fragment(const way *w, const uint8_t *fragment, size_t length)
{
    static const uint8_t HEADER[] = {TYPE_HANDSHAKE, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0};
    uint8_t datagram[FUZZ_DATAGRAM + RECORD_HEADER + MESSAGE_HEADER];

    if (w->c != NULL) {
        length = server_sends(w->c, ENGINE_HANDSHAKE_KEYS, TYPE_HANDSHAKE, fragment, length, datagram);
    } else {
        memcpy(datagram, HEADER, sizeof(HEADER));
        put16(datagram + 9, (*w->sequence)++);
        put16(datagram + 11, length);
        memcpy(datagram + RECORD_HEADER, fragment, length);
        length += RECORD_HEADER;
    }
    if (length > 0) {
        deliver(w->client, w->now, datagram, length);
    }
}

/*
 * A message out of a genuine datagram, or one that the server protected in its handshake, its body changed, in one piece or
 * in fragments of any order and overlap. The lengths are right unless the script says not.
 */
static void deliver_message(script *s, torpor_dtls *d, uint64_t now, const connection *c, unsigned index, unsigned *sequence)
{
    uint8_t body[FUZZ_DATAGRAM], fragment[FUZZ_DATAGRAM + MESSAGE_HEADER];
    unsigned which = next8(s), fragments = next8(s) % 8, number;
    int is_secret = which >= 128 && c->secret_count > 0;
    way w = {is_secret ? c : NULL, sequence, d, now};
    const uint8_t *message;
    size_t length, room;

    if (is_secret) {
        message = c->secrets[which % c->secret_count];
        room = c->secret_lengths[which % c->secret_count];
    } else {
        message = find_message(c->datagrams[index], c->lengths[index], which % 4);
        if (message == NULL) {
            return;
        }
        room = (size_t) (c->datagrams[index] + c->lengths[index] - message);
    }
    length = get16(message + 10);
    if (length > room - MESSAGE_HEADER) {
        return;
    }
    number = (unsigned) get16(message + 4);
    memcpy(body, message + MESSAGE_HEADER, length);
    edit(s, body, &length, sizeof(body));
    while (fragments > 1 && length > 0) {
        size_t offset = next16(s) % length, part = next16(s) % (length - offset + 1);
        size_t size = put_fragment(fragment, message[0], number, body, length, offset, part);
        if (next8(s) % 8 == 7) { /* a length that contradicts the others */
            uint8_t *at = fragment + 3 * (next8(s) % 3);
            at += next8(s) % 2;
            put24(at, next16(s));
        }
        deliver_fragment(&w, fragment, size);
        fragments--;
    }
    deliver_fragment(&w, fragment, put_fragment(fragment, message[0], number, body, length, 0, length));
}

/* A record of any type by the keys of the handshake, or by those that come after it. */
static void deliver_secret(script *s, torpor_dtls *d, uint64_t now, const connection *c, engine_keys keys)
{
    static const uint8_t TYPES[] = {21, 22, 23, 26, 20, 24, 25, 0};
    uint8_t datagram[FUZZ_DATAGRAM], type = TYPES[next8(s) % 8];
    size_t length, made;
    uint8_t *content = next_bytes(s, next8(s), &length);

    made = server_sends(c, keys, type, content, length, datagram);
    free(content);
    if (made > 0) {
        deliver(d, now, datagram, made);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script s = {data, size};
    unsigned setup = next8(&s) % ENGINE_SETUPS, next = 0, sequence = 256;
    const connection *c = connected(setup);
    uint8_t datagram[FUZZ_DATAGRAM], unique[TORPOR_DTLS_UNIQUE_MAX] = {0};
    uint64_t now = 0;
    torpor_dtls *d;

    as_client();
    d = new_client(setup);
    PROMISE(torpor_dtls_start(d, now, FUZZ_TIME, c->begun, c->begun_length) == 0);
    discard_output(d);
    for (int steps = 0; steps < STEPS_MAX && s.left > 0; steps++) {
        unsigned operation = next8(&s), index = next < c->count ? next : c->count - 1;
        size_t length = c->lengths[index];
        switch (operation % 8) {
        case 0:
            deliver(d, now, c->datagrams[index], length);
            next++;
            break;
        case 1:
            memcpy(datagram, c->datagrams[index], length);
            edit(&s, datagram, &length, sizeof(datagram));
            deliver(d, now, datagram, length);
            next += operation & 8 ? 1 : 0;
            break;
        case 2: {
            if (operation & 128 && c->secret_count > 0) {
                deliver_secret(&s, d, now, c, operation & 64 ? ENGINE_NEWEST_KEYS : ENGINE_HANDSHAKE_KEYS);
                break;
            }
            uint8_t *foreign = next_bytes(&s, next16(&s) % FUZZ_DATAGRAM, &length);
            (void) torpor_dtls_receive(d, now, foreign, length);
            free(foreign);
            discard_output(d);
            break;
        }
        case 3:
            index = next8(&s) % c->count;
            deliver(d, now, c->datagrams[index], c->lengths[index]);
            break;
        case 4:
            now += 250u * next8(&s);
            (void) torpor_dtls_elapse(d, now);
            discard_output(d);
            break;
        case 5:
            next++;
            break;
        case 6:
            deliver_message(&s, d, now, c, index, &sequence);
            next += operation & 8 ? 1 : 0;
            break;
        default: /* two datagrams in one */
            memcpy(datagram, c->datagrams[index], length);
            index = next8(&s) % c->count;
            if (c->lengths[index] <= sizeof(datagram) - length) {
                memcpy(datagram + length, c->datagrams[index], c->lengths[index]);
                length += c->lengths[index];
            }
            deliver(d, now, datagram, length);
            next++;
            break;
        }
        look(d);
        read_all(d);
    }
    if (torpor_dtls_state(d) == TORPOR_DTLS_OPEN) {
        PROMISE(torpor_dtls_unique(d, unique) > 0 && memcmp(unique, c->unique, sizeof(unique)) == 0);
        PROMISE(torpor_dtls_resumed(d) == ((setup & WITH_RESUMPTION) != 0));
        PROMISE(torpor_dtls_write(d, (const uint8_t *) "open", 4) == 0);
        discard_output(d);
    }
    PROMISE(torpor_dtls_close(d) == 0 || torpor_dtls_pending(d) > 0);
    torpor_dtls_free(d);
    return 0;
}
