/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Host bridge of the Intel 3 Series chipset (82Q35; datasheet 316966, chapters 5 and 3) and
 * configuration mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2). Only bus 0 has functions. What the PAM
 * registers do is in pam.c. Left out: SMM (SMRAM is closed and its register locked), DRAM and
 * thermal registers. Runs on vCPU threads; the address register is one atomic word, all else is
 * guarded by the PCI bus.
 *
 * The address port answers only accesses of four bytes: a byte at 0xCF9 is the reset port, which
 * is another chip's, so only the first of the four ports is mapped here.
 */
#include "dev/pci_host.h"

#include "dev/pam.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    VENDOR = 0x8086,
    DEVICE = 0x29c0,
    REVISION = 2,

    PCIEXBAR = 0x60,
    PCIEXBAR_ENABLE = 1,
    PCIEXBAR_LENGTH_SHIFT = 1, /* two bits: 256, 128, 64 MiB */
    PAM0 = 0x90,
    SMRAM = 0x9d,
    SMRAM_RESET = 0x02,

    ADDRESS_BITS = 0x00fffffc,
};

#define ADDRESS_ENABLE UINT32_C(0x80000000)
#define ECAM_BUS_BYTES UINT64_C(0x100000) /* configuration space of one bus, 4 KiB a function */
/* Of PCIEXBAR: bits 35 … 26 are address, the lower ones only with smaller lengths. */
#define ECAM_ADDRESS_BITS UINT64_C(0xffc000000)

struct pci_host {
    struct pci_bus *pci;
    struct bus *bus;
    const struct log *log;
    struct log_limit limit;
    struct pci_function *function;
    uint16_t address_port;
    bool address_mapped, data_mapped;
    _Atomic uint32_t address;

    /* Under the PCI bus's lock: */
    bool ecam_mapped;
    uint64_t ecam_base, ecam_size;
    struct pam *pam; /* NULL: the registers do nothing */
};

/* ---- mechanism 1 ---- */

static uint64_t address_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct pci_host *host = opaque;
    return size_bytes == 4 ? atomic_load(&host->address) : UINT32_MAX;
}

static void address_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct pci_host *host = opaque;
    if (size_bytes == 4)
        atomic_store(&host->address, (uint32_t)value & (ADDRESS_ENABLE | ADDRESS_BITS));
}

/* The register that the data ports stand for; false when they do not, or not on bus 0. */
static bool data_target(struct pci_host *host, uint64_t offset, unsigned size_bytes,
                        unsigned *devfn, unsigned *reg)
{
    uint32_t address = atomic_load(&host->address);
    *devfn = address >> 8 & 0xff;
    *reg = (address & 0xfc) + (unsigned)offset;
    return address & ADDRESS_ENABLE && (address >> 16 & 0xff) == 0 && offset + size_bytes <= 4;
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct pci_host *host = opaque;
    unsigned devfn, reg;
    if (!data_target(host, offset, size_bytes, &devfn, &reg))
        return UINT64_MAX;
    return pci_bus_read(host->pci, devfn, reg, size_bytes);
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct pci_host *host = opaque;
    unsigned devfn, reg;
    if (data_target(host, offset, size_bytes, &devfn, &reg))
        pci_bus_write(host->pci, devfn, reg, (uint32_t)value, size_bytes);
}

/* ---- the memory-mapped window ---- */

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct pci_host *host = opaque;
    unsigned devfn = (unsigned)(offset >> 12) & 0xff, reg = offset & 0xfff;
    if (offset >= ECAM_BUS_BYTES)
        return UINT64_MAX;
    if (size_bytes <= 4)
        return pci_bus_read(host->pci, devfn, reg, size_bytes);
    uint64_t low = pci_bus_read(host->pci, devfn, reg, 4);
    return low | (uint64_t)pci_bus_read(host->pci, devfn, reg + 4, 4) << 32;
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct pci_host *host = opaque;
    unsigned devfn = (unsigned)(offset >> 12) & 0xff, reg = offset & 0xfff;
    if (offset >= ECAM_BUS_BYTES)
        return;
    pci_bus_write(host->pci, devfn, reg, (uint32_t)value, size_bytes < 4 ? size_bytes : 4);
    if (size_bytes == 8)
        pci_bus_write(host->pci, devfn, reg + 4, (uint32_t)(value >> 32), 4);
}

