/*
 * The device as a desktop process: see ../device.h. Its memory is the folder in TORPOR_STATE: retained.bin is what
 * survives deep sleep, flash/ what survives power-off. What it is told in place of mc.config is in TORPOR_OPTIONS.
 *
 *     TORPOR_STATE=device TORPOR_OPTIONS='{"server":"coaps://127.0.0.1:5684"}' torpor-moddable mc.so
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "../../../src/pki/crypto.h"
#include "../../desktop/its.h"
#include "../device.h"
#include "../retained.h"

#define PATH_BYTES 1024
/* The exit status of a wake that hung until its limit. */
#define EXIT_LIMIT 70

static char state[PATH_BYTES];
static torpor_retained *retained;
static char limit_line[TORPOR_LINE_MAX + 1];

int torpor_device_open(void)
{
    static const uint8_t firmware[TORPOR_FIRMWARE_BYTES] = {'d', 'e', 's', 'k', 't', 'o', 'p', '1'};
    const size_t size = TORPOR_RETAINED_HEAD + TORPOR_RETAINED_BYTES;
    const char *folder = getenv("TORPOR_STATE");
    char path[PATH_BYTES + 32];
    void *memory;
    int fd;

    if (retained != NULL) {
        return 0;
    }
    if (folder == NULL || strlen(folder) >= sizeof(state)) {
        fputs("torpor: TORPOR_STATE must name the folder of the device's memory\n", stderr);
        return -1;
    }
    strcpy(state, folder);
    (void) mkdir(state, 0700);
    snprintf(path, sizeof(path), "%s/flash", state);
    (void) mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/flash/keys", state);
    if (torpor_its_open(path) != 0 || torpor_crypto_open() != 0) {
        return -2;
    }
    snprintf(path, sizeof(path), "%s/moddable.bin", state);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t) size) != 0) {
        fprintf(stderr, "torpor: cannot write %s: %s\n", path, strerror(errno));
        return -3;
    }
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) {
        return -4;
    }
    retained = torpor_retained_open(memory, size, firmware);
    /* A desktop's clock is set. */
    torpor_retained_set_number(retained, TORPOR_NUMBER_CLOCK_SET, (uint32_t) time(NULL));
    return 0;
}

const char *torpor_device_name(void)
{
    return "lin";
}

const char *torpor_device_reason(void)
{
    return torpor_retained_number(retained, TORPOR_NUMBER_WAKES) == 0 ? "power-on" : "sleep";
}

const char *torpor_device_options(void)
{
    return getenv("TORPOR_OPTIONS");
}

/* ---- storage: a file for each key ---- */

static void path_of(char out[PATH_BYTES + 64], const char *path, const char *key, const char *suffix)
{
    snprintf(out, PATH_BYTES + 64, "%s/flash/%s/%s%s", state, path, key, suffix);
}

int torpor_store_read(const char *path, const char *key, uint8_t *out, size_t size, size_t *length)
{
    char file[PATH_BYTES + 64];
    struct stat status;
    int fd, error = 0;

    path_of(file, path, key, "");
    fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? TORPOR_STORE_ERR_NONE : TORPOR_STORE_ERR_FAILED;
    }
    if (fstat(fd, &status) != 0 || status.st_size > TORPOR_STORE_VALUE_MAX) {
        error = TORPOR_STORE_ERR_FAILED;
    } else {
        *length = (size_t) status.st_size;
        if (out != NULL && (size < *length || read(fd, out, *length) != (ssize_t) *length)) {
            error = TORPOR_STORE_ERR_FAILED;
        }
    }
    close(fd);
    return error;
}

static void sync_folder(const char *file)
{
    char folder[PATH_BYTES + 64];
    int fd;

    snprintf(folder, sizeof(folder), "%s", file);
    *strrchr(folder, '/') = '\0';
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void) fsync(fd);
        close(fd);
    }
}

int torpor_store_write(const char *path, const char *key, const uint8_t *bytes, size_t length)
{
    char file[PATH_BYTES + 64], next[PATH_BYTES + 64], folder[PATH_BYTES + 64];
    int fd, error = 0;

    if (length > TORPOR_STORE_VALUE_MAX) {
        return TORPOR_STORE_ERR_SIZE;
    }
    snprintf(folder, sizeof(folder), "%s/flash/%s", state, path);
    (void) mkdir(folder, 0700);
    path_of(file, path, key, "");
    path_of(next, path, key, ".new");
    fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return TORPOR_STORE_ERR_FAILED;
    }
    if (write(fd, bytes, length) != (ssize_t) length || fsync(fd) != 0) {
        error = errno == ENOSPC || errno == EDQUOT ? TORPOR_STORE_ERR_FULL : TORPOR_STORE_ERR_FAILED;
    }
    if (close(fd) != 0 && error == 0) {
        error = TORPOR_STORE_ERR_FAILED;
    }
    if (error == 0 && rename(next, file) != 0) {
        error = TORPOR_STORE_ERR_FAILED;
    }
    if (error != 0) {
        unlink(next);
        return error;
    }
    sync_folder(file);
    return 0;
}

int torpor_store_delete(const char *path, const char *key)
{
    char file[PATH_BYTES + 64];

    path_of(file, path, key, "");
    if (unlink(file) != 0) {
        return errno == ENOENT ? 0 : TORPOR_STORE_ERR_FAILED;
    }
    sync_folder(file);
    return 0;
}

torpor_retained *torpor_device_memory(void)
{
    return retained;
}

/* ---- the rest ---- */

uint32_t torpor_device_dtls_heap(void)
{
    return (uint32_t) torpor_heap_figures().peak;
}

uint64_t torpor_device_uptime(void)
{
    struct timespec now;

    (void) clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000;
}

void torpor_device_log(const char *line)
{
    puts(line);
    fflush(stdout);
}

static void limit_reached(int signal_number)
{
    (void) signal_number;
    if (write(STDOUT_FILENO, limit_line, strlen(limit_line)) < 0) {
        _exit(EXIT_LIMIT + 1);
    }
    _exit(EXIT_LIMIT);
}

void torpor_device_limit(uint32_t ms, uint32_t seconds, const char *line)
{
    struct itimerval timer = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};

    (void) seconds;
    snprintf(limit_line, sizeof(limit_line), "%.*s\n", TORPOR_LINE_MAX - 1, line);
    (void) signal(SIGALRM, limit_reached);
    (void) setitimer(ITIMER_REAL, &timer, NULL);
}

void torpor_device_sleep(uint32_t seconds, int status)
{
    (void) seconds;
    fflush(stdout);
    _exit(status);
}
