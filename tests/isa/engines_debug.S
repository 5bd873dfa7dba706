/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Debug exceptions: breakpoints of all kinds, single steps, what holds them back. Included in
 * engines_programs.S. Each #DB is told by three reports: RIP from the program's start, what of DR6
 * is not fixed, and RF of the image.
 */

#define AT(program, label) ((label) - program##_start)
#define HIT(program, label, bits) ((label) - program##_start), (bits), 0
#define HIT_RF(program, label, bits) ((label) - program##_start), (bits), 0x10000
#define BS 0x4000
#define QUIET 0x50 /* ports where nothing is */

/* The handler clears DR6 and sets RF, as debuggers do. */
        .macro  debug_handler name
        movl    $A(\name\()_handler), %eax
        movw    %ax, IDT + 16
        shrl    $16, %eax
        movw    %ax, IDT + 16 + 6
        jmp     8f
\name\()_handler:
        pushq   %rax
        movl    8(%rsp), %eax
        subl    $CODE, %eax
        OUT
        movq    %dr6, %rax
        xorl    $0xffff0ff0, %eax
        OUT
        xorl    %eax, %eax
        movq    %rax, %dr6
        movl    24(%rsp), %eax
        andl    $0x10000, %eax
        OUT
        orl     $0x10000, 24(%rsp)
        popq    %rax
        iretq
8:
        .endm
        .macro  set_dr n, value:vararg
        movl    \value, %eax
        movq    %rax, %dr\n
        .endm
        .macro  set_tf
        pushfq
        orl     $0x100, (%rsp)
        popfq
        .endm

/* SDM 3B 17.3.1.1: an instruction breakpoint is a fault; RF in the image of IRET passes it once.
 * 17.2.3: of DR6 only B0 … B3 are cleared. In a loop, and at the first byte of a block. */
        program debug_execute, LONG
        debug_handler debug_execute
        set_dr  0, $A(debug_execute_1)
        set_dr  3, $A(debug_execute_2)
        set_dr  7, $0x81
        movl    $2, %ecx
        xorl    %ebx, %ebx
1:      incl    %ebx
debug_execute_1:
        incl    %ebx
        nop
debug_execute_2:
        decl    %ecx
        jnz     1b
        set_dr  1, $A(debug_execute_3)
        set_dr  6, $0x4001
        set_dr  7, $0x4
        jmp     debug_execute_3
        ud2
debug_execute_3:
        incl    %ebx
        set_dr  7, $0
        movl    $A(debug_execute_1), %eax
        jmp     debug_execute_4
debug_execute_4:
        out     %ebx
        expect  debug_execute
        .long   HIT(debug_execute, debug_execute_1, 1), HIT(debug_execute, debug_execute_2, 8)
        .long   HIT(debug_execute, debug_execute_1, 1), HIT(debug_execute, debug_execute_2, 8)
        .long   HIT(debug_execute, debug_execute_3, BS | 2), 5
        end     debug_execute

/* SDM 3B 17.3.1.2, 17.2.5: data breakpoints are traps; writes, reads and writes; lengths with the
 * address's low bits ignored; any byte of the access hits. */
        program debug_data, LONG
        debug_handler debug_data
        movl    $DATA, %edi
        movq    %rdi, %dr0
        set_dr  1, $(DATA + 12)
        set_dr  7, $0x00bd0005
        movl    (%rdi), %eax
        movl    %eax, (%rdi)
debug_data_1:
        movb    $1, 3(%rdi)
debug_data_2:
        movb    $1, 4(%rdi)
        movw    7(%rdi), %ax
debug_data_3:
        movb    15(%rdi), %al
debug_data_4:
        movb    16(%rdi), %al
        movq    %rax, 3(%rdi)
debug_data_5:
        lock    incl 8(%rdi)
debug_data_6:
        movq    %rsp, %rbx
        leaq    16(%rdi), %rsp
        pushq   %rax
debug_data_7:
        movq    %rbx, %rsp
        movups  %xmm0, 8(%rdi)
debug_data_8:
        set_dr  7, $0
        movl    %eax, (%rdi)
        out     $0x600d
        expect  debug_data
        .long   HIT(debug_data, debug_data_1, 1), HIT(debug_data, debug_data_2, 1)
        .long   HIT(debug_data, debug_data_3, 2), HIT(debug_data, debug_data_4, 2)
        .long   HIT(debug_data, debug_data_5, 3), HIT(debug_data, debug_data_6, 2)
        .long   HIT(debug_data, debug_data_7, 2), HIT(debug_data, debug_data_8, 2)
        .long   0x600d
        end     debug_data, 0, "data breakpoints are not emulated"

