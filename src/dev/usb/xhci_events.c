/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC's interrupters (xHCI 1.1, 4.17 and 5.5.2) and their event rings (4.9.4): segments, the
 * busy flag, moderation, and how an interrupt reaches the guest.
 */
#include "dev/usb/xhci_internal.h"

#include <string.h>

enum { /* offsets in an interrupter's registers, 5.5.2 */
       REG_MANAGEMENT = 0x00,
       REG_MODERATION = 0x04,
       REG_TABLE_SIZE = 0x08,
       REG_TABLE_LOW = 0x10,
       REG_TABLE_HIGH = 0x14,
       REG_DEQUEUE_LOW = 0x18,
       REG_DEQUEUE_HIGH = 0x1c,
};

enum {
    PENDING = 1 << 0, /* IMAN.IP */
    ENABLED = 1 << 1, /* IMAN.IE */
    BUSY = 1 << 3,    /* ERDP.EHB */
    MODERATION_NS = 250,
    DEFAULT_INTERVAL = 4000,
    SEGMENT_MIN_TRBS = 16,
    SEGMENT_MAX_TRBS = 4096,
    ROOM = 8, /* events that a transfer may need without being checked anew */
};

/* ---- the interrupt ---- */

void xhci_update_intx(struct xhci *xhci)
{
    bool level = false;
    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++)
        level |= (xhci->interrupters[i].management & (PENDING | ENABLED)) == (PENDING | ENABLED);
    pci_function_intx(xhci->function,
                      level && (xhci->command & COMMAND_INTERRUPTS) && !msix_enabled(xhci->msix));
}

/* 4.17.5: a message takes the pending bit away as it is sent. */
static void deliver(struct xhci *xhci, unsigned index)
{
    struct xhci_interrupter *interrupter = &xhci->interrupters[index];
    if ((interrupter->management & (PENDING | ENABLED)) == (PENDING | ENABLED) &&
        (xhci->command & COMMAND_INTERRUPTS) && msix_enabled(xhci->msix)) {
        interrupter->management &= ~(uint32_t)PENDING;
        msix_notify(xhci->msix, index);
    }
    xhci_update_intx(xhci);
}

uint64_t xhci_raise(struct xhci *xhci)
{
    uint64_t now = clock_now_ns(xhci->clock), again = UINT64_MAX;
    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++) {
        struct xhci_interrupter *interrupter = &xhci->interrupters[i];
        if (!interrupter->wants || (interrupter->dequeue & BUSY))
            continue;
        if (now < interrupter->next_ns) {
            again = interrupter->next_ns < again ? interrupter->next_ns : again;
            continue;
        }
        interrupter->wants = false;
        interrupter->dequeue |= BUSY;
        interrupter->management |= PENDING;
        interrupter->next_ns = now + (uint64_t)interrupter->interval * MODERATION_NS;
        xhci->status |= STATUS_EVENT;
        deliver(xhci, i);
    }
    return again;
}

/* ---- the ring ---- */

static uint64_t enqueue_gpa(const struct xhci_interrupter *interrupter)
{
    return interrupter->segments[interrupter->segment].base +
           (uint64_t)interrupter->index * XHCI_TRB_BYTES;
}

static uint64_t dequeue_gpa(const struct xhci_interrupter *interrupter)
{
    return interrupter->dequeue & ~UINT64_C(15);
}

/* How many events fit in front of where the guest reads. One place stays free (4.9.4). A guest
 * whose pointer is outside of the ring gets none. */
static uint32_t free_events(const struct xhci_interrupter *interrupter)
{
    uint64_t at = dequeue_gpa(interrupter);
    uint32_t total = 0, reader = 0, writer = 0;
    bool is_found = false;
    for (unsigned i = 0; i < interrupter->segment_count; i++) {
        const struct xhci_segment *segment = &interrupter->segments[i];
        uint64_t offset = at - segment->base;
        if (at >= segment->base && offset / XHCI_TRB_BYTES < segment->trb_count && !is_found) {
            is_found = true;
            reader = total + (uint32_t)(offset / XHCI_TRB_BYTES);
        }
        if (i == interrupter->segment)
            writer = total + interrupter->index;
        total += segment->trb_count;
    }
    return is_found ? (reader + total - writer - 1) % total : 0;
}

bool xhci_has_room(struct xhci *xhci, unsigned index)
{
    const struct xhci_interrupter *interrupter = &xhci->interrupters[index % XHCI_INTERRUPTERS];
    bool has_room = interrupter->segment_count && free_events(interrupter) > ROOM;
    xhci->waits_for_room |= !has_room;
    return has_room;
}

static void put_event(struct xhci *xhci, struct xhci_interrupter *interrupter,
                      struct xhci_trb event)
{
    event.control = (event.control & ~(uint32_t)TRB_CYCLE) | interrupter->cycle;
    uint64_t gpa = enqueue_gpa(interrupter);
    /* The cycle bit last: it gives the event to the guest. */
    if (!ram_write(xhci->ram, gpa, &event, 12) ||
        (__atomic_thread_fence(__ATOMIC_RELEASE),
         !ram_write(xhci->ram, gpa + 12, &event.control, 4))) {
        xhci_fail(xhci, "an event ring is outside of memory");
        return;
    }
    if (++interrupter->index < interrupter->segments[interrupter->segment].trb_count)
        return;
    interrupter->index = 0;
    if (++interrupter->segment < interrupter->segment_count)
        return;
    interrupter->segment = 0;
    interrupter->cycle = !interrupter->cycle;
}

