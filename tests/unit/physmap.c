/* SPDX-License-Identifier: BSD-2-Clause
 * Layers of guest-physical memory: what is seen of them, what engines are told, what is refused. */
#include "bus/physmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RAM_BYTES = 4 << 20, PAGE = 4096, DEVICE_PAGES = 4 };

struct fixture {
    struct ram *ram;
    struct physmap *map;
    uint8_t *device;
    struct physmap_range told[PHYSMAP_MAX_RANGES];
    unsigned told_count, tells;
    bool refuses;
};

static bool set(void *opaque, const struct physmap_range *ranges, unsigned count, struct error *err)
{
    struct fixture *f = opaque;
    if (f->refuses)
        return error_set(err, "cannot map", NULL, "no room");
    memcpy(f->told, ranges, count * sizeof(*ranges));
    f->told_count = count;
    f->tells++;
    return true;
}

static void take_written(void *opaque, const uint8_t *hva, uint64_t size_bytes, uint64_t *pages)
{
    pages[0] |= size_bytes / PAGE;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct physmap_listener listener = {set, take_written, f};
    f->ram = ram_create(RAM_BYTES, NULL);
    f->map = physmap_create(f->ram);
    f->device = aligned_alloc(PAGE, DEVICE_PAGES * PAGE);
    assert_non_null(f->map);
    assert_true(physmap_set_listener(f->map, &listener, NULL));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    physmap_destroy(f->map);
    ram_destroy(f->ram);
    free(f->device);
    free(f);
    return 0;
}

static void check_told(const struct fixture *f, unsigned i, uint64_t gpa, uint64_t size_bytes,
                       const uint8_t *hva, bool read_only)
{
    assert_true(i < f->told_count);
    assert_int_equal(f->told[i].gpa, gpa);
    assert_int_equal(f->told[i].size_bytes, size_bytes);
    assert_ptr_equal(f->told[i].hva, hva);
    assert_int_equal(f->told[i].read_only, read_only);
}

static struct physmap_range device_range(const struct fixture *f, uint64_t gpa)
{
    return (struct physmap_range){.gpa = gpa, .size_bytes = DEVICE_PAGES * PAGE, .hva = f->device};
}

static void test_layers(void **state)
{
    struct fixture *f = *state;
    uint8_t *ram = ram_hva(f->ram, 0, 1);
    assert_int_equal(f->told_count, 1);
    check_told(f, 0, 0, RAM_BYTES, ram, false);
    /* A device's memory half over RAM: the half beyond is seen. */
    struct physmap_range range = device_range(f, RAM_BYTES - 2 * PAGE);
    assert_true(physmap_map(f->map, PHYSMAP_DEVICE, &range, NULL));
    assert_int_equal(f->told_count, 2);
    check_told(f, 0, 0, RAM_BYTES, ram, false);
    check_told(f, 1, RAM_BYTES, 2 * PAGE, f->device + 2 * PAGE, false);
    /* A hole in RAM, and ROM over RAM beside it. */
    struct physmap_range hole = {.gpa = 0xa0000, .size_bytes = 0x20000};
    struct physmap_range rom = {
        .gpa = 0xc0000, .size_bytes = DEVICE_PAGES * PAGE, .hva = f->device, .read_only = true};
    assert_true(physmap_map(f->map, PHYSMAP_SHADOW, &hole, NULL));
    assert_true(physmap_map(f->map, PHYSMAP_SHADOW, &rom, NULL));
    assert_int_equal(f->told_count, 4);
    check_told(f, 0, 0, 0xa0000, ram, false);
    check_told(f, 1, 0xc0000, DEVICE_PAGES * PAGE, f->device, true);
    check_told(f, 2, 0xc4000, RAM_BYTES - 0xc4000, ram + 0xc4000, false);
    struct physmap_range found;
    assert_false(physmap_find(f->map, 0xbffff, &found));
    assert_true(physmap_find(f->map, 0xc3fff, &found) && found.read_only);
    /* Replaced in one step, by the RAM that is under it. */
    unsigned tells = f->tells;
    rom.hva = ram + 0xc0000;
    rom.read_only = false;
    assert_true(physmap_map(f->map, PHYSMAP_SHADOW, &rom, NULL));
    assert_int_equal(f->tells, tells + 1);
    check_told(f, 1, 0xc0000, DEVICE_PAGES * PAGE, ram + 0xc0000, false);
    /* The same again is no change. */
    assert_true(physmap_map(f->map, PHYSMAP_SHADOW, &rom, NULL));
    assert_int_equal(f->tells, tells + 1);
    physmap_unmap(f->map, PHYSMAP_SHADOW, 0xc0000);
    physmap_unmap(f->map, PHYSMAP_SHADOW, 0xa0000);
    physmap_unmap(f->map, PHYSMAP_DEVICE, range.gpa);
    assert_int_equal(f->told_count, 1);
    check_told(f, 0, 0, RAM_BYTES, ram, false);
}

static void test_reading(void **state)
{
    struct fixture *f = *state;
    struct physmap_range range = device_range(f, RAM_BYTES);
    uint8_t bytes[8];
    memset(ram_hva(f->ram, RAM_BYTES - PAGE, PAGE), 0x11, PAGE);
    memset(f->device, 0x22, DEVICE_PAGES * PAGE);
    assert_false(physmap_read(f->map, RAM_BYTES - 4, bytes, 8));
    assert_true(physmap_map(f->map, PHYSMAP_DEVICE, &range, NULL));
    assert_true(physmap_read(f->map, RAM_BYTES - 4, bytes, 8));
    assert_memory_equal(bytes, "\x11\x11\x11\x11\x22\x22\x22\x22", 8);
    assert_false(physmap_read(f->map, RAM_BYTES + DEVICE_PAGES * PAGE - 4, bytes, 8));
    assert_false(physmap_read(f->map, UINT64_MAX - 2, bytes, 8));
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    struct physmap_range range = device_range(f, 0x10000000);
    struct physmap_range odd = range, other = range, wraps = range;
    odd.gpa += 8;
    other.gpa += PAGE;
    wraps.gpa = UINT64_MAX - PAGE + 1;
    assert_false(physmap_map(f->map, PHYSMAP_DEVICE, &odd, &err));
    assert_false(physmap_map(f->map, PHYSMAP_DEVICE, &wraps, &err));
    assert_true(physmap_map(f->map, PHYSMAP_DEVICE, &range, NULL));
    assert_false(physmap_map(f->map, PHYSMAP_DEVICE, &other, &err));
    assert_true(strstr(err.cause, "0x10001000"));
    f->refuses = true;
    other.gpa += 16 * PAGE;
    assert_false(physmap_map(f->map, PHYSMAP_DEVICE, &other, &err));
    f->refuses = false;
    physmap_unmap(f->map, PHYSMAP_DEVICE, other.gpa); /* it isn't there */
    assert_int_equal(f->told_count, 2);
    check_told(f, 1, range.gpa, range.size_bytes, f->device, false);
    unsigned count = 1;
    for (other.gpa = 0x20000000; count < 1000; count++, other.gpa += 0x100000)
        if (!physmap_map(f->map, PHYSMAP_DEVICE, &other, &err))
            break;
    assert_in_range(count, 40, PHYSMAP_MAX_RANGES);
}

static void test_log_is_passed_on(void **state)
{
    struct fixture *f = *state;
    uint64_t pages[2] = {~UINT64_C(0), ~UINT64_C(0)};
    physmap_take_written(f->map, f->device, 65 * PAGE, pages);
    assert_int_equal(pages[0], 65);
    assert_int_equal(pages[1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_layers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reading, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log_is_passed_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
