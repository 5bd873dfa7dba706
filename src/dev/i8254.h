/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The PC's 8254 interval timer with port B (gate and state of the speaker's counter).
 */
#ifndef SKEP_DEV_I8254_H
#define SKEP_DEV_I8254_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/irqchip.h"

#include <stdbool.h>
#include <stdint.h>

struct i8254;

struct i8254_config {
    uint16_t base;        /* four ports: 0x40 on a PC */
    uint16_t port_b_base; /* one port: 0x61 on a PC */
    struct irq_line irq;  /* OUT of counter 0 */
};

/* Maps its ports on `bus`; `bus` and `clock` must outlive the device. NULL and `err` filled on
 * failure. Free with i8254_ops.destroy. */
struct i8254 *i8254_create(const struct i8254_config *config, struct bus *bus, struct clock *clock,
                           struct error *err);

/* HPET's legacy replacement takes interrupt 0 away: counter 0 goes on, its line stays low. `pit`
 * is a struct i8254, the signature that of irq_line.set (`number` is unused). Any thread. */
void i8254_disconnect_irq(void *pit, unsigned number, bool disconnected);

/* What i8254_ops saves, and its reading back: false and failed when a value is out of range. */
void i8254_state_save(const struct i8254_state *state, struct save *save);
bool i8254_state_load(struct i8254_state *state, struct load *load);
/* Computes what follows from counter 0 as it is at time `now_ns`: the line, when OUT rises next. */
void i8254_state_settle(struct i8254_state *state, uint64_t now_ns);

extern const struct device_ops i8254_ops;

#endif
