/* SPDX-License-Identifier: BSD-2-Clause
 * The virtio SCSI host through the bus: a disk and a CD-ROM drive that finish requests when told
 * to. */
#include "dev/virtio_driver.h"

#include "dev/memory_disk.h"
#include "dev/virtio/scsi.h"

enum {
    SLOT = 6,
    RING = 32,
    DISK_BYTES = 1 << 20,
    CONTROL = 0,
    EVENTS = 1,
    REQUESTS = 2,
    QUEUES = 4,
};

struct fixture {
    struct vd_machine m;
    struct memory_disk disk, cd;
    struct virtio_device *device;
    struct virtio_pci *pci;
    struct vd d;
    uint64_t out, in, data; /* memory of the request being made */
    uint64_t tag;
};

static void setup(struct fixture *f)
{
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 8 << 20);
    memory_disk_init(&f->disk, DISK_BYTES);
    memory_disk_init(&f->cd, DISK_BYTES);
    f->cd.info.read_only = true;
    const struct block_backend disk = memory_disk_backend(&f->disk);
    const struct block_backend cd = memory_disk_backend(&f->cd);
    const struct scsi_lun_config units[] = {{.medium = &disk, .serial = "one"},
                                            {.is_cdrom = true, .medium = &cd}};
    const struct virtio_scsi_config config = {.ram = f->m.ram,
                                              .loop = f->m.loop,
                                              .log = &f->m.log,
                                              .units = units,
                                              .unit_count = 2,
                                              .queue_count = 2};
    f->device = virtio_scsi_create(&config, &err);
    assert_non_null(f->device);
    const struct virtio_pci_config place = {f->m.pci, SLOT, 0, vd_msi(&f->m)};
    f->pci = virtio_pci_create(&place, f->device, &err);
    assert_non_null(f->pci);
    vd_boot(&f->m);
    f->out = vd_alloc(&f->m, 512, 16);
    f->in = vd_alloc(&f->m, 512, 16);
    f->data = vd_alloc(&f->m, 64 << 10, 4096);
    vd_open(&f->d, &f->m, SLOT);
    assert_true(vd_negotiate(&f->d, VIRTIO_F_VERSION_1));
    vd_enable_msix(&f->d);
    for (unsigned i = 0; i < QUEUES; i++)
        vd_queue_setup(&f->d, i, RING);
    vd_start(&f->d);
}

static void teardown(struct fixture *f)
{
    memory_disk_drain(&f->disk);
    memory_disk_drain(&f->cd);
    virtio_pci_ops.destroy(f->pci);
    vd_machine_free(&f->m);
    memory_disk_free(&f->disk);
    memory_disk_free(&f->cd);
}

static void put_lun(struct fixture *f, uint64_t at, unsigned target, unsigned lun)
{
    const uint8_t bytes[8] = {1, (uint8_t)target, (uint8_t)(0x40 | lun >> 8), (uint8_t)lun};
    memcpy(ram_hva(f->m.ram, at, 8), bytes, 8);
}

/* Sends a command; a unit may have it then. Its memory is apart from that of others. */
static uint16_t send(struct fixture *f, unsigned target, const uint8_t *cdb, size_t cdb_bytes,
                     uint32_t data_bytes, bool to_unit)
{
    f->out = vd_alloc(&f->m, 64, 16);
    f->in = vd_alloc(&f->m, 128, 16);
    put_lun(f, f->out, target, 0);
    vd_put(&f->m, f->out + 8, ++f->tag, 8);
    memcpy(ram_hva(f->m.ram, f->out + 19, cdb_bytes), cdb, cdb_bytes);
    memset(ram_hva(f->m.ram, f->in, 108), 0xee, 108);
    struct vd_buffer b[3] = {{f->out, 51, false}};
    unsigned count = 1;
    if (data_bytes && to_unit)
        b[count++] = (struct vd_buffer){f->data, data_bytes, false};
    b[count++] = (struct vd_buffer){f->in, 108, true};
    if (data_bytes && !to_unit)
        b[count++] = (struct vd_buffer){f->data, data_bytes, true};
    uint16_t id = vd_add(&f->d, REQUESTS, b, count, false);
    vd_kick(&f->d, REQUESTS);
    return id;
}

