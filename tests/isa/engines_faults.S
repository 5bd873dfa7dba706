/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Programs about faults during the delivery of faults: SDM 3A 6.15, tables 6-4 and 6-5; and about
 * the EXT bit of error codes, 6.13. Included by engines_programs.S.
 */
#define NO_INT64 "INT at level 0 is not emulated"
#define GATE64(vector) (IDT + (vector)*16)

/* P of a gate, and IST: its stack is good when RSP is not. */
        .macro  absent vector
        andb    $0x7f, GATE64(\vector) + 5
        .endm
        .macro  present vector
        orb     $0x80, GATE64(\vector) + 5
        .endm
        .macro  own_stack vector
        movb    $1, GATE64(\vector) + 4
        .endm
#define BAD_STACK (FREE + 0x800) /* not mapped */
#define BAD_DATA  (FREE + 0x10000)

/* The first is benign: the second is raised alone. Contributory after contributory, and either after
 * #PF, is #DF; #PF after contributory is not. */
        program fault_pairs, LONG
        own_stack 8
        own_stack 14
        absent  6
        resume64 1f
        ud2                     /* #UD (benign), then #NP */
1:      present 6
        movq    $BAD_STACK, %rsp
        resume64 1f
        ud2                     /* #UD, then #PF */
1:      movq    $STACK, %rsp
        absent  0
        xorl    %ecx, %ecx
        resume64 1f
        divl    %ecx            /* #DE, then #NP: #DF */
1:      present 0
        absent  13
        movl    $EXECUTE_ONLY, %edx
        resume64 1f
        movl    %edx, %ds       /* #GP, then #NP: #DF */
1:      present 13
        movq    $BAD_STACK, %rsp
        resume64 1f
        movl    %edx, %ds       /* #GP, then #PF: the latter */
1:      resume64 1f
        divl    %ecx
1:      movq    $STACK, %rsp
        movl    $NOT_PRESENT, %edx
        absent  11
        resume64 1f
        movl    %edx, %ds       /* #NP, then #NP: #DF */
1:      present 11
        movw    $KERNEL_SS, GATE64(13) + 2
        movl    $EXECUTE_ONLY, %edx
        resume64 1f
        movl    %edx, %ds       /* #GP, then #GP: #DF */
1:      movw    $KERNEL_CS, GATE64(13) + 2
        absent  14
        resume64 1f
        movl    BAD_DATA, %eax  /* #PF, then #NP: #DF */
1:      present 14
        movb    $0, GATE64(14) + 4
        movq    $BAD_STACK, %rsp
        resume64 1f
        movl    BAD_DATA, %eax  /* #PF, then #PF: #DF */
1:      movq    $STACK, %rsp
        out     $0x600d
        expect  fault_pairs
        .long   VECTOR_TAG | 11, CODE_TAG | (6 * 8 + 3)
        .long   VECTOR_TAG | 14, CODE_TAG | 2, BAD_STACK - 40
        .long   VECTOR_TAG | 8, CODE_TAG, VECTOR_TAG | 8, CODE_TAG
        .long   VECTOR_TAG | 14, CODE_TAG | 2, BAD_STACK - 48
        .long   VECTOR_TAG | 14, CODE_TAG | 2, BAD_STACK - 40
        .long   VECTOR_TAG | 8, CODE_TAG, VECTOR_TAG | 8, CODE_TAG, VECTOR_TAG | 8, CODE_TAG
        .long   VECTOR_TAG | 8, CODE_TAG, 0x600d
        end     fault_pairs, 0, NO_INT64

/* INT n and interrupts are benign. The vector is in the error code with the IDT bit; EXT is set for
 * what the program did not ask for by INT. */
        program fault_codes, LONG
        absent  0x50
        resume64 1f
        int     $0x50
1:      movw    $KERNEL_SS, GATE64(0x50) + 2
        present 0x50
        resume64 1f
        int     $0x50
1:      movw    $0, GATE64(0x50) + 2
        resume64 1f
        int     $0x50
