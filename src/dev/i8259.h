/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The PC's two 8259A interrupt controllers, cascaded, with the edge/level control registers.
 */
#ifndef SKEP_DEV_I8259_H
#define SKEP_DEV_I8259_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/irqchip.h"

#include <stdbool.h>
#include <stdint.h>

struct i8259;

struct i8259_config {
    uint16_t master_base; /* two ports: 0x20 on a PC */
    uint16_t slave_base;  /* two ports: 0xa0 on a PC */
    uint16_t elcr_base;   /* two ports: 0x4d0 on a PC */
    struct irq_line intr; /* the master's INT output; called with the device's lock held */
};

/* Maps its ports on `bus`, which must outlive the device. NULL and `err` filled on failure. Free
 * with i8259_ops.destroy. */
struct i8259 *i8259_create(const struct i8259_config *config, struct bus *bus, struct error *err);

/* Drives input `irq` (0 to 15; 2 is the cascade and is ignored, as are others). `pic` is a
 * struct i8259; the signature is that of struct irq_line.set. Any thread. */
void i8259_set_irq(void *pic, unsigned irq, bool level);

/* The INTA cycle: gives the vector of the highest request and takes it into service. With no
 * request left it gives the vector of the spurious IRQ 7 (or 15). Any thread. */
int i8259_acknowledge(struct i8259 *pic);

/* The level of INTR. Any thread. */
bool i8259_has_interrupt(struct i8259 *pic);

/* What i8259_ops saves, and its reading back: false and failed when a value is out of range. */
void i8259_state_save(const struct i8259_state *state, struct save *save);
bool i8259_state_load(struct i8259_state *state, struct load *load);
/* The outputs of master and slave that follow from it. */
bool i8259_state_intr(const struct i8259_state *state);
bool i8259_state_cascade(const struct i8259_state *state);

extern const struct device_ops i8259_ops;

#endif
