/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The IDE controller: its PCI function, the ranges of its ports, saved state. What is left out and
 * which threads run it: see ide.h.
 */
#include "dev/storage/ide_internal.h"

#include <stdlib.h>
#include <string.h>

enum { VENDOR_INTEL = 0x8086, DEVICE_ICH7_IDE = 0x27df, CLASS_IDE = 0x010180 };
enum { BM_BAR = 4, BM_BAR_BYTES = 16, COMMAND_BYTES = 8 };

enum { /* ICH7, 11.1 */
       CONFIG_TIMING = 0x40,
       CONFIG_SLAVE_TIMING = 0x44,
       CONFIG_UDMA = 0x48,
       CONFIG_IO = 0x54,
       TIMING_DECODES = 0x8000,
       IO_CABLES_80 = 0x00f0, /* cables of 80 wires */
};

/* ---- ports ---- */

static uint64_t command_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct ide_channel *channel = opaque;
    pthread_mutex_lock(&channel->ide->lock);
    uint64_t value = ide_port_read(channel, (unsigned)offset, size_bytes);
    pthread_mutex_unlock(&channel->ide->lock);
    return value;
}

static void command_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct ide_channel *channel = opaque;
    pthread_mutex_lock(&channel->ide->lock);
    ide_port_write(channel, (unsigned)offset, value, size_bytes);
    pthread_mutex_unlock(&channel->ide->lock);
}

static uint64_t control_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct ide_channel *channel = opaque;
    pthread_mutex_lock(&channel->ide->lock);
    uint64_t value = ide_alternate_status(channel);
    pthread_mutex_unlock(&channel->ide->lock);
    return value;
}

static void control_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct ide_channel *channel = opaque;
    pthread_mutex_lock(&channel->ide->lock);
    ide_write_control(channel, (uint8_t)value);
    pthread_mutex_unlock(&channel->ide->lock);
}

static uint64_t bm_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct ide *ide = opaque;
    uint64_t value = 0;
    pthread_mutex_lock(&ide->lock);
    for (unsigned i = 0; i < size_bytes && offset + i < BM_BAR_BYTES; i++) {
        unsigned at = (unsigned)offset + i;
        value |= (uint64_t)ide_bm_read(&ide->channel[at / IDE_BM_BYTES], at % IDE_BM_BYTES)
                 << (8 * i);
    }
    pthread_mutex_unlock(&ide->lock);
    return value;
}

static void bm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct ide *ide = opaque;
    pthread_mutex_lock(&ide->lock);
    for (unsigned i = 0; i < size_bytes && offset + i < BM_BAR_BYTES; i++) {
        unsigned at = (unsigned)offset + i;
        ide_bm_write(&ide->channel[at / IDE_BM_BYTES], at % IDE_BM_BYTES,
                     (uint8_t)(value >> (8 * i)));
    }
    pthread_mutex_unlock(&ide->lock);
}

/* ---- saved state: no drive has a command ---- */

static void save_registers(const struct ide_registers *r, struct save *save)
{
    save_bytes(save, r->features, sizeof(r->features));
    save_bytes(save, r->count, sizeof(r->count));
    save_bytes(save, r->lba, sizeof(r->lba));
    save_u8(save, r->device);
}

static void save_taskfile(const struct ata_taskfile *tf, struct save *save)
{
    save_u8(save, tf->command);
    save_u8(save, tf->device);
    save_u16(save, tf->features);
    save_u16(save, tf->count);
    save_u64(save, tf->lba);
}

static void save_channel(const struct ide_channel *channel, struct save *save)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct ide_device *device = &channel->device[i];
        save_registers(&device->r, save);
        save_u8(save, device->status);
        save_u8(save, device->error);
        if (device->drive)
            ata_drive_save(device->drive, save);
    }
    save_u8(save, (uint8_t)channel->selected);
    save_u8(save, channel->control);
    save_bool(save, channel->interrupt);
    save_bool(save, channel->reset_waits);
    save_u8(save, channel->bm_command);
    save_u8(save, channel->bm_status);
    save_u32(save, channel->bm_table);
    save_u8(save, (uint8_t)channel->phase);
    save_taskfile(&channel->request.tf, save);
    save_bytes(save, channel->request.packet, sizeof(channel->request.packet));
    save_u64(save, channel->request.at_bytes);
    save_u32(save, channel->size);
    save_u32(save, channel->at);
    save_u32(save, channel->end);
    if (channel->size)
        save_bytes(save, channel->buffer, channel->size);
}

