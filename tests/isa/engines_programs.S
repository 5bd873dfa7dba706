/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest programs of engines.c, each with what it has to report and where the SDM says so. They are
 * loaded at CODE; A() is a label's address there, R() its offset in a segment based at CODE.
 * Sections are numbered as in the SDM of 2022, where chapter 6 of volume 3A is on interrupts.
 */
#include "isa/engines.h"

#define A(label) (CODE + (label) - 9b)
#define R(label) ((label) - 9b)
#define OUT      outl %eax, $REPORT

        .macro  program name, mode
        .section .rodata
        .balign 16
        .set    \name\()_mode, \mode
        .if     \mode < P32
        .code16
        .elseif \mode == P32 || \mode == USER32
        .code32
        .else
        .code64
        .endif
\name\()_start:
9:
        .endm
        .macro  expect name
        outl    %eax, $END
0:      jmp     0b
\name\()_end:
        .balign 4
\name\()_expected:
        .endm
/* `gap`: why it can't run where KVM imitates the guest's kernel mode. */
        .macro  end name, flags=0, gap
\name\()_expected_end:
        .section .rodata
\name\()_name:
        .asciz  "\name"
        .ifnb   \gap
\name\()_gap:
        .asciz  "\gap"
        .endif
        .section .data.rel.ro.engine_programs, "aw"
        .quad   \name\()_name, \name\()_start, \name\()_end, \name\()_expected
        .quad   \name\()_expected_end
        .ifnb   \gap
        .quad   \name\()_gap
        .else
        .quad   0
        .endif
        .quad   \name\()_mode, \flags
        .endm

        .macro  out value:vararg
        movl    \value, %eax
        OUT
        .endm
        .macro  out64 reg
        movq    \reg, %rax
        OUT
        shrq    $32, %rax
        OUT
        .endm
        .macro  flagsq mask=0x8d5
        pushfq
        popq    %rax
        andl    $\mask, %eax
        OUT
        .endm
        .macro  flagsl mask=0x8d5
        pushfl
        popl    %eax
        andl    $\mask, %eax
        OUT
        .endm
/* What follows faults; its handler goes on at `label`. */
        .macro  resume64 label
        movq    $A(\label), RESUME
        .endm
        .macro  resume32 label
        movl    $A(\label), RESUME
        .endm
        .macro  resume16 label
        movl    $R(\label), V16(RESUME)
        .endm

        .section .data.rel.ro.engine_programs, "aw"
        .balign 8
        .globl  engine_programs
engine_programs:

/* --- handlers ---------------------------------------------------------------------------------
 * They report the vector, the error code, for page faults CR2. They return to RESUME when it is
 * set, else where they came from if that makes sense, else the program ends. */

        .section .rodata
        .code64
        .globl  kernel64_start, kernel64_end
        .balign 16
kernel64_start:
        .set    vector, 0
        .rept   256
        .balign 16
        .if     vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
        pushq   $(vector | 0x100)
        .else
        pushq   $0
        pushq   $vector
        .endif
        jmp     common64
        .set    vector, vector + 1
        .endr
        .balign 16
/* OUT at level 3 is no business of the program's, as on the host: done for it. */
common64:
        pushq   %rax
        cmpb    $13, 8(%rsp)
        jne     1f
        testb   $3, 32(%rsp)
        jz      1f
        pushq   %rbx
        movq    32(%rsp), %rbx
        movzwl  (%rbx), %ebx
        cmpl    $(0xe7 | REPORT << 8), %ebx
        je      2f
        cmpl    $(0xe7 | END << 8), %ebx
        popq    %rbx
        jne     1f
        outl    %eax, $END
0:      jmp     0b
2:      OUT
        popq    %rbx
        addq    $2, 24(%rsp)
        jmp     3f
1:
        movzbl  8(%rsp), %eax
        orl     $VECTOR_TAG, %eax
        OUT
        testb   $1, 9(%rsp)
        jz      1f
        movl    16(%rsp), %eax
        orl     $CODE_TAG, %eax
        OUT
1:      cmpb    $14, 8(%rsp)
        jne     1f
        movq    %cr2, %rax
        OUT
1:      movq    24(%rsp), %rax
        movq    %rax, FRAME_RIP
        movq    32(%rsp), %rax
        movq    %rax, FRAME_CS
        movq    40(%rsp), %rax
        movq    %rax, FRAME_FLAGS
        movq    48(%rsp), %rax
        movq    %rax, FRAME_RSP
        movq    56(%rsp), %rax
        movq    %rax, FRAME_SS
        movq    %rsp, VARS + 0x38
        movzbl  8(%rsp), %eax
        andl    $0xf0, %eax
        cmpl    $0x30, %eax
        jne     1f
        movl    $0, APIC_PAGE + 0xb0
1:      cmpb    $0x90, 8(%rsp)
        jne     1f
        movq    BACK, %rax
        jmp     *%rax
