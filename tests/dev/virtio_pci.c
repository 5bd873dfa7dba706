/* SPDX-License-Identifier: BSD-2-Clause
 * virtio over PCI: registers, negotiation, status, interrupts and reset, with a device type of the
 * test's own that answers each request with one byte. */
#include "dev/virtio_driver.h"

enum { SLOT = 5, QUEUES = 3, QUEUE_SIZE = 16, CONFIG_BYTES = 10 };
#define F_ONE (UINT64_C(1) << 0)
#define F_TWO (UINT64_C(1) << 1) /* not without F_ONE */

struct echo {
    struct virtio_device *device;
    uint8_t config[CONFIG_BYTES];
    unsigned kicks, starts, resets, queue_resets;
    uint64_t features; /* at start */
    bool *destroyed;
    struct virtio_chain chain;
};

static void echo_config_read(void *self, uint32_t offset, void *buffer, uint32_t size_bytes)
{
    assert_true(offset + size_bytes <= CONFIG_BYTES);
    memcpy(buffer, ((struct echo *)self)->config + offset, size_bytes);
}

static void echo_config_write(void *self, uint32_t offset, const void *buffer, uint32_t size_bytes)
{
    assert_true(offset + size_bytes <= CONFIG_BYTES);
    memcpy(((struct echo *)self)->config + offset, buffer, size_bytes);
}

static bool echo_features_check(void *self, uint64_t features)
{
    return !(features & F_TWO) || features & F_ONE;
}

static void echo_start(void *self)
{
    struct echo *echo = self;
    echo->starts++;
    echo->features = virtio_features(echo->device);
}

static enum virtio_taken echo_take(void *self, unsigned index)
{
    struct echo *echo = self;
    struct virtio_queue *q = virtio_queue(echo->device, index);
    if (!virtio_queue_pop(q, &echo->chain))
        return VIRTIO_NONE;
    virtio_queue_push(q, &echo->chain, virtio_chain_write(&echo->chain, 0, "!", 1));
    return VIRTIO_TAKEN;
}

static void echo_kick(void *self, unsigned index)
{
    struct echo *echo = self;
    echo->kicks++;
    virtio_serve(echo->device, index, echo_take);
}

static void echo_queue_reset(void *self, unsigned index)
{
    ((struct echo *)self)->queue_resets++;
}

static void echo_reset(void *self)
{
    ((struct echo *)self)->resets++;
}

static void echo_save(void *self, struct save *save)
{
    save_bytes(save, ((struct echo *)self)->config, CONFIG_BYTES);
}

static bool echo_load(void *self, struct load *load, uint32_t version)
{
    load_bytes(load, ((struct echo *)self)->config, CONFIG_BYTES);
    return version == 7;
}

static void echo_destroy(void *self)
{
    *((struct echo *)self)->destroyed = true;
    free(self);
}

static const struct virtio_ops echo_ops = {
    .name = "virtio-echo",
    .type = 0x1f,
    .pci_class = 0xff1234,
    .version = 7,
    .config_read = echo_config_read,
    .config_write = echo_config_write,
    .features_check = echo_features_check,
    .start = echo_start,
    .kick = echo_kick,
    .queue_reset = echo_queue_reset,
    .reset = echo_reset,
    .save = echo_save,
    .load = echo_load,
    .destroy = echo_destroy,
};

struct fixture {
    struct vd_machine m;
    struct echo *echo;
    struct virtio_pci *pci;
    struct vd d;
    bool destroyed;
};

static void create(struct fixture *f)
{
    static const uint16_t sizes[QUEUES] = {QUEUE_SIZE, QUEUE_SIZE, 4};
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 4 << 20);
    f->echo = calloc(1, sizeof(*f->echo));
    assert_non_null(f->echo);
    f->echo->destroyed = &f->destroyed;
    memcpy(f->echo->config, "abcdefghij", CONFIG_BYTES);
    struct virtio_config config = {.ops = &echo_ops,
                                   .self = f->echo,
                                   .ram = f->m.ram,
                                   .loop = f->m.loop,
                                   .log = &f->m.log,
                                   .features = F_ONE | F_TWO,
                                   .config_size_bytes = CONFIG_BYTES,
                                   .queue_count = QUEUES,
                                   .queue_sizes = sizes};
    f->echo->device = virtio_create(&config, &err);
    assert_non_null(f->echo->device);
    struct virtio_pci_config place = {f->m.pci, SLOT, 0, vd_msi(&f->m)};
    f->pci = virtio_pci_create(&place, f->echo->device, &err);
    assert_non_null(f->pci);
    vd_boot(&f->m);
}

