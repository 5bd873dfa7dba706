/* SPDX-License-Identifier: BSD-2-Clause
 * Guest RAM: its two regions and the hole between them, hostile addresses, the watcher, and memory
 * that is given back. */
#include "bus/ram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB UINT64_C(0x100000)

static uint64_t host_bytes(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_low_region_only(void **state)
{
    struct ram *ram = ram_create(16 * MIB, NULL);
    assert_non_null(ram);
    assert_int_equal(ram_size_bytes(ram), 16 * MIB);
    assert_int_equal(ram_region_count(ram), 1);
    const struct ram_region *region = ram_region(ram, 0);
    assert_int_equal(region->gpa, 0);
    assert_int_equal(region->size_bytes, 16 * MIB);
    assert_int_equal(region->file_offset, 0);
    assert_ptr_equal(ram_hva(ram, 0, 16 * MIB), region->hva);
    assert_null(ram_region(ram, 1));
    assert_true(ram_fd(ram) >= 0);
    ram_destroy(ram);
    ram_destroy(NULL);
}

static void test_both_regions(void **state)
{
    uint64_t size = RAM_LOW_MAX_BYTES + 64 * MIB;
    if (size > host_bytes())
        skip();
    struct ram *ram = ram_create(size, NULL);
    assert_non_null(ram);
    assert_int_equal(ram_region_count(ram), 2);
    assert_int_equal(ram_region(ram, 0)->size_bytes, RAM_LOW_MAX_BYTES);
    const struct ram_region *high = ram_region(ram, 1);
    assert_int_equal(high->gpa, RAM_HIGH_BASE);
    assert_int_equal(high->size_bytes, 64 * MIB);
    assert_int_equal(high->file_offset, RAM_LOW_MAX_BYTES);

    /* The end of the low part, and nothing of the hole. */
    assert_true(ram_write(ram, RAM_LOW_MAX_BYTES - 4, "last", 4));
    assert_false(ram_write(ram, RAM_LOW_MAX_BYTES - 3, "last", 4));
    assert_null(ram_hva(ram, RAM_LOW_MAX_BYTES, 1));
    assert_null(ram_hva(ram, RAM_HIGH_BASE - 1, 1));
    assert_null(ram_hva(ram, RAM_HIGH_BASE - 1, 2));
    assert_null(ram_hva(ram, RAM_LOW_MAX_BYTES - 1, RAM_HIGH_BASE - RAM_LOW_MAX_BYTES + 2));

    /* The high part, and that it is other memory than the low. */
    char text[5] = {0};
    assert_true(ram_write(ram, RAM_HIGH_BASE, "high", 4));
    assert_true(ram_write(ram, 0, "low!", 4));
    assert_true(ram_read(ram, RAM_HIGH_BASE, text, 4));
    assert_string_equal(text, "high");
    assert_true(ram_read(ram, RAM_LOW_MAX_BYTES - 4, text, 4));
    assert_string_equal(text, "last");
    assert_non_null(ram_hva(ram, RAM_HIGH_BASE + 64 * MIB - 1, 1));
    assert_null(ram_hva(ram, RAM_HIGH_BASE + 64 * MIB, 1));
    assert_null(ram_hva(ram, RAM_HIGH_BASE + 64 * MIB - 1, 2));

    /* hva and file offset say the same. */
    assert_int_equal(pread(ram_fd(ram), text, 4, (off_t)high->file_offset), 4);
    assert_string_equal(text, "high");
    ram_destroy(ram);
}

static void test_hostile_addresses(void **state)
{
    struct ram *ram = ram_create(MIB, NULL);
    char byte = 'x';
    assert_null(ram_hva(ram, 0, 0));
    assert_null(ram_hva(ram, 0, MIB + 1));
    assert_null(ram_hva(ram, 0, UINT64_MAX));
    assert_null(ram_hva(ram, MIB, 1));
    assert_null(ram_hva(ram, MIB - 1, 2));
    assert_null(ram_hva(ram, MIB - 1, UINT64_MAX));
    assert_null(ram_hva(ram, UINT64_MAX, 1));
    assert_null(ram_hva(ram, UINT64_MAX, 2)); /* the sum is 1 */
    assert_null(ram_hva(ram, UINT64_MAX - 4095, 8192));
    assert_null(ram_hva(ram, 1, UINT64_MAX));
    assert_false(ram_read(ram, MIB, &byte, 1));
    assert_int_equal(byte, 'x');
    assert_false(ram_read(ram, 0, &byte, SIZE_MAX));
    assert_false(ram_write(ram, UINT64_MAX, &byte, 1));
    assert_false(ram_discard(ram, UINT64_MAX - 4095, 8192));
    assert_false(ram_discard(ram, 0, MIB + 4096));
    assert_false(ram_discard(ram, MIB, 4096));
    assert_true(ram_read(ram, 0, &byte, 0)); /* nothing is all RAM */
    ram_destroy(ram);
}

static void test_sizes_that_are_refused(void **state)
{
    struct error err = {0};
    assert_null(ram_create(0, &err));
    assert_int_equal(err.kind, ERROR_USAGE);
    assert_null(ram_create(4095, &err));
    assert_int_equal(err.kind, ERROR_USAGE);
    assert_null(ram_create(MIB + 1, NULL));

    uint64_t too_large[] = {host_bytes() + 4096, UINT64_C(1) << 63, UINT64_MAX & ~UINT64_C(4095)};
    for (unsigned i = 0; i < 3; i++) {
        memset(&err, 0, sizeof(err));
        assert_null(ram_create(too_large[i], &err));
        assert_int_equal(err.kind, ERROR_FAILED);
        assert_non_null(strstr(err.cause, "the host has"));
        assert_true(strlen(err.hint) > 0);
    }
}

struct watcher {
    unsigned calls;
    uint64_t gpa;
    uint64_t size_bytes;
};

static void watched(void *opaque, uint64_t gpa, uint64_t size_bytes)
{
    struct watcher *watcher = opaque;
    watcher->calls++;
    watcher->gpa = gpa;
    watcher->size_bytes = size_bytes;
}

static void test_watcher(void **state)
{
    struct ram *ram = ram_create(MIB, NULL);
    struct watcher watcher = {0};
    char bytes[8] = {0};
    ram_written(ram, 0, 8); /* nobody watches */
    ram_set_watcher(ram, watched, &watcher);
    assert_true(ram_write(ram, 0x1234, bytes, 8));
    assert_int_equal(watcher.calls, 1);
    assert_int_equal(watcher.gpa, 0x1234);
    assert_int_equal(watcher.size_bytes, 8);
    ram_read(ram, 0, bytes, 8);
    ram_write(ram, MIB, bytes, 8);
    ram_write(ram, 0, bytes, 0);
    ram_written(ram, MIB - 1, 2); /* not RAM: a watcher need not check */
    ram_written(ram, 0, 0);
    assert_int_equal(watcher.calls, 1);
    ram_written(ram, MIB - 1, 1);
    assert_int_equal(watcher.calls, 2);
    assert_true(ram_discard(ram, 0x1001, 0x3000));
    assert_int_equal(watcher.calls, 3);
    assert_int_equal(watcher.gpa, 0x2000);
    assert_int_equal(watcher.size_bytes, 0x2000);
    ram_clear(ram);
    assert_int_equal(watcher.calls, 4);
    assert_int_equal(watcher.size_bytes, MIB);
    ram_set_watcher(ram, NULL, NULL);
    ram_write(ram, 0, bytes, 8);
    assert_int_equal(watcher.calls, 4);
    ram_destroy(ram);
}

static uint64_t used_bytes(const struct ram *ram)
{
    struct stat status;
    assert_int_equal(fstat(ram_fd(ram), &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static void test_discard(void **state)
{
    struct ram *ram = ram_create(16 * MIB, NULL);
    uint8_t *bytes = ram_hva(ram, 0, 16 * MIB);
    assert_int_equal(used_bytes(ram), 0); /* nothing is given before it is touched */
    memset(bytes, 0xaa, 8 * MIB);
    assert_int_equal(used_bytes(ram), 8 * MIB);

    /* Whole pages only: the broken ones at both ends stay. */
    assert_true(ram_discard(ram, 0x1001, 0x4000));
    assert_int_equal(used_bytes(ram), 8 * MIB - 0x3000);
    assert_int_equal(bytes[0x1fff], 0xaa);
    for (unsigned i = 0x2000; i < 0x5000; i++)
        assert_int_equal(bytes[i], 0);
    assert_int_equal(bytes[0x5000], 0xaa);

    /* No whole page: nothing happens. */
    assert_true(ram_discard(ram, 0x8001, 0x1ffe));
    assert_true(ram_discard(ram, 0x8001, 10));
    assert_true(ram_discard(ram, 0x8001, 0));
    assert_int_equal(bytes[0x8fff], 0xaa);
    assert_int_equal(bytes[0x9000], 0xaa);

    assert_true(ram_discard(ram, 0x9000, 0x1000));
    assert_int_equal(bytes[0x8fff], 0xaa);
    assert_int_equal(bytes[0x9000], 0);
    assert_int_equal(bytes[0xa000], 0xaa);
    bytes[0x9000] = 1; /* comes back when it is touched */
    assert_int_equal(bytes[0x9000], 1);

    ram_clear(ram);
    assert_int_equal(used_bytes(ram), 0);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[8 * MIB - 1], 0);
    ram_destroy(ram);
}

static void test_discard_of_the_high_region(void **state)
{
    uint64_t size = RAM_LOW_MAX_BYTES + MIB;
    if (size > host_bytes())
        skip();
    struct ram *ram = ram_create(size, NULL);
    uint8_t *low = ram_hva(ram, RAM_LOW_MAX_BYTES - 4096, 4096);
    uint8_t *high = ram_hva(ram, RAM_HIGH_BASE, 8192);
    *low = 1;
    high[0] = 2;
    high[4096] = 3;
    assert_true(ram_discard(ram, RAM_HIGH_BASE, 4096));
    assert_int_equal(*low, 1);
    assert_int_equal(high[0], 0);
    assert_int_equal(high[4096], 3);
    ram_destroy(ram);
}

static void test_size_is_sealed(void **state)
{
    struct ram *ram = ram_create(MIB, NULL);
    assert_int_equal(ftruncate(ram_fd(ram), 4096), -1);
    assert_int_equal(ftruncate(ram_fd(ram), 2 * MIB), -1);
    ram_destroy(ram);
}

static int make_file(const void *bytes, size_t size_bytes)
{
    char path[] = "/tmp/skep-ram-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(pwrite(fd, bytes, size_bytes, 4096), (ssize_t)size_bytes);
    assert_int_equal(ftruncate(fd, 4096 + (off_t)MIB), 0);
    return fd;
}

/* Private, lazy, given back by discard and gone after clear. */
static void test_overlay(void **state)
{
    char text[3 * 4096];
    memset(text, 'a', sizeof(text));
    int fd = make_file(text, sizeof(text));
    struct ram *ram = ram_create(MIB, NULL);
    uint8_t *bytes = ram_hva(ram, 0, MIB);
    struct watcher watcher = {0};
    bytes[0] = 1;
    ram_set_watcher(ram, watched, &watcher);
    assert_true(ram_overlay(ram, fd, 4096, NULL));
    assert_int_equal(watcher.calls, 1);
    assert_ptr_equal(ram_hva(ram, 0, MIB), bytes); /* engines have mapped it there */
    assert_memory_equal(bytes, text, sizeof(text));
    assert_int_equal(bytes[sizeof(text)], 0);
    bytes[5] = 'b';
    assert_int_equal(pread(fd, text, 1, 4096 + 5), 1);
    assert_int_equal(text[0], 'a');
    assert_true(ram_discard(ram, 4096, 4096));
    assert_int_equal(bytes[4095], 'a');
    assert_int_equal(bytes[4096], 0);
    assert_int_equal(bytes[8192], 'a');
    bytes[4096] = 'c';
    assert_true(ram_discard(ram, 0, 12288));
    assert_int_equal(bytes[4096], 0);
    assert_int_equal(bytes[8192], 0);
    ram_clear(ram);
    bytes[0] = 9;
    assert_int_equal(pread(ram_fd(ram), text, 1, 0), 1);
    assert_int_equal(text[0], 9);
    close(fd);
    ram_destroy(ram);
}

static void test_used_runs(void **state)
{
    struct ram *ram = ram_create(MIB, NULL);
    uint64_t at = 0, end;
    assert_false(ram_next_used(ram, &at, &end));
    ((uint8_t *)ram_hva(ram, 0, MIB))[5 * 4096 + 7] = 1;
    at = 0;
    assert_true(ram_next_used(ram, &at, &end));
    assert_int_equal(at, 5 * 4096);
    assert_int_equal(end, 6 * 4096);
    at = end;
    assert_false(ram_next_used(ram, &at, &end));
    at = MIB;
    assert_false(ram_next_used(ram, &at, &end));
    ram_destroy(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_low_region_only),
        cmocka_unit_test(test_both_regions),
        cmocka_unit_test(test_hostile_addresses),
        cmocka_unit_test(test_sizes_that_are_refused),
        cmocka_unit_test(test_watcher),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_discard_of_the_high_region),
        cmocka_unit_test(test_size_is_sealed),
        cmocka_unit_test(test_overlay),
        cmocka_unit_test(test_used_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
