/* Rows on their way out: those that leave memory to make room, and those that are written and stay. Tasks over partitions encode them into
 * one of two buffers; the helper writes it while the other is filled. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "embedding_store/helper.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/tier_internal.h"

enum { SPARE_PART = 32 }; /* of a partition, evicted at once beyond what is needed, so that it is searched seldom */

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

void tier_out_sort(tier_out_part *out) {
    if (out->count) qsort(out->entries, out->count, sizeof *out->entries, by_key);
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
    if (code != CT_OK) {
        ct_failure_put(failure, &status);
        return;
    }
    tier_done *done = &out->state->done;
    ct_backlog backlog;
    atomic_store(&done->behind, ct_live_pressure(out->live, out->table, &backlog) > 0);
    atomic_store(&done->runs, backlog.runs);
    if (backlog.runs > atomic_load(&done->most_runs)) atomic_store(&done->most_runs, backlog.runs);
    if (backlog.level0_bytes > atomic_load(&done->most_level0_bytes)) atomic_store(&done->most_level0_bytes, backlog.level0_bytes);
    for (size_t p = 0; p < out->parts; p++) {
        (void)atomic_fetch_add(&done->written_bytes, out->part[p].bytes + sizeof(uint64_t) * out->part[p].count);
        (void)atomic_fetch_add(&done->written_keys, out->part[p].count);
    }
    (void)atomic_fetch_add(&done->writes, 1);
}

static bool out_any(const tier_out *out) {
    for (size_t p = 0; p < out->parts; p++)
        if (out->part[p].count) return true;
    return false;
}

ct_code tier_out_take(ct_tier *tier, tier_table *state, tier_out **out_out, ct_status *status) {
    tier_out *out = &state->out[state->next_out ^= 1];
    CT_TRY(ct_helper_wait(tier->helper, out->job, status));
    out_clear(out);
    *out_out = out;
    return CT_OK;
}

ct_code tier_out_send(ct_tier *tier, tier_out *out, ct_status *status) {
    if (!out_any(out)) return CT_OK;
    return ct_helper_submit(tier->helper, write_job, out, &out->job, status);
}

/* --- compaction that is behind --- */

void tier_hold_back(ct_tier *tier, size_t table) {
    enum { LOOK_NS = 5000000 }; /* while it waits */
    tier_pace *pace = &tier->pace;
    const int64_t began = ct_clock_ns();
    int64_t now = began, until = began;
    for (ct_backlog backlog; atomic_load(&tier->tables[table].done.behind);) {
        const double pressure = ct_live_pressure(tier->live, table, &backlog);
        if (pressure < 1) until = began + ct_pace_pause_ns(pressure, pace->since_ns ? began - pace->since_ns : 0);
        if (pressure < 1 ? now >= until : !ct_live_compacts(tier->live, table)) break;
        const struct timespec nap = {0, pressure < 1 && until - now < LOOK_NS ? until - now : LOOK_NS};
        (void)nanosleep(&nap, NULL); /* RocksDB's C interface tells nobody when a compaction ends */
        now = ct_clock_ns();
    }
    pace->since_ns = now;
    pace->held_ns += now - began;
    if (now - began > pace->longest_ns) pace->longest_ns = now - began;
}

/* --- eviction --- */

/* 0 .. 63: how much longer it was not asked for than one would think of a key that was seen so often. */
static unsigned staleness(uint32_t age, uint32_t count) {
    enum { MIDDLE = 24, MOST = 63 };
    const int age_bits = 31 - __builtin_clz(age | 1), half = age_bits ? (int)(age >> (age_bits - 1)) & 1 : 0;
    const int value = MIDDLE + 2 * age_bits + half - (31 - __builtin_clz(count | 1));
    return value < 0 ? 0 : value > MOST ? MOST : (unsigned)value;
}