static void setup(struct fixture *f)
{
    create(f);
    vd_open(&f->d, &f->m, SLOT);
}

static void teardown(struct fixture *f)
{
    virtio_pci_ops.destroy(f->pci);
    assert_true(f->destroyed);
    vd_machine_free(&f->m);
}

static void start(struct fixture *f, uint64_t features, bool msix)
{
    assert_true(vd_negotiate(&f->d, VIRTIO_F_VERSION_1 | features));
    if (msix)
        vd_enable_msix(&f->d);
    for (unsigned i = 0; i < QUEUES; i++)
        vd_queue_setup(&f->d, i, 4);
    vd_start(&f->d);
}

/* One request through queue `index`; true when it came back. */
static bool echo(struct fixture *f, unsigned index)
{
    uint64_t gpa = vd_alloc(&f->m, 16, 16);
    uint16_t id;
    uint32_t size;
    vd_add(&f->d, index, &(struct vd_buffer){gpa, 16, true}, 1, false);
    vd_kick(&f->d, index);
    return vd_used(&f->d, index, &id, &size) && size == 1 && vd_get(&f->m, gpa, 1) == '!';
}

static uint64_t common(struct fixture *f, unsigned offset, unsigned size_bytes)
{
    return vd_read(&f->d, f->d.common + offset, size_bytes);
}

static void common_set(struct fixture *f, unsigned offset, uint64_t value, unsigned size_bytes)
{
    vd_write(&f->d, f->d.common + offset, value, size_bytes);
}

