/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Host code stubs: one guest instruction each, made to run on the host. The instruction is encoded
 * anew: prefixes that only matter to addressing are dropped, the memory operand becomes [rsi],
 * general registers become eax (hidden ones stay), and loads and stores of the guest's registers
 * in struct cpu (rdi) go around it. Vector registers keep their numbers.
 *
 * The pool is a memfd mapped twice, once to write and once to execute. Stubs are found again by
 * their code, so that equal instructions share one. Runs on the cpu's own thread.
 */
#include "cpu/soft/vector/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    POOL_BYTES = 4 << 20,
    STUB_MAX_BYTES = 192,
    STUB_ALIGN_BYTES = 16,
    RESERVE_BYTES = VECTOR_MAX_BLOCK_OPS * STUB_MAX_BYTES,
    SLOTS = 1 << 17, /* more than can ever be filled: the smallest stub takes 16 bytes of pool */
    MAX_STUBS = SLOTS / 2,
};

struct slot {
    uint32_t offset;
    uint32_t length; /* 0: free */
};

struct vector_pool {
    uint8_t *writable;
    const uint8_t *executable;
    size_t used_bytes;
    unsigned stubs;
    struct slot slot[SLOTS];
};

struct code {
    uint8_t bytes[STUB_MAX_BYTES];
    unsigned length;
};

/* The registers of an instruction that its stub has to move. */
struct plan {
    uint16_t vector_loads, vector_stores; /* bit n: register n */
    uint8_t hidden_loads, hidden_stores;  /* bits of RAX, RCX, RDX */
    bool gpr_load, gpr_store;             /* the explicit general register, as eax */
    bool gpr_in_rm;                       /* encoded in ModRM.rm rather than ModRM.reg */
    unsigned gpr;
    bool flags;
    bool memory;
    bool is_256bit;
};

bool stub_pool_open(struct cpu *cpu, struct error *err)
{
    struct vector_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        return error_errno(err, "cannot allocate the stub pool", NULL, ENOMEM);
    int fd = memfd_create("skep-stubs", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, POOL_BYTES) != 0) {
        error_errno(err, "cannot create the stub pool", NULL, errno);
        goto fail;
    }
    void *writable = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *executable = mmap(NULL, POOL_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (writable == MAP_FAILED || executable == MAP_FAILED) {
        error_errno(err, "cannot map the stub pool", NULL, errno);
        error_hint(err, "the software processor makes code at run time; a policy may forbid "
                        "executable memory here");
        if (writable != MAP_FAILED)
            munmap(writable, POOL_BYTES);
        if (executable != MAP_FAILED)
            munmap(executable, POOL_BYTES);
        goto fail;
    }
    close(fd);
    pool->writable = writable;
    pool->executable = executable;
    cpu->vector_pool = pool;
    return true;
fail:
    if (fd >= 0)
        close(fd);
    free(pool);
    return false;
}

void stub_pool_close(struct cpu *cpu)
{
    struct vector_pool *pool = cpu->vector_pool;
    if (pool == NULL)
        return;
    munmap(pool->writable, POOL_BYTES);
    munmap((void *)(uintptr_t)pool->executable, POOL_BYTES);
    free(pool);
    cpu->vector_pool = NULL;
}

bool stub_contains(const struct vector_pool *pool, uintptr_t address)
{
    return pool != NULL && address - (uintptr_t)pool->executable < POOL_BYTES;
}

bool vector_wants_flush(const struct cpu *cpu)
{
    const struct vector_pool *pool = cpu->vector_pool;
    return POOL_BYTES - pool->used_bytes < RESERVE_BYTES ||
           pool->stubs > MAX_STUBS - VECTOR_MAX_BLOCK_OPS;
}

void vector_flush_stubs(struct cpu *cpu)
{
    struct vector_pool *pool = cpu->vector_pool;
    if (pool->used_bytes == 0)
        return;
    memset(pool->slot, 0, sizeof(pool->slot));
    pool->used_bytes = 0;
    pool->stubs = 0;
    /* Addresses are about to hold other code, written through another mapping: let the processor
     * forget what it may have fetched (SDM 3A 8.1.3). A change of protection enters the kernel,
     * and its return serialises. */
    mprotect((void *)(uintptr_t)pool->executable, POOL_BYTES, PROT_READ);
    mprotect((void *)(uintptr_t)pool->executable, POOL_BYTES, PROT_READ | PROT_EXEC);
}

