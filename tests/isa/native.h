/* SPDX-License-Identifier: BSD-2-Clause
 *
 * One instruction with a given state, on the host's own processor (native.c) and in the software
 * processor (machine.c, soft.c). Both see the same linear addresses: an area of scratch memory with
 * a read-only page and guard pages around it.
 */
#ifndef SKEP_TESTS_ISA_NATIVE_H
#define SKEP_TESTS_ISA_NATIVE_H

#include "isa/segments.h"

#include <stdbool.h>
#include <stdint.h>

/* All below 2 GiB, so that code can address them absolutely. */
#define ISA_CODE    UINT64_C(0x13570000) /* where the instruction stands */
#define ISA_SCRATCH UINT64_C(0x25680000) /* after a guard page; then one more guard page */
#define ISA_GS_BASE UINT64_C(0x1230)
#define ISA_STATE   UINT64_C(0x31240000)
enum {
    ISA_PAGE = 4096,
    ISA_WRITABLE_BYTES = 2 * ISA_PAGE, /* of scratch memory */
    ISA_READ_ONLY_BYTES = ISA_PAGE,    /* right behind it */
    ISA_SCRATCH_BYTES = ISA_WRITABLE_BYTES + ISA_READ_ONLY_BYTES,
};

enum { ISA_NO_FAULT = -1 };

/* Outside of 64-bit mode, the lower halves of the first eight registers matter; the others are 0.
 */
struct isa_state {
    uint64_t gpr[16];      /* in the order of enum x86_gpr */
    uint64_t rflags;       /* arithmetic flags and DF */
    uint64_t fault_offset; /* of the instruction that faulted, from ISA_CODE; 0 without a fault */
    uint64_t unused[6];
    uint8_t vector[16][32];
    uint8_t fx[512]; /* FXSAVE64 image: x87 and MXCSR; XMM are in `vector` */
    int fault;       /* vector of the exception, or ISA_NO_FAULT */
    uint32_t error_code;
    uint64_t fault_address; /* of page faults */
    enum isa_mode mode;
};

/* Forgets what has no meaning in the state's mode. */
void isa_state_narrow(struct isa_state *state);

/* Maps the areas and installs signal handlers. False: the host won't let us. */
bool native_open(void);
/* Whether the host lets a process run code of that mode. */
bool native_offers(enum isa_mode mode);
uint8_t *native_scratch(void);
/* All of scratch memory, the read-only page too. */
bool native_fill(const uint8_t bytes[ISA_SCRATCH_BYTES]);
bool native_has_avx(void);

/* Executes the instruction with the state, whose mode is offered, and replaces the state by what
 * comes out of it. */
void native_run(struct isa_state *state, const uint8_t *bytes, unsigned length);

/* The same in the software processor, in 64-bit mode; `shadow` is its copy of scratch memory. */
struct soft_runner;
struct soft_runner *soft_runner_open(uint8_t *shadow);
void soft_runner_close(struct soft_runner *runner);
struct cpu *soft_runner_cpu(struct soft_runner *runner);
/* False: no handler offers the instruction; the state is as it was. */
bool soft_run(struct soft_runner *runner, struct isa_state *state, const uint8_t *bytes,
              unsigned length);

#endif