1:      movq    RESUME, %rax
        testq   %rax, %rax
        jz      1f
        movq    %rax, 24(%rsp)
        movq    $0, RESUME
        jmp     3f
1:      movzbl  8(%rsp), %eax
        cmpb    $0x20, %al
        jae     3f
        cmpb    $1, %al
        je      3f
        cmpb    $3, %al
        je      3f
        cmpb    $4, %al
        je      3f
        orl     $LOST_TAG, %eax
        OUT
        outl    %eax, $END
2:      jmp     2b
3:      popq    %rax
        addq    $16, %rsp
        iretq
kernel64_end:

        .code32
        .globl  kernel32_start, kernel32_end
        .balign 16
kernel32_start:
        .set    vector, 0
        .rept   256
        .balign 16
        .if     vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
        pushl   $(vector | 0x100)
        .else
        pushl   $0
        pushl   $vector
        .endif
        jmp     common32
        .set    vector, vector + 1
        .endr
        .balign 16
common32:
        pushl   %ds
        pushl   %eax
        movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        movzbl  8(%esp), %eax
        orl     $VECTOR_TAG, %eax
        OUT
        testb   $1, 9(%esp)
        jz      1f
        movl    12(%esp), %eax
        orl     $CODE_TAG, %eax
        OUT
1:      cmpb    $14, 8(%esp)
        jne     1f
        movl    %cr2, %eax
        OUT
1:      movl    16(%esp), %eax
        movl    %eax, FRAME_RIP
        movl    20(%esp), %eax
        movl    %eax, FRAME_CS
        movl    24(%esp), %eax
        movl    %eax, FRAME_FLAGS
        movl    28(%esp), %eax
        movl    %eax, FRAME_RSP
        movl    32(%esp), %eax
        movl    %eax, FRAME_SS
        movl    %esp, VARS + 0x38
        cmpb    $0x90, 8(%esp)
        jne     1f
        movl    BACK, %eax
        jmp     *%eax
1:      movl    RESUME, %eax
        testl   %eax, %eax
        jz      1f
        movl    %eax, 16(%esp)
        movl    $0, RESUME
        jmp     3f
1:      movzbl  8(%esp), %eax
        cmpb    $0x20, %al
        jae     3f
        cmpb    $1, %al
        je      3f
        cmpb    $3, %al
        je      3f
        cmpb    $4, %al
        je      3f
        orl     $LOST_TAG, %eax
        OUT
        outl    %eax, $END
2:      jmp     2b
3:      popl    %eax
        popl    %ds
        addl    $8, %esp
        iretl
kernel32_end:

        .code16
        .globl  kernel16_start, kernel16_end
        .balign 16
kernel16_start:
        .set    vector, 0
        .rept   256
        .balign 16
        pushw   $vector
        jmp     common16
        .set    vector, vector + 1
        .endr
        .balign 16
common16:
        pushw   %ds
        pushl   %eax
        pushw   %bp
        movw    %sp, %bp        /* BP, EAX, DS, vector, IP, CS, FLAGS */
        movw    $(CODE >> 4), %ax
        movw    %ax, %ds
        movzbl  8(%bp), %eax
        orl     $VECTOR_TAG, %eax
        OUT
        movzwl  10(%bp), %eax
        movl    %eax, V16(FRAME_RIP)
        movzwl  12(%bp), %eax
        movl    %eax, V16(FRAME_CS)
        movzwl  14(%bp), %eax
        movl    %eax, V16(FRAME_FLAGS)
        movl    V16(RESUME), %eax
        testl   %eax, %eax
        jz      1f
        movw    %ax, 10(%bp)
        movl    $0, V16(RESUME)
        jmp     3f
1:      movzbl  8(%bp), %eax
        cmpb    $0x20, %al
        jae     3f
        cmpb    $1, %al
        je      3f
        cmpb    $3, %al
        je      3f
        cmpb    $4, %al
        je      3f
        orl     $LOST_TAG, %eax
        OUT
        outl    %eax, $END
2:      jmp     2b
3:      popw    %bp
        popl    %eax
        popw    %ds
        addw    $2, %sp
        iretw
kernel16_end:

/* Where processor 1 starts: to 64-bit mode with the first one's tables, then to what BACK says. */
        .globl  trampoline_start, trampoline_end
trampoline_start:
        cli
        movw    %cs, %ax
        movw    %ax, %ds
        lgdtl   3f - trampoline_start
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $KERNEL_CS32, $(1f - trampoline_start + SIPI_PAGE)
        .code32
1:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x620, %eax
        movl    %eax, %cr4
        movl    $PML4, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0
        ljmpl   $KERNEL_CS, $(2f - trampoline_start + SIPI_PAGE)
        .code64
2:      movl    $STACK_IST, %esp
        movq    BACK, %rax
        jmp     *%rax
        .balign 8
3:      .word   GDT_BYTES - 1
        .long   GDT
trampoline_end:

