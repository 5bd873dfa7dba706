/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A machine's configuration as JSON, as a saved machine holds it: what it is made of and what backs
 * it, so that it can be made again without being described again.
 */
#ifndef SKEP_MACHINE_DESCRIPTION_H
#define SKEP_MACHINE_DESCRIPTION_H

#include "machine/machine.h"

struct description; /* owns all that its configuration points to */

/* malloc'ed text; NULL: out of memory. Relative names of files become absolute. */
char *description_text(const struct machine_config *config);

/* The text is not trusted. NULL: `err` tells what is wrong with it. */
struct description *description_parse(const char *text, size_t size_bytes, struct error *err);
const struct machine_config *description_config(const struct description *description);
void description_free(struct description *description); /* NULL is fine */

#endif
