/* Key-value storage on NVS in two phases: see store.h. */
#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "nvs_flash/include/nvs.h"

#include "../../src/crc32.h"

#define NAME_BYTES (TORPOR_STORE_KEY_MAX + 3)

/* One copy of a value. */
typedef struct {
    char name[NAME_BYTES];
    uint8_t *blob; /* head and value; NULL: it is not there, or not sound */
    size_t length; /* of the value */
    uint32_t sequence;
    int present; /* something is there, sound or not */
} copy;

static uint32_t get32(const uint8_t *bytes)
{
    return (uint32_t) bytes[0] | (uint32_t) bytes[1] << 8 | (uint32_t) bytes[2] << 16 | (uint32_t) bytes[3] << 24;
}

static void put32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t) (value >> (8 * i));
    }
}

static uint32_t check_of(const uint8_t *blob, size_t length)
{
    return torpor_crc32(blob + TORPOR_STORE_HEAD, length, torpor_crc32(blob, 4, 0));
}

static int error_of(esp_err_t err)
{
    switch (err) {
        case ESP_OK:
            return 0;
        case ESP_ERR_NVS_NOT_FOUND:
            return TORPOR_STORE_ERR_NONE;
        case ESP_ERR_NVS_NOT_ENOUGH_SPACE:
        case ESP_ERR_NVS_PAGE_FULL:
            return TORPOR_STORE_ERR_FULL;
        case ESP_ERR_NVS_INVALID_NAME:
        case ESP_ERR_NVS_KEY_TOO_LONG:
            return TORPOR_STORE_ERR_NAME;
        case ESP_ERR_NVS_VALUE_TOO_LONG:
            return TORPOR_STORE_ERR_SIZE;
        default:
            return TORPOR_STORE_ERR_FAILED;
    }
}

static void release(copy *c)
{
    if (c->blob != NULL) {
        memset(c->blob, 0, TORPOR_STORE_HEAD + c->length); /* it may be a key of the factory */
        free(c->blob);
        c->blob = NULL;
    }
}

/* Reads a copy and checks it. An error only where nothing can be said about it: no memory, storage fails. */
static int load(nvs_handle_t handle, copy *c)
{
    size_t size = 0;
    esp_err_t err = nvs_get_blob(handle, c->name, NULL, &size);

    if (err == ESP_ERR_NVS_NOT_FOUND) {
        return 0;
    }
    c->present = 1;
    if (err != ESP_OK || size < TORPOR_STORE_HEAD || size > TORPOR_STORE_HEAD + TORPOR_STORE_VALUE_MAX) {
        return 0;
    }
    c->blob = malloc(size);
    if (c->blob == NULL) {
        return TORPOR_STORE_ERR_FAILED;
    }
    c->length = size - TORPOR_STORE_HEAD;
    c->sequence = 0;
    err = nvs_get_blob(handle, c->name, c->blob, &size);
    if (err != ESP_OK || size != TORPOR_STORE_HEAD + c->length || get32(c->blob + 4) != check_of(c->blob, c->length)) {
        release(c);
        return 0;
    }
    c->sequence = get32(c->blob);
    return 0;
}

static int load_both(nvs_handle_t handle, const char *key, copy both[2])
{
    int error = 0;

    memset(both, 0, 2 * sizeof(copy));
    if (key[0] == '\0' || strlen(key) > TORPOR_STORE_KEY_MAX) {
        return TORPOR_STORE_ERR_NAME;
    }
    for (int i = 0; i < 2 && error == 0; i++) {
        strcpy(both[i].name, key);
        strcat(both[i].name, i == 0 ? ".a" : ".b");
        error = load(handle, &both[i]);
    }
    return error;
}

/* The index of the copy that is the value, or -1. Sequences are compared as RFC 1982 does: they may wrap. */
static int current(const copy both[2])
{
    if (both[0].blob != NULL && both[1].blob != NULL) {
        return (int32_t) (both[1].sequence - both[0].sequence) > 0 ? 1 : 0;
    }
    return both[0].blob != NULL ? 0 : both[1].blob != NULL ? 1 : -1;
}

