/* (see tier.h) */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "embedding_store/helper.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/tier_internal.h"

enum {
    DATABASE_BYTES = 32 << 20, /* RocksDB's own: readers of files, the file in work, a compaction's buffers; what malloc keeps */
    MOST_DIRTY_BYTES = 64 << 20,
    DIRTY_PART = 8,       /* of the cache, at most */
    SPARE_PART = 32,      /* of a partition, evicted at once beyond what is needed, so that it is searched seldom */
    READ_BYTES = 8 << 20, /* beside the rows, where a table is only read: tickets, readers of files */
    AHEAD = 16
};

/* --- sizes --- */

static size_t place_bytes(const ct_partition *partition) { return (sizeof(ct_index_entry) << partition->entry_shift) + sizeof(uint32_t); }

static size_t row_bytes(const ct_partition *partition) {
    return (partition->values.floats + partition->state.floats) * sizeof(float) + sizeof(uint32_t);
}

/* How many rows and index entries a partition of `bytes` may have. Where keys are counted before they get a row, most are stubs. */
static void divide(const ct_table *table, const ct_partition *partition, uint64_t bytes, uint32_t *out_rows, uint64_t *out_entries) {
    const uint64_t stubs_a_row = table->spec.min_count > 1 ? 3 : 1;
    *out_rows = 0;
    *out_entries = 0;
    for (uint32_t bits = partition->index_bits; bits < 32 && place_bytes(partition) << bits < bytes; bits++) {
        const uint64_t entries = ((uint64_t)1 << bits) * 7 / 10, left = bytes - (place_bytes(partition) << bits);
        uint64_t rows = left / row_bytes(partition);
        if (rows > entries / stubs_a_row) rows = entries / stubs_a_row;
        if (rows > CT_SLOT_STUB / 2) rows = CT_SLOT_STUB / 2;
        if (rows < *out_rows) break;
        *out_rows = (uint32_t)rows;
        *out_entries = entries;
    }
}

static size_t ticket_bytes(const ct_ticket *ticket) {
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof ticket->scratch / sizeof *ticket->scratch; i++) bytes += ticket->scratch[i].bytes;
    for (size_t i = 0; i < ticket->dedupe_count; i++) bytes += ticket->dedupes[i].scratch.bytes;
    return bytes;
}

/* All that is not the cache, with two tickets in work and all of a batch's `keys` distinct keys missing. */
static uint64_t other_bytes(const ct_tier *tier, const ct_ticket *ticket, uint64_t keys) {
    uint64_t bytes = DATABASE_BYTES + 2 * ticket_bytes(ticket) + keys * (2 * sizeof(uint64_t) + ct_record_bytes(ticket->table));
    for (size_t i = 0; i < tier->store->table_count; i++) {
        const ct_table *table = &tier->store->tables[i];
        for (size_t p = 0; p < table->partition_count && table->spec.kind == CT_TABLE_FROZEN; p++) bytes += table->partitions[p].bytes;
    }
    return bytes;
}

/* What leaves at once, and what is dirty, is a part of the cache beside it. */
static uint64_t cache_of(uint64_t bytes) { return bytes / 6 * 5; }

static ct_code fail_small(const ct_tier *tier, const ct_ticket *ticket, uint64_t keys, uint64_t other, ct_status *status) {
    const ct_table *table = ticket->table;
    const uint64_t each = (place_bytes(&table->partitions[0]) * 3 + row_bytes(&table->partitions[0])) * (table->spec.min_count > 1 ? 3 : 1);
    const uint64_t least = other + keys * each * tier->trained * 6 / 5;
    return ct_fail(status, CT_INVALID, "a memory limit of %llu MiB is too small for batches of %zu rows; give %llu MiB, or smaller batches",
                   (unsigned long long)(tier->memory_bytes >> 20), ticket->lookup.rows, (unsigned long long)((least >> 20) + 1));
}

