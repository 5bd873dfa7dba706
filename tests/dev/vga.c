/* SPDX-License-Identifier: BSD-2-Clause
 * VGA: IBM's standard modes pixel by pixel, write and read modes, panning and split screen, the
 * Bochs interface, EDID, saving, and that no value of any register does harm. */
#include "dev/virtio_driver.h"

#include "dev/canvas.h"
#include "dev/legacy.h"
#include "dev/vga/vga.h"

enum { SLOT = 24, PORT_BASE = 0x3b0, DISPI_PORT = 0x1ce, WINDOW = 0xa0000, MEMORY = 1 << 20 };

struct fixture {
    struct vd_machine m;
    struct clock *clock;
    struct vga *vga;
    struct canvas canvas;
    bool frame_written; /* since the device has asked */
};

static struct vga *make(struct fixture *f, unsigned slot)
{
    struct error err = {0};
    const struct vga_config config = {
        .pci = f->m.pci,
        .slot = slot,
        .vga_port = PORT_BASE,
        .dispi_port = DISPI_PORT,
        .window_base = WINDOW,
        .memory_bytes = MEMORY,
        .width = 1280,
        .height = 800,
        .clock = f->clock,
        .physmap = f->m.physmap,
    };
    return vga_create(&config, &err);
}

/* What an engine does. */
static bool set_memory(void *opaque, const struct physmap_range *ranges, unsigned count,
                       struct error *err)
{
    return true;
}

static void take_written(void *opaque, const uint8_t *hva, uint64_t size_bytes, uint64_t *pages)
{
    struct fixture *f = opaque;
    if (f->frame_written)
        memset(pages, 0xff, (size_bytes / RAM_PAGE_BYTES + 63) / 64 * 8);
    f->frame_written = false;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};
    vd_machine_init(&f->m, 4 << 20);
    const struct physmap_listener listener = {set_memory, take_written, f};
    assert_true(physmap_set_listener(f->m.physmap, &listener, &err));
    f->clock = clock_create(&err);
    /* The cursor's phase and the beam stand still. */
    clock_pause(f->clock);
    clock_set_ns(f->clock, 0);
    f->vga = make(f, SLOT);
    assert_non_null(f->vga);
    vd_boot(&f->m);
    canvas_init(&f->canvas);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    vga_ops.destroy(f->vga);
    canvas_free(&f->canvas);
    clock_destroy(f->clock);
    vd_machine_free(&f->m);
    free(f);
    return 0;
}

/* ---- modes as a VGA BIOS sets them (IBM's VGA reference, the BIOS parameter tables) ---- */

struct mode {
    uint8_t misc;
    uint8_t seq[5], crtc[25], graphics[9], attribute[21];
};

static const struct mode text_80x25 = {
    0x67,
    {0x03, 0x00, 0x03, 0x00, 0x02},
    {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
     0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00},
};
static const struct mode mode_13h = {
    0x63,
    {0x03, 0x01, 0x0f, 0x00, 0x0e},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0f, 0xff},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a,
     0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x41, 0x00, 0x0f, 0x00, 0x00},
};
static const struct mode mode_12h = {
    0xe3,
    {0x03, 0x01, 0x0f, 0x00, 0x06},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
     0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0x00, 0x0f, 0x00, 0x00},
};
static const struct mode mode_4 = {
    0x63,
    {0x03, 0x09, 0x03, 0x00, 0x02},
    {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x0f, 0x00, 0xff},
    {0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12,
     0x13, 0x14, 0x15, 0x16, 0x17, 0x01, 0x00, 0x03, 0x00, 0x00},
};
static const struct mode mode_dh = {
    0x63,
    {0x03, 0x09, 0x0f, 0x00, 0x06},
    {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc0, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xe3, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12,
     0x13, 0x14, 0x15, 0x16, 0x17, 0x01, 0x00, 0x0f, 0x00, 0x00},
};

static void put_indexed(struct fixture *f, uint16_t port, uint8_t index, uint8_t value)
{
    /* Index and data in one access, as most programs do it. */
    bus_write(f->m.bus, BUS_PORT, port, index | (unsigned)value << 8, 2);
}

