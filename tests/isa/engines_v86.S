/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Programs about virtual-8086 mode, CR4.VME and CR4.PVI: SDM 3A chapter 20 (in newer editions 21).
 * Included by engines_programs.S.
 */
#define V86_SS 0x3000
#define V86_SP 0x1000
/* In the TSS that v86_tss makes: a bit a vector, set: through the IDT; then the I/O bitmap. */
#define REDIRECTION (FREE + 0x68)
#define IO_BITMAP   (FREE + 0x88)

/* A TSS with both bitmaps, all bits zero. */
        .macro  v86_tss
        movl    $STACK0, FREE + 4
        movl    $KERNEL_SS, FREE + 8
        movw    $0x88, FREE + 102
        movb    $0xff, IO_BITMAP + 0x2000
        tss_descriptor SPARE, FREE, 0x89, 0x2088
        movl    $SPARE, %eax
        ltr     %ax
        .endm
/* DS and ES are based at CODE there, FS at 11110H, GS at 22220H. */
        .macro  to_v86 label, flags=0
        pushl   $0x2222
        pushl   $0x1111
        pushl   $(CODE >> 4)
        pushl   $(CODE >> 4)
        pushl   $V86_SS
        pushl   $V86_SP
        pushl   $(0x20002 | \flags)
        pushl   $(CODE >> 4)
        pushl   $R(\label)
        iretl
        .endm
        .macro  set_cr4 bits
        movl    %cr4, %eax
        orl     $\bits, %eax
        movl    %eax, %cr4
        .endm
#define VME 1
#define PVI 2
#define VIF 0x80000
#define VIP 0x100000

/* SDM 3A 20.2, 20.2.5, 20.2.6, 20.3.1.1: in by IRET, out by an exception with nine doublewords on the
 * stack of level 0 and null data segments; 64-KiB segments of 16-bit code; no VEX, no LAR, and what
 * needs level 0 is #GP. */
        program v86_enter, P32
        v86_tss
        idt_gate 3, 5f
        to_v86  1f
        .code16
1:      movl    %cs, %eax
        OUT
        movl    %ss, %eax
        OUT
        movl    %fs, %eax
        OUT
        movzwl  %sp, %eax
        OUT
        movl    $0x5678, %fs:0x10
        out     V16(0x11110 + 0x10)
        movl    $0xffff, %ebx
        resume16 2f
        movw    (%bx), %ax
2:      movl    $0x10000, %ebx
        resume16 2f
        addr32 movb (%ebx), %al
2:      resume16 2f
        addr32 movb %ss:(%ebx), %al
2:      resume16 2f
        larw    %ax, %cx
2:      resume16 2f
        .byte   0xc5, 0xf8, 0x77 /* VZEROUPPER: an LDS of a register */
2:      resume16 2f
        hlt
2:      resume16 2f
        movl    %cr0, %eax
2:      resume16 2f
        clts
2:      smsw    %ax
        andl    $1, %eax
        OUT
        movw    $0x1800, %ax
        movw    %ax, %ds
        movw    %ds, %cx
        int3
4:      nop
        .code32
5:      movl    %ds, %eax
        movl    $KERNEL_SS, %edx
        movl    %edx, %ds
        OUT
        movl    %fs, %eax
        OUT
        out     %ecx
        movl    (%esp), %eax
        subl    $R(4b), %eax
        OUT
        out     4(%esp)
        movl    8(%esp), %eax
        andl    $0x23000, %eax
        OUT
        out     12(%esp)
        out     16(%esp)
        out     20(%esp)
        out     24(%esp)
        out     28(%esp)
        out     32(%esp)
        out     %esp
        flagsl  0x20000
        expect  v86_enter
        .long   CODE >> 4, V86_SS, 0x1111, V86_SP, 0x5678, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 12, CODE_TAG, VECTOR_TAG | 6
        .long   VECTOR_TAG | 6, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG, 1, 0, 0, 0x1800, 0, CODE >> 4, 0x20000, V86_SP, V86_SS
        .long   CODE >> 4, 0x1800, 0x1111, 0x2222, STACK0 - 36, 0
        end     v86_enter, 0, NO_LEGACY

