/* SPDX-License-Identifier: BSD-2-Clause
 * See harness.h. */
#include "isa/harness.h"

#include "isa/options.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

static uint64_t port_read(void *opaque, uint16_t port, unsigned size_bytes)
{
    struct harness *h = opaque;
    uint64_t value = 0;
    for (unsigned i = 0; i < size_bytes; i++)
        value |= (uint64_t)h->ports[(uint16_t)(port + i)] << 8 * i;
    return value;
}

static void port_write(void *opaque, uint16_t port, uint64_t value, unsigned size_bytes)
{
    struct harness *h = opaque;
    for (unsigned i = 0; i < size_bytes; i++)
        h->ports[(uint16_t)(port + i)] = (uint8_t)(value >> 8 * i);
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size_bytes)
{
    struct harness *h = opaque;
    h->last_mmio = gpa;
    h->mmio_accesses++;
    return h->last_mmio_value;
}

static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    struct harness *h = opaque;
    h->last_mmio = gpa;
    h->last_mmio_value = value;
    h->mmio_accesses++;
}

static int acknowledge(void *opaque, unsigned vcpu)
{
    struct harness *h = opaque;
    int vector = h->vector;
    h->vector = -1;
    h->acknowledged++;
    cpu_withdraw(h->cpu[vcpu], REQUEST_INTR);
    return vector;
}

static uint64_t read_cr8(void *opaque, unsigned vcpu)
{
    return 0;
}
static void write_cr8(void *opaque, unsigned vcpu, uint64_t value) {}
static bool read_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    return false;
}
static bool write_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return false;
}

static void count_wake(void *opaque, unsigned vcpu)
{
    struct harness *h = opaque;
    h->wakes++;
}

struct harness *harness_open_with(unsigned cpus, struct translator_options translator)
{
    struct harness *h = calloc(1, sizeof(*h));
    assert(h && cpus <= HARNESS_MAX_CPUS);
    soft_system_open(&h->system);
    h->system.translator = translator;
    h->system.callbacks = (struct soft_callbacks){
        h,        port_read, port_write, mmio_read, mmio_write,         acknowledge,
        read_cr8, write_cr8, read_msr,   write_msr, .wake = count_wake,
    };
    h->vector = -1;
    h->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(h->ram != MAP_FAILED);
    bool ok = soft_region_add(&h->system, 0, h->ram, RAM_BYTES, false);
    assert(ok);
    h->system.cores = cpus;
    for (unsigned i = 0; i < cpus; i++) {
        h->cpu[i] = cpu_create(&h->system, i, NULL);
        assert(h->cpu[i]);
    }
    return h;
}

struct harness *harness_open(unsigned cpus)
{
    return harness_open_with(cpus, translator_by_environment());
}

void harness_close(struct harness *h)
{
    for (unsigned i = 0; i < HARNESS_MAX_CPUS; i++)
        cpu_destroy(h->cpu[i]);
    soft_system_close(&h->system);
    munmap(h->ram, RAM_BYTES);
    free(h);
}

void harness_put64(struct harness *h, uint64_t gpa, uint64_t value)
{
    memcpy(h->ram + gpa, &value, sizeof(value));
}

uint64_t harness_get64(const struct harness *h, uint64_t gpa)
{
    uint64_t value;
    memcpy(&value, h->ram + gpa, sizeof(value));
    return value;
}

uint32_t harness_get32(const struct harness *h, uint64_t gpa)
{
    uint32_t value;
    memcpy(&value, h->ram + gpa, sizeof(value));
    return value;
}

void harness_load(struct harness *h, const uint8_t *start, const uint8_t *end)
{
    memcpy(h->ram + CODE, start, (size_t)(end - start));
    soft_written(&h->system, CODE, (uint64_t)(end - start));
}

/* --- tables --------------------------------------------------------------------------------- */

static void make_gdt(struct harness *h)
{
    harness_put64(h, GDT + KERNEL_CS, UINT64_C(0x00af9b000000ffff));
    harness_put64(h, GDT + KERNEL_SS, UINT64_C(0x00cf93000000ffff));
    harness_put64(h, GDT + (USER_CS32 & ~3), UINT64_C(0x00cffb000000ffff));
    harness_put64(h, GDT + (USER_SS & ~3), UINT64_C(0x00cff3000000ffff));
    harness_put64(h, GDT + (USER_CS & ~3), UINT64_C(0x00affb000000ffff));
    harness_put64(h, GDT + TSS_SELECTOR, UINT64_C(0x0000890000000067) | (uint64_t)TSS << 16);
    harness_put64(h, GDT + TSS_SELECTOR + 8, 0);
    harness_put64(h, GDT + KERNEL_CS32, UINT64_C(0x00cf9b000000ffff));
}

