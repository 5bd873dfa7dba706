/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The two interfaces that a TPM 2.0 can have to its machine (TCG PC Client Platform TPM Profile
 * for TPM 2.0, 1.05): a FIFO, as TIS 1.3 has it, or a command and response buffer. A machine has
 * one of them, at the same address.
 */
#ifndef SKEP_DEV_TPM_H
#define SKEP_DEV_TPM_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/tpm.h"

#include <stdint.h>

enum {
    TPM_RANGE_BYTES = 0x5000,      /* five localities */
    TPM_CRB_CONTROL_OFFSET = 0x40, /* of the control area, for ACPI */
    TPM_CRB_BUFFER_BYTES = 0xf80,
    TPM_TIS_BUFFER_BYTES = TPM_COMMAND_MAX_BYTES,
};

struct tpm_config {
    uint64_t base; /* 0xfed40000 on a PC */
    /* Copied; what is behind it must outlive the device, and is drained before reset, save, load
     * and destroy. */
    const struct tpm_backend *backend;
};

struct tpm_tis;
struct tpm_crb;

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with the ops' destroy. */
struct tpm_tis *tpm_tis_create(const struct tpm_config *config, struct bus *bus, struct error *err);
struct tpm_crb *tpm_crb_create(const struct tpm_config *config, struct bus *bus, struct error *err);

extern const struct device_ops tpm_tis_ops;
extern const struct device_ops tpm_crb_ops;

#endif
