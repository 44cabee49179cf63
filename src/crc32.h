/*
 * CRC-32 (ISO 3309, polynomial EDB88320), by which storage and retained memory tell what was damaged. Not for secrets.
 *
 *     check = torpor_crc32(head, sizeof(head), 0);
 *     check = torpor_crc32(body, length, check);
 */
#ifndef TORPOR_CRC32_H
#define TORPOR_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* `initial`: the sum of what precedes; any other number makes the same bytes at another place another sum. */
static inline uint32_t torpor_crc32(const uint8_t *bytes, size_t length, uint32_t initial)
{
    /* By half octets: a table of octets would take 1 KB of flash for a few kilobytes a wake. */
    static const uint32_t TABLE[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t value = ~initial;

    for (size_t i = 0; i < length; i++) {
        value ^= bytes[i];
        value = value >> 4 ^ TABLE[value & 15];
        value = value >> 4 ^ TABLE[value & 15];
    }
    return ~value;
}

#endif
