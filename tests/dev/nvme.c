/* SPDX-License-Identifier: BSD-2-Clause
 * The NVMe controller through the bus, over a disk in memory that finishes requests when told to.
 */
#include "dev/virtio_driver.h"

#include "dev/memory_disk.h"
#include "dev/storage/nvme.h"

#include <errno.h>

enum {
    SLOT = 5,
    DISK_BYTES = 256 << 10,
    ENTRIES = 16,
    SECTORS = DISK_BYTES / 512,
    CC = 0x14,
    CSTS = 0x1c,
    NSSR = 0x20,
    AQA = 0x24,
    ASQ = 0x28,
    ACQ = 0x30,
    CC_ENABLED = 4 << 20 | 6 << 16 | 1,
    PAGE = 4096,
    QUEUES = 3,
};

struct queue {
    uint64_t sq, cq;
    unsigned entries, tail, head, phase;
};

struct fixture {
    struct vd_machine m;
    struct memory_disk disk;
    struct nvme *nvme;
    uint64_t bar;
    struct queue q[QUEUES];
    uint64_t data; /* 16 pages */
    uint16_t next_id;
};

struct command {
    uint8_t opcode, flags;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13;
};

struct answer {
    uint32_t result;
    uint16_t id, status, sq;
};

static uint32_t reg(struct fixture *f, unsigned offset)
{
    return (uint32_t)bus_read(f->m.bus, BUS_MMIO, f->bar + offset, 4);
}

static void set(struct fixture *f, unsigned offset, uint64_t value, unsigned size_bytes)
{
    bus_write(f->m.bus, BUS_MMIO, f->bar + offset, value, size_bytes);
}

static void create(struct fixture *f, bool read_only)
{
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 8 << 20);
    memory_disk_init(&f->disk, DISK_BYTES);
    f->disk.info.read_only = read_only;
    const struct block_backend backend = memory_disk_backend(&f->disk);
    const struct nvme_config config = {.pci = f->m.pci,
                                       .slot = SLOT,
                                       .msi = vd_msi(&f->m),
                                       .ram = f->m.ram,
                                       .log = &f->m.log,
                                       .backend = &backend,
                                       .serial = "serial-1"};
    f->nvme = nvme_create(&config, &err);
    assert_non_null(f->nvme);
    vd_boot(&f->m);
    f->bar = vd_bar(&f->m, SLOT, 0);
    f->data = vd_alloc(&f->m, 64 * PAGE, PAGE);
}

static void place_queue(struct fixture *f, unsigned id, unsigned entries)
{
    f->q[id] = (struct queue){.sq = vd_alloc(&f->m, 64 * entries, PAGE),
                              .cq = vd_alloc(&f->m, 16 * entries, PAGE),
                              .entries = entries,
                              .phase = 1};
}

static void enable(struct fixture *f)
{
    place_queue(f, 0, ENTRIES);
    set(f, AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1), 4);
    set(f, ASQ, f->q[0].sq, 8);
    set(f, ACQ, f->q[0].cq, 8);
    set(f, CC, CC_ENABLED, 4);
    assert_int_equal(reg(f, CSTS), 1);
}

static void enable_msix(struct fixture *f)
{
    unsigned at = vd_capability(&f->m, SLOT, PCI_CAPABILITY_MSIX, 0);
    uint32_t table = vd_config_read(&f->m, SLOT, at + 4, 4);
    uint64_t base = vd_bar(&f->m, SLOT, table & 7);
    for (unsigned i = 0; i < QUEUES; i++) {
        bus_write(f->m.bus, BUS_MMIO, base + 16 * i, VD_MSI_ADDRESS, 8);
        bus_write(f->m.bus, BUS_MMIO, base + 16 * i + 8, VD_MSI_DATA + i, 4);
        bus_write(f->m.bus, BUS_MMIO, base + 16 * i + 12, 0, 4);
    }
    vd_config_write(&f->m, SLOT, at + 2, 0x8000, 2);
}

/* Puts a command into a queue without ringing; gives its id. */
static uint16_t put(struct fixture *f, unsigned id, const struct command *c)
{
    struct queue *q = &f->q[id];
    uint64_t at = q->sq + 64 * q->tail;
    uint16_t command_id = f->next_id++;
    vd_put(&f->m, at, c->opcode | c->flags << 8 | (uint32_t)command_id << 16, 4);
    vd_put(&f->m, at + 4, c->nsid, 4);
    vd_put(&f->m, at + 24, c->prp1, 8);
    vd_put(&f->m, at + 32, c->prp2, 8);
    vd_put(&f->m, at + 40, c->dw10, 4);
    vd_put(&f->m, at + 44, c->dw11, 4);
    vd_put(&f->m, at + 48, c->dw12, 4);
    vd_put(&f->m, at + 52, c->dw13, 4);
    q->tail = (q->tail + 1) % q->entries;
    return command_id;
}

static void ring(struct fixture *f, unsigned id)
{
    set(f, 0x1000 + 8 * id, f->q[id].tail, 4);
}

