/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Accesses and encodings that a processor refuses: alignment, addresses that are not canonical,
 * undefined and over-long instructions, LOCK, protection keys, UMIP. Included in
 * engines_programs.S.
 */

#define UD (VECTOR_TAG | 6)
#define GP VECTOR_TAG | 13, CODE_TAG
#define STACK_FAULT VECTOR_TAG | 12, CODE_TAG
#define ALIGNMENT VECTOR_TAG | 17, CODE_TAG

/* SDM 3A 6.15 (#AC), table 6-7: with CR0.AM, RFLAGS.AC and CPL 3. Address faults come first, and it
 * comes before the page is looked at. */
        program u64_alignment, USER64
        cld
        movl    $DATA, %ebx
        fninit
        fldz
        pushfq
        orl     $0x40000, (%rsp)
        popfq
        movl    4(%rbx), %eax
        movb    3(%rbx), %al
        resume64 1f
        movw    1(%rbx), %ax
1:      resume64 1f
        movl    2(%rbx), %eax
1:      resume64 1f
        movl    %eax, 2(%rbx)
1:      resume64 1f
        movq    4(%rbx), %rax
1:      movq    8(%rbx), %rax
        resume64 1f
        lock    incl 6(%rbx)
1:      movups  16(%rbx), %xmm0
        resume64 1f
        movups  8(%rbx), %xmm0
1:      resume64 1f
        movaps  8(%rbx), %xmm0 /* always #GP */
1:      resume64 1f
        movsd   12(%rbx), %xmm0
1:      fstl    8(%rbx)
        resume64 1f
        fstl    4(%rbx)
1:      movq    %rsp, %rsi
        leaq    0x104(%rbx), %rsp
        resume64 1f
        pushq   %rax
1:      leaq    0x104(%rbx), %rsp
        resume64 1f
        popq    %rax
1:      movq    %rsi, %rsp
        leaq    2(%rbx), %rdi
        movq    %rbx, %rsi
        movl    $2, %ecx
        resume64 1f
        rep     movsl
1:      out     %ecx
        movabsq $0x800000000001, %rdi
        resume64 1f
        movw    (%rdi), %ax
1:      movl    $RAM_SIZE + 0x10000001, %edi /* nothing there */
        resume64 1f
        movw    (%rdi), %ax
1:      pushfq
        movl    (%rsp), %eax
        andl    $0x40000, %eax
        OUT
        andl    $~0x40000, (%rsp)
        popfq
        movl    2(%rbx), %eax
        expect  u64_alignment
        .long   ALIGNMENT, ALIGNMENT, ALIGNMENT, ALIGNMENT, ALIGNMENT, ALIGNMENT
        .long   GP, ALIGNMENT, ALIGNMENT, ALIGNMENT, ALIGNMENT, ALIGNMENT, 2, GP, ALIGNMENT
        .long   0x40000
        end     u64_alignment

/* Not without CR0.AM, and not below level 3, where AC means something else (SDM 3A 4.6.1). */
        program alignment_off, LONG
        pushfq
        orl     $0x40000, (%rsp)
        popfq
        movl    DATA + 2, %eax
        user_pages
        movq    %cr0, %rax
        andl    $~0x40000, %eax
        movq    %rax, %cr0
        to_user USER_CS, 1f
1:      pushfq
        orl     $0x40000, (%rsp)
        popfq
        movl    DATA + 2, %eax
        back_to 2f
2:      movq    %cr0, %rax
        orl     $0x40000, %eax
        movq    %rax, %cr0
        to_user USER_CS, 1f
1:      pushfq
        orl     $0x40000, (%rsp)
        popfq
        resume64 1f
        movl    DATA + 2, %eax
1:      back_to 2f
2:      expect  alignment_off
        .long   VECTOR_TAG | 0x90, ALIGNMENT, VECTOR_TAG | 0x90
        end     alignment_off, 0, "level 0 runs at level 3 of the host"

