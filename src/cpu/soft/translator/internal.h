/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the files of cpu/soft/translator share. Generated code has the guest's registers in the
 * host's of the same name, but RSP in R12, RBP in R13, R12 in R10 and R13 in R11; R10, R11, R14 and
 * R15, which compilers use least, stay in struct cpu. RBP points into struct cpu, R14 and R15 are
 * scratch, RSP is the host's own.
 */
#ifndef SKEP_CPU_SOFT_TRANSLATOR_INTERNAL_H
#define SKEP_CPU_SOFT_TRANSLATOR_INTERNAL_H

#include "base/pages.h"
#include "cpu/soft/block.h"
#include "cpu/soft/translator/emit.h"
#include "cpu/soft/translator/translator.h"

#include <Zydis/Zydis.h>

enum {
    HOST_CPU = HOST_RBP,
    CPU_BIAS =
        208, /* HOST_CPU is that far into struct cpu: R10 to the groups have short distances */
    SCRATCH0 = HOST_R14,
    SCRATCH1 = HOST_R15,
};

static inline bool mode_is_64bit(uint32_t mode)
{
    return (mode & MODE_SIZE_MASK) == MODE_64;
}

/* Whether jumps may lead to code in the same page without a look at where that is mapped: else they
 * have to be compared with the limit of CS each time. */
static inline bool mode_has_links(uint32_t mode)
{
    return mode_is_64bit(mode) || (mode & MODE_FLAT);
}

/* What RIP is counted in. */
static inline unsigned mode_rip_bytes(uint32_t mode)
{
    return mode_is_64bit(mode) ? 8 : 4;
}

/* The host register of each guest register, HOST_NONE: it stays in memory. */
extern const uint8_t host_of[16];

#define CPU_FIELD(field) rm_mem(HOST_CPU, (int32_t)offsetof(struct cpu, field) - CPU_BIAS)

static inline struct rm gpr_slot(unsigned slot)
{
    return rm_mem(HOST_CPU, (int32_t)(offsetof(struct cpu, gpr) + slot * 8) - CPU_BIAS);
}

enum {
    UNIT_MAX_SLOW = 4 * BLOCK_MAX_OPS + 8,
    UNIT_MAX_EXITS = 2 * BLOCK_MAX_OPS + 8,
    UNIT_MAX_MISSES = 2,
    UNIT_MAX_BYTES = 64 << 10, /* of host code for a block: more than the longest takes */
    POLL_BYTES = 10,           /* at the start of each block */
    GUARD_BYTES = 49,          /* of a link to another page */
    STRADDLE_GUARD_BYTES = 64, /* at most, of a straddling instruction */
    RELINK_BUDGET = 64,        /* failed guards until one is made anew */
    MXCSR_DEFAULT = 0x1f80,
    ALL_FLAGS = RFLAGS_ARITHMETIC,
};

/* cpu->armed. */
enum { ARMED_SSE = 1, ARMED_AVX = 2 };

/* Where a superblock goes on behind an op that ends one of its parts. */
enum follows { FOLLOWS_NONE, FOLLOWS_BEHIND, FOLLOWS_AWAY };

struct unit;
typedef void emit_fn(struct unit *unit, const struct op *op);

/* What is known of an op. */
struct insn_facts {
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    emit_fn *emit;      /* NULL: by a call of its handler */
    uint16_t reads;     /* arithmetic flags as in RFLAGS that it depends on */
    uint16_t writes;    /* those that it surely overwrites */
    bool touches;       /* the emitted code changes the host's flags as the op does the guest's */
    uint16_t live;      /* flags that matter after it */
    unsigned form;      /* enum operand_form */
    uint16_t live_exit; /* at the other end of a branch inside of a superblock */
    uint8_t group;      /* number of its memory operand's in unit->group, from 1; 0: none */
    bool is_late;       /* the x87's pointer to its operand is stored when it is wanted: x87.c */
};

