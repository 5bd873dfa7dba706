/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Programs about hardware task switches: SDM 3A chapter 7. The main task's TSS is that of all
 * programs. Included by engines_programs.S.
 */
#define T1        (DATA + 0x2000)
#define T2        (DATA + 0x2100)
#define T1_STACK  0x31000
#define T2_STACK  0x32000
/* Fields of a TSS of 32 bits. */
#define TSS_CR3   28
#define TSS_EIP   32
#define TSS_FLAGS 36
#define TSS_EAX   40
#define TSS_EBX   52
#define TSS_ESP   56
#define TSS_ES    72
#define TSS_CS    76
#define TSS_SS    80
#define TSS_DS    84
#define TSS_FS    88
#define TSS_GS    92
#define TSS_LDT   96
#define TSS_TRAP  100
/* The byte of a descriptor in the GDT that has its type. */
#define TYPE_OF(selector) (GDT + (selector) + 5)
#define GATE(vector)      (IDT + (vector)*8)

/* Fills a TSS: a task of level 0 that begins at the label. */
        .macro  task at, label, stack, flags=2
        movl    $A(\label), \at + TSS_EIP
        movl    $\flags, \at + TSS_FLAGS
        movl    $\stack, \at + TSS_ESP
        movl    $KERNEL_CS32, \at + TSS_CS
        movl    $KERNEL_SS, \at + TSS_ES
        movl    $KERNEL_SS, \at + TSS_SS
        movl    $KERNEL_SS, \at + TSS_DS
        movl    $KERNEL_SS, \at + TSS_FS
        movl    $KERNEL_SS, \at + TSS_GS
        movl    $0, \at + TSS_LDT
        .endm
        .macro  tss_descriptor selector, at, type=0x89, limit=0x67
        movl    $((\at & 0xffff) << 16 | \limit), GDT + \selector
        movl    $(\at >> 16 | \type << 8), GDT + \selector + 4
        .endm
        .macro  task_gate at, selector, type=0xe5
        movl    $((\selector) << 16), \at
        movl    $(\type << 8), \at + 4
        .endm
        .macro  out_byte at
        movzbl  \at, %eax
        OUT
        .endm
        .macro  out_task
        str     %eax
        OUT
        .endm

/* SDM 3A 7.3: CALL saves the old task, links it, sets NT and TS, and keeps both busy; IRET goes back
 * and clears NT and busy. The second CALL goes on behind the IRET. */
        program task_call, P32
        task    T1, 1f, T1_STACK
        tss_descriptor SPARE, T1
        movl    $0xaa, %ebx
        movl    $0x77, T1 + TSS_EAX
        stc
        lcalll  $SPARE, $0x12345678
2:      flagsl  0x4001
        out     %ebx
        movl    %cr0, %eax
        andl    $8, %eax
        OUT
        out_task
        out_byte TYPE_OF(SPARE)
        out_byte TYPE_OF(TSS_SELECTOR)
        out     T1 + TSS_EBX
        lcalll  $SPARE, $0
        out_byte TYPE_OF(SPARE)
        stop
1:      OUT
        out_task
        movzwl  T1, %eax
        OUT
        flagsl  0x4001
        out     %esp
        out_byte TYPE_OF(SPARE)
        out_byte TYPE_OF(TSS_SELECTOR)
        movl    TSS + TSS_EIP, %eax
        subl    $A(2b), %eax
        OUT
        movl    TSS + TSS_FLAGS, %eax
        andl    $0x4001, %eax
        OUT
        out     TSS + TSS_EBX
        out     TSS + TSS_ESP
        out     TSS + TSS_CS
        out     TSS + TSS_GS
        movl    $0x55, %ebx
        iretl
        out     $0x2222
        flagsl  0x4000
        iretl
        expect  task_call
        .long   0x77, SPARE, TSS_SELECTOR, 0x4000, T1_STACK, 0x8b, 0x8b, 0, 1, 0xaa, STACK
        .long   KERNEL_CS32, KERNEL_SS, 1, 0xaa, 8, TSS_SELECTOR, 0x89, 0x8b, 0x55, 0x2222, 0x4000
        .long   0x89
        end     task_call, 0, NO_LEGACY

