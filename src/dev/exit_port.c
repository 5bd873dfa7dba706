/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Exit port. No chip has one; the meaning of the value is the machine's. It reads as zero. There
 * is no state and so no lock; vCPU threads use the port.
 */
#include "dev/exit_port.h"

#include <stdlib.h>

enum { PORTS = 4 };

struct exit_port {
    struct exit_port_config config;
    struct bus *bus;
};

static uint64_t exit_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    return 0;
}

static void exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct exit_port *port = opaque;
    if (offset != 0 || !port->config.exit)
        return;
    uint32_t mask = size_bytes >= 4 ? UINT32_MAX : (UINT32_C(1) << (8 * size_bytes)) - 1;
    port->config.exit(port->config.opaque, (uint32_t)value & mask);
}

struct exit_port *exit_port_create(const struct exit_port_config *config, struct bus *bus,
                                   struct error *err)
{
    struct exit_port *port = calloc(1, sizeof(*port));
    if (!port) {
        error_set(err, "cannot create device", "exit_port", "out of memory");
        return NULL;
    }
    port->config = *config;
    port->bus = bus;
    struct bus_range range = {"exit_port", BUS_PORT,   config->base, PORTS,
                              exit_read,   exit_write, port};
    if (!bus_map(bus, &range, err)) {
        free(port);
        return NULL;
    }
    return port;
}

static void exit_port_reset(void *device)
{
    (void)device;
}

static void exit_port_save(void *device, struct save *save)
{
    (void)device;
}

static bool exit_port_load(void *device, struct load *load, uint32_t version)
{
    return version == exit_port_ops.version && !load->failed;
}

static void exit_port_destroy(void *device)
{
    struct exit_port *port = device;
    bus_unmap(port->bus, BUS_PORT, port->config.base);
    free(port);
}

const struct device_ops exit_port_ops = {
    .name = "exit_port",
    .version = 1,
    .reset = exit_port_reset,
    .save = exit_port_save,
    .load = exit_port_load,
    .destroy = exit_port_destroy,
};
