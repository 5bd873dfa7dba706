/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A processor's registers as GDB numbers and describes them (GDB manual, appendix G): the features
 * org.gnu.gdb.i386.* that it knows, and org.skep.system with what only a kernel sees.
 *
 * A description is for the whole session, whatever mode the processor is in: GDB_X86_64 shows all
 * there is; GDB_I386 is for guests whose symbols are of 32 bits, which GDB won't use beside 64-bit
 * registers.
 */
#ifndef SKEP_VM_GDB_REGISTERS_H
#define SKEP_VM_GDB_REGISTERS_H

#include "machine/machine.h"
#include "vm/gdb/text.h"

enum gdb_arch { GDB_X86_64, GDB_I386 };

enum { GDB_MAX_REGISTERS = 192, GDB_REGISTER_BYTES = 16 };

enum gdb_register_kind {
    GDB_GPR,   /* a field of struct x86_state, `offset` and `field_bytes` */
    GDB_FLAGS, /* RFLAGS */
    GDB_FIELD, /* as GDB_GPR, of any size */
    GDB_SELECTOR,
    GDB_X87,     /* ST(index) */
    GDB_CONTROL, /* of the x87: `index` as in enum x87_control */
    GDB_XMM,
    GDB_YMM_HIGH,
    GDB_MXCSR,
    GDB_ORIG_RAX, /* of a system call that is being traced: there never is one */
};

struct gdb_register {
    char name[20];
    const char *type;    /* as target XML has it */
    const char *group;   /* NULL: as its type is */
    const char *feature; /* the last part of the feature's name */
    uint8_t size_bytes;  /* as GDB sees it */
    uint8_t kind;        /* enum gdb_register_kind */
    uint8_t index;
    uint8_t field_bytes;
    uint16_t offset;
    bool is_read_only; /* what can't be set through struct x86_state */
};

struct gdb_registers {
    enum gdb_arch arch;
    unsigned count;
    struct gdb_register list[GDB_MAX_REGISTERS]; /* by number */
};

void gdb_registers_list(struct gdb_registers *registers, enum gdb_arch arch);

/* Appends the target description. */
void gdb_registers_describe(const struct gdb_registers *registers, struct gdb_text *xml);

/* The register's size_bytes bytes in target order, into GDB_REGISTER_BYTES of room. */
void gdb_register_get(const struct gdb_register *reg, const struct x86_state *state,
                      uint8_t *bytes);
/* False: it can't be written (with another value than it has). */
bool gdb_register_set(const struct gdb_register *reg, struct x86_state *state,
                      const uint8_t *bytes);

#endif
