/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Programs about segments: limits, expand-down, unreal mode, 16-bit protected mode, what is known of
 * descriptors, flags and ports by privilege, SYSENTER. Included by engines_programs.S.
 */

/* SDM 3A 5.3, 3.4.5.1, 5.3.1: limits of expand-down segments of both sizes and with G, also of stacks;
 * nothing goes on at 0 behind the end of 4 GiB. */
        program seg_limits, P32
        resume32 1f
        movl    0xfffffffe, %eax
1:      movl    $(DATA << 16 | 0xff), GDT + SPARE       /* above FFH, 16 bits */
        movl    $(0x9700 | DATA >> 16), GDT + SPARE + 4
        movl    $(DATA << 16), GDT + SPARE + 8          /* above FFFH, 32 bits */
        movl    $(0xc09700 | DATA >> 16), GDT + SPARE + 12
        movl    $SPARE, %eax
        movl    %eax, %es
        movl    $(SPARE + 8), %eax
        movl    %eax, %fs
        movw    $0x77, %es:0xfffe
        resume32 1f
        movw    %es:0xffff, %ax
1:      resume32 1f
        movb    %es:0x10000, %al
1:      resume32 1f
        movb    %es:0xff, %al
1:      movl    $0x55, %fs:0x1000
        out     DATA + 0x1000
        resume32 1f
        movb    %fs:0xfff, %al
1:      movl    $(SPARE + 8), %eax
        movl    %eax, %ss
        movl    $0x8000, %esp
        pushl   $0x99
        out     DATA + 0x7ffc
        movl    $0xffc, %ebp
        resume32 1f
        movl    (%ebp), %eax
1:      resume32 1f
        pushl   (%ebp)
1:      out     %esp
        expect  seg_limits
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG, 0x55, VECTOR_TAG | 13, CODE_TAG, 0x99
        .long   VECTOR_TAG | 12, CODE_TAG, VECTOR_TAG | 12, CODE_TAG, 0x7ffc
        end     seg_limits, 0, NO_LEGACY

/* SDM 3A 5.5, 3.4.5.1: through a read-only segment every instruction that only reads its operand goes
 * on, and every one that writes it is #GP(0), LOCK or not, even when it would write what is there. */
        .macro  reads instruction:vararg
        resume32 1f
        \instruction
1:
        .endm
        .macro  writes instruction:vararg
        resume32 1f
        \instruction
        out     $0xbad
1:
        .endm
        program seg_read_only, P32
        fninit
        movl    $A(5f), DATA + 0x20
        movl    $READ_ONLY, %eax
        movl    %eax, %es
        movl    %eax, %fs
        xorl    %ebx, %ebx
        xorl    %ecx, %ecx
        reads   movl %fs:8, %eax
        reads   movzbl %fs:8, %eax
        reads   addl %fs:8, %eax
        reads   cmpl %eax, %fs:8
        reads   cmpl $1, %fs:8
        reads   cmpb $1, %fs:8
        reads   testl %eax, %fs:8
        reads   testb $1, %fs:8
        reads   btl $3, %fs:8
        reads   btw $3, %fs:8
        reads   btl %ebx, %fs:8
        reads   btw %bx, %fs:8
        reads   mull %fs:8
        reads   imull $3, %fs:8, %eax
        reads   bsfl %fs:8, %eax
        reads   cmovzl %fs:8, %eax
        reads   pushl %fs:8
        reads   shldl $3, %eax, %ebx
        reads   larw %fs:8, %ax
        reads   verr %fs:8
        reads   bound %ecx, %fs:0x40
        movl    $8, %esi
        reads   lodsl %fs:(%esi), %eax
        movl    $8, %edi
        reads   scasl
        reads   cmpsl %es:(%edi), %fs:(%esi)
        reads   fildl %fs:8
        xorl    %ebx, %ebx
        reads   jmp *%fs:0x20
