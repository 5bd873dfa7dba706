/* SPDX-License-Identifier: BSD-2-Clause
 *
 * USB mass storage behind the xHC, through the bus: commands, the thirteen cases of the transport,
 * errors of the host, resets while busy, saving in every phase. Section numbers are those of the
 * Bulk-Only Transport's specification.
 */
#include "dev/xhci_driver.h"

#include "dev/memory_disk.h"
#include "dev/storage/bytes_be.h"
#include "dev/usb/storage.h"
#include "dev/usb/xhci.h"

#include <errno.h>
#include <time.h>

enum {
    SLOT = 3,
    PORT = XHCI_USB2_PORTS + 1, /* as the guest counts */
    IN = 3,                     /* doorbell targets */
    OUT = 4,
    DISK_BYTES = 1 << 20,
    TO_HOST = 0x80,
    PASSED = 0,
    FAILED = 1,
    PHASE_ERROR = 2,
};

struct fixture {
    struct xd x;
    struct xhci *xhci;
    struct memory_disk disk, other;
    struct block_backend backend, other_backend;
    struct scsi_lun *lun;
    struct xd_ring in, out;
    uint64_t data, csw; /* gpa */
    uint32_t tag;
};

/* What came of a command. */
struct outcome {
    unsigned status;
    uint32_t residue;
};

/* ---- bringing it up ---- */

static struct xhci *make(struct fixture *f, bool is_cdrom)
{
    struct xhci_config config = {.pci = f->x.m.pci,
                                 .slot = SLOT,
                                 .msi = vd_msi(&f->x.m),
                                 .ram = f->x.m.ram,
                                 .clock = f->x.clock,
                                 .log = &f->x.m.log};
    const struct scsi_lun_config unit = {
        .is_cdrom = is_cdrom, .medium = &f->backend, .serial = "S1", .keeps_sense = true};
    f->lun = scsi_lun_create(&unit, NULL);
    const struct usb_storage_config storage = {f->lun, "0123456789AB"};
    config.devices[PORT - 1] = usb_storage_create(&storage, NULL);
    struct xhci *xhci = xhci_create(&config, NULL);
    assert_non_null(xhci);
    xhci_ops.reset(xhci);
    return xhci;
}

static void configure(struct fixture *f)
{
    static const uint8_t set_configuration[8] = {0, 9, 1};
    struct xd *x = &f->x;
    memset(ram_hva(x->m.ram, x->input, 33 * 32), 0, 33 * 32);
    f->in = xd_ring_make(x);
    f->out = xd_ring_make(x);
    xd_word(x, 0, 1, 1 | 1 << IN | 1 << OUT);
    xd_word(x, 1, 0, 4u << 27 | 4 << 20);
    xd_word(x, IN + 1, 1, 1024u << 16 | 6 << 3 | 3 << 1);
    vd_put(&x->m, x->input + (IN + 1) * 32 + 8, f->in.gpa | 1, 8);
    xd_word(x, OUT + 1, 1, 1024u << 16 | 2 << 3 | 3 << 1);
    vd_put(&x->m, x->input + (OUT + 1) * 32 + 8, f->out.gpa | 1, 8);
    assert_int_equal(xd_command_code(x, x->input, CONFIGURE, x->slot << 24), SUCCESS);
    assert_int_equal(xd_control(x, set_configuration, 0, NULL), SUCCESS);
}

static void bring_up(struct fixture *f, bool is_cdrom)
{
    memset(f, 0, sizeof(*f));
    memory_disk_init(&f->disk, DISK_BYTES);
    memory_disk_init(&f->other, DISK_BYTES / 2);
    f->backend = memory_disk_backend(&f->disk);
    f->other_backend = memory_disk_backend(&f->other);
    vd_machine_init(&f->x.m, 8 << 20);
    f->x.clock = clock_create(NULL);
    f->xhci = make(f, is_cdrom);
    vd_boot(&f->x.m);
    f->x.bar = vd_bar(&f->x.m, SLOT, 0);
    xd_start(&f->x);
    xd_address(&f->x, PORT);
    configure(f);
    f->data = vd_alloc(&f->x.m, 1 << 20, 4096);
    f->csw = vd_alloc(&f->x.m, 64, 64);
}

