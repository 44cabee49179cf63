/* What the fuzzers need of mbedTLS: see engine.h. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "../../../src/dtls/internal.h"

/* The library's own, from a header that is not installed. */
int mbedtls_ssl_write_record(mbedtls_ssl_context *ssl, int force_flush);

int engine_send(torpor_dtls *d, engine_keys keys, uint8_t type, const uint8_t *content, size_t length)
{
    mbedtls_ssl_context *ssl = &d->ssl;

    if (keys != ENGINE_NEWEST_KEYS || torpor_dtls_state(d) != TORPOR_DTLS_OPEN ||
        length > (size_t) mbedtls_ssl_get_max_out_record_payload(ssl)) {
        return TORPOR_DTLS_ERR_SIZE;
    }
    ssl->MBEDTLS_PRIVATE(out_msgtype) = type;
    ssl->MBEDTLS_PRIVATE(out_msglen) = length;
    if (length > 0) {
        memcpy(ssl->MBEDTLS_PRIVATE(out_msg), content, length);
    }
    return mbedtls_ssl_write_record(ssl, 1) == MBEDTLS_ERR_SSL_WANT_WRITE ? 0 : TORPOR_DTLS_ERR_STATE;
}

unsigned engine_next_message(const torpor_dtls *d)
{
    (void) d;
    return 0; /* a HelloRequest begins another handshake */
}

int engine_update_keys(torpor_dtls *d)
{
    (void) d;
    return TORPOR_DTLS_ERR_SUPPORT;
}

struct engine_mark {
    unsigned char number[sizeof(((mbedtls_ssl_context *) 0)->MBEDTLS_PRIVATE(cur_out_ctr))];
};

engine_mark *engine_take_mark(const torpor_dtls *d)
{
    engine_mark *mark = malloc(sizeof(*mark));

    if (mark != NULL) {
        memcpy(mark->number, d->ssl.MBEDTLS_PRIVATE(cur_out_ctr), sizeof(mark->number));
    }
    return mark;
}

void engine_go_back(torpor_dtls *d, const engine_mark *mark)
{
    memcpy(d->ssl.MBEDTLS_PRIVATE(cur_out_ctr), mark->number, sizeof(mark->number));
}

void engine_watch(void (*seen)(const uint8_t *message, size_t length))
{
    (void) seen;
}
