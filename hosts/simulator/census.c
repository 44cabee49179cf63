/* What lies in a machine's heap: see census.h. */
#include "census.h"

#define NAME_BYTES 64
#define LINES_MAX 256

typedef struct {
    char name[NAME_BYTES];
    unsigned count, slots, bytes;
} line;

static int is_open;
static char *text;
static size_t text_size;

static line lines[LINES_MAX];
static size_t line_count;

static const char *const KINDS[] = {
    "undefined", "null", "boolean", "integer", "number", "string", "string x", "symbol", "bigint", "bigint x",
    "reference", "closure", "frame", "instance", "arguments", "arguments", "array", "array buffer", "callback", "code",
    "code x", "date", "data view", "finalization cell", "finalization registry", "global", "host", "map", "module",
    "program", "promise", "proxy", "regexp", "set", "typed array", "weak map", "weak ref", "weak set", "accessor", "at",
    "entry", "error", "home", "key", "key x", "list", "private", "stack", "var", "callback x", "host function",
    "host inspector", "instance inspector", "export", "weak entry", "buffer info", "module source", "ids",
};

static const char *kind_of(const txSlot *slot)
{
    return slot->kind >= 0 && (size_t) slot->kind < sizeof(KINDS) / sizeof(KINDS[0]) ? KINDS[(int) slot->kind] : "?";
}

static void add(const char *name, unsigned slots, unsigned bytes)
{
    size_t i;

    for (i = 0; i < line_count && strcmp(lines[i].name, name) != 0; i++) {
    }
    if (i == line_count) {
        if (line_count == LINES_MAX) {
            return;
        }
        snprintf(lines[line_count++].name, NAME_BYTES, "%s", name);
    }
    lines[i].count++;
    lines[i].slots += slots;
    lines[i].bytes += bytes;
}

static int by_slots(const void *one, const void *other)
{
    const line *a = one, *b = other;
    return (int) (b->slots + b->bytes) - (int) (a->slots + a->bytes);
}

static void print(FILE *out, const char *unit)
{
    qsort(lines, line_count, sizeof(lines[0]), by_slots);
    for (size_t i = 0; i < line_count; i++) {
        unsigned bytes = lines[i].slots * (unsigned) sizeof(txSlot) + lines[i].bytes;
        fprintf(out, "  %6u B  %4u %s  %s\n", bytes, lines[i].count, unit, lines[i].name);
    }
    line_count = 0;
    memset(lines, 0, sizeof(lines));
}

/* ---- slots: an object with its properties and private fields is one part ---- */

static void name_of_function(txMachine *the, const txSlot *function, char *name)
{
    const txSlot *property;

    (void) the;
    for (property = function->next; property != NULL; property = property->next) {
        if (property->ID == mxID(_name) && (property->kind == XS_STRING_KIND || property->kind == XS_STRING_X_KIND)) {
            snprintf(name, NAME_BYTES, "%s", property->value.string);
            return;
        }
    }
    if (function->next != NULL && function->next->ID != XS_NO_ID) {
        char *key = fxGetKeyName(the, function->next->ID);
        snprintf(name, NAME_BYTES, "%s", key == NULL ? "" : key);
    }
}

static void name_of_instance(txMachine *the, const txSlot *instance, char *name)
{
    const txSlot *first = instance->next, *prototype = instance->value.instance.prototype, *property;
    char constructor[NAME_BYTES] = "";

    if (first != NULL && (first->kind == XS_CODE_KIND || first->kind == XS_CODE_X_KIND ||
                          first->kind == XS_CALLBACK_KIND || first->kind == XS_CALLBACK_X_KIND)) {
        name_of_function(the, instance, constructor);
        snprintf(name, NAME_BYTES, "function %.40s", constructor);
        return;
    }
    for (property = prototype == NULL ? NULL : prototype->next; property != NULL; property = property->next) {
        if (property->ID == mxID(_constructor) && property->kind == XS_REFERENCE_KIND) {
            name_of_function(the, property->value.reference, constructor);
        }
    }
    if (constructor[0] != '\0' && strcmp(constructor, "Object") != 0) {
        snprintf(name, NAME_BYTES, "object %.40s", constructor);
    } else if (first != NULL && first->kind == XS_CLOSURE_KIND && prototype == NULL) {
        snprintf(name, NAME_BYTES, "environment");
    } else {
        size_t at = (size_t) snprintf(name, NAME_BYTES, "object {");
        for (property = first; property != NULL && at < 40; property = property->next) {
            char *key = property->ID == XS_NO_ID ? NULL : fxGetKeyName(the, property->ID);
            at += (size_t) snprintf(name + at, NAME_BYTES - at, " %.12s", key == NULL ? kind_of(property) : key);
        }
        snprintf(name + at, NAME_BYTES - at, " }");
    }
}

