/* Training look-ups.
 *
 * prefetch   tasks over blocks sort the block's occurrences by partition (stable); tasks over partitions find the distinct keys and list
 *            each key's occurrences in order. The table is not touched, so this may run before the previous batch is applied.
 * acquire    tasks over partitions find or add the keys, count them, decide who has a row, and say for every occurrence where its values
 *            are. What reads a rare row (id drop, keys without a row) is left open; then tasks over blocks list those occurrences in
 *            order, and give them their rare rows. Where a filter counts, it is asked for all keys of the partition before any is counted.
 * Rare rows are few and their partitions are others', so the caller adds them between the tasks. apply      tasks over partitions step
 * their rows, then tasks over rare keys step theirs. Should a hash collision make an ordinary key out of a rare one, its row takes two
 * steps, in this order: still the same for any number of threads.
 *
 * Everything is listed by (block, feature, row, value) and done by tasks whose cut does not depend on threads. */
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "embedding_store/changes.h"
#include "embedding_store/filter.h"
#include "embedding_store/saver.h"
#include "embedding_store/tier.h"

enum { INDEX_AHEAD = 32, DROP_ROWS = 256 /* drawn at a time */ };

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* --- prefetch --- */

typedef struct block_range {
    size_t first, end; /* rows */
} block_range;

static block_range rows_of(const ct_ticket *ticket, size_t block) {
    const size_t first = block * ticket->block_rows;
    return (block_range){first, least(first + ticket->block_rows, ticket->lookup.rows)};
}

/* Which of the rows [first, first + rows) id drop takes. A unit float is its word's upper 24 bits as a fraction, so that comparing it with
 * the rate is comparing those with rate * 2^24, rounded up. */
static void draw_drops(const ct_lookup *lookup, const ct_key_column *column, size_t first, size_t rows, bool *out_dropped) {
    uint32_t words[DROP_ROWS];
    const uint32_t limit = (uint32_t)ceil(lookup->drop_rate * 0x1p24);
    ct_random_words(lookup->drop_seed, CT_PLACE_ID_DROP, lookup->epoch, (uint64_t)(lookup->first_row + (int64_t)first), column->drop_index,
                    words, rows);
    for (size_t i = 0; i < rows; i++) out_dropped[i] = words[i] >> 8 < limit;
}

/* Gradient factors of one row's values: the derivative of gather's pooling. Of attention they come later (ct_store_attend_back). */
static void fill_factors(const ct_key_column *column, size_t value, size_t count, float *factors) {
    float sum = 0.0f;
    if (column->pooling == CT_POOL_MEAN)
        for (size_t j = 0; j < count; j++) sum += column->weights ? column->weights[value + j] : 1.0f;
    for (size_t j = 0; j < count; j++) {
        const float weight = column->weights ? column->weights[value + j] : 1.0f;
        factors[j] = column->pooling == CT_POOL_ATTENTION ? 0.0f
                     : column->pooling == CT_POOL_SUM     ? weight
                     : sum == 0.0f                        ? 0.0f
                                                          : weight / sum;
    }
}

/* Occurrences of one column in one block, from number `order` on, to their partitions' places. lists: a row has any number of keys, not
 * one. A constant of each caller. */
static inline __attribute__((always_inline)) void split_column(ct_ticket *ticket, size_t number, block_range range, uint32_t order,
                                                               uint32_t *cursors, bool lists) {
    const ct_lookup *lookup = &ticket->lookup;
    const ct_key_column *column = &lookup->columns[number];
    const uint32_t *offsets = column->offsets, bits = ticket->table->partition_bits;
    const bool dropping = ticket->dropped && ticket->rare_of[number] != CT_NO_ROW, weighted = ticket->weighted;
    uint64_t *sorted_keys = ticket->sorted_keys; /* here, since the compiler would read it anew behind each write */
    ct_occurrence *sorted = ticket->sorted;
    const uint64_t *keys = column->keys;
    bool drops[DROP_ROWS] = {false};
    for (size_t row = range.first; row < range.end; row++) {
        const size_t value = lists ? offsets[row] : row, end = lists ? offsets[row + 1] : row + 1;
        const size_t drawn = (row - range.first) % DROP_ROWS;
        if (dropping && drawn == 0) draw_drops(lookup, column, row, least(DROP_ROWS, range.end - row), drops);
        const bool dropped = drops[drawn];
        if (weighted && value < end) fill_factors(column, value, end - value, &ticket->factors[order]);
        for (size_t j = value; j < end; j++, order++) {
            const uint32_t to = cursors[ct_partition_of(keys[j], bits)]++;
            sorted_keys[to] = keys[j];
            sorted[to] = (ct_occurrence){order, (uint32_t)row, (uint32_t)number | (dropped ? CT_OCCURRENCE_DROPPED : 0)};
            if (!dropped) continue;
            ticket->tokens[order] = NULL;
            if (ticket->seen) ticket->seen[order] = (ct_seen){0, 0};
        }
    }
}

