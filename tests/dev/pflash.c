/* SPDX-License-Identifier: BSD-2-Clause
 * Flash memory: its command set, when it is memory and when registers, its store, save and load. */
#include "dev/pflash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE_BYTES = 8 * PFLASH_BLOCK_BYTES, READY = 0x80 };
#define PLACE UINT64_C(0xffc00000)

struct fixture {
    struct ram *ram;
    struct bus *bus;
    struct physmap *physmap;
    struct pflash *flash;
    uint8_t *bytes, store[SIZE_BYTES];
    unsigned stores;
    bool is_full;
};

static bool keep(void *opaque, uint64_t offset, const void *bytes, size_t size_bytes)
{
    struct fixture *f = opaque;
    assert_true(offset + size_bytes <= SIZE_BYTES);
    f->stores++;
    if (f->is_full)
        return false;
    memcpy(f->store + offset, bytes, size_bytes);
    return true;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};
    f->ram = ram_create(1 << 20, NULL);
    f->bus = bus_create(NULL);
    f->physmap = physmap_create(f->ram);
    f->bytes = aligned_alloc(4096, SIZE_BYTES);
    memset(f->bytes, 0xff, SIZE_BYTES);
    memset(f->store, 0xff, SIZE_BYTES);
    const struct pflash_config config = {.gpa = PLACE,
                                         .bytes = f->bytes,
                                         .size_bytes = SIZE_BYTES,
                                         .store = {keep, f},
                                         .bus = f->bus,
                                         .physmap = f->physmap};
    f->flash = pflash_create(&config, &err);
    assert_non_null(f->flash);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    pflash_ops.destroy(f->flash);
    physmap_destroy(f->physmap);
    bus_destroy(f->bus);
    ram_destroy(f->ram);
    free(f->bytes);
    free(f);
    return 0;
}

static void put(struct fixture *f, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    bus_write(f->bus, BUS_MMIO, PLACE + offset, value, size_bytes);
}

/* As a processor reads: memory where there is some, else the bus. */
static uint64_t get(struct fixture *f, uint64_t offset, unsigned size_bytes)
{
    uint64_t value = 0;
    if (physmap_read(f->physmap, PLACE + offset, &value, size_bytes))
        return value;
    return bus_read(f->bus, BUS_MMIO, PLACE + offset, size_bytes);
}

static bool is_memory(struct fixture *f)
{
    struct physmap_range range;
    return physmap_find(f->physmap, PLACE, &range) && range.read_only;
}

static void program(struct fixture *f, uint64_t offset, uint8_t value)
{
    put(f, offset, 0x10, 1);
    put(f, offset, value, 1);
}

static void test_program_and_erase(void **state)
{
    struct fixture *f = *state;
    assert_true(is_memory(f));
    program(f, 0x1234, 0x5a);
    assert_false(is_memory(f));
    assert_int_equal(get(f, 0x1234, 1), READY);
    put(f, 0, 0xff, 1);
    assert_true(is_memory(f));
    assert_int_equal(get(f, 0x1234, 1), 0x5a);
    assert_int_equal(f->store[0x1234], 0x5a);
    program(f, 0x1234, 0xa7); /* bits are only cleared */
    put(f, 0, 0x40, 1);
    put(f, 0x2000, 0x44332211, 4);
    put(f, 0, 0xff, 1);
    assert_int_equal(get(f, 0x1234, 1), 0x02);
    assert_int_equal(get(f, 0x2000, 4), 0x44332211);
    put(f, 0x1fff, 0x20, 1);
    put(f, 0x1fff, 0xd0, 1);
    assert_int_equal(get(f, 0, 2), READY | READY << 8);
    put(f, 0, 0xff, 1);
    assert_int_equal(get(f, 0x1234, 1), 0xff);
    assert_int_equal(get(f, 0x2000, 4), 0x44332211); /* the next block */
    assert_memory_equal(f->store, f->bytes, SIZE_BYTES);
}

