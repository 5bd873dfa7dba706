/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The local APIC's registers, by MMIO (xAPIC) and by MSR (x2APIC, SDM 3A 11.12),
 * and the life cycle of the object that holds all local APICs. The xAPIC id can be written, as
 * on the processors that emulators and KVM look like. Left out: LVT CMCI, extended (AMD) registers,
 * and spurious interrupts: a request that is withdrawn is never acknowledged here.
 * Register accesses run on the vCPU's thread.
 */
#include "dev/lapic_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_BYTES = 0x1000 };
enum { MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800, MSR_X2APIC_END = 0x900 };
enum { DIVIDE_BITS = 0xb, SVR_BITS = 0xff | SVR_ENABLED | SVR_NO_EOI_BROADCAST };

/* Six LVT entries, EOI broadcast can be suppressed. */
static const uint32_t version = LAPIC_CHIP_VERSION | (LVT_COUNT - 1) << 16 | 1 << 24;

/* What x2APIC leaves reserved; bit 12, the delivery status, is taken and dropped. */
static const uint64_t icr_reserved = UINT64_C(0xfff32000);

static uint32_t lvt_bits(enum lapic_lvt entry)
{
    uint32_t bits = LVT_VECTOR | LVT_MASKED;
    switch (entry) {
    case LVT_TIMER: return bits | LVT_TIMER_MODE;
    case LVT_THERMAL:
    case LVT_PMC: return bits | LVT_DELIVERY;
    case LVT_LINT0:
    case LVT_LINT1: return bits | LVT_DELIVERY | LVT_POLARITY | LVT_LEVEL;
    default: return bits;
    }
}

void lapic_init_state(struct lapic *apic)
{
    lapic_timer_stop(apic);
    apic->timer.initial = 0;
    apic->timer.divide = 0;
    memset(apic->irr, 0, sizeof(apic->irr));
    memset(apic->isr, 0, sizeof(apic->isr));
    memset(apic->tmr, 0, sizeof(apic->tmr));
    apic->tpr = 0;
    apic->svr = 0xff;
    apic->ldr = 0;
    apic->dfr = UINT32_MAX;
    apic->icr = 0;
    apic->esr = apic->esr_pending = 0;
    apic->extint_latched = false;
    for (int i = 0; i < LVT_COUNT; i++)
        apic->lvt[i] = LVT_MASKED;
    lapic_update(apic);
}

/* The LINT pins are the board's and keep their levels. */
static void reset_one(struct lapic *apic)
{
    lapic_set_base(apic, apic->all->config.base | BASE_ENABLED);
    lapic_set_xapic_id(apic, apic->x2apic_id);
    lapic_init_state(apic);
    if (apic->id == 0)
        apic->lvt[LVT_LINT0] = DELIVERY_EXTINT << LVT_DELIVERY_SHIFT;
    lapic_update(apic);
}

/* Reading. `false`: there is no such register, or it can't be read. */

static uint32_t read_bitmap(const uint64_t bits[4], unsigned word)
{
    return (uint32_t)(bits[word >> 1] >> (word & 1) * 32);
}

static bool read_vectors(struct lapic *apic, unsigned number, uint64_t *value)
{
    const uint64_t *bits = number < LAPIC_TMR   ? apic->isr
                           : number < LAPIC_IRR ? apic->tmr
                                                : apic->irr;
    *value = read_bitmap(bits, number & 7);
    return true;
}

static bool read_common(struct lapic *apic, unsigned number, uint64_t *value)
{
    if (number >= LAPIC_ISR && number < LAPIC_ISR + 24)
        return read_vectors(apic, number, value);
    if (number >= LAPIC_LVT && number < LAPIC_LVT + LVT_COUNT) {
        *value = apic->lvt[number - LAPIC_LVT];
        return true;
    }
    switch (number) {
    case LAPIC_VERSION: *value = version; return true;
    case LAPIC_TPR: *value = apic->tpr; return true;
    case LAPIC_PPR: *value = lapic_ppr(apic); return true;
    case LAPIC_SVR: *value = apic->svr; return true;
    case LAPIC_ESR: *value = apic->esr; return true;
    case LAPIC_TIMER_INITIAL: *value = apic->timer.initial; return true;
    case LAPIC_TIMER_CURRENT: *value = lapic_timer_count(apic); return true;
    case LAPIC_TIMER_DIVIDE: *value = apic->timer.divide; return true;
    default: return false;
    }
}

