/* The store's face but for look-ups (lookup.c), snapshots (snapshot.c) and the digest (digest.c): tables and memory. */
#include "embedding_store/store.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device/file.h"
#include "embedding_store/changes.h"
#include "embedding_store/filter.h"
#include "embedding_store/live.h"
#include "embedding_store/record.h"
#include "embedding_store/saver.h"
#include "embedding_store/tier.h"

/* --- tables --- */

static ct_code check_name(const ct_table_spec *spec, size_t number, ct_status *status) {
    if (!memchr(spec->name, 0, sizeof spec->name) || !spec->name[0])
        return ct_fail(status, CT_INVALID, "store: table %zu has no name, or one of more than %d bytes", number, CT_TABLE_NAME_BYTES - 1);
    json_t *text = json_string(spec->name);
    if (!text) return ct_fail(status, CT_INVALID, "store: the name of table %zu is not UTF-8", number);
    json_decref(text);
    return CT_OK;
}

static bool positive(float value) { return isfinite(value) && value > 0.0f; }

/* What one optimiser has and another one has not. */
static ct_code clean_optimiser(const ct_table_spec *spec, ct_table_spec *out_spec, ct_status *status) {
    const char *name = spec->name;
    if (spec->optimiser == CT_ROW_ADAGRAD_ROWWISE || spec->optimiser == CT_ROW_ADAGRAD) {
        if (!positive(spec->initial_accumulator))
            return ct_fail(status, CT_INVALID, "table %s: an initial accumulator of %g; it must be above 0", name,
                           (double)spec->initial_accumulator);
        out_spec->initial_accumulator = spec->initial_accumulator;
    } else if (spec->optimiser == CT_ROW_ADAM) {
        if (!(spec->beta1 >= 0.0f && spec->beta1 < 1.0f && spec->beta2 >= 0.0f && spec->beta2 < 1.0f))
            return ct_fail(status, CT_INVALID, "table %s: Adam with beta1 %g and beta2 %g; both must be at least 0 and below 1", name,
                           (double)spec->beta1, (double)spec->beta2);
        if (!positive(spec->epsilon))
            return ct_fail(status, CT_INVALID, "table %s: an epsilon of %g; it must be above 0", name, (double)spec->epsilon);
        out_spec->beta1 = spec->beta1;
        out_spec->beta2 = spec->beta2;
        out_spec->epsilon = spec->epsilon;
    }
    return CT_OK;
}

