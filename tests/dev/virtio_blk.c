/* SPDX-License-Identifier: BSD-2-Clause
 * The block device through the bus, over a disk in memory that finishes requests when told to. */
#include "dev/virtio_driver.h"

#include "dev/virtio/blk.h"

#include <errno.h>

enum {
    SLOT = 4,
    QUEUE_SIZE = 16,
    DISK_BYTES = 256 << 10,
    SECTORS = DISK_BYTES / 512,
    OK = 0,
    IOERR = 1,
    UNSUPP = 2,
    IN = 0,
    OUT = 1,
    FLUSH = 4,
    GET_ID = 8,
    DISCARD = 11,
    ZEROES = 13,
};

#define F_SEG_MAX (UINT64_C(1) << 2)
#define F_RO      (UINT64_C(1) << 5)
#define F_FLUSH   (UINT64_C(1) << 9)
#define F_WCE     (UINT64_C(1) << 11)
#define F_MQ      (UINT64_C(1) << 12)
#define F_DISCARD (UINT64_C(1) << 13)
#define F_ZEROES  (UINT64_C(1) << 14)

/* ---- the disk ---- */

struct disk {
    uint8_t bytes[DISK_BYTES];
    struct block_info info;
    struct block_request *waiting[64];
    unsigned waiting_count;
    int fail; /* errno for what finishes next */
    unsigned flushes, discards, zeroes, unmaps, writes;
};

static void disk_submit(void *opaque, struct block_request *request)
{
    struct disk *disk = opaque;
    assert_true(disk->waiting_count < 64);
    disk->waiting[disk->waiting_count++] = request;
}

static void disk_info(void *opaque, struct block_info *info)
{
    *info = ((struct disk *)opaque)->info;
}

static void disk_copy(struct disk *disk, struct block_request *r)
{
    uint64_t at = r->offset_bytes, total = 0;
    for (unsigned i = 0; i < r->iov_count; i++) {
        uint8_t *guest = r->iov[i].iov_base;
        if (r->kind == BLOCK_READ)
            memcpy(guest, disk->bytes + at, r->iov[i].iov_len);
        else
            memcpy(disk->bytes + at, guest, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
        total += r->iov[i].iov_len;
    }
    assert_int_equal(total, r->size_bytes);
}

/* Finishes request `index` of those that wait. */
static void disk_finish(struct disk *disk, unsigned index)
{
    struct block_request *r = disk->waiting[index];
    int error = disk->fail;
    assert_true(index < disk->waiting_count);
    assert_true(r->offset_bytes <= DISK_BYTES && r->size_bytes <= DISK_BYTES - r->offset_bytes);
    memmove(disk->waiting + index, disk->waiting + index + 1,
            (--disk->waiting_count - index) * sizeof(disk->waiting[0]));
    disk->fail = 0;
    if (!error) {
        switch (r->kind) {
        case BLOCK_WRITE:
            disk->writes++;
            disk_copy(disk, r);
            break;
        case BLOCK_READ: disk_copy(disk, r); break;
        case BLOCK_FLUSH: disk->flushes++; break;
        case BLOCK_DISCARD:
            disk->discards++;
            memset(disk->bytes + r->offset_bytes, 0xdd, r->size_bytes);
            break;
        case BLOCK_WRITE_ZEROES:
            disk->zeroes++;
            disk->unmaps += r->may_unmap;
            memset(disk->bytes + r->offset_bytes, 0, r->size_bytes);
            break;
        }
    }
    r->done(r, error);
}

static void disk_drain(void *opaque)
{
    struct disk *disk = opaque;
    while (disk->waiting_count)
        disk_finish(disk, 0);
}

static void disk_close(void *opaque) {}

/* ---- the fixture ---- */

struct fixture {
    struct vd_machine m;
    struct disk disk;
    struct virtio_device *device;
    struct virtio_pci *pci;
    struct vd d;
    uint64_t header, data, status; /* guest memory of the request being made */
};

static void create(struct fixture *f, const struct block_info *info, unsigned queues)
{
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 8 << 20);
    f->disk.info = *info;
    for (unsigned i = 0; i < DISK_BYTES; i++)
        f->disk.bytes[i] = (uint8_t)(i / 512 * 7 + i);
    struct block_backend backend = {disk_submit, disk_info, disk_drain, disk_close, &f->disk};
    struct virtio_blk_config config = {.ram = f->m.ram,
                                       .loop = f->m.loop,
                                       .log = &f->m.log,
                                       .backend = &backend,
                                       .serial = "serial-number-of-20b",
                                       .queue_count = queues,
                                       .queue_size = QUEUE_SIZE};
    f->device = virtio_blk_create(&config, &err);
    assert_non_null(f->device);
    struct virtio_pci_config place = {f->m.pci, SLOT, 0, vd_msi(&f->m)};
    f->pci = virtio_pci_create(&place, f->device, &err);
    assert_non_null(f->pci);
    vd_boot(&f->m);
    f->header = vd_alloc(&f->m, 16 + 64 * 16, 16);
    f->data = vd_alloc(&f->m, 64 << 10, 4096);
    f->status = vd_alloc(&f->m, 16, 16);
}

