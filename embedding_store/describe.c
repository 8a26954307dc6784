/* What a snapshot's folder holds, for people: its tables with sizes on disk by level, and what a scan of every row finds; single keys.
 * Needs memory for one row. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "embedding_store/filter.h"
#include "embedding_store/half.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"

enum { COUNT_BUCKETS = 33, NORM_BUCKETS = 64, NORM_LEAST = -32 /* log2 of the least norm that has a bucket of its own */ };

typedef struct scan {
    const ct_stored_table *stored;
    ct_table scratch; /* of one row: what it began with */
    int64_t rows, stubs, dead;
    int64_t shard_rows[CT_VIRTUAL_SHARDS];                         /* with stubs */
    int64_t row_counts[COUNT_BUCKETS], stub_counts[COUNT_BUCKETS]; /* by the log2 of count, + 1; 0: 0 */
    int64_t norms[NORM_BUCKETS];                                   /* by log2, the first one with 0 */
    double norm_sum, norm_most;
} scan;

static float value_of(const ct_table_spec *spec, const char *values, uint32_t i) {
    float value;
    uint16_t half;
    if (spec->precision == CT_ROW_FP16) {
        memcpy(&half, values + i * sizeof half, sizeof half);
        return ct_half_to_float(half);
    }
    memcpy(&value, values + i * sizeof value, sizeof value);
    return value;
}

static double norm_of(const ct_table_spec *spec, const char *values) {
    double sum = 0;
    for (uint32_t i = 0; i < spec->dim; i++) {
        const double value = (double)value_of(spec, values, i);
        sum += value * value;
    }
    return sqrt(sum);
}

/* Has no update changed it? Rare rows and those of frozen tables begin at 0. */
static bool is_dead(scan *scan, uint64_t key, const char *values, double norm) {
    if (norm == 0.0) return true;
    if (scan->stored->spec.kind != CT_TABLE_TRAINED) return false;
    ct_partition *partition = &scan->scratch.partitions[0];
    ct_partition_set_first(&scan->scratch, partition, 0, key, false);
    return memcmp(ct_slab_at(&partition->values, 0), values, ct_value_bytes(&scan->stored->spec)) == 0;
}

static size_t count_bucket(uint32_t count) { return count ? (size_t)(32 - __builtin_clz(count)) : 0; }

static ct_code scan_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    scan *scan = context;
    const ct_stored_table *stored = scan->stored;
    bool row, lives;
    (void)number;
    CT_TRY(ct_record_lives(stored, record, bytes, &row, &lives, status));
    if (!lives) return CT_OK;
    scan->rows += row;
    scan->stubs += !row;
    scan->shard_rows[key >> 54]++;
    if (stored->count.present) (row ? scan->row_counts : scan->stub_counts)[count_bucket(ct_get_le32(record + stored->count.offset))]++;
    if (!row) return CT_OK;
    const char *values = ct_record_values(stored, record, row);
    const double norm = norm_of(&stored->spec, values);
    scan->norm_sum += norm;
    if (norm > scan->norm_most) scan->norm_most = norm;
    scan->dead += is_dead(scan, key, values, norm);
    const int bucket = norm > 0 ? ilogb(norm) - NORM_LEAST + 1 : 0;
    scan->norms[bucket < 0 ? 0 : bucket >= NORM_BUCKETS ? NORM_BUCKETS - 1 : bucket]++;
    return CT_OK;
}

