/* SPDX-License-Identifier: BSD-2-Clause
 *
 * x87 (SDM 1 chapter 8). The guest's state is loaded into the host's unit at the first x87 or MMX
 * instruction of a stay in the run loop, and stays there until vector_leave: instructions then run
 * as stubs with no loads and stores around them. No C code of this thread uses the unit meanwhile.
 *
 * The host's unit never traps: waiting instructions test the status word first and raise #MF.
 * CR0.NE = 0 would report through FERR# and IRQ 13 of a PC of 1985; #MF is raised instead, with a
 * log line. Instruction and data pointers are kept in software (the host's would show the stub's);
 * their selectors read as 0, as on processors that say so in CPUID.7.0:EBX[13]. In real mode they
 * are linear addresses.
 */
#include "cpu/soft/vector/internal.h"

#include <assert.h>

enum { FSW_ES = 0x80, FOP_MASK = 0x7ff };

/* Exceptions that keep a store from happening when unmasked; only precision does not. */
enum { EXCEPTIONS = 0x3f, EXCEPTIONS_NO_STORE = 0x1f };

void vector_raise_pending_x87(struct cpu *cpu)
{
    if (!(cpu->cr0 & VECTOR_CR0_NE))
        log_limited(cpu->system->log, &cpu->system->log_limit, LOG_INFO, "cpu",
                    "x87 exception with CR0.NE = 0: raised as #MF");
    cpu_raise(cpu, VECTOR_MF);
}

/* --- the live unit ------------------------------------------------------------------------- */

#define XMM_CLOBBERS                                                                               \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

struct fxsave_image {
    _Alignas(16) uint8_t bytes[512];
};

void x87_make_live(struct cpu *cpu)
{
    struct fxsave_image image;
    uint32_t mxcsr = MXCSR_DEFAULT;
    memset(&image, 0, sizeof(image));
    memcpy(image.bytes, cpu->x87, X87_IMAGE_BYTES);
    memset(image.bytes + 6, 0, 18); /* FOP, FIP, FDP: not the host's business */
    memcpy(image.bytes + 24, &mxcsr, sizeof(mxcsr));
    __asm__ volatile("fxrstor64 %0" : : "m"(image) : XMM_CLOBBERS);
    cpu->x87_live = true;
}

void x87_sync(struct cpu *cpu)
{
    if (!cpu->x87_live)
        return;
    struct fxsave_image image;
    __asm__ volatile("fxsave64 %0" : "=m"(image));
    memcpy(cpu->x87, image.bytes, 6);
    memcpy(cpu->x87 + 32, image.bytes + 32, X87_IMAGE_BYTES - 32);
}

void x87_unload(struct cpu *cpu)
{
    if (!cpu->x87_live)
        return;
    __asm__ volatile("fninit");
    cpu->x87_live = false;
    cpu->x87_ready = false;
}

static void put16(uint8_t *bytes, uint16_t value)
{
    memcpy(bytes, &value, sizeof(value));
}

static void put32(uint8_t *bytes, uint32_t value)
{
    memcpy(bytes, &value, sizeof(value));
}

static uint16_t get16(const uint8_t *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static uint32_t get32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

void x87_get_image(struct cpu *cpu, uint8_t image[X87_IMAGE_BYTES], bool is_64bit)
{
    x87_sync(cpu);
    memcpy(image, cpu->x87, 6);
    put16(image + 6, (uint16_t)cpu->x87_fop);
    memset(image + 8, 0, 16);
    memcpy(image + 8, &cpu->x87_rip, is_64bit ? 8 : 4);
    memcpy(image + 16, &cpu->x87_rdp, is_64bit ? 8 : 4);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(image + 32 + i * 16, cpu->x87 + 32 + i * 16, 10);
        memset(image + 42 + i * 16, 0, 6);
    }
}

/* The pointers are 48 bits wide inside, and are sign-extended when shown. */
static uint64_t make_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16);
}

void x87_put_image(struct cpu *cpu, const uint8_t image[X87_IMAGE_BYTES], bool is_64bit)
{
    x87_unload(cpu);
    memcpy(cpu->x87, image, 6);
    cpu->x87_fop = get16(image + 6) & FOP_MASK;
    cpu->x87_rip = cpu->x87_rdp = 0;
    memcpy(&cpu->x87_rip, image + 8, is_64bit ? 8 : 4);
    memcpy(&cpu->x87_rdp, image + 16, is_64bit ? 8 : 4);
    cpu->x87_rip = make_canonical(cpu->x87_rip);
    cpu->x87_rdp = make_canonical(cpu->x87_rdp);
    memcpy(cpu->x87 + 32, image + 32, X87_IMAGE_BYTES - 32);
    x87_make_live(cpu); /* so that reserved bits and ES become what the host makes of them */
}

