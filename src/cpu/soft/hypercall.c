/* SPDX-License-Identifier: BSD-2-Clause
 *
 * VMCALL and VMMCALL: CPUID says that this is KVM, so a guest's kernel may call it (Linux'
 * Documentation/virt/kvm/x86/hypercalls.rst). Of its calls none is offered by CPUID, and each is
 * answered as unknown; both instructions are taken whatever the vendor, as KVM takes them. For
 * programs they do not exist.
 */
#include "cpu/soft/core.h"

enum { CALL_UNKNOWN = -1000 };

static void hypercall(struct cpu *cpu, const struct op *op)
{
    int64_t result = CALL_UNKNOWN;
    if (cpu->cpl != 0)
        cpu_raise(cpu, VECTOR_UD);
    cpu->gpr[RAX] = cpu_is_64bit(cpu) ? (uint64_t)result : (uint32_t)result;
}

bool bind_hypercall(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL: op->fn = hypercall; return true;
    default: return false;
    }
}
