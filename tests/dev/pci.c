/* SPDX-License-Identifier: BSD-2-Clause
 * PCI: configuration space by both ways, BARs that size and move, wires, the host bridge, the LPC
 * bridge, placement without firmware. */
#include "dev/virtio_driver.h"

#include "dev/ich9_lpc.h"

enum { SLOT = 6 };

struct fixture {
    struct vd_machine m;
    struct pci_function *f;
    unsigned written, mapped, unmapped;
    uint64_t last_write[3]; /* offset, value, size */
};

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    return 0xb0b0 + offset;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct fixture *f = opaque;
    f->last_write[0] = offset;
    f->last_write[1] = value;
    f->last_write[2] = size_bytes;
}

static void on_mapped(void *opaque, uint64_t base)
{
    ((struct fixture *)opaque)->mapped++;
}

static void on_unmapped(void *opaque, uint64_t base)
{
    ((struct fixture *)opaque)->unmapped++;
}

static void on_written(void *opaque, unsigned offset, unsigned size_bytes)
{
    ((struct fixture *)opaque)->written++;
}

static struct pci_function *add(struct fixture *f, unsigned slot, unsigned function, uint8_t pin)
{
    struct error err = {0};
    struct pci_function_config config = {.name = "test",
                                         .slot = slot,
                                         .function = function,
                                         .vendor = 0x1234,
                                         .device = 0x5678,
                                         .subsystem_vendor = 0x9abc,
                                         .subsystem = 0xdef0,
                                         .class_code = 0x112233,
                                         .revision = 0x44,
                                         .pin = pin,
                                         .written = on_written,
                                         .opaque = f};
    struct pci_function *function_made = pci_function_create(f->m.pci, &config, &err);
    assert_non_null(function_made);
    return function_made;
}

static void add_bars(struct fixture *f, struct pci_function *function)
{
    struct pci_bar memory = {.size_bytes = 0x2000,
                             .read = bar_read,
                             .write = bar_write,
                             .opaque = f,
                             .mapped = on_mapped,
                             .unmapped = on_unmapped};
    struct pci_bar memory64 = memory, io = memory;
    memory64.size_bytes = UINT64_C(0x200000000);
    memory64.is_64bit = memory64.is_prefetchable = true;
    io.size_bytes = 64;
    io.is_io = true;
    pci_function_bar(function, 0, &memory);
    pci_function_bar(function, 1, &memory64);
    pci_function_bar(function, 3, &io);
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 1 << 20);
    f->f = add(f, SLOT, 0, 1);
    add_bars(f, f->f);
}

static void teardown(struct fixture *f)
{
    pci_function_destroy(f->f);
    vd_machine_free(&f->m);
}

static uint32_t get(struct fixture *f, unsigned reg, unsigned size_bytes)
{
    return vd_config_read(&f->m, SLOT, reg, size_bytes);
}

static void set(struct fixture *f, unsigned reg, uint32_t value, unsigned size_bytes)
{
    vd_config_write(&f->m, SLOT, reg, value, size_bytes);
}

static bool at(struct fixture *f, enum bus_space space, uint64_t address)
{
    return bus_read(f->m.bus, space, address, 2) == 0xb0b0;
}

static void header(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(get(&f, PCI_VENDOR, 4), 0x56781234);
    assert_int_equal(get(&f, PCI_DEVICE + 1, 1), 0x56);
    assert_int_equal(get(&f, PCI_REVISION, 4), 0x11223344);
    assert_int_equal(get(&f, PCI_SUBSYSTEM_VENDOR, 4), 0xdef09abc);
    assert_int_equal(get(&f, PCI_INTERRUPT_PIN, 1), 1);
    set(&f, PCI_VENDOR, 0, 4);
    set(&f, PCI_REVISION, 0, 4);
    set(&f, PCI_HEADER_TYPE, 0xff, 1);
    set(&f, PCI_INTERRUPT_LINE, 0xffff, 2);
    assert_int_equal(get(&f, PCI_VENDOR, 4), 0x56781234);
    assert_int_equal(get(&f, PCI_REVISION, 4), 0x11223344);
    assert_int_equal(get(&f, PCI_HEADER_TYPE, 1), 0);
    assert_int_equal(get(&f, PCI_INTERRUPT_LINE, 2), 0x01ff);
    set(&f, PCI_COMMAND, 0xffff, 2);
    assert_int_equal(get(&f, PCI_COMMAND, 2), 0x547);
    assert_int_equal(f.written, 5);
    teardown(&f);
}

