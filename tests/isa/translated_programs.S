/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest programs of translated.c. Each is loaded at CODE; ADDR gives the address of a label in it
 * there. What harness.h says of physical memory holds; the rest is:
 */
        .set    CODE, 0x10000
        .set    PT, 0x103000
        .set    LOG, 0x140000           /* the next free address, then records */
        .set    FLAGS_LOG, 0x150000     /* RFLAGS of those records */
        .section .rodata
        .altmacro

        .macro  begin name
        .balign 16
        .globl  program_\name
program_\name:
        .endm
        .macro  end name
        .globl  program_\name\()_end
program_\name\()_end:
        .endm
        .macro  export name
        .globl  label_\name
label_\name:
        .endm
#define ADDR(program, label) (label - program_##program + CODE)
        .code64

/* --- code that changes ---------------------------------------------------------------------- */

/* The instruction behind the store is what the store makes. RBX: the sum. */
        begin   patch_ahead
        xorl    %ebx, %ebx
1:      movb    %cl, ahead_here+1(%rip)
        nop
ahead_here:
        movl    $0, %eax
        addl    %eax, %ebx
        decl    %ecx
        jnz     1b
        hlt
        end     patch_ahead

        begin   patch_behind
        xorl    %ebx, %ebx
1:
behind_here:
        movl    $0, %eax
        addl    %eax, %ebx
        movb    %cl, behind_here+1(%rip)
        decl    %ecx
        jnz     1b
        hlt
        end     patch_behind

/* Stores ECX to the constant of the function at RDI by its address in RSI, calls it, RCX times.
 * Each iteration has flags across the store, and checks them: R9 counts what is wrong. */
        .macro  patch_begin name
        begin   patch_\name
        xorl    %ebx, %ebx
        xorl    %r9d, %r9d
        cld
1:      movl    %ecx, %eax
        movq    %rdi, %r10
        movq    %rsi, %r11
        movq    %rcx, %r12
        movq    %rsp, %r13
        cmpl    $500, %ecx
        .endm
        .macro  patch_end name
        setb    %r14b
        movq    %r13, %rsp
        movq    %r12, %rcx
        movq    %r11, %rsi
        movq    %r10, %rdi
        cmpl    $500, %ecx
        setb    %r15b
        xorb    %r14b, %r15b
        movzbl  %r15b, %r15d
        addq    %r15, %r9
        call    *%rdi
        addq    %rax, %rbx
        decl    %ecx
        jnz     1b
        hlt
        end     patch_\name
        .endm

        patch_begin mov
        movl    %ecx, 1(%rsi)
        patch_end mov

        patch_begin bytes
        movb    %cl, 1(%rsi)
        movb    %ch, 2(%rsi)
        patch_end bytes

        patch_begin xchg
        xchgl   %eax, 1(%rsi)
        patch_end xchg

        patch_begin locked
        movl    1(%rsi), %eax
        lock cmpxchgl %ecx, 1(%rsi)
        cmpl    $500, %ecx
        patch_end locked

        patch_begin stos
        leaq    1(%rsi), %rdi
        movl    $1, %ecx
        rep stosl
        patch_end stos

        patch_begin movs
        movl    %ecx, -8(%rsp)
        leaq    1(%rsi), %rdi
        leaq    -8(%rsp), %rsi
        movl    $4, %ecx
        rep movsb
        patch_end movs

        patch_begin push
        leaq    9(%rsi), %rsp
        movl    $0xc3, %eax
        shlq    $32, %rax
        orq     %rcx, %rax
        cmpl    $500, %ecx
        pushq   %rax
        patch_end push

        patch_begin sse
        movd    %ecx, %xmm0
        movd    %xmm0, 1(%rsi)
        patch_end sse

/* The device writes the function when told by a store to RSI. */
        begin   patch_device
        xorl    %ebx, %ebx
1:      movl    %ecx, (%rsi)
        call    *%rdi
        addq    %rax, %rbx
        decl    %ecx
        jnz     1b
        hlt
        end     patch_device

/* Makes functions (MOV EAX; ADD EAX; RET) at RDI + 32 n, n < 64, calls each new one, changes its
 * second constant, calls it again, and calls all from time to time. RCX: how many. RBX: the sum. */
        begin   jit
        xorl    %ebx, %ebx
        xorl    %r8d, %r8d
