/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The programs of engines_programs.S that start at level 0 (and what of level 3 needs more than a
 * user's processor). Included there.
 */

/* Makes everything from CODE to HOST_END the user's. */
        .macro  user_pages
        movl    $(PT + CODE / 4096 * 8), %edi
0:      orb     $4, (%rdi)
        addl    $8, %edi
        cmpl    $(PT + HOST_END / 4096 * 8), %edi
        jne     0b
        movq    %cr3, %rax
        movq    %rax, %cr3
        .endm
        .macro  to_user cs, label
        pushq   $USER_SS
        pushq   $STACK3
        pushq   $0x202
        pushq   $\cs
        pushq   $A(\label)
        iretq
        .endm
/* Executed at level 3; goes on at the label at level 0. */
        .macro  back_to label
        movq    $A(\label), BACK
        int     $0x90
        .endm
#define PTE(address) (PT + (address) / 4096 * 8)

/* --- real mode ------------------------------------------------------------------------------- */

/* SDM 1 3.4.3, 2 ADD, SUB, MUL, IDIV, DAA, AAM, SHL (counts masked to 5 bits). */
        program real_arithmetic, REAL
        movw    $0x7fff, %bx
        addw    $1, %bx
        flagsl
        movb    $0x79, %al
        addb    $0x35, %al
        daa
        movzbl  %al, %eax
        OUT
        movw    $0x1234, %ax
        movw    $0x100, %cx
        mulw    %cx
        movzwl  %dx, %ecx
        out     %ecx
        movw    $-100, %ax
        cwtd
        movw    $7, %cx
        idivw   %cx
        movzwl  %ax, %ebx
        movzwl  %dx, %ecx
        out     %ebx
        out     %ecx
        movl    $0xffffffff, %ebx
        incw    %bx
        out     %ebx
        addl    $0x10000, %ebx
        flagsl
        movw    $1, %bx
        movb    $33, %cl
        shlw    %cl, %bx
        movzwl  %bx, %eax
        OUT
        expect  real_arithmetic
        .long   0x894, 0x14, 0x12, 0xfff2, 0xfffe, 0xffff0000, 0x45, 2
        end     real_arithmetic, 0, "16-bit code is emulated, without DAA"

/* SDM 3A 20.1.1: 16-bit offsets wrap; a 32-bit address above FFFFH is #GP, by way of SS #SS, both
 * without an error code. 1 3.7.4: BP uses SS. */
        program real_addressing, REAL
        movw    $0xfff0, %bx
        movw    $0xf020, %si /* together F010H */
        movl    $0x12345678, V16(VARS) + 0x10
        movl    (%bx,%si), %eax
        OUT
        movw    $0x3000, %bp
        movl    $0x55aa, %ss:0x3008
        movl    8(%bp), %eax
        OUT
        movl    $0xf000, %ebx
        addr32 movl 0x10(%ebx), %eax
        OUT
        movl    $0x10000, %ebx
        resume16 1f
        addr32 movl (%ebx), %eax
1:      movl    $0x10000, %ebp
        resume16 1f
        addr32 movl (%ebp), %eax
1:      movw    $0xffff, %bx
        resume16 1f
        movw    (%bx), %ax /* a word at the limit */
1:      movw    $0x2000, %ax
        movw    %ax, %es
        movl    $0x77, %es:4
        movw    $0x1fff, %ax
        movw    %ax, %fs
        movl    %fs:0x14, %eax
        OUT
        expect  real_addressing
        .long   0x12345678, 0x55aa, 0x12345678, VECTOR_TAG | 13, VECTOR_TAG | 12
        .long   VECTOR_TAG | 13, 0x77
        end     real_addressing

/* SDM 2 CALL, RET, JMP (far), 3A 20.1.4: INT pushes FLAGS, CS, IP; #DE is a fault. */
        program real_far, REAL
        movw    %sp, %bp
        lcallw  $0xfff, $(R(1f) + 16)
        jmp     2f
1:      movw    %cs, %ax
        movzwl  %ax, %eax
        OUT
        movw    %bp, %cx
        subw    %sp, %cx
        movzwl  %cx, %eax
        OUT
        lretw
2:      movw    %cs, %ax
        movzwl  %ax, %eax
        OUT
        movw    $R(3f), V16(VARS) + 0x80
        movw    $0x1000, V16(VARS) + 0x82
        ljmpw   *(V16(VARS) + 0x80)
        ud2
3:      stc
        int     $0x42
1:      flagsl  1
        movl    V16(FRAME_RIP), %eax
        subl    $R(1b), %eax
        OUT
        out     V16(FRAME_CS)
        movw    $0, %cx
        resume16 2f
1:      divw    %cx
2:      movl    V16(FRAME_RIP), %eax
        subl    $R(1b), %eax
        OUT
        movw    $5, V16(VARS) + 0x80
        movw    $9, V16(VARS) + 0x82
        movw    $4, %cx
        resume16 1f
        boundw  %cx, V16(VARS) + 0x80
1:      resume16 1f
        ud2
1:      movw    %sp, %ax
        subw    %bp, %ax
        movzwl  %ax, %eax
        OUT
        expect  real_far
        .long   0xfff, 4, 0x1000, VECTOR_TAG | 0x42, 1, 0, 0x1000, VECTOR_TAG, 0
        .long   VECTOR_TAG | 5, VECTOR_TAG | 6, 0
        end     real_far, 0, "16-bit code is emulated, without BOUND"

/* SDM 1 6.2: the stack wraps at SP = 0; PUSHA; ENTER; operands of 32 bits. 3A 20.1.1. */
        program real_stack, REAL
        movw    $0x3000, %ax
        movw    %ax, %ss
        movw    $0, %sp
        movl    $0x11112222, %ecx
        pushl   %ecx
        movzwl  %sp, %eax
        OUT
        movw    %ss, %ax
        movw    %ax, %es
        out     %es:0xfffc
        popw    %dx
        movzwl  %dx, %eax
        OUT
        movw    $0x4321, %di
        pushaw
        movzwl  %sp, %eax
        OUT
        out     %es:0xffee
        popaw
        enterw  $0x10, $0
        movzwl  %sp, %eax
        OUT
        leavew
        movzwl  %sp, %eax
        OUT
        popw    %ax
        movzwl  %sp, %eax
        OUT
        expect  real_stack
        .long   0xfffc, 0x11112222, 0x2222, 0xffee, 0x4321, 0xffec, 0xfffe, 0
        end     real_stack

/* SDM 1 7.3.9: counts and addresses of 16 bits, DF both ways. */
        program real_strings, REAL
        cld
        movw    $0x2000, %ax
        movw    %ax, %es
        movl    $0x33221100, %es:0
        movl    $0x77665544, %es:4
        pushw   %ds
        movw    %ax, %ds
        movw    $0, %si
        movw    $0x10, %di
        movl    $0xffff0004, %ecx
        rep movsw
        popw    %ds
        out     %ecx
        out     %es:0x14
        std
        movw    $0x17, %di
        movb    $0x55, %al
        movw    $8, %cx
        repne scasb
        movzwl  %cx, %eax
        OUT
        movzwl  %di, %eax
        OUT
        movw    $1, %di
        movw    $3, %cx
        movb    $0xcc, %al
        rep stosb /* 1, 0, FFFF */
        cld
        movzwl  %di, %eax
        OUT
        movzbl  %es:0xffff, %eax
        OUT
        out     %es:0
        expect  real_strings
        .long   0xffff0000, 0x77665544, 5, 0x14, 0xfffe, 0xcc, 0x3322cccc
        end     real_strings

/* SDM 3A 9.9.1, 9.9.2: to protected mode, with what the descriptors say, and back; LMSW sets PE
 * and can't clear it. */
        program real_to_protected, REAL
        cli
        smsw    %ax
        movzwl  %ax, %eax
        andl    $1, %eax
        OUT
        orb     $1, %al
        lmsw    %ax
        ljmpl   $KERNEL_CS32, $A(1f)
        .code32
1:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    $0xabcd, DATA
        movl    $0x77, RAM_SIZE - 16 /* out of real mode's reach */
        out     RAM_SIZE - 16
        xorl    %eax, %eax
        lmsw    %ax
        smsw    %eax
        andl    $1, %eax
        OUT
        ljmpl   $CODE16, $R(2f)
        .code16
2:      movw    $DATA16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    $STACK16, %ax
        movw    %ax, %ss
        movl    %cr0, %eax
        andb    $0xfe, %al
        movl    %eax, %cr0
        ljmpw   $0x1000, $R(3f)
3:      movw    $0x2000, %ax
        movw    %ax, %ds
        out     0
        movw    $0, %ax
        movw    %ax, %ss
        int     $0x20
        expect  real_to_protected
        .long   0, 0x77, 1, 0xabcd, VECTOR_TAG | 0x20
        end     real_to_protected

/* --- protected mode, 16-bit segments ------------------------------------------------------- */

/* SDM 3A 3.4.5 (D/B flag), 1 3.6: 66H and 67H turn the sizes; a 16-bit stack uses SP alone. */
        program p16_sizes, P16
        movl    $0xabcda000, %esp
        pushl   $0x12345678
        out     %esp
        popl    %ecx
        out     %ecx
        out     %esp
        movl    $0xffff0000, %ebx
        movw    $0x1234, %bx
        out     %ebx
        movl    $0x66, V16(VARS) + 0x80
        movl    $(V16(VARS) + 0x80), %ebx
        addr32 movl (%ebx), %eax
        OUT
        callw   1f
1:      popw    %ax
        subw    $R(1b), %ax
        movzwl  %ax, %eax
        OUT
        movl    $0x10000, %ebx
        movl    $STACK, %esp
        resume16 1f
        addr32 movl (%ebx), %eax
1:      movw    $0xfffd, %bx
        resume16 1f
        movl    (%bx), %eax
1:      out     $0x600d
        expect  p16_sizes
        .long   0xabcd9ffc, 0x12345678, 0xabcda000, 0xffff1234, 0x66, 0
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, 0x600d
        end     p16_sizes, 0, "protected mode is emulated, without IRET"

/* SDM 3A 5.8.1, 2 CALL, RET: between 16- and 32-bit segments, the operand size decides the frame. */
        program p16_far, P16
        movl    %esp, %ebp
        lcalll  $KERNEL_CS32, $A(1f)
        jmp     2f
        .code32
1:      movl    %cs, %eax
        OUT
        movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        lretl
        .code16
2:      movl    %cs, %eax
        OUT
        movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        lcallw  $CODE16, $R(3f)
        jmp     4f
3:      movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        lretw   $0
4:      int     $0x21
        movl    V16(FRAME_CS), %eax
        movzwl  %ax, %eax
        OUT
        expect  p16_far
        .long   KERNEL_CS32, 8, CODE16, 0, 4, VECTOR_TAG | 0x21, CODE16
        end     p16_far, 0, "protected mode is emulated, without INT"

/* --- protected mode, 32 bits ----------------------------------------------------------------- */

/* SDM 3A 5.3 (limits), 5.5, 5.6, 3.4.2: null selectors, types; 6.15: #NP, #SS, #GP with selectors
 * as error codes. */
        program p32_segments, P32
        movl    $LIMITED, %eax
        movl    %eax, %es
        movl    $0x44332211, %es:0xfc
        out     DATA+0xfc
        resume32 1f
        movl    %es:0xfd, %eax
1:      movl    $EXPAND_DOWN, %eax
        movl    %eax, %es
        out     %es:0x100
        resume32 1f
        movl    %es:0xff, %eax
1:      xorl    %eax, %eax
        movl    %eax, %es
        resume32 1f
        movl    %es:0, %eax
1:      movl    $NOT_PRESENT, %eax
        resume32 1f
        movl    %eax, %es
1:      movl    $NOT_PRESENT, %eax
        resume32 1f
        movl    %eax, %ss
1:      movl    $EXECUTE_ONLY, %eax
        resume32 1f
        movl    %eax, %es
1:      xorl    %eax, %eax
        resume32 1f
        movl    %eax, %ss
1:      movl    $READ_ONLY, %eax
        movl    %eax, %es
        out     %es:0xfc
        resume32 1f
        movl    %eax, %es:0xfc
1:      resume32 1f
        movl    %eax, %cs:DATA
1:      movl    $STACK64K, %eax
        movl    %eax, %ss
        movl    $0x10000, %ebp
        resume32 1f
        movl    (%ebp), %eax
1:      movl    $0x1004, %eax
        resume32 1f
        movl    %eax, %es /* beyond the GDT */
1:      resume32 1f
        ljmpl   $ABSENT_CODE, $0
1:      resume32 1f
        ljmpl   $KERNEL_SS, $0
1:      out     $0x600d
        expect  p32_segments
        .long   0x44332211, VECTOR_TAG | 13, CODE_TAG, 0, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 11, CODE_TAG | NOT_PRESENT
        .long   VECTOR_TAG | 12, CODE_TAG | NOT_PRESENT
        .long   VECTOR_TAG | 13, CODE_TAG | EXECUTE_ONLY, VECTOR_TAG | 13, CODE_TAG
        .long   0x44332211, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 12, CODE_TAG, VECTOR_TAG | 13, CODE_TAG | 0x1004
        .long   VECTOR_TAG | 11, CODE_TAG | ABSENT_CODE, VECTOR_TAG | 13, CODE_TAG | KERNEL_SS
        .long   0x600d
        end     p32_segments, 0, "protected mode is emulated, without IRET"

/* SDM 2 LAR, LSL, VERR, VERW, ARPL, LLDT (3A 3.5.1), SLDT, STR, SGDT. */
        program p32_descriptors, P32
        movl    $LIMITED, %ecx
        larl    %ecx, %eax
        OUT
        lsll    %ecx, %eax
        OUT
        movl    $KERNEL_SS, %ecx
        lsll    %ecx, %eax
        OUT
        movl    $READ_ONLY, %ecx
        verw    %cx
        flagsl  0x40
        verr    %cx
        flagsl  0x40
        xorl    %ecx, %ecx
        larl    %ecx, %eax
        flagsl  0x40
        movl    $0x10, %eax
        movl    $0x3, %ecx
        arpl    %cx, %ax
        OUT
        movl    $0x0000ffff, FREE + 8
        movl    $0x00409300 | DATA >> 16, FREE + 12
        movl    $LDT_SELECTOR, %eax
        lldt    %ax
        sldt    %eax
        OUT
        movl    $0x99, DATA+4
        movl    $0xc, %eax /* entry 1 of the LDT */
        movl    %eax, %es
        out     %es:4
        str     %eax
        OUT
        sgdtl   DATA
        movzwl  DATA, %eax
        OUT
        out     DATA+2
        expect  p32_descriptors
        .long   0x409300, 0xff, 0xffffffff, 0, 0x40, 0, 0x13, LDT_SELECTOR, 0x99, TSS_SELECTOR
        .long   GDT_BYTES - 1, GDT
        end     p32_descriptors, 0, "protected mode is emulated, without LAR"

/* SDM 3A 6.12.1 (stack of the TSS, error codes of INT), 5.9 (privileged instructions), 2 IRET. */
        program p32_rings, P32
        pushl   $USER_SS
        pushl   $STACK3
        pushl   $0x202
        pushl   $USER_CS32
        pushl   $A(1f)
        iretl
1:      movl    $USER_SS, %ecx
        movl    %ecx, %ds
        movl    $0x13, %ecx /* KERNEL_SS with RPL 3 */
        resume32 1f
        movl    %ecx, %es
1:      resume32 1f
        hlt
1:      resume32 1f
        int     $0x81
1:      int     $0x80
        resume32 1f
        movl    %cr0, %ecx
1:      resume32 1f
        cli
1:      resume32 1f
        outl    %eax, $0xe0
1:      movl    $A(1f), BACK
        int     $0x90
1:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        out     FRAME_RSP
        movl    FRAME_SS, %eax
        movzwl  %ax, %eax
        OUT
        movl    FRAME_CS, %eax
        movzwl  %ax, %eax
        OUT
        movl    $STACK0, %eax
        subl    VARS + 0x38, %eax
        OUT
        movl    %cs, %eax
        OUT
        expect  p32_rings
        .long   VECTOR_TAG | 13, CODE_TAG | 0x10, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG | (0x81 * 8 + 2), VECTOR_TAG | 0x80
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 0x90, STACK3, USER_SS, USER_CS32, 36, KERNEL_CS32
        end     p32_rings, 0, "protected mode is emulated, without IRET"

/* SDM 3B 17.3.1.4 (single step; REP traps after each turn), 6.15 #UD, #OF, #BP at level 0. */
        program p32_traps, P32
        movl    $DATA, %edi
        movl    $3, %ecx
        pushfl
        orl     $0x100, (%esp)
        popfl
        rep stosb
        pushfl
        andl    $~0x100, (%esp)
        popfl
1:      movl    FRAME_RIP, %eax
        subl    $A(1b), %eax
        OUT
        int3
        movl    $0x7fffffff, %eax
        incl    %eax
        into
        resume32 2f
1:      ud2
2:      movl    FRAME_RIP, %eax
        subl    $A(1b), %eax
        OUT
        movl    FRAME_FLAGS, %eax
        andl    $0x10000, %eax
        OUT
        expect  p32_traps
        .long   VECTOR_TAG | 1, VECTOR_TAG | 1, VECTOR_TAG | 1, VECTOR_TAG | 1, VECTOR_TAG | 1
        .long   VECTOR_TAG | 1, 0, VECTOR_TAG | 3, VECTOR_TAG | 4, VECTOR_TAG | 6, 0, 0x10000
        end     p32_traps, 0, "protected mode is emulated, without IRET"

/* SDM 3A 4.3: 32-bit paging: A and D, 4-MiB pages with CR4.PSE, WP, CR3 switches, error codes. */
        program p32_paging, P32
        movl    $(FREE | 3), PT32 + FREE / 4096 * 4
        movl    $(FREE | 1), PT32 + FREE / 4096 * 4 + 4
        movl    $0x83, PD32 + 4 /* linear 4 MiB: gpa 0 */
        movl    $PD32, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orl     $0x10, %eax
        movl    %eax, %cr4
        movl    %cr0, %eax
        orl     $0x80010000, %eax
        movl    %eax, %cr0
        jmp     1f
1:      movl    FREE, %ecx
        movl    PT32 + FREE / 4096 * 4, %eax
        andl    $0xfff, %eax
        OUT
        movl    $0x1357, FREE
        movl    PT32 + FREE / 4096 * 4, %eax
        andl    $0xfff, %eax
        OUT
        out     0x400000 + FREE
        movl    PD32 + 4, %eax
        OUT
        out     FREE + 0x1000
        resume32 1f
        movl    %eax, FREE + 0x1000
1:      resume32 1f
        movl    FREE + 0x2000, %eax
1:      resume32 1f
        movl    %eax, FREE + 0x2ffe
1:      movl    %cr0, %eax
        andl    $~0x10000, %eax
        movl    %eax, %cr0
        movl    $0x2468, FREE + 0x1000
        out     FREE
        movl    PD32, %eax
        movl    %eax, 0x400000 + FREE + 0x10000 /* another directory, without 4 MiB */
        movl    $(FREE + 0x10000), %eax
        movl    %eax, %cr3
        resume32 1f
        movl    0x400000 + FREE, %eax
1:      out     FREE
        expect  p32_paging
        .long   0x23, 0x63, 0x1357, 0xa3, 0x1357, VECTOR_TAG | 14, CODE_TAG | 3, FREE + 0x1000
        .long   VECTOR_TAG | 14, CODE_TAG, FREE + 0x2000
        .long   VECTOR_TAG | 14, CODE_TAG | 2, FREE + 0x2ffe
        .long   0x2468, VECTOR_TAG | 14, CODE_TAG, 0x400000 + FREE, 0x2468
        end     p32_paging, 0, "paging outside of long mode is refused with a general protection fault"

/* SDM 3A 4.4: PAE paging: PDPTEs loaded with CR3, 2-MiB pages, NX; reserved bits are RSVD. */
        program p32_pae, P32
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x800, %eax
        wrmsr
        movl    $(FREE | 3), PTE(FREE)
        movl    $0x80000000, PTE(FREE) + 4
        movl    $(FREE | 3), PTE(FREE) + 8
        movl    $0x00080000, PTE(FREE) + 12 /* bit 51 */
        movl    $0x83, PD + 8 /* linear 2 MiB: gpa 0 */
        movl    $PDPT32, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    %cr0, %eax
        orl     $0x80010000, %eax
        movl    %eax, %cr0
        jmp     1f
1:      movl    $0xc3, FREE
        movl    PTE(FREE), %eax
        andl    $0xfff, %eax
        OUT
        out     0x200000 + FREE
        resume32 1f
        movl    $FREE, %eax
        jmp     *%eax
1:      resume32 1f
        movl    FREE + 0x1000, %eax
1:      resume32 1f
        movl    0x40000000 + FREE, %eax
1:      movl    $(PD | 1), PDPT32 + 8 /* linear 1 GiB */
        movl    $PDPT32, %eax
        movl    %eax, %cr3
        out     0x40000000 + FREE
        expect  p32_pae
        .long   0x63, 0xc3, VECTOR_TAG | 14, CODE_TAG | 0x11, FREE
        .long   VECTOR_TAG | 14, CODE_TAG | 9, FREE + 0x1000
        .long   VECTOR_TAG | 14, CODE_TAG, 0x40000000 + FREE, 0xc3
        end     p32_pae, 0, "paging outside of long mode is refused with a general protection fault"

/* SDM 2 and 1 10, 12: x87, MMX, SSE, AVX at level 0 in 32-bit mode; #NM with CR0.TS (3A 2.5). */
        program p32_vector, P32
        fninit
        fld1
        fadd    %st(0), %st
        fstps   DATA
        out     DATA
        movl    $0x00ff00ff, %eax
        movd    %eax, %mm0
        paddb   %mm0, %mm0
        movd    %mm0, %eax
        OUT
        emms
        movd    %eax, %xmm0
        pshufd  $0, %xmm0, %xmm1
        movups  %xmm1, DATA
        out     DATA+12
        movl    %cr0, %eax
        orl     $8, %eax
        movl    %eax, %cr0
        resume32 1f
        fld1
1:      resume32 1f
        xorps   %xmm0, %xmm0
1:      resume32 1f
        emms
1:      clts
        movd    %xmm0, %eax
        OUT
        movl    %cr4, %eax
        andl    $~0x200, %eax
        movl    %eax, %cr4
        resume32 1f
        xorps   %xmm0, %xmm0
1:      out     $0x600d
        expect  p32_vector
        .long   0x40000000, 0x00fe00fe, 0x00fe00fe, VECTOR_TAG | 7, VECTOR_TAG | 7
        .long   VECTOR_TAG | 7, 0x00fe00fe, VECTOR_TAG | 6, 0x600d
        end     p32_vector, 0, "protected mode is emulated, without x87 and SSE"

/* Ports, all sizes: SDM 1 19.3, 2 INS, OUTS; MMIO in 32-bit mode. */
        program p32_ports, P32
        movl    $DEVICE, %edx
        movl    $0x11223344, %eax
        outb    %al, (%dx)
        outw    %ax, (%dx)
        outl    %eax, (%dx)
        incl    %edx
        xorl    %eax, %eax
        inb     (%dx), %al
        OUT
        inw     (%dx), %ax
        OUT
        inl     (%dx), %eax
        OUT
        movl    $0x88776655, DATA
        movl    $DATA, %esi
        movl    $4, %ecx
        rep outsb
        std
        movl    $DATA + 2, %esi
        movl    $2, %ecx
        rep outsw
        movl    $DATA + 0x14, %edi
        movl    $2, %ecx
        rep insl
        cld
        out     DATA+0x14
        out     DATA+0x10
        out     %edi
        movl    $0x99, MMIO + 8
        movb    MMIO + 3, %al
        movzbl  %al, %eax
        OUT
        expect  p32_ports
        .long   0xb0010100, 0x44, 0xb0010200, 0x3344, 0xb0010400, 0x11223344
        .long   0xb0000101, 0xa1, 0xb0000201, 0xa2a1, 0xb0000401, 0xa4a3a2a1
        .long   0xb0010101, 0x55, 0xb0010101, 0x66, 0xb0010101, 0x77, 0xb0010101, 0x88
        .long   0xb0010201, 0x8877, 0xb0010201, 0x6655
        .long   0xb0000401, 0xb0000401, 0xa4a3a2a1, 0xa4a3a2a1, DATA + 0xc
        .long   0xb0110408, 0x99, 0xb0100103, 0xa3
        end     p32_ports

/* --- 64-bit mode, level 0 -------------------------------------------------------------------- */

/* SDM 3A 5.8.1, 2 JMP, CALL, RET: by far RET to 32- and 16-bit code segments of compatibility mode,
 * by far CALL back. */
        program long_far, LONG
        movq    %rsp, %rbp
        pushq   $KERNEL_CS32
        pushq   $A(1f)
        lretq
        .code32
1:      movl    %cs, %eax
        OUT
        movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        movl    $-1, %ebx
        incl    %ebx /* INC r32: one byte, a REX prefix elsewhere */
        out     %ebx
        lcalll  $KERNEL_CS, $A(2f)
        ljmpl   $CODE16, $R(3f)
        .code64
2:      movl    %cs, %eax
        OUT
        movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        lretl
        .code16
3:      movl    %cs, %eax
        OUT
        movl    $0x12345678, %ebx
        incw    %bx
        out     %ebx
        ljmpl   $KERNEL_CS, $A(4f)
        .code64
4:      movl    %cs, %eax
        OUT
        movq    %rbp, %rsp
        resume64 1f
        pushq   $KERNEL_SS
        pushq   $A(1f)
        lretq
1:      movq    %rbp, %rsp
        out     $0x600d
        expect  long_far
        .long   KERNEL_CS32, 0, 0, KERNEL_CS, 8, CODE16, 0x12345679, KERNEL_CS
        .long   VECTOR_TAG | 13, CODE_TAG | KERNEL_SS, 0x600d
        end     long_far

/* SDM 3A 5.8.8 (SYSCALL, SYSRET), 6.14.3, 6.14.4 (stack switch), 5.9, 6.13 (error codes). */
        program long_rings, LONG
        user_pages
        movl    $0xc0000081, %ecx
        xorl    %eax, %eax
        movl    $(0x1b << 16 | KERNEL_CS), %edx
        wrmsr
        incl    %ecx
        movl    $A(syscall_entry), %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0xc0000084, %ecx
        movl    $0x201, %eax
        wrmsr
        to_user USER_CS, 1f
1:      movl    %cs, %eax
        OUT
        resume64 2f
        hlt
2:      resume64 2f
        movq    %cr3, %rax
2:      resume64 2f
        wrmsr
2:      resume64 2f
        cli
2:      resume64 2f
        int     $0x81
2:      int     $0x80
        movq    FRAME_RSP, %rax
        subq    %rsp, %rax
        OUT
        movl    FRAME_SS, %eax
        movzwl  %ax, %eax
        OUT
        movl    $STACK0, %eax
        subl    VARS + 0x38, %eax
        OUT
        resume64 2f
        movl    PML4, %eax
2:      movq    %rsp, %rbp
        stc
        syscall
after_sys:
        out     %ebx
        movl    %ss, %eax
        OUT
        back_to 2f
syscall_entry:
        subq    $A(after_sys), %rcx
        movl    %ecx, %eax
        OUT
        movl    %r11d, %eax
        andl    $0x203, %eax
        OUT
        flagsq  0x201
        movl    %cs, %eax
        OUT
        movl    %ss, %eax
        OUT
        movq    %rsp, %rax
        subq    %rbp, %rax
        OUT
        movl    $0x1d, %ebx
        addq    $A(after_sys), %rcx
        sysretq
2:      movl    %cs, %eax
        OUT
        expect  long_rings
        .long   USER_CS, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG | (0x81 * 8 + 2), VECTOR_TAG | 0x80, 0, USER_SS, 64
        .long   VECTOR_TAG | 14, CODE_TAG | 5, PML4
        .long   0, 0x203, 0, KERNEL_CS, KERNEL_SS, 0, 0x1d, USER_SS, VECTOR_TAG | 0x90, KERNEL_CS
        end     long_rings, 0, "at level 3 CS and SS are those of the host, and INT is not emulated"

/* SDM 3A 6.14.2 (the frame is aligned to 16 bytes), 6.14.5 (IST), 6.14.3 (IRET). */
        program long_ist, LONG
        movq    $STACK - 3, %rsp
        resume64 1f
        ud2
1:      out     VARS+0x38
        movq    FRAME_RSP, %rax
        subq    $STACK - 3, %rax
        OUT
        movq    $STACK, %rsp
        movb    $1, IDT + 6 * 16 + 4
        resume64 1f
        ud2
1:      out     VARS+0x38
        out     FRAME_RSP
        movl    FRAME_SS, %eax
        movzwl  %ax, %eax
        OUT
        xorl    %eax, %eax
        movl    %eax, %ss /* a null SS is good at level 0 */
        int     $0x22
        movl    %ss, %eax
        OUT
        movl    $KERNEL_SS, %eax
        movl    %eax, %ss
        expect  long_ist
        .long   VECTOR_TAG | 6, ((STACK - 3) & ~15) - 64, 0
        .long   VECTOR_TAG | 6, STACK_IST - 64, STACK, KERNEL_SS, VECTOR_TAG | 0x22, 0
        end     long_ist, 0, "INT at level 0 is not emulated"

/* SDM 3A 4.6 (rights), 4.7 (error codes), 4.8 (A and D): of the page, not set by what faults. */
        program long_paging, LONG
        movq    $(FREE | 3), PTE(FREE)
        movl    FREE, %ecx
        movl    PTE(FREE), %eax
        andl    $0xfff, %eax
        OUT
        movl    $0x55, FREE
        movl    PTE(FREE), %eax
        andl    $0xfff, %eax
        OUT
        movq    $(FREE | 1), PTE(FREE) + 8
        resume64 1f
        movl    %eax, FREE + 0x1004
1:      movl    PTE(FREE) + 8, %eax
        andl    $0xfff, %eax
        OUT
        out     FREE+0x1000
        resume64 1f
        lock addl $1, FREE + 0x1000
1:      movabsq $0x8000000000000003 | FREE, %rax
        movq    %rax, PTE(FREE) + 16
        movb    $0xc3, FREE + 0x2000
        resume64 1f
        movl    $FREE + 0x2000, %eax
        jmp     *%rax
1:      movq    FRAME_RIP, %rax
        OUT
        movabsq $0x0008000000000003 | FREE, %rax
        movq    %rax, PTE(FREE) + 24
        resume64 1f
        movl    FREE + 0x3000, %eax
1:      resume64 1f
        movl    FREE + 0x4000, %eax
1:      movq    %cr0, %rax
        andl    $~0x10000, %eax
        movq    %rax, %cr0
        movl    $0x66, FREE + 0x1000
        out     FREE
        movl    PTE(FREE) + 8, %eax
        andl    $0xfff, %eax
        OUT
        expect  long_paging
        .long   0x23, 0x63, VECTOR_TAG | 14, CODE_TAG | 3, FREE + 0x1004, 1, 0x55
        .long   VECTOR_TAG | 14, CODE_TAG | 3, FREE + 0x1000
        .long   VECTOR_TAG | 14, CODE_TAG | 0x11, FREE + 0x2000, FREE + 0x2000
        .long   VECTOR_TAG | 14, CODE_TAG | 9, FREE + 0x3000
        .long   VECTOR_TAG | 14, CODE_TAG, FREE + 0x4000
        .long   0x66, 0x61
        end     long_paging

/* SDM 3A 6.5: faults leave the machine as before the instruction: nothing of a store to two pages is
 * seen when the second faults; nothing is read from a port when its destination faults. */
        program long_restart, LONG
        movq    $(FREE | 3), PTE(FREE)
        movl    $-1, %eax
        resume64 1f
        movl    %eax, FREE + 0xffe
1:      movzwl  FREE + 0xffe, %eax
        OUT
        movq    $(FREE | 1), PTE(FREE) + 8
        movl    $FREE + 0x1000, %edi
        movl    $DEVICE, %edx
        movl    $1, %ecx
        resume64 1f
        rep insb
1:      out     %ecx
        expect  long_restart
        .long   VECTOR_TAG | 14, CODE_TAG | 2, FREE + 0x1000, 0
        .long   VECTOR_TAG | 14, CODE_TAG | 3, FREE + 0x1000, 1
        end     long_restart, 0, "half of a store, and the port, are done before the fault"

/* SDM 3A 4.5 (2-MiB and 1-GiB pages), 4.10.4 (INVLPG of any address in them, CR3). */
        program long_large_pages, LONG
        movq    $0x83, PD + 8
        movq    $(FREE | 3), PTE(FREE)
        movl    $FREE, %ebx
        invlpg  (%rbx)
        movl    $0x5678, FREE
        out     0x200000 + FREE
        movl    PD + 8, %eax
        OUT
        movl    $0x9abc, 0x200000 + FREE
        out     FREE
        movl    PD + 8, %eax
        OUT
        movq    $0x83, PDPT + 8
        movl    $0x40000000 + FREE, %ebx
        out     (%rbx)
        movq    $0x200083, PD + 8
        movl    $0x200000, %ebx
        invlpg  (%rbx)
        out     0x200000 + FREE
        movq    $0x2083, PD + 16 /* bit 13 is reserved */
        resume64 1f
        movl    0x400000, %eax
1:      movq    $0, PDPT + 8
        movq    %cr3, %rax
        movq    %rax, %cr3
        movl    $0x40000000 + FREE, %ebx
        resume64 1f
        movl    (%rbx), %eax
1:      out     $0x600d
        expect  long_large_pages
        .long   0x5678, 0xa3, 0x9abc, 0xe3, 0x9abc, 0
        .long   VECTOR_TAG | 14, CODE_TAG | 9, 0x400000
        .long   VECTOR_TAG | 14, CODE_TAG, 0x40000000 + FREE, 0x600d
        end     long_large_pages, 0, "1-GiB pages raise a page fault for a reserved bit"

/* SDM 3A 4.10.4: INVLPG, MOV to CR3, CR4.PGE make changed entries seen. */
        program long_invalidation, LONG
        movq    $(FREE | 3), PTE(FREE)
        movq    $((FREE + 0x1000) | 3), PTE(FREE) + 8
        movl    $1, FREE
        movl    $2, FREE + 0x1000
        movq    $((FREE + 0x1000) | 3), PTE(FREE)
        movl    $FREE, %ebx
        invlpg  (%rbx)
        out     FREE
        /* A second address space: the page is elsewhere in it, the rest the same. */
        movl    $PML4, %esi
        movl    $FREE + 0x2000, %edi
        movq    $((FREE + 0x2000) | 3), PTE(FREE) + 16
        movq    $((FREE + 0x3000) | 3), PTE(FREE) + 24
        movq    $((FREE + 0x4000) | 3), PTE(FREE) + 32
        movq    $((FREE + 0x5000) | 3), PTE(FREE) + 40
        movl    $512, %ecx
        rep movsq
        movl    $512, %ecx
        movl    $PDPT, %esi
        rep movsq
        movl    $512, %ecx
        movl    $PD, %esi
        rep movsq
        movl    $512, %ecx
        movl    $PT, %esi
        rep movsq
        movq    $((FREE + 0x3000) | 3), FREE + 0x2000
        movq    $((FREE + 0x4000) | 3), FREE + 0x3000
        movq    $((FREE + 0x5000) | 3), FREE + 0x4000
        movq    $(FREE | 3), FREE + 0x5000 + FREE / 4096 * 8
        movl    $(FREE + 0x2000), %eax
        movq    %rax, %cr3
        out     FREE
        movl    $PML4, %eax
        movq    %rax, %cr3
        out     FREE
        orl     $0x100, PTE(FREE) /* global */
        movq    %cr4, %rax
        orl     $0x80, %eax
        movq    %rax, %cr4
        movl    FREE, %ecx
        movq    $(FREE | 0x103), PTE(FREE)
        xorl    $0x80, %eax
        movq    %rax, %cr4
        out     FREE
        expect  long_invalidation
        .long   2, 1, 2, 1
        end     long_invalidation

/* SDM 3A 4.6.1: CR4.SMEP, CR4.SMAP; 2 STAC, CLAC. User pages for the kernel. */
        program long_smep_smap, LONG
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        andl    $0x100080, %ebx
        out     %ebx
        movq    $(FREE | 7), PTE(FREE)
        movb    $0xc3, FREE
        movl    $FREE, %ebx
        call    *%rbx
        movq    %cr4, %rax
        orl     $0x100000, %eax
        movq    %rax, %cr4
        resume64 1f
        call    *%rbx
1:      movq    $STACK, %rsp
        movl    FREE, %eax
        movzbl  %al, %eax
        OUT
        movq    %cr4, %rax
        orl     $0x200000, %eax
        movq    %rax, %cr4
        resume64 1f
        movl    FREE, %eax
1:      resume64 1f
        movl    %eax, FREE
1:      stac
        movl    FREE, %eax
        movzbl  %al, %eax
        OUT
        flagsq  0x40000
        clac
        resume64 1f
        movl    FREE, %eax
1:      out     $0x600d
        expect  long_smep_smap
        .long   0x100080, VECTOR_TAG | 14, CODE_TAG | 0x11, FREE, 0xc3
        .long   VECTOR_TAG | 14, CODE_TAG | 1, FREE, VECTOR_TAG | 14, CODE_TAG | 3, FREE
        .long   0xc3, 0x40000, VECTOR_TAG | 14, CODE_TAG | 1, FREE, 0x600d
        end     long_smep_smap, 0, "STAC is not emulated"

/* SDM 3A 6.8.1 (STI: the next instruction still runs), 6.8.3 (MOV SS likewise), 2 HLT. */
        program long_interrupts, LONG
        movl    $0x1ff, APIC_PAGE + 0xf0
        movb    $0x31, %al
        outb    %al, $INTERRUPT
        xorl    %ecx, %ecx
        sti
        incl    %ecx
1:      incl    %ecx
        cli
        movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        movb    $0x32, %al
        outb    %al, $INTERRUPT
        sti
        hlt
1:      cli
        movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        movb    $0x33, %al
        outb    %al, $INTERRUPT
        movl    $KERNEL_SS, %edx
        pushq   $0x202
        popfq /* no shadow: it comes here */
1:      cli
        movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        movl    FRAME_FLAGS, %eax
        andl    $0x200, %eax
        OUT
        flagsq  0x200
        sti
        movl    $0, FRAME_CS
        movb    $0x34, %al
        outb    %al, $INTERRUPT
1:      cmpl    $0, FRAME_CS
        je      1b
        cli
        out     %ecx
        expect  long_interrupts
        .long   VECTOR_TAG | 0x31, 0, VECTOR_TAG | 0x32, 0, VECTOR_TAG | 0x33, 0, 0x200, 0
        .long   VECTOR_TAG | 0x34, 2
        end     long_interrupts, 0, "POPF does not set IF, and interrupts come late"

/* SDM 3A 6.8.3: no single-step trap after MOV SS; 3B 17.3.1.4. */
        program long_mov_ss_shadow, LONG
        movl    $KERNEL_SS, %edx
        pushq   $0x102
        popfq
        movl    %edx, %ss
        nop
1:      pushq   $2
        popfq
        movq    FRAME_RIP, %rax
        OUT
        expect  long_mov_ss_shadow
        .long   VECTOR_TAG | 1, VECTOR_TAG | 1, VECTOR_TAG | 1
        .long   CODE + 17 /* behind POPFQ */
        end     long_mov_ss_shadow, 0, "TF traps after MOV SS"

/* SDM 3A 2.5, 6.15 (#NM): CR0.TS, CR0.EM, CR4.OSFXSR, CR4.OSXSAVE; FWAIT heeds MP. */
        program long_not_available, LONG
        movq    %cr0, %rbx
        movq    %rbx, %rax
        orl     $8, %eax
        movq    %rax, %cr0
        resume64 1f
        fld1
1:      resume64 1f
        xorps   %xmm0, %xmm0
1:      resume64 1f
        fwait
1:      resume64 1f
        fxsave  DATA
1:      clts
        movq    %rbx, %rax
        orl     $4, %eax
        andl    $~2, %eax
        movq    %rax, %cr0
        resume64 1f
        fld1
1:      resume64 1f
        xorps   %xmm0, %xmm0
1:      fwait
        movq    %rbx, %cr0
        movq    %cr4, %rbx
        movl    %ebx, %eax
        andl    $~0x40000, %eax
        movq    %rax, %cr4
        xorl    %ecx, %ecx
        resume64 1f
        xgetbv
1:      movq    %rbx, %cr4
        xgetbv
        andl    $3, %eax
        OUT
        movl    $2, %eax /* without x87: not allowed */
        xorl    %edx, %edx
        resume64 1f
        xsetbv
1:      out     $0x600d
        expect  long_not_available
        .long   VECTOR_TAG | 7, VECTOR_TAG | 7, VECTOR_TAG | 7, VECTOR_TAG | 7
        .long   VECTOR_TAG | 7, VECTOR_TAG | 6, VECTOR_TAG | 6, 3, VECTOR_TAG | 13, CODE_TAG
        .long   0x600d
        end     long_not_available, 0, "with TS set x87 is emulated, and not known"

/* What is written is read: SDM 4 2.1; #GP(0) for what isn't canonical, reserved or unknown. */
        .macro  msr_round number, high, low
        movl    $\number, %ecx
        movl    $\low, %eax
        movl    $\high, %edx
        wrmsr
        xorl    %eax, %eax
        xorl    %edx, %edx
        rdmsr
        OUT
        out     %edx
        .endm
        program long_msrs, LONG
        msr_round 0xc0000081, 0x1b0008, 0
        msr_round 0xc0000082, 0xffffffff, 0x81000000
        msr_round 0xc0000083, 0xffffffff, 0x81000100
        msr_round 0xc0000084, 0, 0x47700
        msr_round 0x277, 0x00070106, 0x00070106
        msr_round 0xc0000103, 0, 0x1234
        rdtscp
        out     %ecx
        rdpid   %rbx
        out     %ebx
        msr_round 0xc0000100, 0x1234, DATA
        msr_round 0xc0000101, 0, DATA + 0x100
        msr_round 0xc0000102, 0, DATA + 0x200
        movl    $0x11, DATA+0x110
        movl    $0x22, DATA+0x210
        out     %gs:0x10
        swapgs
        out     %gs:0x10
        swapgs
        movq    %cr4, %rax
        orl     $0x10000, %eax
        movq    %rax, %cr4
        rdfsbase %rbx
        out64   %rbx
        movl    $DATA + 0x200, %ebx
        wrgsbase %rbx
        out     %gs:0x10
        msr_round 0x174, 0, 0x10
        msr_round 0x175, 0xffff8000, 0
        movl    $0xc0000080, %ecx
        rdmsr
        OUT
        movl    $0xc0000082, %ecx
        movl    $0x8000, %edx
        resume64 1f
        wrmsr
1:      movl    $0x277, %ecx
        movl    $2, %eax /* a type that is none */
        xorl    %edx, %edx
        resume64 1f
        wrmsr
1:      movl    $0xc0000080, %ecx
        movl    $0xc01, %eax /* LME off while paging */
        resume64 1f
        wrmsr
1:      movl    $0xc0000080, %ecx
        movl    $0xd03, %eax /* reserved bit 1 */
        resume64 1f
        wrmsr
1:      out     $0x600d
        expect  long_msrs
        .long   0, 0x1b0008, 0x81000000, 0xffffffff, 0x81000100, 0xffffffff, 0x47700, 0
        .long   0x00070106, 0x00070106, 0x1234, 0, 0x1234, 0x1234
        .long   DATA, 0x1234, DATA + 0x100, 0, DATA + 0x200, 0, 0x11, 0x22, DATA, 0x1234, 0x22
        .long   0x10, 0, 0, 0xffff8000, 0xd01
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG, 0x600d
        end     long_msrs, 0, "writing TSC_AUX is refused with a general protection fault"

/* The bus sees each access once, in order, with its size: SDM 2 MOV, MOVS, STOS, ADD. */
        program long_mmio, LONG
        movl    $MMIO_PAGE, %ebx
        movabsq $0x1122334455667788, %rax
        movb    %al, (%rbx)
        movw    %ax, 2(%rbx)
        movl    %eax, 4(%rbx)
        movq    %rax, 8(%rbx)
        movzbl  1(%rbx), %eax
        OUT
        movzwl  2(%rbx), %eax
        OUT
        movl    4(%rbx), %eax
        OUT
        movq    8(%rbx), %rcx
        out64   %rcx
        movl    $0x44332211, DATA
        movl    $DATA, %esi
        leaq    0x20(%rbx), %rdi
        movl    $2, %ecx
        rep movsw
        movl    $0x20, %ecx
        addl    %ecx, 0x30(%rbx)
        movsbl  (%rbx), %eax
        OUT
        leaq    0x10(%rbx), %rsi
        movl    $DATA, %edi
        movl    $2, %ecx
        rep movsl
        out     DATA
        out     DATA+4
        expect  long_mmio
        .long   0xb0110100, 0x88, 0xb0110202, 0x7788, 0xb0110404, 0x55667788
        .long   0xb0110808, 0x55667788, 0x11223344
        .long   0xb0100101, 0xa1, 0xb0100202, 0xa3a2, 0xb0100404, 0xa7a6a5a4
        .long   0xb0100808, 0xabaaa9a8, 0xafaeadac
        .long   0xb0110220, 0x2211, 0xb0110222, 0x4433
        .long   0xb0100430, 0xb0110430, 0xd3d2d1f0, 0xb0100100, 0xffffffa0
        .long   0xb0100410, 0xb0100414, 0xb3b2b1b0, 0xb7b6b5b4
        end     long_mmio

/* SDM 1 19.3, 2 OUTS, INS: the count and index registers are 64 bits wide. */
        program long_ports, LONG
        movl    $DEVICE, %edx
        movl    $0x11223344, %eax
        outw    %ax, (%dx)
        inl     (%dx), %eax
        OUT
        movq    $-1, %rax
        inl     (%dx), %eax
        out64   %rax
        movl    $0x44332211, DATA
        movl    $DATA, %esi
        movl    $3, %ecx
        rep outsb
        movl    $DATA + 0x10, %edi
        movl    $3, %ecx
        rep insw
        out64   %rdi
        out     DATA+0x10
        out     DATA+0x14
        std
        movl    $DATA, %esi
        movl    $1, %ecx
        rep outsl
        cld
        out     %esi
        expect  long_ports
        .long   0xb0010200, 0x3344, 0xb0000400, 0xa3a2a1a0, 0xb0000400, 0xa3a2a1a0, 0
        .long   0xb0010100, 0x11, 0xb0010100, 0x22, 0xb0010100, 0x33
        .long   0xb0000200, 0xb0000200, 0xb0000200, DATA + 0x16, 0, 0xa1a0a1a0, 0xa1a0
        .long   0xb0010400, 0x44332211, DATA - 4
        end     long_ports

/* SDM 2 REP: a fault leaves the registers at the turn that faulted, and IRET goes on there. */
        program long_rep_fault, LONG
        movq    $(FREE | 3), PTE(FREE)
        movl    $(FREE + 0xff0), %edi
        movl    $4, %ecx
        movl    $0x77, %eax
        resume64 1f
        rep stosq
1:      out     %ecx
        out     %edi
        movq    $(FREE | 3), PTE(FREE) + 8
        movl    $0x99, %eax
        rep stosq
        out     %ecx
        out     FREE
        out     FREE+0xff8
        expect  long_rep_fault
        .long   VECTOR_TAG | 14, CODE_TAG | 2, FREE + 0x1000, 2, FREE + 0x1000, 0, 0x99, 0x77
        end     long_rep_fault

/* SDM 3A 6.15 (#DF): a contributory exception while a #PF is delivered; its error code is 0. */
        program long_double_fault, LONG
        movb    $0x0e, IDT + 14 * 16 + 5 /* its gate isn't present */
        resume64 1f
        movl    FREE, %eax
1:      movb    $0x0e, IDT + 0x23 * 16 + 5
        resume64 1f
        int     $0x23
1:      resume64 1f
        ud2
1:      out     $0x600d
        expect  long_double_fault
        .long   VECTOR_TAG | 8, CODE_TAG, VECTOR_TAG | 11, CODE_TAG | (0x23 * 8 + 2)
        .long   VECTOR_TAG | 6, 0x600d
        end     long_double_fault, 0, "INT at level 0 is not emulated"

/* SDM 3A 6.15: a fault while #DF is delivered shuts the processor down. */
        program long_triple_fault, LONG
        out     $0x600d
        pushq   $0
        pushq   $0
        lidt    (%rsp)
        ud2
        expect  long_triple_fault
        .long   0x600d
        end     long_triple_fault, SHUTDOWN

/* Each extension that CPUID offers executes (SDM 2 CPUID, table 3-17 on): an #UD would be told. */
        .macro  offered register, bit, instruction:vararg
        btl     $\bit, \register
        jnc     0f
        \instruction
0:
        .endm
        program u64_cpuid, USER64
        xorl    %eax, %eax
        cpuid
        cmpl    $7, %eax
        setae   %al
        movzbl  %al, %eax
        OUT
        movl    $1, %eax
        cpuid
        movl    %ecx, %esi
        movl    %edx, %edi
        andl    $0x0778a979, %edx /* what 64-bit systems take for granted */
        xorl    %ecx, %ecx
        movq    $DATA, %rbp
        offered %edi, 4, rdtsc
        offered %edi, 8, cmpxchg8b (%rbp)
        offered %edi, 15, cmovel %eax, %ebx
        offered %edi, 19, clflush (%rbp)
        offered %edi, 23, paddb %mm0, %mm1
        emms
        offered %edi, 25, addps %xmm0, %xmm1
        offered %edi, 26, addpd %xmm0, %xmm1
        offered %esi, 0, haddps %xmm0, %xmm1
        offered %esi, 1, pclmulqdq $0, %xmm0, %xmm1
        offered %esi, 9, pshufb %xmm0, %xmm1
        offered %esi, 13, cmpxchg16b (%rbp)
        offered %esi, 19, pmulld %xmm0, %xmm1
        offered %esi, 20, crc32l %eax, %ebx
        offered %esi, 22, movbel (%rbp), %eax
        offered %esi, 23, popcntl %eax, %ebx
        offered %esi, 25, aesenc %xmm0, %xmm1
        xorl    %ecx, %ecx
        offered %esi, 26, xgetbv
        offered %esi, 12, vfmadd132ps %ymm0, %ymm1, %ymm2
        offered %esi, 28, vaddps %ymm0, %ymm1, %ymm2
        offered %esi, 29, vcvtph2ps %xmm0, %ymm1
        offered %esi, 30, rdrand %rax
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        movl    %ebx, %esi
        movl    %ecx, %edi
        offered %esi, 3, andnl %eax, %ebx, %ecx
        offered %esi, 5, vpaddb %ymm0, %ymm1, %ymm2
        offered %esi, 8, pdepl %eax, %ebx, %ecx
        offered %esi, 8, mulxl %eax, %ebx, %ecx
        offered %esi, 18, rdseed %rax
        offered %esi, 19, adcxl %eax, %ebx
        offered %esi, 19, adoxl %eax, %ebx
        offered %esi, 23, clflushopt (%rbp)
        offered %esi, 24, clwb (%rbp)
        offered %esi, 29, sha256msg1 %xmm0, %xmm1
        offered %edi, 22, rdpid %rax
        movl    $0x80000001, %eax
        cpuid
        movl    %ecx, %esi
        movl    %edx, %edi
        offered %esi, 0, lahf
        offered %esi, 5, lzcntl %eax, %ebx
        offered %esi, 8, prefetchw (%rbp)
        offered %edi, 27, rdtscp
        xorl    %ecx, %ecx
        movl    $0xd, %eax
        cpuid
        andl    $3, %eax
        OUT
        vzeroupper
        expect  u64_cpuid
        .long   1, 3
        end     u64_cpuid, NEEDS_AVX

/* SDM 2 CPUID, leaf 0DH (the size of what XCR0 enables), 80000008H; the kernel's extensions. */
        program long_cpuid, LONG
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        movl    %ebx, %esi
        movq    %cr4, %rax
        orl     $0x10000, %eax
        offered %esi, 0, movq %rax, %cr4
        offered %esi, 0, rdgsbase %rax
        xorl    %ebx, %ebx
        movq    $0, DATA
        movq    $0, DATA+8
        movl    $DATA, %ebp
        offered %esi, 10, invpcid (%rbp), %rbx
        offered %esi, 20, clac
        movl    $0xd, %eax
        xorl    %ecx, %ecx
        cpuid
        out     %ebx
        movl    $1, %eax
        xorl    %edx, %edx
        xorl    %ecx, %ecx
        xsetbv
        movl    $0xd, %eax
        cpuid
        out     %ebx
        movl    $0x80000008, %eax
        cpuid
        movzbl  %ah, %eax
        OUT
        movl    $1, %eax
        cpuid
        andl    $(1 << 27), %ecx
        out     %ecx
        movq    %cr4, %rax
        andl    $~0x40000, %eax
        movq    %rax, %cr4
        movl    $1, %eax
        cpuid
        andl    $(1 << 27), %ecx
        out     %ecx
        expect  long_cpuid
        .long   832, 576, 48, 1 << 27, 0
        end     long_cpuid, NEEDS_AVX, "CLAC is not emulated"

/* SDM 3A 8.4 (INIT, SIPI), 9.1: from real mode into long mode; a ball goes to and fro a thousand
 * times (3A 8.2.2: stores are seen in order), and both add to a counter with LOCK (8.1.2). */
        program long_two_processors, LONG
        movq    $A(second), BACK
        movl    $0xf, %eax
        outb    %al, $START
        movl    $1000, %ecx
1:      movl    $1, DATA /* your turn */
2:      pause
        cmpl    $2, DATA
        jne     2b
        incl    DATA+0x80 /* nobody else does now */
        lock incl DATA+0x40
        decl    %ecx
        jnz     1b
        movl    $3, DATA
2:      pause
        cmpl    $4, DATA
        jne     2b
        out     DATA+0x40
        out     DATA+0x80
        out     DATA+0xc0
        outl    %eax, $END
0:      jmp     0b
second:
        movl    %cs, %eax
        movl    %eax, DATA+0xc0
1:      movl    DATA, %eax
        cmpl    $3, %eax
        je      3f
        cmpl    $1, %eax
        jne     1b
        lock incl DATA+0x40
        incl    DATA+0x80
        movl    $2, DATA
        jmp     1b
3:      movl    $4, DATA
        cli
4:      hlt
        jmp     4b
        expect  long_two_processors
        .long   2000, 2000, KERNEL_CS
        end     long_two_processors, TWO

/* What get_state() says at the end; engines.c looks at it. */
        program long_state, LONG
        movq    $LIMITED, %rax
        movl    %eax, %fs
        movabsq $0x0123456789abcdef, %rbx
        movq    %rbx, DATA
        movq    %rbx, %mm7
        movq    %rbx, %xmm5
        movq    %mm7, DATA+8
        emms
        movl    $0xfacade, %ecx
        leaq    1(%rbx), %rdx
        leaq    2(%rbx), %rsi
        leaq    3(%rbx), %rdi
        leaq    4(%rbx), %rbp
        leaq    8(%rbx), %r8
        leaq    15(%rbx), %r15
        movl    $0x1fa0, DATA+16
        ldmxcsr DATA+16
        fninit
        fldpi
        movl    $0x1000, %eax
        movq    %rax, %cr2
        stc
        std
        movl    $0x5eed, %eax
        expect  long_state
        end     long_state, STATE, "MMX at level 0 is not emulated"

/* SDM 2 SYSCALL, SYSRET, 3A 5.8.8: RCX, R11 and SFMASK; the stack is the program's. */
        program long_syscall, LONG
        user_pages
        movl    $0xc0000081, %ecx
        xorl    %eax, %eax
        movl    $(0x1b << 16 | KERNEL_CS), %edx
        wrmsr
        incl    %ecx
        movl    $A(3f), %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0xc0000084, %ecx
        movl    $0x701, %eax
        wrmsr
        to_user USER_CS, 1f
1:      movl    $2, %esi
        std
        stc
2:      syscall
4:      flagsq  0x401
        movq    %rsp, %rax
        subq    $STACK3, %rax
        OUT
        movl    $1, %esi
        xorl    %eax, %eax
        cld
        jmp     2b
3:      subq    $A(4b), %rcx
        movl    %ecx, %eax
        OUT
        movl    %r11d, %eax
        andl    $0x603, %eax
        OUT
        flagsq  0x701
        addq    $A(4b), %rcx
        decl    %esi
        jz      5f
        sysretq
5:      movq    $STACK, %rsp
        expect  long_syscall
        .long   0, 0x603, 0, 0x401, 0, 0, 0x202, 0
        end     long_syscall, 0, "IF is the host's and SYSRET is refused with a general protection fault"
