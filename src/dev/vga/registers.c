/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The VGA's ports: sequencer, CRT controller, graphics and attribute controller, DAC, and the
 * beam's position in the status register. Left out: the vertical interrupt, light pen, and what
 * switches of a monitor's kind would say.
 */
#include "dev/vga/vga_internal.h"

#include <string.h>

enum { /* counted from 3b0 */
       PORT_CRTC_INDEX_MONO = 0x04,
       PORT_CRTC_DATA_MONO = 0x05,
       PORT_STATUS_MONO = 0x0a,
       PORT_ATTRIBUTE = 0x10,
       PORT_ATTRIBUTE_READ = 0x11,
       PORT_MISC = 0x12, /* read: input status 0 */
       PORT_ENABLE = 0x13,
       PORT_SEQ_INDEX = 0x14,
       PORT_SEQ_DATA = 0x15,
       PORT_DAC_MASK = 0x16,
       PORT_DAC_READ_INDEX = 0x17, /* read: state */
       PORT_DAC_WRITE_INDEX = 0x18,
       PORT_DAC_DATA = 0x19,
       PORT_FEATURE_READ = 0x1a,
       PORT_MISC_READ = 0x1c,
       PORT_GRAPHICS_INDEX = 0x1e,
       PORT_GRAPHICS_DATA = 0x1f,
       PORT_CRTC_INDEX = 0x24,
       PORT_CRTC_DATA = 0x25,
       PORT_STATUS = 0x2a, /* write: feature control */
};

enum { STATUS_NO_DISPLAY = 0x01, STATUS_RETRACE = 0x08, STATUS0_SENSE = 0x10 };

/* Bits that exist; others read as zero. */
static const uint8_t seq_bits[SEQ_COUNT] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff};
static const uint8_t graphics_bits[GRAPHICS_COUNT] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03,
                                                      0x7b, 0x0f, 0x0f, 0xff};
static const uint8_t attribute_bits[ATTRIBUTE_COUNT] = {0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                                        0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                                        0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f};

/* ---- the beam ---- */

struct beam {
    uint64_t line_ns;
    uint32_t lines, shown, retrace_start, retrace_end;
};

static void beam_of(const struct vga_state *s, struct beam *beam)
{
    uint8_t overflow = s->crtc[CRTC_OVERFLOW];
    unsigned dots = s->seq[SEQ_CLOCKING] & CLOCKING_8_DOTS ? 8 : 9;
    uint64_t hz = s->misc & MISC_CLOCK_28 ? 28322000 : 25175000;
    uint64_t line_dots = (s->crtc[CRTC_H_TOTAL] + UINT64_C(5)) * dots;
    if (s->seq[SEQ_CLOCKING] & CLOCKING_HALF)
        line_dots *= 2;
    beam->line_ns = line_dots * 1000000000 / hz;
    beam->lines = s->crtc[CRTC_V_TOTAL] + ((overflow & 1u) << 8) + ((overflow & 0x20u) << 4) + 2;
    beam->shown =
        s->crtc[CRTC_V_DISPLAY_END] + ((overflow & 2u) << 7) + ((overflow & 0x40u) << 3) + 1;
    beam->retrace_start =
        s->crtc[CRTC_V_RETRACE_START] + ((overflow & 4u) << 6) + ((overflow & 0x80u) << 2);
    /* The end is told by its low four bits. */
    unsigned length = (s->crtc[CRTC_V_RETRACE_END] - beam->retrace_start) & 15;
    beam->retrace_end = beam->retrace_start + (length ? length : 16);
    /* Programs wait for the beam to come back, also in modes that no monitor would show and while
     * the registers mean nothing: then it is a frame of 60 Hz. */
    if (vga_dispi_on(s) || beam->shown > beam->lines || beam->retrace_start >= beam->lines ||
        s->crtc[CRTC_H_TOTAL] < 40)
        *beam = (struct beam){1000000000 / 60 / 525, 525, 480, 490, 492};
}

static uint8_t read_status(struct vga *vga)
{
    struct beam beam;
    beam_of(&vga->s, &beam);
    uint64_t now = clock_now_ns(vga->config.clock) % (beam.line_ns * beam.lines);
    uint64_t line = now / beam.line_ns;
    uint8_t status = 0;
    /* About a fifth of each line is blank. */
    if (line >= beam.shown || now % beam.line_ns >= beam.line_ns * 4 / 5)
        status |= STATUS_NO_DISPLAY;
    if (line >= beam.retrace_start && line < beam.retrace_end)
        status |= STATUS_RETRACE;
    vga->s.attribute_takes_data = false;
    return status;
}

