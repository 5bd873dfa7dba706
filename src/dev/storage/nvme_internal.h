/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The parts of the NVMe controller among themselves: nvme.c (registers, resets, life), nvme_queue.c
 * (queues, completions, interrupts), nvme_data.c (a command's memory), nvme_admin.c,
 * nvme_identify.c and nvme_log.c (admin commands), nvme_io.c (I/O commands), nvme_state.c (save and
 * load).
 *
 * Threads: one lock a controller. Registers are used by vCPU threads, commands end on the loop's.
 * Everything here is called with the lock held.
 *
 * While a back end has a command, its memory is the guest's: a reset reads as done (CSTS.RDY is 0)
 * only when the last one is back, and what comes back then is not answered any more.
 */
#ifndef SKEP_DEV_STORAGE_NVME_INTERNAL_H
#define SKEP_DEV_STORAGE_NVME_INTERNAL_H

#include "dev/msix.h"
#include "dev/storage/nvme.h"

#include <pthread.h>
#include <sys/uio.h>

enum {
    /* bhyve's: any will do, since drivers go by the class, and have no quirks for this one. */
    NVME_PCI_VENDOR = 0xfb5d,
    NVME_PCI_DEVICE = 0x0a0a,

    NVME_IO_QUEUES = 64,              /* pairs */
    NVME_QUEUES = NVME_IO_QUEUES + 1, /* with the admin pair, which is number 0 */
    NVME_QUEUE_ENTRIES_MAX = 1024,    /* CAP.MQES */
    NVME_ADMIN_ENTRIES_MAX = 4096,    /* AQA */
    NVME_SQ_ENTRY_BYTES = 64,
    NVME_CQ_ENTRY_BYTES = 16,
    NVME_BLOCK_BYTES = 512,
    NVME_BLOCK_SHIFT = 9,
    NVME_PAGE_SHIFT_MIN = 12, /* CAP.MPSMIN, MPSMAX */
    NVME_PAGE_SHIFT_MAX = 16,
    NVME_MDTS = 7, /* in units of the least page: 512 KiB */
    NVME_TRANSFER_MAX_BYTES = 1 << (NVME_PAGE_SHIFT_MIN + NVME_MDTS),
    NVME_IOV_MAX = (1 << NVME_MDTS) + 1,
    NVME_EVENTS_MAX = 4,    /* asynchronous event requests, AERL + 1 */
    NVME_ERRORS_MAX = 64,   /* error log entries, ELPE + 1 */
    NVME_RANGES_MAX = 256,  /* of one dataset management command */
    NVME_TEMPERATURE = 303, /* kelvin; nothing heats or cools it */
    NVME_TEMPERATURE_WARNING = 343,
    NVME_TEMPERATURE_CRITICAL = 358,
};

#define NVME_ALL_NAMESPACES UINT32_MAX
#define NVME_MODEL          "skep NVMe disk"
#define NVME_FIRMWARE       "1.0"

/* Status codes, type << 8 | code (4.6.1.2). */
enum nvme_status {
    NVME_OK = 0x000,
    NVME_INVALID_OPCODE = 0x001,
    NVME_INVALID_FIELD = 0x002,
    NVME_DATA_TRANSFER_ERROR = 0x004,
    NVME_INTERNAL_ERROR = 0x006,
    NVME_ABORT_REQUESTED = 0x007,
    NVME_INVALID_NAMESPACE = 0x00b,
    NVME_COMMAND_SEQUENCE = 0x00c,
    NVME_PRP_OFFSET_INVALID = 0x013,
    NVME_LBA_OUT_OF_RANGE = 0x080,
    NVME_CAPACITY_EXCEEDED = 0x081,
    NVME_CQ_INVALID = 0x100,
    NVME_QUEUE_ID_INVALID = 0x101,
    NVME_QUEUE_SIZE_INVALID = 0x102,
    NVME_EVENT_LIMIT = 0x105,
    NVME_VECTOR_INVALID = 0x108,
    NVME_LOG_PAGE_INVALID = 0x109,
    NVME_QUEUE_DELETION_INVALID = 0x10c,
    NVME_FEATURE_NOT_CHANGEABLE = 0x10e,
    NVME_READ_ONLY_RANGE = 0x182,
    NVME_WRITE_FAULT = 0x280,
    NVME_READ_ERROR = 0x281,
    NVME_COMPARE_FAILURE = 0x285,
    NVME_PENDING = 0xfff, /* of functions that start a command: it is answered later */
};

/* A command as it was copied from its queue. */
struct nvme_command {
    uint8_t opcode, flags;
    uint16_t id;
    uint32_t nsid;
    uint64_t prp[2];
    uint32_t dw[6]; /* CDW10 … CDW15 */
};

struct nvme_sq {
    uint32_t entries; /* 0: there is none */
    uint16_t id, cq;
    uint64_t gpa;
    const uint8_t *ring;
    uint32_t head, tail;
    unsigned outstanding; /* taken and not answered */
    bool is_deleting;     /* is gone when `outstanding` is 0; then this is answered: */
    uint16_t delete_command;
};

struct nvme_cq {
    uint32_t entries; /* 0: there is none */
    uint64_t gpa;
    uint8_t *ring;
    uint32_t head, tail;
    bool phase, interrupts;
    uint16_t vector;
    unsigned promised; /* entries that commands under way will take */
    unsigned sq_count;
};

struct nvme_range {
    uint64_t offset_bytes, size_bytes;
};

/* A command that the back end has, or whose memory is collected. */
struct nvme_request {
    struct block_request block;
    struct nvme *nvme;
    struct nvme_request *next; /* in the list of free ones */
    uint32_t generation;
    uint16_t sq;
    struct nvme_command command;
    bool then_flush;
    uint8_t *buffer; /* of compare: what the disk has */
    struct iovec buffer_iov;
    unsigned range_count, range_next; /* of dataset management */
    struct nvme_range *ranges;
    unsigned iov_count;
    struct iovec iov[NVME_IOV_MAX]; /* guest memory */
    uint64_t gpa[NVME_IOV_MAX];     /* of each piece */
};

struct nvme_error {
    uint64_t count, lba;
    uint32_t nsid;
    uint16_t sq, command, status, location;
};

struct nvme_features {
    uint32_t arbitration;
    uint16_t over_threshold, under_threshold;
    uint16_t error_recovery;
    bool write_cache;
    uint16_t coalescing;
    uint32_t atomicity;
    uint32_t events;
    uint32_t vector_config[NVME_QUEUES];
};

struct nvme_counters {
    uint64_t read_blocks, written_blocks, reads, writes, errors;
};

struct nvme {
    struct ram *ram;
    const struct log *log;
    struct log_limit log_limit;
    struct block_backend backend;
    struct block_info info;
    char serial[NVME_SERIAL_BYTES];
    struct pci_function *function;
    struct msix *msix;

    pthread_mutex_t lock;
    uint32_t intms, cc, csts, aqa;
    uint64_t asq, acq;
    bool is_enabled;     /* CC.EN, and the queues are there */
    bool is_resetting;   /* CC.EN is 0 but CSTS.RDY still 1 */
    bool resets_all;     /* … by a subsystem reset */
    unsigned in_flight;  /* requests that a back end has */
    uint32_t generation; /* counts resets */
    struct nvme_sq sq[NVME_QUEUES];
    struct nvme_cq cq[NVME_QUEUES];

    struct nvme_features features;
    uint16_t event_commands[NVME_EVENTS_MAX]; /* requests for asynchronous events that wait */
    unsigned event_count;
    uint8_t events_pending; /* bit n: one of type n is to be told */
    uint8_t events_masked;  /* bit n: type n was told, and its log page not read since */
    uint8_t event_info[2];  /* of the types error and health */

    struct nvme_counters counters;
    struct nvme_error errors[NVME_ERRORS_MAX]; /* the newest is at (counters.errors - 1) % MAX */

    struct nvme_request *free_requests;
    unsigned free_count;
};

static inline uint64_t nvme_blocks(const struct nvme *nvme)
{
    return nvme->info.size_bytes >> NVME_BLOCK_SHIFT;
}

static inline uint64_t nvme_page_bytes(const struct nvme *nvme)
{
    return UINT64_C(1) << (NVME_PAGE_SHIFT_MIN + (nvme->cc >> 7 & 15)); /* CC.MPS */
}

/* ---- nvme_queue.c ---- */

/* Makes a queue of whole contiguous memory; false when that is not RAM. */
bool nvme_sq_open(struct nvme *nvme, unsigned id, uint64_t gpa, uint32_t entries, unsigned cq);
bool nvme_cq_open(struct nvme *nvme, unsigned id, uint64_t gpa, uint32_t entries);
void nvme_sq_close(struct nvme *nvme, unsigned id);
/* Takes and starts what is in a submission queue, as far as answers have room. */
void nvme_sq_run(struct nvme *nvme, unsigned id);
/* Answers a command that was taken from `sq`. */
void nvme_answer(struct nvme *nvme, unsigned sq, uint16_t command, enum nvme_status status,
                 uint32_t result);
/* Tells asynchronous events that are pending, as far as the guest asked for them. */
void nvme_events_run(struct nvme *nvme);
void nvme_doorbell(struct nvme *nvme, unsigned index, uint32_t value);
void nvme_update_intx(struct nvme *nvme);

enum nvme_event { NVME_EVENT_ERROR = 0, NVME_EVENT_HEALTH = 1 };
void nvme_event(struct nvme *nvme, enum nvme_event type, uint8_t info);

/* ---- nvme_data.c ---- */

struct nvme_request *nvme_request_new(struct nvme *nvme, unsigned sq,
                                      const struct nvme_command *command); /* NULL: no memory */
void nvme_request_free(struct nvme_request *request);
/* Collects the guest's memory of a transfer of `size_bytes` into request->iov. */
enum nvme_status nvme_map(struct nvme_request *request, uint64_t size_bytes);
/* Between a command's memory and a buffer of `size_bytes`; the transfer takes that many. */
enum nvme_status nvme_put(struct nvme *nvme, const struct nvme_command *command, const void *data,
                          size_t size_bytes);
enum nvme_status nvme_get(struct nvme_request *request, void *data, size_t size_bytes);
/* The guest's memory of a request was written by the back end. */
void nvme_written(const struct nvme_request *request);

/* ---- commands: a status, or NVME_PENDING ---- */

enum nvme_status nvme_admin(struct nvme *nvme, const struct nvme_command *command,
                            uint32_t *result);
enum nvme_status nvme_io(struct nvme *nvme, unsigned sq, const struct nvme_command *command);
enum nvme_status nvme_identify(struct nvme *nvme, const struct nvme_command *command);
enum nvme_status nvme_log_page(struct nvme *nvme, const struct nvme_command *command);
/* Notes a command that failed in the error log. */
void nvme_log_error(struct nvme *nvme, unsigned sq, const struct nvme_command *command,
                    enum nvme_status status);
void nvme_features_reset(struct nvme *nvme);
/* Flushes for a shutdown; nvme_shutdown_done() is called at its end. */
void nvme_flush_for_shutdown(struct nvme *nvme);

/* ---- nvme.c ---- */

void nvme_shutdown_done(struct nvme *nvme);
/* A request has come back from the back end: a reset may end with it. */
void nvme_landed(struct nvme *nvme);
void nvme_power_on(struct nvme *nvme); /* all but PCI as at first */

/* ---- nvme_state.c ---- */

void nvme_save(struct nvme *nvme, struct save *save);
bool nvme_load(struct nvme *nvme, struct load *load); /* into the state of nvme_power_on() */

#endif
