/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest programs of core.c. Each is loaded at CODE; ADDR gives the address of a label in it there.
 */
        .set    CODE, 0x10000
        .section .rodata
        .altmacro

        .macro  begin name
        .balign 16
        .globl  program_\name
program_\name:
        .set    start, program_\name
        .endm
        .macro  end name
        .globl  program_\name\()_end
program_\name\()_end:
        .endm
#define ADDR(program, label) (label - program_##program + CODE)

/* From real mode, by way of 32-bit protected mode, to 64-bit mode. Loaded at CODE with CS = 1000H.
 * The page tables are the harness's; the GDT is its own. */
        begin   modes
        .code16
        cli
        movw    %cs, %ax
        movw    %ax, %ds
        movw    $0x7000, %sp
        pushw   %cs
        popw    %es
        lgdtl   (modes_gdtr - program_modes)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $0x08, $ADDR(modes, modes32)
        .code32
modes32:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movl    $0x9000, %esp
        pushl   $0x12345678
        popl    %ebx
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    $0x100000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0
        ljmpl   $0x18, $ADDR(modes, modes64)
        .code64
modes64:
        movabsq $0x1122334455667788, %rax
        movq    %cr0, %rdx
        leaq    modes64(%rip), %rsi
        hlt
        .balign 8
modes_gdt:
        .quad   0
        .quad   0x00cf9a000000ffff      /* not accessed yet */
        .quad   0x00cf92000000ffff
        .quad   0x00af9a000000ffff
modes_gdtr:
        .word   31
        .long   ADDR(modes, modes_gdt)
        end     modes

        .code64
/* Accesses for the table of page faults. */
        begin   read
        movq    (%rdi), %rax
        hlt
        end     read
        begin   write
        movq    %rax, (%rdi)
        hlt
        end     write
        begin   execute
        jmp     *%rdi
        end     execute

/* SYSCALL from level 3; the kernel's entry is at CODE + 100H. */
        begin   syscall
        movl    $0xabcd, %eax
        stc
        syscall
after_syscall:
        movl    $0x1234, %ebx
        hlt
        .org    program_syscall + 0x100
        movq    %rcx, %r8
        movq    %r11, %r9
        pushfq
        popq    %r10
        movw    %cs, %r12w
        movw    %ss, %r13w
        sysretq
        end     syscall

/* Interrupts wait for one instruction after STI. */
        begin   sti
        xorl    %eax, %eax
        incl    %eax
        sti
        incl    %eax
sti_here:
        incl    %eax
        hlt
        end     sti

/* And after MOV SS with IF set already. */
        begin   mov_ss
        xorl    %eax, %eax
        movl    $0x10, %ecx
        pushfq
        orq     $0x200, (%rsp)
        popfq
        movw    %cx, %ss
        incl    %eax
        incl    %eax
        hlt
        end     mov_ss

/* POPF makes no shadow. */
        begin   popf
        xorl    %eax, %eax
        pushq   $0x202
        popfq
        incl    %eax
        hlt
        end     popf

/* STI, HLT: the interrupt must not come between the two. */
        begin   sti_hlt
        sti
        hlt
sti_hlt_after:
        nop
        cli
        hlt
        end     sti_hlt

/* Overwrites an instruction of its own block: movb at patch becomes movl $2. */
        begin   patch_self
        xorl    %eax, %eax
        movb    $2, patch_here+1(%rip)
        nop
patch_here:
        movl    $1, %eax
        hlt
        end     patch_self

/* Calls a function in another page (RDI) three times, changing its constant in between: through the
 * same address, through another mapping (RSI), and by REP MOVSB. */
        begin   patch_other
        call    *%rdi
        movl    %eax, %r8d
        movb    $2, 1(%rdi)
        call    *%rdi
        movl    %eax, %r9d
        movb    $3, 1(%rsi)
        call    *%rdi
        movl    %eax, %r10d
        movq    %rdi, %rdx
        leaq    1(%rdi), %rdi
        leaq    patch_bytes(%rip), %rsi
        movl    $4, %ecx
        rep     movsb
        call    *%rdx
        hlt
patch_bytes:
        .long   4
        end     patch_other

/* Calls RDI over and over until R15 iterations are done; sums what it gives. */
        begin   call_loop
        xorl    %ebx, %ebx