/* Sets the sizes of the table's partitions by what the largest batch so far leaves. */
static ct_code set_sizes(ct_tier *tier, const ct_ticket *ticket, ct_status *status) {
    ct_table *table = ticket->table;
    tier_table *state = &tier->tables[table - tier->store->tables];
    const uint64_t parts = table->partition_count;
    uint64_t keys = ticket->rare_count;
    for (size_t p = 0; p < parts; p++) keys += ticket->unique_counts[p];
    if (state->sized_for >= keys) return CT_OK;
    keys += keys / 4; /* others may have more */
    uint64_t cache = tier->cache_bytes;
    const uint64_t other = other_bytes(tier, ticket, keys);
    if (!cache && tier->memory_bytes > other) cache = cache_of(tier->memory_bytes - other);
    uint32_t rows = 0;
    for (size_t p = 0; p < parts; p++) {
        ct_partition *partition = &table->partitions[p];
        divide(table, partition, cache / tier->trained / parts, &rows, &state->most_entries);
        const uint32_t most = partition->rows > rows ? partition->rows : rows; /* slabs do not shrink */
        uint32_t *free_rows = realloc(partition->free_rows, ((size_t)most + 1) * sizeof *free_rows);
        if (!free_rows) return ct_fail_memory(status, most * sizeof *free_rows, "a table's free rows");
        partition->free_rows = free_rows;
        partition->most_rows = most;
    }
    if (rows * parts < 2 * keys && !tier->cache_bytes) return fail_small(tier, ticket, 2 * keys, other, status); /* two batches */
    state->sized_for = keys;
    state->most_dirty = cache / DIRTY_PART < MOST_DIRTY_BYTES ? cache / DIRTY_PART : MOST_DIRTY_BYTES;
    return CT_OK;
}

/* --- records on their way out --- */

static ct_code out_put(ct_tier *tier, tier_out_part *out, ct_sum *sum, const ct_table *table, const ct_partition *partition,
                       const ct_index_entry *entry, ct_status *status) {
    const size_t most = ct_record_bytes(table);
    if (out->count == out->room) {
        const size_t room = out->room ? out->room * 3 / 2 : 64;
        tier_out_entry *entries = realloc(out->entries, room * sizeof *entries);
        if (!entries) return ct_fail_memory(status, room * sizeof *entries, "rows on their way out");
        out->entries = entries;
        out->room = room;
    }
    if (out->bytes + most > out->bytes_room) {
        const size_t room = out->bytes_room ? out->bytes_room * 3 / 2 + most : 64 * most;
        char *records = realloc(out->records, room);
        if (!records) return ct_fail_memory(status, room, "rows on their way out");
        out->records = records;
        out->bytes_room = room;
    }
    if (!ct_record_finite(table, partition, entry)) {
        atomic_store(&tier->bad_key, entry->key);
        atomic_store(&tier->bad_table, table);
    }
    const size_t bytes = ct_record_encode(table, partition, entry, out->records + out->bytes);
    ct_sum_add(sum, entry->key, out->records + out->bytes, bytes);
    out->entries[out->count++] = (tier_out_entry){.key = entry->key, .offset = out->bytes, .bytes = bytes};
    out->bytes += bytes;
    return CT_OK;
}

static int by_key(const void *a, const void *b) {
    const uint64_t x = ((const tier_out_entry *)a)->key, y = ((const tier_out_entry *)b)->key;
    return x < y ? -1 : x > y;
}

static void out_clear(tier_out *out) {
    for (size_t p = 0; p < out->parts; p++) out->part[p].count = out->part[p].bytes = 0;
}

static void write_job(void *context, ct_failure *failure) {
    tier_out *out = context;
    ct_status status;
    ct_code code = ct_live_begin(out->live, out->table, &status);
    for (size_t p = 0; p < out->parts && code == CT_OK; p++) {
        const tier_out_part *part = &out->part[p];
        for (size_t i = 0; i < part->count && code == CT_OK; i++)
            code = ct_live_put(out->live, part->entries[i].key, part->records + part->entries[i].offset, part->entries[i].bytes, &status);
    }
    if (code == CT_OK)
        code = ct_live_end(out->live, &status);
    else
        ct_live_abandon(out->live);
    if (code != CT_OK) ct_failure_put(failure, &status);
}

