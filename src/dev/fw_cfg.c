/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Firmware configuration device, as QEMU's docs/specs/fw_cfg.rst has it. The items are the board's
 * and no part of a saved machine: what is saved is where the guest reads. Reads past an item's end,
 * and of items that are not there, give zeroes. Left out: writes to items (no item takes any).
 *
 * vCPU threads use the ports; one lock.
 */
#include "dev/fw_cfg.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 64, KEY_NONE = 0xffff, KEY_WRITE_CHANNEL = 0x4000 };
enum { ID_TRADITIONAL = 1 << 0, ID_DMA = 1 << 1 };
enum { DIR_HEADER_BYTES = 4, DIR_ENTRY_BYTES = 64 };

/* The DMA access structure: control, length, address, all big-endian. */
enum {
    DMA_ERROR = 1 << 0,
    DMA_READ = 1 << 1,
    DMA_SKIP = 1 << 2,
    DMA_SELECT = 1 << 3,
    DMA_WRITE = 1 << 4,
    DMA_BYTES = 16,
};

struct item {
    unsigned key;
    uint32_t size_bytes;
    uint8_t *bytes; /* malloc'ed; NULL: read() has them */
    fw_cfg_read_fn *read;
    void *opaque;
    char name[FW_CFG_NAME_BYTES]; /* of a file */
};

struct fw_cfg {
    pthread_mutex_t lock;
    struct fw_cfg_config config;
    struct bus *bus;
    struct item items[ITEMS_MAX];
    unsigned item_count, file_count;
    uint16_t selected;
    uint32_t offset; /* in the selected item */
    uint32_t dma_high;
};

static const char signature[] = "QEMU", dma_signature[] = "QEMU CFG";

static uint32_t be32_get(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return __builtin_bswap32(value);
}

static void be32_put(uint8_t *at, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof(value));
}

static struct item *find(struct fw_cfg *fw, unsigned key)
{
    for (unsigned i = 0; i < fw->item_count; i++)
        if (fw->items[i].key == key)
            return &fw->items[i];
    return NULL;
}

/* ---- items ---- */

static struct item *slot(struct fw_cfg *fw, unsigned key)
{
    struct item *item = find(fw, key);
    if (!item && fw->item_count == ITEMS_MAX)
        return NULL;
    if (!item)
        item = &fw->items[fw->item_count++];
    free(item->bytes);
    *item = (struct item){.key = key};
    return item;
}

bool fw_cfg_put(struct fw_cfg *fw, unsigned key, const void *bytes, size_t size_bytes)
{
    uint8_t *copy = size_bytes <= UINT32_MAX ? malloc(size_bytes ? size_bytes : 1) : NULL;
    struct item *item = copy ? slot(fw, key) : NULL;
    if (!item) {
        free(copy);
        return false;
    }
    if (size_bytes)
        memcpy(copy, bytes, size_bytes);
    item->bytes = copy;
    item->size_bytes = (uint32_t)size_bytes;
    return true;
}

bool fw_cfg_put_number(struct fw_cfg *fw, unsigned key, uint64_t value, unsigned size_bytes)
{
    assert(size_bytes <= sizeof(value));
    return fw_cfg_put(fw, key, &value, size_bytes); /* little-endian, as the host */
}

bool fw_cfg_put_source(struct fw_cfg *fw, unsigned key, uint32_t size_bytes, fw_cfg_read_fn *read,
                       void *opaque)
{
    struct item *item = slot(fw, key);
    if (!item)
        return false;
    item->size_bytes = size_bytes;
    item->read = read;
    item->opaque = opaque;
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct item *const *first = a, *const *second = b;
    return strcmp((*first)->name, (*second)->name);
}

/* The directory: a count, and size, key and name of each file, sorted by name. */
static bool put_directory(struct fw_cfg *fw)
{
    struct item *files[ITEMS_MAX];
    uint8_t directory[DIR_HEADER_BYTES + ITEMS_MAX * DIR_ENTRY_BYTES] = {0};
    unsigned count = 0;
    for (unsigned i = 0; i < fw->item_count; i++)
        if (fw->items[i].name[0])
            files[count++] = &fw->items[i];
    qsort(files, count, sizeof(files[0]), by_name);
    be32_put(directory, count);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *entry = directory + DIR_HEADER_BYTES + i * DIR_ENTRY_BYTES;
        be32_put(entry, files[i]->size_bytes);
        entry[4] = (uint8_t)(files[i]->key >> 8);
        entry[5] = (uint8_t)files[i]->key;
        memcpy(entry + 8, files[i]->name, FW_CFG_NAME_BYTES);
    }
    return fw_cfg_put(fw, FW_CFG_FILE_DIR, directory, DIR_HEADER_BYTES + count * DIR_ENTRY_BYTES);
}

