/* SPDX-License-Identifier: BSD-2-Clause
 * The balloon through the bus: what is inflated or reported free is the host's again (seen in the
 * blocks of the RAM's file), page numbers that lie, statistics, which queue is which. */
#include "dev/virtio_driver.h"

#include "dev/virtio/balloon.h"

#include <sys/stat.h>

enum { SLOT = 3, INFLATE = 0, DEFLATE = 1, QUEUE_SIZE = 8, RAM_BYTES = 32 << 20, PAGE = 4096 };

#define F_STATS     (UINT64_C(1) << 1)
#define F_OOM       (UINT64_C(1) << 2)
#define F_REPORTING (UINT64_C(1) << 5)

struct fixture {
    struct vd_machine m;
    struct virtio_device *device;
    struct virtio_pci *pci;
    struct vd d;
};

static void create(struct fixture *f)
{
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, RAM_BYTES);
    struct virtio_balloon_config config = {.ram = f->m.ram, .loop = f->m.loop, .log = &f->m.log};
    f->device = virtio_balloon_create(&config, &err);
    assert_non_null(f->device);
    struct virtio_pci_config place = {f->m.pci, SLOT, 0, vd_msi(&f->m)};
    f->pci = virtio_pci_create(&place, f->device, &err);
    assert_non_null(f->pci);
    vd_boot(&f->m);
    vd_open(&f->d, &f->m, SLOT);
}

static void start(struct fixture *f, uint64_t features)
{
    assert_true(vd_negotiate(&f->d, VIRTIO_F_VERSION_1 | features));
    unsigned count = 2 + !!(features & F_STATS) + !!(features & F_REPORTING);
    for (unsigned i = 0; i < count; i++)
        vd_queue_setup(&f->d, i, QUEUE_SIZE);
    vd_start(&f->d);
}

static void teardown(struct fixture *f)
{
    virtio_pci_ops.destroy(f->pci);
    vd_machine_free(&f->m);
}