static int by_size(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* What the table's rows would take in memory: an index that is between 35 and 70 % full, and slabs. */
static int64_t memory_bytes(const scan *scan) {
    const ct_table_spec *spec = &scan->stored->spec;
    const int64_t row = (int64_t)((ct_value_floats(spec) + ct_state_floats(spec)) * sizeof(float));
    const int64_t entry = (int64_t)(sizeof(ct_index_entry) << ct_entry_shift(spec));
    return scan->rows * row + (scan->rows + scan->stubs) * entry * 2;
}

/* Adds to the table's own object, and to the lists of all tables. */
static int put_table(scan *scan, json_t *table, json_t *use_counts, json_t *norms) {
    const char *name = scan->stored->spec.name;
    int bad = 0, used = 0;
    qsort(scan->shard_rows, CT_VIRTUAL_SHARDS, sizeof *scan->shard_rows, by_size);
    for (size_t i = 0; i < CT_VIRTUAL_SHARDS; i++) used += scan->shard_rows[i] > 0;
    bad |= json_object_set_new(table, "memory_bytes", json_integer(memory_bytes(scan)));
    bad |= json_object_set_new(table, "shards", json_integer(used));
    bad |= json_object_set_new(table, "shard_rows",
                               json_pack("[I, I, I]", (json_int_t)scan->shard_rows[0], (json_int_t)scan->shard_rows[CT_VIRTUAL_SHARDS / 2],
                                         (json_int_t)scan->shard_rows[CT_VIRTUAL_SHARDS - 1]));
    bad |= json_object_set_new(table, "dead_rows", json_integer(scan->dead));
    bad |= json_object_set_new(table, "norm_mean", scan->rows ? json_real(scan->norm_sum / (double)scan->rows) : json_null());
    bad |= json_object_set_new(table, "norm_most", scan->rows ? json_real(scan->norm_most) : json_null());
    for (size_t i = 0; i < COUNT_BUCKETS; i++) {
        if (scan->row_counts[i] + scan->stub_counts[i] == 0) continue;
        bad |= json_array_append_new(
            use_counts, json_pack("{s:s, s:I, s:I, s:I, s:I}", "table", name, "seen_from", i ? (json_int_t)1 << (i - 1) : (json_int_t)0,
                                  "seen_to", i ? ((json_int_t)1 << i) - 1 : (json_int_t)0, "rows", (json_int_t)scan->row_counts[i], "stubs",
                                  (json_int_t)scan->stub_counts[i]));
    }
    for (int i = 0; i < NORM_BUCKETS; i++) {
        if (!scan->norms[i]) continue;
        bad |= json_array_append_new(
            norms, json_pack("{s:s, s:f, s:f, s:I}", "table", name, "norm_from", i ? ldexp(1.0, i - 1 + NORM_LEAST) : 0.0, "norm_below",
                             ldexp(1.0, i + NORM_LEAST), "rows", (json_int_t)scan->norms[i]));
    }
    return bad;
}

static ct_code describe_filter(const char *folder, size_t number, const ct_stored_table *stored, json_t *table, ct_status *status) {
    ct_filter *filter = NULL;
    CT_TRY(ct_filter_check_file(&stored->spec, folder, number, status));
    CT_TRY(ct_filter_create(&stored->spec, ct_device_cpu(), &filter, status));
    const ct_code code = ct_filter_read(filter, folder, number, status);
    const ct_filter_load load = ct_filter_measure(filter);
    const uint64_t bytes = ct_filter_bytes(filter);
    ct_filter_destroy(filter);
    CT_TRY(code);
    int bad = json_object_set_new(table, "filter_bytes", json_integer((json_int_t)bytes));
    bad |= json_object_set_new(table, "filter_fill", json_real(load.fill));
    bad |= json_object_set_new(table, "filter_error", json_real(load.error));
    return bad ? ct_fail_memory(status, 64, "a filter's description") : CT_OK;
}

static ct_code describe_table(ct_live *live, size_t number, const ct_stored_table *stored, const char *folder, json_t *table,
                              json_t *use_counts, json_t *norms, ct_status *status) {
    uint64_t levels[CT_LIVE_LEVELS], bytes = 0;
    ct_code code;
    scan *found = calloc(1, sizeof *found);
    json_t *sizes = json_array();
    if (!found || !sizes) {
        code = ct_fail_memory(status, sizeof *found, "a store's description");
        goto done;
    }
    found->stored = stored;
    CT_TRY_GOTO(code, ct_table_init(&found->scratch, &stored->spec, ct_device_cpu(), 0, ct_state_floats(&stored->spec), status), done);
    CT_TRY_GOTO(code, ct_partition_reserve(&found->scratch, &found->scratch.partitions[0], 1, status), done);
    CT_TRY_GOTO(code, ct_live_scan(live, number, scan_record, found, status), done);
    if (found->rows != stored->rows || found->stubs != stored->stubs) {
        code =
            ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", folder,
                    stored->spec.name, (long long)found->rows, (long long)found->stubs, (long long)stored->rows, (long long)stored->stubs);
        goto done;
    }
    ct_live_levels(live, number, levels);
    int bad = 0;
    for (size_t i = 0; i < CT_LIVE_LEVELS; i++) {
        bytes += levels[i];
        bad |= json_array_append_new(sizes, json_integer((json_int_t)levels[i]));
    }
    bad |= json_object_set_new(table, "bytes", json_integer((json_int_t)bytes));
    bad |= json_object_set(table, "level_bytes", sizes);
    if (bad | put_table(found, table, use_counts, norms)) code = ct_fail_memory(status, 4096, "a store's description");
    if (code == CT_OK && stored->spec.filter_mib) code = describe_filter(folder, number, stored, table, status);
done:
    json_decref(sizes);
    if (found) ct_table_deinit(&found->scratch);
    free(found);
    return code;
}

static ct_code open_snapshot(const char *folder, const ct_stored_table *stored, size_t count, ct_live **out_live, ct_status *status) {
    const char *names[CT_STORE_MAX_TABLES] = {NULL};
    for (size_t i = 0; i < count; i++) names[i] = stored[i].spec.name;
    return ct_live_open(folder, CT_LIVE_SCANS, names, count, out_live, status);
}

