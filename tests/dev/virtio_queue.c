/* SPDX-License-Identifier: BSD-2-Clause
 * Virtqueues by themselves: taking and giving back in both formats, event indices over wraps,
 * batches, unpop, saved state; and a list of rings that break the rules. */
#include "dev/virtio_driver.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

enum { SIZE = 8, RAM_BYTES = 1 << 20 };

struct fixture {
    struct vd_machine m;
    struct vd d; /* only its rings are used */
    struct virtio_queue q;
    struct virtio_chain chain;
    unsigned interrupts;
    const char *why; /* it is broken */
};

static void on_interrupt(void *opaque, unsigned index)
{
    ((struct fixture *)opaque)->interrupts++;
}

static void on_broken(void *opaque, unsigned index, const char *why)
{
    ((struct fixture *)opaque)->why = why;
}

enum { PACKED = 1, EVENTS = 2, INDIRECT = 4 };

/* A ring of the driver's, given to a queue that no device has. */
static void setup_sized(struct fixture *f, unsigned flags, uint16_t size)
{
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, RAM_BYTES);
    f->d.m = &f->m;
    f->d.features =
        (flags & PACKED ? VIRTIO_F_RING_PACKED : 0) | (flags & EVENTS ? VIRTIO_F_EVENT_IDX : 0);
    struct vd_queue *ring = &f->d.queues[0];
    ring->size = ring->free_count = size;
    ring->avail_wrap = ring->used_wrap = true;
    ring->descriptors = vd_alloc(&f->m, 16U * size, 16);
    ring->driver = vd_alloc(&f->m, 6U + 2U * size, 4);
    ring->device = vd_alloc(&f->m, 6U + 8U * size, 4);
    struct virtio_queue_hooks hooks = {on_interrupt, on_broken, f};
    virtio_queue_init(&f->q, f->m.ram, 0, flags & PACKED ? 16 : size, &hooks);
    f->q.size = size;
    f->q.descriptor_gpa = ring->descriptors;
    f->q.driver_gpa = ring->driver;
    f->q.device_gpa = ring->device;
    assert_true(virtio_queue_enable(&f->q, flags & PACKED, flags & EVENTS, flags & INDIRECT));
}

static void setup(struct fixture *f, unsigned flags)
{
    setup_sized(f, flags, SIZE);
}

static void teardown(struct fixture *f)
{
    vd_machine_free(&f->m);
}

static bool pop(struct fixture *f)
{
    return virtio_queue_pop(&f->q, &f->chain);
}

static uint16_t add_one(struct fixture *f)
{
    struct vd_buffer b = {vd_alloc(&f->m, 16, 16), 16, true};
    return vd_add(&f->d, 0, &b, 1, false);
}

/* ---- what works ---- */

static void chain_is_collected(struct fixture *f, bool indirect)
{
    uint64_t gpa = vd_alloc(&f->m, 4096, 16);
    struct vd_buffer b[3] = {{gpa, 10, false}, {gpa + 100, 20, false}, {gpa + 200, 30, true}};
    vd_put(&f->m, gpa + 8, 0x4241, 2);
    vd_put(&f->m, gpa + 100, 0x4443, 2);
    uint16_t id = vd_add(&f->d, 0, b, 3, indirect);
    assert_true(virtio_queue_has_next(&f->q));
    assert_true(pop(f));
    assert_false(virtio_queue_has_next(&f->q));
    assert_int_equal(f->chain.id, id);
    assert_int_equal(f->chain.readable_count, 2);
    assert_int_equal(f->chain.writable_count, 1);
    assert_int_equal(f->chain.readable_bytes, 30);
    assert_int_equal(f->chain.writable_bytes, 30);
    char text[5] = {0};
    assert_int_equal(virtio_chain_read(&f->chain, 8, text, 4), 4);
    assert_string_equal(text, "ABCD");
    assert_int_equal(virtio_chain_read(&f->chain, 28, text, 4), 2);
    assert_int_equal(virtio_chain_read(&f->chain, 30, text, 4), 0);
    assert_int_equal(virtio_chain_write(&f->chain, 28, "xyz", 3), 2);
    assert_int_equal(vd_get(&f->m, gpa + 228, 4), 'x' | 'y' << 8);
    virtio_queue_push(&f->q, &f->chain, 30);
    uint16_t used_id;
    uint32_t size;
    assert_true(vd_used(&f->d, 0, &used_id, &size));
    assert_int_equal(used_id, id);
    assert_int_equal(size, 30);
    assert_null(f->why);
}

static void chains(void **state)
{
    struct fixture f;
    for (unsigned flags = 0; flags < 8; flags++) {
        setup(&f, flags);
        for (unsigned i = 0; i < 4 * SIZE; i++)
            chain_is_collected(&f, flags & INDIRECT && i & 1);
        teardown(&f);
    }
}

