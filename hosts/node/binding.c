/*
 * The Node.js binding of the C core, by Node-API. It exports the functions that src/ reaches by `native("xs_torpor_…")`,
 * one export for each name; hosts/node/native.ts puts them behind the globals `native` and `Native`.
 *
 * A function returns a number: a length, a key, a state, or a negative error of the core. It throws only for a call
 * that no correct program makes (a wrong type, a `this` that is no engine, an engine already freed).
 */
#include <node_api.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/crc32.h"
#include "../../src/dtls/dtls.h"
#include "../../src/dtls/server.h"
#include "../../src/pki/crypto.h"
#include "../desktop/its.h"

#define ARGUMENTS_MAX 4

typedef struct {
    napi_env env;
    napi_value self;
    napi_value argv[ARGUMENTS_MAX];
    size_t argc;
    int failed; /* an exception is pending: the result is ignored */
} call;

static const napi_type_tag ENGINE_TAG = {0x746f72706f722d64ull, 0x746c73206e6f6465ull};
static const napi_type_tag SERVER_TAG = {0x746f72706f722d73ull, 0x6572766572206e6full};

static call enter(napi_env env, napi_callback_info info)
{
    call c = {.env = env, .argc = ARGUMENTS_MAX};
    if (napi_get_cb_info(env, info, &c.argc, c.argv, &c.self, NULL) != napi_ok) {
        c.failed = 1;
    }
    return c;
}

static void reject(call *c, const char *message)
{
    if (!c->failed) {
        c->failed = 1;
        napi_throw_type_error(c->env, NULL, message);
    }
}

/* The bytes of an ArrayBuffer or of a view on one; one that is detached is refused, as in XS. */
static uint8_t *bytes_of(call *c, size_t index, size_t *length)
{
    static uint8_t none[1];
    napi_value value = c->argv[index], buffer = value;
    bool is, detached = false;
    void *data = NULL;

    *length = 0;
    if (index >= c->argc) {
        reject(c, "expected bytes");
    } else if (napi_is_typedarray(c->env, value, &is) == napi_ok && is) {
        napi_typedarray_type type;
        if (napi_get_typedarray_info(c->env, value, &type, length, &data, &buffer, NULL) != napi_ok ||
            (type != napi_uint8_array && type != napi_uint8_clamped_array)) {
            *length = 0;
            reject(c, "expected a Uint8Array");
        }
    } else if (napi_is_arraybuffer(c->env, value, &is) == napi_ok && is) {
        if (napi_get_arraybuffer_info(c->env, value, &data, length) != napi_ok) {
            *length = 0;
            reject(c, "expected bytes");
        }
    } else {
        reject(c, "expected bytes");
    }
    if (!c->failed && (napi_is_detached_arraybuffer(c->env, buffer, &detached) != napi_ok || detached)) {
        *length = 0;
        reject(c, "expected bytes, not a detached buffer");
    }
    return data == NULL || *length == 0 ? none : data;
}

/* Bytes that may be undefined: none then. */
static const uint8_t *optional_bytes_of(call *c, size_t index, size_t *length)
{
    napi_valuetype type = napi_undefined;
    *length = 0;
    if (index < c->argc) {
        napi_typeof(c->env, c->argv[index], &type);
    }
    return type == napi_undefined ? (const uint8_t *) "" : bytes_of(c, index, length);
}

static double number_of(call *c, size_t index, double max)
{
    double value = 0;
    if (index >= c->argc || napi_get_value_double(c->env, c->argv[index], &value) != napi_ok) {
        reject(c, "expected a number");
        return 0;
    }
    if (!(value >= 0 && value <= max)) {
        reject(c, "number out of range");
        return 0;
    }
    return value;
}

#define MS_MAX 9007199254740991.0 /* 2^53 - 1 */

static uint32_t uint32_of(call *c, size_t index)
{
    return (uint32_t) number_of(c, index, 4294967295.0);
}

