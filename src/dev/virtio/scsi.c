/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio SCSI host device (virtio 1.2, 5.6): one channel, a target a unit, LUN 0 on each. Left out:
 * hot plugging, bidirectional commands, protection information. Requests are taken in the kick (a
 * vCPU thread or the loop's) and end in the unit's done() on the loop's thread; meanwhile their
 * queue is held (virtio.h).
 *
 * What a unit has begun cannot be called back: a task management function that aborts waits until
 * all that it is about has ended, and those are answered as aborted.
 */
#include "dev/virtio/scsi.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_CONTROL = 0,
    QUEUE_EVENTS = 1,
    QUEUE_REQUESTS = 2,
    QUEUE_SIZE = 256,
    CONTROL_QUEUE_SIZE = 64,

    CONFIG_BYTES = 36, /* 5.6.4 */
    CONFIG_SENSE_SIZE = 20,
    CONFIG_CDB_SIZE = 24,
    SENSE_SIZE = 96,
    CDB_SIZE = 32,
    SIZE_MAX_BYTES = 256, /* that a driver may choose for both */

    REQUEST_HEADER_BYTES = 19, /* before the CDB */
    ANSWER_HEADER_BYTES = 12,  /* before the sense data */
    LUN_BYTES = 8,
    EVENT_BYTES = 16,
};

enum { /* 5.6.6.1: response */
       RESPONSE_OK = 0,
       RESPONSE_ABORTED = 2,
       RESPONSE_BAD_TARGET = 3,
       RESPONSE_RESET = 4,
       RESPONSE_FAILURE = 9,
       RESPONSE_FUNCTION_SUCCEEDED = 10,
       RESPONSE_FUNCTION_REJECTED = 11,
};
enum { RESPONSE_FUNCTION_COMPLETE = 0 };

enum { /* 5.6.6.2: control requests, task management functions */
       CONTROL_TASK = 0,
       CONTROL_QUERY_EVENTS = 1,
       CONTROL_SUBSCRIBE = 2,
       TASK_ABORT = 0,
       TASK_ABORT_SET = 1,
       TASK_CLEAR_ACA = 2,
       TASK_CLEAR_SET = 3,
       TASK_NEXUS_RESET = 4,
       TASK_UNIT_RESET = 5,
       TASK_QUERY = 6,
       TASK_QUERY_SET = 7,
};

enum { /* 5.6.6.3: events */
       EVENT_NONE = 0,
       EVENT_NOTIFY = 2,
       NOTIFY_EXTERNAL_REQUEST = 8,
       NOTIFY_MEDIA_CHANGE = 16,
};
#define EVENTS_MISSED UINT32_C(0x80000000)

struct unit {
    struct virtio_scsi *scsi;
    struct scsi_lun *lun;
    uint32_t subscribed; /* NOTIFY_… that the driver wants to hear of */
};

struct scsi_task {
    struct scsi_request request;
    struct virtio_scsi *scsi;
    struct scsi_task *next, **link; /* of those under way; next also of free ones */
    unsigned queue, target;
    uint64_t tag, sequence;
    uint32_t sense_bytes;
    bool reads;
    uint8_t response; /* RESPONSE_OK, or what an abort makes of it */
    struct virtio_chain chain;
    struct iovec iov[VIRTIO_CHAIN_IOV_MAX]; /* of the data */
};

/* A task management function that waits for tasks to end. */
struct function {
    struct function *next;
    unsigned target, subtype, waiting;
    uint64_t tag, sequence;
    struct virtio_chain chain;
};

struct virtio_scsi {
    struct virtio_device *device;
    struct unit units[VIRTIO_SCSI_TARGETS_MAX];
    unsigned unit_count, queue_count;
    uint32_t sense_size, cdb_size;
    bool events_missed;
    uint64_t sequence;
    struct scsi_task *active, *free_tasks;
    struct function *functions;
};

/* ---- tasks ---- */

static struct scsi_task *task_new(struct virtio_scsi *scsi)
{
    struct scsi_task *task = scsi->free_tasks;
    if (task)
        scsi->free_tasks = task->next;
    else if (!(task = malloc(sizeof(*task))))
        return NULL;
    memset(task, 0, offsetof(struct scsi_task, chain));
    task->scsi = scsi;
    return task;
}

static void task_free(struct scsi_task *task)
{
    task->next = task->scsi->free_tasks;
    task->scsi->free_tasks = task;
}