static void teardown(struct fixture *f)
{
    memory_disk_drain(&f->disk);
    xhci_ops.destroy(f->xhci);
    clock_destroy(f->x.clock);
    vd_machine_free(&f->x.m);
    memory_disk_free(&f->disk);
    memory_disk_free(&f->other);
}

/* ---- the transport ---- */

static void queue(struct fixture *f, unsigned endpoint, uint64_t gpa, uint32_t size_bytes)
{
    xd_push(&f->x, endpoint == IN ? &f->in : &f->out, gpa, size_bytes, NORMAL, 1 << 5 | 1 << 2);
}

/* A transfer that is to end at once; its code. `left` (may be NULL): how much of it did not come.
 */
static unsigned transfer(struct fixture *f, unsigned endpoint, uint64_t gpa, uint32_t size_bytes,
                         uint32_t *left)
{
    queue(f, endpoint, gpa, size_bytes);
    xd_ring_doorbell(&f->x, endpoint);
    struct xd_event event = xd_expect(&f->x, TRANSFER_EVENT);
    assert_int_equal(event.control >> 16 & 31, endpoint);
    if (left)
        *left = event.status & 0xffffff;
    return xd_code_of(&event);
}

static uint64_t put_cbw(struct fixture *f, const uint8_t *cdb, unsigned cdb_bytes, uint8_t flags,
                        uint32_t length)
{
    uint64_t gpa = vd_alloc(&f->x.m, 64, 64);
    uint8_t *cbw = ram_hva(f->x.m.ram, gpa, 31);
    const uint32_t head[3] = {0x43425355, ++f->tag, length};
    memset(cbw, 0, 31);
    memcpy(cbw, head, sizeof(head));
    cbw[12] = flags;
    cbw[14] = (uint8_t)cdb_bytes;
    memcpy(cbw + 15, cdb, cdb_bytes);
    return gpa;
}

static void send(struct fixture *f, const uint8_t *cdb, unsigned cdb_bytes, uint8_t flags,
                 uint32_t length)
{
    uint64_t gpa = put_cbw(f, cdb, cdb_bytes, flags, length);
    assert_int_equal(transfer(f, OUT, gpa, 31, NULL), SUCCESS);
}

static struct outcome read_csw(struct fixture *f)
{
    const uint8_t *csw = ram_hva(f->x.m.ram, f->csw, 13);
    uint32_t words[3];
    memcpy(words, csw, sizeof(words));
    assert_int_equal(words[0], 0x53425355);
    assert_int_equal(words[1], f->tag);
    return (struct outcome){csw[12], words[2]};
}

static struct outcome take_csw(struct fixture *f)
{
    memset(ram_hva(f->x.m.ram, f->csw, 13), 0xee, 13);
    assert_int_equal(transfer(f, IN, f->csw, 13, NULL), SUCCESS);
    return read_csw(f);
}

/* A whole command; what the disk is asked is done at once. Its data is at f->data. */
static struct outcome run(struct fixture *f, const uint8_t *cdb, unsigned cdb_bytes, uint8_t flags,
                          uint32_t length)
{
    send(f, cdb, cdb_bytes, flags, length);
    if (length && !(flags & TO_HOST))
        assert_int_equal(transfer(f, OUT, f->data, length, NULL), SUCCESS);
    memory_disk_drain(&f->disk);
    if (length && flags & TO_HOST)
        assert_int_equal(transfer(f, IN, f->data, length, NULL), SUCCESS);
    return take_csw(f);
}

static void expect_outcome(struct outcome got, unsigned status, uint32_t residue)
{
    assert_int_equal(got.status, status);
    assert_int_equal(got.residue, residue);
}

