/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A bell that any thread rings and the loop's thread hears. Unlike loop_post() it has a life time:
 * once closed its callback does not come any more, so that an object can own one and be freed.
 * Rings that come before the callback has run count as one.
 */
#ifndef SKEP_BASE_WAKE_H
#define SKEP_BASE_WAKE_H

#include "base/error.h"
#include "base/loop.h"

struct wake;

/* fn(opaque) runs on the loop's thread after each wake_ring(). On the loop's thread. */
struct wake *wake_open(struct loop *loop, loop_fn *fn, void *opaque, struct error *err);

/* From any thread, with any lock held. */
void wake_ring(struct wake *wake);

/* On the loop's thread, when no thread rings any more. NULL is fine. */
void wake_close(struct wake *wake);

#endif
