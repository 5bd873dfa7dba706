/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What all software processors of one machine share: physical memory as they see it, which of its
 * pages hold decoded code, and the callbacks to whoever embeds them. Private to cpu/soft.
 */
#ifndef SKEP_CPU_SOFT_SYSTEM_H
#define SKEP_CPU_SOFT_SYSTEM_H

#include "base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct cpu;

/* The processor knows no machine: this is all it asks for. Called on the vCPU's thread. */
struct soft_callbacks {
    void *opaque;
    uint64_t (*port_read)(void *opaque, uint16_t port, unsigned size_bytes);
    void (*port_write)(void *opaque, uint16_t port, uint64_t value, unsigned size_bytes);
    uint64_t (*mmio_read)(void *opaque, uint64_t gpa, unsigned size_bytes);
    void (*mmio_write)(void *opaque, uint64_t gpa, uint64_t value, unsigned size_bytes);
    int (*acknowledge)(void *opaque, unsigned vcpu);
    uint64_t (*read_cr8)(void *opaque, unsigned vcpu);
    void (*write_cr8)(void *opaque, unsigned vcpu, uint64_t value);
    bool (*read_msr)(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value);
    bool (*write_msr)(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value);
};

struct soft_stats {
    uint64_t instructions;
    uint64_t blocks_decoded, block_lookups, block_misses;
    uint64_t tlb_misses, page_walks;
    uint64_t exceptions, interrupts;
    uint64_t code_writes;
    uint64_t mmio, pio;
};

/* For each page of RAM: whether any processor holds decoded code of it, and how often such code
 * was made void. A block remembers the generation it was decoded at and is dead when it differs. */
struct code_page {
    _Atomic uint32_t generation;
    _Atomic uint8_t has_code;
};

struct soft_region {
    uint64_t gpa;
    uint64_t size_bytes;
    uint8_t *hva;
    bool read_only;
    struct code_page *pages; /* one per 4 KiB */
};

enum { SOFT_MAX_REGIONS = 16, SOFT_MAX_CPUS = 64 };

struct soft_system {
    struct soft_callbacks callbacks;
    const struct log *log;
    struct log_limit log_limit;
    struct soft_region region[SOFT_MAX_REGIONS]; /* fixed once a cpu runs */
    unsigned region_count;
    struct cpu *cpu[SOFT_MAX_CPUS];
    unsigned cpu_count;
    unsigned sockets, cores, threads;
    pthread_mutex_t split_lock;     /* locked accesses that cross pages or lines of memory */
    pthread_mutex_t shootdown_lock; /* one page at a time comes to hold code */
    uint64_t tsc_khz;
};

/* The region that holds gpa, or NULL: MMIO. */
struct soft_region *soft_region_find(struct soft_system *system, uint64_t gpa);

#endif
