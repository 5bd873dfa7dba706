/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest memory in KVM's slots (Linux' Documentation/virt/kvm/api.rst, 4.35 and 4.8). Only slots
 * that differ are changed, but while one is a vCPU that runs finds nothing in its place: whoever
 * changes memory that others use stops them.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static bool is_same(const struct physmap_range *a, const struct physmap_range *b)
{
    return a->gpa == b->gpa && a->size_bytes == b->size_bytes && a->hva == b->hva &&
           a->read_only == b->read_only && a->is_logged == b->is_logged;
}

static bool write_slot(struct engine_vm *vm, unsigned number, const struct physmap_range *range,
                       struct error *err)
{
    struct kvm_userspace_memory_region region = {
        .slot = number,
        .flags = (range->read_only ? KVM_MEM_READONLY : 0U) |
                 (range->is_logged ? KVM_MEM_LOG_DIRTY_PAGES : 0U),
        .guest_phys_addr = range->gpa,
        .memory_size = range->size_bytes, /* 0: the slot becomes free */
        .userspace_addr = (uintptr_t)range->hva,
    };
    if (kvm_ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return error_errno(err, "cannot map guest memory", "KVM_SET_USER_MEMORY_REGION", errno);
    vm->slots[number] = (struct kvm_slot){*range, true};
    return true;
}

static bool is_among(const struct physmap_range *range, const struct physmap_range *ranges,
                     unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (is_same(range, &ranges[i]))
            return true;
    return false;
}

static bool add(struct engine_vm *vm, const struct physmap_range *range, struct error *err)
{
    unsigned free_slot = KVM_SLOTS;
    for (unsigned i = 0; i < KVM_SLOTS; i++) {
        if (is_same(&vm->slots[i].range, range))
            return true;
        if (!vm->slots[i].range.size_bytes && free_slot == KVM_SLOTS)
            free_slot = i;
    }
    if (free_slot == KVM_SLOTS)
        return error_set(err, "cannot map guest memory", NULL, "more than %d ranges", KVM_SLOTS);
    return write_slot(vm, free_slot, range, err);
}

static bool set(struct engine_vm *vm, const struct physmap_range *ranges, unsigned count,
                struct error *err)
{
    const struct physmap_range none = {0};
    for (unsigned i = 0; i < KVM_SLOTS; i++) {
        const struct physmap_range *range = &vm->slots[i].range;
        if (range->size_bytes && !is_among(range, ranges, count) && !write_slot(vm, i, &none, err))
            return false;
    }
    for (unsigned i = 0; i < count; i++)
        if (!add(vm, &ranges[i], err))
            return false;
    return true;
}

bool kvm_set_memory(struct engine_vm *vm, const struct physmap_range *ranges, unsigned count,
                    struct error *err)
{
    pthread_mutex_lock(&vm->slot_lock);
    bool ok = set(vm, ranges, count, err);
    pthread_mutex_unlock(&vm->slot_lock);
    return ok;
}

/* Sets bits of `pages`, whose bit 0 is the host's page `hva`, for those of the slot that are in
 * [hva, hva + size). A slot that is new may have lost what was logged before: all of it. */
static void take_slot(struct engine_vm *vm, unsigned number, const uint8_t *hva,
                      uint64_t size_bytes, uint64_t *pages)
{
    struct kvm_slot *slot = &vm->slots[number];
    uint64_t count = slot->range.size_bytes / RAM_PAGE_BYTES;
    uint64_t *bitmap = calloc((count + 63) / 64, sizeof(*bitmap));
    struct kvm_dirty_log log = {.slot = number, .dirty_bitmap = bitmap};
    bool is_all = !bitmap || kvm_ioctl(vm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0 || slot->is_new;
    slot->is_new = false;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = (uintptr_t)slot->range.hva + i * RAM_PAGE_BYTES - (uintptr_t)hva;
        uint64_t page = offset / RAM_PAGE_BYTES;
        if (offset < size_bytes && (is_all || bitmap[i / 64] >> i % 64 & 1))
            pages[page / 64] |= UINT64_C(1) << page % 64;
    }
    free(bitmap);
}

void kvm_take_written(struct engine_vm *vm, const uint8_t *hva, uint64_t size_bytes,
                      uint64_t *pages)
{
    pthread_mutex_lock(&vm->slot_lock);
    for (unsigned i = 0; i < KVM_SLOTS; i++)
        if (vm->slots[i].range.is_logged)
            take_slot(vm, i, hva, size_bytes, pages);
    pthread_mutex_unlock(&vm->slot_lock);
}