1:      movl    %r8d, %edx
        andl    $63, %edx
        shll    $5, %edx
        leaq    (%rdi,%rdx), %rsi
        movb    $0xb8, (%rsi)
        movl    %r8d, 1(%rsi)
        movb    $0x05, 5(%rsi)
        leal    (%r8,%r8,2), %eax
        movl    %eax, 6(%rsi)
        movb    $0xc3, 10(%rsi)
        call    *%rsi
        addq    %rax, %rbx
        movl    %ebx, 6(%rsi)
        call    *%rsi
        addq    %rax, %rbx
        incl    %r8d
        testb   $63, %r8b
        jnz     3f
        xorl    %edx, %edx
2:      leaq    (%rdi,%rdx), %rsi
        call    *%rsi
        leaq    (%rax,%rbx,4), %rbx
        addl    $32, %edx
        cmpl    $2048, %edx
        jne     2b
3:      cmpl    %ecx, %r8d
        jne     1b
        hlt
        end     jit

/* Two processors: this one calls the function at RDI each time that (RSI) changes to be n, and
 * answers at 64(RSI). RCX: rounds. R9: how often it gave something else than n. */
        begin   cross_call
        xorl    %r9d, %r9d
        movl    %ecx, %r12d
        movl    $1, %r8d
1:      pause
        cmpl    %r8d, (%rsi)
        jne     1b
        serialize
        call    *%rdi
        cmpl    %r8d, %eax
        je      2f
        incq    %r9
2:      movl    %r8d, 64(%rsi)
        incl    %r8d
        cmpl    %r12d, %r8d
        jbe     1b
        hlt
        end     cross_call

/* The other: writes n into the function by its address in RDX. */
        begin   cross_write
        movl    $1, %r8d
1:      movl    %r8d, 1(%rdx)
        movl    %r8d, (%rsi)
2:      pause
        cmpl    %r8d, 64(%rsi)
        jne     2b
        incl    %r8d
        cmpl    %ecx, %r8d
        jbe     1b
        hlt
        end     cross_write

/* --- faults --------------------------------------------------------------------------------- */

/* Handler of page faults: notes all registers, CR2, the error code, RIP and RSP, RFLAGS apart;
 * makes the page present and writable and goes on. */
        .macro  page_fault_handler
        pushq   %r15
        movq    LOG, %r15
        movq    %rax, 0(%r15)
        movq    %rcx, 8(%r15)
        movq    %rdx, 16(%r15)
        movq    %rbx, 24(%r15)
        movq    %rbp, 32(%r15)
        movq    %rsi, 40(%r15)
        movq    %rdi, 48(%r15)
        movq    %r8, 56(%r15)
        movq    %r9, 64(%r15)
        movq    %r10, 72(%r15)
        movq    %r11, 80(%r15)
        movq    %r12, 88(%r15)
        movq    %r13, 96(%r15)
        movq    %r14, 104(%r15)
        pushq   %rax
        movq    8(%rsp), %rax           /* R15 */
        movq    %rax, 112(%r15)
        movq    %cr2, %rax
        movq    %rax, 120(%r15)
        movq    16(%rsp), %rax          /* error code */
        movq    %rax, 128(%r15)
        movq    24(%rsp), %rax          /* RIP */
        movq    %rax, 136(%r15)
        movq    48(%rsp), %rax          /* RSP */
        movq    %rax, 144(%r15)
        pushq   %rcx
        movq    FLAGS_LOG, %rcx
        movq    48(%rsp), %rax          /* RFLAGS, with 8 more on the stack */
        movq    %rax, (%rcx)
        addq    $8, FLAGS_LOG
        addq    $152, LOG
        popq    %rcx
        movq    %cr2, %rax
        shrq    $12, %rax
        orq     $3, PT(,%rax,8)
        movq    %cr2, %rax
        invlpg  (%rax)
        popq    %rax
        popq    %r15
        addq    $8, %rsp
        iretq
        .endm

