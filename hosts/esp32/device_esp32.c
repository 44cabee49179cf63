/*
 * The device on an ESP32 of any kind, by ESP-IDF 6: see hosts/moddable/device.h. Storage is in store.c.
 *
 * Retained memory lies in RTC memory and survives deep sleep, a panic and a watchdog's reset. On a chip without it the
 * firmware's manifest must say "defines": {"torpor": {"noretention": 1}} and "config": {"keep": "flash"}: sessions are
 * then sealed in NVS, which wears it by two writes a wake; failures are not counted from wake to wake, so the sleep
 * after a failure is always the shortest.
 *
 * Private keys are persistent keys of PSA, which ESP-IDF's mbedTLS keeps in NVS (namespace psa_its): in clear unless the
 * firmware turns NVS encryption on.
 */
#include <stdio.h>
#include <string.h>

#include "esp_app_desc.h"
#include "esp_attr.h"
#include "esp_rtc_time.h"
#include "esp_sleep.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "soc/soc_caps.h"

#include "../../src/pki/crypto.h"
#include "../moddable/retained.h"
#include "store.h"

#if defined(mxDebug)
extern void modLog_transmit(const char *msg); /* the SDK's xsHost.h */
#endif

#if defined(SOC_RTC_MEM_SUPPORTED) && SOC_RTC_MEM_SUPPORTED
#define RETAINED_ATTR RTC_NOINIT_ATTR
#elif defined(MODDEF_TORPOR_NORETENTION) && MODDEF_TORPOR_NORETENTION
#define RETAINED_ATTR
#else
#error "this chip has no RTC memory: set defines.torpor.noretention to 1 and config.keep to \"flash\" in the manifest, and sessions are kept sealed in NVS"
#endif

static RETAINED_ATTR uint32_t memory[(TORPOR_RETAINED_HEAD + TORPOR_RETAINED_BYTES + 3) / 4];
static torpor_retained *retained;

static esp_timer_handle_t limit_timer;
static char limit_line[TORPOR_LINE_MAX];
static uint32_t limit_seconds;

int torpor_device_open(void)
{
    if (retained == NULL) {
        /* The ELF file's hash: nothing is taken over from other firmware, whose layout or TLS library may differ. */
        retained = torpor_retained_open(memory, sizeof(memory), esp_app_get_description()->app_elf_sha256);
    }
    return torpor_crypto_open();
}

const char *torpor_device_name(void)
{
    return "esp32";
}

const char *torpor_device_reason(void)
{
    switch (esp_reset_reason()) {
        case ESP_RST_POWERON:
            return "power-on";
        case ESP_RST_DEEPSLEEP:
            return "sleep";
        case ESP_RST_BROWNOUT:
            return "brown-out";
        case ESP_RST_PANIC:
            return "panic";
        case ESP_RST_INT_WDT:
        case ESP_RST_TASK_WDT:
        case ESP_RST_WDT:
            return "watchdog";
        default:
            return "reset";
    }
}

const char *torpor_device_options(void)
{
    return NULL;
}

torpor_retained *torpor_device_memory(void)
{
    return retained;
}

/* ESP-IDF's own allocator serves mbedTLS: nothing is counted. */
uint32_t torpor_device_dtls_heap(void)
{
    return (uint32_t) torpor_heap_figures().peak;
}

uint64_t torpor_device_uptime(void)
{
    return esp_rtc_get_time_us() / 1000;
}

/* With the debugger attached the serial line is xsbug's; else it is the console, where sdkconfig has one. */
void torpor_device_log(const char *line)
{
#if defined(mxDebug)
    modLog_transmit(line);
#else
    puts(line);
    fflush(stdout);
#endif
}

static void limit_reached(void *argument)
{
    (void) argument;
    torpor_device_log(limit_line);
    torpor_device_sleep(limit_seconds, 1);
}

void torpor_device_limit(uint32_t ms, uint32_t seconds, const char *line)
{
    static const esp_timer_create_args_t arguments = {.callback = limit_reached, .name = "torpor"};

    strncpy(limit_line, line, sizeof(limit_line) - 1);
    limit_seconds = seconds;
    if (limit_timer == NULL && esp_timer_create(&arguments, &limit_timer) != ESP_OK) {
        limit_timer = NULL;
        return;
    }
    (void) esp_timer_stop(limit_timer);
    (void) esp_timer_start_once(limit_timer, (uint64_t) ms * 1000);
}

void torpor_device_sleep(uint32_t seconds, int status)
{
    (void) status;
    (void) esp_wifi_stop(); /* an error where it was never started */
    esp_deep_sleep((uint64_t) seconds * 1000000);
}