/* --- level 3, 64 bits: also on the host's processor ----------------------------------------- */

/* SDM 1 3.4.3.1 (status flags), 3.4.1.1 (registers in 64-bit mode), 2 ADC, NEG, INC, MUL, IDIV. */
        program u64_arithmetic, USER64
        movabsq $0x7fffffffffffffff, %rbx
        addq    $1, %rbx
        flagsq
        movq    $-1, %rbx
        stc
        adcq    $0, %rbx
        flagsq
        movl    $1, %ebx
        subl    $2, %ebx
        flagsq
        out64   %rbx
        movb    $0x80, %bl
        negb    %bl
        flagsq
        movq    $-1, %rbx
        stc
        incq    %rbx
        flagsq
        movabsq $0x100000000, %rbx
        imulq   %rbx, %rbx
        flagsq  0x801
        movq    $-1, %rax
        movl    $2, %ecx
        mulq    %rcx
        movq    %rax, %rbx
        out     %edx
        out64   %rbx
        movl    $1, %edx
        xorl    %eax, %eax
        divq    %rcx
        out64   %rax
        movl    $-7, %eax
        cltd
        idivl   %ecx
        OUT
        out     %edx
        movl    $0x80000000, %eax
        cltq
        out64   %rax
        movq    $-1, %rbx
        movw    $0, %bx
        out64   %rbx
        movl    $0x1234, %ebx
        movb    $0xff, %bh
        out     %ebx
        expect  u64_arithmetic
        .long   0x894, 0x55, 0x95, 0xffffffff, 0, 0x881, 0x55, 0x801
        .long   1, 0xfffffffe, 0xffffffff, 0, 0x80000000, 0xfffffffd, 0xffffffff
        .long   0x80000000, 0xffffffff, 0xffff0000, 0xffffffff, 0xff34
        end     u64_arithmetic

/* SDM 2 SAL/SAR/SHL/SHR, RCL/ROR, SHLD, BTS (bit string), BSR, CMOVcc, CMPXCHG, XADD. */
        program u64_shifts_bits, USER64
        movabsq $0x8000000000000000, %rbx
        shlq    $1, %rbx
        flagsq  0x8c5
        xorl    %ebx, %ebx
        stc
        movb    $64, %cl
        shlq    %cl, %rbx
        flagsq  0xc5
        movb    $0x80, %bl
        clc
        rclb    $1, %bl
        flagsq  0x801
        movl    $1, %ebx
        rorl    $1, %ebx
        flagsq  0x801
        out     %ebx
        movabsq $0x8000000000000000, %rbx
        sarq    $63, %rbx
        out64   %rbx
        movabsq $0x1122334455667788, %rbx
        movabsq $0x99aabbccddeeff00, %rcx
        shldq   $8, %rcx, %rbx
        out64   %rbx
        bswapq  %rbx
        out64   %rbx
        movl    $100, %ecx
        btsl    %ecx, DATA
        flagsq  1
        out     DATA+12
        movq    $-4, %rcx
        movl    $0x80000000, DATA+0x1c
        btrl    %ecx, DATA+0x20
        flagsq  1
        movl    $0x100, %ecx
        bsrq    %rcx, %rbx
        out     %ebx
        movq    $-1, %rbx
        orb     $1, %cl
        cmovzl  %ecx, %ebx
        out64   %rbx
        movl    $2, DATA
        movl    $1, %eax
        movl    $9, %ecx
        lock cmpxchgl %ecx, DATA
        OUT
        flagsq
        lock cmpxchgl %ecx, DATA /* EAX is the flags now: 95H; fails too */
        OUT
        movl    $5, %ecx
        lock xaddl %ecx, DATA
        out     %ecx
        out     DATA
        expect  u64_shifts_bits
        .long   0x845, 0x45, 0x801, 0x801, 0x80000000, 0xffffffff, 0xffffffff
        .long   0x66778899, 0x22334455, 0x55443322, 0x99887766
        .long   0, 0x10, 0, 8, 0xffffffff, 0, 2, 0x95, 2, 2, 7
        end     u64_shifts_bits

/* SDM 1 7.3.9, 2 REP, MOVS, SCAS, CMPS; 64-bit mode with 67H counts with ECX. */
        program u64_strings, USER64
        movabsq $0x0706050403020100, %rax
        movl    $DATA, %edi
        stosq
        movabsq $0x0f0e0d0c0b0a0908, %rax
        stosq
        std
        movl    $DATA + 7, %esi
        movl    $DATA + 9, %edi
        movl    $8, %ecx
        rep movsb
        out     DATA
        out     DATA+4
        out     %esi
        out     %edi
        out     %ecx
        flagsq  0x400
        cld
        movl    $DATA, %edi
        movl    $100, %ecx
        movb    $5, %al
        repne scasb
        flagsq  0x40
        out     %ecx
        out     %edi
        xorl    %ecx, %ecx
        stc
        repe cmpsb
        flagsq  1
        movl    $-5, %ebx
        stc
        out     %ebx
        incl    %ebx
        jg      1f
        movl    $DATA, %esi
        lodsb
