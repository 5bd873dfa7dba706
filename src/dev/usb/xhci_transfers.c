/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC's transfer rings (xHCI 1.1, 4.9 to 4.11). A transfer is read from the ring whole, given
 * to the device and told; one to which the device says NAK stays where it is and is read anew
 * later.
 */
#include "dev/usb/xhci_internal.h"

#include <string.h>

enum {
    TRANSFERS_AT_ONCE = 64,
    LINKS_MAX = 64, /* in one transfer */
    SETUP_BYTES = 8,
    EVENT_LENGTH_MASK = 0xffffff,
};

enum td_result { TD_NONE, TD_READY, TD_BAD };

/* ---- states ---- */

void xhci_set_endpoint(struct xhci *xhci, unsigned slot, unsigned endpoint,
                       enum endpoint_state state)
{
    const struct xhci_slot *s = &xhci->slots[slot];
    struct xhci_endpoint *e = &xhci->slots[slot].endpoints[endpoint];
    uint64_t gpa = s->context_gpa + (uint64_t)endpoint * XHCI_CONTEXT_BYTES;
    struct usb_device *device = xhci_device(xhci, slot);
    uint32_t word;
    if (e->state == ENDPOINT_RUNNING && state != ENDPOINT_RUNNING && device)
        usb_device_stopped(device, xhci_endpoint_address(endpoint));
    e->state = (uint8_t)state;
    e->deferred &= state == ENDPOINT_RUNNING;
    if (!ram_read(xhci->ram, gpa, &word, sizeof(word)))
        return;
    word = (word & ~UINT32_C(7)) | state;
    uint64_t dequeue = e->dequeue | e->cycle;
    ram_write(xhci->ram, gpa, &word, sizeof(word));
    ram_write(xhci->ram, gpa + 8, &dequeue, sizeof(dequeue));
}

/* ---- reading a transfer ---- */

static bool has_data(const struct xhci_trb *trb)
{
    return trb_type(trb) == TRB_NORMAL || trb_type(trb) == TRB_DATA;
}

static size_t length_of(const struct xhci_trb *trb)
{
    return trb->status & 0x1ffff;
}

static enum td_result read_td(struct xhci *xhci, const struct xhci_endpoint *e)
{
    struct xhci_td *td = &xhci->td;
    unsigned links = 0;
    td->trb_count = 0;
    td->next = e->dequeue;
    td->next_cycle = e->cycle;
    for (;;) {
        struct xhci_trb trb;
        if (!xhci_read_trb(xhci, td->next, &trb))
            return TD_BAD;
        if ((trb.control & TRB_CYCLE) != td->next_cycle)
            return TD_NONE;
        if (trb_type(&trb) == TRB_LINK) {
            if (++links > LINKS_MAX)
                return TD_BAD;
            td->next = trb.parameter & ~UINT64_C(15);
            td->next_cycle ^= (trb.control & TRB_TOGGLE) != 0;
            continue;
        }
        if (td->trb_count == XHCI_TD_MAX_TRBS)
            return TD_BAD;
        td->trbs[td->trb_count++] = trb;
        td->next += XHCI_TRB_BYTES;
        if (!(trb.control & TRB_CHAIN))
            return TD_READY;
    }
}

/* Finds the memory of a transfer. False: a piece is outside of RAM, or a TRB is of a wrong type. */
static bool map_td(struct xhci *xhci)
{
    struct xhci_td *td = &xhci->td;
    td->iov_count = 0;
    td->size_bytes = 0;
    for (unsigned i = 0; i < td->trb_count; i++) {
        struct xhci_trb *trb = &td->trbs[i];
        size_t size = length_of(trb);
        unsigned type = trb_type(trb);
        if (type == TRB_EVENT_DATA || type == TRB_NOOP || type == TRB_STATUS)
            continue;
        if (!has_data(trb))
            return false;
        if (!size)
            continue;
        bool is_immediate = trb->control & TRB_IMMEDIATE; /* 4.11.7 */
        void *hva = is_immediate ? &trb->parameter : ram_hva(xhci->ram, trb->parameter, size);
        if (!hva || (is_immediate && size > sizeof(trb->parameter)))
            return false;
        td->iov[td->iov_count++] = (struct iovec){hva, size};
        td->size_bytes += size;
    }
    return true;
}