static uint16_t send(struct fixture *f, unsigned id, const struct command *c)
{
    uint16_t command_id = put(f, id, c);
    ring(f, id);
    return command_id;
}

/* The next answer without telling that it was taken; false: there is none. */
static bool peek(struct fixture *f, unsigned id, struct answer *a)
{
    struct queue *q = &f->q[id];
    uint64_t at = q->cq + 16 * q->head;
    uint32_t last = (uint32_t)vd_get(&f->m, at + 12, 4);
    if ((last >> 16 & 1) != q->phase)
        return false;
    a->result = (uint32_t)vd_get(&f->m, at, 4);
    a->sq = (uint16_t)vd_get(&f->m, at + 10, 2);
    a->id = (uint16_t)last;
    a->status = last >> 17 & 0x7ff;
    if (++q->head == q->entries) {
        q->head = 0;
        q->phase ^= 1;
    }
    return true;
}

static bool take(struct fixture *f, unsigned id, struct answer *a)
{
    if (!peek(f, id, a))
        return false;
    set(f, 0x1000 + 8 * id + 4, f->q[id].head, 4);
    return true;
}

/* Sends, lets the disk finish, expects this one answer and gives its status. */
static unsigned run_result(struct fixture *f, unsigned id, const struct command *c,
                           uint32_t *result)
{
    struct answer a;
    uint16_t command_id = send(f, id, c);
    memory_disk_drain(&f->disk);
    assert_true(take(f, id, &a));
    assert_int_equal(a.id, command_id);
    assert_int_equal(a.sq, id);
    *result = a.result;
    return a.status;
}

static unsigned run(struct fixture *f, unsigned id, const struct command *c)
{
    uint32_t result;
    return run_result(f, id, c, &result);
}

static unsigned create_cq(struct fixture *f, unsigned id, unsigned vector)
{
    return run(f, 0,
               &(struct command){.opcode = 5,
                                 .prp1 = f->q[id].cq,
                                 .dw10 = (f->q[id].entries - 1) << 16 | id,
                                 .dw11 = vector << 16 | 3});
}

static unsigned create_sq(struct fixture *f, unsigned id, unsigned cq)
{
    return run(f, 0,
               &(struct command){.opcode = 1,
                                 .prp1 = f->q[id].sq,
                                 .dw10 = (f->q[id].entries - 1) << 16 | id,
                                 .dw11 = cq << 16 | 1});
}

static void start_queues(struct fixture *f)
{
    enable(f);
    enable_msix(f);
    for (unsigned i = 1; i < QUEUES; i++) {
        place_queue(f, i, ENTRIES);
        assert_int_equal(create_cq(f, i, i), 0);
        assert_int_equal(create_sq(f, i, i), 0);
    }
}

static void setup(struct fixture *f)
{
    create(f, false);
    start_queues(f);
}

static void teardown(struct fixture *f)
{
    memory_disk_drain(&f->disk);
    nvme_ops.destroy(f->nvme);
    memory_disk_free(&f->disk);
    vd_machine_free(&f->m);
}

static struct command rw(struct fixture *f, bool write, uint64_t lba, unsigned blocks)
{
    return (struct command){.opcode = write ? 1 : 2,
                            .nsid = 1,
                            .prp1 = f->data,
                            .prp2 = f->data + PAGE,
                            .dw10 = (uint32_t)lba,
                            .dw11 = (uint32_t)(lba >> 32),
                            .dw12 = blocks - 1};
}

/* ---- tests ---- */

static void test_registers(void **state)
{
    struct fixture f;
    create(&f, false);
    assert_int_equal(vd_config_read(&f.m, SLOT, 8, 4) >> 8, 0x010802);
    uint64_t cap = bus_read(f.m.bus, BUS_MMIO, f.bar, 8);
    assert_int_equal(cap & 0xffff, 1023);
    assert_true(cap >> 37 & 1);
    assert_int_equal(reg(&f, 4), cap >> 32);
    assert_int_equal(reg(&f, 8), 0x10400);
    assert_int_equal(reg(&f, CSTS), 0);
    set(&f, 0x1000, 3, 4); /* a doorbell before there is a queue */
    set(&f, AQA, UINT32_MAX, 4);
    assert_int_equal(reg(&f, AQA), 0x0fff0fff);
    set(&f, 0x0c, 5, 4);
    set(&f, 0x10, 1, 4);
    assert_int_equal(reg(&f, 0x0c), 4);
    assert_int_equal(bus_read(f.m.bus, BUS_MMIO, f.bar + 0x37, 4), 0);
    teardown(&f);
}

