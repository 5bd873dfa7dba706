/* SPDX-License-Identifier: BSD-2-Clause
 *
 * GRUB's commands, variables and menu (GRUB manual, chapters 15 and 16). What only changes screen,
 * modules or devices does nothing here. The environment block is read, never written: an entry that
 * was chosen for the next boot alone stays chosen until the guest itself boots by GRUB.
 */
#include "machine/bootcfg/grub.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- variables ---- */

const char *grub_get(struct grub *grub, const char *name)
{
    for (unsigned i = 0; i < grub->variable_count; i++)
        if (!strcmp(grub->variables[i].name, name))
            return grub->variables[i].value;
    return "";
}

static const char *get(void *opaque, const char *name)
{
    return grub_get(opaque, name);
}

static void set(struct grub *grub, const char *name, size_t name_bytes, const char *value)
{
    struct grub_variable *variable = NULL;
    for (unsigned i = 0; i < grub->variable_count; i++)
        if (strlen(grub->variables[i].name) == name_bytes &&
            !memcmp(grub->variables[i].name, name, name_bytes))
            variable = &grub->variables[i];
    char *copy = strlen(value) < GRUB_VALUE_BYTES ? strdup(value) : NULL;
    if (!variable && copy && name_bytes < GRUB_NAME_BYTES &&
        grub->variable_count < GRUB_MAX_VARIABLES) {
        variable = &grub->variables[grub->variable_count++];
        memcpy(variable->name, name, name_bytes);
    }
    if (!variable || !copy) {
        free(copy);
        return;
    }
    free(variable->value);
    variable->value = copy;
}

static void set_text(struct grub *grub, const char *name, const char *value)
{
    set(grub, name, strlen(name), value);
}

/* "name=value". False: it isn't one. */
static bool assign(struct grub *grub, const char *word)
{
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : 0;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)word[i]) && word[i] != '_')
            return false;
    if (!length)
        return false;
    set(grub, word, length, equals + 1);
    return true;
}

/* ---- devices and files ---- */

/* A disk is hd0 or what firmware calls it; here it is loop0, with the same partitions. */
static void device_of(const struct grub *grub, const char *name, char out[BOOTCFG_DEVICE_BYTES])
{
    const char *partition = strchr(name, ',');
    snprintf(out, BOOTCFG_DEVICE_BYTES, "%s", name);
    for (unsigned i = 0; i < grub->files->device_count; i++)
        if (!strcmp(grub->files->devices[i], name))
            return;
    if (!strncmp(name, "hd0", 3))
        snprintf(out, BOOTCFG_DEVICE_BYTES, "loop0%s", partition ? partition : "");
}

static bool path_of(struct grub *grub, const char *name, char out[BOOTCFG_PATH_BYTES])
{
    char device[BOOTCFG_DEVICE_BYTES], named[BOOTCFG_DEVICE_BYTES];
    const char *end = name[0] == '(' ? strchr(name, ')') : NULL;
    if (end) {
        snprintf(named, sizeof(named), "%.*s", (int)(end - name - 1), name + 1);
        name = end + 1;
    }
    device_of(grub, end ? named : grub_get(grub, "root"), device);
    return name[0] == '/' && bootcfg_path(out, device, name);
}

static bool exists(struct grub *grub, const char *name)
{
    char path[BOOTCFG_PATH_BYTES];
    if (!path_of(grub, name, path))
        return false;
    char *slash = strrchr(path, '/'), *base = slash + 1;
    size_t length = strlen(base);
    char wanted[BOOTCFG_PATH_BYTES];
    memcpy(wanted, base, length + 1);
    *base = '\0';
    char *names = length ? grub->files->list(grub->files->opaque, path) : NULL;
    bool found = false;
    for (char *rest = names, *line; !found && rest && (line = strsep(&rest, "\n"));)
        found = !strncmp(line, wanted, length) && (!line[length] || !strcmp(line + length, "/"));
    free(names);
    return found;
}

static char *text_of(struct grub *grub, const char *name)
{
    char path[BOOTCFG_PATH_BYTES];
    return path_of(grub, name, path) ? grub->files->text(grub->files->opaque, path) : NULL;
}

