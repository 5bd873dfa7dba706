/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What backs a serial port or console: bytes both ways. write() may be called from any thread;
 * callbacks into the device come on the loop's thread.
 */
#ifndef SKEP_BUS_CHAR_H
#define SKEP_BUS_CHAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct char_handler {
    /* Returns how many bytes were taken; the rest is offered again after accept(). */
    size_t (*receive)(void *opaque, const uint8_t *bytes, size_t size_bytes);
    void (*writable)(void *opaque);                     /* write() has room again */
    void (*connected)(void *opaque, bool is_connected); /* a peer came or went */
    void (*send_break)(void *opaque);                   /* a break arrived */
    void *opaque;
};

struct char_backend {
    /* Returns how many bytes were taken (0 … size_bytes): less than all means that writable() will
     * be called. With no peer, bytes are taken and dropped. */
    size_t (*write)(void *opaque, const uint8_t *bytes, size_t size_bytes);
    void (*accept)(void *opaque); /* the device has room again; any thread */
    void (*set_handler)(void *opaque, const struct char_handler *handler); /* copied */
    bool (*is_connected)(void *opaque);
    void (*close)(
        void *opaque); /* sends out what it still holds, restores what it changed, frees */
    void *opaque;
};

#endif
