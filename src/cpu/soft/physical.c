/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Physical memory as the processors share it. Pieces come and go while processors run, so readers
 * take no lock: they copy a slot out and look again when the sequence has moved meanwhile. What a
 * processor remembers of the pieces (TLB, blocks by RIP) is dropped by asking it to, as code_page.c
 * does; nobody waits for that, since a processor may be in a device whose lock the caller holds. So
 * memory that is gone may be written for a moment more: it stays on the host until the end.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/tlb.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

void soft_physical_open(struct soft_system *system)
{
    pthread_mutex_init(&system->physical.change_lock, NULL);
}

void soft_physical_close(struct soft_system *system)
{
    for (unsigned i = 0; i < system->physical.backing_count; i++)
        free(system->physical.backing[i].pages);
    pthread_mutex_destroy(&system->physical.change_lock);
}

/* ---- looking ---- */

static void slot_load(struct soft_slot *slot, struct soft_region *region)
{
    region->gpa = atomic_load_explicit(&slot->gpa, memory_order_acquire);
    region->size_bytes = atomic_load_explicit(&slot->size_bytes, memory_order_acquire);
    region->hva = atomic_load_explicit(&slot->hva, memory_order_acquire);
    region->read_only = atomic_load_explicit(&slot->read_only, memory_order_acquire);
    region->pages = atomic_load_explicit(&slot->pages, memory_order_acquire);
}

static bool find(struct soft_physical *physical, uint64_t gpa, struct soft_region *region)
{
    unsigned count = atomic_load_explicit(&physical->count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        struct soft_slot *slot = &physical->slot[i];
        uint64_t base = atomic_load_explicit(&slot->gpa, memory_order_acquire);
        if (gpa - base >= atomic_load_explicit(&slot->size_bytes, memory_order_acquire))
            continue;
        slot_load(slot, region);
        return true;
    }
    return false;
}

bool soft_region_find(struct soft_system *system, uint64_t gpa, struct soft_region *region)
{
    struct soft_physical *physical = &system->physical;
    for (;;) {
        uint64_t before = atomic_load_explicit(&physical->sequence, memory_order_acquire);
        if (!(before & 1)) {
            bool found = find(physical, gpa, region);
            if (atomic_load_explicit(&physical->sequence, memory_order_relaxed) == before)
                return found;
        }
        sched_yield();
    }
}

static struct soft_backing *backing_of(struct soft_physical *physical, const uint8_t *hva,
                                       uint64_t size_bytes)
{
    unsigned count = atomic_load_explicit(&physical->backing_count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        struct soft_backing *backing = &physical->backing[i];
        uintptr_t offset = (uintptr_t)hva - (uintptr_t)backing->hva;
        if (offset < backing->size_bytes && size_bytes <= backing->size_bytes - offset)
            return backing;
    }
    return NULL;
}

struct code_page *soft_page_of(struct soft_system *system, const uint8_t *hva)
{
    struct soft_backing *backing = backing_of(&system->physical, hva, 1);
    return backing ? &backing->pages[(hva - backing->hva) >> PAGE_SHIFT] : NULL;
}

const uint8_t *soft_ram_at(struct soft_system *system, uint64_t gpa)
{
    struct soft_physical *physical = &system->physical;
    unsigned count = atomic_load_explicit(&physical->backing_count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        struct soft_backing *backing = &physical->backing[i];
        if (backing->is_ram && gpa - backing->ram_gpa < backing->size_bytes)
            return backing->hva + (gpa - backing->ram_gpa);
    }
    return NULL;
}

bool soft_is_logged(const struct soft_system *system, const uint8_t *hva)
{
    const struct soft_physical *physical = &system->physical;
    unsigned count = atomic_load_explicit(&physical->backing_count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        const struct soft_backing *backing = &physical->backing[i];
        if (atomic_load_explicit(&backing->is_logged, memory_order_relaxed) &&
            (uintptr_t)hva - (uintptr_t)backing->hva < backing->size_bytes)
            return true;
    }
    return false;
}