static bool read_xapic(struct lapic *apic, unsigned number, uint64_t *value)
{
    switch (number) {
    case LAPIC_ID: *value = (uint64_t)apic->xapic_id << 24; return true;
    case LAPIC_APR: *value = lapic_apr(apic); return true;
    case LAPIC_EOI:
    case LAPIC_RRD: *value = 0; return true;
    case LAPIC_LDR: *value = apic->ldr; return true;
    case LAPIC_DFR: *value = apic->dfr; return true;
    case LAPIC_ICR: *value = (uint32_t)apic->icr; return true;
    case LAPIC_ICR_HIGH: *value = apic->icr >> 32; return true;
    default: return read_common(apic, number, value);
    }
}

static bool read_x2apic(struct lapic *apic, unsigned number, uint64_t *value)
{
    switch (number) {
    case LAPIC_ID: *value = apic->x2apic_id; return true;
    case LAPIC_LDR: *value = lapic_x2apic_ldr(apic->x2apic_id); return true;
    case LAPIC_ICR: *value = apic->icr; return true;
    default: return read_common(apic, number, value);
    }
}

/* Writing. */

static void write_svr(struct lapic *apic, uint32_t value)
{
    apic->svr = value & SVR_BITS;
    if (apic->svr & SVR_ENABLED)
        return;
    lapic_timer_set_lvt(apic, apic->lvt[LVT_TIMER] | LVT_MASKED);
    for (int i = 0; i < LVT_COUNT; i++)
        apic->lvt[i] |= LVT_MASKED;
}

static void write_lvt(struct lapic *apic, enum lapic_lvt entry, uint32_t value)
{
    value &= lvt_bits(entry);
    if (!(apic->svr & SVR_ENABLED))
        value |= LVT_MASKED;
    if (entry == LVT_TIMER) {
        lapic_timer_set_lvt(apic, value);
    } else if (entry == LVT_LINT0 || entry == LVT_LINT1) {
        if (value & LVT_LEVEL)
            value |= apic->lvt[entry] & LVT_REMOTE_IRR;
        apic->lvt[entry] = value;
        lapic_lint_evaluate(apic, entry - LVT_LINT0, false);
    } else {
        apic->lvt[entry] = value;
    }
}

static bool write_common(struct lapic *apic, unsigned number, uint32_t value,
                         struct lapic_effect *effect)
{
    if (number >= LAPIC_LVT && number < LAPIC_LVT + LVT_COUNT) {
        write_lvt(apic, number - LAPIC_LVT, value);
        return true;
    }
    switch (number) {
    case LAPIC_TPR: apic->tpr = value & 0xff; break;
    case LAPIC_EOI: lapic_end_of_interrupt(apic, effect); return true;
    case LAPIC_SVR: write_svr(apic, value); break;
    case LAPIC_ESR:
        apic->esr = apic->esr_pending;
        apic->esr_pending = 0;
        return true;
    case LAPIC_TIMER_INITIAL: lapic_timer_set_initial(apic, value); return true;
    case LAPIC_TIMER_DIVIDE: lapic_timer_set_divide(apic, value & DIVIDE_BITS); return true;
    default: return false;
    }
    lapic_update(apic);
    return true;
}

static void write_icr(struct lapic *apic, uint64_t value, struct lapic_effect *effect)
{
    apic->icr = value & ~(icr_reserved | UINT64_C(1) << 12);
    effect->send = true;
    effect->icr = apic->icr;
}

static bool write_xapic(struct lapic *apic, unsigned number, uint32_t value,
                        struct lapic_effect *effect)
{
    switch (number) {
    case LAPIC_ID: lapic_set_xapic_id(apic, (uint8_t)(value >> 24)); break;
    case LAPIC_LDR: apic->ldr = value & 0xff000000; break;
    case LAPIC_DFR: apic->dfr = value | 0x0fffffff; break;
    case LAPIC_ICR:
        write_icr(apic, (apic->icr & ~UINT64_C(0xffffffff)) | value, effect);
        return true;
    case LAPIC_ICR_HIGH:
        apic->icr = (uint32_t)apic->icr | (uint64_t)(value & 0xff000000) << 32;
        return true;
    default: {
        uint64_t ignored; /* what can only be read ignores writes */
        return write_common(apic, number, value, effect) || read_xapic(apic, number, &ignored);
    }
    }
    lapic_update(apic);
    return true;
}

