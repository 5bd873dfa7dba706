/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The cache of decoded blocks of one cpu: found by the host address of their first byte (that is,
 * by guest-physical address) and mode; bounded by an arena that is emptied as a whole when full. A
 * dead block stays in the arena until then, so it may go on running.
 *
 * A block lies within a page, but for a single instruction that straddles two; such a one is not
 * put in the jump cache, since its second page's mapping has to be looked at each time. Its
 * translation does so itself.
 */
#include "cpu/soft/block.h"

#include "cpu/soft/debug.h"
#include "cpu/soft/debugger.h"
#include "cpu/soft/tlb.h"
#include "cpu/soft/translator/translator.h"
#include "cpu/soft/vector/vector.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { BUCKET_BITS = 18, BUCKETS = 1 << BUCKET_BITS, ARENA_BYTES = 128 << 20, MAX_TRIES = 8 };
enum {
    BLOCK_ALIGN = 16,
    BLOCK_MAX_SIZE =
        sizeof(struct block) + BLOCK_MAX_OPS * sizeof(struct op) + BLOCK_MAX_BYTES + BLOCK_ALIGN,
};

_Static_assert((int)BLOCK_MAX_OPS <= (int)VECTOR_MAX_BLOCK_OPS, "stubs of a block fit the pool");

struct block_cache {
    struct block *bucket[BUCKETS];
    uint8_t *arena;
    size_t used_bytes;
    struct code_page no_page; /* of blocks that are not in RAM */
    struct block none;        /* stands for the running block when there is none */
};

bool block_cache_open(struct cpu *cpu, struct error *err)
{
    struct block_cache *cache = calloc(1, sizeof(*cache));
    void *arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!cache || arena == MAP_FAILED) {
        free(cache);
        return error_errno(err, "cannot make the code cache", NULL, ENOMEM);
    }
    /* It is filled from its start on: large pages spare most faults. */
    madvise(arena, ARENA_BYTES, MADV_HUGEPAGE);
    cache->arena = cpu->block_arena = arena;
    cpu->blocks = cache;
    cpu->block = &cache->none;
    return true;
}

void block_cache_close(struct cpu *cpu)
{
    if (!cpu->blocks)
        return;
    munmap(cpu->blocks->arena, ARENA_BYTES);
    free(cpu->blocks);
    cpu->blocks = NULL;
}

void block_cache_flush(struct cpu *cpu)
{
    memset(cpu->blocks->bucket, 0, sizeof(cpu->blocks->bucket));
    memset(cpu->jump, 0, sizeof(cpu->jump));
    cpu->blocks->used_bytes = 0;
    memset(&cpu->blocks->none, 0, sizeof(cpu->blocks->none));
    cpu->block = &cpu->blocks->none;
    vector_flush_stubs(cpu);
    translator_flush(cpu);
}

static struct block **bucket_of(struct block_cache *cache, const uint8_t *hva, uint32_t mode)
{
    uint64_t hash = ((uintptr_t)hva ^ (uint64_t)mode << 40) * UINT64_C(0x9e3779b97f4a7c15);
    return &cache->bucket[hash >> (64 - BUCKET_BITS)];
}

/* --- leaving a block that was overwritten --------------------------------------------------- */

static void op_leave(struct cpu *cpu, const struct op *op)
{
    cpu->rip = cpu->gpr[GPR_BLOCK_RIP] + (uint64_t)op->offset;
}

static void op_nothing(struct cpu *cpu, const struct op *op) {}

void block_leave_if_dead(struct cpu *cpu)
{
    struct block *block = cpu->block;
    if (!cpu->op)
        return;
    bool is_alive = block_is_alive(block) &&
                    (!block->page2 || atomic_load(&block->page2->generation) == block->generation2);
    if (is_alive || cpu->is_stepping)
        return;
    struct op *next = &block->op[cpu->op - block->op + 1];
    for (struct op *op = next; op != block->end; op++)
        op->fn = op == next ? op_leave : op_nothing;
}

/* --- fetching ------------------------------------------------------------------------------- */

