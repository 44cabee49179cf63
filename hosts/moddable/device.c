/*
 * The host functions of torpor-device.ts in XS, over device.h.
 *
 *     native("xs_torpor_store_read").call(undefined, "torpor", "identity")
 */
#include <string.h>

#include "xsmc.h"

#include "../../src/native.h"
#include "device.h"

/* A path or a key: a copy, for strings move with the heap. Throws where it is none. */
static void name_of(xsMachine *the, int index, char name[TORPOR_STORE_KEY_MAX + 1])
{
    if (index >= xsmcArgc || xsmcTypeOf(xsArg(index)) != xsStringType) {
        xsTypeError("argument %d: expected a string", index);
    }
    xsmcToStringBuffer(xsArg(index), name, TORPOR_STORE_KEY_MAX + 1); /* throws where it is longer */
    for (const char *c = name; *c != '\0'; c++) {
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-')) {
            xsTypeError("expected 1 to 13 of a-z, 0-9 and - for a path or key");
        }
    }
    if (name[0] == '\0') {
        xsTypeError("expected 1 to 13 of a-z, 0-9 and - for a path or key");
    }
}

/* Storage has refused: told in a sentence, for it ends in the line of the wake. */
static void refuse(xsMachine *the, const char *what, const char *key, int error)
{
    const char *why = error == TORPOR_STORE_ERR_FULL   ? "the storage is full"
                      : error == TORPOR_STORE_ERR_SIZE ? "the value is too long"
                                                       : "the storage fails";
    xsUnknownError("cannot %s %s: %s", what, key, why);
}

void xs_torpor_device_open(xsMachine *the)
{
    int error = torpor_device_open();
    if (error != 0) {
        xsUnknownError("cannot open the device's storage (error %d)", error);
    }
}

void xs_torpor_device_name(xsMachine *the)
{
    xsmcSetString(xsResult, (xsStringValue) torpor_device_name());
}

void xs_torpor_device_reason(xsMachine *the)
{
    xsmcSetString(xsResult, (xsStringValue) torpor_device_reason());
}

void xs_torpor_device_options(xsMachine *the)
{
    const char *options = torpor_device_options();
    if (options != NULL) {
        xsmcSetString(xsResult, (xsStringValue) options);
    }
}

void xs_torpor_store_read(xsMachine *the)
{
    char path[TORPOR_STORE_KEY_MAX + 1], key[TORPOR_STORE_KEY_MAX + 1];
    size_t length;
    int error;

    name_of(the, 0, path);
    name_of(the, 1, key);
    error = torpor_store_read(path, key, NULL, 0, &length);
    if (error == 0) {
        xsmcSetArrayBuffer(xsResult, NULL, (xsIntegerValue) length);
        error = torpor_store_read(path, key, xsmcToArrayBuffer(xsResult), length, &length);
    }
    if (error == TORPOR_STORE_ERR_NONE) {
        xsmcSetUndefined(xsResult);
    } else if (error != 0) {
        refuse(the, "read", key, error);
    }
}

void xs_torpor_store_write(xsMachine *the)
{
    char path[TORPOR_STORE_KEY_MAX + 1], key[TORPOR_STORE_KEY_MAX + 1];
    const uint8_t *bytes;
    size_t length;
    int error;

    name_of(the, 0, path);
    name_of(the, 1, key);
    bytes = bytes_of(the, 2, &length);
    error = torpor_store_write(path, key, bytes, length);
    if (error != 0) {
        refuse(the, "write", key, error);
    }
}

void xs_torpor_store_delete(xsMachine *the)
{
    char path[TORPOR_STORE_KEY_MAX + 1], key[TORPOR_STORE_KEY_MAX + 1];
    int error;

    name_of(the, 0, path);
    name_of(the, 1, key);
    error = torpor_store_delete(path, key);
    if (error != 0) {
        refuse(the, "erase", key, error);
    }
}

void xs_torpor_device_number(xsMachine *the)
{
    result(the, torpor_retained_number(torpor_device_memory(), uint32_of(the, 0)));
}

void xs_torpor_device_set_number(xsMachine *the)
{
    uint32_t index = uint32_of(the, 0), value = uint32_of(the, 1);
    torpor_retained_set_number(torpor_device_memory(), index, value);
}

/* The memory is the device's: nothing to free. */
void xs_torpor_retained_destructor(void *data)
{
    (void) data;
}

void xs_torpor_device_retained(xsMachine *the)
{
    uint32_t length = uint32_of(the, 0);
    uint8_t *bytes = torpor_retained_bytes(torpor_device_memory(), length);

    if (bytes == NULL) {
        xsRangeError("a session table of %d bytes does not fit the %d bytes of retained memory: take fewer or smaller "
                     "slots",
                     (int) length, TORPOR_RETAINED_BYTES);
    }
    (void) xsmcGetHostDataValidate(xsThis, (void *) xs_torpor_retained_destructor);
    xsmcSetHostBuffer(xsThis, bytes, (xsIntegerValue) length);
}

/* 0: XS, 1: mbedTLS. XS counts its peak in builds with instrumentation only. */
void xs_torpor_device_heap(xsMachine *the)
{
    result(the, uint32_of(the, 0) == 0 ? 0 : torpor_device_dtls_heap());
}

void xs_torpor_device_uptime(xsMachine *the)
{
    result(the, (int64_t) torpor_device_uptime());
}

void xs_torpor_device_log(xsMachine *the)
{
    torpor_device_log(xsmcToString(xsArg(0)));
}

void xs_torpor_device_limit(xsMachine *the)
{
    uint32_t ms = uint32_of(the, 0), seconds = uint32_of(the, 1);
    torpor_device_limit(ms, seconds, xsmcToString(xsArg(2)));
}

void xs_torpor_device_sleep(xsMachine *the)
{
    uint32_t seconds = uint32_of(the, 0), status = uint32_of(the, 1);
    torpor_device_sleep(seconds, (int) status);
}
