/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the Intel network cards, driven as a hostile guest would: registers, rings and
 * descriptors from the input, frames from the network. Two cards, an 82545EM and an 82574L, are
 * made once and reset for each input, whose first byte chooses one.
 */
#include "fuzz/device.h"

#include "base/loop.h"
#include "dev/net/e1000.h"

enum {
    SLOT = 1,
    USED_RAM_BYTES = 64 << 10,
    TX_AT = 0x1000,
    RX_AT = 0x2000,
    DATA_AT = 0x4000,
    OPERATIONS_MAX = 200,
    TX = 0x3800,
    RX = 0x2800,
};

struct card {
    struct e1000 *e1000;
    const struct device_ops *ops;
    struct net_receiver receiver;
};

static struct machine {
    struct ram *ram;
    struct bus *bus;
    struct pci_bus *pci;
    struct loop *loop;
    struct clock *clock;
    struct card cards[2];
    unsigned chosen, tail;
} machine;

/* Reads all of a frame, so that the sanitizers see what is sent. */
static void backend_send(void *opaque, const struct iovec *iov, unsigned iov_count,
                         const struct net_offload *offload)
{
    uint8_t all = 0;
    size_t size = 0;
    for (unsigned i = 0; i < iov_count; i++) {
        for (size_t j = 0; j < iov[i].iov_len; j++)
            all ^= ((const uint8_t *)iov[i].iov_base)[j];
        size += iov[i].iov_len;
    }
    __asm__ volatile("" : : "r"(all)); /* it is used */
    require(size >= 14 && size <= NET_FRAME_MAX_BYTES + 4, "a frame's size");
}

static void backend_set_receiver(void *opaque, const struct net_receiver *receiver)
{
    ((struct card *)opaque)->receiver = *receiver;
}

static void make_card(struct card *card, enum e1000_model model, unsigned slot)
{
    const struct e1000_config config = {
        .model = model,
        .pci = machine.pci,
        .slot = slot,
        .msi = {fuzz_message, NULL},
        .ram = machine.ram,
        .clock = machine.clock,
        .loop = machine.loop,
        .backend = {.send = backend_send, .set_receiver = backend_set_receiver, .opaque = card},
        .mac = {0x52, 0x54, 0, 1, 2, 3}};
    card->ops = e1000_ops_of(model);
    card->e1000 = e1000_create(&config, NULL);
    require(card->e1000, "a card is made");
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(FUZZ_RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    machine.loop = loop_create(NULL);
    machine.clock = clock_create(NULL);
    require(machine.ram && machine.bus && machine.loop && machine.clock, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    machine.pci = pci_bus_create(&(struct pci_bus_config){.bus = machine.bus}, NULL);
    make_card(&machine.cards[0], E1000_82545EM, SLOT);
    make_card(&machine.cards[1], E1000_82574L, SLOT + 1);
    return 0;
}

static unsigned devfn(void)
{
    return (SLOT + machine.chosen) << 3;
}

static uint64_t bar(void)
{
    return pci_bus_read(machine.pci, devfn(), PCI_BAR0, 4) & ~UINT32_C(15);
}

static void mmio(uint64_t offset, uint64_t value, unsigned size_bytes)
{
    bus_write(machine.bus, BUS_MMIO, bar() + offset, value, size_bytes);
}

/* A turn as the loop's thread takes it. */
static void turn(void)
{
    for (unsigned i = 0; i < 3; i++)
        loop_run_once(machine.loop, 0);
}

static void enable(void)
{
    machine.tail = 0;
    for (unsigned queue = 0; queue < 2; queue++) {
        mmio(TX + 0x100 * queue, TX_AT + 0x800 * queue, 4);
        mmio(TX + 0x100 * queue + 8, 0x200, 4);
        mmio(RX + 0x100 * queue, RX_AT + 0x800 * queue, 4);
        mmio(RX + 0x100 * queue + 8, 0x200, 4);
        mmio(RX + 0x100 * queue + 0x18, 31, 4);
    }
    for (unsigned i = 0; i < 256; i++) {
        uint64_t gpa = DATA_AT + i * 64;
        ram_write(machine.ram, RX_AT + 16 * i, &gpa, 8);
    }
    mmio(0x400, 2, 4);
    mmio(0x100, 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 15, 4);
}

/* A descriptor that is nearly right: legacy, context or data. */
static void put_descriptor(struct input *in)
{
    uint32_t words[4];
    uint8_t shape = (uint8_t)take(in, 1);
    words[0] = DATA_AT + (uint32_t)take(in, 2) % 0x8000;
    words[1] = 0;
    words[2] = (uint32_t)take(in, 2) | (uint32_t)(shape & 0xdf) << 24;
    words[3] = (uint32_t)take(in, 4);
    if (shape & 0x20) { /* context */
        words[0] = (uint32_t)take(in, 4);
        words[1] = (uint32_t)take(in, 4);
        words[2] |= 1U << 29;
    } else if (shape & 0x10) {
        words[2] |= 1U << 29 | 1U << 20;
    }
    ram_write(machine.ram, TX_AT + 16 * machine.tail, words, sizeof(words));
    machine.tail = (machine.tail + 1) % 32;
}

static void receive(struct input *in)
{
    static uint8_t frame[20000];
    struct card *card = &machine.cards[machine.chosen];
    size_t size = 14 + take(in, 2) % (sizeof(frame) - 14);
    size_t given = take(in, 1);
    given = given < in->left ? given : in->left;
    if (given)
        memcpy(frame, in->at, given);
    in->at += given;
    in->left -= given;
    card->receiver.receive(card->receiver.opaque, &(struct iovec){frame, size}, 1,
                           &(struct net_offload){0});
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    unsigned size = 1U << (code >> 5 & 3);
    const struct card *card = &machine.cards[machine.chosen];
    switch (code & 15) {
    case 0:
    case 1:
    case 2: put_descriptor(in); break;
    case 3:
    case 4:
        mmio(TX + 0x18, machine.tail, 4);
        turn();
        break;
    case 5:
    case 6: receive(in); break;
    case 7: mmio(RX + (code & 0x80 ? 0x100 : 0) + 0x18, take(in, 1) & 31, 4); break;
    case 8: mmio(take(in, 2) & 0x7ffc, take(in, 4), 4); break;
    case 9: mmio(take(in, 3) & 0x1ffff, take(in, size), size); break;
    case 10: bus_read(machine.bus, BUS_MMIO, bar() + (take(in, 3) & 0x1ffff), size); break;
    case 11: fuzz_write_memory(in, machine.ram, USED_RAM_BYTES); break;
    case 12: fuzz_save_and_load(in, card->ops, card->e1000); break;
    case 13: {
        unsigned at = (unsigned)take(in, 1);
        pci_bus_write(machine.pci, devfn(), at, (uint32_t)take(in, 4), size < 4 ? size : 4);
        break;
    }
    case 14:
        mmio(TX + 0x118, take(in, 1) & 31, 4);
        turn();
        break;
    case 15: enable(); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[USED_RAM_BYTES];
    static const struct pci_windows windows = {.mmio32 = {0xc0000000, 0x200000},
                                               .mmio64 = {UINT64_C(0x800000000), 0x200000},
                                               .io = {0xc000, 0x1000}};
    struct input in = {data, size_bytes};
    for (unsigned i = 0; i < 2; i++)
        machine.cards[i].ops->reset(machine.cards[i].e1000);
    turn();
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    require(pci_assign_bars(machine.pci, &windows, NULL), "BARs are placed");
    machine.chosen = take(&in, 1) & 1;
    enable();
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