struct fetch {
    uint64_t linear;
    const uint8_t *hva; /* NULL: MMIO */
    unsigned available; /* bytes up to the end of the page, or of CS */
    bool is_cut;        /* by the limit of CS */
};

static const uint8_t *fetch_translate(struct cpu *cpu, uint64_t linear)
{
    const struct tlb_entry *entry =
        &cpu->tlb->execute[linear >> PAGE_SHIFT & (TLB_EXECUTE_ENTRIES - 1)];
    if (entry->tag != (linear & PAGE_MASK))
        entry = tlb_get(cpu, linear, ACCESS_EXECUTE, cpu->tlb_view);
    if (entry->tag & TLB_MMIO_TAG)
        return NULL;
    return (const uint8_t *)(linear + entry->addend);
}

static struct fetch fetch_begin(struct cpu *cpu)
{
    struct fetch fetch = {.linear = cpu->rip};
    uint64_t left = UINT64_MAX;
    if (cpu_is_64bit(cpu)) {
        if (!is_canonical(cpu->rip))
            cpu_raise_code(cpu, VECTOR_GP, 0);
    } else {
        if (cpu->rip > cpu->segment[SEG_CS].limit)
            cpu_raise_code(cpu, VECTOR_GP, 0);
        left = cpu->segment[SEG_CS].limit - cpu->rip + 1;
        fetch.linear = (uint32_t)(cpu->code_base + cpu->rip);
    }
    fetch.hva = fetch_translate(cpu, fetch.linear);
    uint64_t in_page = PAGE_BYTES - (fetch.linear & ~PAGE_MASK);
    fetch.is_cut = left < in_page;
    fetch.available = (unsigned)(fetch.is_cut ? left : in_page);
    return fetch;
}

/* Where the page after the first goes on, for a straddling instruction. */
static const uint8_t *fetch_next_page(struct cpu *cpu, const struct fetch *fetch)
{
    uint64_t next = (fetch->linear & PAGE_MASK) + PAGE_BYTES;
    if (!cpu_is_64bit(cpu)) {
        if (cpu->rip + fetch->available > cpu->segment[SEG_CS].limit)
            cpu_raise_code(cpu, VECTOR_GP, 0);
        next = (uint32_t)next;
    } else if (!is_canonical(next)) {
        cpu_raise_code(cpu, VECTOR_GP, 0);
    }
    return fetch_translate(cpu, next);
}

/* --- decoding ------------------------------------------------------------------------------- */

static struct block *block_room(struct cpu *cpu)
{
    struct block_cache *cache = cpu->blocks;
    bool is_full = ARENA_BYTES - cache->used_bytes < BLOCK_MAX_SIZE;
    if (is_full || vector_wants_flush(cpu))
        block_cache_flush(cpu);
    struct block *block = (struct block *)(void *)(cache->arena + cache->used_bytes);
    memset(block, 0, sizeof(*block));
    block->mode = block_mode(cpu);
    block->page = &cache->no_page;
    return block;
}

/* `bytes`: kept behind the ops for the translator, unless NULL. */
static void block_finish(struct cpu *cpu, struct block *block, unsigned op_count,
                         unsigned size_bytes, const uint8_t *bytes)
{
    block->op_count = (uint16_t)op_count;
    block->size_bytes = (uint16_t)size_bytes;
    block->end = block->op + op_count;
    block->page_offset = (uintptr_t)block->hva & (PAGE_BYTES - 1);
    for (unsigned i = 0; i < op_count; i++)
        block->op[i].number = (uint16_t)i;
    size_t all_bytes = sizeof(*block) + op_count * sizeof(struct op);
    block->code = translator_cold_code(cpu);
    if (bytes && block->code) {
        block->bytes = memcpy(block->end, bytes, size_bytes);
        all_bytes += size_bytes;
    }
    cpu->blocks->used_bytes += (all_bytes + BLOCK_ALIGN - 1) & ~(size_t)(BLOCK_ALIGN - 1);
    cpu->stats.blocks_decoded++;
}

