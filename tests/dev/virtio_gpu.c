/* SPDX-License-Identifier: BSD-2-Clause
 * virtio-gpu: display info and EDID, resources of all formats, what is flushed and what is not,
 * cursor, limits, hostile commands, saving. */
#include "dev/virtio_driver.h"

#include "dev/canvas.h"
#include "dev/legacy.h"
#include "dev/virtio/gpu.h"

enum { SLOT = 3, WIDTH = 64, HEIGHT = 48 };

enum {
    GET_DISPLAY_INFO = 0x100,
    CREATE_2D,
    UNREF,
    SET_SCANOUT,
    FLUSH,
    TRANSFER,
    ATTACH,
    DETACH,
    GET_EDID = 0x10a,
    UPDATE_CURSOR = 0x300,
    MOVE_CURSOR,
    OK_NODATA = 0x1100,
    OK_DISPLAY_INFO,
    OK_EDID = 0x1104,
    ERR_UNSPEC = 0x1200,
    ERR_OUT_OF_MEMORY,
    ERR_SCANOUT,
    ERR_RESOURCE,
    ERR_PARAMETER = 0x1205,
};

struct fixture {
    struct vd_machine m;
    struct vd d;
    struct virtio_device *device;
    struct virtio_pci *pci;
    struct canvas canvas;
    uint64_t request, answer, pixels; /* gpa */
};

static void start(struct fixture *f)
{
    vd_open(&f->d, &f->m, SLOT);
    vd_negotiate(&f->d, VIRTIO_F_VERSION_1 | 2);
    vd_queue_setup(&f->d, 0, 16);
    vd_queue_setup(&f->d, 1, 16);
    vd_start(&f->d);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};
    vd_machine_init(&f->m, 16 << 20);
    const struct virtio_gpu_config config = {
        .ram = f->m.ram, .loop = f->m.loop, .log = &f->m.log, .width = 1024, .height = 768};
    f->device = virtio_gpu_create(&config, &err);
    assert_non_null(f->device);
    const struct virtio_pci_config pci = {.pci = f->m.pci, .slot = SLOT, .msi = vd_msi(&f->m)};
    f->pci = virtio_pci_create(&pci, f->device, &err);
    assert_non_null(f->pci);
    vd_boot(&f->m);
    start(f);
    f->request = vd_alloc(&f->m, 4096, 4096);
    f->answer = vd_alloc(&f->m, 4096, 4096);
    f->pixels = vd_alloc(&f->m, WIDTH * HEIGHT * 4, 4096);
    canvas_init(&f->canvas);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    virtio_pci_ops.destroy(f->pci);
    canvas_free(&f->canvas);
    vd_machine_free(&f->m);
    free(f);
    return 0;
}

/* Sends `count` words behind the header; gives the answer's type. */
static uint32_t command_on(struct fixture *f, unsigned queue, uint32_t type, const uint32_t *words,
                           unsigned count)
{
    uint16_t id;
    uint32_t length;
    uint64_t fence = type * UINT64_C(0x100000001);
    vd_put(&f->m, f->request, type | UINT64_C(1) << 32, 8); /* fenced */
    vd_put(&f->m, f->request + 8, fence, 8);
    vd_put(&f->m, f->request + 16, 7, 8);
    for (unsigned i = 0; i < count; i++)
        vd_put(&f->m, f->request + 24 + 4 * i, words[i], 4);
    const struct vd_buffer buffers[] = {{f->request, 24 + 4 * count, false},
                                        {f->answer, 2048, true}};
    vd_add(&f->d, queue, buffers, 2, false);
    vd_kick(&f->d, queue);
    assert_true(vd_used(&f->d, queue, &id, &length));
    assert_true(length >= 24);
    assert_int_equal(vd_get(&f->m, f->answer + 4, 4), 1);
    assert_int_equal(vd_get(&f->m, f->answer + 8, 8), fence);
    assert_int_equal(vd_get(&f->m, f->answer + 16, 4), 7);
    return (uint32_t)vd_get(&f->m, f->answer, 4);
}