/* The first device whose description names this UUID or label. */
static const char *find_device(struct grub *grub, const char *key, bool is_label)
{
    char wanted[BOOTCFG_TITLE_BYTES];
    snprintf(wanted, sizeof(wanted), is_label ? "Label `%s'" : "UUID %s", key);
    for (unsigned i = 0; i < grub->files->device_count; i++) {
        const char *device = grub->files->devices[i];
        char *text = grub->files->describe(grub->files->opaque, device);
        bool found = text && strcasestr(text, wanted);
        free(text);
        if (found)
            return device;
    }
    return NULL;
}

static const char *find_file(struct grub *grub, const char *name)
{
    char path[BOOTCFG_PATH_BYTES];
    for (unsigned i = 0; i < grub->files->device_count; i++)
        if (bootcfg_path(path, grub->files->devices[i], name) && exists(grub, path))
            return grub->files->devices[i];
    return NULL;
}

/* ---- conditions ---- */

static bool compare(const char *a, const char *operator, const char * b, bool *result)
{
    static const char *const names[] = {"=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"};
    long left = strtol(a, NULL, 10), right = strtol(b, NULL, 10);
    const bool results[] = {!strcmp(a, b), !strcmp(a, b), strcmp(a, b) != 0,
                            left == right, left != right, left<right, left <= right, left> right,
                            left >= right};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(operator, names[i])) {
            *result = results[i];
            return true;
        }
    return false;
}

/* One condition without -a and -o; *at moves behind it. */
static bool test_one(struct grub *grub, const char *const *words, unsigned count, unsigned *at)
{
    bool result, negates = false;
    while (*at < count && !strcmp(words[*at], "!")) {
        negates = !negates;
        ++*at;
    }
    if (*at + 2 < count && compare(words[*at], words[*at + 1], words[*at + 2], &result)) {
        *at += 3;
    } else if (*at + 1 < count && words[*at][0] == '-' && words[*at][1] && !words[*at][2] &&
               strchr("nzfesd", words[*at][1])) {
        const char *word = words[*at + 1];
        char kind = words[*at][1];
        result = kind == 'n' ? word[0] : kind == 'z' ? !word[0] : exists(grub, word);
        *at += 2;
    } else {
        result = *at < count && words[*at][0];
        ++*at;
    }
    return result != negates;
}

static bool test(struct grub *grub, const char *const *words, unsigned count)
{
    if (count && !strcmp(words[count - 1], "]"))
        count--;
    bool any = false, all = true;
    for (unsigned at = 0; at < count;) {
        all = test_one(grub, words, count, &at) && all;
        if (at < count && !strcmp(words[at], "-o")) {
            any = any || all;
            all = true;
        }
        at++; /* -a or -o */
    }
    return count && (any || all);
}

/* ---- commands ---- */

/* The environment block: 1024 bytes of lines, the first a comment (manual, 16.5). */
static bool load_env(struct grub *grub, const struct grub_arguments *arguments)
{
    char name[BOOTCFG_PATH_BYTES];
    snprintf(name, sizeof(name), "%s/grubenv", grub_get(grub, "prefix"));
    for (unsigned i = 1; i + 1 < arguments->count; i++)
        if (!strcmp(arguments->value[i], "--file") || !strcmp(arguments->value[i], "-f"))
            snprintf(name, sizeof(name), "%s", arguments->value[i + 1]);
    char *text = text_of(grub, name);
    for (char *rest = text, *line; rest && (line = strsep(&rest, "\n"));)
        if (line[0] != '#')
            assign(grub, line);
    bool found = text;
    free(text);
    return found;
}

static bool search(struct grub *grub, const struct grub_arguments *arguments)
{
    const char *variable = "root", *key = NULL, *found = NULL;
    char kind = 'f';
    for (unsigned i = 1; i < arguments->count; i++) {
        const char *word = arguments->value[i];
        if (!strncmp(word, "--set=", 6))
            variable = word + 6;
        else if (!strcmp(word, "--set") && i + 1 < arguments->count)
            variable = arguments->value[++i];
        else if (!strcmp(word, "--fs-uuid") || !strcmp(word, "-u"))
            kind = 'u';
        else if (!strcmp(word, "--label") || !strcmp(word, "-l"))
            kind = 'l';
        else if (!strcmp(word, "--hint") && i + 1 < arguments->count)
            i++;
        else if (word[0] != '-')
            key = word;
    }
    if (key)
        found = kind == 'f' ? find_file(grub, key) : find_device(grub, key, kind == 'l');
    if (found)
        set_text(grub, variable, found);
    return found;
}