void x87_put_initial(struct cpu *cpu)
{
    uint8_t image[X87_IMAGE_BYTES] = {0};
    put16(image, 0x37f);
    x87_put_image(cpu, image, true);
}

bool x87_is_initial(struct cpu *cpu)
{
    uint8_t image[X87_IMAGE_BYTES], initial[X87_IMAGE_BYTES] = {0};
    x87_get_image(cpu, image, true);
    put16(initial, 0x37f);
    memcpy(initial + 24, image + 24, 8); /* MXCSR and its mask are not x87 */
    return memcmp(image, initial, sizeof(image)) == 0;
}

/* --- instructions that run as stubs -------------------------------------------------------- */

/* op->imm: FOP. The pointers of a non-control instruction; it must not fault any more. */
static inline void note_instruction(struct cpu *cpu, const struct op *op)
{
    cpu->x87_rip = cpu->gpr[GPR_BLOCK_RIP] + (uint64_t)op->offset;
    if (cpu->mode & MODE_REAL)
        cpu->x87_rip += cpu->segment[SEG_CS].base;
    cpu->x87_fop = (uint16_t)op->imm;
}

static inline void note_operand(struct cpu *cpu, const struct op *op, uint64_t linear)
{
    cpu->x87_rdp = cpu->mode & MODE_REAL ? linear : op_effective(cpu, op);
}

static void op_x87_reg(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    check_pending_x87(cpu);
    note_instruction(cpu, op);
    stub_run(cpu, op, NULL);
}

static void op_x87_load(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    check_pending_x87(cpu);
    uint8_t operand[16];
    uint64_t linear = op_address(cpu, op, op->size_bytes, ACCESS_READ);
    vector_read(cpu, linear, operand, op->size_bytes);
    note_instruction(cpu, op);
    note_operand(cpu, op, linear);
    stub_run(cpu, op, operand);
}

static uint16_t x87_control(void)
{
    uint16_t control;
    __asm__ volatile("fnstcw %0" : "=m"(control));
    return control;
}

static void op_x87_store(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    check_pending_x87(cpu);
    uint64_t linear = op_address(cpu, op, op->size_bytes, ACCESS_WRITE);
    uint8_t *hva = memory_hit_write(cpu, linear, op->size_bytes);
    uint8_t operand[16];
    if (hva == NULL)
        memory_probe_write(cpu, linear, op->size_bytes);
    note_instruction(cpu, op);
    note_operand(cpu, op, linear);
    stub_run(cpu, op, hva != NULL ? hva : operand);
    if (hva != NULL)
        return;
    /* Nothing was pending before, so an unmasked flag is this instruction's. */
    if (x87_status() & ~x87_control() & EXCEPTIONS_NO_STORE)
        return;
    memory_write(cpu, linear, operand, op->size_bytes);
}

/* --- control instructions ------------------------------------------------------------------ */

static void ensure_live(struct cpu *cpu)
{
    if (!cpu->x87_live)
        x87_make_live(cpu);
}

static void op_fwait(struct cpu *cpu, const struct op *op)
{
    const uint64_t both = VECTOR_CR0_MP | VECTOR_CR0_TS;
    if ((cpu->cr0 & both) == both)
        cpu_raise(cpu, VECTOR_NM);
    check_pending_x87(cpu);
}

static void op_x87_nop(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
}

/* FNOP: waits, but is no operation to point at. */
static void op_fnop(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    check_pending_x87(cpu);
}

static void clear_pointers(struct cpu *cpu)
{
    cpu->x87_rip = cpu->x87_rdp = 0;
    cpu->x87_fop = 0;
}

static void op_fninit(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    ensure_live(cpu);
    __asm__ volatile("fninit");
    clear_pointers(cpu);
}

static void op_fnclex(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    ensure_live(cpu);
    __asm__ volatile("fnclex");
}

static void op_fnstsw_ax(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    ensure_live(cpu);
    *op_reg16(cpu, op->reg[0]) = x87_status();
}

static void op_fnstsw(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    ensure_live(cpu);
    memory_write16(cpu, op_address(cpu, op, 2, ACCESS_WRITE), x87_status());
}