/* Chains before an indirect one: 2.7.5.3.2 asks for it. */
static void direct_then_indirect(void **state)
{
    struct fixture f;
    setup(&f, INDIRECT);
    uint64_t gpa = vd_alloc(&f.m, 64, 16);
    uint64_t ring = f.d.queues[0].descriptors, table = vd_alloc(&f.m, 32, 16);
    vd_put_descriptor(&f.m, ring, gpa, 8, VD_NEXT, 1);
    /* The table's own write flag means nothing. */
    vd_put_descriptor(&f.m, ring + 16, table, 32, VD_INDIRECT | VD_WRITE, 0);
    vd_put_descriptor(&f.m, table, gpa + 16, 8, VD_NEXT, 1);
    vd_put_descriptor(&f.m, table + 16, gpa + 32, 8, VD_WRITE, 0);
    vd_put(&f.m, f.d.queues[0].driver + 2, 1, 2);
    assert_true(pop(&f));
    assert_int_equal(f.chain.readable_count, 2);
    assert_int_equal(f.chain.writable_count, 1);
    teardown(&f);
}

/* Requests end in another order than they came; sizes that are no power of two for packed. */
static void out_of_order(void **state)
{
    static struct virtio_chain taken[4];
    for (unsigned packed = 0; packed < 2; packed++) {
        struct fixture f;
        setup_sized(&f, packed ? PACKED : 0, packed ? 7 : SIZE);
        for (unsigned round = 0; round < 20; round++) {
            uint16_t ids[4], id;
            uint32_t size;
            for (unsigned i = 0; i < 4; i++) {
                ids[i] = add_one(&f);
                assert_true(virtio_queue_pop(&f.q, &taken[i]));
            }
            for (unsigned i = 4; i-- > 0;) {
                virtio_queue_push(&f.q, &taken[i], i);
                assert_true(vd_used(&f.d, 0, &id, &size));
                assert_int_equal(id, ids[i]);
                assert_int_equal(size, i);
            }
        }
        assert_null(f.why);
        teardown(&f);
    }
}

static void unpop_gives_it_again(void **state)
{
    static struct virtio_chain first, second, again;
    for (unsigned packed = 0; packed < 2; packed++) {
        struct fixture f;
        setup_sized(&f, packed ? PACKED : 0, packed ? 7 : SIZE);
        for (unsigned round = 0; round < 15; round++) {
            struct vd_buffer b[2] = {{0x1000, 4, false}, {0x2000, 4, true}};
            uint16_t id, id1 = vd_add(&f.d, 0, b, 2, false), id2 = vd_add(&f.d, 0, b, 2, false);
            uint32_t size;
            assert_true(virtio_queue_pop(&f.q, &first) && virtio_queue_pop(&f.q, &second));
            virtio_queue_unpop(&f.q, &second);
            virtio_queue_unpop(&f.q, &first);
            assert_true(virtio_queue_pop(&f.q, &again));
            assert_int_equal(again.id, id1);
            virtio_queue_push(&f.q, &again, 0);
            assert_true(virtio_queue_pop(&f.q, &again));
            assert_int_equal(again.id, id2);
            virtio_queue_push(&f.q, &again, 0);
            assert_true(vd_used(&f.d, 0, &id, &size) && vd_used(&f.d, 0, &id, &size));
        }
        assert_int_equal(f.q.in_use, 0);
        teardown(&f);
    }
}

/* A batch is seen whole or not at all. */
static void batch(void **state)
{
    static struct virtio_chain taken[3];
    for (unsigned packed = 0; packed < 2; packed++) {
        struct fixture f;
        setup(&f, packed ? PACKED : 0);
        for (unsigned round = 0; round < 12; round++) {
            uint16_t ids[3], id;
            uint32_t size;
            for (unsigned i = 0; i < 3; i++) {
                ids[i] = add_one(&f);
                assert_true(virtio_queue_pop(&f.q, &taken[i]));
            }
            for (unsigned i = 0; i < 3; i++) {
                virtio_queue_fill(&f.q, &taken[i], i + 1);
                assert_false(vd_used(&f.d, 0, &id, &size));
            }
            virtio_queue_publish(&f.q);
            for (unsigned i = 0; i < 3; i++) {
                assert_true(vd_used(&f.d, 0, &id, &size));
                assert_int_equal(id, ids[i]);
                assert_int_equal(size, i + 1);
            }
        }
        teardown(&f);
    }
}

static void stale_chain_is_not_pushed(void **state)
{
    struct fixture f;
    setup(&f, 0);
    add_one(&f);
    assert_true(pop(&f));
    virtio_queue_reset(&f.q);
    uint64_t before = f.m.written_bytes;
    virtio_queue_push(&f.q, &f.chain, 16);
    assert_int_equal(f.m.written_bytes, before + 16);
    assert_int_equal(vd_get(&f.m, f.d.queues[0].device + 2, 2), 0);
    teardown(&f);
}

/* ---- notifications ---- */

