/*
 * Arguments and results of the host functions that the C core has in XS: what src/dtls/engine.c and src/pki/key.c
 * share. Written for XS 13 (simulator) and XS 17 (device), by the macros that both have.
 *
 *     uint32_t key = uint32_of(the, 0);
 *     const uint8_t *der = bytes_of(the, 1, &length);
 *     result(the, torpor_dtls_identity(d, key, der, length));
 *
 * Two rules of order hold in every host function:
 *
 * - `this`, numbers and strings are read first, the pointers into buffers last, and nothing is called in XS from there
 *   to the end of their use. An ArrayBuffer's bytes lie in a chunk of the XS heap, and whatever allocates there (a new
 *   string or object, a getter that runs) may move them. What is below allocates only to throw.
 * - An argument that is refused throws, by longjmp. So all are checked before the core is called, and nothing that must
 *   be freed is held while they are.
 *
 * Only calls that no correct program makes throw; every error of the core is a negative number, as in hosts/node.
 */
#ifndef TORPOR_NATIVE_H
#define TORPOR_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#include "xsmc.h"

/* Numbers are taken by their type: XS would convert a string, and run an object's valueOf. Fractions are cut off. */
static inline double number_of(xsMachine *the, int index, double max)
{
    double value = -1;

    if (index < xsmcArgc) {
        int type = xsmcTypeOf(xsArg(index));
        if (type == xsIntegerType || type == xsNumberType) {
            value = xsmcToNumber(xsArg(index));
        }
    }
    if (!(value >= 0 && value <= max)) { /* NaN fails too */
        xsTypeError("argument %d: expected a number from 0 that is in range", index);
    }
    return value;
}

static inline uint32_t uint32_of(xsMachine *the, int index)
{
    return (uint32_t) number_of(the, index, 4294967295.0);
}

/* Milliseconds or seconds: up to 2^53 - 1, what a number holds exactly. */
static inline uint64_t time_of(xsMachine *the, int index)
{
    return (uint64_t) number_of(the, index, 9007199254740991.0);
}

/*
 * An ArrayBuffer, or a view of bytes on one or on memory of the host (retained memory, flash). XS refuses other types
 * and what is detached. A host object whose bytes are none is no buffer: see xs_torpor_dtls_create.
 */
static inline uint8_t *buffer_of(xsMachine *the, int index, int writable, size_t *length)
{
    void *bytes = NULL;
    xsUnsignedValue count = 0;
    int where = xsBufferRelocatable;

    if (index < xsmcArgc) {
        where = writable ? xsmcGetBufferWritable(xsArg(index), &bytes, &count)
                         : xsmcGetBufferReadable(xsArg(index), &bytes, &count);
    }
    if (bytes == NULL || (where == xsBufferNonrelocatable && count == 0)) {
        xsTypeError("argument %d: expected an ArrayBuffer or a Uint8Array", index);
    }
    *length = count;
    return bytes;
}

static inline const uint8_t *bytes_of(xsMachine *the, int index, size_t *length)
{
    return buffer_of(the, index, 0, length);
}

/* A buffer to write to; XS refuses one that is read-only. */
static inline uint8_t *room_of(xsMachine *the, int index, size_t *size)
{
    return buffer_of(the, index, 1, size);
}

/* The same for an output of a fixed length. */
static inline uint8_t *exact_room_of(xsMachine *the, int index, size_t expected)
{
    size_t size;
    uint8_t *room = room_of(the, index, &size);

    if (size != expected) {
        xsTypeError("argument %d: expected %d bytes, not %d", index, (int) expected, (int) size);
    }
    return room;
}

/* Keys, lifetimes and times exceed the integers of XS, which have 32 bits. */
static inline void result(xsMachine *the, int64_t value)
{
    if (value == (int32_t) value) {
        xsmcSetInteger(xsResult, (xsIntegerValue) value);
    } else {
        xsmcSetNumber(xsResult, (xsNumberValue) value);
    }
}

/* A length or a key where `error` is 0, else the error. */
static inline void result_or_error(xsMachine *the, int error, size_t value)
{
    result(the, error == 0 ? (int64_t) value : error);
}

#endif
