/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC's command ring (xHCI 1.1, 4.6 and 4.9.3). Commands are done as the doorbell rings; only
 * bounded many at a time, since a ring may be made to have no end.
 */
#include "dev/usb/xhci_internal.h"

enum { COMMANDS_AT_ONCE = 256, LINKS_IN_A_ROW_MAX = 32 };

static void complete(struct xhci *xhci, const struct xhci_trb *trb, unsigned slot,
                     enum xhci_code code)
{
    const struct xhci_trb event = {.parameter = trb->gpa,
                                   .status = (uint32_t)code << 24,
                                   .control = TRB_COMMAND_EVENT << 10 | slot << 24};
    xhci_event(xhci, 0, event, false);
}

/* ---- commands of a single endpoint ---- */

static enum xhci_code reset_endpoint(struct xhci *xhci, unsigned slot, unsigned endpoint)
{
    if (xhci->slots[slot].endpoints[endpoint].state != ENDPOINT_HALTED)
        return CODE_CONTEXT_STATE;
    xhci_set_endpoint(xhci, slot, endpoint, ENDPOINT_STOPPED);
    return CODE_SUCCESS;
}

static enum xhci_code stop_endpoint(struct xhci *xhci, unsigned slot, unsigned endpoint)
{
    if (xhci->slots[slot].endpoints[endpoint].state != ENDPOINT_RUNNING)
        return CODE_CONTEXT_STATE;
    xhci_report_stopped(xhci, slot, endpoint);
    xhci_set_endpoint(xhci, slot, endpoint, ENDPOINT_STOPPED);
    return CODE_SUCCESS;
}

static enum xhci_code set_dequeue(struct xhci *xhci, unsigned slot, unsigned endpoint,
                                  const struct xhci_trb *trb)
{
    struct xhci_endpoint *e = &xhci->slots[slot].endpoints[endpoint];
    if (e->state != ENDPOINT_STOPPED && e->state != ENDPOINT_ERROR)
        return CODE_CONTEXT_STATE;
    if (trb->status >> 16) /* there are no streams */
        return CODE_TRB;
    e->dequeue = trb->parameter & ~UINT64_C(15);
    e->cycle = trb->parameter & 1;
    e->has_setup = false;
    xhci_set_endpoint(xhci, slot, endpoint, ENDPOINT_STOPPED);
    return CODE_SUCCESS;
}

static enum xhci_code endpoint_command(struct xhci *xhci, unsigned slot, const struct xhci_trb *trb)
{
    unsigned endpoint = trb->control >> 16 & 31;
    if (!endpoint)
        return CODE_TRB;
    if (xhci->slots[slot].endpoints[endpoint].state == ENDPOINT_DISABLED)
        return CODE_ENDPOINT_NOT_ENABLED;
    switch (trb_type(trb)) {
    case TRB_RESET_ENDPOINT: return reset_endpoint(xhci, slot, endpoint);
    case TRB_STOP_ENDPOINT: return stop_endpoint(xhci, slot, endpoint);
    default: return set_dequeue(xhci, slot, endpoint, trb);
    }
}

/* ---- all of them ---- */

static enum xhci_code slot_command(struct xhci *xhci, unsigned slot, const struct xhci_trb *trb)
{
    if (!slot || slot > XHCI_SLOTS || xhci->slots[slot].state == SLOT_DISABLED)
        return CODE_SLOT_NOT_ENABLED;
    switch (trb_type(trb)) {
    case TRB_DISABLE_SLOT: xhci_disable_slot(xhci, slot); return CODE_SUCCESS;
    case TRB_ADDRESS_DEVICE: return xhci_address_device(xhci, slot, trb);
    case TRB_CONFIGURE_ENDPOINT: return xhci_configure(xhci, slot, trb);
    case TRB_EVALUATE_CONTEXT: return xhci_evaluate(xhci, slot, trb);
    case TRB_RESET_DEVICE: return xhci_reset_device(xhci, slot);
    default: return endpoint_command(xhci, slot, trb);
    }
}

static enum xhci_code enable_slot(struct xhci *xhci, unsigned *slot)
{
    unsigned last = xhci->config & 0xff;
    for (*slot = 1; *slot <= XHCI_SLOTS && *slot <= last; (*slot)++) {
        if (xhci->slots[*slot].state == SLOT_DISABLED) {
            xhci->slots[*slot] = (struct xhci_slot){.state = SLOT_ENABLED};
            return CODE_SUCCESS;
        }
    }
    *slot = 0;
    return CODE_NO_SLOTS;
}

static void do_command(struct xhci *xhci, const struct xhci_trb *trb)
{
    unsigned type = trb_type(trb), slot = trb->control >> 24;
    enum xhci_code code = CODE_TRB;
    if (type == TRB_ENABLE_SLOT)
        code = enable_slot(xhci, &slot);
    else if (type >= TRB_DISABLE_SLOT && type <= TRB_RESET_DEVICE)
        code = slot_command(xhci, slot, trb);
    else if (type == TRB_NOOP_COMMAND || type == TRB_SET_LATENCY)
        code = CODE_SUCCESS;
    complete(xhci, trb, slot, code);
}

void xhci_commands(struct xhci *xhci)
{
    unsigned links = 0;
    xhci->command_deferred = false;
    for (unsigned i = 0; i < COMMANDS_AT_ONCE && links <= LINKS_IN_A_ROW_MAX;) {
        struct xhci_trb trb;
        if (!xhci_is_running(xhci) || !xhci->command_running)
            return;
        if (!xhci_read_trb(xhci, xhci->command_dequeue, &trb)) {
            xhci_fail(xhci, "the command ring is outside of memory");
            return;
        }
        if ((trb.control & TRB_CYCLE) != xhci->command_cycle)
            return;
        if (!xhci_has_room(xhci, 0))
            break;
        if (trb_type(&trb) == TRB_LINK) {
            xhci->command_dequeue = trb.parameter & ~UINT64_C(15);
            xhci->command_cycle ^= (trb.control & TRB_TOGGLE) != 0;
            links++;
            continue;
        }
        links = 0;
        i++;
        xhci->command_dequeue += XHCI_TRB_BYTES;
        do_command(xhci, &trb);
    }
    xhci->command_deferred = true;
    xhci_defer(xhci);
}

void xhci_commands_stop(struct xhci *xhci)
{
    if (!xhci->command_running)
        return;
    xhci->command_running = xhci->command_deferred = false;
    const struct xhci_trb none = {.gpa = xhci->command_dequeue};
    complete(xhci, &none, 0, CODE_COMMAND_RING_STOPPED);
}