static void task_link(struct scsi_task *task)
{
    struct virtio_scsi *scsi = task->scsi;
    task->sequence = ++scsi->sequence;
    task->next = scsi->active;
    if (task->next)
        task->next->link = &task->next;
    task->link = &scsi->active;
    scsi->active = task;
}

static void task_unlink(struct scsi_task *task)
{
    *task->link = task->next;
    if (task->next)
        task->next->link = task->link;
}

/* The unit that is meant (5.6.6.1): single level LUN structure, LUN 0. */
static struct unit *unit_of(struct virtio_scsi *scsi, const uint8_t lun[LUN_BYTES])
{
    unsigned number = (lun[2] << 8 | lun[3]) & 0x3fff;
    return lun[0] == 1 && lun[1] < scsi->unit_count && number == 0 ? &scsi->units[lun[1]] : NULL;
}

static void put(uint8_t *at, uint64_t value, unsigned size_bytes)
{
    memcpy(at, &value, size_bytes);
}

/* Writes the answer and gives the chain back. */
static void task_answer(struct scsi_task *task)
{
    struct virtio_queue *q = virtio_queue(task->scsi->device, task->queue);
    const struct scsi_request *r = &task->request;
    uint8_t header[ANSWER_HEADER_BYTES] = {0};
    uint64_t moved = task->reads ? r->moved_bytes : 0;
    if (task->chain.generation == q->generation) {
        uint8_t sense[SIZE_MAX_BYTES] = {0};
        bool has_sense = task->response == RESPONSE_OK && r->status == SCSI_CHECK_CONDITION;
        uint32_t sense_bytes = has_sense ? SCSI_SENSE_BYTES : 0;
        if (sense_bytes > task->sense_bytes)
            sense_bytes = task->sense_bytes;
        memcpy(sense, r->sense, sense_bytes);
        put(header, sense_bytes, 4);
        put(header + 4, r->data_bytes - r->moved_bytes, 4);
        header[10] = (uint8_t)r->status;
        header[11] = task->response;
        virtio_chain_write(&task->chain, 0, header, sizeof(header));
        virtio_chain_write(&task->chain, sizeof(header), sense, task->sense_bytes);
    }
    virtio_queue_push(q, &task->chain, ANSWER_HEADER_BYTES + task->sense_bytes + moved);
}

/* ---- task management ---- */

static bool function_is_about(const struct function *f, const struct scsi_task *task)
{
    bool is_one = f->subtype == TASK_ABORT || f->subtype == TASK_QUERY;
    return task->target == f->target && (!is_one || task->tag == f->tag);
}

static void function_answer(struct virtio_scsi *scsi, const struct virtio_chain *chain,
                            uint8_t response)
{
    struct virtio_queue *q = virtio_queue(scsi->device, QUEUE_CONTROL);
    if (chain->generation == q->generation)
        virtio_chain_write(chain, 0, &response, 1);
    virtio_queue_push(q, chain, 1);
    virtio_queue_notify(q);
}

static bool is_reset(unsigned subtype)
{
    return subtype == TASK_NEXUS_RESET || subtype == TASK_UNIT_RESET;
}

static void function_end(struct virtio_scsi *scsi, struct function *f)
{
    if (is_reset(f->subtype))
        scsi_lun_reset(scsi->units[f->target].lun, false);
    function_answer(scsi, &f->chain, RESPONSE_FUNCTION_COMPLETE);
    free(f);
}

/* A task has ended: functions that waited for it may end. */
static void functions_notice(struct virtio_scsi *scsi, const struct scsi_task *task)
{
    struct function **link = &scsi->functions;
    while (*link) {
        struct function *f = *link;
        if (function_is_about(f, task) && task->sequence < f->sequence && !--f->waiting) {
            *link = f->next;
            function_end(scsi, f);
        } else {
            link = &f->next;
        }
    }
}

static unsigned count_tasks(const struct virtio_scsi *scsi, const struct function *f)
{
    unsigned count = 0;
    for (const struct scsi_task *task = scsi->active; task; task = task->next)
        count += function_is_about(f, task);
    return count;
}

static void mark_tasks(struct virtio_scsi *scsi, const struct function *f)
{
    for (struct scsi_task *task = scsi->active; task; task = task->next)
        if (function_is_about(f, task) && task->response == RESPONSE_OK)
            task->response = is_reset(f->subtype) ? RESPONSE_RESET : RESPONSE_ABORTED;
}

