/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Which pages of memory hold decoded code.
 *
 * Blocks are private to a cpu, pages are not. Before a block of a page may exist, every processor's
 * write tags of the page are gone, so that writes there are seen: they come by code_page_written,
 * and void the page's blocks when they touch a granule with code. Who writes stores first and looks
 * at the granules then; who decodes sets the granules first and reads the bytes (again) then; one
 * of the two sees the other.
 *
 * The lock is held while waiting for other processors, so whoever wants it serves their requests
 * meanwhile. A processor outside of run() can't answer; it drops all write tags when it enters.
 */
#include "cpu/soft/block.h"
#include "cpu/soft/tlb.h"

#include <sched.h>

enum { GRANULE_SHIFT = 6 };

void soft_system_open(struct soft_system *system)
{
    soft_system_open_rate(system, 0);
}

void soft_system_open_rate(struct soft_system *system, uint64_t tsc_hz)
{
    memset(system, 0, sizeof(*system));
    pthread_mutex_init(&system->split_lock, NULL);
    pthread_mutex_init(&system->shootdown_lock, NULL);
    pthread_mutex_init(&system->void_lock, NULL);
    cpuid_open(system);
    soft_physical_open(system);
    system->sockets = system->cores = system->threads = 1;
    tsc_open(system, tsc_hz);
}

void soft_system_close(struct soft_system *system)
{
    soft_physical_close(system);
    pthread_mutex_destroy(&system->split_lock);
    pthread_mutex_destroy(&system->shootdown_lock);
    pthread_mutex_destroy(&system->void_lock);
}

static uint64_t granules_of(unsigned offset, unsigned size_bytes)
{
    unsigned first = offset >> GRANULE_SHIFT;
    unsigned last = (offset + size_bytes - 1) >> GRANULE_SHIFT;
    return (UINT64_MAX << first) & (UINT64_MAX >> (63 - last));
}

/* Translated code doesn't look at generations: it is told. */
static void tell_translators(struct soft_system *system, struct code_page *page)
{
    if (!system->translator.is_on)
        return;
    pthread_mutex_lock(&system->void_lock);
    system->voided[system->voided_count++ % SOFT_VOIDED] = page;
    pthread_mutex_unlock(&system->void_lock);
    for (unsigned i = 0; i < system->cpu_count; i++)
        if (system->cpu[i])
            cpu_request(system->cpu[i], REQUEST_VOID);
}

/* All blocks of the page are void. The page is free of code again unless somebody is just decoding
 * there; a later write then frees it. */
static void page_void(struct soft_system *system, struct code_page *page)
{
    bool locked = pthread_mutex_trylock(&system->shootdown_lock) == 0;
    atomic_fetch_add(&page->generation, 1);
    tell_translators(system, page);
    if (locked) {
        atomic_store(&page->granules, 0);
        atomic_store(&page->has_code, 0);
        pthread_mutex_unlock(&system->shootdown_lock);
    }
    monitor_tell(system, page);
}

static bool page_written(struct soft_system *system, struct code_page *page, unsigned offset,
                         unsigned size_bytes)
{
    uint64_t granules = atomic_load(&page->granules);
    if (!(granules & granules_of(offset, size_bytes)))
        return false;
    page_void(system, page);
    return true;
}

void code_page_written(struct cpu *cpu, const uint8_t *hva, unsigned size_bytes)
{
    struct code_page *page = soft_page_of(cpu->system, hva);
    atomic_thread_fence(memory_order_seq_cst);
    if (!page)
        return;
    if (atomic_load_explicit(&page->is_logged, memory_order_relaxed))
        atomic_store(&page->is_written, 1);
    if (!atomic_load(&page->has_code))
        return;
    unsigned offset = (uintptr_t)hva & (PAGE_BYTES - 1);
    if (!page_written(cpu->system, page, offset, size_bytes))
        return;
    cpu->stats.code_writes++;
    block_leave_if_dead(cpu);
}