static void identity(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(vd_config_read(&f.m, SLOT, PCI_VENDOR, 4), 0x105f1af4);
    assert_int_equal(vd_config_read(&f.m, SLOT, PCI_REVISION, 4), 0xff123401);
    assert_int_equal(vd_config_read(&f.m, SLOT, PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(f.d.msix_vectors, QUEUES + 1);
    assert_int_equal(f.d.config_size_bytes, CONFIG_BYTES);
    assert_int_equal(common(&f, 18, 2), QUEUES);
    assert_int_equal(vd_offered(&f.d), F_ONE | F_TWO | VIRTIO_CORE_FEATURES);
    common_set(&f, 0, 2, 4);
    assert_int_equal(common(&f, 4, 4), 0); /* no third window */
    teardown(&f);
}

static void negotiation(void **state)
{
    struct fixture f;
    setup(&f);
    static const struct {
        uint64_t features;
        bool accepted;
    } cases[] = {
        {0, false},                                             /* not without VERSION_1 */
        {F_ONE, false},                                         /* the same */
        {VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM, false}, /* not offered */
        {VIRTIO_F_VERSION_1 | UINT64_C(1) << 63, false},        /* not offered */
        {VIRTIO_F_VERSION_1 | F_TWO, false},                    /* the type's own rule */
        {VIRTIO_F_VERSION_1 | F_ONE | F_TWO, true},
        {VIRTIO_F_VERSION_1, true},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        vd_reset(&f.d);
        vd_open(&f.d, &f.m, SLOT);
        assert_int_equal(vd_negotiate(&f.d, cases[i].features), cases[i].accepted);
        assert_int_equal(virtio_features(f.echo->device),
                         cases[i].accepted ? cases[i].features : 0);
        /* Without FEATURES_OK there is no DRIVER_OK, and no queue. */
        vd_start(&f.d);
        assert_int_equal(vd_status(&f.d), cases[i].accepted ? 0xf : 3);
    }
    /* Set once, it stays. */
    common_set(&f, 8, 0, 4);
    common_set(&f, 12, F_ONE, 4);
    assert_int_equal(common(&f, 12, 4), 0);
    assert_int_equal(f.echo->starts, 2);
    teardown(&f);
}

static void queue_registers(void **state)
{
    struct fixture f;
    setup(&f);
    common_set(&f, 22, 2, 2);
    assert_int_equal(common(&f, 24, 2), 4);
    assert_int_equal(common(&f, 30, 2), 2);
    common_set(&f, 22, QUEUES, 2); /* there is none: size 0 */
    assert_int_equal(common(&f, 24, 2), 0);
    common_set(&f, 28, 1, 2);
    common_set(&f, 32, UINT64_MAX, 8);
    common_set(&f, 22, 0xffff, 2);
    common_set(&f, 28, 1, 2);
    common_set(&f, 58, 1, 2);
    /* Not before FEATURES_OK. */
    vd_queue_place(&f.d, 0, 4, 0x1000, 0x2000, 0x3000);
    vd_queue_enable(&f.d, 0);
    assert_int_equal(common(&f, 28, 2), 0);
    assert_true(vd_negotiate(&f.d, VIRTIO_F_VERSION_1));
    /* Addresses in halves and whole. */
    common_set(&f, 32, UINT64_C(0x1122334455667780), 8);
    assert_int_equal(common(&f, 32, 8), UINT64_C(0x1122334455667780));
    assert_int_equal(common(&f, 36, 4), 0x11223344);
    common_set(&f, 36, 0, 4);
    assert_int_equal(common(&f, 32, 8), 0x55667780);
    /* Wrong widths do nothing. */
    common_set(&f, 32, 0, 2);
    common_set(&f, 34, 0, 2);
    common_set(&f, 24, 1, 1);
    common_set(&f, 23, 1, 1);
    assert_int_equal(common(&f, 32, 8), 0x55667780);
    assert_int_equal(common(&f, 24, 2), 4);
    assert_int_equal(common(&f, 22, 2), 0);
    /* Enabled, it is fixed. */
    vd_queue_setup(&f.d, 0, 8);
    common_set(&f, 32, 0, 8);
    common_set(&f, 24, 2, 2);
    assert_int_equal(common(&f, 32, 8), f.d.queues[0].descriptors);
    assert_int_equal(common(&f, 24, 2), 8);
    common_set(&f, 28, 0, 2); /* disabling is not done so */
    assert_int_equal(common(&f, 28, 2), 1);
    teardown(&f);
}

static void bad_ring_needs_reset(void **state)
{
    for (unsigned msix = 0; msix < 2; msix++) {
        struct fixture f;
        setup(&f);
        assert_true(vd_negotiate(&f.d, VIRTIO_F_VERSION_1));
        if (msix)
            vd_enable_msix(&f.d);
        vd_queue_place(&f.d, 0, 4, UINT64_C(0x1000000000), 0x2000, 0x3000);
        vd_queue_enable(&f.d, 0);
        assert_int_equal(common(&f, 28, 2), 0);
        assert_int_equal(vd_status(&f.d), 0xb | VIRTIO_STATUS_NEEDS_RESET);
        assert_int_equal(f.m.msi_count, 0); /* not before DRIVER_OK */
        assert_false(f.m.intx);
        vd_start(&f.d);
        assert_int_equal(f.echo->starts, 0);
        if (msix) {
            assert_int_equal(vd_msi_of(&f.m, 0), 1);
        } else {
            assert_true(f.m.intx);
            assert_int_equal(vd_isr(&f.d), 2);
        }
        vd_reset(&f.d);
        assert_int_equal(vd_status(&f.d), 0);
        vd_open(&f.d, &f.m, SLOT);
        start(&f, 0, false);
        teardown(&f);
    }
}

static void live_only(void **state)
{
    struct fixture f;
    setup(&f);
    start(&f, F_ONE, true);
    assert_int_equal(f.echo->features, F_ONE | VIRTIO_F_VERSION_1);
    assert_int_equal(f.echo->kicks, QUEUES); /* each is looked at once at the start */
    assert_true(echo(&f, 0) && echo(&f, 2));
    assert_int_equal(vd_msi_of(&f.m, 1), 1);
    assert_int_equal(vd_msi_of(&f.m, 3), 1);
    vd_write(&f.d, f.d.notify + QUEUES * f.d.notify_step, 0, 2); /* no such queue */
    vd_write(&f.d, f.d.notify + 0xffc, 0, 4);
    unsigned kicks = f.echo->kicks;
    common_set(&f, 20, 0xf | VIRTIO_STATUS_FAILED, 1);
    assert_false(echo(&f, 0));
    assert_int_equal(f.echo->kicks, kicks);
    assert_int_equal(vd_status(&f.d), 0xf | VIRTIO_STATUS_FAILED);
    teardown(&f);
}

static void config_space_of_device(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(vd_read(&f.d, f.d.config, 4), 0x64636261);
    assert_int_equal(vd_read(&f.d, f.d.config + 8, 2), 'i' | 'j' << 8);
    assert_int_equal(vd_read(&f.d, f.d.config + 9, 2), 0); /* past its end */
    assert_int_equal(vd_read(&f.d, f.d.config + 8, 8), 0);
    assert_int_equal(vd_read(&f.d, f.d.config + 0xfff, 1), 0);
    vd_write(&f.d, f.d.config + 1, 'X', 1);
    vd_write(&f.d, f.d.config + 8, UINT64_MAX, 4); /* past its end */
    assert_memory_equal(f.echo->config, "aXcdefghij", CONFIG_BYTES);
    start(&f, 0, true);
    uint8_t generation = (uint8_t)common(&f, 21, 1);
    virtio_lock(f.echo->device);
    virtio_config_changed(f.echo->device);
    virtio_unlock(f.echo->device);
    assert_int_equal((uint8_t)common(&f, 21, 1), (uint8_t)(generation + 1));
    assert_int_equal(vd_msi_of(&f.m, 0), 1);
    teardown(&f);
}

static void vectors(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(common(&f, 16, 2), VD_NO_VECTOR);
    common_set(&f, 16, QUEUES, 2);
    assert_int_equal(common(&f, 16, 2), QUEUES);
    common_set(&f, 16, QUEUES + 1, 2); /* there is none */
    assert_int_equal(common(&f, 16, 2), VD_NO_VECTOR);
    start(&f, 0, true);
    common_set(&f, 22, 1, 2);
    common_set(&f, 26, 3, 2);
    assert_true(echo(&f, 1));
    assert_int_equal(vd_msi_of(&f.m, 3), 1);
    common_set(&f, 26, VD_NO_VECTOR, 2);
    assert_true(echo(&f, 1));
    assert_int_equal(f.m.msi_count, 1); /* no vector, no message */
    assert_int_equal(vd_isr(&f.d), 0);
    assert_false(f.m.intx);
    teardown(&f);
}

static void masks_and_pending_bits(void **state)
{
    struct fixture f;
    setup(&f);
    start(&f, 0, true);
    unsigned at = vd_capability(&f.m, SLOT, PCI_CAPABILITY_MSIX, 0);
    uint32_t pba = vd_config_read(&f.m, SLOT, at + 8, 4);
    uint64_t pending = vd_bar(&f.m, SLOT, pba & 7) + (pba & ~7U);
    vd_write(&f.d, f.d.msix_table + 16 + 12, 1, 4); /* vector 1 masked */
    assert_true(echo(&f, 0) && echo(&f, 1));
    assert_int_equal(vd_msi_of(&f.m, 1), 0);
    assert_int_equal(vd_msi_of(&f.m, 2), 1);
    assert_int_equal(vd_read(&f.d, pending, 8), 2);
    vd_write(&f.d, pending, UINT64_MAX, 8); /* read-only */
    assert_int_equal(vd_read(&f.d, pending, 8), 2);
    vd_config_write(&f.m, SLOT, at + 2, 0xc000, 2); /* all masked */
    vd_write(&f.d, f.d.msix_table + 16 + 12, 0, 4);
    assert_true(echo(&f, 1));
    assert_int_equal(f.m.msi_count, 1);
    assert_int_equal(vd_read(&f.d, pending, 8), 6);
    vd_config_write(&f.m, SLOT, at + 2, 0x8000, 2);
    assert_int_equal(vd_msi_of(&f.m, 1), 1);
    assert_int_equal(vd_msi_of(&f.m, 2), 2);
    assert_int_equal(vd_read(&f.d, pending, 8), 0);
    /* Table: odd widths and places change nothing; the reserved bits stay zero. */
    vd_write(&f.d, f.d.msix_table + 8, 0, 2);
    vd_write(&f.d, f.d.msix_table + 10, 0, 4);
    vd_write(&f.d, f.d.msix_table + 4, UINT64_MAX, 8);
    assert_int_equal(vd_read(&f.d, f.d.msix_table + 8, 4), VD_MSI_DATA);
    vd_write(&f.d, f.d.msix_table + 12, 0xffffffff, 4);
    assert_int_equal(vd_read(&f.d, f.d.msix_table + 12, 4), 1);
    vd_write(&f.d, f.d.msix_table + 16 * f.d.msix_vectors, 0x1234, 4); /* behind the table */
    assert_int_equal(vd_read(&f.d, f.d.msix_table + 16 * f.d.msix_vectors, 4), 0);
    teardown(&f);
}

static void intx(void **state)
{
    struct fixture f;
    setup(&f);
    start(&f, 0, false);
    assert_true(echo(&f, 0));
    assert_true(f.m.intx);
    assert_true(vd_config_read(&f.m, SLOT, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    uint32_t command = vd_config_read(&f.m, SLOT, PCI_COMMAND, 2);
    vd_config_write(&f.m, SLOT, PCI_COMMAND, command | PCI_COMMAND_INTX_DISABLE, 2);
    assert_false(f.m.intx);
    vd_config_write(&f.m, SLOT, PCI_COMMAND, command, 2);
    assert_true(f.m.intx);
    /* MSI-X on: the pin goes down. */
    vd_enable_msix(&f.d);
    assert_false(f.m.intx);
    unsigned at = vd_capability(&f.m, SLOT, PCI_CAPABILITY_MSIX, 0);
    vd_config_write(&f.m, SLOT, at + 2, 0, 2);
    assert_true(f.m.intx);
    assert_int_equal(vd_isr(&f.d), 1);
    assert_false(f.m.intx);
    assert_false(vd_config_read(&f.m, SLOT, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    assert_true(echo(&f, 1));
    vd_reset(&f.d);
    assert_false(f.m.intx);
    assert_int_equal(vd_isr(&f.d), 0);
    teardown(&f);
}

static void access_by_config_space(void **state)
{
    struct fixture f;
    setup(&f);
    unsigned at = 0;
    do {
        at = vd_capability(&f.m, SLOT, PCI_CAPABILITY_VENDOR, at);
    } while (at && vd_config_read(&f.m, SLOT, at + 3, 1) != 5);
    assert_true(at);
    /* Memory space off: this way still works, the BAR does not. */
    start(&f, 0, true);
    vd_config_write(&f.m, SLOT, PCI_COMMAND, 0, 2);
    assert_int_equal(vd_read(&f.d, f.d.common + 20, 1), 0xff);
    vd_config_write(&f.m, SLOT, at + 4, 0, 1);
    vd_config_write(&f.m, SLOT, at + 8, 20, 4);
    vd_config_write(&f.m, SLOT, at + 12, 1, 4);
    assert_int_equal(vd_config_read(&f.m, SLOT, at + 16, 1), 0xf);
    vd_config_write(&f.m, SLOT, at + 8, 0x2000, 4);
    vd_config_write(&f.m, SLOT, at + 12, 4, 4);
    assert_int_equal(vd_config_read(&f.m, SLOT, at + 16, 4), 0x64636261);
    vd_config_write(&f.m, SLOT, at + 16, 0x31323334, 4);
    assert_memory_equal(f.echo->config, "4321efghij", CONFIG_BYTES);
    /* A kick. */
    unsigned kicks = f.echo->kicks;
    vd_config_write(&f.m, SLOT, at + 8, 0x3004, 4);
    vd_config_write(&f.m, SLOT, at + 12, 2, 4);
    vd_config_write(&f.m, SLOT, at + 16, 1, 2);
    assert_int_equal(f.echo->kicks, kicks + 1);
    /* Places and lengths that are not. */
    static const uint32_t bad[][3] = {{1, 0, 4},          {6, 0, 4}, {0, 0x4000, 4},
                                      {0, 0xfffffffc, 4}, {0, 2, 4}, {0, 0, 3},
                                      {0, 0, 0},          {0, 0, 8}, {0, 0, 0xffffffff}};
    vd_config_write(&f.m, SLOT, at + 16, 0x77777777, 4);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        vd_config_write(&f.m, SLOT, at + 4, bad[i][0], 1);
        vd_config_write(&f.m, SLOT, at + 8, bad[i][1], 4);
        vd_config_write(&f.m, SLOT, at + 12, bad[i][2], 4);
        vd_config_write(&f.m, SLOT, at + 16, 0x01020304 + i, 4);
        assert_int_equal(vd_config_read(&f.m, SLOT, at + 16, 4), 0x01020304 + i);
    }
    teardown(&f);
}

static void doorbells_move(void **state)
{
    struct fixture f;
    setup(&f);
    start(&f, 0, true);
    uint64_t old = f.d.queues[0].doorbell, base = vd_bar(&f.m, SLOT, 0);
    uint64_t moved = base + 0x100000;
    vd_config_write(&f.m, SLOT, PCI_BAR0, (uint32_t)moved, 4);
    unsigned kicks = f.echo->kicks;
    vd_write(&f.d, old, 0, 2);
    assert_int_equal(f.echo->kicks, kicks);
    f.d.queues[0].doorbell = old - base + moved;
    f.d.common = f.d.common - base + moved;
    assert_true(echo(&f, 0));
    assert_int_equal(vd_status(&f.d), 0xf);
    teardown(&f);
}

static void queue_reset(void **state)
{
    struct fixture f;
    setup(&f);
    start(&f, VIRTIO_F_RING_RESET, true);
    assert_true(echo(&f, 1));
    common_set(&f, 22, 1, 2);
    common_set(&f, 58, 1, 2);
    assert_int_equal(f.echo->queue_resets, 1);
    assert_int_equal(common(&f, 58, 2), 0);
    assert_int_equal(common(&f, 28, 2), 0);
    assert_int_equal(common(&f, 24, 2), QUEUE_SIZE);
    assert_false(echo(&f, 1));
    assert_true(echo(&f, 0));
    vd_queue_setup(&f.d, 1, 8);
    assert_true(echo(&f, 1));
    teardown(&f);

    /* Not negotiated: it does nothing. */
    setup(&f);
    start(&f, 0, true);
    common_set(&f, 22, 1, 2);
    common_set(&f, 58, 1, 2);
    assert_int_equal(f.echo->queue_resets, 0);
    assert_true(echo(&f, 1));
    teardown(&f);
}

static void reset_forgets(void **state)
{
    struct fixture f;
    setup(&f);
    start(&f, F_ONE, true);
    assert_true(echo(&f, 0));
    unsigned resets = f.echo->resets;
    vd_reset(&f.d);
    assert_int_equal(f.echo->resets, resets + 1);
    assert_int_equal(vd_status(&f.d), 0);
    common_set(&f, 8, 0, 4);
    assert_int_equal(common(&f, 12, 4), 0);
    assert_int_equal(common(&f, 16, 2), VD_NO_VECTOR);
    for (unsigned i = 0; i < QUEUES; i++) {
        common_set(&f, 22, i, 2);
        assert_int_equal(common(&f, 28, 2), 0);
        assert_int_equal(common(&f, 26, 2), VD_NO_VECTOR);
        assert_int_equal(common(&f, 32, 8), 0);
    }
    /* The machine's reset takes the BARs too. */
    virtio_pci_ops.reset(f.pci);
    assert_int_equal(vd_bar(&f.m, SLOT, 0), 0);
    assert_int_equal(vd_config_read(&f.m, SLOT, PCI_COMMAND, 2), 0);
    vd_boot(&f.m);
    vd_open(&f.d, &f.m, SLOT);
    start(&f, F_ONE, true);
    assert_true(echo(&f, 0));
    teardown(&f);
}

static void place_taken(void **state)
{
    struct fixture f, g;
    setup(&f);
    struct error err = {0};
    static const uint16_t size = 4;
    memset(&g, 0, sizeof(g));
    g.echo = calloc(1, sizeof(*g.echo));
    assert_non_null(g.echo);
    g.echo->destroyed = &g.destroyed;
    struct virtio_config config = {.ops = &echo_ops,
                                   .self = g.echo,
                                   .ram = f.m.ram,
                                   .loop = f.m.loop,
                                   .queue_count = 1,
                                   .queue_sizes = &size};
    struct virtio_device *device = virtio_create(&config, &err);
    assert_non_null(device);
    struct virtio_pci_config place = {f.m.pci, SLOT, 0, vd_msi(&f.m)};
    assert_null(virtio_pci_create(&place, device, &err));
    assert_true(g.destroyed);
    assert_int_equal(err.kind, ERROR_FAILED);
    assert_non_null(strstr(err.cause, "slot 5"));
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity),
        cmocka_unit_test(negotiation),
        cmocka_unit_test(queue_registers),
        cmocka_unit_test(bad_ring_needs_reset),
        cmocka_unit_test(live_only),
        cmocka_unit_test(config_space_of_device),
        cmocka_unit_test(vectors),
        cmocka_unit_test(masks_and_pending_bits),
        cmocka_unit_test(intx),
        cmocka_unit_test(access_by_config_space),
        cmocka_unit_test(doorbells_move),
        cmocka_unit_test(queue_reset),
        cmocka_unit_test(reset_forgets),
        cmocka_unit_test(place_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