/* Each access is to a page of its own: RBX + 4096 n, also the stacks. R15: what it computed. */
        begin   faults
        movq    %rbx, %r8
        xorl    %r15d, %r15d
        movl    $0x12345678, %eax
        movl    %eax, %ecx
        cmpl    $7, %eax
        movq    0x0000(%rbx), %rdx              /* load, flags live */
        adcq    $5, %rdx
        movq    %rdx, 0x1008(%rbx)              /* store */
        sbbl    %edx, 0x2010(%rbx)              /* RMW with carry */
        adcq    0x3018(%rbx), %rax              /* ALU load with carry */
        incl    0x4020(%rbx)
        leaq    0x6000(%rbx), %rsp
        pushq   %rax                            /* page 5 */
        pushfq
        popq    %rbp
        leaq    0x7000(%rbx), %rsp
        stc
        pushq   0x7100(%rbx)                    /* reads page 7, writes page 6 */
        leaq    0x8100(%rbx), %rsp
        popq    %rsi
        adcq    %rsi, %r15
        leaq    0x9200(%rbx), %rsp
        call    1f
1:      setc    %r9b
        movzbl  0xa001(%rbx), %edi
        rolq    $3, 0xb000(%rbx)
        rclq    $1, %rdi
        xaddq   %rdi, 0xc000(%rbx)
        cmpq    %rdi, %rax
        lock cmpxchgq %rcx, 0xd000(%rbx)
        cmovnzq 0xe000(%rbx), %r10
        setz    0xf000(%rbx)
        movw    %ax, 0x10fff(%rbx)              /* pages 16 and 17 */
        movq    0x12ffc(%rbx), %r11             /* pages 18 and 19 */
        leaq    0x14ff0(%rbx), %rdi
        leaq    0x16ff8(%rbx), %rsi
        movl    $32, %ecx
        stc
        rep movsb                               /* 20, 21 from 22, 23 */
        adcl    $0, %ecx
        leaq    0x18ff8(%rbx), %rdi
        movl    $3, %ecx
        rep stosq                               /* 24, 25 */
        leaq    0x1a000(%rbx), %rsi
        lodsq
        scasl
        leaq    0x1b000(%rbx), %rdi
        cmpsb                                   /* 26 and 27 */
        setb    %r13b
        movq    0x1c000(%rbx), %xmm0
        movups  %xmm0, 0x1d008(%rbx)
        addl    %eax, 0x1effe(%rbx)             /* RMW across 30 and 31 */
        adcq    $0, %r15
        leaq    0x20100(%rbx), %rbp
        leave
        movq    %rsp, %r14
        divl    0x21000(%rbx)
        xchgq   %rdx, 0x22000(%rbx)
        btsl    $5, 0x23000(%rbx)
        adcq    $0, %r15
        testb   $0x80, 0x24000(%rbx)
        setnz   %r12b
        notq    0x25000(%rbx)
        negl    0x26000(%rbx)
        setc    %ch
        shldq   $4, %rax, 0x27000(%rbx)
        cvtsi2sdq 0x28000(%rbx), %xmm1
        leaq    0x2a018(%rbx), %rsp             /* runs of pushes and pops over pages 29h, 2ah */
        pushq   %rax
        pushq   %rcx
        pushq   %rdx
        pushq   %rbx
        pushq   %rsi
        pushq   %rdi
        popq    %rdi
        popq    %rsi
        popq    %r11
        popq    %rdx
        popq    %rcx
        popq    %r10
        movq    %rax, %xmm2                     /* vector registers that change between faults */
        paddq   %xmm2, %xmm2
        movdqu  0x2b000(%rbx), %xmm3
        paddq   %xmm3, %xmm2
        movdqu  %xmm2, 0x2c008(%rbx)
        pxor    0x2d000(%rbx), %xmm3
        incq    0x2e000(%rbx)
        pshufd  $0x1b, %xmm3, %xmm4
        addsd   %xmm1, %xmm1
        movups  %xmm4, 0x2f001(%rbx)
        jmp     *0x30000(%rbx)
        export  faults_after
        pushfq                                  /* on page 20h, where LEAVE has left RSP */
        popq    %rdi
        addq    %rdi, %r15
        movq    $0x8000, %rsp
        hlt
        .balign 64
        export  faults_handler
        movups  %xmm2, (0x170800)
        movups  %xmm3, (0x170810)
        page_fault_handler
        end     faults

/* --- x87 and MMX ---------------------------------------------------------------------------- */

