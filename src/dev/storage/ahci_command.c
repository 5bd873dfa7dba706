/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Commands of an AHCI port: what is in the command list and tables (AHCI 1.3, 4.2), and what the
 * guest is told when they end. All of it is guest memory and not trusted: it is copied once, and
 * what makes no sense halts the port as an error of the interface or of memory does.
 */
#include "dev/storage/ahci_internal.h"

#include <string.h>

enum {
    HEADER_BYTES = 32,
    TABLE_PACKET = 0x40,
    TABLE_PRDS = 0x80,
    FIS_BYTES = 20,
    PRD_BYTES = 16,
    PRD_CHUNK = 64, /* of them read at once */
};

enum { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_PIO_SETUP = 0x5f, FIS_DEVICE_BITS = 0xa1 };
enum { RECEIVED_PIO_SETUP = 0x20, RECEIVED_D2H = 0x40, RECEIVED_DEVICE_BITS = 0x58 };
enum { FIS_IS_COMMAND = 0x80, FIS_INTERRUPTS = 0x40, CONTROL_SRST = 0x04 };

/* The first word of a header. */
enum { HEADER_LENGTH = 0x1f, HEADER_CLEARS_BUSY = 1 << 10, HEADER_PRDS_SHIFT = 16 };

enum outcome { TAKEN, MUST_WAIT, HALTED };

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

/* ---- what the guest receives ---- */

static void post(struct ahci_port *port, unsigned offset, const uint8_t *fis, size_t size_bytes)
{
    if (port->cmd & CMD_FRE)
        (void)ram_write(port->ahci->config.ram, port->fb + offset, fis, size_bytes);
}

/* Serial ATA 2.6, 10.3.5 and others: registers are at the same places in all. */
static void put_registers(uint8_t *fis, const struct ata_taskfile *tf, uint32_t tfd)
{
    fis[2] = (uint8_t)tfd;
    fis[3] = (uint8_t)(tfd >> 8);
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(tf->lba >> (8 * i));
        fis[8 + i] = (uint8_t)(tf->lba >> (24 + 8 * i));
    }
    fis[7] = tf->device;
    fis[12] = (uint8_t)tf->count;
    fis[13] = (uint8_t)(tf->count >> 8);
}

void ahci_post_registers(struct ahci_port *port, const struct ata_taskfile *tf, bool interrupts)
{
    uint8_t fis[FIS_BYTES] = {FIS_D2H, interrupts ? FIS_INTERRUPTS : 0};
    put_registers(fis, tf, port->tfd);
    post(port, RECEIVED_D2H, fis, sizeof(fis));
    if (interrupts)
        port->is |= IS_DHRS;
}

/* Of the last block of data: the status that follows it is in there, too. */
static void post_pio_setup(struct ahci_port *port, const struct ahci_slot *slot)
{
    uint8_t fis[FIS_BYTES] = {FIS_PIO_SETUP, FIS_INTERRUPTS | 0x20 /* to the host */};
    uint64_t size = slot->request.moved_bytes;
    if (size > slot->plan.block_bytes)
        size = slot->plan.block_bytes;
    put_registers(fis, &slot->request.tf, ATA_READY | ATA_STATUS_DRQ);
    fis[15] = (uint8_t)port->tfd;
    fis[16] = (uint8_t)size;
    fis[17] = (uint8_t)(size >> 8);
    post(port, RECEIVED_PIO_SETUP, fis, sizeof(fis));
    port->is |= IS_PSS;
}

static void post_device_bits(struct ahci_port *port, uint32_t done)
{
    uint8_t fis[8] = {FIS_DEVICE_BITS, FIS_INTERRUPTS, (uint8_t)(port->tfd & 0x77),
                      (uint8_t)(port->tfd >> 8)};
    memcpy(fis + 4, &done, sizeof(done));
    post(port, RECEIVED_DEVICE_BITS, fis, sizeof(fis));
    port->is |= IS_SDBS;
}

/* ---- the end of a command ---- */

void ahci_port_orphan(struct ahci_port *port)
{
    for (unsigned i = 0; i < AHCI_SLOTS; i++)
        port->slots[i].is_orphan |= port->slots[i].is_busy;
}

/* 6.2.2: nothing is taken any more, and what is under way counts as not done. */
static void halt(struct ahci_port *port, uint32_t cause)
{
    port->is |= cause;
    port->is_halted = true;
    ahci_port_orphan(port);
}

static void end_queued(struct ahci_port *port, struct ahci_slot *slot, uint32_t bit)
{
    if (slot->request.status & ATA_STATUS_ERR) {
        ata_queue_failed(port->drive, &slot->request, (unsigned)(slot - port->slots));
        post_device_bits(port, 0);
        halt(port, IS_TFES);
        return;
    }
    port->sact &= ~bit;
    post_device_bits(port, bit);
}

