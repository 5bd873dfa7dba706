/* SPDX-License-Identifier: BSD-2-Clause
 * The table of registers: see registers.h. */
#include "vm/gdb/registers.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* What a row of the tables below says: a field of struct x86_state. */
struct row {
    const char *name;
    const char *type;
    uint16_t offset;
    uint8_t field_bytes;
    bool is_read_only;
};

#define FIELD(name, type, field)                                                                   \
    {                                                                                              \
        name, type, offsetof(struct x86_state, field), sizeof(((struct x86_state *)0)->field),     \
            false                                                                                  \
    }
/* What soft and KVM keep in other places than the processor's state. */
#define FIELD_READ_ONLY(name, type, field)                                                         \
    {                                                                                              \
        name, type, offsetof(struct x86_state, field), sizeof(((struct x86_state *)0)->field),     \
            true                                                                                   \
    }
#define SEGMENT(name, segment)                                                                     \
    FIELD(name "_limit", "int", segment.limit), FIELD(name "_attr", "int", segment.attributes)
#define TABLE(name, table)                                                                         \
    FIELD(name "_base", "data_ptr", table.base), FIELD(name "_limit", "int", table.limit)

static const struct row bases[] = {
    FIELD("fs_base", "int", segment[SEG_FS].base),
    FIELD("gs_base", "int", segment[SEG_GS].base),
};

static const struct row system_rows[] = {
    FIELD("cs_base", "data_ptr", segment[SEG_CS].base),
    FIELD("ss_base", "data_ptr", segment[SEG_SS].base),
    FIELD("ds_base", "data_ptr", segment[SEG_DS].base),
    FIELD("es_base", "data_ptr", segment[SEG_ES].base),
    FIELD("k_gs_base", "data_ptr", kernel_gs_base),
    FIELD("cr0", "cr0", cr0),
    FIELD("cr2", "data_ptr", cr2),
    FIELD("cr3", "int", cr3),
    FIELD("cr4", "cr4", cr4),
    FIELD_READ_ONLY("cr8", "int", cr8),
    FIELD("efer", "efer", efer),
    FIELD("xcr0", "xcr0", xcr0),
    SEGMENT("cs", segment[SEG_CS]),
    SEGMENT("ss", segment[SEG_SS]),
    SEGMENT("ds", segment[SEG_DS]),
    SEGMENT("es", segment[SEG_ES]),
    SEGMENT("fs", segment[SEG_FS]),
    SEGMENT("gs", segment[SEG_GS]),
    FIELD("ldtr", "int", segment[SEG_LDTR].selector),
    FIELD("ldtr_base", "data_ptr", segment[SEG_LDTR].base),
    SEGMENT("ldtr", segment[SEG_LDTR]),
    FIELD("tr", "int", segment[SEG_TR].selector),
    FIELD("tr_base", "data_ptr", segment[SEG_TR].base),
    SEGMENT("tr", segment[SEG_TR]),
    TABLE("gdtr", gdtr),
    TABLE("idtr", idtr),
    FIELD("dr0", "data_ptr", dr[0]),
    FIELD("dr1", "data_ptr", dr[1]),
    FIELD("dr2", "data_ptr", dr[2]),
    FIELD("dr3", "data_ptr", dr[3]),
    FIELD("dr6", "int", dr[6]),
    FIELD("dr7", "int", dr[7]),
    FIELD("star", "int", star),
    FIELD("lstar", "code_ptr", lstar),
    FIELD("cstar", "code_ptr", cstar),
    FIELD("sfmask", "int", sfmask),
    FIELD("sysenter_cs", "int", sysenter_cs),
    FIELD("sysenter_esp", "data_ptr", sysenter_esp),
    FIELD("sysenter_eip", "code_ptr", sysenter_eip),
    FIELD("pat", "int", pat),
    FIELD("misc_enable", "int", misc_enable),
    FIELD("tsc_aux", "int", tsc_aux),
    FIELD_READ_ONLY("tsc", "int", tsc),
    FIELD_READ_ONLY("tsc_deadline", "int", tsc_deadline),
    FIELD_READ_ONLY("apic_base", "int", apic_base),
};

/* In GDB's order. */
static const struct {
    const char *name64, *name32;
    uint8_t gpr;
} gprs64[] = {{"rax", "", RAX}, {"rbx", "", RBX}, {"rcx", "", RCX}, {"rdx", "", RDX},
              {"rsi", "", RSI}, {"rdi", "", RDI}, {"rbp", "", RBP}, {"rsp", "", RSP},
              {"r8", "", R8},   {"r9", "", R9},   {"r10", "", R10}, {"r11", "", R11},
              {"r12", "", R12}, {"r13", "", R13}, {"r14", "", R14}, {"r15", "", R15}},
  gprs32[] = {{"", "eax", RAX}, {"", "ecx", RCX}, {"", "edx", RDX}, {"", "ebx", RBX},
              {"", "esp", RSP}, {"", "ebp", RBP}, {"", "esi", RSI}, {"", "edi", RDI}};