/* ---- DAC ---- */

static uint8_t dac_data_read(struct vga_state *s)
{
    uint8_t value = s->dac[s->dac_index][s->dac_step];
    if (++s->dac_step == 3) {
        s->dac_step = 0;
        s->dac_index++;
    }
    return value;
}

static void dac_data_write(struct vga_state *s, uint8_t value)
{
    if (!(s->dispi[DISPI_ENABLE] & DISPI_DAC_8_BIT))
        value &= 0x3f;
    s->dac[s->dac_index][s->dac_step] = value;
    if (++s->dac_step == 3) {
        s->dac_step = 0;
        s->dac_index++;
    }
}

static void dac_select(struct vga_state *s, uint8_t index, bool reads)
{
    s->dac_index = index;
    s->dac_step = 0;
    s->dac_reads = reads;
}

/* ---- registers with an index ---- */

static void crtc_write(struct vga_state *s, uint8_t value)
{
    unsigned index = s->crtc_index;
    if (index >= CRTC_COUNT)
        return;
    if (index <= CRTC_OVERFLOW && (s->crtc[CRTC_V_RETRACE_END] & V_RETRACE_PROTECT)) {
        /* But for the bit of the line compare. */
        if (index == CRTC_OVERFLOW)
            s->crtc[index] = (uint8_t)((s->crtc[index] & ~0x10) | (value & 0x10));
        return;
    }
    s->crtc[index] = value;
}

static void attribute_write(struct vga_state *s, uint8_t value)
{
    unsigned index = s->attribute_index & 0x1f;
    if (!s->attribute_takes_data)
        s->attribute_index = value & 0x3f;
    /* The palette is the screen's while it is on. */
    else if (index < ATTRIBUTE_COUNT &&
             (index >= ATTRIBUTE_MODE || !(s->attribute_index & ATTRIBUTE_INDEX_SCREEN_ON)))
        s->attribute[index] = value & attribute_bits[index];
    s->attribute_takes_data = !s->attribute_takes_data;
}

static uint8_t attribute_read(const struct vga_state *s)
{
    unsigned index = s->attribute_index & 0x1f;
    return index < ATTRIBUTE_COUNT ? s->attribute[index] : 0;
}

/* Of the CRTC's ports and the status there are two sets, for monochrome and colour monitors. The
 * port in the colour set; -1: one of the set that is not there. */
static int normal_port(const struct vga_state *s, unsigned port)
{
    bool is_color = s->misc & MISC_COLOR_PORTS;
    if (port < PORT_ATTRIBUTE)
        return is_color ? -1 : (int)port + PORT_CRTC_INDEX - PORT_CRTC_INDEX_MONO;
    if (port >= PORT_CRTC_INDEX && !is_color)
        return -1;
    return (int)port;
}

uint8_t vga_port_read(struct vga *vga, unsigned port)
{
    struct vga_state *s = &vga->s;
    switch (normal_port(s, port)) {
    case PORT_ATTRIBUTE: return s->attribute_index;
    case PORT_ATTRIBUTE_READ: return attribute_read(s);
    case PORT_MISC: return STATUS0_SENSE;
    case PORT_ENABLE: return 1;
    case PORT_SEQ_INDEX: return s->seq_index;
    case PORT_SEQ_DATA: return s->seq_index < SEQ_COUNT ? s->seq[s->seq_index] : 0;
    case PORT_DAC_MASK: return s->dac_mask;
    case PORT_DAC_READ_INDEX: return s->dac_reads ? 3 : 0;
    case PORT_DAC_WRITE_INDEX: return s->dac_index;
    case PORT_DAC_DATA: return dac_data_read(s);
    case PORT_FEATURE_READ: return s->feature;
    case PORT_MISC_READ: return s->misc;
    case PORT_GRAPHICS_INDEX: return s->graphics_index;
    case PORT_GRAPHICS_DATA:
        return s->graphics_index < GRAPHICS_COUNT ? s->graphics[s->graphics_index] : 0;
    case PORT_CRTC_INDEX: return s->crtc_index;
    case PORT_CRTC_DATA: return s->crtc_index < CRTC_COUNT ? s->crtc[s->crtc_index] : 0;
    case PORT_STATUS: return read_status(vga);
    default: return 0xff;
    }
}

