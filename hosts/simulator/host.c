/* The simulated device's surroundings: see host.h. */
#include "host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/pki/crypto.h"
#include "../desktop/its.h"
#include "machine.h"
#include "xs.h"

/* xs.h has no macro for the bytes of a buffer or a view; this is what xsmc.h's calls. */
extern xsIntegerValue _xsmcGetBuffer(xsMachine *the, xsSlot *slot, void **data, xsUnsignedValue *count,
                                     xsBooleanValue writable);
#define xsGetBufferReadable(slot, data, count) _xsmcGetBuffer(the, &(slot), data, count, 0)

#define PATH_BYTES 1024
#define NAME_BYTES 64
#define FILE_PATH_BYTES (PATH_BYTES + 2 * NAME_BYTES + 16)
#define FILE_BYTES_MAX 65536
#define PACKETS_MAX 16
#define UDP_MAX 8

/*
 * retained.bin stands for the memory that survives deep sleep, at most what an ESP32 has of RTC slow memory:
 *
 *   0      4       8       12  32            160
 *   | TRET | wakes | phase | 0 | 32 values   | table …
 *            u32     u32         u32 each, all in the machine's order of bytes
 *
 * The number of wakes is hosts/node's (storage.ts), which starts them; the values are Sleep.setRetainedValue's.
 */
#define RETAINED_BYTES_MAX 8192
#define RETAINED_HOST_BYTES 160
#define RETAINED_VALUES 32
typedef struct {
    uint32_t magic, wakes, phase, reserved[5];
    uint32_t values[RETAINED_VALUES];
} retained_host;
#define RETAINED_MAGIC 0x54455254u
enum { PHASE_NONE, PHASE_AWAKE, PHASE_ASLEEP }; /* nothing has run since power-on; a wake runs or was cut off; it ended */

/* The reasons that can be, with the numbers of the SDK's module "sleep" for the nRF52; 0 is power-on. */
#define RESET_WATCHDOG 2 /* the wake before ended by a crash, or was cut off */
#define RESET_SOFTWARE 4 /* out of deep sleep: there too, a timer's wake ends in a software reset */

static char state_folder[PATH_BYTES], argument_folder[PATH_BYTES];
static int finished = -1; /* the exit status, once the program has reported */
static uint8_t no_memory[RETAINED_BYTES_MAX]; /* of a device without a state folder: it ends with the process */
static retained_host *retained = (retained_host *) no_memory;
static int reset_reason;

