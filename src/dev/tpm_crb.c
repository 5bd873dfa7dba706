/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A TPM's command and response buffer (PC Client Platform TPM Profile 1.05, 6.5.3). Left out:
 * localities but 0, interrupts, cancelling: a command that the driver cancels runs to its end.
 *
 * Registers are used by vCPU threads, answers come on the loop's; one lock.
 */
#include "dev/tpm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    REG_LOCALITY_STATE = 0x00,
    REG_LOCALITY_CONTROL = 0x08,
    REG_LOCALITY_STATUS = 0x0c,
    REG_INTERFACE_ID = 0x30,
    REG_VENDOR = 0x34,
    REG_REQUEST = 0x40,
    REG_STATUS = 0x44,
    REG_START = 0x4c,
    REG_COMMAND_SIZE = 0x58,
    REG_COMMAND_LOW = 0x5c,
    REG_COMMAND_HIGH = 0x60,
    REG_RESPONSE_SIZE = 0x64,
    REG_RESPONSE_LOW = 0x68,
    REG_RESPONSE_HIGH = 0x6c,
    BUFFER_AT = 0x80,
    REGISTER_BYTES = 0x80,

    STATE_VALID = 1 << 7,
    STATE_ASSIGNED = 1 << 1,
    CONTROL_REQUEST = 1 << 0,
    CONTROL_RELINQUISH = 1 << 1,
    STATUS_GRANTED = 1 << 0,
    REQUEST_READY = 1 << 0,
    REQUEST_IDLE = 1 << 1,
    STATUS_ERROR = 1 << 0,
    STATUS_IDLE = 1 << 1,
    START = 1 << 0,
    SIZE_AT = 2, /* in a command's header, big-endian */
};
/* CRB, its version 1; 64 bytes at once; selected. */
#define INTERFACE_ID      UINT32_C(0x00025811)
#define VENDOR_AND_DEVICE UINT32_C(0x00011014) /* IBM's: libtpms is of them */

struct tpm_crb {
    struct tpm_config config;
    struct tpm_backend backend;
    struct bus *bus;
    pthread_mutex_t lock;
    bool is_assigned, is_ready, is_running, has_failed;
    uint8_t buffer[TPM_CRB_BUFFER_BYTES];
};

/* ---- commands ---- */

static void answer_error(struct tpm_crb *crb, uint32_t code)
{
    const uint8_t answer[TPM_HEADER_BYTES] = {
        0x80, 0x01, 0, 0, 0, TPM_HEADER_BYTES, 0, 0, (uint8_t)(code >> 8), (uint8_t)code};
    memcpy(crb->buffer, answer, sizeof(answer));
}

static void execute(struct tpm_crb *crb)
{
    enum { RC_COMMAND_SIZE = 0x142 };
    uint32_t size = 0;
    for (unsigned i = 0; i < 4; i++)
        size = size << 8 | crb->buffer[SIZE_AT + i];
    if (size < TPM_HEADER_BYTES || size > TPM_CRB_BUFFER_BYTES) {
        answer_error(crb, RC_COMMAND_SIZE);
        return;
    }
    crb->is_running = true;
    crb->backend.submit(crb->backend.opaque, 0, crb->buffer, size);
}

static void responded(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct tpm_crb *crb = opaque;
    pthread_mutex_lock(&crb->lock);
    if (crb->is_running) {
        crb->is_running = false;
        crb->has_failed = size_bytes < TPM_HEADER_BYTES || size_bytes > TPM_CRB_BUFFER_BYTES;
        if (!crb->has_failed)
            memcpy(crb->buffer, bytes, size_bytes);
    }
    pthread_mutex_unlock(&crb->lock);
}

/* ---- registers ---- */

static uint32_t read_register(const struct tpm_crb *crb, unsigned reg)
{
    uint64_t buffer = crb->config.base + BUFFER_AT;
    switch (reg) {
    case REG_LOCALITY_STATE: return STATE_VALID | (crb->is_assigned ? STATE_ASSIGNED : 0);
    case REG_LOCALITY_STATUS: return crb->is_assigned ? STATUS_GRANTED : 0;
    case REG_INTERFACE_ID: return INTERFACE_ID;
    case REG_VENDOR: return VENDOR_AND_DEVICE;
    case REG_STATUS:
        return (crb->has_failed ? STATUS_ERROR : 0) | (crb->is_ready ? 0 : STATUS_IDLE);
    case REG_START: return crb->is_running ? START : 0;
    case REG_COMMAND_SIZE:
    case REG_RESPONSE_SIZE: return TPM_CRB_BUFFER_BYTES;
    case REG_COMMAND_LOW:
    case REG_RESPONSE_LOW: return (uint32_t)buffer;
    case REG_COMMAND_HIGH:
    case REG_RESPONSE_HIGH: return (uint32_t)(buffer >> 32);
    default: return 0;
    }
}