/* The key of the file, which is a new one unless there is such a file. */
static unsigned file_key(const struct fw_cfg *fw, const char *name)
{
    for (unsigned i = 0; i < fw->item_count; i++)
        if (!strcmp(fw->items[i].name, name))
            return fw->items[i].key;
    return FW_CFG_FILE_FIRST + fw->file_count;
}

/* The item is there, and becomes a file. */
static bool name_file(struct fw_cfg *fw, unsigned key, const char *name)
{
    size_t length = strlen(name);
    assert(length && length < FW_CFG_NAME_BYTES);
    fw->file_count += key == FW_CFG_FILE_FIRST + fw->file_count;
    memcpy(find(fw, key)->name, name, length + 1);
    return put_directory(fw);
}

bool fw_cfg_put_file(struct fw_cfg *fw, const char *name, const void *bytes, size_t size_bytes)
{
    unsigned key = file_key(fw, name);
    return fw_cfg_put(fw, key, bytes, size_bytes) && name_file(fw, key, name);
}

bool fw_cfg_put_file_source(struct fw_cfg *fw, const char *name, uint32_t size_bytes,
                            fw_cfg_read_fn *read, void *opaque)
{
    unsigned key = file_key(fw, name);
    return fw_cfg_put_source(fw, key, size_bytes, read, opaque) && name_file(fw, key, name);
}

/* ---- reading, with the lock held ---- */

static void select_item(struct fw_cfg *fw, uint16_t key)
{
    fw->selected = key & ~KEY_WRITE_CHANNEL;
    fw->offset = 0;
}

/* The next bytes, zeroes behind the end. False: they can't be read. */
static bool read_next(struct fw_cfg *fw, uint8_t *out, uint32_t size_bytes)
{
    const struct item *item = find(fw, fw->selected);
    uint32_t left = item ? item->size_bytes - fw->offset : 0;
    uint32_t there = size_bytes < left ? size_bytes : left;
    bool ok = true;
    if (there && item->bytes)
        memcpy(out, item->bytes + fw->offset, there);
    else if (there)
        ok = item->read(item->opaque, fw->offset, out, there);
    if (!ok)
        there = 0;
    memset(out + there, 0, size_bytes - there);
    fw->offset += there;
    return ok;
}

static void skip(struct fw_cfg *fw, uint32_t size_bytes)
{
    const struct item *item = find(fw, fw->selected);
    uint32_t left = item ? item->size_bytes - fw->offset : 0;
    fw->offset += size_bytes < left ? size_bytes : left;
}

/* The host's memory is checked to be there as a whole before anything is written. */
static bool dma_read(struct fw_cfg *fw, uint64_t gpa, uint32_t size_bytes)
{
    if (!size_bytes)
        return true;
    uint8_t *hva = ram_hva(fw->config.ram, gpa, size_bytes);
    if (!hva)
        return false;
    bool ok = read_next(fw, hva, size_bytes);
    ram_written(fw->config.ram, gpa, size_bytes);
    return ok;
}

