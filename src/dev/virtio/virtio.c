/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The core of a virtio device: status and feature negotiation (virtio 1.2, 2.1, 2.2, 3.1), queues,
 * reset; what is left out and which threads run it: see virtio.h.
 *
 * A reset while back ends still work on guest memory does not end at once: everything is as after
 * reset, but the status register keeps its old value (and the queue's reset register reads 1) until
 * the last of them has let go. Drivers wait for that (2.4.1, 2.6.1.2.1).
 */
#include "dev/virtio/virtio.h"

#include "base/wake.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct virtio_device {
    struct virtio_config config;
    uint64_t offered;
    pthread_mutex_t lock;
    struct virtio_transport transport;
    struct log_limit limit;
    struct wake *wake; /* a queue is to be served on */

    uint8_t status;
    uint8_t generation;
    bool resetting; /* waits for holds to end */
    uint64_t driver_features;
    unsigned holds;
    struct virtio_queue *queues;
    bool *queue_resetting;
};

/* ---- queues' hooks ---- */

static void queue_interrupt(void *opaque, unsigned index)
{
    struct virtio_device *device = opaque;
    if (virtio_live(device) && device->transport.interrupt)
        device->transport.interrupt(device->transport.opaque, (int)index);
}

static void queue_broken(void *opaque, unsigned index, const char *why)
{
    struct virtio_device *device = opaque;
    log_limited(device->config.log, &device->limit, LOG_WARNING, device->config.ops->name,
                "queue %u is broken: %s", index, why);
    virtio_needs_reset(device, NULL);
}

/* ---- life ---- */

static void on_wake(void *opaque)
{
    virtio_kick_all(opaque);
}

static void device_free(struct virtio_device *device)
{
    wake_close(device->wake);
    free(device->queues);
    free(device->queue_resetting);
    free(device);
}

struct virtio_device *virtio_create(const struct virtio_config *config, struct error *err)
{
    unsigned count = config->queue_count;
    assert(count >= 1 && count <= VIRTIO_QUEUE_COUNT_MAX);
    assert(config->config_size_bytes <= VIRTIO_CONFIG_MAX_BYTES);
    assert(!config->config_size_bytes || config->ops->config_read);
    struct virtio_device *device = calloc(1, sizeof(*device));
    if (device) {
        device->queues = calloc(count, sizeof(*device->queues));
        device->queue_resetting = calloc(count, sizeof(*device->queue_resetting));
    }
    if (!device || !device->queues || !device->queue_resetting) {
        if (device)
            device_free(device);
        error_set(err, "cannot create device", config->ops->name, "out of memory");
        return NULL;
    }
    device->wake = wake_open(config->loop, on_wake, device, err);
    if (!device->wake) {
        device_free(device);
        return NULL;
    }
    device->config = *config;
    device->offered = (config->features | VIRTIO_CORE_FEATURES) & ~config->features_off;
    pthread_mutex_init(&device->lock, NULL);
    struct virtio_queue_hooks hooks = {queue_interrupt, queue_broken, device};
    for (unsigned i = 0; i < count; i++)
        virtio_queue_init(&device->queues[i], config->ram, i, config->queue_sizes[i], &hooks);
    device->config.queue_sizes = NULL;
    return device;
}

void virtio_destroy(struct virtio_device *device)
{
    if (!device)
        return;
    assert(!device->holds);
    device->config.ops->destroy(device->config.self);
    pthread_mutex_destroy(&device->lock);
    device_free(device);
}

void virtio_lock(struct virtio_device *device)
{
    pthread_mutex_lock(&device->lock);
}

void virtio_unlock(struct virtio_device *device)
{
    pthread_mutex_unlock(&device->lock);
}

/* ---- for device types ---- */

struct virtio_queue *virtio_queue(struct virtio_device *device, unsigned index)
{
    assert(index < device->config.queue_count);
    return &device->queues[index];
}

uint64_t virtio_features(const struct virtio_device *device)
{
    return device->status & VIRTIO_STATUS_FEATURES_OK && !device->resetting
               ? device->driver_features
               : 0;
}

bool virtio_has(const struct virtio_device *device, uint64_t feature)
{
    return (virtio_features(device) & feature) == feature;
}

bool virtio_live(const struct virtio_device *device)
{
    return !device->resetting &&
           (device->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET |
                              VIRTIO_STATUS_FAILED)) == VIRTIO_STATUS_DRIVER_OK;
}