/* SDM 1 3.3.7.1: behind the last address of the lower half RIP is not canonical, which is #GP(0) there,
 * and for an instruction whose bytes go on there #GP(0) where it begins. */
        .macro  at_canonical_end distance
        leaq    0x1000 - \distance(%rbx), %rdi
        resume64 1f
        jmp     *%rdi
1:      movq    FRAME_RIP, %rdi
        out64   %rdi
        .endm
        program canonical_end, LONG
        movq    $(PDPT | 7), PML4 + 255 * 8
        movq    $(PD | 7), PDPT + 511 * 8
        movq    $(PT | 7), PD + 511 * 8
        movq    $(FREE | 3), PT + 511 * 8
        movabsq $0x7ffffffff000, %rbx
        movl    $0x90909090, 0xffc(%rbx)
        at_canonical_end 1
        at_canonical_end 4
        movl    $0x001f0f90, 0xffc(%rbx) /* NOP of three bytes */
        at_canonical_end 3
        movb    $0x48, 0xfff(%rbx)
        at_canonical_end 1
        movl    $0x00eb9090, 0xffc(%rbx) /* JMP to the next instruction */
        at_canonical_end 2
        movb    $0xc3, (%rbx)
        movb    $0xe8, 0xffb(%rbx) /* CALL of what returns */
        movl    $-0x1000, 0xffc(%rbx)
        at_canonical_end 5
        expect  canonical_end
        .long   GP, 0, 0x8000, GP, 0, 0x8000, GP, 0, 0x8000, GP, 0xffffffff, 0x7fff
        .long   GP, 0xfffffffe, 0x7fff, GP, 0xfffff000, 0x7fff
        end     canonical_end

/* SDM 1 3.3.7.1; 3A 6.15: #SS for what goes by RSP or RBP, #GP else; RIP's are #GP at the branch. */
        program u64_not_canonical, USER64
        movabsq $0x800000000000, %rbx
        movq    %rbx, %rbp
        resume64 1f
        movl    (%rbx), %eax
1:      resume64 1f
        movl    %eax, (%rbx)
1:      resume64 1f
        movl    (%rbp), %eax
1:      resume64 1f
        movl    %ds:(%rbp), %eax /* DS makes no difference to 64-bit mode */
1:      resume64 1f
        lock    incl (%rbp)
1:      resume64 1f
        movups  (%rbx), %xmm0
1:      movq    %rsp, %rsi
        leaq    0x1000(%rbx), %rsp
        resume64 1f
        pushq   %rax
1:      resume64 1f
        popq    %rax
1:      resume64 1f
        call    1f
1:      resume64 1f
        ret
1:      movq    %rsi, %rsp
        resume64 1f
2:      jmp     *%rbx
1:      movq    FRAME_RIP, %rax
        subq    $A(2b), %rax
        OUT
        resume64 1f
        call    *%rbx
1:      pushq   %rbx
        resume64 1f
        ret
1:      popq    %rax
        movq    %rsp, %rax
        subq    %rsi, %rax
        OUT
        leaq    (%rbx), %rdi
        prefetcht0 (%rbx)
        movl    $1, %ecx
        movl    $DATA, %esi
        cld
        resume64 1f
        rep     movsb
1:      out     %ecx
        movq    %rbx, %rsi
        resume64 1f
        lodsb
1:      movabsq $0xffff7fffffffffff, %rbx
        resume64 1f
        movb    (%rbx), %al
1:      expect  u64_not_canonical
        .long   GP, GP, STACK_FAULT, STACK_FAULT, STACK_FAULT, GP
        .long   STACK_FAULT, STACK_FAULT, STACK_FAULT, STACK_FAULT
        .long   GP, 0, GP, GP, 0, GP, 1, GP, GP
        end     u64_not_canonical

