/*
 * The host functions of engine.ts in XS, over dtls.h: an object of `Native("xs_torpor_dtls_destructor")` holds one
 * association.
 *
 *     native("xs_torpor_dtls_take").call(engine, datagram)
 *
 * An object is known by its destructor, which XS sets before any constructor runs and JavaScript cannot reach. Host
 * hooks with a signature would do the same on XS 17, but XS 13 has a function where 17 has the signature, and calls it.
 *
 * hosts/node/binding.c has the same functions for Node.js. The order in which arguments are read matters: native.h
 * says why.
 */
#include <string.h>

#include "../native.h"
#include "dtls.h"

/* Bytes of a server name with its NUL; dtls.h takes one less and refuses the rest with a number. */
#define NAME_SIZE 257

/* Called when the object is collected; `data` is NULL where it holds no association (any more). */
void xs_torpor_dtls_destructor(void *data)
{
    torpor_dtls_free(data);
}

/* What `this` holds: NULL before create and after free. Throws where it is no object of this kind. */
static torpor_dtls *held(xsMachine *the)
{
    return xsmcGetHostDataValidate(xsThis, (void *) xs_torpor_dtls_destructor);
}

static torpor_dtls *engine_of(xsMachine *the)
{
    torpor_dtls *d = held(the);
    if (d == NULL) {
        xsTypeError("this DTLS association has been freed");
    }
    return d;
}

/* ---- set up ---- */

void xs_torpor_dtls_create(xsMachine *the)
{
    torpor_dtls *d;
    int error;

    if (held(the) != NULL) {
        xsTypeError("this object has a DTLS association already");
    }
    /* XS 13 takes a host object without a length of its own for a buffer of as many bytes as its byteLength says. */
    xsmcSetHostBuffer(xsThis, NULL, 0);
    error = torpor_dtls_new(&d);
    if (error == 0) {
        xsmcSetHostData(xsThis, d);
    }
    result(the, error);
}

void xs_torpor_dtls_free(xsMachine *the)
{
    torpor_dtls *d = engine_of(the);
    xsmcSetHostData(xsThis, NULL);
    torpor_dtls_free(d);
    result(the, 0);
}

void xs_torpor_dtls_trust(xsMachine *the)
{
    size_t length;
    torpor_dtls *d = engine_of(the);
    const uint8_t *der = bytes_of(the, 0, &length);
    result(the, torpor_dtls_trust(d, der, length));
}

void xs_torpor_dtls_identity(xsMachine *the)
{
    size_t length;
    torpor_dtls *d = engine_of(the);
    uint32_t key = uint32_of(the, 0);
    const uint8_t *der = bytes_of(the, 1, &length);
    result(the, torpor_dtls_identity(d, key, der, length));
}

void xs_torpor_dtls_server_name(xsMachine *the)
{
    char name[NAME_SIZE];
    torpor_dtls *d = engine_of(the);

    if (xsmcArgc < 1 || xsmcTypeOf(xsArg(0)) != xsStringType) {
        xsTypeError("expected a server name");
    }
    xsmcToStringBuffer(xsArg(0), name, sizeof(name)); /* throws where it is longer */
    if (strchr(name, 0xC0) != NULL) {                 /* XS writes U+0000 as C0 80; C0 is in no other character */
        xsTypeError("expected a server name without NUL");
    }
    result(the, torpor_dtls_server_name(d, name));
}

void xs_torpor_dtls_server_address(xsMachine *the)
{
    size_t length;
    torpor_dtls *d = engine_of(the);
    const uint8_t *address = bytes_of(the, 0, &length);
    result(the, torpor_dtls_server_address(d, address, length));
}

void xs_torpor_dtls_mtu(xsMachine *the)
{
    torpor_dtls *d = engine_of(the);
    result(the, torpor_dtls_mtu(d, uint32_of(the, 0)));
}

void xs_torpor_dtls_timers(xsMachine *the)
{
    torpor_dtls *d = engine_of(the);
    uint32_t first = uint32_of(the, 0), patience = uint32_of(the, 1);
    result(the, torpor_dtls_timers(d, first, patience));
}

void xs_torpor_dtls_offer_tickets(xsMachine *the)
{
    torpor_dtls_offer_tickets(engine_of(the));
    result(the, 0);
}

