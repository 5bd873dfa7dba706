/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the core of the software processor offers to its embedder (engine.c, tests): making a cpu,
 * running it, its state. And what the core's own files share. Private to cpu/soft.
 */
#ifndef SKEP_CPU_SOFT_CORE_H
#define SKEP_CPU_SOFT_CORE_H

#include "base/error.h"
#include "cpu/soft/cpu.h"
#include "cpu/soft/memory.h"
#include "cpu/soft/op.h"

/* --- for the embedder: cpu.c, run.c --------------------------------------------------------- */

/* Makes processor `index` of the system, in the state after RESET, and enters it in system->cpu.
 * NULL and `err` when memory is short. */
struct cpu *cpu_create(struct soft_system *system, unsigned index, struct error *err);
void cpu_destroy(struct cpu *cpu);

/* Never while cpu_run is under way. set_state is false when the state is none a processor can be
 * in; the cpu is unchanged then. cr8, apic_base and tsc_deadline are not the cpu's. */
void cpu_get_state(struct cpu *cpu, struct x86_state *state);
bool cpu_set_state(struct cpu *cpu, const struct x86_state *state);

/* DEBUG: debugger.h tells what of its wishes has happened. FAILED, then and ever after: see
 * check_failure. */
enum cpu_exit { CPU_KICKED, CPU_HALTED, CPU_SHUTDOWN, CPU_DEBUG, CPU_FAILED };
enum cpu_exit cpu_run(struct cpu *cpu);

/* Any thread. */
void cpu_request(struct cpu *cpu, uint32_t request);
void cpu_withdraw(struct cpu *cpu, uint32_t request);
bool cpu_has_work(struct cpu *cpu);

/* --- control bits --------------------------------------------------------------------------- */

#define CR0_PE UINT64_C(0x1)
#define CR0_MP UINT64_C(0x2)
#define CR0_EM UINT64_C(0x4)
#define CR0_TS UINT64_C(0x8)
#define CR0_ET UINT64_C(0x10)
#define CR0_NE UINT64_C(0x20)
#define CR0_WP UINT64_C(0x10000)
#define CR0_AM UINT64_C(0x40000)
#define CR0_NW UINT64_C(0x20000000)
#define CR0_CD UINT64_C(0x40000000)
#define CR0_PG UINT64_C(0x80000000)

#define CR4_VME        UINT64_C(0x1)
#define CR4_PVI        UINT64_C(0x2)
#define CR4_TSD        UINT64_C(0x4)
#define CR4_DE         UINT64_C(0x8)
#define CR4_PSE        UINT64_C(0x10)
#define CR4_PAE        UINT64_C(0x20)
#define CR4_MCE        UINT64_C(0x40)
#define CR4_PGE        UINT64_C(0x80)
#define CR4_PCE        UINT64_C(0x100)
#define CR4_OSFXSR     UINT64_C(0x200)
#define CR4_OSXMMEXCPT UINT64_C(0x400)
#define CR4_UMIP       UINT64_C(0x800)
#define CR4_FSGSBASE   UINT64_C(0x10000)
#define CR4_PCIDE      UINT64_C(0x20000)
#define CR4_OSXSAVE    UINT64_C(0x40000)
#define CR4_SMEP       UINT64_C(0x100000)
#define CR4_SMAP       UINT64_C(0x200000)
#define CR4_PKE        UINT64_C(0x400000)

#define EFER_SCE UINT64_C(0x1)
#define EFER_LME UINT64_C(0x100)
#define EFER_LMA UINT64_C(0x400)
#define EFER_NXE UINT64_C(0x800)

enum { PAGE_BYTES = 4096, PAGE_SHIFT = 12 };
#define PAGE_MASK (~UINT64_C(0xfff))

static inline bool is_canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

static inline bool is_long_mode(const struct cpu *cpu)
{
    return cpu->efer & EFER_LMA;
}

/* Real and virtual-8086 mode: segments are selectors times sixteen. */
static inline bool is_real_mode(const struct cpu *cpu)
{
    return cpu->mode & MODE_REAL;
}