/* SDM 3A 7.3: JMP links nothing and leaves the old task not busy; the same through a task gate. */
        program task_jmp, P32
        task    T1, 1f, T1_STACK
        tss_descriptor SPARE, T1
        task_gate (GDT + SPARE + 8), TSS_SELECTOR
        ljmpl   $SPARE, $0x12345678
        flagsl  0x4000
        out_task
        out_byte TYPE_OF(SPARE)
        out_byte TYPE_OF(TSS_SELECTOR)
        task_gate (GDT + SPARE + 16), SPARE
        lcalll  $(SPARE + 16), $0
        flagsl  0x4000
        stop
1:      flagsl  0x4000
        movzwl  T1, %eax
        OUT
        out_byte TYPE_OF(SPARE)
        out_byte TYPE_OF(TSS_SELECTOR)
        ljmpl   $(SPARE + 8), $0
        movzwl  T1, %eax
        OUT
        iretl
        expect  task_jmp
        .long   0, 0, 0x8b, 0x89, 0, TSS_SELECTOR, 0x89, 0x8b, TSS_SELECTOR, 0
        end     task_jmp, 0, NO_LEGACY

/* SDM 3A 6.12.2, 7.3: task gates in the IDT for INT n from level 3, for an exception, whose error
 * code is on the new task's stack and RF in the old one's flags (3B 17.3.1.1), and for an interrupt;
 * DPL counts for INT n alone. */
        program task_interrupt, P32
        task    T1, 1f, T1_STACK
        task    T2, 2f, T2_STACK
        tss_descriptor SPARE, T1
        tss_descriptor (SPARE + 8), T2
        task_gate GATE(0x80), SPARE
        task_gate GATE(0x81), SPARE, 0x85
        task_gate GATE(13), SPARE + 8, 0x85
        to_level USER_CS32, USER_SS, 3f, flags=IOPL3
3:      movl    $USER_SS, %eax
        movl    %eax, %ds
        int     $0x80
        movl    %cs, %eax
        OUT
        int     $0x81
        movl    $(KERNEL_SS | 3), %eax
        movl    %eax, %es
        hlt
        task_gate GATE(0x40), SPARE, 0x85
        movl    $0x40, %eax
        sti
        outl    %eax, $INTERRUPT
        nop
        flagsl  0x200
        stop
1:      flagsl  0x4200
        movzwl  T1, %eax
        OUT
        movl    TSS + TSS_CS, %eax
        OUT
        movl    TSS + TSS_SS, %eax
        OUT
        iretl
        jmp     1b
2:      popl    %eax
        OUT
        movl    TSS + TSS_FLAGS, %eax
        andl    $0x10000, %eax
        OUT
        movl    TSS + TSS_EIP, %ecx
        movzbl  (%ecx), %eax    /* the instruction that faulted */
        OUT
        cmpb    $0xf4, %al
        je      4f
        incl    TSS + TSS_EIP
4:      incl    TSS + TSS_EIP
        iretl
        jmp     2b
        expect  task_interrupt
        .long   0x4000, TSS_SELECTOR, USER_CS32, USER_SS, USER_CS32, 0x81 * 8 + 2, 0x10000
        .long   0xcd, KERNEL_SS, 0x10000, 0x8e, 0, 0x10000, 0xf4, 0x4000, TSS_SELECTOR, USER_CS32, USER_SS, 0x200
        end     task_interrupt, 0, NO_LEGACY

/* SDM 3A 7.6: a TSS of 16 bits. */
        program task_16bit, P32
        movw    $R(1f), T1 + 14
        movw    $0x3002, T1 + 16
        movw    $0x7777, T1 + 18        /* AX */
        movw    $0xd000, T1 + 26        /* SP */
        movw    $DATA16, T1 + 34        /* ES, CS, SS, DS */
        movw    $CODE16, T1 + 36
        movw    $STACK16, T1 + 38
        movw    $DATA16, T1 + 40
        tss_descriptor SPARE, T1, 0x81, 0x2b
        movl    $0x12345678, %ebx
        lcalll  $SPARE, $0
        out     %ebx
        movzwl  T1 + 24, %eax           /* BX */
        OUT
        movzwl  T1 + 16, %eax
        andl    $0x7001, %eax
        OUT
        out_byte TYPE_OF(SPARE)
        movl    $KERNEL_SS, %ecx        /* too short */
        movb    $0x2a, GDT + SPARE
        resume32 2f
        lcalll  $SPARE, $0
