/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What CPUID tells a guest under KVM: what the host's KVM supports, less what struct x86_state does
 * not carry (AVX-512, AMX, PKU, CET, XSAVES, performance counters, nested virtualization, some of
 * KVM's own MSRs), with this machine's topology (SDM 2A, CPUID; AMD APM 3, appendix E). Runs when a
 * vCPU is made.
 */
#include "cpu/kvm/kvm.h"
#include "cpu/topology.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { XCR0_CARRIED = 7, XSAVE_BYTES = X86_XSAVE_BYTES };
enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

struct mask {
    uint32_t leaf, subleaf;
    uint8_t reg;
    uint32_t keep;
};

#define BIT(n) (UINT32_C(1) << (n))

static const struct mask masks[] = {
    /* MONITOR, VMX, SMX, SDBG, PDCM */
    {1, 0, REG_ECX, ~(BIT(3) | BIT(5) | BIT(6) | BIT(11) | BIT(15))},
    /* DS */
    {1, 0, REG_EDX, ~BIT(21)},
    /* SGX, PQM, MPX, PQE, AVX512 F DQ IFMA PF ER CD BW VL, PT */
    {7, 0, REG_EBX,
     ~(BIT(2) | BIT(12) | BIT(14) | BIT(15) | BIT(16) | BIT(17) | BIT(21) | BIT(25) | BIT(26) |
       BIT(27) | BIT(28) | BIT(30) | BIT(31))},
    /* AVX512_VBMI, PKU, OSPKE, WAITPKG, AVX512_VBMI2, CET_SS, AVX512 VNNI BITALG VPOPCNTDQ, SGX_LC,
     * ENQCMD, PKS */
    {7, 0, REG_ECX,
     ~(BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(11) | BIT(12) | BIT(14) | BIT(29) |
       BIT(30) | BIT(31))},
    /* AVX512 4VNNIW 4FMAPS VP2INTERSECT, UINTR, CET_IBT, AMX_BF16, AVX512_FP16, AMX_TILE, AMX_INT8,
     * ARCH_CAPABILITIES and CORE_CAPABILITIES, whose MSRs are not carried */
    {7, 0, REG_EDX,
     ~(BIT(2) | BIT(3) | BIT(5) | BIT(8) | BIT(20) | BIT(22) | BIT(23) | BIT(24) | BIT(25) |
       BIT(29) | BIT(30))},
    /* AVX-VNNI and fast string hints stay */
    {7, 1, REG_EAX, BIT(4) | BIT(10) | BIT(11) | BIT(12)},
    {7, 1, REG_EBX, 0},
    {7, 1, REG_ECX, 0},
    {7, 1, REG_EDX, 0},
    /* ARAT */
    {6, 0, REG_EAX, BIT(2)},
    {6, 0, REG_ECX, 0},
    {0xd, 0, REG_EAX, XCR0_CARRIED},
    {0xd, 0, REG_EDX, 0},
    /* XSAVEOPT, XSAVEC, XGETBV(1); not XSAVES */
    {0xd, 1, REG_EAX, BIT(0) | BIT(1) | BIT(2)},
    {0xd, 1, REG_ECX, 0},
    {0xd, 1, REG_EDX, 0},
    /* SVM, IBS, SKINIT, LWP, PerfCtrExt, PerfTsc, PerfCtrExtLLC, MWAITX */
    {0x80000001, 0, REG_ECX,
     ~(BIT(2) | BIT(10) | BIT(12) | BIT(15) | BIT(23) | BIT(24) | BIT(27) | BIT(28) | BIT(29))},
    /* clock, no I/O delay, clock 2, PV EOI, PV unhalt, PV IPIs, yield, stable clock */
    {KVM_CPUID_FEATURES, 0, REG_EAX,
     BIT(0) | BIT(1) | BIT(3) | BIT(6) | BIT(7) | BIT(11) | BIT(13) | BIT(24)},
};

/* Leaves that are left out whole: thermal and monitor, performance counters, SGX, PT, nested SVM,
 * AMX, IBS, SEV, performance monitoring version 2. */
static const uint32_t emptied[] = {5,    0xa,        0x12,       0x14,       0x1d,      0x1e,
                                   0x19, 0x8000000a, 0x8000001b, 0x8000001f, 0x80000022};

static uint32_t *reg_of(struct kvm_cpuid_entry2 *e, unsigned reg)
{
    return reg == REG_EAX ? &e->eax : reg == REG_EBX ? &e->ebx : reg == REG_ECX ? &e->ecx : &e->edx;
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid_table *table, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < table->nent; i++)
        if (table->entries[i].function == leaf && table->entries[i].index == subleaf)
            return &table->entries[i];
    return NULL;
}

