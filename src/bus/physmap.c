/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The layers of guest-physical memory, and the flat view of them that engines get. A change works
 * the view out anew, which is a few microseconds, and rare: a guest that moves a BAR, firmware that
 * opens and closes shadow RAM. Any thread; one lock.
 */
#include "bus/physmap.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PLACED = 48, MAX_EDGES = 2 * MAX_PLACED };

struct placed {
    enum physmap_layer layer;
    struct physmap_range range;
};

struct view {
    struct physmap_range range[PHYSMAP_MAX_RANGES];
    unsigned count;
};

struct physmap {
    pthread_mutex_t lock;
    struct placed placed[MAX_PLACED];
    unsigned placed_count;
    struct view view;
    struct physmap_listener listener;
};

static const char what[] = "cannot map memory";

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static bool holds(const struct physmap_range *range, uint64_t gpa)
{
    return gpa - range->gpa < range->size_bytes;
}

static const struct placed *top_at(const struct physmap *map, uint64_t gpa)
{
    const struct placed *top = NULL;
    for (unsigned i = 0; i < map->placed_count; i++)
        if (holds(&map->placed[i].range, gpa) && (!top || map->placed[i].layer > top->layer))
            top = &map->placed[i];
    return top;
}

/* The piece [gpa, end) of what is placed there, joined to the last one when it goes on with it. */
static bool add_piece(struct view *view, const struct placed *placed, uint64_t gpa, uint64_t end,
                      const struct placed **last)
{
    struct physmap_range *before = view->count ? &view->range[view->count - 1] : NULL;
    if (before && *last == placed && before->gpa + before->size_bytes == gpa) {
        before->size_bytes = end - before->gpa;
        return true;
    }
    if (view->count == PHYSMAP_MAX_RANGES)
        return false;
    struct physmap_range piece = placed->range;
    piece.hva += gpa - piece.gpa;
    piece.gpa = gpa;
    piece.size_bytes = end - gpa;
    view->range[view->count++] = piece;
    *last = placed;
    return true;
}

/* Between two neighbouring edges all is the same. */
static bool compose(const struct physmap *map, struct view *view)
{
    uint64_t edges[MAX_EDGES];
    unsigned count = 0;
    const struct placed *last = NULL;
    for (unsigned i = 0; i < map->placed_count; i++) {
        const struct physmap_range *range = &map->placed[i].range;
        edges[count++] = range->gpa;
        edges[count++] = range->gpa + range->size_bytes;
    }
    qsort(edges, count, sizeof(edges[0]), by_value);
    view->count = 0;
    for (unsigned i = 0; i + 1 < count; i++) {
        const struct placed *top = edges[i] == edges[i + 1] ? NULL : top_at(map, edges[i]);
        if (top && top->range.hva && !add_piece(view, top, edges[i], edges[i + 1], &last))
            return false;
    }
    return true;
}

/* Takes the view over when the listener takes it. With the lock held. */
static bool publish(struct physmap *map, struct error *err)
{
    struct view view;
    if (!compose(map, &view))
        return error_set(err, what, NULL, "there are too many pieces of it");
    if (map->listener.set && !map->listener.set(map->listener.opaque, view.range, view.count, err))
        return false;
    map->view = view;
    return true;
}

struct physmap *physmap_create(const struct ram *ram)
{
    struct physmap *map = calloc(1, sizeof(*map));
    if (!map)
        return NULL;
    pthread_mutex_init(&map->lock, NULL);
    for (unsigned i = 0; i < ram_region_count(ram); i++) {
        const struct ram_region *region = ram_region(ram, i);
        map->placed[map->placed_count++] = (struct placed){
            PHYSMAP_RAM,
            {.gpa = region->gpa, .size_bytes = region->size_bytes, .hva = region->hva}};
    }
    publish(map, NULL);
    return map;
}

void physmap_destroy(struct physmap *map)
{
    if (!map)
        return;
    pthread_mutex_destroy(&map->lock);
    free(map);
}

bool physmap_set_listener(struct physmap *map, const struct physmap_listener *listener,
                          struct error *err)
{
    pthread_mutex_lock(&map->lock);
    map->listener = listener ? *listener : (struct physmap_listener){0};
    bool ok = publish(map, err);
    pthread_mutex_unlock(&map->lock);
    return ok;
}

static bool is_whole(const struct physmap_range *range)
{
    uint64_t low = range->gpa | range->size_bytes | (uintptr_t)range->hva;
    return low % RAM_PAGE_BYTES == 0 && range->size_bytes &&
           range->gpa <= UINT64_MAX - range->size_bytes;
}