static void test_enable_badly(void **state)
{
    static const struct {
        uint32_t cc, aqa;
        uint64_t asq, acq;
    } bad[] = {
        {CC_ENABLED, 0, 0x10000, 0x20000},
        {CC_ENABLED, 0x0000000f, 0x10000, 0x20000},
        {CC_ENABLED, 0x000f000f, 0x10800, 0x20000},
        {CC_ENABLED, 0x000f000f, 0x10000, 0x20004},
        {CC_ENABLED, 0x000f000f, 0x10000, UINT64_MAX - 4095},
        {CC_ENABLED, 0x000f000f, 8 << 20, 0x20000},
        {CC_ENABLED | 1 << 4, 0x000f000f, 0x10000, 0x20000},  /* another command set */
        {CC_ENABLED | 5 << 7, 0x000f000f, 0x20000, 0x40000},  /* pages of 128 KiB */
        {CC_ENABLED | 1 << 11, 0x000f000f, 0x20000, 0x40000}, /* weighted arbitration */
    };
    struct fixture f;
    create(&f, false);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        set(&f, AQA, bad[i].aqa, 4);
        set(&f, ASQ, bad[i].asq, 8);
        set(&f, ACQ, bad[i].acq, 8);
        set(&f, CC, bad[i].cc, 4);
        assert_int_equal(reg(&f, CSTS), 2);
        set(&f, CC, bad[i].cc & ~1U, 4);
        assert_int_equal(reg(&f, CSTS), 0);
    }
    enable(&f);
    teardown(&f);
}

static void test_identify(void **state)
{
    struct fixture f;
    setup(&f);
    struct command c = {.opcode = 6, .prp1 = f.data, .dw10 = 1};
    assert_int_equal(run(&f, 0, &c), 0);
    const char *data = ram_hva(f.m.ram, f.data, PAGE);
    assert_memory_equal(data + 4, "serial-1            ", 20);
    assert_int_equal(data[77], 7);
    assert_memory_equal(data + 768, "nqn.2014.08.org.nvmexpress:fb5dfb5dserial-1 ", 44);
    c = (struct command){.opcode = 6, .nsid = 1, .prp1 = f.data + 0x800, .prp2 = f.data + PAGE};
    assert_int_equal(run(&f, 0, &c), 0); /* over two pages */
    assert_int_equal(vd_get(&f.m, f.data + 0x800, 8), SECTORS);
    assert_int_equal(vd_get(&f.m, f.data + 0x800 + 130, 1), 9);
    c = (struct command){.opcode = 6, .nsid = 2, .prp1 = f.data};
    assert_int_equal(run(&f, 0, &c), 0x0b);
    c = (struct command){.opcode = 6, .nsid = 0, .prp1 = f.data, .dw10 = 2};
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data, 8), 1);
    c.nsid = 1;
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data, 8), 0);
    c.dw10 = 3;
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data, 2), 0x1003);
    assert_int_equal(vd_get(&f.m, f.data + 10, 1) >> 4, 8);
    c.dw10 = 0x99;
    assert_int_equal(run(&f, 0, &c), 2);
    c = (struct command){.opcode = 6, .prp1 = f.data + 2, .dw10 = 1};
    assert_int_equal(run(&f, 0, &c), 0x13);
    c.prp1 = 8 << 20;
    assert_int_equal(run(&f, 0, &c), 4);
    c = (struct command){.opcode = 6, .flags = 0x40, .prp1 = f.data, .dw10 = 1};
    assert_int_equal(run(&f, 0, &c), 2); /* an SGL */
    c = (struct command){.opcode = 0x7f};
    assert_int_equal(run(&f, 0, &c), 1);
    teardown(&f);
}

static void test_read_write(void **state)
{
    struct fixture f;
    setup(&f);
    struct command c = rw(&f, false, 3, 16);
    f.m.watched_gpa = f.data + 2 * PAGE - 1;
    assert_int_equal(run(&f, 1, &c), 0);
    assert_true(f.m.watched_written);
    assert_memory_equal(ram_hva(f.m.ram, f.data, 16 * 512), f.disk.bytes + 3 * 512, 16 * 512);
    assert_int_equal(vd_msi_of(&f.m, 1), 1);
    c = rw(&f, true, 100, 4);
    assert_int_equal(run(&f, 2, &c), 0);
    assert_memory_equal(f.disk.bytes + 100 * 512, f.disk.bytes + 3 * 512, 4 * 512);
    assert_int_equal(vd_msi_of(&f.m, 2), 1);
    assert_int_equal(f.disk.flushes, 0);
    c.dw12 |= 1u << 30; /* FUA */
    assert_int_equal(run(&f, 2, &c), 0);
    assert_int_equal(f.disk.flushes, 1);
    c = (struct command){.opcode = 0, .nsid = UINT32_MAX};
    assert_int_equal(run(&f, 1, &c), 0);
    assert_int_equal(f.disk.flushes, 2);
    /* Without a write cache each write lasts. */
    c = (struct command){.opcode = 9, .dw10 = 6, .dw11 = 0};
    assert_int_equal(run(&f, 0, &c), 0);
    c = rw(&f, true, 100, 4);
    assert_int_equal(run(&f, 2, &c), 0);
    assert_int_equal(f.disk.flushes, 3);
    teardown(&f);
}