static void mechanism_1(void **state)
{
    struct fixture f;
    setup(&f);
    struct bus *bus = f.m.bus;
    bus_write(bus, BUS_PORT, 0xcf8, 0x80003003, 4);
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcf8, 4), 0x80003000);
    bus_write(bus, BUS_PORT, 0xcf8, 0, 1); /* only whole words */
    bus_write(bus, BUS_PORT, 0xcf8, 0, 2);
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcf8, 4), 0x80003000);
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcfc, 4), 0x56781234);
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcfe, 2), 0x5678);
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcff, 1), 0x56);
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcff, 2), 0xffff); /* out of the register */
    bus_write(bus, BUS_PORT, 0xcf8, 0x00003000, 4);              /* not enabled */
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcfc, 4), 0xffffffff);
    bus_write(bus, BUS_PORT, 0xcf8, 0x80013000, 4); /* bus 1 */
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcfc, 4), 0xffffffff);
    bus_write(bus, BUS_PORT, 0xcf8, 0x80003100, 4); /* function 1 */
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcfc, 4), 0xffffffff);
    bus_write(bus, BUS_PORT, 0xcfc, 0, 4);
    /* The reset port, which lies among the address ports, is someone else's. */
    struct bus_range reset = {
        .name = "reset", .space = BUS_PORT, .base = 0xcf9, .size_bytes = 1, .read = bar_read};
    struct error err = {0};
    assert_true(bus_map(bus, &reset, &err));
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcf9, 1), 0xb0);
    assert_int_equal(bus_read(bus, BUS_PORT, 0xcf8, 4), 0x80003100);
    teardown(&f);
}

static void ecam(void **state)
{
    struct fixture f;
    setup(&f);
    struct bus *bus = f.m.bus;
    uint64_t base = VD_ECAM_BASE + (SLOT << 15);
    assert_int_equal(bus_read(bus, BUS_MMIO, base, 4), 0x56781234);
    assert_int_equal(bus_read(bus, BUS_MMIO, base, 8), UINT64_C(0x0000000056781234));
    assert_int_equal(bus_read(bus, BUS_MMIO, base + 3, 1), 0x56);
    bus_write(bus, BUS_MMIO, base + PCI_BAR0, UINT64_C(0x00000004ffffffff), 8);
    assert_int_equal(get(&f, PCI_BAR0, 4), 0xffffe000);
    assert_int_equal(bus_read(bus, BUS_MMIO, base + 0x100, 4), 0xffffffff);
    assert_int_equal(bus_read(bus, BUS_MMIO, base + 0xfe, 4), 0xffffffff);
    assert_int_equal(bus_read(bus, BUS_MMIO, base + 0xfc, 8), UINT64_C(0xffffffff00000000));
    assert_int_equal(bus_read(bus, BUS_MMIO, VD_ECAM_BASE + 0x100000, 4), 0xffffffff); /* bus 1 */
    bus_write(bus, BUS_MMIO, VD_ECAM_BASE + 0x100000, 0, 8);

    /* The guest moves the window. */
    assert_int_equal(vd_config_read(&f.m, 0, PCI_VENDOR, 4), 0x29c08086);
    assert_int_equal(vd_config_read(&f.m, 0, 0x60, 4), VD_ECAM_BASE | 1);
    vd_config_write(&f.m, 0, 0x60, 0, 4);
    assert_int_equal(bus_read(bus, BUS_MMIO, base, 4), 0xffffffff);
    vd_config_write(&f.m, 0, 0x60, 0xe0000000 | 1, 4);
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_C(0xe0000000) + (SLOT << 15), 4), 0x56781234);
    vd_config_write(&f.m, 0, 0x60, 0xe4000000 | 4 | 1, 4); /* 64 MiB */
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_C(0xe4000000) + (SLOT << 15), 4), 0x56781234);
    vd_config_write(&f.m, 0, 0x60, 0xe4000000 | 6 | 1, 4); /* reserved length */
    assert_int_equal(bus_read(bus, BUS_MMIO, UINT64_C(0xe4000000) + (SLOT << 15), 4), 0xffffffff);
    pci_host_ops.reset(f.m.host);
    assert_int_equal(bus_read(bus, BUS_MMIO, base, 4), 0x56781234);
    teardown(&f);
}

