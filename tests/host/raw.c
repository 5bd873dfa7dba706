/* SPDX-License-Identifier: BSD-2-Clause
 * Raw images as disks: what opens and what does not, reads and writes, several at once, flush,
 * discard that frees blocks, zeroes, locks, read-only, a full file system. */
#include "host/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MIB = 1 << 20, PENDING = -1 };

struct env {
    struct loop *loop;
    char dir[64];
    char path[96];
    struct block_backend disk;
    bool is_open;
};

static int setup(void **state)
{
    struct env *env = calloc(1, sizeof(*env));
    assert_non_null(env);
    env->loop = loop_create(NULL);
    assert_non_null(env->loop);
    strcpy(env->dir, "/var/tmp/skep-raw-XXXXXX");
    assert_non_null(mkdtemp(env->dir));
    snprintf(env->path, sizeof(env->path), "%s/disk", env->dir);
    *state = env;
    return 0;
}

static int teardown(void **state)
{
    struct env *env = *state;
    if (env->is_open)
        env->disk.close(env->disk.opaque);
    loop_destroy(env->loop);
    unlink(env->path);
    assert_int_equal(rmdir(env->dir), 0);
    free(env);
    return 0;
}

static void make_file(const char *path, off_t size_bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size_bytes), 0);
    close(fd);
}

static void must_open(struct env *env, bool read_only)
{
    struct raw_config config = {.path = env->path, .read_only = read_only};
    struct error err = {0};
    if (!raw_open(&config, env->loop, &env->disk, &err))
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
    env->is_open = true;
}

static void must_close(struct env *env)
{
    env->disk.close(env->disk.opaque);
    env->is_open = false;
}

static void must_fail(struct env *env, const char *path, bool read_only, const char *cause,
                      const char *hint)
{
    struct raw_config config = {
        .path = path, .read_only = read_only, .new_size = read_only ? NULL : "10G"};
    struct error err = {0};
    struct block_backend disk;
    assert_false(raw_open(&config, env->loop, &disk, &err));
    assert_int_equal(err.kind, ERROR_FAILED);
    assert_string_equal(err.where, path);
    if (!strstr(err.cause, cause))
        fail_msg("cause is \"%s\", not \"%s\"", err.cause, cause);
    if (!strstr(err.hint, hint))
        fail_msg("hint is \"%s\", not \"%s\"", err.hint, hint);
}

static void store_result(struct block_request *request, int error)
{
    *(int *)request->opaque = error;
}

static int run(struct env *env, enum block_kind kind, uint64_t offset, const struct iovec *iov,
               unsigned iov_count, uint64_t size_bytes, bool may_unmap)
{
    int result = PENDING;
    struct block_request request = {.kind = kind,
                                    .may_unmap = may_unmap,
                                    .offset_bytes = offset,
                                    .size_bytes = size_bytes,
                                    .iov = iov,
                                    .iov_count = iov_count,
                                    .done = store_result,
                                    .opaque = &result};
    env->disk.submit(env->disk.opaque, &request);
    assert_int_equal(result, PENDING); /* never from inside submit */
    while (result == PENDING)
        loop_run_once(env->loop, 1000);
    return result;
}

static int run_bytes(struct env *env, enum block_kind kind, uint64_t offset, void *bytes,
                     size_t size_bytes)
{
    struct iovec iov = {bytes, size_bytes};
    return run(env, kind, offset, &iov, 1, size_bytes, false);
}

static void test_open_errors(void **state)
{
    struct env *env = *state;
    must_fail(env, env->path, false, "No such file", "truncate");
    must_fail(env, env->path, true, "No such file", "check the path");
    must_fail(env, env->dir, false, "directory", "path of an image");
    must_fail(env, "/dev/null", false, "neither", "path of an image");
    make_file(env->path, 0);
    must_fail(env, env->path, false, "empty", "truncate");
}