/* A jump out of the straight line to where the whole op is done by its handler. */
struct slow_path {
    uint8_t *from; /* distance to bind; NULL: nothing comes here */
    const struct op *op;
    unsigned ops;        /* so many, from that one on */
    uint8_t *back;       /* NULL: the op ends the block */
    bool restores_flags; /* the straight line has them in the host */
};

/* An access to a page other than that of its slot: looked up, and on in the straight line. */
struct page_miss {
    uint8_t *from[2]; /* the second may be NULL */
    const uint8_t *back;
    const struct op *op;
    struct rm address; /* in registers, */
    bool has_term;     /* or to be added to this: */
    struct rm term;
    const struct address *cut; /* not NULL: it is in SCRATCH0, and to be added to what is found */
    unsigned size_bytes;
    unsigned slot;
    bool is_loop; /* a loop slot */
    bool is_write;
    unsigned slow; /* where to go when the look-up fails */
};

/* The parts of an address: host registers, and what has to be fetched from struct cpu. */
struct address {
    uint8_t base, index, scale;
    int32_t disp;
    struct rm term[3]; /* added */
    unsigned terms;
    bool has_stored_index; /* the index is in struct cpu: `stored` */
    struct rm stored;
    /* Outside of 64-bit mode, unless the sum can be taken for the address as it is: */
    uint8_t cut_bytes; /* 4 or 2: the sum is cut to so many; 0: it isn't */
    bool is_segmented; /* then compared with the bounds of a segment, to whose base it is added */
    uint8_t segment;
};

/* Memory operands around one address, [lo, hi) from its registers, in straight code that changes
 * neither these nor the TLB: the first of them checks all. */
struct group {
    uint8_t base, index, scale, slot; /* slot: of cpu->group */
    bool is_write, is_open, is_checked;
    uint8_t count;
    int32_t lo, hi;
};

/* The check of a group has failed: out of line, asked again in C. */
struct group_miss {
    uint8_t *from;
    const uint8_t *back;
    const struct op *op;
    struct address address; /* of the group's first byte */
    const struct group *group;
};

/* A jump to code at a known distance. Inside the page it is linked to the block there; to another
 * page behind a guard, see emit_far_jump. */
struct exit_path {
    uint8_t *site;    /* distance of the jump to it */
    int64_t target;   /* from the start of the page */
    bool is_far;      /* `site` is that of the guard */
    bool is_jump;     /* not what comes next in memory */
    bool is_behind;   /* code of its own comes first: */
    bool saves_flags; /* this, */
    const struct op
        *checked;  /* and, unless NULL, a look whether this jump is in the limit of CS, */
    unsigned slow; /* or its slow path */
};

/* A target that is not in one of the caches. */
struct target_miss {
    uint8_t *from;
    int32_t rsp_distance; /* of a return: RSP moves by it */
    unsigned slow;        /* for a target that is not canonical */
};

/* The block under translation. */
struct unit {
    struct cpu *cpu;
    struct translator *translator;
    struct block *block;
    struct emitter e;
    struct emitter cold;  /* for what is rarely run */
    unsigned page_offset; /* of the block's first byte */
    const struct op *op;  /* under translation */
    struct insn_facts *facts;
    bool in_host, in_memory;        /* where live flags are */
    uint16_t live_taken, live_next; /* after the block: at a branch's target, behind it */
    enum code_class domain;
    bool is_64bit, has_links; /* of the mode, see above */
    uint8_t rip_bytes;        /* what RIP is counted in, outside of 64-bit mode when it jumps */
    uint8_t stack_bytes;      /* of the stack pointer */
    struct slow_path slow[UNIT_MAX_SLOW];
    unsigned slow_count;
    struct page_miss page_miss[UNIT_MAX_SLOW];
    unsigned page_miss_count;
    struct address cut[UNIT_MAX_SLOW]; /* what page_miss[] of the same number refers to */
    struct group group[BLOCK_MAX_OPS];
    unsigned group_count;
    struct group_miss group_miss[BLOCK_MAX_OPS];
    unsigned group_miss_count;
    struct exit_path exits[UNIT_MAX_EXITS];
    unsigned exit_count;
    struct target_miss misses[UNIT_MAX_MISSES];
    unsigned miss_count;
    uint8_t *return_address; /* of a call: distance of the code behind it, NULL: none */
    int64_t return_target;
    /* SCRATCH1 has been stored there just now, and nothing jumps to behind that. */
    const uint8_t *stored_at;
    unsigned stored_slot;
    bool is_loop;            /* it jumps to its own start, and takes loop slots */
    bool enables_interrupts; /* in its course: the next block polls */
    bool ends;               /* control has left the block */
    uint8_t align_mask;      /* of the next address check */
    unsigned vector_level;   /* what the block needs of cpu->armed */
    bool uses_x87;           /* it needs cpu->x87_ready */
    struct insn_facts fact[BLOCK_MAX_OPS];
    uint16_t bytes_at[BLOCK_MAX_OPS]; /* of each op, in block->bytes */
    uint8_t follows[BLOCK_MAX_OPS];   /* enum follows */
};