static void put_attribute(struct fixture *f, uint8_t index, uint8_t value)
{
    in8(f->m.bus, 0x3da);
    out8(f->m.bus, 0x3c0, index);
    out8(f->m.bus, 0x3c0, value);
    in8(f->m.bus, 0x3da);
    out8(f->m.bus, 0x3c0, 0x20);
}

/* DAC entry n is (n, 63 - n / 4, n ^ 21) of 6 bits: all different enough to be told. */
static void put_palette(struct fixture *f)
{
    out8(f->m.bus, 0x3c6, 0xff);
    out8(f->m.bus, 0x3c8, 0);
    for (unsigned i = 0; i < 256; i++) {
        out8(f->m.bus, 0x3c9, i & 63);
        out8(f->m.bus, 0x3c9, (uint8_t)(63 - i / 4));
        out8(f->m.bus, 0x3c9, (i ^ 21) & 63);
    }
}

static uint32_t widen(unsigned value)
{
    return value << 2 | value >> 4;
}

/* What DAC entry n looks like. */
static uint32_t color(unsigned n)
{
    return widen(n & 63) << 16 | widen(63 - n / 4) << 8 | widen((n ^ 21) & 63);
}

static void set_mode(struct fixture *f, const struct mode *mode)
{
    struct bus *bus = f->m.bus;
    out8(bus, 0x3c2, mode->misc);
    for (unsigned i = 0; i < 5; i++)
        put_indexed(f, 0x3c4, (uint8_t)i, mode->seq[i]);
    put_indexed(f, 0x3d4, 0x11, 0); /* takes the protection away */
    for (unsigned i = 0; i < 25; i++)
        put_indexed(f, 0x3d4, (uint8_t)i, mode->crtc[i]);
    for (unsigned i = 0; i < 9; i++)
        put_indexed(f, 0x3ce, (uint8_t)i, mode->graphics[i]);
    in8(bus, 0x3da);
    for (unsigned i = 0; i < 21; i++) {
        out8(bus, 0x3c0, (uint8_t)i);
        out8(bus, 0x3c0, mode->attribute[i]);
    }
    out8(bus, 0x3c0, 0x20);
    put_palette(f);
}

/* As a processor: memory first. */
static void poke(struct fixture *f, uint64_t address, uint64_t value, unsigned size_bytes)
{
    struct physmap_range range;
    if (physmap_find(f->m.physmap, address, &range) && range.hva && address >= 0x400000 &&
        address - range.gpa + size_bytes <= range.size_bytes) {
        memcpy(range.hva + (address - range.gpa), &value, size_bytes);
        f->frame_written = true;
        return;
    }
    bus_write(f->m.bus, BUS_MMIO, address, value, size_bytes);
}

static uint64_t peek(struct fixture *f, uint64_t address, unsigned size_bytes)
{
    struct physmap_range range;
    uint64_t value = 0;
    if (physmap_find(f->m.physmap, address, &range) && range.hva && address >= 0x400000 &&
        address - range.gpa + size_bytes <= range.size_bytes) {
        memcpy(&value, range.hva + (address - range.gpa), size_bytes);
        return value;
    }
    return bus_read(f->m.bus, BUS_MMIO, address, size_bytes);
}

static void refresh(struct fixture *f)
{
    canvas_refresh(&f->canvas, vga_display(f->vga), false);
}

static void check_size(const struct fixture *f, uint32_t width, uint32_t height)
{
    assert_int_equal(f->canvas.c.width, width);
    assert_int_equal(f->canvas.c.height, height);
}

/* ---- text ---- */

/* Rows of character n are n, n ^ 1, n ^ 2 …: as a BIOS writes fonts into plane 2. */
static void put_font(struct fixture *f, unsigned base)
{
    put_indexed(f, 0x3c4, 2, 4);
    put_indexed(f, 0x3c4, 4, 7);
    put_indexed(f, 0x3ce, 5, 0);
    put_indexed(f, 0x3ce, 6, 4);
    for (unsigned i = 0; i < 256; i++)
        for (unsigned row = 0; row < 16; row++)
            poke(f, WINDOW + base + i * 32 + row, i ^ row, 1);
    put_indexed(f, 0x3c4, 2, 3);
    put_indexed(f, 0x3c4, 4, 2);
    put_indexed(f, 0x3ce, 5, 0x10);
    put_indexed(f, 0x3ce, 6, 0x0e);
}

