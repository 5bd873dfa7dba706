/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A ROM of 64 KiB for tests of the screen: draws by the VGA's Bochs interface, and writes the
 * keyboard's bytes to port 0xe9. F1 and F2 change the screen's size; the picture is
 * (x, y, 0x40 + mode) for blue, green and red.
 */
        .code16
        .globl _start
_start:
        cli
        lgdtl   %cs:gdtr - _start
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $8, $protected

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff
        .quad   0x00cf93000000ffff
gdtr:   .word   23
        .long   gdt

        .code32
/* PCI slot 24: the register in the low byte of `reg`. */
        .macro  config reg, value
        mov     $(0x8000c000 + \reg), %eax
        mov     $0xcf8, %dx
        out     %eax, %dx
        mov     $\value, %eax
        mov     $0xcfc, %dx
        out     %eax, %dx
        .endm
        .macro  dispi index, value
        mov     $\index, %eax
        mov     $0x1ce, %dx
        out     %ax, %dx
        mov     \value, %eax
        mov     $0x1cf, %dx
        out     %ax, %dx
        .endm

protected:
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        config  0x10, 0xe0000000
        config  0x18, 0xe8000000
        config  0x04, 3
        /* The keyboard: on, translated, no interrupts. */
        mov     $0x60, %al
        out     %al, $0x64
        mov     $0x60, %al
        out     %al, $0x60
        mov     $320, %esi
        mov     $200, %edi
        xor     %ebp, %ebp
mode:   /* esi by edi, number ebp */
        dispi   4, $0
        dispi   1, %esi
        dispi   2, %edi
        dispi   3, $32
        dispi   4, $0x41
        mov     $0xe0000000, %ebx
        xor     %ecx, %ecx              /* y */
1:      xor     %edx, %edx              /* x */
2:      mov     %ecx, %eax
        shl     $8, %eax
        and     $0xff00, %eax
        mov     %dl, %al
        or      $0x400000, %eax
        mov     %ebp, %esp              /* there is no stack: a spare register */
        shl     $16, %esp
        add     %esp, %eax
        mov     %eax, (%ebx)
        add     $4, %ebx
        inc     %edx
        cmp     %esi, %edx
        jb      2b
        inc     %ecx
        cmp     %edi, %ecx
        jb      1b
        mov     $'!', %al               /* drawn */
        out     %al, $0xe9
keys:   in      $0x64, %al
        test    $1, %al
        jz      keys
        test    $0x20, %al
        in      $0x60, %al
        jnz     keys                    /* the mouse's */
        out     %al, $0xe9
        cmp     $0x3b, %al
        je      f1
        cmp     $0x3c, %al
        jne     keys
        mov     $404, %esi
        mov     $300, %edi
        mov     $2, %ebp
        jmp     mode
f1:     mov     $640, %esi
        mov     $480, %edi
        mov     $1, %ebp
        jmp     mode

        .org    0xfff0
        .code16
        .byte   0xe9                    /* jmp _start: the code segment wraps at 64 KiB */
        .word   0x10000 - 0xfff3
        .org    0x10000
