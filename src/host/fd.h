/* SPDX-License-Identifier: BSD-2-Clause
 * Small matters of file descriptors that several back ends share. */
#ifndef SKEP_HOST_FD_H
#define SKEP_HOST_FD_H

#include <stdbool.h>

/* A descriptor for the same terminal or pipe that does not block, and shares no flags with other
 * processes that have it open. Where that cannot be (sockets, files) a copy of `fd`. -1 and errno
 * on failure. `access` is O_RDONLY or O_WRONLY. */
int fd_open_again(int fd, int access);

bool fd_set_nonblocking(int fd);

/* A peer that goes away must end in EPIPE, and a file that may not grow (RLIMIT_FSIZE) in EFBIG,
 * not in the death of the process: ignores SIGPIPE and SIGXFSZ when they are at their default.
 * (Pipes and libslirp's sockets know no MSG_NOSIGNAL.) */
void fd_ignore_signals(void);

#endif
