/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Runs inside a Linux guest for debug.py: what a debugger of user programs has of the processor,
 * protection keys, alignment checks. One argument names what; one line on stdout tells what came.
 */
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 3, LOOPS = 1000, SINGLE_BLOCK = 33 };
enum { LOCAL0 = 1 << 0, LOCAL1 = 1 << 2, WRITES_4_BYTES = 0xd << 16 };

static volatile int watched, other;

static __attribute__((noinline)) void called(int i)
{
    other = i;
}

static void be_traced(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
}

static void *debug_register(unsigned n)
{
    return (void *)(offsetof(struct user, u_debugreg) + n * sizeof(long));
}

/* A write breakpoint on a variable, an instruction breakpoint on a function. */
static void breakpoints(void)
{
    int status, data = 0, code = 0;
    pid_t child = fork();
    if (child == 0) {
        be_traced();
        for (int i = 0; i < ROUNDS; i++) {
            other = i;
            watched = i;
            called(i);
        }
        _exit(7);
    }
    waitpid(child, &status, 0);
    ptrace(PTRACE_POKEUSER, child, debug_register(0), (void *)&watched);
    ptrace(PTRACE_POKEUSER, child, debug_register(1), (void *)called);
    ptrace(PTRACE_POKEUSER, child, debug_register(7),
           (void *)(long)(LOCAL0 | LOCAL1 | WRITES_4_BYTES));
    for (;;) {
        ptrace(PTRACE_CONT, child, NULL, NULL);
        if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status))
            break;
        long hits = ptrace(PTRACE_PEEKUSER, child, debug_register(6), NULL);
        data += hits & 1;
        code += hits >> 1 & 1;
        ptrace(PTRACE_POKEUSER, child, debug_register(6), NULL);
    }
    printf("data %d code %d exit %d\n", data, code, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* A loop of two instructions, one or one taken branch after another. */
static void steps(long request)
{
    int status, count = 0;
    pid_t child = fork();
    if (child == 0) {
        be_traced();
        __asm__ volatile("1: decl %0\n\tjnz 1b" : : "r"(LOOPS) : "cc");
        _exit(3);
    }
    waitpid(child, &status, 0);
    while (ptrace(request, child, NULL, NULL) == 0 && waitpid(child, &status, 0) > 0 &&
           WIFSTOPPED(status))
        count++;
    printf("per round %d exit %d\n", count / LOOPS, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static sigjmp_buf back;
static volatile int signal_code, signal_key;

static void handle(int number, siginfo_t *info, void *context)
{
    signal_code = info->si_code;
    signal_key = info->si_pkey;
    siglongjmp(back, 1);
}

static void install(int number)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(number, &action, NULL);
}

static int is_refused(volatile int *page, int is_write)
{
    signal_code = 0;
    if (sigsetjmp(back, 1))
        return signal_code == SEGV_PKUERR;
    if (is_write)
        *page = 6;
    else
        (void)*page;
    return 0;
}

static void keys(void)
{
    install(SIGSEGV);
    int *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int key = pkey_alloc(0, PKEY_DISABLE_WRITE);
    pkey_mprotect(page, 4096, PROT_READ | PROT_WRITE, key);
    int no_write = !is_refused(page, 0) && is_refused(page, 1) && signal_key == key;
    pkey_set(key, PKEY_DISABLE_ACCESS);
    int no_access = is_refused(page, 0) && is_refused(page, 1);
    pkey_set(key, 0);
    printf("key %d no-write %d no-access %d free %d\n", key > 0, no_write, no_access,
           !is_refused(page, 1));
}

static void set_alignment_check(int is_set)
{
    __asm__ volatile("subq $128, %%rsp\n\tpushfq\n\tandl $~0x40000, (%%rsp)\n\torl %0, (%%rsp)\n\t"
                     "popfq\n\taddq $128, %%rsp"
                     :
                     : "r"(is_set ? 0x40000 : 0)
                     : "cc", "memory");
}

static void alignment(void)
{
    static _Alignas(8) char bytes[16];
    install(SIGBUS);
    if (!sigsetjmp(back, 1)) {
        set_alignment_check(1);
        __asm__ volatile("movl 1(%0), %%eax" : : "r"(bytes) : "eax", "memory");
    }
    set_alignment_check(0);
    printf("refused %d\n", signal_code == BUS_ADRALN);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "breakpoints") == 0)
        breakpoints();
    else if (strcmp(what, "steps") == 0)
        steps(PTRACE_SINGLESTEP);
    else if (strcmp(what, "blocks") == 0)
        steps(SINGLE_BLOCK);
    else if (strcmp(what, "keys") == 0)
        keys();
    else if (strcmp(what, "alignment") == 0)
        alignment();
    else
        return 2;
    return 0;
}
