/*
 * PSA Internal Trusted Storage over files (see its.h). A value is written to a new file, synced and renamed, so that a
 * power cut leaves the old value or the new one.
 *
 *   file "<uid as 16 hex digits>"
 *   0      4       8                12 …
 *   | ITS1 | flags | length (u32 LE) | value |
 */
#include "its.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <psa/internal_trusted_storage.h>

#define PATH_BYTES 1024
#define NAME_BYTES 32
#define HEADER_BYTES 12
#define VALUE_BYTES_MAX 8192

static const uint8_t MAGIC[4] = {'I', 'T', 'S', '1'};
static char folder[PATH_BYTES];

int torpor_its_open(const char *path)
{
    if (strlen(path) >= sizeof(folder)) {
        return -1;
    }
    strcpy(folder, path);
    return 0;
}

void torpor_its_close(void)
{
    folder[0] = '\0';
}

static psa_status_t path_of(char out[PATH_BYTES + NAME_BYTES], psa_storage_uid_t uid, const char *suffix)
{
    if (folder[0] == '\0') {
        return PSA_ERROR_STORAGE_FAILURE;
    }
    snprintf(out, PATH_BYTES + NAME_BYTES, "%s/%016llx%s", folder, (unsigned long long) uid, suffix);
    return PSA_SUCCESS;
}

static int write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return -1;
        }
        bytes += n;
        length -= (size_t) n;
    }
    return 0;
}

static void sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void) fsync(fd);
        close(fd);
    }
}

/* Opens a value and checks its header against the file's size. */
static psa_status_t open_value(psa_storage_uid_t uid, int *fd, struct psa_storage_info_t *info)
{
    char path[PATH_BYTES + NAME_BYTES];
    uint8_t header[HEADER_BYTES];
    struct stat status;

    if (path_of(path, uid, "") != PSA_SUCCESS) {
        return PSA_ERROR_DOES_NOT_EXIST;
    }
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? PSA_ERROR_DOES_NOT_EXIST : PSA_ERROR_STORAGE_FAILURE;
    }
    if (fstat(*fd, &status) != 0 || read(*fd, header, sizeof(header)) != (ssize_t) sizeof(header) ||
        memcmp(header, MAGIC, sizeof(MAGIC)) != 0) {
        close(*fd);
        return PSA_ERROR_DATA_CORRUPT;
    }
    info->flags = header[4];
    info->size = (uint32_t) header[8] | (uint32_t) header[9] << 8 | (uint32_t) header[10] << 16 |
                 (uint32_t) header[11] << 24;
    if (info->size > VALUE_BYTES_MAX || status.st_size != (off_t) info->size + HEADER_BYTES) {
        close(*fd);
        return PSA_ERROR_DATA_CORRUPT;
    }
    return PSA_SUCCESS;
}

psa_status_t psa_its_get_info(psa_storage_uid_t uid, struct psa_storage_info_t *p_info)
{
    int fd;
    psa_status_t status = open_value(uid, &fd, p_info);
    if (status == PSA_SUCCESS) {
        close(fd);
    }
    return status;
}

psa_status_t psa_its_get(psa_storage_uid_t uid, uint32_t data_offset, uint32_t data_length, void *p_data,
                         size_t *p_data_length)
{
    int fd;
    struct psa_storage_info_t info;
    size_t have = 0;
    psa_status_t status = open_value(uid, &fd, &info);

    if (status != PSA_SUCCESS) {
        return status;
    }
    if (data_offset > info.size || (data_length > 0 && p_data == NULL)) {
        status = PSA_ERROR_INVALID_ARGUMENT;
    } else {
        size_t want = info.size - data_offset < data_length ? info.size - data_offset : data_length;
        while (have < want) {
            ssize_t n = pread(fd, (uint8_t *) p_data + have, want - have, (off_t) (HEADER_BYTES + data_offset + have));
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                status = PSA_ERROR_STORAGE_FAILURE;
                break;
            }
            have += (size_t) n;
        }
    }
    close(fd);
    *p_data_length = have;
    return status;
}

psa_status_t psa_its_set(psa_storage_uid_t uid, uint32_t data_length, const void *p_data,
                         psa_storage_create_flags_t create_flags)
{
    char path[PATH_BYTES + NAME_BYTES];
    char next[PATH_BYTES + NAME_BYTES];
    uint8_t header[HEADER_BYTES] = {0};
    struct psa_storage_info_t old;
    psa_status_t status;
    int fd;

    if ((create_flags & ~(psa_storage_create_flags_t) PSA_STORAGE_FLAG_WRITE_ONCE) != 0) {
        return PSA_ERROR_NOT_SUPPORTED;
    }
    if (data_length > VALUE_BYTES_MAX) {
        return PSA_ERROR_INSUFFICIENT_STORAGE;
    }
    if (path_of(path, uid, "") != PSA_SUCCESS || path_of(next, uid, ".new") != PSA_SUCCESS) {
        return PSA_ERROR_STORAGE_FAILURE;
    }
    if (psa_its_get_info(uid, &old) == PSA_SUCCESS && (old.flags & PSA_STORAGE_FLAG_WRITE_ONCE) != 0) {
        return PSA_ERROR_NOT_PERMITTED;
    }
    if (mkdir(folder, 0700) == 0) {
        char parent[PATH_BYTES + 4];
        snprintf(parent, sizeof(parent), "%s/..", folder);
        sync_path(parent);
    } else if (errno != EEXIST) {
        return PSA_ERROR_STORAGE_FAILURE;
    }
    memcpy(header, MAGIC, sizeof(MAGIC));
    header[4] = (uint8_t) create_flags;
    for (int i = 0; i < 4; i++) {
        header[8 + i] = (uint8_t) (data_length >> (8 * i));
    }
    fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return PSA_ERROR_STORAGE_FAILURE;
    }
    status = PSA_SUCCESS;
    if (fchmod(fd, 0600) != 0 || write_all(fd, header, sizeof(header)) != 0 ||
        write_all(fd, p_data, data_length) != 0 || fsync(fd) != 0) {
        status = errno == ENOSPC || errno == EDQUOT ? PSA_ERROR_INSUFFICIENT_STORAGE : PSA_ERROR_STORAGE_FAILURE;
    }
    if (close(fd) != 0 && status == PSA_SUCCESS) {
        status = PSA_ERROR_STORAGE_FAILURE;
    }
    if (status == PSA_SUCCESS && rename(next, path) != 0) {
        status = PSA_ERROR_STORAGE_FAILURE;
    }
    if (status != PSA_SUCCESS) {
        unlink(next);
        return status;
    }
    sync_path(folder);
    return PSA_SUCCESS;
}

psa_status_t psa_its_remove(psa_storage_uid_t uid)
{
    char path[PATH_BYTES + NAME_BYTES];
    struct psa_storage_info_t info;
    psa_status_t status = psa_its_get_info(uid, &info);

    if (status == PSA_ERROR_DOES_NOT_EXIST) {
        return status;
    }
    if (status == PSA_SUCCESS && (info.flags & PSA_STORAGE_FLAG_WRITE_ONCE) != 0) {
        return PSA_ERROR_NOT_PERMITTED;
    }
    /* A corrupt value can be removed: it is of no other use. */
    if (path_of(path, uid, "") != PSA_SUCCESS || unlink(path) != 0) {
        return PSA_ERROR_STORAGE_FAILURE;
    }
    sync_path(folder);
    return PSA_SUCCESS;
}
