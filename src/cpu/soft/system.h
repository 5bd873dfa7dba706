/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What all software processors of one machine share: physical memory as they see it, which of its
 * pages hold decoded code, and the callbacks to whoever embeds them. Private to cpu/soft.
 */
#ifndef SKEP_CPU_SOFT_SYSTEM_H
#define SKEP_CPU_SOFT_SYSTEM_H

#include "base/log.h"
#include "cpu/level.h"
#include "cpu/stats.h"

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
    void (*tsc_changed)(void *opaque, unsigned vcpu);
    /* Memory at this host address gets into use, perhaps for the first time. May be NULL. */
    void (*touch)(void *opaque, const uint8_t *hva);
    /* A processor that cpu_run() has told HALTED may have work: any thread. May be NULL. */
    void (*wake)(void *opaque, unsigned vcpu);
};

/* For each page of RAM: whether any processor holds decoded code of it or monitors a line there
 * (monitor.c), and how often that was written and so made void. A block remembers the generation it
 * was decoded at and is dead when it differs. */
struct code_page {
    _Atomic uint32_t generation;
    _Atomic uint8_t has_code;
    _Atomic uint8_t is_logged; /* writes are to be noted in is_written: physical.c */
    _Atomic uint8_t is_written;
    uint8_t is_unsure; /* may have been written unseen since it was told; under change_lock */
    _Atomic uint64_t granules; /* bit n: some block has bytes of [64 n, 64 n + 64) */
    _Atomic uint64_t writers;  /* bit n: processor n may hold write tags of it */
};

/* Memory of the host that the guest has, or had, somewhere. It stays until the system is closed. */
struct soft_backing {
    uint8_t *hva;
    uint64_t size_bytes;
    struct code_page *pages; /* one per 4 KiB */
    uint64_t ram_gpa;        /* where devices find it that write guest memory */
    bool is_ram;             /* they do */
    _Atomic bool is_logged;
};

/* A piece of the guest's physical memory. */
struct soft_region {
    uint64_t gpa;
    uint64_t size_bytes;
    uint8_t *hva;
    bool read_only;
    bool is_logged;          /* for soft_set_regions() */
    struct code_page *pages; /* of its first page on */
};

enum { SOFT_MAX_REGIONS = 64, SOFT_MAX_BACKINGS = 64 };

/* The same, to be read while it changes. */
struct soft_slot {
    _Atomic uint64_t gpa, size_bytes;
    _Atomic(uint8_t *) hva;
    _Atomic bool read_only;
    _Atomic(struct code_page *) pages;
};

/* The largest first: that is where most look-ups end. The sequence is odd while it changes. */
struct soft_physical {
    _Atomic uint64_t sequence;
    _Atomic unsigned count;
    struct soft_slot slot[SOFT_MAX_REGIONS];
    struct soft_backing backing[SOFT_MAX_BACKINGS];
    _Atomic unsigned backing_count; /* grows only */
    pthread_mutex_t change_lock;    /* over changes of all this */
};

/* What CPUID offers, worked out once from what the host has. */
struct cpuid_features {
    bool is_amd; /* the host's vendor, and so the guest's */
    char vendor[12];
    uint32_t leaf1_ecx, leaf1_edx, leaf7_ebx, leaf7_ecx, leaf7_edx;
    uint32_t extended_ecx, extended_edx; /* 80000001H */
    unsigned physical_bits;
};

/* How processors run code; set before they are made. */
struct translator_options {
    bool is_on;
    bool is_eager;        /* before a block's first run; for tests */
    bool perf_map;        /* write /tmp/perf-PID.map */
    unsigned threshold;   /* runs of a block before it is translated; 0: the usual number */
    unsigned code_bytes;  /* of host code a processor; 0: the usual number */
    bool has_counts;      /* translated instructions are counted, too */
    bool is_check;        /* each translated block is compared with the interpreter's run */
    bool has_exact_flags; /* arithmetic flags in the frames of faults, dead ones too */
};