static void config_interrupt(struct virtio_device *device)
{
    if (device->transport.interrupt)
        device->transport.interrupt(device->transport.opaque, VIRTIO_INTERRUPT_CONFIG);
}

void virtio_config_changed(struct virtio_device *device)
{
    device->generation++;
    if (virtio_live(device))
        config_interrupt(device);
}

void virtio_needs_reset(struct virtio_device *device, const char *why)
{
    if (why)
        log_limited(device->config.log, &device->limit, LOG_WARNING, device->config.ops->name,
                    "needs a reset: %s", why);
    bool was_live = virtio_live(device);
    if (!device->resetting)
        device->status |= VIRTIO_STATUS_NEEDS_RESET;
    /* 2.1.2: the driver is told only once it is up. */
    if (was_live)
        config_interrupt(device);
}

void virtio_hold(struct virtio_device *device, unsigned queue)
{
    assert(queue < device->config.queue_count);
    device->queues[queue].holds++;
    device->holds++;
}

void virtio_release(struct virtio_device *device, unsigned queue)
{
    assert(queue < device->config.queue_count);
    assert(device->holds && device->queues[queue].holds);
    device->holds--;
    if (--device->queues[queue].holds == 0)
        device->queue_resetting[queue] = false;
    if (device->holds == 0 && device->resetting) {
        device->resetting = false;
        device->status = 0;
    }
}

void virtio_serve(struct virtio_device *device, unsigned index, virtio_take_fn *take)
{
    struct virtio_queue *q = virtio_queue(device, index);
    enum virtio_taken taken = VIRTIO_NONE;
    unsigned left = q->size;
    do {
        virtio_queue_suppress(q);
        while (left && virtio_live(device) &&
               (taken = take(device->config.self, index)) == VIRTIO_TAKEN)
            left--;
    } while (left && taken == VIRTIO_NONE && virtio_live(device) && virtio_queue_listen(q));
    if (!left)
        wake_ring(device->wake);
    virtio_queue_notify(q);
}

void *virtio_self(const struct virtio_device *device)
{
    return device->config.self;
}

const struct log *virtio_log(const struct virtio_device *device)
{
    return device->config.log;
}

struct log_limit *virtio_log_limit(struct virtio_device *device)
{
    return &device->limit;
}

struct ram *virtio_ram(const struct virtio_device *device)
{
    return device->config.ram;
}

/* ---- for a transport ---- */

void virtio_set_transport(struct virtio_device *device, const struct virtio_transport *transport)
{
    device->transport = *transport;
}

const struct virtio_ops *virtio_ops(const struct virtio_device *device)
{
    return device->config.ops;
}

unsigned virtio_queue_count(const struct virtio_device *device)
{
    return device->config.queue_count;
}

uint32_t virtio_config_size(const struct virtio_device *device)
{
    return device->config.config_size_bytes;
}

uint64_t virtio_offered(const struct virtio_device *device)
{
    return device->offered;
}

uint8_t virtio_status(struct virtio_device *device)
{
    virtio_lock(device);
    uint8_t status = device->status;
    virtio_unlock(device);
    return status;
}

uint8_t virtio_generation(struct virtio_device *device)
{
    virtio_lock(device);
    uint8_t generation = device->generation;
    virtio_unlock(device);
    return generation;
}

/* With the lock held. */
static void device_reset(struct virtio_device *device)
{
    device->driver_features = 0;
    for (unsigned i = 0; i < device->config.queue_count; i++) {
        virtio_queue_reset(&device->queues[i]);
        device->queue_resetting[i] = false;
    }
    device->resetting = device->holds != 0;
    if (!device->resetting)
        device->status = 0;
    device->config.ops->reset(device->config.self);
    if (device->transport.reset)
        device->transport.reset(device->transport.opaque);
}

/* Whether the driver's choice can be worked with (2.2.2, 6.2). */
static bool features_acceptable(const struct virtio_device *device)
{
    uint64_t features = device->driver_features;
    if (features & ~device->offered || !(features & VIRTIO_F_VERSION_1))
        return false;
    const struct virtio_ops *ops = device->config.ops;
    return !ops->features_check || ops->features_check(device->config.self, features);
}

