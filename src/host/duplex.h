/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Bytes both ways over descriptors, for character back ends: output through a bounded buffer that
 * any thread fills and the loop's thread sends; input that waits while its receiver has no room.
 * Descriptors come and go (attach, detach); without any, output is taken and dropped.
 *
 * Descriptors should not block (regular files aside): see fd_open_again() in fd.h.
 */
#ifndef SKEP_HOST_DUPLEX_H
#define SKEP_HOST_DUPLEX_H

#include "base/error.h"
#include "base/loop.h"
#include "bus/char.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DUPLEX_BUFFER_BYTES = 65536 };

struct duplex;

struct duplex_owner {
    /* Input on its way to the device; NULL: it goes there as it is. May drop or change bytes in
     * place, and gives how many are left of them. */
    size_t (*filter)(void *opaque, uint8_t *bytes, size_t size_bytes);
    /* The input is at its end, or the output failed. It is not looked at any more; the owner may
     * detach it here. */
    void (*ended)(void *opaque, bool is_input);
    /* The filter is to see all input at once, also while the device takes none: what does not fit
     * the buffer then is lost. */
    bool reads_always;
    void *opaque;
};

struct duplex *duplex_create(struct loop *loop, const struct duplex_owner *owner,
                             struct error *err);

/* Sends what is still held (gives up after a second without progress), frees. The descriptors stay
 * their owner's. */
void duplex_destroy(struct duplex *duplex);

/* Starts to use descriptors (-1: none in this direction; both may be the same), after detach. */
bool duplex_attach(struct duplex *duplex, int in_fd, int out_fd, struct error *err);

/* Lets go of them; bytes held either way are dropped. */
void duplex_detach(struct duplex *duplex);

/* Sends what is held, waiting for at most a second without progress. */
void duplex_flush(struct duplex *duplex);

/* As in struct char_backend; write and accept from any thread. */
size_t duplex_write(struct duplex *duplex, const uint8_t *bytes, size_t size_bytes);
void duplex_accept(struct duplex *duplex);
void duplex_set_handler(struct duplex *duplex, const struct char_handler *handler);

/* Tells the handler that a peer came or went. */
void duplex_tell_connected(struct duplex *duplex, bool is_connected);

#endif
