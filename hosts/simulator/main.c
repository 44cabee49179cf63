/*
 * The simulator: a device on the desktop, with a device's engine and a device's memory. One process is one wake.
 *
 *     simulator MODULE [--state DIR] [--heap BYTES|esp32] [--stack SLOTS] [--dtls-heap BYTES] [--arguments DIR]
 *                      [--modules DIR] [--census 1] [--compile 1]
 *
 * `npm run simulator` starts it for any program, `npx torpor --host simulator` for a wake (hosts/node/simulator.ts).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/pki/crypto.h"
#include "census.h"
#include "host.h"
#include "machine.h"

/* Slots, chunks and stack together: 32,768 bytes where slots have a device's 16. A debug build is not limited. */
#ifdef mxDebug
#define HEAP_BYTES 0
#define DTLS_HEAP_BYTES 0
#else
#define HEAP_BYTES (2048 * sizeof(txSlot))
#define DTLS_HEAP_BYTES (32768 * (sizeof(void *) / 4)) /* mbedTLS; as much again where a pointer takes 64 bits */
#endif
#define STACK_SLOTS 384
#define STACK_SLOTS_UNLIMITED 4096

/* What the Moddable SDK's mcconfig gives an ESP32 whose manifest names nothing else. */
static const machine_memory ESP32 = {.chunks = 32768, .slots = 2048, .stack = 384};

#define HEAP_MAX (16ul * 1024 * 1024)

static const char HELP[] =
    "simulator MODULE [--state DIR] [--heap BYTES|esp32] [--stack SLOTS] [--dtls-heap BYTES] [--arguments DIR]\n"
    "          [--modules DIR] [--census 1] [--compile 1]\n"
    "Bytes are at most 16777216, slots of stack 64 to 65536.\n";

/* 0, or -1 where the text is no number between `min` and `max`. */
static int number_of(const char *text, unsigned long min, unsigned long max, unsigned long *number)
{
    char *end;

    errno = 0;
    *number = strtoul(text, &end, 10);
    return text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || *number < min || *number > max ? -1 : 0;
}

int main(int argc, char **argv)
{
    const char *state = "", *arguments = "";
    machine_memory memory = {.heap = HEAP_BYTES};
    unsigned long stack = 0, number, dtls = DTLS_HEAP_BYTES;
    int wrong = argc < 2 || argc % 2 != 0, compiles = 0, status;
    txMachine *the;

    for (int i = 2; i + 1 < argc && !wrong; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--state") == 0) {
            state = value;
        } else if (strcmp(argv[i], "--arguments") == 0) {
            arguments = value;
        } else if (strcmp(argv[i], "--heap") == 0 && strcmp(value, "esp32") == 0) {
            memory = ESP32;
        } else if (strcmp(argv[i], "--heap") == 0) {
            wrong = number_of(value, 0, HEAP_MAX, &number);
            memory = (machine_memory){.heap = number};
        } else if (strcmp(argv[i], "--stack") == 0) {
            wrong = number_of(value, 64, 65536, &stack);
        } else if (strcmp(argv[i], "--dtls-heap") == 0) {
            wrong = number_of(value, 0, HEAP_MAX, &dtls);
        } else if (strcmp(argv[i], "--census") == 0) {
            census_open();
        } else if (strcmp(argv[i], "--compile") == 0) {
            compiles = 1;
            machine_compile();
        } else if (strcmp(argv[i], "--modules") == 0) {
            machine_modules(value);
        } else {
            wrong = 1;
        }
    }
    if (wrong) {
        fputs(HELP, stderr);
        return EXIT_FAILED;
    }
    if (stack != 0) {
        memory.stack = (int) stack;
    } else if (memory.stack == 0) {
        memory.stack = memory.heap != 0 ? STACK_SLOTS : STACK_SLOTS_UNLIMITED;
    }
    if (torpor_crypto_open() != 0) {
        fputs("simulator: PSA Crypto does not start: no entropy or no memory\n", stderr);
        return EXIT_FAILED;
    }
    if (host_open(state, arguments) != 0) {
        return EXIT_FAILED;
    }
    (void) signal(SIGXFSZ, SIG_IGN); /* no room for a file is an error of that file */
    torpor_heap_limit(dtls);
    the = machine_open(argv[1], memory);
    if (the == NULL) {
        return EXIT_FAILED;
    }
    torpor_heap_reset_peak();
    if (!compiles) {
        machine_start(the);
    }
    status = compiles ? EXIT_OK : host_run(the);
    machine_close(the);
    torpor_crypto_close();
    return status;
}
