/* Of ESP-IDF's esp_err.h what builds without ESP-IDF need. */
#ifndef TORPOR_TEST_ESP_ERR_H
#define TORPOR_TEST_ESP_ERR_H

typedef int esp_err_t;
#define ESP_OK 0

#endif
