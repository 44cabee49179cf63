/*
 * Included before any header of mbedTLS: under ESP-IDF it is configured by sdkconfig, through definitions that the
 * build of the mbedtls component gives to IDF components only; the Moddable SDK compiles its modules outside of these.
 *
 *     #include "../idf.h"
 */
#ifndef TORPOR_IDF_H
#define TORPOR_IDF_H

#if defined(ESP_PLATFORM) && !defined(MBEDTLS_CONFIG_FILE)
#define MBEDTLS_MAJOR_VERSION 4
#define MBEDTLS_CONFIG_FILE "mbedtls/esp_config.h"
#define TF_PSA_CRYPTO_USER_CONFIG_FILE "mbedtls/esp_config.h"
#define ESP_PSA_ITS_AVAILABLE /* PSA's storage is in NVS */
#endif

#endif
