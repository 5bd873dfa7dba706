/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The software processor, as its own files see it: the state that handlers work on. Private to
 * cpu/soft. One thread runs a cpu; what other threads may touch is marked.
 *
 * Layout matters: generated code will address this structure, so what it uses most comes first.
 */
#ifndef SKEP_CPU_SOFT_CPU_H
#define SKEP_CPU_SOFT_CPU_H

#include "cpu/soft/system.h"
#include "cpu/state.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct op;
struct block;
struct debugger;
struct check;
struct trial;

/* More slots behind the sixteen registers, so that every address is base + index * scale + disp
 * with no test: one that is always zero, and RIP of the running block's first byte. Translated code
 * knows the latter only in its slow paths, and RIP of its page all the time. */
enum { GPR_ZERO = 16, GPR_BLOCK_RIP = 17, GPR_PAGE_RIP = 18, GPR_SLOTS = 19 };

/* The arithmetic flags are kept as LAHF and SETO leave them in AX: OF in bit 0, and the low byte
 * of RFLAGS (SF ZF AF PF CF) in bits 15:8. Handlers compute them with the host's own
 * instructions, so that undefined flags too are what a processor gives. */
enum {
    CC_OF = 1 << 0,
    CC_CF = 1 << 8,
    CC_PF = 1 << 10,
    CC_AF = 1 << 12,
    CC_ZF = 1 << 14,
    CC_SF = 1 << 15,
};

enum {
    RFLAGS_CF = 1 << 0,
    RFLAGS_PF = 1 << 2,
    RFLAGS_AF = 1 << 4,
    RFLAGS_ZF = 1 << 6,
    RFLAGS_SF = 1 << 7,
    RFLAGS_TF = 1 << 8,
    RFLAGS_IF = 1 << 9,
    RFLAGS_DF = 1 << 10,
    RFLAGS_OF = 1 << 11,
    RFLAGS_IOPL = 3 << 12,
    RFLAGS_NT = 1 << 14,
    RFLAGS_RF = 1 << 16,
    RFLAGS_VM = 1 << 17,
    RFLAGS_AC = 1 << 18,
    RFLAGS_VIF = 1 << 19,
    RFLAGS_VIP = 1 << 20,
    RFLAGS_ID = 1 << 21,
    RFLAGS_ARITHMETIC = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF,
};

enum x86_vector {
    VECTOR_DE = 0,
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_MC = 18,
    VECTOR_XM = 19,
    VECTOR_FIRST_EXTERNAL = 32, /* those below are the architecture's */
};

/* A page as the TLB knows it for one kind of access: the tag is its linear address, or 1 when the
 * entry is empty; the host address is linear + addend. */
struct tlb_entry {
    uint64_t tag;
    uintptr_t addend;
};

enum { TLB_ENTRIES = 2048, TLB_EXECUTE_ENTRIES = 512, TLB_INVALID_TAG = 1 };

/* One view of the TLB. Reads and writes have tables of their own, so that the two ends of a copy
 * never compete for a slot. A write entry is only of a page that is dirty in the guest's tables
 * and holds no code. */
struct tlb_tables {
    struct tlb_entry read[TLB_ENTRIES];
    struct tlb_entry write[TLB_ENTRIES];
    struct tlb_entry execute[TLB_EXECUTE_ENTRIES];
};

/* Further bits of a tag, which make the fast compare fail but spare the slow path a walk. With
 * TLB_MMIO_TAG the addend gives the guest-physical address; TLB_WATCH_TAG is of a page with data
 * breakpoints, the guest's or a debugger's. */
enum { TLB_CODE_TAG = 2, TLB_MMIO_TAG = 4, TLB_WATCH_TAG = 8 };

/* Which view an access uses; the active one is cpu->tlb (tlb.h). Supervisor accesses to user pages
 * depend on CR4.SMAP and RFLAGS.AC (SDM 3A 4.6.1). */
enum tlb_view { TLB_SUPERVISOR, TLB_SUPERVISOR_SMAP, TLB_USER, TLB_VIEWS };

/* Requests from other threads and from handlers, polled between blocks. */
enum {
    REQUEST_KICK = 1 << 0,
    REQUEST_INTR = 1 << 1, /* the level of INTR */
    REQUEST_NMI = 1 << 2,
    REQUEST_INIT = 1 << 3,
    REQUEST_SIPI = 1 << 4,
    REQUEST_SHOOTDOWN = 1 << 5,  /* drop write tags of a page that came to hold code */
    REQUEST_TRAP = 1 << 6,       /* single step or a shadow: see interrupt.c */
    REQUEST_NMI_AGAIN = 1 << 16, /* a second one, only beside REQUEST_NMI: see cpu_post_nmi() */
    REQUEST_VOID = 1 << 7,       /* translated code may have become void: see translator/ */
};