static void make_handlers(struct harness *h, unsigned gate_bytes, uint16_t cs)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t handler = HANDLERS + vector * 16;
        harness_put64(h, IDT + vector * gate_bytes,
                      (handler & 0xffff) | (uint64_t)cs << 16 | UINT64_C(0x8e00) << 32);
        if (gate_bytes == 16)
            harness_put64(h, IDT + vector * 16 + 8, 0);
        h->ram[handler] = 0xf4; /* HLT */
    }
}

static struct x86_segment flat(uint16_t selector, uint32_t attributes)
{
    return (struct x86_segment){0, UINT32_MAX, attributes, selector};
}

static void common_state(struct harness *h, struct x86_state *state)
{
    enum { DATA = 0xc093 };
    make_gdt(h);
    h->ram[TSS + 102] = 0x68; /* no I/O bitmap within the limit */
    x86_state_reset(state, true);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        state->segment[i] = flat(KERNEL_SS, DATA);
    state->segment[SEG_TR] = (struct x86_segment){TSS, 0x67, 0x8b, TSS_SELECTOR};
    state->segment[SEG_LDTR] = (struct x86_segment){.attributes = SEGMENT_UNUSABLE};
    state->gdtr = (struct x86_table){GDT, GDT_BYTES - 1};
    state->rip = CODE;
    state->gpr[RSP] = STACK0;
}

void harness_long_mode(struct harness *h, struct x86_state *state)
{
    const uint64_t all = PTE_P | PTE_W | PTE_U;
    common_state(h, state);
    make_handlers(h, 16, KERNEL_CS);
    harness_put64(h, TSS + 4, STACK0);
    harness_put64(h, TSS + 36, STACK_IST);
    harness_put64(h, PML4, PDPT | all);
    harness_put64(h, PDPT, PD | all);
    harness_put64(h, PD, PT | all);
    for (uint64_t linear = 0; linear < 0x200000; linear += PAGE_BYTES)
        harness_map(h, linear, linear, all);
    state->segment[SEG_CS] = flat(KERNEL_CS, 0xa09b);
    state->idtr = (struct x86_table){IDT, 0xfff};
    state->cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE;
    state->cr3 = PML4;
    state->cr4 = CR4_PAE;
    state->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
}

void harness_protected_mode(struct harness *h, struct x86_state *state)
{
    common_state(h, state);
    make_handlers(h, 8, KERNEL_CS32);
    harness_put64(h, TSS + 4, STACK0 | (uint64_t)KERNEL_SS << 32);
    state->segment[SEG_CS] = flat(KERNEL_CS32, 0xc09b);
    state->idtr = (struct x86_table){IDT, 0x7ff};
    state->cr0 = CR0_NE | CR0_ET | CR0_PE;
}

void harness_user(struct x86_state *state)
{
    bool is_long = state->efer & EFER_LMA;
    state->segment[SEG_CS] = is_long ? flat(USER_CS, 0xa0fb) : flat(USER_CS32, 0xc0fb);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        if (i != SEG_CS)
            state->segment[i] = flat(USER_SS, 0xc0f3);
    state->gpr[RSP] = STACK3;
}

void harness_map(struct harness *h, uint64_t linear, uint64_t gpa, uint64_t flags)
{
    assert(linear < 0x200000);
    harness_put64(h, PT + linear / PAGE_BYTES * 8, gpa | flags);
}

/* --- running -------------------------------------------------------------------------------- */

enum cpu_exit harness_run(struct harness *h, struct x86_state *state)
{
    bool ok = cpu_set_state(h->cpu[0], state);
    assert(ok);
    enum cpu_exit exit = cpu_run(h->cpu[0]);
    cpu_get_state(h->cpu[0], state);
    return exit;
}

int harness_vector(const struct x86_state *state)
{
    uint64_t offset = state->rip - HANDLERS;
    return offset < 256 * 16 && offset % 16 == 1 ? (int)(offset / 16) : -1;
}

uint64_t harness_frame(const struct harness *h, const struct x86_state *state, unsigned n)
{
    bool is_long = state->efer & EFER_LMA;
    return is_long ? harness_get64(h, state->gpr[RSP] + n * 8)
                   : harness_get32(h, state->gpr[RSP] + n * 4);
}
