/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Paging in its three forms: accessed and dirty bits, reserved bits, the PDPTEs of PAE. Included in
 * engines_programs.S. 110000H to FREE is mapped memory where nothing is.
 */

#define FAULT(address, code) VECTOR_TAG | 14, CODE_TAG | (code), (address)
#define TABLE 0x110000

/* SDM 3A 4.8: entries that were used have their accessed bits set, also when the last one denies
 * the access; the last one only when it does not. The dirty bit comes with a write alone. */
        program accessed_bits, LONG
        movl    $0x200000, %ebx
        movq    $(TABLE | 7), PD + 8
        resume64 1f
        movl    (%rbx), %eax
1:      out     PD + 8
        movq    $(FREE | 1), TABLE
        invlpg  (%rbx)
        resume64 1f
        movl    %eax, (%rbx)
1:      out     TABLE
        movl    (%rbx), %eax
        out     TABLE
        movq    %cr0, %rax
        andl    $~0x10000, %eax
        movq    %rax, %cr0
        movl    $5, (%rbx)
        out     TABLE
        movl    (%rbx), %ecx
        movq    %cr0, %rax
        orl     $0x10000, %eax
        movq    %rax, %cr0
        out     %ecx
        resume64 1f
        movl    %eax, (%rbx)
1:      movq    $(0x400000 | 0x83), PD + 8
        invlpg  (%rbx)
        movl    0x1000(%rbx), %eax
        out     PD + 8
        movl    %eax, 0x1ff000(%rbx)
        out     PD + 8
        movq    $(0x400000 | 0x2083), PD + 8 /* bit 13 is reserved in it */
        invlpg  (%rbx)
        resume64 1f
        movl    %eax, (%rbx)
1:      out     PD + 8
        movq    PML4, %rax /* PS is reserved at the root, which leads to nothing below this */
        orb     $0x80, %al
        movq    %rax, PML4 + 8
        movabsq $0x8000000000, %rbx
        resume64 1f
        movl    (%rbx), %eax
1:      out     PML4 + 8
        expect  accessed_bits
        .long   FAULT(0x200000, 0), TABLE | 0x27, FAULT(0x200000, 3), FREE | 1, FREE | 0x21
        .long   FREE | 0x61, 5, FAULT(0x200000, 3), 0x4000a3, 0x4000e3
        .long   FAULT(0x200000, 11), 0x402083, FAULT(0, 9), PDPT | 0xa7
        end     accessed_bits, 0, "entries above one that denies the access keep their accessed bits"

/* SDM 3A 4.10.2.4, 4.10.4.1: MOV to CR3 invalidates what is not global, wherever it is cached beside
 * what is; INVLPG and a change of CR4.PGE invalidate global pages, too. What is 8 MiB above a page
 * shares what is indexed by few bits of the address. */
#define GLOBAL_PTE(n) (PT + (FREE / 4096 + (n)) * 8)
        program paging_global, LONG
        movl    $1, TABLE
        movl    $2, TABLE + 0x1000
        movq    %cr4, %rax
        orl     $0x80, %eax
        movq    %rax, %cr4
        movq    $(TABLE | 0x103), GLOBAL_PTE(0)
        movq    $(TABLE | 3), GLOBAL_PTE(2)
        movq    $0x83, PD + 4 * 8
        invlpg  FREE
        invlpg  FREE + 0x2000
        invlpg  0x800000 + TABLE
        out     FREE
        out     FREE + 0x2000
        out     0x800000 + TABLE
        movl    0x800000 + FREE, %ecx
        movq    $((TABLE + 0x1000) | 3), GLOBAL_PTE(2)
        movq    $0x200083, PD + 4 * 8
        movq    %cr3, %rax
        movq    %rax, %cr3
        out     FREE + 0x2000
        out     0x800000 + TABLE
        movq    $((TABLE + 0x1000) | 0x103), GLOBAL_PTE(0)
        invlpg  FREE
        out     FREE
        movq    $(TABLE | 0x103), GLOBAL_PTE(0)
        movq    %cr4, %rax
        xorl    $0x80, %eax
        movq    %rax, %cr4
        out     FREE
        movq    %cr4, %rax
        xorl    $0x80, %eax
        movq    %rax, %cr4
        movl    FREE, %ecx
        movq    %cr3, %rax
        movq    %rax, %cr3
        movq    $0, GLOBAL_PTE(0)
        invlpg  FREE
        resume64 1f
        movl    FREE, %eax
1:      movq    $(TABLE | 3), GLOBAL_PTE(0)
        out     FREE
        expect  paging_global
        .long   1, 1, 1, 2, 0, 2, 1, FAULT(FREE, 0), 1
        end     paging_global

        .macro  paging_on cr3, cr4
        movl    $\cr4, %eax
        movl    %eax, %cr4
        movl    $\cr3, %eax
        movl    %eax, %cr3
        movl    %cr0, %eax
        orl     $0x80010000, %eax
        movl    %eax, %cr0
        .endm

/* SDM 3A 4.4.1: the PDPTEs are loaded with CR3, and #GP when they have reserved bits; what memory has
 * of them later counts no more. 4.4.2: bits 62 to MAXPHYADDR are reserved. */
        program paging_pae, P32
        movl    $0x77, DATA
        paging_on PDPT32, 0x620
        resume32 1f
        movl    0x40000000 + DATA, %eax
