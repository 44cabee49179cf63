/*
 * The parts of a board that need no board: storage in two phases (hosts/esp32/store.c) over an NVS that loses power at
 * each of its steps, and retained memory (hosts/moddable/retained.c). Ends with 0, or says what failed.
 *
 *     device_test
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../hosts/esp32/store.h"
#include "../../hosts/moddable/retained.h"
#include "nvs_flash/include/nvs.h"

static int failures, checks;

#define CHECK(condition, ...)                                \
    do {                                                     \
        checks++;                                            \
        if (!(condition)) {                                  \
            failures++;                                      \
            printf("line %d: %s: ", __LINE__, #condition);   \
            printf(__VA_ARGS__);                             \
            printf("\n");                                    \
        }                                                    \
    } while (0)

/* Power that goes takes the RAM with it: what store.c held then is no leak. */
const char *__asan_default_options(void) __attribute__((visibility("default")));
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* ---- an NVS that power can leave at any moment: worse than the real one, whose blobs are whole or not there ---- */

#define ENTRIES 8
#define BYTES 512

typedef struct {
    char key[16];
    uint8_t bytes[BYTES];
    size_t length;
    int used;
} entry;

static entry entries[ENTRIES];
static size_t room;      /* bytes for all blobs */
static int steps;        /* until power goes; -1: it stays */
static int torn;         /* what a write leaves that power has left: see below */
static jmp_buf power;
static int refuse_erase; /* erasing fails */
static int refuse_write;

enum { TORN_NOTHING, TORN_GONE, TORN_HALF, TORN_GARBAGE, TORN_DONE, TORN_KINDS };

static entry *find(const char *key)
{
    for (int i = 0; i < ENTRIES; i++) {
        if (entries[i].used && strcmp(entries[i].key, key) == 0) {
            return &entries[i];
        }
    }
    return NULL;
}

static size_t used_bytes(void)
{
    size_t sum = 0;
    for (int i = 0; i < ENTRIES; i++) {
        sum += entries[i].used ? entries[i].length : 0;
    }
    return sum;
}

static int power_goes(void)
{
    return steps >= 0 && steps-- == 0;
}

esp_err_t nvs_open(const char *namespace_name, nvs_open_mode_t open_mode, nvs_handle_t *out_handle)
{
    *out_handle = 1;
    return strcmp(namespace_name, "absent") == 0 && open_mode == NVS_READONLY ? ESP_ERR_NVS_NOT_FOUND : ESP_OK;
}

void nvs_close(nvs_handle_t handle)
{
    (void) handle;
}

esp_err_t nvs_commit(nvs_handle_t handle)
{
    (void) handle;
    if (power_goes()) {
        longjmp(power, 1);
    }
    return ESP_OK;
}

esp_err_t nvs_get_blob(nvs_handle_t handle, const char *key, void *out_value, size_t *length)
{
    entry *e = find(key);

    (void) handle;
    if (e == NULL) {
        return ESP_ERR_NVS_NOT_FOUND;
    }
    if (out_value != NULL) {
        memcpy(out_value, e->bytes, e->length < *length ? e->length : *length);
    }
    *length = e->length;
    return ESP_OK;
}

static void put(const char *key, const void *bytes, size_t length)
{
    entry *e = find(key);

    for (int i = 0; e == NULL && i < ENTRIES; i++) {
        e = entries[i].used ? NULL : &entries[i];
    }
    e->used = 1;
    snprintf(e->key, sizeof(e->key), "%s", key);
    memcpy(e->bytes, bytes, length);
    e->length = length;
}

esp_err_t nvs_set_blob(nvs_handle_t handle, const char *key, const void *value, size_t length)
{
    static uint8_t garbage[BYTES];
    entry *e = find(key);

    (void) handle;
    CHECK(strlen(key) <= 15, "NVS takes keys of up to 15 characters, not %s", key);
    if (refuse_write || used_bytes() - (e != NULL ? e->length : 0) + length > room) {
        return ESP_ERR_NVS_NOT_ENOUGH_SPACE;
    }
    if (power_goes()) {
        memset(garbage, 0xA5, sizeof(garbage));
        if (torn == TORN_GONE && e != NULL) {
            e->used = 0;
        } else if (torn == TORN_HALF) {
            put(key, value, length / 2);
        } else if (torn == TORN_GARBAGE) {
            put(key, garbage, length);
        } else if (torn == TORN_DONE) {
            put(key, value, length);
        }
        longjmp(power, 1);
    }
    put(key, value, length);
    return ESP_OK;
}

esp_err_t nvs_erase_key(nvs_handle_t handle, const char *key)
{
    entry *e = find(key);

    (void) handle;
    if (e == NULL) {
        return ESP_ERR_NVS_NOT_FOUND;
    }
    if (refuse_erase) {
        return ESP_ERR_NVS_BASE + 1;
    }
    if (power_goes()) {
        e->used = torn == TORN_DONE ? 0 : e->used;
        longjmp(power, 1);
    }
    e->used = 0;
    return ESP_OK;
}

/* ---- storage ---- */

