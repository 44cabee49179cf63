/* What the fuzzers need of wolfSSL: see engine.h. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "../../../src/dtls/wolfssl/core.h"

/* What the library shows to its own tests it calls deprecated for others. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define RECORD_MAX 2048
/* What a record adds to its content at most: header with a connection ID, nonce, type, padding, tag. */
#define OVERHEAD_MAX 64

/* Has `d` send by the keys of an epoch (RFC 9147 section 4.2.1). */
static int use_epoch(torpor_dtls *d, w64wrapper epoch)
{
    return Dtls13SetEpochKeys(d->ssl, epoch, ENCRYPT_SIDE_ONLY) == 0 ? 0 : TORPOR_DTLS_ERR_STATE;
}

int engine_send(torpor_dtls *d, engine_keys keys, uint8_t type, const uint8_t *content, size_t length)
{
    uint8_t record[RECORD_MAX];
    int is_13 = torpor_dtls_version(d) == TORPOR_DTLS_13, made;

    if (torpor_dtls_state(d) != TORPOR_DTLS_OPEN || length > TORPOR_DTLS_MTU - OVERHEAD_MAX ||
        (keys == ENGINE_HANDSHAKE_KEYS && (!is_13 || use_epoch(d, (w64wrapper){DTLS13_EPOCH_HANDSHAKE}) != 0))) {
        return TORPOR_DTLS_ERR_SIZE;
    }
    made = BuildMessage(d->ssl, record, sizeof(record), content, (int) length, type, 0, 0, 0, CUR_ORDER);
    if (keys == ENGINE_HANDSHAKE_KEYS && use_epoch(d, d->ssl->dtls13Epoch) != 0) {
        return TORPOR_DTLS_ERR_STATE;
    }
    return made > 0 && d->ssl->CBIOSend(d->ssl, (char *) record, made, d) == made ? 0 : TORPOR_DTLS_ERR_STATE;
}

unsigned engine_next_message(const torpor_dtls *d)
{
    return d->ssl->keys.dtls_handshake_number;
}

int engine_update_keys(torpor_dtls *d)
{
    if (torpor_dtls_version(d) != TORPOR_DTLS_13) {
        return TORPOR_DTLS_ERR_SUPPORT;
    }
    if (DeriveTls13Keys(d->ssl, update_traffic_key, ENCRYPT_SIDE_ONLY, 1) != 0) {
        return TORPOR_DTLS_ERR_STATE;
    }
    d->ssl->dtls13Epoch.n++;
    return use_epoch(d, d->ssl->dtls13Epoch);
}

struct engine_mark {
    Keys keys;
    Dtls13Epoch epochs[DTLS13_EPOCH_SIZE];
    w64wrapper epoch;
    uint8_t secret[SECRET_LEN];
};

engine_mark *engine_take_mark(const torpor_dtls *d)
{
    engine_mark *mark = malloc(sizeof(*mark));

    if (mark != NULL) {
        mark->keys = d->ssl->keys;
        memcpy(mark->epochs, d->ssl->dtls13Epochs, sizeof(mark->epochs));
        mark->epoch = d->ssl->dtls13Epoch;
        memcpy(mark->secret, d->ssl->serverSecret, sizeof(mark->secret));
    }
    return mark;
}

void engine_go_back(torpor_dtls *d, const engine_mark *mark)
{
    d->ssl->keys = mark->keys;
    memcpy(d->ssl->dtls13Epochs, mark->epochs, sizeof(mark->epochs));
    d->ssl->dtls13Epoch = mark->epoch;
    memcpy(d->ssl->serverSecret, mark->secret, sizeof(mark->secret));
    if (torpor_dtls_version(d) == TORPOR_DTLS_13) {
        (void) use_epoch(d, mark->epoch);
    }
}

static void (*watcher)(const uint8_t *message, size_t length);

void engine_watch(void (*seen)(const uint8_t *message, size_t length))
{
    watcher = seen;
}

/* The linker has calls go through this one: every message of DTLS 1.3 that is to be protected. */
int __real_BuildTls13Message(WOLFSSL *ssl, byte *output, int size, const byte *input, int length, int type, int hash,
                             int size_only, int may_wait);
int __wrap_BuildTls13Message(WOLFSSL *ssl, byte *output, int size, const byte *input, int length, int type, int hash,
                             int size_only, int may_wait);
int __wrap_BuildTls13Message(WOLFSSL *ssl, byte *output, int size, const byte *input, int length, int type, int hash,
                             int size_only, int may_wait)
{
    if (watcher != NULL && ssl->options.side == WOLFSSL_SERVER_END && type == handshake && !size_only) {
        watcher(input, (size_t) length);
    }
    return __real_BuildTls13Message(ssl, output, size, input, length, type, hash, size_only, may_wait);
}
