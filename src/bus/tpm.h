/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What backs a TPM 2.0 device: takes one command at a time and answers later. submit() may be
 * called from any thread with the device's lock held and never waits; the answer comes on the
 * loop's thread, never from inside submit(). All else belongs to the loop's thread, while no vCPU
 * runs.
 */
#ifndef SKEP_BUS_TPM_H
#define SKEP_BUS_TPM_H

#include "base/error.h"
#include "bus/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TPM_COMMAND_MAX_BYTES = 4096, TPM_HEADER_BYTES = 10 };

struct tpm_handler {
    /* The answer to the command that was submitted; size 0: the back end has failed. */
    void (*respond)(void *opaque, const uint8_t *bytes, size_t size_bytes);
    void *opaque;
};

struct tpm_backend {
    void (*set_handler)(void *opaque, const struct tpm_handler *handler); /* copied */
    /* The command is copied; up to TPM_COMMAND_MAX_BYTES, with TPM_HEADER_BYTES at least. */
    void (*submit)(void *opaque, unsigned locality, const uint8_t *command, size_t size_bytes);
    /* Waits until no command is under way; runs its respond(). */
    void (*drain)(void *opaque);
    /* As when the power comes: the TPM wants a TPM2_Startup. No command is under way. */
    void (*reset)(void *opaque);
    /* The TPM's whole state; false: it cannot be had or is not accepted. */
    bool (*save)(void *opaque, struct save *save);
    bool (*load)(void *opaque, struct load *load);
    void (*close)(void *opaque); /* drains, frees */
    void *opaque;
};

#endif
