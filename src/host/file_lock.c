/* SPDX-License-Identifier: BSD-2-Clause
 * Locks against double use, and who holds them; see file_lock.h. The kernel gives no process for
 * such a lock, but /proc/PID/fdinfo/N of the descriptor that has it tells of it. */
#include "host/file_lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum file_lock_result file_lock(int fd, bool exclusive)
{
    struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        if (errno == EINTR)
            continue;
        return errno == EAGAIN || errno == EACCES ? FILE_LOCK_BUSY : FILE_LOCK_UNSUPPORTED;
    }
    return FILE_LOCK_TAKEN;
}

static bool fdinfo_has_lock(const char *pid, const char *number)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, number);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool found = false;
    while (!found && fgets(line, sizeof(line), file))
        found = strncmp(line, "lock:", 5) == 0;
    fclose(file);
    return found;
}

static bool process_holds(const char *pid, const struct stat *wanted)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
    DIR *fds = opendir(path);
    if (!fds)
        return false;
    bool found = false;
    struct dirent *entry;
    while (!found && (entry = readdir(fds))) {
        struct stat status;
        if (fstatat(dirfd(fds), entry->d_name, &status, 0) == 0 &&
            status.st_dev == wanted->st_dev && status.st_ino == wanted->st_ino)
            found = fdinfo_has_lock(pid, entry->d_name);
    }
    closedir(fds);
    return found;
}

static void process_name(const char *pid, char *name, size_t size_bytes)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
    name[0] = '\0';
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fgets(name, (int)size_bytes, file))
        name[strcspn(name, "\n")] = '\0';
    fclose(file);
}

bool file_lock_holder(int fd, char *text, size_t size_bytes)
{
    struct stat wanted;
    DIR *processes = fstat(fd, &wanted) == 0 ? opendir("/proc") : NULL;
    if (!processes)
        return false;
    bool found = false;
    struct dirent *entry;
    while (!found && (entry = readdir(processes))) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9' ||
            !process_holds(entry->d_name, &wanted))
            continue;
        char name[32];
        process_name(entry->d_name, name, sizeof(name));
        snprintf(text, size_bytes, "process %.16s (%s)", entry->d_name, name);
        found = true;
    }
    closedir(processes);
    return found;
}
