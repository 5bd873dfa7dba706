/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC's registers (xHCI 1.1, chapter 5): capabilities, operational registers, ports, runtime
 * registers, doorbells, extended capabilities. Accesses are of 4 or 8 bytes; narrower ones work for
 * reads.
 */
#include "dev/usb/xhci_internal.h"

enum { /* where the parts are in BAR 0 */
       OPERATIONAL_AT = 0x40,
       PORTS_AT = 0x440,
       PORT_BYTES = 0x10,
       RUNTIME_AT = 0x1000,
       INTERRUPTERS_AT = 0x1020,
       INTERRUPTER_BYTES = 0x20,
       DOORBELLS_AT = 0x2000,
       EXTENDED_AT = 0x3000,
       VERSION = 0x0100,
       ERST_MAX_SHIFT = 4, /* log2 of XHCI_ERST_MAX */
};

enum { /* operational registers, 5.4 */
       REG_COMMAND = 0x00,
       REG_STATUS = 0x04,
       REG_PAGE_SIZE = 0x08,
       REG_NOTIFICATIONS = 0x14,
       REG_RING_LOW = 0x18,
       REG_RING_HIGH = 0x1c,
       REG_CONTEXTS_LOW = 0x30,
       REG_CONTEXTS_HIGH = 0x34,
       REG_CONFIG = 0x38,
};

enum { /* CRCR, 5.4.5 */
       RING_CYCLE = 1 << 0,
       RING_STOP = 1 << 1,
       RING_ABORT = 1 << 2,
       RING_RUNNING = 1 << 3,
};

enum { MICROFRAME_NS = 125000, MICROFRAMES_MASK = 0x3fff };

/* ---- reading ---- */

static uint32_t read_capability(unsigned offset)
{
    switch (offset) {
    case 0x00: return OPERATIONAL_AT | VERSION << 16;
    case 0x04: return XHCI_SLOTS | XHCI_INTERRUPTERS << 8 | (uint32_t)XHCI_PORTS << 24;
    case 0x08: return ERST_MAX_SHIFT << 4;
    case 0x10: return (EXTENDED_AT >> 2) << 16 | 1; /* addresses of 64 bits, contexts of 32 bytes */
    case 0x14: return DOORBELLS_AT;
    case 0x18: return RUNTIME_AT;
    default: return 0;
    }
}

/* 7.2: which ports are USB 2 and which USB 3. */
static uint32_t read_extended(unsigned offset)
{
    static const uint32_t words[] = {
        2 | 4 << 8 | 0x0200u << 16,
        0x20425355 /* "USB " */,
        1 | XHCI_USB2_PORTS << 8,
        0,
        2 | 0x0300u << 16,
        0x20425355,
        (XHCI_USB2_PORTS + 1) | XHCI_USB3_PORTS << 8,
        0,
    };
    return offset / 4 < sizeof(words) / sizeof(words[0]) ? words[offset / 4] : 0;
}

static uint32_t read_operational(const struct xhci *xhci, unsigned offset)
{
    switch (offset) {
    case REG_COMMAND: return xhci->command;
    case REG_STATUS: return xhci->status;
    case REG_PAGE_SIZE: return 1;
    case REG_NOTIFICATIONS: return xhci->notifications;
    case REG_RING_LOW: return xhci->command_running ? RING_RUNNING : 0; /* the rest reads as zero */
    case REG_CONTEXTS_LOW: return (uint32_t)xhci->contexts_gpa;
    case REG_CONTEXTS_HIGH: return (uint32_t)(xhci->contexts_gpa >> 32);
    case REG_CONFIG: return xhci->config;
    default: return 0;
    }
}

static uint32_t read_runtime(const struct xhci *xhci, unsigned offset)
{
    if (offset == RUNTIME_AT && xhci_is_running(xhci))
        return (uint32_t)((clock_now_ns(xhci->clock) - xhci->started_ns) / MICROFRAME_NS) &
               MICROFRAMES_MASK;
    unsigned index = (offset - INTERRUPTERS_AT) / INTERRUPTER_BYTES;
    if (offset < INTERRUPTERS_AT || index >= XHCI_INTERRUPTERS)
        return 0;
    return xhci_interrupter_read(xhci, index, offset % INTERRUPTER_BYTES);
}

/* `offset` is a multiple of 4. */
static uint32_t read_register(const struct xhci *xhci, unsigned offset)
{
    if (offset < OPERATIONAL_AT)
        return read_capability(offset);
    if (offset < PORTS_AT)
        return read_operational(xhci, offset - OPERATIONAL_AT);
    if (offset < PORTS_AT + XHCI_PORTS * PORT_BYTES)
        return xhci_port_read(xhci, (offset - PORTS_AT) / PORT_BYTES, offset % PORT_BYTES);
    if (offset >= EXTENDED_AT)
        return read_extended(offset - EXTENDED_AT);
    return offset >= RUNTIME_AT && offset < DOORBELLS_AT ? read_runtime(xhci, offset) : 0;
}

