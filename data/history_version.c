/* Versions of histories: one is read while the next one is made. They share the entries of the units that have not changed; the list of
 * units is each version's own. Units keep their numbers from one version to the next, unless all began anew. */
#include <stdlib.h>
#include <string.h>

#include "data/history_internal.h"

static ct_code copy_units(const ct_history *from, ct_history *to, ct_status *status) {
    if (from->unit_count == 0) return CT_OK;
    to->units = malloc(from->unit_count * sizeof *to->units);
    to->slots = malloc(from->slot_count * sizeof *to->slots);
    if (to->units == NULL || to->slots == NULL)
        return ct_fail_memory(status, from->unit_count * sizeof *to->units, "a version of histories");
    memcpy(to->units, from->units, from->unit_count * sizeof *to->units);
    memcpy(to->slots, from->slots, from->slot_count * sizeof *to->slots);
    to->unit_count = to->unit_capacity = from->unit_count;
    to->slot_count = from->slot_count;
    to->entry_count = from->entry_count;
    for (size_t u = 0; u < to->unit_count; u++) to->units[u].changed = to->units[u].summed = 0;
    return CT_OK;
}

ct_code ct_histories_next(const ct_histories *from, const uint64_t *words, size_t count, const char *path, ct_histories **out_next,
                          ct_status *status) {
    ct_histories *next = NULL;
    CT_TRY(ct_histories_create(from->schema, &next, status));
    next->shares = count < 4 || words[3] == 0;
    ct_code code = CT_OK;
    for (size_t h = 0; h < next->count && next->shares && code == CT_OK; h++) code = copy_units(&from->list[h], &next->list[h], status);
    if (code == CT_OK) code = ct_histories_take_changes(next, words, count, path, next->shares, status);
    if (code == CT_OK)
        *out_next = next;
    else
        ct_histories_drop(next);
    return code;
}

void ct_histories_retire(ct_histories *from, ct_histories *next) {
    for (size_t h = 0; h < from->count && next->shares; h++)
        for (size_t u = 0; u < from->list[h].unit_count; u++)
            if (!next->list[h].units[u].changed) from->list[h].units[u].entries = NULL;
    ct_histories_destroy(from);
    next->shares = false;
}

void ct_histories_drop(ct_histories *next) {
    if (next == NULL) return;
    for (size_t h = 0; h < next->count && next->shares; h++)
        for (size_t u = 0; u < next->list[h].unit_count; u++)
            if (!next->list[h].units[u].changed) next->list[h].units[u].entries = NULL;
    ct_histories_destroy(next);
}
