/* SPDX-License-Identifier: BSD-2-Clause
 * The map of ports and MMIO: what may be mapped, who answers, doorbells, and changes under way
 * while other threads read. */
#include "bus/bus.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

struct chip {
    struct bus *bus;
    uint64_t answer;
    uint64_t offset;
    uint64_t value;
    unsigned size_bytes;
    unsigned reads;
    unsigned writes;
    unsigned rings;
};

static uint64_t chip_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct chip *chip = opaque;
    chip->reads++;
    chip->offset = offset;
    chip->size_bytes = size_bytes;
    return chip->answer;
}

static void chip_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct chip *chip = opaque;
    chip->writes++;
    chip->offset = offset;
    chip->value = value;
    chip->size_bytes = size_bytes;
}

static void chip_ring(void *opaque)
{
    ((struct chip *)opaque)->rings++;
}

static bool map(struct bus *bus, enum bus_space space, uint64_t base, uint64_t size_bytes,
                struct chip *chip, struct error *err)
{
    struct bus_range range = {.name = "chip",
                              .space = space,
                              .base = base,
                              .size_bytes = size_bytes,
                              .read = chip_read,
                              .write = chip_write,
                              .opaque = chip};
    return bus_map(bus, &range, err);
}

static int setup(void **state)
{
    *state = bus_create(NULL);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    bus_destroy(*state);
    return 0;
}

static void test_first_and_last_address(void **state)
{
    struct chip chip = {.answer = 0x55};
    assert_true(map(*state, BUS_PORT, 0x3f8, 8, &chip, NULL));
    assert_int_equal(bus_read(*state, BUS_PORT, 0x3f8, 1), 0x55);
    assert_int_equal(chip.offset, 0);
    assert_int_equal(bus_read(*state, BUS_PORT, 0x3ff, 1), 0x55);
    assert_int_equal(chip.offset, 7);
    assert_int_equal(bus_read(*state, BUS_PORT, 0x3f7, 1), 0xff);
    assert_int_equal(bus_read(*state, BUS_PORT, 0x400, 1), 0xff);
    assert_int_equal(chip.reads, 2);
    bus_write(*state, BUS_PORT, 0x3ff, 0x12, 1);
    assert_int_equal(chip.value, 0x12);
    bus_write(*state, BUS_PORT, 0x400, 0x13, 1);
    bus_write(*state, BUS_PORT, 0x3f7, 0x13, 1);
    assert_int_equal(chip.writes, 1);
}

static void test_spaces_are_apart(void **state)
{
    struct chip ports = {.answer = 1};
    struct chip memory = {.answer = 2};
    assert_true(map(*state, BUS_PORT, 0x1000, 4, &ports, NULL));
    assert_true(map(*state, BUS_MMIO, 0x1000, 4, &memory, NULL));
    assert_int_equal(bus_read(*state, BUS_PORT, 0x1000, 1), 1);
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x1000, 1), 2);
    bus_unmap(*state, BUS_PORT, 0x1000);
    assert_int_equal(bus_read(*state, BUS_PORT, 0x1000, 1), 0xff);
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x1000, 1), 2);
}

static void test_values_are_cut_to_size(void **state)
{
    struct chip chip = {.answer = UINT64_C(0x1122334455667788)};
    assert_true(map(*state, BUS_MMIO, 0x1000, 8, &chip, NULL));
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x1000, 1), 0x88);
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x1000, 2), 0x7788);
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x1000, 4), 0x55667788);
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x1000, 8), UINT64_C(0x1122334455667788));
    bus_write(*state, BUS_MMIO, 0x1000, UINT64_MAX, 1);
    assert_int_equal(chip.value, 0xff);
    bus_write(*state, BUS_MMIO, 0x1000, UINT64_MAX, 4);
    assert_int_equal(chip.value, 0xffffffff);
    bus_write(*state, BUS_MMIO, 0x1000, UINT64_MAX, 8);
    assert_int_equal(chip.value, UINT64_MAX);
    assert_int_equal(chip.size_bytes, 8);
}

static void test_unmapped_reads_ones(void **state)
{
    assert_int_equal(bus_read(*state, BUS_PORT, 0, 1), 0xff);
    assert_int_equal(bus_read(*state, BUS_PORT, 0xffff, 2), 0xffff);
    assert_int_equal(bus_read(*state, BUS_MMIO, UINT64_MAX, 4), 0xffffffff);
    assert_int_equal(bus_read(*state, BUS_MMIO, 0, 8), UINT64_MAX);
    bus_write(*state, BUS_MMIO, 0, 1, 8);
}

