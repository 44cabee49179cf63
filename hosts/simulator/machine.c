/* An XS machine as a device has it: see machine.h. */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xs.h"
#include "census.h"
#include "natives.h"
#include "xsScript.h"

/*
 * One block of memory, as on a device: chunks grow up from its start, slots and stack down from its end; where they
 * meet, memory is full. Without a limit both come from malloc.
 */
typedef struct {
    uint8_t *start, *chunks, *slots, *end;
} arena;

/* The step by which chunks and slots grow inside the block: small, so that neither keeps what the other needs. */
#define GROW_CHUNKS 256
#define GROW_SLOTS 16

static txMachine *running; /* for figures of a crash */
static txMachine *shared_machine;

void *fxAllocateChunks(txMachine *the, txSize size)
{
    arena *a = the->arena;
    void *chunks;

    if (a == NULL) {
        return malloc((size_t) size);
    }
    census_take(the);
    if ((size_t) (a->slots - a->chunks) < (size_t) size) {
        return NULL;
    }
    chunks = a->chunks;
    a->chunks += size;
    return chunks;
}

void fxFreeChunks(txMachine *the, void *chunks)
{
    if (the->arena == NULL) {
        free(chunks);
    }
}

txSlot *fxAllocateSlots(txMachine *the, txSize count)
{
    arena *a = the->arena;
    size_t size = (size_t) count * sizeof(txSlot);

    if (a == NULL) {
        return malloc(size);
    }
    census_take(the);
    if ((size_t) (a->slots - a->chunks) < size) {
        return NULL;
    }
    a->slots -= size;
    return (txSlot *) (void *) a->slots;
}

void fxFreeSlots(txMachine *the, void *slots)
{
    if (the->arena == NULL) {
        free(slots);
    }
}

void fxCreateMachinePlatform(txMachine *the)
{
    arena *a = the->context;

    the->arena = a;
}

void fxDeleteMachinePlatform(txMachine *the)
{
    (void) the; /* slots and chunks are freed after this: machine_close frees what they lie in */
}

void fxQueuePromiseJobs(txMachine *the)
{
    the->promiseJobs = 1;
}

/* What was thrown: its stack trace in a debug build, which has file and line there, else its name and message. */
static void print_exception(txMachine *the)
{
#ifdef mxDebug
    if (mxException.kind == XS_REFERENCE_KIND && mxException.value.reference->next != NULL &&
        mxException.value.reference->next->kind == XS_ERROR_KIND) {
        txSlot thrown = mxException;
        fxBeginHost(the); /* the getter wants a frame, and in a callback of a timer there is none left */
        mxPushSlot(&thrown);
        mxGetID(mxID(_stack));
        fprintf(stderr, ": %s", fxToString(the, the->stack));
        fxEndHost(the);
        return;
    }
#endif
    fprintf(stderr, ": %s", fxToString(the, &mxException));
}

void fxAbort(txMachine *the, int status)
{
    static const struct {
        int status, exit;
        const char *what;
    } ENDS[] = {
        {XS_NOT_ENOUGH_MEMORY_EXIT, EXIT_MEMORY_FULL, "memory full"},
        {XS_STACK_OVERFLOW_EXIT, EXIT_STACK_OVERFLOW, "stack overflow"},
        {XS_UNHANDLED_EXCEPTION_EXIT, EXIT_UNHANDLED_EXCEPTION, "unhandled exception"},
        {XS_UNHANDLED_REJECTION_EXIT, EXIT_UNHANDLED_REJECTION, "unhandled rejection"},
    };
    int code = EXIT_MACHINE;
    const char *what = "the machine gave up";

    for (size_t i = 0; i < sizeof(ENDS) / sizeof(ENDS[0]); i++) {
        if (ENDS[i].status == status) {
            code = ENDS[i].exit;
            what = ENDS[i].what;
        }
    }
    fprintf(stderr, "simulator: %s", what);
    if (code == EXIT_UNHANDLED_EXCEPTION || code == EXIT_UNHANDLED_REJECTION) {
        static int nested; /* what was thrown may throw when it is asked */
        if (!nested++) {
            print_exception(the);
        }
    } else if (code == EXIT_MACHINE) {
        fprintf(stderr, " (%d)", status);
    }
    fputc('\n', stderr);
    machine_exit(the, code);
}