static const uint8_t test_unit_ready[6] = {0};
static const uint8_t request_sense[6] = {3, 0, 0, 0, 18};
static const uint8_t inquiry[6] = {0x12, 0, 0, 0, 36};
static const uint8_t read_2[10] = {0x28, 0, 0, 0, 0, 5, 0, 0, 2};
static const uint8_t write_2[10] = {0x2a, 0, 0, 0, 0, 5, 0, 0, 2};

static const uint8_t *data_of(struct fixture *f)
{
    return ram_hva(f->x.m.ram, f->data, 1 << 20);
}

static uint32_t sense(struct fixture *f)
{
    expect_outcome(run(f, request_sense, 6, TO_HOST, 18), PASSED, 0);
    const uint8_t *data = data_of(f);
    return (uint32_t)data[2] << 16 | data[12] << 8 | data[13];
}

/* With the unit attention of the reset taken. */
static void setup(struct fixture *f)
{
    bring_up(f, false);
    expect_outcome(run(f, test_unit_ready, 6, 0, 0), FAILED, 0);
    assert_int_equal(sense(f), 0x062900);
}

/* ---- tests ---- */

static void test_descriptors(void **state)
{
    static const uint8_t get_device[8] = {0x80, 6, 0, 1, 0, 0, 18, 0};
    static const uint8_t get_configuration[8] = {0x80, 6, 0, 2, 0, 0, 255, 0};
    static const uint8_t get_bos[8] = {0x80, 6, 0, 15, 0, 0, 255, 0};
    static const uint8_t get_serial[8] = {0x80, 6, 3, 3, 9, 4, 255, 0};
    static const uint8_t max_lun[8] = {0xa1, 0xfe, 0, 0, 0, 0, 1, 0};
    static const uint8_t other_lun[8] = {0xa1, 0xfe, 0, 0, 1, 0, 1, 0};
    struct fixture f;
    unsigned got;
    setup(&f);
    const uint8_t *data = data_of(&f);
    assert_int_equal(xd_control(&f.x, get_device, f.data, &got), SUCCESS);
    assert_int_equal(got, 18);
    assert_int_equal(data[3], 3); /* USB 3 */
    assert_int_equal(xd_control(&f.x, get_configuration, f.data, &got), SUCCESS);
    assert_int_equal(got, data[2]);
    assert_memory_equal(data + 14, "\x08\x06\x50", 3);
    unsigned length = 0, endpoints = 0;
    for (; length < got; length += data[length])
        endpoints += data[length + 1] == 5;
    assert_int_equal(length, got);
    assert_int_equal(endpoints, data[13]);
    assert_int_equal(xd_control(&f.x, get_bos, f.data, &got), SUCCESS);
    assert_int_equal(got, data[2]);
    assert_int_equal(5 + data[5] + data[5 + data[5]], got);
    assert_int_equal(xd_control(&f.x, get_serial, f.data, &got), SUCCESS);
    assert_int_equal(got, 2 + 2 * 12); /* 4.1.1: twelve digits at least */
    assert_int_equal(data[24], 'B');
    vd_put(&f.x.m, f.data, 0xee, 1);
    assert_int_equal(xd_control(&f.x, max_lun, f.data, &got), SUCCESS);
    assert_int_equal(data[0], 0);
    assert_int_equal(xd_control(&f.x, other_lun, f.data, &got), STALL);
    teardown(&f);
}

static void test_read_and_write(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(vd_config_read(&f.x.m, SLOT, 8, 4) >> 8, 0x0c0330);
    assert_int_equal(xd_get(&f.x, xd_port_at(PORT)) >> 10 & 15, USB_SUPER);
    expect_outcome(run(&f, inquiry, 6, TO_HOST, 36), PASSED, 0);
    assert_memory_equal(data_of(&f) + 8, "skep    disk", 12);
    f.x.m.written_bytes = 0;
    expect_outcome(run(&f, read_2, 10, TO_HOST, 1024), PASSED, 0);
    assert_memory_equal(data_of(&f), f.disk.bytes + 5 * 512, 1024);
    assert_true(f.x.m.written_bytes >= 1024);

    uint8_t bytes[1024];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 31);
    memcpy(ram_hva(f.x.m.ram, f.data, 1024), bytes, sizeof(bytes));
    expect_outcome(run(&f, write_2, 10, 0, 1024), PASSED, 0);
    assert_memory_equal(f.disk.bytes + 5 * 512, bytes, sizeof(bytes));
    assert_int_equal(f.disk.writes, 1);
    teardown(&f);
}

