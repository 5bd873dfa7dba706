/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The board without a processor: an engine made here opens vCPUs that never run, and the test does
 * on the bus what a guest would. Looks at what firmware leaves behind, PCI, interrupts from a
 * device to the processor, power and reset requests, and that a saved board, loaded into another,
 * saves to the same bytes.
 */
#include "machine/bytes.h"
#include "machine/q35.h"
#include "machine/q35_internal.h"

#include "dev/virtio/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB UINT64_C(0x100000)
enum { VCPUS = 2 };

struct engine_vcpu {
    unsigned index;
};

struct engine_vm {
    struct engine_vcpu vcpu[VCPUS];
    atomic_uint intr[VCPUS], nmi[VCPUS], init[VCPUS], sipi[VCPUS];
    atomic_uint gsi[24]; /* inputs of the irqchip, where the engine has it */
};

struct world {
    struct engine_vm vm;
    struct ram *ram;
    struct physmap *physmap;
    struct bus *bus;
    struct clock *clock;
    struct loop *loop;
    struct vcpus *vcpus;
    struct q35 *board;
    struct memory_map map;
    uint64_t rsdp_gpa;
    unsigned resets, power_offs, exits, sleeps, wakes;
    uint32_t exit_value;
};

static struct engine_vcpu *fake_open(struct engine_vm *vm, unsigned index, struct error *err)
{
    vm->vcpu[index].index = index;
    return &vm->vcpu[index];
}

static void fake_close(struct engine_vcpu *vcpu) {}
static void fake_kick(struct engine_vcpu *vcpu) {}
static struct world *current;

static void fake_inject(struct engine_vcpu *vcpu, enum engine_event event, unsigned value)
{
    struct engine_vm *vm = &current->vm;
    switch (event) {
    case ENGINE_INTR: atomic_store(&vm->intr[vcpu->index], value); break;
    case ENGINE_NMI: atomic_fetch_add(&vm->nmi[vcpu->index], 1); break;
    case ENGINE_INIT: atomic_fetch_add(&vm->init[vcpu->index], 1); break;
    case ENGINE_SIPI: atomic_store(&vm->sipi[vcpu->index], value); break;
    case ENGINE_SMI: break;
    }
}

static uint64_t fake_read_tsc(struct engine_vcpu *vcpu)
{
    return 0;
}
static uint64_t fake_tsc_hz(struct engine_vm *vm)
{
    return UINT64_C(1000000000);
}

