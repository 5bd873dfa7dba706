/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Flash with the Intel/Sharp extended command set (JESD68.01 for the query; Intel 28F640J3 data
 * sheet, tables 3 and 4): read array, identifier, query and status, program by byte and by buffer,
 * block erase, and block locks, which are taken and never hold. While it reads as an array it is
 * memory that can be read, and only writes come here; else it is registers.
 *
 * As QEMU's does, Clear Status clears the ready bit, too: OVMF tells flash from ROM by that. Left
 * out: suspend, protection registers, and time: a command is done at once.
 *
 * vCPU threads use it; one lock.
 */
#include "dev/pflash.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum command {
    READ_ARRAY = 0xff,
    READ_STATUS = 0x70,
    CLEAR_STATUS = 0x50,
    READ_ID = 0x90,
    READ_QUERY = 0x98,
    PROGRAM = 0x40,
    PROGRAM_TOO = 0x10,
    ERASE = 0x20,
    BUFFER = 0xe8,
    LOCKS = 0x60,
    CONFIRM = 0xd0,
    LOCK = 0x01,
};

enum {
    STATUS_READY = 0x80,
    STATUS_ERASE_ERROR = 0x20,
    STATUS_PROGRAM_ERROR = 0x10,
    STATUS_SEQUENCE_ERROR = STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR,
};

/* What reads give, and what the next write is. */
enum reads { READS_ARRAY, READS_STATUS, READS_ID, READS_QUERY, READS_COUNT };
enum awaits {
    AWAITS_COMMAND,
    AWAITS_BYTE,
    AWAITS_ERASE_CONFIRM,
    AWAITS_LOCK,
    AWAITS_COUNT,
    AWAITS_DATA,
    AWAITS_BUFFER_CONFIRM,
    AWAITS_ALL
};

enum { MANUFACTURER_INTEL = 0x89, DEVICE_ID = 0x18, BUFFER_SHIFT = 8, BUFFER_BYTES = 256 };
enum { QUERY_AT = 0x10, QUERY_BYTES = 0x30 };

struct pflash {
    pthread_mutex_t lock;
    struct pflash_config config;
    bool is_mapped; /* as memory */
    uint8_t reads, awaits, status;
    uint64_t buffer_at;   /* where the first byte of the buffer goes */
    uint16_t buffer_left; /* bytes to come */
    uint64_t buffer_end;  /* behind the last byte that came; 0: none has */
    uint8_t buffer[BUFFER_BYTES];
};

/* ---- reading ---- */

/* JESD68.01: the query string, command set 0001 with its table at 0x31, voltages, times, size, and
 * one region of equal blocks. */
static uint8_t query_byte(const struct pflash *flash, uint64_t offset)
{
    const uint64_t size_bytes = flash->config.size_bytes;
    const unsigned blocks = (unsigned)(size_bytes / PFLASH_BLOCK_BYTES) - 1;
    unsigned size_shift = 0;
    while ((UINT64_C(1) << size_shift) < size_bytes)
        size_shift++;
    const uint8_t query[QUERY_BYTES] = {
        'Q',
        'R',
        'Y',
        0x01,
        0x00,
        0x31,
        0x00,
        0,
        0,
        0,
        0, /* 0x10 */
        0x45,
        0x55,
        0,
        0,
        7,
        7,
        10,
        0,
        4,
        4,
        4,
        0, /* 0x1b: 4.5 V to 5.5 V, times */
        (uint8_t)size_shift,
        0,
        0,
        BUFFER_SHIFT,
        0,
        1, /* 0x27 */
        (uint8_t)blocks,
        (uint8_t)(blocks >> 8),
        PFLASH_BLOCK_BYTES >> 8,
        0, /* 0x2d */
        'P',
        'R',
        'I',
        '1',
        '0', /* 0x31 */
    };
    return offset >= QUERY_AT && offset < QUERY_AT + QUERY_BYTES ? query[offset - QUERY_AT] : 0;
}