static void remove_leaf(struct kvm_cpuid_table *table, uint32_t leaf)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < table->nent; i++)
        if (table->entries[i].function != leaf)
            table->entries[kept++] = table->entries[i];
    table->nent = kept;
}

static void add(struct kvm_cpuid_table *table, uint32_t leaf, uint32_t subleaf, uint32_t eax,
                uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    if (table->nent < KVM_CPUID_ENTRIES)
        table->entries[table->nent++] =
            (struct kvm_cpuid_entry2){.function = leaf,
                                      .index = subleaf,
                                      .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                      .eax = eax,
                                      .ebx = ebx,
                                      .ecx = ecx,
                                      .edx = edx};
}

static void apply_masks(struct kvm_cpuid_table *table)
{
    for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
        struct kvm_cpuid_entry2 *e = find(table, masks[i].leaf, masks[i].subleaf);
        if (e)
            *reg_of(e, masks[i].reg) &= masks[i].keep;
    }
    for (size_t i = 0; i < sizeof(emptied) / sizeof(emptied[0]); i++)
        remove_leaf(table, emptied[i]);
}

/* No component above AVX, and none for supervisors; leaf 0xd tells sizes only of what is left. */
static void limit_xsave(struct kvm_cpuid_table *table)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < table->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &table->entries[i];
        if (e->function != 0xd || e->index <= 2)
            table->entries[kept++] = *e;
    }
    table->nent = kept;
    struct kvm_cpuid_entry2 *e = find(table, 0xd, 0);
    if (e)
        e->ecx = e->eax & 4 ? XSAVE_BYTES : 512 + 64;
}

static void set_topology(struct kvm_cpuid_table *table, const struct engine_topology *t,
                         unsigned index)
{
    unsigned id = topology_apic_id(t->cores, t->threads, index);
    unsigned threads = t->threads, in_package = t->cores * t->threads;
    unsigned thread_bits = topology_bits(threads);
    unsigned package_bits = topology_socket_shift(t->cores, threads);
    struct kvm_cpuid_entry2 *e = find(table, 1, 0);
    if (e) {
        e->ebx = (e->ebx & 0xffff) | id << 24 | (1u << package_bits) << 16;
        e->edx = in_package > 1 ? e->edx | BIT(28) : e->edx & ~BIT(28);
    }
    const uint32_t extended[] = {0xb, 0x1f};
    for (unsigned i = 0; i < 2; i++) {
        if (extended[i] == 0x1f && !find(table, 0x1f, 0))
            continue;
        remove_leaf(table, extended[i]);
        add(table, extended[i], 0, thread_bits, threads, 1 << 8, id);
        add(table, extended[i], 1, package_bits, in_package, 2 << 8 | 1, id);
        add(table, extended[i], 2, 0, 0, 2, id);
    }
    e = find(table, 0x80000001, 0);
    if (e)
        e->ecx = in_package > 1 ? e->ecx | BIT(1) : e->ecx & ~BIT(1);
    e = find(table, 0x80000008, 0);
    if (e)
        e->ecx = (e->ecx & ~UINT32_C(0xf0ff)) | (in_package - 1) | package_bits << 12;
    e = find(table, 0x8000001e, 0);
    if (e) {
        e->eax = id;
        e->ebx = (threads - 1) << 8 | (index / threads % t->cores);
        e->ecx = index / in_package;
    }
}

