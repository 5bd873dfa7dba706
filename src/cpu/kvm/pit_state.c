/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The state of KVM's 8254 to and from the plain values of bus/irqchip.h (kernel:
 * Documentation/virt/kvm/api.rst, KVM_GET_PIT2). KVM starts each counter anew when it is set, and
 * does not tell how far counter 0 is: so a period begins with the restore, while of a count that
 * runs down once what is left goes along. Runs while no vCPU does.
 */
#include "cpu/kvm/kvm.h"

#include <string.h>
#include <time.h>

enum { RW_LOW = 1, RW_HIGH, RW_WORD_LOW, RW_WORD_HIGH, RW_WORD = RW_WORD_LOW };
enum { NEVER_PROGRAMMED = 0xff, MODES = 6, SQUARE_WAVE = 3 };
enum { PORT_B_GATE = 1, PORT_B_SPEAKER = 2 };
enum { FLAG_HPET_LEGACY = 1, FLAG_SPEAKER_DATA = 2 };

static const uint64_t ns_per_second = 1000000000;

static void set_access_from(const struct kvm_pit_channel_state *c, struct i8254_counter *counter)
{
    counter->access = c->rw_mode >= RW_LOW && c->rw_mode <= RW_WORD ? c->rw_mode : RW_WORD;
    counter->latched = c->count_latched;
    counter->latch = c->latched_count;
    counter->status_latched = c->status_latched;
    counter->status_latch = c->status;
    counter->low_byte = c->write_latch;
    if (counter->access != RW_WORD)
        return;
    counter->write_high = c->write_state == RW_WORD_HIGH;
    counter->read_high =
        counter->latched ? c->count_latched == RW_HIGH : c->read_state == RW_WORD_HIGH;
}

static void counter_from(const struct kvm_pit_channel_state *c, uint64_t now_tick, uint64_t elapsed,
                         struct i8254_counter *counter)
{
    bool is_programmed = c->mode < MODES;
    *counter = (struct i8254_counter){
        .mode = is_programmed ? c->mode : SQUARE_WAVE,
        .bcd = c->bcd,
        .gate = c->gate,
        .loaded = is_programmed,
        .count = c->count ? c->count : 0x10000,
        .held_ticks = c->gate ? 0 : elapsed,
        .start_tick = elapsed < now_tick ? now_tick - elapsed : 0,
    };
    counter->triggered = is_programmed && i8254_is_triggered(counter) && c->gate;
    uint32_t modulus = counter->bcd ? 10000 : 0x10000;
    if (counter->count > modulus)
        counter->count = modulus;
    set_access_from(c, counter);
}

void kvm_pit_from(const struct engine_vm *vm, const struct kvm_pit_state2 *pit, uint64_t now_ns,
                  struct i8254_state *state)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t host_ns = vm->time_is_stopped
                           ? vm->stopped_monotonic_ns
                           : (uint64_t)now.tv_sec * ns_per_second + (uint64_t)now.tv_nsec;
    memset(state, 0, sizeof(*state));
    for (unsigned i = 0; i < IRQCHIP_PIT_COUNTERS; i++) {
        const struct kvm_pit_channel_state *c = &pit->channels[i];
        bool is_known = i > 0 && c->count_load_time > 0 && (uint64_t)c->count_load_time < host_ns;
        uint64_t elapsed = is_known ? i8254_tick_of_ns(host_ns - (uint64_t)c->count_load_time) : 0;
        counter_from(c, i8254_tick_of_ns(now_ns), elapsed, &state->counters[i]);
    }
    state->counters[0].gate = state->counters[1].gate = true; /* tied so */
    state->port_b = (uint8_t)((state->counters[2].gate ? PORT_B_GATE : 0) |
                              (pit->flags & FLAG_SPEAKER_DATA ? PORT_B_SPEAKER : 0));
    state->disconnected = pit->flags & FLAG_HPET_LEGACY;
}

/* What KVM is to count from now on. A count that has run out goes on from 1, so that OUT is high.
 */
static uint32_t count_left(const struct i8254_counter *counter, uint64_t now_tick)
{
    uint32_t count = counter->next_loaded ? counter->next_count : counter->count;
    if (!counter->loaded || i8254_is_periodic(counter) ||
        (i8254_is_triggered(counter) && !counter->triggered))
        return count;
    uint64_t elapsed = counter->held_ticks;
    if (counter->gate || i8254_is_triggered(counter))
        elapsed = now_tick > counter->start_tick ? now_tick - counter->start_tick : 0;
    return elapsed < count ? count - (uint32_t)elapsed : 1;
}

static void counter_to(const struct i8254_counter *counter, uint64_t now_tick,
                       struct kvm_pit_channel_state *c)
{
    bool is_word = counter->access == RW_WORD;
    bool is_programmed = counter->loaded || counter->write_high || counter->mode != SQUARE_WAVE;
    *c = (struct kvm_pit_channel_state){
        .count = count_left(counter, now_tick),
        .latched_count = counter->latch,
        .status_latched = counter->status_latched,
        .status = counter->status_latch,
        .read_state = is_word && counter->read_high ? RW_WORD_HIGH : counter->access,
        .write_state = is_word && counter->write_high ? RW_WORD_HIGH : counter->access,
        .write_latch = counter->low_byte,
        .rw_mode = counter->access,
        .mode = is_programmed ? counter->mode : NEVER_PROGRAMMED,
        .bcd = counter->bcd,
        .gate = counter->gate,
    };
    if (counter->latched)
        c->count_latched = is_word && counter->read_high ? RW_HIGH : counter->access;
}

void kvm_pit_to(const struct i8254_state *state, uint64_t now_ns, struct kvm_pit_state2 *pit)
{
    memset(pit, 0, sizeof(*pit));
    for (unsigned i = 0; i < IRQCHIP_PIT_COUNTERS; i++)
        counter_to(&state->counters[i], i8254_tick_of_ns(now_ns), &pit->channels[i]);
    pit->flags = (state->port_b & PORT_B_SPEAKER ? FLAG_SPEAKER_DATA : 0u) |
                 (state->disconnected ? FLAG_HPET_LEGACY : 0u);
}
