/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Commands of an IDE channel and their protocols (ATA8-APT, chapter 9): PIO in blocks through a
 * buffer, DMA by a table of memory pieces, packets by both.
 */
#include "dev/storage/ide_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    COMMAND_DEVICE_RESET = 0x08,
    COMMAND_DIAGNOSTIC = 0x90,
    FEATURE_DMA = 0x01,
    REASON_COMMAND = 1, /* the interrupt reason of packets, in the count register */
    REASON_TO_HOST = 2,
    PRD_BYTES = 8,
    PRD_MAX = 8192, /* a table does not cross 64 KiB */
    BYTE_COUNT_MAX = 0xfffe,
};

static struct ide_device *selected(struct ide_channel *channel)
{
    return &channel->device[channel->selected];
}

static void request_done(struct ata_request *request);
static void done(struct ide_channel *channel);

/* ---- the end ---- */

void ide_abandon(struct ide_channel *channel)
{
    free(channel->buffer);
    channel->buffer = NULL;
    channel->size = channel->at = channel->end = 0;
    channel->phase = IDE_IDLE;
}

bool ide_buffer(struct ide_channel *channel, uint32_t size_bytes)
{
    free(channel->buffer);
    channel->buffer = calloc(1, size_bytes ? size_bytes : 1);
    channel->size = channel->buffer ? size_bytes : 0;
    channel->at = channel->end = 0;
    return channel->buffer;
}

/* What the drive says goes into its registers. */
static void put_registers(struct ide_device *device, const struct ata_taskfile *tf)
{
    for (unsigned i = 0; i < 2; i++)
        device->r.count[i] = (uint8_t)(tf->count >> (8 * i));
    for (unsigned i = 0; i < 3; i++) {
        device->r.lba[i][0] = (uint8_t)(tf->lba >> (8 * i));
        device->r.lba[i][1] = (uint8_t)(tf->lba >> (24 + 8 * i));
    }
    device->r.device = (uint8_t)((device->r.device & 0xf0) | (tf->device & 0x0f));
}

static void end(struct ide_channel *channel)
{
    struct ide_device *device = selected(channel);
    ide_abandon(channel);
    put_registers(device, &channel->request.tf);
    device->status = channel->request.status;
    device->error = channel->request.error;
    ide_set_interrupt(channel, true);
}

static void end_with_error(struct ide_channel *channel, uint8_t error)
{
    channel->request.status = ATA_READY | ATA_STATUS_ERR;
    channel->request.error = error;
    end(channel);
}

/* Hands the request to the drive, with the memory of its data. */
static void run(struct ide_channel *channel, struct iovec *iov, unsigned iov_count,
                uint64_t data_bytes)
{
    struct ata_request *r = &channel->request;
    r->iov = iov;
    r->iov_count = iov_count;
    r->data_bytes = data_bytes;
    r->done = request_done;
    r->opaque = channel;
    channel->phase = IDE_BUSY;
    selected(channel)->status = ATA_STATUS_BSY;
    if (!ata_submit(selected(channel)->drive, r))
        done(channel);
}

/* ---- PIO ---- */

/* The guest may move the buffer up to `size` bytes from where it is. */
static void offer(struct ide_channel *channel, enum ide_phase phase, uint32_t size, bool interrupts)
{
    channel->phase = phase;
    channel->end = channel->at + size;
    selected(channel)->status = ATA_READY | ATA_STATUS_DRQ;
    selected(channel)->error = 0;
    if (interrupts)
        ide_set_interrupt(channel, true);
}

static uint32_t block_size(const struct ide_channel *channel)
{
    uint64_t left = channel->plan.data_bytes - channel->request.at_bytes;
    return (uint32_t)(left < channel->plan.block_bytes ? left : channel->plan.block_bytes);
}

/* Moves the next block between drive and buffer. */
static void block_run(struct ide_channel *channel)
{
    uint32_t size = block_size(channel);
    channel->piece = (struct iovec){channel->buffer, size};
    run(channel, &channel->piece, 1, size);
}

/* ---- DMA ---- */

/* ICH7, 11.2.3. False: the table or what it names is no memory. */
static bool collect(struct ide_channel *channel, uint64_t size_bytes)
{
    const struct ram *ram = channel->ide->config.ram;
    uint64_t gpa = channel->bm_table;
    dma_list_clear(&channel->list);
    for (unsigned i = 0; i < PRD_MAX && channel->list.size_bytes < size_bytes; i++) {
        uint32_t prd[2];
        if (!ram_read(ram, gpa + (uint64_t)i * PRD_BYTES, prd, sizeof(prd)))
            return false;
        uint64_t size = prd[1] & 0xfffe, left = size_bytes - channel->list.size_bytes;
        if (!size)
            size = 65536;
        if (!dma_list_add(&channel->list, ram, prd[0] & ~UINT32_C(1), size < left ? size : left))
            return false;
        if (prd[1] >> 31)
            break;
    }
    return true;
}