static uint64_t time_of(call *c, size_t index)
{
    return (uint64_t) number_of(c, index, MS_MAX);
}

static int string_of(call *c, size_t index, char *out, size_t size)
{
    size_t length = 0;
    if (index >= c->argc || napi_get_value_string_utf8(c->env, c->argv[index], NULL, 0, &length) != napi_ok ||
        length >= size) {
        reject(c, "expected a short string");
        return -1;
    }
    napi_get_value_string_utf8(c->env, c->argv[index], out, size, &length);
    if (strlen(out) != length) {
        reject(c, "expected a string without NUL");
        return -1;
    }
    return 0;
}

static napi_value result(call *c, double value)
{
    napi_value out = NULL;
    if (!c->failed) {
        napi_create_double(c->env, value, &out);
    }
    return out;
}

/* A length where `ret` is 0, else the error. */
static napi_value result_length(call *c, int ret, size_t length)
{
    return result(c, ret == 0 ? (double) length : (double) ret);
}

#define FUNCTION(name)                                                       \
    static napi_value name##_(call *c);                                      \
    static napi_value export_##name(napi_env env, napi_callback_info info)   \
    {                                                                        \
        call c = enter(env, info);                                           \
        return name##_(&c);                                                  \
    }                                                                        \
    static napi_value name##_(call *c)

/* ---- crypto ---- */

FUNCTION(torpor_crypto_version)
{
    napi_value out = NULL;
    napi_create_string_utf8(c->env, torpor_crypto_version(), NAPI_AUTO_LENGTH, &out);
    return out;
}

FUNCTION(torpor_dtls_library)
{
    napi_value out = NULL;
    napi_create_string_utf8(c->env, torpor_dtls_library(), NAPI_AUTO_LENGTH, &out);
    return out;
}

FUNCTION(torpor_keys_open)
{
    char path[1100];
    if (string_of(c, 0, path, sizeof(path)) != 0) {
        return NULL;
    }
    return result(c, torpor_its_open(path));
}

FUNCTION(torpor_heap_peak)
{
    return result(c, (double) torpor_heap_figures().peak);
}

FUNCTION(torpor_heap_now)
{
    return result(c, (double) torpor_heap_figures().now);
}

FUNCTION(torpor_heap_limit)
{
    uint32_t limit = uint32_of(c, 0);
    if (!c->failed) {
        torpor_heap_limit(limit);
        torpor_heap_reset_peak();
    }
    return result(c, 0);
}

FUNCTION(torpor_random)
{
    size_t length;
    uint8_t *out = bytes_of(c, 0, &length);
    return c->failed ? NULL : result(c, torpor_random(out, length));
}

FUNCTION(torpor_sha256)
{
    size_t length, size;
    const uint8_t *in = bytes_of(c, 0, &length);
    uint8_t *out = bytes_of(c, 1, &size);
    if (size != 32) {
        reject(c, "a SHA-256 hash has 32 bytes");
    }
    return c->failed ? NULL : result(c, torpor_sha256(in, length, out));
}

FUNCTION(torpor_differ)
{
    size_t length, other_length;
    const uint8_t *one = bytes_of(c, 0, &length), *other = bytes_of(c, 1, &other_length);
    return c->failed ? NULL : result(c, length != other_length || memcmp(one, other, length) != 0);
}

FUNCTION(torpor_crc32)
{
    size_t length;
    const uint8_t *in = bytes_of(c, 0, &length);
    uint32_t start = uint32_of(c, 1), end = uint32_of(c, 2), initial = uint32_of(c, 3);
    if (!c->failed && (start > end || end > length)) {
        reject(c, "a range of the bytes is needed");
    }
    return c->failed ? NULL : result(c, torpor_crc32(in + start, end - start, initial));
}

FUNCTION(torpor_key_generate)
{
    uint32_t key = 0, id = uint32_of(c, 0), bits = uint32_of(c, 1);
    int ret = c->failed ? 0 : torpor_key_generate(id, bits, &key);
    return result_length(c, ret, key);
}

