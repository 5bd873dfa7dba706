/* SPDX-License-Identifier: BSD-2-Clause
 *
 * FXSAVE, XSAVE and their relatives, XGETBV, XSETBV, LDMXCSR, STMXCSR (SDM 1 chapter 13), and the
 * engine-neutral state, which is an XSAVE area too. Components: x87, SSE, AVX, and PKRU, which the
 * engine-neutral state keeps apart. IA32_XSS is 0.
 *
 * XINUSE is exact: a component in its initial configuration is never "in use". The modified
 * optimisation of XSAVEOPT and XSAVES is not taken, which the manual leaves open: every component
 * in use counts as modified.
 */
#include "cpu/soft/vector/internal.h"

#include <assert.h>

enum {
    LEGACY_BYTES = 512,
    HEADER_AT = 512,
    HEADER_BYTES = 64,
    AVX_AT = 576,
    AVX_BYTES = 256,
    AREA_BYTES = AVX_AT + AVX_BYTES,
    PKRU_BYTES = 8,
    PKRU_AT_INTEL = 2688, /* behind room for AVX-512, and for MPX on Intel's */
    PKRU_AT_AMD = 2432,
    MXCSR_AT = 24,
    MXCSR_MASK_AT = 28,
    XMM_AT = 160,
};

static const uint64_t compacted = UINT64_C(1) << 63;

struct xsave_header {
    uint64_t xstate_bv, xcomp_bv;
    uint8_t reserved[48];
};

static uint64_t requested(const struct cpu *cpu)
{
    uint64_t mask = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
    return mask & cpu->xcr0;
}

/* Registers that exist in the present mode. */
static unsigned vector_count(const struct cpu *cpu)
{
    return cpu_is_64bit(cpu) ? 16 : 8;
}

static bool is_rex_w(const struct op *op)
{
    return op->imm2;
}

/* --- parts of the area --------------------------------------------------------------------- */

static void put_mxcsr(const struct cpu *cpu, uint8_t *area)
{
    uint32_t mask = MXCSR_MASK;
    memcpy(area + MXCSR_AT, &cpu->mxcsr, 4);
    memcpy(area + MXCSR_MASK_AT, &mask, 4);
}

static void put_x87(struct cpu *cpu, uint8_t *area, bool is_64bit)
{
    uint8_t image[X87_IMAGE_BYTES];
    x87_get_image(cpu, image, is_64bit);
    memcpy(area, image, MXCSR_AT);
    memcpy(area + 32, image + 32, X87_IMAGE_BYTES - 32);
}

static void put_half(const struct cpu *cpu, uint8_t *part, unsigned half, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        memcpy(part + n * 16, cpu->vector[n].bytes + half * 16, 16);
}

static void get_half(struct cpu *cpu, const uint8_t *part, unsigned half, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        memcpy(cpu->vector[n].bytes + half * 16, part + n * 16, 16);
}

static void clear_half(struct cpu *cpu, unsigned half, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        memset(cpu->vector[n].bytes + half * 16, 0, 16);
}

static bool half_is_clear(const struct cpu *cpu, unsigned half, unsigned count)
{
    static const uint8_t zero[16];
    for (unsigned n = 0; n < count; n++)
        if (memcmp(cpu->vector[n].bytes + half * 16, zero, sizeof(zero)) != 0)
            return false;
    return true;
}

static uint64_t in_use(struct cpu *cpu)
{
    unsigned count = vector_count(cpu);
    return (x87_is_initial(cpu) ? 0 : XCR0_X87) | (half_is_clear(cpu, 0, count) ? 0 : XCR0_SSE) |
           (half_is_clear(cpu, 1, count) ? 0 : XCR0_AVX) | (cpu->pkru ? XCR0_PKRU : 0);
}

/* --- sizes and places ----------------------------------------------------------------------- */

/* In standard form where the vendor has it; in compacted form components follow one another as
 * they are in XCOMP_BV (SDM 1 13.4.3). */
static unsigned pkru_at(const struct cpu *cpu, uint64_t components, bool is_compacted)
{
    if (!is_compacted)
        return cpu->system->features.is_amd ? PKRU_AT_AMD : PKRU_AT_INTEL;
    return components & XCR0_AVX ? AREA_BYTES : AVX_AT;
}