static void use(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint16_t id;
        uint32_t size;
        add_one(f);
        assert_true(pop(f));
        virtio_queue_push(&f->q, &f->chain, 0);
        assert_true(vd_used(&f->d, 0, &id, &size));
    }
}

static void interrupts_as_asked(void **state)
{
    for (unsigned flags = 0; flags < 4; flags++) {
        struct fixture f;
        setup(&f, flags);
        virtio_queue_notify(&f.q);
        assert_int_equal(f.interrupts, 0); /* nothing was used */
        for (unsigned round = 0; round < 3 * SIZE; round++) {
            unsigned before = f.interrupts;
            vd_interrupts(&f.d, 0, flags & EVENTS ? VD_INTERRUPTS_AFTER : VD_INTERRUPTS_ON, 0);
            use(&f, 1);
            virtio_queue_notify(&f.q);
            assert_int_equal(f.interrupts, before + 1);
            virtio_queue_notify(&f.q);
            assert_int_equal(f.interrupts, before + 1);
        }
        if (!(flags & EVENTS) || flags & PACKED) {
            unsigned before = f.interrupts;
            vd_interrupts(&f.d, 0, VD_INTERRUPTS_OFF, 0);
            use(&f, 2 * SIZE);
            virtio_queue_notify(&f.q);
            assert_int_equal(f.interrupts, before);
        }
        teardown(&f);
    }
}

/* The interrupt comes with the entry asked for, from every position of the ring. */
static void interrupt_after(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        for (unsigned start = 0; start < 2 * SIZE; start++) {
            struct fixture f;
            setup(&f, EVENTS | (packed ? PACKED : 0));
            use(&f, start);
            virtio_queue_notify(&f.q);
            f.interrupts = 0;
            for (unsigned after = 0; after < SIZE; after++) {
                vd_interrupts(&f.d, 0, VD_INTERRUPTS_AFTER, after);
                for (unsigned n = 0; n <= after; n++) {
                    assert_int_equal(f.interrupts, after);
                    use(&f, 1);
                    virtio_queue_notify(&f.q);
                }
                assert_int_equal(f.interrupts, after + 1);
            }
            teardown(&f);
        }
    }
}

/* Many laps pass between two notifications: the driver is told. */
static void interrupt_after_laps(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct fixture f;
        setup(&f, EVENTS | (packed ? PACKED : 0));
        vd_interrupts(&f.d, 0, VD_INTERRUPTS_AFTER, 3);
        use(&f, 2 * SIZE);
        virtio_queue_notify(&f.q);
        assert_int_equal(f.interrupts, 1);
        teardown(&f);
    }
}

static void kicks_as_asked(void **state)
{
    for (unsigned flags = 0; flags < 4; flags++) {
        struct fixture f;
        setup(&f, flags);
        for (unsigned round = 0; round < 3 * SIZE; round++) {
            assert_false(virtio_queue_listen(&f.q));
            add_one(&f);
            assert_true(vd_kick_wanted(&f.d, 0, 1));
            virtio_queue_suppress(&f.q);
            if (flags & PACKED || !(flags & EVENTS)) {
                assert_false(vd_kick_wanted(&f.d, 0, 1));
            } else {
                /* The event was passed with the first; the next asks for none. */
                add_one(&f);
                assert_false(vd_kick_wanted(&f.d, 0, 1));
                assert_true(pop(&f));
                virtio_queue_push(&f.q, &f.chain, 0);
            }
            assert_true(virtio_queue_listen(&f.q));
            assert_true(pop(&f));
            virtio_queue_push(&f.q, &f.chain, 0);
            uint16_t id;
            uint32_t size;
            while (vd_used(&f.d, 0, &id, &size))
                ;
        }
        teardown(&f);
    }
}

/* ---- two threads ---- */

enum { STRESS_REQUESTS = 30000, STRESS_PATIENCE_S = 60 };

/* A driver that sleeps until it is interrupted, and a device that sleeps until it is kicked: one
 * notification lost and both sleep for good. */
struct stress {
    struct fixture f;
    sem_t kick, interrupt;
    _Atomic bool stop;
    uint64_t taken;
};

static void stress_interrupt(void *opaque, unsigned index)
{
    sem_post(&((struct stress *)opaque)->interrupt);
}

static void stress_broken(void *opaque, unsigned index, const char *why)
{
    ((struct stress *)opaque)->f.why = why;
    atomic_store(&((struct stress *)opaque)->stop, true);
    sem_post(&((struct stress *)opaque)->interrupt);
}

static void *stress_device(void *opaque)
{
    struct stress *s = opaque;
    struct virtio_queue *q = &s->f.q;
    while (!atomic_load(&s->stop)) {
        do {
            virtio_queue_suppress(q);
            while (pop(&s->f)) {
                s->taken++;
                virtio_queue_push(q, &s->f.chain, 1);
                /* At times one by one, at times all at the end. */
                if (s->taken % 7 < 3)
                    virtio_queue_notify(q);
            }
        } while (virtio_queue_listen(q));
        virtio_queue_notify(q);
        sem_wait(&s->kick);
    }
    return NULL;
}