#define SEND(f, target, bytes, to_unit, ...)                                                       \
    send(f, target, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), bytes, \
         to_unit)

static void drain(struct fixture *f)
{
    memory_disk_drain(&f->disk);
    memory_disk_drain(&f->cd);
}

static unsigned response(struct fixture *f, uint64_t in)
{
    return (unsigned)vd_get(&f->m, in + 11, 1);
}

/* Waits for the one answer there must be; gives the SCSI status. */
static unsigned answer(struct fixture *f, uint32_t *size_bytes)
{
    uint16_t id;
    drain(f);
    assert_true(vd_used(&f->d, REQUESTS, &id, size_bytes));
    assert_int_equal(response(f, f->in), 0);
    return (unsigned)vd_get(&f->m, f->in + 10, 1);
}

/* The first command after a start may only tell of that. */
static void clear_attention(struct fixture *f, unsigned target)
{
    uint32_t size;
    for (unsigned i = 0; i < 3; i++) {
        SEND(f, target, 0, false, 0x00);
        answer(f, &size);
    }
}

static unsigned control(struct fixture *f, unsigned type, unsigned subtype, unsigned target,
                        uint64_t tag, bool *is_answered)
{
    uint64_t out = vd_alloc(&f->m, 24, 8), in = vd_alloc(&f->m, 8, 8);
    uint16_t id;
    uint32_t size;
    vd_put(&f->m, out, type, 4);
    if (type == 0) {
        vd_put(&f->m, out + 4, subtype, 4);
        put_lun(f, out + 8, target, 0);
        vd_put(&f->m, out + 16, tag, 8);
    } else {
        put_lun(f, out + 4, target, 0);
        vd_put(&f->m, out + 12, tag, 4);
    }
    struct vd_buffer b[2] = {{out, type ? 16 : 24, false}, {in, type ? 5 : 1, true}};
    vd_put(&f->m, in, 0xee, 1);
    vd_add(&f->d, CONTROL, b, 2, false);
    vd_kick(&f->d, CONTROL);
    *is_answered = vd_used(&f->d, CONTROL, &id, &size);
    return (unsigned)vd_get(&f->m, in, type ? 4 : 1);
}

/* ---- tests ---- */

static void test_config(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(vd_config_read(&f.m, SLOT, PCI_DEVICE, 2), 0x1048);
    assert_int_equal(vd_read(&f.d, f.d.config, 4), 2);
    assert_int_equal(vd_read(&f.d, f.d.config + 20, 4), 96);
    assert_int_equal(vd_read(&f.d, f.d.config + 24, 4), 32);
    assert_int_equal(vd_read(&f.d, f.d.config + 30, 2), 1);
    vd_write(&f.d, f.d.config + 20, 5000, 4); /* too long: as before */
    assert_int_equal(vd_read(&f.d, f.d.config + 20, 4), 96);
    vd_write(&f.d, f.d.config + 20, 10, 4);
    assert_int_equal(vd_read(&f.d, f.d.config + 20, 4), 10);
    teardown(&f);
}

static void test_commands(void **state)
{
    struct fixture f;
    uint32_t size;
    setup(&f);
    clear_attention(&f, 0);
    SEND(&f, 0, 96, false, 0x12, 0, 0, 0, 96, 0);
    assert_int_equal(answer(&f, &size), 0);
    assert_int_equal(vd_get(&f.m, f.data, 1), 0);
    assert_true(size > 108 && size <= 204);
    assert_int_equal(vd_get(&f.m, f.in + 4, 4), 204 - size); /* the residual */
    SEND(&f, 1, 96, false, 0x12, 0, 0, 0, 96, 0);
    assert_int_equal(answer(&f, &size), 0);
    assert_int_equal(vd_get(&f.m, f.data, 1), 5);
    f.m.watched_gpa = f.data + 4 * 512 - 1;
    SEND(&f, 0, 4 * 512, false, 0x28, 0, 0, 0, 0, 9, 0, 0, 4, 0);
    assert_int_equal(answer(&f, &size), 0);
    assert_int_equal(size, 108 + 4 * 512);
    assert_true(f.m.watched_written);
    assert_memory_equal(ram_hva(f.m.ram, f.data, 4 * 512), f.disk.bytes + 9 * 512, 4 * 512);
    SEND(&f, 0, 4 * 512, true, 0x2a, 0, 0, 0, 0, 100, 0, 0, 4, 0);
    assert_int_equal(answer(&f, &size), 0);
    assert_int_equal(size, 108);
    assert_memory_equal(f.disk.bytes + 100 * 512, f.disk.bytes + 9 * 512, 4 * 512);
    SEND(&f, 0, 512, false, 0x28, 0, 0x7f, 0, 0, 9, 0, 0, 1, 0); /* beyond the end */
    assert_int_equal(answer(&f, &size), 2);
    assert_true(vd_get(&f.m, f.in, 4) >= 14);
    assert_int_equal(vd_get(&f.m, f.in + 12 + 2, 1) & 15, 5);
    assert_int_equal(vd_get(&f.m, f.in + 12 + 12, 1), 0x21);
    assert_true(vd_msi_of(&f.m, REQUESTS + 1) > 0);
    teardown(&f);
}

