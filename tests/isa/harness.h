/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A software processor, some RAM and nothing else, for programs in machine code. Physical memory
 * has fixed places for the tables that harness_long_mode and its siblings make; every vector has a
 * handler of one HLT, so the address where the processor halts tells which one was raised.
 */
#ifndef SKEP_TESTS_ISA_HARNESS_H
#define SKEP_TESTS_ISA_HARNESS_H

#include "cpu/soft/core.h"

enum {
    RAM_BYTES = 8 << 20,
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    HANDLERS = 0x4000, /* 16 bytes a vector */
    STACK0 = 0x8000,   /* top of the kernel's stack, that of the TSS too */
    STACK_IST = 0xa000,
    STACK3 = 0xc000, /* top of the user's */
    CODE = 0x10000,
    PML4 = 0x100000,
    PDPT = 0x101000,
    PD = 0x102000,
    PT = 0x103000,        /* maps the first 2 MiB, page by page */
    FREE_PAGE = 0x180000, /* from here on nothing is used */
    MMIO = 0x10000000,    /* the first address behind, mapped by tests */
};

/* Selectors. */
enum {
    KERNEL_CS = 0x08,
    KERNEL_SS = 0x10,
    USER_CS32 = 0x1b,
    USER_SS = 0x23,
    USER_CS = 0x2b,
    TSS_SELECTOR = 0x30,
    KERNEL_CS32 = 0x40,
    GDT_BYTES = 0x48,
};

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX (UINT64_C(1) << 63)

enum { HARNESS_MAX_CPUS = 2 };

struct harness {
    struct soft_system system;
    struct cpu *cpu[HARNESS_MAX_CPUS];
    uint8_t *ram;
    int vector; /* what the interrupt controller has, -1: nothing */
    unsigned acknowledged;
    unsigned wakes; /* how often a processor was told of as one that may have work */
    uint64_t last_mmio, last_mmio_value;
    unsigned mmio_accesses;
    uint8_t ports[0x10000];
};

/* By SKEP_TEST_TRANSLATOR, see options.h. */
struct harness *harness_open(unsigned cpus);
struct harness *harness_open_with(unsigned cpus, struct translator_options translator);
void harness_close(struct harness *h);

void harness_put64(struct harness *h, uint64_t gpa, uint64_t value);
uint64_t harness_get64(const struct harness *h, uint64_t gpa);
uint32_t harness_get32(const struct harness *h, uint64_t gpa);

/* Copies a program of programs.S to CODE. */
void harness_load(struct harness *h, const uint8_t *start, const uint8_t *end);

/* Tables, and a state to start from: 64-bit mode at CODE, CPL 0, interrupts off, the first 2 MiB
 * mapped one to one for all (writable, executable). The others share the tables: 32-bit mode
 * without paging. */
void harness_long_mode(struct harness *h, struct x86_state *state);
void harness_protected_mode(struct harness *h, struct x86_state *state);

/* To level 3, on the user's stack. */
void harness_user(struct x86_state *state);

/* The entry for `linear` below 2 MiB. */
void harness_map(struct harness *h, uint64_t linear, uint64_t gpa, uint64_t flags);

/* Sets the state, runs until HLT or shutdown, gets the state. */
enum cpu_exit harness_run(struct harness *h, struct x86_state *state);

/* The vector whose handler the processor halted in, or -1. */
int harness_vector(const struct x86_state *state);

/* Entry n of the frame that the handler found on its stack: error code (where there is one), RIP,
 * CS, RFLAGS, RSP, SS. */
uint64_t harness_frame(const struct harness *h, const struct x86_state *state, unsigned n);

#define PROGRAM(name)                                                                              \
    extern const uint8_t program_##name[];                                                         \
    extern const uint8_t program_##name##_end[];
#define LOAD(h, name) harness_load(h, program_##name, program_##name##_end)

#endif
