/* SPDX-License-Identifier: BSD-2-Clause
 *
 * USB host controller (xHCI 1.1): life, PCI, and what its parts share; see xhci_internal.h for
 * those. Left out: isochronous transfers, streams, scratchpads, the wrap event of the microframe
 * counter, bandwidth commands, virtualization, debug port, power management beyond suspended ports.
 *
 * vCPU threads use the registers, input and back ends bring what devices have to say, the clock's
 * thread does what is deferred; one lock, which guards the devices, too.
 */
#include "dev/usb/xhci_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    VENDOR = 0x1b36, /* Red Hat's generic xHC: drivers go by its class */
    DEVICE = 0x000d,
    CLASS_USB_XHCI = 0x0c0330,
    REGISTER_BAR = 0,
    MSIX_BAR = 2,
    PIN_A = 1,
    CONFIG_RELEASE = 0x60, /* SBRN, FLADJ: 5.2.3, 5.2.4 */
    DEFER_NS = 1000000,
};

/* ---- what the parts share ---- */

void xhci_complain(struct xhci *xhci, const char *why)
{
    log_limited(xhci->log, &xhci->log_limit, LOG_DEBUG, "xhci", "%s", why);
}

void xhci_fail(struct xhci *xhci, const char *why)
{
    xhci_complain(xhci, why);
    xhci->status |= STATUS_CONTROLLER_ERROR | STATUS_HALTED;
}

void xhci_schedule(struct xhci *xhci)
{
    uint64_t next = xhci_raise(xhci);
    if (xhci->work_ns < next)
        next = xhci->work_ns;
    if (next != UINT64_MAX)
        clock_timer_arm(xhci->timer, next);
}

void xhci_defer(struct xhci *xhci)
{
    if (xhci->work_ns == UINT64_MAX)
        xhci->work_ns = clock_now_ns(xhci->clock) + DEFER_NS;
    xhci_schedule(xhci);
}

bool xhci_read_trb(struct xhci *xhci, uint64_t gpa, struct xhci_trb *trb)
{
    trb->gpa = gpa;
    return !(gpa & 15) && ram_read(xhci->ram, gpa, trb, XHCI_TRB_BYTES);
}

static void work(struct xhci *xhci)
{
    xhci->work_ns = UINT64_MAX;
    xhci->waits_for_room = false;
    if (xhci->command_deferred)
        xhci_commands(xhci);
    for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
        for (unsigned i = 1; i < XHCI_ENDPOINTS; i++)
            if (xhci->slots[slot].endpoints[i].deferred)
                xhci_transfers(xhci, slot, i);
}

static void on_timer(void *opaque)
{
    struct xhci *xhci = opaque;
    pthread_mutex_lock(&xhci->lock);
    if (clock_now_ns(xhci->clock) >= xhci->work_ns)
        work(xhci);
    xhci_schedule(xhci);
    pthread_mutex_unlock(&xhci->lock);
}

void xhci_clear(struct xhci *xhci)
{
    xhci->command = xhci->notifications = xhci->config = 0;
    xhci->status = STATUS_HALTED;
    xhci->command_dequeue = xhci->contexts_gpa = 0;
    xhci->command_cycle = xhci->command_running = xhci->command_deferred = false;
    xhci->is_saved = xhci->waits_for_room = false;
    xhci->work_ns = UINT64_MAX;
    xhci->started_ns = 0;
    memset(xhci->slots, 0, sizeof(xhci->slots));
    for (unsigned i = 0; i <= XHCI_SLOTS; i++)
        xhci->slots[i].state = SLOT_DISABLED;
    xhci_ports_clear(xhci);
    xhci_interrupters_clear(xhci);
    msix_clear_pending(xhci->msix);
}

/* ---- what devices call ---- */

static void host_lock(void *opaque)
{
    pthread_mutex_lock(&((struct xhci *)opaque)->lock);
}

static void host_unlock(void *opaque)
{
    pthread_mutex_unlock(&((struct xhci *)opaque)->lock);
}