/* The same of operands of the x87 and of XSAVE, which only reads and writes what it has to. */
        program debug_data_areas, LONG
        debug_handler debug_data_areas
        set_dr  0, $(DATA + 32)
        set_dr  1, $(DATA + 512)
        set_dr  7, $0x00bb0005
        movl    $DATA, %edi
        fninit
        fildl   34(%rdi)
debug_data_areas_1:
        movl    $2, %eax
        xorl    %edx, %edx
        xsave   (%rdi)
debug_data_areas_2:
        fxsave  (%rdi)
debug_data_areas_3:
        set_dr  7, $0
        fstp    %st(0)
        expect  debug_data_areas
        .long   HIT(debug_data_areas, debug_data_areas_1, 1)
        .long   HIT(debug_data_areas, debug_data_areas_2, 2)
        .long   HIT(debug_data_areas, debug_data_areas_3, 1)
        end     debug_data_areas, 0, "level 0 is emulated, without x87"

/* SDM 3B 17.3.1.1: between two iterations RF is set in the image, after the last it is not. */
        program debug_repeat, LONG
        debug_handler debug_repeat
        cld
        set_dr  0, $(DATA + 2)
        set_dr  1, $(DATA + 0x13)
        set_dr  7, $0x00310005
        movl    $DATA, %edi
        movl    $4, %ecx
debug_repeat_1:
        rep     stosb
        movl    $DATA + 0x10, %esi
        movl    $DATA + 0x20, %edi
        movl    $4, %ecx
        rep     movsb
debug_repeat_2:
        out     %ecx
        set_dr  7, $0
        expect  debug_repeat
        .long   HIT_RF(debug_repeat, debug_repeat_1, 1), HIT(debug_repeat, debug_repeat_2, 2), 0
        end     debug_repeat, 0, "data breakpoints are not emulated"

/* SDM 3B 17.2.4: R/W = 10B with CR4.DE breaks on I/O, after it. */
        program debug_port, LONG
        debug_handler debug_port
        movq    %cr4, %rax
        orl     $8, %eax
        movq    %rax, %cr4
        set_dr  2, $(QUIET + 2)
        set_dr  7, $0x06000010
        outb    %al, $(QUIET + 1)
        outb    %al, $(QUIET + 3)
debug_port_1:
        inb     $(QUIET + 2), %al
debug_port_2:
        movw    $(QUIET + 1), %dx
        outw    %ax, %dx
debug_port_3:
        incl    %edx
        movl    $DATA, %esi
        outsb
debug_port_4:
        set_dr  7, $0
        movq    %dr4, %rax /* CR4.DE: no name of DR6 */
        expect  debug_port
        .long   HIT(debug_port, debug_port_1, 4), HIT(debug_port, debug_port_2, 4)
        .long   HIT(debug_port, debug_port_3, 4), HIT(debug_port, debug_port_4, 4)
        .long   VECTOR_TAG | 6, LOST_TAG | 6
        end     debug_port, 0, "breakpoints on I/O are not emulated"

/* SDM 3B 17.2.4, 17.3.1.3: general detect is a fault, and clears GD. 17.2.2: without CR4.DE DR4 and
 * DR5 are DR6 and DR7. Reserved bits read as they must; the upper halves are #GP. */
        program debug_detect, LONG
        debug_handler debug_detect
        set_dr  7, $0x2000
debug_detect_1:
        movq    %dr0, %rbx
        movq    %dr5, %rax
        OUT
        movl    $-1, %eax
        movq    %rax, %dr6
        movq    %dr4, %rax
        OUT
        xorl    %eax, %eax
        movq    %rax, %dr4
        movq    %dr6, %rax
        OUT
        movl    $0xd000, %eax
        movq    %rax, %dr7
        movq    %dr7, %rax
        OUT
        movq    $-1, %rax
        movq    %rax, %dr0
        resume64 1f
        movq    %rax, %dr6
1:      resume64 1f
        movq    %rax, %dr7
1:      movq    %dr0, %rbx
        out64   %rbx
        expect  debug_detect
        .long   HIT_RF(debug_detect, debug_detect_1, 0x2000), 0x400, 0xffffefff, 0xffff0ff0, 0x400
        .long   VECTOR_TAG | 13, CODE_TAG, VECTOR_TAG | 13, CODE_TAG, 0xffffffff, 0xffffffff
        end     debug_detect, 0, "the image of a general detect fault has no RF"

