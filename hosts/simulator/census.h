/*
 * What lies in a machine's heap, part by part, when it was largest: for docs/memory.md.
 *
 *     simulator … --census 1    prints it on standard error at the end
 */
#ifndef TORPOR_CENSUS_H
#define TORPOR_CENSUS_H

#include "machine.h"

/* Has the heap looked at each time it grows from now on, and what was found at the last time printed at the end. */
void census_open(void);

/* The heap is about to grow; everything in it is in use, but for what became garbage since the last collection. */
void census_take(txMachine *the);

/* Prints the frames of the stack at its deepest: for a debugger that watches `stackPeak`; see docs/memory.md. */
void census_stack(txMachine *the);

#endif
