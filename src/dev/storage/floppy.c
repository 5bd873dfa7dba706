/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Floppy controller 82077AA in AT mode: registers (data sheet, 2.1), drives and their disks, life.
 * Left out: the status registers A and B, which AT mode hasn't got, tape drives, power down.
 */
#include "dev/storage/floppy_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    REG_DOR = 2, /* from the base */
    REG_TDR = 3,
    REG_MSR = 4, /* write: DSR */
    REG_FIFO = 5,
    REG_DIR = 7, /* write: CCR */
    LOW_PORTS = 4,

    DSR_RESET = 0x80,
    DIR_CHANGED = 0x80,
    MSR_READY = 0x80,
    MSR_TO_GUEST = 0x40,
    MSR_NO_DMA = 0x20,
    MSR_BUSY = 0x10,
};

static const struct floppy_geometry geometries[] = {
    {160, 40, 1, 8, FLOPPY_360K, 2},    {180, 40, 1, 9, FLOPPY_360K, 2},
    {320, 40, 2, 8, FLOPPY_360K, 2},    {360, 40, 2, 9, FLOPPY_360K, 2},
    {720, 80, 2, 9, FLOPPY_1440K, 2},   {1200, 80, 2, 15, FLOPPY_1200K, 0},
    {1440, 80, 2, 18, FLOPPY_1440K, 0}, {2880, 80, 2, 36, FLOPPY_2880K, 3},
};

/* ---- drives ---- */

static const struct floppy_geometry *geometry_of(uint64_t size_bytes)
{
    for (unsigned i = 0; i < sizeof(geometries) / sizeof(geometries[0]); i++)
        if (geometries[i].kib * UINT64_C(1024) == size_bytes)
            return &geometries[i];
    return NULL;
}

enum floppy_drive_type floppy_type_for(uint64_t size_bytes)
{
    const struct floppy_geometry *geometry = geometry_of(size_bytes);
    return geometry ? geometry->drive : FLOPPY_NONE;
}

/* A drive of 2880K takes what one of 1440K does. */
static bool drive_takes(const struct floppy_drive *drive, const struct floppy_geometry *geometry)
{
    return geometry->drive == drive->type ||
           (geometry->drive == FLOPPY_1440K && drive->type == FLOPPY_2880K);
}

/* False: not a floppy's size. The drive's type is the medium's when it has none yet. */
static bool insert(struct floppy_drive *drive, const struct block_backend *medium)
{
    struct block_info info;
    medium->info(medium->opaque, &info);
    const struct floppy_geometry *geometry = geometry_of(info.size_bytes);
    if (!geometry || (drive->type && !drive_takes(drive, geometry)))
        return false;
    if (!drive->type)
        drive->type = geometry->drive;
    drive->medium = *medium;
    drive->geometry = geometry;
    drive->read_only = info.read_only;
    drive->has_medium = true;
    return true;
}

struct floppy_drive *floppy_drive_of(struct floppy *f, unsigned unit)
{
    return unit < FLOPPY_DRIVES && f->drive[unit].is_there ? &f->drive[unit] : NULL;
}

enum floppy_drive_type floppy_drive_type(const struct floppy *f, unsigned drive)
{
    return f->drive[drive].is_there ? f->drive[drive].type : FLOPPY_NONE;
}

bool floppy_change_medium(struct floppy *f, unsigned unit, const struct block_backend *medium)
{
    struct floppy_drive *drive = floppy_drive_of(f, unit);
    bool fits = drive;
    if (!drive)
        return false;
    pthread_mutex_lock(&f->lock);
    struct floppy_drive old = *drive;
    drive->has_medium = false;
    drive->is_changed = true;
    if (medium)
        fits = insert(drive, medium);
    if (!fits)
        *drive = old;
    pthread_mutex_unlock(&f->lock);
    if (fits && old.has_medium)
        old.medium.drain(old.medium.opaque);
    return fits;
}

/* ---- registers ---- */

/* The line is the controller's only while DOR connects it. */
void floppy_set_interrupt(struct floppy *f, bool level)
{
    f->interrupt = level;
    irq_set(&f->config.irq, f->interrupt && f->dor & DOR_DMA);
}

