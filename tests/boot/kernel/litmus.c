/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What four processors may see of each other's stores and loads (SDM 3A 8.2): litmus tests, locks
 * and barriers. A litmus test is a few instructions a processor on a cell of memory of its own, run
 * side by side over many cells; how often each outcome came is printed, and a forbidden one fails.
 * The word seconds=N of the command line tells how long each case takes.
 */
#include "kernel.h"

enum { THREADS = 4, CELLS = 2048, OUTCOMES = 16, PM_TIMER = 0x608, PM_TIMER_HZ = 3579545 };

/* In lines of the cache of their own. */
struct variable {
    _Alignas(64) volatile uint32_t value;
};
struct cell {
    struct variable x, y;
};

/* ---- time ---- */

static uint64_t deadline, second; /* of the TSC */

/* The PM timer counts 24 bits: a sixteenth of a second is far from all of them. */
static void measure_second(void)
{
    uint32_t first = in32(PM_TIMER), passed = 0;
    uint64_t start = rdtsc();
    while (passed < PM_TIMER_HZ / 16)
        passed = (in32(PM_TIMER) - first) & 0xffffff;
    second = (rdtsc() - start) * PM_TIMER_HZ / passed;
}

static unsigned seconds_wanted(void)
{
    static const char word[] = "seconds=";
    const char *at = (const char *)(uintptr_t)boot->cmdline;
    for (; *at; at++) {
        unsigned i = 0, value = 0;
        while (word[i] && at[i] == word[i])
            i++;
        if (word[i])
            continue;
        for (at += i; *at >= '0' && *at <= '9'; at++)
            value = 10 * value + (unsigned)(*at - '0');
        return value;
    }
    return 1;
}

static void print_number(uint64_t value)
{
    char text[21];
    unsigned at = sizeof(text) - 1;
    text[at] = 0;
    do {
        text[--at] = (char)('0' + value % 10);
    } while (value /= 10);
    print(text + at);
}

/* ---- threads and barriers ---- */

static unsigned thread_count;
static volatile unsigned thread_ids[THREADS]; /* of the local APICs */
static volatile bool stopping;
static struct variable arrived, phase;
static struct variable flags[THREADS];

static unsigned my_thread(void)
{
    unsigned id = my_id(), thread = 0;
    while (thread_ids[thread] != id)
        thread++;
    return thread;
}

/* The last one that comes opens it. */
static void counted_barrier(unsigned me, uint32_t round)
{
    uint32_t now = phase.value;
    (void)me;
    (void)round;
    if (__atomic_add_fetch(&arrived.value, 1, __ATOMIC_SEQ_CST) == thread_count) {
        arrived.value = 0;
        __atomic_store_n(&phase.value, now + 1, __ATOMIC_RELEASE);
        return;
    }
    while (__atomic_load_n(&phase.value, __ATOMIC_ACQUIRE) == now)
        relax();
}

/* By plain stores and loads alone: each tells its round and waits for those of the others. */
static void plain_barrier(unsigned me, uint32_t round)
{
    __atomic_store_n(&flags[me].value, round, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < thread_count; i++)
        while ((int32_t)(__atomic_load_n(&flags[i].value, __ATOMIC_ACQUIRE) - round) < 0)
            relax();
}

/* The end of a round: thread 0, for which the others wait by then, says whether there is another.
 */
static void end_round(unsigned me)
{
    if (me == 0)
        stopping = rdtsc() >= deadline;
    counted_barrier(me, 0);
}

/* On the first `count` processors; the others sleep. */
static void run_threads(unsigned count, uint64_t ticks, void (*fn)(void *), void *opaque)
{
    thread_count = count;
    stopping = false;
    thread_ids[0] = my_id();
    for (unsigned id = 0, next = 1; next < count; id++)
        if (id != my_id() && madt_has(id))
            thread_ids[next++] = id;
    deadline = rdtsc() + ticks;
    for (unsigned i = 1; i < count; i++)
        start_on(thread_ids[i], fn, opaque);
    fn(opaque);
    wait_for_all();
}

/* ---- what a thread of a litmus test does: `a` and `b` are x and y, or y and x ---- */

typedef unsigned body(volatile uint32_t *a, volatile uint32_t *b);

static unsigned write_one(volatile uint32_t *a, volatile uint32_t *b)
{
    __asm__ volatile("movl $1, %0" : "=m"(*a) : : "memory");
    return 0;
}

