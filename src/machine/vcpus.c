/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The vCPU threads. All that a thread waits for is guarded by its vCPU's lock: whoever gives it a
 * reason to go on sets that first and signals under the lock, so that no wake-up is lost.
 */
#include "machine/vcpus.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum job_kind { JOB_NONE, JOB_GET, JOB_SET, JOB_DEBUG, JOB_CLOSE };

struct vcpu {
    struct vcpus *vcpus;
    unsigned index;
    pthread_t thread;
    struct engine_vcpu *engine_vcpu;

    pthread_mutex_t lock;
    pthread_cond_t wake;           /* to the thread: has it a reason to go on? */
    pthread_cond_t parked_or_done; /* from the thread */
    bool is_opened;                /* or has failed to */
    bool is_parked;
    bool is_halted;
    bool is_deaf; /* of a halted one: as of engine_exit */
    bool is_held;
    bool has_stop;
    struct debug_stop stop;
    enum job_kind job;
    struct x86_state *job_state;
    const struct debug_request *job_debug;
    bool job_ok;
    struct error error; /* of opening or of the last job */
};

struct vcpus {
    struct vcpus_config config;
    pthread_key_t current; /* the struct vcpu on its own thread */
    atomic_bool pausing;
    unsigned thread_count;
    struct vcpu vcpu[];
};

static bool job_run(struct vcpu *vcpu, enum job_kind job, struct error *err)
{
    const struct engine *engine = vcpu->vcpus->config.engine;
    switch (job) {
    case JOB_NONE: break;
    case JOB_GET: return engine->get_state(vcpu->engine_vcpu, vcpu->job_state, err);
    case JOB_SET: return engine->set_state(vcpu->engine_vcpu, vcpu->job_state, err);
    case JOB_DEBUG: return engine->set_debug(vcpu->engine_vcpu, vcpu->job_debug, err);
    case JOB_CLOSE: engine->vcpu_close(vcpu->engine_vcpu); break;
    }
    return true;
}

/* With the lock held, on the vCPU's thread. False when it is the last one. The lock is let go
 * meanwhile: an engine asks the local APIC for a part of the state, and a device that interrupts
 * takes the two locks in the other order. The caller's arguments stay until the job is done. */
static bool do_job(struct vcpu *vcpu)
{
    enum job_kind job = vcpu->job;
    struct error error = {0};
    pthread_mutex_unlock(&vcpu->lock);
    bool ok = job_run(vcpu, job, &error);
    pthread_mutex_lock(&vcpu->lock);
    if (job == JOB_SET)
        vcpu->is_halted = false;
    if (job == JOB_CLOSE)
        vcpu->engine_vcpu = NULL;
    vcpu->error = error;
    vcpu->job_ok = ok;
    vcpu->job = JOB_NONE;
    pthread_cond_signal(&vcpu->parked_or_done);
    return job != JOB_CLOSE;
}

/* Sleeps until the vCPU is to run. False when the thread is to end. */
static bool wait_to_run(struct vcpu *vcpu)
{
    struct vcpus *vcpus = vcpu->vcpus;
    const struct engine *engine = vcpus->config.engine;
    bool goes_on = true;
    pthread_mutex_lock(&vcpu->lock);
    for (;;) {
        if (vcpu->job != JOB_NONE) {
            goes_on = do_job(vcpu);
            if (!goes_on)
                break;
        } else if (atomic_load(&vcpus->pausing)) {
            vcpu->is_parked = true;
            pthread_cond_signal(&vcpu->parked_or_done);
            pthread_cond_wait(&vcpu->wake, &vcpu->lock);
        } else if (vcpu->is_held || (vcpu->is_halted && !engine->has_work(vcpu->engine_vcpu))) {
            vcpu->is_parked = false;
            pthread_cond_wait(&vcpu->wake, &vcpu->lock);
        } else {
            break;
        }
    }
    vcpu->is_parked = false;
    vcpu->is_halted = false;
    pthread_mutex_unlock(&vcpu->lock);
    return goes_on;
}

