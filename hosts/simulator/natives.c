/* `native` and `Native` for the simulator: see natives.h. */
#include "natives.h"

#include "xs.h"
#include "host.h"

/* Each name once: the functions that `native` gives. */
#define FUNCTIONS(F)                  \
    F(xs_torpor_crypto_version)       \
    F(xs_torpor_random)               \
    F(xs_torpor_sha256)               \
    F(xs_torpor_differ)               \
    F(xs_torpor_crc32)                \
    F(xs_torpor_key_generate)         \
    F(xs_torpor_key_import)           \
    F(xs_torpor_key_check)            \
    F(xs_torpor_key_public)           \
    F(xs_torpor_key_sign)             \
    F(xs_torpor_key_destroy)          \
    F(xs_torpor_csr)                  \
    F(xs_torpor_chain_verify)         \
    F(xs_torpor_dtls_create)          \
    F(xs_torpor_dtls_free)            \
    F(xs_torpor_dtls_trust)           \
    F(xs_torpor_dtls_identity)        \
    F(xs_torpor_dtls_server_name)     \
    F(xs_torpor_dtls_server_address)  \
    F(xs_torpor_dtls_mtu)             \
    F(xs_torpor_dtls_timers)          \
    F(xs_torpor_dtls_offer_tickets)   \
    F(xs_torpor_dtls_start)           \
    F(xs_torpor_dtls_receive)         \
    F(xs_torpor_dtls_elapse)          \
    F(xs_torpor_dtls_deadline)        \
    F(xs_torpor_dtls_pending)         \
    F(xs_torpor_dtls_take)            \
    F(xs_torpor_dtls_read)            \
    F(xs_torpor_dtls_readable)        \
    F(xs_torpor_dtls_write)           \
    F(xs_torpor_dtls_close)           \
    F(xs_torpor_dtls_state)           \
    F(xs_torpor_dtls_failure_kind)    \
    F(xs_torpor_dtls_failure_detail)  \
    F(xs_torpor_dtls_cipher_suite)    \
    F(xs_torpor_dtls_library)         \
    F(xs_torpor_dtls_version)         \
    F(xs_torpor_dtls_group)           \
    F(xs_torpor_dtls_tickets)         \
    F(xs_torpor_dtls_versions)        \
    F(xs_torpor_dtls_groups)          \
    F(xs_torpor_dtls_resume_by_psk_alone) \
    F(xs_torpor_dtls_resumed)         \
    F(xs_torpor_dtls_time_checked)    \
    F(xs_torpor_dtls_session)         \
    F(xs_torpor_dtls_session_kind)    \
    F(xs_torpor_dtls_session_lifetime) \
    F(xs_torpor_dtls_unique)          \
    F(xs_torpor_dtls_keep_chain)      \
    F(xs_torpor_dtls_chain)           \
    F(xs_torpor_dtls_offer_connection_id) \
    F(xs_torpor_dtls_restore)         \
    F(xs_torpor_dtls_drop_ticket)     \
    F(xs_torpor_dtls_has_connection_id) \
    F(xs_torpor_dtls_context)         \
    F(xs_torpor_dtls_overhead)        \
    F(xs_torpor_dtls_highest)         \
    F(xs_torpor_dtls_build)           \
    F(xs_torpor_seal)                 \
    F(xs_torpor_unseal)               \
    F(xs_torpor_seal_key)             \
    F(xs_host_trace)                  \
    F(xs_host_report)                 \
    F(xs_host_answer)                 \
    F(xs_host_option)                 \
    F(xs_host_file)                   \
    F(xs_host_heap)                   \
    F(xs_host_ticks)                  \
    F(xs_host_cpu)                    \
    F(xs_host_timer_set)              \
    F(xs_host_timer_schedule)         \
    F(xs_host_timer_clear)            \
    F(xs_host_udp_create)             \
    F(xs_host_udp_write)              \
    F(xs_host_udp_read)               \
    F(xs_host_udp_close)              \
    F(xs_host_store_read)             \
    F(xs_host_store_write)            \
    F(xs_host_store_delete)           \
    F(xs_host_store_key)              \
    F(xs_host_retained)               \
    F(xs_host_sleep_get)              \
    F(xs_host_sleep_set)              \
    F(xs_host_sleep_reason)           \
    F(xs_host_sleep_deep)