/* The same of what level 0 loads: SDM 2A LGDT, LIDT, 2B WRFSBASE, WRMSR, IRET, 2A INVLPG (nothing),
 * INVPCID, and of a handler's address (#GP). */
        program not_canonical_loads, LONG
        movq    %cr4, %rax
        orl     $0x10000, %eax
        movq    %rax, %cr4
        movabsq $0x800000000000, %rbx
        movw    $0xff, DATA
        movq    %rbx, DATA + 2
        resume64 1f
        lgdt    DATA
1:      resume64 1f
        lidt    DATA
1:      resume64 1f
        wrfsbase %rbx
1:      wrfsbase %ebx
        resume64 1f
        wrgsbase %rbx
1:      xorl    %eax, %eax
        movl    $0x8000, %edx
        .irp    msr, 0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102, 0x175, 0x176
        movl    $\msr, %ecx
        resume64 1f
        wrmsr
1:
        .endr
        invlpg  (%rbx)
        movl    $2, DATA
        movl    $0, DATA + 4
        movq    %rbx, DATA + 8
        movl    $0, DATA
        xorl    %ecx, %ecx
        resume64 1f
        invpcid DATA, %rcx
1:      movq    %rsp, %rsi
        pushq   $KERNEL_SS
        pushq   %rsi
        pushfq
        pushq   $KERNEL_CS
        pushq   %rbx
        resume64 1f
2:      iretq
1:      movq    FRAME_RIP, %rax
        subq    $A(2b), %rax
        OUT
        movq    %rsi, %rsp
        movl    $0x8000, IDT + 0x42 * 16 + 8
        resume64 1f
        int     $0x42
1:      leaq    0x1000(%rbx), %rsp
        movq    $0, IDT + 12 * 16 + 8
        movb    $1, IDT + 12 * 16 + 4 /* its own stack, since this one is none */
        resume64 1f
        pushq   %rax
1:      expect  not_canonical_loads
        .rept   4
        .long   GP
        .endr
        .rept   7
        .long   GP
        .endr
        .long   GP, GP, 0, GP, STACK_FAULT
        end     not_canonical_loads, 0, "INVPCID is not emulated"

/* SDM 2 (#UD), 2A 2.1.1, 3A 8.1.2.2: encodings of eight bytes at most that mean nothing, LOCK where
 * it may not be, and what it may be on. 0: executes. */
        program u64_undefined, USER64
        cld
        movl    $A(2f), %r14d
1:      movl    %r14d, %esi
        movl    $DATA, %edi
        movl    %edi, %r8d
        movsq
        addl    $8, %r14d
        movl    $0xe1ff4190, (%rdi) /* nop; jmp *%r9 */
        movl    $A(4f), %r9d
        movl    $(DATA + 0x800), %ebx
        xorl    %eax, %eax
        resume64 4f
        jmp     *%r8
4:      cmpq    $0, RESUME
        je      3f
        out     $0
        movq    $0, RESUME
3:      cmpl    $A(5f), %r14d
        jb      1b
        jmp     6f
        .macro  bytes b:vararg
7:      .byte   \b
        .fill   8 - (. - 7b), 1, 0x90
        .endm
        .balign 8
