/*
 * What of dtls.h is the same over each library: how an association is set up, and what is kept of it by the names that
 * both engines have for it. The rest is in dtls.c, or in wolfssl/core.c.
 */
#if defined(TORPOR_WOLFSSL_CORE)
#include "wolfssl/core.h"
#else
#include "internal.h"
#endif

#include <string.h>

#define MTU_MIN 256
#define MTU_MAX 2048
#define TIMER_MAX 3600000u

/* ---- set up ---- */

int torpor_dtls_trust(torpor_dtls *d, const uint8_t *der, size_t length)
{
    return d->state != TORPOR_DTLS_IDLE ? TORPOR_DTLS_ERR_STATE
                                        : torpor_dtls_credentials_trust(&d->own, der, length);
}

int torpor_dtls_identity(torpor_dtls *d, uint32_t key, const uint8_t *der, size_t length)
{
    return d->state != TORPOR_DTLS_IDLE ? TORPOR_DTLS_ERR_STATE
                                        : torpor_dtls_credentials_identity(&d->own, key, der, length);
}

int torpor_dtls_mtu(torpor_dtls *d, unsigned bytes)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (bytes < MTU_MIN || bytes > MTU_MAX) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    d->mtu = (uint16_t) bytes;
    return 0;
}

int torpor_dtls_timers(torpor_dtls *d, uint32_t first, uint32_t patience)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (first == 0 || first > TIMER_MAX || patience == 0 || patience > TIMER_MAX) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    d->timer_first = first;
    d->patience = patience;
    return 0;
}

void torpor_dtls_offer_tickets(torpor_dtls *d)
{
    d->offer_tickets = 1;
}

int torpor_dtls_offer_connection_id(torpor_dtls *d, unsigned length)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (length > TORPOR_DTLS_CID_MAX) {
        return TORPOR_DTLS_ERR_FORMAT;
    }
    d->offer_cid = 1;
    d->cid_length = (uint8_t) length;
    return 0;
}

int torpor_dtls_keep_chain(torpor_dtls *d)
{
    if (d->state != TORPOR_DTLS_IDLE) {
        return TORPOR_DTLS_ERR_STATE;
    }
    d->verification.keep_chain = 1;
    return 0;
}

/* ---- look ---- */

uint64_t torpor_dtls_deadline(const torpor_dtls *d)
{
    uint64_t end;

    if (d->state == TORPOR_DTLS_OPEN) {
        return d->timer;
    }
    if (d->state != TORPOR_DTLS_HANDSHAKE) {
        return TORPOR_DTLS_NEVER;
    }
    end = d->started + d->patience;
    return d->timer < end ? d->timer : end;
}

int torpor_dtls_state(const torpor_dtls *d)
{
    return d->state;
}

torpor_dtls_failure_info torpor_dtls_failure(const torpor_dtls *d)
{
    return d->failure;
}

int torpor_dtls_resumed(const torpor_dtls *d)
{
    return d->state == TORPOR_DTLS_OPEN && !d->verification.verified;
}

int torpor_dtls_time_checked(const torpor_dtls *d)
{
    return d->verification.verified && d->verification.unix_time != 0;
}

int torpor_dtls_chain(const torpor_dtls *d, uint8_t *out, size_t size)
{
    if (d->state != TORPOR_DTLS_OPEN) {
        return TORPOR_DTLS_ERR_STATE;
    }
    if (d->verification.chain_length > 0 && size >= d->verification.chain_length) {
        memcpy(out, d->verification.chain, d->verification.chain_length);
    }
    return (int) d->verification.chain_length;
}
