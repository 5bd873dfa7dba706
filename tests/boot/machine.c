/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A machine's life with a guest of a few instructions, booted through PVH: how it ends (exit port,
 * power off, reset with and without no_reboot, triple fault, halt for good, quit), that a reset
 * starts from clear memory, that the power button arrives, that a saved machine goes on in another
 * one, and that one which is damaged, hostile or of another shape is refused.
 *
 * SKEP_TEST_ENGINE names the engine (soft unless given).
 */
#include "base/crc32c.h"
#include "machine/bytes.h"
#include "machine/debug.h"
#include "vm/vm.h"

#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* The guest: 32-bit code at 1 MiB that does what the byte after its first jump says. */
__asm__(".pushsection .rodata\n"
        ".code32\n"
        "guest_start:\n"
        "    jmp 1f\n"
        "guest_what: .byte 0\n"
        "1:  mov $0x100002, %esi\n"
        "    movzbl (%esi), %eax\n"
        "    cmp $1, %al\n"
        "    je power_off\n"
        "    cmp $2, %al\n"
        "    je reset\n"
        "    cmp $3, %al\n"
        "    je triple_fault\n"
        "    cmp $4, %al\n"
        "    je wait_for_button\n"
        "    cmp $5, %al\n"
        "    je sleep\n"
        "    cmp $6, %al\n"
        "    je sleep_until_nmi\n"
        /* 0: the exit port */
        "    mov $0xf4, %edx\n"
        "    mov $0x2a, %eax\n"
        "    outl %eax, %dx\n"
        "sleep:\n"
        "    cli\n"
        "    hlt\n"
        "    jmp sleep\n"
        "power_off:\n"
        "    mov $0x604, %edx\n"
        "    mov $0x3c00, %eax\n"
        "    outw %ax, %dx\n"
        "    jmp sleep\n"
        /* The first time: leaves a mark in CMOS and one in memory, and resets. The second time: out
         * to the exit port with what is left in memory, which is to be nothing, plus 1. */
        "reset:\n"
        "    mov $0x50, %al\n"
        "    outb %al, $0x70\n"
        "    inb $0x71, %al\n"
        "    cmp $0x77, %al\n"
        "    je again\n"
        "    mov $0x50, %al\n"
        "    outb %al, $0x70\n"
        "    mov $0x77, %al\n"
        "    outb %al, $0x71\n"
        "    movl $0x40, 0x300000\n"
        "    mov $0xcf9, %edx\n"
        "    mov $6, %al\n"
        "    outb %al, %dx\n"
        "    jmp sleep\n"
        "again:\n"
        "    mov 0x300000, %eax\n"
        "    inc %eax\n"
        "    mov $0xf4, %edx\n"
        "    outl %eax, %dx\n"
        "    jmp sleep\n"
        /* Likewise, but the reset is one: no IDT, and #UD. */
        "triple_fault:\n"
        "    mov $0x50, %al\n"
        "    outb %al, $0x70\n"
        "    inb $0x71, %al\n"
        "    cmp $0x77, %al\n"
        "    je again\n"
        "    mov $0x50, %al\n"
        "    outb %al, $0x70\n"
        "    mov $0x77, %al\n"
        "    outb %al, $0x71\n"
        "    ud2\n"
        /* Says R on COM1, waits for the power button, then gives a sum of register and memory. */
        "wait_for_button:\n"
        "    mov $0x21, %ebx\n"
        "    movl $0x14, 0x300000\n"
        "    mov $0x3f8, %edx\n"
        "    mov $0x52, %al\n"
        "    outb %al, %dx\n"
        "    mov $0x600, %edx\n"
        "2:  inw %dx, %ax\n"
        "    test $1, %ah\n"
        "    jz 2b\n"
        "    mov 0x300000, %eax\n"
        "    add %ebx, %eax\n"
        "    mov $0xf4, %edx\n"
        "    outl %eax, %dx\n"
        "    jmp sleep\n"
        /* The timer's first tick, some 55 ms away, is an NMI by the I/O APIC; without IDT. */
        "sleep_until_nmi:\n"
        "    movl $0x14, 0xfec00000\n"
        "    movl $0x400, 0xfec00010\n"
        "    mov $0x30, %al\n"
        "    outb %al, $0x43\n"
        "    mov $0xff, %al\n"
        "    outb %al, $0x40\n"
        "    outb %al, $0x40\n"
        "    jmp sleep\n"
        "guest_end:\n"
        ".code64\n"
        ".popsection\n");
