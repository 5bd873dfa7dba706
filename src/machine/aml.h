/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Composes AML (ACPI 6.4, chapter 20) into a buffer: what the board's tables need of it. Objects
 * nest by begin and end: begin gives a mark, which end takes.
 */
#ifndef SKEP_MACHINE_AML_H
#define SKEP_MACHINE_AML_H

#include "machine/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Paths are of names of up to four characters, filled up with '_': "\\_SB.PCI0", "_CRS". */
size_t aml_scope_begin(struct bytes *aml, const char *path);
size_t aml_device_begin(struct bytes *aml, const char *name);
size_t aml_method_begin(struct bytes *aml, const char *name, unsigned argument_count);
size_t aml_package_begin(struct bytes *aml, unsigned element_count);
size_t aml_if_begin(struct bytes *aml); /* the predicate follows */
size_t aml_else_begin(struct bytes *aml);
void aml_end(struct bytes *aml, size_t mark);

/* Name (NAME, …): one value or object must follow. */
void aml_name(struct bytes *aml, const char *name);
void aml_path(struct bytes *aml, const char *path);
void aml_integer(struct bytes *aml, uint64_t value);
void aml_string(struct bytes *aml, const char *text);
void aml_eisa_id(struct bytes *aml, const char *id); /* "PNP0A08" */
void aml_buffer(struct bytes *aml, const void *data, size_t size_bytes);

void aml_name_integer(struct bytes *aml, const char *name, uint64_t value);
void aml_name_string(struct bytes *aml, const char *name, const char *text);
void aml_name_eisa_id(struct bytes *aml, const char *name, const char *id);

/* Inside methods. */
void aml_argument(struct bytes *aml, unsigned index);
void aml_return(struct bytes *aml); /* a value follows */
void aml_equal(struct bytes *aml);  /* LEqual: two operands follow */
/* CreateDWordField (Arg `argument`, offset, NAME). */
void aml_create_dword_field(struct bytes *aml, unsigned argument, unsigned offset_bytes,
                            const char *name);
void aml_and(struct bytes *aml, const char *name, uint64_t mask); /* And (NAME, mask), an operand */
void aml_and_into(struct bytes *aml, const char *name, uint64_t mask); /* And (NAME, mask, NAME) */
void aml_or_into(struct bytes *aml, const char *name, uint64_t bits);

/* Name (_CRS, ResourceTemplate () {…}): descriptors go between begin and end. */
size_t aml_resources_begin(struct bytes *aml, const char *name);
void aml_resources_end(struct bytes *aml, size_t mark);

void aml_io(struct bytes *aml, uint16_t port, uint8_t size);
void aml_irq(struct bytes *aml, unsigned irq);     /* ISA: edge, high, exclusive */
void aml_dma(struct bytes *aml, unsigned channel); /* ISA: bytes, compatible speed */
void aml_memory32(struct bytes *aml, uint32_t base, uint32_t size_bytes, bool writable);
/* Windows that a bridge passes on to what is behind it; `last` is inclusive. */
void aml_bus_window(struct bytes *aml, uint16_t first, uint16_t last);
void aml_io_window(struct bytes *aml, uint16_t first, uint16_t last);
void aml_memory32_window(struct bytes *aml, uint32_t first, uint32_t last);
void aml_memory64_window(struct bytes *aml, uint64_t first, uint64_t last);

#endif
