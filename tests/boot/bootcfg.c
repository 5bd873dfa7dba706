/* SPDX-License-Identifier: BSD-2-Clause
 * What boot loaders' configurations choose: GRUB's script, BLS entries, extlinux. */
#include "machine/bootcfg/bootcfg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Files of a made-up disk: path and text, ended by NULL. */
struct world {
    const char *const *files;
};

static char *world_text(void *opaque, const char *path)
{
    const struct world *world = opaque;
    for (const char *const *file = world->files; *file; file += 2)
        if (!strcmp(file[0], path))
            return strdup(file[1]);
    return NULL;
}

static char *world_list(void *opaque, const char *path)
{
    const struct world *world = opaque;
    size_t length = strlen(path);
    char *names = calloc(1, 4096);
    if (length && path[length - 1] == '/')
        length--;
    for (const char *const *file = world->files; *file; file += 2)
        if (!strncmp(file[0], path, length) && file[0][length] == '/' &&
            !strchr(file[0] + length + 1, '/')) {
            strcat(names, file[0] + length + 1);
            strcat(names, "\n");
        }
    return names;
}

static char *world_describe(void *opaque, const char *device)
{
    if (!strcmp(device, "loop0"))
        return strdup("Device loop0: No known filesystem detected");
    return strdup(strcmp(device, "loop0,gpt2")
                      ? "Partition loop0,gpt1: Filesystem type fat - Label `ESP', UUID ABCD-1234"
                      : "Partition loop0,gpt2: Filesystem type ext* - Label `root', UUID 11-22");
}

static bool choose(const char *const *list, struct bootcfg_choice *choice)
{
    static const char devices[][BOOTCFG_DEVICE_BYTES] = {"loop0", "loop0,gpt1", "loop0,gpt2"};
    struct world world = {list};
    const struct bootcfg_files files = {world_text, world_list, world_describe, devices, 3, &world};
    struct error err = {0};
    bool found = bootcfg_find(&files, choice, &err);
    assert_true(found || (err.cause[0] && err.hint[0]));
    return found;
}

#define CFG "(loop0,gpt2)/boot/grub/grub.cfg"

static void check(const char *script, const char *env, const char *kernel, const char *initrd,
                  const char *cmdline)
{
    const char *const files[] = {CFG,
                                 script,
                                 "(loop0,gpt2)/boot/grub/grubenv",
                                 env,
                                 "(loop0,gpt2)/boot/grub/custom.cfg",
                                 "set extra=from_custom\n",
                                 NULL};
    struct bootcfg_choice choice;
    bool found = choose(files, &choice);
    assert_int_equal(found, kernel != NULL);
    if (!kernel)
        return;
    assert_string_equal(choice.kernel, kernel);
    assert_string_equal(choice.initrd_count ? choice.initrds[0] : "", initrd);
    assert_string_equal(choice.cmdline, cmdline);
    assert_string_equal(choice.config, CFG);
}

#define A "(loop0,gpt2)/a"
#define B "(loop0,gpt2)/b"
#define ENTRIES                                                                                    \
    "menuentry 'One' --id one { linux /a first; initrd /i; }\n"                                    \
    "submenu \"More\" --id more {\n"                                                               \
    "  menuentry 'Two' $menuentry_id_option 'two' { linux /b second }\n"                           \
    "  menuentry 'Three' --id=three {\n linux /b third\n initrd /j /k\n}\n}\n"

static void grub_default(void **state)
{
    check(ENTRIES, "", A, "(loop0,gpt2)/i", "first");
    check("set default=0\n" ENTRIES, "", A, "(loop0,gpt2)/i", "first");
    check("set default=1\n" ENTRIES, "", B, "", "second");
    check("set default='1>1'\n" ENTRIES, "", B, "(loop0,gpt2)/j", "third");
    check("set default=\"more>three\"\n" ENTRIES, "", B, "(loop0,gpt2)/j", "third");
    check("set default='More>Two'\n" ENTRIES, "", B, "", "second");
    check("set default=nothing\n" ENTRIES, "", A, "(loop0,gpt2)/i", "first");
    check("menuentry_id_option=--id\nset default='more>two'\n" ENTRIES, "", B, "", "second");
}