static void test_range_without_callbacks(void **state)
{
    struct bus_range range = {.name = "hole", .space = BUS_PORT, .base = 0x80, .size_bytes = 1};
    assert_true(bus_map(*state, &range, NULL));
    assert_int_equal(bus_read(*state, BUS_PORT, 0x80, 1), 0xff);
    bus_write(*state, BUS_PORT, 0x80, 1, 1);
}

static void test_access_past_the_end_reaches_the_first(void **state)
{
    struct chip first = {.answer = 0x11223344};
    struct chip second = {.answer = 0};
    assert_true(map(*state, BUS_PORT, 0x10, 4, &first, NULL));
    assert_true(map(*state, BUS_PORT, 0x14, 4, &second, NULL));
    assert_int_equal(bus_read(*state, BUS_PORT, 0x13, 4), 0x11223344);
    assert_int_equal(first.offset, 3);
    assert_int_equal(first.size_bytes, 4);
    assert_int_equal(second.reads, 0);
}

static void test_overlap_is_refused(void **state)
{
    struct chip chip = {.answer = 1};
    struct chip other = {.answer = 2};
    struct error err = {0};
    assert_true(map(*state, BUS_MMIO, 0x1000, 0x1000, &chip, NULL));
    assert_false(map(*state, BUS_MMIO, 0x1000, 0x1000, &other, &err)); /* the same */
    assert_non_null(strstr(err.cause, "0x1000-0x1fff"));
    assert_false(map(*state, BUS_MMIO, 0x0, 0x1001, &other, NULL));    /* its first byte */
    assert_false(map(*state, BUS_MMIO, 0x1fff, 0x1000, &other, NULL)); /* its last byte */
    assert_false(map(*state, BUS_MMIO, 0x1800, 1, &other, NULL));      /* inside */
    assert_false(map(*state, BUS_MMIO, 0x0, 0x10000, &other, NULL));   /* around */
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x1800, 1), 1);
    assert_true(map(*state, BUS_MMIO, 0x0, 0x1000, &other, NULL)); /* just below */
    assert_true(map(*state, BUS_MMIO, 0x2000, 1, &other, NULL));   /* just above */
    assert_int_equal(bus_read(*state, BUS_MMIO, 0xfff, 1), 2);
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x2000, 1), 2);
    assert_int_equal(bus_read(*state, BUS_MMIO, 0x1fff, 1), 1);
}

static void test_ends_of_the_space(void **state)
{
    struct chip chip = {.answer = 7};
    struct error err = {0};
    assert_false(map(*state, BUS_MMIO, 0x1000, 0, &chip, &err));
    assert_int_equal(err.kind, ERROR_FAILED);
    assert_false(map(*state, BUS_MMIO, UINT64_MAX, 2, &chip, NULL));
    assert_false(map(*state, BUS_MMIO, 2, UINT64_MAX, &chip, NULL));
    assert_false(map(*state, BUS_PORT, 0xffff, 2, &chip, NULL));
    assert_false(map(*state, BUS_PORT, 0x10000, 1, &chip, NULL));
    assert_true(map(*state, BUS_PORT, 0xffff, 1, &chip, NULL));
    assert_true(map(*state, BUS_MMIO, UINT64_MAX - 7, 8, &chip, NULL));
    assert_int_equal(bus_read(*state, BUS_MMIO, UINT64_MAX, 1), 7);
    assert_int_equal(chip.offset, 7);
    assert_false(map(*state, BUS_MMIO, UINT64_MAX, 1, &chip, NULL));
    assert_true(map(*state, BUS_MMIO, 0, UINT64_MAX - 7, &chip, NULL));
    assert_int_equal(bus_read(*state, BUS_MMIO, 0, 1), 7);
}

/* More ranges than the first array holds, mapped from both ends, every other one taken out. */
static void test_many_ranges(void **state)
{
    enum { COUNT = 300 };
    static struct chip chips[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned index = i % 2 ? COUNT - 1 - i / 2 : i / 2;
        chips[index].answer = index;
        assert_true(map(*state, BUS_MMIO, index * 0x100, 0x80, &chips[index], NULL));
    }
    for (unsigned i = 0; i < COUNT; i += 2)
        bus_unmap(*state, BUS_MMIO, i * 0x100);
    bus_unmap(*state, BUS_MMIO, 0x101); /* no base: nothing happens */
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(bus_read(*state, BUS_MMIO, i * 0x100 + 0x7f, 2), i % 2 ? i : 0xffff);
        assert_int_equal(bus_read(*state, BUS_MMIO, i * 0x100 + 0x80, 2), 0xffff);
    }
}

static uint64_t chip_read_moves(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct chip *chip = opaque;
    bus_unmap(chip->bus, BUS_PORT, 0x100);
    return bus_read(chip->bus, BUS_PORT, 0x200, size_bytes);
}