static void put_cell(struct fixture *f, unsigned column, unsigned row, uint8_t character,
                     uint8_t attribute)
{
    poke(f, 0xb8000 + 2 * (row * 80 + column), character | attribute << 8, 2);
}

/* The DAC entry of one of the text colours, by mode 3's palette. */
static unsigned text_color(unsigned attribute)
{
    return text_80x25.attribute[attribute & 15];
}

static void check_cell(struct fixture *f, unsigned dots, unsigned column, unsigned row,
                       uint8_t character, uint8_t attribute)
{
    for (unsigned y = 0; y < 16; y++) {
        for (unsigned x = 0; x < dots; x++) {
            unsigned bits = (character ^ y) & 0xff;
            bool is_set = x < 8 ? bits >> (7 - x) & 1 : (character & 0xe0) == 0xc0 && (bits & 1);
            unsigned expected = is_set ? attribute & 15 : attribute >> 4 & 7;
            assert_int_equal(canvas_at(&f->canvas, column * dots + x, row * 16 + y),
                             color(text_color(expected)));
        }
    }
}

static void test_text(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &text_80x25);
    put_font(f, 0);
    put_indexed(f, 0x3d4, 0x0a, 0x20); /* no cursor */
    put_cell(f, 0, 0, 'A', 0x1e);
    put_cell(f, 79, 24, 0xdb, 0x4f); /* line graphics: the ninth dot is the eighth */
    put_cell(f, 3, 7, 0x61, 0x07);
    refresh(f);
    check_size(f, 720, 400);
    check_cell(f, 9, 0, 0, 'A', 0x1e);
    check_cell(f, 9, 79, 24, 0xdb, 0x4f);
    check_cell(f, 9, 3, 7, 0x61, 0x07);
    assert_int_equal(peek(f, 0xb8000, 2), 'A' | 0x1e << 8);
    assert_int_equal(peek(f, 0xb8000 + 2 * (7 * 80 + 3) + 1, 1), 0x07);
    /* Nothing new: nothing drawn. Then one cell alone. */
    assert_int_equal(canvas_refresh(&f->canvas, vga_display(f->vga), false), 0);
    put_cell(f, 10, 5, 0xff, 0x0f);
    assert_int_equal(canvas_refresh(&f->canvas, vga_display(f->vga), false), 1);
    assert_true(f->canvas.all.x >= 90 && f->canvas.all.x + f->canvas.all.width <= 99);
    assert_true(f->canvas.all.y >= 80 && f->canvas.all.y + f->canvas.all.height <= 96);
}

static void test_text_eight_dots_and_fonts(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &text_80x25);
    put_font(f, 0x4000);
    put_indexed(f, 0x3c4, 1, 0x01);
    put_indexed(f, 0x3c4, 3, 0x05); /* both maps are the second font */
    put_indexed(f, 0x3d4, 0x0a, 0x20);
    put_cell(f, 1, 1, 0x5a, 0x0f);
    refresh(f);
    check_size(f, 640, 400);
    check_cell(f, 8, 1, 1, 0x5a, 0x0f);
    put_indexed(f, 0x3c4, 3, 0x04); /* only bit 3 of an attribute gives it; the first is empty */
    put_cell(f, 2, 1, 0x5a, 0x07);
    refresh(f);
    check_cell(f, 8, 1, 1, 0x5a, 0x0f);
    for (unsigned x = 16; x < 24; x++)
        assert_int_equal(canvas_at(&f->canvas, x, 20), color(0));
}

