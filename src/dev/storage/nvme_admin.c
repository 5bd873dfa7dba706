/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Admin commands (NVM Express 1.4, chapter 5): queues, abort, asynchronous events, features. Left
 * out: firmware download, format, namespace management, self-test, directives, security, sanitize.
 */
#include "dev/storage/nvme_internal.h"

#include <string.h>

enum {
    OP_DELETE_SQ = 0x00,
    OP_CREATE_SQ = 0x01,
    OP_LOG_PAGE = 0x02,
    OP_DELETE_CQ = 0x04,
    OP_CREATE_CQ = 0x05,
    OP_IDENTIFY = 0x06,
    OP_ABORT = 0x08,
    OP_SET_FEATURES = 0x09,
    OP_GET_FEATURES = 0x0a,
    OP_ASYNC_EVENT = 0x0c,
};

enum { /* 5.21.1 */
       FEATURE_ARBITRATION = 0x01,
       FEATURE_POWER = 0x02,
       FEATURE_TEMPERATURE = 0x04,
       FEATURE_ERROR_RECOVERY = 0x05,
       FEATURE_WRITE_CACHE = 0x06,
       FEATURE_QUEUES = 0x07,
       FEATURE_COALESCING = 0x08,
       FEATURE_VECTOR = 0x09,
       FEATURE_ATOMICITY = 0x0a,
       FEATURE_EVENTS = 0x0b,
};

/* ---- queues (5.3 … 5.6) ---- */

static bool is_free_queue_id(unsigned id, bool is_used)
{
    return id >= 1 && id < NVME_QUEUES && !is_used;
}

static enum nvme_status create_cq(struct nvme *nvme, const struct nvme_command *command)
{
    enum { CONTIGUOUS = 1, INTERRUPTS = 2, ENTRY_SHIFT = 4 };
    unsigned id = command->dw[0] & 0xffff, vector = command->dw[1] >> 16;
    uint32_t entries = (command->dw[0] >> 16) + 1;
    if (!is_free_queue_id(id, id < NVME_QUEUES && nvme->cq[id].entries))
        return NVME_QUEUE_ID_INVALID;
    if (entries < 2 || entries > NVME_QUEUE_ENTRIES_MAX)
        return NVME_QUEUE_SIZE_INVALID;
    if (vector >= msix_vectors(nvme->msix))
        return NVME_VECTOR_INVALID;
    if (!(command->dw[1] & CONTIGUOUS) || (nvme->cc >> 20 & 15) != ENTRY_SHIFT)
        return NVME_INVALID_FIELD;
    if (command->prp[0] % nvme_page_bytes(nvme))
        return NVME_PRP_OFFSET_INVALID;
    if (!nvme_cq_open(nvme, id, command->prp[0], entries))
        return NVME_INVALID_FIELD;
    nvme->cq[id].interrupts = command->dw[1] & INTERRUPTS;
    nvme->cq[id].vector = (uint16_t)vector;
    return NVME_OK;
}

static enum nvme_status create_sq(struct nvme *nvme, const struct nvme_command *command)
{
    enum { CONTIGUOUS = 1, ENTRY_SHIFT = 6 };
    unsigned id = command->dw[0] & 0xffff, cq = command->dw[1] >> 16;
    uint32_t entries = (command->dw[0] >> 16) + 1;
    if (!is_free_queue_id(id, id < NVME_QUEUES && nvme->sq[id].entries))
        return NVME_QUEUE_ID_INVALID;
    if (cq == 0 || cq >= NVME_QUEUES || !nvme->cq[cq].entries)
        return NVME_CQ_INVALID;
    if (entries < 2 || entries > NVME_QUEUE_ENTRIES_MAX)
        return NVME_QUEUE_SIZE_INVALID;
    if (!(command->dw[1] & CONTIGUOUS) || (nvme->cc >> 16 & 15) != ENTRY_SHIFT)
        return NVME_INVALID_FIELD;
    if (command->prp[0] % nvme_page_bytes(nvme))
        return NVME_PRP_OFFSET_INVALID;
    return nvme_sq_open(nvme, id, command->prp[0], entries, cq) ? NVME_OK : NVME_INVALID_FIELD;
}

/* What the back end has is answered before the queue is gone. */
static enum nvme_status delete_sq(struct nvme *nvme, const struct nvme_command *command)
{
    unsigned id = command->dw[0] & 0xffff;
    if (id == 0 || id >= NVME_QUEUES || !nvme->sq[id].entries || nvme->sq[id].is_deleting)
        return NVME_QUEUE_ID_INVALID;
    if (nvme->sq[id].outstanding) {
        nvme->sq[id].is_deleting = true;
        nvme->sq[id].delete_command = command->id;
        return NVME_PENDING;
    }
    nvme_sq_close(nvme, id);
    return NVME_OK;
}