1:      movl    $(PD | 1), PDPT32 + 8
        invlpg  0x40000000 + DATA
        resume32 1f
        movl    %eax, 0x40000000 + DATA
1:      movl    $PDPT32, %eax
        movl    %eax, %cr3
        out     0x40000000 + DATA
        movl    $0, PDPT32 + 8
        invlpg  0x40000000 + DATA
        out     0x40000000 + DATA
        movl    $(PD | 3), PDPT32 + 16 /* bit 1 */
        movl    $PDPT32, %eax
        resume32 1f
        movl    %eax, %cr3
1:      out     0x40000000 + DATA /* and nothing has changed */
        movl    $PD, PDPT32 + 16 /* not present: anything goes */
        movl    $PDPT32, %eax
        movl    %eax, %cr3
        resume32 1f
        movl    0x40000000 + DATA, %eax
1:      movl    $(FREE | 3), PT + FREE / 4096 * 8
        movl    $(1 << 20), PT + FREE / 4096 * 8 + 4
        resume32 1f
        movl    FREE, %eax
1:      movl    $(1 << 31), PT + FREE / 4096 * 8 + 4 /* NX */
        resume32 1f
        movl    FREE, %eax
1:      movl    $0xc0000080, %ecx
        xorl    %edx, %edx
        movl    $0x800, %eax
        wrmsr
        movl    $FREE, %eax
        movl    (%eax), %ecx
        resume32 1f
        jmp     *%eax
1:      expect  paging_pae
        .long   FAULT(0x40000000 + DATA, 0), FAULT(0x40000000 + DATA, 2), 0x77, 0x77
        .long   VECTOR_TAG | 13, CODE_TAG, 0x77
        .long   FAULT(0x40000000 + DATA, 0), FAULT(FREE, 9), FAULT(FREE, 9), FAULT(FREE, 0x11)
        end     paging_pae, 0, "protected mode is emulated, without IRET"

/* SDM 3A 4.4.1: PDPTEs are loaded when CR0.CD or NW changes and when CR4.PGE or PSE does; one with
 * reserved bits is #GP(0), and the register keeps its value. */
        program paging_pdpte_loads, P32
        movl    $0x77, DATA
        paging_on PDPT32, 0x620
        movl    %cr0, %ebx
        movl    $(PD | 1), PDPT32 + 8
        movl    %ebx, %eax
        orl     $0x10000, %eax /* WP loads nothing */
        movl    %eax, %cr0
        resume32 1f
        movl    0x40000000 + DATA, %eax
1:      movl    %ebx, %eax
        orl     $0x40000000, %eax /* CD */
        movl    %eax, %cr0
        out     0x40000000 + DATA
        movl    $(PD | 3), PDPT32 + 16
        resume32 1f
        movl    %ebx, %cr0
1:      movl    %cr0, %eax
        xorl    %ebx, %eax
        OUT
        movl    $(PD | 1), PDPT32 + 16
        movl    %ebx, %cr0
        out     0x80000000 + DATA
        movl    $(PD | 1), PDPT32 + 24
        movl    $0x6a0, %eax
        movl    %eax, %cr4
        out     0xc0000000 + DATA
        movl    $(PD | 0x21), PDPT32 + 24
        movl    $0x6b0, %eax
        resume32 1f
        movl    %eax, %cr4
1:      out     %cr4
        expect  paging_pdpte_loads
        .long   FAULT(0x40000000 + DATA, 0), 0x77, VECTOR_TAG | 13, CODE_TAG, 0x40000000, 0x77, 0x77
        .long   VECTOR_TAG | 13, CODE_TAG, 0x6a0
        end     paging_pdpte_loads, 0, "protected mode is emulated, without IRET"

/* SDM 3A 4.3, table 4-4: pages of 4 MiB with PSE; bits 20:13 are address bits 39:32, bit 21 is
 * reserved; without CR4.PSE bit 7 is ignored. */
        program paging_pse, P32
        movl    $0x55, RAM_SIZE - 0x1000
        movl    $0x66, DATA
        movl    $(0x400000 | 0x83), PD32 + 4
        paging_on PD32, 0x610
        out     RAM_SIZE - 0x1000
        out     PD32 + 4
        movl    %eax, 0x400000
        out     PD32 + 4
        movl    $(0x600000 | 0x83), PD32 + 4
        invlpg  0x400000
        resume32 1f
        movl    0x400000, %eax
1:      movl    $(0x402000 | 0x83), PD32 + 4 /* 4 GiB and more, where nothing is */
        invlpg  0x400000
        out     RAM_SIZE - 0x1000
        movl    $(PT32 | 0x83), PD32 + 4
        movl    %cr4, %eax
        andl    $~0x10, %eax
        movl    %eax, %cr4
        out     0x400000 + DATA
        out     PD32 + 4
        expect  paging_pse
        .long   0x55, 0x4000a3, 0x4000e3, FAULT(0x400000, 9), 0xffffffff, 0x66, PT32 | 0xa3
        end     paging_pse, 0, "protected mode is emulated, without IRET"
