/* SPDX-License-Identifier: BSD-2-Clause
 * Logical units: a disk and a CD-ROM drive, over disks in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/memory_disk.h"
#include "dev/storage/bytes_be.h"
#include "dev/storage/scsi.h"

#include <errno.h>

enum { DISK_BYTES = 4 << 20, BLOCKS = DISK_BYTES / 512, CD_BLOCKS = DISK_BYTES / 2048 };

struct fixture {
    struct memory_disk disk, other;
    struct block_backend backend, other_backend;
    struct scsi_lun *lun;
    struct scsi_request r;
    struct iovec iov[3];
    uint8_t data[256 << 10];
    unsigned done, changes, wishes;
};

static void on_done(struct scsi_request *r)
{
    ((struct fixture *)r->opaque)->done++;
}

static void on_event(void *opaque, enum scsi_event event)
{
    struct fixture *f = opaque;
    if (event == SCSI_EVENT_MEDIUM_CHANGED)
        f->changes++;
    else
        f->wishes++;
}

static void create(struct fixture *f, bool is_cdrom, bool keeps_sense)
{
    struct error err = {0};
    struct scsi_lun_config config = {.is_cdrom = is_cdrom,
                                     .medium = &f->backend,
                                     .serial = "S1",
                                     .keeps_sense = keeps_sense,
                                     .event = on_event,
                                     .opaque = f};
    f->lun = scsi_lun_create(&config, &err);
    assert_non_null(f->lun);
}

static struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    memory_disk_init(&f->disk, DISK_BYTES);
    memory_disk_init(&f->other, DISK_BYTES / 2);
    f->backend = memory_disk_backend(&f->disk);
    f->other_backend = memory_disk_backend(&f->other);
    return f;
}

static int set_up_disk(void **state)
{
    struct fixture *f = *state = fixture_new();
    create(f, false, false);
    return 0;
}

static int set_up_cdrom(void **state)
{
    struct fixture *f = *state = fixture_new();
    create(f, true, true);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    scsi_lun_destroy(f->lun);
    memory_disk_free(&f->disk);
    memory_disk_free(&f->other);
    free(f);
    return 0;
}

/* A command with `size_bytes` of memory in three pieces, odd ones. */
static void prepare(struct fixture *f, const uint8_t *cdb, size_t cdb_bytes, size_t size_bytes)
{
    memset(&f->r, 0xee, sizeof(f->r));
    memset(f->r.cdb, 0, sizeof(f->r.cdb));
    memcpy(f->r.cdb, cdb, cdb_bytes);
    size_t first = size_bytes > 7 ? 6 : size_bytes, second = size_bytes > 1000 ? 502 : 0;
    f->iov[0] = (struct iovec){f->data, first};
    f->iov[1] = (struct iovec){f->data + first, second};
    f->iov[2] = (struct iovec){f->data + first + second, size_bytes - first - second};
    f->r.iov = f->iov;
    f->r.iov_count = 3;
    f->r.data_bytes = size_bytes;
    f->r.done = on_done;
    f->r.opaque = f;
}

/* Carries it out; gives key and code of its sense data, 0 when it went well. */
static unsigned run(struct fixture *f, const uint8_t *cdb, size_t cdb_bytes, size_t size_bytes)
{
    prepare(f, cdb, cdb_bytes, size_bytes);
    unsigned before = f->done;
    if (scsi_lun_submit(f->lun, &f->r)) {
        assert_int_equal(f->done, before);
        memory_disk_drain(&f->disk);
        memory_disk_drain(&f->other);
        assert_int_equal(f->done, before + 1);
    }
    size_t left = size_bytes > 7 ? 6 : size_bytes;
    assert_int_equal(f->iov[0].iov_len, left); /* as it was given */
    assert_int_equal(f->iov[2].iov_len, size_bytes - left - (size_bytes > 1000 ? 502 : 0));
    if (f->r.status == SCSI_GOOD) {
        assert_int_equal(f->r.sense[0], 0);
        return 0;
    }
    assert_int_equal(f->r.status, SCSI_CHECK_CONDITION);
    assert_int_equal(f->r.sense[0], 0x70);
    return (unsigned)f->r.sense[2] << 16 | (unsigned)be_get(f->r.sense + 12, 2);
}

#define RUN(f, size, ...)                                                                          \
    run(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), size)