void xs_torpor_dtls_versions(xsMachine *the)
{
    torpor_dtls *d = engine_of(the);
    uint32_t lowest = uint32_of(the, 0), highest = uint32_of(the, 1);
    result(the, torpor_dtls_versions(d, lowest, highest));
}

/* The groups as bytes, two for each number, the high one first. */
void xs_torpor_dtls_groups(xsMachine *the)
{
    size_t length;
    uint16_t groups[TORPOR_DTLS_GROUPS_MAX];
    torpor_dtls *d = engine_of(the);
    const uint8_t *bytes = bytes_of(the, 0, &length);
    size_t count = length / 2;

    for (size_t i = 0; i < count && i < TORPOR_DTLS_GROUPS_MAX; i++) {
        groups[i] = (uint16_t) (bytes[2 * i] << 8 | bytes[2 * i + 1]);
    }
    result(the, torpor_dtls_groups(d, groups, count));
}

void xs_torpor_dtls_resume_by_psk_alone(xsMachine *the)
{
    torpor_dtls_resume_by_psk_alone(engine_of(the));
    result(the, 0);
}

void xs_torpor_dtls_start(xsMachine *the)
{
    size_t length = 0;
    const uint8_t *session = NULL;
    torpor_dtls *d = engine_of(the);
    uint64_t now = time_of(the, 0), unix_time = time_of(the, 1);

    if (xsmcArgc > 2 && xsmcTypeOf(xsArg(2)) != xsUndefinedType) {
        session = bytes_of(the, 2, &length);
    }
    result(the, torpor_dtls_start(d, now, unix_time, session, length));
}

void xs_torpor_dtls_offer_connection_id(xsMachine *the)
{
    torpor_dtls *d = engine_of(the);
    result(the, torpor_dtls_offer_connection_id(d, uint32_of(the, 0)));
}

void xs_torpor_dtls_restore(xsMachine *the)
{
    size_t length;
    torpor_dtls *d = engine_of(the);
    uint64_t now = time_of(the, 0), unix_time = time_of(the, 1);
    const uint8_t *context = bytes_of(the, 2, &length);
    result(the, torpor_dtls_restore(d, now, unix_time, context, length));
}

/* ---- run ---- */

void xs_torpor_dtls_receive(xsMachine *the)
{
    size_t length;
    torpor_dtls *d = engine_of(the);
    uint64_t now = time_of(the, 0);
    const uint8_t *datagram = bytes_of(the, 1, &length);
    result(the, torpor_dtls_receive(d, now, datagram, length));
}

void xs_torpor_dtls_elapse(xsMachine *the)
{
    torpor_dtls *d = engine_of(the);
    result(the, torpor_dtls_elapse(d, time_of(the, 0)));
}

/* -1 stands for never. */
void xs_torpor_dtls_deadline(xsMachine *the)
{
    uint64_t deadline = torpor_dtls_deadline(engine_of(the));
    result(the, deadline == TORPOR_DTLS_NEVER ? -1 : (int64_t) deadline);
}

void xs_torpor_dtls_pending(xsMachine *the)
{
    result(the, (int64_t) torpor_dtls_pending(engine_of(the)));
}

void xs_torpor_dtls_take(xsMachine *the)
{
    size_t size;
    torpor_dtls *d = engine_of(the);
    uint8_t *out = room_of(the, 0, &size);
    result(the, torpor_dtls_take(d, out, size));
}

void xs_torpor_dtls_read(xsMachine *the)
{
    size_t size;
    torpor_dtls *d = engine_of(the);
    uint8_t *out = room_of(the, 0, &size);
    result(the, torpor_dtls_read(d, out, size));
}

void xs_torpor_dtls_readable(xsMachine *the)
{
    result(the, (int64_t) torpor_dtls_readable(engine_of(the)));
}

void xs_torpor_dtls_write(xsMachine *the)
{
    size_t length;
    torpor_dtls *d = engine_of(the);
    const uint8_t *message = bytes_of(the, 0, &length);
    result(the, torpor_dtls_write(d, message, length));
}

void xs_torpor_dtls_close(xsMachine *the)
{
    result(the, torpor_dtls_close(engine_of(the)));
}