static int open_retained(void)
{
    char path[PATH_BYTES + 16];
    struct stat status;
    void *bytes;
    int fd;

    (void) mkdir(state_folder, 0700);
    snprintf(path, sizeof(path), "%s/retained.bin", state_folder);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &status) != 0 ||
        (status.st_size < RETAINED_HOST_BYTES && ftruncate(fd, RETAINED_HOST_BYTES) != 0) ||
        (bytes = mmap(NULL, RETAINED_HOST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED) {
        fprintf(stderr, "simulator: cannot use %s: %s\n", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    close(fd);
    retained = bytes;
    if (retained->magic != RETAINED_MAGIC) { /* no bytes of ours: the device has been without power */
        memset(retained, 0, sizeof(*retained));
        retained->magic = RETAINED_MAGIC;
    } else if (retained->phase != PHASE_NONE) {
        reset_reason = retained->phase == PHASE_ASLEEP ? RESET_SOFTWARE : RESET_WATCHDOG;
    }
    retained->phase = PHASE_AWAKE;
    return 0;
}

/* Removes from a folder what a write that was cut off has left: a new value, never renamed; a private key, maybe. */
static void sweep(const char *folder)
{
    char path[FILE_PATH_BYTES + sizeof(((struct dirent *) 0)->d_name) + 1];
    struct dirent *entry;
    DIR *directory = opendir(folder);

    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        size_t length = strlen(entry->d_name);
        if (length > 4 && strcmp(entry->d_name + length - 4, ".new") == 0) {
            snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
            (void) unlink(path);
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
}

/* The folders of flash: one for PSA's keys, one for each store. */
static void open_flash(void)
{
    char path[PATH_BYTES + 16], folder[FILE_PATH_BYTES];
    struct dirent *entry;
    DIR *directory;

    /* The key storage makes its own folder alone. */
    snprintf(path, sizeof(path), "%s/flash", state_folder);
    (void) mkdir(path, 0700);
    directory = opendir(path);
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') {
            snprintf(folder, sizeof(folder), "%s/%.*s", path, NAME_BYTES, entry->d_name);
            sweep(folder);
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
}

int host_open(const char *state, const char *arguments)
{
    char keys[PATH_BYTES + 16];

    if (strlen(state) >= PATH_BYTES || strlen(arguments) >= PATH_BYTES) {
        fputs("simulator: a path is too long\n", stderr);
        return -1;
    }
    strcpy(state_folder, state);
    strcpy(argument_folder, arguments);
    if (state[0] != '\0') {
        snprintf(keys, sizeof(keys), "%s/flash/keys", state);
        if (torpor_its_open(keys) != 0) {
            fputs("simulator: the path of the state is too long\n", stderr);
            return -1;
        }
        if (open_retained() != 0) {
            return -1;
        }
        open_flash();
    }
    return 0;
}

/* What makes an object a host object, as XS looks for it; NULL where it is none. */
static txSlot *host_slot(const txSlot *value)
{
    txSlot *slot = value->kind == XS_REFERENCE_KIND ? value->value.reference->next : NULL;
    return slot != NULL && slot->flag & XS_INTERNAL_FLAG && slot->kind == XS_HOST_KIND ? slot : NULL;
}

/*
 * The bytes of an ArrayBuffer, of a view on one, or of the retained memory; XS throws for anything else. A host object
 * whose bytes are none is no buffer: natives.c gives each one a length of 0. Nothing may be called in XS after this.
 */
static const uint8_t *bytes_of(xsMachine *the, int index, size_t *length)
{
    void *bytes = NULL;
    xsUnsignedValue count = 0;

    xsGetBufferReadable(xsArg(index), &bytes, &count);
    if (bytes == NULL || (count == 0 && host_slot(mxArgv(index)) != NULL)) {
        xsTypeError("expected an ArrayBuffer or a Uint8Array");
    }
    *length = count;
    return bytes;
}

/* What a host object of these hooks holds, or NULL: of another kind, or without anything (any more). */
static void *held_by(const txSlot *value, const xsHostHooks *hooks)
{
    txSlot *host = host_slot(value);

    if (host == NULL || !(host->flag & XS_HOST_HOOKS_FLAG) || (const void *) host->value.host.variant.hooks != hooks) {
        return NULL;
    }
    return host->value.host.data;
}

static double now_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double) t.tv_sec * 1000.0 + (double) (t.tv_nsec / 1000000);
}

/* ---- trace, report, options, files, figures ---- */

void xs_host_trace(xsMachine *the)
{
    for (int i = 0; i < mxArgc; i++) {
        fputs(xsToString(xsArg(i)), stderr);
    }
}

/* The end of the wake: one line for whoever started it, and the exit status. */
void xs_host_report(xsMachine *the)
{
    puts(xsToString(xsArg(0)));
    finished = xsToInteger(xsArg(1)) & 0xFF;
    retained->phase = PHASE_ASLEEP;
}

/* An ArrayBuffer with a whole file, or undefined where it is not there. */
static void read_file(xsMachine *the, const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    xsResult = xsUndefined;
    if (fd < 0) {
        if (errno != ENOENT) {
            xsUnknownError("cannot read %s: %s", path, strerror(errno));
        }
        return;
    }
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > FILE_BYTES_MAX) {
        close(fd);
        xsUnknownError("cannot read %s", path);
    }
    xsTry {
        xsResult = xsArrayBuffer(NULL, (xsIntegerValue) status.st_size);
    }
    xsCatch {
        close(fd);
        xsThrow(xsException);
    }
    n = read(fd, xsToArrayBuffer(xsResult), (size_t) status.st_size);
    close(fd);
    if (n != status.st_size) {
        xsUnknownError("cannot read %s", path);
    }
}

void xs_host_option(xsMachine *the)
{
    char path[FILE_PATH_BYTES];
    if (argument_folder[0] != '\0') {
        snprintf(path, sizeof(path), "%s/options.json", argument_folder);
        read_file(the, path);
    }
}