static void ide_save(void *opaque, struct save *save)
{
    struct ide *ide = opaque;
    pci_function_save(ide->function, save);
    pthread_mutex_lock(&ide->lock);
    for (unsigned i = 0; i < IDE_CHANNELS; i++)
        save_channel(&ide->channel[i], save);
    pthread_mutex_unlock(&ide->lock);
}

static void load_registers(struct ide_registers *r, struct load *load)
{
    load_bytes(load, r->features, sizeof(r->features));
    load_bytes(load, r->count, sizeof(r->count));
    load_bytes(load, r->lba, sizeof(r->lba));
    r->device = load_u8(load);
}

static void load_taskfile(struct ata_taskfile *tf, struct load *load)
{
    tf->command = load_u8(load);
    tf->device = load_u8(load);
    tf->features = load_u16(load);
    tf->count = load_u16(load);
    tf->lba = load_u64(load);
}

/* Whether the command that was saved can be in this phase, with such a buffer. */
static bool phase_valid(const struct ide_channel *channel, uint32_t size, uint32_t at, uint32_t end)
{
    const struct ata_plan *plan = &channel->plan;
    bool is_packet = plan->protocol == ATA_PACKET;
    if (channel->phase == IDE_IDLE)
        return size == 0;
    if (at > end || end > size || channel->request.at_bytes > plan->data_bytes)
        return false;
    switch (channel->phase) {
    case IDE_DATA_IN:
        return at < end &&
               (is_packet || (plan->protocol == ATA_PIO_IN && size == plan->block_bytes));
    case IDE_DATA_OUT:
        return at < end &&
               (is_packet || (plan->protocol == ATA_PIO_OUT && size == plan->block_bytes));
    case IDE_PACKET: return is_packet && size == ATA_PACKET_BYTES && at < end;
    case IDE_DMA_WAIT:
        return is_packet || plan->protocol == ATA_DMA_IN || plan->protocol == ATA_DMA_OUT;
    default: return false;
    }
}

static void load_buffer(struct ide_channel *channel, struct load *load)
{
    struct ata_drive *drive = channel->device[channel->selected].drive;
    uint32_t size = load_u32(load), at = load_u32(load), end = load_u32(load);
    memset(&channel->plan, 0, sizeof(channel->plan));
    if (drive)
        channel->plan = ata_plan(drive, &channel->request.tf);
    if (load->failed || size > SCSI_TRANSFER_MAX_BYTES ||
        (channel->phase != IDE_IDLE && (!drive || channel->plan.error)) ||
        !phase_valid(channel, size, at, end) || (size && !ide_buffer(channel, size))) {
        channel->phase = IDE_IDLE;
        load_fail(load);
        return;
    }
    channel->at = at;
    channel->end = end;
    if (size)
        load_bytes(load, channel->buffer, size);
}

static void load_channel(struct ide_channel *channel, struct load *load)
{
    ide_abandon(channel);
    for (unsigned i = 0; i < 2 && !load->failed; i++) {
        struct ide_device *device = &channel->device[i];
        load_registers(&device->r, load);
        device->status = load_u8(load);
        device->error = load_u8(load);
        if (device->drive)
            ata_drive_load(device->drive, load);
    }
    uint8_t selected = load_u8(load);
    channel->selected = selected & 1;
    channel->control = load_u8(load);
    channel->interrupt = load_bool(load);
    channel->reset_waits = load_bool(load);
    channel->bm_command = load_u8(load) & (BM_START | BM_TO_MEMORY);
    channel->bm_status = load_u8(load) & (BM_ACTIVE | BM_ERROR | BM_INTERRUPT | BM_CAPABLE);
    channel->bm_table = load_u32(load) & ~UINT32_C(3);
    uint8_t phase = load_u8(load);
    load_taskfile(&channel->request.tf, load);
    load_bytes(load, channel->request.packet, sizeof(channel->request.packet));
    channel->request.at_bytes = load_u64(load);
    channel->phase = phase < IDE_PHASES ? phase : IDE_IDLE;
    if (selected > 1 || phase >= IDE_PHASES || phase == IDE_BUSY)
        load_fail(load);
    load_buffer(channel, load);
    if (!load->failed)
        ide_set_interrupt(channel, channel->interrupt);
}

static void ide_reset(void *opaque)
{
    struct ide *ide = opaque;
    pci_function_reset(ide->function);
    pthread_mutex_lock(&ide->lock);
    for (unsigned i = 0; i < IDE_CHANNELS; i++)
        ide_channel_reset(&ide->channel[i], true);
    pthread_mutex_unlock(&ide->lock);
}

