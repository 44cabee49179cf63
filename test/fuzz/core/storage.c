/*
 * Bytes into the readers of what lies in storage: PSA's files (hosts/desktop/its.c), a board's key-value store
 * (hosts/esp32/store.c) on an NVS that gives whatever the input says, and retained memory (hosts/moddable/retained.c).
 *
 *     storage CORPUS     (a libFuzzer target: storage -help=1)
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../../hosts/desktop/its.h"
#include "../../../hosts/esp32/store.h"
#include "../../../hosts/moddable/retained.h"
#include "fuzz.h"
#include "nvs_flash/include/nvs.h"

#include <psa/internal_trusted_storage.h>

static char folder[64];

static void remove_folder(void)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/keys/%016x", folder, 1);
    unlink(path);
    snprintf(path, sizeof(path), "%s/keys", folder);
    rmdir(path);
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[128];

    (void) argc;
    (void) argv;
    snprintf(folder, sizeof(folder), "/dev/shm/torpor-fuzz-XXXXXX"); /* in memory: the files are synced */
    if (mkdtemp(folder) == NULL) {
        snprintf(folder, sizeof(folder), "/tmp/torpor-fuzz-XXXXXX");
        PROMISE(mkdtemp(folder) != NULL);
    }
    snprintf(path, sizeof(path), "%s/keys", folder);
    PROMISE(mkdir(path, 0700) == 0 && torpor_its_open(path) == 0);
    atexit(remove_folder);
    return 0;
}

/* ---- PSA's files ---- */

static void file(script *s)
{
    char path[128];
    uint32_t offset = next16(s), wanted = next16(s);
    size_t length, got = 0;
    uint8_t *bytes, *out = malloc(wanted == 0 ? 1 : wanted);
    struct psa_storage_info_t info;
    psa_status_t status;
    int fd;

    PROMISE(out != NULL);
    bytes = next_bytes(s, 16384, &length);
    snprintf(path, sizeof(path), "%s/keys/%016x", folder, 1);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    PROMISE(fd >= 0 && write(fd, bytes, length) == (ssize_t) length && close(fd) == 0);
    status = psa_its_get_info(1, &info);
    if (status == PSA_SUCCESS) {
        PROMISE(info.size + 12 == length);
        status = psa_its_get(1, offset, wanted, out, &got);
        PROMISE(status == PSA_SUCCESS ? got <= wanted && offset + got <= info.size &&
                                            (got == 0 || memcmp(out, bytes + 12 + offset, got) == 0)
                                      : offset > info.size);
    } else {
        PROMISE(status == PSA_ERROR_DATA_CORRUPT && psa_its_get(1, 0, wanted, out, &got) == status && got == 0);
    }
    unlink(path);
    free(bytes);
    free(out);
}

/* ---- a board's store: two copies of one key, as the input has them ---- */

static struct {
    char name[16];
    uint8_t bytes[TORPOR_STORE_VALUE_MAX + 64];
    size_t length;
    int used;
} blobs[2];
static uint8_t refusals; /* bits: calls that fail, in turn */

static int refuse(void)
{
    int refused = refusals & 1;
    refusals = (uint8_t) (refusals >> 1);
    return refused;
}

static int find(const char *name)
{
    return blobs[0].used && strcmp(blobs[0].name, name) == 0   ? 0
           : blobs[1].used && strcmp(blobs[1].name, name) == 0 ? 1
                                                               : -1;
}

esp_err_t nvs_open(const char *namespace_name, nvs_open_mode_t open_mode, nvs_handle_t *out_handle)
{
    (void) namespace_name;
    (void) open_mode;
    *out_handle = 1;
    return ESP_OK;
}

void nvs_close(nvs_handle_t handle)
{
    (void) handle;
}

esp_err_t nvs_commit(nvs_handle_t handle)
{
    (void) handle;
    return refuse() ? ESP_ERR_NVS_NOT_ENOUGH_SPACE : ESP_OK;
}

esp_err_t nvs_get_blob(nvs_handle_t handle, const char *key, void *out_value, size_t *length)
{
    int at = find(key);

    (void) handle;
    if (at < 0) {
        return ESP_ERR_NVS_NOT_FOUND;
    }
    if (out_value != NULL) {
        if (*length < blobs[at].length) {
            return ESP_ERR_NVS_VALUE_TOO_LONG;
        }
        memcpy(out_value, blobs[at].bytes, blobs[at].length);
    }
    *length = blobs[at].length;
    return ESP_OK;
}

esp_err_t nvs_set_blob(nvs_handle_t handle, const char *key, const void *value, size_t length)
{
    int at = find(key);

    (void) handle;
    if (refuse() || length > sizeof(blobs[0].bytes)) {
        return ESP_ERR_NVS_NOT_ENOUGH_SPACE;
    }
    at = at >= 0 ? at : blobs[0].used ? 1 : 0;
    snprintf(blobs[at].name, sizeof(blobs[at].name), "%s", key);
    memcpy(blobs[at].bytes, value, length);
    blobs[at].length = length;
    blobs[at].used = 1;
    return ESP_OK;
}

