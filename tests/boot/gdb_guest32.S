/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A guest of gdb.py in 32-bit protected mode, without paging: a PVH kernel that counts for ever.
 */
        .section .note.pvh, "a", @note
        .long   4, 4, 18                /* XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz  "Xen"
        .long   _start

        .text
        .globl  _start, twice, counter
_start:
        movl    %cr4, %eax
        orl     $0x200, %eax            /* OSFXSR */
        movl    %eax, %cr4
        movl    $stack_end, %esp
again:
        pushl   counter
        call    twice
        addl    $4, %esp
        movl    counter, %edx
        movd    %edx, %xmm2
        incl    counter
        jmp     again

        .type   twice, @function
twice:
        pushl   %ebp
        movl    %esp, %ebp
        movl    8(%ebp), %eax
        addl    %eax, %eax
        popl    %ebp
        ret
        .size   twice, .-twice

        .data
        .type   counter, @object
        .size   counter, 4
counter:
        .long   5
        .skip   256
stack_end:
        .section .note.GNU-stack, "", @progbits
