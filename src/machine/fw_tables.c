/* SPDX-License-Identifier: BSD-2-Clause
 *
 * QEMU's table loader (its hw/acpi/bios-linker-loader has the form of the script; SeaBIOS and OVMF
 * follow it): files etc/acpi/tables and etc/acpi/rsdp, in which addresses are offsets into the
 * first, and etc/table-loader, a list of commands of 128 bytes: allocate a file, add a file's
 * address to a field, compute a checksum.
 */
#include "machine/fw_tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { COMMAND_BYTES = 128, FILE_BYTES = 56 };
enum { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_BELOW_1M = 2, TABLES_ALIGN = 64, RSDP_ALIGN = 16 };
/* Of the RSDP (ACPI 6.4, 5.2.5.3). */
enum { RSDT_AT = 16, XSDT_AT = 24, V1_BYTES = 20, V1_CHECKSUM_AT = 8, V2_CHECKSUM_AT = 32 };

/* Any address will do, and is taken off again. */
static const uint64_t made_gpa = 0xe0000;

static const char tables_file[] = "etc/acpi/tables", rsdp_file[] = "etc/acpi/rsdp";

struct fw_tables {
    fw_tables_make_fn *make;
    void *opaque;
    struct bytes acpi; /* RSDP, and from ACPI_TABLES_AT on the rest; addresses are offsets */
    struct acpi_links links;
};

/* ---- addresses become offsets ---- */

static void rebase(uint8_t *at, unsigned size_bytes)
{
    uint64_t base = made_gpa + ACPI_TABLES_AT;
    if (size_bytes == 4)
        le32_put(at, le32_get(at) - (uint32_t)base);
    else
        le64_put(at, le64_get(at) - base);
}

static void make_relative(struct bytes *acpi, const struct acpi_links *links)
{
    for (unsigned i = 0; i < links->pointer_count; i++)
        rebase(acpi->data + links->pointer[i].at, links->pointer[i].size_bytes);
    for (unsigned i = 0; i < links->table_count; i++)
        acpi->data[links->table[i].start + ACPI_CHECKSUM_AT] = 0;
    rebase(acpi->data + RSDT_AT, 4);
    rebase(acpi->data + XSDT_AT, 8);
    acpi->data[V1_CHECKSUM_AT] = acpi->data[V2_CHECKSUM_AT] = 0;
}

static bool make(struct fw_tables *tables, struct error *err)
{
    struct bytes acpi = {0};
    if (!tables->make(tables->opaque, made_gpa, &acpi, &tables->links, err)) {
        bytes_free(&acpi);
        return false;
    }
    make_relative(&acpi, &tables->links);
    bytes_free(&tables->acpi);
    tables->acpi = acpi;
    return true;
}

/* ---- files ---- */

static bool read_tables(void *opaque, uint64_t offset, void *buffer, size_t size_bytes)
{
    struct fw_tables *tables = opaque;
    size_t had_bytes = tables->acpi.size_bytes;
    if (offset == 0 && (!make(tables, NULL) || tables->acpi.size_bytes != had_bytes))
        return false;
    memcpy(buffer, tables->acpi.data + ACPI_TABLES_AT + offset, size_bytes);
    return true;
}

static void put_file_name(struct bytes *script, const char *name)
{
    bytes_text(script, name, FILE_BYTES, '\0');
}

static void end_command(struct bytes *script, size_t start)
{
    bytes_zero(script, COMMAND_BYTES - (script->size_bytes - start));
}

static void put_allocate(struct bytes *script, const char *file, uint32_t align, uint8_t zone)
{
    size_t start = script->size_bytes;
    bytes_u32(script, ALLOCATE);
    put_file_name(script, file);
    bytes_u32(script, align);
    bytes_u8(script, zone);
    end_command(script, start);
}

static void put_pointer(struct bytes *script, const char *file, uint32_t at, uint8_t size_bytes)
{
    size_t start = script->size_bytes;
    bytes_u32(script, ADD_POINTER);
    put_file_name(script, file);
    put_file_name(script, tables_file);
    bytes_u32(script, at);
    bytes_u8(script, size_bytes);
    end_command(script, start);
}

static void put_checksum(struct bytes *script, const char *file, uint32_t at, uint32_t from,
                         uint32_t size_bytes)
{
    size_t start = script->size_bytes;
    bytes_u32(script, ADD_CHECKSUM);
    put_file_name(script, file);
    bytes_u32(script, at);
    bytes_u32(script, from);
    bytes_u32(script, size_bytes);
    end_command(script, start);
}

static void put_script(const struct acpi_links *links, struct bytes *script)
{
    put_allocate(script, rsdp_file, RSDP_ALIGN, ZONE_BELOW_1M);
    put_allocate(script, tables_file, TABLES_ALIGN, ZONE_HIGH);
    for (unsigned i = 0; i < links->pointer_count; i++)
        put_pointer(script, tables_file, links->pointer[i].at - ACPI_TABLES_AT,
                    links->pointer[i].size_bytes);
    for (unsigned i = 0; i < links->table_count; i++) {
        uint32_t from = links->table[i].start - ACPI_TABLES_AT;
        put_checksum(script, tables_file, from + ACPI_CHECKSUM_AT, from,
                     links->table[i].size_bytes);
    }
    put_pointer(script, rsdp_file, RSDT_AT, 4);
    put_pointer(script, rsdp_file, XSDT_AT, 8);
    put_checksum(script, rsdp_file, V1_CHECKSUM_AT, 0, V1_BYTES);
    put_checksum(script, rsdp_file, V2_CHECKSUM_AT, 0, ACPI_RSDP_BYTES);
}

static bool put_acpi(struct fw_tables *tables, struct fw_cfg *fw)
{
    struct bytes script = {0};
    put_script(&tables->links, &script);
    bool ok = !script.failed &&
              fw_cfg_put_file(fw, "etc/table-loader", script.data, script.size_bytes) &&
              fw_cfg_put_file(fw, rsdp_file, tables->acpi.data, ACPI_RSDP_BYTES) &&
              fw_cfg_put_file_source(fw, tables_file,
                                     (uint32_t)(tables->acpi.size_bytes - ACPI_TABLES_AT),
                                     read_tables, tables);
    bytes_free(&script);
    return ok;
}

struct fw_tables *fw_tables_put(struct fw_cfg *fw, fw_tables_make_fn *make_fn, void *opaque,
                                const struct bytes *smbios, size_t anchor_bytes,
                                size_t structures_at, struct error *err)
{
    struct fw_tables *tables = calloc(1, sizeof(*tables));
    if (!tables) {
        error_errno(err, "cannot make the machine", "fw_cfg", ENOMEM);
        return NULL;
    }
    tables->make = make_fn;
    tables->opaque = opaque;
    if (!make(tables, err)) {
        fw_tables_free(tables);
        return NULL;
    }
    bool ok = put_acpi(tables, fw) &&
              fw_cfg_put_file(fw, "etc/smbios/smbios-anchor", smbios->data, anchor_bytes) &&
              fw_cfg_put_file(fw, "etc/smbios/smbios-tables", smbios->data + structures_at,
                              smbios->size_bytes - structures_at);
    if (!ok) {
        error_errno(err, "cannot make the machine", "fw_cfg", ENOMEM);
        fw_tables_free(tables);
        return NULL;
    }
    return tables;
}

void fw_tables_free(struct fw_tables *tables)
{
    if (!tables)
        return;
    bytes_free(&tables->acpi);
    free(tables);
}