static void test_bad_ranges(void **state)
{
    struct fixture f;
    setup(&f);
    struct command c = rw(&f, false, SECTORS - 1, 2);
    assert_int_equal(run(&f, 1, &c), 0x80);
    c = rw(&f, true, UINT64_MAX, 1);
    assert_int_equal(run(&f, 1, &c), 0x80);
    c = rw(&f, false, (UINT64_C(1) << 55) - 1, 2); /* overflows when counted in bytes */
    assert_int_equal(run(&f, 1, &c), 0x80);
    c = rw(&f, false, 0, 1);
    c.nsid = 2;
    assert_int_equal(run(&f, 1, &c), 0x0b);
    c.nsid = UINT32_MAX;
    assert_int_equal(run(&f, 1, &c), 0x0b);
    c = rw(&f, false, 0, 1);
    c.opcode = 0x40;
    assert_int_equal(run(&f, 1, &c), 1);
    c = rw(&f, false, SECTORS - 1, 1);
    assert_int_equal(run(&f, 1, &c), 0);
    assert_int_equal(f.disk.waiting_count, 0);
    teardown(&f);
}

/* 17 pages with an offset, scattered; the list starts near the end of its page and chains. */
static void test_prp_lists(void **state)
{
    struct fixture f;
    setup(&f);
    uint64_t list = vd_alloc(&f.m, PAGE, PAGE), more = vd_alloc(&f.m, PAGE, PAGE);
    struct command c = rw(&f, false, 0, 16 * 8);
    c.prp1 = f.data + 0x204;
    c.prp2 = list + PAGE - 16;
    vd_put(&f.m, list + PAGE - 16, f.data + 2 * PAGE, 8);
    vd_put(&f.m, list + PAGE - 8, more, 8);
    for (unsigned i = 0; i < 15; i++)
        vd_put(&f.m, more + 8 * i, f.data + (4 + 2 * i) * PAGE, 8);
    assert_int_equal(run(&f, 1, &c), 0);
    const uint8_t *at = f.disk.bytes;
    assert_memory_equal(ram_hva(f.m.ram, f.data + 0x204, 1), at, PAGE - 0x204);
    at += PAGE - 0x204;
    for (unsigned i = 0; i < 15; i++, at += PAGE)
        assert_memory_equal(ram_hva(f.m.ram, f.data + (2 + 2 * i) * PAGE, PAGE), at, PAGE);
    assert_memory_equal(ram_hva(f.m.ram, f.data + 32 * PAGE, 0x204), at, 0x204);
    vd_put(&f.m, more + 8, f.data + 8, 8);
    assert_int_equal(run(&f, 1, &c), 0x13);
    vd_put(&f.m, more + 8, UINT64_C(1) << 40, 8);
    assert_int_equal(run(&f, 1, &c), 4);
    c.prp2 = list + 4;
    assert_int_equal(run(&f, 1, &c), 0x13);
    /* A list that is its own next page. */
    for (unsigned i = 0; i < 512; i++)
        vd_put(&f.m, list + 8 * i, list, 8);
    c = rw(&f, false, 0, 16 * 8);
    c.prp2 = list + PAGE - 8;
    assert_int_equal(run(&f, 1, &c), 0);
    /* As large as MDTS allows, and one block more. */
    for (unsigned i = 0; i < 256; i++)
        vd_put(&f.m, list + 8 * i, f.data + (i % 64) * PAGE, 8);
    c = rw(&f, true, 0, DISK_BYTES / 512);
    c.prp2 = list;
    assert_int_equal(run(&f, 1, &c), 0);
    c = rw(&f, false, 0, 1025);
    c.prp2 = list;
    assert_int_equal(run(&f, 1, &c), DISK_BYTES < 1025 * 512 ? 0x80 : 2);
    teardown(&f);
}

