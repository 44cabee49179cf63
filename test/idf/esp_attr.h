/* Of ESP-IDF's esp_attr.h what builds without ESP-IDF need. */
#define RTC_NOINIT_ATTR __attribute__((section(".rtc_noinit")))