static void test_text_cursor_and_blink(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &text_80x25);
    put_font(f, 0);
    put_cell(f, 5, 2, 0, 0x07);
    put_cell(f, 6, 2, 0xff, 0x87); /* blinks */
    put_indexed(f, 0x3d4, 0x0e, 0);
    put_indexed(f, 0x3d4, 0x0f, 2 * 80 + 5);
    refresh(f);
    /* The cursor has rows 13 and 14, and is on in the first phase. */
    assert_int_equal(canvas_at(&f->canvas, 5 * 9, 2 * 16 + 13), color(text_color(7)));
    assert_int_equal(canvas_at(&f->canvas, 5 * 9, 2 * 16 + 12), color(text_color(0)));
    assert_int_equal(canvas_at(&f->canvas, 6 * 9, 2 * 16), color(text_color(7)));
    clock_set_ns(f->clock, 300000000);
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, 5 * 9, 2 * 16 + 13), color(text_color(0)));
    assert_int_equal(canvas_at(&f->canvas, 6 * 9, 2 * 16), color(text_color(0)));
    /* Without blinking bit 7 is a background colour. */
    put_attribute(f, 0x10, 0x04);
    put_cell(f, 7, 2, 0, 0x97);
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, 7 * 9, 2 * 16), color(text_color(9)));
}

/* ---- graphics ---- */

static void test_13h(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &mode_13h);
    for (unsigned y = 0; y < 200; y++)
        for (unsigned x = 0; x < 320; x += 4)
            poke(f, WINDOW + y * 320 + x, 0x03020100u + (x + y) % 200 * 0x01010101u, 4);
    refresh(f);
    check_size(f, 640, 400);
    for (unsigned y = 0; y < 400; y += 37)
        for (unsigned x = 0; x < 640; x += 7)
            assert_int_equal(canvas_at(&f->canvas, x, y),
                             color((x / 2 / 4 * 4 + y / 2) % 200 + x / 2 % 4));
    assert_int_equal(peek(f, WINDOW + 321, 1), 2);
    /* The upper half of the window doesn't answer, nor b8000. */
    assert_int_equal(peek(f, 0xb0000, 1), 0xff);
}

/* Unchained: pages, panning by a pixel, a split screen. */
static void test_mode_x(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &mode_13h);
    put_indexed(f, 0x3c4, 4, 0x06);
    put_indexed(f, 0x3d4, 0x14, 0x00);
    put_indexed(f, 0x3d4, 0x17, 0xe3);
    for (unsigned plane = 0; plane < 4; plane++) {
        put_indexed(f, 0x3c4, 2, (uint8_t)(1 << plane));
        for (unsigned i = 0; i < 80; i++) {
            poke(f, WINDOW + i, i + plane, 1);                /* the first page's first line */
            poke(f, WINDOW + 0x4000 + i, 100 + i + plane, 1); /* the second's */
        }
    }
    put_indexed(f, 0x3d4, 0x0c, 0x40);
    refresh(f);
    check_size(f, 640, 400);
    assert_int_equal(canvas_at(&f->canvas, 0, 0), color(100));
    assert_int_equal(canvas_at(&f->canvas, 2 * (4 * 3 + 2), 1), color(105));
    put_attribute(f, 0x13, 2); /* one pixel of two dots */
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, 0, 0), color(101));
    /* From scan line 101 on the memory's start, which does not pan. */
    put_indexed(f, 0x3d4, 0x18, 100);
    put_indexed(f, 0x3d4, 0x07, 0x0f);
    put_indexed(f, 0x3d4, 0x09, 0x01);
    put_attribute(f, 0x10, 0x61);
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, 0, 101), color(0));
    assert_int_equal(canvas_at(&f->canvas, 2, 102), color(1));
    assert_int_equal(canvas_at(&f->canvas, 0, 0), color(101));
}

/* A dot of mode 12h. */
static unsigned color_12h(unsigned index)
{
    return mode_12h.attribute[index];
}

