/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Two 8237A DMA controllers as a PC wires them (Intel 8237A data sheet; ICH9 data sheet, 13.2).
 * Left out: memory to memory, requests by software, priorities: a device moves its data when it
 * has them. Memory that is not RAM is neither read nor written. Ports are used by vCPU threads,
 * channels by any; one lock.
 */
#include "dev/i8237.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHANNELS = 8,
    CHIPS = 2,
    PAGES = 16, /* latches at 0x80 … 0x8f; the first is not here */

    REG_COMMAND = 8, /* read: status */
    REG_REQUEST = 9,
    REG_MASK_ONE = 10,
    REG_MODE = 11,
    REG_CLEAR_FLIP_FLOP = 12,
    REG_MASTER_CLEAR = 13, /* read: temporary */
    REG_CLEAR_MASKS = 14,
    REG_MASK_ALL = 15,

    COMMAND_DISABLE = 1 << 2,
    MODE_TRANSFER = 3 << 2,
    MODE_TO_MEMORY = 1 << 2,
    MODE_FROM_MEMORY = 2 << 2,
    MODE_AUTO = 1 << 4,
    MODE_DOWN = 1 << 5,
};

struct channel {
    uint16_t base_address, base_count, address, count;
    uint8_t mode;
};

struct chip {
    uint8_t command, masks, status;
    bool flip_flop; /* the high byte is next */
};

struct i8237 {
    struct i8237_config config;
    struct bus *bus;
    pthread_mutex_t lock;
    struct channel channel[CHANNELS];
    struct chip chip[CHIPS];
    uint8_t pages[PAGES];
};

/* The page register of each channel, as an offset from 0x80. */
static const uint8_t page_of[CHANNELS] = {0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa};

/* ---- moving ---- */

static uint64_t gpa_of(const struct i8237 *dma, unsigned number)
{
    const struct channel *c = &dma->channel[number];
    uint64_t page = dma->pages[page_of[number]];
    if (number < CHANNELS / 2)
        return page << 16 | c->address;
    return (page & 0xfe) << 16 | (uint64_t)c->address << 1;
}

/* A byte or word has been moved: the address wraps in its page (64 KiB, or as many words). */
static bool advance(struct i8237 *dma, unsigned number)
{
    struct channel *c = &dma->channel[number];
    struct chip *chip = &dma->chip[number / 4];
    c->address = (uint16_t)(c->mode & MODE_DOWN ? c->address - 1 : c->address + 1);
    if (c->count--)
        return false;
    chip->status |= (uint8_t)(1u << number % 4);
    if (c->mode & MODE_AUTO) {
        c->address = c->base_address;
        c->count = c->base_count;
    } else {
        chip->masks |= (uint8_t)(1u << number % 4);
    }
    return true;
}

static bool is_ready(const struct i8237 *dma, unsigned number)
{
    const struct chip *chip = &dma->chip[number / 4];
    return !(chip->command & COMMAND_DISABLE) && !(chip->masks >> number % 4 & 1);
}

static size_t channel_move(void *opaque, unsigned number, void *buffer, size_t size_bytes,
                           bool to_memory, bool *is_over)
{
    struct i8237 *dma = opaque;
    size_t unit = number < CHANNELS / 2 ? 1 : 2, done = 0;
    pthread_mutex_lock(&dma->lock);
    const unsigned transfer = dma->channel[number].mode & MODE_TRANSFER;
    while (is_ready(dma, number) && !*is_over && size_bytes - done >= unit) {
        uint64_t gpa = gpa_of(dma, number);
        uint8_t *at = (uint8_t *)buffer + done;
        if (to_memory && transfer == MODE_TO_MEMORY)
            ram_write(dma->config.ram, gpa, at, unit);
        else if (!to_memory &&
                 (transfer != MODE_FROM_MEMORY || !ram_read(dma->config.ram, gpa, at, unit)))
            memset(at, 0xff, unit);
        done += unit;
        *is_over = advance(dma, number);
    }
    pthread_mutex_unlock(&dma->lock);
    return done;
}

