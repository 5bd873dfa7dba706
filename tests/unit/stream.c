/* SPDX-License-Identifier: BSD-2-Clause
 * The save/load stream: round trips, and streams that are cut, misnamed or too long. */
#include "bus/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char longest_name[] = "a-name-of-thirty-one-characters";

static void save_two_sections(struct save *save)
{
    save_begin(save, "i8254", 3);
    save_u8(save, 0xab);
    save_u16(save, 0x1234);
    save_u32(save, 0xdeadbeef);
    save_u64(save, UINT64_C(0x0123456789abcdef));
    save_bool(save, true);
    save_bool(save, false);
    save_bytes(save, "hello", 5);
    save_bytes(save, NULL, 0);
    save_end(save);
    save_begin(save, longest_name, UINT32_MAX);
    save_end(save);
}

/* Whether all of a stream of save_two_sections() loads with the right values. */
static bool load_two_sections(const uint8_t *bytes, size_t size_bytes, bool *values_right)
{
    struct load load;
    uint32_t version;
    char text[5];
    load_init(&load, bytes, size_bytes);
    load_begin(&load, "i8254", &version);
    bool right = version == 3;
    right &= load_u8(&load) == 0xab;
    right &= load_u16(&load) == 0x1234;
    right &= load_u32(&load) == 0xdeadbeef;
    right &= load_u64(&load) == UINT64_C(0x0123456789abcdef);
    right &= load_bool(&load);
    right &= !load_bool(&load);
    load_bytes(&load, text, sizeof(text));
    right &= memcmp(text, "hello", 5) == 0;
    load_end(&load);
    load_begin(&load, longest_name, &version);
    right &= version == UINT32_MAX;
    *values_right = right;
    return load_end(&load);
}

static void test_round_trip(void **state)
{
    struct save save = {0};
    bool right;
    save_two_sections(&save);
    assert_false(save.failed);
    assert_true(load_two_sections(save.bytes, save.size_bytes, &right));
    assert_true(right);
    save_free(&save);
    assert_null(save.bytes);
}

static void test_values_are_little_endian(void **state)
{
    struct save save = {0};
    save_begin(&save, "x", 1);
    size_t start = save.size_bytes;
    save_u32(&save, 0x04030201);
    save_u16(&save, 0x0605);
    save_end(&save);
    assert_int_equal(save.size_bytes - start, 6);
    assert_memory_equal(save.bytes + start, "\1\2\3\4\5\6", 6);
    save_free(&save);
}

static void test_truncated_at_every_byte(void **state)
{
    struct save save = {0};
    save_two_sections(&save);
    for (size_t size = 0; size < save.size_bytes; size++) {
        /* A copy of that very size, so that ASan sees a read past its end. */
        uint8_t *cut = malloc(size + 1);
        uint8_t *exact = realloc(cut, size ? size : 1);
        bool right;
        memcpy(exact, save.bytes, size);
        assert_false(load_two_sections(exact, size, &right));
        free(exact);
    }
    save_free(&save);
}

static void test_every_corrupt_header_byte_fails(void **state)
{
    enum { HEADER_BYTES = 32 + 4 + 8, VERSION_AT = 32 };
    struct save save = {0};
    bool right;
    save_two_sections(&save);
    for (size_t i = 0; i < HEADER_BYTES; i++) {
        save.bytes[i] ^= 0x81;
        bool loaded = load_two_sections(save.bytes, save.size_bytes, &right);
        if (i >= VERSION_AT && i < VERSION_AT + 4)
            assert_false(right); /* the version is the caller's to judge */
        else
            assert_false(loaded);
        save.bytes[i] ^= 0x81;
    }
    assert_true(load_two_sections(save.bytes, save.size_bytes, &right));
    save_free(&save);
}

static void test_wrong_name(void **state)
{
    const char *wrong[] = {"i8259", "i825", "i82544", "I8254", "x"};
    struct save save = {0};
    save_two_sections(&save);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct load load;
        uint32_t version = 99;
        load_init(&load, save.bytes, save.size_bytes);
        assert_false(load_begin(&load, wrong[i], &version));
        assert_int_equal(version, 0);
        assert_true(load.failed);
        assert_int_equal(load_u8(&load), 0);
        assert_false(load_end(&load));
        assert_false(load_begin(&load, "i8254", &version)); /* the failure stays */
    }
    save_free(&save);
}

