/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A tap interface as a network back end (Linux, Documentation/networking/tuntap.rst). Frames have
 * the header of virtio before them (IFF_VNET_HDR), so checksums and segments pass as they are. One
 * queue. A tap given as a descriptor may be without that header: then there are no offloads.
 *
 * All on the loop's thread. What the guest has no room for waits in the kernel, which drops when
 * its queue is full, as a wire would.
 */
#include "host/tap.h"

#include "host/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FRAMES_AT_ONCE = 64, IOV_DIRECT_MAX = 64 };

static const char attempt[] = "cannot use tap interface";

struct tap {
    int fd;
    struct loop_watch *watch;
    struct net_receiver receiver;
    const struct log *log;
    struct log_limit log_limit;
    unsigned header_bytes; /* of virtio's; 0: none */
    size_t held_bytes;     /* a frame in `in` that the guest had no room for */
    uint8_t in[sizeof(struct virtio_net_hdr) + NET_FRAME_MAX_BYTES];
    uint8_t out[NET_FRAME_MAX_BYTES];
};

/* ---- to the guest ---- */

/* The frame in `in`; false when the guest has no room. */
static bool deliver(struct tap *tap, size_t size_bytes)
{
    struct net_offload offload = {0};
    if (size_bytes < tap->header_bytes || !tap->receiver.receive)
        return true;
    if (tap->header_bytes) {
        struct virtio_net_hdr header;
        memcpy(&header, tap->in, sizeof(header));
        offload = (struct net_offload){
            .needs_checksum = header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
            .checksum_valid = header.flags & VIRTIO_NET_HDR_F_DATA_VALID,
            .gso = header.gso_type,
            .header_bytes = header.hdr_len,
            .segment_bytes = header.gso_size,
            .checksum_start = header.csum_start,
            .checksum_offset = header.csum_offset,
        };
    }
    struct iovec iov = {tap->in + tap->header_bytes, size_bytes - tap->header_bytes};
    return tap->receiver.receive(tap->receiver.opaque, &iov, 1, &offload);
}

static void on_readable(void *opaque, unsigned events)
{
    struct tap *tap = opaque;
    for (unsigned i = 0; i < FRAMES_AT_ONCE && tap->held_bytes == 0; i++) {
        ssize_t n = read(tap->fd, tap->in, sizeof(tap->in));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            log_write(tap->log, LOG_ERROR, "tap", "reading failed: %s; nothing more arrives",
                      strerror(errno));
            loop_watch_set(tap->watch, 0);
        }
        if (n <= 0)
            return;
        if (!deliver(tap, (size_t)n)) {
            tap->held_bytes = (size_t)n;
            loop_watch_set(tap->watch, 0);
        }
    }
}

static void backend_resume(void *opaque)
{
    struct tap *tap = opaque;
    if (tap->held_bytes == 0 || !deliver(tap, tap->held_bytes))
        return;
    tap->held_bytes = 0;
    loop_watch_set(tap->watch, LOOP_READABLE);
}

/* ---- from the guest ---- */

/* Guests may scatter a frame over more pieces than a system call takes. */
static bool flatten(struct tap *tap, const struct iovec *iov, unsigned iov_count,
                    struct iovec *flat)
{
    *flat = (struct iovec){tap->out, 0};
    for (unsigned i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > sizeof(tap->out) - flat->iov_len)
            return false;
        memcpy(tap->out + flat->iov_len, iov[i].iov_base, iov[i].iov_len);
        flat->iov_len += iov[i].iov_len;
    }
    return true;
}

static void backend_send(void *opaque, const struct iovec *iov, unsigned iov_count,
                         const struct net_offload *offload)
{
    struct tap *tap = opaque;
    struct iovec pieces[1 + IOV_DIRECT_MAX];
    struct virtio_net_hdr header = {
        .flags = offload->needs_checksum ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
        .gso_type = offload->gso,
        .hdr_len = offload->header_bytes,
        .gso_size = offload->segment_bytes,
        .csum_start = offload->checksum_start,
        .csum_offset = offload->checksum_offset,
    };
    pieces[0] = (struct iovec){&header, tap->header_bytes};
    if (iov_count <= IOV_DIRECT_MAX) {
        memcpy(pieces + 1, iov, iov_count * sizeof(*iov));
    } else {
        if (!flatten(tap, iov, iov_count, &pieces[1]))
            return;
        iov_count = 1;
    }
    unsigned skip = tap->header_bytes ? 0 : 1;
    ssize_t n;
    do {
        n = writev(tap->fd, pieces + skip, (int)(iov_count + 1 - skip));
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN)
        log_limited(tap->log, &tap->log_limit, LOG_WARNING, "tap", "a frame is lost: %s%s",
                    strerror(errno), errno == EIO ? " (is the interface up?)" : "");
}

/* ---- life ---- */

static void backend_set_receiver(void *opaque, const struct net_receiver *receiver)
{
    struct tap *tap = opaque;
    tap->receiver = receiver ? *receiver : (struct net_receiver){0};
}