/* ---- modules: files, by relative specifiers; by bare ones only where a folder for them is named ---- */

static char bare_modules[PATH_MAX];

void machine_modules(const char *folder)
{
    if (realpath(folder, bare_modules) == NULL) {
        bare_modules[0] = '\0'; /* no module is found there */
    }
}

/* Takes "." and ".." out of an absolute path. 0, or -1 where no such file can be read. */
static int resolve(char *path)
{
    char *to = path;

    for (const char *from = path; *from != '\0';) {
        size_t length = strcspn(from + 1, "/") + 1;
        if (length == 3 && memcmp(from, "/..", 3) == 0) {
            while (to > path && *--to != '/') {
            }
        } else if (length != 2 || from[1] != '.') {
            memmove(to, from, length);
            to += length;
        }
        from += length;
    }
    *to = '\0';
    return access(path, R_OK);
}

txID fxFindModule(txMachine *the, txSlot *realm, txID module, txSlot *slot)
{
    char name[C_PATH_MAX], path[C_PATH_MAX];
    char *slash;

    (void) realm;
    fxToStringBuffer(the, slot, name, sizeof(name));
    if (name[0] == '/') {
        snprintf(path, sizeof(path), "%s", name);
    } else if (name[0] == '.' && module != XS_NO_ID) {
        const char *importer = fxGetKeyName(the, module);
        slash = strrchr(importer, '/');
        if (slash == NULL || (size_t) (slash - importer) + 1 + strlen(name) + 1 > sizeof(path)) {
            return XS_NO_ID;
        }
        memcpy(path, importer, (size_t) (slash - importer) + 1);
        strcpy(path + (slash - importer) + 1, name);
    } else if (bare_modules[0] != '\0') {
        for (char *c = name; *c != '\0'; c++) {
            if (*c == ':' || *c == '/') {
                *c = '-';
            }
        }
        if ((size_t) snprintf(path, sizeof(path), "%s/%s.js", bare_modules, name) >= sizeof(path)) {
            return XS_NO_ID;
        }
    } else {
        return XS_NO_ID;
    }
    return resolve(path) == 0 ? fxNewNameC(the, path) : XS_NO_ID;
}

typedef struct {
    char *bytes;
    size_t length, at;
    struct stat status;
} text;

/* The whole of a file. 0, or -1 where it cannot be read. */
static int read_text(text *t, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), failed = 1;

    *t = (text){0};
    if (fd >= 0 && fstat(fd, &t->status) == 0 && S_ISREG(t->status.st_mode)) {
        t->length = (size_t) t->status.st_size;
        t->bytes = malloc(t->length + 1);
        failed = t->bytes == NULL || read(fd, t->bytes, t->length) != t->status.st_size;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (failed) {
        free(t->bytes);
    }
    return failed ? -1 : 0;
}

/* What the parser reads by. */
static int next_character(void *stream)
{
    text *t = stream;

    return t->at == t->length ? EOF : (unsigned char) t->bytes[t->at++];
}

/*
 * The parser takes a piece of memory for each node of its tree, and gives all of them back at once: one heap of pieces
 * does for that, and leaves no work. XS's own xsScript.c calls these (CMakeLists.txt).
 */
#define POOL_BYTES (1u << 20)
typedef struct pool {
    struct pool *next;
    size_t used;
    _Alignas(16) uint8_t bytes[POOL_BYTES];
} pool;
static pool *pools;
static size_t pieces;