void vector_xsave_place(const struct cpu *cpu, unsigned component, uint32_t *size_bytes,
                        uint32_t *offset)
{
    bool is_avx = 1u << component == XCR0_AVX;
    *size_bytes = is_avx ? AVX_BYTES : PKRU_BYTES;
    *offset = is_avx ? AVX_AT : pkru_at(cpu, 0, false);
}

uint32_t vector_xsave_bytes(const struct cpu *cpu, uint64_t components, bool is_compacted)
{
    if (components & XCR0_PKRU)
        return pkru_at(cpu, components, is_compacted) + PKRU_BYTES;
    return components & XCR0_AVX ? AREA_BYTES : AVX_AT;
}

/* --- FXSAVE, FXRSTOR ------------------------------------------------------------------------ */

static void check_fxsave(struct cpu *cpu)
{
    if (cpu->cr0 & (VECTOR_CR0_EM | VECTOR_CR0_TS))
        cpu_raise(cpu, VECTOR_NM);
}

static uint64_t aligned_address(struct cpu *cpu, const struct op *op, unsigned size_bytes,
                                unsigned alignment, enum memory_access access)
{
    uint64_t linear = op_address(cpu, op, size_bytes, access);
    if (linear & (alignment - 1))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    return linear;
}

static void op_fxsave(struct cpu *cpu, const struct op *op)
{
    check_fxsave(cpu);
    uint64_t linear = aligned_address(cpu, op, LEGACY_BYTES, 16, ACCESS_WRITE);
    memory_probe_write(cpu, linear, LEGACY_BYTES);
    uint8_t area[LEGACY_BYTES];
    unsigned length = XMM_AT + vector_count(cpu) * 16;
    put_x87(cpu, area, is_rex_w(op));
    put_mxcsr(cpu, area);
    put_half(cpu, area + XMM_AT, 0, vector_count(cpu));
    memory_write(cpu, linear, area, length); /* what lies behind is left as it is */
}

static uint32_t area_mxcsr(struct cpu *cpu, const uint8_t *area)
{
    uint32_t mxcsr;
    memcpy(&mxcsr, area + MXCSR_AT, sizeof(mxcsr));
    if (mxcsr & ~(uint32_t)MXCSR_MASK)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    return mxcsr;
}

static void op_fxrstor(struct cpu *cpu, const struct op *op)
{
    check_fxsave(cpu);
    uint64_t linear = aligned_address(cpu, op, LEGACY_BYTES, 16, ACCESS_READ);
    uint8_t area[LEGACY_BYTES];
    memory_read(cpu, linear, area, sizeof(area));
    cpu->mxcsr = area_mxcsr(cpu, area);
    x87_put_image(cpu, area, is_rex_w(op));
    get_half(cpu, area + XMM_AT, 0, vector_count(cpu));
}

/* --- XSAVE … -------------------------------------------------------------------------------- */

static void check_xsave(struct cpu *cpu)
{
    if (!(cpu->cr4 & VECTOR_CR4_OSXSAVE))
        cpu_raise(cpu, VECTOR_UD);
    if (cpu->cr0 & VECTOR_CR0_TS)
        cpu_raise(cpu, VECTOR_NM);
}

/* Faults before anything is written. What lies between AVX and PKRU is not touched. */
static void probe(struct cpu *cpu, uint64_t linear, uint64_t components, bool is_compacted)
{
    memory_probe_write(cpu, linear, components & XCR0_AVX ? AREA_BYTES : AVX_AT);
    if (components & XCR0_PKRU)
        memory_probe_write(cpu, linear + pkru_at(cpu, components, is_compacted), PKRU_BYTES);
}

/* Writes the given components. The parts are apart in memory, and what lies between stays. */
static void write_components(struct cpu *cpu, uint64_t linear, uint64_t components, bool with_mxcsr,
                             unsigned pkru_offset, bool is_64bit)
{
    uint8_t area[XMM_AT + 256];
    unsigned count = vector_count(cpu);
    if (components & XCR0_X87) {
        put_x87(cpu, area, is_64bit);
        memory_write(cpu, linear, area, MXCSR_AT);
        memory_write(cpu, linear + 32, area + 32, X87_IMAGE_BYTES - 32);
    }
    if (with_mxcsr) {
        put_mxcsr(cpu, area);
        memory_write(cpu, linear + MXCSR_AT, area + MXCSR_AT, 8);
    }
    if (components & XCR0_SSE) {
        put_half(cpu, area, 0, count);
        memory_write(cpu, linear + XMM_AT, area, count * 16);
    }
    if (components & XCR0_AVX) {
        put_half(cpu, area, 1, count);
        memory_write(cpu, linear + AVX_AT, area, count * 16);
    }
    if (components & XCR0_PKRU)
        memory_write64(cpu, linear + pkru_offset, cpu->pkru);
}

