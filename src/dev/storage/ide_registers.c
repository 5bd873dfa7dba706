/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Ports of an IDE channel: command block, control, data (ATA8-APT, chapter 6), bus master (ICH7,
 * 11.2), and resets. A reset while the drive has a command is over when that has ended: until then
 * the drives are busy, and the guest does not reuse its memory.
 */
#include "dev/storage/ide_internal.h"

#include <string.h>

enum {
    REG_DATA = 0,
    REG_ERROR = 1,
    REG_COUNT = 2,
    REG_LBA = 3, /* three of them */
    REG_DEVICE = 6,
    REG_STATUS = 7,
    DEVICE_SECOND = 0x10,
    DIAGNOSTIC_PASSED = 1,
};

static struct ide_device *selected(struct ide_channel *channel)
{
    return &channel->device[channel->selected];
}

void ide_set_interrupt(struct ide_channel *channel, bool level)
{
    channel->interrupt = level;
    irq_set(&channel->ide->config.irq[channel->index], level && !(channel->control & CONTROL_NIEN));
}

/* ---- resets ---- */

void ide_signature(struct ide_channel *channel)
{
    channel->selected = 0;
    for (unsigned i = 0; i < 2; i++) {
        struct ide_device *device = &channel->device[i];
        memset(&device->r, 0, sizeof(device->r));
        device->status = device->error = 0;
        if (!device->drive)
            continue;
        const struct ata_taskfile tf = ata_drive_signature(device->drive);
        device->r.count[0] = (uint8_t)tf.count;
        for (unsigned byte = 0; byte < 3; byte++)
            device->r.lba[byte][0] = (uint8_t)(tf.lba >> (8 * byte));
        device->error = DIAGNOSTIC_PASSED;
        device->status = ata_drive_is_atapi(device->drive) ? 0 : ATA_READY;
    }
}

void ide_channel_reset(struct ide_channel *channel, bool is_power_on)
{
    ide_abandon(channel);
    channel->reset_waits = false;
    for (unsigned i = 0; i < 2; i++)
        if (channel->device[i].drive)
            ata_drive_reset(channel->device[i].drive, is_power_on);
    ide_signature(channel);
    if (is_power_on) {
        channel->control = 0;
        channel->bm_command = channel->bm_status = 0;
        channel->bm_table = 0;
    }
    ide_set_interrupt(channel, false);
}

void ide_write_control(struct ide_channel *channel, uint8_t value)
{
    uint8_t old = channel->control;
    channel->control = value;
    if (!(old & CONTROL_SRST) && (value & CONTROL_SRST)) {
        for (unsigned i = 0; i < 2; i++)
            channel->device[i].status = ATA_STATUS_BSY;
        channel->reset_waits = true;
        channel->interrupt = false;
        if (channel->phase != IDE_BUSY)
            ide_abandon(channel);
    } else if ((old & CONTROL_SRST) && !(value & CONTROL_SRST) && channel->phase != IDE_BUSY) {
        ide_channel_reset(channel, false);
    }
    ide_set_interrupt(channel, channel->interrupt);
}

/* ---- reading ---- */

static bool has_drive(const struct ide_channel *channel)
{
    return channel->device[channel->selected].drive;
}

uint8_t ide_alternate_status(const struct ide_channel *channel)
{
    return has_drive(channel) ? channel->device[channel->selected].status : 0;
}

/* Moves data between the buffer and the guest; past what it may move it reads as zeroes. */
static uint64_t data_read(struct ide_channel *channel, unsigned size_bytes)
{
    uint64_t value = 0;
    if (channel->phase != IDE_DATA_IN)
        return 0;
    for (unsigned i = 0; i < size_bytes && channel->at < channel->end; i++)
        value |= (uint64_t)channel->buffer[channel->at++] << (8 * i);
    if (channel->at == channel->end)
        ide_data_moved(channel);
    return value;
}