/* Data in pieces of any size, each a transfer of its own. */
static void test_data_in_pieces(void **state)
{
    static const uint32_t pieces[] = {1, 511, 0, 300, 212};
    struct fixture f;
    setup(&f);
    uint8_t *data = ram_hva(f.x.m.ram, f.data, 1024);
    for (unsigned i = 0; i < 1024; i++)
        data[i] = (uint8_t)(i * 13);
    send(&f, write_2, 10, 0, 1024);
    uint64_t at = f.data;
    for (unsigned i = 0; i < 5; at += pieces[i++])
        assert_int_equal(transfer(&f, OUT, at, pieces[i], NULL), SUCCESS);
    memory_disk_drain(&f.disk);
    expect_outcome(take_csw(&f), PASSED, 0);
    assert_memory_equal(f.disk.bytes + 5 * 512, data, 1024);

    send(&f, read_2, 10, TO_HOST, 1024);
    memory_disk_drain(&f.disk);
    memset(data, 0, 1024);
    at = f.data;
    for (unsigned i = 0; i < 5; at += pieces[i++])
        assert_int_equal(transfer(&f, IN, at, pieces[i], NULL), SUCCESS);
    expect_outcome(take_csw(&f), PASSED, 0);
    assert_memory_equal(f.disk.bytes + 5 * 512, data, 1024);
    teardown(&f);
}

/* The host asks before the disk has answered: it waits, and is served when it has. */
static void test_waits_for_the_disk(void **state)
{
    struct fixture f;
    setup(&f);
    send(&f, read_2, 10, TO_HOST, 1024);
    queue(&f, IN, f.data, 1024);
    queue(&f, IN, f.csw, 13);
    xd_ring_doorbell(&f.x, IN);
    xd_expect_none(&f.x);
    memory_disk_drain(&f.disk);
    for (unsigned i = 0; i < 2; i++) {
        struct xd_event event = xd_expect(&f.x, TRANSFER_EVENT);
        assert_int_equal(xd_code_of(&event), SUCCESS);
    }
    expect_outcome(read_csw(&f), PASSED, 0);
    assert_memory_equal(data_of(&f), f.disk.bytes + 5 * 512, 1024);
    teardown(&f);
}

/* All transfers of two commands are queued before the first: none is lost or taken early. */
static void test_queued_ahead(void **state)
{
    struct timespec pause = {0, 1000000};
    struct fixture f;
    setup(&f);
    queue(&f, IN, f.data, 36);
    queue(&f, IN, f.csw, 13);
    queue(&f, IN, f.csw + 32, 13);
    xd_ring_doorbell(&f.x, IN);
    queue(&f, OUT, put_cbw(&f, inquiry, 6, TO_HOST, 36), 31);
    queue(&f, OUT, put_cbw(&f, test_unit_ready, 6, 0, 0), 31);
    xd_ring_doorbell(&f.x, OUT);
    unsigned seen = 0;
    for (unsigned i = 0; i < 10000 && seen < 5; i++) {
        struct xd_event event;
        nanosleep(&pause, NULL);
        while (xd_next_event(&f.x, &event)) {
            assert_int_equal(xd_code_of(&event), SUCCESS);
            seen++;
        }
    }
    assert_int_equal(seen, 5);
    assert_memory_equal(data_of(&f) + 8, "skep    disk", 12);
    assert_int_equal(vd_get(&f.x.m, f.csw + 4, 4), f.tag - 1);
    assert_int_equal(vd_get(&f.x.m, f.csw + 32 + 4, 4), f.tag);
    teardown(&f);
}

