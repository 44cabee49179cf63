/*
 * An XS machine as a device has it: a shared one in which all modules are loaded and run, in place of the ROM image that
 * the device's linker makes, and a clone of it under a fixed limit of memory, in which the device's program lives.
 *
 *     txMachine *machine = machine_open("build/hosts/simulator/main.js", (machine_memory){.heap = 32768, .stack = 256});
 *     machine_start(machine);
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

/* Slots and bytes that a device gives its machine: what "creation" is in a manifest of the Moddable SDK. */
typedef struct {
    size_t heap;   /* bytes for slots, chunks and stack together; 0: as much as is needed, or as `chunks` and `slots` say */
    size_t chunks; /* bytes for chunks alone, together with `slots`; 0: from `heap` */
    int slots;
    int stack;     /* slots */
} machine_memory;

typedef struct {
    size_t slots;  /* bytes of the slots in use at the peak */
    size_t chunks; /* bytes of the chunks at the peak */
    size_t stack;  /* bytes of the stack at its deepest */
    size_t limit;  /* bytes for all of it; 0: not limited */
} machine_heap;

/* From now on each module that is loaded is parsed, and its byte code kept beside it for later runs. */
void machine_compile(void);

/* Names the folder that has "node-assert.js" for the bare specifier "node:assert", and so on; for tests. */
void machine_modules(const char *folder);

/*
 * Loads `module` and what it imports into a shared machine, and clones that with the memory given. NULL where a module
 * cannot be loaded: it has said why on standard error.
 */
txMachine *machine_open(const char *module, machine_memory memory);

/* Frees the clone and the shared machine: what objects hold is freed by their destructors. */
void machine_close(txMachine *the);

/* Gives the machine's default export a call, without arguments. */
void machine_start(txMachine *the);

/* Runs what promises have queued. */
void machine_settle(txMachine *the);

machine_heap machine_figures(txMachine *the);

/* Prints the figures on standard error and ends the process. */
void machine_exit(txMachine *the, int status) __attribute__((noreturn));

#endif