/* Checks a spec; what does not belong to its kind becomes zero, so that equal tables have equal specs. */
static ct_code clean_spec(const ct_table_spec *spec, size_t number, ct_table_spec *out_spec, ct_status *status) {
    CT_TRY(check_name(spec, number, status));
    const char *name = spec->name;
    if (spec->dim < 1 || spec->dim > CT_TABLE_MAX_DIM)
        return ct_fail(status, CT_INVALID, "table %s: %u values a row; 1 to %d are possible", name, spec->dim, CT_TABLE_MAX_DIM);
    memset(out_spec, 0, sizeof *out_spec);
    memcpy(out_spec->name, name, strlen(name));
    out_spec->kind = spec->kind;
    out_spec->dim = spec->dim;
    if (spec->kind == CT_TABLE_FROZEN) {
        if (!memchr(spec->content_hash, 0, sizeof spec->content_hash))
            return ct_fail(status, CT_INVALID, "table %s: the content hash has no end", name);
        memcpy(out_spec->content_hash, spec->content_hash, strlen(spec->content_hash));
        return CT_OK;
    }
    if (spec->kind != CT_TABLE_TRAINED) return ct_fail(status, CT_INVALID, "table %s: unknown kind %d", name, (int)spec->kind);
    if (!ct_row_optimiser_name(spec->optimiser))
        return ct_fail(status, CT_UNSUPPORTED, "table %s: unknown row optimiser %d", name, (int)spec->optimiser);
    if (!isfinite(spec->learning_rate) || spec->learning_rate < 0.0f)
        return ct_fail(status, CT_INVALID, "table %s: a learning rate of %g", name, (double)spec->learning_rate);
    CT_TRY(clean_optimiser(spec, out_spec, status));
    if (!isfinite(spec->l2) || spec->l2 < 0.0f) return ct_fail(status, CT_INVALID, "table %s: an l2 of %g", name, (double)spec->l2);
    if (spec->first_value_scale != 0.0f && !positive(spec->first_value_scale))
        return ct_fail(status, CT_INVALID, "table %s: first values of scale %g", name, (double)spec->first_value_scale);
    if (spec->expire_days > CT_TABLE_MAX_EXPIRE_DAYS)
        return ct_fail(status, CT_INVALID, "table %s: rows expire after %u days; at most %d are possible", name, spec->expire_days,
                       CT_TABLE_MAX_EXPIRE_DAYS);
    if (spec->min_count < 1) return ct_fail(status, CT_INVALID, "table %s: min_count must be at least 1", name);
    if (spec->filter_mib > CT_TABLE_MAX_FILTER_MIB)
        return ct_fail(status, CT_INVALID, "table %s: a filter of %u MiB; at most %d are possible", name, spec->filter_mib,
                       CT_TABLE_MAX_FILTER_MIB);
    if (spec->filter_mib && (spec->min_count < 2 || spec->min_count > CT_FILTER_MOST_COUNT))
        return ct_fail(status, CT_INVALID, "table %s: a filter counts to a min_count of 2 to %d, not %u", name, CT_FILTER_MOST_COUNT,
                       spec->min_count);
    if (spec->filter_mib && spec->target_stats)
        return ct_fail(status, CT_INVALID,
                       "table %s: target statistics are kept of every key, a filter keeps nothing of a key but its count", name);
    if (spec->precision != CT_ROW_FP32 && spec->precision != CT_ROW_FP16)
        return ct_fail(status, CT_UNSUPPORTED, "table %s: unknown precision %d", name, (int)spec->precision);
    out_spec->precision = spec->precision;
    out_spec->optimiser = spec->optimiser;
    out_spec->learning_rate = spec->learning_rate;
    out_spec->l2 = spec->l2;
    out_spec->first_value_scale = spec->first_value_scale;
    out_spec->seed = spec->seed;
    out_spec->min_count = spec->min_count;
    out_spec->target_stats = spec->target_stats;
    out_spec->expire_days = spec->expire_days;
    out_spec->filter_mib = spec->filter_mib;
    return CT_OK;
}

/* beside: frozen tables are memory of a file beside it; NULL = of the device. */
static ct_code create(const ct_table_spec *tables, size_t table_count, ct_store_mode mode, uint32_t partition_bits, ct_device *device,
                      const char *beside, ct_pool *pool, ct_store **out_store, ct_status *status) {
    if (table_count > CT_STORE_MAX_TABLES)
        return ct_fail(status, CT_INVALID, "store: %zu tables; %d are possible", table_count, CT_STORE_MAX_TABLES);
    if (partition_bits > CT_MAX_PARTITION_BITS) return ct_fail(status, CT_INVALID, "store: 2^%u partitions", partition_bits);
    ct_device_info info;
    CT_TRY(device->ops->info(device, &info, status));
    if (!info.host_visible) return ct_fail(status, CT_UNSUPPORTED, "store: tables in the memory of %s are not supported yet", info.name);

    ct_code code = CT_OK;
    ct_store *store = calloc(1, sizeof *store);
    if (!store) return ct_fail_memory(status, sizeof *store, "a store");
    store->device = device;
    store->pool = pool;
    store->mode = mode;
    store->partition_bits = partition_bits;
    store->tables = calloc(table_count ? table_count : 1, sizeof *store->tables);
    store->frozen_sums = calloc(table_count ? table_count : 1, sizeof *store->frozen_sums);
    if (!store->tables || !store->frozen_sums) {
        code = ct_fail_memory(status, table_count * sizeof *store->tables, "a store's tables");
        goto fail;
    }
    if (mode == CT_STORE_TRAIN) CT_TRY_GOTO(code, ct_snapshot_turn_create(&store->turn, status), fail);
    for (size_t i = 0; i < table_count; i++) {
        ct_table_spec spec;
        CT_TRY_GOTO(code, clean_spec(&tables[i], i, &spec, status), fail);
        if (ct_store_find_table(store, spec.name) >= 0) {
            code = ct_fail(status, CT_INVALID, "store: two tables are named %s", spec.name);
            goto fail;
        }
        const uint32_t state_floats = mode == CT_STORE_TRAIN ? ct_state_floats(&spec) : 0;
        const bool in_file = beside && spec.kind == CT_TABLE_FROZEN;
        if (in_file && !store->file_device) CT_TRY_GOTO(code, ct_device_file_create(beside, &store->file_device, status), fail);
        ct_device *of = in_file ? store->file_device : device;
        CT_TRY_GOTO(code, ct_table_init(&store->tables[i], &spec, of, partition_bits, state_floats, status), fail);
        store->table_count = i + 1;
        if (mode == CT_STORE_TRAIN && spec.filter_mib)
            CT_TRY_GOTO(code, ct_filter_create(&spec, device, &store->tables[i].filter, status), fail);
    }
    *out_store = store;
    return CT_OK;
fail:
    ct_store_destroy(store);
    return code;
}