static void dma(struct fw_cfg *fw, uint64_t gpa)
{
    uint8_t access[DMA_BYTES], answer[4];
    if (!ram_read(fw->config.ram, gpa, access, sizeof(access)))
        return;
    uint32_t control = be32_get(access), size_bytes = be32_get(access + 4);
    uint64_t address = (uint64_t)be32_get(access + 8) << 32 | be32_get(access + 12);
    bool ok = true;
    if (control & DMA_SELECT)
        select_item(fw, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        ok = dma_read(fw, address, size_bytes);
    else if (control & DMA_WRITE)
        ok = false;
    else if (control & DMA_SKIP)
        skip(fw, size_bytes);
    be32_put(answer, ok ? 0 : DMA_ERROR);
    ram_write(fw->config.ram, gpa, answer, sizeof(answer));
}

/* ---- ports ---- */

/* A write of 16 bits selects; bytes are data, which no item takes. */
static void write_port(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct fw_cfg *fw = opaque;
    if (offset != 0 || size_bytes != 2)
        return;
    pthread_mutex_lock(&fw->lock);
    select_item(fw, (uint16_t)value);
    pthread_mutex_unlock(&fw->lock);
}

static uint64_t read_port(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct fw_cfg *fw = opaque;
    uint64_t value = 0;
    if (size_bytes != 1)
        return UINT64_MAX;
    pthread_mutex_lock(&fw->lock);
    read_next(fw, (uint8_t *)&value, 1);
    pthread_mutex_unlock(&fw->lock);
    return value;
}

/* Big-endian; the write of the low half starts. */
static void write_dma(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct fw_cfg *fw = opaque;
    uint32_t half = __builtin_bswap32((uint32_t)value);
    if (size_bytes != 4)
        return;
    pthread_mutex_lock(&fw->lock);
    if (offset == 0) {
        fw->dma_high = half;
    } else if (offset == 4) {
        uint64_t gpa = (uint64_t)fw->dma_high << 32 | half;
        fw->dma_high = 0;
        dma(fw, gpa);
    }
    pthread_mutex_unlock(&fw->lock);
}

static uint64_t read_dma(void *opaque, uint64_t offset, unsigned size_bytes)
{
    uint64_t value = UINT64_MAX;
    if (offset + size_bytes <= FW_CFG_DMA_PORTS)
        memcpy(&value, dma_signature + offset, size_bytes);
    return value;
}

/* ---- life ---- */

static void fw_cfg_reset(void *device)
{
    struct fw_cfg *fw = device;
    pthread_mutex_lock(&fw->lock);
    fw->selected = KEY_NONE;
    fw->offset = 0;
    fw->dma_high = 0;
    pthread_mutex_unlock(&fw->lock);
}

static void free_items(struct fw_cfg *fw)
{
    for (unsigned i = 0; i < fw->item_count; i++)
        free(fw->items[i].bytes);
}

static bool map(struct fw_cfg *fw, struct error *err)
{
    uint16_t base = fw->config.base, dma_base = base + FW_CFG_DMA_OFFSET;
    const struct bus_range ports = {"fw_cfg",  BUS_PORT,   base, FW_CFG_PORTS,
                                    read_port, write_port, fw};
    const struct bus_range dma_ports = {"fw_cfg dma", BUS_PORT,  dma_base, FW_CFG_DMA_PORTS,
                                        read_dma,     write_dma, fw};
    if (!bus_map(fw->bus, &ports, err))
        return false;
    if (bus_map(fw->bus, &dma_ports, err))
        return true;
    bus_unmap(fw->bus, BUS_PORT, base);
    return false;
}

struct fw_cfg *fw_cfg_create(const struct fw_cfg_config *config, struct bus *bus, struct error *err)
{
    struct fw_cfg *fw = calloc(1, sizeof(*fw));
    if (!fw) {
        error_set(err, "cannot create device", "fw_cfg", "out of memory");
        return NULL;
    }
    fw->config = *config;
    fw->bus = bus;
    bool ok = fw_cfg_put(fw, FW_CFG_SIGNATURE, signature, 4) &&
              fw_cfg_put_number(fw, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4) && put_directory(fw);
    if (!ok)
        error_set(err, "cannot create device", "fw_cfg", "out of memory");
    if (!ok || !map(fw, err)) {
        free_items(fw);
        free(fw);
        return NULL;
    }
    pthread_mutex_init(&fw->lock, NULL);
    fw_cfg_reset(fw);
    return fw;
}

static void fw_cfg_save(void *device, struct save *save)
{
    struct fw_cfg *fw = device;
    pthread_mutex_lock(&fw->lock);
    save_u16(save, fw->selected);
    save_u32(save, fw->offset);
    save_u32(save, fw->dma_high);
    pthread_mutex_unlock(&fw->lock);
}

static bool fw_cfg_load(void *device, struct load *load, uint32_t version)
{
    struct fw_cfg *fw = device;
    pthread_mutex_lock(&fw->lock);
    fw->selected = load_u16(load);
    fw->offset = load_u32(load);
    fw->dma_high = load_u32(load);
    const struct item *item = find(fw, fw->selected);
    uint32_t end = item ? item->size_bytes : 0;
    bool is_past_end = fw->offset > end;
    /* A kernel may be gone since, or have become shorter: then its item has ended. */
    bool is_fixed = item && !item->read;
    if (is_past_end)
        fw->offset = end;
    if (version != fw_cfg_ops.version || (is_past_end && is_fixed))
        load_fail(load);
    pthread_mutex_unlock(&fw->lock);
    if (load->failed)
        fw_cfg_reset(fw);
    return !load->failed;
}

static void fw_cfg_destroy(void *device)
{
    struct fw_cfg *fw = device;
    bus_unmap(fw->bus, BUS_PORT, fw->config.base);
    bus_unmap(fw->bus, BUS_PORT, fw->config.base + FW_CFG_DMA_OFFSET);
    free_items(fw);
    pthread_mutex_destroy(&fw->lock);
    free(fw);
}

const struct device_ops fw_cfg_ops = {
    .name = "fw_cfg",
    .version = 1,
    .reset = fw_cfg_reset,
    .save = fw_cfg_save,
    .load = fw_cfg_load,
    .destroy = fw_cfg_destroy,
};