static void host_wakeup(void *opaque, unsigned port, uint8_t endpoint)
{
    xhci_wakeup(opaque, port, endpoint);
}

/* ---- life ---- */

static void config_written(void *opaque, unsigned offset, unsigned size_bytes)
{
    struct xhci *xhci = opaque;
    msix_config_written(xhci->msix, offset, size_bytes);
}

static bool make_function(struct xhci *xhci, const struct xhci_config *config, struct error *err)
{
    const struct pci_function_config function = {
        .name = "xhci",
        .slot = config->slot,
        .function = config->function,
        .vendor = VENDOR,
        .device = DEVICE,
        .subsystem_vendor = VENDOR,
        .subsystem = DEVICE,
        .class_code = CLASS_USB_XHCI,
        .revision = 1,
        .pin = PIN_A,
        .written = config_written,
        .opaque = xhci,
    };
    xhci->function = pci_function_create(config->pci, &function, err);
    if (!xhci->function)
        return false;
    const struct pci_bar bar = {.is_64bit = true,
                                .size_bytes = XHCI_BAR_BYTES,
                                .read = xhci_read,
                                .write = xhci_write,
                                .opaque = xhci};
    pci_function_bar(xhci->function, REGISTER_BAR, &bar);
    pci_function_init(xhci->function, CONFIG_RELEASE, 0x2030, 2);
    xhci->msix = msix_create(xhci->function, MSIX_BAR, XHCI_INTERRUPTERS, &config->msi, err);
    return xhci->msix;
}

static void xhci_destroy(void *opaque)
{
    struct xhci *xhci = opaque;
    if (xhci->timer)
        clock_timer_close(xhci->timer);
    if (xhci->function)
        pci_function_destroy(xhci->function);
    msix_destroy(xhci->msix);
    for (unsigned i = 0; i < XHCI_PORTS; i++)
        usb_device_destroy(xhci->ports[i].device);
    pthread_mutex_destroy(&xhci->lock);
    free(xhci);
}

static void attach(struct xhci *xhci)
{
    const struct usb_host host = {host_lock, host_unlock, host_wakeup, xhci};
    for (unsigned i = 0; i < XHCI_PORTS; i++) {
        struct usb_device *device = xhci->ports[i].device;
        if (!device)
            continue;
        assert((i >= XHCI_USB2_PORTS) == (usb_device_speed(device) == USB_SUPER));
        usb_device_attach(device, &host, i);
    }
}

struct xhci *xhci_create(const struct xhci_config *config, struct error *err)
{
    struct xhci *xhci = calloc(1, sizeof(*xhci));
    if (!xhci) {
        for (unsigned i = 0; i < XHCI_PORTS; i++)
            usb_device_destroy(config->devices[i]);
        error_errno(err, "cannot create device", "xhci", ENOMEM);
        return NULL;
    }
    xhci->ram = config->ram;
    xhci->clock = config->clock;
    xhci->log = config->log;
    for (unsigned i = 0; i < XHCI_PORTS; i++)
        xhci->ports[i].device = config->devices[i];
    pthread_mutex_init(&xhci->lock, NULL);
    xhci->timer = clock_timer_open(config->clock, on_timer, xhci);
    if (!xhci->timer)
        error_errno(err, "cannot create device", "xhci", ENOMEM);
    if (!xhci->timer || !make_function(xhci, config, err)) {
        xhci_destroy(xhci);
        return NULL;
    }
    attach(xhci);
    xhci_clear(xhci);
    return xhci;
}

static void xhci_reset(void *opaque)
{
    struct xhci *xhci = opaque;
    pthread_mutex_lock(&xhci->lock);
    clock_timer_cancel(xhci->timer);
    xhci_clear(xhci);
    for (unsigned i = 0; i < XHCI_PORTS; i++)
        if (xhci->ports[i].device)
            usb_device_power_on(xhci->ports[i].device);
    pthread_mutex_unlock(&xhci->lock);
    pci_function_reset(xhci->function);
    msix_reset(xhci->msix);
}