static void end_plain(struct ahci_port *port, struct ahci_slot *slot, uint32_t bit)
{
    const struct ata_request *r = &slot->request;
    bool is_failed = r->status & ATA_STATUS_ERR;
    uint32_t moved = (uint32_t)r->moved_bytes;
    (void)ram_write(port->ahci->config.ram, slot->header_gpa + 4, &moved, sizeof(moved));
    if (slot->plan.protocol == ATA_PIO_IN && !is_failed)
        post_pio_setup(port, slot);
    else
        ahci_post_registers(port, &r->tf, true);
    if (is_failed) {
        halt(port, IS_TFES);
        return;
    }
    port->ci &= ~bit;
    port->issued &= ~bit;
}

static void slot_end(struct ahci_slot *slot)
{
    struct ahci_port *port = slot->port;
    const struct ata_request *r = &slot->request;
    uint32_t bit = UINT32_C(1) << (slot - port->slots);
    slot->is_busy = false;
    port->busy--;
    if (slot->writes_memory)
        dma_list_written(&slot->list, port->ahci->config.ram, r->moved_bytes);
    if (slot->is_orphan)
        return;
    port->tfd = r->status | (uint32_t)r->error << 8;
    if (slot->overflows)
        port->is |= IS_OFS;
    if (slot->asks_interrupt)
        port->is |= IS_DPS;
    if (slot->is_queued)
        end_queued(port, slot, bit);
    else
        end_plain(port, slot, bit);
}

/* The drive is done, on the loop's thread. */
static void slot_done(struct ata_request *request)
{
    struct ahci_slot *slot = request->opaque;
    struct ahci_port *port = slot->port;
    struct ahci *ahci = port->ahci;
    pthread_mutex_lock(&ahci->lock);
    slot_end(slot);
    if (!port->busy)
        ahci_idle(ahci);
    ahci_port_run(port);
    ahci_interrupt(ahci, false);
    pthread_mutex_unlock(&ahci->lock);
}

/* ---- the start of one ---- */

/* Collects the memory of a command, up to `size_bytes` (4.2.3.3). False: it is no RAM. */
static bool collect(struct ahci_slot *slot, const struct ram *ram, uint64_t table_gpa,
                    unsigned prd_count, uint64_t size_bytes)
{
    uint8_t prds[PRD_CHUNK * PRD_BYTES];
    for (unsigned i = 0; i < prd_count && slot->list.size_bytes < size_bytes; i++) {
        if (i % PRD_CHUNK == 0) {
            unsigned n = prd_count - i < PRD_CHUNK ? prd_count - i : PRD_CHUNK;
            uint64_t gpa = table_gpa + TABLE_PRDS + (uint64_t)i * PRD_BYTES;
            if (!ram_read(ram, gpa, prds, (size_t)n * PRD_BYTES))
                return false;
        }
        const uint8_t *prd = prds + (size_t)(i % PRD_CHUNK) * PRD_BYTES;
        uint32_t word = get32(prd + 12);
        uint64_t size = (word & 0x3fffff) + UINT64_C(1), left = size_bytes - slot->list.size_bytes;
        if (!dma_list_add(&slot->list, ram, get64(prd) & ~UINT64_C(1), size < left ? size : left))
            return false;
        slot->asks_interrupt |= word >> 31;
    }
    return true;
}

static struct ata_taskfile registers(const uint8_t *fis)
{
    struct ata_taskfile tf = {.command = fis[2], .device = fis[7]};
    tf.features = (uint16_t)(fis[3] | fis[11] << 8);
    tf.count = (uint16_t)(fis[12] | fis[13] << 8);
    for (unsigned i = 0; i < 3; i++)
        tf.lba |= (uint64_t)fis[4 + i] << (8 * i) | (uint64_t)fis[8 + i] << (24 + 8 * i);
    return tf;
}

/* A register FIS that is no command: SRST, set and then cleared, is a reset of the drive. */
static void take_control(struct ahci_port *port, uint32_t bit, uint8_t control, bool clears_busy)
{
    port->ci &= ~bit;
    if (control & CONTROL_SRST) {
        port->is_resetting = true;
        port->tfd = ATA_READY | (clears_busy ? 0 : ATA_STATUS_BSY);
    } else if (port->is_resetting) {
        port->is_resetting = false;
        ata_drive_reset(port->drive, false);
        ahci_port_signature(port);
    }
}

/* How much memory a command wants, and whether the drive only reads it. */
static uint64_t wanted_bytes(struct ahci_port *port, struct ahci_slot *slot, bool *is_out)
{
    *is_out = slot->plan.protocol == ATA_PIO_OUT || slot->plan.protocol == ATA_DMA_OUT ||
              slot->plan.protocol == ATA_QUEUED_OUT;
    if (slot->plan.protocol != ATA_PACKET)
        return slot->plan.error ? 0 : slot->plan.data_bytes;
    uint64_t size;
    ata_packet_direction(port->drive, slot->request.packet, &size);
    return size;
}

