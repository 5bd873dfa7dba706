/* SPDX-License-Identifier: BSD-2-Clause
 * skep run: the options of processors and memory. */
#include "cli/request.h"

#include <string.h>

bool store_engine(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.engine = value;
    return true;
}

static bool cpus_option(struct engine_topology *topology, const char *piece, struct error *err)
{
    const struct {
        const char *name;
        unsigned *value;
    } known[] = {{"sockets=", &topology->sockets},
                 {"cores=", &topology->cores},
                 {"threads=", &topology->threads}};
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        size_t length = strlen(known[i].name);
        unsigned long count;
        if (strncmp(piece, known[i].name, length) != 0)
            continue;
        if (!parse_number(piece + length, known[i].name, 1, MACHINE_MAX_VCPUS, &count, err))
            return false;
        *known[i].value = (unsigned)count;
        return true;
    }
    error_usage(err, "option of processors", piece, "it is not known");
    return error_hint(err, "known are sockets=N, cores=N and threads=N");
}

/* What is left out of the topology follows from the rest: first the cores, then the sockets. */
static void complete_topology(struct engine_topology *topology, unsigned count)
{
    if (!topology->threads)
        topology->threads = 1;
    if (!topology->cores && !topology->sockets)
        topology->sockets = 1;
    if (!topology->cores)
        topology->cores = count / (topology->sockets * topology->threads);
    if (!topology->sockets && topology->cores)
        topology->sockets = count / (topology->cores * topology->threads);
}

bool store_cpus(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    struct engine_topology topology = {0};
    unsigned long count;
    if (request->has_cpus) {
        error_usage(err, "number of processors", value, "it was given already");
        return error_hint(err, "leave one -c out");
    }
    request->has_cpus = true;
    char *rest = request_copy(request, value);
    if (!parse_number(next_piece(&rest), "number of processors", 1, MACHINE_MAX_VCPUS, &count, err))
        return false;
    while (rest)
        if (!cpus_option(&topology, next_piece(&rest), err))
            return false;
    complete_topology(&topology, (unsigned)count);
    request->vm.machine.vcpu_count = (unsigned)count;
    request->vm.machine.topology = topology;
    if ((unsigned long)topology.sockets * topology.cores * topology.threads == count)
        return true;
    error_usage(err, "processors", value, "sockets, cores and threads do not make %lu of them",
                count);
    return error_hint(err, "as -c 8,sockets=1,cores=4,threads=2");
}

/* VCPU:HOSTCPU, each vCPU once. */
bool store_pin(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    if (request->pin_count == MACHINE_MAX_VCPUS)
        return request_too_many("pinned processors", MACHINE_MAX_VCPUS, err);
    unsigned long from, to;
    request->pin_count++;
    if (!parse_pin(request_copy(request, value), &from, &to, err))
        return false;
    if (machine->pins[from]) {
        error_usage(err, "pin", value, "this processor is pinned already");
        return error_hint(err, "each processor takes one of the host");
    }
    machine->pins[from] = (uint16_t)(to + 1);
    return true;
}

bool store_memory(void *target, const char *value, struct error *err)
{
    unsigned long long bytes;
    if (!parse_size(value, 1 << 20, &bytes, err))
        return false;
    if (bytes < MACHINE_MIN_MEMORY_BYTES) {
        error_usage(err, "memory", value, "a machine needs at least %d MiB",
                    MACHINE_MIN_MEMORY_BYTES >> 20);
        return error_hint(err, "write a unit: -m 512M; a bare number counts MiB");
    }
    ((struct request *)target)->vm.machine.memory_bytes = bytes & ~4095ULL;
    return true;
}

bool store_cpu(void *target, const char *value, struct error *err)
{
    struct machine_config *machine = &((struct request *)target)->vm.machine;
    if (machine_cpu_find(value, &machine->cpu_level))
        return true;
    error_usage(err, "cannot take the processor", value, "there is no such level");
    return error_hint(err, "it is host (the default), x86-64-v3 or x86-64");
}
