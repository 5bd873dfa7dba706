/* SPDX-License-Identifier: BSD-2-Clause
 *
 * IA32_APIC_BASE: the modes of a local APIC, and where its page of registers is (SDM 3A 11.4.3 to
 * 11.4.5, 11.12.5). Each processor may have its page elsewhere; the bus gets a window for each
 * address in use, and a window answers only to the processors whose page it is. RAM, and devices
 * that are there already, stay in front of a page that is moved onto them. Runs on vCPU threads.
 */
#include "dev/lapic_internal.h"

enum { PAGE_BYTES = 0x1000 };

static struct lapic *accessing(struct lapics *all, uint64_t gpa)
{
    unsigned vcpu = all->config.current_vcpu(all->config.current_vcpu_opaque);
    if (vcpu >= all->config.vcpu_count)
        return NULL;
    struct lapic *apic = &all->apic[vcpu];
    return lapic_page(apic->base) == gpa ? apic : NULL; /* only its own thread changes it */
}

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    const struct lapic_window *window = opaque;
    struct lapic *apic = accessing(window->all, window->gpa);
    return apic ? lapic_mmio_read(apic, offset, size_bytes) : UINT64_MAX;
}

static void window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    const struct lapic_window *window = opaque;
    struct lapic *apic = accessing(window->all, window->gpa);
    if (apic)
        lapic_mmio_write(apic, offset, value, size_bytes);
}

static bool map(struct lapic_window *window, struct error *err)
{
    const struct bus_range range = {
        .name = "lapic",
        .space = BUS_MMIO,
        .base = window->gpa,
        .size_bytes = PAGE_BYTES,
        .read = window_read,
        .write = window_write,
        .opaque = window,
    };
    window->is_mapped = bus_map(window->all->config.bus, &range, err);
    return window->is_mapped;
}

bool lapic_windows_open(struct lapics *all, struct error *err)
{
    pthread_mutex_init(&all->window_lock, NULL);
    all->window[0] = (struct lapic_window){all, all->config.base, all->config.vcpu_count, false};
    return map(&all->window[0], err);
}

void lapic_windows_close(struct lapics *all)
{
    for (unsigned i = 0; i < LAPIC_WINDOWS; i++)
        if (all->window[i].is_mapped)
            bus_unmap(all->config.bus, BUS_MMIO, all->window[i].gpa);
    pthread_mutex_destroy(&all->window_lock);
}

/* The customary window stays when nobody's page is there. An access that is under way in a window
 * that goes finds that the page is nobody's. */
static void leave(struct lapics *all, uint64_t gpa)
{
    for (unsigned i = 0; i < LAPIC_WINDOWS; i++) {
        struct lapic_window *window = &all->window[i];
        if (!window->users || window->gpa != gpa || --window->users || i == 0)
            continue;
        if (window->is_mapped)
            bus_unmap(all->config.bus, BUS_MMIO, gpa);
        window->is_mapped = false;
    }
}

static void enter(struct lapics *all, uint64_t gpa)
{
    struct lapic_window *free_window = NULL;
    for (unsigned i = 0; i < LAPIC_WINDOWS; i++) {
        struct lapic_window *window = &all->window[i];
        if ((window->users || i == 0) && window->gpa == gpa) {
            window->users++;
            return;
        }
        if (i && !window->users && !free_window)
            free_window = window;
    }
    struct error err = {0};
    *free_window = (struct lapic_window){all, gpa, 1, false};
    if (!map(free_window, &err))
        log_limited(all->config.log, &all->log_limit, LOG_WARNING, "lapic",
                    "a local APIC was moved to %#llx, where something else is",
                    (unsigned long long)gpa);
}

/* With the APIC's lock held. */
static void move(struct lapic *apic, uint64_t gpa)
{
    struct lapics *all = apic->all;
    uint64_t old_gpa = lapic_page(apic->base);
    if (old_gpa == gpa)
        return;
    pthread_mutex_lock(&all->window_lock);
    leave(all, old_gpa);
    enter(all, gpa);
    pthread_mutex_unlock(&all->window_lock);
}

void lapic_set_base(struct lapic *apic, uint64_t value)
{
    uint64_t bits = BASE_ENABLED | BASE_X2APIC;
    move(apic, lapic_page(value));
    apic->base = lapic_page(value) | (value & bits) | (apic->id ? 0 : BASE_BSP);
}

/* From off only to xAPIC, from xAPIC anywhere, from x2APIC only to off; what is off and comes on
 * has the registers, and the id, as after a reset. */
bool lapic_write_base(struct lapic *apic, uint64_t value)
{
    uint64_t known = BASE_ENABLED | BASE_X2APIC | BASE_BSP | BASE_ADDRESS;
    enum lapic_mode old = lapic_mode(apic);
    bool enable = value & BASE_ENABLED, x2apic = value & BASE_X2APIC;
    if ((value & ~known) || (x2apic && (!enable || old == LAPIC_OFF)) ||
        (old == LAPIC_X2APIC && enable && !x2apic))
        return false;
    lapic_set_base(apic, value);
    if (old == LAPIC_OFF || !enable)
        lapic_set_xapic_id(apic, apic->x2apic_id);
    if (old != LAPIC_OFF && !enable)
        lapic_init_state(apic);
    lapic_update(apic);
    return true;
}
