/* SPDX-License-Identifier: BSD-2-Clause
 * The counters of a machine that has ended, for people and for programs. */
#include "cli/stats.h"

#include <jansson.h>
#include <stdio.h>

struct counter {
    const char *name;
    uint64_t value;
};

void stats_print(const struct cli *cli, const struct machine_stats *stats)
{
    const struct engine_stats *engine = &stats->engine;
    const struct counter counters[] = {
        {"uptime_ns", stats->uptime_ns},
        {"reboots", stats->reboots},
        {"instructions", engine->instructions},
        {"exceptions", engine->exceptions},
        {"interrupts", engine->interrupts},
        {"mmio", engine->mmio},
        {"pio", engine->pio},
        {"blocks_decoded", engine->blocks_decoded},
        {"block_lookups", engine->block_lookups},
        {"block_misses", engine->block_misses},
        {"tlb_misses", engine->tlb_misses},
        {"page_walks", engine->page_walks},
        {"page_crossings", engine->page_crossings},
        {"code_page_writes", engine->code_page_writes},
        {"code_writes", engine->code_writes},
        {"tlb_flushes", engine->tlb_flushes},
        {"space_flushes", engine->space_flushes},
        {"page_flushes", engine->page_flushes},
        {"space_switches", engine->space_switches},
        {"space_misses", engine->space_misses},
        {"epochs", engine->epochs},
        {"blocks_translated", engine->blocks_translated},
        {"superblocks", engine->superblocks},
        {"blocks_voided", engine->blocks_voided},
        {"links", engine->links},
        {"translator_stays", engine->translator_stays},
        {"handler_calls", engine->handler_calls},
        {"jump_lookups", engine->jump_lookups},
        {"guard_misses", engine->guard_misses},
        {"code_flushes", engine->code_flushes},
        {"group_failures", engine->group_failures},
        {"blocks_checked", engine->blocks_checked},
        {"blocks_checked_partly", engine->blocks_checked_partly},
        {"blocks_unchecked", engine->blocks_unchecked},
        {"blocks_disturbed", engine->blocks_disturbed},
    };
    json_t *object = cli->json ? json_object() : NULL;
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
        if (object)
            json_object_set_new(object, counters[i].name,
                                json_integer((json_int_t)counters[i].value));
        else
            fprintf(stderr, "%-24s%llu\n", counters[i].name, (unsigned long long)counters[i].value);
    }
    if (object) {
        json_dumpf(object, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(object);
    }
}
