/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Conventional PCI (PCI Local Bus 3.0, chapter 6): one bus, functions with a type 0 header, BARs
 * that map themselves, INTx. How the guest reaches configuration space is pci_host.c's matter.
 * Left out: bridges (all is on bus 0), extended configuration space (reads as ones), PME, parity
 * errors.
 *
 * Threads: configuration accesses come from vCPU threads and are done one at a time under the
 * bus's lock, hooks included; a hook may take its device's lock, so nothing here but
 * pci_function_intx() and pci_function_suppress_intx() may be called with a device's lock held.
 * Functions are made and destroyed while no vCPU runs.
 */
#ifndef SKEP_DEV_PCI_H
#define SKEP_DEV_PCI_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/physmap.h"
#include "bus/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PCI_SLOT_COUNT = 32,
    PCI_FUNCTION_COUNT = 8, /* in a slot */
    PCI_CONFIG_BYTES = 256,
    PCI_BAR_COUNT = 6,
    PCI_ROM_MIN_BYTES = 4096, /* a page; the standard's least is 2048 */
    PCI_ROM_MAX_BYTES = 16 << 20,
};

/* Offsets in the header, and bits. */
enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09, /* 3 bytes */
    PCI_CACHE_LINE = 0x0c,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e,
    PCI_ROM = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,

    PCI_COMMAND_IO = 1 << 0,
    PCI_COMMAND_MEMORY = 1 << 1,
    PCI_COMMAND_MASTER = 1 << 2,
    PCI_COMMAND_PARITY = 1 << 6,
    PCI_COMMAND_SERR = 1 << 8,
    PCI_COMMAND_INTX_DISABLE = 1 << 10,
    PCI_ROM_ENABLE = 1 << 0,
    PCI_STATUS_INTERRUPT = 1 << 3,
    PCI_STATUS_CAPABILITIES = 1 << 4,

    PCI_CAPABILITY_VENDOR = 0x09,
    PCI_CAPABILITY_MSIX = 0x11,
};

struct pci_bus;
struct pci_function;

struct pci_bus_config {
    struct bus *bus;
    const struct log *log;
    /* The wire of pin 1 … 4 (INTA … INTD) of a slot. Functions may share a wire: it is up while
     * any of them asserts it. NULL: no wires. */
    struct irq_line (*route)(void *opaque, unsigned slot, unsigned pin);
    void *opaque;
    struct physmap *physmap; /* where BARs that are memory go; NULL: there are none */
};

struct pci_bus *pci_bus_create(const struct pci_bus_config *config, struct error *err);
void pci_bus_destroy(struct pci_bus *pci);          /* all functions must be destroyed */
struct bus *pci_bus_bus(const struct pci_bus *pci); /* as configured */
const struct log *pci_bus_log(const struct pci_bus *pci);

/* Configuration space of bus 0. `devfn` is slot << 3 | function; size 1, 2 or 4. Where there is
 * nothing, reads give ones and writes vanish. Any thread. */
uint32_t pci_bus_read(struct pci_bus *pci, unsigned devfn, unsigned offset, unsigned size_bytes);
void pci_bus_write(struct pci_bus *pci, unsigned devfn, unsigned offset, uint32_t value,
                   unsigned size_bytes);

/* ---- functions ---- */

struct pci_function_config {
    const char *name; /* static text */
    unsigned slot, function;
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* class, subclass, interface */
    uint8_t revision;
    uint8_t pin; /* 1 … 4 for INTA … INTD; 0: none */
    /* With the bus's lock held; either may be NULL. `reading`: the function may bring the bytes up
     * to date first. `written`: they were changed. */
    void (*reading)(void *opaque, unsigned offset, unsigned size_bytes);
    void (*written)(void *opaque, unsigned offset, unsigned size_bytes);
    void *opaque;
};

/* Fails when the place is taken. */
struct pci_function *pci_function_create(struct pci_bus *pci,
                                         const struct pci_function_config *config,
                                         struct error *err);
void pci_function_destroy(struct pci_function *function);

struct pci_bar {
    bool is_io, is_64bit, is_prefetchable;
    uint64_t size_bytes; /* a power of two; at least 16 for memory, 4 to 256 for I/O */
    /* Memory instead of registers: whole pages, which stay until no vCPU runs any more. */
    uint8_t *hva;
    bool is_logged;    /* of those: physmap_take_written() is going to be asked */
    bus_read_fn *read; /* as of struct bus_range */
    bus_write_fn *write;
    void *opaque;
    /* Told after the range was mapped and before it is unmapped, for doorbells; may be NULL. With
     * the bus's lock held. */
    void (*mapped)(void *opaque, uint64_t base);
    void (*unmapped)(void *opaque, uint64_t base);
};

/* Declares BAR `index` (a 64-bit one takes the next too). Before the guest runs. */
void pci_function_bar(struct pci_function *function, unsigned index, const struct pci_bar *bar);

/* Gives the function an expansion ROM with a copy of these bytes, filled up with ones to a power of
 * two. Before the guest runs. Fails when they are none, or more than PCI_ROM_MAX_BYTES, or no ROM
 * (PCI Local Bus 3.0, 6.3.1). */
bool pci_function_rom(struct pci_function *function, const void *bytes, size_t size_bytes,
                      struct error *err);

/* Where a BAR is mapped; false while it is not. */
bool pci_function_bar_address(struct pci_function *function, unsigned index, uint64_t *base);

/* Adds a capability of `size_bytes` (header included), zero but for id and link, read-only. Returns
 * its offset; asserts that there is room. */
unsigned pci_function_capability(struct pci_function *function, uint8_t id, unsigned size_bytes);

/* Bytes of the configuration space as the function itself sets and sees them. `init` also makes
 * them what a reset brings back. `writable` says which bits the guest may change. From creation or
 * from a hook. */
void pci_function_init(struct pci_function *function, unsigned offset, uint32_t value,
                       unsigned size_bytes);
void pci_function_writable(struct pci_function *function, unsigned offset, uint32_t mask,
                           unsigned size_bytes);
void pci_function_put(struct pci_function *function, unsigned offset, uint32_t value,
                      unsigned size_bytes);
uint32_t pci_function_get(const struct pci_function *function, unsigned offset,
                          unsigned size_bytes);

/* The level of the function's INTx; the command register may still hold it back. Any thread. */
void pci_function_intx(struct pci_function *function, bool level);
/* While message interrupts are enabled INTx stays low. Any thread. */
void pci_function_suppress_intx(struct pci_function *function, bool is_suppressed);

/* As after power on: BARs and command are zero, so nothing is mapped. Also drops INTx. */
void pci_function_reset(struct pci_function *function);
void pci_function_save(struct pci_function *function, struct save *save);
/* Maps BARs where they were. False when what was saved is not this function. */
bool pci_function_load(struct pci_function *function, struct load *load);

/* ---- what firmware would do ---- */

struct pci_window {
    uint64_t base, size_bytes; /* size 0: there is none */
};

struct pci_windows {
    struct pci_window mmio32, mmio64, io;
    /* For the interrupt line register, which only tells; NULL: 255, unknown. */
    uint8_t (*interrupt_line)(void *opaque, unsigned slot, unsigned pin);
    void *opaque;
};

/* Gives every BAR of every function an address (64-bit ones in mmio64 when there is one, MMIO on
 * whole pages), enables memory and I/O space. After each reset when no firmware does it. Fails
 * when a window is too small. */
bool pci_assign_bars(struct pci_bus *pci, const struct pci_windows *windows, struct error *err);

#endif
