/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Doorbells as ioeventfds: a guest's write to one wakes a thread here, which rings, and the vCPU
 * goes on at once. Only the first address of a doorbell's range is caught so; writes to the others
 * exit and reach the bus. The bus calls added and removed with its own lock held, while a ring may
 * be under way that waits for that lock: removal never waits, and a ring that has already begun
 * goes on. A vCPU that leaves run() waits for all that was rung (kvm_doorbells_drain), so devices
 * can be saved and destroyed once the vCPUs are paused.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS = 16, LIMIT = 4096 };
static const uint64_t wake_key = UINT64_MAX;

struct entry {
    struct bus_doorbell doorbell;
    int fd;
    uint64_t key; /* never used twice, so that a late event meets no newcomer */
};

struct kvm_doorbells {
    struct engine_vm *vm;
    int epoll_fd, wake_fd;
    pthread_t thread;
    bool thread_runs;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t idle;
    struct entry *entries;
    unsigned count, capacity;
    uint64_t next_key;
    bool ringing; /* the thread has events that it has not finished */
    bool stop;
};

static bool assign(struct kvm_doorbells *doorbells, const struct entry *entry, bool remove)
{
    struct kvm_ioeventfd request = {
        .addr = entry->doorbell.base,
        .fd = entry->fd,
        .flags = (entry->doorbell.space == BUS_PORT ? KVM_IOEVENTFD_FLAG_PIO : 0) |
                 (remove ? KVM_IOEVENTFD_FLAG_DEASSIGN : 0),
    };
    return kvm_ioctl(doorbells->vm->vm_fd, KVM_IOEVENTFD, &request) >= 0;
}

static struct entry *make_room(struct kvm_doorbells *doorbells)
{
    if (doorbells->count == LIMIT)
        return NULL;
    if (doorbells->count == doorbells->capacity) {
        unsigned capacity = doorbells->capacity ? doorbells->capacity * 2 : 16;
        struct entry *entries = realloc(doorbells->entries, capacity * sizeof(*entries));
        if (!entries)
            return NULL;
        doorbells->entries = entries;
        doorbells->capacity = capacity;
    }
    return &doorbells->entries[doorbells->count];
}

/* A doorbell that can't be had this way still works: its writes exit. */
static void added(void *opaque, const struct bus_doorbell *doorbell)
{
    struct kvm_doorbells *doorbells = opaque;
    pthread_mutex_lock(&doorbells->lock);
    struct entry *entry = make_room(doorbells);
    if (entry) {
        *entry = (struct entry){
            .doorbell = *doorbell,
            .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
            .key = doorbells->next_key++,
        };
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = entry->key};
        if (entry->fd >= 0 &&
            epoll_ctl(doorbells->epoll_fd, EPOLL_CTL_ADD, entry->fd, &event) == 0 &&
            assign(doorbells, entry, false)) {
            doorbells->count++;
        } else {
            log_write(doorbells->vm->log, LOG_DEBUG, "kvm", "no ioeventfd at %#llx: %s",
                      (unsigned long long)doorbell->base, strerror(errno));
            if (entry->fd >= 0)
                close(entry->fd);
        }
    }
    pthread_mutex_unlock(&doorbells->lock);
}

static void removed(void *opaque, const struct bus_doorbell *doorbell)
{
    struct kvm_doorbells *doorbells = opaque;
    pthread_mutex_lock(&doorbells->lock);
    for (unsigned i = 0; i < doorbells->count; i++) {
        struct entry *entry = &doorbells->entries[i];
        if (entry->doorbell.base != doorbell->base || entry->doorbell.space != doorbell->space)
            continue;
        assign(doorbells, entry, true);
        close(entry->fd); /* leaves the epoll set too */
        *entry = doorbells->entries[--doorbells->count];
        break;
    }
    pthread_mutex_unlock(&doorbells->lock);
}

/* Takes the doorbell of `key` when it has been rung. */
static bool take(struct kvm_doorbells *doorbells, uint64_t key, struct bus_doorbell *doorbell)
{
    bool found = false;
    uint64_t rings;
    pthread_mutex_lock(&doorbells->lock);
    for (unsigned i = 0; i < doorbells->count && !found; i++) {
        struct entry *entry = &doorbells->entries[i];
        if (entry->key == key && read(entry->fd, &rings, sizeof(rings)) == sizeof(rings)) {
            *doorbell = entry->doorbell;
            found = true;
        }
    }
    pthread_mutex_unlock(&doorbells->lock);
    return found;
}