static enum nvme_status delete_cq(struct nvme *nvme, const struct nvme_command *command)
{
    unsigned id = command->dw[0] & 0xffff;
    if (id == 0 || id >= NVME_QUEUES || !nvme->cq[id].entries)
        return NVME_QUEUE_ID_INVALID;
    if (nvme->cq[id].sq_count)
        return NVME_QUEUE_DELETION_INVALID;
    nvme->cq[id] = (struct nvme_cq){0};
    if (!msix_enabled(nvme->msix))
        nvme_update_intx(nvme);
    return NVME_OK;
}

/* ---- events and abort ---- */

static enum nvme_status async_event(struct nvme *nvme, const struct nvme_command *command)
{
    if (nvme->event_count == NVME_EVENTS_MAX)
        return NVME_EVENT_LIMIT;
    /* It may wait for ever, so no room is kept for its answer; see nvme_events_run(). */
    nvme->cq[0].promised--;
    nvme->sq[0].outstanding--;
    nvme->event_commands[nvme->event_count++] = command->id;
    nvme_events_run(nvme);
    return NVME_PENDING;
}

/* A request for an event can be aborted; what the back end has runs to its end (bit 0 of the
 * result says so). */
static enum nvme_status abort_command(struct nvme *nvme, const struct nvme_command *command,
                                      uint32_t *result)
{
    unsigned sq = command->dw[0] & 0xffff, id = command->dw[0] >> 16;
    *result = 1;
    for (unsigned i = 0; sq == 0 && i < nvme->event_count; i++) {
        if (nvme->event_commands[i] != id)
            continue;
        /* Its answer comes first, and needs an entry beside the one that this command has. */
        const struct nvme_cq *cq = &nvme->cq[0];
        uint32_t used = (cq->tail + cq->entries - cq->head) % cq->entries;
        if (used + cq->promised >= cq->entries - 1)
            break;
        memmove(nvme->event_commands + i, nvme->event_commands + i + 1,
                (--nvme->event_count - i) * sizeof(nvme->event_commands[0]));
        nvme->cq[0].promised++;
        nvme->sq[0].outstanding++;
        nvme_answer(nvme, 0, (uint16_t)id, NVME_ABORT_REQUESTED, 0);
        *result = 0;
        break;
    }
    return NVME_OK;
}

/* ---- features (5.14, 5.21) ---- */

static const struct nvme_features default_features = {
    .over_threshold = NVME_TEMPERATURE_WARNING,
    .write_cache = true,
    .arbitration = 7, /* burst: no limit */
};

void nvme_features_reset(struct nvme *nvme)
{
    nvme->features = default_features;
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        nvme->features.vector_config[i] = i;
}

/* The temperature doesn't change, so an event can only come of the thresholds that are set. */
static enum nvme_status set_threshold(struct nvme *nvme, uint32_t value)
{
    enum {
        COMPOSITE = 0,
        ALL_SENSORS = 15,
        OVER = 0,
        UNDER = 1,
        EVENT_HEALTH = 2,
        EVENT_TEMPERATURE = 1
    };
    unsigned sensor = value >> 16 & 15, kind = value >> 20 & 3;
    if ((sensor != COMPOSITE && sensor != ALL_SENSORS) || kind > UNDER)
        return NVME_INVALID_FIELD;
    if (kind == OVER)
        nvme->features.over_threshold = (uint16_t)value;
    else
        nvme->features.under_threshold = (uint16_t)value;
    bool is_crossed = NVME_TEMPERATURE >= nvme->features.over_threshold ||
                      NVME_TEMPERATURE <= nvme->features.under_threshold;
    if (is_crossed && nvme->features.events & EVENT_HEALTH)
        nvme_event(nvme, NVME_EVENT_HEALTH, EVENT_TEMPERATURE);
    return NVME_OK;
}

static bool has_io_queues(const struct nvme *nvme)
{
    for (unsigned i = 1; i < NVME_QUEUES; i++)
        if (nvme->sq[i].entries || nvme->cq[i].entries)
            return true;
    return false;
}

static const uint32_t queues_result = (NVME_IO_QUEUES - 1) << 16 | (NVME_IO_QUEUES - 1);

