/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The VGA as a PCI function: ports, the window, the frame buffer in BAR 0, registers in BAR 2 (laid
 * out as QEMU's docs/specs/standard-vga.txt tells), EDID; reset, save and load. vCPU threads come
 * from the bus, the loop's thread draws (screen.c).
 */
#include "dev/vga/vga_internal.h"

#include "dev/edid.h"
#include "dev/ports.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    VENDOR_BOCHS = 0x1234,
    DEVICE_STD_VGA = 0x1111,
    SUBSYSTEM_VENDOR = 0x1af4,
    SUBSYSTEM = 0x1100,
    REVISION_WITH_REGISTERS = 2,
    CLASS_VGA = 0x030000,
    BAR_MEMORY = 0,
    BAR_REGISTERS = 2,
};

enum { /* of BAR 2 */
       REGISTERS_EDID_BYTES = 0x400,
       REGISTERS_PORTS = 0x400, /* from port 3c0 on */
       REGISTERS_PORTS_BYTES = 0x20,
       REGISTERS_DISPI = 0x500,
       REGISTERS_DISPI_END = REGISTERS_DISPI + 2 * VGA_DISPI_REGISTERS,
       REGISTERS_EXTENSION = 0x600, /* its size, then the byte order */
       FIRST_MIRRORED_PORT = 0x10,  /* 3c0, counted from 3b0 */
};

static const uint32_t extension[2] = {8, 0x1e1e1e1e}; /* little-endian; it can't be changed */

/* ---- ports ---- */

static uint8_t read_port(void *opaque, unsigned port)
{
    return vga_port_read(opaque, port);
}

static void write_port(void *opaque, unsigned port, uint8_t value)
{
    vga_port_write(opaque, port, value);
}

static uint64_t ports_bus_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct vga *vga = opaque;
    pthread_mutex_lock(&vga->lock);
    uint64_t value = ports_read(read_port, vga, VGA_PORTS, offset, size_bytes);
    pthread_mutex_unlock(&vga->lock);
    return value;
}

static void ports_bus_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct vga *vga = opaque;
    pthread_mutex_lock(&vga->lock);
    ports_write(write_port, vga, VGA_PORTS, offset, value, size_bytes);
    pthread_mutex_unlock(&vga->lock);
}

/* The index at 1ce, data at 1cf and, for who does not like odd addresses, at 1d0. */
static uint64_t dispi_bus_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct vga *vga = opaque;
    pthread_mutex_lock(&vga->lock);
    uint64_t value = offset ? vga_dispi_read(vga, vga->s.dispi_index) : vga->s.dispi_index;
    pthread_mutex_unlock(&vga->lock);
    return value;
}

static void dispi_bus_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct vga *vga = opaque;
    pthread_mutex_lock(&vga->lock);
    if (offset)
        vga_dispi_write(vga, vga->s.dispi_index, (uint16_t)value);
    else
        vga->s.dispi_index = (uint16_t)value;
    pthread_mutex_unlock(&vga->lock);
}

/* ---- BAR 2 ---- */

static uint64_t read_bytes(const void *from, uint64_t from_bytes, uint64_t offset,
                           unsigned size_bytes)
{
    uint64_t value = 0;
    if (offset + size_bytes <= from_bytes)
        memcpy(&value, (const uint8_t *)from + offset, size_bytes);
    return value;
}

static uint64_t registers_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct vga *vga = opaque;
    uint64_t value = 0;
    if (offset < REGISTERS_EDID_BYTES)
        return read_bytes(vga->edid, sizeof(vga->edid), offset, size_bytes);
    pthread_mutex_lock(&vga->lock);
    if (offset < REGISTERS_PORTS + REGISTERS_PORTS_BYTES)
        value = ports_read(read_port, vga, VGA_PORTS,
                           offset - REGISTERS_PORTS + FIRST_MIRRORED_PORT, size_bytes);
    else if (offset >= REGISTERS_DISPI && offset < REGISTERS_DISPI_END)
        value = vga_dispi_read(vga, (unsigned)(offset - REGISTERS_DISPI) / 2);
    else if (offset >= REGISTERS_EXTENSION)
        value = read_bytes(extension, sizeof(extension), offset - REGISTERS_EXTENSION, size_bytes);
    pthread_mutex_unlock(&vga->lock);
    return value;
}