extern const uint8_t guest_start[], guest_end[];

enum guest { EXIT, POWER_OFF, RESET, TRIPLE_FAULT, BUTTON, SLEEP, NMI };
enum { CODE_AT = 0x1000, GUEST_GPA = 0x100000, WHAT_AT = 2 };

static char folder[] = "/tmp/skep-machine-XXXXXX";
static char kernel_path[64], serial_path[64], serial_spec[80], saved_path[64];

static void write_kernel(enum guest guest)
{
    uint8_t file[0x2000] = {0};
    size_t code_bytes = (size_t)(guest_end - guest_start);
    const Elf64_Ehdr elf = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                            .e_type = ET_EXEC,
                            .e_machine = EM_X86_64,
                            .e_phoff = sizeof(elf),
                            .e_phentsize = sizeof(Elf64_Phdr),
                            .e_phnum = 2};
    const Elf64_Phdr headers[2] = {{.p_type = PT_LOAD,
                                    .p_offset = CODE_AT,
                                    .p_paddr = GUEST_GPA,
                                    .p_filesz = code_bytes,
                                    .p_memsz = code_bytes},
                                   {.p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = 20}};
    memcpy(file, &elf, sizeof(elf));
    memcpy(file + sizeof(elf), headers, sizeof(headers));
    le32_put(file + 0x800, 4);
    le32_put(file + 0x804, 4);
    le32_put(file + 0x808, 18);
    memcpy(file + 0x80c, "Xen", 4);
    le32_put(file + 0x810, GUEST_GPA);
    memcpy(file + CODE_AT, guest_start, code_bytes);
    file[CODE_AT + WHAT_AT] = (uint8_t)guest;
    FILE *out = fopen(kernel_path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(file, sizeof(file), 1, out), 1);
    assert_int_equal(fclose(out), 0);
}

static int make_folder(void **state)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(kernel_path, sizeof(kernel_path), "%s/kernel", folder);
    snprintf(serial_path, sizeof(serial_path), "%s/serial", folder);
    snprintf(saved_path, sizeof(saved_path), "%s/saved", folder);
    snprintf(serial_spec, sizeof(serial_spec), "file:%s", serial_path);
    return 0;
}

static int remove_folder(void **state)
{
    unlink(kernel_path);
    unlink(serial_path);
    unlink(saved_path);
    return rmdir(folder);
}

static struct vm_config config_for(enum guest guest)
{
    const char *engine = getenv("SKEP_TEST_ENGINE");
    write_kernel(guest);
    return (struct vm_config){.machine = {.engine = engine ? engine : "soft",
                                          .memory_bytes = 32 << 20,
                                          .kernel = kernel_path,
                                          .serials = {serial_spec},
                                          .serial_count = 1,
                                          .has_exit_port = true}};
}

static struct vm *open_vm(const struct vm_config *config)
{
    struct error err = {0};
    struct vm *vm = vm_create(config, NULL, &err);
    if (!vm)
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
    return vm;
}

static int run(const struct vm_config *config, struct machine_end *end, unsigned *reboots)
{
    struct vm *vm = open_vm(config);
    int code = vm_run(vm, end);
    struct machine_stats stats;
    machine_stats(vm_machine(vm), &stats);
    *reboots = stats.reboots;
    vm_destroy(vm);
    if (end->reason == MACHINE_FAILED)
        fail_msg("%s %s: %s", end->error.what, end->error.where, end->error.cause);
    return code;
}

static void test_exit_port(void **state)
{
    struct vm_config config = config_for(EXIT);
    struct machine_end end;
    unsigned reboots;
    assert_int_equal(run(&config, &end, &reboots), 0x2a << 1 | 1);
    assert_int_equal(end.reason, MACHINE_EXIT_PORT);
    assert_int_equal(end.exit_value, 0x2a);
}