static void report(struct vcpu *vcpu, enum vcpus_event event, const struct error *error)
{
    struct vcpus *vcpus = vcpu->vcpus;
    vcpus_request_pause(vcpus);
    vcpus->config.event(vcpus->config.opaque, vcpu->index, event, error);
}

static void report_stop(struct vcpu *vcpu, const struct debug_stop *stop)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->has_stop = true;
    vcpu->stop = *stop;
    pthread_mutex_unlock(&vcpu->lock);
    report(vcpu, VCPUS_DEBUG, NULL);
}

/* Whoever halts last sees that all have. */
static bool all_are_deaf(struct vcpus *vcpus)
{
    bool is_deaf = true;
    for (unsigned i = 0; i < vcpus->config.count && is_deaf; i++) {
        struct vcpu *vcpu = &vcpus->vcpu[i];
        pthread_mutex_lock(&vcpu->lock);
        is_deaf = vcpu->is_halted && vcpu->is_deaf;
        pthread_mutex_unlock(&vcpu->lock);
    }
    return is_deaf;
}

static void halt(struct vcpu *vcpu, bool is_deaf)
{
    struct vcpus *vcpus = vcpu->vcpus;
    pthread_mutex_lock(&vcpu->lock);
    vcpu->is_halted = true;
    vcpu->is_deaf = is_deaf;
    pthread_mutex_unlock(&vcpu->lock);
    if (is_deaf && all_are_deaf(vcpus))
        vcpus->config.event(vcpus->config.opaque, vcpu->index, VCPUS_HALTED, NULL);
}

static void run_once(struct vcpu *vcpu)
{
    struct engine_exit exit = {0};
    vcpu->vcpus->config.engine->run(vcpu->engine_vcpu, &exit);
    switch (exit.reason) {
    case ENGINE_EXIT_KICKED: break;
    case ENGINE_EXIT_HALTED: halt(vcpu, exit.is_deaf); break;
    case ENGINE_EXIT_SHUTDOWN: report(vcpu, VCPUS_TRIPLE_FAULT, NULL); break;
    case ENGINE_EXIT_RESET: report(vcpu, VCPUS_RESET, NULL); break;
    case ENGINE_EXIT_DEBUG: report_stop(vcpu, &exit.stop); break;
    case ENGINE_EXIT_FAILED: report(vcpu, VCPUS_FAILED, &exit.error); break;
    }
}

/* Before anything is opened, so that the engine's memory is near. */
static bool pin(const struct vcpu *vcpu, struct error *err)
{
    const uint16_t *pins = vcpu->vcpus->config.pins;
    char where[48];
    cpu_set_t set;
    if (!pins || !pins[vcpu->index])
        return true;
    unsigned host_cpu = pins[vcpu->index] - 1u;
    CPU_ZERO(&set);
    CPU_SET(host_cpu, &set);
    int number = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
    if (!number)
        return true;
    snprintf(where, sizeof(where), "%u to processor %u of the host", vcpu->index, host_cpu);
    error_errno(err, "cannot pin vCPU", where, number);
    return error_hint(err, "the host has no such processor, or this process may not use it: "
                           "see `taskset -p $$`");
}

static bool open_vcpu(struct vcpu *vcpu)
{
    const struct vcpus_config *config = &vcpu->vcpus->config;
    struct error error = {0};
    struct engine_vcpu *opened = NULL;
    if (pin(vcpu, &error))
        opened = config->engine->vcpu_open(config->vm, vcpu->index, &error);
    pthread_mutex_lock(&vcpu->lock);
    vcpu->engine_vcpu = opened;
    vcpu->error = error;
    vcpu->is_opened = true;
    pthread_cond_signal(&vcpu->parked_or_done);
    pthread_mutex_unlock(&vcpu->lock);
    return opened;
}

static void *vcpu_main(void *opaque)
{
    struct vcpu *vcpu = opaque;
    char name[16];
    snprintf(name, sizeof(name), "vcpu %u", vcpu->index);
    pthread_setname_np(pthread_self(), name);
    pthread_setspecific(vcpu->vcpus->current, vcpu);
    if (!open_vcpu(vcpu))
        return NULL;
    while (wait_to_run(vcpu))
        run_once(vcpu);
    return NULL;
}

