#include "embedding_store/changes.h"

#include <stdlib.h>
#include <string.h>

#include "embedding_store/live.h"
#include "embedding_store/tier.h"

enum { FIRST_BITS = 6, GET_KEYS = 256 /* asked of a database at once */, AHEAD = 16 };

/* Open addressing, at most 70 % full; 0 is an empty place, so that key is noted beside it. */
typedef struct key_set {
    uint64_t *keys; /* (2^bits); NULL = none yet */
    uint32_t bits;
    bool zero;
    uint64_t used; /* places */
    ct_sum sum;    /* of the partition's records, less those of the noted keys */
} key_set;

struct ct_changes {
    ct_store *store;
    uint64_t most_bytes;
    size_t parts;
    key_set *sets; /* (tables, parts) */
    char *records; /* of keys that are in a database: (GET_KEYS, CT_RECORD_MAX_BYTES); NULL without one */
    size_t sizes[GET_KEYS];
};

static key_set *set_of(const ct_changes *changes, size_t table, size_t part) { return &changes->sets[table * changes->parts + part]; }

static size_t number_of(const ct_changes *changes, const ct_table *table) { return (size_t)(table - changes->store->tables); }

static bool is_trained(const ct_changes *changes, size_t table) { return changes->store->tables[table].spec.kind == CT_TABLE_TRAINED; }

ct_code ct_changes_create(ct_store *store, uint64_t most_bytes, ct_changes **out_changes, ct_status *status) {
    ct_changes *changes = calloc(1, sizeof *changes);
    ct_sum *sums = NULL;
    ct_code code = CT_OK;
    if (!changes) return ct_fail_memory(status, sizeof *changes, "the changed keys");
    changes->store = store;
    changes->most_bytes = most_bytes;
    changes->parts = (size_t)1 << store->partition_bits;
    changes->sets = calloc(store->table_count * changes->parts + 1, sizeof *changes->sets);
    sums = calloc(changes->parts, sizeof *sums);
    if (store->tier) changes->records = malloc((size_t)GET_KEYS * CT_RECORD_MAX_BYTES);
    if (!changes->sets || !sums || (store->tier && !changes->records)) {
        code = ct_fail_memory(status, store->table_count * changes->parts * sizeof *changes->sets, "the changed keys");
        goto fail;
    }
    for (size_t i = 0; i < store->table_count && !store->tier; i++) {
        if (!is_trained(changes, i)) continue;
        ct_table_sums(store, i, sums);
        for (size_t p = 0; p < changes->parts; p++) set_of(changes, i, p)->sum = sums[p];
    }
    free(sums);
    *out_changes = changes;
    return CT_OK;
fail:
    free(sums);
    ct_changes_destroy(changes);
    return code;
}

void ct_changes_destroy(ct_changes *changes) {
    if (!changes) return;
    for (size_t i = 0; changes->sets && i < changes->store->table_count * changes->parts; i++) free(changes->sets[i].keys);
    free(changes->sets);
    free(changes->records);
    free(changes);
}

/* --- noting --- */

static ct_code grow(key_set *set, ct_status *status) {
    const uint32_t bits = set->keys ? set->bits + 1 : FIRST_BITS;
    uint64_t *keys = calloc((size_t)1 << bits, sizeof *keys);
    if (!keys) return ct_fail_memory(status, sizeof *keys << bits, "the changed keys");
    const size_t mask = ((size_t)1 << bits) - 1;
    for (size_t i = 0; set->keys && i < (size_t)1 << set->bits; i++) {
        if (!set->keys[i]) continue;
        size_t at = ct_key_home(set->keys[i], bits);
        while (keys[at]) at = (at + 1) & mask;
        keys[at] = set->keys[i];
    }
    free(set->keys);
    set->keys = keys;
    set->bits = bits;
    return CT_OK;
}