static void test_power_off(void **state)
{
    struct vm_config config = config_for(POWER_OFF);
    struct machine_end end;
    unsigned reboots;
    assert_int_equal(run(&config, &end, &reboots), 0);
    assert_int_equal(end.reason, MACHINE_POWERED_OFF);
    assert_int_equal(reboots, 0);
}

static void test_reset(void **state)
{
    struct vm_config config = config_for(RESET);
    struct machine_end end;
    unsigned reboots;
    assert_int_equal(run(&config, &end, &reboots), 1 << 1 | 1);
    assert_int_equal(end.exit_value, 1); /* memory was clear */
    assert_int_equal(reboots, 1);
}

static void test_no_reboot(void **state)
{
    struct vm_config config = config_for(RESET);
    struct machine_end end;
    unsigned reboots;
    config.machine.no_reboot = true;
    assert_int_equal(run(&config, &end, &reboots), 0);
    assert_int_equal(end.reason, MACHINE_REBOOTED);
    assert_int_equal(reboots, 0);
}

static void test_triple_fault(void **state)
{
    struct vm_config config = config_for(TRIPLE_FAULT);
    struct machine_end end;
    unsigned reboots;
    assert_int_equal(run(&config, &end, &reboots), 1 << 1 | 1);
    assert_int_equal(reboots, 1);
}

static void test_halt_ends(void **state)
{
    struct vm_config config = config_for(SLEEP);
    struct machine_end end;
    unsigned reboots;
    config.machine.halt_ends = true;
    config.machine.vcpu_count = 2;
    assert_int_equal(run(&config, &end, &reboots), 0);
    assert_int_equal(end.reason, MACHINE_HALTED);
}

/* What an NMI is to end is no halt for good; here the NMI is a triple fault. */
static void test_nmi(void **state)
{
    struct vm_config config = config_for(NMI);
    struct machine_end end;
    unsigned reboots;
    config.machine.halt_ends = config.machine.no_reboot = true;
    run(&config, &end, &reboots);
    assert_int_equal(end.reason, MACHINE_REBOOTED);
    assert_true(end.triple_fault);
}

static void count_halt(void *opaque, struct vm *vm)
{
    (*(unsigned *)opaque)++;
}

static void run_until_halted(struct vm *vm, const unsigned *halts, unsigned wanted)
{
    for (unsigned i = 0; i < 500 && *halts < wanted; i++)
        loop_run_once(vm_loop(vm), 10);
    assert_int_equal(*halts, wanted);
    assert_string_equal(machine_state(vm_machine(vm)), "halted");
}

/* It is told once, and the machine can be paused, and reset to halt again. */
static void test_halt_is_told(void **state)
{
    struct vm_config config = config_for(SLEEP);
    unsigned halts = 0;
    config.halted = count_halt;
    config.opaque = &halts;
    struct vm *vm = open_vm(&config);
    machine_start(vm_machine(vm));
    run_until_halted(vm, &halts, 1);
    machine_pause(vm_machine(vm));
    assert_string_equal(machine_state(vm_machine(vm)), "paused");
    machine_resume(vm_machine(vm));
    for (unsigned i = 0; i < 5; i++)
        loop_run_once(vm_loop(vm), 10);
    run_until_halted(vm, &halts, 1);
    vm_reset(vm);
    run_until_halted(vm, &halts, 2);
    vm_destroy(vm);
}

static void no_stop(void *opaque, unsigned vcpu, const struct debug_stop *stop) {}

/* A debugger may have it go on, so the end waits until there is none. */
static void test_halt_under_debugger(void **state)
{
    static const enum machine_debug_action actions[] = {MACHINE_DEBUG_CONTINUE};
    const struct machine_debugger debugger = {.stopped = no_stop};
    struct vm_config config = config_for(SLEEP);
    struct machine_end end;
    config.machine.halt_ends = true;
    struct vm *vm = open_vm(&config);
    assert_true(machine_debug_attach(vm_machine(vm), &debugger, NULL));
    assert_true(machine_debug_resume(vm_machine(vm), actions, true, NULL));
    for (unsigned i = 0; i < 10; i++)
        loop_run_once(vm_loop(vm), 10);
    assert_string_equal(machine_state(vm_machine(vm)), "running");
    machine_debug_stop(vm_machine(vm));
    machine_debug_detach(vm_machine(vm));
    vm_run(vm, &end);
    assert_int_equal(end.reason, MACHINE_HALTED);
    vm_destroy(vm);
}