static bool ide_load(void *opaque, struct load *load, uint32_t version)
{
    struct ide *ide = opaque;
    if (version != ide_ops.version || !pci_function_load(ide->function, load))
        load_fail(load);
    pthread_mutex_lock(&ide->lock);
    for (unsigned i = 0; i < IDE_CHANNELS && !load->failed; i++)
        load_channel(&ide->channel[i], load);
    pthread_mutex_unlock(&ide->lock);
    if (load->failed)
        ide_reset(ide);
    return !load->failed;
}

/* ---- life ---- */

static void ide_destroy(void *opaque)
{
    struct ide *ide = opaque;
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        struct ide_channel *channel = &ide->channel[i];
        if (ide->is_mapped[2 * i])
            bus_unmap(ide->bus, BUS_PORT, ide->config.port[i]);
        if (ide->is_mapped[2 * i + 1])
            bus_unmap(ide->bus, BUS_PORT, ide->config.control_port[i]);
        ide_abandon(channel);
        dma_list_free(&channel->list);
        for (unsigned drive = 0; drive < 2; drive++)
            ata_drive_destroy(channel->device[drive].drive);
    }
    if (ide->function)
        pci_function_destroy(ide->function);
    pthread_mutex_destroy(&ide->lock);
    free(ide);
}

static bool create_function(struct ide *ide, struct error *err)
{
    const struct pci_function_config config = {
        .name = ide_ops.name,
        .slot = ide->config.slot,
        .function = ide->config.function,
        .vendor = VENDOR_INTEL,
        .device = DEVICE_ICH7_IDE,
        .subsystem_vendor = 0x1af4,
        .subsystem = 0x1100,
        .class_code = CLASS_IDE,
        .revision = 1,
    };
    const struct pci_bar bar = {.is_io = true,
                                .size_bytes = BM_BAR_BYTES,
                                .read = bm_read,
                                .write = bm_write,
                                .opaque = ide};
    ide->function = pci_function_create(ide->config.pci, &config, err);
    if (!ide->function)
        return false;
    struct pci_function *f = ide->function;
    pci_function_bar(f, BM_BAR, &bar);
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        pci_function_init(f, CONFIG_TIMING + 2 * i, TIMING_DECODES, 2);
        pci_function_writable(f, CONFIG_TIMING + 2 * i, 0xffff, 2);
    }
    pci_function_writable(f, CONFIG_SLAVE_TIMING, 0xff, 1);
    pci_function_writable(f, CONFIG_UDMA, 0x3333000f, 4);
    pci_function_init(f, CONFIG_IO, IO_CABLES_80, 4);
    pci_function_writable(f, CONFIG_IO, 0x000ff0ff, 4);
    return true;
}

static bool map_channel(struct ide *ide, unsigned index, struct error *err)
{
    struct ide_channel *channel = &ide->channel[index];
    const struct bus_range command = {.name = ide_ops.name,
                                      .space = BUS_PORT,
                                      .base = ide->config.port[index],
                                      .size_bytes = COMMAND_BYTES,
                                      .read = command_read,
                                      .write = command_write,
                                      .opaque = channel};
    const struct bus_range control = {.name = ide_ops.name,
                                      .space = BUS_PORT,
                                      .base = ide->config.control_port[index],
                                      .size_bytes = 1,
                                      .read = control_read,
                                      .write = control_write,
                                      .opaque = channel};
    ide->is_mapped[2 * index] = bus_map(ide->bus, &command, err);
    ide->is_mapped[2 * index + 1] = ide->is_mapped[2 * index] && bus_map(ide->bus, &control, err);
    return ide->is_mapped[2 * index + 1];
}

struct ide *ide_create(const struct ide_config *config, struct error *err)
{
    struct ide *ide = calloc(1, sizeof(*ide));
    if (!ide) {
        error_set(err, "cannot create device", ide_ops.name, "out of memory");
        for (unsigned i = 0; i < IDE_DRIVES; i++)
            ata_drive_destroy(config->drives[i]);
        return NULL;
    }
    ide->config = *config;
    ide->bus = pci_bus_bus(config->pci);
    pthread_mutex_init(&ide->lock, NULL);
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        struct ide_channel *channel = &ide->channel[i];
        channel->ide = ide;
        channel->index = i;
        for (unsigned drive = 0; drive < 2; drive++)
            channel->device[drive].drive = config->drives[2 * i + drive];
        ide_channel_reset(channel, true);
    }
    if (!create_function(ide, err) || !map_channel(ide, 0, err) || !map_channel(ide, 1, err)) {
        ide_destroy(ide);
        return NULL;
    }
    return ide;
}

const struct device_ops ide_ops = {
    .name = "ich-ide",
    .version = 1,
    .reset = ide_reset,
    .save = ide_save,
    .load = ide_load,
    .destroy = ide_destroy,
};
