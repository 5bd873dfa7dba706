/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The ACPI tables: found from the RSDP, with right sums and contents, for several board sizes; and
 * taken apart and put together again by iasl, which must find nothing wrong with them.
 */
#include "machine/acpi.h"
#include "machine/aml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TABLES_GPA UINT64_C(0xe0000)
enum { LIMIT_BYTES = 0x10000 };

static struct acpi_config board(unsigned vcpu_count)
{
    struct acpi_config config = {
        .vcpu_count = vcpu_count,
        .lapic_base = 0xfee00000,
        .ioapic_base = 0xfec00000,
        .pit_on_gsi2 = true,
        .hpet_base = 0xfed00000,
        .ecam_base = 0xb0000000,
        .ecam_bus_count = 256,
        .mmio32_first = 0xc0000000,
        .mmio32_last = 0xfebfffff,
        .mmio64_first = UINT64_C(0x4000000000),
        .mmio64_last = UINT64_C(0x7fffffffff),
        .lpc_slot = 31,
        .pm = {.event = 0x600,
               .control = 0x604,
               .timer = 0x608,
               .gpe = 0x620,
               .gpe_size_bytes = 16,
               .timer_is_32_bits = true,
               .sleep_type_s5 = 7,
               .sci_irq = 9,
               .all_base = 0x600,
               .all_size_bytes = 0x80},
        .reset_port = 0xcf9,
        .reset_value = 6,
        .uart = {{0x3f8, 4}, {0x2f8, 3}},
        .uart_count = 2,
        .rtc_port = 0x70,
        .rtc_irq = 8,
        .rtc_century = 0x32,
        .pit_port = 0x40,
        .pic_port = {0x20, 0xa0},
        .elcr_port = 0x4d0,
        .keyboard_port = {0x60, 0x64},
        .dma_port = {0x00, 0x81, 0xc0},
        .tpm_base = 0xfed40000,
        .tpm_size_bytes = 0x5000,
        .tpm_control = 0xfed40040,
        .floppy_port = 0x3f0,
        .fw_cfg_port = 0x510,
        .floppy_irq = 6,
        .floppy_dma = 2,
        .floppy_type = {4, 1},
        .keyboard_irq = 1,
        .mouse_irq = 12,
    };
    for (unsigned slot = 0; slot < ACPI_PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < ACPI_PCI_PINS; pin++)
            config.pci_gsi[slot][pin] = (uint8_t)(16 + (slot + pin) % 8);
    return config;
}

static unsigned sum(const uint8_t *bytes, size_t size_bytes)
{
    unsigned total = 0;
    for (size_t i = 0; i < size_bytes; i++)
        total += bytes[i];
    return total & 0xff;
}

static const uint8_t *at_gpa(const struct bytes *tables, uint64_t gpa, size_t size_bytes)
{
    assert_true(gpa >= TABLES_GPA && gpa - TABLES_GPA + size_bytes <= tables->size_bytes);
    return tables->data + (gpa - TABLES_GPA);
}

/* A table at `gpa`, its length and sum checked. */
static const uint8_t *table_at(const struct bytes *tables, uint64_t gpa)
{
    const uint8_t *table = at_gpa(tables, gpa, 36);
    at_gpa(tables, gpa, le32_get(table + 4));
    assert_int_equal(sum(table, le32_get(table + 4)), 0);
    assert_int_equal(gpa % 16, 0);
    return table;
}

static const uint8_t *find(const struct bytes *tables, const char *signature)
{
    const uint8_t *xsdt = table_at(tables, le64_get(tables->data + 24));
    assert_memory_equal(xsdt, "XSDT", 4);
    unsigned count = (le32_get(xsdt + 4) - 36) / 8;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *table = table_at(tables, le64_get(xsdt + 36 + 8 * i));
        if (!memcmp(table, signature, 4))
            return table;
    }
    return NULL;
}

static const uint8_t *find_dsdt(const struct bytes *tables)
{
    const uint8_t *fadt = find(tables, "FACP");
    assert_non_null(fadt);
    assert_int_equal(le64_get(fadt + 140), le32_get(fadt + 40));
    const uint8_t *dsdt = table_at(tables, le64_get(fadt + 140));
    assert_memory_equal(dsdt, "DSDT", 4);
    return dsdt;
}

static struct bytes build(const struct acpi_config *config)
{
    struct bytes tables = {0};
    struct error err = {0};
    assert_true(acpi_build(config, TABLES_GPA, LIMIT_BYTES, &tables, NULL, &err));
    return tables;
}

static void test_rsdp(void **state)
{
    struct acpi_config config = board(1);
    struct bytes tables = build(&config);
    assert_memory_equal(tables.data, "RSD PTR ", 8);
    assert_int_equal(sum(tables.data, 20), 0);
    assert_int_equal(sum(tables.data, 36), 0);
    assert_int_equal(tables.data[15], 2);
    bytes_free(&tables);
}

