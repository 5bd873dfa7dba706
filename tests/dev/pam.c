/* SPDX-License-Identifier: BSD-2-Clause
 * Shadow RAM by the host bridge's PAM registers, in all combinations, with ROM and without. */
#include "dev/pam.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROM_BYTES = 128 << 10, ROM_GPA = 0xe0000 };
enum { IN_RAM = 0x11, IN_ROM = 0x22, NOTHING = 0xff };

struct fixture {
    struct ram *ram;
    struct bus *bus;
    struct physmap *physmap;
    struct pam *pam;
    uint8_t *rom;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->ram = ram_create(2 << 20, NULL);
    f->bus = bus_create(NULL);
    f->physmap = physmap_create(f->ram);
    f->rom = aligned_alloc(4096, ROM_BYTES);
    memset(f->rom, IN_ROM, ROM_BYTES);
    memset(ram_hva(f->ram, 0xc0000, 0x40000), IN_RAM, 0x40000);
    const struct pam_config config = {
        .physmap = f->physmap, .ram = f->ram, .bus = f->bus, .rom = f->rom, .rom_bytes = ROM_BYTES};
    f->pam = pam_create(&config, NULL);
    assert_non_null(f->pam);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct physmap_range range;
    pam_destroy(f->pam);
    assert_true(physmap_find(f->physmap, 0xe0000, &range));
    assert_int_equal(range.size_bytes, 2 << 20); /* all as if it had never been */
    physmap_destroy(f->physmap);
    bus_destroy(f->bus);
    ram_destroy(f->ram);
    free(f->rom);
    free(f);
    return 0;
}

static uint8_t get(struct fixture *f, uint64_t gpa)
{
    uint8_t value;
    if (physmap_read(f->physmap, gpa, &value, 1))
        return value;
    return (uint8_t)bus_read(f->bus, BUS_MMIO, gpa, 1);
}

/* As a processor writes; true when it has reached RAM. */
static bool writes_ram(struct fixture *f, uint64_t gpa)
{
    struct physmap_range range;
    uint8_t *ram = ram_hva(f->ram, gpa, 1);
    *ram = IN_RAM;
    if (physmap_find(f->physmap, gpa, &range) && !range.read_only)
        range.hva[gpa - range.gpa] = 0x77;
    else
        bus_write(f->bus, BUS_MMIO, gpa, 0x77, 1);
    bool is_written = *ram == 0x77;
    *ram = IN_RAM;
    assert_int_equal(f->rom[0], IN_ROM);
    return is_written;
}

static void check_all(struct fixture *f, unsigned segment, unsigned wanted)
{
    for (unsigned i = 0; i < 13; i++) {
        uint64_t gpa = 0xc0000 + (uint64_t)i * 0x4000;
        unsigned mode = i == segment ? wanted : 0;
        uint8_t closed = gpa >= ROM_GPA ? IN_ROM : NOTHING;
        uint64_t last = i == 12 ? 0xfffff : gpa + 0x3fff;
        assert_int_equal(get(f, gpa), mode & 1 ? IN_RAM : closed);
        assert_int_equal(get(f, last), mode & 1 ? IN_RAM : closed);
        assert_int_equal(writes_ram(f, gpa), mode >> 1 & 1);
        assert_int_equal(writes_ram(f, last), mode >> 1 & 1);
    }
}

static void test_each_segment_in_each_mode(void **state)
{
    struct fixture *f = *state;
    for (unsigned segment = 0; segment < 13; segment++)
        for (unsigned mode = 0; mode < 4; mode++) {
            uint8_t registers[PAM_REGISTERS] = {0};
            if (segment == 12)
                registers[0] = (uint8_t)(mode << 4);
            else
                registers[1 + segment / 2] = (uint8_t)(mode << (segment % 2 * 4));
            pam_set(f->pam, registers);
            check_all(f, segment, mode);
        }
}

static void test_firmware_copies_itself(void **state)
{
    struct fixture *f = *state;
    const uint8_t closed[PAM_REGISTERS] = {0};
    const uint8_t write_only[PAM_REGISTERS] = {0x20, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22};
    const uint8_t read_only[PAM_REGISTERS] = {0x10, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11};
    pam_set(f->pam, closed);
    pam_set(f->pam, write_only);
    for (uint64_t gpa = ROM_GPA; gpa < 0x100000; gpa += 8)
        bus_write(f->bus, BUS_MMIO, gpa, UINT64_C(0x0101010101010101) * get(f, gpa), 8);
    pam_set(f->pam, read_only);
    f->rom[0] = 0; /* what is read is the copy */
    assert_int_equal(get(f, ROM_GPA), IN_ROM);
    f->rom[0] = IN_ROM;
    assert_false(writes_ram(f, 0xfffff));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_segment_in_each_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(test_firmware_copies_itself, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