/* ---- save and load ---- */

static void save_endpoint(const struct xhci_endpoint *e, struct save *save)
{
    save_u8(save, e->state);
    save_u8(save, e->type);
    save_bool(save, e->cycle);
    save_bool(save, e->deferred);
    save_u64(save, e->dequeue);
    save_bool(save, e->has_setup);
    save_bool(save, e->is_done);
    save_bytes(save, e->setup, sizeof(e->setup));
}

static void load_endpoint(struct xhci_endpoint *e, struct load *load)
{
    e->state = load_u8(load);
    e->type = load_u8(load);
    e->cycle = load_bool(load);
    e->deferred = load_bool(load);
    e->dequeue = load_u64(load);
    e->has_setup = load_bool(load);
    e->is_done = load_bool(load);
    load_bytes(load, e->setup, sizeof(e->setup));
    if (e->state > ENDPOINT_ERROR || e->type > TYPE_INTERRUPT_IN || (e->dequeue & 15))
        load_fail(load);
}

static void save_slot(const struct xhci_slot *slot, struct save *save)
{
    save_u8(save, slot->state);
    save_u8(save, slot->port);
    save_u64(save, slot->context_gpa);
    for (unsigned i = 1; i < XHCI_ENDPOINTS; i++)
        save_endpoint(&slot->endpoints[i], save);
}

/* A slot that has come so far must have a device, and a context in memory. */
static void load_slot(const struct xhci *xhci, struct xhci_slot *slot, struct load *load)
{
    slot->state = load_u8(load);
    slot->port = load_u8(load);
    slot->context_gpa = load_u64(load);
    for (unsigned i = 1; i < XHCI_ENDPOINTS; i++)
        load_endpoint(&slot->endpoints[i], load);
    bool has_device = slot->state != SLOT_ENABLED && slot->state != SLOT_DISABLED;
    if (slot->state > SLOT_DISABLED || slot->port >= XHCI_PORTS ||
        (has_device && (!xhci->ports[slot->port].device ||
                        !ram_hva(xhci->ram, slot->context_gpa, XHCI_DEVICE_CONTEXT_BYTES))))
        load_fail(load);
}

static void save_interrupter(const struct xhci_interrupter *i, struct save *save)
{
    save_u32(save, i->management);
    save_u16(save, i->interval);
    save_u32(save, i->table_size);
    save_u64(save, i->table_gpa);
    save_u64(save, i->dequeue);
    save_u32(save, i->segment_count);
    save_u32(save, i->segment);
    save_u32(save, i->index);
    save_bool(save, i->cycle);
    save_bool(save, i->wants);
    save_u64(save, i->next_ns);
    for (unsigned j = 0; j < i->segment_count; j++) {
        save_u64(save, i->segments[j].base);
        save_u32(save, i->segments[j].trb_count);
    }
}

static void load_interrupter(struct xhci_interrupter *i, struct load *load)
{
    i->management = load_u32(load);
    i->interval = load_u16(load);
    i->table_size = load_u32(load);
    i->table_gpa = load_u64(load);
    i->dequeue = load_u64(load);
    i->segment_count = load_u32(load);
    i->segment = load_u32(load);
    i->index = load_u32(load);
    i->cycle = load_bool(load);
    i->wants = load_bool(load);
    i->next_ns = load_u64(load);
    if (i->management > 3 || i->table_size > XHCI_ERST_MAX || i->segment_count > XHCI_ERST_MAX ||
        (i->segment_count ? i->segment >= i->segment_count : i->segment || i->index)) {
        load_fail(load);
        return;
    }
    for (unsigned j = 0; j < i->segment_count; j++) {
        i->segments[j].base = load_u64(load);
        i->segments[j].trb_count = load_u32(load);
        if (!i->segments[j].trb_count || i->segments[j].trb_count > 0x10000 ||
            (i->segments[j].base & 63))
            load_fail(load);
    }
    if (i->segment_count && i->index >= i->segments[i->segment].trb_count)
        load_fail(load);
}

