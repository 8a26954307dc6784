/* The digest of a store: of its tables' specs, and of the sum of all records' hashes of each. */
#include <stdlib.h>
#include <string.h>

#include "embedding_store/changes.h"
#include "embedding_store/saver.h"
#include "embedding_store/tier.h"

typedef struct sum_work {
    const ct_table *table;
    ct_sum *sums; /* (partitions) */
} sum_work;

static void sum_task(void *context, size_t part, size_t worker) {
    (void)worker;
    const sum_work *work = context;
    const ct_partition *partition = &work->table->partitions[part];
    for (size_t place = 0; place < (size_t)1 << partition->index_bits; place++) {
        const ct_index_entry *entry = ct_partition_entry(partition, place);
        if (entry->slot != CT_SLOT_EMPTY) ct_sum_add_entry(&work->sums[part], work->table, partition, entry);
    }
}

void ct_table_sums(const ct_store *store, size_t table, ct_sum *out_sums) {
    const size_t parts = (size_t)1 << store->partition_bits;
    memset(out_sums, 0, parts * sizeof *out_sums);
    sum_work work = {&store->tables[table], out_sums};
    ct_run(store->pool, parts, sum_task, &work);
}

static ct_sum all_of(const ct_sum *sums, size_t parts) {
    ct_sum all = {{0, 0}};
    for (size_t p = 0; p < parts; p++)
        for (size_t n = 0; n < 2; n++) all.word[n] += sums[p].word[n];
    return all;
}

/* They never change: once. */
static void sum_frozen(ct_store *store, ct_sum *scratch) {
    for (size_t i = 0; i < store->table_count && !store->frozen_summed; i++) {
        if (store->tables[i].spec.kind != CT_TABLE_FROZEN) continue;
        ct_table_sums(store, i, scratch);
        store->frozen_sums[i] = all_of(scratch, (size_t)1 << store->partition_bits);
    }
    store->frozen_summed = true;
}

ct_code ct_store_state(ct_store *store, bool sums_too, ct_table_state *out_states, ct_status *status) {
    const size_t parts = (size_t)1 << store->partition_bits;
    ct_sum *sums = malloc(parts * sizeof *sums);
    if (!sums) return ct_fail_memory(status, parts * sizeof *sums, "a digest");
    sum_frozen(store, sums);
    for (size_t i = 0; i < store->table_count; i++) {
        const ct_table *table = &store->tables[i];
        ct_table_info info;
        ct_store_table_info(store, i, &info);
        out_states[i] = (ct_table_state){.rows = info.rows,
                                         .stubs = info.stubs,
                                         .counted_epoch = table->counted_epoch,
                                         .first_day = table->first_day,
                                         .day = table->day};
        if (table->spec.kind == CT_TABLE_FROZEN) {
            out_states[i].sum = store->frozen_sums[i];
        } else if (!sums_too) {
            continue;
        } else if (store->tier) {
            out_states[i].sum = ct_tier_sum(store->tier, i);
        } else if (store->changes && ct_changes_sums(store->changes, i, sums)) {
            out_states[i].sum = all_of(sums, parts);
        } else if (store->saver) {
            out_states[i].sum = ct_saver_sum(store->saver, i);
        } else {
            ct_table_sums(store, i, sums);
            out_states[i].sum = all_of(sums, parts);
        }
    }
    free(sums);
    return CT_OK;
}

static void digest_spec(const ct_table_spec *spec, const ct_table_state *state, ct_digest *digest) {
    const bool decays = spec->l2 != 0.0f;
    ct_digest_update_text(digest, spec->name);
    ct_digest_update_u64(digest, (uint64_t)spec->kind);
    ct_digest_update_u64(digest, spec->dim);
    ct_digest_update_u64(digest, (uint64_t)spec->optimiser | (uint64_t)decays << 8 | (uint64_t)spec->target_stats << 9 |
                                     (uint64_t)(spec->expire_days > 0) << 10 | (uint64_t)spec->precision << 11);
    if (spec->optimiser == CT_ROW_ADAM) {
        ct_digest_update(digest, &spec->beta1, sizeof(float));
        ct_digest_update(digest, &spec->beta2, sizeof(float));
        ct_digest_update(digest, &spec->epsilon, sizeof(float));
    }
    if (decays) ct_digest_update(digest, &spec->l2, sizeof(float));
    if (spec->target_stats) ct_digest_update_u64(digest, state->counted_epoch);
    if (spec->expire_days) {
        ct_digest_update_u64(digest, spec->expire_days);
        ct_digest_update_u64(digest, state->first_day);
        ct_digest_update_u64(digest, state->day);
    }
    ct_digest_update(digest, &spec->learning_rate, sizeof(float));
    ct_digest_update(digest, &spec->initial_accumulator, sizeof(float));
    ct_digest_update(digest, &spec->first_value_scale, sizeof(float));
    ct_digest_update_u64(digest, spec->seed);
    ct_digest_update_u64(digest, spec->min_count);
    ct_digest_update_text(digest, spec->content_hash);
}

void ct_digest_update_tables(const ct_store *store, const ct_table_state *states, ct_digest *digest) {
    ct_digest_update_u64(digest, store->table_count);
    for (size_t i = 0; i < store->table_count; i++) {
        digest_spec(&store->tables[i].spec, &states[i], digest);
        ct_digest_update_u64(digest, (uint64_t)states[i].rows);
        ct_digest_update_u64(digest, (uint64_t)states[i].stubs);
        for (size_t n = 0; n < 2; n++) ct_digest_update_u64(digest, states[i].sum.word[n]);
    }
}

ct_code ct_store_digest(ct_store *store, ct_digest *digest, ct_status *status) {
    ct_table_state states[CT_STORE_MAX_TABLES];
    const bool look = store->mode == CT_STORE_LOOK;
    if (store->mode == CT_STORE_READ) return ct_fail(status, CT_INVALID, "digest: the store was opened for reading");
    if (store->tier) CT_TRY(ct_tier_flush(store->tier, status));
    CT_TRY(ct_store_state(store, !look, states, status));
    if (look) {
        ct_sum found[CT_STORE_MAX_TABLES];
        CT_TRY(ct_store_sum_folder(store->folder, store->stored, store->table_count, found, status));
        for (size_t i = 0; i < store->table_count; i++) states[i].sum = found[i];
    }
    ct_digest_update_tables(store, states, digest);
    return CT_OK;
}