2:      stop
        .code16
1:      movzwl  %ax, %eax
        OUT
        movl    %ds, %eax
        OUT
        movzwl  %sp, %eax
        OUT
        pushfw
        popw    %ax
        andl    $0x4000, %eax
        OUT
        movw    $0x4321, %bx
        stc
        iretw
        .code32
        expect  task_16bit
        .long   0x7777, DATA16, 0xd000, 0x4000, 0x12345678, 0x4321, 0x3001, 0x81
        .long   VECTOR_TAG | 10, CODE_TAG | SPARE
        end     task_16bit, 0, NO_LEGACY

/* SDM 3A table 7-1: what is wrong with the TSS or the way to it is raised in the old task. */
        program task_refused, P32
        task    T1, 1f, T1_STACK
        tss_descriptor SPARE, T1, 0x8b
        resume32 2f
        ljmpl   $SPARE, $0              /* busy */
2:      tss_descriptor SPARE, T1, 0x09
        resume32 2f
        lcalll  $SPARE, $0              /* absent */
2:      tss_descriptor SPARE, T1, 0x89, 0x66
        resume32 2f
        lcalll  $SPARE, $0
2:      task_gate (GDT + SPARE + 8), KERNEL_SS
        resume32 2f
        lcalll  $(SPARE + 8), $0        /* no TSS */
2:      task_gate (GDT + SPARE + 8), (SPARE + 4)
        resume32 2f
        lcalll  $(SPARE + 8), $0        /* in the LDT */
2:      task_gate (GDT + SPARE + 8), TSS_SELECTOR, 0x65
        resume32 2f
        ljmpl   $(SPARE + 8), $0        /* an absent gate */
2:      task_gate (GDT + SPARE + 8), TSS_SELECTOR, 0x85
        resume32 2f
        ljmpl   $(SPARE + 8 + 1), $0    /* RPL above DPL */
2:      tss_descriptor SPARE, T1
        pushfl
        orl     $0x4000, (%esp)
        popfl
        movw    $SPARE, TSS
        resume32 2f
        iretl                           /* back to a task that is not busy */
2:      movw    $0, TSS
        resume32 2f
        iretl
2:      movw    $(SPARE | 4), TSS
        resume32 2f
        iretl
2:      out_task
        stop
1:      ud2
        expect  task_refused
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE, VECTOR_TAG | 11, CODE_TAG | SPARE
        .long   VECTOR_TAG | 10, CODE_TAG | SPARE, VECTOR_TAG | 13, CODE_TAG | KERNEL_SS
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE | 4, VECTOR_TAG | 11, CODE_TAG | (SPARE + 8)
        .long   VECTOR_TAG | 13, CODE_TAG | (SPARE + 8), VECTOR_TAG | 10, CODE_TAG | SPARE
        .long   VECTOR_TAG | 10, CODE_TAG, VECTOR_TAG | 10, CODE_TAG | SPARE | 4, TSS_SELECTOR
        end     task_refused, 0, NO_LEGACY

/* Goes to T1, whose state is bad: the fault's task gate leads back to the main task, which finds
 * the error code on its stack. */
        .macro  bad_task vector
        task_gate GATE(\vector), TSS_SELECTOR, 0x85
        movb    $0x89, TYPE_OF(SPARE)
        ljmpl   $SPARE, $0
        popl    %eax
        orl     $(\vector << 24), %eax
        OUT
        movl    $(KERNEL + \vector * 16 | KERNEL_CS32 << 16), IDT + \vector * 8
        movl    $0x8e00, IDT + \vector * 8 + 4
        .endm