static void slot_submit(struct ahci_port *port, struct ahci_slot *slot, uint64_t wanted,
                        bool is_out)
{
    struct ata_request *r = &slot->request;
    uint32_t bit = UINT32_C(1) << (slot - port->slots);
    r->at_bytes = 0;
    r->iov = slot->list.iov;
    r->iov_count = slot->list.count;
    /* Data for which there is no memory is lost; data that is not there cannot be written. */
    r->data_bytes = is_out && slot->list.size_bytes < wanted ? 0 : slot->list.size_bytes;
    r->done = slot_done;
    r->opaque = slot;
    slot->overflows = !is_out && slot->list.size_bytes < wanted && !slot->plan.error &&
                      slot->plan.protocol != ATA_PACKET;
    slot->writes_memory = !is_out;
    slot->is_busy = true;
    slot->is_orphan = false;
    port->busy++;
    port->current = (unsigned)(slot - port->slots);
    if (slot->is_queued) { /* the drive has taken it and can take others */
        port->ci &= ~bit;
        port->tfd = ATA_READY;
        ahci_post_registers(port, &r->tf, false);
    } else {
        port->issued |= bit;
        port->tfd = ATA_READY | ATA_STATUS_BSY;
    }
    if (!ata_submit(port->drive, r))
        slot_end(slot);
}

/* Only queued commands are under way beside one another. */
static bool can_join(const struct ahci_port *port, bool is_queued)
{
    return !port->busy || (is_queued && port->slots[port->current].is_queued);
}

static enum outcome take_command(struct ahci_port *port, struct ahci_slot *slot, const uint8_t *fis,
                                 uint64_t table_gpa, unsigned prd_count)
{
    struct ram *ram = port->ahci->config.ram;
    struct ata_request *r = &slot->request;
    bool is_out;
    r->tf = registers(fis);
    slot->plan = ata_plan(port->drive, &r->tf);
    slot->is_queued = slot->plan.protocol == ATA_QUEUED_IN || slot->plan.protocol == ATA_QUEUED_OUT;
    if (port->is_resetting || !can_join(port, slot->is_queued))
        return MUST_WAIT;
    if (slot->is_queued && r->tf.count >> 3 != slot - port->slots) {
        halt(port, IS_IFS);
        return HALTED;
    }
    memset(r->packet, 0, sizeof(r->packet));
    dma_list_clear(&slot->list);
    slot->asks_interrupt = false;
    if (slot->plan.protocol == ATA_PACKET)
        (void)ram_read(ram, table_gpa + TABLE_PACKET, r->packet, ATA_PACKET_BYTES);
    uint64_t wanted = wanted_bytes(port, slot, &is_out);
    if (!collect(slot, ram, table_gpa, prd_count, wanted)) {
        halt(port, IS_HBFS);
        return HALTED;
    }
    slot_submit(port, slot, wanted, is_out);
    return TAKEN;
}

static enum outcome slot_take(struct ahci_port *port, unsigned index)
{
    const struct ram *ram = port->ahci->config.ram;
    struct ahci_slot *slot = &port->slots[index];
    uint8_t header[HEADER_BYTES], fis[FIS_BYTES];
    if (slot->is_busy) /* given twice */
        return MUST_WAIT;
    slot->header_gpa = port->clb + (uint64_t)index * HEADER_BYTES;
    uint32_t word = 0;
    uint64_t table_gpa = 0;
    bool is_ram = ram_read(ram, slot->header_gpa, header, sizeof(header));
    if (is_ram) {
        word = get32(header);
        table_gpa = get64(header + 8) & ~UINT64_C(0x7f);
        is_ram = ram_read(ram, table_gpa, fis, sizeof(fis));
    }
    if (!is_ram || (word & HEADER_LENGTH) * 4 < FIS_BYTES || fis[0] != FIS_H2D) {
        halt(port, is_ram ? IS_IFS : IS_HBFS);
        return HALTED;
    }
    if (fis[1] & FIS_IS_COMMAND)
        return take_command(port, slot, fis, table_gpa, word >> HEADER_PRDS_SHIFT);
    if (port->busy)
        return MUST_WAIT;
    take_control(port, UINT32_C(1) << index, fis[15], word & HEADER_CLEARS_BUSY);
    return TAKEN;
}

void ahci_port_run(struct ahci_port *port)
{
    unsigned tried = 0, index = port->current;
    /* Once around, from the one after the last (5.3.3, P:SelectCmd). */
    while (tried++ < AHCI_SLOTS) {
        bool is_ready = port->drive && (port->cmd & CMD_ST) && !port->is_halted &&
                        !port->is_stopping && !port->ahci->is_resetting && (port->ssts & 0xf) == 3;
        if (!is_ready)
            return;
        index = (index + 1) % AHCI_SLOTS;
        if (!((port->ci & ~port->issued) >> index & 1))
            continue;
        /* A drive that is busy without a command of ours was left so: the guest has to reset it. */
        if ((port->tfd & (ATA_STATUS_BSY | ATA_STATUS_DRQ)) && !port->busy)
            return;
        if (slot_take(port, index) != TAKEN)
            return;
        tried = 0;
    }
}
