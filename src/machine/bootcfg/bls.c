/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Boot Loader Specification, type 1: a file an entry, lines of a key and a value. Of several the
 * newest comes first, by version, else by name.
 */
#include "machine/bootcfg/bootcfg.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    char name[BOOTCFG_TITLE_BYTES]; /* of its file, without .conf */
    char version[BOOTCFG_TITLE_BYTES];
    struct bootcfg_choice choice;
};

struct reader {
    const char *device;
    const char *(*variable)(void *opaque, const char *name);
    void *opaque;
};

static bool is_newer(const struct entry *a, const struct entry *b)
{
    int order = strverscmp(a->version, b->version);
    return order ? order > 0 : strverscmp(a->name, b->name) > 0;
}

/* GRUB's blscfg puts its variables into options: $kernelopts, $tuned_params. */
static bool add_options(struct bootcfg_choice *choice, const struct reader *reader, char *value)
{
    for (char *word; (word = strsep(&value, " \t"));) {
        if (word[0] == '$' && reader->variable) {
            const char *text = reader->variable(reader->opaque, word + 1);
            if (text && text[0] && !bootcfg_add_word(choice, text))
                return false;
        } else if (word[0] && !bootcfg_add_word(choice, word)) {
            return false;
        }
    }
    return true;
}

static bool add_initrds(struct bootcfg_choice *choice, const struct reader *reader, char *value)
{
    for (char *word; (word = strsep(&value, " \t"));)
        if (word[0] && word[0] != '$' && !bootcfg_add_initrd(choice, reader->device, word))
            return false;
    return true;
}

static bool take_line(struct entry *entry, const struct reader *reader, char *line)
{
    struct bootcfg_choice *choice = &entry->choice;
    line += strspn(line, " \t");
    char *value = line + strcspn(line, " \t");
    if (*value)
        *value++ = '\0';
    value += strspn(value, " \t");
    if (!strcmp(line, "title"))
        snprintf(choice->title, sizeof(choice->title), "%s", value);
    else if (!strcmp(line, "version"))
        snprintf(entry->version, sizeof(entry->version), "%s", value);
    else if (!strcmp(line, "linux"))
        return bootcfg_path(choice->kernel, reader->device, value);
    else if (!strcmp(line, "initrd"))
        return add_initrds(choice, reader, value);
    else if (!strcmp(line, "options"))
        return add_options(choice, reader, value);
    return true;
}

/* False: it is no entry that names a kernel. */
static bool read_entry(const struct bootcfg_files *files, const struct reader *reader,
                       const char *folder, const char *name, struct entry *entry)
{
    char path[BOOTCFG_PATH_BYTES], place[BOOTCFG_PATH_BYTES];
    bool is_good = true;
    memset(entry, 0, sizeof(*entry));
    if (snprintf(place, sizeof(place), "%s/%s.conf", folder, name) >= (int)sizeof(place) ||
        !bootcfg_path(path, reader->device, place))
        return false;
    char *text = files->text(files->opaque, path);
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    for (char *rest = text, *line; is_good && rest && (line = strsep(&rest, "\n"));) {
        line[strcspn(line, "\r")] = '\0';
        is_good = take_line(entry, reader, line);
    }
    free(text);
    if (!entry->choice.title[0])
        snprintf(entry->choice.title, sizeof(entry->choice.title), "%s", name);
    return is_good && entry->choice.kernel[0];
}

bool bootcfg_bls(const struct bootcfg_files *files, const char *device, const char *folder,
                 const char *wanted, const char *(*variable)(void *opaque, const char *name),
                 void *opaque, struct bootcfg_choice *choice)
{
    const struct reader reader = {device, variable, opaque};
    char path[BOOTCFG_PATH_BYTES];
    bool found = false;
    struct entry *best = calloc(2, sizeof(*best)), *next = best ? best + 1 : NULL;
    char *names =
        best && bootcfg_path(path, device, folder) ? files->list(files->opaque, path) : NULL;
    for (char *rest = names, *name; rest && (name = strsep(&rest, "\n"));) {
        size_t length = strlen(name);
        if (length < 6 || length >= BOOTCFG_TITLE_BYTES || strcmp(name + length - 5, ".conf") != 0)
            continue;
        name[length - 5] = '\0';
        if ((wanted && fnmatch(wanted, name, 0) != 0) ||
            !read_entry(files, &reader, folder, name, next))
            continue;
        if (!found || is_newer(next, best))
            *best = *next;
        found = true;
    }
    if (found)
        *choice = best->choice;
    free(names);
    free(best);
    return found;
}
