/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest programs of debugger.c, in 64-bit mode at CPL 0; position independent, loaded one after
 * another. RBX is the address of a page of data. Each ends by OUT to port F4H. Labels that begin
 * with at_ are where the debugger is to stop, or sees RIP after a stop.
 */
        .section .rodata
        .globl  debugger_start, debugger_end
        .code64

        .macro  label name
        .globl  \name
\name:
        .endm
        .macro  done
        outb    %al, $0xf4
0:      jmp     0b
        .endm

debugger_start:
/* RCX times around; RAX counts. */
label loop
        xorl    %eax, %eax
label at_loop
        incq    %rax
label at_middle
        leaq    (%rax,%rax), %rdx
        decq    %rcx
        jnz     at_loop
        done

/* RCX times a call, a call through RDX, and their returns; RAX counts. */
label calls
        xorl    %eax, %eax
        leaq    at_callee(%rip), %rdx
0:      call    at_callee
label at_return
        call    *%rdx
label at_return_2
        decq    %rcx
        jnz     0b
        done
label at_callee
        incq    %rax
        ret

/* An instruction each; single steps stop between them. */
label steps
        movl    $1, %eax
label at_steps_1
        jmp     at_steps_3
label at_steps_2
        nop
label at_steps_3
        call    at_steps_5
label at_steps_4
        done
label at_steps_5
        pushq   %rax
label at_steps_6
        popq    %rax
label at_steps_7
        ret

/* What the guest sees of its own debug registers and trap flag, while it is debugged. */
label own
        movq    %dr7, %rsi
        movq    %dr6, %rdi
label at_own
        pushfq
        popq    %rdx
        done

/* A fault: its handler returns after the UD2. */
label fault
        movl    $7, %eax
label at_fault
        ud2
label at_after_fault
        incl    %eax
        done
label ud_handler
        addq    $2, (%rsp)
label at_handler_2
        iretq

/* A breakpoint of the guest's own: counted in RBP, and passed by RF. */
label db_handler
        incq    %rbp
        orl     $0x10000, 16(%rsp)
        iretq

/* Interrupts are on: vector 40H counts in RBP. */
label interruptible
        sti
        nop
label at_interruptible
        incl    %eax
label at_interruptible_2
        incl    %eax
label at_interruptible_3
        incl    %eax
        done
label interrupt_handler
        incq    %rbp
        iretq

/* Accesses of the quadword at RBX + 100H: the first of each kind is announced by its label behind
 * it. Those before touch only its neighbours. */
label accesses
        movb    $1, 0xff(%rbx)
        movb    $1, 0x108(%rbx)
        movq    0xf8(%rbx), %rax
        movq    0x108(%rbx), %rax
        movb    $5, 0x103(%rbx)
label at_byte_written
        movl    0xfe(%rbx), %eax
label at_read_across
        lock xaddl %eax, 0x100(%rbx)
label at_exchanged
        movdqu  %xmm0, 0xf8(%rbx)
label at_vector_written
        leaq    0x108(%rbx), %rsp
        pushq   %rax
label at_pushed
        popq    %rax
label at_popped
        movq    %rbx, %rdi
        movl    $0x300, %ecx
        cld
        rep stosb
label at_filled
        leaq    0x800(%rbx), %rsp
        done

/* A watched access that faults has not happened: the page above 1 GiB is not mapped. */
label half
        movq    %rbx, %rsi
        movl    $0x40000000, %edi
        movsb
label at_after_half
        movb    (%rbx), %al
label at_half_read
        done
label pf_handler
        addq    $8, %rsp
        incq    (%rsp)
        iretq

/* Its own INT3 is the guest's matter: the handler counts in RBP. */
label own_int3
        int3
label at_own_int3
        nop
        done
label bp_handler
        incq    %rbp
        iretq
debugger_end:

/* In real mode, at 1000:0000. */
        .code16
        .globl  debugger16_start, at_real, debugger16_end
debugger16_start:
        movw    $3, %ax
at_real:
        incw    %ax
        outb    %al, $0xf4
0:      jmp     0b
debugger16_end:
        .section .note.GNU-stack, "", @progbits
