/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the file of a saved machine. The input's first byte says how it is taken: as a file;
 * as one whose header's checksum was made right; as a description; as a processor's state; as that
 * of an interrupt controller or the 8254, which then may go to KVM. Whatever it is, it is refused
 * or read within its bounds.
 */
#include "base/crc32c.h"
#include "cpu/kvm/kvm.h"
#include "dev/i8254.h"
#include "dev/i8259.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "machine/bytes.h"
#include "machine/description.h"
#include "machine/saved_file.h"
#include "machine/state_stream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAGE = 4096, MEMORY_MAX_BYTES = 16 << 20 };

static void check_file(int fd)
{
    char path[64];
    struct saved_file file;
    struct error err = {0};
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (!saved_file_open(&file, path, &err)) {
        assert(err.kind != ERROR_NONE && err.cause[0]);
        return;
    }
    if (file.memory_bytes <= MEMORY_MAX_BYTES) {
        void *memory = mmap(NULL, file.memory_bytes, PROT_READ, MAP_PRIVATE, file.fd,
                            (off_t)file.memory_offset);
        assert(memory != MAP_FAILED);
        (void)saved_file_check_memory(&file, memory, &err);
        munmap(memory, file.memory_bytes);
    }
    saved_file_close(&file);
}

static void as_file(const uint8_t *data, size_t size, bool has_right_sum)
{
    uint8_t header[PAGE] = {0};
    int fd = memfd_create("saved", MFD_CLOEXEC);
    assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    if (has_right_sum) {
        static const uint8_t magic[8] = {'s', 'k', 'e', 'p', 'v', 'm', 0x1a, '\n'};
        memcpy(header, data, size < PAGE ? size : PAGE);
        memcpy(header, magic, sizeof(magic));
        le32_put(header + 8, 1);
        le32_put(header + PAGE - 4, crc32c(header, PAGE - 4));
        assert(pwrite(fd, header, PAGE, 0) == PAGE);
    }
    check_file(fd);
    close(fd);
}

static void as_description(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct description *description = description_parse((const char *)data, size, &err);
    if (!description) {
        assert(err.kind != ERROR_NONE);
        return;
    }
    char *text = description_text(description_config(description));
    if (text)
        description_free(description_parse(text, strlen(text), &err));
    free(text);
    description_free(description);
}

static void as_state(const uint8_t *data, size_t size)
{
    struct load load;
    struct x86_state state;
    load_init(&load, data, size);
    if (state_load(&state, &load))
        assert(state.run_state <= X86_WAIT_FOR_SIPI && load.offset <= size);
}

enum { TICKS_MAX = 0x10000 };

static void check_pit(struct i8254_state *state, uint64_t now_ns)
{
    struct kvm_pit_state2 pit;
    i8254_state_settle(state, now_ns);
    kvm_pit_to(state, now_ns, &pit);
    for (unsigned i = 0; i < IRQCHIP_PIT_COUNTERS; i++)
        assert(pit.channels[i].count > 0 && pit.channels[i].count <= TICKS_MAX);
    const struct engine_vm vm = {.time_is_stopped = true, .stopped_monotonic_ns = now_ns};
    kvm_pit_from(&vm, &pit, now_ns, state);
    struct save save = {0};
    struct load load;
    uint32_t version;
    save_begin(&save, "pit", 1);
    i8254_state_save(state, &save);
    save_end(&save);
    load_init(&load, save.bytes, save.size_bytes);
    assert(load_begin(&load, "pit", &version) && i8254_state_load(state, &load) && load_end(&load));
    save_free(&save);
}

static void check_pic(const struct i8259_state *state)
{
    (void)i8259_state_intr(state);
    (void)i8259_state_cascade(state);
    for (unsigned i = 0; i < 2; i++)
        assert(state->chips[i].lowest < 8 && !(state->chips[i].vector_base & 7));
}

/* The input is one section: a byte that says whose, eight of the time, its contents. */
static void as_irqchip(const uint8_t *data, size_t size)
{
    static struct irqchip_state state;
    struct save save = {0};
    struct load load;
    uint32_t version;
    uint64_t now_ns;
    if (size < 9)
        return;
    memcpy(&now_ns, data + 1, sizeof(now_ns));
    save_begin(&save, "irqchip", 1);
    save_bytes(&save, data + 9, size - 9);
    save_end(&save);
    load_init(&load, save.bytes, save.size_bytes);
    assert(load_begin(&load, "irqchip", &version));
    unsigned cpus = 1 + data[0] / 4;
    switch (data[0] % 4) {
    case 0:
        if (lapic_state_load(state.lapic, cpus, &load))
            assert(state.lapic[0].base & 1 << 8);
        break;
    case 1:
        if (ioapic_state_load(&state.ioapic, &load))
            assert(!(state.ioapic.pins >> IOAPIC_PINS));
        break;
    case 2:
        if (i8259_state_load(&state.i8259, &load))
            check_pic(&state.i8259);
        break;
    case 3:
        if (i8254_state_load(&state.i8254, &load))
            check_pit(&state.i8254, now_ns);
        break;
    }
    save_free(&save);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    switch (data[0] % 5) {
    case 0: as_file(data + 1, size - 1, false); break;
    case 1: as_file(data + 1, size - 1, true); break;
    case 2: as_description(data + 1, size - 1); break;
    case 3: as_state(data + 1, size - 1); break;
    case 4: as_irqchip(data + 1, size - 1); break;
    }
    return 0;
}