/* Tells the engine what the device has written. */
static void tell_written(struct xhci *xhci, size_t done)
{
    const struct xhci_td *td = &xhci->td;
    for (unsigned i = 0; i < td->trb_count && done; i++) {
        const struct xhci_trb *trb = &td->trbs[i];
        size_t size = has_data(trb) ? length_of(trb) : 0;
        size = size < done ? size : done;
        if (size && !(trb->control & TRB_IMMEDIATE))
            ram_written(xhci->ram, trb->parameter, size);
        done -= size;
    }
}

/* ---- telling what has come of it ---- */

struct report {
    unsigned slot, endpoint;
    enum xhci_code code;
    size_t done;          /* bytes not yet given to a TRB */
    uint32_t transferred; /* EDTLA, 4.11.5.2 */
    bool is_short, is_told;
};

static void tell(struct xhci *xhci, const struct report *report, const struct xhci_trb *trb,
                 enum xhci_code code, size_t left)
{
    bool is_data = trb_type(trb) == TRB_EVENT_DATA;
    const struct xhci_trb event = {
        .parameter = is_data ? trb->parameter : trb->gpa,
        .status = (uint32_t)code << 24 |
                  ((is_data ? report->transferred : (uint32_t)left) & EVENT_LENGTH_MASK),
        .control = TRB_TRANSFER_EVENT << 10 | report->slot << 24 | report->endpoint << 16 |
                   (is_data ? (uint32_t)TRB_EVENT_IS_DATA : 0),
    };
    xhci_event(xhci, trb->status >> 22, event, trb->control & TRB_BLOCK_EVENT);
}

/* One TRB of a transfer that has ended well, or short. After a short packet the rest of the
 * transfer is passed over; only event data TRBs still tell, and the last TRB if nobody has yet
 * (4.10.1.1). */
static void report_trb(struct xhci *xhci, struct report *report, const struct xhci_trb *trb)
{
    if (trb_type(trb) == TRB_EVENT_DATA) {
        if (trb->control & TRB_EVENT)
            tell(xhci, report, trb, report->is_short ? CODE_SHORT_PACKET : CODE_SUCCESS, 0);
        report->transferred = 0;
        return;
    }
    size_t size = has_data(trb) ? length_of(trb) : 0;
    size_t got = size < report->done ? size : report->done;
    bool was_short = report->is_short, wants = trb->control & TRB_EVENT;
    report->done -= got;
    report->transferred += (uint32_t)got;
    report->is_short |= got < size;
    if (report->is_short && !was_short)
        wants |= (trb->control & TRB_SHORT_EVENT) != 0;
    if (!wants || (was_short && report->is_told))
        return;
    tell(xhci, report, trb, report->is_short ? CODE_SHORT_PACKET : CODE_SUCCESS, size - got);
    report->is_told = true;
}

/* A transfer that failed is told at the TRB that it has come to, whether that wants it or not. */
static void report_failure(struct xhci *xhci, struct report *report)
{
    const struct xhci_td *td = &xhci->td;
    const struct xhci_trb *trb = &td->trbs[0];
    size_t left = 0;
    for (unsigned i = 0; i < td->trb_count; i++) {
        if (!has_data(&td->trbs[i]))
            continue;
        trb = &td->trbs[i];
        size_t size = length_of(trb), got = size < report->done ? size : report->done;
        report->done -= got;
        left = size - got;
        if (left)
            break;
    }
    tell(xhci, report, trb, report->code, left);
}

static void finish(struct xhci *xhci, unsigned slot, unsigned endpoint, enum xhci_code code,
                   size_t done)
{
    struct xhci_endpoint *e = &xhci->slots[slot].endpoints[endpoint];
    struct report report = {.slot = slot, .endpoint = endpoint, .code = code, .done = done};
    if (code != CODE_SUCCESS) {
        report_failure(xhci, &report);
        e->has_setup = false;
        xhci_set_endpoint(xhci, slot, endpoint,
                          code == CODE_TRB ? ENDPOINT_ERROR : ENDPOINT_HALTED);
        return;
    }
    e->dequeue = xhci->td.next;
    e->cycle = xhci->td.next_cycle;
    for (unsigned i = 0; i < xhci->td.trb_count; i++)
        report_trb(xhci, &report, &xhci->td.trbs[i]);
}