static void test_fadt(void **state)
{
    struct acpi_config config = board(1);
    struct bytes tables = build(&config);
    const uint8_t *fadt = find(&tables, "FACP");
    assert_non_null(fadt);
    assert_int_equal(le32_get(fadt + 4), 276);
    assert_int_equal(fadt[8], 6);
    assert_int_equal(le16_get(fadt + 46), 9);
    assert_int_equal(le32_get(fadt + 48), 0);
    assert_int_equal(le32_get(fadt + 56), 0x600);
    assert_int_equal(le32_get(fadt + 64), 0x604);
    assert_int_equal(le32_get(fadt + 76), 0x608);
    assert_int_equal(fadt[88], 4);
    assert_int_equal(fadt[89], 2);
    assert_int_equal(fadt[91], 4);
    assert_int_equal(fadt[108], 0x32);
    uint32_t flags = le32_get(fadt + 112);
    assert_true(flags & 1 << 10);  /* the reset register works */
    assert_false(flags & 1 << 4);  /* the power button is a fixed one */
    assert_false(flags & 1 << 20); /* not hardware-reduced */
    assert_int_equal(fadt[116], 1);
    assert_int_equal(le64_get(fadt + 120), 0xcf9);
    assert_int_equal(fadt[128], 6);
    assert_int_equal(le64_get(fadt + 148 + 4), 0x600);
    assert_int_equal(le64_get(fadt + 172 + 4), 0x604);
    assert_int_equal(le64_get(fadt + 208 + 4), 0x608);
    const uint8_t *facs = at_gpa(&tables, le32_get(fadt + 36), 64);
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal((facs - tables.data) % 64, 0);
    bytes_free(&tables);
}

static void test_madt(void **state)
{
    static const unsigned counts[] = {1, 2, 3, 17, 64, 255};
    for (unsigned c = 0; c < sizeof(counts) / sizeof(*counts); c++) {
        struct acpi_config config = board(counts[c]);
        struct bytes tables = build(&config);
        const uint8_t *madt = find(&tables, "APIC");
        assert_non_null(madt);
        unsigned lapics = 0, ioapics = 0, overrides = 0, nmis = 0;
        size_t length = le32_get(madt + 4), at = 44;
        while (at < length) {
            const uint8_t *entry = madt + at;
            assert_true(at + 2 <= length && entry[1] >= 2 && at + entry[1] <= length);
            if (entry[0] == 0) {
                assert_int_equal(entry[2], lapics);
                assert_int_equal(entry[3], lapics);
                assert_int_equal(le32_get(entry + 4), 1);
                lapics++;
            }
            ioapics += entry[0] == 1 && le32_get(entry + 4) == 0xfec00000;
            nmis += entry[0] == 4 && entry[2] == 0xff && entry[5] == 1;
            if (entry[0] == 2) {
                assert_int_equal(le32_get(entry + 4), entry[3] ? entry[3] : 2);
                overrides++;
            }
            at += entry[1];
        }
        assert_int_equal(lapics, counts[c]);
        assert_int_equal(ioapics, 1);
        assert_int_equal(overrides, 2);
        assert_int_equal(nmis, 1);
        bytes_free(&tables);
    }
}

static void test_mcfg_and_hpet(void **state)
{
    struct acpi_config config = board(1);
    config.ecam_bus_count = 64;
    struct bytes tables = build(&config);
    const uint8_t *mcfg = find(&tables, "MCFG"), *hpet = find(&tables, "HPET");
    assert_non_null(mcfg);
    assert_int_equal(le64_get(mcfg + 44), 0xb0000000);
    assert_int_equal(mcfg[55], 63);
    assert_non_null(hpet);
    assert_int_equal(le64_get(hpet + 44), 0xfed00000);
    assert_int_equal(le32_get(hpet + 4), 56);
    bytes_free(&tables);
    config.hpet_base = 0;
    tables = build(&config);
    assert_null(find(&tables, "HPET"));
    bytes_free(&tables);
}

static void test_limit(void **state)
{
    struct acpi_config config = board(64);
    struct bytes tables = {0};
    struct error err = {0};
    assert_false(acpi_build(&config, TABLES_GPA, 512, &tables, NULL, &err));
    assert_non_null(strstr(err.cause, "512"));
    bytes_free(&tables);
}

