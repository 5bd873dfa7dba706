/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: the EEPROM (8254x manual, 5.6; 82574 datasheet, 6) with address and checksum, read through
 * EERD or, on the 8254x, bit by bit through EECD as a 93C46. It can't be written.
 */
#include "dev/net/e1000_internal.h"

#include <string.h>

enum {
    WORD_SUBSYSTEM = 0x0b,
    WORD_CHECKSUM = 0x3f,
    CHECKSUM = 0xbaba, /* the sum of words 0 … 0x3f */

    EERD_START = 1 << 0,

    EECD_CLOCK = 1 << 0,
    EECD_SELECT = 1 << 1,
    EECD_IN = 1 << 2,  /* to the EEPROM */
    EECD_OUT = 1 << 3, /* from it */
    EECD_FLASH_WRITE = 3 << 4,
    EECD_REQUEST = 1 << 6,
    EECD_GRANT = 1 << 7,
    EECD_PRESENT = 1 << 8,
    EECD_AUTO_READ_DONE = 1 << 9,
    EECD_WRITABLE = EECD_CLOCK | EECD_SELECT | EECD_IN | EECD_FLASH_WRITE | EECD_REQUEST,

    /* a start bit, two of operation, six of address */
    COMMAND_BITS = 9,
    OPERATION_READ = 6, /* start bit included */
};

static const uint16_t device_ids[] = {
    [E1000_82540EM] = 0x100e, [E1000_82545EM] = 0x100f, [E1000_82574L] = 0x10d3};

void e1000_eeprom_init(struct e1000 *e, const struct e1000_config *config)
{
    uint16_t sum = 0;
    for (unsigned i = 0; i < 3; i++)
        e->eeprom[i] = (uint16_t)(config->mac[2 * i] | config->mac[2 * i + 1] << 8);
    e->eeprom[0x08] = e->eeprom[0x09] = 0xffff; /* no part number */
    e->eeprom[0x0a] = 0x4408;                   /* initialization control 1 */
    e->eeprom[WORD_SUBSYSTEM] = device_ids[config->model];
    e->eeprom[0x0c] = 0x8086;
    e->eeprom[0x0d] = device_ids[config->model];
    e->eeprom[0x0e] = 0x8086;
    e->eeprom[0x0f] = 0x0200; /* initialization control 2 */
    for (unsigned i = 0; i < WORD_CHECKSUM; i++)
        sum = (uint16_t)(sum + e->eeprom[i]);
    e->eeprom[WORD_CHECKSUM] = (uint16_t)(CHECKSUM - sum);
}

void e1000_eeprom_load_address(struct e1000 *e)
{
    *e1000_reg(e, RAL0) = e->eeprom[0] | (uint32_t)e->eeprom[1] << 16;
    *e1000_reg(e, RAH0) = e->eeprom[2] | 1U << 31; /* valid */
}

void e1000_write_eerd(struct e1000 *e, uint32_t value)
{
    unsigned address = e->is_82574 ? value >> 2 & 0x3fff : value >> 8 & 0xff;
    uint32_t done = e->is_82574 ? 1U << 1 : 1U << 4;
    bool starts = value & EERD_START;
    value &= e->is_82574 ? 0xfffcU : 0xff00U;
    if (starts)
        value |=
            (uint32_t)(address < E1000_EEPROM_WORDS ? e->eeprom[address] : 0xffff) << 16 | done;
    *e1000_reg(e, EERD) = value;
}

/* A rising clock with the chip selected: a bit goes in, and once a read is complete, out. */
static void clock_bit(struct e1000_wires *wires, const uint16_t *eeprom, bool in)
{
    if (wires->bit_count == COMMAND_BITS) {
        if (wires->out_left > 0)
            wires->out_left--;
        return;
    }
    if (wires->bit_count == 0 && !in)
        return; /* no start bit yet */
    wires->bits = wires->bits << 1 | in;
    if (++wires->bit_count == COMMAND_BITS && wires->bits >> 6 == OPERATION_READ) {
        wires->out = eeprom[wires->bits & 63];
        wires->out_left = 16; /* and a zero before them */
    }
}

void e1000_write_eecd(struct e1000 *e, uint32_t value)
{
    uint32_t before = *e1000_reg(e, EECD);
    value &= EECD_WRITABLE;
    *e1000_reg(e, EECD) = value;
    if (!(value & EECD_SELECT))
        memset(&e->wires, 0, sizeof(e->wires));
    else if (value & EECD_CLOCK && !(before & EECD_CLOCK))
        clock_bit(&e->wires, e->eeprom, value & EECD_IN);
}

uint32_t e1000_read_eecd(struct e1000 *e)
{
    uint32_t value = *e1000_reg(e, EECD) & EECD_WRITABLE;
    const struct e1000_wires *wires = &e->wires;
    bool reads = wires->bit_count == COMMAND_BITS && wires->bits >> 6 == OPERATION_READ;
    bool out = !reads || (wires->out_left < 16 && wires->out >> wires->out_left & 1);
    value |= EECD_PRESENT | (out ? EECD_OUT : 0U);
    if (value & EECD_REQUEST)
        value |= EECD_GRANT;
    return e->is_82574 ? value | EECD_AUTO_READ_DONE : value;
}