static void stress_driver(struct stress *s, unsigned events)
{
    struct vd *d = &s->f.d;
    struct vd_buffer b = {0x8000, 16, true};
    unsigned sent = 0, received = 0;
    while (received < STRESS_REQUESTS && !atomic_load(&s->stop)) {
        uint16_t id;
        uint32_t size;
        while (sent < STRESS_REQUESTS && d->queues[0].free_count) {
            atomic_thread_fence(memory_order_seq_cst);
            vd_add(d, 0, &b, 1, false);
            sent++;
            atomic_thread_fence(memory_order_seq_cst);
            if (vd_kick_wanted(d, 0, 1))
                sem_post(&s->kick);
        }
        vd_interrupts(d, 0, events ? VD_INTERRUPTS_AFTER : VD_INTERRUPTS_ON, 0);
        atomic_thread_fence(memory_order_seq_cst);
        bool any = false;
        while (vd_used(d, 0, &id, &size)) {
            atomic_thread_fence(memory_order_seq_cst);
            assert_int_equal(size, 1);
            received++;
            any = true;
        }
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += STRESS_PATIENCE_S;
        if (!any && sem_timedwait(&s->interrupt, &until) != 0)
            fail_msg("no notification after %u of %u requests", received, sent);
    }
    assert_int_equal(received, STRESS_REQUESTS);
}

static void notifications_are_not_lost(void **state)
{
    static struct stress s;
    for (unsigned flags = 0; flags < 4; flags++) {
        memset(&s, 0, sizeof(s));
        setup(&s.f, flags);
        s.f.q.hooks = (struct virtio_queue_hooks){stress_interrupt, stress_broken, &s};
        sem_init(&s.kick, 0, 0);
        sem_init(&s.interrupt, 0, 0);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, stress_device, &s), 0);
        stress_driver(&s, flags & EVENTS);
        atomic_store(&s.stop, true);
        sem_post(&s.kick);
        pthread_join(thread, NULL);
        assert_null(s.f.why);
        assert_int_equal(s.taken, STRESS_REQUESTS);
        sem_destroy(&s.kick);
        sem_destroy(&s.interrupt);
        teardown(&s.f);
    }
}

/* ---- saved state ---- */

static void save_and_load(void **state)
{
    for (unsigned flags = 0; flags < 4; flags++) {
        struct fixture f;
        setup(&f, flags);
        use(&f, SIZE + 3);
        uint16_t id = add_one(&f), used_id;
        uint32_t size;
        struct save save = {0};
        virtio_queue_save(&f.q, &save);
        virtio_queue_reset(&f.q);
        struct load load;
        load_init(&load, save.bytes, save.size_bytes);
        load.section_end = save.size_bytes;
        assert_true(virtio_queue_load(&f.q, &load));
        assert_int_equal(load.offset, save.size_bytes);
        assert_true(pop(&f));
        virtio_queue_push(&f.q, &f.chain, 5);
        assert_true(vd_used(&f.d, 0, &used_id, &size));
        assert_int_equal(used_id, id);
        assert_int_equal(size, 5);
        use(&f, SIZE);
        save_free(&save);
        teardown(&f);
    }
}

/* A saved queue that cannot be: an index outside a packed ring, addresses outside RAM. */
static void load_refuses(void **state)
{
    for (unsigned wrong = 0; wrong < 4; wrong++) {
        struct fixture f;
        setup(&f, PACKED);
        struct virtio_queue q = f.q;
        switch (wrong) {
        case 0: q.avail_index = SIZE; break;
        case 1: q.used_index = 0xffff; break;
        case 2: q.descriptor_gpa = RAM_BYTES - 16; break;
        case 3: q.size = 0x8000; break;
        }
        struct save save = {0};
        virtio_queue_save(&q, &save);
        struct load load;
        load_init(&load, save.bytes, save.size_bytes);
        load.section_end = save.size_bytes;
        assert_false(virtio_queue_load(&f.q, &load));
        assert_true(load.failed);
        assert_false(f.q.enabled);
        save_free(&save);
        teardown(&f);
    }
}

/* ---- rings that break the rules ---- */

struct bad_setup {
    uint16_t size;
    bool packed;
    uint64_t descriptors, driver, device;
};