static void test_compare_zeroes_dataset(void **state)
{
    struct fixture f;
    setup(&f);
    struct command c = rw(&f, false, 8, 16), ranges = {.opcode = 9, .nsid = 1, .prp1 = f.data};
    assert_int_equal(run(&f, 1, &c), 0);
    c.opcode = 5;
    assert_int_equal(run(&f, 1, &c), 0);
    vd_put(&f.m, f.data + 16 * 512 - 1, vd_get(&f.m, f.data + 16 * 512 - 1, 1) ^ 1, 1);
    assert_int_equal(run(&f, 1, &c), 0x285);
    c = (struct command){.opcode = 8, .nsid = 1, .dw10 = 8, .dw12 = 1u << 25 | 15};
    assert_int_equal(run(&f, 1, &c), 0);
    assert_int_equal(f.disk.unmaps, 1);
    for (unsigned i = 0; i < 16 * 512; i++)
        assert_int_equal(f.disk.bytes[8 * 512 + i], 0);
    assert_int_equal(f.disk.bytes[24 * 512] != 0 || f.disk.bytes[24 * 512 + 1] != 0, true);
    for (unsigned i = 0; i < 3; i++) {
        vd_put(&f.m, f.data + 16 * i + 4, i == 1 ? 0 : 4, 4); /* the second is empty */
        vd_put(&f.m, f.data + 16 * i + 8, 40 + 10 * i, 8);
    }
    ranges.dw10 = 2;
    ranges.dw11 = 4;
    assert_int_equal(run(&f, 1, &ranges), 0);
    assert_int_equal(f.disk.discards, 2);
    assert_int_equal(f.disk.bytes[60 * 512], 0xdd);
    assert_int_equal(f.disk.bytes[63 * 512 + 511], 0xdd);
    vd_put(&f.m, f.data + 40, SECTORS - 3, 8);
    assert_int_equal(run(&f, 1, &ranges), 0x80);
    assert_int_equal(f.disk.discards, 2); /* none of them */
    ranges.dw11 = 1;
    vd_put(&f.m, f.data + 40, 1, 8);
    assert_int_equal(run(&f, 1, &ranges), 0); /* only a hint */
    assert_int_equal(f.disk.discards, 2);
    f.disk.fail = EOPNOTSUPP;
    ranges.dw11 = 4;
    assert_int_equal(run(&f, 1, &ranges), 0);
    teardown(&f);
}

static void test_errors(void **state)
{
    static const struct {
        bool write;
        int error;
        unsigned status;
    } cases[] = {{false, EIO, 0x281}, {true, EIO, 0x280}, {true, ENOSPC, 0x81}};
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < 3; i++) {
        struct command c = rw(&f, cases[i].write, 7, 1);
        f.disk.fail = cases[i].error;
        assert_int_equal(run(&f, 1, &c), cases[i].status);
    }
    /* The log has them, the newest first. */
    struct command c = {.opcode = 2, .nsid = UINT32_MAX, .prp1 = f.data, .dw10 = 31 << 16 | 1};
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data, 8), 3);
    assert_int_equal(vd_get(&f.m, f.data + 8, 2), 1);
    assert_int_equal(vd_get(&f.m, f.data + 12, 2), 0x81 << 1);
    assert_int_equal(vd_get(&f.m, f.data + 16, 8), 7);
    assert_int_equal(vd_get(&f.m, f.data + 64, 8), 2);
    c.dw10 = 127 << 16 | 2;
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data + 176, 8), 3);
    teardown(&f);
}

static void test_read_only(void **state)
{
    struct fixture f;
    create(&f, true);
    start_queues(&f);
    struct command c = rw(&f, true, 0, 1);
    assert_int_equal(run(&f, 1, &c), 0x182);
    c.opcode = 8;
    assert_int_equal(run(&f, 1, &c), 0x182);
    c = (struct command){.opcode = 9, .nsid = 1, .prp1 = f.data, .dw11 = 4};
    vd_put(&f.m, f.data + 4, 1, 4);
    assert_int_equal(run(&f, 1, &c), 0x182);
    c = rw(&f, false, 0, 1);
    assert_int_equal(run(&f, 1, &c), 0);
    c = (struct command){.opcode = 6, .nsid = 1, .prp1 = f.data};
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data + 99, 1), 1);
    teardown(&f);
}

static void test_queue_commands(void **state)
{
    struct fixture f;
    setup(&f);
    struct command c = {.opcode = 5, .prp1 = f.q[1].cq, .dw10 = 15 << 16 | 1, .dw11 = 1};
    assert_int_equal(run(&f, 0, &c), 0x101); /* it is there */
    c.dw10 = 15 << 16;
    assert_int_equal(run(&f, 0, &c), 0x101);
    c.dw10 = 15 << 16 | 65;
    assert_int_equal(run(&f, 0, &c), 0x101);
    c.dw10 = 5;
    assert_int_equal(run(&f, 0, &c), 0x102);
    c.dw10 = 1024 << 16 | 5;
    assert_int_equal(run(&f, 0, &c), 0x102);
    c.dw10 = 15 << 16 | 5;
    c.dw11 = 65 << 16 | 1;
    assert_int_equal(run(&f, 0, &c), 0x108);
    c.dw11 = 0;
    assert_int_equal(run(&f, 0, &c), 2);
    c.dw11 = 1;
    c.prp1 += 16;
    assert_int_equal(run(&f, 0, &c), 0x13);
    c.prp1 = 8 << 20;
    assert_int_equal(run(&f, 0, &c), 2);
    c = (struct command){.opcode = 1, .prp1 = f.q[1].sq, .dw10 = 15 << 16 | 5, .dw11 = 9 << 16 | 1};
    assert_int_equal(run(&f, 0, &c), 0x100);
    c = (struct command){.opcode = 4, .dw10 = 1};
    assert_int_equal(run(&f, 0, &c), 0x10c); /* a submission queue uses it */
    c.dw10 = 40;
    assert_int_equal(run(&f, 0, &c), 0x101);
    c = (struct command){.opcode = 0, .dw10 = 0};
    assert_int_equal(run(&f, 0, &c), 0x101);
    c.dw10 = 1;
    assert_int_equal(run(&f, 0, &c), 0);
    c.opcode = 4;
    assert_int_equal(run(&f, 0, &c), 0);
    place_queue(&f, 1, ENTRIES);
    assert_int_equal(create_cq(&f, 1, 1), 0);
    assert_int_equal(create_sq(&f, 1, 1), 0);
    c = rw(&f, false, 0, 1);
    assert_int_equal(run(&f, 1, &c), 0);
    teardown(&f);
}

