/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio entropy device (virtio 1.2, 5.4). Requests are answered in the kick, on whichever thread
 * that comes.
 */
#include "dev/virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { QUEUE_SIZE = 64 };

struct virtio_rng {
    struct virtio_device *device;
    struct virtio_chain chain;
};

/* Fills guest memory from the kernel's generator; gives how much, less only if that fails. */
static size_t fill(const struct iovec *piece, unsigned count, size_t limit_bytes)
{
    size_t done = 0;
    for (unsigned i = 0; i < count; i++, piece++) {
        uint8_t *at = piece->iov_base;
        size_t left = piece->iov_len;
        while (left && done < limit_bytes) {
            size_t want = left < limit_bytes - done ? left : limit_bytes - done;
            ssize_t got = getrandom(at, want, 0);
            if (got < 0 && errno == EINTR)
                continue;
            if (got <= 0)
                return done;
            at += got;
            left -= (size_t)got;
            done += (size_t)got;
        }
    }
    return done;
}

static enum virtio_taken take(void *self, unsigned index)
{
    struct virtio_rng *rng = self;
    struct virtio_queue *q = virtio_queue(rng->device, index);
    struct virtio_chain *chain = &rng->chain;
    if (!virtio_queue_pop(q, chain))
        return VIRTIO_NONE;
    size_t written = fill(chain->iov + chain->readable_count, chain->writable_count,
                          VIRTIO_RNG_REQUEST_MAX_BYTES);
    virtio_queue_push(q, chain, written);
    return VIRTIO_TAKEN;
}

static void rng_kick(void *self, unsigned index)
{
    struct virtio_rng *rng = self;
    virtio_serve(rng->device, index, take);
}

static void rng_reset(void *self)
{
    /* Nothing is kept from one kick to the next. */
}

static void rng_save(void *self, struct save *save)
{
    /* All state is the core's. */
}

static bool rng_load(void *self, struct load *load, uint32_t version)
{
    return version == 1;
}

static void rng_destroy(void *self)
{
    free(self);
}

static const struct virtio_ops rng_ops = {
    .name = "virtio-rng",
    .type = VIRTIO_TYPE_RNG,
    .pci_class = 0x00ff00,
    .version = 1,
    .kick = rng_kick,
    .reset = rng_reset,
    .save = rng_save,
    .load = rng_load,
    .destroy = rng_destroy,
};

struct virtio_device *virtio_rng_create(const struct virtio_rng_config *config, struct error *err)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    if (!rng) {
        error_set(err, "cannot create device", rng_ops.name, "out of memory");
        return NULL;
    }
    uint16_t size = QUEUE_SIZE;
    struct virtio_config core = {.ops = &rng_ops,
                                 .self = rng,
                                 .ram = config->ram,
                                 .loop = config->loop,
                                 .log = config->log,
                                 .features = VIRTIO_F_IN_ORDER,
                                 .features_off = config->features_off,
                                 .queue_count = 1,
                                 .queue_sizes = &size};
    rng->device = virtio_create(&core, err);
    if (!rng->device) {
        free(rng);
        return NULL;
    }
    return rng->device;
}