FUNCTION(torpor_key_import)
{
    size_t length;
    uint32_t key = 0, id = uint32_of(c, 0);
    const uint8_t *der = bytes_of(c, 1, &length);
    int ret = c->failed ? 0 : torpor_key_import(id, der, length, &key);
    return result_length(c, ret, key);
}

FUNCTION(torpor_key_check)
{
    uint32_t key = uint32_of(c, 0);
    return c->failed ? NULL : result(c, torpor_key_check(key));
}

FUNCTION(torpor_key_public)
{
    size_t size, length = 0;
    uint32_t key = uint32_of(c, 0);
    uint8_t *out = bytes_of(c, 1, &size);
    int ret = c->failed ? 0 : torpor_key_public(key, out, size, &length);
    return result_length(c, ret, length);
}

FUNCTION(torpor_key_sign)
{
    size_t hash_length, size, length = 0;
    uint32_t key = uint32_of(c, 0);
    const uint8_t *hash = bytes_of(c, 1, &hash_length);
    uint8_t *out = bytes_of(c, 2, &size);
    int ret = c->failed ? 0 : torpor_key_sign(key, hash, hash_length, out, size, &length);
    return result_length(c, ret, length);
}

FUNCTION(torpor_key_destroy)
{
    uint32_t key = uint32_of(c, 0);
    return c->failed ? NULL : result(c, torpor_key_destroy(key));
}

FUNCTION(torpor_csr)
{
    size_t subject_length, attributes_length, size, length = 0;
    uint32_t key = uint32_of(c, 0);
    const uint8_t *subject = bytes_of(c, 1, &subject_length);
    const uint8_t *attributes = bytes_of(c, 2, &attributes_length);
    uint8_t *out = bytes_of(c, 3, &size);
    int ret = c->failed ? 0
                        : torpor_csr(key, subject, subject_length, attributes, attributes_length, out, size, &length);
    return result_length(c, ret, length);
}

FUNCTION(torpor_chain_verify)
{
    size_t chain_length, anchors_length;
    const uint8_t *chain = bytes_of(c, 0, &chain_length);
    const uint8_t *anchors = bytes_of(c, 1, &anchors_length);
    return c->failed ? NULL : result(c, torpor_chain_verify(chain, chain_length, anchors, anchors_length));
}

FUNCTION(torpor_seal_key)
{
    uint32_t key = 0;
    int ret = torpor_seal_key(&key);
    return result_length(c, ret, key);
}

FUNCTION(torpor_seal)
{
    size_t associated_length, length, size;
    uint32_t key = uint32_of(c, 0);
    const uint8_t *associated = bytes_of(c, 1, &associated_length);
    const uint8_t *in = bytes_of(c, 2, &length);
    uint8_t *out = bytes_of(c, 3, &size);
    return c->failed ? NULL : result(c, torpor_seal(key, associated, associated_length, in, length, out, size));
}

FUNCTION(torpor_unseal)
{
    size_t associated_length, length, size;
    uint32_t key = uint32_of(c, 0);
    const uint8_t *associated = bytes_of(c, 1, &associated_length);
    const uint8_t *in = bytes_of(c, 2, &length);
    uint8_t *out = bytes_of(c, 3, &size);
    return c->failed ? NULL : result(c, torpor_unseal(key, associated, associated_length, in, length, out, size));
}

/* ---- objects that wrap a pointer of the core ---- */

/* Holds the pointer; freeing by hand empties the box, the finalizer frees what is left. */
typedef struct {
    void *pointer;
} box;

static void finalize_engine(napi_env env, void *data, void *hint)
{
    (void) env;
    (void) hint;
    torpor_dtls_free(((box *) data)->pointer);
    free(data);
}

static void finalize_server(napi_env env, void *data, void *hint)
{
    (void) env;
    (void) hint;
    torpor_dtls_server_release(((box *) data)->pointer);
    free(data);
}