static uint64_t pciexbar(const struct pci_host *host)
{
    return pci_function_get(host->function, PCIEXBAR, 4) |
           (uint64_t)pci_function_get(host->function, PCIEXBAR + 4, 4) << 32;
}

/* Where PCIEXBAR places the window; size 0: nowhere. */
static uint64_t ecam_place(uint64_t value, uint64_t *base)
{
    unsigned length = value >> PCIEXBAR_LENGTH_SHIFT & 3;
    uint64_t size = UINT64_C(0x10000000) >> length;
    *base = value & ECAM_ADDRESS_BITS & ~(size - 1);
    return value & PCIEXBAR_ENABLE && length != 3 && *base ? size : 0;
}

static void ecam_unmap(struct pci_host *host)
{
    if (host->ecam_mapped)
        bus_unmap(host->bus, BUS_MMIO, host->ecam_base);
    host->ecam_mapped = false;
}

static void ecam_update(struct pci_host *host)
{
    uint64_t base, size = ecam_place(pciexbar(host), &base);
    if (host->ecam_mapped && size == host->ecam_size && base == host->ecam_base)
        return;
    ecam_unmap(host);
    if (!size)
        return;
    struct bus_range range = {.name = "ECAM",
                              .space = BUS_MMIO,
                              .base = base,
                              .size_bytes = size,
                              .read = ecam_read,
                              .write = ecam_write,
                              .opaque = host};
    struct error err = {0};
    if (!bus_map(host->bus, &range, &err)) {
        log_limited(host->log, &host->limit, LOG_WARNING, "pci",
                    "ECAM is not mapped at 0x%" PRIx64 ": %s", base, err.cause);
        return;
    }
    host->ecam_mapped = true;
    host->ecam_base = base;
    host->ecam_size = size;
}

static void pam_changed(struct pci_host *host)
{
    uint8_t registers[PAM_REGISTERS];
    for (unsigned i = 0; i < PAM_REGISTERS; i++)
        registers[i] = (uint8_t)pci_function_get(host->function, PAM0 + i, 1);
    if (host->pam)
        pam_set(host->pam, registers);
}

/* A change of the upper half alone, while the window is enabled, moves it too, as on the chip. */
static void host_written(void *opaque, unsigned offset, unsigned size_bytes)
{
    if (offset < PCIEXBAR + 8 && offset + size_bytes > PCIEXBAR)
        ecam_update(opaque);
    if (offset < PAM0 + PAM_REGISTERS && offset + size_bytes > PAM0)
        pam_changed(opaque);
}

/* ---- life ---- */

static void host_destroy(void *opaque)
{
    struct pci_host *host = opaque;
    ecam_unmap(host);
    pam_destroy(host->pam);
    pci_function_destroy(host->function);
    if (host->address_mapped)
        bus_unmap(host->bus, BUS_PORT, host->address_port);
    if (host->data_mapped)
        bus_unmap(host->bus, BUS_PORT, host->address_port + 4U);
    free(host);
}

static bool map_ports(struct pci_host *host, struct error *err)
{
    struct bus_range address = {.name = "PCI address",
                                .space = BUS_PORT,
                                .base = host->address_port,
                                .size_bytes = 1,
                                .read = address_read,
                                .write = address_write,
                                .opaque = host};
    struct bus_range data = {.name = "PCI data",
                             .space = BUS_PORT,
                             .base = host->address_port + 4U,
                             .size_bytes = 4,
                             .read = data_read,
                             .write = data_write,
                             .opaque = host};
    host->address_mapped = bus_map(host->bus, &address, err);
    host->data_mapped = host->address_mapped && bus_map(host->bus, &data, err);
    return host->data_mapped;
}

