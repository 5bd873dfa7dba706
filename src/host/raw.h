/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Raw image files and block devices of the host as disks.
 *
 * A file whose size is not a multiple of 512 is rounded up, as QEMU does: what lies behind its end
 * reads as zeroes, and a write there makes it longer.
 */
#ifndef SKEP_HOST_RAW_H
#define SKEP_HOST_RAW_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/block.h"

struct raw_config {
    const char *path;
    bool read_only;
    bool is_surely_raw;    /* do not look for the marks of other formats (",format=raw") */
    const char *new_size;  /* what to make it with when it is missing, as "10G"; NULL: it has to be
                              there already */
    const struct log *log; /* may be NULL */
};

/* Opens the image, locks it (exclusively, or shared when read-only) and fills `out`, which
 * out->close frees. Fails, with a hint, for what is missing, a directory, empty, in another format,
 * locked by someone else or not permitted. On the loop's thread. */
bool raw_open(const struct raw_config *config, struct loop *loop, struct block_backend *out,
              struct error *err);

#endif
