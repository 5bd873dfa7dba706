/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio memory balloon (virtio 1.2, 5.5): inflate, deflate (also when the guest runs out of
 * memory), statistics, free page reporting. Left out: free page hints and page poisoning, which
 * serve migration. Requests are answered in the kick, on whichever thread that comes.
 *
 * Pages in the balloon or reported free are given back to the host at once. If the guest touches
 * one again, without asking, the host gives it a new one of zeroes: so deflating needs no work.
 */
#include "dev/virtio/balloon.h"

#include <stdlib.h>
#include <string.h>

#define F_STATS_VQ       (UINT64_C(1) << 1)
#define F_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define F_REPORTING      (UINT64_C(1) << 5)

enum {
    QUEUE_COUNT = 4,
    /* 5.5.4: offsets in the configuration; what follows is of features that are left out */
    CONFIG_PAGES = 0,
    CONFIG_ACTUAL = 4,
    CONFIG_BYTES = 16,
    PAGE_BYTES = 4096,
    PFN_BYTES = 4,
    STAT_BYTES = 10,
    PFNS_AT_ONCE = 256,
    PFNS_MAX = 65536, /* of one request; drivers send 256 */
};

/* What a queue is for. Those of features that are not negotiated have no place among the numbers
 * (5.5.2), so which is which depends. */
enum role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_REPORTING, ROLE_NONE };

struct virtio_balloon {
    struct virtio_device *device;
    struct virtio_chain chain;
    uint32_t target_pages, actual_pages; /* in the balloon */
    bool has_stats_buffer;               /* the driver waits to be asked */
    struct virtio_balloon_stats stats;
};