static const struct block_info plain = {DISK_BYTES, false, true, 4096, 4096};

static void start(struct fixture *f, uint64_t features, unsigned queues)
{
    vd_open(&f->d, &f->m, SLOT);
    assert_true(vd_negotiate(&f->d, VIRTIO_F_VERSION_1 | features));
    vd_enable_msix(&f->d);
    for (unsigned i = 0; i < queues; i++)
        vd_queue_setup(&f->d, i, QUEUE_SIZE);
    vd_start(&f->d);
}

static void setup(struct fixture *f, uint64_t features)
{
    create(f, &plain, 1);
    start(f, features, 1);
}

static void teardown(struct fixture *f)
{
    disk_drain(&f->disk);
    virtio_pci_ops.destroy(f->pci);
    vd_machine_free(&f->m);
}

static void header(struct fixture *f, uint32_t type, uint64_t sector)
{
    vd_put(&f->m, f->header, type, 4);
    vd_put(&f->m, f->header + 4, 0, 4);
    vd_put(&f->m, f->header + 8, sector, 8);
    vd_put(&f->m, f->status, 0xee, 1);
}

/* Puts a request into queue 0 and kicks; the disk may have it then. */
static void send(struct fixture *f, uint32_t type, uint64_t sector, uint32_t data_bytes,
                 bool indirect)
{
    struct vd_buffer b[3] = {{f->header, 16, false}};
    unsigned count = 1;
    header(f, type, sector);
    if (data_bytes)
        b[count++] = (struct vd_buffer){f->data, data_bytes, type == IN || type == GET_ID};
    b[count++] = (struct vd_buffer){f->status, 1, true};
    vd_add(&f->d, 0, b, count, indirect);
    vd_kick(&f->d, 0);
}

/* Takes the one answer there must be; gives its status. */
static unsigned answer(struct fixture *f, uint32_t *size_bytes)
{
    uint16_t id;
    uint32_t size;
    assert_true(vd_used(&f->d, 0, &id, &size));
    if (size_bytes)
        *size_bytes = size;
    return (unsigned)vd_get(&f->m, f->status, 1);
}

static bool answered(struct fixture *f)
{
    uint16_t id;
    uint32_t size;
    return vd_used(&f->d, 0, &id, &size);
}

static unsigned request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t data_bytes)
{
    send(f, type, sector, data_bytes, false);
    disk_drain(&f->disk);
    return answer(f, NULL);
}

/* ---- what works ---- */

static void read_and_write(void **state)
{
    static const uint64_t rings[] = {0, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED,
                                     VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX};
    for (unsigned i = 0; i < 8; i++) {
        struct fixture f;
        setup(&f, rings[i / 2] | F_FLUSH | VIRTIO_F_INDIRECT_DESC);
        for (unsigned n = 0; n < 3 * QUEUE_SIZE; n++) {
            uint32_t size;
            vd_interrupts(&f.d, 0, rings[i / 2] & VIRTIO_F_EVENT_IDX ? VD_INTERRUPTS_AFTER : 0, 0);
            send(&f, IN, n * 2, 1024, i & 1);
            assert_false(answered(&f)); /* asynchronous */
            unsigned before = f.m.msi_count;
            disk_drain(&f.disk);
            assert_int_equal(f.m.msi_count, before + 1);
            assert_int_equal(answer(&f, &size), OK);
            assert_int_equal(size, 1025);
            assert_memory_equal(ram_hva(f.m.ram, f.data, 1024), f.disk.bytes + n * 1024, 1024);
            memset(ram_hva(f.m.ram, f.data, 1536), (int)n + 1, 1536);
            vd_interrupts(&f.d, 0, rings[i / 2] & VIRTIO_F_EVENT_IDX ? VD_INTERRUPTS_AFTER : 0, 0);
            send(&f, OUT, n, 1536, i & 1);
            disk_drain(&f.disk);
            assert_int_equal(answer(&f, &size), OK);
            assert_int_equal(size, 1);
            assert_memory_equal(ram_hva(f.m.ram, f.data, 1536), f.disk.bytes + n * 512, 1536);
        }
        assert_int_equal(f.disk.flushes, 0);
        teardown(&f);
    }
}

