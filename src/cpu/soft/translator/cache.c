/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Generated code of one cpu: its memory (a memfd mapped twice, once to write, once to execute),
 * when blocks are translated, links between them, and what becomes of them when their code changes.
 *
 * Linked blocks don't look whether their target is alive. Instead, whoever makes a page's blocks
 * void requests REQUEST_VOID of all cpus; each block polls requests first, and the cpu then turns
 * the first instruction of its dead blocks into a jump out. Memory is taken from the start to the
 * end and given back as a whole, with all blocks.
 */
#include "cpu/soft/tlb.h"
#include "cpu/soft/translator/check.h"
#include "cpu/soft/translator/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DEFAULT_CODE_BYTES = 96 << 20, DEFAULT_THRESHOLD = 16, MIN_CODE_BYTES = 4 * UNIT_MAX_BYTES };
enum { CODE_PIECE_BYTES = 256 << 10 };

static bool map_code(struct translator *t, struct error *err)
{
    int fd = memfd_create("skep-code", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)t->size_bytes) != 0) {
        error_errno(err, "cannot create memory for translated code", NULL, errno);
        if (fd >= 0)
            close(fd);
        return false;
    }
    void *writable = mmap(NULL, t->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *executable = mmap(NULL, t->size_bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    close(fd);
    t->writable = writable == MAP_FAILED ? NULL : writable;
    t->executable = executable == MAP_FAILED ? NULL : executable;
    if (t->writable && t->executable)
        return true;
    error_errno(err, "cannot map memory for translated code", NULL, errno);
    error_hint(err, "a policy may forbid executable memory here; try translator=off");
    return false;
}

/* Where perf looks for the names of code without symbols; without it nothing is lost. */
static int open_perf_map(void)
{
    char path[64];
    snprintf(path, sizeof(path), "/tmp/perf-%ld.map", (long)getpid());
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void note_for_perf(struct translator *t, const uint8_t *code, size_t size_bytes,
                          const char *name)
{
    char line[96];
    if (t->perf_map < 0)
        return;
    int length =
        snprintf(line, sizeof(line), "%lx %zx %s\n", (unsigned long)code, size_bytes, name);
    if (write(t->perf_map, line, (size_t)length) == length)
        return;
    close(t->perf_map);
    t->perf_map = -1;
}

static void note_block(struct cpu *cpu, const uint8_t *code, size_t size_bytes)
{
    char name[48];
    snprintf(name, sizeof(name), "guest_%d_%llx", cpu->cpl, (unsigned long long)cpu->rip);
    note_for_perf(cpu->translator, code, size_bytes, name);
}

static void note_thunks(struct translator *t)
{
    const struct {
        const char *name;
        uint32_t from, to;
    } thunk[] = {
        {"skep_enter", t->enter, t->disarm},
        {"skep_disarm", t->disarm, t->arm},
        {"skep_arm", t->arm, t->leave},
        {"skep_leave", t->leave, t->lookup[CLASS_KERNEL]},
        {"skep_lookup", t->lookup[CLASS_KERNEL], t->handler},
        {"skep_handler", t->handler, t->movs[0]},
        {"skep_string", t->movs[0], t->unlinked},
        {"skep_unlinked", t->unlinked, t->far},
        {"skep_far", t->far, t->page_miss[PAGE_READ]},
        {"skep_page_miss", t->page_miss[PAGE_READ], (uint32_t)t->thunk_bytes},
    };
    for (unsigned i = 0; i < sizeof(thunk) / sizeof(thunk[0]); i++)
        note_for_perf(t, t->executable + thunk[i].from, thunk[i].to - thunk[i].from, thunk[i].name);
}

/* An empty one is that of RIP 0, which may be jumped to, too: there it is looked up. */
static void empty(struct cpu *cpu, struct code_target *target, unsigned count)
{
    const struct translator *t = cpu->translator;
    for (unsigned i = 0; i < count; i++)
        target[i] = (struct code_target){.rip = 0, .code = t->executable + t->zero};
}

static void forget_class(struct cpu *cpu, unsigned domain)
{
    empty(cpu, cpu->returns[domain], RETURN_ENTRIES);
    if (cpu->targets_used[domain])
        empty(cpu, cpu->targets[domain], TARGET_ENTRIES);
    cpu->targets_used[domain] = 0;
}

bool translator_open(struct cpu *cpu, struct error *err)
{
    const struct translator_options *options = &cpu->system->translator;
    if (!options->is_on)
        return true;
    struct translator *t = calloc(1, sizeof(*t));
    if (!t)
        return error_errno(err, "cannot make the translator", NULL, ENOMEM);
    cpu->translator = t;
    cpu->relink_budget = RELINK_BUDGET;
    t->size_bytes = options->code_bytes ? options->code_bytes : DEFAULT_CODE_BYTES;
    if (t->size_bytes < MIN_CODE_BYTES)
        t->size_bytes = MIN_CODE_BYTES;
    t->threshold = options->threshold ? options->threshold : DEFAULT_THRESHOLD;
    t->is_alone = options->is_check;
    t->perf_map = options->perf_map ? open_perf_map() : -1;
    if (!map_code(t, err) || (options->is_check && !check_open(cpu, err))) {
        translator_close(cpu);
        return false;
    }
    thunks_make(t);
    t->hot_pages = (struct pages){t->writable, t->cold_start, CODE_PIECE_BYTES, 0};
    t->cold_pages = (struct pages){t->writable + t->cold_start, t->size_bytes - t->cold_start,
                                   CODE_PIECE_BYTES, 0};
    note_thunks(t);
    for (unsigned domain = CLASS_KERNEL; domain < CLASS_OTHER; domain++) {
        cpu->targets_used[domain] = 1;
        forget_class(cpu, domain);
    }
    return true;
}

void translator_close(struct cpu *cpu)
{
    struct translator *t = cpu->translator;
    if (!t)
        return;
    check_close(cpu);
    if (t->writable)
        munmap(t->writable, t->size_bytes);
    if (t->executable)
        munmap((void *)(uintptr_t)t->executable, t->size_bytes);
    if (t->perf_map >= 0)
        close(t->perf_map);
    free(t);
    cpu->translator = NULL;
}

/* Code that may have been fetched was written through the other mapping: IRET serialises (SDM 3A
 * 8.1.3, 8.3). */
static void serialise(void)
{
    uint64_t ss, cs;
    __asm__ volatile("mov %%ss, %k0\n\t"
                     "mov %%cs, %k1\n\t"
                     "mov %%rsp, %%rcx\n\t"
                     "sub $128, %%rsp\n\t" /* the red zone */
                     "push %0\n\t"
                     "push %%rcx\n\t"
                     "pushfq\n\t"
                     "push %1\n\t"
                     "lea 1f(%%rip), %%rcx\n\t"
                     "push %%rcx\n\t"
                     "iretq\n"
                     "1:"
                     : "=&r"(ss), "=&r"(cs)
                     :
                     : "rcx", "cc", "memory");
}

const uint8_t *translator_cold_code(const struct cpu *cpu)
{
    const struct translator *t = cpu->translator;
    return t ? t->executable + t->leave : NULL;
}

/* Where there is 64-bit code only, what is of 32-bit code is forgotten once, with its pages. */
static void forget_32bit(struct cpu *cpu)
{
    if (!cpu->is_32bit_known)
        return;
    for (unsigned domain = CLASS_KERNEL32; domain <= CLASS_USER32; domain++) {
        forget_class(cpu, domain);
        tlb_forget_class(cpu, domain);
    }
    cpu->is_32bit_known = !cpu_is_64bit(cpu);
}

void translator_forget(struct cpu *cpu, bool is_upper)
{
    if (!cpu->translator)
        return;
    forget_class(cpu, is_upper ? CLASS_KERNEL : CLASS_USER);
    if (!is_upper)
        forget_32bit(cpu);
}

static void forget_all(struct cpu *cpu)
{
    translator_forget(cpu, true);
    translator_forget(cpu, false);
}

void translator_flush(struct cpu *cpu)
{
    struct translator *t = cpu->translator;
    if (!t)
        return;
    t->hot_bytes = t->thunk_bytes;
    t->cold_bytes = t->cold_start;
    memset(t->page, 0, sizeof(t->page));
    cpu->link_site = 0;
    forget_all(cpu);
    cpu->stats.code_flushes++;
    serialise();
}

/* --- void blocks -------------------------------------------------------------------------- */

static struct block **page_bucket(struct translator *t, const struct code_page *page)
{
    uint64_t hash = (uintptr_t)page * UINT64_C(0x9e3779b97f4a7c15);
    return &t->page[hash >> 52];
}

_Static_assert(PAGE_BUCKETS == 1 << 12, "page_bucket takes the top 12 bits");

static struct link_record record_at(const struct translator *t, uint32_t offset)
{
    struct link_record record;
    memcpy(&record, t->writable + offset, sizeof(record));
    return record;
}

static void record_store(struct translator *t, uint32_t offset, const struct link_record *record)
{
    memcpy(t->writable + offset, record, sizeof(*record));
}

/* Links from other pages lead to their stubs again. */
static void unlink_incoming(struct translator *t, struct block *block)
{
    for (uint32_t offset = block->incoming; offset;) {
        struct link_record record = record_at(t, offset);
        struct emitter e = {t->writable + record.site, t->writable + record.site + GUARD_BYTES};
        uint32_t next = record.next;
        emit_bind(emit_jmp(&e), t->writable + record.stub);
        record.next = 0;
        record.linked = NULL;
        record_store(t, offset, &record);
        offset = next;
    }
    block->incoming = 0;
}

/* Takes a link out of the list of the block that it leads to. */
static void forget_link(struct translator *t, uint32_t offset, const struct link_record *record)
{
    uint32_t at = record->linked->incoming;
    if (at == offset) {
        record->linked->incoming = record->next;
        return;
    }
    while (at) {
        struct link_record other = record_at(t, at);
        if (other.next == offset) {
            other.next = record->next;
            record_store(t, at, &other);
            return;
        }
        at = other.next;
    }
}

/* Behind the poll, where all jumps to the block come by, is now a jump out, to where the poll goes.
 */
static void make_unreachable(struct cpu *cpu, struct block *block)
{
    struct translator *t = cpu->translator;
    uint32_t offset = block->replaced ? block->replaced : (uint32_t)(block->code - t->executable);
    uint8_t *code = t->writable + offset;
    int32_t distance;
    memcpy(&distance, code + POLL_BYTES - 4, sizeof(distance));
    struct emitter e = {code + POLL_BYTES, code + POLL_BYTES + 5};
    const uint8_t *out = code + POLL_BYTES + distance;
    emit_bind(emit_jmp(&e), out);
    unlink_incoming(t, block);
    block->code = translator_cold_code(cpu);
    block->is_translated = false;
    block->is_refused = true;
    cpu->stats.blocks_voided++;
}

static void drop_dead(struct cpu *cpu, struct block **link)
{
    while (*link) {
        struct block *block = *link;
        if (block_is_alive(block)) {
            link = &block->page_next;
        } else {
            *link = block->page_next;
            make_unreachable(cpu, block);
        }
    }
}

void translator_serve(struct cpu *cpu)
{
    struct translator *t = cpu->translator;
    struct soft_system *system = cpu->system;
    struct code_page *page[SOFT_VOIDED];
    cpu_withdraw(cpu, REQUEST_VOID);
    cpu->link_site = 0;
    if (!t)
        return;
    forget_all(cpu);
    pthread_mutex_lock(&system->void_lock);
    uint64_t count = system->voided_count - t->voided_seen;
    for (unsigned i = 0; count <= SOFT_VOIDED && i < count; i++)
        page[i] = system->voided[(t->voided_seen + i) % SOFT_VOIDED];
    t->voided_seen = system->voided_count;
    pthread_mutex_unlock(&system->void_lock);
    if (count > SOFT_VOIDED)
        for (unsigned i = 0; i < PAGE_BUCKETS; i++)
            drop_dead(cpu, &t->page[i]);
    else
        for (unsigned i = 0; i < count; i++)
            drop_dead(cpu, page_bucket(t, page[i]));
    serialise();
}

/* --- running ------------------------------------------------------------------------------ */

static bool has_room(const struct translator *t)
{
    return t->cold_start - t->hot_bytes >= UNIT_MAX_BYTES &&
           t->size_bytes - t->cold_bytes >= UNIT_MAX_BYTES;
}

/* The block's former code goes on in the new. */
static void lead_over(struct translator *t, struct block *block)
{
    uint8_t *former = t->writable + block->replaced + POLL_BYTES;
    struct emitter e = {former, former + 5};
    emit_bind(emit_jmp(&e), t->writable + (block->code - t->executable));
    block->replaced = 0;
    serialise();
}

/* False: all blocks are gone, this one too. */
static bool translate_block(struct cpu *cpu, struct block *block)
{
    struct translator *t = cpu->translator;
    if (!has_room(t)) {
        block_cache_flush(cpu);
        return false;
    }
    struct unit *unit = &t->unit;
    pages_use(&t->hot_pages, t->hot_bytes + UNIT_MAX_BYTES);
    pages_use(&t->cold_pages, t->cold_bytes - t->cold_start + UNIT_MAX_BYTES);
    uint8_t *at = t->writable + t->hot_bytes, *cold = t->writable + t->cold_bytes;
    unit->cpu = cpu;
    unit->translator = t;
    trace_take(unit, block);
    unit->e = (struct emitter){at, at + UNIT_MAX_BYTES};
    unit->cold = (struct emitter){cold, cold + UNIT_MAX_BYTES};
    const uint8_t *code = translate(unit);
    if (!code && unit->block != block) {
        trace_take_alone(unit, block);
        unit->e.at = at;
        unit->cold.at = cold;
        code = translate(unit);
    }
    if (!code) {
        block->is_refused = true;
        return true;
    }
    t->hot_bytes += ((size_t)(unit->e.at - at) + 15) & ~(size_t)15;
    t->cold_bytes += (size_t)(unit->cold.at - cold);
    note_block(cpu, code, (size_t)(unit->e.at - at));
    note_block(cpu, t->executable + (cold - t->writable), (size_t)(unit->cold.at - cold));
    block->code = code;
    block->is_translated = true;
    block->host_bytes = (uint32_t)(unit->e.at - at);
    block->live_next = unit->live_next;
    block->live_taken = unit->live_taken;
    cpu->stats.blocks_translated++;
    if (block->replaced) {
        lead_over(t, block);
        return true;
    }
    struct block **bucket = page_bucket(t, block->page);
    block->page_next = *bucket;
    *bucket = block;
    return true;
}

/* The guard of a link to another page, whose jump goes to the block while the code runs at the same
 * RIP, in the same address space, as now: then the other page is the same, too. */
static void emit_guard(struct cpu *cpu, const struct link_record *record, const struct block *block)
{
    struct translator *t = cpu->translator;
    uint8_t *guard = t->writable + record->site, *stub = t->writable + record->stub;
    struct emitter e = {guard, guard + GUARD_BYTES};
    const uint64_t page_rip = cpu->gpr[GPR_PAGE_RIP];
    const uint64_t key = cpu->link_key[cpu->rip >> 63];
    EMIT(&e, 0x49, 0xbe); /* mov SCRATCH0, imm64 */
    emit64(&e, page_rip);
    emit_modrm(&e, 0x3b, 8, SCRATCH0, gpr_slot(GPR_PAGE_RIP)); /* cmp */
    emit_bind(emit_jcc(&e, CONDITION_NE), stub);
    const size_t at = offsetof(struct cpu, link_key) + (cpu->rip >> 63) * sizeof(key);
    emit_modrm(&e, 0x81 | EMIT_EXTENSION, 4, 7, rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS));
    emit32(&e, (uint32_t)key);
    emit_bind(emit_jcc(&e, CONDITION_NE), stub);
    emit_modrm(&e, 0x81 | EMIT_EXTENSION, mode_rip_bytes(block->mode), 0,
               rm_reg(SCRATCH0)); /* add */
    emit32(&e, (uint32_t)(cpu->rip - block->page_offset - page_rip));
    emit_store(&e, gpr_slot(GPR_PAGE_RIP), SCRATCH0);
    emit_bind(emit_jmp(&e), t->writable + (block->code - t->executable));
}

static void link_far(struct cpu *cpu, struct block *block, struct link_record *record)
{
    struct translator *t = cpu->translator;
    uint32_t offset = cpu->link_site;
    uint64_t target = cpu->gpr[GPR_PAGE_RIP] + (uint64_t)(int64_t)record->target;
    if (cpu->rip != (mode_is_64bit(record->mode) ? target : (uint32_t)target))
        return;
    emit_guard(cpu, record, block);
    if (record->linked)
        forget_link(t, offset, record);
    record->linked = block;
    record->next = block->incoming;
    block->incoming = offset;
    record_store(t, offset, record);
}

/* The jump that was left by goes to the block from now on. Inside of a page that does not depend on
 * where the page is mapped. A loop has a jump back, so only those need to poll. */
static void link_near(struct cpu *cpu, const struct block *block, const struct link_record *record)
{
    struct translator *t = cpu->translator;
    if (record->page != block->page || record->target != (int32_t)block->page_offset)
        return;
    const uint8_t *code = t->writable + (block->code - t->executable);
    emit_bind(t->writable + record->site, code + (record->is_forward ? POLL_BYTES : 0));
}

static void link_block(struct cpu *cpu, struct block *block)
{
    struct link_record record = record_at(cpu->translator, cpu->link_site);
    if (record.mode == block->mode) {
        if (record.is_far)
            link_far(cpu, block, &record);
        else
            link_near(cpu, block, &record);
        serialise();
        cpu->stats.links++;
    }
    cpu->link_site = 0;
}

/* What was looked up just now is what the guard of a straddling instruction looks for. */
static void renew_straddle_guard(struct cpu *cpu, const struct block *block)
{
    struct translator *t = cpu->translator;
    uint8_t *code = t->writable + (block->code - t->executable), *guard = code + POLL_BYTES;
    int32_t distance;
    memcpy(&distance, guard - 4, sizeof(distance));
    struct emitter e = {guard, guard + STRADDLE_GUARD_BYTES};
    emit_straddle_guard(&e, cpu, block, guard + distance);
    serialise();
}

enum readiness { READY, NOT_READY, GONE };

static enum readiness get_ready(struct cpu *cpu, struct block *block)
{
    if (block->is_translated)
        return READY;
    if (block->is_refused || !block->bytes)
        return NOT_READY;
    if (block->runs < cpu->translator->threshold && !cpu->system->translator.is_eager) {
        block->runs++;
        return NOT_READY;
    }
    if (!translate_block(cpu, block))
        return GONE;
    return block->is_translated ? READY : NOT_READY;
}

typedef void enter_fn(struct cpu *cpu, const uint8_t *code);

void translator_enter(struct cpu *cpu, struct block *block)
{
    const struct translator *t = cpu->translator;
    enter_fn *enter;
    const uint8_t *thunk = t->executable + t->enter;
    memcpy(&enter, &thunk, sizeof(enter));
    cpu->gpr[GPR_PAGE_RIP] = cpu->rip - block->page_offset;
    cpu->stats.translator_stays++;
    cpu->is_translated = true;
    enter(cpu, block->code + POLL_BYTES);
    cpu->is_translated = false;
}

bool translator_run(struct cpu *cpu, struct block *block)
{
    if (cpu->check)
        check_share(cpu);
    bool must_interpret = is_near_hole(cpu->rip) || cpu->interprets_next;
    enum readiness readiness = must_interpret ? NOT_READY : get_ready(cpu, block);
    cpu->interprets_next = 0;
    if (readiness != READY) {
        cpu->link_site = 0;
        return readiness == GONE; /* then it is found, or decoded, again */
    }
    if (block->page2)
        renew_straddle_guard(cpu, block);
    if (cpu->check) {
        check_block(cpu, block);
        return true;
    }
    if (cpu->link_site)
        link_block(cpu, block);
    translator_enter(cpu, block);
    return true;
}

enum { MAX_GROUP_FAILURES = 200, MAX_SLOT_FAILURES = 100, SLOT_USEFUL_TSC = 4000 };

/* The block is to be translated anew; until then its code may go on to run. */
static void translate_anew(struct cpu *cpu, struct block *block)
{
    block->is_translated = false;
    block->replaced = (uint32_t)(block->code - cpu->translator->executable);
    block->code = translator_cold_code(cpu);
    forget_all(cpu);
}

/* A slot whose page changes again within so little time, the way here and back included, costs more
 * than look-ups. */
static void fill_loop_slot(struct cpu *cpu, struct block *block, uint64_t linear, uintptr_t addend)
{
    struct loop_slot *slot = &cpu->loop_slot[0][cpu->missed_loop_slot - 1];
    uint64_t now = __builtin_ia32_rdtsc();
    if (!(cpu->rflags & RFLAGS_AC)) {
        slot->page = linear & PAGE_MASK;
        slot->addend = addend;
        cpu->page_slots_used = 1;
    }
    if (now - slot->filled_tsc > SLOT_USEFUL_TSC)
        block->slot_failures = 0;
    else if (block->is_translated && ++block->slot_failures == MAX_SLOT_FAILURES) {
        block->is_unslotted = true;
        translate_anew(cpu, block);
    }
    slot->filled_tsc = now;
}

uintptr_t translator_probe(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool is_write,
                           uint32_t op_offset)
{
    struct block *whole = block_of((const void *)(cpu->block_arena + op_offset));
    struct block *block = whole->head ? whole->head : whole;
    uintptr_t addend = tlb_probe(cpu, linear, size_bytes, is_write ? ACCESS_WRITE : ACCESS_READ);
    if (cpu->missed_loop_slot) {
        if (addend)
            fill_loop_slot(cpu, block, linear, addend);
        cpu->missed_loop_slot = 0;
        return addend;
    }
    if (addend != 0)
        return addend;
    cpu->stats.group_failures++;
    if (block->is_translated && ++block->group_failures == MAX_GROUP_FAILURES) {
        block->is_ungrouped = true;
        translate_anew(cpu, block);
    }
    return 0;
}

bool translator_handle(struct cpu *cpu, uint32_t op_offset)
{
    const struct op *op = (const void *)(cpu->block_arena + op_offset);
    struct block *block = block_of(op);
    cpu->block = block;
    cpu->op = op;
    cpu->gpr[GPR_BLOCK_RIP] = cpu->gpr[GPR_PAGE_RIP] + block->page_offset;
    cpu->rip = cpu_rip(cpu) + op->length;
    cpu->stats.handler_calls++;
    if (cpu->check)
        check_handler(cpu, op);
    op->fn(cpu, op);
    if (op + 1 == block->end || (op->flags & OP_ENDS_BLOCK))
        return false; /* the next block polls */
    bool leaves = atomic_load_explicit(&cpu->requests, memory_order_relaxed) & REQUEST_VOID;
    if (leaves && cpu->system->translator.has_counts)
        cpu->stats.instructions -= (uint64_t)(block->end - op - 1);
    return leaves;
}