/* #GP(0) unless CPL is 0. */
static inline void require_cpl0(struct cpu *cpu)
{
    if (__builtin_expect(cpu->cpl != 0, 0))
        cpu_raise_code(cpu, VECTOR_GP, 0);
}

/* The data view at the present CPL, and that of implicit supervisor accesses. */
static inline enum tlb_view view_supervisor(const struct cpu *cpu)
{
    return cpu->cr4 & CR4_SMAP ? TLB_SUPERVISOR_SMAP : TLB_SUPERVISOR;
}

static inline enum tlb_view view_data(const struct cpu *cpu)
{
    if (cpu->cpl == 3)
        return TLB_USER;
    return cpu->rflags & RFLAGS_AC ? TLB_SUPERVISOR : view_supervisor(cpu);
}

/* Makes the run loop look at the cpu's state before the next block. Own thread. */
static inline void cpu_look(struct cpu *cpu)
{
    cpu_request(cpu, REQUEST_TRAP);
}

/* --- cpu.c ---------------------------------------------------------------------------------- */

void cpu_reset(struct cpu *cpu); /* RESET; vector units too */
void cpu_init(struct cpu *cpu);  /* INIT: SDM 3A table 9-1 */

/* The TLB view, after a change of CPL, RFLAGS.AC, CR0.AM or CR4.SMAP. */
void cpu_update_view(struct cpu *cpu);

/* code_page.c: does what other processors have asked for with REQUEST_SHOOTDOWN. */
void code_page_serve(struct cpu *cpu);

/* After a write that a device has got: it may have changed what is memory. */
static inline void memory_settle(struct cpu *cpu)
{
    if (__builtin_expect(
            atomic_load_explicit(&cpu->requests, memory_order_relaxed) & REQUEST_SHOOTDOWN, 0))
        code_page_serve(cpu);
}

/* code_page.c: [hva, hva + size) in RAM was just written by `cpu` the slow way. */
void code_page_written(struct cpu *cpu, const uint8_t *hva, unsigned size_bytes);

/* --- segment.c ------------------------------------------------------------------------------ */

/* A descriptor's two doublewords, base and attributes taken apart. */
struct descriptor {
    uint64_t base;
    uint32_t limit;      /* in bytes, granularity applied */
    uint32_t attributes; /* as in x86_segment */
    uint64_t linear;     /* where it stands, to set the accessed bit */
    uint64_t raw;
};

enum {
    SELECTOR_RPL = 3,
    SELECTOR_TI = 4,
    SELECTOR_INDEX = 0xfff8,
};

static inline unsigned segment_dpl(uint32_t attributes)
{
    return attributes >> SEGMENT_DPL_SHIFT & 3;
}

enum {
    TYPE_ACCESSED = 1,
    TYPE_WRITABLE = 2,
    TYPE_READABLE = 2,
    TYPE_CONFORMING = 4,
    TYPE_EXPAND_DOWN = 4,
    TYPE_CODE = 8
};

/* System types (S = 0). Bit 3 tells 32-bit TSSs and gates from 16-bit ones. */
enum { TSS_IS_32BIT = 8, TYPE_GATE_IS_32BIT = 8 };

enum {
    TYPE_TSS16 = 1,
    TYPE_LDT = 2,
    TYPE_TSS16_BUSY = 3,
    TYPE_CALL_GATE16 = 4,
    TYPE_TASK_GATE = 5,
    TYPE_INTERRUPT_GATE16 = 6,
    TYPE_TRAP_GATE16 = 7,
    TYPE_TSS32 = 9,
    TYPE_TSS32_BUSY = 11,
    TYPE_CALL_GATE32 = 12,
    TYPE_INTERRUPT_GATE32 = 14,
    TYPE_TRAP_GATE32 = 15
};

/* False: outside of its table (or null LDT). The selector's RPL is ignored; null is not special. */
bool descriptor_find(struct cpu *cpu, uint16_t selector, struct descriptor *descriptor);
/* The same, raising `vector` with the selector as error code. */
void descriptor_read(struct cpu *cpu, uint16_t selector, struct descriptor *descriptor,
                     enum x86_vector vector);