static int erase(nvs_handle_t handle, const char *name)
{
    esp_err_t err = nvs_erase_key(handle, name);

    if (err == ESP_ERR_NVS_NOT_FOUND) {
        return 0;
    }
    return error_of(err == ESP_OK ? nvs_commit(handle) : err);
}

int torpor_store_read(const char *path, const char *key, uint8_t *out, size_t size, size_t *length)
{
    nvs_handle_t handle;
    copy both[2];
    int error, at;
    esp_err_t err = nvs_open(path, NVS_READONLY, &handle);

    *length = 0;
    if (err != ESP_OK) {
        return error_of(err);
    }
    error = load_both(handle, key, both);
    at = current(both);
    if (error == 0 && at < 0) {
        error = TORPOR_STORE_ERR_NONE;
    }
    if (error == 0) {
        *length = both[at].length;
        if (out != NULL && size < *length) {
            error = TORPOR_STORE_ERR_SIZE;
        } else if (out != NULL) {
            memcpy(out, both[at].blob + TORPOR_STORE_HEAD, *length);
        }
    }
    release(&both[0]);
    release(&both[1]);
    nvs_close(handle);
    return error;
}

/* Writes and reads back. Where it fails the copy is erased; if power goes before that, its check tells. */
static int make(nvs_handle_t handle, copy *target, const uint8_t *blob, size_t size)
{
    copy written = {0};
    int error = error_of(nvs_set_blob(handle, target->name, blob, size));

    if (error == 0) {
        error = error_of(nvs_commit(handle));
    }
    if (error == 0) {
        strcpy(written.name, target->name);
        error = load(handle, &written);
        if (error == 0 && (written.blob == NULL || written.length + TORPOR_STORE_HEAD != size ||
                           memcmp(written.blob, blob, size) != 0)) {
            error = TORPOR_STORE_ERR_FAILED;
        }
        release(&written);
    }
    if (error != 0) {
        (void) erase(handle, target->name);
    }
    return error;
}

int torpor_store_write(const char *path, const char *key, const uint8_t *bytes, size_t length)
{
    nvs_handle_t handle;
    copy both[2];
    uint8_t *blob;
    int error, at;
    esp_err_t err;

    if (length > TORPOR_STORE_VALUE_MAX) {
        return TORPOR_STORE_ERR_SIZE;
    }
    err = nvs_open(path, NVS_READWRITE, &handle);
    if (err != ESP_OK) {
        return error_of(err);
    }
    error = load_both(handle, key, both);
    at = current(both);
    blob = error == 0 ? malloc(TORPOR_STORE_HEAD + length) : NULL;
    if (error == 0 && blob == NULL) {
        error = TORPOR_STORE_ERR_FAILED;
    }
    if (error == 0) {
        copy *target = &both[at == 0 ? 1 : 0];
        put32(blob, at < 0 ? 1 : both[at].sequence + 1);
        memcpy(blob + TORPOR_STORE_HEAD, bytes, length);
        put32(blob + 4, check_of(blob, length));
        error = make(handle, target, blob, TORPOR_STORE_HEAD + length);
        if (error == 0 && at >= 0) {
            (void) erase(handle, both[at].name); /* it is the older one now, whether it goes or not */
        }
        memset(blob, 0, TORPOR_STORE_HEAD + length);
    }
    free(blob);
    release(&both[0]);
    release(&both[1]);
    nvs_close(handle);
    return error;
}

int torpor_store_delete(const char *path, const char *key)
{
    nvs_handle_t handle;
    copy both[2];
    int error, at;
    esp_err_t err = nvs_open(path, NVS_READWRITE, &handle);

    if (err != ESP_OK) {
        return error_of(err);
    }
    error = load_both(handle, key, both);
    at = current(both);
    release(&both[0]);
    release(&both[1]);
    /* The older one first: it must not come to life again. */
    for (int i = 0; i < 2 && error == 0; i++) {
        copy *c = &both[i == 0 ? (at == 0 ? 1 : 0) : (at == 0 ? 0 : 1)];
        if (c->present) {
            error = erase(handle, c->name);
        }
    }
    nvs_close(handle);
    return error;
}