2:      bytes   0xf0, 0x90
        bytes   0xf0, 0x89, 0x03            /* lock mov %eax, (%rbx) */
        bytes   0xf0, 0x01, 0xc3            /* lock add %eax, %ebx */
        bytes   0xf0, 0x03, 0x03            /* lock add (%rbx), %eax */
        bytes   0xf0, 0x39, 0x03            /* lock cmp %eax, (%rbx) */
        bytes   0xf0, 0x0f, 0xa3, 0x03      /* lock bt */
        bytes   0xf0, 0x0f, 0xaf, 0x03      /* lock imul */
        bytes   0xf0, 0x87, 0xc3            /* lock xchg %eax, %ebx */
        bytes   0xf0, 0xff, 0xc3            /* lock inc %ebx */
        bytes   0xf0, 0xff, 0x33            /* lock push (%rbx) */
        bytes   0xf0, 0xc1, 0x23, 0x01      /* lock shl */
        bytes   0xf0, 0x8d, 0x03            /* lock lea */
        bytes   0xf0, 0xc5, 0xf8, 0x77      /* lock vzeroupper */
        bytes   0xf0, 0xa4                  /* lock movsb */
        bytes   0xf0, 0x0f, 0xb1, 0xc3      /* lock cmpxchg %eax, %ebx */
        bytes   0xf0, 0x01, 0x03            /* lock add %eax, (%rbx) */
        bytes   0xf0, 0x0f, 0xab, 0x03      /* lock bts */
        bytes   0xf0, 0x87, 0x03            /* lock xchg */
        bytes   0xf0, 0x0f, 0xc7, 0x0b      /* lock cmpxchg8b */
        bytes   0xf0, 0xf7, 0x13            /* lock not */
        bytes   0xf0, 0x0f, 0xc1, 0x03      /* lock xadd */
        bytes   0xf0, 0x0f, 0xba, 0x33, 1   /* lock btr */
        bytes   0x0f, 0x0b                  /* ud2 */
        bytes   0x0f, 0xb9, 0xc0            /* ud1 */
        bytes   0x0f, 0xff, 0xc0            /* ud0 */
        bytes   0x06                        /* push %es and others of old */
        bytes   0x0e
        bytes   0x27
        bytes   0x37
        bytes   0x60
        bytes   0x82, 0xc0, 0x01
        bytes   0xce
        bytes   0xd4, 0x0a
        bytes   0xd6
        bytes   0xea, 0, 0, 0, 0, 0, 0
        bytes   0xc6, 0xc8, 0x00            /* holes in groups */
        bytes   0xfe, 0xd0
        bytes   0xff, 0xf8
        bytes   0xff, 0xd8                  /* call far %eax */
        bytes   0x0f, 0xba, 0xc0, 0x01
        bytes   0x0f, 0x71, 0xc0, 0x01
        bytes   0x0f, 0xc7, 0xc8            /* cmpxchg8b %eax */
        bytes   0x8d, 0xc0                  /* lea %eax */
        bytes   0x8c, 0xf8                  /* segment register 7 */
        bytes   0x8e, 0xc8                  /* mov %cs */
        bytes   0x8e, 0xf0                  /* segment register 6 */
        bytes   0x0f, 0x04                  /* holes in the map */
        bytes   0x0f, 0x0a
        bytes   0x0f, 0x24, 0xc0
        bytes   0x0f, 0x36
        bytes   0x0f, 0xa6, 0xc0
        bytes   0xf3, 0x0f, 0xae, 0xe8      /* incsspd, without shadow stacks */
        bytes   0x66, 0xc5, 0xf8, 0x77      /* prefixes before VEX */
        bytes   0x48, 0xc5, 0xf8, 0x77
        bytes   0xf3, 0xc5, 0xf8, 0x77
        bytes   0x0f, 0x01, 0xca            /* clac, above level 0 */
        bytes   0xf4                        /* of level 0 */
        bytes   0x0f, 0x20, 0xd8
        bytes   0x0f, 0x23, 0xc0
        bytes   0x0f, 0x01, 0x13
        bytes   0x0f, 0x30
        bytes   0x0f, 0x06
        bytes   0x0f, 0x09
        bytes   0xf3, 0x0f, 0x09
5:
6:      expect  u64_undefined
        .rept   15
        .long   UD
        .endr
        .long   0, 0, 0, 0, 0, 0, 0
        .rept   34
        .long   UD
        .endr
        .rept   8
        .long   GP
        .endr
        end     u64_undefined, NEEDS_AVX

/* SDM 2A 2.3.11: fifteen bytes at most, prefixes and all; more is #GP, whatever is in them. */
        program u64_length, USER64
        .fill   14, 1, 0x66
        nop
        .fill   8, 1, 0x3e
        movl    $0x12345678, %ecx
        out     %ecx
        resume64 1f
