/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a guest's own boot loader would boot, by its configuration: GRUB's script, Boot Loader
 * Specification entries (systemd-boot, GRUB's blscfg), extlinux. The configuration is the guest's
 * and not trusted: everything is bounded, nothing is run, and nothing is written.
 *
 * Paths are absolute on a device, as "(loop0,gpt2)/boot/vmlinuz".
 */
#ifndef SKEP_MACHINE_BOOTCFG_H
#define SKEP_MACHINE_BOOTCFG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    BOOTCFG_PATH_BYTES = 1024,
    BOOTCFG_CMDLINE_BYTES = 4096,
    BOOTCFG_TITLE_BYTES = 256,
    BOOTCFG_DEVICE_BYTES = 128,
    BOOTCFG_MAX_INITRDS = 8,
    BOOTCFG_MAX_DEVICES = 64,
};

/* How the guest's files are read. */
struct bootcfg_files {
    /* A text file, which the caller frees; NULL: there is none. */
    char *(*text)(void *opaque, const char *path);
    /* The names in a folder, a line each, which the caller frees; NULL: there is none. */
    char *(*list)(void *opaque, const char *path);
    /* What is known of a device: its text holds "UUID …" and "Label `…'"; the caller frees it.
     * NULL: nothing. */
    char *(*describe)(void *opaque, const char *device);
    const char (*devices)[BOOTCFG_DEVICE_BYTES]; /* "loop0,gpt1" … */
    unsigned device_count;
    void *opaque;
};

struct bootcfg_choice {
    char title[BOOTCFG_TITLE_BYTES];
    char kernel[BOOTCFG_PATH_BYTES];
    char initrds[BOOTCFG_MAX_INITRDS][BOOTCFG_PATH_BYTES];
    unsigned initrd_count;
    char cmdline[BOOTCFG_CMDLINE_BYTES];
    char config[BOOTCFG_PATH_BYTES]; /* the file that says so */
};

/* Looks through all devices, and takes the first that has a configuration with a kernel. */
bool bootcfg_find(const struct bootcfg_files *files, struct bootcfg_choice *choice,
                  struct error *err);

/* ---- for the parts of it ---- */

/* Appends a word to a command line, or an initrd to the list; what is too long or too much is left
 * out, and false tells. */
bool bootcfg_add_word(struct bootcfg_choice *choice, const char *word);
bool bootcfg_add_initrd(struct bootcfg_choice *choice, const char *device, const char *path);
/* "(device)path", unless the path names a device itself. */
bool bootcfg_path(char *out, const char *device, const char *path);

/* Each parses the text of one file on a device. False: no kernel is chosen by it. */
bool bootcfg_grub(const struct bootcfg_files *files, const char *device, const char *path,
                  const char *text, struct bootcfg_choice *choice);
bool bootcfg_extlinux(const char *device, const char *folder, char *text,
                      struct bootcfg_choice *choice);
/* The entries in a folder; `wanted`: an entry's file name without .conf, or a pattern of it, or
 * NULL for the newest. `variable` gives what $NAME is in an options line; may be NULL. */
bool bootcfg_bls(const struct bootcfg_files *files, const char *device, const char *folder,
                 const char *wanted, const char *(*variable)(void *opaque, const char *name),
                 void *opaque, struct bootcfg_choice *choice);

#endif