static void test_12h_write_modes(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &mode_12h);
    /* Mode 0 with set/reset: colour 9 through a bit mask. */
    put_indexed(f, 0x3ce, 0, 9);
    put_indexed(f, 0x3ce, 1, 15);
    put_indexed(f, 0x3ce, 8, 0xf0);
    peek(f, WINDOW, 1);
    poke(f, WINDOW, 0, 1);
    /* Mode 2: colour 5 in the other half, by the mask. */
    put_indexed(f, 0x3ce, 5, 2);
    put_indexed(f, 0x3ce, 8, 0x0f);
    peek(f, WINDOW, 1);
    poke(f, WINDOW, 5, 1);
    /* Mode 1 copies the latches elsewhere. */
    put_indexed(f, 0x3ce, 5, 1);
    peek(f, WINDOW, 1);
    poke(f, WINDOW + 80 * 479 + 79, 0, 1);
    /* Mode 3: the byte, rotated by 1, is the mask; set/reset the colour. */
    put_indexed(f, 0x3ce, 5, 3);
    put_indexed(f, 0x3ce, 3, 1);
    put_indexed(f, 0x3ce, 8, 0xff);
    put_indexed(f, 0x3ce, 0, 12);
    peek(f, WINDOW + 1, 1);
    poke(f, WINDOW + 1, 0x03, 1);
    refresh(f);
    check_size(f, 640, 480);
    for (unsigned x = 0; x < 8; x++) {
        unsigned expected = color(color_12h(x < 4 ? 9 : 5));
        assert_int_equal(canvas_at(&f->canvas, x, 0), expected);
        assert_int_equal(canvas_at(&f->canvas, 632 + x, 479), expected);
        assert_int_equal(canvas_at(&f->canvas, 8 + x, 0),
                         color(color_12h(x == 0 || x == 7 ? 12 : 0)));
    }
}

static void test_12h_read_and_alu(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &mode_12h);
    /* Planes alone. */
    for (unsigned plane = 0; plane < 4; plane++) {
        put_indexed(f, 0x3c4, 2, (uint8_t)(1 << plane));
        poke(f, WINDOW + 5, 0x11u << plane, 1);
    }
    put_indexed(f, 0x3c4, 2, 15);
    for (unsigned plane = 0; plane < 4; plane++) {
        put_indexed(f, 0x3ce, 4, (uint8_t)plane);
        assert_int_equal(peek(f, WINDOW + 5, 1), 0x11 << plane);
    }
    /* Read mode 1: where is colour 1? Where is it in planes 0 and 1? */
    put_indexed(f, 0x3ce, 5, 8);
    put_indexed(f, 0x3ce, 2, 1);
    put_indexed(f, 0x3ce, 7, 15);
    assert_int_equal(peek(f, WINDOW + 5, 1), 0x11);
    put_indexed(f, 0x3ce, 2, 0);
    put_indexed(f, 0x3ce, 7, 3);
    assert_int_equal(peek(f, WINDOW + 5, 1), 0xcc);
    /* XOR, OR, AND with the latches, on plane 0. */
    static const struct {
        uint8_t function, expected;
    } functions[] = {{0x18, 0x11 ^ 0x35}, {0x10, 0x11 | 0x35}, {0x08, 0x11 & 0x35}, {0, 0x35}};
    put_indexed(f, 0x3ce, 5, 0);
    put_indexed(f, 0x3ce, 4, 0);
    for (unsigned i = 0; i < 4; i++) {
        put_indexed(f, 0x3ce, 3, 0);
        poke(f, WINDOW + 6, 0x11, 1);
        peek(f, WINDOW + 6, 1);
        put_indexed(f, 0x3ce, 3, functions[i].function);
        poke(f, WINDOW + 6, 0x35, 1);
        put_indexed(f, 0x3ce, 3, 0);
        assert_int_equal(peek(f, WINDOW + 6, 1), functions[i].expected);
    }
}

static void test_cga_and_ega(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &mode_4);
    poke(f, 0xb8000, 0x1b, 1);          /* 0 1 2 3 */
    poke(f, 0xb8001, 0xe4, 1);          /* 3 2 1 0 */
    poke(f, 0xb8000 + 0x2000, 0xff, 1); /* the second line */
    poke(f, 0xb8000 + 80, 0xaa, 1);     /* the third */
    refresh(f);
    check_size(f, 640, 400);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(canvas_at(&f->canvas, 2 * i + 1, 1), color(mode_4.attribute[i]));
        assert_int_equal(canvas_at(&f->canvas, 8 + 2 * i, 0), color(mode_4.attribute[3 - i]));
        assert_int_equal(canvas_at(&f->canvas, 2 * i, 2), color(mode_4.attribute[3]));
        assert_int_equal(canvas_at(&f->canvas, 2 * i, 5), color(mode_4.attribute[2]));
    }
    set_mode(f, &mode_dh);
    put_indexed(f, 0x3c4, 2, 6);
    poke(f, WINDOW + 40 * 199 + 39, 0x01, 1);
    refresh(f);
    check_size(f, 640, 400);
    assert_int_equal(canvas_at(&f->canvas, 638, 399), color(mode_dh.attribute[6]));
    assert_int_equal(canvas_at(&f->canvas, 639, 398), color(mode_dh.attribute[6]));
    assert_int_not_equal(canvas_at(&f->canvas, 637, 398), color(mode_dh.attribute[6]));
}

