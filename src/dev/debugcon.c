/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Debug console at port 0xe9 (Bochs' "port e9 hack"): bytes written go to a character back end, a
 * read gives 0xe9, by which a guest knows that it is there. No state of its own, and so no lock;
 * vCPU threads use the port.
 */
#include "dev/debugcon.h"

#include "dev/char_out.h"
#include "dev/ports.h"

#include <stdlib.h>

enum { PRESENT = 0xe9 };

struct debugcon {
    struct debugcon_config config;
    struct bus *bus;
    struct char_out *out;
};

static uint8_t debugcon_read_byte(void *opaque, unsigned offset)
{
    return PRESENT;
}

static void debugcon_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct debugcon *con = opaque;
    char_out_put(con->out, value);
}

static uint64_t debugcon_read(void *con, uint64_t offset, unsigned size_bytes)
{
    return ports_read(debugcon_read_byte, con, 1, offset, size_bytes);
}

static void debugcon_write(void *con, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(debugcon_write_byte, con, 1, offset, value, size_bytes);
}

struct debugcon *debugcon_create(const struct debugcon_config *config, struct bus *bus,
                                 struct error *err)
{
    struct debugcon *con = calloc(1, sizeof(*con));
    if (!con) {
        error_set(err, "cannot create device", "debugcon", "out of memory");
        return NULL;
    }
    con->config = *config;
    con->bus = bus;
    con->out = char_out_open("debugcon", config->backend, config->log, err);
    struct bus_range range = {"debugcon",    BUS_PORT,       config->base, 1,
                              debugcon_read, debugcon_write, con};
    if (!con->out || !bus_map(bus, &range, err)) {
        char_out_close(con->out);
        free(con);
        return NULL;
    }
    return con;
}

/* What was written before a reset still goes out, and is no part of a saved machine. */
static void debugcon_reset(void *device)
{
    (void)device;
}

static void debugcon_save(void *device, struct save *save)
{
    (void)device;
}

static bool debugcon_load(void *device, struct load *load, uint32_t version)
{
    return version == debugcon_ops.version && !load->failed;
}

static void debugcon_destroy(void *device)
{
    struct debugcon *con = device;
    bus_unmap(con->bus, BUS_PORT, con->config.base);
    char_out_close(con->out);
    free(con);
}

const struct device_ops debugcon_ops = {
    .name = "debugcon",
    .version = 1,
    .reset = debugcon_reset,
    .save = debugcon_save,
    .load = debugcon_load,
    .destroy = debugcon_destroy,
};
