/* SPDX-License-Identifier: BSD-2-Clause
 * An instruction on the host's processor, with faults caught: see native.h. */
#include "isa/native.h"

#include <asm/prctl.h>
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
};

_Static_assert(offsetof(struct native_page, state.rflags) == 128, "assembly");
_Static_assert(offsetof(struct native_page, state.vector) == 192, "assembly");
_Static_assert(offsetof(struct native_page, state.fx) == 704, "assembly");
_Static_assert(offsetof(struct native_page, host_rsp) == 1296, "assembly");

void native_enter(void);
void native_exit(void);

/* Everything is addressed absolutely, so that no register is in the way. */
__asm__(".text\n"
        ".set S, 0x31240000\n"
        ".globl native_enter\n"
        "native_enter:\n"
        "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, S+1296\n"
        "  fxrstor64 S+704\n"
        "  cmpq $0, S+1320\n"
        "  je 1f\n"
        "  .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  vmovups S+192+32*\\n, %ymm\\n\n"
        "  .endr\n"
        "1:\n"
        "  mov $S+128, %rsp\n"
        "  popfq\n"
        "  mov S+0, %rax\n  mov S+8, %rcx\n  mov S+16, %rdx\n  mov S+24, %rbx\n"
        "  mov S+32, %rsp\n  mov S+40, %rbp\n  mov S+48, %rsi\n  mov S+56, %rdi\n"
        "  mov S+64, %r8\n  mov S+72, %r9\n  mov S+80, %r10\n  mov S+88, %r11\n"
        "  mov S+96, %r12\n  mov S+104, %r13\n  mov S+112, %r14\n  mov S+120, %r15\n"
        "  jmp *S+1304\n"
        ".globl native_exit\n"
        "native_exit:\n"
        "  mov %rax, S+0\n  mov %rcx, S+8\n  mov %rdx, S+16\n  mov %rbx, S+24\n"
        "  mov %rsp, S+32\n  mov %rbp, S+40\n  mov %rsi, S+48\n  mov %rdi, S+56\n"
        "  mov %r8, S+64\n  mov %r9, S+72\n  mov %r10, S+80\n  mov %r11, S+88\n"
        "  mov %r12, S+96\n  mov %r13, S+104\n  mov %r14, S+112\n  mov %r15, S+120\n"
        "  mov $S+136, %rsp\n"
        "  pushfq\n"
        "  cld\n"
        "  fxsave64 S+704\n"
        "  cmpq $0, S+1320\n"
        "  je 1f\n"
        "  .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  vmovups %ymm\\n, S+192+32*\\n\n"
        "  .endr\n"
        "  vzeroupper\n"
        "1:\n"
        "  fninit\n"
        "  mov S+1296, %rsp\n"
        "  pushfq; andl $~0x40000, (%rsp); popfq\n" /* AC */
        "  movl $0x1f80, -8(%rsp)\n"
        "  ldmxcsr -8(%rsp)\n"
        "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "  ret\n");

static struct native_page *const page = (struct native_page *)ISA_STATE;
static uint8_t *const code = (uint8_t *)ISA_CODE;
static struct sigaction previous[64];

static void handle_fault(int number, siginfo_t *info, void *context)
{
    __asm__ volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    ucontext_t *user = context;
    greg_t *regs = user->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)regs[REG_RIP];
    if (rip < ISA_CODE || rip >= ISA_CODE + ISA_PAGE) {
        if (previous[number].sa_flags & SA_SIGINFO)
            previous[number].sa_sigaction(number, info, context);
        else
            signal(number, SIG_DFL);
        return;
    }
    page->state.fault = (int)regs[REG_TRAPNO];
    page->state.fault_offset = rip - ISA_CODE;
    page->state.error_code = (uint32_t)regs[REG_ERR];
    page->state.fault_address = (uint64_t)regs[REG_CR2];
    regs[REG_EFL] &= ~(greg_t)0x10100; /* RF and TF */
    regs[REG_RIP] = (greg_t)(uintptr_t)native_exit;
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
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, ISA_GS_BASE) != 0)
        return false;
    page->exit = (uintptr_t)native_exit;
    page->has_avx = native_has_avx();
    return true;
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

void native_run(struct isa_state *state, const uint8_t *bytes, unsigned length)
{
    /* jmp *exit */
    uint8_t tail[7] = {0xff, 0x24, 0x25};
    uint32_t exit_slot = (uint32_t)(ISA_STATE + offsetof(struct native_page, exit));
    memcpy(tail + 3, &exit_slot, sizeof(exit_slot));
    /* Always at ISA_CODE, so that RIP-relative operands and FIP are as in the other processor. */
    memcpy(code, bytes, length);
    memcpy(code + length, tail, sizeof(tail));
    page->code = ISA_CODE;
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
}
