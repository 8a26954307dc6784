/* Reading tables that are not all in memory: the resident rows, then the database, into the ticket's own memory. That changes nothing else
 * but the table's counters. Behind it: opening a store for reading, where the rows that were counted most become resident. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "embedding_store/helper.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/sorted.h"
#include "embedding_store/tier_internal.h"

enum {
    AHEAD = 16,
    READ_BYTES = 8 << 20, /* of the limit, or all of it, beside the rows: a third for tickets, the rest for readers of files; at least, */
    READ_PART = 16        /* and of the limit */
};

/* --- what it takes --- */

/* A key that is not resident, and the occurrence that asks for it. */
typedef struct missed {
    uint64_t key;
    uint32_t order;
} missed;

static uint64_t read_bytes(const ct_tier *tier) {
    const uint64_t bytes = tier->memory_bytes / READ_PART > READ_BYTES ? tier->memory_bytes / READ_PART : READ_BYTES;
    return bytes < tier->memory_bytes ? bytes : tier->memory_bytes;
}

void ct_tier_count_ticket(ct_tier *tier, int change) { atomic_fetch_add(&tier->tickets, change); }

size_t ct_tier_rows_at_once(const ct_tier *tier, const ct_lookup *lookup) {
    const ct_table *table = &tier->store->tables[lookup->table];
    if (table->outside_rows + table->outside_stubs == 0 && !atomic_load(&tier->changed)) return lookup->rows;
    uint64_t keys = 0;
    for (size_t i = 0; i < lookup->column_count; i++) {
        const ct_key_column *column = &lookup->columns[i];
        const size_t rows = column->shared ? 1 : lookup->rows;
        keys += column->offsets ? column->offsets[rows] - column->offsets[0] : rows;
    }
    const int tickets = atomic_load(&tier->tickets);
    const uint64_t share = read_bytes(tier) / 3 / (uint64_t)(tickets > 1 ? tickets : 1);
    const uint64_t bytes = keys * (ct_value_bytes(&table->spec) + sizeof(missed) + 2 * sizeof(uint64_t));
    if (bytes <= share) return lookup->rows;
    const uint64_t rows = share / (bytes / lookup->rows + 1);
    return rows ? (size_t)rows : 1;
}

/* --- reading --- */

