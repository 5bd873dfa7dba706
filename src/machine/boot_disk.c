/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Asks host/fs_reader.h for what bootcfg wants to know. A hostile configuration may ask without
 * end, so questions are counted.
 */
#include "machine/boot_disk.h"

#include "host/fs_reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_QUESTIONS = 400 };
#define KERNEL_MAX_BYTES (UINT64_C(256) << 20)
#define INITRD_MAX_BYTES (UINT64_C(2) << 30)

struct reading {
    const char *image;
    char devices[BOOTCFG_MAX_DEVICES][BOOTCFG_DEVICE_BYTES];
    char *described[BOOTCFG_MAX_DEVICES]; /* what was asked already */
    unsigned device_count, questions;
};

static char *read_text(void *opaque, const char *path)
{
    struct reading *reading = opaque;
    return reading->questions++ < MAX_QUESTIONS ? fs_reader_text(reading->image, path) : NULL;
}

static char *read_list(void *opaque, const char *path)
{
    struct reading *reading = opaque;
    return reading->questions++ < MAX_QUESTIONS ? fs_reader_list(reading->image, path) : NULL;
}

static char *describe(void *opaque, const char *device)
{
    struct reading *reading = opaque;
    for (unsigned i = 0; i < reading->device_count; i++) {
        if (strcmp(reading->devices[i], device) != 0)
            continue;
        if (!reading->described[i])
            reading->described[i] = fs_reader_describe(reading->image, device);
        return reading->described[i] ? strdup(reading->described[i]) : NULL;
    }
    return NULL;
}

/* A disk with partitions is no file system itself; one without is. */
static void take_devices(struct reading *reading, char *list)
{
    for (char *rest = list, *name; (name = strsep(&rest, "\n"));) {
        size_t length = strlen(name);
        if (!length || length >= BOOTCFG_DEVICE_BYTES ||
            reading->device_count == BOOTCFG_MAX_DEVICES)
            continue;
        memcpy(reading->devices[reading->device_count++], name, length + 1);
    }
}

static bool find_on(struct reading *reading, struct bootcfg_choice *choice, struct error *err)
{
    char *list = fs_reader_devices(reading->image, err);
    if (!list)
        return false;
    take_devices(reading, list);
    free(list);
    const struct bootcfg_files files = {
        .text = read_text,
        .list = read_list,
        .describe = describe,
        .devices = (const char(*)[BOOTCFG_DEVICE_BYTES])reading->devices,
        .device_count = reading->device_count,
        .opaque = reading,
    };
    bool found = bootcfg_find(&files, choice, err);
    if (!found && err)
        snprintf(err->where, sizeof(err->where), "%s", reading->image);
    for (unsigned i = 0; i < reading->device_count; i++)
        free(reading->described[i]);
    return found;
}

static struct boot_file *take_file(const char *what, const char *image, const char *path,
                                   uint64_t max_bytes, struct error *err)
{
    int fd = fs_reader_copy(image, path, max_bytes, err);
    return fd >= 0 ? boot_file_take(what, path, fd, err) : NULL;
}

static bool take_files(struct boot_disk *disk, const char *image,
                       const struct bootcfg_choice *choice, struct error *err)
{
    disk->kernel = take_file("kernel", image, choice->kernel, KERNEL_MAX_BYTES, err);
    if (!disk->kernel)
        return false;
    for (unsigned i = 0; i < choice->initrd_count; i++) {
        disk->initrds[i] = take_file("initrd", image, choice->initrds[i], INITRD_MAX_BYTES, err);
        if (!disk->initrds[i])
            return false;
        disk->initrd_count++;
    }
    return true;
}

/* Without a serial console a person would see nothing of what is started. */
static bool take_texts(struct boot_disk *disk, const char *image,
                       const struct bootcfg_choice *choice, const char *more)
{
    bool has_console = strstr(choice->cmdline, "console=") || (more && strstr(more, "console="));
    if (asprintf(&disk->cmdline, "%s%s%s%s", choice->cmdline, has_console ? "" : " console=ttyS0",
                 more ? " " : "", more ? more : "") < 0)
        disk->cmdline = NULL;
    if (asprintf(&disk->summary, "'%s': %s, by %s of %s", choice->title, choice->kernel,
                 choice->config, image) < 0)
        disk->summary = NULL;
    return disk->cmdline && disk->summary;
}

bool boot_disk_read(struct boot_disk *disk, const char *const *images, unsigned image_count,
                    const char *more, struct error *err)
{
    struct bootcfg_choice *choice = calloc(1, sizeof(*choice));
    struct reading *reading = calloc(1, sizeof(*reading));
    bool found = false;
    memset(disk, 0, sizeof(*disk));
    if (!choice || !reading) {
        error_errno(err, "cannot read the guest's disk", NULL, ENOMEM);
        image_count = 0;
    }
    for (unsigned i = 0; !found && i < image_count; i++) {
        memset(reading, 0, sizeof(*reading));
        reading->image = images[i];
        found = find_on(reading, choice, err);
    }
    bool ok = found && take_files(disk, reading->image, choice, err);
    if (ok && !take_texts(disk, reading->image, choice, more))
        ok = error_errno(err, "cannot read the guest's disk", reading->image, ENOMEM);
    free(choice);
    free(reading);
    if (!ok)
        boot_disk_free(disk);
    return ok;
}

void boot_disk_free(struct boot_disk *disk)
{
    boot_file_close(disk->kernel);
    for (unsigned i = 0; i < disk->initrd_count; i++)
        boot_file_close(disk->initrds[i]);
    free(disk->cmdline);
    free(disk->summary);
    memset(disk, 0, sizeof(*disk));
}
