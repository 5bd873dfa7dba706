// SPDX-License-Identifier: BSD-2-Clause
// Of tests/boot/compile.py: floating point, built three times: for SSE, for the x87 (-DX87
// -mfpmath=387) and for AVX2 with FMA. All that it does is exact or rounded as IEEE 754
// has it, so every processor must print the same digits.
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef X87
#define REAL long double
#else
#define REAL double
#endif
#define FORMAT(value) ((long double)(value))

enum { BODIES = 12, STEPS = 4000, EDGE = 96, TERMS = 200000 };

struct body {
    REAL place[3], speed[3], mass;
};

static void move(struct body *bodies, REAL step)
{
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            REAL way[3], square = (REAL)0.01;
            for (int axis = 0; axis < 3; axis++) {
                way[axis] = bodies[i].place[axis] - bodies[j].place[axis];
                square += way[axis] * way[axis];
            }
            REAL pull = step / (square * (REAL)__builtin_sqrtl(square));
            for (int axis = 0; axis < 3; axis++) {
                bodies[i].speed[axis] -= way[axis] * bodies[j].mass * pull;
                bodies[j].speed[axis] += way[axis] * bodies[i].mass * pull;
            }
        }
    }
    for (int i = 0; i < BODIES; i++)
        for (int axis = 0; axis < 3; axis++)
            bodies[i].place[axis] += step * bodies[i].speed[axis];
}

static void print_orbits(void)
{
    struct body bodies[BODIES];
    for (int i = 0; i < BODIES; i++) {
        bodies[i].mass = (REAL)(i + 1) / 7;
        for (int axis = 0; axis < 3; axis++) {
            bodies[i].place[axis] = (REAL)((i * 7 + axis * 5) % 11) - 5;
            bodies[i].speed[axis] = (REAL)((i * 3 + axis * 13) % 7 - 3) / 10;
        }
    }
    for (int step = 0; step < STEPS; step++)
        move(bodies, (REAL)0.001);
    for (int i = 0; i < BODIES; i++)
        printf("orbit %d: %La %La %La\n", i, FORMAT(bodies[i].place[0]), FORMAT(bodies[i].place[1]),
               FORMAT(bodies[i].speed[2]));
}

static void print_product(void)
{
    static REAL a[EDGE][EDGE], b[EDGE][EDGE], c[EDGE][EDGE];
    for (int i = 0; i < EDGE; i++) {
        for (int j = 0; j < EDGE; j++) {
            a[i][j] = (REAL)(i * 31 + j * 17 % 101) / 13;
            b[i][j] = (REAL)(i * 7 % 53 - j) / 11;
        }
    }
    REAL sum = 0;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < EDGE; i++)
            for (int k = 0; k < EDGE; k++)
                for (int j = 0; j < EDGE; j++)
                    c[i][j] += a[i][k] * b[k][j];
        for (int i = 0; i < EDGE; i++)
            for (int j = 0; j < EDGE; j++)
                sum += c[i][j] / (REAL)(i + j + 1);
    }
    printf("product: %La %La\n", FORMAT(sum), FORMAT(c[EDGE - 1][EDGE / 2]));
}

// In each of the four directions of rounding, which go past the processor's usual state.
static void print_rounded_sums(void)
{
    static const int ways[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    for (int i = 0; i < 4; i++) {
        volatile REAL sum = 0, small = 0;
        fesetround(ways[i]);
        for (int term = 1; term <= TERMS; term++) {
            sum += (REAL)1 / (REAL)term;
            small = small / 3 + (REAL)term * (term & 1 ? (REAL)-1e-3 : (REAL)1e-3);
        }
        long whole = lrintl(sum * 1000);
        fesetround(FE_TONEAREST);
        printf("sum %d: %La %La %ld\n", i, FORMAT(sum), FORMAT(small), whole);
    }
}

// Denormals, infinities, NaNs, and the exceptions that are left behind.
static void print_limits(void)
{
    volatile REAL least = 1, most = 1;
    long halvings = 0, doublings = 0;
    feclearexcept(FE_ALL_EXCEPT);
    for (; least / 2 > 0; halvings++)
        least /= 2;
    for (; !isinf(most * 2); doublings++)
        most *= 2;
    volatile REAL nothing = most * 2 - most * 2;
    printf("limits: %ld %La %ld %La %d %#x\n", halvings, FORMAT(least), doublings, FORMAT(most),
           isnan(nothing) != 0, (unsigned)fetestexcept(FE_ALL_EXCEPT));
}

int main(void)
{
    print_orbits();
    print_product();
    print_rounded_sums();
    print_limits();
    return 0;
}