#define COMMAND(f, type, ...)                                                                      \
    command_on(f, 0, type, (const uint32_t[]){__VA_ARGS__},                                        \
               sizeof((const uint32_t[]){__VA_ARGS__}) / 4)
#define CURSOR(f, type, ...)                                                                       \
    command_on(f, 1, type, (const uint32_t[]){__VA_ARGS__},                                        \
               sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

static unsigned refresh(struct fixture *f)
{
    return canvas_refresh(&f->canvas, virtio_gpu_display(f->device), false);
}

/* A resource of WIDTH by HEIGHT whose backing is f->pixels, shown. */
static void show(struct fixture *f, uint32_t id, uint32_t format)
{
    assert_int_equal(COMMAND(f, CREATE_2D, id, format, WIDTH, HEIGHT), OK_NODATA);
    assert_int_equal(COMMAND(f, ATTACH, id, 1, (uint32_t)f->pixels, 0, WIDTH * HEIGHT * 4, 0),
                     OK_NODATA);
    assert_int_equal(COMMAND(f, SET_SCANOUT, 0, 0, WIDTH, HEIGHT, 0, id), OK_NODATA);
}

static void put_pixel(struct fixture *f, uint32_t x, uint32_t y, uint32_t value)
{
    vd_put(&f->m, f->pixels + (y * WIDTH + x) * 4, value, 4);
}

static void test_display_info(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(vd_config_read(&f->m, SLOT, PCI_DEVICE, 2), 0x1050);
    assert_int_equal(vd_read(&f->d, f->d.config + 8, 4), 1);
    assert_int_equal(COMMAND(f, GET_DISPLAY_INFO, 0), OK_DISPLAY_INFO);
    assert_int_equal(vd_get(&f->m, f->answer + 24 + 8, 4), 1024);
    assert_int_equal(vd_get(&f->m, f->answer + 24 + 12, 4), 768);
    assert_int_equal(vd_get(&f->m, f->answer + 24 + 16, 4), 1);
    assert_int_equal(vd_get(&f->m, f->answer + 48 + 16, 4), 0);
    assert_int_equal(COMMAND(f, GET_EDID, 0, 0), OK_EDID);
    assert_int_equal(vd_get(&f->m, f->answer + 24, 4), 128);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 128; i++)
        sum = (uint8_t)(sum + vd_get(&f->m, f->answer + 32 + i, 1));
    assert_int_equal(sum, 0);
    assert_int_equal(COMMAND(f, GET_EDID, 1, 0), ERR_SCANOUT);
    /* The viewer's window has another size. */
    const struct display_source *source = virtio_gpu_display(f->device);
    source->suggest_size(source->opaque, 800, 600);
    assert_int_equal(vd_read(&f->d, f->d.config, 4), 1);
    assert_int_equal(COMMAND(f, GET_DISPLAY_INFO, 0), OK_DISPLAY_INFO);
    assert_int_equal(vd_get(&f->m, f->answer + 24 + 8, 4), 800);
    vd_write(&f->d, f->d.config + 4, 1, 4);
    assert_int_equal(vd_read(&f->d, f->d.config, 4), 0);
    source->suggest_size(source->opaque, 100000, 1);
    assert_int_equal(vd_read(&f->d, f->d.config, 4), 0);
}

/* Bytes 11 22 33 44 in each format, as red, green and blue (virtio 1.2, 5.7.6.8). */
static void test_formats(void **state)
{
    static const struct {
        uint32_t format, shown;
    } formats[] = {{1, 0x332211},  {2, 0x332211},  {3, 0x223344},   {4, 0x223344},
                   {67, 0x112233}, {68, 0x443322}, {121, 0x443322}, {134, 0x112233}};
    struct fixture *f = *state;
    put_pixel(f, 5, 7, 0x44332211);
    for (uint32_t i = 0; i < 8; i++) {
        show(f, 10 + i, formats[i].format);
        assert_int_equal(COMMAND(f, TRANSFER, 0, 0, WIDTH, HEIGHT, 0, 0, 10 + i, 0), OK_NODATA);
        refresh(f);
        assert_int_equal(f->canvas.c.width, WIDTH);
        assert_int_equal(f->canvas.c.height, HEIGHT);
        assert_int_equal(canvas_at(&f->canvas, 5, 7), formats[i].shown);
        assert_int_equal(canvas_at(&f->canvas, 6, 7), 0);
    }
    assert_int_equal(COMMAND(f, CREATE_2D, 99, 5, 8, 8), ERR_OUT_OF_MEMORY);
}