/* Header, data and status may be cut anywhere (2.7.4.2): here all of them are. */
static void any_layout(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH);
    struct vd_buffer write[] = {{f.header, 7, false},
                                {f.header + 7, 9, false},
                                {f.data, 100, false},
                                {f.data + 100, 412, false},
                                {f.status, 1, true}};
    header(&f, OUT, 5);
    memset(ram_hva(f.m.ram, f.data, 512), 0x5a, 512);
    vd_add(&f.d, 0, write, 5, false);
    vd_kick(&f.d, 0);
    disk_drain(&f.disk);
    assert_int_equal(answer(&f, NULL), OK);
    assert_int_equal(f.disk.bytes[5 * 512], 0x5a);
    assert_int_equal(f.disk.bytes[5 * 512 + 511], 0x5a);

    /* Header and data in one piece; the status in one with the data read. */
    header(&f, IN, 7);
    struct vd_buffer read[] = {
        {f.header, 16, false}, {f.data, 200, true}, {f.data + 200, 313, true}};
    vd_put(&f.m, f.data + 512, 0xee, 1);
    f.m.watched_gpa = f.data + 512;
    vd_add(&f.d, 0, read, 3, false);
    vd_kick(&f.d, 0);
    disk_drain(&f.disk);
    uint16_t id;
    uint32_t size;
    assert_true(vd_used(&f.d, 0, &id, &size));
    assert_int_equal(size, 513);
    assert_true(f.m.watched_written);
    assert_int_equal(vd_get(&f.m, f.data + 512, 1), OK);
    assert_memory_equal(ram_hva(f.m.ram, f.data, 512), f.disk.bytes + 7 * 512, 512);
    teardown(&f);
}

static void flush_and_id(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH);
    send(&f, FLUSH, 0, 0, false);
    assert_false(answered(&f));
    disk_drain(&f.disk);
    assert_int_equal(answer(&f, NULL), OK);
    assert_int_equal(f.disk.flushes, 1);
    assert_int_equal(request(&f, GET_ID, 0, 20), OK);
    assert_memory_equal(ram_hva(f.m.ram, f.data, 20), "serial-number-of-20b", 20);
    vd_put(&f.m, f.data, 0, 8);
    assert_int_equal(request(&f, GET_ID, 0, 3), OK);
    assert_int_equal(vd_get(&f.m, f.data, 4), 's' | 'e' << 8 | 'r' << 16);
    teardown(&f);
}

static void put_segment(struct fixture *f, unsigned index, uint64_t sector, uint32_t sectors,
                        uint32_t flags)
{
    vd_put(&f->m, f->data + 16 * index, sector, 8);
    vd_put(&f->m, f->data + 16 * index + 8, sectors, 4);
    vd_put(&f->m, f->data + 16 * index + 12, flags, 4);
}

static void discard_and_zeroes(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH | F_DISCARD | F_ZEROES);
    put_segment(&f, 0, 8, 8, 0);
    put_segment(&f, 1, 100, 1, 0);
    put_segment(&f, 2, SECTORS, 0, 0); /* nothing, at the very end */
    assert_int_equal(request(&f, DISCARD, 0, 48), OK);
    assert_int_equal(f.disk.discards, 2);
    assert_int_equal(f.disk.bytes[8 * 512], 0xdd);
    assert_int_equal(f.disk.bytes[100 * 512 + 511], 0xdd);
    put_segment(&f, 0, 16, 2, 0);
    put_segment(&f, 1, 20, 2, 1);
    assert_int_equal(request(&f, ZEROES, 0, 32), OK);
    assert_int_equal(f.disk.zeroes, 2);
    assert_int_equal(f.disk.unmaps, 1);
    assert_int_equal(f.disk.bytes[16 * 512], 0);
    assert_int_equal(f.disk.bytes[21 * 512 + 511], 0);
    assert_int_not_equal(f.disk.bytes[18 * 512 + 1] | f.disk.bytes[18 * 512 + 2], 0);
    /* The second segment fails: so does the request, and no third is tried. */
    put_segment(&f, 2, 30, 1, 0);
    send(&f, ZEROES, 0, 48, false);
    disk_finish(&f.disk, 0);
    assert_false(answered(&f));
    f.disk.fail = EIO;
    disk_finish(&f.disk, 0);
    assert_int_equal(answer(&f, NULL), IOERR);
    assert_int_equal(f.disk.waiting_count, 0);
    teardown(&f);
}

