/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Programs about instructions that only old code has, and far pointers of 64 bits. Included by
 * engines_programs.S.
 */

/* Executes the instruction with every AL, CF and AF, and AH = 12H; reports a sum over AX and the
 * flags that the manual defines. */
        .macro  all_digits instruction, defined
        xorl    %ebx, %ebx
        xorl    %ecx, %ecx
1:      movl    %ecx, %eax
        shrl    $8, %eax
        movl    %eax, %edx
        andl    $1, %eax
        andl    $2, %edx
        leal    2(%eax,%edx,8), %edx    /* CF, AF */
        movb    %cl, %al
        movb    $0x12, %ah
        pushl   %edx
        popfl
        \instruction
        pushfl
        popl    %edx
        andl    $\defined, %edx
        shll    $16, %edx
        movw    %ax, %dx
        imull   $31, %ebx, %ebx
        addl    %edx, %ebx
        incl    %ecx
        cmpl    $1024, %ecx
        jne     1b
        movl    %ebx, %eax
        OUT
        .endm

/* SDM 2A DAA, DAS, AAA, AAS, AAM, AAD: the sums are those of the pseudo-code. */
        program u32_decimal, USER32
        all_digits daa, 0xd5
        all_digits das, 0xd5
        all_digits aaa, 0x11
        all_digits aas, 0x11
        all_digits aam, 0xc4
        all_digits aad, 0xc4
        expect  u32_decimal
        .long   0xd0a05200, 0x686af200, 0x6cd90a00, 0xf962fa00, 0xd9347f00, 0xbadc0200
        end     u32_decimal, 0, "compatibility mode is emulated, without DAA and its like"

/* SDM 2A JMP, CALL, 2B RET: REX.W far pointers of 64 bits and frames of quadwords; an address that is
 * not canonical is #GP(0) and changes nothing. */
        program far64, LONG
        movq    $A(1f), DATA
        movw    $KERNEL_CS, DATA + 8
        movq    %rsp, %rbp
        rex.W ljmp *DATA
        ud2
1:      movq    $A(2f), DATA
        rex.W lcall *DATA
3:      movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        movabsq $0x800000000000, %rax
        movq    %rax, DATA
        resume64 1f
        rex.W lcall *DATA
1:      movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        pushq   $KERNEL_CS
        pushq   DATA
        resume64 1f
        lretq
1:      movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        stop
2:      movl    %ebp, %eax
        subl    %esp, %eax
        OUT
        movq    (%rsp), %rax
        subq    $A(3b), %rax
        OUT
        movl    8(%rsp), %eax
        OUT
        lretq
        expect  far64
        .long   16, 0, KERNEL_CS, 0, VECTOR_TAG | 13, CODE_TAG, 0, VECTOR_TAG | 13, CODE_TAG, 16
        end     far64, 0, "far returns of 64 bits to what is not canonical are not emulated"

/* SDM 2A INT n, IRET in real mode: FLAGS of 16 bits leave the upper half; IRETD changes neither VM,
 * VIF nor VIP; reserved bits stay. 2B SALC (D6H), as all processors have it. */
        program real_iret, REAL
        pushfl
        popl    %eax
        orl     $0xffc08028, %eax
        pushl   %eax
        pushl   $0x1000
        pushl   $R(1f)
        iretl
1:      pushfl
        popl    %eax
        OUT
        pushl   $(VIF | VIP | 0x240002)
        pushl   $0x1000
        pushl   $R(1f)
        iretl
1:      pushfl
        popl    %eax
        OUT
        pushw   $2
        pushw   $0x1000
        pushw   $R(1f)
        iretw
1:      pushfl
        popl    %eax
        OUT
        resume16 1f
        pushl   $2
        pushl   $0x1000
        pushl   $0x10000 /* beyond the limit */
        iretl
1:      movl    $0x12345678, %eax
        stc
        .byte   0xd6
        OUT
        clc
        .byte   0xd6
        OUT
        expect  real_iret
        .long   2, 0x240002, 0x240002, VECTOR_TAG | 13, 0x123456ff, 0x12345600
        end     real_iret