/* Code size and the other things that decoding depends on: part of a block's key. */
enum cpu_mode {
    MODE_16 = 0,
    MODE_32 = 1,
    MODE_64 = 2,
    MODE_SIZE_MASK = 3,
    MODE_STACK32 = 1 << 2, /* SS.B outside 64-bit mode */
    MODE_REAL = 1 << 3,    /* real or virtual-8086: CR0.PE = 0 or VM = 1 */
    MODE_USER = 1 << 4,    /* CPL 3 */
    MODE_FLAT = 1 << 5,    /* protected and compatibility mode: CS, and a 32-bit SS, DS and ES are
                              all 4 GiB */
    MODE_UPPER = 1 << 6,   /* of a block only: RIP is in the upper half of addresses */
};

/* The jump cache: the block at a linear RIP, with no walk and no look-up by physical address. A tag
 * is RIP's low 48 bits above cpu->jump_key, which holds the mode and an epoch of the address
 * space, so that a flush is a new epoch. The upper half of addresses has an epoch of its own, that
 * all address spaces share as long as its code is in global pages: see tlb.h. */
struct jump_entry {
    uint64_t tag;
    struct block *block;
};

enum { JUMP_ENTRIES = 65536, JUMP_MODE_BITS = 6, JUMP_EPOCHS = 1 << 10 };

/* Code that translated code may go to without a look into the jump cache: of the kernel in the
 * upper half of addresses, of user programs in the lower; and 32-bit code of flat segments. Other
 * code (a 64-bit kernel in the lower half, as while it boots; segments that are not flat) always
 * looks. */
enum code_class { CLASS_KERNEL, CLASS_USER, CLASS_KERNEL32, CLASS_USER32, CLASS_OTHER };

/* Where host code for a RIP is. Two caches of them: `returns`, filled by calls and found by RSP,
 * and `targets` of indirect jumps, found by RIP. They hold only what is right in the present
 * address space: whatever takes a new epoch or another address space empties them (tlb.c). */
struct code_target {
    uint64_t rip;
    const uint8_t *code;
};

enum { RETURN_ENTRIES = 256, TARGET_ENTRIES = 512 };

/* A page that accesses of translated code by RSP, RIP, FS or GS go to without a look-up in the TLB:
 * it is known to hit. Which slot an instruction uses is chosen when it is translated, so that those
 * that likely are on the same page share one. What changes the TLB forgets them all (tlb.c). */
enum { PAGE_SLOT_NONE = 0x800 };
struct page_slot {
    uint64_t page; /* its linear address; NONE is equal to no page, nor to one with low bits */
    uintptr_t addend;
};

/* Of a stack frame by distance from RSP, of pages that are read or written by RIP (in 32-bit code
 * by a displacement alone), of FS and GS. Slots but the second kind hold pages of which both reads
 * and writes hit. */
enum {
    STACK_SLOTS = 3,
    READ_SLOTS = 16,
    WRITE_SLOTS = 8,
    SEGMENT_SLOTS = 8,
    FIRST_READ_SLOT = STACK_SLOTS, /* the first of 64-bit code are in stack_slot */
    FIRST_WRITE_SLOT = FIRST_READ_SLOT + READ_SLOTS,
    FIRST_SEGMENT_SLOT = FIRST_WRITE_SLOT + WRITE_SLOTS,
    PAGE_SLOTS = FIRST_SEGMENT_SLOT + SEGMENT_SLOTS
};

/* The page that an instruction of a loop was at last, in one of a few slots that loops take in
 * turn. Where pages change all the time the loop is translated anew without. */
enum { LOOP_SLOTS = 16 };
struct loop_slot {
    uint64_t page;
    uintptr_t addend;
    uint64_t filled_tsc;
};

/* The offsets of a segment that may be the last byte of a read or a write go up to these; -1: none,
 * or it takes more than that to tell (a segment that expands down). Outside of 64-bit mode only. */
struct segment_bounds {
    int64_t read_last, write_last;
};

/* The vector registers; YMM halves together so that one host load moves a register. */
struct vector_register {
    _Alignas(32) uint8_t bytes[32];
};

