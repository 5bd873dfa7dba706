/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Busybox at work, as a program of this one: its sha256sum and gzip over files of text, and loops
 * in its awk and its shell. The program is /bin/busybox, or $BUSYBOX.
 */
#include "bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_BYTES = 128 << 10, FILES_AT_ONCE = 1024, LOOPS = 1000 };

static char file_name[64];

static void remove_file(void)
{
    unlink(file_name);
}

/* A file of words that repeat as words do. */
static bool file_prepare(void)
{
    static char text[FILE_BYTES];
    uint64_t random = 88172645463325252u;
    for (int i = 0; i < FILE_BYTES;) {
        unsigned word = (unsigned)(bench_random(&random) >> 40 & 1023);
        for (unsigned letters = 2 + word % 7; letters-- && i < FILE_BYTES; word = word * 5 + 3)
            text[i++] = (char)('a' + word % 26);
        if (i < FILE_BYTES)
            text[i++] = ' ';
    }
    snprintf(file_name, sizeof(file_name), "/tmp/skep-bench.XXXXXX");
    int file = mkstemp(file_name);
    if (file < 0 || atexit(remove_file))
        bench_die(file_name);
    if (write(file, text, sizeof(text)) != sizeof(text) || close(file))
        bench_die(file_name);
    return true;
}

/* Runs busybox with these arguments, its output thrown away; it must succeed. */
static void busybox(char **arguments)
{
    const char *path = getenv("BUSYBOX") ? getenv("BUSYBOX") : "/bin/busybox";
    int status;
    pid_t child = fork();
    if (child < 0)
        bench_die("fork");
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        if (null < 0 || dup2(null, 1) < 0)
            _exit(126);
        execv(path, arguments);
        _exit(127);
    }
    if (waitpid(child, &status, 0) != child)
        bench_die("waitpid");
    if (status) {
        fprintf(stderr, "%s %s failed (status %d)\n", path, arguments[1], status);
        exit(1);
    }
}

/* An applet over the file, `count` times. */
static void over_files(char *applet, char *option, uint64_t count)
{
    static char *arguments[FILES_AT_ONCE + 4];
    while (count) {
        unsigned at = 0, files = count < FILES_AT_ONCE ? (unsigned)count : FILES_AT_ONCE;
        arguments[at++] = "busybox";
        arguments[at++] = applet;
        if (option)
            arguments[at++] = option;
        for (unsigned i = 0; i < files; i++)
            arguments[at++] = file_name;
        arguments[at] = NULL;
        busybox(arguments);
        count -= files;
    }
}

static uint64_t sha256_run(uint64_t count)
{
    over_files("sha256sum", NULL, count);
    return 0;
}

static uint64_t gzip_run(uint64_t count)
{
    over_files("gzip", "-c", count);
    return 0;
}

static uint64_t awk_run(uint64_t count)
{
    char program[160];
    snprintf(program, sizeof(program),
             "BEGIN { for (i = 0; i < %llu; i++) { s += i %% 7; t[i %% 64] = s } print s }",
             (unsigned long long)count * LOOPS);
    busybox((char *[]){"busybox", "awk", program, NULL});
    return 0;
}

static uint64_t shell_run(uint64_t count)
{
    char program[160];
    snprintf(program, sizeof(program),
             "i=0 s=0; while [ $i -lt %llu ]; do i=$((i + 1)); s=$((s + i %% 7)); done; echo $s",
             (unsigned long long)count * LOOPS);
    busybox((char *[]){"busybox", "sh", "-c", program, NULL});
    return 0;
}

int main(int argc, char **argv)
{
    static const struct bench_row rows[] = {
        {"sha256", "MB/s", FILE_BYTES, file_prepare, sha256_run},
        {"gzip", "MB/s", FILE_BYTES, file_prepare, gzip_run},
        {"awk", "M/s", LOOPS, NULL, awk_run},
        {"shell", "M/s", LOOPS, NULL, shell_run},
    };
    return bench_main(argc, argv, rows, sizeof(rows) / sizeof(rows[0]));
}