/* Bits 2 and 3 of R12 go to CR0.EM and CR0.TS before x87 code and before MMX code, R12 times. The
 * handler of what they forbid notes where that was and clears both. */
        begin   x87_units
        xorl    %ebx, %ebx
        xorl    %r9d, %r9d
        xorl    %r10d, %r10d
        fninit
        movq    %cr0, %r11
1:      movl    %r12d, %ecx
        andl    $0xc, %ecx
        orq     %r11, %rcx
        movq    %rcx, %cr0
        fildl   (%rdi)
        fadd    %st(0), %st(0)
        fistpl  8(%rdi)
        movl    8(%rdi), %eax
        addq    %rax, %r9
        movq    %rcx, %cr0
        movq    (%rdi), %mm0
        paddd   %mm0, %mm0
        movq    %mm0, 16(%rdi)
        movq2dq %mm0, %xmm0
        emms
        movq    %xmm0, %rax
        addq    %rax, %r9
        decl    %r12d
        jnz     1b
        movq    %r11, %cr0
        hlt
        .balign 64
        export  x87_units_handler
        incl    %ebx
        rolq    $5, %r10
        addq    (%rsp), %r10
        movq    %r11, %cr0
        iretq
        end     x87_units

/* R10: a mix of all that was seen. From the environment at RDI + at: status, and the pointers. */
        .macro  mix from
        rolq    $7, %r10
        movl    \from, %r11d
        addq    %r11, %r10
        .endm
        .macro  mix_environment at
        fnstenv \at(%rdi)
        mix     <\at+4(%rdi)>
        mix     <\at+12(%rdi)>
        mix     <\at+16(%rdi)>
        mix     <\at+20(%rdi)>
        .endm

/* Divides by zero, which bit 0 of R12 unmasks, in one block with an FWAIT, and before a block that
 * begins with x87 or, by bit 1, MMX. What was masked is unmasked by an FLDENV. R12 times; RBX counts
 * exceptions. */
        begin   x87_unmasked
        xorl    %ebx, %ebx
        xorl    %r10d, %r10d
1:      fninit
        movl    $0x37b, %eax
        testb   $1, %r12b
        jnz     2f
        movl    $0x37f, %eax
2:      movw    %ax, (%rdi)
        fldcw   (%rdi)
        fldz
        fld1
        fdiv    %st(1), %st
        fnstsw  %ax
        mix     <%eax>
        fwait
        fnstcw  2(%rdi)
        mix     <(%rdi)>
        fld1
        fdiv    %st(2), %st
        testb   $2, %r12b
        jnz     3f
        fldl    8(%rdi)
        jmp     4f
3:      paddd   %mm0, %mm1
4:      mix_environment 32
        andl    $~4, 32(%rdi)
        fldenv  32(%rdi)
        fld1
        fadd    %st(0), %st(0)
        mix_environment 32
        decl    %r12d
        jnz     1b
        hlt
        .balign 64
        export  x87_unmasked_handler
        incl    %ebx
        mix     <(%rsp)>                        /* RIP */
        mix_environment 64
        fnclex
        fldcw   (%rdi)
        iretq
        end     x87_unmasked

/* Faults behind x87 operations, whose pointers the handler sees: at accesses that are checked
 * together, and at an operation. Then as many operations as fill a block. */
        .macro  unmap
        movq    %rsi, %rax
        shrq    $12, %rax
        andq    $~1, PT(,%rax,8)
        invlpg  (%rsi)
        .endm
        begin   x87_pointers
        xorl    %ebx, %ebx
        xorl    %r10d, %r10d
        fninit
1:      unmap
        fldl    (%rdi)
        leaq    8(%rdi), %rdx
        fmull   (%rdx)
        xorl    %edx, %edx
        movq    (%rsi), %rax
        addq    8(%rsi), %rax
        fstpl   16(%rdi)
        unmap
        fldl    8(%rdi)
        fldt    (%rsi)
        fxch
        fstpl   24(%rdi)
        jmp     2f
2:      .rept   64
        fchs
        .endr
        mix_environment 32
        fstpt   32(%rdi)
        decl    %r12d
        jnz     1b
        hlt
        .balign 64
        export  x87_pointers_handler
        incl    %ebx
        mix     <8(%rsp)>                       /* RIP */
        mix_environment 64
        movq    %cr2, %r11
        shrq    $12, %r11
        orq     $1, PT(,%r11,8)
        addq    $8, %rsp
        iretq
        end     x87_pointers

