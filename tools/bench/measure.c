/*
 * Runs a command and writes what it took to a file, in one line of JSON: nanoseconds of the monotonic clock at its start
 * and its end, microseconds of processor time, and the most memory that it ever held, in KB.
 *
 *     measure FILE COMMAND [ARGUMENT …]
 *
 * Node.js tells none of these of a child. Exit status: the command's; 128 and the signal's number; 127: it does not start.
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static long long microseconds(struct timeval t)
{
    return t.tv_sec * 1000000ll + t.tv_usec;
}

int main(int argc, char **argv)
{
    struct rusage usage;
    long long begun;
    int status, error;
    pid_t child;
    FILE *file;

    if (argc < 3) {
        fputs("measure FILE COMMAND [ARGUMENT ...]\n", stderr);
        return 127;
    }
    begun = now();
    error = posix_spawnp(&child, argv[2], NULL, NULL, argv + 2, environ);
    if (error != 0) {
        fprintf(stderr, "measure: %s does not start: %s\n", argv[2], strerror(error));
        return 127;
    }
    if (wait4(child, &status, 0, &usage) != child) {
        perror("measure");
        return 127;
    }
    file = fopen(argv[1], "w");
    if (file == NULL || fprintf(file,
                                "{\"begun\":%lld,\"ended\":%lld,\"user\":%lld,\"system\":%lld,\"peak\":%ld}\n",
                                begun, now(), microseconds(usage.ru_utime), microseconds(usage.ru_stime),
                                usage.ru_maxrss) < 0 ||
        fclose(file) != 0) {
        perror(argv[1]);
        return 127;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