static void test_other_formats(void **state)
{
    static const struct {
        const char *mark, *cause;
        size_t size_bytes;
        off_t offset;
    } cases[] = {{"QFI\xfb\0\0\0\3", "qcow2", 8, 0},
                 {"KDMV", "vmdk", 4, 0},
                 {"\x7f\x10\xda\xbe", "vdi", 4, 0x40}};
    struct env *env = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        make_file(env->path, MIB);
        int fd = open(env->path, O_RDWR | O_CLOEXEC);
        assert_int_equal(pwrite(fd, cases[i].mark, cases[i].size_bytes, cases[i].offset),
                         cases[i].size_bytes);
        close(fd);
        must_fail(env, env->path, false, cases[i].cause, "qemu-img convert");
    }
    struct raw_config config = {.path = env->path, .is_surely_raw = true};
    assert_true(raw_open(&config, env->loop, &env->disk, NULL));
    env->is_open = true;
}

/* Permissions do not bind root: a child drops to another user for the attempt. */
static void test_permissions(void **state)
{
    struct env *env = *state;
    make_file(env->path, MIB);
    assert_int_equal(chmod(env->path, 0444), 0);
    assert_int_equal(chmod(env->dir, 0755), 0);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(9);
        struct raw_config config = {.path = env->path};
        struct error err = {0};
        struct block_backend disk;
        struct loop *loop = loop_create(NULL);
        if (raw_open(&config, loop, &disk, &err) || !strstr(err.cause, "read-only") ||
            !strstr(err.hint, ",ro"))
            _exit(1);
        config.read_only = true;
        if (!raw_open(&config, loop, &disk, &err))
            _exit(2);
        disk.close(disk.opaque);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);

    assert_int_equal(chmod(env->path, 0000), 0);
    child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(9);
        struct raw_config config = {.path = env->path, .read_only = true};
        struct error err = {0};
        struct block_backend disk;
        struct loop *loop = loop_create(NULL);
        bool right =
            !raw_open(&config, loop, &disk, &err) && strstr(err.cause, "denied") && err.hint[0];
        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_read_write(void **state)
{
    struct env *env = *state;
    make_file(env->path, MIB);
    must_open(env, false);
    struct block_info info;
    env->disk.info(env->disk.opaque, &info);
    assert_int_equal(info.size_bytes, MIB);
    assert_false(info.read_only);
    assert_true(info.physical_block_bytes >= 512);

    uint8_t a[1000], b[48], c[1024], back[2072];
    memset(a, 'a', sizeof(a));
    memset(b, 'b', sizeof(b));
    memset(c, 'c', sizeof(c));
    struct iovec iov[] = {{a, sizeof(a)}, {a, 0}, {b, sizeof(b)}, {c, sizeof(c)}};
    assert_int_equal(run(env, BLOCK_WRITE, 4096, iov, 4, 2072, false), 0);
    assert_int_equal(run_bytes(env, BLOCK_READ, 4096, back, sizeof(back)), 0);
    assert_memory_equal(back, a, sizeof(a));
    assert_memory_equal(back + 1000, b, sizeof(b));
    assert_memory_equal(back + 1048, c, sizeof(c));
    assert_int_equal(run_bytes(env, BLOCK_FLUSH, 0, NULL, 0), 0);

    /* Out of the disk's range, also where the sum wraps. */
    assert_int_equal(run_bytes(env, BLOCK_READ, MIB, back, 512), EINVAL);
    assert_int_equal(run_bytes(env, BLOCK_WRITE, MIB - 512, back, 1024), EINVAL);
    assert_int_equal(run_bytes(env, BLOCK_READ, UINT64_MAX - 511, back, 1024), EINVAL);
    assert_int_equal(run(env, BLOCK_DISCARD, 512, NULL, 0, UINT64_MAX, false), EINVAL);
    must_close(env);

    uint8_t file[2072];
    int fd = open(env->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, file, sizeof(file), 4096), sizeof(file));
    close(fd);
    assert_memory_equal(file, back, sizeof(file));
}

