/* SPDX-License-Identifier: BSD-2-Clause
 * An instruction on the host's processor, with faults caught: see native.h. */
#include "isa/native.h"

#include "cpu/state.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <assert.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* What stands at ISA_STATE; the assembly below knows these offsets. */
struct native_page {
    struct isa_state state;
    _Alignas(16) uint8_t stack[64]; /* for POPF and PUSHF, whose slot ends at `flags + 8` */
    uint64_t host_rsp;
    uint64_t code, exit;
    uint64_t has_avx;
    uint16_t ss, ds, es, gs; /* a GS of 0 is left as it is */
    struct far_pointer {
        uint32_t offset;
        uint16_t selector;
    } far_code;
    bool offers[ISA_MODES];
};

_Static_assert(offsetof(struct native_page, state.rflags) == 128, "assembly");
_Static_assert(offsetof(struct native_page, state.vector) == 192, "assembly");
_Static_assert(offsetof(struct native_page, state.fx) == 704, "assembly");
_Static_assert(offsetof(struct native_page, host_rsp) == 1312, "assembly");
_Static_assert(offsetof(struct native_page, ss) == 1344, "assembly");
_Static_assert(offsetof(struct native_page, far_code) == 1352, "assembly");

enum { EXIT_OFFSET = ISA_PAGE - 16 }; /* of the code page: where other modes leave to */

void native_enter(void);
void native_go_far(void);
void native_exit(void);