static void write_through(void **state)
{
    struct fixture f;
    /* No FLUSH: what is answered must last. */
    setup(&f, 0);
    send(&f, OUT, 0, 512, false);
    disk_finish(&f.disk, 0);
    assert_false(answered(&f));
    assert_int_equal(f.disk.waiting_count, 1);
    disk_finish(&f.disk, 0);
    assert_int_equal(answer(&f, NULL), OK);
    assert_int_equal(f.disk.flushes, 1);
    teardown(&f);

    /* The driver switches the cache. */
    setup(&f, F_FLUSH | F_WCE);
    assert_int_equal(vd_read(&f.d, f.d.config + 32, 1), 1);
    assert_int_equal(request(&f, OUT, 0, 512), OK);
    assert_int_equal(f.disk.flushes, 0);
    vd_write(&f.d, f.d.config + 32, 0, 1);
    assert_int_equal(vd_read(&f.d, f.d.config + 32, 1), 0);
    assert_int_equal(request(&f, OUT, 0, 512), OK);
    assert_int_equal(f.disk.flushes, 1);
    f.disk.fail = 0;
    send(&f, OUT, 0, 512, false);
    disk_finish(&f.disk, 0);
    f.disk.fail = EIO;
    disk_finish(&f.disk, 0);
    assert_int_equal(answer(&f, NULL), IOERR);
    vd_reset(&f.d);
    start(&f, F_FLUSH | F_WCE, 1);
    assert_int_equal(vd_read(&f.d, f.d.config + 32, 1), 1);
    teardown(&f);
}

static void several_queues(void **state)
{
    struct fixture f;
    create(&f, &plain, 4);
    start(&f, F_FLUSH | F_MQ, 4);
    assert_int_equal(vd_read(&f.d, f.d.config + 34, 2), 4);
    for (unsigned i = 0; i < 4; i++) {
        struct vd_buffer b[] = {
            {f.header, 16, false}, {f.data + 512 * i, 512, true}, {f.status, 1, true}};
        header(&f, IN, 0);
        vd_put(&f.m, f.header + 8, i, 8);
        vd_add(&f.d, i, b, 3, false);
        vd_kick(&f.d, i);
    }
    assert_int_equal(f.disk.waiting_count, 4);
    for (unsigned i = 4; i-- > 0;) {
        uint16_t id;
        uint32_t size;
        disk_finish(&f.disk, i);
        assert_true(vd_used(&f.d, i, &id, &size));
        assert_int_equal(vd_msi_of(&f.m, i + 1), 1);
    }
    assert_memory_equal(ram_hva(f.m.ram, f.data, 2048), f.disk.bytes, 2048);
    teardown(&f);
}

static void configuration(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH);
    uint64_t c = f.d.config;
    assert_int_equal(f.d.config_size_bytes, 60);
    assert_int_equal(vd_read(&f.d, c, 8), SECTORS);
    assert_int_equal(vd_read(&f.d, c + 12, 4), QUEUE_SIZE - 2);
    assert_int_equal(vd_read(&f.d, c + 20, 4), 512);
    assert_int_equal(vd_read(&f.d, c + 24, 1), 3); /* 4096-byte blocks */
    assert_int_equal(vd_read(&f.d, c + 26, 2), 8);
    assert_int_equal(vd_read(&f.d, c + 34, 2), 1);
    assert_true(vd_read(&f.d, c + 36, 4) > 0);
    assert_true(vd_read(&f.d, c + 40, 4) > 1);
    assert_int_equal(vd_read(&f.d, c + 44, 4), 8);
    assert_int_equal(vd_read(&f.d, c + 56, 1), 1);
    assert_int_equal(vd_read(&f.d, c + 60, 4), 0); /* behind its end */
    vd_write(&f.d, c, 0, 8);                       /* read-only */
    vd_write(&f.d, c + 32, 0, 1);                  /* not without CONFIG_WCE */
    assert_int_equal(vd_read(&f.d, c, 8), SECTORS);
    assert_int_equal(vd_read(&f.d, c + 32, 1), 1);

    uint8_t generation = (uint8_t)vd_read(&f.d, f.d.common + 21, 1);
    f.disk.info.size_bytes /= 2;
    virtio_blk_resized(f.device);
    assert_int_equal(vd_read(&f.d, c, 8), SECTORS / 2);
    assert_int_not_equal(vd_read(&f.d, f.d.common + 21, 1), generation);
    assert_int_equal(vd_msi_of(&f.m, 0), 1);
    assert_int_equal(request(&f, IN, SECTORS / 2, 512), IOERR);
    teardown(&f);
}

