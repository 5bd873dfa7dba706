/* SPDX-License-Identifier: BSD-2-Clause
 * Pictures of a screen as PNG files, through libpng. */
#ifndef SKEP_HOST_SCREENSHOT_H
#define SKEP_HOST_SCREENSHOT_H

#include "base/error.h"
#include "bus/display.h"

#include <stdbool.h>

/* Writes the canvas to a file, which is replaced if there is one. On failure nothing is left
 * behind. Fails, too, where skep was built without libpng. */
bool screenshot_save(const struct display_canvas *canvas, const char *path, struct error *err);

#endif