static ct_code note(key_set *set, uint64_t key, bool *out_new, ct_status *status) {
    if (!key) {
        *out_new = !set->zero;
        set->zero = true;
        return CT_OK;
    }
    if (!set->keys || (set->used + 1) * 10 > ((uint64_t)7 << set->bits)) CT_TRY(grow(set, status));
    const size_t mask = ((size_t)1 << set->bits) - 1;
    size_t at = ct_key_home(key, set->bits);
    while (set->keys[at] && set->keys[at] != key) at = (at + 1) & mask;
    *out_new = !set->keys[at];
    set->used += *out_new;
    set->keys[at] = key;
    return CT_OK;
}

/* A new one's record is taken out of the sum. */
static ct_code mark(ct_changes *changes, key_set *set, const ct_table *table, const ct_partition *partition, uint64_t key,
                    ct_status *status) {
    bool is_new;
    CT_TRY(note(set, key, &is_new, status));
    if (!is_new || changes->store->tier) return CT_OK;
    const ct_index_entry *entry = ct_partition_find(partition, key);
    if (entry) ct_sum_take_entry(&set->sum, table, partition, entry);
    return CT_OK;
}

ct_code ct_changes_mark(ct_changes *changes, const ct_ticket *ticket, size_t part, ct_status *status) {
    const ct_table *table = ticket->table;
    const ct_partition *partition = &table->partitions[part];
    const ct_unique *uniques = &ticket->uniques[ticket->bases[part]];
    const size_t count = ticket->unique_counts[part];
    key_set *set = set_of(changes, number_of(changes, table), part);
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count && set->keys) ct_prefetch(&set->keys[ct_key_home(uniques[i + AHEAD].key, set->bits)]);
        CT_TRY(mark(changes, set, table, partition, uniques[i].key, status));
    }
    return CT_OK;
}

ct_code ct_changes_mark_key(ct_changes *changes, const ct_table *table, uint64_t key, ct_status *status) {
    const size_t part = ct_partition_of(key, table->partition_bits);
    return mark(changes, set_of(changes, number_of(changes, table), part), table, &table->partitions[part], key, status);
}

static bool is_noted(const key_set *set, uint64_t key) {
    if (!key) return set->zero;
    if (!set->keys) return false;
    const size_t mask = ((size_t)1 << set->bits) - 1;
    size_t at = ct_key_home(key, set->bits);
    while (set->keys[at] && set->keys[at] != key) at = (at + 1) & mask;
    return set->keys[at] == key;
}

void ct_changes_expire(ct_changes *changes, const ct_table *table, size_t part, const ct_index_entry *entry) {
    key_set *set = set_of(changes, number_of(changes, table), part);
    if (!changes->store->tier && !is_noted(set, entry->key)) ct_sum_take_entry(&set->sum, table, &table->partitions[part], entry);
}

int64_t ct_changes_count(const ct_changes *changes) {
    uint64_t count = 0;
    for (size_t i = 0; i < changes->store->table_count * changes->parts; i++) count += changes->sets[i].used + changes->sets[i].zero;
    return (int64_t)count;
}

bool ct_changes_full(const ct_changes *changes) {
    uint64_t bytes = 0;
    if (!changes->most_bytes) return false;
    for (size_t i = 0; i < changes->store->table_count * changes->parts; i++)
        if (changes->sets[i].keys) bytes += sizeof(uint64_t) << changes->sets[i].bits;
    return bytes > changes->most_bytes / 2; /* the next ones may double it */
}

bool ct_changes_sums(const ct_changes *changes, size_t table, ct_sum *out_sums) {
    if (changes->store->tier || !is_trained(changes, table)) return false;
    for (size_t p = 0; p < changes->parts; p++) {
        const key_set *set = set_of(changes, table, p);
        if (set->used || set->zero) return false;
        out_sums[p] = set->sum;
    }
    return true;
}

/* --- settling --- */

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The keys to the front, in order. A set is no set any more afterwards. */
static void sort_task(void *context, size_t number, size_t worker) {
    (void)worker;
    const ct_changes *changes = context;
    const key_set *set = &changes->sets[number];
    size_t n = 0;
    for (size_t i = 0; set->used && i < (size_t)1 << set->bits; i++)
        if (set->keys[i]) set->keys[n++] = set->keys[i];
    if (n) qsort(set->keys, n, sizeof *set->keys, by_number);
}

