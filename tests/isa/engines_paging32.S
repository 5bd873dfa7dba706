/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Programs about paging of 32-bit and PAE tables, beside p32_paging and p32_pae. Included by
 * engines_programs.S.
 */
/* SDM 3A 4.3, table 4-4: PSE-36 takes bits 20:13 of a 4-MiB page for address bits 39:32; bit 21 is
 * reserved. Without CR4.PSE the bit PS means nothing. */
        program paging_pse36, P32
        movl    $(0x10000000 | 1 << 13 | 0x83), PD32 + 4
        movl    $(1 << 21 | 0x83), PD32 + 8
        movl    $(PT32 | 0x83), PD32 + 12
        movl    $PD32, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orl     $0x10, %eax
        movl    %eax, %cr4
        movl    %cr0, %eax
        orl     $0x80010000, %eax
        movl    %eax, %cr0
        jmp     1f
1:      movl    $0x600d, 0x400000 + 8
        resume32 1f
        movl    0x800000, %eax
1:      movl    %cr4, %eax
        andl    $~0x10, %eax
        movl    %eax, %cr4
        movl    $0x1357, VARS + 0x80
        out     0xc00000 + VARS + 0x80
        movl    PD32 + 12, %eax
        andl    $0xfff, %eax
        OUT
        expect  paging_pse36
        .long   0xb0110408, 0x600d, VECTOR_TAG | 14, CODE_TAG | 9, 0x800000, 0x1357, 0xa3
        end     paging_pse36, 0, NO_PAGING32

/* SDM 3A 4.4.1: a PDPTE with reserved bits is #GP(0) for the MOV to CR3 that would load it; one that
 * is not present may have them. U and W are not PDPTEs' (bits 1, 2, 5 to 8 are reserved). */
        program paging_pdpte, P32
        movl    $PDPT32, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    %cr0, %eax
        orl     $0x80010000, %eax
        movl    %eax, %cr0
        jmp     1f
1:      movl    $0x1e6, PDPT32 + 8
        movl    $PDPT32, %eax
        movl    %eax, %cr3
        movl    $(PD | 3), PDPT32 + 8
        resume32 1f
        movl    %eax, %cr3
1:      movl    $(PD | 1), PDPT32 + 8
        movl    $0x80000000, PDPT32 + 12
        resume32 1f
        movl    %eax, %cr3
1:      movl    $0, PDPT32 + 12
        movl    %eax, %cr3
        movl    $0x1357, VARS + 0x80
        out     0x40000000 + VARS + 0x80
        expect  paging_pdpte
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, 0x1357
        end     paging_pdpte, 0, NO_PAGING32