/* --- interrupts ----------------------------------------------------------------------------- */

/* Sums with carry over the 16 quadwords at RDI, with memory, branches and calls between; the sum
 * must be R8 each time, else R9 is one more. Until 0(RSI), which the handler counts, is RCX. */
        begin   load
        xorl    %r9d, %r9d
1:      movl    $16, %edx
        xorl    %eax, %eax
        movq    %rdi, %rbp
        clc
2:      adcq    (%rbp), %rax
        leaq    8(%rbp), %rbp
        movq    %rax, %r10
        pushq   %rax
        call    4f
        popq    %r11
        leaq    (%r11), %rbx
        decl    %edx                    /* CF lives on */
        jnz     2b
        adcq    $0, %rax
        cmpq    %r8, %rax
        je      3f
        incq    %r9
3:      cmpq    %r10, %rbx
        je      5f
        incq    %r9
5:      cmpq    %rcx, (%rsi)
        jb      1b
        cli
        hlt
4:      movq    %r10, %r11
        ret
        export  load_end
        .balign 64
        /* Saves, wrecks and restores everything; RIP has to be in the program. */
        export  load_handler
        pushq   %rax
        pushq   %rcx
        pushq   %rbx
        movq    24(%rsp), %rax
        subq    $CODE, %rax
        cmpq    $(label_load_end - program_load), %rax
        jb      1f
        incq    8(%rsi)                 /* not there */
1:      testl   $0x200, 40(%rsp)
        jnz     2f
        incq    8(%rsi)                 /* not when IF is clear */
2:      incq    (%rsi)
        movl    $-1, %eax
        addl    $1, %eax
        movl    $0x55555555, %ebx
        sbbq    %rcx, %rcx
        popq    %rbx
        popq    %rcx
        popq    %rax
        iretq
        end     load

/* Waits for interrupts in HLT, RCX of them, each right after STI; with the next instruction in the
 * shadow. The handler counts in (RSI). */
        begin   halts
1:      cli
        movq    (%rsi), %rax
        movl    $5, %edx
2:      decl    %edx
        jnz     2b
        sti
        export  halts_shadow
        hlt
        cmpq    %rax, (%rsi)
        jne     3f
        incq    8(%rsi)                 /* HLT ended with no interrupt */
3:      cmpq    %rcx, (%rsi)
        jb      1b
        cli
        hlt
        export  halts_handler
        pushq   %rax
        movq    8(%rsp), %rax
        cmpq    $(label_halts_shadow - program_halts + CODE), %rax
        jne     1f
        incq    16(%rsi)                /* in the shadow */
1:      incq    (%rsi)
        popq    %rax
        iretq
        end     halts

/* STI with an interrupt pending, RCX times: the shadow's instruction is always done. */
        begin   shadow
        xorl    %eax, %eax
1:      outb    %al, $0x80              /* asks for an interrupt */
        sti
        incl    %eax
        export  shadow_after
        nop
        cli
        decl    %ecx
        jnz     1b
        hlt
        .balign 16
        export  shadow_handler
        movq    (%rsp), %rdx
        leaq    (%rdx,%rbx,2), %rbx
        iretq
        end     shadow

/* Runs a body hot, then single-stepped. The handler notes RIP. */
        begin   stepped
        xorl    %ebx, %ebx
        movl    $40, %r12d
1:      cmpl    $3, %r12d
        jne     2f
        pushfq
        orq     $0x100, (%rsp)
        popfq
2:      movl    %r12d, %eax
        call    stepped_function
        pushq   %rax
        cmpq    $100, %rax
        popq    %rdx
        sbbq    %rdx, %rbx
        movl    $3, %ecx
        leaq    -64(%rsp), %rdi
        rep stosb
        decl    %r12d
        jnz     1b
        pushfq
        andq    $~0x100, (%rsp)
        popfq
        hlt
stepped_function:
        leal    (%rax,%rax,4), %eax
        testb   $1, %al
        jz      1f
        addl    %ebx, %eax
1:      ret
        .balign 64
        export  stepped_handler
        pushq   %rax
        pushq   %rcx
        movq    LOG, %rax
        movq    16(%rsp), %rcx
        movq    %rcx, (%rax)
        movq    32(%rsp), %rcx
        movq    %rcx, 8(%rax)
        movq    %rbx, 16(%rax)
        addq    $24, LOG
        popq    %rcx
        popq    %rax
        iretq
        end     stepped