static uint8_t main_status(const struct floppy *f)
{
    static const uint8_t bits[FLOPPY_PHASES] = {
        [FLOPPY_IDLE] = MSR_READY,
        [FLOPPY_COMMAND] = MSR_READY | MSR_BUSY,
        [FLOPPY_BUSY] = MSR_BUSY,
        [FLOPPY_TAKES] = MSR_READY | MSR_NO_DMA | MSR_BUSY,
        [FLOPPY_GIVES] = MSR_READY | MSR_TO_GUEST | MSR_NO_DMA | MSR_BUSY,
        [FLOPPY_RESULTS] = MSR_READY | MSR_TO_GUEST | MSR_BUSY,
    };
    return f->dor & DOR_NOT_RESET ? bits[f->phase] | f->seeks_to_tell : 0;
}

static void write_dor(struct floppy *f, uint8_t value)
{
    uint8_t old = f->dor;
    f->dor = value;
    if (old & ~value & DOR_NOT_RESET) {
        f->generation++;
        f->phase = FLOPPY_IDLE;
        f->resets_to_tell = f->seeks_to_tell = 0;
        floppy_set_interrupt(f, false);
    } else if (value & ~old & DOR_NOT_RESET) {
        floppy_soft_reset(f);
    } else {
        floppy_set_interrupt(f, f->interrupt); /* DOR_DMA may have changed */
    }
}

static void write_dsr(struct floppy *f, uint8_t value)
{
    f->dsr = value & (uint8_t)~DSR_RESET;
    f->rate = value & 3;
    if (value & DSR_RESET && f->dor & DOR_NOT_RESET)
        floppy_soft_reset(f);
}

static uint8_t read_dir(struct floppy *f)
{
    const struct floppy_drive *drive = floppy_drive_of(f, f->dor & 3);
    return drive && (drive->is_changed || !drive->has_medium) ? DIR_CHANGED : 0;
}

static uint64_t port_read(struct floppy *f, unsigned reg)
{
    uint8_t value = 0;
    pthread_mutex_lock(&f->lock);
    switch (reg) {
    case REG_DOR: value = f->dor; break;
    case REG_TDR: value = f->tdr; break;
    case REG_MSR: value = main_status(f); break;
    case REG_FIFO: value = f->dor & DOR_NOT_RESET ? floppy_read_fifo(f) : 0; break;
    case REG_DIR: value = read_dir(f); break;
    }
    pthread_mutex_unlock(&f->lock);
    return value;
}

static void port_write(struct floppy *f, unsigned reg, uint8_t value)
{
    pthread_mutex_lock(&f->lock);
    switch (reg) {
    case REG_DOR: write_dor(f, value); break;
    case REG_TDR: f->tdr = value & 3; break;
    case REG_MSR: write_dsr(f, value); break;
    case REG_FIFO:
        if (f->dor & DOR_NOT_RESET)
            floppy_write_fifo(f, value);
        break;
    case REG_DIR: f->rate = value & 3; break;
    }
    pthread_mutex_unlock(&f->lock);
}

static uint64_t low_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    return port_read(opaque, REG_DOR + (unsigned)offset);
}

static void low_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    port_write(opaque, REG_DOR + (unsigned)offset, (uint8_t)value);
}

static uint64_t high_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    return port_read(opaque, REG_DIR);
}

static void high_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    port_write(opaque, REG_DIR, (uint8_t)value);
}

/* ---- life ---- */

/* Heads and disks stay where they are; a disk is new to a machine that was just switched on. */
static void floppy_reset(void *device)
{
    struct floppy *f = device;
    pthread_mutex_lock(&f->lock);
    f->generation++;
    f->dor = f->tdr = f->dsr = 0;
    f->rate = 2;
    f->phase = FLOPPY_IDLE;
    f->command_count = f->command_bytes = f->result_count = f->result_at = 0;
    f->resets_to_tell = f->seeks_to_tell = 0;
    memset(f->seek_status, 0, sizeof(f->seek_status));
    f->step_rate = f->load_time = 0;
    f->no_dma = f->is_locked = false;
    f->configuration = 0x20; /* no FIFO */
    f->precompensation = f->perpendicular = 0;
    memset(&f->transfer, 0, sizeof(f->transfer));
    for (unsigned i = 0; i < FLOPPY_DRIVES; i++) {
        f->drive[i].is_changed = true;
        f->drive[i].track = f->drive[i].next_sector = 0;
    }
    floppy_set_interrupt(f, false);
    pthread_mutex_unlock(&f->lock);
}

