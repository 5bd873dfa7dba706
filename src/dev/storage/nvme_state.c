/* SPDX-License-Identifier: BSD-2-Clause
 *
 * An NVMe controller's state in a saved machine. The back end is drained before, so no command is
 * under way but requests for asynchronous events; what lies in a submission queue because its
 * answers have no room is taken when the guest makes room.
 */
#include "dev/storage/nvme_internal.h"

static void save_queues(const struct nvme *nvme, struct save *save)
{
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        const struct nvme_cq *cq = &nvme->cq[i];
        save_u32(save, cq->entries);
        if (!cq->entries)
            continue;
        save_u64(save, cq->gpa);
        save_u32(save, cq->head);
        save_u32(save, cq->tail);
        save_bool(save, cq->phase);
        save_bool(save, cq->interrupts);
        save_u16(save, cq->vector);
    }
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        const struct nvme_sq *sq = &nvme->sq[i];
        save_u32(save, sq->entries);
        if (!sq->entries)
            continue;
        save_u64(save, sq->gpa);
        save_u16(save, sq->cq);
        save_u32(save, sq->head);
        save_u32(save, sq->tail);
    }
}

static void save_features(const struct nvme_features *features, struct save *save)
{
    save_u32(save, features->arbitration);
    save_u16(save, features->over_threshold);
    save_u16(save, features->under_threshold);
    save_u16(save, features->error_recovery);
    save_bool(save, features->write_cache);
    save_u16(save, features->coalescing);
    save_u32(save, features->atomicity);
    save_u32(save, features->events);
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        save_u32(save, features->vector_config[i]);
}

static void save_logs(const struct nvme *nvme, struct save *save)
{
    save_u64(save, nvme->counters.read_blocks);
    save_u64(save, nvme->counters.written_blocks);
    save_u64(save, nvme->counters.reads);
    save_u64(save, nvme->counters.writes);
    save_u64(save, nvme->counters.errors);
    for (unsigned i = 0; i < NVME_ERRORS_MAX; i++) {
        const struct nvme_error *e = &nvme->errors[i];
        save_u64(save, e->count);
        save_u64(save, e->lba);
        save_u32(save, e->nsid);
        save_u16(save, e->sq);
        save_u16(save, e->command);
        save_u16(save, e->status);
        save_u16(save, e->location);
    }
}

void nvme_save(struct nvme *nvme, struct save *save)
{
    save_u32(save, nvme->intms);
    save_u32(save, nvme->cc);
    save_u32(save, nvme->csts);
    save_u32(save, nvme->aqa);
    save_u64(save, nvme->asq);
    save_u64(save, nvme->acq);
    save_bool(save, nvme->is_enabled);
    save_queues(nvme, save);
    save_features(&nvme->features, save);
    save_u8(save, (uint8_t)nvme->event_count);
    for (unsigned i = 0; i < NVME_EVENTS_MAX; i++)
        save_u16(save, i < nvme->event_count ? nvme->event_commands[i] : 0);
    save_u8(save, nvme->events_pending);
    save_u8(save, nvme->events_masked);
    save_bytes(save, nvme->event_info, sizeof(nvme->event_info));
    save_logs(nvme, save);
}

static uint32_t entries_max(unsigned id)
{
    return id ? NVME_QUEUE_ENTRIES_MAX : NVME_ADMIN_ENTRIES_MAX;
}

static bool load_cq(struct nvme *nvme, unsigned id, struct load *load)
{
    uint32_t entries = load_u32(load);
    if (!entries || load->failed)
        return !load->failed;
    uint64_t gpa = load_u64(load);
    if (entries < 2 || entries > entries_max(id) || !nvme_cq_open(nvme, id, gpa, entries))
        return false;
    struct nvme_cq *cq = &nvme->cq[id];
    cq->head = load_u32(load);
    cq->tail = load_u32(load);
    cq->phase = load_bool(load);
    cq->interrupts = load_bool(load);
    cq->vector = load_u16(load);
    return cq->head < entries && cq->tail < entries && cq->vector < msix_vectors(nvme->msix);
}

static bool load_sq(struct nvme *nvme, unsigned id, struct load *load)
{
    uint32_t entries = load_u32(load);
    if (!entries || load->failed)
        return !load->failed;
    uint64_t gpa = load_u64(load);
    unsigned cq = load_u16(load);
    if (entries < 2 || entries > entries_max(id) || cq >= NVME_QUEUES || !nvme->cq[cq].entries ||
        !id != !cq || !nvme_sq_open(nvme, id, gpa, entries, cq))
        return false;
    struct nvme_sq *sq = &nvme->sq[id];
    sq->head = load_u32(load);
    sq->tail = load_u32(load);
    return sq->head < entries && sq->tail < entries;
}

static void load_features(struct nvme_features *features, struct load *load)
{
    features->arbitration = load_u32(load);
    features->over_threshold = load_u16(load);
    features->under_threshold = load_u16(load);
    features->error_recovery = load_u16(load);
    features->write_cache = load_bool(load);
    features->coalescing = load_u16(load);
    features->atomicity = load_u32(load);
    features->events = load_u32(load);
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        features->vector_config[i] = load_u32(load);
}

static bool load_events(struct nvme *nvme, struct load *load)
{
    nvme->event_count = load_u8(load);
    for (unsigned i = 0; i < NVME_EVENTS_MAX; i++)
        nvme->event_commands[i] = load_u16(load);
    nvme->events_pending = load_u8(load);
    nvme->events_masked = load_u8(load);
    load_bytes(load, nvme->event_info, sizeof(nvme->event_info));
    return nvme->event_count <= NVME_EVENTS_MAX && nvme->events_pending < 4 &&
           nvme->events_masked < 4;
}

static void load_logs(struct nvme *nvme, struct load *load)
{
    nvme->counters.read_blocks = load_u64(load);
    nvme->counters.written_blocks = load_u64(load);
    nvme->counters.reads = load_u64(load);
    nvme->counters.writes = load_u64(load);
    nvme->counters.errors = load_u64(load);
    for (unsigned i = 0; i < NVME_ERRORS_MAX; i++) {
        struct nvme_error *e = &nvme->errors[i];
        e->count = load_u64(load);
        e->lba = load_u64(load);
        e->nsid = load_u32(load);
        e->sq = load_u16(load);
        e->command = load_u16(load);
        e->status = load_u16(load);
        e->location = load_u16(load);
    }
}

bool nvme_load(struct nvme *nvme, struct load *load)
{
    nvme->intms = load_u32(load);
    nvme->cc = load_u32(load);
    nvme->csts = load_u32(load);
    nvme->aqa = load_u32(load);
    nvme->asq = load_u64(load);
    nvme->acq = load_u64(load);
    nvme->is_enabled = load_bool(load);
    /* CC.MPS, which the places of queues are checked by. */
    if ((nvme->cc >> 7 & 15) > NVME_PAGE_SHIFT_MAX - NVME_PAGE_SHIFT_MIN && nvme->is_enabled)
        return false;
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        if (!load_cq(nvme, i, load))
            return false;
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        if (!load_sq(nvme, i, load))
            return false;
    if (nvme->is_enabled != (nvme->sq[0].entries && nvme->cq[0].entries))
        return false;
    load_features(&nvme->features, load);
    if (!load_events(nvme, load))
        return false;
    load_logs(nvme, load);
    return !load->failed;
}