/* SDM 3A 20.2.7, 20.3.2, table 20-2 (methods 1 and 3): without VME and with IOPL below 3 CLI, STI,
 * PUSHF, POPF, INT n and IRET are #GP; INT3 is not, nor are far transfers. */
        program v86_sensitive, P32
        v86_tss
        idt_gate 4, 5f
        to_v86  1f, 0x2000
        .code16
1:      resume16 2f
        cli
2:      resume16 2f
        sti
2:      resume16 2f
        pushfw
2:      resume16 2f
        pushfl
2:      resume16 2f
        popfw
2:      resume16 2f
        int     $0x80
2:      resume16 2f
        iretw
2:      int3
        lcallw  $(CODE >> 4), $R(3f)
        jmp     4f
3:      lretw
4:      movzwl  %sp, %eax
        OUT
        movb    $0x7f, %al
        incb    %al
        into
        .code32
5:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        out     $0x600d
        expect  v86_sensitive
        .rept   7
        .long   VECTOR_TAG | 13, CODE_TAG
        .endr
        .long   VECTOR_TAG | 3, V86_SP, 0x600d
        end     v86_sensitive, 0, NO_LEGACY

/* The same with IOPL 3: they work, IOPL, VM and VIF stay; INT n needs a gate of DPL 3 and a handler
 * of level 0. */
        program v86_iopl3, P32
        v86_tss
        idt_gate 0x81, 5f, cs=CONFORMING
        idt_gate 0x82, 5f, cs=USER_CS32
        to_v86  1f, 0x3000
        .code16
1:      sti
        pushfl
        popl    %eax
        andl    $0x23200, %eax
        OUT
        cli
        pushfw
        popw    %ax
        movzwl  %ax, %eax
        andl    $0x3200, %eax
        OUT
        pushl   $(0x200 | VIF)
        popfl
        pushfl
        popl    %eax
        andl    $(0x3200 | VIF), %eax
        OUT
        pushw   $2
        pushw   $(CODE >> 4)
        pushw   $R(2f)
        iretw
2:      pushfw
        popw    %ax
        movzwl  %ax, %eax
        andl    $0x3200, %eax
        OUT
        int     $0x80
        movl    V16(FRAME_CS), %eax
        OUT
        resume16 2f
        int     $0x7f
2:      resume16 2f
        int     $0x81
2:      resume16 2f
        int     $0x82
2:      movl    $R(5f), V16(BACK)
        addl    $CODE, V16(BACK)
        int     $0x90
        .code32
5:      out     $0x600d
        expect  v86_iopl3
        .long   0x3200, 0x3000, 0x3200, 0x3000, VECTOR_TAG | 0x80, CODE >> 4
        .long   VECTOR_TAG | 13, CODE_TAG | (0x7f * 8 + 2), VECTOR_TAG | 13, CODE_TAG | CONFORMING
        .long   VECTOR_TAG | 13, CODE_TAG | (USER_CS32 & ~3), VECTOR_TAG | 0x90, 0x600d
        end     v86_iopl3, 0, NO_LEGACY

/* SDM 3A 20.2.8, 1 19.5.2: ports by the bitmap, whatever IOPL is; both bytes of a word; behind the
 * limit there is no port. */
        program v86_ports, P32
        v86_tss
        idt_gate 3, 5f
        movb    $0x08, IO_BITMAP + DEVICE / 8 /* DEVICE + 3 */
        to_v86  1f, 0x3000
        .code16
1:      movw    $DEVICE, %dx
        inb     (%dx), %al
        inw     (%dx), %ax
        resume16 2f
        inl     (%dx), %eax
2:      movw    $(DEVICE + 2), %dx
        resume16 2f
        inw     (%dx), %ax
2:      inb     (%dx), %al
        movw    $(DEVICE + 3), %dx
        resume16 2f
        outb    %al, (%dx)
2:      movw    $(DEVICE + 4), %dx
        outb    %al, (%dx)
        int3
        .code32
5:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        tss_descriptor SPARE, FREE, 0x89, (0x88 + DEVICE / 8)
        movl    $SPARE, %eax
        ltr     %ax
        idt_gate 3, 6f
        to_v86  1f, 0x3000
        .code16
1:      movw    $DEVICE, %dx
        resume16 2f
        inb     (%dx), %al /* its word ends beyond the limit */
2:      int3
        .code32