static uint64_t packet_size(struct ide_channel *channel, enum scsi_direction *direction)
{
    uint64_t size;
    *direction = ata_packet_direction(selected(channel)->drive, channel->request.packet, &size);
    return size;
}

void ide_dma_start(struct ide_channel *channel)
{
    enum scsi_direction direction;
    bool is_packet = channel->plan.protocol == ATA_PACKET;
    uint64_t size = is_packet ? packet_size(channel, &direction) : channel->plan.data_bytes;
    /* A packet may move less than its memory, but memory that is too short fails a disk. */
    if (!collect(channel, size) || (!is_packet && channel->list.size_bytes < size)) {
        channel->bm_status = (uint8_t)((channel->bm_status & ~BM_ACTIVE) | BM_ERROR | BM_INTERRUPT);
        end_with_error(channel, ATA_ERROR_ABRT);
        return;
    }
    run(channel, channel->list.iov, channel->list.count, channel->list.size_bytes);
}

static void dma_wait(struct ide_channel *channel)
{
    channel->phase = IDE_DMA_WAIT;
    selected(channel)->status = ATA_READY | ATA_STATUS_DRQ;
    if (channel->bm_command & BM_START)
        ide_dma_start(channel);
}

static bool uses_dma(const struct ide_channel *channel)
{
    return channel->plan.protocol == ATA_DMA_IN || channel->plan.protocol == ATA_DMA_OUT ||
           (channel->plan.protocol == ATA_PACKET && (channel->request.tf.features & FEATURE_DMA));
}

/* ---- packets by PIO ---- */

/* How much data may go between two interrupts: the guest says so in the address registers. */
static uint32_t byte_count_limit(const struct ide_channel *channel)
{
    uint32_t limit = channel->request.tf.lba >> 8 & BYTE_COUNT_MAX;
    return limit ? limit : BYTE_COUNT_MAX;
}

static void packet_offer(struct ide_channel *channel, enum ide_phase phase, bool interrupts)
{
    struct ide_registers *r = &selected(channel)->r;
    uint32_t left = channel->size - channel->at, limit = byte_count_limit(channel);
    uint32_t size = left < limit ? left : limit;
    r->count[0] = phase == IDE_DATA_IN ? REASON_TO_HOST : 0;
    r->lba[1][0] = (uint8_t)size;
    r->lba[2][0] = (uint8_t)(size >> 8);
    offer(channel, phase, size, interrupts);
}

static void packet_run(struct ide_channel *channel)
{
    channel->piece = (struct iovec){channel->buffer, channel->size};
    run(channel, &channel->piece, 1, channel->size);
}

/* All of the packet is there. */
static void packet_taken(struct ide_channel *channel)
{
    enum scsi_direction direction;
    memset(channel->request.packet, 0, sizeof(channel->request.packet));
    memcpy(channel->request.packet, channel->buffer, ATA_PACKET_BYTES);
    uint64_t size = packet_size(channel, &direction);
    if (uses_dma(channel) && size) {
        dma_wait(channel);
        return;
    }
    if (size > SCSI_TRANSFER_MAX_BYTES) /* which the unit refuses */
        size = 0;
    if (!ide_buffer(channel, (uint32_t)size))
        end_with_error(channel, ATA_ERROR_ABRT);
    else if (direction == SCSI_TO_UNIT && size)
        packet_offer(channel, IDE_DATA_OUT, true);
    else
        packet_run(channel);
}

static void packet_end(struct ide_channel *channel)
{
    channel->request.tf.count = REASON_COMMAND | REASON_TO_HOST;
    end(channel);
}

/* ---- what follows ---- */

void ide_data_moved(struct ide_channel *channel)
{
    bool is_packet = channel->plan.protocol == ATA_PACKET;
    switch (channel->phase) {
    case IDE_PACKET: packet_taken(channel); break;
    case IDE_DATA_IN:
        if (is_packet && channel->at < channel->size)
            packet_offer(channel, IDE_DATA_IN, true);
        else if (is_packet)
            packet_end(channel);
        else if (channel->request.at_bytes < channel->plan.data_bytes)
            block_run(channel);
        else {
            ide_abandon(channel);
            selected(channel)->status = ATA_READY;
        }
        break;
    case IDE_DATA_OUT:
        if (is_packet && channel->at < channel->size)
            packet_offer(channel, IDE_DATA_OUT, true);
        else if (is_packet)
            packet_run(channel);
        else
            block_run(channel);
        break;
    default: break;
    }
}

static void dma_done(struct ide_channel *channel)
{
    const struct ata_request *r = &channel->request;
    if (channel->plan.protocol != ATA_DMA_OUT)
        dma_list_written(&channel->list, channel->ide->config.ram, r->moved_bytes);
    channel->bm_status |= BM_INTERRUPT;
    if (r->moved_bytes == channel->list.size_bytes || (r->status & ATA_STATUS_ERR))
        channel->bm_status &= (uint8_t)~BM_ACTIVE;
    end(channel);
}