void soft_written(struct soft_system *system, uint64_t gpa, uint64_t size_bytes)
{
    const uint8_t *hva = soft_ram_at(system, gpa);
    struct code_page *page = hva ? soft_page_of(system, hva) : NULL;
    unsigned offset = gpa & (PAGE_BYTES - 1);
    atomic_thread_fence(memory_order_seq_cst);
    for (; page && size_bytes > 0; page++, offset = 0) {
        uint64_t piece = PAGE_BYTES - offset;
        if (piece > size_bytes)
            piece = size_bytes;
        if (atomic_load_explicit(&page->has_code, memory_order_relaxed))
            page_written(system, page, offset, (unsigned)piece);
        size_bytes -= piece;
    }
}

bool code_page_take_write(struct cpu *cpu, struct code_page *page)
{
    uint64_t bit = UINT64_C(1) << cpu->index;
    if (atomic_load_explicit(&page->is_logged, memory_order_relaxed))
        atomic_store(&page->is_written, 1);
    if (!(atomic_load_explicit(&page->writers, memory_order_relaxed) & bit))
        atomic_fetch_or(&page->writers, bit);
    atomic_thread_fence(memory_order_seq_cst);
    return !atomic_load(&page->has_code);
}

void code_page_serve(struct cpu *cpu)
{
    cpu_withdraw(cpu, REQUEST_SHOOTDOWN);
    if (atomic_exchange(&cpu->drop_all, false))
        tlb_flush_all(cpu);
    uint32_t wanted = atomic_load(&cpu->drop_logged_wanted);
    if (wanted != atomic_load_explicit(&cpu->drop_logged_done, memory_order_relaxed)) {
        tlb_drop_logged_writes(cpu);
        atomic_store(&cpu->drop_logged_done, wanted);
    }
    uintptr_t page = atomic_load(&cpu->drop_page);
    if (page) {
        tlb_drop_writes(cpu, (const uint8_t *)page);
        /* Another request may stand there by now. */
        atomic_compare_exchange_strong(&cpu->drop_page, &page, 0);
    }
}

static void lock_serving(struct cpu *cpu)
{
    while (pthread_mutex_trylock(&cpu->system->shootdown_lock) != 0) {
        if (atomic_load(&cpu->requests) & REQUEST_SHOOTDOWN)
            code_page_serve(cpu);
        sched_yield();
    }
}

/* Returns when `other` has no write tag of the page, or is outside of run() and will have none: it
 * then looks at drop_all after it has set is_running. */
static void shoot_down(struct cpu *other, const uint8_t *hva_page)
{
    atomic_store(&other->drop_page, (uintptr_t)hva_page);
    cpu_request(other, REQUEST_SHOOTDOWN);
    for (unsigned spins = 0; atomic_load(&other->drop_page) != 0; spins++) {
        if (!atomic_load(&other->is_running)) {
            atomic_store(&other->drop_all, true);
            cpu_request(other, REQUEST_SHOOTDOWN);
            if (!atomic_load(&other->is_running)) {
                atomic_store(&other->drop_page, 0);
                return;
            }
        }
        if (spins > 64)
            sched_yield();
        else
            __builtin_ia32_pause();
    }
}

static void drop_writers(struct cpu *cpu, struct code_page *page, const uint8_t *hva_page)
{
    struct soft_system *system = cpu->system;
    uint64_t writers = atomic_exchange(&page->writers, 0);
    if (writers >> cpu->index & 1)
        tlb_drop_writes(cpu, hva_page);
    for (unsigned i = 0; i < system->cpu_count; i++)
        if (i != cpu->index && system->cpu[i] && (writers >> i & 1))
            shoot_down(system->cpu[i], hva_page);
}

uint32_t code_page_mark(struct cpu *cpu, struct code_page *page, uint8_t *hva_page, unsigned offset,
                        unsigned size_bytes)
{
    lock_serving(cpu);
    if (!atomic_load(&page->has_code)) {
        atomic_store(&page->has_code, 1);
        drop_writers(cpu, page, hva_page);
    }
    atomic_fetch_or(&page->granules, granules_of(offset, size_bytes));
    uint32_t generation = atomic_load(&page->generation);
    pthread_mutex_unlock(&cpu->system->shootdown_lock);
    atomic_thread_fence(memory_order_seq_cst);
    return generation;
}
