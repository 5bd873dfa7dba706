/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What CPUID tells the guest of a machine that is to go from one engine or host to another: the
 * levels of the x86-64 psABI, and what kernels use besides and every engine has at that level.
 * Leaves that tell of no features are left alone (SDM 2A, CPUID; APM 3, appendix E).
 */
#ifndef SKEP_CPU_LEVEL_H
#define SKEP_CPU_LEVEL_H

#include <stddef.h>
#include <stdint.h>

enum cpu_level {
    CPU_LEVEL_HOST, /* all that the engine has here */
    CPU_LEVEL_1,    /* x86-64 */
    CPU_LEVEL_3,    /* x86-64-v3: with AVX2 */
    CPU_LEVELS
};

/* MAXPHYADDR at most, at every level, as QEMU's processors have it. OVMF maps all that can be
 * addressed, by pages of 2 MiB: 46 bits are a quarter of a gigabyte of tables, which took it nine
 * seconds to fill. */
enum { CPU_PHYSICAL_BITS_MAX = 40 };

static inline void cpu_level_mask(enum cpu_level level, uint32_t leaf, uint32_t subleaf,
                                  uint32_t registers[4])
{
    static const struct {
        uint32_t leaf, subleaf;
        uint8_t reg; /* EAX EBX ECX EDX */
        uint32_t keep[CPU_LEVELS];
    } masks[] = {
        /* CX16, x2APIC, deadline, hypervisor; SSE3 PCLMUL SSSE3 FMA SSE4.1 SSE4.2 MOVBE POPCNT AES
         * XSAVE OSXSAVE AVX F16C RDRAND */
        {1, 0, 2, {0, 0x81202000, 0xfff83203}},
        /* all but PSN DS ACPI SS TM IA64 PBE */
        {1, 0, 3, {0, 0x178bfbff, 0x178bfbff}},
        /* FSGSBASE TSC_ADJUST BMI1 AVX2 SMEP BMI2 ERMS RDSEED ADX SMAP CLFLUSHOPT */
        {7, 0, 1, {0, 0, 0x009c03ab}},
        {7, 0, 2, {0, 0, 1 << 2}}, /* UMIP */
        {7, 0, 3, {0}},
        {7, 1, 0, {0}},
        {7, 2, 3, {0}},
        {0xd, 0, 0, {0, 0, 7}}, /* x87 SSE AVX */
        {0xd, 0, 3, {0}},
        {0xd, 1, 0, {0, 0, 7}}, /* XSAVEOPT XSAVEC XGETBV with ECX = 1 */
        {0xd, 1, 2, {0}},
        /* clock, no I/O delay, clock 2, stable clock */
        {0x40000001, 0, 0, {0, 0x0100000b, 0x0100000b}},
        /* LAHF CMP_LEGACY PREFETCHW TOPOEXT; LZCNT */
        {0x80000001, 0, 2, {0, 0x00400103, 0x00400123}},
        /* SYSCALL NX LM, and AMD's repeat of leaf 1; 1 GiB RDTSCP */
        {0x80000001, 0, 3, {0, 0x2193fbff, 0x2d93fbff}},
        {0x80000008, 0, 1, {0}},
        /* LFENCE serialises, null selectors clear the base */
        {0x80000021, 0, 0, {0, 1 << 2 | 1 << 6, 1 << 2 | 1 << 6}},
    };
    if (leaf == 0x80000008 && (registers[0] & 0xff) > CPU_PHYSICAL_BITS_MAX)
        registers[0] = (registers[0] & ~UINT32_C(0xff)) | CPU_PHYSICAL_BITS_MAX;
    if (level == CPU_LEVEL_HOST)
        return;
    for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++)
        if (masks[i].leaf == leaf && masks[i].subleaf == subleaf)
            registers[masks[i].reg] &= masks[i].keep[level];
}

#endif
