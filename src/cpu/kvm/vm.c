/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A virtual machine of KVM: its life, and the table of the engine. Runs on the
 * machine's thread.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int kvm_ioctl(int fd, unsigned long request, void *argument)
{
    int result;
    do
        result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    return result;
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long argument)
{
    int result;
    do
        result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    return result;
}

static bool map_all_ram(struct engine_vm *vm, struct error *err)
{
    struct physmap_range ranges[PHYSMAP_MAX_RANGES];
    unsigned count = ram_region_count(vm->ram);
    for (unsigned i = 0; i < count; i++) {
        const struct ram_region *region = ram_region(vm->ram, i);
        ranges[i] = (struct physmap_range){
            .gpa = region->gpa, .size_bytes = region->size_bytes, .hva = region->hva};
    }
    return kvm_set_memory(vm, ranges, count, err);
}

static bool create(struct engine_vm *vm, struct error *err)
{
    static const char what[] = "cannot make a virtual machine";
    vm->vm_fd = kvm_ioctl_value(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (vm->vm_fd < 0)
        return error_errno(err, what, "KVM_CREATE_VM", errno);
    int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return error_errno(err, what, "KVM_GET_VCPU_MMAP_SIZE", errno);
    vm->run_size_bytes = (size_t)size;
    vm->has_sregs2 = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0;
    int most = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (most > 0 && vm->vcpu_count > (unsigned)most)
        return error_set(err, what, NULL, "%u processors asked for, KVM has at most %d",
                         vm->vcpu_count, most);
    uint64_t identity_map = KVM_IDENTITY_MAP_GPA;
    if (kvm_ioctl(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return error_errno(err, what, "KVM_SET_IDENTITY_MAP_ADDR", errno);
    if (kvm_ioctl_value(vm->vm_fd, KVM_SET_TSS_ADDR, KVM_TSS_GPA) < 0)
        return error_errno(err, what, "KVM_SET_TSS_ADDR", errno);
    return true;
}

static void vm_close(struct engine_vm *vm)
{
    kvm_doorbells_close(vm->doorbells);
    if (vm->vm_fd >= 0)
        close(vm->vm_fd);
    if (vm->kvm_fd >= 0)
        close(vm->kvm_fd);
    pthread_mutex_destroy(&vm->slot_lock);
    free(vm);
}

/* Doorbells are only a shortcut: where the host lacks them, writes exit and reach the bus. */
static bool open_doorbells(struct engine_vm *vm, struct error *err)
{
    if (ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD) <= 0 ||
        ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH) <= 0)
        return true;
    vm->doorbells = kvm_doorbells_open(vm, err);
    return vm->doorbells;
}

static struct engine_vm *vm_open(const struct engine_config *config, struct error *err)
{
    if (config->options && config->options[0]) {
        error_usage(err, "unknown option of the engine kvm", config->options, "it has none");
        return NULL;
    }
    struct engine_vm *vm = calloc(1, sizeof(*vm));
    if (!vm) {
        error_errno(err, "cannot make a virtual machine", NULL, ENOMEM);
        return NULL;
    }
    vm->vm_fd = -1;
    pthread_mutex_init(&vm->slot_lock, NULL);
    vm->bus = config->bus;
    vm->log = config->log;
    vm->ram = config->ram;
    vm->vcpu_count = config->vcpu_count;
    vm->wanted_tsc_hz = config->tsc_hz;
    vm->cpu_level = config->cpu_level;
    vm->topology = config->topology;
    vm->kvm_fd = kvm_open(err);
    if (vm->kvm_fd < 0 || !kvm_install_signal(err) || !create(vm, err) ||
        !kvm_irqchip_create(vm, err) || !map_all_ram(vm, err) || !open_doorbells(vm, err)) {
        vm_close(vm);
        return NULL;
    }
    return vm;
}

static void stats(struct engine_vm *vm, struct engine_stats *stats)
{
    memset(stats, 0, sizeof(*stats));
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        if (!vm->vcpus[i])
            continue;
        stats->pio += atomic_load(&vm->vcpus[i]->pio);
        stats->mmio += atomic_load(&vm->vcpus[i]->mmio);
    }
}

/* A halted vCPU waits inside KVM_RUN, so run() never gives it back. */
static bool has_work(struct engine_vcpu *vcpu)
{
    return true;
}

const struct engine engine_kvm = {
    .name = "kvm",
    .irqchip = &kvm_engine_irqchip,
    .probe = kvm_probe,
    .vm_open = vm_open,
    .vm_close = vm_close,
    .set_memory = kvm_set_memory,
    .take_written = kvm_take_written,
    .vcpu_open = kvm_vcpu_open,
    .vcpu_close = kvm_vcpu_close,
    .run = kvm_run_vcpu,
    .kick = kvm_kick,
    .inject = kvm_inject,
    .has_work = has_work,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .set_debug = kvm_set_debug,
    .breaks_at_int3 = true,
    .tsc_hz = kvm_tsc_hz,
    .physical_bits = kvm_physical_bits,
    .stop_time = kvm_stop_time,
    .start_time = kvm_start_time,
    .cpuid = kvm_cpuid,
    .stats = stats,
    .paravirtual_ns = kvm_paravirtual_ns,
    .set_paravirtual_ns = kvm_set_paravirtual_ns,
};