static void emit(struct code *code, const void *bytes, unsigned length)
{
    assert(code->length + length <= sizeof(code->bytes));
    memcpy(code->bytes + code->length, bytes, length);
    code->length += length;
}

#define EMIT(code, ...) emit(code, (const uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

static void emit_disp32(struct code *code, size_t offset)
{
    uint32_t disp = (uint32_t)offset;
    emit(code, &disp, sizeof(disp));
}

/* ModRM for [rdi + disp32]. */
static uint8_t modrm_cpu(unsigned reg)
{
    return (uint8_t)(0x80 | (reg & 7) << 3 | 7);
}

/* movups, or vmovups of 128 or 256 bits, between register n and struct cpu. */
static void emit_vector_move(struct code *code, unsigned n, bool store, bool is_vex, bool is_256bit)
{
    uint8_t opcode = store ? 0x11 : 0x10;
    if (is_vex)
        EMIT(code, 0xc5, (uint8_t)((n < 8 ? 0x80 : 0) | 0x78 | (is_256bit ? 4 : 0)), opcode);
    else if (n >= 8)
        EMIT(code, 0x44, 0x0f, opcode);
    else
        EMIT(code, 0x0f, opcode);
    EMIT(code, modrm_cpu(n));
    emit_disp32(code, offsetof(struct cpu, vector) + n * sizeof(struct vector_register));
}

/* mov between host register `reg` (rax, rcx, rdx) and a guest register. */
static void emit_gpr_move(struct code *code, unsigned reg, unsigned guest, bool store)
{
    EMIT(code, 0x48, store ? 0x89 : 0x8b, modrm_cpu(reg));
    emit_disp32(code, offsetof(struct cpu, gpr) + guest * sizeof(uint64_t));
}

static void emit_mxcsr_load(struct code *code)
{
    EMIT(code, 0x0f, 0xae, modrm_cpu(2));
    emit_disp32(code, offsetof(struct cpu, mxcsr));
}

/* Reads MXCSR back, and gives C code the default one unless the guest's differs in flags only. */
static void emit_mxcsr_store(struct code *code)
{
    EMIT(code, 0x0f, 0xae, modrm_cpu(3)); /* stmxcsr [rdi + mxcsr] */
    emit_disp32(code, offsetof(struct cpu, mxcsr));
    EMIT(code, 0x8b, modrm_cpu(0)); /* mov eax, [rdi + mxcsr] */
    emit_disp32(code, offsetof(struct cpu, mxcsr));
    EMIT(code, 0x83, 0xe0, 0xc0);                               /* and eax, ~3fh */
    EMIT(code, 0x3d, 0x80, 0x1f, 0x00, 0x00);                   /* cmp eax, 1f80h */
    EMIT(code, 0x74, 13);                                       /* je behind ldmxcsr */
    EMIT(code, 0xc7, 0x44, 0x24, 0xf8, 0x80, 0x1f, 0x00, 0x00); /* mov dword [rsp-8], 1f80h */
    EMIT(code, 0x0f, 0xae, 0x54, 0x24, 0xf8);                   /* ldmxcsr [rsp-8] */
}

static void emit_flags_load(struct code *code)
{
    EMIT(code, 0x0f, 0xb7, modrm_cpu(0)); /* movzx eax, word [rdi + cc] */
    emit_disp32(code, offsetof(struct cpu, cc));
    EMIT(code, 0x04, 0x7f); /* add al, 7fh: OF = bit 0 */
    EMIT(code, 0x9e);       /* sahf */
}

static void emit_flags_store(struct code *code)
{
    EMIT(code, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    EMIT(code, 0x66, 0x89, modrm_cpu(0));
    emit_disp32(code, offsetof(struct cpu, cc));
}

static bool plan_register(struct plan *plan, const ZydisDecodedOperand *operand, bool is_vex)
{
    bool reads = operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    bool writes = operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    ZydisRegister reg = operand->reg.value;
    int id = ZydisRegisterGetId(reg);
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
        if (id > 15)
            return false;
        /* Legacy instructions merge into their destination more often than the tables say. */
        if (reads || !is_vex || (operand->actions & ZYDIS_OPERAND_ACTION_CONDWRITE))
            plan->vector_loads |= (uint16_t)(1U << id);
        if (writes)
            plan->vector_stores |= (uint16_t)(1U << id);
        return true;
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        if (operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
            plan->hidden_loads |= (uint8_t)(reads << id);
            plan->hidden_stores |= (uint8_t)(writes << id);
            return id <= RDX;
        }
        plan->gpr = (unsigned)id;
        plan->gpr_load |= reads;
        plan->gpr_store |= writes;
        plan->gpr_in_rm = operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
        return plan->gpr_in_rm || operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
    case ZYDIS_REGCLASS_FLAGS: plan->flags = true; return true;
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_X87: return true;
    default:
        return reg == ZYDIS_REGISTER_X87STATUS || reg == ZYDIS_REGISTER_X87CONTROL ||
               reg == ZYDIS_REGISTER_X87TAG || reg == ZYDIS_REGISTER_MXCSR;
    }
}

