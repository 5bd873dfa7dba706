/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A difference told: which instruction, what each side made of it, and the code. The error has what
 * fits a line or two, the log all.
 */
#include "cpu/soft/translator/check.h"

#include "cpu/soft/translator/internal.h"

#include <stdarg.h>
#include <stdio.h>

enum { MODULE_LINE_BYTES = 512, CODE_BYTES_A_LINE = 32, MEMORY_LINES = 16 };

static void tell(struct cpu *cpu, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void tell(struct cpu *cpu, const char *format, ...)
{
    char line[MODULE_LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    log_write(cpu->system->log, LOG_ERROR, "check", "%s", line);
}

/* Appends to `text`, as far as there is room. */
static void append(char *text, size_t room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void append(char *text, size_t room, const char *format, ...)
{
    size_t length = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + length, room - length, format, arguments);
    va_end(arguments);
}

/* --- instructions --------------------------------------------------------------------------- */

static void disassemble(const struct check *check, const struct op *op, char *text, size_t room)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    const uint8_t *bytes = check->block->bytes + op->offset;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, op->length, &info, operands)) ||
        !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &info, operands,
                                                      info.operand_count_visible, text, room,
                                                      check->before.rip + op->offset, NULL)))
        snprintf(text, room, "(not an instruction)");
}

static void hex(const uint8_t *bytes, unsigned count, char *text, size_t room)
{
    *text = 0;
    for (unsigned i = 0; i < count; i++)
        append(text, room, i ? " %02x" : "%02x", bytes[i]);
}

static void tell_instruction(struct cpu *cpu, const struct op *op, bool is_suspect)
{
    const struct check *check = cpu->check;
    char bytes[3 * INSN_MAX_BYTES + 1], text[128];
    hex(check->block->bytes + op->offset, op->length, bytes, sizeof(bytes));
    disassemble(check, op, text, sizeof(text));
    tell(cpu, "%s %#llx  %-30s %s", is_suspect ? ">" : " ",
         (unsigned long long)(check->before.rip + op->offset), bytes, text);
}

/* --- which one ------------------------------------------------------------------------------ */

/* Registers and bytes of memory that are different. By what they were after each instruction of the
 * interpreter one can tell which one has made them. */
enum { MAX_SUSPECTS = 128 };

struct suspects {
    unsigned count;
    struct suspect {
        bool is_register;
        unsigned reg, line, byte;
        int last; /* the op that changed it last, -1: none */
        uint8_t value[CHECK_VALUE_BYTES + 1];
    } suspect[MAX_SUSPECTS];
};

static bool is_register_different(struct cpu *cpu, unsigned number, unsigned *size_bytes,
                                  uint8_t expected[CHECK_VALUE_BYTES],
                                  uint8_t found[CHECK_VALUE_BYTES], const char **name)
{
    const struct check *check = cpu->check;
    struct check_state same_flags = *check->found;
    same_flags.cc = check->expected.cc ^ check_flags(cpu);
    *size_bytes = check_register(&check->expected, number, expected, name);
    check_register(&same_flags, number, found, name);
    return memcmp(expected, found, *size_bytes) != 0;
}

static void add_suspect(struct suspects *suspects, struct suspect suspect)
{
    if (suspects->count < MAX_SUSPECTS)
        suspects->suspect[suspects->count++] = suspect;
}

/* RIP, number 0, is never one: each instruction changes it. */
static void find_suspects(struct cpu *cpu, struct suspects *suspects)
{
    const struct check *check = cpu->check;
    uint8_t a[CHECK_VALUE_BYTES], b[CHECK_VALUE_BYTES];
    const char *name;
    unsigned size;
    suspects->count = 0;
    for (unsigned i = 1; check_register(check->found, i, a, &name) > 0; i++)
        if (is_register_different(cpu, i, &size, a, b, &name))
            add_suspect(suspects, (struct suspect){.is_register = true, .reg = i});
    for (unsigned line = 0; line < check->trial->line_count; line++)
        for (unsigned i = 0; i < TRIAL_LINE_BYTES; i++)
            if (!check_byte(check, line, i))
                add_suspect(suspects, (struct suspect){.line = line, .byte = i});
}

