/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Device slots and their contexts (xHCI 1.1, 4.5, 4.6.5 to 4.6.7, 4.6.11, 6.2). Contexts are read
 * when a command gives them, checked, and kept here; what the guest has in memory is only told.
 */
#include "dev/usb/xhci_internal.h"

#include <string.h>

enum { CONTEXT_WORDS = XHCI_CONTEXT_BYTES / 4, CONTROL_ENDPOINT = 1 };

/* ---- memory ---- */

typedef uint32_t context_words[CONTEXT_WORDS];

/* Context `index` of an input context: 0 says which, 1 is the slot's, then the endpoints'. */
static bool read_input(struct xhci *xhci, const struct xhci_trb *trb, unsigned index,
                       context_words words)
{
    uint64_t gpa = (trb->parameter & ~UINT64_C(15)) + (uint64_t)index * XHCI_CONTEXT_BYTES;
    return ram_read(xhci->ram, gpa, words, XHCI_CONTEXT_BYTES);
}

static uint64_t context_at(const struct xhci_slot *slot, unsigned index)
{
    return slot->context_gpa + (uint64_t)index * XHCI_CONTEXT_BYTES;
}

/* The device context was RAM when it was taken; RAM does not go away. */
static void write_output(struct xhci *xhci, const struct xhci_slot *slot, unsigned index,
                         const context_words words)
{
    ram_write(xhci->ram, context_at(slot, index), words, XHCI_CONTEXT_BYTES);
}

static void read_output(struct xhci *xhci, const struct xhci_slot *slot, unsigned index,
                        context_words words)
{
    if (!ram_read(xhci->ram, context_at(slot, index), words, XHCI_CONTEXT_BYTES))
        memset(words, 0, XHCI_CONTEXT_BYTES);
}

/* 6.2.2: the state is the last word's upper bits, the address its lowest byte. */
static void tell_slot(struct xhci *xhci, unsigned number, context_words words)
{
    const struct xhci_slot *slot = &xhci->slots[number];
    unsigned state = slot->state == SLOT_DISABLED ? 0 : slot->state;
    unsigned address = state >= SLOT_ADDRESSED ? number : 0;
    words[3] = state << 27 | address;
    write_output(xhci, slot, 0, words);
}

static void tell_slot_state(struct xhci *xhci, unsigned number)
{
    context_words words;
    read_output(xhci, &xhci->slots[number], 0, words);
    tell_slot(xhci, number, words);
}

/* ---- endpoints ---- */

/* What an endpoint's context must be for the endpoint of this number: 6.2.3. */
static bool check_endpoint(unsigned endpoint, const context_words words)
{
    unsigned type = words[1] >> 3 & 7;
    bool is_in = type > TYPE_CONTROL;
    if (words[0] >> 10 & 31) /* no streams */
        return false;
    if (endpoint == CONTROL_ENDPOINT || type == TYPE_CONTROL)
        return endpoint == CONTROL_ENDPOINT && type == TYPE_CONTROL;
    return type && is_in == (endpoint % 2 == 1);
}

static void start_endpoint(struct xhci *xhci, unsigned slot, unsigned endpoint, context_words words)
{
    struct xhci_slot *s = &xhci->slots[slot];
    uint64_t dequeue = words[2] | (uint64_t)words[3] << 32;
    s->endpoints[endpoint] = (struct xhci_endpoint){.state = ENDPOINT_RUNNING,
                                                    .type = words[1] >> 3 & 7,
                                                    .cycle = dequeue & 1,
                                                    .dequeue = dequeue & ~UINT64_C(15)};
    words[0] = (words[0] & ~UINT32_C(7)) | ENDPOINT_RUNNING;
    write_output(xhci, s, endpoint, words);
}

static void stop_endpoints(struct xhci *xhci, unsigned slot, unsigned first)
{
    for (unsigned i = first; i < XHCI_ENDPOINTS; i++)
        if (xhci->slots[slot].endpoints[i].state != ENDPOINT_DISABLED)
            xhci_set_endpoint(xhci, slot, i, ENDPOINT_DISABLED);
}

/* ---- address device, 4.6.5 ---- */

static bool is_taken(const struct xhci *xhci, unsigned slot, unsigned port)
{
    for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
        const struct xhci_slot *other = &xhci->slots[i];
        if (i != slot && other->state != SLOT_DISABLED && other->state != SLOT_ENABLED &&
            other->port == port)
            return true;
    }
    return false;
}

/* Where the guest has the slot's device context. */
static bool find_context(struct xhci *xhci, unsigned slot, uint64_t *gpa)
{
    return ram_read(xhci->ram, xhci->contexts_gpa + 8 * (uint64_t)slot, gpa, sizeof(*gpa)) &&
           !(*gpa & 63) && ram_hva(xhci->ram, *gpa, XHCI_DEVICE_CONTEXT_BYTES);
}

enum xhci_code xhci_address_device(struct xhci *xhci, unsigned slot, const struct xhci_trb *trb)
{
    struct xhci_slot *s = &xhci->slots[slot];
    bool is_blocked = trb->control & TRB_BLOCK_ADDRESS;
    context_words control, device, endpoint;
    uint64_t context_gpa;
    if (s->state != SLOT_ENABLED && (is_blocked || s->state != SLOT_DEFAULT))
        return CODE_CONTEXT_STATE;
    if (!read_input(xhci, trb, 0, control) || !read_input(xhci, trb, 1, device) ||
        !read_input(xhci, trb, 2, endpoint) || !find_context(xhci, slot, &context_gpa))
        return CODE_PARAMETER;
    unsigned port = (device[1] >> 16 & 0xff) - 1; /* root hub ports count from 1 */
    if (control[0] || control[1] != 3 || (device[0] & 0xfffff) || port >= XHCI_PORTS ||
        !check_endpoint(CONTROL_ENDPOINT, endpoint))
        return CODE_PARAMETER;
    if (is_taken(xhci, slot, port))
        return CODE_TRB;
    if (!xhci_port_is_active(xhci, port))
        return CODE_TRANSACTION;
    s->port = (uint8_t)port;
    s->context_gpa = context_gpa;
    s->state = is_blocked ? SLOT_DEFAULT : SLOT_ADDRESSED;
    if (!is_blocked)
        usb_device_set_address(xhci->ports[port].device, (uint8_t)slot);
    tell_slot(xhci, slot, device);
    start_endpoint(xhci, slot, CONTROL_ENDPOINT, endpoint);
    return CODE_SUCCESS;
}

