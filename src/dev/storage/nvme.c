/* SPDX-License-Identifier: BSD-2-Clause
 *
 * NVMe controller: registers (NVM Express 1.4, chapter 3), resets, shutdown, its place on PCI.
 * Left out: controller memory buffer, boot partitions, weighted arbitration, shadow doorbells,
 * several namespaces. See nvme_internal.h for the parts and the lock.
 */
#include "dev/storage/nvme_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLASS = 0x010802,
    REGISTER_BAR = 0,
    MSIX_BAR = 4,
    BAR_BYTES = 0x4000,

    REG_CAP = 0x00, /* 3.1 */
    REG_VS = 0x08,
    REG_INTMS = 0x0c,
    REG_INTMC = 0x10,
    REG_CC = 0x14,
    REG_CSTS = 0x1c,
    REG_NSSR = 0x20,
    REG_AQA = 0x24,
    REG_ASQ = 0x28,
    REG_ACQ = 0x30,
    REG_END = 0x38,
    DOORBELLS_AT = 0x1000,
    DOORBELL_BYTES = 4,

    CC_ENABLE = 1 << 0,
    CC_SHUTDOWN = 3 << 14,
    CSTS_READY = 1 << 0,
    CSTS_FATAL = 1 << 1,
    CSTS_SHUTTING_DOWN = 1 << 2,
    CSTS_SHUT_DOWN = 2 << 2,
    CSTS_SHUTDOWN_MASK = 3 << 2,
    CSTS_SUBSYSTEM_RESET = 1 << 4,
};
#define VERSION  UINT32_C(0x00010400)
#define CC_USED  UINT32_C(0x00fffff1)
#define CC_FIXED UINT32_C(0x00003ff0) /* CSS, MPS, AMS */
#define NSSR_KEY UINT32_C(0x4e564d65) /* "NVMe" */

/* ---- resets (7.3) ---- */

static void forget_queues(struct nvme *nvme)
{
    memset(nvme->sq, 0, sizeof(nvme->sq));
    memset(nvme->cq, 0, sizeof(nvme->cq));
    nvme->event_count = 0;
    nvme->events_pending = nvme->events_masked = 0;
    nvme->generation++;
    nvme->is_enabled = false;
    nvme->intms = 0;
    nvme_features_reset(nvme);
    msix_clear_pending(nvme->msix);
    nvme_update_intx(nvme);
}

void nvme_power_on(struct nvme *nvme)
{
    forget_queues(nvme);
    nvme->is_resetting = nvme->resets_all = false;
    nvme->cc = nvme->csts = nvme->aqa = 0;
    nvme->asq = nvme->acq = 0;
    memset(&nvme->counters, 0, sizeof(nvme->counters));
    memset(nvme->errors, 0, sizeof(nvme->errors));
}

/* Checks what the guest has set before it enabled the controller; a mistake is fatal (7.6.1). */
static bool open_admin_queues(struct nvme *nvme)
{
    uint32_t sq_entries = (nvme->aqa & 0xfff) + 1, cq_entries = (nvme->aqa >> 16 & 0xfff) + 1;
    unsigned command_set = nvme->cc >> 4 & 7, page_shift = nvme->cc >> 7 & 15;
    unsigned arbitration = nvme->cc >> 11 & 7;
    if (command_set || arbitration || page_shift > NVME_PAGE_SHIFT_MAX - NVME_PAGE_SHIFT_MIN ||
        sq_entries < 2 || cq_entries < 2)
        return false;
    if (!nvme_cq_open(nvme, 0, nvme->acq, cq_entries) ||
        !nvme_sq_open(nvme, 0, nvme->asq, sq_entries, 0))
        return false;
    nvme->cq[0].interrupts = true;
    return true;
}

static void enable(struct nvme *nvme)
{
    nvme->backend.info(nvme->backend.opaque, &nvme->info);
    if (open_admin_queues(nvme)) {
        nvme->is_enabled = true;
        nvme->csts |= CSTS_READY;
        return;
    }
    nvme->csts |= CSTS_FATAL;
    log_limited(nvme->log, &nvme->log_limit, LOG_DEBUG, "nvme",
                "enabled with settings that cannot be: CC %#x, AQA %#x", nvme->cc, nvme->aqa);
}

static void end_reset(struct nvme *nvme)
{
    nvme->is_resetting = false;
    nvme->csts = 0;
    if (nvme->resets_all) {
        nvme->resets_all = false;
        nvme->aqa = 0;
        nvme->asq = nvme->acq = 0;
        nvme->csts = CSTS_SUBSYSTEM_RESET;
    }
    if (nvme->cc & CC_ENABLE)
        enable(nvme);
}

static void begin_reset(struct nvme *nvme)
{
    forget_queues(nvme);
    nvme->is_resetting = true;
    if (!nvme->in_flight)
        end_reset(nvme);
}