static uint8_t id_byte(uint64_t offset)
{
    static const uint8_t ids[4] = {MANUFACTURER_INTEL, DEVICE_ID, 0, 0};
    return ids[offset & 3];
}

static uint8_t read_byte(const struct pflash *flash, uint64_t offset)
{
    switch (flash->reads) {
    case READS_STATUS: return flash->status;
    case READS_ID: return id_byte(offset);
    case READS_QUERY: return query_byte(flash, offset);
    default: return flash->config.bytes[offset];
    }
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct pflash *flash = opaque;
    uint64_t value = 0;
    pthread_mutex_lock(&flash->lock);
    for (unsigned i = 0; i < size_bytes; i++)
        if (offset + i < flash->config.size_bytes)
            value |= (uint64_t)read_byte(flash, offset + i) << 8 * i;
    pthread_mutex_unlock(&flash->lock);
    return value;
}

/* ---- writing, with the lock held ---- */

/* Memory while reads give the array. If it can't be mapped reads come by the bus. */
static void update_map(struct pflash *flash)
{
    const struct pflash_config *config = &flash->config;
    const struct physmap_range range = {.gpa = config->gpa,
                                        .size_bytes = config->size_bytes,
                                        .hva = config->bytes,
                                        .read_only = true};
    bool wanted = flash->reads == READS_ARRAY;
    if (wanted && !flash->is_mapped)
        flash->is_mapped = physmap_map(config->physmap, PHYSMAP_DEVICE, &range, NULL);
    if (!wanted && flash->is_mapped) {
        physmap_unmap(config->physmap, PHYSMAP_DEVICE, config->gpa);
        flash->is_mapped = false;
    }
}

static void store(struct pflash *flash, uint64_t offset, uint64_t size_bytes, uint8_t error)
{
    const struct pflash_store *to = &flash->config.store;
    flash->status |= STATUS_READY;
    if (to->write && !to->write(to->opaque, offset, flash->config.bytes + offset, size_bytes))
        flash->status |= error;
}

/* Programming only clears bits. */
static void program(struct pflash *flash, uint64_t offset, const uint8_t *from, uint64_t size_bytes)
{
    if (offset >= flash->config.size_bytes || size_bytes > flash->config.size_bytes - offset) {
        flash->status |= STATUS_READY | STATUS_PROGRAM_ERROR;
        return;
    }
    for (uint64_t i = 0; i < size_bytes; i++)
        flash->config.bytes[offset + i] &= from[i];
    store(flash, offset, size_bytes, STATUS_PROGRAM_ERROR);
}

static void erase(struct pflash *flash, uint64_t offset)
{
    offset &= ~(uint64_t)(PFLASH_BLOCK_BYTES - 1);
    memset(flash->config.bytes + offset, 0xff, PFLASH_BLOCK_BYTES);
    store(flash, offset, PFLASH_BLOCK_BYTES, STATUS_ERASE_ERROR);
}

static void command(struct pflash *flash, uint8_t value)
{
    flash->awaits = AWAITS_COMMAND;
    flash->reads = READS_STATUS;
    switch (value) {
    case READ_STATUS: break;
    case READ_ID: flash->reads = READS_ID; break;
    case READ_QUERY: flash->reads = READS_QUERY; break;
    case PROGRAM:
    case PROGRAM_TOO: flash->awaits = AWAITS_BYTE; break;
    case ERASE: flash->awaits = AWAITS_ERASE_CONFIRM; break;
    case LOCKS: flash->awaits = AWAITS_LOCK; break;
    case BUFFER:
        flash->awaits = AWAITS_COUNT;
        flash->status |= STATUS_READY;
        break;
    case CLEAR_STATUS: flash->status = 0; /* fall through */
    default: flash->reads = READS_ARRAY; break;
    }
}

