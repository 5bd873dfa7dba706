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
#include "cpu/soft/translator/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DEFAULT_CODE_BYTES = 32 << 20, DEFAULT_THRESHOLD = 16, MIN_CODE_BYTES = 4 * UNIT_MAX_BYTES };

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

static void note_for_perf(struct translator *t, const struct cpu *cpu, const uint8_t *code,
                          size_t size_bytes)
{
    char line[96];
    if (t->perf_map < 0)
        return;
    int length = snprintf(line, sizeof(line), "%lx %zx guest_%d_%llx\n", (unsigned long)code,
                          size_bytes, cpu->cpl, (unsigned long long)cpu->rip);
    if (write(t->perf_map, line, (size_t)length) == length)
        return;
    close(t->perf_map);
    t->perf_map = -1;
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
    t->size_bytes = options->code_bytes ? options->code_bytes : DEFAULT_CODE_BYTES;
    if (t->size_bytes < MIN_CODE_BYTES)
        t->size_bytes = MIN_CODE_BYTES;
    t->threshold = options->threshold ? options->threshold : DEFAULT_THRESHOLD;
    t->perf_map = options->perf_map ? open_perf_map() : -1;
    if (!map_code(t, err)) {
        translator_close(cpu);
        return false;
    }
    thunks_make(t);
    return true;
}

void translator_close(struct cpu *cpu)
{
    struct translator *t = cpu->translator;
    if (!t)
        return;
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

void translator_flush(struct cpu *cpu)
{
    struct translator *t = cpu->translator;
    if (!t)
        return;
    t->used_bytes = t->thunk_bytes;
    memset(t->page, 0, sizeof(t->page));
    cpu->link_site = 0;
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

/* The jump out is where the poll at the start goes. */
static void make_unreachable(struct cpu *cpu, struct block *block)
{
    struct translator *t = cpu->translator;
    uint8_t *code = t->writable + (block->code - t->executable);
    int32_t distance;
    memcpy(&distance, code + POLL_BYTES - 4, sizeof(distance));
    struct emitter e = {code, code + POLL_BYTES};
    const uint8_t *out = code + POLL_BYTES + distance;
    emit_bind(emit_jmp(&e), out);
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
    return t->size_bytes - t->used_bytes >= UNIT_MAX_BYTES;
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
    uint8_t *at = t->writable + t->used_bytes;
    unit->cpu = cpu;
    unit->translator = t;
    unit->block = block;
    unit->e = (struct emitter){at, at + UNIT_MAX_BYTES};
    const uint8_t *code = translate(unit);
    if (!code) {
        block->is_refused = true;
        return true;
    }
    t->used_bytes += ((size_t)(unit->e.at - at) + 15) & ~(size_t)15;
    note_for_perf(t, cpu, code, (size_t)(unit->e.at - at));
    block->code = code;
    block->is_translated = true;
    struct block **bucket = page_bucket(t, block->page);
    block->page_next = *bucket;
    *bucket = block;
    cpu->stats.blocks_translated++;
    return true;
}

/* The jump that was left by goes to the block from now on, when that is of the same page: RIP may
 * have been mapped elsewhere meanwhile. */
static void link_block(struct cpu *cpu, const struct block *block)
{
    struct translator *t = cpu->translator;
    struct link_record record;
    memcpy(&record, t->writable + cpu->link_site, sizeof(record));
    cpu->link_site = 0;
    unsigned offset = (uintptr_t)block->hva & (PAGE_BYTES - 1);
    if (record.page != block->page || record.mode != block->mode || record.offset != offset)
        return;
    emit_bind(t->writable + record.site, t->writable + (block->code - t->executable));
    serialise();
    cpu->stats.links++;
}

enum readiness { READY, NOT_READY, GONE };

static enum readiness get_ready(struct cpu *cpu, struct block *block)
{
    if (block->is_translated)
        return READY;
    if (block->is_refused || !block->bytes || (block->mode & MODE_SIZE_MASK) != MODE_64)
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

bool translator_run(struct cpu *cpu, struct block *block)
{
    const struct translator *t = cpu->translator;
    bool must_interpret = is_near_hole(cpu->rip) || cpu->interprets_next;
    enum readiness readiness = must_interpret ? NOT_READY : get_ready(cpu, block);
    cpu->interprets_next = 0;
    if (readiness != READY) {
        cpu->link_site = 0;
        return readiness == GONE; /* then it is found, or decoded, again */
    }
    if (cpu->link_site)
        link_block(cpu, block);
    enter_fn *enter;
    const uint8_t *thunk = t->executable + t->enter;
    memcpy(&enter, &thunk, sizeof(enter));
    cpu->gpr[GPR_PAGE_RIP] = cpu->rip & PAGE_MASK;
    cpu->stats.translator_stays++;
    enter(cpu, block->code + POLL_BYTES);
    return true;
}
