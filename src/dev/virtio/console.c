/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio console device (virtio 1.2, 5.3): size, several ports with names, emergency write. Left
 * out: adding and removing ports while the machine runs.
 *
 * Threads: output is handed to the back ends in the kick, under the device's lock; input, and what
 * is left of output, come on the loop's thread. What is to be said on the control queue is kept as
 * marks of each port and not as messages, so that a driver which takes none makes nothing grow.
 */
#include "dev/virtio/console.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define F_SIZE        (UINT64_C(1) << 0)
#define F_MULTIPORT   (UINT64_C(1) << 1)
#define F_EMERG_WRITE (UINT64_C(1) << 2)

enum {
    QUEUE_CONTROL_RX = 2, /* to the guest */
    QUEUE_CONTROL_TX = 3,
    QUEUE_SIZE = 128,

    /* 5.3.4: offsets in the configuration */
    CONFIG_COLUMNS = 0,
    CONFIG_ROWS = 2,
    CONFIG_PORTS = 4,
    CONFIG_EMERGENCY = 8,
    CONFIG_BYTES = 12,

    /* 5.3.6.2: control messages: port (32 bits), event and value (16 bits each) */
    MESSAGE_BYTES = 8,
    MESSAGE_MAX_BYTES = MESSAGE_BYTES + VIRTIO_CONSOLE_NAME_MAX_BYTES,
    DEVICE_READY = 0,
    PORT_ADD = 1,
    PORT_READY = 3,
    CONSOLE_PORT = 4,
    RESIZE = 5,
    PORT_OPEN = 6,
    PORT_NAME = 7,
};

/* The messages that the device sends, in the order in which a port's are due. */
static const uint8_t to_say[] = {PORT_ADD, CONSOLE_PORT, RESIZE, PORT_NAME, PORT_OPEN};

struct virtio_console;

struct port {
    struct virtio_console *console;
    struct char_backend backend;
    char name[VIRTIO_CONSOLE_NAME_MAX_BYTES + 1];
    bool is_console;
    unsigned index;

    /* guarded by the device's lock */
    uint8_t pending;    /* messages to be sent: a bit each, by event */
    bool is_ready;      /* the driver has set the port up */
    bool is_guest_open; /* someone in the guest has it open */
    bool rx_waits, tx_waits;
    uint32_t tx_done_bytes; /* of the chain that comes next */
};

struct virtio_console {
    struct virtio_device *device;
    unsigned port_count;
    uint16_t columns, rows;
    struct virtio_chain chain; /* guarded by the device's lock */
    struct port ports[VIRTIO_CONSOLE_PORTS_MAX];
};