uint64_t soft_gpa_of(struct soft_system *system, const uint8_t *hva)
{
    uint64_t gpa = 0;
    pthread_mutex_lock(&system->physical.change_lock);
    for (unsigned i = 0; i < system->physical.count; i++) {
        struct soft_region region;
        slot_load(&system->physical.slot[i], &region);
        if ((uintptr_t)hva - (uintptr_t)region.hva < region.size_bytes)
            gpa = region.gpa + (uintptr_t)(hva - region.hva);
    }
    pthread_mutex_unlock(&system->physical.change_lock);
    return gpa;
}

/* ---- changing, with the lock held ---- */

static struct soft_backing *add_backing(struct soft_physical *physical, uint8_t *hva,
                                        uint64_t size_bytes)
{
    unsigned count = physical->backing_count;
    if (count == SOFT_MAX_BACKINGS)
        return NULL;
    struct code_page *pages = calloc(size_bytes >> PAGE_SHIFT, sizeof(*pages));
    if (!pages)
        return NULL;
    physical->backing[count].hva = hva;
    physical->backing[count].size_bytes = size_bytes;
    physical->backing[count].pages = pages;
    atomic_store_explicit(&physical->backing_count, count + 1, memory_order_release);
    return &physical->backing[count];
}

static struct soft_backing *need_backing(struct soft_physical *physical,
                                         const struct soft_region *region)
{
    struct soft_backing *backing = backing_of(physical, region->hva, region->size_bytes);
    return backing ? backing : add_backing(physical, region->hva, region->size_bytes);
}

static void slot_store(struct soft_slot *slot, const struct soft_region *region)
{
    atomic_store_explicit(&slot->gpa, region->gpa, memory_order_release);
    atomic_store_explicit(&slot->size_bytes, region->size_bytes, memory_order_release);
    atomic_store_explicit(&slot->hva, region->hva, memory_order_release);
    atomic_store_explicit(&slot->read_only, region->read_only, memory_order_release);
    atomic_store_explicit(&slot->pages, region->pages, memory_order_release);
}

static void publish(struct soft_physical *physical, const struct soft_region *regions,
                    unsigned count)
{
    atomic_fetch_add_explicit(&physical->sequence, 1, memory_order_relaxed);
    for (unsigned i = 0; i < count; i++)
        slot_store(&physical->slot[i], &regions[i]);
    atomic_store_explicit(&physical->count, count, memory_order_release);
    atomic_fetch_add_explicit(&physical->sequence, 1, memory_order_release);
}

static void forget_everywhere(struct soft_system *system)
{
    for (unsigned i = 0; i < system->cpu_count; i++) {
        if (!system->cpu[i])
            continue;
        atomic_store(&system->cpu[i]->drop_all, true);
        cpu_request(system->cpu[i], REQUEST_SHOOTDOWN);
    }
}

/* Where it was before nobody has noted its writes, or somebody else: all of it counts as written.
 */
static void start_log(struct soft_backing *backing, const struct soft_region *region)
{
    uint64_t count = region->size_bytes >> PAGE_SHIFT;
    for (uint64_t i = 0; i < count; i++) {
        atomic_store(&region->pages[i].is_logged, 1);
        atomic_store(&region->pages[i].is_written, 1);
    }
    atomic_store(&backing->is_logged, true);
}

static int by_size(const void *a, const void *b)
{
    const struct soft_region *left = a, *right = b;
    if (left->size_bytes != right->size_bytes)
        return left->size_bytes > right->size_bytes ? -1 : 1;
    return left->gpa < right->gpa ? -1 : left->gpa > right->gpa;
}

static bool set_regions(struct soft_system *system, const struct soft_region *regions,
                        unsigned count)
{
    struct soft_region sorted[SOFT_MAX_REGIONS];
    if (count > SOFT_MAX_REGIONS)
        return false;
    memcpy(sorted, regions, count * sizeof(sorted[0]));
    /* Of memory that is seen twice the whole comes before its parts. */
    qsort(sorted, count, sizeof(sorted[0]), by_size);
    for (unsigned i = 0; i < count; i++) {
        const struct soft_backing *backing = need_backing(&system->physical, &sorted[i]);
        if (!backing)
            return false;
        sorted[i].pages = &backing->pages[(sorted[i].hva - backing->hva) >> PAGE_SHIFT];
    }
    publish(&system->physical, sorted, count);
    /* Noted from before the first processor can write there by its new place. */
    for (unsigned i = 0; i < count; i++)
        if (sorted[i].is_logged)
            start_log(need_backing(&system->physical, &sorted[i]), &sorted[i]);
    forget_everywhere(system);
    return true;
}

