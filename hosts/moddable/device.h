/*
 * What torpor-device.ts needs of C, on each platform of the Moddable SDK: hosts/esp32/device_esp32.c and
 * hosts/moddable/lin/device_lin.c have these functions, device.c makes them host functions of XS.
 *
 *     if (torpor_device_open() != 0) …;
 *     torpor_store_write("torpor", "identity", bytes, length);
 */
#ifndef TORPOR_DEVICE_H
#define TORPOR_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "retained.h"

/* What mcconfig makes of the manifests' `defines`. */
#if defined(__has_include)
#if __has_include("mc.defines.h")
#include "mc.defines.h"
#endif
#endif

/* Bytes that can be retained across deep sleep for the session table. */
#if defined(MODDEF_TORPOR_RETAINED)
#define TORPOR_RETAINED_BYTES MODDEF_TORPOR_RETAINED
#else
#define TORPOR_RETAINED_BYTES 4096
#endif

#define TORPOR_STORE_ERR_NONE (-1)   /* there is no such key */
#define TORPOR_STORE_ERR_FULL (-2)   /* no room; the old value stays */
#define TORPOR_STORE_ERR_NAME (-3)   /* a path or key that is none */
#define TORPOR_STORE_ERR_SIZE (-4)   /* the value does not fit the buffer, or no store */
#define TORPOR_STORE_ERR_FAILED (-5) /* storage refuses; the old value stays */

/* Longest value of a key, bytes. */
#define TORPOR_STORE_VALUE_MAX 8192
/* Longest key, characters: NVS has 15, and two copies are told apart by the last two. */
#define TORPOR_STORE_KEY_MAX 13

/* Opens storage, retained memory and PSA. 0, or a negative error. More calls are harmless. */
int torpor_device_open(void);
/* "esp32", "lin" */
const char *torpor_device_name(void);
/* Why it runs: "power-on", "sleep", "brown-out", "panic", "watchdog" or "reset". */
const char *torpor_device_reason(void);
/* What this process was told in place of mc.config, as JSON; NULL on a board. */
const char *torpor_device_options(void);

/* `out` NULL: `*length` only. A write is durable and atomic: after a power cut the old value is there or the new one. */
int torpor_store_read(const char *path, const char *key, uint8_t *out, size_t size, size_t *length);
int torpor_store_write(const char *path, const char *key, const uint8_t *bytes, size_t length);
/* A key that is not there is no error. */
int torpor_store_delete(const char *path, const char *key);

/* What survives deep sleep: see retained.h. Good once the device is open. */
torpor_retained *torpor_device_memory(void);

/* Bytes at the peak; 0: not counted. */
uint32_t torpor_device_dtls_heap(void);

/* Milliseconds since power-on, going on during sleep. */
uint64_t torpor_device_uptime(void);

/* A line to wherever a person reads. */
void torpor_device_log(const char *line);
/* After `ms` milliseconds: logs `line` (at most TORPOR_LINE_MAX - 1 bytes are kept) and sleeps. Replaces the former. */
#define TORPOR_LINE_MAX 256
void torpor_device_limit(uint32_t ms, uint32_t seconds, const char *line);
/* Does not return. `status`: of a desktop process. */
void torpor_device_sleep(uint32_t seconds, int status) __attribute__((noreturn));

#endif