/* --- modes ---------------------------------------------------------------------------------- */

/* Level 3: system calls and INT 80H in a hot loop of R12. R9 counts what is wrong. */
        begin   levels
        xorl    %r9d, %r9d
        xorl    %ebx, %ebx
1:      movl    %r12d, %eax
        cmpl    $77, %eax               /* flags live across SYSCALL */
        syscall
        setb    %dl
        cmpl    $77, %r12d
        setb    %dh
        cmpb    %dl, %dh
        je      2f
        incl    %r9d
2:      addq    %rax, %rbx
        movl    %r12d, %eax
        stc
        int     $0x80
        jc      3f
        incl    %r9d
3:      addq    %rax, %rbx
        movw    %cs, %dx
        andl    $3, %edx
        cmpl    $3, %edx
        je      4f
        incl    %r9d
4:      decl    %r12d
        jnz     1b
        hlt                             /* #GP */
        .balign 64
        export  levels_syscall
        movq    %rsp, %r14
        movl    $0x8000, %esp
        pushq   %r11
        leaq    (%rax,%rax,2), %rax
        movw    %cs, %dx
        testb   $3, %dl
        jz      1f
        incl    %r9d
1:      popq    %r11
        movq    %r14, %rsp
        sysretq
        .balign 64
        export  levels_int
        leaq    1(%rax,%rax,4), %rax
        xorl    %edx, %edx
        iretq
        end     levels

/* Calls RDI in each of two address spaces (CR3 in R13, R14), and with one page changed by its entry
 * (R8) and INVLPG. R12: times. RBX: an order-dependent sum. */
        begin   spaces
        xorl    %ebx, %ebx
1:      movq    %r13, %cr3
        call    *%rdi
        leaq    (%rax,%rbx,2), %rbx
        movq    %r14, %cr3
        call    *%rdi
        leaq    (%rax,%rbx,2), %rbx
        rolq    $7, %rbx
        movq    (%r8), %rcx
        movq    %r15, (%r8)
        invlpg  (%rdi)
        call    *%rdi
        leaq    (%rax,%rbx,2), %rbx
        movq    %rcx, (%r8)
        movq    %r13, %cr3
        call    *%rdi
        leaq    (%rax,%rbx,2), %rbx
        decl    %r12d
        jnz     1b
        hlt
        end     spaces

/* CR0.WP: a write to the read-only page RDI faults when it is set. The handler counts in RBX and
 * clears it. Every other iteration sets it. Then the same with AC and a user page at RSI. */
        begin   protection
        xorl    %ebx, %ebx
        xorl    %r9d, %r9d
1:      movq    %cr0, %rax
        orq     $0x10000, %rax
        testb   $1, %r12b
        jnz     2f
        andq    $~0x10000, %rax
2:      movq    %rax, %cr0
        movl    $4, %ecx
3:      incl    (%rdi)
        addl    %ecx, 8(%rdi)
        decl    %ecx
        jnz     3b
        stac
        addl    $1, (%rsi)
        testb   $3, %r12b
        jz      4f
        clac
4:      addl    $1, 4(%rsi)
        movl    4(%rsi), %edx
        addq    %rdx, %r9
        decl    %r12d
        jnz     1b
        stac
        hlt
        .balign 64
        export  protection_handler
        incl    %ebx
        movq    %cr2, %rax
        xorq    %rsi, %rax
        testq   $~0xfff, %rax
        jz      1f
        movq    %cr0, %rax
        andq    $~0x10000, %rax
        movq    %rax, %cr0
        addq    $8, %rsp
        iretq
1:      addq    $8, %rsp
        orq     $0x40000, 16(%rsp)      /* AC */
        addl    $0x10000, %ebx
        iretq
        end     protection

/* Level 3, 64 bits, and calls of 32-bit code by far jumps, R12 times. */
        begin   narrow
        xorl    %ebx, %ebx
        movl    %esp, %ebp
1:      movl    %r12d, %ecx             /* the upper registers are out of reach there */
        ljmp    *narrow_to32(%rip)
