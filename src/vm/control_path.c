/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Where the control sockets of named machines are: $SKEP_HOME/run, else $XDG_RUNTIME_DIR/skep, else
 * a folder in /tmp that must be the user's own.
 */
#include "vm/control.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char what[] = "cannot find the machine's control socket";

static bool is_name(const char *name)
{
    if (!isalnum((unsigned char)name[0]))
        return false;
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
            return false;
    return true;
}

static void folder_name(char *folder, size_t size_bytes)
{
    const char *home = getenv("SKEP_HOME");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (home && *home)
        snprintf(folder, size_bytes, "%s/run", home);
    else if (runtime && *runtime)
        snprintf(folder, size_bytes, "%s/skep", runtime);
    else
        snprintf(folder, size_bytes, "/tmp/skep-%u", (unsigned)geteuid());
}

/* Nobody else may put a socket there. */
static bool check_folder(const char *folder, bool makes_folder, struct error *err)
{
    struct stat status;
    const char *home = getenv("SKEP_HOME");
    if (makes_folder && home && *home)
        mkdir(home, 0777);
    if (makes_folder && mkdir(folder, 0700) != 0 && errno != EEXIST)
        return error_errno(err, "cannot make the folder", folder, errno);
    if (lstat(folder, &status) != 0) /* without a folder there is no machine: that is told then */
        return errno == ENOENT || error_errno(err, what, folder, errno);
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 022))
        return error_set(err, what, folder, "it is not a folder that only you can write to");
    return true;
}

bool control_path(const char *target, bool makes_folder, char path[CONTROL_PATH_BYTES],
                  struct error *err)
{
    char text[512];
    char folder[256];
    if (!strncmp(target, "unix:", 5) && target[5]) {
        snprintf(text, sizeof(text), "%s", target + 5);
    } else if (strchr(target, '/')) {
        snprintf(text, sizeof(text), "%s", target);
    } else if (!is_name(target)) {
        error_usage(err, "the name of a machine", target, "it has letters that no name has");
        return error_hint(err, "letters, digits, '.', '_' and '-'; a socket is written unix:PATH");
    } else {
        folder_name(folder, sizeof(folder));
        if (!check_folder(folder, makes_folder, err))
            return error_hint(err, makes_folder
                                       ? "--control unix:PATH makes the socket elsewhere"
                                       : "a machine has a name when it is run with --name");
        snprintf(text, sizeof(text), "%s/%s.sock", folder, target);
    }
    if (strlen(text) >= CONTROL_PATH_BYTES) {
        error_usage(err, "control socket", text, "a socket's path has at most %d bytes",
                    CONTROL_PATH_BYTES - 1);
        return error_hint(err, "use a shorter path, or a relative one");
    }
    strcpy(path, text);
    return true;
}