/* Keeps the body of the answer for whoever started the wake. */
void xs_host_answer(xsMachine *the)
{
    char path[FILE_PATH_BYTES];
    size_t length;
    const uint8_t *bytes = bytes_of(the, 0, &length);
    FILE *file;
    int failed;

    snprintf(path, sizeof(path), "%s/answer", argument_folder);
    file = argument_folder[0] == '\0' ? NULL : fopen(path, "w");
    failed = file == NULL || fwrite(bytes, 1, length, file) != length;
    if (file != NULL && fclose(file) != 0) {
        failed = 1;
    }
    if (failed) {
        xsUnknownError("cannot write the answer");
    }
}

static void safe_name(xsMachine *the, const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > 15 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != length) {
        xsRangeError("\"%s\" is no key: expected 1 to 15 of a-z, 0-9 and -", name);
    }
}

void xs_host_file(xsMachine *the)
{
    char path[FILE_PATH_BYTES], name[NAME_BYTES];
    xsToStringBuffer(xsArg(0), name, sizeof(name));
    safe_name(the, name);
    if (argument_folder[0] == '\0') {
        return;
    }
    snprintf(path, sizeof(path), "%s/%s", argument_folder, name);
    read_file(the, path);
}

/* Bytes at the peak: 0 XS slots, 1 XS chunks, 2 XS stack, 3 mbedTLS. In use after a collection: 4 slots, 5 chunks, 6 mbedTLS. */
void xs_host_heap(xsMachine *the)
{
    machine_heap heap = machine_figures(the);
    int which = xsToInteger(xsArg(0));

    if (which == 4 || which == 5) {
        fxCollectGarbage(the);
    }
    switch (which) {
    case 0:
        xsResult = xsNumber((double) heap.slots);
        break;
    case 1:
        xsResult = xsNumber((double) heap.chunks);
        break;
    case 2:
        xsResult = xsNumber((double) heap.stack);
        break;
    case 3:
        xsResult = xsNumber((double) torpor_heap_figures().peak);
        break;
    case 4:
        xsResult = xsNumber((double) the->currentHeapCount * (double) sizeof(txSlot));
        break;
    case 5:
        xsResult = xsNumber((double) the->currentChunksSize);
        break;
    default:
        xsResult = xsNumber((double) torpor_heap_figures().now);
    }
}

void xs_host_ticks(xsMachine *the)
{
    xsResult = xsNumber(now_of(CLOCK_MONOTONIC));
}

/* Milliseconds of processor time that this process has taken, with their fractions. */
void xs_host_cpu(xsMachine *the)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    xsResult = xsNumber((double) t.tv_sec * 1e3 + (double) t.tv_nsec / 1e6);
}

/* ---- timers ---- */

typedef struct timer {
    struct timer *next;
    double when, repeat; /* milliseconds; `repeat` 0: once */
    xsSlot self, callback;
} timer;

static timer *timers;

static void mark_timer(xsMachine *the, void *data, xsMarkRoot mark)
{
    timer *t = data;
    if (t != NULL) {
        (*mark)(the, (txSlot *) &t->callback);
    }
}

static void free_timer(void *data)
{
    timer **at;
    for (at = &timers; *at != NULL; at = &(*at)->next) {
        if (*at == data) {
            *at = (*at)->next;
            break;
        }
    }
    free(data);
}

static xsHostHooks timer_hooks = {free_timer, mark_timer, NULL};

static void remove_timer(xsMachine *the, timer *t)
{
    xsSetHostData(t->self, NULL);
    xsForget(t->self);
    free_timer(t);
}

/* Milliseconds, at most a year: what is no number is refused. */
static double delay_of(xsMachine *the, int index)
{
    double delay = xsToNumber(xsArg(index));
    if (!(delay >= 0 && delay <= 365.0 * 86400000.0)) {
        xsRangeError("expected a delay in milliseconds");
    }
    return delay;
}

/* (callback, delay, repeat): calls back once after `delay`, then each `repeat`, unless that is 0. */
void xs_host_timer_set(xsMachine *the)
{
    double delay = delay_of(the, 1), repeat = delay_of(the, 2);
    timer *t;

    if (!xsIsCallable(xsArg(0))) {
        xsTypeError("expected a function");
    }
    xsResult = xsNewHostObject(NULL);
    xsSetHostBuffer(xsResult, NULL, 0);
    t = calloc(1, sizeof(*t));
    if (t == NULL) {
        xsUnknownError("no memory for a timer");
    }
    t->self = xsResult;
    t->callback = xsArg(0);
    t->when = now_of(CLOCK_MONOTONIC) + delay;
    t->repeat = repeat;
    xsSetHostData(xsResult, t);
    xsSetHostHooks(xsResult, &timer_hooks);
    xsRemember(t->self);
    t->next = timers;
    timers = t;
}

