/* SPDX-License-Identifier: BSD-2-Clause
 * The firmware configuration device through the bus, as firmware and test programs use it. */
#include "legacy.h"

#include "dev/fw_cfg.h"

#include <stdio.h>

enum { PORT = 0x510, DMA = 0x514, MEMORY_BYTES = 1 << 20, ACCESS_GPA = 0x1000 };

struct fixture {
    struct bus *bus;
    struct ram *ram;
    struct fw_cfg *fw;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->ram = ram_create(MEMORY_BYTES, NULL);
    const struct fw_cfg_config config = {.base = PORT, .ram = f->ram};
    f->fw = fw_cfg_create(&config, f->bus, NULL);
    assert_non_null(f->fw);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fw_cfg_ops.destroy(f->fw);
    ram_destroy(f->ram);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static void select_key(struct fixture *f, uint16_t key)
{
    bus_write(f->bus, BUS_PORT, PORT, key, 2);
}

static void read_item(struct fixture *f, uint16_t key, uint8_t *out, unsigned size_bytes)
{
    select_key(f, key);
    for (unsigned i = 0; i < size_bytes; i++)
        out[i] = in8(f->bus, PORT + 1);
}

static uint64_t read_number(struct fixture *f, uint16_t key, unsigned size_bytes)
{
    uint64_t value = 0;
    read_item(f, key, (uint8_t *)&value, size_bytes);
    return value;
}

static void test_signature(void **state)
{
    struct fixture *f = *state;
    uint8_t text[6];
    read_item(f, 0, text, 6);
    assert_memory_equal(text, "QEMU\0\0", 6); /* zeroes behind the end */
    assert_int_equal(read_number(f, 1, 4), 3);
    uint32_t first = (uint32_t)bus_read(f->bus, BUS_PORT, DMA, 4);
    uint32_t second = (uint32_t)bus_read(f->bus, BUS_PORT, DMA + 4, 4);
    assert_memory_equal(&first, "QEMU", 4);
    assert_memory_equal(&second, " CFG", 4);
}

static void test_items(void **state)
{
    struct fixture *f = *state;
    assert_true(fw_cfg_put_number(f->fw, FW_CFG_NB_CPUS, 3, 2));
    assert_true(fw_cfg_put_number(f->fw, FW_CFG_RAM_SIZE, UINT64_C(0x123456789a), 8));
    assert_int_equal(read_number(f, FW_CFG_NB_CPUS, 2), 3);
    assert_int_equal(read_number(f, FW_CFG_RAM_SIZE, 8), UINT64_C(0x123456789a));
    assert_int_equal(read_number(f, FW_CFG_NB_CPUS | 0x4000, 2), 3); /* the write channel's bit */
    assert_int_equal(read_number(f, 0x77, 4), 0);                    /* there is none */
    assert_true(fw_cfg_put_number(f->fw, FW_CFG_NB_CPUS, 5, 2));     /* replaced */
    assert_int_equal(read_number(f, FW_CFG_NB_CPUS, 2), 5);
    select_key(f, FW_CFG_NB_CPUS); /* byte writes are data and change nothing */
    out8(f->bus, PORT, 0);
    out8(f->bus, PORT + 1, 9);
    assert_int_equal(in8(f->bus, PORT + 1), 5);
}

static void test_directory(void **state)
{
    struct fixture *f = *state;
    uint8_t directory[4 + 3 * 64];
    assert_true(fw_cfg_put_file(f->fw, "etc/second", "22", 2));
    assert_true(fw_cfg_put_file(f->fw, "etc/first", "1", 1));
    assert_true(fw_cfg_put_file(f->fw, "etc/second", "234", 3)); /* the same file anew */
    read_item(f, FW_CFG_FILE_DIR, directory, sizeof(directory));
    static const uint8_t two[4] = {0, 0, 0, 2}, one_byte[4] = {0, 0, 0, 1};
    assert_memory_equal(directory, two, 4);
    assert_memory_equal(directory + 4, one_byte, 4);
    assert_string_equal((const char *)directory + 4 + 8, "etc/first");
    assert_string_equal((const char *)directory + 68 + 8, "etc/second");
    uint16_t key = (uint16_t)(directory[68 + 4] << 8 | directory[68 + 5]);
    assert_true(key >= FW_CFG_FILE_FIRST);
    uint8_t text[3];
    read_item(f, key, text, 3);
    assert_memory_equal(text, "234", 3);
    read_item(f, (uint16_t)(directory[8] << 8 | directory[9]), text, 2);
    assert_memory_equal(text, "1\0", 2);
}

static void be32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Runs one DMA access; returns the control word that the device leaves. */
static uint32_t run_dma(struct fixture *f, uint32_t control, uint32_t size_bytes, uint64_t gpa)
{
    uint8_t access[16];
    be32(access, control);
    be32(access + 4, size_bytes);
    be32(access + 8, (uint32_t)(gpa >> 32));
    be32(access + 12, (uint32_t)gpa);
    assert_true(ram_write(f->ram, ACCESS_GPA, access, sizeof(access)));
    bus_write(f->bus, BUS_PORT, DMA, 0, 4);
    bus_write(f->bus, BUS_PORT, DMA + 4, __builtin_bswap32(ACCESS_GPA), 4);
    uint32_t left;
    assert_true(ram_read(f->ram, ACCESS_GPA, &left, sizeof(left)));
    return __builtin_bswap32(left);
}

static void test_dma(void **state)
{
    struct fixture *f = *state;
    uint8_t out[8];
    assert_true(fw_cfg_put(f->fw, FW_CFG_SETUP_DATA, "abcdefgh", 8));
    memset(out, 0xee, sizeof(out));
    assert_true(ram_write(f->ram, 0x2000, out, 8));
    assert_int_equal(run_dma(f, FW_CFG_SETUP_DATA << 16 | 8 | 2, 3, 0x2000), 0);
    assert_true(ram_read(f->ram, 0x2000, out, 8));
    assert_memory_equal(out, "abc\xee\xee\xee\xee\xee", 8);
    assert_int_equal(run_dma(f, 4, 2, 0), 0);      /* skip */
    assert_int_equal(run_dma(f, 2, 6, 0x2000), 0); /* goes on, zeroes behind the end */
    assert_true(ram_read(f->ram, 0x2000, out, 8));
    assert_memory_equal(out, "fgh\0\0\0\xee\xee", 8);
    assert_int_equal(run_dma(f, FW_CFG_SETUP_DATA << 16 | 8, 0, 0), 0); /* select only */
    assert_int_equal(in8(f->bus, PORT + 1), 'a');
    assert_int_equal(run_dma(f, 16, 1, 0x2000), 1);         /* no item can be written */
    assert_int_equal(run_dma(f, 2, 1, MEMORY_BYTES), 1);    /* no memory there */
    assert_int_equal(run_dma(f, 2, UINT32_MAX, 0x2000), 1); /* nor that much */
    assert_int_equal(run_dma(f, 2, 2, UINT64_MAX), 1);      /* nor around the end */
    bus_write(f->bus, BUS_PORT, DMA + 4, 0xffffffff, 4);    /* a structure that is nowhere */
}

static bool read_source(void *opaque, uint64_t offset, void *buffer, size_t size_bytes)
{
    unsigned *calls = opaque;
    ++*calls;
    for (size_t i = 0; i < size_bytes; i++)
        ((uint8_t *)buffer)[i] = (uint8_t)(offset + i);
    return offset + size_bytes <= 200; /* what is behind can't be read */
}

static void test_source(void **state)
{
    struct fixture *f = *state;
    unsigned calls = 0;
    uint8_t out[256];
    assert_true(fw_cfg_put_source(f->fw, FW_CFG_KERNEL_DATA, 256, read_source, &calls));
    assert_int_equal(run_dma(f, FW_CFG_KERNEL_DATA << 16 | 8 | 2, 100, 0x3000), 0);
    assert_int_equal(run_dma(f, 2, 100, 0x3064), 0);
    assert_true(ram_read(f->ram, 0x3000, out, 200));
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(out[i], i);
    assert_int_equal(calls, 2);
    assert_int_equal(run_dma(f, 2, 10, 0x3000), 1);
}

static void test_save(void **state)
{
    struct fixture *f = *state;
    assert_true(fw_cfg_put(f->fw, FW_CFG_SETUP_DATA, "abcdefgh", 8));
    select_key(f, FW_CFG_SETUP_DATA);
    assert_int_equal(in8(f->bus, PORT + 1), 'a');
    save_and_load(&fw_cfg_ops, f->fw, f->fw);
    assert_int_equal(in8(f->bus, PORT + 1), 'b');
    assert_true(load_mutations(&fw_cfg_ops, f->fw, 100) > 0);
    hostile_ports(f->bus, PORT - 4, 24);
}

/* One item more than there is room for is refused, and nothing is lost. */
static void test_full(void **state)
{
    struct fixture *f = *state;
    unsigned count = 0;
    char name[32];
    do
        snprintf(name, sizeof(name), "opt/%u", count);
    while (fw_cfg_put_file(f->fw, name, name, strlen(name)) && ++count < 1000);
    assert_true(count > 20 && count < 1000);
    assert_int_equal(read_number(f, 1, 4), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_signature, setup, teardown),
        cmocka_unit_test_setup_teardown(test_items, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
        cmocka_unit_test_setup_teardown(test_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