/* Everything is addressed absolutely, so that no register is in the way. */
__asm__(".text\n"
        ".set S, 0x31240000\n"
        ".globl native_enter\n"
        "native_enter:\n"
        "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, S+1312\n"
        "  fxrstor64 S+704\n"
        "  cmpq $0, S+1336\n"
        "  je 1f\n"
        "  .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  vmovups S+192+32*\\n, %ymm\\n\n"
        "  .endr\n"
        "1:\n"
        "  mov S+1346, %ds\n  mov S+1348, %es\n"
        "  cmpw $0, S+1350\n"
        "  je 2f\n"
        "  mov S+1350, %gs\n"
        "2:\n"
        "  mov $S+128, %rsp\n"
        "  mov S+1344, %ss\n"
        "  popfq\n"
        "  mov S+0, %rax\n  mov S+8, %rcx\n  mov S+16, %rdx\n  mov S+24, %rbx\n"
        "  mov S+32, %rsp\n  mov S+40, %rbp\n  mov S+48, %rsi\n  mov S+56, %rdi\n"
        "  mov S+64, %r8\n  mov S+72, %r9\n  mov S+80, %r10\n  mov S+88, %r11\n"
        "  mov S+96, %r12\n  mov S+104, %r13\n  mov S+112, %r14\n  mov S+120, %r15\n"
        "  jmp *S+1320\n"
        "native_go_far:\n" /* outside of 64-bit mode */
        "  ljmp *S+1352\n"
        ".globl native_exit\n"
        "native_exit:\n"
        "  mov %rax, S+0\n  mov %rcx, S+8\n  mov %rdx, S+16\n  mov %rbx, S+24\n"
        "  mov %rsp, S+32\n  mov %rbp, S+40\n  mov %rsi, S+48\n  mov %rdi, S+56\n"
        "  mov %r8, S+64\n  mov %r9, S+72\n  mov %r10, S+80\n  mov %r11, S+88\n"
        "  mov %r12, S+96\n  mov %r13, S+104\n  mov %r14, S+112\n  mov %r15, S+120\n"
        "  mov $S+136, %rsp\n"
        "  pushfq\n"
        "  cld\n"
        "  mov $0x2b, %eax\n"
        "  mov %eax, %ss\n"
        "  fxsave64 S+704\n"
        "  cmpq $0, S+1336\n"
        "  je 1f\n"
        "  .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  vmovups %ymm\\n, S+192+32*\\n\n"
        "  .endr\n"
        "  vzeroupper\n"
        "1:\n"
        "  fninit\n"
        "  mov S+1312, %rsp\n"
        "  pushfq; andl $~0x40000, (%rsp); popfq\n" /* AC */
        "  movl $0x1f80, -8(%rsp)\n"
        "  ldmxcsr -8(%rsp)\n"
        "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "  ret\n");

static struct native_page *const page = (struct native_page *)ISA_STATE;
static uint8_t *const code = (uint8_t *)ISA_CODE;
static struct sigaction previous[64];
static bool has_ldt;

static void handle_fault(int number, siginfo_t *info, void *context)
{
    __asm__ volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    ucontext_t *user = context;
    greg_t *regs = user->uc_mcontext.gregs;
    uint64_t offset = (uint64_t)regs[REG_RIP] - isa_entry(page->state.mode);
    enum { CS = 0, SS = 3 }; /* 16 bits each in CSGSFS */
    uint16_t selectors[4];
    memcpy(selectors, &regs[REG_CSGSFS], sizeof(selectors));
    if (selectors[CS] != isa_segment(page->state.mode, ISA_CS)->selector || offset >= ISA_PAGE) {
        if (previous[number].sa_flags & SA_SIGINFO)
            previous[number].sa_sigaction(number, info, context);
        else
            signal(number, SIG_DFL);
        return;
    }
    page->state.fault = (int)regs[REG_TRAPNO];
    page->state.fault_offset = offset;
    page->state.error_code = (uint32_t)regs[REG_ERR];
    page->state.fault_address = (uint64_t)regs[REG_CR2];
    regs[REG_EFL] &= ~(greg_t)0x10100; /* RF and TF */
    regs[REG_RIP] = (greg_t)(uintptr_t)native_exit;
    selectors[CS] = ISA_HOST_CS;
    selectors[SS] = ISA_HOST_SS;
    memcpy(&regs[REG_CSGSFS], selectors, sizeof(selectors));
}

/* JMP to what `exit` holds, in 64-bit mode. */
static void put_exit(uint8_t *at)
{
    const uint32_t slot = (uint32_t)(ISA_STATE + offsetof(struct native_page, exit));
    memcpy(at, "\xff\x24\x25", 3);
    memcpy(at + 3, &slot, sizeof(slot));
}

static bool map_at(uint64_t address, size_t size_bytes, int protection)
{
    return mmap((void *)address, size_bytes, protection,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)address;
}

bool native_has_avx(void)
{
    return __builtin_cpu_supports("avx");
}

/* A descriptor of the LDT, if it is one. False: the host has no LDT or no such segment. */
static bool set_descriptor(const struct isa_segment *segment)
{
    bool is_code = segment->attributes & 0x8, has_pages = segment->attributes & SEGMENT_G;
    if (!(segment->selector & 4))
        return true;
    struct user_desc descriptor = {
        .entry_number = segment->selector >> 3,
        .base_addr = segment->base,
        .limit = has_pages ? segment->limit >> 12 : segment->limit,
        .seg_32bit = !!(segment->attributes & SEGMENT_DB),
        .contents = is_code ? MODIFY_LDT_CONTENTS_CODE : segment->attributes >> 2 & 1,
        .limit_in_pages = has_pages,
        .useable = 1,
    };
    enum { WRITE = 0x11 };
    return syscall(SYS_modify_ldt, WRITE, &descriptor, sizeof(descriptor)) == 0;
}

/* Whether the processor can load them all. */
static bool open_segments(enum isa_mode mode)
{
    for (unsigned i = 0; i < ISA_SEGMENTS; i++) {
        const struct isa_segment *segment = isa_segment(mode, i);
        bool is_readable;
        if (!set_descriptor(segment))
            return false;
        __asm__("verr %w1" : "=@ccz"(is_readable) : "r"((unsigned)segment->selector));
        if (!is_readable)
            return false;
    }
    return true;
}

bool native_open(void)
{
    if (!map_at(ISA_CODE, ISA_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) ||
        !map_at(ISA_STATE, ISA_PAGE, PROT_READ | PROT_WRITE) ||
        !map_at(ISA_SCRATCH - ISA_PAGE, ISA_SCRATCH_BYTES + 2 * ISA_PAGE, PROT_NONE) ||
        mprotect((void *)ISA_SCRATCH, ISA_WRITABLE_BYTES, PROT_READ | PROT_WRITE) != 0 ||
        mprotect((void *)(ISA_SCRATCH + ISA_WRITABLE_BYTES), ISA_READ_ONLY_BYTES, PROT_READ) != 0)
        return false;
    stack_t stack = {.ss_size = 256 << 10};
    stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                       0); /* the host's for the life of the program */
    if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) != 0)
        return false;
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction action = {.sa_sigaction = handle_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        if (sigaction(signals[i], &action, &previous[signals[i]]) != 0)
            return false;
    for (unsigned mode = 0; mode < ISA_MODES; mode++)
        page->offers[mode] = open_segments(mode);
    has_ldt = page->offers[ISA_64];
    if (!has_ldt) /* 64-bit code does without */
        page->offers[ISA_64] = syscall(SYS_arch_prctl, ARCH_SET_GS, ISA_GS_BASE) == 0;
    page->exit = (uintptr_t)native_exit;
    page->has_avx = native_has_avx();
    put_exit(code + EXIT_OFFSET);
    return page->offers[ISA_64];
}