static void sizing(void **state)
{
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < 6; i++)
        set(&f, PCI_BAR0 + 4 * i, 0xffffffff, 4);
    assert_int_equal(get(&f, PCI_BAR0, 4), 0xffffe000);
    assert_int_equal(get(&f, PCI_BAR0 + 4, 4), 0x0000000c);
    assert_int_equal(get(&f, PCI_BAR0 + 8, 4), 0xfffffffe);
    assert_int_equal(get(&f, PCI_BAR0 + 12, 4), 0xffffffc1);
    assert_int_equal(get(&f, PCI_BAR0 + 16, 4), 0);
    assert_int_equal(get(&f, PCI_BAR0 + 20, 4), 0);
    set(&f, PCI_BAR0 + 1, 0x12, 1); /* a byte of it: below the size */
    assert_int_equal(get(&f, PCI_BAR0, 4), 0xffff0000);
    assert_int_equal(f.mapped, 0);
    teardown(&f);
}

static void mapping(void **state)
{
    struct fixture f;
    setup(&f);
    set(&f, PCI_BAR0, 0xd0000000, 4);
    set(&f, PCI_BAR0 + 4, 0, 4);
    set(&f, PCI_BAR0 + 8, 0x10, 4);
    set(&f, PCI_BAR0 + 12, 0xd000, 4);
    assert_false(at(&f, BUS_MMIO, 0xd0000000));
    set(&f, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_true(at(&f, BUS_MMIO, 0xd0000000));
    assert_true(at(&f, BUS_MMIO, UINT64_C(0x1000000000)));
    assert_false(at(&f, BUS_PORT, 0xd000));
    set(&f, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_IO, 2);
    assert_true(at(&f, BUS_PORT, 0xd000));
    assert_int_equal(bus_read(f.m.bus, BUS_MMIO, 0xd0001ffc, 4), 0xb0b0 + 0x1ffc);
    bus_write(f.m.bus, BUS_MMIO, 0xd0000010, 0x1122, 2);
    assert_int_equal(f.last_write[0], 0x10);
    assert_int_equal(f.last_write[1], 0x1122);
    assert_int_equal(f.last_write[2], 2);
    set(&f, PCI_BAR0, 0xd1000000, 4);
    assert_false(at(&f, BUS_MMIO, 0xd0000000));
    assert_true(at(&f, BUS_MMIO, 0xd1000000));
    assert_int_equal(f.mapped, 4);
    assert_int_equal(f.unmapped, 1);
    set(&f, PCI_BAR0, 0xd1000000, 4); /* the same: nothing happens */
    assert_int_equal(f.mapped, 4);
    /* Sizing while enabled, then back; 0 and places beyond are nowhere. */
    set(&f, PCI_BAR0, 0xffffffff, 4);
    set(&f, PCI_BAR0, 0, 4);
    assert_false(at(&f, BUS_MMIO, 0));
    set(&f, PCI_BAR0 + 8, 0xffffffff, 4);
    set(&f, PCI_BAR0 + 12, 0x1d000, 4); /* above the ports there are */
    assert_false(at(&f, BUS_PORT, 0xd000));
    set(&f, PCI_COMMAND, 0, 2);
    assert_int_equal(f.mapped, f.unmapped);
    teardown(&f);
}

static void overlap(void **state)
{
    struct fixture f;
    setup(&f);
    struct pci_function *other = add(&f, SLOT + 1, 0, 0);
    add_bars(&f, other);
    set(&f, PCI_BAR0, 0xd0000000, 4);
    set(&f, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    unsigned lines = f.m.log_lines;
    vd_config_write(&f.m, SLOT + 1, PCI_BAR0, 0xd0000000, 4);
    vd_config_write(&f.m, SLOT + 1, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(f.m.log_lines, lines + 1);
    assert_int_equal(f.mapped, 1);
    /* The first one goes: the second takes its place. */
    set(&f, PCI_BAR0, 0xd0100000, 4);
    assert_int_equal(f.mapped, 3);
    assert_true(at(&f, BUS_MMIO, 0xd0000000));
    assert_true(at(&f, BUS_MMIO, 0xd0100000));
    uint64_t base;
    assert_true(pci_function_bar_address(other, 0, &base));
    assert_int_equal(base, 0xd0000000);
    /* A guest that does nothing else does not flood the log. */
    for (unsigned i = 0; i < 1000; i++)
        set(&f, PCI_BAR0, i & 1 ? 0xd0000000 : VD_ECAM_BASE, 4);
    assert_true(f.m.log_lines < lines + 50);
    pci_function_destroy(other);
    teardown(&f);
}

static void capabilities(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(get(&f, PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES, 0);
    unsigned first = pci_function_capability(f.f, 0x09, 13);
    unsigned second = pci_function_capability(f.f, 0x05, 8);
    pci_function_writable(f.f, second + 4, 0x00ff00f0, 4);
    assert_int_equal(get(&f, PCI_STATUS, 2), PCI_STATUS_CAPABILITIES);
    assert_int_equal(vd_capability(&f.m, SLOT, 0x09, 0), first);
    assert_int_equal(vd_capability(&f.m, SLOT, 0x05, 0), second);
    assert_int_equal(vd_capability(&f.m, SLOT, 0x05, second), 0);
    assert_true(second >= first + 13 && second % 4 == 0);
    set(&f, second, 0xffffffff, 4);
    set(&f, second + 4, 0xffffffff, 4);
    assert_int_equal(get(&f, second, 4), 0x05);
    assert_int_equal(get(&f, second + 4, 4), 0x00ff00f0);
    teardown(&f);
}

static void wires_are_shared(void **state)
{
    struct fixture f;
    setup(&f);
    struct pci_function *other = add(&f, SLOT + 1, 0, 3);
    pci_function_intx(f.f, true);
    pci_function_intx(other, true);
    assert_true(f.m.intx);
    pci_function_intx(f.f, false);
    assert_true(f.m.intx);
    vd_config_write(&f.m, SLOT + 1, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, 2);
    assert_false(f.m.intx);
    assert_int_equal(vd_config_read(&f.m, SLOT + 1, PCI_STATUS, 2), PCI_STATUS_INTERRUPT);
    assert_int_equal(vd_config_read(&f.m, SLOT + 1, PCI_STATUS, 1), PCI_STATUS_INTERRUPT);
    assert_int_equal(vd_config_read(&f.m, SLOT + 1, PCI_COMMAND, 4),
                     PCI_COMMAND_INTX_DISABLE | PCI_STATUS_INTERRUPT << 16);
    vd_config_write(&f.m, SLOT + 1, PCI_COMMAND, 0, 2);
    assert_true(f.m.intx);
    pci_function_suppress_intx(other, true);
    assert_false(f.m.intx);
    pci_function_suppress_intx(other, false);
    assert_true(f.m.intx);
    pci_function_destroy(other); /* takes its level along */
    assert_false(f.m.intx);
    teardown(&f);
}

static void multifunction(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(get(&f, PCI_HEADER_TYPE, 1), 0);
    struct pci_function *other = add(&f, SLOT, 2, 0);
    assert_int_equal(get(&f, PCI_HEADER_TYPE, 1), 0x80);
    pci_function_destroy(other);
    assert_int_equal(get(&f, PCI_HEADER_TYPE, 1), 0);
    teardown(&f);
}

static uint8_t line_of(void *opaque, unsigned slot, unsigned pin)
{
    return (uint8_t)(slot + pin);
}

static void assign(void **state)
{
    struct fixture f;
    setup(&f);
    struct pci_function *other = add(&f, SLOT + 1, 0, 0);
    add_bars(&f, other);
    struct pci_windows windows = {.mmio32 = {0xc0001000, 0x5000},
                                  .mmio64 = {UINT64_C(0x1080000000), UINT64_C(0x800000000)},
                                  .io = {0xc010, 0x100},
                                  .interrupt_line = line_of};
    struct error err = {0};
    for (unsigned round = 0; round < 2; round++) { /* again: the same */
        assert_true(pci_assign_bars(f.m.pci, &windows, &err));
        assert_int_equal(vd_bar(&f.m, SLOT, 0), 0xc0002000);
        assert_int_equal(vd_bar(&f.m, SLOT + 1, 0), 0xc0004000);
        assert_int_equal(vd_bar(&f.m, SLOT, 1), UINT64_C(0x1200000000));
        assert_int_equal(vd_bar(&f.m, SLOT + 1, 1), UINT64_C(0x1400000000));
        assert_int_equal(get(&f, PCI_BAR0 + 4, 4) & 0xf, 0xc);
        assert_int_equal(get(&f, PCI_BAR0 + 12, 4), 0xc041);
        assert_int_equal(vd_config_read(&f.m, SLOT + 1, PCI_BAR0 + 12, 4), 0xc081);
        assert_true(at(&f, BUS_MMIO, 0xc0002000) && at(&f, BUS_MMIO, 0xc0004000));
        assert_true(at(&f, BUS_MMIO, UINT64_C(0x1400000000)) && at(&f, BUS_PORT, 0xc040));
        assert_int_equal(get(&f, PCI_INTERRUPT_LINE, 1), SLOT + 1);
        assert_int_equal(vd_config_read(&f.m, SLOT + 1, PCI_INTERRUPT_LINE, 1), 0);
    }
    windows.mmio32.size_bytes = 0x4fff; /* one byte short */
    assert_false(pci_assign_bars(f.m.pci, &windows, &err));
    assert_string_equal(err.where, "test");
    windows.mmio32.size_bytes = 0x5000;
    windows.mmio64.size_bytes = 0; /* none: then they would have to fit below 4 GiB */
    assert_false(pci_assign_bars(f.m.pci, &windows, &err));
    pci_function_destroy(other);
    teardown(&f);
}

/* A window that all fit only when nothing is lost to alignment. */
static void assign_packs(void **state)
{
    struct fixture f;
    setup(&f);
    struct pci_function *others[2] = {add(&f, SLOT + 1, 0, 0), add(&f, SLOT + 2, 0, 0)};
    struct pci_bar bar = {.size_bytes = 0x4000, .read = bar_read, .opaque = &f};
    pci_function_bar(others[0], 0, &bar);
    bar.size_bytes = 0x100; /* a page of its own all the same */
    pci_function_bar(others[1], 0, &bar);
    pci_function_bar(others[1], 1, &bar);
    struct pci_windows windows = {.mmio32 = {0xc0004000, 0x8000},
                                  .mmio64 = {UINT64_C(0x1000000000), UINT64_C(0x800000000)},
                                  .io = {0xc000, 0x100}};
    struct error err = {0};
    assert_true(pci_assign_bars(f.m.pci, &windows, &err));
    assert_int_equal(vd_bar(&f.m, SLOT + 1, 0), 0xc0004000);
    assert_int_equal(vd_bar(&f.m, SLOT, 0), 0xc0008000);
    assert_int_equal(vd_bar(&f.m, SLOT + 2, 0), 0xc000a000);
    assert_int_equal(vd_bar(&f.m, SLOT + 2, 1), 0xc000b000);
    pci_function_destroy(others[0]);
    pci_function_destroy(others[1]);
    teardown(&f);
}

static void reset_save_load(void **state)
{
    struct fixture f;
    setup(&f);
    set(&f, PCI_BAR0, 0xd0000000, 4);
    set(&f, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    pci_function_intx(f.f, true);
    struct save save = {0};
    pci_function_save(f.f, &save);
    pci_function_reset(f.f);
    assert_false(f.m.intx);
    assert_int_equal(get(&f, PCI_COMMAND, 2), 0);
    assert_int_equal(get(&f, PCI_BAR0, 4), 0);
    assert_int_equal(f.unmapped, 1);
    struct load load;
    load_init(&load, save.bytes, save.size_bytes);
    load.section_end = save.size_bytes;
    assert_true(pci_function_load(f.f, &load));
    assert_true(f.m.intx);
    assert_true(at(&f, BUS_MMIO, 0xd0000000));
    /* Another device's state. */
    pci_function_reset(f.f);
    save.bytes[PCI_DEVICE]++;
    load_init(&load, save.bytes, save.size_bytes);
    load.section_end = save.size_bytes;
    assert_false(pci_function_load(f.f, &load));
    assert_int_equal(get(&f, PCI_BAR0, 4), 0);
    save_free(&save);
    teardown(&f);
}

static void host_save_load(void **state)
{
    struct fixture f;
    setup(&f);
    struct save save = {0};
    vd_config_write(&f.m, 0, 0x60, 0xe0000000 | 1, 4);
    vd_config_write(&f.m, 0, 0x90, 0xff, 1);
    assert_int_equal(vd_config_read(&f.m, 0, 0x90, 1), 0x33);
    save_begin(&save, pci_host_ops.name, pci_host_ops.version);
    pci_host_ops.save(f.m.host, &save);
    save_end(&save);
    pci_host_ops.reset(f.m.host);
    assert_int_equal(bus_read(f.m.bus, BUS_PORT, 0xcf8, 4), 0);
    struct load load;
    uint32_t version;
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, pci_host_ops.name, &version));
    assert_true(pci_host_ops.load(f.m.host, &load, version));
    assert_true(load_end(&load));
    assert_int_equal(bus_read(f.m.bus, BUS_PORT, 0xcf8, 4), 0x80000090);
    assert_int_equal(bus_read(f.m.bus, BUS_MMIO, 0xe0000000, 4), 0x29c08086);
    assert_int_equal(bus_read(f.m.bus, BUS_MMIO, VD_ECAM_BASE, 4), 0xffffffff);
    load_init(&load, save.bytes, save.size_bytes);
    load_begin(&load, pci_host_ops.name, &version);
    assert_false(pci_host_ops.load(f.m.host, &load, version + 1));
    assert_int_equal(bus_read(f.m.bus, BUS_MMIO, VD_ECAM_BASE, 4), 0x29c08086);
    save_free(&save);
    teardown(&f);
}

/* ---- LPC bridge ---- */

struct told {
    unsigned pm_count, pirq_count;
    uint16_t base;
    bool enabled;
    unsigned sci, pirq, irq;
};

static void pm_changed(void *opaque, uint16_t base, bool enabled, unsigned sci)
{
    struct told *told = opaque;
    told->pm_count++;
    told->base = base;
    told->enabled = enabled;
    told->sci = sci;
}

static void pirq_changed(void *opaque, unsigned pirq, unsigned irq)
{
    struct told *told = opaque;
    told->pirq_count++;
    told->pirq = pirq;
    told->irq = irq;
}

static uint32_t lpc_get(struct fixture *f, unsigned reg, unsigned size_bytes)
{
    return vd_config_read(&f->m, 0x1f, reg, size_bytes);
}

static void lpc(void **state)
{
    struct fixture f;
    setup(&f);
    struct told told = {0};
    struct error err = {0};
    struct ich9_lpc_config config = {.pci = f.m.pci,
                                     .slot = 0x1f,
                                     .pm_base = 0x600,
                                     .acpi_enabled = true,
                                     .sci = 9,
                                     .rcba = 0xfed1c000,
                                     .pm_changed = pm_changed,
                                     .pirq_changed = pirq_changed,
                                     .opaque = &told};
    struct ich9_lpc *lpc = ich9_lpc_create(&config, &err);
    assert_non_null(lpc);
    assert_int_equal(lpc_get(&f, PCI_VENDOR, 4), 0x29188086);
    assert_int_equal(lpc_get(&f, PCI_REVISION, 4), 0x06010002);
    assert_int_equal(lpc_get(&f, 0x40, 4), 0x601);
    assert_int_equal(lpc_get(&f, 0x44, 1), 0x80);
    assert_int_equal(lpc_get(&f, 0x60, 4), 0x80808080);
    assert_int_equal(lpc_get(&f, 0x68, 4), 0x80808080);
    assert_int_equal(lpc_get(&f, 0xf0, 4), 0xfed1c001);
    assert_int_equal(told.pm_count + told.pirq_count, 0);

    vd_config_write(&f.m, 0x1f, 0x40, 0xffffb07f, 4);
    assert_int_equal(lpc_get(&f, 0x40, 4), 0xb001);
    assert_int_equal(told.base, 0xb000);
    assert_true(told.enabled);
    vd_config_write(&f.m, 0x1f, 0x44, 0x04, 1);
    assert_int_equal(told.pm_count, 2);
    assert_false(told.enabled);
    assert_int_equal(told.sci, 20);
    vd_config_write(&f.m, 0x1f, 0x44, 0x04, 1);
    assert_int_equal(told.pm_count, 2);
    vd_config_write(&f.m, 0x1f, 0x6a, 0x7b, 1); /* PIRQG to 11, reserved bits dropped */
    assert_int_equal(lpc_get(&f, 0x6a, 1), 0x0b);
    assert_int_equal(told.pirq, 6);
    assert_int_equal(told.irq, 11);

    struct save save = {0};
    ich9_lpc_ops.save(lpc, &save);
    ich9_lpc_ops.reset(lpc);
    assert_int_equal(told.base, 0x600);
    assert_int_equal(told.irq, 0);
    assert_int_equal(lpc_get(&f, 0x6a, 1), 0x80);
    struct load load;
    load_init(&load, save.bytes, save.size_bytes);
    load.section_end = save.size_bytes;
    assert_true(ich9_lpc_ops.load(lpc, &load, ich9_lpc_ops.version));
    assert_int_equal(told.base, 0xb000);
    assert_int_equal(told.irq, 11);
    save_free(&save);
    ich9_lpc_ops.destroy(lpc);
    teardown(&f);
}

enum { MEMORY_SLOT = 9, MEMORY_BYTES = 0x4000 };

static uint8_t byte_at(struct fixture *f, uint64_t gpa)
{
    uint8_t byte = 0;
    return physmap_read(f->m.physmap, gpa, &byte, 1) ? byte : 0xee;
}

static void bars_of_memory(void **state)
{
    struct fixture f;
    setup(&f);
    struct pci_function *function = add(&f, MEMORY_SLOT, 0, 0);
    uint8_t *memory = aligned_alloc(RAM_PAGE_BYTES, MEMORY_BYTES);
    assert_non_null(memory);
    memset(memory, 0x5a, MEMORY_BYTES);
    const struct pci_bar bar = {.size_bytes = MEMORY_BYTES, .hva = memory, .is_logged = true};
    pci_function_bar(function, 0, &bar);
    vd_config_write(&f.m, MEMORY_SLOT, PCI_BAR0, 0xffffffff, 4);
    assert_int_equal(vd_config_read(&f.m, MEMORY_SLOT, PCI_BAR0, 4), 0xffffc000);
    vd_config_write(&f.m, MEMORY_SLOT, PCI_BAR0, 0xd0000000, 4);
    assert_int_equal(byte_at(&f, 0xd0000000), 0xee);
    vd_config_write(&f.m, MEMORY_SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    struct physmap_range range;
    assert_true(physmap_find(f.m.physmap, 0xd0003fff, &range));
    assert_ptr_equal(range.hva, memory);
    assert_true(range.is_logged && !range.read_only);
    vd_config_write(&f.m, MEMORY_SLOT, PCI_BAR0, 0xd8000000, 4);
    assert_int_equal(byte_at(&f, 0xd0000000), 0xee);
    assert_int_equal(byte_at(&f, 0xd8000000), 0x5a);
    pci_function_destroy(function);
    assert_int_equal(byte_at(&f, 0xd8000000), 0xee);
    free(memory);
    teardown(&f);
}

static void expansion_rom(void **state)
{
    struct fixture f;
    struct error err = {0};
    uint8_t rom[0x1800] = {0x55, 0xaa, 12};
    setup(&f);
    struct pci_function *function = add(&f, MEMORY_SLOT, 0, 0);
    rom[0x17ff] = 0x77;
    assert_false(pci_function_rom(function, rom + 1, 4096, &err));
    assert_false(pci_function_rom(function, rom, 1, &err));
    assert_int_equal(vd_config_read(&f.m, MEMORY_SLOT, PCI_ROM, 4), 0);
    assert_true(pci_function_rom(function, rom, sizeof(rom), &err));
    vd_config_write(&f.m, MEMORY_SLOT, PCI_ROM, 0xfffffffe, 4);
    assert_int_equal(vd_config_read(&f.m, MEMORY_SLOT, PCI_ROM, 4), 0xffffe000);
    vd_config_write(&f.m, MEMORY_SLOT, PCI_ROM, 0xd0000001, 4);
    assert_int_equal(byte_at(&f, 0xd0000000), 0xee); /* needs the command register, too */
    vd_config_write(&f.m, MEMORY_SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(byte_at(&f, 0xd0000000), 0x55);
    assert_int_equal(byte_at(&f, 0xd00017ff), 0x77);
    assert_int_equal(byte_at(&f, 0xd0001800), 0xff);
    assert_int_equal(byte_at(&f, 0xd0002000), 0xee);
    struct physmap_range range;
    assert_true(physmap_find(f.m.physmap, 0xd0000000, &range));
    assert_true(range.read_only);
    vd_config_write(&f.m, MEMORY_SLOT, PCI_ROM, 0xd0000000, 4);
    assert_int_equal(byte_at(&f, 0xd0000000), 0xee);
    pci_function_destroy(function);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header),         cmocka_unit_test(mechanism_1),
        cmocka_unit_test(ecam),           cmocka_unit_test(sizing),
        cmocka_unit_test(mapping),        cmocka_unit_test(overlap),
        cmocka_unit_test(capabilities),   cmocka_unit_test(wires_are_shared),
        cmocka_unit_test(multifunction),  cmocka_unit_test(assign),
        cmocka_unit_test(assign_packs),   cmocka_unit_test(reset_save_load),
        cmocka_unit_test(host_save_load), cmocka_unit_test(lpc),
        cmocka_unit_test(bars_of_memory), cmocka_unit_test(expansion_rom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
