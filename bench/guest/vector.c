/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Vectors as gcc -O3 makes them of C: a matrix product in floating point and a product of 16-bit
 * numbers, once in SSE2 and once in AVX2 with FMA, where the processor says that it has those.
 */
#include "bench.h"

#include <string.h>

#define AVX2 __attribute__((target("avx2,fma"), noinline))
#define SSE2 __attribute__((noinline))
/* One text, compiled for both. */
#define BOTH static inline __attribute__((always_inline))

enum { SIZE = 64, SAMPLES = 8192 };

static float a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
static int16_t left[SAMPLES], right[SAMPLES];

static bool matrix_prepare(void)
{
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            a[i][j] = (float)(i * 3 + j) / 8.0f;
            b[i][j] = (float)(i - 2 * j) / 4.0f;
        }
    return true;
}

static bool samples_prepare(void)
{
    for (int i = 0; i < SAMPLES; i++) {
        left[i] = (int16_t)(i * 5);
        right[i] = (int16_t)(i * 3 - 77);
    }
    return true;
}

static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool matrix_prepare_avx2(void)
{
    return has_avx2() && matrix_prepare();
}
static bool samples_prepare_avx2(void)
{
    return has_avx2() && samples_prepare();
}

BOTH void multiply(void)
{
    memset(c, 0, sizeof(c));
    for (int i = 0; i < SIZE; i++)
        for (int k = 0; k < SIZE; k++)
            for (int j = 0; j < SIZE; j++)
                c[i][j] += a[i][k] * b[k][j];
}

BOTH int32_t product(void)
{
    uint32_t sum = 0;
    for (int i = 0; i < SAMPLES; i++)
        sum += (uint32_t)((int32_t)left[i] * right[i]);
    return (int32_t)sum;
}

static SSE2 void multiply_sse2(void)
{
    multiply();
}
static AVX2 void multiply_avx2(void)
{
    multiply();
}
static SSE2 int32_t product_sse2(void)
{
    return product();
}
static AVX2 int32_t product_avx2(void)
{
    return product();
}

static uint64_t matrix_result(void)
{
    uint32_t result;
    memcpy(&result, &c[3][5], sizeof(result));
    return result;
}

static uint64_t matrix_sse2(uint64_t count)
{
    for (; count--; a[0][0] += 1)
        multiply_sse2();
    return matrix_result();
}

static uint64_t matrix_avx2(uint64_t count)
{
    for (; count--; a[0][0] += 1)
        multiply_avx2();
    return matrix_result();
}

static uint64_t samples_sse2(uint64_t count)
{
    uint64_t sum = 0;
    for (; count--; left[0]++)
        sum += (uint32_t)product_sse2();
    return sum;
}

static uint64_t samples_avx2(uint64_t count)
{
    uint64_t sum = 0;
    for (; count--; left[0]++)
        sum += (uint32_t)product_avx2();
    return sum;
}

int main(int argc, char **argv)
{
    static const struct bench_row rows[] = {
        {"matrix_sse2", "M/s", 2.0 * SIZE * SIZE * SIZE, matrix_prepare, matrix_sse2},
        {"samples_sse2", "M/s", SAMPLES, samples_prepare, samples_sse2},
        {"matrix_avx2", "M/s", 2.0 * SIZE * SIZE * SIZE, matrix_prepare_avx2, matrix_avx2},
        {"samples_avx2", "M/s", SAMPLES, samples_prepare_avx2, samples_avx2},
    };
    return bench_main(argc, argv, rows, sizeof(rows) / sizeof(rows[0]));
}
