/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the file of a saved machine. The input's first byte says how it is taken: as a file;
 * as one whose header's checksum was made right; as a description; as a processor's state. Whatever
 * it is, it is refused or read within its bounds.
 */
#include "base/crc32c.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    switch (data[0] % 4) {
    case 0: as_file(data + 1, size - 1, false); break;
    case 1: as_file(data + 1, size - 1, true); break;
    case 2: as_description(data + 1, size - 1); break;
    case 3: as_state(data + 1, size - 1); break;
    }
    return 0;
}
