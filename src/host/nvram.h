/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The file that keeps a machine's firmware variables: made from a template the first time, locked
 * while it is in use, written in place.
 */
#ifndef SKEP_HOST_NVRAM_H
#define SKEP_HOST_NVRAM_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NVRAM_MAX_BYTES = 8 << 20 };

struct nvram;

struct nvram_config {
    const char *path;
    /* What it is made of when it isn't there: it then comes into being whole or not at all. NULL:
     * it must be there. */
    const char *template_path;
    const struct log *log; /* may be NULL */
};

/* Fails when the file is in use, is no regular file, or is not of whole blocks of 4 KiB up to
 * NVRAM_MAX_BYTES. */
struct nvram *nvram_open(const struct nvram_config *config, struct error *err);
void nvram_close(struct nvram *nvram); /* NULL is fine */

/* Its contents in memory, whole pages, until it is closed; whoever changes them calls
 * nvram_write(). */
uint8_t *nvram_bytes(struct nvram *nvram);
uint64_t nvram_size_bytes(const struct nvram *nvram);

/* Writes to the file, as struct pflash_store wants it. False: logged. Any thread. */
bool nvram_write(void *nvram, uint64_t offset, const void *bytes, size_t size_bytes);

#endif