/* Takes `f` over. */
static void function_start(struct virtio_scsi *scsi, struct function *f)
{
    f->sequence = ++scsi->sequence;
    f->waiting = count_tasks(scsi, f);
    switch (f->subtype) {
    case TASK_ABORT:
    case TASK_ABORT_SET:
    case TASK_CLEAR_SET:
    case TASK_NEXUS_RESET:
    case TASK_UNIT_RESET:
        mark_tasks(scsi, f);
        if (!f->waiting) {
            function_end(scsi, f);
            return;
        }
        f->next = scsi->functions;
        scsi->functions = f;
        return;
    case TASK_CLEAR_ACA: function_answer(scsi, &f->chain, RESPONSE_FUNCTION_COMPLETE); break;
    case TASK_QUERY:
    case TASK_QUERY_SET:
        function_answer(scsi, &f->chain,
                        f->waiting ? RESPONSE_FUNCTION_SUCCEEDED : RESPONSE_FUNCTION_COMPLETE);
        break;
    default: function_answer(scsi, &f->chain, RESPONSE_FUNCTION_REJECTED); break;
    }
    free(f);
}

/* ---- the control queue ---- */

static void control_task(struct virtio_scsi *scsi, struct function *f)
{
    uint8_t bytes[24]; /* type, subtype, LUN, tag */
    uint32_t subtype;
    if (virtio_chain_read(&f->chain, 0, bytes, sizeof(bytes)) != sizeof(bytes)) {
        function_answer(scsi, &f->chain, RESPONSE_FAILURE);
        free(f);
        return;
    }
    const struct unit *unit = unit_of(scsi, bytes + 8);
    memcpy(&subtype, bytes + 4, 4);
    memcpy(&f->tag, bytes + 16, 8);
    f->subtype = subtype;
    if (unit) {
        f->target = (unsigned)(unit - scsi->units);
        function_start(scsi, f);
        return;
    }
    function_answer(scsi, &f->chain, RESPONSE_BAD_TARGET);
    free(f);
}

/* Which events a unit can tell of, and which of them are wanted. */
static void control_events(struct virtio_scsi *scsi, const struct virtio_chain *chain,
                           bool subscribes)
{
    struct virtio_queue *q = virtio_queue(scsi->device, QUEUE_CONTROL);
    uint8_t bytes[16], answer[5] = {0, 0, 0, 0, RESPONSE_BAD_TARGET};
    uint32_t wanted, actual = 0;
    size_t size = virtio_chain_read(chain, 0, bytes, sizeof(bytes));
    struct unit *unit = size == sizeof(bytes) ? unit_of(scsi, bytes + 4) : NULL;
    if (unit) {
        memcpy(&wanted, bytes + 12, 4);
        if (scsi_lun_is_cdrom(unit->lun))
            actual = wanted & (NOTIFY_MEDIA_CHANGE | NOTIFY_EXTERNAL_REQUEST);
        if (subscribes)
            unit->subscribed = actual;
        put(answer, actual, 4);
        answer[4] = RESPONSE_OK;
    }
    virtio_chain_write(chain, 0, answer, sizeof(answer));
    virtio_queue_push(q, chain, sizeof(answer));
    virtio_queue_notify(q);
}

static enum virtio_taken control_take(void *self, unsigned index)
{
    struct virtio_scsi *scsi = self;
    struct virtio_queue *q = virtio_queue(scsi->device, index);
    struct function *f = calloc(1, sizeof(*f));
    uint32_t type = UINT32_MAX;
    if (!f) {
        virtio_needs_reset(scsi->device, "out of memory");
        return VIRTIO_NONE;
    }
    if (!virtio_queue_pop(q, &f->chain)) {
        free(f);
        return VIRTIO_NONE;
    }
    virtio_chain_read(&f->chain, 0, &type, sizeof(type));
    if (type == CONTROL_TASK) {
        control_task(scsi, f);
        return VIRTIO_TAKEN;
    }
    if (type == CONTROL_QUERY_EVENTS || type == CONTROL_SUBSCRIBE)
        control_events(scsi, &f->chain, type == CONTROL_SUBSCRIBE);
    else
        virtio_queue_break(q, "a control request of an unknown type");
    free(f);
    return VIRTIO_TAKEN;
}

/* ---- events ---- */

