/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A VGA with the Bochs display interface, as a PCI function: registers and modes of IBM's VGA, up
 * to 32 bits a pixel through the interface's registers, EDID. What QEMU's "std" VGA offers, so that
 * SeaBIOS's VGA BIOS, OVMF and Linux's bochs driver find what they know.
 */
#ifndef SKEP_DEV_VGA_VGA_H
#define SKEP_DEV_VGA_VGA_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/display.h"
#include "bus/physmap.h"
#include "dev/pci.h"

#include <stdint.h>

enum {
    VGA_MEMORY_MIN_BYTES = 1 << 20,
    VGA_MEMORY_MAX_BYTES = 256 << 20,
    VGA_MEMORY_DEFAULT_BYTES = 16 << 20,
};

struct vga;

struct vga_config {
    struct pci_bus *pci;
    unsigned slot, function;
    uint16_t vga_port;       /* 0x3b0 on a PC: 48 ports */
    uint16_t dispi_port;     /* 0x1ce: 4 ports */
    uint64_t window_base;    /* 0xa0000: 128 KiB */
    uint32_t memory_bytes;   /* a power of two, VGA_MEMORY_MIN_BYTES … VGA_MEMORY_MAX_BYTES */
    uint32_t width, height;  /* what the monitor prefers */
    struct clock *clock;     /* of the beam */
    struct physmap *physmap; /* where the frame buffer is seen */
    const void *rom;         /* its BIOS, copied; NULL: none */
    size_t rom_bytes;
};

/* `pci`, `clock` and `physmap` must outlive it; the memory stays until no vCPU runs any more. NULL
 * and `err` filled on failure. Free with vga_ops.destroy. */
struct vga *vga_create(const struct vga_config *config, struct error *err);

/* Its screen; lives as long as the device. */
const struct display_source *vga_display(const struct vga *vga);

extern const struct device_ops vga_ops;

#endif
