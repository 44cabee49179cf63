/*
 * What the fuzzers need of the library below the core, one file for each library: engine_mbedtls.c.
 */
#ifndef TORPOR_FUZZ_ENGINE_H
#define TORPOR_FUZZ_ENGINE_H

#include "../../../src/dtls/dtls.h"

/* The library's random numbers come from here, and are those of this state from now on. */
void engine_random(uint64_t *state);

/*
 * Protects one record of any type, as no honest peer would send it, to be taken. Nothing in the association changes but
 * its sequence number. 0, or a negative error: the record is too long.
 */
int engine_send(torpor_dtls *d, uint8_t type, const uint8_t *content, size_t length);

#endif