static bool out_any(const tier_out *out) {
    for (size_t p = 0; p < out->parts; p++)
        if (out->part[p].count) return true;
    return false;
}

/* One that no job holds. */
static ct_code out_take(ct_tier *tier, tier_table *state, tier_out **out_out, ct_status *status) {
    tier_out *out = &state->out[state->next_out ^= 1];
    CT_TRY(ct_helper_wait(tier->helper, out->job, status));
    out_clear(out);
    *out_out = out;
    return CT_OK;
}

static ct_code out_send(ct_tier *tier, tier_out *out, ct_status *status) {
    if (!out_any(out)) return CT_OK;
    return ct_helper_submit(tier->helper, write_job, out, &out->job, status);
}

/* --- eviction --- */

/* 0 .. 63: how much longer it was not asked for than one would think of a key that was seen so often. */
static unsigned staleness(uint32_t age, uint32_t count) {
    enum { MIDDLE = 24, MOST = 63 };
    const int age_bits = 31 - __builtin_clz(age | 1), half = age_bits ? (int)(age >> (age_bits - 1)) & 1 : 0;
    const int value = MIDDLE + 2 * age_bits + half - (31 - __builtin_clz(count | 1));
    return value < 0 ? 0 : value > MOST ? MOST : (unsigned)value;
}

typedef struct plan_work {
    ct_tier *tier;
    ct_ticket *ticket;
    tier_table *state;
    tier_out *out;
    uint32_t evictable; /* touched must be less */
    uint32_t final;     /* what was touched up to here will not change before it is asked for again */
    ct_failure failure;
} plan_work;

/* Makes room for `rows` rows and `entries` entries. */
static ct_code make_room(const plan_work *work, size_t part, uint64_t rows, uint64_t entries, ct_status *status) {
    const ct_table *table = work->ticket->table;
    ct_partition *partition = &table->partitions[part];
    tier_part *state = &work->state->part[part];
    const uint64_t most_entries = work->state->most_entries;
    uint64_t want_rows = ct_partition_rows(partition) + rows, want = partition->used + entries;
    if (want_rows <= partition->most_rows && want <= most_entries) return CT_OK;
    const uint64_t must_rows = want_rows > partition->most_rows ? want_rows - partition->most_rows : 0;
    const uint64_t must = want > most_entries ? want - most_entries : 0;
    want_rows = must_rows ? must_rows + partition->most_rows / SPARE_PART : 0;
    want = must ? must + most_entries / SPARE_PART : 0;

    uint32_t all[64] = {0}, with_row[64] = {0};
    const size_t mask = ((size_t)1 << partition->index_bits) - 1;
    const uint32_t now = work->tier->plan.sequence;
    for (size_t at = 0; at <= mask; at++) {
        const ct_index_entry *entry = ct_partition_entry(partition, at);
        if (entry->slot == CT_SLOT_EMPTY || partition->touched[at] >= work->evictable) continue;
        const unsigned bucket = staleness(now - partition->touched[at], entry->count);
        all[bucket]++;
        with_row[bucket] += entry->slot != CT_SLOT_STUB;
    }
    unsigned least = 64;
    for (uint64_t n = 0, r = 0; least > 0 && (n < want || r < want_rows);) {
        least--;
        n += all[least];
        r += with_row[least];
    }
    uint64_t gone = 0, gone_rows = 0;
    size_t at = (size_t)(now * UINT64_C(0x9E3779B97F4A7C15) >> 32) & mask; /* so that no part of the index is emptied first each time */
    for (size_t steps = 0; steps <= mask && (gone < want || gone_rows < want_rows);) {
        const ct_index_entry *entry = ct_partition_entry(partition, at);
        const uint32_t touched = partition->touched[at];
        if (entry->slot == CT_SLOT_EMPTY || touched >= work->evictable || staleness(now - touched, entry->count) < least) {
            at = (at + 1) & mask;
            steps++;
            continue;
        }
        if (touched > state->written) {
            CT_TRY(out_put(work->tier, &work->out->part[part], &state->sum, table, partition, entry, status));
            state->dirty--;
        }
        gone++;
        gone_rows += entry->slot != CT_SLOT_STUB;
        ct_partition_remove(partition, at);
    }
    state->evicted_rows = (int64_t)gone_rows;
    state->evicted_stubs = (int64_t)(gone - gone_rows);
    if (work->tier->current && work->tier->current->seen && work->tier->current->table == table)
        work->tier->current->noted_bits[part] = UINT32_MAX; /* entries have moved */
    if (gone < must || gone_rows < must_rows)
        return ct_fail(status, CT_EXHAUSTED,
                       "table %s: the memory limit is too small: %llu keys of two batches fall into one of %zu parts, which holds %u rows",
                       table->spec.name, (unsigned long long)entries, table->partition_count, partition->most_rows);
    return CT_OK;
}