uint64_t xhci_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct xhci *xhci = opaque;
    unsigned at = (unsigned)offset & ~3u, shift = 8 * (offset & 3);
    if (offset >= XHCI_BAR_BYTES || size_bytes > XHCI_BAR_BYTES - offset)
        return UINT64_MAX;
    pthread_mutex_lock(&xhci->lock);
    uint64_t value = read_register(xhci, at);
    if (at + 4 < XHCI_BAR_BYTES && (offset & 3) + size_bytes > 4)
        value |= (uint64_t)read_register(xhci, at + 4) << 32;
    pthread_mutex_unlock(&xhci->lock);
    return value >> shift;
}

/* ---- writing ---- */

static void start(struct xhci *xhci)
{
    xhci->status &= ~(uint32_t)STATUS_HALTED;
    xhci->started_ns = clock_now_ns(xhci->clock);
    xhci_ports_started(xhci);
}

static void stop(struct xhci *xhci)
{
    xhci->command_running = xhci->command_deferred = false;
    xhci->status |= STATUS_HALTED;
}

static void write_command(struct xhci *xhci, uint32_t value)
{
    if (value & COMMAND_RESET) {
        xhci_clear(xhci);
        return;
    }
    uint32_t old = xhci->command;
    xhci->command = value & COMMAND_STORED;
    if (value & COMMAND_SAVE)
        xhci->is_saved = true;
    /* The registers are still as they were, unless a reset has come between (4.23.2). */
    if ((value & COMMAND_RESTORE) && !xhci->is_saved)
        xhci->status |= STATUS_RESTORE_ERROR;
    if (!(old & COMMAND_RUN) && (value & COMMAND_RUN))
        start(xhci);
    else if ((old & COMMAND_RUN) && !(value & COMMAND_RUN))
        stop(xhci);
    xhci_update_intx(xhci);
    xhci_schedule(xhci);
}

static void write_ring_low(struct xhci *xhci, uint32_t value)
{
    if (xhci->command_running) {
        if (value & (RING_STOP | RING_ABORT))
            xhci_commands_stop(xhci);
        return;
    }
    xhci->command_dequeue =
        (xhci->command_dequeue & ~UINT64_C(0xffffffff)) | (value & ~UINT32_C(63));
    xhci->command_cycle = value & RING_CYCLE;
}

static void write_operational(struct xhci *xhci, unsigned offset, uint32_t value)
{
    switch (offset) {
    case REG_COMMAND: write_command(xhci, value); break;
    case REG_STATUS: xhci->status &= ~(value & STATUS_WRITABLE); break;
    case REG_NOTIFICATIONS: xhci->notifications = value & 0xffff; break;
    case REG_RING_LOW: write_ring_low(xhci, value); break;
    case REG_RING_HIGH:
        if (!xhci->command_running)
            xhci->command_dequeue = (xhci->command_dequeue & 0xffffffff) | (uint64_t)value << 32;
        break;
    case REG_CONTEXTS_LOW:
        xhci->contexts_gpa = (xhci->contexts_gpa & ~UINT64_C(0xffffffff)) | (value & ~UINT32_C(63));
        break;
    case REG_CONTEXTS_HIGH:
        xhci->contexts_gpa = (xhci->contexts_gpa & 0xffffffff) | (uint64_t)value << 32;
        break;
    case REG_CONFIG: xhci->config = value & 0xff; break;
    }
}

static void ring_doorbell(struct xhci *xhci, unsigned slot, uint32_t value)
{
    if (slot) {
        xhci_doorbell(xhci, slot, value & 0xff);
    } else if (xhci_is_running(xhci) && !(value & 0xff)) {
        xhci->command_running = true;
        xhci_commands(xhci);
    }
}

static void write_register(struct xhci *xhci, unsigned offset, uint32_t value)
{
    unsigned interrupter = (offset - INTERRUPTERS_AT) / INTERRUPTER_BYTES;
    if (offset >= OPERATIONAL_AT && offset < PORTS_AT)
        write_operational(xhci, offset - OPERATIONAL_AT, value);
    else if (offset >= PORTS_AT && offset < PORTS_AT + XHCI_PORTS * PORT_BYTES)
        xhci_port_write(xhci, (offset - PORTS_AT) / PORT_BYTES, offset % PORT_BYTES, value);
    else if (offset >= INTERRUPTERS_AT && interrupter < XHCI_INTERRUPTERS)
        xhci_interrupter_write(xhci, interrupter, offset % INTERRUPTER_BYTES, value);
    else if (offset >= DOORBELLS_AT && offset < EXTENDED_AT)
        ring_doorbell(xhci, (offset - DOORBELLS_AT) / 4, value);
}

void xhci_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct xhci *xhci = opaque;
    if (size_bytes < 4 || offset % size_bytes || offset >= XHCI_BAR_BYTES)
        return;
    pthread_mutex_lock(&xhci->lock);
    write_register(xhci, (unsigned)offset, (uint32_t)value);
    if (size_bytes == 8)
        write_register(xhci, (unsigned)offset + 4, (uint32_t)(value >> 32));
    pthread_mutex_unlock(&xhci->lock);
}
