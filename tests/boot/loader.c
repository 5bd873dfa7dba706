/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The boot loaders, with kernels made here: what they put into guest memory, the processor's state,
 * and how each damaged or unfitting file is refused.
 */
#include "machine/boot.h"
#include "machine/bytes.h"

#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB UINT64_C(0x100000)
enum {
    SETUP_SECTORS = 3,
    PAYLOAD_AT = (SETUP_SECTORS + 1) * 512,
    PAYLOAD_BYTES = 0x1234 * 16,
    BZIMAGE_BYTES = PAYLOAD_AT + PAYLOAD_BYTES,
};

struct world {
    struct ram *ram;
    struct memory_map map;
    struct x86_state bsp;
    struct boot_file *kernel;
    struct boot_file *initrd[3];
    struct boot_config config;
    struct error err;
};

static uint8_t image[BZIMAGE_BYTES];

static void make_bzimage(void)
{
    for (size_t i = 0; i < sizeof(image); i++)
        image[i] = (uint8_t)(i * 7 + (i >> 8));
    memset(image, 0, 0x290);
    image[0x1f1] = SETUP_SECTORS;
    le32_put(image + 0x1f4, PAYLOAD_BYTES / 16);
    le16_put(image + 0x1fe, 0xaa55);
    image[0x201] = 0x6a;
    memcpy(image + 0x202, "HdrS", 4);
    le16_put(image + 0x206, 0x20f);
    image[0x211] = 1;
    le32_put(image + 0x22c, 0x7fffffff);
    image[0x234] = 1;
    le16_put(image + 0x236, 0x7f);
    le32_put(image + 0x238, 100);
    le64_put(image + 0x258, 16 * MIB);
    le32_put(image + 0x260, 8 * MIB);
}

static void open_world(struct world *world, uint64_t memory_bytes, const void *kernel, size_t size)
{
    *world = (struct world){0};
    world->ram = ram_create(memory_bytes, NULL);
    assert_non_null(world->ram);
    uint64_t low_bytes = ram_region(world->ram, 0)->size_bytes;
    memory_map_add(&world->map, 0, 0x9fc00, MEMORY_USABLE);
    memory_map_add(&world->map, 0xe0000, 0x20000, MEMORY_RESERVED);
    memory_map_add(&world->map, MIB, low_bytes - MIB, MEMORY_USABLE);
    world->kernel = boot_file_memory("kernel", kernel, size);
    assert_non_null(world->kernel);
    world->config = (struct boot_config){.kernel = world->kernel,
                                         .initrds = world->initrd,
                                         .cmdline = "console=ttyS0 quiet",
                                         .map = &world->map,
                                         .rsdp_gpa = 0xe0000};
    x86_state_reset(&world->bsp, true);
}

static void close_world(struct world *world)
{
    boot_file_close(world->kernel);
    for (unsigned i = 0; i < 3; i++)
        boot_file_close(world->initrd[i]);
    ram_destroy(world->ram);
}

static void add_initrd(struct world *world, const void *bytes, size_t size_bytes)
{
    world->initrd[world->config.initrd_count] = boot_file_memory("initrd", bytes, size_bytes);
    assert_non_null(world->initrd[world->config.initrd_count]);
    world->config.initrd_count++;
}

static bool load(struct world *world)
{
    return boot_load(&world->config, world->ram, &world->bsp, &world->err);
}

static const uint8_t *guest(const struct world *world, uint64_t gpa, uint64_t size_bytes)
{
    const uint8_t *bytes = ram_hva(world->ram, gpa, size_bytes);
    assert_non_null(bytes);
    return bytes;
}

/* Follows the page tables that cr3 points to, 2 MiB pages only. */
static uint64_t translate(const struct world *world, uint64_t address)
{
    uint64_t table = world->bsp.cr3;
    for (unsigned shift = 39; shift >= 21; shift -= 9) {
        uint64_t entry = le64_get(guest(world, table + (address >> shift & 511) * 8, 8));
        assert_int_equal(entry & 3, 3);
        if (shift == 21) {
            assert_true(entry & 0x80);
            return (entry & ~UINT64_C(0x1fffff)) | (address & 0x1fffff);
        }
        table = entry & ~UINT64_C(0xfff);
    }
    return 0;
}

static uint64_t descriptor_of(const struct world *world, enum x86_segment_name name)
{
    const struct x86_segment *segment = &world->bsp.segment[name];
    assert_true(segment->selector + 7u <= world->bsp.gdtr.limit);
    return le64_get(guest(world, world->bsp.gdtr.base + segment->selector, 8));
}