static void kick_queues(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->config.queue_count && virtio_live(device); i++) {
        if (device->queues[i].enabled)
            device->config.ops->kick(device->config.self, i);
    }
}

/* With the lock held: bits that the driver sets; it never takes one back but by reset. */
static void status_add(struct virtio_device *device, uint8_t status)
{
    uint8_t added = status & (uint8_t)~device->status;
    device->status |=
        added & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED);
    if (added & VIRTIO_STATUS_FEATURES_OK && features_acceptable(device))
        device->status |= VIRTIO_STATUS_FEATURES_OK;
    if (!(added & VIRTIO_STATUS_DRIVER_OK) || !(device->status & VIRTIO_STATUS_FEATURES_OK))
        return;
    device->status |= VIRTIO_STATUS_DRIVER_OK;
    if (!virtio_live(device)) {
        /* A queue broke while it was set up; now the driver is to know. */
        if (device->status & VIRTIO_STATUS_NEEDS_RESET)
            config_interrupt(device);
        return;
    }
    if (device->config.ops->start)
        device->config.ops->start(device->config.self);
    kick_queues(device);
}

void virtio_set_status(struct virtio_device *device, uint8_t status)
{
    virtio_lock(device);
    if (device->resetting)
        log_limited(device->config.log, &device->limit, LOG_DEBUG, device->config.ops->name,
                    "status 0x%02x was written while a reset is under way", status);
    else if (status == 0)
        device_reset(device);
    else
        status_add(device, status);
    virtio_unlock(device);
}

uint32_t virtio_driver_features(struct virtio_device *device, uint32_t window)
{
    virtio_lock(device);
    uint32_t bits = window < 2 ? (uint32_t)(device->driver_features >> (32 * window)) : 0;
    virtio_unlock(device);
    return bits;
}

void virtio_set_driver_features(struct virtio_device *device, uint32_t window, uint32_t bits)
{
    virtio_lock(device);
    if (window < 2 && !device->resetting && !(device->status & VIRTIO_STATUS_FEATURES_OK)) {
        device->driver_features &= ~((uint64_t)UINT32_MAX << (32 * window));
        device->driver_features |= (uint64_t)bits << (32 * window);
    }
    virtio_unlock(device);
}

bool virtio_queue_get(struct virtio_device *device, unsigned index, struct virtio_queue_setup *out)
{
    memset(out, 0, sizeof(*out));
    if (index >= device->config.queue_count)
        return false;
    virtio_lock(device);
    const struct virtio_queue *q = &device->queues[index];
    *out = (struct virtio_queue_setup){.size = q->size,
                                       .enabled = q->enabled,
                                       .resetting = device->queue_resetting[index],
                                       .descriptor_gpa = q->descriptor_gpa,
                                       .driver_gpa = q->driver_gpa,
                                       .device_gpa = q->device_gpa};
    virtio_unlock(device);
    return true;
}

/* A queue may be set up: not enabled, and no reset of it or the device is under way. */
static bool queue_open_for_setup(const struct virtio_device *device, unsigned index)
{
    return !device->resetting && !device->queue_resetting[index] && !device->queues[index].enabled;
}

void virtio_queue_set(struct virtio_device *device, unsigned index,
                      const struct virtio_queue_setup *setup)
{
    if (index >= device->config.queue_count)
        return;
    virtio_lock(device);
    if (queue_open_for_setup(device, index)) {
        struct virtio_queue *q = &device->queues[index];
        q->size = setup->size;
        q->descriptor_gpa = setup->descriptor_gpa;
        q->driver_gpa = setup->driver_gpa;
        q->device_gpa = setup->device_gpa;
    }
    virtio_unlock(device);
}

void virtio_queue_start(struct virtio_device *device, unsigned index)
{
    if (index >= device->config.queue_count)
        return;
    virtio_lock(device);
    if (queue_open_for_setup(device, index) && device->status & VIRTIO_STATUS_FEATURES_OK) {
        bool enabled = virtio_queue_enable(
            &device->queues[index], virtio_has(device, VIRTIO_F_RING_PACKED),
            virtio_has(device, VIRTIO_F_EVENT_IDX), virtio_has(device, VIRTIO_F_INDIRECT_DESC));
        if (enabled && virtio_live(device))
            device->config.ops->kick(device->config.self, index);
    }
    virtio_unlock(device);
}