/* ---- look ---- */

void xs_torpor_dtls_state(xsMachine *the)
{
    result(the, torpor_dtls_state(engine_of(the)));
}

void xs_torpor_dtls_failure_kind(xsMachine *the)
{
    result(the, torpor_dtls_failure(engine_of(the)).kind);
}

void xs_torpor_dtls_failure_detail(xsMachine *the)
{
    result(the, torpor_dtls_failure(engine_of(the)).detail);
}

void xs_torpor_dtls_cipher_suite(xsMachine *the)
{
    result(the, torpor_dtls_cipher_suite(engine_of(the)));
}

void xs_torpor_dtls_version(xsMachine *the)
{
    result(the, torpor_dtls_version(engine_of(the)));
}

void xs_torpor_dtls_group(xsMachine *the)
{
    result(the, torpor_dtls_group(engine_of(the)));
}

void xs_torpor_dtls_tickets(xsMachine *the)
{
    result(the, torpor_dtls_tickets(engine_of(the)));
}

void xs_torpor_dtls_resumed(xsMachine *the)
{
    result(the, torpor_dtls_resumed(engine_of(the)));
}

void xs_torpor_dtls_time_checked(xsMachine *the)
{
    result(the, torpor_dtls_time_checked(engine_of(the)));
}

/* The whole length for an empty buffer, which only asks for it. */
void xs_torpor_dtls_session(xsMachine *the)
{
    size_t size, length;
    torpor_dtls_session_info info;
    torpor_dtls *d = engine_of(the);
    uint8_t *out = room_of(the, 0, &size);
    int error = torpor_dtls_session(d, size == 0 ? NULL : out, size, &length, &info);
    result_or_error(the, error, length);
}

/* Of an association that is not open kind and lifetime are 0: the core has set them so. */
static torpor_dtls_session_info session_info(xsMachine *the)
{
    size_t length;
    torpor_dtls_session_info info;
    (void) torpor_dtls_session(engine_of(the), NULL, 0, &length, &info);
    return info;
}

void xs_torpor_dtls_session_kind(xsMachine *the)
{
    result(the, session_info(the).kind);
}

void xs_torpor_dtls_session_lifetime(xsMachine *the)
{
    result(the, session_info(the).lifetime);
}

void xs_torpor_dtls_unique(xsMachine *the)
{
    torpor_dtls *d = engine_of(the);
    result(the, torpor_dtls_unique(d, exact_room_of(the, 0, TORPOR_DTLS_UNIQUE_MAX)));
}

void xs_torpor_dtls_keep_chain(xsMachine *the)
{
    result(the, torpor_dtls_keep_chain(engine_of(the)));
}

void xs_torpor_dtls_chain(xsMachine *the)
{
    size_t size;
    torpor_dtls *d = engine_of(the);
    uint8_t *out = room_of(the, 0, &size);
    result(the, torpor_dtls_chain(d, out, size));
}

void xs_torpor_dtls_drop_ticket(xsMachine *the)
{
    result(the, torpor_dtls_drop_ticket(engine_of(the)));
}

void xs_torpor_dtls_has_connection_id(xsMachine *the)
{
    result(the, torpor_dtls_has_connection_id(engine_of(the)));
}

/* The whole length for an empty buffer, which only asks for it. */
void xs_torpor_dtls_context(xsMachine *the)
{
    size_t size, length;
    torpor_dtls *d = engine_of(the);
    uint8_t *out = room_of(the, 0, &size);
    int error = torpor_dtls_context(d, size == 0 ? NULL : out, size, &length);
    result_or_error(the, error, length);
}

void xs_torpor_dtls_overhead(xsMachine *the)
{
    result(the, (int64_t) torpor_dtls_overhead(engine_of(the)));
}

void xs_torpor_dtls_highest(xsMachine *the)
{
    result(the, (int64_t) torpor_dtls_highest(engine_of(the)));
}

void xs_torpor_dtls_build(xsMachine *the)
{
    result(the, torpor_dtls_build());
}

void xs_torpor_dtls_library(xsMachine *the)
{
    xsmcSetString(xsResult, (xsStringValue) torpor_dtls_library());
}