void nvme_landed(struct nvme *nvme)
{
    if (nvme->is_resetting && !nvme->in_flight)
        end_reset(nvme);
}

void nvme_shutdown_done(struct nvme *nvme)
{
    nvme->csts = (nvme->csts & ~(uint32_t)CSTS_SHUTDOWN_MASK) | CSTS_SHUT_DOWN;
}

/* ---- registers ---- */

static void write_cc(struct nvme *nvme, uint32_t value)
{
    uint32_t old = nvme->cc;
    nvme->cc = value & CC_USED;
    /* The size of pages and the like only change while it is disabled (3.1.5). */
    if (old & value & CC_ENABLE)
        nvme->cc = (nvme->cc & ~CC_FIXED) | (old & CC_FIXED);
    if (old & ~nvme->cc & CC_ENABLE) {
        begin_reset(nvme);
    } else if (~old & nvme->cc & CC_ENABLE && !nvme->is_resetting) {
        enable(nvme);
    }
    if (nvme->cc & CC_SHUTDOWN && !(old & CC_SHUTDOWN) && nvme->cc & CC_ENABLE) {
        nvme->csts = (nvme->csts & ~(uint32_t)CSTS_SHUTDOWN_MASK) | CSTS_SHUTTING_DOWN;
        nvme_flush_for_shutdown(nvme);
    }
}

static void write_nssr(struct nvme *nvme, uint32_t value)
{
    if (value != NSSR_KEY)
        return;
    nvme->cc = 0;
    nvme->resets_all = true;
    begin_reset(nvme);
}

static void write_register(struct nvme *nvme, unsigned offset, uint32_t value)
{
    bool can_place = !(nvme->cc & CC_ENABLE);
    switch (offset) {
    case REG_INTMS:
        nvme->intms |= value;
        nvme_update_intx(nvme);
        break;
    case REG_INTMC:
        nvme->intms &= ~value;
        nvme_update_intx(nvme);
        break;
    case REG_CC: write_cc(nvme, value); break;
    case REG_CSTS: nvme->csts &= ~(value & CSTS_SUBSYSTEM_RESET); break;
    case REG_NSSR: write_nssr(nvme, value); break;
    case REG_AQA: nvme->aqa = can_place ? value & 0x0fff0fff : nvme->aqa; break;
    case REG_ASQ:
    case REG_ASQ + 4:
    case REG_ACQ:
    case REG_ACQ + 4: {
        uint64_t *where = offset < REG_ACQ ? &nvme->asq : &nvme->acq;
        unsigned shift = 8 * (offset & 4);
        if (can_place)
            *where = (*where & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)value << shift;
        break;
    }
    }
}

static void image_put(uint8_t *image, unsigned offset, uint64_t value, unsigned size_bytes)
{
    memcpy(image + offset, &value, size_bytes);
}

static uint64_t capabilities(void)
{
    enum { CONTIGUOUS = 1 << 16, TIMEOUT = 60 }; /* 60 × 500 ms: a slow disk ends a reset late */
    const uint64_t subsystem_reset = UINT64_C(1) << 36, nvm_commands = UINT64_C(1) << 37;
    return (NVME_QUEUE_ENTRIES_MAX - 1) | CONTIGUOUS | (uint64_t)TIMEOUT << 24 | subsystem_reset |
           nvm_commands | (uint64_t)(NVME_PAGE_SHIFT_MAX - NVME_PAGE_SHIFT_MIN) << 52;
}

static uint64_t registers_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct nvme *nvme = opaque;
    uint8_t image[REG_END] = {0};
    uint64_t value = 0;
    if (offset >= REG_END || offset % size_bytes || size_bytes > REG_END - offset)
        return 0;
    pthread_mutex_lock(&nvme->lock);
    image_put(image, REG_CAP, capabilities(), 8);
    image_put(image, REG_VS, VERSION, 4);
    image_put(image, REG_INTMS, nvme->intms, 4);
    image_put(image, REG_INTMC, nvme->intms, 4);
    image_put(image, REG_CC, nvme->cc, 4);
    image_put(image, REG_CSTS, nvme->csts, 4);
    image_put(image, REG_AQA, nvme->aqa, 4);
    image_put(image, REG_ASQ, nvme->asq, 8);
    image_put(image, REG_ACQ, nvme->acq, 8);
    pthread_mutex_unlock(&nvme->lock);
    memcpy(&value, image + offset, size_bytes);
    return value;
}