1:
        jns     2f
        movl    $DATA, %edi
2:
        movl    $0, %ecx
        repe cmpsb /* nothing is compared, so the carry of before is there */
        sbbl    %eax, %eax
        out     %eax
        movl    $DATA, %esi
        movl    $DATA + 2, %edi
        movl    $4, %ecx
        repe cmpsw
        out     %ecx
        out     %esi
        movabsq $0x100000002, %rcx
        movl    $0xeeee, %eax
        movl    $DATA + 0x100, %edi
        addr32 rep stosw
        out     %ecx
        out     %edi
        out     DATA+0x100
        out     DATA+0x104
        std
        movl    $DATA, %esi
        lodsw
        cld
        out     %esi
        expect  u64_strings
        .long   0x01000100, 0x05040302, DATA - 1, DATA + 1, 0, 0x400, 0x40, 92, DATA + 8, 1
        .long   -5, -1, 2, DATA + 4, 0, DATA + 0x104, 0xeeeeeeee, 0, DATA - 2
        end     u64_strings

/* SDM 1 3.7.5 (base, index, scale, displacement), 2 2.2.1.6 (RIP-relative), 3.7.5.1 (67H). */
        program u64_addressing, USER64
        leaq    u64_here(%rip), %rbx
        subq    $A(u64_here), %rbx
        out64   %rbx
u64_here:
        movl    $0x11111111, DATA+0x10
        movl    $0x22222222, DATA+0x20
        movl    $DATA + 0x30, %r12d
        out     -0x20(%r12)
        movl    $DATA + 0x20, %r13d
        out     (%r13)
        movq    $-2, %rcx
        out     (%r12,%rcx,8)
        out     -8(%r12,%rcx,4)
        movabsq $0xffffffff00020020, %rbx
        addr32 movl (%ebx), %eax
        OUT
        movl    $-1, %ebx
        leaq    1(%rbx), %rdx
        addr32 leaq 1(%ebx), %rcx
        out64   %rdx
        out64   %rcx
        leal    1(%rbx), %ecx
        out     %ecx
        movq    $DATA, %rbx
        movabsl %eax, DATA + 0x40
        movabsq DATA + 0x20, %rax
        OUT
        out     0x40(%rbx)
        expect  u64_addressing
        .long   0, 0, 0x11111111, 0x22222222, 0x22222222, 0x22222222
        .long   0x22222222, 0, 1, 0, 0, 0, 0x22222222, 0
        end     u64_addressing

/* SDM 2 PUSH, POP, ENTER, LEAVE, RET; 1 6.2.3 (operand sizes of the stack). */
        program u64_stack, USER64
        movq    %rsp, %rbp
        pushq   $-5
        popq    %rbx
        out64   %rbx
        pushw   $0x1234
        movq    %rbp, %rax
        subq    %rsp, %rax
        OUT
        popw    %cx
        pushq   %rsp
        popq    %rax
        subq    %rbp, %rax
        OUT
        movl    $0x77, %ebx
        pushq   %rbx
        popq    -8(%rsp) /* the address is that after the pop */
        movl    -8(%rsp), %eax
        OUT
        enter   $0x20, $0
        movq    %rbp, %rax
        subq    %rsp, %rax
        OUT
        leave
        enter   $0x10, $2
        movq    %rbp, %rax
        subq    %rsp, %rax
        OUT
        leave
        movq    %rbp, %rax
        subq    %rsp, %rax
        OUT
        pushq   $1
        pushq   $2
        call    1f
        jmp     2f
1:      movq    8(%rsp), %rax
        OUT
        ret     $16
2:      movq    %rbp, %rax
        subq    %rsp, %rax
        OUT
        pushfw
        popw    %ax
        andl    $2, %eax
        OUT
        expect  u64_stack
        .long   0xfffffffb, 0xffffffff, 2, 0, 0x77, 0x20, 0x20, 0, 2, 0, 2
        end     u64_stack

/* SDM 3A 6.15 (exceptions), 6.5 (faults report the instruction, traps the next), 1 3.3.7.1 (not
 * canonical: #GP(0), by way of the stack #SS(0)). */
        program u64_exceptions, USER64
        resume64 2f
        xorl    %edx, %edx
        movl    $1, %eax
        xorl    %ecx, %ecx
1:      divl    %ecx
2:      movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        resume64 2f
        movl    $0x80000000, %eax
        cltd
        movl    $-1, %ecx
        idivl   %ecx
2:      out     %eax
        int3
1:      movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        resume64 2f
1:      ud2
2:      movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        movabsq $0x0000800000000000, %rbx
        resume64 2f
        movl    (%rbx), %eax
2:      movq    %rbp, %rcx
        movq    %rbx, %rbp
        resume64 2f
        movl    (%rbp), %eax
