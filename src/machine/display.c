/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The machine's screen: makes the graphics device that the configuration names, and shows it where
 * it says. On the loop's thread.
 */
#include "dev/vga/vga.h"
#include "dev/virtio/gpu.h"
#include "host/screen.h"
#include "host/screenshot.h"
#include "host/vnc.h"
#include "machine/machine_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { VGA_BIOS_MAX_BYTES = 65536 };

static void on_key(void *opaque, unsigned key, bool is_down)
{
    machine_key(opaque, key, is_down);
}

static void on_pointer(void *opaque, const struct input_pointer *pointer)
{
    machine_pointer(opaque, pointer);
}

static void on_release(void *opaque)
{
    machine_release_input(opaque);
}

/* Also where a saved machine says so. */
static bool check(const struct machine_config *config, struct error *err)
{
    static const char what[] = "cannot make a screen";
    uint32_t memory = config->vga_memory_bytes, width = config->screen_width,
             height = config->screen_height;
    if (memory && (memory < MACHINE_MIN_VGA_MEMORY_BYTES || memory > MACHINE_MAX_VGA_MEMORY_BYTES ||
                   (memory & (memory - 1))))
        return error_usage(err, what, NULL,
                           "%u KiB of video memory are not a power of two from 1M to 256M",
                           memory >> 10);
    if ((width || height) && (width < MACHINE_MIN_SCREEN || width > MACHINE_MAX_SCREEN ||
                              height < MACHINE_MIN_SCREEN || height > MACHINE_MAX_SCREEN))
        return error_usage(err, what, NULL, "%ux%u is no size from %dx%d to %dx%d", width, height,
                           MACHINE_MIN_SCREEN, MACHINE_MIN_SCREEN, MACHINE_MAX_SCREEN,
                           MACHINE_MAX_SCREEN);
    return true;
}

bool display_open(struct machine *machine, struct error *err)
{
    const struct machine_display *display = &machine->config.display;
    const struct vnc_config config = {
        .where = display->vnc,
        .password_file = display->password_file,
        .keymap = display->keymap,
        .input = {on_key, on_pointer, on_release, machine},
    };
    if (!check(&machine->config, err))
        return false;
    if (!display->vnc)
        return true;
    if (machine->config.vga == MACHINE_VGA_NONE) {
        error_usage(err, "cannot show a screen", display->vnc, "the machine has none");
        return error_hint(err, "give it one with --vga std or --vga virtio");
    }
    machine->vnc = vnc_create(&config, machine->loop, err);
    return machine->vnc;
}

/* SeaBIOS's, of Debian's package: what firmware shows text with. A kernel that is booted directly
 * has a driver of its own. */
static void *read_vga_bios(const struct machine *machine, size_t *size_bytes)
{
    static const char path[] = "/usr/share/seabios/vgabios-stdvga.bin";
    if (!machine->config.rom)
        return NULL;
    FILE *file = fopen(path, "re");
    uint8_t *bytes = malloc(VGA_BIOS_MAX_BYTES);
    *size_bytes = file && bytes ? fread(bytes, 1, VGA_BIOS_MAX_BYTES, file) : 0;
    if (file)
        fclose(file);
    if (*size_bytes)
        return bytes;
    free(bytes);
    log_write(machine->log, LOG_WARNING, "display",
              "%s is not there (package seabios): the firmware may show nothing", path);
    return NULL;
}

static bool plug_std(struct machine *machine, struct display_source *source, struct error *err)
{
    const struct machine_config *config = &machine->config;
    size_t rom_bytes = 0;
    void *rom = read_vga_bios(machine, &rom_bytes);
    const struct q35_vga vga = {
        .memory_bytes = config->vga_memory_bytes,
        .width = config->screen_width,
        .height = config->screen_height,
        .rom = rom,
        .rom_bytes = rom_bytes,
    };
    const struct vga *device = q35_plug_vga(machine->board, &vga, err);
    free(rom);
    if (device)
        *source = *vga_display(device);
    return device;
}

static bool plug_virtio(struct machine *machine, struct display_source *source, struct error *err)
{
    const struct machine_config *config = &machine->config;
    const struct virtio_gpu_config gpu = {
        .ram = machine->ram,
        .loop = machine->loop,
        .log = machine->log,
        .width = config->screen_width ? config->screen_width : Q35_SCREEN_WIDTH,
        .height = config->screen_height ? config->screen_height : Q35_SCREEN_HEIGHT,
    };
    const struct q35_place place = q35_place(machine->board, Q35_GRAPHICS, 0);
    struct virtio_device *device = virtio_gpu_create(&gpu, err);
    if (!device || !q35_plug(machine->board, &place, device, err))
        return false;
    *source = *virtio_gpu_display(device);
    return true;
}

bool display_plug(struct machine *machine, struct error *err)
{
    struct display_source source = {0};
    switch (machine->config.vga) {
    case MACHINE_VGA_STD:
        if (!plug_std(machine, &source, err))
            return false;
        break;
    case MACHINE_VGA_VIRTIO:
        if (!plug_virtio(machine, &source, err))
            return false;
        break;
    case MACHINE_VGA_NONE:
    case MACHINE_VGAS: return true;
    }
    machine->screen = screen_create(machine->loop, &source, err);
    return machine->screen && (!machine->vnc || vnc_start(machine->vnc, machine->screen, err));
}

void display_close(struct machine *machine)
{
    vnc_destroy(machine->vnc);
    machine->vnc = NULL;
    screen_destroy(machine->screen);
    machine->screen = NULL;
}

bool machine_screenshot(struct machine *machine, const char *path, struct error *err)
{
    static const char what[] = "cannot take a screenshot";
    if (!machine->screen) {
        error_set(err, what, path, "the machine has no screen");
        return error_hint(err, "start it with --vga std or --vga virtio");
    }
    const struct display_canvas *canvas = screen_look(machine->screen);
    if (!canvas)
        return error_set(err, what, path, "out of memory");
    return screenshot_save(canvas, path, err);
}

const char *machine_vnc_address(const struct machine *machine)
{
    return machine->vnc ? vnc_address(machine->vnc) : NULL;
}