static void test_bzimage(void **state)
{
    struct world world;
    make_bzimage();
    open_world(&world, 128 * MIB, image, sizeof(image));
    if (!load(&world))
        fail_msg("%s", world.err.cause);
    assert_memory_equal(guest(&world, 16 * MIB, PAYLOAD_BYTES), image + PAYLOAD_AT, PAYLOAD_BYTES);
    const struct x86_state *bsp = &world.bsp;
    assert_int_equal(bsp->rip, 16 * MIB + 0x200);
    assert_int_equal(bsp->cr0 & 0x80000001, 0x80000001);
    assert_int_equal(bsp->cr4 & 0x20, 0x20);
    assert_int_equal(bsp->efer & 0x500, 0x500);
    assert_int_equal(bsp->rflags, 2);
    assert_int_equal(bsp->segment[SEG_CS].selector, 0x10);
    assert_true(bsp->segment[SEG_CS].attributes & SEGMENT_L);
    assert_int_equal(bsp->segment[SEG_SS].selector, 0x18);
    assert_int_equal(descriptor_of(&world, SEG_CS), UINT64_C(0x00af9b000000ffff));
    assert_int_equal(descriptor_of(&world, SEG_DS), UINT64_C(0x00cf93000000ffff));
    assert_int_equal(translate(&world, 0x1234567), 0x1234567);
    assert_int_equal(translate(&world, 0xffffffff), 0xffffffff);

    const uint8_t *zero = guest(&world, bsp->gpr[RSI], 4096);
    assert_memory_equal(zero + 0x202, "HdrS", 4);
    assert_int_equal(zero[0x210], 0xff);
    assert_int_equal(le64_get(zero + 0x70), 0xe0000);
    assert_string_equal((const char *)guest(&world, le32_get(zero + 0x228), 100),
                        "console=ttyS0 quiet");
    assert_int_equal(zero[0x1e8], 3);
    assert_int_equal(le64_get(zero + 0x2d0 + 40), MIB);
    assert_int_equal(le64_get(zero + 0x2d0 + 48), 127 * MIB);
    assert_int_equal(le32_get(zero + 0x2d0 + 56), 1);
    assert_int_equal(le32_get(zero + 0x21c), 0);
    const uint8_t *seed = guest(&world, le64_get(zero + 0x250), 48);
    assert_int_equal(le64_get(seed), 0);
    assert_int_equal(le32_get(seed + 8), 9);
    assert_int_equal(le32_get(seed + 12), 32);
    close_world(&world);
}

static void test_initrds(void **state)
{
    struct world world;
    make_bzimage();
    open_world(&world, 128 * MIB, image, sizeof(image));
    add_initrd(&world, "abcde", 5);
    add_initrd(&world, "fghi", 4);
    add_initrd(&world, "jk", 2);
    assert_true(load(&world));
    const uint8_t *zero = guest(&world, world.bsp.gpr[RSI], 4096);
    uint64_t gpa = le32_get(zero + 0x218);
    assert_int_equal(le32_get(zero + 0x21c), 14);
    assert_int_equal(gpa % 4096, 0);
    assert_int_equal(gpa, 128 * MIB - 4096);
    assert_memory_equal(guest(&world, gpa, 14), "abcde\0\0\0fghijk", 14);
    close_world(&world);
}

static void test_initrd_limit(void **state)
{
    struct world world;
    make_bzimage();
    le32_put(image + 0x22c, 40 * MIB - 1);
    open_world(&world, 128 * MIB, image, sizeof(image));
    add_initrd(&world, image, sizeof(image));
    assert_true(load(&world));
    const uint8_t *zero = guest(&world, world.bsp.gpr[RSI], 4096);
    uint64_t gpa = le32_get(zero + 0x218);
    assert_true(gpa + sizeof(image) <= 40 * MIB && gpa + sizeof(image) > 40 * MIB - 4096);
    assert_memory_equal(guest(&world, gpa, sizeof(image)), image, sizeof(image));
    close_world(&world);
}

/* Loading must fail with this in its cause. */
static void expect_refused(struct world *world, const char *cause)
{
    assert_false(load(world));
    if (!strstr(world->err.cause, cause))
        fail_msg("\"%s\" is not in \"%s\"", cause, world->err.cause);
    assert_true(world->err.what[0]);
    close_world(world);
}

static void refuse_image(size_t size_bytes, uint64_t memory_bytes, const char *cause)
{
    struct world world;
    open_world(&world, memory_bytes, image, size_bytes);
    expect_refused(&world, cause);
}