ct_code ct_store_create_parted(const ct_table_spec *tables, size_t table_count, ct_store_mode mode, uint32_t partition_bits,
                               ct_device *device, ct_pool *pool, ct_store **out_store, ct_status *status) {
    return create(tables, table_count, mode, partition_bits, device, NULL, pool, out_store, status);
}

ct_code ct_store_create(const ct_table_spec *tables, size_t table_count, ct_device *device, ct_pool *pool, ct_store **out_store,
                        ct_status *status) {
    return ct_store_create_parted(tables, table_count, CT_STORE_TRAIN, CT_PARTITION_BITS, device, pool, out_store, status);
}

ct_code ct_store_create_within(const ct_table_spec *tables, size_t table_count, const ct_store_limit *limit, ct_device *device,
                               ct_pool *pool, ct_store **out_store, ct_status *status) {
    ct_store *store;
    const char *beside = limit->memory_bytes ? limit->live_folder : NULL;
    CT_TRY(create(tables, table_count, CT_STORE_TRAIN, CT_PARTITION_BITS, device, beside, pool, &store, status));
    const ct_code code = limit->memory_bytes ? ct_tier_create(store, &(const ct_tier_limits){.memory_bytes = limit->memory_bytes},
                                                              limit->live_folder, NULL, NULL, status)
                                             : CT_OK;
    if (code == CT_OK)
        *out_store = store;
    else
        ct_store_destroy(store);
    return code;
}

void ct_store_destroy(ct_store *store) {
    if (!store) return;
    ct_changes_destroy(store->changes);
    ct_saver_destroy(store->saver);
    ct_tier_destroy(store->tier);
    ct_snapshot_turn_destroy(store->turn);
    for (size_t i = 0; i < store->table_count; i++) {
        ct_filter_destroy(store->tables[i].filter);
        ct_table_deinit(&store->tables[i]);
    }
    ct_device_file_destroy(store->file_device);
    free(store->tables);
    free(store->frozen_sums);
    free(store->folder);
    free(store->stored);
    free(store);
}

size_t ct_store_table_count(const ct_store *store) { return store->table_count; }

const ct_table_spec *ct_store_table(const ct_store *store, size_t table) { return &store->tables[table].spec; }

int64_t ct_store_find_table(const ct_store *store, const char *name) {
    for (size_t i = 0; i < store->table_count; i++)
        if (strcmp(store->tables[i].spec.name, name) == 0) return (int64_t)i;
    return -1;
}

void ct_store_set_learning_rate(ct_store *store, size_t table, float learning_rate) { store->tables[table].learning_rate = learning_rate; }