void vga_port_write(struct vga *vga, unsigned port, uint8_t value)
{
    struct vga_state *s = &vga->s;
    switch (normal_port(s, port)) {
    case PORT_ATTRIBUTE: attribute_write(s, value); break;
    case PORT_MISC: s->misc = value & 0xef; break;
    case PORT_SEQ_INDEX: s->seq_index = value; break;
    case PORT_SEQ_DATA:
        if (s->seq_index < SEQ_COUNT)
            s->seq[s->seq_index] = value & seq_bits[s->seq_index];
        break;
    case PORT_DAC_MASK: s->dac_mask = value; break;
    case PORT_DAC_READ_INDEX: dac_select(s, value, true); break;
    case PORT_DAC_WRITE_INDEX: dac_select(s, value, false); break;
    case PORT_DAC_DATA: dac_data_write(s, value); break;
    case PORT_GRAPHICS_INDEX: s->graphics_index = value; break;
    case PORT_GRAPHICS_DATA:
        if (s->graphics_index < GRAPHICS_COUNT)
            s->graphics[s->graphics_index] = value & graphics_bits[s->graphics_index];
        break;
    case PORT_CRTC_INDEX: s->crtc_index = value; break;
    case PORT_CRTC_DATA: crtc_write(s, value); break;
    case PORT_STATUS: s->feature = value & 3; break;
    default: break;
    }
}

/* ---- reset, save, load ---- */

void vga_registers_reset(struct vga_state *s)
{
    *s = (struct vga_state){
        .dac_mask = 0xff,
        .dispi = {[DISPI_ID] = 0xb0c5, [DISPI_BPP] = 8},
    };
}

void vga_registers_save(const struct vga_state *s, struct save *save)
{
    const uint8_t bytes[] = {s->misc,       s->feature,        s->seq_index,
                             s->crtc_index, s->graphics_index, s->attribute_index,
                             s->dac_mask,   s->dac_index,      s->dac_step};
    save_bytes(save, bytes, sizeof(bytes));
    save_bytes(save, s->seq, sizeof(s->seq));
    save_bytes(save, s->crtc, sizeof(s->crtc));
    save_bytes(save, s->graphics, sizeof(s->graphics));
    save_bytes(save, s->attribute, sizeof(s->attribute));
    save_bool(save, s->attribute_takes_data);
    save_bool(save, s->dac_reads);
    save_bytes(save, s->dac, sizeof(s->dac));
    save_u32(save, s->latch);
    save_u16(save, s->dispi_index);
    for (unsigned i = 0; i < VGA_DISPI_REGISTERS; i++)
        save_u16(save, s->dispi[i]);
}

static bool bits_exist(const uint8_t *values, const uint8_t *bits, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (values[i] & ~bits[i])
            return false;
    return true;
}

bool vga_registers_load(struct vga_state *s, struct load *load)
{
    uint8_t *const bytes[] = {&s->misc,       &s->feature,        &s->seq_index,
                              &s->crtc_index, &s->graphics_index, &s->attribute_index,
                              &s->dac_mask,   &s->dac_index,      &s->dac_step};
    for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
        *bytes[i] = load_u8(load);
    load_bytes(load, s->seq, sizeof(s->seq));
    load_bytes(load, s->crtc, sizeof(s->crtc));
    load_bytes(load, s->graphics, sizeof(s->graphics));
    load_bytes(load, s->attribute, sizeof(s->attribute));
    s->attribute_takes_data = load_bool(load);
    s->dac_reads = load_bool(load);
    load_bytes(load, s->dac, sizeof(s->dac));
    s->latch = load_u32(load);
    s->dispi_index = load_u16(load);
    for (unsigned i = 0; i < VGA_DISPI_REGISTERS; i++)
        s->dispi[i] = load_u16(load);
    return !load->failed && s->dac_step < 3 && s->attribute_index < 0x40 &&
           bits_exist(s->seq, seq_bits, SEQ_COUNT) &&
           bits_exist(s->graphics, graphics_bits, GRAPHICS_COUNT) &&
           bits_exist(s->attribute, attribute_bits, ATTRIBUTE_COUNT);
}
