/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC's parts as its own files see them. Section numbers are those of the xHCI specification
 * 1.1. Everything runs with xhci->lock held unless it says otherwise.
 */
#ifndef SKEP_DEV_USB_XHCI_INTERNAL_H
#define SKEP_DEV_USB_XHCI_INTERNAL_H

#include "dev/msix.h"
#include "dev/usb/xhci.h"

#include <pthread.h>

enum {
    XHCI_BAR_BYTES = 0x4000,
    XHCI_SLOTS = 16,
    XHCI_INTERRUPTERS = 8,
    XHCI_ENDPOINTS = 32, /* by their doorbell targets: 1 is the control endpoint, 2n+1 IN n */
    XHCI_ERST_MAX = 16,  /* segments of an event ring */
    XHCI_TD_MAX_TRBS = 1024,
    XHCI_TRB_BYTES = 16,
    XHCI_CONTEXT_BYTES = 32,
    XHCI_DEVICE_CONTEXT_BYTES = XHCI_ENDPOINTS * XHCI_CONTEXT_BYTES,
};

enum { /* TRB types, 6.4.6 */
       TRB_NORMAL = 1,
       TRB_SETUP = 2,
       TRB_DATA = 3,
       TRB_STATUS = 4,
       TRB_ISOCH = 5,
       TRB_LINK = 6,
       TRB_EVENT_DATA = 7,
       TRB_NOOP = 8,
       TRB_ENABLE_SLOT = 9,
       TRB_DISABLE_SLOT = 10,
       TRB_ADDRESS_DEVICE = 11,
       TRB_CONFIGURE_ENDPOINT = 12,
       TRB_EVALUATE_CONTEXT = 13,
       TRB_RESET_ENDPOINT = 14,
       TRB_STOP_ENDPOINT = 15,
       TRB_SET_DEQUEUE = 16,
       TRB_RESET_DEVICE = 17,
       TRB_SET_LATENCY = 20,
       TRB_NOOP_COMMAND = 23,
       TRB_TRANSFER_EVENT = 32,
       TRB_COMMAND_EVENT = 33,
       TRB_PORT_EVENT = 34,
       TRB_HOST_EVENT = 37,
};

enum { /* bits of a TRB's control word, 6.4 */
       TRB_CYCLE = 1 << 0,
       TRB_TOGGLE = 1 << 1, /* of a link */
       TRB_EVENT_IS_DATA = 1 << 2,
       TRB_SHORT_EVENT = 1 << 2, /* ISP */
       TRB_CHAIN = 1 << 4,
       TRB_EVENT = 1 << 5,     /* IOC */
       TRB_IMMEDIATE = 1 << 6, /* IDT */
       TRB_BLOCK_EVENT = 1 << 9,
       TRB_BLOCK_ADDRESS = 1 << 9, /* BSR of address device */
       TRB_DECONFIGURE = 1 << 9,
       TRB_DIRECTION_IN = 1 << 16,
};

enum xhci_code { /* completion codes, 6.4.5 */
                 CODE_SUCCESS = 1,
                 CODE_BABBLE = 3,
                 CODE_TRANSACTION = 4,
                 CODE_TRB = 5,
                 CODE_STALL = 6,
                 CODE_NO_SLOTS = 9,
                 CODE_SLOT_NOT_ENABLED = 11,
                 CODE_ENDPOINT_NOT_ENABLED = 12,
                 CODE_SHORT_PACKET = 13,
                 CODE_PARAMETER = 17,
                 CODE_CONTEXT_STATE = 19,
                 CODE_EVENT_RING_FULL = 21,
                 CODE_COMMAND_RING_STOPPED = 24,
                 CODE_STOPPED = 26,
};

enum { /* 5.4.1, 5.4.2 */
       COMMAND_RUN = 1 << 0,
       COMMAND_RESET = 1 << 1,
       COMMAND_INTERRUPTS = 1 << 2,
       COMMAND_SAVE = 1 << 8,
       COMMAND_RESTORE = 1 << 9,
       COMMAND_STORED = COMMAND_RUN | COMMAND_INTERRUPTS | 1 << 3 /* HSEE */ | 1 << 10 /* EWE */,
       STATUS_HALTED = 1 << 0,
       STATUS_EVENT = 1 << 3,
       STATUS_PORT_CHANGE = 1 << 4,
       STATUS_RESTORE_ERROR = 1 << 10,
       STATUS_CONTROLLER_ERROR = 1 << 12,
       STATUS_WRITABLE = STATUS_EVENT | STATUS_PORT_CHANGE | STATUS_RESTORE_ERROR,
       STATUS_ALL = STATUS_WRITABLE | STATUS_HALTED | STATUS_CONTROLLER_ERROR,
};

