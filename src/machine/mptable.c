/* SPDX-License-Identifier: BSD-2-Clause
 * The MP floating pointer and configuration table (MultiProcessor Specification 1.4, chapter 4). */
#include "machine/mptable.h"

#include <errno.h>

enum {
    POINTER_BYTES = 16,
    REVISION = 4, /* 1.4 */
    CHECKSUM_AT = 7,
    LENGTH_AT = 4,
    COUNT_AT = 34,
    POINTER_CHECKSUM_AT = 10,
};

enum { PROCESSOR, BUS, IOAPIC, IO_INTERRUPT, LOCAL_INTERRUPT };
enum { PROCESSOR_ENABLED = 1, PROCESSOR_IS_BSP = 2, IOAPIC_ENABLED = 1 };
enum { PCI_BUS = 0, ISA_BUS = 1, ISA_IRQS = 16, ISA_CASCADE = 2 };
enum { KIND_INT = 0, KIND_NMI = 1, KIND_EXTINT = 3, ALL_LAPICS = 0xff };

/* 4.3.4, of an interrupt: polarity and trigger mode. */
enum { AS_THE_BUS = 0, LEVEL_HIGH = 0xd, LEVEL_LOW = 0xf };

static void put_processors(const struct mptable_config *config, struct bytes *out)
{
    for (unsigned i = 0; i < config->vcpu_count; i++) {
        bytes_u8(out, PROCESSOR);
        bytes_u8(out, config->apic_ids[i]);
        bytes_u8(out, config->lapic_version);
        bytes_u8(out, PROCESSOR_ENABLED | (i ? 0 : PROCESSOR_IS_BSP));
        bytes_u32(out, config->cpu_signature);
        bytes_u32(out, config->cpu_features);
        bytes_zero(out, 8);
    }
}

static void put_bus(struct bytes *out, uint8_t id, const char *type)
{
    bytes_u8(out, BUS);
    bytes_u8(out, id);
    bytes_text(out, type, 6, ' ');
}

/* 4.3.4 and 4.3.5 differ in what the last two are: an I/O APIC and its pin, or a local one and its.
 */
static void put_interrupt(struct bytes *out, uint8_t type, uint8_t kind, uint16_t flags,
                          uint8_t bus, uint8_t irq, uint8_t apic, uint8_t pin)
{
    bytes_u8(out, type);
    bytes_u8(out, kind);
    bytes_u16(out, flags);
    bytes_u8(out, bus);
    bytes_u8(out, irq);
    bytes_u8(out, apic);
    bytes_u8(out, pin);
}

static void put_interrupts(const struct mptable_config *config, struct bytes *out)
{
    for (uint8_t irq = 0; irq < ISA_IRQS; irq++)
        if (irq != ISA_CASCADE)
            put_interrupt(out, IO_INTERRUPT, KIND_INT,
                          irq == config->sci_irq ? LEVEL_HIGH : AS_THE_BUS, ISA_BUS, irq,
                          config->ioapic_id, irq ? irq : config->pit_pin);
    for (unsigned slot = 0; slot < MPTABLE_PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < MPTABLE_PCI_PINS; pin++)
            put_interrupt(out, IO_INTERRUPT, KIND_INT, LEVEL_LOW, PCI_BUS,
                          (uint8_t)(slot << 2 | pin), config->ioapic_id,
                          config->pci_pin[slot][pin]);
    /* The 8259 comes through LINT0 ("virtual wire", 3.6.2.2). */
    put_interrupt(out, LOCAL_INTERRUPT, KIND_EXTINT, AS_THE_BUS, ISA_BUS, 0, ALL_LAPICS, 0);
    put_interrupt(out, LOCAL_INTERRUPT, KIND_NMI, AS_THE_BUS, ISA_BUS, 0, ALL_LAPICS, 1);
}

/* 4.1; no feature byte is set: there is a table, and no IMCR. */
static void put_pointer(struct bytes *out, uint64_t gpa)
{
    bytes_text(out, "_MP_", 4, ' ');
    bytes_u32(out, (uint32_t)gpa + POINTER_BYTES);
    bytes_u8(out, POINTER_BYTES / 16);
    bytes_u8(out, REVISION);
    bytes_zero(out, POINTER_BYTES - POINTER_CHECKSUM_AT);
}

/* 4.2; length, checksum and number of entries come later. */
static void put_header(const struct mptable_config *config, struct bytes *out)
{
    bytes_text(out, "PCMP", 4, ' ');
    bytes_u16(out, 0);
    bytes_u8(out, REVISION);
    bytes_u8(out, 0);
    bytes_text(out, "SKEP", 8, ' ');
    bytes_text(out, "Q35", 12, ' ');
    bytes_zero(out, 8);
    bytes_u32(out, config->lapic_base);
    bytes_u32(out, 0); /* nothing is extended */
}

static void put_ioapic(const struct mptable_config *config, struct bytes *out)
{
    bytes_u8(out, IOAPIC);
    bytes_u8(out, config->ioapic_id);
    bytes_u8(out, config->ioapic_version);
    bytes_u8(out, IOAPIC_ENABLED);
    bytes_u32(out, config->ioapic_base);
}

bool mptable_build(const struct mptable_config *config, uint64_t gpa, size_t limit_bytes,
                   struct bytes *out, struct error *err)
{
    enum { OTHERS = 2 + 1 + 2 }; /* buses, I/O APIC, local interrupts */
    static const unsigned interrupts = ISA_IRQS - 1 + MPTABLE_PCI_SLOTS * MPTABLE_PCI_PINS;
    put_pointer(out, gpa);
    put_header(config, out);
    put_processors(config, out);
    put_bus(out, PCI_BUS, "PCI");
    put_bus(out, ISA_BUS, "ISA");
    put_ioapic(config, out);
    put_interrupts(config, out);
    if (out->failed)
        return error_errno(err, "cannot make the MP table", NULL, ENOMEM);
    if (out->size_bytes > limit_bytes)
        return error_set(err, "cannot make the MP table", NULL, "it has %zu bytes, of %zu",
                         out->size_bytes, limit_bytes);
    uint8_t *table = out->data + POINTER_BYTES;
    size_t table_bytes = out->size_bytes - POINTER_BYTES;
    le16_put(table + LENGTH_AT, (uint16_t)table_bytes);
    le16_put(table + COUNT_AT, (uint16_t)(config->vcpu_count + OTHERS + interrupts));
    table[CHECKSUM_AT] = bytes_checksum(table, table_bytes);
    out->data[POINTER_CHECKSUM_AT] = bytes_checksum(out->data, POINTER_BYTES);
    return true;
}
