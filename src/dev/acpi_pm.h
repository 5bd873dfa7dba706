/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The ACPI fixed hardware: power management event, control and timer registers, and the
 * general-purpose events, laid out as in ICH9.
 */
#ifndef SKEP_DEV_ACPI_PM_H
#define SKEP_DEV_ACPI_PM_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"

#include <stdbool.h>
#include <stdint.h>

/* Where things lie in the block, for the FADT. */
enum {
    ACPI_PM_BLOCK_BYTES = 0x80,
    ACPI_PM_EVENT_OFFSET = 0x00,   /* PM1a_EVT_BLK, 4 bytes */
    ACPI_PM_CONTROL_OFFSET = 0x04, /* PM1a_CNT_BLK, 2 bytes */
    ACPI_PM_TIMER_OFFSET = 0x08,   /* PM_TMR_BLK, 4 bytes */
    ACPI_PM_GPE0_OFFSET = 0x20,    /* GPE0_BLK, ACPI_PM_GPE0_BYTES */
    ACPI_PM_GPE0_BYTES = 16,       /* half status, half enable */
    ACPI_PM_GPE_COUNT = 64,
};

struct acpi_pm;

struct acpi_pm_config {
    uint16_t base;                   /* ACPI_PM_BLOCK_BYTES ports */
    uint8_t sleep_type_s5;           /* SLP_TYP of \_S5, 0 to 7 */
    uint8_t sleep_type_s3;           /* of \_S3, which is there if `sleep` is */
    bool timer_is_32_bit;            /* TMR_VAL_EXT; otherwise 24 bits */
    struct irq_line sci;             /* a level */
    void (*power_off)(void *opaque); /* S5 entered; on a vCPU thread, no lock held; may be NULL */
    /* S3 entered, and left again: the power button, the RTC's alarm or a general-purpose event
     * that is enabled. With the device's lock held; sleep on a vCPU's thread, wake on any, which
     * may be the same at once. */
    void (*sleep)(void *opaque);
    void (*wake)(void *opaque);
    void *opaque;
    const struct log *log; /* may be NULL */
};

/* Maps its ports on `bus`; `bus` and `clock` must outlive the device. NULL and `err` filled on
 * failure. Free with acpi_pm_ops.destroy. */
struct acpi_pm *acpi_pm_create(const struct acpi_pm_config *config, struct bus *bus,
                               struct clock *clock, struct error *err);

/* Moves the block (ICH9's PMBASE); it stays where it is when the new place is taken. While a guest
 * runs only from the thread that writes PMBASE. */
bool acpi_pm_set_base(struct acpi_pm *pm, uint16_t base, struct error *err);

/* The power button is pressed: PWRBTN_STS. Any thread. */
void acpi_pm_press_power_button(struct acpi_pm *pm);

/* The RTC's alarm went off: RTC_STS. `pm` is a struct acpi_pm; the signature is that of
 * irq_line.set (`number` is unused), a rise counts. Any thread. */
void acpi_pm_set_rtc_alarm(void *pm, unsigned number, bool level);

/* Drives input `gpe` (0 to 63) of GPE0; its status stays set as long as the level does. `pm` is a
 * struct acpi_pm; the signature is that of irq_line.set. Any thread. */
void acpi_pm_set_gpe(void *pm, unsigned gpe, bool level);

/* In S3. Any thread. A wake-up doesn't reset this device: it tells why. */
bool acpi_pm_is_asleep(struct acpi_pm *pm);

extern const struct device_ops acpi_pm_ops;

#endif