/* The requests' bits are cleared when they are done, which is at once. */
static void write_register(struct tpm_crb *crb, unsigned reg, uint32_t value)
{
    switch (reg) {
    case REG_LOCALITY_CONTROL:
        if (value & CONTROL_RELINQUISH)
            crb->is_assigned = false;
        else if (value & CONTROL_REQUEST)
            crb->is_assigned = true;
        break;
    case REG_REQUEST:
        if (!crb->is_assigned || crb->is_running)
            break;
        if (value & REQUEST_READY)
            crb->is_ready = true;
        else if (value & REQUEST_IDLE)
            crb->is_ready = false;
        break;
    case REG_START:
        if (value & START && crb->is_assigned && crb->is_ready && !crb->is_running)
            execute(crb);
        break;
    }
}

static uint64_t crb_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct tpm_crb *crb = opaque;
    uint8_t image[REGISTER_BYTES];
    uint64_t value = 0;
    if (offset >= BUFFER_AT + TPM_CRB_BUFFER_BYTES)
        return UINT64_MAX; /* other localities */
    pthread_mutex_lock(&crb->lock);
    if (offset >= BUFFER_AT) {
        if (size_bytes <= BUFFER_AT + TPM_CRB_BUFFER_BYTES - offset && !crb->is_running)
            memcpy(&value, crb->buffer + (offset - BUFFER_AT), size_bytes);
    } else if (size_bytes <= REGISTER_BYTES - offset) {
        for (unsigned reg = 0; reg < REGISTER_BYTES; reg += 4) {
            uint32_t word = read_register(crb, reg);
            memcpy(image + reg, &word, 4);
        }
        memcpy(&value, image + offset, size_bytes);
    }
    pthread_mutex_unlock(&crb->lock);
    return value;
}

static void crb_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct tpm_crb *crb = opaque;
    if (offset >= BUFFER_AT + TPM_CRB_BUFFER_BYTES)
        return;
    pthread_mutex_lock(&crb->lock);
    if (offset < BUFFER_AT)
        write_register(crb, (unsigned)offset, (uint32_t)value);
    else if (size_bytes <= BUFFER_AT + TPM_CRB_BUFFER_BYTES - offset && !crb->is_running)
        memcpy(crb->buffer + (offset - BUFFER_AT), &value, size_bytes);
    pthread_mutex_unlock(&crb->lock);
}

/* ---- life ---- */

static void clear(struct tpm_crb *crb)
{
    crb->is_assigned = crb->is_ready = crb->is_running = crb->has_failed = false;
    memset(crb->buffer, 0, sizeof(crb->buffer));
}

static void crb_reset(void *device)
{
    struct tpm_crb *crb = device;
    pthread_mutex_lock(&crb->lock);
    clear(crb);
    pthread_mutex_unlock(&crb->lock);
    crb->backend.reset(crb->backend.opaque);
}

static void crb_save(void *device, struct save *save)
{
    struct tpm_crb *crb = device;
    save_bool(save, crb->is_assigned);
    save_bool(save, crb->is_ready);
    save_bool(save, crb->has_failed);
    save_bytes(save, crb->buffer, sizeof(crb->buffer));
    if (!crb->backend.save(crb->backend.opaque, save))
        save->failed = true;
}

static bool crb_load(void *device, struct load *load, uint32_t version)
{
    struct tpm_crb *crb = device;
    pthread_mutex_lock(&crb->lock);
    clear(crb);
    crb->is_assigned = load_bool(load);
    crb->is_ready = load_bool(load);
    crb->has_failed = load_bool(load);
    load_bytes(load, crb->buffer, sizeof(crb->buffer));
    pthread_mutex_unlock(&crb->lock);
    if (version != tpm_crb_ops.version)
        load_fail(load);
    if (!load->failed && !crb->backend.load(crb->backend.opaque, load))
        load_fail(load);
    if (load->failed)
        crb_reset(crb);
    return !load->failed;
}

static void crb_destroy(void *device)
{
    struct tpm_crb *crb = device;
    bus_unmap(crb->bus, BUS_MMIO, crb->config.base);
    crb->backend.set_handler(crb->backend.opaque, NULL);
    pthread_mutex_destroy(&crb->lock);
    free(crb);
}

struct tpm_crb *tpm_crb_create(const struct tpm_config *config, struct bus *bus, struct error *err)
{
    struct tpm_crb *crb = calloc(1, sizeof(*crb));
    if (!crb) {
        error_set(err, "cannot create device", tpm_crb_ops.name, "out of memory");
        return NULL;
    }
    crb->config = *config;
    crb->backend = *config->backend;
    crb->bus = bus;
    const struct bus_range range = {"tpm",    BUS_MMIO,  config->base, TPM_RANGE_BYTES,
                                    crb_read, crb_write, crb};
    if (!bus_map(bus, &range, err)) {
        free(crb);
        return NULL;
    }
    pthread_mutex_init(&crb->lock, NULL);
    crb->backend.set_handler(crb->backend.opaque, &(struct tpm_handler){responded, crb});
    return crb;
}

const struct device_ops tpm_crb_ops = {
    .name = "tpm-crb",
    .version = 1,
    .reset = crb_reset,
    .save = crb_save,
    .load = crb_load,
    .destroy = crb_destroy,
};