static void quit(void *opaque)
{
    vm_quit(opaque);
}

static void test_quit(void **state)
{
    struct vm_config config = config_for(SLEEP);
    config.machine.vcpu_count = 3;
    struct vm *vm = open_vm(&config);
    struct machine_end end;
    struct loop_timer *timer = loop_timer_open(vm_loop(vm), quit, vm);
    loop_timer_start(timer, 20);
    assert_int_equal(vm_run(vm, &end), 0);
    assert_int_equal(end.reason, MACHINE_QUIT);
    char info[512];
    assert_true(vm_info(vm, info, sizeof(info)) > 0);
    assert_non_null(strstr(info, "vCPUs         3"));
    loop_timer_close(timer);
    vm_destroy(vm);
}

static bool guest_is_ready(void)
{
    struct stat status;
    return !stat(serial_path, &status) && status.st_size > 0;
}

static void test_power_button(void **state)
{
    struct vm_config config = config_for(BUTTON);
    struct vm *vm = open_vm(&config);
    struct machine_end end;
    machine_start(vm_machine(vm));
    while (!guest_is_ready())
        loop_run_once(vm_loop(vm), 10);
    vm_power_button(vm);
    assert_int_equal(vm_run(vm, &end), (0x35 << 1 | 1) & 0xff);
    vm_destroy(vm);
}

/* Runs the guest that waits for the button until it waits, and saves it. */
static void save_waiting(const struct vm_config *config)
{
    unlink(serial_path);
    struct vm *vm = open_vm(config);
    struct error err = {0};
    machine_start(vm_machine(vm));
    while (!guest_is_ready())
        loop_run_once(vm_loop(vm), 10);
    if (!vm_save(vm, saved_path, true, NULL, NULL, &err))
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
    loop_run(vm_loop(vm)); /* until it has ended */
    vm_destroy(vm);
}

static struct machine_saved *open_saved(void)
{
    struct error err = {0};
    struct machine_saved *saved = machine_saved_open(saved_path, &err);
    if (!saved)
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
    return saved;
}

static void test_save_and_load(void **state)
{
    struct vm_config config = config_for(BUTTON);
    save_waiting(&config);
    config = config_for(SLEEP); /* what it would do if it was not loaded */
    config.machine.saved = open_saved();
    const struct machine_config *saved = machine_saved_config(config.machine.saved);
    assert_int_equal(saved->memory_bytes, 32 << 20);
    assert_int_equal(saved->vcpu_count, 1);
    assert_string_equal(saved->serials[0], serial_spec);
    assert_string_equal(saved->kernel, kernel_path);
    assert_true(saved->has_exit_port && !saved->no_rng);
    struct vm *vm = open_vm(&config);
    struct machine_end end;
    vm_power_button(vm);
    assert_int_equal(vm_run(vm, &end), (0x35 << 1 | 1) & 0xff);
    assert_int_equal(end.exit_value, 0x35);
    vm_destroy(vm);
    machine_saved_close((struct machine_saved *)(uintptr_t)config.machine.saved);
}

/* It goes on, too, and has not lost anything. */
static void test_save_and_go_on(void **state)
{
    struct vm_config config = config_for(BUTTON);
    unlink(serial_path);
    struct vm *vm = open_vm(&config);
    struct error err = {0};
    struct machine_end end;
    machine_start(vm_machine(vm));
    while (!guest_is_ready())
        loop_run_once(vm_loop(vm), 10);
    assert_false(vm_save(vm, "/nonexistent/machine", false, NULL, NULL, &err));
    assert_string_equal(machine_state(vm_machine(vm)), "running");
    assert_false(vm_save(vm, "/nonexistent/machine", true, NULL, NULL, &err));
    assert_string_equal(machine_state(vm_machine(vm)), "running");
    assert_true(vm_save(vm, saved_path, false, NULL, NULL, &err));
    assert_string_equal(machine_state(vm_machine(vm)), "running");
    vm_power_button(vm);
    assert_int_equal(vm_run(vm, &end), (0x35 << 1 | 1) & 0xff);
    assert_false(vm_save(vm, saved_path, false, NULL, NULL, &err));
    assert_string_equal(err.cause, "it has ended");
    vm_destroy(vm);
}