2:      resume64 2f
        movq    %cr0, %rax
2:      resume64 2f
        .byte   0xf0 /* LOCK, and no operand in memory */
        addl    %eax, %ebx
2:      out     $0x600d
        expect  u64_exceptions
        .long   VECTOR_TAG, 0, VECTOR_TAG, 0x80000000, VECTOR_TAG | 3, 0, VECTOR_TAG | 6, 0
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 12, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 6, 0x600d
        end     u64_exceptions

/* SDM 3B 17.3.1.4: a trap after each instruction that began with TF set. */
        program u64_single_step, USER64
        xorl    %ecx, %ecx
        pushfq
        orl     $0x100, (%rsp)
        popfq
        incl    %ecx
        incl    %ecx
        pushfq
        andl    $~0x100, (%rsp)
        popfq
1:      incl    %ecx
        movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        out     %ecx
        expect  u64_single_step
        .long   VECTOR_TAG | 1, VECTOR_TAG | 1, VECTOR_TAG | 1, VECTOR_TAG | 1, VECTOR_TAG | 1
        .long   0, 3
        end     u64_single_step

/* SDM 2 CMPXCHG8B/CMPXCHG16B: ZF alone changes; #GP(0) unless aligned to 16 bytes. */
        program u64_cmpxchg, USER64
        movq    $1, DATA
        movq    $2, DATA+8
        movl    $1, %eax
        xorl    %edx, %edx
        movl    $0xaaaa, %ebx
        movl    $0xbbbb, %ecx
        lock cmpxchg8b DATA
        flagsq  0x40
        out     DATA
        out     DATA+4
        xorl    %eax, %eax
        lock cmpxchg8b DATA
        OUT
        out     %edx
        movabsq $0xbbbb0000aaaa, %rax
        movl    $2, %edx
        lock cmpxchg16b DATA
        flagsq  0x40
        out     DATA
        out     DATA+8
        xorl    %eax, %eax
        cmpxchg16b DATA
        movl    %eax, %esi
        flagsq  0x40
        out     %esi
        out     %edx
        movl    $DATA + 8, %edi
        resume64 1f
        cmpxchg16b (%rdi)
1:      out     $0x600d
        expect  u64_cmpxchg
        .long   0x40, 0xaaaa, 0xbbbb, 0xaaaa, 0xbbbb, 0x40, 0xaaaa, 0xbbbb, 0, 0xaaaa, 0xbbbb
        .long   VECTOR_TAG | 13, CODE_TAG, 0x600d
        end     u64_cmpxchg

/* SDM 1 8.1 (x87 environment), 8.4, 8.5 (exceptions), 8.7: unmasked ones wait for the next
 * instruction. 80-bit pi: 4000C90FDAA22168C235H. */
        program u64_x87, USER64
        fninit
        fnstcw  DATA
        fnstsw  DATA+2
        out     DATA
        fldpi
        fstpt   DATA
        out     DATA
        out     DATA+4
        movzwl  DATA+8, %eax
        OUT
        fld1
        fldz
        fdivrp  %st, %st(1) /* 1/0, or 0/1: see what is stored */
        fnstsw  %ax
        andl    $0x3f, %eax
        OUT
        fstps   DATA
        out     DATA
        fnclex
        movl    $5, DATA
        fildl   DATA
        movl    $2, DATA
        fidivl  DATA
        fistl   DATA
        out     DATA /* 2.5 to even */
        movw    $0xf7f, DATA
        fldcw   DATA
        fistpl  DATA
        out     DATA
        fninit
        movw    $0x37b, DATA /* division by zero unmasked */
        fldcw   DATA
        fld1
        fldz
        fdivrp  %st, %st(1)
        resume64 1f
        fwait
1:      fnstsw  %ax
        andl    $0x3f, %eax
        orl     $0x100, %eax
        OUT
        fninit
        expect  u64_x87
        .long   0x037f, 0x2168c235, 0xc90fdaa2, 0x4000, 4, 0x7f800000, 2, 2
        .long   VECTOR_TAG | 16, 0x104
        end     u64_x87

/* SDM 1 11.5 (SIMD exceptions: the destination is as it was), 2 LDMXCSR, MOVAPS. */
        program u64_sse, USER64
        movl    $0x1f80, DATA+0x40
        ldmxcsr DATA+0x40
        movl    $0x3f800000, DATA /* 1.0 */
        movss   DATA, %xmm1
        xorps   %xmm2, %xmm2
        movaps  %xmm1, %xmm0
        divss   %xmm2, %xmm0
        movd    %xmm0, %eax
        OUT
        stmxcsr DATA
        out     DATA
        movl    $0x1d80, DATA
        ldmxcsr DATA
        movaps  %xmm1, %xmm0
        resume64 1f
        divss   %xmm2, %xmm0