static void save_registers(const struct xhci *xhci, struct save *save)
{
    save_u32(save, xhci->command);
    save_u32(save, xhci->status);
    save_u32(save, xhci->notifications);
    save_u64(save, xhci->command_dequeue);
    save_bool(save, xhci->command_cycle);
    save_bool(save, xhci->command_running);
    save_bool(save, xhci->command_deferred);
    save_u64(save, xhci->contexts_gpa);
    save_u32(save, xhci->config);
    save_u64(save, xhci->started_ns);
    save_bool(save, xhci->is_saved);
    save_bool(save, xhci->waits_for_room);
}

static void load_registers(struct xhci *xhci, struct load *load)
{
    xhci->command = load_u32(load);
    xhci->status = load_u32(load);
    xhci->notifications = load_u32(load);
    xhci->command_dequeue = load_u64(load);
    xhci->command_cycle = load_bool(load);
    xhci->command_running = load_bool(load);
    xhci->command_deferred = load_bool(load);
    xhci->contexts_gpa = load_u64(load);
    xhci->config = load_u32(load);
    xhci->started_ns = load_u64(load);
    xhci->is_saved = load_bool(load);
    xhci->waits_for_room = load_bool(load);
    if ((xhci->command & ~(uint32_t)COMMAND_STORED) || (xhci->status & ~(uint32_t)STATUS_ALL) ||
        (xhci->command_dequeue & 15) || xhci->config > 0xff)
        load_fail(load);
}

static void xhci_save(void *opaque, struct save *save)
{
    struct xhci *xhci = opaque;
    pci_function_save(xhci->function, save);
    msix_save(xhci->msix, save);
    pthread_mutex_lock(&xhci->lock);
    save_registers(xhci, save);
    for (unsigned i = 0; i < XHCI_PORTS; i++) {
        save_u32(save, xhci->ports[i].status);
        save_u32(save, xhci->ports[i].power);
    }
    for (unsigned i = 1; i <= XHCI_SLOTS; i++)
        save_slot(&xhci->slots[i], save);
    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++)
        save_interrupter(&xhci->interrupters[i], save);
    for (unsigned i = 0; i < XHCI_PORTS; i++) {
        save_bool(save, xhci->ports[i].device != NULL);
        if (xhci->ports[i].device)
            usb_device_save(xhci->ports[i].device, save);
    }
    pthread_mutex_unlock(&xhci->lock);
}

static void load_devices(struct xhci *xhci, struct load *load)
{
    for (unsigned i = 0; i < XHCI_PORTS && !load->failed; i++) {
        struct usb_device *device = xhci->ports[i].device;
        if (load_bool(load) != (device != NULL))
            load_fail(load);
        else if (device)
            usb_device_load(device, load);
    }
}

/* What was deferred is done when time goes on. */
static bool xhci_load(void *opaque, struct load *load, uint32_t version)
{
    struct xhci *xhci = opaque;
    if (version != xhci_ops.version)
        load_fail(load);
    if (!pci_function_load(xhci->function, load) || !msix_load(xhci->msix, load))
        load_fail(load);
    pthread_mutex_lock(&xhci->lock);
    load_registers(xhci, load);
    for (unsigned i = 0; i < XHCI_PORTS; i++)
        xhci_port_load(xhci, i, load);
    for (unsigned i = 1; i <= XHCI_SLOTS; i++)
        load_slot(xhci, &xhci->slots[i], load);
    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++)
        load_interrupter(&xhci->interrupters[i], load);
    load_devices(xhci, load);
    xhci->work_ns = 0;
    if (load->failed)
        xhci_clear(xhci);
    else
        clock_timer_arm(xhci->timer, 0);
    pthread_mutex_unlock(&xhci->lock);
    return !load->failed;
}

const struct device_ops xhci_ops = {
    .name = "xhci",
    .version = 1,
    .reset = xhci_reset,
    .save = xhci_save,
    .load = xhci_load,
    .destroy = xhci_destroy,
};