1:      movw    $KERNEL_CS, GATE64(0x50) + 2
        movb    $0x85, GATE64(0x50) + 5 /* a task gate */
        resume64 1f
        int     $0x50
1:      absent  3
        resume64 1f
        int3
1:      absent  1
        resume64 1f
        .byte   0xf1
1:      absent  0x40
        movl    $0x40, %eax
        resume64 1f
        sti
        outl    %eax, $INTERRUPT
        nop
        ud2
1:      cli
        present 0x40
        movw    $KERNEL_SS, GATE64(0x40) + 2
        movl    $0x40, %eax
        resume64 1f
        sti
        outl    %eax, $INTERRUPT
        nop
        ud2
1:      cli
        out     $0x600d
        expect  fault_codes
        .long   VECTOR_TAG | 11, CODE_TAG | (0x50 * 8 + 2), VECTOR_TAG | 13, CODE_TAG | KERNEL_SS
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG | (0x50 * 8 + 2)
        .long   VECTOR_TAG | 11, CODE_TAG | (3 * 8 + 2), VECTOR_TAG | 11, CODE_TAG | (1 * 8 + 3)
        .long   VECTOR_TAG | 11, CODE_TAG | (0x40 * 8 + 3)
        .long   VECTOR_TAG | 13, CODE_TAG | KERNEL_SS | 1, 0x600d
        end     fault_codes, 0, NO_INT64

/* SDM 3A 6.15 (#DF): any fault on the way to its handler is a shutdown. */
        program fault_shutdown_np, LONG
        out     $1
        absent  8
        absent  0
        xorl    %ecx, %ecx
        divl    %ecx
        expect  fault_shutdown_np
        .long   1
        end     fault_shutdown_np, SHUTDOWN

        program fault_shutdown_stack, LONG
        out     $1
        movq    $BAD_STACK, %rsp
        movl    BAD_DATA, %eax  /* #PF, #PF: #DF, #PF */
        expect  fault_shutdown_stack
        .long   1
        end     fault_shutdown_stack, SHUTDOWN

/* SDM 3A 20.1.4, 2B PUSH: in real mode a stack with an odd byte left, and a vector beyond the limit of
 * IDTR. */
        program fault_shutdown_real, REAL
        out     $1
        movw    $1, %sp
        pushw   %ax
        expect  fault_shutdown_real
        .long   1
        end     fault_shutdown_real, SHUTDOWN, "16-bit code is emulated, with a stack that wraps"

        program fault_shutdown_ivt, REAL
        out     $1
        lidtl   1f - 9b
        ud2
1:      .word   0, 0, 0
        expect  fault_shutdown_ivt
        .long   1
        end     fault_shutdown_ivt, SHUTDOWN, "16-bit code is emulated, without UD2"

/* 6.12.1, 7.3: a double fault through a task gate has a stack whatever ESP is; then it can go on. */
        program fault_double_task, P32
        task    T1, 2f, T1_STACK
        tss_descriptor SPARE, T1
        task_gate GATE(8), SPARE, 0x85
        movl    $(DATA << 16 | 0xff), GDT + SPARE + 8
        movl    $(0x409300 | DATA >> 16), GDT + SPARE + 12
        movl    $(SPARE + 8), %eax
        movl    %eax, %ss
        movl    $0x1000, %esp           /* beyond its limit */
        movl    $0x1000, %ebp
1:      pushl   %eax                    /* #SS, then #SS */
3:      movl    %ss, %eax
        OUT
        out     %esp
        stop
2:      popl    %eax
        OUT
        movl    TSS + TSS_EIP, %eax
        subl    $A(1b), %eax
        OUT
        out     TSS + TSS_ESP
        movl    $A(3b), TSS + TSS_EIP
        movl    $0x80, TSS + TSS_ESP
        iretl
        expect  fault_double_task
        .long   0, 0, 0x1000, SPARE + 8, 0x80
        end     fault_double_task, 0, NO_LEGACY