static void registers_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct vga *vga = opaque;
    pthread_mutex_lock(&vga->lock);
    if (offset >= REGISTERS_PORTS && offset < REGISTERS_PORTS + REGISTERS_PORTS_BYTES)
        ports_write(write_port, vga, VGA_PORTS, offset - REGISTERS_PORTS + FIRST_MIRRORED_PORT,
                    value, size_bytes);
    else if (offset >= REGISTERS_DISPI && offset < REGISTERS_DISPI_END)
        vga_dispi_write(vga, (unsigned)(offset - REGISTERS_DISPI) / 2, (uint16_t)value);
    pthread_mutex_unlock(&vga->lock);
}

/* ---- reset, save, load ---- */

static size_t page_count(const struct vga *vga)
{
    return vga->config.memory_bytes / VGA_PAGE_BYTES;
}

static void mark_all(struct vga *vga)
{
    for (size_t page = 0; page < page_count(vga); page++)
        vga_mark(vga, page * VGA_PAGE_BYTES);
}

/* Gives the pages back; they read as zero. */
static void clear_memory(struct vga *vga)
{
    if (madvise(vga->memory, vga->config.memory_bytes, MADV_DONTNEED) != 0)
        memset(vga->memory, 0, vga->config.memory_bytes);
    mark_all(vga);
}

static void vga_reset(void *device)
{
    struct vga *vga = device;
    pci_function_reset(vga->function);
    pthread_mutex_lock(&vga->lock);
    vga_registers_reset(&vga->s);
    clear_memory(vga);
    pthread_mutex_unlock(&vga->lock);
}

static bool is_zero(const uint8_t *page)
{
    return !page[0] && !memcmp(page, page + 1, VGA_PAGE_BYTES - 1);
}

/* Pages that are not all zero, each behind its number + 1; then a 0. */
static void save_memory(const struct vga *vga, struct save *save)
{
    save_u32(save, vga->config.memory_bytes);
    for (size_t page = 0; page < page_count(vga); page++) {
        const uint8_t *bytes = vga->memory + page * VGA_PAGE_BYTES;
        if (is_zero(bytes))
            continue;
        save_u32(save, (uint32_t)page + 1);
        save_bytes(save, bytes, VGA_PAGE_BYTES);
    }
    save_u32(save, 0);
}

static bool load_memory(struct vga *vga, struct load *load)
{
    if (load_u32(load) != vga->config.memory_bytes)
        return false;
    clear_memory(vga);
    for (size_t next = 0;;) {
        uint32_t number = load_u32(load);
        if (!number || load->failed)
            return !load->failed;
        if (number <= next || number > page_count(vga))
            return false;
        next = number;
        load_bytes(load, vga->memory + (size_t)(number - 1) * VGA_PAGE_BYTES, VGA_PAGE_BYTES);
    }
}

static void vga_save(void *device, struct save *save)
{
    struct vga *vga = device;
    pci_function_save(vga->function, save);
    pthread_mutex_lock(&vga->lock);
    vga_registers_save(&vga->s, save);
    save_memory(vga, save);
    pthread_mutex_unlock(&vga->lock);
}

static bool vga_load(void *device, struct load *load, uint32_t version)
{
    struct vga *vga = device;
    struct vga_state s = {0};
    if (version != 1 || !pci_function_load(vga->function, load))
        return false;
    pthread_mutex_lock(&vga->lock);
    bool ok = vga_registers_load(&s, load) && vga_dispi_valid(&s) && load_memory(vga, load);
    if (ok)
        vga->s = s;
    pthread_mutex_unlock(&vga->lock);
    if (!ok)
        vga_reset(vga);
    return ok;
}

/* ---- life ---- */

