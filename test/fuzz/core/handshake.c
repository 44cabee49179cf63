/*
 * Datagrams into a client at each point of its handshake: a server's genuine ones, late, twice, out of order, changed in
 * transit, cut into fragments, beside others that no server has sent. A client that ends up open must have come to the
 * genuine end: the server's key is not in the script.
 *
 *     handshake CORPUS     (a libFuzzer target: handshake -help=1)
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_HEADER 13
#define MESSAGE_HEADER 12
#define TYPE_HANDSHAKE 22
#define STEPS_MAX 48

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void) argc;
    (void) argv;
    fuzz_open();
    for (unsigned setup = 0; setup < SETUPS; setup++) {
        (void) connected(setup);
    }
    return 0;
}

static size_t get16(const uint8_t *p)
{
    return (size_t) (p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, size_t value)
{
    p[0] = (uint8_t) (value >> 8);
    p[1] = (uint8_t) value;
}

static void put24(uint8_t *p, size_t value)
{
    p[0] = (uint8_t) (value >> 16);
    put16(p + 1, value);
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

/* A record of its own around one fragment of a handshake message; the lengths are right unless the script says not. */
static size_t put_fragment(uint8_t *out, const uint8_t *message, const uint8_t *body, size_t total, size_t offset,
                           size_t length, unsigned sequence)
{
    static const uint8_t HEADER[] = {TYPE_HANDSHAKE, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0};

    memcpy(out, HEADER, sizeof(HEADER));
    put16(out + 9, sequence);
    put16(out + 11, MESSAGE_HEADER + length);
    out[RECORD_HEADER] = message[0];
    put24(out + RECORD_HEADER + 1, total);
    memcpy(out + RECORD_HEADER + 4, message + 4, 2);
    put24(out + RECORD_HEADER + 6, offset);
    put24(out + RECORD_HEADER + 9, length);
    memcpy(out + RECORD_HEADER + MESSAGE_HEADER, body + offset, length);
    return RECORD_HEADER + MESSAGE_HEADER + length;
}

/* A message out of a genuine datagram, its body changed, in one piece or in fragments of any order and overlap. */
static void deliver_message(script *s, torpor_dtls *d, uint64_t now, const connection *c, unsigned index, unsigned *sequence)
{
    uint8_t body[FUZZ_DATAGRAM], datagram[FUZZ_DATAGRAM + RECORD_HEADER + MESSAGE_HEADER];
    const uint8_t *message = find_message(c->datagrams[index], c->lengths[index], next8(s) % 4);
    unsigned fragments = next8(s) % 8;
    size_t length;

    if (message == NULL) {
        return;
    }
    length = get16(message + 10);
    if (length > (size_t) (c->datagrams[index] + c->lengths[index] - message) - MESSAGE_HEADER) {
        return;
    }
    memcpy(body, message + MESSAGE_HEADER, length);
    edit(s, body, &length, sizeof(body));
    if (fragments < 2) {
        deliver(d, now, datagram, put_fragment(datagram, message, body, length, 0, length, (*sequence)++));
        return;
    }
    while (fragments-- > 1 && length > 0) {
        size_t offset = next16(s) % length, part = next16(s) % (length - offset + 1);
        size_t size = put_fragment(datagram, message, body, length, offset, part, (*sequence)++);
        if (next8(s) % 8 == 7) { /* a length that contradicts the others */
            put24(datagram + RECORD_HEADER + 3 * (next8(s) % 3) + (next8(s) % 2), next16(s));
        }
        deliver(d, now, datagram, size);
    }
    deliver(d, now, datagram, put_fragment(datagram, message, body, length, 0, length, (*sequence)++));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script s = {data, size};
    unsigned setup = next8(&s) % SETUPS, next = 0, sequence = 256;
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