static void bad_setups(void **state)
{
    static const struct bad_setup cases[] = {
        {0, false, 0x1000, 0x2000, 0x3000},               /* no size */
        {0, true, 0x1000, 0x2000, 0x3000},                /* no size */
        {6, false, 0x1000, 0x2000, 0x3000},               /* no power of two */
        {32, false, 0x1000, 0x2000, 0x3000},              /* above what is offered */
        {32, true, 0x1000, 0x2000, 0x3000},               /* above what is offered */
        {0x8000, true, 0x1000, 0x2000, 0x3000},           /* above what is offered */
        {8, false, 0x1008, 0x2000, 0x3000},               /* not aligned */
        {8, false, 0x1000, 0x2001, 0x3000},               /* not aligned */
        {8, false, 0x1000, 0x2000, 0x3002},               /* not aligned */
        {8, true, 0x1008, 0x2000, 0x3000},                /* not aligned */
        {8, true, 0x1000, 0x2002, 0x3000},                /* not aligned */
        {8, true, 0x1000, 0x2000, 0x3002},                /* not aligned */
        {8, false, RAM_BYTES, 0x2000, 0x3000},            /* behind RAM */
        {8, false, RAM_BYTES - 112, 0x2000, 0x3000},      /* runs out of RAM */
        {8, false, 0x1000, RAM_BYTES - 20, 0x3000},       /* runs out of RAM */
        {8, false, 0x1000, 0x2000, RAM_BYTES - 64},       /* runs out of RAM */
        {8, true, RAM_BYTES - 112, 0x2000, 0x3000},       /* runs out of RAM */
        {8, true, 0x1000, RAM_BYTES, 0x3000},             /* behind RAM */
        {8, true, 0x1000, 0x2000, UINT64_MAX - 3},        /* wraps */
        {8, false, UINT64_MAX - 15, 0x2000, 0x3000},      /* wraps */
        {8, false, 0x1000, UINT64_C(0xfee00000), 0x3000}, /* MMIO */
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        setup(&f, 0);
        virtio_queue_reset(&f.q);
        struct virtio_queue_hooks hooks = {on_interrupt, on_broken, &f};
        virtio_queue_init(&f.q, f.m.ram, 0, 16, &hooks);
        f.q.size = cases[i].size;
        f.q.descriptor_gpa = cases[i].descriptors;
        f.q.driver_gpa = cases[i].driver;
        f.q.device_gpa = cases[i].device;
        assert_false(virtio_queue_enable(&f.q, cases[i].packed, false, false));
        assert_non_null(f.why);
        assert_false(pop(&f));
        assert_false(virtio_queue_listen(&f.q));
        teardown(&f);
    }
}

/* A descriptor of the ring or (in_table) of the indirect table. */
struct bad_descriptor {
    bool in_table;
    uint16_t at;
    uint64_t gpa;
    uint32_t size_bytes;
    uint16_t flags, next;
};

#define TABLE UINT64_C(0x8000) /* where indirect tables of the cases are */

struct bad_chain {
    const char *what;
    uint16_t head;
    struct bad_descriptor d[4]; /* those with flags and size 0 at the end are not there */
};