/* ---- the Bochs interface ---- */

static void dispi(struct fixture *f, uint16_t index, uint16_t value)
{
    bus_write(f->m.bus, BUS_PORT, DISPI_PORT, index, 2);
    bus_write(f->m.bus, BUS_PORT, DISPI_PORT + 1, value, 2);
}

static uint16_t dispi_get(struct fixture *f, uint16_t index)
{
    bus_write(f->m.bus, BUS_PORT, DISPI_PORT, index, 2);
    return (uint16_t)bus_read(f->m.bus, BUS_PORT, DISPI_PORT + 2, 2);
}

static void dispi_mode(struct fixture *f, uint16_t width, uint16_t height, uint16_t bpp)
{
    dispi(f, 4, 0);
    dispi(f, 1, width);
    dispi(f, 2, height);
    dispi(f, 3, bpp);
    dispi(f, 4, 0x41);
}

static void test_dispi_depths(void **state)
{
    struct fixture *f = *state;
    uint64_t memory = vd_bar(&f->m, SLOT, 0);
    static const struct {
        uint16_t bpp;
        uint32_t stored, shown;
    } depths[] = {
        {32, 0xff123456, 0x123456}, {24, 0x123456, 0x123456}, {16, 0xf81f, 0xff00ff},
        {15, 0x7c1f, 0xff00ff},     {15, 0x03e0, 0x00ff00},   {16, 0x0400, 0x008200},
    };
    assert_int_equal(dispi_get(f, 0), 0xb0c5);
    assert_int_equal(dispi_get(f, 10), MEMORY >> 16);
    for (unsigned i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
        unsigned bytes = (depths[i].bpp + 7u) / 8;
        dispi_mode(f, 320, 240, depths[i].bpp);
        for (unsigned b = 0; b < bytes; b++)
            poke(f, memory + (2 * 320 + 7) * bytes + b, depths[i].stored >> 8 * b & 0xff, 1);
        refresh(f);
        check_size(f, 320, 240);
        assert_int_equal(canvas_at(&f->canvas, 7, 2), depths[i].shown);
        assert_int_equal(canvas_at(&f->canvas, 8, 2), 0);
        assert_int_equal(canvas_at(&f->canvas, 6, 2), 0);
    }
    put_palette(f);
    dispi_mode(f, 640, 400, 8);
    poke(f, WINDOW + 0, 1, 1); /* not there: misc has the memory off */
    out8(f->m.bus, 0x3c2, 0x63);
    put_indexed(f, 0x3ce, 6, 5);
    dispi(f, 5, 3);
    poke(f, WINDOW + 17, 0x4d, 1);
    assert_int_equal(peek(f, memory + 3 * 65536 + 17, 1), 0x4d);
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, (3 * 65536 + 17) % 640, (3 * 65536 + 17) / 640),
                     color(0x4d));
}

static void test_dispi_4(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &mode_12h);
    dispi_mode(f, 800, 600, 4);
    put_indexed(f, 0x3c4, 2, 10);
    poke(f, WINDOW + 100 * 599 + 99, 1, 1);
    refresh(f);
    check_size(f, 800, 600);
    assert_int_equal(canvas_at(&f->canvas, 799, 599), color(color_12h(10)));
    assert_int_equal(canvas_at(&f->canvas, 798, 599), color(color_12h(0)));
}