static void test_flush(void **state)
{
    struct fixture *f = *state;
    show(f, 1, 2);
    assert_int_equal(refresh(f), 1);
    put_pixel(f, 20, 10, 0xabcdef);
    put_pixel(f, 30, 12, 0x123456);
    assert_int_equal(refresh(f), 0);
    /* Fetched but not flushed: not seen. The offset is that of the rectangle's first pixel. */
    uint32_t offset = (10 * WIDTH + 16) * 4;
    assert_int_equal(COMMAND(f, TRANSFER, 16, 10, 8, 4, offset, 0, 1, 0), OK_NODATA);
    assert_int_equal(refresh(f), 0);
    assert_int_equal(COMMAND(f, FLUSH, 20, 10, 2, 2, 1, 0), OK_NODATA);
    assert_int_equal(refresh(f), 1);
    assert_memory_equal(&f->canvas.last, (&(struct display_rectangle){20, 10, 2, 2}), 16);
    assert_int_equal(canvas_at(&f->canvas, 20, 10), 0xabcdef);
    assert_int_equal(canvas_at(&f->canvas, 30, 12), 0); /* was not in the rectangle */
    /* A part of the resource alone; two flushes are one rectangle. */
    assert_int_equal(COMMAND(f, SET_SCANOUT, 16, 8, 32, 32, 0, 1), OK_NODATA);
    refresh(f);
    assert_int_equal(f->canvas.c.width, 32);
    assert_int_equal(canvas_at(&f->canvas, 4, 2), 0xabcdef);
    assert_int_equal(COMMAND(f, FLUSH, 0, 0, 20, 9, 1, 0), OK_NODATA);
    assert_int_equal(COMMAND(f, FLUSH, 20, 10, 1, 1, 1, 0), OK_NODATA);
    assert_int_equal(refresh(f), 1);
    assert_memory_equal(&f->canvas.last, (&(struct display_rectangle){0, 0, 5, 3}), 16);
    /* Off: black, in the monitor's own size. */
    assert_int_equal(COMMAND(f, SET_SCANOUT, 0, 0, 0, 0, 0, 0), OK_NODATA);
    assert_int_equal(refresh(f), 1);
    assert_int_equal(f->canvas.c.width, 1024);
    assert_int_equal(refresh(f), 0);
}

/* Backing in pieces that end in the middle of pixels, one of them no memory. */
static void test_pieces(void **state)
{
    struct fixture *f = *state;
    uint32_t a = (uint32_t)f->pixels;
    assert_int_equal(COMMAND(f, CREATE_2D, 1, 2, WIDTH, 2), OK_NODATA);
    for (unsigned i = 0; i < WIDTH * 2 * 4; i++)
        vd_put(&f->m, f->pixels + 1024 + i, i & 0xff, 1);
    assert_int_equal(COMMAND(f, ATTACH, 1, 4, a + 1024, 0, 5, 0, a + 1029, 0, 0, 0, a + 1029, 0,
                             251, 0, 0xfffff000, 0xffffffff, 256, 0),
                     OK_NODATA);
    assert_int_equal(COMMAND(f, ATTACH, 1, 0), ERR_UNSPEC); /* has one already */
    assert_int_equal(COMMAND(f, TRANSFER, 0, 0, WIDTH, 2, 0, 0, 1, 0), OK_NODATA);
    assert_int_equal(COMMAND(f, SET_SCANOUT, 0, 0, WIDTH, 2, 0, 1), OK_NODATA);
    refresh(f);
    for (uint32_t x = 0; x < WIDTH; x++) {
        assert_int_equal(canvas_at(&f->canvas, x, 0), 0x020100 + 0x040404 * x);
        assert_int_equal(canvas_at(&f->canvas, x, 1), 0);
    }
    assert_int_equal(COMMAND(f, DETACH, 1, 0), OK_NODATA);
    assert_int_equal(COMMAND(f, TRANSFER, 0, 0, WIDTH, 2, 0, 0, 1, 0), ERR_UNSPEC);
    /* The resource that is shown goes: the screen is off. */
    assert_int_equal(COMMAND(f, UNREF, 1, 0), OK_NODATA);
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, 3, 0), 0);
    assert_int_equal(COMMAND(f, UNREF, 1, 0), ERR_RESOURCE);
}