1:      movd    %xmm0, %eax
        OUT
        stmxcsr DATA
        out     DATA
        movl    $0x10000, DATA
        resume64 1f
        ldmxcsr DATA
1:      movl    $DATA + 4, %ebx
        resume64 1f
        movaps  (%rbx), %xmm3
1:      movups  (%rbx), %xmm3
        movl    $0x3fc00000, DATA /* 1.5 */
        movss   DATA, %xmm3
        movl    $0x7f80, DATA+0x40 /* towards zero */
        ldmxcsr DATA+0x40
        cvtss2si %xmm3, %eax
        OUT
        movl    $0x1f80, DATA+0x40
        ldmxcsr DATA+0x40
        cvtss2si %xmm3, %eax
        OUT
        expect  u64_sse
        .long   0x7f800000, 0x1f84, VECTOR_TAG | 19, 0x3f800000, 0x1d84
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, 1, 2
        end     u64_sse, 0, "a fault makes it emulate the instruction, and it does not know LDMXCSR"

/* SDM 1 14.1.3, 14.3: VEX clears what is above its width, legacy SSE leaves it; 14.9: operands in
 * memory need no alignment, VMOVAPS's do. */
        program u64_avx, USER64
        movl    $DATA, %edi
        movl    $16, %ecx
        movl    $0x40000000, %eax /* 2.0 */
        rep stosl
        movl    $DATA, %ebx
        vmovups 4(%rbx), %ymm0
        vaddps  4(%rbx), %ymm0, %ymm1 /* 4.0 in all eight */
        addps   %xmm0, %xmm1          /* 6.0 in the lower four */
        vextractf128 $1, %ymm1, %xmm2
        vmovd   %xmm1, %eax
        OUT
        vmovd   %xmm2, %eax
        OUT
        vaddps  %xmm0, %xmm0, %xmm1
        vextractf128 $1, %ymm1, %xmm2
        vmovd   %xmm2, %eax
        OUT
        resume64 1f
        vmovaps 4(%rbx), %ymm3
1:      vpcmpeqd %xmm0, %xmm0, %xmm0
        vinsertf128 $1, %xmm0, %ymm0, %ymm0
        vzeroupper
        vextractf128 $1, %ymm0, %xmm2
        vmovd   %xmm2, %eax
        OUT
        vmovd   %xmm0, %eax
        OUT
        xorl    %ecx, %ecx
        xgetbv
        andl    $7, %eax
        OUT
        expect  u64_avx
        .long   0x40c00000, 0x40800000, 0, VECTOR_TAG | 13, CODE_TAG, 0, 0xffffffff, 7
        end     u64_avx, NEEDS_AVX, "a fault makes it emulate the instruction, and it does not know VMOVAPS"

/* SDM 1 10.5.1: the layout of FXSAVE; 2 FXRSTOR: #GP(0) for reserved bits of MXCSR. */
        program u64_fxsave, USER64
        fninit
        movl    $0x1fa0, DATA+0x400
        ldmxcsr DATA+0x400
        fld1
        fldz
        fld1 /* in registers 7, 6, 5; TOP is 5 */
        movl    $0x12345678, %eax
        movd    %eax, %xmm0
        notl    %eax
        movd    %eax, %xmm15
        fxsave64 DATA
        movzwl  DATA, %eax
        OUT
        movzwl  DATA+2, %eax
        andl    $0x3800, %eax
        OUT
        movzbl  DATA+4, %eax
        OUT
        out     DATA+24
        out     DATA+32+4 /* ST0 is 1 */
        movzwl  DATA+32+8, %eax
        OUT
        out     DATA+48+4 /* ST1 is 0 */
        out     DATA+160
        out     DATA+160+15*16
        fninit
        pxor    %xmm0, %xmm0
        fxrstor64 DATA
        movd    %xmm0, %eax
        OUT
        fstps   DATA+0x400
        out     DATA+0x400
        orl     $0x80000000, DATA+24
        resume64 1f
        fxrstor64 DATA
1:      fninit
        expect  u64_fxsave
        .long   0x37f, 0x2800, 0xe0, 0x1fa0, 0x80000000, 0x3fff, 0, 0x12345678, 0xedcba987
        .long   0x12345678, 0x3f800000, VECTOR_TAG | 13, CODE_TAG
        end     u64_fxsave

/* SDM 1 13.4 (layout), 13.7, 13.8: what isn't in XSTATE_BV is initialized; #GP(0) unless aligned to
 * 64 bytes or with reserved bits in the header. */
        program u64_xsave, USER64
        movl    $0x55aa55aa, %eax
        movd    %eax, %xmm7
        fninit
        fldpi
        movl    $3, %eax
        xorl    %edx, %edx
        xsave64 DATA
        movl    DATA+512, %eax
        andl    $3, %eax
        OUT
        out     DATA+516
        out     DATA+160+7*16
        out     DATA+36
        movq    $1, DATA+512 /* XMM to their initial state */
        movl    $3, %eax
        xrstor64 DATA
        movd    %xmm7, %eax
        OUT
        fnstsw  %ax
        andl    $0x3800, %eax
        OUT
        movq    $0, DATA+512
        movl    $1, %eax
        xrstor64 DATA
        fnstsw  %ax
        andl    $0x3800, %eax
        OUT
        fnstcw  DATA
        movzwl  DATA, %eax
        OUT
        movl    $3, %eax
        movl    $DATA + 32, %ebx
        resume64 1f
        xsave64 (%rbx)
