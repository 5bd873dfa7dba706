/* SPDX-License-Identifier: BSD-2-Clause
 * Both interfaces of a TPM through the bus, over a back end that answers when told to. */
#include "dev/legacy.h"

#include "dev/tpm.h"

enum { COMMAND_BYTES = 12 };
#define BASE UINT64_C(0xfed40000)

struct fixture {
    struct bus *bus;
    struct tpm_handler handler;
    struct tpm_tis *tis;
    struct tpm_crb *crb;
    bool is_busy;
    unsigned locality, resets;
    size_t size_bytes;
    uint8_t command[TPM_COMMAND_MAX_BYTES];
    uint32_t secret; /* the TPM's state */
};

static const uint8_t command[COMMAND_BYTES] = {0x80, 1, 0, 0,    0, COMMAND_BYTES,
                                               0,    0, 1, 0x44, 0, 0};

/* ---- the back end ---- */

static void set_handler(void *opaque, const struct tpm_handler *handler)
{
    struct fixture *f = opaque;
    f->handler = handler ? *handler : (struct tpm_handler){0};
}

static void submit(void *opaque, unsigned locality, const uint8_t *bytes, size_t size_bytes)
{
    struct fixture *f = opaque;
    assert_false(f->is_busy);
    assert_true(size_bytes >= TPM_HEADER_BYTES && size_bytes <= sizeof(f->command));
    memcpy(f->command, bytes, size_bytes);
    f->size_bytes = size_bytes;
    f->locality = locality;
    f->is_busy = true;
}

/* Answers with `size_bytes` that count up after the header. */
static void respond(struct fixture *f, uint32_t size_bytes)
{
    uint8_t answer[TPM_COMMAND_MAX_BYTES + 16] = {
        0x80, 1, 0, 0, (uint8_t)(size_bytes >> 8), (uint8_t)size_bytes};
    for (uint32_t i = TPM_HEADER_BYTES; i < size_bytes; i++)
        answer[i] = (uint8_t)i;
    assert_true(f->is_busy);
    f->is_busy = false;
    f->handler.respond(f->handler.opaque, answer, size_bytes);
}

static void drain(void *opaque) {}

static void backend_reset(void *opaque)
{
    ((struct fixture *)opaque)->resets++;
}

static bool backend_save(void *opaque, struct save *save)
{
    save_u32(save, ((struct fixture *)opaque)->secret);
    return true;
}

static bool backend_load(void *opaque, struct load *load)
{
    ((struct fixture *)opaque)->secret = load_u32(load);
    return !load->failed;
}

static void setup(struct fixture *f, bool is_tis)
{
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    f->bus = bus_create(NULL);
    const struct tpm_backend backend = {.set_handler = set_handler,
                                        .submit = submit,
                                        .drain = drain,
                                        .reset = backend_reset,
                                        .save = backend_save,
                                        .load = backend_load,
                                        .opaque = f};
    const struct tpm_config config = {BASE, &backend};
    if (is_tis)
        f->tis = tpm_tis_create(&config, f->bus, &err);
    else
        f->crb = tpm_crb_create(&config, f->bus, &err);
    assert_true(f->tis || f->crb);
}

static void teardown(struct fixture *f)
{
    if (f->tis)
        tpm_tis_ops.destroy(f->tis);
    else
        tpm_crb_ops.destroy(f->crb);
    assert_null(f->handler.respond);
    bus_destroy(f->bus);
}

static uint32_t get(struct fixture *f, unsigned offset, unsigned size_bytes)
{
    return (uint32_t)bus_read(f->bus, BUS_MMIO, BASE + offset, size_bytes);
}

static void put(struct fixture *f, unsigned offset, uint64_t value, unsigned size_bytes)
{
    bus_write(f->bus, BUS_MMIO, BASE + offset, value, size_bytes);
}

/* ---- the FIFO ---- */

static void tis_send(struct fixture *f, unsigned at, const uint8_t *bytes, unsigned count)
{
    put(f, at + 0x18, 0x40, 1);
    assert_true(get(f, at + 0x18, 4) & 0x40);
    for (unsigned i = 0; i < count; i++) {
        assert_true(i == 0 || get(f, at + 0x18, 1) & 8);
        put(f, at + 0x24, bytes[i], 1);
    }
    assert_false(get(f, at + 0x18, 1) & 8);
    put(f, at + 0x18, 0x20, 1);
}

static void tis_request(struct fixture *f, unsigned at)
{
    put(f, at, 2, 1);
    assert_int_equal(get(f, at, 1) & 0xa0, 0xa0);
}