enum { COUNT64 = sizeof(gprs64) / sizeof(gprs64[0]), COUNT32 = sizeof(gprs32) / sizeof(gprs32[0]) };

static struct gdb_register *add(struct gdb_registers *r, const char *feature, const char *name,
                                enum gdb_register_kind kind, const char *type, unsigned size_bytes)
{
    assert(r->count < GDB_MAX_REGISTERS);
    struct gdb_register *reg = &r->list[r->count++];
    *reg = (struct gdb_register){
        .type = type, .feature = feature, .size_bytes = (uint8_t)size_bytes, .kind = (uint8_t)kind};
    snprintf(reg->name, sizeof(reg->name), "%s", name);
    return reg;
}

static void add_gpr(struct gdb_registers *r, const char *name, unsigned gpr)
{
    bool is_stack = gpr == RSP || gpr == RBP;
    unsigned size_bytes = r->arch == GDB_X86_64 ? 8 : 4;
    const char *type = is_stack ? "data_ptr" : size_bytes == 8 ? "int64" : "int32";
    struct gdb_register *reg = add(r, "core", name, GDB_GPR, type, size_bytes);
    reg->offset = (uint16_t)(offsetof(struct x86_state, gpr) + gpr * sizeof(uint64_t));
    reg->field_bytes = 8;
}

static void add_rows(struct gdb_registers *r, const char *feature, const char *group,
                     const struct row *rows, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bool is_pointer = strstr(rows[i].type, "_ptr");
        unsigned size_bytes = is_pointer ? r->arch == GDB_X86_64 ? 8 : 4 : rows[i].field_bytes;
        struct gdb_register *reg =
            add(r, feature, rows[i].name, GDB_FIELD, rows[i].type, size_bytes);
        reg->offset = rows[i].offset;
        reg->field_bytes = rows[i].field_bytes;
        reg->group = group;
        reg->is_read_only = rows[i].is_read_only;
    }
}

static void add_numbered(struct gdb_registers *r, const char *feature, const char *prefix,
                         const char *suffix, unsigned count, enum gdb_register_kind kind,
                         const char *type, unsigned size_bytes)
{
    for (unsigned i = 0; i < count; i++) {
        char name[12];
        snprintf(name, sizeof(name), "%s%u%s", prefix, i, suffix);
        add(r, feature, name, kind, type, size_bytes)->index = (uint8_t)i;
    }
}

static void add_core(struct gdb_registers *r)
{
    static const struct {
        const char *name;
        uint8_t segment;
    } selectors[] = {{"cs", SEG_CS}, {"ss", SEG_SS}, {"ds", SEG_DS},
                     {"es", SEG_ES}, {"fs", SEG_FS}, {"gs", SEG_GS}};
    static const char *const controls[] = {"fctrl", "fstat", "ftag",  "fiseg",
                                           "fioff", "foseg", "fooff", "fop"};
    bool is_64bit = r->arch == GDB_X86_64;
    for (unsigned i = 0; i < (is_64bit ? COUNT64 : COUNT32); i++)
        add_gpr(r, is_64bit ? gprs64[i].name64 : gprs32[i].name32,
                is_64bit ? gprs64[i].gpr : gprs32[i].gpr);
    struct gdb_register *rip =
        add(r, "core", is_64bit ? "rip" : "eip", GDB_FIELD, "code_ptr", is_64bit ? 8 : 4);
    rip->offset = offsetof(struct x86_state, rip);
    rip->field_bytes = 8;
    add(r, "core", "eflags", GDB_FLAGS, "i386_eflags", 4);
    for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++)
        add(r, "core", selectors[i].name, GDB_SELECTOR, "int32", 4)->index = selectors[i].segment;
    add_numbered(r, "core", "st", "", 8, GDB_X87, "i387_ext", 10);
    for (unsigned i = 0; i < sizeof(controls) / sizeof(controls[0]); i++) {
        struct gdb_register *reg = add(r, "core", controls[i], GDB_CONTROL, "int", 4);
        reg->index = (uint8_t)i;
        reg->group = "float";
    }
}