static void test_callback_may_use_the_bus(void **state)
{
    struct chip other = {.answer = 9};
    struct chip chip = {.bus = *state};
    struct bus_range range = {.name = "mover",
                              .space = BUS_PORT,
                              .base = 0x100,
                              .size_bytes = 1,
                              .read = chip_read_moves,
                              .opaque = &chip};
    assert_true(bus_map(*state, &range, NULL));
    assert_true(map(*state, BUS_PORT, 0x200, 1, &other, NULL));
    assert_int_equal(bus_read(*state, BUS_PORT, 0x100, 1), 9);
    assert_int_equal(bus_read(*state, BUS_PORT, 0x100, 1), 0xff);
}

static void test_doorbell(void **state)
{
    struct chip chip = {0};
    struct bus_doorbell doorbell = {
        .space = BUS_MMIO, .base = 0x1004, .size_bytes = 4, .ring = chip_ring, .opaque = &chip};
    assert_true(map(*state, BUS_MMIO, 0x1000, 0x100, &chip, NULL));
    bus_doorbell_add(*state, &doorbell);
    bus_write(*state, BUS_MMIO, 0x1004, 1, 2);
    bus_write(*state, BUS_MMIO, 0x1007, 1, 1);
    assert_int_equal(chip.rings, 2);
    assert_int_equal(chip.writes, 0);
    bus_write(*state, BUS_MMIO, 0x1003, 1, 1);
    bus_write(*state, BUS_MMIO, 0x1008, 1, 1);
    assert_int_equal(chip.rings, 2);
    assert_int_equal(chip.writes, 2);
    bus_read(*state, BUS_MMIO, 0x1004, 4); /* reads are the range's */
    assert_int_equal(chip.reads, 1);
    bus_write(*state, BUS_PORT, 0x1004, 1, 4); /* the other space */
    assert_int_equal(chip.rings, 2);
    bus_doorbell_remove(*state, BUS_MMIO, 0x1004);
    bus_write(*state, BUS_MMIO, 0x1004, 1, 4);
    assert_int_equal(chip.rings, 2);
    assert_int_equal(chip.writes, 3);
}

static void test_doorbell_overlap_keeps_the_first(void **state)
{
    struct chip first = {0};
    struct chip second = {0};
    struct bus_doorbell doorbell = {
        .space = BUS_MMIO, .base = 0x1000, .size_bytes = 4, .ring = chip_ring, .opaque = &first};
    bus_doorbell_add(*state, &doorbell);
    doorbell.base = 0x1003;
    doorbell.opaque = &second;
    bus_doorbell_add(*state, &doorbell);
    bus_write(*state, BUS_MMIO, 0x1003, 0, 1);
    bus_write(*state, BUS_MMIO, 0x1004, 0, 1);
    assert_int_equal(first.rings, 1);
    assert_int_equal(second.rings, 0);
}

struct ear {
    unsigned added;
    unsigned removed;
    struct bus_doorbell last;
};

static void ear_added(void *opaque, const struct bus_doorbell *doorbell)
{
    struct ear *ear = opaque;
    ear->added++;
    ear->last = *doorbell;
}

static void ear_removed(void *opaque, const struct bus_doorbell *doorbell)
{
    struct ear *ear = opaque;
    ear->removed++;
    ear->last = *doorbell;
}

static void test_listener(void **state)
{
    struct chip chip = {0};
    struct ear ear = {0};
    struct bus_listener listener = {ear_added, ear_removed, &ear};
    struct bus_doorbell doorbell = {
        .space = BUS_MMIO, .base = 0x1000, .size_bytes = 4, .ring = chip_ring, .opaque = &chip};
    bus_doorbell_add(*state, &doorbell);
    bus_set_listener(*state, &listener);
    assert_int_equal(ear.added, 1); /* of the one that was there */
    assert_int_equal(ear.last.base, 0x1000);
    assert_int_equal(ear.last.size_bytes, 4);
    assert_ptr_equal(ear.last.opaque, &chip);
    assert_true(ear.last.ring == chip_ring);
    doorbell.space = BUS_PORT;
    doorbell.base = 0x50;
    bus_doorbell_add(*state, &doorbell);
    assert_int_equal(ear.added, 2);
    assert_int_equal(ear.last.space, BUS_PORT);
    bus_doorbell_remove(*state, BUS_MMIO, 0x1000);
    assert_int_equal(ear.removed, 1);
    assert_int_equal(ear.last.base, 0x1000);
    assert_int_equal(ear.last.space, BUS_MMIO);
    bus_doorbell_remove(*state, BUS_MMIO, 0x1000); /* gone already */
    assert_int_equal(ear.removed, 1);
    bus_set_listener(*state, NULL);
    bus_doorbell_remove(*state, BUS_PORT, 0x50);
    assert_int_equal(ear.removed, 1);
}

struct sink {
    unsigned lines;
};