static void sequence_error(struct pflash *flash)
{
    flash->status |= STATUS_READY | STATUS_SEQUENCE_ERROR;
    flash->awaits = AWAITS_COMMAND;
    flash->reads = READS_STATUS;
}

static void begin_buffer(struct pflash *flash, uint8_t count)
{
    flash->buffer_left = (uint16_t)(count + 1);
    flash->buffer_at = flash->buffer_end = 0;
    flash->awaits = AWAITS_DATA;
    memset(flash->buffer, 0xff, sizeof(flash->buffer));
}

/* The first address says where the buffer is to go; bytes beyond it void the whole. */
static void take_data(struct pflash *flash, uint64_t offset, uint8_t value)
{
    if (!flash->buffer_end)
        flash->buffer_at = offset;
    uint64_t at = offset - flash->buffer_at;
    if (at >= BUFFER_BYTES) {
        sequence_error(flash);
        return;
    }
    flash->buffer[at] = value;
    if (offset + 1 > flash->buffer_end)
        flash->buffer_end = offset + 1;
    if (--flash->buffer_left == 0)
        flash->awaits = AWAITS_BUFFER_CONFIRM;
}

static void write_byte(struct pflash *flash, uint64_t offset, uint8_t value)
{
    enum awaits awaited = flash->awaits;
    if (awaited == AWAITS_COUNT) {
        begin_buffer(flash, value);
        return;
    }
    if (awaited == AWAITS_DATA) {
        take_data(flash, offset, value);
        return;
    }
    flash->awaits = AWAITS_COMMAND;
    if (awaited == AWAITS_COMMAND)
        command(flash, value);
    else if (awaited == AWAITS_BYTE)
        program(flash, offset, &value, 1);
    else if (awaited == AWAITS_ERASE_CONFIRM && value == CONFIRM)
        erase(flash, offset);
    else if (awaited == AWAITS_LOCK && (value == LOCK || value == CONFIRM))
        flash->status |= STATUS_READY;
    else if (awaited == AWAITS_BUFFER_CONFIRM && value == CONFIRM)
        program(flash, flash->buffer_at, flash->buffer, flash->buffer_end - flash->buffer_at);
    else if (value == READ_ARRAY)
        command(flash, value);
    else
        sequence_error(flash);
}

/* A command is in the lowest byte; data may be several bytes at once. */
static void flash_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct pflash *flash = opaque;
    if (offset >= flash->config.size_bytes || size_bytes > flash->config.size_bytes - offset)
        return;
    pthread_mutex_lock(&flash->lock);
    if (flash->awaits == AWAITS_BYTE) {
        program(flash, offset, (const uint8_t *)&value, size_bytes); /* little-endian */
        flash->awaits = AWAITS_COMMAND;
    } else {
        unsigned count = flash->awaits == AWAITS_DATA ? size_bytes : 1;
        for (unsigned i = 0; i < count && (i == 0 || flash->awaits == AWAITS_DATA); i++)
            write_byte(flash, offset + i, (uint8_t)(value >> 8 * i));
    }
    update_map(flash);
    pthread_mutex_unlock(&flash->lock);
}

/* ---- life ---- */

static void flash_reset(void *device)
{
    struct pflash *flash = device;
    pthread_mutex_lock(&flash->lock);
    flash->reads = READS_ARRAY;
    flash->awaits = AWAITS_COMMAND;
    flash->status = STATUS_READY;
    flash->buffer_at = flash->buffer_end = flash->buffer_left = 0;
    update_map(flash);
    pthread_mutex_unlock(&flash->lock);
}

static void flash_destroy(void *device)
{
    struct pflash *flash = device;
    physmap_unmap(flash->config.physmap, PHYSMAP_DEVICE, flash->config.gpa);
    bus_unmap(flash->config.bus, BUS_MMIO, flash->config.gpa);
    pthread_mutex_destroy(&flash->lock);
    free(flash);
}

