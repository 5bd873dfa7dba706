/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Whether this host's KVM can carry a machine (kernel: Documentation/virt/kvm/api.rst, section 4).
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char device[] = "/dev/kvm";

struct need {
    int capability;
    int least;
    const char *name;
};

static const struct need needs[] = {
    {KVM_CAP_USER_MEMORY, 1, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1, "KVM_CAP_DESTROY_MEMORY_REGION_WORKS"},
    {KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1, "KVM_CAP_JOIN_MEMORY_REGIONS_WORKS"},
    {KVM_CAP_NR_MEMSLOTS, 8, "KVM_CAP_NR_MEMSLOTS (8)"},
    {KVM_CAP_READONLY_MEM, 1, "KVM_CAP_READONLY_MEM"},
    {KVM_CAP_SET_TSS_ADDR, 1, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, 1, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
    {KVM_CAP_EXT_CPUID, 1, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_IRQCHIP, 1, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_IRQ_ROUTING, 1, "KVM_CAP_IRQ_ROUTING"},
    {KVM_CAP_SIGNAL_MSI, 1, "KVM_CAP_SIGNAL_MSI"},
    {KVM_CAP_PIT2, 1, "KVM_CAP_PIT2"},
    {KVM_CAP_PIT_STATE2, 1, "KVM_CAP_PIT_STATE2"},
    {KVM_CAP_ADJUST_CLOCK, 1, "KVM_CAP_ADJUST_CLOCK"},
    {KVM_CAP_MP_STATE, 1, "KVM_CAP_MP_STATE"},
    {KVM_CAP_VCPU_EVENTS, 1, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_XSAVE, 1, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, 1, "KVM_CAP_XCRS"},
    {KVM_CAP_DEBUGREGS, 1, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_IMMEDIATE_EXIT, 1, "KVM_CAP_IMMEDIATE_EXIT"},
};

static const char what[] = "cannot use KVM";

static void hint_for(struct error *err, int errno_value)
{
    if (errno_value == EACCES || errno_value == EPERM)
        error_hint(err, "add yourself to the group kvm: sudo usermod -aG kvm \"$USER\", then log "
                        "in again; or use --engine soft");
    else if (errno_value == ENOENT || errno_value == ENODEV || errno_value == ENXIO)
        error_hint(err, "load the module (modprobe kvm_intel or kvm_amd); inside a virtual machine "
                        "its host must offer nested virtualization; or use --engine soft");
    else
        error_hint(err, "use --engine soft");
}

static bool check_needs(int fd, struct error *err)
{
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return error_set(err, what, device, "its API has version %d instead of %d", version,
                         KVM_API_VERSION);
    char missing[200] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
        if (ioctl(fd, KVM_CHECK_EXTENSION, needs[i].capability) < needs[i].least &&
            used < sizeof(missing))
            used += (size_t)snprintf(missing + used, sizeof(missing) - used, "%s%s",
                                     used ? ", " : "", needs[i].name);
    if (!used)
        return true;
    error_set(err, what, device, "the kernel lacks %s", missing);
    return error_hint(err, "a newer kernel may have it; or use --engine soft");
}

int kvm_open(struct error *err)
{
    int fd = open(device, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        int errno_value = errno;
        error_errno(err, "cannot open", device, errno_value);
        hint_for(err, errno_value);
        return -1;
    }
    if (!check_needs(fd, err)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* "vmx" or "svm" among the flags of the host's processor, else "". */
static const char *hardware(void)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    const char *found = "";
    char *line = NULL;
    size_t capacity = 0;
    while (file && getline(&line, &capacity, file) > 0) {
        if (strncmp(line, "flags", 5))
            continue;
        char *rest = NULL;
        for (char *word = strtok_r(line, " \t\n", &rest); word;
             word = strtok_r(NULL, " \t\n", &rest)) {
            if (!strcmp(word, "vmx"))
                found = "vmx";
            else if (!strcmp(word, "svm"))
                found = "svm";
        }
        break; /* all processors have the same */
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

void kvm_probe(struct engine_probe *probe)
{
    memset(probe, 0, sizeof(*probe));
    const char *flag = hardware();
    int fd = kvm_open(&probe->error);
    probe->available = fd >= 0;
    probe->backed_by_hardware = probe->available && flag[0];
    if (!probe->available)
        snprintf(probe->detail, sizeof(probe->detail), "%s: %.100s", device, probe->error.cause);
    else if (flag[0])
        snprintf(probe->detail, sizeof(probe->detail), "%s, on the processor's %s", device, flag);
    else
        snprintf(probe->detail, sizeof(probe->detail),
                 "%s opens, but the processor shows neither vmx nor svm: this kernel imitates "
                 "guest kernels itself; only taken when asked for",
                 device);
    if (fd >= 0)
        close(fd);
}
