/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The get log page command (NVM Express 1.4, 5.14): errors, health, firmware, effects of commands.
 */
#include "dev/storage/nvme_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    PAGE_ERRORS = 1,
    PAGE_HEALTH = 2,
    PAGE_FIRMWARE = 3,
    PAGE_EFFECTS = 5,
    PAGE_MAX_BYTES = 4096,
    ERROR_BYTES = 64,
    HEALTH_BYTES = 512,
    FIRMWARE_BYTES = 512,
};

static void put(uint8_t *data, unsigned offset, uint64_t value, unsigned size_bytes)
{
    memcpy(data + offset, &value, size_bytes);
}

void nvme_log_error(struct nvme *nvme, unsigned sq, const struct nvme_command *command,
                    enum nvme_status status)
{
    struct nvme_error *e = &nvme->errors[nvme->counters.errors++ % NVME_ERRORS_MAX];
    *e = (struct nvme_error){
        .count = nvme->counters.errors,
        .lba = sq ? command->dw[0] | (uint64_t)command->dw[1] << 32 : 0,
        .nsid = command->nsid,
        .sq = (uint16_t)sq,
        .command = command->id,
        .status = (uint16_t)(status << 1),
        .location = UINT16_MAX, /* of the field that is wrong: not told */
    };
}

/* The newest first; those that are not there yet are zero. */
static size_t errors_page(const struct nvme *nvme, uint8_t *data)
{
    for (uint64_t i = 0; i < NVME_ERRORS_MAX && i < nvme->counters.errors; i++) {
        const struct nvme_error *e =
            &nvme->errors[(nvme->counters.errors - 1 - i) % NVME_ERRORS_MAX];
        uint8_t *entry = data + i * ERROR_BYTES;
        put(entry, 0, e->count, 8);
        put(entry, 8, e->sq, 2);
        put(entry, 10, e->command, 2);
        put(entry, 12, e->status, 2);
        put(entry, 14, e->location, 2);
        put(entry, 16, e->lba, 8);
        put(entry, 24, e->nsid, 4);
    }
    return (size_t)NVME_ERRORS_MAX * ERROR_BYTES;
}

static size_t health_page(const struct nvme *nvme, uint8_t *data)
{
    enum { THRESHOLD_CROSSED = 1 << 1 };
    const struct nvme_counters *counters = &nvme->counters;
    bool is_crossed = NVME_TEMPERATURE >= nvme->features.over_threshold ||
                      NVME_TEMPERATURE <= nvme->features.under_threshold;
    put(data, 0, is_crossed ? THRESHOLD_CROSSED : 0, 1);
    put(data, 1, NVME_TEMPERATURE, 2);
    put(data, 3, 100, 1);                                   /* spare left, in percent */
    put(data, 4, 10, 1);                                    /* its threshold */
    put(data, 32, (counters->read_blocks + 999) / 1000, 8); /* in thousands of 512 bytes */
    put(data, 48, (counters->written_blocks + 999) / 1000, 8);
    put(data, 64, counters->reads, 8);
    put(data, 80, counters->writes, 8);
    put(data, 112, 1, 8); /* power cycles */
    put(data, 176, counters->errors, 8);
    return HEALTH_BYTES;
}

static size_t firmware_page(uint8_t *data)
{
    data[0] = 1; /* slot 1 is active */
    memcpy(data + 8, NVME_FIRMWARE, strlen(NVME_FIRMWARE));
    return FIRMWARE_BYTES;
}

/* Four bytes each of the 256 admin and 256 I/O commands (figure 202). */
static size_t effects_page(const struct nvme *nvme, uint8_t *data)
{
    enum { IO_AT = 1024, SUPPORTED = 1 << 0, CHANGES_BLOCKS = 1 << 1 };
    static const uint8_t admin[] = {0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x0c};
    static const uint8_t reading[] = {0x00, 0x02, 0x05}, writing[] = {0x01, 0x08, 0x09};
    for (unsigned i = 0; i < sizeof(admin); i++)
        put(data, 4U * admin[i], SUPPORTED, 4);
    for (unsigned i = 0; i < sizeof(reading); i++)
        put(data, IO_AT + 4U * reading[i], SUPPORTED, 4);
    for (unsigned i = 0; i < sizeof(writing) && !nvme->info.read_only; i++)
        put(data, IO_AT + 4U * writing[i], SUPPORTED | CHANGES_BLOCKS, 4);
    return PAGE_MAX_BYTES;
}

/* The whole page; its size, or 0: there is none. */
static size_t make_page(const struct nvme *nvme, unsigned page, uint8_t *data)
{
    switch (page) {
    case PAGE_ERRORS: return errors_page(nvme, data);
    case PAGE_HEALTH: return health_page(nvme, data);
    case PAGE_FIRMWARE: return firmware_page(data);
    case PAGE_EFFECTS: return effects_page(nvme, data);
    default: return 0;
    }
}

/* Reading the page of an event lets the next of its type be told (5.2). */
static void unmask_event(struct nvme *nvme, unsigned page)
{
    if (page == PAGE_ERRORS)
        nvme->events_masked &= (uint8_t) ~(1u << NVME_EVENT_ERROR);
    else if (page == PAGE_HEALTH)
        nvme->events_masked &= (uint8_t) ~(1u << NVME_EVENT_HEALTH);
    nvme_events_run(nvme);
}

enum nvme_status nvme_log_page(struct nvme *nvme, const struct nvme_command *command)
{
    enum { RETAIN_EVENT = 1 << 15 };
    uint8_t page_data[PAGE_MAX_BYTES] = {0};
    unsigned page = command->dw[0] & 0xff;
    uint64_t size = ((uint64_t)(command->dw[0] >> 16 | (command->dw[1] & 0xffff) << 16) + 1) * 4;
    uint64_t offset = command->dw[2] | (uint64_t)command->dw[3] << 32;
    if (command->nsid != 0 && command->nsid != NVME_ALL_NAMESPACES)
        return NVME_INVALID_FIELD;
    size_t page_bytes = make_page(nvme, page, page_data);
    if (!page_bytes)
        return NVME_LOG_PAGE_INVALID;
    if (offset % 4 || offset > page_bytes || size > NVME_TRANSFER_MAX_BYTES)
        return NVME_INVALID_FIELD;
    uint8_t *data = calloc(1, size);
    if (!data)
        return NVME_INTERNAL_ERROR;
    size_t left = page_bytes - offset;
    memcpy(data, page_data + offset, left < size ? left : size);
    enum nvme_status status = nvme_put(nvme, command, data, size);
    free(data);
    if (status == NVME_OK && !(command->dw[0] & RETAIN_EVENT))
        unmask_event(nvme, page);
    return status;
}