static void backend_set_features(void *opaque, const struct net_guest_features *features)
{
    const struct tap *tap = opaque;
    unsigned long flags = 0;
    if (features->checksum)
        flags =
            TUN_F_CSUM | (features->tso4 ? TUN_F_TSO4 : 0UL) | (features->tso6 ? TUN_F_TSO6 : 0UL);
    if (tap->header_bytes && ioctl(tap->fd, TUNSETOFFLOAD, flags) < 0)
        log_write(tap->log, LOG_WARNING, "tap", "cannot set offloads: %s", strerror(errno));
}

static bool backend_link_up(void *opaque)
{
    return true;
}

static void backend_close(void *opaque)
{
    struct tap *tap = opaque;
    loop_watch_close(tap->watch);
    close(tap->fd);
    free(tap);
}

static bool name_failed(const char *name, int error, struct error *err)
{
    error_errno(err, attempt, name, error);
    if (error == EPERM || error == EACCES)
        return error_hint(err,
                          "it needs CAP_NET_ADMIN to make one; let root do so for you: "
                          "ip tuntap add %.16s mode tap user $USER",
                          name);
    if (error == EBUSY) {
        error_set(err, attempt, name, "it is in use by another process");
        return error_hint(err, "give each virtual machine an interface of its own");
    }
    if (error == EINVAL) {
        error_set(err, attempt, name, "it is there, but no tap interface with one queue");
        return error_hint(err, "choose another name; ip -d link show %.16s tells what it is", name);
    }
    return false;
}

static int open_by_name(const char *name, struct error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    if (*name == '\0' || strlen(name) >= sizeof(request.ifr_name) || strpbrk(name, "/ %")) {
        error_usage(err, attempt, name, "that is no name for an interface");
        error_hint(err, "names have 1 to 15 characters, none of them / or a space");
        return -1;
    }
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        error_errno(err, "cannot open", "/dev/net/tun", error);
        if (error == ENOENT || error == ENODEV)
            error_hint(err, "load the kernel's module: modprobe tun");
        return -1;
    }
    strcpy(request.ifr_name, name);
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        name_failed(name, errno, err);
        close(fd);
        return -1;
    }
    return fd;
}

/* What the interface says of itself; checks that it is a tap. */
static bool inspect(struct tap *tap, struct ifreq *request, struct error *err)
{
    char where[32];
    snprintf(where, sizeof(where), "descriptor %d", tap->fd);
    memset(request, 0, sizeof(*request));
    if (ioctl(tap->fd, TUNGETIFF, request) < 0 || !(request->ifr_flags & IFF_TAP) ||
        !(request->ifr_flags & IFF_NO_PI)) {
        error_usage(err, attempt, where, "it is no tap interface (mode IFF_TAP and IFF_NO_PI)");
        return error_hint(err, "open /dev/net/tun and set it up with TUNSETIFF first");
    }
    if (!(request->ifr_flags & IFF_VNET_HDR))
        return true;
    int header_bytes = sizeof(struct virtio_net_hdr);
    if (ioctl(tap->fd, TUNSETVNETHDRSZ, &header_bytes) < 0)
        return error_errno(err, attempt, where, errno);
    tap->header_bytes = sizeof(struct virtio_net_hdr);
    return true;
}

static unsigned find_mtu(const struct tap *tap, struct ifreq *request)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unsigned mtu = 1500;
    if (fd < 0)
        return mtu;
    if (ioctl(fd, SIOCGIFFLAGS, request) == 0 && !(request->ifr_flags & IFF_UP))
        log_write(tap->log, LOG_WARNING, "tap", "interface %s is down: ip link set %s up",
                  request->ifr_name, request->ifr_name);
    if (ioctl(fd, SIOCGIFMTU, request) == 0 && request->ifr_mtu > 0)
        mtu = (unsigned)request->ifr_mtu;
    close(fd);
    return mtu;
}

static bool tap_setup(struct tap *tap, struct loop *loop, struct ifreq *request, struct error *err)
{
    if (!inspect(tap, request, err))
        return false;
    if (!fd_set_nonblocking(tap->fd))
        return error_errno(err, attempt, request->ifr_name, errno);
    tap->watch = loop_watch_open(loop, tap->fd, on_readable, tap, err);
    if (!tap->watch)
        return false;
    loop_watch_set(tap->watch, LOOP_READABLE);
    return true;
}

bool tap_open(const struct tap_config *config, struct loop *loop, struct net_backend *out,
              struct error *err)
{
    int fd = config->name ? open_by_name(config->name, err) : config->fd;
    if (fd < 0)
        return false;
    struct tap *tap = calloc(1, sizeof(*tap));
    struct ifreq request;
    if (!tap) {
        close(fd);
        return error_errno(err, attempt, config->name, ENOMEM);
    }
    tap->fd = fd;
    tap->log = config->log;
    if (!tap_setup(tap, loop, &request, err)) {
        close(fd);
        free(tap);
        return false;
    }
    struct net_guest_features none = {0};
    backend_set_features(tap, &none);
    *out = (struct net_backend){
        .send = backend_send,
        .set_receiver = backend_set_receiver,
        .set_guest_features = backend_set_features,
        .resume = backend_resume,
        .link_up = backend_link_up,
        .mtu_bytes = find_mtu(tap, &request),
        .offers_offloads = tap->header_bytes > 0,
        .close = backend_close,
        .opaque = tap,
    };
    return true;
}
