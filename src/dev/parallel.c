/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Parallel port in compatibility mode (IEEE 1284-1994, 6; IBM PS/2 Hardware Interface Technical
 * Reference, parallel port controller). The printer takes a byte when STROBE rises and acknowledges
 * at once, which gives a pulse of the interrupt where it is enabled. The direction bit is kept and
 * the data lines then read as ones. Left out: EPP and ECP.
 *
 * vCPU threads use the ports; one lock, not held when the byte goes out.
 */
#include "dev/parallel.h"

#include "dev/char_out.h"
#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>

enum { PORTS = 3, REG_DATA = 0, REG_STATUS = 1, REG_CONTROL = 2 };
/* Not busy, no acknowledge under way, paper, selected, no error; the low bits have no meaning. */
enum { STATUS_READY = 0xdf };
enum {
    CONTROL_STROBE = 1 << 0,
    CONTROL_IRQ = 1 << 4,
    CONTROL_INPUT = 1 << 5,
    CONTROL_STORED = 0x3f,
    CONTROL_UNUSED = 0xc0, /* read as ones */
    CONTROL_RESET = 0x0c,  /* initialise released, selected */
};

struct parallel {
    pthread_mutex_t lock;
    struct parallel_config config;
    struct bus *bus;
    struct char_out *out;
    uint8_t data, control;
};

static uint8_t read_byte(void *opaque, unsigned offset)
{
    struct parallel *port = opaque;
    uint8_t value = STATUS_READY;
    pthread_mutex_lock(&port->lock);
    if (offset == REG_DATA)
        value = port->control & CONTROL_INPUT ? 0xff : port->data;
    else if (offset == REG_CONTROL)
        value = port->control | CONTROL_UNUSED;
    pthread_mutex_unlock(&port->lock);
    return value;
}

static void write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct parallel *port = opaque;
    bool prints = false, interrupts = false;
    pthread_mutex_lock(&port->lock);
    if (offset == REG_DATA) {
        port->data = value;
        prints = port->config.ignores_strobe;
    } else if (offset == REG_CONTROL) {
        bool strobes = (value & CONTROL_STROBE) && !(port->control & CONTROL_STROBE);
        port->control = value & CONTROL_STORED;
        prints = strobes && !port->config.ignores_strobe && !(value & CONTROL_INPUT);
        interrupts = strobes && (value & CONTROL_IRQ);
    }
    uint8_t byte = port->data;
    pthread_mutex_unlock(&port->lock);
    if (prints)
        char_out_put(port->out, byte);
    if (interrupts) {
        irq_set(&port->config.irq, true);
        irq_set(&port->config.irq, false);
    }
}

static uint64_t parallel_read(void *port, uint64_t offset, unsigned size_bytes)
{
    return ports_read(read_byte, port, PORTS, offset, size_bytes);
}

static void parallel_write(void *port, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(write_byte, port, PORTS, offset, value, size_bytes);
}

static void parallel_reset(void *device)
{
    struct parallel *port = device;
    pthread_mutex_lock(&port->lock);
    port->data = 0;
    port->control = CONTROL_RESET;
    pthread_mutex_unlock(&port->lock);
}

struct parallel *parallel_create(const struct parallel_config *config, struct bus *bus,
                                 struct error *err)
{
    struct parallel *port = calloc(1, sizeof(*port));
    if (!port) {
        error_set(err, "cannot create device", "parallel", "out of memory");
        return NULL;
    }
    port->config = *config;
    port->bus = bus;
    port->out = char_out_open("parallel", config->backend, config->log, err);
    const struct bus_range range = {"parallel",    BUS_PORT,       config->base, PORTS,
                                    parallel_read, parallel_write, port};
    if (!port->out || !bus_map(bus, &range, err)) {
        char_out_close(port->out);
        free(port);
        return NULL;
    }
    pthread_mutex_init(&port->lock, NULL);
    parallel_reset(port);
    return port;
}

static void parallel_save(void *device, struct save *save)
{
    struct parallel *port = device;
    pthread_mutex_lock(&port->lock);
    save_u8(save, port->data);
    save_u8(save, port->control);
    pthread_mutex_unlock(&port->lock);
}

static bool parallel_load(void *device, struct load *load, uint32_t version)
{
    struct parallel *port = device;
    pthread_mutex_lock(&port->lock);
    port->data = load_u8(load);
    port->control = load_u8(load);
    if (version != parallel_ops.version || (port->control & ~CONTROL_STORED))
        load_fail(load);
    pthread_mutex_unlock(&port->lock);
    if (load->failed)
        parallel_reset(port);
    return !load->failed;
}

static void parallel_destroy(void *device)
{
    struct parallel *port = device;
    bus_unmap(port->bus, BUS_PORT, port->config.base);
    char_out_close(port->out);
    pthread_mutex_destroy(&port->lock);
    free(port);
}

const struct device_ops parallel_ops = {
    .name = "parallel",
    .version = 1,
    .reset = parallel_reset,
    .save = parallel_save,
    .load = parallel_load,
    .destroy = parallel_destroy,
};
