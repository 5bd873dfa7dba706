/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The interrupt controllers and the 8254 of an engine that has them inside, as devices of the
 * board: they save and load what the board's own would, so that a machine goes from engine to
 * engine. The engine's state is taken when saving begins, since the wiring is a part of it, and
 * given back when all devices are loaded: whatever these did to their lines meanwhile is in it.
 */
#include "machine/q35_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { CASCADE_BIT = 1 << IRQ_CASCADE };
static_assert((int)IRQCHIP_MAX_VCPUS >= (int)ENGINE_MAX_VCPUS, "a state for each processor");

static const struct engine_irqchip *chip_of(const struct q35 *board)
{
    return board->config.engine->irqchip;
}

static uint64_t now_ns(const struct q35 *board)
{
    return clock_now_ns(board->config.clock);
}

bool q35_irqchip_state(struct q35 *board, struct irqchip_state *state)
{
    if (chip_of(board))
        return chip_of(board)->get(board->config.vm, now_ns(board), state, NULL);
    lapic_get(board->lapics, state->lapic);
    state->ioapic = ioapic_get(board->ioapic);
    return true;
}

/* ---- as devices ---- */

static void reset_all(void *device)
{
    struct q35 *board = device;
    chip_of(board)->reset(board->config.vm);
}

static void nothing(void *device) {}

static void save_lapics(void *device, struct save *save)
{
    struct q35 *board = device;
    lapic_state_save(board->irqchip->lapic, board->config.vcpu_count, save);
}

static bool load_lapics(void *device, struct load *load, uint32_t version)
{
    struct q35 *board = device;
    return version == lapic_ops.version &&
           lapic_state_load(board->irqchip->lapic, board->config.vcpu_count, load);
}

static void save_ioapic(void *device, struct save *save)
{
    struct q35 *board = device;
    ioapic_state_save(&board->irqchip->ioapic, save);
}

static bool load_ioapic(void *device, struct load *load, uint32_t version)
{
    struct q35 *board = device;
    return version == ioapic_ops.version && ioapic_state_load(&board->irqchip->ioapic, load);
}

static void save_i8259(void *device, struct save *save)
{
    struct q35 *board = device;
    i8259_state_save(&board->irqchip->i8259, save);
}

static bool load_i8259(void *device, struct load *load, uint32_t version)
{
    struct q35 *board = device;
    return version == i8259_ops.version && i8259_state_load(&board->irqchip->i8259, load);
}

static void save_i8254(void *device, struct save *save)
{
    struct q35 *board = device;
    i8254_state_save(&board->irqchip->i8254, save);
}

static bool load_i8254(void *device, struct load *load, uint32_t version)
{
    struct q35 *board = device;
    return version == i8254_ops.version && i8254_state_load(&board->irqchip->i8254, load);
}

/* One is reset for all, by the engine. */
bool q35_irqchip_open(struct q35 *board, struct error *err)
{
    board->irqchip = calloc(1, sizeof(*board->irqchip));
    if (!board->irqchip)
        return error_errno(err, "cannot make the board", NULL, ENOMEM);
    const struct device_ops ops[Q35_IRQCHIPS] = {
        {lapic_ops.name, lapic_ops.version, reset_all, save_lapics, load_lapics, nothing},
        {ioapic_ops.name, ioapic_ops.version, nothing, save_ioapic, load_ioapic, nothing},
        {i8259_ops.name, i8259_ops.version, nothing, save_i8259, load_i8259, nothing},
        {i8254_ops.name, i8254_ops.version, nothing, save_i8254, load_i8254, nothing},
    };
    memcpy(board->irqchip_ops, ops, sizeof(ops));
    return true;
}

void q35_irqchip_close(struct q35 *board)
{
    free(board->irqchip);
}

/* ---- between the engine and the board's wires ---- */

static void set_bit(uint32_t *bits, unsigned number, bool value)
{
    *bits = value ? *bits | UINT32_C(1) << number : *bits & ~(UINT32_C(1) << number);
}

/* Inputs of the I/O APIC from those of the engine, whose number 0 is its input 2 too. */
static uint32_t pins_of(uint32_t gsis)
{
    return (gsis & ~UINT32_C(1)) | (gsis & 1) << GSI_PIT;
}

/* What the engine can't tell follows from the wires and from the rest. */
static void complete(struct q35 *board, struct irqchip_state *state)
{
    struct i8259_chip *master = &state->i8259.chips[0];
    i8254_state_settle(&state->i8254, now_ns(board));
    state->ioapic.pins = pins_of(atomic_load(&board->gsi_levels) & ~q35_pirq_gsis(board));
    if (state->i8254.irq) {
        state->ioapic.pins |= UINT32_C(1) << GSI_PIT;
        master->lines |= 1 << IRQ_PIT;
    }
    master->lines &= (uint8_t)~CASCADE_BIT;
    if (i8259_state_cascade(&state->i8259))
        master->lines |= CASCADE_BIT;
    for (unsigned i = 0; i < board->config.vcpu_count; i++)
        state->lapic[i].lint[0] = i8259_state_intr(&state->i8259);
}

void q35_irqchip_save_begin(struct q35 *board, struct save *save)
{
    struct error err;
    if (!board->irqchip)
        return;
    if (!chip_of(board)->get(board->config.vm, now_ns(board), board->irqchip, &err)) {
        log_write(board->config.log, LOG_ERROR, "q35", "%s: %s", err.what, err.cause);
        save->failed = true;
        return;
    }
    complete(board, board->irqchip);
    q35_set_pit_source(board, board->irqchip->i8254.irq);
}

void q35_irqchip_save_end(struct q35 *board)
{
    if (board->irqchip)
        q35_set_pit_source(board, false);
}

/* The engine's 8254 drives interrupt 0 by itself. */
bool q35_irqchip_load_end(struct q35 *board, struct error *err)
{
    struct irqchip_state *state = board->irqchip;
    if (!state)
        return true;
    q35_set_pit_source(board, false);
    uint32_t gsis = q35_wired_gsis(board) | (state->ioapic.pins & HPET_ROUTES);
    atomic_store(&board->gsi_levels, gsis);
    state->ioapic.pins = pins_of(gsis);
    uint32_t lines = state->i8259.chips[0].lines;
    set_bit(&lines, IRQ_PIT, board->isa_sources[IRQ_PIT]);
    state->i8259.chips[0].lines = (uint8_t)lines;
    return chip_of(board)->set(board->config.vm, now_ns(board), state, err);
}
