/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The AHCI controller: its PCI function, its own registers (AHCI 1.3, 3.1), interrupts, saved
 * state. What is left out and which threads run it: see ahci.h.
 */
#include "dev/storage/ahci_internal.h"

#include <stdlib.h>
#include <string.h>

enum { VENDOR_INTEL = 0x8086, DEVICE_ICH9_AHCI = 0x2922, CLASS_AHCI = 0x010601, REVISION = 2 };
enum { CONFIG_MAP = 0x90, CONFIG_MAP_AHCI = 0x40, CONFIG_PORTS = 0x92 };
enum { ABAR = 5, ABAR_BYTES = 4096, PORTS_BASE = 0x100, PORT_BYTES = 0x80 };

enum { /* registers */
       REG_CAP = 0x00,
       REG_GHC = 0x04,
       REG_IS = 0x08,
       REG_PI = 0x0c,
       REG_VS = 0x10,
};

#define CAP_VALUE                                                                                  \
    (UINT32_C(0x80000000) /* 64-bit addresses */ | UINT32_C(0x40000000) /* command queuing */ |    \
     UINT32_C(0x01000000) /* CLO */ | UINT32_C(0x00200000) /* 3 Gbit/s */ |                        \
     UINT32_C(0x00040000) /* AHCI only */ | UINT32_C(0x00008000) /* PIO of several blocks */ |     \
     (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1))
#define GHC_RESET      UINT32_C(0x00000001)
#define GHC_INTERRUPTS UINT32_C(0x00000002)
#define GHC_AHCI       UINT32_C(0x80000000)
#define VERSION_1_3    UINT32_C(0x00010300)

/* ---- interrupts ---- */

void ahci_interrupt(struct ahci *ahci, bool again)
{
    uint32_t old = ahci->is;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (ahci_port_causes(&ahci->ports[i]) & ahci->ports[i].ie)
            ahci->is |= UINT32_C(1) << i;
    bool is_up = ahci->interrupts && ahci->is;
    pci_function_intx(ahci->function, is_up);
    if (is_up && (again || (ahci->is & ~old)))
        msi_notify(ahci->msi);
}

/* ---- registers ---- */

static bool any_busy(const struct ahci *ahci)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (ahci->ports[i].busy)
            return true;
    return false;
}

/* 10.4.3: all but what firmware sets up is as after power on. */
static void controller_reset(struct ahci *ahci)
{
    ahci->is_resetting = false;
    ahci->interrupts = false;
    ahci->is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_reset(&ahci->ports[i], false);
}

void ahci_idle(struct ahci *ahci)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (!ahci->ports[i].busy)
            ahci_port_idle(&ahci->ports[i]);
    if (ahci->is_resetting && !any_busy(ahci))
        controller_reset(ahci);
}

static void write_ghc(struct ahci *ahci, uint32_t value)
{
    bool was_enabled = ahci->interrupts;
    ahci->interrupts = value & GHC_INTERRUPTS;
    if (value & GHC_RESET) {
        for (unsigned i = 0; i < AHCI_PORTS; i++)
            ahci_port_orphan(&ahci->ports[i]);
        ahci->is_resetting = true;
        if (!any_busy(ahci))
            controller_reset(ahci);
    }
    ahci_interrupt(ahci, ahci->interrupts && !was_enabled);
}

static uint32_t read_register(const struct ahci *ahci, unsigned offset)
{
    if (offset >= PORTS_BASE) {
        unsigned index = (offset - PORTS_BASE) / PORT_BYTES;
        return index < AHCI_PORTS ? ahci_port_read(&ahci->ports[index], offset % PORT_BYTES) : 0;
    }
    switch (offset) {
    case REG_CAP: return CAP_VALUE;
    case REG_GHC:
        return GHC_AHCI | (ahci->interrupts ? GHC_INTERRUPTS : 0) |
               (ahci->is_resetting ? GHC_RESET : 0);
    case REG_IS: return ahci->is;
    case REG_PI: return (UINT32_C(1) << AHCI_PORTS) - 1;
    case REG_VS: return VERSION_1_3;
    default: return 0;
    }
}