static void op_fnstcw(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    ensure_live(cpu);
    memory_write16(cpu, op_address(cpu, op, 2, ACCESS_WRITE), x87_control());
}

static void op_fldcw(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    check_pending_x87(cpu);
    uint16_t control = memory_read16(cpu, op_address(cpu, op, 2, ACCESS_READ));
    __asm__ volatile("fldcw %0" : : "m"(control));
    cpu->x87_ready = false;
}

void vector_make_x87_ready(struct cpu *cpu)
{
    if (cpu->cr0 & (VECTOR_CR0_EM | VECTOR_CR0_TS))
        return;
    ensure_live(cpu);
    cpu->x87_ready = (x87_control() & EXCEPTIONS) == EXCEPTIONS;
}

/* --- environments -------------------------------------------------------------------------- */

enum { ENV_NATIVE = 28, ENV_16 = 14, REGISTERS = 80 };

static bool is_real_format(const struct cpu *cpu)
{
    return cpu->mode & MODE_REAL;
}

/* The pointers, in one of the four formats (SDM 1 figures 8-9 … 8-12), behind CW, SW and TW. */
static void put_pointers(const struct cpu *cpu, uint8_t *env, bool is_32bit)
{
    uint64_t ip = cpu->x87_rip, dp = cpu->x87_rdp;
    if (is_32bit && is_real_format(cpu)) {
        put32(env + 12, (uint32_t)ip & 0xffff);
        put32(env + 16, ((uint32_t)ip >> 16) << 12 | cpu->x87_fop);
        put32(env + 20, (uint32_t)dp & 0xffff);
        put32(env + 24, ((uint32_t)dp >> 16) << 12);
    } else if (is_32bit) {
        put32(env + 12, (uint32_t)ip);
        put32(env + 16, (uint32_t)cpu->x87_fop << 16);
        put32(env + 20, (uint32_t)dp);
        put32(env + 24, get32(env + 24) & 0xffff0000); /* reserved bits as the host has them */
    } else if (is_real_format(cpu)) {
        put16(env + 6, (uint16_t)ip);
        put16(env + 8, (uint16_t)((ip >> 4 & 0xf000) | cpu->x87_fop));
        put16(env + 10, (uint16_t)dp);
        put16(env + 12, (uint16_t)(dp >> 4 & 0xf000));
    } else {
        put16(env + 6, (uint16_t)ip);
        put16(env + 8, 0);
        put16(env + 10, (uint16_t)dp);
        put16(env + 12, 0);
    }
}

static void get_pointers(struct cpu *cpu, const uint8_t *env, bool is_32bit)
{
    clear_pointers(cpu);
    if (is_32bit && is_real_format(cpu)) {
        cpu->x87_rip = get16(env + 12) | (uint64_t)(get32(env + 16) >> 12 & 0xffff) << 16;
        cpu->x87_fop = get32(env + 16) & FOP_MASK;
        cpu->x87_rdp = get16(env + 20) | (uint64_t)(get32(env + 24) >> 12 & 0xffff) << 16;
    } else if (is_32bit) {
        cpu->x87_rip = get32(env + 12);
        cpu->x87_fop = get32(env + 16) >> 16 & FOP_MASK;
        cpu->x87_rdp = get32(env + 20);
    } else if (is_real_format(cpu)) {
        cpu->x87_rip = get16(env + 6) | (uint64_t)(get16(env + 8) & 0xf000) << 4;
        cpu->x87_fop = get16(env + 8) & FOP_MASK;
        cpu->x87_rdp = get16(env + 10) | (uint64_t)(get16(env + 12) & 0xf000) << 4;
    } else {
        cpu->x87_rip = get16(env + 6);
        cpu->x87_rdp = get16(env + 10);
    }
}

/* From the host's own environment to the guest's format; returns the length of it. */
static unsigned make_environment(const struct cpu *cpu, uint8_t *env, const uint8_t *native,
                                 bool is_32bit)
{
    if (is_32bit) {
        memcpy(env, native, ENV_NATIVE);
    } else {
        for (unsigned i = 0; i < 3; i++)
            memcpy(env + i * 2, native + i * 4, 2);
    }
    put_pointers(cpu, env, is_32bit);
    return is_32bit ? ENV_NATIVE : ENV_16;
}

/* The other way: CW, SW and TW only, the pointers go to cpu. */
static unsigned read_environment(struct cpu *cpu, const uint8_t *env, uint8_t *native,
                                 bool is_32bit)
{
    memset(native, 0, ENV_NATIVE);
    for (unsigned i = 0; i < 3; i++)
        memcpy(native + i * 4, env + i * (is_32bit ? 4 : 2), 2);
    get_pointers(cpu, env, is_32bit);
    return is_32bit ? ENV_NATIVE : ENV_16;
}