static bool create_function(struct pci_host *host, uint64_t ecam_base, struct error *err)
{
    struct pci_function_config function = {.name = "host bridge",
                                           .vendor = VENDOR,
                                           .device = DEVICE,
                                           .class_code = 0x060000,
                                           .revision = REVISION,
                                           .written = host_written,
                                           .opaque = host};
    host->function = pci_function_create(host->pci, &function, err);
    if (!host->function)
        return false;
    struct pci_function *f = host->function;
    pci_function_init(f, PCIEXBAR, (uint32_t)ecam_base | (ecam_base ? PCIEXBAR_ENABLE : 0), 4);
    pci_function_init(f, PCIEXBAR + 4, (uint32_t)(ecam_base >> 32), 4);
    pci_function_writable(
        f, PCIEXBAR, (uint32_t)ECAM_ADDRESS_BITS | 3 << PCIEXBAR_LENGTH_SHIFT | PCIEXBAR_ENABLE, 4);
    pci_function_writable(f, PCIEXBAR + 4, (uint32_t)(ECAM_ADDRESS_BITS >> 32), 4);
    for (unsigned i = 0; i < PAM_REGISTERS; i++)
        pci_function_writable(f, PAM0 + i, 0x33, 1);
    pci_function_init(f, SMRAM, SMRAM_RESET, 1);
    ecam_update(host);
    if (ecam_base && !host->ecam_mapped)
        return error_set(err, "cannot map the PCI configuration window", NULL,
                         "the address 0x%" PRIx64 " is taken", ecam_base);
    return true;
}

static bool create_pam(struct pci_host *host, const struct pci_host_config *config,
                       struct error *err)
{
    const struct pam_config pam = {
        .physmap = config->physmap,
        .ram = config->ram,
        .bus = host->bus,
        .log = host->log,
        .rom = config->rom,
        .rom_bytes = config->rom_bytes,
    };
    if (!pam.physmap)
        return true;
    host->pam = pam_create(&pam, err);
    if (host->pam)
        pam_changed(host);
    return host->pam;
}

struct pci_host *pci_host_create(const struct pci_host_config *config, struct error *err)
{
    assert((config->ecam_base & ~ECAM_ADDRESS_BITS) == 0);
    assert(config->ecam_base % UINT64_C(0x10000000) == 0);
    struct pci_host *host = calloc(1, sizeof(*host));
    if (!host) {
        error_set(err, "cannot create the PCI host bridge", NULL, "out of memory");
        return NULL;
    }
    host->pci = config->pci;
    host->bus = pci_bus_bus(config->pci);
    host->log = pci_bus_log(config->pci);
    host->address_port = config->address_port;
    if (!map_ports(host, err) || !create_function(host, config->ecam_base, err) ||
        !create_pam(host, config, err)) {
        host_destroy(host);
        return NULL;
    }
    return host;
}

uint64_t pci_host_ecam(struct pci_host *host, uint64_t *base)
{
    unsigned devfn = 0;
    uint64_t value = pci_bus_read(host->pci, devfn, PCIEXBAR, 4);
    value |= (uint64_t)pci_bus_read(host->pci, devfn, PCIEXBAR + 4, 4) << 32;
    return ecam_place(value, base);
}

static void host_reset(void *opaque)
{
    struct pci_host *host = opaque;
    atomic_store(&host->address, 0);
    pci_function_reset(host->function);
    ecam_update(host);
    pam_changed(host);
}

static void host_save(void *opaque, struct save *save)
{
    struct pci_host *host = opaque;
    save_u32(save, atomic_load(&host->address));
    pci_function_save(host->function, save);
}

static bool host_load(void *opaque, struct load *load, uint32_t version)
{
    struct pci_host *host = opaque;
    uint32_t address = load_u32(load);
    if (version != pci_host_ops.version || address & ~(ADDRESS_ENABLE | ADDRESS_BITS))
        load_fail(load);
    if (load->failed || !pci_function_load(host->function, load)) {
        host_reset(host);
        return false;
    }
    atomic_store(&host->address, address);
    ecam_update(host);
    pam_changed(host);
    return true;
}

const struct device_ops pci_host_ops = {
    .name = "82q35",
    .version = 1,
    .reset = host_reset,
    .save = host_save,
    .load = host_load,
    .destroy = host_destroy,
};
