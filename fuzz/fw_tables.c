/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: ACPI and SMBIOS tables for boards of any shape. Whatever the board, the tables must
 * be walkable from their entry point, each inside the blob and with a right sum, or be refused.
 */
#include "machine/acpi.h"
#include "machine/smbios.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TABLES_GPA UINT64_C(0xe0000)

static void take(void *target, size_t size_bytes, const uint8_t **data, size_t *left)
{
    size_t got = size_bytes < *left ? size_bytes : *left;
    memcpy(target, *data, got);
    *data += got;
    *left -= got;
}

/* Within what acpi_build() is promised. */
static void bound(struct acpi_config *config)
{
    config->vcpu_count = config->vcpu_count % 255 + 1;
    config->ecam_bus_count = config->ecam_bus_count % 256 + 1;
    config->uart_count %= ACPI_MAX_UARTS + 1;
    config->pit_on_gsi2 = config->vcpu_count & 1;
    config->pm.timer_is_32_bits = config->vcpu_count & 2;
    config->rtc_irq &= 15;
    config->keyboard_irq &= 15;
    config->mouse_irq &= 15;
    config->parallel_irq &= 15;
    config->floppy_irq &= 15;
    config->floppy_dma &= 7;
    for (unsigned i = 0; i < ACPI_MAX_UARTS; i++)
        config->uart[i].irq &= 15;
}

static const uint8_t *table_at(const struct bytes *out, uint64_t gpa)
{
    assert(gpa >= TABLES_GPA && gpa - TABLES_GPA <= out->size_bytes);
    size_t left = out->size_bytes - (size_t)(gpa - TABLES_GPA);
    const uint8_t *table = out->data + (gpa - TABLES_GPA);
    assert(left >= 36);
    uint32_t length = le32_get(table + 4);
    assert(length >= 36 && length <= left);
    assert(!bytes_checksum(table, length));
    return table;
}

static void check_acpi(const struct bytes *out)
{
    assert(!memcmp(out->data, "RSD PTR ", 8));
    assert(!bytes_checksum(out->data, 20) && !bytes_checksum(out->data, 36));
    const uint8_t *xsdt = table_at(out, le64_get(out->data + 24));
    for (uint32_t at = 36; at + 8 <= le32_get(xsdt + 4); at += 8) {
        const uint8_t *table = table_at(out, le64_get(xsdt + at));
        if (!memcmp(table, "FACP", 4))
            assert(!memcmp(table_at(out, le64_get(table + 140)), "DSDT", 4));
    }
}

/* Where a loader would write, inside the blob. */
static void check_links(const struct bytes *out, const struct acpi_links *links)
{
    assert(links->pointer_count <= ACPI_MAX_POINTERS && links->table_count <= ACPI_MAX_TABLES);
    for (unsigned i = 0; i < links->pointer_count; i++)
        assert((uint64_t)links->pointer[i].at + links->pointer[i].size_bytes <= out->size_bytes);
    for (unsigned i = 0; i < links->table_count; i++)
        assert((uint64_t)links->table[i].start + links->table[i].size_bytes <= out->size_bytes);
}

static void check_smbios(const struct bytes *out, uint64_t gpa)
{
    uint64_t at = le64_get(out->data + 16) - gpa;
    uint8_t type;
    do {
        assert(at + 4 <= out->size_bytes);
        type = out->data[at];
        at += out->data[at + 1];
        assert(at + 2 <= out->size_bytes);
        while (out->data[at] || out->data[at + 1])
            assert(++at + 2 <= out->size_bytes);
        at += 2;
    } while (type != 127);
    assert(at == out->size_bytes && !bytes_checksum(out->data, 24));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct acpi_config acpi = {0};
    struct smbios_config smbios = {.version = "0"};
    uint8_t shape[3] = {0};
    uint16_t limits[2] = {0xffff, 0xffff};
    take(shape, sizeof(shape), &data, &size);
    take(limits, sizeof(limits), &data, &size);
    take(&smbios.uuid, sizeof(smbios.uuid), &data, &size);
    take(&smbios.memory_low_bytes, 8, &data, &size);
    take(&smbios.memory_high_bytes, 8, &data, &size);
    /* bools come from bound(): any byte in them would be undefined */
    take(&acpi.vcpu_count, 4, &data, &size);
    take(&acpi.lapic_base, 8, &data, &size);
    take(&acpi.ecam_base, 8, &data, &size);
    take(&acpi.hpet_base, 4, &data, &size);
    take(&acpi.mmio32_first, 8, &data, &size);
    take(&acpi.mmio64_first, 16, &data, &size);
    take(acpi.pci_gsi, sizeof(acpi.pci_gsi), &data, &size);
    take(&acpi.pm, sizeof(acpi.pm), &data, &size);
    take(&acpi.reset_port, sizeof(acpi) - offsetof(struct acpi_config, reset_port), &data, &size);
    memset(&acpi.pm.timer_is_32_bits, 0, sizeof(acpi.pm.timer_is_32_bits));
    bound(&acpi);

    struct bytes out = {0};
    struct error err = {0};
    struct acpi_links links;
    if (acpi_build(&acpi, TABLES_GPA, limits[0], &out, &links, &err)) {
        check_acpi(&out);
        check_links(&out, &links);
    } else {
        assert(err.cause[0]);
    }
    bytes_free(&out);
    smbios.sockets = shape[0] % 65;
    smbios.cores = shape[1] + 1u;
    smbios.threads = shape[2] + 1u;
    if (smbios_build(&smbios, TABLES_GPA, limits[1], &out, &err))
        check_smbios(&out, TABLES_GPA);
    else
        assert(err.cause[0]);
    bytes_free(&out);
    return 0;
}