/* A kernel that has no 64-bit entry begins at its first byte, in 32-bit mode without paging, with
 * the selectors that Linux' 32-bit boot protocol asks for. */
static void test_bzimage_32bit(void **state)
{
    for (unsigned is_old = 0; is_old < 2; is_old++) {
        struct world world;
        make_bzimage();
        if (is_old)
            le16_put(image + 0x206, 0x20a);
        else
            le16_put(image + 0x236, 0);
        open_world(&world, 128 * MIB, image, sizeof(image));
        if (!load(&world))
            fail_msg("%s", world.err.cause);
        assert_memory_equal(guest(&world, 16 * MIB, PAYLOAD_BYTES), image + PAYLOAD_AT,
                            PAYLOAD_BYTES);
        assert_int_equal(world.bsp.rip, 16 * MIB);
        assert_int_equal(world.bsp.cr0 & UINT64_C(0x80000001), 1);
        assert_int_equal(world.bsp.efer, 0);
        assert_int_equal(world.bsp.segment[SEG_CS].selector, 0x10);
        assert_int_equal(world.bsp.segment[SEG_DS].selector, 0x18);
        assert_int_equal(descriptor_of(&world, SEG_CS), UINT64_C(0x00cf9b000000ffff));
        assert_int_equal(descriptor_of(&world, SEG_DS), UINT64_C(0x00cf93000000ffff));
        assert_int_equal(world.bsp.segment[SEG_CS].attributes & SEGMENT_DB, SEGMENT_DB);
        assert_int_equal(world.bsp.gpr[RBX] | world.bsp.gpr[RBP] | world.bsp.gpr[RDI], 0);
        assert_memory_equal(guest(&world, world.bsp.gpr[RSI] + 0x202, 4), "HdrS", 4);
        close_world(&world);
    }
}

static void test_bzimage_refused(void **state)
{
    make_bzimage();
    refuse_image(BZIMAGE_BYTES - 16, 128 * MIB, "truncated");
    refuse_image(0x220, 128 * MIB, "truncated");
    refuse_image(100, 128 * MIB, "neither a bzImage nor");
    refuse_image(0, 128 * MIB, "neither a bzImage nor");
    refuse_image(BZIMAGE_BYTES, 20 * MIB, "needs 8 MiB from 16 MiB on; memory ends at 20 MiB");
    le16_put(image + 0x206, 0x205);
    refuse_image(BZIMAGE_BYTES, 128 * MIB, "boot protocol 2.05");
    make_bzimage();
    image[0x211] = 0;
    refuse_image(BZIMAGE_BYTES, 128 * MIB, "zImage");
    make_bzimage();
    le32_put(image + 0x1f4, 0);
    refuse_image(BZIMAGE_BYTES, 128 * MIB, "no code");
    make_bzimage();
    le64_put(image + 0x258, 0x9000);
    refuse_image(BZIMAGE_BYTES, 128 * MIB, "below 1 MiB");
    le64_put(image + 0x258, UINT64_MAX & ~UINT64_C(0xfff));
    refuse_image(BZIMAGE_BYTES, 128 * MIB, "makes no sense");
    le64_put(image + 0x258, UINT64_C(0x8000000000));
    refuse_image(BZIMAGE_BYTES, 128 * MIB, "memory ends");
    le16_put(image + 0x236, 0);
    refuse_image(BZIMAGE_BYTES, 128 * MIB, "makes no sense");
    memcpy(image, "\x1f\x8b\x08\x00", 4);
    image[0x202] = 'x';
    refuse_image(BZIMAGE_BYTES, 128 * MIB, "neither a bzImage nor");
}

/* A size in units of 16 bytes may be up to 15 bytes more than the file has. */
static void test_incomplete_last_unit(void **state)
{
    struct world world;
    make_bzimage();
    open_world(&world, 128 * MIB, image, BZIMAGE_BYTES - 15);
    assert_true(load(&world));
    assert_memory_equal(guest(&world, 16 * MIB, PAYLOAD_BYTES - 15), image + PAYLOAD_AT,
                        PAYLOAD_BYTES - 15);
    close_world(&world);
}

static void test_cmdline_limit(void **state)
{
    struct world world;
    char text[102];
    memset(text, 'x', sizeof(text));
    text[100] = 0;
    make_bzimage();
    open_world(&world, 128 * MIB, image, sizeof(image));
    world.config.cmdline = text;
    assert_true(load(&world));
    text[100] = 'x';
    text[101] = 0;
    expect_refused(&world, "may have 100 bytes; the one given has 101");
}

