/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Programs about far transfers between privilege levels: call gates of 16, 32 and 64 bits, far
 * returns, conforming segments. Included by engines_programs.S.
 */
        .macro  stop
        outl    %eax, $END
0:      jmp     0b
        .endm
/* A descriptor of the program's own: its two doublewords. */
        .macro  descriptor selector, low, high
        movl    $\low, GDT + (\selector & ~7)
        movl    $\high, GDT + (\selector & ~7) + 4
        .endm
/* A call gate to a label; `high`: what stands above the offset's lower half. Uses EAX. */
        .macro  call_gate selector, cs, label, high
        movl    $A(\label), %eax
        movw    %ax, GDT + (\selector & ~7)
        movw    $\cs, GDT + (\selector & ~7) + 2
        movl    $\high, GDT + (\selector & ~7) + 4
        shrl    $16, %eax
        movw    %ax, GDT + (\selector & ~7) + 6
        .endm
/* To another level, with its stack. */
        .macro  to_level cs, ss, label, stack=STACK3, flags=2
        pushl   $\ss
        pushl   $\stack
        pushl   $\flags
        pushl   $\cs
        pushl   $A(\label)
        iretl
        .endm
/* A gate of the IDT that level 3 may use, straight to a label. Uses EAX. */
        .macro  idt_gate vector, label, type=0xee00, cs=KERNEL_CS32
        movl    $A(\label), %eax
        movw    %ax, IDT + \vector * 8
        movw    $\cs, IDT + \vector * 8 + 2
        movw    $\type, IDT + \vector * 8 + 4
        shrl    $16, %eax
        movw    %ax, IDT + \vector * 8 + 6
        .endm
/* OUT needs IOPL 3 there. */
#define IOPL3 0x3002

/* SDM 3A 5.8.3 to 5.8.5, 2A CALL, RET: a call gate of 32 bits from level 3 to 0 takes the stack from
 * the TSS and copies two parameters; RET n gives them back on both stacks and drops segments that
 * the outer level may not have. */
        program gate_call32, P32
        call_gate SPARE, KERNEL_CS32, 1f, 0xec02
        to_level USER_CS32, USER_SS, 3f, flags=IOPL3
3:      movl    $USER_SS, %eax
        movl    %eax, %ds
        movl    $CONFORMING, %eax
        movl    %eax, %fs
        pushl   $0x11
        pushl   $0x22
        lcalll  $SPARE, $0x12345678 /* the offset is ignored */
2:      out     %esp
        movl    %cs, %eax
        OUT
        movl    %es, %eax /* KERNEL_SS at level 0 */
        OUT
        movl    %fs, %eax
        OUT
        movl    %ds, %eax
        OUT
        stop
1:      movl    $KERNEL_SS, %eax
        movl    %eax, %es
        movl    %cs, %eax
        OUT
        movl    %ss, %eax
        OUT
        out     %esp
        movl    (%esp), %eax
        subl    $A(2b), %eax
        OUT
        out     4(%esp)
        out     8(%esp)
        out     12(%esp)
        out     16(%esp)
        out     20(%esp)
        lretl   $8
        expect  gate_call32
        .long   KERNEL_CS32, KERNEL_SS, STACK0 - 24, 0, USER_CS32, 0x22, 0x11, STACK3 - 8, USER_SS
        .long   STACK3, USER_CS32, 0, CONFORMING, USER_SS
        end     gate_call32, 0, NO_LEGACY

/* SDM 3A 5.8.4, table 5-1 (rules for JMP and CALL), 2A: error codes. */
        program gate_checks, P32
        call_gate SPARE, KERNEL_CS32, 1f, 0x8c00        /* for level 0 alone */
        call_gate SPARE + 8, KERNEL_CS32, 1f, 0x6c00    /* absent */
        call_gate SPARE + 16, KERNEL_SS, 1f, 0xec00     /* no code */
        call_gate SPARE + 24, 0, 1f, 0xec00
        call_gate SPARE + 32, ABSENT_CODE, 1f, 0xec00
        call_gate SPARE + 40, KERNEL_CS32, 1f, 0xec00
        call_gate SPARE + 48, CONFORMING, 5f, 0xec00
        to_level USER_CS32, USER_SS, 3f, flags=IOPL3
