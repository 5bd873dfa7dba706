/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest memory beyond the TLB's fast path: see memory.h. An access that crosses a page has both
 * pages translated before anything is read or written. Accesses to what is no RAM become calls of
 * 1, 2, 4 or 8 bytes.
 */
#include "cpu/soft/debug.h"
#include "cpu/soft/debugger.h"
#include "cpu/soft/tlb.h"
#include "cpu/soft/trial.h"

#include <assert.h>

/* One page's part of an access. */
struct target {
    uint8_t *hva; /* NULL: MMIO at gpa */
    uint64_t gpa;
    unsigned size_bytes;
};

enum { MAX_TARGETS = 2 };

struct access {
    struct target target[MAX_TARGETS];
    unsigned count;
};

/* In 64-bit mode an address that is not canonical; the stack segment's is #SS. */
static void check_canonical(struct cpu *cpu, uint64_t linear)
{
    if (__builtin_expect(is_canonical(linear), 1))
        return;
    bool is_stack = cpu->op && cpu->op->segment == SEG_SS;
    cpu_raise_code(cpu, is_stack ? VECTOR_SS : VECTOR_GP, 0);
}

/* SDM 3A 6.15, table 6-7. What it says of vectors of 16 bytes and more is what processors do: they
 * must be aligned to 16. Areas of FXSAVE and XSAVE have their own #GP. */
static unsigned alignment_of(unsigned size_bytes)
{
    switch (size_bytes) {
    case 2:
    case 14: /* x87 environment and state with 16-bit operands */
    case 94: return 2;
    case 4:
    case 6: /* far pointer of 48 bits */
    case 28:
    case 108: return 4;
    case 8:
    case 10: /* x87 extended */
    case 40: /* five words of IRETQ */ return 8;
    case 16:
    case 32: return 16;
    default: return 1;
    }
}

/* Before any page is looked at, as processors do. */
static void check_alignment(struct cpu *cpu, uint64_t linear, unsigned size_bytes)
{
    if (__builtin_expect(!cpu->checks_alignment, 1))
        return;
    bool is_exempt = cpu->op && (cpu->op->flags & OP_ANY_ALIGNMENT);
    check_canonical(cpu, linear);
    if (!is_exempt && linear & (alignment_of(size_bytes) - 1))
        cpu_raise_code(cpu, VECTOR_AC, 0);
}

/* Of the address of a page. Tables of long mode are above 4 GiB whatever the code's size. */
static uint64_t wrap(const struct cpu *cpu, uint64_t linear)
{
    return linear == UINT64_C(1) << 32 && !cpu_is_64bit(cpu) ? 0 : linear;
}

/* A page that held code when its write tag was made may be free of it now. */
static void regain_write(struct cpu *cpu, struct tlb_entry *entry, const uint8_t *hva)
{
    struct code_page *page = soft_page_of(cpu->system, hva);
    if (page && !atomic_load_explicit(&page->has_code, memory_order_relaxed) &&
        code_page_take_write(cpu, page))
        entry->tag &= ~(uint64_t)TLB_CODE_TAG;
}

static struct target translate(struct cpu *cpu, uint64_t linear, enum memory_access access,
                               enum tlb_view view)
{
    struct tlb_entry *entry = tlb_get(cpu, linear, access, view);
    if (entry->tag & TLB_MMIO_TAG)
        return (struct target){NULL, linear + entry->addend, 0};
    uint8_t *hva = (uint8_t *)(linear + entry->addend);
    cpu->stats.code_page_writes += (entry->tag & TLB_CODE_TAG) != 0;
    if (entry->tag & TLB_CODE_TAG)
        regain_write(cpu, entry, hva);
    return (struct target){hva, 0, 0};
}