static void fake_cpuid(struct engine_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
{
    for (unsigned i = 0; i < 4; i++)
        registers[i] = leaf << 8 | i;
}

static void set_gsi(void *opaque, unsigned gsi, bool level)
{
    struct engine_vm *vm = opaque;
    atomic_store(&vm->gsi[gsi], level);
}

static struct irq_line fake_gsi(struct engine_vm *vm, unsigned gsi)
{
    return (struct irq_line){set_gsi, vm, gsi};
}

static struct irq_line fake_pit_taken(struct engine_vm *vm)
{
    return (struct irq_line){NULL, NULL, 0};
}

static void no_message(void *opaque, uint64_t address, uint32_t data) {}

static struct msi_sink fake_msi(struct engine_vm *vm)
{
    return (struct msi_sink){no_message, vm};
}

static void fake_reset(struct engine_vm *vm) {}

static const struct engine_irqchip fake_irqchip = {
    .gsi = fake_gsi, .msi = fake_msi, .pit_taken = fake_pit_taken, .reset = fake_reset};

static const struct engine fake_engine = {
    .name = "fake",
    .vcpu_open = fake_open,
    .vcpu_close = fake_close,
    .kick = fake_kick,
    .inject = fake_inject,
    .cpuid = fake_cpuid,
    .read_tsc = fake_read_tsc,
    .tsc_hz = fake_tsc_hz,
};

static const struct engine engine_with_irqchip = {
    .name = "fake",
    .irqchip = &fake_irqchip,
    .vcpu_open = fake_open,
    .vcpu_close = fake_close,
    .kick = fake_kick,
    .inject = fake_inject,
    .cpuid = fake_cpuid,
};

static void on_event(void *opaque, unsigned vcpu, enum vcpus_event event, const struct error *error)
{
}

static void on_reset(void *opaque)
{
    ((struct world *)opaque)->resets++;
}
static void on_power_off(void *opaque)
{
    ((struct world *)opaque)->power_offs++;
}

static void on_sleep(void *opaque)
{
    ((struct world *)opaque)->sleeps++;
}
static void on_wake(void *opaque)
{
    ((struct world *)opaque)->wakes++;
}

static void on_exit_port(void *opaque, uint32_t value)
{
    struct world *world = opaque;
    world->exits++;
    world->exit_value = value;
}

static void make_board(struct world *world, const struct engine *engine)
{
    const struct q35_config config = {
        .engine = engine,
        .vm = &world->vm,
        .vcpus = world->vcpus,
        .vcpu_count = VCPUS,
        .topology = {1, VCPUS, 1},
        .ram = world->ram,
        .physmap = world->physmap,
        .bus = world->bus,
        .clock = world->clock,
        .uart_count = 4,
        .has_exit_port = true,
        .callbacks = {on_reset, on_power_off, on_sleep, on_wake, on_exit_port, world},
    };
    struct error err = {0};
    world->board = q35_create(&config, &err);
    if (!world->board)
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
    const struct virtio_rng_config rng = {.ram = world->ram, .loop = world->loop};
    const struct q35_place place = q35_place(world->board, Q35_RNG, 0);
    assert_true(q35_plug(world->board, &place, virtio_rng_create(&rng, &err), &err));
    assert_true(q35_finish(world->board, &err));
    q35_reset(world->board);
    if (!q35_boot(world->board, &world->map, &world->rsdp_gpa, &err))
        fail_msg("%s: %s", err.what, err.cause);
}

static struct world *open_world_on(const struct engine *engine, uint64_t memory_bytes)
{
    struct world *world = calloc(1, sizeof(*world));
    struct error err = {0};
    assert_non_null(world);
    current = world;
    world->ram = ram_create(memory_bytes, &err);
    world->physmap = physmap_create(world->ram);
    world->bus = bus_create(NULL);
    world->clock = clock_create(&err);
    world->loop = loop_create(&err);
    assert_true(world->ram && world->bus && world->clock && world->loop);
    clock_pause(world->clock);
    const struct vcpus_config vcpus = {
        .engine = engine, .vm = &world->vm, .count = VCPUS, .event = on_event};
    world->vcpus = vcpus_create(&vcpus, &err);
    assert_non_null(world->vcpus);
    make_board(world, engine);
    return world;
}

static struct world *open_world(uint64_t memory_bytes)
{
    return open_world_on(&fake_engine, memory_bytes);
}

static void close_world(struct world *world)
{
    q35_destroy(world->board);
    loop_destroy(world->loop);
    vcpus_destroy(world->vcpus);
    clock_destroy(world->clock);
    bus_destroy(world->bus);
    physmap_destroy(world->physmap);
    ram_destroy(world->ram);
    free(world);
}

static uint32_t in(struct world *world, unsigned port, unsigned size_bytes)
{
    return (uint32_t)bus_read(world->bus, BUS_PORT, port, size_bytes);
}

static void out(struct world *world, unsigned port, uint32_t value, unsigned size_bytes)
{
    bus_write(world->bus, BUS_PORT, port, value, size_bytes);
}

static uint32_t ecam(struct world *world, unsigned slot, unsigned offset)
{
    return (uint32_t)bus_read(world->bus, BUS_MMIO, 0xb0000000 + (slot << 15) + offset, 4);
}

static void test_memory_map(void **state)
{
    struct world *world = open_world(64 * MIB);
    uint64_t end = 0, usable = 0;
    for (unsigned i = 0; i < world->map.count; i++) {
        assert_true(world->map.range[i].gpa >= end);
        end = world->map.range[i].gpa + world->map.range[i].size_bytes;
        if (world->map.range[i].kind == MEMORY_USABLE)
            usable += world->map.range[i].size_bytes;
    }
    assert_int_equal(usable, 63 * MIB + 0x9fc00);
    assert_int_equal(memory_map_usable_end(&world->map, MIB), 64 * MIB);
    assert_int_equal(memory_map_usable_end(&world->map, world->rsdp_gpa), 0);
    close_world(world);
}

static void test_tables_in_memory(void **state)
{
    struct world *world = open_world(64 * MIB);
    const uint8_t *rsdp = ram_hva(world->ram, world->rsdp_gpa, 36);
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    const uint8_t *xsdt = ram_hva(world->ram, le64_get(rsdp + 24), 36);
    assert_memory_equal(xsdt, "XSDT", 4);
    assert_int_equal(bytes_checksum(xsdt, le32_get(xsdt + 4)), 0);
    assert_memory_equal(ram_hva(world->ram, 0xf0000, 24), "_SM3_", 5);
    const uint8_t *mp = ram_hva(world->ram, 0xff000, 128);
    assert_memory_equal(mp, "_MP_", 4);
    assert_memory_equal(mp + 16, "PCMP", 4);
    assert_int_equal(le32_get(mp + 16 + 44 + 4), 0x100); /* the first processor's signature */
    assert_int_equal(le32_get(mp + 16 + 44 + 8), 0x103); /* and features */
    close_world(world);
}

/* S3: the vector is where the guest finds the FACS; memory stays, the power management tells why.
 */
static void test_sleep(void **state)
{
    struct world *world = open_world(64 * MIB);
    struct error err = {0};
    const uint8_t *rsdp = ram_hva(world->ram, world->rsdp_gpa, 36);
    const uint8_t *xsdt = ram_hva(world->ram, le64_get(rsdp + 24), 4096);
    const uint8_t *fadt = ram_hva(world->ram, le64_get(xsdt + 36), 276);
    uint8_t *facs = ram_hva(world->ram, le32_get(fadt + 36), 64);
    unsigned event = le32_get(fadt + 56), control = le32_get(fadt + 64);
    assert_memory_equal(facs, "FACS", 4);
    out(world, control, 1u << 13 | 1u << 10, 2);
    assert_int_equal(world->sleeps, 1);
    assert_true(q35_is_asleep(world->board));
    assert_int_equal(q35_waking_vector(world->board), 0);
    le32_put(facs + 12, 0x9a5f3);
    assert_int_equal(q35_waking_vector(world->board), 0x9a5f3);
    q35_press_power_button(world->board);
    assert_int_equal(world->wakes, 1);
    assert_true(q35_wake(world->board, &err));
    assert_int_equal(in(world, event, 2), 0x8100);
    assert_int_equal(q35_waking_vector(world->board), 0x9a5f3);
    le32_put(facs + 12, 0x100000); /* not in real mode */
    assert_int_equal(q35_waking_vector(world->board), 0);
    close_world(world);
}

/* What the FADT tells must be where the chips are. */
static void test_fadt_agrees(void **state)
{
    struct world *world = open_world(64 * MIB);
    const uint8_t *rsdp = ram_hva(world->ram, world->rsdp_gpa, 36);
    const uint8_t *xsdt = ram_hva(world->ram, le64_get(rsdp + 24), 4096);
    const uint8_t *fadt = ram_hva(world->ram, le64_get(xsdt + 36), 276);
    assert_memory_equal(fadt, "FACP", 4);
    unsigned event = le32_get(fadt + 56), control = le32_get(fadt + 64);
    assert_int_equal(in(world, control, 2) & 1, 1); /* SCI_EN: always in ACPI mode */
    assert_int_equal(in(world, event, 2) & 0x100, 0);
    q35_press_power_button(world->board);
    assert_int_equal(in(world, event, 2) & 0x100, 0x100);
    assert_int_equal(world->power_offs, 0);
    out(world, control, 1u << 13 | 7u << 10, 2);
    assert_int_equal(world->power_offs, 1);
    assert_int_equal(world->resets, 0);
    out(world, (unsigned)le64_get(fadt + 120), fadt[128], 1);
    assert_int_equal(world->resets, 1);
    close_world(world);
}

static void test_other_ends(void **state)
{
    struct world *world = open_world(64 * MIB);
    out(world, 0x64, 0xfe, 1);
    assert_int_equal(world->resets, 1);
    out(world, 0xf4, 0x1234, 4);
    assert_int_equal(world->exits, 1);
    assert_int_equal(world->exit_value, 0x1234);
    close_world(world);
}

static void test_pci(void **state)
{
    struct world *world = open_world(64 * MIB);
    assert_int_equal(ecam(world, 0, 0), 0x29c08086);
    assert_int_equal(ecam(world, 31, 0), 0x29188086);
    assert_int_equal(ecam(world, 1, 0), 0x10441af4);
    assert_int_equal(ecam(world, 5, 0), 0xffffffff);
    out(world, 0xcf8, 0x80000000 | 1 << 11, 4);
    assert_int_equal(in(world, 0xcfc, 4), 0x10441af4);
    /* the 64-bit BAR is in the upper window, the other in the lower */
    uint64_t bar = (ecam(world, 1, 0x10) & ~0xfu) | (uint64_t)ecam(world, 1, 0x14) << 32;
    assert_true(bar >= UINT64_C(0x4000000000) && bar < UINT64_C(0x8000000000));
    assert_in_range(ecam(world, 1, 0x20), 0xc0000000, 0xfebfffff);
    assert_true(ecam(world, 1, 4) & 2);
    assert_true(bus_read(world->bus, BUS_MMIO, bar, 4) != 0xffffffff);
    /* reading the number of queues through the common configuration */
    assert_int_equal(bus_read(world->bus, BUS_MMIO, bar + 18, 2), 1);
    close_world(world);
}

static void test_uarts(void **state)
{
    static const unsigned ports[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    struct world *world = open_world(64 * MIB);
    for (unsigned i = 0; i < 4; i++) {
        out(world, ports[i] + 7, 0xa0 + i, 1);
        assert_int_equal(in(world, ports[i] + 7, 1), 0xa0 + i);
    }
    close_world(world);
}

static void ioapic_write(struct world *world, uint8_t index, uint32_t value)
{
    bus_write(world->bus, BUS_MMIO, 0xfec00000, index, 4);
    bus_write(world->bus, BUS_MMIO, 0xfec00010, value, 4);
}

/* As a kernel does: masks the 8259 pair and enables the local APIC of vCPU 0 in x2APIC mode. */
static struct engine_hooks enable_x2apic(struct world *world)
{
    out(world, 0x21, 0xff, 1);
    out(world, 0xa1, 0xff, 1);
    struct engine_hooks hooks = q35_hooks(&world->board);
    assert_true(hooks.write_msr(hooks.opaque, 0, 0x1b, 0xfee00000 | 0xd00));
    assert_true(hooks.write_msr(hooks.opaque, 0, 0x80f, 0x1ff));
    return hooks;
}

/* COM1's transmitter interrupt: UART, ISA wire, I/O APIC pin 4, local APIC, INTR, INTA. */
static void test_interrupt_path(void **state)
{
    struct world *world = open_world(64 * MIB);
    struct engine_hooks hooks = enable_x2apic(world);
    ioapic_write(world, 0x10 + 2 * 4 + 1, 0);
    ioapic_write(world, 0x10 + 2 * 4, 0x44);
    assert_int_equal(atomic_load(&world->vm.intr[0]), 0);
    out(world, 0x3fc, 0x0b, 1); /* OUT2: the interrupt reaches the wire */
    out(world, 0x3f9, 0x02, 1); /* transmitter empty, which it is */
    assert_int_equal(atomic_load(&world->vm.intr[0]), 1);
    assert_int_equal(hooks.acknowledge(hooks.opaque, 0), 0x44);
    assert_int_equal(atomic_load(&world->vm.intr[0]), 0);
    assert_int_equal(atomic_load(&world->vm.intr[1]), 0);
    close_world(world);
}

/* The same UART through the 8259 pair and LINT0, as a kernel without an I/O APIC driver has it. */
static void test_pic_path(void **state)
{
    struct world *world = open_world(64 * MIB);
    struct engine_hooks hooks = q35_hooks(&world->board);
    static const uint8_t init[][2] = {
        {0x20, 0x11}, {0x21, 0x20}, {0x21, 0x04}, {0x21, 0x01}, {0x21, 0xef}};
    for (unsigned i = 0; i < 5; i++)
        out(world, init[i][0], init[i][1], 1);
    out(world, 0x3fc, 0x0b, 1);
    out(world, 0x3f9, 0x02, 1);
    assert_int_equal(atomic_load(&world->vm.intr[0]), 1);
    assert_int_equal(hooks.acknowledge(hooks.opaque, 0), 0x24);
    close_world(world);
}

/* A PIRQ that the guest routes to an interrupt of the 8259 pair (ICH9 13.1.17) reaches it where the
 * engine has the chips, too; two that share it are one level. */
static void test_pirq_on_irqchip(void **state)
{
    struct world *world = open_world_on(&engine_with_irqchip, 64 * MIB);
    const atomic_uint *gsi = world->vm.gsi;
    const struct irq_line pins[2] = {q35_route_pci(world->board, 2, 1),
                                     q35_route_pci(world->board, 3, 1)};
    unsigned pirqs[2] = {q35_slot_pirq(2, 0), q35_slot_pirq(3, 0)};
    assert_int_equal(pirqs[1], pirqs[0] + 1);
    irq_set(&pins[0], true);
    assert_int_equal(gsi[16 + pirqs[0]], 1);
    assert_int_equal(gsi[10], 0);
    for (unsigned i = 0; i < 2; i++)
        bus_write(world->bus, BUS_MMIO, 0xb0000000 + (31 << 15) + 0x60 + pirqs[i], 10, 1);
    assert_int_equal(gsi[10], 1);
    irq_set(&pins[1], true);
    irq_set(&pins[0], false);
    assert_int_equal(gsi[16 + pirqs[0]], 0);
    assert_int_equal(gsi[10], 1);
    irq_set(&pins[1], false);
    assert_int_equal(gsi[10], 0);
    irq_set(&pins[1], true);
    bus_write(world->bus, BUS_MMIO, 0xb0000000 + (31 << 15) + 0x60 + pirqs[1], 0x80, 1);
    assert_int_equal(gsi[10], 0);
    assert_int_equal(gsi[16 + pirqs[1]], 1);
    close_world(world);
}

/* INIT and SIPI to the other processor, by the ICR. */
static void test_ipi(void **state)
{
    struct world *world = open_world(64 * MIB);
    struct engine_hooks hooks = enable_x2apic(world);
    assert_true(hooks.write_msr(hooks.opaque, 0, 0x830, UINT64_C(1) << 32 | 0x4500));
    assert_int_equal(atomic_load(&world->vm.init[1]), 1);
    assert_int_equal(atomic_load(&world->vm.init[0]), 0);
    assert_true(hooks.write_msr(hooks.opaque, 0, 0x830, UINT64_C(1) << 32 | 0x4699));
    assert_int_equal(atomic_load(&world->vm.sipi[1]), 0x99);
    close_world(world);
}

/* After a reset the board is as it was made. */
static void test_reset(void **state)
{
    struct world *world = open_world(64 * MIB);
    struct save before = {0}, after = {0};
    struct error err = {0};
    q35_save(world->board, &before);
    assert_false(before.failed);
    enable_x2apic(world);
    ioapic_write(world, 0x10 + 2 * 4, 0x44);
    out(world, 0x3fc, 0x0b, 1);
    out(world, 0x3f9, 0x02, 1);
    out(world, 0x43, 0x34, 1);
    out(world, 0x40, 0x12, 1);
    q35_press_power_button(world->board);
    q35_reset(world->board);
    assert_true(q35_boot(world->board, &world->map, &world->rsdp_gpa, &err));
    q35_save(world->board, &after);
    assert_int_equal(before.size_bytes, after.size_bytes);
    assert_memory_equal(before.bytes, after.bytes, before.size_bytes);
    save_free(&before);
    save_free(&after);
    close_world(world);
}

static void test_save_and_load(void **state)
{
    struct world *world = open_world(64 * MIB);
    struct save first = {0}, second = {0};
    struct load load;
    enable_x2apic(world);
    ioapic_write(world, 0x10 + 2 * 4 + 1, 0);
    ioapic_write(world, 0x10 + 2 * 4, 0x44);
    out(world, 0x3fc, 0x0b, 1);
    out(world, 0x3f9, 0x02, 1);
    out(world, 0x70, 0x20, 1);
    out(world, 0x71, 0x5a, 1);
    q35_press_power_button(world->board);
    q35_save(world->board, &first);
    assert_false(first.failed);
    close_world(world);

    world = open_world(64 * MIB);
    load_init(&load, first.bytes, first.size_bytes);
    assert_true(q35_load(world->board, &load, NULL));
    q35_save(world->board, &second);
    assert_int_equal(first.size_bytes, second.size_bytes);
    assert_memory_equal(first.bytes, second.bytes, first.size_bytes);
    /* the interrupt under way is still there */
    struct engine_hooks hooks = q35_hooks(&world->board);
    assert_int_equal(atomic_load(&world->vm.intr[0]), 1);
    assert_int_equal(hooks.acknowledge(hooks.opaque, 0), 0x44);
    assert_int_equal(in(world, 0x600, 2) & 0x100, 0x100);
    save_free(&second);
    close_world(world);
    save_free(&first);
}

/* A saved board that is cut short or changed is refused or loaded, and nothing worse. */
static void test_damaged_load(void **state)
{
    struct world *world = open_world(64 * MIB);
    struct save save = {0};
    struct load load;
    q35_save(world->board, &save);
    for (size_t size = 0; size < save.size_bytes; size += size < 600 ? 7 : 301) {
        load_init(&load, save.bytes, size);
        assert_false(q35_load(world->board, &load, NULL));
    }
    for (size_t at = 0; at < save.size_bytes; at += 5) {
        save.bytes[at] ^= 0xff;
        load_init(&load, save.bytes, save.size_bytes);
        q35_load(world->board, &load, NULL);
        save.bytes[at] ^= 0xff;
    }
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(q35_load(world->board, &load, NULL));
    save_free(&save);
    close_world(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_map),    cmocka_unit_test(test_tables_in_memory),
        cmocka_unit_test(test_fadt_agrees),   cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_other_ends),    cmocka_unit_test(test_pci),
        cmocka_unit_test(test_uarts),         cmocka_unit_test(test_interrupt_path),
        cmocka_unit_test(test_pic_path),      cmocka_unit_test(test_pirq_on_irqchip),
        cmocka_unit_test(test_ipi),           cmocka_unit_test(test_reset),
        cmocka_unit_test(test_save_and_load), cmocka_unit_test(test_damaged_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