void gdb_registers_list(struct gdb_registers *r, enum gdb_arch arch)
{
    unsigned vectors = arch == GDB_X86_64 ? 16 : 8;
    *r = (struct gdb_registers){.arch = arch};
    add_core(r);
    add_numbered(r, "sse", "xmm", "", vectors, GDB_XMM, "vec128", 16);
    add(r, "sse", "mxcsr", GDB_MXCSR, "i386_mxcsr", 4)->group = "vector";
    /* GDB takes a guest with Linux symbols for a Linux process, and wants this. */
    add(r, "linux", arch == GDB_X86_64 ? "orig_rax" : "orig_eax", GDB_ORIG_RAX,
        arch == GDB_X86_64 ? "int64" : "int32", arch == GDB_X86_64 ? 8 : 4)
        ->is_read_only = true;
    if (arch == GDB_X86_64)
        add_rows(r, "segments", NULL, bases, sizeof(bases) / sizeof(bases[0]));
    add_numbered(r, "avx", "ymm", "h", vectors, GDB_YMM_HIGH, "uint128", 16);
    if (arch == GDB_I386)
        add_rows(r, "system", NULL, bases, sizeof(bases) / sizeof(bases[0]));
    add_rows(r, "system", NULL, system_rows, sizeof(system_rows) / sizeof(system_rows[0]));
}

/* ---- the XSAVE area, SDM 1 13.4 ---- */

enum {
    XSAVE_FCW = 0,
    XSAVE_FSW = 2,
    XSAVE_TAGS = 4,
    XSAVE_FOP = 6,
    XSAVE_FIP = 8,
    XSAVE_FDP = 16,
    XSAVE_MXCSR = 24,
    XSAVE_ST = 32,
    XSAVE_XMM = 160,
    XSAVE_BV = 512,
    XSAVE_YMM = 576,
    COMPONENT_X87 = 1,
    COMPONENT_SSE = 2,
    COMPONENT_AVX = 4,
};

/* A component whose bit is clear is in its initial state, whatever its bytes are (13.6). */
static void settle(uint8_t *xsave, unsigned component)
{
    static const uint8_t initial_control[24] = {0x7f, 0x03};
    if (xsave[XSAVE_BV] & component)
        return;
    xsave[XSAVE_BV] |= (uint8_t)component;
    switch (component) {
    case COMPONENT_X87:
        memcpy(xsave, initial_control, sizeof(initial_control));
        memset(xsave + XSAVE_ST, 0, 128);
        break;
    case COMPONENT_SSE: memset(xsave + XSAVE_XMM, 0, 256); break;
    default: memset(xsave + XSAVE_YMM, 0, 256); break;
    }
}

static uint64_t load(const uint8_t *bytes, unsigned size_bytes)
{
    uint64_t value = 0;
    memcpy(&value, bytes, size_bytes < 8 ? size_bytes : 8);
    return value;
}

/* ---- the x87's control registers ---- */

enum x87_control { FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP };
enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned tag_of(const uint8_t *st)
{
    uint64_t mantissa = load(st, 8);
    unsigned exponent = (unsigned)load(st + 8, 2) & 0x7fff;
    if (exponent == 0)
        return mantissa ? TAG_SPECIAL : TAG_ZERO;
    return exponent != 0x7fff && mantissa >> 63 ? TAG_VALID : TAG_SPECIAL;
}

/* The full tag word of FSTENV from the one bit a register of FXSAVE (SDM 1 10.5.1.1): tags are by
 * physical register, ST by top of stack. */
static unsigned full_tags(const uint8_t *xsave)
{
    unsigned top = (unsigned)load(xsave + XSAVE_FSW, 2) >> 11 & 7;
    unsigned tags = 0;
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *st = xsave + XSAVE_ST + ((i - top) & 7) * 16;
        unsigned tag = xsave[XSAVE_TAGS] >> i & 1 ? tag_of(st) : TAG_EMPTY;
        tags |= tag << 2 * i;
    }
    return tags;
}

static uint8_t short_tags(uint64_t tags)
{
    uint8_t result = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((tags >> 2 * i & 3) != TAG_EMPTY)
            result |= (uint8_t)(1 << i);
    return result;
}

static const struct {
    uint8_t offset, size_bytes;
} control_place[] = {
    [FCTRL] = {XSAVE_FCW, 2},     [FSTAT] = {XSAVE_FSW, 2}, [FTAG] = {XSAVE_TAGS, 1},
    [FISEG] = {XSAVE_FIP + 4, 4}, [FIOFF] = {XSAVE_FIP, 4}, [FOSEG] = {XSAVE_FDP + 4, 4},
    [FOOFF] = {XSAVE_FDP, 4},     [FOP] = {XSAVE_FOP, 2},
};