2:      .fill   15, 1, 0x66
        nop
1:      movq    FRAME_RIP, %rax
        subq    $A(2b), %rax
        OUT
        resume64 1f
        .fill   11, 1, 0x3e
        movl    $0x12345678, %ecx
1:      resume64 1f
        .fill   15, 1, 0x2e
        ud2
1:      expect  u64_length
        .long   0x12345678, GP, 0, GP, GP
        end     u64_length

/* SDM 3A 5.3: with a limit of 4 GiB an access that runs over the end of the segment is a fault of the
 * segment (the manual lets processors wrap; none does here), as one in reach is of the page. */
        program u32_limit_wrap, USER32
        movl    %ss, %eax
        movl    %eax, %ds
        movl    $0xfffffffe, %ebx
        resume32 1f
        movl    (%ebx), %eax
1:      resume32 1f
        movl    %eax, (%ebx)
1:      resume32 1f
        movw    (%ebx), %ax
1:      incl    %ebx
        resume32 1f
        movw    (%ebx), %ax
1:      resume32 1f
        movb    (%ebx), %al
1:      movl    %esp, %esi
        movl    $2, %esp
        resume32 1f
        pushl   %eax
1:      movl    %esi, %esp
        expect  u32_limit_wrap
        .long   GP, GP, VECTOR_TAG | 14, CODE_TAG | 4, 0xfffffffe, GP
        .long   VECTOR_TAG | 14, CODE_TAG | 4, 0xffffffff, STACK_FAULT
        end     u32_limit_wrap, 0, "compatibility mode is emulated, without segment limits"

/* SDM 2A LAHF, 2B SAHF: of SF, ZF, AF, PF and CF alone; bit 1 of AH is 1, bits 3 and 5 are 0. */
        program u64_lahf, USER64
        movl    $0x7fffffff, %ebx
        addl    $1, %ebx /* OF */
        movb    $0xff, %ah
        sahf
        flagsq
        xorl    %eax, %eax
        sahf
        movl    $0, %eax
        lahf
        movzbl  %ah, %eax
        OUT
        expect  u64_lahf
        .long   0x8d5, 2
        end     u64_lahf

/* SDM 3A 4.6.2, 4.7: rights of a user page by its key, for every level; error code bit 5. PKRU is a
 * component of XSAVE. RDPKRU and WRPKRU want ECX = 0, and EDX = 0. */
        program protection_keys, LONG
        xorl    %ecx, %ecx
        resume64 1f
        rdpkru
1:      movq    %cr4, %rax
        orl     $0x400000, %eax
        movq    %rax, %cr4
        movabsq $(3 << 59 | 7), %rax /* key 3, the user's */
        addq    $FREE, %rax
        movq    %rax, PT + FREE / 4096 * 8
        invlpg  FREE
        .macro  pkru value
        movl    $\value, %eax
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        wrpkru
        .endm
        movl    $5, FREE
        pkru    0x40 /* AD of key 3 */
        resume64 1f
        movl    FREE, %ebx
1:      resume64 1f
        movl    $6, FREE
1:      movl    $PT, %esi /* the kernel's own pages have no keys */
        movl    (%rsi), %eax
        pkru    0x80 /* WD */
        out     FREE
        resume64 1f
        movl    $6, FREE
1:      movq    %cr0, %rax
        andl    $~0x10000, %eax
        movq    %rax, %cr0
        movl    $6, FREE /* without WP the kernel may */
        orl     $0x10000, %eax
        movq    %rax, %cr0
        out     FREE
        resume64 1f
        movl    $6, FREE
1:      pkru    0x40
        movb    $0xc3, %al
        pkru    0
        movb    $0xc3, FREE
        pkru    0x55555554
        movl    $FREE, %eax
        call    *%rax /* fetches have no keys */
        rdpkru
        OUT
        out     %edx
        movl    $1, %ecx
        resume64 1f
        rdpkru
1:      xorl    %ecx, %ecx
        movl    $1, %edx
        resume64 1f
        wrpkru
