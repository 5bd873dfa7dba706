/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: the transceiver behind MDIC (IEEE 802.3 clause 22; 8254x manual, 13.4.7): a Marvell
 * 88E1011 or, on the 82574L, its BM type. Negotiation is over as soon as it starts: 1000BASE-T,
 * full duplex.
 */
#include "dev/net/e1000_internal.h"

#include <string.h>

enum {
    PHY_CONTROL = 0,
    PHY_STATUS = 1,
    PHY_ID1 = 2,
    PHY_ID2 = 3,
    PHY_ADVERTISED = 4,
    PHY_PARTNER = 5,
    PHY_EXPANSION = 6,
    PHY_1000T_CONTROL = 9,
    PHY_1000T_STATUS = 10,
    PHY_EXTENDED_STATUS = 15,
    PHY_SPECIFIC_CONTROL = 16,
    PHY_SPECIFIC_STATUS = 17,
    PHY_EXTENDED_CONTROL = 20,
    PHY_PAGE = 22, /* of the 82574L's */

    CONTROL_RESET = 1 << 15,
    CONTROL_LOOPBACK = 1 << 14,
    CONTROL_NEGOTIATE = 1 << 12,
    CONTROL_POWER_DOWN = 1 << 11,
    CONTROL_RESTART = 1 << 9,
    STATUS_NEGOTIATED = 1 << 5,
    STATUS_LINK = 1 << 2,
    SPECIFIC_1000_FULL = 0xa800, /* speed, duplex, both resolved */
    SPECIFIC_LINK = 1 << 10,
};

#define MDIC_PHY_ADDRESS 1U
#define MDIC_WRITE       1U
#define MDIC_READ        2U
#define MDIC_READY       (1U << 28)
#define MDIC_INTERRUPT   (1U << 29)
#define MDIC_ERROR       (1U << 30)

void e1000_phy_reset(struct e1000 *e)
{
    memset(e->phy, 0, sizeof(e->phy));
    e->phy[PHY_CONTROL] = 0x1140; /* negotiates; 1000, full duplex */
    e->phy[PHY_STATUS] = 0x7949;
    e->phy[PHY_ID1] = 0x0141;
    e->phy[PHY_ID2] = e->is_82574 ? 0x0cb1 : 0x0c20;
    e->phy[PHY_ADVERTISED] = 0x0de1;
    e->phy[PHY_PARTNER] = 0x45e1;
    e->phy[PHY_EXPANSION] = 0x000f; /* as after pages were exchanged */
    e->phy[PHY_1000T_CONTROL] = 0x0e00;
    e->phy[PHY_1000T_STATUS] = 0x7c00;
    e->phy[PHY_EXTENDED_STATUS] = 0x3000;
    e->phy[PHY_SPECIFIC_CONTROL] = 0x0360;
    e->phy[PHY_EXTENDED_CONTROL] = 0x0d60;
}

bool e1000_link_up(struct e1000 *e)
{
    return e->is_connected && !(e->phy[PHY_CONTROL] & CONTROL_POWER_DOWN);
}

bool e1000_loops_back(struct e1000 *e)
{
    return *e1000_reg(e, RCTL) & RCTL_LOOPBACK || e->phy[PHY_CONTROL] & CONTROL_LOOPBACK;
}

/* A page other than 0 is chosen, which holds nothing that a driver waits for. The first sixteen
 * registers, those of the standard, are the same in all pages. */
static bool is_elsewhere(const struct e1000 *e, unsigned number)
{
    return e->is_82574 && e->phy[PHY_PAGE] && number >= PHY_SPECIFIC_CONTROL && number != PHY_PAGE;
}

static uint16_t phy_read(struct e1000 *e, unsigned number)
{
    bool link = e1000_link_up(e);
    if (is_elsewhere(e, number))
        return 0;
    switch (number) {
    case PHY_STATUS: return e->phy[number] | (link ? STATUS_LINK | STATUS_NEGOTIATED : 0);
    case PHY_SPECIFIC_STATUS: return link ? SPECIFIC_1000_FULL | SPECIFIC_LINK : 0;
    default: return e->phy[number];
    }
}

static void phy_write(struct e1000 *e, unsigned number, uint16_t value)
{
    if (is_elsewhere(e, number))
        return;
    switch (number) {
    case PHY_STATUS:
    case PHY_ID1:
    case PHY_ID2:
    case PHY_PARTNER:
    case PHY_EXPANSION:
    case PHY_1000T_STATUS:
    case PHY_EXTENDED_STATUS:
    case PHY_SPECIFIC_STATUS: break;
    case PHY_CONTROL:
        if (value & CONTROL_RESET)
            value = 0x1140 | CONTROL_RESTART;
        e->phy[number] = (uint16_t)(value & ~(CONTROL_RESET | CONTROL_RESTART));
        if (value & CONTROL_RESTART && value & CONTROL_NEGOTIATE)
            e1000_raise(e, CAUSE_LSC);
        break;
    default: e->phy[number] = value; break;
    }
}

void e1000_write_mdic(struct e1000 *e, uint32_t value)
{
    unsigned number = value >> 16 & 31, address = value >> 21 & 31, operation = value >> 26 & 3;
    uint32_t result = value & ~(MDIC_READY | MDIC_ERROR);
    if (address != MDIC_PHY_ADDRESS)
        result |= MDIC_ERROR;
    else if (operation == MDIC_READ)
        result = (result & 0xffff0000) | phy_read(e, number);
    else if (operation == MDIC_WRITE)
        phy_write(e, number, (uint16_t)value);
    *e1000_reg(e, MDIC) = result | MDIC_READY;
    if (value & MDIC_INTERRUPT)
        e1000_raise(e, CAUSE_MDAC);
}