/* QEMU rounds such a size up: the rest of the last sector is zeroes until it is written. */
static void test_odd_size(void **state)
{
    struct env *env = *state;
    make_file(env->path, 1000);
    int fd = open(env->path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "xyz", 3, 997), 3);
    must_open(env, false);
    struct block_info info;
    env->disk.info(env->disk.opaque, &info);
    assert_int_equal(info.size_bytes, 1024);
    uint8_t sector[512], zero[24] = {0};
    memset(sector, 0xee, sizeof(sector));
    assert_int_equal(run_bytes(env, BLOCK_READ, 512, sector, 512), 0);
    assert_memory_equal(sector + 485, "xyz", 3);
    assert_memory_equal(sector + 488, zero, 24);
    memset(sector, 'q', sizeof(sector));
    assert_int_equal(run_bytes(env, BLOCK_WRITE, 512, sector, 512), 0);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, 1024);
    close(fd);
}

static void test_read_only(void **state)
{
    struct env *env = *state;
    make_file(env->path, MIB);
    must_open(env, true);
    uint8_t sector[512] = {1};
    struct block_info info;
    env->disk.info(env->disk.opaque, &info);
    assert_true(info.read_only);
    assert_false(info.can_discard);
    assert_int_equal(run_bytes(env, BLOCK_WRITE, 0, sector, 512), EROFS);
    assert_int_equal(run(env, BLOCK_DISCARD, 0, NULL, 0, 4096, false), EROFS);
    assert_int_equal(run(env, BLOCK_WRITE_ZEROES, 0, NULL, 0, 4096, true), EROFS);
    assert_int_equal(run_bytes(env, BLOCK_READ, 0, sector, 512), 0);
    assert_int_equal(sector[0], 0);
    assert_int_equal(run_bytes(env, BLOCK_FLUSH, 0, NULL, 0), 0);
}

static void test_locks(void **state)
{
    struct env *env = *state;
    make_file(env->path, MIB);
    must_open(env, false);
    char pid[32];
    snprintf(pid, sizeof(pid), "process %d", (int)getpid());
    must_fail(env, env->path, false, "in use", pid);
    must_fail(env, env->path, true, "in use", pid);
    must_close(env);

    must_open(env, true); /* readers share, and keep writers out */
    must_fail(env, env->path, false, "in use", pid);
    struct raw_config config = {.path = env->path, .read_only = true};
    struct block_backend second;
    assert_true(raw_open(&config, env->loop, &second, NULL));
    second.close(second.opaque);
    must_close(env);
    must_open(env, false);
}

static blkcnt_t blocks_of(const char *path)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return status.st_blocks;
}

static void fill(struct env *env, uint8_t *bytes)
{
    memset(bytes, 0x5a, MIB);
    assert_int_equal(run_bytes(env, BLOCK_WRITE, 0, bytes, MIB), 0);
    assert_int_equal(run_bytes(env, BLOCK_FLUSH, 0, NULL, 0), 0);
}

static void test_discard_frees(void **state)
{
    struct env *env = *state;
    make_file(env->path, MIB);
    must_open(env, false);
    struct block_info info;
    env->disk.info(env->disk.opaque, &info);
    if (!info.can_discard)
        skip();
    uint8_t *bytes = malloc(MIB);
    fill(env, bytes);
    blkcnt_t full = blocks_of(env->path);
    assert_true(full >= MIB / 512);
    assert_int_equal(run(env, BLOCK_DISCARD, 65536, NULL, 0, MIB / 2, false), 0);
    assert_true(blocks_of(env->path) <= full - MIB / 2 / 512 + 16);
    assert_int_equal(run(env, BLOCK_WRITE_ZEROES, 0, NULL, 0, MIB, true), 0);
    assert_true(blocks_of(env->path) <= 16);
    struct stat status;
    assert_int_equal(stat(env->path, &status), 0);
    assert_int_equal(status.st_size, MIB);
    free(bytes);
}