/* XSAVE and XSAVEOPT, which leaves out what is initial. */
static void save_standard(struct cpu *cpu, const struct op *op, bool is_optimised)
{
    check_xsave(cpu);
    uint64_t mask = requested(cpu);
    unsigned bytes = vector_xsave_bytes(cpu, mask, false);
    uint64_t linear = aligned_address(cpu, op, bytes, 64, ACCESS_WRITE);
    probe(cpu, linear, mask, false);
    uint64_t used = in_use(cpu);
    uint64_t bv = memory_read64(cpu, linear + HEADER_AT);
    write_components(cpu, linear, is_optimised ? mask & used : mask, mask & (XCR0_SSE | XCR0_AVX),
                     pkru_at(cpu, mask, false), is_rex_w(op));
    memory_write64(cpu, linear + HEADER_AT, (bv & ~mask) | (used & mask));
}

static void op_xsave(struct cpu *cpu, const struct op *op)
{
    save_standard(cpu, op, false);
}

static void op_xsaveopt(struct cpu *cpu, const struct op *op)
{
    save_standard(cpu, op, true);
}

/* XSAVEC and XSAVES. */
static void op_xsavec(struct cpu *cpu, const struct op *op)
{
    check_xsave(cpu);
    uint64_t mask = requested(cpu);
    unsigned bytes = vector_xsave_bytes(cpu, mask, true);
    uint64_t linear = aligned_address(cpu, op, bytes, 64, ACCESS_WRITE);
    probe(cpu, linear, mask, true);
    uint64_t used = in_use(cpu);
    if (cpu->mxcsr != MXCSR_DEFAULT)
        used |= XCR0_SSE;
    uint64_t header[2] = {used & mask, mask | compacted};
    write_components(cpu, linear, used & mask, used & mask & XCR0_SSE, pkru_at(cpu, mask, true),
                     is_rex_w(op));
    memory_write(cpu, linear + HEADER_AT, header, sizeof(header));
}

static void op_xsaves(struct cpu *cpu, const struct op *op)
{
    check_xsave(cpu);
    if (cpu->cpl != 0)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    op_xsavec(cpu, op);
}

/* Whether XRSTOR takes a header (SDM 1 13.8.1, 13.8.2). */
static bool header_is_valid(const struct xsave_header *header, uint64_t xcr0, bool need_compacted)
{
    static const uint8_t zero[48];
    if (!(header->xcomp_bv & compacted)) {
        return !need_compacted && !(header->xstate_bv & ~xcr0) && header->xcomp_bv == 0 &&
               memcmp(header->reserved, zero, 8) == 0;
    }
    uint64_t format = header->xcomp_bv & ~compacted;
    return !(format & ~xcr0) && !(header->xstate_bv & ~format) &&
           memcmp(header->reserved, zero, sizeof(zero)) == 0;
}

/* PKRU of an area, and 0 when it is not there. */
static uint32_t read_pkru(struct cpu *cpu, const struct op *op, uint64_t linear,
                          const struct xsave_header *header)
{
    bool is_compacted = header->xcomp_bv & compacted;
    if (!(header->xstate_bv & XCR0_PKRU))
        return 0;
    unsigned at = pkru_at(cpu, header->xcomp_bv, is_compacted);
    op_address(cpu, op, at + PKRU_BYTES, ACCESS_READ);
    return (uint32_t)memory_read64(cpu, linear + at);
}

/* Loads or initialises the components of `mask`; `area` has been checked. */
static void load_components(struct cpu *cpu, const uint8_t *area, uint64_t mask, uint64_t present,
                            bool is_64bit)
{
    unsigned count = vector_count(cpu);
    if (mask & XCR0_X87) {
        if (present & XCR0_X87)
            x87_put_image(cpu, area, is_64bit);
        else
            x87_put_initial(cpu);
    }
    if (mask & present & XCR0_SSE)
        get_half(cpu, area + XMM_AT, 0, count);
    else if (mask & XCR0_SSE)
        clear_half(cpu, 0, count);
    if (mask & present & XCR0_AVX)
        get_half(cpu, area + AVX_AT, 1, count);
    else if (mask & XCR0_AVX)
        clear_half(cpu, 1, count);
}