static void test_bad_requests(void **state)
{
    struct fixture f;
    uint16_t id;
    uint32_t size;
    setup(&f);
    SEND(&f, 7, 0, false, 0x00);
    assert_true(vd_used(&f.d, REQUESTS, &id, &size));
    assert_int_equal(response(&f, f.in), 3);
    put_lun(&f, f.out, 0, 5); /* a LUN that is not there */
    struct vd_buffer b[2] = {{f.out, 51, false}, {f.in, 108, true}};
    vd_put(&f.m, f.in + 11, 0xee, 1);
    vd_add(&f.d, REQUESTS, b, 2, false);
    vd_kick(&f.d, REQUESTS);
    assert_true(vd_used(&f.d, REQUESTS, &id, &size));
    assert_int_equal(response(&f, f.in), 3);
    b[1].size_bytes = 107;
    vd_add(&f.d, REQUESTS, b, 2, false);
    vd_kick(&f.d, REQUESTS);
    assert_false(vd_used(&f.d, REQUESTS, &id, &size));
    assert_true(vd_status(&f.d) & VIRTIO_STATUS_NEEDS_RESET);
    teardown(&f);
}

static void test_abort(void **state)
{
    struct fixture f;
    uint16_t id;
    uint32_t size;
    bool is_answered;
    setup(&f);
    clear_attention(&f, 0);
    SEND(&f, 0, 512, false, 0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0);
    uint64_t first = f.tag, first_in = f.in;
    SEND(&f, 0, 512, false, 0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0);
    uint64_t second_in = f.in;
    assert_int_equal(control(&f, 0, 6, 0, first, &is_answered), 10); /* query task: it is there */
    assert_true(is_answered);
    assert_int_equal(control(&f, 0, 6, 0, 0x999, &is_answered), 0);
    control(&f, 0, 0, 0, first, &is_answered);
    assert_false(is_answered); /* the disk still has it */
    memory_disk_finish(&f.disk, 1);
    assert_true(vd_used(&f.d, REQUESTS, &id, &size));
    assert_int_equal(response(&f, second_in), 0);
    assert_false(vd_used(&f.d, CONTROL, &id, &size));
    memory_disk_finish(&f.disk, 0);
    assert_true(vd_used(&f.d, REQUESTS, &id, &size));
    assert_int_equal(response(&f, first_in), 2);
    assert_true(vd_used(&f.d, CONTROL, &id, &size));
    assert_int_equal(control(&f, 0, 99, 0, 0, &is_answered), 11);
    assert_int_equal(control(&f, 0, 5, 9, 0, &is_answered), 3);
    teardown(&f);
}

static void test_unit_reset(void **state)
{
    struct fixture f;
    uint16_t id;
    uint32_t size;
    bool is_answered;
    setup(&f);
    clear_attention(&f, 0);
    SEND(&f, 0, 512, false, 0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0);
    uint64_t in = f.in;
    control(&f, 0, 5, 0, 0, &is_answered);
    assert_false(is_answered);
    drain(&f);
    assert_true(vd_used(&f.d, REQUESTS, &id, &size));
    assert_int_equal(response(&f, in), 4);
    assert_true(vd_used(&f.d, CONTROL, &id, &size));
    SEND(&f, 0, 0, false, 0x00);
    assert_int_equal(answer(&f, &size), 2); /* unit attention */
    assert_int_equal(vd_get(&f.m, f.in + 12 + 2, 1) & 15, 6);
    SEND(&f, 0, 0, false, 0x00);
    assert_int_equal(answer(&f, &size), 0);
    teardown(&f);
}