/* What stands behind the code that leaves by an exit: where the jump to it is. */
struct link_record {
    const struct code_page *page; /* of the jump, and of the target unless is_far */
    uint32_t site;                /* offset of the jump's distance, or of the guard */
    uint32_t stub;                /* offset of the code in front of this record */
    int32_t target;               /* from the start of the jump's page */
    uint32_t next;                /* of the links to the same block from other pages; 0: none */
    uint16_t mode;
    bool is_far, is_forward;
    struct block *linked; /* where it leads, when is_far */
};

enum { PAGE_BUCKETS = 4096 };

/* Which tables a page has to be in for a slot of both kinds, or of reads only. */
enum page_access { PAGE_READ, PAGE_WRITE, PAGE_READ_ONLY };

struct translator {
    uint8_t *writable;
    const uint8_t *executable;
    size_t size_bytes;
    size_t thunk_bytes, hot_bytes; /* used from the start */
    size_t cold_start, cold_bytes; /* and from there */
    struct pages hot_pages, cold_pages;
    /* Offsets of the thunks: thunks.c. */
    uint32_t enter, leave, disarm, arm, arm_x87, handler, last_handler, unlinked, far, zero;
    uint32_t movs[4], stos[4];        /* by the logarithm of the element's size */
    uint32_t lookup[CLASS_OTHER + 1]; /* by enum code_class */
    uint32_t page_miss[3];            /* by enum page_access */
    uint32_t group_miss[2];           /* and whether it is a write */
    unsigned threshold;
    unsigned next_loop_slot;
    bool is_alone; /* each block leaves to C, whatever comes next */
    uint64_t voided_seen;
    struct block *page[PAGE_BUCKETS];
    struct unit unit;
    int perf_map;
};

/* Behind the last op, from the page's start. */
static inline int64_t unit_end(const struct unit *unit)
{
    const struct op *last = unit->block->end - 1;
    return (int64_t)unit->page_offset + last->offset + last->length;
}

static inline const uint8_t *op_bytes(const struct unit *unit, const struct op *op)
{
    return unit->block->bytes + unit->bytes_at[op->number];
}

static inline uint8_t *thunk(const struct unit *unit, uint32_t offset)
{
    return unit->translator->writable + offset;
}

/* --- thunks.c: code that all blocks share ------------------------------------------------- */

void thunks_make(struct translator *translator);

/* --- analyse.c ---------------------------------------------------------------------------- */

/* Whether the instruction writes a general register, or a part of it. */
bool insn_writes(const struct insn_facts *facts, unsigned slot);

/* Fills unit->fact[], and live_taken and live_next. False: the bytes don't decode again. */
bool analyse(struct unit *unit);

/* --- trace.c ------------------------------------------------------------------------------ */

/* Makes `block`, or a superblock that begins with it, unit->block. */
void trace_take(struct unit *unit, struct block *block);
void trace_take_alone(struct unit *unit, struct block *block);

/* --- group.c ------------------------------------------------------------------------------ */