static const struct bad_chain bad_split[] = {
    {"head outside the ring", SIZE, {{0}}},
    {"head far outside", 0xffff, {{0}}},
    {"loop of one", 0, {{false, 0, 0x1000, 4, VD_NEXT, 0}}},
    {"loop of two", 0, {{false, 0, 0x1000, 4, VD_NEXT, 1}, {false, 1, 0x1000, 4, VD_NEXT, 0}}},
    {"loop that leaves the head out",
     0,
     {{false, 0, 0x1000, 4, VD_NEXT, 1},
      {false, 1, 0x1000, 4, VD_NEXT, 2},
      {false, 2, 0x1000, 4, VD_NEXT, 1}}},
    {"next outside the ring", 0, {{false, 0, 0x1000, 4, VD_NEXT, SIZE}}},
    {"next far outside", 0, {{false, 0, 0x1000, 4, VD_NEXT, 0xffff}}},
    {"length 0", 0, {{false, 0, 0x1000, 0, VD_WRITE, 0}}},
    {"length 0 later", 0, {{false, 0, 0x1000, 4, VD_NEXT, 1}, {false, 1, 0x1000, 0, VD_WRITE, 0}}},
    {"behind RAM", 0, {{false, 0, RAM_BYTES, 4, 0, 0}}},
    {"runs out of RAM", 0, {{false, 0, RAM_BYTES - 3, 4, VD_WRITE, 0}}},
    {"all of the address space", 0, {{false, 0, 0, UINT32_MAX, VD_WRITE, 0}}},
    {"wraps", 0, {{false, 0, UINT64_MAX, 4, VD_WRITE, 0}}},
    {"MMIO", 0, {{false, 0, 0xfee00000, 4, VD_WRITE, 0}}},
    {"above 4 GiB, where there is none", 0, {{false, 0, RAM_HIGH_BASE, 4, VD_WRITE, 0}}},
    {"readable after writable",
     0,
     {{false, 0, 0x1000, 4, VD_NEXT | VD_WRITE, 1}, {false, 1, 0x1000, 4, 0, 0}}},
    {"table of length 0", 0, {{false, 0, TABLE, 0, VD_INDIRECT, 0}}},
    {"table of no whole length", 0, {{false, 0, TABLE, 24, VD_INDIRECT, 0}}},
    {"table shorter than one", 0, {{false, 0, TABLE, 8, VD_INDIRECT, 0}}},
    {"table outside RAM", 0, {{false, 0, RAM_BYTES, 16, VD_INDIRECT, 0}}},
    {"table that wraps", 0, {{false, 0, UINT64_MAX - 15, 32, VD_INDIRECT, 0}}},
    {"table of 4 GiB", 0, {{false, 0, TABLE, 0xfffffff0, VD_INDIRECT, 0}}},
    {"indirect with next",
     0,
     {{false, 0, TABLE, 16, VD_INDIRECT | VD_NEXT, 1},
      {false, 1, 0x1000, 4, 0, 0},
      {true, 0, 0x1000, 4, 0, 0}}},
    {"indirect in indirect",
     0,
     {{false, 0, TABLE, 32, VD_INDIRECT, 0}, {true, 0, TABLE + 16, 16, VD_INDIRECT, 0}}},
    {"indirect in itself",
     0,
     {{false, 0, TABLE, 16, VD_INDIRECT, 0}, {true, 0, TABLE, 16, VD_INDIRECT, 0}}},
    {"next outside the table",
     0,
     {{false, 0, TABLE, 16, VD_INDIRECT, 0}, {true, 0, 0x1000, 4, VD_NEXT, 1}}},
    {"loop in the table",
     0,
     {{false, 0, TABLE, 32, VD_INDIRECT, 0},
      {true, 0, 0x1000, 4, VD_NEXT, 1},
      {true, 1, 0x1000, 4, VD_NEXT, 0}}},
    {"length 0 in the table",
     0,
     {{false, 0, TABLE, 16, VD_INDIRECT, 0}, {true, 0, 0x1000, 0, VD_WRITE, 0}}},
    {"readable after writable in the table",
     0,
     {{false, 0, TABLE, 32, VD_INDIRECT, 0},
      {true, 0, 0x1000, 4, VD_WRITE | VD_NEXT, 1},
      {true, 1, 0x1000, 4, 0, 0}}},
    {"readable table after writable",
     0,
     {{false, 0, 0x1000, 4, VD_WRITE | VD_NEXT, 1},
      {false, 1, TABLE, 16, VD_INDIRECT, 0},
      {true, 0, 0x1000, 4, 0, 0}}},
    {"outside RAM in the table",
     0,
     {{false, 0, TABLE, 16, VD_INDIRECT, 0}, {true, 0, RAM_BYTES - 1, 2, 0, 0}}},
};

static void put_bad(struct fixture *f, const struct bad_descriptor *d, bool packed)
{
    uint64_t at = (d->in_table ? TABLE : f->d.queues[0].descriptors) + 16U * d->at;
    uint16_t flags = d->flags;
    if (packed && !d->in_table)
        flags |= VD_AVAIL;
    if (packed)
        vd_put_descriptor(&f->m, at, d->gpa, d->size_bytes, 0, flags);
    else
        vd_put_descriptor(&f->m, at, d->gpa, d->size_bytes, flags, d->next);
}

/* The queue is broken, says so once, and stays so; nothing was written by it. */
static void assert_breaks(struct fixture *f, const char *what)
{
    static uint8_t before[RAM_BYTES];
    memcpy(before, ram_hva(f->m.ram, 0, RAM_BYTES), RAM_BYTES);
    if (pop(f) || !f->why)
        fail_msg("not refused: %s", what);
    f->why = NULL;
    assert_false(pop(f));
    assert_false(virtio_queue_has_next(&f->q));
    assert_false(virtio_queue_listen(&f->q));
    virtio_queue_suppress(&f->q);
    virtio_queue_notify(&f->q);
    assert_null(f->why);
    assert_int_equal(f->interrupts, 0);
    assert_int_equal(f->m.written_bytes, 0);
    assert_memory_equal(before, ram_hva(f->m.ram, 0, RAM_BYTES), RAM_BYTES);
}

static void bad_split_chains(void **state)
{
    for (unsigned i = 0; i < sizeof(bad_split) / sizeof(bad_split[0]); i++) {
        struct fixture f;
        setup(&f, INDIRECT);
        /* A good one in every slot, so that it is the bad one that breaks it. */
        for (unsigned n = 0; n < SIZE; n++)
            vd_put_descriptor(&f.m, f.d.queues[0].descriptors + 16 * n, 0x1000, 4, 0, 0);
        for (unsigned n = 0; n < 4 && (bad_split[i].d[n].flags || bad_split[i].d[n].size_bytes);
             n++)
            put_bad(&f, &bad_split[i].d[n], false);
        vd_put(&f.m, f.d.queues[0].driver + 4, bad_split[i].head, 2);
        vd_put(&f.m, f.d.queues[0].driver + 2, 1, 2);
        assert_breaks(&f, bad_split[i].what);
        teardown(&f);
    }
}