static bool plan_make(const struct insn *insn, struct plan *plan)
{
    const ZydisDecodedInstruction *info = insn->info;
    bool is_vex = info->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    memset(plan, 0, sizeof(*plan));
    plan->is_256bit = is_vex && info->raw.vex.L;
    for (unsigned i = 0; i < info->operand_count; i++) {
        const ZydisDecodedOperand *operand = &insn->operands[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            if (!plan_register(plan, operand, is_vex))
                return false;
        } else if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (operand->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
                return false;
            plan->memory = true;
        }
    }
    return true;
}

/* ModRM of the stub's instruction; tells whether the extension bits R and B stay. */
static uint8_t make_modrm(const struct insn *insn, const struct plan *plan, bool *keep_r,
                          bool *keep_b)
{
    unsigned mod = insn->info->raw.modrm.mod;
    unsigned reg = insn->info->raw.modrm.reg;
    unsigned rm = insn->info->raw.modrm.rm;
    *keep_r = true;
    *keep_b = true;
    if (plan->gpr_load || plan->gpr_store) {
        if (plan->gpr_in_rm) {
            rm = RAX;
            *keep_b = false;
        } else {
            reg = RAX;
            *keep_r = false;
        }
    }
    if (plan->memory) {
        mod = 0;
        rm = RSI;
        *keep_b = false;
    }
    return (uint8_t)(mod << 6 | reg << 3 | rm);
}