static void test_initrd_too_large(void **state)
{
    struct world world;
    static uint8_t big[9 * MIB];
    make_bzimage();
    open_world(&world, 32 * MIB, image, sizeof(image));
    add_initrd(&world, big, sizeof(big));
    expect_refused(&world, "of 9 MiB; the guest's memory has room for 8 MiB");
    open_world(&world, 32 * MIB, image, sizeof(image));
    add_initrd(&world, big, 8 * MIB);
    assert_true(load(&world));
    close_world(&world);
    open_world(&world, 32 * MIB, image, sizeof(image));
    add_initrd(&world, big, 4 * MIB);
    add_initrd(&world, big, 4 * MIB);
    add_initrd(&world, big, 1);
    expect_refused(&world, "of 9 MiB");
}

enum { ELF_SEGMENT_AT = 0x1000, ELF_NOTE_AT = 0x200, ELF_BYTES = 0x3000 };
static uint8_t elf_image[ELF_BYTES];

static Elf64_Phdr *program_header(unsigned index)
{
    return (Elf64_Phdr *)(void *)(elf_image + sizeof(Elf64_Ehdr) + index * sizeof(Elf64_Phdr));
}

static void make_elf(void)
{
    for (size_t i = 0; i < sizeof(elf_image); i++)
        elf_image[i] = (uint8_t)(i * 13);
    memset(elf_image, 0, ELF_SEGMENT_AT);
    Elf64_Ehdr elf = {.e_type = ET_EXEC,
                      .e_machine = EM_X86_64,
                      .e_phoff = sizeof(Elf64_Ehdr),
                      .e_phentsize = sizeof(Elf64_Phdr),
                      .e_phnum = 2};
    memcpy(elf.e_ident, ELFMAG, SELFMAG);
    elf.e_ident[EI_CLASS] = ELFCLASS64;
    elf.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(elf_image, &elf, sizeof(elf));
    *program_header(0) = (Elf64_Phdr){.p_type = PT_LOAD,
                                      .p_offset = ELF_SEGMENT_AT,
                                      .p_paddr = 16 * MIB,
                                      .p_filesz = 0x2000,
                                      .p_memsz = 0x5000};
    *program_header(1) =
        (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = ELF_NOTE_AT, .p_filesz = 16 + 20};
    /* a note of another kind first, with odd sizes */
    uint8_t *note = elf_image + ELF_NOTE_AT;
    le32_put(note, 2);
    le32_put(note + 4, 0);
    le32_put(note + 8, 18);
    memcpy(note + 12, "X", 2);
    note += 16;
    le32_put(note, 4);
    le32_put(note + 4, 4);
    le32_put(note + 8, 18);
    memcpy(note + 12, "Xen", 4);
    le32_put(note + 16, (uint32_t)(16 * MIB) + 0x40);
}

static void test_pvh(void **state)
{
    struct world world;
    make_elf();
    open_world(&world, 64 * MIB, elf_image, sizeof(elf_image));
    add_initrd(&world, "initrd", 6);
    if (!load(&world))
        fail_msg("%s", world.err.cause);
    assert_memory_equal(guest(&world, 16 * MIB, 0x2000), elf_image + ELF_SEGMENT_AT, 0x2000);
    const struct x86_state *bsp = &world.bsp;
    assert_int_equal(bsp->rip, 16 * MIB + 0x40);
    assert_int_equal(bsp->cr0 & 0x80000001, 1);
    assert_int_equal(bsp->cr4, 0);
    assert_int_equal(bsp->efer, 0);
    assert_true(bsp->segment[SEG_CS].attributes & SEGMENT_DB);
    assert_int_equal(bsp->segment[SEG_CS].limit, 0xffffffff);
    assert_int_equal(descriptor_of(&world, SEG_CS), UINT64_C(0x00cf9b000000ffff));
    assert_int_equal(bsp->segment[SEG_TR].limit, 0x67);
    const uint8_t *info = guest(&world, bsp->gpr[RBX], 56);
    assert_int_equal(le32_get(info), 0x336ec578);
    assert_int_equal(le32_get(info + 4), 1);
    assert_int_equal(le32_get(info + 12), 1);
    const uint8_t *module = guest(&world, le64_get(info + 16), 32);
    assert_int_equal(le64_get(module + 8), 6);
    assert_memory_equal(guest(&world, le64_get(module), 6), "initrd", 6);
    assert_string_equal((const char *)guest(&world, le64_get(info + 24), 64),
                        "console=ttyS0 quiet");
    assert_int_equal(le64_get(info + 32), 0xe0000);
    assert_int_equal(le32_get(info + 48), 3);
    const uint8_t *map = guest(&world, le64_get(info + 40), 72);
    assert_int_equal(le64_get(map + 48), MIB);
    assert_int_equal(le64_get(map + 56), 63 * MIB);
    assert_int_equal(le32_get(map + 64), 1);
    close_world(&world);
}