bool native_offers(enum isa_mode mode)
{
    return page->offers[mode];
}

uint8_t *native_scratch(void)
{
    return (uint8_t *)ISA_SCRATCH;
}

bool native_fill(const uint8_t bytes[ISA_SCRATCH_BYTES])
{
    void *read_only = (void *)(ISA_SCRATCH + ISA_WRITABLE_BYTES);
    if (mprotect(read_only, ISA_READ_ONLY_BYTES, PROT_READ | PROT_WRITE) != 0)
        return false;
    memcpy(native_scratch(), bytes, ISA_SCRATCH_BYTES);
    return mprotect(read_only, ISA_READ_ONLY_BYTES, PROT_READ) == 0;
}

void isa_state_narrow(struct isa_state *state)
{
    if (state->mode == ISA_64)
        return;
    for (unsigned n = 0; n < 8; n++)
        state->gpr[n] &= UINT32_MAX;
    memset(&state->gpr[8], 0, 8 * sizeof(state->gpr[0]));
}

/* Always at ISA_CODE, so that RIP-relative operands and FIP are as in the other processor. */
static void put_code(enum isa_mode mode, const uint8_t *bytes, unsigned length)
{
    assert(length + 8 <= EXIT_OFFSET);
    memcpy(code, bytes, length);
    if (mode == ISA_64) {
        put_exit(code + length);
        return;
    }
    /* JMP FAR to 64-bit mode; 66h, since it has an offset of 32 bits. */
    uint8_t leave[8] = {0x66, 0xea};
    const uint32_t offset = (uint32_t)ISA_CODE + EXIT_OFFSET;
    const uint16_t selector = ISA_HOST_CS;
    memcpy(leave + 2, &offset, 4);
    memcpy(leave + 6, &selector, 2);
    bool is_prefixed = mode == ISA_16;
    memcpy(code + length, leave + !is_prefixed, 7u + is_prefixed);
}

static void set_mode(enum isa_mode mode)
{
    page->code = mode == ISA_64 ? ISA_CODE : (uintptr_t)native_go_far;
    page->far_code =
        (struct far_pointer){(uint32_t)isa_entry(mode), isa_segment(mode, ISA_CS)->selector};
    page->ss = isa_segment(mode, ISA_SS)->selector;
    page->ds = isa_segment(mode, ISA_DS)->selector;
    page->es = isa_segment(mode, ISA_ES)->selector;
    page->gs = has_ldt ? isa_segment(mode, ISA_GS)->selector : 0;
}

void native_run(struct isa_state *state, const uint8_t *bytes, unsigned length)
{
    put_code(state->mode, bytes, length);
    set_mode(state->mode);
    memcpy(&page->state, state, sizeof(*state));
    for (unsigned n = 0; n < 16; n++)
        memcpy(page->state.fx + 160 + n * 16, state->vector[n], 16);
    page->state.fault = ISA_NO_FAULT;
    page->state.fault_offset = 0;
    page->state.error_code = 0;
    page->state.fault_address = 0;
    native_enter();
    memcpy(state, &page->state, sizeof(*state));
    if (!page->has_avx)
        for (unsigned n = 0; n < 16; n++)
            memcpy(state->vector[n], state->fx + 160 + n * 16, 16);
    memset(state->fx + 160, 0, sizeof(state->fx) - 160);
    isa_state_narrow(state);
}