static void test_probing_as_firmware_does(void **state)
{
    struct fixture *f = *state;
    put(f, 0x10, 0x50, 1);
    assert_int_equal(get(f, 0x10, 1), 0xff); /* neither the command, as RAM gives */
    put(f, 0x10, 0x70, 1);
    assert_int_equal(get(f, 0x10, 1), 0x00); /* nor what it was, as ROM gives */
    put(f, 0x10, 0xff, 1);
    put(f, 0, 0x98, 1);
    assert_int_equal(get(f, 0x10, 1), 'Q');
    assert_int_equal(get(f, 0x11, 2), 'R' | 'Y' << 8);
    assert_int_equal(get(f, 0x13, 2), 1);
    assert_int_equal(get(f, 0x27, 1), 15); /* 32 KiB */
    assert_int_equal(get(f, 0x2d, 2), SIZE_BYTES / PFLASH_BLOCK_BYTES - 1);
    assert_int_equal(get(f, 0x2f, 2), PFLASH_BLOCK_BYTES / 256);
    assert_int_equal(get(f, 0x31, 1), 'P');
    put(f, 0, 0x90, 1);
    assert_int_equal(get(f, 0, 2), 0x1889);
    put(f, 0, 0x60, 1);
    put(f, 0, 0xd0, 1);
    assert_int_equal(get(f, 0, 1), READY);
}

static void fill_buffer(struct fixture *f, uint64_t at, unsigned count)
{
    put(f, at, 0xe8, 1);
    assert_int_equal(get(f, at, 1) & READY, READY);
    put(f, at, count - 1, 1);
    for (unsigned i = 0; i < count; i++)
        put(f, at + i, i, 1);
}

static void test_buffer(void **state)
{
    struct fixture *f = *state;
    fill_buffer(f, 0x3010, 256);
    assert_int_equal(f->bytes[0x3010], 0xff);
    put(f, 0x3010, 0xd0, 1);
    assert_int_equal(get(f, 0, 1), READY);
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(f->bytes[0x3010 + i], i);
    assert_int_equal(f->bytes[0x3110], 0xff);
    assert_memory_equal(f->store, f->bytes, SIZE_BYTES);
    fill_buffer(f, 0x5000, 4);
    put(f, 0x5000, 0x70, 1); /* no confirmation */
    assert_int_equal(get(f, 0, 1), READY | 0x30);
    assert_int_equal(f->bytes[0x5000], 0xff);
    put(f, 0, 0x50, 1);
    put(f, 0x5000, 0xe8, 1);
    put(f, 0x5000, 1, 1);
    put(f, 0x5000, 0, 1);
    put(f, 0x5100, 0, 1); /* too far */
    assert_int_equal(get(f, 0, 1), READY | 0x30);
    put(f, 0, 0x50, 1);
    fill_buffer(f, SIZE_BYTES - 4, 4); /* up to the very end */
    put(f, 0, 0xd0, 1);
    assert_int_equal(f->bytes[SIZE_BYTES - 1], 3);
}

static void test_errors(void **state)
{
    struct fixture *f = *state;
    put(f, 0, 0x20, 1);
    put(f, 0, 0x12, 1);
    assert_int_equal(get(f, 0, 1), READY | 0x30);
    put(f, 0, 0x50, 1);
    f->is_full = true;
    program(f, 0, 0);
    assert_int_equal(get(f, 0, 1), READY | 0x10);
    put(f, 0, 0x50, 1);
    put(f, 0, 0x20, 1);
    put(f, 0, 0xd0, 1);
    assert_int_equal(get(f, 0, 1), READY | 0x20);
    bus_write(f->bus, BUS_MMIO, PLACE + SIZE_BYTES - 1, 0x10, 4); /* runs past the end */
    assert_int_equal(get(f, 0, 1), READY | 0x20);
}

static void load_from(struct fixture *f, const struct save *save, bool is_good)
{
    struct load load;
    load_init(&load, save->bytes, save->size_bytes);
    load.section_end = save->size_bytes;
    assert_int_equal(pflash_ops.load(f->flash, &load, pflash_ops.version), is_good);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    struct save save = {0};
    program(f, 0x10, 0x42);
    fill_buffer(f, 0x4000, 16);
    pflash_ops.save(f->flash, &save);
    pflash_ops.reset(f->flash);
    assert_true(is_memory(f));
    program(f, 0x11, 0x99);
    f->stores = 0;
    load_from(f, &save, true);
    assert_int_equal(f->stores, 1); /* the file goes back, too */
    assert_int_equal(f->store[0x11], 0xff);
    assert_false(is_memory(f));
    put(f, 0x4000, 0xd0, 1);
    assert_int_equal(f->bytes[0x400f], 15);
    assert_int_equal(f->bytes[0x10], 0x42);
    save.bytes[0] = 200;
    load_from(f, &save, false);
    assert_true(is_memory(f));
    save.bytes[0] = 0;
    save.size_bytes -= 1;
    load_from(f, &save, false);
    save_free(&save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_program_and_erase, setup, teardown),
        cmocka_unit_test_setup_teardown(test_probing_as_firmware_does, setup, teardown),
        cmocka_unit_test_setup_teardown(test_buffer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save_and_load, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
