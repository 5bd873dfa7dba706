/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Superblocks: a block and those that mostly follow it in the same page, as one. They go on behind
 * a jump and where a conditional branch mostly went while the interpreter ran it; the other way is
 * an exit. So polls and jumps between them go, and flags, groups and slots are known across them.
 *
 * A superblock is a block of its own, which only the translator knows: it takes the first one's
 * place in host code, while the others may have code of their own.
 */
#include "cpu/soft/translator/internal.h"

enum { MAX_PARTS = 12, MIN_SEEN = 4 };

enum branch { BRANCH_NONE, BRANCH_JMP, BRANCH_JCC };

/* What ends a block: looked at in its bytes, since decoded ops don't tell. */
static enum branch branch_of(const uint8_t *bytes, unsigned length)
{
    unsigned i = 0;
    while (i < length && (bytes[i] == 0x2e || bytes[i] == 0x3e || bytes[i] == 0xf2))
        i++;
    if (i + 1 >= length)
        return BRANCH_NONE;
    if (bytes[i] == 0xeb || bytes[i] == 0xe9)
        return BRANCH_JMP;
    if ((bytes[i] & 0xf0) == 0x70 || (bytes[i] == 0x0f && (bytes[i + 1] & 0xf0) == 0x80))
        return BRANCH_JCC;
    return BRANCH_NONE;
}

static unsigned page_offset(const struct block *block)
{
    return (unsigned)block->page_offset;
}

/* Where control mostly went behind the block, from the page's start; -1: nowhere, or it varies. */
static int64_t next_offset(const struct block *block, enum follows *follows)
{
    const struct op *last = block->end - 1;
    int64_t behind = (int64_t)page_offset(block) + block->size_bytes;
    bool ends_soon = block->op_count > 1 && (last[-1].flags & OP_ENDS_SOON);
    *follows = FOLLOWS_BEHIND;
    if (!(last->flags & OP_ENDS_BLOCK))
        return ends_soon || (last->flags & OP_ENDS_SOON) ? -1 : behind;
    enum branch branch = branch_of(block->bytes + last->offset, last->length);
    unsigned straight = block->went[0], away = block->went[1];
    if (branch == BRANCH_JMP || (branch == BRANCH_JCC && away > 2 * straight))
        *follows = FOLLOWS_AWAY;
    if (branch == BRANCH_NONE)
        return -1;
    bool varies = straight + away < MIN_SEEN || (away <= 2 * straight && straight <= 2 * away);
    if (branch == BRANCH_JCC && varies)
        return -1;
    return *follows == FOLLOWS_AWAY ? behind + (int64_t)last->imm : behind;
}

static bool has_part(struct block *const *part, unsigned parts, const struct block *block)
{
    for (unsigned i = 0; i < parts; i++)
        if (part[i] == block)
            return true;
    return false;
}

/* Gives the number of parts; follows[i] is how part i + 1 comes behind part i. */
static unsigned find_parts(struct cpu *cpu, struct block *head, struct block **part,
                           enum follows *follows)
{
    const uint8_t *page = head->hva - page_offset(head);
    unsigned parts = 1, ops = head->op_count;
    part[0] = head;
    while (parts < MAX_PARTS) {
        int64_t offset = next_offset(part[parts - 1], &follows[parts - 1]);
        if (offset < 0 || offset >= PAGE_BYTES)
            break;
        struct block *next = block_peek(cpu, page + offset, head->mode);
        if (!next || !next->bytes || next->page2 || next->generation != head->generation ||
            has_part(part, parts, next) || ops + next->op_count > BLOCK_MAX_OPS)
            break;
        ops += next->op_count;
        part[parts++] = next;
    }
    return parts;
}

/* One op after another; addresses by RIP are relative to the first block now. */
static void join(struct block *whole, struct block *const *part, unsigned parts,
                 const enum follows *follows, struct unit *unit)
{
    uint8_t *bytes = (uint8_t *)(whole->op + whole->op_count);
    unsigned count = 0, at = 0;
    whole->bytes = bytes;
    for (unsigned p = 0; p < parts; p++) {
        int distance = (int)page_offset(part[p]) - (int)page_offset(part[0]);
        for (unsigned i = 0; i < part[p]->op_count; i++, count++) {
            struct op *op = &whole->op[count];
            *op = part[p]->op[i];
            op->number = (uint16_t)count;
            unit->bytes_at[count] = (uint16_t)(at + (unsigned)op->offset);
            op->offset = (int16_t)(op->offset + distance);
            if (op->base == GPR_BLOCK_RIP)
                op->disp += distance;
            unit->follows[count] = FOLLOWS_NONE;
        }
        if (p + 1 < parts)
            unit->follows[count - 1] = follows[p];
        memcpy(bytes + at, part[p]->bytes, part[p]->size_bytes);
        at += part[p]->size_bytes;
    }
    whole->end = whole->op + count;
    whole->size_bytes = 0; /* it has no end that the interpreter would ask for */
}

void trace_take_alone(struct unit *unit, struct block *block)
{
    unit_set_block(unit, block);
    for (unsigned i = 0; i < block->op_count; i++) {
        unit->bytes_at[i] = (uint16_t)block->op[i].offset;
        unit->follows[i] = FOLLOWS_NONE;
    }
}

void trace_take(struct unit *unit, struct block *block)
{
    struct block *part[MAX_PARTS];
    enum follows follows[MAX_PARTS];
    struct cpu *cpu = unit->cpu;
    trace_take_alone(unit, block);
    /* A debugger's breakpoints are where blocks begin: see debugger.h. */
    if (block->page2 || cpu->debugger || !mode_has_links(block->mode) ||
        unit->translator->is_alone || cpu->system->translator.has_counts)
        return;
    unsigned parts = find_parts(cpu, block, part, follows);
    if (parts == 1)
        return;
    unsigned ops = 0, bytes = 0;
    for (unsigned i = 0; i < parts; i++) {
        ops += part[i]->op_count;
        bytes += part[i]->size_bytes;
    }
    struct block *whole = block_room_for(cpu, ops, bytes);
    if (!whole)
        return;
    memcpy(whole, block, sizeof(*block));
    whole->head = block;
    whole->op_count = (uint16_t)ops;
    join(whole, part, parts, follows, unit);
    unit_set_block(unit, whole);
    cpu->stats.superblocks++;
}