esp_err_t nvs_erase_key(nvs_handle_t handle, const char *key)
{
    int at = find(key);

    (void) handle;
    if (at < 0) {
        return ESP_ERR_NVS_NOT_FOUND;
    }
    if (refuse()) {
        return ESP_ERR_NVS_NOT_ENOUGH_SPACE;
    }
    blobs[at].used = 0;
    return ESP_OK;
}

static uint32_t crc32(const uint8_t *bytes, size_t length, uint32_t crc)
{
    crc = ~crc;
    while (length-- > 0) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1)));
        }
    }
    return ~crc;
}

static void put32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t) (value >> (8 * i));
    }
}

static void store(script *s)
{
    uint8_t shape = next8(s), *out, *value;
    size_t length = 0, again = 0, size;
    int read;

    refusals = 0;
    for (int i = 0; i < 2; i++) {
        value = next_bytes(s, next16(s) % sizeof(blobs[0].bytes), &blobs[i].length);
        memcpy(blobs[i].bytes, value, blobs[i].length);
        free(value);
        snprintf(blobs[i].name, sizeof(blobs[i].name), "key.%c", 'a' + i);
        blobs[i].used = shape & (1 << i);
        if (shape & (4 << i) && blobs[i].length >= TORPOR_STORE_HEAD) { /* a sound one */
            put32(blobs[i].bytes + 4, crc32(blobs[i].bytes + TORPOR_STORE_HEAD, blobs[i].length - TORPOR_STORE_HEAD,
                                            crc32(blobs[i].bytes, 4, 0)));
        }
    }
    read = torpor_store_read("path", "key", NULL, 0, &length);
    PROMISE(read == 0 || (read == TORPOR_STORE_ERR_NONE && length == 0));
    PROMISE(length <= TORPOR_STORE_VALUE_MAX);
    out = malloc(length == 0 ? 1 : length);
    PROMISE(out != NULL);
    PROMISE(torpor_store_read("path", "key", out, length, &again) == read && again == length);
    if (length > 0) {
        PROMISE(torpor_store_read("path", "key", out, length - 1, &again) == TORPOR_STORE_ERR_SIZE);
    }
    /*
     * A write takes effect or leaves what was there. Where it cannot be made durable and what it wrote cannot be erased
     * either, it has failed and yet taken effect: the value is one of the two, whole.
     */
    refusals = shape & 16 ? next8(s) : 0;
    value = next_bytes(s, 600, &size);
    {
        int written = torpor_store_write("path", "key", value, size);
        uint8_t *now = malloc(TORPOR_STORE_VALUE_MAX);
        int found;
        PROMISE(now != NULL);
        found = torpor_store_read("path", "key", now, TORPOR_STORE_VALUE_MAX, &again);
        PROMISE((found == 0 && again == size && memcmp(now, value, size) == 0) ||
                (written != 0 && found == read && again == length && memcmp(now, out, length) == 0));
        free(now);
    }
    refusals = 0;
    PROMISE(torpor_store_delete("path", "key") == 0);
    PROMISE(torpor_store_read("path", "key", NULL, 0, &again) == TORPOR_STORE_ERR_NONE);
    free(value);
    free(out);
}

/* ---- retained memory ---- */

static void retained(script *s)
{
    static const uint8_t FIRMWARE[TORPOR_FIRMWARE_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t shape = next8(s);
    size_t length, wanted = next16(s) % 2000;
    uint8_t *bytes = next_bytes(s, 1024, &length), *memory;
    size_t size = TORPOR_RETAINED_HEAD + length;
    torpor_retained *r;

    memory = calloc(1, size);
    PROMISE(memory != NULL);
    if (length > 0) {
        memcpy(memory, bytes, length);
    }
    if (shape & 1) { /* a head that counts: of this firmware and size */
        uint32_t magic = 0x54525031u, capacity = (uint32_t) (size - TORPOR_RETAINED_HEAD), check;
        memcpy(memory, &magic, 4);
        memcpy(memory + 4, FIRMWARE, sizeof(FIRMWARE));
        memcpy(memory + 12, &capacity, 4);
        check = crc32(memory, TORPOR_RETAINED_HEAD - 4, 0);
        memcpy(memory + TORPOR_RETAINED_HEAD - 4, &check, 4);
    }
    r = torpor_retained_open(memory, size, FIRMWARE);
    for (unsigned index = 0; index < 5; index++) {
        (void) torpor_retained_number(r, index);
        torpor_retained_set_number(r, index, shape * 1000u);
    }
    uint8_t *kept = torpor_retained_bytes(r, wanted);
    PROMISE((kept == NULL) == (wanted > length));
    if (kept != NULL) {
        memset(kept, 0xA5, wanted);
        r = torpor_retained_open(memory, size, FIRMWARE);
        kept = torpor_retained_bytes(r, wanted);
        PROMISE(kept != NULL && (wanted == 0 || (kept[0] == 0xA5 && kept[wanted - 1] == 0xA5)));
    }
    free(memory);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script s = {data, size};

    switch (next8(&s) % 3) {
    case 0:
        file(&s);
        break;
    case 1:
        store(&s);
        break;
    default:
        retained(&s);
        break;
    }
    return 0;
}
