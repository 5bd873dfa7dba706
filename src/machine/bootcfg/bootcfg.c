/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Where boot loaders keep their configuration, and which of them a disk has.
 */
#include "machine/bootcfg/bootcfg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bootcfg_path(char *out, const char *device, const char *path)
{
    int length = path[0] == '(' ? snprintf(out, BOOTCFG_PATH_BYTES, "%s", path)
                                : snprintf(out, BOOTCFG_PATH_BYTES, "(%s)%s%s", device,
                                           path[0] == '/' ? "" : "/", path);
    return length > 0 && length < BOOTCFG_PATH_BYTES;
}

bool bootcfg_add_word(struct bootcfg_choice *choice, const char *word)
{
    size_t used = strlen(choice->cmdline), length = strlen(word);
    if (used + length + 2 > sizeof(choice->cmdline))
        return false;
    snprintf(choice->cmdline + used, sizeof(choice->cmdline) - used, "%s%s", used ? " " : "", word);
    return true;
}

bool bootcfg_add_initrd(struct bootcfg_choice *choice, const char *device, const char *path)
{
    if (choice->initrd_count == BOOTCFG_MAX_INITRDS ||
        !bootcfg_path(choice->initrds[choice->initrd_count], device, path))
        return false;
    choice->initrd_count++;
    return true;
}

/* systemd-boot's own file: which entry is the default (loader.conf(5)). */
static bool try_systemd(const struct bootcfg_files *files, const char *device,
                        struct bootcfg_choice *choice)
{
    char path[BOOTCFG_PATH_BYTES], pattern[BOOTCFG_TITLE_BYTES] = "";
    bootcfg_path(path, device, "/loader/loader.conf");
    char *text = files->text(files->opaque, path);
    for (char *rest = text, *line; rest && (line = strsep(&rest, "\n"));)
        sscanf(line, " default %255s", pattern);
    free(text);
    char *dot = strstr(pattern, ".conf");
    if (dot && !dot[5])
        *dot = '\0';
    return bootcfg_bls(files, device, "/loader/entries", pattern[0] ? pattern : NULL, NULL, NULL,
                       choice) ||
           (pattern[0] && bootcfg_bls(files, device, "/loader/entries", NULL, NULL, NULL, choice));
}

static bool try_file(const struct bootcfg_files *files, const char *device, const char *folder,
                     const char *name, bool is_grub, struct bootcfg_choice *choice)
{
    char path[BOOTCFG_PATH_BYTES], place[BOOTCFG_PATH_BYTES];
    if (snprintf(place, sizeof(place), "%s/%s", folder, name) >= (int)sizeof(place) ||
        !bootcfg_path(path, device, place))
        return false;
    char *text = files->text(files->opaque, path);
    if (!text)
        return false;
    memset(choice, 0, sizeof(*choice));
    bool found = is_grub ? bootcfg_grub(files, device, place, text, choice)
                         : bootcfg_extlinux(device, folder, text, choice);
    free(text);
    if (found)
        snprintf(choice->config, sizeof(choice->config), "%s", path);
    return found;
}

static bool try_device(const struct bootcfg_files *files, const char *device,
                       struct bootcfg_choice *choice)
{
    /* Of a root file system, of one for /boot alone, and of Ubuntu's btrfs. */
    static const char *const grub[] = {"/boot/grub", "/boot/grub2", "/grub", "/grub2",
                                       "/@/boot/grub"};
    static const char *const extlinux[] = {"/extlinux", "/boot/extlinux", "/boot/syslinux",
                                           "/syslinux"};
    for (size_t i = 0; i < sizeof(grub) / sizeof(grub[0]); i++)
        if (try_file(files, device, grub[i], "grub.cfg", true, choice))
            return true;
    if (try_systemd(files, device, choice)) {
        bootcfg_path(choice->config, device, "/loader/entries");
        return true;
    }
    for (size_t i = 0; i < sizeof(extlinux) / sizeof(extlinux[0]); i++)
        if (try_file(files, device, extlinux[i], "extlinux.conf", false, choice) ||
            try_file(files, device, extlinux[i], "syslinux.cfg", false, choice))
            return true;
    return false;
}

bool bootcfg_find(const struct bootcfg_files *files, struct bootcfg_choice *choice,
                  struct error *err)
{
    for (unsigned i = 0; i < files->device_count; i++) {
        memset(choice, 0, sizeof(*choice));
        if (try_device(files, files->devices[i], choice))
            return true;
    }
    error_set(err, "cannot find what to boot on disk", NULL,
              "there is no configuration of GRUB, systemd-boot or extlinux that names a kernel");
    return error_hint(err, "boot the disk by its own loader, with firmware, or give --kernel");
}