enum endpoint_state { /* 6.2.3 */
                      ENDPOINT_DISABLED,
                      ENDPOINT_RUNNING,
                      ENDPOINT_HALTED,
                      ENDPOINT_STOPPED,
                      ENDPOINT_ERROR,
};

enum slot_state { /* 6.2.2, and one that the context does not tell */
                  SLOT_ENABLED = 0,
                  SLOT_DEFAULT = 1,
                  SLOT_ADDRESSED = 2,
                  SLOT_CONFIGURED = 3,
                  SLOT_DISABLED = 4,
};

enum { /* endpoint types, 6.2.3 */
       TYPE_ISOCH_OUT = 1,
       TYPE_BULK_OUT = 2,
       TYPE_INTERRUPT_OUT = 3,
       TYPE_CONTROL = 4,
       TYPE_ISOCH_IN = 5,
       TYPE_BULK_IN = 6,
       TYPE_INTERRUPT_IN = 7,
};

struct xhci_endpoint {
    uint8_t state; /* enum endpoint_state */
    uint8_t type;
    bool cycle;
    bool deferred;    /* more is to be done; the timer will */
    uint64_t dequeue; /* gpa of the next TRB */
    /* Of the control endpoint: the request whose stages are under way. */
    bool has_setup, is_done;
    uint8_t setup[8];
};

struct xhci_slot {
    uint8_t state; /* enum slot_state */
    uint8_t port;  /* from 0 on; valid from SLOT_DEFAULT on */
    uint64_t context_gpa;
    struct xhci_endpoint endpoints[XHCI_ENDPOINTS];
};

struct xhci_port {
    uint32_t status; /* PORTSC */
    uint32_t power;  /* PORTPMSC: what can be written has no effect */
    struct usb_device *device;
};

struct xhci_segment {
    uint64_t base;
    uint32_t trb_count;
};

struct xhci_interrupter {
    uint32_t management; /* IMAN */
    uint16_t interval;   /* IMODI, in 250 ns */
    uint32_t table_size;
    uint64_t table_gpa;
    uint64_t dequeue; /* ERDP, with EHB */
    /* Ours: where the next event goes. */
    unsigned segment_count, segment, index;
    bool cycle;
    bool wants;       /* there are events that the guest was not interrupted for */
    uint64_t next_ns; /* moderation: not earlier than this */
    struct xhci_segment segments[XHCI_ERST_MAX];
};

struct xhci_trb {
    uint64_t parameter;
    uint32_t status, control;
    uint64_t gpa; /* where it was */
};

/* The TRBs of one transfer, and its memory. */
struct xhci_td {
    struct xhci_trb trbs[XHCI_TD_MAX_TRBS];
    unsigned trb_count;
    uint64_t next; /* what follows it */
    bool next_cycle;
    struct iovec iov[XHCI_TD_MAX_TRBS];
    unsigned iov_count;
    size_t size_bytes;
};

struct xhci {
    pthread_mutex_t lock;
    struct ram *ram;
    struct clock *clock;
    const struct log *log;
    struct log_limit log_limit;
    struct pci_function *function;
    struct msix *msix;
    struct clock_timer *timer; /* deferred work and moderated interrupts */

    uint32_t command, status;
    uint32_t notifications; /* DNCTRL */
    uint64_t command_dequeue;
    bool command_cycle, command_running, command_deferred;
    uint64_t contexts_gpa; /* DCBAAP */
    uint32_t config;
    uint64_t started_ns; /* MFINDEX counts from here while running */
    bool is_saved;       /* by COMMAND_SAVE, and not reset since */
    bool waits_for_room; /* something is deferred until an event ring has room */
    uint64_t work_ns;    /* when what is deferred is due; UINT64_MAX: nothing is */
    struct xhci_port ports[XHCI_PORTS];
    struct xhci_slot slots[XHCI_SLOTS + 1]; /* number 0 is none */
    struct xhci_interrupter interrupters[XHCI_INTERRUPTERS];

    bool is_transferring; /* `td` is in use */
    struct xhci_td td;    /* the one being worked on */
    uint8_t control_data[USB_CONTROL_MAX_BYTES];
};

static inline unsigned trb_type(const struct xhci_trb *trb)
{
    return trb->control >> 10 & 63;
}

static inline bool xhci_is_running(const struct xhci *xhci)
{
    return (xhci->command & COMMAND_RUN) && !(xhci->status & STATUS_CONTROLLER_ERROR);
}

/* ---- xhci.c ---- */

/* The controller cannot go on (4.24.1 HCE): it stands still until it is reset. `why` for the log.
 */