static unsigned write_both(volatile uint32_t *a, volatile uint32_t *b)
{
    __asm__ volatile("movl $1, %0\n\t movl $1, %1" : "=m"(*a), "=m"(*b) : : "memory");
    return 0;
}

static unsigned read_both(volatile uint32_t *a, volatile uint32_t *b)
{
    unsigned first, then;
    __asm__ volatile("movl %2, %0\n\t movl %3, %1"
                     : "=&r"(first), "=r"(then)
                     : "m"(*a), "m"(*b)
                     : "memory");
    return first | then << 1;
}

static unsigned read_twice(volatile uint32_t *a, volatile uint32_t *b)
{
    return read_both(a, a);
}

static unsigned read_write(volatile uint32_t *a, volatile uint32_t *b)
{
    unsigned r;
    __asm__ volatile("movl %2, %0\n\t movl $1, %1" : "=&r"(r), "=m"(*b) : "m"(*a) : "memory");
    return r;
}

#define STORE_LOAD(name, store, fence)                                                             \
    static unsigned name(volatile uint32_t *a, volatile uint32_t *b)                               \
    {                                                                                              \
        unsigned r = 1;                                                                            \
        __asm__ volatile(store "\n\t" fence "\n\t movl %2, %0"                                     \
                         : "+&r"(r), "+m"(*a)                                                      \
                         : "m"(*b)                                                                 \
                         : "memory", "cc");                                                        \
        return r;                                                                                  \
    }
STORE_LOAD(store_load, "movl %0, %1", "")
STORE_LOAD(store_mfence_load, "movl %0, %1", "mfence")
STORE_LOAD(store_lock_load, "movl %0, %1", "lock orl $0, (%%rsp)")
STORE_LOAD(exchange_load, "xchgl %0, %1", "")
STORE_LOAD(add_load, "lock addl %0, %1", "")

enum side { XY, YX };
enum { NOTHING_FORBIDDEN = OUTCOMES };

static const struct litmus {
    const char *name;
    unsigned forbidden; /* outcome: the bits of thread 0 lowest */
    struct {
        body *run;
        enum side side;
        unsigned bits;
    } thread[THREADS];
} litmus_tests[] = {
    /* 8.2.3.2: neither loads nor stores are reordered with like operations */
    {"message passing", 1, {{write_both, XY, 0}, {read_both, YX, 2}}},
    /* 8.2.3.3: stores are not reordered with earlier loads */
    {"load buffer", 3, {{read_write, XY, 1}, {read_write, YX, 1}}},
    /* 8.2.3.6: stores are transitively visible */
    {"causality", 3, {{write_one, XY, 0}, {read_write, XY, 1}, {read_both, YX, 2}}},
    {"one place read twice", 1, {{write_one, XY, 0}, {read_twice, XY, 2}}},
    /* 8.2.3.4: loads may be reordered with earlier stores to different locations */
    {"store buffer", NOTHING_FORBIDDEN, {{store_load, XY, 1}, {store_load, YX, 1}}},
    /* 8.2.5, 8.2.3.9: but not over MFENCE or a locked instruction */
    {"store buffer, MFENCE", 0, {{store_mfence_load, XY, 1}, {store_mfence_load, YX, 1}}},
    {"store buffer, LOCK OR", 0, {{store_lock_load, XY, 1}, {store_lock_load, YX, 1}}},
    {"store buffer, XCHG", 0, {{exchange_load, XY, 1}, {exchange_load, YX, 1}}},
    {"store buffer, LOCK ADD", 0, {{add_load, XY, 1}, {add_load, YX, 1}}},
    /* 8.2.3.7: all see stores of others in one order */
    {"independent reads of independent writes",
     5,
     {{write_one, XY, 0}, {write_one, YX, 0}, {read_both, XY, 2}, {read_both, YX, 2}}},
};
enum { FIRST_MESSAGE = 0, FIRST_STORE = 4, FIRST_IRIW = 9, LITMUS_END = 10 };

static struct cell cells[CELLS];
static volatile uint8_t results[THREADS][CELLS];
static uint64_t outcomes[OUTCOMES];

static void count_outcomes(const struct litmus *test)
{
    for (unsigned i = 0; i < CELLS; i++) {
        unsigned outcome = 0, shift = 0;
        for (unsigned t = 0; t < thread_count; t++) {
            outcome |= (unsigned)results[t][i] << shift;
            shift += test->thread[t].bits;
        }
        outcomes[outcome]++;
        cells[i].x.value = cells[i].y.value = 0;
    }
}