void ct_store_table_info(const ct_store *store, size_t number, ct_table_info *out_info) {
    ct_table *table = &store->tables[number];
    ct_table_info info = {0};
    for (size_t p = 0; p < table->partition_count; p++) {
        const ct_partition *partition = &table->partitions[p];
        info.rows += ct_partition_rows(partition);
        info.stubs += ct_partition_stubs(partition);
        info.bytes += partition->bytes;
    }
    if (table->filter) info.bytes += ct_filter_bytes(table->filter);
    info.rows += table->outside_rows;
    info.stubs += table->outside_stubs;
    info.waiting = store->mode == CT_STORE_READ ? table->stored_stubs : info.stubs;
    info.expired = table->expired;
    info.lookups = atomic_load_explicit(&table->lookups, memory_order_relaxed);
    info.missed = atomic_load_explicit(&table->missed, memory_order_relaxed);
    info.unknown = atomic_load_explicit(&table->unknown, memory_order_relaxed);
    *out_info = info;
}

void ct_store_filter_info(const ct_store *store, size_t number, ct_filter_info *out_info) {
    const ct_filter *filter = store->tables[number].filter;
    *out_info = (ct_filter_info){0};
    if (!filter) return;
    const ct_filter_load load = ct_filter_measure(filter);
    *out_info = (ct_filter_info){ct_filter_bytes(filter), load.fill, load.error};
}

uint64_t ct_store_least_memory(const ct_store *store) { return store->tier ? ct_tier_least_memory(store->tier) : 0; }
void ct_store_count_others(ct_store *store, uint64_t bytes) {
    if (store->tier) ct_tier_count_others(store->tier, bytes);
}
int64_t ct_store_waited_ns(const ct_store *store) {
    ct_store_disk disk;
    ct_store_disk_get(store, &disk);
    return store->saver ? ct_saver_waited_ns(store->saver) : disk.waited_ns;
}
void ct_store_disk_get(const ct_store *store, ct_store_disk *out_disk) {
    *out_disk = (ct_store_disk){0};
    if (store->tier) ct_tier_disk(store->tier, out_disk);
}

ct_code ct_store_save_beside(ct_store *store, const char *live_folder, const char *from, ct_status *status) {
    if (store->mode != CT_STORE_TRAIN) return ct_fail(status, CT_INVALID, "a store that was opened for reading has no snapshot");
    return store->tier || store->saver ? CT_OK : ct_saver_create(store, live_folder, from, &store->saver, status);
}

uint64_t ct_rare_key(uint64_t salt) {
    static const char tag[] = "clicktower rare row";
    const uint64_t key = ct_hash64(tag, sizeof tag - 1, salt);
    return key ? key : 1; /* 0 says that there is none */
}

ct_code ct_store_fill(ct_store *store, size_t number, const uint64_t *keys, const float *values, size_t count, ct_status *status) {
    if (number >= store->table_count) return ct_fail(status, CT_INVALID, "fill: table %zu of %zu", number, store->table_count);
    ct_table *table = &store->tables[number];
    if (table->spec.kind != CT_TABLE_FROZEN) return ct_fail(status, CT_INVALID, "fill: table %s is not frozen", table->spec.name);
    if (store->mode != CT_STORE_TRAIN) return ct_fail(status, CT_INVALID, "fill: the store was opened for reading");
    store->frozen_summed = false;
    for (size_t i = 0; i < count; i++) {
        ct_partition *partition = &table->partitions[ct_partition_of(keys[i], table->partition_bits)];
        ct_index_entry *entry;
        CT_TRY(ct_partition_claim(table, partition, keys[i], &entry, status));
        if (entry->slot != CT_SLOT_STUB)
            return ct_fail(status, CT_INVALID, "fill: table %s has key %016llx already", table->spec.name, (unsigned long long)keys[i]);
        CT_TRY(ct_partition_add_row(table, partition, entry, status));
        memcpy(ct_slab_at(&partition->values, entry->slot - 1), values + i * table->spec.dim, table->spec.dim * sizeof(float));
    }
    return CT_OK;
}

ct_code ct_store_share_frozen(ct_store *store, ct_store *from, ct_status *status) {
    if (store == from || store->partition_bits != from->partition_bits) return CT_OK;
    for (size_t i = 0; i < store->table_count; i++) {
        ct_table *table = &store->tables[i];
        const int64_t number = table->spec.kind == CT_TABLE_FROZEN ? ct_store_find_table(from, table->spec.name) : -1;
        if (number < 0) continue;
        ct_table *other = &from->tables[number];
        if (other->spec.kind != CT_TABLE_FROZEN || other->spec.dim != table->spec.dim ||
            strcmp(other->spec.content_hash, table->spec.content_hash) != 0)
            continue;
        if (!store->file_device != !from->file_device)
            return ct_fail(status, CT_INVALID, "table %s: a store within a limit on memory shares it with one without", table->spec.name);
        CT_TRY(ct_table_share(table, other, status));
    }
    return CT_OK;
}

