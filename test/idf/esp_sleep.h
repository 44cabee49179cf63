/* Of ESP-IDF's esp_sleep.h what builds without ESP-IDF need. */
#include <stdint.h>

void esp_deep_sleep(uint64_t time_in_us) __attribute__((__noreturn__));