static void refuse_elf(const char *cause)
{
    struct world world;
    open_world(&world, 64 * MIB, elf_image, sizeof(elf_image));
    expect_refused(&world, cause);
    make_elf();
}

static void test_pvh_refused(void **state)
{
    make_elf();
    program_header(1)->p_type = PT_NULL;
    refuse_elf("without a PVH entry");
    program_header(1)->p_filesz = 30;
    refuse_elf("without a PVH entry");
    le32_put(elf_image + ELF_NOTE_AT, 0xfffffff0);
    refuse_elf("without a PVH entry");
    program_header(0)->p_filesz = 0x2001;
    refuse_elf("truncated");
    program_header(0)->p_offset = UINT64_MAX;
    refuse_elf("truncated");
    program_header(0)->p_memsz = 0x1000;
    refuse_elf("makes no sense");
    program_header(0)->p_paddr = UINT64_MAX - 1;
    refuse_elf("makes no sense");
    program_header(0)->p_paddr = 0x9000;
    refuse_elf("below 1 MiB");
    program_header(0)->p_paddr = 63 * MIB + 0xff000;
    refuse_elf("memory ends at 64 MiB");
    le32_put(elf_image + ELF_NOTE_AT + 32, 0x1005000);
    refuse_elf("in no segment");
    elf_image[EI_CLASS] = ELFCLASS32;
    refuse_elf("not one for x86-64"); /* its machine is not that of its class */
    le16_put(elf_image + offsetof(Elf64_Ehdr, e_phnum), 60000);
    refuse_elf("ends early");
    le64_put(elf_image + offsetof(Elf64_Ehdr, e_phoff), UINT64_MAX - 8);
    refuse_elf("ends early");
}

/* --- Multiboot ------------------------------------------------------------------------------ */

enum { MULTIBOOT_AT = 0x1010, MULTIBOOT_BYTES = 0x3000 };
static uint8_t multiboot_image[MULTIBOOT_BYTES];

/* A header at MULTIBOOT_AT, the start of what is loaded; the rest is a pattern. */
static void put_multiboot_header(uint8_t *file, uint32_t flags)
{
    le32_put(file + MULTIBOOT_AT, 0x1badb002);
    le32_put(file + MULTIBOOT_AT + 4, flags);
    le32_put(file + MULTIBOOT_AT + 8, -(0x1badb002 + flags));
}

static Elf32_Phdr *program_header_32(unsigned index)
{
    return (Elf32_Phdr *)(void *)(multiboot_image + sizeof(Elf32_Ehdr) +
                                  index * sizeof(Elf32_Phdr));
}

/* Linked to 0xc0100000, loaded to 1 MiB; a second segment at 16 KiB. */
static void make_multiboot_elf(void)
{
    for (size_t i = 0; i < sizeof(multiboot_image); i++)
        multiboot_image[i] = (uint8_t)(i * 11);
    memset(multiboot_image, 0, 0x1000);
    Elf32_Ehdr elf = {.e_type = ET_EXEC,
                      .e_machine = EM_386,
                      .e_entry = 0xc0100040,
                      .e_phoff = sizeof(Elf32_Ehdr),
                      .e_phentsize = sizeof(Elf32_Phdr),
                      .e_phnum = 2};
    memcpy(elf.e_ident, ELFMAG, SELFMAG);
    elf.e_ident[EI_CLASS] = ELFCLASS32;
    elf.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(multiboot_image, &elf, sizeof(elf));
    *program_header_32(0) = (Elf32_Phdr){.p_type = PT_LOAD,
                                         .p_offset = 0x1000,
                                         .p_vaddr = 0xc0100000,
                                         .p_paddr = MIB,
                                         .p_filesz = 0x1800,
                                         .p_memsz = 0x5000,
                                         .p_flags = PF_R | PF_X};
    *program_header_32(1) = (Elf32_Phdr){.p_type = PT_LOAD,
                                         .p_offset = 0x2800,
                                         .p_vaddr = 0x4000,
                                         .p_paddr = 0x4000,
                                         .p_filesz = 0x800,
                                         .p_memsz = 0x800,
                                         .p_flags = PF_R};
    put_multiboot_header(multiboot_image, 3);
}

static void open_multiboot(struct world *world)
{
    open_world(world, 64 * MIB, multiboot_image, sizeof(multiboot_image));
    world->config.cmdline = NULL;
}

