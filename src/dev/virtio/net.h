/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio network device (virtio 1.2, 5.1) over a struct net_backend.
 */
#ifndef SKEP_DEV_VIRTIO_NET_H
#define SKEP_DEV_VIRTIO_NET_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/net.h"
#include "bus/ram.h"
#include "dev/virtio/virtio.h"

#include <stdbool.h>
#include <stdint.h>

struct virtio_net_config {
    struct ram *ram;
    const struct log *log;
    uint64_t features_off; /* not to be offered */
    struct loop *loop;
    struct net_backend
        backend; /* stays its opener's, who closes it after the device is destroyed */
    uint8_t mac[6];
};

/* The device for virtio_pci_create(). On the loop's thread, as is destroying it. */
struct virtio_device *virtio_net_create(const struct virtio_net_config *config, struct error *err);

/* The cable: the driver is told. Any thread. */
void virtio_net_set_link(struct virtio_device *device, bool is_up);

/* Asks the driver to announce itself to the network, as after the machine moved. Any thread. */
void virtio_net_announce(struct virtio_device *device);

#endif