/* As many as are asked for are there, so asking changes nothing. */
static enum nvme_status set_queues(struct nvme *nvme, uint32_t value, uint32_t *result)
{
    if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff)
        return NVME_INVALID_FIELD;
    if (has_io_queues(nvme))
        return NVME_COMMAND_SEQUENCE;
    *result = queues_result;
    return NVME_OK;
}

static enum nvme_status set_vector(struct nvme *nvme, uint32_t value)
{
    unsigned vector = value & 0xffff;
    if (vector >= NVME_QUEUES)
        return NVME_INVALID_FIELD;
    nvme->features.vector_config[vector] = value & 0x1ffff;
    return NVME_OK;
}

static enum nvme_status nvme_set_features(struct nvme *nvme, const struct nvme_command *command,
                                          uint32_t *result)
{
    struct nvme_features *features = &nvme->features;
    const uint32_t save = UINT32_C(1) << 31;
    uint32_t value = command->dw[1];
    if (command->dw[0] & save)
        return NVME_INVALID_FIELD; /* nothing is kept over a reset, ONCS says */
    switch (command->dw[0] & 0xff) {
    case FEATURE_ARBITRATION: features->arbitration = value; return NVME_OK;
    case FEATURE_POWER: return value & 31 ? NVME_INVALID_FIELD : NVME_OK; /* one state: 0 */
    case FEATURE_TEMPERATURE: return set_threshold(nvme, value);
    case FEATURE_ERROR_RECOVERY: features->error_recovery = (uint16_t)value; return NVME_OK;
    case FEATURE_WRITE_CACHE: features->write_cache = value & 1; return NVME_OK;
    case FEATURE_QUEUES: return set_queues(nvme, value, result);
    case FEATURE_COALESCING: features->coalescing = (uint16_t)value; return NVME_OK;
    case FEATURE_VECTOR: return set_vector(nvme, value);
    case FEATURE_ATOMICITY: features->atomicity = value & 1; return NVME_OK;
    case FEATURE_EVENTS: features->events = value; return NVME_OK;
    default: return NVME_INVALID_FIELD;
    }
}

static enum nvme_status get_threshold(const struct nvme *nvme, uint32_t which, uint32_t *result)
{
    unsigned sensor = which >> 16 & 15, kind = which >> 20 & 3;
    if (sensor || kind > 1)
        return NVME_INVALID_FIELD;
    *result = kind ? nvme->features.under_threshold : nvme->features.over_threshold;
    return NVME_OK;
}

static enum nvme_status nvme_get_features(struct nvme *nvme, const struct nvme_command *command,
                                          uint32_t *result)
{
    const struct nvme_features *features = &nvme->features;
    uint32_t which = command->dw[1];
    switch (command->dw[0] & 0xff) {
    case FEATURE_ARBITRATION: *result = features->arbitration; return NVME_OK;
    case FEATURE_POWER: return NVME_OK;
    case FEATURE_TEMPERATURE: return get_threshold(nvme, which, result);
    case FEATURE_ERROR_RECOVERY: *result = features->error_recovery; return NVME_OK;
    case FEATURE_WRITE_CACHE: *result = features->write_cache; return NVME_OK;
    case FEATURE_QUEUES: *result = queues_result; return NVME_OK;
    case FEATURE_COALESCING: *result = features->coalescing; return NVME_OK;
    case FEATURE_VECTOR:
        if ((which & 0xffff) >= NVME_QUEUES)
            return NVME_INVALID_FIELD;
        *result = features->vector_config[which & 0xffff];
        return NVME_OK;
    case FEATURE_ATOMICITY: *result = features->atomicity; return NVME_OK;
    case FEATURE_EVENTS: *result = features->events; return NVME_OK;
    default: return NVME_INVALID_FIELD;
    }
}

enum nvme_status nvme_admin(struct nvme *nvme, const struct nvme_command *command, uint32_t *result)
{
    switch (command->opcode) {
    case OP_DELETE_SQ: return delete_sq(nvme, command);
    case OP_CREATE_SQ: return create_sq(nvme, command);
    case OP_LOG_PAGE: return nvme_log_page(nvme, command);
    case OP_DELETE_CQ: return delete_cq(nvme, command);
    case OP_CREATE_CQ: return create_cq(nvme, command);
    case OP_IDENTIFY: return nvme_identify(nvme, command);
    case OP_ABORT: return abort_command(nvme, command, result);
    case OP_SET_FEATURES: return nvme_set_features(nvme, command, result);
    case OP_GET_FEATURES: return nvme_get_features(nvme, command, result);
    case OP_ASYNC_EVENT: return async_event(nvme, command);
    default: return NVME_INVALID_OPCODE;
    }
}
