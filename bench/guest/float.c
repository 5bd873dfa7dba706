/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Scalar floating point: a matrix product and the motion of five bodies in SSE2's scalar
 * instructions, the Mandelbrot set, and a polynomial in the x87's. Built with no vectors.
 */
#include "bench.h"

#include <math.h>
#include <string.h>

enum { SIZE = 32, BODIES = 5, STEPS = 32, SIDE = 32, DEPTH = 64, TERMS = 1024 };

static uint64_t bits(double value)
{
    uint64_t result;
    memcpy(&result, &value, sizeof(result));
    return result;
}

/* ---- matrix product ---- */

static double a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];

static bool matrix_prepare(void)
{
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            a[i][j] = (double)(i * 3 + j) / 7.0;
            b[i][j] = (double)(i - 2 * j) / 5.0;
        }
    return true;
}

static __attribute__((noipa)) void multiply(void)
{
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            double sum = 0;
            for (int k = 0; k < SIZE; k++)
                sum += a[i][k] * b[k][j];
            c[i][j] = sum;
        }
}

static uint64_t matrix_run(uint64_t count)
{
    while (count--)
        multiply();
    return bits(c[3][5]);
}

/* ---- five bodies ---- */

static double place[BODIES][3], speed[BODIES][3], mass[BODIES];

static bool bodies_prepare(void)
{
    for (int i = 0; i < BODIES; i++) {
        mass[i] = 1.0 / (i + 1);
        for (int k = 0; k < 3; k++) {
            place[i][k] = (double)((i * 7 + k * 5) % 11) - 5.0;
            speed[i][k] = (double)((i * 3 + k * 2) % 5) / 16.0 - 0.125;
        }
    }
    return true;
}

static void attract(int i, int j, double time)
{
    double way[3], square = 0.01;
    for (int k = 0; k < 3; k++) {
        way[k] = place[i][k] - place[j][k];
        square += way[k] * way[k];
    }
    double force = time / (square * sqrt(square));
    for (int k = 0; k < 3; k++) {
        speed[i][k] -= way[k] * mass[j] * force;
        speed[j][k] += way[k] * mass[i] * force;
    }
}

static uint64_t bodies_run(uint64_t count)
{
    for (uint64_t step = 0; step < count * STEPS; step++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++)
                attract(i, j, 0.001);
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                place[i][k] += speed[i][k] * 0.001;
    }
    return bits(place[0][0]);
}

/* ---- the Mandelbrot set ---- */

static int escape(double x, double y)
{
    double r = 0, i = 0;
    int depth = 0;
    for (; depth < DEPTH && r * r + i * i < 4.0; depth++) {
        double next = r * r - i * i + x;
        i = 2 * r * i + y;
        r = next;
    }
    return depth;
}

static uint64_t mandelbrot_run(uint64_t count)
{
    volatile double width = 2.5;
    uint64_t sum = 0;
    while (count--)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++)
                sum += (uint64_t)escape(x * width / SIDE - 2.0, y * width / SIDE - 1.25);
    return sum;
}

/* ---- the x87: a polynomial by Horner's rule in 80 bits ---- */

static long double factors[TERMS];

static bool x87_prepare(void)
{
    for (int i = 0; i < TERMS; i++)
        factors[i] = 1.0L / (i + 1);
    return true;
}

static uint64_t x87_run(uint64_t count)
{
    volatile double at = 0.75;
    long double sum = 0;
    while (count--) {
        sum *= 1e-3L;
        for (int i = 0; i < TERMS; i++)
            sum = sum * at + factors[i];
    }
    return bits((double)sum);
}

int main(int argc, char **argv)
{
    static const struct bench_row rows[] = {
        {"matrix", "M/s", 2.0 * SIZE * SIZE * SIZE, matrix_prepare, matrix_run},
        {"bodies", "M/s", STEPS * BODIES * (BODIES - 1) / 2.0, bodies_prepare, bodies_run},
        {"mandelbrot", "M/s", SIDE * SIDE, NULL, mandelbrot_run},
        {"x87", "M/s", 2.0 * TERMS, x87_prepare, x87_run},
    };
    return bench_main(argc, argv, rows, sizeof(rows) / sizeof(rows[0]));
}