bool soft_set_regions(struct soft_system *system, const struct soft_region *regions, unsigned count)
{
    pthread_mutex_lock(&system->physical.change_lock);
    bool ok = set_regions(system, regions, count);
    pthread_mutex_unlock(&system->physical.change_lock);
    return ok;
}

bool soft_region_add(struct soft_system *system, uint64_t gpa, uint8_t *hva, uint64_t size_bytes,
                     bool read_only)
{
    struct soft_region all[SOFT_MAX_REGIONS];
    struct soft_physical *physical = &system->physical;
    unsigned count = physical->count;
    bool is_whole = !((gpa | (uintptr_t)hva | size_bytes) & ~PAGE_MASK) && size_bytes > 0;
    if (!is_whole || count == SOFT_MAX_REGIONS || gpa + size_bytes < gpa)
        return false;
    for (unsigned i = 0; i < count; i++) {
        slot_load(&physical->slot[i], &all[i]);
        if (gpa < all[i].gpa + all[i].size_bytes && all[i].gpa < gpa + size_bytes)
            return false;
    }
    all[count] = (struct soft_region){
        .gpa = gpa, .size_bytes = size_bytes, .hva = hva, .read_only = read_only};
    struct soft_backing *backing = add_backing(physical, hva, size_bytes);
    if (!backing || !soft_set_regions(system, all, count + 1))
        return false;
    backing->ram_gpa = gpa;
    backing->is_ram = true;
    return true;
}

/* ---- which pages were written ---- */

enum { SERVED_WAIT_NS = 200000 };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* A processor outside of run() drops the tags before it writes again. */
static bool all_have_dropped(struct soft_system *system)
{
    for (unsigned i = 0; i < system->cpu_count; i++) {
        struct cpu *cpu = system->cpu[i];
        if (cpu && atomic_load(&cpu->drop_logged_done) != atomic_load(&cpu->drop_logged_wanted) &&
            atomic_load(&cpu->is_running))
            return false;
    }
    return true;
}

/* Asks for the write tags of logged pages and waits a little, since a processor may be in a device
 * that waits for the caller. */
static bool drop_logged(struct soft_system *system)
{
    for (unsigned i = 0; i < system->cpu_count; i++) {
        if (!system->cpu[i])
            continue;
        atomic_fetch_add(&system->cpu[i]->drop_logged_wanted, 1);
        cpu_request(system->cpu[i], REQUEST_SHOOTDOWN);
    }
    uint64_t end_ns = now_ns() + SERVED_WAIT_NS;
    while (!all_have_dropped(system)) {
        if (now_ns() > end_ns)
            return false;
        sched_yield();
    }
    return true;
}

void soft_take_written(struct soft_system *system, const uint8_t *hva, uint64_t size_bytes,
                       uint64_t *pages)
{
    bool is_any_new = false;
    pthread_mutex_lock(&system->physical.change_lock);
    struct code_page *page = soft_page_of(system, hva);
    uint64_t count = page ? size_bytes >> PAGE_SHIFT : 0;
    for (uint64_t i = 0; i < count; i++) {
        bool is_new = atomic_exchange(&page[i].is_written, 0);
        if (is_new || page[i].is_unsure)
            pages[i / 64] |= UINT64_C(1) << i % 64;
        is_any_new |= is_new || page[i].is_unsure;
    }
    /* What is written by a tag that is still there is not seen: such pages are told again. */
    bool is_unsure = is_any_new && !drop_logged(system);
    for (uint64_t i = 0; is_any_new && i < count; i++)
        if (pages[i / 64] >> i % 64 & 1)
            page[i].is_unsure = is_unsure;
    pthread_mutex_unlock(&system->physical.change_lock);
}