static void read_only(void **state)
{
    struct block_info info = plain;
    struct fixture f;
    info.read_only = true;
    create(&f, &info, 1);
    vd_open(&f.d, &f.m, SLOT);
    assert_int_equal(vd_offered(&f.d) & (F_RO | F_DISCARD | F_ZEROES), F_RO);
    start(&f, F_RO | F_FLUSH, 1);
    put_segment(&f, 0, 0, 1, 0);
    assert_int_equal(request(&f, OUT, 0, 512), IOERR);
    assert_int_equal(request(&f, DISCARD, 0, 16), IOERR);
    assert_int_equal(request(&f, ZEROES, 0, 16), IOERR);
    assert_int_equal(f.disk.writes + f.disk.discards + f.disk.zeroes, 0);
    assert_int_equal(request(&f, IN, 0, 512), OK);
    teardown(&f);
}

static void backend_errors(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH);
    static const uint32_t types[] = {IN, OUT, FLUSH};
    for (unsigned i = 0; i < 3; i++) {
        f.disk.fail = ENOSPC;
        assert_int_equal(request(&f, types[i], 0, types[i] == FLUSH ? 0 : 512), IOERR);
    }
    f.disk.fail = EOPNOTSUPP;
    assert_int_equal(request(&f, FLUSH, 0, 0), UNSUPP);
    assert_int_equal(request(&f, IN, 0, 512), OK);
    assert_int_equal(vd_status(&f.d), 0xf);
    teardown(&f);
}

/* ---- what is malformed, but has room for a status ---- */

struct bad_request {
    uint32_t type;
    uint64_t sector;
    uint32_t data_bytes;
    unsigned status;
};

static void bad_requests(void **state)
{
    static const struct bad_request cases[] = {
        {IN, SECTORS, 512, IOERR},
        {IN, SECTORS - 1, 1024, IOERR},
        {IN, UINT64_MAX, 512, IOERR},
        {IN, UINT64_MAX / 512, 512, IOERR},
        {IN, UINT64_C(1) << 55, 512, IOERR},
        {IN, 0, 511, IOERR},
        {IN, 0, 513, IOERR},
        {OUT, SECTORS, 512, IOERR},
        {OUT, SECTORS - 1, 1024, IOERR},
        {OUT, UINT64_MAX, 512, IOERR},
        {OUT, 0, 1, IOERR},
        {OUT, 0, 0, OK}, /* nothing to write, inside the disk */
        {IN, 0, 0, OK},
        {OUT, SECTORS + 1, 0, IOERR},
        {DISCARD, 0, 0, IOERR},
        {DISCARD, 0, 15, IOERR},
        {DISCARD, 0, 17, IOERR},
        {DISCARD, 0, 33 * 16, IOERR},
        {ZEROES, 0, 0, IOERR},
        {ZEROES, 0, 8, IOERR},
        {2, 0, 512, UNSUPP},
        {10, 0, 0, UNSUPP},
        {12, 0, 16, UNSUPP},
        {14, 0, 16, UNSUPP},
        {0xffffffff, 0, 512, UNSUPP},
        {0x80000000, 0, 512, UNSUPP},
    };
    struct fixture f;
    setup(&f, F_FLUSH | F_DISCARD | F_ZEROES);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(ram_hva(f.m.ram, f.data, 4096), 0, 4096);
        send(&f, cases[i].type, cases[i].sector, cases[i].data_bytes, false);
        assert_int_equal(f.disk.waiting_count, 0);
        unsigned status = answer(&f, NULL);
        if (status != cases[i].status)
            fail_msg("case %u: status %u", i, status);
    }
    assert_int_equal(vd_status(&f.d), 0xf);
    teardown(&f);
}