/* Narrow accesses to registers are not defined (3.1): they are dropped. */
static void registers_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct nvme *nvme = opaque;
    if (size_bytes < 4 || offset % size_bytes)
        return;
    pthread_mutex_lock(&nvme->lock);
    if (offset >= DOORBELLS_AT) {
        nvme_doorbell(nvme, (unsigned)(offset - DOORBELLS_AT) / DOORBELL_BYTES, (uint32_t)value);
    } else {
        write_register(nvme, (unsigned)offset, (uint32_t)value);
        if (size_bytes == 8)
            write_register(nvme, (unsigned)offset + 4, (uint32_t)(value >> 32));
    }
    pthread_mutex_unlock(&nvme->lock);
}

/* ---- life ---- */

static void config_written(void *opaque, unsigned offset, unsigned size_bytes)
{
    struct nvme *nvme = opaque;
    if (!nvme->msix)
        return;
    msix_config_written(nvme->msix, offset, size_bytes);
    pthread_mutex_lock(&nvme->lock);
    nvme_update_intx(nvme); /* queues may have waited while MSI-X was on */
    pthread_mutex_unlock(&nvme->lock);
}

static bool create_function(struct nvme *nvme, const struct nvme_config *config, struct error *err)
{
    const struct pci_function_config function = {.name = nvme_ops.name,
                                                 .slot = config->slot,
                                                 .function = config->function,
                                                 .vendor = NVME_PCI_VENDOR,
                                                 .device = NVME_PCI_DEVICE,
                                                 .subsystem_vendor = NVME_PCI_VENDOR,
                                                 .subsystem = NVME_PCI_DEVICE,
                                                 .class_code = CLASS,
                                                 .pin = 1,
                                                 .written = config_written,
                                                 .opaque = nvme};
    nvme->function = pci_function_create(config->pci, &function, err);
    if (!nvme->function)
        return false;
    nvme->msix = msix_create(nvme->function, MSIX_BAR, NVME_QUEUES, &config->msi, err);
    if (!nvme->msix)
        return false;
    pci_function_bar(nvme->function, REGISTER_BAR,
                     &(struct pci_bar){.is_64bit = true,
                                       .size_bytes = BAR_BYTES,
                                       .read = registers_read,
                                       .write = registers_write,
                                       .opaque = nvme});
    return true;
}

static void nvme_destroy(void *device)
{
    struct nvme *nvme = device;
    if (nvme->function)
        pci_function_destroy(nvme->function);
    msix_destroy(nvme->msix);
    while (nvme->free_requests) {
        struct nvme_request *r = nvme->free_requests;
        nvme->free_requests = r->next;
        free(r);
    }
    pthread_mutex_destroy(&nvme->lock);
    free(nvme);
}

struct nvme *nvme_create(const struct nvme_config *config, struct error *err)
{
    struct nvme *nvme = calloc(1, sizeof(*nvme));
    if (!nvme) {
        error_set(err, "cannot create device", nvme_ops.name, "out of memory");
        return NULL;
    }
    nvme->ram = config->ram;
    nvme->log = config->log;
    nvme->backend = *config->backend;
    nvme->backend.info(nvme->backend.opaque, &nvme->info);
    if (config->serial)
        memcpy(nvme->serial, config->serial, strnlen(config->serial, sizeof(nvme->serial)));
    else
        snprintf(nvme->serial, sizeof(nvme->serial), "SKEP%02X%u", config->slot & 0xff,
                 config->function & 7);
    pthread_mutex_init(&nvme->lock, NULL);
    if (!create_function(nvme, config, err)) {
        nvme_destroy(nvme);
        return NULL;
    }
    nvme_power_on(nvme);
    return nvme;
}

static void nvme_reset(void *device)
{
    struct nvme *nvme = device;
    pthread_mutex_lock(&nvme->lock);
    nvme_power_on(nvme);
    pthread_mutex_unlock(&nvme->lock);
    pci_function_reset(nvme->function);
    msix_reset(nvme->msix);
}

static void nvme_save_all(void *device, struct save *save)
{
    struct nvme *nvme = device;
    pci_function_save(nvme->function, save);
    msix_save(nvme->msix, save);
    pthread_mutex_lock(&nvme->lock);
    nvme_save(nvme, save);
    pthread_mutex_unlock(&nvme->lock);
}

static bool nvme_load_all(void *device, struct load *load, uint32_t version)
{
    struct nvme *nvme = device;
    bool loaded = false;
    nvme_reset(nvme);
    if (version == nvme_ops.version && pci_function_load(nvme->function, load) &&
        msix_load(nvme->msix, load)) {
        pthread_mutex_lock(&nvme->lock);
        loaded = nvme_load(nvme, load);
        pthread_mutex_unlock(&nvme->lock);
    }
    if (!loaded || load->failed) {
        load_fail(load);
        nvme_reset(nvme);
    }
    return !load->failed;
}

const struct device_ops nvme_ops = {
    .name = "nvme",
    .version = 1,
    .reset = nvme_reset,
    .save = nvme_save_all,
    .load = nvme_load_all,
    .destroy = nvme_destroy,
};
