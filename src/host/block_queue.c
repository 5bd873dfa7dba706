/* SPDX-License-Identifier: BSD-2-Clause
 * Worker threads for block requests; see block_queue.h. */
#include "host/block_queue.h"

#include "base/wake.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum { THREADS_MAX = 16 };

struct request_list {
    struct block_request *first, **end;
};

struct block_queue {
    block_perform_fn *perform;
    void *opaque;
    struct wake *wake;

    pthread_mutex_t lock;
    pthread_cond_t work;    /* a request waits, or stop */
    pthread_cond_t settled; /* nothing is under way any more */
    struct request_list waiting, completed;
    unsigned under_way; /* submitted and not yet carried out */
    unsigned waiting_count, idle_threads;
    unsigned thread_count, thread_max;
    bool stop;
    pthread_t threads[THREADS_MAX];
};

static void list_init(struct request_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

static void list_append(struct request_list *list, struct block_request *request)
{
    request->next = NULL;
    *list->end = request;
    list->end = &request->next;
}

static struct block_request *list_take(struct request_list *list)
{
    struct block_request *request = list->first;
    if (request) {
        list->first = request->next;
        if (!list->first)
            list->end = &list->first;
    }
    return request;
}

static void *worker(void *opaque)
{
    struct block_queue *queue = opaque;
    pthread_mutex_lock(&queue->lock);
    for (;;) {
        struct block_request *request = list_take(&queue->waiting);
        if (!request) {
            if (queue->stop)
                break;
            queue->idle_threads++;
            pthread_cond_wait(&queue->work, &queue->lock);
            queue->idle_threads--;
            continue;
        }
        queue->waiting_count--;
        pthread_mutex_unlock(&queue->lock);
        int error = queue->perform(queue->opaque, request);
        pthread_mutex_lock(&queue->lock);
        request->result = error;
        list_append(&queue->completed, request);
        if (--queue->under_way == 0)
            pthread_cond_broadcast(&queue->settled);
        wake_ring(queue->wake);
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

/* With the lock held (or before anyone else knows the queue). */
static bool add_thread(struct block_queue *queue)
{
    /* Signals are the main thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&queue->threads[queue->thread_count], NULL, worker, queue);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        queue->thread_count++;
    else
        errno = error;
    return error == 0;
}

/* done() may submit again, so the lock is free while it runs. */
static void run_completions(void *opaque)
{
    struct block_queue *queue = opaque;
    pthread_mutex_lock(&queue->lock);
    for (;;) {
        struct block_request *request = list_take(&queue->completed);
        if (!request)
            break;
        pthread_mutex_unlock(&queue->lock);
        request->done(request, request->result);
        pthread_mutex_lock(&queue->lock);
    }
    pthread_mutex_unlock(&queue->lock);
}

static void queue_free(struct block_queue *queue)
{
    wake_close(queue->wake);
    pthread_cond_destroy(&queue->work);
    pthread_cond_destroy(&queue->settled);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

struct block_queue *block_queue_create(struct loop *loop, unsigned thread_max,
                                       block_perform_fn *perform, void *opaque, struct error *err)
{
    assert(thread_max >= 1 && thread_max <= THREADS_MAX);
    struct block_queue *queue = calloc(1, sizeof(*queue));
    if (!queue) {
        error_errno(err, "cannot make a request queue", NULL, ENOMEM);
        return NULL;
    }
    queue->perform = perform;
    queue->opaque = opaque;
    queue->thread_max = thread_max;
    list_init(&queue->waiting);
    list_init(&queue->completed);
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->work, NULL);
    pthread_cond_init(&queue->settled, NULL);
    queue->wake = wake_open(loop, run_completions, queue, err);
    if (!queue->wake) {
        queue_free(queue);
        return NULL;
    }
    if (!add_thread(queue)) {
        error_errno(err, "cannot start a thread", "for disk requests", errno);
        queue_free(queue);
        return NULL;
    }
    return queue;
}

void block_queue_submit(struct block_queue *queue, struct block_request *request)
{
    pthread_mutex_lock(&queue->lock);
    list_append(&queue->waiting, request);
    queue->waiting_count++;
    queue->under_way++;
    if (queue->waiting_count > queue->idle_threads && queue->thread_count < queue->thread_max)
        (void)add_thread(queue); /* those there are will do it, only later */
    pthread_cond_signal(&queue->work);
    pthread_mutex_unlock(&queue->lock);
}

void block_queue_drain(struct block_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->under_way > 0 || queue->completed.first) {
        while (queue->under_way > 0)
            pthread_cond_wait(&queue->settled, &queue->lock);
        pthread_mutex_unlock(&queue->lock);
        run_completions(queue);
        pthread_mutex_lock(&queue->lock);
    }
    pthread_mutex_unlock(&queue->lock);
}

void block_queue_destroy(struct block_queue *queue)
{
    block_queue_drain(queue);
    pthread_mutex_lock(&queue->lock);
    queue->stop = true;
    pthread_cond_broadcast(&queue->work);
    pthread_mutex_unlock(&queue->lock);
    for (unsigned i = 0; i < queue->thread_count; i++)
        pthread_join(queue->threads[i], NULL);
    queue_free(queue);
}