static void save_transfer(const struct floppy *f, struct save *save)
{
    const struct floppy_transfer *t = &f->transfer;
    const uint8_t bytes[] = {t->kind,   t->unit,      t->head, t->cylinder, t->head_id,
                             t->sector, t->size_code, t->last, t->filler};
    save_bytes(save, bytes, sizeof(bytes));
    save_bool(save, t->multi_track);
    save_bool(save, t->is_deleted);
    save_bool(save, t->is_over);
    save_u16(save, t->sectors_left);
    save_u16(save, t->data_bytes);
    save_u16(save, t->data_at);
    save_bytes(save, f->data, sizeof(f->data));
}

static void floppy_save(void *device, struct save *save)
{
    struct floppy *f = device;
    pthread_mutex_lock(&f->lock);
    const uint8_t bytes[] = {
        f->dor,           f->tdr,           f->dsr,          f->rate,          (uint8_t)f->phase,
        f->command_count, f->command_bytes, f->result_count, f->result_at,     f->resets_to_tell,
        f->seeks_to_tell, f->step_rate,     f->load_time,    f->configuration, f->precompensation,
        f->perpendicular};
    save_bytes(save, bytes, sizeof(bytes));
    save_bytes(save, f->command, sizeof(f->command));
    save_bytes(save, f->result, sizeof(f->result));
    save_bytes(save, f->seek_status, sizeof(f->seek_status));
    save_bool(save, f->interrupt);
    save_bool(save, f->no_dma);
    save_bool(save, f->is_locked);
    save_transfer(f, save);
    for (unsigned i = 0; i < FLOPPY_DRIVES; i++) {
        save_bool(save, f->drive[i].is_changed);
        save_u8(save, f->drive[i].track);
        save_u8(save, f->drive[i].next_sector);
    }
    pthread_mutex_unlock(&f->lock);
}

/* All indices that a changed file could make run over. */
static bool is_sound(const struct floppy *f)
{
    const struct floppy_transfer *t = &f->transfer;
    bool has_data = f->phase == FLOPPY_TAKES || f->phase == FLOPPY_GIVES;
    return f->phase < FLOPPY_PHASES && f->phase != FLOPPY_BUSY && f->rate < 4 &&
           f->command_bytes <= FLOPPY_PARAMETERS_MAX &&
           (f->phase != FLOPPY_COMMAND ||
            (f->command_count && f->command_count < f->command_bytes &&
             f->command_bytes == floppy_command_bytes(f->command[0]))) &&
           f->result_count <= FLOPPY_RESULTS_MAX &&
           (f->phase != FLOPPY_RESULTS || f->result_at < f->result_count) &&
           f->resets_to_tell <= FLOPPY_UNITS && f->seeks_to_tell < 1 << FLOPPY_UNITS &&
           t->kind < FLOPPY_KINDS && t->unit < FLOPPY_UNITS && t->head < 2 &&
           t->data_bytes <= FLOPPY_TRACK_BYTES && (!has_data || t->data_at < t->data_bytes);
}

static void load_transfer(struct floppy *f, struct load *load)
{
    struct floppy_transfer *t = &f->transfer;
    uint8_t *const bytes[] = {&t->kind,   &t->unit,      &t->head, &t->cylinder, &t->head_id,
                              &t->sector, &t->size_code, &t->last, &t->filler};
    for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
        *bytes[i] = load_u8(load);
    t->multi_track = load_bool(load);
    t->is_deleted = load_bool(load);
    t->is_over = load_bool(load);
    t->sectors_left = load_u16(load);
    t->data_bytes = load_u16(load);
    t->data_at = load_u16(load);
    load_bytes(load, f->data, sizeof(f->data));
}