static uint64_t get_control(const uint8_t *xsave, unsigned index)
{
    if (index == FTAG)
        return full_tags(xsave);
    return load(xsave + control_place[index].offset, control_place[index].size_bytes);
}

static void set_control(uint8_t *xsave, unsigned index, uint64_t value)
{
    if (index == FTAG)
        value = short_tags(value);
    memcpy(xsave + control_place[index].offset, &value, control_place[index].size_bytes);
}

/* ---- getting and setting ---- */

static unsigned component_of(const struct gdb_register *reg)
{
    switch (reg->kind) {
    case GDB_X87:
    case GDB_CONTROL: return COMPONENT_X87;
    case GDB_XMM: return COMPONENT_SSE;
    case GDB_YMM_HIGH: return COMPONENT_AVX;
    default: return 0;
    }
}

/* Where the bytes of a vector or x87 register stand. */
static unsigned xsave_offset(const struct gdb_register *reg)
{
    switch (reg->kind) {
    case GDB_X87: return XSAVE_ST + reg->index * 16u;
    case GDB_XMM: return XSAVE_XMM + reg->index * 16u;
    case GDB_YMM_HIGH: return XSAVE_YMM + reg->index * 16u;
    default: return XSAVE_MXCSR;
    }
}

void gdb_register_get(const struct gdb_register *reg, const struct x86_state *state, uint8_t *bytes)
{
    uint8_t xsave[X86_XSAVE_BYTES];
    uint64_t value = 0;
    memset(bytes, 0, GDB_REGISTER_BYTES);
    memcpy(xsave, state->xsave, sizeof(xsave));
    if (component_of(reg))
        settle(xsave, component_of(reg));
    switch (reg->kind) {
    case GDB_FLAGS: value = state->rflags; break;
    case GDB_SELECTOR: value = state->segment[reg->index].selector; break;
    case GDB_CONTROL: value = get_control(xsave, reg->index); break;
    case GDB_ORIG_RAX: value = UINT64_MAX; break;
    case GDB_GPR:
    case GDB_FIELD: value = load((const uint8_t *)state + reg->offset, reg->field_bytes); break;
    default: memcpy(bytes, xsave + xsave_offset(reg), reg->size_bytes); return;
    }
    memcpy(bytes, &value, reg->size_bytes < 8 ? reg->size_bytes : 8);
}

/* Real and virtual-8086 mode load the base with it. In other modes the hidden part stays as it is:
 * its base, limit and attributes are registers of their own. */
static void set_selector(struct x86_state *state, unsigned segment, uint16_t selector)
{
    bool is_real = !(state->cr0 & 1) || (state->rflags & 1 << 17);
    if (is_real && selector != state->segment[segment].selector)
        state->segment[segment].base = (uint64_t)selector << 4;
    state->segment[segment].selector = selector;
}

/* A 32-bit register of GDB_I386 leaves what is above it alone. */
static void set_field(const struct gdb_register *reg, struct x86_state *state, uint64_t value)
{
    uint8_t *field = (uint8_t *)state + reg->offset;
    unsigned size_bytes = reg->size_bytes < reg->field_bytes ? reg->size_bytes : reg->field_bytes;
    memcpy(field, &value, size_bytes);
}

/* After a change of these the PDPTEs of PAE paging are to be read from memory again. */
static bool is_paging_control(const struct gdb_register *reg)
{
    return reg->kind == GDB_FIELD && (reg->offset == offsetof(struct x86_state, cr0) ||
                                      reg->offset == offsetof(struct x86_state, cr3) ||
                                      reg->offset == offsetof(struct x86_state, cr4) ||
                                      reg->offset == offsetof(struct x86_state, efer));
}

bool gdb_register_set(const struct gdb_register *reg, struct x86_state *state, const uint8_t *bytes)
{
    uint8_t old[GDB_REGISTER_BYTES];
    uint64_t value = load(bytes, reg->size_bytes);
    gdb_register_get(reg, state, old);
    if (memcmp(old, bytes, reg->size_bytes) == 0)
        return true;
    if (reg->is_read_only)
        return false;
    if (component_of(reg))
        settle(state->xsave, component_of(reg));
    switch (reg->kind) {
    case GDB_FLAGS: state->rflags = value | 2; break;
    case GDB_SELECTOR: set_selector(state, reg->index, (uint16_t)value); break;
    case GDB_CONTROL: set_control(state->xsave, reg->index, value); break;
    case GDB_GPR:
    case GDB_FIELD:
        set_field(reg, state, value);
        state->has_pdptes &= !is_paging_control(reg);
        break;
    default: memcpy(state->xsave + xsave_offset(reg), bytes, reg->size_bytes); break;
    }
    return true;
}