/* Finds the groups of the block's memory operands, when all facts are known. */
void group_find(struct unit *unit);

/* --- address.c: guest memory -------------------------------------------------------------- */

/* Whether the op's memory operand can be addressed by emitted code. */
bool address_is_simple(const struct unit *unit, const struct op *op);
/* Whether its address is a sum of its registers and a distance, as one of 64-bit mode. */
bool address_is_plain(const struct unit *unit, const struct op *op);
/* Whether the segment is one that begins at 0 and has no end. */
bool address_is_flat(const struct unit *unit, unsigned segment);

/* Emits the check of an access to op's memory operand. What it gives names the operand until
 * SCRATCH0 changes; SCRATCH1 is free. A miss goes to the op's slow path. Host flags are gone. */
struct rm address_check(struct unit *unit, const struct op *op, unsigned size_bytes,
                        enum memory_access access);
/* The same at a mapped guest register plus disp. */
struct rm address_check_at(struct unit *unit, unsigned guest_reg, int32_t disp, unsigned size_bytes,
                           enum memory_access access);
/* The same at the address that is in SCRATCH0. */
struct rm address_check_computed(struct unit *unit, unsigned size_bytes, enum memory_access access);
/* Behind the block: what the checks jump to when a page is not that of its slot. */
void address_emit_misses(struct unit *unit);
/* The operand's effective address, and its linear one. */
void address_effective(struct unit *unit, const struct op *op, unsigned to);
void address_linear(struct unit *unit, const struct op *op, unsigned to);
/* Whether a LEA of mapped registers gives it. */
bool address_is_direct(const struct unit *unit, const struct op *op, struct rm *rm);

/* --- translate.c -------------------------------------------------------------------------- */

/* Sets unit->block, and what is known of it by its place and mode. */
void unit_set_block(struct unit *unit, struct block *block);

/* Gives the host code of the block in unit->block; NULL: it was refused. */
const uint8_t *translate(struct unit *unit);

/* The code behind the poll of a block with page2, for cpu->rip; `fail` leaves to the block again.
 */
void emit_straddle_guard(struct emitter *e, const struct cpu *cpu, const struct block *block,
                         const uint8_t *fail);

/* `to` = RIP at a distance from the page's start, in 64 bits; and when a jump goes there: cut to
 * `size_bytes` outside of 64-bit mode. */
void emit_rip(struct unit *unit, unsigned to, int64_t offset);
void emit_jump_rip(struct unit *unit, unsigned to, int64_t offset, unsigned size_bytes);
/* Compares so that CONDITION_A holds when the RIP in SCRATCH0 is not one to jump to. Changes
 * SCRATCH1. False: it always is, and nothing was emitted. */
bool emit_target_compare(struct unit *unit);
/* As wide as the stack pointer; leaves flags alone. */
void emit_move_rsp(struct unit *unit, int32_t distance);

/* The flags that are live before the op that is under translation. */
uint16_t flags_live_before(const struct unit *unit);
/* Before code that changes the host's flags: saves the guest's if they matter. */
void flags_clobber(struct unit *unit);
/* Before code that needs the flags `needed` in the host. Changes SCRATCH1. */
void flags_need(struct unit *unit, uint16_t needed);
/* Before the host's own instruction runs for the guest's. */
void flags_before_native(struct unit *unit);
void flags_after_native(struct unit *unit);
/* Before leaving the block: `live` are in memory. Changes SCRATCH0. */
void flags_settle(struct unit *unit, uint16_t live);
/* cpu->targets has RIP in SCRATCH0 at this index, times eight, in SCRATCH1. */
void emit_target_index(struct emitter *e);
void emit_flags_save(struct emitter *e);
void emit_flags_restore(struct emitter *e);

