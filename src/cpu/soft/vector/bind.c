/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Which vector, x87 and state instructions are offered, by instruction set, and which file handles
 * them. Left out, and so #UD: AVX-512, VAES and VPCLMULQDQ of 256 bits, GFNI, AVX-VNNI, SSE4a,
 * 3DNow!, XOP, FMA4, MPX. Also what opens and closes these units for a cpu.
 */
#include "cpu/soft/vector/internal.h"

#include <cpuid.h>

uint32_t vector_host_features(void)
{
    static _Atomic uint32_t cached; /* bit 31: valid. A fact of the host, the same for all. */
    uint32_t features = cached;
    if (features != 0)
        return features;
    features = 1u << 31;
    unsigned a, b, c, d, c1, b7 = 0;
    if (__get_cpuid(1, &a, &b, &c1, &d) == 0)
        return features;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
        b7 = b;
    features |= (c1 & bit_SSE3 ? HOST_SSE3 : 0) | (c1 & bit_SSSE3 ? HOST_SSSE3 : 0) |
                (c1 & bit_SSE4_1 ? HOST_SSE41 : 0) | (c1 & bit_SSE4_2 ? HOST_SSE42 : 0) |
                (c1 & bit_AES ? HOST_AES : 0) | (c1 & bit_PCLMUL ? HOST_PCLMUL : 0) |
                (b7 & bit_SHA ? HOST_SHA : 0);
    if (c1 & bit_OSXSAVE) {
        uint32_t xcr0, high;
        __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
        if ((xcr0 & 6) == 6)
            features |= (c1 & bit_AVX ? HOST_AVX : 0) | (b7 & bit_AVX2 ? HOST_AVX2 : 0) |
                        (c1 & bit_FMA ? HOST_FMA : 0) | (c1 & bit_F16C ? HOST_F16C : 0);
    }
    cached = features;
    return features;
}

uint64_t vector_xcr0_supported(const struct cpu *cpu)
{
    return XCR0_X87 | XCR0_SSE | (cpu->system->cpu_level != CPU_LEVEL_HOST ? 0 : XCR0_PKRU) |
           (vector_host_features() & HOST_AVX ? XCR0_AVX : 0);
}

bool vector_open(struct cpu *cpu, struct error *err)
{
    if (!signal_install(err) || !stub_pool_open(cpu, err))
        return false;
    vector_reset(cpu);
    return true;
}

void vector_close(struct cpu *cpu)
{
    stub_pool_close(cpu);
}

void vector_enter(struct cpu *cpu)
{
    signal_set_running(cpu);
}

void vector_sync(struct cpu *cpu)
{
    x87_sync(cpu);
}

void vector_unload(struct cpu *cpu)
{
    x87_sync(cpu);
    x87_unload(cpu);
}

void vector_load(struct cpu *cpu)
{
    x87_make_live(cpu);
}

void vector_leave(struct cpu *cpu)
{
    vector_unload(cpu);
    signal_set_running(NULL);
}

const ZydisDecodedOperand *insn_memory(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->info->operand_count_visible; i++)
        if (insn->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &insn->operands[i];
    return NULL;
}

/* The host feature that an instruction set needs; 0 for those that every x86-64 has, false for
 * those that are not offered. */
static bool needed_feature(ZydisISASet set, uint32_t *feature)
{
    *feature = 0;
    switch (set) {
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX: return true;
    case ZYDIS_ISA_SET_SSE3: *feature = HOST_SSE3; return true;
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX: *feature = HOST_SSSE3; return true;
    case ZYDIS_ISA_SET_SSE4: *feature = HOST_SSE41; return true;
    case ZYDIS_ISA_SET_SSE42: *feature = HOST_SSE42; return true;
    case ZYDIS_ISA_SET_AES: *feature = HOST_AES; return true;
    case ZYDIS_ISA_SET_PCLMULQDQ: *feature = HOST_PCLMUL; return true;
    case ZYDIS_ISA_SET_SHA: *feature = HOST_SHA; return true;
    case ZYDIS_ISA_SET_AVX: *feature = HOST_AVX; return true;
    case ZYDIS_ISA_SET_AVXAES: *feature = HOST_AVX | HOST_AES; return true;
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER: *feature = HOST_AVX2; return true;
    case ZYDIS_ISA_SET_FMA: *feature = HOST_FMA; return true;
    case ZYDIS_ISA_SET_F16C: *feature = HOST_F16C; return true;
    default: return false;
    }
}

uint8_t vector_vex_of_32bit(const ZydisDecodedInstruction *info,
                            const ZydisDecodedOperand *operands, uint8_t last)
{
    bool has_general = false; /* lengths in EAX and EDX, of which the operands are hidden, too */
    for (unsigned i = 0; i < info->operand_count; i++) {
        ZydisRegisterClass register_class = ZydisRegisterGetClass(operands[i].reg.value);
        has_general |=
            operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (register_class == ZYDIS_REGCLASS_GPR32 || register_class == ZYDIS_REGCLASS_GPR64);
    }
    switch (info->mnemonic) { /* they have a form with one */
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD: has_general = true; break;
    default: break;
    }
    return (uint8_t)((last | 0x40) & (has_general ? 0x7f : 0xff));
}

/* VPINSRQ and VPEXTRQ outside of 64-bit mode, which Zydis takes for VPINSRD and VPEXTRD with a W
 * that is ignored (SDM 2B PEXTRB/PEXTRD/PEXTRQ, PINSRB/PINSRD/PINSRQ: #UD). */
static bool is_quadword_element(const struct insn *insn)
{
    ZydisMnemonic mnemonic = insn->info->mnemonic;
    return (mnemonic == ZYDIS_MNEMONIC_VPINSRD || mnemonic == ZYDIS_MNEMONIC_VPEXTRD) &&
           insn->info->raw.vex.W;
}

static bool is_offered(const struct insn *insn)
{
    uint32_t feature;
    if (!needed_feature(insn->info->meta.isa_set, &feature) || is_quadword_element(insn))
        return false;
    if (insn->info->mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ)
        feature |= HOST_PCLMUL;
    return (vector_host_features() & feature) == feature;
}

bool bind_vector(const struct insn *insn, struct op *op)
{
    const ZydisDecodedInstruction *info = insn->info;
    bool is_vex = info->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if (!is_vex && info->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    if (is_vex && (insn->mode & MODE_REAL))
        return false;
    const ZydisDecodedOperand *memory = insn_memory(insn);
    if (memory != NULL && memory->size / 8 <= UINT8_MAX)
        op->size_bytes = (uint8_t)(memory->size / 8);
    if (bind_x87(insn, op) || bind_xsave(insn, op))
        return true;
    if (!is_offered(insn))
        return false;
    return bind_vector_move(insn, op) || bind_vector_masked(insn, op) || bind_vector_stub(insn, op);
}
