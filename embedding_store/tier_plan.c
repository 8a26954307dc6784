/* A batch that trains: its plan, made ahead, marks what it asks for, makes room and has the helper fetch what is missing; then that is
 * brought in. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "embedding_store/helper.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/tier_internal.h"

enum { AHEAD = 16 };

/* --- plan --- */

/* What is in the database as it is will not be so for long. */
static void will_change(tier_part *state, const ct_table *table, const ct_partition *partition, const ct_index_entry *entry,
                        uint32_t sequence) {
    uint32_t *touched = &partition->touched[ct_partition_place(partition, entry)];
    if (*touched <= state->written) {
        ct_sum_take_entry(&tier_day_of(state, tier_entry_day(table, entry))->sum, table, partition, entry);
        state->dirty++;
    }
    *touched = sequence;
}

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void plan_task(void *context, size_t part, size_t worker) {
    (void)worker;
    tier_work *work = context;
    const ct_ticket *ticket = work->ticket;
    const ct_table *table = ticket->table;
    ct_tier_ticket *mine = &work->tier->plan;
    ct_partition *partition = &table->partitions[part];
    tier_part *state = &work->state->part[part];
    const ct_unique *uniques = &ticket->uniques[ticket->bases[part]];
    const size_t count = ticket->unique_counts[part];
    uint64_t *missing = &mine->missing[ticket->bases[part]];
    size_t n = 0, stubs = 0;
    ct_status status;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count) ct_table_prefetch(table, uniques[i + AHEAD].key);
        const ct_index_entry *entry = ct_partition_find(partition, uniques[i].key);
        if (!entry) {
            missing[n++] = uniques[i].key;
            continue;
        }
        stubs += entry->slot == CT_SLOT_STUB;
        will_change(state, table, partition, entry, mine->sequence);
    }
    qsort(missing, n, sizeof *missing, by_number);
    mine->missing_counts[part] = n;
    state->asked = (uint32_t)count;
    size_t rare = 0;
    for (size_t i = 0; i < ticket->rare_count; i++) rare += ct_partition_of(ticket->rare_keys[i], table->partition_bits) == part;
    ct_code code = tier_make_room(work, part, n + stubs + rare, n + rare, &status);
    if (code == CT_OK && state->to_write) code = tier_write_back(work, part, &status);
    tier_out_sort(&work->out->part[part]);
    if (code != CT_OK) ct_failure_put(&work->failure, &status);
}

static ct_code reserve(ct_tier_ticket *mine, size_t keys, size_t parts, ct_status *status) {
    CT_TRY(ct_scratch_reserve(&mine->scratch[0], keys * sizeof *mine->missing, status));
    CT_TRY(ct_scratch_reserve(&mine->scratch[1], parts * sizeof *mine->missing_counts, status));
    CT_TRY(ct_scratch_reserve(&mine->scratch[2], (parts + 1) * sizeof *mine->first, status));
    CT_TRY(ct_scratch_reserve(&mine->scratch[3], keys * sizeof *mine->offsets, status));
    mine->missing = mine->scratch[0].memory;
    mine->missing_counts = mine->scratch[1].memory;
    mine->first = mine->scratch[2].memory;
    mine->offsets = mine->scratch[3].memory;
    return CT_OK;
}

/* Rare keys that are nowhere in memory, and no ordinary keys of the batch: behind the others, sorted. */
static void find_rare(ct_tier_ticket *mine, tier_table *state, const ct_ticket *ticket) {
    const ct_table *table = ticket->table;
    uint64_t *rare = &mine->missing[mine->count];
    mine->rare_count = 0;
    for (size_t i = 0; i < ticket->rare_count; i++) {
        const uint64_t key = ticket->rare_keys[i];
        const size_t part = ct_partition_of(key, table->partition_bits);
        const ct_partition *partition = &table->partitions[part];
        const ct_index_entry *entry = ct_partition_find(partition, key);
        if (entry) {
            will_change(&state->part[part], table, partition, entry, mine->sequence);
        } else if (!bsearch(&key, &mine->missing[mine->first[part]], mine->first[part + 1] - mine->first[part], sizeof key, by_number)) {
            rare[mine->rare_count++] = key;
        }
    }
    qsort(rare, mine->rare_count, sizeof *rare, by_number);
}

static ct_code fetched(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    fetch *fetch = context;
    ct_tier_ticket *mine = fetch->ticket;
    const size_t at = fetch->first + number;
    (void)key;
    mine->offsets[at] = SIZE_MAX;
    if (!record) return CT_OK;
    bool row;
    CT_TRY(ct_record_check(fetch->layout, record, bytes, &row, status));
    if (mine->records_used + bytes > mine->records.bytes) {
        const size_t room = mine->records.bytes * 3 / 2 + bytes + 4096;
        char *records = realloc(mine->records.memory, room);
        if (!records) return ct_fail_memory(status, room, "fetched rows");
        mine->records.memory = records;
        mine->records.bytes = room;
    }
    memcpy((char *)mine->records.memory + mine->records_used, record, bytes);
    mine->offsets[at] = mine->records_used << 1 | row;
    mine->records_used += bytes;
    return CT_OK;
}

