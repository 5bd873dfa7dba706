/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Registers of an AHCI port (AHCI 1.3, 3.3), and its resets.
 *
 * A port that is stopped or reset while the drive has commands goes on looking as if it ran
 * (PxCMD.CR), or as if the link were not up yet, until the last of them has ended: the guest does
 * not reuse memory before, and nothing is written there after.
 */
#include "dev/storage/ahci_internal.h"

enum { DET_NONE = 0, DET_RESET = 1, DET_PRESENT = 3, DET_OFFLINE = 4, DET = 0xf };
enum { SPEED_SHIFT = 4, SPEED_MAX = 2 /* 3 Gbit/s */, INTERFACE_ACTIVE = 1 << 8 };

#define NO_TFD  UINT32_C(0x7f)
#define IE_BITS UINT32_C(0xfdc000ff)

uint32_t ahci_port_causes(const struct ahci_port *port)
{
    return port->is | (port->serr & SERR_X ? IS_PCS : 0) | (port->serr & SERR_N ? IS_PRCS : 0);
}

static uint32_t command_register(const struct ahci_port *port)
{
    uint32_t value = port->cmd | CMD_SUD | CMD_POD | (uint32_t)port->current << 8;
    if (port->cmd & CMD_FRE)
        value |= CMD_FR;
    if ((port->cmd & CMD_ST) || port->is_stopping)
        value |= CMD_CR;
    return value;
}

uint32_t ahci_port_read(const struct ahci_port *port, unsigned offset)
{
    switch (offset) {
    case PORT_CLB: return (uint32_t)port->clb;
    case PORT_CLBU: return (uint32_t)(port->clb >> 32);
    case PORT_FB: return (uint32_t)port->fb;
    case PORT_FBU: return (uint32_t)(port->fb >> 32);
    case PORT_IS: return ahci_port_causes(port);
    case PORT_IE: return port->ie;
    case PORT_CMD: return command_register(port);
    case PORT_TFD: return port->tfd;
    case PORT_SIG: return port->sig;
    case PORT_SSTS: return port->ssts;
    case PORT_SCTL: return port->sctl;
    case PORT_SERR: return port->serr;
    case PORT_SACT: return port->sact;
    case PORT_CI: return port->ci;
    default: return 0;
    }
}

/* ---- resets ---- */

void ahci_port_signature(struct ahci_port *port)
{
    const struct ata_taskfile tf = ata_drive_signature(port->drive);
    port->sig = (uint32_t)tf.lba << 8 | tf.count;
    port->tfd = ATA_READY | 0x100; /* error 1: the self-test passed */
    ahci_post_registers(port, &tf, false);
}

static void forget_commands(struct ahci_port *port)
{
    ahci_port_orphan(port);
    port->ci = port->sact = port->issued = 0;
    port->current = 0;
    port->is_halted = false;
    port->is_stopping = port->busy;
}

/* The link is up, and the drive there. */
static void link_up(struct ahci_port *port)
{
    unsigned limit = port->sctl >> SPEED_SHIFT & 0xf;
    port->link_waits = false;
    if (!port->drive)
        return;
    port->ssts = DET_PRESENT | INTERFACE_ACTIVE |
                 (limit && limit < SPEED_MAX ? limit : SPEED_MAX) << SPEED_SHIFT;
    port->serr |= SERR_X | SERR_N;
    port->is_resetting = false;
    ahci_port_signature(port);
}

static void link_down(struct ahci_port *port, uint32_t detection)
{
    forget_commands(port);
    port->ssts = detection;
    port->tfd = NO_TFD;
    port->sig = UINT32_MAX;
}

/* 10.4.2: a COMRESET lasts until the guest ends it. */
static void write_control(struct ahci_port *port, uint32_t value)
{
    uint32_t old = port->sctl & DET, now = value & DET;
    port->sctl = value & 0xfff;
    if (old == now)
        return;
    if (now == DET_RESET || now == DET_OFFLINE) {
        port->link_waits = false;
        link_down(port, now == DET_OFFLINE ? DET_OFFLINE : DET_NONE);
        return;
    }
    if (now != DET_NONE || (old != DET_RESET && old != DET_OFFLINE))
        return;
    port->link_waits = true;
    if (!port->busy)
        ahci_port_idle(port);
}

void ahci_port_idle(struct ahci_port *port)
{
    if (port->is_stopping && (port->tfd & ATA_STATUS_BSY) && (port->ssts & DET) == DET_PRESENT)
        port->tfd = ATA_READY;
    port->is_stopping = false;
    if (!port->link_waits)
        return;
    if (port->drive)
        ata_drive_reset(port->drive, false);
    link_up(port);
}

void ahci_port_reset(struct ahci_port *port, bool is_power_on)
{
    forget_commands(port);
    port->clb = port->fb = 0;
    port->is = port->ie = port->cmd = port->serr = port->sctl = 0;
    port->ssts = 0;
    port->tfd = NO_TFD;
    port->sig = UINT32_MAX;
    port->is_resetting = false;
    if (port->drive)
        ata_drive_reset(port->drive, is_power_on);
    link_up(port);
}

/* ---- writes ---- */

static void write_command(struct ahci_port *port, uint32_t value)
{
    uint32_t old = port->cmd;
    port->cmd = value & CMD_STORED;
    if ((old & CMD_ST) && !(port->cmd & CMD_ST))
        forget_commands(port);
    if (value & CMD_CLO)
        port->tfd &= ~(uint32_t)(ATA_STATUS_BSY | ATA_STATUS_DRQ);
    /* 10.3.2: what the drive sent before, it gets now. */
    if (!(old & CMD_FRE) && (port->cmd & CMD_FRE) && (port->ssts & DET) == DET_PRESENT &&
        !port->busy && !(port->cmd & CMD_ST))
        ahci_post_registers(
            port, &(struct ata_taskfile){.count = port->sig & 0xff, .lba = port->sig >> 8}, false);
}

static uint64_t low_half(uint64_t old, uint32_t value)
{
    return (old & ~UINT64_C(0xffffffff)) | value;
}

static uint64_t high_half(uint64_t old, uint32_t value)
{
    return (uint32_t)old | (uint64_t)value << 32;
}

void ahci_port_write(struct ahci_port *port, unsigned offset, uint32_t value)
{
    bool is_started = port->cmd & CMD_ST;
    switch (offset) {
    case PORT_CLB: port->clb = low_half(port->clb, value & ~UINT32_C(0x3ff)); break;
    case PORT_CLBU: port->clb = high_half(port->clb, value); break;
    case PORT_FB: port->fb = low_half(port->fb, value & ~UINT32_C(0xff)); break;
    case PORT_FBU: port->fb = high_half(port->fb, value); break;
    case PORT_IS: port->is &= ~value; break;
    case PORT_IE: port->ie = value & IE_BITS; break;
    case PORT_CMD: write_command(port, value); break;
    case PORT_SCTL: write_control(port, value); break;
    case PORT_SERR: port->serr &= ~value; break;
    case PORT_SACT:
        if (is_started)
            port->sact |= value;
        break;
    case PORT_CI:
        if (is_started)
            port->ci |= value;
        break;
    default: break;
    }
    ahci_port_run(port);
}