5:      out     $0x600d
        xorl    %ebx, %ebx
        writes  movl %eax, %fs:8
        writes  movb $0, %fs:8
        writes  addl $0, %fs:8
        writes  lock addl $0, %fs:8
        writes  orb %al, %fs:8
        writes  incl %fs:8
        writes  notl %fs:8
        writes  btsl $3, %fs:8
        writes  btrl %ebx, %fs:8
        writes  lock btcl $3, %fs:8
        writes  xchgl %eax, %fs:8
        writes  xaddl %eax, %fs:8
        writes  cmpxchgl %ecx, %fs:8
        writes  cmpxchg8b %fs:8
        writes  shll $1, %fs:8
        writes  shldl $3, %eax, %fs:8
        writes  setz %fs:8
        writes  popl %fs:8
        movl    $8, %edi
        writes  stosl
        movl    $DATA, %esi
        writes  movsb
        writes  fistl %fs:8
        writes  fnstcw %fs:8
        writes  fnsave %fs:8
        writes  sgdtl %fs:8
        writes  smsww %fs:8
        writes  sldtw %fs:8
        writes  movw %ds, %fs:8
        out     $0x600e
        expect  seg_read_only
        .long   0x600d
        .rept   27
        .long   VECTOR_TAG | 13, CODE_TAG
        .endr
        .long   0x600e
        end     seg_read_only, 0, NO_LEGACY

/* SDM 3A 5.3: an instruction that begins within the limit of CS and ends beyond is #GP(0) of its own
 * address; so is a jump there. */
        program seg_code_limit, P32
        idt_gate 13, 5f
        movl    $R(3f), %eax
        incl    %eax
        movw    %ax, GDT + SPARE
        movw    $(CODE & 0xffff), GDT + SPARE + 2
        movl    $(0x409b00 | CODE >> 16), GDT + SPARE + 4
        ljmpl   $SPARE, $R(1f)
1:      out     $1
        nop
3:      movl    $0x12345678, %eax
        out     $2
5:      popl    %eax
        OUT
        popl    %eax
        subl    $R(3b), %eax
        OUT
        popl    %eax
        OUT
        popl    %eax
        idt_gate 13, 5f
        ljmpl   $SPARE, $R(1f)
1:      jmp     1f
        .fill   256, 1, 0x90
1:      out     $3
5:      popl    %eax
        OUT
        expect  seg_code_limit
        .long   1, 0, 0, SPARE, 0
        end     seg_code_limit, 0, NO_LEGACY

/* SDM 3A 9.9, 20.1: limits and the size of the stack stay what protected mode has loaded when real
 * mode loads the register ("unreal mode"); registers not loaded there keep 64 KiB. */
        program seg_unreal, REAL
        cli
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        jmp     1f
1:      movw    $KERNEL_SS, %bx
        movw    %bx, %ds
        movw    %bx, %ss
        andb    $0xfe, %al
        movl    %eax, %cr0
        jmp     1f
1:      movl    $0x600000, %ebx
        addr32 movl $0x1357, (%ebx)
        movw    $0x1000, %ax
        movw    %ax, %ds
        addr32 movl -0x10000(%ebx), %eax
        OUT
        xorw    %ax, %ax
        movw    %ax, %ss
        movl    $(DATA + 8), %esp
        pushl   $0x2468
        addr32 movl DATA - 0x10000 + 4, %eax
        OUT
        out     %esp
        movw    $KERNEL_SS, %bx
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        movw    $STACK16, %bx
        movw    %bx, %ss
        andb    $0xfe, %al
        movl    %eax, %cr0
        movl    $STACK, %esp
        resume16 2f
        addr32 movl %ss:0x10000, %eax
2:      resume16 2f
        addr32 movl %es:0x10000, %eax
2:      expect  seg_unreal
        .long   0x1357, 0x2468, DATA + 4, VECTOR_TAG | 12, VECTOR_TAG | 13
        end     seg_unreal

#define T3 (CODE + 0xe000) /* a TSS that 16-bit segments reach */