static struct access translate_range(struct cpu *cpu, uint64_t linear, unsigned size_bytes,
                                     enum memory_access access, enum tlb_view view)
{
    struct access result = {.count = 1};
    unsigned here = PAGE_BYTES - (unsigned)(linear & ~PAGE_MASK);
    assert(size_bytes <= PAGE_BYTES);
    check_canonical(cpu, linear);
    result.target[0] = translate(cpu, linear, access, view);
    debugger_note_access(cpu, linear, size_bytes, access);
    if (here >= size_bytes) {
        result.target[0].size_bytes = size_bytes;
        return result;
    }
    uint64_t next = wrap(cpu, linear + here);
    check_canonical(cpu, next);
    result.count = 2;
    cpu->stats.page_crossings++;
    result.target[1] = translate(cpu, next, access, view);
    result.target[0].size_bytes = here;
    result.target[1].size_bytes = size_bytes - here;
    return result;
}

/* The largest power of two up to 8 that is left; an access of such a size stays one. */
static unsigned mmio_piece(unsigned size_bytes)
{
    return size_bytes >= 8 ? 8 : size_bytes >= 4 ? 4 : size_bytes >= 2 ? 2 : 1;
}

static void mmio_read(struct cpu *cpu, uint64_t gpa, uint8_t *buffer, unsigned size_bytes)
{
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    while (size_bytes > 0) {
        unsigned piece = mmio_piece(size_bytes);
        uint64_t value = callbacks->mmio_read(callbacks->opaque, gpa, piece);
        memcpy(buffer, &value, piece);
        cpu->stats.mmio++;
        gpa += piece;
        buffer += piece;
        size_bytes -= piece;
    }
}

static void mmio_write(struct cpu *cpu, uint64_t gpa, const uint8_t *buffer, unsigned size_bytes)
{
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    while (size_bytes > 0) {
        unsigned piece = mmio_piece(size_bytes);
        uint64_t value = 0;
        memcpy(&value, buffer, piece);
        callbacks->mmio_write(callbacks->opaque, gpa, value, piece);
        memory_settle(cpu);
        cpu->stats.mmio++;
        gpa += piece;
        buffer += piece;
        size_bytes -= piece;
    }
}

/* Powers of two in one piece, so that aligned accesses are atomic as the processor's are. */
static void copy(uint8_t *to, const uint8_t *from, unsigned size_bytes)
{
    switch (size_bytes) {
    case 1: *to = *from; break;
    case 2: memcpy(to, from, 2); break;
    case 4: memcpy(to, from, 4); break;
    case 8: memcpy(to, from, 8); break;
    default: memcpy(to, from, size_bytes);
    }
}

static void target_read(struct cpu *cpu, const struct target *target, uint8_t *buffer)
{
    if (cpu->trial)
        trial_read(cpu, target->hva, buffer, target->size_bytes);
    else if (target->hva)
        copy(buffer, target->hva, target->size_bytes);
    else
        mmio_read(cpu, target->gpa, buffer, target->size_bytes);
}

static void target_write(struct cpu *cpu, const struct target *target, const uint8_t *buffer)
{
    if (cpu->trial) {
        trial_write(cpu, target->hva, buffer, target->size_bytes);
        return;
    }
    if (!target->hva) {
        mmio_write(cpu, target->gpa, buffer, target->size_bytes);
        return;
    }
    copy(target->hva, buffer, target->size_bytes);
    code_page_written(cpu, target->hva, target->size_bytes);
}

static void read_view(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes,
                      enum tlb_view view)
{
    struct access access = translate_range(cpu, linear, size_bytes, ACCESS_READ, view);
    debug_note_hits(cpu, debug_data_hits(cpu, linear, size_bytes, false));
    uint8_t *at = buffer;
    for (unsigned i = 0; i < access.count; i++) {
        target_read(cpu, &access.target[i], at);
        at += access.target[i].size_bytes;
    }
}

static void write_view(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes,
                       enum tlb_view view)
{
    struct access access = translate_range(cpu, linear, size_bytes, ACCESS_WRITE, view);
    debug_note_hits(cpu, debug_data_hits(cpu, linear, size_bytes, true));
    const uint8_t *at = buffer;
    for (unsigned i = 0; i < access.count; i++) {
        target_write(cpu, &access.target[i], at);
        at += access.target[i].size_bytes;
    }
}