ct_code ct_store_describe(const char *folder, json_t **out_json, ct_status *status) {
    ct_stored_table *stored = NULL;
    ct_live *live = NULL;
    json_t *json = NULL, *use_counts = json_array(), *norms = json_array();
    size_t count;
    ct_code code;
    if (!use_counts || !norms) {
        code = ct_fail_memory(status, 64, "a store's description");
        goto done;
    }
    CT_TRY_GOTO(code, ct_store_manifest_read(folder, &stored, &count, &json, status), done);
    CT_TRY_GOTO(code, open_snapshot(folder, stored, count, &live, status), done);
    json_t *tables = json_object_get(json, "tables");
    for (size_t i = 0; i < count; i++)
        CT_TRY_GOTO(code, describe_table(live, i, &stored[i], folder, json_array_get(tables, i), use_counts, norms, status), done);
    if (json_object_set(json, "use_counts", use_counts) | json_object_set(json, "norms", norms)) {
        code = ct_fail_memory(status, 64, "a store's description");
        goto done;
    }
    *out_json = json;
    json = NULL;
done:
    ct_live_close(live);
    json_decref(json);
    json_decref(use_counts);
    json_decref(norms);
    free(stored);
    return code;
}

/* --- one key --- */

typedef struct found_key {
    const ct_stored_table *stored;
    json_t *json;
} found_key;

static int put_record(const ct_stored_table *stored, const char *record, bool row, json_t *json) {
    const struct {
        const char *name;
        const ct_stored_column *column;
    } columns[] = {{"count", &stored->count}, {"impressions", &stored->impressions}, {"clicks", &stored->clicks}, {"day", &stored->day}};
    int bad = json_object_set_new(json, "state", json_string(row ? "row" : "stub"));
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        if (columns[i].column->present)
            bad |= json_object_set_new(json, columns[i].name, json_integer((json_int_t)ct_get_le32(record + columns[i].column->offset)));
    if (!row) return bad;
    const char *values = ct_record_values(stored, record, row);
    json_t *list = json_array();
    for (uint32_t i = 0; i < stored->spec.dim; i++)
        bad |= json_array_append_new(list, json_real((double)value_of(&stored->spec, values, i)));
    bad |= json_object_set_new(json, "norm", json_real(norm_of(&stored->spec, values)));
    return bad | json_object_set_new(json, "values", list);
}

static ct_code put_key(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    const found_key *found = context;
    bool row = false, lives = false;
    char hex[17];
    (void)number;
    (void)snprintf(hex, sizeof hex, "%016llx", (unsigned long long)key);
    int bad = json_object_set_new(found->json, "key", json_string(hex));
    bad |= json_object_set_new(found->json, "shard", json_integer((json_int_t)(key >> 54)));
    if (record) {
        CT_TRY(ct_record_lives(found->stored, record, bytes, &row, &lives, status));
    }
    bad |= lives ? put_record(found->stored, record, row, found->json)
                 : json_object_set_new(found->json, "state", json_string(record ? "expired" : "unknown"));
    return bad ? ct_fail_memory(status, 4096, "a key's description") : CT_OK;
}

ct_code ct_store_describe_key(const char *folder, size_t table, uint64_t key, json_t *into, ct_status *status) {
    ct_stored_table *stored = NULL;
    ct_live *live = NULL;
    size_t count;
    CT_TRY(ct_store_manifest_read(folder, &stored, &count, NULL, status));
    ct_code code = table < count ? open_snapshot(folder, stored, count, &live, status)
                                 : ct_fail(status, CT_INVALID, "%s: table %zu of %zu", folder, table, count);
    if (code == CT_OK) code = ct_live_get(live, table, &key, 1, put_key, &(found_key){&stored[table], into}, status);
    ct_live_close(live);
    free(stored);
    return code;
}

/* --- the digest of what lies there --- */

typedef struct sum_work {
    const ct_stored_table *stored;
    ct_sum sum;
    int64_t rows, stubs;
} sum_work;

static ct_code sum_record(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    sum_work *work = context;
    bool row, lives;
    (void)number;
    CT_TRY(ct_record_lives(work->stored, record, bytes, &row, &lives, status));
    if (!lives) return CT_OK;
    work->rows += row;
    work->stubs += !row;
    ct_sum_add(&work->sum, key, record, bytes);
    return CT_OK;
}

ct_code ct_store_sum_folder(const char *folder, const ct_stored_table *stored, size_t count, ct_sum *out_sums, ct_status *status) {
    ct_live *live;
    ct_code code = CT_OK;
    CT_TRY(open_snapshot(folder, stored, count, &live, status));
    for (size_t i = 0; i < count && code == CT_OK; i++) {
        sum_work work = {.stored = &stored[i]};
        code = ct_record_check_layout(&stored[i], status);
        if (code == CT_OK) code = ct_live_scan(live, i, sum_record, &work, status);
        if (code == CT_OK && (work.rows != stored[i].rows || work.stubs != stored[i].stubs))
            code = ct_fail(status, CT_CORRUPT, "%s: table %s has %lld rows and %lld stubs, store.json says %lld and %lld", folder,
                           stored[i].spec.name, (long long)work.rows, (long long)work.stubs, (long long)stored[i].rows,
                           (long long)stored[i].stubs);
        out_sums[i] = work.sum;
    }
    ct_live_close(live);
    return code;
}