/* SDM 3A 6.12.1, 7.6, 5.8: gates and TSS of 16 bits around code of 16 bits at level 3; frames of
 * words, with the error code. */
        program seg_rings16, P16
        movw    $0x8000, V16(T3) + 2                    /* SP, SS of level 0 */
        movw    $STACK16, V16(T3) + 4
        movw    $STACK16, %ax
        movw    %ax, %es
        movl    $((T3 & 0xffff) << 16 | 0x2b), %es:GDT + SPARE
        movl    $(T3 >> 16 | 0x8100), %es:GDT + SPARE + 4
        movl    $0x0000ffff, %es:GDT + SPARE + 8        /* level 3: code and data based at CODE */
        movl    $(0xfb00 | CODE >> 16), %es:GDT + SPARE + 12
        movl    $0x0000ffff, %es:GDT + SPARE + 16
        movl    $(0xf300 | CODE >> 16), %es:GDT + SPARE + 20
        movw    $R(5f), %es:IDT + 0x42 * 8
        movw    $CODE16, %es:IDT + 0x42 * 8 + 2
        movl    $0xe600, %es:IDT + 0x42 * 8 + 4
        movw    $R(6f), %es:IDT + 13 * 8
        movw    $CODE16, %es:IDT + 13 * 8 + 2
        movl    $0x8700, %es:IDT + 13 * 8 + 4
        movw    $SPARE, %ax
        ltr     %ax
        movw    $(SPARE + 16 + 3), %ax
        movw    %ax, %ds
        pushw   $(SPARE + 16 + 3)
        pushw   $0xd000
        pushw   $0x3202
        pushw   $(SPARE + 8 + 3)
        pushw   $R(1f)
        iretw
1:      movl    %cs, %eax
        OUT
        movzwl  %sp, %eax
        OUT
        movw    $0x77, %bx
        int     $0x42
2:      out     %ebx
        movl    $KERNEL_SS, %ecx
        movw    %cx, %es
4:      nop
5:      movw    %sp, %bp
        movzwl  %sp, %eax
        OUT
        movzwl  (%bp), %eax
        subl    $R(2b), %eax
        OUT
        movl    2(%bp), %eax
        OUT
        movl    6(%bp), %eax
        OUT
        flagsl  0x200
        movw    $0x88, %bx
        iretw
6:      popw    %ax
        movzwl  %ax, %eax
        OUT
        popw    %ax
        movzwl  %ax, %eax
        addl    $2, %eax
        subl    $R(4b), %eax
        OUT
        flagsl  0x200
        expect  seg_rings16
        .long   SPARE + 8 + 3, 0xd000, 0x7ff6, 0, 0x32020000 | SPARE + 8 + 3
        .long   (SPARE + 16 + 3) << 16 | 0xd000, 0, 0x88, KERNEL_SS, 0, 0x200
        end     seg_rings16, 0, NO_LEGACY

/* Tries the instruction on descriptors of all 32 types, DPL 3; reports which give ZF. */
        .macro  all_types instruction:vararg
        xorl    %ebx, %ebx
        xorl    %edx, %edx
        movl    $SPARE, %ecx
1:      movb    %dl, %al
        orb     $0xe0, %al
        movb    %al, GDT + SPARE + 5
        \instruction
        jnz     2f
        btsl    %edx, %ebx
2:      incl    %edx
        cmpl    $32, %edx
        jne     1b
        movl    %ebx, %eax
        OUT
        .endm

/* SDM 2A LAR table 3-53, LSL 3-59, 2B VERR; 3A 5.10: which types each knows. */
        program seg_types, P32
        movl    $0x0000ffff, GDT + SPARE
        movl    $0, GDT + SPARE + 4
        all_types larl %ecx, %eax
        all_types lsll %ecx, %eax
        all_types verr %cx
        all_types verw %cx
        /* Privilege, by RPL: none for conforming code. */
        movl    $(KERNEL_SS | 1), %ecx
        larl    %ecx, %eax
        flagsl  0x40
        verr    %cx
        flagsl  0x40
        movl    $(CONFORMING | 3), %ecx
        lsll    %ecx, %eax
        flagsl  0x40
        verr    %cx
        flagsl  0x40
        movl    $0xfff8, %ecx
        movl    $0x1234, %eax
        lsll    %ecx, %eax
        OUT
        movl    $KERNEL_SS, %ecx
        movl    $-1, %eax
        larw    %cx, %ax
        OUT
        expect  seg_types
        .long   0xffff1a3e, 0xffff0a0e, 0xccff0000, 0x00cc0000, 0, 0, 0x40, 0x40, 0x1234
        .long   0xffff9300
        end     seg_types, 0, NO_LEGACY