void xhci_fail(struct xhci *xhci, const char *why);
void xhci_complain(struct xhci *xhci, const char *why);
/* What is marked as deferred is done soon, on the clock's thread. */
void xhci_defer(struct xhci *xhci);
/* Raises interrupts that wait, and arms the timer for those that are not to come yet, and for what
 * is deferred. */
void xhci_schedule(struct xhci *xhci);
bool xhci_read_trb(struct xhci *xhci, uint64_t gpa, struct xhci_trb *trb); /* false: no RAM */
/* HCRST, 4.2: everything but PCI. */
void xhci_clear(struct xhci *xhci);

/* ---- xhci_registers.c: without the lock ---- */

uint64_t xhci_read(void *opaque, uint64_t offset, unsigned size_bytes);
void xhci_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes);

/* ---- xhci_events.c ---- */

/* Puts an event into an interrupter's ring and asks for an interrupt, unless `is_quiet`. */
void xhci_event(struct xhci *xhci, unsigned interrupter, struct xhci_trb event, bool is_quiet);
/* Whether a few more events have room; if not, what wants to tell them waits until they have. */
bool xhci_has_room(struct xhci *xhci, unsigned interrupter);
/* Raises what waits and may be raised; gives when to look again (UINT64_MAX: not). */
uint64_t xhci_raise(struct xhci *xhci);
void xhci_update_intx(struct xhci *xhci);
uint32_t xhci_interrupter_read(const struct xhci *xhci, unsigned index, unsigned offset);
void xhci_interrupter_write(struct xhci *xhci, unsigned index, unsigned offset, uint32_t value);
void xhci_interrupters_clear(struct xhci *xhci);

/* ---- xhci_ports.c ---- */

void xhci_ports_clear(struct xhci *xhci);
uint32_t xhci_port_read(const struct xhci *xhci, unsigned port, unsigned offset);
void xhci_port_write(struct xhci *xhci, unsigned port, unsigned offset, uint32_t value);
/* Tells of the changes that came before the controller ran. */
void xhci_ports_started(struct xhci *xhci);
/* Reads what xhci_save() has written of a port; otherwise load has failed. */
void xhci_port_load(struct xhci *xhci, unsigned port, struct load *load);
/* A device has something to say: wakes a port that sleeps. True: the port takes transfers. */
bool xhci_port_wakeup(struct xhci *xhci, unsigned port);
bool xhci_port_is_active(const struct xhci *xhci, unsigned port);

/* ---- xhci_commands.c ---- */

void xhci_commands(struct xhci *xhci); /* as many as there are, within bounds */
void xhci_commands_stop(struct xhci *xhci);

/* ---- xhci_slots.c ---- */

/* Each does a command of this slot (already checked to be enabled) and gives its code. */
enum xhci_code xhci_address_device(struct xhci *xhci, unsigned slot, const struct xhci_trb *trb);
enum xhci_code xhci_configure(struct xhci *xhci, unsigned slot, const struct xhci_trb *trb);
enum xhci_code xhci_evaluate(struct xhci *xhci, unsigned slot, const struct xhci_trb *trb);
enum xhci_code xhci_reset_device(struct xhci *xhci, unsigned slot);
void xhci_disable_slot(struct xhci *xhci, unsigned slot);

/* ---- xhci_transfers.c ---- */

/* Does what is in an endpoint's ring, until the device says NAK or nothing is left. */
void xhci_transfers(struct xhci *xhci, unsigned slot, unsigned endpoint);
void xhci_doorbell(struct xhci *xhci, unsigned slot, unsigned endpoint);
/* The device of this port has something to say. */
void xhci_wakeup(struct xhci *xhci, unsigned port, uint8_t address);
/* Changes an endpoint's state, and tells the device and the context of it. */
void xhci_set_endpoint(struct xhci *xhci, unsigned slot, unsigned endpoint,
                       enum endpoint_state state);
/* Tells of the transfer that a stop interrupts (4.6.9). */
void xhci_report_stopped(struct xhci *xhci, unsigned slot, unsigned endpoint);

static inline struct usb_device *xhci_device(const struct xhci *xhci, unsigned slot)
{
    const struct xhci_slot *s = &xhci->slots[slot];
    return s->state == SLOT_ENABLED || s->state == SLOT_DISABLED ? NULL
                                                                 : xhci->ports[s->port].device;
}

/* The endpoint's address on the bus, from its doorbell target. */
static inline uint8_t xhci_endpoint_address(unsigned endpoint)
{
    return (uint8_t)(endpoint / 2 | (endpoint > 1 && endpoint % 2 ? USB_IN : 0));
}

#endif
