/*
 * Memory that survives deep sleep, with a head that tells whether it did: after power-on, a brown-out or with other
 * firmware the bytes are anything, and all of it starts from zeros then.
 *
 *   0       4          12        16      20         24          28       32      36
 *   | magic | firmware | capacity| wakes | failures | clock set | length | check | bytes …
 *     check: CRC-32 of what precedes it. Numbers are those of the processor, for only this firmware reads them.
 *
 *     torpor_retained *r = torpor_retained_open(rtc, sizeof(rtc), firmware);
 *     uint8_t *table = torpor_retained_bytes(r, 2080);
 */
#ifndef TORPOR_RETAINED_H
#define TORPOR_RETAINED_H

#include <stddef.h>
#include <stdint.h>

#define TORPOR_RETAINED_HEAD 36
#define TORPOR_FIRMWARE_BYTES 8

typedef struct torpor_retained torpor_retained;

/* `memory`: at least the head, aligned to 4. `firmware`: another one means that nothing is kept. */
torpor_retained *torpor_retained_open(void *memory, size_t size, const uint8_t firmware[TORPOR_FIRMWARE_BYTES]);

enum { TORPOR_NUMBER_WAKES, TORPOR_NUMBER_FAILURES, TORPOR_NUMBER_CLOCK_SET, TORPOR_NUMBERS };
/* 0 for an index that is none. */
uint32_t torpor_retained_number(const torpor_retained *r, unsigned index);
void torpor_retained_set_number(torpor_retained *r, unsigned index, uint32_t value);

/* The bytes; zeroed where they were asked for with another length before. NULL where there are not so many. */
uint8_t *torpor_retained_bytes(torpor_retained *r, size_t length);

#endif
