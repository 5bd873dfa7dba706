/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The VGA as its own files see it: vga.c (life, PCI, ports), registers.c, memory.c (the window),
 * dispi.c (the Bochs interface), screen.c and its neighbours (what is shown). Private to
 * src/dev/vga.
 *
 * The reference is IBM's "Personal System/2 and Personal Computer AT Display Adapter: VGA" and what
 * its clones' manuals add (the Intel OpenSource HD Graphics PRM, volume 3 part 1, has all
 * registers); for the rest, SeaBIOS's VGA BIOS and QEMU's docs/specs/standard-vga.txt.
 *
 * Memory: byte p of 32-bit word n of `memory` is plane p at address n. Modes of the Bochs interface
 * with whole bytes a pixel use the same memory as it lies.
 */
#ifndef SKEP_DEV_VGA_INTERNAL_H
#define SKEP_DEV_VGA_INTERNAL_H

#include "dev/vga/vga.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    VGA_PORTS = 48,      /* 3b0 … 3df */
    VGA_DISPI_PORTS = 4, /* 1ce … 1d1 */
    VGA_WINDOW_BYTES = 0x20000,
    VGA_PLANE_WORDS = 0x10000, /* what a VGA of 256 KiB has */
    VGA_MMIO_BYTES = 0x1000,
    VGA_PAGE_BYTES = 4096,
    VGA_DISPI_REGISTERS = 11,
};

enum { SEQ_COUNT = 8, CRTC_COUNT = 25, GRAPHICS_COUNT = 9, ATTRIBUTE_COUNT = 21 };

enum { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_FONT, SEQ_MEMORY_MODE };
enum {
    CLOCKING_8_DOTS = 0x01,
    CLOCKING_HALF = 0x08,
    CLOCKING_SCREEN_OFF = 0x20,
    MEMORY_SEQUENTIAL = 0x04, /* no odd/even */
    MEMORY_CHAIN4 = 0x08,
};

enum {
    CRTC_H_TOTAL = 0x00,
    CRTC_H_DISPLAY_END = 0x01,
    CRTC_V_TOTAL = 0x06,
    CRTC_OVERFLOW = 0x07,
    CRTC_PRESET_ROW = 0x08,
    CRTC_MAX_SCAN = 0x09,
    CRTC_CURSOR_START = 0x0a,
    CRTC_CURSOR_END = 0x0b,
    CRTC_START_HIGH = 0x0c,
    CRTC_START_LOW = 0x0d,
    CRTC_CURSOR_HIGH = 0x0e,
    CRTC_CURSOR_LOW = 0x0f,
    CRTC_V_RETRACE_START = 0x10,
    CRTC_V_RETRACE_END = 0x11,
    CRTC_V_DISPLAY_END = 0x12,
    CRTC_OFFSET = 0x13,
    CRTC_UNDERLINE = 0x14,
    CRTC_MODE = 0x17,
    CRTC_LINE_COMPARE = 0x18,
};
enum {
    V_RETRACE_PROTECT = 0x80,
    MAX_SCAN_DOUBLE = 0x80,
    CURSOR_OFF = 0x20,
    UNDERLINE_COUNT_4 = 0x20,
    UNDERLINE_DWORD = 0x40,
    MODE_NO_CGA_BANKS = 0x01,      /* 0: address bit 13 is the row's bit 0 */
    MODE_NO_HERCULES_BANKS = 0x02, /* 0: address bit 14 is the row's bit 1 */
    MODE_HALF_VERTICAL = 0x04,
    MODE_COUNT_2 = 0x08,
    MODE_WRAP_64K = 0x20,
    MODE_BYTE = 0x40,
    MODE_RUNS = 0x80,
};