3:      movl    $USER_SS, %eax
        movl    %eax, %ds
        resume32 2f
        lcalll  $SPARE, $0
2:      resume32 2f
        lcalll  $(SPARE + 8), $0
2:      resume32 2f
        lcalll  $(SPARE + 16), $0
2:      resume32 2f
        lcalll  $(SPARE + 24), $0
2:      resume32 2f
        lcalll  $(SPARE + 32), $0
2:      resume32 2f
        ljmpl   $(SPARE + 40), $0       /* JMP goes to no inner level */
2:      lcalll  $(SPARE + 48), $0       /* conforming: the level stays */
        ljmpl   $(SPARE + 48 + 3), $0
5:      movl    %cs, %eax
        OUT
        out     %esp
        cmpl    $STACK3, %esp
        je      4f
        lretl
4:      stop
1:      ud2
        expect  gate_checks
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE, VECTOR_TAG | 11, CODE_TAG | (SPARE + 8)
        .long   VECTOR_TAG | 13, CODE_TAG | KERNEL_SS, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 11, CODE_TAG | ABSENT_CODE, VECTOR_TAG | 13, CODE_TAG | KERNEL_CS32
        .long   CONFORMING | 3, STACK3 - 8, CONFORMING | 3, STACK3
        end     gate_checks, 0, NO_LEGACY

/* SDM 2A CALL (more privilege): #TS for what is wrong with the TSS's stack, #SS when it is absent or
 * has no room, each with its selector. The same for interrupts: 3A 6.12.1. */
        program gate_stack_faults, P32
        call_gate SPARE, CODE_R1, 1f, 0xec00            /* level 0 is for the handlers */
        descriptor SPARE + 8, 0x0000ffff, 0x00cf3300    /* data of level 1, absent */
        descriptor SPARE + 16, 0x00000007, 0x0040b300   /* eight bytes of it */
        idt_gate 0x80, 1f, cs=CODE_R1
        to_level USER_CS32, USER_SS, 4f, flags=IOPL3
4:      movl    $USER_SS, %eax
        movl    %eax, %ds
        movl    $0, TSS + 16
        resume32 2f
        lcalll  $SPARE, $0
2:      movl    $KERNEL_SS, TSS + 16
        resume32 2f
        lcalll  $SPARE, $0
2:      resume32 2f
        int     $0x80
2:      movl    $(0xf000 | 1), TSS + 16
        resume32 2f
        lcalll  $SPARE, $0
2:      movl    $(CODE_R1), TSS + 16
        resume32 2f
        lcalll  $SPARE, $0
2:      movl    $(SPARE + 8 + 1), TSS + 16
        resume32 2f
        lcalll  $SPARE, $0
2:      movl    $(SPARE + 16 + 1), TSS + 16
        movl    $8, TSS + 12
        resume32 2f
        lcalll  $SPARE, $0
2:      resume32 2f
        int     $0x80
2:      out     $0x600d
        stop
1:      ud2
        expect  gate_stack_faults
        .long   VECTOR_TAG | 10, CODE_TAG, VECTOR_TAG | 10, CODE_TAG | KERNEL_SS
        .long   VECTOR_TAG | 10, CODE_TAG | KERNEL_SS, VECTOR_TAG | 10, CODE_TAG | 0xf000
        .long   VECTOR_TAG | 10, CODE_TAG | (CODE_R1 & ~3), VECTOR_TAG | 12, CODE_TAG | (SPARE + 8)
        .long   VECTOR_TAG | 12, CODE_TAG | (SPARE + 16), VECTOR_TAG | 12, CODE_TAG | (SPARE + 16)
        .long   0x600d
        end     gate_stack_faults, 0, NO_LEGACY

