/*
 * Runs what mcconfig built for the desktop (mc.so) without a display: the least that the SDK's screen.h asks of a host.
 * One process is one wake; the program ends it by sleeping (device_lin.c). `scripts/moddable.mjs` builds and calls this.
 *
 *     torpor-moddable mc.so
 *
 * Exit status: 0 done, 1 the wake failed, 70 it hung until its limit, 80 and up XS has given up (80 + its abort status).
 */
#include <dlfcn.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>

#define mxLinux 1
#include "screen.h"

#define EXIT_ABORT 80

static guint timer;

static gboolean on_timer(gpointer screen)
{
    txScreen *s = screen;
    s->idle(s);
    return G_SOURCE_CONTINUE;
}

static void start(txScreen *screen, double interval)
{
    if (timer == 0) {
        timer = g_timeout_add((guint) interval, on_timer, screen);
    }
}

static void stop(txScreen *screen)
{
    (void) screen;
    if (timer != 0) {
        g_source_remove(timer);
        timer = 0;
    }
}

static void on_abort(txScreen *screen, int status)
{
    (void) screen;
    fprintf(stderr, "torpor: XS gives up with status %d\n", status);
    exit(EXIT_ABORT + status);
}

static void nothing(txScreen *screen)
{
    (void) screen;
}

static void no_message(txScreen *screen, char *buffer, int size)
{
    (void) screen;
    (void) buffer;
    (void) size;
}

int main(int argc, char **argv)
{
    txScreen *screen = calloc(1, sizeof(txScreen));
    void *library;
    txScreenLaunchProc launch;

    if (argc != 2) {
        fputs("usage: torpor-moddable mc.so\n", stderr);
        return 2;
    }
    library = dlopen(argv[1], RTLD_NOW);
    if (screen == NULL || library == NULL) {
        fprintf(stderr, "torpor: cannot load %s: %s\n", argv[1], dlerror());
        return 2;
    }
    *(void **) &launch = dlsym(library, "fxScreenLaunch");
    if (launch == NULL) {
        fprintf(stderr, "torpor: %s is nothing that mcconfig built for lin\n", argv[1]);
        return 2;
    }
    screen->abort = on_abort;
    screen->bufferChanged = nothing;
    screen->formatChanged = nothing;
    screen->post = no_message;
    screen->start = start;
    screen->stop = stop;
    screen->width = 1;
    screen->height = 1;
    screen->mainThread = g_thread_self();
    g_mutex_init(&screen->workersMutex);
    launch(screen);
    if (screen->machine == NULL) {
        return EXIT_ABORT;
    }
    g_main_loop_run(g_main_loop_new(NULL, FALSE));
    return 0;
}
