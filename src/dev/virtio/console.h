/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio console device (virtio 1.2, 5.3): a console and named ports over struct char_backend.
 */
#ifndef SKEP_DEV_VIRTIO_CONSOLE_H
#define SKEP_DEV_VIRTIO_CONSOLE_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/char.h"
#include "bus/ram.h"
#include "dev/virtio/virtio.h"

#include <stdbool.h>
#include <stdint.h>

enum { VIRTIO_CONSOLE_PORTS_MAX = 31, VIRTIO_CONSOLE_NAME_MAX_BYTES = 64 };

struct virtio_console_port {
    struct char_backend
        backend;      /* stays its opener's, who closes it after the device is destroyed */
    const char *name; /* what the guest finds it by; copied; NULL: none */
    bool is_console;  /* a terminal (hvc0 …) rather than a byte channel */
};

struct virtio_console_config {
    struct ram *ram;
    const struct log *log;
    uint64_t features_off; /* not to be offered */
    struct loop *loop;
    /* Port 0 is all that a driver without multiport sees. */
    const struct virtio_console_port *ports;
    unsigned port_count;    /* 1 … VIRTIO_CONSOLE_PORTS_MAX */
    uint16_t columns, rows; /* of port 0; 0: not known */
};

/* The device for virtio_pci_create(). On the loop's thread, as is destroying it. */
struct virtio_device *virtio_console_create(const struct virtio_console_config *config,
                                            struct error *err);

/* The window of port 0 has another size. Any thread. */
void virtio_console_resize(struct virtio_device *device, uint16_t columns, uint16_t rows);

#endif
