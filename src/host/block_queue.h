/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Requests of a block back end, carried out by a few threads of its own (file I/O blocks). Threads
 * are the queue's own rather than the loop's workers: a request then takes one hop less, and
 * drain() can wait for them from inside a callback of the loop.
 *
 * submit() is called from any thread; done() of each request runs on the loop's thread.
 */
#ifndef SKEP_HOST_BLOCK_QUEUE_H
#define SKEP_HOST_BLOCK_QUEUE_H

#include "base/error.h"
#include "base/loop.h"
#include "bus/block.h"

struct block_queue;

/* Carries one request out and gives 0 or an errno value. On several threads at once. */
typedef int block_perform_fn(void *opaque, struct block_request *request);

/* At most `thread_max` threads; one is started at once, the others when they are needed. */
struct block_queue *block_queue_create(struct loop *loop, unsigned thread_max,
                                       block_perform_fn *perform, void *opaque, struct error *err);

void block_queue_submit(struct block_queue *queue, struct block_request *request);

/* Waits until nothing is under way and runs all done(). On the loop's thread. */
void block_queue_drain(struct block_queue *queue);

/* Drains, ends the threads, frees. On the loop's thread; nothing may be submitted any more. */
void block_queue_destroy(struct block_queue *queue);

#endif