enum {
    GRAPHICS_SET_RESET,
    GRAPHICS_SET_RESET_ENABLE,
    GRAPHICS_COMPARE,
    GRAPHICS_ROTATE,
    GRAPHICS_READ_MAP,
    GRAPHICS_MODE,
    GRAPHICS_MISC,
    GRAPHICS_DONT_CARE,
    GRAPHICS_BIT_MASK,
};
enum {
    GRAPHICS_MODE_READ_COMPARE = 0x08,
    GRAPHICS_MODE_ODD_EVEN = 0x10,
    GRAPHICS_MODE_INTERLEAVE = 0x20,
    GRAPHICS_MODE_256 = 0x40,
    GRAPHICS_MISC_GRAPHICS = 0x01,
};

enum {
    ATTRIBUTE_MODE = 0x10,
    ATTRIBUTE_OVERSCAN = 0x11,
    ATTRIBUTE_PLANES = 0x12,
    ATTRIBUTE_PAN = 0x13,
    ATTRIBUTE_COLOR_SELECT = 0x14,
    ATTRIBUTE_MODE_MONO = 0x02,
    ATTRIBUTE_MODE_LINE_GRAPHICS = 0x04,
    ATTRIBUTE_MODE_BLINK = 0x08,
    ATTRIBUTE_MODE_PAN_TOP_ONLY = 0x20,
    ATTRIBUTE_MODE_8_BIT = 0x40,
    ATTRIBUTE_MODE_COLOR_54 = 0x80,
    ATTRIBUTE_INDEX_SCREEN_ON = 0x20,
};

enum { MISC_COLOR_PORTS = 0x01, MISC_RAM = 0x02, MISC_CLOCK_28 = 0x04 };

/* The Bochs display interface's registers, and bits of ENABLE. */
enum {
    DISPI_ID,
    DISPI_WIDTH,
    DISPI_HEIGHT,
    DISPI_BPP,
    DISPI_ENABLE,
    DISPI_BANK,
    DISPI_VIRTUAL_WIDTH,
    DISPI_VIRTUAL_HEIGHT,
    DISPI_X,
    DISPI_Y,
    DISPI_MEMORY_64K,
    DISPI_ON = 0x01,
    DISPI_CAPABILITIES = 0x02,
    DISPI_DAC_8_BIT = 0x20,
    DISPI_LINEAR = 0x40,
    DISPI_KEEP_MEMORY = 0x80,
};

/* Registers: all that a guest sets beside the memory. */
struct vga_state {
    uint8_t misc, feature;
    uint8_t seq_index, seq[SEQ_COUNT];
    uint8_t crtc_index, crtc[CRTC_COUNT];
    uint8_t graphics_index, graphics[GRAPHICS_COUNT];
    uint8_t attribute_index; /* with ATTRIBUTE_INDEX_SCREEN_ON */
    uint8_t attribute[ATTRIBUTE_COUNT];
    bool attribute_takes_data; /* the next write to 3c0 */
    uint8_t dac_mask, dac_index, dac_step;
    bool dac_reads;
    uint8_t dac[256][3]; /* red, green, blue as written */
    uint32_t latch;
    uint16_t dispi_index, dispi[VGA_DISPI_REGISTERS];
};

/* What screen.c remembers between refreshes; the loop's thread alone. */
struct vga_drawn {
    struct vga_state state; /* as the canvas shows it */
    bool blink_on;
    uint32_t width, height;
    uint32_t *line; /* a line that is being drawn; `line_pixels` long */
    uint32_t line_pixels;
};

struct vga {
    pthread_mutex_t lock; /* around `s` and, for writes from the window, the memory */
    struct vga_config config;
    struct bus *bus;
    struct pci_function *function;
    struct bus_range ranges[3];
    unsigned range_count; /* mapped */
    struct vga_state s;
    uint8_t *memory;          /* mmap'ed */
    _Atomic(uint64_t) *dirty; /* a bit a page: written through the window since it was drawn */
    uint8_t edid[256];
    struct display_source display;
    struct vga_drawn drawn;
};

static inline bool vga_dispi_on(const struct vga_state *s)
{
    return s->dispi[DISPI_ENABLE] & DISPI_ON;
}

