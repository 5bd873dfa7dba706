/* SPDX-License-Identifier: BSD-2-Clause
 *
 * swtpm as a TPM's back end: a program of its own, reached through its control socket.
 */
#ifndef SKEP_HOST_SWTPM_H
#define SKEP_HOST_SWTPM_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/tpm.h"

struct swtpm_config {
    const char *path;      /* of the Unix socket that `swtpm socket --ctrl` made */
    uint32_t buffer_bytes; /* of the device: longer commands and answers there are none */
    const struct log *log; /* may be NULL */
};

/* Connects, gives it a channel for commands, starts its TPM and fills `out`, which out->close
 * frees. Fails, with a hint, when nobody listens or answers there, or it lacks what is needed. On
 * the loop's thread; may wait for some seconds. */
bool swtpm_open(const struct swtpm_config *config, struct loop *loop, struct tpm_backend *out,
                struct error *err);

#endif