/* All go over the cells at once; who comes a little later differs from round to round. */
static void litmus_thread(void *opaque)
{
    const struct litmus *test = opaque;
    unsigned me = my_thread();
    body *run = test->thread[me].run;
    uint32_t random = 12345 + me;
    counted_barrier(me, 0);
    while (!stopping) {
        random = random * 1664525 + 1013904223;
        for (volatile unsigned wait = random >> 25; wait; wait--)
            ;
        for (unsigned i = 0; i < CELLS; i++) {
            volatile uint32_t *x = &cells[i].x.value, *y = &cells[i].y.value;
            unsigned got = test->thread[me].side == XY ? run(x, y) : run(y, x);
            results[me][i] = (uint8_t)got;
        }
        counted_barrier(me, 0);
        if (me == 0)
            count_outcomes(test);
        end_round(me);
    }
}

static void run_litmus(const struct litmus *test, uint64_t ticks)
{
    unsigned count = 0, bits = 0;
    uint64_t sum = 0;
    while (count < THREADS && test->thread[count].run)
        bits += test->thread[count++].bits;
    for (unsigned i = 0; i < OUTCOMES; i++)
        outcomes[i] = 0;
    run_threads(count, ticks, litmus_thread, (void *)(uintptr_t)test);
    print("litmus: ");
    print(test->name);
    for (unsigned outcome = 0; outcome < 1u << bits; outcome++) {
        print(outcome ? ", " : ": ");
        for (unsigned bit = 0; bit < bits; bit++)
            print(outcome >> bit & 1 ? "1" : "0");
        print(" ");
        print_number(outcomes[outcome]);
        sum += outcomes[outcome];
    }
    print("\n");
    check(sum > 0, test->name);
    if (test->forbidden != NOTHING_FORBIDDEN)
        check_equal(outcomes[test->forbidden], 0, "forbidden outcomes");
}

static void run_litmus_tests(unsigned first, unsigned end)
{
    measure_second();
    if (cpu_count < THREADS)
        return;
    for (unsigned i = first; i < end; i++)
        run_litmus(&litmus_tests[i], seconds_wanted() * second / (end - first));
}

void test_message(void)
{
    run_litmus_tests(FIRST_MESSAGE, FIRST_STORE);
}

void test_store(void)
{
    run_litmus_tests(FIRST_STORE, FIRST_IRIW);
}

void test_iriw(void)
{
    run_litmus_tests(FIRST_IRIW, LITMUS_END);
}

/* ---- locks ---- */

static struct variable lock_word, ticket_next, owner;
static _Alignas(64) volatile uint64_t guarded[8]; /* each counts what is done under the lock */
static _Alignas(64) volatile uint64_t turns[THREADS][8];
static volatile unsigned intrusions;
static _Alignas(64) uint8_t across[128]; /* a counter over the end of a line of the cache */
static _Alignas(64) volatile uint64_t pair[2];

static void take_compare(void)
{
    for (;;) {
        uint32_t none = 0;
        __asm__ volatile("lock cmpxchgl %2, %1"
                         : "+a"(none), "+m"(lock_word.value)
                         : "r"(1)
                         : "memory", "cc");
        if (!none)
            return;
        relax();
    }
}

static void take_exchange(void)
{
    for (;;) {
        uint32_t value = 1;
        __asm__ volatile("xchgl %0, %1" : "+r"(value), "+m"(lock_word.value) : : "memory");
        if (!value)
            return;
        while (lock_word.value)
            relax();
    }
}

static void give(void)
{
    __asm__ volatile("movl $0, %0" : "=m"(lock_word.value) : : "memory");
}

static void take_ticket(void)
{
    uint32_t mine = 1;
    __asm__ volatile("lock xaddl %0, %1" : "+r"(mine), "+m"(ticket_next.value) : : "memory", "cc");
    while (lock_word.value != mine)
        relax();
}

static void give_ticket(void)
{
    __asm__ volatile("incl %0" : "+m"(lock_word.value) : : "memory", "cc");
}

static void add_across(void)
{
    __asm__ volatile("lock incq %0" : "+m"(*(volatile uint64_t *)(across + 61)) : : "memory", "cc");
}

static void add_pair(void)
{
    uint64_t low = pair[0], high = pair[1];
    bool done = false;
    while (!done)
        __asm__ volatile("lock cmpxchg16b %1"
                         : "=@ccz"(done), "+m"(pair), "+a"(low), "+d"(high)
                         : "b"(low + 1), "c"(high - 1)
                         : "memory");
}