struct dma_channel i8237_channel(struct i8237 *dma, unsigned number)
{
    assert(number < CHANNELS && number != 4);
    return (struct dma_channel){channel_move, dma, number};
}

/* ---- registers ---- */

static void chip_clear(struct chip *chip)
{
    *chip = (struct chip){.masks = 0xf};
}

static uint8_t half_of(uint16_t value, bool high)
{
    return (uint8_t)(high ? value >> 8 : value);
}

static void set_half(uint16_t *value, bool high, uint8_t byte)
{
    *value = (uint16_t)(high ? (*value & 0x00ff) | byte << 8 : (*value & 0xff00) | byte);
}

static uint8_t chip_read(struct i8237 *dma, unsigned which, unsigned reg)
{
    struct chip *chip = &dma->chip[which];
    uint8_t value = 0;
    if (reg < REG_COMMAND) {
        const struct channel *c = &dma->channel[4 * which + reg / 2];
        value = half_of(reg % 2 ? c->count : c->address, chip->flip_flop);
        chip->flip_flop = !chip->flip_flop;
    } else if (reg == REG_COMMAND) {
        value = chip->status;
        chip->status = 0;
    } else if (reg == REG_MASK_ALL) {
        value = 0xf0 | chip->masks;
    }
    return value;
}

static void chip_write_channel(struct i8237 *dma, unsigned which, unsigned reg, uint8_t value)
{
    struct chip *chip = &dma->chip[which];
    struct channel *c = &dma->channel[4 * which + reg / 2];
    set_half(reg % 2 ? &c->base_count : &c->base_address, chip->flip_flop, value);
    set_half(reg % 2 ? &c->count : &c->address, chip->flip_flop, value);
    chip->flip_flop = !chip->flip_flop;
}

static void chip_write(struct i8237 *dma, unsigned which, unsigned reg, uint8_t value)
{
    struct chip *chip = &dma->chip[which];
    uint8_t bit = (uint8_t)(1u << (value & 3));
    switch (reg) {
    case REG_COMMAND: chip->command = value; break;
    case REG_REQUEST: break;
    case REG_MASK_ONE:
        chip->masks = (uint8_t)(value & 4 ? chip->masks | bit : chip->masks & ~bit);
        break;
    case REG_MODE: dma->channel[4 * which + (value & 3)].mode = value; break;
    case REG_CLEAR_FLIP_FLOP: chip->flip_flop = false; break;
    case REG_MASTER_CLEAR: chip_clear(chip); break;
    case REG_CLEAR_MASKS: chip->masks = 0; break;
    case REG_MASK_ALL: chip->masks = value & 0xf; break;
    default: chip_write_channel(dma, which, reg, value); break;
    }
}

/* Wider accesses do not reach ISA registers of a byte; they are as of the first. */
static uint64_t byte_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct i8237 *dma = opaque;
    pthread_mutex_lock(&dma->lock);
    uint8_t value = chip_read(dma, 0, (unsigned)offset);
    pthread_mutex_unlock(&dma->lock);
    return value;
}

static void byte_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct i8237 *dma = opaque;
    pthread_mutex_lock(&dma->lock);
    chip_write(dma, 0, (unsigned)offset, (uint8_t)value);
    pthread_mutex_unlock(&dma->lock);
}

static uint64_t word_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct i8237 *dma = opaque;
    pthread_mutex_lock(&dma->lock);
    uint8_t value = chip_read(dma, 1, (unsigned)offset / 2);
    pthread_mutex_unlock(&dma->lock);
    return value;
}

static void word_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct i8237 *dma = opaque;
    pthread_mutex_lock(&dma->lock);
    chip_write(dma, 1, (unsigned)offset / 2, (uint8_t)value);
    pthread_mutex_unlock(&dma->lock);
}

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct i8237 *dma = opaque;
    pthread_mutex_lock(&dma->lock);
    uint8_t value = dma->pages[offset + 1];
    pthread_mutex_unlock(&dma->lock);
    return value;
}