static const uint8_t OLD[100] = {1, 2, 3}, OLDER[40] = {9, 9}, NEW[120] = {7, 7, 7, 7};

static void reset(void)
{
    memset(entries, 0, sizeof(entries));
    room = 4096;
    steps = -1;
    refuse_erase = 0;
    refuse_write = 0;
}

/* What is stored: 'o' OLDER, 'O' OLD, 'N' NEW, '-' nothing, '?' anything else, 'E' an error. */
static char stored(void)
{
    uint8_t out[BYTES];
    size_t length;
    int error = torpor_store_read("torpor", "identity", out, sizeof(out), &length);

    if (error != 0) {
        return error == TORPOR_STORE_ERR_NONE ? '-' : 'E';
    }
    return length == sizeof(OLD) && memcmp(out, OLD, length) == 0       ? 'O'
           : length == sizeof(NEW) && memcmp(out, NEW, length) == 0     ? 'N'
           : length == sizeof(OLDER) && memcmp(out, OLDER, length) == 0 ? 'o'
                                                                        : '?';
}

static int write_value(const uint8_t *value, size_t length)
{
    return torpor_store_write("torpor", "identity", value, length);
}

/* The states that a device can be in before: nothing, one copy, the other, both (it could not erase), a torn one beside. */
enum { START_EMPTY, START_A, START_B, START_BOTH, START_TORN, STARTS };

static void start(int state)
{
    reset();
    if (state == START_B || state == START_BOTH) {
        refuse_erase = state == START_BOTH;
        write_value(OLDER, sizeof(OLDER));
    }
    if (state != START_EMPTY) {
        write_value(OLD, sizeof(OLD));
    }
    refuse_erase = 0;
    if (state == START_TORN) {
        put("identity.b", OLDER, sizeof(OLDER));
    }
}

static void test_power_goes_in_a_write(void)
{
    for (volatile int state = 0; state < STARTS; state++) {
        for (torn = 0; torn < TORN_KINDS; torn++) {
            volatile int step = 0, finished = 0;
            while (!finished) {
                char before, after;
                start(state);
                before = stored();
                steps = step;
                if (setjmp(power) == 0) {
                    CHECK(write_value(NEW, sizeof(NEW)) == 0, "state %d step %d", state, step);
                    finished = 1;
                }
                steps = -1;
                after = stored();
                CHECK(after == 'N' || (!finished && after == before), "state %d torn %d step %d: %c, was %c", state, torn,
                      step, after, before);
                CHECK(write_value(NEW, sizeof(NEW)) == 0 && stored() == 'N', "state %d torn %d step %d: the next write",
                      state, torn, step);
                step++;
            }
            CHECK(step >= 3, "a write has more steps than %d", step);
        }
    }
}

static void test_power_goes_in_an_erasure(void)
{
    for (volatile int state = START_A; state < STARTS; state++) {
        for (torn = 0; torn < TORN_KINDS; torn++) {
            volatile int step = 0, finished = 0;
            while (!finished) {
                char after;
                start(state);
                steps = step;
                if (setjmp(power) == 0) {
                    CHECK(torpor_store_delete("torpor", "identity") == 0, "state %d", state);
                    finished = 1;
                }
                steps = -1;
                after = stored();
                CHECK(after == '-' || (!finished && after == 'O'), "state %d torn %d step %d: %c", state, torn, step,
                      after);
                step++;
            }
        }
    }
}

static void test_full_and_failing_storage(void)
{
    for (int state = 0; state < STARTS; state++) {
        char before;
        start(state);
        before = stored();
        room = used_bytes() + 50;
        CHECK(write_value(NEW, sizeof(NEW)) == (state == START_BOTH && room >= 228 ? 0 : TORPOR_STORE_ERR_FULL) ||
                  stored() == 'N',
              "state %d: a full storage", state);
        CHECK(stored() == before || stored() == 'N', "state %d: the old value stays", state);
        start(state);
        refuse_write = 1;
        CHECK(write_value(NEW, sizeof(NEW)) == TORPOR_STORE_ERR_FULL && stored() == before, "state %d: refused", state);
    }
    start(START_A);
    refuse_erase = 1;
    CHECK(write_value(NEW, sizeof(NEW)) == 0 && stored() == 'N', "the old copy cannot be erased: the new one counts");
    CHECK(torpor_store_delete("torpor", "identity") == TORPOR_STORE_ERR_FAILED, "erasing fails");
}

static void test_limits(void)
{
    static uint8_t large[TORPOR_STORE_VALUE_MAX + 1];
    uint8_t out[8];
    size_t length;

    reset();
    CHECK(torpor_store_write("torpor", "k", large, sizeof(large)) == TORPOR_STORE_ERR_SIZE, "too long a value");
    CHECK(torpor_store_write("torpor", "fourteen-chars", large, 1) == TORPOR_STORE_ERR_NAME, "too long a key");
    CHECK(torpor_store_write("torpor", "", large, 1) == TORPOR_STORE_ERR_NAME, "no key");
    CHECK(torpor_store_write("torpor", "empty", large, 0) == 0, "an empty value");
    CHECK(torpor_store_read("torpor", "empty", out, sizeof(out), &length) == 0 && length == 0, "an empty value");
    CHECK(torpor_store_write("torpor", "k", OLD, sizeof(OLD)) == 0, "a value");
    CHECK(torpor_store_read("torpor", "k", out, sizeof(out), &length) == TORPOR_STORE_ERR_SIZE && length == sizeof(OLD),
          "a buffer that is too small");
    CHECK(torpor_store_read("absent", "k", out, sizeof(out), &length) == TORPOR_STORE_ERR_NONE, "no such namespace");
    CHECK(torpor_store_delete("torpor", "nothing") == 0, "no such key");
}