/* SDM 3A 5.8.3 (gates of 16 bits push and copy words), 3.4.5; the return of 16 bits. */
        program gate_call16, P32
        call_gate SPARE, CODE16, 1f, 0xe403
        movl    $R(1f), %eax
        movw    %ax, GDT + SPARE
        movl    $DATA16, TSS + 8        /* a stack of 16 bits, based at CODE */
        movl    $(0xabcd0000 | (DATA - CODE)), TSS + 4
        /* Code of level 3 whose offsets fit into words. */
        descriptor SPARE + 8, 0x0000ffff | (CODE & 0xffff) << 16, 0x0040fb00 | CODE >> 16
        pushl   $USER_SS
        pushl   $STACK3
        pushl   $IOPL3
        pushl   $(SPARE + 8 + 3)
        pushl   $R(3f)
        iretl
3:      movl    $USER_SS, %eax
        movl    %eax, %ds
        pushw   $0x11
        pushw   $0x22
        pushw   $0x33
        lcalll  $SPARE, $0
2:      out     %esp
        movl    %cs, %eax
        OUT
        stop
        .code16
1:      movl    %cs, %eax
        OUT
        movzwl  %sp, %eax
        OUT
        movw    %sp, %bp
        movzwl  (%bp), %eax
        subl    $R(2b), %eax
        OUT
        movzwl  2(%bp), %eax
        OUT
        out     4(%bp)
        movzwl  8(%bp), %eax
        OUT
        out     10(%bp)
        lretw   $6
        .code32
        expect  gate_call16
        .long   CODE16, 0x10000 - 14, 0, SPARE + 8 + 3, 0x220033, 0x11
        .long   (STACK3 - 6) & 0xffff | USER_SS << 16, STACK3 & 0xffff, SPARE + 8 + 3
        end     gate_call16, 0, NO_LEGACY

/* SDM 3A 5.5, 5.8: from level 3 inwards one level at a time, and by RET outwards again; an RET
 * inwards is #GP of the selector. */
        program gate_levels, P32
        movl    $0x31000, TSS + 12
        movl    $DATA_R1, TSS + 16
        movl    $0x32000, TSS + 20
        movl    $DATA_R2, TSS + 24
        call_gate SPARE, KERNEL_CS32, 1f, 0xec00
        call_gate SPARE + 8, CODE_R1, 2f, 0xec00
        call_gate SPARE + 16, CODE_R2, 3f, 0xec00
        to_level USER_CS32, USER_SS, 4f, flags=IOPL3
4:      movl    $USER_SS, %eax
        movl    %eax, %ds
        lcalll  $(SPARE + 16), $0
        movl    %cs, %eax
        OUT
        pushl   $CODE_R2
        pushl   $0
        resume32 4f
        lretl
4:      stop
3:      movl    %cs, %eax
        OUT
        out     %esp
        lcalll  $(SPARE + 8), $0
        movl    %cs, %eax
        OUT
        lretl
2:      movl    %cs, %eax
        OUT
        out     %esp
        lcalll  $SPARE, $0
        movl    %ss, %eax
        OUT
        lretl
1:      movl    %cs, %eax
        OUT
        out     %esp
        lretl
        expect  gate_levels
        .long   CODE_R2, 0x32000 - 16, CODE_R1, 0x31000 - 16, KERNEL_CS32, STACK0 - 16, DATA_R1
        .long   CODE_R2, USER_CS32, VECTOR_TAG | 13, CODE_TAG | (CODE_R2 & ~3)
        end     gate_levels, 0, NO_LEGACY

