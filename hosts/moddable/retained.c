/* Retained memory: see retained.h. */
#include "retained.h"

#include <string.h>

#include "../../src/crc32.h"

#define MAGIC 0x54525031u /* TRP1 */

struct torpor_retained {
    uint32_t magic;
    uint8_t firmware[TORPOR_FIRMWARE_BYTES];
    uint32_t capacity;
    uint32_t numbers[TORPOR_NUMBERS];
    uint32_t length;
    uint32_t check;
    uint8_t bytes[];
};

_Static_assert(offsetof(torpor_retained, bytes) == TORPOR_RETAINED_HEAD, "the head is as drawn in retained.h");

static uint32_t check_of(const torpor_retained *r)
{
    return torpor_crc32((const uint8_t *) r, offsetof(torpor_retained, check), 0);
}

torpor_retained *torpor_retained_open(void *memory, size_t size, const uint8_t firmware[TORPOR_FIRMWARE_BYTES])
{
    torpor_retained *r = memory;

    if (r->magic != MAGIC || r->capacity != size - TORPOR_RETAINED_HEAD || r->check != check_of(r) ||
        memcmp(r->firmware, firmware, TORPOR_FIRMWARE_BYTES) != 0) {
        memset(memory, 0, size);
        r->magic = MAGIC;
        memcpy(r->firmware, firmware, TORPOR_FIRMWARE_BYTES);
        r->capacity = (uint32_t) (size - TORPOR_RETAINED_HEAD);
        r->check = check_of(r);
    }
    return r;
}

uint32_t torpor_retained_number(const torpor_retained *r, unsigned index)
{
    return index < TORPOR_NUMBERS ? r->numbers[index] : 0;
}

void torpor_retained_set_number(torpor_retained *r, unsigned index, uint32_t value)
{
    if (index < TORPOR_NUMBERS) {
        r->numbers[index] = value;
        r->check = check_of(r);
    }
}

uint8_t *torpor_retained_bytes(torpor_retained *r, size_t length)
{
    if (length > r->capacity) {
        return NULL;
    }
    if (r->length != length) {
        memset(r->bytes, 0, r->capacity);
        r->length = (uint32_t) length;
        r->check = check_of(r);
    }
    return r->bytes;
}