static void split_lists(ct_ticket *ticket, size_t number, block_range range, uint32_t order, uint32_t *cursors) {
    split_column(ticket, number, range, order, cursors, true);
}
static void split_singles(ct_ticket *ticket, size_t number, block_range range, uint32_t order, uint32_t *cursors) {
    split_column(ticket, number, range, order, cursors, false);
}

static void split_task(void *context, size_t block, size_t worker) {
    (void)worker;
    ct_ticket *ticket = context;
    const ct_lookup *lookup = &ticket->lookup;
    const ct_table *table = ticket->table;
    const uint32_t bits = table->partition_bits;
    const size_t parts = table->partition_count, columns = lookup->column_count;
    const block_range range = rows_of(ticket, block);
    const uint32_t *starts = &ticket->starts[block * columns];
    uint32_t cursors[1 << CT_MAX_PARTITION_BITS];
    memset(cursors, 0, parts * sizeof *cursors);

    for (size_t i = 0; i < columns; i++) {
        const ct_key_column *column = &lookup->columns[i];
        const uint64_t *keys = column->keys + (column->offsets ? column->offsets[range.first] : range.first);
        const size_t count = starts[i + 1] - starts[i];
        for (size_t j = 0; j < count; j++) cursors[ct_partition_of(keys[j], bits)]++;
    }
    uint32_t *segments = &ticket->segments[block * (parts + 1)];
    uint32_t at = starts[0];
    for (size_t p = 0; p < parts; p++) {
        segments[p] = at;
        at += cursors[p];
        cursors[p] = segments[p];
    }
    segments[parts] = at;

    for (size_t i = 0; i < columns; i++) (lookup->columns[i].offsets ? split_lists : split_singles)(ticket, i, range, starts[i], cursors);
}

static void unique_task(void *context, size_t part, size_t worker) {
    ct_ticket *ticket = context;
    const size_t parts = ticket->table->partition_count, base = ticket->bases[part], total = ticket->bases[part + 1] - base;
    ct_unique *uniques = &ticket->uniques[base];
    uint32_t *unique_of = &ticket->unique_of[base];
    const uint64_t *sorted_keys = ticket->sorted_keys;
    const ct_occurrence *sorted = ticket->sorted;
    ct_occurrence *list = &ticket->list[base];
    ct_dedupe *dedupe = &ticket->dedupes[worker];
    ct_dedupe_entry *entries = dedupe->scratch.memory;
    uint32_t bits = 4;
    while ((size_t)1 << bits < 2 * total) bits++;
    const size_t mask = ((size_t)1 << bits) - 1;
    if (++dedupe->stamp == 0) {
        memset(entries, 0, dedupe->scratch.bytes);
        dedupe->stamp = 1;
    }
    const uint32_t stamp = dedupe->stamp;
    uint32_t found = 0;
    size_t n = 0;
    for (size_t block = 0; block < ticket->blocks; block++) {
        const uint32_t *segment = &ticket->segments[block * (parts + 1) + part];
        for (uint32_t i = segment[0]; i < segment[1]; i++) {
            const uint64_t key = sorted_keys[i];
            size_t at = ct_key_home(key, bits);
            while (entries[at].stamp == stamp && entries[at].key != key) at = (at + 1) & mask;
            if (entries[at].stamp != stamp) {
                entries[at] = (ct_dedupe_entry){key, found, stamp};
                uniques[found++] = (ct_unique){.key = key, .row = CT_NO_ROW};
            }
            const uint32_t unique = entries[at].unique;
            unique_of[n++] = unique;
            uniques[unique].count++;
            uniques[unique].end += !(sorted[i].column & CT_OCCURRENCE_DROPPED); /* for now: how many */
        }
    }
    ticket->unique_counts[part] = found;
    uint32_t begin = 0;
    for (uint32_t i = 0; i < found; i++) { /* for now: where they begin */
        const uint32_t count = uniques[i].end;
        uniques[i].end = begin;
        begin += count;
    }
    n = 0;
    for (size_t block = 0; block < ticket->blocks; block++) {
        const uint32_t *segment = &ticket->segments[block * (parts + 1) + part];
        for (uint32_t i = segment[0]; i < segment[1]; i++) {
            const uint32_t unique = unique_of[n++];
            if (!(sorted[i].column & CT_OCCURRENCE_DROPPED)) list[uniques[unique].end++] = sorted[i];
        }
    }
}