/* Multiboot Specification 3.2: what every kernel may rely on. */
static const uint8_t *check_multiboot_entry(const struct world *world)
{
    const struct x86_state *bsp = &world->bsp;
    assert_int_equal(bsp->gpr[RAX], 0x2badb002);
    assert_int_equal(bsp->cr0 & 0x80000001, 1);
    assert_int_equal(bsp->rflags & (1 << 17 | 1 << 9), 0);
    assert_int_equal(bsp->efer, 0);
    assert_int_equal(bsp->idtr.base, 0); /* for those that go to real mode: as a BIOS has it */
    assert_int_equal(bsp->idtr.limit, 0x3ff);
    const struct x86_segment *code = &bsp->segment[SEG_CS];
    assert_int_equal(code->base, 0);
    assert_int_equal(code->limit, 0xffffffff);
    assert_int_equal(code->attributes & 0x409b, 0x409b); /* 32 bits, present, code, readable */
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        if (i == SEG_CS)
            continue;
        assert_int_equal(bsp->segment[i].base, 0);
        assert_int_equal(bsp->segment[i].limit, 0xffffffff);
        assert_int_equal(bsp->segment[i].attributes & 0x409b, 0x4093); /* data, writable */
    }
    return guest(world, bsp->gpr[RBX], 120);
}

static const char *guest_string(const struct world *world, uint32_t gpa)
{
    const char *text = (const char *)guest(world, gpa, 100);
    assert_non_null(memchr(text, 0, 100));
    return text;
}