/* The same in long mode, which has no 16-bit TSS, 16-bit gate or task gate. */
        program seg_types_long, LONG
        movl    $0x0000ffff, GDT + SPARE
        movl    $0, GDT + SPARE + 4
        all_types larl %ecx, %eax
        all_types lsll %ecx, %eax
        all_types verr %cx
        all_types verw %cx
        expect  seg_types_long
        .long   0xffff1a04, 0xffff0a04, 0xccff0000, 0x00cc0000
        end     seg_types_long, 0, "LAR, LSL and VERR are not emulated"

/* SDM 2A LTR, LLDT: errors, the busy bit; a null LDT has no descriptors. */
        program seg_ltr_lldt, P32
        tss_descriptor SPARE, T1
        xorl    %ecx, %ecx
        resume32 1f
        ltr     %cx
1:      movl    $TSS_SELECTOR, %ecx
        resume32 1f
        ltr     %cx             /* busy */
1:      movl    $KERNEL_SS, %ecx
        resume32 1f
        ltr     %cx
1:      movl    $(SPARE | 4), %ecx
        resume32 1f
        ltr     %cx
1:      movb    $0x09, TYPE_OF(SPARE)
        movl    $SPARE, %ecx
        resume32 1f
        ltr     %cx
1:      movb    $0x81, TYPE_OF(SPARE)
        movw    $STACK0, T1 + 2
        movw    $KERNEL_SS, T1 + 4
        ltr     %cx
        out_byte TYPE_OF(SPARE)
        out_task
        resume32 1f
        lldt    %cx
1:      movl    $(LDT_SELECTOR | 4), %ecx
        resume32 1f
        lldt    %cx
1:      movb    $0x02, TYPE_OF(LDT_SELECTOR)
        movl    $LDT_SELECTOR, %ecx
        resume32 1f
        lldt    %cx
1:      movl    $3, %ecx
        lldt    %cx
        sldt    %eax
        OUT
        movl    $4, %ecx
        resume32 1f
        movl    %ecx, %es
1:      larl    %ecx, %eax
        flagsl  0x40
        to_level USER_CS32, USER_SS, 1f, flags=IOPL3
1:      movl    $USER_SS, %eax
        movl    %eax, %ds
        resume32 1f
        lldt    %cx
1:      resume32 1f
        ltr     %cx
1:      expect  seg_ltr_lldt
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG | TSS_SELECTOR
        .long   VECTOR_TAG | 13, CODE_TAG | KERNEL_SS, VECTOR_TAG | 13, CODE_TAG | SPARE | 4
        .long   VECTOR_TAG | 11, CODE_TAG | SPARE, 0x83, SPARE, VECTOR_TAG | 13, CODE_TAG | SPARE
        .long   VECTOR_TAG | 13, CODE_TAG | LDT_SELECTOR | 4
        .long   VECTOR_TAG | 11, CODE_TAG | LDT_SELECTOR, 3, VECTOR_TAG | 13, CODE_TAG | 4, 0
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        end     seg_ltr_lldt, 0, NO_LEGACY

/* SDM 3A 7.2.3, 3.5.2: in long mode their descriptors have 16 bytes: a type in the upper half, an
 * address that is not canonical and the end of the table are #GP of the selector. */
        program seg_ltr_long, LONG
        movq    $(T1 & 0xffff) << 16 | 0x67, GDT + SPARE
        movl    $(T1 >> 16 | 0x8900), GDT + SPARE + 4
        movq    $0, GDT + SPARE + 8
        movl    $SPARE, %ecx
        movl    $0x100, GDT + SPARE + 12
        resume64 1f
        ltr     %cx
1:      movl    $0, GDT + SPARE + 12
        movl    $0x8000, GDT + SPARE + 8
        resume64 1f
        ltr     %cx
1:      movl    $0, GDT + SPARE + 8
        ltr     %cx
        out_byte TYPE_OF(SPARE)
        movq    $0x8900 << 32, %rax
        movl    $0x8900, GDT + GDT_BYTES - 4
        movl    $(GDT_BYTES - 8), %ecx
        resume64 1f
        ltr     %cx