static int wrap(call *c, void *pointer, napi_finalize finalize, const napi_type_tag *tag)
{
    box *b = malloc(sizeof(*b));
    if (b == NULL) {
        reject(c, "no memory");
        return -1;
    }
    b->pointer = pointer;
    if (napi_type_tag_object(c->env, c->self, tag) != napi_ok ||
        napi_wrap(c->env, c->self, b, finalize, NULL, NULL) != napi_ok) {
        free(b);
        reject(c, "this object holds something already");
        return -1;
    }
    return 0;
}

static box *box_of(call *c, napi_value value, const napi_type_tag *tag)
{
    bool is = false;
    box *b = NULL;
    if (c->failed) {
        return NULL;
    }
    if (napi_check_object_type_tag(c->env, value, tag, &is) != napi_ok || !is ||
        napi_unwrap(c->env, value, (void **) &b) != napi_ok || b->pointer == NULL) {
        reject(c, "not an open object of this kind");
        return NULL;
    }
    return b;
}

static torpor_dtls *engine_of(call *c)
{
    box *b = box_of(c, c->self, &ENGINE_TAG);
    return b == NULL ? NULL : b->pointer;
}

static torpor_dtls_server *server_of(call *c, napi_value value)
{
    box *b = box_of(c, value, &SERVER_TAG);
    return b == NULL ? NULL : b->pointer;
}

/* ---- engine ---- */

FUNCTION(torpor_dtls_create)
{
    torpor_dtls *d;
    int ret = torpor_dtls_new(&d);
    if (ret == 0 && wrap(c, d, finalize_engine, &ENGINE_TAG) != 0) {
        torpor_dtls_free(d);
    }
    return result(c, ret);
}

FUNCTION(torpor_dtls_free)
{
    box *b = box_of(c, c->self, &ENGINE_TAG);
    if (b != NULL) {
        torpor_dtls_free(b->pointer);
        b->pointer = NULL;
    }
    return result(c, 0);
}

FUNCTION(torpor_dtls_trust)
{
    size_t length;
    torpor_dtls *d = engine_of(c);
    const uint8_t *der = bytes_of(c, 0, &length);
    return c->failed ? NULL : result(c, torpor_dtls_trust(d, der, length));
}

FUNCTION(torpor_dtls_identity)
{
    size_t length;
    torpor_dtls *d = engine_of(c);
    uint32_t key = uint32_of(c, 0);
    const uint8_t *der = bytes_of(c, 1, &length);
    return c->failed ? NULL : result(c, torpor_dtls_identity(d, key, der, length));
}

FUNCTION(torpor_dtls_server_name)
{
    char name[257];
    torpor_dtls *d = engine_of(c);
    return string_of(c, 0, name, sizeof(name)) != 0 || c->failed ? NULL : result(c, torpor_dtls_server_name(d, name));
}

FUNCTION(torpor_dtls_server_address)
{
    size_t length;
    torpor_dtls *d = engine_of(c);
    const uint8_t *address = bytes_of(c, 0, &length);
    return c->failed ? NULL : result(c, torpor_dtls_server_address(d, address, length));
}

FUNCTION(torpor_dtls_mtu)
{
    torpor_dtls *d = engine_of(c);
    uint32_t bytes = uint32_of(c, 0);
    return c->failed ? NULL : result(c, torpor_dtls_mtu(d, bytes));
}

FUNCTION(torpor_dtls_timers)
{
    torpor_dtls *d = engine_of(c);
    uint32_t first = uint32_of(c, 0), patience = uint32_of(c, 1);
    return c->failed ? NULL : result(c, torpor_dtls_timers(d, first, patience));
}

FUNCTION(torpor_dtls_offer_tickets)
{
    torpor_dtls *d = engine_of(c);
    if (!c->failed) {
        torpor_dtls_offer_tickets(d);
    }
    return result(c, 0);
}

