/*
 * Key-value storage on NVS: the functions torpor_store_* of hosts/moddable/device.h. A path is an NVS namespace. Each
 * key has two copies that take turns, so that a write never touches the value it replaces:
 *
 *   blob "<key>.a" or "<key>.b"
 *   0          4       8
 *   | sequence | check | value …
 *     numbers little-endian; check: CRC-32 of the sequence and the value
 *
 * A write makes the copy that is not current, with the next sequence number, commits, reads it back, and erases the
 * other. Whenever power goes, one copy is whole: the sound one with the highest sequence is the value. NVS promises as
 * much for one blob; this holds also where a page breaks below it, and a value that does not read back is never used.
 * A full partition has no room for the second copy: the write fails, and the first one stays.
 */
#ifndef TORPOR_ESP32_STORE_H
#define TORPOR_ESP32_STORE_H

#include "../moddable/device.h"

#define TORPOR_STORE_HEAD 8

#endif