/* Bits that may be set in a write; -1 for what isn't 32 bits wide or isn't written. */
static int64_t x2apic_writable(unsigned number)
{
    if (number >= LAPIC_LVT && number < LAPIC_LVT + LVT_COUNT)
        return lvt_bits(number - LAPIC_LVT) | LVT_READ_ONLY;
    switch (number) {
    case LAPIC_TPR: return 0xff;
    case LAPIC_EOI:
    case LAPIC_ESR: return 0;
    case LAPIC_SVR: return SVR_BITS;
    case LAPIC_TIMER_INITIAL: return UINT32_MAX;
    case LAPIC_TIMER_DIVIDE: return DIVIDE_BITS;
    default: return -1;
    }
}

static bool write_x2apic(struct lapic *apic, unsigned number, uint64_t value,
                         struct lapic_effect *effect)
{
    if (number == LAPIC_ICR) {
        if (value & icr_reserved)
            return false;
        write_icr(apic, value, effect);
        return true;
    }
    if (number == LAPIC_SELF_IPI) {
        if (value > 0xff)
            return false;
        effect->send = true;
        effect->icr = value | UINT64_C(1) << 18; /* shorthand: self */
        return true;
    }
    int64_t writable = x2apic_writable(number);
    if (writable < 0 || (value & ~(uint64_t)writable))
        return false;
    return write_common(apic, number, (uint32_t)value, effect);
}

/* MMIO. An access that isn't 32 bits wide and aligned to 16 bytes is undefined: narrower reads get
 * their part, other writes are dropped. */

uint64_t lapic_mmio_read(struct lapic *apic, uint64_t offset, unsigned size_bytes)
{
    uint64_t value = UINT64_MAX;
    if (offset >= PAGE_BYTES || (offset & 15) + size_bytes > 4)
        return value;
    pthread_mutex_lock(&apic->lock);
    if (lapic_mode(apic) == LAPIC_XAPIC && !read_xapic(apic, (unsigned)offset >> 4, &value)) {
        lapic_error(apic, ESR_REGISTER);
        value = 0;
    }
    pthread_mutex_unlock(&apic->lock);
    return value >> (offset & 15) * 8;
}

void lapic_mmio_write(struct lapic *apic, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct lapic_effect effect = {0};
    if (offset >= PAGE_BYTES || (offset & 15) || size_bytes != 4)
        return;
    pthread_mutex_lock(&apic->lock);
    if (lapic_mode(apic) == LAPIC_XAPIC &&
        !write_xapic(apic, (unsigned)offset >> 4, (uint32_t)value, &effect))
        lapic_error(apic, ESR_REGISTER);
    pthread_mutex_unlock(&apic->lock);
    lapic_perform(apic, &effect);
}

/* MSRs. */

bool lapic_read_msr(struct lapics *lapics, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    struct lapic *apic = &lapics->apic[vcpu];
    bool valid = false;
    pthread_mutex_lock(&apic->lock);
    if (msr >= MSR_X2APIC && msr < MSR_X2APIC_END) {
        valid = lapic_mode(apic) == LAPIC_X2APIC && read_x2apic(apic, msr - MSR_X2APIC, value);
    } else if (msr == MSR_TSC_DEADLINE) {
        *value = lapic_timer_deadline(apic);
        valid = true;
    } else if (msr == MSR_APIC_BASE) {
        *value = apic->base;
        valid = true;
    }
    pthread_mutex_unlock(&apic->lock);
    return valid;
}

bool lapic_write_msr(struct lapics *lapics, unsigned vcpu, uint32_t msr, uint64_t value)
{
    struct lapic *apic = &lapics->apic[vcpu];
    struct lapic_effect effect = {0};
    bool valid = false;
    pthread_mutex_lock(&apic->lock);
    if (msr >= MSR_X2APIC && msr < MSR_X2APIC_END) {
        valid = lapic_mode(apic) == LAPIC_X2APIC &&
                write_x2apic(apic, msr - MSR_X2APIC, value, &effect);
    } else if (msr == MSR_TSC_DEADLINE) {
        lapic_timer_set_deadline(apic, value);
        valid = true;
    } else if (msr == MSR_APIC_BASE) {
        valid = lapic_write_base(apic, value);
    }
    pthread_mutex_unlock(&apic->lock);
    lapic_perform(apic, &effect);
    return valid;
}