1:      movq    $1, DATA+528
        movl    $3, %eax
        resume64 1f
        xrstor64 DATA
1:      out     $0x600d
        expect  u64_xsave
        .long   3, 0, 0x55aa55aa, 0xc90fdaa2, 0, 0x3800, 0, 0x37f
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, 0x600d
        end     u64_xsave

/* SDM 1 13.4.1 to 13.4.3: the upper halves of YMM registers are at 576, in the standard form. */
        program u64_xsave_avx, USER64
        vpcmpeqd %xmm3, %xmm3, %xmm3
        vinsertf128 $1, %xmm3, %ymm3, %ymm9
        movl    $4, %eax
        xorl    %edx, %edx
        xsave64 DATA
        movl    DATA+512, %eax
        andl    $7, %eax
        OUT
        out     DATA+576+9*16
        out     DATA+160+9*16 /* not asked for */
        out     DATA+576+3*16
        vzeroupper
        movl    $4, %eax
        xrstor64 DATA
        vextractf128 $1, %ymm9, %xmm0
        vmovd   %xmm0, %eax
        OUT
        movq    $0, DATA+512
        movl    $4, %eax
        xrstor64 DATA
        vextractf128 $1, %ymm9, %xmm0
        vmovd   %xmm0, %eax
        OUT
        vmovd   %xmm9, %eax
        OUT
        expect  u64_xsave_avx
        .long   4, 0xffffffff, 0, 0, 0xffffffff, 0, 0xffffffff
        end     u64_xsave_avx, NEEDS_AVX

/* SDM 3A 11.6 (self-modifying code): seen at once through the same linear address. */
        program u64_self_modifying, USER64
        xorl    %ecx, %ecx
1:      movl    $1, %eax
        OUT
        incl    A(1b)+1 /* the constant just loaded */
        incl    %ecx
        cmpl    $4, %ecx
        jne     1b
        movb    $0x90, A(2f) /* in its own block, the next instruction */
        movb    $0x90, A(2f)+1
2:      ud2
        movb    $0xc3, DATA+3 /* MOV EAX, imm is at DATA soon */
        movl    $3, %ecx
3:      movl    %ecx, %edx
        shll    $8, %edx
        orl     $0xb8, %edx
        movl    %edx, DATA
        movl    $0xc3000000, DATA+2
        movb    $0, DATA+2
        movb    $0, DATA+4
        movl    $DATA, %ebx
        call    *%rbx
        OUT
        decl    %ecx
        jnz     3b
        expect  u64_self_modifying
        .long   1, 2, 3, 4, 3, 2, 1
        end     u64_self_modifying

/* SDM 3B 17.17: RDTSC never goes back on one processor. Counts how often it did, and did not move
 * at all over a long loop. */
        program u64_rdtsc, USER64
        xorl    %esi, %esi
        xorl    %edi, %edi
        movl    $2000, %ecx
        movq    %rcx, %r9
1:      rdtsc
        shlq    $32, %rdx
        orq     %rdx, %rax
        cmpq    %rdi, %rax
        jae     2f
        incl    %esi
2:      movq    %rax, %rdi
        cmpq    $2000, %r9
        cmoveq  %rax, %r10
        decq    %r9
        jnz     1b
        cmpq    %r10, %rdi
        seta    %cl
        movzbl  %cl, %ecx
        out     %esi
        out     %ecx
        expect  u64_rdtsc
        .long   0, 1
        end     u64_rdtsc

/* --- level 3, compatibility mode ------------------------------------------------------------- */

/* SDM 2 DAA, DAS, AAA, AAM, AAD, INTO, BOUND, PUSHA; invalid in 64-bit mode only. */
        program u32_old_instructions, USER32
        movl    %ss, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    $0x79, %eax
        addb    $0x35, %al /* AEH; adjusted 114 */
        daa
        movzbl  %al, %ebx
        flagsl  0xd5
        out     %ebx
        movl    $0x35, %eax
        subb    $0x47, %al
        das
        movzbl  %al, %ebx
        flagsl  0xd5
        out     %ebx
        movl    $0x10f, %eax
        aaa
        OUT
        movl    $77, %eax
        aam
        OUT
        aad
        OUT
        resume32 1f
        aam     $0
1:      movl    $0x7fffffff, %ecx
        addl    $1, %ecx
        into
