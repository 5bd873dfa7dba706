/* SPDX-License-Identifier: BSD-2-Clause
 *
 * x87, MMX, SSE to AVX2 and the XSAVE family of the software processor, executed by the host's own
 * units: what the rest of cpu/soft calls. Instructions come in through bind_vector (op.h).
 *
 * The contract with the block cache: an op of a vector instruction points (op->aux) into the cpu's
 * pool of host code stubs. The pool is bounded and never frees single stubs. So
 *  - before it decodes a block, the block cache asks vector_wants_flush(); when true it drops all
 *    its blocks first;
 *  - whenever it drops all blocks of a cpu, for whatever reason, it calls vector_flush_stubs();
 *  - a block has at most VECTOR_MAX_BLOCK_OPS instructions. Room for so many stubs is left while
 *    vector_wants_flush() is false, so that bind_vector never fails for want of room.
 *
 * CPUID: offer no more than the host has of x87, MMX, SSE … SSE4.2, AES, PCLMULQDQ, AVX, AVX2, FMA,
 * F16C, SHA, FXSR, XSAVE, XSAVEOPT, XSAVEC, XGETBV_ECX_1, XSAVES. Not FFXSR (80000001H EDX[25]),
 * not MISALIGNSSE (80000001H ECX[7]). CPUID.7.0:EBX[13] (FCS and FDS are deprecated) must be 1.
 * Leaf 0DH: vector_xcr0_supported(), vector_xsave_bytes() and vector_xsave_place(). IA32_XSS
 * (0xda0) reads as 0; writing anything else is #GP(0).
 */
#ifndef SKEP_CPU_SOFT_VECTOR_VECTOR_H
#define SKEP_CPU_SOFT_VECTOR_VECTOR_H

#include "base/error.h"
#include "cpu/state.h"

#include <stdbool.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

struct cpu;

enum { VECTOR_MAX_BLOCK_OPS = 1024 };

/* Makes the stub pool of `cpu` and installs the process's SIGFPE handler (once; faults that are
 * not of a stub go to the handler that was there before). State is as after RESET. */
bool vector_open(struct cpu *cpu, struct error *err);
void vector_close(struct cpu *cpu);

/* Around each stay in the run loop, on the cpu's own thread, at most one cpu of a thread at a time:
 * SIGFPE is for this cpu, and the host's x87 may hold the guest's state between them. A jump to
 * cpu->unwind that stays in the run loop needs neither. */
void vector_enter(struct cpu *cpu);
void vector_leave(struct cpu *cpu);

/* Sets cpu->x87_ready, and loads the x87, when its instructions and those of MMX need no look at
 * CR0 or for pending exceptions before each: CR0 allows them and the control word masks all. It
 * holds until cpu->x87_ready is cleared. */
void vector_make_x87_ready(struct cpu *cpu);
/* Between the two: brings cpu->x87 up to date; the same and takes the state out of the host's unit;
 * puts it there. */
void vector_sync(struct cpu *cpu);
void vector_unload(struct cpu *cpu);
void vector_load(struct cpu *cpu);

/* x86_state.xsave and back; never between enter and leave. set_state is false, and changes
 * nothing, when the area is one that XRSTOR refuses. */
void vector_get_state(const struct cpu *cpu, struct x86_state *state);
bool vector_set_state(struct cpu *cpu, const struct x86_state *state);

/* The state after RESET: XCR0 = 1, MXCSR = 1F80H, registers 0. Not to be called for INIT, which
 * leaves all this as it is. Never between enter and leave. */
void vector_reset(struct cpu *cpu);

/* The bits of XCR0 that the guest may set. */
uint64_t vector_xcr0_supported(const struct cpu *cpu);

/* How long an XSAVE area with these components is, in standard or compacted form. */
uint32_t vector_xsave_bytes(const struct cpu *cpu, uint64_t components, bool is_compacted);

/* Size and standard offset of a component from 2 on. */
void vector_xsave_place(const struct cpu *cpu, unsigned component, uint32_t *size_bytes,
                        uint32_t *offset);

/* Outside of 64-bit mode, W vvvv L pp of an instruction under VEX without what is ignored there:
 * the bits that would name registers 8 to 15, and 64-bit general registers (SDM 2A 2.3.5, 2.3.6).
 */
uint8_t vector_vex_of_32bit(const ZydisDecodedInstruction *info,
                            const ZydisDecodedOperand *operands, uint8_t last);

/* See above. */
bool vector_wants_flush(const struct cpu *cpu);
void vector_flush_stubs(struct cpu *cpu);

#endif