/* The process's signals are for the loop's thread. Faults stay open: an engine may handle those of
 * its own making, and a blocked one would kill the process anyway. So do real-time signals, with
 * which an engine gets a thread out of the kernel. */
static void block_signals(sigset_t *old)
{
    sigset_t blocked;
    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    sigdelset(&blocked, SIGTRAP);
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        sigdelset(&blocked, number);
    pthread_sigmask(SIG_SETMASK, &blocked, old);
}

static bool start_thread(struct vcpus *vcpus, struct error *err)
{
    struct vcpu *vcpu = &vcpus->vcpu[vcpus->thread_count];
    vcpu->vcpus = vcpus;
    vcpu->index = vcpus->thread_count;
    pthread_mutex_init(&vcpu->lock, NULL);
    pthread_cond_init(&vcpu->wake, NULL);
    pthread_cond_init(&vcpu->parked_or_done, NULL);
    sigset_t old;
    block_signals(&old);
    int number = pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (number) {
        pthread_cond_destroy(&vcpu->parked_or_done);
        pthread_cond_destroy(&vcpu->wake);
        pthread_mutex_destroy(&vcpu->lock);
        return error_errno(err, "cannot start a thread for a vCPU", NULL, number);
    }
    vcpus->thread_count++;
    pthread_mutex_lock(&vcpu->lock);
    while (!vcpu->is_opened)
        pthread_cond_wait(&vcpu->parked_or_done, &vcpu->lock);
    bool ok = vcpu->engine_vcpu;
    if (!ok && err)
        *err = vcpu->error;
    pthread_mutex_unlock(&vcpu->lock);
    return ok;
}

struct vcpus *vcpus_create(const struct vcpus_config *config, struct error *err)
{
    assert(config->count >= 1 && config->count <= ENGINE_MAX_VCPUS);
    struct vcpus *vcpus = calloc(1, sizeof(*vcpus) + config->count * sizeof(vcpus->vcpu[0]));
    int number = vcpus ? pthread_key_create(&vcpus->current, NULL) : ENOMEM;
    if (number) {
        free(vcpus);
        error_errno(err, "cannot make the vCPUs", NULL, number);
        return NULL;
    }
    vcpus->config = *config;
    atomic_init(&vcpus->pausing, true);
    for (unsigned i = 0; i < config->count; i++) {
        if (!start_thread(vcpus, err)) {
            vcpus_destroy(vcpus);
            return NULL;
        }
    }
    return vcpus;
}

/* Hands the paused vCPU's thread something to do, the arguments of which are set, and waits for it.
 */
static bool call(struct vcpu *vcpu, enum job_kind job, struct error *err)
{
    assert(atomic_load(&vcpu->vcpus->pausing));
    pthread_mutex_lock(&vcpu->lock);
    vcpu->job = job;
    pthread_cond_signal(&vcpu->wake);
    while (vcpu->job != JOB_NONE)
        pthread_cond_wait(&vcpu->parked_or_done, &vcpu->lock);
    bool ok = vcpu->job_ok;
    if (!ok && err)
        *err = vcpu->error;
    pthread_mutex_unlock(&vcpu->lock);
    return ok;
}

void vcpus_destroy(struct vcpus *vcpus)
{
    if (!vcpus)
        return;
    vcpus_pause(vcpus);
    for (unsigned i = 0; i < vcpus->thread_count; i++) {
        struct vcpu *vcpu = &vcpus->vcpu[i];
        if (vcpu->engine_vcpu)
            call(vcpu, JOB_CLOSE, NULL);
        pthread_join(vcpu->thread, NULL);
        pthread_cond_destroy(&vcpu->parked_or_done);
        pthread_cond_destroy(&vcpu->wake);
        pthread_mutex_destroy(&vcpu->lock);
    }
    pthread_key_delete(vcpus->current);
    free(vcpus);
}

static void wake(struct vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    pthread_cond_signal(&vcpu->wake);
    pthread_mutex_unlock(&vcpu->lock);
}

void vcpus_resume(struct vcpus *vcpus)
{
    atomic_store(&vcpus->pausing, false);
    for (unsigned i = 0; i < vcpus->thread_count; i++)
        wake(&vcpus->vcpu[i]);
}