FUNCTION(torpor_dtls_start)
{
    size_t length;
    torpor_dtls *d = engine_of(c);
    uint64_t now = time_of(c, 0), unix_time = time_of(c, 1);
    const uint8_t *session = optional_bytes_of(c, 2, &length);
    return c->failed ? NULL : result(c, torpor_dtls_start(d, now, unix_time, session, length));
}

FUNCTION(torpor_dtls_receive)
{
    size_t length;
    torpor_dtls *d = engine_of(c);
    uint64_t now = time_of(c, 0);
    const uint8_t *datagram = bytes_of(c, 1, &length);
    return c->failed ? NULL : result(c, torpor_dtls_receive(d, now, datagram, length));
}

FUNCTION(torpor_dtls_elapse)
{
    torpor_dtls *d = engine_of(c);
    uint64_t now = time_of(c, 0);
    return c->failed ? NULL : result(c, torpor_dtls_elapse(d, now));
}

FUNCTION(torpor_dtls_deadline)
{
    torpor_dtls *d = engine_of(c);
    uint64_t deadline = c->failed ? 0 : torpor_dtls_deadline(d);
    return result(c, deadline == TORPOR_DTLS_NEVER ? -1 : (double) deadline);
}

FUNCTION(torpor_dtls_pending)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, (double) torpor_dtls_pending(d));
}

FUNCTION(torpor_dtls_take)
{
    size_t size;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    return c->failed ? NULL : result(c, torpor_dtls_take(d, out, size));
}

FUNCTION(torpor_dtls_read)
{
    size_t size;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    return c->failed ? NULL : result(c, torpor_dtls_read(d, out, size));
}

FUNCTION(torpor_dtls_readable)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, (double) torpor_dtls_readable(d));
}

FUNCTION(torpor_dtls_write)
{
    size_t length;
    torpor_dtls *d = engine_of(c);
    const uint8_t *message = bytes_of(c, 0, &length);
    return c->failed ? NULL : result(c, torpor_dtls_write(d, message, length));
}

FUNCTION(torpor_dtls_close)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_close(d));
}

FUNCTION(torpor_dtls_state)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_state(d));
}

FUNCTION(torpor_dtls_failure_kind)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_failure(d).kind);
}

FUNCTION(torpor_dtls_failure_detail)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_failure(d).detail);
}

FUNCTION(torpor_dtls_cipher_suite)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_cipher_suite(d));
}

FUNCTION(torpor_dtls_version)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_version(d));
}

FUNCTION(torpor_dtls_group)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_group(d));
}

FUNCTION(torpor_dtls_tickets)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_tickets(d));
}

FUNCTION(torpor_dtls_versions)
{
    torpor_dtls *d = engine_of(c);
    uint32_t lowest = uint32_of(c, 0), highest = uint32_of(c, 1);
    return c->failed ? NULL : result(c, torpor_dtls_versions(d, lowest, highest));
}

/* The groups as bytes, two for each number, the high one first. */
FUNCTION(torpor_dtls_groups)
{
    size_t length;
    uint16_t groups[TORPOR_DTLS_GROUPS_MAX];
    torpor_dtls *d = engine_of(c);
    const uint8_t *bytes = bytes_of(c, 0, &length);
    size_t count = length / 2;

    if (c->failed) {
        return NULL;
    }
    for (size_t i = 0; i < count && i < TORPOR_DTLS_GROUPS_MAX; i++) {
        groups[i] = (uint16_t) (bytes[2 * i] << 8 | bytes[2 * i + 1]);
    }
    return result(c, torpor_dtls_groups(d, groups, count));
}

FUNCTION(torpor_dtls_resume_by_psk_alone)
{
    torpor_dtls *d = engine_of(c);
    if (!c->failed) {
        torpor_dtls_resume_by_psk_alone(d);
    }
    return result(c, 0);
}

FUNCTION(torpor_dtls_resumed)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_resumed(d));
}

FUNCTION(torpor_dtls_time_checked)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_time_checked(d));
}