1:      xorl    %ecx, %ecx
        xgetbv
        orl     $0x200, %eax
        xsetbv
        movl    $0x200, %eax
        xorl    %edx, %edx
        movl    $DATA, %ebx
        movq    $0, 512(%rbx)
        movq    $0, 520(%rbx)
        movq    $0, 528(%rbx)
        xsavec  (%rbx)
        out     512(%rbx)
        out     576(%rbx)
        movl    $0xfc, 576(%rbx)
        movl    $0x200, %eax
        xorl    %edx, %edx
        xrstor  (%rbx)
        resume64 1f
        movl    FREE, %ecx
1:      movl    $0, 512(%rbx) /* not in the area: initial */
        movl    $0x200, %eax
        xorl    %edx, %edx
        xrstor  (%rbx)
        xorl    %ecx, %ecx
        rdpkru
        OUT
        movl    $7, %eax
        cpuid
        movl    %ecx, %eax
        andl    $0x18, %eax
        OUT
        expect  protection_keys
        .long   UD, VECTOR_TAG | 14, CODE_TAG | 0x21, FREE, VECTOR_TAG | 14, CODE_TAG | 0x23, FREE
        .long   5, VECTOR_TAG | 14, CODE_TAG | 0x23, FREE, 6, VECTOR_TAG | 14, CODE_TAG | 0x23, FREE
        .long   0x55555554, 0, GP, GP, 0x200, 0x55555554
        .long   VECTOR_TAG | 14, CODE_TAG | 0x21, FREE, 0, 0x18
        end     protection_keys, SOFT_ONLY

/* SDM 3A 2.5 (UMIP): at level 3 these are #GP(0); not at level 0. */
        program umip, LONG
        movq    %cr4, %rax
        orl     $0x800, %eax
        movq    %rax, %cr4
        sgdt    DATA
        out     DATA + 2
        user_pages
        to_user USER_CS, 1f
1:      resume64 1f
        sgdt    DATA
1:      resume64 1f
        sidt    DATA
1:      resume64 1f
        sldt    %eax
1:      resume64 1f
        smsw    %eax
1:      resume64 1f
        smsw    DATA
1:      resume64 1f
        str     DATA
1:      back_to 2f
2:      movq    %cr4, %rax
        andl    $~0x800, %eax
        movq    %rax, %cr4
        to_user USER_CS, 1f
1:      sgdt    DATA
        out     DATA + 2
        str     %eax
        OUT
        back_to 2f
2:      expect  umip
        .long   GDT, GP, GP, GP, GP, GP, GP, VECTOR_TAG | 0x90
        .long   GDT, TSS_SELECTOR, VECTOR_TAG | 0x90
        end     umip, 0, "SGDT at level 3 is refused without UMIP too"

/* SDM 2B RDPMC, RDTSC: CR4.PCE lets level 3 read counters, of which there are none; CR4.TSD keeps
 * RDTSC and RDTSCP from it. RDPID needs no right. */
        program counters, LONG
        movl    $77, %eax
        xorl    %edx, %edx
        movl    $0xc0000103, %ecx
        wrmsr
        user_pages
        movq    %cr4, %rax
        orl     $0x104, %eax
        movq    %rax, %cr4
        xorl    %ecx, %ecx
        resume64 1f
        rdpmc
1:      rdtscp
        out     %ecx
        to_user USER_CS, 1f
1:      resume64 1f
        rdtsc
1:      resume64 1f
        rdtscp
1:      xorl    %ecx, %ecx
        resume64 1f
        rdpmc
1:      resume64 1f
        .byte   0x0f, 0x01, 0xfd /* RDPRU, AMD, is not offered */
1:      rdpid   %rbx
        out     %ebx
        back_to 2f
2:      expect  counters
        .long   GP, 77, GP, GP, GP, UD, 77, VECTOR_TAG | 0x90
        end     counters, SOFT_ONLY
