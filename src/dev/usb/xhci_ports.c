/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC's root hub ports (xHCI 1.1, 4.15, 4.19, 5.4.8). Nothing comes or goes while the machine
 * runs. A reset is done at once; link states but U0 and U3 are remembered and without effect.
 */
#include "dev/usb/xhci_internal.h"

#include <string.h>

enum { /* PORTSC */
       CONNECTED = 1 << 0,
       ENABLED = 1 << 1,
       RESET = 1 << 4,
       LINK_SHIFT = 5,
       LINK_MASK = 15 << LINK_SHIFT,
       POWERED = 1 << 9,
       SPEED_SHIFT = 10,
       SPEED_MASK = 15 << SPEED_SHIFT,
       INDICATOR_MASK = 3 << 14,
       LINK_WRITE = 1 << 16,
       CONNECT_CHANGE = 1 << 17,
       ENABLE_CHANGE = 1 << 18,
       WARM_RESET_CHANGE = 1 << 19,
       RESET_CHANGE = 1 << 21,
       LINK_CHANGE = 1 << 22,
       CHANGES = 0x7f << 17,
       WAKE_ENABLES = 7 << 25,
       WRITABLE = INDICATOR_MASK | WAKE_ENABLES,
};
#define WARM_RESET (UINT32_C(1) << 31)

enum { /* link states */
       LINK_U0 = 0,
       LINK_U3 = 3,
       LINK_DISABLED = 4,
       LINK_RX_DETECT = 5,
       LINK_POLLING = 7,
       LINK_RESUME = 15,
};

enum { REG_STATUS = 0, REG_POWER = 4 };

static bool is_usb3(unsigned port)
{
    return port >= XHCI_USB2_PORTS;
}

static unsigned link_of(const struct xhci_port *port)
{
    return (port->status & LINK_MASK) >> LINK_SHIFT;
}

static void set_link(struct xhci_port *port, unsigned state)
{
    port->status = (port->status & ~(uint32_t)LINK_MASK) | state << LINK_SHIFT;
}

static void tell(struct xhci *xhci, unsigned number)
{
    xhci->status |= STATUS_PORT_CHANGE;
    const struct xhci_trb event = {.parameter = (uint64_t)(number + 1) << 24,
                                   .status = (uint32_t)CODE_SUCCESS << 24,
                                   .control = TRB_PORT_EVENT << 10};
    xhci_event(xhci, 0, event, false);
}

/* 4.19.2: an event comes when a change bit appears. */
static void change(struct xhci *xhci, unsigned number, uint32_t changes)
{
    struct xhci_port *port = &xhci->ports[number];
    bool is_new = changes & ~port->status;
    port->status |= changes;
    if (is_new)
        tell(xhci, number);
}

void xhci_ports_clear(struct xhci *xhci)
{
    for (unsigned i = 0; i < XHCI_PORTS; i++) {
        struct xhci_port *port = &xhci->ports[i];
        port->power = 0;
        port->status = POWERED;
        if (!port->device) {
            set_link(port, LINK_RX_DETECT);
            continue;
        }
        usb_device_reset(port->device);
        port->status |=
            CONNECTED | CONNECT_CHANGE | (uint32_t)usb_device_speed(port->device) << SPEED_SHIFT;
        /* A USB 3 link trains itself (4.19.1.2); a USB 2 port waits to be reset. */
        set_link(port, is_usb3(i) ? LINK_U0 : LINK_POLLING);
        if (is_usb3(i))
            port->status |= ENABLED;
    }
}

void xhci_ports_started(struct xhci *xhci)
{
    for (unsigned i = 0; i < XHCI_PORTS; i++)
        if (xhci->ports[i].status & CHANGES)
            tell(xhci, i);
}

bool xhci_port_is_active(const struct xhci *xhci, unsigned number)
{
    const struct xhci_port *port = &xhci->ports[number];
    return port->device && (port->status & ENABLED) && link_of(port) != LINK_U3 &&
           link_of(port) != LINK_RESUME;
}