static void expect_other(struct vm_config config, const char *cause)
{
    struct error err = {0};
    config.machine.saved = open_saved();
    assert_null(vm_create(&config, NULL, &err));
    if (!strstr(err.cause, cause))
        fail_msg("\"%s\" is not in \"%s: %s\"", cause, err.what, err.cause);
    machine_saved_close((struct machine_saved *)(uintptr_t)config.machine.saved);
}

/* Of another machine: refused before anything runs. */
static void test_other_machine(void **state)
{
    struct vm_config config = config_for(BUTTON), changed;
    save_waiting(&config);
    changed = config;
    changed.machine.memory_bytes = 64 << 20;
    expect_other(changed, "MiB of memory, not");
    changed = config;
    changed.machine.vcpu_count = 2;
    expect_other(changed, "it has 1 processors, not 2");
    changed = config;
    changed.machine.has_exit_port = false;
    expect_other(changed, "a device 'exit_port'");
    changed = config;
    changed.machine.no_balloon = true;
    expect_other(changed, "it has a device 'virtio-balloon in slot 2' that this one lacks");
    changed = config;
    changed.machine.no_rng = true;
    expect_other(changed, "it has a device 'virtio-rng in slot 1' where this one has");
    changed = config;
    changed.machine.disks[0].path = kernel_path;
    changed.machine.disks[0].read_only = changed.machine.disks[0].is_surely_raw = true;
    changed.machine.disk_count = 1;
    expect_other(changed, "it has 0 drives, not 1");
}

/* A disk whose contents are not those of then. */
static void test_changed_disk(void **state)
{
    struct vm_config config = config_for(BUTTON);
    char disk[80];
    snprintf(disk, sizeof(disk), "%s/disk", folder);
    FILE *out = fopen(disk, "w");
    assert_int_equal(ftruncate(fileno(out), 1 << 20), 0);
    fclose(out);
    config.machine.disks[0].path = disk;
    config.machine.disk_count = 1;
    save_waiting(&config);
    config.machine.saved = open_saved();
    vm_destroy(open_vm(&config)); /* looking at it changes nothing */
    vm_destroy(open_vm(&config));
    machine_saved_close((struct machine_saved *)(uintptr_t)config.machine.saved);
    config.machine.saved = NULL;
    out = fopen(disk, "r+");
    assert_int_equal(fputc('x', out), 'x');
    fclose(out);
    expect_other(config, "changed after");
    config.machine.trust_disks = true;
    config.machine.saved = open_saved();
    vm_destroy(open_vm(&config));
    machine_saved_close((struct machine_saved *)(uintptr_t)config.machine.saved);
    config.machine.saved = NULL;
    assert_int_equal(truncate(disk, 2 << 20), 0);
    expect_other(config, "bytes, not the");
    unlink(disk);
}

static uint8_t *read_file(size_t *size_bytes)
{
    struct stat status;
    assert_int_equal(stat(saved_path, &status), 0);
    uint8_t *bytes = malloc((size_t)status.st_size);
    FILE *in = fopen(saved_path, "rb");
    assert_int_equal(fread(bytes, (size_t)status.st_size, 1, in), 1);
    fclose(in);
    *size_bytes = (size_t)status.st_size;
    return bytes;
}

static void write_at(size_t at, const void *bytes, size_t size_bytes)
{
    FILE *out = fopen(saved_path, "rb+");
    fseek(out, (long)at, SEEK_SET);
    assert_int_equal(fwrite(bytes, size_bytes, 1, out), 1);
    fclose(out);
}

/* False: refused, with a message. */
static bool try_restore(struct vm_config config)
{
    struct error err = {0};
    struct machine_saved *saved = machine_saved_open(saved_path, &err);
    config.machine.saved = saved;
    struct vm *vm = saved ? vm_create(&config, NULL, &err) : NULL;
    assert_true(vm || (err.kind != ERROR_NONE && err.cause[0]));
    bool restored = vm;
    vm_destroy(vm);
    machine_saved_close(saved);
    return restored;
}