void descriptor_set_accessed(struct cpu *cpu, struct descriptor *descriptor);
/* The upper half of the base of a 16-byte system descriptor. */
void descriptor_read_upper(struct cpu *cpu, uint16_t selector, struct descriptor *descriptor,
                           enum x86_vector vector);

/* For cpu->bounds. */
struct segment_bounds segment_bounds_of(const struct x86_segment *segment, bool is_real);

/* MOV, POP, LxS: all checks. Real mode too. SEG_CS is not for it. */
void segment_load(struct cpu *cpu, enum x86_segment_name name, uint16_t selector);
/* Fills the register, no checks. */
void segment_set(struct cpu *cpu, enum x86_segment_name name, uint16_t selector,
                 const struct descriptor *descriptor);
void segment_set_null(struct cpu *cpu, enum x86_segment_name name, uint16_t selector);
void segment_set_real(struct cpu *cpu, enum x86_segment_name name, uint16_t selector);
/* On a return to an outer level: data segments that the new CPL may not use become null. */
void segment_drop_privileged(struct cpu *cpu);

/* A data segment other than SS of protected mode; raises `vector` for what is no #NP. */
void segment_load_data(struct cpu *cpu, enum x86_segment_name name, uint16_t selector,
                       enum x86_vector vector);

void segment_load_ldt(struct cpu *cpu, uint16_t selector);
void segment_load_task(struct cpu *cpu, uint16_t selector);

/* Checks a stack segment for privilege level `cpl`; raises `vector`. `is_null_allowed`: long mode.
 */
void segment_check_stack(struct cpu *cpu, uint16_t selector, unsigned cpl, enum x86_vector vector,
                         struct descriptor *descriptor);

/* Raises with the selector as error code, RPL replaced by the EXT bit. */
_Noreturn void raise_selector(struct cpu *cpu, enum x86_vector vector, uint16_t selector);
_Noreturn void raise_zero(struct cpu *cpu, enum x86_vector vector); /* 0 and EXT */

/* SP, RSP or ESP according to the stack's size. */
uint64_t stack_mask_of(const struct cpu *cpu);
void stack_set_pointer(struct cpu *cpu, uint64_t value);
/* Pushes values in order, all or none. */
void stack_push_all(struct cpu *cpu, const uint64_t *values, unsigned count, unsigned size_bytes);
/* The value `index` places above the top, left there. */
uint64_t stack_peek(struct cpu *cpu, unsigned index, unsigned size_bytes);

/* --- cpu.c: NMI ----------------------------------------------------------------------------- */

void cpu_post_nmi(struct cpu *cpu); /* any thread */
void cpu_take_nmi(struct cpu *cpu); /* the run loop delivers one: NMIs are blocked until IRET */
void cpu_unblock_nmi(struct cpu *cpu);

/* --- stack_switch.c ------------------------------------------------------------------------- */

/* A stack to push on that is not loaded yet. */
struct stack_switch {
    struct x86_segment segment;
    uint64_t pointer;
    unsigned cpl; /* whose rights pushes have */
    bool is_inner;
};

/* The present stack, and that of an inner level as the TSS has it (outside long mode; #TS, #SS). */
void stack_switch_none(struct cpu *cpu, struct stack_switch *stack);
void stack_switch_inner(struct cpu *cpu, unsigned cpl, struct stack_switch *stack);
/* #SS unless there is room for so many bytes. */
void stack_switch_require(struct cpu *cpu, const struct stack_switch *stack, unsigned size_bytes);
void stack_switch_push(struct cpu *cpu, struct stack_switch *stack, uint64_t value,
                       unsigned size_bytes);
/* Loads SS and RSP. */
void stack_switch_commit(struct cpu *cpu, const struct stack_switch *stack);
/* Bytes of the TSS; #TS beyond its limit. */
void task_read(struct cpu *cpu, unsigned offset, void *buffer, unsigned size_bytes);

