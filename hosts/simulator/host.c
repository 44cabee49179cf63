/* The simulated device's surroundings: see host.h. */
#include "host.h"

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
#define RETAINED_BYTES_MAX 8192 /* of an ESP32's RTC slow memory */
#define RETAINED_HOST_BYTES 32  /* the host's own part: see hosts/node/storage.ts */
#define FILE_BYTES_MAX 65536
#define PACKETS_MAX 16

static char state_folder[PATH_BYTES], argument_folder[PATH_BYTES];
static int finished = -1; /* the exit status, once the program has reported */

int host_open(const char *state, const char *arguments)
{
    char keys[PATH_BYTES + 16];

    if (strlen(state) >= PATH_BYTES || strlen(arguments) >= PATH_BYTES) {
        return -1;
    }
    strcpy(state_folder, state);
    strcpy(argument_folder, arguments);
    if (state[0] != '\0') {
        snprintf(keys, sizeof(keys), "%s/flash/keys", state);
        return torpor_its_open(keys);
    }
    return 0;
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
    fputs(xsToString(xsArg(0)), stderr);
}

/* The end of the wake: one line for whoever started it, and the exit status. */
void xs_host_report(xsMachine *the)
{
    puts(xsToString(xsArg(0)));
    finished = xsToInteger(xsArg(1));
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
    char path[PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/options.json", argument_folder);
    read_file(the, path);
}

/* Keeps the body of the answer for whoever started the wake. */
void xs_host_answer(xsMachine *the)
{
    char path[PATH_BYTES + 32];
    void *bytes;
    xsUnsignedValue length;
    FILE *file;

    snprintf(path, sizeof(path), "%s/answer", argument_folder);
    xsGetBufferReadable(xsArg(0), &bytes, &length);
    file = fopen(path, "w");
    if (file == NULL || fwrite(bytes, 1, length, file) != length || fclose(file) != 0) {
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
    char path[PATH_BYTES + 32], *name = xsToString(xsArg(0));
    safe_name(the, name);
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

/* ---- timers ---- */

typedef struct timer {
    struct timer *next;
    double when;
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

static xsHostHooks timer_hooks = {NULL, mark_timer, NULL};

static void remove_timer(xsMachine *the, timer *t)
{
    timer **at;
    for (at = &timers; *at != NULL; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            break;
        }
    }
    xsSetHostData(t->self, NULL);
    xsForget(t->self);
    free(t);
}

void xs_host_timer_set(xsMachine *the)
{
    double delay = xsToNumber(xsArg(1));
    timer *t = calloc(1, sizeof(*t));

    if (t == NULL || xsTypeOf(xsArg(0)) != xsReferenceType || !(delay >= 0)) {
        free(t);
        xsTypeError("expected a function and a delay");
    }
    xsResult = xsNewHostObject(NULL);
    t->self = xsResult;
    t->callback = xsArg(0);
    t->when = now_of(CLOCK_MONOTONIC) + delay;
    xsSetHostData(xsResult, t);
    xsSetHostHooks(xsResult, &timer_hooks);
    xsRemember(t->self);
    t->next = timers;
    timers = t;
}

void xs_host_timer_clear(xsMachine *the)
{
    if (xsTypeOf(xsArg(0)) == xsReferenceType && xsGetHostHooks(xsArg(0)) == &timer_hooks) {
        timer *t = xsGetHostData(xsArg(0));
        if (t != NULL) {
            remove_timer(the, t);
        }
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
            xsVars(1);
            xsVar(0) = due->callback;
            remove_timer(the, due);
            (void) xsCallFunction0(xsVar(0), xsGlobal);
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
    udp *u = xsGetHostHooks(xsThis) == &udp_hooks ? xsGetHostData(xsThis) : NULL;
    if (u == NULL) {
        xsTypeError("the UDP socket is closed");
    }
    return u;
}

void xs_host_udp_create(xsMachine *the)
{
    udp *u = calloc(1, sizeof(*u));
    if (u == NULL) {
        xsUnknownError("no memory for a UDP socket");
    }
    u->fd = -1;
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
    udp *u = xsGetHostHooks(xsThis) == &udp_hooks ? xsGetHostData(xsThis) : NULL;
    if (u != NULL) {
        xsForget(u->self);
        xsSetHostData(xsThis, NULL);
        free_udp(u);
    }
}

void xs_host_udp_write(xsMachine *the)
{
    udp *u = udp_of(the);
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM};
    struct addrinfo *found;
    char port[8];
    void *bytes;
    xsUnsignedValue length;
    int number = xsToInteger(xsArg(2));

    if (number < 1 || number > 65535) {
        xsRangeError("port %d is not between 1 and 65535", number);
    }
    snprintf(port, sizeof(port), "%d", number);
    if (getaddrinfo(xsToString(xsArg(1)), port, &hints, &found) != 0) {
        xsTypeError("%s is no IP address", xsToString(xsArg(1)));
    }
    if (u->fd < 0) {
        u->fd = socket(found->ai_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    xsGetBufferReadable(xsArg(0), &bytes, &length);
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

static void run_udp(xsMachine *the, udp *u)
{
    int came = fill_queue(u);

    if (came > 0) {
        xsBeginHost(the);
        {
            xsVars(2);
            xsVar(0) = u->on_readable;
            xsVar(1) = u->self;
            (void) xsCallFunction1(xsVar(0), xsVar(1), xsInteger(came));
        }
        xsEndHost(the);
        machine_settle(the);
    }
}

/* ---- storage ---- */

static void store_path(xsMachine *the, char path[PATH_BYTES + 64], const char *suffix)
{
    char *folder = xsToString(xsArg(0)), *key = xsToString(xsArg(1));
    safe_name(the, folder);
    safe_name(the, key);
    if (state_folder[0] == '\0') {
        xsUnknownError("this device has no storage");
    }
    snprintf(path, PATH_BYTES + 64, "%s/flash/%s/%s%s", state_folder, folder, key, suffix);
}

void xs_host_store_read(xsMachine *the)
{
    char path[PATH_BYTES + 64];
    if (state_folder[0] == '\0') {
        return;
    }
    store_path(the, path, "");
    read_file(the, path);
}

/* Makes the folders of a path; those that are there already are no error. */
static void make_folders(const char *path)
{
    char part[PATH_BYTES + 64];
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
    char path[PATH_BYTES + 64], next[PATH_BYTES + 64];
    void *bytes;
    xsUnsignedValue length;
    int fd, failed;

    store_path(the, path, "");
    store_path(the, next, ".new");
    make_folders(path);
    fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        xsUnknownError("cannot write %s: %s", path, strerror(errno));
    }
    xsTry {
        xsGetBufferReadable(xsArg(2), &bytes, &length);
    }
    xsCatch {
        close(fd);
        unlink(next);
        xsThrow(xsException);
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
    char path[PATH_BYTES + 64];
    store_path(the, path, "");
    if (unlink(path) != 0 && errno != ENOENT) {
        xsUnknownError("cannot erase %s: %s", path, strerror(errno));
    }
}

/* ---- retained memory ---- */

/* The part of retained.bin after the host's own, mapped: what is written there is kept whatever becomes of the process. */
void xs_host_retained(xsMachine *the)
{
    static uint8_t none[RETAINED_BYTES_MAX];
    char path[PATH_BYTES + 64];
    struct stat status;
    uint8_t *bytes;
    int fd;
    int length = xsToInteger(xsArg(0));
    off_t whole = RETAINED_HOST_BYTES + (off_t) length;

    if (length < 0 || whole > RETAINED_BYTES_MAX) {
        xsRangeError("a session table of %d bytes does not fit the %d bytes of retained memory: take fewer or smaller slots",
                     length, RETAINED_BYTES_MAX - RETAINED_HOST_BYTES);
    }
    if (state_folder[0] == '\0') {
        bytes = none;
    } else {
        snprintf(path, sizeof(path), "%s/retained.bin", state_folder);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || fstat(fd, &status) != 0) {
            xsUnknownError("cannot open %s: %s", path, strerror(errno));
        }
        /* Bytes of another length, as another geometry leaves them, are no table: it starts from zeros then. */
        if (status.st_size != whole &&
            (ftruncate(fd, RETAINED_HOST_BYTES) != 0 || ftruncate(fd, whole) != 0)) {
            close(fd);
            xsUnknownError("cannot write %s: %s", path, strerror(errno));
        }
        bytes = mmap(NULL, (size_t) whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (bytes == MAP_FAILED) {
            xsUnknownError("cannot map %s: %s", path, strerror(errno));
        }
    }
    xsResult = xsNewHostObject(NULL);
    xsSetHostBuffer(xsResult, bytes + RETAINED_HOST_BYTES, length);
}

/* ---- the loop ---- */

int host_run(txMachine *the)
{
    while (finished < 0 && (timers != NULL || udps != NULL)) {
        struct pollfd fds[8];
        udp *open_udps[8];
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
        for (udp *u = udps; u != NULL && count < 8; u = u->next) {
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