static const struct lock_test {
    const char *name;
    void (*take)(void), (*give)(void); /* give NULL: take() is what is counted */
} lock_tests[] = {
    {"lock by LOCK CMPXCHG", take_compare, give},
    {"lock by XCHG", take_exchange, give},
    {"ticket lock by LOCK XADD", take_ticket, give_ticket},
    {"LOCK INC over two lines of the cache", add_across, NULL},
    {"counter by LOCK CMPXCHG16B", add_pair, NULL},
};
enum { LOCK_TESTS = sizeof(lock_tests) / sizeof(lock_tests[0]) };

/* The plain increments lose some as soon as two are in here at once. */
static void work_guarded(unsigned me)
{
    if (owner.value)
        intrusions = intrusions + 1;
    owner.value = me + 1;
    for (unsigned i = 0; i < 8; i++)
        guarded[i] = guarded[i] + 1;
    if (owner.value != me + 1)
        intrusions = intrusions + 1;
    owner.value = 0;
}

static void lock_thread(void *opaque)
{
    const struct lock_test *test = opaque;
    unsigned me = my_thread();
    counted_barrier(me, 0);
    while (rdtsc() < deadline) {
        for (unsigned i = 0; i < 16; i++) {
            test->take();
            if (test->give) {
                work_guarded(me);
                test->give();
            }
        }
        turns[me][0] += 16;
    }
}

static void run_lock(const struct lock_test *test, uint64_t ticks)
{
    uint64_t sum = 0;
    lock_word.value = ticket_next.value = owner.value = 0;
    intrusions = 0;
    pair[0] = pair[1] = 0;
    memset(across, 0, sizeof(across));
    memset((void *)(uintptr_t)guarded, 0, sizeof(guarded));
    memset((void *)(uintptr_t)turns, 0, sizeof(turns));
    run_threads(THREADS, ticks, lock_thread, (void *)(uintptr_t)test);
    print("litmus: ");
    print(test->name);
    print(":");
    for (unsigned i = 0; i < THREADS; i++) {
        sum += turns[i][0];
        print(" ");
        print_number(turns[i][0]);
    }
    print("\n");
    check(sum > 0, test->name);
    check_equal(intrusions, 0, "nobody comes in while another is there");
    for (unsigned i = 0; test->give && i < 8; i++)
        check_equal(guarded[i], sum, "nothing that is done under the lock is lost");
    if (test->take == add_across)
        check_equal(*(volatile uint64_t *)(across + 61), sum, "all are counted");
    if (test->take == add_pair) {
        check_equal(pair[0], sum, "all are counted");
        check_equal(pair[1], 0 - sum, "in both halves alike");
    }
}

void test_lock(void)
{
    measure_second();
    if (cpu_count < THREADS)
        return;
    for (unsigned i = 0; i < LOCK_TESTS; i++)
        run_lock(&lock_tests[i], seconds_wanted() * second / LOCK_TESTS);
}

/* ---- barriers ---- */

static volatile uint64_t slots[THREADS][8];
static volatile unsigned early;
static volatile uint64_t rounds;

/* What each wrote before the barrier all read after it. */
static void barrier_thread(void *opaque)
{
    void (*barrier)(unsigned, uint32_t) = *(void (**)(unsigned, uint32_t))opaque;
    unsigned me = my_thread();
    uint32_t round = 0;
    counted_barrier(me, 0);
    while (!stopping) {
        for (unsigned inner = 0; inner < 8; inner++) {
            slots[me][inner] = ++round;
            barrier(me, 2 * round);
            for (unsigned i = 0; i < thread_count; i++)
                if (slots[i][inner] != round)
                    __atomic_add_fetch(&early, 1, __ATOMIC_SEQ_CST);
            barrier(me, 2 * round + 1);
        }
        if (me == 0)
            rounds = round;
        end_round(me);
    }
}

void test_barrier(void)
{
    static void (*barriers[])(unsigned, uint32_t) = {counted_barrier, plain_barrier};
    static const char *const names[] = {"barrier by LOCK XADD", "barrier by plain stores"};
    measure_second();
    if (cpu_count < THREADS)
        return;
    for (unsigned i = 0; i < 2; i++) {
        early = 0;
        rounds = 0;
        memset(flags, 0, sizeof(flags));
        run_threads(THREADS, seconds_wanted() * second / 2, barrier_thread, &barriers[i]);
        print("litmus: ");
        print(names[i]);
        print(": ");
        print_number(rounds);
        print(" rounds\n");
        check(rounds > 0, names[i]);
        check_equal(early, 0, "what was written before a barrier is seen behind it");
    }
}
