/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What programs ask of the kernel: a system call that does nothing, page faults, mappings,
 * processes, the start of a static program (this one), and pipes between processes.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS = 256, PAGE = 4096, FAULTS = 256, MAPPED = 16, TURNS = 8 };

static uint64_t getppid_run(uint64_t count)
{
    for (uint64_t i = 0; i < count * CALLS; i++)
        syscall(SYS_getppid);
    return 0;
}

/* ---- memory ---- */

static volatile uint8_t *region;

/* 4 KiB pages, one fault each, wherever the kernel would like larger ones. */
static void *map(size_t pages)
{
    void *memory =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bench_die("mmap");
    return memory;
}

static bool fault_prepare(void)
{
    void *memory = map(FAULTS);
    madvise(memory, FAULTS * PAGE, MADV_NOHUGEPAGE);
    region = memory;
    return true;
}

static uint64_t fault_run(uint64_t count)
{
    while (count--) {
        if (madvise((void *)region, FAULTS * PAGE, MADV_DONTNEED))
            bench_die("madvise");
        for (int i = 0; i < FAULTS; i++)
            region[i * PAGE] = 1;
    }
    return 0;
}

static uint64_t mmap_run(uint64_t count)
{
    while (count--) {
        volatile uint8_t *memory = map(MAPPED);
        for (int i = 0; i < MAPPED; i++)
            memory[i * PAGE] = 1;
        if (munmap((void *)memory, MAPPED * PAGE))
            bench_die("munmap");
    }
    return 0;
}

/* ---- processes ---- */

static void wait_for(pid_t child)
{
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) {
        bench_die("a child failed");
    }
}

static uint64_t fork_run(uint64_t count)
{
    while (count--) {
        pid_t child = fork();
        if (child < 0)
            bench_die("fork");
        if (child == 0)
            _exit(0);
        wait_for(child);
    }
    return 0;
}

static uint64_t exec_run(uint64_t count)
{
    while (count--) {
        pid_t child = vfork();
        if (child < 0)
            bench_die("vfork");
        if (child == 0) {
            execl("/proc/self/exe", "kernel", "--nothing", (char *)NULL);
            _exit(1);
        }
        wait_for(child);
    }
    return 0;
}

/* ---- pipes ---- */

static int to_child[2], from_child[2];

/* Binds the caller to the n-th of the processors that it may use; false when there are fewer. */
static bool pin(const cpu_set_t *allowed, unsigned n)
{
    for (size_t i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, allowed) || n-- > 0)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(i, &one);
        return sched_setaffinity(0, sizeof(one), &one) == 0;
    }
    return false;
}

/* Sends each byte back, until the other end closes. */
_Noreturn static void echo(void)
{
    char byte;
    close(to_child[1]);
    close(from_child[0]);
    while (read(to_child[0], &byte, 1) == 1)
        if (write(from_child[1], &byte, 1) != 1)
            break;
    _exit(0);
}

static bool pipe_prepare(unsigned processor)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed))
        bench_die("sched_getaffinity");
    if ((unsigned)CPU_COUNT(&allowed) <= processor)
        return false;
    if (pipe(to_child) || pipe(from_child))
        bench_die("pipe");
    pid_t child = fork();
    if (child < 0)
        bench_die("fork");
    if (!pin(&allowed, child ? 0u : processor))
        bench_die("sched_setaffinity");
    if (child == 0)
        echo();
    close(to_child[0]);
    close(from_child[1]);
    return true;
}

static bool pipe_same_prepare(void)
{
    return pipe_prepare(0);
}
static bool pipe_across_prepare(void)
{
    return pipe_prepare(1);
}

static uint64_t pipe_run(uint64_t count)
{
    char byte = 'x';
    for (uint64_t i = 0; i < count * TURNS; i++)
        if (write(to_child[1], &byte, 1) != 1 || read(from_child[0], &byte, 1) != 1)
            bench_die("pipe");
    return 0;
}

int main(int argc, char **argv)
{
    static const struct bench_row rows[] = {
        {"getppid", "ns", CALLS, NULL, getppid_run},
        {"page_fault", "ns", FAULTS, fault_prepare, fault_run},
        {"mmap_touch", "us", 1, NULL, mmap_run},
        {"fork_exit", "us", 1, NULL, fork_run},
        {"exec", "us", 1, NULL, exec_run},
        {"pipe", "us", TURNS, pipe_same_prepare, pipe_run},
        {"pipe_across", "us", TURNS, pipe_across_prepare, pipe_run},
    };
    /* The program that exec_run() starts. */
    if (argc == 2 && !strcmp(argv[1], "--nothing"))
        return 0;
    return bench_main(argc, argv, rows, sizeof(rows) / sizeof(rows[0]));
}