typedef struct settling {
    ct_changes *changes;
    size_t table, part;
    ct_changes_fn function;
    void *context;
} settling;

/* One that has expired is as if it were not there. */
static ct_code fetched(void *context, size_t number, uint64_t key, const char *record, size_t bytes, ct_status *status) {
    const settling *work = context;
    ct_changes *changes = work->changes;
    const ct_store *store = changes->store;
    bool row;
    (void)key;
    changes->sizes[number] = 0;
    if (!record) return CT_OK;
    const ct_stored_table *layout = ct_tier_layout(store->tier, work->table);
    CT_TRY(ct_record_check(layout, record, bytes, &row, status));
    if (ct_record_day(layout, record) < store->tables[work->table].oldest_day) return CT_OK;
    changes->sizes[number] = bytes;
    memcpy(changes->records + number * CT_RECORD_MAX_BYTES, record, bytes);
    return CT_OK;
}

/* keys: (count), rising, at most GET_KEYS. */
static ct_code settle_keys(const settling *work, const uint64_t *keys, size_t count, ct_status *status) {
    ct_changes *changes = work->changes;
    const ct_table *table = &changes->store->tables[work->table];
    const ct_partition *partition = &table->partitions[work->part];
    key_set *set = set_of(changes, work->table, work->part);
    char encoded[CT_RECORD_MAX_BYTES];
    uint64_t missing[GET_KEYS];
    size_t missing_count = 0, next_missing = 0;
    for (size_t i = 0; i < count && changes->store->tier; i++)
        if (!ct_partition_find(partition, keys[i])) missing[missing_count++] = keys[i];
    if (missing_count)
        CT_TRY(
            ct_live_get(ct_tier_live(changes->store->tier), work->table, missing, missing_count, fetched, (void *)(uintptr_t)work, status));
    for (size_t i = 0; i < count; i++) {
        const ct_index_entry *entry = ct_partition_find(partition, keys[i]);
        const char *record = encoded;
        size_t bytes = 0;
        if (i + AHEAD < count) ct_table_prefetch(table, keys[i + AHEAD]);
        if (entry) {
            if (!ct_record_finite(table, partition, entry)) return ct_record_fail_finite(table, keys[i], status);
            bytes = ct_record_encode(table, partition, entry, encoded);
            if (!changes->store->tier) ct_sum_add(&set->sum, keys[i], encoded, bytes);
        } else if (changes->store->tier) {
            record = changes->records + next_missing * CT_RECORD_MAX_BYTES;
            bytes = changes->sizes[next_missing++];
        }
        if (work->function) CT_TRY(work->function(work->context, work->table, keys[i], bytes ? record : NULL, bytes, status));
    }
    return CT_OK;
}

ct_code ct_changes_settle(ct_changes *changes, ct_changes_fn function, void *context, ct_status *status) {
    ct_store *store = changes->store;
    if (store->tier) { /* what is on its way out must have arrived */
        CT_TRY(ct_tier_flush(store->tier, status));
        CT_TRY(ct_tier_check_finite(store->tier, status));
    }
    ct_run(store->pool, store->table_count * changes->parts, sort_task, changes);
    for (size_t i = 0; i < store->table_count; i++) {
        for (size_t p = 0; p < changes->parts; p++) {
            key_set *set = set_of(changes, i, p);
            const settling work = {changes, i, p, function, context};
            const uint64_t zero = 0;
            if (set->zero) CT_TRY(settle_keys(&work, &zero, 1, status));
            for (uint64_t first = 0; first < set->used; first += GET_KEYS) {
                const uint64_t left = set->used - first;
                CT_TRY(settle_keys(&work, &set->keys[first], left < GET_KEYS ? (size_t)left : GET_KEYS, status));
            }
            free(set->keys); /* the next ones may be few */
            *set = (key_set){.sum = set->sum};
        }
    }
    return CT_OK;
}
