/* SPDX-License-Identifier: BSD-2-Clause
 *
 * ACPI tables: RSDP, RSDT, XSDT, FADT, FACS, MADT, HPET and MCFG (ACPI 6.4, 5.2; IA-PC
 * HPET 1.0a, 3.2.4; PCI Firmware 3.2, 4.1.2). The RSDT is for systems that know only ACPI 1.0. Runs
 * on the machine's thread.
 */
#include "machine/acpi.h"

#include <assert.h>
#include <string.h>

enum { LENGTH_AT = 4, CHECKSUM_AT = ACPI_CHECKSUM_AT, RSDP_BYTES = ACPI_RSDP_BYTES };
enum { TABLES_MAX = 8 };

struct tables {
    const struct acpi_config *config;
    struct bytes *out;
    uint64_t gpa;
    uint64_t listed[TABLES_MAX]; /* in the XSDT */
    unsigned listed_count;
    uint64_t facs_gpa, dsdt_gpa;
    struct acpi_links links;
};

static void put_pointer(struct tables *tables, uint64_t gpa, unsigned size_bytes)
{
    struct acpi_links *links = &tables->links;
    assert(links->pointer_count < ACPI_MAX_POINTERS);
    links->pointer[links->pointer_count].at = (uint32_t)tables->out->size_bytes;
    links->pointer[links->pointer_count++].size_bytes = (uint8_t)size_bytes;
    if (size_bytes == 4)
        bytes_u32(tables->out, (uint32_t)gpa);
    else
        bytes_u64(tables->out, gpa);
}

static size_t table_begin(struct tables *tables, const char *signature, uint8_t revision)
{
    struct bytes *out = tables->out;
    bytes_align(out, 16);
    size_t start = out->size_bytes;
    bytes_text(out, signature, 4, ' ');
    bytes_u32(out, 0); /* length and checksum come with table_end() */
    bytes_u8(out, revision);
    bytes_u8(out, 0);
    bytes_text(out, "SKEP", 6, ' ');
    bytes_text(out, "SKEPQ35", 8, ' ');
    bytes_u32(out, 1);
    bytes_text(out, "SKEP", 4, ' ');
    bytes_u32(out, 1);
    return start;
}

static uint64_t table_end(struct tables *tables, size_t start)
{
    struct bytes *out = tables->out;
    if (out->failed)
        return 0;
    size_t length = out->size_bytes - start;
    bytes_set_u32(out, start + LENGTH_AT, (uint32_t)length);
    bytes_set_u8(out, start + CHECKSUM_AT, bytes_checksum(out->data + start, length));
    assert(tables->links.table_count < ACPI_MAX_TABLES);
    tables->links.table[tables->links.table_count].start = (uint32_t)start;
    tables->links.table[tables->links.table_count++].size_bytes = (uint32_t)length;
    return tables->gpa + start;
}

static void list(struct tables *tables, size_t start)
{
    assert(tables->listed_count < TABLES_MAX);
    tables->listed[tables->listed_count++] = table_end(tables, start);
}

/* The Firmware ACPI Control Structure has no common header and no checksum. */
static void put_facs(struct tables *tables)
{
    struct bytes *out = tables->out;
    bytes_align(out, 64);
    tables->facs_gpa = tables->gpa + out->size_bytes;
    bytes_text(out, "FACS", 4, ' ');
    bytes_u32(out, 64);
    bytes_zero(out, 24);
    bytes_u8(out, 2); /* version */
    bytes_zero(out, 31);
}

static void put_dsdt(struct tables *tables)
{
    size_t start = table_begin(tables, "DSDT", 2);
    acpi_dsdt(tables->config, tables->out);
    tables->dsdt_gpa = table_end(tables, start);
}

/* Generic Address Structure (5.2.3.2) of a port. */
static void put_port(struct bytes *out, uint16_t port, unsigned size_bytes)
{
    enum { SPACE_IO = 1, ACCESS_BYTE = 1, ACCESS_WORD = 2, ACCESS_DWORD = 3 };
    unsigned access = size_bytes == 1 ? ACCESS_BYTE : size_bytes == 2 ? ACCESS_WORD : ACCESS_DWORD;
    bytes_u8(out, port ? SPACE_IO : 0);
    bytes_u8(out, (uint8_t)(port ? size_bytes * 8 : 0));
    bytes_u8(out, 0);
    bytes_u8(out, (uint8_t)(port ? access : 0));
    bytes_u64(out, port);
}

enum {
    FADT_WBINVD = 1 << 0,
    FADT_PROC_C1 = 1 << 2,
    FADT_NO_SLEEP_BUTTON = 1 << 5,
    FADT_TIMER_32 = 1 << 8,
    FADT_RESET_REGISTER = 1 << 10,
    BOOT_LEGACY_DEVICES = 1 << 0,
    BOOT_8042 = 1 << 1,
    BOOT_NO_VGA = 1 << 2,
    BOOT_NO_ASPM = 1 << 4,
};