6:      out     $0x600d
        expect  v86_ports
        .long   0xb0000100, 0xb0000200, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   0xb0000102, VECTOR_TAG | 13, CODE_TAG, 0xb0010104, 0xa2
        .long   VECTOR_TAG | 13, CODE_TAG, 0x600d
        end     v86_ports, 0, NO_LEGACY

/* SDM 3A 20.3.3: with VME and IOPL below 3 the interrupt flag of the 8086 program is VIF. STI, POPF
 * and IRET that would set it while VIP is set are #GP, as are TF from POPF, and 32-bit PUSHF. */
        program v86_vme, P32
        v86_tss
        set_cr4 VME
        idt_gate 3, 5f
        to_v86  1f, 0x200
        .code16
1:      pushfw
        popw    %ax
        movzwl  %ax, %eax
        andl    $0x3200, %eax
        OUT
        sti
        pushfw
        popw    %ax
        movzwl  %ax, %eax
        andl    $0x3200, %eax
        OUT
        cli
        pushw   $0x202
        popfw
        pushw   $0x001
        pushw   $(CODE >> 4)
        pushw   $R(2f)
        iretw
2:      pushfw
        popw    %ax
        movzwl  %ax, %eax
        andl    $0x3201, %eax
        OUT
        sti
        resume16 2f
        pushfl
2:      pushw   $0x102
        resume16 2f
        popfw
2:      movzwl  %sp, %eax
        OUT
        int3
3:
        .code32
5:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        movl    8(%esp), %eax
        andl    $(VIF | VIP | 0x3200), %eax
        OUT
        idt_gate 3, 6f
        to_v86  1f, VIP
        .code16
1:      resume16 2f
        sti
2:      pushw   $0x202
        resume16 2f
        popfw
2:      pushw   $0x002
        popfw
        pushw   $0x202
        pushw   $(CODE >> 4)
        pushw   $R(3f)
        resume16 2f
        iretw
2:      movzwl  %sp, %eax
        OUT
3:      int3
        .code32
6:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        movl    8(%esp), %eax
        andl    $(VIF | VIP | 0x3200), %eax
        OUT
        expect  v86_vme
        .long   0x3000, 0x3200, 0x3001, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   V86_SP - 2, VIF | 0x200, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG, V86_SP - 8, VIP
        end     v86_vme, 0, NO_LEGACY

/* SDM 3A 20.3.3, table 20-2 (methods 2, 4, 5, 6): the bitmap sends INT n to the 8086 program's
 * handler, with VIF, or by IOPL 3 with IF; else through the IDT, or #GP below IOPL 3. INT3 and
 * exceptions take no notice. */
        program v86_redirection, P32
        v86_tss
        set_cr4 VME
        movl    $(CODE << 12), 0x55 * 4
        movl    $R(3f), %eax
        movw    %ax, 0x55 * 4
        movl    $0, 3 * 4
        orb     $(1 << 6), REDIRECTION + 0x50 / 8   /* 56H */
        idt_gate 4, 5f
        to_v86  1f, (0x200 | VIF)
        .code16
1:      movw    $R(2f), %di
        int     $0x55
2:      pushfw
        popw    %ax
        movzwl  %ax, %eax
        andl    $0x3200, %eax
        OUT
        resume16 2f
        int     $0x56
2:      int3
        movb    $0x7f, %al
        incb    %al
        into
3:      movw    %sp, %bp
        movzwl  (%bp), %eax
        subw    %di, %ax
        OUT
        movzwl  2(%bp), %eax
        OUT
        movzwl  4(%bp), %eax
        andl    $0x3200, %eax
        OUT
        pushfw
        popw    %ax
        movzwl  %ax, %eax
        andl    $0x3200, %eax
        OUT
        iretw
        .code32
5:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        orb     $1, REDIRECTION + 0x80 / 8
        idt_gate 4, 6f
        to_v86  1f, 0x3200
        .code16
1:      movw    $R(2f), %di
        int     $0x55
2:      int     $0x80
        movb    $0x7f, %al
        incb    %al
        into
        .code32
6:      out     $0x600d
        expect  v86_redirection
        .long   0, CODE >> 4, 0x3200, 0x3000, 0x3200, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 3
        .long   0, CODE >> 4, 0x3200, 0x3000, VECTOR_TAG | 0x80, 0x600d
        end     v86_redirection, 0, NO_LEGACY