static void load_registers(struct floppy *f, struct load *load)
{
    uint8_t phase = 0;
    uint8_t *const bytes[] = {&f->dor,
                              &f->tdr,
                              &f->dsr,
                              &f->rate,
                              &phase,
                              &f->command_count,
                              &f->command_bytes,
                              &f->result_count,
                              &f->result_at,
                              &f->resets_to_tell,
                              &f->seeks_to_tell,
                              &f->step_rate,
                              &f->load_time,
                              &f->configuration,
                              &f->precompensation,
                              &f->perpendicular};
    for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
        *bytes[i] = load_u8(load);
    f->phase = phase;
    load_bytes(load, f->command, sizeof(f->command));
    load_bytes(load, f->result, sizeof(f->result));
    load_bytes(load, f->seek_status, sizeof(f->seek_status));
    f->interrupt = load_bool(load);
    f->no_dma = load_bool(load);
    f->is_locked = load_bool(load);
}

static bool floppy_load(void *device, struct load *load, uint32_t version)
{
    struct floppy *f = device;
    floppy_reset(f);
    pthread_mutex_lock(&f->lock);
    if (version != floppy_ops.version)
        load_fail(load);
    load_registers(f, load);
    load_transfer(f, load);
    for (unsigned i = 0; i < FLOPPY_DRIVES; i++) {
        f->drive[i].is_changed = load_bool(load);
        f->drive[i].track = load_u8(load);
        f->drive[i].next_sector = load_u8(load);
    }
    if (!load->failed && !is_sound(f))
        load_fail(load);
    if (!load->failed)
        floppy_set_interrupt(f, f->interrupt);
    pthread_mutex_unlock(&f->lock);
    if (load->failed)
        floppy_reset(f);
    return !load->failed;
}

static void floppy_destroy(void *device)
{
    struct floppy *f = device;
    bus_unmap(f->bus, BUS_PORT, f->config.base + REG_DOR);
    bus_unmap(f->bus, BUS_PORT, f->config.base + REG_DIR);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* Port 6 is IDE's. */
static bool map(struct floppy *f, struct error *err)
{
    const struct bus_range low = {
        "floppy", BUS_PORT, f->config.base + REG_DOR, LOW_PORTS, low_read, low_write, f};
    const struct bus_range high = {"floppy",   BUS_PORT, f->config.base + REG_DIR, 1, high_read,
                                   high_write, f};
    if (!bus_map(f->bus, &low, err))
        return false;
    if (bus_map(f->bus, &high, err))
        return true;
    bus_unmap(f->bus, BUS_PORT, low.base);
    return false;
}

static bool insert_all(struct floppy *f, struct error *err)
{
    for (unsigned i = 0; i < FLOPPY_DRIVES; i++) {
        const struct block_backend *medium = f->config.drives[i].medium;
        f->drive[i].is_there = f->config.drives[i].is_there;
        if (medium && !insert(&f->drive[i], medium)) {
            error_set(err, "cannot use as a floppy disk", f->config.drives[i].name,
                      "no floppy has its size");
            return error_hint(err,
                              "an image is of 160, 180, 320, 360, 720, 1200, 1440 or 2880 KiB");
        }
        if (f->drive[i].is_there && !f->drive[i].type)
            f->drive[i].type = FLOPPY_1440K;
    }
    return true;
}

struct floppy *floppy_create(const struct floppy_config *config, struct bus *bus, struct error *err)
{
    struct floppy *f = calloc(1, sizeof(*f));
    if (!f) {
        error_set(err, "cannot create device", floppy_ops.name, "out of memory");
        return NULL;
    }
    f->config = *config;
    f->bus = bus;
    pthread_mutex_init(&f->lock, NULL);
    if (!insert_all(f, err) || !map(f, err)) {
        pthread_mutex_destroy(&f->lock);
        free(f);
        return NULL;
    }
    floppy_reset(f);
    return f;
}

const struct device_ops floppy_ops = {
    .name = "82077aa",
    .version = 1,
    .reset = floppy_reset,
    .save = floppy_save,
    .load = floppy_load,
    .destroy = floppy_destroy,
};