ct_code tier_make_room(const tier_work *work, size_t part, uint64_t rows, uint64_t entries, ct_status *status) {
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
        tier_day *day = tier_day_of(state, tier_entry_day(table, entry));
        if (touched > state->written) {
            CT_TRY(out_put(work->tier, &work->out->part[part], &day->sum, table, partition, entry, status));
            state->dirty--;
        }
        const bool row = entry->slot != CT_SLOT_STUB;
        gone++;
        gone_rows += row;
        day->rows += row;
        day->stubs += !row;
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

/* --- what is written and stays --- */

static void age_task(void *context, size_t part, size_t worker) {
    (void)worker;
    const tier_work *work = context;
    const ct_partition *partition = &work->ticket->table->partitions[part];
    tier_part *state = &work->state->part[part];
    const uint32_t written = state->written, window = work->final - written;
    memset(state->ages, 0, sizeof state->ages);
    for (size_t at = 0; at < (size_t)1 << partition->index_bits; at++) {
        const uint32_t touched = partition->touched[at];
        if (touched > written && touched <= work->final) /* of an empty place it is 0 */
            state->ages[(uint64_t)(work->final - touched) * TIER_AGES / window]++;
    }
}

/* What was not asked for longest goes first: what is used again and again is seldom written. */
void tier_choose_dirty(tier_work *work) {
    tier_table *state = work->state;
    const size_t parts = work->ticket->table->partition_count;
    const uint64_t bytes = ct_record_bytes(work->ticket->table);
    const uint32_t written = state->part[0].written; /* all partitions are written at once */
    uint64_t dirty = 0;
    for (size_t p = 0; p < parts; p++) {
        dirty += state->part[p].dirty;
        state->part[p].to_write = false;
    }
    if (dirty * bytes <= state->most_dirty || work->final <= written) return;
    ct_run(work->ticket->lookup.alone ? NULL : work->tier->store->pool, parts, age_task, work);
    unsigned oldest = TIER_AGES;
    while (oldest > 0 && dirty * bytes > state->most_dirty / 2) {
        oldest--;
        for (size_t p = 0; p < parts; p++) dirty -= state->part[p].ages[oldest];
    }
    /* the smallest age in that bucket */
    work->final -= (uint32_t)(((uint64_t)oldest * (work->final - written) + TIER_AGES - 1) / TIER_AGES);
    for (size_t p = 0; p < parts; p++) state->part[p].to_write = true;
}

ct_code tier_write_back(const tier_work *work, size_t part, ct_status *status) {
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
        ct_sum *sum = pending ? &state->pending : &tier_day_of(state, tier_entry_day(table, entry))->sum;
        CT_TRY(out_put(work->tier, &work->out->part[part], sum, table, partition, entry, status));
    }
    state->written = work->final;
    state->dirty = dirty;
    return CT_OK;
}

static void flush_task(void *context, size_t part, size_t worker) {
    (void)worker;
    tier_work *work = context;
    ct_status status;
    if (!work->state->part[part].to_write) return;
    if (tier_write_back(work, part, &status) != CT_OK) ct_failure_put(&work->failure, &status);
    tier_out_sort(&work->out->part[part]);
}

ct_code ct_tier_flush(ct_tier *tier, ct_status *status) {
    CT_TRY(ct_tier_flush_begin(tier, status));
    return ct_helper_drain(tier->helper, status);
}

ct_code ct_tier_flush_begin(ct_tier *tier, ct_status *status) {
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
            tier_work work = {.tier = tier, .state = state, .final = tier->acquired, .failure = {.status = status}};
            CT_TRY(tier_out_take(tier, state, &work.out, status));
            ct_run(tier->store->pool, parts, flush_task, &work);
            CT_TRY(ct_failure_code(&work.failure));
            CT_TRY(tier_out_send(tier, work.out, status));
            first = end;
        }
    }
    return CT_OK;
}

static void link_job(void *context, ct_failure *failure) {
    const tier_link *link = context;
    ct_status status;
    if (ct_live_checkpoint(link->live, link->folder, &status) != CT_OK) ct_failure_put(failure, &status);
}

ct_code ct_tier_link(ct_tier *tier, const char *folder, ct_status *status) {
    tier->link = (tier_link){.live = tier->live, .folder = folder};
    return ct_helper_submit(tier->helper, link_job, &tier->link, &tier->link.job, status);
}

ct_code ct_tier_linked(ct_tier *tier, ct_status *status) { return ct_helper_join(tier->helper, tier->link.job, status); }