narrow_back:
        movl    %ecx, %r12d
        movabsq $0x100000001, %rdx
        addq    %rdx, %rbx
        leaq    (%rbx,%rax), %rbx
        decl    %r12d
        jnz     1b
        hlt
        .balign 4
narrow_to32:
        .long   ADDR(narrow, narrow32)
        .word   0x1b
        .code32
narrow32:
        movl    %ecx, %eax
        .byte   0x40                    /* INC EAX here, REX in 64-bit mode */
        addl    %eax, %eax
        pushl   %eax
        popl    %edx
        adcl    %edx, %eax
        .byte   0x48                    /* DEC EAX */
        ljmp    $0x2b, $ADDR(narrow, narrow_back)
        .code64
        end     narrow

/* --- leaving -------------------------------------------------------------------------------- */

        begin   forever_one
1:      jmp     1b
        end     forever_one
        begin   forever_two
1:      jmp     2f
        nop
2:      jmp     1b
        end     forever_two
        begin   forever_pages           /* at the end of its page, and in the next */
        jmp     1f
        .org    program_forever_pages + 0x1000
1:      incl    %eax
        jmp     program_forever_pages
        end     forever_pages
        begin   forever_call
1:      call    2f
        jmp     1b
2:      incq    %rax
        ret
        end     forever_call
        begin   forever_indirect
        leaq    1f(%rip), %rdx
1:      jmp     *%rdx
        end     forever_indirect
        begin   forever_string
1:      movl    $0x180000, %edi
        movl    $4096, %ecx
        rep stosb
        jmp     1b
        end     forever_string

/* --- two processors ------------------------------------------------------------------------- */

/* RCX times: LOCK ADD at RDI, CMPXCHG at 64(RDI), XADD at 128(RDI), a spin lock at 192(RDI) over a
 * plain counter at 256(RDI). */
        begin   counters
1:      lock addq $3, (%rdi)
2:      movq    64(%rdi), %rax
        leaq    5(%rax), %rdx
        lock cmpxchgq %rdx, 64(%rdi)
        jne     2b
        movl    $7, %edx
        lock xaddq %rdx, 128(%rdi)
3:      movl    $1, %eax
        xchgl   %eax, 192(%rdi)
        testl   %eax, %eax
        jz      4f
        pause
        jmp     3b
4:      incq    256(%rdi)
        movl    $0, 192(%rdi)
        decq    %rcx
        jnz     1b
        hlt
        end     counters

/* Message passing: data 0(RDI), then flag at 64(RDI). */
        begin   send
        movl    $1, %eax
1:      movq    %rax, (%rdi)
        movq    %rax, 8(%rdi)
        movq    %rax, 64(%rdi)
        incq    %rax
        cmpq    %rcx, %rax
        jbe     1b
        hlt
        end     send

/* Data is never older than the flag. R9 counts violations. */
        begin   receive
        xorl    %r9d, %r9d
1:      movq    64(%rdi), %rax
        movq    8(%rdi), %rdx
        movq    (%rdi), %rbx
        cmpq    %rax, %rdx
        jae     2f
        incq    %r9
2:      cmpq    %rdx, %rbx
        jae     3f
        incq    %r9
3:      cmpq    %rcx, %rax
        jb      1b
        hlt
        end     receive

/* Store buffering: stores to (RDI), fences, reads (RSI) to (RDX), meets the other at the barrier R8
 * between rounds. R10 is 0 or 1: which. */
        begin   buffering
        movl    $1, %r11d
1:      lock incq (%r8)                 /* both come */
        leaq    (%r11,%r11), %rax
2:      cmpq    %rax, (%r8)
        jb      2b
        movq    %r11, (%rdi)
        mfence
        movq    (%rsi), %rbx
        movq    %rbx, (%rdx)
        lock incq 64(%r8)
3:      cmpq    %rax, 64(%r8)
        jb      3b
        testl   %r10d, %r10d
        jnz     4f
        movq    (%rdx), %rbx            /* both old: forbidden */
        cmpq    %r11, %rbx
        jae     4f
        movq    64(%rdx), %rbx
        cmpq    %r11, %rbx
        jae     4f
        incq    128(%rdx)
4:      incq    %r11
        cmpq    %rcx, %r11
        jbe     1b
        hlt
        end     buffering

        .section .note.GNU-stack,"",@progbits