1:      movl    FRAME_RIP, %eax
        subl    $A(1b), %eax
        OUT
        movl    $5, DATA
        movl    $9, DATA+4
        movl    $7, %ecx
        boundl  %ecx, DATA
        movl    $10, %ecx
        resume32 1f
        boundl  %ecx, DATA
1:      movl    %esp, %edx
        movl    $0xd1d1, %edi
        pushal
        out     (%esp)
        movl    12(%esp), %eax
        subl    %edx, %eax
        OUT
        movl    $0, %edi
        popal
        out     %edi
        movl    $DATA, %ebx
        movb    $0x5c, 0x20(%ebx)
        movb    $0x20, %al
        xlatb
        movzbl  %al, %eax
        OUT
        expect  u32_old_instructions
        .long   0x15, 0x14, 0x95, 0x88, 0x205, 0x707, 77, VECTOR_TAG, VECTOR_TAG | 4, 0
        .long   VECTOR_TAG | 5, 0xd1d1, 0, 0xd1d1, 0x5c
        end     u32_old_instructions, 0, "compatibility mode is emulated, without DAA and its like"

/* SDM 1 3.7.5 and 2 2.1.5 tables 2-1, 2-2: 16- and 32-bit forms; addresses wrap at 4 GiB. */
        program u32_addressing, USER32
        movl    %ss, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    $0x1234ff00, %ebx
        movl    $0x00000180, %esi
        addr16 leal 0x10(%bx,%si), %ecx
        out     %ecx
        addr16 leaw -1(%bx,%si), %cx
        out     %ecx
        movl    $0x77777777, DATA+0x24
        movl    $DATA, %ebx
        movl    $9, %edi
        out     (%ebx,%edi,4)
        movl    $0xffffffe0, %ecx
        out     0x44(%ebx,%ecx)
        movl    $(0x100000000 - DATA) & 0xffffffff, %ecx
        out     2*DATA+0x24(,%ecx,1)
        movl    %esp, %ebp
        pushl   $0x66
        out     -4(%ebp)
        out     (%esp)
        pushw   $0x1122
        subl    %esp, %ebp
        out     %ebp
        out     %ss:DATA+0x24
        movl    $0x8000, %ecx
        movsbl  %ch, %ecx
        out     %ecx
        expect  u32_addressing
        .long   0x0090, 0x007f, 0x77777777, 0x77777777, 0x77777777, 0x66, 0x66, 6
        .long   0x77777777, 0xffffff80
        end     u32_addressing

/* SDM 1 7.3.9; x87, SSE and FXSAVE (eight registers: 1 10.5.1) in compatibility mode. */
        program u32_strings_vector, USER32
        movl    %ss, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    $DATA, %edi
        movl    $0x30201000, %eax
        stosl
        stosl
        std
        movl    $DATA + 4, %esi
        movl    $DATA + 0x14, %edi
        movl    $2, %ecx
        rep movsl
        cld
        out     DATA+0x10
        out     %edi
        movl    $DATA, %edi
        movl    $0x20, %eax
        movl    $8, %ecx
        repne scasb
        out     %ecx
        fninit
        fld1
        fadd    %st(0)
        fstpl   DATA
        out     DATA+4
        movl    $0x89abcdef, %eax
        movd    %eax, %xmm7
        fxsave  DATA
        out     DATA+160+7*16
        pxor    %xmm7, %xmm7
        fxrstor DATA
        movd    %xmm7, %eax
        OUT
        movl    $0x1d80, DATA
        ldmxcsr DATA
        xorps   %xmm0, %xmm0
        movl    $0x3f800000, %eax
        movd    %eax, %xmm1
        resume32 1f
        divss   %xmm0, %xmm1
1:      movl    $1, %eax
        movl    %eax, DATA
        xorl    %edx, %edx
        movl    %edx, DATA+4
        movl    $7, %ebx
        movl    $8, %ecx
        cmpxchg8b DATA
        out     DATA+4
        expect  u32_strings_vector
        .long   0x30201000, DATA + 0xc, 5, 0x40000000, 0x89abcdef, 0x89abcdef, VECTOR_TAG | 19, 8
        end     u32_strings_vector, 0, "compatibility mode is emulated, without x87 and SSE"

#include "isa/engines_kernel.S"
#define NO_LEGACY   "protected mode is emulated, without IRET"
#define NO_PAGING32 "paging outside of long mode is refused with a general protection fault"
#include "isa/engines_gates.S"
#include "isa/engines_tasks.S"
#include "isa/engines_v86.S"
#include "isa/engines_segments.S"
#include "isa/engines_faults.S"
#include "isa/engines_paging32.S"
#include "isa/engines_legacy.S"
#include "isa/engines_debug.S"
#include "isa/engines_access.S"
#include "isa/engines_registers.S"
#include "isa/engines_paging.S"
#include "isa/engines_monitor.S"

        .section .data.rel.ro.engine_programs, "aw"
        .globl  engine_programs_end
engine_programs_end:
        .section .note.GNU-stack, "", @progbits