/* SDM 3A 7.3 step 12, table 7-1: what is wrong with the segments of the new task is raised there. */
        program task_segments, P32
        tss_descriptor SPARE, T1
        task    T1, 1f, T1_STACK
        movl    $KERNEL_SS, T1 + TSS_LDT
        bad_task 10
        movl    $(LDT_SELECTOR | 4), T1 + TSS_LDT
        bad_task 10
        task    T1, 1f, T1_STACK
        movl    $0, T1 + TSS_CS
        bad_task 10
        movl    $KERNEL_SS, T1 + TSS_CS
        bad_task 10
        movl    $(KERNEL_CS32 | 3), T1 + TSS_CS
        bad_task 10
        movl    $ABSENT_CODE, T1 + TSS_CS
        bad_task 11
        task    T1, 1f, T1_STACK
        movl    $0, T1 + TSS_SS
        bad_task 10
        movl    $READ_ONLY, T1 + TSS_SS
        bad_task 10
        movl    $USER_SS, T1 + TSS_SS
        bad_task 10
        movl    $NOT_PRESENT, T1 + TSS_SS
        bad_task 12
        task    T1, 1f, T1_STACK
        movl    $EXECUTE_ONLY, T1 + TSS_DS
        bad_task 10
        movl    $(KERNEL_SS | 3), T1 + TSS_DS
        bad_task 10
        movl    $NOT_PRESENT, T1 + TSS_DS
        bad_task 11
        movl    $0, T1 + TSS_DS
        movl    $0xfff8, T1 + TSS_GS
        bad_task 10
        task    T1, 1f, T1_STACK
        movl    $CODE16, T1 + TSS_CS
        movl    $0x10000, T1 + TSS_EIP
        bad_task 13
        out_task
        flagsl  0x4000
        movzwl  TSS, %eax
        OUT
        stop
1:      ud2
        expect  task_segments
        .long   10 << 24 | KERNEL_SS, 10 << 24 | LDT_SELECTOR | 4, 10 << 24, 10 << 24 | KERNEL_SS
        .long   10 << 24 | KERNEL_CS32, 11 << 24 | ABSENT_CODE, 10 << 24, 10 << 24 | READ_ONLY
        .long   10 << 24 | (USER_SS & ~3), 12 << 24 | NOT_PRESENT, 10 << 24 | EXECUTE_ONLY
        .long   10 << 24 | KERNEL_SS, 11 << 24 | NOT_PRESENT, 10 << 24 | 0xfff8, 13 << 24
        .long   TSS_SELECTOR, 0x4000, SPARE
        end     task_segments, 0, NO_LEGACY

/* SDM 3A 7.2.1, 3B 17.3.1.5: the T flag of the TSS traps before the first instruction of the task,
 * with BT in DR6; L0 to L3 of DR7 are cleared, G0 to G3 are not. */
        program task_trap, P32
        task    T1, 1f, T1_STACK
        movl    $1, T1 + TSS_TRAP
        tss_descriptor SPARE, T1
        movl    $0x433, %eax            /* breakpoints at 0, of instructions */
        movl    %eax, %dr7
        xorl    %eax, %eax
        movl    %eax, %dr6
        lcalll  $SPARE, $0
        out     $0x600d
        stop
1:      movl    FRAME_RIP, %eax
        subl    $A(1b), %eax
        OUT
        movl    %dr6, %eax
        andl    $0xf00f, %eax
        OUT
        movl    %dr7, %eax
        andl    $0x3ff, %eax
        OUT
        iretl
        expect  task_trap
        .long   VECTOR_TAG | 1, 0, 0x8000, 0x22, 0x600d
        end     task_trap, 0, NO_LEGACY

/* SDM 3A 7.3 (CR3 and LDTR are the task's own), 7.4. */
        program task_spaces, P32
        movl    $(FREE | 3), PT32 + FREE / 4096 * 4
        movl    $(PT32 | 7), DATA + 0x4000      /* a second directory */
        movl    $0x83, DATA + 0x4004            /* with linear 4 MiB: gpa 0 */
        movl    $0x1357, VARS + 0x80
        movl    %cr4, %eax
        orl     $0x10, %eax
        movl    %eax, %cr4
        movl    $PD32, %eax
        movl    %eax, %cr3
        movl    %cr0, %eax
        orl     $0x80010000, %eax
        movl    %eax, %cr0
        jmp     2f
2:      movl    $0x0000ffff, FREE + 8           /* entry 1 of the LDT: based at DATA */
        movl    $(0x00409300 | DATA >> 16), FREE + 12
        movl    $0x2468, DATA + 4
        task    T1, 1f, T1_STACK
        movl    $(DATA + 0x4000), T1 + TSS_CR3
        movl    $LDT_SELECTOR, T1 + TSS_LDT
        movl    $0xc, T1 + TSS_ES
        movl    $PD32, TSS + TSS_CR3
        tss_descriptor SPARE, T1
        lcalll  $SPARE, $0
        movl    %cr3, %eax
        OUT
        sldt    %eax
        OUT
        resume32 2f
        movl    0x400000 + VARS + 0x80, %eax
