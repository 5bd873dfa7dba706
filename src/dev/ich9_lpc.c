/* SPDX-License-Identifier: BSD-2-Clause
 *
 * LPC bridge of the I/O Controller Hub 9 (datasheet 316972, chapter 13: D31:F0). It holds what
 * software reads and writes and tells the board what it means; the ACPI registers themselves, the
 * 8259s and the rest of the bridge are other chips. Left out: GPIO, the root complex register
 * block, power management of the bridge itself. Runs on vCPU threads under the PCI bus's lock.
 */
#include "dev/ich9_lpc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    VENDOR = 0x8086,
    DEVICE = 0x2918,
    REVISION = 2,

    PMBASE = 0x40,
    PMBASE_BITS = 0xff80,
    PMBASE_IO = 1, /* reads as one: I/O space */
    ACPI_CNTL = 0x44,
    ACPI_ENABLE = 1 << 7,
    ACPI_SCI = 7,
    PIRQA_ROUTE = 0x60,
    SERIRQ_CNTL = 0x64,
    PIRQE_ROUTE = 0x68,
    PIRQ_DISABLED = 0x80,
    PIRQ_BITS = 0x8f,
    LPC_IO_DECODE = 0x80,
    LPC_ENABLE = 0x82,
    LPC_GENERIC_DECODE = 0x84, /* four of them */
    GEN_PMCON_1 = 0xa0,
    GEN_PMCON_3 = 0xa4,
    RCBA = 0xf0,
    RCBA_ENABLE = 1,
};

#define RCBA_BITS UINT32_C(0xffffc000)

struct ich9_lpc {
    struct ich9_lpc_config config;
    struct pci_function *function;
    /* What the board was told last. */
    uint32_t told_pm;
    uint8_t told_acpi;
    uint8_t told_pirqs[ICH9_LPC_PIRQ_COUNT];
};

static unsigned pirq_offset(unsigned pirq)
{
    return pirq < 4 ? PIRQA_ROUTE + pirq : PIRQE_ROUTE + pirq - 4;
}

/* The field's eight values; the reserved ones stand for what they are next to. */
static unsigned sci_number(uint8_t control)
{
    static const uint8_t numbers[8] = {9, 10, 11, 9, 20, 21, 22, 23};
    return numbers[control & ACPI_SCI];
}

static uint8_t sci_field(unsigned number)
{
    for (uint8_t field = 0; field < 8; field++) {
        if (sci_number(field) == number)
            return field;
    }
    assert(!"the SCI cannot be routed there");
    return 0;
}

/* Tells the board what differs from what it knows. */
static void tell(struct ich9_lpc *lpc)
{
    const struct ich9_lpc_config *config = &lpc->config;
    uint32_t pm = pci_function_get(lpc->function, PMBASE, 4);
    uint8_t acpi = (uint8_t)pci_function_get(lpc->function, ACPI_CNTL, 1);
    if (pm != lpc->told_pm || acpi != lpc->told_acpi) {
        lpc->told_pm = pm;
        lpc->told_acpi = acpi;
        if (config->pm_changed)
            config->pm_changed(config->opaque, pm & PMBASE_BITS, acpi & ACPI_ENABLE,
                               sci_number(acpi));
    }
    for (unsigned i = 0; i < ICH9_LPC_PIRQ_COUNT; i++) {
        uint8_t route = (uint8_t)pci_function_get(lpc->function, pirq_offset(i), 1);
        if (route == lpc->told_pirqs[i])
            continue;
        lpc->told_pirqs[i] = route;
        if (config->pirq_changed)
            config->pirq_changed(config->opaque, i, route & PIRQ_DISABLED ? 0 : route & 0xf);
    }
}

static void lpc_written(void *opaque, unsigned offset, unsigned size_bytes)
{
    tell(opaque);
}

