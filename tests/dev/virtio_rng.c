/* SPDX-License-Identifier: BSD-2-Clause
 * The entropy device through the bus: every ring format and way of interrupting. */
#include "dev/virtio_driver.h"

#include "dev/virtio/rng.h"

enum { SLOT = 3, QUEUE_SIZE = 8 };

struct fixture {
    struct vd_machine m;
    struct virtio_pci *pci;
    struct vd d;
};

static void setup(struct fixture *f, uint64_t features)
{
    struct error err = {0};
    vd_machine_init(&f->m, 8 << 20);
    struct virtio_rng_config config = {.ram = f->m.ram, .loop = f->m.loop, .log = &f->m.log};
    struct virtio_device *device = virtio_rng_create(&config, &err);
    assert_non_null(device);
    struct virtio_pci_config place = {f->m.pci, SLOT, 0, vd_msi(&f->m)};
    f->pci = virtio_pci_create(&place, device, &err);
    assert_non_null(f->pci);
    vd_boot(&f->m);
    vd_open(&f->d, &f->m, SLOT);
    assert_true(vd_negotiate(&f->d, VIRTIO_F_VERSION_1 | features));
}

static void start(struct fixture *f, bool msix)
{
    if (msix)
        vd_enable_msix(&f->d);
    vd_queue_setup(&f->d, 0, QUEUE_SIZE);
    vd_start(&f->d);
}

static void teardown(struct fixture *f)
{
    virtio_pci_ops.destroy(f->pci);
    vd_machine_free(&f->m);
}

static bool is_zero(struct fixture *f, uint64_t gpa, uint32_t size_bytes)
{
    const uint8_t *bytes = ram_hva(f->m.ram, gpa, size_bytes);
    for (uint32_t i = 0; i < size_bytes; i++) {
        if (bytes[i])
            return false;
    }
    return true;
}

/* Asks for 64 bytes in two pieces; checks that just those were filled. */
static void ask(struct fixture *f, bool indirect)
{
    uint64_t gpa = vd_alloc(&f->m, 4096, 4096);
    struct vd_buffer buffers[2] = {{gpa, 40, true}, {gpa + 2048, 24, true}};
    uint16_t id = vd_add(&f->d, 0, buffers, 2, indirect), used_id;
    uint32_t size;
    vd_kick(&f->d, 0);
    assert_true(vd_used(&f->d, 0, &used_id, &size));
    assert_int_equal(used_id, id);
    assert_int_equal(size, 64);
    assert_false(is_zero(f, gpa, 40));
    assert_false(is_zero(f, gpa + 2048, 24));
    assert_true(is_zero(f, gpa + 40, 2008));
    assert_true(is_zero(f, gpa + 2072, 2024));
    assert_false(vd_used(&f->d, 0, &used_id, &size));
}

static void all_formats(void **state)
{
    for (unsigned i = 0; i < 16; i++) {
        struct fixture f;
        setup(&f, (i & 1 ? VIRTIO_F_RING_PACKED : 0) | (i & 2 ? VIRTIO_F_EVENT_IDX : 0) |
                      (i & 4 ? VIRTIO_F_INDIRECT_DESC : 0));
        start(&f, i & 8);
        /* Enough to go round the ring several times. */
        for (unsigned n = 0; n < 5 * QUEUE_SIZE + 3; n++) {
            vd_interrupts(&f.d, 0, i & 2 ? VD_INTERRUPTS_AFTER : VD_INTERRUPTS_ON, 0);
            unsigned before = f.m.msi_count;
            ask(&f, i & 4);
            if (i & 8) {
                assert_int_equal(f.m.msi_count, before + 1);
                assert_int_equal(f.m.msi_data[before], VD_MSI_DATA + 1);
                assert_false(f.m.intx);
            } else {
                assert_true(f.m.intx);
                assert_int_equal(vd_isr(&f.d), 1);
                assert_false(f.m.intx);
                assert_int_equal(vd_isr(&f.d), 0);
            }
        }
        assert_int_equal(vd_status(&f.d), 0xf);
        teardown(&f);
    }
}

static void numbers_differ(void **state)
{
    struct fixture f;
    setup(&f, 0);
    start(&f, false);
    uint64_t gpa[2];
    for (unsigned i = 0; i < 2; i++) {
        gpa[i] = vd_alloc(&f.m, 32, 16);
        vd_add(&f.d, 0, &(struct vd_buffer){gpa[i], 32, true}, 1, false);
    }
    vd_kick(&f.d, 0);
    assert_memory_not_equal(ram_hva(f.m.ram, gpa[0], 32), ram_hva(f.m.ram, gpa[1], 32), 32);
    teardown(&f);
}

static void request_is_bounded(void **state)
{
    struct fixture f;
    setup(&f, 0);
    start(&f, false);
    uint64_t gpa = vd_alloc(&f.m, 1 << 20, 4096);
    uint16_t id;
    uint32_t size;
    vd_add(&f.d, 0, &(struct vd_buffer){gpa, 1 << 20, true}, 1, false);
    vd_kick(&f.d, 0);
    assert_true(vd_used(&f.d, 0, &id, &size));
    assert_int_equal(size, VIRTIO_RNG_REQUEST_MAX_BYTES);
    assert_true(is_zero(&f, gpa + size, (1 << 20) - size));
    /* The watcher heard of all of it, and of little more than that. */
    assert_in_range(f.m.written_bytes, size, size + 256);
    teardown(&f);
}

static void readable_request_gets_nothing(void **state)
{
    struct fixture f;
    setup(&f, 0);
    start(&f, false);
    uint64_t gpa = vd_alloc(&f.m, 64, 16);
    uint16_t id;
    uint32_t size;
    vd_add(&f.d, 0, &(struct vd_buffer){gpa, 64, false}, 1, false);
    vd_kick(&f.d, 0);
    assert_true(vd_used(&f.d, 0, &id, &size));
    assert_int_equal(size, 0);
    assert_true(is_zero(&f, gpa, 64));
    teardown(&f);
}

/* What was queued before DRIVER_OK is not touched until then. */
static void nothing_before_driver_ok(void **state)
{
    struct fixture f;
    setup(&f, 0);
    vd_queue_setup(&f.d, 0, QUEUE_SIZE);
    uint64_t gpa = vd_alloc(&f.m, 64, 16);
    uint16_t id;
    uint32_t size;
    vd_add(&f.d, 0, &(struct vd_buffer){gpa, 64, true}, 1, false);
    vd_kick(&f.d, 0);
    assert_false(vd_used(&f.d, 0, &id, &size));
    vd_start(&f.d);
    assert_true(vd_used(&f.d, 0, &id, &size));
    teardown(&f);
}

/* A driver that fills the ring as fast as it is served does not keep the device. */
static void a_busy_driver(void **state)
{
    struct fixture f;
    setup(&f, 0);
    start(&f, false);
    uint64_t gpa = vd_alloc(&f.m, 64, 16);
    vd_add(&f.d, 0, &(struct vd_buffer){gpa, 64, true}, 1, false);
    vd_check_turns(&f.d, 0);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_formats),
        cmocka_unit_test(numbers_differ),
        cmocka_unit_test(request_is_bounded),
        cmocka_unit_test(readable_request_gets_nothing),
        cmocka_unit_test(nothing_before_driver_ok),
        cmocka_unit_test(a_busy_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