/* False: the driver has given no memory for it. */
static bool send_event(struct virtio_scsi *scsi, uint32_t event, unsigned target, uint32_t reason)
{
    struct virtio_queue *q = virtio_queue(scsi->device, QUEUE_EVENTS);
    struct virtio_chain *chain = malloc(sizeof(*chain));
    uint8_t bytes[EVENT_BYTES] = {0};
    bool has_room = chain && virtio_live(scsi->device) && virtio_queue_pop(q, chain);
    if (has_room) {
        put(bytes, event | (scsi->events_missed ? EVENTS_MISSED : 0), 4);
        scsi->events_missed = false;
        bytes[4] = 1;
        bytes[5] = (uint8_t)target;
        put(bytes + 12, reason, 4);
        virtio_queue_push(q, chain, virtio_chain_write(chain, 0, bytes, sizeof(bytes)));
        virtio_queue_notify(q);
    }
    free(chain);
    return has_room;
}

/* From a unit, on the loop's thread, without locks. */
static void unit_event(void *opaque, enum scsi_event event)
{
    struct unit *unit = opaque;
    struct virtio_scsi *scsi = unit->scsi;
    uint32_t reason =
        event == SCSI_EVENT_MEDIUM_CHANGED ? NOTIFY_MEDIA_CHANGE : NOTIFY_EXTERNAL_REQUEST;
    virtio_lock(scsi->device);
    if (unit->subscribed & reason &&
        !send_event(scsi, EVENT_NOTIFY, (unsigned)(unit - scsi->units), reason))
        scsi->events_missed = true;
    virtio_unlock(scsi->device);
}

/* ---- the request queues ---- */

static void task_done(struct scsi_request *request)
{
    struct scsi_task *task = request->opaque;
    struct virtio_scsi *scsi = task->scsi;
    struct virtio_device *device = scsi->device;
    unsigned queue = task->queue;
    virtio_lock(device);
    task_unlink(task);
    task_answer(task);
    virtio_queue_notify(virtio_queue(device, queue));
    functions_notice(scsi, task);
    task_free(task);
    virtio_release(device, queue);
    virtio_unlock(device);
}

/* The pieces of the data, copied since the unit changes them. `skip` is what lies before it. */
static void take_data(struct scsi_task *task, const struct iovec *iov, unsigned count,
                      uint64_t total_bytes, uint64_t skip)
{
    struct iovec *at = task->iov;
    memcpy(task->iov, iov, count * sizeof(*iov));
    virtio_iov_skip(&at, &count, skip);
    task->request.iov = at;
    task->request.iov_count = count;
    task->request.data_bytes = total_bytes - skip;
}

static void choose_data(struct scsi_task *task, struct scsi_lun *lun, uint64_t header_bytes)
{
    const struct virtio_chain *chain = &task->chain;
    uint64_t size_bytes, answer_bytes = ANSWER_HEADER_BYTES + task->sense_bytes;
    switch (scsi_lun_direction(lun, task->request.cdb, &size_bytes)) {
    case SCSI_NO_DATA: break;
    case SCSI_FROM_UNIT:
        task->reads = true;
        take_data(task, chain->iov + chain->readable_count, chain->writable_count,
                  chain->writable_bytes, answer_bytes);
        break;
    case SCSI_TO_UNIT:
        take_data(task, chain->iov, chain->readable_count, chain->readable_bytes, header_bytes);
        break;
    }
}

/* True: the unit has it, and done() will come. */
static bool task_start(struct scsi_task *task)
{
    struct virtio_scsi *scsi = task->scsi;
    uint8_t bytes[REQUEST_HEADER_BYTES + SCSI_CDB_BYTES] = {0};
    uint64_t header_bytes = REQUEST_HEADER_BYTES + scsi->cdb_size;
    size_t size = header_bytes < sizeof(bytes) ? (size_t)header_bytes : sizeof(bytes);
    virtio_chain_read(&task->chain, 0, bytes, size);
    const struct unit *unit = unit_of(scsi, bytes);
    if (!unit) {
        task->response = RESPONSE_BAD_TARGET;
        return false;
    }
    task->target = (unsigned)(unit - scsi->units);
    memcpy(&task->tag, bytes + LUN_BYTES, 8);
    memcpy(task->request.cdb, bytes + REQUEST_HEADER_BYTES, SCSI_CDB_BYTES);
    choose_data(task, unit->lun, header_bytes);
    task->request.done = task_done;
    task->request.opaque = task;
    return scsi_lun_submit(unit->lun, &task->request);
}

