/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What an engine without an irqchip asks the board's local APICs.
 */
#include "machine/q35_internal.h"

static struct lapics *hook_lapics(void *opaque)
{
    struct q35 **board = opaque;
    return (*board)->lapics;
}

static int hook_acknowledge(void *opaque, unsigned vcpu)
{
    return lapic_acknowledge(hook_lapics(opaque), vcpu);
}

static uint64_t hook_read_cr8(void *opaque, unsigned vcpu)
{
    return lapic_read_cr8(hook_lapics(opaque), vcpu);
}

static void hook_write_cr8(void *opaque, unsigned vcpu, uint64_t value)
{
    lapic_write_cr8(hook_lapics(opaque), vcpu, value);
}

static bool hook_read_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    return lapic_read_msr(hook_lapics(opaque), vcpu, msr, value);
}

static bool hook_write_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return lapic_write_msr(hook_lapics(opaque), vcpu, msr, value);
}

static void hook_tsc_changed(void *opaque, unsigned vcpu)
{
    lapic_tsc_changed(hook_lapics(opaque), vcpu);
}

static void hook_wake(void *opaque, unsigned vcpu)
{
    struct q35 **board = opaque;
    vcpus_wake((*board)->config.vcpus, vcpu);
}

struct engine_hooks q35_hooks(struct q35 **board)
{
    return (struct engine_hooks){
        .opaque = board,
        .acknowledge = hook_acknowledge,
        .read_cr8 = hook_read_cr8,
        .write_cr8 = hook_write_cr8,
        .read_msr = hook_read_msr,
        .write_msr = hook_write_msr,
        .tsc_changed = hook_tsc_changed,
        .wake = hook_wake,
    };
}