/* --- snapshots --- */

static ct_code read_rows(ct_store *store, const char *folder, const ct_store_limit *limit, const ct_stored_table *stored,
                         ct_status *status) {
    if (store->mode == CT_STORE_LOOK) return CT_OK;
    if (!limit->memory_bytes) return ct_disk_read(store, folder, stored, false, status);
    if (store->mode == CT_STORE_READ) return ct_tier_open(store, limit, folder, stored, status);
    CT_TRY(ct_disk_read(store, folder, stored, true, status));
    for (size_t i = 0; i < store->table_count; i++) {
        if (stored[i].spec.kind != CT_TABLE_TRAINED) continue;
        store->tables[i].outside_rows = stored[i].rows;
        store->tables[i].outside_stubs = stored[i].stubs;
    }
    store->frozen_live = true;
    return ct_tier_create(store, &(const ct_tier_limits){.memory_bytes = limit->memory_bytes}, limit->live_folder, folder, stored, status);
}

ct_code ct_store_open_within(const char *folder, ct_store_mode mode, const ct_store_limit *limit, ct_device *device, ct_pool *pool,
                             ct_store **out_store, ct_status *status) {
    ct_stored_table *stored = NULL;
    ct_table_spec *specs = NULL;
    ct_store *store = NULL;
    size_t count;
    ct_code code;
    CT_TRY(ct_store_manifest_read(folder, &stored, &count, NULL, status));
    specs = calloc(count ? count : 1, sizeof *specs);
    if (!specs) {
        code = ct_fail_memory(status, count * sizeof *specs, "a store's tables");
        goto fail;
    }
    for (size_t i = 0; i < count; i++) {
        specs[i] = stored[i].spec;
        if (specs[i].filter_mib) CT_TRY_GOTO(code, ct_filter_check_file(&specs[i], folder, i, status), fail);
    }
    const char *beside = mode == CT_STORE_TRAIN && limit->memory_bytes ? limit->live_folder : NULL;
    code = create(specs, count, mode, CT_PARTITION_BITS, device, beside, pool, &store, status);
    if (code == CT_INVALID) { /* it was written by a store, so it is no argument of the caller's */
        status->code = code = CT_CORRUPT;
        ct_fail_within(status, "%s/store.json", folder);
    }
    for (size_t i = 0; i < count && code == CT_OK; i++) {
        store->tables[i].counted_epoch = stored[i].counted_epoch;
        ct_table_set_day(&store->tables[i], stored[i].first_day, stored[i].today);
        store->tables[i].expired = stored[i].expired;
        store->tables[i].stored_stubs = stored[i].stubs;
    }
    for (size_t i = 0; i < count && code == CT_OK; i++)
        if (store->tables[i].filter) code = ct_filter_read(store->tables[i].filter, folder, i, status);
    if (code == CT_OK) code = read_rows(store, folder, limit, stored, status);
    if (code == CT_OK && mode == CT_STORE_LOOK) {
        store->stored = stored;
        stored = NULL;
        store->folder = strdup(folder);
        if (!store->folder) code = ct_fail_memory(status, strlen(folder), "a path");
        for (size_t i = 0; i < count; i++) {
            store->tables[i].outside_rows = store->stored[i].rows;
            store->tables[i].outside_stubs = store->stored[i].stubs;
        }
    }
    if (code == CT_OK) *out_store = store;
fail:
    if (code != CT_OK) ct_store_destroy(store);
    free(specs);
    free(stored);
    return code;
}

ct_code ct_store_open(const char *folder, ct_store_mode mode, ct_device *device, ct_pool *pool, ct_store **out_store, ct_status *status) {
    return ct_store_open_within(folder, mode, &(const ct_store_limit){0}, device, pool, out_store, status);
}
