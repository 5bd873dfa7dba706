/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The integer loop of the benchmark, run in the guest (and natively): a fixed number of
 * instructions of the usual mix — arithmetic, shifts, loads, stores, a call, branches taken and
 * not — written in assembly so that the number is known.
 */
#include "bench.h"

enum { INSTRUCTIONS_AN_ITERATION = 20, ITERATIONS = 5000, WORDS = 1024 };

static uint64_t words[WORDS];

/* Twenty instructions an iteration, the call and the return among them. */
static uint64_t loop(uint64_t iterations)
{
    uint64_t sum = 0;
    /* The call must not write into the red zone (System V ABI 3.2.2). */
    __asm__ volatile("sub $128, %%rsp\n"
                     "    jmp 2f\n"
                     "1:  lea (%[sum], %%rcx, 2), %%rax\n" /* called: 2 instructions */
                     "    ret\n"
                     "2:  mov %[sum], %%rcx\n"
                     "    and %[mask], %%ecx\n"
                     "    mov (%[words], %%rcx, 8), %%rdx\n"
                     "    add %%rdx, %[sum]\n"
                     "    call 1b\n"
                     "    xor %%rax, %[sum]\n"
                     "    mov %[sum], %%rdx\n"
                     "    shr $13, %%rdx\n"
                     "    add %%rdx, %[sum]\n"
                     "    mov %[sum], (%[words], %%rcx, 8)\n"
                     "    test $64, %k[sum]\n"
                     "    jz 3f\n"
                     "    inc %[sum]\n"
                     "    jmp 4f\n"
                     "3:  sub $3, %[sum]\n"
                     "    nop\n"
                     "4:  imul $37, %[sum], %[sum]\n"
                     "    rol $5, %[sum]\n"
                     "    dec %[count]\n"
                     "    jnz 2b\n"
                     "    add $128, %%rsp\n"
                     : [sum] "+&r"(sum), [count] "+&r"(iterations)
                     : [words] "r"(words), [mask] "i"(WORDS - 1)
                     : "rax", "rcx", "rdx", "cc", "memory");
    return sum;
}

static bool loop_prepare(void)
{
    for (int i = 0; i < WORDS; i++)
        words[i] = (uint64_t)i * 0x9e3779b97f4a7c15u;
    return true;
}

static uint64_t loop_run(uint64_t count)
{
    return loop(count * ITERATIONS);
}

int main(int argc, char **argv)
{
    static const struct bench_row rows[] = {
        {"loop", "M/s", INSTRUCTIONS_AN_ITERATION * ITERATIONS, loop_prepare, loop_run},
    };
    return bench_main(argc, argv, rows, sizeof(rows) / sizeof(rows[0]));
}
