/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Submission and completion queues (NVM Express 1.4, 4.1 and 4.6), interrupts (7.5) and
 * asynchronous events (5.2). A command is only taken when its answer has room in the completion
 * queue: each one under way has an entry promised. Requests for asynchronous events have none: an
 * event waits until there is room.
 */
#include "dev/storage/nvme_internal.h"

#include <string.h>

/* ---- rings ---- */

static bool is_page_start(const struct nvme *nvme, uint64_t gpa)
{
    return gpa % nvme_page_bytes(nvme) == 0;
}

bool nvme_sq_open(struct nvme *nvme, unsigned id, uint64_t gpa, uint32_t entries, unsigned cq)
{
    const uint8_t *ring = ram_hva(nvme->ram, gpa, (uint64_t)entries * NVME_SQ_ENTRY_BYTES);
    if (!ring || !is_page_start(nvme, gpa))
        return false;
    nvme->sq[id] = (struct nvme_sq){
        .entries = entries, .id = (uint16_t)id, .cq = (uint16_t)cq, .gpa = gpa, .ring = ring};
    nvme->cq[cq].sq_count++;
    return true;
}

bool nvme_cq_open(struct nvme *nvme, unsigned id, uint64_t gpa, uint32_t entries)
{
    uint8_t *ring = ram_hva(nvme->ram, gpa, (uint64_t)entries * NVME_CQ_ENTRY_BYTES);
    if (!ring || !is_page_start(nvme, gpa))
        return false;
    nvme->cq[id] = (struct nvme_cq){.entries = entries, .gpa = gpa, .ring = ring, .phase = true};
    return true;
}

void nvme_sq_close(struct nvme *nvme, unsigned id)
{
    nvme->cq[nvme->sq[id].cq].sq_count--;
    nvme->sq[id] = (struct nvme_sq){0};
}

static uint32_t cq_used(const struct nvme_cq *cq)
{
    return (cq->tail + cq->entries - cq->head) % cq->entries;
}

static bool cq_has_room(const struct nvme_cq *cq)
{
    return cq_used(cq) + cq->promised < cq->entries - 1;
}

/* ---- interrupts ---- */

/* With pin interrupts all queues use vector 0 (7.5.1.1). */
void nvme_update_intx(struct nvme *nvme)
{
    bool level = false;
    for (unsigned i = 0; i < NVME_QUEUES && !level; i++) {
        const struct nvme_cq *cq = &nvme->cq[i];
        level = cq->entries && cq->interrupts && cq->head != cq->tail;
    }
    pci_function_intx(nvme->function, level && !(nvme->intms & 1));
}

static void interrupt(struct nvme *nvme, const struct nvme_cq *cq)
{
    if (!cq->interrupts)
        return;
    if (msix_enabled(nvme->msix))
        msix_notify(nvme->msix, cq->vector);
    else
        nvme_update_intx(nvme);
}

/* ---- completions ---- */

/* The phase bit makes an entry valid, so its word is stored last (4.6). */
static void cq_post(struct nvme *nvme, unsigned id, const struct nvme_sq *sq, uint16_t command,
                    enum nvme_status status, uint32_t result)
{
    struct nvme_cq *cq = &nvme->cq[id];
    uint8_t *entry = cq->ring + (size_t)cq->tail * NVME_CQ_ENTRY_BYTES;
    const uint32_t words[3] = {result, 0, (uint32_t)sq->id << 16 | sq->head};
    /* Trying again only helps where the disk failed. */
    bool again =
        status >> 8 == 2 || status == NVME_INTERNAL_ERROR || status == NVME_ABORT_REQUESTED;
    uint32_t last = command | (uint32_t)cq->phase << 16 | (uint32_t)status << 17 |
                    (uint32_t)(status && !again) << 31;
    memcpy(entry, words, sizeof(words));
    __atomic_store_n((uint32_t *)(void *)(entry + sizeof(words)), last, __ATOMIC_RELEASE);
    ram_written(nvme->ram, cq->gpa + (uint64_t)cq->tail * NVME_CQ_ENTRY_BYTES, NVME_CQ_ENTRY_BYTES);
    if (++cq->tail == cq->entries) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    interrupt(nvme, cq);
}

static void sq_finish_deletion(struct nvme *nvme, struct nvme_sq *sq)
{
    uint16_t command = sq->delete_command;
    nvme_sq_close(nvme, sq->id);
    nvme_answer(nvme, 0, command, NVME_OK, 0);
}

void nvme_answer(struct nvme *nvme, unsigned id, uint16_t command, enum nvme_status status,
                 uint32_t result)
{
    struct nvme_sq *sq = &nvme->sq[id];
    nvme->cq[sq->cq].promised--;
    sq->outstanding--;
    cq_post(nvme, sq->cq, sq, command, status, result);
    if (sq->is_deleting && !sq->outstanding)
        sq_finish_deletion(nvme, sq);
}

/* ---- asynchronous events ---- */

