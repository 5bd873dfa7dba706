/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: boot loaders' configurations of any text. The input is cut at NULs into the files
 * that GRUB, systemd-boot and extlinux look for; its first byte says which of them there are.
 */
#include "machine/bootcfg/bootcfg.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILES = 5 };

static const char *const names[FILES] = {
    "(loop0)/boot/grub/grub.cfg", "(loop0)/boot/grub/grubenv", "(loop0)/loader/entries/a.conf",
    "(loop0)/boot/extlinux/extlinux.conf", "(loop0)/boot/grub/custom.cfg"};

static char *text(void *opaque, const char *path)
{
    char **files = opaque;
    for (unsigned i = 0; i < FILES; i++)
        if (files[i] && !strcmp(path, names[i]))
            return strdup(files[i]);
    return NULL;
}

static char *list(void *opaque, const char *path)
{
    char **files = opaque;
    return strdup(files[4] ? files[4] : "a.conf\nvmlinuz\n");
}

static char *describe(void *opaque, const char *device)
{
    char **files = opaque;
    return files[1] ? strdup(files[1]) : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char devices[1][BOOTCFG_DEVICE_BYTES] = {"loop0"};
    char *files[FILES] = {0};
    char *copy = malloc(size + 1), *at = copy;
    struct bootcfg_choice *choice = malloc(sizeof(*choice));
    assert(copy && choice);
    memcpy(copy, data, size);
    copy[size] = '\0';
    uint8_t kinds = size ? data[0] : 0;
    at += size > 0;
    for (unsigned i = 0; i < FILES && at < copy + size; i++) {
        if (!(kinds >> i & 1))
            continue;
        files[i] = at;
        at += strlen(at) + 1;
    }
    const struct bootcfg_files world = {text, list, describe, devices, 1, files};
    if (bootcfg_find(&world, choice, NULL)) {
        assert(choice->kernel[0] == '(' && strlen(choice->kernel) < BOOTCFG_PATH_BYTES);
        assert(choice->initrd_count <= BOOTCFG_MAX_INITRDS);
        for (unsigned i = 0; i < choice->initrd_count; i++)
            assert(strlen(choice->initrds[i]) < BOOTCFG_PATH_BYTES);
        assert(strlen(choice->cmdline) < BOOTCFG_CMDLINE_BYTES);
    }
    free(choice);
    free(copy);
    return 0;
}