static void bad_segments(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH | F_DISCARD | F_ZEROES);
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t sectors, flags;
        unsigned status;
    } cases[] = {
        {DISCARD, SECTORS, 1, 0, IOERR},    {DISCARD, 0, SECTORS + 1, 0, IOERR},
        {DISCARD, UINT64_MAX, 1, 0, IOERR}, {DISCARD, 0, UINT32_MAX, 0, IOERR},
        {DISCARD, 0, 1, 1, UNSUPP},         {DISCARD, 0, 1, 2, UNSUPP},
        {ZEROES, SECTORS - 1, 2, 0, IOERR}, {ZEROES, UINT64_MAX - 1, 2, 1, IOERR},
        {ZEROES, 0, 1, 2, UNSUPP},          {ZEROES, 0, 1, 0x80000000, UNSUPP},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        /* Behind a good one: nothing of the request may be done. */
        put_segment(&f, 0, 0, 1, 0);
        put_segment(&f, 1, cases[i].sector, cases[i].sectors, cases[i].flags);
        send(&f, cases[i].type, 0, 32, false);
        assert_int_equal(f.disk.waiting_count, 0);
        assert_int_equal(answer(&f, NULL), cases[i].status);
    }
    teardown(&f);

    /* Not negotiated. */
    setup(&f, F_FLUSH);
    put_segment(&f, 0, 0, 1, 0);
    assert_int_equal(request(&f, DISCARD, 0, 16), UNSUPP);
    assert_int_equal(request(&f, ZEROES, 0, 16), UNSUPP);
    assert_int_equal(f.disk.discards + f.disk.zeroes, 0);
    teardown(&f);
}

static void short_header(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH);
    struct vd_buffer b[] = {{f.header, 15, false}, {f.status, 1, true}};
    header(&f, FLUSH, 0);
    vd_add(&f.d, 0, b, 2, false);
    vd_kick(&f.d, 0);
    assert_int_equal(answer(&f, NULL), IOERR);
    header(&f, FLUSH, 0);
    vd_add(&f.d, 0, b + 1, 1, false); /* no header at all */
    vd_kick(&f.d, 0);
    assert_int_equal(answer(&f, NULL), IOERR);
    assert_int_equal(f.disk.waiting_count, 0);
    teardown(&f);
}

/* No room for a status: there is no way to answer, so the device needs a reset, and says so. */
static void no_status(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH);
    struct vd_buffer b = {f.header, 16, false};
    header(&f, FLUSH, 0);
    vd_add(&f.d, 0, &b, 1, false);
    vd_kick(&f.d, 0);
    assert_int_equal(vd_status(&f.d), 0xf | VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(vd_msi_of(&f.m, 0), 1);
    assert_false(answered(&f));
    send(&f, FLUSH, 0, 0, false);
    assert_int_equal(f.disk.waiting_count, 0); /* dead until reset */
    vd_reset(&f.d);
    start(&f, F_FLUSH, 1);
    assert_int_equal(request(&f, FLUSH, 0, 0), OK);
    teardown(&f);
}

/* ---- reset while requests are under way ---- */

static void reset_waits(void **state)
{
    struct fixture f;
    setup(&f, F_FLUSH);
    send(&f, IN, 0, 512, false);
    send(&f, FLUSH, 0, 0, false);
    uint64_t used = f.d.queues[0].device;
    unsigned messages = f.m.msi_count;
    vd_reset(&f.d);
    assert_int_not_equal(vd_status(&f.d), 0);
    vd_write(&f.d, f.d.common + 20, 1, 1); /* too early: dropped */
    disk_finish(&f.disk, 0);
    assert_int_not_equal(vd_status(&f.d), 0);
    disk_finish(&f.disk, 0);
    assert_int_equal(vd_status(&f.d), 0);
    assert_int_equal(vd_get(&f.m, used + 2, 2), 0); /* the old ring is left alone */
    assert_int_equal(vd_get(&f.m, f.status, 1), 0xee);
    assert_int_equal(f.m.msi_count, messages);
    start(&f, F_FLUSH, 1);
    assert_int_equal(request(&f, IN, 3, 512), OK);
    teardown(&f);
}