static void write_register(struct ahci *ahci, unsigned offset, uint32_t value)
{
    if (ahci->is_resetting)
        return;
    if (offset >= PORTS_BASE) {
        unsigned index = (offset - PORTS_BASE) / PORT_BYTES;
        if (index < AHCI_PORTS)
            ahci_port_write(&ahci->ports[index], offset % PORT_BYTES, value);
        ahci_interrupt(ahci, false);
    } else if (offset == REG_GHC) {
        write_ghc(ahci, value);
    } else if (offset == REG_IS) {
        ahci->is &= ~value;
        ahci_interrupt(ahci, true);
    }
}

static uint64_t abar_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct ahci *ahci = opaque;
    unsigned at = (unsigned)offset & ~3u, shift = 8 * (offset & 3);
    if (offset + size_bytes > ABAR_BYTES)
        return UINT64_MAX;
    pthread_mutex_lock(&ahci->lock);
    uint64_t value = read_register(ahci, at);
    if (shift / 8 + size_bytes > 4)
        value |= (uint64_t)read_register(ahci, at + 4) << 32;
    pthread_mutex_unlock(&ahci->lock);
    return value >> shift;
}

/* 3: registers are written as whole double words; a quad word is two of them. */
static void abar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct ahci *ahci = opaque;
    if (size_bytes < 4 || offset % 4 || offset + size_bytes > ABAR_BYTES)
        return;
    pthread_mutex_lock(&ahci->lock);
    write_register(ahci, (unsigned)offset, (uint32_t)value);
    if (size_bytes == 8)
        write_register(ahci, (unsigned)offset + 4, (uint32_t)(value >> 32));
    pthread_mutex_unlock(&ahci->lock);
}

/* ---- saved state: all commands have ended ---- */

static void save_port(const struct ahci_port *port, struct save *save)
{
    save_u64(save, port->clb);
    save_u64(save, port->fb);
    const uint32_t words[] = {port->is,   port->ie,   port->cmd,   port->tfd,
                              port->sig,  port->ssts, port->sctl,  port->serr,
                              port->sact, port->ci,   port->issued};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        save_u32(save, words[i]);
    save_u8(save, (uint8_t)port->current);
    save_bool(save, port->is_halted);
    save_bool(save, port->is_resetting);
    if (port->drive)
        ata_drive_save(port->drive, save);
}

static void ahci_save(void *opaque, struct save *save)
{
    struct ahci *ahci = opaque;
    pci_function_save(ahci->function, save);
    pthread_mutex_lock(&ahci->lock);
    save_bool(save, ahci->interrupts);
    save_u32(save, ahci->is);
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        save_port(&ahci->ports[i], save);
    pthread_mutex_unlock(&ahci->lock);
}

static void load_port(struct ahci_port *port, struct load *load)
{
    port->clb = load_u64(load) & ~UINT64_C(0x3ff);
    port->fb = load_u64(load) & ~UINT64_C(0xff);
    uint32_t *words[] = {&port->is,   &port->ie,   &port->cmd,   &port->tfd,
                         &port->sig,  &port->ssts, &port->sctl,  &port->serr,
                         &port->sact, &port->ci,   &port->issued};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        *words[i] = load_u32(load);
    port->current = load_u8(load);
    port->is_halted = load_bool(load);
    port->is_resetting = load_bool(load);
    port->is &= ~(IS_PCS | IS_PRCS);
    port->cmd &= CMD_STORED;
    /* Only a command that failed is left with the drive. */
    if (port->current >= AHCI_SLOTS || (port->issued && !port->is_halted) ||
        (!port->drive && port->ssts & 0xf))
        load_fail(load);
    if (port->drive && !load->failed)
        ata_drive_load(port->drive, load);
}

static void ahci_reset(void *opaque)
{
    struct ahci *ahci = opaque;
    pci_function_reset(ahci->function);
    msi_update(ahci->msi);
    pthread_mutex_lock(&ahci->lock);
    ahci->is_resetting = ahci->interrupts = false;
    ahci->is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_reset(&ahci->ports[i], true);
    ahci_interrupt(ahci, false);
    pthread_mutex_unlock(&ahci->lock);
}