ct_code ct_train_prefetch(ct_ticket *ticket, ct_status *status) {
    const size_t parts = ticket->table->partition_count;
    ct_pool *pool = ticket->lookup.alone ? NULL : ticket->store->pool;
    ct_run(pool, ticket->blocks, split_task, ticket);
    size_t largest = 0, base = 0;
    for (size_t p = 0; p < parts; p++) {
        size_t here = 0;
        for (size_t block = 0; block < ticket->blocks; block++) {
            const uint32_t *segment = &ticket->segments[block * (parts + 1) + p];
            here += segment[1] - segment[0];
        }
        ticket->bases[p] = base;
        base += here;
        if (here > largest) largest = here;
    }
    ticket->bases[parts] = base;
    size_t entries = 16;
    while (entries < 2 * largest) entries *= 2;
    for (size_t i = 0; i < ticket->dedupe_count; i++)
        CT_TRY(ct_scratch_reserve(&ticket->dedupes[i].scratch, entries * sizeof(ct_dedupe_entry), status));
    ct_run(pool, parts, unique_task, ticket);
    return CT_OK;
}

/* --- acquire --- */

typedef struct acquire_work {
    ct_ticket *ticket;
    ct_failure failure;
} acquire_work;

/* The entry of a key that the filter has counted often enough. */
static ct_code admit(const ct_ticket *ticket, size_t part, const ct_unique *unique, uint32_t seen, ct_index_entry **out_entry,
                     ct_status *status) {
    ct_table *table = ticket->table;
    ct_partition *partition = &table->partitions[part];
    if (ticket->store->changes) CT_TRY(ct_changes_mark_key(ticket->store->changes, table, unique->key, status));
    CT_TRY(ct_partition_claim(table, partition, unique->key, out_entry, status));
    (*out_entry)->count = seen;
    if (ticket->store->tier) ct_tier_added(ticket->store->tier, table, part, *out_entry);
    return CT_OK;
}

/* counted: the table has target statistics; wide: or it expires; filtered: a filter counts keys without a row. Constants of each caller, so
 * that tables without do not pay for it. */
