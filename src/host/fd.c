/* SPDX-License-Identifier: BSD-2-Clause
 * Small matters of file descriptors; see fd.h. */
#include "host/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int fd_open_again(int fd, int access)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -1;
    if (S_ISFIFO(status.st_mode) || isatty(fd)) {
        char path[40];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int again = open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (again >= 0)
            return again;
    }
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

bool fd_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static void ignore(int signal)
{
    struct sigaction action;
    if (sigaction(signal, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) &&
        action.sa_handler == SIG_DFL) {
        action.sa_handler = SIG_IGN;
        sigaction(signal, &action, NULL);
    }
}

void fd_ignore_signals(void)
{
    ignore(SIGPIPE);
    ignore(SIGXFSZ);
}