static bool linux_command(struct grub *grub, const struct grub_arguments *arguments)
{
    struct bootcfg_choice *choice = grub->choice;
    choice->cmdline[0] = '\0';
    choice->initrd_count = 0;
    bool is_good = arguments->count > 1 && path_of(grub, arguments->value[1], choice->kernel);
    for (unsigned i = 2; is_good && i < arguments->count; i++)
        is_good = bootcfg_add_word(choice, arguments->value[i]);
    if (!is_good)
        choice->kernel[0] = '\0';
    return is_good;
}

static bool initrd_command(struct grub *grub, const struct grub_arguments *arguments)
{
    struct bootcfg_choice *choice = grub->choice;
    choice->initrd_count = 0;
    for (unsigned i = 1; i < arguments->count; i++)
        if (choice->initrd_count < BOOTCFG_MAX_INITRDS &&
            path_of(grub, arguments->value[i], choice->initrds[choice->initrd_count]))
            choice->initrd_count++;
    return true;
}

static bool source(struct grub *grub, const struct grub_arguments *arguments)
{
    char *text = arguments->count > 1 ? text_of(grub, arguments->value[1]) : NULL;
    return text && grub_run_text(grub, text);
}

/* An entry for all of the Boot Loader Specification's: only the default one is looked for. */
static bool blscfg(struct grub *grub)
{
    struct grub_entry *entry = &grub->entries[grub->entry_count];
    if (grub->entry_count == GRUB_MAX_ENTRIES)
        return false;
    memset(entry, 0, sizeof(*entry));
    entry->parent = -1;
    snprintf(entry->id, sizeof(entry->id), "blscfg");
    grub->entry_count++;
    return true;
}

static bool call(struct grub *grub, const char *name, bool *status)
{
    for (unsigned i = grub->function_count; i-- > 0;)
        if (!strcmp(grub->functions[i].name, name)) {
            *status = grub_run(grub, &grub->functions[i].body);
            return true;
        }
    return false;
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c)
{
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c);
}

bool grub_command(struct grub *grub, struct grub_arguments *arguments)
{
    const char *name = arguments->value[0];
    bool status;
    if (call(grub, name, &status))
        return status;
    if (!strcmp(name, "[") || !strcmp(name, "test"))
        return test(grub, arguments->value + 1, arguments->count - 1);
    if (!strcmp(name, "set"))
        return arguments->count < 2 || assign(grub, arguments->value[1]);
    if (!strcmp(name, "unset") && arguments->count > 1)
        return set_text(grub, arguments->value[1], ""), true;
    if (is_one_of(name, "linux", "linux16", "linuxefi"))
        return linux_command(grub, arguments);
    if (is_one_of(name, "initrd", "initrd16", "initrdefi"))
        return initrd_command(grub, arguments);
    if (!strcmp(name, "search"))
        return search(grub, arguments);
    if (!strcmp(name, "load_env"))
        return load_env(grub, arguments);
    if (is_one_of(name, "source", ".", "configfile"))
        return source(grub, arguments);
    if (!strcmp(name, "blscfg"))
        return blscfg(grub);
    if (is_one_of(name, "false", "regexp", "probe"))
        return false;
    assign(grub, name);
    return true;
}

/* ---- the menu ---- */

void grub_add_entry(struct grub *grub, const struct grub_arguments *arguments, bool is_submenu,
                    const struct grub_range *body)
{
    if (grub->entry_count == GRUB_MAX_ENTRIES || arguments->count < 2)
        return;
    int index = (int)grub->entry_count++;
    struct grub_entry *entry = &grub->entries[index];
    memset(entry, 0, sizeof(*entry));
    entry->is_submenu = is_submenu;
    entry->parent = grub->submenu;
    entry->body = *body;
    snprintf(entry->title, sizeof(entry->title), "%s", arguments->value[1]);
    for (unsigned i = 2; i < arguments->count; i++) {
        if (!strncmp(arguments->value[i], "--id=", 5))
            snprintf(entry->id, sizeof(entry->id), "%s", arguments->value[i] + 5);
        else if (!strcmp(arguments->value[i], "--id") && i + 1 < arguments->count)
            snprintf(entry->id, sizeof(entry->id), "%s", arguments->value[i + 1]);
    }
    if (!is_submenu)
        return;
    int outer = grub->submenu;
    grub->submenu = index;
    grub_run(grub, body);
    grub->submenu = outer;
}