void *parser_malloc(size_t size)
{
    pool *p = pools;
    void *piece;

    if (size > POOL_BYTES - 16) {
        return NULL;
    }
    size = (size + 15) & ~(size_t) 15;
    if (p == NULL || size > POOL_BYTES - p->used) {
        p = malloc(sizeof(*p));
        if (p == NULL) {
            return NULL;
        }
        p->next = pools;
        p->used = 0;
        pools = p;
    }
    piece = p->bytes + p->used;
    p->used += size;
    pieces++;
    return piece;
}

void parser_free(void *piece)
{
    (void) piece;
    if (--pieces == 0) {
        while (pools->next != NULL) {
            pool *next = pools->next;
            free(pools);
            pools = next;
        }
        pools->used = 0;
    }
}

/*
 * Byte code of modules, as a device has it in its flash: `MODULE.jsb` beside `MODULE.js`, made by --compile. It counts
 * only for the very file that it was made of, and for the build that made it; else the module is parsed.
 *
 *   | head | symbols | code |
 */
#ifdef mxDebug
#define COMPILED_DEBUG 1
#else
#define COMPILED_DEBUG 0
#endif

typedef struct {
    char magic[8];
    uint32_t id_bytes, is_debug;
    int64_t seconds, nanoseconds, size; /* of the source */
    uint32_t symbols, code;
} compiled_head;

static int is_compiling;

void machine_compile(void)
{
    is_compiling = 1;
}

static compiled_head head_of(const struct stat *source)
{
    return (compiled_head){
        .magic = "TRPRXSB",
        .id_bytes = sizeof(txID),
        .is_debug = COMPILED_DEBUG,
        .seconds = source->st_mtim.tv_sec,
        .nanoseconds = source->st_mtim.tv_nsec,
        .size = source->st_size,
    };
}

/* NULL where there is none that counts. */
static txScript *read_compiled(const char *path, const struct stat *source)
{
    char file[PATH_MAX + 1];
    compiled_head head, wanted = head_of(source);
    txScript *script = NULL;
    text t;

    snprintf(file, sizeof(file), "%sb", path);
    if (read_text(&t, file) != 0) {
        return NULL;
    }
    if (t.length >= sizeof(head)) {
        memcpy(&head, t.bytes, sizeof(head));
        wanted.symbols = head.symbols;
        wanted.code = head.code;
        if (memcmp(&head, &wanted, sizeof(head)) == 0 &&
            t.length - sizeof(head) == (uint64_t) head.symbols + head.code) {
            script = calloc(1, sizeof(*script));
        }
    }
    if (script != NULL) {
        script->symbolsBuffer = malloc(head.symbols + 1);
        script->codeBuffer = malloc(head.code + 1);
        script->symbolsSize = (txSize) head.symbols;
        script->codeSize = (txSize) head.code;
        if (script->symbolsBuffer == NULL || script->codeBuffer == NULL) {
            fxDeleteScript(script);
            script = NULL;
        } else {
            memcpy(script->symbolsBuffer, t.bytes + sizeof(head), head.symbols);
            memcpy(script->codeBuffer, t.bytes + sizeof(head) + head.symbols, head.code);
        }
    }
    free(t.bytes);
    return script;
}

/* Whole, or not at all: another process may read it at any time. Without it all goes on, by parsing. */
static void write_compiled(const char *path, const struct stat *source, const txScript *script)
{
    char file[PATH_MAX + 1], next[PATH_MAX + 32];
    compiled_head head = head_of(source);
    FILE *out;
    int failed;

    head.symbols = (uint32_t) script->symbolsSize;
    head.code = (uint32_t) script->codeSize;
    snprintf(file, sizeof(file), "%sb", path);
    snprintf(next, sizeof(next), "%s.%ld", file, (long) getpid());
    out = fopen(next, "w");
    if (out == NULL) {
        return;
    }
    failed = fwrite(&head, sizeof(head), 1, out) != 1 ||
             fwrite(script->symbolsBuffer, 1, head.symbols, out) != head.symbols ||
             fwrite(script->codeBuffer, 1, head.code, out) != head.code;
    if (fclose(out) != 0 || failed || rename(next, file) != 0) {
        unlink(next);
    }
}

