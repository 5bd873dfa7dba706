/* SPDX-License-Identifier: BSD-2-Clause
 *
 * CPUID: what this processor does, and no more; where handlers run the host's own instructions,
 * masked by what the host has. The vendor is the host's, since the two differ in what their system
 * calls and undefined flags do; family and model are fixed, of a kind that needs no errata.
 * Hypervisor leaves are KVM's, for its clock. SDM 2A, APM 3 appendix E.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/vector/vector.h"
#include "cpu/topology.h"

#include <cpuid.h>

/* Leaf 1. */
enum {
    ECX_SSE3 = 1 << 0,
    ECX_PCLMUL = 1 << 1,
    ECX_MONITOR = 1 << 3,
    ECX_SSSE3 = 1 << 9,
    ECX_FMA = 1 << 12,
    ECX_CX16 = 1 << 13,
    ECX_PCID = 1 << 17,
    ECX_SSE41 = 1 << 19,
    ECX_SSE42 = 1 << 20,
    ECX_X2APIC = 1 << 21,
    ECX_MOVBE = 1 << 22,
    ECX_POPCNT = 1 << 23,
    ECX_TSC_DEADLINE = 1 << 24,
    ECX_AES = 1 << 25,
    ECX_XSAVE = 1 << 26,
    ECX_OSXSAVE = 1 << 27,
    ECX_AVX = 1 << 28,
    ECX_F16C = 1 << 29,
    ECX_RDRAND = 1 << 30,
};
#define ECX_HYPERVISOR (UINT32_C(1) << 31)
#define ECX_FROM_HOST                                                                              \
    (ECX_SSE3 | ECX_PCLMUL | ECX_SSSE3 | ECX_FMA | ECX_CX16 | ECX_SSE41 | ECX_SSE42 | ECX_POPCNT | \
     ECX_AES | ECX_AVX | ECX_F16C | ECX_RDRAND)
#define ECX_OWN (ECX_PCID | ECX_X2APIC | ECX_MOVBE | ECX_TSC_DEADLINE | ECX_XSAVE | ECX_HYPERVISOR)

enum {
    EDX_FPU = 1 << 0,
    EDX_VME = 1 << 1,
    EDX_DE = 1 << 2,
    EDX_PSE = 1 << 3,
    EDX_TSC = 1 << 4,
    EDX_MSR = 1 << 5,
    EDX_PAE = 1 << 6,
    EDX_MCE = 1 << 7,
    EDX_CX8 = 1 << 8,
    EDX_APIC = 1 << 9,
    EDX_SEP = 1 << 11,
    EDX_MTRR = 1 << 12,
    EDX_PGE = 1 << 13,
    EDX_MCA = 1 << 14,
    EDX_CMOV = 1 << 15,
    EDX_PAT = 1 << 16,
    EDX_PSE36 = 1 << 17,
    EDX_CLFLUSH = 1 << 19,
    EDX_MMX = 1 << 23,
    EDX_FXSR = 1 << 24,
    EDX_SSE = 1 << 25,
    EDX_SSE2 = 1 << 26,
    EDX_HTT = 1 << 28,
};
#define EDX_OWN                                                                                    \
    (EDX_FPU | EDX_VME | EDX_DE | EDX_PSE | EDX_TSC | EDX_MSR | EDX_PAE | EDX_MCE | EDX_CX8 |      \
     EDX_APIC | EDX_SEP | EDX_MTRR | EDX_PGE | EDX_MCA | EDX_CMOV | EDX_PAT | EDX_PSE36 |          \
     EDX_CLFLUSH | EDX_MMX | EDX_FXSR | EDX_SSE | EDX_SSE2)
/* What 80000001H EDX repeats on AMD's. */
#define EDX_REPEATED (EDX_OWN & 0x0183f3ff)