static void fetch_job(void *context, ct_failure *failure) {
    fetch *fetch = context;
    ct_tier_ticket *mine = fetch->ticket;
    ct_status status;
    const int64_t since = ct_clock_ns();
    const size_t keys = mine->count + mine->rare_count;
    mine->records_used = 0;
    fetch->first = 0;
    ct_code code = ct_live_get(fetch->live, fetch->table, mine->missing, mine->count, fetched, fetch, &status);
    fetch->first = mine->count;
    if (code == CT_OK)
        code = ct_live_get(fetch->live, fetch->table, mine->missing + mine->count, mine->rare_count, fetched, fetch, &status);
    if (code != CT_OK) ct_failure_put(failure, &status);
    (void)atomic_fetch_add(&fetch->done->fetched, (int64_t)keys);
    (void)atomic_fetch_add(&fetch->done->fetch_ns, ct_clock_ns() - since);
    (void)atomic_fetch_add(&fetch->done->asked_runs, (uint64_t)keys * atomic_load(&fetch->done->runs));
}

ct_code ct_tier_plan(ct_tier *tier, ct_ticket *ticket, ct_status *status) {
    ct_table *table = ticket->table;
    const size_t number = (size_t)(table - tier->store->tables), parts = table->partition_count;
    tier_table *state = &tier->tables[number];
    if (tier->failed.code != CT_OK) {
        *status = tier->failed;
        return status->code;
    }
    if (tier->planned)
        return ct_fail(status, CT_INVALID, "prefetch: another batch is prefetched already; with a memory limit one ahead is possible");
    if (tier->expired_wait) tier_drop_expired(tier);
    ct_tier_ticket *mine = &tier->plan;
    CT_TRY(reserve(mine, ticket->occurrences + ticket->rare_count, parts, status));
    CT_TRY(tier_set_sizes(tier, ticket, status));
    mine->sequence = ++tier->sequence;
    if (mine->sequence == UINT32_MAX) return ct_fail(status, CT_EXHAUSTED, "2^32 batches in one run; save, and go on from the folder");
    tier_work work = {.tier = tier,
                      .ticket = ticket,
                      .state = state,
                      .evictable = tier->acquired,
                      .final = tier->current ? tier->acquired - 1 : tier->acquired,
                      .failure = {.status = status}};
    tier_choose_dirty(&work);
    CT_TRY(tier_out_take(tier, state, &work.out, status));
    ct_run(ticket->lookup.alone ? NULL : tier->store->pool, parts, plan_task, &work);
    for (size_t p = 0; p < parts; p++) {
        table->outside_rows += state->part[p].evicted_rows;
        table->outside_stubs += state->part[p].evicted_stubs;
        state->part[p].evicted_rows = state->part[p].evicted_stubs = 0;
    }
    if (ct_failure_code(&work.failure) != CT_OK) { /* rows have left that are nowhere now */
        tier->failed = *status;
        return status->code;
    }
    size_t n = 0;
    for (size_t p = 0; p < parts; p++) { /* together */
        mine->first[p] = n;
        memmove(&mine->missing[n], &mine->missing[ticket->bases[p]], mine->missing_counts[p] * sizeof *mine->missing);
        n += mine->missing_counts[p];
    }
    mine->first[parts] = mine->count = n;
    find_rare(mine, state, ticket);
    tier->misses += (int64_t)n;
    mine->fetch = (fetch){.ticket = mine, .live = tier->live, .done = &state->done, .table = number, .layout = &tier->layouts[number]};
    mine->job = 0; /* nothing is missing: nothing to wait for */
    if (mine->count + mine->rare_count > 0) CT_TRY(ct_helper_submit(tier->helper, fetch_job, &mine->fetch, &mine->job, status));
    CT_TRY(tier_out_send(tier, work.out, status)); /* behind the fetch, which asks for none of these */
    tier->planned = ticket;
    return CT_OK;
}

/* --- admit --- */

typedef struct admit_work {
    ct_tier *tier;
    const ct_ticket *ticket;
    tier_table *state;
    ct_failure failure;
} admit_work;

static bool is_there(const ct_table *table, const ct_tier_ticket *mine, size_t at) {
    if (mine->offsets[at] == SIZE_MAX) return false;
    return ct_record_day(mine->fetch.layout, (const char *)mine->records.memory + (mine->offsets[at] >> 1)) >= table->oldest_day;
}