static enum xhci_code code_of(enum usb_status status)
{
    switch (status) {
    case USB_OK:
    case USB_NAK: return CODE_SUCCESS;
    case USB_STALL: return CODE_STALL;
    case USB_BABBLE: return CODE_BABBLE;
    case USB_ERROR: break;
    }
    return CODE_TRANSACTION;
}

/* ---- control transfers: 4.11.2.2 ---- */

static struct usb_setup setup_of(const struct xhci_endpoint *e)
{
    const uint8_t *b = e->setup;
    return (struct usb_setup){b[0], b[1], (uint16_t)(b[2] | b[3] << 8),
                              (uint16_t)(b[4] | b[5] << 8), (uint16_t)(b[6] | b[7] << 8)};
}

static enum xhci_code setup_stage(struct xhci *xhci, struct xhci_endpoint *e)
{
    const struct xhci_trb *trb = &xhci->td.trbs[0];
    if (!(trb->control & TRB_IMMEDIATE) || length_of(trb) != SETUP_BYTES || xhci->td.trb_count != 1)
        return CODE_TRB;
    memcpy(e->setup, &trb->parameter, SETUP_BYTES);
    e->has_setup = true;
    e->is_done = false;
    return CODE_SUCCESS;
}

/* The request is done in its data stage, or in the status stage when it has none. */
static enum xhci_code data_stage(struct xhci *xhci, struct xhci_endpoint *e,
                                 struct usb_device *device, size_t *done)
{
    struct xhci_td *td = &xhci->td;
    const struct usb_setup setup = setup_of(e);
    bool is_in = td->trbs[0].control & TRB_DIRECTION_IN;
    if (!e->has_setup || e->is_done || !map_td(xhci) || is_in != ((setup.type & USB_IN) != 0))
        return CODE_TRB;
    struct usb_transfer transfer = {.iov = td->iov, .iov_count = td->iov_count};
    size_t size = td->size_bytes < setup.length ? td->size_bytes : setup.length;
    if (size > USB_CONTROL_MAX_BYTES && !is_in)
        return CODE_STALL;
    size = size < USB_CONTROL_MAX_BYTES ? size : USB_CONTROL_MAX_BYTES;
    if (!is_in)
        size = usb_transfer_take(&transfer, xhci->control_data, size);
    enum usb_status status = usb_device_control(device, &setup, xhci->control_data, &size);
    e->is_done = true;
    if (status != USB_OK)
        return code_of(status);
    if (is_in) {
        *done = usb_transfer_fill(&transfer, xhci->control_data, size);
        tell_written(xhci, *done);
    } else {
        *done = td->size_bytes;
    }
    return CODE_SUCCESS;
}

static enum xhci_code status_stage(struct xhci *xhci, struct xhci_endpoint *e,
                                   struct usb_device *device)
{
    if (!e->has_setup)
        return CODE_TRB;
    const struct usb_setup setup = setup_of(e);
    size_t none = 0;
    e->has_setup = false;
    if (e->is_done)
        return CODE_SUCCESS;
    return code_of(usb_device_control(device, &setup, xhci->control_data, &none));
}

static void control_td(struct xhci *xhci, unsigned slot, struct usb_device *device)
{
    struct xhci_endpoint *e = &xhci->slots[slot].endpoints[1];
    size_t done = 0;
    enum xhci_code code = CODE_TRB;
    switch (trb_type(&xhci->td.trbs[0])) {
    case TRB_SETUP: code = setup_stage(xhci, e); break;
    case TRB_DATA: code = data_stage(xhci, e, device, &done); break;
    case TRB_STATUS: code = status_stage(xhci, e, device); break;
    case TRB_NOOP:
    case TRB_EVENT_DATA: code = CODE_SUCCESS; break;
    }
    finish(xhci, slot, 1, code, done);
}

/* ---- bulk and interrupt transfers ---- */