/* Leaf 7. */
enum {
    EBX7_FSGSBASE = 1 << 0,
    EBX7_TSC_ADJUST = 1 << 1,
    EBX7_BMI1 = 1 << 3,
    EBX7_AVX2 = 1 << 5,
    EBX7_SMEP = 1 << 7,
    EBX7_BMI2 = 1 << 8,
    EBX7_ERMS = 1 << 9,
    EBX7_INVPCID = 1 << 10,
    EBX7_NO_FCS = 1 << 13,
    EBX7_RDSEED = 1 << 18,
    EBX7_ADX = 1 << 19,
    EBX7_SMAP = 1 << 20,
    EBX7_CLFLUSHOPT = 1 << 23,
    EBX7_CLWB = 1 << 24,
    EBX7_SHA = 1 << 29,
    ECX7_UMIP = 1 << 2,
    ECX7_PKU = 1 << 3,
    ECX7_OSPKE = 1 << 4,
    ECX7_RDPID = 1 << 22,
    EDX7_FSRM = 1 << 4,
    EDX7_SERIALIZE = 1 << 14,
    EDX7_SPEC_CTRL = 1 << 26,
    EDX7_ARCH_CAPABILITIES = 1 << 29,
};
#define EBX7_FROM_HOST (EBX7_BMI1 | EBX7_AVX2 | EBX7_BMI2 | EBX7_RDSEED | EBX7_ADX | EBX7_SHA)
#define EBX7_OWN                                                                                   \
    (EBX7_FSGSBASE | EBX7_TSC_ADJUST | EBX7_SMEP | EBX7_ERMS | EBX7_INVPCID | EBX7_NO_FCS |        \
     EBX7_SMAP | EBX7_CLFLUSHOPT | EBX7_CLWB)

/* 80000001H. */
enum {
    ECXE_LAHF = 1 << 0,
    ECXE_CMP_LEGACY = 1 << 1,
    ECXE_LZCNT = 1 << 5,
    ECXE_PREFETCHW = 1 << 8,
    ECXE_TOPOEXT = 1 << 22,
    EDXE_SYSCALL = 1 << 11,
    EDXE_NX = 1 << 20,
    EDXE_PAGE1GB = 1 << 26,
    EDXE_RDTSCP = 1 << 27,
    EDXE_LM = 1 << 29,
};

enum { MAX_LEAF_INTEL = 0x1f, MAX_LEAF_AMD = 0x10 };
#define MAX_EXTENDED_INTEL   0x80000008u
#define MAX_EXTENDED_AMD     0x80000021u
#define SIGNATURE_INTEL      0x000806f8u /* family 6, model 8fH */
#define SIGNATURE_AMD        0x00a10f11u /* family 19H, model 11H */
#define HYPERVISOR_BASE      0x40000000u
#define HYPERVISOR_FEATURES  0x40000001u
#define HYPERVISOR_FREQUENCY 0x40000010u