FUNCTION(torpor_dtls_session)
{
    size_t size, length = 0;
    torpor_dtls_session_info info;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    int ret = c->failed ? 0 : torpor_dtls_session(d, size == 0 ? NULL : out, size, &length, &info);
    return result_length(c, ret, length);
}

FUNCTION(torpor_dtls_session_kind)
{
    size_t length;
    torpor_dtls_session_info info = {0, 0};
    torpor_dtls *d = engine_of(c);
    if (!c->failed) {
        (void) torpor_dtls_session(d, NULL, 0, &length, &info);
    }
    return result(c, info.kind);
}

FUNCTION(torpor_dtls_session_lifetime)
{
    size_t length;
    torpor_dtls_session_info info = {0, 0};
    torpor_dtls *d = engine_of(c);
    if (!c->failed) {
        (void) torpor_dtls_session(d, NULL, 0, &length, &info);
    }
    return result(c, info.lifetime);
}

FUNCTION(torpor_dtls_unique)
{
    size_t size;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    if (size != TORPOR_DTLS_UNIQUE_MAX) {
        reject(c, "expected room for a channel binding");
    }
    return c->failed ? NULL : result(c, torpor_dtls_unique(d, out));
}

FUNCTION(torpor_dtls_keep_chain)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_keep_chain(d));
}

FUNCTION(torpor_dtls_chain)
{
    size_t size;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    return c->failed ? NULL : result(c, torpor_dtls_chain(d, out, size));
}

FUNCTION(torpor_dtls_offer_connection_id)
{
    torpor_dtls *d = engine_of(c);
    uint32_t length = uint32_of(c, 0);
    return c->failed ? NULL : result(c, torpor_dtls_offer_connection_id(d, length));
}

FUNCTION(torpor_dtls_restore)
{
    size_t length;
    torpor_dtls *d = engine_of(c);
    uint64_t now = time_of(c, 0), unix_time = time_of(c, 1);
    const uint8_t *context = bytes_of(c, 2, &length);
    return c->failed ? NULL : result(c, torpor_dtls_restore(d, now, unix_time, context, length));
}

FUNCTION(torpor_dtls_drop_ticket)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_drop_ticket(d));
}

FUNCTION(torpor_dtls_has_connection_id)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, torpor_dtls_has_connection_id(d));
}

FUNCTION(torpor_dtls_context)
{
    size_t size, length = 0;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    int ret = c->failed ? 0 : torpor_dtls_context(d, size == 0 ? NULL : out, size, &length);
    return result_length(c, ret, length);
}

FUNCTION(torpor_dtls_overhead)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, (double) torpor_dtls_overhead(d));
}

FUNCTION(torpor_dtls_highest)
{
    torpor_dtls *d = engine_of(c);
    return c->failed ? NULL : result(c, (double) torpor_dtls_highest(d));
}

FUNCTION(torpor_dtls_build)
{
    return result(c, torpor_dtls_build());
}

/* ---- server role ---- */

FUNCTION(torpor_dtls_server_create)
{
    torpor_dtls_server *s;
    int ret = torpor_dtls_server_new(&s);
    if (ret == 0 && wrap(c, s, finalize_server, &SERVER_TAG) != 0) {
        torpor_dtls_server_release(s);
    }
    return result(c, ret);
}

FUNCTION(torpor_dtls_server_free)
{
    box *b = box_of(c, c->self, &SERVER_TAG);
    if (b != NULL) {
        torpor_dtls_server_release(b->pointer);
        b->pointer = NULL;
    }
    return result(c, 0);
}

FUNCTION(torpor_dtls_server_trust)
{
    size_t length;
    torpor_dtls_server *s = server_of(c, c->self);
    const uint8_t *der = bytes_of(c, 0, &length);
    return c->failed ? NULL : result(c, torpor_dtls_server_trust(s, der, length));
}

FUNCTION(torpor_dtls_server_identity)
{
    size_t length;
    torpor_dtls_server *s = server_of(c, c->self);
    uint32_t key = uint32_of(c, 0);
    const uint8_t *der = bytes_of(c, 1, &length);
    return c->failed ? NULL : result(c, torpor_dtls_server_identity(s, key, der, length));
}