/* And the destructors of the classes that `Native` gives. */
#define CLASSES(C)               \
    C(xs_torpor_dtls_destructor) \
    C(xs_host_udp_destructor)

#define DECLARE(name) extern void name(xsMachine *the);
FUNCTIONS(DECLARE)
#define DECLARE_DESTRUCTOR(name) extern void name(void *data);
CLASSES(DECLARE_DESTRUCTOR)

typedef struct {
    char *name;
    xsCallback callback;
} entry;

#define ENTRY(name) {#name, name},
static const entry ENTRIES[] = {FUNCTIONS(ENTRY)};

/* `super()` of a class that extends Native: an object with the derived class's prototype and room for C's pointer. */
static void construct(xsMachine *the, xsDestructor destructor)
{
    txSlot *prototype;

    if (mxTarget->kind != XS_REFERENCE_KIND) {
        xsTypeError("a class is called without new");
    }
    mxPushSlot(mxTarget);
    mxGetID(mxID(_prototype));
    prototype = the->stack;
    fxNewHostObject(the, destructor);
    /* XS 13 takes a host object without a length of its own for a buffer of as many bytes as its byteLength says. */
    xsSetHostBuffer(*(xsSlot *) the->stack, NULL, 0);
    if (prototype->kind == XS_REFERENCE_KIND) {
        the->stack->value.reference->value.instance.prototype = prototype->value.reference;
    }
    mxPullSlot(mxResult);
    mxPop();
}

#define CONSTRUCTOR(name)                        \
    static void construct_##name(xsMachine *the) \
    {                                            \
        construct(the, name);                    \
    }
CLASSES(CONSTRUCTOR)

#define CLASS_ENTRY(name) {#name, construct_##name},
static const entry CLASS_ENTRIES[] = {CLASSES(CLASS_ENTRY)};

/* What was made for a name at installation: no call makes anything anew, as none does on a device. */
static void look_up(xsMachine *the, char *table)
{
    xsVars(1);
    xsVar(0) = xsGet(xsGlobal, xsID(table));
    xsResult = xsGet(xsVar(0), xsID(xsToString(xsArg(0))));
    if (!xsTest(xsResult)) {
        xsReferenceError("the simulator has no %s", xsToString(xsArg(0)));
    }
}

static void get_native(xsMachine *the)
{
    look_up(the, "#natives");
}

static void get_class(xsMachine *the)
{
    look_up(the, "#classes");
}

void natives_install(txMachine *the)
{
    xsBeginHost(the);
    {
        xsVars(3);
        xsVar(0) = xsNewObject();
        for (size_t i = 0; i < sizeof(ENTRIES) / sizeof(ENTRIES[0]); i++) {
            fxNewHostFunction(the, (txCallback) ENTRIES[i].callback, 0, xsID(ENTRIES[i].name), XS_NO_ID); /* named in traces */
            xsVar(1) = *(xsSlot *) the->stack;
            mxPop();
            xsSet(xsVar(0), xsID(ENTRIES[i].name), xsVar(1));
        }
        xsDefine(xsGlobal, xsID("#natives"), xsVar(0), xsDontEnum);
        xsVar(0) = xsNewObject();
        for (size_t i = 0; i < sizeof(CLASS_ENTRIES) / sizeof(CLASS_ENTRIES[0]); i++) {
            xsVar(2) = xsNewObject();
            xsVar(1) = xsNewHostConstructor(CLASS_ENTRIES[i].callback, 0, xsVar(2));
            xsSet(xsVar(0), xsID(CLASS_ENTRIES[i].name), xsVar(1));
        }
        xsDefine(xsGlobal, xsID("#classes"), xsVar(0), xsDontEnum);
        xsVar(0) = xsNewHostFunction(xs_host_trace, 1);
        xsDefine(xsGlobal, xsID("trace"), xsVar(0), xsDontEnum);
        xsVar(0) = xsNewHostFunction(get_native, 1);
        xsDefine(xsGlobal, xsID("native"), xsVar(0), xsDontEnum);
        xsVar(0) = xsNewHostFunction(get_class, 1);
        xsDefine(xsGlobal, xsID("Native"), xsVar(0), xsDontEnum);
    }
    xsEndHost(the);
}