1:      movb    $0x81, TYPE_OF(SPARE)
        movl    $SPARE, %ecx
        resume64 1f
        ltr     %cx             /* no TSS of 16 bits there */
1:      movb    $0x82, TYPE_OF(SPARE)
        movl    $0x8000, GDT + SPARE + 8
        resume64 1f
        lldt    %cx
1:      movl    $0, GDT + SPARE + 8
        lldt    %cx
        sldt    %eax
        OUT
        expect  seg_ltr_long
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE, VECTOR_TAG | 13, CODE_TAG | SPARE, 0x8b
        .long   VECTOR_TAG | 13, CODE_TAG | (GDT_BYTES - 8), VECTOR_TAG | 13, CODE_TAG | SPARE
        .long   VECTOR_TAG | 13, CODE_TAG | SPARE, SPARE
        end     seg_ltr_long, 0, "LTR is refused with a general protection fault"

/* SDM 2B POPF table 4-15, 2A IRET, CLI, STI: IF needs CPL <= IOPL, IOPL needs level 0; POPF and IRET
 * leave them without a fault. 1 19.5: ports too. */
        program seg_flags, P32
        to_level CODE_R1, DATA_R1, 1f, flags=0x1202
1:      movl    $DATA_R1, %eax
        movl    %eax, %ds
        cli
        sti
        pushl   $0x3002         /* IF off, IOPL stays 1 */
        popfl
        flagsl  0x3200
        pushl   $0x3202
        pushl   $CODE_R1
        pushl   $A(2f)
        iretl
2:      flagsl  0x3200
        movl    $A(1f), BACK
        int     $0x90
1:      to_level USER_CS32, USER_SS, 1f, flags=0x1202
1:      movl    $USER_SS, %eax
        movl    %eax, %ds
        pushl   $0x3002
        popfl
        pushfl
        popl    %ebx
        pushl   $0x0002
        pushl   $USER_CS32
        pushl   $A(2f)
        iretl
2:      pushfl
        popl    %ecx
        resume32 2f
        sti
2:      resume32 2f
        outb    %al, $0x80
2:      movl    $A(1f), BACK
        int     $0x90
1:      andl    $0x3200, %ebx
        out     %ebx
        andl    $0x3200, %ecx
        out     %ecx
        expect  seg_flags
        .long   0x1000, 0x1200, VECTOR_TAG | 0x90, VECTOR_TAG | 13, CODE_TAG
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 0x90, 0x1200, 0x1200
        end     seg_flags, 0, NO_LEGACY

/* SDM 1 19.5.2: a TSS of 16 bits has no I/O bitmap; that of 32 bits is looked at above IOPL, by
 * string instructions too. */
        program seg_ports, P32
        v86_tss
        movb    $0x02, IO_BITMAP + DEVICE / 8 /* DEVICE + 1 */
        to_level USER_CS32, USER_SS, 1f, flags=2
1:      movl    $USER_SS, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    $DEVICE, %edx
        movl    $DATA, %edi
        movl    $2, %ecx
        rep insb
        incl    %edx
        resume32 2f
        insb
2:      decl    %edx
        resume32 2f
        inw     (%dx), %ax
2:      subl    $DATA, %edi
        movl    %edi, %eax
        OUT
        movl    $A(1f), BACK
        int     $0x90
1:      tss_descriptor SPARE + 8, T1, 0x81, 0xff
        movw    $STACK0, T1 + 2
        movw    $KERNEL_SS, T1 + 4
        movl    $(SPARE + 8), %ecx
        ltr     %cx
        to_level USER_CS32, USER_SS, 1f, flags=2
1:      movl    $USER_SS, %eax
        movl    %eax, %ds
        movl    $DEVICE, %edx
        resume32 2f
        inb     (%dx), %al
2:      movl    $A(1f), BACK
        int     $0x90
1:      expect  seg_ports
        .long   0xb0000100, 0xb0000100, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, 2
        .long   VECTOR_TAG | 0x90, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 0x90
        end     seg_ports, 0, NO_LEGACY