static void test_media_event(void **state)
{
    struct fixture f;
    uint16_t id;
    uint32_t size;
    bool is_answered;
    setup(&f);
    struct scsi_lun *cd = virtio_scsi_unit(f.device, 1);
    const struct block_backend medium = memory_disk_backend(&f.cd);
    uint64_t event = vd_alloc(&f.m, 32, 16);
    struct vd_buffer b = {event, 16, true};
    assert_int_equal(control(&f, 2, 0, 0, 16 | 4, &is_answered), 0); /* a disk has none */
    assert_true(scsi_lun_change_medium(cd, NULL, true));
    assert_int_equal(control(&f, 2, 0, 1, 16 | 4, &is_answered), 16);
    assert_true(is_answered);
    vd_add(&f.d, EVENTS, &b, 1, false);
    vd_kick(&f.d, EVENTS);
    assert_false(vd_used(&f.d, EVENTS, &id, &size));
    assert_true(scsi_lun_change_medium(cd, &medium, true));
    assert_true(vd_used(&f.d, EVENTS, &id, &size));
    assert_int_equal(size, 16);
    assert_int_equal(vd_get(&f.m, event, 4), 2);
    assert_int_equal(vd_get(&f.m, event + 4, 2), 0x0101);
    assert_int_equal(vd_get(&f.m, event + 12, 4), 16);
    /* Without room it is missed, and that is told. */
    assert_true(scsi_lun_change_medium(cd, NULL, true));
    vd_add(&f.d, EVENTS, &b, 1, false);
    vd_kick(&f.d, EVENTS);
    assert_true(vd_used(&f.d, EVENTS, &id, &size));
    assert_int_equal(vd_get(&f.m, event, 4), 0x80000000);
    teardown(&f);
}

static void test_reset_while_busy(void **state)
{
    struct fixture f;
    bool is_answered;
    setup(&f);
    clear_attention(&f, 0);
    SEND(&f, 0, 512, false, 0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0);
    control(&f, 0, 5, 0, 0, &is_answered);
    uint64_t in = f.in;
    vd_reset(&f.d);
    assert_int_not_equal(vd_status(&f.d), 0); /* the disk still has the memory */
    drain(&f);
    assert_int_equal(vd_status(&f.d), 0);
    assert_int_equal(response(&f, in), 0xee);
    teardown(&f);
}

static void test_save_load(void **state)
{
    struct fixture f;
    struct save save = {0};
    struct load load;
    uint32_t version, size;
    bool is_answered;
    setup(&f);
    clear_attention(&f, 0);
    control(&f, 2, 0, 1, 16, &is_answered);
    save_begin(&save, virtio_pci_ops.name, virtio_pci_ops.version);
    virtio_pci_ops.save(f.pci, &save);
    save_end(&save);
    virtio_pci_ops.reset(f.pci);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, virtio_pci_ops.name, &version));
    assert_true(virtio_pci_ops.load(f.pci, &load, version));
    assert_true(load_end(&load));
    virtio_pci_kick_all(f.pci);
    SEND(&f, 0, 512, false, 0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0);
    assert_int_equal(answer(&f, &size), 0);
    assert_memory_equal(ram_hva(f.m.ram, f.data, 512), f.disk.bytes + 9 * 512, 512);
    save_free(&save);
    teardown(&f);
}

/* A driver that fills the ring as fast as it is served does not keep the device. */
static void test_busy_driver(void **state)
{
    struct fixture f;
    setup(&f);
    clear_attention(&f, 0);
    const struct vd_buffer buffers[] = {{f.out, 51, false}, {f.in, 108, true}};
    vd_add(&f.d, REQUESTS, buffers, 2, false); /* TEST UNIT READY once more */
    vd_check_turns(&f.d, REQUESTS);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),           cmocka_unit_test(test_commands),
        cmocka_unit_test(test_bad_requests),     cmocka_unit_test(test_abort),
        cmocka_unit_test(test_unit_reset),       cmocka_unit_test(test_media_event),
        cmocka_unit_test(test_reset_while_busy), cmocka_unit_test(test_save_load),
        cmocka_unit_test(test_busy_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