/* What it is now; of memory, whether it was written, too. */
static void suspect_value(const struct check *check, const struct suspect *suspect,
                          uint8_t value[CHECK_VALUE_BYTES + 1])
{
    const char *name;
    memset(value, 0, CHECK_VALUE_BYTES + 1);
    if (suspect->is_register) {
        check_register(&check->expected, suspect->reg, value, &name);
    } else {
        value[0] = check_expected_byte(check, suspect->line, suspect->byte);
        value[1] = check->trial->line[suspect->line].written >> suspect->byte & 1;
    }
}

/* After the first `ops` instructions. */
static void look_at_suspects(struct cpu *cpu, struct suspects *suspects, unsigned ops)
{
    check_try_again(cpu, ops, CHECK_NO_COUNT);
    for (unsigned i = 0; i < suspects->count; i++) {
        struct suspect *suspect = &suspects->suspect[i];
        uint8_t now[CHECK_VALUE_BYTES + 1];
        suspect_value(cpu->check, suspect, now);
        if (ops == 0)
            suspect->last = -1;
        else if (memcmp(now, suspect->value, sizeof(now)) != 0)
            suspect->last = (int)ops - 1;
        memcpy(suspect->value, now, sizeof(now));
    }
}

/* The first of those that changed last what is different. None does: translated code has touched
 * what it must not, anywhere, and the last one is named. */
static const struct op *blame_change(struct cpu *cpu)
{
    struct check *check = cpu->check;
    struct suspects suspects;
    const unsigned limit = check->limit, begun = check->begun;
    const uint64_t string_count = check->string_count;
    find_suspects(cpu, &suspects);
    for (unsigned i = 0; i <= begun; i++)
        look_at_suspects(cpu, &suspects, i);
    check_try_again(cpu, limit, string_count);
    int first = begun > 0 ? (int)begun - 1 : 0;
    for (unsigned i = 0; i < suspects.count; i++)
        if (suspects.suspect[i].last >= 0 && suspects.suspect[i].last < first)
            first = suspects.suspect[i].last;
    return &check->block->op[first];
}

static const struct op *op_at(const struct check *check, uint64_t rip)
{
    for (struct op *op = check->block->op; op != check->block->end; op++)
        if (check->before.rip + op->offset == rip)
            return op;
    return check->block->end - 1;
}

static const struct op *find_blamed(struct cpu *cpu)
{
    const struct check *check = cpu->check;
    const struct check_state *expected = &check->expected, *found = check->found;
    if (expected->has_raised && found->has_raised)
        return op_at(check, expected->rip < found->rip ? expected->rip : found->rip);
    if (expected->has_raised || found->has_raised)
        return op_at(check, expected->has_raised ? expected->rip : found->rip);
    return blame_change(cpu);
}

/* --- what is different ---------------------------------------------------------------------- */

/* Numbers with the highest byte first. */
static void number(const uint8_t *value, unsigned size_bytes, char *text, size_t room)
{
    *text = 0;
    for (unsigned i = size_bytes; i-- > 0;)
        append(text, room, "%02x", value[i]);
}

static void add_cause(struct check *check, const char *name, const char *expected,
                      const char *found)
{
    char *cause = check->error.cause;
    size_t room = sizeof(check->error.cause);
    if (strlen(cause) + strlen(name) + strlen(expected) + strlen(found) + 32 < room)
        append(cause, room, "%s%s is %s, should be %s", *cause ? "; " : "", name, found, expected);
}

static void tell_one(struct cpu *cpu, const char *name, const uint8_t *before,
                     const uint8_t *expected, const uint8_t *found, unsigned size_bytes)
{
    char text[3][2 * CHECK_VALUE_BYTES + 1];
    number(before, size_bytes, text[0], sizeof(text[0]));
    number(expected, size_bytes, text[1], sizeof(text[1]));
    number(found, size_bytes, text[2], sizeof(text[2]));
    tell(cpu, "  %s: before %s, interpreter %s, translated %s", name, text[0], text[1], text[2]);
    add_cause(cpu->check, name, text[1], text[2]);
}