static void sink_write(void *opaque, enum log_level level, const char *module, const char *text)
{
    ((struct sink *)opaque)->lines++;
}

static void test_unmapped_accesses_cannot_flood_the_log(void **state)
{
    struct sink sink = {0};
    struct log log = {.level = LOG_DEBUG, .write = sink_write, .opaque = &sink};
    struct bus *bus = bus_create(&log);
    for (unsigned i = 0; i < 10000; i++) {
        bus_read(bus, BUS_PORT, i, 1);
        bus_write(bus, BUS_MMIO, i, 0, 1);
    }
    assert_in_range(sink.lines, 1, 200);
    bus_destroy(bus);
}

/* Readers run while ranges come and go. Each chip answers with its own base, so an entry that was
 * put together from two is seen; a fixed range in the middle must answer at all times. */

enum { READERS = 3, CHANGES = 20000, MOVING = 40 };
static const uint64_t fixed_base = 0x80000;

struct crowd {
    struct bus *bus;
    atomic_bool stop;
    atomic_uint wrong;
    atomic_uint reads;
};

struct based {
    uint64_t base;
    atomic_uint rings;
};

static uint64_t based_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    return ((struct based *)opaque)->base + offset;
}

static void based_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes) {}

static void based_ring(void *opaque)
{
    atomic_fetch_add(&((struct based *)opaque)->rings, 1);
}

static void *crowd_read(void *opaque)
{
    struct crowd *crowd = opaque;
    for (uint64_t i = 0; !atomic_load(&crowd->stop); i++) {
        uint64_t address = (i * 7919 % MOVING) * 0x4000 + 0x123;
        uint64_t value = bus_read(crowd->bus, BUS_MMIO, address, 8);
        if (value != address && value != UINT64_MAX)
            atomic_fetch_add(&crowd->wrong, 1);
        if (bus_read(crowd->bus, BUS_MMIO, fixed_base + 0x2004, 8) != fixed_base + 0x2004)
            atomic_fetch_add(&crowd->wrong, 1);
        bus_write(crowd->bus, BUS_MMIO, address, 1, 4);
        atomic_fetch_add(&crowd->reads, 1);
    }
    return NULL;
}

static void toggle(struct bus *bus, struct based *chip, bool *mapped)
{
    struct bus_range range = {.name = "moving",
                              .space = BUS_MMIO,
                              .base = chip->base,
                              .size_bytes = 0x1000,
                              .read = based_read,
                              .write = based_write,
                              .opaque = chip};
    struct bus_doorbell doorbell = {.space = BUS_MMIO,
                                    .base = chip->base + 0x120,
                                    .size_bytes = 4,
                                    .ring = based_ring,
                                    .opaque = chip};
    if (*mapped) {
        bus_doorbell_remove(bus, BUS_MMIO, doorbell.base);
        bus_unmap(bus, BUS_MMIO, chip->base);
    } else {
        assert_true(bus_map(bus, &range, NULL));
        bus_doorbell_add(bus, &doorbell);
    }
    *mapped = !*mapped;
}

static void test_changes_while_others_read(void **state)
{
    struct crowd crowd = {.bus = *state};
    struct based fixed = {.base = fixed_base + 0x2000};
    static struct based moving[MOVING];
    bool mapped[MOVING] = {false};
    struct bus_range range = {.name = "fixed",
                              .space = BUS_MMIO,
                              .base = fixed.base,
                              .size_bytes = 0x1000,
                              .read = based_read,
                              .opaque = &fixed};
    pthread_t threads[READERS];
    assert_true(bus_map(*state, &range, NULL));
    for (unsigned i = 0; i < MOVING; i++)
        moving[i].base = i * 0x4000;
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_read, &crowd), 0);
    for (unsigned i = 0; i < CHANGES || atomic_load(&crowd.reads) < 1000; i++) {
        unsigned index = i * 31 % MOVING;
        toggle(*state, &moving[index], &mapped[index]);
    }
    atomic_store(&crowd.stop, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&crowd.wrong), 0);
}

#define bus_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        bus_test(test_first_and_last_address),
        bus_test(test_spaces_are_apart),
        bus_test(test_values_are_cut_to_size),
        bus_test(test_unmapped_reads_ones),
        bus_test(test_range_without_callbacks),
        bus_test(test_access_past_the_end_reaches_the_first),
        bus_test(test_overlap_is_refused),
        bus_test(test_ends_of_the_space),
        bus_test(test_many_ranges),
        bus_test(test_callback_may_use_the_bus),
        bus_test(test_doorbell),
        bus_test(test_doorbell_overlap_keeps_the_first),
        bus_test(test_listener),
        cmocka_unit_test(test_unmapped_accesses_cannot_flood_the_log),
        bus_test(test_changes_while_others_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
