/*
 * What the simulated device has besides its processor: UDP, timers, storage, retained memory, a clock. The natives of
 * udp.ts, timer.ts, storage.ts and main.ts, and the loop that waits for the outside.
 *
 *     host_open("state", "arguments");
 *     machine_start(the);
 *     int status = host_run(the);
 */
#ifndef TORPOR_HOST_H
#define TORPOR_HOST_H

#include "xsAll.h"

/*
 * Names the device's memory (retained.bin and flash/), and the folder with what this wake was told: options.json and
 * files in DER. 0, or -1 where a path is too long.
 */
int host_open(const char *state, const char *arguments);

/* Waits and calls back until the program has reported, or nothing is left to wait for. The exit status. */
int host_run(txMachine *the);

#endif
