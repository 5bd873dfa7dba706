/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: registers (8254x manual, 13; 82574 datasheet, 10), through memory and through IOADDR and
 * IODATA. Those that do nothing here (flow control, wake-up, LEDs, thresholds) keep what is written
 * to them. No value of any register is trusted: each is checked where it is used.
 */
#include "dev/net/e1000_internal.h"

#include <string.h>

enum { IO_ADDRESS = 0, IO_DATA = 4, RAL_END = RAL0 + 16 * 8 };

#define SWSM_SMBI      1U
#define EECFG_PORT0    (1U << 18)
#define STATUS_INIT    (1U << 9)
#define EXTCNF_MDIO_SW (1U << 5)

/* After power-on, CTRL.RST or a reset of the machine. The EEPROM's address comes back. */
void e1000_registers_reset(struct e1000 *e, bool with_phy)
{
    memset(e->regs, 0, sizeof(e->regs));
    *e1000_reg(e, CTRL) = e->is_82574 ? 0x00140240 : 0x00140201 | CTRL_SLU;
    *e1000_reg(e, VET) = 0x8100;
    *e1000_reg(e, PBA) = e->is_82574 ? 0x00140014 : 0x00100030;
    *e1000_reg(e, MDIC) = 1U << 28;
    e1000_eeprom_load_address(e);
    memset(&e->wires, 0, sizeof(e->wires));
    memset(&e->rx_delay, 0, sizeof(e->rx_delay));
    memset(&e->tx_delay, 0, sizeof(e->tx_delay));
    for (unsigned i = 0; i < E1000_QUEUES; i++) {
        e->tx[i].in_frame = false;
        memset(e->tx[i].context, 0, sizeof(e->tx[i].context));
    }
    e->next_interrupt_ns = 0;
    e->generation++;
    if (with_phy)
        e1000_phy_reset(e);
    e1000_update_interrupt(e);
    e1000_arm_timer(e);
}

static uint32_t read_status(struct e1000 *e)
{
    uint32_t value = STATUS_FULL_DUPLEX | STATUS_1000 | (e1000_link_up(e) ? STATUS_LINK_UP : 0);
    if (!e->is_82574)
        return value;
    if (!(*e1000_reg(e, CTRL) & CTRL_GIO_MASTER_DISABLE))
        value |= STATUS_GIO_MASTER;
    return value | STATUS_INIT | (*e1000_reg(e, STATUS) & STATUS_PHY_RESET);
}

/* A counter of octets is cleared with its upper half. */
static uint32_t read_counter(struct e1000 *e, unsigned offset)
{
    uint32_t value = *e1000_reg(e, offset);
    switch (offset) {
    case GORC:
    case GOTC:
    case TOR:
    case TOT: return value;
    case GORC + 4:
    case GOTC + 4:
    case TOR + 4:
    case TOT + 4: *e1000_reg(e, offset - 4) = 0; break;
    }
    *e1000_reg(e, offset) = 0;
    return value;
}

static uint32_t read_register(struct e1000 *e, unsigned offset)
{
    uint32_t value;
    if (offset >= STATISTICS && offset < STATISTICS_END)
        return read_counter(e, offset);
    switch (offset) {
    case STATUS: return read_status(e);
    case EECD: return e1000_read_eecd(e);
    case ICR: return e1000_read_icr(e);
    case ICS:
    case IMC: return 0;
    case EEMNGCTL: return *e1000_reg(e, offset) | (e->is_82574 ? EECFG_PORT0 : 0);
    case SWSM: /* who reads a zero has the semaphore */
        value = *e1000_reg(e, SWSM);
        *e1000_reg(e, SWSM) |= e->is_82574 ? SWSM_SMBI : 0;
        return value;
    default: return *e1000_reg(e, offset);
    }
}

static void write_ctrl(struct e1000 *e, uint32_t value)
{
    if (value & CTRL_RST) {
        e1000_registers_reset(e, e->is_82574);
        return;
    }
    *e1000_reg(e, CTRL) = value & ~CTRL_PHY_RST;
    if (value & CTRL_PHY_RST) {
        e1000_phy_reset(e);
        *e1000_reg(e, STATUS) |= STATUS_PHY_RESET;
        e1000_raise(e, CAUSE_LSC);
    } else if (value & CTRL_SLU && e1000_link_up(e) && !(*e1000_reg(e, STATUS) & STATUS_LINK_UP)) {
        *e1000_reg(e, STATUS) |= STATUS_LINK_UP; /* told once after each reset */
        e1000_raise(e, CAUSE_LSC);
    }
}

static void write_ctrl_ext(struct e1000 *e, uint32_t value)
{
    *e1000_reg(e, CTRL_EXT) = value & ~CTRL_EXT_EE_RST;
    if (value & CTRL_EXT_EE_RST)
        e1000_eeprom_load_address(e);
}

/* Writing FPD (bit 31) ends a delay at once (8254x manual, 13.4.30). */
static void write_delay(struct e1000 *e, unsigned offset, uint32_t value, struct e1000_delay *delay)
{
    uint32_t causes = delay->causes;
    *e1000_reg(e, offset) = value & 0xffff;
    if (value >> 31 && delay->due_ns) {
        *delay = (struct e1000_delay){0};
        e1000_raise(e, causes);
        e1000_arm_timer(e);
    }
}

static bool starts_work(unsigned offset)
{
    return offset == TCTL || offset == TX_RING + RING_TAIL ||
           offset == TX_RING + RING_STRIDE + RING_TAIL;
}

static bool makes_room(unsigned offset)
{
    return offset == RCTL || offset == RX_RING + RING_TAIL ||
           offset == RX_RING + RING_STRIDE + RING_TAIL;
}