static void test_package_lengths(void **state)
{
    static const struct {
        size_t content;
        uint8_t encoded[4];
        unsigned encoded_bytes;
    } cases[] = {
        {62, {63}, 1},
        {63, {0x41, 0x04}, 2},            /* 65 */
        {4093, {0x4f, 0xff}, 2},          /* 4095 */
        {4094, {0x81, 0x00, 0x01}, 3},    /* 4097 */
        {0xffffc, {0x8f, 0xff, 0xff}, 3}, /* 0xfffff */
        {0xffffd, {0xc1, 0x00, 0x00, 0x01}, 4},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct bytes aml = {0};
        size_t mark = aml_if_begin(&aml);
        bytes_zero(&aml, cases[i].content);
        aml_end(&aml, mark);
        assert_memory_equal(aml.data + 1, cases[i].encoded, cases[i].encoded_bytes);
        assert_int_equal(aml.size_bytes, 1 + cases[i].encoded_bytes + cases[i].content);
        bytes_free(&aml);
    }
}

static void test_eisa_id(void **state)
{
    struct bytes aml = {0};
    aml_eisa_id(&aml, "PNP0A03");
    static const uint8_t expected[] = {0x0c, 0x41, 0xd0, 0x0a, 0x03};
    assert_int_equal(aml.size_bytes, sizeof(expected));
    assert_memory_equal(aml.data, expected, sizeof(expected));
    bytes_free(&aml);
}

static char folder[] = "/tmp/skep-acpi-XXXXXX";

static void write_table(const char *name, const uint8_t *table)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s.dat", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(table, le32_get(table + 4), 1, file), 1);
    assert_int_equal(fclose(file), 0);
}

/* Reads the whole of what a command prints. */
static void run(const char *command, char *output, size_t size_bytes, int *status)
{
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t length = fread(output, 1, size_bytes - 1, pipe);
    output[length] = 0;
    char rest[4096];
    while (fread(rest, 1, sizeof(rest), pipe) > 0)
        ;
    *status = pclose(pipe);
}

static void check_with_iasl(const char *name)
{
    static char output[65536];
    char command[512];
    int status;
    snprintf(command, sizeof(command), "cd %s && iasl -d %s.dat 2>&1", folder, name);
    run(command, output, sizeof(output), &status);
    if (status || strstr(output, "ncorrect checksum") || strstr(output, "Error"))
        fail_msg("iasl -d %s: %s", name, output);
    snprintf(command, sizeof(command), "cd %s && iasl -vs -p %s.out %s.dsl 2>&1", folder, name,
             name);
    run(command, output, sizeof(output), &status);
    if (status || !strstr(output, " 0 Errors, 0 Warnings"))
        fail_msg("iasl %s: %s", name, output);
}

static void check_board_with_iasl(const struct acpi_config *config)
{
    static const char *const names[] = {"FACP", "APIC", "HPET", "MCFG"};
    struct bytes tables = build(config);
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *table = find(&tables, names[i]);
        assert_non_null(table);
        write_table(names[i], table);
        check_with_iasl(names[i]);
    }
    write_table("DSDT", find_dsdt(&tables));
    check_with_iasl("DSDT");
    bytes_free(&tables);
}

/* What the disassembled DSDT says, by pieces of its text. */
static void expect_in_dsdt(const char *text)
{
    static char output[65536];
    char command[512];
    int status;
    snprintf(command, sizeof(command), "grep -cF '%s' %s/DSDT.dsl", text, folder);
    run(command, output, sizeof(output), &status);
    if (status)
        fail_msg("not in the DSDT: %s", text);
}

static void test_iasl(void **state)
{
    assert_non_null(mkdtemp(folder));
    struct acpi_config config = board(1);
    config.mmio64_last = 0;
    config.mouse_irq = 0;
    config.uart_count = 0;
    check_board_with_iasl(&config);
    config = board(64);
    config.uart_count = 4;
    config.uart[2] = (struct acpi_uart){0x3e8, 4};
    config.uart[3] = (struct acpi_uart){0x2e8, 3};
    check_board_with_iasl(&config);
    expect_in_dsdt("Device (C03F)");
    expect_in_dsdt("Name (_HID, EisaId (\"PNP0A08\") /* PCI Express Bus */)");
    expect_in_dsdt("0x0000004000000000, // Range Minimum");
    expect_in_dsdt("0x0000007FFFFFFFFF, // Range Maximum");
    expect_in_dsdt("0xFEBFFFFF,         // Range Maximum");
    expect_in_dsdt("0x001FFFFF, ");
    expect_in_dsdt("ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")");
    expect_in_dsdt("Device (COM4)");
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rsdp),    cmocka_unit_test(test_fadt),
        cmocka_unit_test(test_madt),    cmocka_unit_test(test_mcfg_and_hpet),
        cmocka_unit_test(test_limit),   cmocka_unit_test(test_package_lengths),
        cmocka_unit_test(test_eisa_id), cmocka_unit_test(test_iasl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