/* 6.7: what the host expects, and what the unit means to do. */
static void test_thirteen_cases(void **state)
{
    static const struct {
        const uint8_t *cdb;
        uint8_t size_bytes, flags;
        uint32_t length;
        unsigned status;
        uint32_t residue;
    } cases[] = {
        {test_unit_ready, 6, 0, 0, PASSED, 0},           /* 1: Hn = Dn */
        {read_2, 10, 0, 0, PHASE_ERROR, 0},              /* 2: Hn < Di */
        {write_2, 10, 0, 0, PHASE_ERROR, 0},             /* 3: Hn < Do */
        {test_unit_ready, 6, TO_HOST, 512, PASSED, 512}, /* 4: Hi > Dn */
        {read_2, 10, TO_HOST, 1500, PASSED, 476},        /* 5: Hi > Di */
        {read_2, 10, TO_HOST, 1024, PASSED, 0},          /* 6: Hi = Di */
        {read_2, 10, TO_HOST, 700, PHASE_ERROR, 0},      /* 7: Hi < Di */
        {write_2, 10, TO_HOST, 1024, PHASE_ERROR, 1024}, /* 8: Hi <> Do */
        {test_unit_ready, 6, 0, 512, PASSED, 512},       /* 9: Ho > Dn */
        {read_2, 10, 0, 1024, PHASE_ERROR, 1024},        /* 10: Ho <> Di */
        {write_2, 10, 0, 1500, PASSED, 476},             /* 11: Ho > Do */
        {write_2, 10, 0, 1024, PASSED, 0},               /* 12: Ho = Do */
        {write_2, 10, 0, 1023, PHASE_ERROR, 1023},       /* 13: Ho < Do */
        {inquiry, 6, TO_HOST, 40, PASSED, 4},            /* 5, by allocation length */
        {inquiry, 6, TO_HOST, 20, PHASE_ERROR, 0},       /* 7 */
    };
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(ram_hva(f.x.m.ram, f.data, 2048), 0xaa, 2048);
        unsigned writes = f.disk.writes;
        struct outcome got =
            run(&f, cases[i].cdb, cases[i].size_bytes, cases[i].flags, cases[i].length);
        assert_int_equal(got.status, cases[i].status);
        assert_int_equal(got.residue, cases[i].residue);
        bool writes_any = cases[i].cdb == write_2 && cases[i].status == PASSED;
        assert_int_equal(f.disk.writes - writes, writes_any);
        const uint8_t *data = data_of(&f);
        for (uint32_t at = cases[i].length - cases[i].residue;
             cases[i].flags & TO_HOST && at < cases[i].length; at++)
            assert_int_equal(data[at], 0); /* filled up, and nothing of ours shows */
    }
    expect_outcome(run(&f, read_2, 10, TO_HOST, 1024), PASSED, 0);
    teardown(&f);
}

