/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MONITOR and MWAIT, which the KVM engine does not offer. Included in engines_programs.S.
 */

#define MONITOR .byte 0x0f, 0x01, 0xc8
#define MWAIT   .byte 0x0f, 0x01, 0xc9

/* SDM 2B MONITOR, MWAIT; 4 IA32_MISC_ENABLE. A load as any other: the accessed bit is set, the dirty
 * bit is not. */
        program monitor_faults, LONG
        xorl    %edx, %edx
        movl    $DATA, %eax
        movl    $1, %ecx
        resume64 1f
        MONITOR
1:      movabsq $0x100000000, %rcx
        resume64 1f
        MONITOR
1:      resume64 1f
        MWAIT
1:      movl    $2, %ecx
        resume64 1f
        MWAIT
1:      xorl    %ecx, %ecx
        movabsq $0x800000000000, %rax
        resume64 1f
        MONITOR
1:      movl    $FREE, %eax
        resume64 1f
        MONITOR
1:      movl    $DATA + 0x1000, %eax
        MONITOR
        movl    PTE(DATA + 0x1000), %eax
        andl    $0x60, %eax
        OUT
        movl    $1, %eax
        cpuid
        andl    $8, %ecx
        out     %ecx
        movl    $5, %eax
        cpuid
        OUT
        out     %ebx
        out     %ecx
        user_pages
        to_user USER_CS, 1f
1:      movl    $DATA, %eax
        xorl    %ecx, %ecx
        resume64 1f
        MONITOR
1:      resume64 1f
        MWAIT
1:      back_to 2f
2:      movl    $0x1a0, %ecx
        rdmsr
        btrl    $18, %eax
        wrmsr
        movl    $DATA, %eax
        xorl    %ecx, %ecx
        resume64 1f
        MONITOR
1:      resume64 1f
        MWAIT
1:      movl    $1, %eax
        cpuid
        andl    $8, %ecx
        out     %ecx
        movl    $5, %eax
        cpuid
        OUT
        expect  monitor_faults
        .long   GP, GP, GP, GP, GP, FAULT(FREE, 0), 0x20, 8, 64, 64, 3
        .long   UD, UD, VECTOR_TAG | 0x90, UD, UD, 0, 0
        end     monitor_faults, SOFT_ONLY

/* SDM 3A 20.1.1, 20.1.4: in real mode as well; addresses are offsets of 16 bits. */
        program monitor_real, REAL
        xorl    %ecx, %ecx
        movl    $0x8000ffff, %eax
        MONITOR
        resume16 1f
        .byte   0x67
        MONITOR
1:      movl    $1, %ecx
        resume16 1f
        MONITOR
1:      xorl    %ecx, %ecx
        MONITOR
        movw    %ax, %bx
        incb    (%bx) /* written: MWAIT does not wait */
        MWAIT
        out     $1
        expect  monitor_real
        .long   VECTOR_TAG | 13, VECTOR_TAG | 13, 1
        end     monitor_real, SOFT_ONLY

/* SDM 3A 8.10.4: MWAIT is no wait when nothing is monitored or it was written since; by ECX bit 0 an
 * interrupt ends it that is not taken, and else one that is, behind it. */
        program monitor_waits, LONG
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        MWAIT
        movl    $DATA + 63, %eax
        MONITOR
        movb    $1, DATA
        MWAIT
        movb    $0x21, %al
        outb    %al, $INTERRUPT
        movl    $DATA, %eax
        MONITOR
        incl    %ecx
        MWAIT
        out     $1
        sti
        nop
        movl    $DATA, %eax
        decl    %ecx
        MONITOR
        cli
        movb    $0x22, %al
        outb    %al, $INTERRUPT
        sti
        MWAIT
1:      cli
        MWAIT /* monitors nothing any more */
        movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        expect  monitor_waits
        .long   1, VECTOR_TAG | 0x21, VECTOR_TAG | 0x22, 0
        end     monitor_waits, SOFT_ONLY

/* Two processors that wait for one another's stores, of some kinds, with interrupts off. */
        .macro  wait_for value
1:      cmpl    $\value, DATA
        je      2f
        movl    $DATA, %eax
        MONITOR
        cmpl    $\value, DATA
        je      2f
        MWAIT
        jmp     1b
2:
        .endm
        program monitor_two, LONG
        movq    $A(monitor_second), BACK
        movl    $0xf, %eax
        outb    %al, $START
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $500, %ebx
3:      movl    $1, DATA
        wait_for 2
        lock    incl DATA
        wait_for 4
        pushq   DATA + 0x80
        popq    DATA
        wait_for 6
        decl    %ebx
        jnz     3b
        movl    $7, DATA
        wait_for 8
        out     DATA
        outl    %eax, $END
0:      jmp     0b
monitor_second:
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $5, DATA + 0x80
3:      movl    DATA, %ebx
        cmpl    $1, %ebx
        je      4f
        cmpl    $3, %ebx
        je      5f
        cmpl    $5, %ebx
        je      6f
        cmpl    $7, %ebx
        je      7f
        movl    $DATA, %eax
        MONITOR
        cmpl    DATA, %ebx
        jne     3b
        MWAIT
        jmp     3b
4:      movl    $2, %eax
        movq    %rax, %xmm0
        movdqa  %xmm0, DATA
        jmp     3b
5:      movl    $DATA, %edi
        movl    $4, %eax
        stosl
        jmp     3b
6:      movl    $6, %eax
        xchgl   %eax, DATA
        jmp     3b
7:      movl    $8, DATA
        cli
8:      hlt
        jmp     8b
        expect  monitor_two
        .long   8
        end     monitor_two, TWO | SOFT_ONLY
