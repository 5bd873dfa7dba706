/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Where things are in the guest of engines.c, for its programs and tables alike (so macros: the
 * assembler reads this too). CODE to HOST_END is also mapped for programs on the host's processor,
 * which lets nobody map below 64 KiB.
 */
#ifndef SKEP_TESTS_ISA_ENGINES_H
#define SKEP_TESTS_ISA_ENGINES_H

#define GDT       0x1000
#define IDT       0x2000
#define TSS       0x3000
#define KERNEL    0x4000 /* 16 bytes a vector, then what they have in common */
#define STACK0    0x8000 /* ends of stacks: from the TSS, of programs at CPL 0, … */
#define STACK     0xa000
#define STACK_IST 0xc000
#define SIPI_PAGE 0xf000
#define CODE      0x10000
#define VARS      0x1f000
#define DATA      0x20000
#define STACK3    0x3f000
#define HOST_END  0x40000
#define PML4      0x100000
#define PDPT      0x101000
#define PD        0x102000
#define PT        0x103000 /* the first 2 MiB, page by page; PAE paging uses it too */
#define PD32      0x104000
#define PT32      0x105000
#define PDPT32    0x106000
#define FREE      0x180000 /* no table, nothing in it; one page as good as the other */
#define MMIO_PAGE 0x1f0000 /* mapped to MMIO */
#define APIC_PAGE 0x1f1000 /* mapped to the local APIC */
#define RAM_SIZE  0x800000
#define MMIO      0x10000000
#define HIGH      0x100000000 /* added to MMIO: the same once more */

/* Variables. Programs in 16-bit segments, whose base is CODE, use V16(). */
#define RESUME       (VARS + 0x00) /* where the handler of the next exception returns to */
#define BACK         (VARS + 0x08) /* where INT 90H goes on, at CPL 0 */
#define FRAME_RIP    (VARS + 0x10) /* of the last exception or interrupt */
#define FRAME_CS     (VARS + 0x18)
#define FRAME_FLAGS  (VARS + 0x20)
#define FRAME_RSP    (VARS + 0x28)
#define FRAME_SS     (VARS + 0x30)
#define V16(address) ((address)-CODE)

/* Selectors. */
#define KERNEL_CS    0x08
#define KERNEL_SS    0x10
#define USER_CS32    0x1b
#define USER_SS      0x23
#define USER_CS      0x2b
#define TSS_SELECTOR 0x30
#define KERNEL_CS32  0x40
#define CODE16       0x48 /* base CODE */
#define DATA16       0x50 /* base CODE */
#define STACK16      0x58 /* base 0, 64 KiB, 16 bits */
#define LIMITED      0x60 /* base DATA, limit FFH */
#define EXPAND_DOWN  0x68 /* base DATA, above FFH only */
#define NOT_PRESENT  0x70
#define EXECUTE_ONLY 0x78
#define READ_ONLY    0x80 /* base DATA */
#define STACK64K     0x88 /* base 0, 64 KiB, 32 bits */
#define ABSENT_CODE  0x90
#define CONFORMING   0x98
#define LDT_SELECTOR 0xa0 /* at FREE, 16 bytes */
#define CODE_R1      0xa9 /* flat, levels 1 and 2 */
#define DATA_R1      0xb1
#define CODE_R2      0xba
#define DATA_R2      0xc2
#define SPARE        0xc8 /* seven entries of the programs' own */
#define GDT_BYTES    0x100

/* Ports. A report is 4 bytes to REPORT; what the handlers of exceptions report is tagged. */
#define REPORT    0xe0
#define INTERRUPT 0xe4 /* value: the vector to request */
#define START     0xe5 /* value: the vector of a SIPI for processor 1 */
#define END       0xf4
#define DEVICE    0x300 /* 16 ports; every access is reported, see bus_report() */

#define VECTOR_TAG 0xfa000000 /* | vector */
#define CODE_TAG   0xec000000 /* | error code, when there is one; #PF: then CR2 */
#define LOST_TAG   0xdead0000 /* | vector: nobody expected it; the program ends */

/* Kinds of programs: the mode to start in. */
#define REAL   0 /* CS = DS = ES = 1000H */
#define P16    1 /* 16-bit segments based at CODE, no paging */
#define P32    2 /* flat, no paging */
#define LONG   3 /* 64-bit, CPL 0 */
#define USER64 4 /* 64-bit, CPL 3 */
#define USER32 5 /* compatibility mode, CPL 3 */
#define MODES  6

/* Flags. */
#define NEEDS_AVX   1
#define SHUTDOWN    2  /* ends with a triple fault */
#define TWO         4  /* two processors */
#define STATE       8  /* check_state() looks at what comes out */
#define SOFT_ONLY   16 /* of what the KVM engine doesn't offer its guests */
#define NOT_ON_HOST 32 /* needs what an operating system keeps from its users */

#endif