static void test_damaged(void **state)
{
    struct vm_config config = config_for(BUTTON);
    save_waiting(&config);
    size_t size_bytes;
    uint8_t *bytes = read_file(&size_bytes);
    srand(4);
    for (unsigned i = 0; i < 100; i++) {
        size_t at = (size_t)rand() % size_bytes;
        uint8_t other = (uint8_t)(bytes[at] ^ (1 + rand() % 255));
        write_at(at, &other, 1);
        if (try_restore(config))
            fail_msg("byte %zu: not noticed", at);
        write_at(at, &bytes[at], 1);
    }
    assert_true(try_restore(config));
    free(bytes);
}

/* Somebody who can make checksums: whatever the state says, nothing worse than a refusal comes of
 * it. The state is behind memory and its sums. */
static void test_hostile_state(void **state)
{
    enum { PAGE = 4096, STATE_BYTES_AT = 32, STATE_SUM_AT = 44 };
    struct vm_config config = config_for(BUTTON);
    save_waiting(&config);
    size_t size_bytes;
    uint8_t *bytes = read_file(&size_bytes);
    size_t used_bytes = (size_t)le64_get(bytes + STATE_BYTES_AT);
    size_t padded_bytes = (used_bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
    uint8_t *part = bytes + size_bytes - padded_bytes;
    srand(5);
    unsigned refused = 0;
    for (unsigned i = 0; i < 300; i++) {
        size_t at = (size_t)rand() % used_bytes;
        uint8_t before = part[at];
        part[at] = i % 2 ? 0xff : (uint8_t)rand();
        le32_put(bytes + STATE_SUM_AT, crc32c(part, padded_bytes));
        le32_put(bytes + PAGE - 4, crc32c(bytes, PAGE - 4));
        write_at(0, bytes, PAGE);
        write_at(size_bytes - padded_bytes, part, padded_bytes);
        refused += !try_restore(config);
        part[at] = before;
    }
    assert_true(refused > 0);
    free(bytes);
}

static void expect_refused(struct vm_config config, enum error_kind kind, const char *cause)
{
    struct error err = {0};
    assert_null(vm_create(&config, NULL, &err));
    if (err.kind != kind || !strstr(err.cause, cause))
        fail_msg("\"%s\" is not in \"%s: %s\"", cause, err.what, err.cause);
}

static void test_refused(void **state)
{
    struct vm_config config = config_for(EXIT), changed = config;
    changed.machine.memory_bytes = 0;
    expect_refused(changed, ERROR_USAGE, "the least is 16 MiB");
    changed.machine.memory_bytes = 1 << 20;
    expect_refused(changed, ERROR_USAGE, "the least is 16 MiB");
    changed.machine.memory_bytes = UINT64_C(1) << 60;
    expect_refused(changed, ERROR_FAILED, "the host has");
    changed = config;
    changed.machine.kernel = NULL;
    expect_refused(changed, ERROR_USAGE, "no kernel");
    changed.machine.kernel = folder;
    expect_refused(changed, ERROR_FAILED, "Is a directory");
    changed = config;
    changed.machine.vcpu_count = MACHINE_MAX_VCPUS + 1;
    expect_refused(changed, ERROR_USAGE, "too many");
    changed = config;
    changed.machine.vcpu_count = 3;
    changed.machine.topology = (struct engine_topology){2, 2, 1};
    expect_refused(changed, ERROR_USAGE, "are not 3 vCPUs");
    changed = config;
    changed.machine.engine = "quantum";
    expect_refused(changed, ERROR_USAGE, "auto, kvm and soft");
    changed = config;
    changed.machine.disks[0].path = "/nonexistent";
    changed.machine.disk_count = 1;
    expect_refused(changed, ERROR_FAILED, "No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_port),      cmocka_unit_test(test_power_off),
        cmocka_unit_test(test_reset),          cmocka_unit_test(test_no_reboot),
        cmocka_unit_test(test_triple_fault),   cmocka_unit_test(test_quit),
        cmocka_unit_test(test_halt_ends),      cmocka_unit_test(test_nmi),
        cmocka_unit_test(test_halt_is_told),   cmocka_unit_test(test_halt_under_debugger),
        cmocka_unit_test(test_power_button),   cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_save_and_go_on), cmocka_unit_test(test_other_machine),
        cmocka_unit_test(test_changed_disk),   cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_hostile_state),  cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