static inline void vga_mark(struct vga *vga, uint64_t offset)
{
    uint64_t page = offset / VGA_PAGE_BYTES;
    _Atomic(uint64_t) *word = &vga->dirty[page / 64];
    uint64_t bit = UINT64_C(1) << page % 64;
    if (!(atomic_load_explicit(word, memory_order_relaxed) & bit))
        atomic_fetch_or_explicit(word, bit, memory_order_relaxed);
}

/* registers.c, with the lock held; `port` counts from 3b0. */
uint8_t vga_port_read(struct vga *vga, unsigned port);
void vga_port_write(struct vga *vga, unsigned port, uint8_t value);
void vga_registers_reset(struct vga_state *s);
/* False: a value is none that the registers can hold. */
bool vga_registers_load(struct vga_state *s, struct load *load);
void vga_registers_save(const struct vga_state *s, struct save *save);

/* dispi.c, with the lock held. */
uint16_t vga_dispi_read(const struct vga *vga, unsigned index);
void vga_dispi_write(struct vga *vga, unsigned index, uint16_t value);
/* Whether the registers could have come to these values: for a saved machine. */
bool vga_dispi_valid(const struct vga_state *s);
/* Of the mode that is set: bytes from one line to the next, and of the first pixel shown. */
uint64_t vga_dispi_stride(const struct vga_state *s);
uint64_t vga_dispi_start(const struct vga_state *s);

/* memory.c: the window's bus_read_fn and bus_write_fn. */
uint64_t vga_window_read(void *opaque, uint64_t offset, unsigned size_bytes);
void vga_window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes);

/* ---- what is shown; the loop's thread, from a copy of the registers ---- */

/* How the picture is made. In dots and scan lines of the monitor. */
enum vga_kind {
    VGA_BLANK,
    VGA_TEXT,
    VGA_PLANAR,
    VGA_INTERLEAVED, /* CGA's: two bits a pixel */
    VGA_BYTES,       /* 256 colours */
    VGA_LINEAR,      /* of the Bochs interface, 8 bits a pixel or more */
    VGA_LINEAR_4,    /* and 4: planes */
};

struct vga_picture {
    enum vga_kind kind;
    uint32_t width, height;
    unsigned characters, dots; /* a line; `dots` a character, before doubling */
    bool is_doubled;           /* each pixel is two dots wide */
    unsigned rows;             /* scan lines of a row: of text, or that repeat */
    uint32_t line_compare;     /* from the scan line after this on, memory from its start */
    uint32_t palette[256];     /* of DAC entries */
    uint8_t colors[16];        /* of 16-colour modes: DAC entries */
    bool blink_on;
};

/* Where a scan line begins. */
struct vga_line {
    uint32_t address; /* of its first character, as the CRTC counts */
    unsigned row;     /* scan line of the row */
    unsigned pan;     /* pixels to the left */
};

void vga_picture(const struct vga_state *s, bool blink_on, struct vga_picture *picture);
void vga_picture_line(const struct vga_state *s, const struct vga_picture *picture, uint32_t y,
                      struct vga_line *line);
/* The word of memory that the CRTC's `address` means on scan line `row`. */
uint32_t vga_address(const struct vga_state *s, uint32_t address, unsigned row);

/* text.c and graphics.c: one scan line into `out`, which has picture->width pixels and 32 more. */
void vga_draw_text(const struct vga *vga, const struct vga_state *s,
                   const struct vga_picture *picture, const struct vga_line *line, uint32_t *out);
void vga_draw_graphics(const struct vga *vga, const struct vga_state *s,
                       const struct vga_picture *picture, const struct vga_line *line,
                       uint32_t *out);
/* linear.c: `offset` is that of its first byte (of its plane with 4 bits a pixel). */
void vga_draw_linear(const struct vga *vga, const struct vga_state *s,
                     const struct vga_picture *picture, uint64_t offset, uint32_t *out);

/* screen.c: the display_source's function. */
void vga_refresh(void *opaque, const struct display_viewer *viewer, bool whole);

#endif
