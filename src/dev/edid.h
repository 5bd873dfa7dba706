/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a monitor tells about itself: EDID 1.4 (VESA E-EDID standard, release A, revision 2).
 */
#ifndef SKEP_DEV_EDID_H
#define SKEP_DEV_EDID_H

#include <stdint.h>

enum { EDID_BYTES = 128, EDID_MAX_WIDTH = 4095, EDID_MAX_HEIGHT = 4095 };

/* The block of a digital monitor that prefers this size (at most EDID_MAX_*) and shows the usual
 * ones, at 60 Hz. */
void edid_fill(uint8_t edid[EDID_BYTES], uint32_t width, uint32_t height);

#endif
