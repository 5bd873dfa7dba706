// SPDX-License-Identifier: BSD-2-Clause
// Of tests/boot/compile.py: sorts in three ways, which must agree, and prints a hash of the order.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 200000 };

struct record {
    uint64_t key;
    uint32_t number;
    char name[12];
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

// A total order, so that every right way to sort has one result.
static int compare(const void *left, const void *right)
{
    const struct record *a = left, *b = right;
    int names = strcmp(a->name, b->name);
    if (names)
        return names;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return (a->number > b->number) - (a->number < b->number);
}

static void sift(struct record *heap, size_t root, size_t count)
{
    struct record moved = heap[root];
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && compare(&heap[child], &heap[child + 1]) < 0)
            child++;
        if (compare(&moved, &heap[child]) >= 0)
            break;
        heap[root] = heap[child];
    }
    heap[root] = moved;
}

static void heap_sort(struct record *records, size_t count)
{
    for (size_t i = count / 2; i-- > 0;)
        sift(records, i, count);
    for (size_t end = count; end-- > 1;) {
        struct record last = records[end];
        records[end] = records[0];
        records[0] = last;
        sift(records, 0, end);
    }
}

static void merge_sort(struct record *records, struct record *spare, size_t count)
{
    if (count < 2)
        return;
    size_t half = count / 2, left = 0, right = half, out = 0;
    merge_sort(records, spare, half);
    merge_sort(records + half, spare, count - half);
    while (left < half || right < count) {
        int takes_left =
            right == count || (left < half && compare(&records[left], &records[right]) <= 0);
        spare[out++] = records[takes_left ? left++ : right++];
    }
    memcpy(records, spare, count * sizeof(*records));
}

int main(void)
{
    struct record *first = calloc(4 * (size_t)COUNT, sizeof(*first));
    if (!first)
        return 1;
    struct record *second = first + COUNT, *third = second + COUNT, *spare = third + COUNT;
    uint64_t state = 0x9e3779b97f4a7c15, hash = 0xcbf29ce484222325;
    for (uint32_t i = 0; i < COUNT; i++) {
        first[i].key = next_random(&state) % 1000;
        first[i].number = i;
        snprintf(first[i].name, sizeof(first[i].name), "n%llu",
                 (unsigned long long)(next_random(&state) % 5000));
    }
    memcpy(second, first, COUNT * sizeof(*first));
    memcpy(third, first, COUNT * sizeof(*first));
    qsort(first, COUNT, sizeof(*first), compare);
    heap_sort(second, COUNT);
    merge_sort(third, spare, COUNT);
    int agree = !memcmp(first, second, COUNT * sizeof(*first)) &&
                !memcmp(first, third, COUNT * sizeof(*first));
    for (size_t i = 0; i < COUNT; i++)
        hash = (hash ^ first[i].number) * 0x100000001b3;
    printf("sort %016llx %s\n", (unsigned long long)hash, agree ? "agree" : "differ");
    free(first);
    return !agree;
}