/* Where the range is to go: a new place, or that of the one it replaces. */
static struct placed *find_place(struct physmap *map, enum physmap_layer layer,
                                 const struct physmap_range *range, struct error *err)
{
    for (unsigned i = 0; i < map->placed_count; i++) {
        struct placed *other = &map->placed[i];
        if (other->layer != layer || range->gpa + range->size_bytes <= other->range.gpa ||
            other->range.gpa + other->range.size_bytes <= range->gpa)
            continue;
        if (other->range.gpa == range->gpa && other->range.size_bytes == range->size_bytes)
            return other;
        error_set(err, what, NULL, "0x%" PRIx64 " meets other memory at 0x%" PRIx64, range->gpa,
                  other->range.gpa);
        return NULL;
    }
    if (map->placed_count < MAX_PLACED)
        return &map->placed[map->placed_count];
    error_set(err, what, NULL, "there are too many ranges of it");
    return NULL;
}

static bool is_same(const struct physmap_range *a, const struct physmap_range *b)
{
    return a->gpa == b->gpa && a->size_bytes == b->size_bytes && a->hva == b->hva &&
           a->read_only == b->read_only && a->is_logged == b->is_logged;
}

static bool map_locked(struct physmap *map, enum physmap_layer layer,
                       const struct physmap_range *range, struct error *err)
{
    struct placed *place = find_place(map, layer, range, err);
    if (!place)
        return false;
    bool is_new = place == &map->placed[map->placed_count];
    if (!is_new && is_same(&place->range, range))
        return true;
    struct placed before = *place;
    *place = (struct placed){layer, *range};
    map->placed_count += is_new;
    if (publish(map, err))
        return true;
    *place = before;
    map->placed_count -= is_new;
    return false;
}

bool physmap_map(struct physmap *map, enum physmap_layer layer, const struct physmap_range *range,
                 struct error *err)
{
    if (!is_whole(range))
        return error_set(err, what, NULL,
                         "0x%" PRIx64 " bytes at 0x%" PRIx64 " are not whole pages",
                         range->size_bytes, range->gpa);
    pthread_mutex_lock(&map->lock);
    bool ok = map_locked(map, layer, range, err);
    pthread_mutex_unlock(&map->lock);
    return ok;
}

/* An engine that has no room for what is left goes on with what it has: it was there before. */
void physmap_unmap(struct physmap *map, enum physmap_layer layer, uint64_t gpa)
{
    pthread_mutex_lock(&map->lock);
    for (unsigned i = 0; i < map->placed_count; i++) {
        if (map->placed[i].layer != layer || map->placed[i].range.gpa != gpa)
            continue;
        map->placed[i] = map->placed[--map->placed_count];
        publish(map, NULL);
        break;
    }
    pthread_mutex_unlock(&map->lock);
}

static bool find_locked(const struct physmap *map, uint64_t gpa, struct physmap_range *range)
{
    for (unsigned i = 0; i < map->view.count; i++) {
        if (!holds(&map->view.range[i], gpa))
            continue;
        *range = map->view.range[i];
        return true;
    }
    return false;
}

bool physmap_find(struct physmap *map, uint64_t gpa, struct physmap_range *range)
{
    pthread_mutex_lock(&map->lock);
    bool found = find_locked(map, gpa, range);
    pthread_mutex_unlock(&map->lock);
    return found;
}

static bool read_locked(const struct physmap *map, uint64_t gpa, uint8_t *to, uint64_t size_bytes)
{
    while (size_bytes > 0) {
        struct physmap_range range;
        if (!find_locked(map, gpa, &range))
            return false;
        uint64_t offset = gpa - range.gpa;
        uint64_t here = range.size_bytes - offset;
        if (here > size_bytes)
            here = size_bytes;
        if (to) {
            memcpy(to, range.hva + offset, here);
            to += here;
        }
        gpa += here;
        size_bytes -= here;
    }
    return true;
}

bool physmap_read(struct physmap *map, uint64_t gpa, void *buffer, uint64_t size_bytes)
{
    pthread_mutex_lock(&map->lock);
    bool ok = read_locked(map, gpa, NULL, size_bytes) && read_locked(map, gpa, buffer, size_bytes);
    pthread_mutex_unlock(&map->lock);
    return ok;
}

void physmap_take_written(struct physmap *map, const uint8_t *hva, uint64_t size_bytes,
                          uint64_t *pages)
{
    uint64_t count = size_bytes / RAM_PAGE_BYTES;
    memset(pages, 0, (count + 63) / 64 * sizeof(*pages));
    pthread_mutex_lock(&map->lock);
    struct physmap_listener listener = map->listener;
    pthread_mutex_unlock(&map->lock);
    if (listener.take_written)
        listener.take_written(listener.opaque, hva, size_bytes, pages);
}