static inline __attribute__((always_inline)) ct_code acquire_part(ct_ticket *ticket, size_t part, bool counted, bool wide, bool filtered,
                                                                  ct_status *status) {
    ct_table *table = ticket->table;
    ct_partition *partition = &table->partitions[part];
    const size_t count = ticket->unique_counts[part];
    ct_unique *uniques = &ticket->uniques[ticket->bases[part]];
    const ct_occurrence *list = &ticket->list[ticket->bases[part]];
    const uint32_t min_count = table->spec.min_count;
    const bool expires = wide && table->spec.expire_days > 0;
    uint32_t *seen = &ticket->unique_of[ticket->bases[part]]; /* filtered: by unique, how often before */
    ct_changes *changes = filtered ? ticket->store->changes : NULL;
    ct_noted *noted = counted ? &ticket->noted[ticket->bases[part]] : NULL;
    bool rerouted = false;
    if (counted) ticket->noted_bits[part] = partition->index_bits;

    for (size_t i = 0; i < least(count, INDEX_AHEAD); i++) ct_table_prefetch_by(table, uniques[i].key, wide);
    for (size_t i = 0; i < count; i++) {
        if (i + INDEX_AHEAD < count) ct_table_prefetch_by(table, uniques[i + INDEX_AHEAD].key, wide);
        if (filtered && i + INDEX_AHEAD < count) ct_filter_prefetch(table->filter, uniques[i + INDEX_AHEAD].key);
        ct_unique *unique = &uniques[i];
        ct_index_entry *entry = ct_partition_find_by(partition, unique->key, wide);
        if (filtered && !entry) {
            seen[i] = ct_filter_count(table->filter, unique->key);
            if (seen[i] < min_count) continue;
            CT_TRY(admit(ticket, part, unique, seen[i], &entry, status));
        } else if (changes) {
            CT_TRY(ct_changes_mark_key(changes, table, unique->key, status));
        }
        if (!entry) CT_TRY(ct_partition_claim(table, partition, unique->key, &entry, status));
        const uint32_t before = entry->count;
        entry->count = ct_add_counts(before, unique->count);
        if (entry->slot == CT_SLOT_STUB && (min_count <= 1 || before >= min_count)) {
            CT_TRY(ct_partition_add_row(table, partition, entry, status));
            ct_partition_set_first(table, partition, entry->slot - 1, unique->key, false);
        }
        if (entry->slot != CT_SLOT_STUB) unique->row = entry->slot - 1;
        if (expires) ct_entry_counts(entry)->day = table->day;
        if (counted) {
            noted[i].seen = ct_counts_in_epoch(ct_entry_counts(entry), ticket->lookup.epoch);
            noted[i].place = ct_partition_place(partition, entry);
        }
    }
    /* No row moves from here on: the rare rows that may still come to this partition have their room. */
    size_t rare_here = 0;
    for (size_t i = 0; i < ticket->rare_count; i++) rare_here += ct_partition_of(ticket->rare_keys[i], table->partition_bits) == part;
    CT_TRY(ct_partition_reserve(table, partition, rare_here, status));
    size_t begin = 0;
    for (size_t i = 0; i < count; i++) {
        const bool has_row = uniques[i].row != CT_NO_ROW;
        const float *values = has_row ? ct_slab_at(&partition->values, uniques[i].row) : NULL;
        rerouted |= !has_row;
        if (filtered && !has_row) ct_filter_raise(table->filter, uniques[i].key, ct_add_counts(seen[i], uniques[i].count));
        for (; begin < uniques[i].end; begin++) {
            ticket->tokens[list[begin].order] = values;
            if (counted) ticket->seen[list[begin].order] = noted[i].seen;
        }
    }
    ticket->rerouted[part] = rerouted;
    return CT_OK;
}

static void acquire_task(void *context, size_t part, size_t worker) {
    (void)worker;
    acquire_work *work = context;
    ct_status status;
    ct_changes *changes = work->ticket->store->changes;
    ct_saver *saver = work->ticket->store->saver;
    const bool counted = work->ticket->seen, wide = ct_entry_shift(&work->ticket->table->spec), filtered = work->ticket->table->filter;
    if (saver) ct_saver_lock(saver, work->ticket->table, part);
    ct_code code = changes && !filtered ? ct_changes_mark(changes, work->ticket, part, &status) : CT_OK;
    if (code == CT_OK && saver) code = ct_saver_mark(saver, work->ticket, part, &status);
    if (code == CT_OK)
        code = counted            ? acquire_part(work->ticket, part, true, true, false, &status)
               : wide && filtered ? acquire_part(work->ticket, part, false, true, true, &status)
               : filtered         ? acquire_part(work->ticket, part, false, false, true, &status)
               : wide             ? acquire_part(work->ticket, part, false, true, false, &status)
                                  : acquire_part(work->ticket, part, false, false, false, &status);
    if (saver) ct_saver_unlock(saver, work->ticket->table, part);
    if (code != CT_OK) ct_failure_put(&work->failure, &status);
}