/* (id, delay, repeat): another time for a timer that still runs. */
void xs_host_timer_schedule(xsMachine *the)
{
    double delay = delay_of(the, 1), repeat = delay_of(the, 2);
    timer *t = held_by(mxArgv(0), &timer_hooks);

    if (t == NULL) {
        xsUnknownError("this timer does not run");
    }
    t->when = now_of(CLOCK_MONOTONIC) + delay;
    t->repeat = repeat;
}

void xs_host_timer_clear(xsMachine *the)
{
    timer *t = mxArgc > 0 ? held_by(mxArgv(0), &timer_hooks) : NULL;
    if (t != NULL) {
        remove_timer(the, t);
    }
}

static void run_timers(xsMachine *the)
{
    double now = now_of(CLOCK_MONOTONIC);

    for (;;) {
        timer *due = NULL, *t;
        for (t = timers; t != NULL; t = t->next) {
            if (t->when <= now && (due == NULL || t->when < due->when)) {
                due = t;
            }
        }
        if (due == NULL) {
            return;
        }
        xsBeginHost(the);
        {
            xsVars(2);
            xsVar(0) = due->callback;
            xsVar(1) = due->self;
            if (due->repeat > 0) {
                due->when = now + (due->repeat < 1 ? 1 : due->repeat);
            } else {
                remove_timer(the, due);
            }
            (void) xsCallFunction1(xsVar(0), xsGlobal, xsVar(1));
        }
        xsEndHost(the);
        machine_settle(the);
    }
}

/* ---- UDP ---- */

typedef struct packet {
    struct packet *next;
    struct sockaddr_storage from;
    size_t length;
    uint8_t bytes[];
} packet;

typedef struct udp {
    struct udp *next;
    int fd; /* -1 until the first write tells the address family */
    packet *packets;
    int count;
    xsSlot self, on_readable;
} udp;

static udp *udps;

static void mark_udp(xsMachine *the, void *data, xsMarkRoot mark)
{
    udp *u = data;
    if (u != NULL) {
        (*mark)(the, (txSlot *) &u->on_readable);
    }
}

static void free_udp(udp *u)
{
    udp **at;
    for (at = &udps; *at != NULL; at = &(*at)->next) {
        if (*at == u) {
            *at = u->next;
            break;
        }
    }
    if (u->fd >= 0) {
        close(u->fd);
    }
    while (u->packets != NULL) {
        packet *p = u->packets;
        u->packets = p->next;
        free(p);
    }
    free(u);
}

void xs_host_udp_destructor(void *data)
{
    if (data != NULL) {
        free_udp(data);
    }
}

static xsHostHooks udp_hooks = {xs_host_udp_destructor, mark_udp, NULL};

static udp *udp_of(xsMachine *the)
{
    udp *u = held_by(mxThis, &udp_hooks);
    if (u == NULL) {
        xsTypeError("this is no UDP socket, or it is closed");
    }
    return u;
}

/* (onReadable, port): at once at a port of the device's, or at any with the first write where `port` is 0. */
void xs_host_udp_create(xsMachine *the)
{
    txSlot *host = host_slot(mxThis);
    int port = xsToInteger(xsArg(1)), count = 0;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};
    udp *u;

    if (host == NULL || host->flag & XS_HOST_HOOKS_FLAG || host->value.host.data != NULL ||
        host->value.host.variant.destructor != xs_host_udp_destructor) {
        xsTypeError("this is no new UDP socket");
    }
    if (xsTypeOf(xsArg(0)) != xsUndefinedType && !xsIsCallable(xsArg(0))) {
        xsTypeError("expected a function for onReadable");
    }
    if (port < 0 || port > 65535) {
        xsRangeError("port %d is not between 0 and 65535", port);
    }
    for (u = udps; u != NULL; u = u->next) {
        count++;
    }
    u = count < UDP_MAX ? calloc(1, sizeof(*u)) : NULL;
    if (u == NULL) {
        xsRangeError("no socket left");
    }
    u->fd = port == 0 ? -1 : socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (port != 0 && (u->fd < 0 || bind(u->fd, (struct sockaddr *) &any, sizeof(any)) != 0)) {
        free_udp(u);
        xsUnknownError("cannot bind port %d: %s", port, strerror(errno));
    }
    u->self = xsThis;
    u->on_readable = xsArg(0);
    xsSetHostData(xsThis, u);
    xsSetHostHooks(xsThis, &udp_hooks);
    xsRemember(u->self);
    u->next = udps;
    udps = u;
}

