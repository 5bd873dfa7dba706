/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the benchmark's programs share: rows that are timed and printed. The same static programs
 * run in the guests and natively.
 */
#ifndef SKEP_BENCH_GUEST_BENCH_H
#define SKEP_BENCH_GUEST_BENCH_H

#include <stdbool.h>
#include <stdint.h>

/* One thing that is measured. */
struct bench_row {
    const char *name;
    /* "ns", "us": the time of one piece; "MB/s", "M/s", …: pieces a second, in millions. */
    const char *unit;
    /* How many pieces a count of one is: bytes for MB/s, operations for M/s, and so on. */
    double pieces;
    /* What must be there before the clock starts; NULL for nothing. False: this machine cannot do
     * the row, which is left out then. */
    bool (*prepare)(void);
    /* Does the work `count` times. What it returns for the first count of one is printed, so that
     * machines can be compared; 0 where there is nothing to compare. */
    uint64_t (*run)(uint64_t count);
};

/* The main() of a program: [-t MILLISECONDS A SLICE] [ROW...], all rows when none is named. Prints
 * "name value unit result" lines. Returns the exit status: 0, or 2 for a row that is not known. A
 * program that takes more than its limit is ended by SIGALRM. */
int bench_main(int argc, char **argv, const struct bench_row *rows, unsigned count);

/* The next number of a fixed sequence; `state` starts as anything but 0. */
static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Ends the program: this system call or library call may not fail. */
_Noreturn void bench_die(const char *what);

#endif
