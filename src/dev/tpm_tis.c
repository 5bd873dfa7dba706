/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A TPM's FIFO interface (PC Client Platform TPM Profile 1.05, 6.5.2; TIS 1.3). Left out:
 * interrupts, which the capabilities say; locality 4, which is the chipset's; cancelling: a command
 * that the driver gives up runs to its end, and what it answers is thrown away.
 *
 * Registers are used by vCPU threads, answers come on the loop's; one lock.
 */
#include "dev/tpm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    USABLE_LOCALITIES = 4,
    NOBODY = 0xff,

    REG_ACCESS = 0x00,
    REG_INT_ENABLE = 0x08,
    REG_INTERFACE_CAPABILITY = 0x14,
    REG_STATUS = 0x18,
    REG_FIFO = 0x24,
    REG_INTERFACE_ID = 0x30,
    REG_XFIFO = 0x80,
    REG_ID = 0xf00,
    REG_REVISION = 0xf04,
    FIFO_BYTES = 4,

    ACCESS_VALID = 0x80,
    ACCESS_ACTIVE = 0x20,
    ACCESS_SEIZED = 0x10,
    ACCESS_SEIZE = 0x08,
    ACCESS_PENDING = 0x04,
    ACCESS_REQUEST = 0x02,
    ACCESS_NOT_ESTABLISHED = 0x01,

    STATUS_VALID = 0x80,
    STATUS_READY = 0x40,
    STATUS_GO = 0x20,
    STATUS_DATA = 0x10,
    STATUS_EXPECT = 0x08,
    STATUS_SELF_TESTED = 0x04,
    STATUS_RETRY = 0x02,
    BURST_SHIFT = 8,
    SIZE_AT = 2, /* in a command's header, big-endian */
};
#define STATUS_TPM2          (UINT32_C(1) << 26)
#define INTERFACE_CAPABILITY UINT32_C(0x30000600) /* version 1.3 for TPM 2.0; 64 bytes at once */
#define INTERFACE_ID         UINT32_C(0x00002100) /* a FIFO, five localities */
#define VENDOR_AND_DEVICE    UINT32_C(0x00011014) /* IBM's: libtpms is of them */

enum state { IDLE, READY, RECEPTION, EXECUTION, COMPLETION, STATES };

struct tpm_tis {
    struct tpm_config config;
    struct tpm_backend backend;
    struct bus *bus;
    pthread_mutex_t lock;
    enum state state;
    uint8_t active;                    /* the locality; NOBODY */
    uint8_t requested, seized;         /* a bit a locality */
    bool is_given_up, is_ready_wanted; /* the command that runs; what follows it */
    uint32_t size, at;                 /* of the buffer: what is in it, what was read of it */
    uint8_t buffer[TPM_TIS_BUFFER_BYTES];
};

/* ---- commands ---- */

static uint32_t command_size(const struct tpm_tis *tis)
{
    uint32_t size = 0;
    for (unsigned i = 0; i < 4; i++)
        size = size << 8 | tis->buffer[SIZE_AT + i];
    return size;
}

/* A size that makes no sense ends with the header: the command is then refused. */
static bool has_sensible_size(const struct tpm_tis *tis)
{
    uint32_t size = command_size(tis);
    return size >= TPM_HEADER_BYTES && size <= TPM_TIS_BUFFER_BYTES;
}

static bool expects_more(const struct tpm_tis *tis)
{
    if (tis->size < TPM_HEADER_BYTES)
        return true;
    return has_sensible_size(tis) && tis->size < command_size(tis);
}

/* TPM_RC_COMMAND_SIZE (TPM 2.0, part 2, 6.6.3), or TPM_RC_FAILURE. */
static void answer_error(struct tpm_tis *tis, uint32_t code)
{
    const uint8_t answer[TPM_HEADER_BYTES] = {
        0x80, 0x01, 0, 0, 0, TPM_HEADER_BYTES, 0, 0, (uint8_t)(code >> 8), (uint8_t)code};
    memcpy(tis->buffer, answer, sizeof(answer));
    tis->size = sizeof(answer);
    tis->at = 0;
    tis->state = COMPLETION;
}

static void execute(struct tpm_tis *tis)
{
    enum { RC_COMMAND_SIZE = 0x142 };
    if (!has_sensible_size(tis)) {
        answer_error(tis, RC_COMMAND_SIZE);
        return;
    }
    tis->state = EXECUTION;
    tis->is_given_up = tis->is_ready_wanted = false;
    tis->backend.submit(tis->backend.opaque, tis->active, tis->buffer, tis->size);
}

static void become(struct tpm_tis *tis, enum state state)
{
    tis->state = state;
    tis->size = tis->at = 0;
}

static void responded(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    enum { RC_FAILURE = 0x101 };
    struct tpm_tis *tis = opaque;
    pthread_mutex_lock(&tis->lock);
    if (tis->state == EXECUTION) {
        if (tis->is_given_up) {
            become(tis, tis->is_ready_wanted ? READY : IDLE);
        } else if (size_bytes < TPM_HEADER_BYTES || size_bytes > TPM_TIS_BUFFER_BYTES) {
            answer_error(tis, RC_FAILURE);
        } else {
            memcpy(tis->buffer, bytes, size_bytes);
            tis->size = (uint32_t)size_bytes;
            tis->at = 0;
            tis->state = COMPLETION;
        }
    }
    pthread_mutex_unlock(&tis->lock);
}