uint64_t lapic_read_cr8(struct lapics *lapics, unsigned vcpu)
{
    struct lapic *apic = &lapics->apic[vcpu];
    pthread_mutex_lock(&apic->lock);
    uint64_t value = apic->tpr >> 4;
    pthread_mutex_unlock(&apic->lock);
    return value;
}

void lapic_write_cr8(struct lapics *lapics, unsigned vcpu, uint64_t value)
{
    struct lapic *apic = &lapics->apic[vcpu];
    pthread_mutex_lock(&apic->lock);
    apic->tpr = (value & 0xf) << 4;
    lapic_update(apic);
    pthread_mutex_unlock(&apic->lock);
}

void lapic_tsc_changed(struct lapics *lapics, unsigned vcpu)
{
    struct lapic *apic = &lapics->apic[vcpu];
    pthread_mutex_lock(&apic->lock);
    lapic_timer_rearm(apic);
    pthread_mutex_unlock(&apic->lock);
}

void lapic_set_eoi_listener(struct lapics *lapics, void (*eoi)(void *opaque, uint8_t vector),
                            void *opaque)
{
    lapics->eoi = eoi;
    lapics->eoi_opaque = opaque;
}

/* Life cycle. */

static void destroy(void *device)
{
    struct lapics *all = device;
    lapic_windows_close(all);
    for (unsigned i = 0; i < all->config.vcpu_count; i++) {
        if (all->apic[i].timer.host)
            clock_timer_close(all->apic[i].timer.host);
        pthread_mutex_destroy(&all->apic[i].lock);
    }
    free(all);
}

static void reset(void *device)
{
    struct lapics *all = device;
    for (unsigned i = 0; i < all->config.vcpu_count; i++) {
        pthread_mutex_lock(&all->apic[i].lock);
        reset_one(&all->apic[i]);
        pthread_mutex_unlock(&all->apic[i].lock);
    }
}

static bool open_all(struct lapics *all, struct error *err)
{
    for (unsigned i = 0; i < all->config.vcpu_count; i++) {
        struct lapic *apic = &all->apic[i];
        apic->all = all;
        apic->id = i;
        apic->x2apic_id = all->config.ids ? all->config.ids[i] : (uint8_t)i;
        pthread_mutex_init(&apic->lock, NULL);
        apic->timer.host = clock_timer_open(all->config.clock, lapic_timer_expired, apic);
        if (!apic->timer.host)
            return error_set(err, "cannot make the local APIC", NULL, "out of memory");
    }
    return lapic_windows_open(all, err);
}

struct lapics *lapic_create(const struct lapic_config *config, struct error *err)
{
    assert(config->vcpu_count >= 1 && config->vcpu_count <= LAPIC_MAX_VCPUS);
    assert(config->tsc_hz >= 1000000 && !(config->base & (PAGE_BYTES - 1)));
    assert(!config->timer_hz || config->timer_hz >= 1000000);
    size_t size = sizeof(struct lapics) + config->vcpu_count * sizeof(struct lapic);
    size = (size + 63) & ~(size_t)63;
    struct lapics *all = aligned_alloc(64, size);
    if (!all) {
        error_set(err, "cannot make the local APICs", NULL, "out of memory");
        return NULL;
    }
    memset(all, 0, size);
    all->config = *config;
    for (unsigned i = 0; i < config->vcpu_count; i++)
        all->apic[i].base = config->base;
    if (!all->config.timer_hz)
        all->config.timer_hz = LAPIC_DEFAULT_HZ;
    lapic_timer_setup(all);
    if (!open_all(all, err)) {
        destroy(all);
        return NULL;
    }
    reset(all);
    return all;
}

static void save_vectors(struct save *stream, const uint64_t bits[4])
{
    for (int i = 0; i < 4; i++)
        save_u64(stream, bits[i]);
}