static void test_dispi_virtual(void **state)
{
    struct fixture *f = *state;
    uint64_t memory = vd_bar(&f->m, SLOT, 0);
    dispi_mode(f, 100, 50, 32);
    dispi(f, 6, 256);
    assert_int_equal(dispi_get(f, 6), 256);
    assert_int_equal(dispi_get(f, 7), MEMORY / 1024);
    dispi(f, 8, 30);
    dispi(f, 9, 40);
    poke(f, memory + (41 * 256 + 35) * 4, 0x00aabbcc, 4);
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, 5, 1), 0xaabbcc);
    /* Only what was written is drawn again. */
    poke(f, memory + (60 * 256 + 50) * 4, 1, 4);
    assert_int_equal(canvas_refresh(&f->canvas, vga_display(f->vga), false), 1);
    assert_memory_equal(&f->canvas.last, (&(struct display_rectangle){20, 20, 1, 1}),
                        sizeof(struct display_rectangle));
    /* Far outside of the memory: black, and no harm. */
    dispi(f, 9, 0xffff);
    dispi(f, 8, 0xffff);
    refresh(f);
    assert_int_equal(canvas_at(&f->canvas, 5, 1), 0);
    dispi(f, 4, 3);
    assert_int_equal(dispi_get(f, 1), DISPLAY_MAX_WIDTH);
    assert_int_equal(dispi_get(f, 3), 32);
    dispi(f, 4, 0);
    refresh(f);
    check_size(f, 720, 400); /* back to a VGA that is not set up */
}

static void test_registers_bar(void **state)
{
    struct fixture *f = *state;
    uint64_t bar = vd_bar(&f->m, SLOT, 2);
    uint8_t edid[128], sum = 0;
    assert_int_equal(vd_config_read(&f->m, SLOT, 0, 4), 0x11111234);
    assert_int_equal(vd_config_read(&f->m, SLOT, PCI_REVISION, 4), 0x03000002);
    for (unsigned i = 0; i < 128; i++) {
        edid[i] = (uint8_t)peek(f, bar + i, 1);
        sum = (uint8_t)(sum + edid[i]);
    }
    assert_memory_equal(edid, "\0\xff\xff\xff\xff\xff\xff\0", 8);
    assert_int_equal(sum, 0);
    assert_int_equal(edid[56] | (edid[58] & 0xf0) << 4, 1280);
    assert_int_equal(edid[59] | (edid[61] & 0xf0) << 4, 800);
    /* CVT with reduced blanking: 71.00 MHz, 23 lines of blank. */
    assert_int_equal(edid[54] | edid[55] << 8, 7100);
    assert_int_equal(edid[60], 23);
    poke(f, bar + 0x502, 640, 2);
    poke(f, bar + 0x504, 480, 2);
    poke(f, bar + 0x506, 32, 2);
    poke(f, bar + 0x508, 0x41, 2);
    poke(f, bar + 0x40c, 0x55, 1); /* 3cc is not written */
    poke(f, bar + 0x402, 0x63, 1);
    assert_int_equal(peek(f, bar + 0x40c, 1), 0x63);
    assert_int_equal(in8(f->m.bus, 0x3cc), 0x63);
    assert_int_equal(dispi_get(f, 1), 640);
    assert_int_equal(peek(f, bar + 0x604, 4), 0x1e1e1e1e);
    refresh(f);
    check_size(f, 640, 480);
}

/* ---- the rest ---- */

static void test_beam(void **state)
{
    struct fixture *f = *state;
    unsigned retraces = 0, blanks = 0;
    set_mode(f, &text_80x25);
    /* A frame is 14.27 ms: looked at every 20 us. */
    for (unsigned us = 0; us < 14270; us += 20) {
        clock_set_ns(f->clock, us * 1000u);
        uint8_t status = in8(f->m.bus, 0x3da);
        retraces += status >> 3 & 1;
        blanks += status & 1;
    }
    assert_in_range(retraces, 2, 8); /* two lines of 449 */
    assert_in_range(blanks, 150, 350);
    /* Ports of a monochrome VGA instead. */
    assert_int_equal(in8(f->m.bus, 0x3ba), 0xff);
    out8(f->m.bus, 0x3c2, 0x66);
    assert_int_equal(in8(f->m.bus, 0x3da), 0xff);
    assert_int_not_equal(in8(f->m.bus, 0x3ba), 0xff);
}

