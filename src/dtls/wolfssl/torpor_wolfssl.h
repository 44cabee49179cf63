/*
 * Read before every C source of an app that the Moddable SDK builds over wolfSSL: its makefiles have no place for an app's own
 * definitions that holds on each platform, so manifest.json beside this has it in among the include folders:
 *
 *     -include torpor_wolfssl.h
 */
#include "mc.defines.h"

#define WOLFSSL_USER_SETTINGS
#define TORPOR_WOLFSSL_CORE
/* Hybrid key exchange, by "defines": { "torpor": { "mlkem": 1 } } in the app's manifest. */
#if defined(MODDEF_TORPOR_MLKEM) && MODDEF_TORPOR_MLKEM
#define TORPOR_MLKEM
#endif
/* The SDK says on ESP32 that there is a config.h, which wolfSSL would then ask for. There is none. */
#undef HAVE_CONFIG_H
