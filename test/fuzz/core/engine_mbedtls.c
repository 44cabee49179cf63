/* What the fuzzers need of mbedTLS: see engine.h. */
#include "engine.h"

#include <string.h>

#include "../../../src/dtls/internal.h"

static uint64_t *random_state;

void engine_random(uint64_t *state)
{
    random_state = state;
}

/* The linker puts it in place of the function of this name without __wrap_ (xorshift64*). */
int __wrap_mbedtls_ctr_drbg_random(void *context, unsigned char *output, size_t length);
int __wrap_mbedtls_ctr_drbg_random(void *context, unsigned char *output, size_t length)
{
    (void) context;
    for (size_t i = 0; i < length; i++) {
        *random_state ^= *random_state >> 12;
        *random_state ^= *random_state << 25;
        *random_state ^= *random_state >> 27;
        output[i] = (uint8_t) ((*random_state * 0x2545F4914F6CDD1Du) >> 56);
    }
    return 0;
}

/* The library's own, from a header that is not installed. */
int mbedtls_ssl_write_record(mbedtls_ssl_context *ssl, int force_flush);

int engine_send(torpor_dtls *d, uint8_t type, const uint8_t *content, size_t length)
{
    mbedtls_ssl_context *ssl = &d->ssl;

    if (torpor_dtls_state(d) != TORPOR_DTLS_OPEN || length > (size_t) mbedtls_ssl_get_max_out_record_payload(ssl)) {
        return TORPOR_DTLS_ERR_SIZE;
    }
    ssl->MBEDTLS_PRIVATE(out_msgtype) = type;
    ssl->MBEDTLS_PRIVATE(out_msglen) = length;
    if (length > 0) {
        memcpy(ssl->MBEDTLS_PRIVATE(out_msg), content, length);
    }
    return mbedtls_ssl_write_record(ssl, 1) == MBEDTLS_ERR_SSL_WANT_WRITE ? 0 : TORPOR_DTLS_ERR_STATE;
}