/* --- far.c, gate.c, task.c ------------------------------------------------------------------- */

bool bind_far(const struct insn *insn, struct op *op);

/* Far JMP or CALL through a call gate whose type, DPL and P are good. Sets RIP. */
void gate_transfer(struct cpu *cpu, const struct op *op, uint16_t selector,
                   const struct descriptor *descriptor, bool is_call);
/* The same to a TSS, or through a task gate. */
void task_transfer(struct cpu *cpu, const struct op *op, uint16_t selector,
                   const struct descriptor *descriptor, bool is_call);
/* The IDT has a task gate for the event; `selector` is the gate's, the rest what a frame would
 * have. */
void task_interrupt(struct cpu *cpu, uint16_t selector, uint64_t rip, uint64_t flags,
                    const uint32_t *error_code);
/* IRET with NT set. */
void task_return(struct cpu *cpu, const struct op *op);

/* --- v86.c ---------------------------------------------------------------------------------- */

void v86_set_segment(struct cpu *cpu, enum x86_segment_name name, uint16_t selector);
/* IRET at level 0 with VM in the image. */
void v86_enter(struct cpu *cpu);
/* What POPF and IRET of virtual-8086 mode load, by IOPL and CR4.VME; adjusts *mask. #GP(0) when
 * they may not. And what PUSHF and INT n push. */
uint64_t v86_popped_flags(struct cpu *cpu, uint64_t flags, uint64_t *mask, unsigned size_bytes);
uint64_t v86_pushed_flags(struct cpu *cpu, uint64_t flags, unsigned size_bytes);
/* INT n of virtual-8086 mode: true when it was the 8086 program's and is done, false when it goes
 * through the IDT; #GP(0) else. */
bool v86_int_n(struct cpu *cpu, const struct op *op, uint8_t vector);

/* What no guest is known to need: #GP(code) with a log line that names the feature. */
_Noreturn void cpu_raise_missing(struct cpu *cpu, const char *feature, uint32_t error_code);

/* --- interrupt.c ---------------------------------------------------------------------------- */

enum event_kind {
    EVENT_EXCEPTION,
    EVENT_EXTERNAL, /* INTR, NMI */
    EVENT_SOFTWARE, /* INT n, INT3, INTO: RIP is that of the next instruction */
    EVENT_INT1,
};

/* Goes through the IDT; pushes return_rip, and the error code unless NULL. Raises what goes wrong
 * on the way; nothing but the stack's memory has changed then. */
void interrupt_deliver(struct cpu *cpu, unsigned vector, enum event_kind kind, uint64_t return_rip,
                       const uint32_t *error_code);
/* Delivers cpu->pending, with the rules of double and triple faults; sets triple_fault. */
void interrupt_deliver_pending(struct cpu *cpu);
/* cpu->pending was raised while the event `first` was delivered: what becomes of the two. */
void interrupt_merge(struct cpu *cpu, int first);
enum { DELIVERING_NONE = -1, DELIVERING_BENIGN = 256 };

/* --- bind functions of the system instructions' files --------------------------------------- */

bool bind_control(const struct insn *insn, struct op *op);   /* control.c */
bool bind_flags(const struct insn *insn, struct op *op);     /* flags.c */
bool bind_io(const struct insn *insn, struct op *op);        /* io.c */
bool bind_msr(const struct insn *insn, struct op *op);       /* msr.c */
bool bind_syscall(const struct insn *insn, struct op *op);   /* syscall.c */
bool bind_selector(const struct insn *insn, struct op *op);  /* selector.c */
bool bind_interrupt(const struct insn *insn, struct op *op); /* interrupt.c: INT n, IRET */
bool bind_cpuid(const struct insn *insn, struct op *op);     /* cpuid.c */
bool bind_hypercall(const struct insn *insn, struct op *op); /* hypercall.c */
bool bind_monitor(const struct insn *insn, struct op *op);   /* monitor.c */