struct cpu {
    uint64_t gpr[GPR_SLOTS];
    uint64_t rip;           /* of the next instruction, exact only between blocks: see cpu_rip() */
    struct tlb_tables *tlb; /* the view for data accesses at the present CPL and AC */
    _Atomic uint32_t requests; /* any thread */
    uint32_t armed;            /* what translated vector code may run: translator/vector.c */
    uint32_t x87_ready;        /* whether translated x87 code may run: translator/x87.c. Whatever
                                  may end that clears it */
    int32_t missed_slot;  /* between translated code and its thunk: distance from the registers */
    uint64_t link_key[2]; /* mode and epoch: of the lower and the upper half */
    uint64_t spill;       /* a word for translated code */
    uint16_t cc;          /* arithmetic flags */
    uint8_t cpl;
    uint8_t tlb_view;                            /* enum tlb_view of cpu->tlb */
    uint32_t interprets_next;                    /* translated code can't run the next block */
    struct page_slot stack_slot[2][STACK_SLOTS]; /* of CLASS_KERNEL and CLASS_USER */
    uintptr_t group[4];                          /* addends of accesses that are checked together */
    uint32_t missed_loop_slot;                   /* as missed_slot: its number from 1 */
    uint32_t page_slots_used;
    uint32_t mode;          /* enum cpu_mode bits */
    uint32_t link_site;     /* translated code left by this jump, see translator/cache.c */
    uint32_t relink_budget; /* failed guards of links until one is made anew */
    uint16_t jump_key[2];   /* link_key with the low bits of the epoch */
    const struct op *op;    /* the running one */
    struct block *block;    /* the running one */

    uint64_t rflags; /* without the arithmetic flags; bit 1 set */
    struct x86_segment segment[SEG_COUNT];
    struct segment_bounds bounds[SEG_GS + 1]; /* see cpu_update_segments() */
    uint64_t efer, cr0, cr2, cr3, cr4, xcr0;

    struct vector_register vector[16];
    uint32_t mxcsr;

    /* x87 and MMX: an FXSAVE image (64-bit form). While `x87_live`, the host's own x87 holds the
     * guest's state instead: see x87.c. */
    bool x87_live;
    _Alignas(64) uint8_t x87[512];
    uint64_t x87_rip, x87_rdp; /* of the last x87 instruction that is not a control one */
    uint32_t x87_fop;

    struct x86_table gdtr, idtr;
    uint64_t dr[8];
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, misc_enable, spec_ctrl, tsc_aux, tsc_adjust;
    uint64_t tsc_offset; /* guest TSC = host TSC + tsc_offset */
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t kvm_system_time, kvm_wall_clock, kvm_eoi;
    uint64_t debugctl;
    uint64_t mcg_status, mc_bank[X86_MC_BANKS][4]; /* CTL STATUS ADDR MISC */
    uint64_t pdpte[4]; /* of PAE paging, as they were when CR3 was loaded: SDM 3A 4.4.1 */
    uint32_t pkru;

    enum x86_run_state run_state;
    bool is_in_mwait;  /* HALTED, by MWAIT */
    bool wakes_masked; /* by an interrupt with IF = 0, too */
    bool nmi_blocked;
    bool interrupt_shadow;  /* STI or MOV SS: one instruction without interrupts */
    bool mov_ss_shadow;     /* MOV SS: debug traps and NMI wait too */
    bool is_stepping;       /* the running op is the only one of its block that runs now */
    bool traps;             /* a single-step trap is due after it */
    bool repeats_once;      /* a repeated string instruction stops after each element */
    bool steps_next;        /* the next instruction runs by itself, for its data breakpoint */
    bool checks_alignment;  /* CR0.AM, RFLAGS.AC and CPL 3: cpu->tlb has no entries then */
    uint8_t debug_armed;    /* kinds of enabled breakpoints: debug.h */
    uint32_t debug_hits;    /* bits of DR6, by the running instruction */
    uint32_t pending_debug; /* the same, of those that have completed */
    uint64_t watch_page[4], break_page[4]; /* pages with breakpoints; 1: none */
    bool triple_fault;
    uint32_t pauses;     /* PAUSE instructions executed */
    int16_t delivering;  /* the exception that is being delivered, -1: none */
    bool delivering_ext; /* the EXT bit of error codes meanwhile */
    uint64_t code_base;  /* of CS outside 64-bit mode, as the jump cache was filled with, */
    uint32_t code_limit; /* and its limit */
    /* What MONITOR has armed: a page, NULL for none, and its generation then. Own thread, but
     * others read the page. */
    _Atomic(struct code_page *) monitor_page;
    uint32_t monitor_generation;
    _Atomic uint8_t sipi_vector;