/* The bits that a register has; others are reserved and read as 0 (8254x manual, 13.4; 82574
 * datasheet, 10.2). Drivers test some of them by patterns. */
static uint32_t bits_of(unsigned offset)
{
    if (offset >= RAL0 && offset < RAL_END)
        return offset & 4 ? 0x8003ffff : 0xffffffff;
    switch (offset) {
    case FCAH:
    case FCT:
    case VET:
    case FCTTV: return 0xffff;
    case RX_RING + RING_BASE_LOW:
    case RX_RING + RING_STRIDE + RING_BASE_LOW:
    case TX_RING + RING_BASE_LOW:
    case TX_RING + RING_STRIDE + RING_BASE_LOW: return ~0xfU;
    case RX_RING + RING_LENGTH:
    case RX_RING + RING_STRIDE + RING_LENGTH:
    case TX_RING + RING_LENGTH:
    case TX_RING + RING_STRIDE + RING_LENGTH: return 0xfff80;
    default: return 0xffffffff;
    }
}

static void write_register(struct e1000 *e, unsigned offset, uint32_t value)
{
    switch (offset) {
    case CTRL: write_ctrl(e, value); break;
    case CTRL_EXT: write_ctrl_ext(e, value); break;
    case STATUS: *e1000_reg(e, STATUS) &= value | ~STATUS_PHY_RESET; break;
    case EECD: e1000_write_eecd(e, value); break;
    case EERD: e1000_write_eerd(e, value); break;
    case MDIC: e1000_write_mdic(e, value); break;
    case ICR: e1000_write_icr(e, value); break;
    case ICS: e1000_raise(e, value); break;
    case IMS: e1000_write_ims(e, value); break;
    case IMC:
        *e1000_reg(e, IMS) &= ~value;
        e1000_update_interrupt(e);
        break;
    case ITR:
        *e1000_reg(e, ITR) = value;
        e1000_update_interrupt(e);
        break;
    case RDTR: write_delay(e, offset, value, &e->rx_delay); break;
    case TIDV: write_delay(e, offset, value, &e->tx_delay); break;
    default:
        if (offset < STATISTICS || offset >= STATISTICS_END)
            *e1000_reg(e, offset) = value & bits_of(offset);
        break;
    }
    if (starts_work(offset))
        wake_ring(e->wake);
    if (makes_room(offset) && (e->rx_waits || offset == RCTL)) {
        e->rx_waits = false;
        e->resume_wanted = true;
        wake_ring(e->wake);
    }
}

/* The 8254x know some registers by the addresses of their forerunner too (13.2, "alias"). */
static unsigned real_offset(const struct e1000 *e, unsigned offset)
{
    static const uint16_t aliases[][3] = {
        {0x0108, 0x010c, RDTR},
        {0x0110, 0x0118, RX_RING},
        {0x0118, 0x011c, RX_RING + 8},
        {0x0120, 0x0124, RX_RING + RING_HEAD},
        {0x0128, 0x012c, RX_RING + RING_TAIL},
        {0x0420, 0x042c, TX_RING},
        {0x0430, 0x0434, TX_RING + RING_HEAD},
        {0x0438, 0x043c, TX_RING + RING_TAIL},
        {0x0440, 0x0444, TIDV},
        {0x0040, 0x00c0, RAL0},
        {0x0200, 0x0400, MTA},
        {0x0600, 0x0800, VFTA},
    };
    for (unsigned i = 0; !e->is_82574 && i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (offset >= aliases[i][0] && offset < aliases[i][1])
            return offset - aliases[i][0] + aliases[i][2];
    return offset;
}

/* Registers have 32 bits; narrower accesses are not defined. They read as part of the register and
 * write nothing, wider ones are taken as two. */
uint64_t e1000_mmio_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct e1000 *e = opaque;
    uint64_t value = 0;
    unsigned at = (unsigned)(offset & ~UINT64_C(3)), shift = 8 * (unsigned)(offset & 3);
    pthread_mutex_lock(&e->lock);
    if (offset < REGISTERS_END)
        value = read_register(e, real_offset(e, at));
    if (size_bytes == 8 && offset + 4 < REGISTERS_END)
        value |= (uint64_t)read_register(e, real_offset(e, at + 4)) << 32;
    pthread_mutex_unlock(&e->lock);
    return value >> shift;
}

void e1000_mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct e1000 *e = opaque;
    if (size_bytes < 4 || offset & 3)
        return;
    pthread_mutex_lock(&e->lock);
    for (unsigned i = 0; i < size_bytes; i += 4)
        if (offset + i < REGISTERS_END)
            write_register(e, real_offset(e, (unsigned)offset + i), (uint32_t)(value >> (8 * i)));
    pthread_mutex_unlock(&e->lock);
}

uint64_t e1000_io_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct e1000 *e = opaque;
    pthread_mutex_lock(&e->lock);
    uint32_t address = e->io_address;
    pthread_mutex_unlock(&e->lock);
    if (offset == IO_ADDRESS)
        return address;
    return offset == IO_DATA && size_bytes == 4 ? e1000_mmio_read(e, address & ~3U, 4) : 0;
}

void e1000_io_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct e1000 *e = opaque;
    if (size_bytes != 4)
        return;
    pthread_mutex_lock(&e->lock);
    uint32_t address = e->io_address;
    if (offset == IO_ADDRESS)
        e->io_address = (uint32_t)value;
    pthread_mutex_unlock(&e->lock);
    if (offset == IO_DATA)
        e1000_mmio_write(e, address & ~3U, value, 4);
}
