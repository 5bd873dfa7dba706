/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the parts of the IDE controller share: ide.c has the function and saved state,
 * ide_registers.c the ports of a channel, ide_command.c its commands. All is called with the
 * controller's lock held.
 */
#ifndef SKEP_DEV_STORAGE_IDE_INTERNAL_H
#define SKEP_DEV_STORAGE_IDE_INTERNAL_H

#include "dev/storage/dma_list.h"
#include "dev/storage/ide.h"

#include <pthread.h>

enum { IDE_BM_BYTES = 8 }; /* ports of a channel's bus master */

enum ide_phase {
    IDE_IDLE,
    IDE_BUSY,     /* the drive has the request */
    IDE_DATA_IN,  /* the guest reads the buffer */
    IDE_DATA_OUT, /* the guest fills it */
    IDE_PACKET,   /* with the bytes of a packet */
    IDE_DMA_WAIT, /* for the guest to start the bus master */
    IDE_PHASES,
};

enum { CONTROL_NIEN = 0x02, CONTROL_SRST = 0x04, CONTROL_HOB = 0x80 };
enum { BM_START = 0x01, BM_TO_MEMORY = 0x08 };
enum { BM_ACTIVE = 0x01, BM_ERROR = 0x02, BM_INTERRUPT = 0x04, BM_CAPABLE = 0x60 };

/* The command block of a drive: what was written last, and the time before (48-bit commands). */
struct ide_registers {
    uint8_t features[2], count[2], lba[3][2], device;
};

struct ide_device {
    struct ata_drive *drive; /* NULL: none */
    struct ide_registers r;
    uint8_t status, error;
};

struct ide_channel {
    struct ide *ide;
    unsigned index;
    struct ide_device device[2];
    unsigned selected;
    uint8_t control;
    bool interrupt;

    enum ide_phase phase;
    struct ata_request request;
    struct ata_plan plan;
    bool reset_waits; /* for the request to end */

    /* PIO: the buffer holds `size` bytes, of which the guest may move those up to `end` now. */
    uint8_t *buffer;
    uint32_t size, at, end;
    struct iovec piece; /* of the buffer */

    struct dma_list list;
    uint8_t bm_command, bm_status;
    uint32_t bm_table;
};

struct ide {
    pthread_mutex_t lock;
    struct ide_config config;
    struct bus *bus;
    struct pci_function *function;
    struct ide_channel channel[IDE_CHANNELS];
    bool is_mapped[2 * IDE_CHANNELS];
};

/* ---- ide_registers.c ---- */

uint64_t ide_port_read(struct ide_channel *channel, unsigned offset, unsigned size_bytes);
void ide_port_write(struct ide_channel *channel, unsigned offset, uint64_t value,
                    unsigned size_bytes);
uint8_t ide_alternate_status(const struct ide_channel *channel);
void ide_write_control(struct ide_channel *channel, uint8_t value);
uint8_t ide_bm_read(const struct ide_channel *channel, unsigned offset);
void ide_bm_write(struct ide_channel *channel, unsigned offset, uint8_t value);
void ide_set_interrupt(struct ide_channel *channel, bool level);
/* Both drives show their signature. */
void ide_signature(struct ide_channel *channel);
void ide_channel_reset(struct ide_channel *channel, bool is_power_on);

/* ---- ide_command.c ---- */

void ide_command(struct ide_channel *channel, uint8_t opcode);
/* The guest has moved all that it may. */
void ide_data_moved(struct ide_channel *channel);
/* The bus master runs and a command waits for it. */
void ide_dma_start(struct ide_channel *channel);
/* Gives up the command; not while the drive has it. */
void ide_abandon(struct ide_channel *channel);
/* Room for `size_bytes` of PIO; false: there is no memory. */
bool ide_buffer(struct ide_channel *channel, uint32_t size_bytes);

#endif