/* A record as tools/factory.ts writes it; the same bytes are in test/moddable/module.test.ts. */
static void test_factory_record(void)
{
    static const uint8_t record[] = {1, 0, 0, 0, 0xC5, 0x8D, 0xE6, 0x91, 1, 2, 3};
    uint8_t out[8];
    size_t length;

    reset();
    put("key.a", record, sizeof(record));
    CHECK(torpor_store_read("factory", "key", out, sizeof(out), &length) == 0 && length == 3 && out[0] == 1 && out[2] == 3,
          "a record of the factory");
}

/* Sequence numbers wrap after four thousand million writes: the stored one is set just before that. */
static void test_sequence_wraps(void)
{
    entry *e;
    uint32_t crc = 0xFFFFFFFFu;

    reset();
    write_value(OLDER, sizeof(OLDER));
    e = find("identity.a");
    CHECK(e != NULL, "the first copy");
    if (e == NULL) {
        return;
    }
    memset(e->bytes, 0xFF, 4);
    for (size_t i = 0; i < e->length; i++) {
        crc ^= i < 4 || i >= TORPOR_STORE_HEAD ? e->bytes[i] : 0;
        for (int bit = 0; bit < 8 && (i < 4 || i >= TORPOR_STORE_HEAD); bit++) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0);
        }
    }
    for (int i = 0; i < 4; i++) {
        e->bytes[4 + i] = (uint8_t) (~crc >> (8 * i));
    }
    CHECK(stored() == 'o', "the last sequence number");
    refuse_erase = 1;
    CHECK(write_value(NEW, sizeof(NEW)) == 0 && stored() == 'N', "0 comes after the last one");
    refuse_erase = 0;
    CHECK(write_value(OLD, sizeof(OLD)) == 0 && stored() == 'O', "and 1 after that");
}

/* ---- retained memory ---- */

static void test_retained(void)
{
    static uint32_t memory[(TORPOR_RETAINED_HEAD + 600) / 4];
    static const uint8_t firmware[8] = "firmwar", other[8] = "another";
    torpor_retained *r;
    uint8_t *bytes;

    memset(memory, 0x5A, sizeof(memory)); /* what RTC memory holds after power-on */
    r = torpor_retained_open(memory, sizeof(memory), firmware);
    CHECK(torpor_retained_number(r, TORPOR_NUMBER_WAKES) == 0, "after power-on");
    bytes = torpor_retained_bytes(r, 600);
    CHECK(bytes != NULL && bytes[0] == 0 && bytes[599] == 0, "after power-on");
    CHECK(torpor_retained_bytes(r, 601) == NULL, "more than there is");
    torpor_retained_set_number(r, TORPOR_NUMBER_WAKES, 5);
    torpor_retained_set_number(r, TORPOR_NUMBERS, 1);
    memset(bytes, 7, 600);

    r = torpor_retained_open(memory, sizeof(memory), firmware);
    CHECK(torpor_retained_number(r, TORPOR_NUMBER_WAKES) == 5, "after sleep");
    CHECK(torpor_retained_bytes(r, 600)[599] == 7, "after sleep");
    CHECK(torpor_retained_bytes(r, 300)[0] == 0, "another geometry");

    memset(torpor_retained_bytes(r, 300), 7, 300);
    r = torpor_retained_open(memory, sizeof(memory), other);
    CHECK(torpor_retained_number(r, TORPOR_NUMBER_WAKES) == 0 && torpor_retained_bytes(r, 300)[0] == 0,
          "retained by other firmware");

    for (size_t bit = 0; bit < TORPOR_RETAINED_HEAD * 8; bit++) {
        r = torpor_retained_open(memory, sizeof(memory), firmware);
        torpor_retained_set_number(r, TORPOR_NUMBER_FAILURES, 3);
        memset(torpor_retained_bytes(r, 300), 7, 300);
        ((uint8_t *) memory)[bit / 8] ^= (uint8_t) (1 << (bit % 8));
        r = torpor_retained_open(memory, sizeof(memory), firmware);
        CHECK(torpor_retained_number(r, TORPOR_NUMBER_FAILURES) == 0 && torpor_retained_bytes(r, 300)[0] == 0,
              "bit %zu of the head has flipped", bit);
    }
}

int main(void)
{
    test_power_goes_in_a_write();
    test_power_goes_in_an_erasure();
    test_full_and_failing_storage();
    test_limits();
    test_factory_record();
    test_sequence_wraps();
    test_retained();
    printf("%d checks of the device's storage and memory, %d failed\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
