/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the parts of the AHCI controller share: ahci.c has the controller, ahci_port.c the registers
 * and resets of a port, ahci_command.c its commands. All is called with the controller's lock held.
 */
#ifndef SKEP_DEV_STORAGE_AHCI_INTERNAL_H
#define SKEP_DEV_STORAGE_AHCI_INTERNAL_H

#include "dev/msi.h"
#include "dev/storage/ahci.h"
#include "dev/storage/dma_list.h"

#include <pthread.h>

enum { AHCI_SLOTS = 32 };

enum { /* AHCI 1.3, 3.3: registers of a port */
       PORT_CLB = 0x00,
       PORT_CLBU = 0x04,
       PORT_FB = 0x08,
       PORT_FBU = 0x0c,
       PORT_IS = 0x10,
       PORT_IE = 0x14,
       PORT_CMD = 0x18,
       PORT_TFD = 0x20,
       PORT_SIG = 0x24,
       PORT_SSTS = 0x28,
       PORT_SCTL = 0x2c,
       PORT_SERR = 0x30,
       PORT_SACT = 0x34,
       PORT_CI = 0x38,
};

#define IS_DHRS UINT32_C(0x00000001) /* a D2H register FIS */
#define IS_PSS  UINT32_C(0x00000002) /* a PIO setup FIS */
#define IS_SDBS UINT32_C(0x00000008) /* a set device bits FIS */
#define IS_DPS  UINT32_C(0x00000020) /* a piece of memory that asked for it was done */
#define IS_PCS  UINT32_C(0x00000040) /* SERR_X */
#define IS_PRCS UINT32_C(0x00400000) /* SERR_N */
#define IS_OFS  UINT32_C(0x01000000) /* more data than memory */
#define IS_IFS  UINT32_C(0x08000000) /* a bad command */
#define IS_HBFS UINT32_C(0x20000000) /* bad memory */
#define IS_TFES UINT32_C(0x40000000) /* the drive reported an error */

#define CMD_ST    UINT32_C(0x00000001)
#define CMD_SUD   UINT32_C(0x00000002)
#define CMD_POD   UINT32_C(0x00000004)
#define CMD_CLO   UINT32_C(0x00000008)
#define CMD_FRE   UINT32_C(0x00000010)
#define CMD_FR    UINT32_C(0x00004000)
#define CMD_CR    UINT32_C(0x00008000)
#define CMD_ATAPI UINT32_C(0x01000000)
#define CMD_DLAE  UINT32_C(0x02000000)

#define CMD_STORED (CMD_ST | CMD_FRE | CMD_ATAPI | CMD_DLAE) /* the guest's */

#define SERR_N UINT32_C(0x00010000)
#define SERR_X UINT32_C(0x04000000)

struct ahci_port;

/* A place in the command list. */
struct ahci_slot {
    struct ata_request request;
    struct ahci_port *port;
    struct ata_plan plan;
    struct dma_list list;
    uint64_t header_gpa;
    bool is_busy;   /* the drive has it */
    bool is_orphan; /* the guest has given it up: what comes of it goes nowhere */
    bool is_queued, writes_memory, overflows, asks_interrupt;
};

struct ahci_port {
    struct ahci *ahci;
    struct ata_drive *drive; /* NULL: none */
    struct ahci_slot slots[AHCI_SLOTS];

    uint64_t clb, fb;
    uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
    unsigned current;  /* the slot of the last command */
    uint32_t issued;   /* of ci: the drive has it, or it failed */
    bool is_halted;    /* after an error, until the guest stops the port (6.2.2) */
    bool is_resetting; /* by software: SRST is set */

    unsigned busy;    /* slots that the drive has */
    bool is_stopping; /* the guest stopped it while some were busy */
    bool link_waits;  /* the link comes up when none is busy any more */
};

struct ahci {
    pthread_mutex_t lock;
    struct ahci_config config;
    struct pci_function *function;
    struct msi *msi;
    struct ahci_port ports[AHCI_PORTS];
    uint32_t is;
    bool interrupts;
    bool is_resetting; /* the whole, when nothing is busy any more */
};

/* ---- ahci.c ---- */

/* Brings interrupts to what the ports say. `again`: a message is due also for an old cause. */
void ahci_interrupt(struct ahci *ahci, bool again);
/* A slot's last use of memory is over: what waited for that. */
void ahci_idle(struct ahci *ahci);

/* ---- ahci_port.c ---- */

uint32_t ahci_port_causes(const struct ahci_port *port); /* the interrupt status register */
uint32_t ahci_port_read(const struct ahci_port *port, unsigned offset);
void ahci_port_write(struct ahci_port *port, unsigned offset, uint32_t value);
/* As after power on, or a reset of the controller; nothing is busy. */
void ahci_port_reset(struct ahci_port *port, bool is_power_on);
/* Nothing is busy any more. */
void ahci_port_idle(struct ahci_port *port);
/* The drive answers a reset: its signature is in the registers. */
void ahci_port_signature(struct ahci_port *port);

/* ---- ahci_command.c ---- */

/* Takes what commands can be taken. */
void ahci_port_run(struct ahci_port *port);
/* Gives up what is busy. */
void ahci_port_orphan(struct ahci_port *port);
/* Tells of a register FIS: memory of the guest, if it wants it. */
void ahci_post_registers(struct ahci_port *port, const struct ata_taskfile *tf, bool interrupts);

#endif
