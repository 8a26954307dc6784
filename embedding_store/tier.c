/* A tier's beginning and end, and what others ask of it. */
#include <stdlib.h>

#include "embedding_store/helper.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/tier_internal.h"

/* --- create and destroy --- */

ct_code tier_init(ct_store *store, const ct_stored_table *stored, ct_tier **out_tier, ct_status *status) {
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

/* Makes it where it is not there. */
static ct_code add_day(tier_part *part, uint32_t day, ct_status *status) {
    if (part->day_count && tier_day_of(part, day)->day == day) return CT_OK;
    if (part->day_count == part->day_room) {
        const uint32_t room = part->day_room ? part->day_room * 2 : 2;
        tier_day *days = realloc(part->days, room * sizeof *days);
        if (!days) return ct_fail_memory(status, room * sizeof *days, "a table's days");
        part->days = days;
        part->day_room = room;
    }
    part->days[part->day_count++] = (tier_day){.day = day};
    return CT_OK;
}

static ct_code init_table(ct_tier *tier, size_t number, ct_status *status) {
    ct_table *table = &tier->store->tables[number];
    tier_table *state = &tier->tables[number];
    state->part = calloc(table->partition_count, sizeof *state->part);
    for (size_t i = 0; i < 2; i++) {
        state->out[i] = (tier_out){.live = tier->live, .state = state, .table = number, .parts = table->partition_count};
        state->out[i].part = calloc(table->partition_count, sizeof *state->out[i].part);
        if (!state->out[i].part || !state->part) return ct_fail_memory(status, table->partition_count * sizeof *state->part, "a cache");
    }
    for (size_t p = 0; p < table->partition_count; p++) {
        ct_partition *partition = &table->partitions[p];
        partition->touched = calloc((size_t)1 << partition->index_bits, sizeof *partition->touched);
        if (!partition->touched) return ct_fail_memory(status, sizeof *partition->touched << partition->index_bits, "a table's index");
        partition->bytes += sizeof *partition->touched << partition->index_bits;
        if (table->spec.expire_days) CT_TRY(add_day(&state->part[p], CT_DAY_NEVER, status));
        CT_TRY(add_day(&state->part[p], table->day, status));
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
    const ct_stored_table *layout = &work->tier->layouts[work->table];
    bool row, lives;
    (void)number;
    CT_TRY(ct_record_lives(layout, record, bytes, &row, &lives, status));
    if (!lives) return CT_OK;
    work->rows += row;
    work->stubs += !row;
    return ct_tier_count(work->tier, work->table, key, record, bytes, row, status);
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

ct_code ct_tier_create(ct_store *store, const ct_tier_limits *limits, const char *folder, const char *from, const ct_stored_table *stored,
                       ct_status *status) {
    ct_tier *tier;
    ct_code code;
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    for (size_t i = 0; stored && i < store->table_count; i++) CT_TRY(ct_record_check_layout(&stored[i], status));
    CT_TRY(tier_init(store, stored, &tier, status));
    tier->memory_bytes = limits->memory_bytes;
    tier->cache_bytes = limits->cache_bytes;
    for (size_t i = 0; i < store->table_count; i++) names[i] = store->tables[i].spec.name;
    CT_TRY_GOTO(code, ct_live_create(folder, from, limits->tuning, names, store->table_count, &tier->live, status), fail);
    for (size_t i = 0; i < store->table_count; i++)
        if (store->tables[i].spec.kind == CT_TABLE_TRAINED) CT_TRY_GOTO(code, init_table(tier, i, status), fail);
    for (size_t i = 0; from && i < store->table_count; i++)
        if (store->tables[i].spec.kind == CT_TABLE_TRAINED) CT_TRY_GOTO(code, sum_table(tier, i, from, status), fail);
    CT_TRY_GOTO(code, ct_helper_create(&tier->helper, status), fail);
    tier_drop_expired(tier);
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
        for (size_t p = 0; tier->tables[i].part && p < tier->store->tables[i].partition_count; p++) free(tier->tables[i].part[p].days);
        free(tier->tables[i].part);
    }
    ct_live_close(tier->live);
    ct_live_close(tier->changed);
    free(tier->changed_layouts);
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

/* --- what others ask --- */

ct_code ct_tier_check_finite(ct_tier *tier, ct_status *status) {
    const ct_table *table = atomic_load(&tier->bad_table);
    return table ? ct_record_fail_finite(table, atomic_load(&tier->bad_key), status) : CT_OK;
}

ct_sum ct_tier_sum(const ct_tier *tier, size_t table) {
    ct_sum sum = {{0, 0}};
    const tier_part *part = tier->tables[table].part;
    for (size_t p = 0; p < tier->store->tables[table].partition_count; p++)
        for (size_t n = 0; n < 2; n++) {
            sum.word[n] += part[p].pending.word[n];
            for (uint32_t d = 0; d < part[p].day_count; d++) sum.word[n] += part[p].days[d].sum.word[n];
        }
    return sum;
}

ct_code ct_tier_count(ct_tier *tier, size_t table, uint64_t key, const char *record, size_t bytes, bool row, ct_status *status) {
    tier_part *part = &tier->tables[table].part[ct_partition_of(key, tier->store->partition_bits)];
    const uint32_t number = ct_record_day(&tier->layouts[table], record);
    CT_TRY(add_day(part, number, status));
    tier_day *day = tier_day_of(part, number);
    ct_sum_add(&day->sum, key, record, bytes);
    day->rows += row;
    day->stubs += !row;
    return CT_OK;
}

void tier_drop_expired(ct_tier *tier) {
    tier->expired_wait = !ct_helper_is_done(tier->helper, tier->link.job);
    for (size_t i = 0; i < tier->store->table_count && !tier->expired_wait; i++) {
        const ct_table *table = &tier->store->tables[i];
        if (table->spec.expire_days) ct_live_expire(tier->live, i, &tier->layouts[i], table->oldest_day);
    }
}

ct_code ct_tier_expire(ct_tier *tier, ct_table *table, ct_status *status) {
    const size_t number = (size_t)(table - tier->store->tables);
    tier_drop_expired(tier);
    for (size_t p = 0; p < table->partition_count; p++) {
        tier_part *part = &tier->tables[number].part[p];
        uint32_t kept = 0;
        for (uint32_t d = 0; d < part->day_count; d++) {
            const tier_day *at = &part->days[d];
            if (at->day >= table->oldest_day) {
                part->days[kept++] = *at;
                continue;
            }
            table->outside_rows -= at->rows;
            table->outside_stubs -= at->stubs;
            table->expired += at->rows;
        }
        part->day_count = kept;
        CT_TRY(add_day(part, table->day, status));
    }
    return CT_OK;
}

bool ct_tier_let_go(ct_tier *tier, const ct_table *table, size_t part, size_t place) {
    const uint32_t touched = table->partitions[part].touched[place];
    tier_part *state = &tier->tables[table - tier->store->tables].part[part];
    if (touched == tier->plan.sequence && !table->filter) return false; /* it is dirty, and stays so */
    state->dirty -= touched > state->written;
    return true;
}

int64_t ct_tier_waited_ns(const ct_tier *tier) { return tier->helper ? ct_helper_waited_ns(tier->helper) : 0; }

void ct_tier_disk(const ct_tier *tier, ct_store_disk *out_disk) {
    *out_disk = (ct_store_disk){
        .waited_ns = ct_tier_waited_ns(tier) + tier->pace.held_ns, .held_ns = tier->pace.held_ns, .longest_held_ns = tier->pace.longest_ns};
    for (size_t i = 0; i < tier->store->table_count; i++) {
        const tier_done *done = &tier->tables[i].done;
        const uint32_t most = atomic_load(&done->most_runs);
        out_disk->written_bytes += atomic_load(&done->written_bytes);
        out_disk->writes += atomic_load(&done->writes);
        out_disk->fetched += atomic_load(&done->fetched);
        out_disk->fetch_ns += atomic_load(&done->fetch_ns);
        out_disk->asked_runs += atomic_load(&done->asked_runs);
        if (most > out_disk->most_runs) out_disk->most_runs = most;
    }
}

ct_live *ct_tier_live(ct_tier *tier) { return tier->live; }

uint64_t ct_tier_least_memory(const ct_tier *tier) { return tier->least_bytes; }

const ct_stored_table *ct_tier_layout(const ct_tier *tier, size_t table) { return &tier->layouts[table]; }
