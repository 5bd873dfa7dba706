/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The target description in XML, composed from the table of registers and from tables of flag bits
 * (GDB manual, appendix G.2). Bits are named as in the SDM.
 */
#include "vm/gdb/registers.h"

#include <string.h>

struct bits {
    const char *name;
    uint8_t first, last;
};

struct flag_type {
    const char *feature, *id;
    uint8_t size_bytes;
    struct bits bits[20]; /* ended by a name that is NULL */
};

static const struct flag_type flag_types[] = {
    {"core",
     "i386_eflags",
     4,
     {{"CF", 0, 0},
      {"", 1, 1},
      {"PF", 2, 2},
      {"AF", 4, 4},
      {"ZF", 6, 6},
      {"SF", 7, 7},
      {"TF", 8, 8},
      {"IF", 9, 9},
      {"DF", 10, 10},
      {"OF", 11, 11},
      {"IOPL", 12, 13},
      {"NT", 14, 14},
      {"RF", 16, 16},
      {"VM", 17, 17},
      {"AC", 18, 18},
      {"VIF", 19, 19},
      {"VIP", 20, 20},
      {"ID", 21, 21}}},
    {"sse",
     "i386_mxcsr",
     4,
     {{"IE", 0, 0},
      {"DE", 1, 1},
      {"ZE", 2, 2},
      {"OE", 3, 3},
      {"UE", 4, 4},
      {"PE", 5, 5},
      {"DAZ", 6, 6},
      {"IM", 7, 7},
      {"DM", 8, 8},
      {"ZM", 9, 9},
      {"OM", 10, 10},
      {"UM", 11, 11},
      {"PM", 12, 12},
      {"RC", 13, 14},
      {"FZ", 15, 15}}},
    {"system",
     "cr0",
     8,
     {{"PE", 0, 0},
      {"MP", 1, 1},
      {"EM", 2, 2},
      {"TS", 3, 3},
      {"ET", 4, 4},
      {"NE", 5, 5},
      {"WP", 16, 16},
      {"AM", 18, 18},
      {"NW", 29, 29},
      {"CD", 30, 30},
      {"PG", 31, 31}}},
    {"system",
     "cr4",
     8,
     {{"VME", 0, 0},
      {"PVI", 1, 1},
      {"TSD", 2, 2},
      {"DE", 3, 3},
      {"PSE", 4, 4},
      {"PAE", 5, 5},
      {"MCE", 6, 6},
      {"PGE", 7, 7},
      {"PCE", 8, 8},
      {"OSFXSR", 9, 9},
      {"OSXMMEXCPT", 10, 10},
      {"UMIP", 11, 11},
      {"LA57", 12, 12},
      {"FSGSBASE", 16, 16},
      {"PCIDE", 17, 17},
      {"OSXSAVE", 18, 18},
      {"SMEP", 20, 20},
      {"SMAP", 21, 21},
      {"PKE", 22, 22}}},
    {"system", "efer", 8, {{"SCE", 0, 0}, {"LME", 8, 8}, {"LMA", 10, 10}, {"NXE", 11, 11}}},
    {"system", "xcr0", 8, {{"X87", 0, 0}, {"SSE", 1, 1}, {"AVX", 2, 2}}},
};

static void describe_flags(const struct flag_type *type, struct gdb_text *xml)
{
    const unsigned most = sizeof(type->bits) / sizeof(type->bits[0]);
    gdb_put(xml, "<flags id=\"%s\" size=\"%u\">", type->id, type->size_bytes);
    for (unsigned i = 0; i < most && type->bits[i].name; i++)
        gdb_put(xml, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", type->bits[i].name,
                type->bits[i].first, type->bits[i].last);
    gdb_put(xml, "</flags>");
}

/* A vector register, seen as its elements. */
static void describe_vectors(struct gdb_text *xml)
{
    static const struct {
        const char *id, *type;
        unsigned count;
    } vectors[] = {{"v4f", "ieee_single", 4}, {"v2d", "ieee_double", 2}, {"v16i8", "int8", 16},
                   {"v8i16", "int16", 8},     {"v4i32", "int32", 4},     {"v2i64", "int64", 2}};
    static const char *const fields[] = {"v4_float", "v2_double", "v16_int8",
                                         "v8_int16", "v4_int32",  "v2_int64"};
    for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        gdb_put(xml, "<vector id=\"%s\" type=\"%s\" count=\"%u\"/>", vectors[i].id, vectors[i].type,
                vectors[i].count);
    gdb_put(xml, "<union id=\"vec128\">");
    for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        gdb_put(xml, "<field name=\"%s\" type=\"%s\"/>", fields[i], vectors[i].id);
    gdb_put(xml, "<field name=\"uint128\" type=\"uint128\"/></union>");
}

static void describe_types(const char *feature, struct gdb_text *xml)
{
    for (unsigned i = 0; i < sizeof(flag_types) / sizeof(flag_types[0]); i++)
        if (!strcmp(flag_types[i].feature, feature))
            describe_flags(&flag_types[i], xml);
    if (!strcmp(feature, "sse"))
        describe_vectors(xml);
}

static void describe_register(const struct gdb_register *reg, unsigned number, struct gdb_text *xml)
{
    gdb_put(xml, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"", reg->name,
            reg->size_bytes * 8u, reg->type, number);
    if (reg->group)
        gdb_put(xml, " group=\"%s\"", reg->group);
    gdb_put(xml, "/>\n");
}

void gdb_registers_describe(const struct gdb_registers *registers, struct gdb_text *xml)
{
    const char *feature = "";
    gdb_put(xml,
            "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
            "<target><architecture>%s</architecture>\n",
            registers->arch == GDB_X86_64 ? "i386:x86-64" : "i386");
    for (unsigned i = 0; i < registers->count; i++) {
        const struct gdb_register *reg = &registers->list[i];
        if (strcmp(feature, reg->feature) != 0) {
            bool is_ours = !strcmp(reg->feature, "system");
            gdb_put(xml, "%s<feature name=\"%s%s\">\n", i ? "</feature>\n" : "",
                    is_ours ? "org.skep." : "org.gnu.gdb.i386.", reg->feature);
            feature = reg->feature;
            describe_types(feature, xml);
        }
        describe_register(reg, i, xml);
    }
    gdb_put(xml, "</feature></target>\n");
}