static void restore(struct cpu *cpu, const struct op *op, bool need_compacted)
{
    uint64_t mask = requested(cpu);
    /* The header tells how much is to be read. */
    uint64_t linear = aligned_address(cpu, op, AVX_AT, 64, ACCESS_READ);
    uint8_t area[AREA_BYTES];
    struct xsave_header header;
    memory_read(cpu, linear, area, AVX_AT);
    memcpy(&header, area + HEADER_AT, sizeof(header));
    if (!header_is_valid(&header, cpu->xcr0, need_compacted))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    uint64_t present = header.xstate_bv;
    if (mask & present & XCR0_AVX) {
        op_address(cpu, op, AREA_BYTES, ACCESS_READ);
        memory_read(cpu, linear + AVX_AT, area + AVX_AT, AVX_BYTES);
    }
    uint32_t pkru = mask & XCR0_PKRU ? read_pkru(cpu, op, linear, &header) : cpu->pkru;
    uint32_t mxcsr = cpu->mxcsr;
    if (!(header.xcomp_bv & compacted)) {
        if (mask & (XCR0_SSE | XCR0_AVX)) /* whatever XSTATE_BV says */
            mxcsr = area_mxcsr(cpu, area);
    } else if (mask & XCR0_SSE) {
        mxcsr = present & XCR0_SSE ? area_mxcsr(cpu, area) : MXCSR_DEFAULT;
    }
    cpu->mxcsr = mxcsr;
    load_components(cpu, area, mask, present, is_rex_w(op));
    cpu_set_pkru(cpu, pkru);
}

static void op_xrstor(struct cpu *cpu, const struct op *op)
{
    check_xsave(cpu);
    restore(cpu, op, false);
}

static void op_xrstors(struct cpu *cpu, const struct op *op)
{
    check_xsave(cpu);
    if (cpu->cpl != 0)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    restore(cpu, op, true);
}

/* --- XCR0 and MXCSR ------------------------------------------------------------------------- */

static void op_xgetbv(struct cpu *cpu, const struct op *op)
{
    if (!(cpu->cr4 & VECTOR_CR4_OSXSAVE))
        cpu_raise(cpu, VECTOR_UD);
    uint64_t value = cpu->xcr0;
    switch ((uint32_t)cpu->gpr[RCX]) {
    case 0: break;
    case 1: value &= in_use(cpu); break;
    default: cpu_raise_code(cpu, VECTOR_GP, 0);
    }
    cpu->gpr[RAX] = (uint32_t)value;
    cpu->gpr[RDX] = value >> 32;
}

static void op_xsetbv(struct cpu *cpu, const struct op *op)
{
    if (!(cpu->cr4 & VECTOR_CR4_OSXSAVE))
        cpu_raise(cpu, VECTOR_UD);
    uint64_t value = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
    bool is_valid = cpu->cpl == 0 && (uint32_t)cpu->gpr[RCX] == 0 && (value & XCR0_X87) &&
                    !(value & ~vector_xcr0_supported(cpu)) &&
                    !((value & XCR0_AVX) && !(value & XCR0_SSE));
    if (!is_valid)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    cpu->xcr0 = value;
}

static void load_mxcsr(struct cpu *cpu, const struct op *op)
{
    uint32_t mxcsr = memory_read32(cpu, op_address(cpu, op, 4, ACCESS_READ));
    if (mxcsr & ~(uint32_t)MXCSR_MASK)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    cpu->mxcsr = mxcsr;
}

static void op_ldmxcsr(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    load_mxcsr(cpu, op);
}

static void op_vldmxcsr(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    load_mxcsr(cpu, op);
}

static void op_stmxcsr(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    memory_write32(cpu, op_address(cpu, op, 4, ACCESS_WRITE), cpu->mxcsr);
}

static void op_vstmxcsr(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    memory_write32(cpu, op_address(cpu, op, 4, ACCESS_WRITE), cpu->mxcsr);
}

/* --- state from and to the outside ---------------------------------------------------------- */

/* Outside the run loop nothing is live. */
static void settle_x87(struct cpu *cpu)
{
    x87_sync(cpu);
    x87_unload(cpu);
}