static void test_tis_command(void **state)
{
    struct fixture f;
    setup(&f, true);
    assert_int_equal(get(&f, 0, 1), 0x81);
    assert_int_equal(get(&f, 0x18, 4), UINT32_MAX); /* nobody is active */
    assert_int_equal(get(&f, 0xf00, 4) & 0xffff, 0x1014);
    assert_int_equal(get(&f, 0x30, 4) & 15, 0);
    tis_request(&f, 0x2000);
    tis_send(&f, 0x2000, command, sizeof(command));
    assert_true(f.is_busy);
    assert_int_equal(f.locality, 2);
    assert_memory_equal(f.command, command, sizeof(command));
    assert_int_equal(get(&f, 0x2018, 1) & 0x58, 0);
    put(&f, 0x2024, 0x55, 1); /* not now */
    put(&f, 0x2018, 0x20, 1);
    respond(&f, 20);
    assert_int_equal(get(&f, 0x2018, 4) >> 8 & 0xffff, 20);
    assert_int_equal(get(&f, 0x2024, 4), 0x00000180);
    assert_int_equal(get(&f, 0x2080, 4), 0x00001400);
    put(&f, 0x2018, 2, 1); /* once more */
    for (unsigned i = 0; i < 20; i++) {
        assert_true(get(&f, 0x2018, 1) & 0x10);
        assert_int_equal(get(&f, 0x2024, 1), i < 10 ? (i == 0   ? 0x80
                                                       : i == 1 ? 1
                                                       : i == 5 ? 20
                                                                : 0)
                                                    : i);
    }
    assert_false(get(&f, 0x2018, 1) & 0x10);
    assert_int_equal(get(&f, 0x2024, 1), 0xff);
    teardown(&f);
}

static void test_tis_sizes(void **state)
{
    static const uint8_t sizes[][4] = {
        {0, 0, 0, 0}, {0, 0, 0, 9}, {0, 0, 0x10, 1}, {0xff, 0xff, 0xff, 0xff}};
    struct fixture f;
    setup(&f, true);
    tis_request(&f, 0);
    for (unsigned i = 0; i < 4; i++) {
        uint8_t bad[10] = {0x80, 1};
        memcpy(bad + 2, sizes[i], 4);
        tis_send(&f, 0, bad, sizeof(bad));
        assert_false(f.is_busy);
        for (unsigned j = 0; j < 8; j++)
            get(&f, 0x24, 1);
        assert_int_equal(get(&f, 0x24, 1) << 8 | get(&f, 0x24, 1), 0x142);
    }
    /* The longest there is, and an answer that is none. */
    uint8_t whole[TPM_COMMAND_MAX_BYTES] = {0x80, 1, 0, 0, 0x10, 0};
    tis_send(&f, 0, whole, sizeof(whole));
    assert_int_equal(f.size_bytes, sizeof(whole));
    respond(&f, 0);
    for (unsigned j = 0; j < 8; j++)
        get(&f, 0x24, 1);
    assert_int_equal(get(&f, 0x24, 1) << 8 | get(&f, 0x24, 1), 0x101);
    teardown(&f);
}

static void test_tis_give_up(void **state)
{
    struct fixture f;
    setup(&f, true);
    tis_request(&f, 0);
    tis_send(&f, 0, command, sizeof(command));
    put(&f, 0x18, 0x40, 1);
    assert_false(get(&f, 0x18, 1) & 0x40); /* the TPM still works on it */
    respond(&f, 20);
    assert_int_equal(get(&f, 0x18, 1) & 0x58, 0x40);
    tis_send(&f, 0, command, sizeof(command));
    respond(&f, 12);
    assert_true(get(&f, 0x18, 1) & 0x10);
    teardown(&f);
}

static void test_tis_localities(void **state)
{
    struct fixture f;
    setup(&f, true);
    tis_request(&f, 0x1000);
    put(&f, 0x0000, 2, 1);
    assert_int_equal(get(&f, 0x0000, 1) & 0x22, 2);
    assert_int_equal(get(&f, 0x1000, 1) & 0x24, 0x24);
    put(&f, 0x1000, 0x20, 1);
    assert_int_equal(get(&f, 0x0000, 1) & 0x20, 0x20);
    put(&f, 0x3000, 8, 1); /* seized by a higher one */
    assert_int_equal(get(&f, 0x3000, 1) & 0x20, 0x20);
    assert_int_equal(get(&f, 0x0000, 1) & 0x30, 0x10);
    put(&f, 0x1000, 8, 1); /* not by a lower one */
    assert_int_equal(get(&f, 0x3000, 1) & 0x20, 0x20);
    put(&f, 0x0000, 0x10, 1);
    assert_int_equal(get(&f, 0x0000, 1) & 0x10, 0);
    put(&f, 0x4000, 8, 1); /* the chipset's */
    put(&f, 0x4000, 2, 1);
    assert_int_equal(get(&f, 0x4000, 1) & 0x22, 0);
    put(&f, 0x0018, 0x40, 1); /* not from where it isn't active */
    assert_int_equal(get(&f, 0x3018, 1) & 0x40, 0);
    teardown(&f);
}