static void tell_registers(struct cpu *cpu)
{
    const struct check *check = cpu->check;
    uint8_t before[CHECK_VALUE_BYTES], expected[CHECK_VALUE_BYTES], found[CHECK_VALUE_BYTES];
    const char *name;
    unsigned size;
    for (unsigned i = 0; check_register(&check->before, i, before, &name) > 0; i++)
        if (is_register_different(cpu, i, &size, expected, found, &name))
            tell_one(cpu, name, before, expected, found, size);
}

/* Words of eight bytes in which a byte is different. */
static void tell_memory(struct cpu *cpu)
{
    const struct check *check = cpu->check;
    unsigned lines = 0;
    for (unsigned line = 0; line < check->trial->line_count; line++)
        for (unsigned at = 0; at < TRIAL_LINE_BYTES && lines < MEMORY_LINES; at += 8) {
            const struct trial_line *of = &check->trial->line[line];
            uint8_t before[8], expected[8], found[8];
            bool is_same = true;
            for (unsigned i = 0; i < 8; i++) {
                bool is_known = of->known >> (at + i) & 1;
                is_same &= check_byte(check, line, at + i);
                found[i] = check->found_memory[line][at + i];
                before[i] = is_known ? of->before[at + i] : found[i];
                expected[i] = is_known ? check_expected_byte(check, line, at + i) : found[i];
            }
            if (is_same)
                continue;
            char name[48];
            snprintf(name, sizeof(name), "memory at gpa %#llx",
                     (unsigned long long)soft_gpa_of(cpu->system, of->hva + at));
            tell_one(cpu, name, before, expected, found, 8);
            lines++;
        }
}

static void describe_raised(const struct check_state *state, char *text, size_t room)
{
    if (!state->has_raised)
        snprintf(text, room, "none");
    else if (state->pending.has_error_code)
        snprintf(text, room, "%u(%#x)", state->pending.vector, state->pending.error_code);
    else
        snprintf(text, room, "%u", state->pending.vector);
}

static void tell_raised(struct cpu *cpu)
{
    char expected[32], found[32];
    describe_raised(&cpu->check->expected, expected, sizeof(expected));
    describe_raised(cpu->check->found, found, sizeof(found));
    if (strcmp(expected, found) == 0)
        return;
    tell(cpu, "  exception: interpreter %s, translated %s", expected, found);
    add_cause(cpu->check, "exception", expected, found);
}

/* --- the whole ------------------------------------------------------------------------------ */

static void tell_code(struct cpu *cpu)
{
    const struct check *check = cpu->check;
    const unsigned size = check->block->host_bytes;
    tell(cpu, "host code, %u bytes at %p:", size, (const void *)check->code);
    for (unsigned at = 0; at < size; at += CODE_BYTES_A_LINE) {
        char text[3 * CODE_BYTES_A_LINE + 1];
        unsigned count = size - at < CODE_BYTES_A_LINE ? size - at : CODE_BYTES_A_LINE;
        hex(check->code + at, count, text, sizeof(text));
        tell(cpu, "  %s", text);
    }
}

void check_report(struct cpu *cpu)
{
    struct check *check = cpu->check;
    const struct op *blamed = find_blamed(cpu);
    const unsigned long long rip = check->before.rip + blamed->offset;
    char text[128], where[sizeof(check->error.where)];
    disassemble(check, blamed, text, sizeof(text));
    snprintf(where, sizeof(where), "%s at RIP %#llx of vCPU %u", text, rip, cpu->index);
    error_set(&check->error, "translated code differs from the interpreter in", where, "%s", "");
    tell(cpu, "difference in %s; block at %#llx, compared %s", where,
         (unsigned long long)check->before.rip,
         check->has_stopped ? "up to an instruction that can't run twice" : "to its end");
    for (const struct op *op = check->block->op; op != check->block->end; op++)
        tell_instruction(cpu, op, op == blamed);
    tell_raised(cpu);
    tell_registers(cpu);
    tell_memory(cpu);
    tell_code(cpu);
    error_hint(&check->error, "the log lines of check have both states and the host code; the "
                              "guest runs without them under translator=off");
}