/* SDM 3A 5.8.3.1, 5.8.5.1: a call gate of 64 bits, 16 bytes long, from compatibility mode and from
 * 64-bit mode; SS becomes null, no parameters, a frame of quadwords. Only to 64-bit code; the upper
 * half's type is 0. */
        program gate_call64, LONG
        user_pages
        movl    $A(1f), %eax
        movw    %ax, GDT + SPARE
        movw    $KERNEL_CS, GDT + SPARE + 2
        movl    $0xec05, GDT + SPARE + 4
        shrl    $16, %eax
        movw    %ax, GDT + SPARE + 6
        movq    $0, GDT + SPARE + 8
        movq    GDT + SPARE, %rax
        movq    %rax, GDT + SPARE + 16
        movl    $0, GDT + SPARE + 24
        movl    $0x1200, GDT + SPARE + 28 /* a type in the upper half */
        movq    %rax, GDT + SPARE + 32
        movw    $KERNEL_CS32, GDT + SPARE + 34
        movq    $0, GDT + SPARE + 40
        pushq   $USER_SS
        pushq   $STACK3
        pushq   $IOPL3
        pushq   $USER_CS32
        pushq   $A(3f)
        iretq
        .code32
3:      movl    $USER_SS, %eax
        movl    %eax, %ds
        lcalll  $SPARE, $0x12345678
        movl    %cs, %eax
        OUT
        out     %esp
        resume32 4f
        lcalll  $(SPARE + 16), $0
4:      resume32 4f
        lcalll  $(SPARE + 32), $0
4:      ljmpl   $USER_CS, $A(4f)
        .code64
4:      movq    $SPARE << 32, %rax
        movl    $0, DATA
        movw    $SPARE, DATA + 4
        lcalll  *DATA
        movl    %cs, %eax
        OUT
        movl    %esp, %eax
        OUT
        stop
1:      movl    %cs, %eax
        OUT
        movl    %ss, %eax
        OUT
        movl    %esp, %eax
        OUT
        movl    8(%rsp), %eax
        OUT
        movl    16(%rsp), %eax
        OUT
        movl    24(%rsp), %eax
        OUT
        lretq
        expect  gate_call64
        .long   KERNEL_CS, 0, STACK0 - 32, USER_CS32, STACK3, USER_SS, USER_CS32, STACK3
        .long   VECTOR_TAG | 13, CODE_TAG | (SPARE + 16), VECTOR_TAG | 13, CODE_TAG | KERNEL_CS32
        .long   KERNEL_CS, 0, STACK0 - 32, USER_CS, STACK3, USER_SS, USER_CS, STACK3
        end     gate_call64, 0, "at level 3 CS and SS are those of the host"

/* A descriptor with these attributes, and a far JMP or RET to it. */
        .macro  far_try attributes, rpl
        movl    $(0x00cf0000 | \attributes << 8), GDT + SPARE + 4
        resume32 1f
        ljmpl   $(SPARE | \rpl), $0
1:      movl    %esp, %ebp
        pushl   $(SPARE | \rpl)
        pushl   $A(1f)
        resume32 1f
        lretl
1:      movl    %ebp, %esp
        .endm

/* SDM 3A 5.8.1, 2A JMP, 2B RET: the type and the privilege are looked at before the present bit; a
 * null selector is #GP(0). */
        program gate_far_order, P32
        movl    $0x0000ffff, GDT + SPARE
        far_try 0x13, 0         /* data */
        far_try 0x7b, 0         /* code of level 3 */
        far_try 0x7f, 0         /* conforming code of level 3 */
        far_try 0x1b, 0
        movl    $(0x00cf0000 | 0x1b << 8), GDT + SPARE + 4
        resume32 1f
        ljmpl   $(SPARE | 3), $0
1:      resume32 1f
        ljmpl   $3, $0
1:      resume32 1f
        ljmpl   $0xfff8, $0
1:      out     $0x600d
        expect  gate_far_order
        .rept   6
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE
        .endr
        .long   VECTOR_TAG | 11, CODE_TAG | SPARE, VECTOR_TAG | 11, CODE_TAG | SPARE
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG | 0xfff8, 0x600d
        end     gate_far_order, 0, NO_LEGACY