void memory_read_slow(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes)
{
    check_alignment(cpu, linear, size_bytes);
    read_view(cpu, linear, buffer, size_bytes, cpu->tlb_view);
}

void memory_write_slow(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes)
{
    check_alignment(cpu, linear, size_bytes);
    write_view(cpu, linear, buffer, size_bytes, cpu->tlb_view);
}

void memory_probe_write(struct cpu *cpu, uint64_t linear, unsigned size_bytes)
{
    if (memory_hit_write(cpu, linear, size_bytes))
        return;
    check_alignment(cpu, linear, size_bytes);
    translate_range(cpu, linear, size_bytes, ACCESS_WRITE, cpu->tlb_view);
    debug_data_hits(cpu, linear, size_bytes, true); /* the write itself will note them */
}

void memory_read(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes)
{
    const uint8_t *hva = memory_hit_read(cpu, linear, size_bytes);
    if (hva)
        copy(buffer, hva, size_bytes);
    else
        memory_read_slow(cpu, linear, buffer, size_bytes);
}

void memory_write(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes)
{
    uint8_t *hva = memory_hit_write(cpu, linear, size_bytes);
    if (hva)
        copy(hva, buffer, size_bytes);
    else
        memory_write_slow(cpu, linear, buffer, size_bytes);
}

static struct tlb_tables *system_tables(struct cpu *cpu)
{
    return cpu->trial ? cpu->tlb : &cpu->tlb_set->tables[view_supervisor(cpu)];
}

void memory_read_system(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes)
{
    const struct tlb_entry *entry = &system_tables(cpu)->read[tlb_index(linear)];
    if (entry->tag == ((linear + size_bytes - 1) & PAGE_MASK))
        copy(buffer, (const uint8_t *)(linear + entry->addend), size_bytes);
    else
        read_view(cpu, linear, buffer, size_bytes, view_supervisor(cpu));
}

void memory_write_system(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes)
{
    const struct tlb_entry *entry = &system_tables(cpu)->write[tlb_index(linear)];
    if (entry->tag == ((linear + size_bytes - 1) & PAGE_MASK))
        copy((uint8_t *)(linear + entry->addend), buffer, size_bytes);
    else
        write_view(cpu, linear, buffer, size_bytes, view_supervisor(cpu));
}

void *memory_rmw_begin_slow(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool locked)
{
    check_alignment(cpu, linear, size_bytes);
    struct access access = translate_range(cpu, linear, size_bytes, ACCESS_WRITE, cpu->tlb_view);
    debugger_note_access(cpu, linear, size_bytes, ACCESS_READ);
    debug_note_hits(cpu, debug_data_hits(cpu, linear, size_bytes, true));
    if (access.count == 1 && access.target[0].hva && !cpu->trial)
        return access.target[0].hva;
    assert(size_bytes <= sizeof(cpu->bounce));
    if (locked && !cpu->trial)
        pthread_mutex_lock(&cpu->system->split_lock);
    unsigned at = 0;
    for (unsigned i = 0; i < 2; i++) {
        struct target target = i < access.count ? access.target[i] : (struct target){0};
        cpu->bounce_target[i] = (struct bounce_target){target.hva, target.gpa, target.size_bytes};
        if (target.size_bytes > 0)
            target_read(cpu, &target, cpu->bounce + at);
        at += target.size_bytes;
    }
    return cpu->bounce;
}

void memory_rmw_end_slow(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool locked,
                         void *hva)
{
    if (hva != cpu->bounce) {
        code_page_written(cpu, hva, size_bytes);
        return;
    }
    unsigned at = 0;
    for (unsigned i = 0; i < 2; i++) {
        const struct bounce_target *to = &cpu->bounce_target[i];
        struct target target = {to->hva, to->gpa, to->size_bytes};
        if (target.size_bytes > 0)
            target_write(cpu, &target, cpu->bounce + at);
        at += target.size_bytes;
    }
    if (locked && !cpu->trial)
        pthread_mutex_unlock(&cpu->system->split_lock);
}