struct pflash *pflash_create(const struct pflash_config *config, struct error *err)
{
    assert(config->size_bytes && config->size_bytes % PFLASH_BLOCK_BYTES == 0);
    assert(config->size_bytes / PFLASH_BLOCK_BYTES <= 65536);
    struct pflash *flash = calloc(1, sizeof(*flash));
    const struct bus_range range = {.name = "flash",
                                    .space = BUS_MMIO,
                                    .base = config->gpa,
                                    .size_bytes = config->size_bytes,
                                    .read = flash_read,
                                    .write = flash_write,
                                    .opaque = flash};
    if (!flash) {
        error_errno(err, "cannot make flash memory", NULL, ENOMEM);
        return NULL;
    }
    flash->config = *config;
    if (!bus_map(config->bus, &range, err)) {
        free(flash);
        return NULL;
    }
    pthread_mutex_init(&flash->lock, NULL);
    flash_reset(flash);
    if (!flash->is_mapped) {
        error_set(err, "cannot make flash memory", NULL, "there is no room for it");
        flash_destroy(flash);
        return NULL;
    }
    return flash;
}

static void flash_save(void *device, struct save *save)
{
    struct pflash *flash = device;
    pthread_mutex_lock(&flash->lock);
    save_u8(save, flash->reads);
    save_u8(save, flash->awaits);
    save_u8(save, flash->status);
    save_u64(save, flash->buffer_at);
    save_u64(save, flash->buffer_end);
    save_u16(save, flash->buffer_left);
    save_bytes(save, flash->buffer, sizeof(flash->buffer));
    save_bytes(save, flash->config.bytes, flash->config.size_bytes);
    pthread_mutex_unlock(&flash->lock);
}

static bool is_buffer_good(const struct pflash *flash)
{
    if (flash->awaits == AWAITS_DATA)
        return flash->buffer_left >= 1 && flash->buffer_left <= BUFFER_BYTES &&
               (!flash->buffer_end || flash->buffer_end - flash->buffer_at <= BUFFER_BYTES);
    return flash->awaits != AWAITS_BUFFER_CONFIRM ||
           flash->buffer_end - flash->buffer_at <= BUFFER_BYTES;
}

/* The contents are those of the moment of saving, whatever the store has become since. */
static bool load_contents(struct pflash *flash, struct load *load)
{
    const struct pflash_config *config = &flash->config;
    uint8_t *bytes = malloc(config->size_bytes);
    if (!bytes) {
        load_fail(load);
        return false;
    }
    load_bytes(load, bytes, config->size_bytes);
    if (!load->failed && memcmp(bytes, config->bytes, config->size_bytes) != 0) {
        memcpy(config->bytes, bytes, config->size_bytes);
        if (config->store.write &&
            !config->store.write(config->store.opaque, 0, bytes, config->size_bytes))
            load_fail(load);
    }
    free(bytes);
    return !load->failed;
}

static bool flash_load(void *device, struct load *load, uint32_t version)
{
    struct pflash *flash = device;
    pthread_mutex_lock(&flash->lock);
    flash->reads = load_u8(load);
    flash->awaits = load_u8(load);
    flash->status = load_u8(load);
    flash->buffer_at = load_u64(load);
    flash->buffer_end = load_u64(load);
    flash->buffer_left = load_u16(load);
    load_bytes(load, flash->buffer, sizeof(flash->buffer));
    if (version != pflash_ops.version || flash->reads >= READS_COUNT ||
        flash->awaits >= AWAITS_ALL || !is_buffer_good(flash))
        load_fail(load);
    bool ok = !load->failed && load_contents(flash, load);
    if (ok)
        update_map(flash);
    pthread_mutex_unlock(&flash->lock);
    if (!ok)
        flash_reset(flash);
    return ok;
}

const struct device_ops pflash_ops = {
    .name = "pflash",
    .version = 1,
    .reset = flash_reset,
    .save = flash_save,
    .load = flash_load,
    .destroy = flash_destroy,
};