/* Operands of system instructions: register or memory. */
uint64_t operand_read(struct cpu *cpu, const struct op *op, unsigned operand, unsigned size_bytes);
void operand_write(struct cpu *cpu, const struct op *op, uint64_t value, unsigned size_bytes);
void register_write(struct cpu *cpu, uint8_t offset, uint64_t value, unsigned size_bytes);

/* In op->flags of the core's own ops: the operand is in memory. */
enum { OP_IN_MEMORY = 1 << 14 };

/* RFLAGS as POPF and IRET may change it: of the bits in `mask`, keeping the others. Asks the run
 * loop to look when an interrupt or a trap may be due. */
void flags_load(struct cpu *cpu, uint64_t value, uint64_t mask);
/* IF is set now, or a shadow begun: look before the next block. */
void flags_begin_shadow(struct cpu *cpu, bool by_mov_ss);

/* --- monitor.c ------------------------------------------------------------------------------ */

enum { MONITOR_LINE_BYTES = 64 };

/* Whether a processor that MWAIT has halted goes on: its line was written, or there is such an
 * interrupt as it was to wake by though interrupts are off. */
bool monitor_wakes(const struct cpu *cpu, uint32_t requests);
/* Nothing is monitored, and nobody waits for it. */
void monitor_disarm(struct cpu *cpu);
/* The processor runs: HLT or MWAIT is over, if it was in one, and the latter's monitor with it. */
static inline void monitor_end_halt(struct cpu *cpu)
{
    cpu->run_state = X86_RUNNING;
    if (cpu->is_in_mwait)
        monitor_disarm(cpu);
}
/* The page has a new generation: tells the embedder of those that monitor it. Any thread. */
void monitor_tell(struct soft_system *system, const struct code_page *page);

/* --- msr.c, control.c, cpuid.c, tsc.c, kvmclock.c -------------------------------------------- */

bool msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value);
bool msr_write(struct cpu *cpu, uint32_t msr, uint64_t value);

void control_write_cr3(struct cpu *cpu, uint64_t value); /* as MOV to CR3 does */

struct cpuid_result {
    uint32_t eax, ebx, ecx, edx;
};
struct cpuid_result cpuid_leaf(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf);
/* Bits of physical addresses past MAXPHYADDR. */
static inline uint64_t physical_excess(const struct cpu *cpu)
{
    return ~((UINT64_C(1) << cpu->system->features.physical_bits) - 1);
}
/* Whether MONITOR and MWAIT are offered, which IA32_MISC_ENABLE decides. */
bool cpuid_has_monitor(const struct cpu *cpu);
/* CR4 bits that the features offered allow. */
uint64_t cpuid_cr4_allowed(const struct cpu *cpu);
void cpuid_open(struct soft_system *system); /* fills system->features */

uint64_t tsc_host(const struct soft_system *system);
uint64_t tsc_guest(const struct cpu *cpu);
/* RDTSC gives what tsc_host does while the machine runs. */
static inline bool tsc_is_host(const struct soft_system *system)
{
    return !system->tsc_is_synthetic && !system->tsc_ratio;
}
#define TSC_MIN_HZ UINT64_C(1000000)
#define TSC_MAX_HZ UINT64_C(100000000000)
void tsc_open(struct soft_system *system, uint64_t hz); /* sets tsc_khz; hz 0: as the host's */
void tsc_set_state(struct cpu *cpu, uint64_t tsc, uint64_t adjust);
void tsc_stop(struct soft_system *system, uint64_t monotonic_ns);
void tsc_start(struct soft_system *system, uint64_t monotonic_ns);
void tsc_write(struct cpu *cpu, uint64_t value);
void tsc_write_adjust(struct cpu *cpu, uint64_t value);

enum { KVM_CLOCK_ENABLE = 1 };
bool kvmclock_write_msr(struct cpu *cpu, uint32_t msr, uint64_t value);
void kvmclock_update(struct cpu *cpu);
/* The clock as the guest reads it; and setting it, with all states set and time stopped. */
uint64_t kvmclock_ns(const struct cpu *cpu);
void kvmclock_set_ns(struct soft_system *system, uint64_t ns);

#endif
