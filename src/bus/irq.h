/* SPDX-License-Identifier: BSD-2-Clause
 *
 * How a device reaches an interrupt controller: a wire with a level, or a message (MSI).
 * set and send may be called from any thread with the device's lock held; the receiver takes its
 * own lock and never calls back into the device.
 */
#ifndef SKEP_BUS_IRQ_H
#define SKEP_BUS_IRQ_H

#include <stdbool.h>
#include <stdint.h>

struct irq_line {
    void (*set)(void *opaque, unsigned number, bool level);
    void *opaque;
    unsigned number;
};

/* A line that is not connected (set == NULL) swallows its level. */
static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->number, level);
}

struct msi_sink {
    void (*send)(void *opaque, uint64_t address, uint32_t data);
    void *opaque;
};

static inline void msi_send(const struct msi_sink *sink, uint64_t address, uint32_t data)
{
    if (sink->send)
        sink->send(sink->opaque, address, data);
}

#endif