static void test_protected(void **state)
{
    struct fixture *f = *state;
    set_mode(f, &text_80x25); /* sets the protection: 11h is 8eh */
    put_indexed(f, 0x3d4, 0, 0);
    put_indexed(f, 0x3d4, 7, 0);
    out8(f->m.bus, 0x3d4, 0);
    assert_int_equal(in8(f->m.bus, 0x3d5), 0x5f);
    out8(f->m.bus, 0x3d4, 7);
    assert_int_equal(in8(f->m.bus, 0x3d5), 0x0f); /* only the line compare's bit */
}

static void test_save(void **state)
{
    struct fixture *f = *state;
    struct canvas before;
    set_mode(f, &mode_13h);
    for (unsigned i = 0; i < 64000; i += 4)
        poke(f, WINDOW + i, i * 2654435761u, 4);
    canvas_init(&before);
    canvas_refresh(&before, vga_display(f->vga), true);
    save_and_load(&vga_ops, f->vga, f->vga);
    canvas_refresh(&f->canvas, vga_display(f->vga), false);
    check_size(f, before.c.width, before.c.height);
    for (unsigned y = 0; y < before.c.height; y++)
        assert_memory_equal(before.c.pixels + y * before.c.stride_pixels,
                            f->canvas.c.pixels + y * f->canvas.c.stride_pixels, before.c.width * 4);
    canvas_free(&before);
    vga_ops.reset(f->vga);
    assert_int_equal(dispi_get(f, 4), 0);
    refresh(f);
    check_size(f, 720, 400);
    assert_int_equal(canvas_at(&f->canvas, 10, 10), 0);
}

static void test_load_checks(void **state)
{
    struct fixture *f = *state;
    dispi_mode(f, 320, 240, 16);
    /* Past PCI's 300 bytes or so: all registers, and the first page's number. */
    assert_true(load_mutations(&vga_ops, f->vga, 1500) > 0);
    refresh(f);
}

/* Any value in any register, then a picture and a look around. */
static void test_hostile(void **state)
{
    struct fixture *f = *state;
    uint64_t memory = vd_bar(&f->m, SLOT, 0), registers = vd_bar(&f->m, SLOT, 2);
    uint32_t seed = 1;
    for (unsigned round = 0; round < 60; round++) {
        hostile_ports(f->m.bus, PORT_BASE, 48);
        for (unsigned i = 0; i < 400; i++) {
            seed = seed * 1664525 + 1013904223;
            dispi(f, (uint16_t)(seed >> 28), (uint16_t)(seed >> 8 & (i & 1 ? 0xffff : 0x3ff)));
            poke(f, WINDOW + (seed >> 7) % 0x1ffff, seed, 1u << (seed & 3));
            peek(f, WINDOW + (seed >> 9) % 0x1ffff, 1u << (seed & 3));
            poke(f, memory + (seed >> 5) % MEMORY, seed, 1u << (seed & 3));
            poke(f, registers + (seed >> 11) % 4096, seed >> 3, 1u << (seed & 3));
            peek(f, registers + (seed >> 12) % 4096, 1u << (seed & 3));
        }
        /* Half of the time a mode that is shown. */
        if (round & 1) {
            uint16_t bpps[] = {4, 8, 15, 16, 24, 32};
            dispi_mode(f, (uint16_t)(seed >> 21), (uint16_t)(seed >> 23), bpps[round / 2 % 6]);
            dispi(f, 8, (uint16_t)(seed >> 3));
            dispi(f, 6, (uint16_t)seed);
        } else {
            dispi(f, 4, 0);
            put_attribute(f, 0x14, 0);
            put_indexed(f, 0x3c4, 0, 3);
        }
        refresh(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text_eight_dots_and_fonts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text_cursor_and_blink, setup, teardown),
        cmocka_unit_test_setup_teardown(test_13h, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mode_x, setup, teardown),
        cmocka_unit_test_setup_teardown(test_12h_write_modes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_12h_read_and_alu, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cga_and_ega, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dispi_depths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dispi_4, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dispi_virtual, setup, teardown),
        cmocka_unit_test_setup_teardown(test_registers_bar, setup, teardown),
        cmocka_unit_test_setup_teardown(test_beam, setup, teardown),
        cmocka_unit_test_setup_teardown(test_protected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save, setup, teardown),
        cmocka_unit_test_setup_teardown(test_load_checks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
