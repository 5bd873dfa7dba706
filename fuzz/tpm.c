/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: both interfaces of a TPM, with registers and the back end's answers from the input.
 */
#include "fuzz/device.h"

#include "dev/tpm.h"

enum { OPERATIONS_MAX = 400, TIS_BASE = 0x10000, CRB_BASE = 0x20000 };

static struct backend {
    struct tpm_handler handler;
    bool is_busy;
} backends[2];

static struct machine {
    struct bus *bus;
    struct tpm_tis *tis;
    struct tpm_crb *crb;
} machine;

static void set_handler(void *opaque, const struct tpm_handler *handler)
{
    ((struct backend *)opaque)->handler = *handler;
}

static void submit(void *opaque, unsigned locality, const uint8_t *command, size_t size_bytes)
{
    struct backend *backend = opaque;
    volatile uint8_t sum = 0;
    require(!backend->is_busy, "one command at a time");
    require(locality < 4, "a usable locality");
    require(size_bytes >= TPM_HEADER_BYTES && size_bytes <= TPM_COMMAND_MAX_BYTES,
            "a whole command");
    for (size_t i = 0; i < size_bytes; i++)
        sum = (uint8_t)(sum + command[i]);
    backend->is_busy = true;
}

static void respond(struct backend *backend, struct input *in)
{
    static const uint16_t sizes[8] = {0, 9, 10, 20, 3968, 3969, 4096, 100};
    uint8_t answer[TPM_COMMAND_MAX_BYTES] = {0x80, 1};
    size_t size = sizes[in ? take(in, 1) & 7 : 0];
    if (!backend->is_busy)
        return;
    backend->is_busy = false;
    backend->handler.respond(backend->handler.opaque, answer, size);
}

static void drain(void *opaque) {}
static void reset(void *opaque) {}

static bool save_state(void *opaque, struct save *save)
{
    save_u32(save, 1);
    return true;
}

static bool load_state(void *opaque, struct load *load)
{
    return load_u32(load) == 1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.bus = bus_create(NULL);
    for (unsigned i = 0; i < 2; i++) {
        const struct tpm_backend backend = {.set_handler = set_handler,
                                            .submit = submit,
                                            .drain = drain,
                                            .reset = reset,
                                            .save = save_state,
                                            .load = load_state,
                                            .opaque = &backends[i]};
        const struct tpm_config config = {i ? CRB_BASE : TIS_BASE, &backend};
        if (i)
            machine.crb = tpm_crb_create(&config, machine.bus, NULL);
        else
            machine.tis = tpm_tis_create(&config, machine.bus, NULL);
    }
    require(machine.tis && machine.crb, "the devices are made");
    return 0;
}

static void out(uint64_t address, uint64_t value, unsigned size_bytes)
{
    bus_write(machine.bus, BUS_MMIO, address, value, size_bytes);
}

/* A command whose size is nearly right. */
static void send(struct input *in, bool is_crb)
{
    uint8_t shape = (uint8_t)take(in, 1);
    uint32_t size = shape & 0x80 ? (uint32_t)take(in, 4) : 10 + (shape & 15);
    uint64_t locality = is_crb ? 0 : (uint64_t)(shape >> 4 & 3) << 12;
    const uint8_t head[6] = {
        0x80, 1, (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
    out(is_crb ? CRB_BASE + 8 : TIS_BASE + locality, is_crb ? 1 : 2, 1);
    out(is_crb ? CRB_BASE + 0x40 : TIS_BASE + locality + 0x18, is_crb ? 1 : 0x40, 1);
    for (unsigned i = 0; i < 26; i++)
        out(is_crb ? CRB_BASE + 0x80 + i : TIS_BASE + locality + 0x24, i < 6 ? head[i] : i, 1);
    out(is_crb ? CRB_BASE + 0x4c : TIS_BASE + locality + 0x18, is_crb ? 1 : 0x20, 1);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    bool is_crb = code & 8;
    uint64_t base = is_crb ? CRB_BASE : TIS_BASE;
    unsigned size = 1U << (code >> 4 & 3);
    switch (code & 7) {
    case 0:
    case 1: send(in, is_crb); break;
    case 2:
    case 3: respond(&backends[is_crb], in); break;
    case 4: out(base + take(in, 2) % TPM_RANGE_BYTES, take(in, size), size); break;
    case 5: bus_read(machine.bus, BUS_MMIO, base + take(in, 2) % TPM_RANGE_BYTES, size); break;
    case 6: out(base + ((take(in, 1) & 3) << 12) + (code & 0x80 ? 0x18 : 0), take(in, 1), 1); break;
    case 7:
        respond(&backends[is_crb], NULL);
        if (is_crb)
            fuzz_save_and_load(in, &tpm_crb_ops, machine.crb);
        else
            fuzz_save_and_load(in, &tpm_tis_ops, machine.tis);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct input in = {data, size_bytes};
    for (unsigned i = 0; i < 2; i++)
        respond(&backends[i], NULL);
    tpm_tis_ops.reset(machine.tis);
    tpm_crb_ops.reset(machine.crb);
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