1:      call    *%rdi
        addq    %rax, %rbx
        decq    %r15
        jnz     1b
        hlt
        end     call_loop

/* Waits until (RSI) is not RAX, then calls RDI. */
        begin   wait_call
        call    *%rdi
        movl    %eax, %r8d
        movq    %r8, (%rsi)
1:      pause
        cmpq    $2, (%rsi)
        jne     1b
        call    *%rdi
        movl    %eax, %r9d
        hlt
        end     wait_call

/* The other side: waits for (RSI) to be 1, changes the function at RDI, tells. */
        begin   wait_patch
1:      pause
        cmpq    $1, (%rsi)
        jne     1b
        movb    $7, 1(%rdi)
        movq    $2, (%rsi)
        hlt
        end     wait_patch

/* Adds RCX times to a counter that crosses a page, with LOCK. */
        begin   locked_add
1:      lock    incl (%rdi)
        decq    %rcx
        jnz     1b
        hlt
        end     locked_add

/* Trapped by TF: the first instruction to be trapped is the one after POPFQ. */
        begin   single_step
        pushfq
        orq     $0x100, (%rsp)
        popfq
step_first:
        incl    %eax
step_second:
        incl    %eax
        hlt
        end     single_step

/* IRETQ to 32-bit code at level 3, which comes back by INT 80H. */
        begin   compat
        pushq   $0x23
        pushq   $0xc000
        pushq   $0x2
        pushq   $0x1b
        pushq   $ADDR(compat, compat32)
        movabsq $0xffffffff00000001, %rax
        iretq
        .code32
compat32:
        incl    %eax
        movl    %esp, %ebx
        pushl   $0x55
        .byte   0x40                    /* INC EAX here, a prefix in 64-bit mode */
        int     $0x80
        .code64
        end     compat

/* 32-bit: a segment of 16 bytes by way of ES. */
        begin   limit32
        .code32
        movl    12(%edi), %eax
        movl    %es:12(%edi), %eax
        movl    %es:13(%edi), %eax
        hlt
        .code64
        end     limit32

/* 32-bit, level 3: an interrupt to level 0 changes the stack. */
        begin   int32
        .code32
        pushl   $0x77
        int     $0x80
        hlt
        .code64
        end     int32

/* IRET of the handler at CODE + 100H returns to level 3. */
        begin   iret32
        .code32
        movl    $5, %eax
        int     $0x80
        addl    $1, %eax
        int3
        .org    program_iret32 + 0x100
        movw    %ss, %bx
        movw    %cs, %cx
        addl    $10, %eax
        iretl
        .code64
        end     iret32

/* Two address spaces with PCIDs 1 and 2, CR3 values in R8 and R9; reads (RDI) in each, with and
 * without a flush. */
        begin   pcid
        movq    %r8, %cr3
        movq    (%rdi), %r10
        movq    %r9, %cr3
        movq    (%rdi), %r11
        btsq    $63, %r8
        movq    %r8, %cr3
        movq    (%rdi), %r12
        btsq    $63, %r9
        movq    %r9, %cr3
        movq    (%rdi), %r13
        movq    %rsi, (%rdx)            /* a new entry for (RDI) */
        invlpg  (%rdi)
        movq    (%rdi), %r14
        hlt
        end     pcid

/* Reads (RDI), changes its page table entry at RDX to RSI, reads again, INVLPG, reads again. */
        begin   invlpg
        movq    (%rdi), %r8
        movq    %rsi, (%rdx)
        invlpg  (%rdi)
        movq    (%rdi), %r9
        hlt
        end     invlpg

/* What the vector tests of strings and ports use. */
        begin   ports
        movb    $0x5a, %al
        outb    %al, $0x80
        movw    $0x1234, %dx
        movl    $0xdeadbeef, %eax
        outl    %eax, %dx
        inw     %dx, %ax
        movl    $4, %ecx
        rep     insb
        inb     $0x80, %al
        hlt
        end     ports

        begin   port_user
        inb     $0x80, %al
        hlt
        end     port_user

        begin   nmi
        hlt
        nop
        nop
        end     nmi

        begin   double_fault
        movq    (%rdi), %rax
        end     double_fault

        begin   sregs
        movw    %cx, %ds
        hlt
        end     sregs

        .section .note.GNU-stack,"",@progbits
