/* SPDX-License-Identifier: BSD-2-Clause
 * See trial.h. What was written is kept in lines of 64 bytes, found by their address. */
#include "cpu/soft/trial.h"

#include "cpu/soft/core.h"

#include <stdlib.h>

static void empty(struct tlb_entry *entries, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        entries[i].tag = TLB_INVALID_TAG;
}

struct trial *trial_create(void)
{
    struct trial *trial = calloc(1, sizeof(*trial));
    if (!trial)
        return NULL;
    empty(trial->no_entries.read, TLB_ENTRIES);
    empty(trial->no_entries.write, TLB_ENTRIES);
    empty(trial->no_entries.execute, TLB_EXECUTE_ENTRIES);
    for (unsigned view = 0; view < TLB_VIEWS; view++)
        trial->set.filled[view] = TLB_LOG_ENTRIES + 1;
    return trial;
}

void trial_destroy(struct trial *trial)
{
    free(trial);
}

static uint16_t *slot_of(struct trial *trial, const uint8_t *hva)
{
    uint64_t hash = ((uintptr_t)hva / TRIAL_LINE_BYTES) * UINT64_C(0x9e3779b97f4a7c15);
    for (uint64_t i = hash >> 40;; i++) {
        uint16_t *slot = &trial->slot[i % TRIAL_SLOTS];
        if (!*slot || trial->line[*slot - 1].hva == hva)
            return slot;
    }
}

void trial_forget(struct trial *trial)
{
    /* The last first: it was put where others were in its way. */
    while (trial->line_count > 0)
        *slot_of(trial, trial->line[--trial->line_count].hva) = 0;
}

void trial_rewind(struct trial *trial)
{
    for (unsigned i = 0; i < trial->line_count; i++)
        trial->line[i].written = 0;
}

void trial_begin(struct cpu *cpu, struct trial *trial)
{
    trial->seen = 0;
    tlb_set_empty(&trial->set);
    cpu->trial = trial;
    tlb_set_view(cpu, cpu->tlb_view);
}

void trial_end(struct cpu *cpu)
{
    cpu->trial = NULL;
    tlb_set_view(cpu, cpu->tlb_view);
}

static _Noreturn void give_up(struct cpu *cpu)
{
    siglongjmp(*cpu->trial->give_up, 1);
}

static uint8_t *line_start(const uint8_t *hva)
{
    return (uint8_t *)((uintptr_t)hva & ~(uintptr_t)(TRIAL_LINE_BYTES - 1));
}

static void read_line(struct trial *trial, const uint8_t *hva, uint8_t *buffer, unsigned size_bytes)
{
    uint8_t *start = line_start(hva);
    unsigned offset = (unsigned)(hva - start), number = *slot_of(trial, start);
    const struct trial_line *line = number ? &trial->line[number - 1] : NULL;
    for (unsigned i = 0; line && i < size_bytes; i++) {
        if (line->written >> (offset + i) & 1)
            buffer[i] = line->after[offset + i];
        else if (line->known >> (offset + i) & 1)
            buffer[i] = line->before[offset + i];
    }
}

static unsigned piece_of(const uint8_t *hva, unsigned size_bytes)
{
    unsigned left = TRIAL_LINE_BYTES - (unsigned)(hva - line_start(hva));
    return size_bytes < left ? size_bytes : left;
}

static void note_seen(struct trial *trial, const uint8_t *buffer, unsigned size_bytes)
{
    for (unsigned at = 0; at < size_bytes; at += 8) {
        uint64_t value = 0;
        memcpy(&value, buffer + at, size_bytes - at < 8 ? size_bytes - at : 8);
        trial->seen = (trial->seen ^ value) * UINT64_C(0x9e3779b97f4a7c15);
        trial->seen ^= trial->seen >> 32;
    }
}

/* As one access where that matters to whoever writes there at the same time. */
static void load(uint8_t *buffer, const uint8_t *hva, unsigned size_bytes)
{
    switch (size_bytes) {
    case 1: *buffer = *hva; break;
    case 2: memcpy(buffer, hva, 2); break;
    case 4: memcpy(buffer, hva, 4); break;
    case 8: memcpy(buffer, hva, 8); break;
    default: memcpy(buffer, hva, size_bytes);
    }
}

void trial_look(struct cpu *cpu, const uint8_t *hva, void *to, unsigned size_bytes)
{
    uint8_t *buffer = to;
    if (!hva)
        give_up(cpu);
    load(buffer, hva, size_bytes);
    for (unsigned at = 0; at < size_bytes;) {
        unsigned piece = piece_of(hva + at, size_bytes - at);
        read_line(cpu->trial, hva + at, buffer + at, piece);
        at += piece;
    }
}

/* What walks read is not noted: whether there are any depends on the TLB. */
void trial_read(struct cpu *cpu, const uint8_t *hva, uint8_t *buffer, unsigned size_bytes)
{
    trial_look(cpu, hva, buffer, size_bytes);
    note_seen(cpu->trial, buffer, size_bytes);
}

static void write_line(struct cpu *cpu, uint8_t *hva, const uint8_t *buffer, unsigned size_bytes)
{
    struct trial *trial = cpu->trial;
    uint8_t *start = line_start(hva);
    unsigned offset = (unsigned)(hva - start);
    uint16_t *slot = slot_of(trial, start);
    if (!*slot) {
        if (trial->line_count == TRIAL_LINES)
            give_up(cpu);
        trial->line[trial->line_count] = (struct trial_line){.hva = start};
        *slot = (uint16_t)++trial->line_count;
    }
    struct trial_line *line = &trial->line[*slot - 1];
    uint64_t bytes = (UINT64_MAX >> (64 - size_bytes)) << offset;
    for (unsigned i = offset; i < offset + size_bytes; i++)
        if (!(line->known >> i & 1))
            line->before[i] = start[i];
    memcpy(line->after + offset, buffer, size_bytes);
    memset(line->walked + offset, 0, size_bytes);
    line->known |= bytes;
    line->written |= bytes;
}

void trial_write(struct cpu *cpu, uint8_t *hva, const uint8_t *buffer, unsigned size_bytes)
{
    if (!hva)
        give_up(cpu);
    for (unsigned at = 0; at < size_bytes;) {
        unsigned piece = piece_of(hva + at, size_bytes - at);
        write_line(cpu, hva + at, buffer + at, piece);
        at += piece;
    }
}

void trial_mark(struct cpu *cpu, uint8_t *hva, uint64_t entry, uint64_t bits, unsigned size_bytes)
{
    uint8_t *start = line_start(hva);
    uint8_t walked[8];
    uint16_t number = *slot_of(cpu->trial, start);
    memset(walked, 0, sizeof(walked));
    if (number)
        memcpy(walked, cpu->trial->line[number - 1].walked + (hva - start), size_bytes);
    trial_write(cpu, hva, (const uint8_t *)&entry, size_bytes);
    struct trial_line *line = &cpu->trial->line[*slot_of(cpu->trial, start) - 1];
    for (unsigned i = 0; i < size_bytes; i++)
        line->walked[(hva - start) + i] = walked[i] | (uint8_t)(bits >> 8 * i);
}