static void emit_legacy(struct code *code, const struct insn *insn, const struct plan *plan)
{
    const ZydisDecodedInstruction *info = insn->info;
    for (unsigned i = 0; i < info->raw.prefix_count; i++)
        if (info->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            EMIT(code, info->raw.prefixes[i].value);
    bool keep_r, keep_b;
    uint8_t modrm = make_modrm(insn, plan, &keep_r, &keep_b);
    if (info->attributes & ZYDIS_ATTRIB_HAS_REX) {
        unsigned rex = info->raw.rex.W << 3 | (keep_r ? info->raw.rex.R << 2 : 0) |
                       (keep_b ? info->raw.rex.B : 0);
        if (rex != 0)
            EMIT(code, (uint8_t)(0x40 | rex));
    }
    switch (info->opcode_map) {
    case ZYDIS_OPCODE_MAP_0F: EMIT(code, 0x0f); break;
    case ZYDIS_OPCODE_MAP_0F38: EMIT(code, 0x0f, 0x38); break;
    case ZYDIS_OPCODE_MAP_0F3A: EMIT(code, 0x0f, 0x3a); break;
    default: break;
    }
    EMIT(code, info->opcode);
    if (info->attributes & ZYDIS_ATTRIB_HAS_MODRM)
        EMIT(code, modrm);
}

static void emit_vex(struct code *code, const struct insn *insn, const struct plan *plan)
{
    const ZydisDecodedInstruction *info = insn->info;
    const uint8_t *vex = insn->bytes + info->raw.vex.offset;
    bool is_short = vex[0] == 0xc5;
    uint8_t last = is_short ? vex[1] & 0x7f : vex[2]; /* W vvvv L pp */
    uint8_t map = is_short ? 1 : vex[1] & 0x1f;
    bool r = !(vex[1] & 0x80), b = !is_short && !(vex[1] & 0x20); /* stored inverted */
    bool keep_r, keep_b;
    uint8_t modrm = make_modrm(insn, plan, &keep_r, &keep_b);
    if ((insn->mode & MODE_SIZE_MASK) != MODE_64) {
        r = b = false;
        last = vector_vex_of_32bit(info, insn->operands, last);
    }
    EMIT(code, 0xc4, (uint8_t)((r && keep_r ? 0 : 0x80) | 0x40 | (b && keep_b ? 0 : 0x20) | map),
         last, info->opcode);
    if (info->attributes & ZYDIS_ATTRIB_HAS_MODRM)
        EMIT(code, modrm);
}

static void emit_instruction(struct code *code, const struct insn *insn, const struct plan *plan)
{
    const ZydisDecodedInstruction *info = insn->info;
    if (info->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        emit_vex(code, insn, plan);
    else
        emit_legacy(code, insn, plan);
    /* One immediate byte at most; it may name a register (is4), whose bit 3 counts in 64-bit mode
     * only. */
    bool has_is4 = false;
    for (unsigned i = 0; i < info->operand_count; i++)
        has_is4 |= insn->operands[i].encoding == ZYDIS_OPERAND_ENCODING_IS4;
    if (has_is4 || info->raw.imm[0].size != 0) {
        uint8_t imm = insn->bytes[info->length - 1];
        if (has_is4 && (insn->mode & MODE_SIZE_MASK) != MODE_64)
            imm &= 0x7f;
        EMIT(code, imm);
    }
}

static void emit_stub(struct code *code, const struct insn *insn, const struct plan *plan,
                      bool uses_mxcsr)
{
    bool is_vex = insn->info->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if (uses_mxcsr)
        emit_mxcsr_load(code);
    for (unsigned n = 0; n < 16; n++)
        if (plan->vector_loads & 1U << n)
            emit_vector_move(code, n, false, is_vex, plan->is_256bit);
    if (plan->flags)
        emit_flags_load(code);
    for (unsigned n = RAX; n <= RDX; n++)
        if (plan->hidden_loads & 1U << n)
            emit_gpr_move(code, n, n, false);
    if (plan->gpr_load)
        emit_gpr_move(code, RAX, plan->gpr, false);
    emit_instruction(code, insn, plan);
    if (plan->gpr_store)
        emit_gpr_move(code, RAX, plan->gpr, true);
    for (unsigned n = RAX; n <= RDX; n++)
        if (plan->hidden_stores & 1U << n)
            emit_gpr_move(code, n, n, true);
    if (plan->flags)
        emit_flags_store(code);
    /* A VEX.128 instruction has cleared the upper half of its destination: store it all. */
    for (unsigned n = 0; n < 16; n++)
        if (plan->vector_stores & 1U << n)
            emit_vector_move(code, n, true, is_vex, is_vex);
    if (plan->is_256bit)
        EMIT(code, 0xc5, 0xf8, 0x77); /* vzeroupper: C code uses legacy SSE */
    if (uses_mxcsr)
        emit_mxcsr_store(code);
    EMIT(code, 0xc3);
}

static uint32_t hash_code(const struct code *code)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (unsigned i = 0; i < code->length; i++)
        hash = (hash ^ code->bytes[i]) * 16777619u;
    return hash ^ hash >> 15;
}

/* The stub with this code, made if there is none yet. */
static const uint8_t *pool_intern(struct vector_pool *pool, const struct code *code)
{
    uint32_t i = hash_code(code) & (SLOTS - 1);
    for (; pool->slot[i].length != 0; i = (i + 1) & (SLOTS - 1))
        if (pool->slot[i].length == code->length &&
            memcmp(pool->writable + pool->slot[i].offset, code->bytes, code->length) == 0)
            return pool->executable + pool->slot[i].offset;
    assert(POOL_BYTES - pool->used_bytes >= STUB_MAX_BYTES && pool->stubs < MAX_STUBS);
    pool->slot[i].offset = (uint32_t)pool->used_bytes;
    pool->slot[i].length = code->length;
    memcpy(pool->writable + pool->used_bytes, code->bytes, code->length);
    pool->used_bytes += (code->length + STUB_ALIGN_BYTES - 1) & ~(size_t)(STUB_ALIGN_BYTES - 1);
    pool->stubs++;
    return pool->executable + pool->slot[i].offset;
}

bool stub_bind(const struct insn *insn, struct op *op, bool uses_mxcsr)
{
    struct plan plan;
    struct code code = {.length = 0};
    if (!plan_make(insn, &plan))
        return false;
    emit_stub(&code, insn, &plan, uses_mxcsr);
    op->aux = (void *)(uintptr_t)pool_intern(insn->cpu->vector_pool, &code);
    return true;
}