/* SDM 3A 20.4: CR4.PVI does for CLI and STI of level 3 what VME does; PUSHF and POPF are not its. */
        program pvi, P32
        set_cr4 PVI
        to_level USER_CS32, USER_SS, 1f, flags=0x202
1:      movl    $USER_SS, %eax
        movl    %eax, %ds
        sti
        pushfl
        popl    %ebx
        cli
        pushfl
        popl    %ecx
        pushl   $VIF
        popfl
        pushfl
        popl    %edx
        movl    $A(2f), BACK
        int     $0x90
2:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        andl    $(VIF | 0x200), %ebx
        out     %ebx
        andl    $(VIF | 0x200), %ecx
        out     %ecx
        andl    $(VIF | 0x200), %edx
        out     %edx
        to_level USER_CS32, USER_SS, 1f, flags=VIP
1:      movl    $USER_SS, %eax
        movl    %eax, %ds
        cli
        resume32 2f
        sti
2:      movl    $A(2f), BACK
        int     $0x90
2:      to_level CODE_R1, DATA_R1, 1f
1:      movl    $DATA_R1, %eax /* not at level 1 */
        movl    %eax, %ds
        resume32 2f
        sti
2:      resume32 2f
        cli
2:      movl    $A(2f), BACK
        int     $0x90
2:      out     $0x600d
        expect  pvi
        .long   VECTOR_TAG | 0x90, VIF | 0x200, 0x200, 0x200, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 0x90, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 0x90, 0x600d
        end     pvi, 0, NO_LEGACY

/* SDM 3A 20.2.8, 4.6: the 8086 program's accesses are a user's; tables, TSS and stack of level 0 are
 * reached all the same. 2A IRET: an EIP above FFFFH in the image is #GP(0). */
        program v86_paging, P32
        orb     $4, PT32 + CODE / 4096 * 4
        orb     $4, PT32 + (V86_SS * 16) / 4096 * 4
        orb     $4, PT32 + (V86_SS * 16 + 0x1000) / 4096 * 4
        movl    $PD32, %eax
        movl    %eax, %cr3
        movl    %cr0, %eax
        orl     $0x80010000, %eax
        movl    %eax, %cr0
        jmp     1f
1:      idt_gate 14, 6f, type=0x8e00
        to_v86  1f, 0x3000
        .code16
1:      xorw    %ax, %ax
        movw    %ax, %es
2:      movw    %ax, %es:0x1010
        .code32
6:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        popl    %eax
        OUT
        movl    %cr2, %eax
        OUT
        movl    (%esp), %eax
        subl    $R(2b), %eax
        OUT
        idt_gate 13, 7f, type=0x8e00
        pushl   $0x20002
        pushl   $(CODE >> 4)
        pushl   $0x10000
8:      iretl
7:      popl    %eax
        OUT
        movl    (%esp), %eax
        subl    $A(8b), %eax
        OUT
        expect  v86_paging
        .long   7, 0x1010, 0, 0, 0
        end     v86_paging, 0, NO_PAGING32

        .macro  each_undefined instruction:vararg
        resume16 2f
        \instruction
2:
        .endm
        .macro  all_undefined
        movl    $0xffff, %ebx /* before the operand is read */
        each_undefined sldt (%bx)
        each_undefined str %ax
        each_undefined lldt (%bx)
        each_undefined ltr %ax
        each_undefined larw (%bx), %ax
        each_undefined lslw (%bx), %ax
        each_undefined verr (%bx)
        each_undefined verw (%bx)
        each_undefined arpl %ax, (%bx)
        .endm

/* SDM 3A 20.1.3, 20.2.7: instructions on selectors are #UD in real and virtual-8086 mode. */
        program real_undefined, REAL
        all_undefined
        expect  real_undefined
        .rept   9
        .long   VECTOR_TAG | 6
        .endr
        end     real_undefined, 0, "16-bit code is emulated, without LAR and LSL"

        program v86_undefined, P32
        idt_gate 3, 5f
        to_v86  1f
        .code16
1:      all_undefined
        int3
        .code32
5:      expect  v86_undefined
        .rept   9
        .long   VECTOR_TAG | 6
        .endr
        end     v86_undefined, 0, NO_LEGACY