static int by_key(const void *a, const void *b) {
    const missed *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

typedef struct reading {
    const ct_ticket *ticket;
    const ct_stored_table *layout;
    const missed *misses; /* sorted */
    size_t count, at;     /* at: of the key that comes next */
    float *rows;          /* (distinct keys, floats of a row's values) */
    size_t used;
    size_t unknown;
    uint64_t *others; /* (other_count): what is not there goes here, where it is to be asked for elsewhere; else NULL */
    size_t other_count;
} reading;

/* What occurrence `order` reads where its key has no row; set before. */
static ct_code found(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    reading *work = context;
    const ct_ticket *ticket = work->ticket;
    const float *values = NULL;
    ct_seen seen = {0, 0};
    (void)number;
    bool row = false;
    if (!record && work->others) { /* to be asked for elsewhere */
        work->others[work->other_count++] = key;
        return CT_OK;
    }
    while (work->at < work->count && work->misses[work->at].key < key) work->at++; /* which was found elsewhere */
    if (record) CT_TRY(ct_record_check(work->layout, record, bytes, &row, status));
    if (record && ct_record_day(work->layout, record) >= ticket->table->oldest_day) {
        if (row) {
            float *to = work->rows + work->used++ * ct_value_floats(&ticket->table->spec);
            memcpy(to, ct_record_values(work->layout, record, row), ct_value_bytes(&ticket->table->spec));
            values = to;
        }
        if (ticket->seen) {
            const ct_key_counts counts = {.impressions = ct_get_le32(record + work->layout->impressions.offset),
                                          .clicks = ct_get_le32(record + work->layout->clicks.offset),
                                          .epoch = ct_get_le32(record + work->layout->epoch.offset)};
            seen = ct_counts_in_epoch(&counts, ticket->table->counted_epoch);
        }
    }
    for (; work->at < work->count && work->misses[work->at].key == key; work->at++) {
        const uint32_t order = work->misses[work->at].order;
        if (values)
            ticket->tokens[order] = values;
        else
            work->unknown++;
        if (ticket->seen) ticket->seen[order] = seen;
    }
    return CT_OK;
}

typedef struct rare_row {
    const ct_stored_table *layout;
    float *values;
    bool found;
} rare_row;

static ct_code found_rare(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    rare_row *rare = context;
    (void)number;
    (void)key;
    if (!record) return CT_OK;
    CT_TRY(ct_record_check(rare->layout, record, bytes, &rare->found, status));
    if (rare->found) memcpy(rare->values, ct_record_values(rare->layout, record, true), ct_value_bytes(&rare->layout->spec));
    return CT_OK;
}

/* out: (floats of a row's values), the ticket's own, which is used where the row is not resident. */
static ct_code rare_values(ct_tier *tier, const ct_ticket *ticket, uint64_t key, float *out, const float **out_values, ct_status *status) {
    const ct_table *table = ticket->table;
    *out_values = table->zeros;
    if (!key) return CT_OK;
    ct_seen seen;
    const float *resident = NULL;
    if (ticket->overlay && ct_overlay_find(ticket->overlay, key, &resident, &seen)) {
        if (resident) *out_values = resident;
        return CT_OK;
    }
    resident = ct_table_values(table, key);
    if (resident) {
        *out_values = resident;
        return CT_OK;
    }
    const size_t number = ticket->lookup.table;
    ct_live *changed = atomic_load(&tier->changed);
    rare_row rare = {.values = out};
    if (changed) {
        rare.layout = &tier->changed_layouts[number];
        CT_TRY(ct_live_get(changed, number, &key, 1, found_rare, &rare, status));
    }
    rare.layout = &tier->layouts[number];
    if (!rare.found) CT_TRY(ct_live_get(tier->live, number, &key, 1, found_rare, &rare, status));
    if (rare.found) *out_values = out;
    return CT_OK;
}

/* Occurrences [at, at + count): resident ones are done; others read `instead` for now and are listed. Returns how many more are listed. */
static size_t resolve(const ct_ticket *ticket, const uint64_t *keys, size_t at, size_t count, const float *instead, missed *misses,
                      size_t *unknown) {
    const ct_table *table = ticket->table;
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (i + 2 * AHEAD < count) ct_table_prefetch_start(table, keys[i + 2 * AHEAD]);
        if (i + AHEAD < count) ct_table_prefetch_keys(table, keys[i + AHEAD]);
        const float *values = NULL;
        ct_seen seen;
        if (ticket->overlay && ct_overlay_find(ticket->overlay, keys[i], &values, &seen)) {
            ticket->tokens[at + i] = values ? values : instead;
            if (ticket->seen) ticket->seen[at + i] = seen;
            *unknown += !values;
            continue;
        }
        const ct_partition *partition = &table->partitions[ct_partition_of(keys[i], table->partition_bits)];
        const ct_found there = ct_partition_look(partition, keys[i], table->oldest_day);
        ticket->tokens[at + i] = instead;
        if (there.slot == CT_SLOT_EMPTY) {
            misses[n++] = (missed){keys[i], (uint32_t)(at + i)};
            continue;
        }
        if (there.slot != CT_SLOT_STUB)
            ticket->tokens[at + i] = ct_slab_at(&partition->values, there.slot - 1);
        else
            ++*unknown;
        if (ticket->seen) ticket->seen[at + i] = there.counts ? ct_counts_in_epoch(there.counts, table->counted_epoch) : (ct_seen){0, 0};
    }
    return n;
}