static void pio_done(struct ide_channel *channel)
{
    struct ata_request *r = &channel->request;
    r->at_bytes += r->moved_bytes;
    channel->at = 0;
    if (channel->plan.protocol == ATA_PIO_IN)
        offer(channel, IDE_DATA_IN, (uint32_t)r->moved_bytes, true);
    else if (r->at_bytes < channel->plan.data_bytes)
        offer(channel, IDE_DATA_OUT, block_size(channel), true);
    else
        end(channel);
}

static bool reads_data(struct ide_channel *channel)
{
    enum scsi_direction direction;
    return packet_size(channel, &direction) && direction == SCSI_FROM_UNIT;
}

/* The drive has ended the request. */
static void done(struct ide_channel *channel)
{
    struct ata_request *r = &channel->request;
    bool is_pio = channel->plan.protocol == ATA_PIO_IN || channel->plan.protocol == ATA_PIO_OUT;
    channel->phase = IDE_IDLE;
    if (channel->reset_waits) {
        ide_abandon(channel);
        if (!(channel->control & CONTROL_SRST))
            ide_channel_reset(channel, false);
    } else if (channel->list.count && uses_dma(channel)) {
        dma_done(channel);
    } else if (r->status & ATA_STATUS_ERR) {
        end(channel);
    } else if (is_pio) {
        pio_done(channel);
    } else if (channel->plan.protocol == ATA_PACKET && reads_data(channel) && r->moved_bytes) {
        channel->size = (uint32_t)r->moved_bytes;
        channel->at = 0;
        packet_offer(channel, IDE_DATA_IN, true);
    } else {
        end(channel);
    }
}

static void request_done(struct ata_request *request)
{
    struct ide_channel *channel = request->opaque;
    pthread_mutex_lock(&channel->ide->lock);
    done(channel);
    pthread_mutex_unlock(&channel->ide->lock);
}

/* ---- the start ---- */

static struct ata_taskfile taskfile(const struct ide_registers *r, uint8_t opcode)
{
    struct ata_taskfile tf = {.command = opcode, .device = r->device};
    tf.features = (uint16_t)(r->features[0] | r->features[1] << 8);
    tf.count = (uint16_t)(r->count[0] | r->count[1] << 8);
    for (unsigned i = 0; i < 3; i++)
        tf.lba |= (uint64_t)r->lba[i][0] << (8 * i) | (uint64_t)r->lba[i][1] << (24 + 8 * i);
    return tf;
}

static void start(struct ide_channel *channel)
{
    bool fits = true;
    switch (channel->plan.protocol) {
    case ATA_PIO_IN:
        fits = ide_buffer(channel, channel->plan.block_bytes);
        if (fits)
            block_run(channel);
        break;
    case ATA_PIO_OUT:
        fits = ide_buffer(channel, channel->plan.block_bytes);
        if (fits)
            offer(channel, IDE_DATA_OUT, block_size(channel), false);
        break;
    case ATA_PACKET:
        fits = ide_buffer(channel, ATA_PACKET_BYTES);
        if (fits) {
            selected(channel)->r.count[0] = REASON_COMMAND;
            offer(channel, IDE_PACKET, ATA_PACKET_BYTES, false);
        }
        break;
    case ATA_DMA_IN:
    case ATA_DMA_OUT: dma_wait(channel); break;
    default: run(channel, NULL, 0, 0); break;
    }
    if (!fits)
        end_with_error(channel, ATA_ERROR_ABRT);
}

/* DEVICE RESET ends what an ATAPI drive does, where nothing is under way (7.7). */
static void device_reset(struct ide_channel *channel)
{
    struct ide_device *device = selected(channel);
    if (channel->phase == IDE_BUSY)
        return;
    ide_abandon(channel);
    ata_drive_reset(device->drive, false);
    const struct ata_taskfile tf = ata_drive_signature(device->drive);
    put_registers(device, &tf);
    device->status = 0;
    device->error = 1;
}

void ide_command(struct ide_channel *channel, uint8_t opcode)
{
    struct ide_device *device = selected(channel);
    ide_set_interrupt(channel, false);
    if ((channel->control & CONTROL_SRST) || channel->reset_waits)
        return;
    if (device->drive && opcode == COMMAND_DEVICE_RESET && ata_drive_is_atapi(device->drive)) {
        device_reset(channel);
        return;
    }
    if (channel->phase != IDE_IDLE)
        return;
    if (opcode == COMMAND_DIAGNOSTIC) { /* of both, whichever is selected */
        ide_signature(channel);
        ide_set_interrupt(channel, channel->device[0].drive);
        return;
    }
    if (!device->drive)
        return;
    dma_list_clear(&channel->list);
    channel->request.tf = taskfile(&device->r, opcode);
    channel->request.at_bytes = 0;
    device->error = 0;
    channel->plan = ata_plan(device->drive, &channel->request.tf);
    if (channel->plan.error)
        run(channel, NULL, 0, 0); /* the drive says what it fails with */
    else
        start(channel);
}
