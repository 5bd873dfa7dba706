/* SPDX-License-Identifier: BSD-2-Clause
 * skep run --vga and --display. */
#include "cli/display.h"

#include "cli/option.h"

#include <stdio.h>
#include <string.h>

/* What is behind "name=" in a piece; NULL: it is another one. */
static char *value_of(char *piece, const char *name)
{
    size_t length = strlen(name);
    return strncmp(piece, name, length) == 0 && piece[length] == '=' ? piece + length + 1 : NULL;
}

static bool parse_screen_size(struct machine_config *machine, const char *text, struct error *err)
{
    char end;
    if (sscanf(text, "%5ux%5u%c", &machine->screen_width, &machine->screen_height, &end) == 2 &&
        machine->screen_width && machine->screen_height)
        return true;
    error_usage(err, "size of a screen", text, "it is not of the form WIDTHxHEIGHT");
    return error_hint(err, "as in --vga std,size=1024x768");
}

static bool vga_option(struct machine_config *machine, char *piece, struct error *err)
{
    const char *memory = value_of(piece, "memory"), *size = value_of(piece, "size");
    unsigned long long bytes;
    if (size)
        return parse_screen_size(machine, size, err);
    if (!memory || machine->vga != MACHINE_VGA_STD) {
        error_usage(err, "option of a graphics device", piece, "it is not known");
        return error_hint(err, "known are size=WIDTHxHEIGHT and, of std, memory=SIZE");
    }
    if (!parse_size(memory, 1 << 20, &bytes, err))
        return false;
    /* What fits no register is refused with the rest by the machine. */
    machine->vga_memory_bytes = bytes <= UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
    return true;
}

bool display_parse_vga(struct machine_config *machine, char *value, struct error *err)
{
    const char *name = strsep(&value, ",");
    if (!machine_vga_find(name, &machine->vga)) {
        error_usage(err, "graphics device", name, "there is no such kind");
        return error_hint(err, "the kinds are std, virtio and none");
    }
    while (value)
        if (!vga_option(machine, strsep(&value, ","), err))
            return false;
    return true;
}

static bool display_option(struct machine_display *display, char *piece, struct error *err)
{
    const char *password = value_of(piece, "password-file"), *keymap = value_of(piece, "keymap");
    if (password)
        display->password_file = password;
    else if (keymap)
        display->keymap = keymap;
    if (password || keymap)
        return true;
    error_usage(err, "option of a display", piece, "it is not known");
    return error_hint(err, "known are password-file=FILE and keymap=NAME");
}

bool display_parse_display(struct machine_config *machine, char *value, struct error *err)
{
    char *kind = strsep(&value, ",");
    machine->display = (struct machine_display){.vnc = value_of(kind, "vnc")};
    if (!machine->display.vnc && strcmp(kind, "none") != 0) {
        error_usage(err, "display", kind, "there is no such kind");
        return error_hint(err, "the kinds are none, vnc=[ADDR:]PORT, vnc=:N and vnc=unix:PATH");
    }
    while (value)
        if (!display_option(&machine->display, strsep(&value, ","), err))
            return false;
    return true;
}
