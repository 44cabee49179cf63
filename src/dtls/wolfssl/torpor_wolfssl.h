/*
 * Read before every source of an app that the Moddable SDK builds over wolfSSL: manifest.json beside this has
 *
 *     -include torpor_wolfssl.h
 *
 * for the SDK's makefiles have no place for definitions that holds on each platform.
 */
#define WOLFSSL_USER_SETTINGS
#define TORPOR_WOLFSSL_CORE
/* The SDK says so on ESP32, and has no config.h. wolfSSL would ask for one. */
#undef HAVE_CONFIG_H
