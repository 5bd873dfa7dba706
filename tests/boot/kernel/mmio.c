/* SPDX-License-Identifier: BSD-2-Clause
 *
 * An instruction does in a device's memory what it does in RAM (SDM 3A 11.3.1: how it is cached is
 * all that differs). Each one runs on both, with the same bytes and registers; the test device
 * keeps what is written. The bytes lie around the end of a page.
 */
#include "kernel.h"

enum { WINDOW_BYTES = 256, PAGE_BYTES = 4096, CROSSING = WINDOW_BYTES / 2 };
enum { FLAGS_ARITHMETIC = 0x8d5, FLAGS_START = 0x03 };

#define DEVICE_MEMORY UINT64_C(0xff000000)

/* What an instruction gets and leaves; start.S has no part in it, so the order is this file's. */
struct registers {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, flags;
};

/* RDI is the window's first byte, 128(%rdi) the next page's. R8 to R15 are free. */
#define CODE(name, text)                                                                           \
    extern const char code_##name[];                                                               \
    __asm__(".pushsection .text\ncode_" #name ": " text "\n ret\n .popsection");

CODE(load, "mov (%rdi), %al; mov 1(%rdi), %bx; mov 4(%rdi), %ecx; mov 8(%rdi), %rdx")
CODE(store, "mov %al, (%rdi); mov %bx, 2(%rdi); mov %ecx, 4(%rdi); mov %rdx, 8(%rdi)")
CODE(store_immediate, "movb $1, (%rdi); movw $2, 2(%rdi); movl $3, 4(%rdi); movq $-4, 8(%rdi)")
CODE(crossing_load, "mov 127(%rdi), %ax; mov 125(%rdi), %ebx; mov 121(%rdi), %rcx")
CODE(crossing_store, "mov %ax, 127(%rdi); mov %ebx, 126(%rdi); mov %rcx, 123(%rdi)")
CODE(high_bytes, "mov %ah, (%rdi); mov 1(%rdi), %bh; add %ch, 2(%rdi)")
CODE(add, "add %al, (%rdi); adc %bx, 2(%rdi); sub %ecx, 4(%rdi); sbb %rdx, 8(%rdi)")
CODE(add_memory, "add (%rdi), %al; adc 2(%rdi), %bx; sub 4(%rdi), %ecx; sbb 8(%rdi), %rdx")
CODE(logic, "and %al, (%rdi); or %bx, 2(%rdi); xor %ecx, 4(%rdi); test %rdx, 8(%rdi)")
CODE(compare, "cmp %rax, (%rdi); setb 8(%rdi); cmp 16(%rdi), %ebx; setg 9(%rdi)")
CODE(one_operand, "incb (%rdi); decw 2(%rdi); negl 4(%rdi); notq 8(%rdi)")
CODE(immediate, "addb $3, (%rdi); subw $-5, 2(%rdi); andl $0x7f7f, 4(%rdi); cmpq $9, 8(%rdi)")
CODE(crossing_add, "add %rax, 124(%rdi); inc %rcx; adc %ecx, 126(%rdi)")
CODE(locked, "lock addb $7, (%rdi); lock incw 2(%rdi); lock decl 4(%rdi); lock xor %rax, 8(%rdi)")
CODE(locked_one, "lock negq (%rdi); lock notq 8(%rdi); lock negb 16(%rdi); lock notb 17(%rdi)")
CODE(locked_crossing, "lock addq $0x7f, 124(%rdi); lock orl $1, 126(%rdi)")
CODE(exchange, "xchg %al, (%rdi); xchg %bx, 2(%rdi); xchg %ecx, 4(%rdi); xchg %rdx, 8(%rdi)")
CODE(exchange_add,
     "xadd %al, (%rdi); lock xadd %bx, 2(%rdi); xadd %ecx, 4(%rdi); xadd %rdx, 8(%rdi)")
CODE(cmpxchg_equal,
     "mov (%rdi), %rax; lock cmpxchg %rbx, (%rdi); mov 8(%rdi), %al; cmpxchg %cl, 8(%rdi)")
CODE(cmpxchg_other, "lock cmpxchg %ebx, (%rdi); cmpxchg %rcx, 8(%rdi)")
CODE(cmpxchg8b_equal, "mov (%rdi), %eax; mov 4(%rdi), %edx; lock cmpxchg8b (%rdi)")
CODE(cmpxchg8b_other, "cmpxchg8b (%rdi)")
CODE(cmpxchg16b_equal, "mov 16(%rdi), %rax; mov 24(%rdi), %rdx; lock cmpxchg16b 16(%rdi)")
CODE(cmpxchg16b_other, "lock cmpxchg16b 16(%rdi)")
CODE(bits_immediate,
     "btsl $3, (%rdi); btrw $9, 4(%rdi); btcq $63, 8(%rdi); btl $5, 16(%rdi); setc 20(%rdi)")
CODE(bits_far,
     "mov $-1, %eax; btcl %eax, 64(%rdi); mov $130, %ebx; lock btsl %ebx, 64(%rdi); mov $-65, %rcx;"
     "btrq %rcx, 128(%rdi); mov $33, %edx; btw %dx, 64(%rdi)")
CODE(scan, "bsf (%rdi), %eax; bsr 4(%rdi), %rbx; bsfw 12(%rdi), %cx; bsr 14(%rdi), %edx")
CODE(multiply, "imul (%rdi), %ax; imul $51, 4(%rdi), %ebx; imul $311, 8(%rdi), %rcx; mull 16(%rdi)")
CODE(multiply_wide, "mulb (%rdi); mulw 2(%rdi); imulq 8(%rdi)")
CODE(divide,
     "movq $1000, (%rdi); xor %edx, %edx; divq (%rdi); movw $77, 8(%rdi); cwd; idivw 8(%rdi)")
CODE(shift, "shlb $3, (%rdi); sarw %cl, 2(%rdi); rorl $9, 4(%rdi); rclq $1, 8(%rdi)")
CODE(double_shift, "mov $5, %cl; shldl %cl, %eax, (%rdi); shrdq $7, %rbx, 8(%rdi)")
CODE(extend, "movzbl (%rdi), %eax; movswq 1(%rdi), %rbx; movslq 3(%rdi), %rcx; movbe 8(%rdi), %rdx")
CODE(conditional,
     "cmp %rax, %rax; cmovne (%rdi), %eax; cmove 4(%rdi), %rbx; setne 12(%rdi); sete 13(%rdi)")
CODE(push_memory, "pushq (%rdi); popq 8(%rdi); pushw 16(%rdi); popw 18(%rdi)")
CODE(stack, "mov %rsp, %r8; lea 132(%rdi), %rsp; push %rax; pushq $-7; pushw $9; pushq 200(%rdi);"
            "pop %rcx; popw %dx; pop %rbx; pushf; popq (%rdi); mov %rsp, %rsi; mov %r8, %rsp")
CODE(calls, "mov %rsp, %r8; lea 64(%rdi), %rsp; call 1f;"
            "1: lea 2f(%rip), %rax; xchg %rax, 56(%rdi); ret; 2: mov %rsp, %rsi; mov %r8, %rsp")
CODE(frames, "mov %rsp, %r8; mov %rbp, %r9; lea 96(%rdi), %rsp; mov $0x1234, %ebp; enter $24, $0;"
             "mov %rsp, %rcx; leave; mov %rbp, %rdx; mov %rsp, %rsi; mov %r8, %rsp; mov %r9, %rbp")
CODE(far_jump, "lea 1f(%rip), %rax; mov %rax, (%rdi); mov %cs, 8(%rdi); xor %eax, %eax;"
               "rex64 ljmp *(%rdi); mov $1, %eax; 1: movq $0, (%rdi)")
CODE(jump, "lea 1f(%rip), %rax; mov %rax, (%rdi); xor %eax, %eax; jmp *(%rdi); mov $1, %eax;"
           "1: movq $0, (%rdi)")
CODE(strings,
     "mov %rdi, %r8; cld; mov %r8, %rsi; lea 120(%r8), %rdi; mov $17, %ecx; rep movsb;"
     "mov $3, %ecx; rep stosl; lodsw; lea 64(%r8), %rdi; mov $8, %ecx; rep movsq; mov %r8, %rdi")
CODE(strings_down, "mov %rdi, %r8; std; lea 100(%r8), %rsi; lea 131(%r8), %rdi; mov $20, %ecx;"
                   "rep movsb; mov $2, %ecx; rep stosw; cld; mov %r8, %rdi")
CODE(strings_compare,
     "mov %rdi, %r8; movq $5, 64(%r8); movq $5, 8(%r8); movb $6, 15(%r8); lea 64(%r8), %rsi;"
     "lea 8(%r8), %rdi; mov $30, %ecx; repe cmpsb; mov $5, %eax; mov %r8, %rdi; mov $40, %edx;"
     "xchg %rcx, %rdx; repne scasw; mov %r8, %rdi")
CODE(port_strings, "mov %rdi, %r8; mov $0xe0, %edx; mov %r8, %rsi; mov $9, %ecx; rep outsb;"
                   "lea 120(%r8), %rdi; mov $16, %ecx; rep insb; mov %r8, %rdi")
CODE(
    vector_moves,
    "movdqu (%rdi), %xmm0; movaps 16(%rdi), %xmm1; movdqu %xmm0, 121(%rdi); movaps %xmm1, 48(%rdi);"
    "movups 3(%rdi), %xmm2; movupd %xmm2, 65(%rdi); movq 5(%rdi), %xmm3; movd %xmm3, 90(%rdi);"
    "movlps %xmm2, 96(%rdi); movhps 8(%rdi), %xmm2; movntdq %xmm2, 160(%rdi)")
CODE(vector_sums, "movdqu (%rdi), %xmm0; paddd 16(%rdi), %xmm0; pxor 32(%rdi), %xmm0; pshufd "
                  "$0x1b, 48(%rdi), %xmm1;"
                  "movdqu %xmm0, 64(%rdi); movdqu %xmm1, 80(%rdi); cvtsi2sdq 8(%rdi), %xmm2; movsd "
                  "%xmm2, 96(%rdi)")
CODE(mmx,
     "movq (%rdi), %mm0; paddb 8(%rdi), %mm0; movq %mm0, 16(%rdi); movntq %mm0, 24(%rdi); emms")
CODE(x87, "fninit; fildll (%rdi); fiaddl 8(%rdi); fistpll 16(%rdi); fildl 8(%rdi); fstpt 32(%rdi); "
          "fldt 32(%rdi);"
          "fstpl 124(%rdi); fnstcw 48(%rdi); fldcw 48(%rdi); fnstsw 50(%rdi)")
CODE(tables, "sgdt (%rdi); lgdt (%rdi); sidt 16(%rdi); lidt 16(%rdi); smsw 32(%rdi); sldt "
             "34(%rdi); str 36(%rdi)")
CODE(segments,
     "mov %ds, 0(%rdi); mov 0(%rdi), %es; mov %es, %eax; mov %ss, 124(%rdi); mov %cs, 127(%rdi)")

#define ENTRY(name)                                                                                \
    {                                                                                              \
#name, code_##name                                                                         \
    }
static const struct {
    const char *name, *code;
} entries[] = {
    ENTRY(load),
    ENTRY(store),
    ENTRY(store_immediate),
    ENTRY(crossing_load),
    ENTRY(crossing_store),
    ENTRY(high_bytes),
    ENTRY(add),
    ENTRY(add_memory),
    ENTRY(logic),
    ENTRY(compare),
    ENTRY(one_operand),
    ENTRY(immediate),
    ENTRY(crossing_add),
    ENTRY(locked),
    ENTRY(locked_one),
    ENTRY(locked_crossing),
    ENTRY(exchange),
    ENTRY(exchange_add),
    ENTRY(cmpxchg_equal),
    ENTRY(cmpxchg_other),
    ENTRY(cmpxchg8b_equal),
    ENTRY(cmpxchg8b_other),
    ENTRY(cmpxchg16b_equal),
    ENTRY(cmpxchg16b_other),
    ENTRY(bits_immediate),
    ENTRY(bits_far),
    ENTRY(scan),
    ENTRY(multiply),
    ENTRY(multiply_wide),
    ENTRY(divide),
    ENTRY(shift),
    ENTRY(double_shift),
    ENTRY(extend),
    ENTRY(conditional),
    ENTRY(push_memory),
    ENTRY(stack),
    ENTRY(calls),
    ENTRY(frames),
    ENTRY(far_jump),
    ENTRY(jump),
    ENTRY(strings),
    ENTRY(strings_down),
    ENTRY(strings_compare),
    ENTRY(port_strings),
    ENTRY(vector_moves),
    ENTRY(vector_sums),
    ENTRY(mmx),
    ENTRY(x87),
    ENTRY(tables),
    ENTRY(segments),
};

static _Alignas(PAGE_BYTES) uint8_t ram[2 * PAGE_BYTES];

void run_code(const char *code, struct registers *registers);
__asm__(".pushsection .text\n"
        "run_code:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rsi\n"
        "    mov %rdi, %rbp\n"
        "    mov 0(%rsi), %rax; mov 8(%rsi), %rbx; mov 16(%rsi), %rcx; mov 24(%rsi), %rdx\n"
        "    mov 40(%rsi), %rdi; pushq 48(%rsi); mov 32(%rsi), %rsi; popfq\n"
        "    call *%rbp\n"
        "    pushfq\n"
        "    pop %r8; pop %r9\n"
        "    mov %rax, 0(%r9); mov %rbx, 8(%r9); mov %rcx, 16(%r9); mov %rdx, 24(%r9)\n"
        "    mov %rsi, 32(%r9); mov %rdi, 40(%r9); mov %r8, 48(%r9)\n"
        "    cld\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n"
        "    .popsection");

/* A pointer into the window as an offset, which is what both places agree in. */
static uint64_t relative(uint64_t value, uint64_t window)
{
    return value - window < 2 * PAGE_BYTES ? value - window : value;
}

static struct registers run_at(const char *code, uint64_t window, uint64_t *bytes)
{
    struct registers r = {0x1122334455667788, 0xfedcba9876543210, 0x0123456789abcdef,
                          0xaa55aa5512345678, 0x5555000011112222, window,
                          FLAGS_START};
    volatile uint64_t *at = (volatile uint64_t *)(uintptr_t)window;
    for (unsigned i = 0; i < WINDOW_BYTES / 8; i++)
        at[i] = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    out32(0xe0, 0x44332211);
    run_code(code, &r);
    for (unsigned i = 0; i < WINDOW_BYTES / 8; i++)
        bytes[i] = at[i];
    r.rbx = relative(r.rbx, window);
    r.rcx = relative(r.rcx, window);
    r.rsi = relative(r.rsi, window);
    r.rdi = relative(r.rdi, window);
    r.flags &= FLAGS_ARITHMETIC;
    return r;
}

static bool is_equal(const uint64_t *a, const uint64_t *b, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

void test_mmio(void)
{
    static uint64_t in_ram[WINDOW_BYTES / 8], in_device[WINDOW_BYTES / 8];
    for (unsigned i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        const uint64_t start = PAGE_BYTES - CROSSING;
        struct registers a = run_at(entries[i].code, (uint64_t)(uintptr_t)ram + start, in_ram);
        struct registers b = run_at(entries[i].code, DEVICE_MEMORY + start, in_device);
        bool ok = is_equal(&a.rax, &b.rax, sizeof(a) / 8) &&
                  is_equal(in_ram, in_device, WINDOW_BYTES / 8);
        check(ok, entries[i].name);
    }
}
