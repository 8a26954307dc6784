#include "serving/hold.h"

#include <stdlib.h>

ct_code ct_hold_init(ct_hold *hold, size_t limit, double rate, size_t burst, ct_status *status) {
    *hold = (ct_hold){.limit = limit, .gap_ns = (int64_t)(1e9 / rate)};
    hold->burst_ns = (int64_t)burst * hold->gap_ns;
    hold->entries = calloc(limit, sizeof *hold->entries);
    return hold->entries ? CT_OK : ct_fail_memory(status, limit * sizeof *hold->entries, "refusals");
}

void ct_hold_deinit(ct_hold *hold) {
    free(hold->entries);
    *hold = (ct_hold){0};
}

static ct_held remove_first(ct_hold *hold) {
    const ct_held entry = hold->entries[hold->first];
    hold->first = (hold->first + 1) % hold->limit;
    hold->count--;
    return entry;
}

bool ct_hold_put(ct_hold *hold, ct_held entry, ct_held *out_instead) {
    const bool room = hold->count < hold->limit;
    if (!room) *out_instead = remove_first(hold);
    hold->entries[(hold->first + hold->count++) % hold->limit] = entry;
    return room;
}

int64_t ct_hold_next(const ct_hold *hold) {
    if (hold->count == 0) return INT64_MAX;
    const int64_t turn = hold->due_ns - hold->burst_ns, until = hold->entries[hold->first].until_ns;
    return turn < until ? turn : until;
}

bool ct_hold_take(ct_hold *hold, int64_t now_ns, ct_held *out_entry) {
    if (ct_hold_next(hold) > now_ns) return false;
    *out_entry = remove_first(hold);
    hold->due_ns = (hold->due_ns > now_ns ? hold->due_ns : now_ns) + hold->gap_ns;
    if (hold->due_ns > now_ns + hold->burst_ns + hold->gap_ns) hold->due_ns = now_ns + hold->burst_ns + hold->gap_ns;
    return true;
}