/* A queue is deleted when its last command is answered, and that comes before. */
static void test_delete_busy_queue(void **state)
{
    struct fixture f;
    struct answer a;
    setup(&f);
    struct command c = rw(&f, false, 0, 1), delete = {.opcode = 0, .dw10 = 1};
    uint16_t read_id = send(&f, 1, &c);
    uint16_t delete_id = send(&f, 0, &delete);
    assert_false(take(&f, 0, &a));
    send(&f, 1, &c); /* not taken any more */
    assert_int_equal(f.disk.waiting_count, 1);
    memory_disk_drain(&f.disk);
    assert_true(take(&f, 1, &a));
    assert_int_equal(a.id, read_id);
    assert_false(take(&f, 1, &a));
    assert_true(take(&f, 0, &a));
    assert_int_equal(a.id, delete_id);
    assert_int_equal(a.status, 0);
    teardown(&f);
}

/* With a full completion queue nothing is taken; the head's doorbell lets it go on. */
static void test_full_completion_queue(void **state)
{
    struct fixture f;
    struct answer a;
    setup(&f);
    place_queue(&f, 1, 4);
    struct command c = {.opcode = 0, .dw10 = 1};
    assert_int_equal(run(&f, 0, &c), 0);
    c.opcode = 4;
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(create_cq(&f, 1, 1), 0);
    f.q[1].entries = ENTRIES;
    f.q[1].sq = vd_alloc(&f.m, 64 * ENTRIES, PAGE);
    assert_int_equal(create_sq(&f, 1, 1), 0);
    c = rw(&f, false, 0, 1);
    for (unsigned i = 0; i < 6; i++)
        put(&f, 1, &c);
    ring(&f, 1);
    assert_int_equal(f.disk.waiting_count, 3);
    memory_disk_drain(&f.disk);
    assert_int_equal(f.disk.waiting_count, 0);
    f.q[1].entries = 4; /* as peek() wraps */
    for (unsigned i = 0; i < 3; i++)
        assert_true(peek(&f, 1, &a));
    assert_false(peek(&f, 1, &a));
    set(&f, 0x1000 + 8 + 4, 2, 4);
    assert_int_equal(f.disk.waiting_count, 2);
    set(&f, 0x1000 + 8 + 4, 0, 4); /* forward over what is not there yet: refused */
    memory_disk_drain(&f.disk);
    set(&f, 0x1000 + 8 + 4, 1, 4);
    memory_disk_drain(&f.disk);
    unsigned answers = 3;
    while (take(&f, 1, &a))
        answers++;
    assert_int_equal(answers, 6);
    teardown(&f);
}

static void test_doorbells(void **state)
{
    static const struct {
        unsigned offset, value, info;
    } bad[] = {
        {0x1000 + 8, ENTRIES, 1},     /* a tail beyond the queue */
        {0x1000 + 8 + 4, ENTRIES, 1}, /* a head */
        {0x1000 + 8 + 4, 3, 1},       /* over entries that were not posted */
        {0x1000 + 8 * 50, 1, 0},      /* no such queues */
        {0x1000 + 8 * 50 + 4, 1, 0},  {0x1000 + 8 * 70, 1, 0}, {0x3ffc, 1, 0},
    };
    struct fixture f;
    struct answer a;
    setup(&f);
    struct command event = {.opcode = 0x0c};
    struct command log = {.opcode = 2, .nsid = 0, .prp1 = f.data, .dw10 = 15 << 16 | 1};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint16_t id = send(&f, 0, &event);
        assert_false(take(&f, 0, &a));
        set(&f, bad[i].offset, bad[i].value, 4);
        assert_true(take(&f, 0, &a));
        assert_int_equal(a.id, id);
        assert_int_equal(a.result, bad[i].info << 8 | 1 << 16);
        /* One of a kind is told until the log is read. */
        id = send(&f, 0, &event);
        set(&f, bad[i].offset, bad[i].value, 4);
        assert_false(take(&f, 0, &a));
        uint16_t log_id = send(&f, 0, &log);
        assert_true(take(&f, 0, &a));
        bool log_first = a.id == log_id;
        assert_true(take(&f, 0, &a));
        assert_int_equal(a.id, log_first ? id : log_id);
        assert_int_equal(run(&f, 0, &log), 0);
    }
    teardown(&f);
}