/* The driver gives up whatever is there. */
static void give_up(struct tpm_tis *tis, bool wants_ready)
{
    if (tis->state != EXECUTION) {
        become(tis, wants_ready ? READY : IDLE);
        return;
    }
    tis->is_given_up = true;
    tis->is_ready_wanted = wants_ready;
}

/* ---- localities (6.5.2.4) ---- */

static void grant_next(struct tpm_tis *tis)
{
    tis->active = NOBODY;
    for (unsigned i = USABLE_LOCALITIES; i-- > 0 && tis->active == NOBODY;)
        if (tis->requested >> i & 1)
            tis->active = (uint8_t)i;
    if (tis->active != NOBODY)
        tis->requested &= (uint8_t) ~(1u << tis->active);
}

static void write_access(struct tpm_tis *tis, unsigned locality, uint8_t value)
{
    uint8_t bit = (uint8_t)(1u << locality);
    if (locality >= USABLE_LOCALITIES)
        return;
    if (value & ACCESS_SEIZED)
        tis->seized &= (uint8_t)~bit;
    if (value & ACCESS_ACTIVE) {
        tis->requested &= (uint8_t)~bit;
        if (tis->active == locality) {
            give_up(tis, false);
            grant_next(tis);
        }
    }
    if (value & ACCESS_SEIZE && tis->active != NOBODY && locality > tis->active) {
        tis->seized |= (uint8_t)(1u << tis->active);
        tis->requested &= (uint8_t)~bit;
        give_up(tis, false);
        tis->active = (uint8_t)locality;
    }
    if (value & ACCESS_REQUEST && tis->active != locality) {
        tis->requested |= bit;
        if (tis->active == NOBODY)
            grant_next(tis);
    }
}

static uint8_t read_access(const struct tpm_tis *tis, unsigned locality)
{
    uint8_t bit = (uint8_t)(1u << locality), value = ACCESS_VALID | ACCESS_NOT_ESTABLISHED;
    if (tis->active == locality)
        value |= ACCESS_ACTIVE;
    if (tis->requested & bit)
        value |= ACCESS_REQUEST;
    if (tis->requested & ~bit)
        value |= ACCESS_PENDING;
    if (tis->seized & bit)
        value |= ACCESS_SEIZED;
    return value;
}

/* ---- status and data ---- */

static uint32_t read_status(const struct tpm_tis *tis)
{
    uint32_t value = STATUS_TPM2 | STATUS_SELF_TESTED | STATUS_VALID, burst = 0;
    switch (tis->state) {
    case READY:
        value |= STATUS_READY;
        burst = TPM_TIS_BUFFER_BYTES;
        break;
    case RECEPTION:
        value |= expects_more(tis) ? STATUS_EXPECT : 0;
        burst = TPM_TIS_BUFFER_BYTES - tis->size;
        break;
    case COMPLETION:
        value |= tis->at < tis->size ? STATUS_DATA : 0;
        burst = tis->size - tis->at;
        break;
    default: break;
    }
    return value | burst << BURST_SHIFT;
}

static void write_status(struct tpm_tis *tis, uint8_t value)
{
    switch (value & (STATUS_READY | STATUS_GO | STATUS_RETRY)) {
    case STATUS_READY: give_up(tis, true); break;
    case STATUS_GO:
        if (tis->state == RECEPTION && !expects_more(tis))
            execute(tis);
        break;
    case STATUS_RETRY:
        if (tis->state == COMPLETION)
            tis->at = 0;
        break;
    }
}

static void write_fifo(struct tpm_tis *tis, uint8_t value)
{
    if (tis->state == READY)
        become(tis, RECEPTION);
    if (tis->state == RECEPTION && expects_more(tis))
        tis->buffer[tis->size++] = value;
}

static uint8_t read_fifo(struct tpm_tis *tis)
{
    return tis->state == COMPLETION && tis->at < tis->size ? tis->buffer[tis->at++] : 0xff;
}

static bool is_fifo(unsigned reg)
{
    return reg - REG_FIFO < FIFO_BYTES || reg - REG_XFIFO < FIFO_BYTES;
}

/* The register that holds a byte, and the byte of it. */
static uint8_t read_byte(struct tpm_tis *tis, unsigned locality, unsigned reg)
{
    uint32_t value = 0;
    unsigned shift = 8 * (reg & 3);
    if (reg == REG_ACCESS)
        return read_access(tis, locality);
    switch (reg & ~3u) {
    case REG_INTERFACE_CAPABILITY: value = INTERFACE_CAPABILITY; break;
    case REG_STATUS: value = tis->active == locality ? read_status(tis) : UINT32_MAX; break;
    case REG_INTERFACE_ID: value = INTERFACE_ID; break;
    case REG_ID: value = VENDOR_AND_DEVICE; break;
    case REG_REVISION: value = 1; break;
    case REG_ACCESS:
    case REG_INT_ENABLE: break;
    default: value = UINT32_MAX; break;
    }
    return (uint8_t)(value >> shift);
}