void vector_reset(struct cpu *cpu)
{
    uint8_t image[X87_IMAGE_BYTES] = {0};
    assert(!cpu->x87_live);
    image[0] = 0x40; /* RESET differs from FNINIT: SDM 3A table 9-1 */
    image[4] = 0xff;
    x87_put_image(cpu, image, true);
    settle_x87(cpu);
    clear_half(cpu, 0, 16);
    clear_half(cpu, 1, 16);
    cpu->mxcsr = MXCSR_DEFAULT;
    cpu->xcr0 = XCR0_X87;
}

void vector_get_state(const struct cpu *cpu, struct x86_state *state)
{
    _Static_assert((int)X86_XSAVE_BYTES == (int)AREA_BYTES,
                   "the neutral state has these components");
    assert(!cpu->x87_live);
    struct xsave_header header = {.xstate_bv = XCR0_X87 | XCR0_SSE | XCR0_AVX};
    memset(state->xsave, 0, sizeof(state->xsave));
    memcpy(state->xsave, cpu->x87, X87_IMAGE_BYTES);
    memcpy(state->xsave + 6, &cpu->x87_fop, 2);
    memcpy(state->xsave + 8, &cpu->x87_rip, 8);
    memcpy(state->xsave + 16, &cpu->x87_rdp, 8);
    put_mxcsr(cpu, state->xsave);
    put_half(cpu, state->xsave + XMM_AT, 0, 16);
    put_half(cpu, state->xsave + AVX_AT, 1, 16);
    memcpy(state->xsave + HEADER_AT, &header, sizeof(header));
    state->xcr0 = cpu->xcr0;
}

bool vector_set_state(struct cpu *cpu, const struct x86_state *state)
{
    const uint64_t all = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    struct xsave_header header;
    uint32_t mxcsr;
    assert(!cpu->x87_live);
    memcpy(&header, state->xsave + HEADER_AT, sizeof(header));
    memcpy(&mxcsr, state->xsave + MXCSR_AT, sizeof(mxcsr));
    if ((header.xcomp_bv & compacted) || !header_is_valid(&header, all, false) ||
        (mxcsr & ~(uint32_t)MXCSR_MASK) || (state->xcr0 & ~vector_xcr0_supported(cpu)) ||
        !(state->xcr0 & XCR0_X87) || ((state->xcr0 & XCR0_AVX) && !(state->xcr0 & XCR0_SSE)))
        return false;
    uint64_t present = header.xstate_bv;
    if (present & XCR0_X87)
        x87_put_image(cpu, state->xsave, true);
    else
        x87_put_initial(cpu);
    settle_x87(cpu);
    clear_half(cpu, 0, 16);
    clear_half(cpu, 1, 16);
    if (present & XCR0_SSE)
        get_half(cpu, state->xsave + XMM_AT, 0, 16);
    if (present & XCR0_AVX)
        get_half(cpu, state->xsave + AVX_AT, 1, 16);
    cpu->mxcsr = mxcsr;
    cpu->xcr0 = state->xcr0;
    return true;
}

/* --- binding ------------------------------------------------------------------------------- */

static op_fn *state_handler(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64: return op_fxsave;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return op_fxrstor;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64: return op_xsave;
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64: return op_xsaveopt;
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64: return op_xsavec;
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64: return op_xsaves;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: return op_xrstor;
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64: return op_xrstors;
    case ZYDIS_MNEMONIC_XGETBV: return op_xgetbv;
    case ZYDIS_MNEMONIC_XSETBV: return op_xsetbv;
    case ZYDIS_MNEMONIC_LDMXCSR: return op_ldmxcsr;
    case ZYDIS_MNEMONIC_STMXCSR: return op_stmxcsr;
    case ZYDIS_MNEMONIC_VLDMXCSR: return op_vldmxcsr;
    case ZYDIS_MNEMONIC_VSTMXCSR: return op_vstmxcsr;
    default: return NULL;
    }
}

bool bind_xsave(const struct insn *insn, struct op *op)
{
    op_fn *fn = state_handler(insn->info->mnemonic);
    if (fn == NULL)
        return false;
    op->fn = fn;
    op->imm2 = (insn->info->attributes & ZYDIS_ATTRIB_HAS_REX) && insn->info->raw.rex.W;
    return true;
}