static void test_write_zeroes(void **state)
{
    struct env *env = *state;
    make_file(env->path, MIB);
    must_open(env, false);
    uint8_t *bytes = malloc(MIB), *back = malloc(MIB);
    for (int may_unmap = 0; may_unmap < 2; may_unmap++) {
        fill(env, bytes);
        assert_int_equal(run(env, BLOCK_WRITE_ZEROES, 1536, NULL, 0, 200 * 512, may_unmap), 0);
        memset(bytes + 1536, 0, 200 * 512);
        assert_int_equal(run_bytes(env, BLOCK_READ, 0, back, MIB), 0);
        assert_memory_equal(bytes, back, MIB);
    }
    free(bytes);
    free(back);
}

enum { MANY = 64, MANY_BYTES = 16384 };
struct many {
    struct block_request request;
    struct iovec iov;
    unsigned *left;
    uint8_t bytes[MANY_BYTES];
};

static void count_down(struct block_request *request, int error)
{
    struct many *one = request->opaque;
    assert_int_equal(error, 0);
    --*one->left;
}

static void submit_many(struct env *env, struct many *all, enum block_kind kind, unsigned *left)
{
    *left = MANY;
    for (unsigned i = 0; i < MANY; i++) {
        struct many *one = &all[i];
        one->iov = (struct iovec){one->bytes, MANY_BYTES};
        one->left = left;
        one->request = (struct block_request){.kind = kind,
                                              .offset_bytes = (uint64_t)i * MANY_BYTES,
                                              .size_bytes = MANY_BYTES,
                                              .iov = &one->iov,
                                              .iov_count = 1,
                                              .done = count_down,
                                              .opaque = one};
        env->disk.submit(env->disk.opaque, &one->request);
    }
}

static void test_many_at_once(void **state)
{
    struct env *env = *state;
    make_file(env->path, MANY * MANY_BYTES);
    must_open(env, false);
    struct many *all = calloc(MANY, sizeof(*all));
    unsigned left;
    for (unsigned i = 0; i < MANY; i++)
        memset(all[i].bytes, (int)i + 1, MANY_BYTES);
    submit_many(env, all, BLOCK_WRITE, &left);
    while (left > 0)
        loop_run_once(env->loop, 1000);
    for (unsigned i = 0; i < MANY; i++)
        memset(all[i].bytes, 0, MANY_BYTES);
    submit_many(env, all, BLOCK_READ, &left);
    env->disk.drain(env->disk.opaque); /* with no help of the loop */
    assert_int_equal(left, 0);
    for (unsigned i = 0; i < MANY; i++)
        for (unsigned k = 0; k < MANY_BYTES; k++)
            assert_int_equal(all[i].bytes[k], i + 1);
    submit_many(env, all, BLOCK_WRITE, &left);
    must_close(env); /* close drains */
    assert_int_equal(left, 0);
    free(all);
}

static void test_full_file_system(void **state)
{
    struct env *env = *state;
    char place[96], path[128];
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        skip(); /* needs the right to mount */
    snprintf(place, sizeof(place), "%s/small", env->dir);
    assert_int_equal(mkdir(place, 0700), 0);
    assert_int_equal(mount("none", place, "tmpfs", 0, "size=64k"), 0);
    snprintf(path, sizeof(path), "%s/disk", place);
    make_file(path, MIB);
    struct raw_config config = {.path = path};
    assert_true(raw_open(&config, env->loop, &env->disk, NULL));
    uint8_t *bytes = calloc(1, MIB);
    assert_int_equal(run_bytes(env, BLOCK_WRITE, 0, bytes, MIB), ENOSPC);
    assert_int_equal(run_bytes(env, BLOCK_READ, 0, bytes, 4096), 0);
    free(bytes);
    env->disk.close(env->disk.opaque);
    assert_int_equal(umount(place), 0);
    assert_int_equal(rmdir(place), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_formats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_permissions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard_frees, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_zeroes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_file_system, setup, teardown),
    };
    return cmocka_run_group_tests_name("raw", tests, NULL, NULL);
}