void xs_host_udp_close(xsMachine *the)
{
    udp *u = held_by(mxThis, &udp_hooks);
    if (u != NULL) {
        xsForget(u->self);
        xsSetHostData(xsThis, NULL);
        free_udp(u);
    }
}

void xs_host_udp_write(xsMachine *the)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM};
    struct addrinfo *found;
    char address[NAME_BYTES], port[8];
    const uint8_t *bytes;
    size_t length;
    udp *u;
    int number = xsToInteger(xsArg(2));

    if (number < 1 || number > 65535) {
        xsRangeError("port %d is not between 1 and 65535", number);
    }
    snprintf(port, sizeof(port), "%d", number);
    xsToStringBuffer(xsArg(1), address, sizeof(address));
    u = udp_of(the); /* after what may run JavaScript, which may close it */
    bytes = bytes_of(the, 0, &length);
    if (getaddrinfo(address, port, &hints, &found) != 0) {
        xsTypeError("%s is no IP address", address);
    }
    if (u->fd < 0) {
        u->fd = socket(found->ai_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    /* A datagram that does not get out is lost, as datagrams are; the layers above send it again. */
    (void) !sendto(u->fd, bytes, length, 0, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
}

void xs_host_udp_read(xsMachine *the)
{
    udp *u = udp_of(the);
    packet *p = u->packets;
    char address[NI_MAXHOST];
    int port;

    if (p == NULL) {
        return;
    }
    xsVars(1);
    xsResult = xsArrayBuffer(p->bytes, (xsIntegerValue) p->length);
    port = p->from.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *) &p->from)->sin6_port)
                                         : ntohs(((struct sockaddr_in *) &p->from)->sin_port);
    if (getnameinfo((struct sockaddr *) &p->from, sizeof(p->from), address, sizeof(address), NULL, 0,
                    NI_NUMERICHOST) != 0) {
        address[0] = '\0';
    }
    u->packets = p->next;
    u->count--;
    free(p);
    xsVar(0) = xsString(address);
    xsSet(xsResult, xsID("address"), xsVar(0));
    xsVar(0) = xsInteger(port);
    xsSet(xsResult, xsID("port"), xsVar(0));
}

/* Takes what has come into the queue: a datagram more than it holds is lost. */
static int fill_queue(udp *u)
{
    uint8_t bytes[2048];
    int came = 0;

    for (;;) {
        struct sockaddr_storage from = {0};
        socklen_t size = sizeof(from);
        ssize_t n = recvfrom(u->fd, bytes, sizeof(bytes), 0, (struct sockaddr *) &from, &size);
        packet *p, **at;

        if (n < 0) {
            return came;
        }
        if (u->count >= PACKETS_MAX || (p = calloc(1, sizeof(*p) + (size_t) n)) == NULL) {
            continue;
        }
        p->from = from;
        p->length = (size_t) n;
        memcpy(p->bytes, bytes, (size_t) n);
        for (at = &u->packets; *at != NULL; at = &(*at)->next) {
        }
        *at = p;
        u->count++;
        came++;
    }
}

static void call_readable(xsMachine *the, udp *u, int count)
{
    xsBeginHost(the);
    {
        xsVars(2);
        xsVar(0) = u->on_readable;
        xsVar(1) = u->self;
        (void) xsCallFunction1(xsVar(0), xsVar(1), xsInteger(count));
    }
    xsEndHost(the);
}

static void run_udp(xsMachine *the, udp *u)
{
    int came = fill_queue(u);

    if (came > 0 && ((txSlot *) &u->on_readable)->kind == XS_REFERENCE_KIND) {
        call_readable(the, u, came);
        machine_settle(the);
    }
}