/* The entry of a menu by number, id or title; -1: none. */
static int find_entry(const struct grub *grub, int parent, const char *wanted)
{
    char *end;
    long number = strtol(wanted, &end, 10);
    bool is_number = end != wanted && !*end;
    for (unsigned i = 0; i < grub->entry_count; i++) {
        const struct grub_entry *entry = &grub->entries[i];
        if (entry->parent != parent)
            continue;
        if (is_number ? number-- == 0 : !strcmp(entry->id, wanted) || !strcmp(entry->title, wanted))
            return (int)i;
    }
    return -1;
}

/* "a>b": the entry b of the submenu a. A submenu stands for its first entry. */
static int default_entry(struct grub *grub)
{
    char text[BOOTCFG_TITLE_BYTES * 2];
    int at = -1;
    snprintf(text, sizeof(text), "%s", grub_get(grub, "default"));
    for (char *rest = text, *part; rest && (part = strsep(&rest, ">"));) {
        int next = find_entry(grub, at, part[0] ? part : "0");
        if (next < 0)
            break;
        at = next;
    }
    if (at < 0)
        at = find_entry(grub, -1, "0");
    for (int inner = at; inner >= 0 && grub->entries[inner].is_submenu; at = inner) {
        inner = find_entry(grub, inner, "0");
        if (inner < 0)
            break;
    }
    return at;
}

static bool run_bls(struct grub *grub)
{
    char device[BOOTCFG_DEVICE_BYTES];
    const char *wanted = grub_get(grub, "default");
    device_of(grub, grub_get(grub, "root"), device);
    for (int is_any = 0; is_any < 2; is_any++)
        for (int is_root = 0; is_root < 2; is_root++)
            if (bootcfg_bls(
                    grub->files, device, is_root ? "/boot/loader/entries" : "/loader/entries",
                    is_any || !wanted[0] || isdigit((unsigned char)wanted[0]) ? NULL : wanted, get,
                    grub, grub->choice))
                return true;
    return false;
}

static bool run_entry(struct grub *grub, int index)
{
    const struct grub_entry *entry = &grub->entries[index];
    if (entry->is_submenu)
        return false;
    grub->choice->kernel[0] = '\0';
    set_text(grub, "chosen", entry->title);
    if (!strcmp(entry->id, "blscfg"))
        return run_bls(grub);
    grub_run(grub, &entry->body);
    if (!grub->choice->kernel[0])
        return false;
    snprintf(grub->choice->title, sizeof(grub->choice->title), "%s", entry->title);
    return true;
}

static void set_first_variables(struct grub *grub, const char *device, const char *path)
{
    static const char *const features[] = {"feature_200_final",
                                           "feature_all_video_module",
                                           "feature_chainloader_bpb",
                                           "feature_default_font_path",
                                           "feature_menuentry_id",
                                           "feature_menuentry_options",
                                           "feature_nativedisk_cmd",
                                           "feature_ntldr",
                                           "feature_platform_search_hint",
                                           "feature_timeout_style"};
    char prefix[BOOTCFG_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    snprintf(prefix, sizeof(prefix), "(%s)%.*s", device, (int)(slash - path), path);
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
        set_text(grub, features[i], "y");
    set_text(grub, "root", device);
    set_text(grub, "prefix", prefix);
    set_text(grub, "config_directory", prefix);
    set_text(grub, "grub_platform", "pc");
    set_text(grub, "grub_cpu", "i386");
}

/* The default entry, else the first that boots a Linux, else what the script loads by itself. */
static bool choose(struct grub *grub)
{
    struct bootcfg_choice loaded = *grub->choice;
    int index = default_entry(grub);
    if (index >= 0 && run_entry(grub, index))
        return true;
    for (unsigned i = 0; i < grub->entry_count; i++)
        if (run_entry(grub, (int)i))
            return true;
    *grub->choice = loaded;
    return loaded.kernel[0];
}

bool bootcfg_grub(const struct bootcfg_files *files, const char *device, const char *path,
                  const char *text, struct bootcfg_choice *choice)
{
    struct grub *grub = calloc(1, sizeof(*grub));
    char *copy = strdup(text);
    bool found = false;
    if (grub && copy) {
        grub->files = files;
        grub->choice = choice;
        grub->submenu = -1;
        set_first_variables(grub, device, path);
        found = grub_run_text(grub, copy) && choose(grub);
        grub_free_scripts(grub);
        for (unsigned i = 0; i < grub->variable_count; i++)
            free(grub->variables[i].value);
    } else {
        free(copy);
    }
    free(grub);
    return found;
}