/* ---- configure endpoint, 4.6.6 ---- */

static enum xhci_code deconfigure(struct xhci *xhci, unsigned slot)
{
    stop_endpoints(xhci, slot, CONTROL_ENDPOINT + 1);
    xhci->slots[slot].state = SLOT_ADDRESSED;
    tell_slot_state(xhci, slot);
    return CODE_SUCCESS;
}

/* All of the input context is checked before anything is changed. */
static bool read_endpoints(struct xhci *xhci, const struct xhci_trb *trb, uint32_t add,
                           context_words endpoints[XHCI_ENDPOINTS])
{
    for (unsigned i = CONTROL_ENDPOINT + 1; i < XHCI_ENDPOINTS; i++)
        if ((add >> i & 1) &&
            (!read_input(xhci, trb, i + 1, endpoints[i]) || !check_endpoint(i, endpoints[i])))
            return false;
    return true;
}

enum xhci_code xhci_configure(struct xhci *xhci, unsigned slot, const struct xhci_trb *trb)
{
    struct xhci_slot *s = &xhci->slots[slot];
    context_words control, device, endpoints[XHCI_ENDPOINTS], told;
    if (s->state != SLOT_ADDRESSED && s->state != SLOT_CONFIGURED)
        return CODE_CONTEXT_STATE;
    if (trb->control & TRB_DECONFIGURE)
        return deconfigure(xhci, slot);
    if (!read_input(xhci, trb, 0, control) || !read_input(xhci, trb, 1, device))
        return CODE_PARAMETER;
    uint32_t drop = control[0], add = control[1];
    if ((drop & 3) || (add & 3) != 1 || !read_endpoints(xhci, trb, add, endpoints))
        return CODE_PARAMETER;
    bool is_any = false;
    for (unsigned i = CONTROL_ENDPOINT + 1; i < XHCI_ENDPOINTS; i++) {
        bool is_added = add >> i & 1;
        if ((is_added || (drop >> i & 1)) && s->endpoints[i].state != ENDPOINT_DISABLED)
            xhci_set_endpoint(xhci, slot, i, ENDPOINT_DISABLED);
        if (is_added)
            start_endpoint(xhci, slot, i, endpoints[i]);
        is_any |= s->endpoints[i].state != ENDPOINT_DISABLED;
    }
    s->state = is_any ? SLOT_CONFIGURED : SLOT_ADDRESSED;
    read_output(xhci, s, 0, told);
    told[0] = (told[0] & 0x07ffffff) | (device[0] & 0xf8000000); /* context entries */
    tell_slot(xhci, slot, told);
    return CODE_SUCCESS;
}

/* ---- the others ---- */

/* 4.6.7: what may be changed while all goes on. */
enum xhci_code xhci_evaluate(struct xhci *xhci, unsigned slot, const struct xhci_trb *trb)
{
    const struct xhci_slot *s = &xhci->slots[slot];
    context_words control, device, endpoint, told;
    if (s->state == SLOT_ENABLED)
        return CODE_CONTEXT_STATE;
    if (!read_input(xhci, trb, 0, control) || !read_input(xhci, trb, 1, device) ||
        !read_input(xhci, trb, 2, endpoint))
        return CODE_PARAMETER;
    if (control[0] || (control[1] & ~UINT32_C(3)))
        return CODE_PARAMETER;
    if (control[1] & 1) { /* the exit latency, and an interrupter that we have no use for */
        read_output(xhci, s, 0, told);
        told[1] = (told[1] & 0xffff0000) | (device[1] & 0xffff);
        told[2] = (told[2] & 0x003fffff) | (device[2] & 0xffc00000);
        write_output(xhci, s, 0, told);
    }
    if (control[1] & 2) { /* the greatest packet */
        read_output(xhci, s, CONTROL_ENDPOINT, told);
        told[1] = (told[1] & 0xffff) | (endpoint[1] & 0xffff0000);
        write_output(xhci, s, CONTROL_ENDPOINT, told);
    }
    return CODE_SUCCESS;
}

enum xhci_code xhci_reset_device(struct xhci *xhci, unsigned slot)
{
    struct xhci_slot *s = &xhci->slots[slot];
    if (s->state != SLOT_ADDRESSED && s->state != SLOT_CONFIGURED)
        return CODE_CONTEXT_STATE;
    stop_endpoints(xhci, slot, CONTROL_ENDPOINT + 1);
    usb_device_reset(xhci->ports[s->port].device);
    s->state = SLOT_DEFAULT;
    tell_slot_state(xhci, slot);
    return CODE_SUCCESS;
}

void xhci_disable_slot(struct xhci *xhci, unsigned slot)
{
    struct xhci_slot *s = &xhci->slots[slot];
    if (s->state != SLOT_ENABLED) {
        stop_endpoints(xhci, slot, CONTROL_ENDPOINT);
        s->state = SLOT_DISABLED;
        tell_slot_state(xhci, slot);
    }
    *s = (struct xhci_slot){.state = SLOT_DISABLED};
}