/* SDM 3B 17.3.1.4: not after the POPF that sets TF, but after the one that clears it; after each
 * iteration; INT n clears TF. 3A 6.8.3: not after MOV SS. */
        program debug_step, LONG
        debug_handler debug_step
        set_tf
        nop
debug_step_1:
        movl    $KERNEL_SS, %ecx
debug_step_2:
        movl    %ecx, %ss
        nop
debug_step_3:
        movl    $2, %ecx
debug_step_4:
        movl    $DATA, %edi
debug_step_5:
        rep     stosb
debug_step_6:
        int     $0x42
        sti
debug_step_7:
        cli
debug_step_8:
        pushfq
debug_step_9:
        andl    $~0x100, (%rsp)
debug_step_10:
        popfq
debug_step_11:
        nop
        out     $0x600d
        expect  debug_step
        .long   HIT(debug_step, debug_step_1, BS), HIT(debug_step, debug_step_2, BS)
        .long   HIT(debug_step, debug_step_3, BS), HIT(debug_step, debug_step_4, BS)
        .long   HIT(debug_step, debug_step_5, BS), HIT_RF(debug_step, debug_step_5, BS)
        .long   HIT(debug_step, debug_step_6, BS), VECTOR_TAG | 0x42
        .long   HIT(debug_step, debug_step_7, BS), HIT(debug_step, debug_step_8, BS)
        .long   HIT(debug_step, debug_step_9, BS), HIT(debug_step, debug_step_10, BS)
        .long   HIT(debug_step, debug_step_11, BS), 0x600d
        end     debug_step, 0, "level 0 is emulated, without INT n under TF"

/* SDM 2A INT n: INT1 is an event of its own, which leaves DR6 alone. */
        program debug_int1, LONG
        debug_handler debug_int1
        .byte   0xf1
debug_int1_1:
        set_tf
        .byte   0xf1
debug_int1_2:
        nop
debug_int1_3:
        hlt     /* ended by its own trap */
debug_int1_4:
        pushfq
debug_int1_5:
        andl    $~0x100, (%rsp)
debug_int1_6:
        popfq
debug_int1_7:
        out     $0x600d
        expect  debug_int1
        .long   HIT(debug_int1, debug_int1_1, 0), HIT(debug_int1, debug_int1_2, 0)
        .long   HIT(debug_int1, debug_int1_3, BS), HIT(debug_int1, debug_int1_4, BS)
        .long   HIT(debug_int1, debug_int1_5, BS), HIT(debug_int1, debug_int1_6, BS)
        .long   HIT(debug_int1, debug_int1_7, BS), 0x600d
        end     debug_int1, 0, "level 0 is emulated, without INT1"

/* SDM 3A 6.8.3: after MOV SS and POP SS an instruction breakpoint is passed over, data breakpoints
 * wait for the next instruction; when that raises, they come at the handler. Not after LSS. AMD's
 * processors do take the instruction breakpoint: on Intel's the program reports what the handler
 * would. */
        program debug_shadow, LONG
        debug_handler debug_shadow
        movl    $KERNEL_SS, DATA
        movl    $STACK, DATA + 0x10
        movl    $KERNEL_SS, DATA + 0x14
        set_dr  0, $DATA
        set_dr  1, $A(debug_shadow_2)
        set_dr  2, $A(debug_shadow_3)
        set_dr  7, $0x00030015
        movw    DATA, %ss
        nop
debug_shadow_1:
        movw    DATA, %ss
        int3
        movw    DATA, %ss
        .byte   0xf1    /* one #DB for both */
debug_shadow_8:
        xorl    %eax, %eax
        cpuid
        cmpl    $0x68747541, %ebx /* "Auth" */
        je      1f
        out     $AT(debug_shadow, debug_shadow_2)
        out     $2
        out     $0
1:      movl    $KERNEL_SS, %ecx
        movl    %ecx, %ss
debug_shadow_2:
        nop
        lss     DATA + 0x10, %esp
debug_shadow_3:
        nop
        set_dr  7, $0
        set_tf  /* the second of two shadows is none */
        movl    %ecx, %ss
        movl    %ecx, %ss
debug_shadow_4:
        pushfq
debug_shadow_5:
        andl    $~0x100, (%rsp)
debug_shadow_6:
        popfq
debug_shadow_7:
        out     $0x600d
        expect  debug_shadow
        .long   HIT(debug_shadow, debug_shadow_1, 1), KERNEL + 3 * 16 - CODE, 1, 0, VECTOR_TAG | 3
        .long   HIT(debug_shadow, debug_shadow_8, 1), HIT(debug_shadow, debug_shadow_2, 2)
        .long   HIT(debug_shadow, debug_shadow_3, 4), HIT(debug_shadow, debug_shadow_4, BS)
        .long   HIT(debug_shadow, debug_shadow_5, BS), HIT(debug_shadow, debug_shadow_6, BS)
        .long   HIT(debug_shadow, debug_shadow_7, BS), 0x600d
        end     debug_shadow, 0, "level 0 is emulated, without INT3 at level 0"