/* Of missing[at]: out of the database into its partition. */
static ct_code bring_in(const admit_work *work, size_t part, size_t at, ct_status *status) {
    ct_table *table = work->ticket->table;
    const ct_tier_ticket *mine = &work->tier->plan;
    if (table->filter && !is_there(table, mine, at)) return CT_OK; /* acquire asks the filter */
    ct_partition *partition = &table->partitions[part];
    tier_part *state = &work->state->part[part];
    ct_index_entry *entry;
    CT_TRY(ct_partition_claim(table, partition, mine->missing[at], &entry, status));
    partition->touched[ct_partition_place(partition, entry)] = mine->sequence;
    state->dirty++;
    if (mine->offsets[at] == SIZE_MAX) return CT_OK;
    const bool row = mine->offsets[at] & 1;
    const char *record = (const char *)mine->records.memory + (mine->offsets[at] >> 1);
    const uint32_t day = ct_record_day(mine->fetch.layout, record);
    if (day < table->oldest_day) return CT_OK; /* it was taken off with its day */
    CT_TRY(ct_record_decode(table, partition, mine->fetch.layout, record, row, entry, status));
    tier_day *of_day = tier_day_of(state, day);
    ct_sum_take(&of_day->sum, entry->key, record, row ? mine->fetch.layout->row_bytes : mine->fetch.layout->stub_bytes);
    of_day->rows -= row;
    of_day->stubs -= !row;
    state->evicted_rows -= row;
    state->evicted_stubs -= !row;
    return CT_OK;
}

static void admit_task(void *context, size_t part, size_t worker) {
    (void)worker;
    admit_work *work = context;
    const ct_tier_ticket *mine = &work->tier->plan;
    ct_status status;
    if (tier_shrink(work->ticket->table, work->state, part, &status) != CT_OK) { /* no batch is acquired: nobody holds rows */
        ct_failure_put(&work->failure, &status);
        return;
    }
    for (size_t i = mine->first[part]; i < mine->first[part + 1]; i++) {
        if (i + AHEAD < mine->first[part + 1]) ct_table_prefetch(work->ticket->table, mine->missing[i + AHEAD]);
        if (bring_in(work, part, i, &status) == CT_OK) continue;
        ct_failure_put(&work->failure, &status);
        return;
    }
}

ct_code ct_tier_admit(ct_tier *tier, ct_ticket *ticket, ct_status *status) {
    ct_table *table = ticket->table;
    const ct_tier_ticket *mine = &tier->plan;
    tier_table *state = &tier->tables[table - tier->store->tables];
    CT_TRY(ct_helper_wait(tier->helper, mine->job, status));
    tier_hold_back(tier, (size_t)(table - tier->store->tables));
    admit_work work = {.tier = tier, .ticket = ticket, .state = state, .failure = {.status = status}};
    ct_run(tier->store->pool, table->partition_count, admit_task, &work);
    CT_TRY(ct_failure_code(&work.failure));
    for (size_t i = mine->count; i < mine->count + mine->rare_count; i++)
        if (mine->offsets[i] != SIZE_MAX) CT_TRY(bring_in(&work, ct_partition_of(mine->missing[i], table->partition_bits), i, status));
    for (size_t p = 0; p < table->partition_count; p++) {
        table->outside_rows += state->part[p].evicted_rows;
        table->outside_stubs += state->part[p].evicted_stubs;
        state->part[p].evicted_rows = state->part[p].evicted_stubs = 0;
    }
    return CT_OK;
}

void ct_tier_added(ct_tier *tier, const ct_table *table, size_t part, const ct_index_entry *entry) {
    const ct_partition *partition = &table->partitions[part];
    partition->touched[ct_partition_place(partition, entry)] = tier->plan.sequence;
    tier->tables[table - tier->store->tables].part[part].dirty++;
}

void ct_tier_acquired(ct_tier *tier, ct_ticket *ticket) {
    const ct_table *table = ticket->table;
    tier_table *state = &tier->tables[table - tier->store->tables];
    for (size_t i = 0; i < ticket->rare_count; i++) {
        const size_t part = ct_partition_of(ticket->rare_keys[i], table->partition_bits);
        const ct_partition *partition = &table->partitions[part];
        const ct_index_entry *entry = ct_partition_find(partition, ticket->rare_keys[i]);
        if (!entry) continue;
        uint32_t *touched = &partition->touched[ct_partition_place(partition, entry)];
        state->part[part].dirty += *touched != tier->plan.sequence; /* it is new; the others were seen by the plan */
        *touched = tier->plan.sequence;
    }
    tier->acquired = tier->plan.sequence;
    tier->current = ticket;
    tier->planned = NULL;
}

void ct_tier_applied(ct_tier *tier, const ct_ticket *ticket) {
    if (tier->current == ticket) tier->current = NULL;
    if (tier->planned != ticket) return;
    tier->planned = NULL; /* released without being acquired: its fetch must not run on */
    ct_status ignored = CT_STATUS_INIT;
    if (ct_helper_wait(tier->helper, tier->plan.job, &ignored) != CT_OK) return; /* the next wait says so */
}
