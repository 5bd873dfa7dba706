/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Files of a guest's file systems, read from its disk image by GRUB's own drivers: ext2 to ext4,
 * XFS, btrfs, FAT and others, in partitions, LVM and RAID. They run as a process of their own
 * (grub-fstest, of Debian's package grub-common) with little memory and time, since an image is not
 * trusted. Nothing is written. What a guest writes meanwhile may be seen half.
 *
 * Paths are GRUB's: "(loop0,gpt2)/boot/vmlinuz"; the image is loop0.
 */
#ifndef SKEP_HOST_FS_READER_H
#define SKEP_HOST_FS_READER_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { FS_READER_TEXT_MAX_BYTES = 4 << 20 };

/* All functions take some tens of milliseconds, at most a minute, on the calling thread. `image` is
 * a raw image or block device. */

/* Names of devices with file systems or partitions, one a line, as "loop0,gpt1". The caller frees
 * it; NULL: `err` tells, with what to install where the program is missing. */
char *fs_reader_devices(const char *image, struct error *err);

/* What GRUB says of a device: "Partition loop0,gpt1: Filesystem type ext* - Label `x' - …, UUID …".
 * The caller frees it; NULL: nothing is known of it. */
char *fs_reader_describe(const char *image, const char *device);

/* The names in a folder, one a line, folders with a slash behind. The caller frees it; NULL: it is
 * not there or can't be read. */
char *fs_reader_list(const char *image, const char *path);

/* A file of text, cut at the first NUL; the caller frees it. NULL: it is not there, can't be read,
 * or is larger than FS_READER_TEXT_MAX_BYTES. */
char *fs_reader_text(const char *image, const char *path);

/* A whole file, as a descriptor of a file in memory that is the caller's. -1: `err` tells. */
int fs_reader_copy(const char *image, const char *path, uint64_t max_bytes, struct error *err);

#endif
