/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Unmasked SIMD floating-point exceptions. A stub runs with the guest's own MXCSR, so the host's
 * processor decides, and the kernel tells by SIGFPE. The handler takes the guest's MXCSR, flags
 * included, out of the interrupted context and makes the stub appear to have called
 * vector_raise_simd(cpu) in its place.
 *
 * A signal handler can only find its cpu through the thread, hence the one thread-local variable;
 * the handler that was there before is kept once for the process.
 */
#include "cpu/soft/vector/internal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

static _Thread_local struct cpu *running_cpu;
static struct sigaction previous_action;
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;
static bool is_installed;

void signal_set_running(struct cpu *cpu)
{
    running_cpu = cpu;
}

/* Entered from a stub, on its stack, as if called. */
static _Noreturn void vector_raise_simd(struct cpu *cpu)
{
    if (vector_host_features() & HOST_AVX)
        __asm__ volatile("vzeroupper" ::: "xmm0");
    cpu_raise(cpu, cpu->cr4 & VECTOR_CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD);
}

/* Likewise, for a stub in which the host's x87 reported an exception that had been pending: an
 * instruction that some processors count among the waiting ones and some don't. */
static _Noreturn void vector_raise_x87(struct cpu *cpu)
{
    vector_raise_pending_x87(cpu);
}

static void forward(int number, siginfo_t *info, void *context)
{
    if (previous_action.sa_flags & SA_SIGINFO) {
        previous_action.sa_sigaction(number, info, context);
    } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
        /* A synchronous fault can't be ignored: let it happen again, with the default action. */
        signal(number, SIG_DFL);
    } else {
        previous_action.sa_handler(number);
    }
}

static void handle_sigfpe(int number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    struct cpu *cpu = running_cpu;
    uintptr_t rip = (uintptr_t)user->uc_mcontext.gregs[REG_RIP];
    if (cpu == NULL || !stub_contains(cpu->vector_pool, rip)) {
        forward(number, info, context);
        return;
    }
    if (user->uc_mcontext.gregs[REG_TRAPNO] != VECTOR_MF)
        cpu->mxcsr = user->uc_mcontext.fpregs->mxcsr;
    user->uc_mcontext.fpregs->mxcsr = MXCSR_DEFAULT;
    user->uc_mcontext.gregs[REG_RDI] = (greg_t)(uintptr_t)cpu;
    bool is_x87 = user->uc_mcontext.gregs[REG_TRAPNO] == VECTOR_MF;
    user->uc_mcontext.gregs[REG_RIP] =
        is_x87 ? (greg_t)(uintptr_t)vector_raise_x87 : (greg_t)(uintptr_t)vector_raise_simd;
}

bool signal_install(struct error *err)
{
    struct sigaction action = {.sa_sigaction = handle_sigfpe, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    bool ok = true;
    pthread_mutex_lock(&install_lock);
    if (!is_installed) {
        ok = sigaction(SIGFPE, &action, &previous_action) == 0;
        if (!ok)
            error_errno(err, "cannot install the SIGFPE handler", NULL, errno);
        is_installed = ok;
    }
    pthread_mutex_unlock(&install_lock);
    return ok;
}