enum { SOFT_MAX_CPUS = 64, SOFT_VOIDED = 64 };

struct soft_system {
    struct soft_callbacks callbacks;
    const struct log *log;
    struct log_limit log_limit;
    struct soft_physical physical;
    struct cpu *cpu[SOFT_MAX_CPUS];
    unsigned cpu_count;
    unsigned sockets, cores, threads;
    pthread_mutex_t split_lock;     /* locked accesses that cross pages or lines of memory */
    pthread_mutex_t shootdown_lock; /* one page at a time comes to hold code */
    struct translator_options translator;
    pthread_mutex_t void_lock; /* over the next two: the last pages whose blocks became void */
    struct code_page *voided[SOFT_VOIDED];
    uint64_t voided_count;
    _Atomic uint32_t check_next, check_serving; /* whose turn it is: translator/check.c */
    uint64_t tsc_khz;
    bool tsc_is_synthetic; /* the host's counter is no clock: nanoseconds are used instead */
    uint64_t tsc_ratio;    /* ours to the host's, 32 bits of it a fraction; 0: as the host's */
    bool tsc_is_stopped;   /* then it is tsc_stopped_at, before offsets */
    uint64_t tsc_stopped_at;
    /* The offset of the first processor whose TSC was set, which the others take over when theirs
     * is near: their states are taken and set one after another. Under shootdown_lock. */
    bool has_tsc_offset;
    uint64_t tsc_offset, tsc_adjust;
    uint64_t kvmclock_base_ns; /* KVM's clock when the TSC was 0; not 0 in a machine from KVM */
    enum cpu_level cpu_level;
    struct cpuid_features features;
};

/* physical.c. The piece that holds gpa; false: MMIO. Any thread. */
bool soft_region_find(struct soft_system *system, uint64_t gpa, struct soft_region *region);

/* The page that a host address is of; NULL: not of guest memory. Any thread. */
struct code_page *soft_page_of(struct soft_system *system, const uint8_t *hva);

/* Adds RAM or ROM, before any cpu runs. `hva` stays the caller's. False: no room, no memory, not
 * whole pages, or it overlaps. Devices may write it at gpa: soft_written(). */
bool soft_region_add(struct soft_system *system, uint64_t gpa, uint8_t *hva, uint64_t size_bytes,
                     bool read_only);

/* All pieces anew (`pages` is not read), any thread: whatever processors remember is dropped, by
 * one that is within a callback before its next instruction. False: no room or no memory. */
bool soft_set_regions(struct soft_system *system, const struct soft_region *regions,
                      unsigned count);

/* Logged pages that were written, as physmap_take_written() tells. */
void soft_take_written(struct soft_system *system, const uint8_t *hva, uint64_t size_bytes,
                       uint64_t *pages);
/* Where devices' writes to guest memory at gpa go; NULL: nowhere. */
const uint8_t *soft_ram_at(struct soft_system *system, uint64_t gpa);
/* Where the guest has the memory now, for messages; 0: nowhere. */
uint64_t soft_gpa_of(struct soft_system *system, const uint8_t *hva);
/* Whether the page is of memory whose writes are noted. */
bool soft_is_logged(const struct soft_system *system, const uint8_t *hva);
void soft_physical_open(struct soft_system *system);
void soft_physical_close(struct soft_system *system);

/* Zeroed `system`, callbacks and log set by the caller afterwards. close frees regions' pages; the
 * cpus are gone by then. */
void soft_system_open(struct soft_system *system);
/* The same with a time-stamp counter of `tsc_hz` (TSC_MIN_HZ … TSC_MAX_HZ; 0: as the host's). */
void soft_system_open_rate(struct soft_system *system, uint64_t tsc_hz);
void soft_system_close(struct soft_system *system);

/* Somebody who is no cpu has written guest memory, within one piece of RAM: decoded code there is
 * void. Any thread. */
void soft_written(struct soft_system *system, uint64_t gpa, uint64_t size_bytes);

#endif