static const struct bad_chain bad_packed[] = {
    {"length 0", 0, {{false, 0, 0x1000, 0, VD_WRITE, 0}}},
    {"behind RAM", 0, {{false, 0, RAM_BYTES, 4, 0, 0}}},
    {"runs out of RAM", 0, {{false, 0, RAM_BYTES - 3, 4, VD_WRITE, 0}}},
    {"wraps", 0, {{false, 0, UINT64_MAX - 1, 4, VD_WRITE, 0}}},
    {"readable after writable",
     0,
     {{false, 0, 0x1000, 4, VD_NEXT | VD_WRITE, 0}, {false, 1, 0x1000, 4, 0, 0}}},
    {"table of length 0", 0, {{false, 0, TABLE, 0, VD_INDIRECT, 0}}},
    {"table of no whole length", 0, {{false, 0, TABLE, 17, VD_INDIRECT, 0}}},
    {"table outside RAM", 0, {{false, 0, RAM_BYTES - 16, 32, VD_INDIRECT, 0}}},
    {"table with an empty slot",
     0,
     {{false, 0, TABLE, 32, VD_INDIRECT, 0}, {true, 0, 0x1000, 4, 0, 0}}},
    {"indirect in indirect",
     0,
     {{false, 0, TABLE, 16, VD_INDIRECT, 0}, {true, 0, TABLE, 16, VD_INDIRECT, 0}}},
    {"indirect with next", 0, {{false, 0, TABLE, 16, VD_INDIRECT | VD_NEXT, 0}}},
};

static void bad_packed_chains(void **state)
{
    for (unsigned i = 0; i < sizeof(bad_packed) / sizeof(bad_packed[0]); i++) {
        struct fixture f;
        setup(&f, PACKED | INDIRECT);
        for (unsigned n = 0; n < 4 && (bad_packed[i].d[n].flags || bad_packed[i].d[n].size_bytes);
             n++)
            put_bad(&f, &bad_packed[i].d[n], true);
        assert_breaks(&f, bad_packed[i].what);
        teardown(&f);
    }
}

static void indirect_not_negotiated(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct fixture f;
        setup(&f, packed ? PACKED : 0);
        vd_add(&f.d, 0, &(struct vd_buffer){0x1000, 4, true}, 1, true);
        assert_breaks(&f, "indirect");
        teardown(&f);
    }
}

/* Every slot says that another one follows. */
static void packed_chain_without_end(void **state)
{
    struct fixture f;
    setup(&f, PACKED);
    for (unsigned i = 0; i < SIZE; i++)
        vd_put_descriptor(&f.m, f.d.queues[0].descriptors + 16 * i, 0x1000, 4, 0,
                          VD_AVAIL | VD_NEXT);
    assert_breaks(&f, "chain without end");
    teardown(&f);
}

/* The driver says "available" again for slots that the device still has. */
static void packed_wrap_lies(void **state)
{
    struct fixture f;
    setup(&f, PACKED);
    for (unsigned i = 0; i < SIZE; i++)
        vd_put_descriptor(&f.m, f.d.queues[0].descriptors + 16 * i, 0x1000, 4, 0, VD_AVAIL);
    for (unsigned i = 0; i < SIZE; i++)
        assert_true(pop(&f));
    assert_false(pop(&f)); /* the other lap's bits are not there: empty, not broken */
    assert_null(f.why);
    for (unsigned i = 0; i < SIZE; i++)
        vd_put(&f.m, f.d.queues[0].descriptors + 16 * i + 14, VD_USED, 2);
    assert_breaks(&f, "slots that are in use");
    teardown(&f);

    /* Both bits equal: used, or not yet available; in neither lap a request. */
    setup(&f, PACKED);
    vd_put_descriptor(&f.m, f.d.queues[0].descriptors, 0x1000, 4, 0, VD_AVAIL | VD_USED);
    assert_false(pop(&f));
    vd_put_descriptor(&f.m, f.d.queues[0].descriptors, 0x1000, 4, 0, VD_USED);
    assert_false(pop(&f));
    assert_null(f.why);
    teardown(&f);
}

/* A chain that reaches into slots that are still in use. */
static void packed_chain_over_slots_in_use(void **state)
{
    struct fixture f;
    setup(&f, PACKED);
    for (unsigned i = 0; i < SIZE; i++)
        vd_put_descriptor(&f.m, f.d.queues[0].descriptors + 16 * i, 0x1000, 4, 0,
                          VD_AVAIL | (i >= SIZE - 2 ? VD_NEXT : 0));
    for (unsigned i = 0; i < SIZE - 2; i++)
        assert_true(pop(&f));
    assert_breaks(&f, "chain over slots in use");
    teardown(&f);
}