static bool next_events(struct kvm_doorbells *doorbells, struct epoll_event *events, int *count)
{
    pthread_mutex_lock(&doorbells->lock);
    doorbells->ringing = false;
    pthread_cond_broadcast(&doorbells->idle);
    pthread_mutex_unlock(&doorbells->lock);
    *count = epoll_wait(doorbells->epoll_fd, events, EVENTS, -1);
    pthread_mutex_lock(&doorbells->lock);
    doorbells->ringing = true;
    bool go_on = !doorbells->stop;
    pthread_mutex_unlock(&doorbells->lock);
    return go_on;
}

static void *serve(void *opaque)
{
    struct kvm_doorbells *doorbells = opaque;
    struct epoll_event events[EVENTS];
    int count;
    while (next_events(doorbells, events, &count)) {
        for (int i = 0; i < count; i++) {
            struct bus_doorbell doorbell;
            uint64_t wakes;
            if (events[i].data.u64 == wake_key) {
                if (read(doorbells->wake_fd, &wakes, sizeof(wakes)) < 0)
                    continue;
            } else if (take(doorbells, events[i].data.u64, &doorbell)) {
                doorbell.ring(doorbell.opaque);
            }
        }
    }
    return NULL;
}

/* All that is rung is rung from here, then whatever the thread has taken is waited for. */
void kvm_doorbells_drain(struct kvm_doorbells *doorbells)
{
    if (!doorbells)
        return;
    struct epoll_event event;
    while (epoll_wait(doorbells->epoll_fd, &event, 1, 0) > 0) {
        struct bus_doorbell doorbell;
        if (event.data.u64 == wake_key)
            break;
        if (take(doorbells, event.data.u64, &doorbell))
            doorbell.ring(doorbell.opaque);
    }
    pthread_mutex_lock(&doorbells->lock);
    while (doorbells->ringing)
        pthread_cond_wait(&doorbells->idle, &doorbells->lock);
    pthread_mutex_unlock(&doorbells->lock);
}

static void wake(struct kvm_doorbells *doorbells)
{
    uint64_t one = 1;
    while (write(doorbells->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void kvm_doorbells_close(struct kvm_doorbells *doorbells)
{
    if (!doorbells)
        return;
    if (doorbells->thread_runs) {
        bus_set_listener(doorbells->vm->bus, NULL);
        pthread_mutex_lock(&doorbells->lock);
        doorbells->stop = true;
        pthread_mutex_unlock(&doorbells->lock);
        wake(doorbells);
        pthread_join(doorbells->thread, NULL);
    }
    for (unsigned i = 0; i < doorbells->count; i++)
        close(doorbells->entries[i].fd);
    if (doorbells->wake_fd >= 0)
        close(doorbells->wake_fd);
    if (doorbells->epoll_fd >= 0)
        close(doorbells->epoll_fd);
    pthread_cond_destroy(&doorbells->idle);
    pthread_mutex_destroy(&doorbells->lock);
    free(doorbells->entries);
    free(doorbells);
}

static bool start(struct kvm_doorbells *doorbells)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = wake_key};
    doorbells->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    doorbells->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (doorbells->epoll_fd < 0 || doorbells->wake_fd < 0 ||
        epoll_ctl(doorbells->epoll_fd, EPOLL_CTL_ADD, doorbells->wake_fd, &event) < 0)
        return false;
    errno = pthread_create(&doorbells->thread, NULL, serve, doorbells);
    doorbells->thread_runs = errno == 0;
    return doorbells->thread_runs;
}

struct kvm_doorbells *kvm_doorbells_open(struct engine_vm *vm, struct error *err)
{
    struct kvm_doorbells *doorbells = calloc(1, sizeof(*doorbells));
    if (!doorbells) {
        error_errno(err, "cannot watch doorbells", NULL, ENOMEM);
        return NULL;
    }
    doorbells->vm = vm;
    doorbells->epoll_fd = doorbells->wake_fd = -1;
    pthread_mutex_init(&doorbells->lock, NULL);
    pthread_cond_init(&doorbells->idle, NULL);
    if (!start(doorbells)) {
        error_errno(err, "cannot watch doorbells", NULL, errno);
        kvm_doorbells_close(doorbells);
        return NULL;
    }
    const struct bus_listener listener = {.added = added, .removed = removed, .opaque = doorbells};
    bus_set_listener(vm->bus, &listener);
    return doorbells;
}
