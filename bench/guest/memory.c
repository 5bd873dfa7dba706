/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Memory: the C library's memcpy and memset (which pick their instructions by CPUID), REP MOVSB and
 * REP STOSB by name, all over 64 KiB; a copy larger than the caches; and pointer chases.
 */
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

enum {
    BLOCK = 65536,
    LARGE = 32 << 20,
    LINE = 64,
    SMALL_LINES = (32 << 10) / LINE,
    LARGE_LINES = (16 << 20) / LINE,
    CHASES = 4096
};

static uint8_t *from, *to;

static void *allocate(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bench_die("mmap");
    return memory;
}

static bool blocks(size_t bytes)
{
    from = allocate(bytes);
    to = allocate(bytes);
    memset(from, 0x5a, bytes);
    memset(to, 0x11, bytes);
    return true;
}

static bool block_prepare(void)
{
    return blocks(BLOCK);
}
static bool large_prepare(void)
{
    return blocks(LARGE);
}

/* What is read or written through the pointer must really be there. */
static void used(void *memory)
{
    __asm__ volatile("" : : "r"(memory) : "memory");
}

static uint64_t memcpy_run(uint64_t count)
{
    for (; count--; used(to))
        memcpy(to, from, BLOCK);
    return to[BLOCK - 1];
}

static uint64_t memset_run(uint64_t count)
{
    for (; count--; used(to))
        memset(to, (int)count, BLOCK);
    return to[BLOCK - 1];
}

static uint64_t movsb_run(uint64_t count)
{
    while (count--) {
        void *target = to;
        const void *source = from;
        size_t bytes = BLOCK;
        __asm__ volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(bytes) : : "memory");
    }
    return to[BLOCK - 1];
}

static uint64_t stosb_run(uint64_t count)
{
    while (count--) {
        void *target = to;
        size_t bytes = BLOCK;
        __asm__ volatile("rep stosb" : "+D"(target), "+c"(bytes) : "a"(0x33) : "memory");
    }
    return to[BLOCK - 1];
}

static uint64_t large_run(uint64_t count)
{
    for (; count--; used(to))
        memcpy(to, from, LARGE);
    return to[LARGE - 1];
}

/* ---- pointer chases: one cycle through all lines, in an order that no prefetcher knows ---- */

static void **chase_at;

static bool chase(uint32_t lines)
{
    uint8_t *memory = allocate((size_t)lines * LINE);
    uint32_t *order = allocate(lines * sizeof(*order));
    uint64_t random = 88172645463325252u;
    for (uint32_t i = 0; i < lines; i++)
        order[i] = i;
    /* Sattolo's: a permutation of a single cycle. */
    for (uint32_t i = lines - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(bench_random(&random) % i), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    for (uint32_t i = 0; i < lines; i++)
        *(void **)(memory + (size_t)i * LINE) = memory + (size_t)order[i] * LINE;
    munmap(order, lines * sizeof(*order));
    chase_at = (void **)memory;
    return true;
}

static bool small_chase_prepare(void)
{
    return chase(SMALL_LINES);
}
static bool large_chase_prepare(void)
{
    return chase(LARGE_LINES);
}

static uint64_t chase_run(uint64_t count)
{
    void **at = chase_at;
    for (uint64_t i = 0; i < count * CHASES; i++)
        at = *at;
    chase_at = at;
    return 0;
}

int main(int argc, char **argv)
{
    static const struct bench_row rows[] = {
        {"memcpy", "MB/s", BLOCK, block_prepare, memcpy_run},
        {"memset", "MB/s", BLOCK, block_prepare, memset_run},
        {"rep_movsb", "MB/s", BLOCK, block_prepare, movsb_run},
        {"rep_stosb", "MB/s", BLOCK, block_prepare, stosb_run},
        {"memcpy_large", "MB/s", LARGE, large_prepare, large_run},
        {"chase_small", "ns", CHASES, small_chase_prepare, chase_run},
        {"chase_large", "ns", CHASES, large_chase_prepare, chase_run},
    };
    return bench_main(argc, argv, rows, sizeof(rows) / sizeof(rows[0]));
}