static bool has_headers(const struct scsi_task *task)
{
    return task->chain.readable_bytes >= REQUEST_HEADER_BYTES + task->scsi->cdb_size &&
           task->chain.writable_bytes >= ANSWER_HEADER_BYTES + task->scsi->sense_size;
}

static enum virtio_taken request_take(void *self, unsigned index)
{
    struct virtio_scsi *scsi = self;
    struct virtio_queue *q = virtio_queue(scsi->device, index);
    struct scsi_task *task = task_new(scsi);
    if (!task) {
        virtio_needs_reset(scsi->device, "out of memory");
        return VIRTIO_NONE;
    }
    if (!virtio_queue_pop(q, &task->chain)) {
        task_free(task);
        return VIRTIO_NONE;
    }
    task->queue = index;
    task->sense_bytes = scsi->sense_size;
    if (!has_headers(task)) {
        virtio_queue_break(q, "a request is shorter than its headers");
        task_free(task);
        return VIRTIO_NONE;
    }
    virtio_hold(scsi->device, index);
    task_link(task);
    if (!task_start(task)) {
        task_unlink(task);
        task_answer(task);
        task_free(task);
        virtio_release(scsi->device, index);
    }
    return VIRTIO_TAKEN;
}

static void scsi_kick(void *self, unsigned index)
{
    struct virtio_scsi *scsi = self;
    if (index != QUEUE_EVENTS)
        virtio_serve(scsi->device, index, index == QUEUE_CONTROL ? control_take : request_take);
    else if (scsi->events_missed)
        send_event(scsi, EVENT_NONE, 0, 0);
}

/* ---- configuration ---- */

static void scsi_config_read(void *self, uint32_t offset, void *buffer, uint32_t size_bytes)
{
    const struct virtio_scsi *scsi = self;
    uint8_t image[CONFIG_BYTES] = {0};
    put(image, scsi->queue_count, 4);
    put(image + 4, QUEUE_SIZE - 2, 4);                /* seg_max */
    put(image + 8, SCSI_TRANSFER_MAX_BYTES / 512, 4); /* max_sectors */
    put(image + 12, QUEUE_SIZE / 2, 4);               /* cmd_per_lun */
    put(image + 16, EVENT_BYTES, 4);
    put(image + CONFIG_SENSE_SIZE, scsi->sense_size, 4);
    put(image + CONFIG_CDB_SIZE, scsi->cdb_size, 4);
    put(image + 30, scsi->unit_count ? scsi->unit_count - 1 : 0, 2); /* max_target */
    memcpy(buffer, image + offset, size_bytes);
}

/* A CDB is of 16 bytes here; a driver that leaves less room for one has it filled up. */
static void scsi_config_write(void *self, uint32_t offset, const void *buffer, uint32_t size_bytes)
{
    struct virtio_scsi *scsi = self;
    uint32_t value;
    if (size_bytes != 4)
        return;
    memcpy(&value, buffer, 4);
    if (value > SIZE_MAX_BYTES)
        return;
    if (offset == CONFIG_SENSE_SIZE)
        scsi->sense_size = value;
    else if (offset == CONFIG_CDB_SIZE)
        scsi->cdb_size = value;
}

/* ---- life ---- */

static void forget_functions(struct virtio_scsi *scsi)
{
    while (scsi->functions) {
        struct function *f = scsi->functions;
        scsi->functions = f->next;
        free(f);
    }
}

static void scsi_reset(void *self)
{
    struct virtio_scsi *scsi = self;
    forget_functions(scsi);
    scsi->sense_size = SENSE_SIZE;
    scsi->cdb_size = CDB_SIZE;
    scsi->events_missed = false;
    for (unsigned i = 0; i < scsi->unit_count; i++) {
        scsi->units[i].subscribed = 0;
        scsi_lun_reset(scsi->units[i].lun, true);
    }
}

/* Functions whose answers have nowhere to go any more. */
static void scsi_queue_reset(void *self, unsigned index)
{
    if (index == QUEUE_CONTROL)
        forget_functions(self);
}