void vcpus_request_pause(struct vcpus *vcpus)
{
    atomic_store(&vcpus->pausing, true);
    for (unsigned i = 0; i < vcpus->thread_count; i++) {
        struct vcpu *vcpu = &vcpus->vcpu[i];
        if (vcpu->engine_vcpu)
            vcpus->config.engine->kick(vcpu->engine_vcpu);
        wake(vcpu);
    }
}

void vcpus_pause(struct vcpus *vcpus)
{
    vcpus_request_pause(vcpus);
    for (unsigned i = 0; i < vcpus->thread_count; i++) {
        struct vcpu *vcpu = &vcpus->vcpu[i];
        pthread_mutex_lock(&vcpu->lock);
        while (vcpu->engine_vcpu && !vcpu->is_parked)
            pthread_cond_wait(&vcpu->parked_or_done, &vcpu->lock);
        pthread_mutex_unlock(&vcpu->lock);
    }
}

void vcpus_inject(struct vcpus *vcpus, unsigned index, enum engine_event event, unsigned value)
{
    assert(index < vcpus->thread_count);
    struct vcpu *vcpu = &vcpus->vcpu[index];
    vcpus->config.engine->inject(vcpu->engine_vcpu, event, value);
    wake(vcpu);
}

void vcpus_wake(struct vcpus *vcpus, unsigned index)
{
    wake(&vcpus->vcpu[index]);
}

unsigned vcpus_current(struct vcpus *vcpus)
{
    const struct vcpu *vcpu = pthread_getspecific(vcpus->current);
    return vcpu ? vcpu->index : UINT_MAX;
}

uint64_t vcpus_host_ns(struct vcpus *vcpus)
{
    uint64_t sum_ns = 0;
    for (unsigned i = 0; i < vcpus->thread_count; i++) {
        struct timespec spent = {0};
        clockid_t clock;
        if (pthread_getcpuclockid(vcpus->vcpu[i].thread, &clock) == 0)
            clock_gettime(clock, &spent);
        sum_ns += (uint64_t)spent.tv_sec * 1000000000 + (uint64_t)spent.tv_nsec;
    }
    return sum_ns;
}

uint64_t vcpus_read_tsc(struct vcpus *vcpus, unsigned index)
{
    return vcpus->config.engine->read_tsc(vcpus->vcpu[index].engine_vcpu);
}

/* The thread looks at a job's arguments only when it is told of the job. */
bool vcpus_get_state(struct vcpus *vcpus, unsigned index, struct x86_state *state,
                     struct error *err)
{
    vcpus->vcpu[index].job_state = state;
    return call(&vcpus->vcpu[index], JOB_GET, err);
}

bool vcpus_set_state(struct vcpus *vcpus, unsigned index, const struct x86_state *state,
                     struct error *err)
{
    struct x86_state copy = *state;
    vcpus->vcpu[index].job_state = &copy;
    return call(&vcpus->vcpu[index], JOB_SET, err);
}

bool vcpus_set_debug(struct vcpus *vcpus, unsigned index, const struct debug_request *request,
                     struct error *err)
{
    if (!vcpus->config.engine->set_debug)
        return error_set(err, "cannot debug the guest", NULL, "the engine %s does not offer it",
                         vcpus->config.engine->name);
    vcpus->vcpu[index].job_debug = request;
    return call(&vcpus->vcpu[index], JOB_DEBUG, err);
}

void vcpus_hold(struct vcpus *vcpus, unsigned index, bool is_held)
{
    struct vcpu *vcpu = &vcpus->vcpu[index];
    pthread_mutex_lock(&vcpu->lock);
    vcpu->is_held = is_held;
    pthread_mutex_unlock(&vcpu->lock);
}

bool vcpus_take_stop(struct vcpus *vcpus, unsigned index, struct debug_stop *stop)
{
    struct vcpu *vcpu = &vcpus->vcpu[index];
    pthread_mutex_lock(&vcpu->lock);
    bool has_stop = vcpu->has_stop;
    *stop = vcpu->stop;
    vcpu->has_stop = false;
    pthread_mutex_unlock(&vcpu->lock);
    return has_stop;
}