static void count_slots(txMachine *the, FILE *out)
{
    txSlot *block, *slot;
    size_t all = (size_t) the->maximumHeapCount + 1024;
    const txSlot **seen = calloc(all, sizeof(*seen));
    size_t seen_count = 0;

    if (seen == NULL) {
        return;
    }
    for (slot = the->freeHeap; slot != NULL && seen_count < all; slot = slot->next) {
        seen[seen_count++] = slot;
    }
    size_t free_count = seen_count;
    for (block = the->firstHeap; block != NULL; block = block->next) {
        for (slot = block + 1; slot < block->value.reference; slot++) {
            char name[NAME_BYTES];
            unsigned slots = 1;
            int is_free = 0;
            if (slot->kind != XS_INSTANCE_KIND) {
                continue;
            }
            for (size_t i = 0; i < free_count; i++) {
                is_free |= seen[i] == slot;
            }
            if (is_free || seen_count >= all) {
                continue;
            }
            seen[seen_count++] = slot;
            for (txSlot *p = slot->next; p != NULL; p = p->next) {
                if (seen_count < all) {
                    seen[seen_count++] = p;
                }
                slots++;
                if (p->kind == XS_PRIVATE_KIND) {
                    for (txSlot *f = p->value.private.first; f != NULL; f = f->next) {
                        if (seen_count < all) {
                            seen[seen_count++] = f;
                        }
                        slots++;
                    }
                }
            }
            name_of_instance(the, slot, name);
            add(name, slots, 0);
        }
    }
    for (block = the->firstHeap; block != NULL; block = block->next) {
        for (slot = block + 1; slot < block->value.reference; slot++) {
            char name[NAME_BYTES];
            int is_seen = 0;
            for (size_t i = 0; i < seen_count; i++) {
                is_seen |= seen[i] == slot;
            }
            if (!is_seen) {
                const char *key = slot->ID == XS_NO_ID ? NULL : fxGetKeyName(the, slot->ID);
                snprintf(name, sizeof(name), "(%s%s%s)", kind_of(slot), key == NULL ? "" : " ", key == NULL ? "" : key);
                add(name, 1, 0);
            }
        }
    }
    fprintf(out, "slots: %u in use, %zu free\n", (unsigned) the->currentHeapCount, free_count);
    print(out, "x");
    free(seen);
}

/* ---- chunks, by the slot that points to each ---- */

static void chunk_of(const void *data, const char *what)
{
    if (data != NULL) {
        add(what, 0, (unsigned) ((const txChunk *) (const void *) ((const txByte *) data - sizeof(txChunk)))->size);
    }
}

static int in_blocks(txMachine *the, const void *data)
{
    for (txBlock *block = the->firstBlock; block != NULL; block = block->nextBlock) {
        if ((const txByte *) data > (txByte *) block && (const txByte *) data < block->limit) {
            return 1;
        }
    }
    return 0;
}

static void count_chunk(txMachine *the, const txSlot *slot)
{
    char name[NAME_BYTES];

    switch (slot->kind) {
    case XS_STRING_KIND:
        if (in_blocks(the, slot->value.string)) {
            snprintf(name, sizeof(name), "string \"%.40s\"", slot->value.string);
            chunk_of(slot->value.string, name);
        }
        break;
    case XS_ARRAY_BUFFER_KIND:
        if (in_blocks(the, slot->value.arrayBuffer.address)) {
            snprintf(name, sizeof(name), "array buffer of %d bytes", (int) slot->next->value.bufferInfo.length);
            chunk_of(slot->value.arrayBuffer.address, name);
        }
        break;
    case XS_ARRAY_KIND:
        if (in_blocks(the, slot->value.array.address)) {
            chunk_of(slot->value.array.address, "array");
        }
        break;
    case XS_HOST_KIND:
        if ((slot->flag & XS_HOST_CHUNK_FLAG) != 0 && in_blocks(the, slot->value.host.data)) {
            chunk_of(slot->value.host.data, "host data");
        }
        break;
    case XS_STACK_KIND:
        if (in_blocks(the, slot->value.stack.address)) {
            chunk_of(slot->value.stack.address, "stack of a function that waits");
        }
        break;
    case XS_REGEXP_KIND:
        if (in_blocks(the, slot->value.regexp.code)) {
            chunk_of(slot->value.regexp.code, "regular expression");
        }
        break;
    default:
        break;
    }
}

static void count_chunks(txMachine *the, FILE *out)
{
    txSlot *block, *slot;

    for (block = the->firstHeap; block != NULL; block = block->next) {
        for (slot = block + 1; slot < block->value.reference; slot++) {
            count_chunk(the, slot);
        }
    }
    for (slot = the->stack; slot < the->stackTop; slot++) {
        count_chunk(the, slot);
    }
    fprintf(out, "chunks: %u bytes in use; those that a slot points to (some twice):\n", (unsigned) the->currentChunksSize);
    print(out, "x");
}

/* ---- the stack, frame by frame ---- */

static void count_stack(txMachine *the, FILE *out)
{
    const txSlot *below = the->stack;

    fprintf(out, "stack: %u bytes now, %u at the deepest\n", (unsigned) ((the->stackTop - the->stack) * (int) sizeof(txSlot)),
            (unsigned) ((the->stackTop - the->stackPeak) * (int) sizeof(txSlot)));
    for (txSlot *frame = the->frame; frame != NULL; frame = frame->next) {
        char name[128] = "";
        fxBufferFrameName(the, name, sizeof(name), frame, "");
        fprintf(out, "  %6u B  %s\n", (unsigned) ((frame + 6 - below) * (int) sizeof(txSlot)), name);
        below = frame + 6;
    }
}

void census_stack(txMachine *the)
{
    txSlot *stack = the->stack, *frame = the->frame;

    /* The engine writes its own registers back only where it calls C: the deepest frame is the first one found. */
    the->stack = the->stackPeak;
    for (the->frame = the->stack; the->frame < the->stackTop && the->frame->kind != XS_FRAME_KIND; the->frame++) {
    }
    count_stack(the, stderr);
    the->stack = stack;
    the->frame = frame;
}

void census_take(txMachine *the)
{
    FILE *out;

    if (!is_open || the->sharedMachine == NULL || (the->collectFlag & XS_COLLECTING_FLAG) == 0) {
        return;
    }
    free(text);
    text = NULL;
    out = open_memstream(&text, &text_size);
    if (out != NULL) {
        count_slots(the, out);
        count_chunks(the, out);
        count_stack(the, out);
        fclose(out);
    }
}

static void print_text(void)
{
    if (text != NULL) {
        fputs(text, stderr);
    }
}

void census_open(void)
{
    is_open = 1;
    atexit(print_text);
}