void nvme_event(struct nvme *nvme, enum nvme_event type, uint8_t info)
{
    nvme->events_pending |= (uint8_t)(1u << type);
    nvme->event_info[type] = info;
    nvme_events_run(nvme);
}

void nvme_events_run(struct nvme *nvme)
{
    enum { ERROR_PAGE = 1, HEALTH_PAGE = 2 };
    for (unsigned type = 0; type < 2; type++) {
        unsigned bit = 1u << type;
        if (!nvme->is_enabled || !nvme->event_count || !cq_has_room(&nvme->cq[0]))
            return;
        if (!(nvme->events_pending & bit) || nvme->events_masked & bit)
            continue;
        uint16_t command = nvme->event_commands[0];
        memmove(nvme->event_commands, nvme->event_commands + 1,
                --nvme->event_count * sizeof(nvme->event_commands[0]));
        nvme->events_pending &= (uint8_t)~bit;
        nvme->events_masked |= (uint8_t)bit;
        uint32_t page = type == NVME_EVENT_ERROR ? ERROR_PAGE : HEALTH_PAGE;
        cq_post(nvme, 0, &nvme->sq[0], command, NVME_OK,
                type | (uint32_t)nvme->event_info[type] << 8 | page << 16);
    }
}

/* ---- submissions ---- */

static void sq_take(struct nvme_sq *sq, struct nvme_command *command)
{
    uint8_t bytes[NVME_SQ_ENTRY_BYTES];
    memcpy(bytes, sq->ring + (size_t)sq->head * NVME_SQ_ENTRY_BYTES, sizeof(bytes));
    command->opcode = bytes[0];
    command->flags = bytes[1];
    memcpy(&command->id, bytes + 2, 2);
    memcpy(&command->nsid, bytes + 4, 4);
    memcpy(command->prp, bytes + 24, sizeof(command->prp));
    memcpy(command->dw, bytes + 40, sizeof(command->dw));
    sq->head = (sq->head + 1) % sq->entries;
}

/* Fused operations and SGLs are not offered (4.2: FUSE, PSDT). */
static enum nvme_status start(struct nvme *nvme, unsigned id, const struct nvme_command *command,
                              uint32_t *result)
{
    if (command->flags)
        return NVME_INVALID_FIELD;
    return id ? nvme_io(nvme, id, command) : nvme_admin(nvme, command, result);
}

void nvme_sq_run(struct nvme *nvme, unsigned id)
{
    struct nvme_sq *sq = &nvme->sq[id];
    while (nvme->is_enabled && sq->entries && !sq->is_deleting && sq->head != sq->tail &&
           cq_has_room(&nvme->cq[sq->cq])) {
        struct nvme_command command;
        uint32_t result = 0;
        sq_take(sq, &command);
        sq->outstanding++;
        nvme->cq[sq->cq].promised++;
        enum nvme_status status = start(nvme, id, &command, &result);
        if (status == NVME_PENDING)
            continue;
        if (status != NVME_OK)
            nvme_log_error(nvme, id, &command, status);
        nvme_answer(nvme, id, command.id, status, result);
    }
}

/* ---- doorbells (3.1.24, 3.1.25) ---- */

enum { INVALID_DOORBELL = 0, INVALID_VALUE = 1 }; /* informations of error events, figure 147 */

static void ring_sq(struct nvme *nvme, unsigned id, uint32_t tail)
{
    struct nvme_sq *sq = &nvme->sq[id];
    if (!sq->entries || sq->is_deleting) {
        nvme_event(nvme, NVME_EVENT_ERROR, INVALID_DOORBELL);
    } else if (tail >= sq->entries) {
        nvme_event(nvme, NVME_EVENT_ERROR, INVALID_VALUE);
    } else {
        sq->tail = tail;
        nvme_sq_run(nvme, id);
    }
}

/* The head only moves over entries that were posted: so there is never less room than promised. */
static void ring_cq(struct nvme *nvme, unsigned id, uint32_t head)
{
    struct nvme_cq *cq = &nvme->cq[id];
    if (!cq->entries) {
        nvme_event(nvme, NVME_EVENT_ERROR, INVALID_DOORBELL);
        return;
    }
    if (head >= cq->entries || (head + cq->entries - cq->head) % cq->entries > cq_used(cq)) {
        nvme_event(nvme, NVME_EVENT_ERROR, INVALID_VALUE);
        return;
    }
    cq->head = head;
    if (!msix_enabled(nvme->msix))
        nvme_update_intx(nvme);
    if (id == 0)
        nvme_events_run(nvme);
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        if (nvme->sq[i].entries && nvme->sq[i].cq == id)
            nvme_sq_run(nvme, i);
}

void nvme_doorbell(struct nvme *nvme, unsigned index, uint32_t value)
{
    if (!nvme->is_enabled)
        return;
    if (index / 2 >= NVME_QUEUES)
        nvme_event(nvme, NVME_EVENT_ERROR, INVALID_DOORBELL);
    else if (index % 2 == 0)
        ring_sq(nvme, index / 2, value & 0xffff);
    else
        ring_cq(nvme, index / 2, value & 0xffff);
}
