/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: the card as a PCI function, its turn on the loop, save and load. Left out: wake-up, flow
 * control, MSI without X, the flash, the 82574L's management interface.
 */
#include "dev/net/e1000_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    VENDOR_INTEL = 0x8086,
    CLASS_ETHERNET = 0x020000,
    REGISTER_BAR = 0,
    FLASH_BAR = 1, /* of the 82574L */
    IO_BAR = 2,
    MSIX_BAR = 3,
    BAR_BYTES = 128 << 10,
    IO_BYTES = 8,
    IO_BYTES_82574 = 32,
    PCI_CAPABILITY_EXPRESS = 0x10,
    EXPRESS_BYTES = 0x3c,
    EXPRESS_INTEGRATED = 2 | 9 << 4, /* version 2, root complex integrated endpoint */
};

/* ---- frames ---- */

static bool receive(void *opaque, const struct iovec *iov, unsigned iov_count,
                    const struct net_offload *offload)
{
    struct e1000 *e = opaque;
    enum e1000_rx_result result = E1000_RX_DROP;
    pthread_mutex_lock(&e->lock);
    /* Marks are not for this card; it said so. */
    if (!offload->needs_checksum && offload->gso == NET_GSO_NONE && e1000_link_up(e) &&
        !e1000_loops_back(e))
        result = e1000_receive(e, iov, iov_count);
    e->rx_waits = result == E1000_RX_NO_ROOM;
    pthread_mutex_unlock(&e->lock);
    return result != E1000_RX_NO_ROOM;
}

static void service(void *opaque)
{
    struct e1000 *e = opaque;
    pthread_mutex_lock(&e->lock);
    e1000_transmit(e);
    bool resume = e->resume_wanted;
    e->resume_wanted = false;
    pthread_mutex_unlock(&e->lock);
    if (resume && e->backend.resume)
        e->backend.resume(e->backend.opaque);
}

/* ---- life ---- */

static void config_written(void *opaque, unsigned offset, unsigned size_bytes)
{
    struct e1000 *e = opaque;
    if (!e->msix)
        return;
    msix_config_written(e->msix, offset, size_bytes);
    pthread_mutex_lock(&e->lock);
    e1000_update_interrupt(e); /* causes may have waited while MSI-X was on */
    pthread_mutex_unlock(&e->lock);
}

static bool add_82574(struct e1000 *e, const struct msi_sink *msi, struct error *err)
{
    unsigned express = pci_function_capability(e->function, PCI_CAPABILITY_EXPRESS, EXPRESS_BYTES);
    pci_function_init(e->function, express + 2, EXPRESS_INTEGRATED, 2);
    pci_function_bar(e->function, FLASH_BAR, &(struct pci_bar){.size_bytes = BAR_BYTES});
    e->msix = msix_create(e->function, MSIX_BAR, E1000_VECTORS, msi, err);
    return e->msix;
}

static bool create_function(struct e1000 *e, const struct e1000_config *config, struct error *err)
{
    static const uint16_t ids[] = {
        [E1000_82540EM] = 0x100e, [E1000_82545EM] = 0x100f, [E1000_82574L] = 0x10d3};
    const struct pci_function_config function = {.name = e1000_ops_of(config->model)->name,
                                                 .slot = config->slot,
                                                 .function = config->function,
                                                 .vendor = VENDOR_INTEL,
                                                 .device = ids[config->model],
                                                 .subsystem_vendor = VENDOR_INTEL,
                                                 .subsystem = ids[config->model],
                                                 .class_code = CLASS_ETHERNET,
                                                 .revision = e->is_82574 ? 0 : 3,
                                                 .pin = 1,
                                                 .written = config_written,
                                                 .opaque = e};
    e->function = pci_function_create(config->pci, &function, err);
    if (!e->function)
        return false;
    pci_function_bar(e->function, REGISTER_BAR,
                     &(struct pci_bar){.size_bytes = BAR_BYTES,
                                       .read = e1000_mmio_read,
                                       .write = e1000_mmio_write,
                                       .opaque = e});
    pci_function_bar(e->function, IO_BAR,
                     &(struct pci_bar){.is_io = true,
                                       .size_bytes = e->is_82574 ? IO_BYTES_82574 : IO_BYTES,
                                       .read = e1000_io_read,
                                       .write = e1000_io_write,
                                       .opaque = e});
    if (config->rom && !pci_function_rom(e->function, config->rom, config->rom_bytes, err))
        return false;
    return !e->is_82574 || add_82574(e, &config->msi, err);
}