static void data_write(struct ide_channel *channel, uint64_t value, unsigned size_bytes)
{
    if (channel->phase != IDE_DATA_OUT && channel->phase != IDE_PACKET)
        return;
    for (unsigned i = 0; i < size_bytes && channel->at < channel->end; i++)
        channel->buffer[channel->at++] = (uint8_t)(value >> (8 * i));
    if (channel->at == channel->end)
        ide_data_moved(channel);
}

uint64_t ide_port_read(struct ide_channel *channel, unsigned offset, unsigned size_bytes)
{
    struct ide_device *device = selected(channel);
    unsigned which = channel->control & CONTROL_HOB ? 1 : 0;
    if (offset == REG_DATA)
        return data_read(channel, size_bytes);
    if (!device->drive)
        return 0;
    switch (offset) {
    case REG_ERROR: return device->error;
    case REG_COUNT: return device->r.count[which];
    case REG_DEVICE: return device->r.device;
    case REG_STATUS: {
        uint8_t status = device->status;
        ide_set_interrupt(channel, false);
        return status;
    }
    default: return device->r.lba[offset - REG_LBA][which];
    }
}

/* ---- writing ---- */

static void push(uint8_t pair[2], uint8_t value)
{
    pair[1] = pair[0];
    pair[0] = value;
}

static void select_device(struct ide_channel *channel, uint8_t value)
{
    channel->selected = value & DEVICE_SECOND ? 1 : 0;
    for (unsigned i = 0; i < 2; i++)
        channel->device[i].r.device = value;
}

/* Both drives take what is written. */
static void write_register(struct ide_registers *r, unsigned offset, uint8_t value)
{
    switch (offset) {
    case REG_ERROR: push(r->features, value); break;
    case REG_COUNT: push(r->count, value); break;
    default: push(r->lba[offset - REG_LBA], value); break;
    }
}

void ide_port_write(struct ide_channel *channel, unsigned offset, uint64_t value,
                    unsigned size_bytes)
{
    channel->control &= (uint8_t)~CONTROL_HOB;
    if (offset == REG_DATA) {
        data_write(channel, value, size_bytes);
    } else if (offset == REG_STATUS) {
        ide_command(channel, (uint8_t)value);
    } else if (!(selected(channel)->status & (ATA_STATUS_BSY | ATA_STATUS_DRQ))) {
        if (offset == REG_DEVICE)
            select_device(channel, (uint8_t)value);
        else
            for (unsigned i = 0; i < 2; i++)
                write_register(&channel->device[i].r, offset, (uint8_t)value);
    }
}

/* ---- the bus master ---- */

uint8_t ide_bm_read(const struct ide_channel *channel, unsigned offset)
{
    switch (offset) {
    case 0: return channel->bm_command;
    case 2: return channel->bm_status;
    case 4:
    case 5:
    case 6:
    case 7: return (uint8_t)(channel->bm_table >> (8 * (offset - 4)));
    default: return 0;
    }
}

static void bm_write_command(struct ide_channel *channel, uint8_t value)
{
    uint8_t old = channel->bm_command;
    channel->bm_command = value & (BM_START | BM_TO_MEMORY);
    if (!(old & BM_START) && (value & BM_START)) {
        channel->bm_status |= BM_ACTIVE;
        if (channel->phase == IDE_DMA_WAIT)
            ide_dma_start(channel);
    } else if ((old & BM_START) && !(value & BM_START)) {
        channel->bm_status &= (uint8_t)~BM_ACTIVE;
    }
}

void ide_bm_write(struct ide_channel *channel, unsigned offset, uint8_t value)
{
    unsigned shift = 8 * (offset & 3);
    if (offset == 0)
        bm_write_command(channel, value);
    else if (offset == 2)
        channel->bm_status =
            (uint8_t)((channel->bm_status & ~BM_CAPABLE & ~(value & (BM_ERROR | BM_INTERRUPT))) |
                      (value & BM_CAPABLE));
    else if (offset >= 4)
        channel->bm_table =
            ((channel->bm_table & ~(UINT32_C(0xff) << shift)) | (uint32_t)value << shift) &
            ~UINT32_C(3);
}