2:      resume32 2f
        movl    $0xc, %eax
        movl    %eax, %es
2:      stop
1:      movl    %cr3, %eax
        OUT
        out     0x400000 + VARS + 0x80
        sldt    %eax
        OUT
        out     %es:4
        iretl
        expect  task_spaces
        .long   DATA + 0x4000, 0x1357, LDT_SELECTOR, 0x2468, PD32, 0
        .long   VECTOR_TAG | 14, CODE_TAG, 0x400000 + VARS + 0x80, VECTOR_TAG | 13, CODE_TAG | 0xc
        end     task_spaces, 0, NO_LEGACY

/* SDM 3A 20.2.2, 7.3: a task of virtual-8086 mode, entered by IRET, left through a task gate. */
        program task_v86, P32
        task    T1, 1f, 0x1000, 0x20002
        movl    $R(1f), T1 + TSS_EIP
        movl    $(CODE >> 4), T1 + TSS_CS
        movl    $0x3000, T1 + TSS_SS
        movl    $0x1234, T1 + TSS_DS
        movl    $0x2345, T1 + TSS_ES
        tss_descriptor SPARE, T1, 0x8b
        task    T2, 2f, T2_STACK
        tss_descriptor (SPARE + 8), T2
        task_gate GATE(6), SPARE + 8, 0x85
        movw    $SPARE, TSS
        pushfl
        orl     $0x4000, (%esp)
        popfl
        iretl
        .code16
1:      movw    %es, %bx
        ud2
        .code32
2:      movzwl  T2, %eax
        OUT
        movl    T1 + TSS_EIP, %eax
        subl    $R(1b), %eax
        OUT
        movl    T1 + TSS_FLAGS, %eax
        andl    $0x24000, %eax
        OUT
        out     T1 + TSS_CS
        out     T1 + TSS_DS
        out     T1 + TSS_EBX
        out_byte TYPE_OF(SPARE)
        out_byte TYPE_OF(TSS_SELECTOR)
        flagsl  0x24000
        ljmpl   $TSS_SELECTOR, $0
        expect  task_v86
        .long   SPARE, 2, 0x20000, CODE >> 4, 0x1234, 0x2345, 0x8b, 0x89, 0x4000
        end     task_v86, 0, NO_LEGACY

/* SDM 3A 7.3, 5.5: a task may begin in conforming code below its level. */
        program task_conforming, P32
        task    T1, 1f, T1_STACK, IOPL3
        movl    $(CONFORMING | 3), T1 + TSS_CS
        movl    $USER_SS, T1 + TSS_SS
        movl    $USER_SS, T1 + TSS_DS
        movl    $USER_SS, T1 + TSS_ES
        movl    $USER_SS, T1 + TSS_FS
        movl    $USER_SS, T1 + TSS_GS
        tss_descriptor SPARE, T1
        lcalll  $SPARE, $0
        movl    %cs, %eax
        OUT
        stop
1:      movl    %cs, %eax
        OUT
        iretl /* at level 3 too */
        expect  task_conforming
        .long   CONFORMING | 3, KERNEL_CS32
        end     task_conforming, 0, NO_LEGACY

/* SDM 3A 7.7, 5.8: there are no task switches in long mode: far pointers to a TSS, and IRET with NT. */
        program task_long, LONG
        tss_descriptor SPARE, T1
        movq    $0, GDT + SPARE + 8
        movl    $0x1234, DATA
        movw    $SPARE, DATA + 4
        resume64 1f
        lcall   *DATA
1:      resume64 1f
        ljmp    *DATA
1:      movl    $0xe500, GDT + SPARE + 4 /* a task gate */
        resume64 1f
        lcall   *DATA
1:      pushfq
        orl     $0x4000, (%rsp)
        popfq
        movq    %rsp, %rbp
        pushq   $KERNEL_SS
        pushq   %rbp
        pushq   $2
        pushq   $KERNEL_CS
        pushq   $A(1f)
        resume64 1f
        iretq
1:      movq    %rbp, %rsp
        flagsq  0x4000
        out     $0x600d
        expect  task_long
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE, VECTOR_TAG | 13, CODE_TAG | SPARE
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE, VECTOR_TAG | 13, CODE_TAG, 0x4000, 0x600d
        end     task_long, 0, "far pointers to system segments are not emulated"