static void grub_environment(void **state)
{
    static const char script[] = "if [ -s $prefix/grubenv ]; then load_env; fi\n"
                                 "if [ \"${next_entry}\" ] ; then set default=\"${next_entry}\"\n"
                                 "else set default=\"${saved_entry}\"; fi\n" ENTRIES;
    check(script, "# GRUB Environment Block\nsaved_entry=more>three\n####", B, "(loop0,gpt2)/j",
          "third");
    check(script, "# GRUB Environment Block\nnext_entry=more\nsaved_entry=one\n####", B, "",
          "second");
    check(script, "", A, "(loop0,gpt2)/i", "first");
}

static void grub_words(void **state)
{
    check("linux /a \"two words\" 'a$b' c\\ d x${none}y $none \"\" # no\n", "", A, "",
          "two words a$b c d xy ");
    check("set a=1; set b=\"$a 2\"\nlinux /a v=$b \\\n  w=\"${a}3\"\n", "", A, "", "v=1 2 w=13");
    check("source $prefix/custom.cfg\nlinux /a $extra\n", "", A, "", "from_custom");
    check("linux ($root)/a x\n", "", A, "", "x");
    check("set root=hd0,gpt1\nlinux /a x\n", "", "(loop0,gpt1)/a", "", "x");
    check("search --no-floppy --fs-uuid --set=root --hint-bios=hd0 abcd-1234\nlinux /a x\n", "",
          "(loop0,gpt1)/a", "", "x");
    check("search --label --set where ESP\nlinux ($where)/a x\n", "", "(loop0,gpt1)/a", "", "x");
    check("search --file --set=root /boot/grub/custom.cfg\nlinux /a x\n", "", A, "", "x");
}

static void grub_control(void **state)
{
    check("if false; then linux /a x; elif true; then linux /b y; else linux /a z; fi\n", "", B, "",
          "y");
    check("if [ 1 = 2 ]; then\n if true; then linux /a x\n fi\nelse\n linux /b y\nfi\n", "", B, "",
          "y");
    check("if [ ! -f /none -a x$root = xloop0,gpt2 ]; then linux /a x; fi\n", "", A, "", "x");
    check("if [ a = b -o 3 -gt 2 ]; then linux /a x; fi\n", "", A, "", "x");
    check("if test -z \"$none\" ; then linux /a x; fi\n", "", A, "", "x");
    check("function boot {\n linux /a $how\n}\nset how=called; boot\n", "", A, "", "called");
    check("function f { if true; then return; fi; }\nf\nfor x in 1 2; do linux /b no; done\n"
          "while true; do linux /b no; done\nlinux /a x\n",
          "", A, "", "x");
    check("menuentry 'Windows' { chainloader +1 }\nmenuentry L { linux /b x }\n", "", B, "", "x");
}

static void grub_refused(void **state)
{
    check("", "", NULL, NULL, NULL);
    check("menuentry 'Windows' { chainloader +1 }\n", "", NULL, NULL, NULL);
    check("linux relative x\n", "", NULL, NULL, NULL);
    check("function f { f; f; }\nf\n", "", NULL, NULL, NULL);
    check("source $prefix/grub.cfg\n", "", NULL, NULL, NULL);
    check("if if if { { menuentry ' { linux /a", "", NULL, NULL, NULL);
    check("submenu a { submenu b { } }\nset default='0>0>0>0'\n", "", NULL, NULL, NULL);
}