void xhci_event(struct xhci *xhci, unsigned index, struct xhci_trb event, bool is_quiet)
{
    struct xhci_interrupter *interrupter = &xhci->interrupters[index % XHCI_INTERRUPTERS];
    if (!interrupter->segment_count || !xhci_is_running(xhci))
        return;
    uint32_t room = free_events(interrupter);
    if (!room) {
        xhci_complain(xhci, "an event is lost: its ring is full");
        return;
    }
    if (room == 1) /* 4.9.4: the last place says so */
        event = (struct xhci_trb){.status = (uint32_t)CODE_EVENT_RING_FULL << 24,
                                  .control = TRB_HOST_EVENT << 10};
    put_event(xhci, interrupter, event);
    if (is_quiet && room > 1)
        return;
    interrupter->wants = true;
    xhci_schedule(xhci);
}

/* 6.5: the table is read when its address is written. */
static void take_table(struct xhci *xhci, struct xhci_interrupter *interrupter)
{
    interrupter->segment_count = interrupter->segment = interrupter->index = 0;
    interrupter->cycle = true;
    for (unsigned i = 0; i < interrupter->table_size; i++) {
        struct {
            uint64_t base;
            uint32_t trb_count, reserved;
        } entry;
        if (!ram_read(xhci->ram, interrupter->table_gpa + i * sizeof(entry), &entry,
                      sizeof(entry)) ||
            (entry.trb_count & 0xffff) < SEGMENT_MIN_TRBS ||
            (entry.trb_count & 0xffff) > SEGMENT_MAX_TRBS) {
            interrupter->segment_count = 0;
            xhci_fail(xhci, "an event ring's table makes no sense");
            return;
        }
        interrupter->segments[i] =
            (struct xhci_segment){entry.base & ~UINT64_C(63), entry.trb_count & 0xffff};
        interrupter->segment_count++;
    }
}

/* ---- registers ---- */

uint32_t xhci_interrupter_read(const struct xhci *xhci, unsigned index, unsigned offset)
{
    const struct xhci_interrupter *interrupter = &xhci->interrupters[index];
    switch (offset) {
    case REG_MANAGEMENT: return interrupter->management;
    case REG_MODERATION: {
        uint64_t now = clock_now_ns(xhci->clock);
        uint64_t left = interrupter->next_ns > now ? interrupter->next_ns - now : 0;
        return interrupter->interval | (uint32_t)(left / MODERATION_NS) << 16;
    }
    case REG_TABLE_SIZE: return interrupter->table_size;
    case REG_TABLE_LOW: return (uint32_t)interrupter->table_gpa;
    case REG_TABLE_HIGH: return (uint32_t)(interrupter->table_gpa >> 32);
    case REG_DEQUEUE_LOW: return (uint32_t)interrupter->dequeue;
    case REG_DEQUEUE_HIGH: return (uint32_t)(interrupter->dequeue >> 32);
    default: return 0;
    }
}

static void write_management(struct xhci *xhci, unsigned index, uint32_t value)
{
    struct xhci_interrupter *interrupter = &xhci->interrupters[index];
    if (value & PENDING)
        interrupter->management &= ~(uint32_t)PENDING;
    interrupter->management = (interrupter->management & PENDING) | (value & ENABLED);
    deliver(xhci, index);
}

/* A guest that has come to the end of what it was interrupted for; more may be there by now. */
static void write_dequeue_low(struct xhci *xhci, struct xhci_interrupter *interrupter,
                              uint32_t value)
{
    bool was_busy = interrupter->dequeue & BUSY;
    interrupter->dequeue =
        (interrupter->dequeue & ~UINT64_C(0xffffffff)) | (value & ~(uint32_t)BUSY);
    if (was_busy && !(value & BUSY)) {
        interrupter->dequeue |= BUSY;
    } else if (was_busy) {
        interrupter->wants |=
            interrupter->segment_count && dequeue_gpa(interrupter) != enqueue_gpa(interrupter);
        xhci_schedule(xhci);
    }
}

void xhci_interrupter_write(struct xhci *xhci, unsigned index, unsigned offset, uint32_t value)
{
    struct xhci_interrupter *interrupter = &xhci->interrupters[index];
    switch (offset) {
    case REG_MANAGEMENT: write_management(xhci, index, value); break;
    case REG_MODERATION:
        interrupter->interval = (uint16_t)value;
        interrupter->next_ns = clock_now_ns(xhci->clock) + (uint64_t)(value >> 16) * MODERATION_NS;
        xhci_schedule(xhci);
        break;
    case REG_TABLE_SIZE:
        value &= 0xffff;
        interrupter->table_size = value < XHCI_ERST_MAX ? value : XHCI_ERST_MAX;
        if (!value)
            interrupter->segment_count = interrupter->segment = interrupter->index = 0;
        break;
    case REG_TABLE_LOW:
        interrupter->table_gpa =
            (interrupter->table_gpa & ~UINT64_C(0xffffffff)) | (value & ~UINT32_C(63));
        break;
    case REG_TABLE_HIGH: /* 4.9.4: the address is whole now */
        interrupter->table_gpa = (interrupter->table_gpa & 0xffffffff) | (uint64_t)value << 32;
        take_table(xhci, interrupter);
        break;
    case REG_DEQUEUE_LOW: write_dequeue_low(xhci, interrupter, value); break;
    case REG_DEQUEUE_HIGH:
        interrupter->dequeue = (interrupter->dequeue & 0xffffffff) | (uint64_t)value << 32;
        break;
    }
    /* What waited for room in an event ring goes on. */
    if (xhci->waits_for_room && xhci_has_room(xhci, index))
        xhci_defer(xhci);
}

void xhci_interrupters_clear(struct xhci *xhci)
{
    memset(xhci->interrupters, 0, sizeof(xhci->interrupters));
    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++)
        xhci->interrupters[i].interval = DEFAULT_INTERVAL;
    xhci_update_intx(xhci);
}
