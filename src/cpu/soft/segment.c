/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Segments: addresses through them, descriptors and their checks, the stack. SDM 3A chapters 3 and
 * 5.
 */
#include "cpu/soft/core.h"

void raise_selector(struct cpu *cpu, enum x86_vector vector, uint16_t selector)
{
    cpu_raise_code(cpu, vector, (selector & ~SELECTOR_RPL) | (cpu->delivering_ext ? 1 : 0));
}

void raise_zero(struct cpu *cpu, enum x86_vector vector)
{
    cpu_raise_code(cpu, vector, cpu->delivering_ext ? 1 : 0);
}

void cpu_raise_missing(struct cpu *cpu, const char *feature, uint32_t error_code)
{
    log_limited(cpu->system->log, &cpu->system->log_limit, LOG_WARNING, "cpu",
                "the guest uses %s, which the software processor lacks", feature);
    cpu_raise_code(cpu, VECTOR_GP, error_code);
}

/* --- addresses ------------------------------------------------------------------------------ */

static _Noreturn void raise_segment(struct cpu *cpu, enum x86_segment_name name)
{
    cpu_raise_code(cpu, name == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

static bool is_expand_down(const struct x86_segment *segment)
{
    return (segment->attributes & (SEGMENT_S | TYPE_CODE | TYPE_EXPAND_DOWN)) ==
           (SEGMENT_S | TYPE_EXPAND_DOWN);
}

static bool is_in_limit(const struct x86_segment *segment, uint64_t offset, unsigned size_bytes)
{
    uint64_t last = offset + size_bytes - 1;
    if (!is_expand_down(segment)) /* at 4 GiB too, where SDM 3A 5.3 would let an access wrap */
        return last <= segment->limit;
    return offset > segment->limit &&
           last <= (segment->attributes & SEGMENT_DB ? UINT32_MAX : UINT16_MAX);
}

static bool is_type_allowed(const struct x86_segment *segment, enum memory_access access)
{
    bool is_code = segment->attributes & TYPE_CODE;
    if (access == ACCESS_WRITE)
        return !is_code && (segment->attributes & TYPE_WRITABLE);
    return !is_code || (segment->attributes & TYPE_READABLE);
}

struct segment_bounds segment_bounds_of(const struct x86_segment *segment, bool is_real)
{
    bool is_usable = is_real || !(segment->attributes & SEGMENT_UNUSABLE);
    int64_t last = is_usable && !is_expand_down(segment) ? (int64_t)segment->limit : -1;
    return (struct segment_bounds){
        .read_last = is_real || is_type_allowed(segment, ACCESS_READ) ? last : -1,
        .write_last = is_real || is_type_allowed(segment, ACCESS_WRITE) ? last : -1,
    };
}

uint64_t segment_address(struct cpu *cpu, enum x86_segment_name name, uint64_t offset,
                         unsigned size_bytes, enum memory_access access)
{
    const struct x86_segment *segment = &cpu->segment[name];
    if (cpu_is_64bit(cpu)) {
        uint64_t linear = name >= SEG_FS ? offset + segment->base : offset;
        if (!is_canonical(linear) || !is_canonical(linear + size_bytes - 1))
            raise_segment(cpu, name);
        return linear;
    }
    if (!is_in_limit(segment, offset, size_bytes))
        raise_segment(cpu, name);
    if (!is_real_mode(cpu) &&
        ((segment->attributes & SEGMENT_UNUSABLE) || !is_type_allowed(segment, access)))
        raise_segment(cpu, name);
    return (uint32_t)(segment->base + offset);
}

uint64_t op_address_slow(struct cpu *cpu, const struct op *op, unsigned size_bytes,
                         enum memory_access access)
{
    uint64_t offset = op_effective(cpu, op);
    if (cpu_is_64bit(cpu))
        return op->segment >= SEG_FS ? offset + cpu->segment[op->segment].base : offset;
    return segment_address(cpu, op->segment, (uint32_t)offset, size_bytes, access);
}

/* --- the stack ------------------------------------------------------------------------------ */

uint64_t stack_mask_of(const struct cpu *cpu)
{
    if (cpu_is_64bit(cpu))
        return UINT64_MAX;
    return cpu->mode & MODE_STACK32 ? UINT32_MAX : UINT16_MAX;
}

void stack_set_pointer(struct cpu *cpu, uint64_t value)
{
    uint64_t mask = stack_mask_of(cpu);
    uint64_t keep = mask == UINT16_MAX ? ~mask : 0;
    cpu->gpr[RSP] = (cpu->gpr[RSP] & keep) | (value & mask);
}

static uint64_t stack_linear(struct cpu *cpu, uint64_t offset, unsigned size_bytes,
                             enum memory_access access)
{
    return segment_address(cpu, SEG_SS, offset & stack_mask_of(cpu), size_bytes, access);
}

void stack_push(struct cpu *cpu, uint64_t value, unsigned size_bytes)
{
    uint64_t rsp = cpu->gpr[RSP] - size_bytes;
    memory_write(cpu, stack_linear(cpu, rsp, size_bytes, ACCESS_WRITE), &value, size_bytes);
    stack_set_pointer(cpu, rsp);
}

uint64_t stack_peek(struct cpu *cpu, unsigned index, unsigned size_bytes)
{
    uint64_t value = 0;
    uint64_t at = cpu->gpr[RSP] + (uint64_t)index * size_bytes;
    memory_read(cpu, stack_linear(cpu, at, size_bytes, ACCESS_READ), &value, size_bytes);
    return value;
}

uint64_t stack_pop(struct cpu *cpu, unsigned size_bytes)
{
    uint64_t value = stack_peek(cpu, 0, size_bytes);
    stack_set_pointer(cpu, cpu->gpr[RSP] + size_bytes);
    return value;
}

void stack_push_all(struct cpu *cpu, const uint64_t *values, unsigned count, unsigned size_bytes)
{
    uint64_t rsp = cpu->gpr[RSP];
    for (unsigned i = 0; i < count; i++)
        memory_probe_write(cpu,
                           stack_linear(cpu, rsp - (i + 1) * size_bytes, size_bytes, ACCESS_WRITE),
                           size_bytes);
    for (unsigned i = 0; i < count; i++)
        stack_push(cpu, values[i], size_bytes);
}

/* --- descriptors ---------------------------------------------------------------------------- */

static void descriptor_parse(uint64_t raw, struct descriptor *descriptor)
{
    uint32_t low = (uint32_t)raw;
    uint32_t high = (uint32_t)(raw >> 32);
    descriptor->raw = raw;
    descriptor->base = low >> 16 | (high & 0xff) << 16 | (high & 0xff000000);
    descriptor->limit = (low & 0xffff) | (high & 0xf0000);
    descriptor->attributes = high >> 8 & 0xf0ff;
    if (descriptor->attributes & SEGMENT_G)
        descriptor->limit = descriptor->limit << 12 | 0xfff;
}

static bool table_of(const struct cpu *cpu, uint16_t selector, uint64_t *base, uint32_t *limit)
{
    if (!(selector & SELECTOR_TI)) {
        *base = cpu->gdtr.base;
        *limit = cpu->gdtr.limit;
        return true;
    }
    *base = cpu->segment[SEG_LDTR].base;
    *limit = cpu->segment[SEG_LDTR].limit;
    return !(cpu->segment[SEG_LDTR].attributes & SEGMENT_UNUSABLE);
}

static uint64_t table_linear(const struct cpu *cpu, uint64_t linear)
{
    return is_long_mode(cpu) ? linear : (uint32_t)linear;
}

bool descriptor_find(struct cpu *cpu, uint16_t selector, struct descriptor *descriptor)
{
    uint64_t base;
    uint32_t limit;
    uint32_t offset = selector & SELECTOR_INDEX;
    if (!table_of(cpu, selector, &base, &limit) || offset + 7 > limit)
        return false;
    uint64_t raw;
    descriptor->linear = table_linear(cpu, base + offset);
    memory_read_system(cpu, descriptor->linear, &raw, sizeof(raw));
    descriptor_parse(raw, descriptor);
    return true;
}

void descriptor_read(struct cpu *cpu, uint16_t selector, struct descriptor *descriptor,
                     enum x86_vector vector)
{
    if (!descriptor_find(cpu, selector, descriptor))
        raise_selector(cpu, vector, selector);
}

void descriptor_set_accessed(struct cpu *cpu, struct descriptor *descriptor)
{
    if (descriptor->attributes & TYPE_ACCESSED)
        return;
    uint8_t type = (uint8_t)(descriptor->raw >> 40) | TYPE_ACCESSED;
    memory_write_system(cpu, descriptor->linear + 5, &type, 1);
    descriptor->attributes |= TYPE_ACCESSED;
}

void descriptor_read_upper(struct cpu *cpu, uint16_t selector, struct descriptor *descriptor,
                           enum x86_vector vector)
{
    uint64_t base;
    uint32_t limit;
    uint64_t upper;
    uint32_t offset = selector & SELECTOR_INDEX;
    if (!table_of(cpu, selector, &base, &limit) || offset + 15 > limit)
        raise_selector(cpu, vector, selector);
    memory_read_system(cpu, base + offset + 8, &upper, sizeof(upper));
    if (upper & UINT64_C(0x1f0000000000)) /* the type field there must be 0 */
        raise_selector(cpu, vector, selector);
    descriptor->base |= upper << 32;
    if (!is_canonical(descriptor->base))
        raise_selector(cpu, vector, selector);
}

/* --- loading -------------------------------------------------------------------------------- */

void segment_set(struct cpu *cpu, enum x86_segment_name name, uint16_t selector,
                 const struct descriptor *descriptor)
{
    cpu->segment[name] =
        (struct x86_segment){descriptor->base, descriptor->limit, descriptor->attributes, selector};
}

void segment_set_null(struct cpu *cpu, enum x86_segment_name name, uint16_t selector)
{
    uint32_t attributes = SEGMENT_UNUSABLE;
    if (name == SEG_SS)
        attributes |= (uint32_t)(selector & SELECTOR_RPL) << SEGMENT_DPL_SHIFT;
    cpu->segment[name] = (struct x86_segment){0, 0, attributes, selector};
}

/* The limit and the attributes stay what they were, unless protected mode has left the register
 * null: the manual wants guests to avoid that, and those that don't expect 64 KiB. */
void segment_set_real(struct cpu *cpu, enum x86_segment_name name, uint16_t selector)
{
    enum { ATTRIBUTES_REAL = 0x93 };
    struct x86_segment *segment = &cpu->segment[name];
    if (segment->attributes & SEGMENT_UNUSABLE) {
        segment->attributes = ATTRIBUTES_REAL;
        segment->limit = UINT16_MAX;
    }
    segment->selector = selector;
    segment->base = (uint64_t)selector << 4;
}

void segment_check_stack(struct cpu *cpu, uint16_t selector, unsigned cpl, enum x86_vector vector,
                         struct descriptor *descriptor)
{
    if (!(selector & ~SELECTOR_RPL))
        raise_zero(cpu, vector);
    descriptor_read(cpu, selector, descriptor, vector);
    uint32_t attributes = descriptor->attributes;
    bool is_writable_data =
        (attributes & (SEGMENT_S | TYPE_CODE | TYPE_WRITABLE)) == (SEGMENT_S | TYPE_WRITABLE);
    if ((selector & SELECTOR_RPL) != cpl || segment_dpl(attributes) != cpl || !is_writable_data)
        raise_selector(cpu, vector, selector);
    if (!(attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_SS, selector);
}

static void load_stack(struct cpu *cpu, uint16_t selector)
{
    struct descriptor descriptor;
    if (!(selector & ~SELECTOR_RPL)) {
        bool is_allowed =
            cpu_is_64bit(cpu) && cpu->cpl < 3 && (selector & SELECTOR_RPL) == cpu->cpl;
        if (!is_allowed)
            raise_zero(cpu, VECTOR_GP);
        segment_set_null(cpu, SEG_SS, selector);
        return;
    }
    segment_check_stack(cpu, selector, cpu->cpl, VECTOR_GP, &descriptor);
    descriptor_set_accessed(cpu, &descriptor);
    segment_set(cpu, SEG_SS, selector, &descriptor);
}

void segment_load_data(struct cpu *cpu, enum x86_segment_name name, uint16_t selector,
                       enum x86_vector vector)
{
    struct descriptor descriptor;
    if (!(selector & ~SELECTOR_RPL)) {
        segment_set_null(cpu, name, selector);
        return;
    }
    descriptor_read(cpu, selector, &descriptor, vector);
    uint32_t attributes = descriptor.attributes;
    bool is_code = attributes & TYPE_CODE;
    if (!(attributes & SEGMENT_S) || (is_code && !(attributes & TYPE_READABLE)))
        raise_selector(cpu, vector, selector);
    unsigned dpl = segment_dpl(attributes);
    bool is_conforming = is_code && (attributes & TYPE_CONFORMING);
    if (!is_conforming && ((unsigned)(selector & SELECTOR_RPL) > dpl || cpu->cpl > dpl))
        raise_selector(cpu, vector, selector);
    if (!(attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, selector);
    descriptor_set_accessed(cpu, &descriptor);
    segment_set(cpu, name, selector, &descriptor);
}

void segment_load(struct cpu *cpu, enum x86_segment_name name, uint16_t selector)
{
    if (is_real_mode(cpu))
        segment_set_real(cpu, name, selector);
    else if (name == SEG_SS)
        load_stack(cpu, selector);
    else
        segment_load_data(cpu, name, selector, VECTOR_GP);
}

void segment_drop_privileged(struct cpu *cpu)
{
    static const enum x86_segment_name names[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < 4; i++) {
        uint32_t attributes = cpu->segment[names[i]].attributes;
        if (attributes & SEGMENT_UNUSABLE)
            continue;
        bool is_conforming =
            (attributes & (TYPE_CODE | TYPE_CONFORMING)) == (TYPE_CODE | TYPE_CONFORMING);
        if (!is_conforming && segment_dpl(attributes) < cpu->cpl)
            segment_set_null(cpu, names[i], 0);
    }
    cpu_update_segments(cpu);
}

void segment_load_ldt(struct cpu *cpu, uint16_t selector)
{
    struct descriptor descriptor;
    if (!(selector & ~SELECTOR_RPL)) {
        segment_set_null(cpu, SEG_LDTR, selector);
        return;
    }
    if (selector & SELECTOR_TI)
        raise_selector(cpu, VECTOR_GP, selector);
    descriptor_read(cpu, selector, &descriptor, VECTOR_GP);
    if ((descriptor.attributes & (SEGMENT_S | SEGMENT_TYPE)) != TYPE_LDT)
        raise_selector(cpu, VECTOR_GP, selector);
    if (!(descriptor.attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, selector);
    if (is_long_mode(cpu))
        descriptor_read_upper(cpu, selector, &descriptor, VECTOR_GP);
    segment_set(cpu, SEG_LDTR, selector, &descriptor);
}

void segment_load_task(struct cpu *cpu, uint16_t selector)
{
    struct descriptor descriptor;
    if (!(selector & ~SELECTOR_RPL))
        raise_zero(cpu, VECTOR_GP);
    if (selector & SELECTOR_TI)
        raise_selector(cpu, VECTOR_GP, selector);
    descriptor_read(cpu, selector, &descriptor, VECTOR_GP);
    unsigned type = descriptor.attributes & (SEGMENT_S | SEGMENT_TYPE);
    if (type != TYPE_TSS32 && (type != TYPE_TSS16 || is_long_mode(cpu)))
        raise_selector(cpu, VECTOR_GP, selector);
    if (!(descriptor.attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, selector);
    if (is_long_mode(cpu))
        descriptor_read_upper(cpu, selector, &descriptor, VECTOR_GP);
    uint8_t busy = (uint8_t)(descriptor.raw >> 40) | 2;
    memory_write_system(cpu, descriptor.linear + 5, &busy, 1);
    descriptor.attributes |= 2;
    segment_set(cpu, SEG_TR, selector, &descriptor);
}