    /* Between threads, see code_page.c: whether run() is under way, and the page whose write tags
     * another processor wants dropped (1: all pages). */
    _Atomic bool is_running;
    _Atomic bool drop_all;
    _Atomic uintptr_t drop_page;
    /* How often write tags of logged pages were to be dropped, and have been: physical.c. */
    _Atomic uint32_t drop_logged_wanted, drop_logged_done;

    /* Delivery of exceptions: what to deliver after the jump back into the run loop, or to whoever
     * wants to see them first (NULL: nobody). */
    sigjmp_buf unwind;
    sigjmp_buf *catcher;
    struct x86_pending pending;

    _Alignas(64) uint8_t bounce[64]; /* for accesses that are MMIO or cross pages */
    struct bounce_target {
        uint8_t *hva; /* NULL: MMIO at gpa */
        uint64_t gpa;
        unsigned size_bytes;
    } bounce_target[2]; /* where memory_rmw_end writes it */

    struct soft_system *system;
    unsigned index;          /* of this vCPU */
    struct tlb_set *tlb_set; /* of the present address space; cpu->tlb is one of its views */
    struct tlb *tlb_all;
    struct block_cache *blocks;
    uint8_t *block_arena;            /* where they stand */
    struct vector_pool *vector_pool; /* host code stubs: vector/stub.c */
    struct translator *translator;   /* NULL: there is only the interpreter */
    struct debugger *debugger;       /* NULL: nobody debugs the guest from outside */
    struct engine_stats stats;
    struct check *check; /* translator=check, else NULL: translator/check.h */
    struct trial *trial; /* NULL unless the interpreter is on trial: trial.h */
    bool is_translated;  /* translated code is running, or a handler that it has called */
    bool is_32bit_known; /* 32-bit code may have entries in the next but two */
    uint32_t targets_used[CLASS_OTHER];
    struct page_slot page_slot[CLASS_OTHER][PAGE_SLOTS]; /* by enum code_class, as the next */
    struct loop_slot loop_slot[CLASS_OTHER][LOOP_SLOTS];
    struct code_target returns[CLASS_OTHER][RETURN_ENTRIES];
    struct code_target targets[CLASS_OTHER][TARGET_ENTRIES];
    struct jump_entry jump[JUMP_ENTRIES];
};

/* RIP of the running instruction. */
uint64_t cpu_rip(const struct cpu *cpu);

/* RFLAGS as the guest sees it, and back (all bits that exist; the caller masks). */
uint64_t cpu_get_rflags(const struct cpu *cpu);
void cpu_set_rflags(struct cpu *cpu, uint64_t rflags);

/* Ends the running instruction with an exception; RIP stays at it. Nothing that the guest could
 * see may have been changed by the handler yet, beyond what the manual allows (REP progress). */
_Noreturn void cpu_raise(struct cpu *cpu, enum x86_vector vector); /* no code */
_Noreturn void cpu_raise_code(struct cpu *cpu, enum x86_vector vector, uint32_t error_code);
_Noreturn void cpu_raise_page_fault(struct cpu *cpu, uint64_t linear, uint32_t error_code);

/* To be called after a change of CR0, CR4, EFER, CS, SS, CPL, RFLAGS.AC or VM: recomputes mode and
 * the TLB view. A handler that calls it ends its block. */
void cpu_update_mode(struct cpu *cpu);

/* The same after a change of another segment register, outside of 64-bit mode: recomputes
 * cpu->bounds and MODE_FLAT. cpu_update_mode() does so, too. */
void cpu_update_segments(struct cpu *cpu);

/* A repeated string instruction gives way: RIP stays at it, with RF when somebody could see it
 * (SDM 3B 17.3.1.1). */
void cpu_repeat_later(struct cpu *cpu);

/* PKRU gets a new value. */
void cpu_set_pkru(struct cpu *cpu, uint32_t pkru);

/* Whether RIP fits the address width of the mode and is canonical: #GP(0) unless. */
void cpu_jump(struct cpu *cpu, uint64_t rip, unsigned size_bytes);

static inline bool cpu_is_64bit(const struct cpu *cpu)
{
    return (cpu->mode & MODE_SIZE_MASK) == MODE_64;
}

/* Where code goes on behind its last instruction. EIP has 32 bits: in a segment of 4 GiB that is 0
 * behind the last byte. Handlers add up in 64 bits, and this comes after them. */
static inline uint64_t cpu_wrap_rip(const struct cpu *cpu, uint64_t rip)
{
    return cpu_is_64bit(cpu) ? rip : (uint32_t)rip;
}

#endif