static void save_one(const struct lapic_state *state, struct save *stream)
{
    save_u64(stream, state->base);
    save_u8(stream, state->xapic_id);
    save_vectors(stream, state->irr);
    save_vectors(stream, state->isr);
    save_vectors(stream, state->tmr);
    save_u32(stream, state->tpr);
    save_u32(stream, state->svr);
    save_u32(stream, state->ldr);
    save_u32(stream, state->dfr);
    for (int i = 0; i < LVT_COUNT; i++)
        save_u32(stream, state->lvt[i]);
    save_u32(stream, state->esr);
    save_u32(stream, state->esr_pending);
    save_u64(stream, state->icr);
    save_bool(stream, state->lint[0]);
    save_bool(stream, state->lint[1]);
    save_bool(stream, state->extint_latched);
    save_u32(stream, state->timer_initial);
    save_u32(stream, state->timer_divide);
    save_bool(stream, state->timer_running);
    save_u64(stream, state->timer_deadline_ns);
    save_u64(stream, state->tsc_deadline);
}

void lapic_state_save(const struct lapic_state *states, unsigned count, struct save *stream)
{
    save_u32(stream, count);
    for (unsigned i = 0; i < count; i++)
        save_one(&states[i], stream);
}

static struct lapic_state state_of(const struct lapic *apic)
{
    struct lapic_state state = {
        .base = apic->base,
        .xapic_id = apic->xapic_id,
        .tpr = apic->tpr,
        .svr = apic->svr,
        .ldr = apic->ldr,
        .dfr = apic->dfr,
        .esr = apic->esr,
        .esr_pending = apic->esr_pending,
        .icr = apic->icr,
        .lint = {apic->lint[0], apic->lint[1]},
        .extint_latched = apic->extint_latched,
        .timer_initial = apic->timer.initial,
        .timer_divide = apic->timer.divide,
        .timer_running = apic->timer.running,
        .timer_deadline_ns = apic->timer.deadline_ns,
        .tsc_deadline = apic->timer.tsc_deadline,
    };
    memcpy(state.irr, apic->irr, sizeof(state.irr));
    memcpy(state.isr, apic->isr, sizeof(state.isr));
    memcpy(state.tmr, apic->tmr, sizeof(state.tmr));
    memcpy(state.lvt, apic->lvt, sizeof(state.lvt));
    return state;
}

bool lapic_state_lint_is_unmaskable(const struct lapic_state *state, unsigned pin)
{
    return (state->base & BASE_ENABLED) && (state->svr & SVR_ENABLED) &&
           irqchip_entry_is_unmaskable(state->lvt[LVT_LINT0 + pin]);
}

void lapic_get(struct lapics *all, struct lapic_state *states)
{
    for (unsigned i = 0; i < all->config.vcpu_count; i++) {
        pthread_mutex_lock(&all->apic[i].lock);
        states[i] = state_of(&all->apic[i]);
        pthread_mutex_unlock(&all->apic[i].lock);
    }
}

static void save(void *device, struct save *stream)
{
    struct lapics *all = device;
    struct lapic_state states[LAPIC_MAX_VCPUS];
    lapic_get(all, states);
    lapic_state_save(states, all->config.vcpu_count, stream);
}

static void load_vectors(struct load *stream, uint64_t bits[4])
{
    for (int i = 0; i < 4; i++)
        bits[i] = load_u64(stream);
    if (bits[0] & 0xffff) /* the illegal vectors */
        load_fail(stream);
}

static uint32_t load_masked(struct load *stream, uint32_t allowed)
{
    uint32_t value = load_u32(stream);
    if (value & ~allowed)
        load_fail(stream);
    return value;
}

static uint64_t load_base(struct load *stream, bool is_bsp)
{
    uint64_t base = load_u64(stream), bits = base & (BASE_ENABLED | BASE_X2APIC);
    if ((base & ~(bits | BASE_ADDRESS)) != (is_bsp ? BASE_BSP : 0) || bits == BASE_X2APIC)
        load_fail(stream);
    return base;
}

