/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Times rows. A first run finds how much work fills a slice of time, so that a slow processor does
 * less work and not more time; then the median of three slices counts.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SLICES = 3, SLICE_MS = 150, CALIBRATION_MS = 15, LIMIT_S = 90 };

_Noreturn void bench_die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double time_run(const struct bench_row *row, uint64_t count)
{
    double start = now();
    row->run(count);
    return now() - start;
}

/* How often the row fills a slice. */
static uint64_t calibrate(const struct bench_row *row, double slice_s)
{
    uint64_t count = 1;
    double seconds = time_run(row, count);
    while (seconds < CALIBRATION_MS / 1e3) {
        count *= 2;
        seconds = time_run(row, count);
    }
    double fills = (double)count * slice_s / seconds;
    return fills < 1 ? 1 : (uint64_t)fills;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A second's worth in the row's unit, from the seconds that a count of `count` took. */
static double value_of(const struct bench_row *row, uint64_t count, double seconds)
{
    double pieces = (double)count * row->pieces;
    if (!strcmp(row->unit, "ns"))
        return seconds * 1e9 / pieces;
    if (!strcmp(row->unit, "us"))
        return seconds * 1e6 / pieces;
    return pieces / seconds / 1e6;
}

static void measure(const struct bench_row *row, double slice_s)
{
    if (row->prepare && !row->prepare())
        return;
    uint64_t result = row->run(1);
    uint64_t count = calibrate(row, slice_s);
    double seconds[SLICES];
    for (int i = 0; i < SLICES; i++)
        seconds[i] = time_run(row, count);
    qsort(seconds, SLICES, sizeof(seconds[0]), compare);
    printf("%s %.6g %s %llx\n", row->name, value_of(row, count, seconds[SLICES / 2]), row->unit,
           (unsigned long long)result);
    fflush(stdout);
}

static const struct bench_row *find(const struct bench_row *rows, unsigned count, const char *name)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

int bench_main(int argc, char **argv, const struct bench_row *rows, unsigned count)
{
    double slice_s = SLICE_MS / 1e3;
    int option;
    while ((option = getopt(argc, argv, "t:")) != -1) {
        if (option != 't' || (slice_s = atof(optarg) / 1e3) <= 0)
            return 2;
    }
    alarm(LIMIT_S);
    for (unsigned i = 0; optind == argc && i < count; i++)
        measure(&rows[i], slice_s);
    for (; optind < argc; optind++) {
        const struct bench_row *row = find(rows, count, argv[optind]);
        if (!row) {
            fprintf(stderr, "%s: no row %s\n", argv[0], argv[optind]);
            return 2;
        }
        measure(row, slice_s);
    }
    return 0;
}
