/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The MP table, walked as an operating system does.
 */
#include "machine/mptable.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define TABLE_GPA UINT64_C(0xff000)
enum { LIMIT_BYTES = 0x1000, KINDS = 5, VCPUS_MAX = 64 };

static const uint8_t entry_bytes[KINDS] = {20, 8, 8, 8, 8};
static uint8_t ids[VCPUS_MAX];

static struct mptable_config machine(unsigned vcpus)
{
    struct mptable_config config = {
        .vcpu_count = vcpus,
        .apic_ids = ids,
        .cpu_signature = 0x12345678,
        .cpu_features = 0x9abcdef0,
        .lapic_base = 0xfee00000,
        .ioapic_base = 0xfec00000,
        .lapic_version = 0x14,
        .ioapic_version = 0x20,
        .ioapic_id = 250,
        .pit_pin = 2,
        .sci_irq = 9,
    };
    for (unsigned i = 0; i < VCPUS_MAX; i++)
        ids[i] = (uint8_t)(i * 3);
    for (unsigned slot = 0; slot < MPTABLE_PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < MPTABLE_PCI_PINS; pin++)
            config.pci_pin[slot][pin] = (uint8_t)(16 + (slot + pin) % 8);
    return config;
}

/* Where entry `wanted` of a kind is; NULL: there are fewer. Entries are sorted by kind (4.3). */
static const uint8_t *find(const struct bytes *out, uint8_t kind, unsigned wanted)
{
    const uint8_t *table = out->data + 16, *found = NULL;
    size_t at = 44, length = le16_get(table + 4);
    uint8_t before = 0;
    for (unsigned i = 0; i < le16_get(table + 34); i++) {
        assert_true(at < length && table[at] < KINDS && table[at] >= before);
        before = table[at];
        if (before == kind && !wanted--)
            found = table + at;
        at += entry_bytes[before];
    }
    assert_int_equal(at, length);
    return found;
}

static void build(const struct mptable_config *config, struct bytes *out)
{
    assert_true(mptable_build(config, TABLE_GPA, LIMIT_BYTES, out, NULL));
    assert_memory_equal(out->data, "_MP_", 4);
    assert_int_equal(le32_get(out->data + 4), TABLE_GPA + 16);
    assert_int_equal(bytes_checksum(out->data, 16), 0);
    assert_memory_equal(out->data + 16, "PCMP", 4);
    assert_int_equal(le16_get(out->data + 20), out->size_bytes - 16);
    assert_int_equal(bytes_checksum(out->data + 16, out->size_bytes - 16), 0);
    assert_int_equal(le32_get(out->data + 16 + 36), config->lapic_base);
}

static void test_processors(void **state)
{
    static const uint8_t first[] = {0, 0, 0x14, 3, 0x78, 0x56, 0x34, 0x12, 0xf0, 0xde, 0xbc, 0x9a};
    for (unsigned count = 1; count <= VCPUS_MAX; count += 21) {
        const struct mptable_config config = machine(count);
        struct bytes out = {0};
        build(&config, &out);
        assert_memory_equal(find(&out, 0, 0), first, sizeof(first));
        for (unsigned i = 1; i < count; i++) {
            const uint8_t *entry = find(&out, 0, i);
            assert_int_equal(entry[1], ids[i]);
            assert_int_equal(entry[3], 1);
        }
        assert_null(find(&out, 0, count));
        bytes_free(&out);
    }
}

/* Whether a source of a bus goes to that pin of the I/O APIC, and so flagged. */
static void expect_pin(const struct bytes *out, uint8_t bus, uint8_t irq, uint8_t pin,
                       uint8_t flags)
{
    const uint8_t wanted[] = {3, 0, flags, 0, bus, irq, 250, pin};
    const uint8_t *entry;
    unsigned found = 0;
    for (unsigned i = 0; (entry = find(out, 3, i)); i++) {
        if (entry[4] != bus || entry[5] != irq)
            continue;
        assert_memory_equal(entry, wanted, sizeof(wanted));
        found++;
    }
    assert_int_equal(found, 1);
}

static void test_interrupts(void **state)
{
    static const uint8_t buses[2][8] = {{1, 0, 'P', 'C', 'I', ' ', ' ', ' '},
                                        {1, 1, 'I', 'S', 'A', ' ', ' ', ' '}};
    static const uint8_t ioapic[] = {2, 250, 0x20, 1, 0, 0, 0xc0, 0xfe};
    static const uint8_t local[2][8] = {{4, 3, 0, 0, 1, 0, 0xff, 0}, {4, 1, 0, 0, 1, 0, 0xff, 1}};
    const struct mptable_config config = machine(2);
    struct bytes out = {0};
    build(&config, &out);
    for (unsigned i = 0; i < 2; i++) {
        assert_memory_equal(find(&out, 1, i), buses[i], 8);
        assert_memory_equal(find(&out, 4, i), local[i], 8);
    }
    assert_memory_equal(find(&out, 2, 0), ioapic, 8);
    for (uint8_t irq = 0; irq < 16; irq++)
        if (irq != 2)
            expect_pin(&out, 1, irq, irq ? irq : 2, irq == 9 ? 0xd : 0);
    for (unsigned slot = 0; slot < MPTABLE_PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < MPTABLE_PCI_PINS; pin++)
            expect_pin(&out, 0, (uint8_t)(slot * 4 + pin), config.pci_pin[slot][pin], 0xf);
    assert_null(find(&out, 3, 15 + MPTABLE_PCI_SLOTS * MPTABLE_PCI_PINS));
    bytes_free(&out);
}

static void test_limit(void **state)
{
    const struct mptable_config config = machine(1);
    struct error err = {0};
    struct bytes out = {0};
    assert_false(mptable_build(&config, TABLE_GPA, 1000, &out, &err));
    assert_non_null(strstr(err.cause, "of 1000"));
    bytes_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_processors),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
