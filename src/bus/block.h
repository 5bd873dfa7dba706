/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What backs a disk. The device submits requests from any thread; the back end completes each one
 * exactly once by calling done() on the loop's thread, never from inside submit().
 */
#ifndef SKEP_BUS_BLOCK_H
#define SKEP_BUS_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum block_kind { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

struct block_request {
    enum block_kind kind;
    bool may_unmap;          /* of BLOCK_WRITE_ZEROES: holes may be punched */
    uint64_t offset_bytes;   /* the back end checks offset + size against its size */
    uint64_t size_bytes;     /* for reads and writes the sum of the iov's lengths */
    const struct iovec *iov; /* stays the device's until done() */
    unsigned iov_count;
    void (*done)(struct block_request *request, int error); /* 0 or an errno value */
    void *opaque;
    struct block_request
        *next; /* this and the next: the back end's own while it holds the request */
    int result;
};

struct block_info {
    uint64_t size_bytes; /* a multiple of 512 */
    bool read_only;
    bool can_discard;
    uint32_t physical_block_bytes; /* 512 or more */
    uint32_t discard_granularity_bytes;
    /* When the contents were last changed, as far as the host's file system tells: nanoseconds of
     * UTC; 0: it doesn't (block devices). Asked anew by each info(). */
    int64_t changed_ns;
};

struct block_backend {
    void (*submit)(void *opaque, struct block_request *request);
    void (*info)(void *opaque, struct block_info *info);
    /* Waits until no request is under way; from the loop's thread. Runs their done(). */
    void (*drain)(void *opaque);
    void (*close)(void *opaque); /* drains, flushes, frees */
    void *opaque;
};

#endif