static uint64_t tis_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct tpm_tis *tis = opaque;
    unsigned locality = (unsigned)(offset >> 12);
    uint64_t value = 0;
    pthread_mutex_lock(&tis->lock);
    for (unsigned i = 0; i < size_bytes; i++) {
        unsigned reg = (unsigned)(offset & 0xfff);
        uint8_t byte;
        if (is_fifo(reg)) /* the register is one place, however wide the access */
            byte = tis->active == locality ? read_fifo(tis) : 0xff;
        else
            byte = read_byte(tis, locality, reg + i);
        value |= (uint64_t)byte << (8 * i);
    }
    pthread_mutex_unlock(&tis->lock);
    return value;
}

static void tis_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct tpm_tis *tis = opaque;
    unsigned locality = (unsigned)(offset >> 12), reg = (unsigned)(offset & 0xfff);
    pthread_mutex_lock(&tis->lock);
    if (reg == REG_ACCESS) {
        write_access(tis, locality, (uint8_t)value);
    } else if (tis->active == locality && locality < USABLE_LOCALITIES) {
        if (reg == REG_STATUS)
            write_status(tis, (uint8_t)value);
        for (unsigned i = 0; is_fifo(reg) && i < size_bytes; i++)
            write_fifo(tis, (uint8_t)(value >> (8 * i)));
    }
    pthread_mutex_unlock(&tis->lock);
}

/* ---- life ---- */

static void clear(struct tpm_tis *tis)
{
    tis->state = IDLE;
    tis->active = NOBODY;
    tis->requested = tis->seized = 0;
    tis->is_given_up = tis->is_ready_wanted = false;
    tis->size = tis->at = 0;
    memset(tis->buffer, 0, sizeof(tis->buffer));
}

static void tis_reset(void *device)
{
    struct tpm_tis *tis = device;
    pthread_mutex_lock(&tis->lock);
    clear(tis);
    pthread_mutex_unlock(&tis->lock);
    tis->backend.reset(tis->backend.opaque);
}

static void tis_save(void *device, struct save *save)
{
    struct tpm_tis *tis = device;
    save_u8(save, (uint8_t)tis->state);
    save_u8(save, tis->active);
    save_u8(save, tis->requested);
    save_u8(save, tis->seized);
    save_u32(save, tis->size);
    save_u32(save, tis->at);
    save_bytes(save, tis->buffer, sizeof(tis->buffer));
    if (!tis->backend.save(tis->backend.opaque, save))
        save->failed = true;
}

static bool tis_load(void *device, struct load *load, uint32_t version)
{
    struct tpm_tis *tis = device;
    pthread_mutex_lock(&tis->lock);
    clear(tis);
    uint8_t state = load_u8(load);
    tis->active = load_u8(load);
    tis->requested = load_u8(load);
    tis->seized = load_u8(load);
    tis->size = load_u32(load);
    tis->at = load_u32(load);
    load_bytes(load, tis->buffer, sizeof(tis->buffer));
    tis->state = state;
    if (version != tpm_tis_ops.version || state >= STATES || state == EXECUTION ||
        (tis->active >= USABLE_LOCALITIES && tis->active != NOBODY) ||
        tis->size > TPM_TIS_BUFFER_BYTES || tis->at > tis->size)
        load_fail(load);
    if (load->failed)
        clear(tis);
    pthread_mutex_unlock(&tis->lock);
    if (!load->failed && !tis->backend.load(tis->backend.opaque, load))
        load_fail(load);
    if (load->failed)
        tis_reset(tis);
    return !load->failed;
}

static void tis_destroy(void *device)
{
    struct tpm_tis *tis = device;
    bus_unmap(tis->bus, BUS_MMIO, tis->config.base);
    tis->backend.set_handler(tis->backend.opaque, NULL);
    pthread_mutex_destroy(&tis->lock);
    free(tis);
}

struct tpm_tis *tpm_tis_create(const struct tpm_config *config, struct bus *bus, struct error *err)
{
    struct tpm_tis *tis = calloc(1, sizeof(*tis));
    if (!tis) {
        error_set(err, "cannot create device", tpm_tis_ops.name, "out of memory");
        return NULL;
    }
    tis->config = *config;
    tis->backend = *config->backend;
    tis->bus = bus;
    clear(tis);
    const struct bus_range range = {"tpm",    BUS_MMIO,  config->base, TPM_RANGE_BYTES,
                                    tis_read, tis_write, tis};
    if (!bus_map(bus, &range, err)) {
        free(tis);
        return NULL;
    }
    pthread_mutex_init(&tis->lock, NULL);
    tis->backend.set_handler(tis->backend.opaque, &(struct tpm_handler){responded, tis});
    return tis;
}

const struct device_ops tpm_tis_ops = {
    .name = "tpm-tis",
    .version = 1,
    .reset = tis_reset,
    .save = tis_save,
    .load = tis_load,
    .destroy = tis_destroy,
};
