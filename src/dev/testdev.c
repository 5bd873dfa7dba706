/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Test device. No chip has it; QEMU's hw/misc/pc-testdev is what programs are written for. The port
 * at flush_base takes the page away from every engine and gives it back at once: contents stay,
 * translations and decoded code of it are made anew. Runs on vCPU threads, under one lock.
 */
#include "dev/testdev.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_PORTS = 4, FLUSH_PORTS = 4, MEMORY_BYTES = 0x10000, RANGES = 4 };

struct testdev {
    pthread_mutex_t lock;
    struct testdev_config config;
    struct bus *bus;
    struct bus_range ranges[RANGES];
    uint32_t levels; /* of the GSIs */
    uint8_t value[VALUE_PORTS];
    uint8_t memory[MEMORY_BYTES];
};

static void set_level(struct testdev *dev, unsigned gsi, bool level)
{
    const struct irq_line line = {dev->config.gsi.set, dev->config.gsi.opaque, gsi};
    dev->levels = level ? dev->levels | 1u << gsi : dev->levels & ~(1u << gsi);
    irq_set(&line, level);
}

/* The value's width does not matter: any bit that is set raises. */
static void gsi_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct testdev *dev = opaque;
    pthread_mutex_lock(&dev->lock);
    set_level(dev, (unsigned)offset, value);
    pthread_mutex_unlock(&dev->lock);
}

static uint64_t gsi_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct testdev *dev = opaque;
    pthread_mutex_lock(&dev->lock);
    uint64_t level = dev->levels >> offset & 1;
    pthread_mutex_unlock(&dev->lock);
    return level;
}

static uint8_t value_read_byte(void *opaque, unsigned offset)
{
    return ((struct testdev *)opaque)->value[offset];
}

static void value_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    ((struct testdev *)opaque)->value[offset] = value;
}

static uint64_t value_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct testdev *dev = opaque;
    pthread_mutex_lock(&dev->lock);
    uint64_t value = ports_read(value_read_byte, dev, VALUE_PORTS, offset, size_bytes);
    pthread_mutex_unlock(&dev->lock);
    return value;
}

static void value_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct testdev *dev = opaque;
    pthread_mutex_lock(&dev->lock);
    ports_write(value_write_byte, dev, VALUE_PORTS, offset, value, size_bytes);
    pthread_mutex_unlock(&dev->lock);
}

static void flush_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct testdev *dev = opaque;
    if (offset == 0 && size_bytes == 4)
        ram_remap(dev->config.ram, value & ~(RAM_PAGE_BYTES - 1), RAM_PAGE_BYTES);
}

static uint64_t memory_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct testdev *dev = opaque;
    uint64_t value = UINT64_MAX;
    if (size_bytes > sizeof(value) || offset + size_bytes > MEMORY_BYTES)
        return value;
    pthread_mutex_lock(&dev->lock);
    memcpy(&value, dev->memory + offset, size_bytes);
    pthread_mutex_unlock(&dev->lock);
    return value;
}

static void memory_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct testdev *dev = opaque;
    if (size_bytes > sizeof(value) || offset + size_bytes > MEMORY_BYTES)
        return;
    pthread_mutex_lock(&dev->lock);
    memcpy(dev->memory + offset, &value, size_bytes);
    pthread_mutex_unlock(&dev->lock);
}

struct testdev *testdev_create(const struct testdev_config *config, struct bus *bus,
                               struct error *err)
{
    struct testdev *dev = calloc(1, sizeof(*dev));
    if (!dev) {
        error_set(err, "cannot create device", "testdev", "out of memory");
        return NULL;
    }
    dev->config = *config;
    dev->bus = bus;
    const struct bus_range ranges[RANGES] = {
        {"testdev gsi", BUS_PORT, config->gsi_base, TESTDEV_GSIS, gsi_read, gsi_write, dev},
        {"testdev value", BUS_PORT, config->value_base, VALUE_PORTS, value_read, value_write, dev},
        {"testdev flush", BUS_PORT, config->flush_base, FLUSH_PORTS, NULL, flush_write, dev},
        {"testdev memory", BUS_MMIO, config->memory_base, MEMORY_BYTES, memory_read, memory_write,
         dev},
    };
    memcpy(dev->ranges, ranges, sizeof(ranges));
    if (!ports_map_all(bus, dev->ranges, RANGES, err)) {
        free(dev);
        return NULL;
    }
    pthread_mutex_init(&dev->lock, NULL);
    return dev;
}

static void clear(struct testdev *dev)
{
    for (unsigned gsi = 0; gsi < TESTDEV_GSIS; gsi++)
        if (dev->levels >> gsi & 1)
            set_level(dev, gsi, false);
    memset(dev->value, 0, sizeof(dev->value));
    memset(dev->memory, 0, sizeof(dev->memory));
}

static void testdev_reset(void *device)
{
    struct testdev *dev = device;
    pthread_mutex_lock(&dev->lock);
    clear(dev);
    pthread_mutex_unlock(&dev->lock);
}

static void testdev_save(void *device, struct save *save)
{
    struct testdev *dev = device;
    pthread_mutex_lock(&dev->lock);
    save_u32(save, dev->levels);
    save_bytes(save, dev->value, sizeof(dev->value));
    save_bytes(save, dev->memory, sizeof(dev->memory));
    pthread_mutex_unlock(&dev->lock);
}

/* The controllers load the levels of their inputs themselves. */
static bool testdev_load(void *device, struct load *load, uint32_t version)
{
    struct testdev *dev = device;
    pthread_mutex_lock(&dev->lock);
    uint32_t levels = load_u32(load);
    load_bytes(load, dev->value, sizeof(dev->value));
    load_bytes(load, dev->memory, sizeof(dev->memory));
    if (version != testdev_ops.version || levels >> TESTDEV_GSIS)
        load_fail(load);
    if (load->failed)
        clear(dev);
    else
        dev->levels = levels;
    pthread_mutex_unlock(&dev->lock);
    return !load->failed;
}

static void testdev_destroy(void *device)
{
    struct testdev *dev = device;
    ports_unmap_all(dev->bus, dev->ranges, RANGES);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

const struct device_ops testdev_ops = {
    .name = "testdev",
    .version = 1,
    .reset = testdev_reset,
    .save = testdev_save,
    .load = testdev_load,
    .destroy = testdev_destroy,
};