/* ---- the buffer ---- */

static void crb_send(struct fixture *f, const uint8_t *bytes, unsigned count)
{
    put(f, 0x40, 1, 4);
    assert_int_equal(get(f, 0x44, 4), 0);
    for (unsigned i = 0; i < count; i++)
        put(f, 0x80 + i, bytes[i], 1);
    put(f, 0x4c, 1, 4);
}

static void test_crb(void **state)
{
    struct fixture f;
    setup(&f, false);
    assert_int_equal(get(&f, 0x30, 4) & 0xff, 0x11);
    assert_int_equal(get(&f, 0x44, 4), 2);
    assert_int_equal(get(&f, 0x5c, 4), BASE + 0x80);
    assert_int_equal(get(&f, 0x58, 4), 0xf80);
    put(&f, 0x40, 1, 4); /* not without the locality */
    assert_int_equal(get(&f, 0x44, 4), 2);
    put(&f, 0x08, 1, 4);
    assert_int_equal(get(&f, 0x0c, 4), 1);
    assert_int_equal(get(&f, 0x00, 4), 0x82);
    crb_send(&f, command, sizeof(command));
    assert_true(f.is_busy);
    assert_int_equal(get(&f, 0x4c, 4), 1);
    put(&f, 0x80, 0x77, 1); /* not now */
    put(&f, 0x4c, 1, 4);
    respond(&f, 20);
    assert_int_equal(get(&f, 0x4c, 4), 0);
    assert_int_equal(get(&f, 0x80, 4), 0x00000180);
    assert_int_equal(get(&f, 0x80 + 16, 4), 0x13121110);
    const uint8_t bad[10] = {0x80, 1, 0, 0, 0x0f, 0x81};
    crb_send(&f, bad, sizeof(bad));
    assert_false(f.is_busy);
    assert_int_equal(get(&f, 0x88, 2), 0x4201);
    crb_send(&f, command, sizeof(command));
    respond(&f, 0xf81); /* longer than the buffer */
    assert_int_equal(get(&f, 0x44, 4), 1);
    put(&f, 0x40, 2, 4);
    assert_int_equal(get(&f, 0x44, 4) & 2, 2);
    assert_int_equal(get(&f, 0x0ffe, 4), 0); /* over the buffer's end */
    put(&f, 0x0ffe, UINT32_MAX, 4);
    assert_int_equal(get(&f, 0x1000, 4), UINT32_MAX); /* no other locality */
    teardown(&f);
}

static void test_save_load(void **state)
{
    for (unsigned is_tis = 0; is_tis < 2; is_tis++) {
        struct fixture f;
        struct save save = {0};
        struct load load;
        uint32_t version;
        const struct device_ops *ops = is_tis ? &tpm_tis_ops : &tpm_crb_ops;
        setup(&f, is_tis);
        void *device = is_tis ? (void *)f.tis : (void *)f.crb;
        put(&f, is_tis ? 0 : 8, is_tis ? 2 : 1, 1);
        if (is_tis)
            tis_send(&f, 0, command, sizeof(command));
        else
            crb_send(&f, command, sizeof(command));
        respond(&f, 20);
        f.secret = 4711;
        save_begin(&save, ops->name, ops->version);
        ops->save(device, &save);
        save_end(&save);
        f.secret = 0;
        ops->reset(device);
        assert_int_equal(f.resets, 1);
        load_init(&load, save.bytes, save.size_bytes);
        assert_true(load_begin(&load, ops->name, &version));
        assert_true(ops->load(device, &load, version));
        assert_true(load_end(&load));
        assert_int_equal(f.secret, 4711);
        assert_int_equal(get(&f, is_tis ? 0x24 : 0x80, 1), 0x80);
        for (size_t i = 0; i < 60; i++) {
            save.bytes[i] ^= 0xff;
            load_init(&load, save.bytes, save.size_bytes);
            if (load_begin(&load, ops->name, &version))
                ops->load(device, &load, version);
            save.bytes[i] ^= 0xff;
        }
        save_free(&save);
        teardown(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tis_command), cmocka_unit_test(test_tis_sizes),
        cmocka_unit_test(test_tis_give_up), cmocka_unit_test(test_tis_localities),
        cmocka_unit_test(test_crb),         cmocka_unit_test(test_save_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