static void put16(uint8_t *bytes, unsigned value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

static unsigned get16(const uint8_t *bytes)
{
    return bytes[0] | (unsigned)bytes[1] << 8;
}

static unsigned rx_queue(const struct port *port)
{
    return port->index ? 2 * port->index + 2 : 0;
}

static unsigned tx_queue(const struct port *port)
{
    return rx_queue(port) + 1;
}

/* The port of a data queue. */
static struct port *port_of(struct virtio_console *console, unsigned queue)
{
    return &console->ports[queue < 2 ? 0 : queue / 2 - 1];
}

static bool has_multiport(const struct virtio_console *console)
{
    return virtio_has(console->device, F_MULTIPORT);
}

/* ---- control messages to the guest ---- */

static size_t make_message(const struct port *port, unsigned event, uint8_t *message)
{
    const struct virtio_console *console = port->console;
    unsigned value = 1;
    size_t size_bytes = MESSAGE_BYTES;
    if (event == PORT_OPEN)
        value = port->backend.is_connected(port->backend.opaque);
    put16(message, port->index);
    put16(message + 2, 0);
    put16(message + 4, event);
    put16(message + 6, value);
    if (event == RESIZE) {
        put16(message + 8, console->columns);
        put16(message + 10, console->rows);
        size_bytes += 4;
    } else if (event == PORT_NAME) {
        size_t name_bytes = strlen(port->name);
        memcpy(message + 8, port->name, name_bytes);
        size_bytes += name_bytes;
    }
    return size_bytes;
}

/* False when there is no buffer for it. */
static bool send_message(struct virtio_console *console, struct virtio_queue *q,
                         const struct port *port, unsigned event)
{
    uint8_t message[MESSAGE_MAX_BYTES];
    if (!virtio_queue_pop(q, &console->chain))
        return false;
    size_t size_bytes = make_message(port, event, message);
    if (virtio_chain_write(&console->chain, 0, message, size_bytes) < size_bytes) {
        virtio_queue_break(q, "a control buffer is too small");
        return false;
    }
    virtio_queue_push(q, &console->chain, size_bytes);
    return true;
}

/* Sends what is due as far as there are buffers. With the lock held. */
static bool send_pending(struct virtio_console *console, struct virtio_queue *q)
{
    for (unsigned i = 0; i < console->port_count; i++) {
        struct port *port = &console->ports[i];
        for (size_t k = 0; k < sizeof(to_say); k++) {
            uint8_t mark = (uint8_t)(1 << to_say[k]);
            if (!(port->pending & mark))
                continue;
            if (!send_message(console, q, port, to_say[k]))
                return false;
            port->pending &= (uint8_t)~mark;
        }
    }
    return true;
}

static void run_control_rx(struct virtio_console *console)
{
    struct virtio_queue *q = virtio_queue(console->device, QUEUE_CONTROL_RX);
    if (!has_multiport(console) || !virtio_live(console->device))
        return;
    virtio_queue_suppress(q);
    while (!send_pending(console, q) && virtio_queue_listen(q))
        ;
    virtio_queue_notify(q);
}

static void say(struct port *port, unsigned event)
{
    if (has_multiport(port->console))
        port->pending |= (uint8_t)(1 << event);
}

/* ---- control messages from the guest ---- */

static void on_port_ready(struct port *port)
{
    const struct virtio_console *console = port->console;
    port->is_ready = true;
    if (port->is_console)
        say(port, CONSOLE_PORT);
    if (port->index == 0 && console->columns && virtio_has(console->device, F_SIZE))
        say(port, RESIZE);
    if (port->name[0])
        say(port, PORT_NAME);
    if (port->backend.is_connected(port->backend.opaque))
        say(port, PORT_OPEN);
}

static void on_message(struct virtio_console *console, const uint8_t *message)
{
    unsigned id = get16(message) | get16(message + 2) << 16;
    unsigned event = get16(message + 4), value = get16(message + 6);
    if (event == DEVICE_READY) {
        for (unsigned i = 0; value && i < console->port_count; i++)
            say(&console->ports[i], PORT_ADD);
        return;
    }
    if (id >= console->port_count) {
        log_limited(virtio_log(console->device), virtio_log_limit(console->device), LOG_DEBUG,
                    "virtio-console", "message %u for port %u, which there is not", event, id);
        return;
    }
    struct port *port = &console->ports[id];
    if (event == PORT_READY && value) {
        on_port_ready(port);
    } else if (event == PORT_OPEN) {
        port->is_guest_open = value;
        if (value)
            port->backend.accept(port->backend.opaque);
    }
}

static enum virtio_taken take_message(void *self, unsigned index)
{
    struct virtio_console *console = self;
    struct virtio_queue *q = virtio_queue(console->device, index);
    uint8_t message[MESSAGE_BYTES];
    if (!virtio_queue_pop(q, &console->chain))
        return VIRTIO_NONE;
    size_t n = virtio_chain_read(&console->chain, 0, message, sizeof(message));
    virtio_queue_push(q, &console->chain, 0);
    if (n == sizeof(message) && has_multiport(console))
        on_message(console, message);
    return VIRTIO_TAKEN;
}

static void run_control_tx(struct virtio_console *console)
{
    virtio_serve(console->device, QUEUE_CONTROL_TX, take_message);
    run_control_rx(console);
}

/* ---- output ---- */

/* Hands the chain on from where it was left; true when that was all of it. */
static bool write_chain(struct port *port, const struct virtio_chain *chain)
{
    uint64_t skip = port->tx_done_bytes;
    for (unsigned i = 0; i < chain->readable_count; i++) {
        const uint8_t *bytes = chain->iov[i].iov_base;
        size_t size_bytes = chain->iov[i].iov_len;
        if (skip >= size_bytes) {
            skip -= size_bytes;
            continue;
        }
        bytes += skip;
        size_bytes -= (size_t)skip;
        skip = 0;
        size_t n = port->backend.write(port->backend.opaque, bytes, size_bytes);
        port->tx_done_bytes += (uint32_t)n; /* chains are below 4 GiB */
        if (n < size_bytes)
            return false;
    }
    return true;
}

/* A chain that the back end takes a part of goes back into the queue, to be taken again: so there
 * is nothing to save but how far it was. */
static enum virtio_taken take_output(void *self, unsigned index)
{
    struct virtio_console *console = self;
    struct port *port = port_of(console, index);
    struct virtio_queue *q = virtio_queue(console->device, index);
    if (port->tx_waits)
        return VIRTIO_STOP;
    if (!virtio_queue_pop(q, &console->chain))
        return VIRTIO_NONE;
    if (!write_chain(port, &console->chain)) {
        port->tx_waits = true;
        virtio_queue_unpop(q, &console->chain);
        return VIRTIO_STOP;
    }
    port->tx_done_bytes = 0;
    virtio_queue_push(q, &console->chain, 0);
    return VIRTIO_TAKEN;
}

/* With the lock held. */
static void run_tx(struct port *port)
{
    virtio_serve(port->console->device, tx_queue(port), take_output);
}

static void on_writable(void *opaque)
{
    struct port *port = opaque;
    virtio_lock(port->console->device);
    port->tx_waits = false;
    if (port->index == 0 || has_multiport(port->console))
        run_tx(port);
    virtio_unlock(port->console->device);
}

/* ---- input ---- */

static size_t receive_locked(struct port *port, const uint8_t *bytes, size_t size_bytes)
{
    struct virtio_console *console = port->console;
    struct virtio_queue *q = virtio_queue(console->device, rx_queue(port));
    size_t taken = 0;
    port->rx_waits = true;
    if (!virtio_live(console->device) ||
        (has_multiport(console) ? !port->is_guest_open : port->index != 0))
        return 0;
    virtio_queue_suppress(q);
    while (taken < size_bytes) {
        if (!virtio_queue_pop(q, &console->chain)) {
            if (virtio_queue_listen(q))
                continue;
            break;
        }
        if (console->chain.writable_bytes == 0) {
            virtio_queue_break(q, "a receive buffer has no room");
            break;
        }
        size_t n = virtio_chain_write(&console->chain, 0, bytes + taken, size_bytes - taken);
        virtio_queue_push(q, &console->chain, n);
        taken += n;
    }
    port->rx_waits = taken < size_bytes;
    virtio_queue_notify(q);
    return taken;
}

static size_t on_receive(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct port *port = opaque;
    virtio_lock(port->console->device);
    size_t taken = receive_locked(port, bytes, size_bytes);
    virtio_unlock(port->console->device);
    return taken;
}

static void on_connected(void *opaque, bool is_connected)
{
    struct port *port = opaque;
    virtio_lock(port->console->device);
    if (port->is_ready) {
        say(port, PORT_OPEN);
        run_control_rx(port->console);
    }
    virtio_unlock(port->console->device);
}

/* ---- struct virtio_ops ---- */

static void console_config_read(void *self, uint32_t offset, void *buffer, uint32_t size_bytes)
{
    const struct virtio_console *console = self;
    uint8_t config[CONFIG_BYTES] = {0};
    put16(config + CONFIG_COLUMNS, console->columns);
    put16(config + CONFIG_ROWS, console->rows);
    put16(config + CONFIG_PORTS, console->port_count);
    memcpy(buffer, config + offset, size_bytes);
}

/* 5.3.4: a character at any time, even before the driver is up. */
static void console_config_write(void *self, uint32_t offset, const void *buffer,
                                 uint32_t size_bytes)
{
    struct virtio_console *console = self;
    const struct char_backend *backend = &console->ports[0].backend;
    if (offset == CONFIG_EMERGENCY && size_bytes > 0)
        (void)backend->write(backend->opaque, buffer, 1);
}

static void console_start(void *self)
{
    struct virtio_console *console = self;
    struct port *port = &console->ports[0];
    if (!has_multiport(console))
        port->backend.accept(port->backend.opaque);
}

static void console_kick(void *self, unsigned index)
{
    struct virtio_console *console = self;
    if (index == QUEUE_CONTROL_RX) {
        run_control_rx(console);
    } else if (index == QUEUE_CONTROL_TX) {
        run_control_tx(console);
    } else {
        struct port *port = port_of(console, index);
        if (port->index > 0 && !has_multiport(console))
            return;
        if (index & 1)
            run_tx(port);
        else if (port->rx_waits)
            port->backend.accept(port->backend.opaque);
    }
}

static void console_queue_reset(void *self, unsigned index)
{
    struct virtio_console *console = self;
    if (index != QUEUE_CONTROL_RX && index != QUEUE_CONTROL_TX && index & 1) {
        struct port *port = port_of(console, index);
        port->tx_done_bytes = 0;
        port->tx_waits = false;
    }
}

static void console_reset(void *self)
{
    struct virtio_console *console = self;
    for (unsigned i = 0; i < console->port_count; i++) {
        struct port *port = &console->ports[i];
        port->pending = 0;
        port->is_ready = port->is_guest_open = false;
        port->tx_waits = false;
        port->rx_waits = true;
        port->tx_done_bytes = 0;
    }
}

static void console_save(void *self, struct save *save)
{
    const struct virtio_console *console = self;
    save_u16(save, console->columns);
    save_u16(save, console->rows);
    save_u32(save, console->port_count);
    for (unsigned i = 0; i < console->port_count; i++) {
        const struct port *port = &console->ports[i];
        save_u8(save, port->pending);
        save_bool(save, port->is_ready);
        save_bool(save, port->is_guest_open);
        save_u32(save, port->tx_done_bytes);
    }
}

static bool console_load(void *self, struct load *load, uint32_t version)
{
    struct virtio_console *console = self;
    uint8_t known = 0;
    for (size_t k = 0; k < sizeof(to_say); k++)
        known |= (uint8_t)(1 << to_say[k]);
    console->columns = load_u16(load);
    console->rows = load_u16(load);
    if (load_u32(load) != console->port_count)
        load_fail(load);
    for (unsigned i = 0; i < console->port_count && !load->failed; i++) {
        struct port *port = &console->ports[i];
        port->pending = load_u8(load);
        port->is_ready = load_bool(load);
        port->is_guest_open = load_bool(load);
        port->tx_done_bytes = load_u32(load);
        if (port->pending & ~known)
            load_fail(load);
        /* Whoever was connected then may not be now. */
        if (port->is_ready)
            say(port, PORT_OPEN);
    }
    return !load->failed;
}

static void console_destroy(void *self)
{
    struct virtio_console *console = self;
    for (unsigned i = 0; i < console->port_count; i++) {
        const struct char_backend *backend = &console->ports[i].backend;
        backend->set_handler(backend->opaque, NULL);
    }
    free(console);
}

static const struct virtio_ops console_ops = {
    .name = "virtio-console",
    .type = VIRTIO_TYPE_CONSOLE,
    .pci_class = 0x078000,
    .version = 1,
    .config_read = console_config_read,
    .config_write = console_config_write,
    .start = console_start,
    .kick = console_kick,
    .queue_reset = console_queue_reset,
    .reset = console_reset,
    .save = console_save,
    .load = console_load,
    .destroy = console_destroy,
};

static void set_up_ports(struct virtio_console *console, const struct virtio_console_config *config)
{
    console->columns = config->columns;
    console->rows = config->rows;
    console->port_count = config->port_count;
    for (unsigned i = 0; i < config->port_count; i++) {
        struct port *port = &console->ports[i];
        port->console = console;
        port->index = i;
        port->backend = config->ports[i].backend;
        port->is_console = config->ports[i].is_console;
        port->rx_waits = true;
        if (config->ports[i].name)
            strcpy(port->name, config->ports[i].name);
    }
}

static void listen_to_backends(struct virtio_console *console)
{
    for (unsigned i = 0; i < console->port_count; i++) {
        struct port *port = &console->ports[i];
        struct char_handler handler = {.receive = on_receive,
                                       .writable = on_writable,
                                       .connected = on_connected,
                                       .opaque = port};
        port->backend.set_handler(port->backend.opaque, &handler);
    }
}

struct virtio_device *virtio_console_create(const struct virtio_console_config *config,
                                            struct error *err)
{
    uint16_t sizes[2 * (VIRTIO_CONSOLE_PORTS_MAX + 1)];
    assert(config->port_count >= 1 && config->port_count <= VIRTIO_CONSOLE_PORTS_MAX);
    for (unsigned i = 0; i < config->port_count; i++) {
        const char *name = config->ports[i].name;
        if (name && strlen(name) > VIRTIO_CONSOLE_NAME_MAX_BYTES) {
            error_usage(err, "cannot create console port", name, "its name is longer than %d bytes",
                        VIRTIO_CONSOLE_NAME_MAX_BYTES);
            return NULL;
        }
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        sizes[i] = QUEUE_SIZE;
    struct virtio_console *console = calloc(1, sizeof(*console));
    if (!console) {
        error_set(err, "cannot create device", console_ops.name, "out of memory");
        return NULL;
    }
    set_up_ports(console, config);
    struct virtio_config core = {.ops = &console_ops,
                                 .self = console,
                                 .ram = config->ram,
                                 .loop = config->loop,
                                 .log = config->log,
                                 .features =
                                     F_MULTIPORT | F_EMERG_WRITE | (config->columns ? F_SIZE : 0),
                                 .features_off = config->features_off,
                                 .config_size_bytes = CONFIG_BYTES,
                                 .queue_count = 2 * (config->port_count + 1),
                                 .queue_sizes = sizes};
    console->device = virtio_create(&core, err);
    if (!console->device) {
        free(console);
        return NULL;
    }
    listen_to_backends(console);
    return console->device;
}

void virtio_console_resize(struct virtio_device *device, uint16_t columns, uint16_t rows)
{
    struct virtio_console *console = virtio_self(device);
    virtio_lock(device);
    if (console->columns != columns || console->rows != rows) {
        console->columns = columns;
        console->rows = rows;
        virtio_config_changed(device);
        if (virtio_has(device, F_SIZE) && console->ports[0].is_ready) {
            say(&console->ports[0], RESIZE);
            run_control_rx(console);
        }
    }
    virtio_unlock(device);
}