static void put_fadt_ports(const struct acpi_pm_ports *pm, struct bytes *out)
{
    bytes_u32(out, pm->event);
    bytes_u32(out, 0);
    bytes_u32(out, pm->control);
    bytes_u32(out, 0);
    bytes_u32(out, 0); /* PM2 control */
    bytes_u32(out, pm->timer);
    bytes_u32(out, pm->gpe_size_bytes ? pm->gpe : 0);
    bytes_u32(out, 0);
    bytes_u8(out, 4);
    bytes_u8(out, 2);
    bytes_u8(out, 0);
    bytes_u8(out, 4);
    bytes_u8(out, pm->gpe_size_bytes);
    bytes_zero(out, 3); /* GPE1 length and base, C-state control */
}

static void put_fadt_extended_ports(const struct acpi_pm_ports *pm, struct bytes *out)
{
    uint16_t gpe = pm->gpe_size_bytes ? pm->gpe : 0;
    put_port(out, pm->event, 4);
    put_port(out, 0, 4);
    put_port(out, pm->control, 2);
    put_port(out, 0, 2);
    put_port(out, 0, 1);
    put_port(out, pm->timer, 4);
    put_port(out, gpe, pm->gpe_size_bytes);
    if (gpe && !out->failed)
        bytes_set_u8(out, out->size_bytes - 9, 1); /* GPE registers are read by bytes */
    put_port(out, 0, 1);
    put_port(out, 0, 1); /* sleep control, sleep status: hardware-reduced only */
    put_port(out, 0, 1);
}

/* 5.2.9. SMI_CMD is 0: the machine is always in ACPI mode. */
static void put_fadt(struct tables *tables)
{
    const struct acpi_config *config = tables->config;
    struct bytes *out = tables->out;
    size_t start = table_begin(tables, "FACP", 6);
    put_pointer(tables, tables->facs_gpa, 4);
    put_pointer(tables, tables->dsdt_gpa, 4);
    bytes_u8(out, 0);
    bytes_u8(out, 0); /* profile: unspecified */
    bytes_u16(out, config->pm.sci_irq);
    bytes_u32(out, 0);  /* SMI_CMD */
    bytes_zero(out, 4); /* ACPI_ENABLE … PSTATE_CNT */
    put_fadt_ports(&config->pm, out);
    bytes_u16(out, 0xfff); /* no C2 */
    bytes_u16(out, 0xfff); /* no C3 */
    bytes_zero(out, 8);    /* flush size and stride, duty, alarms */
    bytes_u8(out, config->rtc_century);
    bytes_u16(out, BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_VGA | BOOT_NO_ASPM);
    bytes_u8(out, 0);
    bytes_u32(out, FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON |
                       (config->pm.timer_is_32_bits ? FADT_TIMER_32 : 0) | FADT_RESET_REGISTER);
    put_port(out, config->reset_port, 1);
    bytes_u8(out, config->reset_value);
    bytes_u16(out, 0); /* ARM */
    bytes_u8(out, 3);  /* minor version */
    /* Where both are given, the 64-bit FACS address must be 0 (5.2.9); the DSDT's is equal. */
    bytes_u64(out, 0);
    put_pointer(tables, tables->dsdt_gpa, 8);
    put_fadt_extended_ports(&config->pm, out);
    bytes_u64(out, 0); /* hypervisor identity */
    assert(out->failed || out->size_bytes - start == 276);
    list(tables, start);
}

enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_LAPIC_NMI = 4 };
enum { MPS_EDGE_HIGH = 0x5, MPS_LEVEL_HIGH = 0xd };

static void put_override(struct bytes *out, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    bytes_u8(out, MADT_OVERRIDE);
    bytes_u8(out, 10);
    bytes_u8(out, 0); /* ISA */
    bytes_u8(out, irq);
    bytes_u32(out, gsi);
    bytes_u16(out, flags);
}

static void put_madt(struct tables *tables)
{
    enum { PCAT_COMPAT = 1, ENABLED = 1, ALL_PROCESSORS = 0xff };
    const struct acpi_config *config = tables->config;
    struct bytes *out = tables->out;
    size_t start = table_begin(tables, "APIC", 5);
    bytes_u32(out, config->lapic_base);
    bytes_u32(out, PCAT_COMPAT);
    for (unsigned i = 0; i < config->vcpu_count; i++) {
        bytes_u8(out, MADT_LAPIC);
        bytes_u8(out, 8);
        bytes_u8(out, (uint8_t)i); /* _UID of the processor's device */
        bytes_u8(out, config->apic_ids ? config->apic_ids[i] : (uint8_t)i);
        bytes_u32(out, ENABLED);
    }
    bytes_u8(out, MADT_IOAPIC);
    bytes_u8(out, 12);
    bytes_u8(out, config->ioapic_id);
    bytes_u8(out, 0);
    bytes_u32(out, config->ioapic_base);
    bytes_u32(out, 0); /* first GSI */
    if (config->pit_on_gsi2)
        put_override(out, 0, 2, 0);
    put_override(out, config->pm.sci_irq, config->pm.sci_irq, MPS_LEVEL_HIGH);
    bytes_u8(out, MADT_LAPIC_NMI);
    bytes_u8(out, 6);
    bytes_u8(out, ALL_PROCESSORS);
    bytes_u16(out, 0);
    bytes_u8(out, 1); /* LINT1 */
    list(tables, start);
}