/* SDM 3A 5.8.7, 2B SYSENTER, SYSEXIT outside of long mode: flat segments whatever the tables say;
 * IF and VM cleared; #GP(0) when IA32_SYSENTER_CS is null, or SYSEXIT above level 0. */
        program seg_sysenter, P32
        idt_gate 0x80, 4f
        movl    $0x174, %ecx
        xorl    %eax, %eax
        xorl    %edx, %edx
        wrmsr
        resume32 1f
        sysenter
1:      resume32 1f
        sysexit
1:      movl    $KERNEL_CS32, %eax
        wrmsr
        incl    %ecx
        movl    $0x31000, %eax
        wrmsr
        incl    %ecx
        movl    $A(2f), %eax
        wrmsr
        to_level USER_CS32, USER_SS, 1f, flags=0x3202
1:      movl    $USER_SS, %eax
        movl    %eax, %ds
        resume32 1f
        sysexit
1:      sysenter
2:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        movl    %cs, %eax
        OUT
        movl    %ss, %eax
        OUT
        out     %esp
        flagsl  0x20200
        testl   $1, DATA
        jnz     5f
        movl    $A(3f), %edx
        movl    $0x32000, %ecx
        sysexit
3:      movl    %cs, %eax
        OUT
        movl    %ss, %eax
        OUT
        out     %esp
        int     $0x80
4:      movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        movl    $1, DATA
        to_v86  1f
        .code16
1:      sysenter
        .code32
5:      out     $0x600d
        expect  seg_sysenter
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG
        .long   KERNEL_CS32, KERNEL_CS32 + 8, 0x31000, 0, KERNEL_CS32 + 16 + 3
        .long   KERNEL_CS32 + 24 + 3, 0x32000, KERNEL_CS32, KERNEL_CS32 + 8, 0x31000, 0, 0x600d
        end     seg_sysenter, 0, NO_LEGACY

/* SDM 3A 6.12.1.1, 5.8.1.1: a gate to conforming code interrupts level 3 without a change of level or
 * stack; INT3 and INTO too need the gate's DPL. */
        program seg_conforming_gate, P32
        idt_gate 0x42, 2f, cs=CONFORMING
        idt_gate 4, 2f, type=0x8e00
        to_level USER_CS32, USER_SS, 1f, flags=IOPL3
1:      movl    $USER_SS, %eax
        movl    %eax, %ds
        int     $0x42
3:      out     %esp
        resume32 1f
        movb    $0x7f, %al
        incb    %al
        into
1:      stop
2:      movl    %cs, %eax
        OUT
        out     %esp
        movl    (%esp), %eax
        subl    $A(3b), %eax
        OUT
        iretl
        expect  seg_conforming_gate
        .long   CONFORMING | 3, STACK3 - 12, 0, STACK3, VECTOR_TAG | 13, CODE_TAG | (4 * 8 + 2)
        end     seg_conforming_gate, 0, NO_LEGACY

        .macro  lahf_sahf
        movb    $0xff, %ah
        sahf
        lahf
        movzbl  %ah, %eax
        OUT
        movb    $0, %ah
        sahf
        lahf
        movzbl  %ah, %eax
        OUT
        .endm

/* SDM 2A LAHF, 2B SAHF: bits 1, 3 and 5 are fixed; in every mode, 64-bit with CPUID's bit. */
        program seg_lahf_real, REAL
        lahf_sahf
        expect  seg_lahf_real
        .long   0xd7, 2
        end     seg_lahf_real

        program seg_lahf, LONG
        lahf_sahf
        movl    $KERNEL_SS, %eax
        movl    %eax, %ds
        pushq   $CODE16
        pushq   $R(1f)
        lretq
        .code16
1:      lahf_sahf
        ljmpl   $KERNEL_CS32, $A(1f)
        .code32
1:      lahf_sahf
        expect  seg_lahf
        .long   0xd7, 2, 0xd7, 2, 0xd7, 2
        end     seg_lahf