static void op_fnstenv(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    uint8_t native[ENV_NATIVE], env[ENV_NATIVE];
    uint64_t linear = op_address(cpu, op, op->size_bytes, ACCESS_WRITE);
    memory_probe_write(cpu, linear, op->size_bytes);
    ensure_live(cpu);
    __asm__ volatile("fnstenv %0" : "=m"(native));
    make_environment(cpu, env, native, op->size_bytes == ENV_NATIVE);
    memory_write(cpu, linear, env, op->size_bytes);
}

static void op_fldenv(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    check_pending_x87(cpu);
    uint8_t native[ENV_NATIVE], env[ENV_NATIVE];
    memory_read(cpu, op_address(cpu, op, op->size_bytes, ACCESS_READ), env, op->size_bytes);
    read_environment(cpu, env, native, op->size_bytes == ENV_NATIVE);
    __asm__ volatile("fldenv %0" : : "m"(native));
    cpu->x87_ready = false;
}

static void op_fnsave(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    uint8_t native[ENV_NATIVE + REGISTERS], area[ENV_NATIVE + REGISTERS];
    uint64_t linear = op_address(cpu, op, op->size_bytes, ACCESS_WRITE);
    memory_probe_write(cpu, linear, op->size_bytes);
    ensure_live(cpu);
    __asm__ volatile("fnsave %0" : "=m"(native));
    unsigned length = make_environment(cpu, area, native, op->size_bytes == ENV_NATIVE + REGISTERS);
    memcpy(area + length, native + ENV_NATIVE, REGISTERS);
    clear_pointers(cpu);
    memory_write(cpu, linear, area, op->size_bytes);
}

static void op_frstor(struct cpu *cpu, const struct op *op)
{
    check_x87(cpu);
    check_pending_x87(cpu);
    uint8_t native[ENV_NATIVE + REGISTERS], area[ENV_NATIVE + REGISTERS];
    memory_read(cpu, op_address(cpu, op, op->size_bytes, ACCESS_READ), area, op->size_bytes);
    unsigned length = read_environment(cpu, area, native, op->size_bytes == ENV_NATIVE + REGISTERS);
    memcpy(native + ENV_NATIVE, area + length, REGISTERS);
    __asm__ volatile("frstor %0" : : "m"(native));
    cpu->x87_ready = false;
}

/* --- binding ------------------------------------------------------------------------------- */

/* The control instructions, which don't move the pointers. */
static op_fn *control_handler(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT: return op_fwait;
    case ZYDIS_MNEMONIC_FNOP: return op_fnop;
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP: return op_x87_nop;
    case ZYDIS_MNEMONIC_FNINIT: return op_fninit;
    case ZYDIS_MNEMONIC_FNCLEX: return op_fnclex;
    case ZYDIS_MNEMONIC_FNSTSW: return insn_memory(insn) != NULL ? op_fnstsw : op_fnstsw_ax;
    case ZYDIS_MNEMONIC_FNSTCW: return op_fnstcw;
    case ZYDIS_MNEMONIC_FLDCW: return op_fldcw;
    case ZYDIS_MNEMONIC_FNSTENV: return op_fnstenv;
    case ZYDIS_MNEMONIC_FLDENV: return op_fldenv;
    case ZYDIS_MNEMONIC_FNSAVE: return op_fnsave;
    case ZYDIS_MNEMONIC_FRSTOR: return op_frstor;
    default: return NULL;
    }
}

bool bind_x87(const struct insn *insn, struct op *op)
{
    const ZydisDecodedInstruction *info = insn->info;
    bool is_x87 = info->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
                  info->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
                  ((info->opcode & 0xf8) == 0xd8 || info->opcode == 0x9b);
    if (!is_x87)
        return false;
    op->fn = control_handler(insn, op);
    if (op->fn != NULL)
        return true;
    const ZydisDecodedOperand *memory = insn_memory(insn);
    if (memory != NULL && (memory->size == 0 || memory->size > 80))
        return false;
    if (!stub_bind(insn, op, false))
        return false;
    op->imm = (uint64_t)(info->opcode & 7) << 8 | insn->bytes[info->raw.modrm.offset];
    op->fn = memory == NULL                                      ? op_x87_reg
             : memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? op_x87_store
                                                                 : op_x87_load;
    return true;
}