static struct cpuid_result host(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_result r = {0};
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

void cpuid_open(struct soft_system *system)
{
    struct cpuid_features *f = &system->features;
    struct cpuid_result zero = host(0, 0), one = host(1, 0), seven = host(7, 0);
    struct cpuid_result extended = host(0x80000001, 0), sizes = host(0x80000008, 0);
    memcpy(f->vendor, &zero.ebx, 4);
    memcpy(f->vendor + 4, &zero.edx, 4);
    memcpy(f->vendor + 8, &zero.ecx, 4);
    f->is_amd = memcmp(f->vendor, "AuthenticAMD", 12) == 0;
    if (!f->is_amd)
        memcpy(f->vendor, "GenuineIntel", 12);
    uint32_t from_host = ECX_FROM_HOST;
    uint32_t from_host7 = EBX7_FROM_HOST;
    if (!(one.ecx & ECX_OSXSAVE) || !(one.ecx & ECX_AVX)) {
        from_host &= ~(uint32_t)(ECX_AVX | ECX_FMA | ECX_F16C);
        from_host7 &= ~(uint32_t)EBX7_AVX2;
    }
    f->leaf1_ecx = (one.ecx & from_host) | ECX_OWN;
    f->leaf1_edx = EDX_OWN;
    f->leaf7_ebx = (seven.ebx & from_host7) | EBX7_OWN;
    f->leaf7_ecx = ECX7_UMIP | ECX7_PKU | ECX7_RDPID;
    f->leaf7_edx =
        EDX7_FSRM | EDX7_SERIALIZE | EDX7_ARCH_CAPABILITIES | (f->is_amd ? 0 : EDX7_SPEC_CTRL);
    f->extended_ecx = ECXE_LAHF | ECXE_PREFETCHW | (extended.ecx & ECXE_LZCNT);
    f->extended_edx = EDXE_SYSCALL | EDXE_NX | EDXE_PAGE1GB | EDXE_RDTSCP | EDXE_LM;
    if (f->is_amd) {
        f->extended_ecx |= ECXE_TOPOEXT;
        f->extended_edx |= EDX_REPEATED;
    }
    f->physical_bits = sizes.eax & 0xff;
    if (f->physical_bits > CPU_PHYSICAL_BITS_MAX || f->physical_bits < 36)
        f->physical_bits = CPU_PHYSICAL_BITS_MAX;
}

uint64_t cpuid_cr4_allowed(const struct cpu *cpu)
{
    uint64_t allowed = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE |
                       CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE |
                       CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP | CR4_PKE;
    if (cpu->system->cpu_level != CPU_LEVEL_HOST)
        allowed &= ~(uint64_t)(CR4_PCIDE | CR4_PKE);
    if (cpu->system->cpu_level == CPU_LEVEL_1)
        allowed &= ~(uint64_t)(CR4_UMIP | CR4_FSGSBASE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP);
    return allowed;
}

/* --- topology: see cpu/topology.h ------------------------------------------------------------- */

static unsigned apic_id(const struct cpu *cpu)
{
    return topology_apic_id(cpu->system->cores, cpu->system->threads, cpu->index);
}

static unsigned socket_shift(const struct soft_system *system)
{
    return topology_socket_shift(system->cores, system->threads);
}

static unsigned cpus_in_socket(const struct soft_system *system)
{
    return system->cores * system->threads;
}

static struct cpuid_result topology(const struct cpu *cpu, uint32_t subleaf)
{
    const struct soft_system *system = cpu->system;
    unsigned thread_bits = topology_bits(system->threads);
    struct cpuid_result r = {.ecx = subleaf & 0xff, .edx = apic_id(cpu)};
    if (subleaf == 0) {
        r.eax = thread_bits;
        r.ebx = system->threads;
        r.ecx |= 1 << 8;
    } else if (subleaf == 1) {
        r.eax = socket_shift(system);
        r.ebx = cpus_in_socket(system);
        r.ecx |= 2 << 8;
    }
    return r;
}

/* Of the same layout in Intel's leaf 4 and AMD's 8000001DH. */
static struct cpuid_result cache(const struct cpu *cpu, uint32_t subleaf)
{
    static const struct {
        uint8_t type, level, ways;
        uint32_t sets;
        bool is_shared;
    } caches[] = {{1, 1, 8, 64, false},
                  {2, 1, 8, 64, false},
                  {3, 2, 8, 2048, false},
                  {3, 3, 16, 16384, true}};
    if (subleaf >= sizeof(caches) / sizeof(caches[0]))
        return (struct cpuid_result){0};
    const struct soft_system *system = cpu->system;
    unsigned shared_bits =
        caches[subleaf].is_shared ? socket_shift(system) : topology_bits(system->threads);
    uint32_t eax = caches[subleaf].type | (uint32_t)caches[subleaf].level << 5 | 1 << 8 |
                   ((1u << shared_bits) - 1) << 14;
    if (!system->features.is_amd)
        eax |= ((1u << topology_bits(system->cores)) - 1) << 26;
    return (struct cpuid_result){eax, 63 | (caches[subleaf].ways - 1u) << 22,
                                 caches[subleaf].sets - 1, 0};
}

/* --- leaves --------------------------------------------------------------------------------- */

static struct cpuid_result identity(const struct cpu *cpu, uint32_t max_leaf)
{
    struct cpuid_result r = {.eax = max_leaf};
    const char *vendor = cpu->system->features.vendor;
    memcpy(&r.ebx, vendor, 4);
    memcpy(&r.edx, vendor + 4, 4);
    memcpy(&r.ecx, vendor + 8, 4);
    return r;
}

/* CPUID tells of an APIC only while IA32_APIC_BASE enables it: SDM 3A 11.4.3. */
static bool is_apic_enabled(const struct cpu *cpu)
{
    enum { MSR_APIC_BASE = 0x1b, ENABLED = 1 << 11 };
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    uint64_t base;
    return !callbacks->read_msr ||
           !callbacks->read_msr(callbacks->opaque, cpu->index, MSR_APIC_BASE, &base) ||
           (base & ENABLED);
}

/* SDM 4, IA32_MISC_ENABLE. The levels leave it out, since KVM has it not. */
bool cpuid_has_monitor(const struct cpu *cpu)
{
    return cpu->system->cpu_level == CPU_LEVEL_HOST && (cpu->misc_enable & X86_MISC_ENABLE_MONITOR);
}

/* Lines, extensions, interrupts as break events though masked. No C-states: kernels then rather
 * halt, which costs other processors nothing. */
static struct cpuid_result monitor_lines(const struct cpu *cpu)
{
    enum { EXTENSIONS = 1 << 0, INTERRUPT_BREAK = 1 << 1 };
    if (!cpuid_has_monitor(cpu))
        return (struct cpuid_result){0};
    return (struct cpuid_result){MONITOR_LINE_BYTES, MONITOR_LINE_BYTES,
                                 EXTENSIONS | INTERRUPT_BREAK, 0};
}

static struct cpuid_result features(const struct cpu *cpu)
{
    const struct cpuid_features *f = &cpu->system->features;
    unsigned count = cpus_in_socket(cpu->system);
    struct cpuid_result r = {
        .eax = f->is_amd ? SIGNATURE_AMD : SIGNATURE_INTEL,
        .ebx = apic_id(cpu) << 24 | (1u << socket_shift(cpu->system)) << 16 |
               8 << 8, /* 64-byte lines */
        .ecx = f->leaf1_ecx | (cpu->cr4 & CR4_OSXSAVE ? ECX_OSXSAVE : 0) |
               (cpuid_has_monitor(cpu) ? ECX_MONITOR : 0),
        .edx = f->leaf1_edx | (count > 1 ? EDX_HTT : 0),
    };
    if (!is_apic_enabled(cpu))
        r.edx &= ~(uint32_t)EDX_APIC;
    return r;
}

static struct cpuid_result xsave(const struct cpu *cpu, uint32_t subleaf)
{
    uint64_t supported = vector_xcr0_supported(cpu);
    struct cpuid_result r = {0};
    switch (subleaf) {
    case 0:
        r.eax = (uint32_t)supported;
        r.ebx = vector_xsave_bytes(cpu, cpu->xcr0, false);
        r.ecx = vector_xsave_bytes(cpu, supported, false);
        return r;
    case 1:
        r.eax = 0xf; /* XSAVEOPT, XSAVEC, XGETBV with ECX = 1, XSAVES */
        r.ebx = vector_xsave_bytes(cpu, cpu->xcr0, true);
        return r;
    default:
        if (subleaf < 64 && supported >> subleaf & 1)
            vector_xsave_place(cpu, subleaf, &r.eax, &r.ebx);
        return r;
    }
}

/* BHI_CTRL (Intel's) lets Linux take the processor's word instead of clearing its history. */
static struct cpuid_result features7(const struct cpu *cpu, uint32_t subleaf)
{
    const struct cpuid_features *f = &cpu->system->features;
    enum { MAX_SUBLEAF_INTEL = 2, EDX_BHI_CTRL = 1 << 4 };
    uint32_t max_subleaf = f->is_amd ? 0 : MAX_SUBLEAF_INTEL;
    uint32_t ecx = f->leaf7_ecx | (cpu->cr4 & CR4_PKE ? ECX7_OSPKE : 0);
    if (subleaf == 0)
        return (struct cpuid_result){max_subleaf, f->leaf7_ebx, ecx, f->leaf7_edx};
    return (struct cpuid_result){0, 0, 0, subleaf == max_subleaf ? EDX_BHI_CTRL : 0};
}

static struct cpuid_result standard(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    const struct cpuid_features *f = &cpu->system->features;
    uint32_t khz = (uint32_t)cpu->system->tsc_khz;
    uint32_t max_leaf = f->is_amd ? MAX_LEAF_AMD : MAX_LEAF_INTEL;
    struct cpuid_result none = {0};
    switch (leaf) {
    case 0: return identity(cpu, max_leaf);
    case 1: return features(cpu);
    case 2: return f->is_amd ? none : (struct cpuid_result){0x00feff01, 0, 0, 0};
    case 4: return f->is_amd ? none : cache(cpu, subleaf);
    case 5: return monitor_lines(cpu);
    case 7: return features7(cpu, subleaf);
    case 0xb: return topology(cpu, subleaf);
    case 0xd: return xsave(cpu, subleaf);
    case 0x15: /* crystal of 1 MHz: exact to a kHz */
        return f->is_amd ? none : (struct cpuid_result){1000, khz, 1000000, 0};
    case 0x16: return f->is_amd ? none : (struct cpuid_result){khz / 1000, khz / 1000, 100, 0};
    case 0x1f: return f->is_amd ? none : topology(cpu, subleaf);
    default: return none;
    }
}

/* KVM's leaves: Documentation/virt/kvm/x86/cpuid.rst. */
static struct cpuid_result hypervisor(const struct cpu *cpu, uint32_t leaf)
{
    enum {
        CLOCKSOURCE = 1 << 0,
        NO_IO_DELAY = 1 << 1,
        CLOCKSOURCE2 = 1 << 3,
        CLOCK_STABLE = 1 << 24
    };
    struct cpuid_result r = {0};
    switch (leaf) {
    case HYPERVISOR_BASE:
        r.eax = HYPERVISOR_FREQUENCY;
        memcpy(&r.ebx, "KVMK", 4);
        memcpy(&r.ecx, "VMKV", 4);
        memcpy(&r.edx, "M\0\0\0", 4);
        return r;
    case HYPERVISOR_FEATURES:
        r.eax = CLOCKSOURCE | NO_IO_DELAY | CLOCKSOURCE2 | CLOCK_STABLE;
        return r;
    case HYPERVISOR_FREQUENCY: r.eax = (uint32_t)cpu->system->tsc_khz; return r;
    default: return r;
    }
}

static struct cpuid_result brand(uint32_t part)
{
    static const char name[48] = "skep software processor";
    struct cpuid_result r;
    memcpy(&r, name + 16 * part, sizeof(r));
    return r;
}

static struct cpuid_result sizes(const struct cpu *cpu)
{
    enum { EBX_AMD_SSB_NO = 1 << 26 };
    const struct cpuid_features *f = &cpu->system->features;
    unsigned count = cpus_in_socket(cpu->system);
    struct cpuid_result r = {.eax = f->physical_bits | 48 << 8};
    if (f->is_amd) {
        r.ebx = EBX_AMD_SSB_NO;
        r.ecx = (count - 1) | socket_shift(cpu->system) << 12;
    }
    return r;
}

static struct cpuid_result extended_amd(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    /* LFENCE serialises, null selectors clear the base, automatic IBRS, no SRSO; no TSA. */
    enum {
        LFENCE_SERIAL = 1 << 2,
        NULL_CLEARS = 1 << 6,
        AUTO_IBRS = 1 << 8,
        SRSO_NO = 1 << 29,
        TSA_SQ_NO = 1 << 1,
        TSA_L1_NO = 1 << 2
    };
    const struct soft_system *system = cpu->system;
    switch (leaf) {
    case 0x80000005:
        return (struct cpuid_result){0, 0, 32u << 24 | 8 << 16 | 1 << 8 | 64,
                                     32u << 24 | 8 << 16 | 1 << 8 | 64};
    case 0x80000006:
        return (struct cpuid_result){0, 0, 1024u << 16 | 6 << 12 | 1 << 8 | 64,
                                     32u << 18 | 8 << 12 | 1 << 8 | 64};
    case 0x8000001d: return cache(cpu, subleaf);
    case 0x8000001e:
        return (struct cpuid_result){
            apic_id(cpu), cpu->index / system->threads % system->cores | (system->threads - 1) << 8,
            cpu->index / cpus_in_socket(system), 0};
    case 0x80000021:
        return (struct cpuid_result){LFENCE_SERIAL | NULL_CLEARS | AUTO_IBRS | SRSO_NO, 0,
                                     TSA_SQ_NO | TSA_L1_NO, 0};
    default: return (struct cpuid_result){0};
    }
}

/* AMD's repeats the APIC's bit of leaf 1. */
static uint32_t extended_edx(const struct cpu *cpu)
{
    uint32_t edx = cpu->system->features.extended_edx;
    return is_apic_enabled(cpu) ? edx : edx & ~(uint32_t)EDX_APIC;
}

static struct cpuid_result extended(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    enum { INVARIANT_TSC = 1 << 8 };
    const struct cpuid_features *f = &cpu->system->features;
    bool is_multicore_amd = f->is_amd && cpus_in_socket(cpu->system) > 1;
    switch (leaf) {
    case 0x80000000: return identity(cpu, f->is_amd ? MAX_EXTENDED_AMD : MAX_EXTENDED_INTEL);
    case 0x80000001:
        return (struct cpuid_result){f->is_amd ? SIGNATURE_AMD : 0, 0,
                                     f->extended_ecx | (is_multicore_amd ? ECXE_CMP_LEGACY : 0),
                                     extended_edx(cpu)};
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: return brand(leaf - 0x80000002);
    case 0x80000007: return (struct cpuid_result){0, 0, 0, INVARIANT_TSC};
    case 0x80000008: return sizes(cpu);
    default: break;
    }
    if (f->is_amd)
        return extended_amd(cpu, leaf, subleaf);
    if (leaf == 0x80000006)
        return (struct cpuid_result){0, 0, 1024u << 16 | 6 << 12 | 64, 0};
    return (struct cpuid_result){0};
}

static struct cpuid_result whole_leaf(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    if (leaf >= 0x80000000u)
        return extended(cpu, leaf, subleaf);
    if (leaf >= HYPERVISOR_BASE)
        return hypervisor(cpu, leaf);
    return standard(cpu, leaf, subleaf);
}

struct cpuid_result cpuid_leaf(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_result r = whole_leaf(cpu, leaf, subleaf);
    uint32_t registers[4] = {r.eax, r.ebx, r.ecx, r.edx};
    cpu_level_mask(cpu->system->cpu_level, leaf, subleaf, registers);
    return (struct cpuid_result){registers[0], registers[1], registers[2], registers[3]};
}

static void cpuid(struct cpu *cpu, const struct op *op)
{
    struct cpuid_result r = cpuid_leaf(cpu, (uint32_t)cpu->gpr[RAX], (uint32_t)cpu->gpr[RCX]);
    cpu->gpr[RAX] = r.eax;
    cpu->gpr[RBX] = r.ebx;
    cpu->gpr[RCX] = r.ecx;
    cpu->gpr[RDX] = r.edx;
}

bool bind_cpuid(const struct insn *insn, struct op *op)
{
    if (insn->info->mnemonic != ZYDIS_MNEMONIC_CPUID)
        return false;
    op->fn = cpuid;
    return true;
}
