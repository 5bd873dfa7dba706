/* SPDX-License-Identifier: BSD-2-Clause
 *
 * How interrupts run: ISA interrupts and PIRQs to the 8259 pair and to the I/O APIC.
 */
#include "machine/q35_internal.h"

#include <assert.h>
#include <stdatomic.h>

/* Sources of an ISA interrupt: the devices on it and the PIRQs that are routed to it. */
enum { SOURCE_PIRQ = 0, SOURCE_DEVICE = ICH9_LPC_PIRQ_COUNT, SOURCE_TEST = 16 };

void q35_drive_gsi(struct q35 *board, unsigned gsi, bool level)
{
    if (board->ioapic) {
        ioapic_set_irq(board->ioapic, gsi, level);
        return;
    }
    /* An engine may take a level that it is told again for another edge. */
    uint32_t bit = UINT32_C(1) << gsi;
    uint32_t before = level ? atomic_fetch_or(&board->gsi_levels, bit)
                            : atomic_fetch_and(&board->gsi_levels, ~bit);
    if (!(before & bit) == level)
        irq_set(&board->gsi[gsi], level);
}

static void set_source(struct q35 *board, unsigned irq, unsigned source, bool level)
{
    if (level)
        board->isa_sources[irq] |= 1u << source;
    else
        board->isa_sources[irq] &= ~(1u << source);
}

/* Of the I/O APIC's input: PIRQs have their own ones. An engine's irqchip has one input for it and
 * the 8259 pair. */
static bool isa_input(const struct q35 *board, unsigned irq)
{
    return board->ioapic ? board->isa_sources[irq] >> SOURCE_DEVICE : board->isa_sources[irq];
}

/* Tells the 8259 pair and the I/O APIC, with irq_lock held. */
static void drive_isa(struct q35 *board, unsigned irq)
{
    if (board->i8259)
        i8259_set_irq(board->i8259, irq, board->isa_sources[irq]);
    /* An engine's irqchip knows by itself that the timer is on another input. */
    q35_drive_gsi(board, board->ioapic && irq == IRQ_PIT ? GSI_PIT : irq, isa_input(board, irq));
}

/* `number` is irq | source << 8. */
static void set_isa(void *opaque, unsigned number, bool level)
{
    struct q35 *board = opaque;
    unsigned irq = number & 0xff;
    pthread_mutex_lock(&board->irq_lock);
    set_source(board, irq, number >> 8, level);
    drive_isa(board, irq);
    pthread_mutex_unlock(&board->irq_lock);
}

struct irq_line q35_isa_line_shared(struct q35 *board, unsigned irq, unsigned user)
{
    assert(irq < ISA_IRQS && irq != IRQ_CASCADE);
    return (struct irq_line){set_isa, board, irq | (SOURCE_DEVICE + user) << 8};
}

struct irq_line q35_isa_line(struct q35 *board, unsigned irq)
{
    return q35_isa_line_shared(board, irq, 0);
}

unsigned q35_slot_pirq(unsigned slot, unsigned pin)
{
    return (slot + pin) % ICH9_LPC_PIRQ_COUNT;
}

/* A PIRQ goes to its own input of the I/O APIC, and to the 8259 pair where the guest says. */
static void set_pirq(void *opaque, unsigned pirq, bool level)
{
    struct q35 *board = opaque;
    pthread_mutex_lock(&board->irq_lock);
    if (level)
        board->pirq_levels |= (uint8_t)(1u << pirq);
    else
        board->pirq_levels &= (uint8_t) ~(1u << pirq);
    unsigned irq = board->pirq_irq[pirq];
    if (irq) {
        set_source(board, irq, SOURCE_PIRQ + pirq, level);
        drive_isa(board, irq);
    }
    q35_drive_gsi(board, GSI_PCI + pirq, level || board->test_levels >> (GSI_PCI + pirq) & 1);
    pthread_mutex_unlock(&board->irq_lock);
}

void q35_set_pit_source(struct q35 *board, bool level)
{
    set_source(board, IRQ_PIT, SOURCE_DEVICE, level);
}

/* The test device raises any input of the I/O APIC, and with those of ISA interrupts the 8259
 * pair's. It is one source beside the devices. */
void q35_set_test_gsi(void *opaque, unsigned gsi, bool level)
{
    struct q35 *board = opaque;
    if (gsi < ISA_IRQS && gsi != IRQ_CASCADE) {
        set_isa(board, gsi | SOURCE_TEST << 8, level);
        return;
    }
    pthread_mutex_lock(&board->irq_lock);
    uint32_t bit = UINT32_C(1) << gsi;
    board->test_levels = level ? board->test_levels | bit : board->test_levels & ~bit;
    q35_drive_gsi(board, gsi,
                  level || (gsi >= GSI_PCI && board->pirq_levels >> (gsi - GSI_PCI) & 1));
    pthread_mutex_unlock(&board->irq_lock);
}

struct irq_line q35_route_pci(void *opaque, unsigned slot, unsigned pin)
{
    return (struct irq_line){set_pirq, opaque, q35_slot_pirq(slot, pin - 1)};
}

void q35_pirq_changed(void *opaque, unsigned pirq, unsigned irq)
{
    struct q35 *board = opaque;
    pthread_mutex_lock(&board->irq_lock);
    unsigned old = board->pirq_irq[pirq];
    if (old) {
        set_source(board, old, SOURCE_PIRQ + pirq, false);
        drive_isa(board, old);
    }
    board->pirq_irq[pirq] = (uint8_t)(irq < ISA_IRQS ? irq : 0);
    if (board->pirq_irq[pirq]) {
        set_source(board, irq, SOURCE_PIRQ + pirq, board->pirq_levels >> pirq & 1);
        drive_isa(board, irq);
    }
    pthread_mutex_unlock(&board->irq_lock);
}

uint32_t q35_wired_gsis(const struct q35 *board)
{
    uint32_t levels = board->test_levels | (uint32_t)board->pirq_levels << GSI_PCI;
    for (unsigned irq = 0; irq < ISA_IRQS; irq++)
        levels |= isa_input(board, irq) ? UINT32_C(1) << irq : 0;
    return levels;
}

uint32_t q35_pirq_gsis(const struct q35 *board)
{
    uint32_t levels = 0;
    for (unsigned irq = 0; irq < ISA_IRQS; irq++)
        levels |= board->isa_sources[irq] && !(board->isa_sources[irq] >> SOURCE_DEVICE)
                      ? UINT32_C(1) << irq
                      : 0;
    return levels;
}

uint8_t q35_interrupt_line(void *opaque, unsigned slot, unsigned pin)
{
    return (uint8_t)(GSI_PCI + q35_slot_pirq(slot, pin - 1));
}