static void load_timer(struct lapic_state *state, struct load *stream)
{
    state->timer_initial = load_u32(stream);
    state->timer_divide = load_masked(stream, DIVIDE_BITS);
    state->timer_running = load_bool(stream);
    state->timer_deadline_ns = load_u64(stream);
    state->tsc_deadline = load_u64(stream);
    bool counts =
        (state->lvt[LVT_TIMER] & LVT_TIMER_MODE) >> LVT_TIMER_MODE_SHIFT <= TIMER_PERIODIC;
    if (state->timer_running && (counts ? !state->timer_initial : !state->tsc_deadline))
        load_fail(stream);
}

static void load_one(struct lapic_state *state, struct load *stream, bool is_bsp)
{
    state->base = load_base(stream, is_bsp);
    state->xapic_id = load_u8(stream);
    load_vectors(stream, state->irr);
    load_vectors(stream, state->isr);
    load_vectors(stream, state->tmr);
    state->tpr = load_masked(stream, 0xff);
    state->svr = load_masked(stream, SVR_BITS);
    state->ldr = load_masked(stream, 0xff000000);
    state->dfr = load_u32(stream) | 0x0fffffff;
    for (int i = 0; i < LVT_COUNT; i++) {
        uint32_t remote_irr = i == LVT_LINT0 || i == LVT_LINT1 ? LVT_REMOTE_IRR : 0;
        state->lvt[i] = load_masked(stream, lvt_bits(i) | remote_irr);
    }
    state->esr = load_masked(stream, ESR_BITS);
    state->esr_pending = load_masked(stream, ESR_BITS);
    state->icr = load_u64(stream);
    state->lint[0] = load_bool(stream);
    state->lint[1] = load_bool(stream);
    state->extint_latched = load_bool(stream);
    load_timer(state, stream);
}

bool lapic_state_load(struct lapic_state *states, unsigned count, struct load *stream)
{
    if (load_u32(stream) != count)
        load_fail(stream);
    for (unsigned i = 0; i < count; i++)
        load_one(&states[i], stream, i == 0);
    return !stream->failed;
}

static void take_state(struct lapic *apic, const struct lapic_state *state)
{
    lapic_set_xapic_id(apic, state->xapic_id);
    lapic_set_base(apic, state->base);
    memcpy(apic->irr, state->irr, sizeof(apic->irr));
    memcpy(apic->isr, state->isr, sizeof(apic->isr));
    memcpy(apic->tmr, state->tmr, sizeof(apic->tmr));
    memcpy(apic->lvt, state->lvt, sizeof(apic->lvt));
    apic->tpr = state->tpr;
    apic->svr = state->svr;
    apic->ldr = state->ldr;
    apic->dfr = state->dfr;
    apic->esr = state->esr;
    apic->esr_pending = state->esr_pending;
    apic->icr = state->icr;
    apic->lint[0] = state->lint[0];
    apic->lint[1] = state->lint[1];
    apic->extint_latched = state->extint_latched;
    apic->timer.initial = state->timer_initial;
    apic->timer.divide = state->timer_divide;
    apic->timer.running = state->timer_running;
    apic->timer.deadline_ns = state->timer_deadline_ns;
    apic->timer.tsc_deadline = state->tsc_deadline;
}

/* Whatever the processor was told before, it is told the level anew. */
static void resume_one(struct lapic *apic)
{
    const struct lapic_cpu *cpu = &apic->all->config.cpu;
    apic->intr = false;
    cpu->intr(cpu->opaque, apic->id, false);
    lapic_timer_rearm(apic);
    lapic_update(apic);
}

static bool load(void *device, struct load *stream, uint32_t stream_version)
{
    struct lapics *all = device;
    struct lapic_state states[LAPIC_MAX_VCPUS];
    if (stream_version != lapic_ops.version ||
        !lapic_state_load(states, all->config.vcpu_count, stream)) {
        reset(all);
        return false;
    }
    for (unsigned i = 0; i < all->config.vcpu_count; i++) {
        struct lapic *apic = &all->apic[i];
        pthread_mutex_lock(&apic->lock);
        lapic_timer_stop(apic);
        take_state(apic, &states[i]);
        resume_one(apic);
        pthread_mutex_unlock(&apic->lock);
    }
    return true;
}

const struct device_ops lapic_ops = {
    .name = "lapic",
    .version = 2,
    .reset = reset,
    .save = save,
    .load = load,
    .destroy = destroy,
};