/* ---- storage ---- */

static void store_path(xsMachine *the, char path[FILE_PATH_BYTES])
{
    char folder[NAME_BYTES], key[NAME_BYTES];

    xsToStringBuffer(xsArg(0), folder, sizeof(folder));
    xsToStringBuffer(xsArg(1), key, sizeof(key));
    safe_name(the, folder);
    safe_name(the, key);
    snprintf(path, FILE_PATH_BYTES, "%s/flash/%s/%s", state_folder, folder, key);
}

void xs_host_store_read(xsMachine *the)
{
    char path[FILE_PATH_BYTES];
    if (state_folder[0] == '\0') {
        return;
    }
    store_path(the, path);
    read_file(the, path);
}

/* Makes the folders of a path; those that are there already are no error. */
static void make_folders(const char *path)
{
    char part[FILE_PATH_BYTES];
    snprintf(part, sizeof(part), "%s", path);
    for (char *slash = part + strlen(state_folder); (slash = strchr(slash + 1, '/')) != NULL;) {
        *slash = '\0';
        (void) mkdir(part, 0700);
        *slash = '/';
    }
}

/* A value is written to a new file, synced and renamed: the old one or the new one is there after a power cut. */
void xs_host_store_write(xsMachine *the)
{
    char path[FILE_PATH_BYTES], next[FILE_PATH_BYTES + 4];
    const uint8_t *bytes;
    size_t length;
    int fd, failed;

    store_path(the, path);
    snprintf(next, sizeof(next), "%s.new", path);
    bytes = bytes_of(the, 2, &length);
    if (state_folder[0] == '\0') {
        return; /* a device without a memory: what it keeps ends with the process, and nothing reads it again */
    }
    make_folders(path);
    fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        xsUnknownError("cannot write %s: %s", path, strerror(errno));
    }
    failed = write(fd, bytes, length) != (ssize_t) length || fsync(fd) != 0 ? errno : 0;
    if (close(fd) != 0 && failed == 0) {
        failed = errno;
    }
    if (failed == 0 && rename(next, path) != 0) {
        failed = errno;
    }
    if (failed == 0) {
        *strrchr(next, '/') = '\0'; /* the folder: the rename is not durable before it is synced */
        fd = open(next, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            (void) fsync(fd);
            close(fd);
        }
        return;
    }
    unlink(next);
    xsUnknownError("cannot write %s: %s", path, strerror(failed));
}

void xs_host_store_delete(xsMachine *the)
{
    char path[FILE_PATH_BYTES];
    store_path(the, path);
    if (state_folder[0] == '\0') {
        return; /* a device without a memory: what it keeps ends with the process, and nothing reads it again */
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        xsUnknownError("cannot erase %s: %s", path, strerror(errno));
    }
}

/* The key at `index` of a folder, in no order; undefined behind the last one. */
void xs_host_store_key(xsMachine *the)
{
    char path[FILE_PATH_BYTES], folder[NAME_BYTES], key[256] = "";
    int index = xsToInteger(xsArg(1));
    struct dirent *entry;
    DIR *directory;

    xsToStringBuffer(xsArg(0), folder, sizeof(folder));
    safe_name(the, folder);
    snprintf(path, sizeof(path), "%s/flash/%s", state_folder, folder);
    directory = state_folder[0] == '\0' ? NULL : opendir(path);
    if (directory == NULL) {
        return;
    }
    while ((entry = readdir(directory)) != NULL) {
        /* What else is there: the folder itself, the one above, and what a cut-off write has left. */
        if (strchr(entry->d_name, '.') == NULL && index-- == 0) {
            snprintf(key, sizeof(key), "%s", entry->d_name);
            break;
        }
    }
    closedir(directory);
    if (key[0] != '\0') {
        xsResult = xsString(key);
    }
}

/* ---- retained memory and sleep ---- */

/*
 * The part of retained.bin after the host's own, mapped: what is written there is kept whatever becomes of the process.
 * Once for a wake: bytes that are in use cannot be had with another length.
 */