FUNCTION(torpor_dtls_server_options)
{
    torpor_dtls_server *s = server_of(c, c->self);
    uint32_t options = uint32_of(c, 0);
    return c->failed ? NULL : result(c, torpor_dtls_server_options(s, options));
}

/* `this` becomes the association; arguments: server, now, unix time, peer. */
FUNCTION(torpor_dtls_server_accept)
{
    size_t length;
    torpor_dtls *d = NULL;
    torpor_dtls_server *s = c->argc > 0 ? server_of(c, c->argv[0]) : NULL;
    uint64_t now = time_of(c, 1), unix_time = time_of(c, 2);
    const uint8_t *peer = bytes_of(c, 3, &length);
    int ret;

    if (c->failed) {
        return NULL;
    }
    ret = torpor_dtls_server_accept(s, now, unix_time, peer, length, &d);
    if (ret == 0 && wrap(c, d, finalize_engine, &ENGINE_TAG) != 0) {
        torpor_dtls_free(d);
    }
    return result(c, ret);
}

FUNCTION(torpor_dtls_server_peer_digest)
{
    size_t size;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    if (size != 32) {
        reject(c, "a SHA-256 hash has 32 bytes");
    }
    return c->failed ? NULL : result(c, torpor_dtls_server_peer_digest(d, out));
}

FUNCTION(torpor_dtls_server_peer_certificate)
{
    size_t size;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    return c->failed ? NULL : result(c, torpor_dtls_server_peer_certificate(d, out, size));
}

FUNCTION(torpor_dtls_server_connection_id)
{
    size_t size;
    torpor_dtls *d = engine_of(c);
    uint8_t *out = bytes_of(c, 0, &size);
    if (size != TORPOR_DTLS_SERVER_CID_BYTES) {
        reject(c, "expected room for a connection ID");
    }
    return c->failed ? NULL : result(c, torpor_dtls_server_connection_id(d, out));
}

FUNCTION(torpor_dtls_server_record_keys)
{
    size_t size;
    torpor_dtls *d = engine_of(c);
    uint32_t epoch = uint32_of(c, 0);
    uint8_t *out = bytes_of(c, 1, &size);
    if (size != TORPOR_DTLS_SERVER_RECORD_KEYS_BYTES) {
        reject(c, "expected room for the keys of an epoch");
    }
    return c->failed ? NULL : result(c, torpor_dtls_server_record_keys(d, epoch, out));
}

/* ---- module ---- */

/* PSA's keys and its storage folder are global to the process: one environment owns them. */
static atomic_flag owned = ATOMIC_FLAG_INIT;

static void leave(void *data)
{
    (void) data;
    torpor_crypto_close();
    torpor_its_close();
    atomic_flag_clear(&owned);
}