static void queue_reset_waits(void **state)
{
    struct fixture f;
    create(&f, &plain, 2);
    start(&f, F_FLUSH | F_MQ | VIRTIO_F_RING_RESET, 2);
    send(&f, IN, 0, 512, false);
    vd_write(&f.d, f.d.common + 22, 0, 2);
    vd_write(&f.d, f.d.common + 58, 1, 2);
    assert_int_equal(vd_read(&f.d, f.d.common + 58, 2), 1);
    vd_queue_enable(&f.d, 0); /* too early: dropped */
    disk_drain(&f.disk);
    assert_int_equal(vd_read(&f.d, f.d.common + 58, 2), 0);
    assert_int_equal(vd_read(&f.d, f.d.common + 28, 2), 0);
    assert_int_equal(vd_status(&f.d), 0xf); /* the device lives on */
    vd_queue_setup(&f.d, 0, QUEUE_SIZE / 2);
    assert_int_equal(request(&f, IN, 3, 512), OK);
    teardown(&f);
}

static void save_and_load(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct fixture f, g;
        uint64_t ring = packed ? VIRTIO_F_RING_PACKED : 0;
        setup(&f, F_FLUSH | F_WCE | ring);
        for (unsigned i = 0; i < QUEUE_SIZE; i++)
            assert_int_equal(request(&f, IN, i, 512), OK);
        vd_write(&f.d, f.d.config + 32, 0, 1);
        struct save save = {0};
        save_begin(&save, virtio_pci_ops.name, virtio_pci_ops.version);
        virtio_pci_ops.save(f.pci, &save);
        save_end(&save);

        create(&g, &plain, 1);
        memcpy(ram_hva(g.m.ram, 0, 8 << 20), ram_hva(f.m.ram, 0, 8 << 20), 8 << 20);
        struct load load;
        uint32_t version;
        load_init(&load, save.bytes, save.size_bytes);
        assert_true(load_begin(&load, virtio_pci_ops.name, &version));
        assert_true(virtio_pci_ops.load(g.pci, &load, version));
        assert_true(load_end(&load));
        g.d = f.d;
        g.d.m = &g.m;
        g.m.next_gpa = f.m.next_gpa;
        assert_int_equal(vd_status(&g.d), 0xf);
        assert_int_equal(vd_read(&g.d, g.d.config + 32, 1), 0);
        assert_int_equal(request(&g, OUT, 3, 512), OK);
        assert_int_equal(g.disk.flushes, 1);
        assert_true(vd_msi_of(&g.m, 1) >= 1);

        /* Every truncation is refused, and the device is then as after reset. */
        for (size_t size = 0; size < save.size_bytes; size += 7) {
            load_init(&load, save.bytes, save.size_bytes);
            load_begin(&load, virtio_pci_ops.name, &version);
            if (size < load.offset)
                continue;
            load.section_end = load.size_bytes = size;
            assert_false(virtio_pci_ops.load(g.pci, &load, version));
            assert_int_equal(vd_config_read(&g.m, SLOT, PCI_COMMAND, 2), 0);
        }
        save_free(&save);
        teardown(&f);
        teardown(&g);
    }
}

/* A driver that fills the ring as fast as it is served does not keep the device. */
static void busy_driver(void **state)
{
    struct fixture f;
    setup(&f, 0);
    header(&f, GET_ID, 0);
    const struct vd_buffer buffers[] = {
        {f.header, 16, false}, {f.data, 20, true}, {f.status, 1, true}};
    vd_add(&f.d, 0, buffers, 3, false);
    vd_check_turns(&f.d, 0);
    assert_int_equal(vd_get(&f.m, f.status, 1), OK);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_and_write),    cmocka_unit_test(any_layout),
        cmocka_unit_test(flush_and_id),      cmocka_unit_test(discard_and_zeroes),
        cmocka_unit_test(write_through),     cmocka_unit_test(several_queues),
        cmocka_unit_test(configuration),     cmocka_unit_test(read_only),
        cmocka_unit_test(backend_errors),    cmocka_unit_test(bad_requests),
        cmocka_unit_test(bad_segments),      cmocka_unit_test(short_header),
        cmocka_unit_test(no_status),         cmocka_unit_test(reset_waits),
        cmocka_unit_test(queue_reset_waits), cmocka_unit_test(save_and_load),
        cmocka_unit_test(busy_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