static void vga_destroy(void *device)
{
    struct vga *vga = device;
    ports_unmap_all(vga->bus, vga->ranges, vga->range_count);
    if (vga->function)
        pci_function_destroy(vga->function);
    if (vga->memory)
        munmap(vga->memory, vga->config.memory_bytes);
    free((void *)vga->dirty);
    free(vga->drawn.line);
    pthread_mutex_destroy(&vga->lock);
    free(vga);
}

const struct device_ops vga_ops = {
    .name = "vga",
    .version = 1,
    .reset = vga_reset,
    .save = vga_save,
    .load = vga_load,
    .destroy = vga_destroy,
};

static bool make_memory(struct vga *vga, struct error *err)
{
    void *memory = mmap(NULL, vga->config.memory_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    vga->dirty = calloc((page_count(vga) + 63) / 64, sizeof(*vga->dirty));
    if (memory != MAP_FAILED)
        vga->memory = memory;
    return (vga->memory && vga->dirty) || error_errno(err, "cannot create device", "vga", ENOMEM);
}

static bool make_function(struct vga *vga, struct error *err)
{
    const struct pci_function_config config = {
        .name = "vga",
        .slot = vga->config.slot,
        .function = vga->config.function,
        .vendor = VENDOR_BOCHS,
        .device = DEVICE_STD_VGA,
        .subsystem_vendor = SUBSYSTEM_VENDOR,
        .subsystem = SUBSYSTEM,
        .class_code = CLASS_VGA,
        .revision = REVISION_WITH_REGISTERS,
    };
    const struct pci_bar memory = {
        .is_prefetchable = true,
        .size_bytes = vga->config.memory_bytes,
        .hva = vga->memory,
        .is_logged = true,
    };
    const struct pci_bar registers = {
        .size_bytes = VGA_MMIO_BYTES,
        .read = registers_read,
        .write = registers_write,
        .opaque = vga,
    };
    vga->function = pci_function_create(vga->config.pci, &config, err);
    if (!vga->function)
        return false;
    pci_function_bar(vga->function, BAR_MEMORY, &memory);
    pci_function_bar(vga->function, BAR_REGISTERS, &registers);
    return !vga->config.rom ||
           pci_function_rom(vga->function, vga->config.rom, vga->config.rom_bytes, err);
}

static bool map_ranges(struct vga *vga, struct error *err)
{
    const struct bus_range ranges[] = {
        {"vga", BUS_PORT, vga->config.vga_port, VGA_PORTS, ports_bus_read, ports_bus_write, vga},
        {"vga", BUS_PORT, vga->config.dispi_port, VGA_DISPI_PORTS, dispi_bus_read, dispi_bus_write,
         vga},
        {"vga", BUS_MMIO, vga->config.window_base, VGA_WINDOW_BYTES, vga_window_read,
         vga_window_write, vga},
    };
    static_assert(sizeof(ranges) == sizeof(vga->ranges), "all are kept");
    memcpy(vga->ranges, ranges, sizeof(ranges));
    if (!ports_map_all(vga->bus, vga->ranges, sizeof(ranges) / sizeof(ranges[0]), err))
        return false;
    vga->range_count = sizeof(ranges) / sizeof(ranges[0]);
    return true;
}

struct vga *vga_create(const struct vga_config *config, struct error *err)
{
    assert(config->memory_bytes >= VGA_MEMORY_MIN_BYTES &&
           config->memory_bytes <= VGA_MEMORY_MAX_BYTES &&
           (config->memory_bytes & (config->memory_bytes - 1)) == 0);
    struct vga *vga = calloc(1, sizeof(*vga));
    if (!vga) {
        error_errno(err, "cannot create device", "vga", ENOMEM);
        return NULL;
    }
    pthread_mutex_init(&vga->lock, NULL);
    vga->config = *config;
    vga->bus = pci_bus_bus(config->pci);
    vga->display = (struct display_source){.refresh = vga_refresh, .opaque = vga};
    edid_fill(vga->edid, config->width, config->height);
    if (!make_memory(vga, err) || !make_function(vga, err) || !map_ranges(vga, err)) {
        vga_destroy(vga);
        return NULL;
    }
    vga_registers_reset(&vga->s);
    return vga;
}

const struct display_source *vga_display(const struct vga *vga)
{
    return &vga->display;
}