/* All that has changed and will not change before it is asked for again. */
static ct_code write_back(const plan_work *work, size_t part, ct_status *status) {
    const ct_table *table = work->ticket ? work->ticket->table : &work->tier->store->tables[work->out->table];
    const ct_partition *partition = &table->partitions[part];
    tier_part *state = &work->state->part[part];
    const size_t mask = ((size_t)1 << partition->index_bits) - 1;
    uint32_t dirty = 0;
    for (size_t at = 0; at <= mask; at++) {
        const ct_index_entry *entry = ct_partition_entry(partition, at);
        if (entry->slot == CT_SLOT_EMPTY || partition->touched[at] <= state->written) continue;
        const bool pending = partition->touched[at] > work->final;
        dirty += pending;
        if (pending && work->ticket) continue; /* it changes soon; at a flush it may have changed before it was asked for again */
        CT_TRY(out_put(work->tier, &work->out->part[part], pending ? &state->pending : &state->sum, table, partition, entry, status));
    }
    state->written = work->final;
    state->dirty = dirty;
    return CT_OK;
}

static void sort_out(tier_out_part *out) {
    if (out->count) qsort(out->entries, out->count, sizeof *out->entries, by_key);
}

/* --- plan --- */

/* What is in the database as it is will not be so for long. */
static void will_change(tier_part *state, const ct_table *table, const ct_partition *partition, const ct_index_entry *entry,
                        uint32_t sequence) {
    uint32_t *touched = &partition->touched[ct_partition_place(partition, entry)];
    if (*touched <= state->written) {
        ct_sum_take_entry(&state->sum, table, partition, entry);
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
    plan_work *work = context;
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
    size_t rare = 0;
    for (size_t i = 0; i < ticket->rare_count; i++) rare += ct_partition_of(ticket->rare_keys[i], table->partition_bits) == part;
    ct_code code = make_room(work, part, n + stubs + rare, n + rare, &status);
    if (code == CT_OK && state->to_write) code = write_back(work, part, &status);
    sort_out(&work->out->part[part]);
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
    mine->records_used = 0;
    fetch->first = 0;
    ct_code code = ct_live_get(fetch->live, fetch->table, mine->missing, mine->count, fetched, fetch, &status);
    fetch->first = mine->count;
    if (code == CT_OK)
        code = ct_live_get(fetch->live, fetch->table, mine->missing + mine->count, mine->rare_count, fetched, fetch, &status);
    if (code != CT_OK) ct_failure_put(failure, &status);
}

/* Which partitions write their changed rows back, so that not too much is dirty: in turn, until half of what may be is left. */
static void choose_dirty(tier_table *state, const ct_table *table) {
    const uint64_t bytes = ct_record_bytes(table);
    uint64_t dirty = 0;
    for (size_t p = 0; p < table->partition_count; p++) {
        state->part[p].to_write = false;
        dirty += state->part[p].dirty;
    }
    if (dirty * bytes <= state->most_dirty) return;
    for (size_t n = 0; n < table->partition_count && dirty * bytes > state->most_dirty / 2; n++) {
        tier_part *part = &state->part[state->cursor];
        part->to_write = true;
        dirty -= part->dirty;
        state->cursor = (state->cursor + 1) % table->partition_count;
    }
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
    ct_tier_ticket *mine = &tier->plan;
    CT_TRY(reserve(mine, ticket->occurrences + ticket->rare_count, parts, status));
    CT_TRY(set_sizes(tier, ticket, status));
    mine->sequence = ++tier->sequence;
    if (mine->sequence == UINT32_MAX) return ct_fail(status, CT_EXHAUSTED, "2^32 batches in one run; save, and go on from the folder");
    choose_dirty(state, table);
    plan_work work = {.tier = tier,
                      .ticket = ticket,
                      .state = state,
                      .evictable = tier->acquired,
                      .final = tier->current ? tier->acquired - 1 : tier->acquired,
                      .failure = {.status = status}};
    CT_TRY(out_take(tier, state, &work.out, status));
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
    mine->fetch = (fetch){.ticket = mine, .live = tier->live, .table = number, .layout = &tier->layouts[number]};
    CT_TRY(ct_helper_submit(tier->helper, fetch_job, &mine->fetch, &mine->job, status));
    CT_TRY(out_send(tier, work.out, status)); /* behind the fetch, which asks for none of these */
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

/* Of missing[at]: out of the database into its partition. */
static ct_code bring_in(const admit_work *work, size_t part, size_t at, ct_status *status) {
    ct_table *table = work->ticket->table;
    const ct_tier_ticket *mine = &work->tier->plan;
    ct_partition *partition = &table->partitions[part];
    tier_part *state = &work->state->part[part];
    ct_index_entry *entry;
    CT_TRY(ct_partition_claim(table, partition, mine->missing[at], &entry, status));
    partition->touched[ct_partition_place(partition, entry)] = mine->sequence;
    state->dirty++;
    if (mine->offsets[at] == SIZE_MAX) return CT_OK;
    const bool row = mine->offsets[at] & 1;
    const char *record = (const char *)mine->records.memory + (mine->offsets[at] >> 1);
    CT_TRY(ct_record_decode(table, partition, mine->fetch.layout, record, row, entry, status));
    ct_sum_take(&state->sum, entry->key, record, row ? mine->fetch.layout->row_bytes : mine->fetch.layout->stub_bytes);
    state->evicted_rows -= row;
    state->evicted_stubs -= !row;
    return CT_OK;
}

static void admit_task(void *context, size_t part, size_t worker) {
    (void)worker;
    admit_work *work = context;
    const ct_tier_ticket *mine = &work->tier->plan;
    ct_status status;
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

/* --- all of it --- */

static void flush_task(void *context, size_t part, size_t worker) {
    (void)worker;
    plan_work *work = context;
    ct_status status;
    if (!work->state->part[part].to_write) return;
    if (write_back(work, part, &status) != CT_OK) ct_failure_put(&work->failure, &status);
    sort_out(&work->out->part[part]);
}

ct_code ct_tier_flush(ct_tier *tier, ct_status *status) {
    if (tier->current) return ct_fail(status, CT_INVALID, "a batch is acquired and not applied; apply or release it first");
    for (size_t i = 0; i < tier->store->table_count; i++) {
        const ct_table *table = &tier->store->tables[i];
        tier_table *state = &tier->tables[i];
        const size_t parts = table->partition_count;
        if (table->spec.kind != CT_TABLE_TRAINED) continue;
        for (size_t p = 0; p < parts; p++) state->part[p].pending = (ct_sum){{0, 0}};
        for (size_t first = 0; first < parts;) { /* a few partitions at a time: the records of all would be too many */
            uint64_t bytes = 0;
            size_t end = first;
            for (size_t p = 0; p < parts; p++) state->part[p].to_write = false;
            do {
                bytes += state->part[end].dirty * (uint64_t)ct_record_bytes(table);
                state->part[end++].to_write = true;
            } while (end < parts && bytes < state->most_dirty / 2);
            plan_work work = {.tier = tier, .state = state, .final = tier->acquired, .failure = {.status = status}};
            CT_TRY(out_take(tier, state, &work.out, status));
            ct_run(tier->store->pool, parts, flush_task, &work);
            CT_TRY(ct_failure_code(&work.failure));
            CT_TRY(out_send(tier, work.out, status));
            first = end;
        }
    }
    return ct_helper_drain(tier->helper, status);
}

ct_code ct_tier_check_finite(ct_tier *tier, ct_status *status) {
    const ct_table *table = atomic_load(&tier->bad_table);
    return table ? ct_record_fail_finite(table, atomic_load(&tier->bad_key), status) : CT_OK;
}

ct_sum ct_tier_sum(const ct_tier *tier, size_t table) {
    ct_sum sum = {{0, 0}};
    const tier_part *part = tier->tables[table].part;
    for (size_t p = 0; p < tier->store->tables[table].partition_count; p++)
        for (size_t n = 0; n < 2; n++) sum.word[n] += part[p].sum.word[n] + part[p].pending.word[n];
    return sum;
}

void ct_tier_count(ct_tier *tier, size_t table, uint64_t key, const char *record, size_t bytes) {
    ct_sum_add(&tier->tables[table].part[ct_partition_of(key, tier->store->partition_bits)].sum, key, record, bytes);
}

ct_live *ct_tier_live(ct_tier *tier) { return tier->live; }

const ct_stored_table *ct_tier_layout(const ct_tier *tier, size_t table) { return &tier->layouts[table]; }

/* --- create and destroy --- */

static ct_code tier_init(ct_store *store, const ct_stored_table *stored, ct_tier **out_tier, ct_status *status) {
    ct_tier *tier = calloc(1, sizeof *tier);
    if (!tier) return ct_fail_memory(status, sizeof *tier, "a cache");
    tier->store = store;
    tier->tables = calloc(store->table_count + 1, sizeof *tier->tables);
    tier->layouts = calloc(store->table_count + 1, sizeof *tier->layouts);
    if (!tier->tables || !tier->layouts) {
        ct_tier_destroy(tier);
        return ct_fail_memory(status, store->table_count * sizeof *tier->layouts, "a cache");
    }
    for (size_t i = 0; i < store->table_count; i++) {
        if (stored)
            tier->layouts[i] = stored[i];
        else
            ct_record_layout(&store->tables[i].spec, &tier->layouts[i]);
        tier->trained += store->tables[i].spec.kind == CT_TABLE_TRAINED;
    }
    *out_tier = tier;
    return CT_OK;
}

static ct_code init_table(ct_tier *tier, size_t number, ct_status *status) {
    ct_table *table = &tier->store->tables[number];
    tier_table *state = &tier->tables[number];
    state->part = calloc(table->partition_count, sizeof *state->part);
    for (size_t i = 0; i < 2; i++) {
        state->out[i] = (tier_out){.live = tier->live, .table = number, .parts = table->partition_count};
        state->out[i].part = calloc(table->partition_count, sizeof *state->out[i].part);
        if (!state->out[i].part || !state->part) return ct_fail_memory(status, table->partition_count * sizeof *state->part, "a cache");
    }
    for (size_t p = 0; p < table->partition_count; p++) {
        ct_partition *partition = &table->partitions[p];
        partition->touched = calloc((size_t)1 << partition->index_bits, sizeof *partition->touched);
        if (!partition->touched) return ct_fail_memory(status, sizeof *partition->touched << partition->index_bits, "a table's index");
        partition->bytes += sizeof *partition->touched << partition->index_bits;
    }
    return CT_OK;
}

typedef struct sum_work {
    ct_tier *tier;
    size_t table;
    int64_t rows, stubs;
} sum_work;

static ct_code sum_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    sum_work *work = context;
    bool row;
    (void)number;
    CT_TRY(ct_record_check(&work->tier->layouts[work->table], record, bytes, &row, status));
    work->rows += row;
    work->stubs += !row;
    ct_tier_count(work->tier, work->table, key, record, bytes);
    return CT_OK;
}

/* Reads all that the table begins with. */
static ct_code sum_table(ct_tier *tier, size_t number, const char *from, ct_status *status) {
    sum_work work = {.tier = tier, .table = number};
    const ct_table *table = &tier->store->tables[number];
    CT_TRY(ct_live_scan(tier->live, number, sum_record, &work, status));
    if (work.rows == table->outside_rows && work.stubs == table->outside_stubs) return CT_OK;
    return ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", from, table->spec.name,
                   (long long)work.rows, (long long)work.stubs, (long long)table->outside_rows, (long long)table->outside_stubs);
}

/* Records are written as this program lays them out; what is there already must be so too. */
static ct_code check_layout(const ct_stored_table *stored, ct_status *status) {
    ct_stored_table ours;
    ct_record_layout(&stored->spec, &ours);
    bool same = ours.row_bytes == stored->row_bytes && ours.stub_bytes == stored->stub_bytes && ours.value.offset == stored->value.offset;
    ct_state_column columns[CT_STATE_COLUMNS];
    for (size_t i = ct_state_columns(&stored->spec, columns); i > 0; i--)
        same &= stored->state[i - 1].present && ours.state[i - 1].offset == stored->state[i - 1].offset;
    if (same) return CT_OK;
    return ct_fail(status, CT_UNSUPPORTED, "table %s has other columns than this program writes; open it without a memory limit",
                   stored->spec.name);
}

ct_code ct_tier_create(ct_store *store, uint64_t memory_bytes, uint64_t cache_bytes, const char *folder, const char *from,
                       const ct_stored_table *stored, ct_status *status) {
    ct_tier *tier;
    ct_code code;
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    for (size_t i = 0; stored && i < store->table_count; i++) CT_TRY(check_layout(&stored[i], status));
    CT_TRY(tier_init(store, stored, &tier, status));
    tier->memory_bytes = memory_bytes;
    tier->cache_bytes = cache_bytes;
    for (size_t i = 0; i < store->table_count; i++) names[i] = store->tables[i].spec.name;
    CT_TRY_GOTO(code, ct_live_create(folder, from, names, store->table_count, &tier->live, status), fail);
    for (size_t i = 0; i < store->table_count; i++)
        if (store->tables[i].spec.kind == CT_TABLE_TRAINED) CT_TRY_GOTO(code, init_table(tier, i, status), fail);
    for (size_t i = 0; from && i < store->table_count; i++)
        if (store->tables[i].spec.kind == CT_TABLE_TRAINED) CT_TRY_GOTO(code, sum_table(tier, i, from, status), fail);
    CT_TRY_GOTO(code, ct_helper_create(&tier->helper, status), fail);
    store->tier = tier;
    return CT_OK;
fail:
    ct_tier_destroy(tier);
    return code;
}

static void ticket_deinit(ct_tier_ticket *ticket) {
    for (size_t i = 0; i < sizeof ticket->scratch / sizeof *ticket->scratch; i++) free(ticket->scratch[i].memory);
    free(ticket->records.memory);
}

void ct_tier_destroy(ct_tier *tier) {
    if (!tier) return;
    ct_helper_destroy(tier->helper);
    for (size_t i = 0; tier->tables && i < tier->store->table_count; i++) {
        for (size_t n = 0; n < 2; n++) {
            tier_out *out = &tier->tables[i].out[n];
            for (size_t p = 0; out->part && p < out->parts; p++) {
                free(out->part[p].entries);
                free(out->part[p].records);
            }
            free(out->part);
        }
        free(tier->tables[i].part);
    }
    ct_live_close(tier->live);
    ticket_deinit(&tier->plan);
    free(tier->tables);
    free(tier->layouts);
    free(tier);
}

void ct_tier_ticket_destroy(ct_tier_ticket *ticket) {
    if (!ticket) return;
    ticket_deinit(ticket);
    free(ticket);
}

/* --- reading --- */

/* How many keys were counted so often: buckets of a quarter of a power of two. */
enum { BUCKETS = 128 };

static size_t bucket_of(uint32_t count) {
    if (count < 4) return count;
    const int bits = 31 - __builtin_clz(count);
    return (size_t)(4 * (bits - 1) + (int)(count >> (bits - 2) & 3));
}

typedef struct warming {
    ct_table *table;
    const ct_stored_table *layout;
    uint64_t histogram[BUCKETS];
    size_t least;        /* bucket whose keys become resident, as those above it */
    uint64_t room;       /* of rows */
    int64_t rows, stubs; /* seen */
} warming;

static size_t count_bucket(const ct_stored_table *layout, const char *record) {
    return layout->spec.kind == CT_TABLE_TRAINED ? bucket_of(ct_get_le32(record + layout->count.offset)) : 1;
}

static ct_code count_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    warming *work = context;
    bool row;
    (void)number;
    (void)key;
    CT_TRY(ct_record_check(work->layout, record, bytes, &row, status));
    work->rows += row;
    work->stubs += !row;
    if (row) work->histogram[count_bucket(work->layout, record)]++;
    return CT_OK;
}