static void test_events_and_abort(void **state)
{
    struct fixture f;
    struct answer a;
    uint16_t ids[4];
    setup(&f);
    struct command event = {.opcode = 0x0c};
    for (unsigned i = 0; i < 4; i++)
        ids[i] = send(&f, 0, &event);
    assert_int_equal(run(&f, 0, &event), 0x105);
    uint32_t result;
    struct command abort = {.opcode = 8, .dw10 = (uint32_t)ids[1] << 16};
    uint16_t abort_id = send(&f, 0, &abort);
    assert_true(take(&f, 0, &a));
    assert_int_equal(a.id, ids[1]);
    assert_int_equal(a.status, 7);
    assert_true(take(&f, 0, &a));
    assert_int_equal(a.id, abort_id);
    assert_int_equal(a.result, 0);
    abort.dw10 = 0x7777 << 16 | 1;
    assert_int_equal(run_result(&f, 0, &abort, &result), 0);
    assert_int_equal(result, 1);
    /* A temperature threshold below what it is. */
    struct command features = {.opcode = 9, .dw10 = 0x0b, .dw11 = 2};
    assert_int_equal(run(&f, 0, &features), 0);
    features = (struct command){.opcode = 9, .dw10 = 4, .dw11 = 200};
    send(&f, 0, &features);
    assert_true(take(&f, 0, &a));
    assert_int_equal(a.id, ids[0]);
    assert_int_equal(a.result, 1 | 1 << 8 | 2 << 16);
    assert_true(take(&f, 0, &a));
    teardown(&f);
}

static void test_features(void **state)
{
    static const struct {
        uint32_t id, value, expected;
    } cases[] = {{1, 0x01020304, 0x01020304},
                 {4, 400, 400},
                 {4, 1 << 20 | 100, 100},
                 {5, 77, 77},
                 {6, 0, 0},
                 {8, 0x105, 0x105},
                 {9, 0x10002, 0x10002},
                 {10, 1, 1},
                 {11, 0x103, 0x103}};
    struct fixture f;
    setup(&f);
    uint32_t result;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct command c = {.opcode = 9, .dw10 = cases[i].id, .dw11 = cases[i].value};
        assert_int_equal(run(&f, 0, &c), 0);
        c.opcode = 10;
        assert_int_equal(run_result(&f, 0, &c, &result), 0);
        assert_int_equal(result, cases[i].expected);
    }
    struct command c = {.opcode = 9, .dw10 = 7, .dw11 = 7 << 16 | 7};
    assert_int_equal(run(&f, 0, &c), 0x0c); /* there are queues */
    c.opcode = 10;
    assert_int_equal(run_result(&f, 0, &c, &result), 0);
    assert_int_equal(result, 63 << 16 | 63);
    c = (struct command){.opcode = 9, .dw10 = 0x7f};
    assert_int_equal(run(&f, 0, &c), 2);
    c = (struct command){.opcode = 9, .dw10 = 9, .dw11 = 65};
    assert_int_equal(run(&f, 0, &c), 2);
    c = (struct command){.opcode = 9, .dw10 = 1u << 31 | 6};
    assert_int_equal(run(&f, 0, &c), 2);
    teardown(&f);
}

static void test_log_pages(void **state)
{
    struct fixture f;
    setup(&f);
    struct command c = rw(&f, false, 0, 8);
    assert_int_equal(run(&f, 1, &c), 0);
    c = (struct command){.opcode = 2, .nsid = UINT32_MAX, .prp1 = f.data, .dw10 = 127 << 16 | 2};
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data + 1, 2), 303);
    assert_int_equal(vd_get(&f.m, f.data + 32, 8), 1);
    assert_int_equal(vd_get(&f.m, f.data + 64, 8), 1);
    c.dw10 = 0 << 16 | 2;
    c.dw12 = 64; /* from an offset */
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data, 4), 1);
    c.dw12 = 516;
    assert_int_equal(run(&f, 0, &c), 2);
    c.dw12 = 2;
    assert_int_equal(run(&f, 0, &c), 2);
    c = (struct command){.opcode = 2, .nsid = 0, .prp1 = f.data, .dw10 = 127 << 16 | 3};
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data, 1), 1);
    c.dw10 = 0x3ff << 16 | 5;
    assert_int_equal(run(&f, 0, &c), 0);
    assert_int_equal(vd_get(&f.m, f.data + 4 * 6, 4), 1);
    assert_int_equal(vd_get(&f.m, f.data + 1024 + 4, 4), 3);
    c.dw10 = 0x7e;
    assert_int_equal(run(&f, 0, &c), 0x109);
    c.dw10 = 0xffffu << 16 | 2;
    c.dw11 = 0xffff; /* 16 GiB */
    assert_int_equal(run(&f, 0, &c), 2);
    teardown(&f);
}