static void bls_entries(void **state)
{
    static const char *const fedora[] = {
        "(loop0,gpt2)/grub2/grub.cfg",
        "load_env\nset default=\"${saved_entry}\"\nblscfg\n",
        "(loop0,gpt2)/grub2/grubenv",
        "kernelopts=root=/dev/vda3 ro\n",
        "(loop0,gpt2)/loader/entries/m-6.2.conf",
        "title F (6.2)\nversion 6.2\nlinux /vmlinuz-6.2\ninitrd /i-6.2 $tuned_initrd\n"
        "options $kernelopts quiet\n",
        "(loop0,gpt2)/loader/entries/m-6.10.conf",
        "title F (6.10)\nversion 6.10\nlinux /vmlinuz-6.10\ninitrd /i-6.10\noptions $kernelopts\n",
        NULL};
    const char *changed[sizeof(fedora) / sizeof(fedora[0])];
    struct bootcfg_choice choice;
    assert_true(choose(fedora, &choice));
    assert_string_equal(choice.kernel, "(loop0,gpt2)/vmlinuz-6.10");
    assert_string_equal(choice.cmdline, "root=/dev/vda3 ro");
    memcpy(changed, fedora, sizeof(fedora));
    changed[3] = "saved_entry=m-6.2\nkernelopts=a b\n";
    assert_true(choose(changed, &choice));
    assert_string_equal(choice.kernel, "(loop0,gpt2)/vmlinuz-6.2");
    assert_string_equal(choice.initrds[0], "(loop0,gpt2)/i-6.2");
    assert_int_equal(choice.initrd_count, 1);
    assert_string_equal(choice.cmdline, "a b quiet");
    changed[3] = "saved_entry=gone\n";
    assert_true(choose(changed, &choice));
    assert_string_equal(choice.kernel, "(loop0,gpt2)/vmlinuz-6.10");
}

static void systemd_boot(void **state)
{
    static const char *files[] = {
        "(loop0,gpt1)/loader/loader.conf",
        "timeout 3\ndefault arch-*.conf\n",
        "(loop0,gpt1)/loader/entries/arch-lts.conf",
        "title Arch\r\nlinux /vmlinuz-lts\r\ninitrd /ucode.img\ninitrd /lts.img\noptions a\n"
        "options b\n",
        "(loop0,gpt1)/loader/entries/zzz.conf",
        "linux /other\n",
        NULL};
    struct bootcfg_choice choice;
    assert_true(choose(files, &choice));
    assert_string_equal(choice.kernel, "(loop0,gpt1)/vmlinuz-lts");
    assert_int_equal(choice.initrd_count, 2);
    assert_string_equal(choice.cmdline, "a b");
    files[1] = "default none\n";
    assert_true(choose(files, &choice));
    assert_string_equal(choice.kernel, "(loop0,gpt1)/other");
}

static void extlinux(void **state)
{
    static const char *files[] = {"(loop0)/boot/extlinux/extlinux.conf",
                                  "TIMEOUT 30\nDEFAULT new\nAPPEND all\n"
                                  "LABEL old\n  KERNEL ../vmlinuz.old\n  INITRD /i,/j\n"
                                  "LABEL new\n  MENU LABEL Newer\n  LINUX vmlinuz\n"
                                  "  APPEND initrd=i.img root=/dev/vda1\n",
                                  NULL};
    struct bootcfg_choice choice;
    assert_true(choose(files, &choice));
    assert_string_equal(choice.kernel, "(loop0)/boot/extlinux/vmlinuz");
    assert_string_equal(choice.initrds[0], "(loop0)/boot/extlinux/i.img");
    assert_string_equal(choice.cmdline, "root=/dev/vda1");
    assert_string_equal(choice.title, "Newer");
    files[1] = "label a\nkernel /x\ninitrd /i,/j\nlabel b\nmenu default\nlinux /y\nappend -\n";
    assert_true(choose(files, &choice));
    assert_string_equal(choice.kernel, "(loop0)/y");
    assert_string_equal(choice.cmdline, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grub_default), cmocka_unit_test(grub_environment),
        cmocka_unit_test(grub_words),   cmocka_unit_test(grub_control),
        cmocka_unit_test(grub_refused), cmocka_unit_test(bls_entries),
        cmocka_unit_test(systemd_boot), cmocka_unit_test(extlinux),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