static void test_errors(void **state)
{
    static const uint8_t beyond[10] = {0x28, 0, 0, 0, 8, 0, 0, 0, 2};
    static const uint8_t unknown[6] = {0xe7};
    /* More than a command may move, and more than there is memory for. */
    static const uint8_t huge[16] = {0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    struct fixture f;
    setup(&f);
    send(&f, read_2, 10, TO_HOST, 1024);
    f.disk.fail = EIO;
    memory_disk_drain(&f.disk);
    assert_int_equal(transfer(&f, IN, f.data, 1024, NULL), SUCCESS);
    expect_outcome(take_csw(&f), FAILED, 1024);
    assert_int_equal(sense(&f), 0x031100);
    assert_int_equal(sense(&f), 0);
    send(&f, write_2, 10, 0, 1024);
    assert_int_equal(transfer(&f, OUT, f.data, 1024, NULL), SUCCESS);
    f.disk.fail = ENOSPC;
    memory_disk_drain(&f.disk);
    expect_outcome(take_csw(&f), FAILED, 1024);
    assert_int_equal(sense(&f), 0x072707);
    expect_outcome(run(&f, beyond, 10, TO_HOST, 1024), FAILED, 1024);
    assert_int_equal(sense(&f), 0x052100);
    expect_outcome(run(&f, unknown, 6, 0, 0), FAILED, 0);
    assert_int_equal(sense(&f), 0x052000);
    send(&f, huge, 16, 0, 0xffffffff);
    for (unsigned i = 0; i < 40; i++) /* no end is in sight; the host breaks off */
        assert_int_equal(transfer(&f, OUT, f.data, 0x10000, NULL), SUCCESS);
    static const uint8_t transport_reset[8] = {0x21, 0xff};
    assert_int_equal(xd_control(&f.x, transport_reset, 0, NULL), SUCCESS);
    expect_outcome(run(&f, inquiry, 6, TO_HOST, 36), PASSED, 0);
    teardown(&f);
}

static void reset_endpoint(struct fixture *f, unsigned endpoint)
{
    struct xd_ring *ring = endpoint == IN ? &f->in : &f->out;
    const uint32_t flags = f->x.slot << 24 | endpoint << 16;
    assert_int_equal(xd_command_code(&f->x, 0, RESET_ENDPOINT, flags), SUCCESS);
    *ring = xd_ring_make(&f->x);
    assert_int_equal(xd_command_code(&f->x, ring->gpa | 1, SET_DEQUEUE, flags), SUCCESS);
}

static void clear_halt(struct fixture *f, unsigned endpoint)
{
    const uint8_t clear[8] = {2, 1, 0, 0, endpoint == IN ? 0x81 : 2};
    assert_int_equal(xd_control(&f->x, clear, 0, NULL), SUCCESS);
    reset_endpoint(f, endpoint);
}

/* 5.3.3.1 and 6.6.1: only a reset of the transport helps, then clearing both. */
static void test_bad_command_blocks(void **state)
{
    static const uint8_t transport_reset[8] = {0x21, 0xff};
    static const struct {
        unsigned at, value, size_bytes;
    } cases[] = {{0, 'X', 31}, {13, 1, 31}, {14, 0, 31}, {14, 17, 31}, {0, 'U', 30}, {0, 'U', 32}};
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t cbw = put_cbw(&f, inquiry, 6, TO_HOST, 36);
        vd_put(&f.x.m, cbw + cases[i].at, cases[i].value, 1);
        assert_int_equal(transfer(&f, OUT, cbw, cases[i].size_bytes, NULL), STALL);
        clear_halt(&f, OUT);
        assert_int_equal(transfer(&f, OUT, cbw, 31, NULL), STALL);
        assert_int_equal(transfer(&f, IN, f.csw, 13, NULL), STALL);
        assert_int_equal(xd_control(&f.x, transport_reset, 0, NULL), SUCCESS);
        clear_halt(&f, IN);
        clear_halt(&f, OUT);
        expect_outcome(run(&f, inquiry, 6, TO_HOST, 36), PASSED, 0);
    }
    send(&f, write_2, 10, 0, 1024); /* more data than was told */
    assert_int_equal(transfer(&f, OUT, f.data, 1025, NULL), STALL);
    assert_int_equal(f.disk.writes, 0);
    teardown(&f);
}

/* What is under way cannot be called back: it ends, and only then the next command begins. */
static void test_reset_while_busy(void **state)
{
    static const uint8_t transport_reset[8] = {0x21, 0xff};
    struct fixture f;
    setup(&f);
    memset(ram_hva(f.x.m.ram, f.data, 1024), 0xaa, 1024);
    send(&f, read_2, 10, TO_HOST, 1024);
    assert_int_equal(f.disk.waiting_count, 1);
    assert_int_equal(xd_control(&f.x, transport_reset, 0, NULL), SUCCESS);
    queue(&f, OUT, put_cbw(&f, test_unit_ready, 6, 0, 0), 31);
    xd_ring_doorbell(&f.x, OUT);
    xd_expect_none(&f.x);
    memory_disk_drain(&f.disk);
    struct xd_event event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), SUCCESS);
    expect_outcome(take_csw(&f), PASSED, 0);
    assert_int_equal(data_of(&f)[0], 0xaa);

    send(&f, read_2, 10, TO_HOST, 1024);
    queue(&f, IN, f.data, 1024);
    xd_ring_doorbell(&f.x, IN);
    xd_put(&f.x, COMMAND, 2); /* the whole controller */
    xd_start(&f.x);
    xd_address(&f.x, PORT);
    configure(&f);
    memory_disk_drain(&f.disk);
    xd_expect_none(&f.x);
    assert_int_equal(data_of(&f)[0], 0xaa);
    expect_outcome(run(&f, test_unit_ready, 6, 0, 0), FAILED, 0);
    assert_int_equal(sense(&f), 0x062900);
    expect_outcome(run(&f, read_2, 10, TO_HOST, 1024), PASSED, 0);
    assert_memory_equal(data_of(&f), f.disk.bytes + 5 * 512, 1024);

    send(&f, read_2, 10, TO_HOST, 1024);
    memory_disk_drain(&f.disk);
    xhci_ops.reset(f.xhci);
    teardown(&f);
}