/* Lists the block's occurrences whose values are still open, and counts how many each rare key will get. */
static void find_open_task(void *context, size_t block, size_t worker) {
    (void)worker;
    ct_ticket *ticket = context;
    const size_t columns = ticket->lookup.column_count;
    const block_range range = rows_of(ticket, block);
    const uint32_t *starts = &ticket->starts[block * columns];
    const float **tokens = ticket->tokens;
    uint32_t *counts = &ticket->rare_cursors[block * ticket->rare_count];
    ct_occurrence *open = &ticket->open[starts[0]];
    uint32_t n = 0;
    memset(counts, 0, ticket->rare_count * sizeof *counts);
    for (size_t i = 0; i < columns; i++) {
        const uint32_t *offsets = ticket->lookup.columns[i].offsets, before = n;
        if (ticket->rare_of[i] == CT_NO_ROW) { /* these read zeros and train nothing */
            for (size_t order = starts[i]; order < starts[i + 1]; order++)
                if (!tokens[order]) tokens[order] = ticket->table->zeros;
            continue;
        }
        uint32_t order = starts[i];
        for (size_t row = range.first; row < range.end; row++)
            for (const uint32_t end = order + (offsets ? offsets[row + 1] - offsets[row] : 1); order < end; order++)
                if (!tokens[order]) open[n++] = (ct_occurrence){order, (uint32_t)row, (uint32_t)i};
        counts[ticket->rare_of[i]] += n - before;
    }
    ticket->open_counts[block] = n;
}

static void give_rare_task(void *context, size_t block, size_t worker) {
    (void)worker;
    ct_ticket *ticket = context;
    const ct_table *table = ticket->table;
    const ct_occurrence *open = &ticket->open[ticket->starts[block * ticket->lookup.column_count]];
    uint32_t *cursors = &ticket->rare_cursors[block * ticket->rare_count], column = CT_NO_ROW, rare = 0;
    const float *values = NULL;
    for (size_t i = 0; i < ticket->open_counts[block]; i++) {
        if (open[i].column != column) {
            column = open[i].column;
            rare = ticket->rare_of[column];
            const ct_unique *unique = &ticket->rare_uniques[rare];
            values = ct_slab_at(&table->partitions[ct_partition_of(unique->key, table->partition_bits)].values, unique->row);
        }
        ticket->tokens[open[i].order] = values;
        ticket->rare_list[cursors[rare]++] = open[i];
    }
}

static ct_code add_rare_row(const ct_ticket *ticket, ct_unique *unique, size_t part, ct_status *status) {
    ct_table *table = ticket->table;
    ct_partition *partition = &table->partitions[part];
    ct_index_entry *entry;
    if (ticket->store->changes) CT_TRY(ct_changes_mark_key(ticket->store->changes, table, unique->key, status));
    if (ticket->store->saver) CT_TRY(ct_saver_mark_key(ticket->store->saver, table, unique->key, status));
    CT_TRY(ct_partition_claim(table, partition, unique->key, &entry, status));
    entry->count = ct_add_counts(entry->count, unique->count);
    if (table->spec.expire_days) ct_entry_counts(entry)->day = CT_DAY_NEVER;
    if (entry->slot == CT_SLOT_STUB) {
        CT_TRY(ct_partition_add_row(table, partition, entry, status));
        ct_partition_set_first(table, partition, entry->slot - 1, unique->key, true);
    }
    unique->row = entry->slot - 1;
    return CT_OK;
}

/* Adds the rare rows that are needed and turns the counts of (block, rare key) into places in the list. */
static ct_code add_rare_rows(ct_ticket *ticket, ct_status *status) {
    uint32_t at = 0;
    for (size_t rare = 0; rare < ticket->rare_count; rare++) {
        const uint32_t begin = at;
        for (size_t block = 0; block < ticket->blocks; block++) {
            uint32_t *cursor = &ticket->rare_cursors[block * ticket->rare_count + rare];
            const uint32_t count = *cursor;
            *cursor = at;
            at += count;
        }
        ct_unique *unique = &ticket->rare_uniques[rare];
        *unique = (ct_unique){.key = ticket->rare_keys[rare], .end = at, .count = at - begin, .row = CT_NO_ROW};
        if (!unique->count) continue;
        const size_t part = ct_partition_of(unique->key, ticket->table->partition_bits);
        ct_saver *saver = ticket->store->saver;
        if (saver) ct_saver_lock(saver, ticket->table, part);
        const ct_code code = add_rare_row(ticket, unique, part, status);
        if (saver) ct_saver_unlock(saver, ticket->table, part);
        CT_TRY(code);
    }
    return CT_OK;
}

