/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Values that control registers and MSRs take or refuse. Included in engines_programs.S.
 */

/* SDM 3A 2.5: reserved bits and illegal combinations are #GP(0) and change nothing. */
        .macro  refuses register, value:vararg
        movabsq $(\value), %rax
        resume64 1f
        movq    %rax, %\register
1:
        .endm
        program control_registers, LONG
        movq    %cr0, %rbx
        movq    %cr4, %rsi
        refuses cr0, 0x180050033
        refuses cr0, 0x50033 | 1 << 29 | 1 << 31 /* NW without CD */
        refuses cr0, 0x80050032                  /* PG without PE */
        refuses cr0, 0x50033                     /* PG in 64-bit mode */
        refuses cr4, 0x600                       /* PAE in long mode */
        refuses cr4, 0x620 | 1 << 12             /* LA57 */
        refuses cr4, 0x620 | 1 << 15
        refuses cr4, 0x620 | 1 << 31
        refuses cr4, 0x100000620
        refuses cr8, 0x10
        refuses cr3, 1 << 52
        movq    %cr3, %rax
        orl     $5, %eax
        movq    %rax, %cr3
        refuses cr4, 0x620 | 1 << 17             /* PCIDE with a PCID in CR3 */
        movl    $PML4, %eax
        movq    %rax, %cr3
        movq    %cr0, %rax
        cmpq    %rax, %rbx
        jne     2f
        movq    %cr4, %rax
        cmpq    %rax, %rsi
        jne     2f
        out     $0x600d
2:      orl     $0x20000, %esi
        movq    %rsi, %cr4
        refuses cr0, 0x60050033 /* PG off with PCIDE */
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        .irp    value, 0, 2, 5, 0x11
        movl    $\value, %eax
        resume64 1f
        xsetbv
1:
        .endr
        movl    $1, %ecx
        movl    $3, %eax
        resume64 1f
        xsetbv
1:      movl    $2, %ecx
        resume64 1f
        xgetbv
1:      resume64 1f
        .byte   0xf0, 0x89, 0x07 /* lock mov %eax, (%rdi) */
1:      expect  control_registers
        .rept   12
        .long   GP
        .endr
        .long   0x600d, GP, GP, GP, GP, GP, GP, GP, UD
        end     control_registers, 0, "CR3 with bits that are ignored is refused"

/* Registers that don't exist. SDM 2B MOV (control registers). */
        program control_numbers, LONG
        .irp    n, 0xc8, 0xe8, 0xf0, 0xf8
        resume64 1f
        .byte   0x0f, 0x20, \n
1:
        .endr
        resume64 1f
        .byte   0x44, 0x0f, 0x20, 0xc8 /* CR9 */
1:      resume64 1f
        .byte   0x44, 0x0f, 0x21, 0xc0 /* DR8 */
1:      expect  control_numbers
        .long   UD, UD, UD, UD, UD, UD
        end     control_numbers

/* Each line of the table: an MSR, what is written, what it reads as then; REFUSED: #GP. */
#define REFUSED 0x1111111111111111
        program model_specific, LONG
        movl    $A(5f), %ebp
1:      movl    (%rbp), %ecx
        movl    8(%rbp), %eax
        movl    12(%rbp), %edx
        resume64 2f
        wrmsr
2:      cmpq    $0, RESUME
        movq    $0, RESUME
        jne     3f
        movabsq $REFUSED, %rbx
        jmp     4f
3:      rdmsr
        shlq    $32, %rdx
        leaq    (%rdx,%rax), %rbx
4:      cmpq    16(%rbp), %rbx
        je      2f
        out     (%rbp)
        out64   %rbx
2:      addl    $24, %ebp
        cmpl    $A(6f), %ebp
        jb      1b
        jmp     7f
        .balign 8
        .macro  msr number, value, result
        .quad   \number, \value, \result
        .endm
5:      msr     0xc0000080, 0xd01 | 1 << 1, REFUSED         /* EFER */
        msr     0xc0000080, 0xd01 | 1 << 63, REFUSED
        msr     0xc0000080, 0xc01, REFUSED                  /* LME under paging */
        msr     0xc0000080, 0x901, 0xd01                    /* LMA is not written */
        msr     0x277, 0x0007040600070405, 0x0007040600070405 /* PAT */
        msr     0x277, 0x0207040600070406, REFUSED
        msr     0x277, 0x0007040600070408, REFUSED
        msr     0x277, 0x0007040600070406, 0x0007040600070406
        msr     0x2ff, 0xc06, 0xc06                         /* MTRRs */
        msr     0x2ff, 0xc02, REFUSED
        msr     0x2ff, 0x1006, REFUSED
        msr     0x200, 0x80000006, 0x80000006
        msr     0x200, 0x80000002, REFUSED
        msr     0x200, 0x80000106, REFUSED
        msr     0x200, 0x8000000000000006, REFUSED
        msr     0x201, 0xff0000800, 0xff0000800
        msr     0x201, 0xff0000801, REFUSED
        msr     0x250, 0x0606060606060606, 0x0606060606060606
        msr     0x26f, 0x0606060606060602, REFUSED
        msr     0xfe, 0x508, REFUSED                        /* MTRRCAP, read-only */
        msr     0x175, 0x123456789, 0x123456789             /* SYSENTER_ESP */
        msr     0xc0000102, 0xffff800000000000, 0xffff800000000000
        msr     0x48, 0x8000000000000000, REFUSED           /* SPEC_CTRL */
        msr     0x1a0, 0x400c51809, 0x400c51809             /* MISC_ENABLE */
        msr     0x1a0, 0x2, REFUSED
        msr     0x1d9, 2, 2                                 /* DEBUGCTL */
        msr     0x1d9, 1 << 20, REFUSED
        msr     0x1d9, 0, 0
        msr     0x179, 0, REFUSED                           /* machine check */
        msr     0x17a, 0, 0
        msr     0x400, -1, -1
        msr     0x400, 0, 0
        msr     0x400, 0x123, REFUSED
        msr     0x401, 0, 0
        msr     0x401, 1, REFUSED
        msr     0x402, -1, -1
        msr     0x403, -1, -1
        msr     0x424, -1, -1
        msr     0x428, 0, REFUSED                           /* no such bank */
        msr     0x40000000, 0, REFUSED
6:
7:      movl    $0x179, %ecx
        rdmsr
        OUT
        movl    $0x428, %ecx
        resume64 1f
        rdmsr
1:      movq    %cr4, %rax
        orl     $0x40, %eax /* MCE */
        movq    %rax, %cr4
        movl    $1, %eax
        cpuid
        andl    $0x4080, %edx
        out     %edx
        expect  model_specific
        .rept   21
        .long   GP
        .endr
        .long   10, GP, 0x4080
        end     model_specific, SOFT_ONLY