static void put_hpet(struct tables *tables)
{
    struct bytes *out = tables->out;
    size_t start = table_begin(tables, "HPET", 1);
    bytes_u32(out, tables->config->hpet_block_id);
    bytes_u8(out, 0); /* system memory */
    bytes_u8(out, 64);
    bytes_u16(out, 0);
    bytes_u64(out, tables->config->hpet_base);
    bytes_u8(out, 0);
    bytes_u16(out, 0x80); /* shortest period that loses no tick; any will do */
    bytes_u8(out, 0);
    list(tables, start);
}

static void put_mcfg(struct tables *tables)
{
    struct bytes *out = tables->out;
    size_t start = table_begin(tables, "MCFG", 1);
    bytes_zero(out, 8);
    bytes_u64(out, tables->config->ecam_base);
    bytes_u16(out, 0);
    bytes_u8(out, 0);
    bytes_u8(out, (uint8_t)(tables->config->ecam_bus_count - 1));
    bytes_u32(out, 0);
    list(tables, start);
}

/* TCG ACPI Specification 1.3, 8.3. There is no log area: what firmware measures it keeps itself. */
static void put_tpm2(struct tables *tables)
{
    enum { CLIENT = 0, START_FIFO = 6, START_CRB = 7 };
    struct bytes *out = tables->out;
    size_t start = table_begin(tables, "TPM2", 4);
    bytes_u16(out, CLIENT);
    bytes_u16(out, 0);
    bytes_u64(out, tables->config->tpm_control);
    bytes_u32(out, tables->config->tpm_control ? START_CRB : START_FIFO);
    bytes_zero(out, 12); /* parameters of the start method */
    list(tables, start);
}

static uint64_t put_xsdt(struct tables *tables)
{
    size_t start = table_begin(tables, "XSDT", 1);
    for (unsigned i = 0; i < tables->listed_count; i++)
        put_pointer(tables, tables->listed[i], 8);
    return table_end(tables, start);
}

static uint64_t put_rsdt(struct tables *tables)
{
    size_t start = table_begin(tables, "RSDT", 1);
    for (unsigned i = 0; i < tables->listed_count; i++)
        put_pointer(tables, tables->listed[i], 4);
    return table_end(tables, start);
}

/* 5.2.5.3; the place was kept at the start. */
static void set_rsdp(struct tables *tables, uint64_t rsdt_gpa, uint64_t xsdt_gpa)
{
    enum { V1_BYTES = 20, V1_CHECKSUM_AT = 8, V2_CHECKSUM_AT = 32 };
    if (tables->out->failed)
        return;
    uint8_t *rsdp = tables->out->data;
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "SKEP  ", 6);
    rsdp[15] = 2;
    le32_put(rsdp + 16, (uint32_t)rsdt_gpa);
    le32_put(rsdp + 20, RSDP_BYTES);
    le64_put(rsdp + 24, xsdt_gpa);
    rsdp[V1_CHECKSUM_AT] = bytes_checksum(rsdp, V1_BYTES);
    rsdp[V2_CHECKSUM_AT] = bytes_checksum(rsdp, RSDP_BYTES);
}

bool acpi_build(const struct acpi_config *config, uint64_t gpa, size_t limit_bytes,
                struct bytes *out, struct acpi_links *links, struct error *err)
{
    assert(gpa % 64 == 0 && gpa + limit_bytes <= UINT32_MAX && !out->size_bytes);
    assert(config->vcpu_count >= 1 && config->vcpu_count <= 255);
    assert(config->ecam_bus_count >= 1 && config->ecam_bus_count <= 256);
    assert(config->uart_count <= ACPI_MAX_UARTS);
    struct tables tables = {.config = config, .out = out, .gpa = gpa};
    bytes_zero(out, ACPI_TABLES_AT);
    put_facs(&tables);
    put_dsdt(&tables);
    put_fadt(&tables);
    put_madt(&tables);
    if (config->hpet_base)
        put_hpet(&tables);
    put_mcfg(&tables);
    if (config->tpm_base)
        put_tpm2(&tables);
    uint64_t rsdt_gpa = put_rsdt(&tables);
    set_rsdp(&tables, rsdt_gpa, put_xsdt(&tables));
    if (links)
        *links = tables.links;
    if (out->failed)
        return error_set(err, "cannot compose ACPI tables", NULL, "out of memory");
    if (out->size_bytes > limit_bytes)
        return error_set(err, "cannot compose ACPI tables", NULL,
                         "they take %zu bytes, the board has room for %zu", out->size_bytes,
                         limit_bytes);
    return true;
}