static uint64_t host_bytes(const struct fixture *f)
{
    struct stat status;
    assert_int_equal(fstat(ram_fd(f->m.ram), &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static void touch(struct fixture *f, uint64_t gpa, uint64_t size_bytes)
{
    memset(ram_hva(f->m.ram, gpa, size_bytes), 0xaa, size_bytes);
}

static bool is_all(struct fixture *f, uint64_t gpa, uint64_t size_bytes, uint8_t value)
{
    const uint8_t *bytes = ram_hva(f->m.ram, gpa, size_bytes);
    for (uint64_t i = 0; i < size_bytes; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

static bool reclaim(struct fixture *f, unsigned queue)
{
    uint16_t id;
    uint32_t used_bytes;
    return vd_used(&f->d, queue, &id, &used_bytes);
}

static void send_pfns(struct fixture *f, unsigned queue, const uint32_t *pfns, uint32_t count)
{
    uint64_t gpa = vd_alloc(&f->m, 4 * count, 16);
    memcpy(ram_hva(f->m.ram, gpa, 4 * count), pfns, 4 * count);
    vd_add(&f->d, queue, &(struct vd_buffer){gpa, 4 * count, false}, 1, false);
    vd_kick(&f->d, queue);
    assert_true(reclaim(f, queue));
}

static void inflate_and_deflate(void **state)
{
    enum { COUNT = 1000, FIRST = 4096 };
    struct fixture f;
    uint32_t pfns[COUNT];
    create(&f);
    start(&f, F_OOM | F_STATS | F_REPORTING);
    virtio_balloon_set_target(f.device, RAM_BYTES - COUNT * PAGE);
    assert_int_equal(vd_isr(&f.d) & 2, 2);
    assert_int_equal(vd_read(&f.d, f.d.config, 4), COUNT);
    touch(&f, FIRST * PAGE, (COUNT + 2) * PAGE);
    uint64_t before = host_bytes(&f);
    for (uint32_t i = 0; i < COUNT; i++) /* backwards in the first half, as Linux does */
        pfns[i] = i < COUNT / 2 ? FIRST + COUNT / 2 - i : FIRST + 1 + i;
    send_pfns(&f, INFLATE, pfns, COUNT);
    assert_in_range(before - host_bytes(&f), COUNT * PAGE - 2 * PAGE, COUNT * PAGE);
    assert_true(is_all(&f, FIRST * PAGE, PAGE, 0xaa));
    assert_true(is_all(&f, (FIRST + COUNT + 1) * PAGE, PAGE, 0xaa));
    assert_true(f.m.written_bytes >= COUNT * PAGE); /* the engine has forgotten what was there */
    vd_write(&f.d, f.d.config + 4, COUNT, 4);
    assert_int_equal(virtio_balloon_actual_bytes(f.device), RAM_BYTES - COUNT * PAGE);

    send_pfns(&f, DEFLATE, pfns, COUNT);
    vd_write(&f.d, f.d.config + 4, 0, 4);
    assert_int_equal(virtio_balloon_actual_bytes(f.device), RAM_BYTES);
    assert_true(is_all(&f, (FIRST + 1) * PAGE, COUNT * PAGE, 0));
    touch(&f, (FIRST + 1) * PAGE, PAGE);
    assert_true(is_all(&f, (FIRST + 1) * PAGE, PAGE, 0xaa));
    teardown(&f);
}

static void page_numbers_that_lie(void **state)
{
    static const uint32_t pfns[] = {0xffffffff, RAM_BYTES / PAGE,     0xfffff,         6000,
                                    0x100000,   RAM_BYTES / PAGE - 1, RAM_BYTES / PAGE};
    struct fixture f;
    create(&f);
    start(&f, 0);
    touch(&f, 6000 * PAGE, PAGE);
    send_pfns(&f, INFLATE, pfns, 7);
    assert_true(is_all(&f, 6000 * PAGE, PAGE, 0)); /* the one that is true counts */
    uint64_t gpa = vd_alloc(&f.m, 64, 16);
    vd_add(&f.d, INFLATE, &(struct vd_buffer){gpa, 3, false}, 1, false); /* no whole number */
    vd_add(&f.d, INFLATE, &(struct vd_buffer){gpa, 64, true}, 1, false);
    vd_kick(&f.d, INFLATE);
    assert_true(reclaim(&f, INFLATE));
    assert_true(reclaim(&f, INFLATE));
    vd_write(&f.d, f.d.config + 4, 0xffffffff, 4);
    assert_int_equal(virtio_balloon_actual_bytes(f.device), 0);
    assert_int_equal(vd_status(&f.d), 0xf);
    teardown(&f);
}

/* The reporting queue's number depends on whether there are statistics. */
static void reporting(void **state)
{
    enum { FIRST = 4096, COUNT = 512 };
    for (unsigned with_stats = 0; with_stats < 2; with_stats++) {
        struct fixture f;
        create(&f);
        start(&f, F_REPORTING | (with_stats ? F_STATS : 0));
        unsigned queue = 2 + with_stats;
        touch(&f, FIRST * PAGE, (COUNT + 1) * PAGE);
        uint64_t before = host_bytes(&f);
        struct vd_buffer buffers[2] = {{FIRST * PAGE, COUNT / 2 * PAGE, true},
                                       {(FIRST + COUNT / 2) * PAGE, COUNT / 2 * PAGE, true}};
        vd_add(&f.d, queue, buffers, 2, false);
        vd_kick(&f.d, queue);
        assert_true(reclaim(&f, queue));
        assert_int_equal(before - host_bytes(&f), COUNT * PAGE);
        assert_true(is_all(&f, FIRST * PAGE, COUNT * PAGE, 0));
        assert_true(is_all(&f, (FIRST + COUNT) * PAGE, PAGE, 0xaa));
        /* Readable ones are not free pages. */
        touch(&f, FIRST * PAGE, PAGE);
        vd_add(&f.d, queue, &(struct vd_buffer){FIRST * PAGE, PAGE, false}, 1, false);
        vd_kick(&f.d, queue);
        assert_true(reclaim(&f, queue));
        assert_true(is_all(&f, FIRST * PAGE, PAGE, 0xaa));
        teardown(&f);
    }
}

static void send_stats(struct fixture *f, uint64_t free_bytes)
{
    uint64_t gpa = vd_alloc(&f->m, 30, 16);
    vd_put(&f->m, gpa, BALLOON_FREE_BYTES, 2);
    vd_put(&f->m, gpa + 2, free_bytes, 8);
    vd_put(&f->m, gpa + 10, 999, 2); /* one that is not known */
    vd_put(&f->m, gpa + 12, 1, 8);
    vd_put(&f->m, gpa + 20, BALLOON_TOTAL_BYTES, 2);
    vd_put(&f->m, gpa + 22, UINT64_C(0x123456789a), 8);
    vd_add(&f->d, 2, &(struct vd_buffer){gpa, 30, false}, 1, false);
    vd_kick(&f->d, 2);
}

static void statistics(void **state)
{
    struct fixture f;
    struct virtio_balloon_stats stats;
    create(&f);
    start(&f, F_STATS);
    assert_false(virtio_balloon_request_stats(f.device));
    send_stats(&f, 111);
    assert_false(reclaim(&f, 2)); /* kept until asked */
    virtio_balloon_get_stats(f.device, &stats);
    assert_int_equal(stats.serial, 1);
    assert_int_equal(stats.valid, 1 << BALLOON_FREE_BYTES | 1 << BALLOON_TOTAL_BYTES);
    assert_int_equal(stats.values[BALLOON_FREE_BYTES], 111);
    assert_int_equal(stats.values[BALLOON_TOTAL_BYTES], UINT64_C(0x123456789a));
    vd_kick(&f.d, 2); /* is not news */
    assert_true(virtio_balloon_request_stats(f.device));
    assert_true(reclaim(&f, 2));
    assert_false(virtio_balloon_request_stats(f.device));
    send_stats(&f, 222);
    virtio_balloon_get_stats(f.device, &stats);
    assert_int_equal(stats.serial, 2);
    assert_int_equal(stats.values[BALLOON_FREE_BYTES], 222);

    struct save save = {0};
    struct load load;
    uint32_t version;
    save_begin(&save, "test", 1);
    virtio_save(f.device, &save);
    save_end(&save);
    virtio_reset(f.device);
    virtio_balloon_get_stats(f.device, &stats);
    assert_int_equal(stats.serial, 0);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, "test", &version));
    assert_true(virtio_load(f.device, &load));
    assert_true(load_end(&load));
    virtio_balloon_get_stats(f.device, &stats);
    assert_int_equal(stats.values[BALLOON_FREE_BYTES], 222);
    assert_true(virtio_balloon_request_stats(f.device));
    assert_true(reclaim(&f, 2));
    save_free(&save);
    teardown(&f);
}

/* A driver that fills the ring as fast as it is served does not keep the device. */
static void a_busy_driver(void **state)
{
    struct fixture f;
    create(&f);
    uint64_t gpa = vd_alloc(&f.m, 2 * PAGE, PAGE);
    vd_put(&f.m, gpa, gpa / PAGE + 1, 4);
    for (unsigned i = INFLATE; i <= DEFLATE; i++) {
        vd_open(&f.d, &f.m, SLOT);
        start(&f, F_OOM | F_STATS | F_REPORTING);
        vd_add(&f.d, i, &(struct vd_buffer){gpa, 4, false}, 1, false);
        vd_check_turns(&f.d, i);
    }
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inflate_and_deflate), cmocka_unit_test(page_numbers_that_lie),
        cmocka_unit_test(reporting),           cmocka_unit_test(statistics),
        cmocka_unit_test(a_busy_driver),
    };
    return cmocka_run_group_tests_name("virtio-balloon", tests, NULL, NULL);
}
