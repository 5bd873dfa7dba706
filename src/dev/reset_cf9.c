/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Reset control register, RST_CNT (ICH9 data sheet, 13.7.5). A rise of RST_CPU resets. Soft and
 * hard resets, and those through the power supply (FULL_RST), are one and the same here.
 *
 * vCPU threads use the port; one lock, not held when reset is called.
 */
#include "dev/reset_cf9.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>

enum { RESET_SYSTEM = 0x02, RESET_CPU = 0x04, RESET_FULL = 0x08 };
enum { RESET_STORED = RESET_SYSTEM | RESET_CPU | RESET_FULL };

struct reset_cf9 {
    pthread_mutex_t lock;
    struct reset_cf9_config config;
    struct bus *bus;
    uint8_t value;
};

static uint8_t reset_read_byte(void *opaque, unsigned offset)
{
    struct reset_cf9 *device = opaque;
    pthread_mutex_lock(&device->lock);
    uint8_t value = device->value;
    pthread_mutex_unlock(&device->lock);
    return value;
}

static void reset_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct reset_cf9 *device = opaque;
    pthread_mutex_lock(&device->lock);
    bool reset = (value & RESET_CPU) && !(device->value & RESET_CPU);
    device->value = value & RESET_STORED;
    pthread_mutex_unlock(&device->lock);
    if (reset && device->config.reset)
        device->config.reset(device->config.opaque);
}

uint64_t reset_cf9_read(void *device, uint64_t offset, unsigned size_bytes)
{
    return ports_read(reset_read_byte, device, 1, offset, size_bytes);
}

void reset_cf9_write(void *device, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(reset_write_byte, device, 1, offset, value, size_bytes);
}

struct reset_cf9 *reset_cf9_create(const struct reset_cf9_config *config, struct bus *bus,
                                   struct error *err)
{
    struct reset_cf9 *device = calloc(1, sizeof(*device));
    if (!device) {
        error_set(err, "cannot create device", "reset_cf9", "out of memory");
        return NULL;
    }
    device->config = *config;
    device->bus = bus;
    pthread_mutex_init(&device->lock, NULL);
    struct bus_range range = {"reset_cf9",    BUS_PORT,        config->base, 1,
                              reset_cf9_read, reset_cf9_write, device};
    if (config->base && !bus_map(bus, &range, err)) {
        pthread_mutex_destroy(&device->lock);
        free(device);
        return NULL;
    }
    return device;
}

static void reset_cf9_reset(void *opaque)
{
    struct reset_cf9 *device = opaque;
    pthread_mutex_lock(&device->lock);
    device->value = 0;
    pthread_mutex_unlock(&device->lock);
}

static void reset_cf9_save(void *opaque, struct save *save)
{
    save_u8(save, reset_read_byte(opaque, 0));
}

static bool reset_cf9_load(void *opaque, struct load *load, uint32_t version)
{
    struct reset_cf9 *device = opaque;
    uint8_t value = load_u8(load);
    if (value & ~RESET_STORED)
        load_fail(load);
    bool ok = version == reset_cf9_ops.version && !load->failed;
    pthread_mutex_lock(&device->lock);
    device->value = ok ? value : 0;
    pthread_mutex_unlock(&device->lock);
    return ok;
}

static void reset_cf9_destroy(void *opaque)
{
    struct reset_cf9 *device = opaque;
    if (device->config.base)
        bus_unmap(device->bus, BUS_PORT, device->config.base);
    pthread_mutex_destroy(&device->lock);
    free(device);
}

const struct device_ops reset_cf9_ops = {
    .name = "reset_cf9",
    .version = 1,
    .reset = reset_cf9_reset,
    .save = reset_cf9_save,
    .load = reset_cf9_load,
    .destroy = reset_cf9_destroy,
};