static void test_multiboot_elf(void **state)
{
    struct world world;
    make_multiboot_elf();
    open_multiboot(&world);
    assert_true(boot_takes_modules(world.kernel));
    if (!load(&world))
        fail_msg("%s", world.err.cause);
    assert_memory_equal(guest(&world, MIB, 0x1800), multiboot_image + 0x1000, 0x1800);
    assert_memory_equal(guest(&world, 0x4000, 0x800), multiboot_image + 0x2800, 0x800);
    assert_int_equal(world.bsp.rip, MIB + 0x40);
    /* The BIOS data area: no extended one, and the memory below. */
    assert_int_equal(le16_get(guest(&world, 0x40e, 2)), 0);
    assert_int_equal(le16_get(guest(&world, 0x413, 2)), 639);
    const uint8_t *info = check_multiboot_entry(&world);
    /* memory, command line, modules, map, loader's name; neither boot device nor anything else */
    assert_int_equal(le32_get(info), 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    assert_int_equal(le32_get(info + 4), 639);
    assert_int_equal(le32_get(info + 8), 63 * 1024);
    assert_string_equal(guest_string(&world, le32_get(info + 16)), "(memory)");
    assert_int_equal(le32_get(info + 20), 0);
    assert_string_equal(guest_string(&world, le32_get(info + 64)), "skep");
    assert_int_equal(le32_get(info + 44), 3 * 24);
    const uint8_t *map = guest(&world, le32_get(info + 48), 3 * 24);
    assert_int_equal(le32_get(map), 20);
    assert_int_equal(le64_get(map + 4), 0);
    assert_int_equal(le64_get(map + 12), 0x9fc00);
    assert_int_equal(le32_get(map + 20), 1);
    assert_int_equal(le64_get(map + 28), 0xe0000);
    assert_int_equal(le32_get(map + 44), 2);
    assert_int_equal(le64_get(map + 52), MIB);
    assert_int_equal(le64_get(map + 60), 63 * MIB);
    close_world(&world);
}

static void test_multiboot_modules(void **state)
{
    static const char *const texts[] = {"first one two", "second"};
    struct world world;
    make_multiboot_elf();
    open_multiboot(&world);
    world.config.cmdline = "-x 1";
    add_initrd(&world, "abcde", 5);
    add_initrd(&world, image, 5000);
    world.config.module_texts = texts;
    assert_true(load(&world));
    const uint8_t *info = check_multiboot_entry(&world);
    assert_string_equal(guest_string(&world, le32_get(info + 16)), "(memory) -x 1");
    assert_int_equal(le32_get(info + 20), 2);
    const uint8_t *modules = guest(&world, le32_get(info + 24), 32);
    for (unsigned i = 0; i < 2; i++) {
        uint32_t start = le32_get(modules + 16 * i), end = le32_get(modules + 16 * i + 4);
        assert_int_equal(start % 4096, 0);
        assert_true(start >= MIB + 0x5000);
        assert_int_equal(end - start, i ? 5000 : 5);
        assert_memory_equal(guest(&world, start, end - start), i ? (const void *)image : "abcde",
                            end - start);
        assert_string_equal(guest_string(&world, le32_get(modules + 16 * i + 8)), texts[i]);
        assert_int_equal(le32_get(modules + 16 * i + 12), 0);
    }
    close_world(&world);
}

/* Where the information would be, a kernel is: it goes elsewhere, and both are whole. */
static void test_multiboot_low(void **state)
{
    struct world world;
    make_multiboot_elf();
    program_header_32(1)->p_paddr = 0x1000;
    program_header_32(1)->p_memsz = 0x9ec00;
    open_multiboot(&world);
    assert_true(load(&world));
    const uint8_t *info = check_multiboot_entry(&world);
    assert_int_equal(le32_get(info + 4), 639);
    assert_true(world.bsp.gpr[RBX] >= MIB + 0x5000);
    assert_memory_equal(guest(&world, 0x1000, 0x800), multiboot_image + 0x2800, 0x800);
    for (unsigned i = 0x1800; i < 0x9fc00; i += 512)
        assert_int_equal(*guest(&world, i, 1), 0);
    close_world(&world);
}

/* 3.1.3: the addresses of the header count, whatever the file is. */
static void test_multiboot_addresses(void **state)
{
    struct world world;
    make_multiboot_elf();
    memset(multiboot_image, 0x90, 0x1000);
    put_multiboot_header(multiboot_image, 1 << 16);
    le32_put(multiboot_image + MULTIBOOT_AT + 12, 2 * MIB + 0x10); /* of the header */
    le32_put(multiboot_image + MULTIBOOT_AT + 16, 2 * MIB);
    le32_put(multiboot_image + MULTIBOOT_AT + 20, 2 * MIB + 0x1000);
    le32_put(multiboot_image + MULTIBOOT_AT + 24, 2 * MIB + 0x4000);
    le32_put(multiboot_image + MULTIBOOT_AT + 28, 2 * MIB + 0x20);
    open_multiboot(&world);
    if (!load(&world))
        fail_msg("%s", world.err.cause);
    assert_memory_equal(guest(&world, 2 * MIB, 0x1000), multiboot_image + 0x1000, 0x1000);
    assert_int_equal(*guest(&world, 2 * MIB + 0x1000, 1), 0);
    assert_int_equal(world.bsp.rip, 2 * MIB + 0x20);
    check_multiboot_entry(&world);
    close_world(&world);
    le32_put(multiboot_image + MULTIBOOT_AT + 20, 0); /* up to the file's end */
    le32_put(multiboot_image + MULTIBOOT_AT + 24, 0);
    open_multiboot(&world);
    assert_true(load(&world));
    assert_memory_equal(guest(&world, 2 * MIB, 0x2000), multiboot_image + 0x1000, 0x2000);
    close_world(&world);
}

/* A 64-bit file is loaded by its physical addresses and entered in 32-bit mode; one with a PVH
 * note, too, is not a Multiboot kernel. */
static void test_multiboot_elf64(void **state)
{
    struct world world;
    make_elf();
    program_header(1)->p_type = PT_NULL;
    program_header(0)->p_vaddr = UINT64_C(0xffffffff80000000);
    program_header(0)->p_flags = PF_X;
    le64_put(elf_image + offsetof(Elf64_Ehdr, e_entry), UINT64_C(0xffffffff80000100));
    put_multiboot_header(elf_image, 0);
    open_world(&world, 64 * MIB, elf_image, sizeof(elf_image));
    if (!load(&world))
        fail_msg("%s", world.err.cause);
    check_multiboot_entry(&world);
    assert_int_equal(world.bsp.rip, 16 * MIB + 0x100);
    assert_memory_equal(guest(&world, 16 * MIB, 0x2000), elf_image + ELF_SEGMENT_AT, 0x2000);
    close_world(&world);
    make_elf();
    put_multiboot_header(elf_image, 0);
    open_world(&world, 64 * MIB, elf_image, sizeof(elf_image));
    assert_false(boot_takes_modules(world.kernel));
    assert_true(load(&world));
    assert_int_equal(le32_get(guest(&world, world.bsp.gpr[RBX], 4)), 0x336ec578);
    close_world(&world);
    make_elf();
}

static void refuse_multiboot(const char *cause)
{
    struct world world;
    open_multiboot(&world);
    expect_refused(&world, cause);
    make_multiboot_elf();
}

static void test_multiboot_refused(void **state)
{
    static uint8_t big[9 * MIB];
    struct world world;
    make_multiboot_elf();
    put_multiboot_header(multiboot_image, 1 << 4);
    refuse_multiboot("flags 0x10");
    multiboot_image[MULTIBOOT_AT + 8] ^= 1;
    refuse_multiboot("without a Multiboot header");
    memset(multiboot_image, 0, 16);
    refuse_multiboot("no ELF file");
    program_header_32(0)->p_filesz = 0x2801;
    refuse_multiboot("truncated");
    program_header_32(0)->p_paddr = 0xa0000;
    refuse_multiboot("no usable memory");
    program_header_32(1)->p_paddr = 0x9f800;
    refuse_multiboot("no usable memory");
    program_header_32(0)->p_memsz = 64 * MIB;
    refuse_multiboot("memory ends at 64 MiB");
    program_header_32(0)->p_flags = 0;
    refuse_multiboot("in no segment");
    put_multiboot_header(multiboot_image, 1 << 16);
    le32_put(multiboot_image + MULTIBOOT_AT + 12, 0x1000);
    le32_put(multiboot_image + MULTIBOOT_AT + 16, 0x2000);
    refuse_multiboot("before the file's");
    put_multiboot_header(multiboot_image, 1 << 16);
    le32_put(multiboot_image + MULTIBOOT_AT + 12, 2 * MIB);
    le32_put(multiboot_image + MULTIBOOT_AT + 16, 2 * MIB);
    le32_put(multiboot_image + MULTIBOOT_AT + 20, 2 * MIB + 0x2000);
    refuse_multiboot("truncated");
    open_world(&world, 16 * MIB, multiboot_image, sizeof(multiboot_image));
    add_initrd(&world, big, sizeof(big));
    add_initrd(&world, big, sizeof(big));
    expect_refused(&world, "of 18 MiB");
}

static void expect_open_fails(const char *path, const char *cause)
{
    struct error err = {0};
    assert_null(boot_file_open("kernel", path, &err));
    if (!strstr(err.cause, cause))
        fail_msg("\"%s\" is not in \"%s\"", cause, err.cause);
    assert_string_equal(err.where, path);
    assert_non_null(strstr(err.what, "kernel"));
}

static void test_files(void **state)
{
    char folder[] = "/tmp/skep-loader-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    expect_open_fails(folder, "Is a directory");
    snprintf(path, sizeof(path), "%s/file", folder);
    expect_open_fails(path, "No such file");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    expect_open_fails(path, "empty");
    file = fopen(path, "w");
    assert_int_equal(fwrite("0123456789", 10, 1, file), 1);
    fclose(file);
    struct boot_file *boot = boot_file_open("kernel", path, NULL);
    assert_non_null(boot);
    assert_int_equal(boot_file_size_bytes(boot), 10);
    char buffer[11] = {0};
    struct error err = {0};
    assert_true(boot_file_read(boot, 3, buffer, 7, &err));
    assert_string_equal(buffer, "3456789");
    assert_false(boot_file_read(boot, 4, buffer, 7, &err));
    assert_false(boot_file_read(boot, UINT64_MAX, buffer, 2, &err));
    /* it shrinks while it is open */
    assert_int_equal(truncate(path, 5), 0);
    assert_false(boot_file_read(boot, 3, buffer, 7, &err));
    assert_non_null(strstr(err.cause, "ends early"));
    boot_file_close(boot);
    unlink(path);
    rmdir(folder);
}

static void test_pipe(void **state)
{
    int ends[2];
    char path[32], buffer[6] = {0};
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "piped", 5), 5);
    close(ends[1]);
    snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
    struct boot_file *file = boot_file_open("initrd", path, NULL);
    assert_non_null(file);
    assert_int_equal(boot_file_size_bytes(file), 5);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(boot_file_read(file, 0, buffer, 5, NULL));
        assert_string_equal(buffer, "piped");
    }
    boot_file_close(file);
    close(ends[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bzimage),
        cmocka_unit_test(test_initrds),
        cmocka_unit_test(test_initrd_limit),
        cmocka_unit_test(test_bzimage_32bit),
        cmocka_unit_test(test_bzimage_refused),
        cmocka_unit_test(test_cmdline_limit),
        cmocka_unit_test(test_incomplete_last_unit),
        cmocka_unit_test(test_initrd_too_large),
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_pvh_refused),
        cmocka_unit_test(test_multiboot_elf),
        cmocka_unit_test(test_multiboot_modules),
        cmocka_unit_test(test_multiboot_low),
        cmocka_unit_test(test_multiboot_addresses),
        cmocka_unit_test(test_multiboot_elf64),
        cmocka_unit_test(test_multiboot_refused),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
