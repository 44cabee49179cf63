/*
 * `native` and `Native` for the simulator: the C functions that TypeScript reaches by name, those of the C core's glue
 * (src/dtls/engine.c, src/pki/key.c) and those of the host (host.c).
 */
#ifndef TORPOR_NATIVES_H
#define TORPOR_NATIVES_H

#include "xsAll.h"

/* Puts the two globals into a machine, before any module is loaded. */
void natives_install(txMachine *the);

#endif