ct_code ct_train_acquire(ct_ticket *ticket, ct_status *status) {
    acquire_work work = {.ticket = ticket, .failure = {.status = status}};
    if (ticket->store->saver) ct_saver_make_room(ticket->store->saver);
    ct_run(ticket->store->pool, ticket->table->partition_count, acquire_task, &work);
    CT_TRY(ct_failure_code(&work.failure));
    ticket->any_rare = ticket->dropped;
    for (size_t p = 0; p < ticket->table->partition_count; p++) ticket->any_rare |= ticket->rerouted[p];
    if (!ticket->any_rare) return CT_OK;
    ct_run(ticket->store->pool, ticket->blocks, find_open_task, ticket);
    CT_TRY(add_rare_rows(ticket, status));
    ct_run(ticket->store->pool, ticket->blocks, give_rare_task, ticket);
    return CT_OK;
}

/* --- apply --- */

typedef struct apply_work {
    ct_ticket *ticket;
    ct_table_spec spec; /* with the learning rate of now */
    ct_gradients gradients;
    const float *labels; /* NULL = nothing is counted */
} apply_work;

static void apply_task(void *context, size_t part, size_t worker) {
    (void)worker;
    const apply_work *work = context;
    ct_ticket *ticket = work->ticket;
    const ct_partition *partition = &ticket->table->partitions[part];
    const size_t base = ticket->bases[part];
    ct_optimiser_step(&work->spec, &work->gradients, &ticket->uniques[base], ticket->unique_counts[part], &ticket->list[base], 0,
                      &partition->values, &partition->state);
    if (work->labels) ct_counts_apply(ticket, part, work->labels);
}

static void apply_rare_task(void *context, size_t rare, size_t worker) {
    (void)worker;
    const apply_work *work = context;
    const ct_ticket *ticket = work->ticket;
    const ct_table *table = ticket->table;
    const ct_unique *unique = &ticket->rare_uniques[rare];
    const ct_partition *partition = &table->partitions[ct_partition_of(unique->key, table->partition_bits)];
    ct_optimiser_step(&work->spec, &work->gradients, unique, 1, ticket->rare_list, unique->end - unique->count, &partition->values,
                      &partition->state);
}

ct_code ct_train_apply(ct_ticket *ticket, const float *gradients, size_t stride, const float *labels, ct_status *status) {
    (void)status;
    apply_work work = {.ticket = ticket,
                       .spec = ticket->table->spec,
                       .labels = ticket->seen ? labels : NULL,
                       .gradients = {.values = gradients,
                                     .stride = stride,
                                     .output_column = ticket->output_column,
                                     .factors = ticket->weighted ? ticket->factors : NULL,
                                     .attended = ticket->attends ? ticket->attended : NULL,
                                     .slopes = ticket->slopes,
                                     .queries = ticket->queries,
                                     .query_rows = ticket->lookup.rows,
                                     .query_stride = ticket->query_stride,
                                     .block_rows = (uint32_t)ticket->block_rows,
                                     .epoch = ticket->lookup.epoch}};
    const int64_t first_row = ticket->lookup.first_row;
    work.gradients.rounding_seed = ct_hash64(&first_row, sizeof first_row, work.spec.seed);
    work.spec.learning_rate = ticket->table->learning_rate;
    ct_run(ticket->store->pool, ticket->table->partition_count, apply_task, &work);
    if (ticket->any_rare) ct_run(ticket->store->pool, ticket->rare_count, apply_rare_task, &work);
    if (work.labels) ticket->table->counted_epoch = ticket->lookup.epoch;
    return CT_OK;
}