static void registers_init(struct ich9_lpc *lpc)
{
    const struct ich9_lpc_config *config = &lpc->config;
    struct pci_function *f = lpc->function;
    pci_function_init(f, PMBASE, config->pm_base | PMBASE_IO, 4);
    pci_function_writable(f, PMBASE, PMBASE_BITS, 4);
    pci_function_init(f, ACPI_CNTL,
                      sci_field(config->sci) | (config->acpi_enabled ? ACPI_ENABLE : 0U), 1);
    pci_function_writable(f, ACPI_CNTL, ACPI_ENABLE | ACPI_SCI, 1);
    for (unsigned i = 0; i < ICH9_LPC_PIRQ_COUNT; i++) {
        pci_function_init(f, pirq_offset(i), PIRQ_DISABLED, 1);
        pci_function_writable(f, pirq_offset(i), PIRQ_BITS, 1);
    }
    pci_function_init(f, SERIRQ_CNTL, 0x10, 1);
    pci_function_writable(f, SERIRQ_CNTL, 0xff, 1);
    pci_function_writable(f, LPC_IO_DECODE, 0x1377, 2);
    pci_function_writable(f, LPC_ENABLE, 0x3f0f, 2);
    for (unsigned i = 0; i < 4; i++)
        pci_function_writable(f, LPC_GENERIC_DECODE + 4 * i, UINT32_C(0x00fcfffd), 4);
    pci_function_writable(f, GEN_PMCON_1, 0xffff, 2);
    pci_function_writable(f, GEN_PMCON_3, 0xff, 1);
    pci_function_init(f, RCBA, config->rcba | (config->rcba ? RCBA_ENABLE : 0U), 4);
    pci_function_writable(f, RCBA, RCBA_BITS | RCBA_ENABLE, 4);
}

/* The board knows the state after reset from its own config, so nothing is told at creation. */
static void remember(struct ich9_lpc *lpc)
{
    lpc->told_pm = pci_function_get(lpc->function, PMBASE, 4);
    lpc->told_acpi = (uint8_t)pci_function_get(lpc->function, ACPI_CNTL, 1);
    memset(lpc->told_pirqs, PIRQ_DISABLED, sizeof(lpc->told_pirqs));
}

struct ich9_lpc *ich9_lpc_create(const struct ich9_lpc_config *config, struct error *err)
{
    assert((config->pm_base & ~PMBASE_BITS) == 0 && (config->rcba & ~RCBA_BITS) == 0);
    struct ich9_lpc *lpc = calloc(1, sizeof(*lpc));
    if (!lpc) {
        error_set(err, "cannot create the LPC bridge", NULL, "out of memory");
        return NULL;
    }
    lpc->config = *config;
    struct pci_function_config function = {.name = "ICH9 LPC",
                                           .slot = config->slot,
                                           .function = config->function,
                                           .vendor = VENDOR,
                                           .device = DEVICE,
                                           .class_code = 0x060100,
                                           .revision = REVISION,
                                           .written = lpc_written,
                                           .opaque = lpc};
    lpc->function = pci_function_create(config->pci, &function, err);
    if (!lpc->function) {
        free(lpc);
        return NULL;
    }
    registers_init(lpc);
    remember(lpc);
    return lpc;
}

static void lpc_destroy(void *opaque)
{
    struct ich9_lpc *lpc = opaque;
    pci_function_destroy(lpc->function);
    free(lpc);
}

static void lpc_reset(void *opaque)
{
    struct ich9_lpc *lpc = opaque;
    pci_function_reset(lpc->function);
    tell(lpc);
}

static void lpc_save(void *opaque, struct save *save)
{
    struct ich9_lpc *lpc = opaque;
    pci_function_save(lpc->function, save);
}

static bool lpc_load(void *opaque, struct load *load, uint32_t version)
{
    struct ich9_lpc *lpc = opaque;
    if (version != ich9_lpc_ops.version)
        load_fail(load);
    if (load->failed || !pci_function_load(lpc->function, load)) {
        lpc_reset(lpc);
        return false;
    }
    tell(lpc);
    return true;
}

const struct device_ops ich9_lpc_ops = {
    .name = "ich9-lpc",
    .version = 1,
    .reset = lpc_reset,
    .save = lpc_save,
    .load = lpc_load,
    .destroy = lpc_destroy,
};