static uint32_t get32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void put32(uint8_t *bytes, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

static enum role role_of(const struct virtio_balloon *balloon, unsigned index)
{
    bool has_stats = virtio_has(balloon->device, F_STATS_VQ);
    bool has_reporting = virtio_has(balloon->device, F_REPORTING);
    if (index < 2)
        return index == 0 ? ROLE_INFLATE : ROLE_DEFLATE;
    if (index == 2 && has_stats)
        return ROLE_STATS;
    if (index == 2 + (unsigned)has_stats && has_reporting)
        return ROLE_REPORTING;
    return ROLE_NONE;
}

static void complain(struct virtio_balloon *balloon, const char *text)
{
    log_limited(virtio_log(balloon->device), virtio_log_limit(balloon->device), LOG_DEBUG,
                "virtio-balloon", "%s", text);
}

/* ---- inflating ---- */

/* Gives pages back, neighbours in one go. */
static void discard_pages(struct virtio_balloon *balloon, const uint8_t *pfns, size_t count)
{
    uint64_t first = 0, pages = 0;
    for (size_t i = 0; i <= count; i++) {
        uint64_t pfn = i < count ? get32(pfns + i * PFN_BYTES) : 0;
        if (i < count && pages > 0 && pfn == first + pages) {
            pages++;
            continue;
        }
        if (pages > 0 &&
            !ram_discard(virtio_ram(balloon->device), first * PAGE_BYTES, pages * PAGE_BYTES))
            complain(balloon, "a page in the balloon is no RAM");
        first = pfn;
        pages = 1;
    }
}

static void inflate(struct virtio_balloon *balloon, const struct virtio_chain *chain)
{
    uint8_t pfns[PFNS_AT_ONCE * PFN_BYTES];
    uint64_t offset = 0;
    while (offset < (uint64_t)PFNS_MAX * PFN_BYTES) {
        size_t n = virtio_chain_read(chain, offset, pfns, sizeof(pfns));
        discard_pages(balloon, pfns, n / PFN_BYTES);
        offset += n;
        if (n < sizeof(pfns))
            return;
    }
    complain(balloon, "a request of too many pages is cut");
}

/* ---- statistics ---- */

static void parse_stats(struct virtio_balloon *balloon, const struct virtio_chain *chain)
{
    uint8_t entry[STAT_BYTES];
    struct virtio_balloon_stats *stats = &balloon->stats;
    stats->serial++;
    stats->valid = 0;
    for (unsigned i = 0; i < 64; i++) {
        if (virtio_chain_read(chain, (uint64_t)i * STAT_BYTES, entry, STAT_BYTES) < STAT_BYTES)
            return;
        unsigned tag = entry[0] | (unsigned)entry[1] << 8;
        if (tag >= BALLOON_STATS)
            continue;
        stats->values[tag] = get32(entry + 2) | (uint64_t)get32(entry + 6) << 32;
        stats->valid |= 1U << tag;
    }
}

/* The driver's buffer stays in the queue until the next request: giving it back is the request. */
static void take_stats(struct virtio_balloon *balloon, struct virtio_queue *q)
{
    if (balloon->has_stats_buffer)
        return;
    do {
        virtio_queue_suppress(q);
        if (virtio_queue_pop(q, &balloon->chain)) {
            parse_stats(balloon, &balloon->chain);
            virtio_queue_unpop(q, &balloon->chain);
            balloon->has_stats_buffer = true;
            return;
        }
    } while (virtio_queue_listen(q));
}

bool virtio_balloon_request_stats(struct virtio_device *device)
{
    struct virtio_balloon *balloon = virtio_self(device);
    bool asked = false;
    virtio_lock(device);
    if (virtio_live(device) && balloon->has_stats_buffer) {
        struct virtio_queue *q = virtio_queue(device, 2);
        balloon->has_stats_buffer = false;
        asked = virtio_queue_pop(q, &balloon->chain);
        if (asked) {
            virtio_queue_push(q, &balloon->chain, 0);
            take_stats(balloon, q); /* in case the next one is there already */
            virtio_queue_notify(q);
        }
    }
    virtio_unlock(device);
    return asked;
}

void virtio_balloon_get_stats(struct virtio_device *device, struct virtio_balloon_stats *stats)
{
    struct virtio_balloon *balloon = virtio_self(device);
    virtio_lock(device);
    *stats = balloon->stats;
    virtio_unlock(device);
}

/* ---- free page reporting ---- */

static void report(struct virtio_balloon *balloon, const struct virtio_queue *q,
                   const struct virtio_chain *chain)
{
    const struct iovec *piece = chain->iov + chain->readable_count;
    for (unsigned i = 0; i < chain->writable_count; i++, piece++) {
        uint64_t gpa;
        if (virtio_queue_gpa(q, piece->iov_base, &gpa))
            (void)ram_discard(virtio_ram(balloon->device), gpa, piece->iov_len);
    }
}

/* ---- struct virtio_ops ---- */

static enum virtio_taken take_pages(void *self, unsigned index)
{
    struct virtio_balloon *balloon = self;
    struct virtio_queue *q = virtio_queue(balloon->device, index);
    enum role role = role_of(balloon, index);
    if (!virtio_queue_pop(q, &balloon->chain))
        return VIRTIO_NONE;
    if (role == ROLE_INFLATE)
        inflate(balloon, &balloon->chain);
    else if (role == ROLE_REPORTING)
        report(balloon, q, &balloon->chain);
    virtio_queue_push(q, &balloon->chain, 0);
    return VIRTIO_TAKEN;
}

static void balloon_kick(void *self, unsigned index)
{
    struct virtio_balloon *balloon = self;
    switch (role_of(balloon, index)) {
    case ROLE_STATS: take_stats(balloon, virtio_queue(balloon->device, index)); break;
    case ROLE_NONE: break;
    default: virtio_serve(balloon->device, index, take_pages); break;
    }
}

static void make_config(const struct virtio_balloon *balloon, uint8_t *config)
{
    memset(config, 0, CONFIG_BYTES);
    put32(config + CONFIG_PAGES, balloon->target_pages);
    put32(config + CONFIG_ACTUAL, balloon->actual_pages);
}

static void balloon_config_read(void *self, uint32_t offset, void *buffer, uint32_t size_bytes)
{
    uint8_t config[CONFIG_BYTES];
    make_config(self, config);
    memcpy(buffer, config + offset, size_bytes);
}

/* `actual` is the driver's word; no more than there is. */
static void balloon_config_write(void *self, uint32_t offset, const void *buffer,
                                 uint32_t size_bytes)
{
    struct virtio_balloon *balloon = self;
    uint8_t config[CONFIG_BYTES];
    uint64_t pages = ram_size_bytes(virtio_ram(balloon->device)) / PAGE_BYTES;
    make_config(balloon, config);
    memcpy(config + offset, buffer, size_bytes);
    uint32_t actual = get32(config + CONFIG_ACTUAL);
    balloon->actual_pages = actual < pages ? actual : (uint32_t)pages;
}

static void balloon_queue_reset(void *self, unsigned index)
{
    struct virtio_balloon *balloon = self;
    if (role_of(balloon, index) == ROLE_STATS)
        balloon->has_stats_buffer = false;
}

/* The target is the host's wish and stays. */
static void balloon_reset(void *self)
{
    struct virtio_balloon *balloon = self;
    balloon->actual_pages = 0;
    balloon->has_stats_buffer = false;
    memset(&balloon->stats, 0, sizeof(balloon->stats));
}

static void balloon_save(void *self, struct save *save)
{
    const struct virtio_balloon *balloon = self;
    save_u32(save, balloon->target_pages);
    save_u32(save, balloon->actual_pages);
    save_bool(save, balloon->has_stats_buffer);
    save_u64(save, balloon->stats.serial);
    save_u32(save, balloon->stats.valid);
    for (unsigned i = 0; i < BALLOON_STATS; i++)
        save_u64(save, balloon->stats.values[i]);
}

static bool balloon_load(void *self, struct load *load, uint32_t version)
{
    struct virtio_balloon *balloon = self;
    uint64_t pages = ram_size_bytes(virtio_ram(balloon->device)) / PAGE_BYTES;
    balloon->target_pages = load_u32(load);
    balloon->actual_pages = load_u32(load);
    balloon->has_stats_buffer = load_bool(load);
    balloon->stats.serial = load_u64(load);
    balloon->stats.valid = load_u32(load);
    for (unsigned i = 0; i < BALLOON_STATS; i++)
        balloon->stats.values[i] = load_u64(load);
    if (balloon->target_pages > pages || balloon->actual_pages > pages ||
        balloon->stats.valid >> BALLOON_STATS ||
        (balloon->has_stats_buffer && !virtio_has(balloon->device, F_STATS_VQ))) {
        balloon->target_pages = 0;
        load_fail(load);
    }
    return !load->failed;
}

static void balloon_destroy(void *self)
{
    free(self);
}

static const struct virtio_ops balloon_ops = {
    .name = "virtio-balloon",
    .type = VIRTIO_TYPE_BALLOON,
    .pci_class = 0x00ff00,
    .version = 1,
    .config_read = balloon_config_read,
    .config_write = balloon_config_write,
    .kick = balloon_kick,
    .queue_reset = balloon_queue_reset,
    .reset = balloon_reset,
    .save = balloon_save,
    .load = balloon_load,
    .destroy = balloon_destroy,
};

struct virtio_device *virtio_balloon_create(const struct virtio_balloon_config *config,
                                            struct error *err)
{
    static const uint16_t sizes[QUEUE_COUNT] = {128, 128, 128, 128};
    struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));
    if (!balloon) {
        error_set(err, "cannot create device", balloon_ops.name, "out of memory");
        return NULL;
    }
    struct virtio_config core = {.ops = &balloon_ops,
                                 .self = balloon,
                                 .ram = config->ram,
                                 .loop = config->loop,
                                 .log = config->log,
                                 .features = F_STATS_VQ | F_DEFLATE_ON_OOM | F_REPORTING,
                                 .features_off = config->features_off,
                                 .config_size_bytes = CONFIG_BYTES,
                                 .queue_count = QUEUE_COUNT,
                                 .queue_sizes = sizes};
    balloon->device = virtio_create(&core, err);
    if (!balloon->device) {
        free(balloon);
        return NULL;
    }
    return balloon->device;
}

void virtio_balloon_set_target(struct virtio_device *device, uint64_t target_bytes)
{
    struct virtio_balloon *balloon = virtio_self(device);
    uint64_t size_bytes = ram_size_bytes(virtio_ram(device));
    uint64_t pages = target_bytes < size_bytes ? (size_bytes - target_bytes) / PAGE_BYTES : 0;
    virtio_lock(device);
    if (pages != balloon->target_pages) {
        balloon->target_pages = (uint32_t)pages; /* below 2^32: RAM is below 16 TiB */
        virtio_config_changed(device);
    }
    virtio_unlock(device);
}

uint64_t virtio_balloon_actual_bytes(struct virtio_device *device)
{
    struct virtio_balloon *balloon = virtio_self(device);
    virtio_lock(device);
    uint64_t in_balloon = (uint64_t)balloon->actual_pages * PAGE_BYTES;
    virtio_unlock(device);
    return ram_size_bytes(virtio_ram(device)) - in_balloon;
}
