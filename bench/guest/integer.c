/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Integer work as compiled C: a table-driven CRC, a sort, a sieve, recursive calls, calls through
 * pointers, and a small interpreter of bytecode.
 */
#include "bench.h"

#include <string.h>

enum {
    CRC_BYTES = 16384,
    SORTED = 2048,
    SIEVE = 32768,
    FIB = 15,
    FIB_CALLS = 1973,
    INDIRECT = 4096
};

/* The fixed end of each row's work; volatile so that none of it can be known beforehand. */
static volatile uint64_t sink;

/* ---- crc: CRC-32 of IEEE 802.3, one table, a byte a step ---- */

static uint32_t crc_table[256];
static uint8_t crc_bytes[CRC_BYTES];

static bool crc_prepare(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? 0xedb88320u : 0);
        crc_table[i] = value;
    }
    for (int i = 0; i < CRC_BYTES; i++)
        crc_bytes[i] = (uint8_t)(i * 7 + (i >> 8));
    return true;
}

static uint64_t crc_run(uint64_t count)
{
    uint32_t crc = ~0u;
    while (count--)
        for (int i = 0; i < CRC_BYTES; i++)
            crc = (crc >> 8) ^ crc_table[(crc ^ crc_bytes[i]) & 0xff];
    return sink = ~crc;
}

/* ---- sort: heap sort of 32-bit numbers ---- */

static uint32_t heap[SORTED];

static void sift(uint32_t *values, unsigned root, unsigned end)
{
    uint32_t value = values[root];
    for (unsigned child; (child = 2 * root + 1) < end; root = child) {
        if (child + 1 < end && values[child + 1] > values[child])
            child++;
        if (values[child] <= value)
            break;
        values[root] = values[child];
    }
    values[root] = value;
}

static uint64_t sort_run(uint64_t count)
{
    uint64_t random = 88172645463325252u, sum = 0;
    while (count--) {
        for (int i = 0; i < SORTED; i++)
            heap[i] = (uint32_t)bench_random(&random);
        for (unsigned i = SORTED / 2; i-- > 0;)
            sift(heap, i, SORTED);
        for (unsigned end = SORTED; --end > 0;) {
            uint32_t top = heap[0];
            heap[0] = heap[end];
            heap[end] = top;
            sift(heap, 0, end);
        }
        sum = sum * 31 + heap[SORTED / 3];
    }
    return sink = sum;
}

/* ---- sieve of Eratosthenes ---- */

static uint8_t composite[SIEVE];

static uint64_t sieve_run(uint64_t count)
{
    uint64_t primes = 0;
    while (count--) {
        memset(composite, 0, sizeof(composite));
        for (unsigned i = 2; i < SIEVE; i++) {
            if (composite[i])
                continue;
            primes++;
            for (unsigned j = 2 * i; j < SIEVE; j += i)
                composite[j] = 1;
        }
    }
    return sink = primes;
}

/* ---- recursive calls ---- */

/* noipa: else the compiler makes loops of most of the calls. */
static __attribute__((noipa)) uint64_t fib(uint64_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t calls_run(uint64_t count)
{
    uint64_t sum = 0;
    while (count--)
        sum += fib(FIB);
    return sink = sum;
}

/* ---- calls through pointers, in an order that is no short cycle ---- */

static uint64_t op_add(uint64_t a, uint64_t b)
{
    return a + b;
}
static uint64_t op_sub(uint64_t a, uint64_t b)
{
    return a - b;
}
static uint64_t op_xor(uint64_t a, uint64_t b)
{
    return a ^ b;
}
static uint64_t op_mul(uint64_t a, uint64_t b)
{
    return a * (b | 1);
}
static uint64_t op_rol(uint64_t a, uint64_t b)
{
    return (a << 7 | a >> 57) + b;
}
static uint64_t op_not(uint64_t a, uint64_t b)
{
    return ~a + b;
}
static uint64_t op_and(uint64_t a, uint64_t b)
{
    return (a & b) + 3;
}
static uint64_t op_or(uint64_t a, uint64_t b)
{
    return (a | b) - 5;
}

static uint64_t (*volatile const operations[8])(uint64_t, uint64_t) = {
    op_add, op_sub, op_xor, op_mul, op_rol, op_not, op_and, op_or};

static uint8_t order[INDIRECT];

static bool indirect_prepare(void)
{
    uint64_t random = 2463534242u;
    for (int i = 0; i < INDIRECT; i++)
        order[i] = (uint8_t)(bench_random(&random) >> 32 & 7);
    return true;
}

static uint64_t indirect_run(uint64_t count)
{
    uint64_t value = 1;
    while (count--)
        for (int i = 0; i < INDIRECT; i++)
            value = operations[order[i]](value, (uint64_t)i);
    return sink = value;
}

/* ---- a bytecode loop: the steps of Collatz sequences, on a machine of three registers ---- */

enum operation { LOAD, IF_ONE, COUNT, IF_ODD, HALVE, TRIPLE, JUMP, AGAIN, DONE };

struct code {
    uint8_t operation, target;
};

/* All sequences from COLLATZ_FROM down to 2 take COLLATZ_CODES operations. */
enum { COLLATZ_FROM = 64, COLLATZ_CODES = 8670 };

static const struct code collatz[] = {
    {LOAD, 0}, {IF_ONE, 8}, {COUNT, 0}, {IF_ODD, 6}, {HALVE, 0},
    {JUMP, 1}, {TRIPLE, 0}, {JUMP, 1},  {AGAIN, 0},  {DONE, 0},
};

/* The code comes by pointer, from outside: else it could be compiled away. */
static __attribute__((noipa)) uint64_t interpret(const struct code *code, uint64_t from)
{
    uint64_t value = 0, steps = 0;
    for (const struct code *at = code;;) {
        const struct code *next = at + 1;
        switch ((enum operation)at->operation) {
        case LOAD: value = from; break;
        case IF_ONE: next = value == 1 ? code + at->target : next; break;
        case COUNT: steps++; break;
        case IF_ODD: next = value & 1 ? code + at->target : next; break;
        case HALVE: value >>= 1; break;
        case TRIPLE: value = value * 3 + 1; break;
        case JUMP: next = code + at->target; break;
        case AGAIN: next = --from > 1 ? code + at->target : next; break;
        case DONE: return steps;
        }
        at = next;
    }
}

static uint64_t bytecode_run(uint64_t count)
{
    uint64_t sum = 0;
    while (count--)
        sum += interpret(collatz, COLLATZ_FROM);
    return sink = sum;
}

int main(int argc, char **argv)
{
    static const struct bench_row rows[] = {
        {"crc", "MB/s", CRC_BYTES, crc_prepare, crc_run},
        {"sort", "M/s", SORTED, NULL, sort_run},
        {"sieve", "M/s", SIEVE, NULL, sieve_run},
        {"calls", "M/s", FIB_CALLS, NULL, calls_run},
        {"indirect", "M/s", INDIRECT, indirect_prepare, indirect_run},
        {"bytecode", "M/s", COLLATZ_CODES, NULL, bytecode_run},
    };
    return bench_main(argc, argv, rows, sizeof(rows) / sizeof(rows[0]));
}
