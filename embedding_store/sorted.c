#include "embedding_store/sorted.h"

#include <stdlib.h>
#include <string.h>

#include "embedding_store/record.h"

enum { BUCKET_ROWS = 4 /* at most, on average */ };

/* Bits that choose among enough buckets for `rows` rows. */
static uint32_t bucket_bits(uint64_t rows) {
    uint32_t bits = 1;
    while (rows > (uint64_t)BUCKET_ROWS << bits) bits++;
    return bits;
}

static size_t key_bytes(uint32_t partition_bits, uint32_t bits) { return (64 - partition_bits - bits + 7) / 8; }

size_t ct_sorted_key_bytes(uint64_t rows, uint32_t partition_bits) {
    const uint64_t each = (rows >> partition_bits) + 1;
    const uint32_t bits = bucket_bits(each);
    return key_bytes(partition_bits, bits) + (sizeof(uint32_t) << bits) / each + 1;
}

enum { LINE_BYTES = 64 };
static size_t whole_lines(size_t bytes) { return (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES; }

/* With 8 bytes behind the last key. */
static size_t keys_bytes(size_t count, size_t each) { return whole_lines(count * each + sizeof(uint64_t)); }
static size_t starts_bytes(uint32_t bits) { return whole_lines((((size_t)1 << bits) + 1) * sizeof(uint32_t)); }

ct_code ct_sorted_expect(ct_table *table, uint64_t rows, ct_status *status) {
    const size_t parts = table->partition_count;
    if (rows > UINT32_MAX * (uint64_t)parts)
        return ct_fail(status, CT_CORRUPT, "table %s is said to have 2^32 rows or more", table->spec.name);
    ct_sorted_memory *memory = calloc(1, sizeof *memory);
    if (!memory) return ct_fail_memory(status, sizeof *memory, "a table's keys");
    /* Fewer buckets than twice as many as there must be; and each partition's ends. */
    memory->bytes = (size_t)rows * (sizeof(uint64_t) + sizeof(uint32_t) * 2 / BUCKET_ROWS) + parts * 4 * LINE_BYTES;
    void *space;
    const ct_code code = ct_table_allocate(table, memory->bytes, &space, status);
    if (code != CT_OK) {
        free(memory);
        return code;
    }
    memory->memory = space;
    table->sorted_memory = memory;
    return CT_OK;
}

/* --- filling --- */

/* keys: (count), rising, of the partition. */
static ct_code sorted_fill(ct_table *table, ct_partition *partition, const uint64_t *keys, size_t count, ct_status *status) {
    const uint32_t bits = bucket_bits(count);
    ct_sorted sorted = {.count = (uint32_t)count, .alive = (uint32_t)count};
    sorted.key_bytes = (uint8_t)key_bytes(table->partition_bits, bits);
    sorted.partition_bits = (uint8_t)table->partition_bits;
    sorted.bucket_shift = (uint8_t)(64 - bits);
    sorted.mask = UINT64_MAX >> (64 - 8 * sorted.key_bytes);
    const size_t bytes = keys_bytes(count, sorted.key_bytes) + starts_bytes(bits),
                 at = atomic_fetch_add(&table->sorted_memory->used, bytes);
    if (at + bytes > table->sorted_memory->bytes)
        return ct_fail(status, CT_CORRUPT, "table %s has more rows than store.json says", table->spec.name);
    char *memory = table->sorted_memory->memory + at;
    sorted.starts = (uint32_t *)(void *)memory;
    sorted.keys = (uint8_t *)memory + starts_bytes(bits);
    size_t bucket = 0;
    for (size_t i = 0; i < count; i++) {
        char key[8];
        ct_put_le64(key, keys[i]);
        memcpy(sorted.keys + i * sorted.key_bytes, key, sorted.key_bytes);
        for (const size_t of = ct_sorted_bucket(&sorted, keys[i]); bucket <= of; bucket++) sorted.starts[bucket] = (uint32_t)i;
    }
    for (; bucket <= (size_t)1 << bits; bucket++) sorted.starts[bucket] = (uint32_t)count;
    partition->sorted = sorted;
    partition->bytes += bytes;
    return CT_OK;
}

ct_code ct_filling_end(ct_filling *filling, ct_status *status) {
    ct_partition *partition = filling->partition;
    if (!partition) return CT_OK;
    CT_TRY(sorted_fill(filling->table, partition, filling->keys, filling->count, status));
    filling->partition = NULL;
    filling->count = 0;
    return ct_partition_trim(filling->table, partition, status);
}

static ct_code keep_key(ct_filling *filling, uint64_t key, ct_status *status) {
    if (filling->count == filling->key_room) {
        const size_t room = filling->key_room ? 2 * filling->key_room : 1024;
        uint64_t *keys = realloc(filling->keys, room * sizeof *keys);
        if (!keys) return ct_fail_memory(status, room * sizeof *keys, "a table's keys");
        filling->keys = keys;
        filling->key_room = room;
    }
    filling->keys[filling->count++] = key;
    return CT_OK;
}

ct_code ct_filling_put(ct_filling *filling, uint64_t key, const char *record, ct_status *status) {
    ct_table *table = filling->table;
    ct_partition *partition = &table->partitions[ct_partition_of(key, table->partition_bits)];
    if (partition != filling->partition) CT_TRY(ct_filling_end(filling, status));
    if (partition->sorted.count || (filling->count && key <= filling->keys[filling->count - 1]))
        return ct_fail(status, CT_CORRUPT, "table %s holds a key twice, or not in order", table->spec.name);
    filling->partition = partition;
    CT_TRY(keep_key(filling, key, status));
    ct_index_entry place[2] = {{.key = key, .slot = CT_SLOT_STUB}}; /* as in an index, with room for the counts behind it */
    CT_TRY(ct_record_decode(table, partition, filling->stored, record, true, place, status));
    if (!partition->counts.floats) return CT_OK;
    CT_TRY(ct_partition_reserve_counts(table, partition, filling->count, status));
    memcpy(ct_slab_at(&partition->counts, filling->count - 1), ct_entry_counts(place), sizeof(ct_key_counts));
    return CT_OK;
}

void ct_filling_deinit(ct_filling *filling) {
    free(filling->keys);
    *filling = (ct_filling){0};
}
