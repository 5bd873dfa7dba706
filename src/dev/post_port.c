/* SPDX-License-Identifier: BSD-2-Clause
 *
 * POST ports. Each reads as what was written to it last, as the latch of the DMA page register
 * there does. vCPU threads use them; the latches are atomic bytes, so there is no lock.
 */
#include "dev/post_port.h"

#include "dev/char_out.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

struct latch {
    struct post_port *device;
    _Atomic uint8_t value;
};

struct post_port {
    struct post_port_config config;
    struct bus *bus;
    struct char_out *out;
    struct latch latch[POST_PORTS_MAX];
};

static uint64_t post_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    const struct latch *latch = opaque;
    return UINT64_C(0xffffff00) | atomic_load(&latch->value);
}

static void post_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct latch *latch = opaque;
    atomic_store(&latch->value, (uint8_t)value);
    char_out_put(latch->device->out, (uint8_t)value);
}

static void unmap(struct post_port *post, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        bus_unmap(post->bus, BUS_PORT, post->config.ports[i]);
}

static bool map(struct post_port *post, struct error *err)
{
    for (unsigned i = 0; i < post->config.port_count; i++) {
        post->latch[i].device = post;
        const struct bus_range range = {"post",    BUS_PORT,   post->config.ports[i], 1,
                                        post_read, post_write, &post->latch[i]};
        if (!bus_map(post->bus, &range, err)) {
            unmap(post, i);
            return false;
        }
    }
    return true;
}

struct post_port *post_port_create(const struct post_port_config *config, struct bus *bus,
                                   struct error *err)
{
    assert(config->port_count <= POST_PORTS_MAX);
    struct post_port *post = calloc(1, sizeof(*post));
    if (!post) {
        error_set(err, "cannot create device", "post", "out of memory");
        return NULL;
    }
    post->config = *config;
    post->bus = bus;
    post->out = char_out_open("post", config->backend, config->log, err);
    if (!post->out || !map(post, err)) {
        char_out_close(post->out);
        free(post);
        return NULL;
    }
    return post;
}

static void post_reset(void *device)
{
    struct post_port *post = device;
    for (unsigned i = 0; i < POST_PORTS_MAX; i++)
        atomic_store(&post->latch[i].value, 0);
}

static void post_save(void *device, struct save *save)
{
    struct post_port *post = device;
    for (unsigned i = 0; i < POST_PORTS_MAX; i++)
        save_u8(save, atomic_load(&post->latch[i].value));
}

static bool post_load(void *device, struct load *load, uint32_t version)
{
    struct post_port *post = device;
    if (version != post_port_ops.version)
        load_fail(load);
    for (unsigned i = 0; i < POST_PORTS_MAX; i++)
        atomic_store(&post->latch[i].value, load_u8(load));
    if (load->failed)
        post_reset(post);
    return !load->failed;
}

static void post_destroy(void *device)
{
    struct post_port *post = device;
    unmap(post, post->config.port_count);
    char_out_close(post->out);
    free(post);
}

const struct device_ops post_port_ops = {
    .name = "post",
    .version = 1,
    .reset = post_reset,
    .save = post_save,
    .load = post_load,
    .destroy = post_destroy,
};