static uint32_t mark(struct cpu *cpu, struct code_page *page, const uint8_t *hva, unsigned size)
{
    uint8_t *base = (uint8_t *)((uintptr_t)hva & ~(uintptr_t)(PAGE_BYTES - 1));
    return code_page_mark(cpu, page, base, (unsigned)(hva - base), size);
}

/* Decodes from a copy, and again when the bytes have changed before the page was marked. Whoever
 * changes them after that sees the mark. NULL: the first instruction goes on in the next page. */
static struct block *decode_in_page(struct cpu *cpu, const struct fetch *fetch)
{
    struct block *block = block_room(cpu);
    block->hva = fetch->hva;
    block->page = soft_page_of(cpu->system, fetch->hva);
    unsigned available = fetch->available < BLOCK_MAX_BYTES ? fetch->available : BLOCK_MAX_BYTES;
    for (unsigned tries = 0;; tries++) {
        uint8_t bytes[BLOCK_MAX_BYTES];
        unsigned size_bytes = 0;
        memcpy(bytes, fetch->hva, available);
        unsigned count = decode_block(cpu, bytes, available, block->op, BLOCK_MAX_OPS, &size_bytes);
        if (count == 0)
            return NULL;
        count = debugger_cut(cpu, fetch->linear, block->op, count, &size_bytes);
        block->generation = mark(cpu, block->page, fetch->hva, size_bytes);
        if (tries == MAX_TRIES || memcmp(bytes, fetch->hva, size_bytes) == 0) {
            block_finish(cpu, block, count, size_bytes, bytes);
            return block;
        }
    }
}

/* One instruction with bytes in two pages. */
static struct block *decode_straddling(struct cpu *cpu, const struct fetch *fetch)
{
    const uint8_t *hva2 = fetch_next_page(cpu, fetch);
    if (!hva2)
        cpu_raise_missing(cpu, "an instruction that runs from RAM into MMIO", 0);
    struct block *block = block_room(cpu);
    block->hva = fetch->hva;
    block->hva2 = hva2;
    block->page = soft_page_of(cpu->system, fetch->hva);
    block->page2 = soft_page_of(cpu->system, hva2);
    unsigned here = fetch->available;
    for (unsigned tries = 0;; tries++) {
        uint8_t bytes[INSN_MAX_BYTES];
        unsigned size_bytes = 0;
        memcpy(bytes, fetch->hva, here);
        memcpy(bytes + here, hva2, INSN_MAX_BYTES - here);
        unsigned count = decode_block(cpu, bytes, sizeof(bytes), block->op, 1, &size_bytes);
        if (size_bytes <= here) /* only when the bytes have changed meanwhile */
            size_bytes = here + 1;
        block->generation = mark(cpu, block->page, fetch->hva, here);
        block->generation2 = mark(cpu, block->page2, hva2, size_bytes - here);
        bool is_same = memcmp(bytes, fetch->hva, here) == 0 &&
                       memcmp(bytes + here, hva2, size_bytes - here) == 0;
        if (tries == MAX_TRIES || is_same) {
            block_finish(cpu, block, count, size_bytes, bytes);
            return block;
        }
    }
}

/* Code outside of RAM is read byte by byte and never kept. */
static struct block *decode_mmio(struct cpu *cpu, const struct fetch *fetch)
{
    uint8_t bytes[INSN_MAX_BYTES];
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    struct mapping mapping;
    uint32_t error_code;
    unsigned available = fetch->available < sizeof(bytes) ? fetch->available : sizeof(bytes);
    if (!paging_walk(cpu, fetch->linear, ACCESS_EXECUTE, cpu->tlb_view, &mapping, &error_code))
        cpu_raise_page_fault(cpu, fetch->linear, error_code);
    uint64_t gpa = mapping.gpa | (fetch->linear & ~PAGE_MASK);
    for (unsigned i = 0; i < available; i++)
        bytes[i] = (uint8_t)callbacks->mmio_read(callbacks->opaque, gpa + i, 1);
    struct block *block = block_room(cpu);
    unsigned size_bytes = 0;
    unsigned count = decode_block(cpu, bytes, available, block->op, 1, &size_bytes);
    if (count == 0)
        cpu_raise_missing(cpu, "an instruction that straddles pages of MMIO", 0);
    block_finish(cpu, block, count, size_bytes, NULL);
    return block;
}

