/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The file of a saved machine: what is written is read, zeroes take no room, and whatever is done
 * to the file (a byte changed at any place, cut anywhere, made longer, of a newer version) it is
 * refused with a message. A full disk leaves what was there before.
 */
#include "machine/saved_file.h"
#include "machine/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { MIB = 1 << 20, RAM_BYTES = 8 * MIB, PLACES = 100, PAGE = RAM_PAGE_BYTES };

struct fixture {
    char folder[64], path[96];
    struct ram *ram;
    struct save state;
};

/* Pages of several kinds: one alone, a long run, the last one, one that is zero though touched. */
static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    strcpy(f->folder, "/tmp/skep-saved-XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    snprintf(f->path, sizeof(f->path), "%s/machine", f->folder);
    f->ram = ram_create(RAM_BYTES, NULL);
    uint8_t *bytes = ram_hva(f->ram, 0, RAM_BYTES);
    bytes[5 * PAGE + 7] = 1;
    for (unsigned i = 0; i < 3 * MIB; i++)
        bytes[MIB + i] = (uint8_t)(i * 2654435761u >> 24);
    bytes[20 * PAGE] = 1;
    bytes[20 * PAGE] = 0;
    bytes[RAM_BYTES - 1] = 0xee;
    save_begin(&f->state, "test", 3);
    for (unsigned i = 0; i < 5000; i++)
        save_u32(&f->state, i);
    save_end(&f->state);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", f->folder);
    int status = system(command);
    ram_destroy(f->ram);
    save_free(&f->state);
    free(f);
    return status;
}

static unsigned files_in(const char *folder)
{
    char command[128];
    unsigned count = 0;
    snprintf(command, sizeof(command), "ls %s | wc -l", folder);
    FILE *pipe = popen(command, "r");
    assert_int_equal(fscanf(pipe, "%u", &count), 1);
    pclose(pipe);
    return count;
}

static void write_it(struct fixture *f)
{
    const struct saved_file_contents contents = {.state = &f->state, .ram = f->ram};
    struct error err = {0};
    if (!saved_file_write(f->path, &contents, &err))
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
}

/* Opens and checks all, as a restore does. */
static bool read_it(const char *path, struct error *err)
{
    struct saved_file file;
    *err = (struct error){0};
    if (!saved_file_open(&file, path, err))
        return false;
    struct ram *ram = ram_create(file.memory_bytes, err);
    bool good = ram && ram_overlay(ram, file.fd, file.memory_offset, err) &&
                saved_file_check_memory(&file, ram_bytes(ram), err);
    ram_destroy(ram);
    saved_file_close(&file);
    return good;
}

static void expect_refused(const char *path, const char *cause)
{
    struct error err;
    assert_false(read_it(path, &err));
    assert_int_equal(err.kind, ERROR_FAILED);
    if (!strstr(err.cause, cause))
        fail_msg("\"%s\" is not in \"%s\"", cause, err.cause);
}

static void tell(void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
    uint64_t *last = opaque;
    assert_true(done_bytes >= *last && done_bytes <= total_bytes);
    *last = done_bytes;
}

static void test_round_trip(void **state)
{
    struct fixture *f = *state;
    struct saved_file file;
    struct error err = {0};
    uint64_t told = 0;
    const struct saved_file_contents contents = {
        .state = &f->state, .ram = f->ram, .progress = tell, .opaque = &told};
    assert_true(saved_file_write(f->path, &contents, &err));
    assert_int_equal(told, RAM_BYTES);
    assert_int_equal(files_in(f->folder), 1); /* the temporary one is gone */
    struct stat status;
    assert_int_equal(stat(f->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600); /* a guest's memory holds secrets */
    assert_true(status.st_blocks * 512 < 4 * MIB); /* zeroes are holes */

    assert_true(saved_file_open(&file, f->path, &err));
    assert_int_equal(file.memory_bytes, RAM_BYTES);
    assert_int_equal(file.state_bytes, f->state.size_bytes);
    assert_memory_equal(file.state, f->state.bytes, f->state.size_bytes);
    struct ram *ram = ram_create(RAM_BYTES, NULL);
    assert_true(ram_overlay(ram, file.fd, file.memory_offset, &err));
    saved_file_close(&file); /* the mapping stays */
    assert_memory_equal(ram_bytes(ram), ram_bytes(f->ram), RAM_BYTES);

    /* What was restored can be saved again, under the same name too, and is the same. */
    ((uint8_t *)ram_hva(ram, 0, RAM_BYTES))[0] = 0x77;
    const struct saved_file_contents again = {.state = &f->state, .ram = ram};
    assert_true(saved_file_write(f->path, &again, &err));
    ram_destroy(ram);
    assert_true(saved_file_open(&file, f->path, &err));
    ram = ram_create(RAM_BYTES, NULL);
    assert_true(ram_overlay(ram, file.fd, file.memory_offset, &err));
    assert_true(saved_file_check_memory(&file, ram_bytes(ram), &err));
    assert_int_equal(ram_bytes(ram)[0], 0x77);
    assert_memory_equal(ram_bytes(ram) + 1, ram_bytes(f->ram) + 1, RAM_BYTES - 1);
    saved_file_close(&file);
    ram_destroy(ram);
}

/* A host's file system that knows no holes, or a copy without them. */
static void test_without_holes(void **state)
{
    struct fixture *f = *state;
    struct error err;
    char command[256];
    write_it(f);
    snprintf(command, sizeof(command), "cp --sparse=never %s %s2", f->path, f->path);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command), "%s2", f->path);
    if (!read_it(command, &err))
        fail_msg("%s", err.cause);
}