static void page_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct i8237 *dma = opaque;
    pthread_mutex_lock(&dma->lock);
    dma->pages[offset + 1] = (uint8_t)value;
    pthread_mutex_unlock(&dma->lock);
}

/* ---- life ---- */

static void i8237_reset(void *device)
{
    struct i8237 *dma = device;
    memset(dma->channel, 0, sizeof(dma->channel));
    memset(dma->pages, 0, sizeof(dma->pages));
    for (unsigned i = 0; i < CHIPS; i++)
        chip_clear(&dma->chip[i]);
}

static void i8237_save(void *device, struct save *save)
{
    const struct i8237 *dma = device;
    for (unsigned i = 0; i < CHANNELS; i++) {
        save_u16(save, dma->channel[i].base_address);
        save_u16(save, dma->channel[i].base_count);
        save_u16(save, dma->channel[i].address);
        save_u16(save, dma->channel[i].count);
        save_u8(save, dma->channel[i].mode);
    }
    for (unsigned i = 0; i < CHIPS; i++) {
        save_u8(save, dma->chip[i].command);
        save_u8(save, dma->chip[i].masks);
        save_u8(save, dma->chip[i].status);
        save_bool(save, dma->chip[i].flip_flop);
    }
    save_bytes(save, dma->pages, sizeof(dma->pages));
}

static bool i8237_load(void *device, struct load *load, uint32_t version)
{
    struct i8237 *dma = device;
    if (version != i8237_ops.version)
        load_fail(load);
    for (unsigned i = 0; i < CHANNELS; i++) {
        dma->channel[i].base_address = load_u16(load);
        dma->channel[i].base_count = load_u16(load);
        dma->channel[i].address = load_u16(load);
        dma->channel[i].count = load_u16(load);
        dma->channel[i].mode = load_u8(load);
    }
    for (unsigned i = 0; i < CHIPS; i++) {
        dma->chip[i].command = load_u8(load);
        dma->chip[i].masks = load_u8(load) & 0xf;
        dma->chip[i].status = load_u8(load);
        dma->chip[i].flip_flop = load_bool(load);
    }
    load_bytes(load, dma->pages, sizeof(dma->pages));
    if (load->failed)
        i8237_reset(dma);
    return !load->failed;
}

static void i8237_destroy(void *device)
{
    struct i8237 *dma = device;
    bus_unmap(dma->bus, BUS_PORT, dma->config.byte_base);
    bus_unmap(dma->bus, BUS_PORT, dma->config.word_base);
    bus_unmap(dma->bus, BUS_PORT, dma->config.page_base);
    pthread_mutex_destroy(&dma->lock);
    free(dma);
}

static bool map(struct i8237 *dma, struct error *err)
{
    const struct i8237_config *config = &dma->config;
    const struct bus_range ranges[] = {
        {"dma", BUS_PORT, config->byte_base, 16, byte_read, byte_write, dma},
        {"dma", BUS_PORT, config->word_base, 32, word_read, word_write, dma},
        {"dma", BUS_PORT, config->page_base, PAGES - 1, page_read, page_write, dma},
    };
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (bus_map(dma->bus, &ranges[i], err))
            continue;
        while (i--)
            bus_unmap(dma->bus, BUS_PORT, ranges[i].base);
        return false;
    }
    return true;
}

struct i8237 *i8237_create(const struct i8237_config *config, struct bus *bus, struct error *err)
{
    struct i8237 *dma = calloc(1, sizeof(*dma));
    if (!dma) {
        error_set(err, "cannot create device", i8237_ops.name, "out of memory");
        return NULL;
    }
    dma->config = *config;
    dma->bus = bus;
    pthread_mutex_init(&dma->lock, NULL);
    i8237_reset(dma);
    if (!map(dma, err)) {
        pthread_mutex_destroy(&dma->lock);
        free(dma);
        return NULL;
    }
    return dma;
}

const struct device_ops i8237_ops = {
    .name = "i8237",
    .version = 1,
    .reset = i8237_reset,
    .save = i8237_save,
    .load = i8237_load,
    .destroy = i8237_destroy,
};