static ct_code warm_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    warming *work = context;
    ct_table *table = work->table;
    bool row;
    (void)number;
    CT_TRY(ct_record_check(work->layout, record, bytes, &row, status));
    if (!row || count_bucket(work->layout, record) < work->least || !work->room) return CT_OK;
    ct_partition *partition = &table->partitions[ct_partition_of(key, table->partition_bits)];
    ct_index_entry *entry;
    CT_TRY(ct_partition_claim(table, partition, key, &entry, status));
    CT_TRY(ct_record_decode(table, partition, work->layout, record, row, entry, status));
    work->room--;
    table->outside_rows--;
    return CT_OK;
}

ct_code ct_tier_open(ct_store *store, uint64_t memory_bytes, const char *folder, const ct_stored_table *stored, ct_status *status) {
    ct_tier *tier;
    ct_code code = CT_OK;
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    uint64_t records = 0;
    CT_TRY(tier_init(store, stored, &tier, status));
    tier->memory_bytes = memory_bytes;
    store->tier = tier; /* the store's from now on, in failure too */
    for (size_t i = 0; i < store->table_count; i++) {
        names[i] = store->tables[i].spec.name;
        records += (uint64_t)stored[i].rows * stored[i].spec.dim;
    }
    CT_TRY(ct_live_open(folder, names, store->table_count, &tier->live, status));
    const uint64_t cache = memory_bytes > READ_BYTES ? memory_bytes - READ_BYTES : 0;
    for (size_t i = 0; i < store->table_count && code == CT_OK; i++) {
        ct_table *table = &store->tables[i];
        const ct_partition *partition = &table->partitions[0];
        warming work = {.table = table, .layout = &tier->layouts[i], .least = BUCKETS};
        code = ct_live_scan(tier->live, i, count_record, &work, status);
        if (code == CT_OK && (work.rows != stored[i].rows || work.stubs != stored[i].stubs))
            code = ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", folder,
                           table->spec.name, (long long)work.rows, (long long)work.stubs, (long long)stored[i].rows,
                           (long long)stored[i].stubs);
        if (code != CT_OK) break;
        table->outside_rows = work.rows;
        table->outside_stubs = table->spec.target_stats ? work.stubs : 0; /* else nobody asks for them */
        /* A part of the limit by the tables' sizes; an index that has just doubled is a third full. */
        const uint64_t share = records ? (uint64_t)((double)cache * ((double)work.rows * table->spec.dim / (double)records)) : 0;
        work.room = share / (row_bytes(partition) + 3 * place_bytes(partition));
        for (uint64_t n = 0; work.least > 0 && n < work.room;) n += work.histogram[--work.least];
        code = ct_live_scan(tier->live, i, warm_record, &work, status);
    }
    return code;
}