void xs_host_retained(xsMachine *the)
{
    static uint8_t *bytes;
    static int mapped;
    char path[FILE_PATH_BYTES];
    struct stat status;
    int fd;
    int length = xsToInteger(xsArg(0));
    off_t whole;

    if (length < 1 || length > RETAINED_BYTES_MAX - RETAINED_HOST_BYTES) {
        xsRangeError("a session table of %d bytes does not fit the %d bytes of retained memory: take fewer or smaller slots",
                     length, RETAINED_BYTES_MAX - RETAINED_HOST_BYTES);
    }
    whole = RETAINED_HOST_BYTES + length;
    if (bytes != NULL && length != mapped) {
        xsRangeError("the retained memory is in use with %d bytes", mapped);
    }
    if (state_folder[0] == '\0') {
        bytes = no_memory;
    }
    if (bytes == NULL) {
        snprintf(path, sizeof(path), "%s/retained.bin", state_folder);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || fstat(fd, &status) != 0) {
            if (fd >= 0) {
                close(fd);
            }
            xsUnknownError("cannot open %s: %s", path, strerror(errno));
        }
        /* Bytes of another length, as another geometry leaves them, are no table: it starts from zeros then. */
        if (status.st_size != whole && (ftruncate(fd, RETAINED_HOST_BYTES) != 0 || ftruncate(fd, whole) != 0)) {
            close(fd);
            xsUnknownError("cannot write %s: %s", path, strerror(errno));
        }
        bytes = mmap(NULL, (size_t) whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (bytes == MAP_FAILED) {
            bytes = NULL;
            xsUnknownError("cannot map %s: %s", path, strerror(errno));
        }
    }
    mapped = length;
    xsResult = xsNewHostObject(NULL);
    xsSetHostBuffer(xsResult, bytes + RETAINED_HOST_BYTES, length);
}

static uint32_t *retained_value(xsMachine *the)
{
    int index = xsToInteger(xsArg(0));
    if (index < 0 || index >= RETAINED_VALUES) {
        xsRangeError("invalid index");
    }
    return &retained->values[index];
}

void xs_host_sleep_get(xsMachine *the)
{
    xsResult = xsInteger((int32_t) *retained_value(the));
}

void xs_host_sleep_set(xsMachine *the)
{
    int32_t value = xsToInteger(xsArg(1));
    *retained_value(the) = (uint32_t) value;
}

void xs_host_sleep_reason(xsMachine *the)
{
    xsResult = xsInteger(reset_reason);
}

/* Ends the process, as deep sleep ends all but the retained memory; whoever started it starts the next wake. */
void xs_host_sleep_deep(xsMachine *the)
{
    double delay = delay_of(the, 0);

    fprintf(stderr, "simulator: asleep for %.0f ms\n", delay);
    retained->phase = PHASE_ASLEEP;
    fflush(NULL);
    _exit(EXIT_OK);
}

/* ---- the loop ---- */

int host_run(txMachine *the)
{
    while (finished < 0 && (timers != NULL || udps != NULL)) {
        struct pollfd fds[UDP_MAX];
        udp *open_udps[UDP_MAX];
        nfds_t count = 0;
        int wait = -1;
        double now = now_of(CLOCK_MONOTONIC);

        for (timer *t = timers; t != NULL; t = t->next) {
            double left = t->when - now;
            int ms = left <= 0 ? 0 : left > 1e6 ? 1000000 : (int) left + 1;
            if (wait < 0 || ms < wait) {
                wait = ms;
            }
        }
        for (udp *u = udps; u != NULL && count < UDP_MAX; u = u->next) {
            if (u->fd >= 0) {
                open_udps[count] = u;
                fds[count++] = (struct pollfd){.fd = u->fd, .events = POLLIN};
            }
        }
        if (wait < 0 && count == 0) {
            break;
        }
        if (poll(fds, count, wait) > 0) {
            for (nfds_t i = 0; i < count; i++) {
                udp *u;
                for (u = udps; u != NULL && u != open_udps[i]; u = u->next) { /* closed by a callback before? */
                }
                if (u != NULL && fds[i].revents != 0) {
                    run_udp(the, u);
                }
            }
        }
        run_timers(the);
    }
    fflush(stdout);
    if (finished < 0) {
        /* Nothing is left to wait for, and nothing was reported: a rejection that nobody handled is the likely cause. */
        fxCheckUnhandledRejections(the, 1);
        fputs("simulator: the program ended without a report\n", stderr);
        return EXIT_FAILED;
    }
    return finished;
}