bool xhci_port_wakeup(struct xhci *xhci, unsigned number)
{
    struct xhci_port *port = &xhci->ports[number];
    if (link_of(port) == LINK_U3 && (port->status & ENABLED) && usb_device_wakes(port->device)) {
        set_link(port, LINK_RESUME); /* the host ends it by writing U0 */
        change(xhci, number, LINK_CHANGE);
    }
    return xhci_port_is_active(xhci, number);
}

uint32_t xhci_port_read(const struct xhci *xhci, unsigned number, unsigned offset)
{
    const struct xhci_port *port = &xhci->ports[number];
    switch (offset) {
    case REG_STATUS: return port->status;
    case REG_POWER: return port->power;
    default: return 0;
    }
}

static void reset_port(struct xhci *xhci, unsigned number, bool is_warm)
{
    struct xhci_port *port = &xhci->ports[number];
    if (!port->device)
        return;
    usb_device_reset(port->device);
    port->status |= ENABLED;
    set_link(port, LINK_U0);
    change(xhci, number, RESET_CHANGE | (is_warm ? (uint32_t)WARM_RESET_CHANGE : 0));
}

static void disable_port(struct xhci_port *port, unsigned number)
{
    if (!(port->status & ENABLED))
        return;
    port->status &= ~(uint32_t)ENABLED;
    set_link(port, is_usb3(number) ? LINK_DISABLED : LINK_POLLING);
}

/* All rings that the device of a port that can be used again may have something for. */
static void resume_transfers(struct xhci *xhci, unsigned number)
{
    for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
        for (unsigned i = 1; i < XHCI_ENDPOINTS; i++)
            if (xhci->slots[slot].port == number &&
                xhci->slots[slot].endpoints[i].state == ENDPOINT_RUNNING)
                xhci->slots[slot].endpoints[i].deferred = true;
    xhci_defer(xhci);
}

/* What the guest may ask of the link, 4.15.1 and 4.15.2. */
static void write_link(struct xhci *xhci, unsigned number, unsigned state)
{
    struct xhci_port *port = &xhci->ports[number];
    unsigned old = link_of(port);
    if (state == LINK_RX_DETECT && old == LINK_DISABLED && port->device) {
        port->status |= ENABLED; /* a disabled USB 3 port trains anew */
        set_link(port, LINK_U0);
        change(xhci, number, CONNECT_CHANGE);
        return;
    }
    if (!(port->status & ENABLED))
        return;
    if (state == LINK_U0 && old != LINK_U0) {
        set_link(port, LINK_U0);
        if (old == LINK_U3 || old == LINK_RESUME)
            change(xhci, number, LINK_CHANGE);
        resume_transfers(xhci, number);
    } else if (state == LINK_U3 || (state == LINK_RESUME && old == LINK_U3 && !is_usb3(number))) {
        set_link(port, state);
    }
}

static void write_status(struct xhci *xhci, unsigned number, uint32_t value)
{
    struct xhci_port *port = &xhci->ports[number];
    port->status &= ~(value & CHANGES);
    port->status = (port->status & ~(uint32_t)WRITABLE) | (value & WRITABLE);
    if (value & ENABLED)
        disable_port(port, number);
    if ((value & WARM_RESET) && is_usb3(number))
        reset_port(xhci, number, true);
    else if (value & RESET)
        reset_port(xhci, number, false);
    else if (value & LINK_WRITE)
        write_link(xhci, number, (value & LINK_MASK) >> LINK_SHIFT);
}

void xhci_port_write(struct xhci *xhci, unsigned number, unsigned offset, uint32_t value)
{
    if (offset == REG_STATUS)
        write_status(xhci, number, value);
    else if (offset == REG_POWER)
        xhci->ports[number].power = value;
}

void xhci_port_load(struct xhci *xhci, unsigned number, struct load *load)
{
    struct xhci_port *port = &xhci->ports[number];
    uint32_t status = load_u32(load);
    port->power = load_u32(load);
    bool is_connected = status & CONNECTED;
    if (is_connected != (port->device != NULL) || ((status & ENABLED) && !is_connected) ||
        (status &
         ~(uint32_t)(CONNECTED | ENABLED | LINK_MASK | POWERED | SPEED_MASK | WRITABLE | CHANGES)))
        load_fail(load);
    if (!load->failed)
        port->status = status;
}