/* --- finding -------------------------------------------------------------------------------- */

static bool is_second_page_same(struct cpu *cpu, const struct fetch *fetch,
                                const struct block *block)
{
    return !block->page2 || (atomic_load(&block->page2->generation) == block->generation2 &&
                             fetch_next_page(cpu, fetch) == block->hva2);
}

/* Drops dead blocks that it meets. */
static struct block *look_up(struct cpu *cpu, const struct fetch *fetch)
{
    struct block **link = bucket_of(cpu->blocks, fetch->hva, block_mode(cpu));
    while (*link) {
        struct block *block = *link;
        if (block->hva == fetch->hva && block->mode == block_mode(cpu)) {
            if (block_is_alive(block) && is_second_page_same(cpu, fetch, block))
                return block;
            *link = block->next;
        } else {
            link = &block->next;
        }
    }
    return NULL;
}

struct block *block_peek(struct cpu *cpu, const uint8_t *hva, uint32_t mode)
{
    struct block *block = *bucket_of(cpu->blocks, hva, mode);
    while (block && !(block->hva == hva && block->mode == mode && block_is_alive(block)))
        block = block->next;
    return block;
}

struct block *block_room_for(struct cpu *cpu, unsigned op_count, unsigned size_bytes)
{
    struct block_cache *cache = cpu->blocks;
    size_t all_bytes = sizeof(struct block) + op_count * sizeof(struct op) + size_bytes;
    all_bytes = (all_bytes + BLOCK_ALIGN - 1) & ~(size_t)(BLOCK_ALIGN - 1);
    if (ARENA_BYTES - cache->used_bytes < BLOCK_MAX_SIZE + all_bytes)
        return NULL;
    struct block *block = (struct block *)(void *)(cache->arena + cache->used_bytes);
    cache->used_bytes += all_bytes;
    return block;
}

static struct block *decode(struct cpu *cpu, const struct fetch *fetch)
{
    cpu->stats.block_misses++;
    struct block *block = decode_in_page(cpu, fetch);
    if (!block)
        block = decode_straddling(cpu, fetch);
    struct block **bucket = bucket_of(cpu->blocks, fetch->hva, block_mode(cpu));
    block->next = *bucket;
    *bucket = block;
    return block;
}

static void enter_jump(struct cpu *cpu, const struct fetch *fetch, struct block *block)
{
    struct jump_entry *entry = jump_slot(cpu, cpu->rip);
    tlb_note_code(cpu, fetch->linear);
    entry->tag = jump_tag(cpu, cpu->rip);
    entry->block = block;
}

struct block *block_find(struct cpu *cpu)
{
    cpu->op = NULL;
    cpu->stats.block_lookups++;
    struct fetch fetch = fetch_begin(cpu);
    bool has_breakpoint = debugger_fetch(cpu, fetch.linear);
    if (!fetch.hva)
        return decode_mmio(cpu, &fetch);
    struct block *block = look_up(cpu, &fetch);
    if (block && !debugger_allows(cpu, fetch.linear, block))
        block = NULL; /* decoded at another address, or when there was no breakpoint */
    if (block && fetch.is_cut && block->size_bytes > fetch.available)
        block = NULL; /* decoded where the limit of CS was higher */
    if (!block)
        block = decode(cpu, &fetch);
    bool is_past_limit =
        !cpu_is_64bit(cpu) && cpu->rip + block->size_bytes - 1 > cpu->segment[SEG_CS].limit;
    if (is_past_limit)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    bool can_jump = !block->page2 || block->is_translated;
    can_jump = can_jump && !has_breakpoint && !debug_breaks_in_page(cpu, fetch.linear);
    if (can_jump && !fetch.is_cut && !is_near_hole(cpu->rip))
        enter_jump(cpu, &fetch, block);
    return block;
}
