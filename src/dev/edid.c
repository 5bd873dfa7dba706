/* SPDX-License-Identifier: BSD-2-Clause
 *
 * EDID 1.4. The preferred mode's timing is by CVT with reduced blanking (VESA CVT 1.2, 5.4): no
 * beam has to fly back here, the numbers only have to be such as a driver accepts.
 */
#include "dev/edid.h"

#include <string.h>

enum {
    REFRESH_HZ = 60,
    DOTS_PER_INCH = 96,
    /* CVT 1.2, 5.4: reduced blanking */
    H_BLANK = 160,
    H_FRONT = 48,
    H_SYNC = 32,
    V_FRONT = 3,
    V_SYNC = 10,
    V_BLANK_US = 460,
    CLOCK_STEP_HZ = 250000,
};

/* 3.9: standard timings, 60 Hz. */
static const struct {
    uint16_t width;
    uint8_t aspect; /* 0: 16:10, 1: 4:3, 2: 5:4, 3: 16:9 */
} standard[8] = {{1920, 3}, {1680, 0}, {1600, 3}, {1600, 1},
                 {1440, 0}, {1280, 2}, {1280, 3}, {1280, 0}};

static uint32_t millimetres(uint32_t pixels)
{
    return pixels * 254 / (10 * DOTS_PER_INCH);
}

/* 3.10.2: a detailed timing descriptor. */
static void put_timing(uint8_t *at, uint32_t width, uint32_t height)
{
    /* A line takes what is left of the frame's time after the least vertical blank. */
    uint32_t line_ns = (1000000000 / REFRESH_HZ - V_BLANK_US * 1000) / height;
    uint32_t v_blank = V_BLANK_US * 1000 / line_ns + 1;
    if (v_blank < V_FRONT + V_SYNC + 6)
        v_blank = V_FRONT + V_SYNC + 6;
    uint64_t hz = (uint64_t)REFRESH_HZ * (width + H_BLANK) * (height + v_blank);
    uint64_t clock = hz / CLOCK_STEP_HZ * CLOCK_STEP_HZ / 10000; /* in units of 10 kHz */
    if (clock > UINT16_MAX)
        clock = UINT16_MAX; /* such a screen is slower than 60 Hz */
    uint32_t wide_mm = millimetres(width), high_mm = millimetres(height);
    const uint8_t bytes[18] = {
        (uint8_t)clock,
        (uint8_t)(clock >> 8),
        (uint8_t)width,
        H_BLANK,
        (uint8_t)(width >> 8 << 4),
        (uint8_t)height,
        (uint8_t)v_blank,
        (uint8_t)(height >> 8 << 4 | v_blank >> 8),
        H_FRONT,
        H_SYNC,
        V_FRONT << 4 | V_SYNC,
        0,
        (uint8_t)wide_mm,
        (uint8_t)high_mm,
        (uint8_t)(wide_mm >> 8 << 4 | high_mm >> 8),
        0,
        0,
        0x1a, /* digital, separate sync, horizontal positive: as CVT with reduced blanking has it */
    };
    memcpy(at, bytes, sizeof(bytes));
}

/* 3.10.3: a display descriptor with text. */
static void put_text(uint8_t *at, uint8_t tag, const char *text)
{
    size_t length = strlen(text);
    at[3] = tag;
    memset(at + 5, ' ', 13);
    memcpy(at + 5, text, length);
    at[5 + length] = '\n';
}

/* 3.10.3.3: 50 to 125 Hz, 30 to 160 kHz, up to 660 MHz, and nothing else said. */
static void put_limits(uint8_t *at)
{
    const uint8_t bytes[18] = {0,  0, 0,    0xfd, 0,   50,  125, 30,  160,
                               66, 1, '\n', ' ',  ' ', ' ', ' ', ' ', ' '};
    memcpy(at, bytes, sizeof(bytes));
}

void edid_fill(uint8_t edid[EDID_BYTES], uint32_t width, uint32_t height)
{
    static const uint8_t header[8] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    /* 3.7: sRGB */
    static const uint8_t colors[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    memset(edid, 0, EDID_BYTES);
    memcpy(edid, header, sizeof(header));
    edid[8] = ('S' - '@') << 2 | ('K' - '@') >> 3; /* 3.4.1: "SKP", three letters of 5 bits */
    edid[9] = (uint8_t)(('K' - '@') << 5 | ('P' - '@'));
    edid[10] = 1; /* product */
    edid[17] = 2024 - 1990;
    edid[18] = 1;
    edid[19] = 4;
    edid[20] = 0xa5; /* digital, 8 bits a colour, DisplayPort */
    edid[21] = (uint8_t)(millimetres(width) / 10);
    edid[22] = (uint8_t)(millimetres(height) / 10);
    edid[23] = 120;  /* gamma 2.2 */
    edid[24] = 0x06; /* sRGB, the first timing is the native one */
    memcpy(edid + 25, colors, sizeof(colors));
    edid[35] = 0x21; /* 3.8: 640x480, 800x600 */
    edid[36] = 0x08; /* 1024x768 */
    for (unsigned i = 0; i < 8; i++) {
        edid[38 + 2 * i] = (uint8_t)(standard[i].width / 8 - 31);
        edid[39 + 2 * i] = (uint8_t)(standard[i].aspect << 6 | (REFRESH_HZ - 60));
    }
    put_timing(edid + 54, width, height);
    put_limits(edid + 72);
    put_text(edid + 90, 0xfc, "skep");
    put_text(edid + 108, 0xff, "1");
    uint8_t sum = 0;
    for (unsigned i = 0; i < EDID_BYTES - 1; i++)
        sum = (uint8_t)(sum + edid[i]);
    edid[127] = (uint8_t)-sum;
}
