/*
 * The simulator: a device on the desktop, with a device's engine and a device's memory. One process is one wake.
 *
 *     simulator MODULE --arguments DIR [--state DIR] [--heap BYTES] [--stack SLOTS] [--dtls-heap BYTES] [--modules DIR]
 *
 * `npx torpor --host simulator` starts it; see hosts/node/simulator.ts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/pki/crypto.h"
#include "host.h"
#include "machine.h"

#define HEAP_BYTES 32768   /* slots, chunks and stack together; 0: no limit */
#define STACK_SLOTS 512

static const char HELP[] =
    "simulator MODULE --arguments DIR [--state DIR] [--heap BYTES] [--stack SLOTS] [--dtls-heap BYTES]\n"
    "          [--modules DIR]\n";

int main(int argc, char **argv)
{
    const char *state = "", *arguments = NULL;
    unsigned long heap = HEAP_BYTES, stack = STACK_SLOTS, dtls = 0;
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
    torpor_heap_limit(dtls);
    the = machine_open(argv[1], heap, (int) stack);
    if (the == NULL) {
        return EXIT_FAILED;
    }
    torpor_heap_reset_peak();
    machine_start(the);
    return host_run(the);
}