void virtio_queue_stop(struct virtio_device *device, unsigned index)
{
    if (index >= device->config.queue_count)
        return;
    virtio_lock(device);
    if (!device->resetting && virtio_has(device, VIRTIO_F_RING_RESET) &&
        device->queues[index].enabled) {
        virtio_queue_reset(&device->queues[index]);
        device->queue_resetting[index] = device->queues[index].holds != 0;
        if (device->config.ops->queue_reset)
            device->config.ops->queue_reset(device->config.self, index);
    }
    virtio_unlock(device);
}

static bool config_range_valid(const struct virtio_device *device, uint32_t offset,
                               uint32_t size_bytes)
{
    return offset < device->config.config_size_bytes &&
           size_bytes <= device->config.config_size_bytes - offset;
}

void virtio_config_read(struct virtio_device *device, uint32_t offset, void *buffer,
                        uint32_t size_bytes)
{
    memset(buffer, 0, size_bytes);
    virtio_lock(device);
    if (config_range_valid(device, offset, size_bytes))
        device->config.ops->config_read(device->config.self, offset, buffer, size_bytes);
    virtio_unlock(device);
}

void virtio_config_write(struct virtio_device *device, uint32_t offset, const void *buffer,
                         uint32_t size_bytes)
{
    virtio_lock(device);
    if (config_range_valid(device, offset, size_bytes) && device->config.ops->config_write)
        device->config.ops->config_write(device->config.self, offset, buffer, size_bytes);
    virtio_unlock(device);
}

void virtio_kick(struct virtio_device *device, unsigned index)
{
    if (index >= device->config.queue_count)
        return;
    virtio_lock(device);
    if (virtio_live(device) && device->queues[index].enabled)
        device->config.ops->kick(device->config.self, index);
    virtio_unlock(device);
}

void virtio_kick_all(struct virtio_device *device)
{
    virtio_lock(device);
    kick_queues(device);
    virtio_unlock(device);
}

void virtio_reset(struct virtio_device *device)
{
    virtio_lock(device);
    assert(!device->holds);
    device_reset(device);
    device->generation = 0;
    virtio_unlock(device);
}

/* ---- saved state ---- */

void virtio_save(struct virtio_device *device, struct save *save)
{
    virtio_lock(device);
    assert(!device->holds);
    save_u16(save, device->config.ops->type);
    save_u32(save, device->config.ops->version);
    save_u64(save, device->offered);
    save_u8(save, device->status);
    save_u8(save, device->generation);
    save_u64(save, device->driver_features);
    save_u32(save, device->config.queue_count);
    for (unsigned i = 0; i < device->config.queue_count; i++)
        virtio_queue_save(&device->queues[i], save);
    device->config.ops->save(device->config.self, save);
    virtio_unlock(device);
}

/* With the lock held. The type, features and queues must be this device's. */
static bool load_all(struct virtio_device *device, struct load *load)
{
    if (load_u16(load) != device->config.ops->type)
        load_fail(load);
    uint32_t version = load_u32(load);
    if (version > device->config.ops->version || load_u64(load) != device->offered)
        load_fail(load);
    device->status = load_u8(load);
    device->generation = load_u8(load);
    device->driver_features = load_u64(load);
    if (device->status & VIRTIO_STATUS_FEATURES_OK && !features_acceptable(device))
        load_fail(load);
    if (load_u32(load) != device->config.queue_count)
        load_fail(load);
    for (unsigned i = 0; !load->failed && i < device->config.queue_count; i++) {
        struct virtio_queue *q = &device->queues[i];
        if (virtio_queue_load(q, load) && q->enabled &&
            (q->packed != virtio_has(device, VIRTIO_F_RING_PACKED) ||
             q->event_idx != virtio_has(device, VIRTIO_F_EVENT_IDX) ||
             q->indirect != virtio_has(device, VIRTIO_F_INDIRECT_DESC)))
            load_fail(load);
    }
    return !load->failed && device->config.ops->load(device->config.self, load, version) &&
           !load->failed;
}

bool virtio_load(struct virtio_device *device, struct load *load)
{
    virtio_lock(device);
    assert(!device->holds);
    device_reset(device);
    bool loaded = load_all(device, load);
    if (!loaded) {
        load_fail(load);
        device_reset(device);
    }
    virtio_unlock(device);
    return loaded;
}