/* While the disk has a command, the reset does not read as done; then nothing is answered. */
static void test_reset_while_busy(void **state)
{
    struct fixture f;
    setup(&f);
    struct command c = rw(&f, false, 0, 8);
    for (unsigned i = 0; i < 5; i++)
        send(&f, 1, &c);
    set(&f, CC, CC_ENABLED & ~1U, 4);
    assert_int_equal(reg(&f, CSTS) & 1, 1);
    memory_disk_finish(&f.disk, 0);
    assert_int_equal(reg(&f, CSTS) & 1, 1);
    set(&f, 0x1000 + 8, 1, 4); /* doorbells are not heard */
    memory_disk_drain(&f.disk);
    assert_int_equal(reg(&f, CSTS), 0);
    assert_int_equal(vd_get(&f.m, f.q[1].cq + 12, 4), 0);
    start_queues(&f);
    assert_int_equal(run(&f, 1, &c), 0);
    /* Enabled again before it is done: it comes back by itself. */
    send(&f, 1, &c);
    set(&f, CC, CC_ENABLED & ~1U, 4);
    set(&f, CC, CC_ENABLED, 4);
    memory_disk_drain(&f.disk);
    assert_int_equal(reg(&f, CSTS), 1);
    /* The whole subsystem. */
    set(&f, NSSR, 0x4e564d65, 4);
    assert_int_equal(reg(&f, CSTS), 1 << 4);
    assert_int_equal(reg(&f, AQA), 0);
    assert_int_equal(reg(&f, CC), 0);
    set(&f, CSTS, 1 << 4, 4);
    assert_int_equal(reg(&f, CSTS), 0);
    teardown(&f);
}

static void test_shutdown(void **state)
{
    struct fixture f;
    setup(&f);
    set(&f, CC, CC_ENABLED | 1 << 14, 4);
    assert_int_equal(reg(&f, CSTS), 1 | 1 << 2);
    memory_disk_drain(&f.disk);
    assert_int_equal(f.disk.flushes, 1);
    assert_int_equal(reg(&f, CSTS), 1 | 2 << 2);
    set(&f, CC, CC_ENABLED & ~1U, 4);
    assert_int_equal(reg(&f, CSTS), 0);
    teardown(&f);
}

static void test_pin_interrupt(void **state)
{
    struct fixture f;
    struct answer a;
    create(&f, false);
    enable(&f);
    struct command c = {.opcode = 10, .dw10 = 6};
    send(&f, 0, &c);
    assert_true(f.m.intx);
    set(&f, 0x0c, 1, 4);
    assert_false(f.m.intx);
    set(&f, 0x10, 1, 4);
    assert_true(f.m.intx);
    assert_true(take(&f, 0, &a));
    assert_false(f.m.intx);
    send(&f, 0, &c);
    set(&f, CC, 0, 4);
    assert_false(f.m.intx);
    teardown(&f);
}

static void test_save_load(void **state)
{
    struct fixture f;
    struct answer a;
    struct save save = {0};
    struct load load;
    uint32_t version;
    setup(&f);
    struct command event = {.opcode = 0x0c}, c = rw(&f, false, 5, 3);
    uint16_t event_id = send(&f, 0, &event), read_id = send(&f, 1, &c);
    memory_disk_drain(&f.disk);
    save_begin(&save, nvme_ops.name, nvme_ops.version);
    nvme_ops.save(f.nvme, &save);
    save_end(&save);
    nvme_ops.reset(f.nvme);
    assert_int_equal(vd_bar(&f.m, SLOT, 0), 0);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, nvme_ops.name, &version));
    assert_true(nvme_ops.load(f.nvme, &load, version));
    assert_true(load_end(&load));
    assert_int_equal(reg(&f, CSTS), 1);
    assert_true(take(&f, 1, &a)); /* its answer was there before */
    assert_int_equal(a.id, read_id);
    assert_int_equal(run(&f, 1, &c), 0);
    assert_int_equal(vd_msi_of(&f.m, 1), 2);
    set(&f, 0x1000 + 8 * 60, 1, 4);
    assert_true(take(&f, 0, &a));
    assert_int_equal(a.id, event_id);
    /* No change of a byte makes it do harm. */
    for (size_t i = 0; i < save.size_bytes; i += 3) {
        save.bytes[i] ^= 0xa5;
        load_init(&load, save.bytes, save.size_bytes);
        if (load_begin(&load, nvme_ops.name, &version))
            nvme_ops.load(f.nvme, &load, version);
        save.bytes[i] ^= 0xa5;
    }
    save_free(&save);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_enable_badly),
        cmocka_unit_test(test_identify),
        cmocka_unit_test(test_read_write),
        cmocka_unit_test(test_bad_ranges),
        cmocka_unit_test(test_prp_lists),
        cmocka_unit_test(test_compare_zeroes_dataset),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_queue_commands),
        cmocka_unit_test(test_delete_busy_queue),
        cmocka_unit_test(test_full_completion_queue),
        cmocka_unit_test(test_doorbells),
        cmocka_unit_test(test_events_and_abort),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_log_pages),
        cmocka_unit_test(test_reset_while_busy),
        cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_pin_interrupt),
        cmocka_unit_test(test_save_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