static void test_leftovers_fail(void **state)
{
    struct save save = {0};
    struct load load;
    uint32_t version;
    save_begin(&save, "x", 1);
    save_u32(&save, 1);
    save_end(&save);
    save_begin(&save, "y", 1);
    save_end(&save);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, "x", &version));
    load_u16(&load);
    assert_false(load_end(&load));
    assert_true(load.failed);
    save_free(&save);
}

static void test_reads_stay_in_their_section(void **state)
{
    struct save save = {0};
    struct load load;
    uint32_t version;
    char bytes[2] = {'a', 'b'};
    save_begin(&save, "x", 1);
    save_u8(&save, 7);
    save_end(&save);
    save_begin(&save, "y", 1);
    save_u64(&save, UINT64_MAX);
    save_end(&save);

    load_init(&load, save.bytes, save.size_bytes);
    assert_int_equal(load_u8(&load), 0); /* before any section */
    assert_true(load.failed);

    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, "x", &version));
    load_bytes(&load, bytes, 2); /* one byte more than there is: none is given */
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[1], 0);
    assert_true(load.failed);

    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, "x", &version));
    assert_int_equal(load_u8(&load), 7);
    assert_true(load_end(&load));
    assert_int_equal(load_u64(&load), 0); /* between two */
    assert_true(load.failed);
    save_free(&save);
}

static void test_bool_is_0_or_1(void **state)
{
    struct save save = {0};
    struct load load;
    uint32_t version;
    save_begin(&save, "x", 1);
    save_u8(&save, 2);
    save_end(&save);
    load_init(&load, save.bytes, save.size_bytes);
    load_begin(&load, "x", &version);
    assert_false(load_bool(&load));
    assert_true(load.failed);
    assert_false(load_end(&load));
    save_free(&save);
}

static void test_load_fail_sticks(void **state)
{
    struct save save = {0};
    struct load load;
    uint32_t version;
    save_begin(&save, "x", 1);
    save_u8(&save, 5);
    save_end(&save);
    load_init(&load, save.bytes, save.size_bytes);
    load_begin(&load, "x", &version);
    load_fail(&load);
    assert_int_equal(load_u8(&load), 0);
    assert_false(load_end(&load));
    save_free(&save);
}

static void test_large_values_grow_the_buffer(void **state)
{
    enum { SIZE = 3 * 1000 * 1000 };
    uint8_t *bytes = malloc(SIZE);
    uint8_t *back = malloc(SIZE);
    struct save save = {0};
    struct load load;
    uint32_t version;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    save_begin(&save, "big", 1);
    save_bytes(&save, bytes, SIZE);
    save_end(&save);
    assert_false(save.failed);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, "big", &version));
    load_bytes(&load, back, SIZE);
    assert_true(load_end(&load));
    assert_memory_equal(bytes, back, SIZE);
    assert_int_equal(load.offset, save.size_bytes);
    save_free(&save);
    free(bytes);
    free(back);
}

static void test_impossible_size_fails(void **state)
{
    struct save save = {0};
    save_begin(&save, "x", 1);
    save_bytes(&save, "y", SIZE_MAX); /* is not copied: the sum overflows */
    assert_true(save.failed);
    size_t size = save.size_bytes;
    save_u8(&save, 1); /* nothing more is done */
    assert_int_equal(save.size_bytes, size);
    save_end(&save);
    save_free(&save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_values_are_little_endian),
        cmocka_unit_test(test_truncated_at_every_byte),
        cmocka_unit_test(test_every_corrupt_header_byte_fails),
        cmocka_unit_test(test_wrong_name),
        cmocka_unit_test(test_leftovers_fail),
        cmocka_unit_test(test_reads_stay_in_their_section),
        cmocka_unit_test(test_bool_is_0_or_1),
        cmocka_unit_test(test_load_fail_sticks),
        cmocka_unit_test(test_large_values_grow_the_buffer),
        cmocka_unit_test(test_impossible_size_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
