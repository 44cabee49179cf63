/*
 * What XS asks of its platform (XSPLATFORM), for the simulator: GCC or clang on Linux, 32 or 64 bit. Memory, modules and
 * promise jobs are in machine.c.
 */
#ifndef TORPOR_XSPLATFORM_H
#define TORPOR_XSPLATFORM_H

#undef mxLittleEndian
#define mxLittleEndian 1
#undef mxLinux
#define mxLinux 1
#define mxExport extern
#define mxImport extern
#define XS_FUNCTION_NORETURN __attribute__((noreturn))

#include <arpa/inet.h>
#include <ctype.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define mxUseGCCAtomics 1
#define mxUsePOSIXThreads 1

/* `arena`: see machine.c; the waiters are for Atomics, which XS builds anyway. */
#define mxMachinePlatform \
    void *arena;          \
    int promiseJobs;      \
    void *waiterCondition; \
    void *waiterData;     \
    void *waiterLink;

/* The memory of the parser alone: see machine.c. */
extern void *parser_malloc(size_t size);
extern void parser_free(void *piece);

#define mxUseDefaultBuildKeys 1
#define mxUseDefaultParseScript 1
#define mxUseDefaultSharedChunks 1

#if INTPTR_MAX == INT64_MAX
#define mx32bitID 1
#endif

#endif