static bool ahci_load(void *opaque, struct load *load, uint32_t version)
{
    struct ahci *ahci = opaque;
    if (version != ahci_ops.version || !pci_function_load(ahci->function, load))
        load_fail(load);
    msi_update(ahci->msi);
    pthread_mutex_lock(&ahci->lock);
    ahci->interrupts = load_bool(load);
    ahci->is = load_u32(load);
    if (ahci->is >> AHCI_PORTS)
        load_fail(load);
    for (unsigned i = 0; i < AHCI_PORTS && !load->failed; i++)
        load_port(&ahci->ports[i], load);
    if (!load->failed)
        ahci_interrupt(ahci, false);
    pthread_mutex_unlock(&ahci->lock);
    if (load->failed)
        ahci_reset(ahci);
    return !load->failed;
}

/* ---- life ---- */

static void config_written(void *opaque, unsigned offset, unsigned size_bytes)
{
    struct ahci *ahci = opaque;
    msi_config_written(ahci->msi, offset, size_bytes);
}

static void ahci_destroy(void *opaque)
{
    struct ahci *ahci = opaque;
    msi_destroy(ahci->msi);
    if (ahci->function)
        pci_function_destroy(ahci->function);
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        ata_drive_destroy(ahci->ports[i].drive);
        for (unsigned slot = 0; slot < AHCI_SLOTS; slot++)
            dma_list_free(&ahci->ports[i].slots[slot].list);
    }
    pthread_mutex_destroy(&ahci->lock);
    free(ahci);
}

static bool create_function(struct ahci *ahci, struct error *err)
{
    const struct pci_function_config config = {
        .name = ahci_ops.name,
        .slot = ahci->config.slot,
        .function = ahci->config.function,
        .vendor = VENDOR_INTEL,
        .device = DEVICE_ICH9_AHCI,
        .subsystem_vendor = 0x1af4,
        .subsystem = 0x1100,
        .class_code = CLASS_AHCI,
        .revision = REVISION,
        .pin = 1,
        .written = config_written,
        .opaque = ahci,
    };
    const struct pci_bar bar = {
        .size_bytes = ABAR_BYTES, .read = abar_read, .write = abar_write, .opaque = ahci};
    ahci->function = pci_function_create(ahci->config.pci, &config, err);
    if (!ahci->function)
        return false;
    ahci->msi = msi_create(ahci->function, &ahci->config.msi, err);
    if (!ahci->msi)
        return false;
    pci_function_bar(ahci->function, ABAR, &bar);
    /* ICH9, 15.1.30 and 15.1.31: in AHCI mode, and which ports are enabled. */
    pci_function_init(ahci->function, CONFIG_MAP, CONFIG_MAP_AHCI, 1);
    pci_function_init(ahci->function, CONFIG_PORTS, (1 << AHCI_PORTS) - 1, 2);
    pci_function_writable(ahci->function, CONFIG_PORTS, (1 << AHCI_PORTS) - 1, 2);
    return true;
}

struct ahci *ahci_create(const struct ahci_config *config, struct error *err)
{
    struct ahci *ahci = calloc(1, sizeof(*ahci));
    if (!ahci) {
        error_set(err, "cannot create device", ahci_ops.name, "out of memory");
        for (unsigned i = 0; i < AHCI_PORTS; i++)
            ata_drive_destroy(config->drives[i]);
        return NULL;
    }
    ahci->config = *config;
    pthread_mutex_init(&ahci->lock, NULL);
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *port = &ahci->ports[i];
        port->ahci = ahci;
        port->drive = config->drives[i];
        for (unsigned slot = 0; slot < AHCI_SLOTS; slot++)
            port->slots[slot].port = port;
        ahci_port_reset(port, true);
    }
    if (!create_function(ahci, err)) {
        ahci_destroy(ahci);
        return NULL;
    }
    return ahci;
}

const struct device_ops ahci_ops = {
    .name = "ich9-ahci",
    .version = 1,
    .reset = ahci_reset,
    .save = ahci_save,
    .load = ahci_load,
    .destroy = ahci_destroy,
};