static txScript *parse(txMachine *the, char *path, text *source)
{
    txParser parser_;
    txParser *parser = &parser_;
    txParserJump jump;
    txScript *volatile script = NULL; /* the parser may jump back */

    fxInitializeParser(parser, the, the->parserBufferSize, the->parserTableModulo);
    parser->firstJump = &jump;
    if (c_setjmp(jump.jmp_buf) == 0) {
        txString map = NULL; /* source maps are not followed: lines are those of the compiled file */
        parser->path = fxNewParserSymbol(parser, path);
        fxParserTree(parser, source, next_character, COMPILED_DEBUG ? mxDebugFlag : 0, &map);
        fxParserHoist(parser);
        fxParserBind(parser);
        script = fxParserCode(parser);
    }
    fxTerminateParser(parser);
    return script;
}

void fxLoadModule(txMachine *the, txSlot *module, txID id)
{
    char *path = fxGetKeyName(the, id);
    txScript *script;
    struct stat status;
    text source;

    if (!is_compiling && stat(path, &status) == 0) {
        script = read_compiled(path, &status);
        if (script != NULL) {
            fxResolveModule(the, module, id, script, NULL, NULL);
            return;
        }
    }
    if (read_text(&source, path) != 0) {
        return;
    }
    script = parse(the, path, &source);
    free(source.bytes);
    if (script != NULL) {
        if (is_compiling && script->hostsBuffer == NULL) {
            write_compiled(path, &source.status, script);
        }
        fxResolveModule(the, module, id, script, NULL, NULL);
    }
}

/* ---- import, and the call of what was imported ---- */

static void on_loaded(xsMachine *the)
{
    (void) the;
}

static void on_start(xsMachine *the)
{
    (void) xsCall0(xsArg(0), xsID("default"));
}

static void on_rejected(xsMachine *the)
{
    mxException = *mxArgv(0);
    fxAbort(the, XS_UNHANDLED_EXCEPTION_EXIT);
}

static void import_module(txMachine *the, const char *path, txCallback fulfilled)
{
    txSlot *realm = mxModuleInstanceInternal(mxProgram.value.reference)->value.module.realm;

    fxBeginHost(the);
    mxPushStringC((txString) path);
    fxRunImport(the, realm, XS_NO_ID);
    mxDub();
    fxGetID(the, mxID(_then));
    mxCall();
    fxNewHostFunction(the, fulfilled, 1, XS_NO_ID, XS_NO_ID);
    fxNewHostFunction(the, on_rejected, 1, XS_NO_ID, XS_NO_ID);
    mxRunCount(2);
    mxPop();
    fxEndHost(the);
    machine_settle(the);
}

void machine_settle(txMachine *the)
{
    while (the->promiseJobs) {
        the->promiseJobs = 0;
        fxRunPromiseJobs(the);
    }
    fxEndJob(the);
}

/* ---- open ---- */

static char module_path[PATH_MAX];

static arena *new_arena(size_t size)
{
    arena *a = calloc(1, sizeof(*a) + size + 16);

    if (a == NULL) {
        return NULL;
    }
    a->start = (uint8_t *) (a + 1);
    a->start += (16 - (uintptr_t) a->start % 16) % 16;
    a->end = a->start + size / 16 * 16;
    a->chunks = a->start;
    a->slots = a->end;
    return a;
}

/* Chunks, slots and stack share one limit, and grow in small steps. */
static arena *share_limit(txCreation *creation, size_t limit)
{
    creation->initialChunkSize = GROW_CHUNKS;
    creation->incrementalChunkSize = GROW_CHUNKS;
    creation->initialHeapCount = GROW_SLOTS;
    creation->incrementalHeapCount = GROW_SLOTS;
    return new_arena(limit);
}