static void test_cdrom(void **state)
{
    static const uint8_t capacity[10] = {0x25};
    static const uint8_t eject[6] = {0x1b, 0, 0, 0, 2};
    static const uint8_t lock[6] = {0x1e, 0, 0, 0, 1};
    struct fixture f;
    bring_up(&f, true);
    expect_outcome(run(&f, test_unit_ready, 6, 0, 0), FAILED, 0);
    assert_int_equal(sense(&f), 0x062900);
    expect_outcome(run(&f, capacity, 10, TO_HOST, 8), PASSED, 0);
    assert_int_equal(be_get(data_of(&f), 4), DISK_BYTES / 2048 - 1);
    expect_outcome(run(&f, lock, 6, 0, 0), PASSED, 0);
    assert_false(scsi_lun_change_medium(f.lun, &f.other_backend, false));
    send(&f, (const uint8_t[10]){0x28, 0, 0, 0, 0, 1, 0, 0, 1}, 10, TO_HOST, 2048);
    assert_true(scsi_lun_change_medium(f.lun, &f.other_backend, true)); /* while it is read */
    assert_int_equal(transfer(&f, IN, f.data, 2048, NULL), SUCCESS);
    expect_outcome(take_csw(&f), PASSED, 0);
    assert_memory_equal(data_of(&f), f.disk.bytes + 2048, 2048);
    expect_outcome(run(&f, test_unit_ready, 6, 0, 0), FAILED, 0);
    assert_int_equal(sense(&f), 0x062800);
    expect_outcome(run(&f, capacity, 10, TO_HOST, 8), PASSED, 0);
    assert_int_equal(be_get(data_of(&f), 4), DISK_BYTES / 2 / 2048 - 1);
    /* A reset of the bus unlocks the door; one of the machine closes it, too. */
    expect_outcome(run(&f, lock, 6, 0, 0), PASSED, 0);
    xd_reset_port(&f.x, PORT);
    assert_int_equal(xd_command_code(&f.x, 0, RESET_DEVICE, f.x.slot << 24), SUCCESS);
    xd_put(&f.x, COMMAND, 2);
    xd_start(&f.x);
    xd_address(&f.x, PORT);
    configure(&f);
    expect_outcome(run(&f, test_unit_ready, 6, 0, 0), FAILED, 0);
    expect_outcome(run(&f, eject, 6, 0, 0), PASSED, 0);
    expect_outcome(run(&f, capacity, 10, TO_HOST, 8), FAILED, 8);
    assert_int_equal(sense(&f), 0x023a02);
    xhci_ops.reset(f.xhci);
    teardown(&f);
}

/* ---- saving ---- */

/* Saves, and goes on in a controller that was loaded. Back ends are drained before, as the machine
 * does. */
