/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Runs grub-fstest for each question. No shell is asked, so that names are only names.
 */
#include "host/fs_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char program[] = "grub-fstest";

enum {
    LIMIT_S = 60,
    CHILD_MEMORY_BYTES = 512 << 20,
    NO_PROGRAM = 127, /* as a status of no exit */
};

/* The program with its output into `output`; 0 or an errno value. */
static int spawn(char *const *arguments, int output, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    int error = posix_spawnp(pid, program, &files, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return error;
}

/* Set from here, so soon that the image has hardly been looked at. */
static void limit(pid_t pid)
{
    static const struct {
        enum __rlimit_resource resource;
        rlim_t value;
    } limits[] = {{RLIMIT_AS, CHILD_MEMORY_BYTES},
                  {RLIMIT_CPU, LIMIT_S},
                  {RLIMIT_CORE, 0},
                  {RLIMIT_FSIZE, 0}};
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        const struct rlimit both = {limits[i].value, limits[i].value};
        prlimit(pid, limits[i].resource, &both, NULL);
    }
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Takes all that the child says, up to max_bytes. False: too much, or too slow. */
static bool take_output(int from, int to, uint64_t max_bytes)
{
    static const size_t piece_bytes = 256 << 10;
    char *piece = malloc(piece_bytes);
    int64_t end_ms = now_ms() + LIMIT_S * INT64_C(1000);
    uint64_t taken_bytes = 0;
    bool ok = false;
    while (piece) {
        struct pollfd wait = {.fd = from, .events = POLLIN};
        int64_t left_ms = end_ms - now_ms();
        if (left_ms <= 0)
            break;
        if (poll(&wait, 1, (int)left_ms) <= 0)
            continue; /* a signal, or the end of the time */
        ssize_t got = read(from, piece, piece_bytes);
        if (got == 0)
            ok = true;
        if (got <= 0)
            break;
        taken_bytes += (uint64_t)got;
        if (taken_bytes > max_bytes || write(to, piece, (size_t)got) != got)
            break;
    }
    free(piece);
    return ok;
}

/* The child's exit status, or -1. */
static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Returns the exit status, or -1 where there is none; what it said is in `output`. */
static int run(char *const *arguments, int output, uint64_t max_bytes)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return -1;
    pid_t pid;
    int error = spawn(arguments, pipes[1], &pid);
    close(pipes[1]);
    if (error) {
        close(pipes[0]);
        return error == ENOENT ? NO_PROGRAM : -1;
    }
    limit(pid);
    bool ok = take_output(pipes[0], output, max_bytes);
    close(pipes[0]);
    if (!ok)
        kill(pid, SIGKILL);
    int status = wait_for(pid);
    return ok ? status : -1;
}

static int ask(const char *image, const char *command, const char *option, const char *operand,
               uint64_t max_bytes, int *status)
{
    char *arguments[7] = {(char *)(uintptr_t)program, (char *)(uintptr_t)image,
                          (char *)(uintptr_t)command};
    unsigned count = 3;
    if (option) {
        arguments[count++] = (char *)(uintptr_t) "--";
        arguments[count++] = (char *)(uintptr_t)option;
    }
    if (operand)
        arguments[count++] = (char *)(uintptr_t)operand;
    int output = memfd_create("skep-guest-file", MFD_CLOEXEC);
    if (output >= 0)
        *status = run(arguments, output, max_bytes);
    return output;
}

static char *text_of(int fd)
{
    off_t size_bytes = lseek(fd, 0, SEEK_END);
    char *text = size_bytes >= 0 ? malloc((size_t)size_bytes + 1) : NULL;
    if (text && pread(fd, text, (size_t)size_bytes, 0) != size_bytes) {
        free(text);
        text = NULL;
    }
    if (text)
        text[size_bytes] = '\0';
    return text;
}

static char *ask_text(const char *image, const char *command, const char *option,
                      const char *operand)
{
    int status = -1;
    int fd = ask(image, command, option, operand, FS_READER_TEXT_MAX_BYTES, &status);
    char *text = fd >= 0 && status == 0 ? text_of(fd) : NULL;
    if (fd >= 0)
        close(fd);
    return text;
}

static void words_to_lines(char *text)
{
    for (char *at = text; *at; at++)
        if (*at == ' ')
            *at = '\n';
}

static bool no_program(const char *image, int status, struct error *err)
{
    static const char what[] = "cannot read the guest's files on";
    if (status == NO_PROGRAM) {
        error_set(err, what, image, "there is no %s on this host", program);
        return error_hint(err, "install it: apt-get install grub-common");
    }
    error_set(err, what, image, "%s fails on it", program);
    return error_hint(err, "is it a raw image? give --kernel and --initrd otherwise");
}

/* "(proc) (loop0) (loop0,gpt1) (host) " */
static void keep_devices(char *list)
{
    char *out = list;
    for (char *rest = list, *word; (word = strsep(&rest, "\n"));) {
        size_t length = strlen(word);
        bool is_device = length > 2 && word[0] == '(' && word[length - 1] == ')';
        if (!is_device || !strcmp(word, "(proc)") || !strcmp(word, "(host)"))
            continue;
        memmove(out, word + 1, length - 2);
        out += length - 2;
        *out++ = '\n';
    }
    *out = '\0';
}

char *fs_reader_devices(const char *image, struct error *err)
{
    int status = -1;
    int fd = ask(image, "ls", NULL, NULL, FS_READER_TEXT_MAX_BYTES, &status);
    char *text = fd >= 0 && status == 0 ? text_of(fd) : NULL;
    if (fd >= 0)
        close(fd);
    if (!text) {
        no_program(image, status, err);
        return NULL;
    }
    words_to_lines(text);
    keep_devices(text);
    return text;
}

char *fs_reader_describe(const char *image, const char *device)
{
    char name[128];
    snprintf(name, sizeof(name), "(%s)", device);
    return ask_text(image, "ls", "-l", name);
}

char *fs_reader_list(const char *image, const char *path)
{
    char folder[1024];
    size_t length = strlen(path);
    snprintf(folder, sizeof(folder), "%s%s", path, length && path[length - 1] == '/' ? "" : "/");
    char *text = ask_text(image, "ls", NULL, folder);
    if (text)
        words_to_lines(text);
    return text;
}

char *fs_reader_text(const char *image, const char *path)
{
    return ask_text(image, "cat", NULL, path);
}

int fs_reader_copy(const char *image, const char *path, uint64_t max_bytes, struct error *err)
{
    int status = -1;
    int fd = ask(image, "cat", NULL, path, max_bytes, &status);
    if (fd >= 0 && status == 0 && lseek(fd, 0, SEEK_END) > 0)
        return fd;
    if (fd >= 0)
        close(fd);
    error_set(err, "cannot read the guest's file", path,
              "it is not there, is empty, too large or can't be read");
    return -1;
}
