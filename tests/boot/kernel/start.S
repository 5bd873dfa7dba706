/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The test kernel's way into 64-bit mode: of the bootstrap processor from a Multiboot loader, of
 * the others from a SIPI with vector 0; and the gates of its interrupts.
 */
#define STACK_BYTES 16384
#define CPUS_MAX 64
#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 3

    .section .multiboot, "a"
    .balign 4
    .long MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

    .text
    .code32
    .globl start
start:
    mov $stacks_end, %esp
    mov %eax, boot_magic
    mov %ebx, boot_info
    call fill_tables
    call copy_trampoline
    call enter_long_mode
    ljmp $0x08, $1f
    .code64
1:  xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $stacks_end, %rsp
    mov boot_magic, %edi
    mov boot_info, %esi
    call kernel_main
2:  cli
    hlt
    jmp 2b

    .code32
/* The first 4 GiB in pages of 2 MiB. */
fill_tables:
    movl $pdpt + 3, pml4
    mov $directories + 3, %eax
    xor %ecx, %ecx
1:  mov %eax, pdpt(, %ecx, 8)
    add $4096, %eax
    inc %ecx
    cmp $4, %ecx
    jne 1b
    mov $0x83, %eax
    xor %ecx, %ecx
2:  mov %eax, directories(, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jne 2b
    ret

copy_trampoline:
    mov $trampoline, %esi
    xor %edi, %edi
    mov $trampoline_end - trampoline, %ecx
    rep movsb
    ret

    .globl enter_long_mode
enter_long_mode:
    mov %cr4, %eax
    or $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax
    mov %eax, %cr0
    lgdt gdt_pointer
    ret

/* A processor that was started; the code runs at address 0. */
    .code16
trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl trampoline_gdt - trampoline
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x10, $ap_32
    .globl trampoline_gdt
trampoline_gdt:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .code32
ap_32:
    mov $0x18, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $1, %eax
    lock xadd %eax, ap_stacks_taken
    xor %edx, %edx
    mov $(CPUS_MAX - 1), %ecx
    div %ecx
    lea 1(%edx), %eax
    imul $STACK_BYTES, %eax
    mov $stacks_end, %esp
    sub %eax, %esp
    call enter_long_mode
    ljmp $0x08, $1f
    .code64
1:  xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %esp, %esp
    call ap_main
2:  cli
    hlt
    jmp 2b

/* Each gate pushes an error code where the processor doesn't, and its number. */
    .altmacro
    .macro gate number
    .balign 16
    .if !(\number == 8 || (\number >= 10 && \number <= 14) || \number == 17 || \number == 21)
    push $0
    .endif
    push $\number
    jmp gate_common
    .endm

    .balign 16
    .globl gates
gates:
    .set n, 0
    .rept 256
    gate %n
    .set n, n + 1
    .endr

gate_common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    cld
    mov %rsp, %rbp
    and $-16, %rsp
    call interrupt
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

    .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 0x08: 64-bit code */
    .quad 0x00cf9b000000ffff /* 0x10: 32-bit code */
    .quad 0x00cf93000000ffff /* 0x18: data */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .long 0

    .bss
    .balign 4096
pml4:
    .skip 4096
pdpt:
    .skip 4096
directories:
    .skip 4 * 4096
    .balign STACK_BYTES
stacks:
    .skip CPUS_MAX * STACK_BYTES
stacks_end:
boot_magic:
    .skip 4
boot_info:
    .skip 4
ap_stacks_taken:
    .skip 4
    .section .note.GNU-stack, "", @progbits