static void go_on_elsewhere(struct fixture *f)
{
    struct save save = {0}, again = {0};
    memory_disk_drain(&f->disk);
    clock_pause(f->x.clock);
    xd_save(f->xhci, &save);
    xhci_ops.destroy(f->xhci);
    f->xhci = make(f, false);
    assert_true(xd_load(f->xhci, &save));
    xd_save(f->xhci, &again);
    assert_int_equal(again.size_bytes, save.size_bytes);
    assert_memory_equal(again.bytes, save.bytes, save.size_bytes);
    clock_resume(f->x.clock);
    save_free(&save);
    save_free(&again);
}

static void test_save_and_load(void **state)
{
    struct fixture f;
    setup(&f);
    uint8_t *data = ram_hva(f.x.m.ram, f.data, 1024);
    for (unsigned i = 0; i < 1024; i++)
        data[i] = (uint8_t)(i * 7);
    send(&f, write_2, 10, 0, 1024);
    go_on_elsewhere(&f);
    assert_int_equal(transfer(&f, OUT, f.data, 500, NULL), SUCCESS);
    go_on_elsewhere(&f);
    assert_int_equal(transfer(&f, OUT, f.data + 500, 524, NULL), SUCCESS);
    go_on_elsewhere(&f);
    expect_outcome(take_csw(&f), PASSED, 0);
    assert_memory_equal(f.disk.bytes + 5 * 512, data, 1024);

    send(&f, read_2, 10, TO_HOST, 1024);
    go_on_elsewhere(&f);
    memset(data, 0, 1024);
    assert_int_equal(transfer(&f, IN, f.data, 700, NULL), SUCCESS);
    go_on_elsewhere(&f);
    assert_int_equal(transfer(&f, IN, f.data + 700, 324, NULL), SUCCESS);
    go_on_elsewhere(&f);
    expect_outcome(take_csw(&f), PASSED, 0);
    assert_memory_equal(f.disk.bytes + 5 * 512, data, 1024);

    f.disk.fail = EIO;
    send(&f, read_2, 10, TO_HOST, 1024);
    go_on_elsewhere(&f); /* what it has to say of the error is saved, too */
    assert_int_equal(transfer(&f, IN, f.data, 1024, NULL), SUCCESS);
    expect_outcome(take_csw(&f), FAILED, 1024);
    go_on_elsewhere(&f);
    assert_int_equal(sense(&f), 0x031100);
    teardown(&f);
}

/* Whatever the bytes: refused, or as harmless as any other state. */
static void test_load_checks(void **state)
{
    struct fixture f;
    unsigned refused = 0;
    setup(&f);
    for (unsigned way = 0; way < 2; way++) {
        struct save save = {0};
        if (way) {
            send(&f, read_2, 10, TO_HOST, 1024);
            memory_disk_drain(&f.disk);
        } else {
            send(&f, write_2, 10, 0, 1024);
            assert_int_equal(transfer(&f, OUT, f.data, 500, NULL), SUCCESS);
        }
        queue(&f, way ? IN : OUT, f.data, 256);
        xd_save(f.xhci, &save);
        for (size_t at = save.size_bytes - 1200; at < save.size_bytes; at++) {
            uint8_t byte = save.bytes[at];
            save.bytes[at] ^= at % 2 ? 0xff : 1;
            refused += !xd_load(f.xhci, &save);
            xd_ring_doorbell(&f.x, way ? IN : OUT);
            memory_disk_drain(&f.disk);
            save.bytes[at] = byte;
        }
        assert_true(xd_load(f.xhci, &save));
        save_free(&save);
        xd_put(&f.x, COMMAND, 2);
        xd_start(&f.x);
        xd_address(&f.x, PORT);
        configure(&f);
    }
    assert_true(refused > 30);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptors),      cmocka_unit_test(test_read_and_write),
        cmocka_unit_test(test_data_in_pieces),   cmocka_unit_test(test_waits_for_the_disk),
        cmocka_unit_test(test_queued_ahead),     cmocka_unit_test(test_thirteen_cases),
        cmocka_unit_test(test_errors),           cmocka_unit_test(test_bad_command_blocks),
        cmocka_unit_test(test_reset_while_busy), cmocka_unit_test(test_cdrom),
        cmocka_unit_test(test_save_and_load),    cmocka_unit_test(test_load_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
