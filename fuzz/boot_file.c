/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the boot loaders on kernels and initrds of any content. The input's first byte
 * chooses the memory's size and what the rest is: a kernel as it is, or one behind a start that
 * makes it a bzImage, an ELF file or a Multiboot kernel, so that more than the first checks is
 * reached.
 */
#include "machine/boot.h"
#include "machine/bytes.h"

#include <assert.h>
#include <elf.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { AS_IT_IS, BZIMAGE, ELF_FILE, MULTIBOOT, KINDS, HEAD_BYTES = 0x290 };

/* The marks without which a loader looks no further. */
static void mark(uint8_t *image, size_t size_bytes, unsigned kind)
{
    if (kind == BZIMAGE && size_bytes >= HEAD_BYTES) {
        le16_put(image + 0x1fe, 0xaa55);
        memcpy(image + 0x202, "HdrS", 4);
        image[0x207] |= 2;
        image[0x206] |= 0xc;
        image[0x211] |= 1;
        image[0x236] |= 1;
        image[0x262] = image[0x263] = 0;
        memset(image + 0x25c, 0, 4);
    } else if (kind == ELF_FILE && size_bytes >= sizeof(Elf64_Ehdr)) {
        memcpy(image, ELFMAG, SELFMAG);
        image[EI_CLASS] = ELFCLASS64;
        image[EI_DATA] = ELFDATA2LSB;
        le16_put(image + offsetof(Elf64_Ehdr, e_machine), EM_X86_64);
        le16_put(image + offsetof(Elf64_Ehdr, e_phentsize), sizeof(Elf64_Phdr));
        memset(image + offsetof(Elf64_Ehdr, e_phoff) + 2, 0, 6);
    } else if (kind == MULTIBOOT && size_bytes >= 32) {
        uint32_t flags = le32_get(image + 4) & 0x10007;
        le32_put(image, 0x1badb002);
        le32_put(image + 4, flags);
        le32_put(image + 8, -(0x1badb002 + flags));
    }
}

/* What a loader that succeeded must have left: an entry into what it loaded. */
static void check(const struct ram *ram, const struct x86_state *bsp)
{
    assert(bsp->rip >= 0x100000 || bsp->gpr[RAX] == 0x2badb002);
    assert(ram_hva(ram, bsp->rip, 1));
    assert(bsp->gpr[RSI] || bsp->gpr[RBX]);
}

static void run(uint8_t *image, size_t size_bytes, size_t initrd_bytes, uint64_t memory_bytes)
{
    struct ram *ram = ram_create(memory_bytes, NULL);
    struct boot_file *kernel = boot_file_memory("kernel", image, size_bytes);
    struct boot_file *initrd = boot_file_memory("initrd", image, initrd_bytes);
    struct memory_map map = {0};
    struct x86_state bsp;
    struct error err = {0};
    assert(ram && kernel && initrd);
    memory_map_add(&map, 0, 0x9fc00, MEMORY_USABLE);
    memory_map_add(&map, 0x100000, memory_bytes - 0x100000, MEMORY_USABLE);
    x86_state_reset(&bsp, true);
    const struct boot_config config = {.kernel = kernel,
                                       .initrds = &initrd,
                                       .initrd_count = initrd_bytes ? 1 : 0,
                                       .cmdline = "console=ttyS0",
                                       .map = &map};
    if (boot_load(&config, ram, &bsp, &err))
        check(ram, &bsp);
    else
        assert(err.kind != ERROR_NONE && err.cause[0]);
    boot_file_close(initrd);
    boot_file_close(kernel);
    ram_destroy(ram);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint64_t memory_bytes = (uint64_t)(2 + (data[0] & 0x3f)) << 20;
    size_t initrd_bytes = data[1] < size ? data[1] : 0;
    uint8_t *image = malloc(size);
    if (!image)
        return 0;
    memcpy(image, data + 2, size - 2);
    mark(image, size - 2, (data[0] >> 6) % KINDS);
    run(image, size - 2, initrd_bytes, memory_bytes);
    free(image);
    return 0;
}
