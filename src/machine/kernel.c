/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The files that a machine starts its guest from: kernel, initrds or Multiboot modules as given, or
 * what its disk's boot loader would take. Runs on the machine's thread.
 */
#include "machine/machine_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool open_initrd(struct machine *machine, const char *what, const char *path,
                        struct error *err)
{
    if (machine->initrd_count == MACHINE_MAX_INITRDS)
        return error_usage(err, "cannot make a machine", NULL,
                           "there are too many modules: at most %d", MACHINE_MAX_INITRDS);
    machine->initrds[machine->initrd_count] = boot_file_open(what, path, err);
    return machine->initrds[machine->initrd_count++];
}

/* The next of "FILE ARGUMENTS,FILE ARGUMENTS", where ",," is a comma; *list moves on, to NULL after
 * the last. The caller frees it; NULL: out of memory. */
static char *next_module(const char **list)
{
    const char *at = *list;
    char *text = malloc(strlen(at) + 1);
    char *out = text;
    if (!text)
        return NULL;
    while (*at && (*at != ',' || at[1] == ',')) {
        at += *at == ',';
        *out++ = *at++;
    }
    *out = '\0';
    *list = *at ? at + 1 : NULL;
    return text;
}

/* The kernel is told the whole text, as by QEMU. */
static bool open_modules(struct machine *machine, const char *list, struct error *err)
{
    while (list) {
        char *text = next_module(&list);
        char *path = text ? strndup(text, strcspn(text, " ")) : NULL;
        bool ok = path ? open_initrd(machine, "module", path, err)
                       : error_errno(err, "cannot open module", NULL, ENOMEM);
        free(path);
        if (!ok) {
            free(text);
            return false;
        }
        machine->module_texts[machine->initrd_count - 1] = text;
    }
    return true;
}

/* Drops what was read before. */
bool kernel_read_disk(struct machine *machine, struct error *err)
{
    const struct machine_config *config = &machine->config;
    const char *images[MACHINE_MAX_DISKS];
    unsigned count = 0;
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct machine_disk *disk = &config->disks[i];
        if (disk->path && !disk->is_cdrom && disk->bus != MACHINE_DISK_FLOPPY)
            images[count++] = disk->path;
    }
    boot_disk_free(&machine->disk_files);
    machine->kernel = NULL;
    machine->initrd_count = 0;
    if (!count) {
        error_usage(err, "cannot take the kernel from a disk", NULL, "there is no disk");
        return error_hint(err, "add --disk IMAGE");
    }
    if (!boot_disk_read(&machine->disk_files, images, count, config->cmdline, err))
        return false;
    machine->kernel = machine->disk_files.kernel;
    machine->initrd_count = machine->disk_files.initrd_count;
    memcpy(machine->initrds, machine->disk_files.initrds, sizeof(machine->disk_files.initrds));
    return true;
}

bool kernel_open(struct machine *machine, struct error *err)
{
    const struct machine_config *config = &machine->config;
    if (config->kernel_from_disk)
        return kernel_read_disk(machine, err);
    if (!config->kernel && config->rom)
        return true;
    if (!config->kernel) {
        error_usage(err, "cannot make a machine", NULL, "no kernel is given");
        return error_hint(err, "a kernel is /boot/vmlinuz-… of an x86-64 Linux");
    }
    machine->kernel = boot_file_open("kernel", config->kernel, err);
    if (!machine->kernel)
        return false;
    bool takes_modules = boot_takes_modules(machine->kernel);
    for (unsigned i = 0; i < config->initrd_count; i++)
        if (!(takes_modules ? open_modules(machine, config->initrds[i], err)
                            : open_initrd(machine, "initrd", config->initrds[i], err)))
            return false;
    return true;
}

void kernel_close(struct machine *machine)
{
    bool are_disks = machine->config.kernel_from_disk;
    boot_disk_free(&machine->disk_files);
    boot_file_close(are_disks ? NULL : machine->kernel);
    for (unsigned i = 0; i < MACHINE_MAX_INITRDS; i++) {
        boot_file_close(are_disks ? NULL : machine->initrds[i]);
        free(machine->module_texts[i]);
    }
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        free(machine->media[i]);
}