ct_code ct_tier_read(ct_tier *tier, ct_ticket *ticket, ct_status *status) {
    const ct_lookup *lookup = &ticket->lookup;
    const ct_table *table = ticket->table;
    const size_t columns = lookup->column_count, all = ticket->occurrences + ticket->shared_occurrences,
                 floats = ct_value_floats(&table->spec);
    if (tier->helper) CT_TRY(ct_helper_drain(tier->helper, status)); /* what is on its way out must have arrived */
    if (!ticket->tier) {
        ticket->tier = calloc(1, sizeof *ticket->tier);
        if (!ticket->tier) return ct_fail_memory(status, sizeof *ticket->tier, "a ticket");
    }
    ct_tier_ticket *mine = ticket->tier;
    CT_TRY(ct_scratch_reserve(&mine->scratch[4], all * sizeof(missed), status));
    CT_TRY(ct_scratch_reserve(&mine->scratch[5], columns * floats * sizeof(float), status));
    CT_TRY(ct_scratch_reserve(&mine->scratch[6], columns * sizeof(float *), status));
    missed *misses = mine->scratch[4].memory;
    const float **instead = mine->scratch[6].memory;
    for (size_t i = 0; i < columns; i++) {
        size_t same = 0;
        while (same < i && lookup->columns[same].rare_key != lookup->columns[i].rare_key) same++;
        if (same < i)
            instead[i] = instead[same];
        else
            CT_TRY(
                rare_values(tier, ticket, lookup->columns[i].rare_key, (float *)mine->scratch[5].memory + i * floats, &instead[i], status));
    }
    size_t n = 0, distinct = 0, stubs = 0;
    for (size_t block = 0; block < ticket->blocks; block++) {
        const uint32_t *starts = &ticket->starts[block * columns];
        const size_t first = block * ticket->block_rows;
        for (size_t i = 0; i < columns; i++) {
            const ct_key_column *column = &lookup->columns[i];
            if (column->shared) continue;
            const uint64_t *keys = column->keys + (column->offsets ? column->offsets[first] : first);
            n += resolve(ticket, keys, starts[i], starts[i + 1] - starts[i], instead[i], misses + n, &stubs);
        }
    }
    for (size_t i = 0; i < columns; i++) {
        const ct_key_column *column = &lookup->columns[i];
        if (!column->shared) continue;
        n += resolve(ticket, column->keys, ticket->shared_start[i], column->offsets ? column->offsets[1] : 1, instead[i], misses + n,
                     &stubs);
    }
    qsort(misses, n, sizeof *misses, by_key);
    for (size_t i = 0; i < n; i++) distinct += i == 0 || misses[i].key != misses[i - 1].key;
    CT_TRY(ct_scratch_reserve(&mine->scratch[0], distinct * sizeof(uint64_t), status));
    CT_TRY(ct_scratch_reserve(&mine->scratch[7], distinct * floats * sizeof(float), status));
    uint64_t *keys = mine->scratch[0].memory;
    distinct = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || misses[i].key != misses[i - 1].key) keys[distinct++] = misses[i].key;
    const size_t number = ticket->lookup.table;
    reading work = {.ticket = ticket,
                    .layout = &tier->layouts[number],
                    .misses = misses,
                    .count = n,
                    .rows = mine->scratch[7].memory,
                    .unknown = stubs};
    ct_live *changed = atomic_load(&tier->changed);
    if (changed) {
        CT_TRY(ct_scratch_reserve(&mine->scratch[1], distinct * sizeof(uint64_t), status));
        work.layout = &tier->changed_layouts[number];
        work.others = mine->scratch[1].memory;
        CT_TRY(ct_live_get(changed, number, keys, distinct, found, &work, status));
        work.layout = &tier->layouts[number];
        keys = work.others;
        distinct = work.other_count;
        work.others = NULL;
        work.at = 0;
    }
    CT_TRY(ct_live_get(tier->live, number, keys, distinct, found, &work, status));
    if (lookup->mode == CT_LOOKUP_READ) {
        atomic_fetch_add_explicit(&ticket->table->lookups, (int64_t)(all - work.unknown), memory_order_relaxed);
        atomic_fetch_add_explicit(&ticket->table->unknown, (int64_t)work.unknown, memory_order_relaxed);
        atomic_fetch_add_explicit(&ticket->table->missed, (int64_t)n, memory_order_relaxed);
    }
    return CT_OK;
}

/* --- what deltas have changed --- */

ct_code ct_tier_create_changed(ct_tier *tier, const char *folder, ct_status *status) {
    const ct_store *store = tier->store;
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    ct_live *changed = NULL;
    if (!tier->changed_layouts) tier->changed_layouts = calloc(store->table_count + 1, sizeof *tier->changed_layouts);
    if (!tier->changed_layouts) return ct_fail_memory(status, store->table_count * sizeof *tier->changed_layouts, "a cache");
    for (size_t i = 0; i < store->table_count; i++) {
        names[i] = store->tables[i].spec.name;
        ct_record_layout_read(&store->tables[i].spec, &tier->changed_layouts[i]);
    }
    CT_TRY(ct_live_create(folder, NULL, NULL, names, store->table_count, &changed, status));
    atomic_store(&tier->changed, changed);
    return CT_OK;
}

ct_live *ct_tier_changed(ct_tier *tier) { return atomic_load(&tier->changed); }

void ct_tier_expire_changed(ct_tier *tier, const ct_table *table) {
    const size_t number = (size_t)(table - tier->store->tables);
    if (table->spec.expire_days && tier->changed) ct_live_expire(tier->changed, number, &tier->changed_layouts[number], table->oldest_day);
}

/* --- opening --- */

/* How many keys were counted so often: buckets of a quarter of a power of two. */
enum { BUCKETS = 128 };