/* Each has its own from the start, and none grows. */
static arena *fix_parts(txCreation *creation, machine_memory memory)
{
    creation->initialChunkSize = (txSize) memory.chunks;
    creation->incrementalChunkSize = 0;
    creation->initialHeapCount = memory.slots;
    creation->incrementalHeapCount = 0;
    return new_arena(sizeof(txBlock) + memory.chunks + (size_t) (memory.slots + memory.stack) * sizeof(txSlot));
}

/*
 * A value copied from the shared machine points to its chunks, and a collection in the clone moves every chunk that it
 * meets to where `temporary` says. In the linker's ROM image there are other kinds of slots for this; here it is enough
 * that no shared chunk says anything. Nothing is collected in the shared machine any more.
 */
static void pin_chunks(txMachine *shared)
{
    for (txBlock *block = shared->firstBlock; block != NULL; block = block->nextBlock) {
        txByte *chunk = (txByte *) (block + 1);
        while (chunk < block->current) {
            txByte *next = ((txChunk *) (void *) chunk)->temporary;
            ((txChunk *) (void *) chunk)->temporary = NULL;
            chunk = next;
        }
    }
}

txMachine *machine_open(const char *module, machine_memory memory)
{
    /* The shared machine: as large as it needs to be; what is in it is ROM on the device. */
    txCreation large = {
        .initialChunkSize = 1 << 20,
        .incrementalChunkSize = 1 << 18,
        .initialHeapCount = 1 << 16,
        .incrementalHeapCount = 1 << 13,
        .stackCount = 4096,
        .initialKeyCount = 4096,
        .incrementalKeyCount = 1024,
        .nameModulo = 1993,
        .symbolModulo = 127,
        .parserBufferSize = 256 * 1024,
        .parserTableModulo = 1993,
    };
    txCreation small = large;
    arena *own = NULL;
    txMachine *shared, *the;

    if (realpath(module, module_path) == NULL) {
        fprintf(stderr, "simulator: cannot read %s: %s\n", module, strerror(errno));
        return NULL;
    }
    shared = fxCreateMachine(&large, "shared", NULL, XS_NO_ID);
    if (shared == NULL) {
        fprintf(stderr, "simulator: no memory\n");
        return NULL;
    }
    running = shared_machine = shared;
    natives_install(shared);
    import_module(shared, module_path, on_loaded);
    fxShareMachine(shared);
    pin_chunks(shared);

    small.stackCount = memory.stack;
    if (memory.heap != 0 || memory.chunks != 0) {
        small.initialKeyCount = 64;
        small.incrementalKeyCount = 16;
        own = memory.heap != 0 ? share_limit(&small, memory.heap) : fix_parts(&small, memory);
        if (own == NULL) {
            fprintf(stderr, "simulator: no memory for the device\n");
            return NULL;
        }
    }
    the = fxCloneMachine(&small, shared, "device", own);
    if (the == NULL) {
        fprintf(stderr, "simulator: no memory for the device\n");
        return NULL;
    }
    running = the;
    return the;
}

void machine_close(txMachine *the)
{
    void *own = the->arena;

    running = NULL;
    fxDeleteMachine(the);
    free(own);
    fxDeleteMachine(shared_machine);
}

void machine_start(txMachine *the)
{
    import_module(the, module_path, on_start);
}

/* ---- figures ---- */

machine_heap machine_figures(txMachine *the)
{
    const arena *a = the->arena;
    machine_heap figures = {
        .slots = (size_t) the->peakHeapCount * sizeof(txSlot),
        .chunks = (size_t) the->peakChunksSize,
        .stack = (size_t) (the->stackTop - the->stackPeak) * sizeof(txSlot),
        .limit = a == NULL ? 0 : (size_t) (a->end - a->start),
    };
    return figures;
}

void machine_exit(txMachine *the, int status)
{
    machine_heap figures;

    (void) the;
    figures = machine_figures(running);
    fprintf(stderr, "simulator: XS heap peak: slots %zu, chunks %zu, stack %zu bytes; limit %zu\n", figures.slots,
            figures.chunks, figures.stack, figures.limit);
    fflush(NULL);
    _exit(status);
}
