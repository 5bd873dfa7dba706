/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A GDB server for one machine: a listening socket, one debugger at a time, another after it. The
 * machine stops when a debugger comes. When it detaches or its connection breaks, breakpoints go
 * and the guest runs on (unless it has never run). All on the loop's thread.
 */
#ifndef SKEP_VM_GDB_SERVER_H
#define SKEP_VM_GDB_SERVER_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "machine/machine.h"
#include "vm/gdb/registers.h"

#include <stdbool.h>

struct gdb_server;

/* `where`: "[ADDR:]PORT", with 127.0.0.1 unless an address is given, or "unix:PATH". `has_run`:
 * the machine is running, or about to. NULL: `err` tells why. */
struct gdb_server *gdb_server_create(const char *where, enum gdb_arch arch, bool has_run,
                                     struct machine *machine, struct loop *loop,
                                     const struct log *log, struct error *err);

/* The machine ends with this exit code: a debugger that waits for it is told. */
void gdb_server_ended(struct gdb_server *server, uint8_t code);

/* Before the machine is destroyed; NULL is fine. */
void gdb_server_destroy(struct gdb_server *server);

/* Where it listens, as GDB's `target remote` takes it. */
const char *gdb_server_address(const struct gdb_server *server);

#endif