/* SDM 1 3.3.7.1: in compatibility mode addresses wrap at 4 GiB, also within an operand. The limit of
 * a segment holds before that: see u32_limit_wrap. */
        program seg_compat_wrap, LONG
        movq    $(DATA + 0x8000 + 3), PDPT + 24
        movq    $(DATA + 0x9000 + 3), DATA + 0x8000 + 511 * 8
        movq    $(DATA + 0xa000 + 3), DATA + 0x9000 + 511 * 8
        movq    %cr3, %rax
        movq    %rax, %cr3
        movw    $0x1234, DATA + 0xaffe
        movw    $0x5678, 0
        pushq   $KERNEL_CS32
        pushq   $A(2f)
        lretq
        .code32
2:      descriptor SPARE, 0xf000ffff, 0xff4093ff        /* from 0xfffff000 on */
        movl    $SPARE, %eax
        movl    %eax, %fs
        out     %fs:0xffe
        movl    $0xfffffffe, %ebx
        out     2(%ebx)
        movl    $0x13572468, %fs:0x1000(%ebx)
        movzwl  0, %eax
        OUT
        movzwl  DATA + 0xaffe, %eax
        OUT
        expect  seg_compat_wrap
        .long   0x56781234, 0x5678, 0x1357, 0x2468
        end     seg_compat_wrap

/* SDM 3A 6.8.3: MOV SS and POP SS hold the trap of TF off for one instruction; LSS does not. */
        program seg_lss, P32
        movl    $STACK, DATA
        movl    $KERNEL_SS, DATA + 4
        pushfl
        orl     $0x100, (%esp)
        popfl
        lss     DATA, %esp
1:      nop                     /* traps before it, and after it */
        movl    %ss, %eax
        movl    %eax, %ss
        nop                     /* one trap for both */
        pushfl
        andl    $~0x100, (%esp)
        popfl
        out     $0x600d
        expect  seg_lss
        .rept   7
        .long   VECTOR_TAG | 1
        .endr
        .long   0x600d
        end     seg_lss, 0, NO_LEGACY

/* SDM 3A 3.4.5 (B flag), 2B POP, LEAVE, RET: a stack of 16 bits under code of 32 bits: SP alone moves
 * and wraps; and what returns to one leaves the upper half of ESP. */
        program seg_stack16, P32
        movl    $STACK16, %eax
        movl    %eax, %ss
        movl    $0xabcd0002, %esp
        movl    $0x1122, 0xfffe
        popw    %ax
        out     %esp
        movl    $0xabcd0002, %esp
        pushw   $0x3344
        pushw   $0x5566
        out     %esp
        movzwl  0xfffe, %eax
        OUT
        movl    $0xabcd9000, %esp
        call    1f
1:      out     %esp
        movl    $0x12348000, %ebp
        leave
        out     %esp
        pushal
        out     %esp
        popal
        movl    $(0xabcd0000 | STACK), %esp
        descriptor SPARE, 0x0000ffff, 0x0000f300        /* 16 bits, level 3 */
        pushl   $(SPARE + 3)
        pushl   $0x9000
        pushl   $IOPL3
        pushl   $USER_CS32
        pushl   $A(2f)
        iretl
2:      movl    $USER_SS, %eax
        movl    %eax, %ds
        out     %esp
        expect  seg_stack16
        .long   0xabcd0004, 0xabcdfffe, 0x5566, 0xabcd8ffc, 0xabcd8004, 0xabcd7fe4, 0xabcd9000
        end     seg_stack16, 0, NO_LEGACY

/* SDM 3A 9.8.5.2 (9.8.5.3), 2A MOV CR0: long mode can't begin with a TSS of 16 bits, nor without
 * CR4.PAE. */
        program seg_long_tss, P32
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    $PML4, %eax
        movl    %eax, %cr3
        movl    %cr0, %ebx
        orl     $0x80000000, %ebx
        resume32 1f
        movl    %ebx, %cr0
1:      set_cr4 0x20
        tss_descriptor SPARE, T1, 0x81, 0x2b
        movl    $SPARE, %eax
        ltr     %ax
        resume32 1f
        movl    %ebx, %cr0
1:      tss_descriptor (SPARE + 8), T1
        movl    $(SPARE + 8), %eax
        ltr     %ax
        movl    %ebx, %cr0
        rdmsr
        andl    $0x500, %eax
        OUT
        expect  seg_long_tss
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, 0x500
        end     seg_long_tss, 0, NO_LEGACY