#define EXPORT(name) {"xs_" #name, export_##name}
static const struct {
    const char *name;
    napi_callback function;
} EXPORTS[] = {
    EXPORT(torpor_crypto_version),
    EXPORT(torpor_keys_open),
    EXPORT(torpor_heap_peak),
    EXPORT(torpor_heap_now),
    EXPORT(torpor_heap_limit),
    EXPORT(torpor_random),
    EXPORT(torpor_sha256),
    EXPORT(torpor_differ),
    EXPORT(torpor_crc32),
    EXPORT(torpor_key_generate),
    EXPORT(torpor_key_import),
    EXPORT(torpor_key_check),
    EXPORT(torpor_key_public),
    EXPORT(torpor_key_sign),
    EXPORT(torpor_key_destroy),
    EXPORT(torpor_csr),
    EXPORT(torpor_chain_verify),
    EXPORT(torpor_dtls_create),
    EXPORT(torpor_dtls_free),
    EXPORT(torpor_dtls_trust),
    EXPORT(torpor_dtls_identity),
    EXPORT(torpor_dtls_server_name),
    EXPORT(torpor_dtls_server_address),
    EXPORT(torpor_dtls_mtu),
    EXPORT(torpor_dtls_timers),
    EXPORT(torpor_dtls_offer_tickets),
    EXPORT(torpor_dtls_start),
    EXPORT(torpor_dtls_receive),
    EXPORT(torpor_dtls_elapse),
    EXPORT(torpor_dtls_deadline),
    EXPORT(torpor_dtls_pending),
    EXPORT(torpor_dtls_take),
    EXPORT(torpor_dtls_read),
    EXPORT(torpor_dtls_readable),
    EXPORT(torpor_dtls_write),
    EXPORT(torpor_dtls_close),
    EXPORT(torpor_dtls_state),
    EXPORT(torpor_dtls_failure_kind),
    EXPORT(torpor_dtls_failure_detail),
    EXPORT(torpor_dtls_cipher_suite),
    EXPORT(torpor_dtls_library),
    EXPORT(torpor_dtls_version),
    EXPORT(torpor_dtls_group),
    EXPORT(torpor_dtls_tickets),
    EXPORT(torpor_dtls_versions),
    EXPORT(torpor_dtls_groups),
    EXPORT(torpor_dtls_resume_by_psk_alone),
    EXPORT(torpor_dtls_resumed),
    EXPORT(torpor_dtls_time_checked),
    EXPORT(torpor_dtls_session),
    EXPORT(torpor_dtls_session_kind),
    EXPORT(torpor_dtls_session_lifetime),
    EXPORT(torpor_dtls_unique),
    EXPORT(torpor_dtls_keep_chain),
    EXPORT(torpor_dtls_chain),
    EXPORT(torpor_dtls_offer_connection_id),
    EXPORT(torpor_dtls_restore),
    EXPORT(torpor_dtls_drop_ticket),
    EXPORT(torpor_dtls_has_connection_id),
    EXPORT(torpor_dtls_context),
    EXPORT(torpor_dtls_overhead),
    EXPORT(torpor_dtls_highest),
    EXPORT(torpor_dtls_build),
    EXPORT(torpor_seal),
    EXPORT(torpor_unseal),
    EXPORT(torpor_seal_key),
    EXPORT(torpor_dtls_server_create),
    EXPORT(torpor_dtls_server_free),
    EXPORT(torpor_dtls_server_trust),
    EXPORT(torpor_dtls_server_identity),
    EXPORT(torpor_dtls_server_options),
    EXPORT(torpor_dtls_server_accept),
    EXPORT(torpor_dtls_server_peer_digest),
    EXPORT(torpor_dtls_server_peer_certificate),
    EXPORT(torpor_dtls_server_connection_id),
    EXPORT(torpor_dtls_server_record_keys),
};

NAPI_MODULE_INIT()
{
    if (atomic_flag_test_and_set(&owned)) {
        napi_throw_error(env, "ERR_TORPOR_SECOND_ENVIRONMENT",
                         "Torpor's keys are global to the process and belong to another Node.js environment: use one "
                         "process for each device, not worker threads");
        return NULL;
    }
    if (torpor_crypto_open() != 0) {
        atomic_flag_clear(&owned);
        napi_throw_error(env, "ERR_TORPOR_CRYPTO", "PSA Crypto does not start: no entropy or no memory");
        return NULL;
    }
    napi_add_env_cleanup_hook(env, leave, NULL);
    for (size_t i = 0; i < sizeof(EXPORTS) / sizeof(EXPORTS[0]); i++) {
        napi_value function;
        if (napi_create_function(env, EXPORTS[i].name, NAPI_AUTO_LENGTH, EXPORTS[i].function, NULL, &function) !=
                napi_ok ||
            napi_set_named_property(env, exports, EXPORTS[i].name, function) != napi_ok) {
            napi_throw_error(env, NULL, "cannot export the functions of the core");
            return NULL;
        }
    }
    return exports;
}