static void test_cursor(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(COMMAND(f, CREATE_2D, 5, 1, 64, 64), OK_NODATA);
    vd_put(&f->m, f->pixels, 0x80402010, 4);
    assert_int_equal(COMMAND(f, ATTACH, 5, 1, (uint32_t)f->pixels, 0, 64 * 48 * 4, 0), OK_NODATA);
    assert_int_equal(COMMAND(f, TRANSFER, 0, 0, 64, 48, 0, 0, 5, 0), OK_NODATA);
    assert_int_equal(CURSOR(f, UPDATE_CURSOR, 0, 100, 50, 0, 5, 3, 4, 0), OK_NODATA);
    refresh(f);
    assert_int_equal(f->canvas.cursors, 1);
    assert_int_equal(f->canvas.cursor.x, 100);
    assert_int_equal(f->canvas.cursor.hot_y, 4);
    assert_int_equal(f->canvas.cursor_pixels[0], 0x80402010);
    assert_int_equal(CURSOR(f, MOVE_CURSOR, 0, 101, 51, 0, 5, 0, 0, 0), OK_NODATA);
    refresh(f);
    assert_int_equal(f->canvas.cursors, 0);
    assert_int_equal(CURSOR(f, UPDATE_CURSOR, 0, 100, 50, 0, 0, 0, 0, 0), OK_NODATA);
    refresh(f);
    assert_null(f->canvas.cursor.pixels);
    assert_int_equal(CURSOR(f, UPDATE_CURSOR, 0, 0, 0, 0, 77, 0, 0, 0), ERR_RESOURCE);
    assert_int_equal(CURSOR(f, UPDATE_CURSOR, 2, 0, 0, 0, 5, 0, 0, 0), ERR_SCANOUT);
    assert_int_equal(CURSOR(f, CREATE_2D, 6, 1, 8, 8, 0, 0, 0, 0), ERR_UNSPEC);
}

static void test_limits(void **state)
{
    struct fixture *f = *state;
    /* 256 MiB and not one byte more. */
    for (uint32_t id = 1; id <= 4; id++)
        assert_int_equal(COMMAND(f, CREATE_2D, id, 1, 4096, 4096), OK_NODATA);
    assert_int_equal(COMMAND(f, CREATE_2D, 5, 1, 1, 1), ERR_OUT_OF_MEMORY);
    assert_int_equal(COMMAND(f, ATTACH, 1, 1, 0, 0, 4096, 0), ERR_UNSPEC);
    assert_int_equal(COMMAND(f, UNREF, 2, 0), OK_NODATA);
    assert_int_equal(COMMAND(f, CREATE_2D, 5, 1, 1, 1), OK_NODATA);
    for (uint32_t id = 6; id < 6 + 1020; id++)
        assert_int_equal(COMMAND(f, CREATE_2D, id, 1, 1, 1), OK_NODATA);
    assert_int_equal(COMMAND(f, CREATE_2D, 5000, 1, 1, 1), ERR_OUT_OF_MEMORY);
    /* A reset gives all of it back. */
    vd_reset(&f->d);
    start(f);
    for (uint32_t id = 1; id <= 4; id++)
        assert_int_equal(COMMAND(f, CREATE_2D, id, 1, 4096, 4096), OK_NODATA);
}