static void destroy(void *device)
{
    struct e1000 *e = device;
    e->backend.set_receiver(e->backend.opaque, NULL);
    if (e->timer)
        clock_timer_close(e->timer);
    if (e->function)
        pci_function_destroy(e->function);
    msix_destroy(e->msix);
    wake_close(e->wake);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

struct e1000 *e1000_create(const struct e1000_config *config, struct error *err)
{
    static const struct net_guest_features finished = {0};
    struct e1000 *e = calloc(1, sizeof(*e));
    if (!e) {
        error_set(err, "cannot create device", e1000_ops_of(config->model)->name, "out of memory");
        return NULL;
    }
    e->is_82574 = config->model == E1000_82574L;
    e->ram = config->ram;
    e->clock = config->clock;
    e->log = config->log;
    e->backend = config->backend;
    e->is_connected = !e->backend.link_up || e->backend.link_up(e->backend.opaque);
    pthread_mutex_init(&e->lock, NULL);
    e1000_eeprom_init(e, config);
    e->wake = wake_open(config->loop, service, e, err);
    e->timer = clock_timer_open(config->clock, e1000_timer_fired, e);
    if (!e->timer)
        error_set(err, "cannot create device", e1000_ops_of(config->model)->name, "out of memory");
    if (!e->wake || !e->timer || !create_function(e, config, err)) {
        destroy(e);
        return NULL;
    }
    e1000_registers_reset(e, true);
    if (e->backend.set_guest_features)
        e->backend.set_guest_features(e->backend.opaque, &finished);
    e->backend.set_receiver(e->backend.opaque, &(struct net_receiver){receive, e});
    return e;
}

static void reset(void *device)
{
    struct e1000 *e = device;
    pthread_mutex_lock(&e->lock);
    e->io_address = 0;
    e1000_registers_reset(e, true);
    e->rx_waits = false;
    e->resume_wanted = true;
    wake_ring(e->wake);
    pthread_mutex_unlock(&e->lock);
    pci_function_reset(e->function);
    if (e->msix)
        msix_reset(e->msix);
}

/* ---- saved ---- */

static void save_delay(const struct e1000_delay *delay, struct save *save)
{
    save_u64(save, delay->due_ns);
    save_u64(save, delay->limit_ns);
    save_u32(save, delay->causes);
}

static void save_tx(const struct e1000_tx *tx, struct save *save)
{
    for (unsigned i = 0; i < 4; i++)
        save_u32(save, tx->context[i]);
    save_bool(save, tx->in_frame);
    if (!tx->in_frame)
        return;
    save_bool(save, tx->is_extended);
    save_bool(save, tx->segments);
    save_bool(save, tx->is_too_long);
    save_u8(save, tx->options);
    save_u32(save, tx->size_bytes);
    save_bytes(save, tx->bytes, tx->size_bytes);
}

static void save_all(void *device, struct save *save)
{
    struct e1000 *e = device;
    pci_function_save(e->function, save);
    if (e->msix)
        msix_save(e->msix, save);
    pthread_mutex_lock(&e->lock);
    for (unsigned i = 0; i < REGISTERS_END / 4; i++)
        save_u32(save, e->regs[i]);
    save_u32(save, e->io_address);
    for (unsigned i = 0; i < E1000_PHY_REGISTERS; i++)
        save_u16(save, e->phy[i]);
    save_u32(save, e->wires.bits);
    save_u16(save, e->wires.out);
    save_u8(save, e->wires.bit_count);
    save_u8(save, e->wires.out_left);
    save_delay(&e->rx_delay, save);
    save_delay(&e->tx_delay, save);
    save_u64(save, e->next_interrupt_ns);
    save_bool(save, e->throttled);
    for (unsigned i = 0; i < E1000_QUEUES; i++)
        save_tx(&e->tx[i], save);
    pthread_mutex_unlock(&e->lock);
}

static void load_delay(struct e1000_delay *delay, struct load *load)
{
    delay->due_ns = load_u64(load);
    delay->limit_ns = load_u64(load);
    delay->causes = load_u32(load);
}

static void load_tx(struct e1000_tx *tx, struct load *load)
{
    for (unsigned i = 0; i < 4; i++)
        tx->context[i] = load_u32(load);
    tx->in_frame = load_bool(load);
    if (!tx->in_frame)
        return;
    tx->is_extended = load_bool(load);
    tx->segments = load_bool(load);
    tx->is_too_long = load_bool(load);
    tx->options = load_u8(load);
    tx->size_bytes = load_u32(load);
    if (tx->size_bytes > sizeof(tx->bytes)) {
        tx->size_bytes = 0;
        load_fail(load);
    }
    load_bytes(load, tx->bytes, tx->size_bytes);
}

/* Registers and the transceiver's take any value: the guest could have written it. */
static void load_state(struct e1000 *e, struct load *load)
{
    for (unsigned i = 0; i < REGISTERS_END / 4; i++)
        e->regs[i] = load_u32(load);
    e->io_address = load_u32(load);
    for (unsigned i = 0; i < E1000_PHY_REGISTERS; i++)
        e->phy[i] = load_u16(load);
    e->wires.bits = load_u32(load);
    e->wires.out = load_u16(load);
    e->wires.bit_count = load_u8(load);
    e->wires.out_left = load_u8(load);
    if (e->wires.bit_count > 9 || e->wires.out_left > 16) {
        memset(&e->wires, 0, sizeof(e->wires));
        load_fail(load);
    }
    load_delay(&e->rx_delay, load);
    load_delay(&e->tx_delay, load);
    e->next_interrupt_ns = load_u64(load);
    e->throttled = load_bool(load);
    for (unsigned i = 0; i < E1000_QUEUES; i++)
        load_tx(&e->tx[i], load);
    e->intx = !e->throttled && *e1000_reg(e, ICR) & *e1000_reg(e, IMS) & ~CAUSE_ASSERTED &&
              !(e->msix && msix_enabled(e->msix));
    pci_function_intx(e->function, e->intx);
    e1000_arm_timer(e);
    e->resume_wanted = true;
    wake_ring(e->wake);
}

static bool load_all(void *device, struct load *load, uint32_t version)
{
    struct e1000 *e = device;
    reset(e);
    if (version != e1000_ops.version || !pci_function_load(e->function, load) ||
        (e->msix && !msix_load(e->msix, load))) {
        load_fail(load);
    } else {
        pthread_mutex_lock(&e->lock);
        load_state(e, load);
        pthread_mutex_unlock(&e->lock);
    }
    if (load->failed)
        reset(e);
    return !load->failed;
}

const struct device_ops e1000_ops = {
    .name = "e1000",
    .version = 1,
    .reset = reset,
    .save = save_all,
    .load = load_all,
    .destroy = destroy,
};

const struct device_ops e1000e_ops = {
    .name = "e1000e",
    .version = 1,
    .reset = reset,
    .save = save_all,
    .load = load_all,
    .destroy = destroy,
};

const struct device_ops *e1000_ops_of(enum e1000_model model)
{
    return model == E1000_82574L ? &e1000e_ops : &e1000_ops;
}