/* ---- the disk ---- */

static void test_inquiry(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(RUN(f, 96, 0x12, 0, 0, 0, 96), 0);
    assert_int_equal(f->r.moved_bytes, 36);
    assert_int_equal(f->data[0], 0);
    assert_int_equal(f->data[2], 5);
    assert_memory_equal(f->data + 8, "skep    disk            ", 24);
    /* Cut to what is asked for, and to what there is room for. */
    assert_int_equal(RUN(f, 96, 0x12, 0, 0, 0, 5), 0);
    assert_int_equal(f->r.moved_bytes, 5);
    assert_int_equal(RUN(f, 4, 0x12, 0, 0, 0, 96), 0);
    assert_int_equal(f->r.moved_bytes, 4);

    assert_int_equal(RUN(f, 255, 0x12, 1, 0, 0, 255), 0);
    const uint8_t list[] = {0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
    assert_int_equal(f->r.moved_bytes, sizeof(list));
    assert_memory_equal(f->data, list, sizeof(list));
    assert_int_equal(RUN(f, 255, 0x12, 1, 0x80, 0, 255), 0);
    assert_memory_equal(f->data, "\0\x80\0\x02S1", 6);
    assert_int_equal(RUN(f, 255, 0x12, 1, 0x83, 0, 255), 0);
    assert_memory_equal(f->data + 8, "skep    disk            S1", 26);
    assert_int_equal(RUN(f, 255, 0x12, 1, 0xb0, 0, 255), 0);
    assert_int_equal(be_get(f->data + 8, 4), SCSI_TRANSFER_MAX_BYTES / 512);
    assert_int_equal(be_get(f->data + 28, 4), 8); /* granularity */
    assert_int_equal(RUN(f, 255, 0x12, 1, 0xb2, 0, 255), 0);
    assert_int_equal(f->data[5], 0xe0);
    assert_int_equal(RUN(f, 255, 0x12, 1, 0xc9, 0, 255), 0x52400);
    assert_int_equal(RUN(f, 255, 0x12, 0, 0x80, 0, 255), 0x52400);
}

static void test_capacity(void **state)
{
    struct fixture *f = *state;
    uint64_t size;
    const uint8_t cdb[16] = {0x25};
    assert_int_equal(scsi_lun_direction(f->lun, cdb, &size), SCSI_FROM_UNIT);
    assert_int_equal(size, 8);
    assert_int_equal(RUN(f, 8, 0x25), 0);
    assert_int_equal(be_get(f->data, 4), BLOCKS - 1);
    assert_int_equal(be_get(f->data + 4, 4), 512);
    assert_int_equal(RUN(f, 32, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 0);
    assert_int_equal(f->r.moved_bytes, 32);
    assert_int_equal(be_get(f->data, 8), BLOCKS - 1);
    assert_int_equal(f->data[13], 3); /* 4096 bytes of medium a physical block */
    assert_int_equal(f->data[14], 0x80);
    assert_int_equal(RUN(f, 32, 0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 0x52400);
}

static void test_reads(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(RUN(f, 1024, 0x08, 0, 0x01, 0x02, 2, 0), 0);
    assert_memory_equal(f->data, f->disk.bytes + 0x102 * 512, 1024);
    assert_int_equal(f->r.moved_bytes, 1024);
    /* 0 blocks of a 6-byte command are 256. */
    assert_int_equal(RUN(f, 256 * 512, 0x08, 0, 0, 3, 0, 0), 0);
    assert_memory_equal(f->data, f->disk.bytes + 3 * 512, 256 * 512);
    assert_int_equal(RUN(f, 1536, 0x28, 0, 0, 0, 0x1f, 0xfd, 0, 0, 3), 0);
    assert_memory_equal(f->data, f->disk.bytes + 0x1ffd * 512, 1536);
    assert_int_equal(RUN(f, 512, 0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 1), 0);
    assert_memory_equal(f->data, f->disk.bytes + 9 * 512, 512);
    assert_int_equal(RUN(f, 512, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1), 0);
    assert_memory_equal(f->data, f->disk.bytes + 8 * 512, 512);
    /* No block is no error; less memory than data gets the start of it. */
    assert_int_equal(RUN(f, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 0), 0);
    assert_int_equal(RUN(f, 700, 0x28, 0, 0, 0, 0, 4, 0, 0, 2), 0);
    assert_int_equal(f->r.moved_bytes, 700);
    assert_memory_equal(f->data, f->disk.bytes + 4 * 512, 700);
    /* Past the end; wrapping around; too much at once. */
    assert_int_equal(RUN(f, 1536, 0x28, 0, 0, 0, 0x1f, 0xfe, 0, 0, 3), 0x52100);
    assert_int_equal(
        RUN(f, 512, 0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1), 0x52100);
    assert_int_equal(RUN(f, 512, 0xa8, 0, 0, 0, 0, 0, 0, 1, 0, 1), 0x52400);
    /* An error of the host. */
    f->disk.fail = EIO;
    assert_int_equal(RUN(f, 512, 0x28, 0, 0, 0, 0, 4, 0, 0, 1), 0x31100);
    assert_int_equal(f->r.moved_bytes, 0);
    /* A vendor's command. */
    assert_int_equal(RUN(f, 512, 0xc0), 0x52000);
}

static void test_writes(void **state)
{
    struct fixture *f = *state;
    memset(f->data, 0x5a, sizeof(f->data));
    assert_int_equal(RUN(f, 1024, 0x2a, 0, 0, 0, 0, 5, 0, 0, 2), 0);
    assert_memory_equal(f->disk.bytes + 5 * 512, f->data, 1024);
    assert_int_equal(f->disk.bytes[7 * 512 + 600], (uint8_t)(8 * 7 + 7 * 512 + 600));
    assert_int_equal(f->disk.flushes, 0);
    assert_int_equal(RUN(f, 512, 0x2a, 8, 0, 0, 0, 9, 0, 0, 1), 0); /* FUA */
    assert_int_equal(f->disk.flushes, 1);
    assert_int_equal(RUN(f, 512, 0x0a, 0, 0, 11, 1, 0), 0);
    assert_memory_equal(f->disk.bytes + 11 * 512, f->data, 512);
    assert_int_equal(RUN(f, 512, 0xaa, 0, 0, 0, 0, 12, 0, 0, 0, 1), 0);
    assert_int_equal(RUN(f, 512, 0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 1), 0);
    assert_memory_equal(f->disk.bytes + 13 * 512, f->data, 512);
    /* Fewer data than blocks: nothing is written. */
    unsigned writes = f->disk.writes;
    assert_int_equal(RUN(f, 700, 0x2a, 0, 0, 0, 0, 20, 0, 0, 2), 0xb4b00);
    assert_int_equal(f->disk.writes, writes);
    f->disk.fail = ENOSPC;
    assert_int_equal(RUN(f, 512, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1), 0x72707);
    assert_int_equal(RUN(f, 0, 0x35), 0);
    assert_int_equal(f->disk.flushes, 2);
}

static void test_verify(void **state)
{
    struct fixture *f = *state;
    memcpy(f->data, f->disk.bytes + 3 * 512, 200 * 512);
    assert_int_equal(RUN(f, 0, 0x2f, 0, 0, 0, 0, 3, 0, 0, 200), 0);
    assert_int_equal(f->disk.reads, 2); /* in pieces */
    assert_int_equal(RUN(f, 200 * 512, 0x2f, 2, 0, 0, 0, 3, 0, 0, 200), 0);
    f->data[199 * 512 + 511] ^= 1;
    assert_int_equal(RUN(f, 200 * 512, 0x2f, 2, 0, 0, 0, 3, 0, 0, 200), 0xe1d00);
    f->disk.fail = EIO;
    assert_int_equal(RUN(f, 0, 0x2f, 0, 0, 0, 0, 3, 0, 0, 200), 0x31100);
    /* WRITE AND VERIFY. */
    assert_int_equal(RUN(f, 200 * 512, 0x2e, 2, 0, 0, 0, 3, 0, 0, 200), 0);
    assert_memory_equal(f->disk.bytes + 3 * 512, f->data, 200 * 512);
    assert_int_equal(f->r.moved_bytes, 200 * 512);
    assert_int_equal(f->disk.flushes, 1);
}

static void put_range(uint8_t *at, uint64_t lba, uint32_t blocks)
{
    memset(at, 0, 16);
    be_put(at, lba, 8);
    be_put(at + 8, blocks, 4);
}

static void test_unmap(void **state)
{
    struct fixture *f = *state;
    const uint8_t head[8] = {0, 54, 0, 48};
    memcpy(f->data, head, 8);
    put_range(f->data + 8, 16, 8);
    put_range(f->data + 24, 99, 0);
    put_range(f->data + 40, 64, 1);
    assert_int_equal(RUN(f, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56), 0);
    assert_int_equal(f->disk.discards, 2);
    assert_int_equal(f->disk.bytes[16 * 512], 0xdd);
    assert_int_equal(f->disk.bytes[64 * 512 + 511], 0xdd);
    /* A bad range anywhere: nothing happens. */
    memcpy(f->data, head, 8);
    put_range(f->data + 40, BLOCKS - 1, 2);
    assert_int_equal(RUN(f, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56), 0x52100);
    assert_int_equal(f->disk.discards, 2);
    /* Lists that say more than they hold, or are cut in the head. */
    f->data[3] = 0xff;
    put_range(f->data + 40, 0, 0);
    assert_int_equal(RUN(f, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56), 0);
    assert_int_equal(RUN(f, 4, 0x42, 0, 0, 0, 0, 0, 0, 0, 4), 0x51a00);
    assert_int_equal(RUN(f, 8, 0x42, 0, 0, 0, 0, 0, 0, 0, 56), 0xb4b00);
    assert_int_equal(RUN(f, 8, 0x42, 0, 0, 0, 0, 0, 0xff, 0xff), 0x51a00);
}

static void test_write_same(void **state)
{
    struct fixture *f = *state;
    memset(f->data, 0, 512);
    assert_int_equal(RUN(f, 512, 0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 16), 0);
    assert_int_equal(f->disk.zeroes, 1);
    assert_int_equal(f->disk.unmaps, 1);
    assert_int_equal(f->disk.bytes[24 * 512 - 1], 0);
    /* A pattern, over more than one chunk. */
    memset(f->data, 0xa7, 512);
    assert_int_equal(RUN(f, 512, 0x41, 0, 0, 0, 0, 8, 0, 0, 200), 0);
    assert_int_equal(f->disk.writes, 2);
    for (unsigned i = 8 * 512; i < 208 * 512; i++)
        assert_int_equal(f->disk.bytes[i], 0xa7);
    assert_int_equal(f->disk.bytes[208 * 512 + 4], (uint8_t)(208 * 7 + 208 * 512 + 4));
    /* Up to the end of the disk when no number is given; without a block of data. */
    assert_int_equal(RUN(f, 0, 0x93, 1, 0, 0, 0, 0, 0, 0, 0x1f, 0xf0, 0, 0, 0, 0), 0);
    assert_int_equal(f->disk.bytes[DISK_BYTES - 1], 0);
    assert_int_equal(RUN(f, 512, 0x41, 0, 0, 0, 0x1f, 0xff, 0, 0, 2), 0x52100);
    assert_int_equal(RUN(f, 512, 0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0x7f, 0, 0, 0), 0x52400);
}

static void test_mode_pages(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(RUN(f, 192, 0x1a, 0, 0x3f, 0, 192), 0);
    assert_int_equal(f->data[0] + 1, f->r.moved_bytes);
    assert_int_equal(f->data[2], 0x10);
    assert_int_equal(f->data[3], 8);
    assert_int_equal(be_get(f->data + 4, 4), BLOCKS);
    assert_int_equal(RUN(f, 192, 0x5a, 8, 8, 0, 0, 0, 0, 0, 192), 0);
    assert_int_equal(f->r.moved_bytes, 8 + 20);
    assert_int_equal(f->data[10], 4); /* a write cache */
    /* Without it each write is followed by a flush. */
    memset(f->data, 0, 24);
    f->data[4] = 8;
    f->data[5] = 18;
    assert_int_equal(RUN(f, 24, 0x15, 0x10, 0, 0, 24), 0);
    assert_int_equal(RUN(f, 512, 0x2a, 0, 0, 0, 0, 5, 0, 0, 1), 0);
    assert_int_equal(f->disk.flushes, 1);
    /* What cannot be changed, unknown pages, cut ones. */
    memset(f->data, 0, 24);
    f->data[4] = 8;
    f->data[5] = 18;
    f->data[9] = 1;
    assert_int_equal(RUN(f, 24, 0x15, 0x10, 0, 0, 24), 0x52600);
    f->data[5] = 17;
    assert_int_equal(RUN(f, 24, 0x15, 0x10, 0, 0, 24), 0x52600);
    f->data[5] = 19;
    assert_int_equal(RUN(f, 24, 0x15, 0x10, 0, 0, 24), 0x51a00);
    f->data[3] = 0xff;
    assert_int_equal(RUN(f, 24, 0x15, 0x10, 0, 0, 24), 0x51a00);
    assert_int_equal(RUN(f, 192, 0x1a, 0, 0xff, 0, 192), 0x53900);
    assert_int_equal(RUN(f, 192, 0x1a, 0, 0x05, 0, 192), 0x52400);
}

static void test_stop_and_read_only(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(RUN(f, 0, 0x1b, 0, 0, 0, 0), 0);
    assert_int_equal(f->disk.flushes, 1);
    assert_int_equal(RUN(f, 0, 0x00), 0x20402);
    assert_int_equal(RUN(f, 512, 0x28, 0, 0, 0, 0, 4, 0, 0, 1), 0x20402);
    assert_int_equal(RUN(f, 0, 0x1b, 0, 0, 0, 1), 0);
    assert_int_equal(RUN(f, 0, 0x00), 0);

    scsi_lun_destroy(f->lun);
    f->disk.info.read_only = true;
    create(f, false, false);
    assert_int_equal(RUN(f, 512, 0x2a, 0, 0, 0, 0, 5, 0, 0, 1), 0x72700);
    assert_int_equal(RUN(f, 8, 0x42, 0, 0, 0, 0, 0, 0, 0, 8), 0x72700);
    assert_int_equal(RUN(f, 4, 0x1a, 0, 0x3f, 0, 4), 0);
    assert_int_equal(f->data[2], 0x90);
}

static void test_reset_is_told(void **state)
{
    struct fixture *f = *state;
    scsi_lun_reset(f->lun, false);
    assert_int_equal(RUN(f, 36, 0x12, 0, 0, 0, 36), 0);
    assert_int_equal(RUN(f, 0, 0x00), 0x62900);
    assert_int_equal(RUN(f, 0, 0x00), 0);
    scsi_lun_reset(f->lun, false);
    assert_int_equal(RUN(f, 18, 0x03, 0, 0, 0, 18), 0);
    assert_int_equal(f->data[2], 6);
    assert_int_equal(RUN(f, 0, 0x00), 0);
}

/* ---- the CD-ROM drive ---- */

static void test_cd_reads(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(RUN(f, 36, 0x12, 0, 0, 0, 36), 0);
    assert_int_equal(f->data[0], 5);
    assert_int_equal(f->data[1], 0x80);
    assert_int_equal(RUN(f, 8, 0x25), 0);
    assert_int_equal(be_get(f->data, 4), CD_BLOCKS - 1);
    assert_int_equal(be_get(f->data + 4, 4), 2048);
    assert_int_equal(RUN(f, 4096, 0x28, 0, 0, 0, 0, 16, 0, 0, 2), 0);
    assert_memory_equal(f->data, f->disk.bytes + 16 * 2048, 4096);
    assert_int_equal(RUN(f, 4096, 0xa8, 0, 0, 0, 0, 16, 0, 0, 0, 2), 0);
    assert_int_equal(RUN(f, 4096, 0xbe, 0, 0, 0, 0, 17, 0, 0, 2, 0x10), 0);
    assert_memory_equal(f->data, f->disk.bytes + 17 * 2048, 4096);
    assert_int_equal(RUN(f, 4096, 0xbe, 0, 0, 0, 0, 17, 0, 0, 2, 0), 0);
    assert_int_equal(f->r.moved_bytes, 0);
    assert_int_equal(RUN(f, 4096, 0xbe, 4, 0, 0, 0, 17, 0, 0, 2, 0x10), 0x56400);
    assert_int_equal(RUN(f, 2048, 0x28, 0, 0, 0, CD_BLOCKS >> 8, CD_BLOCKS & 255, 0, 0, 1),
                     0x52100);
    assert_int_equal(RUN(f, 2048, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 0x52000);
}

static void test_cd_tables(void **state)
{
    struct fixture *f = *state;
    const uint8_t toc[] = {0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 8, 0};
    assert_int_equal(RUN(f, 64, 0x43, 0, 0, 0, 0, 0, 0, 0, 64), 0);
    assert_int_equal(f->r.moved_bytes, sizeof(toc));
    assert_memory_equal(f->data, toc, sizeof(toc));
    assert_int_equal(RUN(f, 64, 0x43, 2, 0, 0, 0, 0, 0xaa, 0, 64), 0);
    assert_int_equal(be_get(f->data, 2), 10);
    const uint8_t msf[] = {0, 0, 29, 23}; /* 2048 + 150 frames */
    assert_memory_equal(f->data + 8, msf, 4);
    assert_int_equal(RUN(f, 64, 0x43, 0, 1, 0, 0, 0, 0, 0, 64), 0);
    assert_int_equal(f->r.moved_bytes, 12);
    assert_int_equal(RUN(f, 64, 0x43, 0, 2, 0, 0, 0, 0, 0, 64), 0);
    assert_int_equal(f->r.moved_bytes, 48);
    assert_int_equal(RUN(f, 64, 0x43, 0, 0, 0, 0, 0, 2, 0, 64), 0x52400);
    assert_int_equal(RUN(f, 64, 0x51, 0, 0, 0, 0, 0, 0, 0, 64), 0);
    assert_int_equal(f->r.moved_bytes, 34);
    assert_int_equal(RUN(f, 64, 0x52, 1, 0, 0, 0, 1, 0, 0, 64), 0);
    assert_int_equal(be_get(f->data + 24, 4), CD_BLOCKS);
    assert_int_equal(RUN(f, 128, 0x46, 0, 0, 0, 0, 0, 0, 0, 128), 0);
    assert_int_equal(be_get(f->data, 4), f->r.moved_bytes - 4);
    assert_int_equal(be_get(f->data + 6, 2), 8); /* a CD */
    assert_int_equal(RUN(f, 128, 0x46, 2, 0, 3, 0, 0, 0, 0, 128), 0);
    assert_int_equal(f->r.moved_bytes, 16);
    assert_int_equal(RUN(f, 8, 0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8), 0);
    assert_int_equal(RUN(f, 128, 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128), 0);
    assert_int_equal(f->r.moved_bytes, 8 + 22);
    assert_int_equal(RUN(f, 128, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 128), 0x52400); /* no DVD */
}

/* The media event that waits, and whether the tray is open (1) and a medium is in it (2). */
static void check_event(struct fixture *f, uint8_t event, uint8_t where)
{
    assert_int_equal(RUN(f, 8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0);
    assert_int_equal(f->data[2], 4);
    assert_int_equal(f->data[4], event);
    assert_int_equal(f->data[5], where);
}

static void test_cd_eject(void **state)
{
    struct fixture *f = *state;
    check_event(f, 0, 2);
    assert_int_equal(RUN(f, 0, 0x1e, 0, 0, 0, 1), 0); /* locked */
    assert_int_equal(RUN(f, 0, 0x1b, 0, 0, 0, 2), 0x55302);
    assert_false(scsi_lun_change_medium(f->lun, NULL, false));
    assert_int_equal(f->wishes, 1);
    check_event(f, 1, 2);
    assert_int_equal(RUN(f, 0, 0x1e, 0, 0, 0, 0), 0);
    assert_int_equal(RUN(f, 0, 0x1b, 0, 0, 0, 2), 0); /* by the guest */
    check_event(f, 3, 1);
    assert_int_equal(RUN(f, 0, 0x00), 0x23a02);
    assert_int_equal(RUN(f, 0, 0x1b, 0, 0, 0, 3), 0); /* closed again */
    check_event(f, 2, 2);
    assert_int_equal(RUN(f, 0, 0x00), 0x62800);
    assert_int_equal(RUN(f, 0, 0x00), 0);
}

static void test_cd_change(void **state)
{
    struct fixture *f = *state;
    /* While a read is under way: it ends on the old medium. */
    const uint8_t read[] = {0x28, 0, 0, 0, 0, 16, 0, 0, 1};
    prepare(f, read, sizeof(read), 2048);
    assert_true(scsi_lun_submit(f->lun, &f->r));
    assert_true(scsi_lun_change_medium(f->lun, &f->other_backend, false));
    assert_int_equal(f->done, 1);
    assert_int_equal(f->changes, 1);
    assert_memory_equal(f->data, f->disk.bytes + 16 * 2048, 2048);
    check_event(f, 2, 2);
    assert_int_equal(RUN(f, 8, 0x25), 0x62800);
    /* What was wrong is kept for REQUEST SENSE, once. */
    assert_int_equal(RUN(f, 18, 0x03, 0, 0, 0, 18), 0);
    assert_int_equal(f->data[2] << 16 | f->data[12] << 8, 0x62800);
    assert_int_equal(RUN(f, 18, 0x03, 0, 0, 0, 18), 0);
    assert_int_equal(f->data[2], 0);
    assert_int_equal(RUN(f, 8, 0x25), 0);
    assert_int_equal(be_get(f->data, 4), CD_BLOCKS / 2 - 1);
    /* And out. */
    assert_int_equal(RUN(f, 0, 0x1e, 0, 0, 0, 1), 0);
    assert_true(scsi_lun_change_medium(f->lun, NULL, true));
    check_event(f, 3, 0);
    assert_int_equal(RUN(f, 0, 0x00), 0x62800);
    assert_int_equal(RUN(f, 0, 0x00), 0x23a01);
    assert_int_equal(RUN(f, 8, 0x46, 0, 0, 0, 0, 0, 0, 0, 8), 0);
    assert_int_equal(be_get(f->data + 6, 2), 0);
}

static void test_cd_dvd(void **state)
{
    struct fixture *f = *state;
    f->other.info.size_bytes = UINT64_C(5) << 30;
    assert_true(scsi_lun_change_medium(f->lun, &f->other_backend, false));
    assert_int_equal(RUN(f, 0, 0x00), 0x62800);
    assert_int_equal(RUN(f, 8, 0x46, 0, 0, 0, 0, 0, 0, 0, 8), 0);
    assert_int_equal(be_get(f->data + 6, 2), 0x10);
    assert_int_equal(RUN(f, 4096, 0xad, 0, 0, 0, 0, 0, 0, 0, 0x10, 0), 0);
    assert_int_equal(f->r.moved_bytes, 2052);
    assert_int_equal(be_get(f->data + 12, 4), 0x30000 + (UINT64_C(5) << 30) / 2048 - 1);
}

static void test_saved(void **state)
{
    struct fixture *f = *state;
    struct save save = {0};
    assert_int_equal(RUN(f, 0, 0x1b, 0, 0, 0, 2), 0);
    assert_int_equal(RUN(f, 0, 0x00), 0x23a02);
    save_begin(&save, "lun", 1);
    scsi_lun_save(f->lun, &save);
    save_end(&save);
    scsi_lun_destroy(f->lun);
    create(f, true, true);
    uint32_t version;
    struct load load;
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, "lun", &version) && scsi_lun_load(f->lun, &load) &&
                load_end(&load));
    assert_int_equal(RUN(f, 18, 0x03, 0, 0, 0, 18), 0);
    assert_int_equal(f->data[2] << 16 | f->data[12] << 8 | f->data[13], 0x23a02);
    check_event(f, 3, 1);
    /* A disk's tray is not open. */
    scsi_lun_destroy(f->lun);
    create(f, false, false);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, "lun", &version));
    assert_false(scsi_lun_load(f->lun, &load));
    assert_int_equal(RUN(f, 0, 0x00), 0);
    save_free(&save);
}

int main(void)
{
#define DISK_TEST(fn)  cmocka_unit_test_setup_teardown(fn, set_up_disk, tear_down)
#define CDROM_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up_cdrom, tear_down)
    const struct CMUnitTest tests[] = {
        DISK_TEST(test_inquiry),
        DISK_TEST(test_capacity),
        DISK_TEST(test_reads),
        DISK_TEST(test_writes),
        DISK_TEST(test_verify),
        DISK_TEST(test_unmap),
        DISK_TEST(test_write_same),
        DISK_TEST(test_mode_pages),
        DISK_TEST(test_stop_and_read_only),
        DISK_TEST(test_reset_is_told),
        CDROM_TEST(test_cd_reads),
        CDROM_TEST(test_cd_tables),
        CDROM_TEST(test_cd_eject),
        CDROM_TEST(test_cd_change),
        CDROM_TEST(test_cd_dvd),
        CDROM_TEST(test_saved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