static void test_hostile(void **state)
{
    static const uint32_t odd[] = {0,          1,          2,          3,         WIDTH - 1,
                                   WIDTH,      HEIGHT,     8192,       16384,     16385,
                                   0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    static const uint32_t types[] = {CREATE_2D, UNREF,  SET_SCANOUT, FLUSH,         TRANSFER,
                                     ATTACH,    DETACH, GET_EDID,    UPDATE_CURSOR, 0x7777};
    struct fixture *f = *state;
    uint32_t seed = 7, words[12];
    show(f, 1, 1);
    assert_int_equal(COMMAND(f, CREATE_2D, 1, 1, 1, 1), ERR_RESOURCE);
    assert_int_equal(COMMAND(f, CREATE_2D, 0, 1, 1, 1), ERR_RESOURCE);
    assert_int_equal(COMMAND(f, CREATE_2D, 2, 1, 0xffffffff, 0xffffffff), ERR_OUT_OF_MEMORY);
    assert_int_equal(COMMAND(f, TRANSFER, 0xffffffff, 0, 2, 1, 0, 0, 1, 0), ERR_PARAMETER);
    assert_int_equal(COMMAND(f, FLUSH, 1, 1, WIDTH, 1, 1, 0), ERR_PARAMETER);
    assert_int_equal(COMMAND(f, SET_SCANOUT, 0, 0, WIDTH + 1, 1, 0, 1), ERR_PARAMETER);
    assert_int_equal(COMMAND(f, ATTACH, 1, 0x10000001, 0), ERR_PARAMETER);
    assert_int_equal(COMMAND(f, CREATE_2D, 1), ERR_PARAMETER); /* cut short */
    for (unsigned round = 0; round < 20000; round++) {
        for (unsigned i = 0; i < 12; i++) {
            seed = seed * 1664525 + 1013904223;
            words[i] = odd[(seed >> 16) % 14];
        }
        seed = seed * 1664525 + 1013904223;
        command_on(f, seed >> 30 == 0, types[(seed >> 8) % 10], words, 4 + (seed >> 20) % 9);
        if (round % 64 == 0)
            refresh(f);
    }
}

static void test_save(void **state)
{
    struct fixture *f = *state;
    show(f, 1, 2);
    put_pixel(f, 1, 1, 0x0a0b0c);
    assert_int_equal(COMMAND(f, TRANSFER, 0, 0, WIDTH, HEIGHT, 0, 0, 1, 0), OK_NODATA);
    save_and_load(&virtio_pci_ops, f->pci, f->pci);
    refresh(f);
    assert_int_equal(f->canvas.c.width, WIDTH);
    assert_int_equal(canvas_at(&f->canvas, 1, 1), 0x0a0b0c);
    /* The backing is still known, and the rings go on. */
    put_pixel(f, 2, 1, 0x112233);
    assert_int_equal(COMMAND(f, TRANSFER, 0, 0, WIDTH, HEIGHT, 0, 0, 1, 0), OK_NODATA);
    assert_int_equal(COMMAND(f, FLUSH, 0, 0, WIDTH, HEIGHT, 1, 0), OK_NODATA);
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, 2, 1), 0x112233);
}

/* A driver that fills the ring as fast as it is served does not keep the device. */
static void test_busy_driver(void **state)
{
    struct fixture *f = *state;
    const struct vd_buffer buffers[] = {{f->request, 24, false}, {f->answer, 2048, true}};
    vd_put(&f->m, f->request, GET_DISPLAY_INFO, 8);
    vd_add(&f->d, 0, buffers, 2, false);
    vd_check_turns(&f->d, 0);
    assert_int_equal(vd_get(&f->m, f->answer, 4), OK_DISPLAY_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_display_info, setup, teardown),
        cmocka_unit_test_setup_teardown(test_formats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cursor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save, setup, teardown),
        cmocka_unit_test_setup_teardown(test_busy_driver, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