static void flip(const char *path, off_t at, uint8_t bits)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_damage_anywhere(void **state)
{
    struct fixture *f = *state;
    struct stat status;
    struct error err;
    write_it(f);
    assert_int_equal(stat(f->path, &status), 0);
    srand(20261127);
    /* Anywhere (mostly memory), and in the few pages that are not memory. */
    for (unsigned i = 0; i < 3 * PLACES; i++) {
        off_t at = rand() % status.st_size;
        if (i >= PLACES && i < 2 * PLACES)
            at = rand() % PAGE;
        else if (i >= 2 * PLACES)
            at = PAGE + RAM_BYTES + rand() % (status.st_size - PAGE - RAM_BYTES);
        uint8_t bits = (uint8_t)(1 + rand() % 255);
        flip(f->path, at, bits);
        if (read_it(f->path, &err))
            fail_msg("bits %#x of byte %lld: not noticed", bits, (long long)at);
        assert_int_equal(err.kind, ERROR_FAILED);
        assert_true(err.cause[0] && strstr(err.where, f->path));
        flip(f->path, at, bits);
    }
    assert_true(read_it(f->path, &err)); /* all was undone */
}

static void test_cut_anywhere(void **state)
{
    struct fixture *f = *state;
    struct stat status;
    write_it(f);
    assert_int_equal(stat(f->path, &status), 0);
    const off_t ends[] = {0,
                          1,
                          PAGE - 1,
                          PAGE,
                          PAGE + 1,
                          5 * PAGE,
                          PAGE + RAM_BYTES - 1,
                          PAGE + RAM_BYTES,
                          PAGE + RAM_BYTES + PAGE,
                          PAGE + RAM_BYTES + 2 * PAGE,
                          status.st_size - PAGE,
                          status.st_size - 1};
    for (int i = (int)(sizeof(ends) / sizeof(ends[0])) - 1; i >= 0; i--) {
        assert_int_equal(truncate(f->path, ends[i]), 0);
        expect_refused(f->path, ends[i] < PAGE ? "no saved machine" : "not as long");
    }
    write_it(f);
    assert_int_equal(truncate(f->path, status.st_size + 1), 0);
    expect_refused(f->path, "not as long");
}

/* Sums that are right over contents that are not: the fields are checked all the same. */
static void patch_header(const char *path, unsigned at, uint64_t value, unsigned size_bytes)
{
    uint8_t header[PAGE];
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, header, PAGE, 0), PAGE);
    for (unsigned i = 0; i < size_bytes; i++)
        header[at + i] = (uint8_t)(value >> 8 * i);
    uint32_t crc = UINT32_MAX;
    for (unsigned i = 0; i < PAGE - 4; i++) {
        crc ^= header[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    le32_put(header + PAGE - 4, ~crc);
    assert_int_equal(pwrite(fd, header, PAGE, 0), PAGE);
    close(fd);
}

static void test_hostile_header(void **state)
{
    struct fixture *f = *state;
    static const uint64_t sizes[] = {
        0, 1, PAGE, RAM_BYTES - PAGE, UINT64_MAX, 1ull << 55, UINT64_MAX - PAGE + 1};
    enum { VERSION = 8, MEMORY = 24, STATE = 32 };
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        write_it(f);
        patch_header(f->path, MEMORY, sizes[i], 8);
        expect_refused(f->path, "do not add up");
        write_it(f);
        patch_header(f->path, STATE, sizes[i], 8);
        expect_refused(f->path, "do not add up");
    }
    write_it(f);
    patch_header(f->path, VERSION, 2, 4);
    expect_refused(f->path, "version 2");
    patch_header(f->path, VERSION, 0, 4);
    expect_refused(f->path, "damaged");
}

static void test_no_saved_machine(void **state)
{
    struct fixture *f = *state;
    expect_refused(f->path, "No such file");
    expect_refused(f->folder, "it is no file");
    expect_refused("/dev/zero", "it is no file");
    expect_refused("/proc/self/exe", "no saved machine");
}

/* A limit on the size of files stands for a full disk: both fail a write in the middle. */
static void test_disk_full(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    const struct saved_file_contents contents = {.state = &f->state, .ram = f->ram};
    struct rlimit before, limit;
    write_it(f);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){2 * MIB, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    bool written = saved_file_write(f->path, &contents, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(written);
    assert_string_equal(err.cause, strerror(EFBIG));
    assert_int_equal(files_in(f->folder), 1);
    assert_true(read_it(f->path, &err)); /* the one from before */

    char nowhere[128];
    snprintf(nowhere, sizeof(nowhere), "%s/missing/machine", f->folder);
    assert_false(saved_file_write(nowhere, &contents, &err));
    assert_string_equal(err.cause, strerror(ENOENT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_holes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damage_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cut_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hostile_header, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_saved_machine, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_disk_full, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