/* False: not now. */
static bool data_td(struct xhci *xhci, unsigned slot, unsigned endpoint, struct usb_device *device)
{
    struct xhci_td *td = &xhci->td;
    unsigned type = xhci->slots[slot].endpoints[endpoint].type, first = trb_type(&td->trbs[0]);
    bool is_idle = td->trb_count == 1 && (first == TRB_NOOP || first == TRB_EVENT_DATA);
    if (type == TYPE_ISOCH_IN || type == TYPE_ISOCH_OUT || !map_td(xhci)) {
        finish(xhci, slot, endpoint, CODE_TRB, 0);
        return true;
    }
    if (is_idle) {
        finish(xhci, slot, endpoint, CODE_SUCCESS, 0);
        return true;
    }
    struct usb_transfer transfer = {.endpoint = xhci_endpoint_address(endpoint),
                                    .iov = td->iov,
                                    .iov_count = td->iov_count,
                                    .size_bytes = td->size_bytes};
    enum usb_status status = usb_device_transfer(device, &transfer);
    if (status == USB_NAK)
        return false;
    if (transfer.endpoint & USB_IN)
        tell_written(xhci, transfer.done_bytes);
    finish(xhci, slot, endpoint, code_of(status), transfer.done_bytes);
    return true;
}

/* ---- rings ---- */

/* One transfer; false when there is nothing more to do for now. */
static bool do_transfer(struct xhci *xhci, unsigned slot, unsigned endpoint)
{
    struct xhci_endpoint *e = &xhci->slots[slot].endpoints[endpoint];
    struct usb_device *device = xhci_device(xhci, slot);
    if (!xhci_is_running(xhci) || e->state != ENDPOINT_RUNNING || !device ||
        !xhci_port_is_active(xhci, xhci->slots[slot].port))
        return false;
    switch (read_td(xhci, e)) {
    case TD_NONE: return false;
    case TD_READY: break;
    case TD_BAD:
        xhci_complain(xhci, "a transfer ring makes no sense");
        if (!xhci->td.trb_count)
            xhci->td.trbs[xhci->td.trb_count++] = (struct xhci_trb){.gpa = e->dequeue};
        finish(xhci, slot, endpoint, CODE_TRB, 0);
        return false;
    }
    if (!xhci_has_room(xhci, xhci->td.trbs[0].status >> 22)) {
        e->deferred = true;
        return false;
    }
    bool is_done = true;
    xhci->is_transferring = true;
    if (endpoint > 1)
        is_done = data_td(xhci, slot, endpoint, device);
    else
        control_td(xhci, slot, device);
    xhci->is_transferring = false;
    return is_done;
}

void xhci_transfers(struct xhci *xhci, unsigned slot, unsigned endpoint)
{
    xhci->slots[slot].endpoints[endpoint].deferred = false;
    for (unsigned i = 0; i < TRANSFERS_AT_ONCE; i++)
        if (!do_transfer(xhci, slot, endpoint))
            return;
    xhci->slots[slot].endpoints[endpoint].deferred = true;
    xhci_defer(xhci);
}

void xhci_doorbell(struct xhci *xhci, unsigned slot, unsigned endpoint)
{
    if (!xhci_is_running(xhci) || !slot || slot > XHCI_SLOTS || !endpoint ||
        endpoint >= XHCI_ENDPOINTS || !xhci_device(xhci, slot))
        return;
    if (xhci->slots[slot].endpoints[endpoint].state == ENDPOINT_STOPPED)
        xhci_set_endpoint(xhci, slot, endpoint, ENDPOINT_RUNNING);
    xhci_transfers(xhci, slot, endpoint);
}

void xhci_wakeup(struct xhci *xhci, unsigned port, uint8_t address)
{
    unsigned endpoint = 2u * (address & 15) + (address & USB_IN ? 1 : 0);
    if (!xhci_port_wakeup(xhci, port))
        return;
    for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++) {
        if (!xhci_device(xhci, slot) || xhci->slots[slot].port != port)
            continue;
        if (!xhci->is_transferring) {
            xhci_transfers(xhci, slot, endpoint);
        } else if (xhci->slots[slot].endpoints[endpoint].state == ENDPOINT_RUNNING) {
            xhci->slots[slot].endpoints[endpoint].deferred = true;
            xhci_defer(xhci);
        }
    }
}

void xhci_report_stopped(struct xhci *xhci, unsigned slot, unsigned endpoint)
{
    const struct xhci_endpoint *e = &xhci->slots[slot].endpoints[endpoint];
    if (read_td(xhci, e) != TD_READY)
        return;
    struct report report = {.slot = slot, .endpoint = endpoint, .code = CODE_STOPPED};
    report_failure(xhci, &report);
}