static void split_index_lies(void **state)
{
    static const uint16_t indices[] = {SIZE + 1, 0x8000, 0xffff};
    for (unsigned i = 0; i < 3; i++) {
        struct fixture f;
        setup(&f, 0);
        vd_put_descriptor(&f.m, f.d.queues[0].descriptors, 0x1000, 4, 0, 0);
        vd_put(&f.m, f.d.queues[0].driver + 2, indices[i], 2);
        assert_breaks(&f, "index too far ahead");
        teardown(&f);
    }
    /* Going on while the whole ring is in use. */
    struct fixture f;
    setup(&f, 0);
    vd_put_descriptor(&f.m, f.d.queues[0].descriptors, 0x1000, 4, 0, 0);
    vd_put(&f.m, f.d.queues[0].driver + 2, SIZE, 2);
    for (unsigned i = 0; i < SIZE; i++)
        assert_true(pop(&f));
    assert_false(pop(&f));
    assert_null(f.why);
    vd_put(&f.m, f.d.queues[0].driver + 2, SIZE + 1, 2);
    assert_breaks(&f, "more than the ring holds");
    teardown(&f);
}

/* An indirect table may be longer than the ring, but not than what a chain holds. */
static void long_tables(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        for (unsigned count = VIRTIO_CHAIN_IOV_MAX; count <= VIRTIO_CHAIN_IOV_MAX + 1; count++) {
            struct fixture f;
            setup(&f, INDIRECT | (packed ? PACKED : 0));
            static struct vd_buffer b[VIRTIO_CHAIN_IOV_MAX + 1];
            for (unsigned i = 0; i < count; i++)
                b[i] = (struct vd_buffer){0x1000, 4, true};
            vd_add(&f.d, 0, b, count, true);
            if (count > VIRTIO_CHAIN_IOV_MAX) {
                assert_breaks(&f, "too many pieces");
            } else {
                assert_true(pop(&f));
                assert_int_equal(f.chain.writable_count, count);
            }
            teardown(&f);
        }
    }
}

/* Descriptors that overlap make a chain whose length, but not memory, passes 4 GiB. */
static void chain_over_4_gib(void **state)
{
    static struct vd_buffer b[512];
    struct fixture f;
    setup(&f, INDIRECT);
    vd_machine_free(&f.m);
    vd_machine_init(&f.m, 8 << 20);
    struct vd_queue *ring = &f.d.queues[0];
    struct virtio_queue_hooks hooks = {on_interrupt, on_broken, &f};
    virtio_queue_init(&f.q, f.m.ram, 0, SIZE, &hooks);
    f.q.descriptor_gpa = ring->descriptors;
    f.q.driver_gpa = ring->driver;
    f.q.device_gpa = ring->device;
    f.m.next_gpa = 0x20000;
    assert_true(virtio_queue_enable(&f.q, false, false, true));
    for (unsigned i = 0; i < 512; i++)
        b[i] = (struct vd_buffer){0, 8 << 20, true};
    vd_add(&f.d, 0, b, 512, true);
    assert_false(pop(&f));
    assert_non_null(f.why);
    teardown(&f);
}

/* What the driver changes after the pop does not change the chain. */
static void copied_once(void **state)
{
    struct fixture f;
    setup(&f, 0);
    add_one(&f);
    assert_true(pop(&f));
    vd_put_descriptor(&f.m, f.d.queues[0].descriptors, UINT64_MAX, UINT32_MAX, VD_NEXT, 0xffff);
    vd_put(&f.m, f.d.queues[0].driver + 4, 0xffff, 2);
    assert_int_equal(virtio_chain_write(&f.chain, 0, "0123456789abcdef+", 17), 16);
    virtio_queue_push(&f.q, &f.chain, UINT64_MAX); /* cut to what there is */
    assert_int_equal(vd_get(&f.m, f.d.queues[0].device + 8, 4), 16);
    assert_null(f.why);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains),
        cmocka_unit_test(direct_then_indirect),
        cmocka_unit_test(out_of_order),
        cmocka_unit_test(unpop_gives_it_again),
        cmocka_unit_test(batch),
        cmocka_unit_test(stale_chain_is_not_pushed),
        cmocka_unit_test(interrupts_as_asked),
        cmocka_unit_test(interrupt_after),
        cmocka_unit_test(interrupt_after_laps),
        cmocka_unit_test(kicks_as_asked),
        cmocka_unit_test(notifications_are_not_lost),
        cmocka_unit_test(save_and_load),
        cmocka_unit_test(load_refuses),
        cmocka_unit_test(bad_setups),
        cmocka_unit_test(bad_split_chains),
        cmocka_unit_test(bad_packed_chains),
        cmocka_unit_test(indirect_not_negotiated),
        cmocka_unit_test(packed_chain_without_end),
        cmocka_unit_test(packed_wrap_lies),
        cmocka_unit_test(packed_chain_over_slots_in_use),
        cmocka_unit_test(split_index_lies),
        cmocka_unit_test(long_tables),
        cmocka_unit_test(chain_over_4_gib),
        cmocka_unit_test(copied_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
