/* SPDX-License-Identifier: BSD-2-Clause
 * PNG files; see screenshot.h. */
#include "host/screenshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char what[] = "cannot write the screenshot";

#ifdef SKEP_HAVE_PNG

#include <png.h>

/* libpng would print it, and end the process. */
static void on_error(png_structp png, png_const_charp text)
{
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) {}

/* A line of three bytes a pixel. */
static void take_line(const struct display_canvas *canvas, uint32_t y, uint8_t *line)
{
    const uint32_t *pixels = canvas->pixels + (size_t)y * canvas->stride_pixels;
    for (uint32_t x = 0; x < canvas->width; x++) {
        line[3 * x] = (uint8_t)(pixels[x] >> 16);
        line[3 * x + 1] = (uint8_t)(pixels[x] >> 8);
        line[3 * x + 2] = (uint8_t)pixels[x];
    }
}

/* libpng's way of errors is a jump to here: all that it must not lose was made by the caller. */
static bool encode(png_structp png, png_infop info, FILE *file, uint8_t *line,
                   const struct display_canvas *canvas)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_init_io(png, file);
    png_set_compression_level(png, 3); /* the machine waits for it */
    png_set_IHDR(png, info, canvas->width, canvas->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (uint32_t y = 0; y < canvas->height; y++) {
        take_line(canvas, y, line);
        png_write_row(png, line);
    }
    png_write_end(png, info);
    return true;
}

static bool write_file(FILE *file, const struct display_canvas *canvas)
{
    uint8_t *line = malloc(3 * (size_t)canvas->width);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    errno = ENOMEM;
    bool done = line && info && encode(png, info, file, line, canvas);
    png_destroy_write_struct(&png, &info);
    free(line);
    return done;
}

bool screenshot_save(const struct display_canvas *canvas, const char *path, struct error *err)
{
    char *temporary;
    if (asprintf(&temporary, "%s.%ld.part", path, (long)getpid()) < 0)
        return error_errno(err, what, path, ENOMEM);
    FILE *file = fopen(temporary, "wxe");
    bool done = file && write_file(file, canvas);
    int error = errno;
    if (file && fclose(file) != 0 && done) {
        done = false;
        error = errno;
    }
    if (done && rename(temporary, path) != 0) {
        done = false;
        error = errno;
    }
    if (!done && file)
        unlink(temporary);
    free(temporary);
    if (done)
        return true;
    error_errno(err, what, path, error);
    return error_hint(err, "name a file that can be made, in a folder that is there");
}

#else

bool screenshot_save(const struct display_canvas *canvas, const char *path, struct error *err)
{
    error_set(err, what, path, "this skep was built without libpng");
    return error_hint(err, "install libpng-dev and build skep anew");
}

#endif