static size_t bucket_of(uint32_t count) {
    if (count < 4) return count;
    const int bits = 31 - __builtin_clz(count);
    return (size_t)(4 * (bits - 1) + (int)(count >> (bits - 2) & 3));
}

typedef struct warming {
    ct_filling filling;
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
    bool row, lives;
    (void)number;
    (void)key;
    CT_TRY(ct_record_lives(work->layout, record, bytes, &row, &lives, status));
    if (!lives) return CT_OK;
    work->rows += row;
    work->stubs += !row;
    if (row) work->histogram[count_bucket(work->layout, record)]++;
    return CT_OK;
}

static ct_code warm_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    warming *work = context;
    bool row, lives;
    (void)number;
    CT_TRY(ct_record_lives(work->layout, record, bytes, &row, &lives, status));
    if (!lives || !row || count_bucket(work->layout, record) < work->least || !work->room) return CT_OK;
    CT_TRY(ct_filling_put(&work->filling, key, record, status));
    work->room--;
    work->table->outside_rows--;
    return CT_OK;
}

/* Scans table `number` twice: to count its rows, and to make those resident that `cache_bytes` of `all_bytes` have room for. */
static ct_code warm(ct_tier *tier, ct_live *scanned, size_t number, uint64_t cache_bytes, uint64_t all_bytes, const char *folder,
                    const ct_stored_table *stored, ct_status *status) {
    ct_table *table = &tier->store->tables[number];
    const ct_partition *partition = &table->partitions[0];
    warming work = {
        .filling = {.table = table, .stored = &tier->layouts[number]}, .table = table, .layout = &tier->layouts[number], .least = BUCKETS};
    CT_TRY(ct_live_scan(scanned, number, count_record, &work, status));
    if (work.rows != stored->rows || work.stubs != stored->stubs)
        return ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", folder,
                       table->spec.name, (long long)work.rows, (long long)work.stubs, (long long)stored->rows, (long long)stored->stubs);
    /* A part of the limit by the tables' sizes. */
    const size_t row_bytes = tier_row_bytes(partition) + partition->counts.floats * sizeof(float);
    const double part = all_bytes ? (double)work.rows * (double)tier_row_bytes(partition) / (double)all_bytes : 0;
    const uint64_t share = (uint64_t)((double)cache_bytes * part), rows = (uint64_t)work.rows;
    work.room = share / (row_bytes + ct_sorted_key_bytes(rows < share / row_bytes ? rows : share / row_bytes, table->partition_bits));
    for (uint64_t n = 0; work.least > 0 && n < work.room;) n += work.histogram[--work.least];
    CT_TRY(ct_sorted_expect(table, work.room < rows ? work.room : rows, status));
    ct_code code = ct_live_scan(scanned, number, warm_record, &work, status);
    if (code == CT_OK) code = ct_filling_end(&work.filling, status);
    ct_filling_deinit(&work.filling);
    return code;
}

ct_code ct_tier_open(ct_store *store, const ct_store_limit *limit, const char *folder, const ct_stored_table *stored, ct_status *status) {
    ct_tier *tier;
    ct_live *scanned = NULL;
    ct_code code = CT_OK;
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    uint64_t all_bytes = 0;
    CT_TRY(tier_init(store, stored, &tier, status));
    tier->memory_bytes = limit->memory_bytes;
    store->tier = tier; /* the store's from now on, in failure too */
    for (size_t i = 0; i < store->table_count; i++) {
        ct_table *table = &store->tables[i];
        names[i] = table->spec.name;
        all_bytes += (uint64_t)stored[i].rows * tier_row_bytes(&table->partitions[0]);
        table->outside_rows = stored[i].rows;
        table->outside_stubs = table->spec.target_stats ? stored[i].stubs : 0; /* else nobody asks for them */
    }
    CT_TRY(ct_live_open(folder, CT_LIVE_POINTS, names, store->table_count, &tier->live, status));
    if (limit->all_on_disk) return CT_OK;
    CT_TRY(ct_live_open(folder, CT_LIVE_SCANS, names, store->table_count, &scanned, status));
    const uint64_t cache = tier->memory_bytes > read_bytes(tier) ? tier->memory_bytes - read_bytes(tier) : 0;
    for (size_t i = 0; i < store->table_count && code == CT_OK; i++)
        code = warm(tier, scanned, i, cache, all_bytes, folder, &stored[i], status);
    ct_live_close(scanned);
    (void)malloc_trim(0); /* what the scans had is no part of the limit */
    return code;
}
