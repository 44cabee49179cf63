/*
 * An XS machine as a device has it: a shared one in which all modules are loaded and run, in place of the ROM image that
 * the device's linker makes, and a clone of it under a fixed limit of memory, in which the device's program lives.
 *
 *     txMachine *machine = machine_open("build/hosts/simulator/main.js", 32768, 256);
 *     machine_run(machine, …);
 */
#ifndef TORPOR_MACHINE_H
#define TORPOR_MACHINE_H

#include "xsAll.h"

/* Exit statuses of the simulator; the README lists them. */
enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1,           /* the program reported an error, or an argument is wrong */
    EXIT_MEMORY_FULL = 65,     /* the machine's heap is used up */
    EXIT_STACK_OVERFLOW = 66,
    EXIT_UNHANDLED_EXCEPTION = 67,
    EXIT_UNHANDLED_REJECTION = 68,
    EXIT_MACHINE = 69          /* anything else that XS gives up for */
};

typedef struct {
    size_t slots;  /* bytes of the slots in use at the peak */
    size_t chunks; /* bytes of the chunks at the peak */
    size_t stack;  /* bytes of the stack at its deepest */
    size_t limit;  /* bytes for all of it; 0: not limited */
} machine_heap;

/* Names the folder that has "node-assert.js" for the bare specifier "node:assert", and so on; for tests. */
void machine_modules(const char *folder);

/*
 * Loads `module` and what it imports into a shared machine, and clones that. `limit` is the number of bytes for slots,
 * chunks and `stack_slots` slots of stack together; 0 gives as much as is needed. NULL where a module cannot be loaded:
 * it has said why on standard error.
 */
txMachine *machine_open(const char *module, size_t limit, int stack_slots);

/* Gives the machine's default export a call, without arguments. */
void machine_start(txMachine *the);

/* Runs what promises have queued. */
void machine_settle(txMachine *the);

machine_heap machine_figures(txMachine *the);

/* Prints the figures on standard error and ends the process. */
void machine_exit(txMachine *the, int status) __attribute__((noreturn));

#endif