/* Which processors share a cache: the first two levels a core's threads, the others a package. */
static void set_caches(struct kvm_cpuid_table *table, const struct engine_topology *t)
{
    unsigned thread_ids = 1u << topology_bits(t->threads);
    unsigned package_ids = 1u << topology_socket_shift(t->cores, t->threads);
    for (unsigned i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entries[i];
        if ((e->function != 4 && e->function != 0x8000001d) || !(e->eax & 0x1f))
            continue;
        unsigned sharers = (e->eax >> 5 & 7) >= 3 ? package_ids : thread_ids;
        e->eax = (e->eax & 0x3fff) | (sharers - 1) << 14;
        if (e->function == 4)
            e->eax |= ((1u << topology_bits(t->cores)) - 1) << 26;
    }
}

static void set_features(struct engine_vm *vm, struct kvm_cpuid_table *table)
{
    struct kvm_cpuid_entry2 *e = find(table, 1, 0);
    if (!e)
        return;
    e->ecx |= BIT(31) | BIT(21); /* hypervisor, x2APIC */
    if (ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
        e->ecx |= BIT(24);
    e->ecx &= ~BIT(27); /* OSXSAVE follows CR4; KVM sets it */
}

static void limit_level(struct kvm_cpuid_table *table, enum cpu_level level)
{
    for (unsigned i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entries[i];
        uint32_t registers[4] = {e->eax, e->ebx, e->ecx, e->edx};
        cpu_level_mask(level, e->function, e->index, registers);
        e->eax = registers[REG_EAX];
        e->ebx = registers[REG_EBX];
        e->ecx = registers[REG_ECX];
        e->edx = registers[REG_EDX];
    }
}

static const char what[] = "cannot describe the processor to the guest";

bool kvm_cpuid_compose(struct engine_vm *vm, unsigned index, struct kvm_cpuid_table *table,
                       struct error *err)
{
    table->nent = KVM_CPUID_ENTRIES;
    if (kvm_ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, table) < 0)
        return error_errno(err, what, "KVM_GET_SUPPORTED_CPUID", errno);
    apply_masks(table);
    limit_xsave(table);
    set_features(vm, table);
    set_topology(table, &vm->topology, index);
    set_caches(table, &vm->topology);
    limit_level(table, vm->cpu_level);
    return true;
}

bool kvm_cpuid_set(struct engine_vcpu *vcpu, struct error *err)
{
    struct kvm_cpuid_table *table = calloc(1, sizeof(*table));
    if (!table)
        return error_errno(err, what, NULL, ENOMEM);
    bool done = kvm_cpuid_compose(vcpu->vm, vcpu->index, table, err);
    const struct kvm_cpuid_entry2 *sizes = done ? find(table, 0x80000008, 0) : NULL;
    if (sizes)
        vcpu->vm->physical_bits = sizes->eax & 0xff;
    if (done && kvm_ioctl(vcpu->fd, KVM_SET_CPUID2, table) < 0)
        done = error_errno(err, what, "KVM_SET_CPUID2", errno);
    free(table);
    return done;
}

/* 36 where CPUID does not tell: SDM 3A 4.1.4. */
unsigned kvm_physical_bits(struct engine_vm *vm)
{
    return vm->physical_bits ? vm->physical_bits : 36;
}

/* As the guest has it but for what follows its registers; all zero when there is no such leaf. */
void kvm_cpuid(struct engine_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
{
    struct kvm_cpuid_table *table = calloc(1, sizeof(*table));
    const struct kvm_cpuid_entry2 *e = NULL;
    if (table && kvm_cpuid_compose(vm, 0, table, NULL))
        e = find(table, leaf, subleaf);
    const uint32_t values[4] = {e ? e->eax : 0, e ? e->ebx : 0, e ? e->ecx : 0, e ? e->edx : 0};
    memcpy(registers, values, sizeof(values));
    free(table);
}