static void scsi_save(void *self, struct save *save)
{
    struct virtio_scsi *scsi = self;
    save_u32(save, scsi->sense_size);
    save_u32(save, scsi->cdb_size);
    save_bool(save, scsi->events_missed);
    save_u32(save, scsi->unit_count);
    for (unsigned i = 0; i < scsi->unit_count; i++) {
        save_u32(save, scsi->units[i].subscribed);
        scsi_lun_save(scsi->units[i].lun, save);
    }
}

static bool scsi_load(void *self, struct load *load, uint32_t version)
{
    struct virtio_scsi *scsi = self;
    scsi->sense_size = load_u32(load);
    scsi->cdb_size = load_u32(load);
    scsi->events_missed = load_bool(load);
    if (version != 1 || load_u32(load) != scsi->unit_count || scsi->sense_size > SIZE_MAX_BYTES ||
        scsi->cdb_size > SIZE_MAX_BYTES)
        return false;
    for (unsigned i = 0; i < scsi->unit_count; i++) {
        scsi->units[i].subscribed = load_u32(load);
        if (!scsi_lun_load(scsi->units[i].lun, load))
            return false;
    }
    return !load->failed;
}

static void scsi_destroy(void *self)
{
    struct virtio_scsi *scsi = self;
    forget_functions(scsi);
    for (unsigned i = 0; i < scsi->unit_count; i++)
        scsi_lun_destroy(scsi->units[i].lun);
    while (scsi->free_tasks) {
        struct scsi_task *task = scsi->free_tasks;
        scsi->free_tasks = task->next;
        free(task);
    }
    free(scsi);
}

static const struct virtio_ops scsi_ops = {
    .name = "virtio-scsi",
    .type = VIRTIO_TYPE_SCSI,
    .pci_class = 0x010000,
    .version = 1,
    .config_read = scsi_config_read,
    .config_write = scsi_config_write,
    .kick = scsi_kick,
    .queue_reset = scsi_queue_reset,
    .reset = scsi_reset,
    .save = scsi_save,
    .load = scsi_load,
    .destroy = scsi_destroy,
};

static bool make_units(struct virtio_scsi *scsi, const struct virtio_scsi_config *config,
                       struct error *err)
{
    for (unsigned i = 0; i < config->unit_count; i++) {
        struct scsi_lun_config unit = config->units[i];
        unit.keeps_sense = false;
        unit.event = unit_event;
        unit.opaque = &scsi->units[i];
        scsi->units[i].scsi = scsi;
        scsi->units[i].lun = scsi_lun_create(&unit, err);
        if (!scsi->units[i].lun)
            return false;
        scsi->unit_count++;
    }
    return true;
}

struct virtio_device *virtio_scsi_create(const struct virtio_scsi_config *config, struct error *err)
{
    struct virtio_scsi *scsi = calloc(1, sizeof(*scsi));
    if (!scsi) {
        error_set(err, "cannot create device", scsi_ops.name, "out of memory");
        return NULL;
    }
    scsi->queue_count = config->queue_count ? config->queue_count : 1;
    assert(config->unit_count <= VIRTIO_SCSI_TARGETS_MAX);
    assert(scsi->queue_count <= VIRTIO_SCSI_QUEUES_MAX);
    scsi->sense_size = SENSE_SIZE;
    scsi->cdb_size = CDB_SIZE;
    uint16_t sizes[QUEUE_REQUESTS + VIRTIO_SCSI_QUEUES_MAX] = {CONTROL_QUEUE_SIZE,
                                                               CONTROL_QUEUE_SIZE};
    for (unsigned i = 0; i < scsi->queue_count; i++)
        sizes[QUEUE_REQUESTS + i] = QUEUE_SIZE;
    const struct virtio_config core = {.ops = &scsi_ops,
                                       .self = scsi,
                                       .ram = config->ram,
                                       .loop = config->loop,
                                       .log = config->log,
                                       .features_off = config->features_off,
                                       .config_size_bytes = CONFIG_BYTES,
                                       .queue_count = QUEUE_REQUESTS + scsi->queue_count,
                                       .queue_sizes = sizes};
    if (make_units(scsi, config, err))
        scsi->device = virtio_create(&core, err);
    if (!scsi->device) {
        scsi_destroy(scsi);
        return NULL;
    }
    return scsi->device;
}

struct scsi_lun *virtio_scsi_unit(struct virtio_device *device, unsigned target)
{
    struct virtio_scsi *scsi = virtio_self(device);
    assert(target < scsi->unit_count);
    return scsi->units[target].lun;
}