/* A conditional jump to op's slow path; and a slow path whose jump is emitted later. */
void slow_if(struct unit *unit, unsigned condition);
void slow_at(struct unit *unit, uint8_t *from);
unsigned slow_later(struct unit *unit);
/* SCRATCH1 = the op's number, as translator_handle takes it. */
void emit_op_number(struct unit *unit, const struct op *op);
/* Leaves at the op, which the interpreter then runs. Flags that matter are in memory. */
void emit_leave_to_interpreter(struct unit *unit, const struct op *op);
/* Op's handler, then on in the block (or out of it when the op ends it). */
void emit_call_handler(struct unit *unit, const struct op *op);

/* --- integer.c, flow.c: the instructions -------------------------------------------------- */

emit_fn *integer_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts);
emit_fn *flow_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts);

emit_fn *bmi_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts);
emit_fn *string_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts);
emit_fn *system_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts);
/* Thunks of string.c, for elements of 1 << log bytes. */
void string_make_movs(struct emitter *e, unsigned log);
void string_make_stos(struct emitter *e, unsigned log);

emit_fn *vector_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts);

/* --- vector.c ----------------------------------------------------------------------------- */

/* Called by the arm thunk: sets cpu->armed, and the host's MXCSR to the guest's. Which parts of the
 * registers are to be loaded: ARMED_AVX is all, ARMED_SSE the lower halves, the upper ones being
 * zero or not in use. */
unsigned translator_arm(struct cpu *cpu);
bool vector_is_inline(const struct insn_facts *facts);
bool vector_may_disarm(const struct insn_facts *facts);
/* 0: only the x87 has to be ready. */
unsigned vector_level_of(const struct insn_facts *facts);
bool vector_uses_mmx(const struct insn_facts *facts);
/* Behind a call of C code: registers are in the host again, if the block uses any. */
void vector_rearm(struct unit *unit);

/* --- x87.c -------------------------------------------------------------------------------- */

emit_fn *x87_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts);
/* Called by the arm_x87 thunk: sets cpu->x87_ready if that can be. */
void translator_arm_x87(struct cpu *cpu);
/* Sets unit->uses_x87, when all facts are known. */
void x87_settle(struct unit *unit);
/* Behind a call of op's handler, with flags in memory: leaves the block if it can't go on. */
void x87_rearm(struct unit *unit, const struct op *op);
/* Before what may look at the pointers to the last x87 operation: those of the last one in front of
 * an op. Changes both scratch registers. */
void x87_emit_pointers(struct unit *unit, const struct op *before);

/* How many of the ops from i on are pushes or pops of registers that one check serves; 1: emit it
 * by itself. And code for so many. */
unsigned flow_run_length(const struct unit *unit, unsigned i);
void flow_emit_run(struct unit *unit, unsigned ops);

/* Called by the handler thunks: runs the op at an offset in the block arena. True: translated code
 * is to be left, cpu->rip says where to go on. */
bool translator_handle(struct cpu *cpu, uint32_t op_offset);
/* Called when the check of a group fails: the addend when it was only missing in the TLB. 0: the
 * interpreter is to run from the op on. */
uintptr_t translator_probe(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool is_write,
                           uint32_t op_offset);

/* Leaves to `target`, an offset from the page's start, where `live` flags matter: by a jump, or to
 * what comes next in memory. */
void emit_exit(struct unit *unit, int64_t target, uint16_t live);
void emit_exit_behind(struct unit *unit, int64_t target, uint16_t live);
/* The same when the condition holds; `op`: the jump that goes there, NULL: none. */
void emit_exit_if(struct unit *unit, unsigned condition, int64_t target, uint16_t live,
                  const struct op *op);
/* Condition number of Jcc, SETcc, CMOVcc: the opcode's low bits. */
static inline unsigned condition_of(const struct insn_facts *facts)
{
    return facts->info.opcode & 15;
}

/* The host register that holds op->reg[] `offset`, loaded into SCRATCH1 if it stays in memory and
 * `load`. reg_end stores it back if need be. Neither changes flags. */
unsigned reg_begin(struct unit *unit, unsigned offset, unsigned size_bytes, bool load);
void reg_end(struct unit *unit, unsigned offset, unsigned size_bytes);
/* As a source operand: register or slot. */
struct rm reg_rm(unsigned offset);

#endif
