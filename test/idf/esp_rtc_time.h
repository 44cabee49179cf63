/* Of ESP-IDF's esp_rtc_time.h what builds without ESP-IDF need. */
#include <stdint.h>

uint64_t esp_rtc_get_time_us(void);
