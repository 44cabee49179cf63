/* Of ESP-IDF's esp_wifi.h what builds without ESP-IDF need. */
#include "esp_err.h"

esp_err_t esp_wifi_stop(void);
