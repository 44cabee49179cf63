/*
 * The simulator: a device on the desktop, with a device's engine and a device's memory. One process is one wake.
 *
 *     simulator MODULE --arguments DIR [--state DIR] [--heap BYTES] [--stack SLOTS] [--dtls-heap BYTES] [--modules DIR]
 *           [--census 1]
 *
 * `npx torpor --host simulator` starts it; see hosts/node/simulator.ts.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/pki/crypto.h"
#include "census.h"
#include "host.h"
#include "machine.h"

/* Slots, chunks and stack together, and mbedTLS, in bytes; 0: no limit. As much again where a pointer takes 64 bits. */
#define HEAP_BYTES (32768 * (sizeof(void *) / 4))
#define DTLS_HEAP_BYTES (32768 * (sizeof(void *) / 4))
#define STACK_SLOTS 384

static const char HELP[] =
    "simulator MODULE --arguments DIR [--state DIR] [--heap BYTES] [--stack SLOTS] [--dtls-heap BYTES]\n"
    "          [--modules DIR] [--census 1]\n";

int main(int argc, char **argv)
{
    const char *state = "", *arguments = NULL;
    unsigned long heap = HEAP_BYTES, stack = STACK_SLOTS, dtls = DTLS_HEAP_BYTES;
    txMachine *the;

    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--state") == 0) {
            state = argv[i + 1];
        } else if (strcmp(argv[i], "--arguments") == 0) {
            arguments = argv[i + 1];
        } else if (strcmp(argv[i], "--heap") == 0) {
            heap = strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--stack") == 0) {
            stack = strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--dtls-heap") == 0) {
            dtls = strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--census") == 0) {
            census_open();
        } else if (strcmp(argv[i], "--modules") == 0) {
            machine_modules(argv[i + 1]);
        } else {
            arguments = NULL;
            break;
        }
    }
    if (argc < 2 || argc % 2 != 0 || arguments == NULL || heap > 16 * 1024 * 1024 || stack < 64 || stack > 65536) {
        fputs(HELP, stderr);
        return EXIT_FAILED;
    }
    if (torpor_crypto_open() != 0 || host_open(state, arguments) != 0) {
        fputs("simulator: cannot start: no entropy, or a path is too long\n", stderr);
        return EXIT_FAILED;
    }
    (void) signal(SIGXFSZ, SIG_IGN); /* no room for a file is an error of that file */
    torpor_heap_limit(dtls);
    the = machine_open(argv[1], heap, (int) stack);
    if (the == NULL) {
        return EXIT_FAILED;
    }
    torpor_heap_reset_peak();
    machine_start(the);
    return host_run(the);
}