/* SDM 3B 17.4.3: with BTF only taken branches are trapped, and the #DB clears BTF. */
        program debug_branch, LONG
        debug_handler debug_branch
        movl    $0x1d9, %ecx
        movl    $2, %eax
        xorl    %edx, %edx
        wrmsr
        rdmsr
        OUT
        set_tf
        nop
        cmpl    %eax, %eax
        jne     1f
        call    debug_branch_1
1:      ud2
debug_branch_1:
        pushfq
debug_branch_2:
        andl    $~0x100, (%rsp)
debug_branch_3:
        popfq
debug_branch_4:
        rdmsr
        OUT
        expect  debug_branch
        .long   2, HIT(debug_branch, debug_branch_1, BS), HIT(debug_branch, debug_branch_2, BS)
        .long   HIT(debug_branch, debug_branch_3, BS), HIT(debug_branch, debug_branch_4, BS), 0
        end     debug_branch, 0, "IA32_DEBUGCTL.BTF is ignored"

/* SYSCALL and SYSRET are trapped after by the TF that they load: with TF in FMASK the kernel sees no
 * #DB, and the one of the SYSCALL comes after the SYSRET. SDM 2B SYSCALL; 3B 17.3.1.4. */
        program debug_syscall, LONG
        debug_handler debug_syscall
        user_pages
        movl    $0xc0000081, %ecx
        xorl    %eax, %eax
        movl    $(USER_CS32 << 16 | KERNEL_CS), %edx
        wrmsr
        movl    $0xc0000082, %ecx
        xorl    %edx, %edx
        movl    $A(debug_syscall_kernel), %eax
        wrmsr
        movl    $0xc0000084, %ecx
        movl    $0x100, %eax
        wrmsr
        to_user USER_CS, 1f
debug_syscall_kernel:
        nop
        sysretq
1:      set_tf
        nop
debug_syscall_1:
        syscall
debug_syscall_2:
        nop
debug_syscall_3:
        pushfq
debug_syscall_4:
        andl    $~0x100, (%rsp)
debug_syscall_5:
        popfq
debug_syscall_6:
        back_to 2f
2:      expect  debug_syscall
        .long   HIT(debug_syscall, debug_syscall_1, BS), HIT(debug_syscall, debug_syscall_2, BS)
        .long   HIT(debug_syscall, debug_syscall_3, BS), HIT(debug_syscall, debug_syscall_4, BS)
        .long   HIT(debug_syscall, debug_syscall_5, BS), HIT(debug_syscall, debug_syscall_6, BS)
        .long   VECTOR_TAG | 0x90
        end     debug_syscall, 0, "SYSRET is not emulated"

/* 32-bit code finds its breakpoints by linear address: base and offset. */
        program debug_32, P32
        movl    $A(1f), %eax
        movl    %eax, %dr0
        movl    $(DATA + 4), %eax
        movl    %eax, %dr1
        movl    $0x00d00005, %eax /* execute; write, 4 bytes */
        movl    %eax, %dr7
        movw    $LIMITED, %ax
        movw    %ax, %es
        resume32 2f
1:      ud2
2:      movl    %dr6, %eax
        OUT
        movl    $7, %es:4
3:      movl    %dr6, %eax
        OUT
        movl    FRAME_RIP, %eax
        subl    $A(3b), %eax
        OUT
        expect  debug_32
        .long   VECTOR_TAG | 1, 0xffff0ff1, VECTOR_TAG | 1, 0xffff0ff2, 0
        end     debug_32, 0, "protected mode is emulated, without IRET"

/* SDM 3B 17.3.1.4, 3A 6.8.3: single steps as a user sees them. */
        program u64_debug_step, USER64
        cld
        set_tf
        nop
        movl    %ss, %ecx
        movl    %ecx, %ss
        nop
        movl    $3, %ecx
        movl    $DATA, %edi
1:      rep     stosb
2:      pushfq
        andl    $~0x100, (%rsp)
        popfq
        movq    FRAME_RIP, %rax
        subq    $A(1b), %rax
        OUT
        expect  u64_debug_step
        .rept   11
        .long   VECTOR_TAG | 1
        .endr
        .long   11
        end     u64_debug_step
